//! The types of settings that are more than a text: read once, where the setting is read, and right
//! from then on.
//!
//! Each is written as a text (in the file, the environment, a flag) and shown as it was meant. A
//! text that does not fit is told as a [`Misfit`].

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use jsonwebtoken::Algorithm;
use reqwest::Url;
use rustls_pki_types::ServerName;
use serde::{Deserialize, Serialize};
use tracing_subscriber::EnvFilter;

/// Why a text does not fit its setting. Quotes the text, so it is not for secrets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Misfit {
    /// What is wrong: goes on where the setting's name ends.
    pub problem: String,
    /// What to do: a whole sentence.
    pub hint: &'static str,
}

impl Misfit {
    pub(super) fn new(problem: impl Into<String>, hint: &'static str) -> Self {
        Self { problem: problem.into(), hint }
    }
}

/// On two lines, by which loading tells the two apart again: no setting with a type of its own
/// holds a line end.
impl fmt::Display for Misfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}\n{}", self.problem, self.hint)
    }
}

impl std::error::Error for Misfit {}

/// Types that serde reads from a text by [`FromStr`] and writes by [`fmt::Display`].
macro_rules! read_from_text {
    ($($type:ty),* $(,)?) => {
        $(
            impl TryFrom<String> for $type {
                type Error = Misfit;

                fn try_from(text: String) -> Result<Self, Misfit> {
                    text.parse()
                }
            }

            impl From<$type> for String {
                fn from(value: $type) -> Self {
                    value.to_string()
                }
            }
        )*
    };
}
pub(super) use read_from_text;

read_from_text!(
    HostPort,
    Ensemble,
    Chroot,
    TopicName,
    TopicPrefix,
    BaseUrl,
    ProxyUrl,
    KeySetUrl,
    WebOrigin,
    TlsName,
    FileMode,
    Separator,
    LogFilter,
    SignatureAlgorithm,
);

/// A text that is never printed or logged.
///
/// Line ends at its end are not part of it, wherever it comes from: `echo`, editors and Kubernetes'
/// secrets leave one there, and whoever issues tokens or knows the password has it without.
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

/// A server: a host's name, an IPv4 address or an IPv6 address in brackets, and a port that is not
/// 0.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct HostPort {
    /// Without brackets.
    host: String,
    port: u16,
}

impl HostPort {
    /// A port of this machine.
    pub(super) fn local(port: u16) -> Self {
        Self { host: "127.0.0.1".to_owned(), port }
    }

    /// The host, an IPv6 address without its brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The TCP port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Whether it is surely on this machine: `localhost` or a loopback address.
    pub fn is_this_machine(&self) -> bool {
        self.host == "localhost" || self.host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
    }
}

impl FromStr for HostPort {
    type Err = Misfit;

    fn from_str(text: &str) -> Result<Self, Misfit> {
        let read = || {
            let (host, port) = text.rsplit_once(':')?;
            let bracketed = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
            let is_good = match bracketed {
                Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
                None => !host.is_empty() && host.bytes().all(|b| b.is_ascii_alphanumeric() || b".-_".contains(&b)),
            };
            let port = port.parse().ok().filter(|number| *number > 0 && port.bytes().all(|b| b.is_ascii_digit()))?;
            is_good.then(|| Self { host: bracketed.unwrap_or(host).to_owned(), port })
        };
        read().ok_or_else(|| Misfit::new(format!("is {text:?}, not host:port"), "Write it as host:port."))
    }
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host.contains(':') {
            true => write!(f, "[{}]:{}", self.host, self.port),
            false => write!(f, "{}:{}", self.host, self.port),
        }
    }
}

impl From<std::net::SocketAddr> for HostPort {
    fn from(address: std::net::SocketAddr) -> Self {
        Self { host: address.ip().to_string(), port: address.port() }
    }
}

/// The servers of one ZooKeeper ensemble, at least one: a connect string without a chroot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Ensemble(Vec<HostPort>);

impl From<HostPort> for Ensemble {
    fn from(server: HostPort) -> Self {
        Self(vec![server])
    }
}

