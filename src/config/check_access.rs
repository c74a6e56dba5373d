//! The checks of the sources of rights.

use std::collections::HashSet;

use super::check::Checker;
use super::{AccessSettings, RegistryKind, RightsKind, Settings};
use crate::mail::path::MailboxPath;

impl AccessSettings {
    /// The source of each namespace that has its own.
    pub fn namespaces(&self) -> impl Iterator<Item = (&str, Option<RightsKind>)> {
        self.by_namespace.iter().map(|entry| match entry.split_once('=') {
            Some((namespace, kind)) => (namespace.trim(), RightsKind::named(kind.trim())),
            None => (entry.as_str(), None),
        })
    }
}

impl RightsKind {
    fn named(name: &str) -> Option<Self> {
        Some(match name {
            "registry" => Self::Registry,
            "imap" => Self::Imap,
            "owners" => Self::Owners,
            _ => return None,
        })
    }

    /// As it is written in the configuration.
    pub fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Registry => "registry",
            Self::Imap => "imap",
            Self::Owners => "owners",
        }
    }

    /// What `auto` means with these settings.
    pub fn resolved(self, settings: &Settings) -> Self {
        match self {
            Self::Auto if !settings.imap.upstream.addresses.is_empty() => Self::Imap,
            Self::Auto if settings.registry.kind != RegistryKind::Broadcast => Self::Registry,
            Self::Auto => Self::Owners,
            kind => kind,
        }
    }

    /// The same for the agent beside a mail server, which must come to what its gateways come to, although they are the ones
    /// that are told where the mail server is: `imap` where it asks one for flags.
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
    let named = access
        .namespaces()
        .enumerate()
        .map(|(index, (namespace, kind))| (format!("access.by_namespace[{index}]"), namespace, kind));
    let mut seen = HashSet::new();
    for (setting, namespace, kind) in named {
        let hint = "Write a namespace, =, and registry, imap or owners: \"#shared=registry\".";
        let is_namespace = MailboxPath::new(namespace, "", "INBOX").is_ok();
        checker.require(&[&setting], is_namespace && kind.is_some(), "names no namespace and source", hint);
        checker.require(&[&setting], seen.insert(namespace), "names a namespace that has a source already", "Name each once.");
        if let Some(kind) = kind {
            source(checker, settings, &setting, kind);
        }
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
