//! The settings of the IMAP door.

use std::net::SocketAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::{Millis, Secret};

/// Whether passwords are accepted from clients whose connection is not encrypted (RFC 8314 4.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PlaintextAuth {
    Never,
    /// From this machine only.
    Loopback,
    Always,
}

/// Whether the mail server's connection of an idling client is let go, and how it is taken up again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Park {
    Never,
    Credentials,
    MasterUser,
}

/// Who publishes the `AclChange` of a SETACL or DELETEACL that a client sends through the door.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AclChangesBy {
    /// The gateway, which sees that the server accepts it.
    Gateway,
    /// The mail server or its agent. The gateway would tell of each change a second time.
    Origin,
}

/// The oldest TLS that clients may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum TlsVersion {
    #[serde(rename = "1.2")]
    V1_2,
    #[serde(rename = "1.3")]
    V1_3,
}

/// Which PROXY header the mail server is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ProxyHeader {
    None,
    V1,
    V2,
}

/// The IMAP door. Off unless it listens somewhere.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ImapSettings {
    pub listen: Option<SocketAddr>,
    pub listen_tls: Option<SocketAddr>,
    pub certificate_file: Option<PathBuf>,
    pub key_file: Option<PathBuf>,
    pub tls_min: TlsVersion,
    pub plaintext_auth: PlaintextAuth,
    /// Nets (`10.0.0.0/8`) whose connections begin with a PROXY header.
    pub proxy_protocol_from: Vec<String>,
    pub max_connections: usize,
    pub connections_per_user: usize,
    pub connections_per_address: usize,
    pub unauthenticated_connections: usize,
    pub login_deadline_ms: Millis,
    pub line_limit_bytes: usize,
    pub keepalive_ms: Millis,
    pub idle_timeout_ms: Millis,
    pub register_timeout_ms: Millis,
    pub catch_up_ms: Millis,
    pub audit_ms: Millis,
    pub poll_ms: Millis,
    pub park: Park,
    pub park_after_ms: Millis,
    /// Upstream connections taken up again per second.
    pub unpark_per_second: u32,
    pub acl_changes_by: AclChangesBy,
    pub upstream: UpstreamSettings,
    pub master: MasterSettings,
}

impl Default for ImapSettings {
    fn default() -> Self {
        Self {
            listen: None,
            listen_tls: None,
            certificate_file: None,
            key_file: None,
            tls_min: TlsVersion::V1_2,
            plaintext_auth: PlaintextAuth::Loopback,
            proxy_protocol_from: Vec::new(),
            max_connections: 50_000,
            connections_per_user: 64,
            connections_per_address: 1_000,
            unauthenticated_connections: 2_000,
            login_deadline_ms: Millis(60_000),
            line_limit_bytes: 64 * 1024,
            keepalive_ms: Millis(120_000),
            idle_timeout_ms: Millis(31 * 60_000),
            register_timeout_ms: Millis(5_000),
            catch_up_ms: Millis(10_000),
            audit_ms: Millis(240_000),
            poll_ms: Millis(30_000),
            park: Park::Never,
            park_after_ms: Millis(30_000),
            unpark_per_second: 100,
            acl_changes_by: AclChangesBy::Gateway,
            upstream: UpstreamSettings::default(),
            master: MasterSettings::default(),
        }
    }
}

impl ImapSettings {
    /// Whether there is such a door at all.
    pub fn is_on(&self) -> bool {
        self.listen.is_some() || self.listen_tls.is_some()
    }
}

/// The mail servers behind the IMAP door.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct UpstreamSettings {
    /// `host:port` of each; all serve the same mail store.
    pub addresses: Vec<String>,
    pub tls: ImapTls,
    /// Empty: the system's certificate authorities.
    pub ca_file: Option<PathBuf>,
    /// The name in the servers' certificates. Empty: the host in the address.
    pub tls_name: String,
    pub connect_timeout_ms: Millis,
    pub proxy_protocol: ProxyHeader,
}

impl Default for UpstreamSettings {
    fn default() -> Self {
        Self {
            addresses: Vec::new(),
            tls: ImapTls::None,
            ca_file: None,
            tls_name: String::new(),
            connect_timeout_ms: Millis(5_000),
            proxy_protocol: ProxyHeader::None,
        }
    }
}

/// The mail server's master user, who may log in as any other.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MasterSettings {
    pub user: String,
    pub password: Secret,
    /// Whether the server knows users of `auth.default_domain` without their domain.
    pub strip_domain: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ImapTls {
    None,
    Starttls,
    Tls,
}
