//! One IMAP session between a client and its server, sans-IO.
//!
//! Outside IDLE it relays bytes and notes what it must know; while the client idles it speaks for the server. The shell
//! around it (`edge/imap`) feeds it bytes, events and the time, writes what it wants written, and does what its
//! [`Action`]s say, in their order.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::credentials::Credentials;
use crate::mail::event::Event;
use crate::mail::path::MailboxPath;
use crate::mail::user::UserName;

/// What the session does is decided by these; one a node.
#[derive(Debug, Clone)]
pub struct Rules {
    /// The longest client line that is accepted, in bytes.
    pub line_limit: usize,
    /// How long a client may take to log in.
    pub login_deadline: Duration,
    /// `* OK Still here` after about so much silence in IDLE; each session adds a jitter of its own.
    pub keepalive: Duration,
    /// A client that idles for so long without a word is logged out (RFC 9051 5.4: not less than 30 minutes).
    pub idle_timeout: Duration,
    /// How long IDLE waits for its registration before it is handed to the server's own IDLE.
    pub register_timeout: Duration,
    /// How long a server that lags behind its events, or cannot be reached, is waited for before `* BYE`.
    pub catch_up: Duration,
    /// How often a live upstream connection is asked, so that it does not log out and nothing stays unnoticed.
    pub audit: Duration,
    /// How often a server without IDLE is asked while the cluster is not healthy.
    pub poll: Duration,
    /// When the upstream connection of an idling client is let go; `None`: never.
    pub park_after: Option<Duration>,
    /// How a parked session gets in again.
    pub reentry: Reentry,
}

/// How the gateway logs in on a client's behalf when it takes an upstream connection up again.
#[derive(Debug, Clone)]
pub enum Reentry {
    Never,
    /// With what the client itself logged in with (LOGIN and PLAIN only).
    Credentials,
    /// As a master user with the client's name as authorization identity (SASL PLAIN).
    MasterUser(Credentials),
}

/// What one connection is like.
#[derive(Debug, Clone, Copy)]
pub struct Setting {
    /// The client's side is encrypted already.
    pub tls: bool,
    /// STARTTLS can be done on the client's side.
    pub starttls: bool,
    /// Passwords are accepted although the client's side is not encrypted.
    pub plaintext_auth: bool,
    /// Spreads keep-alives and the like.
    pub seed: u64,
}

/// What the shell must do, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Write what is due to the client, then begin TLS as a server; then [`Session::handle_tls`].
    StartTls,
    /// The server accepted this user, as it was written; answer with [`Session::admit`]. `None`: who it is could not be
    /// learned.
    Authenticated { user: Option<String> },
    /// Register this mailbox, and feed its events from now on; then [`Session::handle_standing`].
    Watch(MailboxPath),
    /// Its events are not wanted any more.
    Unwatch(MailboxPath),
    /// Let the upstream connection go, after writing what is due to it.
    CloseUpstream,
    /// Connect upstream again (paced), TLS included; then [`Session::handle_upstream`] with the greeting, or
    /// [`Session::handle_upstream_failed`].
    OpenUpstream,
    /// Write what is due to the client and close.
    Close { reason: &'static str },
}

/// How the registration of the watched mailbox stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// Acknowledged: what is published from now on comes, but for publishers whose lookups are stale (I-5).
    Registered,
    /// Every publisher finds it.
    Settled,
    /// It could not be registered, or is lost.
    Unavailable,
}

/// See the module's words.
#[derive(Debug)]
pub struct Session {
    pub to_client: Vec<u8>,
    pub to_upstream: Vec<u8>,
}

impl Session {
    /// A session whose upstream connection stands; the greeting has not been read yet.
    pub fn new(rules: Arc<Rules>, setting: Setting, now: Instant) -> Self {
        let _ = (rules, setting, now);
        Self { to_client: Vec::new(), to_upstream: Vec::new() }
    }

    /// What is to be done next.
    pub fn poll_action(&mut self) -> Option<Action> {
        None
    }

    /// When [`Self::handle_timeout`] is due.
    pub fn poll_timeout(&self) -> Option<Instant> {
        None
    }

    /// Whether more bytes of the client can be taken in; else they wait in its socket.
    pub fn wants_client(&self) -> bool {
        true
    }

    pub fn handle_client(&mut self, now: Instant, bytes: &[u8]) {
        let _ = now;
        self.to_upstream.extend_from_slice(bytes);
    }

    pub fn handle_upstream(&mut self, now: Instant, bytes: &[u8]) {
        let _ = now;
        self.to_client.extend_from_slice(bytes);
    }

    /// The client's side is encrypted now.
    pub fn handle_tls(&mut self) {}

    /// The server closed the connection, or it broke.
    pub fn handle_upstream_closed(&mut self, now: Instant) {
        let _ = now;
    }

    /// It could not be opened again.
    pub fn handle_upstream_failed(&mut self, now: Instant) {
        let _ = now;
    }

    /// The user may be here under this normalised name, or not, and why.
    pub fn admit(&mut self, now: Instant, verdict: Result<UserName, String>) {
        let _ = (now, verdict);
    }

    pub fn handle_standing(&mut self, now: Instant, mailbox: &MailboxPath, standing: Standing) {
        let _ = (now, mailbox, standing);
    }

    /// An event of the watched mailbox, out of the queue.
    pub fn handle_event(&mut self, now: Instant, event: &Event) {
        let _ = (now, event);
    }

    /// Continuity is broken: something may have been missed (I-6).
    pub fn handle_resync(&mut self, now: Instant) {
        let _ = now;
    }

    /// Whether registry and queue are healthy.
    pub fn handle_health(&mut self, now: Instant, healthy: bool) {
        let _ = (now, healthy);
    }

    /// The node goes down, an administrator ends the session, the right is lost: `* BYE` with these words.
    pub fn handle_end(&mut self, now: Instant, words: &str) {
        let _ = (now, words);
    }

    pub fn handle_timeout(&mut self, now: Instant) {
        let _ = now;
    }
}
