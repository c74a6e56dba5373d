//! The registry against a real ZooKeeper: what it promises, and what happens when the network or the server fails.

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
use tokio::sync::mpsc;
use tokio::time::sleep;
use zookeeper_client as zk;

use crate::support::zookeeper::{Proxy, TestZookeeper};

const PATIENCE: Duration = Duration::from_secs(30);
const SESSION_TIMEOUT: Duration = Duration::from_millis(2_000);
const SETTLE: Duration = Duration::from_millis(500);

fn settings(servers: &[&str], chroot: &str) -> RegistrySettings {
    RegistrySettings {
        ensembles: servers.iter().map(|server| server.parse().expect("a server")).collect(),
        chroot: chroot.parse().expect("a chroot"),
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

fn told_health(registry: &ZookeeperRegistry) -> String {
    format!("{:?}", *registry.health().borrow())
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
        let connector = zk::Client::connector().with_session_timeout(Duration::from_secs(60));
        let client = connector.connect(server).await.expect("connect the witness");
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

    /// Where a key's container is to be: the tree is written down here once more, for other programs read it.
    fn container_of(&self, key: &Key) -> String {
        format!("/mailboxes/{:02x}/{}", key.stable_hash() % 256, key.znode_name().as_str())
    }

    /// The sessions that hold `child` under those of the keys where there is one.
    async fn owners(&self, child: &str, keys: &[Key]) -> Vec<i64> {
        let mut owners = Vec::new();
        for keys in keys.chunks(500) {
            let mut reader = self.0.new_multi_reader();
            for key in keys {
                reader.add_get_data(&format!("{}/{child}", self.container_of(key))).unwrap();
            }
            owners.extend(reader.commit().await.unwrap().into_iter().filter_map(|result| match result {
                zk::MultiReadResult::Data { stat, .. } => Some(stat.ephemeral_owner),
                _ => None,
            }));
        }
        owners
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
    let server = TestZookeeper::shared().await.address();
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

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_is_cut_off_vanishes_and_comes_back() {
    let server = TestZookeeper::shared().await.address();
    let proxy = Proxy::to(&server).await;
    let chroot = "/cut";
    let gateway = node(&settings(&[&proxy.address()], chroot), "gw-1").await;
    let publisher = connect(&settings(&[&server], chroot)).await;
    let witness = Witness::of(&server, chroot).await;
    let mut told = gateway.discontinuities();
    let keys = inboxes(300);
    register(&gateway, &keys).await;

    proxy.cut();
    eventually("its znodes vanish", async || witness.registrations().await.is_empty()).await;
    eventually("nobody is told to send to it", async || interest(&publisher, &keys[0]).await.is_empty()).await;
    healthy(&gateway, "it knows", is_lost).await;
    assert!(matches!(lost_or_restored(&mut told).await, Discontinuity::Lost { keys } if keys.len() == 300));
    // What is asked meanwhile waits.
    let mut late = Box::pin(gateway.register(inbox("late@x.org")));
    gateway.unregister(keys[0].clone());
    assert!(futures::poll!(&mut late).is_pending());

    proxy.pass();
    within("the late one", late).await.unwrap();
    all_restored(&mut told, 299).await;
    healthy(&gateway, "healthy again", RegistryHealth::is_connected).await;
    assert_eq!(witness.registrations().await.len(), 300);
    assert_eq!(witness.nodes().await, ["gw-1"]);
    assert_eq!(interest(&publisher, &keys[1]).await, ["mp.node.gw-1"]);
    assert_eq!(interest(&publisher, &keys[0]).await, [] as [&str; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_short_stall_breaks_nothing() {
    let server = TestZookeeper::shared().await.address();
    let proxy = Proxy::to(&server).await;
    let gateway = node(&settings(&[&proxy.address()], "/stall"), "gw-1").await;
    let mut told = gateway.discontinuities();
    register(&gateway, &inboxes(10)).await;

    proxy.stall();
    healthy(&gateway, "it notices", |health| !health.is_connected()).await;
    proxy.pass();
    healthy(&gateway, "healthy again", RegistryHealth::is_connected).await;
    register(&gateway, &[inbox("bob@x.org")]).await;
    assert_eq!(Witness::of(&server, "/stall").await.registrations().await.len(), 11);
    assert!(told.try_recv().is_err(), "the session lived on: nothing was lost, nothing is told");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_of_zookeeper_is_lived_through() {
    let mut server = TestZookeeper::start().await;
    let settings = settings(&[&server.address()], "/restart");
    let gateway = node(&settings, "gw-1").await;
    let publisher = connect(&settings).await;
    let keys = inboxes(50);
    register(&gateway, &keys).await;
    assert_eq!(interest(&publisher, &keys[0]).await, ["mp.node.gw-1"]);
    within("nodes", publisher.nodes().wait_for(|nodes| nodes.len() == 1)).await.unwrap();

    server.kill();
    eventually("the publisher falls back", async || interest(&publisher, &keys[0]).await == ["everyone: mp.node.gw-1"]).await;
    assert!(publisher.cached(&keys[0]).is_none());
    assert!(publisher.probe().await.is_err());
    healthy(&gateway, "it notices", |health| !health.is_connected()).await;
    let late = gateway.register(inbox("late@x.org"));

    server.restart().await;
    within("the late one", late).await.unwrap();
    healthy(&gateway, "healthy again", RegistryHealth::is_connected).await;
    healthy(&publisher, "healthy again", RegistryHealth::is_connected).await;
    publisher.probe().await.unwrap();
    for key in &keys {
        eventually("found again", async || interest(&publisher, key).await == ["mp.node.gw-1"]).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_server_is_not_believed() {
    let server = TestZookeeper::start().await;
    let settings = settings(&[&server.address()], "/frozen");
    let gateway = node(&settings, "gw-1").await;
    let publisher = connect(&settings).await;
    let key = inbox("bob@x.org");
    register(&gateway, std::slice::from_ref(&key)).await;
    eventually("it is cached", async || {
        publisher.lookup(std::slice::from_ref(&key)).await;
        publisher.cached(&key).is_some()
    })
    .await;

    server.freeze();
    let frozen = Instant::now();
    eventually("the cache is not trusted", async || publisher.cached(&key).is_none()).await;
    assert!(frozen.elapsed() <= SETTLE, "{:?}", frozen.elapsed());
    let asked = Instant::now();
    assert_eq!(interest(&publisher, &key).await, ["everyone: mp.node.gw-1"]);
    assert!(asked.elapsed() < Duration::from_millis(1_500), "{:?}", asked.elapsed());
    server.thaw();
    eventually("trusted again", async || interest(&publisher, &key).await == ["mp.node.gw-1"]).await;
    healthy(&gateway, "healthy again", RegistryHealth::is_connected).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cached_absence_ends_within_settle() {
    let server = TestZookeeper::shared().await.address();
    let settings = settings(&[&server], "/absence");
    let gateway = node(&settings, "gw-1").await;
    let publisher = connect(&settings).await;
    for n in 0..20 {
        let key = inbox(&format!("user{n}"));
        eventually("its absence is cached", async || {
            publisher.lookup(std::slice::from_ref(&key)).await;
            publisher.cached(&key).is_some_and(|queues| queues.is_empty())
        })
        .await;

        register(&gateway, std::slice::from_ref(&key)).await;
        let acknowledged = Instant::now();
        eventually("it is seen", async || interest(&publisher, &key).await == ["mp.node.gw-1"]).await;
        assert!(acknowledged.elapsed() <= SETTLE, "{:?}", acknowledged.elapsed());

        // And the other way round: a cached presence ends too.
        eventually("it is cached", async || {
            publisher.lookup(std::slice::from_ref(&key)).await;
            publisher.cached(&key).is_some()
        })
        .await;
        gateway.unregister(key.clone());
        eventually("it is gone", async || interest(&publisher, &key).await.is_empty()).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn connecting_to_nothing_is_no_failure() {
    let mut server = TestZookeeper::start().await;
    server.kill();
    let settings = settings(&[&server.address()], "/mailpush");
    let started = Instant::now();
    let publisher = connect(&settings).await;
    assert!(started.elapsed() < Duration::from_secs(2));
    assert_eq!(publisher.lookup(&[inbox("bob"), inbox("eve")]).await, vec![Interest::Everyone([].into()); 2]);
    assert!(!publisher.health().borrow().is_connected());

    let gateway = connect(&settings).await;
    let announcing = gateway.announce(record("gw-1"));
    tokio::pin!(announcing);
    assert!(futures::poll!(&mut announcing).is_pending());
    server.restart().await;
    within("announce", announcing).await.unwrap();
    register(&gateway, &[inbox("bob")]).await;
    eventually("found", async || interest(&publisher, &inbox("bob")).await == ["mp.node.gw-1"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_may_vanish_at_any_moment() {
    let server = TestZookeeper::shared().await.address();
    let settings = settings(&[&server], "/container");
    let gateway = node(&settings, "gw-1").await;
    let witness = Witness::of(&server, "/container").await;
    let keys = inboxes(20);
    register(&gateway, &keys).await;
    let container = witness.container_of(&keys[0]);

    // Somebody removes containers as fast as they empty, while the keys come and go.
    let stop = tokio_util::sync::CancellationToken::new();
    let remover = tokio::spawn({
        let (stop, keys) = (stop.clone(), keys.clone());
        let server = server.clone();
        async move {
            let witness = Witness::of(&server, "/container").await;
            let mut removed = 0;
            while !stop.is_cancelled() {
                for key in &keys {
                    let path = witness.container_of(key);
                    removed += usize::from(witness.0.delete(&path, None).await.is_ok());
                }
            }
            removed
        }
    });
    for _ in 0..40 {
        keys.iter().for_each(|key| gateway.unregister(key.clone()));
        eventually("all are gone", async || witness.registrations().await.is_empty()).await;
        register(&gateway, &keys).await;
    }
    stop.cancel();
    assert!(remover.await.unwrap() > 0);
    assert_eq!(witness.registrations().await.len(), 20);

    // The server's own removal, of what has been empty for a second.
    gateway.unregister(keys[0].clone());
    eventually("the container is removed", async || witness.0.check_stat(&container).await.unwrap().is_none()).await;
    register(&gateway, &keys[..1]).await;
    assert_eq!(witness.registrations().await.len(), 20);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restarted_node_takes_over_from_its_old_session() {
    let server = TestZookeeper::shared().await.address();
    let proxy = Proxy::to(&server).await;
    let chroot = "/takeover";
    let keys = inboxes(30);
    let crashed = node(&settings(&[&proxy.address()], chroot), "gw-1").await;
    register(&crashed, &keys).await;
    proxy.cut();

    // Its old session holds the znodes for a while yet. They must not vanish with it under the new one.
    let restarted = node(&settings(&[&server], chroot), "gw-1").await;
    register(&restarted, &keys).await;
    let witness = Witness::of(&server, chroot).await;
    let mine = witness.owners("gw-1", &keys).await;
    assert_eq!(mine.len(), keys.len());
    assert!(mine.iter().all(|owner| *owner == mine[0]), "{mine:?}");
    drop(crashed);
}

#[tokio::test(flavor = "multi_thread")]
async fn leftovers_of_a_foreign_session_are_replaced() {
    let server = TestZookeeper::shared().await.address();
    let chroot = "/leftovers";
    let gateway = node(&settings(&[&server], chroot), "gw-1").await;
    let witness = Witness::of(&server, chroot).await;
    let keys = inboxes(20);
    for key in &keys {
        let everybody = zk::Acls::anyone_all();
        let container = witness.container_of(key);
        witness.0.create(&container, b"", &zk::CreateMode::Container.with_acls(everybody)).await.unwrap();
        let path = format!("{container}/gw-1");
        witness.0.create(&path, b"", &zk::CreateMode::Ephemeral.with_acls(everybody)).await.unwrap();
    }
    // One alone, then many together: they go different ways.
    register(&gateway, &keys[..1]).await;
    register(&gateway, &keys).await;
    let (foreign, owners) = (witness.0.session_id().0, witness.owners("gw-1", &keys).await);
    assert_eq!(owners.len(), keys.len());
    assert!(owners.iter().all(|owner| *owner != foreign));
}

#[tokio::test(flavor = "multi_thread")]
async fn two_running_nodes_cannot_have_one_id() {
    let server = TestZookeeper::shared().await.address();
    let settings = settings(&[&server], "/same");
    let first = node(&settings, "gw-1").await;
    let second = connect(&settings).await;
    let refused = within("announce", second.announce(record("gw-1"))).await;
    assert!(matches!(refused, Err(RegistryError::NodeIdInUse(id)) if id.as_str() == "gw-1"));
    // The first one goes: its place is free.
    first.close().await;
    within("announce", second.announce(record("gw-1"))).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stranger_is_refused() {
    let server = TestZookeeper::shared().await.address();
    let chroot = "/protected/tree";
    let mut known = settings(&[&server], chroot);
    known.auth_user = "mailpush".to_owned();
    known.auth_password = Secret::new("correct horse");
    let gateway = node(&known, "gw-1").await;
    let key = inbox("bob@x.org");
    register(&gateway, std::slice::from_ref(&key)).await;

    let mut wrong = known.clone();
    wrong.auth_password = Secret::new("a guess");
    for stranger in [settings(&[&server], chroot), wrong] {
        let stranger = connect(&stranger).await;
        let mut announcing = stranger.announce(record("gw-2"));
        assert!(futures::poll!(&mut announcing).is_pending());
        eventually("the refusal is told", async || told_health(&stranger).contains("not authorized")).await;
        assert!(futures::poll!(&mut announcing).is_pending(), "an operator may let it in yet");
        assert_eq!(interest(&stranger, &key).await, [] as [&str; 0], "it sees nothing, and knows of nobody");
    }
    let witness = Witness::of(&server, chroot).await;
    let container = witness.container_of(&key);
    for path in [&format!("{container}/gw-1"), &container, "/mailboxes/00", "/mailboxes", "/nodes/gw-1", "/nodes"] {
        assert_eq!(witness.0.delete(path, None).await, Err(zk::Error::NoAuth), "{path}");
        assert_eq!(witness.0.list_children(path).await, Err(zk::Error::NoAuth), "{path}");
    }
    let root = Witness::of(&server, "/protected").await;
    assert_eq!(root.0.delete("/tree", None).await, Err(zk::Error::NoAuth));

    let publisher = connect(&known).await;
    assert_eq!(interest(&publisher, &key).await, ["mp.node.gw-1"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_over_long_key_is_registered_under_its_digest() {
    let server = TestZookeeper::shared().await.address();
    let settings = settings(&[&server], "/long");
    let gateway = node(&settings, "gw-1").await;
    let name = "x".repeat(5_000);
    let long = Key::Mailbox(MailboxPath::new("#private", "bob@x.org", &name).unwrap());
    let mut keys = inboxes(10);
    keys.push(long.clone());
    register(&gateway, &keys).await;
    assert_eq!(interest(&gateway, &long).await, ["mp.node.gw-1"]);
    let witness = Witness::of(&server, "/long").await;
    let (data, _) = witness.0.get_data(&witness.container_of(&long)).await.unwrap();
    assert_eq!(String::from_utf8(data).unwrap(), format!("#private:bob@x.org:{name}"));
    gateway.unregister(long);
    eventually("it is gone", async || witness.registrations().await.len() == 10).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_keys_are_spread_over_sessions_and_restored() {
    let server = TestZookeeper::shared().await.address();
    let proxy = Proxy::to(&server).await;
    let chroot = "/many";
    let budget = 64 * 1024;
    let settings = settings(&[&proxy.address()], chroot);
    let gateway = ZookeeperRegistry::connect_with_budget(&settings, names(), budget).await.unwrap();
    within("announce", gateway.announce(record("gw-1"))).await.unwrap();
    let mut told = gateway.discontinuities();
    let keys = inboxes(6_000);
    let started = Instant::now();
    register(&gateway, &keys).await;
    println!("registered {} keys in {:?}", keys.len(), started.elapsed());

    let witness = Witness::of(&server, chroot).await;
    let mut held = std::collections::HashMap::<i64, usize>::new();
    let owners = witness.owners("gw-1", &keys).await;
    assert_eq!(owners.len(), keys.len());
    for (key, owner) in keys.iter().zip(owners) {
        *held.entry(owner).or_default() += 4 + chroot.len() + witness.container_of(key).len() + "/gw-1".len();
    }
    assert!(held.len() >= 6, "{held:?}");
    assert!(held.values().all(|bytes| *bytes <= budget), "{held:?}");

    proxy.cut();
    // Each session ends in its own time.
    eventually("all are gone", async || witness.owners("gw-1", &keys).await.is_empty()).await;
    proxy.pass();
    let started = Instant::now();
    all_restored(&mut told, keys.len()).await;
    println!("restored {} keys in {:?}", keys.len(), started.elapsed());
    assert_eq!(witness.owners("gw-1", &keys).await.len(), keys.len());

    let started = Instant::now();
    within("close", gateway.close()).await;
    println!("closed in {:?}", started.elapsed());
    assert_eq!(witness.registrations().await, [] as [&str; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_the_churn_what_was_asked_last_stands() {
    let server = TestZookeeper::shared().await.address();
    let proxy = Proxy::to(&server).await;
    let chroot = "/churn";
    let gateway = node(&settings(&[&proxy.address()], chroot), "gw-1").await;
    let keys = inboxes(200);
    let (first, second) = keys.split_at(100);
    let mut seed = 42_u64;
    for round in 0..60 {
        for key in &keys {
            // A fixed pseudo-random order of calls.
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            if seed >> 63 == 0 {
                drop(gateway.register(key.clone()));
            } else {
                gateway.unregister(key.clone());
            }
        }
        match round % 20 {
            7 => proxy.cut(),
            9 => proxy.pass(),
            _ => {}
        }
        sleep(Duration::from_millis(seed >> 60)).await;
    }
    for key in second {
        drop(gateway.register(key.clone()));
        gateway.unregister(key.clone());
    }
    register(&gateway, first).await;
    let witness = Witness::of(&server, chroot).await;
    let mut expected: Vec<String> = first.iter().map(|key| format!("{}/gw-1", key.znode_name().as_str())).collect();
    expected.sort();
    eventually("what was asked last stands", async || witness.registrations().await == expected).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_ensembles_share_the_keys() {
    let (first, second) = (TestZookeeper::shared().await.address(), TestZookeeper::start().await);
    let settings = settings(&[&first, &second.address()], "/two");
    let gateway = node(&settings, "gw-1").await;
    let publisher = connect(&settings).await;
    let keys = inboxes(400);
    register(&gateway, &keys).await;
    let (one, two) = (Witness::of(&first, "/two").await, Witness::of(&second.address(), "/two").await);
    let shares = (one.registrations().await.len(), two.registrations().await.len());
    assert_eq!(shares.0 + shares.1, 400);
    assert!(shares.0 > 150 && shares.1 > 150, "{shares:?}");
    assert_eq!((one.nodes().await, two.nodes().await), (vec!["gw-1".to_owned()], vec![]));
    let found = publisher.lookup(&keys).await;
    assert!(found.iter().all(|interest| matches!(interest, Interest::Queues(queues) if queues.len() == 1)));

    // Half of the cluster goes: only its keys fall back.
    drop(second);
    eventually("half falls back", async || {
        let found = publisher.lookup(&keys).await;
        found.iter().filter(|interest| matches!(interest, Interest::Everyone(all) if all.len() == 1)).count() == shares.1
    })
    .await;
    let started = Instant::now();
    gateway.close().await;
    assert!(started.elapsed() < Duration::from_secs(9), "{:?}", started.elapsed());
    assert_eq!(one.registrations().await, [] as [&str; 0]);
}

/// Settings with a short round of looks.
fn audited(server: &str, chroot: &str) -> RegistrySettings {
    RegistrySettings { audit_ms: Millis(500), ..settings(&[server], chroot) }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_administrator_deletes_is_made_again_and_told() {
    let server = TestZookeeper::shared().await.address();
    let chroot = "/deleted";
    let settings = audited(&server, chroot);
    let gateway = node(&settings, "gw-1").await;
    let publisher = connect(&settings).await;
    let mut told = gateway.discontinuities();
    // More than one look takes.
    let keys = inboxes(250);
    register(&gateway, &keys).await;
    let witness = Witness::of(&server, chroot).await;

    // One registration, one with its container, and one that somebody else has put in its place.
    for key in &keys[..3] {
        witness.0.delete(&format!("{}/gw-1", witness.container_of(key)), None).await.unwrap();
    }
    let _ = witness.0.delete(&witness.container_of(&keys[1]), None).await;
    let foreign = format!("{}/gw-1", witness.container_of(&keys[2]));
    let _ = witness.0.create(&foreign, b"", &zk::CreateMode::Persistent.with_acls(zk::Acls::anyone_all())).await;
    let mut restored = std::collections::HashSet::new();
    while restored.len() < 3 {
        match lost_or_restored(&mut told).await {
            Discontinuity::Restored { keys } | Discontinuity::Lost { keys } => restored.extend(keys),
            Discontinuity::NodeRestored => panic!("its record was not touched"),
        }
    }
    assert_eq!(restored, keys[..3].iter().cloned().collect(), "these and no others");
    let owners = witness.owners("gw-1", &keys).await;
    assert_eq!(owners.len(), 250);
    assert!(owners.iter().all(|owner| *owner == owners[0]), "all are the node's own");
    for key in &keys[..3] {
        eventually("a publisher finds it", async || interest(&publisher, key).await == ["mp.node.gw-1"]).await;
    }
    healthy(&gateway, "healthy again", RegistryHealth::is_connected).await;

    // The node's own record, deleted or overwritten.
    witness.0.delete("/nodes/gw-1", None).await.unwrap();
    while lost_or_restored(&mut told).await != Discontinuity::NodeRestored {}
    assert_eq!(witness.nodes().await, ["gw-1"]);
    witness.0.set_data("/nodes/gw-1", b"what is this?", None).await.unwrap();
    while lost_or_restored(&mut told).await != Discontinuity::NodeRestored {}
    within("nodes", publisher.nodes().wait_for(|nodes| nodes.len() == 1)).await.unwrap();
    healthy(&gateway, "healthy again", RegistryHealth::is_connected).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tree_that_is_deleted_whole_is_made_again() {
    let server = TestZookeeper::shared().await.address();
    let chroot = "/felled";
    let settings = audited(&server, chroot);
    let gateway = node(&settings, "gw-1").await;
    let publisher = connect(&settings).await;
    let mut told = gateway.discontinuities();
    let keys = inboxes(20);
    register(&gateway, &keys).await;
    let root = zk::Client::connect(&server).await.unwrap();
    // From the leaves up, again while the node makes something meanwhile.
    while root.check_stat(chroot).await.unwrap().is_some() {
        let mut paths = vec![chroot.to_owned()];
        let mut next = 0;
        while let Some(path) = paths.get(next).cloned() {
            let children = root.list_children(&path).await.unwrap_or_default();
            paths.extend(children.into_iter().map(|child| format!("{path}/{child}")));
            next += 1;
        }
        for path in paths.iter().rev() {
            let _ = root.delete(path, None).await;
        }
    }
    all_restored(&mut told, keys.len()).await;
    let witness = Witness::of(&server, chroot).await;
    eventually("everything stands", async || witness.registrations().await.len() == 20).await;
    eventually("the node is known", async || witness.nodes().await == ["gw-1"]).await;
    eventually("a publisher finds it", async || interest(&publisher, &keys[0]).await == ["mp.node.gw-1"]).await;
    register(&gateway, &[inbox("new@example.org")]).await;
    within("nodes", publisher.nodes().wait_for(|nodes| nodes.len() == 1)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_right_that_is_taken_away_is_waited_for() {
    let server = TestZookeeper::shared().await.address();
    let chroot = "/denied";
    let settings = audited(&server, chroot);
    let gateway = node(&settings, "gw-1").await;
    let publisher = connect(&settings).await;
    let (here, there) = (inbox("one@example.org"), inbox("two@example.org"));
    register(&gateway, std::slice::from_ref(&here)).await;
    let witness = Witness::of(&server, chroot).await;
    let bucket = |key: &Key| witness.container_of(key).rsplit_once('/').unwrap().0.to_owned();
    assert_ne!(bucket(&here), bucket(&there));

    let only = |permission| [zk::Acl::new(permission | zk::Permission::ADMIN, zk::AuthId::anyone())];
    witness.0.set_acl(&bucket(&there), &only(zk::Permission::READ), None).await.unwrap();
    let denied = within("an answer", gateway.register(there.clone())).await;
    assert!(matches!(&denied, Err(error @ RegistryError::Denied(_)) if error.is_transient()), "{denied:?}");
    eventually("readiness says so", async || told_health(&gateway).contains("not authorized")).await;
    // What is allowed is not held up by it.
    register(&gateway, &[inbox("three@example.org")]).await;
    assert_eq!(interest(&publisher, &here).await, ["mp.node.gw-1"]);

    let waiting = gateway.register(there.clone());
    witness.0.set_acl(&bucket(&there), &only(zk::Permission::ALL), None).await.unwrap();
    within("the right is back", waiting).await.unwrap();
    healthy(&gateway, "healthy again", RegistryHealth::is_connected).await;
    eventually("a publisher finds it", async || interest(&publisher, &there).await == ["mp.node.gw-1"]).await;

    // A publisher that may not look anything up tells everybody, and says so.
    witness.0.set_acl(&witness.container_of(&here), &only(zk::Permission::ADMIN), None).await.unwrap();
    let other = connect(&settings).await;
    within("nodes", other.nodes().wait_for(|nodes| nodes.len() == 1)).await.unwrap();
    assert_eq!(interest(&other, &here).await, ["everyone: mp.node.gw-1"]);
    assert!(!other.health().borrow().is_connected());
    witness.0.set_acl(&witness.container_of(&here), &only(zk::Permission::ALL), None).await.unwrap();
    eventually("it is let in again", async || interest(&other, &here).await == ["mp.node.gw-1"]).await;
    healthy(&other, "healthy again", RegistryHealth::is_connected).await;
}
