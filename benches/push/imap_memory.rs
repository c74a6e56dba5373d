//! What an idling IMAP session costs the gateway, with a connection to the mail server and without, before and after bursts.
//!
//! The gateway alone is measured: clients, mail server, publisher, ZooKeeper and Kafka are other processes.

use std::sync::Arc;
use std::time::Duration;

use mailpush::config::Settings;
use mailpush::mail::codec::{Defaults, from_json};
use mailpush::node::Cluster;
use mailpush::push::clock::{new_event_id, unix_ms};
use mailpush::push::metrics::Metrics;
use mailpush::push::publisher::Publisher;

use super::imap_crowd::{ImapCrowd, user};
use super::imap_upstream::{MESSAGES, Upstream, uidnext};
use super::report::{Report, Target};
use super::server::{Memory, Server};
use super::support::fixtures::free_port;
use super::support::kafka::TestKafka;
use super::support::wait::eventually;
use super::support::zookeeper::TestZookeeper;

/// Clients, and how many events each of them gets in the burst.
const CROWDS: [(usize, u32); 2] = [(1_000, 1_000), (10_000, 100)];
const WARM_UP: usize = 60;
/// As many in all as a gateway remembers, so that it does before sessions are counted.
const WARM_UP_EVENTS: u32 = 2_000;
/// Below what one session's outbox holds.
const ROUND: u32 = 50;
/// Until memory is looked at: what is to be given back is given back by then.
const REST: Duration = Duration::from_secs(5);
const PATIENCE: Duration = Duration::from_secs(120);
const PARKED: Target = Target::AtMost(6.0);

/// Each crowd gets a gateway of its own, live and parked.
pub async fn run(report: &mut Report, descriptors: usize) {
    let (zookeeper, kafka, upstream) = (TestZookeeper::start().await, TestKafka::start(), Upstream::start().await);
    for (sessions, events) in CROWDS {
        for parked in [false, true] {
            // A live one takes two sockets.
            let most = descriptors.saturating_sub(500) / if parked { 1 } else { 2 };
            let bench = Bench::start(&zookeeper.address(), &kafka.address(), &upstream.address, parked).await;
            bench.measure(report, sessions.min(most), events).await;
        }
    }
}

struct Bench {
    server: Server,
    imap: String,
    publisher: Publisher,
    parked: bool,
}

impl Bench {
    async fn start(zookeeper: &str, kafka: &str, upstream: &str, parked: bool) -> Self {
        let imap = format!("127.0.0.1:{}", free_port());
        let prefix = format!("b{}", &uuid::Uuid::new_v4().simple().to_string()[..8]);
        let settings = [
            format!("queue.prefix={prefix}"),
            format!("imap.listen={imap}"),
            format!("imap.upstream.addresses={upstream}"),
            format!("imap.park={}", if parked { "credentials" } else { "never" }),
            "imap.park_after_ms=1000".to_owned(),
            // The mail server knows nothing of the burst's messages: it must not be asked.
            "imap.audit_ms=3600000".to_owned(),
            "auth.default_domain=example.org".to_owned(),
        ];
        let settings: Vec<&str> = settings.iter().map(String::as_str).collect();
        let server = Server::serve_with(zookeeper, kafka, &settings).await;

        let mut settings = Settings::default();
        settings.registry.ensembles = vec![zookeeper.parse().expect("an address")];
        settings.queue.brokers = vec![kafka.parse().expect("an address")];
        settings.queue.prefix = prefix.parse().expect("a prefix");
        let cluster = Cluster::connect(&settings).await.expect("the cluster");
        let publisher = cluster.publisher(&settings, Arc::new(Metrics::default())).expect("a publisher");
        Self { server, imap, publisher, parked }
    }

    async fn measure(&self, report: &mut Report, sessions: usize, events: u32) {
        let kind = if self.parked { "parked" } else { "live" };
        println!("memory of {sessions} {kind} IMAP sessions");
        let base = self.warm_up().await;
        let crowd = ImapCrowd::idle(&self.imap, sessions).await;
        let idle = self.settled(&crowd).await;
        let note = format!(
            "{sessions} sessions, each its own user and mailbox of {MESSAGES} messages, by the resident set; the gateway alone: {:.1} MiB",
            base.resident / 1024.0
        );
        let target = if self.parked { PARKED } else { Target::None };
        report.add(format!("imap-memory: {kind}, {sessions} sessions"), each(idle, base, sessions).resident, "KiB", target, note);
        let proportional = each(idle, base, sessions).proportional;
        report.add(format!("imap-memory: {kind}, {sessions} sessions, PSS"), proportional, "KiB", target, "the same");
        self.burst(&crowd, events).await;
        let after = self.settled(&crowd).await;
        crowd.check(u64::from(events) * sessions as u64);
        let note = format!("the same sessions, 5 s after {events} events for each");
        let what = format!("imap-memory: {kind}, {sessions} sessions, after a burst");
        report.add(what, each(after, base, sessions).resident, "KiB", target, note);
    }

    /// Memory once everything that sessions need but do not own is there.
    async fn warm_up(&self) -> Memory {
        let crowd = ImapCrowd::idle(&self.imap, WARM_UP).await;
        self.settled(&crowd).await;
        self.burst(&crowd, WARM_UP_EVENTS).await;
        drop(crowd);
        self.becomes("mailpush_imap_connections", 0).await;
        tokio::time::sleep(REST).await;
        self.server.memory()
    }

    /// So many new messages for each client's mailbox, a round for all after the other.
    async fn burst(&self, crowd: &ImapCrowd, events: u32) {
        for first in (0..events).step_by(ROUND as usize) {
            let last = events.min(first + ROUND);
            for number in 0..crowd.count {
                let batch: Vec<_> = (first..last).map(|event| new_message(number, uidnext() + event)).collect();
                for published in self.publisher.publish_batch(&batch).await {
                    assert_eq!(published.expect("publish").queues.len(), 1, "the gateway is told");
                }
            }
            crowd.wait_for(u64::from(last) * crowd.count as u64).await;
        }
    }

    /// After a rest, with everybody in the state that is measured.
    async fn settled(&self, crowd: &ImapCrowd) -> Memory {
        let parked = if self.parked { crowd.count } else { 0 };
        self.becomes("mailpush_imap_parked", parked).await;
        tokio::time::sleep(REST).await;
        self.becomes("mailpush_imap_parked", parked).await;
        self.becomes("mailpush_imap_connections", crowd.count).await;
        self.server.memory()
    }

    async fn becomes(&self, metric: &str, value: usize) {
        let what = format!("{metric} is {value}");
        eventually(&what, PATIENCE, || async { (self.server.metric(metric).await == value).then_some(()) }).await;
    }
}

/// KiB a session.
fn each(all: Memory, base: Memory, sessions: usize) -> Memory {
    let sessions = sessions as f64;
    Memory {
        resident: (all.resident - base.resident) / sessions,
        proportional: (all.proportional - base.proportional) / sessions,
    }
}

fn new_message(number: usize, uid: u32) -> mailpush::mail::Event {
    let json = format!(
        r##"{{"type":"MessageNew","mailbox":"#private:{}:INBOX","uidvalidity":1700000000,"messages":[{{"uid":{uid},"flags":[]}}]}}"##,
        user(number)
    );
    let defaults = Defaults { id: new_event_id(), at: unix_ms(), origin: "bench" };
    from_json(json.as_bytes(), Some(defaults)).expect("an event")
}
