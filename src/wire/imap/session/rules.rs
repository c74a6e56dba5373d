//! What the settings say of all sessions of a node, and what is so of one connection.

use std::time::Duration;

use crate::mail::user::UserNames;
use crate::wire::imap::credentials::Credentials;

/// What the session does is decided by these; one a node.
#[derive(Debug, Clone)]
pub struct Rules {
    /// The longest client line that is accepted, in bytes.
    pub line_limit: usize,
    /// How long a client may take to log in.
    pub login_deadline: Duration,
    /// `* OK Still here` after about so much silence in IDLE; each session adds a jitter of its
    /// own.
    pub keepalive: Duration,
    /// A client that idles for so long without a word is logged out (RFC 9051 5.4: not less than 30
    /// minutes).
    pub idle_timeout: Duration,
    /// How long IDLE waits for its registration before it is handed to the server's own IDLE.
    pub register_timeout: Duration,
    /// How long a server that lags behind its events, or cannot be reached, is waited for before `*
    /// BYE`.
    pub catch_up: Duration,
    /// How often a live upstream connection is asked, so that it does not log out and nothing stays
    /// unnoticed.
    pub audit: Duration,
    /// How often a server without IDLE is asked while the cluster is not healthy.
    pub poll: Duration,
    /// When the upstream connection of an idling client is let go; `None`: never.
    pub park_after: Option<Duration>,
    /// How a parked session gets in again.
    pub reentry: Reentry,
    /// How user names are brought to their normal form: owners of shared mailboxes too.
    pub names: UserNames,
    /// The namespaces in which the session itself asks for the rights on mailboxes of others (RFC
    /// 4314 3.5), for nobody else can.
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
