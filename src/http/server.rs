//! The accept loop: connections with bounds on their number, their handshake's time and their silence.
//!
//! axum's own `serve` has no time-out for headers and does not wait for upgraded sockets; this has both.

use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceExt;
use tracing::{debug, warn};

use super::patience::Patience;

/// Where a connection comes from; a request's extension. Requests of a Unix socket have none.
#[derive(Debug, Clone, Copy)]
pub struct Peer(pub SocketAddr);

/// How long the kernel tries to send what a peer does not acknowledge.
pub const USER_TIMEOUT: Duration = Duration::from_secs(60);
/// The same over HTTP. A stream has no other way to find that its client is gone than that its heartbeats are not
/// acknowledged, and until then it counts among the sessions of its user.
const HTTP_USER_TIMEOUT: Duration = Duration::from_secs(20);

/// What connections come in by.
pub trait Listener: Send + Sync + 'static {
    type Stream: AsyncRead + AsyncWrite + AsFd + Unpin + Send + 'static;

    fn accept(&self) -> impl Future<Output = io::Result<(Self::Stream, Option<Peer>)>> + Send;

    /// Sets the options of a fresh connection.
    fn tune(stream: &Self::Stream) -> io::Result<()>;
}

impl Listener for TcpListener {
    type Stream = TcpStream;

    async fn accept(&self) -> io::Result<(TcpStream, Option<Peer>)> {
        Self::accept(self).await.map(|(stream, address)| (stream, Some(Peer(address))))
    }

    /// Small pushes must not wait for company, and a peer that is gone must be found.
    fn tune(stream: &TcpStream) -> io::Result<()> {
        stream.set_nodelay(true)?;
        let socket = SockRef::from(stream);
        socket
            .set_tcp_keepalive(&TcpKeepalive::new().with_time(Duration::from_secs(60)).with_interval(Duration::from_secs(15)))?;
        socket.set_tcp_user_timeout(Some(HTTP_USER_TIMEOUT))
    }
}

impl Listener for UnixListener {
    type Stream = UnixStream;

    async fn accept(&self) -> io::Result<(UnixStream, Option<Peer>)> {
        Self::accept(self).await.map(|(stream, _)| (stream, None))
    }

    fn tune(_: &UnixStream) -> io::Result<()> {
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

/// Connections that are told at once that there is no room.
const REFUSALS: usize = 256;

const FULL: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nconnection: close\r\nretry-after: 2\r\ncontent-type: \
application/problem+json\r\ncontent-length: 112\r\n\r\n{\"type\":\"about:blank\",\"title\":\"Service Unavailable\",\
\"status\":503,\"detail\":\"the node has no connection to spare\"}";

/// Serves until `stop`; then lets requests that are under way end.
pub async fn serve<L: Listener>(listener: L, router: Router, bounds: Bounds, stop: CancellationToken) {
    let router = router.layer(axum::middleware::from_fn(super::sound::check));
    let permits = Arc::new(Semaphore::new(bounds.connections));
    let refusals = Arc::new(Semaphore::new(REFUSALS));
    let connections = TaskTracker::new();
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        let (mut stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                // Out of file descriptors, most likely: a moment's pause lets some come free.
                warn!(%error, "cannot accept a connection");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        let Ok(permit) = permits.clone().try_acquire_owned() else {
            // Beyond these, a connection is just dropped.
            if let Ok(refusal) = refusals.clone().try_acquire_owned() {
                tokio::spawn(async move {
                    let _ = tokio::time::timeout(Duration::from_secs(1), refuse(&mut stream)).await;
                    drop(refusal);
                });
            }
            continue;
        };
        if let Err(error) = L::tune(&stream) {
            debug!(%error, "cannot set socket options");
        }
        let permit = ConnectionPermit(Arc::new(permit));
        let service = router.clone().map_request(move |mut request: hyper::Request<hyper::body::Incoming>| {
            if let Some(peer) = peer {
                request.extensions_mut().insert(peer);
            }
            request.extensions_mut().insert(permit.clone());
            request.map(axum::body::Body::new)
        });
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(bounds.header_timeout)
            .max_buf_size(HEAD_BYTES)
            .serve_connection(TokioIo::new(Patience::new(stream, bounds.write_timeout)), TowerToHyperService::new(service))
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

/// Says that there is no room. The request is read too: to drop the socket with unread bytes in it would reset the
/// connection, and the client could lose the answer.
async fn refuse<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut S) -> io::Result<()> {
    stream.write_all(FULL).await?;
    stream.shutdown().await?;
    let mut bytes = [0; 1024];
    while stream.read(&mut bytes).await? > 0 {}
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_canned_refusal_is_valid_http() {
        let text = std::str::from_utf8(FULL).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.contains(&format!("content-length: {}", body.len())), "{}", body.len());
        assert!(serde_json::from_str::<serde_json::Value>(body).is_ok());
    }
}
