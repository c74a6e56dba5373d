//! What the relay costs: large and small transfers through the gateway and directly, to the same server in the same run.
//!
//! Twice: a server that only copies bytes, so that the gateway is what limits, and a real Dovecot.

use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::imap_upstream::{BODY, ENVELOPES, Upstream};
use super::report::{Report, Target, quantile};
use super::server::Server;
use super::support::dovecot::{Options, TestDovecot, password};
use super::support::fixtures::free_port;
use super::support::kafka::TestKafka;
use super::support::zookeeper::TestZookeeper;

const ROUNDS: usize = 7;
const PINGS: usize = 5_000;
const PIPELINED: usize = 1_000;
const PATIENCE: Duration = Duration::from_secs(120);
const CHUNK: usize = 256 * 1024;
const MIB: f64 = (1 << 20) as f64;

pub async fn run(report: &mut Report) {
    println!("relay");
    let (zookeeper, kafka) = (TestZookeeper::start().await, TestKafka::start());
    let registry = zookeeper.address();
    let scripted = Upstream::start().await;
    compare(report, &registry, &kafka.address(), "a server that only copies", &scripted.address).await;
    drop(scripted);
    let dovecot = dovecot().await;
    let address = format!("127.0.0.1:{}", dovecot.imap_port);
    compare(report, &registry, &kafka.address(), "Dovecot", &address).await;
}

/// A Dovecot whose INBOX of alice holds one large message and many small ones.
async fn dovecot() -> TestDovecot {
    // Nobody is to hear of the changes here.
    let extra = "mail_plugins =\nprotocol imap {\n  mail_plugins =\n}\n".to_owned();
    let dovecot = TestDovecot::start(Options { agent: "http://127.0.0.1:1".to_owned(), extra }).await;
    let mut client = Client::login(&format!("127.0.0.1:{}", dovecot.imap_port)).await;
    client.append("INBOX").await;
    let message = "Date: Mon, 23 Nov 2026 10:00:00 +0000\r\nFrom: joe@example.org\r\nTo: alice@example.org\r\nSubject: hello\r\n\
                   Message-ID: <1.mail@example.org>\r\n\r\nhello\r\n";
    let literal = format!(" {{{}+}}\r\n{message}", message.len());
    for _ in 0..ENVELOPES / 500 {
        client.run(format!("t APPEND INBOX{}\r\n", literal.repeat(500)).as_bytes(), b"t OK").await;
    }
    dovecot
}

async fn compare(report: &mut Report, zookeeper: &str, kafka: &str, upstream: &str, address: &str) {
    let imap = format!("127.0.0.1:{}", free_port());
    let settings = [format!("imap.listen={imap}"), format!("imap.upstream.addresses={address}")];
    let settings: Vec<&str> = settings.iter().map(String::as_str).collect();
    let server = Server::serve_with(zookeeper, kafka, &settings).await;
    let (mut direct, mut relayed) = (Client::begin(address).await, Client::begin(&imap).await);
    let mut rows = [Rows::default(), Rows::default()];
    for round in 0..=ROUNDS {
        // By turns, so that what else the machine does befalls both.
        for (client, rows) in [&mut direct, &mut relayed].into_iter().zip(&mut rows) {
            client.measure(rows).await;
            if round == 0 {
                *rows = Rows::default();
            }
        }
    }
    let before = server.cpu();
    for _ in 0..ROUNDS {
        relayed.fetch().await;
    }
    let cpu = (server.cpu() - before) / (ROUNDS * BODY) as f64 * MIB * 1024.0;
    let [mut direct, mut relayed] = rows;
    let mut tell = |what: &str, unit: &'static str, direct: &mut Vec<f64>, relayed: &mut Vec<f64>| {
        for (how, values) in [("direct", direct), ("relayed", relayed)] {
            let (low, high) = (quantile(values, 0.0), quantile(values, 1.0));
            let note = format!("{upstream}; median of {ROUNDS}, {low:.1} to {high:.1}");
            report.add(format!("imap-relay: {what}, {how}"), quantile(values, 0.5), unit, Target::None, note);
        }
    };
    tell("FETCH of 64 MiB", "MiB/s", &mut direct.fetch, &mut relayed.fetch);
    tell("APPEND of 64 MiB", "MiB/s", &mut direct.append, &mut relayed.append);
    tell("FETCH of 10,000 envelopes", "ms", &mut direct.envelopes, &mut relayed.envelopes);
    tell("NOOP, one by one, p50", "µs", &mut direct.ping, &mut relayed.ping);
    tell("NOOP, one by one, p99", "µs", &mut direct.slow_ping, &mut relayed.slow_ping);
    tell("NOOP, 1,000 at once", "/s", &mut direct.pipelined, &mut relayed.pipelined);
    let note = format!("{upstream}; the gateway's CPU time, user and system");
    report.add("imap-relay: CPU time for 1 GiB of FETCH", cpu, "s", Target::None, note);
}

