//! How a connection comes in: PROXY header, limits, TLS, a mail server. Whoever is turned away is
//! told why.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::OwnedSemaphorePermit;
use tokio_rustls::TlsAcceptor;
use tracing::{debug, warn};

use super::Door;
use super::arrival::{Arrival, Permits};
use super::connection::Connection;
use super::proxy_protocol;
use super::stream::{Stream, accept_tls, tune};
use crate::http::files;
use crate::http::seldom::Seldom;
use crate::push::metrics::Metrics;

/// Connections that are told at once why they are turned away; beyond these, one is just dropped.
pub const REFUSALS: usize = 256;
/// How long a load balancer may take over its header.
const HEADER_TIMEOUT: Duration = Duration::from_secs(5);
/// How long telling somebody that they cannot come in may take.
const REFUSAL_TIMEOUT: Duration = Duration::from_secs(5);
/// How long their side of the close is waited for.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// Why a connection is turned away.
#[derive(Debug, Clone, Copy)]
enum Refusal {
    Full,
    Unauthenticated,
    Address,
    Upstream,
    Header,
    NotNow(&'static str),
}

impl Refusal {
    fn name(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Unauthenticated => "unauthenticated",
            Self::Address => "address",
            Self::Upstream => "upstream",
            Self::Header => "proxy_header",
            Self::NotNow(_) => "not_now",
        }
    }

    /// What is told (RFC 5530 3).
    fn line(self) -> String {
        let words = match self {
            Self::Full => "The server has no connection to spare, try again later",
            Self::Unauthenticated => "Too many connections are logging in, try again later",
            Self::Address => "Too many connections from your address, try again later",
            Self::Upstream => "The mail server cannot be reached, try again later",
            Self::Header => "A PROXY header was expected",
            Self::NotNow(words) => words,
        };
        format!("* BYE [UNAVAILABLE] {words}\r\n")
    }
}