impl Ensemble {
    /// Its servers, at least one.
    pub fn servers(&self) -> &[HostPort] {
        &self.0
    }
}

impl FromStr for Ensemble {
    type Err = Misfit;

    fn from_str(text: &str) -> Result<Self, Misfit> {
        let servers = text.split(',').map(str::parse).collect::<Result<Vec<_>, _>>();
        let hint = "Write host:port,host:port for the servers of one ensemble; the chroot is a setting of its own.";
        servers.map(Self).map_err(|_| Misfit::new(format!("is {text:?}, not a connect string"), hint))
    }
}

impl fmt::Display for Ensemble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&join(&self.0, ","))
    }
}

/// What `items` are written as, with `separator` between them.
pub fn join<T: fmt::Display>(items: &[T], separator: &str) -> String {
    items.iter().map(T::to_string).collect::<Vec<_>>().join(separator)
}

/// The znode below which everything is kept: an absolute path that is not the root, and not
/// ZooKeeper's own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Chroot(String);

impl Default for Chroot {
    fn default() -> Self {
        Self("/mailpush".to_owned())
    }
}

impl Chroot {
    /// The path.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Chroot {
    type Err = Misfit;

    fn from_str(text: &str) -> Result<Self, Misfit> {
        let names = text.strip_prefix('/').map(|rest| rest.split('/').collect::<Vec<_>>()).unwrap_or_default();
        let plain = |name: &&str| !matches!(*name, "" | "." | "..") && !name.chars().any(char::is_control);
        // ZooKeeper keeps `/zookeeper` for itself.
        let good = !names.is_empty() && names.iter().all(plain) && names[0] != "zookeeper" && text.len() <= 255;
        let hint = "Write an absolute path that does not end with '/', such as /mailpush.";
        if good { Ok(Self(text.to_owned())) } else { Err(Misfit::new(format!("is {text:?}"), hint)) }
    }
}

impl fmt::Display for Chroot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A Kafka topic, by Kafka's own rule.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct TopicName(String);

impl TopicName {
    /// The longest name, in bytes.
    pub const MAX_BYTES: usize = 249;

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether Kafka takes a topic of this name.
    pub fn is_valid(text: &str) -> bool {
        let plain = |b: u8| b.is_ascii_alphanumeric() || b"._-".contains(&b);
        (1..=Self::MAX_BYTES).contains(&text.len()) && text.bytes().all(plain) && text != "." && text != ".."
    }
}

impl FromStr for TopicName {
    type Err = Misfit;

    fn from_str(text: &str) -> Result<Self, Misfit> {
        let hint = "Use 1 to 249 letters, digits, '.', '_' or '-', or leave it empty for no firehose.";
        match Self::is_valid(text) {
            true => Ok(Self(text.to_owned())),
            false => Err(Misfit::new(format!("is {text:?}, not a topic"), hint)),
        }
    }
}

impl fmt::Display for TopicName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What the names of all topics of a cluster begin with: short enough for what follows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct TopicPrefix(String);

impl Default for TopicPrefix {
    fn default() -> Self {
        Self("mailpush".to_owned())
    }
}

impl TopicPrefix {
    /// The longest prefix, in bytes.
    pub const MAX_BYTES: usize = 100;

    /// The prefix.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for TopicPrefix {
    type Err = Misfit;

    fn from_str(text: &str) -> Result<Self, Misfit> {
        match TopicName::is_valid(text) && text.len() <= Self::MAX_BYTES {
            true => Ok(Self(text.to_owned())),
            false => Err(Misfit::new(format!("is {text:?}"), "Use 1 to 100 letters, digits, '.', '_' or '-'.")),
        }
    }
}

impl fmt::Display for TopicPrefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// An `http` or `https` URL that paths can be appended to; kept without a slash at its end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct BaseUrl {
    text: String,
    /// As the URL has it, an IPv6 address in brackets.
    host: String,
}

impl BaseUrl {
    /// The URL, without a slash at its end.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The address, where the host is one.
    pub fn address(&self) -> Option<std::net::IpAddr> {
        self.host.trim_matches(['[', ']']).parse().ok()
    }
}

