//! From the publisher to the client's socket, through a real ZooKeeper and a real Kafka.

use std::sync::Arc;
use std::time::{Duration, Instant};

use mailpush::config::Settings;
use mailpush::edge::auth::Scopes;
use mailpush::mail::codec::{Defaults, from_json};
use mailpush::node::Cluster;
use mailpush::push::clock::{new_event_id, unix_ms};
use mailpush::push::metrics::Metrics;
use tokio::sync::oneshot;

use super::report::{Report, Target, quantile};
use super::server::{Server, token};
use super::support::kafka::TestKafka;
use super::support::ws::WsClient;
use super::support::zookeeper::TestZookeeper;

const USER: &str = "alice@example.org";
const MAILBOX: &str = "#private:alice@example.org:INBOX";
const EVENTS: usize = 2_000;
const WARM_UP: usize = 300;
const PACE: Duration = Duration::from_millis(10);

/// A hundred events a second, through the library and through a node's REST.
pub async fn run(report: &mut Report) {
    println!("latency");
    let (zookeeper, kafka) = (TestZookeeper::start().await, TestKafka::start());
    let server = Arc::new(Server::serve(&zookeeper.address(), &kafka.address()).await);
    let mut client = WsClient::connect(&format!("ws://{}/v1/ws", server.address), &token(USER, Scopes::PUSH)).await;
    client.subscribe(MAILBOX).await;

    let mut settings = Settings::default();
    settings.registry.ensembles = vec![zookeeper.address().parse().expect("an address")];
    settings.queue.brokers = vec![kafka.address().parse().expect("an address")];
    let cluster = Cluster::connect(&settings).await.expect("the cluster");
    let publisher = Arc::new(cluster.publisher(&settings, Arc::new(Metrics::default())).expect("a publisher"));

    let library = measure(&mut client, |number| {
        let publisher = publisher.clone();
        async move {
            let defaults = Defaults { id: new_event_id(), at: unix_ms(), origin: "bench" };
            let event = from_json(event(number).as_bytes(), Some(defaults)).expect("an event");
            let published = publisher.publish(&event).await.expect("publish");
            assert_eq!(published.queues.len(), 1);
        }
    })
    .await;
    library.tell(report, "library publisher");
    let rest = measure(&mut client, |number| {
        let server = server.clone();
        async move { server.publish(event(number)).await }
    })
    .await;
    rest.tell(report, "POST /v1/events");
}

/// In milliseconds.
struct Times {
    /// From the call of publish to the frame at the client.
    whole: Vec<f64>,
    /// From Kafka's acknowledgement, as the publisher sees it, to the frame at the client.
    acknowledged: Vec<f64>,
}

impl Times {
    fn tell(mut self, report: &mut Report, how: &str) {
        let note = format!("{EVENTS} events, 100 a second, {how}; holds queue → client");
        let (median, high) = (quantile(&mut self.whole, 0.5), quantile(&mut self.whole, 0.99));
        report.add("latency: publish → client, p50", median, "ms", Target::AtMost(5.0), &note);
        report.add("latency: publish → client, p99", high, "ms", Target::AtMost(20.0), &note);
        let worst = quantile(&mut self.whole, 1.0);
        report.add("latency: publish → client, worst", worst, "ms", Target::None, how);
        let median = quantile(&mut self.acknowledged, 0.5);
        report.add("latency: acknowledged → client, p50", median, "ms", Target::None, "0 where the client was first");
    }
}

/// Publishes at the pace, and not later when an answer is late: waiting would hide what is slow.
async fn measure<F: Future<Output = ()> + Send + 'static>(client: &mut WsClient, publish: impl Fn(usize) -> F) -> Times {
    let mut sent: Vec<(Instant, oneshot::Receiver<Instant>)> = Vec::new();
    let mut heard = vec![None; WARM_UP + EVENTS];
    let listen = async {
        for _ in 0..WARM_UP + EVENTS {
            let frame = client.event().await;
            // In their order, save where one publish takes longer than the pace and the next overtakes it.
            let uid = frame["event"]["messages"][0]["uid"].as_u64().expect("a uid");
            let before = heard[uid as usize - 1].replace(Instant::now());
            assert!(before.is_none(), "event {uid} came twice");
        }
    };
    let speak = async {
        let mut ticks = tokio::time::interval(PACE);
        for number in 0..WARM_UP + EVENTS {
            ticks.tick().await;
            let (done, acknowledged) = oneshot::channel();
            sent.push((Instant::now(), acknowledged));
            let publishing = publish(number + 1);
            tokio::spawn(async move {
                publishing.await;
                let _ = done.send(Instant::now());
            });
        }
    };
    tokio::join!(listen, speak);
    let mut times = Times { whole: Vec::new(), acknowledged: Vec::new() };
    for ((begun, acknowledged), heard) in sent.into_iter().zip(heard).skip(WARM_UP) {
        let heard = heard.expect("every event came");
        times.whole.push((heard - begun).as_secs_f64() * 1e3);
        let acknowledged = acknowledged.await.expect("published");
        times.acknowledged.push(heard.saturating_duration_since(acknowledged).as_secs_f64() * 1e3);
    }
    times
}

fn event(uid: usize) -> String {
    format!(
        r##"{{"type":"MessageNew","mailbox":"{MAILBOX}","uidvalidity":1700000000,
"status":{{"messages":812,"uidnext":4712,"unseen":3,"highestmodseq":90211}},
"messages":[{{"uid":{uid},"flags":[],"size":18213,"internaldate":1795467000000,"modseq":90211}}]}}"##
    )
}
