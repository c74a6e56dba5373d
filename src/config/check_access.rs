//! The checks of the sources of rights.

use std::collections::HashSet;

use super::checker::Checker;
use super::{RegistryKind, RightsKind, Settings};

impl RightsKind {
    /// What `auto` means with these settings.
    pub fn resolved(self, settings: &Settings) -> Self {
        match self {
            Self::Auto if !settings.imap.upstream.addresses.is_empty() => Self::Imap,
            Self::Auto if settings.registry.kind != RegistryKind::Broadcast => Self::Registry,
            Self::Auto => Self::Owners,
            kind => kind,
        }
    }

    /// The same for the agent beside a mail server, which must come to what its gateways come to,
    /// although they are the ones that are told where the mail server is: `imap` where it asks one
    /// for flags.
    pub fn resolved_for_agent(self, settings: &Settings) -> Self {
        match self {
            Self::Auto if !settings.agent.imap.master_user.is_empty() => Self::Imap,
            kind => kind.resolved(settings),
        }
    }
}

pub(super) fn access(checker: &mut Checker<'_>, settings: &Settings) {
    let access = &settings.access;
    let least = [
        ("timeout_ms", access.timeout_ms.0, 1),
        ("recheck_ms", access.recheck_ms.0, 1),
        ("max_age_ms", access.max_age_ms.0, access.recheck_ms.0.saturating_mul(2)),
        ("rechecks_per_second", access.rechecks_per_second.into(), 1),
        ("shared_mailboxes", access.shared_mailboxes as u64, 1),
    ];
    for (name, value, least) in least {
        checker.at_least(&format!("access.{name}"), value, least);
    }
    let mut seen = HashSet::new();
    for (index, entry) in access.by_namespace.iter().enumerate() {
        let setting = format!("access.by_namespace[{index}]");
        let is_new = seen.insert(&entry.namespace);
        checker.require(&[&setting], is_new, "names a namespace that has a source already", "Name each once.");
        source(checker, settings, &setting, entry.source);
    }
    source(checker, settings, "access.source", access.source);
}

fn source(checker: &mut Checker<'_>, settings: &Settings, setting: &str, kind: RightsKind) {
    checker.require(
        &[setting, "registry.kind"],
        kind != RightsKind::Registry || settings.registry.kind != RegistryKind::Broadcast,
        "is registry, but there is none",
        "Set registry.kind to \"zookeeper\", or take the rights from elsewhere.",
    );
    checker.require(
        &[setting, "imap.upstream.addresses"],
        kind != RightsKind::Imap || !settings.imap.upstream.addresses.is_empty(),
        "is imap, but no mail server is named",
        "Name the mail servers in imap.upstream.addresses, or take the rights from elsewhere.",
    );
}
