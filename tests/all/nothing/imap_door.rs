//! The IMAP door from outside: who gets in, encryption, PROXY headers, mail servers that fail, and large literals.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mailpush::cluster::queue::local::LocalQueues;
use mailpush::cluster::registry::QueueNames;
use mailpush::cluster::registry::local::LocalRegistry;
use mailpush::config::{HostPort, ImapTls, Millis, Park, PlaintextAuth, ProxyHeader, QueueKind, RegistryKind, Secret, Settings};
use mailpush::edge::imap::proxy_protocol;
use mailpush::node::{Cluster, Node};
use mailpush::push::outbox::End;
use mailpush::push::session::Transport;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use crate::support::alone::alone;
use crate::support::imap_upstream::{Deed, FakeUpstream, Liar, Manners, pattern};
use crate::support::wait::eventually;

const PATIENCE: Duration = Duration::from_secs(20);
const LOOPBACK: &str = "127.0.0.1:0";

/// Settings of a node with an IMAP door before these servers.
fn settings(upstreams: &[SocketAddr]) -> Settings {
    let mut settings = Settings::default();
    settings.http.listen = LOOPBACK.parse().expect("an address");
    settings.auth.secret = Secret::new("a secret of more than thirty-two bytes, for tests");
    (settings.registry.kind, settings.queue.kind) = (RegistryKind::Local, QueueKind::Local);
    settings.imap.listen = LOOPBACK.parse().ok();
    settings.imap.upstream.addresses = upstreams.iter().copied().map(HostPort::from).collect();
    settings.imap.upstream.connect_timeout_ms = Millis(1_000);
    settings
}

async fn node(settings: Settings) -> Node {
    let local = LocalRegistry::new(QueueNames::new("t").expect("a prefix")).node();
    let names = QueueNames::new("t").expect("a prefix");
    let queues = LocalQueues::new(Duration::from_secs(60), 100);
    let cluster = Cluster { registrar: local.clone(), directory: local, queues, acls: None, rights: None, names };
    Node::start(Arc::new(settings), cluster).await.expect("a node")
}

/// A client that reads lines.
struct Client<S>(BufReader<S>);

impl<S: AsyncRead + AsyncWrite + Unpin> Client<S> {
    fn new(stream: S) -> Self {
        Self(BufReader::with_capacity(64 * 1024, stream))
    }

    async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.0.write_all(bytes.as_ref()).await.expect("send");
        self.0.flush().await.expect("send");
    }

    /// The next line; `None` at the end.
    async fn line(&mut self) -> Option<String> {
        let mut line = String::new();
        let read = tokio::time::timeout(PATIENCE, self.0.read_line(&mut line)).await.expect("a line in time");
        read.ok().filter(|read| *read > 0).map(|_| line.trim_end().to_owned())
    }

    async fn expect(&mut self, beginning: &str) -> String {
        let line = self.line().await.unwrap_or_else(|| panic!("the end instead of {beginning:?}"));
        assert!(line.starts_with(beginning), "{line:?} instead of {beginning:?}");
        line
    }

    /// Sends a command and reads until its answer.
    async fn command(&mut self, command: &str) -> String {
        self.send(format!("{command}\r\n")).await;
        let tag = command.split(' ').next().expect("a tag");
        loop {
            let line = self.line().await.expect("an answer");
            if line.starts_with(tag) {
                return line;
            }
        }
    }

    async fn log_in(&mut self) {
        self.expect("* OK").await;
        assert!(self.command("a LOGIN alice alice").await.starts_with("a OK"));
    }

    /// Nothing more is said but goodbye.
    async fn expect_end(&mut self) {
        while let Some(line) = self.line().await {
            assert!(line.starts_with("* BYE"), "{line:?}");
        }
    }
}

async fn connect(address: SocketAddr) -> Client<TcpStream> {
    Client::new(TcpStream::connect(address).await.expect("a connection"))
}

async fn plain(node: &Node) -> Client<TcpStream> {
    connect(node.imap().plain.expect("a plain port")).await
}

