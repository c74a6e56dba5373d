//! The typed settings, one struct a room. What each means, its unit and its extremes stand in
//! `default.toml`.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::settings_access::AccessSettings;
use super::settings_agent::AgentSettings;
use super::settings_imap::ImapSettings;
use super::values::{
    BaseUrl, Chroot, Ensemble, HostPort, KeySetUrl, LogFilter, Millis, ProxyUrl, Secret, SignatureAlgorithm, TopicName,
    TopicPrefix, WebOrigin,
};
use crate::mail::ids::NodeId;

/// All settings, one struct for each section of the file.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// `[node]`
    pub node: NodeSettings,
    /// `[http]`
    pub http: HttpSettings,
    /// `[sessions]`
    pub sessions: SessionSettings,
    /// `[auth]`
    pub auth: AuthSettings,
    /// `[registry]`
    pub registry: RegistrySettings,
    /// `[queue]`
    pub queue: QueueSettings,
    /// `[access]`
    pub access: AccessSettings,
    /// `[imap]`
    pub imap: ImapSettings,
    /// `[agent]`
    pub agent: AgentSettings,
    /// `[log]`
    pub log: LogSettings,
}

/// This node.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct NodeSettings {
    /// None: a random one at each start.
    pub id: Option<NodeId>,
    /// The name that events published here carry where their origin gave none. Empty: the host's
    /// name.
    pub origin: String,
    /// How long stopping may take.
    pub drain_deadline_ms: Millis,
    /// Sessions told goodbye per second.
    pub drain_rate: u32,
}

impl Default for NodeSettings {
    fn default() -> Self {
        Self { id: None, origin: String::new(), drain_deadline_ms: Millis(30_000), drain_rate: 500 }
    }
}

/// The HTTP door: REST, WebSocket and SSE.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HttpSettings {
    /// Where it is bound.
    pub listen: SocketAddr,
    /// The URL under which other nodes reach this one. None: `http://` and the bound address.
    pub advertise: Option<BaseUrl>,
    /// Exact origins (`https://mail.example.org`) whose pages may open sockets.
    pub allowed_origins: Vec<WebOrigin>,
    /// Connections at once, of any kind.
    pub max_connections: usize,
    /// How long the head of a request may take.
    pub header_timeout_ms: Millis,
    /// How long a REST request may take until it is answered with 503.
    pub request_timeout_ms: Millis,
    /// The longest request body.
    pub body_limit_bytes: usize,
    /// How long another node may take to answer a cluster-wide request.
    pub peer_timeout_ms: Millis,
    /// The proxy through which other nodes are asked. None: directly.
    pub peer_proxy: Option<ProxyUrl>,
}

impl Default for HttpSettings {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 8080)),
            advertise: None,
            allowed_origins: Vec::new(),
            max_connections: 100_000,
            header_timeout_ms: Millis(10_000),
            request_timeout_ms: Millis(30_000),
            body_limit_bytes: 1024 * 1024,
            peer_timeout_ms: Millis(2_000),
            peer_proxy: None,
        }
    }
}

/// WebSocket and SSE sessions.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SessionSettings {
    /// How long a socket may be open without a valid token.
    pub connect_deadline_ms: Millis,
    /// After so long without a frame one is sent.
    pub heartbeat_ms: Millis,
    /// How long a client may take to answer it.
    pub pong_timeout_ms: Millis,
    /// A client's longest frame.
    pub frame_limit_bytes: usize,
    /// Subscriptions of one session, at most.
    pub subscriptions_per_session: usize,
    /// Sessions of one user on this node, at most.
    pub sessions_per_user: usize,
    /// Sockets without a token on this node, at most.
    pub unauthenticated_sockets: usize,
    /// Commands of a session per second, in the long run.
    pub commands_per_second: u32,
    /// Commands of a session at once.
    pub command_burst: u32,
    /// Events that may wait for a client before they collapse into a `resync`.
    pub outbox_events: usize,
    /// The same in bytes.
    pub outbox_bytes: usize,
    /// A client that takes nothing for so long is closed.
    pub slow_client_timeout_ms: Millis,
    /// How long a subscription may take until it is settled.
    pub subscribe_timeout_ms: Millis,
    /// How long before its token expires a session is told. 0: never.
    pub expiring_notice_ms: Millis,
    /// Over how long the `resync`s after an outage are spread. 0: not at all.
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

