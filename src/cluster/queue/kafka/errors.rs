//! What the errors of Kafka and librdkafka mean to us: one table of all codes.
//!
//! A code is permanent only where the same request would fail for ever, whatever the cluster's operator does. A right that
//! was taken away, a quota, a policy or a password that was changed is the operator's to mend: until then it is temporary.

use rdkafka::error::KafkaError;
use rdkafka::error::RDKafkaErrorCode as Code;

use crate::cluster::queue::{QueueError, QueueName};

/// What an error says of the request that failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Meaning {
    /// The topic, or this partition of it, does not exist.
    Missing,
    /// Our own buffer is full.
    Full,
    /// The broker takes no message of this size.
    TooLarge,
    /// The cluster is away, slow, or busy with itself: it comes back without anybody's help.
    Away,
    /// The cluster forbids it, until its operator allows it.
    Denied,
    /// The same request fails for ever.
    Refused,
}

/// The meaning of a code. One that a later librdkafka adds is worth another try.
pub(super) fn meaning_of(code: Code) -> Meaning {
    listed(code).unwrap_or(Meaning::Away)
}

/// The table. `None`: nobody has thought about this code yet, which a test does not allow.
fn listed(code: Code) -> Option<Meaning> {
    Some(match code {
        Code::UnknownTopic | Code::UnknownPartition | Code::UnknownTopicOrPartition | Code::UnknownTopicId => Meaning::Missing,
        Code::QueueFull => Meaning::Full,
        // The topic's or the broker's limit, which may be below ours.
        Code::MessageSizeTooLarge | Code::MessageBatchTooLarge => Meaning::TooLarge,

        // Rights.
        Code::TopicAuthorizationFailed
        | Code::GroupAuthorizationFailed
        | Code::ClusterAuthorizationFailed
        | Code::TransactionalIdAuthorizationFailed
        | Code::DelegationTokenAuthorizationFailed
        // Who we are: a password may be changed at the broker first, or a certificate replaced.
        | Code::SaslAuthenticationFailed
        | Code::Authentication
        | Code::UnsupportedSASLMechanism
        | Code::IllegalSASLState
        | Code::SSL
        | Code::SecurityDisabled
        | Code::PrincipalDeserializationFailure
        | Code::InvalidPrincipalType
        | Code::UnacceptableCredential
        | Code::DelegationTokenAuthDisabled
        | Code::DelegationTokenNotFound
        | Code::DelegationTokenOwnerMismatch
        | Code::DelegationTokenRequestNotAllowed
        | Code::DelegationTokenExpired
        // Policies and limits that an operator sets.
        | Code::PolicyViolation
        | Code::TopicDeletionDisabled
        | Code::GroupMaxSizeReached
        | Code::ReadOnly
        // More replicas than there are brokers *now*: so it is while one of them restarts.
        | Code::InvalidReplicationFactor
        // A broker whose disk or folder an operator has to mend.
        | Code::LogDirNotFound
        // An old broker, or one that was set up otherwise: it can be upgraded.
        | Code::UnsupportedVersion
        | Code::UnsupportedFeature
        | Code::UnsupportedForMessageFormat
        | Code::UnsupportedCompressionType
        | Code::UnsupportedAssignor
        | Code::BadCompression
        | Code::NotImplemented
        | Code::NotConfigured
        | Code::ListenerNotFound
        // Our clock is too far from the broker's.
        | Code::InvalidTimestamp => Meaning::Denied,

        // What we ask for makes no sense: wrong settings, or a fault of ours.
        Code::InvalidTopic
        | Code::InvalidPartitions
        | Code::InvalidReplicaAssignment
        | Code::InvalidConfig
        | Code::InvalidRequest
        | Code::InvalidArgument
        | Code::InvalidType
        | Code::InvalidRequiredAcks
        | Code::InvalidRecord
        | Code::InvalidMessageSize
        | Code::InvalidGroupId
        | Code::InvalidSessionTimeout
        | Code::InvalidCommitOffsetSize
        | Code::InvalidTransactionTimeout
        | Code::OffsetMetadataTooLarge
        | Code::DuplicateResource
        | Code::KeySerialization
        | Code::ValueSerialization => Meaning::Refused,

        // The brokers are away, restart, elect, or are slow.
        Code::BrokerDestroy
        | Code::DestroyBroker
        | Code::BrokerTransportFailure
        | Code::Resolve
        | Code::AllBrokersDown
        | Code::UnknownBroker
        | Code::NodeUpdate
        | Code::MessageTimedOut
        | Code::OperationTimedOut
        | Code::TimedOutQueue
        | Code::RequestTimedOut
        | Code::NetworkException
        | Code::BrokerNotAvailable
        | Code::LeaderNotAvailable
        | Code::NotLeaderForPartition
        | Code::ReplicaNotAvailable
        | Code::PreferredLeaderNotAvailable
        | Code::EligibleLeadersNotAvailable
        | Code::ElectionNotNeeded
        | Code::NotController
        | Code::StaleControllerEpoch
        | Code::StaleBrokerEpoch
        | Code::FencedLeaderEpoch
        | Code::UnknownLeaderEpoch
        | Code::OffsetNotAvailable
        | Code::ISRInsufficient
        | Code::NotEnoughReplicas
        | Code::NotEnoughReplicasAfterAppend
        | Code::KafkaStorageError
        | Code::ReassignmentInProgress
        | Code::NoReassignmentInProgress
        | Code::ThrottlingQuotaExceeded
        | Code::OperationNotAttempted
        | Code::RebootstrapRequired
        | Code::WaitCache
        | Code::WaitingForCoordinator
        | Code::CoordinatorLoadInProgress
        | Code::CoordinatorNotAvailable
        | Code::NotCoordinator
        | Code::InProgress
        | Code::PreviousInProgress
        | Code::Retry
        | Code::Partial
        | Code::Interrupted
        | Code::CriticalSystemResource
        | Code::FileSystem
        | Code::ResourceNotFound
        | Code::NoEnt
        // Bytes that were damaged on the way.
        | Code::BadMessage
        | Code::InvalidMessage
        | Code::Underflow
        | Code::UnknownProtocol
        // A producer that has lost its place; a new one takes over.
        | Code::Fatal
        | Code::State
        | Code::Conflict
        | Code::Inconsistent
        | Code::GaplessGuarantee
        | Code::Fenced
        | Code::ProducerFenced
        | Code::OutOfOrderSequenceNumber
        | Code::DuplicateSequenceNumber
        | Code::InvalidProducerEpoch
        | Code::InvalidProducerIdMapping
        | Code::UnknownProducerId
        | Code::InvalidDifferentRecord
        | Code::PurgeQueue
        | Code::PurgeInflight
        | Code::InvalidTransactionalState
        | Code::ConcurrentTransactions
        | Code::TransactionCoordinatorFenced
        // A reader that has to look again.
        | Code::AutoOffsetReset
        | Code::OffsetOutOfRange
        | Code::LogTruncation
        | Code::NoOffset
        | Code::FetchSessionIdNotFound
        | Code::InvalidFetchSessionEpoch
        | Code::KeyDeserialization
        | Code::ValueDeserialization
        // Consumer groups, which are not used.
        | Code::UnknownGroup
        | Code::ExistingSubscription
        | Code::AssignPartitions
        | Code::RevokePartitions
        | Code::AssignmentLost
        | Code::PollExceeded
        | Code::IllegalGeneration
        | Code::InconsistentGroupProtocol
        | Code::UnknownMemberId
        | Code::RebalanceInProgress
        | Code::NonEmptyGroup
        | Code::GroupIdNotFound
        | Code::GroupSubscribedToTopic
        | Code::MemberIdRequired
        | Code::FencedInstanceId
        | Code::FencedMemberEpoch
        | Code::UnreleasedInstanceId
        | Code::StaleMemberEpoch
        | Code::UnstableOffsetCommit
        // The brokers among themselves, telemetry, and what is no error at all.
        | Code::InconsistentVoterSet
        | Code::InvalidUpdateVersion
        | Code::FeatureUpdateFailed
        | Code::UnknownSubscriptionId
        | Code::TelemetryTooLarge
        | Code::TopicAlreadyExists
        | Code::PartitionEOF
        | Code::Outdated
        | Code::Application
        | Code::Noop
        | Code::NoError
        | Code::Fail
        | Code::Unknown => Meaning::Away,
        _ => return None,
    })
}

