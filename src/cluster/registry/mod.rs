//! The registry: which queues want the events of which key.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, watch};

use super::queue::QueueName;
use crate::config::TopicPrefix;
use crate::mail::ids::{InvalidId, NodeId};
use crate::mail::key::Key;

pub mod broadcast;
pub mod local;
pub mod zookeeper;

/// How a node stands in the registry under each key it watches: the name of its ephemeral znode there.
/// `NODE` has a queue of its own; `NODE@pN` reads partition N of the shards; `NODE@all` reads the shared queue.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct QueueId {
    pub node: NodeId,
    pub place: Place,
}

/// Which queue a node reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Place {
    Own,
    Shard(u32),
    Shared,
}

impl fmt::Display for QueueId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.place {
            Place::Own => write!(f, "{}", self.node),
            Place::Shard(partition) => write!(f, "{}@p{partition}", self.node),
            Place::Shared => write!(f, "{}@all", self.node),
        }
    }
}

impl FromStr for QueueId {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<Self, InvalidId> {
        let (node, place) = match text.split_once('@') {
            None => (text, Place::Own),
            Some((node, "all")) => (node, Place::Shared),
            Some((node, shard)) => {
                let number = shard.strip_prefix('p').and_then(|n| n.parse().ok());
                (node, Place::Shard(number.ok_or(InvalidId::Node)?))
            }
        };
        Ok(Self { node: node.parse()?, place })
    }
}

impl TryFrom<String> for QueueId {
    type Error = InvalidId;

    fn try_from(text: String) -> Result<Self, InvalidId> {
        text.parse()
    }
}

impl From<QueueId> for String {
    fn from(id: QueueId) -> Self {
        id.to_string()
    }
}

/// The names of a cluster's queues: all follow from one prefix.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueueNames {
    prefix: TopicPrefix,
    shared: QueueName,
}

impl QueueNames {
    /// `prefix` begins every topic of the cluster: letters, digits, `.`, `_`, `-`, at most 100.
    #[allow(dead_code, reason = "for tests: settings have a prefix already")]
    pub fn new(prefix: &str) -> Result<Self, super::queue::InvalidQueue> {
        prefix.parse().map(|prefix| Self::of(&prefix)).map_err(|_| super::queue::InvalidQueue)
    }

    /// The names that follow from a prefix.
    pub fn of(prefix: &TopicPrefix) -> Self {
        Self { prefix: prefix.clone(), shared: QueueName::below(prefix, "all") }
    }

    /// What the topics of all nodes begin with.
    pub fn node_prefix(&self) -> String {
        format!("{}.node.", self.prefix)
    }

    pub fn shards_topic(&self) -> String {
        format!("{}.shards", self.prefix)
    }

    /// The partitions that nodes share in the sharded topology.
    pub fn shards(&self, count: u32) -> Vec<QueueName> {
        (0..count).filter_map(|partition| QueueName::partition(&self.shards_topic(), partition).ok()).collect()
    }

    /// The queue that `id` reads.
    pub fn queue(&self, id: &QueueId) -> QueueName {
        let name = match id.place {
            Place::Own => QueueName::topic(&format!("{}.node.{}", self.prefix, id.node)),
            Place::Shard(partition) => QueueName::partition(&self.shards_topic(), partition),
            Place::Shared => return self.shared(),
        };
        // A prefix of 100 and a node id of 40 characters, both checked, are a valid topic.
        name.unwrap_or_else(|_| self.shared())
    }

    /// The queue that all nodes read in the broadcast topology.
    pub fn shared(&self) -> QueueName {
        self.shared.clone()
    }

    /// The node whose own queue this is.
    pub fn node_of(&self, queue: &QueueName) -> Option<NodeId> {
        queue.topic_name().strip_prefix(&self.node_prefix())?.parse().ok()
    }
}

/// What a running node says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeRecord {
    pub id: NodeId,
    pub queue_id: QueueId,
    pub queue: QueueName,
    /// Where its REST interface is reached.
    pub url: String,
    pub version: String,
    /// Milliseconds since 1970, UTC.
    pub started_at: u64,
}

/// What went wrong with the registry.
#[derive(Debug, Clone, thiserror::Error)]
pub enum RegistryError {
    #[error("the registry is not reachable: {0}")]
    Unreachable(String),
    #[error("node id {0} is in use by another running node")]
    NodeIdInUse(NodeId),
    /// The registry forbids it, or lacks something, until its operator mends that: try again later.
    #[error("the registry does not allow it: {0}")]
    Denied(String),
    /// The same request fails for ever: wrong settings, or a request that makes no sense.
    #[error("the registry refused: {0}")]
    Refused(String),
    #[error("the registry is closed")]
    Closed,
}

