//! The agent beside a real Dovecot: what happens there reaches a client of a gateway, and nothing there waits for us.

use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

use crate::support::agent::TestAgent;
use crate::support::cluster::{Own, PATIENCE, TestCluster};
use crate::support::dovecot::{MASTER, Options, TestDovecot};
use crate::support::wait::eventually;
use crate::support::ws::WsClient;

const MAIL: &str = "From: Joe <joe@example.org>\r\nSubject: hello\r\nMessage-ID: <1@example.org>\r\n\r\nhi\r\n";
const TOKEN: &str = "the token of the agent, at least 32 bytes";

/// An agent that completes flags at a Dovecot which tells it of its changes.
async fn pair(cluster: &TestCluster) -> (TestAgent, TestDovecot) {
    let mut agent = TestAgent::new();
    let dovecot = TestDovecot::start(Options { agent: agent.url(), extra: String::new() }).await;
    agent.launch(cluster.command(&["agent"]), &settings(&dovecot)).await;
    (agent, dovecot)
}

fn settings(dovecot: &TestDovecot) -> [&'static str; 4] {
    let leak = |text: String| -> &'static str { text.leak() };
    [
        leak(format!("agent.imap.address=127.0.0.1:{}", dovecot.imap_port)),
        leak(format!("agent.imap.master_user={}", MASTER.0)),
        leak(format!("agent.imap.master_password={}", MASTER.1)),
        // The machine that runs the tests may be busy.
        "agent.imap.timeout_ms=10000",
    ]
}

/// An agent whose cluster cannot be reached.
fn alone() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mailpush"));
    command.arg("agent");
    for setting in ["registry.ensembles=127.0.0.1:1", "queue.brokers=127.0.0.1:1", "agent.drain_deadline_ms=200"] {
        command.args(["--set", setting]);
    }
    command
}

async fn watch_account(cluster: &TestCluster, user: &str) -> WsClient {
    let mut client = cluster.client(0, user).await;
    let reply = client.command("subscribe", json!({ "account": user })).await;
    assert_eq!(reply["subscribe"]["key"]["account"], user, "{reply}");
    client
}

/// The next event, which must be of this type and mailbox. That Dovecot makes INBOX and Trash when they are first used is
/// passed over.
async fn told(client: &mut WsClient, kind: &str, mailbox: &str) -> Value {
    loop {
        let event = client.event().await["event"].clone();
        let own = event["type"] == "MailboxCreate"
            && ["#private:alice:INBOX", "#private:alice:Trash"].iter().any(|own| event["mailbox"] == *own);
        if !own {
            assert_eq!((&event["type"], &event["mailbox"]), (&json!(kind), &json!(mailbox)), "{event}");
            return event;
        }
    }
}

const INBOX: &str = "#private:alice:INBOX";
const TEAM: &str = "#private:alice:Team";
const DEST: &str = "#private:alice:Entwürfe/Neu";

