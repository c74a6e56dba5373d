//! A cluster on real ZooKeeper and Kafka: who hears what, and who gets no traffic.

use std::collections::BTreeSet;
use std::io::Write;
use std::process::Stdio;
use std::time::Duration;

use serde_json::json;

use crate::support::cluster::{PATIENCE, TestCluster, message, uid};
use crate::support::wait::eventually;
use crate::support::ws::WsClient;

const ALICE: &str = "alice@example.org";
const BOB: &str = "bob@example.org";
const INBOX: &str = "#private:alice@example.org:INBOX";

#[tokio::test]
async fn an_event_reaches_the_node_that_wants_it_and_no_other() {
    let cluster = TestCluster::start(3).await;
    let mut alice = cluster.client(1, ALICE).await;
    alice.subscribe(INBOX).await;
    cluster.becomes_registered(INBOX, &["n2"]).await;

    let result = cluster.publish(0, message(INBOX, 7)).await;
    assert_eq!(result["queues"], json!([cluster.queue(1)]));
    let push = alice.event().await;
    assert_eq!(uid(&push), 7);
    assert_eq!(push["pos"], format!("{}@0", cluster.queue(1)));

    let nobody = cluster.publish(0, message("#private:alice@example.org:Sent", 8)).await;
    assert_eq!(nobody["queues"], json!([]), "nobody wants it: no traffic");
    assert_eq!(cluster.events_in(&cluster.queue(1), 0).len(), 1);
    for node in [0, 2] {
        assert!(cluster.events_in(&cluster.queue(node), 0).is_empty(), "not even the origin's own node");
    }
}

#[tokio::test]
async fn the_origins_own_clients_hear_it_through_the_queue_and_once() {
    let cluster = TestCluster::start(2).await;
    let (mut here, mut there) = (cluster.client(0, ALICE).await, cluster.client(1, ALICE).await);
    here.subscribe(INBOX).await;
    there.subscribe(INBOX).await;
    cluster.publish(0, message(INBOX, 1)).await;
    cluster.publish(0, message(INBOX, 2)).await;
    for (client, node) in [(&mut here, 0), (&mut there, 1)] {
        for number in [1, 2] {
            let push = client.event().await;
            assert_eq!(uid(&push), number);
            assert_eq!(push["pos"], format!("{}@{}", cluster.queue(node), number - 1), "out of the node's own queue (I-7)");
        }
    }
}

#[tokio::test]
async fn two_sessions_on_a_node_are_one_registration_which_goes_with_the_last() {
    let cluster = TestCluster::start(1).await;
    let (mut one, mut two) = (cluster.client(0, ALICE).await, cluster.client(0, ALICE).await);
    one.subscribe(INBOX).await;
    two.subscribe(INBOX).await;
    assert_eq!(cluster.registered(INBOX).await, ["n1"]);
    drop(one);
    two.command("ping", json!({})).await;
    assert_eq!(cluster.registered(INBOX).await, ["n1"]);
    two.command("unsubscribe", json!({ "mailbox": INBOX })).await;
    assert_eq!(cluster.registered(INBOX).await, ["n1"], "it lingers");
    cluster.becomes_registered(INBOX, &[]).await;
}

#[tokio::test]
async fn nodes_can_share_partitions() {
    let cluster = TestCluster::start_with(3, &["queue.topology=sharded"]).await;
    let (mut alice, mut bob) = (cluster.client(0, ALICE).await, cluster.client(2, BOB).await);
    alice.subscribe(INBOX).await;
    bob.subscribe("#private:bob@example.org:INBOX").await;
    for number in 1..=3 {
        let result = cluster.publish(1, message(INBOX, number)).await;
        let queues = result["queues"].as_array().expect("queues").clone();
        assert_eq!(queues.len(), 1);
        assert!(queues[0].as_str().is_some_and(|queue| queue.starts_with(&cluster.topic("shards/"))), "{result}");
        assert_eq!(uid(&alice.event().await), u64::from(number));
    }
    cluster.publish(1, message("#private:bob@example.org:INBOX", 9)).await;
    assert_eq!(uid(&bob.event().await), 9, "whatever shares a partition is filtered");
}

