//! The queue's guarantees, against a real Apache Kafka.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use futures::future::join_all;
use mailpush::cluster::queue::gc::{self, Memory, Rules};
use mailpush::cluster::queue::kafka::KafkaQueues;
use mailpush::cluster::queue::{Consumer, Delivery, Producer, QueueError, QueueName, QueueState, QueueSystem};
use mailpush::cluster::registry::QueueNames;
use mailpush::config::{Millis, QueueSettings, SaslMechanism, Secret};
use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::support::kafka::{Security, TestKafka};
use crate::support::wait::eventually;

/// How long anything that must happen may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);

fn queue(name: &str) -> QueueName {
    name.parse().unwrap()
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as u64
}

/// One node's view of the queues.
struct Node {
    queues: Arc<KafkaQueues>,
    producer: Arc<dyn Producer>,
}

impl Node {
    fn new(settings: &QueueSettings) -> Self {
        let queues = KafkaQueues::new(settings).unwrap();
        Self { producer: queues.producer(), queues }
    }

    async fn ensure(&self, name: &str) {
        self.queues.ensure(&queue(name)).await.unwrap();
    }

    /// Makes the queue where it is missing, and reads it from now on.
    async fn open(&self, name: &str) -> Reader {
        self.ensure(name).await;
        Reader(self.queues.open(&queue(name)).await.unwrap())
    }

    async fn try_send(&self, name: &str, payload: &str) -> Result<(), QueueError> {
        self.producer.send(&queue(name), "#private:ann:INBOX", Bytes::copy_from_slice(payload.as_bytes())).await
    }

    async fn send(&self, name: &str, payload: &str) {
        self.try_send(name, payload).await.unwrap();
    }

    async fn remove(&self, name: &str) {
        self.queues.remove(&queue(name)).await.unwrap();
    }

    /// Sends it until it is taken, as an agent with a spool does.
    async fn insist(&self, name: &str, payload: &str) {
        while let Err(error) = self.try_send(name, payload).await {
            assert!(error.is_transient(), "{error}");
            tokio::task::yield_now().await;
        }
    }
}

struct Reader(Box<dyn Consumer>);

impl Reader {
    async fn next(&mut self) -> Delivery {
        timeout(PATIENCE, self.0.next()).await.expect("a delivery")
    }

    /// The payload of the next delivery, which is a record.
    async fn hear(&mut self) -> String {
        match self.next().await {
            Delivery::Record(record) => String::from_utf8(record.payload.to_vec()).unwrap(),
            Delivery::Gap { reason } => panic!("a gap: {reason}"),
        }
    }

    /// Expects a gap, and gives its reason.
    async fn gap(&mut self) -> String {
        match self.next().await {
            Delivery::Gap { reason } => reason,
            Delivery::Record(record) => panic!("no gap, but {record:?}"),
        }
    }

