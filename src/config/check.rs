//! What types cannot say: limits, forms, and settings that must fit together. Pure: opens no file and no socket.

use std::collections::BTreeSet;

use jsonwebtoken::{Algorithm, AlgorithmFamily};
use reqwest::Url;

use super::fault::Fault;
use super::{
    AuthSettings, HttpSettings, NodeSettings, Settings, TlsSettings, check_access, check_agent, check_cluster, check_imap,
};
use crate::mail::ids::NodeId;

/// What the settings are loaded for: not every command needs every setting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// A gateway node.
    Serve,
    /// Everything in one process: local registry and queue are allowed, keys to tokens are made up.
    Dev,
    /// Publishing from an origin: registry and queue, no keys to tokens.
    Publish,
    /// The agent on a mail server: as publishing, and its own settings.
    Agent,
    /// Making or reading tokens: keys only.
    Token,
}

impl Settings {
    /// All that is wrong with these settings as a gateway's; empty if nothing is.
    #[cfg(test)]
    pub fn check(&self) -> Vec<Fault> {
        check(self, Purpose::Serve, &BTreeSet::new())
    }
}

/// All that is wrong with `settings`, except what follows only from settings in `known_bad`: those were
/// reported already, and hold their defaults here.
pub(super) fn check(settings: &Settings, purpose: Purpose, known_bad: &BTreeSet<String>) -> Vec<Fault> {
    let mut checker = Checker { known_bad, faults: Vec::new() };
    if matches!(purpose, Purpose::Serve | Purpose::Dev) {
        node(&mut checker, &settings.node);
        http(&mut checker, &settings.http);
        check_cluster::sessions(&mut checker, settings);
        check_imap::imap(&mut checker, settings, purpose);
        check_access::access(&mut checker, settings);
    }
    auth(&mut checker, &settings.auth, purpose);
    if purpose == Purpose::Agent {
        check_agent::agent(&mut checker, &settings.agent);
    }
    if matches!(purpose, Purpose::Serve | Purpose::Publish | Purpose::Agent) {
        check_cluster::cluster(&mut checker, settings);
    }
    check_cluster::log(&mut checker, &settings.log);
    checker.faults
}

/// Collects faults.
pub(super) struct Checker<'a> {
    known_bad: &'a BTreeSet<String>,
    faults: Vec<Fault>,
}

impl Checker<'_> {
    /// Records a fault of `settings[0]` unless `good`; says nothing where one of `settings` is known to be bad.
    pub fn require(&mut self, settings: &[&str], good: bool, problem: impl Into<String>, hint: impl Into<String>) {
        let reported = settings.iter().any(|setting| self.known_bad.contains(setting.split('[').next().unwrap_or_default()));
        if !good && !reported {
            self.faults.push(Fault::new(settings[0], problem, hint));
        }
    }

    /// A number that must be at least `least`.
    pub fn at_least(&mut self, setting: &str, value: u64, least: u64) {
        let more = if least == 1 { "greater than 0".to_owned() } else { format!("{least} or more") };
        self.require(&[setting], value >= least, format!("is {value}"), format!("It must be {more}."));
    }

    /// A number that must be at most `most`.
    pub fn at_most(&mut self, setting: &str, value: u64, most: u64) {
        self.require(&[setting], value <= most, format!("is {value}"), format!("It must be {most} or less."));
    }

    /// Two settings, each with whether it is set, that come together or not at all.
    pub fn together(&mut self, one: (&str, bool), other: (&str, bool), hint: &str) {
        for ((missing, is_set), (present, other_is_set)) in [(one, other), (other, one)] {
            self.require(&[missing, present], is_set || !other_is_set, format!("is missing although {present} is set"), hint);
        }
    }

    pub fn tls(&mut self, section: &str, tls: &TlsSettings) {
        let [enabled, ca, certificate, key] =
            ["enabled", "ca_file", "certificate_file", "key_file"].map(|name| format!("{section}.{name}"));
        let files = [(&certificate, tls.certificate_file.is_some()), (&key, tls.key_file.is_some())];
        let [certificate, key] = files.map(|(name, is_set)| (name.as_str(), is_set));
        self.together(certificate, key, "A client certificate needs its key; without one, set neither.");
        let good = tls.enabled || !(tls.ca_file.is_some() || certificate.1 || key.1);
        let hint = "Set it to true, or remove the files: as it is, nothing would be encrypted.";
        self.require(&[&enabled, &ca, certificate.0, key.0], good, "is false although TLS files are set", hint);
    }
}

