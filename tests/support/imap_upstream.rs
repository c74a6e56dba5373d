//! A scripted mail server: says OK to everything, and can send and take literals of any size.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_util::task::AbortOnDropHandle;

/// How it speaks before a login.
#[derive(Clone, Default)]
pub struct Manners {
    /// Expects a PROXY header of version 1 first.
    pub proxy_header: bool,
    /// Encrypts, from the start or after STARTTLS.
    pub tls: Option<(TlsAcceptor, bool)>,
    /// Sends this behind its answer to STARTTLS, unencrypted.
    pub injects: &'static str,
    pub greeting: Option<&'static str>,
}

#[derive(Default)]
pub struct Seen {
    pub connections: AtomicUsize,
    /// Bytes of literals that it could send.
    pub sent: AtomicU64,
    /// Bytes of literals that it took.
    pub taken: AtomicU64,
    pub lines: std::sync::Mutex<Vec<String>>,
    /// Of connections that have ended.
    pub ended: AtomicUsize,
}

impl Seen {
    pub fn lines(&self) -> Vec<String> {
        self.lines.lock().expect("the lines").clone()
    }
}

pub struct FakeUpstream {
    pub address: SocketAddr,
    pub seen: Arc<Seen>,
    greets: Arc<AtomicBool>,
    _task: AbortOnDropHandle<()>,
}

impl FakeUpstream {
    pub async fn start() -> Self {
        Self::with(Manners::default()).await
    }

    pub async fn with(manners: Manners) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("its address");
        let seen = Arc::new(Seen::default());
        let greets = Arc::new(AtomicBool::new(true));
        let task = tokio::spawn(accept(listener, manners, seen.clone(), greets.clone()));
        Self { address, seen, greets, _task: AbortOnDropHandle::new(task) }
    }

    /// One that takes connections and never says a word, until it is told to.
    pub async fn silent() -> Self {
        let upstream = Self::start().await;
        upstream.greets.store(false, Ordering::Release);
        upstream
    }

    pub fn recover(&self) {
        self.greets.store(true, Ordering::Release);
    }

    pub fn connections(&self) -> usize {
        self.seen.connections.load(Ordering::Acquire)
    }
}

async fn accept(listener: TcpListener, manners: Manners, seen: Arc<Seen>, greets: Arc<AtomicBool>) {
    loop {
        let (stream, _) = listener.accept().await.expect("a connection");
        seen.connections.fetch_add(1, Ordering::AcqRel);
        let (manners, seen, greets) = (manners.clone(), seen.clone(), greets.load(Ordering::Acquire));
        tokio::spawn(async move {
            if greets {
                let _ = serve(stream, manners, &seen).await;
            } else {
                let mut silent = BufReader::new(stream);
                let _ = silent.read_until(0, &mut Vec::new()).await;
            }
            seen.ended.fetch_add(1, Ordering::AcqRel);
        });
    }
}

async fn serve(mut stream: TcpStream, manners: Manners, seen: &Seen) -> std::io::Result<()> {
    if manners.proxy_header {
        let mut header = Vec::new();
        while !header.ends_with(b"\r\n") {
            header.push(stream.read_u8().await?);
        }
        note(seen, &header);
    }
    let greeting = manners.greeting.unwrap_or("* OK [CAPABILITY IMAP4rev1 IDLE] ready\r\n");
    match manners.tls {
        None => {
            stream.write_all(greeting.as_bytes()).await?;
            talk(stream, seen).await
        }
        Some((acceptor, false)) => {
            let mut stream = acceptor.accept(stream).await?;
            stream.write_all(greeting.as_bytes()).await?;
            talk(stream, seen).await
        }
        Some((acceptor, true)) => {
            stream.write_all(greeting.as_bytes()).await?;
            let mut line = Vec::new();
            while !line.ends_with(b"\r\n") {
                line.push(stream.read_u8().await?);
            }
            note(seen, &line);
            let tag = String::from_utf8_lossy(&line).split(' ').next().unwrap_or_default().to_owned();
            stream.write_all(format!("{tag} OK begin\r\n{}", manners.injects).as_bytes()).await?;
            talk(acceptor.accept(stream).await?, seen).await
        }
    }
}

fn note(seen: &Seen, line: &[u8]) {
    seen.lines.lock().expect("the lines").push(String::from_utf8_lossy(line).trim_end().to_owned());
}

/// What stands in every literal from a place on, 64 KiB of it: what is moved or lost is seen.
pub fn pattern(at: u64) -> &'static [u8] {
    const PERIOD: usize = 251;
    static BYTES: OnceLock<Vec<u8>> = OnceLock::new();
    let bytes = BYTES.get_or_init(|| (0..64 * 1024 + PERIOD).map(|n| (n % PERIOD) as u8).collect());
    let from = (at % PERIOD as u64) as usize;
    &bytes[from..from + 64 * 1024]
}