/// What tokens are checked with, and what users are called. Exactly one source of keys.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AuthSettings {
    /// A shared secret for HS256, HS384 and HS512.
    pub secret: Secret,
    /// A public key (or certificate) in PEM for RS, PS, ES and EdDSA.
    pub public_key_file: Option<PathBuf>,
    /// Only for `mailpush token`: the private key in PEM.
    pub private_key_file: Option<PathBuf>,
    /// A JSON Web Key Set (RFC 7517), read again when it changes.
    pub jwks_file: Option<PathBuf>,
    /// The same from a URL.
    pub jwks_url: Option<KeySetUrl>,
    /// The proxy through which `jwks_url` is fetched. None: directly.
    pub jwks_proxy: Option<ProxyUrl>,
    /// How often a key set is fetched or looked at.
    pub jwks_refresh_ms: Millis,
    /// Signature algorithms accepted. Empty: all that fit the key.
    pub algorithms: Vec<SignatureAlgorithm>,
    /// Empty: not checked.
    pub issuer: String,
    /// Empty: not checked (tokens that carry an audience are then refused, as RFC 7519 4.1.3 asks).
    pub audience: String,
    /// How far clocks may disagree.
    pub leeway_ms: Millis,
    /// Whether user names that differ in case only are one user.
    pub lowercase_users: bool,
    /// The domain of user names that have none. Empty: they stay without.
    pub default_domain: String,
}

impl Default for AuthSettings {
    fn default() -> Self {
        Self {
            secret: Secret::default(),
            public_key_file: None,
            private_key_file: None,
            jwks_file: None,
            jwks_url: None,
            jwks_proxy: None,
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

/// Where registrations are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RegistryKind {
    /// In ZooKeeper.
    Zookeeper,
    /// Nowhere: every event goes to every node.
    Broadcast,
    /// In this process: only in `mailpush dev`.
    Local,
}

/// The registry.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RegistrySettings {
    /// Where registrations are.
    pub kind: RegistryKind,
    /// At least one, for `zookeeper`; a key's hash picks one.
    pub ensembles: Vec<Ensemble>,
    /// The znode below which everything is kept.
    pub chroot: Chroot,
    /// After so long without contact ZooKeeper forgets what a node registered.
    pub session_timeout_ms: Millis,
    /// How far the view of a publisher may lag behind a registration (I-5).
    pub settle_ms: Millis,
    /// How often a node looks whether its registrations still stand.
    pub audit_ms: Millis,
    /// How long a registration outlives its last subscriber.
    pub linger_ms: Millis,
    /// How long a lookup may take until everybody is told.
    pub lookup_timeout_ms: Millis,
    /// Answers that a publisher keeps.
    pub cache_entries: usize,
    /// Digest authentication; with it, only its owner may change the tree.
    pub auth_user: String,
    /// Its password.
    pub auth_password: Secret,
    /// TLS to ZooKeeper.
    pub tls: TlsSettings,
    /// Only for `broadcast`: the URLs of all nodes, for the cluster-wide REST answers.
    pub peers: Vec<BaseUrl>,
}

impl Default for RegistrySettings {
    fn default() -> Self {
        Self {
            kind: RegistryKind::Zookeeper,
            ensembles: vec![HostPort::local(2181).into()],
            chroot: Chroot::default(),
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
    /// Whether connections are encrypted.
    pub enabled: bool,
    /// Empty: the system's certificate authorities.
    pub ca_file: Option<PathBuf>,
    /// The client's certificate, if one is asked for.
    pub certificate_file: Option<PathBuf>,
    /// Its key.
    pub key_file: Option<PathBuf>,
}

/// Properties handed to librdkafka as they are. Only the names are printed: some values are
/// passwords.
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

/// Where queues are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum QueueKind {
    /// In Kafka.
    Kafka,
    /// In this process: only in `mailpush dev`.
    Local,
}

/// Which queue a node reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Topology {
    /// A topic of its own.
    PerNode,
    /// A partition of a topic, which other nodes may read too.
    Sharded,
    /// One topic that all nodes read.
    Broadcast,
}

/// How a client shows Kafka who it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum SaslMechanism {
    /// RFC 4616: the password itself.
    #[serde(rename = "PLAIN")]
    Plain,
    /// RFC 7677: a proof of it.
    #[serde(rename = "SCRAM-SHA-256")]
    ScramSha256,
    /// The same with a longer hash.
    #[serde(rename = "SCRAM-SHA-512")]
    ScramSha512,
}

