//! What is pushed to whom: names and texts that a stranger chose arrive intact and break nothing, clients get what they
//! asked for, and a slow one costs nobody else anything.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::dev::DevCluster;
use crate::support::imap::ImapClient;
use crate::support::raw_ws::{RawClient, request, text};
use crate::support::sse::SseClient;
use crate::support::wait::eventually;
use crate::support::ws::WsClient;

const INBOX: &str = "#private:alice@example.org:INBOX";

/// Names of mailboxes that something on the way might trip on.
fn hostile_names() -> Vec<String> {
    let mut names: Vec<String> = [
        "a/b/c",
        "/",
        "//",
        "a:b:c",
        "100%",
        "%2F",
        "%00",
        "+ +",
        "a&b=c",
        "a#b?c",
        "..",
        "../../etc/passwd",
        ".",
        " ",
        "\0",
        "a\0b",
        "\n",
        "a\r\nb",
        "data: x\n\nevent: y",
        "\t\u{7f}",
        "\"\\\"",
        "'; DROP TABLE x; --",
        "<script>alert(1)</script>",
        "{\"a\":1}",
        "\u{2028}\u{2029}",
        "\u{feff}bom",
        "\u{202e}right to left",
        "e\u{301}",
        "\u{e9}",
        "Entw\u{fc}rfe",
        "~peter/mail",
        "&U,BTFw-",
        "inbox ",
        "INBOX/x",
        "\u{fffd}",
        "\u{ffff}",
        "\u{85}",
    ]
    .map(str::to_owned)
    .to_vec();
    // One character of every plane of Unicode.
    names.extend((0..=16u32).filter_map(|plane| char::from_u32(plane * 0x1_0000 + 0x1234)).map(String::from));
    names.push((0..=16u32).filter_map(|plane| char::from_u32(plane * 0x1_0000 + 0xfffd)).collect());
    names.push("x".repeat(10 * 1024));
    names.push("/%".repeat(2 * 1024));
    names
}

#[tokio::test]
async fn any_mailbox_name_makes_the_round_trip() {
    let cluster = DevCluster::start(2).await;
    let paths: Vec<String> = hostile_names().iter().map(|name| format!("#private:alice@example.org:{name}")).collect();
    let mut socket = WsClient::connect(&cluster.ws(1), &cluster.token(0)).await;
    let mut streams = Vec::new();
    for path in &paths {
        socket.subscribe(path).await;
        let query: String = form_urlencoded::Serializer::new(String::new()).append_pair("mailbox", path).finish();
        streams.push(SseClient::open(&format!("{}/v1/stream?{query}", cluster.http(1)), Some(&cluster.token(0)), 1).await);
    }
    let listed = cluster.get("/v1/subscriptions?limit=1000").await;
    let listed = listed["subscriptions"].as_array().expect("a list");
    for (path, stream) in paths.iter().zip(&mut streams) {
        let key = json!({ "mailbox": path });
        assert_eq!(listed.iter().filter(|record| record["key"] == key).count(), 2, "{path:?} is listed for both");
        cluster.publish(0, json!({ "type": "MailboxChange", "mailbox": path })).await;
        assert_eq!(socket.event().await["event"]["mailbox"], path.as_str());
        let event = stream.next().await.expect("an event on the stream");
        assert_eq!(event.data["event"]["event"]["mailbox"], path.as_str());
        assert_eq!(event.name, "event");
    }
    socket.expect_quiet().await;
}

#[tokio::test]
async fn what_a_stranger_wrote_arrives_as_it_is_and_breaks_nothing() {
    let cluster = DevCluster::start(1).await;
    let mut socket = WsClient::connect(&cluster.ws(0), &cluster.token(0)).await;
    let fields = json!(["subject", "from", "message_id"]);
    socket.command("subscribe", json!({ "mailbox": INBOX, "fields": fields })).await;
    let url = format!("{}/v1/stream?mailbox=%23private:alice@example.org:INBOX&fields=subject,from,message_id", cluster.http(0));
    let mut stream = SseClient::open(&url, Some(&cluster.token(0)), 1).await;
    let texts = [
        "<img src=x onerror=alert(1)>",
        "a\r\nSet-Cookie: x=1\r\n\r\nb",
        "x\n\nevent: disconnect\ndata: {}\n\n",
        "\u{2028}\u{2029}\u{85}\u{b}\u{c}",
        "\0\u{1}\u{1b}[31m\u{7f}",
        "\u{202e}\u{feff}\"\\/'",
        "]}}{\"id\":1}",
        "😀\u{10ffff}",
    ];
    for (n, text) in texts.into_iter().enumerate() {
        let envelope = json!({ "subject": text, "from": text, "message_id": text });
        let message = json!({ "uid": n + 1, "envelope": envelope });
        cluster.publish(0, json!({ "type": "MessageNew", "mailbox": INBOX, "actor": text, "messages": [message] })).await;
        let pushed = socket.event().await;
        assert_eq!((&pushed["event"]["messages"][0], &pushed["event"]["actor"]), (&message, &json!(text)));
        let streamed = stream.next().await.expect("an event on the stream");
        assert_eq!((streamed.name.as_str(), &streamed.data["event"]), ("event", &pushed));
        assert_eq!(streamed.id.as_deref(), pushed["pos"].as_str());
    }
}