impl FromStr for BaseUrl {
    type Err = Misfit;

    fn from_str(text: &str) -> Result<Self, Misfit> {
        let read = || {
            let url = Url::parse(text).ok()?;
            let plain =
                url.query().is_none() && url.fragment().is_none() && url.username().is_empty() && url.password().is_none();
            let host = url.host_str().filter(|_| plain && matches!(url.scheme(), "http" | "https"))?;
            Some(Self { text: text.trim_end_matches('/').to_owned(), host: host.to_owned() })
        };
        let hint = "Write http:// or https://, a host and maybe a port and a path, such as http://gw-1.example.org:8080.";
        read().ok_or_else(|| Misfit::new(format!("is {text:?}, not the URL of a node"), hint))
    }
}

impl fmt::Display for BaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// An HTTP proxy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ProxyUrl(BaseUrl);

impl ProxyUrl {
    /// The URL.
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }
}

impl FromStr for ProxyUrl {
    type Err = Misfit;

    fn from_str(text: &str) -> Result<Self, Misfit> {
        let hint =
            "Write http:// or https://, a host and a port, such as http://proxy.example.org:3128; leave it empty for none.";
        text.parse().map(Self).map_err(|_| Misfit::new(format!("is {text:?}, not the URL of a proxy"), hint))
    }
}

impl fmt::Display for ProxyUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Where a key set is fetched from: `https`, or plain `http` that does not leave this machine;
/// never with a password.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct KeySetUrl(Url);

impl KeySetUrl {
    /// The URL.
    pub fn url(&self) -> &Url {
        &self.0
    }
}

impl FromStr for KeySetUrl {
    type Err = Misfit;

    fn from_str(text: &str) -> Result<Self, Misfit> {
        let hint = "Write an https:// URL: whoever can change the keys on their way can sign tokens (RFC 7517 9). \
                    Plain http:// is accepted from this machine only (127.0.0.1, [::1], localhost).";
        match Url::parse(text) {
            Ok(url) if !url.username().is_empty() || url.password().is_some() => {
                let hint = "Remove it: key sets are public, and URLs are logged.";
                Err(Misfit::new("holds a user or a password", hint))
            }
            Ok(url) if url.scheme() == "https" || is_loopback_http(&url) => Ok(Self(url)),
            _ => Err(Misfit::new(format!("is {text:?}"), hint)),
        }
    }
}

impl fmt::Display for KeySetUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Plain HTTP that does not leave this machine.
fn is_loopback_http(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
    let loopback = host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback());
    url.scheme() == "http" && loopback
}

/// A signature algorithm by its name in `alg` (RFC 7518 3.1, RFC 8037 3.1); `none` is none.
/// `Ed25519` (RFC 9864 2.2) is `EdDSA` with the one curve that is accepted here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SignatureAlgorithm(Algorithm);

impl SignatureAlgorithm {
    /// As `jsonwebtoken` calls it.
    pub fn algorithm(self) -> Algorithm {
        self.0
    }
}

impl FromStr for SignatureAlgorithm {
    type Err = Misfit;

    fn from_str(text: &str) -> Result<Self, Misfit> {
        let hint = "Use HS256, HS384, HS512, RS256, RS384, RS512, PS256, PS384, PS512, ES256, ES384, EdDSA or Ed25519.";
        let name = if text == "Ed25519" { "EdDSA" } else { text };
        name.parse().map(Self).map_err(|_| Misfit::new(format!("is {text:?}, which is not accepted"), hint))
    }
}

impl fmt::Display for SignatureAlgorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

/// An origin exactly as browsers write it (RFC 6454 6.2), of a page with a host: so never `null`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct WebOrigin(String);

impl WebOrigin {
    /// As it stands in `Origin`.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for WebOrigin {
    type Err = Misfit;

