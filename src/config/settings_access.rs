//! Settings of rights: who may hear of what.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::values::{Millis, Misfit, read_from_text};
use crate::mail::path::MailboxPath;

/// Where rights on mailboxes of others come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RightsKind {
    /// `imap` where there are mail servers in `imap.upstream.addresses` (or, to an agent, a master
    /// user in `agent.imap`), else `registry` where there is a registry, else `owners`.
    Auto,
    /// The ACLs in the registry.
    Registry,
    /// The mail server's own answer to MYRIGHTS.
    Imap,
    /// Nobody hears of what is not their own.
    Owners,
}

impl RightsKind {
    /// As it is written in the configuration.
    pub fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Registry => "registry",
            Self::Imap => "imap",
            Self::Owners => "owners",
        }
    }
}

/// A namespace and where rights on its mailboxes come from: `#shared=registry`. Never
/// [`RightsKind::Auto`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct NamespaceSource {
    /// As it begins mailbox paths: `#shared`.
    pub namespace: String,
    /// Where its rights come from.
    pub source: RightsKind,
}

impl FromStr for NamespaceSource {
    type Err = Misfit;

    fn from_str(text: &str) -> Result<Self, Misfit> {
        let read = || {
            let (namespace, source) = text.split_once('=').map(|(namespace, source)| (namespace.trim(), source.trim()))?;
            MailboxPath::new(namespace, "", "INBOX").ok()?;
            let kinds = [RightsKind::Registry, RightsKind::Imap, RightsKind::Owners];
            let source = kinds.into_iter().find(|kind| kind.name() == source)?;
            Some(Self { namespace: namespace.to_owned(), source })
        };
        let hint = "Write a namespace, =, and registry, imap or owners: \"#shared=registry\".";
        read().ok_or_else(|| Misfit::new("names no namespace and source", hint))
    }
}

impl fmt::Display for NamespaceSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}", self.namespace, self.source.name())
    }
}

read_from_text!(NamespaceSource);

/// Rights on mailboxes of others.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AccessSettings {
    /// Where they come from.
    pub source: RightsKind,
    /// Another source for mailboxes of some namespaces, each named once.
    pub by_namespace: Vec<NamespaceSource>,
    /// How long one question may take.
    pub timeout_ms: Millis,
    /// How often what is in use is asked for again.
    pub recheck_ms: Millis,
    /// How long a decision that cannot be confirmed serves.
    pub max_age_ms: Millis,
    /// Questions per second for what is only asked again.
    pub rechecks_per_second: u32,
    /// After how long a denial is answered, however fast it was found (I-9).
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_namespaces_source_is_read_or_refused() {
        for text in ["#shared=registry", "#mail=imap", "#x=owners"] {
            assert_eq!(text.parse::<NamespaceSource>().unwrap().to_string(), text);
        }
        let spaced: NamespaceSource = "#mail = imap".parse().unwrap();
        assert_eq!((spaced.namespace.as_str(), spaced.source), ("#mail", RightsKind::Imap));
        for text in ["", "#shared", "#shared=auto", "shared=imap", "#a b=imap", "#shared="] {
            assert!(text.parse::<NamespaceSource>().is_err(), "{text:?}");
        }
    }
}
