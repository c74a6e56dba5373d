//! What REST tells of a whole cluster: complete, or it says who is missing.

use futures::StreamExt;
use serde_json::{Value, json};

use crate::support::cluster::{Own, PATIENCE, TestCluster, message, uid};
use crate::support::process::signal;
use crate::support::wait::eventually;
use crate::support::ws::WsClient;

const ALICE: &str = "alice@example.org";
const BOB: &str = "bob@example.org";

fn mailbox(user: &str, name: &str) -> String {
    format!("#private:{user}:{name}")
}

/// All pages of the listing of subscriptions.
async fn listed(cluster: &TestCluster, node: usize, query: &str, token: &str) -> Vec<Value> {
    pages(cluster, node, "subscriptions", query, token).await
}

/// All pages of a listing.
async fn pages(cluster: &TestCluster, node: usize, what: &str, query: &str, token: &str) -> Vec<Value> {
    let mut all = Vec::new();
    let mut after = String::new();
    loop {
        let (status, page) = cluster.get(node, &format!("/v1/{what}?{query}{after}"), token).await;
        assert_eq!(status, 200, "{page}");
        assert_eq!(page["partial"], json!([]), "{page}");
        all.extend(page[what].as_array().expect("a list").clone());
        match page["next"].as_str() {
            Some(next) => after = format!("&after={next}"),
            None => return all,
        }
    }
}

#[tokio::test]
async fn the_list_is_complete_in_pages_of_any_size_and_narrowed() {
    let cluster = TestCluster::start(3).await;
    let mut clients = Vec::new();
    for number in 0..6 {
        let user = if number % 2 == 0 { ALICE } else { BOB };
        let mut client = cluster.client(number % 3, user).await;
        for name in ["INBOX", "Sent", "a b/ü%"] {
            client.subscribe(&mailbox(user, name)).await;
        }
        clients.push(client);
    }
    let admin = cluster.admin_token();
    for limit in [1, 4, 7, 1000] {
        let all = listed(&cluster, limit % 3, &format!("limit={limit}"), &admin).await;
        assert_eq!(all.len(), 18, "in pages of {limit}");
        let mut distinct: Vec<String> = all.iter().map(|s| format!("{} {}", s["session"], s["key"])).collect();
        distinct.sort();
        distinct.dedup();
        assert_eq!(distinct.len(), 18);
        let sessions = pages(&cluster, limit % 3, "sessions", &format!("limit={limit}"), &admin).await;
        assert!(sessions.len() == 6 && sessions.is_sorted_by_key(|s| s["id"].to_string()), "in pages of {limit}");
    }
    assert_eq!(listed(&cluster, 0, "user=BOB@example.org", &admin).await.len(), 9);
    assert_eq!(listed(&cluster, 0, "node=n2", &admin).await.len(), 6);
    assert_eq!(listed(&cluster, 0, "transport=sse", &admin).await.len(), 0);
    let query = "mailbox=%23private:alice@example.org:INBOX";
    assert_eq!(listed(&cluster, 2, query, &admin).await.len(), 3);

    let own = cluster.token(BOB, &["push"]);
    assert_eq!(listed(&cluster, 1, "", &own).await.len(), 9, "without the scope, one's own");
    let (status, problem) = cluster.get(1, "/v1/subscriptions?user=alice@example.org", &own).await;
    assert_eq!((status, problem["title"].as_str()), (403, Some("Forbidden")));
    for bad in ["limit=0", "limit=x", "after=x", "transport=pigeon", "mailbox=INBOX", "node=a/b"] {
        let (status, problem) = cluster.get(0, &format!("/v1/subscriptions?{bad}"), &admin).await;
        assert_eq!(status, 400, "{bad}: {problem}");
    }
    let output = cluster.run(&["subscriptions", "--url", &cluster.http(0), "--token", &admin, "--json"]);
    assert_eq!(String::from_utf8_lossy(&output.stdout).lines().count(), 18);
}

