//! The registry in a real ZooKeeper: lookups that are cached and lookups that are not, registrations, and their
//! return after a session was lost.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use futures::future::join_all;
use mailpush::cluster::registry::zookeeper::ZookeeperRegistry;
use mailpush::cluster::registry::{Directory, Discontinuity, Interest, NodeRecord, Place, QueueId, QueueNames, Registrar};
use mailpush::config::{Millis, RegistrySettings};
use mailpush::mail::key::Key;

use super::report::{Report, Target, quantile};
use super::support::wait::eventually;
use super::support::zookeeper::{Proxy, TestZookeeper};

const KEYS: usize = 20_000;
const CACHED: usize = 5_000;
const CALLERS: usize = 100;
const ROUNDS: usize = 5;
const REGISTERED: usize = 100_000;

/// Cached and uncached lookups.
pub async fn run(report: &mut Report) {
    println!("lookup");
    let zookeeper = TestZookeeper::start().await;
    let settings = settings(&zookeeper.address());
    let node = node(&settings).await;
    let keys: Arc<[Key]> = (0..KEYS).map(key).collect();
    register(&node, &keys).await;

    let publisher = publisher(&settings).await;
    let hot = &keys[..CACHED];
    // A key is cached once it has been asked for twice and its watch is set.
    eventually("all keys are cached", Duration::from_secs(30), || async {
        let mut found = Vec::new();
        for keys in hot.chunks(500) {
            found.extend(publisher.lookup(keys).await);
        }
        assert!(found.iter().all(|interest| matches!(interest, Interest::Queues(queues) if queues.len() == 1)));
        hot.iter().all(|key| publisher.cached(key).is_some()).then_some(())
    })
    .await;
    let mut rates = Vec::new();
    for _ in 0..=ROUNDS {
        let (begun, mut hits) = (Instant::now(), 0);
        while begun.elapsed() < Duration::from_secs(1) {
            hits += hot.iter().filter(|key| publisher.cached(key).is_some_and(|queues| queues.len() == 1)).count();
        }
        rates.push(hits as f64 / begun.elapsed().as_secs_f64());
        // The lease is renewed by a task: it gets its turn.
        tokio::task::yield_now().await;
    }
    let note = format!("one thread over {CACHED} keys, hits only, median of {ROUNDS} s");
    report.add("lookup: cached, per core", quantile(&mut rates[1..], 0.5), "/s", Target::AtLeast(1e6), note);

    let target = Target::AtLeast(50_000.0);
    let single = uncached(&settings, &keys, 1).await;
    let note = format!("{CALLERS} callers at once, each with one key at a time, all registered; median of {ROUNDS}");
    report.add("lookup: uncached, one key a call", single, "/s", target, note);
    let batched = uncached(&settings, &keys, 20).await;
    let note = format!("{CALLERS} callers at once, each with 20 keys at a time; median of {ROUNDS}");
    report.add("lookup: uncached, 20 keys a call", batched, "/s", target, note);
    node.close().await;
}

/// Every key once, by a publisher that has never asked before; keys a second.
async fn uncached(settings: &RegistrySettings, keys: &Arc<[Key]>, at_once: usize) -> f64 {
    let mut rates = Vec::new();
    for _ in 0..=ROUNDS {
        let publisher = publisher(settings).await;
        let next = Arc::new(AtomicUsize::new(0));
        let begun = Instant::now();
        let callers = (0..CALLERS).map(|_| {
            let (publisher, keys, next) = (publisher.clone(), keys.clone(), next.clone());
            tokio::spawn(async move {
                let mut found = 0;
                loop {
                    let first = next.fetch_add(at_once, Ordering::Relaxed);
                    let Some(asked) = keys.get(first..keys.len().min(first + at_once)).filter(|asked| !asked.is_empty()) else {
                        return found;
                    };
                    let answers = publisher.lookup(asked).await;
                    found += answers.iter().filter(|a| matches!(a, Interest::Queues(queues) if queues.len() == 1)).count();
                }
            })
        });
        let found: usize = join_all(callers).await.into_iter().map(|found| found.expect("a caller")).sum();
        let rate = keys.len() as f64 / begun.elapsed().as_secs_f64();
        assert_eq!(found, keys.len(), "every answer is right, and from ZooKeeper");
        rates.push(rate);
    }
    quantile(&mut rates[1..], 0.5)
}

