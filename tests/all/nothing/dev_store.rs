//! The mail store of `mailpush dev`: its sockets, its events, and how it misbehaves when it is told to.

use std::time::Duration;

use mailpush::dev::store::{Faults, Limits, Store, StoreOptions, Style};
use mailpush::mail::{Change, Event};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufStream};
use tokio::net::TcpStream;
use tokio::sync::mpsc;

use crate::support::dev::DevCluster;
use crate::support::wait::eventually;
use crate::support::ws::WsClient;

const PATIENCE: Duration = Duration::from_secs(10);
const MAIL: &str = "From: bob@example.org\r\nSubject: Lunch\r\nMessage-ID: <1@example.org>\r\n\r\nAt noon?\r\n";

/// An IMAP connection that is spoken to by hand.
struct Imap(BufStream<TcpStream>);

impl Imap {
    async fn connect(address: &str) -> Self {
        let stream = TcpStream::connect(address).await.expect("connect");
        stream.set_nodelay(true).expect("no delay");
        Self(BufStream::new(stream))
    }

    async fn logged_in(address: &str, user: &str) -> Self {
        let mut client = Self::connect(address).await;
        assert!(client.line().await.starts_with("* OK"));
        let answer = client.say(&format!("LOGIN {user} {user}")).await;
        assert!(answer.contains("x OK"), "{answer}");
        client
    }

    async fn line(&mut self) -> String {
        let mut line = String::new();
        let read = tokio::time::timeout(PATIENCE, self.0.read_line(&mut line)).await;
        read.expect("a line within the patience").expect("a line");
        line
    }

    async fn send(&mut self, text: &str) {
        self.0.write_all(text.as_bytes()).await.expect("write");
        self.0.flush().await.expect("flush");
    }

    /// Everything up to the tagged answer.
    async fn say(&mut self, command: &str) -> String {
        self.send(&format!("x {command}\r\n")).await;
        let mut answer = String::new();
        loop {
            let line = self.line().await;
            assert!(!line.is_empty(), "closed after {answer}");
            answer += &line;
            if line.starts_with("x ") {
                return answer;
            }
        }
    }

    async fn append(&mut self, mailbox: &str) -> String {
        self.say(&format!("APPEND {mailbox} {{{}+}}\r\n{MAIL}", MAIL.len())).await
    }

    async fn idle(&mut self) {
        self.send("x IDLE\r\n").await;
        while !self.line().await.starts_with("+ ") {}
    }

    /// Whether the other side has nothing more to say, and says so.
    async fn ended(&mut self) -> bool {
        let mut rest = Vec::new();
        tokio::time::timeout(PATIENCE, self.0.read_to_end(&mut rest)).await.is_ok()
    }
}

async fn start(options: StoreOptions) -> (Store, mpsc::Receiver<Event>) {
    let (events, heard) = mpsc::channel(1_000);
    (Store::start(StoreOptions { events: Some(events), ..options }).await.expect("a store"), heard)
}

async fn next(events: &mut mpsc::Receiver<Event>) -> Event {
    tokio::time::timeout(PATIENCE, events.recv()).await.expect("an event within the patience").expect("an event")
}

#[tokio::test]
async fn every_change_is_an_event_once_it_is_made() {
    let (store, mut events) = start(StoreOptions::default()).await;
    let address = store.address().to_string();
    let mut idler = Imap::logged_in(&address, "alice").await;
    idler.say("SELECT INBOX").await;
    idler.idle().await;
    let uid = store.deliver("alice", "INBOX", MAIL.as_bytes()).expect("delivered");
    let event = next(&mut events).await;
    assert_eq!(event.mailbox.as_str(), "#private:alice@example.org:INBOX");
    let status = event.status.expect("a status");
    assert_eq!((status.messages, status.uidnext, status.unseen), (Some(1), Some(2), Some(1)));
    let Change::MessageNew { messages } = event.change else { panic!("{event:?}") };
    assert_eq!((messages[0].uid, messages[0].size), (uid, Some(MAIL.len() as u64)));
    assert_eq!(messages[0].envelope.as_ref().and_then(|envelope| envelope.subject.as_deref()), Some("Lunch"));
    assert_eq!(idler.line().await, "* 1 EXISTS\r\n");

    let mut desk = Imap::logged_in(&address, "alice").await;
    assert!(desk.append("INBOX").await.contains("APPENDUID"));
    assert!(desk.say("CREATE New").await.contains("x OK"));
    desk.say("SELECT INBOX").await;
    desk.say("STORE 1:2 +FLAGS (\\Seen)").await;
    desk.say("STORE 1 FLAGS (\\Deleted)").await;
    desk.say("EXPUNGE").await;
    desk.say("SETACL Team carol lr").await;
    let mut types = Vec::new();
    while types.len() < 6 {
        let event = next(&mut events).await;
        assert_eq!(event.actor.as_deref(), Some("alice@example.org"));
        if let Change::FlagsSet { messages } = &event.change {
            assert!(messages.iter().all(|message| message.flags.is_some() && message.modseq.is_some()), "{event:?}");
        }
        types.push(event.change.event_type().as_str());
    }
    assert_eq!(types, ["MessageAppend", "MailboxCreate", "FlagsSet", "FlagsSet", "MessageExpunge", "AclChange"]);
}

