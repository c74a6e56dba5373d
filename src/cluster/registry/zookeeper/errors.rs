//! What the errors of ZooKeeper and its client library mean to us: one table.
//!
//! An error is permanent only where the same request would fail for ever, whatever the ensemble's operator does. A right that
//! was taken away, a quota or a password that was changed is the operator's to mend: until then it is temporary.

use zookeeper_client::Error;

use crate::cluster::registry::RegistryError;

/// "The session requires SASL", which the library knows by its number only.
const NEEDS_SASL: i32 = -124;
/// "An ephemeral znode in a local session", likewise.
const LOCAL_SESSION: i32 = -120;

/// What an error means to a caller: whether asking again can help, and whose help it takes.
pub fn registry_error(error: &Error) -> RegistryError {
    let words = format!("ZooKeeper: {error}");
    match error {
        // The ensemble forbids it, or is set up otherwise, until its operator mends that.
        Error::NoAuth
        | Error::AuthFailed
        | Error::InvalidAcl
        | Error::QuotaExceeded
        | Error::NotReadOnly
        | Error::Unimplemented
        | Error::ReconfigDisabled
        // Somebody has put a znode where a container belongs.
        | Error::NoChildrenForEphemerals
        | Error::UnexpectedErrorCode(NEEDS_SASL | LOCAL_SESSION) => RegistryError::Denied(words),
        // What we ask for makes no sense: wrong settings, or a fault of ours.
        Error::BadArguments(_) | Error::MarshallingError => RegistryError::Refused(words),
        // Away, stalled, expired or overloaded; or others have just changed the same.
        Error::NoHosts
        | Error::Timeout
        | Error::ConnectionLoss
        | Error::SessionExpired
        | Error::SessionMoved
        | Error::ClientClosed
        | Error::Throttled
        | Error::RuntimeInconsistent
        | Error::UnmarshalError { .. }
        | Error::UnexpectedError(_)
        | Error::UnexpectedErrorCode(_)
        | Error::Custom(_)
        | Error::NoNode
        | Error::NodeExists
        | Error::NotEmpty
        | Error::BadVersion
        | Error::NoWatcher => RegistryError::Unreachable(words),
        // One that a later library adds is worth another try.
        _ => RegistryError::Unreachable(words),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_operator_can_mend_is_temporary_and_told_from_an_outage() {
        let denied = [
            Error::NoAuth,
            Error::AuthFailed,
            Error::InvalidAcl,
            Error::QuotaExceeded,
            Error::NotReadOnly,
            Error::Unimplemented,
            Error::ReconfigDisabled,
            Error::NoChildrenForEphemerals,
            Error::UnexpectedErrorCode(-124),
            Error::UnexpectedErrorCode(-120),
        ];
        for error in denied {
            let meant = registry_error(&error);
            assert!(matches!(meant, RegistryError::Denied(_)) && meant.is_transient(), "{error}: {meant:?}");
        }
    }

    #[test]
    fn what_comes_back_by_itself_is_temporary() {
        let away = [
            Error::NoHosts,
            Error::Timeout,
            Error::ConnectionLoss,
            Error::SessionExpired,
            Error::SessionMoved,
            Error::ClientClosed,
            Error::Throttled,
            Error::RuntimeInconsistent,
            Error::UnmarshalError { entity: "reply", reason: &"too short" },
            Error::UnexpectedError("a sentence".to_owned()),
            Error::UnexpectedErrorCode(-4),
            Error::NoNode,
            Error::NodeExists,
            Error::NotEmpty,
            Error::BadVersion,
            Error::NoWatcher,
        ];
        for error in away {
            let meant = registry_error(&error);
            assert!(matches!(meant, RegistryError::Unreachable(_)) && meant.is_transient(), "{error}: {meant:?}");
        }
    }

    #[test]
    fn only_a_request_that_makes_no_sense_is_permanent() {
        for error in [Error::BadArguments(&"a path"), Error::MarshallingError] {
            let meant = registry_error(&error);
            assert!(matches!(meant, RegistryError::Refused(_)) && !meant.is_transient(), "{error}: {meant:?}");
        }
    }
}
