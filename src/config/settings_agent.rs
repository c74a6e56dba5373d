//! The settings of the agent on a mail server.

use std::net::SocketAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::{ImapTls, Millis, Secret};

/// When the spool's bytes are forced to the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SpoolSync {
    None,
    Interval,
}

/// The agent on a mail server.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AgentSettings {
    pub listen: SocketAddr,
    /// A Unix socket that takes the same requests.
    pub socket: Option<PathBuf>,
    /// Octal.
    pub socket_mode: String,
    pub token: Secret,
    pub max_connections: usize,
    pub header_timeout_ms: Millis,
    pub body_limit_bytes: usize,
    pub spool_dir: PathBuf,
    pub spool_bytes: u64,
    pub spool_sync: SpoolSync,
    pub spool_sync_interval_ms: Millis,
    pub drain_deadline_ms: Millis,
    pub imap: AgentImapSettings,
    pub dovecot: DovecotSettings,
}

impl Default for AgentSettings {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 8081)),
            socket: None,
            socket_mode: "0660".to_owned(),
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
    /// `host:port`.
    pub address: String,
    pub tls: ImapTls,
    pub ca_file: Option<PathBuf>,
    /// Empty: flags are not completed.
    pub master_user: String,
    pub master_password: Secret,
    /// Whether the server knows users of `auth.default_domain` without their domain.
    pub strip_domain: bool,
    pub timeout_ms: Millis,
    pub max_connections: usize,
    pub connections_per_owner: usize,
    pub idle_timeout_ms: Millis,
}

impl Default for AgentImapSettings {
    fn default() -> Self {
        Self {
            address: "127.0.0.1:143".to_owned(),
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
    /// What mailboxes in hidden namespaces begin with that are another name for the first of the personal ones.
    pub alias_prefixes: Vec<String>,
    pub separator: String,
}

impl Default for DovecotSettings {
    fn default() -> Self {
        Self {
            personal_prefixes: vec![String::new()],
            shared_prefix: "shared/".to_owned(),
            public_prefixes: Vec::new(),
            alias_prefixes: Vec::new(),
            separator: "/".to_owned(),
        }
    }
}
