//! One IMAP session between a client and its server, sans-IO.
//!
//! Outside IDLE it relays bytes and notes what it must know; while the client idles it speaks for the server. The shell
//! around it (`edge/imap`) feeds it bytes, events and the time, writes what it wants written, and does what its
//! [`Action`]s say, in their order.

mod acl;
mod facts;
mod handover;
mod idle;
mod level;
mod prelude;
mod questions;
mod relay;
mod renaming;
mod rights;
mod timers;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use self::acl::AclCommand;
use self::facts::Facts;
use self::idle::Idle;
use self::prelude::{Prelude, Stops};
use self::questions::Questions;
use self::relay::Relayed;

use super::credentials::Credentials;
use super::framing::{Framer, Limits, Piece};
use super::sasl::Exchange;
use crate::mail::path::MailboxPath;
use crate::mail::rights::Rights;
use crate::mail::user::{UserName, UserNames};

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
    /// How user names are brought to their normal form: owners of shared mailboxes too.
    pub names: UserNames,
    /// The namespaces in which the session itself asks for the rights on mailboxes of others (RFC 4314 3.5), for nobody else
    /// can.
    pub asks_rights: Vec<&'static str>,
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
    /// The server accepted this user, as the client wrote the name; answer with [`Session::admit`]. `None`: who it is could
    /// not be learned.
    Authenticated { user: Option<String> },
    /// Register this mailbox, and feed its events from now on; then [`Session::handle_standing`].
    Watch(MailboxPath),
    /// Its events are not wanted any more.
    Unwatch(MailboxPath),
    /// Let the upstream connection go, after writing what is due to it.
    CloseUpstream,
    /// Connect upstream again (paced, unless it is urgent; a paced attempt under way becomes urgent), TLS included; then [`Session::handle_upstream`] with the greeting, or
    /// [`Session::handle_upstream_failed`].
    OpenUpstream {
        /// The client waits for it: not paced.
        urgent: bool,
    },
    /// Something of the watched mailbox was not told, for it is not known whether the user may read it.
    Withheld(MailboxPath),
    /// What the user may do with the watched mailbox; `None`: the server did not say.
    Rights { mailbox: MailboxPath, rights: Option<Rights> },
    /// The client has changed an ACL: an `AclChange` is to be published. `rights` is in the form of SETACL's argument.
    AclChanged { mailbox: MailboxPath, identifier: String, rights: String },
    /// It has changed an ACL, and which one, or how, is not known.
    AclNotUnderstood,
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

/// Whether the user may read the watched mailbox, as the gateway knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reading {
    /// So it is, or it is the session's own business to find out.
    Allowed,
    /// Whoever knows has not answered.
    Unknown,
    Denied,
}

/// Client bytes that are held back while something must come first; beyond it the client waits in its socket.
const HELD_LIMIT: usize = 64 * 1024;
/// The longest server line that is looked at while relaying; longer ones pass unread.
const SERVER_LINE: usize = 64 * 1024;

/// Why the client's input is not read as commands now.
#[derive(Debug)]
enum Hold {
    /// It is.
    No,
    /// The server has not answered LOGIN or AUTHENTICATE yet.
    Login,
    /// The server waits for one more line of a SASL exchange.
    SaslLine,
    /// The shell has not said yet whether the user may be here.
    Admission,
    /// TLS begins.
    Tls,
    /// IDLE was read, but commands before it are not answered yet.
    Barrier {
        tag: Box<[u8]>,
    },
    /// The client idles: a line is awaited once it has been told so.
    Idle,
    /// A command is refused, but what belongs to it is still coming.
    Refused {
        answer: Vec<u8>,
    },
    Closed,
}

/// See the module's words.
#[derive(Debug)]
pub struct Session {
    rules: Arc<Rules>,
    setting: Setting,
    /// What is due to the client; the shell takes it away as it is written.
    pub to_client: Vec<u8>,
    /// What is due to the server.
    pub to_upstream: Vec<u8>,
    actions: VecDeque<Action>,
    client: Framer,
    upstream: Framer,
    /// The client's bytes that wait their turn.
    held: Vec<u8>,
    hold: Hold,
    /// A relayed command that must be understood, as far as it has come.
    command: Option<Box<relay::Gathering>>,
    /// Where the command that is being gathered has synchronizing literals.
    stops: Stops,
    /// A command before authentication that the server takes part by part.
    prelude: Option<Box<Prelude>>,
    /// The server has said goodbye to the client itself.
    said_bye: bool,
    /// A server's response to a question of the gateway, as far as it has come.
    response: Vec<u8>,
    /// Relayed commands whose tagged response has not come.
    due: VecDeque<Relayed>,
    sasl: Option<Box<Exchange>>,
    /// Changes of ACLs that the server has accepted, and that are not told yet.
    acl_changes: Vec<AclCommand>,
    facts: Facts,
    idle: Option<Box<Idle>>,
    reading: Reading,
    /// What the gateway itself has asked the server.
    questions: Option<Box<Questions>>,
    connected: bool,
    healthy: bool,
    /// When the client must have logged in.
    login_due: Option<Instant>,
    serial: u32,
}

