//! A bare IMAP client: lines out, lines in, nothing understood.

use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};

/// How long a line that must come may take.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// One connection. Tags are `a1`, `a2` and so on.
pub struct ImapClient {
    reader: BufReader<OwnedReadHalf>,
    writer: OwnedWriteHalf,
    tags: u32,
    /// Every line sent (`C: …`) and received (`S: …`), for a failing test to show.
    pub transcript: Vec<String>,
}

impl ImapClient {
    /// Connects and takes the greeting.
    pub async fn open(port: u16) -> Self {
        let stream = TcpStream::connect(("127.0.0.1", port)).await.expect("connect");
        stream.set_nodelay(true).expect("no delay");
        let (reader, writer) = stream.into_split();
        let mut client = Self { reader: BufReader::new(reader), writer, tags: 0, transcript: Vec::new() };
        client.expect("* OK").await;
        client
    }

    /// Connects and logs in.
    pub async fn login(port: u16, user: &str, password: &str) -> Self {
        let mut client = Self::open(port).await;
        client.ok(&format!("LOGIN {user} {password}")).await;
        client
    }

    /// Sends bytes as they are.
    pub async fn send(&mut self, bytes: &[u8]) {
        self.transcript.push(format!("C: {}", String::from_utf8_lossy(bytes).trim_end()));
        self.writer.write_all(bytes).await.expect("send");
    }

    /// Sends a tagged command line; returns its tag.
    pub async fn begin(&mut self, command: &str) -> String {
        self.tags += 1;
        let tag = format!("a{}", self.tags);
        self.send(format!("{tag} {command}\r\n").as_bytes()).await;
        tag
    }

    /// The next response, without its line end; a literal's bytes stand in it as they are. `None` at the end.
    pub async fn line(&mut self) -> Option<String> {
        self.line_within(PATIENCE).await
    }

    /// As [`Self::line`], where it may take longer, or must not take so long.
    pub async fn line_within(&mut self, patience: Duration) -> Option<String> {
        let read = tokio::time::timeout(patience, self.read());
        let line = read.await.unwrap_or_else(|_| panic!("no line in time:\n{}", self.transcript.join("\n")));
        self.transcript.push(format!("S: {}", line.as_deref().unwrap_or("(closed)")));
        line
    }

    async fn read(&mut self) -> Option<String> {
        let mut whole = Vec::new();
        loop {
            let mut line = Vec::new();
            let count = self.reader.read_until(b'\n', &mut line).await.unwrap_or(0);
            if count == 0 {
                return None;
            }
            let text = String::from_utf8_lossy(&line).trim_end_matches(['\r', '\n']).to_owned();
            let literal = text.strip_suffix('}').and_then(|text| text.rsplit_once('{')?.1.parse::<usize>().ok());
            match literal {
                Some(length) => {
                    whole.extend_from_slice(&line);
                    let mut bytes = vec![0; length];
                    self.reader.read_exact(&mut bytes).await.ok()?;
                    whole.extend_from_slice(&bytes);
                }
                None => {
                    whole.extend_from_slice(text.as_bytes());
                    return Some(String::from_utf8_lossy(&whole).into_owned());
                }
            }
        }
    }

    /// The next line that matches; those before it are dropped. `*` at the pattern's end or within stands for anything.
    pub async fn expect(&mut self, pattern: &str) -> String {
        loop {
            let Some(line) = self.line().await else {
                panic!("closed instead of {pattern:?}:\n{}", self.transcript.join("\n"));
            };
            if line.starts_with(pattern) || matches(pattern, &line) {
                return line;
            }
        }
    }

    /// Runs a command to its end; its lines, the tagged one last.
    pub async fn command(&mut self, command: &str) -> Vec<String> {
        let tag = self.begin(command).await;
        self.until(&tag).await
    }

    /// The lines up to a command's end.
    pub async fn until(&mut self, tag: &str) -> Vec<String> {
        let mut lines = Vec::new();
        loop {
            let Some(line) = self.line().await else {
                panic!("closed before the end of {tag}:\n{}", self.transcript.join("\n"));
            };
            let last = line.starts_with(&format!("{tag} "));
            lines.push(line);
            if last {
                return lines;
            }
        }
    }

    /// Runs a command that must succeed.
    pub async fn ok(&mut self, command: &str) -> Vec<String> {
        let lines = self.command(command).await;
        let last = lines.last().expect("a tagged line");
        assert!(last.split(' ').nth(1) == Some("OK"), "{command}: {last}");
        lines
    }

    /// APPENDs a message, with a literal that waits for no continuation request.
    pub async fn append(&mut self, mailbox: &str, flags: &str, message: &str) -> Vec<String> {
        let command = format!("APPEND {mailbox} ({flags}) {{{}+}}\r\n{message}", message.len());
        self.ok(&command).await
    }
}

/// Whether a line is the pattern, in which `*` after the first character stands for anything.
fn matches(pattern: &str, line: &str) -> bool {
    let Some(first) = pattern.chars().next() else { return false };
    if !line.starts_with(first) {
        return false;
    }
    let (pattern, mut rest) = (&pattern[first.len_utf8()..], &line[first.len_utf8()..]);
    let mut parts = pattern.split('*').enumerate();
    parts.all(|(index, part)| match rest.find(part) {
        Some(at) if index > 0 || at == 0 => {
            rest = &rest[at + part.len()..];
            true
        }
        _ => false,
    }) && (rest.is_empty() || pattern.ends_with('*'))
}
