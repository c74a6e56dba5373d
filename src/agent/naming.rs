//! Which mailbox a name in Dovecot means. Pure. It is decided by the function that the gateways' IMAP door goes by
//! ([`Namespaces::path`]), so that one mailbox is one key wherever it is named.
//!
//! Dovecot's own NAMESPACE is what a gateway knows; the agent is told the same by its settings (or by the script's), for
//! the script cannot see it and nobody may wait for a question while a change is taken in. Where a master user is
//! configured the two are compared ([`Naming::disagreement`]).

use std::collections::BTreeSet;

use serde::Deserialize;

use crate::config::{DovecotSettings, Separator};
use crate::mail::path::MailboxPath;
use crate::mail::user::{UserName, UserNames};
use crate::wire::imap::name::{decode_utf7, encode_utf7};
use crate::wire::imap::namespace::{Namespace, Namespaces};

/// The namespaces as Dovecot's configuration writes them: in UTF-8, each prefix with the separator at its end.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Prefixes {
    /// Of the users' own mailboxes, in the order of the NAMESPACE response. None is the empty prefix.
    pub personal: Vec<String>,
    /// Of other users' mailboxes, as far as the owner.
    pub shared: Vec<String>,
    /// Of what is nobody's, in the order of the NAMESPACE response.
    pub public: Vec<String>,
    /// Of hidden namespaces that are another name for the first of the users' own.
    pub alias: Vec<String>,
    /// One ASCII character; `/` if there is none here.
    pub separator: Option<String>,
}

impl From<&DovecotSettings> for Prefixes {
    fn from(settings: &DovecotSettings) -> Self {
        Self {
            personal: settings.personal_prefixes.clone(),
            shared: Some(settings.shared_prefix.clone()).filter(|prefix| !prefix.is_empty()).into_iter().collect(),
            public: settings.public_prefixes.clone(),
            alias: settings.alias_prefixes.clone(),
            separator: Some(settings.separator.to_string()),
        }
    }
}

/// How Dovecot's names are read.
#[derive(Debug, Clone)]
pub struct Naming {
    pub names: UserNames,
    namespaces: Namespaces,
    /// On the wire.
    aliases: Vec<Vec<u8>>,
}

impl Naming {
    /// As the settings say.
    pub fn of_settings(names: UserNames, settings: &DovecotSettings) -> Self {
        Self::with(names, &Prefixes::from(settings), settings.separator)
    }

    /// As the script says. An error, in plain words, if the separator is none.
    pub fn new(names: UserNames, prefixes: &Prefixes) -> Result<Self, String> {
        let separator = prefixes.separator.as_deref().map_or(Ok(Separator::SLASH), str::parse);
        let separator = separator.map_err(|_| "the separator is not one ASCII character")?;
        Ok(Self::with(names, prefixes, separator))
    }

    fn with(names: UserNames, prefixes: &Prefixes, separator: Separator) -> Self {
        let delimiter = separator.byte();
        let wire = |prefix: &String| encode_utf7(prefix).into_owned();
        let space = |prefix: &String| Namespace { prefix: wire(prefix), delimiter: Some(delimiter) };
        let all = |prefixes: &[String]| prefixes.iter().map(space).collect::<Vec<_>>();
        let mut personal = all(&prefixes.personal);
        if personal.is_empty() {
            personal.push(space(&String::new()));
        }
        let namespaces = Namespaces { personal, other_users: all(&prefixes.shared), shared: all(&prefixes.public) };
        Self { names, namespaces, aliases: prefixes.alias.iter().map(wire).collect() }
    }

    /// The mailbox that `user` calls `name`, which is UTF-8 as Dovecot tells it.
    pub fn path(&self, user: &UserName, name: &str) -> Result<MailboxPath, String> {
        let wire = self.unaliased(encode_utf7(name).into_owned());
        self.namespaces.path(&wire, false, user, &self.names).ok_or_else(|| {
            let shown: String = name.chars().filter(|c| !c.is_control()).take(80).collect();
            format!("{shown:?} is no mailbox in the namespaces of agent.dovecot")
        })
    }

    /// The name that clients are told of. As in Dovecot the longest prefix decides where a name is; and INBOX below a
    /// prefix of one's own is the INBOX, which has none.
    fn unaliased(&self, name: Vec<u8>) -> Vec<u8> {
        fn longest<'a>(name: &[u8], prefixes: impl Iterator<Item = &'a [u8]>) -> Option<usize> {
            prefixes.filter(|prefix| name.len() > prefix.len() && name.starts_with(prefix)).map(<[u8]>::len).max()
        }
        let Namespaces { personal, other_users, shared } = &self.namespaces;
        let Some((first, others)) = personal.split_first() else { return name };
        let elsewhere = longest(&name, others.iter().chain(other_users).chain(shared).map(|space| space.prefix.as_slice()));
        let alias = longest(&name, self.aliases.iter().map(Vec::as_slice));
        let real = longest(&name, std::iter::once(first.prefix.as_slice()));
        let Some(length) = alias.max(real).filter(|length| Some(*length) > elsewhere) else { return name };
        match &name[length..] {
            b"INBOX" => b"INBOX".to_vec(),
            _ if name.eq_ignore_ascii_case(b"INBOX") => name,
            below => [first.prefix.as_slice(), below].concat(),
        }
    }

    /// What Dovecot tells of and what is written here, both as settings, if they differ in what a name means.
    pub fn disagreement(&self, told: &Namespaces) -> Option<(String, String)> {
        (effective(told) != effective(&self.namespaces)).then(|| (as_settings(told), as_settings(&self.namespaces)))
    }
}

/// A namespace, to compare.
type Place<'a> = (&'a [u8], Option<u8>);

/// What of namespaces decides about paths: the first of one's own, and the others, in whatever order they come.
fn effective(namespaces: &Namespaces) -> (Option<Place<'_>>, [BTreeSet<Place<'_>>; 3]) {
    fn place(space: &Namespace) -> Place<'_> {
        (&space.prefix, space.delimiter)
    }
    let first = namespaces.personal.first().map(place);
    // Names in a further one of one's own keep its prefix, as they do where a first one without prefix takes them all.
    let taken = |(_, delimiter): &Place<'_>| first == Some((b"", *delimiter));
    let personal = namespaces.personal.iter().skip(1).map(place).filter(|place| !taken(place)).collect();
    let all = |spaces| <[Namespace]>::iter(spaces).map(place).collect();
    (first, [personal, all(&namespaces.other_users), all(&namespaces.shared)])
}

/// As they would stand in the configuration.
fn as_settings(namespaces: &Namespaces) -> String {
    let prefixes = |spaces: &[Namespace]| {
        let text = |space: &Namespace| decode_utf7(&space.prefix).map_or_else(|| "?".to_owned(), |text| format!("{text:?}"));
        spaces.iter().map(text).collect::<Vec<_>>().join(", ")
    };
    let Namespaces { personal, other_users, shared } = namespaces;
    let separators: BTreeSet<u8> = [personal, other_users, shared].into_iter().flatten().filter_map(|s| s.delimiter).collect();
    let separators: Vec<String> =
        separators.into_iter().map(|separator| format!("{:?}", char::from(separator).to_string())).collect();
    let others = if other_users.is_empty() { "\"\"".to_owned() } else { prefixes(other_users) };
    format!(
        "personal_prefixes = [{}], shared_prefix = {others}, public_prefixes = [{}], separator = {}",
        prefixes(personal),
        prefixes(shared),
        separators.join(" and ")
    )
}

#[cfg(test)]
#[path = "naming_tests.rs"]
mod tests;
