//! `POST /v1/events` and `GET /v1/stream`: what origins hand in, good and bad, and how plain HTTP clients hear of it.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::support::dev::{DevCluster, claims, sign};
use crate::support::raw_ws::{RawClient, request};
use crate::support::sse::SseClient;
use crate::support::ws::WsClient;

const INBOX: &str = "#private:alice@example.org:INBOX";
const MSGPACK: &str = "application/msgpack";
const JSON: &str = "application/json";

/// What the node answered: its status, and its body in JSON.
async fn post(cluster: &DevCluster, content_type: &str, body: impl Into<reqwest::Body>) -> (u16, Value) {
    let request = reqwest::Client::new().post(format!("{}/v1/events", cluster.http(0))).bearer_auth(cluster.admin_token());
    let answer = request.header("content-type", content_type).body(body).send().await.expect("an answer");
    read(answer).await
}

/// Anything but a success is a problem document.
async fn read(answer: reqwest::Response) -> (u16, Value) {
    let status = answer.status().as_u16();
    let content_type = answer.headers()["content-type"].to_str().expect("a content type").to_owned();
    let body: Value = answer.json().await.expect("JSON");
    if status >= 400 {
        assert_eq!(content_type, "application/problem+json", "{body}");
        assert_eq!(body["status"], status, "{body}");
        assert!(body["detail"].as_str().is_some_and(|detail| !detail.is_empty()), "{body}");
    }
    (status, body)
}

async fn alice(cluster: &DevCluster) -> WsClient {
    let mut alice = WsClient::connect(&cluster.ws(0), &cluster.token(0)).await;
    alice.subscribe(INBOX).await;
    alice
}

fn arrival(uid: u32) -> Value {
    json!({ "type": "MessageNew", "mailbox": INBOX, "messages": [{ "uid": uid }] })
}

fn pack(value: &Value) -> Vec<u8> {
    rmp_serde::to_vec_named(value).expect("MessagePack")
}

async fn expect_uids(client: &mut WsClient, uids: impl IntoIterator<Item = u32>) {
    for uid in uids {
        assert_eq!(client.event().await["event"]["messages"][0]["uid"], uid);
    }
    client.expect_quiet().await;
}

#[tokio::test]
async fn events_are_taken_in_every_form() {
    let cluster = DevCluster::start(1).await;
    let mut alice = alice(&cluster).await;
    let array = |first| json!([arrival(first), arrival(first + 1)]);
    let mut array32 = vec![0xdd, 0, 0, 0, 1];
    array32.extend(pack(&arrival(13)));
    let cases = [
        (1, JSON, arrival(1).to_string().into_bytes()),
        (1, "Application/JSON; charset=utf-8", format!("\n\t {}\r\n", arrival(2)).into_bytes()),
        (2, JSON, format!("  {}", array(3)).into_bytes()),
        (2, "application/x-ndjson", format!("{}\n\n{}\r\n", arrival(5), arrival(6)).into_bytes()),
        (1, MSGPACK, pack(&arrival(7))),
        (2, MSGPACK, pack(&array(8))),
        (2, "application/vnd.msgpack", [pack(&arrival(10)), pack(&arrival(11))].concat()),
        (1, "application/x-msgpack", pack(&json!([arrival(12)]))),
        (1, MSGPACK, array32),
    ];
    for (count, content_type, body) in cases {
        let (status, answer) = post(&cluster, content_type, body).await;
        assert_eq!(status, 200, "{content_type}: {answer}");
        let results = answer["results"].as_array().expect("results");
        assert_eq!(results.len(), count, "{content_type}");
        for result in results {
            assert_eq!(result["queues"], json!(["mailpush.node.dev-1"]));
            assert!(result["id"].is_string() && result.get("error").is_none(), "{result}");
        }
    }
    expect_uids(&mut alice, 1..=13).await;
    let (_, answer) = post(&cluster, JSON, arrival(1).to_string().replace("INBOX", "Sent")).await;
    assert_eq!(answer["results"][0]["queues"], json!([]), "nobody listens");
}

