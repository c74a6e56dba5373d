//! The running nodes, as last known.

use std::sync::Arc;

use crate::lock::RwLock;

use tokio::sync::watch;
use zookeeper_client::{Client, Error, MultiReadResult, OneshotWatcher};

use super::batch::BATCH;
use super::tree;
use crate::cluster::queue::QueueName;
use crate::cluster::registry::{NodeRecord, QueueNames};

/// What is known of the nodes; kept while ZooKeeper is away.
pub struct Nodes {
    names: QueueNames,
    known: watch::Sender<Arc<[NodeRecord]>>,
    queues: RwLock<Arc<[QueueName]>>,
}

impl Nodes {
    pub fn new(names: QueueNames) -> Self {
        Self { names, known: watch::Sender::new(Arc::new([])), queues: RwLock::new(Arc::new([])) }
    }

    pub fn subscribe(&self) -> watch::Receiver<Arc<[NodeRecord]>> {
        self.known.subscribe()
    }

    /// The queues of every node, each once.
    pub fn queues(&self) -> Arc<[QueueName]> {
        self.queues.read().clone()
    }

    pub fn set(&self, mut records: Vec<NodeRecord>) {
        records.sort_unstable_by(|a, b| a.id.cmp(&b.id));
        let mut queues: Vec<QueueName> = records.iter().map(|record| self.names.queue(&record.queue_id)).collect();
        queues.sort_unstable();
        queues.dedup();
        *self.queues.write() = queues.into();
        self.known.send_if_modified(|known| {
            let changed = **known != *records;
            *known = records.into();
            changed
        });
    }
}

/// Reads the nodes that are there now, and leaves a watch that tells of the next change.
pub async fn list(client: &Client) -> Result<(Vec<NodeRecord>, OneshotWatcher), Error> {
    let (children, watcher) = client.list_and_watch_children(tree::NODES).await?;
    let mut records = Vec::with_capacity(children.len());
    for children in children.chunks(BATCH) {
        let mut reader = client.new_multi_reader();
        for child in children {
            reader.add_get_data(&format!("{}/{child}", tree::NODES))?;
        }
        for (child, result) in children.iter().zip(reader.commit().await?) {
            // One that has gone meanwhile fires the watch.
            let MultiReadResult::Data { data, .. } = result else { continue };
            match serde_json::from_slice(&data) {
                Ok(record) => records.push(record),
                Err(error) => tracing::warn!(child, %error, "a node's record cannot be read; it is ignored"),
            }
        }
    }
    Ok((records, watcher))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::registry::{Place, QueueId};

    #[test]
    fn nodes_that_share_a_queue_are_sent_to_once() {
        let names = QueueNames::new("mp").unwrap();
        let record = |id: &str, place| {
            let queue_id = QueueId { node: id.parse().unwrap(), place };
            let queue = names.queue(&queue_id);
            let (url, version) = (String::new(), String::new());
            NodeRecord { id: id.parse().unwrap(), queue_id, queue, url, version, started_at: 0 }
        };
        let nodes = Nodes::new(names.clone());
        let mut known = nodes.subscribe();
        nodes.set(vec![record("c", Place::Own), record("b", Place::Shard(1)), record("a", Place::Shard(1))]);
        assert!(known.has_changed().unwrap());
        let ids: Vec<String> = known.borrow_and_update().iter().map(|record| record.id.to_string()).collect();
        assert_eq!(ids, ["a", "b", "c"]);
        assert_eq!(nodes.queues().len(), 2);
        nodes.set(vec![record("c", Place::Own), record("b", Place::Shard(1)), record("a", Place::Shard(1))]);
        assert!(!known.has_changed().unwrap(), "nothing is news");
    }
}
