//! Mailbox paths: `#namespace:owner:name`.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::user::{InvalidUser, UserName, UserNames};

/// The longest path accepted, in bytes.
pub const MAX_PATH_BYTES: usize = 16 * 1024;

/// The namespace of a user's own mailboxes (RFC 2342's personal namespace).
pub const PRIVATE: &str = "#private";

/// A mailbox, named the same way everywhere in the cluster: `#private:bidon@toto.fr:INBOX`.
///
/// The hierarchy separator in the name is `/`, whatever the IMAP server shows. `INBOX` in any case
/// is one mailbox (RFC 9051 5.1). A shared namespace has an empty owner. Cheap to clone.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct MailboxPath {
    text: Arc<str>,
    /// Where the owner begins and ends in `text`. Both follow from the text, so that comparing
    /// paths is comparing texts.
    owner_start: u16,
    owner_end: u16,
}

/// Why a text is not a mailbox path.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidPath {
    #[error("a mailbox path has the form #namespace:owner:name, for example #private:alice@example.org:INBOX")]
    Form,
    #[error("a mailbox path is at most {MAX_PATH_BYTES} bytes long")]
    TooLong,
    #[error("a namespace is '#' and 1 to 64 letters, digits, '-', '_' or '.'")]
    Namespace,
    #[error("the owner of a mailbox path is not a user name: {0}")]
    Owner(#[from] InvalidUser),
    #[error("the name in a mailbox path must not be empty")]
    EmptyName,
}

impl MailboxPath {
    /// Builds a path from its parts; `owner` is empty in a shared namespace.
    pub fn new(namespace: &str, owner: &str, name: &str) -> Result<Self, InvalidPath> {
        let word = namespace.strip_prefix('#').ok_or(InvalidPath::Namespace)?;
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        if word.is_empty() || word.len() > 64 || !word.chars().all(plain) {
            return Err(InvalidPath::Namespace);
        }
        if !owner.is_empty() {
            UserName::validate(owner)?;
        }
        if name.is_empty() {
            return Err(InvalidPath::EmptyName);
        }
        let name = if name.eq_ignore_ascii_case("INBOX") { "INBOX" } else { name };
        let text = format!("{namespace}:{owner}:{name}");
        if text.len() > MAX_PATH_BYTES {
            return Err(InvalidPath::TooLong);
        }
        let owner_start = namespace.len() + 1;
        Ok(Self { text: text.into(), owner_start: owner_start as u16, owner_end: (owner_start + owner.len()) as u16 })
    }

    /// A mailbox in a user's own namespace.
    pub fn private(owner: &UserName, name: &str) -> Result<Self, InvalidPath> {
        Self::new(PRIVATE, owner.as_str(), name)
    }

    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// With its `#`.
    pub fn namespace(&self) -> &str {
        &self.text[..self.owner_start as usize - 1]
    }

    /// Empty in a shared namespace.
    pub fn owner(&self) -> &str {
        &self.text[self.owner_start as usize..self.owner_end as usize]
    }

    /// Whose account the mailbox belongs to, if anybody's.
    pub fn owner_name(&self) -> Option<UserName> {
        UserName::new(self.owner()).ok()
    }

    /// Hierarchy separator `/`.
    pub fn name(&self) -> &str {
        &self.text[self.owner_end as usize + 1..]
    }

    /// Whether this is one of `user`'s own mailboxes.
    pub fn is_owned_by(&self, user: &UserName) -> bool {
        self.owner() == user.as_str()
    }

    /// What this mailbox is called once `from` has become `to`: the mailbox itself, and everything
    /// below it. `None`: it is not touched. Renaming INBOX touches nothing else: its messages move,
    /// and what lies below it stays (RFC 9051 6.3.6).
    pub fn renamed(&self, from: &Self, to: &Self) -> Option<Self> {
        if from.name() == "INBOX" {
            return None;
        }
        let below = self.text.strip_prefix(from.as_str())?;
        match below.strip_prefix('/') {
            // What would become too long is as good as gone.
            Some(_) => Self::new(to.namespace(), to.owner(), &format!("{}{below}", to.name())).ok(),
            None => below.is_empty().then(|| to.clone()),
        }
    }

    /// The same mailbox with its owner in the normal form: what an edge does to each path it takes
    /// in.
    pub fn normalised(&self, names: &UserNames) -> Result<Self, InvalidPath> {
        if self.owner().is_empty() {
            return Ok(self.clone());
        }
        let owner = names.normalise(self.owner())?;
        if owner.as_str() == self.owner() {
            return Ok(self.clone());
        }
        Self::new(self.namespace(), owner.as_str(), self.name())
    }
}

