//! Rights on a mailbox (RFC 4314): who may look it up, read it, change it.

mod acl;
mod identifier;

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

pub use acl::{Acl, AclEdit, Entry};
pub use identifier::{Identifier, InvalidIdentifier, Subject};

/// RFC 4314 2.1's standard rights in its order, then the digits that servers give meanings of their
/// own (2.2).
const LETTERS: &[u8; 21] = b"lrswipkxtea0123456789";
/// How many of them the standard knows.
const STANDARD: usize = 11;

/// A set of rights.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Rights(u32);

/// Why a text is no set of rights.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a right: use letters of \"lrswipkxtea\" (RFC 4314)")]
pub struct InvalidRights(pub char);

impl Rights {
    pub const NONE: Self = Self(0);
    /// All standard rights: what an owner has.
    pub const ALL: Self = Self((1 << STANDARD) - 1);
    /// `l`: the mailbox may be known, and what happens to the mailbox as a whole.
    pub const LOOKUP: Self = Self(1);
    /// `l` and `r`: what happens to its messages too.
    pub const READ: Self = Self(0b11);

    /// `a`: who may do what can be seen and changed.
    pub const ADMINISTER: Self = Self(1 << 10);

    /// Reads letters in any order. The obsolete `c` and `d` stand for `k` and for `xte`: of the two
    /// ways that RFC 4314 2.1.1 leaves open, the one where `d` is every way to delete. Capitals are
    /// no rights (RFC 4314 2).
    pub fn parse(text: &str) -> Result<Self, InvalidRights> {
        text.chars()
            .try_fold(Self::NONE, |rights, letter| Self::of(letter).map(|right| rights.with(right)).ok_or(InvalidRights(letter)))
    }

    /// What a server says somebody has: letters that are not known here (an extension's) say
    /// nothing, and neither do `c` and `d` where a server tells of what they stand for: it adds
    /// them for any one of those (RFC 4314 2.1.1). A server of RFC 2086 has no other letters for
    /// it.
    pub fn parse_known(text: &str) -> Self {
        Self::parse_told(text, Self::tells_new(text))
    }

    /// Whether a server tells of the rights that the obsolete `c` and `d` stand for by their own
    /// letters.
    pub fn tells_new(text: &str) -> bool {
        text.contains(['k', 'x', 't', 'e'])
    }

    /// As [`Self::parse_known`], where `is_new` says of all that the server told together whether
    /// it [`Self::tells_new`].
    pub fn parse_told(text: &str, is_new: bool) -> Self {
        let says = |letter: &char| !(is_new && matches!(letter, 'c' | 'd'));
        text.chars().filter(says).filter_map(Self::of).fold(Self::NONE, Self::with)
    }

    /// What a client asks a server to give somebody: letters that are not known here say nothing;
    /// `c` and `d` stand for what they stand for whatever comes with them (RFC 4314 2.1.1).
    pub fn parse_asked(text: &str) -> Self {
        Self::parse_told(text, false)
    }

    fn of(letter: char) -> Option<Self> {
        match letter {
            'c' => Some(Self::bit(b'k')),
            'd' => Some(Self::bit(b'x').with(Self::bit(b't')).with(Self::bit(b'e'))),
            letter => u8::try_from(letter).ok().filter(|letter| LETTERS.contains(letter)).map(Self::bit),
        }
    }

    fn bit(letter: u8) -> Self {
        LETTERS.iter().position(|known| *known == letter).map_or(Self::NONE, |at| Self(1 << at))
    }

    /// Whether the right of this letter is among them.
    pub fn has(self, letter: char) -> bool {
        Self::of(letter).is_some_and(|right| self.contains(right))
    }

    pub fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    #[must_use]
    pub const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    #[must_use]
    pub fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Whether the mailbox may be known to exist at all (RFC 4314 6: any of these gives it away
    /// anyhow).
    pub fn know(self) -> bool {
        "lrikxa".chars().any(|letter| self.has(letter))
    }

    /// As a number, to be kept in an atomic; see [`Self::from_bits`].
    pub fn bits(self) -> u32 {
        self.0
    }

    /// Those of [`Self::bits`]; what is no right falls away.
    pub fn from_bits(bits: u32) -> Self {
        Self(bits & ((1 << LETTERS.len()) - 1))
    }
}

impl fmt::Display for Rights {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        LETTERS.iter().filter(|letter| self.contains(Self::bit(**letter))).try_for_each(|letter| write!(f, "{}", *letter as char))
    }
}

/// As letters.
impl Serialize for Rights {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Rights {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

impl FromStr for Rights {
    type Err = InvalidRights;

    fn from_str(text: &str) -> Result<Self, InvalidRights> {
        Self::parse(text)
    }
}

/// The third argument of SETACL (RFC 4314 3.1), and the `rights` of an `AclChange`: the rights that
/// an identifier has now, or with `+` or `-` in front those that were added or taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RightsChange {
    Set(Rights),
    Add(Rights),
    Remove(Rights),
}

impl RightsChange {
    /// What is left of `held`.
    pub fn apply(self, held: Rights) -> Rights {
        match self {
            Self::Set(rights) => rights,
            Self::Add(rights) => held.with(rights),
            Self::Remove(rights) => held.without(rights),
        }
    }
}

impl FromStr for RightsChange {
    type Err = InvalidRights;

    fn from_str(text: &str) -> Result<Self, InvalidRights> {
        match text.split_at_checked(1) {
            Some(("+", rights)) => rights.parse().map(Self::Add),
            Some(("-", rights)) => rights.parse().map(Self::Remove),
            _ => text.parse().map(Self::Set),
        }
    }
}

impl fmt::Display for RightsChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Set(rights) => write!(f, "{rights}"),
            Self::Add(rights) => write!(f, "+{rights}"),
            Self::Remove(rights) => write!(f, "-{rights}"),
        }
    }
}

#[cfg(test)]
mod tests;