/// A certificate for `name` in a folder; what trusts it.
fn certificate(folder: &Path, name: &str) -> TlsConnector {
    let made = rcgen::generate_simple_self_signed([name.to_owned()]).expect("a certificate");
    std::fs::write(folder.join("cert.pem"), made.cert.pem()).expect("write");
    std::fs::write(folder.join("key.pem"), made.signing_key.serialize_pem()).expect("write");
    let mut roots = RootCertStore::empty();
    roots.add(made.cert.der().clone()).expect("a root");
    let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()));
    let builder = builder.with_safe_default_protocol_versions().expect("versions");
    Arc::new(builder.with_root_certificates(roots).with_no_client_auth()).into()
}

fn acceptor(folder: &Path) -> TlsAcceptor {
    let chain = CertificateDer::pem_file_iter(folder.join("cert.pem")).expect("a file").map(|c| c.expect("a certificate"));
    let key = PrivateKeyDer::from_pem_file(folder.join("key.pem")).expect("a key");
    let builder = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()));
    let builder = builder.with_safe_default_protocol_versions().expect("versions").with_no_client_auth();
    Arc::new(builder.with_single_cert(chain.collect(), key).expect("a server")).into()
}

async fn encrypt(connector: &TlsConnector, stream: TcpStream, name: &'static str) -> std::io::Result<TlsStream<TcpStream>> {
    connector.connect(ServerName::try_from(name).expect("a name"), stream).await
}

fn with_certificate(settings: &mut Settings, folder: &Path) {
    settings.imap.certificate_file = Some(folder.join("cert.pem"));
    settings.imap.key_file = Some(folder.join("key.pem"));
}

#[tokio::test]
async fn what_a_client_says_reaches_the_server_and_back() {
    let upstream = FakeUpstream::start().await;
    let node = node(settings(&[upstream.address])).await;
    let mut client = plain(&node).await;
    client.log_in().await;
    assert_eq!(client.command("b NOOP").await, "b OK done");
    assert_eq!(node.imap().tls, None);
    client.send("c LOGOUT\r\n").await;
    client.expect("* BYE").await;
    client.expect("c OK").await;
    client.expect_end().await;
    let gateway = node.gateway().clone();
    let gone = async || (gateway.metrics.imap_connections.get() == 0).then_some(());
    eventually("nothing is left of it", PATIENCE, gone).await;
    node.drain(tokio_util::sync::CancellationToken::new()).await;
}

#[tokio::test]
async fn clients_that_begin_with_tls_meet_the_certificate_and_its_renewal() {
    let folder = tempfile::tempdir().expect("a folder");
    let connector = certificate(folder.path(), "one.example");
    let upstream = FakeUpstream::start().await;
    let mut settings = settings(&[upstream.address]);
    settings.imap.listen_tls = LOOPBACK.parse().ok();
    with_certificate(&mut settings, folder.path());
    let node = node(settings).await;
    let address = node.imap().tls.expect("a port for TLS");
    let tcp = async || TcpStream::connect(address).await.expect("a connection");

    let mut client = Client::new(encrypt(&connector, tcp().await, "one.example").await.expect("TLS"));
    client.log_in().await;
    let renewed = certificate(folder.path(), "a-longer-name.example");
    let shown = async || encrypt(&renewed, tcp().await, "a-longer-name.example").await.ok();
    Client::new(eventually("the new certificate is shown", PATIENCE, shown).await).log_in().await;
    assert_eq!(client.command("b NOOP").await, "b OK done", "who was in stays in");
}

#[tokio::test]
async fn no_mail_server_means_a_goodbye_with_a_reason() {
    let dead = TcpListener::bind(LOOPBACK).await.expect("a port").local_addr().expect("its address");
    let node = node(settings(&[dead])).await;
    let mut client = plain(&node).await;
    client.expect("* BYE [UNAVAILABLE] The mail server cannot be reached").await;
    client.expect_end().await;
    assert!(node.gateway().render_metrics().contains("imap_refused_total{reason=\"upstream\"} 1"));
    let answer = reqwest::get(format!("http://{}/readyz", node.address())).await.expect("an answer");
    assert_eq!(answer.status(), 200, "its push is as good as any node's");
    let told: serde_json::Value = answer.json().await.expect("JSON");
    let servers = serde_json::json!({ "name": "mail servers", "ok": false, "detail": "0 of 1 answer" });
    assert!(told["dependencies"].as_array().expect("a list").contains(&servers), "{told}");
}