    fn from_str(text: &str) -> Result<Self, Misfit> {
        // `*` is a valid character of hosts to the URL standard; as an origin it would be a
        // wildcard never honoured.
        let is_exact = |url: Url| url.has_host() && url.origin().ascii_serialization() == text;
        let hint = "Write scheme://host[:port] exactly as browsers send it: in lower case, without a path, without the \
                    scheme's own port, without '*'.";
        match !text.contains('*') && Url::parse(text).is_ok_and(is_exact) {
            true => Ok(Self(text.to_owned())),
            false => Err(Misfit::new(format!("is {text:?}, not an origin"), hint)),
        }
    }
}

impl fmt::Display for WebOrigin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The name that a server's certificate must have: a host's name or an IP address.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct TlsName(ServerName<'static>);

impl TlsName {
    /// As rustls takes it.
    pub fn server_name(&self) -> ServerName<'static> {
        self.0.clone()
    }
}

impl FromStr for TlsName {
    type Err = Misfit;

    fn from_str(text: &str) -> Result<Self, Misfit> {
        let hint = "Write a host's name or an IP address, without a port.";
        ServerName::try_from(text.to_owned()).map(Self).map_err(|_| Misfit::new(format!("is {text:?}"), hint))
    }
}

impl fmt::Display for TlsName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.to_str())
    }
}

/// A file's permission bits, written in octal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct FileMode(u32);

impl FileMode {
    /// Its owner and group may read and write.
    pub const OWNER_AND_GROUP: Self = Self(0o660);

    /// At most `0o777`.
    pub fn bits(self) -> u32 {
        self.0
    }
}

impl FromStr for FileMode {
    type Err = Misfit;

    fn from_str(text: &str) -> Result<Self, Misfit> {
        let bits = u32::from_str_radix(text, 8).ok().filter(|bits| *bits <= 0o777);
        bits.map(Self).ok_or_else(|| Misfit::new(format!("is {text:?}"), "Write it in octal, such as 0660."))
    }
}

impl fmt::Display for FileMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04o}", self.0)
    }
}

/// A hierarchy separator: one ASCII character.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Separator(u8);

impl Separator {
    /// What most servers have.
    pub const SLASH: Self = Self(b'/');

    /// As it stands in IMAP.
    pub fn byte(self) -> u8 {
        self.0
    }
}

impl FromStr for Separator {
    type Err = Misfit;

    fn from_str(text: &str) -> Result<Self, Misfit> {
        let hint = "Write the one ASCII character between a mailbox and its child, such as '/' or '.'.";
        match *text.as_bytes() {
            [byte] => Ok(Self(byte)),
            _ => Err(Misfit::new(format!("is {text:?}"), hint)),
        }
    }
}

impl fmt::Display for Separator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", char::from(self.0))
    }
}

/// What is logged: a level (`info`), or pairs (`mailpush=debug,info`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct LogFilter(String);

impl Default for LogFilter {
    fn default() -> Self {
        Self("info".to_owned())
    }
}

impl LogFilter {
    /// As `tracing` takes it. Made anew, for its type cannot be copied.
    pub fn filter(&self) -> EnvFilter {
        // It was read without a fault before.
        EnvFilter::builder().parse_lossy(&self.0)
    }
}

impl FromStr for LogFilter {
    type Err = Misfit;

    fn from_str(text: &str) -> Result<Self, Misfit> {
        let hint = "Write a level (error, warn, info, debug, trace) or pairs such as mailpush=debug,info.";
        match EnvFilter::try_new(text) {
            Ok(_) => Ok(Self(text.to_owned())),
            Err(_) => Err(Misfit::new(format!("is {text:?}"), hint)),
        }
    }
}

