//! Real frames of the WebSocket, held against asyncapi.yaml.

use std::collections::BTreeSet;

use mailpush::mail::event::EventType;
use serde_json::{Value, json};

use super::documents::{Place, Which};
use super::rest::{ALICE, INBOX, cluster};
use super::words::names_of_errors;
use crate::support::dev::{DevCluster, claims, sign};
use crate::support::imap::ImapClient;
use crate::support::ws::{Said, WsClient};

/// The place of a message of a channel.
pub fn message(channel: &str, name: &str) -> Place {
    Place::root(Which::Asyncapi).member("channels").member(channel).member("messages").member(name)
}

/// The names of all messages of a channel.
pub fn messages(channel: &str) -> BTreeSet<String> {
    let channel = Place::root(Which::Asyncapi).member("channels").member(channel);
    channel.member("messages").names().into_iter().map(str::to_owned).collect()
}

/// By the rules of the protocol: what has no member is a heartbeat, what has an id is a command or its reply, by their
/// other member; a push has one member.
fn name_of(said: &Said) -> String {
    let (value, suffix) = match said {
        Said::Client(value) => (value, ""),
        Said::Server(value) => (value, "Reply"),
    };
    let members: Vec<&String> = value.as_object().expect("an object").keys().filter(|name| *name != "id").collect();
    match &members[..] {
        [] => "heartbeat".to_owned(),
        [name] if value.get("id").is_some() && *name != "error" => format!("{name}{suffix}"),
        [name] => (*name).clone(),
        _ => panic!("{value} has more than one name"),
    }
}

/// Holds what was said against its message; returns the message's name, the names of the errors in it, and itself.
pub fn hold(said: &Said) -> (String, Vec<String>, &Value) {
    let (Said::Client(value) | Said::Server(value)) = said;
    let name = name_of(said);
    message("socket", &name).member("payload").expect(value);
    let errors = if matches!(said, Said::Server(_)) { names_of_errors(value) } else { Vec::new() };
    (name, errors, value)
}

/// What a push of an event of every type can hold, but for the envelope of the one message.
pub fn one_of_every_type() -> Vec<Value> {
    let detail = |event_type: &EventType| match event_type {
        EventType::MessageNew | EventType::MessageAppend => json!({ "messages": [{
            "uid": 4711, "flags": ["\\Seen", "$Junk"], "size": 18213, "internaldate": 1_795_467_000_000_u64,
            "modseq": "9223372036854775807",
            "envelope": {"from": "Bob <bob@example.org>", "subject": "Lunch?\r\n\u{2028}", "message_id": "<1@example.org>"},
        }]}),
        EventType::FlagsSet | EventType::FlagsClear => {
            json!({ "messages": [{"uid": 1, "changed": ["\\Seen"], "flags": [], "modseq": 7}, {"uid": 2}] })
        }
        EventType::MessageExpunge => json!({ "uids": [7, 9], "modseq": "3" }),
        EventType::MailboxRename => json!({ "to": "#private:alice@example.org:Alt/INBOX" }),
        EventType::AccountRename => json!({ "to": ALICE }),
        EventType::AclChange => json!({ "identifier": "bob@example.org", "rights": "lr" }),
        EventType::QuotaChange | EventType::QuotaExceed => json!({ "used": 900, "limit": 1000 }),
        EventType::QuotaWithin => json!({ "used": 900 }),
        _ => json!({}),
    };
    let event = |event_type: &EventType| {
        let mut event = json!({
            "type": event_type.as_str(), "mailbox": INBOX, "actor": ALICE, "actor_session": "-6148914691236517206",
            "mailbox_id": "18", "uidvalidity": u32::MAX,
            "status": {"messages": 812, "uidnext": 4712, "unseen": 3, "highestmodseq": "9223372036854775807"},
        });
        let members = event.as_object_mut().expect("an object");
        members.extend(detail(event_type).as_object().expect("an object").clone());
        event
    };
    EventType::ALL.iter().map(event).collect()
}

#[tokio::test]
async fn every_frame_is_as_documented() {
    let mut transcript = conversation().await;
    transcript.extend(silence().await);
    let mut met = BTreeSet::new();
    for said in &transcript {
        met.insert(hold(said).0);
    }
    assert_eq!(met, messages("socket"), "everything documented is met");
}

/// All that two sides can say to each other within a few seconds.
async fn conversation() -> Vec<Said> {
    let cluster = cluster(&["sessions.outbox_bytes=1024"]).await;
    let mut client = WsClient::open(&cluster.ws(1)).await;
    client.command("ping", json!({ "anything": 1 })).await;
    refusals_before_connect(&mut client).await;
    client.command("connect", json!({ "token": cluster.token(0) })).await;
    let reply = client.command("refresh", json!({ "token": cluster.token(0) })).await;
    assert!(reply["refresh"]["token_expires_at"].is_u64(), "{reply}");
    refusals(&mut client, &cluster).await;
    let fields = json!(["from", "subject", "message_id"]);
    let reply = client.command("subscribe", json!({ "account": ALICE, "fields": fields, "types": all_types() })).await;
    assert_eq!(reply["subscribe"]["key"]["account"], ALICE);
    events(&mut client, &cluster).await;

    // One event that is larger than all that may wait.
    let uids: Vec<u32> = (1..=1_000).collect();
    cluster.publish(0, json!({"type": "MessageExpunge", "mailbox": INBOX, "uids": uids})).await;
    assert_eq!(client.push("resync").await, json!({"keys": [{"mailbox": INBOX}], "reason": "overflow"}));
    let reply = client.command("unsubscribe", json!({ "account": ALICE })).await;
    assert_eq!(reply["unsubscribe"]["key"]["account"], ALICE);
    let mut transcript = client.transcript;
    transcript.extend(returning(&cluster).await);
    transcript.extend(sharing(&cluster).await);
    transcript
}

