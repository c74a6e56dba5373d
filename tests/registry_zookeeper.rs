//! The registry against a real ZooKeeper: what it promises, and what happens when the network or the server fails.

mod support;

use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mailpush::cluster::registry::zookeeper::ZookeeperRegistry;
use mailpush::cluster::registry::{
    Directory, Discontinuity, Interest, NodeRecord, Place, QueueId, QueueNames, Registrar, RegistryError, RegistryHealth,
};
use mailpush::config::{Millis, RegistrySettings, Secret};
use mailpush::mail::key::Key;
use mailpush::mail::path::MailboxPath;
use mailpush::mail::user::UserName;
use support::zookeeper::{Proxy, TestZookeeper};
use tokio::sync::{OnceCell, mpsc};
use tokio::time::sleep;
use zookeeper_client as zk;

const PATIENCE: Duration = Duration::from_secs(20);
const SESSION_TIMEOUT: Duration = Duration::from_millis(2_000);
const SETTLE: Duration = Duration::from_millis(500);

/// Most tests share one server, each under a chroot of its own.
async fn shared_server() -> &'static TestZookeeper {
    static SERVER: OnceCell<TestZookeeper> = OnceCell::const_new();
    SERVER.get_or_init(TestZookeeper::start).await
}

fn settings(servers: &[&str], chroot: &str) -> RegistrySettings {
    RegistrySettings {
        ensembles: servers.iter().map(|server| (*server).to_owned()).collect(),
        chroot: chroot.to_owned(),
        session_timeout_ms: Millis(SESSION_TIMEOUT.as_millis() as u64),
        settle_ms: Millis(SETTLE.as_millis() as u64),
        lookup_timeout_ms: Millis(1_000),
        ..RegistrySettings::default()
    }
}

fn names() -> QueueNames {
    QueueNames::new("mp").unwrap()
}

async fn connect(settings: &RegistrySettings) -> Arc<ZookeeperRegistry> {
    ZookeeperRegistry::connect(settings, names()).await.expect("good settings")
}

async fn node(settings: &RegistrySettings, id: &str) -> Arc<ZookeeperRegistry> {
    let registry = connect(settings).await;
    within("announce", registry.announce(record(id))).await.unwrap();
    registry
}

fn record(id: &str) -> NodeRecord {
    let queue_id = QueueId { node: id.parse().unwrap(), place: Place::Own };
    let queue = names().queue(&queue_id);
    let (url, version) = (format!("http://{id}"), "1".to_owned());
    NodeRecord { id: queue_id.node.clone(), queue_id, queue, url, version, started_at: 1 }
}

fn inbox(user: &str) -> Key {
    Key::Mailbox(MailboxPath::new("#private", user, "INBOX").unwrap())
}

fn inboxes(count: usize) -> Vec<Key> {
    (0..count).map(|n| inbox(&format!("user{n}@example.org"))).collect()
}

/// Registers all at once and waits for every acknowledgement.
async fn register(registry: &ZookeeperRegistry, keys: &[Key]) {
    let all = futures::future::join_all(keys.iter().map(|key| registry.register(key.clone())));
    for answer in within("register", all).await {
        answer.unwrap();
    }
}

async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.unwrap_or_else(|_| panic!("{what}: not within {PATIENCE:?}"))
}

async fn eventually<F: Future<Output = bool>>(what: &str, mut condition: impl FnMut() -> F) {
    let deadline = Instant::now() + PATIENCE;
    while !condition().await {
        assert!(Instant::now() < deadline, "not within {PATIENCE:?}: {what}");
        sleep(Duration::from_millis(10)).await;
    }
}

async fn healthy(registry: &ZookeeperRegistry, what: &str, is: impl Fn(&RegistryHealth) -> bool) {
    within(what, registry.health().wait_for(|health| is(health))).await.unwrap();
}

fn is_lost(health: &RegistryHealth) -> bool {
    matches!(health, RegistryHealth::Lost { .. })
}

