//! A WebSocket client that is made of bytes: handshake and frames by hand (RFC 6455), right or wrong as a test wants.

use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// How long something that must come may take.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// The key of RFC 6455 1.3, and the accept value that belongs to it.
pub const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
pub const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

pub const FIN: u8 = 0x80;
pub const CONTINUATION: u8 = 0x0;
pub const TEXT: u8 = 0x1;
pub const BINARY: u8 = 0x2;
pub const CLOSE: u8 = 0x8;
pub const PING: u8 = 0x9;
pub const PONG: u8 = 0xa;

/// A masked frame with this first byte; its length is told in the shortest form.
pub fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];
    let mut bytes = header(first, 0x80, payload.len() as u64);
    bytes.extend(MASK);
    bytes.extend(payload.iter().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    bytes
}

/// As a server sends it, which a client must not.
pub fn unmasked(first: u8, payload: &[u8]) -> Vec<u8> {
    [header(first, 0, payload.len() as u64), payload.to_vec()].concat()
}

/// The first bytes of a frame that claims this length.
pub fn header(first: u8, mask: u8, length: u64) -> Vec<u8> {
    match length {
        0..=125 => vec![first, mask | length as u8],
        126..=0xffff => [&[first, mask | 126][..], &(length as u16).to_be_bytes()].concat(),
        _ => [&[first, mask | 127][..], &length.to_be_bytes()].concat(),
    }
}

/// One whole text frame.
pub fn text(payload: &str) -> Vec<u8> {
    frame(FIN | TEXT, payload.as_bytes())
}

/// A close frame with a code and a reason.
pub fn close(code: u16, reason: &[u8]) -> Vec<u8> {
    frame(FIN | CLOSE, &[&code.to_be_bytes()[..], reason].concat())
}

/// An opening handshake as it should be, with these header lines added.
pub fn handshake(more: &str) -> String {
    request("GET /v1/ws HTTP/1.1", &format!("{UPGRADE_LINES}Sec-WebSocket-Key: {KEY}\r\nSec-WebSocket-Version: 13\r\n{more}"))
}

/// The two header lines that ask for a WebSocket.
pub const UPGRADE_LINES: &str = "Connection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n";

/// A request without a body.
pub fn request(line: &str, headers: &str) -> String {
    format!("{line}\r\nHost: mail.example.org\r\n{headers}\r\n")
}

/// The head of an HTTP answer, and as much of a body as its length tells.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Answer {
    /// The value of a header; its name in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
    }

    /// The body as a problem document.
    pub fn problem(&self) -> Value {
        assert_eq!(self.header("content-type"), Some("application/problem+json"), "{self:?}");
        let problem: Value = serde_json::from_slice(&self.body).expect("a problem in JSON");
        assert_eq!(problem["status"], self.status, "{problem}");
        problem
    }
}

/// What the server did.
#[derive(Debug, PartialEq)]
pub enum Said {
    Frame {
        first: u8,
        payload: Vec<u8>,
    },
    /// It closed the connection in an orderly way.
    End,
    /// The connection was reset: what was under way may be lost.
    Reset,
}

/// A connection to a node.
pub struct RawClient {
    stream: TcpStream,
    read: Vec<u8>,
}

impl RawClient {
    /// Connects to the node behind an `http://` URL, and says nothing.
    pub async fn dial(http: &str) -> Self {
        let address = http.strip_prefix("http://").expect("an http:// URL");
        let stream = TcpStream::connect(address).await.expect("connect");
        stream.set_nodelay(true).expect("send small segments at once");
        Self { stream, read: Vec::new() }
    }

    /// As [`Self::open_with`], with a receive buffer that is soon full.
    pub async fn open_narrow(http: &str, headers: &str) -> Self {
        let socket = tokio::net::TcpSocket::new_v4().expect("a socket");
        socket.set_recv_buffer_size(4096).expect("a small buffer");
        let address = http.strip_prefix("http://").expect("an http:// URL").parse().expect("an address");
        let stream = socket.connect(address).await.expect("connect");
        Self { stream, read: Vec::new() }.upgraded(headers).await
    }

    /// Opens a WebSocket without a sub-protocol.
    pub async fn open(http: &str) -> Self {
        Self::open_with(http, "").await
    }

    /// Opens a WebSocket with these header lines added.
    pub async fn open_with(http: &str, headers: &str) -> Self {
        Self::dial(http).await.upgraded(headers).await
    }

    async fn upgraded(mut self, headers: &str) -> Self {
        self.send(handshake(headers)).await;
        let answer = self.answer().await;
        assert_eq!((answer.status, answer.header("sec-websocket-accept")), (101, Some(ACCEPT)), "{answer:?}");
        self
    }