#[tokio::test]
async fn dead_and_silent_servers_are_set_aside_and_tried_again() {
    let dead = TcpListener::bind(LOOPBACK).await.expect("a port").local_addr().expect("its address");
    let (silent, good) = (FakeUpstream::silent().await, FakeUpstream::start().await);
    let node = node(settings(&[dead, silent.address, good.address])).await;
    for _ in 0..3 {
        plain(&node).await.log_in().await;
    }
    assert_eq!(good.connections(), 3);
    let began = Instant::now();
    plain(&node).await.log_in().await;
    assert!(began.elapsed() < Duration::from_millis(900), "nobody waits for a server that is known to be silent");
    silent.recover();
    let asked = silent.connections();
    let served = async || {
        plain(&node).await.log_in().await;
        silent.seen.lines().contains(&"a LOGIN alice alice".to_owned()).then_some(())
    };
    eventually("the silent one serves again", PATIENCE, served).await;
    assert!(silent.connections() > asked);
}

#[tokio::test]
async fn servers_are_spoken_to_in_tls_and_must_be_who_they_are() {
    let folder = tempfile::tempdir().expect("a folder");
    certificate(folder.path(), "mail.example");
    for (mode, starttls) in [(ImapTls::Tls, false), (ImapTls::Starttls, true)] {
        let manners = Manners { tls: Some((acceptor(folder.path()), starttls)), ..Default::default() };
        let upstream = FakeUpstream::with(manners).await;
        let mut settings = settings(&[upstream.address]);
        settings.imap.upstream.tls = mode;
        settings.imap.upstream.ca_file = Some(folder.path().join("cert.pem"));
        let refused = node(settings.clone()).await;
        plain(&refused).await.expect("* BYE [UNAVAILABLE]").await;
        settings.imap.upstream.tls_name = Some("mail.example".parse().expect("a name"));
        let trusting = node(settings).await;
        let mut client = plain(&trusting).await;
        client.log_in().await;
        assert_eq!(client.command("b NOOP").await, "b OK done");
    }
}

#[tokio::test]
async fn a_server_whose_starttls_is_tampered_with_is_not_used() {
    let folder = tempfile::tempdir().expect("a folder");
    certificate(folder.path(), "mail.example");
    let tls = Some((acceptor(folder.path()), true));
    let injecting = Manners { tls: tls.clone(), injects: "* OK [ALERT] call this number\r\n", ..Default::default() };
    let open = Manners { tls, greeting: Some("* PREAUTH come in\r\n"), ..Default::default() };
    for manners in [injecting, open] {
        let upstream = FakeUpstream::with(manners).await;
        let mut settings = settings(&[upstream.address]);
        settings.imap.upstream.tls = ImapTls::Starttls;
        settings.imap.upstream.ca_file = Some(folder.path().join("cert.pem"));
        settings.imap.upstream.tls_name = Some("mail.example".parse().expect("a name"));
        let node = node(settings).await;
        plain(&node).await.expect("* BYE [UNAVAILABLE]").await;
    }
}