#[tokio::test]
async fn a_small_cluster_can_do_with_one_queue_and_no_zookeeper() {
    let settings = ["queue.topology=broadcast", "registry.kind=broadcast"];
    let mut cluster = TestCluster::start_with(0, &settings).await;
    cluster.add_node(&[]).await;
    let peer = format!("registry.peers={}", cluster.http(0));
    let second = cluster.add_node(&[&peer]).await;
    let mut alice = cluster.client(0, ALICE).await;
    alice.subscribe(INBOX).await;
    let result = cluster.publish(second, message(INBOX, 5)).await;
    assert_eq!(result["queues"], json!([cluster.topic("all")]));
    assert_eq!(uid(&alice.event().await), 5);
    let (_, list) = cluster.get(second, "/v1/subscriptions", &cluster.admin_token()).await;
    assert_eq!(list["subscriptions"][0]["node"], "n1", "the peers are asked: {list}");
    assert!(cluster.registered(INBOX).await.is_empty(), "nothing in ZooKeeper");
}

#[tokio::test]
async fn all_nodes_can_share_one_queue_and_still_register() {
    let cluster = TestCluster::start_with(2, &["queue.topology=broadcast"]).await;
    let mut alice = cluster.client(1, ALICE).await;
    alice.subscribe(INBOX).await;
    assert_eq!(cluster.registered(INBOX).await, ["n2@all"]);
    cluster.publish(0, message(INBOX, 5)).await;
    assert_eq!(uid(&alice.event().await), 5);
    let nobody = cluster.publish(0, message("#private:alice@example.org:Sent", 6)).await;
    assert_eq!(nobody["queues"], json!([]));
}

#[tokio::test]
async fn a_duplicate_is_delivered_once_and_poison_is_skipped() {
    let cluster = TestCluster::start(1).await;
    let mut alice = cluster.client(0, ALICE).await;
    alice.subscribe(INBOX).await;
    let mut event = message(INBOX, 1);
    event["id"] = json!("019ab27c-7d40-7000-8000-0123456789ab");
    cluster.publish(0, event.clone()).await;
    cluster.publish(0, event).await;
    for poison in [&b"\xc1"[..], b"", &[0x91; 500], b"{\"type\":1}", &[0xdd, 0xff, 0xff, 0xff, 0xff]] {
        cluster.poison(&cluster.queue(0), poison).await;
    }
    let unknown = rmp_serde::to_vec_named(&json!({ "v": 9, "type": "MessageTeleport", "mailbox": INBOX })).expect("bytes");
    cluster.poison(&cluster.queue(0), &unknown).await;
    cluster.publish(0, message(INBOX, 2)).await;
    assert_eq!(uid(&alice.event().await), 1);
    assert_eq!(uid(&alice.event().await), 2, "neither the duplicate nor the poison came through");
    let metrics = reqwest::get(format!("{}/metrics", cluster.http(0))).await.expect("metrics").text().await.expect("text");
    for line in ["outcome=\"duplicate\"} 1", "outcome=\"bad\"} 5", "outcome=\"unknown_type\"} 1"] {
        assert!(metrics.contains(&format!("mailpush_records_consumed_total{{{line}")), "{line} not in\n{metrics}");
    }
    assert!(cluster.log(0).contains("skipped a record that is no event"));
}

#[tokio::test]
async fn events_come_in_order_and_the_firehose_has_each_once() {
    let mut cluster = TestCluster::start_with(0, &[]).await;
    let firehose = cluster.topic("firehose");
    let setting = format!("queue.firehose={firehose}");
    let node = cluster.add_node(&[&setting]).await;
    let mut alice = cluster.client(node, ALICE).await;
    alice.subscribe(INBOX).await;
    let batch: Vec<_> = (1..=200).map(|number| message(INBOX, number)).collect();
    cluster.publish(node, json!(batch)).await;
    for number in 1..=200 {
        assert_eq!(uid(&alice.event().await), number);
    }
    cluster.publish(node, message("#private:carol@example.org:nobody watches", 1)).await;
    assert_eq!(cluster.events_in(&firehose, 0).len(), 201);
}

