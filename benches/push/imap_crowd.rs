//! Many IMAP clients that log in, select INBOX, idle, and count what they hear.
//!
//! One thread drives them all, as it does for [`super::crowd`].

use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Poll, ready};
use std::time::{Duration, Instant};

use futures::StreamExt;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt, ReadBuf};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::{mpsc, oneshot};

const PATIENCE: Duration = Duration::from_secs(120);
/// Logging in at once.
const SIDE_BY_SIDE: usize = 128;

#[derive(Default)]
pub struct Heard {
    pub exists: AtomicU64,
    /// Lines that are neither `EXISTS` nor `* OK Still here`.
    pub others: AtomicU64,
    pub closed: AtomicU64,
}

/// The clients; they go away when it is dropped.
pub struct ImapCrowd {
    pub heard: Arc<Heard>,
    pub count: usize,
    _alive: mpsc::Sender<()>,
}

/// The user of a number.
pub fn user(number: usize) -> String {
    format!("user{number:06}@example.org")
}

impl ImapCrowd {
    /// Lets so many users' clients idle; returns once all have been told that they do.
    pub async fn idle(server: &str, count: usize) -> Self {
        let heard = Arc::new(Heard::default());
        let (alive, mut dead) = mpsc::channel::<()>(1);
        let server: SocketAddr = server.parse().expect("the server's address");
        let (ready, all_idle) = oneshot::channel();
        let shared = heard.clone();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async {
                let beginning = futures::stream::iter((0..count).map(|number| begin(server, number)));
                let streams: Vec<TcpStream> = beginning.buffer_unordered(SIDE_BY_SIDE).collect().await;
                for stream in streams {
                    tokio::spawn(listen(stream, shared.clone()));
                }
                // Who asked may be gone; then the channel is closed too.
                let _ = ready.send(());
                dead.recv().await;
            });
        });
        all_idle.await.expect("all clients idle");
        Self { heard, count, _alive: alive }
    }

    /// Waits until so many `EXISTS` in all have come.
    pub async fn wait_for(&self, exists: u64) {
        let deadline = Instant::now() + PATIENCE;
        while self.heard.exists.load(Ordering::Acquire) < exists {
            let (came, others) = (self.heard.exists.load(Ordering::Acquire), self.heard.others.load(Ordering::Acquire));
            assert!(Instant::now() < deadline, "only {came} of {exists} EXISTS have come, and {others} other lines");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    /// Everybody is still there and has heard exactly that.
    pub fn check(&self, exists: u64) {
        let load = |counter: &AtomicU64| counter.load(Ordering::Acquire);
        assert_eq!(load(&self.heard.closed), 0, "all {} are still connected", self.count);
        assert_eq!((load(&self.heard.exists), load(&self.heard.others)), (exists, 0), "each change was told once");
    }
}

async fn begin(server: SocketAddr, number: usize) -> TcpStream {
    let socket = TcpSocket::new_v4().expect("a socket");
    // Many addresses, for each has its own ports, and the server's limit for one; and no TIME_WAIT left for the next.
    socket.bind(SocketAddr::from(([127, 0, 0, 2 + (number % 64) as u8], 0))).expect("bind a loopback address");
    socket2::SockRef::from(&socket).set_linger(Some(Duration::ZERO)).expect("set SO_LINGER");
    let mut stream = socket.connect(server).await.expect("connect");
    stream.set_nodelay(true).expect("set TCP_NODELAY");
    expect(&mut stream, "* OK").await;
    for (command, answer) in [
        (format!("a LOGIN {} secret\r\n", user(number)), "a OK"),
        ("b SELECT INBOX\r\n".to_owned(), "b OK"),
        ("c IDLE\r\n".to_owned(), "+ idling"),
    ] {
        stream.write_all(command.as_bytes()).await.expect("send");
        expect(&mut stream, answer).await;
    }
    stream
}

/// Reads up to a line that begins so and is the last that has come.
async fn expect(stream: &mut TcpStream, beginning: &str) {
    let (mut said, mut buffer) = (Vec::new(), [0; 4096]);
    loop {
        let read = tokio::time::timeout(PATIENCE, stream.read(&mut buffer)).await.expect("an answer in time").expect("an answer");
        said.extend_from_slice(&buffer[..read]);
        let text = String::from_utf8_lossy(&said);
        assert!(read > 0, "closed instead of {beginning}: {text}");
        let last = text.strip_suffix("\r\n").and_then(|text| text.rsplit("\r\n").next());
        if last.is_some_and(|line| line.starts_with(beginning)) {
            return;
        }
    }
}

async fn listen(mut stream: TcpStream, heard: Arc<Heard>) {
    let mut line = Vec::new();
    loop {
        let (mut exists, mut others) = (0, 0);
        let read = poll_fn(|context| {
            // One buffer for all clients, warm in the cache.
            let mut buffer = [std::mem::MaybeUninit::uninit(); 16 * 1024];
            let mut buffer = ReadBuf::uninit(&mut buffer);
            ready!(Pin::new(&mut stream).poll_read(context, &mut buffer))?;
            for stretch in buffer.filled().split_inclusive(|byte| *byte == b'\n') {
                line.extend_from_slice(stretch);
                if line.ends_with(b"\n") {
                    if line.ends_with(b" EXISTS\r\n") {
                        exists += 1;
                    } else if !line.starts_with(b"* OK Still here") {
                        others += 1;
                    }
                    line.clear();
                }
            }
            Poll::Ready(std::io::Result::Ok(buffer.filled().len()))
        });
        let read = read.await;
        heard.exists.fetch_add(exists, Ordering::Release);
        heard.others.fetch_add(others, Ordering::Release);
        if !matches!(read, Ok(1..)) {
            break;
        }
    }
    heard.closed.fetch_add(1, Ordering::Release);
}