#[tokio::test]
async fn the_first_james_implementations_events_are_understood() {
    let cluster = DevCluster::start(1).await;
    let mut alice = alice(&cluster).await;
    let flags = |seen| json!({ "answered": false, "flagged": true, "recent": true, "deleted": false, "draft": false, "seen": seen, "userFlags": [] });
    let james = |ordinal: u8, more: Value| {
        let mut event = json!({
            "type": ordinal,
            "mailbox": { "serializedMailboxId": "12", "namespace": "#private", "user": "Alice@example.org", "name": "INBOX", "uidValidity": 77 },
            "session": { "sessionId": 5, "username": "alice@example.org", "separator": "." },
        });
        for (name, value) in more.as_object().expect("fields") {
            event[name] = value.clone();
        }
        event
    };
    let message = json!({ "modseq": 3, "flags": flags(false), "size": 120, "date": "2016/01/02 03:04:05" });
    let added = pack(&james(0, json!({ "uids": [8, "9"], "metaData": { "8": message } })));
    let changed = json!([{ "uid": "8", "modseq": 4, "oldFlags": flags(false), "newFlags": flags(true) }]);
    let batch = [added.clone(), pack(&james(2, json!({ "updatedFlags": changed }))), pack(&james(1, json!({ "uids": ["9"] })))];
    let (status, answer) = post(&cluster, MSGPACK, batch.concat()).await;
    assert_eq!(status, 200, "{answer}");
    let event = alice.event().await["event"].clone();
    assert_eq!((&event["type"], &event["actor"]), (&json!("MessageAppend"), &json!("alice@example.org")));
    assert_eq!(
        event["messages"],
        json!([{ "uid": 8, "flags": ["\\Flagged"], "size": 120, "internaldate": 1_451_703_845_000u64, "modseq": "3" }, { "uid": 9 }])
    );
    let event = alice.event().await["event"].clone();
    assert_eq!((&event["type"], &event["messages"][0]["changed"]), (&json!("FlagsSet"), &json!(["\\Seen"])));
    assert_eq!(alice.event().await["event"]["uids"], json!([9]));

    let (status, _) = post(&cluster, MSGPACK, added).await;
    assert_eq!(status, 200);
    alice.expect_quiet().await;
    let (status, answer) = post(&cluster, MSGPACK, pack(&james(9, json!({})))).await;
    assert_eq!((status, answer["results"].as_array().map(Vec::len)), (422, Some(1)), "{answer}");
}

#[tokio::test]
async fn bodies_that_are_no_batch_are_refused_as_a_whole() {
    let cluster = DevCluster::start(1).await;
    let mut alice = alice(&cluster).await;
    let event = pack(&arrival(1));
    let deep = |open: &[u8], depth: usize| open.repeat(depth);
    let cases = [
        (400, JSON, Vec::new()),
        (400, JSON, b"[]".to_vec()),
        (400, JSON, b"[".to_vec()),
        (400, JSON, format!("[{},", arrival(1)).into_bytes()),
        (400, JSON, format!("[{}] x", arrival(1)).into_bytes()),
        (400, JSON, b"[\xff]".to_vec()),
        (400, JSON, deep(b"[", 100_000)),
        (400, "application/x-ndjson", b" \n \n".to_vec()),
        (400, MSGPACK, Vec::new()),
        (400, MSGPACK, vec![0x90]),
        (400, MSGPACK, vec![0xc1]),
        (400, MSGPACK, event[..event.len() - 1].to_vec()),
        (400, MSGPACK, [&event[..], &event[..event.len() / 2]].concat()),
        (400, MSGPACK, vec![0xdd, 0xff, 0xff, 0xff, 0xff]),
        (400, MSGPACK, vec![0xdf, 0xff, 0xff, 0xff, 0xff]),
        (400, MSGPACK, vec![0xdb, 0xff, 0xff, 0xff, 0xff]),
        (400, MSGPACK, vec![0xc6, 0xff, 0xff, 0xff, 0xff, 1]),
        (400, MSGPACK, deep(&[0x91], 500_000)),
        (400, MSGPACK, deep(&[0x81, 0xa1, b'a'], 300_000)),
        (413, JSON, vec![b' '; (1 << 20) + 1]),
        (413, MSGPACK, vec![0xc0; 3 << 20]),
        (413, JSON, json!(vec![json!(1); 1_001]).to_string().into_bytes()),
        (415, "text/plain", arrival(1).to_string().into_bytes()),
        (415, "application/json-patch+json", arrival(1).to_string().into_bytes()),
        (415, "", arrival(1).to_string().into_bytes()),
    ];
    for (status, content_type, body) in cases {
        let shown = body.get(..20).unwrap_or(&body).to_owned();
        let (answered, problem) = post(&cluster, content_type, body).await;
        assert_eq!(answered, status, "{content_type} {shown:?}: {problem}");
    }
    assert!(cluster.resident_bytes() < 400 << 20, "a claimed length is not believed");
    assert_eq!(post(&cluster, JSON, arrival(2).to_string()).await.0, 200, "and the node goes on");
    expect_uids(&mut alice, [2]).await;
}

