//! Keys: what a registration is about, and how a key is written as the name of a znode.

use std::fmt;

use data_encoding::BASE32_NOPAD;
use percent_encoding::{AsciiSet, CONTROLS, percent_decode_str, utf8_percent_encode};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::path::MailboxPath;
use super::user::UserName;

/// One mailbox, or a whole account (every mailbox of one owner).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Key {
    Mailbox(MailboxPath),
    Account(UserName),
}

/// What is kept out of a znode's name: what ZooKeeper forbids or reserves (control characters,
/// `/`), the escape itself, and the blank, which a human reading `ls` would trip on. Non-ASCII is
/// always escaped: ZooKeeper forbids parts of it, and two spellings of one letter look alike.
const ESCAPED: &AsciiSet = &CONTROLS.add(b'%').add(b'/').add(b' ').add(b'"').add(b'\\');

/// The longest escaped name; a longer key is named by its digest. Paths count against a ZooKeeper
/// session's budget (I-14), so they had better be short.
pub const MAX_ZNODE_NAME: usize = 200;

/// A key as the name of a znode.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ZnodeName {
    /// Readable and reversible, see [`Key::from_znode_name`].
    Escaped(String),
    /// `~` and a digest, for an over-long key: the key itself belongs into the container's data.
    Digest(String),
}

impl ZnodeName {
    /// The name of a text, which begins with a character that tells what it is about.
    pub fn of(text: &str) -> Self {
        let escaped = utf8_percent_encode(text, ESCAPED).to_string();
        if escaped.len() <= MAX_ZNODE_NAME {
            Self::Escaped(escaped)
        } else {
            Self::Digest(format!("~{}", BASE32_NOPAD.encode(&Sha256::digest(&escaped)[..20])))
        }
    }

    pub fn as_str(&self) -> &str {
        match self {
            Self::Escaped(name) | Self::Digest(name) => name,
        }
    }
}

impl Key {
    /// The znode's name. Total: any key has one. The first character tells what it is: `#` a
    /// mailbox, `@` an account, `~` a digest; so `.`, `..` and the reserved `zookeeper` cannot come
    /// up.
    pub fn znode_name(&self) -> ZnodeName {
        match self {
            Self::Mailbox(path) => ZnodeName::of(path.as_str()),
            Self::Account(user) => ZnodeName::of(&format!("@{user}")),
        }
    }

    /// Reads an escaped name back; `None` for a digest and for a name that no key has.
    pub fn from_znode_name(name: &str) -> Option<Self> {
        let text = percent_decode_str(name).decode_utf8().ok()?;
        let key = match text.strip_prefix('@') {
            Some(user) => Self::Account(UserName::new(user).ok()?),
            None => Self::Mailbox(text.parse().ok()?),
        };
        (key.znode_name().as_str() == name).then_some(key)
    }

    /// See [`stable_hash`]: it chooses buckets, ensembles and partitions.
    pub fn stable_hash(&self) -> u64 {
        match self {
            Self::Mailbox(path) => stable_hash(b'#', path.as_str()),
            Self::Account(user) => stable_hash(b'@', user.as_str()),
        }
    }

    /// Whether the key is about nothing but `user`'s own mail.
    pub fn is_owned_by(&self, user: &UserName) -> bool {
        match self {
            Self::Mailbox(path) => path.is_owned_by(user),
            Self::Account(owner) => owner == user,
        }
    }
}

/// A hash that is the same in every process and version (FNV-1a, then a finaliser so that every bit
/// counts). `mark` tells what the text is about.
pub fn stable_hash(mark: u8, text: &str) -> u64 {
    let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
    for byte in std::iter::once(mark).chain(text.bytes()) {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    }
    hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    hash ^ (hash >> 31)
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Mailbox(path) => write!(f, "{path}"),
            Self::Account(user) => write!(f, "account {user}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn mailbox(name: &str) -> Key {
        Key::Mailbox(MailboxPath::new("#private", "bob@x.org", name).unwrap())
    }

    #[test]
    fn names_are_readable() {
        assert_eq!(mailbox("INBOX").znode_name().as_str(), "#private:bob@x.org:INBOX");
        assert_eq!(mailbox("a/b c%\n\0é").znode_name().as_str(), "#private:bob@x.org:a%2Fb%20c%25%0A%00%C3%A9");
        let account = Key::Account(UserName::new("bob@x.org").unwrap());
        assert_eq!(account.znode_name().as_str(), "@bob@x.org");
        assert_eq!(Key::from_znode_name("@bob@x.org"), Some(account));
    }

    #[test]
    fn a_long_name_falls_back_to_a_digest() {
        let name = mailbox(&"x".repeat(10_240)).znode_name();
        assert!(matches!(&name, ZnodeName::Digest(d) if d.len() == 33 && d.starts_with('~')), "{name:?}");
        assert_ne!(name, mailbox(&"x".repeat(10_241)).znode_name());
        assert_eq!(Key::from_znode_name(name.as_str()), None);
    }

    #[test]
    fn the_hash_is_pinned() {
        // Nodes of different versions share buckets and ensembles: this number must never change.
        assert_eq!(mailbox("INBOX").stable_hash(), mailbox("inbox").stable_hash());
        assert_eq!(mailbox("INBOX").stable_hash(), 15_883_098_585_954_678_630);
    }

    proptest! {
        #[test]
        fn escaping_is_total_and_reversible(name in any::<String>(), owner in "[^:\\p{Cc}]{0,24}") {
            prop_assume!(!name.is_empty());
            let key = Key::Mailbox(MailboxPath::new("#private", &owner, &name).unwrap());
            let znode = key.znode_name();
            prop_assert!(znode.as_str().bytes().all(|b| b.is_ascii_graphic() && b != b'/'));
            prop_assert!(znode.as_str().len() <= MAX_ZNODE_NAME);
            if let ZnodeName::Escaped(text) = znode {
                prop_assert_eq!(Key::from_znode_name(&text), Some(key));
            }
        }

        #[test]
        fn any_name_is_read_or_refused(name in any::<String>()) {
            if let Some(key) = Key::from_znode_name(&name) {
                let written = key.znode_name();
                prop_assert_eq!(written.as_str(), name.as_str());
            }
        }
    }
}