fn client_framer(rules: &Rules) -> Framer {
    Framer::new(Limits::client(rules.line_limit, u64::MAX))
}

fn upstream_framer() -> Framer {
    Framer::new(Limits::server(SERVER_LINE))
}

impl Session {
    /// A session whose upstream connection stands; the greeting has not been read yet.
    pub fn new(rules: Arc<Rules>, setting: Setting, now: Instant) -> Self {
        Self {
            client: client_framer(&rules),
            upstream: upstream_framer(),
            login_due: Some(now + rules.login_deadline),
            rules,
            setting,
            to_client: Vec::new(),
            to_upstream: Vec::new(),
            actions: VecDeque::new(),
            held: Vec::new(),
            hold: Hold::No,
            command: None,
            stops: Stops::default(),
            prelude: None,
            said_bye: false,
            response: Vec::new(),
            due: VecDeque::new(),
            sasl: None,
            acl_changes: Vec::new(),
            facts: Facts::default(),
            idle: None,
            reading: Reading::Allowed,
            questions: None,
            connected: true,
            healthy: true,
            serial: 0,
        }
    }

    /// What is to be done next.
    pub fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// When [`Self::handle_timeout`] is due.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let idle = self.idle.as_ref().and_then(|idle| idle.due(self));
        [self.login_due, self.questions.as_ref().map(|q| q.due), idle].into_iter().flatten().min()
    }

    /// Whether more bytes of the client can be taken in; else they wait in its socket.
    pub fn wants_client(&self) -> bool {
        self.held.len() < HELD_LIMIT && !matches!(self.hold, Hold::Tls | Hold::Closed)
    }

    /// Whether the client idles and nothing is going on: the shell may let go of its buffers.
    pub fn is_quiet(&self) -> bool {
        self.idle.is_some() && self.questions.is_none()
    }

    /// Whether the client idles, whoever tells it of changes.
    pub fn is_idling(&self) -> bool {
        self.idle.is_some()
    }

    /// Whether the session has yet to send something to the server for the client: bytes that are held, or questions
    /// around IDLE. Until then the server must not be told that the client sends nothing more.
    pub fn is_holding(&self) -> bool {
        let waits = matches!(self.hold, Hold::Login | Hold::Admission | Hold::Barrier { .. });
        let asks = self.idle.as_ref().is_some_and(|idle| !idle.is_told() || idle.is_ending());
        waits || asks || !self.held.is_empty() || self.prelude.as_ref().is_some_and(|prelude| prelude.has_more())
    }

    /// Whether a command of the client's is not answered yet. IDLE does not count before the client ends it.
    pub fn owes_answer(&self) -> bool {
        self.is_holding() || !self.due.is_empty()
    }

    pub fn handle_client(&mut self, now: Instant, bytes: &[u8]) {
        if !self.held.is_empty() {
            self.held.extend_from_slice(bytes);
            return;
        }
        let mut input = bytes;
        self.read_client(now, &mut input);
        self.held.extend_from_slice(input);
    }

    /// Goes on with what the client sent meanwhile.
    fn resume(&mut self, now: Instant) {
        if self.held.is_empty() {
            return;
        }
        let held = std::mem::take(&mut self.held);
        let mut input = &held[..];
        self.read_client(now, &mut input);
        // What came in between stands behind what is left.
        let rest = input.to_vec();
        self.held.splice(0..0, rest);
    }

    pub fn handle_upstream(&mut self, now: Instant, bytes: &[u8]) {
        let mut input = bytes;
        let mut framer = std::mem::replace(&mut self.upstream, upstream_framer());
        loop {
            match framer.next(&mut input) {
                Ok(Some(piece)) if self.questions.is_some() => self.read_answer(now, &piece),
                Ok(Some(piece)) if self.speaks_for_the_server() => self.read_unasked(now, &piece),
                Ok(Some(piece)) if self.is_about_to_idle() => self.read_before_idling(now, &piece),
                Ok(Some(piece)) => self.read_response(now, &piece),
                Ok(None) => break,
                Err(_) => {
                    self.close(b"* BYE [UNAVAILABLE] The mail server sent what is not IMAP\r\n", "upstream_nonsense");
                    break;
                }
            }
            if matches!(self.hold, Hold::Closed) || !self.connected {
                break;
            }
        }
        self.upstream = if self.connected { framer } else { upstream_framer() };
        self.resume(now);
    }

    fn speaks_for_the_server(&self) -> bool {
        self.idle.as_ref().is_some_and(|idle| idle.view.is_some())
    }

    fn is_about_to_idle(&self) -> bool {
        self.idle.as_ref().is_some_and(|idle| !idle.is_told())
    }

    /// What the server says unasked before the client is told that it idles: it comes behind what waits for that already.
    fn read_before_idling(&mut self, now: Instant, piece: &Piece<'_>) {
        let told = self.to_client.len();
        self.read_response(now, piece);
        if let Some(idle) = &mut self.idle {
            idle.before.extend(self.to_client.drain(told..));
        }
    }

    /// The client's side is encrypted now.
    pub fn handle_tls(&mut self, now: Instant) {
        self.setting.tls = true;
        // Whatever was read before is not read as after it (I-13).
        self.client = client_framer(&self.rules);
        self.held = Vec::new();
        self.hold = Hold::No;
        self.resume(now);
    }

    /// The user may be here under this normalised name (`None`: who it is could not be learned), or not, and why.
    pub fn admit(&mut self, now: Instant, verdict: Result<Option<UserName>, String>) {
        match verdict {
            Ok(user) => {
                self.facts.user = user;
                if matches!(self.hold, Hold::Admission) {
                    self.hold = Hold::No;
                }
                self.resume(now);
            }
            Err(words) => self.bye(&words, "refused"),
        }
    }

    /// Whether registry and queue are healthy.
    pub fn handle_health(&mut self, now: Instant, healthy: bool) {
        if self.healthy != healthy {
            self.healthy = healthy;
            self.idle_health(now);
        }
    }

    /// The node goes down, an administrator ends the session, the right is lost: `* BYE` with these words.
    pub fn handle_end(&mut self, words: &str, reason: &'static str) {
        self.bye(words, reason);
    }

    pub fn handle_timeout(&mut self, now: Instant) {
        if self.login_due.is_some_and(|due| due <= now) {
            self.login_due = None;
            self.bye("Nobody has logged in for too long", "login_deadline");
        } else if self.questions.as_ref().is_some_and(|q| q.due <= now) {
            // It hangs: as good as gone.
            self.actions.push_back(Action::CloseUpstream);
            self.handle_upstream_closed(now);
        } else {
            self.idle_timeout(now);
            self.resume(now);
        }
    }

    /// The server closed the connection, or it broke.
    pub fn handle_upstream_closed(&mut self, now: Instant) {
        let whole = self.upstream.is_between();
        self.connected = false;
        self.upstream = upstream_framer();
        self.response = Vec::new();
        let asked = self.questions.take();
        if matches!(self.hold, Hold::Closed) {
            return;
        }
        if self.idle.is_some() {
            self.idle_lost_upstream(now, asked.as_deref());
        } else if whole && !self.said_bye {
            self.bye("The mail server has closed the connection", "upstream_closed");
        } else {
            // In the middle of a response nothing can be said, and after a goodbye nothing more.
            self.close(b"", "upstream_closed");
        }
    }

    fn bye(&mut self, words: &str, reason: &'static str) {
        // In the middle of a relayed response nothing can be said.
        let whole = self.questions.is_some() || self.upstream.is_between();
        let line = format!("* BYE {words}\r\n");
        self.close(if whole { line.as_bytes() } else { b"" }, reason);
    }

    fn close(&mut self, last: &[u8], reason: &'static str) {
        if matches!(self.hold, Hold::Closed) {
            return;
        }
        self.to_client.extend_from_slice(last);
        self.hold = Hold::Closed;
        self.login_due = None;
        self.questions = None;
        for _ in std::mem::take(&mut self.acl_changes) {
            self.actions.push_back(Action::AclNotUnderstood);
        }
        if let Some(path) = self.idle.take().and_then(|idle| idle.watched()) {
            self.actions.push_back(Action::Unwatch(path));
        }
        self.actions.push_back(Action::Close { reason });
    }
}

#[cfg(test)]
mod tests;