#[tokio::test]
async fn each_event_of_a_batch_has_its_own_fate() {
    let cluster = DevCluster::start(1).await;
    let mut alice = alice(&cluster).await;
    let nested = |depth: usize| (0..depth).fold(json!(1), |inner, _| json!([inner]));
    let with = |name: &str, value: Value| {
        let mut event = arrival(9);
        event[name] = value;
        event
    };
    let without = |name: &str| {
        let mut event = arrival(9);
        event.as_object_mut().expect("an event").remove(name);
        event
    };
    let bad = [
        ("unknown type", with("type", json!("Dance"))),
        ("no type", without("type")),
        ("no mailbox", without("mailbox")),
        ("no messages", without("messages")),
        ("not a path", with("mailbox", json!("INBOX"))),
        ("an owner that is no user", with("mailbox", json!("#private:a\nb:INBOX"))),
        ("an endless path", with("mailbox", json!(format!("{INBOX}{}", "x".repeat(20_000))))),
        ("UID 0", with("messages", json!([{ "uid": 0 }]))),
        ("a huge UID", with("messages", json!([{ "uid": 4_294_967_296u64 }]))),
        ("a negative UID", with("messages", json!([{ "uid": -1 }]))),
        ("an id that is none", with("id", json!("1"))),
        ("UIDVALIDITY 0", with("uidvalidity", json!(0))),
        ("not an event", json!("event")),
        ("nothing", Value::Null),
    ];
    let mut batch = vec![arrival(1)];
    batch.extend(bad.iter().map(|(_, event)| event.clone()));
    // Unknown fields are ignored, whatever is in them (I-1).
    batch.push({
        let mut event = with("new_in_v9", nested(20));
        event["messages"] = json!([{ "uid": 2, "new_in_v9": {} }]);
        event
    });
    let lines: String = batch.iter().map(|event| format!("{event}\n")).collect();
    for (content_type, body) in [
        (JSON, json!(batch).to_string().into_bytes()),
        (MSGPACK, pack(&json!(batch))),
        ("application/x-ndjson", lines.into_bytes()),
    ] {
        let (status, problem) = post(&cluster, content_type, body).await;
        assert_eq!(status, 422, "{content_type}: {problem}");
        let results = problem["results"].as_array().expect("results");
        assert_eq!(results.len(), batch.len());
        for (result, (what, _)) in results[1..].iter().zip(&bad) {
            assert!(result["error"].as_str().is_some_and(|error| error.len() < 500), "{content_type}, {what}: {result}");
        }
        for good in [&results[0], &results[batch.len() - 1]] {
            assert_eq!(good["queues"], json!(["mailpush.node.dev-1"]), "{content_type}: {good}");
        }
        expect_uids(&mut alice, [1, 2]).await;
    }
}

