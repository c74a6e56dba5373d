//! Queues: where a node's events wait.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::config::{TopicName, TopicPrefix};

pub mod gc;
pub mod kafka;
pub mod local;

/// A queue's name: a topic with one partition; `topic/partition` of a shared one; or `topic/*`, a topic of however many
/// partitions, to which records are only written, each to the partition that its key's hash picks (as the firehose).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct QueueName {
    topic: Arc<str>,
    partition: Partition,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Partition {
    Only,
    Number(u32),
    ByKey,
}

/// Why a text is not a queue's name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a queue is TOPIC or TOPIC/PARTITION; a topic is 1 to 249 letters, digits, '.', '_' or '-'")]
pub struct InvalidQueue;

impl QueueName {
    pub fn topic(topic: &str) -> Result<Self, InvalidQueue> {
        Self::check(topic)?;
        Ok(Self { topic: topic.into(), partition: Partition::Only })
    }

    pub fn partition(topic: &str, partition: u32) -> Result<Self, InvalidQueue> {
        Self::check(topic)?;
        Ok(Self { topic: topic.into(), partition: Partition::Number(partition) })
    }

    /// A topic whose records are spread by their keys.
    pub fn by_key(topic: &str) -> Result<Self, InvalidQueue> {
        Self::check(topic)?;
        Ok(Self { topic: topic.into(), partition: Partition::ByKey })
    }

    /// A topic of a cluster: `PREFIX.name`, where `name` is one of ours and short.
    pub(super) fn below(prefix: &TopicPrefix, name: &str) -> Self {
        Self { topic: format!("{prefix}.{name}").into(), partition: Partition::Only }
    }

    /// The topic that receives every event: its records are spread by their keys.
    pub fn firehose(topic: &TopicName) -> Self {
        Self { topic: topic.as_str().into(), partition: Partition::ByKey }
    }

    fn check(topic: &str) -> Result<(), InvalidQueue> {
        TopicName::is_valid(topic).then_some(()).ok_or(InvalidQueue)
    }

    pub fn topic_name(&self) -> &str {
        &self.topic
    }

    /// The partition to write to and read from.
    pub fn partition_number(&self) -> u32 {
        match self.partition {
            Partition::Number(number) => number,
            Partition::Only | Partition::ByKey => 0,
        }
    }

    /// Whether this is one partition of a topic that several nodes share.
    pub fn is_partition(&self) -> bool {
        matches!(self.partition, Partition::Number(_))
    }

    /// Whether a record's key picks the partition.
    pub fn is_by_key(&self) -> bool {
        self.partition == Partition::ByKey
    }
}

impl fmt::Display for QueueName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.partition {
            Partition::Only => f.write_str(&self.topic),
            Partition::Number(number) => write!(f, "{}/{number}", self.topic),
            Partition::ByKey => write!(f, "{}/*", self.topic),
        }
    }
}

impl FromStr for QueueName {
    type Err = InvalidQueue;

    fn from_str(text: &str) -> Result<Self, InvalidQueue> {
        match text.split_once('/') {
            None => Self::topic(text),
            Some((topic, "*")) => Self::by_key(topic),
            Some((topic, partition)) => Self::partition(topic, partition.parse().map_err(|_| InvalidQueue)?),
        }
    }
}

impl TryFrom<String> for QueueName {
    type Error = InvalidQueue;

    fn try_from(text: String) -> Result<Self, InvalidQueue> {
        text.parse()
    }
}

impl From<QueueName> for String {
    fn from(queue: QueueName) -> Self {
        queue.to_string()
    }
}

/// Where in a queue: `queue@offset`. What a client sends back when it returns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Position {
    pub queue: QueueName,
    pub offset: u64,
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.queue, self.offset)
    }
}

impl FromStr for Position {
    type Err = InvalidQueue;

    fn from_str(text: &str) -> Result<Self, InvalidQueue> {
        let (queue, offset) = text.rsplit_once('@').ok_or(InvalidQueue)?;
        Ok(Self { queue: queue.parse()?, offset: offset.parse().map_err(|_| InvalidQueue)? })
    }
}

/// What went wrong with a queue, and so whether to try again.
#[derive(Debug, Clone, thiserror::Error)]
pub enum QueueError {
    /// The cluster is away or slow: try again later.
    #[error("the queue is not reachable: {0}")]
    Unreachable(String),
    /// Too much is waiting to be sent already: try again later.
    #[error("too many events are waiting to be sent")]
    Full,
    /// The queue is not there: its node is gone, and nobody would read it.
    #[error("there is no queue {0}")]
    NoSuchQueue(QueueName),
    /// The cluster forbids it, or lacks something, until its operator mends that: try again later.
    #[error("the queue does not allow it: {0}")]
    Denied(String),
    /// The queue takes no message of this size: a smaller one may go.
    #[error("the event is too large for the queue: {0}")]
    TooLarge(String),
    /// The same request fails for ever: wrong settings, or a request that makes no sense.
    #[error("the queue refused: {0}")]
    Refused(String),
}