#[tokio::test]
async fn a_node_that_does_not_answer_is_named() {
    let mut cluster = TestCluster::start(3).await;
    let mut alice = cluster.client(0, ALICE).await;
    alice.subscribe(&mailbox(ALICE, "INBOX")).await;
    let admin = cluster.admin_token();
    cluster.kill(1);
    let (_, page) = cluster.get(0, "/v1/subscriptions", &admin).await;
    assert_eq!(page["partial"], json!([{ "node": "n2", "reason": "it cannot be reached" }]), "dead, and still registered");
    assert_eq!(page["subscriptions"].as_array().map(Vec::len), Some(1), "the others are told all the same");
    let (_, nodes) = cluster.get(2, "/v1/nodes", &admin).await;
    assert_eq!(nodes["partial"][0]["node"], "n2");

    signal(cluster.pid(2), libc::SIGSTOP);
    let (_, page) = cluster.get(0, "/v1/sessions", &admin).await;
    signal(cluster.pid(2), libc::SIGCONT);
    let silent: Vec<&Value> = page["partial"].as_array().expect("a list").iter().map(|s| &s["reason"]).collect();
    assert!(silent.contains(&&json!("it did not answer in time")), "{page}");
    let output = cluster.run(&["nodes", "--url", &cluster.http(0), "--token", &admin]);
    assert!(String::from_utf8_lossy(&output.stdout).contains("n1"));
}

#[tokio::test]
async fn sessions_are_ended_wherever_they_are() {
    let cluster = TestCluster::start(2).await;
    let admin = cluster.admin_token();
    let mut alice = cluster.client(0, ALICE).await;
    alice.subscribe(&mailbox(ALICE, "INBOX")).await;
    let (_, sessions) = cluster.get(1, "/v1/sessions?user=alice@example.org", &admin).await;
    let session = &sessions["sessions"][0];
    assert_eq!((&session["node"], &session["subscriptions"]), (&json!("n1"), &json!(1)), "{sessions}");
    let id = session["id"].as_str().expect("an id");

    let delete = async |path: String, token: &str| {
        let request = reqwest::Client::new().delete(format!("{}{path}", cluster.http(1))).bearer_auth(token);
        let response = request.send().await.expect("an answer");
        (response.status().as_u16(), response.json::<Value>().await.expect("JSON"))
    };
    let bob = cluster.token(BOB, &["push"]);
    assert_eq!(delete(format!("/v1/sessions/{id}"), &bob).await.0, 404, "somebody else's is as good as none");
    assert_eq!(delete("/v1/sessions/n1.0000000000000000".to_owned(), &admin).await.0, 404);
    assert_eq!(delete(format!("/v1/sessions/{id}"), &admin).await.1["ended"], 1);
    assert_eq!(alice.push("disconnect").await["code"], 4505);
    assert_eq!((alice.next().await, alice.closed), (None, Some(4505)));

    let mut all = [cluster.client(0, ALICE).await, cluster.client(1, ALICE).await];
    let mut bystander = cluster.client(0, BOB).await;
    assert_eq!(delete("/v1/users/alice@example.org/sessions".to_owned(), &bob).await.0, 403);
    let alices = cluster.token(ALICE, &["push"]);
    let (status, answer) = delete("/v1/users/Alice%40example.org/sessions".to_owned(), &alices).await;
    assert_eq!((status, &answer["ended"]), (200, &json!(2)), "everybody may log themselves out everywhere: {answer}");
    for client in &mut all {
        assert_eq!(client.push("disconnect").await["reconnect"], false);
    }
    assert_eq!(bystander.command("ping", json!({})).await["ping"], json!({}));
}

/// A stream, as text.
struct Lines {
    response: reqwest::Response,
    text: String,
}

impl Lines {
    async fn open(url: &str, token: &str) -> Self {
        let response = reqwest::Client::new().get(url).bearer_auth(token).send().await.expect("a stream");
        assert_eq!(response.status(), 200);
        Self { response, text: String::new() }
    }

