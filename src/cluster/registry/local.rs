//! A registry in process, for `dev` and tests: exact and immediate.

use std::collections::{BTreeSet, HashMap};
use std::pin::Pin;
use std::sync::Arc;

use async_trait::async_trait;
use tokio::sync::{mpsc, watch};

use super::{Directory, Discontinuity, Interest, NodeRecord, QueueId, QueueNames, Registrar, RegistryError, RegistryHealth};
use crate::cluster::queue::QueueName;
use crate::lock::{Mutex, MutexGuard};
use crate::mail::ids::NodeId;
use crate::mail::key::Key;

mod acls;

pub use acls::LocalAcls;

/// What the nodes of one process share.
pub struct LocalRegistry {
    names: QueueNames,
    /// Under each key the texts of queue ids.
    registrations: Mutex<HashMap<Key, BTreeSet<String>>>,
    nodes: watch::Sender<Arc<[NodeRecord]>>,
    acls: Arc<LocalAcls>,
}

impl LocalRegistry {
    pub fn new(names: QueueNames) -> Arc<Self> {
        let nodes: Arc<[NodeRecord]> = Arc::new([]);
        let (nodes, acls) = (watch::Sender::new(nodes), LocalAcls::new());
        Arc::new(Self { names, registrations: Mutex::default(), nodes, acls })
    }

    /// The ACLs, the same for all nodes.
    pub fn acls(&self) -> Arc<LocalAcls> {
        self.acls.clone()
    }

    /// A handle for one node (or one publisher). With its last clone everything it registered goes, as an
    /// ephemeral znode would.
    pub fn node(self: &Arc<Self>) -> Arc<LocalNode> {
        let (telling, discontinuities) = mpsc::unbounded_channel();
        Arc::new(LocalNode {
            registry: self.clone(),
            announced: Mutex::default(),
            health: watch::Sender::new(RegistryHealth::Connected),
            telling,
            discontinuities: Mutex::new(Some(discontinuities)),
        })
    }

    /// The queues registered for `key`, each once.
    fn queues(&self, key: &Key) -> Arc<[QueueName]> {
        let registrations = self.registrations();
        let ids = registrations.get(key).into_iter().flatten().filter_map(|id| id.parse::<QueueId>().ok());
        deduplicated(ids.map(|id| self.names.queue(&id)))
    }

    fn registrations(&self) -> MutexGuard<'_, HashMap<Key, BTreeSet<String>>> {
        self.registrations.lock()
    }
}

/// One node's side of a [`LocalRegistry`], and a publisher's.
pub struct LocalNode {
    registry: Arc<LocalRegistry>,
    announced: Mutex<Option<NodeRecord>>,
    health: watch::Sender<RegistryHealth>,
    telling: mpsc::UnboundedSender<Discontinuity>,
    discontinuities: Mutex<Option<mpsc::UnboundedReceiver<Discontinuity>>>,
}

impl LocalNode {
    /// For tests: from now on the registry is doing so for this node. Unless it is connected, lookups fall
    /// back to every node, and registrations wait.
    #[allow(dead_code, reason = "for tests")]
    pub fn set_health(&self, health: RegistryHealth) {
        self.health.send_replace(health);
    }

    /// For tests: breaks this node's continuity, as an outage would.
    #[allow(dead_code, reason = "for tests")]
    pub fn tell(&self, discontinuity: Discontinuity) {
        // Nobody may have taken the other end; then nobody wants to know.
        let _ = self.telling.send(discontinuity);
    }

    fn announced(&self) -> MutexGuard<'_, Option<NodeRecord>> {
        self.announced.lock()
    }

    fn is_connected(&self) -> bool {
        self.health.borrow().is_connected()
    }

    /// Takes away what this node has put there.
    fn leave(&self) {
        let Some(record) = self.announced().take() else { return };
        let id = record.queue_id.to_string();
        self.registry.registrations().retain(|_, ids| {
            ids.remove(&id);
            !ids.is_empty()
        });
        self.registry.nodes.send_modify(|nodes| *nodes = without(nodes, &record.id).collect());
    }
}

