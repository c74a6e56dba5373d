//! No registry at all: one queue that every node reads, and every event goes into it.

use std::sync::Arc;

use crate::lock::Mutex;

use async_trait::async_trait;
use tokio::sync::{mpsc, watch};

use super::{Directory, Discontinuity, Interest, NodeRecord, QueueNames, Registrar, RegistryError, RegistryHealth};
use crate::cluster::queue::QueueName;
use crate::mail::key::Key;

/// The registry of the broadcast topology. Nothing can be stale, lost or unreachable: an event goes to the
/// shared queue, and nodes filter. Of other nodes it knows nothing.
pub struct BroadcastRegistry {
    shared: Arc<[QueueName]>,
    nodes: watch::Sender<Arc<[NodeRecord]>>,
    health: watch::Sender<RegistryHealth>,
    /// Never used: it keeps the channel open, for a closed one would look like an end.
    _telling: mpsc::UnboundedSender<Discontinuity>,
    discontinuities: Mutex<Option<mpsc::UnboundedReceiver<Discontinuity>>>,
}

impl BroadcastRegistry {
    pub fn new(names: &QueueNames) -> Arc<Self> {
        let (telling, discontinuities) = mpsc::unbounded_channel();
        Arc::new(Self {
            shared: Arc::new([names.shared()]),
            nodes: watch::Sender::new(Arc::new([])),
            health: watch::Sender::new(RegistryHealth::Connected),
            _telling: telling,
            discontinuities: Mutex::new(Some(discontinuities)),
        })
    }
}

#[async_trait]
impl Registrar for BroadcastRegistry {
    async fn announce(&self, node: NodeRecord) -> Result<(), RegistryError> {
        self.nodes.send_replace(Arc::new([node]));
        Ok(())
    }

    async fn register(&self, _key: Key) -> Result<(), RegistryError> {
        Ok(())
    }

    fn unregister(&self, _key: Key) {}

    fn discontinuities(&self) -> mpsc::UnboundedReceiver<Discontinuity> {
        let taken = self.discontinuities.lock().take();
        taken.unwrap_or_else(|| mpsc::unbounded_channel().1)
    }

    fn health(&self) -> watch::Receiver<RegistryHealth> {
        self.health.subscribe()
    }

    async fn close(&self) {
        self.nodes.send_replace(Arc::new([]));
    }
}

#[async_trait]
impl Directory for BroadcastRegistry {
    fn cached(&self, _key: &Key) -> Option<Arc<[QueueName]>> {
        Some(self.shared.clone())
    }

    async fn lookup(&self, keys: &[Key]) -> Vec<Interest> {
        keys.iter().map(|_| Interest::Queues(self.shared.clone())).collect()
    }

    fn nodes(&self) -> watch::Receiver<Arc<[NodeRecord]>> {
        self.nodes.subscribe()
    }

    async fn probe(&self) -> Result<(), RegistryError> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mail::user::UserName;

    #[tokio::test]
    async fn every_event_goes_to_the_shared_queue() {
        let names = QueueNames::new("mp").unwrap();
        let registry = BroadcastRegistry::new(&names);
        let key = Key::Account(UserName::new("bob").unwrap());
        let shared: Arc<[QueueName]> = Arc::new([names.shared()]);
        assert_eq!(registry.lookup(std::slice::from_ref(&key)).await, [Interest::Queues(shared.clone())]);
        assert_eq!(registry.cached(&key), Some(shared));
        assert!(registry.health().borrow().is_connected());
        registry.register(key.clone()).await.unwrap();
        registry.unregister(key);
        let mut discontinuities = registry.discontinuities();
        registry.close().await;
        assert!(matches!(discontinuities.try_recv(), Err(mpsc::error::TryRecvError::Empty)));
    }
}
