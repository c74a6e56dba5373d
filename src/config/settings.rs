//! The typed settings, one struct a room. What each means, its unit and its extremes stand in `default.toml`.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{AccessSettings, AgentSettings, ImapSettings};

/// A text that is never printed or logged.
///
/// Line ends at its end are not part of it, wherever it comes from: `echo`, editors and Kubernetes' secrets leave one
/// there, and whoever issues tokens or knows the password has it without.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "String")]
pub struct Secret(String);

impl From<String> for Secret {
    fn from(mut text: String) -> Self {
        text.truncate(text.trim_end_matches(['\r', '\n']).len());
        Self(text)
    }
}

impl Secret {
    pub fn new(text: impl Into<String>) -> Self {
        Self::from(text.into())
    }

    /// The secret itself: for the one call that needs it.
    pub fn expose(&self) -> &str {
        &self.0
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_empty() { "(none)" } else { "(secret)" })
    }
}

/// A span of time, in whole milliseconds in the file (its setting's name ends in `_ms`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Millis(pub u64);

impl From<Millis> for Duration {
    fn from(millis: Millis) -> Self {
        Duration::from_millis(millis.0)
    }
}

impl Millis {
    pub fn duration(self) -> Duration {
        self.into()
    }
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    pub node: NodeSettings,
    pub http: HttpSettings,
    pub sessions: SessionSettings,
    pub auth: AuthSettings,
    pub registry: RegistrySettings,
    pub queue: QueueSettings,
    pub access: AccessSettings,
    pub imap: ImapSettings,
    pub agent: AgentSettings,
    pub log: LogSettings,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct NodeSettings {
    /// Empty: a random one at each start.
    pub id: String,
    /// The name that events published here carry where their origin gave none. Empty: the host's name.
    pub origin: String,
    pub drain_deadline_ms: Millis,
    /// Sessions told goodbye per second.
    pub drain_rate: u32,
}

impl Default for NodeSettings {
    fn default() -> Self {
        Self { id: String::new(), origin: String::new(), drain_deadline_ms: Millis(30_000), drain_rate: 500 }
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HttpSettings {
    pub listen: SocketAddr,
    /// The URL under which other nodes reach this one. Empty: `http://` and the bound address.
    pub advertise: String,
    /// Exact origins (`https://mail.example.org`) whose pages may open sockets.
    pub allowed_origins: Vec<String>,
    pub max_connections: usize,
    pub header_timeout_ms: Millis,
    pub request_timeout_ms: Millis,
    pub body_limit_bytes: usize,
    /// How long another node may take to answer a cluster-wide request.
    pub peer_timeout_ms: Millis,
    /// The proxy through which other nodes are asked. Empty: directly.
    pub peer_proxy: String,
}

impl Default for HttpSettings {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 8080)),
            advertise: String::new(),
            allowed_origins: Vec::new(),
            max_connections: 100_000,
            header_timeout_ms: Millis(10_000),
            request_timeout_ms: Millis(30_000),
            body_limit_bytes: 1024 * 1024,
            peer_timeout_ms: Millis(2_000),
            peer_proxy: String::new(),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SessionSettings {
    pub connect_deadline_ms: Millis,
    pub heartbeat_ms: Millis,
    pub pong_timeout_ms: Millis,
    pub frame_limit_bytes: usize,
    pub subscriptions_per_session: usize,
    pub sessions_per_user: usize,
    pub unauthenticated_sockets: usize,
    pub commands_per_second: u32,
    pub command_burst: u32,
    pub outbox_events: usize,
    pub outbox_bytes: usize,
    pub slow_client_timeout_ms: Millis,
    pub subscribe_timeout_ms: Millis,
    pub expiring_notice_ms: Millis,
    pub resync_spread_ms: Millis,
}

impl Default for SessionSettings {
    fn default() -> Self {
        Self {
            connect_deadline_ms: Millis(10_000),
            heartbeat_ms: Millis(25_000),
            pong_timeout_ms: Millis(8_000),
            frame_limit_bytes: 16 * 1024,
            subscriptions_per_session: 128,
            sessions_per_user: 64,
            unauthenticated_sockets: 10_000,
            commands_per_second: 20,
            command_burst: 200,
            outbox_events: 256,
            outbox_bytes: 256 * 1024,
            slow_client_timeout_ms: Millis(30_000),
            subscribe_timeout_ms: Millis(30_000),
            expiring_notice_ms: Millis(60_000),
            resync_spread_ms: Millis(5_000),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AuthSettings {
    /// A shared secret for HS256, HS384 and HS512.
    pub secret: Secret,
    /// A public key (or certificate) in PEM for RS, PS, ES and EdDSA.
    pub public_key_file: Option<PathBuf>,
    /// Only for `mailpush token`: the private key in PEM.
    pub private_key_file: Option<PathBuf>,
    pub jwks_file: Option<PathBuf>,
    pub jwks_url: String,
    /// The proxy through which `jwks_url` is fetched. Empty: directly.
    pub jwks_proxy: String,
    pub jwks_refresh_ms: Millis,
    pub algorithms: Vec<String>,
    /// Empty: not checked.
    pub issuer: String,
    /// Empty: not checked (tokens that carry an audience are then refused, as RFC 7519 4.1.3 asks).
    pub audience: String,
    pub leeway_ms: Millis,
    pub lowercase_users: bool,
    pub default_domain: String,
}

impl Default for AuthSettings {
    fn default() -> Self {
        Self {
            secret: Secret::default(),
            public_key_file: None,
            private_key_file: None,
            jwks_file: None,
            jwks_url: String::new(),
            jwks_proxy: String::new(),
            jwks_refresh_ms: Millis(300_000),
            algorithms: Vec::new(),
            issuer: String::new(),
            audience: "mailpush".to_owned(),
            leeway_ms: Millis(5_000),
            lowercase_users: true,
            default_domain: String::new(),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RegistryKind {
    Zookeeper,
    Broadcast,
    Local,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RegistrySettings {
    pub kind: RegistryKind,
    /// One connect string (`host:port,host:port`) per ensemble; a key's hash picks one.
    pub ensembles: Vec<String>,
    pub chroot: String,
    pub session_timeout_ms: Millis,
    pub settle_ms: Millis,
    /// How often a node looks whether its registrations still stand.
    pub audit_ms: Millis,
    pub linger_ms: Millis,
    pub lookup_timeout_ms: Millis,
    pub cache_entries: usize,
    /// Digest authentication; with it, only its owner may change the tree.
    pub auth_user: String,
    pub auth_password: Secret,
    pub tls: TlsSettings,
    /// Only for `broadcast`: the URLs of all nodes, for the cluster-wide REST answers.
    pub peers: Vec<String>,
}

impl Default for RegistrySettings {
    fn default() -> Self {
        Self {
            kind: RegistryKind::Zookeeper,
            ensembles: vec!["127.0.0.1:2181".to_owned()],
            chroot: "/mailpush".to_owned(),
            session_timeout_ms: Millis(10_000),
            settle_ms: Millis(1_000),
            audit_ms: Millis(20_000),
            linger_ms: Millis(30_000),
            lookup_timeout_ms: Millis(1_000),
            cache_entries: 50_000,
            auth_user: String::new(),
            auth_password: Secret::default(),
            tls: TlsSettings::default(),
            peers: Vec::new(),
        }
    }
}

/// TLS to ZooKeeper or Kafka. Files in PEM.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TlsSettings {
    pub enabled: bool,
    /// Empty: the system's certificate authorities.
    pub ca_file: Option<PathBuf>,
    pub certificate_file: Option<PathBuf>,
    pub key_file: Option<PathBuf>,
}

/// Properties handed to librdkafka as they are. Only the names are printed: some values are passwords.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Properties(pub BTreeMap<String, String>);

impl fmt::Debug for Properties {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

impl<'a> IntoIterator for &'a Properties {
    type Item = (&'a String, &'a String);
    type IntoIter = std::collections::btree_map::Iter<'a, String, String>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.iter()
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum QueueKind {
    Kafka,
    Local,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Topology {
    PerNode,
    Sharded,
    Broadcast,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct QueueSettings {
    pub kind: QueueKind,
    pub brokers: Vec<String>,
    pub topology: Topology,
    pub prefix: String,
    /// Partitions of the topic that nodes share in the `sharded` topology.
    pub shards: u32,
    pub replication: u16,
    pub retention_ms: Millis,
    /// How long a send may take before it counts as failed.
    pub send_timeout_ms: Millis,
    pub linger_ms: Millis,
    /// Events waiting to be sent, at most; beyond it publishers are told to come back.
    pub max_in_flight: usize,
    pub max_event_bytes: usize,
    /// A dead node's topic is removed after this long.
    pub gc_grace_ms: Millis,
    pub gc_interval_ms: Millis,
    /// Also write every event once to this topic (empty: none).
    pub firehose: String,
    pub tls: TlsSettings,
    /// `PLAIN`, `SCRAM-SHA-256` or `SCRAM-SHA-512`; empty: none.
    pub sasl_mechanism: String,
    pub sasl_user: String,
    pub sasl_password: Secret,
    /// Any further librdkafka properties, applied last.
    pub properties: Properties,
}

impl Default for QueueSettings {
    fn default() -> Self {
        Self {
            kind: QueueKind::Kafka,
            brokers: vec!["127.0.0.1:9092".to_owned()],
            topology: Topology::PerNode,
            prefix: "mailpush".to_owned(),
            shards: 64,
            replication: 1,
            retention_ms: Millis(600_000),
            send_timeout_ms: Millis(10_000),
            linger_ms: Millis(1),
            max_in_flight: 10_000,
            max_event_bytes: 900_000,
            gc_grace_ms: Millis(3_600_000),
            gc_interval_ms: Millis(300_000),
            firehose: String::new(),
            tls: TlsSettings::default(),
            sasl_mechanism: String::new(),
            sasl_user: String::new(),
            sasl_password: Secret::default(),
            properties: Properties::default(),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LogFormat {
    Human,
    Json,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LogSettings {
    pub format: LogFormat,
    /// A `tracing` filter: `info`, `mailpush=debug,info`.
    pub filter: String,
}

impl Default for LogSettings {
    fn default() -> Self {
        Self { format: LogFormat::Human, filter: "info".to_owned() }
    }
}