#[tokio::test]
async fn a_load_balancer_names_the_client_and_nobody_else_can() {
    let upstream = FakeUpstream::with(Manners { proxy_header: true, ..Default::default() }).await;
    let mut settings = settings(&[upstream.address]);
    settings.imap.upstream.proxy_protocol = ProxyHeader::V1;
    settings.imap.connections_per_address = 1;
    // The clients that are named here are not on this machine.
    settings.imap.plaintext_auth = PlaintextAuth::Always;
    let stranger = node(settings.clone()).await;
    settings.imap.proxy_protocol_from = vec!["127.0.0.0/8".parse().expect("a net")];
    let node = node(settings).await;

    let local = "127.0.0.1:143".parse().expect("an address");
    let mut inside = Vec::new();
    for (version, from) in [(ProxyHeader::V1, "192.0.2.1:1000"), (ProxyHeader::V2, "[2001:db8::1]:1000")] {
        let header = proxy_protocol::header(version, from.parse().expect("an address"), local);
        let mut client = plain(&node).await;
        // Byte by byte, and the first command at its heels: nothing of that is lost.
        for byte in &header {
            client.send([*byte]).await;
        }
        client.send("a LOGIN alice alice\r\n").await;
        client.expect("* OK").await;
        while !client.line().await.expect("an answer").starts_with("a OK") {}
        let mut second = plain(&node).await;
        second.send(&header).await;
        second.expect("* BYE [UNAVAILABLE] Too many connections from your address").await;
        inside.push(client);
    }
    let told = upstream.seen.lines();
    assert!(told.iter().any(|line| line.starts_with("PROXY TCP4 192.0.2.1 ")), "{told:?}");
    assert!(told.iter().any(|line| line.starts_with("PROXY TCP6 2001:db8::1 ")), "{told:?}");

    let mut rude = plain(&node).await;
    rude.send("a LOGIN alice alice\r\n").await;
    rude.expect("* BYE [UNAVAILABLE] A PROXY header was expected").await;
    rude.expect_end().await;
    let mut slow = plain(&node).await;
    slow.send("PROXY TCP4 ").await;
    slow.expect("* BYE [UNAVAILABLE] A PROXY header was expected").await;

    let mut liar = plain(&stranger).await;
    liar.expect("* OK").await;
    liar.send("PROXY TCP4 192.0.2.1 127.0.0.1 1000 143\r\n").await;
    let told = upstream.seen.lines();
    assert!(told.iter().any(|line| line.starts_with("PROXY TCP4 127.0.0.1 127.0.0.1 ")), "it is who it is: {told:?}");
}

#[tokio::test]
async fn whoever_does_not_fit_is_told_so() {
    let upstream = FakeUpstream::start().await;
    let mut few = settings(&[upstream.address]);
    few.imap.max_connections = 1;
    let few = node(few).await;
    let mut first = plain(&few).await;
    first.expect("* OK").await;
    let mut second = plain(&few).await;
    second.send("a LOGIN bob bob\r\n").await;
    second.expect("* BYE [UNAVAILABLE] The server has no connection to spare").await;
    second.expect_end().await;
    drop(first);
    let again = async || plain(&few).await.line().await.filter(|line| line.starts_with("* OK"));
    eventually("there is room again", PATIENCE, again).await;

    let mut strangers = settings(&[upstream.address]);
    strangers.imap.unauthenticated_connections = 1;
    let strangers = node(strangers).await;
    let mut first = plain(&strangers).await;
    first.expect("* OK").await;
    plain(&strangers).await.expect("* BYE [UNAVAILABLE] Too many connections are logging in").await;
}

#[tokio::test]
async fn a_node_that_drains_takes_nobody_in_and_waits_for_nobody_for_ever() {
    let upstream = FakeUpstream::start().await;
    let mut settings = settings(&[upstream.address]);
    settings.node.drain_deadline_ms = Millis(8_000);
    let node = node(settings).await;
    let address = node.imap().plain.expect("a port");
    let mut idle = connect(address).await;
    idle.expect("* OK").await;
    let began = Instant::now();
    node.drain(tokio_util::sync::CancellationToken::new()).await;
    assert!(began.elapsed() < Duration::from_secs(9), "{:?}", began.elapsed());
    while idle.line().await.is_some() {}
    assert!(TcpStream::connect(address).await.is_err());
}

#[tokio::test]
async fn who_shuts_its_own_side_still_gets_its_answers() {
    let upstream = FakeUpstream::start().await;
    let node = node(settings(&[upstream.address])).await;
    let mut client = plain(&node).await;
    client.log_in().await;
    client.send("b NOOP\r\nc FETCH 1000\r\n").await;
    client.0.get_mut().shutdown().await.expect("half a close");
    let mut rest = Vec::new();
    let read = tokio::time::timeout(PATIENCE, client.0.read_to_end(&mut rest)).await;
    read.expect("an end").expect("a clean one");
    assert!(rest.ends_with(b"c OK done\r\n"), "{}", rest.escape_ascii());
    let ended = async || (upstream.seen.ended.load(std::sync::atomic::Ordering::Acquire) == 1).then_some(());
    eventually("the server is let go too", PATIENCE, ended).await;
}

/// All that is said to a client that sends these bytes at once and shuts its side.
async fn answers_to(address: SocketAddr, script: &str) -> String {
    said_after(TcpStream::connect(address).await.expect("a connection"), script).await
}

