//! From a change on the mail server to the client's `* n EXISTS`: through hook, agent, Kafka and gateway, and beside it by the
//! mail server's own IDLE. Everything is real: Dovecot, ZooKeeper, Kafka, `mailpush agent`, `mailpush serve`.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio_util::task::AbortOnDropHandle;

use super::report::{Report, Target, quantile};
use super::support::agent::TestAgent;
use super::support::cluster::TestCluster;
use super::support::dovecot::{MASTER, Options, TestDovecot, password};
use super::support::fixtures::free_port;
use super::support::imap::ImapClient;
use super::support::wait::eventually;

const CHANGES: usize = 250;
const WARM_UP: usize = 20;
const PATIENCE: Duration = Duration::from_secs(60);
const MAIL: &str = "From: Joe <joe@example.org>\r\nTo: alice@example.org\r\nSubject: hello\r\n\r\nhi\r\n";

pub async fn run(report: &mut Report) {
    println!("latency of IDLE");
    let mut agent = TestAgent::new();
    let dovecot = TestDovecot::start(Options { agent: agent.url(), extra: String::new() }).await;
    let upstream = format!("127.0.0.1:{}", dovecot.imap_port);
    let port = free_port();
    let settings = [format!("imap.listen=127.0.0.1:{port}"), format!("imap.upstream.addresses={upstream}")];
    let settings: Vec<&str> = settings.iter().map(String::as_str).collect();
    let cluster = TestCluster::start_with(1, &settings).await;
    let own = [
        format!("agent.imap.address={upstream}"),
        format!("agent.imap.master_user={}", MASTER.0),
        format!("agent.imap.master_password={}", MASTER.1),
    ];
    let own: Vec<&str> = own.iter().map(String::as_str).collect();
    agent.launch(cluster.command(&["agent"]), &own).await;

    let gateway = Listener::idle(port).await;
    let own_idle = Listener::idle(dovecot.imap_port).await;
    // The registration has settled.
    tokio::time::sleep(Duration::from_secs(2)).await;
    let mut changes = Changes { lmtp: Lmtp::connect(dovecot.lmtp_port).await, imap: dovecot.client("alice").await, made: 0 };
    for kind in [Kind::Lmtp, Kind::Append] {
        let mut made = Vec::new();
        for _ in 0..WARM_UP + CHANGES {
            made.push(changes.make(kind).await);
            // In no rhythm with anybody's timers.
            tokio::time::sleep(Duration::from_millis(100 + (changes.made as u64).wrapping_mul(7_919) % 200)).await;
        }
        let what = match kind {
            Kind::Lmtp => "LMTP delivery",
            Kind::Append => "APPEND",
        };
        for (who, listener) in [("gateway", &gateway), ("Dovecot's own IDLE", &own_idle)] {
            listener.has_heard_of(changes.made).await;
            let (mut whole, mut acknowledged): (Vec<f64>, Vec<f64>) =
                made.iter().skip(WARM_UP).map(|change| listener.times(change)).unzip();
            let note = format!("{CHANGES} changes, 100 to 300 ms apart");
            let is_ours = who == "gateway";
            let reach = |limit| if is_ours { Target::AtMost(limit) } else { Target::None };
            for (share, name, target) in [(0.5, "p50", reach(20.0)), (0.99, "p99", reach(100.0)), (1.0, "worst", Target::None)] {
                let value = quantile(&mut whole, share);
                report.add(format!("imap-latency: {what} → EXISTS, {who}, {name}"), value, "ms", target, &note);
            }
            let value = quantile(&mut acknowledged, 0.5);
            let note = "0 where the client was first";
            report.add(format!("imap-latency: {what} acknowledged → EXISTS, {who}, p50"), value, "ms", Target::None, note);
        }
    }
}

#[derive(Clone, Copy)]
enum Kind {
    Lmtp,
    Append,
}

struct Change {
    /// How many messages there are after it.
    number: usize,
    sent: Instant,
    acknowledged: Instant,
}

struct Changes {
    lmtp: Lmtp,
    imap: ImapClient,
    made: usize,
}

impl Changes {
    async fn make(&mut self, kind: Kind) -> Change {
        self.made += 1;
        let number = self.made;
        let sent = match kind {
            Kind::Lmtp => self.lmtp.deliver().await,
            Kind::Append => {
                let sent = Instant::now();
                self.imap.append("INBOX", "", MAIL).await;
                sent
            }
        };
        Change { number, sent, acknowledged: Instant::now() }
    }
}

/// LMTP (RFC 2033), one connection for all messages.
struct Lmtp(BufReader<TcpStream>);

impl Lmtp {
    async fn connect(port: u16) -> Self {
        let stream = TcpStream::connect(("127.0.0.1", port)).await.expect("connect to LMTP");
        stream.set_nodelay(true).expect("no delay");
        let mut lmtp = Self(BufReader::new(stream));
        lmtp.answer().await;
        lmtp.command("LHLO bench\r\n").await;
        lmtp
    }

    /// Returns when the message itself was sent; it is taken then.
    async fn deliver(&mut self) -> Instant {
        for line in ["MAIL FROM:<joe@example.org>\r\n", "RCPT TO:<alice>\r\n", "DATA\r\n"] {
            self.command(line).await;
        }
        let sent = Instant::now();
        self.command(&format!("{MAIL}.\r\n")).await;
        sent
    }

    async fn command(&mut self, line: &str) {
        self.0.write_all(line.as_bytes()).await.expect("send");
        self.answer().await;
    }

    async fn answer(&mut self) {
        loop {
            let mut answer = String::new();
            let read = tokio::time::timeout(PATIENCE, self.0.read_line(&mut answer));
            read.await.expect("an answer in time").expect("an answer");
            assert!(answer.starts_with(['2', '3']), "{answer}");
            if answer.as_bytes().get(3) != Some(&b'-') {
                return;
            }
        }
    }
}

/// A client that idles and notes when it hears of how many messages.
struct Listener {
    heard: Arc<Mutex<Vec<(Instant, usize)>>>,
    _task: AbortOnDropHandle<()>,
}

impl Listener {
    async fn idle(port: u16) -> Self {
        let mut client = ImapClient::login(port, "alice", &password("alice")).await;
        client.ok("SELECT INBOX").await;
        client.begin("IDLE").await;
        client.expect("+ ").await;
        let heard = Arc::new(Mutex::new(Vec::new()));
        let notes = heard.clone();
        let task = tokio::spawn(async move {
            loop {
                let line = client.expect("* ").await;
                let now = Instant::now();
                if let Some(count) = line.strip_prefix("* ").and_then(|line| line.strip_suffix(" EXISTS")) {
                    notes.lock().expect("the notes").push((now, count.parse().expect("a number")));
                }
            }
        });
        Self { heard, _task: AbortOnDropHandle::new(task) }
    }

    async fn has_heard_of(&self, number: usize) {
        let heard = || async {
            let last = self.heard.lock().expect("the notes").last().map(|(_, count)| *count);
            (last == Some(number)).then_some(())
        };
        eventually("all changes are heard of", PATIENCE, heard).await;
    }

    /// Milliseconds from the change, and from its acknowledgement, to the first word of it.
    fn times(&self, change: &Change) -> (f64, f64) {
        let heard = self.heard.lock().expect("the notes");
        let (at, _) = heard.iter().find(|(_, count)| *count >= change.number).expect("it was heard of");
        let since = |then: Instant| at.saturating_duration_since(then).as_secs_f64() * 1e3;
        (since(change.sent), since(change.acknowledged))
    }
}