impl FromStr for MailboxPath {
    type Err = InvalidPath;

    fn from_str(text: &str) -> Result<Self, InvalidPath> {
        if text.len() > MAX_PATH_BYTES {
            return Err(InvalidPath::TooLong);
        }
        let mut parts = text.splitn(3, ':');
        match (parts.next(), parts.next(), parts.next()) {
            (Some(namespace), Some(owner), Some(name)) => Self::new(namespace, owner, name),
            _ => Err(InvalidPath::Form),
        }
    }
}

impl TryFrom<String> for MailboxPath {
    type Error = InvalidPath;

    fn try_from(text: String) -> Result<Self, InvalidPath> {
        text.parse()
    }
}

impl From<MailboxPath> for String {
    fn from(path: MailboxPath) -> Self {
        path.text.as_ref().to_owned()
    }
}

impl fmt::Display for MailboxPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for MailboxPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.text, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn parts_of_a_path() {
        let path: MailboxPath = "#private:bidon@toto.fr:Work/2026:Q1".parse().unwrap();
        assert_eq!(path.namespace(), "#private");
        assert_eq!(path.owner(), "bidon@toto.fr");
        assert_eq!(path.name(), "Work/2026:Q1");
        let shared: MailboxPath = "#shared::Support".parse().unwrap();
        assert_eq!((shared.owner(), shared.owner_name()), ("", None));
    }

    #[test]
    fn inbox_in_any_case_is_one_mailbox() {
        let path: MailboxPath = "#private:bob:iNbOx".parse().unwrap();
        assert_eq!(path.to_string(), "#private:bob:INBOX");
    }

    #[test]
    fn an_owner_is_normalised_at_the_edge() {
        let names = UserNames { lowercase: true, default_domain: Some("x.org".into()) };
        let path: MailboxPath = "#private:Bob:INBOX".parse().unwrap();
        assert_eq!(path.normalised(&names).unwrap().as_str(), "#private:bob@x.org:INBOX");
        let shared: MailboxPath = "#shared::News".parse().unwrap();
        assert_eq!(shared.normalised(&names).unwrap(), shared);
    }

    #[test]
    fn a_rename_takes_along_what_lies_below() {
        let path = |name: &str| format!("#private:bob:{name}").parse::<MailboxPath>().unwrap();
        for (name, from, to, renamed) in [
            ("A", "A", "X/Y", Some("X/Y")),
            ("A/B/C", "A", "X", Some("X/B/C")),
            ("AB", "A", "X", None),
            ("A", "A/B", "X", None),
            ("INBOX", "INBOX", "Old", None),
            ("INBOX/A", "INBOX", "Old", None),
        ] {
            assert_eq!(path(name).renamed(&path(from), &path(to)), renamed.map(path), "{name}: {from} becomes {to}");
        }
        let other: MailboxPath = "#private:eve:A/B".parse().unwrap();
        assert_eq!(other.renamed(&path("A"), &path("X")), None);
    }

    #[test]
    fn what_is_not_a_path_says_why() {
        let parse = |text: &str| text.parse::<MailboxPath>().unwrap_err();
        assert_eq!(parse("INBOX"), InvalidPath::Form);
        assert_eq!(parse("#private:bob"), InvalidPath::Form);
        assert_eq!(parse("private:bob:INBOX"), InvalidPath::Namespace);
        assert_eq!(parse("#a b:bob:INBOX"), InvalidPath::Namespace);
        assert_eq!(parse("#private:bob:"), InvalidPath::EmptyName);
        assert_eq!(parse("#private:b\u{7}b:INBOX"), InvalidPath::Owner(InvalidUser::BadCharacter));
        assert_eq!(parse(&format!("#private:bob:{}", "x".repeat(17_000))), InvalidPath::TooLong);
    }

    proptest! {
        #[test]
        fn printing_and_parsing_are_inverse(owner in "[a-z@.%/ ]{0,20}", name in any::<String>()) {
            prop_assume!(!name.is_empty());
            let path = MailboxPath::new("#private", &owner, &name).unwrap();
            prop_assert_eq!(path.to_string().parse::<MailboxPath>().unwrap(), path);
        }

        #[test]
        fn any_text_is_parsed_or_refused(text in any::<String>()) {
            let _ = text.parse::<MailboxPath>();
        }
    }
}