fn node(checker: &mut Checker<'_>, node: &NodeSettings) {
    let good = node.id.is_empty() || node.id.parse::<NodeId>().is_ok();
    let hint = "Use 1 to 40 letters, digits, '-' or '_', unique in the cluster; leave it empty for a random one.";
    checker.require(&["node.id"], good, format!("is {:?}", node.id), hint);
    let good = node.origin.len() <= 255 && !node.origin.chars().any(|c| c.is_control() || c.is_whitespace());
    checker.require(&["node.origin"], good, "is not a host's name", "Use at most 255 characters, without spaces.");
    checker.at_least("node.drain_deadline_ms", node.drain_deadline_ms.0, 1);
    checker.at_least("node.drain_rate", node.drain_rate.into(), 1);
}

fn http(checker: &mut Checker<'_>, http: &HttpSettings) {
    let good = http.advertise.is_empty() || is_base_url(&http.advertise);
    let hint = "Write http:// or https://, a host and maybe a port and a path, such as http://gw-1.example.org:8080.";
    checker.require(&["http.advertise"], good, format!("is {:?}, not the URL of a node", http.advertise), hint);
    for (index, origin) in http.allowed_origins.iter().enumerate() {
        let hint = "Write scheme://host[:port] exactly as browsers send it: in lower case, without a path, without the \
                    scheme's own port, without '*'.";
        let setting = format!("http.allowed_origins[{index}]");
        checker.require(&[&setting], is_exact_origin(origin), format!("is {origin:?}, not an origin"), hint);
    }
    checker.at_least("http.max_connections", http.max_connections as u64, 1);
    checker.at_least("http.header_timeout_ms", http.header_timeout_ms.0, 1);
    checker.at_least("http.request_timeout_ms", http.request_timeout_ms.0, 1);
    checker.at_least("http.body_limit_bytes", http.body_limit_bytes as u64, 1024);
    checker.at_least("http.peer_timeout_ms", http.peer_timeout_ms.0, 1);
    proxy(checker, "http.peer_proxy", &http.peer_proxy);
    checker.require(
        &["http.peer_timeout_ms", "http.request_timeout_ms"],
        http.peer_timeout_ms < http.request_timeout_ms,
        format!("is {}, not less than http.request_timeout_ms", http.peer_timeout_ms.0),
        "Leave time to answer without the node that is silent.",
    );
}

/// An `http` or `https` URL that paths can be appended to.
pub(super) fn is_base_url(text: &str) -> bool {
    Url::parse(text).is_ok_and(|url| {
        let plain = url.query().is_none() && url.fragment().is_none() && url.username().is_empty() && url.password().is_none();
        matches!(url.scheme(), "http" | "https") && url.has_host() && plain
    })
}

/// The form of RFC 6454 6.2 that browsers put into `Origin`, of a page with a host (so not `null`).
fn is_exact_origin(text: &str) -> bool {
    // `*` is a valid character of hosts to the URL standard; as an origin it would be a wildcard never honoured.
    !text.contains('*') && Url::parse(text).is_ok_and(|url| url.has_host() && url.origin().ascii_serialization() == text)
}

fn auth(checker: &mut Checker<'_>, auth: &AuthSettings, purpose: Purpose) {
    let sources = [
        ("auth.secret", !auth.secret.is_empty()),
        ("auth.public_key_file", auth.public_key_file.is_some()),
        ("auth.jwks_file", auth.jwks_file.is_some()),
        ("auth.jwks_url", !auth.jwks_url.is_empty()),
    ];
    let set: Vec<_> = sources.iter().filter(|(_, set)| *set).map(|(name, _)| *name).collect();
    let names = ["auth", "auth.secret", "auth.public_key_file", "auth.jwks_file", "auth.jwks_url"];
    if purpose == Purpose::Serve {
        let hint = "Set one of auth.secret (also as MAILPUSH_AUTH_SECRET_FILE), auth.public_key_file, auth.jwks_file or \
                    auth.jwks_url.";
        checker.require(&names, !set.is_empty(), "has no key to check tokens with", hint);
    }
    let problem = format!("has {} sources of keys: {}", set.len(), set.join(", "));
    checker.require(&names, set.len() <= 1, problem, "Keep exactly one of them.");

    algorithms(checker, auth);
    jwks_url(checker, &auth.jwks_url);
    proxy(checker, "auth.jwks_proxy", &auth.jwks_proxy);
    checker.at_least("auth.jwks_refresh_ms", auth.jwks_refresh_ms.0, 1_000);
    checker.at_most("auth.leeway_ms", auth.leeway_ms.0, 300_000);
    let domain = &auth.default_domain;
    let good = domain.len() <= 255 && !domain.chars().any(|c| c == '@' || c == ':' || c.is_whitespace() || c.is_control());
    checker.require(&["auth.default_domain"], good, format!("is {domain:?}"), "Write only the domain: example.org, without '@'.");
}

