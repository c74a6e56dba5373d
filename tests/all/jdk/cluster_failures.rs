//! A cluster while its parts fail: what is lost, and that nobody loses it in silence.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::agent::TestAgent;
use crate::support::cluster::{Own, PATIENCE, TestCluster, message, uid};
use crate::support::wait::eventually;
use crate::support::ws::WsClient;
use crate::support::zookeeper::Proxy;

const ALICE: &str = "alice@example.org";
const INBOX: &str = "#private:alice@example.org:INBOX";

/// Publishes until it is accepted, as an origin does: with the same id.
async fn publish_for_sure(cluster: &TestCluster, node: usize, mut event: Value) {
    event["id"] = json!(uuid::Uuid::now_v7().to_string());
    eventually("the event is published", PATIENCE, async || cluster.try_publish(node, &event).await.ok()).await;
}

/// The UIDs of the next so many events, each told once.
async fn uids(client: &mut WsClient, count: usize) -> BTreeSet<u64> {
    let mut heard = BTreeSet::new();
    while heard.len() < count {
        assert!(heard.insert(uid(&client.event().await)), "told twice");
    }
    heard
}

#[tokio::test]
async fn a_killed_node_vanishes_and_the_cluster_goes_on() {
    let mut cluster = TestCluster::start(3).await;
    let (mut doomed, mut alice) = (cluster.client(1, ALICE).await, cluster.client(2, ALICE).await);
    doomed.subscribe(INBOX).await;
    alice.subscribe(INBOX).await;
    assert_eq!(cluster.registered(INBOX).await, ["n2", "n3"]);
    cluster.kill(1);

    cluster.publish(0, message(INBOX, 1)).await;
    assert_eq!(uid(&alice.event().await), 1, "while its znodes still stand");
    cluster.becomes_registered(INBOX, &["n3"]).await;
    cluster.sees_nodes(0, 2).await;
    let result = cluster.publish(0, message(INBOX, 2)).await;
    assert_eq!(result["queues"], json!([cluster.queue(2)]));
    assert_eq!(uid(&alice.event().await), 2);
    assert_eq!(doomed.next().await, None, "its client knows at once, and reconnects elsewhere");
    let (_, nodes) = cluster.get(0, "/v1/nodes", &cluster.admin_token()).await;
    assert_eq!(nodes["left"][0]["id"], "n2", "{nodes}");
    assert!(cluster.log(0).contains("a node has left the cluster"));

    cluster.launch(1, &[]).await;
    let mut back = cluster.client(1, ALICE).await;
    back.subscribe(INBOX).await;
    cluster.publish(0, message(INBOX, 3)).await;
    assert_eq!(uid(&back.event().await), 3, "started again under the same id, it reads from the end of its queue");
}

#[tokio::test]
async fn zookeeper_restarts_and_nobody_notices() {
    let mut cluster = TestCluster::start_owning(Own::Zookeeper, 2, &[]).await;
    let mut alice = cluster.client(1, ALICE).await;
    alice.subscribe(INBOX).await;
    cluster.own_zookeeper().restart().await;
    for number in 1..=10 {
        publish_for_sure(&cluster, 0, message(INBOX, number)).await;
    }
    assert_eq!(uids(&mut alice, 10).await, (1..=10).collect());
    cluster.becomes_ready(0).await;
    cluster.becomes_ready(1).await;
    let mut second = cluster.client(1, ALICE).await;
    second.subscribe("#private:alice@example.org:Sent").await;
    publish_for_sure(&cluster, 0, message("#private:alice@example.org:Sent", 11)).await;
    assert_eq!(uid(&second.event().await), 11);
}