impl Drop for LocalNode {
    fn drop(&mut self) {
        self.leave();
    }
}

fn without<'a>(nodes: &'a [NodeRecord], id: &'a NodeId) -> impl Iterator<Item = NodeRecord> + 'a {
    nodes.iter().filter(move |node| node.id != *id).cloned()
}

fn deduplicated(queues: impl Iterator<Item = QueueName>) -> Arc<[QueueName]> {
    let queues: BTreeSet<QueueName> = queues.collect();
    queues.into_iter().collect()
}

#[async_trait]
impl Registrar for LocalNode {
    async fn announce(&self, node: NodeRecord) -> Result<(), RegistryError> {
        let mut announced = self.announced();
        let own = announced.as_ref().map(|record| record.id.clone());
        let mut taken = false;
        self.registry.nodes.send_if_modified(|nodes| {
            taken = own.as_ref() != Some(&node.id) && nodes.iter().any(|other| other.id == node.id);
            if !taken {
                let mut now: Vec<NodeRecord> = without(nodes, own.as_ref().unwrap_or(&node.id)).collect();
                now.push(node.clone());
                now.sort_unstable_by(|a, b| a.id.cmp(&b.id));
                *nodes = now.into();
            }
            !taken
        });
        if taken {
            return Err(RegistryError::NodeIdInUse(node.id));
        }
        *announced = Some(node);
        Ok(())
    }

    // Written out, so that the call itself takes effect, in order, and not the first poll.
    fn register<'a, 'b>(&'a self, key: Key) -> Pin<Box<dyn Future<Output = Result<(), RegistryError>> + Send + 'b>>
    where
        'a: 'b,
        Self: 'b,
    {
        let id = self.announced().as_ref().map(|record| record.queue_id.to_string());
        let registered = id.map(|id| self.registry.registrations().entry(key).or_default().insert(id));
        Box::pin(async move {
            if registered.is_none() {
                return Err(RegistryError::Refused("a node registers after it has been announced".to_owned()));
            }
            let connected = self.health.subscribe().wait_for(RegistryHealth::is_connected).await.map(drop);
            connected.map_err(|_| RegistryError::Closed)
        })
    }

    fn unregister(&self, key: Key) {
        let Some(id) = self.announced().as_ref().map(|record| record.queue_id.to_string()) else { return };
        let mut registrations = self.registry.registrations();
        if let Some(ids) = registrations.get_mut(&key) {
            ids.remove(&id);
            if ids.is_empty() {
                registrations.remove(&key);
            }
        }
    }

    fn discontinuities(&self) -> mpsc::UnboundedReceiver<Discontinuity> {
        let taken = self.discontinuities.lock().take();
        taken.unwrap_or_else(|| mpsc::unbounded_channel().1)
    }

    fn health(&self) -> watch::Receiver<RegistryHealth> {
        self.health.subscribe()
    }

    async fn close(&self) {
        self.leave();
    }
}

#[async_trait]
impl Directory for LocalNode {
    fn cached(&self, key: &Key) -> Option<Arc<[QueueName]>> {
        self.is_connected().then(|| self.registry.queues(key))
    }

    async fn lookup(&self, keys: &[Key]) -> Vec<Interest> {
        if self.is_connected() {
            return keys.iter().map(|key| Interest::Queues(self.registry.queues(key))).collect();
        }
        let nodes = self.registry.nodes.borrow().clone();
        let everyone = deduplicated(nodes.iter().map(|node| self.registry.names.queue(&node.queue_id)));
        keys.iter().map(|_| Interest::Everyone(everyone.clone())).collect()
    }

    fn nodes(&self) -> watch::Receiver<Arc<[NodeRecord]>> {
        self.registry.nodes.subscribe()
    }