impl RegistryError {
    /// Whether the same request may succeed later.
    pub fn is_transient(&self) -> bool {
        match self {
            // A node that is closing goes; another one, or its successor, takes the request.
            Self::Unreachable(_) | Self::Denied(_) | Self::Closed => true,
            Self::NodeIdInUse(_) | Self::Refused(_) => false,
        }
    }
}

/// How the registry is doing, for readiness.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RegistryHealth {
    Connected,
    /// Away, and registrations surely stand.
    Disconnected {
        reason: String,
    },
    /// Away for more than half a session timeout: registrations may be gone.
    InDoubt {
        reason: String,
    },
    /// Away for a session timeout or more: registrations are as good as gone (I-6).
    Lost {
        reason: String,
    },
}

impl RegistryHealth {
    pub fn is_connected(&self) -> bool {
        *self == Self::Connected
    }
}

/// A break in the proof that every change reached this node (I-6).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Discontinuity {
    /// These registrations are as good as gone, and the registry cannot be asked. Repeated while it lasts.
    Lost { keys: Vec<Key> },
    /// These registrations were gone and stand again as of now; they are not settled yet (I-5).
    Restored { keys: Vec<Key> },
    /// The node's own record was gone and stands again: what goes to every node (renames, say) went past this one. The
    /// registrations are not touched by it.
    NodeRestored,
}

/// A node's side. Guarantees: one registration per key, whatever is asked; operations on one key take effect
/// in the order in which they were called; after an outage or an expired session everything registered is
/// registered again, and told as [`Discontinuity`].
#[async_trait]
pub trait Registrar: Send + Sync {
    /// Makes the node known. Fails where another running node has the same id.
    async fn announce(&self, node: NodeRecord) -> Result<(), RegistryError>;

    /// Returns once the registration is acknowledged, however long that takes: callers bound their own patience.
    /// Dropping the future does not undo the registration; [`Registrar::unregister`] does.
    async fn register(&self, key: Key) -> Result<(), RegistryError>;

    /// Returns at once; takes effect soon, and is retried until it does.
    fn unregister(&self, key: Key);

    /// The breaks from now on. Taken once, by the node's presence.
    fn discontinuities(&self) -> mpsc::UnboundedReceiver<Discontinuity>;

    fn health(&self) -> watch::Receiver<RegistryHealth>;

    /// Removes every registration and the node itself, in batches (I-14), then ends.
    async fn close(&self);
}

/// Who wants a key's events.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Interest {
    /// Exactly these queues; often none.
    Queues(Arc<[QueueName]>),
    /// The registry cannot be trusted now: every node it last knew, perhaps none (then ask the queue system).
    Everyone(Arc<[QueueName]>),
}

/// A publisher's side. Guarantees: an answer [`Interest::Queues`] holds every registration that was acknowledged
/// more than `settle` before the question (I-5), and while that cannot be known the answer is
/// [`Interest::Everyone`]; it comes within the lookup timeout.
#[async_trait]
pub trait Directory: Send + Sync {
    /// The answer, where it is known without asking anybody: never stale by more than `settle`.
    fn cached(&self, key: &Key) -> Option<Arc<[QueueName]>>;

    /// One answer per key, in their order.
    async fn lookup(&self, keys: &[Key]) -> Vec<Interest>;

    /// The running nodes, kept current; the last known ones while the registry is away.
    fn nodes(&self) -> watch::Receiver<Arc<[NodeRecord]>>;

    /// `Ok` once the registry has been asked something and has answered.
    async fn probe(&self) -> Result<(), RegistryError>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queue_ids_read_back_and_name_their_queue() {
        let names = QueueNames::new("mp").unwrap();
        for (id, queue) in [("gw-1", "mp.node.gw-1"), ("gw-1@p17", "mp.shards/17"), ("gw-1@all", "mp.all")] {
            let read: QueueId = id.parse().unwrap();
            assert_eq!(read.to_string(), id);
            assert_eq!(names.queue(&read).to_string(), queue);
        }
        assert_eq!(names.node_of(&"mp.node.gw-1".parse().unwrap()), Some("gw-1".parse().unwrap()));
        assert_eq!(names.node_of(&"mp.shards/1".parse().unwrap()), None);
        for bad in ["", "@all", "gw-1@", "gw-1@px", "gw/1"] {
            assert!(bad.parse::<QueueId>().is_err(), "{bad:?}");
        }
    }
}