#[tokio::test]
async fn an_event_that_comes_twice_is_told_once() {
    let cluster = DevCluster::start(2).await;
    let mut alice = alice(&cluster).await;
    let event = |uid, id: &str| {
        let mut event = arrival(uid);
        event["id"] = json!(id);
        event
    };
    let (first, second) = ("01997f2e-0000-7000-8000-000000000001", "01997f2e-0000-7000-8000-000000000002");
    for node in [0, 1, 0] {
        cluster.publish(node, json!([event(1, first), event(1, first)])).await;
    }
    cluster.publish(1, event(2, second)).await;
    let told = alice.event().await;
    assert_eq!((&told["event"]["id"], &told["event"]["messages"][0]["uid"]), (&json!(first), &json!(1)));
    expect_uids(&mut alice, [2]).await;
}

#[tokio::test]
async fn only_origins_may_publish() {
    let cluster = DevCluster::with_secret(&[]).await;
    let mut alice = alice(&cluster).await;
    let url = format!("{}/v1/events", cluster.http(0));
    let send = async |authorization: Option<String>| {
        let request = reqwest::Client::new().post(&url).json(&arrival(1));
        let request = authorization.iter().fold(request, |request, value| request.header("authorization", value));
        let answer = request.send().await.expect("an answer");
        let challenge = answer.headers().get("www-authenticate").map(|value| value.to_str().expect("ASCII").to_owned());
        let (status, problem) = read(answer).await;
        (status, challenge, problem["code"].as_str().map(str::to_owned))
    };
    let challenge = |text: &str| Some(text.to_owned());
    let refused = |code: &str| (401, challenge("Bearer error=\"invalid_token\""), challenge(code));
    let expired = sign(&claims(-60.0));
    let mut publisher = claims(600.0);
    publisher["scope"] = json!("events:publish");
    publisher["aud"] = json!("another service");
    let foreign = sign(&publisher);
    assert_eq!(send(None).await, (401, challenge("Bearer"), challenge("no_token")));
    assert_eq!(send(challenge("Basic YWxpY2U6YWxpY2U=")).await, (401, challenge("Bearer"), challenge("no_token")));
    assert_eq!(send(challenge("Bearer")).await, (401, challenge("Bearer"), challenge("no_token")));
    assert_eq!(send(challenge("Bearer nonsense")).await, refused("token_malformed"));
    assert_eq!(send(Some(format!("Bearer {expired}"))).await, refused("token_expired"));
    assert_eq!(send(Some(format!("Bearer {foreign}"))).await, refused("token_wrong_audience"));
    let (status, challenge, _) = send(Some(format!("Bearer {}", cluster.token(0)))).await;
    assert_eq!((status, challenge), (403, None), "without the scope events:publish");
    alice.expect_quiet().await;
    cluster.assert_silent_about(&[&expired, &foreign, "YWxpY2U6YWxpY2U="]);
}

#[tokio::test]
async fn a_body_that_does_not_come_does_not_hold_a_connection() {
    let cluster = DevCluster::start_with(1, &["http.request_timeout_ms=400", "http.peer_timeout_ms=200"]).await;
    let mut slow = RawClient::dial(&cluster.http(0)).await;
    let headers = format!("Authorization: Bearer {}\r\nContent-Type: {JSON}\r\nContent-Length: 1000\r\n", cluster.admin_token());
    slow.send(request("POST /v1/events HTTP/1.1", &headers)).await;
    slow.send("{\"type\":").await;
    let answer = slow.answer().await;
    assert_eq!(answer.status, 503);
    answer.problem();
    assert_eq!(slow.said().await, crate::support::raw_ws::Said::End);

    let url = format!("{}/v1/stream?account=alice@example.org", cluster.http(0));
    let mut stream = SseClient::open(&url, Some(&cluster.token(0)), 1).await;
    let mut second = RawClient::dial(&cluster.http(0)).await;
    second.send(request("POST /v1/events HTTP/1.1", &headers)).await;
    assert_eq!(second.answer().await.status, 503, "so much time has passed again");
    cluster.publish(0, arrival(1)).await;
    assert_eq!(stream.next().await.expect("an event").name, "event", "a stream is not bounded by it");
}