    async fn probe(&self) -> Result<(), RegistryError> {
        match &*self.health.borrow() {
            RegistryHealth::Connected => Ok(()),
            RegistryHealth::Disconnected { reason } | RegistryHealth::InDoubt { reason } | RegistryHealth::Lost { reason } => {
                Err(RegistryError::Unreachable(reason.clone()))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;
    use crate::cluster::registry::Place;
    use crate::mail::user::UserName;

    fn key(name: &str) -> Key {
        Key::Account(UserName::new(name).unwrap())
    }

    async fn announced(registry: &Arc<LocalRegistry>, id: &str, place: Place) -> Arc<LocalNode> {
        let node = registry.node();
        node.announce(record(registry, id, place)).await.unwrap();
        node
    }

    fn record(registry: &LocalRegistry, id: &str, place: Place) -> NodeRecord {
        let queue_id = QueueId { node: id.parse().unwrap(), place };
        let queue = registry.names.queue(&queue_id);
        NodeRecord { id: queue_id.node.clone(), queue_id, queue, url: String::new(), version: String::new(), started_at: 0 }
    }

    async fn interest(node: &LocalNode, name: &str) -> Vec<String> {
        match &node.lookup(&[key(name)]).await[0] {
            Interest::Queues(queues) => queues.iter().map(QueueName::to_string).collect(),
            Interest::Everyone(queues) => queues.iter().map(|queue| format!("everyone: {queue}")).collect(),
        }
    }

    #[tokio::test]
    async fn nodes_find_each_others_registrations() {
        let registry = LocalRegistry::new(QueueNames::new("mp").unwrap());
        let (a, b) = (announced(&registry, "a", Place::Own).await, announced(&registry, "b", Place::Shard(3)).await);
        let c = announced(&registry, "c", Place::Shard(3)).await;
        for node in [&a, &b, &c] {
            node.register(key("bob")).await.unwrap();
            node.register(key("bob")).await.unwrap();
        }
        assert_eq!(interest(&a, "bob").await, ["mp.node.a", "mp.shards/3"]);
        b.unregister(key("bob"));
        assert_eq!(interest(&a, "bob").await, ["mp.node.a", "mp.shards/3"], "c reads that shard too");
        drop(c);
        assert_eq!(interest(&a, "bob").await, ["mp.node.a"]);
        a.close().await;
        assert_eq!(interest(&b, "bob").await, [] as [&str; 0]);
        assert_eq!(b.nodes().borrow().len(), 1);
    }

    #[tokio::test]
    async fn two_nodes_cannot_have_one_id() {
        let registry = LocalRegistry::new(QueueNames::new("mp").unwrap());
        let first = announced(&registry, "a", Place::Own).await;
        let second = registry.node();
        let refused = second.announce(record(&registry, "a", Place::Own)).await;
        assert!(matches!(refused, Err(RegistryError::NodeIdInUse(id)) if id.as_str() == "a"));
        assert!(second.register(key("bob")).await.is_err());
        drop(second);
        first.announce(record(&registry, "a", Place::Own)).await.unwrap();
        assert_eq!(first.nodes().borrow().len(), 1);
    }

    #[tokio::test]
    async fn what_is_called_first_happens_first() {
        let registry = LocalRegistry::new(QueueNames::new("mp").unwrap());
        let node = announced(&registry, "a", Place::Own).await;
        let registering = node.register(key("bob"));
        node.unregister(key("bob"));
        registering.await.unwrap();
        assert_eq!(interest(&node, "bob").await, [] as [&str; 0]);
    }

    #[tokio::test]
    async fn an_outage_is_played() {
        let registry = LocalRegistry::new(QueueNames::new("mp").unwrap());
        let node = announced(&registry, "a", Place::Own).await;
        let mut told = node.discontinuities();
        node.set_health(RegistryHealth::Lost { reason: "a test".to_owned() });
        assert_eq!(node.cached(&key("bob")), None);
        assert_eq!(interest(&node, "bob").await, ["everyone: mp.node.a"]);
        assert!(node.probe().await.is_err());
        let mut registering = node.register(key("bob"));
        assert!((&mut registering).now_or_never().is_none());
        node.tell(Discontinuity::Lost { keys: vec![key("eve")] });
        assert_eq!(told.recv().await, Some(Discontinuity::Lost { keys: vec![key("eve")] }));
        node.set_health(RegistryHealth::Connected);
        registering.await.unwrap();
        assert_eq!(interest(&node, "bob").await, ["mp.node.a"]);
    }
}
