//! A mailbox that somebody may not see, and one that does not exist: no answer says which it is (I-9).

use std::collections::BTreeMap;

use reqwest::Method;
use serde_json::json;

use crate::support::dev::DevCluster;
use crate::support::sse::SseClient;
use crate::support::ws::WsClient;

/// Exists, is watched by its owner, and is nobody else's business.
const HIDDEN: &str = "#private:alice@example.org:Drafts";
/// None of them exists: of a user who does, of one who does not, of nobody.
const ABSENT: [&str; 4] = [
    "#private:alice@example.org:Nothing",
    "#private:nobody@example.org:Drafts",
    "#private:alice@example.org:Drafts/Below",
    "#shared::Drafts",
];

/// Everything that is told in an answer, but for the time.
#[derive(Debug, PartialEq)]
struct Told {
    status: u16,
    headers: BTreeMap<String, String>,
    body: String,
}

async fn told(request: reqwest::RequestBuilder) -> Told {
    let response = request.send().await.expect("an answer");
    let headers = response.headers().iter().filter(|(name, _)| *name != "date");
    let text = |value: &reqwest::header::HeaderValue| value.to_str().expect("a text").to_owned();
    let headers = headers.map(|(name, value)| (name.as_str().to_owned(), text(value))).collect();
    Told { status: response.status().as_u16(), headers, body: response.text().await.expect("a body") }
}

/// A cluster where alice watches [`HIDDEN`], over WebSocket at one node and by SSE at the other.
async fn watched() -> (DevCluster, WsClient, reqwest::Response) {
    let cluster = DevCluster::start(2).await;
    let mut alice = WsClient::connect(&cluster.ws(0), &cluster.token(0)).await;
    alice.subscribe(HIDDEN).await;
    let url = reqwest::Url::parse_with_params(&format!("{}/v1/stream", cluster.http(1)), [("mailbox", HIDDEN)]).expect("a URL");
    let stream = reqwest::Client::new().get(url).bearer_auth(cluster.token(0)).send().await.expect("a stream");
    assert_eq!(stream.status(), 200);
    (cluster, alice, stream)
}

#[tokio::test]
async fn rest_and_sse_answer_alike() {
    let (cluster, _alice, _stream) = watched().await;
    let bob = cluster.token(1);
    let client = reqwest::Client::new();
    let ask = |method: Method, path: &str, query: &[(&str, &str)]| {
        client.request(method, format!("{}{path}", cluster.http(0))).query(query).bearer_auth(&bob)
    };
    let seen = client.get(format!("{}/v1/subscriptions", cluster.http(0))).query(&[("mailbox", HIDDEN)]);
    assert!(told(seen.bearer_auth(cluster.admin_token())).await.body.contains("alice"), "there is something to hide");

    let requests = |mailbox: &str| {
        let segment = percent_encoding::utf8_percent_encode(mailbox, percent_encoding::NON_ALPHANUMERIC).to_string();
        let acl = format!("/v1/mailboxes/{segment}/acl");
        let event = json!({ "type": "MailboxChange", "mailbox": mailbox });
        vec![
            (404, ask(Method::GET, "/v1/stream", &[("mailbox", mailbox)])),
            (200, ask(Method::GET, "/v1/subscriptions", &[("mailbox", mailbox)])),
            (200, ask(Method::GET, "/v1/local/subscriptions", &[("mailbox", mailbox)])),
            (403, ask(Method::GET, "/v1/subscriptions", &[("mailbox", mailbox), ("user", "alice@example.org")])),
            (403, ask(Method::GET, "/v1/subscriptions/stream", &[("user", "alice@example.org")])),
            // It takes no mailbox, and says so without naming this one.
            (400, ask(Method::GET, "/v1/subscriptions/stream", &[("mailbox", mailbox)])),
            (403, ask(Method::GET, &acl, &[])),
            (403, ask(Method::PUT, &acl, &[("identifier", "bob")]).json(&json!({ "rights": "lr" }))),
            (403, ask(Method::DELETE, &acl, &[])),
            (403, ask(Method::POST, "/v1/events", &[]).json(&event)),
        ]
    };
    let mut hidden = Vec::new();
    for (status, request) in requests(HIDDEN) {
        let answer = told(request).await;
        assert_eq!(answer.status, status, "{answer:?}");
        assert!(!answer.body.contains("Drafts") && !answer.body.contains("alice"), "{answer:?}");
        hidden.push(answer);
    }
    for mailbox in ABSENT {
        for ((_, request), hidden) in requests(mailbox).into_iter().zip(&hidden) {
            assert_eq!(told(request).await, *hidden, "{mailbox}");
        }
    }
}

