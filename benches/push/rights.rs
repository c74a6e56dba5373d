//! From the request that changes an ACL at one node to what clients of other nodes are told, through a real ZooKeeper and a
//! real Kafka.

use std::time::{Duration, Instant};

use mailpush::edge::auth::Scopes;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Value, json};

use super::report::{Report, Target, quantile};
use super::server::{Server, token};
use super::support::kafka::TestKafka;
use super::support::ws::WsClient;
use super::support::zookeeper::TestZookeeper;

const BOB: &str = "bob@example.org";
const CAROL: &str = "carol@example.org";
const TEAM: &str = "#private:alice@example.org:Team";
const ROUNDS: usize = 200;
const WARM_UP: usize = 20;
/// The settings' default, without which nobody could tell what the rest takes.
const SETTLE_MS: f64 = 1_000.0;

/// One change after the other, in no rhythm with anybody's timers.
pub async fn run(report: &mut Report) {
    println!("rights");
    let (zookeeper, kafka) = (TestZookeeper::start().await, TestKafka::start());
    let settle = format!("registry.settle_ms={SETTLE_MS}");
    let settings = ["access.source=registry", &settle];
    let mut nodes = Vec::new();
    for _ in 0..3 {
        nodes.push(Server::serve_with(&zookeeper.address(), &kafka.address(), &settings).await);
    }
    let owner = Owner {
        client: reqwest::Client::new(),
        address: nodes[2].address.clone(),
        token: token("alice@example.org", Scopes::ACL_WRITE),
    };
    let connect = |node: usize, user: &'static str| {
        let (url, token) = (format!("ws://{}/v1/ws", nodes[node].address), token(user, Scopes::PUSH));
        async move { WsClient::connect(&url, &token).await }
    };
    let note = format!("{ROUNDS} rounds, one after the other; 3 nodes, changed at the third");

    let mut bob = connect(0, BOB).await;
    let (mut told, mut answered) = (Vec::new(), Vec::new());
    for _ in 0..WARM_UP + ROUNDS {
        owner.put(TEAM, BOB, "lr").await;
        bob.subscribe(TEAM).await;
        pause(told.len()).await;
        let begun = Instant::now();
        let (answer, ()) = tokio::join!(owner.put(TEAM, BOB, ""), async {
            assert_eq!(bob.push("revoked").await, json!({ "key": { "mailbox": TEAM } }));
            told.push(milliseconds(begun));
        });
        answered.push((answer - begun).as_secs_f64() * 1e3);
    }
    let mut told = told.split_off(WARM_UP);
    tell(report, "PUT acl → revoked at the first", &mut told, Target::AtMost(1_000.0), &note);
    let mut answered = answered.split_off(WARM_UP);
    tell(report, "PUT acl → its answer", &mut answered, Target::None, &note);

    let mut carol = connect(1, CAROL).await;
    let reply = carol.command("subscribe", json!({ "account": CAROL, "shared": true })).await;
    assert!(reply["subscribe"].is_object(), "{reply}");
    let mut told = Vec::new();
    for round in 0..WARM_UP + ROUNDS {
        // Another each time: one that was watched a moment ago is registered still.
        let mailbox = format!("#private:alice@example.org:Plans {round}");
        pause(told.len()).await;
        let begun = Instant::now();
        tokio::join!(owner.put(&mailbox, CAROL, "lr"), async {
            // Earlier ones are told of a second time once they have settled.
            let names =
                |resync: Value| resync["keys"].as_array().is_some_and(|keys| keys.contains(&json!({ "mailbox": mailbox })));
            while !names(carol.push("resync").await) {}
            told.push(milliseconds(begun));
        });
    }
    let mut told = told.split_off(WARM_UP);
    let note = format!("{note}; an account with what is shared, at the second");
    tell(report, "PUT acl → resync shared", &mut told, Target::AtMost(1_000.0), &note);
}

fn tell(report: &mut Report, what: &str, values: &mut [f64], most: Target, note: &str) {
    for (share, name, target) in [(0.5, "p50", Target::None), (0.99, "p99", Target::None), (1.0, "worst", most)] {
        report.add(format!("rights: {what}, {name}"), quantile(values, share), "ms", target, note);
    }
}

fn milliseconds(since: Instant) -> f64 {
    since.elapsed().as_secs_f64() * 1e3
}

async fn pause(round: usize) {
    tokio::time::sleep(Duration::from_millis((round as u64).wrapping_mul(7_919) % 50)).await;
}

/// Who changes ACLs, over one connection.
struct Owner {
    client: reqwest::Client,
    address: String,
    token: String,
}

impl Owner {
    /// When it was answered.
    async fn put(&self, mailbox: &str, identifier: &str, rights: &str) -> Instant {
        let mailbox = utf8_percent_encode(mailbox, NON_ALPHANUMERIC);
        let request = self.client.put(format!("http://{}/v1/mailboxes/{mailbox}/acl", self.address));
        let request = request.query(&[("identifier", identifier)]).json(&json!({ "rights": rights }));
        let answer = request.bearer_auth(&self.token).send().await.expect("an answer");
        let (status, at) = (answer.status(), Instant::now());
        assert!(status.is_success(), "{}", answer.json::<Value>().await.unwrap_or_default());
        at
    }
}
