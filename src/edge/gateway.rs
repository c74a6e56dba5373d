//! What the doors of one node share.

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use tokio::sync::{Semaphore, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::auth::{AuthError, Authenticator, Identity, Scopes};
use super::followers::Followers;
use super::imap::upstream::Upstreams;
use super::tickets::Tickets;
use crate::cluster::acls::Acls;
use crate::cluster::queue::QueueHealth;
use crate::cluster::registry::{Directory, NodeRecord, RegistryHealth};
use crate::config::Settings;
use crate::lock::Mutex;
use crate::mail::ids::{NodeId, SessionId};
use crate::mail::rights::Subject;
use crate::mail::user::UserNames;
use crate::push::clock::unix_ms;
use crate::push::hub::Hub;
use crate::push::metrics::Metrics;
use crate::push::outbox::Limits;
use crate::push::presence::Presence;
use crate::push::publisher::Publisher;
use crate::push::session::{LiveSession, Transport};
use crate::push::sessions::{Sessions, TooManySessions};
use crate::push::subscriptions::Subscriptions;
use crate::wire::ws::session::{Now, Rules};

/// Departed nodes that `/v1/nodes` still tells of.
const DEPARTED: usize = 64;

/// One node, as its doors see it.
pub struct Gateway {
    pub settings: Arc<Settings>,
    pub names: UserNames,
    pub record: NodeRecord,
    pub auth: Arc<Authenticator>,
    pub hub: Arc<Hub>,
    pub presence: Arc<Presence>,
    pub sessions: Arc<Sessions>,
    pub subscriptions: Arc<Subscriptions>,
    pub publisher: Arc<Publisher>,
    pub directory: Arc<dyn Directory>,
    /// The ACLs that the registry keeps, where it can.
    pub acls: Option<Arc<dyn Acls>>,
    pub registry_health: watch::Receiver<RegistryHealth>,
    pub queue_health: watch::Receiver<QueueHealth>,
    pub metrics: Arc<Metrics>,
    pub tickets: Tickets,
    /// Of the whole cluster's subscriptions.
    pub followers: Followers,
    /// Of this node's subscriptions.
    pub local_followers: Followers,
    pub rules: Arc<Rules>,
    /// One permit per socket that has not shown a token yet.
    pub unauthenticated: Arc<Semaphore>,
    /// Set once the node's queue is being read: before that a session could miss events (I-4).
    pub started: AtomicBool,
    /// Cancelled once the node goes down.
    pub draining: CancellationToken,
    /// Every session's task: what a drain waits for.
    pub tasks: TaskTracker,
    /// To other nodes.
    pub client: reqwest::Client,
    pub departed: Mutex<VecDeque<Departed>>,
    /// Set where the node has an IMAP door.
    pub upstreams: OnceLock<Arc<Upstreams>>,
}

/// A node that is gone.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Departed {
    pub id: NodeId,
    /// When this node noticed, in milliseconds since 1970, UTC.
    pub at: u64,
}

/// Both clocks.
pub fn now() -> Now {
    Now { monotonic: Instant::now(), unix_ms: unix_ms() }
}

impl Gateway {
    /// Whether the node goes down.
    pub fn is_draining(&self) -> bool {
        self.draining.is_cancelled()
    }

    /// Why no session can be taken in now, if so.
    pub fn refusal(&self) -> Option<&'static str> {
        if self.is_draining() {
            Some("the node is going down")
        } else if !self.started.load(Ordering::Acquire) {
            Some("the node is starting and does not read its queue yet")
        } else {
            None
        }
    }

    /// Verifies a token that is presented from an address, and counts a refusal. Waits a moment
    /// where a key set may have to be fetched first.
    pub async fn verify(&self, token: &str, from: IpAddr) -> Result<Identity, AuthError> {
        let verdict = self.auth.verify_or_refresh(token, from).await;
        verdict.inspect_err(|error| Metrics::count(&self.metrics.tokens_refused, "reason", error.name()))
    }

    /// Opens a session that the hub can push to.
    pub fn open_session(
        &self,
        id: SessionId,
        subject: Subject,
        transport: Transport,
        peer: SocketAddr,
    ) -> Result<Arc<LiveSession>, TooManySessions> {
        let limits = Limits { events: self.settings.sessions.outbox_events, bytes: self.settings.sessions.outbox_bytes };
        let session = LiveSession::new(id, subject, transport, peer, unix_ms(), limits);
        self.sessions.add(&session)?;
        Metrics::count(&self.metrics.opened, "transport", transport.as_str());
        Ok(session)
    }

    /// How long a user with too many sessions should stay away: by then a WebSocket whose client is
    /// gone has missed its heartbeat, and no longer counts.
    pub fn until_ghosts_are_gone(&self) -> Duration {
        self.rules.heartbeat + self.rules.pong_timeout
    }

    /// Lets go of everything that a session held.
    pub fn close_session(&self, session: &Arc<LiveSession>, reason: &'static str) {
        self.subscriptions.end(session);
        Metrics::count(&self.metrics.closed, "reason", reason);
    }

    /// The node's id.
    pub fn node(&self) -> &NodeId {
        &self.record.id
    }

    /// Remembers that a node has left the cluster. The oldest departures are forgotten.
    pub fn note_departure(&self, id: NodeId) {
        let mut departed = self.departed.lock();
        if departed.len() == DEPARTED {
            departed.pop_front();
        }
        departed.push_back(Departed { id, at: unix_ms() });
    }

    /// The nodes that have left, the oldest departure first.
    pub fn departed(&self) -> Vec<Departed> {
        self.departed.lock().iter().cloned().collect()
    }

    /// Refreshes the gauges that are read from elsewhere, and renders everything.
    pub fn render_metrics(&self) -> String {
        let m = &self.metrics;
        m.sessions.set(self.sessions.len() as i64);
        m.keys.set(self.hub.keys() as i64);
        m.registrations.set(self.presence.len() as i64);
        let sockets = self.settings.sessions.unauthenticated_sockets;
        m.unauthenticated.set(sockets.saturating_sub(self.unauthenticated.available_permits()) as i64);
        m.registry_connected.set(i64::from(self.registry_health.borrow().is_connected()));
        let queue = self.queue_health.borrow();
        m.queue_reachable.set(i64::from(queue.state.is_good()));
        m.lag.set(queue.lag.unwrap_or(0) as i64);
        drop(queue);
        m.render()
    }
}

/// Whether an identity may use a scope.
pub fn may(identity: &Identity, scope: Scopes) -> bool {
    identity.scopes.contains(scope)
}