/// 100,000 keys of one node: registered, lost with their sessions, and registered again.
pub async fn run_registration(report: &mut Report) {
    println!("registration");
    let zookeeper = TestZookeeper::start().await;
    let proxy = Proxy::to(&zookeeper.address()).await;
    let settings = RegistrySettings { session_timeout_ms: Millis(4_000), ..settings(&proxy.address()) };
    let node = node(&settings).await;
    let mut breaks = node.discontinuities();
    let keys: Arc<[Key]> = (0..REGISTERED).map(key).collect();
    let begun = Instant::now();
    register(&node, &keys).await;
    let rate = REGISTERED as f64 / begun.elapsed().as_secs_f64();
    report.add("registration: first", rate, "/s", Target::None, format!("{REGISTERED} keys of one node, acknowledged"));

    proxy.cut();
    // Until the server has forgotten the sessions: then registrations are really gone.
    let watcher =
        publisher(&RegistrySettings { ensembles: vec![zookeeper.address().parse().expect("an address")], ..settings.clone() })
            .await;
    eventually("the sessions are gone", Duration::from_secs(60), || async {
        let found = watcher.lookup(&keys[REGISTERED - 1_000..]).await;
        found.iter().all(|interest| matches!(interest, Interest::Queues(queues) if queues.is_empty())).then_some(())
    })
    .await;
    // What was told while it was away is not what is waited for.
    while breaks.try_recv().is_ok() {}
    proxy.pass();
    let (begun, mut restored) = (Instant::now(), 0);
    while restored < REGISTERED {
        let told = tokio::time::timeout(Duration::from_secs(120), breaks.recv()).await.expect("all keys come back in time");
        if let Discontinuity::Restored { keys } = told.expect("the registry lives") {
            restored += keys.len();
        }
    }
    let took = begun.elapsed().as_secs_f64();
    assert_eq!(restored, REGISTERED, "each key is told once");
    let found = watcher.lookup(&keys[..1_000]).await;
    assert!(found.iter().all(|interest| matches!(interest, Interest::Queues(queues) if queues.len() == 1)));
    let note = format!("{REGISTERED} keys after their sessions were lost, from the network's return on");
    report.add("registration: again after session loss", took, "s", Target::AtMost(10.0), note);
    node.close().await;
}

fn settings(zookeeper: &str) -> RegistrySettings {
    RegistrySettings {
        ensembles: vec![zookeeper.parse().expect("an address")],
        lookup_timeout_ms: Millis(5_000),
        ..RegistrySettings::default()
    }
}

fn names() -> QueueNames {
    QueueNames::new("bench").expect("a prefix")
}

async fn publisher(settings: &RegistrySettings) -> Arc<ZookeeperRegistry> {
    ZookeeperRegistry::connect(settings, names()).await.expect("connect to ZooKeeper")
}

/// A registry that has announced a node.
async fn node(settings: &RegistrySettings) -> Arc<ZookeeperRegistry> {
    let registry = publisher(settings).await;
    let queue_id = QueueId { node: "bench-1".parse().expect("a node id"), place: Place::Own };
    let record = NodeRecord {
        id: queue_id.node.clone(),
        queue: names().queue(&queue_id),
        queue_id,
        url: "http://127.0.0.1:1".to_owned(),
        version: "0".to_owned(),
        started_at: 1,
    };
    registry.announce(record).await.expect("announce the node");
    registry
}

async fn register(node: &Arc<ZookeeperRegistry>, keys: &[Key]) {
    for registered in join_all(keys.iter().map(|key| node.register(key.clone()))).await {
        registered.expect("register");
    }
}

fn key(number: usize) -> Key {
    Key::Mailbox(format!("#private:user{number:06}@example.org:INBOX").parse().expect("a mailbox"))
}