#[tokio::test]
async fn every_change_reaches_a_client_of_a_gateway() {
    let cluster = TestCluster::start(1).await;
    let (mut agent, dovecot) = pair(&cluster).await;
    let mut alice = watch_account(&cluster, "alice").await;
    let mut imap = dovecot.client("alice").await;

    dovecot.deliver("alice", MAIL).await;
    let event = told(&mut alice, "MessageNew", INBOX).await;
    assert_eq!(event["messages"], json!([{ "uid": 1, "flags": [] }]));
    assert_eq!((&event["status"]["messages"], &event["status"]["uidnext"]), (&json!(1), &json!(2)), "{event}");
    let uidvalidity = event["uidvalidity"].clone();
    assert!(uidvalidity.is_u64());

    imap.append("INBOX", "\\Seen $Work", MAIL).await;
    let event = told(&mut alice, "MessageAppend", INBOX).await;
    assert_eq!(event["messages"], json!([{ "uid": 2, "flags": ["$Work", "\\Seen"] }]));
    assert_eq!((&event["actor"], &event["uidvalidity"]), (&json!("alice"), &uidvalidity));

    imap.ok("SELECT INBOX").await;
    imap.ok("UID STORE 1:2 +FLAGS (\\Flagged)").await;
    let event = told(&mut alice, "FlagsSet", INBOX).await;
    let messages = &event["messages"];
    assert_eq!((&messages[0]["uid"], &messages[0]["changed"]), (&json!(1), &json!(["\\Flagged"])));
    assert_eq!(messages[0]["flags"], json!(["\\Flagged"]), "complete, as the owner sees them: {event}");
    assert_eq!(messages[1]["flags"], json!(["$Work", "\\Flagged", "\\Seen"]));
    assert_eq!(messages[0]["modseq"], event["status"]["highestmodseq"], "{event}");

    imap.ok("UID STORE 2 FLAGS (\\Answered)").await;
    let cleared = told(&mut alice, "FlagsClear", INBOX).await;
    assert_eq!(cleared["messages"][0]["changed"], json!(["$Work", "\\Flagged", "\\Seen"]));
    assert_eq!(cleared["messages"][0]["flags"], json!(["\\Answered"]));
    let set = told(&mut alice, "FlagsSet", INBOX).await;
    assert_eq!((&set["messages"][0]["changed"], &set["messages"][0]["flags"]), (&json!(["\\Answered"]), &json!(["\\Answered"])));

    imap.ok("CREATE \"Entw&APw-rfe/Neu\"").await;
    told(&mut alice, "MailboxCreate", DEST).await;
    imap.ok("SUBSCRIBE \"Entw&APw-rfe/Neu\"").await;
    told(&mut alice, "MailboxSubscribe", DEST).await;
    imap.ok("UNSUBSCRIBE \"Entw&APw-rfe/Neu\"").await;
    told(&mut alice, "MailboxUnSubscribe", DEST).await;
    imap.ok("UID COPY 1:2 \"Entw&APw-rfe/Neu\"").await;
    let event = told(&mut alice, "MessageAppend", DEST).await;
    assert_eq!(event["messages"], json!([{ "uid": 1, "flags": ["\\Flagged"] }, { "uid": 2, "flags": ["\\Answered"] }]));
    imap.ok("UID MOVE 2 \"Entw&APw-rfe/Neu\"").await;
    assert_eq!(told(&mut alice, "MessageAppend", DEST).await["messages"][0]["uid"], 3);
    assert_eq!(told(&mut alice, "MessageExpunge", INBOX).await["uids"], json!([2]));
    imap.ok("UID STORE 1 +FLAGS.SILENT (\\Deleted)").await;
    assert_eq!(told(&mut alice, "FlagsSet", INBOX).await["messages"][0]["flags"], json!(["\\Deleted", "\\Flagged"]));
    imap.ok("EXPUNGE").await;
    assert_eq!(told(&mut alice, "MessageExpunge", INBOX).await["uids"], json!([1]));

    imap.ok("SELECT \"Entw&APw-rfe/Neu\"").await;
    imap.ok("STORE 1 +FLAGS (\\Seen)").await;
    let event = told(&mut alice, "FlagsSet", DEST).await;
    assert_eq!(event["messages"][0]["flags"], json!(["\\Flagged", "\\Seen"]), "the agent finds names beyond ASCII too");
    imap.ok("UNSELECT").await;

    imap.ok("RENAME \"Entw&APw-rfe/Neu\" Alt").await;
    assert_eq!(told(&mut alice, "MailboxRename", DEST).await["to"], "#private:alice:Alt");
    imap.ok("DELETE Alt").await;
    assert_eq!(told(&mut alice, "MessageExpunge", "#private:alice:Alt").await["uids"], json!([1, 2, 3]));
    told(&mut alice, "MailboxDelete", "#private:alice:Alt").await;

    // Somebody else, in what alice shares.
    imap.ok("CREATE Team").await;
    told(&mut alice, "MailboxCreate", TEAM).await;
    imap.ok("SETACL Team bob lrswite").await;
    let mut bob = dovecot.client("bob").await;
    bob.append("shared/alice/Team", "\\Draft", MAIL).await;
    let event = told(&mut alice, "MessageAppend", TEAM).await;
    assert_eq!((&event["actor"], &event["messages"][0]["flags"]), (&json!("bob"), &json!(["\\Draft"])));
    bob.ok("SELECT shared/alice/Team").await;
    bob.ok("STORE 1 +FLAGS (\\Seen)").await;
    let event = told(&mut alice, "FlagsSet", TEAM).await;
    assert_eq!(event["messages"][0]["flags"], json!(["\\Draft", "\\Seen"]), "{event}");

    assert_eq!(agent.terminate().await, Some(0));
    bob.ok("STORE 1 -FLAGS (\\Seen)").await;
}

