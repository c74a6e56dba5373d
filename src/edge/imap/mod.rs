//! The IMAP door: everything of it that has a socket. The protocol is `wire::imap::session`.
//!
//! A connection enters (`entrance`): PROXY header, limits, TLS, a mail server. Then one task relays
//! for it (`connection`), reading and writing for a session that knows no sockets.

mod announce;
mod arrival;
mod connection;
mod entrance;
mod limits;
mod park;
mod pipe;
pub mod proxy_protocol;
pub mod rights;
mod stream;
pub mod upstream;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};

use self::limits::PerAddress;
use self::park::Pace;
use self::upstream::Upstreams;
use super::gateway::Gateway;
use crate::cluster::registry::RegistryHealth;
use crate::config::{ImapSettings, Net, Park, PlaintextAuth};
use crate::http::files;
use crate::mail::path::PRIVATE;
use crate::push::session::Transport;
use crate::tls::{ServerTls, TlsError};
use crate::wire::imap::credentials::Credentials;
use crate::wire::imap::namespace::SHARED;
use crate::wire::imap::session::{Reentry, Rules};

/// What all IMAP connections of a node share.
pub struct Door {
    gateway: Arc<Gateway>,
    rules: Arc<Rules>,
    tls: Option<ServerTls>,
    upstreams: Arc<Upstreams>,
    trusted: Vec<Net>,
    plaintext_auth: PlaintextAuth,
    addresses: Arc<PerAddress>,
    connections: Arc<Semaphore>,
    unauthenticated: Arc<Semaphore>,
    /// Connections that are being told why they are turned away.
    refusals: Arc<Semaphore>,
    pace: Pace,
    /// Places for ACL changes that wait to be published.
    announcements: Arc<Semaphore>,
    /// Whether registry and queue are well: whether IDLE can be promised.
    healthy: watch::Sender<bool>,
}

/// A door whose ports are bound.
pub struct Listening {
    pub door: Arc<Door>,
    /// Where clients begin in the clear, and where they begin with TLS.
    pub plain: Option<SocketAddr>,
    pub tls: Option<SocketAddr>,
    listeners: Vec<(TcpListener, bool)>,
}

impl Listening {
    /// Takes in connections until the node drains. Ends only by being dropped.
    pub async fn serve(self) {
        let loops = self.listeners.into_iter().map(|(listener, tls)| entrance::serve(self.door.clone(), listener, tls));
        futures::future::join_all(loops).await;
        std::future::pending().await
    }
}

/// Binds the door's ports, and reads its certificate. `None`: there is no such door.
pub async fn open(gateway: &Arc<Gateway>) -> Result<Option<Listening>> {
    let settings = &gateway.settings.imap;
    if !settings.is_on() {
        return Ok(None);
    }
    let door = Arc::new(Door::new(gateway.clone())?);
    let mut listeners = Vec::new();
    let mut bound = [None, None];
    let ports = [(settings.listen, "imap.listen"), (settings.listen_tls, "imap.listen_tls")];
    for (index, (address, setting)) in ports.into_iter().enumerate() {
        let Some(address) = address else { continue };
        let listener = TcpListener::bind(address).await.with_context(|| format!("cannot listen on {address} ({setting})"))?;
        bound[index] = Some(listener.local_addr()?);
        listeners.push((listener, index == 1));
    }
    let [plain, tls] = bound;
    Ok(Some(Listening { door, plain, tls, listeners }))
}

/// The certificate of these settings, if they name one.
pub fn server_tls(settings: &ImapSettings) -> Result<Option<ServerTls>, TlsError> {
    match (&settings.certificate_file, &settings.key_file) {
        (Some(certificate), Some(key)) => ServerTls::load(certificate, key, settings.tls_min).map(Some),
        _ => Ok(None),
    }
}

/// Between batches of sessions that are told of a change.
const TICK: Duration = Duration::from_millis(5);

