//! The mail servers: which is asked next, and how a connection to it begins.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio_rustls::{TlsConnector, TlsStream};
use tracing::{info, warn};

use super::proxy_protocol;
use super::stream::{Stream, tune};
use crate::config::{HostPort, ImapTls, ProxyHeader, UpstreamSettings};
use crate::http::files;
use crate::lock::{Mutex, MutexGuard};
use crate::push::metrics::Metrics;
use crate::tls::{TlsError, client_config};

/// How long a server that failed is set aside: first, and at most. It doubles in between.
const ASIDE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));
/// Connections taken up again at one server at a time: a login is work.
const RECONNECTS: usize = 32;
/// The longest line before a login that is read.
const LINE: usize = 8 * 1024;
const STARTTLS: &[u8] = b"S1 STARTTLS\r\n";
const NOOP: &[u8] = b"P1 NOOP\r\n";

/// All mail servers behind the door.
pub struct Upstreams {
    targets: Vec<Target>,
    turn: AtomicUsize,
    tls: Option<TlsConnector>,
    mode: ImapTls,
    timeout: Duration,
    proxy_header: ProxyHeader,
    metrics: Arc<Metrics>,
}

struct Target {
    /// `host:port`.
    address: String,
    name: ServerName<'static>,
    health: Mutex<Health>,
    reconnects: Semaphore,
}

/// How a server has been doing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Health {
    /// In a row.
    failures: u32,
    /// Set aside until then.
    until: Option<Instant>,
}

/// No mail server took the connection.
#[derive(Debug, thiserror::Error)]
#[error("no mail server can be reached: {0}")]
pub struct Unreachable(String);

/// Why one server did not.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("did not greet in time")]
    TimedOut,
    #[error("is busy with connections taken up again")]
    Busy,
    /// Ours, not the server's.
    #[error("cannot be connected to: no open files left")]
    NoFiles,
    #[error("greeted with {0:?}")]
    Greeting(String),
    #[error("greeted with PREAUTH: nothing can be encrypted any more (RFC 9051 11.1)")]
    Preauth,
    #[error("refused STARTTLS: {0:?}")]
    Starttls(String),
    #[error("sent something behind its answer to STARTTLS, unencrypted")]
    Injected,
    #[error("sent a line that is too long")]
    TooLong,
    #[error("does not expect a PROXY header, it answered {0:?}: set imap.upstream.proxy_protocol to none, or let it expect one")]
    Header(String),
}

/// A connection to a mail server, and what it has said so far: its greeting.
pub type Connected = (Stream, Vec<u8>);

impl Health {
    fn failed(&mut self, now: Instant) {
        let (first, most) = ASIDE;
        let pause = first.saturating_mul(1 << self.failures.min(16)).min(most);
        *self = Self { failures: self.failures.saturating_add(1), until: Some(now + pause) };
    }

    fn is_aside(&self, now: Instant) -> bool {
        self.until.is_some_and(|until| until > now)
    }
}

/// Whom to ask, in order: those not set aside, in turn; or else the one that has been aside
/// longest, for one that may work is better than none.
fn order(healths: &[Health], turn: usize, now: Instant) -> Vec<usize> {
    let count = healths.len();
    let in_turn = (0..count).map(|n| (turn.wrapping_add(n)) % count);
    let fit: Vec<usize> = in_turn.filter(|index| !healths[*index].is_aside(now)).collect();
    if !fit.is_empty() {
        return fit;
    }
    (0..count).min_by_key(|index| healths[*index].until).into_iter().collect()
}

impl Upstreams {
    pub fn new(settings: &UpstreamSettings, metrics: Arc<Metrics>) -> Result<Self, TlsError> {
        let tls = match settings.tls {
            ImapTls::None => None,
            ImapTls::Starttls | ImapTls::Tls => Some(client_config(settings.ca_file.as_deref())?.into()),
        };
        let target = |address: &HostPort| {
            let name = match &settings.tls_name {
                Some(name) => Ok(name.server_name()),
                None => ServerName::try_from(address.host().to_owned()),
            };
            let name = name.map_err(|_| TlsError::Setup(format!("{address} is not a server's address")))?;
            let (health, reconnects) = (Mutex::default(), Semaphore::new(RECONNECTS));
            Ok(Target { address: address.to_string(), name, health, reconnects })
        };
        Ok(Self {
            targets: settings.addresses.iter().map(target).collect::<Result<_, _>>()?,
            turn: AtomicUsize::new(0),
            tls,
            mode: settings.tls,
            timeout: settings.connect_timeout_ms.duration(),
            proxy_header: settings.proxy_protocol,
            metrics,
        })
    }

