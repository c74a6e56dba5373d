//! What types cannot say: limits, forms, and settings that must fit together. Pure: opens no file
//! and no socket.

use std::collections::BTreeSet;

use jsonwebtoken::{Algorithm, AlgorithmFamily};

use super::checker::Checker;
use super::fault::Fault;
use super::{AuthSettings, HttpSettings, NodeSettings, Purpose, Settings, check_access, check_agent, check_cluster, check_imap};

impl Settings {
    /// All that is wrong with these settings as a gateway's; empty if nothing is.
    #[cfg(test)]
    pub fn check(&self) -> Vec<Fault> {
        check(self, Purpose::Serve, &BTreeSet::new())
    }
}

/// All that is wrong with `settings`, except what follows only from settings in `known_bad`: those
/// were reported already, and hold their defaults here.
pub(super) fn check(settings: &Settings, purpose: Purpose, known_bad: &BTreeSet<String>) -> Vec<Fault> {
    let mut checker = Checker::new(known_bad);
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
    checker.faults()
}

fn node(checker: &mut Checker<'_>, node: &NodeSettings) {
    let good = node.origin.len() <= 255 && !node.origin.chars().any(|c| c.is_control() || c.is_whitespace());
    checker.require(&["node.origin"], good, "is not a host's name", "Use at most 255 characters, without spaces.");
    checker.at_least("node.drain_deadline_ms", node.drain_deadline_ms.0, 1);
    checker.at_least("node.drain_rate", node.drain_rate.into(), 1);
}

fn http(checker: &mut Checker<'_>, http: &HttpSettings) {
    checker.at_least("http.max_connections", http.max_connections as u64, 1);
    checker.at_least("http.header_timeout_ms", http.header_timeout_ms.0, 1);
    checker.at_least("http.request_timeout_ms", http.request_timeout_ms.0, 1);
    checker.at_least("http.body_limit_bytes", http.body_limit_bytes as u64, 1024);
    checker.at_least("http.peer_timeout_ms", http.peer_timeout_ms.0, 1);
    checker.require(
        &["http.peer_timeout_ms", "http.request_timeout_ms"],
        http.peer_timeout_ms < http.request_timeout_ms,
        format!("is {}, not less than http.request_timeout_ms", http.peer_timeout_ms.0),
        "Leave time to answer without the node that is silent.",
    );
}

fn auth(checker: &mut Checker<'_>, auth: &AuthSettings, purpose: Purpose) {
    let sources = [
        ("auth.secret", !auth.secret.is_empty()),
        ("auth.public_key_file", auth.public_key_file.is_some()),
        ("auth.jwks_file", auth.jwks_file.is_some()),
        ("auth.jwks_url", auth.jwks_url.is_some()),
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
    checker.at_least("auth.jwks_refresh_ms", auth.jwks_refresh_ms.0, 1_000);
    checker.at_most("auth.leeway_ms", auth.leeway_ms.0, 300_000);
    let domain = &auth.default_domain;
    let good = domain.len() <= 255 && !domain.chars().any(|c| c == '@' || c == ':' || c.is_whitespace() || c.is_control());
    checker.require(&["auth.default_domain"], good, format!("is {domain:?}"), "Write only the domain: example.org, without '@'.");
}

/// RFC 8725 3.1 and 3.2: an explicit list of algorithms, each fit for the key; never `none`.
fn algorithms(checker: &mut Checker<'_>, auth: &AuthSettings) {
    const NAME: &str = "auth.algorithms";
    let mut least_secret = 32;
    for (index, name) in auth.algorithms.iter().enumerate() {
        let (setting, algorithm) = (format!("{NAME}[{index}]"), name.algorithm());
        let symmetric = algorithm.family() == AlgorithmFamily::Hmac;
        let with_secret = !auth.secret.is_empty();
        let with_public = auth.public_key_file.is_some() || auth.jwks_file.is_some() || auth.jwks_url.is_some();
        let hint = "auth.secret goes with HS256, HS384 or HS512; public keys go with the others.";
        let problem = format!("is {name}, which does not fit the kind of key");
        checker.require(&[&setting, "auth.secret"], !(with_secret && !symmetric || with_public && symmetric), problem, hint);
        least_secret = least_secret.max(least_secret_bytes(algorithm));
    }
    let length = auth.secret.expose().len();
    // The algorithm's own need, not the length that is there: the latter would tell guessers
    // something.
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