#[tokio::test]
async fn types_and_fields_are_what_was_asked_for() {
    let cluster = DevCluster::start(1).await;
    let mut subscribed = Vec::new();
    for wanted in [
        json!({ "mailbox": INBOX }),
        json!({ "mailbox": INBOX, "fields": ["subject"] }),
        json!({ "mailbox": INBOX, "fields": ["from", "message_id"] }),
        json!({ "mailbox": INBOX, "types": ["MessageExpunge"], "fields": ["subject"] }),
        json!({ "mailbox": INBOX, "types": [] }),
    ] {
        let mut client = WsClient::connect(&cluster.ws(0), &cluster.token(0)).await;
        client.command("subscribe", wanted).await;
        subscribed.push(client);
    }
    let envelope = json!({ "subject": "Lunch?", "from": "bob@example.org", "message_id": "<1@example.org>" });
    let new = json!({ "type": "MessageNew", "mailbox": INBOX, "messages": [{ "uid": 1, "size": 9, "envelope": envelope }] });
    cluster.publish(0, json!([new, { "type": "MessageExpunge", "mailbox": INBOX, "uids": [1] }])).await;
    let told = [
        json!({ "uid": 1, "size": 9 }),
        json!({ "uid": 1, "size": 9, "envelope": { "subject": "Lunch?" } }),
        json!({ "uid": 1, "size": 9, "envelope": { "from": "bob@example.org", "message_id": "<1@example.org>" } }),
    ];
    for (client, message) in subscribed.iter_mut().zip(&told) {
        assert_eq!(client.event().await["event"]["messages"], json!([message]));
        assert_eq!(client.event().await["event"]["uids"], json!([1]));
    }
    assert_eq!(subscribed[3].event().await["event"]["type"], "MessageExpunge", "and not the arrival");
    for client in &mut subscribed {
        client.expect_quiet().await;
    }

    let hears_nothing = &mut subscribed[4];
    hears_nothing.command("subscribe", json!({ "mailbox": INBOX, "fields": ["subject"] })).await;
    cluster.publish(0, new).await;
    let event = hears_nothing.event().await;
    assert_eq!(event["event"]["messages"], json!([told[1]]), "subscribing again changes what is wanted");
}

/// Events of a batch, each with a subject of 4 KiB: within the limit of a request.
const BATCH: usize = 200;

fn batch(first_uid: usize) -> Value {
    let subject = "s".repeat(4096);
    let event = |uid| {
        let message = json!({ "uid": uid, "envelope": { "subject": subject } });
        json!({ "type": "MessageNew", "mailbox": INBOX, "messages": [message] })
    };
    (first_uid..first_uid + BATCH).map(event).collect()
}

/// Publishes and has all of it read by `fast`, batch by batch: 16 MiB in the end.
async fn publish_much(cluster: &DevCluster, fast: &mut WsClient) -> usize {
    const BATCHES: usize = 20;
    for number in 0..BATCHES {
        let first = number * BATCH + 1;
        cluster.publish(0, batch(first)).await;
        for uid in first..first + BATCH {
            let pushed = fast.next().await.expect("an event");
            assert_eq!(pushed["event"]["event"]["messages"][0]["uid"], uid, "the fast client loses nothing: {pushed:.200}");
        }
    }
    BATCHES * BATCH
}

/// Room for a batch and no more.
const OUTBOX: [&str; 2] = ["sessions.outbox_events=400", "sessions.outbox_bytes=2000000"];
/// A busy machine may take long over what a client here does not read meanwhile.
const MAY_BE_SLOW: &str = "sessions.slow_client_timeout_ms=300000";