    /// Connects to a server that is well, TLS included, on behalf of `client`. `again`: a
    /// connection that is taken up again, of which each server is given few at a time.
    pub async fn connect(&self, client: SocketAddr, again: bool) -> Result<Connected, Unreachable> {
        let healths: Vec<Health> = self.targets.iter().map(|target| *target.lock()).collect();
        let order = order(&healths, self.turn.fetch_add(1, Ordering::Relaxed), Instant::now());
        let mut problems = Vec::new();
        for target in order.into_iter().filter_map(|index| self.targets.get(index)) {
            if !target.claim(Instant::now(), self.timeout) {
                continue;
            }
            let attempt = tokio::time::timeout(self.timeout, Box::pin(self.begin(target, client, again)));
            match attempt.await.unwrap_or(Err(Failure::TimedOut)) {
                Ok(connected) => {
                    target.succeeded();
                    Metrics::count(&self.metrics.imap_upstream, "outcome", if again { "reconnected" } else { "connected" });
                    return Ok(connected);
                }
                Err(failure) => {
                    Metrics::count(&self.metrics.imap_upstream, "outcome", "failed");
                    if !matches!(failure, Failure::NoFiles) {
                        target.failed(&failure);
                    }
                    problems.push(format!("{} {failure}", target.address));
                }
            }
        }
        Err(Unreachable(if problems.is_empty() { "all are set aside".to_owned() } else { problems.join("; ") }))
    }

    /// The same on behalf of the gateway itself.
    pub async fn connect_for_nobody(&self) -> Result<Connected, Unreachable> {
        self.connect(SocketAddr::from(([127, 0, 0, 1], 0)), false).await
    }

    /// Whether a server greets, and takes the PROXY header if it is sent one: a server that does
    /// not expect it greets, and answers the header with BAD.
    pub async fn probe(&self) -> Result<(), Unreachable> {
        let (stream, said) = self.connect_for_nobody().await?;
        if self.proxy_header == ProxyHeader::None {
            return Ok(());
        }
        let asked = tokio::time::timeout(self.timeout, takes_header(stream, said)).await;
        asked.unwrap_or(Err(Failure::TimedOut)).map_err(|failure| Unreachable(failure.to_string()))
    }

    /// The servers that are not set aside, and all.
    pub fn well(&self) -> (usize, usize) {
        let now = Instant::now();
        (self.targets.iter().filter(|target| !target.lock().is_aside(now)).count(), self.targets.len())
    }

    async fn begin(&self, target: &Target, client: SocketAddr, again: bool) -> Result<Connected, Failure> {
        let _turn = match again {
            true => Some(target.reconnects.acquire().await.map_err(|_| Failure::Busy)?),
            false => None,
        };
        let connected = TcpStream::connect(&target.address).await;
        let mut tcp = match connected {
            Err(error) if files::is_exhausted(&error) => return Err(Failure::NoFiles),
            connected => connected?,
        };
        // The last ones are for the sessions that are there.
        if !again && files::is_scarce(&tcp) {
            return Err(Failure::NoFiles);
        }
        tune(&tcp)?;
        let header = proxy_protocol::header(self.proxy_header, client, tcp.local_addr()?);
        tcp.write_all(&header).await?;
        let mut stream = match (&self.tls, self.mode) {
            (Some(tls), ImapTls::Starttls) => {
                let greeting = starttls(&mut tcp).await?;
                let stream = tls.connect(target.name.clone(), tcp).await?;
                // No second greeting comes (RFC 9051 6.2.1); what the first one said of
                // capabilities is not to be trusted.
                return Ok((Stream::Tls(Box::new(TlsStream::Client(stream))), without_capabilities(&greeting)));
            }
            (Some(tls), _) => Stream::Tls(Box::new(TlsStream::Client(tls.connect(target.name.clone(), tcp).await?))),
            (None, _) => Stream::Plain(tcp),
        };
        let mut said = Vec::new();
        let length = line(&mut stream, &mut said).await?;
        match status(&said[..length]) {
            Some(Status::Ok | Status::Preauth) => Ok((stream, said)),
            _ => Err(Failure::Greeting(words(&said[..length]))),
        }
    }
}

