//! The accept loop: connections with bounds on their number, their handshake's time and their
//! silence.
//!
//! axum's own `serve` has no time-out for headers and does not wait for upgraded sockets; this has
//! both.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use axum::http::{HeaderName, Request, header};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::{AbortOnDropHandle, TaskTracker};
use tower::ServiceExt;
use tracing::{debug, warn};

use super::files;
use super::seldom::Seldom;
use super::write_timeout::WriteTimeout;

/// Where a connection comes from; a request's extension. Requests of a Unix socket have none.
#[derive(Debug, Clone, Copy)]
pub struct Peer(pub SocketAddr);

/// How long the kernel tries to send what a peer does not acknowledge.
pub const USER_TIMEOUT: Duration = Duration::from_secs(60);
/// How much longer than it may go without reading a peer of HTTP may go without acknowledging. A
/// stream has no other way to find that its client is gone than that its heartbeats are not
/// acknowledged, and until then it counts among the sessions of its user. Not less: the kernel
/// would reset the connection of a client that only reads slowly, and it would not be told why.
const USER_TIMEOUT_MARGIN: Duration = Duration::from_secs(5);

/// What connections come in by.
pub trait Listener: Send + Sync + 'static {
    type Stream: AsyncRead + AsyncWrite + AsFd + Unpin + Send + 'static;

    fn accept(&self) -> impl Future<Output = io::Result<(Self::Stream, Option<Peer>)>> + Send;

    /// Sets the options of a fresh connection.
    fn tune(stream: &Self::Stream, user_timeout: Duration) -> io::Result<()>;
}

impl Listener for TcpListener {
    type Stream = TcpStream;

    async fn accept(&self) -> io::Result<(TcpStream, Option<Peer>)> {
        Self::accept(self).await.map(|(stream, address)| (stream, Some(Peer(address))))
    }

    /// Small pushes must not wait for company, and a peer that is gone must be found.
    fn tune(stream: &TcpStream, user_timeout: Duration) -> io::Result<()> {
        stream.set_nodelay(true)?;
        let socket = SockRef::from(stream);
        socket
            .set_tcp_keepalive(&TcpKeepalive::new().with_time(Duration::from_secs(60)).with_interval(Duration::from_secs(15)))?;
        socket.set_tcp_user_timeout(Some(user_timeout))
    }
}

impl Listener for UnixListener {
    type Stream = UnixStream;

    async fn accept(&self) -> io::Result<(UnixStream, Option<Peer>)> {
        Self::accept(self).await.map(|(stream, _)| (stream, None))
    }

    fn tune(_: &UnixStream, _: Duration) -> io::Result<()> {
        Ok(())
    }
}

/// Held as long as a connection, or the socket that it became, lives.
#[derive(Debug, Clone)]
pub struct ConnectionPermit(#[expect(dead_code, reason = "held for its Drop")] Arc<OwnedSemaphorePermit>);

/// Bounds of the accept loop.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    pub connections: usize,
    /// For the whole head of a request; a slow handshake ends here.
    pub header_timeout: Duration,
    /// For each write: a peer that reads nothing for so long is given up.
    pub write_timeout: Duration,
}

/// The largest head of a request.
const HEAD_BYTES: usize = 16 * 1024;

/// How long whoever comes where there is no room has to say what they want.
const SAY_SOON: Duration = Duration::from_millis(500);
/// How long answering them may take in all.
const TURN_AWAY: Duration = Duration::from_secs(2);
/// What is answered all the same: a supervisor must not take a full node for a dead one.
const PROBES: [&str; 3] = ["/livez", "/readyz", "/metrics"];
/// The longest answer to a probe, in bytes.
const PROBE_BYTES: usize = 4 << 20;
/// Between attempts to accept a connection, after one that failed.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