async fn said_after(mut stream: impl AsyncRead + AsyncWrite + Unpin, script: &str) -> String {
    stream.write_all(script.as_bytes()).await.expect("send");
    stream.shutdown().await.expect("half a close");
    let mut said = Vec::new();
    let read = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut said)).await.expect("an end in time");
    read.expect("a clean end");
    String::from_utf8_lossy(&said).into_owned()
}

/// The tags of the commands in a script, in order; DONE, literals and lines of a SASL exchange have none.
fn answered(said: &str) -> Vec<&str> {
    said.lines()
        .filter_map(|line| line.split_once(" OK").map(|(tag, _)| tag))
        .filter(|tag| tag.len() == 1 && *tag != "*")
        .collect()
}

#[tokio::test]
async fn what_waits_behind_a_login_or_an_idle_is_answered_though_the_client_has_shut_its_side() {
    let fake = FakeUpstream::start().await;
    let before_fake = node(settings(&[fake.address])).await;
    let liar = Liar::start(|_, _, _| None).await;
    let before_liar = node(settings(&[liar.address])).await;
    let scripts = [
        (&before_fake, "a LOGIN alice alice\r\nb SELECT INBOX\r\nc LOGOUT\r\n", "abc"),
        (&before_fake, "a LOGIN {5}\r\nalice {5}\r\nalice\r\nb SELECT INBOX\r\nc LOGOUT\r\n", "abc"),
        (&before_fake, "a AUTHENTICATE PLAIN\r\nAGFsaWNlAGFsaWNl\r\nb SELECT INBOX\r\nc LOGOUT\r\n", "abc"),
        (&before_fake, "a LOGIN alice alice\r\n", "a"),
        (&before_liar, "a LOGIN alice pw\r\nb SELECT INBOX\r\nc IDLE\r\nDONE\r\nd NOOP\r\ne LOGOUT\r\n", "abcde"),
        (&before_liar, "a LOGIN alice pw\r\nb SELECT INBOX\r\nc IDLE\r\nDONE\r\n", "abc"),
        (&before_liar, "a LOGIN alice pw\r\nb SELECT INBOX\r\nc IDLE\r\n", "ab"),
    ];
    for (node, script, tags) in scripts {
        let said = answers_to(node.imap().plain.expect("a port"), script).await;
        assert_eq!(answered(&said).concat(), tags, "{script:?} came to {said:?}");
        assert_eq!(said.contains("\r\n+ idling\r\n"), script.contains("IDLE"), "{script:?} came to {said:?}");
    }
}

#[tokio::test]
async fn who_shuts_its_side_of_tls_with_or_without_a_word_gets_its_answers() {
    let folder = tempfile::tempdir().expect("a folder");
    let connector = certificate(folder.path(), "one.example");
    let upstream = FakeUpstream::start().await;
    let mut settings = settings(&[upstream.address]);
    settings.imap.listen_tls = LOOPBACK.parse().ok();
    with_certificate(&mut settings, folder.path());
    let node = node(settings).await;
    let script = "a LOGIN alice alice\r\nb SELECT INBOX\r\nc LOGOUT\r\n";
    let tcp = || TcpStream::connect(node.imap().tls.expect("a port for TLS"));

    let stream = encrypt(&connector, tcp().await.expect("a connection"), "one.example").await.expect("TLS");
    let said = said_after(stream, script).await;
    assert_eq!(answered(&said).concat(), "abc", "with a close_notify: {said:?}");

    let mut stream = encrypt(&connector, tcp().await.expect("a connection"), "one.example").await.expect("TLS");
    stream.write_all(script.as_bytes()).await.expect("send");
    stream.flush().await.expect("send");
    stream.get_mut().0.shutdown().await.expect("half a close");
    let mut said = String::new();
    let read = tokio::time::timeout(PATIENCE, stream.read_to_string(&mut said)).await.expect("an end in time");
    read.expect("a clean end");
    assert_eq!(answered(&said).concat(), "abc", "without one: {said:?}");

    let mut plain = plain(&node).await;
    plain.send("a STARTTLS\r\n").await;
    plain.expect("* OK").await;
    plain.expect("a OK").await;
    let stream = encrypt(&connector, plain.0.into_inner(), "one.example").await.expect("TLS");
    let said = said_after(stream, script).await;
    assert_eq!(answered(&said).concat(), "abc", "behind STARTTLS: {said:?}");
}

