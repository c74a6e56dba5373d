//! An access control list, and what follows from it for one user.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::{Identifier, InvalidIdentifier, Rights, RightsChange, Subject};
use crate::mail::path::MailboxPath;
use crate::mail::user::UserNames;

/// One identifier of an ACL with its sign: with `-` in front the rights are taken away, whoever
/// else gives them (RFC 4314 2).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Entry {
    pub identifier: Identifier,
    pub negative: bool,
}

impl Entry {
    /// Reads what a server, a client or an origin wrote; see [`Identifier::read`].
    pub fn read(text: &str, names: &UserNames) -> Result<Self, InvalidIdentifier> {
        let (negative, text) = sign(text);
        Ok(Self { identifier: Identifier::read(text, names)?, negative })
    }
}

fn sign(text: &str) -> (bool, &str) {
    text.strip_prefix('-').map_or((false, text), |text| (true, text))
}

impl FromStr for Entry {
    type Err = InvalidIdentifier;

    fn from_str(text: &str) -> Result<Self, InvalidIdentifier> {
        let (negative, text) = sign(text);
        Ok(Self { identifier: text.parse()?, negative })
    }
}

impl TryFrom<String> for Entry {
    type Error = InvalidIdentifier;

    fn try_from(text: String) -> Result<Self, InvalidIdentifier> {
        text.parse()
    }
}

impl From<Entry> for String {
    fn from(entry: Entry) -> Self {
        entry.to_string()
    }
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.negative {
            f.write_str("-")?;
        }
        write!(f, "{}", self.identifier)
    }
}

/// Who has which rights on one mailbox. The owner's are not in it: they are all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Acl {
    /// None of them empty.
    entries: BTreeMap<Entry, Rights>,
}

/// One change of an ACL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AclEdit {
    pub entry: Entry,
    pub change: RightsChange,
}

impl Acl {
    pub fn get(&self, entry: &Entry) -> Rights {
        self.entries.get(entry).copied().unwrap_or_default()
    }

    /// An entry without rights is none.
    pub fn set(&mut self, entry: Entry, rights: Rights) {
        if rights.is_empty() {
            self.entries.remove(&entry);
        } else {
            self.entries.insert(entry, rights);
        }
    }

    /// Whether it is another ACL now.
    pub fn edit(&mut self, edit: &AclEdit) -> bool {
        let held = self.get(&edit.entry);
        let rights = edit.change.apply(held);
        self.set(edit.entry.clone(), rights);
        rights != held
    }

    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    pub fn len(&self) -> usize {
        self.entries.len()
    }

    pub fn iter(&self) -> impl Iterator<Item = (&Entry, Rights)> {
        self.entries.iter().map(|(entry, rights)| (entry, *rights))
    }

    /// What `subject` may do with `mailbox`: everything with one's own; else what all entries about
    /// the subject give together, without what any negative one takes (RFC 4314 2).
    pub fn effective(&self, mailbox: &MailboxPath, subject: &Subject) -> Rights {
        if mailbox.is_owned_by(&subject.user) { Rights::ALL } else { self.leaves(subject) }
    }

    /// What is left to `subject`, who does not own the mailbox; in any case, where the subject's
    /// groups are not known.
    pub fn leaves(&self, subject: &Subject) -> Rights {
        self.bounds(subject).0
    }

    /// Whether it can be said who hears what of the mailbox: not where that depends on groups, and
    /// which those of the subject are is not known.
    pub fn decides(&self, mailbox: &MailboxPath, subject: &Subject) -> bool {
        let (least, most) = self.bounds(subject);
        let agree = |needed| least.contains(needed) == most.contains(needed);
        mailbox.is_owned_by(&subject.user) || agree(Rights::LOOKUP) && agree(Rights::READ)
    }

    /// The least and the most that may be left to somebody who does not own the mailbox. The same,
    /// where all groups are known.
    fn bounds(&self, subject: &Subject) -> (Rights, Rights) {
        let [mut given, mut perhaps_given, mut taken, mut perhaps_taken] = [Rights::NONE; 4];
        for (entry, rights) in self.iter().filter(|(entry, _)| subject.is(&entry.identifier, false)) {
            let sum = match (entry.negative, subject.certainly_is(&entry.identifier)) {
                (false, true) => &mut given,
                (false, false) => &mut perhaps_given,
                (true, true) => &mut taken,
                (true, false) => &mut perhaps_taken,
            };
            *sum = sum.with(rights);
        }
        (given.without(taken).without(perhaps_taken), given.with(perhaps_given).without(taken))
    }
}

impl FromIterator<(Entry, Rights)> for Acl {
    fn from_iter<I: IntoIterator<Item = (Entry, Rights)>>(entries: I) -> Self {
        let mut acl = Self::default();
        entries.into_iter().for_each(|(entry, rights)| acl.set(entry, rights));
        acl
    }
}

/// As a table of texts: `{"bob@example.org":"lrs","-group:temps":"r"}`.
impl Serialize for Acl {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.iter().map(|(entry, rights)| (entry.to_string(), rights.to_string())))
    }
}

/// An unknown letter is an error, and so is an entry that comes twice, in two spellings perhaps:
/// rights that are not understood must not be lost.
impl<'de> Deserialize<'de> for Acl {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Table;

        impl<'de> serde::de::Visitor<'de> for Table {
            type Value = Acl;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a table of identifiers and their rights")
            }

            fn visit_map<A: serde::de::MapAccess<'de>>(self, mut table: A) -> Result<Acl, A::Error> {
                let mut seen = BTreeMap::new();
                while let Some((entry, rights)) = table.next_entry::<Entry, Rights>()? {
                    let name = entry.to_string();
                    if seen.insert(entry, rights).is_some() {
                        return Err(serde::de::Error::custom(format_args!("{name:?} is there twice")));
                    }
                }
                Ok(seen.into_iter().collect())
            }
        }

        deserializer.deserialize_map(Table)
    }
}