    /// Reads on until this has come.
    async fn until(&mut self, wanted: &str) {
        while !self.text.contains(wanted) {
            let more = tokio::time::timeout(PATIENCE, self.response.chunk()).await;
            let more = more.unwrap_or_else(|_| panic!("{wanted} not in {}", self.text)).expect("bytes").expect("more");
            self.text.push_str(std::str::from_utf8(&more).expect("UTF-8"));
        }
    }
}

#[tokio::test]
async fn without_a_registry_the_listed_peers_are_asked() {
    let mut cluster = TestCluster::start_with(0, &["queue.topology=broadcast", "registry.kind=broadcast"]).await;
    cluster.add_node(&[]).await;
    let here = cluster.add_node(&[]).await;
    cluster.terminate(here).await;
    // One peer under two names, and the node itself under another name.
    let alias = |node| cluster.http(node).replace("127.0.0.1", "localhost");
    let peers = format!("registry.peers={},{},{}", cluster.http(0), alias(0), alias(here));
    cluster.launch(here, &[&peers]).await;
    let admin = cluster.admin_token();
    let mut alice = cluster.client(0, ALICE).await;
    alice.subscribe(&mailbox(ALICE, "before")).await;

    let (_, page) = cluster.get(here, "/v1/subscriptions", &admin).await;
    assert_eq!((page["subscriptions"].as_array().map(Vec::len), &page["partial"]), (Some(1), &json!([])), "{page}");
    alice.subscribe(&mailbox(ALICE, "between")).await;
    let since = page["stream"].as_str().expect("a cursor");
    let mut lines = Lines::open(&format!("{}/v1/subscriptions/stream?since={since}", cluster.http(here)), &admin).await;
    lines.until("alice@example.org:between").await;
    alice.subscribe(&mailbox(ALICE, "after")).await;
    lines.until("alice@example.org:after").await;
    for (what, times) in [("before", 0), ("between", 1), ("after", 1), ("event: snapshot", 2)] {
        assert_eq!(lines.text.matches(what).count(), times, "{what} in {}", lines.text);
    }

    let client = reqwest::Client::new();
    let request = client.post(format!("{}/v1/tickets", cluster.http(0))).bearer_auth(cluster.token(ALICE, &["push"]));
    let ticket: Value = request.send().await.expect("an answer").json().await.expect("JSON");
    let ticket = ticket["ticket"].as_str().expect("a ticket");
    let url = format!("{}/v1/stream?account=alice@example.org&ticket={ticket}", cluster.http(here));
    assert_eq!(reqwest::get(&url).await.expect("an answer").status(), 200, "given out by n1, taken by n2");
    assert_eq!(reqwest::get(&url).await.expect("an answer").status(), 401, "once");

    let (_, sessions) = cluster.get(here, "/v1/sessions?transport=websocket", &admin).await;
    let id = sessions["sessions"][0]["id"].as_str().expect("an id").to_owned();
    let end = async |path: String| {
        let request = client.delete(format!("{}{path}", cluster.http(here))).bearer_auth(&admin);
        request.send().await.expect("an answer").status().as_u16()
    };
    assert_eq!(end("/v1/sessions/n1.0000000000000000".to_owned()).await, 404);
    assert_eq!(end(format!("/v1/local/sessions/{id}")).await, 404, "nobody else is asked");
    assert_eq!(end(format!("/v1/sessions/{id}")).await, 200);
    assert_eq!(alice.push("disconnect").await["code"], 4505);

    cluster.kill(0);
    let end = client.delete(format!("{}/v1/sessions/{id}", cluster.http(here))).bearer_auth(&admin);
    assert_eq!(end.send().await.expect("an answer").status(), 502, "nobody knows");
    assert_eq!(reqwest::get(&url).await.expect("an answer").status(), 503, "401 would be final");
    lines.until("event: partial").await;
    assert!(lines.text.contains("data: {\"node\":\"n1\",\"reason\""), "by its id: {}", lines.text);
}