#[tokio::test]
async fn while_kafka_is_away_mail_goes_on_and_nothing_is_lost_or_swapped() {
    let mut cluster = TestCluster::start_owning(Own::Kafka, 1, &[]).await;
    let (mut agent, dovecot) = pair(&cluster).await;
    let mut alice = watch_account(&cluster, "alice").await;
    let mut imap = dovecot.client("alice").await;
    imap.append("INBOX", "", MAIL).await;
    told(&mut alice, "MessageAppend", INBOX).await;

    cluster.own_kafka().kill();
    for _ in 0..5 {
        imap.append("INBOX", "", MAIL).await;
    }
    dovecot.deliver("alice", MAIL).await;
    assert!(agent.metric("mailpush_agent_spool_events").await >= 6);
    assert_eq!(agent.ready().await.0, 200, "it takes events in");
    agent.kill();
    let mut bob = dovecot.client("bob").await;
    bob.append("INBOX", "", MAIL).await;

    agent.launch(cluster.command(&["agent"]), &settings(&dovecot)).await;
    assert!(agent.metric("mailpush_agent_spool_events").await >= 6, "what waited is there again");
    imap.append("INBOX", "", MAIL).await;
    cluster.own_kafka().restart();
    for uid in 2..=6 {
        assert_eq!(told(&mut alice, "MessageAppend", INBOX).await["messages"][0]["uid"], uid);
    }
    assert_eq!(told(&mut alice, "MessageNew", INBOX).await["messages"][0]["uid"], 7);
    assert_eq!(told(&mut alice, "MessageAppend", INBOX).await["messages"][0]["uid"], 8);
    eventually("the spool is empty", PATIENCE, async || (agent.metric("mailpush_agent_spool_events").await == 0).then_some(()))
        .await;
    assert_eq!(agent.ready().await.1["dependencies"][1]["ok"], true);
}

#[tokio::test]
async fn a_full_spool_refuses_and_dovecot_goes_on() {
    let mut agent = TestAgent::new();
    let dovecot = TestDovecot::start(Options { agent: agent.url(), extra: String::new() }).await;
    agent.launch(alone(), &["agent.spool_bytes=1048576", "agent.body_limit_bytes=262144"]).await;
    let events = format!("{}/v1/events", agent.url());
    let uids: Vec<u32> = (100_000..140_000).collect();
    let event = json!({ "type": "MessageExpunge", "mailbox": "#private:alice:INBOX", "uids": uids });
    // JSON of 280 kB: refused whatever there is room for.
    let answer = reqwest::Client::new().post(&events).json(&event).send().await.expect("an answer");
    assert_eq!(answer.status(), 413);
    let event = json!({ "type": "MessageExpunge", "mailbox": "#private:alice:INBOX", "uids": &uids[..30_000] });
    let mut taken = 0;
    let full = loop {
        let answer = reqwest::Client::new().post(&events).json(&event).send().await.expect("an answer");
        match answer.status().as_u16() {
            202 => taken += 1,
            _ => break answer,
        }
        assert!(taken < 20, "the spool has no bound");
    };
    assert_eq!((full.status().as_u16(), taken), (503, 6));
    assert!(full.headers().contains_key("retry-after"));
    assert_eq!(full.headers()["content-type"], "application/problem+json");
    assert_eq!(agent.ready().await.0, 503);
    assert_eq!(agent.metric("mailpush_agent_requests_refused_total{reason=\"full\"}").await, 1);

    // A small one would still fit: take that room too.
    let small = json!({ "type": "MailboxChange", "mailbox": "#private:alice:INBOX" }).to_string();
    let batch = format!("[{}]", vec![small; 900].join(","));
    for body in [batch.as_str(), "[{\"type\":\"MailboxChange\",\"mailbox\":\"#private:alice:INBOX\"}]"] {
        loop {
            let request = reqwest::Client::new().post(&events).header("content-type", "application/json");
            let answer = request.body(body.to_owned()).send().await.expect("an answer");
            if answer.status() == 503 {
                break;
            }
            assert_eq!(answer.status(), 202);
        }
    }
    let mut imap = dovecot.client("alice").await;
    imap.append("INBOX", "", MAIL).await;
    assert!(imap.ok("STATUS INBOX (MESSAGES)").await[0].contains("MESSAGES 1"));
    eventually("Dovecot has noted it", PATIENCE, async || dovecot.log().contains("was not told: 503").then_some(())).await;
    assert_eq!(agent.terminate().await, Some(0));
}