/// The code in an error. rdkafka's own `rdkafka_error_code` leaves out those of admin operations and transactions.
pub(super) fn code_of(error: &KafkaError) -> Option<Code> {
    match error {
        KafkaError::AdminOp(code) | KafkaError::MockCluster(code) => Some(*code),
        KafkaError::Transaction(error) => Some(error.code()),
        error => error.rdkafka_error_code(),
    }
}

/// Whether the error says that the topic, or this partition of it, does not exist.
pub(super) fn is_missing(error: &KafkaError) -> bool {
    code_of(error).is_some_and(|code| meaning_of(code) == Meaning::Missing)
}

/// What an error means for a queue.
pub(super) fn queue_error(queue: &QueueName, error: &KafkaError) -> QueueError {
    match (code_of(error), error) {
        (Some(code), _) => queue_error_of(queue, code),
        // Settings that were taken at the start: what is amiss now is a file or a resource, and can be mended.
        (None, KafkaError::ClientCreation(reason)) => QueueError::Denied(format!("no client can be made: {reason}")),
        (None, KafkaError::ClientConfig(..) | KafkaError::Nul(_)) => refused_setting(error),
        // Broken off, or not begun: nothing is known to be wrong with it.
        (None, error) => QueueError::Unreachable(error.to_string()),
    }
}

