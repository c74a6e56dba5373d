//! Many WebSocket clients that do as little as clients can: they count frames, and answer heartbeats.
//!
//! One thread drives them all, so that the server has the other cores.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Poll;
use std::time::{Duration, Instant};

use futures::StreamExt;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt, ReadBuf};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::{mpsc, oneshot};

const PATIENCE: Duration = Duration::from_secs(120);
/// Handshakes under way at once.
const SIDE_BY_SIDE: usize = 128;

/// What the clients have seen.
#[derive(Default)]
pub struct Seen {
    pub events: AtomicU64,
    pub resyncs: AtomicU64,
    pub heartbeats: AtomicU64,
    pub closed: AtomicU64,
    /// Nanoseconds after `Crowd::epoch` at which the newest event came.
    last: AtomicU64,
}

/// The clients; they go away when it is dropped.
pub struct Crowd {
    pub seen: Arc<Seen>,
    pub count: usize,
    epoch: Instant,
    _alive: mpsc::Sender<()>,
}

/// One client: who it is, and its mailbox.
pub struct Member {
    pub token: String,
    pub mailbox: String,
}

impl Crowd {
    /// Connects and subscribes all of them; returns once every subscription stands.
    pub async fn connect(server: &str, members: Vec<Member>) -> Self {
        let (seen, epoch) = (Arc::new(Seen::default()), Instant::now());
        let (alive, dead) = mpsc::channel(1);
        let count = members.len();
        let server: SocketAddr = server.parse().expect("the server's address");
        let (ready, connected) = oneshot::channel();
        let shared = seen.clone();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(drive(server, members, shared, epoch, ready, dead));
        });
        connected.await.expect("all clients connect and subscribe");
        Self { seen, count, epoch, _alive: alive }
    }

    /// Waits until this many events in all have come; returns when the last one did.
    pub async fn wait_for(&self, events: u64) -> Instant {
        let deadline = Instant::now() + PATIENCE;
        while self.seen.events.load(Ordering::Acquire) < events {
            let (came, resyncs) = (self.seen.events.load(Ordering::Acquire), self.seen.resyncs.load(Ordering::Acquire));
            assert!(Instant::now() < deadline, "only {came} of {events} events have come, and {resyncs} resyncs");
            tokio::time::sleep(Duration::from_micros(500)).await;
        }
        self.epoch + Duration::from_nanos(self.seen.last.load(Ordering::Acquire))
    }

    /// Everybody is still there, has heard exactly so many events, and nobody was told to resync.
    pub fn check(&self, events: u64) {
        let load = |counter: &AtomicU64| counter.load(Ordering::Acquire);
        assert_eq!(load(&self.seen.closed), 0, "all {} are still connected", self.count);
        assert_eq!((load(&self.seen.events), load(&self.seen.resyncs)), (events, 0), "each event came once");
    }
}

async fn drive(
    server: SocketAddr,
    members: Vec<Member>,
    seen: Arc<Seen>,
    epoch: Instant,
    ready: oneshot::Sender<()>,
    mut dead: mpsc::Receiver<()>,
) {
    let connecting = futures::stream::iter(members.into_iter().enumerate().map(|(number, member)| open(server, number, member)));
    let clients: Vec<(TcpStream, Frames)> = connecting.buffer_unordered(SIDE_BY_SIDE).collect().await;
    for (stream, frames) in clients {
        tokio::spawn(listen(stream, frames, seen.clone(), epoch));
    }
    // Who asked may be gone; then the channel is closed too.
    let _ = ready.send(());
    dead.recv().await;
}

async fn open(server: SocketAddr, number: usize, member: Member) -> (TcpStream, Frames) {
    let socket = TcpSocket::new_v4().expect("a socket");
    // Many addresses, for each has its own ports; and no TIME_WAIT left for the next bench.
    let address = SocketAddr::from(([127, 0, 0, 2 + (number % 64) as u8], 0));
    socket.bind(address).expect("bind a loopback address");
    socket2::SockRef::from(&socket).set_linger(Some(Duration::ZERO)).expect("set SO_LINGER");
    let mut stream = socket.connect(server).await.expect("connect");
    stream.set_nodelay(true).expect("set TCP_NODELAY");
    let request = format!(
        "GET /v1/ws HTTP/1.1\r\nHost: {server}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nAuthorization: Bearer {}\r\n\r\n",
        member.token
    );
    stream.write_all(request.as_bytes()).await.expect("send the handshake");
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.expect("the handshake's answer"));
    }
    assert!(head.starts_with(b"HTTP/1.1 101"), "{}", String::from_utf8_lossy(&head));
    let command = format!(r##"{{"id":1,"subscribe":{{"mailbox":"{}"}}}}"##, member.mailbox);
    stream.write_all(&masked(command.as_bytes())).await.expect("subscribe");
    let mut frames = Frames::default();
    let mut buffer = [0; 1024];
    let mut settled = false;
    while !settled {
        let count = tokio::time::timeout(PATIENCE, stream.read(&mut buffer)).await.expect("a reply in time").expect("a reply");
        assert!(count > 0, "closed instead of subscribed");
        frames.feed(&buffer[..count], |begin| {
            assert!(!buffer[..count].windows(7).any(|window| window == b"\"error\""), "the subscription is refused");
            settled |= begin.starts_with(b"{\"id");
        });
    }
    (stream, frames)
}

