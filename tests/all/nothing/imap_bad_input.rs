//! Clients and mail servers that say what they should not: each is told so or is hung up on, in bounded time and memory,
//! and the others are served on.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::Once;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use mailpush::cluster::queue::local::LocalQueues;
use mailpush::cluster::registry::QueueNames;
use mailpush::cluster::registry::local::LocalRegistry;
use mailpush::config::{Millis, Park, QueueKind, RegistryKind, Secret, Settings};
use mailpush::node::{Cluster, Node};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

const PATIENCE: Duration = Duration::from_secs(20);
/// What the node may hold more than before, with all that the tests beside it do.
const MEMORY: u64 = 160 << 20;
const LOOPBACK: &str = "127.0.0.1:0";

static PANICS: AtomicUsize = AtomicUsize::new(0);

/// Counts the panics of every task: the runtime would swallow them.
fn count_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            // A test that fails says so itself.
            if info.location().is_none_or(|location| !location.file().starts_with("tests/")) {
                PANICS.fetch_add(1, Ordering::AcqRel);
            }
            before(info);
        }));
    });
}

async fn node(upstream: SocketAddr, change: impl FnOnce(&mut Settings)) -> Node {
    count_panics();
    let mut settings = Settings::default();
    settings.http.listen = LOOPBACK.parse().expect("an address");
    settings.auth.secret = Secret::new("a secret of more than thirty-two bytes, for tests");
    (settings.registry.kind, settings.queue.kind) = (RegistryKind::Local, QueueKind::Local);
    settings.imap.listen = LOOPBACK.parse().ok();
    settings.imap.upstream.addresses = vec![upstream.into()];
    settings.imap.upstream.connect_timeout_ms = Millis(1_000);
    settings.imap.catch_up_ms = Millis(1_500);
    settings.imap.login_deadline_ms = Millis(3_000);
    change(&mut settings);
    let names = QueueNames::new("t").expect("a prefix");
    let local = LocalRegistry::new(names.clone()).node();
    let queues = LocalQueues::new(Duration::from_secs(60), 100);
    let cluster = Cluster { registrar: local.clone(), directory: local, queues, acls: None, rights: None, names };
    Node::start(Arc::new(settings), cluster).await.expect("a node")
}

/// A client that says whatever it likes.
struct Client(BufReader<TcpStream>);

impl Client {
    async fn open(node: &Node) -> Self {
        let stream = TcpStream::connect(node.imap().plain.expect("a port")).await.expect("connect");
        Self(BufReader::new(stream))
    }

    async fn logged_in(node: &Node, user: &str) -> Self {
        let mut client = Self::open(node).await;
        client.until("* OK").await;
        client.send(format!("l LOGIN {user} pw\r\n")).await;
        client.until("l OK").await;
        client
    }

    /// Logged in, and idling in a mailbox of three messages.
    async fn idling(node: &Node, user: &str) -> Self {
        let mut client = Self::logged_in(node, user).await;
        client.send("s SELECT INBOX\r\n").await;
        client.until("s OK").await;
        client.send("i IDLE\r\n").await;
        client.until("+").await;
        client
    }

    /// The other side may have closed meanwhile.
    async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        let _ = tokio::time::timeout(PATIENCE, self.0.write_all(bytes.as_ref())).await.expect("somebody takes it");
    }

    /// The next line; `None` at the end.
    async fn line(&mut self) -> Option<String> {
        let mut line = Vec::new();
        let read = tokio::time::timeout(PATIENCE, self.0.read_until(b'\n', &mut line)).await.expect("a line in time");
        read.ok().filter(|read| *read > 0).map(|_| String::from_utf8_lossy(&line).trim_end().to_owned())
    }

    /// Reads to a line that begins so; the lines before it.
    async fn until(&mut self, beginning: &str) -> Vec<String> {
        let mut lines = Vec::new();
        loop {
            let Some(line) = self.line().await else { panic!("the end instead of {beginning:?}: {lines:?}") };
            let found = line.starts_with(beginning);
            lines.push(line);
            if found {
                return lines;
            }
        }
    }

    /// All lines to the end.
    async fn rest(&mut self) -> Vec<String> {
        let mut lines = Vec::new();
        while let Some(line) = self.line().await {
            lines.push(line);
        }
        lines
    }
}

