//! Settings of rights: who may hear of what.

use serde::{Deserialize, Serialize};

use super::Millis;

/// Where rights on mailboxes of others come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RightsKind {
    /// `imap` where there are mail servers in `imap.upstream.addresses` (or, to an agent, a master user in `agent.imap`), else
    /// `registry` where there is a registry, else `owners`.
    Auto,
    /// The ACLs in the registry.
    Registry,
    /// The mail server's own answer to MYRIGHTS.
    Imap,
    /// Nobody hears of what is not their own.
    Owners,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AccessSettings {
    pub source: RightsKind,
    /// `#shared=registry`: another source for mailboxes of this namespace.
    pub by_namespace: Vec<String>,
    pub timeout_ms: Millis,
    pub recheck_ms: Millis,
    pub max_age_ms: Millis,
    /// Questions per second for what is only asked again.
    pub rechecks_per_second: u32,
    pub denial_ms: Millis,
    /// Of one account subscription.
    pub shared_mailboxes: usize,
}

impl Default for AccessSettings {
    fn default() -> Self {
        Self {
            source: RightsKind::Auto,
            by_namespace: Vec::new(),
            timeout_ms: Millis(5_000),
            recheck_ms: Millis(60_000),
            max_age_ms: Millis(300_000),
            rechecks_per_second: 100,
            denial_ms: Millis(250),
            shared_mailboxes: 1_000,
        }
    }
}
