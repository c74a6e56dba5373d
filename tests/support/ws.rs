//! A WebSocket client on another implementation than the server's (fastwebsockets).

use std::time::Duration;

use bytes::Bytes;
use fastwebsockets::{FragmentCollector, Frame, OpCode, Payload, handshake};
use http_body_util::Empty;
use hyper::Request;
use hyper::header::{CONNECTION, UPGRADE};
use hyper::upgrade::Upgraded;
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::{Value, json};
use tokio::net::TcpStream;

/// How long a frame that must come may take.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// One object that went over the socket. Text sent with [`WsClient::send`] may be none, and is not kept.
#[derive(Debug, Clone, PartialEq)]
pub enum Said {
    Client(Value),
    Server(Value),
}

/// A connected client. Heartbeats are answered and not shown.
pub struct WsClient {
    socket: FragmentCollector<TokioIo<Upgraded>>,
    id: u32,
    /// Every command sent and every frame received, in order, heartbeats too.
    pub transcript: Vec<Said>,
    /// The code of the server's close frame, once it came.
    pub closed: Option<u16>,
}

impl WsClient {
    /// Opens the socket and says nothing.
    pub async fn open(url: &str) -> Self {
        let address = url.strip_prefix("ws://").and_then(|rest| rest.split('/').next()).expect("a ws:// URL");
        let stream = TcpStream::connect(address).await.expect("connect");
        let request = Request::get(url)
            .header("host", address)
            .header(UPGRADE, "websocket")
            .header(CONNECTION, "upgrade")
            .header("sec-websocket-key", handshake::generate_key())
            .header("sec-websocket-version", "13")
            .header("sec-websocket-protocol", "mailpush.v1")
            .body(Empty::<Bytes>::new())
            .expect("a request");
        let (socket, response) = handshake::client(&TokioExecutor::new(), request, stream).await.expect("the handshake");
        assert_eq!(response.headers()["sec-websocket-protocol"], "mailpush.v1");
        Self { socket: FragmentCollector::new(socket), id: 0, transcript: Vec::new(), closed: None }
    }

    /// Opens the socket and connects with a token.
    pub async fn connect(url: &str, token: &str) -> Self {
        let mut client = Self::open(url).await;
        let reply = client.command("connect", json!({ "token": token })).await;
        assert!(reply["connect"]["session"].is_string(), "{reply}");
        client
    }

    /// Subscribes to a mailbox and waits until it is settled.
    pub async fn subscribe(&mut self, mailbox: &str) {
        let reply = self.command("subscribe", json!({ "mailbox": mailbox })).await;
        assert_eq!(reply["subscribe"]["key"]["mailbox"], mailbox, "{reply}");
    }

    /// Sends text as it is.
    pub async fn send(&mut self, text: &str) {
        self.socket.write_frame(Frame::text(Payload::Borrowed(text.as_bytes()))).await.expect("write a frame");
    }

    /// Sends a command and returns its reply. Pushes that come first are dropped: see [`Self::never_heard`].
    pub async fn command(&mut self, name: &str, body: Value) -> Value {
        self.id += 1;
        let id = self.id;
        let command = json!({ "id": id, name: body });
        self.send(&command.to_string()).await;
        self.transcript.push(Said::Client(command));
        loop {
            let frame = self.next().await.unwrap_or_else(|| panic!("closed with {:?} instead of a reply to {name}", self.closed));
            if frame["id"] == id {
                return frame;
            }
        }
    }

    /// The next frame that is no heartbeat; `None` once the socket is closed.
    pub async fn next(&mut self) -> Option<Value> {
        tokio::time::timeout(PATIENCE, self.read()).await.expect("a frame within the patience")
    }

    /// The next frame within this time, if one comes.
    pub async fn next_within(&mut self, time: Duration) -> Option<Value> {
        tokio::time::timeout(time, self.read()).await.ok().flatten()
    }

    /// The server's goodbye: its `disconnect`, whose code is the close frame's too.
    pub async fn goodbye(&mut self) -> Value {
        let told = self.push("disconnect").await;
        assert_eq!(self.next().await, None, "behind the goodbye");
        assert_eq!(self.closed.map(Value::from), Some(told["code"].clone()));
        told
    }

    /// Nothing was pushed before the answer to this.
    pub async fn expect_quiet(&mut self) {
        self.id += 1;
        self.send(&json!({ "id": self.id, "ping": {} }).to_string()).await;
        assert_eq!(self.next().await, Some(json!({ "id": self.id, "ping": {} })));
    }

    async fn read(&mut self) -> Option<Value> {
        loop {
            let frame = self.socket.read_frame().await.ok()?;
            match frame.opcode {
                OpCode::Text => {
                    let said: Value = serde_json::from_slice(&frame.payload).expect("a frame in JSON");
                    self.transcript.push(Said::Server(said.clone()));
                    if said != json!({}) {
                        return Some(said);
                    }
                    self.transcript.push(Said::Client(said));
                    self.send("{}").await;
                }
                OpCode::Close => {
                    self.closed = frame.payload.get(..2).map(|code| u16::from_be_bytes([code[0], code[1]]));
                    return None;
                }
                _ => {}
            }
        }
    }

    /// The very next frame must be this push, whose content is returned: nothing at all was told before it.
    pub async fn next_push(&mut self, name: &str) -> Value {
        let frame = self.next().await.unwrap_or_else(|| panic!("closed with {:?} instead of {name}", self.closed));
        assert!(frame.get(name).is_some(), "before {name} came {frame}");
        frame[name].clone()
    }

    /// Reads on until it is told of the message with this UID.
    pub async fn hears(&mut self, uid: u32) {
        loop {
            let frame = self.next().await.unwrap_or_else(|| panic!("closed with {:?} instead of message {uid}", self.closed));
            if tells_of(&frame, uid) {
                return;
            }
        }
    }

    /// It was told of no message with this UID, whatever it was that was waited for meanwhile. Says something only of what
    /// has been read: something that comes behind such a message must have been heard.
    pub fn never_heard(&self, uid: u32) {
        let told = self.transcript.iter().find(|said| matches!(said, Said::Server(frame) if tells_of(frame, uid)));
        assert_eq!(told, None, "message {uid} was told: {:#?}", self.transcript);
    }

    /// The next event's frame, `event` and `pos`; other pushes are dropped.
    pub async fn event(&mut self) -> Value {
        loop {
            let frame = self.next().await.unwrap_or_else(|| panic!("closed with {:?} instead of an event", self.closed));
            if frame["event"].is_object() {
                return frame["event"].clone();
            }
        }
    }

    /// The next push with this name; others are dropped, which [`Self::next_push`] does not allow.
    pub async fn push(&mut self, name: &str) -> Value {
        loop {
            let frame = self.next().await.unwrap_or_else(|| panic!("closed with {:?} instead of {name}", self.closed));
            if frame.get(name).is_some() {
                return frame[name].clone();
            }
        }
    }
}

/// Whether a frame is the event of a message with this UID.
pub fn tells_of(frame: &Value, uid: u32) -> bool {
    let messages = frame["event"]["event"]["messages"].as_array();
    messages.is_some_and(|messages| messages.iter().any(|message| message["uid"] == uid))
}