#[tokio::test]
async fn a_stream_tells_the_same_as_a_socket() {
    let cluster = DevCluster::start_with(2, &["sessions.heartbeat_ms=300", "sessions.pong_timeout_ms=250"]).await;
    let query = "mailbox=%23private:alice@example.org:INBOX&account=Alice@example.org&mailbox=%23private:alice@example.org:inbox";
    let url = format!("{}/v1/stream?{query}&types=MessageNew,MessageExpunge", cluster.http(1));
    let mut stream = SseClient::open(&url, Some(&cluster.token(0)), 0).await;
    let mut answers = Vec::new();
    for _ in 0..3 {
        let answer = stream.next().await.expect("an answer").data;
        answers.push((answer["id"].as_u64(), answer["subscribe"]["key"].clone()));
    }
    answers.sort_by_key(|(id, _)| *id);
    let (inbox, alice) = (json!({ "mailbox": INBOX }), json!({ "account": "alice@example.org" }));
    assert_eq!(answers, [(Some(0), inbox.clone()), (Some(1), alice), (Some(2), inbox)], "by its place, named twice or not");
    cluster.publish(0, arrival(1)).await;
    cluster.publish(0, json!({ "type": "QuotaWithin", "mailbox": INBOX, "used": 1 })).await;
    cluster.publish(0, json!({ "type": "MessageExpunge", "mailbox": INBOX, "uids": [1] })).await;
    let first = stream.next().await.expect("an event");
    assert_eq!((first.name.as_str(), first.id.as_deref()), ("event", Some("mailpush.node.dev-2@0")));
    assert_eq!(first.data["event"]["pos"], "mailpush.node.dev-2@0");
    assert_eq!(first.data["event"]["event"]["messages"], json!([{ "uid": 1 }]));
    let second = stream.next().await.expect("an event");
    assert_eq!((second.id.as_deref(), &second.data["event"]["event"]["uids"]), (Some("mailpush.node.dev-2@2"), &json!([1])));
    stream.heartbeats(3).await;

    let sessions = cluster.sessions(1).await;
    assert_eq!((&sessions[0]["transport"], &sessions[0]["subscriptions"]), (&json!("sse"), &json!(2)));
    drop(stream);
    cluster.sessions(0).await;
}

#[tokio::test]
async fn a_compressed_body_is_said_to_be_one() {
    let cluster = DevCluster::start(1).await;
    let request = reqwest::Client::new().post(format!("{}/v1/events", cluster.http(0))).bearer_auth(cluster.admin_token());
    let request = request.header("content-type", JSON).header("content-encoding", "gzip");
    let (status, problem) = read(request.body(vec![0x1f, 0x8b, 0x08, 0x00]).send().await.expect("an answer")).await;
    assert_eq!(status, 415);
    assert!(problem["detail"].as_str().is_some_and(|detail| detail.contains("Content-Encoding")), "{problem}");
}

#[tokio::test]
async fn types_that_are_named_one_by_one_add_up() {
    let cluster = DevCluster::start(1).await;
    let base = format!("{}/v1/stream?mailbox={}", cluster.http(0), INBOX.replace('#', "%23"));
    let token = cluster.token(0);
    let url = format!("{base}&types=MailboxRename&types=MessageNew,FlagsSet&fields=from&fields=subject");
    let mut stream = SseClient::open(&url, Some(&token), 1).await;
    let flags = json!({ "type": "FlagsSet", "mailbox": INBOX, "messages": [{ "uid": 1, "changed": ["\\Seen"] }] });
    let envelope = json!({ "from": "Bob <bob@example.org>", "subject": "Lunch?" });
    let message = json!({ "type": "MessageNew", "mailbox": INBOX, "messages": [{ "uid": 1, "envelope": envelope }] });
    cluster.publish(0, json!([message, flags])).await;
    let first = stream.next().await.expect("an event").data;
    assert_eq!(first["event"]["event"]["messages"][0]["envelope"], envelope, "both fields, and the type that is named last");
    assert_eq!(stream.next().await.expect("an event").data["event"]["event"]["type"], "FlagsSet");
    for tail in ["&type=MessageNew", "&shared=false&shared=true", "&ticket=a&ticket=b"] {
        let (status, problem) = read(SseClient::ask(&format!("{base}{tail}"), Some(&token)).await).await;
        assert_eq!(status, 400, "{tail}: {problem}");
    }
}