/// One value a round each.
#[derive(Default)]
struct Rows {
    fetch: Vec<f64>,
    append: Vec<f64>,
    envelopes: Vec<f64>,
    ping: Vec<f64>,
    slow_ping: Vec<f64>,
    pipelined: Vec<f64>,
}

struct Client {
    stream: TcpStream,
    buffer: Vec<u8>,
    message: Vec<u8>,
}

impl Client {
    async fn login(address: &str) -> Self {
        let stream = TcpStream::connect(address).await.expect("connect");
        stream.set_nodelay(true).expect("no delay");
        let head = b"From: joe@example.org\r\nSubject: large\r\n\r\n";
        let line = b"The quick brown fox jumps over the lazy dog, and then it does so again and again\r\n";
        let message = head.iter().chain(line.iter().cycle()).copied().take(BODY).collect();
        let mut client = Self { stream, buffer: vec![0; CHUNK], message };
        client.until(b"* OK").await;
        client.run(format!("l LOGIN alice {}\r\n", password("alice")).as_bytes(), b"l OK").await;
        client
    }

    async fn begin(address: &str) -> Self {
        let mut client = Self::login(address).await;
        // Both append to it; what they append is not to be seen in the other mailbox.
        client.run(b"c CREATE Large\r\n", b"c ").await;
        client.run(b"s SELECT INBOX\r\n", b"s OK").await;
        client
    }

    async fn measure(&mut self, rows: &mut Rows) {
        rows.fetch.push(self.fetch().await);
        rows.append.push(self.append("Large").await);
        let begun = Instant::now();
        let read = self.run(format!("e FETCH 2:{} ENVELOPE\r\n", ENVELOPES + 1).as_bytes(), b"e OK").await;
        rows.envelopes.push(begun.elapsed().as_secs_f64() * 1e3);
        assert!(read > 100 * ENVELOPES as usize, "all envelopes came: {read} bytes");
        let mut pings = Vec::with_capacity(PINGS);
        for _ in 0..PINGS {
            let begun = Instant::now();
            self.run(b"n NOOP\r\n", b"n OK").await;
            pings.push(begun.elapsed().as_secs_f64() * 1e6);
        }
        rows.ping.push(quantile(&mut pings, 0.5));
        rows.slow_ping.push(quantile(&mut pings, 0.99));
        let mut commands = b"n NOOP\r\n".repeat(PIPELINED - 1);
        commands.extend_from_slice(b"z NOOP\r\n");
        let begun = Instant::now();
        self.run(&commands, b"z OK").await;
        rows.pipelined.push(PIPELINED as f64 / begun.elapsed().as_secs_f64());
    }

    /// MiB a second.
    async fn fetch(&mut self) -> f64 {
        let begun = Instant::now();
        let read = self.run(b"f FETCH 1 BODY[]\r\n", b"f OK").await;
        assert!(read > BODY, "the whole message came: {read} bytes");
        BODY as f64 / MIB / begun.elapsed().as_secs_f64()
    }

    /// The same.
    async fn append(&mut self, mailbox: &str) -> f64 {
        let begun = Instant::now();
        let command = format!("p APPEND {mailbox} {{{BODY}+}}\r\n");
        self.stream.write_all(command.as_bytes()).await.expect("send");
        self.stream.write_all(&self.message).await.expect("send");
        self.run(b"\r\n", b"p OK").await;
        BODY as f64 / MIB / begun.elapsed().as_secs_f64()
    }

    /// Sends, and reads up to a line that begins so and is the last that has come; the bytes read.
    async fn run(&mut self, command: &[u8], last: &[u8]) -> usize {
        self.stream.write_all(command).await.expect("send");
        self.until(last).await
    }

    async fn until(&mut self, last: &[u8]) -> usize {
        let (mut total, mut tail) = (0, Vec::new());
        loop {
            let read = self.stream.read(&mut self.buffer);
            let read = tokio::time::timeout(PATIENCE, read).await.expect("an answer in time").expect("an answer");
            assert!(read > 0, "closed behind {}", String::from_utf8_lossy(&tail));
            total += read;
            tail.extend_from_slice(&self.buffer[read.saturating_sub(4096)..read]);
            tail.drain(..tail.len().saturating_sub(4096));
            let line = tail.strip_suffix(b"\r\n").map(|tail| tail.rsplit(|byte| *byte == b'\n').next().unwrap_or(tail));
            if line.is_some_and(|line| line.starts_with(last)) {
                return total;
            }
        }
    }
}