impl fmt::Display for LogFilter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is taken reads back as it was written; what is not, is not.
    fn reads<T: FromStr<Err = Misfit> + fmt::Display>(good: &[&str], bad: &[&str]) {
        for text in good {
            let value = text.parse::<T>().unwrap_or_else(|misfit| panic!("{text:?}: {misfit}"));
            assert_eq!(value.to_string(), *text);
        }
        for text in bad {
            let misfit = text.parse::<T>().map(|value| value.to_string()).expect_err(text);
            assert!(misfit.problem.starts_with("is ") || misfit.problem.starts_with("names "), "{misfit}");
            assert!(!misfit.problem.contains('\n') && misfit.hint.ends_with('.'), "{misfit}");
        }
    }

    #[test]
    fn texts_are_read_or_refused() {
        reads::<HostPort>(
            &["mail-1.example.org:143", "192.0.2.1:65535", "[::1]:9092", "my_host:1"],
            &[
                "",
                "host",
                "host:",
                ":1",
                "host:0",
                "host:65536",
                "[::1]",
                "::1:143",
                "[host]:1",
                "a b:1",
                "a/b:1",
                "host:1/x",
                "h:+1",
            ],
        );
        reads::<Ensemble>(&["zk:2181", "a:1,[::1]:2,c:3"], &["", "a:1,", ",a:1", "a:1;b:2", "a:1/chroot", "a:1, b:2"]);
        reads::<Chroot>(
            &["/mailpush", "/a/b"],
            &["", "/", "mailpush", "/a/", "//a", "/a/../b", "/a/.", "/zookeeper", "/zookeeper/a"],
        );
        reads::<TopicName>(&["a", "a.b_c-9", &"x".repeat(249)], &["", ".", "..", "a/b", "a b", "\u{e9}", &"x".repeat(250)]);
        reads::<TopicPrefix>(&["mailpush", &"x".repeat(100)], &["", "..", "a/b", &"x".repeat(101)]);
        reads::<BaseUrl>(
            &["http://gw-1:8080", "https://h/path", "http://[::1]:80"],
            &["", "gw-1:8080", "ftp://h", "http://u@h", "http://u:p@h", "http://h?q", "http://h#f", "http://"],
        );
        reads::<ProxyUrl>(&["http://proxy:3128"], &["", "proxy:3128", "socks5://proxy"]);
        reads::<KeySetUrl>(
            &["https://a/keys", "http://127.0.0.1:1/", "http://[::1]/", "http://localhost/"],
            &["", "http://a/keys", "ftp://a/"],
        );
        assert_eq!("https://u:p@a/".parse::<KeySetUrl>().unwrap_err().problem, "holds a user or a password");
        reads::<SignatureAlgorithm>(&["HS256", "RS512", "PS384", "ES256", "EdDSA"], &["", "none", "hs256", "ES512", "Ed448"]);
        assert_eq!("Ed25519".parse::<SignatureAlgorithm>().map(SignatureAlgorithm::algorithm), Ok(Algorithm::EdDSA));
        reads::<WebOrigin>(
            &["https://mail.example.org", "http://localhost:3000"],
            &["*", "null", "https://a/", "https://A", "https://a:443"],
        );
        reads::<TlsName>(&["mail.example.org", "192.0.2.1"], &["", "a b", "mail:993"]);
        reads::<FileMode>(&["0660", "0000", "0777"], &["", "rw", "1000", "0888", "-1"]);
        reads::<Separator>(&["/", "."], &["", "::", "\u{e9}"]);
        reads::<LogFilter>(&["info", "mailpush=debug,info"], &["mailpush=loud"]);
    }

    #[test]
    fn parts_are_what_they_seem() {
        let server: HostPort = "[::1]:143".parse().unwrap();
        assert_eq!((server.host(), server.port(), server.is_this_machine()), ("::1", 143, true));
        assert!("localhost:1".parse::<HostPort>().unwrap().is_this_machine());
        assert!(!"mx:1".parse::<HostPort>().unwrap().is_this_machine());
        assert_eq!(HostPort::from("[::1]:143".parse::<std::net::SocketAddr>().unwrap()), server);
        assert_eq!("http://gw/".parse::<BaseUrl>().unwrap().as_str(), "http://gw");
        assert_eq!("http://[::]:80".parse::<BaseUrl>().unwrap().address(), Some("::".parse().unwrap()));
        assert_eq!("http://gw".parse::<BaseUrl>().unwrap().address(), None);
        assert_eq!("a:1,b:2".parse::<Ensemble>().unwrap().servers().len(), 2);
        assert_eq!("0600".parse::<FileMode>().unwrap().bits(), 0o600);
    }
}