async fn listen(mut stream: TcpStream, mut frames: Frames, seen: Arc<Seen>, epoch: Instant) {
    loop {
        let (mut events, mut heartbeats) = (0, 0);
        let read = std::future::poll_fn(|context| {
            // One buffer for all clients, warm in the cache.
            let mut buffer = [std::mem::MaybeUninit::uninit(); 16 * 1024];
            let mut buffer = ReadBuf::uninit(&mut buffer);
            std::task::ready!(Pin::new(&mut stream).poll_read(context, &mut buffer))?;
            frames.feed(buffer.filled(), |begin| match begin {
                [b'{', b'"', b'e', b'v', ..] => events += 1,
                [b'{', b'"', b'r', b'e', ..] => drop(seen.resyncs.fetch_add(1, Ordering::Release)),
                [b'{', b'}', ..] => heartbeats += 1,
                _ => {}
            });
            Poll::Ready(std::io::Result::Ok(buffer.filled().len()))
        });
        if !matches!(read.await, Ok(1..)) {
            break;
        }
        if events > 0 {
            let since = u64::try_from(epoch.elapsed().as_nanos()).unwrap_or(u64::MAX);
            seen.last.fetch_max(since, Ordering::Release);
            seen.events.fetch_add(events, Ordering::Release);
        }
        if heartbeats > 0 {
            seen.heartbeats.fetch_add(heartbeats, Ordering::Release);
            if stream.write_all(&masked(b"{}")).await.is_err() {
                break;
            }
        }
    }
    seen.closed.fetch_add(1, Ordering::Release);
}

/// A client's text frame; masked with zeros.
fn masked(payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![0x81];
    match u8::try_from(payload.len()) {
        Ok(length @ ..=125) => frame.push(0x80 | length),
        _ => {
            frame.push(0x80 | 126);
            frame.extend_from_slice(&u16::try_from(payload.len()).expect("a short command").to_be_bytes());
        }
    }
    frame.extend_from_slice(&[0; 4]);
    frame.extend_from_slice(payload);
    frame
}

/// Cuts a server's stream into frames, keeping nothing of them but where they begin.
#[derive(Default)]
pub struct Frames {
    /// The frame's header and its payload's first bytes.
    begin: Vec<u8>,
    /// Bytes of the frame's payload that are to come, once the beginning is there.
    left: usize,
}

/// Bytes of the payload that tell frames apart.
const TELLING: usize = 4;

impl Frames {
    /// Calls `frame` with the payload's beginning whenever a text frame is complete.
    fn feed(&mut self, mut bytes: &[u8], mut frame: impl FnMut(&[u8])) {
        loop {
            let skipped = self.left.min(bytes.len());
            self.left -= skipped;
            bytes = &bytes[skipped..];
            if self.left > 0 {
                return;
            }
            if let Some((header, length)) = header(&self.begin)
                && self.begin.len() >= header + length.min(TELLING)
            {
                if self.begin[0] & 0x0f == 1 {
                    frame(&self.begin[header..]);
                }
                self.begin.clear();
                continue;
            }
            let Some((first, rest)) = bytes.split_first() else { return };
            self.begin.push(*first);
            bytes = rest;
            if let Some((header, length)) = header(&self.begin)
                && self.begin.len() == header + length.min(TELLING)
            {
                self.left = length - length.min(TELLING);
            }
        }
    }
}

/// The length of a frame's header and of its payload, once the header is complete.
fn header(bytes: &[u8]) -> Option<(usize, usize)> {
    match bytes.get(1)? & 0x7f {
        126 => Some((4, usize::from(u16::from_be_bytes(bytes.get(2..4)?.try_into().ok()?)))),
        127 => Some((10, usize::try_from(u64::from_be_bytes(bytes.get(2..10)?.try_into().ok()?)).ok()?)),
        length => Some((2, usize::from(length))),
    }
}