impl Target {
    fn lock(&self) -> MutexGuard<'_, Health> {
        self.health.lock()
    }

    /// Whether to try this one now. Of those who find one that was set aside due again, the first
    /// tries it for all.
    fn claim(&self, now: Instant, attempt: Duration) -> bool {
        let mut health = self.lock();
        let due = !health.is_aside(now);
        if health.failures > 0 && due {
            health.until = Some(now + attempt);
        }
        due || health.failures > 0
    }

    fn succeeded(&self) {
        let was = std::mem::take(&mut *self.lock());
        if was.failures > 0 {
            info!(server = self.address, "the mail server answers again");
        }
    }

    fn failed(&self, failure: &Failure) {
        let mut health = self.lock();
        health.failed(Instant::now());
        if health.failures == 1 {
            warn!(server = self.address, %failure, "the mail server is set aside for a while");
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Status {
    Ok,
    Preauth,
    Other,
}

/// What kind of greeting a line is (RFC 9051 7.1).
fn status(line: &[u8]) -> Option<Status> {
    let word = line.strip_prefix(b"* ")?.split(|b| b" \r\n".contains(b)).next()?;
    Some(match word {
        word if word.eq_ignore_ascii_case(b"OK") => Status::Ok,
        word if word.eq_ignore_ascii_case(b"PREAUTH") => Status::Preauth,
        _ => Status::Other,
    })
}

/// A line of a server's, fit for a log.
fn words(line: &[u8]) -> String {
    String::from_utf8_lossy(line).trim_end().chars().take(200).collect()
}

/// Reads until a whole line is there, which may not be all that is read; returns its length.
async fn line(stream: &mut (impl AsyncRead + Unpin), said: &mut Vec<u8>) -> Result<usize, Failure> {
    loop {
        if let Some(end) = memchr::memchr(b'\n', said) {
            return Ok(end + 1);
        }
        if said.len() > LINE {
            return Err(Failure::TooLong);
        }
        if stream.read_buf(said).await? == 0 {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        }
    }
}

/// STARTTLS as a client (RFC 9051 6.2.1); returns the greeting. Whatever else came unencrypted is
/// refused: behind it TLS would begin with somebody else's words.
async fn starttls(tcp: &mut TcpStream) -> Result<Vec<u8>, Failure> {
    let mut said = Vec::new();
    let length = line(tcp, &mut said).await?;
    match status(&said[..length]) {
        Some(Status::Ok) => {}
        Some(Status::Preauth) => return Err(Failure::Preauth),
        _ => return Err(Failure::Greeting(words(&said[..length]))),
    }
    let mut rest = said.split_off(length);
    tcp.write_all(STARTTLS).await?;
    loop {
        let length = line(tcp, &mut rest).await?;
        let behind = rest.split_off(length);
        if let Some(answer) = rest.strip_prefix(b"S1 ") {
            if !answer.get(..2).is_some_and(|word| word.eq_ignore_ascii_case(b"OK")) {
                return Err(Failure::Starttls(words(&rest)));
            }
            return if behind.is_empty() { Ok(said) } else { Err(Failure::Injected) };
        }
        rest = behind;
    }
}

/// Asks NOOP behind the PROXY header and the greeting, which is in `said`: only its answer and
/// untagged data may come.
async fn takes_header(mut stream: Stream, mut said: Vec<u8>) -> Result<(), Failure> {
    stream.write_all(NOOP).await?;
    loop {
        let length = line(&mut stream, &mut said).await?;
        let rest = said.split_off(length);
        let is_refusal =
            said.get(..5).is_some_and(|word| word.eq_ignore_ascii_case(b"* BAD") || word.eq_ignore_ascii_case(b"* BYE"));
        match said.strip_prefix(b"P1 ") {
            Some(answer) if answer.get(..2).is_some_and(|word| word.eq_ignore_ascii_case(b"OK")) => return Ok(()),
            None if said.starts_with(b"* ") && !is_refusal => {}
            _ => return Err(Failure::Header(words(&said))),
        }
        said = rest;
    }
}

/// The greeting without its capability code: what it listed held before TLS.
fn without_capabilities(greeting: &[u8]) -> Vec<u8> {
    const CODE: &[u8] = b"* OK [CAPABILITY";
    let has_code = greeting.get(..CODE.len()).is_some_and(|beginning| beginning.eq_ignore_ascii_case(CODE));
    if !has_code {
        return greeting.to_vec();
    }
    let text = memchr::memchr(b']', greeting).map_or(&b""[..], |end| &greeting[end + 1..]).trim_ascii();
    let text: &[u8] = if text.is_empty() { b"ready" } else { text };
    [&b"* OK "[..], text, &b"\r\n"[..]].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_take_turns_and_failed_ones_are_set_aside_ever_longer() {
        let now = Instant::now();
        let mut healths = [Health::default(); 3];
        assert_eq!(order(&healths, 0, now), [0, 1, 2]);
        assert_eq!(order(&healths, 4, now), [1, 2, 0]);
        healths[1].failed(now);
        assert_eq!(order(&healths, 1, now), [2, 0]);
        assert_eq!(order(&healths, 1, now + ASIDE.0), [1, 2, 0], "it is due again");
        healths[1].failed(now);
        assert!(healths[1].is_aside(now + ASIDE.0), "the second time for longer");
        for _ in 0..100 {
            healths[1].failed(now);
        }
        assert!(!healths[1].is_aside(now + ASIDE.1), "but not for ever");
        healths[0].failed(now);
        healths[2].failed(now + Duration::from_millis(1));
        assert_eq!(order(&healths, 2, now), [0], "all are aside: the one that is due first");
        assert_eq!(order(&[], 2, now), [0; 0]);
    }

    #[test]
    fn of_many_that_find_a_server_due_again_one_tries() {
        let health = Mutex::new(Health::default());
        let name = ServerName::try_from("localhost").unwrap();
        let target = Target { address: String::new(), name, health, reconnects: Semaphore::new(1) };
        let now = Instant::now();
        assert!(target.claim(now, ASIDE.0) && !target.lock().is_aside(now), "a good one is there for all");
        target.lock().failed(now);
        let due = now + ASIDE.0;
        assert!(target.claim(due, ASIDE.0));
        assert_eq!(order(&[*target.lock(), Health::default()], 0, due), [1], "others go elsewhere meanwhile");
        target.succeeded();
        assert_eq!(*target.lock(), Health::default());
    }

    #[test]
    fn a_greeting_loses_what_it_said_of_capabilities() {
        let cases: [(&[u8], &[u8]); 5] = [
            (b"* OK [CAPABILITY IMAP4rev1 LOGINDISABLED] Dovecot ready.\r\n", b"* OK Dovecot ready.\r\n"),
            (b"* ok [capability IMAP4rev1]\r\n", b"* OK ready\r\n"),
            (b"* OK [CAPABILITY IMAP4rev1\r\n", b"* OK ready\r\n"),
            (b"* OK [ALERT] hello\r\n", b"* OK [ALERT] hello\r\n"),
            (b"* OK hello\r\n", b"* OK hello\r\n"),
        ];
        for (greeting, left) in cases {
            assert_eq!(without_capabilities(greeting), left, "{}", words(greeting));
        }
        assert_eq!(status(b"* Preauth hello\r\n"), Some(Status::Preauth));
        assert_eq!(status(b"* BYE\r\n"), Some(Status::Other));
        assert_eq!(status(b"HTTP/1.1 400\r\n"), None);
    }
}