impl Door {
    fn new(gateway: Arc<Gateway>) -> Result<Self> {
        let settings = &gateway.settings.imap;
        let upstreams = Arc::new(Upstreams::new(&settings.upstream, gateway.metrics.clone()).context("imap.upstream")?);
        Ok(Self {
            rules: Arc::new(rules(&gateway)),
            tls: server_tls(settings).context("imap.certificate_file")?,
            upstreams: gateway.upstreams.get_or_init(|| upstreams).clone(),
            trusted: settings.proxy_protocol_from.clone(),
            plaintext_auth: settings.plaintext_auth,
            addresses: PerAddress::new(settings.connections_per_address),
            connections: Arc::new(Semaphore::new(settings.max_connections.min(Semaphore::MAX_PERMITS))),
            unauthenticated: Arc::new(Semaphore::new(settings.unauthenticated_connections.min(Semaphore::MAX_PERMITS))),
            refusals: Arc::new(Semaphore::new(entrance::REFUSALS.min(files::reserve() as usize / 4))),
            pace: Pace::per_second(settings.unpark_per_second),
            announcements: Arc::new(Semaphore::new(announce::WAITING_IN_ALL)),
            healthy: watch::Sender::new(false),
            gateway,
        })
    }

    fn trusts(&self, address: IpAddr) -> bool {
        self.trusted.iter().any(|net| net.contains(address))
    }

    fn takes_plain_passwords(&self, client: IpAddr) -> bool {
        match self.plaintext_auth {
            PlaintextAuth::Never => false,
            PlaintextAuth::Loopback => client.to_canonical().is_loopback(),
            PlaintextAuth::Always => true,
        }
    }

    /// Keeps every session told whether registry and queue are well. Ends only by being dropped.
    pub async fn watch_health(self: Arc<Self>) {
        let (mut registry, mut queue) = (self.gateway.registry_health.clone(), self.gateway.queue_health.clone());
        loop {
            // While the registry is away for a moment, what is registered stands.
            let registered =
                matches!(*registry.borrow_and_update(), RegistryHealth::Connected | RegistryHealth::Disconnected { .. });
            let healthy = registered && queue.borrow_and_update().state.is_readable();
            // First the value, then the table: whoever enters the table in between reads the value
            // after.
            if self.healthy.send_replace(healthy) != healthy {
                let sessions = self.gateway.sessions.all();
                // Spread: each asks the mail server.
                let ticks = self.gateway.settings.sessions.resync_spread_ms.duration().as_millis() / TICK.as_millis();
                let per_tick = sessions.len().div_ceil(usize::try_from(ticks).unwrap_or(1).max(1)).max(1);
                for some in sessions.chunks(per_tick) {
                    for session in some.iter().filter(|session| session.transport == Transport::Imap) {
                        session.push_health(healthy);
                    }
                    tokio::time::sleep(TICK).await;
                }
            }
            let changed = tokio::select! {
                changed = registry.changed() => changed,
                changed = queue.changed() => changed,
            };
            if changed.is_err() {
                // The node goes down.
                return std::future::pending().await;
            }
        }
    }
}

fn rules(gateway: &Gateway) -> Rules {
    let settings = &gateway.settings.imap;
    let master = || Credentials::new(settings.master.user.clone(), settings.master.password.expose());
    let (park_after, reentry) = match settings.park {
        Park::Never => (None, Reentry::Never),
        Park::Credentials => (Some(settings.park_after_ms.duration()), Reentry::Credentials),
        Park::MasterUser => (Some(settings.park_after_ms.duration()), Reentry::MasterUser(master())),
    };
    let access = &gateway.subscriptions.access;
    let asks_rights = [PRIVATE, SHARED].into_iter().filter(|namespace| access.asks_sessions(namespace)).collect();
    Rules {
        line_limit: settings.line_limit_bytes,
        login_deadline: settings.login_deadline_ms.duration(),
        keepalive: settings.keepalive_ms.duration(),
        idle_timeout: settings.idle_timeout_ms.duration(),
        register_timeout: settings.register_timeout_ms.duration(),
        catch_up: settings.catch_up_ms.duration(),
        audit: settings.audit_ms.duration(),
        poll: settings.poll_ms.duration(),
        park_after,
        reentry,
        names: gateway.names.clone(),
        asks_rights,
    }
}