/// Somebody with nothing to do with it is served, and nothing has panicked.
async fn assert_well(node: &Node, what: &str) {
    let mut other = Client::idling(node, "honest").await;
    other.send("DONE\r\nn NOOP\r\n").await;
    let lines = other.until("n OK").await;
    assert!(lines.iter().any(|line| line.starts_with("i OK")), "{what}: {lines:?}");
    assert_eq!(PANICS.load(Ordering::Acquire), 0, "{what}");
}

/// A line of `/proc/self/status`, in bytes.
fn memory(name: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("the process's status");
    let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).expect("a line");
    line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") * 1024
}

fn assert_bounded(before: u64, what: &str) {
    let grown = memory("VmHWM").saturating_sub(before);
    assert!(grown < MEMORY, "{what}: {} MB more than before", grown >> 20);
}

fn honest(_: &str, _: usize, _: &str) -> Option<Vec<Deed>> {
    None
}

#[tokio::test]
async fn before_login() {
    if !alone(module_path!(), "before_login").await {
        return;
    }
    let upstream = Liar::start(honest).await;
    let node = node(upstream.address, |_| ()).await;
    let before = memory("VmRSS");
    let junk: Vec<u8> = (0..1_000_000_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    let cases: [(&str, Vec<u8>, &[&str]); 14] = [
        ("no number", b"a LOGIN {99999999999999999999}\r\n".to_vec(), &["* BYE", "a BAD", "a NO"]),
        ("no number+", b"a LOGIN {99999999999999999999+}\r\n".to_vec(), &["* BYE", "a BAD", "a NO"]),
        ("a large name", b"a LOGIN {4294967295}\r\n".to_vec(), &["* BYE", "a BAD", "a NO"]),
        ("a large name+", [b"a LOGIN {4294967295+}\r\n", &junk[..]].concat(), &["* BYE", "a BAD", "a NO"]),
        ("a large APPEND", [b"a APPEND INBOX {4294967295+}\r\n", &junk[..]].concat(), &["* BYE", "a BAD", "a NO"]),
        ("a line without end", vec![b'x'; 1 << 20], &["* BYE"]),
        ("a word without end", [b"a LOGIN ", &[b'x'; 1 << 20][..]].concat(), &["* BYE"]),
        ("rubbish lines", b"what is this\r\n".repeat(80_000), &["* BYE", "what BAD"]),
        ("empty lines", b"\r\n".repeat(100_000), &["* BYE", "* BAD"]),
        ("junk", junk.clone(), &["* BYE", "* BAD"]),
        ("NUL", b"a LOG\0IN alice pw\r\n\0\0\0\r\n".to_vec(), &["* BYE", "a BAD", "* BAD"]),
        ("IDLE", b"a IDLE\r\nDONE\r\n".to_vec(), &["a BAD", "a NO", "DONE BAD"]),
        ("DONE", b"DONE\r\n".to_vec(), &["* BYE", "DONE BAD", "* BAD"]),
        ("another protocol", b"GET / HTTP/1.1\r\nHost: x\r\n\r\n".to_vec(), &["* BYE", "GET BAD", "* BAD"]),
    ];
    for (what, bytes, answers) in cases {
        let mut client = Client::open(&node).await;
        client.until("* OK").await;
        let (read, mut write) = client.0.into_inner().into_split();
        // Who sends much and reads nothing meanwhile is not waited for.
        let sending = tokio::spawn(async move {
            let _ = write.write_all(&bytes).await;
            write
        });
        let mut read = BufReader::new(read);
        let mut line = Vec::new();
        let answered = tokio::time::timeout(PATIENCE, read.read_until(b'\n', &mut line)).await;
        answered.unwrap_or_else(|_| panic!("{what}: nothing is said")).expect("an answer");
        let line = String::from_utf8_lossy(&line).into_owned();
        assert!(answers.iter().any(|answer| line.starts_with(answer)), "{what}: {line:?}");
        // Whatever it is, it ends: at the latest with the time for logging in.
        let ended = tokio::time::timeout(PATIENCE, read.read_to_end(&mut Vec::new())).await;
        assert!(ended.is_ok(), "{what}: it does not end");
        drop(sending);
    }
    assert_bounded(before, "before login");
    let told = upstream.seen.lines();
    let broken = told.iter().find(|line| line.contains("LOGIN") || line.contains("APPEND") || line.contains('\0'));
    assert_eq!(broken, None, "what is broken is not the server's");
    assert_well(&node, "before login").await;
}

#[tokio::test]
async fn commands_behind_starttls_are_nobodys() {
    if !alone(module_path!(), "commands_behind_starttls_are_nobodys").await {
        return;
    }
    let upstream = Liar::start(honest).await;
    let node = node(upstream.address, |_| ()).await;
    // Without a certificate it is refused, and what follows is as if it had not been said.
    let mut client = Client::open(&node).await;
    client.send("a STARTTLS\r\nb LOGIN honest pw\r\nc STARTTLS\r\nd NOOP\r\n").await;
    let lines = client.until("d OK").await;
    assert!(lines.iter().any(|line| line.starts_with("a NO")), "{lines:?}");
    assert!(lines.iter().any(|line| line.starts_with("c NO") || line.starts_with("c BAD")), "{lines:?}");
}

#[tokio::test]
async fn what_does_not_belong_into_idle() {
    if !alone(module_path!(), "what_does_not_belong_into_idle").await {
        return;
    }
    let upstream = Liar::start(honest).await;
    let node = node(upstream.address, |_| ()).await;
    let long = "x".repeat(1 << 20);
    let cases: [(&str, &str, &[&str]); 8] = [
        ("another command", "x LOGOUT\r\n", &["i BAD"]),
        ("IDLE twice", "x IDLE\r\n", &["i BAD"]),
        ("DONE and more", "DONE now\r\n", &["i BAD"]),
        ("an empty line", "\r\n", &["i BAD"]),
        ("a literal", "x LOGIN {10}\r\n", &["i BAD"]),
        ("a huge literal", "x APPEND {4294967295+}\r\n", &["i BAD"]),
        ("NUL", "D\0ONE\r\n", &["i BAD"]),
        ("a line without end", &long, &["* BYE"]),
    ];
    for (what, bytes, answers) in cases {
        let mut client = Client::idling(&node, "honest").await;
        client.send(bytes).await;
        let line = client.line().await.unwrap_or_default();
        assert!(answers.iter().any(|answer| line.starts_with(answer)), "{what}: {line:?}");
        if line.starts_with("i BAD") {
            client.send("n NOOP\r\n").await;
            assert_eq!(client.until("n ").await.last().map(String::as_str), Some("n OK done"), "{what}");
        }
    }
    let mut client = Client::logged_in(&node, "honest").await;
    client.send("a IDLE now\r\nDONE\r\nb NOOP\r\n").await;
    let lines = client.until("b ").await;
    assert!(lines.iter().any(|line| line.starts_with("a BAD")), "{lines:?}");
    assert!(lines.last().is_some_and(|line| line.starts_with("b OK")), "{lines:?}");
    assert_well(&node, "in IDLE").await;
}

#[tokio::test]
async fn ten_thousand_commands_at_once() {
    if !alone(module_path!(), "ten_thousand_commands_at_once").await {
        return;
    }
    const COUNT: usize = 10_000;
    let upstream = Liar::start(honest).await;
    let node = node(upstream.address, |_| ()).await;
    let before = memory("VmRSS");
    let mut client = Client::idling(&node, "honest").await;
    client.send("DONE\r\n").await;
    client.until("i OK").await;
    let (read, mut write) = client.0.into_inner().into_split();
    let mut reader = BufReader::new(read).lines();
    let commands: String = (0..COUNT).map(|n| format!("n{n} NOOP\r\n")).collect();
    let sending = tokio::spawn(async move {
        write.write_all(commands.as_bytes()).await.expect("taken");
        let idles: String = (0..COUNT).map(|n| format!("j{n} IDLE\r\nDONE\r\n")).collect();
        write.write_all(idles.as_bytes()).await.expect("taken");
        write
    });
    for kind in ["n", "j"] {
        for n in 0..COUNT {
            let answer = loop {
                let line = tokio::time::timeout(PATIENCE, reader.next_line()).await.expect("in time").expect("a line");
                let line = line.expect("more");
                if !line.starts_with('+') {
                    break line;
                }
            };
            assert!(answer.starts_with(&format!("{kind}{n} OK")), "{answer:?} instead of {kind}{n}");
        }
    }
    let _write = sending.await.expect("all is sent");
    assert_bounded(before, "many commands");
    assert_well(&node, "many commands").await;
}

const ALERTS: &[u8] = b"* OK [ALERT] and so it goes on\r\n";
const FLAGS: &[u8] = b"* 1 FETCH (FLAGS (\\Seen))\r\n* 1 FETCH (FLAGS ())\r\n* 3 EXISTS\r\n";
const FLOOD: u64 = 80 << 20;

/// What servers say that is not so: who logs in decides which, and from when on.
fn lies(user: &str, connection: usize, line: &str) -> Option<Vec<Deed>> {
    let (tag, command) = line.split_once(' ').unwrap_or((line, ""));
    let serial: Option<u32> = tag.strip_prefix("mailpush").and_then(|serial| serial.parse().ok());
    // Up to the third question the client has not been told that it idles.
    let user = match (user.strip_prefix("late-"), serial) {
        (Some(user), Some(4..)) => user,
        (Some(_), _) => return None,
        (None, _) => user,
    };
    let (noop, uids) = (serial.is_some() && command == "NOOP", command.starts_with("UID SEARCH"));
    let (select, login) = (command.starts_with("SELECT"), command.contains("LOGIN"));
    let say = |text: &str| Some(vec![Deed::Say(text.to_owned())]);
    let half = || Deed::Say("* 1 FETCH (BODY[] {100}\r\nhalf".to_owned());
    match user {
        "shrinks" if noop => say("* 1 EXISTS\r\nTAG OK done\r\n"),
        "expunges-0" if noop => say("* 0 EXPUNGE\r\nTAG OK done\r\n"),
        "expunges-far" if noop => say("* 4294967295 EXPUNGE\r\n* 99 EXPUNGE\r\nTAG OK done\r\n"),
        "fetches-far" if noop => say("* 4294967295 FETCH (FLAGS (\\Seen))\r\n* 0 FETCH (UID 0 FLAGS ())\r\nTAG OK done\r\n"),
        "vanishes" if noop => say("* VANISHED 1:4294967295\r\nTAG OK done\r\n"),
        "exists-all" if noop => say("* 4294967295 EXISTS\r\nTAG OK done\r\n"),
        "all" if uids => say("* ESEARCH (TAG \"TAG\") UID ALL 1:4294967295\r\nTAG OK done\r\n"),
        "no-set" if uids => say("* ESEARCH (TAG \"TAG\") UID ALL 1,,2:x\r\nTAG OK done\r\n"),
        "zero" if uids => say("* ESEARCH (TAG \"TAG\") UID ALL 0:2\r\nTAG OK done\r\n"),
        "none" if uids => say("TAG OK done\r\n"),
        "refuses" if uids || noop => say("TAG BAD never heard of it\r\n"),
        "strangers" if noop => say("zz OK hello\r\n1 BAD hello\r\n+ go on\r\nTAG OK done\r\n"),
        // The gateway's own tags, before they are used.
        "guesses" if noop => {
            let guessed = (0..100).map(|n| format!("mailpush{n} OK done\r\nmailpush{n} BAD done\r\n"));
            Some(vec![Deed::Say(guessed.collect())])
        }
        "floods-numbers" if uids => Some(vec![Deed::Say("* SEARCH".to_owned()), Deed::Flood(b" 1 2 3", FLOOD)]),
        "floods-lines" if noop => Some(vec![Deed::Flood(ALERTS, FLOOD), Deed::Say("TAG OK done\r\n".to_owned())]),
        "floods-unasked" if noop => Some(vec![Deed::Say("TAG OK done\r\n".to_owned()), Deed::Flood(FLAGS, FLOOD)]),
        "nonsense" if noop => say("\0\0\x01 {\r\n* * *\r\n* 1 FETCH (\r\n)\r\nTAG OK done\r\n"),
        "literal" if noop => say("* OK {5}\r\n* 1 FETCH (FLAGS {99999999999999999999}\r\nTAG OK done\r\n"),
        "hangs" if noop => Some(vec![Deed::Hang]),
        "hangs-searching" if uids => Some(vec![Deed::Hang]),
        "hangs-in-literal" if noop => Some(vec![half(), Deed::Hang]),
        "closes" if noop => Some(vec![Deed::Close]),
        "closes-in-literal" if noop => Some(vec![half(), Deed::Close]),
        "closes-in-line" if noop => Some(vec![Deed::Say("* 1 FET".to_owned()), Deed::Close]),
        "bye" if noop => Some(vec![Deed::Say("* BYE tired\r\n".to_owned()), Deed::Close]),
        // Without the gateway's asking.
        "half-a-literal" if command.starts_with("FETCH") => Some(vec![half(), Deed::Close]),
        "half-a-literal-for-ever" if command.starts_with("FETCH") => Some(vec![half(), Deed::Hang]),
        "half-a-line" if command.starts_with("FETCH") => Some(vec![Deed::Say("* 1 FET".to_owned()), Deed::Close]),
        "an-answer-for-nobody" if command.starts_with("FETCH") => say("mailpush1 OK\r\nzz OK\r\n+ more\r\nTAG OK done\r\n"),
        "hangs-at-login" if login => Some(vec![Deed::Hang]),
        // Once the connection is taken up again.
        "made-anew" if connection > 1 && select => {
            say("* 3 EXISTS\r\n* 0 RECENT\r\n* OK [UIDVALIDITY 10] v\r\n* OK [UIDNEXT 4] n\r\nTAG OK [READ-WRITE] done\r\n")
        }
        "deleted" if connection > 1 && select => say("TAG NO [NONEXISTENT] no such mailbox\r\n"),
        "locked-out" if connection > 1 && login => say("TAG NO [AUTHENTICATIONFAILED] no\r\n"),
        _ => None,
    }
}

/// How a session with a liar ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    /// It goes on, right or wrong as the server is.
    GoesOn,
    /// `* BYE`.
    Bye,
    Either,
}