impl SaslMechanism {
    /// Its registered name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Plain => "PLAIN",
            Self::ScramSha256 => "SCRAM-SHA-256",
            Self::ScramSha512 => "SCRAM-SHA-512",
        }
    }
}

/// The queue system.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct QueueSettings {
    /// Where queues are.
    pub kind: QueueKind,
    /// The brokers to start from, at least one.
    pub brokers: Vec<HostPort>,
    /// Which queue a node reads.
    pub topology: Topology,
    /// What the names of all topics begin with.
    pub prefix: TopicPrefix,
    /// Partitions of the topic that nodes share in the `sharded` topology.
    pub shards: u32,
    /// Copies of each topic.
    pub replication: u16,
    /// How long events are kept.
    pub retention_ms: Millis,
    /// How long a send may take before it counts as failed.
    pub send_timeout_ms: Millis,
    /// How long a send waits for others.
    pub linger_ms: Millis,
    /// Events waiting to be sent, at most; beyond it publishers are told to come back.
    pub max_in_flight: usize,
    /// The longest event; a longer one goes without its detail.
    pub max_event_bytes: usize,
    /// A dead node's topic is removed after this long.
    pub gc_grace_ms: Millis,
    /// How often nodes look for topics of dead nodes.
    pub gc_interval_ms: Millis,
    /// Also write every event once to this topic.
    pub firehose: Option<TopicName>,
    /// TLS to Kafka.
    pub tls: TlsSettings,
    /// How clients show who they are. None: not at all.
    pub sasl_mechanism: Option<SaslMechanism>,
    /// As whom.
    pub sasl_user: String,
    /// With which password.
    pub sasl_password: Secret,
    /// Any further librdkafka properties, applied last.
    pub properties: Properties,
}

impl Default for QueueSettings {
    fn default() -> Self {
        Self {
            kind: QueueKind::Kafka,
            brokers: vec![HostPort::local(9092)],
            topology: Topology::PerNode,
            prefix: TopicPrefix::default(),
            shards: 64,
            replication: 1,
            retention_ms: Millis(600_000),
            send_timeout_ms: Millis(10_000),
            linger_ms: Millis(1),
            max_in_flight: 10_000,
            max_event_bytes: 900_000,
            gc_grace_ms: Millis(3_600_000),
            gc_interval_ms: Millis(300_000),
            firehose: None,
            tls: TlsSettings::default(),
            sasl_mechanism: None,
            sasl_user: String::new(),
            sasl_password: Secret::default(),
            properties: Properties::default(),
        }
    }
}

/// For whom the log is written: one line for each event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LogFormat {
    /// For people.
    Human,
    /// For machines: one JSON object a line.
    Json,
}

/// The log.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LogSettings {
    /// For people or for machines.
    pub format: LogFormat,
    /// What is logged.
    pub filter: LogFilter,
}

impl Default for LogSettings {
    fn default() -> Self {
        Self { format: LogFormat::Human, filter: LogFilter::default() }
    }
}