    /// Reads on, over gaps, until `payload` comes.
    async fn hear_until(&mut self, payload: &str) {
        loop {
            if let Delivery::Record(record) = self.next().await
                && record.payload == payload.as_bytes()
            {
                return;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn events_come_out_in_the_order_in_which_they_were_sent() {
    let node = Node::new(&TestKafka::shared().settings("order"));
    let mut reader = node.open("order.node.a").await;

    // All are called before any is done.
    let payloads: Vec<String> = (0..2_000).map(|n| n.to_string()).collect();
    let sends = payloads.iter().map(|payload| node.try_send("order.node.a", payload));
    for sent in timeout(PATIENCE, join_all(sends)).await.unwrap() {
        sent.unwrap();
    }
    for payload in payloads {
        assert_eq!(reader.hear().await, payload);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_sent_right_after_opening_is_received_and_nothing_older() {
    let node = Node::new(&TestKafka::shared().settings("end"));
    node.ensure("end.node.a").await;
    for round in 0..10 {
        node.send("end.node.a", "old").await;
        let mut reader = node.open("end.node.a").await;
        let before = now();
        node.send("end.node.a", "new").await;
        match reader.next().await {
            Delivery::Record(record) => {
                assert_eq!((record.offset, &record.payload[..]), (2 * round + 1, &b"new"[..]));
                assert!((before.saturating_sub(1_000)..=now() + 1_000).contains(&record.queued_at));
            }
            gap => panic!("{gap:?}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn giving_up_on_a_delivery_loses_nothing() {
    let node = Node::new(&TestKafka::shared().settings("cancel"));
    let mut reader = node.open("cancel.node.a").await;
    for n in 0..100 {
        node.send("cancel.node.a", &n.to_string()).await;
    }
    for n in 0..100 {
        let delivery = loop {
            if let Ok(delivery) = timeout(Duration::from_micros(50), reader.0.next()).await {
                break delivery;
            }
        };
        assert!(matches!(delivery, Delivery::Record(record) if record.payload == n.to_string().as_bytes()));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_topic_is_told_quickly_and_believed_no_longer_than_it_is_true() {
    let node = Node::new(&TestKafka::shared().settings("missing"));
    let expect_missing = async || match node.try_send("missing.node.a", "x").await {
        Err(QueueError::NoSuchQueue(name)) => assert_eq!(name, queue("missing.node.a")),
        other => panic!("not missing: {other:?}"),
    };

    let begun = Instant::now();
    expect_missing().await;
    assert!(begun.elapsed() < Duration::from_secs(4), "{:?}", begun.elapsed());
    let begun = Instant::now();
    expect_missing().await;
    assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());

    // Another node makes it; the very next sends arrive, in order.
    let mut reader = Node::new(&TestKafka::shared().settings("missing")).open("missing.node.a").await;
    let sends = ["1", "2", "3", "4"].map(|payload| node.try_send("missing.node.a", payload));
    for sent in join_all(sends).await {
        sent.unwrap();
    }
    for payload in ["1", "2", "3", "4"] {
        assert_eq!(reader.hear().await, payload);
    }

    // It is removed, and told missing; it is made again, and the next send arrives.
    drop(reader);
    node.remove("missing.node.a").await;
    // The controller has removed it; its broker takes what comes until it hears of that.
    let told = timeout(PATIENCE, async { while node.try_send("missing.node.a", "x").await.is_ok() {} });
    told.await.expect("the broker hears that the topic is gone");
    expect_missing().await;
    let mut reader = node.open("missing.node.a").await;
    node.send("missing.node.a", "again").await;
    assert_eq!(reader.hear().await, "again");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_topics_of_many_dead_nodes_are_forgotten() {
    let node = Node::new(&TestKafka::shared().settings("many"));
    let mut reader = node.open("many.node.alive").await;
    let dead: Vec<String> = (0..70).map(|n| format!("many.node.dead-{n}")).collect();
    for result in join_all(dead.iter().map(|name| node.try_send(name, "x"))).await {
        assert!(matches!(result, Err(QueueError::NoSuchQueue(_))), "{result:?}");
    }
    // From here on another librdkafka producer sends.
    node.send("many.node.alive", "1").await;
    node.send("many.node.alive", "2").await;
    assert_eq!(reader.hear().await, "1");
    assert_eq!(reader.hear().await, "2");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_deleted_while_it_is_read_is_made_again_with_a_gap() {
    let node = Node::new(&TestKafka::shared().settings("deleted"));
    let mut reader = node.open("deleted.node.a").await;
    node.send("deleted.node.a", "1").await;
    assert_eq!(reader.hear().await, "1");

    node.remove("deleted.node.a").await;
    reader.gap().await;
    node.send("deleted.node.a", "2").await;
    reader.hear_until("2").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_deleted_and_made_anew_at_once_is_a_gap_even_where_the_offsets_fit() {
    let node = Node::new(&TestKafka::shared().settings("anew"));
    let mut reader = node.open("anew.all").await;
    for n in 0..3 {
        node.send("anew.all", &n.to_string()).await;
        assert_eq!(reader.hear().await, n.to_string());
    }
    for round in 0..3 {
        // Another node is quicker than this reader to make it again, and much is sent to it at once.
        node.remove("anew.all").await;
        let other = Node::new(&TestKafka::shared().settings("anew"));
        other.ensure("anew.all").await;
        for n in 0..10 {
            other.send("anew.all", &format!("{round}: {n}")).await;
        }
        reader.gap().await;
        other.send("anew.all", "last").await;
        reader.hear_until("last").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_offset_that_the_retention_has_passed_is_a_gap_and_reading_goes_on_with_what_is_left() {
    let kafka = TestKafka::shared();
    let mut settings = kafka.settings("passed");
    // Reads ahead as little as can be, so that there is something left to lose.
    for (name, value) in [("queued.min.messages", "1"), ("queued.max.messages.kbytes", "1"), ("fetch.message.max.bytes", "1000")]
    {
        settings.properties.0.insert(name.to_owned(), value.to_owned());
    }
    let node = Node::new(&settings);
    let mut reader = node.open("passed.node.a").await;
    for n in 0..10 {
        node.send("passed.node.a", &format!("{n}{}", " ".repeat(50_000))).await;
    }
    assert!(reader.hear().await.starts_with('0'));
    kafka.delete_records("passed.node.a", 0, 8).await;
    let mut heard = Vec::new();
    while let Delivery::Record(record) = reader.next().await {
        heard.push(record.offset);
    }
    assert!(heard.len() < 6, "{heard:?} were read ahead");
    assert!(reader.hear().await.starts_with('8'));
    assert!(reader.hear().await.starts_with('9'));
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_that_share_a_topic_read_their_own_partition() {
    let node = Node::new(&TestKafka::shared().settings("sharded"));
    let mut first = node.open("sharded.shards/1").await;
    let mut second = node.open("sharded.shards/3").await;
    node.send("sharded.shards/1", "one").await;
    node.send("sharded.shards/3", "three").await;
    node.send("sharded.shards/1", "one more").await;
    assert_eq!(first.hear().await, "one");
    assert_eq!(first.hear().await, "one more");
    assert_eq!(second.hear().await, "three");

    let beyond = queue("sharded.shards/4");
    assert!(matches!(node.queues.ensure(&beyond).await, Err(QueueError::Refused(_))));
    assert!(matches!(node.queues.open(&beyond).await, Err(QueueError::NoSuchQueue(_))));
    assert!(matches!(node.try_send("sharded.shards/4", "x").await, Err(QueueError::NoSuchQueue(_))));
    assert!(matches!(node.queues.remove(&queue("sharded.shards/1")).await, Err(QueueError::Refused(_))));
}

#[tokio::test(flavor = "multi_thread")]
async fn health_tells_the_lag_and_a_missing_topic() {
    let node = Node::new(&TestKafka::shared().settings("health"));
    node.ensure("health.node.a").await;
    node.send("health.node.a", "1").await;
    node.send("health.node.a", "2").await;
    let healthy = node.queues.health(&queue("health.node.a"), Some(1)).await;
    assert_eq!((&healthy.state, healthy.lag), (&QueueState::Good, Some(1)));

    let missing = node.queues.health(&queue("health.node.b"), None).await;
    assert!(matches!(missing.state, QueueState::Missing { .. }) && missing.lag.is_none(), "{missing:?}");
    assert!(format!("{missing:?}").contains("no queue health.node.b"));
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_nodes_topics_with_their_last_use_and_collects_only_the_dead() {
    let kafka = TestKafka::shared();
    let settings = kafka.settings("gc");
    let node = Node::new(&settings);
    for name in ["gc.node.used", "gc.node.alive", "gc.node.unused", "gc.node.emptied", "gc.all", "gc.shards/0"] {
        node.ensure(name).await;
    }
    let before = now();
    for name in ["gc.node.used", "gc.node.alive", "gc.node.emptied"] {
        node.send(name, "x").await;
    }
    kafka.delete_records("gc.node.emptied", 0, 1).await;

    let listed = node.queues.list("gc.node.").await.unwrap();
    let names: Vec<String> = listed.iter().map(|topic| topic.queue.to_string()).collect();
    assert_eq!(names, ["gc.node.alive", "gc.node.emptied", "gc.node.unused", "gc.node.used"]);
    let last_used = |n: usize| listed[n].last_used;
    // Alive and used; emptied by the retention; never used; used.
    assert!(last_used(0).is_some_and(|at| (before - 1_000..=now() + 1_000).contains(&at)), "{listed:?}");
    assert!(last_used(1).is_some_and(|at| at <= now() - settings.retention_ms.0), "{listed:?}");
    assert_eq!(last_used(2), None);
    assert!(last_used(3).is_some());

    let names = QueueNames::new("gc").unwrap();
    let registered = ["alive".parse().unwrap()];
    let hour = Duration::from_secs(3_600);
    let mut memory = Memory::default();
    let mut look = async |grace, dry_run| {
        let rules = Rules { grace, dry_run };
        let looked = gc::collect(&*node.queues, &names, &registered, rules, &mut memory).await.unwrap();
        assert!(looked.failed.is_empty(), "{looked:?}");
        looked.removed.iter().map(|queue| queue.to_string()).collect::<Vec<_>>()
    };
    assert!(look(hour, false).await.is_empty());
    assert_eq!(look(settings.retention_ms.duration(), true).await, ["gc.node.emptied"]);
    let dead = ["gc.node.emptied", "gc.node.unused", "gc.node.used"];
    assert_eq!(look(Duration::ZERO, true).await, dead);
    assert_eq!(look(Duration::ZERO, false).await, dead);
    // The controller has removed them; the broker hears of it a little later.
    let left = eventually("the dead are listed no more", PATIENCE, async || {
        let left = node.queues.list("gc.").await.unwrap();
        let left: Vec<String> = left.iter().map(|topic| topic.queue.to_string()).collect();
        (!left.iter().any(|name| dead.contains(&name.as_str()))).then_some(left)
    })
    .await;
    assert_eq!(left, ["gc.all", "gc.node.alive", "gc.shards"]);
}

/// Kafka is frozen, stopped and killed under a publisher that insists and a reader that waits.
#[tokio::test(flavor = "multi_thread")]
async fn outages_lose_nothing_that_was_acknowledged_and_keep_the_order() {
    let mut kafka = TestKafka::start();
    let name = "outage.node.a";
    let settings = QueueSettings { send_timeout_ms: Millis(2_000), ..kafka.settings("outage") };
    let node = Arc::new(Node::new(&settings));
    let mut reader = node.open(name).await;

    // Sends the numbers it is told to, each until it is taken.
    let (until, mut limits) = mpsc::unbounded_channel::<u64>();
    let publisher = tokio::spawn({
        let node = Arc::clone(&node);
        async move {
            let mut sent = 0;
            while let Some(limit) = limits.recv().await {
                while sent < limit {
                    node.insist(name, &sent.to_string()).await;
                    sent += 1;
                }
            }
        }
    });
    // Whatever is taken twice may come twice; nothing may be missing, or come before what was sent before it.
    let mut due = 0;
    let mut hear_up_to = async |limit: u64| {
        while due < limit {
            let number: u64 = reader.hear().await.parse().unwrap();
            assert!(number <= due, "{number} came before {due}");
            due = due.max(number + 1);
        }
    };

    until.send(100).unwrap();
    hear_up_to(100).await;

    kafka.freeze();
    until.send(200).unwrap();
    // A process of many threads freezes one by one.
    let frozen = timeout(PATIENCE, async { while node.queues.health(&queue(name), None).await.state.is_good() {} });
    frozen.await.expect("health tells that Kafka does not answer");
    kafka.thaw();
    hear_up_to(200).await;

    until.send(10_000).unwrap();
    hear_up_to(300).await;
    kafka.stop();
    kafka.restart();
    hear_up_to(500).await;
    kafka.kill();
    kafka.restart();
    hear_up_to(1_000).await;

    drop(until);
    publisher.abort();
    assert!(node.queues.health(&queue(name), Some(0)).await.state.is_good());

    // With Kafka away, a bounded number waits, and then fails in time.
    kafka.stop();
    let few = Node::new(&QueueSettings { max_in_flight: 5, send_timeout_ms: Millis(1_500), ..settings });
    let begun = Instant::now();
    let results = join_all((0..7).map(|_| few.try_send(name, "x"))).await;
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    assert!(results[..5].iter().all(|result| matches!(result, Err(QueueError::Unreachable(_)))), "{results:?}");
    assert!(results[5..].iter().all(|result| matches!(result, Err(QueueError::Full))), "{results:?}");
    assert!(matches!(few.queues.open(&queue(name)).await, Err(QueueError::Unreachable(_))));
    kafka.restart();
    few.insist(name, "back").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn passwords_and_certificates_are_shown_and_checked() {
    let kafka = TestKafka::start_with(Security::SaslTls);
    for mechanism in [SaslMechanism::Plain, SaslMechanism::ScramSha256, SaslMechanism::ScramSha512] {
        let settings = QueueSettings { sasl_mechanism: Some(mechanism), ..kafka.settings("secure") };
        let node = Node::new(&settings);
        let mut reader = node.open("secure.node.a").await;
        node.send("secure.node.a", mechanism.name()).await;
        assert_eq!(reader.hear().await, mechanism.name());
    }

    let wrong = QueueSettings { sasl_password: Secret::new("battery-staple"), ..kafka.settings("secure") };
    let stranger = Node::new(&wrong);
    let error = stranger.queues.ensure(&queue("secure.node.a")).await.unwrap_err();
    assert!(!error.to_string().contains("battery-staple"), "{error}");
    assert!(!stranger.queues.health(&queue("secure.node.a"), None).await.state.is_good());

    let mut untrusting = kafka.settings("secure");
    untrusting.tls.ca_file = None;
    assert!(Node::new(&untrusting).queues.ensure(&queue("secure.node.a")).await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_right_that_an_operator_takes_away_is_waited_for() {
    let kafka = TestKafka::start_with(Security::Rights);
    let node = Node::new(&kafka.settings("rights"));
    let name = "rights.node.a";

    // Not even allowed to make its topic: that is no fault of the settings.
    let denied = node.queues.ensure(&queue(name)).await.unwrap_err();
    assert!(matches!(denied, QueueError::Denied(_)), "{denied:?}");
    kafka.allow("All", "rights.");
    let mut reader = timeout(PATIENCE, async {
        while let Err(error) = node.queues.ensure(&queue(name)).await {
            assert!(error.is_transient(), "{error:?}");
        }
        Reader(node.queues.open(&queue(name)).await.unwrap())
    })
    .await
    .expect("it may, now");
    node.insist(name, "first").await;
    reader.hear_until("first").await;

    kafka.deny("Write", "rights.");
    let denied = timeout(PATIENCE, async {
        loop {
            if let Err(error) = node.try_send(name, "unheard").await {
                break error;
            }
        }
    });
    let denied = denied.await.expect("the denial arrives");
    assert!(matches!(&denied, QueueError::Denied(_)) && denied.is_transient(), "{denied:?}");
    let health = node.queues.health(&queue(name), None).await;
    assert!(matches!(&health.state, QueueState::WriteDenied { reason } if reason.contains(name)), "{health:?}");
    assert!(health.state.is_readable() && !health.state.is_good());
    kafka.deny_no_more("Write", "rights.");
    timeout(PATIENCE, node.insist(name, "second")).await.expect("it may write again");
    assert_eq!(node.queues.health(&queue(name), None).await.state, QueueState::Good);
    reader.hear_until("second").await;

    kafka.deny("Read", "rights.");
    // What is fetched already may still come; then the denial is told as a gap.
    timeout(PATIENCE, async {
        loop {
            node.insist(name, "early or late").await;
            if let Ok(Delivery::Gap { reason }) = timeout(Duration::from_millis(200), reader.0.next()).await {
                break assert!(reason.contains("does not let this node read"), "{reason}");
            }
        }
    })
    .await
    .expect("a gap");
    let health = node.queues.health(&queue(name), None).await;
    assert!(matches!(health.state, QueueState::ReadDenied { .. }) && !health.state.is_readable(), "{health:?}");
    node.insist(name, "while it may not read").await;
    kafka.deny_no_more("Read", "rights.");
    // Readiness needs no event for it.
    let good = async { while node.queues.health(&queue(name), None).await.state != QueueState::Good {} };
    timeout(PATIENCE, good).await.expect("it may read again");
    reader.hear_until("while it may not read").await;

    // Nothing at all, as after a user was removed and made again.
    kafka.deny("All", "rights.");
    let health = async { while node.queues.health(&queue(name), None).await.state.is_good() {} };
    timeout(PATIENCE, health).await.expect("it may do nothing");
    let denied = node.queues.remove(&queue(name)).await.unwrap_err();
    assert!(denied.is_transient(), "{denied:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_that_takes_less_than_an_event_gets_the_news_of_it() {
    let kafka = TestKafka::shared();
    let node = Node::new(&kafka.settings("small"));
    let name = queue("small.node.a");
    let topic = rdkafka::admin::NewTopic::new(name.topic_name(), 1, rdkafka::admin::TopicReplication::Fixed(1));
    let (topic, options) = (topic.set("max.message.bytes", "1000"), rdkafka::admin::AdminOptions::new());
    let made = kafka.admin().create_topics([&topic], &options).await;
    assert!(made.unwrap().iter().all(Result::is_ok));
    let large = timeout(PATIENCE, async {
        loop {
            match node.try_send("small.node.a", &"x".repeat(5_000)).await {
                Err(error) if error.is_transient() => {}
                other => break other,
            }
        }
    });
    assert!(matches!(large.await.unwrap(), Err(QueueError::TooLarge(_))));
    node.send("small.node.a", "small").await;
}