#[tokio::test]
async fn who_may_say_what() {
    let mut agent = TestAgent::new();
    let socket = agent.path("agent.sock");
    let token = format!("agent.token={}", TOKEN.replace(' ', "-"));
    agent.launch(alone(), &[&token, &format!("agent.socket={socket}"), "agent.socket_mode=0600"]).await;
    let post = async |body: &str, token: Option<&str>| {
        let mut request = reqwest::Client::new().post(format!("{}/v1/ingest/dovecot", agent.url()));
        if let Some(token) = token {
            request = request.bearer_auth(token);
        }
        let answer = request.body(body.to_owned()).send().await.expect("an answer");
        (answer.status().as_u16(), answer.json::<Value>().await.expect("JSON"))
    };
    let good = r#"{"user":"alice","events":[{"name":"MailboxCreate","mailbox":"A"}]}"#;
    let token = TOKEN.replace(' ', "-");
    assert_eq!(post(good, None).await.0, 401);
    assert_eq!(post(good, Some("another")).await.1["code"], "invalid_token");
    let (status, answer) = post(good, Some(&token)).await;
    assert_eq!((status, answer["events"].as_array().map(Vec::len)), (202, Some(1)), "{answer}");
    let (status, answer) = post("{\"user\":", Some(&token)).await;
    assert_eq!(status, 400);
    assert!(answer["detail"].as_str().is_some_and(|detail| detail.contains("line 1 column 8")), "{answer}");

    for path in ["/v1/ingest/dovecot", "/v1/events"] {
        let request = reqwest::Client::new().post(format!("{}{path}", agent.url())).bearer_auth(&token);
        let request = request.header("content-type", "application/json").header("content-encoding", "gzip");
        let answer = request.body(vec![0x1f, 0x8b, 0x08, 0x00]).send().await.expect("an answer");
        assert_eq!((answer.status().as_u16(), &answer.headers()["accept-encoding"]), (415, &"identity".parse().unwrap()));
    }

    let mode = std::fs::metadata(&socket).expect("the socket").permissions().mode() & 0o777;
    assert_eq!(mode, 0o600);
    let mut stream = UnixStream::connect(&socket).await.expect("connect");
    let request = format!(
        "POST /v1/ingest/dovecot HTTP/1.1\r\nhost: agent\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{good}",
        good.len()
    );
    stream.write_all(request.as_bytes()).await.expect("send");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("an answer");
    assert!(answer.starts_with("HTTP/1.1 202"), "no token over the socket: {answer}");

    // Another agent must not share its spool, nor anybody listen to the world without a token.
    let spool = format!("agent.spool_dir={}", agent.path("spool"));
    let second = alone().args(["--set", &spool, "--set", "agent.listen=127.0.0.1:0"]).output().expect("run");
    assert_eq!(second.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&second.stderr).contains("another agent uses the spool"), "{second:?}");
    let open = alone().args(["--set", "agent.listen=0.0.0.0:0"]).output().expect("run");
    assert_eq!(open.status.code(), Some(64));
    assert_eq!(agent.terminate().await, Some(0));
    assert!(!std::path::Path::new(&socket).exists());
}

#[tokio::test]
async fn its_document_names_what_it_answers() {
    let mut agent = TestAgent::new();
    agent.launch(alone(), &[]).await;
    let document: Value = serde_yaml_ng::from_str(include_str!("../../../openapi/agent.yaml")).expect("YAML");
    let paths = document["paths"].as_object().expect("paths");
    assert_eq!(paths.len(), 5);
    for (path, methods) in paths {
        for (method, described) in methods.as_object().expect("methods") {
            let verb = reqwest::Method::from_bytes(method.to_uppercase().as_bytes()).expect("a method");
            let answer = reqwest::Client::new().request(verb, format!("{}{path}", agent.url())).send().await.expect("an answer");
            let status = answer.status().as_u16().to_string();
            assert!(described["responses"].get(&status).is_some(), "{method} {path} answers {status}");
        }
    }
    let answer = reqwest::get(format!("{}/v1/nothing", agent.url())).await.expect("an answer");
    assert_eq!(answer.status(), 404);
}