impl QueueError {
    /// Whether the same request may succeed later.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Unreachable(_) | Self::Full | Self::Denied(_) => true,
            Self::NoSuchQueue(_) | Self::TooLarge(_) | Self::Refused(_) => false,
        }
    }
}

/// Sends to queues. Guarantees: once `send` has returned `Ok`, the payload will come out of the queue at
/// least once, as long as its retention lasts; sends with the same `key` to the same queue, each begun
/// after the one before had been *called* (not awaited), come out in that order.
#[async_trait]
pub trait Producer: Send + Sync {
    async fn send(&self, queue: &QueueName, key: &str, payload: Bytes) -> Result<(), QueueError>;

    /// Waits until everything that was accepted has been sent, at most until the send timeout.
    async fn flush(&self);
}

/// One message of a queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    pub offset: u64,
    /// When the queue took it in, in milliseconds since 1970, UTC; 0 where unknown.
    pub queued_at: u64,
    pub payload: Bytes,
}

/// What a consumer hears.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Delivery {
    Record(Record),
    /// Messages may have been lost here (the offset is gone, the topic was made anew): continuity ends (I-6).
    Gap {
        reason: String,
    },
}

/// Reads one queue, from the moment of opening on, in order. Guarantees: every record sent after
/// [`QueueSystem::open`] has returned is delivered or covered by a [`Delivery::Gap`]; outages of the queue are
/// waited out and reading goes on where it was.
#[async_trait]
pub trait Consumer: Send {
    /// The next delivery; pending while there is none. Cancel-safe.
    async fn next(&mut self) -> Delivery;
}

/// How a queue is doing, for readiness and `/v1/nodes`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct QueueHealth {
    pub state: QueueState,
    /// Records in the node's queue that are not consumed yet.
    pub lag: Option<u64>,
}

/// What a node can do with its queues.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum QueueState {
    /// Nobody has asked yet.
    #[default]
    Unknown,
    /// Read and write.
    Good,
    /// The node's own queue is gone; its consumer makes it anew.
    Missing { reason: String },
    /// Read its own queue, but not write to some queue.
    WriteDenied { reason: String },
    /// Not read its own queue: its clients hear nothing.
    ReadDenied { reason: String },
    /// Nothing: the queue system did not answer within the last few seconds.
    Unreachable { reason: String },
}

impl QueueState {
    /// Whether nothing is in the way of events.
    pub fn is_good(&self) -> bool {
        matches!(self, Self::Good | Self::Missing { .. })
    }

    /// Whether this node's own clients hear of what others publish.
    pub fn is_readable(&self) -> bool {
        matches!(self, Self::Good | Self::Missing { .. } | Self::WriteDenied { .. })
    }
}

/// In plain words, for readiness.
impl fmt::Display for QueueState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown => f.write_str("not asked yet"),
            Self::Good | Self::Missing { .. } => f.write_str("reachable"),
            Self::WriteDenied { reason } => write!(f, "this node may not write: {reason}"),
            Self::ReadDenied { reason } => write!(f, "this node may not read its queue: {reason}"),
            Self::Unreachable { reason } => write!(f, "not reachable: {reason}"),
        }
    }
}

/// A topic that belongs to one node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeQueue {
    pub queue: QueueName,
    /// Nothing was written to it later than this, ms since 1970: the time of the newest record, or, where the
    /// retention has removed that, the retention ago. `None`: it was never written to, or that is not known.
    pub last_used: Option<u64>,
}

/// A queue system: makes, opens, lists and removes queues.
#[async_trait]
pub trait QueueSystem: Send + Sync {
    /// A sender to any queue.
    fn producer(&self) -> Arc<dyn Producer>;

    /// Makes the queue if it is not there. Must have returned before its node registers.
    async fn ensure(&self, queue: &QueueName) -> Result<(), QueueError>;

    /// Starts reading at the end: the end is a number when this returns, so nothing sent later is missed.
    async fn open(&self, queue: &QueueName) -> Result<Box<dyn Consumer>, QueueError>;

    /// The topics with this prefix, each the queue of one node, with their last use: for gc.
    async fn list(&self, topic_prefix: &str) -> Result<Vec<NodeQueue>, QueueError>;

    /// The same topics by name alone: cheap enough to be asked for while publishing.
    async fn names(&self, topic_prefix: &str) -> Result<Vec<QueueName>, QueueError>;

    async fn remove(&self, queue: &QueueName) -> Result<(), QueueError>;

    /// Asks the queue how it is; `position` is the next offset that a consumer of `queue` will read.
    async fn health(&self, queue: &QueueName, position: Option<u64>) -> QueueHealth;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_positions_read_back() {
        for text in ["mailpush.node.abc", "mailpush.shards/17", "mailpush.firehose/*"] {
            assert_eq!(text.parse::<QueueName>().unwrap().to_string(), text);
            let position: Position = format!("{text}@42").parse().unwrap();
            assert_eq!((position.offset, position.to_string()), (42, format!("{text}@42")));
        }
        for bad in ["", "a b", "a/b", "a/-1", "..", &"x".repeat(250)] {
            assert!(bad.parse::<QueueName>().is_err(), "{bad:?}");
        }
        assert!("abc".parse::<Position>().is_err());
    }
}