const FULL: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nconnection: close\r\nretry-after: 2\r\ncontent-type: \
application/problem+json\r\ncontent-length: 112\r\n\r\n{\"type\":\"about:blank\",\"title\":\"Service Unavailable\",\
\"status\":503,\"detail\":\"the node has no connection to spare\"}";

/// Serves until `stop`; then lets requests that are under way end.
pub async fn serve<L: Listener>(listener: L, router: Router, bounds: Bounds, stop: CancellationToken) {
    let router = router.layer(axum::middleware::from_fn(super::checks::check));
    let permits = Arc::new(Semaphore::new(bounds.connections.min(Semaphore::MAX_PERMITS)));
    let mut outside = Outside::default();
    let (mut failures, mut refusals) = (Seldom::default(), Seldom::default());
    let connections = TaskTracker::new();
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                if let Some(times) = failures.again(Instant::now()) {
                    warn!(%error, times, "cannot accept a connection");
                }
                // Out of file descriptors, most likely: a moment's pause lets some come free.
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let is_scarce = files::is_scarce(&stream);
        let permit = permits.clone().try_acquire_owned().ok().filter(|_| !is_scarce);
        let Some(permit) = permit else {
            if let Some(times) = refusals.again(Instant::now()) {
                let what = if is_scarce { "open files" } else { "connections" };
                warn!(
                    times,
                    open_files = files::limit(),
                    connections = bounds.connections,
                    "new clients are refused: no {what} left"
                );
            }
            outside.turn_away(stream, router.clone());
            continue;
        };
        if let Err(error) = L::tune(&stream, bounds.write_timeout.saturating_add(USER_TIMEOUT_MARGIN)) {
            debug!(%error, "cannot set socket options");
        }
        let permit = ConnectionPermit(Arc::new(permit));
        let service = router.clone().map_request(move |mut request: Request<hyper::body::Incoming>| {
            if let Some(peer) = peer {
                request.extensions_mut().insert(peer);
            }
            request.extensions_mut().insert(permit.clone());
            request.map(Body::new)
        });
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(bounds.header_timeout)
            .max_buf_size(HEAD_BYTES)
            .serve_connection(TokioIo::new(WriteTimeout::new(stream, bounds.write_timeout)), TowerToHyperService::new(service))
            .with_upgrades();
        let stop = stop.clone();
        connections.spawn(async move {
            let mut connection = pin!(connection);
            let ended = tokio::select! {
                ended = connection.as_mut() => ended,
                () = stop.cancelled() => {
                    // The request under way is answered; the next one goes elsewhere.
                    connection.as_mut().graceful_shutdown();
                    connection.await
                }
            };
            if let Err(error) = ended {
                debug!(%error, "a connection ended with an error");
            }
        });
    }
    connections.close();
    connections.wait().await;
}

/// Connections for which there is no room: each is told so, or has its probe answered. There are
/// few; where one more comes, the oldest is dropped: whoever asks at once is answered at once,
/// however many others hold their sockets and say nothing.
#[derive(Default)]
struct Outside {
    tasks: VecDeque<AbortOnDropHandle<()>>,
}

impl Outside {
    fn turn_away<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(&mut self, mut stream: S, router: Router) {
        self.tasks.retain(|task| !task.is_finished());
        if self.tasks.len() as u64 >= files::reserve() / 2 {
            self.tasks.pop_front();
        }
        self.tasks.push_back(AbortOnDropHandle::new(tokio::spawn(async move {
            // If the client does not read it, nothing can be done.
            let _ = tokio::time::timeout(TURN_AWAY, turn_away(&mut stream, router)).await;
        })));
    }
}

/// Answers a probe, or says that there is no room. All of the request is read: to drop the socket
/// with unread bytes in it would reset the connection, and the client could lose the answer.
async fn turn_away<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut S, router: Router) -> io::Result<()> {
    let mut head = Vec::new();
    let reading = async {
        while head.len() < HEAD_BYTES && !head.windows(4).any(|four| four == b"\r\n\r\n") && stream.read_buf(&mut head).await? > 0
        {
        }
        io::Result::Ok(())
    };
    // A client that sends nothing is told without being asked.
    tokio::time::timeout(SAY_SOON, reading).await.unwrap_or(Ok(()))?;
    let answer = match probe(&head) {
        Some(path) => answer_probe(router, path).await.unwrap_or_else(|| FULL.to_vec()),
        None => FULL.to_vec(),
    };
    stream.write_all(&answer).await?;
    stream.shutdown().await?;
    let mut bytes = [0; 1024];
    while stream.read(&mut bytes).await? > 0 {}
    Ok(())
}

