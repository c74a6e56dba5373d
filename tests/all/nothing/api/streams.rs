//! Real events of the two event streams, held against asyncapi.yaml.

use std::collections::{BTreeMap, BTreeSet};
use std::pin::Pin;

use data_encoding::BASE64URL_NOPAD;
use futures::{Stream, StreamExt};
use serde_json::{Map, Value, json};

use super::frames::{TEAM, message, messages, one_of_every_type, unshare};
use super::rest::{ALICE, INBOX, cluster};
use super::words::names_of_errors;
use crate::support::dev::{claims, sign};
use crate::support::ws::{PATIENCE, WsClient};

/// A stream that is being read. Comments and `retry` are passed over.
pub struct SseClient {
    bytes: Pin<Box<dyn Stream<Item = reqwest::Result<bytes::Bytes>> + Send>>,
    buffer: Vec<u8>,
    channel: &'static str,
    met: BTreeSet<String>,
}

impl SseClient {
    /// Opens a URL; what comes is held against the messages of this channel.
    pub async fn open(channel: &'static str, url: String, token: &str) -> Self {
        let response = reqwest::Client::new().get(url).bearer_auth(token).send().await.expect("an answer");
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["x-accel-buffering"], "no");
        Self { bytes: Box::pin(response.bytes_stream()), buffer: Vec::new(), channel, met: BTreeSet::new() }
    }

    /// The next event: its name and its data; `None` at the end.
    async fn next(&mut self) -> Option<(String, Value)> {
        loop {
            while let Some(end) = self.buffer.windows(2).position(|two| two == b"\n\n") {
                let event: Vec<u8> = self.buffer.drain(..end + 2).collect();
                if let Some(read) = self.read(std::str::from_utf8(&event).expect("UTF-8")) {
                    return Some(read);
                }
            }
            let more = tokio::time::timeout(PATIENCE, self.bytes.next()).await.expect("something within the patience");
            self.buffer.extend_from_slice(&more?.expect("bytes"));
        }
    }

    /// Waits for an event of this name; returns its data.
    pub async fn until(&mut self, name: &str) -> Value {
        loop {
            let (found, data) = self.next().await.unwrap_or_else(|| panic!("the stream ended before {name}"));
            if found == name {
                return data;
            }
        }
    }

    /// One event, held against the document.
    fn read(&mut self, event: &str) -> Option<(String, Value)> {
        let mut headers = Map::new();
        let mut data = None;
        for line in event.lines().filter(|line| !line.is_empty() && !line.starts_with(':')) {
            match line.split_once(": ").expect("a field") {
                ("data", text) => data = Some(serde_json::from_str::<Value>(text).expect("JSON")),
                ("retry", text) => assert!(text.parse::<u32>().is_ok(), "{text}"),
                (name, value) => drop(headers.insert(name.to_owned(), value.into())),
            }
        }
        let data = data?;
        let name = headers["event"].as_str().expect("a name").to_owned();
        // In the stream of pushes the answer to a wish has the wish's name, in the document its own.
        let documented = if name == "subscribe" { "subscribed" } else { &name };
        let message = message(self.channel, documented);
        message.member("headers").expect(&Value::Object(headers));
        message.member("payload").expect(&data);
        names_of_errors(&data);
        self.met.insert(documented.to_owned());
        Some((name, data))
    }
}

/// Everything that is documented is met, but for these.
fn assert_met(channel: &str, met: BTreeSet<String>, out_of_reach: &[&str]) {
    let mut met = met;
    met.extend(out_of_reach.iter().map(|name| (*name).to_owned()));
    assert_eq!(met, messages(channel));
}