async fn talk(stream: impl AsyncRead + AsyncWrite + Unpin, seen: &Seen) -> std::io::Result<()> {
    let mut stream = BufReader::with_capacity(64 * 1024, stream);
    loop {
        let mut line = Vec::new();
        if stream.read_until(b'\n', &mut line).await? == 0 {
            return Ok(());
        }
        note(seen, &line);
        let text = String::from_utf8_lossy(&line).trim_end().to_owned();
        let mut words = text.split(' ');
        let (tag, command) = (words.next().unwrap_or_default(), words.next().unwrap_or_default().to_ascii_uppercase());
        let number = text.rsplit_once('{').and_then(|(_, n)| n.trim_end_matches(['}', '+']).parse::<u64>().ok());
        match (command.as_str(), number) {
            ("LOGIN", Some(length)) => {
                // A login's literals follow one by one, each once it is asked for.
                let mut left = Some(length);
                while let Some(length) = left {
                    stream.write_all(b"+ go on\r\n").await?;
                    stream.flush().await?;
                    let mut literal = vec![0; length as usize];
                    stream.read_exact(&mut literal).await?;
                    let mut rest = String::new();
                    stream.read_line(&mut rest).await?;
                    left = rest.trim_end().strip_suffix('}').and_then(|rest| rest.rsplit_once('{')?.1.parse().ok());
                }
                stream.write_all(format!("{tag} OK done\r\n").as_bytes()).await?;
            }
            ("AUTHENTICATE", _) if words.next() == Some("PLAIN") && words.next().is_none() => {
                stream.write_all(b"+ \r\n").await?;
                stream.flush().await?;
                stream.read_until(b'\n', &mut Vec::new()).await?;
                stream.write_all(format!("{tag} OK done\r\n").as_bytes()).await?;
            }
            ("APPEND", Some(length)) => {
                let mut bytes = vec![0; 64 * 1024];
                let mut at = 0;
                while at < length {
                    let most = bytes.len().min((length - at) as usize);
                    let read = stream.read(&mut bytes[..most]).await?;
                    if read == 0 {
                        return Ok(());
                    }
                    assert!(bytes[..read] == pattern(at)[..read], "the literal behind byte {at}");
                    at += read as u64;
                    seen.taken.store(at, Ordering::Release);
                }
                let mut end = Vec::new();
                stream.read_until(b'\n', &mut end).await?;
                stream.write_all(format!("{tag} OK took {length}\r\n").as_bytes()).await?;
            }
            ("FETCH", _) => {
                let length: u64 = words.next().and_then(|n| n.parse().ok()).unwrap_or(0);
                stream.write_all(format!("* 1 FETCH (BODY[] {{{length}}}\r\n").as_bytes()).await?;
                let mut at = 0;
                while at < length {
                    let chunk = &pattern(at)[..(length - at).min(64 * 1024) as usize];
                    stream.write_all(chunk).await?;
                    at += chunk.len() as u64;
                    seen.sent.store(at, Ordering::Release);
                }
                stream.write_all(format!(")\r\n{tag} OK done\r\n").as_bytes()).await?;
            }
            ("CAPABILITY", _) => {
                stream.write_all(format!("* CAPABILITY IMAP4rev1 IDLE\r\n{tag} OK done\r\n").as_bytes()).await?;
            }
            ("NAMESPACE", _) => {
                stream.write_all(format!("* NAMESPACE ((\"\" \"/\")) NIL NIL\r\n{tag} OK done\r\n").as_bytes()).await?;
            }
            ("LOGOUT", _) => {
                stream.write_all(format!("* BYE\r\n{tag} OK done\r\n").as_bytes()).await?;
                return stream.shutdown().await;
            }
            _ => stream.write_all(format!("{tag} OK done\r\n").as_bytes()).await?,
        }
        stream.flush().await?;
    }
}

/// What a [`Liar`] does in answer to a line.
#[derive(Debug, Clone)]
pub enum Deed {
    Say(String),
    /// Says nothing for so long, and then goes on.
    Wait(std::time::Duration),
    /// This over and over, until nobody takes it any more or so much is sent.
    Flood(&'static [u8], u64),
    /// Never says anything again.
    Hang,
    Close,
}

/// What a [`Liar`] is told: the number of the user's connection (from 1), and the line, without its end. `None`: it does
/// as an honest server would.
pub type Lies = fn(user: &str, connection: usize, line: &str) -> Option<Vec<Deed>>;

/// A mail server with three messages, UIDs 1 to 3, that does not always say so. Who logs in decides what it lies about.
pub struct Liar {
    pub address: SocketAddr,
    pub seen: Arc<Seen>,
    _task: AbortOnDropHandle<()>,
}

impl Liar {
    pub async fn start(lies: Lies) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("its address");
        let seen = Arc::new(Seen::default());
        let all = seen.clone();
        let task = tokio::spawn(async move {
            let users = Arc::new(std::sync::Mutex::new(Vec::<String>::new()));
            loop {
                let (stream, _) = listener.accept().await.expect("a connection");
                let (users, seen) = (users.clone(), all.clone());
                seen.connections.fetch_add(1, Ordering::AcqRel);
                tokio::spawn(async move {
                    let _ = lie(stream, lies, &users, &seen).await;
                    seen.ended.fetch_add(1, Ordering::AcqRel);
                });
            }
        });
        Self { address, seen, _task: AbortOnDropHandle::new(task) }
    }
}