#[tokio::test]
async fn a_hundred_mailboxes_are_watched_by_a_form() {
    let cluster = DevCluster::start(1).await;
    let path = |n: usize| format!("#private:alice@example.org:{}/{n}", "a folder with a long name/".repeat(5));
    let mut form = form_urlencoded::Serializer::new(String::new());
    form.extend_pairs((0..100).map(|n| ("mailbox", path(n))));
    let request = reqwest::Client::new().post(format!("{}/v1/stream", cluster.http(0))).bearer_auth(cluster.token(0));
    let request = request.header("content-type", "application/x-www-form-urlencoded").body(form.finish());
    let response = request.send().await.expect("an answer");
    let mut stream = SseClient::of(response);
    let mut places = Vec::new();
    for _ in 0..100 {
        let event = stream.next().await.expect("a subscribe event");
        assert_eq!(event.name, "subscribe", "{event:?}");
        let place = event.data["id"].as_u64().expect("a place");
        assert_eq!(event.data["subscribe"]["key"]["mailbox"], path(place as usize));
        places.push(place);
    }
    places.sort_unstable();
    assert_eq!(places, (0..100).collect::<Vec<_>>());
    cluster.publish(0, json!({ "type": "MailboxChange", "mailbox": path(99) })).await;
    assert_eq!(stream.next().await.expect("an event").data["event"]["event"]["mailbox"], path(99));
}

#[tokio::test]
async fn a_stream_of_nothing_and_of_what_is_not_ones_own() {
    let cluster = DevCluster::start_with(1, &["sessions.subscriptions_per_session=2"]).await;
    let ask = async |query: &str| {
        let answer = SseClient::ask(&format!("{}/v1/stream?{query}", cluster.http(0)), Some(&cluster.token(0))).await;
        read(answer).await
    };
    for query in ["", "type=MessageNew", "mailbox=INBOX", "mailbox=", "account=a%0Ab", "account=alice@example.org&types=Dance"] {
        assert_eq!(ask(query).await.0, 400, "{query}");
    }
    assert_eq!(ask("account=alice@example.org&fields=body").await.0, 400);
    let own = "mailbox=%23private:alice@example.org:";
    let theirs = ask("mailbox=%23private:bob@example.org:INBOX").await;
    let none = ask("mailbox=%23private:nobody@example.org:Nothing").await;
    assert_eq!(theirs.0, 404);
    assert_eq!(theirs, none, "nobody can tell one from the other (I-9)");
    assert_eq!(ask("mailbox=%23shared::Secret&mailbox=INBOX").await, none, "the first one's answer");
    assert_eq!(ask(&format!("{own}1&shared=true")).await.0, 400);
    cluster.sessions(0).await;
    assert_eq!(cluster.get("/v1/subscriptions").await["subscriptions"], json!([]), "and none of it is left");

    let url = format!("{}/v1/stream?account=alice@example.org", cluster.http(0));
    assert_eq!(read(SseClient::ask(&url, None).await).await.0, 401);
    let (status, problem) = read(SseClient::ask(&url, Some("nonsense")).await).await;
    assert_eq!((status, problem["code"].as_str()), (401, Some("token_malformed")));
}