#[tokio::test]
async fn a_server_that_takes_its_time_still_answers_who_has_shut_its_side() {
    // Longer than a client without open commands is waited for.
    let upstream = Liar::start(|_, _, line| {
        line.ends_with("NOOP").then(|| vec![Deed::Wait(Duration::from_secs(7)), Deed::Say("TAG OK done\r\n".to_owned())])
    })
    .await;
    let node = node(settings(&[upstream.address])).await;
    let said = answers_to(node.imap().plain.expect("a port"), "a LOGIN alice pw\r\nb NOOP\r\nc LOGOUT\r\n").await;
    assert_eq!(answered(&said).concat(), "abc", "{said:?}");
}

#[tokio::test]
async fn who_ends_a_parked_idle_and_shuts_its_side_gets_its_answers() {
    let upstream = Liar::start(|_, _, _| None).await;
    let mut settings = settings(&[upstream.address]);
    (settings.imap.park, settings.imap.park_after_ms) = (Park::Credentials, Millis(100));
    settings.registry.settle_ms = Millis(100);
    let node = node(settings).await;
    let mut client = plain(&node).await;
    client.send("a LOGIN alice pw\r\nb SELECT INBOX\r\nc IDLE\r\n").await;
    while !client.line().await.expect("a line").starts_with("+ idling") {}
    let parked = async || (node.gateway().metrics.imap_parked.get() == 1).then_some(());
    eventually("it is parked", PATIENCE, parked).await;
    let said = said_after(client.0.into_inner(), "DONE\r\nd FETCH 1 UID\r\ne LOGOUT\r\n").await;
    assert_eq!(answered(&said).concat(), "cde", "{said:?}");
}

#[tokio::test]
async fn a_server_that_goes_takes_its_client_along() {
    let upstream = FakeUpstream::start().await;
    let node = node(settings(&[upstream.address])).await;
    let mut client = plain(&node).await;
    client.log_in().await;
    assert!(client.command("b LOGOUT").await.starts_with("b OK"));
    client.expect_end().await;
}

#[tokio::test]
async fn who_does_not_read_stops_the_server_and_is_given_up() {
    const ALL: u64 = 200 << 20;
    let upstream = FakeUpstream::start().await;
    let mut settings = settings(&[upstream.address]);
    settings.sessions.slow_client_timeout_ms = Millis(2_000);
    let node = node(settings).await;
    let mut client = plain(&node).await;
    client.log_in().await;
    client.send(format!("b FETCH {ALL}\r\n")).await;
    let ended = async || (upstream.seen.ended.load(std::sync::atomic::Ordering::Acquire) == 1).then_some(());
    eventually("it is given up", PATIENCE, ended).await;
    let sent = upstream.seen.sent.load(std::sync::atomic::Ordering::Acquire);
    // What the kernel's own buffers hold on two connections, and little more.
    assert!(sent < 32 << 20, "{sent} bytes were taken from the server");
}

/// The most memory that this process has held.
fn peak_memory() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("the process's status");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("the peak");
    line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") * 1024
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_literals_pass_both_ways_in_little_memory() {
    if !alone(module_path!(), "large_literals_pass_both_ways_in_little_memory").await {
        return;
    }
    const LENGTH: u64 = 100 << 20;
    let upstream = FakeUpstream::start().await;
    let node = node(settings(&[upstream.address])).await;
    let mut client = plain(&node).await;
    client.log_in().await;
    let before = peak_memory();

    client.send(format!("b FETCH {LENGTH}\r\n")).await;
    client.expect("* 1 FETCH").await;
    let mut bytes = vec![0; 64 * 1024];
    let mut at = 0;
    while at < LENGTH {
        let most = bytes.len().min((LENGTH - at) as usize);
        let read = client.0.read(&mut bytes[..most]).await.expect("more");
        assert!(read > 0, "the end at byte {at}");
        assert!(bytes[..read] == pattern(at)[..read], "the bytes behind {at}");
        at += read as u64;
    }
    client.expect(")").await;
    client.expect("b OK").await;

    client.send(format!("c APPEND x {{{LENGTH}+}}\r\n")).await;
    let mut at = 0;
    while at < LENGTH {
        let chunk = &pattern(at)[..(LENGTH - at).min(64 * 1024) as usize];
        client.send(chunk).await;
        at += chunk.len() as u64;
    }
    client.send("\r\n").await;
    client.expect(&format!("c OK took {LENGTH}")).await;
    let grown = peak_memory() - before;
    assert!(grown < 48 << 20, "{grown} bytes more than before");
}