/// What a code means for a queue.
pub(super) fn queue_error_of(queue: &QueueName, code: Code) -> QueueError {
    match meaning_of(code) {
        Meaning::Missing => QueueError::NoSuchQueue(queue.clone()),
        Meaning::Full => QueueError::Full,
        Meaning::TooLarge => QueueError::TooLarge(code.to_string()),
        Meaning::Away => QueueError::Unreachable(code.to_string()),
        Meaning::Denied => QueueError::Denied(code.to_string()),
        Meaning::Refused => QueueError::Refused(code.to_string()),
    }
}

/// librdkafka's refusal of a setting, without the setting's value: it may be a secret.
pub(super) fn refused_setting(error: &KafkaError) -> QueueError {
    QueueError::Refused(match error {
        KafkaError::ClientConfig(_, text, name, _) if text.starts_with("No such configuration property") => {
            format!("librdkafka has no property {name:?}")
        }
        KafkaError::ClientConfig(_, _, name, _) => format!("librdkafka does not take this value of {name:?}"),
        KafkaError::ClientCreation(reason) => format!("librdkafka does not take these settings: {reason}"),
        error => error.to_string(),
    })
}

#[cfg(test)]
mod tests {
    use rdkafka::types::RDKafkaRespErr;

    use super::*;

    fn queue() -> QueueName {
        "mp.node.a".parse().unwrap()
    }

    /// Every code that this librdkafka knows.
    fn all_codes() -> Vec<Code> {
        // These two mark the ends of ranges; nothing fails with them.
        let is_mark = |code: &Code| matches!(code, Code::Begin | Code::End | Code::EndAll);
        let known = (-300..1_000).filter_map(|number| RDKafkaRespErr::try_from(number).ok()).map(Code::from);
        known.filter(|code| !is_mark(code)).collect()
    }

    #[test]
    fn every_code_has_been_thought_about() {
        let codes = all_codes();
        assert!(codes.len() > 150, "{}", codes.len());
        let forgotten: Vec<&Code> = codes.iter().filter(|code| listed(**code).is_none()).collect();
        assert!(forgotten.is_empty(), "{forgotten:?}");
    }

    #[test]
    fn what_an_operator_can_mend_is_temporary_whatever_operation_met_it() {
        for code in [
            Code::TopicAuthorizationFailed,
            Code::ClusterAuthorizationFailed,
            Code::GroupAuthorizationFailed,
            Code::SaslAuthenticationFailed,
            Code::Authentication,
            Code::PolicyViolation,
            Code::InvalidReplicationFactor,
            Code::ThrottlingQuotaExceeded,
            Code::OperationTimedOut,
            Code::NotController,
            Code::NotEnoughReplicas,
            Code::KafkaStorageError,
            Code::Fatal,
        ] {
            for error in [
                KafkaError::MessageProduction(code),
                KafkaError::AdminOp(code),
                KafkaError::MetadataFetch(code),
                KafkaError::MessageConsumption(code),
                KafkaError::Global(code),
            ] {
                assert!(queue_error(&queue(), &error).is_transient(), "{error}");
            }
        }
    }

    #[test]
    fn few_codes_are_permanent() {
        let permanent: Vec<Code> = all_codes().into_iter().filter(|code| meaning_of(*code) == Meaning::Refused).collect();
        assert_eq!(permanent.len(), 18, "{permanent:?}");
        for code in permanent {
            assert!(matches!(queue_error(&queue(), &KafkaError::AdminOp(code)), QueueError::Refused(_)), "{code}");
        }
    }

    #[test]
    fn a_denial_is_told_from_an_outage() {
        let denied = queue_error(&queue(), &KafkaError::AdminOp(Code::TopicAuthorizationFailed));
        assert!(matches!(denied, QueueError::Denied(_)), "{denied}");
        let away = queue_error(&queue(), &KafkaError::AdminOp(Code::OperationTimedOut));
        assert!(matches!(away, QueueError::Unreachable(_)), "{away}");
        let missing = queue_error(&queue(), &KafkaError::AdminOp(Code::UnknownTopicOrPartition));
        assert!(matches!(missing, QueueError::NoSuchQueue(_)), "{missing}");
    }

    #[test]
    fn an_error_without_a_code_is_permanent_only_where_a_setting_is_wrong() {
        for (error, transient) in [
            (KafkaError::Canceled, true),
            (KafkaError::NoMessageReceived, true),
            (KafkaError::AdminOpCreation("timed out".to_owned()), true),
            (KafkaError::ClientCreation("no thread".to_owned()), true),
            (KafkaError::Seek("timed out".to_owned()), true),
            (KafkaError::Nul(std::ffi::CString::new("a\0b").unwrap_err()), false),
        ] {
            assert_eq!(queue_error(&queue(), &error).is_transient(), transient, "{error}");
        }
    }
}