#[tokio::test]
async fn every_push_of_a_stream_is_as_documented() {
    let cluster = cluster(&["sessions.outbox_bytes=1024"]).await;
    let url = format!("{}/v1/stream?account={ALICE}&fields=from,subject,message_id", cluster.http(1));
    let mut stream = SseClient::open("stream", url, &cluster.token(0)).await;
    assert_eq!(
        stream.next().await,
        Some(("subscribe".into(), json!({"id": 0, "subscribe": {"key": {"account": ALICE}, "rights": "lrswipkxtea"}})))
    );
    for told in one_of_every_type() {
        cluster.publish(0, told.clone()).await;
        let (name, data) = stream.next().await.expect("an event");
        assert_eq!((name.as_str(), &data["event"]["event"]["type"]), ("event", &told["type"]));
    }
    let uids: Vec<u32> = (1..=1_000).collect();
    cluster.publish(0, json!({"type": "MessageExpunge", "mailbox": INBOX, "uids": uids})).await;
    assert_eq!(stream.next().await.map(|(name, _)| name), Some("resync".into()));
    let client = reqwest::Client::new().delete(format!("{}/v1/users/{ALICE}/sessions", cluster.http(0)));
    client.bearer_auth(cluster.token(0)).send().await.expect("an answer");
    assert_eq!(stream.until("disconnect").await["disconnect"]["code"], 4505);
    assert_eq!(stream.next().await, None);
    let url = format!("{}/v1/stream?mailbox={}", cluster.http(1), TEAM.replace('#', "%23"));
    let mut shared = SseClient::open("stream", url, &cluster.token(1)).await;
    shared.until("subscribe").await;
    unshare(&cluster).await;
    assert_eq!(shared.until("revoked").await, json!({ "revoked": { "key": { "mailbox": TEAM } } }));
    let url = format!("{}/v1/stream?account={ALICE}&mailbox=%23shared::Secret", cluster.http(1));
    let mut brief = SseClient::open("stream", url, &sign(&claims(5.0))).await;
    assert_eq!(brief.until("error").await["id"], 1);
    assert!(brief.until("expiring").await["expiring"]["in_ms"].as_u64().is_some_and(|ms| ms <= 5_000));
    brief.until("subscribe").await;
    let met = [stream.met, shared.met, brief.met].into_iter().flatten().collect();
    assert_met("stream", met, &[]);
}

#[tokio::test]
async fn a_busy_stream_does_not_outlive_its_token() {
    let cluster = cluster(&[]).await;
    let url = format!("{}/v1/stream?account={ALICE}", cluster.http(0));
    let mut stream = SseClient::open("stream", url, &sign(&claims(2.0))).await;
    stream.until("subscribe").await;
    let read = async {
        let (mut events, mut last) = (0, None);
        while let Some((name, data)) = stream.next().await {
            events += usize::from(name == "event");
            last = Some(data);
        }
        (events, last.expect("a goodbye"))
    };
    let publish = async {
        loop {
            cluster.publish(0, Value::Array(vec![json!({"type": "MailboxChange", "mailbox": INBOX}); 50])).await;
        }
    };
    tokio::select! {
        (events, last) = read => {
            assert!(events > 0);
            assert_eq!(last["disconnect"]["code"], 4401, "{last}");
        }
        () = publish => {}
    }
}

#[tokio::test]
async fn every_change_of_subscriptions_is_as_documented() {
    let whole = cluster(&[]).await;
    let lines = |cursor: Option<Value>| {
        let since = cursor.map(|cursor| format!("?since={}", BASE64URL_NOPAD.encode(cursor.to_string().as_bytes())));
        format!("{}/v1/subscriptions/stream{}", whole.http(0), since.unwrap_or_default())
    };
    let mut stream = SseClient::open("changes", lines(None), &whole.admin_token()).await;
    let mut standing = BTreeMap::new();
    for _ in 0..2 {
        let snapshot = stream.until("snapshot").await;
        let seq = snapshot["seq"].as_u64().expect("where the node's changes stand");
        standing.insert(snapshot["node"].as_str().expect("a node").to_owned(), seq);
    }
    assert_eq!(standing.keys().collect::<Vec<_>>(), ["dev-1", "dev-2"]);
    let mut client = WsClient::connect(&whole.ws(1), &whole.token(0)).await;
    client.subscribe(INBOX).await;
    client.command("unsubscribe", json!({ "mailbox": INBOX })).await;
    assert_eq!(stream.until("subscribed").await["subscription"]["node"], "dev-2");
    assert_eq!(stream.until("unsubscribed").await["seq"], standing["dev-2"] + 2);
    let mut met = stream.met;

    let mut late = SseClient::open("changes", lines(Some(json!({"dev-1": 99}))), &whole.admin_token()).await;
    assert_eq!(late.until("reset").await, json!({"node": "dev-1", "seq": standing["dev-1"]}));
    met.extend(late.met);

    let split = cluster(&["http.advertise=http://127.0.0.1:9"]).await;
    let url = format!("{}/v1/subscriptions/stream", split.http(0));
    let mut half = SseClient::open("changes", url, &split.admin_token()).await;
    assert_eq!(half.until("partial").await["node"], "dev-2");
    met.extend(half.met);
    let mut brief = SseClient::open("changes", lines(None), &sign(&claims(2.0))).await;
    while brief.next().await.is_some() {}
    // Met in words.rs: the nodes of one process of `mailpush dev` leave together.
    assert_met("changes", met, &["gone"]);
}