#[tokio::test]
async fn what_cannot_be_watched_is_refused_alone() {
    let cluster = DevCluster::start_with(1, &["sessions.subscriptions_per_session=2"]).await;
    let own = "mailbox=%23private:alice@example.org:";
    let query = format!("{own}1&mailbox=%23shared::Secret&{own}2&mailbox=INBOX&{own}3&{own}1&mailbox=%23shared::Secret");
    let url = format!("{}/v1/stream?{query}", cluster.http(0));
    let mut stream = SseClient::open(&url, Some(&cluster.token(0)), 0).await;
    let mut answers = BTreeMap::new();
    for _ in 0..7 {
        let event = stream.next().await.expect("an answer");
        let what = if event.name == "error" { &event.data["error"]["name"] } else { &event.data["subscribe"]["key"]["mailbox"] };
        answers.insert(event.data["id"].as_u64().expect("a place"), what.as_str().expect("a word").to_owned());
    }
    let one = "#private:alice@example.org:1";
    // The hidden one takes a place of the two that a stream may have: nobody can tell it from others before it is asked for.
    let expected = [one, "not_found", "limit_reached", "bad_request", "limit_reached", one, "not_found"];
    assert_eq!(answers.into_values().collect::<Vec<_>>(), expected);
    cluster.publish(0, json!({ "type": "MailboxChange", "mailbox": one })).await;
    assert_eq!(stream.next().await.expect("an event").name, "event", "the stream goes on");
    drop(stream);
    cluster.sessions(0).await;
}

#[tokio::test]
async fn a_ticket_opens_one_stream_at_any_node() {
    let cluster = DevCluster::start_with(2, &["log.filter=trace"]).await;
    let issue = async || {
        let request = reqwest::Client::new().post(format!("{}/v1/tickets", cluster.http(0))).bearer_auth(cluster.token(0));
        let answer = request.send().await.expect("an answer");
        assert_eq!(answer.status(), 201);
        let issued: Value = answer.json().await.expect("JSON");
        issued["ticket"].as_str().expect("a ticket").to_owned()
    };
    let url = |node, ticket: &str| format!("{}/v1/stream?account=alice@example.org&ticket={ticket}", cluster.http(node));
    let mut tickets = Vec::new();
    for node in [0, 1] {
        let ticket = issue().await;
        let mut stream = SseClient::open(&url(node, &ticket), None, 1).await;
        cluster.publish(0, arrival(1)).await;
        assert_eq!(stream.next().await.expect("an event").name, "event");
        for second in [0, 1] {
            let (status, _) = read(SseClient::ask(&url(second, &ticket), None).await).await;
            assert_eq!(status, 401, "used at node {node}, tried again at {second}");
        }
        tickets.push(ticket);
    }
    let unused = issue().await;
    let (node, number) = unused.split_once('.').expect("a node and a number");
    for forged in [
        "",
        "x",
        "dev-1.",
        "dev-1.AAAA",
        "dev-9.AAAA",
        "dev-2.../../livez",
        &format!("dev-2.{number}"),
        &format!("{node}.{number}A"),
    ] {
        assert_eq!(read(SseClient::ask(&url(1, forged), None).await).await.0, 401, "{forged}");
    }
    SseClient::open(&url(1, &unused), None, 1).await;
    tickets.push(unused);
    cluster.assert_silent_about(&tickets.iter().map(String::as_str).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_stream_ends_with_its_token() {
    let cluster = DevCluster::with_secret(&["sessions.expiring_notice_ms=700"]).await;
    let token = sign(&claims(1.2));
    let url = format!("{}/v1/stream?account=alice@example.org", cluster.http(0));
    let mut stream = SseClient::open(&url, Some(&token), 1).await;
    let soon = stream.next().await.expect("a notice");
    assert_eq!(soon.name, "expiring");
    assert!(soon.data["expiring"]["in_ms"].as_u64().is_some_and(|ms| ms <= 700), "{soon:?}");
    let last = stream.next().await.expect("a goodbye");
    assert_eq!((last.name.as_str(), last.id), ("disconnect", None));
    assert_eq!((&last.data["disconnect"]["code"], &last.data["disconnect"]["reconnect"]), (&json!(4401), &json!(true)));
    assert_eq!(stream.next().await, None);
    cluster.sessions(0).await;
    cluster.assert_silent_about(&[&token]);
}