#[tokio::test]
async fn without_zookeeper_a_publish_still_reaches_everyone() {
    let mut cluster = TestCluster::start_owning(Own::Zookeeper, 2, &[]).await;
    let mut alice = cluster.client(1, ALICE).await;
    alice.subscribe(INBOX).await;
    cluster.own_zookeeper().kill();
    cluster.becomes_unready(0).await;
    let result = cluster.publish(0, message(INBOX, 1)).await;
    assert_eq!(result["everyone"], true, "{result}");
    assert_eq!(uid(&alice.event().await), 1);

    let output = cluster.run(&["publish", "--type", "MessageNew", "--mailbox", INBOX, "--uid", "2"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(uid(&alice.event().await), 2, "a publisher that has just started asks the queue system who is there");

    let mut waiting = cluster.client(0, ALICE).await;
    waiting.send(&json!({ "id": 77, "subscribe": { "mailbox": INBOX } }).to_string()).await;
    assert_eq!(waiting.next_within(Duration::from_millis(500)).await, None, "a new registration waits");
    cluster.own_zookeeper().restart().await;
    assert_eq!(waiting.next().await.expect("the reply")["id"], 77, "until the registry is back");
    publish_for_sure(&cluster, 1, message(INBOX, 3)).await;
    assert_eq!(uid(&waiting.event().await), 3);
}

#[tokio::test]
async fn an_expired_session_is_registered_again_and_its_clients_resync() {
    let mut cluster = TestCluster::start(1).await;
    let proxy = Proxy::to(&cluster.zookeeper().address()).await;
    let away = cluster.add_node(&[&format!("registry.ensembles={}", proxy.address())]).await;
    let mut alice = cluster.client(away, ALICE).await;
    alice.subscribe(INBOX).await;
    cluster.becomes_registered(INBOX, &["n2"]).await;

    proxy.stall();
    cluster.becomes_registered(INBOX, &[]).await;
    let missed = cluster.publish(0, message(INBOX, 1)).await;
    assert_eq!(missed["queues"], json!([]), "nobody knows that she waits");

    proxy.cut();
    proxy.pass();
    cluster.becomes_registered(INBOX, &["n2"]).await;
    let mut reasons = Vec::new();
    while !reasons.contains(&"registry_restored".to_owned()) {
        let resync = alice.push("resync").await;
        assert_eq!(resync["keys"], json!([{ "mailbox": INBOX }]));
        reasons.push(resync["reason"].as_str().expect("a reason").to_owned());
    }
    publish_for_sure(&cluster, 0, message(INBOX, 2)).await;
    assert_eq!(uid(&alice.event().await), 2, "settled again: every change from now on is pushed");
    cluster.becomes_ready(away).await;
}

#[tokio::test]
async fn kafka_restarts_and_nothing_is_lost() {
    let mut cluster = TestCluster::start_owning(Own::Kafka, 2, &[]).await;
    let mut alice = cluster.client(1, ALICE).await;
    alice.subscribe(INBOX).await;
    publish_for_sure(&cluster, 0, message(INBOX, 1)).await;
    assert_eq!(uid(&alice.event().await), 1);

    cluster.own_kafka().kill();
    let answer = cluster.try_publish(0, &message(INBOX, 2)).await.expect_err("Kafka is away");
    assert_eq!((answer["status"].as_u64(), answer["results"][0]["temporary"].as_bool()), (Some(503), Some(true)), "{answer}");
    cluster.becomes_unready(1).await;
    assert_eq!(alice.command("ping", json!({})).await["ping"], json!({}), "sessions stay");

    cluster.own_kafka().restart();
    for number in 2..=20 {
        publish_for_sure(&cluster, 0, message(INBOX, number)).await;
    }
    assert_eq!(uids(&mut alice, 19).await, (2..=20).collect());
    cluster.becomes_ready(1).await;
}

#[tokio::test]
async fn a_queue_that_was_removed_is_made_again_and_its_clients_resync() {
    let cluster = TestCluster::start(1).await;
    let mut alice = cluster.client(0, ALICE).await;
    alice.subscribe(INBOX).await;
    publish_for_sure(&cluster, 0, message(INBOX, 1)).await;
    assert_eq!(uid(&alice.event().await), 1);
    let queue = cluster.queue(0);
    let removed = cluster.kafka().admin().delete_topics(&[&queue], &rdkafka::admin::AdminOptions::new()).await;
    assert!(removed.expect("an answer").iter().all(Result::is_ok));
    assert_eq!(alice.push("resync").await["reason"], "queue_gap");
    eventually("delivery goes on", PATIENCE, async || {
        cluster.try_publish(0, &message(INBOX, 2)).await.ok()?;
        let frame = alice.next_within(Duration::from_millis(500)).await?;
        frame["event"].is_object().then_some(())
    })
    .await;
}

#[tokio::test]
async fn registrations_deleted_in_zookeeper_are_made_again_and_clients_resync() {
    let cluster = TestCluster::start_with(2, &["registry.audit_ms=1000"]).await;
    let mut alice = cluster.client(1, ALICE).await;
    alice.subscribe(INBOX).await;
    cluster.becomes_registered(INBOX, &["n2"]).await;
    cluster.forget_registration(INBOX, "n2").await;
    assert_eq!(alice.push("resync").await["reason"], "registry_restored");
    assert_eq!(cluster.registered(INBOX).await, ["n2"]);
    publish_for_sure(&cluster, 0, message(INBOX, 1)).await;
    assert_eq!(uid(&alice.event().await), 1);
    assert!(cluster.log(1).contains("registrations were deleted in ZooKeeper by somebody else"), "{}", cluster.log(1));
    cluster.becomes_ready(1).await;
}

#[tokio::test]
async fn a_right_taken_away_in_kafka_is_temporary_and_readiness_says_so() {
    let mut cluster = TestCluster::start_owning(Own::GuardedKafka, 0, &[]).await;
    let prefix = cluster.topic("");
    cluster.own_kafka().allow("All", &prefix);
    for _ in 0..2 {
        cluster.add_node(&[]).await;
    }
    cluster.sees_nodes(0, 2).await;
    let mut alice = cluster.client(1, ALICE).await;
    alice.subscribe(INBOX).await;
    publish_for_sure(&cluster, 0, message(INBOX, 1)).await;
    assert_eq!(uid(&alice.event().await), 1);
    let mut agent = TestAgent::new();
    agent.launch(cluster.command(&["agent"]), &[]).await;

    let queue = cluster.queue(1);
    cluster.own_kafka().deny("Write", &queue);
    let refused = eventually("the denial arrives", PATIENCE, async || {
        let mut event = message(INBOX, 1);
        event["id"] = json!(uuid::Uuid::now_v7().to_string());
        cluster.try_publish(0, &event).await.err()
    })
    .await;
    assert_eq!((refused["status"].as_u64(), refused["results"][0]["temporary"].as_bool()), (Some(503), Some(true)), "{refused}");
    cluster.becomes_unready(0).await;
    let (_, ready) = cluster.get(0, "/readyz", "").await;
    assert!(ready.to_string().contains("may not write"), "{ready}");
    // What the agent takes in meanwhile waits in its spool.
    let client = reqwest::Client::new();
    let taken = client.post(format!("{}/v1/events", agent.url())).json(&message(INBOX, 2)).send().await.expect("an answer");
    assert_eq!(taken.status(), 202);
    eventually("the agent says why it waits", PATIENCE, async || {
        agent.ready().await.1.to_string().contains("TopicAuthorizationFailed").then_some(())
    })
    .await;
    assert_eq!(agent.metric("mailpush_agent_events_dropped_total").await, 0);

    cluster.own_kafka().deny_no_more("Write", &queue);
    let mut heard = BTreeSet::new();
    while !heard.contains(&2) {
        heard.insert(uid(&alice.event().await));
    }
    publish_for_sure(&cluster, 0, message(INBOX, 3)).await;
    cluster.becomes_ready(0).await;
    for log in [cluster.log(0), agent.log()] {
        assert_eq!(log.matches("does not let this process write").count(), 1, "one line:\n{log}");
    }

    // A node that may not read its queue says so, and so do its clients hear.
    cluster.own_kafka().deny("Read", &queue);
    let started = std::time::Instant::now();
    while cluster.is_ready(1).await {
        let _ = cluster.try_publish(0, &message(INBOX, 4)).await;
        assert!(started.elapsed() < PATIENCE, "readiness stays green");
    }
    let (_, ready) = cluster.get(1, "/readyz", "").await;
    assert!(ready.to_string().contains("may not read its queue"), "{ready}");
    assert_eq!(alice.push("resync").await["reason"], "queue_gap");
    cluster.own_kafka().deny_no_more("Read", &queue);
    cluster.becomes_ready(1).await;
}

#[tokio::test]
async fn a_node_that_may_not_make_its_queue_waits_until_it_may() {
    let mut cluster = TestCluster::start_owning(Own::GuardedKafka, 0, &[]).await;
    let prefix = cluster.topic("");
    let node = cluster.add_node_unready().await;
    eventually("it says why it waits", PATIENCE, async || cluster.log(node).contains("waiting for the queue").then_some(()))
        .await;
    assert!(!cluster.is_ready(node).await);
    cluster.own_kafka().allow("All", &prefix);
    cluster.becomes_ready(node).await;
}

#[tokio::test]
async fn a_node_drains_within_its_deadline() {
    let mut cluster = TestCluster::start(2).await;
    let (mut alice, mut other) = (cluster.client(0, ALICE).await, cluster.client(1, ALICE).await);
    alice.subscribe(INBOX).await;
    other.subscribe(INBOX).await;
    let stopping = cluster.terminate(0);
    let (code, goodbye) = tokio::join!(stopping, async {
        let goodbye = alice.push("disconnect").await;
        assert_eq!(alice.next().await, None);
        goodbye
    });
    assert_eq!(code, Some(0));
    assert_eq!((goodbye["code"].as_u64(), goodbye["reconnect"].as_bool()), (Some(4412), Some(true)), "{goodbye}");
    assert!(goodbye["reconnect_after_ms"].is_u64());
    assert_eq!(alice.closed, Some(4412));
    assert_eq!(cluster.registered(INBOX).await, ["n2"], "it took its registrations with it, without a time-out");
    cluster.sees_nodes(1, 1).await;
    cluster.publish(1, message(INBOX, 1)).await;
    assert_eq!(uid(&other.event().await), 1);
    assert!(cluster.log(0).contains("node has stopped"));
}

#[tokio::test]
async fn two_nodes_cannot_have_one_id() {
    let cluster = TestCluster::start(1).await;
    let output = cluster.run(&["serve", "--set", "node.id=n1", "--set", "http.listen=127.0.0.1:0"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("node id n1 is in use by another running node"));
    cluster.becomes_ready(0).await;
}
