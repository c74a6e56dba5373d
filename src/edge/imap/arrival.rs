//! A connection that has come in: what the one task that serves it begins with.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::sync::OwnedSemaphorePermit;

use super::Door;
use super::limits::AddressPermit;
use super::stream::Stream;
use super::upstream::Connected;

/// The places that a connection takes up for as long as it lives.
pub struct Permits {
    /// One of `imap.max_connections`.
    _connection: OwnedSemaphorePermit,
    /// One of `imap.connections_per_address`.
    _address: AddressPermit,
}

impl Permits {
    pub fn new(connection: OwnedSemaphorePermit, address: AddressPermit) -> Self {
        Self { _connection: connection, _address: address }
    }
}

/// A client's connection that was let in, and the mail server's connection for it.
pub struct Arrival {
    pub door: Arc<Door>,
    pub client: SocketAddr,
    /// The client began with TLS.
    pub tls: bool,
    pub stream: Stream,
    pub upstream: Connected,
    pub permits: Permits,
    /// One of `imap.unauthenticated_connections`, until the client has logged in.
    pub unauthenticated: Option<OwnedSemaphorePermit>,
}