    /// Sends bytes as they are.
    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.try_send(bytes).await.expect("send");
    }

    /// As [`Self::send`], where the server may have hung up.
    pub async fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> std::io::Result<()> {
        self.stream.write_all(bytes.as_ref()).await
    }

    /// Shuts our sending side.
    pub async fn shut(&mut self) {
        self.stream.shutdown().await.expect("shut down the sending side");
    }

    /// The next HTTP answer.
    pub async fn answer(&mut self) -> Answer {
        let mut answer = self.head().await;
        let length: usize = answer.header("content-length").map_or(0, |length| length.parse().expect("a length"));
        while self.read.len() < length && self.more().await {}
        answer.body = self.read.drain(..length.min(self.read.len())).collect();
        answer
    }

    /// The next HTTP answer without its body: that to a HEAD has none.
    pub async fn head(&mut self) -> Answer {
        let end = loop {
            match self.read.windows(4).position(|window| window == b"\r\n\r\n") {
                Some(end) => break end + 4,
                None => assert!(self.more().await, "the connection ended instead of an answer: {:?}", self.read),
            }
        };
        let head: Vec<u8> = self.read.drain(..end).collect();
        let head = String::from_utf8(head).expect("a head in ASCII");
        let mut lines = head.lines();
        let status = lines.next().and_then(|line| line.split(' ').nth(1)).and_then(|status| status.parse().ok());
        let split = |line: &str| line.split_once(": ").map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()));
        Answer { status: status.expect("a status"), headers: lines.filter_map(split).collect(), body: Vec::new() }
    }

    /// The next frame, or the connection's end.
    pub async fn said(&mut self) -> Said {
        loop {
            if let Some(frame) = self.take_frame() {
                return frame;
            }
            match self.fill().await {
                Ok(true) => {}
                Ok(false) => return Said::End,
                Err(_) => return Said::Reset,
            }
        }
    }

    /// The next text frame; heartbeats and pings are skipped.
    pub async fn json(&mut self) -> Value {
        loop {
            match self.said().await {
                Said::Frame { first, .. } if first == FIN | PING => {}
                Said::Frame { first, payload } if first == FIN | TEXT && payload == b"{}" => {}
                Said::Frame { first, payload } if first == FIN | TEXT => {
                    return serde_json::from_slice(&payload).expect("a frame in JSON");
                }
                other => panic!("{other:?} instead of text"),
            }
        }
    }

    /// Expects the server's goodbye: the push, the close frame with the same code, the end of the connection.
    pub async fn expect_goodbye(&mut self, code: u16) -> Value {
        let push = self.json().await;
        assert_eq!(push["disconnect"]["code"], code, "{push}");
        self.expect_close(code).await;
        push["disconnect"].clone()
    }

    /// Expects a close frame with this code, and that the server closes the connection behind it.
    pub async fn expect_close(&mut self, code: u16) {
        match self.said().await {
            Said::Frame { first, payload } if first == FIN | CLOSE => {
                assert_eq!(payload.get(..2), Some(&code.to_be_bytes()[..]), "{}", String::from_utf8_lossy(&payload));
                assert!(payload.len() <= 125 && std::str::from_utf8(&payload[2..]).is_ok(), "{payload:?}");
            }
            other => panic!("{other:?} instead of close {code}"),
        }
        // We said goodbye first, or could not be understood, or do it now: in each case it ends.
        let _ = self.try_send(close(code, b"")).await;
        assert_eq!(self.said().await, Said::End, "behind close {code}");
    }

    fn take_frame(&mut self) -> Option<Said> {
        let second = *self.read.get(1)?;
        assert_eq!(second & 0x80, 0, "a server does not mask");
        let (start, length) = match second {
            126 => (4, u16::from_be_bytes(self.read.get(2..4)?.try_into().ok()?) as usize),
            127 => (10, u64::from_be_bytes(self.read.get(2..10)?.try_into().ok()?) as usize),
            short => (2, short as usize),
        };
        let payload = self.read.get(start..start + length)?.to_vec();
        let first = self.read[0];
        self.read.drain(..start + length);
        Some(Said::Frame { first, payload })
    }

    async fn more(&mut self) -> bool {
        self.fill().await.unwrap_or(false)
    }

    async fn fill(&mut self) -> std::io::Result<bool> {
        let read = tokio::time::timeout(PATIENCE, self.stream.read_buf(&mut self.read)).await;
        Ok(read.expect("the server says something within the patience")? > 0)
    }
}