use Fate::{Bye, Either, GoesOn};

use crate::support::alone::alone;
use crate::support::imap_upstream::{Deed, FakeUpstream, Liar};
use crate::support::wait::eventually;

/// What the client hears of a liar, from IDLE on.
async fn suffer(node: &Node, user: &str) -> Vec<String> {
    let mut client = Client::logged_in(node, user).await;
    client.send("s SELECT INBOX\r\n").await;
    client.until("s OK").await;
    client.send("i IDLE\r\nDONE\r\n").await;
    let mut lines = Vec::new();
    while let Some(line) = client.line().await {
        let over = line.starts_with("i OK") || line.starts_with("i BAD") || line.starts_with("* BYE");
        lines.push(line);
        if over {
            break;
        }
    }
    lines
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn servers_that_lie_to_an_idling_session() {
    if !alone(module_path!(), "servers_that_lie_to_an_idling_session").await {
        return;
    }
    let upstream = Liar::start(lies).await;
    let node = node(upstream.address, |_| ()).await;
    let before = memory("VmRSS");
    let cases = [
        ("shrinks", Either),
        ("expunges-0", Either),
        ("expunges-far", Either),
        ("fetches-far", Either),
        ("vanishes", Either),
        ("exists-all", Either),
        ("all", Bye),
        ("no-set", Either),
        ("zero", Either),
        ("none", Either),
        ("refuses", Either),
        ("strangers", GoesOn),
        ("guesses", Either),
        ("nonsense", Either),
        ("literal", Either),
        ("floods-numbers", Bye),
        ("floods-lines", Either),
        ("hangs", Bye),
        ("hangs-searching", Bye),
        ("hangs-in-literal", Bye),
        ("closes", Bye),
        ("closes-in-literal", Bye),
        ("closes-in-line", Bye),
        ("bye", Bye),
    ];
    for prefix in ["", "late-"] {
        for (user, fate) in cases {
            let user = format!("{prefix}{user}");
            let lines = suffer(&node, &user).await;
            let last = lines.last().cloned().unwrap_or_default();
            let goes_on = last.starts_with("i OK");
            assert!(goes_on || last.starts_with("* BYE"), "{user}: {lines:?}");
            assert!(fate == Either || (fate == GoesOn) == goes_on, "{user}: {lines:?}");
            // EXISTS never shrinks (RFC 9051 7.4.1).
            let counts = lines.iter().filter_map(|line| line.strip_prefix("* ")?.strip_suffix(" EXISTS")?.parse::<u64>().ok());
            assert!(goes_on || counts.clone().all(|count| count >= 3), "{user}: {lines:?}");
        }
        assert_well(&node, "lies").await;
    }
    assert_bounded(before, "lies");
}

#[tokio::test]
async fn servers_that_break_off_what_they_relay() {
    if !alone(module_path!(), "servers_that_break_off_what_they_relay").await {
        return;
    }
    let upstream = Liar::start(lies).await;
    let node = node(upstream.address, |_| ()).await;
    for user in ["half-a-literal", "half-a-line"] {
        let mut client = Client::logged_in(&node, user).await;
        client.send("f FETCH 1 BODY[]\r\n").await;
        let lines = client.rest().await;
        // In the middle of a response there is no place for words.
        assert!(!lines.iter().any(|line| line.contains("BYE") || line.starts_with("f ")), "{user}: {lines:?}");
    }
    let mut client = Client::logged_in(&node, "an-answer-for-nobody").await;
    client.send("f FETCH 1 BODY[]\r\ng NOOP\r\n").await;
    let lines = client.until("g OK").await;
    assert!(lines.iter().any(|line| line.starts_with("f OK")), "{lines:?}");

    // Who waits for the rest may go, and the server is let go with them.
    client = Client::logged_in(&node, "half-a-literal-for-ever").await;
    client.send("f FETCH 1 BODY[]\r\n").await;
    client.until("* 1 FETCH").await;
    drop(client);
    let all = upstream.seen.connections.load(Ordering::Acquire);
    let gone = async || (upstream.seen.ended.load(Ordering::Acquire) == all).then_some(());
    eventually("the server is let go", PATIENCE, gone).await;
    assert_well(&node, "broken off").await;
}

#[tokio::test]
async fn servers_that_hang_before_anybody_is_in() {
    if !alone(module_path!(), "servers_that_hang_before_anybody_is_in").await {
        return;
    }
    let silent = FakeUpstream::silent().await;
    let node_of_silence = node(silent.address, |_| ()).await;
    let mut client = Client::open(&node_of_silence).await;
    let line = client.line().await.unwrap_or_default();
    assert!(line.starts_with("* BYE [UNAVAILABLE]"), "{line:?}");

    let upstream = Liar::start(lies).await;
    let node = node(upstream.address, |_| ()).await;
    let mut client = Client::open(&node).await;
    client.until("* OK").await;
    client.send("l LOGIN hangs-at-login pw\r\n").await;
    let rest = client.rest().await;
    assert!(rest.iter().any(|line| line.starts_with("* BYE")), "{rest:?}");
    assert_well(&node, "hangs").await;
}

#[tokio::test]
async fn servers_that_are_not_the_same_when_taken_up_again() {
    if !alone(module_path!(), "servers_that_are_not_the_same_when_taken_up_again").await {
        return;
    }
    let upstream = Liar::start(lies).await;
    let node = node(upstream.address, |settings| {
        settings.imap.park = Park::Credentials;
        settings.imap.park_after_ms = Millis(100);
        settings.registry.settle_ms = Millis(100);
    })
    .await;
    for (user, words) in [("made-anew", "UIDVALIDITY"), ("deleted", "cannot be selected"), ("locked-out", "let you in")] {
        let mut client = Client::idling(&node, user).await;
        let all = upstream.seen.connections.load(Ordering::Acquire);
        let parked = async || (upstream.seen.ended.load(Ordering::Acquire) == all).then_some(());
        eventually("it is parked", PATIENCE, parked).await;
        client.send("DONE\r\n").await;
        let lines = client.rest().await;
        let told = lines.last().is_some_and(|line| line.starts_with("* BYE") && line.contains(words));
        assert!(told && !lines.iter().any(|line| line.starts_with("i ")), "{user}: {lines:?}");
    }
    assert_well(&node, "parked").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_talks_for_ever_to_a_client_that_does_not_listen() {
    if !alone(module_path!(), "a_server_that_talks_for_ever_to_a_client_that_does_not_listen").await {
        return;
    }
    let upstream = Liar::start(lies).await;
    let node = node(upstream.address, |settings| settings.sessions.slow_client_timeout_ms = Millis(2_000)).await;
    let before = memory("VmRSS");
    let mut client = Client::logged_in(&node, "late-floods-unasked").await;
    client.send("s SELECT INBOX\r\ni IDLE\r\nDONE\r\nj IDLE\r\n").await;
    let flooded = async || (upstream.seen.sent.load(Ordering::Acquire) > 0).then_some(());
    eventually("it floods", PATIENCE, flooded).await;
    assert_well(&node, "a flood").await;
    let over = async || (upstream.seen.ended.load(Ordering::Acquire) > 0).then_some(());
    let patience = 3 * PATIENCE;
    let taken = async || (over().await.is_some() || upstream.seen.sent.load(Ordering::Acquire) >= FLOOD).then_some(());
    eventually("it is taken or given up", patience, taken).await;
    drop(client);
    assert_bounded(before, "a flood");
    assert_well(&node, "a flood").await;
}