async fn watch(client: &mut RawClient, mailbox: &str) {
    let subscribe = json!({ "id": 1, "subscribe": { "mailbox": mailbox, "fields": ["subject"] } });
    client.send(text(&subscribe.to_string())).await;
    assert_eq!(client.json().await["id"], 1);
}

#[tokio::test]
async fn a_slow_client_is_told_to_resync_and_slows_nobody() {
    let cluster = DevCluster::start_with(1, &[&OUTBOX[..], &[MAY_BE_SLOW]].concat()).await;
    let bearer = format!("Authorization: Bearer {}\r\n", cluster.token(0));
    let mut fast = WsClient::connect(&cluster.ws(0), &cluster.token(0)).await;
    fast.command("subscribe", json!({ "mailbox": INBOX, "fields": ["subject"] })).await;
    let mut slow = Vec::new();
    for _ in 0..10 {
        let mut client = RawClient::open_narrow(&cluster.http(0), &bearer).await;
        watch(&mut client, INBOX).await;
        slow.push(client);
    }
    let before = cluster.resident_bytes();
    let published = publish_much(&cluster, &mut fast).await;
    let grown = cluster.resident_bytes().saturating_sub(before);
    println!("{grown} bytes more");
    // Ten outboxes of 2 MB, the queue's own 17 MB, and what a debug build's allocator leaves lying about.
    assert!(grown < 80 << 20, "{grown} bytes more");

    for client in &mut slow {
        let mut uid = 0;
        let resync = loop {
            let pushed = client.json().await;
            if pushed["resync"].is_object() {
                break pushed;
            }
            uid += 1;
            assert_eq!(pushed["event"]["event"]["messages"][0]["uid"], uid, "in order up to the resync");
        };
        assert_eq!(resync, json!({ "resync": { "keys": [{ "mailbox": INBOX }], "reason": "overflow" } }));
        assert!(uid < published);
        println!("{uid} events, then resync");
    }
    cluster.publish(0, json!({ "type": "MailboxDelete", "mailbox": INBOX })).await;
    for client in &mut slow {
        // Events that were published when it read again already may still be between.
        while client.json().await["event"]["event"]["type"] != "MailboxDelete" {}
    }
}

#[tokio::test]
async fn a_client_that_never_reads_is_closed() {
    let cluster = DevCluster::start_with(1, &[&OUTBOX[..], &["sessions.slow_client_timeout_ms=1000"]].concat()).await;
    let bearer = format!("Authorization: Bearer {}\r\n", cluster.token(0));
    let mut fast = WsClient::connect(&cluster.ws(0), &cluster.token(0)).await;
    fast.command("subscribe", json!({ "mailbox": INBOX, "fields": ["subject"] })).await;
    let mut never = RawClient::open_narrow(&cluster.http(0), &bearer).await;
    watch(&mut never, INBOX).await;
    cluster.sessions(2).await;
    publish_much(&cluster, &mut fast).await;
    cluster.sessions(1).await;
    let metrics = reqwest::get(format!("{}/metrics", cluster.http(0))).await.expect("metrics").text().await.expect("text");
    let line = metrics.lines().find(|line| line.contains("too_slow"));
    assert!(line.is_some_and(|line| line.ends_with(" 1")), "{line:?}");
    fast.expect_quiet().await;
}

#[tokio::test]
async fn a_stream_that_is_never_read_is_closed() {
    let cluster = DevCluster::start_with(1, &[&OUTBOX[..], &["sessions.slow_client_timeout_ms=1000"]].concat()).await;
    let mut fast = WsClient::connect(&cluster.ws(0), &cluster.token(0)).await;
    fast.command("subscribe", json!({ "mailbox": INBOX, "fields": ["subject"] })).await;
    let mut never = RawClient::dial_narrow(&cluster.http(0)).await;
    let line = "GET /v1/stream?mailbox=%23private:alice@example.org:INBOX&fields=subject HTTP/1.1";
    never.send(request(line, &format!("Authorization: Bearer {}\r\n", cluster.token(0)))).await;
    cluster.sessions(2).await;
    let before = cluster.resident_bytes();
    publish_much(&cluster, &mut fast).await;
    cluster.sessions(1).await;
    let grown = cluster.resident_bytes().saturating_sub(before);
    assert!(grown < 64 << 20, "{grown} bytes more");
    fast.expect_quiet().await;
}