fn all_types() -> Value {
    EventType::ALL.iter().map(|t| t.as_str()).collect()
}

/// The client's frames here are wrong, so they are not in the transcript; the server's answers are.
async fn refusals_before_connect(client: &mut WsClient) {
    for (wrong, name) in [
        ("nonsense", "bad_request"),
        ("[]", "bad_request"),
        (r#"{"ping":{}}"#, "bad_request"),
        (r#"{"id":4294967296,"ping":{}}"#, "bad_request"),
        (r#"{"id":1,"dance":{}}"#, "unknown_command"),
        (r#"{"id":1,"connect":{}}"#, "bad_request"),
        (r#"{"id":1,"subscribe":{"account":"alice"}}"#, "not_connected"),
    ] {
        client.send(wrong).await;
        assert_eq!(client.push("error").await["name"], name, "{wrong}");
    }
}

async fn refusals(client: &mut WsClient, cluster: &DevCluster) {
    let refused = [
        ("connect", json!({ "token": cluster.token(0) }), "already_connected"),
        ("refresh", json!({ "token": "nonsense" }), "token_malformed"),
        ("refresh", json!({ "token": cluster.token(1) }), "forbidden"),
        ("subscribe", json!({ "mailbox": "#private:bob@example.org:INBOX" }), "not_found"),
        ("unsubscribe", json!({ "mailbox": INBOX }), "not_subscribed"),
    ];
    for (command, body, name) in refused {
        assert_eq!(client.command(command, body).await["error"]["name"], name, "{command}");
    }
}

/// Publishes one event of each type, and sees that it comes as it was told.
async fn events(client: &mut WsClient, cluster: &DevCluster) {
    for told in one_of_every_type() {
        cluster.publish(0, told.clone()).await;
        let pushed = client.event().await["event"].clone();
        for (name, value) in told.as_object().expect("an object").iter().filter(|(name, _)| *name != "messages") {
            assert_eq!(pushed[name], *value, "{name} of {told}");
        }
        assert_eq!(pushed["messages"][0]["envelope"], told["messages"][0]["envelope"], "{told}");
    }
}

/// Bob watches what alice shares with him, by name and with his account, until she does not any more.
async fn sharing(cluster: &DevCluster) -> Vec<Said> {
    let mut client = WsClient::connect(&cluster.ws(0), &cluster.token(1)).await;
    let reply = client.command("subscribe", json!({ "account": "bob@example.org", "shared": true })).await;
    assert_eq!(reply["subscribe"]["rights"], "lrswipkxtea", "{reply}");
    let reply = client.command("subscribe", json!({ "mailbox": TEAM })).await;
    assert_eq!(reply["subscribe"]["rights"], "lrs", "{reply}");
    unshare(cluster).await;
    assert_eq!(client.push("revoked").await, json!({ "key": { "mailbox": TEAM } }));
    client.transcript
}

/// What the mail store shares with bob from the start.
pub const TEAM: &str = "#private:alice@example.org:Team";

/// alice takes bob's rights on [`TEAM`], at the mail store.
pub async fn unshare(cluster: &DevCluster) {
    let address: std::net::SocketAddr = cluster.store_imap().parse().expect("an address");
    ImapClient::login(address.port(), "alice", "alice").await.ok("DELETEACL Team bob").await;
}

/// A client that comes back with what it had, shows a token that is soon to expire, and stays until it has.
async fn returning(cluster: &DevCluster) -> Vec<Said> {
    let mut client = WsClient::open(&cluster.ws(0)).await;
    let subscriptions = json!([{"mailbox": INBOX}, {"mailbox": "#shared::none", "types": ["MessageNew"]}]);
    let resume = json!({ "pos": "mailpush.node.dev-2@4", "subscriptions": subscriptions });
    let reply = client.command("connect", json!({ "token": sign(&claims(3.0)), "resume": resume })).await;
    let resumed = reply["connect"]["resumed"].as_array().expect("what became of them");
    let outcome = |n: usize| (resumed[n]["rights"].is_string(), resumed[n]["error"].is_object());
    assert_eq!(BTreeSet::from([outcome(0), outcome(1)]), BTreeSet::from([(true, false), (false, true)]), "{reply}");
    assert!(client.push("expiring").await["in_ms"].as_u64().is_some_and(|ms| ms <= 3_000));
    assert_eq!(client.push("disconnect").await["code"], 4401);
    assert_eq!((client.next().await, client.closed), (None, Some(4401)));
    client.transcript
}

/// Two sides that have nothing to say, until one of them is told to go.
async fn silence() -> Vec<Said> {
    let cluster = cluster(&["sessions.heartbeat_ms=1000", "sessions.pong_timeout_ms=900", "node.drain_rate=1"]).await;
    let mut client = WsClient::connect(&cluster.ws(0), &cluster.token(0)).await;
    assert_eq!(client.next_within(std::time::Duration::from_millis(1_800)).await, None);
    assert!(client.transcript.contains(&Said::Server(json!({}))), "{:?}", client.transcript);
    cluster.terminate();
    let goodbye = client.push("disconnect").await;
    assert!(goodbye["code"] == 4412 && goodbye["reconnect_after_ms"].is_u64(), "{goodbye}");
    client.transcript
}