fn proxy(checker: &mut Checker<'_>, setting: &str, text: &str) {
    let good = text.is_empty() || is_base_url(text);
    let hint = "Write http:// or https://, a host and a port, such as http://proxy.example.org:3128; leave it empty for none.";
    checker.require(&[setting], good, format!("is {text:?}, not the URL of a proxy"), hint);
}

fn jwks_url(checker: &mut Checker<'_>, text: &str) {
    let url = Url::parse(text);
    let password = url.as_ref().is_ok_and(|url| !url.username().is_empty() || url.password().is_some());
    let hint = "Remove it: key sets are public, and URLs are logged.";
    checker.require(&["auth.jwks_url"], !password, "holds a user or a password", hint);
    let hint = "Write an https:// URL: whoever can change the keys on their way can sign tokens (RFC 7517 9). \
                Plain http:// is accepted from this machine only (127.0.0.1, [::1], localhost).";
    let good = text.is_empty() || password || url.is_ok_and(|url| url.scheme() == "https" || is_loopback_http(&url));
    checker.require(&["auth.jwks_url"], good, format!("is {text:?}"), hint);
}

/// Plain HTTP that does not leave this machine.
fn is_loopback_http(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
    let loopback = host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback());
    url.scheme() == "http" && loopback
}

/// A signature algorithm by its name in `alg` (RFC 7518 3.1, RFC 8037 3.1). `Ed25519` (RFC 9864 2.2) is `EdDSA` with the
/// one curve that is accepted here. `None`: it is not known, as `none` is not.
pub(crate) fn parse_algorithm(name: &str) -> Option<Algorithm> {
    if name == "Ed25519" { Some(Algorithm::EdDSA) } else { name.parse().ok() }
}

/// RFC 8725 3.1 and 3.2: an explicit list of algorithms, each fit for the key; never `none`.
fn algorithms(checker: &mut Checker<'_>, auth: &AuthSettings) {
    const NAME: &str = "auth.algorithms";
    let mut least_secret = 32;
    for (index, name) in auth.algorithms.iter().enumerate() {
        let setting = format!("{NAME}[{index}]");
        let Some(algorithm) = parse_algorithm(name) else {
            let hint = "Use HS256, HS384, HS512, RS256, RS384, RS512, PS256, PS384, PS512, ES256, ES384, EdDSA or Ed25519.";
            checker.require(&[&setting], false, format!("is {name:?}, which is not accepted"), hint);
            continue;
        };
        let symmetric = algorithm.family() == AlgorithmFamily::Hmac;
        let with_secret = !auth.secret.is_empty();
        let with_public = auth.public_key_file.is_some() || auth.jwks_file.is_some() || !auth.jwks_url.is_empty();
        let hint = "auth.secret goes with HS256, HS384 or HS512; public keys go with the others.";
        let problem = format!("is {name}, which does not fit the kind of key");
        checker.require(&[&setting, "auth.secret"], !(with_secret && !symmetric || with_public && symmetric), problem, hint);
        least_secret = least_secret.max(least_secret_bytes(algorithm));
    }
    let length = auth.secret.expose().len();
    // The algorithm's own need, not the length that is there: the latter would tell guessers something.
    let hint = format!("Use at least {least_secret} random bytes, such as `openssl rand -base64 48` prints (RFC 7518 3.2).");
    checker.require(&["auth.secret"], length == 0 || length >= least_secret, "is too short", hint);
}

/// RFC 7518 3.2: a key of the hash's size or larger.
fn least_secret_bytes(algorithm: Algorithm) -> usize {
    match algorithm {
        Algorithm::HS384 => 48,
        Algorithm::HS512 => 64,
        _ => 32,
    }
}