#[tokio::test]
async fn a_client_that_asks_and_never_reads_is_closed() {
    let settings =
        ["sessions.slow_client_timeout_ms=1000", "sessions.commands_per_second=1000000", "sessions.command_burst=1000000"];
    let cluster = DevCluster::start_with(1, &settings).await;
    let bearer = format!("Authorization: Bearer {}\r\n", cluster.token(0));
    let mut client = RawClient::open_narrow(&cluster.http(0), &bearer).await;
    let before = cluster.resident_bytes();
    let flood: Vec<u8> = std::iter::repeat_n(text("nonsense"), 10_000).flatten().collect();
    // Its own sending stalls once the server reads no more, and breaks once the server is gone.
    let ended = async { while client.try_send(&flood).await.is_ok() {} };
    tokio::time::timeout(Duration::from_secs(30), ended).await.expect("the server hangs up");
    assert!(cluster.resident_bytes().saturating_sub(before) < 32 << 20);
    cluster.sessions(0).await;
}

#[tokio::test]
async fn a_slow_stream_is_told_to_resync_too() {
    let cluster = DevCluster::start_with(1, &[&OUTBOX[..], &[MAY_BE_SLOW]].concat()).await;
    let mut fast = WsClient::connect(&cluster.ws(0), &cluster.token(0)).await;
    fast.command("subscribe", json!({ "mailbox": INBOX, "fields": ["subject"] })).await;
    let url = format!("{}/v1/stream?mailbox=%23private:alice@example.org:INBOX&fields=subject", cluster.http(0));
    let mut slow = SseClient::open(&url, Some(&cluster.token(0)), 1).await;
    let published = publish_much(&cluster, &mut fast).await;
    let mut events = 0;
    let resync = loop {
        let event = slow.next().await.expect("an event or a resync");
        if event.name == "resync" {
            break event;
        }
        events += 1;
        assert!(events < published, "nothing was dropped: the test's stream was too fast");
    };
    assert_eq!(resync.data, json!({ "resync": { "keys": [{ "mailbox": INBOX }], "reason": "overflow" } }));
    assert_eq!(resync.id, None, "a place in the queue is for events");
}

#[tokio::test]
async fn sessions_that_are_gone_leave_nothing_behind() {
    let cluster = DevCluster::start(1).await;
    let bearer = format!("Authorization: Bearer {}\r\n", cluster.token(0));
    let mut clients = Vec::new();
    for n in 0..20 {
        let mut client = RawClient::open_with(&cluster.http(0), &bearer).await;
        watch(&mut client, &format!("#private:alice@example.org:{n}")).await;
        clients.push(client);
    }
    // One in three says goodbye, one breaks a rule, one is just gone.
    for (n, mut client) in clients.into_iter().enumerate() {
        match n % 3 {
            0 => {
                client.send(crate::support::raw_ws::close(1000, b"")).await;
                client.expect_close(1000).await;
            }
            1 => {
                client.send([0xff; 20]).await;
                client.expect_goodbye(1002).await;
            }
            _ => drop(client),
        }
    }
    cluster.sessions(0).await;
    let gone = || async {
        let listed = cluster.get("/v1/subscriptions").await;
        (listed["subscriptions"] == json!([])).then_some(())
    };
    eventually("no subscriptions", Duration::from_secs(5), gone).await;
}

#[tokio::test]
async fn a_changed_acl_is_told_once() {
    let cluster = DevCluster::start(1).await;
    let mut alice = WsClient::connect(&cluster.ws(0), &cluster.token(0)).await;
    let reply = alice.command("subscribe", json!({ "account": "alice@example.org" })).await;
    assert!(reply["subscribe"].is_object(), "{reply}");
    let address = cluster.imap(0);
    let port = address.rsplit(':').next().and_then(|port| port.parse().ok()).expect("a port");
    let mut mail_app = ImapClient::login(port, "alice", "alice").await;
    mail_app.ok("SETACL Team carol lr").await;
    mail_app.ok("CREATE Later").await;
    let mut types = Vec::new();
    while types.last().is_none_or(|last| last != "MailboxCreate") {
        types.push(alice.event().await["event"]["type"].as_str().expect("a type").to_owned());
    }
    assert_eq!(types, ["AclChange", "MailboxCreate"]);
}
