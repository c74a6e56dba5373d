//! The settings of the agent on a mail server.

use std::net::SocketAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::settings_imap::ImapTls;
use super::values::{FileMode, HostPort, Millis, Secret, Separator};

/// When the spool's bytes are forced to the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SpoolSync {
    /// When the system likes.
    None,
    /// Every `spool_sync_interval_ms`.
    Interval,
}

/// The agent on a mail server.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AgentSettings {
    /// Where its HTTP is bound.
    pub listen: SocketAddr,
    /// A Unix socket that takes the same requests.
    pub socket: Option<PathBuf>,
    /// The socket's permission bits.
    pub socket_mode: FileMode,
    /// What requests over TCP must carry. Empty: nothing.
    pub token: Secret,
    /// Connections at once.
    pub max_connections: usize,
    /// How long the head of a request may take.
    pub header_timeout_ms: Millis,
    /// The longest request body.
    pub body_limit_bytes: usize,
    /// The folder of events that are not published yet.
    pub spool_dir: PathBuf,
    /// How much may wait there.
    pub spool_bytes: u64,
    /// When the spool's bytes are forced to the disk.
    pub spool_sync: SpoolSync,
    /// How often, where it is by interval.
    pub spool_sync_interval_ms: Millis,
    /// How long stopping may take.
    pub drain_deadline_ms: Millis,
    /// `[agent.imap]`
    pub imap: AgentImapSettings,
    /// `[agent.dovecot]`
    pub dovecot: DovecotSettings,
}

impl Default for AgentSettings {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 8081)),
            socket: None,
            socket_mode: FileMode::OWNER_AND_GROUP,
            token: Secret::default(),
            max_connections: 1024,
            header_timeout_ms: Millis(5_000),
            body_limit_bytes: 8 * 1024 * 1024,
            spool_dir: "/var/lib/mailpush/spool".into(),
            spool_bytes: 256 * 1024 * 1024,
            spool_sync: SpoolSync::None,
            spool_sync_interval_ms: Millis(1_000),
            drain_deadline_ms: Millis(5_000),
            imap: AgentImapSettings::default(),
            dovecot: DovecotSettings::default(),
        }
    }
}

/// How the agent asks the mail server for whole sets of flags.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AgentImapSettings {
    /// The mail server's IMAP.
    pub address: HostPort,
    /// How it is spoken to.
    pub tls: ImapTls,
    /// Certificate authorities. None: the system's.
    pub ca_file: Option<PathBuf>,
    /// Empty: flags are not completed.
    pub master_user: String,
    /// Its password.
    pub master_password: Secret,
    /// Whether the server knows users of `auth.default_domain` without their domain.
    pub strip_domain: bool,
    /// How long completing may hold an event back.
    pub timeout_ms: Millis,
    /// Connections at once.
    pub max_connections: usize,
    /// Connections at once as one owner.
    pub connections_per_owner: usize,
    /// How long an unused connection is kept.
    pub idle_timeout_ms: Millis,
}

impl Default for AgentImapSettings {
    fn default() -> Self {
        Self {
            address: HostPort::local(143),
            tls: ImapTls::None,
            ca_file: None,
            master_user: String::new(),
            master_password: Secret::default(),
            strip_domain: false,
            timeout_ms: Millis(500),
            max_connections: 32,
            connections_per_owner: 2,
            idle_timeout_ms: Millis(30_000),
        }
    }
}

/// How Dovecot names mailboxes: its namespaces, as NAMESPACE tells of them (RFC 2342), in UTF-8.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DovecotSettings {
    /// What users' own mailboxes begin with. The first one's is left out of paths.
    pub personal_prefixes: Vec<String>,
    /// What other users' mailboxes begin with; an owner and a separator follow.
    pub shared_prefix: String,
    /// What mailboxes of nobody begin with. Left out of paths if it is the only one.
    pub public_prefixes: Vec<String>,
    /// What mailboxes in hidden namespaces begin with that are another name for the first of the
    /// personal ones.
    pub alias_prefixes: Vec<String>,
    /// Dovecot's hierarchy separator.
    pub separator: Separator,
}

impl Default for DovecotSettings {
    fn default() -> Self {
        Self {
            personal_prefixes: vec![String::new()],
            shared_prefix: "shared/".to_owned(),
            public_prefixes: Vec::new(),
            alias_prefixes: Vec::new(),
            separator: Separator::SLASH,
        }
    }
}
