//! An event's way through a cluster, in process: what a client is told, and what not.

use serde_json::json;

use crate::support::dev::DevCluster;
use crate::support::ws::WsClient;

const INBOX: &str = "#private:alice@example.org:INBOX";
const BOBS: &str = "#private:bob@example.org:INBOX";

async fn publish(cluster: &DevCluster, node: usize, event: serde_json::Value) -> serde_json::Value {
    let client = reqwest::Client::new();
    let request = client.post(format!("{}/v1/events", cluster.http(node))).bearer_auth(cluster.admin_token());
    request.json(&event).send().await.expect("an answer").json().await.expect("JSON")
}

#[tokio::test]
async fn an_event_that_enters_at_node_1_reaches_a_client_of_node_2() {
    let cluster = DevCluster::start(2).await;
    let mut alice = WsClient::connect(&cluster.ws(1), &cluster.token(0)).await;
    alice.subscribe(INBOX).await;
    let answer = publish(&cluster, 0, json!({"type": "MessageNew", "mailbox": INBOX, "messages": [{"uid": 7}]})).await;
    assert_eq!(answer["results"][0]["queues"], json!(["mailpush.node.dev-2"]), "{answer}");
    let event = alice.event().await;
    assert_eq!(event["event"]["messages"], json!([{"uid": 7}]));
    assert_eq!(event["pos"], "mailpush.node.dev-2@0");
}

#[tokio::test]
async fn somebody_elses_mailbox_is_as_good_as_none() {
    let cluster = DevCluster::start(1).await;
    let mut bob = WsClient::connect(&cluster.ws(0), &cluster.token(1)).await;
    let theirs = bob.command("subscribe", json!({ "mailbox": INBOX })).await;
    let none = bob.command("subscribe", json!({ "mailbox": "#shared::does not exist" })).await;
    assert_eq!(theirs["error"], none["error"], "nobody can tell one from the other (I-9)");
    assert_eq!(theirs["error"]["code"], 404);
    bob.subscribe(BOBS).await;
    publish(&cluster, 0, json!({"type": "MailboxChange", "mailbox": INBOX})).await;
    publish(&cluster, 0, json!({"type": "MailboxChange", "mailbox": BOBS})).await;
    assert_eq!(bob.next_push("event").await["event"]["mailbox"], BOBS, "what was published before is not his");
    assert_eq!(bob.command("ping", json!({})).await["ping"], json!({}), "one refusal never closes the socket");
}