#[tokio::test]
async fn it_lags_hangs_and_refuses_when_told_to() {
    let (store, mut events) = start(StoreOptions { esearch: false, condstore: false, idle: false, ..Default::default() }).await;
    let address = store.address().to_string();
    let mut phone = Imap::logged_in(&address, "alice").await;
    let capabilities = phone.say("CAPABILITY").await;
    assert!(["ESEARCH", "CONDSTORE", "QRESYNC", "IDLE"].iter().all(|name| !capabilities.contains(name)), "{capabilities}");
    for command in ["IDLE", "UID SEARCH RETURN (ALL) 1:*", "SELECT INBOX (CONDSTORE)"] {
        assert!(phone.say(command).await.contains("x BAD"), "{command}");
    }
    assert!(!phone.say("SELECT INBOX").await.contains("HIGHESTMODSEQ"));
    store.set_faults(Faults { lag: Duration::from_secs(3_600), ..Default::default() });
    store.deliver("alice", "INBOX", MAIL.as_bytes()).expect("delivered");
    assert!(matches!(next(&mut events).await.change, Change::MessageNew { .. }), "published at once");
    assert_eq!(phone.say("NOOP").await, "x OK Nothing done\r\n");
    store.set_faults(Faults::default());
    assert!(phone.say("NOOP").await.starts_with("* 1 EXISTS\r\n"));

    store.set_faults(Faults { refuse_logins: true, ..Default::default() });
    let mut late = Imap::connect(&address).await;
    late.line().await;
    assert!(late.say("LOGIN alice alice").await.contains("x NO [UNAVAILABLE]"));
    store.set_faults(Faults { hold: true, ..Default::default() });
    late.send("x NOOP\r\n").await;
    let silence = tokio::time::timeout(Duration::from_millis(200), late.line()).await;
    assert!(silence.is_err(), "{silence:?}");
    store.set_faults(Faults::default());
    assert!(late.line().await.starts_with("x OK"));
    store.cut_connections();
    assert!(late.ended().await && phone.ended().await);
}

#[tokio::test]
async fn a_master_user_and_another_delimiter() {
    let (store, _events) = start(StoreOptions { style: Style { delimiter: '.' }, ..Default::default() }).await;
    let mut client = Imap::connect(&store.address().to_string()).await;
    client.line().await;
    let master = store.master();
    let plain = format!("bob@example.org\0{}\0{}", master.user, master.password.as_str());
    let answer = client.say(&format!("AUTHENTICATE PLAIN {}", data_encoding::BASE64.encode(plain.as_bytes()))).await;
    assert!(answer.contains("x OK"), "{answer}");
    assert!(client.say("NAMESPACE").await.starts_with("* NAMESPACE ((\"\" \".\")) ((\"shared.\" \".\")) NIL"));
    assert!(client.say("SELECT shared.alice@example.org.Team").await.contains("x OK"));
    assert!(client.say("LIST \"\" *").await.contains("\"shared.alice@example.org.Team\""));
}

#[tokio::test]
async fn connections_are_bounded_and_rubbish_harms_nobody() {
    let limits = Limits { connections: 1, ..Limits::default() };
    let (store, _events) = start(StoreOptions { limits, ..Default::default() }).await;
    let address = store.address().to_string();
    let mut first = Imap::connect(&address).await;
    first.line().await;
    let mut second = Imap::connect(&address).await;
    assert!(second.line().await.starts_with("* BYE [LIMIT]"));
    first.send(&"x".repeat(70_000)).await;
    assert!(first.line().await.starts_with("* BYE"));
    drop(first);
    let again = eventually("a place", PATIENCE, async || {
        let mut client = Imap::connect(&address).await;
        client.line().await.starts_with("* OK").then_some(client)
    });
    drop(again.await);
}

#[tokio::test]
async fn what_is_appended_at_one_node_is_heard_at_the_other() {
    let cluster = DevCluster::start(2).await;
    let mut page = WsClient::connect(&cluster.ws(1), &cluster.token(0)).await;
    page.subscribe("#private:alice@example.org:INBOX").await;
    let mut phone = Imap::logged_in(&cluster.imap(1), "alice").await;
    phone.say("SELECT INBOX").await;
    phone.idle().await;
    let mut desk = Imap::logged_in(&cluster.imap(0), "alice").await;
    assert!(desk.append("INBOX").await.contains("x OK"));
    assert_eq!(phone.line().await, "* 1 EXISTS\r\n");
    let event = page.event().await;
    assert_eq!(event["event"]["type"], "MessageAppend");
    assert_eq!(event["event"]["status"]["messages"], 1);
}