/// The queues that a publisher would send to, marked where it fell back.
async fn interest(registry: &ZookeeperRegistry, key: &Key) -> Vec<String> {
    match within("lookup", registry.lookup(std::slice::from_ref(key))).await.remove(0) {
        Interest::Queues(queues) => queues.iter().map(ToString::to_string).collect(),
        Interest::Everyone(queues) => queues.iter().map(|queue| format!("everyone: {queue}")).collect(),
    }
}

/// A bystander with a connection of its own, to see what is really there.
struct Witness(zk::Client);

impl Witness {
    async fn of(server: &str, chroot: &str) -> Self {
        let client = zk::Client::connect(server).await.expect("connect the witness");
        Self(client.chroot(chroot).expect("the chroot"))
    }

    /// Every registration, as `key's znode/queue id`.
    async fn registrations(&self) -> Vec<String> {
        let mut found = Vec::new();
        for bucket in self.0.list_children("/mailboxes").await.unwrap_or_default() {
            for key in self.0.list_children(&format!("/mailboxes/{bucket}")).await.unwrap_or_default() {
                let children = self.0.list_children(&format!("/mailboxes/{bucket}/{key}")).await.unwrap_or_default();
                found.extend(children.into_iter().map(|child| format!("{key}/{child}")));
            }
        }
        found.sort();
        found
    }

    async fn nodes(&self) -> Vec<String> {
        let mut nodes = self.0.list_children("/nodes").await.unwrap_or_default();
        nodes.sort();
        nodes
    }

    /// The path of a key's container, which must be there.
    async fn container(&self, name: &str) -> String {
        for bucket in self.0.list_children("/mailboxes").await.unwrap() {
            let path = format!("/mailboxes/{bucket}/{name}");
            if self.0.check_stat(&path).await.unwrap().is_some() {
                return path;
            }
        }
        panic!("no container {name}");
    }
}

async fn lost_or_restored(told: &mut mpsc::UnboundedReceiver<Discontinuity>) -> Discontinuity {
    within("a discontinuity", told.recv()).await.expect("an open channel")
}

/// Waits until every key has been told restored.
async fn all_restored(told: &mut mpsc::UnboundedReceiver<Discontinuity>, count: usize) {
    let mut restored = std::collections::HashSet::new();
    while restored.len() < count {
        if let Discontinuity::Restored { keys } = lost_or_restored(told).await {
            restored.extend(keys);
        }
    }
    assert_eq!(restored.len(), count);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registration_comes_and_goes() {
    let server = shared_server().await.address();
    let settings = settings(&[&server], "/comes/and/goes");
    let gateway = node(&settings, "gw-1").await;
    let witness = Witness::of(&server, "/comes/and/goes").await;
    assert_eq!(witness.nodes().await, ["gw-1"]);

    register(&gateway, &[inbox("bob@x.org"), Key::Account(UserName::new("eve@x.org").unwrap())]).await;
    // Again, twice at once: still one znode per key and node.
    register(&gateway, &[inbox("bob@x.org"), inbox("bob@x.org")]).await;
    assert_eq!(witness.registrations().await, ["#private:bob@x.org:INBOX/gw-1", "@eve@x.org/gw-1"]);

    let other = node(&settings, "gw-2").await;
    register(&other, &[inbox("bob@x.org")]).await;
    assert_eq!(interest(&other, &inbox("bob@x.org")).await, ["mp.node.gw-1", "mp.node.gw-2"]);
    assert_eq!(interest(&other, &inbox("nobody@x.org")).await, [] as [&str; 0]);

    gateway.unregister(inbox("bob@x.org"));
    eventually("unregistered", async || interest(&other, &inbox("bob@x.org")).await == ["mp.node.gw-2"]).await;

    let mut nodes = other.nodes();
    within("both nodes", nodes.wait_for(|nodes| nodes.len() == 2)).await.unwrap();
    gateway.close().await;
    other.close().await;
    assert_eq!(witness.registrations().await, [] as [&str; 0]);
    assert_eq!(witness.nodes().await, [] as [&str; 0]);
    assert!(matches!(gateway.register(inbox("bob@x.org")).await, Err(RegistryError::Closed)));
}