#[tokio::test]
async fn what_is_sent_before_tls_is_not_read_as_after_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let connector = certificate(folder.path(), "one.example");
    let upstream = FakeUpstream::start().await;
    let mut settings = settings(&[upstream.address]);
    with_certificate(&mut settings, folder.path());
    let node = node(settings).await;
    let mut client = plain(&node).await;
    assert!(client.expect("* OK").await.contains("STARTTLS"), "it is offered");
    client.send("a STARTTLS\r\nb LOGIN eve eve\r\n").await;
    client.expect("a OK").await;
    let mut client = Client::new(encrypt(&connector, client.0.into_inner(), "one.example").await.expect("TLS"));
    assert!(client.command("c LOGIN alice alice").await.starts_with("c OK"));
    assert!(client.command("d STARTTLS").await.starts_with("d BAD"), "once is enough");
    let told = upstream.seen.lines();
    assert!(!told.iter().any(|line| line.contains("eve") || line.contains("STARTTLS")), "{told:?}");
}

#[tokio::test]
async fn who_does_not_log_in_in_time_is_sent_away() {
    let upstream = FakeUpstream::start().await;
    let mut settings = settings(&[upstream.address]);
    settings.imap.login_deadline_ms = Millis(300);
    let node = node(settings).await;
    let mut silent = plain(&node).await;
    let mut quick = plain(&node).await;
    quick.log_in().await;
    silent.expect("* OK").await;
    silent.expect("* BYE").await;
    silent.expect_end().await;
    assert_eq!(quick.command("b NOOP").await, "b OK done", "who has logged in stays");
}

#[tokio::test]
async fn a_user_has_so_many_connections_and_each_can_be_ended() {
    let upstream = FakeUpstream::start().await;
    let mut settings = settings(&[upstream.address]);
    settings.imap.connections_per_user = 1;
    settings.auth.default_domain = "example.org".to_owned();
    let node = node(settings).await;
    let mut first = plain(&node).await;
    first.log_in().await;
    assert_eq!(first.command("b NOOP").await, "b OK done");
    let sessions = node.gateway().sessions.all();
    let [session] = &sessions[..] else { panic!("{} sessions", sessions.len()) };
    assert_eq!((session.user().as_str(), session.transport), ("alice@example.org", Transport::Imap));

    let mut second = plain(&node).await;
    second.expect("* OK").await;
    second.send("a LOGIN Alice@Example.org alice\r\n").await;
    let mut told = Vec::new();
    while let Some(line) = second.line().await {
        told.push(line);
    }
    assert!(told.iter().any(|line| line.starts_with("* BYE") && line.contains("Too many connections of this user")), "{told:?}");

    session.end(End::Ended);
    first.expect("* BYE").await;
    first.expect_end().await;
    let gone = async || node.gateway().sessions.is_empty().then_some(());
    eventually("its place is free", PATIENCE, gone).await;
    plain(&node).await.log_in().await;
}

#[tokio::test]
async fn a_drain_says_goodbye_to_everybody() {
    let upstream = FakeUpstream::start().await;
    let node = node(settings(&[upstream.address])).await;
    let (mut stranger, mut user) = (plain(&node).await, plain(&node).await);
    user.log_in().await;
    assert_eq!(user.command("b NOOP").await, "b OK done");
    stranger.expect("* OK").await;
    let began = Instant::now();
    node.drain(tokio_util::sync::CancellationToken::new()).await;
    assert!(began.elapsed() < PATIENCE / 2, "nobody is waited for who has been told: {:?}", began.elapsed());
    for mut client in [stranger, user] {
        client.expect("* BYE").await;
        client.expect_end().await;
    }
}