#[tokio::test]
async fn accounts_of_others_are_like_accounts_of_nobody() {
    let (cluster, _alice, _stream) = watched().await;
    let bob = cluster.token(1);
    let client = reqwest::Client::new();
    for (path, parameter, status) in [
        ("/v1/stream", "account", 404),
        ("/v1/subscriptions", "account", 200),
        ("/v1/subscriptions", "user", 403),
        ("/v1/sessions", "user", 403),
        ("/v1/subscriptions/stream", "user", 403),
    ] {
        let ask = |user: &str| {
            let url = format!("{}{path}", cluster.http(0));
            told(client.get(url).query(&[(parameter, user)]).bearer_auth(&bob))
        };
        let (alice, nobody) = (ask("alice@example.org").await, ask("nobody@example.org").await);
        assert_eq!((alice.status, &alice), (status, &nobody), "{path}?{parameter}");
    }
    for user in ["alice@example.org", "nobody@example.org"] {
        let url = format!("{}/v1/users/{user}/sessions", cluster.http(0));
        assert_eq!(told(client.delete(url).bearer_auth(&bob)).await.status, 403, "{user}");
    }
    assert_eq!(cluster.sessions(2).await.len(), 2, "alice's go on");
}

#[tokio::test]
async fn tickets_and_sockets_answer_alike() {
    let (cluster, _alice, _stream) = watched().await;
    let client = reqwest::Client::new();
    let mut by_ticket = Vec::new();
    let mut by_socket = Vec::new();
    let mut beside = Vec::new();
    for mailbox in [HIDDEN].iter().chain(&ABSENT) {
        // A ticket of the other node, so that it is asked for.
        let ticket = client.post(format!("{}/v1/tickets", cluster.http(1))).bearer_auth(cluster.token(1));
        let ticket: serde_json::Value = ticket.send().await.expect("an answer").json().await.expect("JSON");
        let ticket = ticket["ticket"].as_str().expect("a ticket");
        let stream = client.get(format!("{}/v1/stream", cluster.http(0)));
        let own = [("account", "bob@example.org"), ("mailbox", mailbox)];
        let query = form_urlencoded::Serializer::new(String::new()).extend_pairs(own).finish();
        let url = format!("{}/v1/stream?{query}", cluster.http(0));
        let mut both = SseClient::open(&url, Some(&cluster.token(1)), 0).await;
        beside.push([both.next().await.expect("an answer"), both.next().await.expect("another answer")]);
        by_ticket.push(told(stream.query(&[("mailbox", *mailbox), ("ticket", ticket)])).await);
        let mut bob = WsClient::connect(&cluster.ws(0), &cluster.token(1)).await;
        by_socket.push(bob.command("subscribe", json!({ "mailbox": mailbox })).await.to_string());
    }
    assert_eq!(by_ticket[0].status, 404);
    assert!(by_socket[0].contains("\"error\"") && !by_socket[0].contains("Drafts"), "{}", by_socket[0]);
    assert!(by_ticket.iter().all(|told| *told == by_ticket[0]), "{by_ticket:?}");
    assert!(beside.iter().all(|told| *told == beside[0]), "{beside:?}");
    assert!(!format!("{beside:?}").contains("Drafts"), "{beside:?}");
    assert!(by_socket.iter().all(|told| *told == by_socket[0]), "{by_socket:?}");
}