/// Takes connections in until the node drains.
pub async fn serve(door: Arc<Door>, listener: TcpListener, implicit_tls: bool) {
    let (mut failures, mut refusals) = (Seldom::default(), Seldom::default());
    loop {
        let accepted = tokio::select! {
            () = door.gateway.draining.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                if let Some(times) = failures.again(Instant::now()) {
                    warn!(%error, times, "cannot accept an IMAP connection");
                }
                // Out of file descriptors, most likely: a moment's pause lets some come free.
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        if let Err(error) = tune(&stream) {
            debug!(%error, "cannot set socket options");
        }
        let is_scarce = files::is_scarce(&stream);
        let connection = door.connections.clone().try_acquire_owned().ok().filter(|_| !is_scarce);
        if connection.is_none()
            && let Some(times) = refusals.again(Instant::now())
        {
            let what = if is_scarce { "open files" } else { "connections (imap.max_connections)" };
            warn!(times, open_files = files::limit(), "new mail apps are refused: no {what} left");
        }
        let unauthenticated = door.unauthenticated.clone().try_acquire_owned();
        let arriving = Arriving { door: door.clone(), stream, peer, implicit_tls };
        match (door.gateway.refusal(), connection, unauthenticated) {
            (None, Some(connection), Ok(unauthenticated)) => {
                door.gateway.tasks.spawn(enter(arriving, connection, unauthenticated));
            }
            (Some(words), ..) => arriving.turn_away_aside(Refusal::NotNow(words)),
            (_, None, _) => arriving.turn_away_aside(Refusal::Full),
            (_, _, Err(_)) => arriving.turn_away_aside(Refusal::Unauthenticated),
        }
    }
}

/// A connection at the door.
struct Arriving {
    door: Arc<Door>,
    stream: TcpStream,
    peer: SocketAddr,
    implicit_tls: bool,
}

impl Arriving {
    /// The client's address. From a trusted net (`imap.proxy_protocol_from`) a PROXY header must
    /// come first; from others none is read.
    async fn client(&mut self) -> Result<SocketAddr, proxy_protocol::HeaderError> {
        if !self.door.trusts(self.peer.ip()) {
            return Ok(self.peer);
        }
        let read = tokio::time::timeout(HEADER_TIMEOUT, proxy_protocol::read(&mut self.stream));
        let read = read.await.unwrap_or_else(|_| Err(io::Error::from(io::ErrorKind::TimedOut).into()))?;
        Ok(read.unwrap_or(self.peer))
    }

    async fn encrypted(self) -> io::Result<Stream> {
        match &self.door.tls {
            Some(tls) if self.implicit_tls => accept_tls(TlsAcceptor::from(tls.config()), self.stream).await,
            _ => Ok(Stream::Plain(self.stream)),
        }
    }

    /// In a task of its own, of which there are not too many.
    fn turn_away_aside(mut self, refusal: Refusal) {
        Metrics::count(&self.door.gateway.metrics.imap_refused, "reason", refusal.name());
        let Ok(permit) = self.door.refusals.clone().try_acquire_owned() else { return };
        tokio::spawn(async move {
            let told = async {
                if self.client().await.is_ok()
                    && let Ok(mut stream) = self.encrypted().await
                {
                    let _ = refuse(&mut stream, refusal).await;
                }
            };
            let _ = tokio::time::timeout(REFUSAL_TIMEOUT, told).await;
            drop(permit);
        });
    }
}

/// Says goodbye. What the client has sent is read too: to drop the socket with unread bytes in it
/// would reset the connection, and the client could lose the line.
async fn refuse(stream: &mut Stream, refusal: Refusal) -> io::Result<()> {
    stream.write_all(refusal.line().as_bytes()).await?;
    stream.shutdown().await?;
    let drained = async {
        let mut bytes = [0; 1024];
        while stream.read(&mut bytes).await? > 0 {}
        Ok(())
    };
    tokio::time::timeout(CLOSE_TIMEOUT, drained).await.unwrap_or(Ok(()))
}

async fn enter(arriving: Arriving, connection: OwnedSemaphorePermit, unauthenticated: OwnedSemaphorePermit) {
    // Boxed, so that the memory needed to let a connection in is not kept for its whole life.
    let Some(mut arrival) = Box::pin(arrive(arriving, connection)).await else { return };
    arrival.unauthenticated = Some(unauthenticated);
    Connection::new(arrival).run().await;
}

async fn arrive(mut arriving: Arriving, connection: OwnedSemaphorePermit) -> Option<Arrival> {
    let (door, implicit_tls) = (arriving.door.clone(), arriving.implicit_tls);
    let client = match arriving.client().await {
        Ok(client) => client,
        Err(error) => {
            Metrics::count(&door.gateway.metrics.imap_refused, "reason", Refusal::Header.name());
            warn!(peer = %arriving.peer, %error, "a connection from a net in imap.proxy_protocol_from is dropped");
            // Unencrypted on either port: without a header no TLS would come either.
            let mut stream = Stream::Plain(arriving.stream);
            let _ = tokio::time::timeout(REFUSAL_TIMEOUT, refuse(&mut stream, Refusal::Header)).await;
            return None;
        }
    };
    let Some(address) = door.addresses.enter(client.ip()) else {
        arriving.turn_away(Refusal::Address).await;
        return None;
    };
    let mut stream = match arriving.encrypted().await {
        Ok(stream) => stream,
        Err(error) => {
            Metrics::count(&door.gateway.metrics.imap_refused, "reason", "tls");
            debug!(%client, %error, "a TLS handshake failed");
            return None;
        }
    };
    match door.upstreams.connect(client, false).await {
        Ok(upstream) => {
            let permits = Permits::new(connection, address);
            Some(Arrival { door, client, tls: implicit_tls, stream, upstream, permits, unauthenticated: None })
        }
        Err(error) => {
            Metrics::count(&door.gateway.metrics.imap_refused, "reason", Refusal::Upstream.name());
            debug!(%client, %error, "a connection is turned away");
            let _ = tokio::time::timeout(REFUSAL_TIMEOUT, refuse(&mut stream, Refusal::Upstream)).await;
            None
        }
    }
}

impl Arriving {
    /// In the connection's own task, its header being read.
    async fn turn_away(self, refusal: Refusal) {
        Metrics::count(&self.door.gateway.metrics.imap_refused, "reason", refusal.name());
        let told = async {
            if let Ok(mut stream) = self.encrypted().await {
                let _ = refuse(&mut stream, refusal).await;
            }
        };
        let _ = tokio::time::timeout(REFUSAL_TIMEOUT, told).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_refusal_is_one_line_with_a_reason() {
        let all = [
            Refusal::Full,
            Refusal::Unauthenticated,
            Refusal::Address,
            Refusal::Upstream,
            Refusal::Header,
            Refusal::NotNow("later"),
        ];
        for refusal in all {
            let line = refusal.line();
            assert!(line.starts_with("* BYE [UNAVAILABLE] ") && line.ends_with("\r\n"), "{line}");
            assert_eq!(line.lines().count(), 1);
        }
    }
}
