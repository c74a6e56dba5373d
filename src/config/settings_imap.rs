//! The settings of the IMAP door.

use std::net::SocketAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::net::Net;
use super::values::{HostPort, Millis, Secret, TlsName};

/// Whether passwords are accepted from clients whose connection is not encrypted (RFC 8314 4.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PlaintextAuth {
    /// Not accepted.
    Never,
    /// From this machine only.
    Loopback,
    /// Accepted, and readable by anybody on the way.
    Always,
}

/// Whether the mail server's connection of an idling client is let go, and how it is taken up
/// again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Park {
    /// It is kept.
    Never,
    /// With the client's own credentials, kept in memory.
    Credentials,
    /// As the master user.
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
    /// TLS 1.2 (RFC 5246).
    #[serde(rename = "1.2")]
    V1_2,
    /// TLS 1.3 (RFC 8446).
    #[serde(rename = "1.3")]
    V1_3,
}

/// Which PROXY header the mail server is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ProxyHeader {
    /// None.
    None,
    /// Version 1: a line of text.
    V1,
    /// Version 2: binary.
    V2,
}

/// The IMAP door. Off unless it listens somewhere.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ImapSettings {
    /// Where clients begin in the clear.
    pub listen: Option<SocketAddr>,
    /// Where clients begin with TLS (RFC 8314).
    pub listen_tls: Option<SocketAddr>,
    /// The certificate chain, in PEM.
    pub certificate_file: Option<PathBuf>,
    /// Its key, in PEM.
    pub key_file: Option<PathBuf>,
    /// The oldest TLS accepted.
    pub tls_min: TlsVersion,
    /// Whether passwords are accepted without encryption.
    pub plaintext_auth: PlaintextAuth,
    /// Nets whose connections begin with a PROXY header.
    pub proxy_protocol_from: Vec<Net>,
    /// Connections at once.
    pub max_connections: usize,
    /// Connections of one user on this node.
    pub connections_per_user: usize,
    /// Connections from one address (IPv6: one /64).
    pub connections_per_address: usize,
    /// Connections that have not logged in.
    pub unauthenticated_connections: usize,
    /// How long a client may take to log in.
    pub login_deadline_ms: Millis,
    /// A client's longest line, literals not counted.
    pub line_limit_bytes: usize,
    /// After so long in silence an idling client is sent something.
    pub keepalive_ms: Millis,
    /// A client that idles for so long is logged out (RFC 9051 5.4).
    pub idle_timeout_ms: Millis,
    /// How long IDLE waits for its registration.
    pub register_timeout_ms: Millis,
    /// How long a server that lags is waited for at the end of IDLE.
    pub catch_up_ms: Millis,
    /// How often the server is asked while a client idles.
    pub audit_ms: Millis,
    /// How often a server without IDLE is asked while the cluster is ill.
    pub poll_ms: Millis,
    /// Whether an idling client's connection to the server is let go.
    pub park: Park,
    /// After how long in IDLE.
    pub park_after_ms: Millis,
    /// Upstream connections taken up again per second.
    pub unpark_per_second: u32,
    /// Who tells of changed ACLs.
    pub acl_changes_by: AclChangesBy,
    /// `[imap.upstream]`
    pub upstream: UpstreamSettings,
    /// `[imap.master]`
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
    /// All serve the same mail store.
    pub addresses: Vec<HostPort>,
    /// How they are spoken to.
    pub tls: ImapTls,
    /// Empty: the system's certificate authorities.
    pub ca_file: Option<PathBuf>,
    /// The name in the servers' certificates. None: the host in the address.
    pub tls_name: Option<TlsName>,
    /// How long one may take until its greeting, TLS included.
    pub connect_timeout_ms: Millis,
    /// The header that tells them the client's address.
    pub proxy_protocol: ProxyHeader,
}

impl Default for UpstreamSettings {
    fn default() -> Self {
        Self {
            addresses: Vec::new(),
            tls: ImapTls::None,
            ca_file: None,
            tls_name: None,
            connect_timeout_ms: Millis(5_000),
            proxy_protocol: ProxyHeader::None,
        }
    }
}

/// The mail server's master user, who may log in as any other.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MasterSettings {
    /// Its name. Empty: there is none.
    pub user: String,
    /// Its password.
    pub password: Secret,
    /// Whether the server knows users of `auth.default_domain` without their domain.
    pub strip_domain: bool,
}

/// How a mail server is spoken to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ImapTls {
    /// In the clear.
    None,
    /// In the clear until STARTTLS.
    Starttls,
    /// With TLS from the start.
    Tls,
}