#[tokio::test]
async fn the_stream_goes_on_where_the_list_ends() {
    let mut cluster = TestCluster::start(2).await;
    let admin = cluster.admin_token();
    let mut alice = cluster.client(1, ALICE).await;
    alice.subscribe(&mailbox(ALICE, "before")).await;
    let (_, page) = cluster.get(0, "/v1/subscriptions", &admin).await;
    assert_eq!(page["subscriptions"].as_array().map(Vec::len), Some(1));
    alice.subscribe(&mailbox(ALICE, "between")).await;

    let url = format!("{}/v1/subscriptions/stream?since={}", cluster.http(0), page["stream"].as_str().expect("a cursor"));
    let mut lines = Lines::open(&url, &admin).await;
    lines.until("alice@example.org:between").await;
    assert!(!lines.text.contains("alice@example.org:before"), "that was in the list");
    let mut bob = cluster.client(0, BOB).await;
    bob.subscribe(&mailbox(BOB, "INBOX")).await;
    lines.until("bob@example.org:INBOX").await;
    alice.command("unsubscribe", json!({ "mailbox": mailbox(ALICE, "between") })).await;
    lines.until("event: unsubscribed").await;
    let third = cluster.add_node(&[]).await;
    let mut late = cluster.client(third, ALICE).await;
    late.subscribe(&mailbox(ALICE, "on the new node")).await;
    lines.until("on the new node").await;
    cluster.kill(1);
    lines.until("event: partial").await;
    lines.until("event: gone").await;
}

#[tokio::test]
async fn a_ticket_works_once_on_any_node() {
    let cluster = TestCluster::start(2).await;
    let token = cluster.token(ALICE, &["push"]);
    let request = reqwest::Client::new().post(format!("{}/v1/tickets", cluster.http(0))).bearer_auth(&token);
    let answer: Value = request.send().await.expect("an answer").json().await.expect("JSON");
    let ticket = answer["ticket"].as_str().expect("a ticket");
    let url = format!("{}/v1/stream?mailbox=%23private:alice@example.org:INBOX&ticket={ticket}", cluster.http(1));
    let stream = reqwest::get(&url).await.expect("an answer");
    assert_eq!(stream.status(), 200, "given out by n1, taken by n2");
    assert_eq!(reqwest::get(&url).await.expect("an answer").status(), 401, "once");
    eventually("the stream is subscribed", PATIENCE, async || {
        let (_, page) = cluster.get(0, "/v1/subscriptions?transport=sse", &cluster.admin_token()).await;
        (page["subscriptions"].as_array()?.len() == 1).then_some(())
    })
    .await;
    cluster.publish(0, message(&mailbox(ALICE, "INBOX"), 1)).await;
    let mut body = stream.bytes_stream();
    let mut text = String::new();
    while !text.contains("event: event") {
        let more = tokio::time::timeout(PATIENCE, body.next()).await.expect("in time").expect("more").expect("bytes");
        text.push_str(std::str::from_utf8(&more).expect("UTF-8"));
    }
    assert!(text.contains(&format!("id: {}@0\nevent: event\ndata: {{\"event\"", cluster.queue(1))), "{text}");
}

#[tokio::test]
async fn readiness_names_the_dependency_and_liveness_does_not_care() {
    let mut cluster = TestCluster::start_owning(Own::Zookeeper, 1, &[]).await;
    let mut client = WsClient::connect(&cluster.ws(0), &cluster.token(ALICE, &["push"])).await;
    client.subscribe(&mailbox(ALICE, "INBOX")).await;
    cluster.own_zookeeper().kill();
    cluster.becomes_unready(0).await;
    let response = reqwest::get(format!("{}/readyz", cluster.http(0))).await.expect("an answer");
    let ready: Value = response.json().await.expect("JSON");
    assert_eq!((&ready["dependencies"][0]["name"], &ready["dependencies"][0]["ok"]), (&json!("registry"), &json!(false)));
    assert_eq!(ready["dependencies"][1]["ok"], true, "{ready}");
    assert_eq!(reqwest::get(format!("{}/livez", cluster.http(0))).await.expect("an answer").status(), 200);
    cluster.publish(0, message(&mailbox(ALICE, "INBOX"), 4)).await;
    assert_eq!(uid(&client.event().await), 4);
}