/// What a request that came whole asks for, if it is one of [`PROBES`].
fn probe(head: &[u8]) -> Option<&'static str> {
    let line = head.strip_prefix(b"GET ").filter(|_| head.windows(4).any(|four| four == b"\r\n\r\n"))?;
    let path = line.split(|byte| b" ?\r".contains(byte)).next()?;
    PROBES.into_iter().find(|probe| probe.as_bytes() == path)
}

/// The router's answer, as it goes over the wire.
async fn answer_probe(router: Router, path: &str) -> Option<Vec<u8>> {
    let request = Request::get(path).header(header::HOST, "localhost").body(Body::empty()).ok()?;
    let Ok(response) = router.oneshot(request).await;
    let (parts, body) = response.into_parts();
    let body = axum::body::to_bytes(body, PROBE_BYTES).await.ok()?;
    let mut answer = format!("HTTP/1.1 {}\r\nconnection: close\r\ncontent-length: {}\r\n", parts.status, body.len()).into_bytes();
    let framing: [HeaderName; 2] = [header::CONNECTION, header::CONTENT_LENGTH];
    for (name, value) in parts.headers.iter().filter(|(name, _)| !framing.contains(name)) {
        answer.extend([name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"].concat());
    }
    answer.extend(b"\r\n");
    answer.extend(body);
    Some(answer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn probes_are_told_from_other_requests() {
        assert_eq!(probe(b"GET /livez HTTP/1.1\r\nHost: a\r\n\r\n"), Some("/livez"));
        assert_eq!(probe(b"GET /readyz?verbose HTTP/1.0\r\n\r\n"), Some("/readyz"));
        for other in [
            "GET /livez HTTP/1.1\r\n",
            "GET /v1/ws HTTP/1.1\r\n\r\n",
            "POST /livez HTTP/1.1\r\n\r\n",
            "GET /livezz X\r\n\r\n",
            "",
        ] {
            assert_eq!(probe(other.as_bytes()), None, "{other}");
        }
    }

    #[tokio::test]
    async fn a_full_node_answers_probes_whoever_holds_their_sockets() {
        let router = Router::new().route("/livez", axum::routing::get(|| async { ([("x-a", "b")], "well") }));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, stop) = (listener.local_addr().unwrap(), CancellationToken::new());
        let second = Duration::from_secs(1);
        let bounds = Bounds { connections: 1, header_timeout: second * 60, write_timeout: second };
        let server = tokio::spawn(serve(listener, router, bounds, stop.clone()));
        let mut silent = Vec::new();
        for _ in 0..1 + files::reserve() {
            silent.push(TcpStream::connect(address).await.unwrap());
        }
        let ask = async |request: &str| {
            let mut stream = TcpStream::connect(address).await.unwrap();
            stream.write_all(request.as_bytes()).await.unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await.unwrap();
            answer
        };
        let answer = ask("GET /livez HTTP/1.1\r\nHost: a\r\n\r\n").await;
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.contains("\r\nx-a: b\r\n"), "{answer}");
        assert!(answer.contains("\r\ncontent-length: 4\r\n") && answer.ends_with("\r\n\r\nwell"), "{answer}");
        assert_eq!(ask("GET /other HTTP/1.1\r\nHost: a\r\n\r\n").await.as_bytes(), FULL);
        drop(silent);
        stop.cancel();
        server.await.unwrap();
    }

    /// More than a semaphore can count.
    #[tokio::test]
    async fn a_bound_without_end_is_no_panic() {
        let (listener, stop) = (TcpListener::bind("127.0.0.1:0").await.unwrap(), CancellationToken::new());
        let second = Duration::from_secs(1);
        let bounds = Bounds { connections: usize::MAX, header_timeout: second, write_timeout: second };
        stop.cancel();
        serve(listener, Router::new(), bounds, stop).await;
    }

    #[test]
    fn the_canned_refusal_is_valid_http() {
        let text = std::str::from_utf8(FULL).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.contains(&format!("content-length: {}", body.len())), "{}", body.len());
        assert!(serde_json::from_str::<serde_json::Value>(body).is_ok());
    }
}