#[tokio::test]
async fn an_origin_without_a_node_publishes_by_itself() {
    let cluster = TestCluster::start(1).await;
    let mut alice = cluster.client(0, ALICE).await;
    alice.subscribe(INBOX).await;
    let output = cluster.run(&["publish", "--type", "MessageNew", "--mailbox", "#private:Alice@Example.org:inbox", "--uid", "3"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(String::from_utf8_lossy(&output.stdout).contains(&cluster.queue(0)));
    assert_eq!(uid(&alice.event().await), 3);

    let mut publish = cluster.command(&["publish", "--format", "ndjson"]);
    let mut publish = publish.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("start publish");
    let lines = format!("{}\n\n{}\nnot json\n", message(INBOX, 4), message(INBOX, 5));
    publish.stdin.take().expect("its input").write_all(lines.as_bytes()).expect("write");
    let output = publish.wait_with_output().expect("its output");
    assert_eq!(output.status.code(), Some(64), "one entry was no event");
    assert_eq!((uid(&alice.event().await), uid(&alice.event().await)), (4, 5));
}

#[tokio::test]
async fn check_names_what_is_wrong_and_gc_removes_only_the_dead() {
    let mut cluster = TestCluster::start(1).await;
    let good = cluster.run(&["check", "--set", "http.listen=127.0.0.1:0"]);
    assert!(good.status.success(), "{}", String::from_utf8_lossy(&good.stdout));
    let bad = cluster.run(&["check", "--set", "queue.brokers=127.0.0.1:1", "--set", "http.listen=127.0.0.1:0"]);
    assert_eq!(bad.status.code(), Some(69));
    assert!(String::from_utf8_lossy(&bad.stdout).contains("FAIL Kafka at 127.0.0.1:1"));

    let second = cluster.add_node(&[]).await;
    let mut alice = cluster.client(second, ALICE).await;
    alice.subscribe(INBOX).await;
    cluster.publish(0, message(INBOX, 1)).await;
    alice.event().await;
    cluster.kill(second);
    cluster.sees_nodes(0, 1).await;
    let early = cluster.run(&["gc"]);
    assert!(String::from_utf8_lossy(&early.stdout).contains("0 removed"), "within the grace time");
    let dead = cluster.queue(second);
    eventually("the dead node's queue is removed", PATIENCE, async || {
        let output = cluster.run(&["gc", "--set", "queue.gc_grace_ms=2000"]);
        String::from_utf8_lossy(&output.stdout).contains(&format!("removed {dead}")).then_some(())
    })
    .await;
    let mut alice = cluster.client(0, ALICE).await;
    alice.subscribe(INBOX).await;
    cluster.publish(0, message(INBOX, 2)).await;
    assert_eq!(uid(&alice.event().await), 2, "the living node has its queue still");
}

/// Nothing that comes after the `subscribe` reply is lost, however often sessions come and go around it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn churn_loses_nothing_after_the_reply() {
    let cluster = TestCluster::start_with(2, &["registry.linger_ms=1"]).await;
    let (token, admin) = (cluster.token(ALICE, &["push"]), cluster.admin_token());
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let mut churners = Vec::new();
    for number in 0..4 {
        let (url, token, stopped) = (cluster.ws(number % 2), token.clone(), stopped.clone());
        churners.push(tokio::spawn(async move {
            let mut rounds = 0;
            while !*stopped.borrow() {
                let mut client = WsClient::connect(&url, &token).await;
                client.subscribe(INBOX).await;
                if rounds % 2 == 0 {
                    client.command("unsubscribe", json!({ "mailbox": INBOX })).await;
                }
                rounds += 1;
            }
            rounds
        }));
    }
    let url = format!("{}/v1/events", cluster.http(0));
    let client = reqwest::Client::new();
    let mut next = 1_u32;
    for round in 0..12 {
        let mut alice = WsClient::connect(&cluster.ws(round % 2), &token).await;
        alice.subscribe(INBOX).await;
        let first = next;
        for _ in 0..20 {
            let response = client.post(&url).bearer_auth(&admin).json(&message(INBOX, next)).send().await.expect("an answer");
            assert!(response.status().is_success());
            next += 1;
        }
        let mut heard = BTreeSet::new();
        while heard.len() < 20 {
            let number = uid(&alice.event().await);
            if number >= u64::from(first) {
                assert!(heard.insert(number), "told twice");
            }
        }
        assert_eq!(heard, (u64::from(first)..u64::from(next)).collect());
    }
    stop.send_replace(true);
    for churner in churners {
        let rounds = churner.await.expect("a churner that ran");
        assert!(rounds > 0);
    }
}

#[tokio::test]
async fn a_session_can_take_up_its_subscriptions_with_connect() {
    let cluster = TestCluster::start(1).await;
    let mut alice = WsClient::open(&cluster.ws(0)).await;
    let resume = json!({ "pos": "old.queue@17", "subscriptions": [{ "mailbox": INBOX }, { "mailbox": "#private:bob@example.org:INBOX" }] });
    let reply = alice.command("connect", json!({ "token": cluster.token(ALICE, &["push"]), "resume": resume })).await;
    let resumed = reply["connect"]["resumed"].as_array().expect("what became of them").clone();
    assert_eq!(resumed.len(), 2, "{reply}");
    assert!(resumed.iter().all(|r| r["recovered"] == false));
    cluster.publish(0, message(INBOX, 1)).await;
    assert_eq!(uid(&alice.event().await), 1, "settled before the reply");
    assert_eq!(alice.next_within(Duration::from_millis(100)).await, None);
}