const INSIDE: &str = "CAPABILITY IMAP4rev1 LITERAL+ IDLE NAMESPACE ESEARCH UIDPLUS";

async fn lie(stream: TcpStream, lies: Lies, users: &std::sync::Mutex<Vec<String>>, seen: &Seen) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut stream = BufReader::new(stream);
    stream.write_all(b"* OK [CAPABILITY IMAP4rev1 LITERAL+ IDLE] ready\r\n").await?;
    let (mut user, mut connection, mut idles) = (String::new(), 0, None);
    loop {
        let mut line = Vec::new();
        if stream.read_until(b'\n', &mut line).await? == 0 {
            return Ok(());
        }
        let line = String::from_utf8_lossy(&line).trim_end_matches(['\r', '\n']).to_owned();
        note(seen, line.as_bytes());
        let (tag, command) = line.split_once(' ').unwrap_or((&line, ""));
        let upper = command.to_ascii_uppercase();
        if let Some(name) = upper.strip_prefix("LOGIN ") {
            user = name.split(' ').next().unwrap_or_default().trim_matches('"').to_ascii_lowercase();
            let mut users = users.lock().expect("the users");
            users.push(user.clone());
            connection = users.iter().filter(|one| **one == user).count();
        }
        let deeds = lies(&user, connection, &line).unwrap_or_else(|| vec![Deed::Say(honest(tag, &upper, &user, &mut idles))]);
        for deed in deeds {
            match deed {
                Deed::Wait(time) => tokio::time::sleep(time).await,
                Deed::Say(text) => stream.write_all(text.replace("TAG", tag).as_bytes()).await?,
                Deed::Flood(bytes, most) => {
                    let many = bytes.repeat(64 * 1024 / bytes.len());
                    let mut sent = 0;
                    while sent < most {
                        stream.write_all(&many).await?;
                        sent += many.len() as u64;
                        seen.sent.store(sent, Ordering::Release);
                    }
                }
                Deed::Hang => {
                    let mut rest = [0; 1024];
                    while stream.read(&mut rest).await? > 0 {}
                    return Ok(());
                }
                Deed::Close => return stream.shutdown().await,
            }
        }
        stream.flush().await?;
    }
}

/// An honest answer. `idles` is the tag of an IDLE that goes on.
fn honest(tag: &str, command: &str, user: &str, idles: &mut Option<String>) -> String {
    if let Some(idle) = idles.take() {
        return format!("{idle} {}\r\n", if tag.eq_ignore_ascii_case("DONE") { "OK done" } else { "BAD Expected DONE" });
    }
    let mut words = command.split(' ');
    let name = words.next().unwrap_or_default();
    match (name, words.next()) {
        ("LOGIN", _) => format!("{tag} OK [{INSIDE}] in\r\n"),
        ("CAPABILITY", _) => format!("* {INSIDE}\r\n{tag} OK done\r\n"),
        ("NAMESPACE", _) => format!("* NAMESPACE ((\"\" \"/\")) NIL NIL\r\n{tag} OK done\r\n"),
        ("SELECT", _) => format!(
            "* FLAGS (\\Seen)\r\n* 3 EXISTS\r\n* 0 RECENT\r\n* OK [UIDVALIDITY 9] v\r\n* OK [UIDNEXT 4] n\r\n\
             {tag} OK [READ-WRITE] done\r\n"
        ),
        ("UID", Some("SEARCH")) => format!("* ESEARCH (TAG \"{tag}\") UID ALL 1:3\r\n{tag} OK done\r\n"),
        ("IDLE", None) if !user.is_empty() => {
            *idles = Some(tag.to_owned());
            "+ idling\r\n".to_owned()
        }
        ("NOOP" | "FETCH" | "UID" | "STORE", _) => format!("{tag} OK done\r\n"),
        ("LOGOUT", _) => format!("* BYE\r\n{tag} OK done\r\n"),
        _ => format!("{tag} BAD what?\r\n"),
    }
}
