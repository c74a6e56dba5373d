//! Message flags (RFC 9051 2.3.2): system flags and keywords, always valid IMAP atoms (I-2).

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The longest flag accepted, in bytes.
pub const MAX_FLAG_BYTES: usize = 255;

/// The system flags in the one spelling we write; flags are compared without regard to case.
const SYSTEM: [&str; 6] = ["\\Answered", "\\Deleted", "\\Draft", "\\Flagged", "\\Recent", "\\Seen"];

/// One flag: a system flag such as `\Seen`, or a keyword such as `$Forwarded`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Flag(Box<str>);

/// A text that is no IMAP flag: not an atom, or an unknown `\…` that is none either.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not an IMAP flag (RFC 9051 flag-keyword: an atom, at most {MAX_FLAG_BYTES} bytes)")]
pub struct InvalidFlag;

impl Flag {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Flag {
    type Err = InvalidFlag;

    fn from_str(text: &str) -> Result<Self, InvalidFlag> {
        if let Some(known) = SYSTEM.iter().find(|known| known.eq_ignore_ascii_case(text)) {
            return Ok(Self((*known).into()));
        }
        let atom = text.strip_prefix('\\').unwrap_or(text);
        // ATOM-CHAR of RFC 9051 section 9: printable ASCII but atom-specials.
        let is_atom = |b: u8| b.is_ascii_graphic() && !b"(){%*\"\\]".contains(&b);
        if atom.is_empty() || text.len() > MAX_FLAG_BYTES || !atom.bytes().all(is_atom) {
            return Err(InvalidFlag);
        }
        Ok(Self(text.into()))
    }
}

impl TryFrom<String> for Flag {
    type Error = InvalidFlag;

    fn try_from(text: String) -> Result<Self, InvalidFlag> {
        text.parse()
    }
}

impl From<Flag> for String {
    fn from(flag: Flag) -> Self {
        flag.0.into()
    }
}

impl fmt::Display for Flag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A set of flags, in a fixed order and without repetitions.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Vec<Flag>", into = "Vec<Flag>")]
pub struct Flags(Vec<Flag>);

impl Flags {
    /// The valid ones among `texts`, and whether all of them were.
    pub fn sift<'a>(texts: impl IntoIterator<Item = &'a str>) -> (Self, bool) {
        let mut all = true;
        let flags = texts.into_iter().filter_map(|text| text.parse().inspect_err(|_| all = false).ok()).collect();
        (flags, all)
    }

    pub fn iter(&self) -> impl Iterator<Item = &Flag> {
        self.0.iter()
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether the set holds the flag, in any case.
    pub fn contains(&self, flag: &str) -> bool {
        self.0.iter().any(|held| held.0.eq_ignore_ascii_case(flag))
    }

    /// The flags of this set that `other` lacks.
    pub fn minus(&self, other: &Self) -> Self {
        self.0.iter().filter(|flag| !other.contains(flag.as_str())).cloned().collect()
    }
}

impl FromIterator<Flag> for Flags {
    fn from_iter<I: IntoIterator<Item = Flag>>(flags: I) -> Self {
        let mut flags: Vec<Flag> = flags.into_iter().collect();
        flags.sort_by_cached_key(|flag| flag.0.to_ascii_lowercase());
        flags.dedup_by(|a, b| a.0.eq_ignore_ascii_case(&b.0));
        Self(flags)
    }
}

impl From<Vec<Flag>> for Flags {
    fn from(flags: Vec<Flag>) -> Self {
        flags.into_iter().collect()
    }
}

impl From<Flags> for Vec<Flag> {
    fn from(flags: Flags) -> Self {
        flags.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn system_flags_have_one_spelling() {
        assert_eq!("\\SEEN".parse::<Flag>().unwrap().as_str(), "\\Seen");
        assert_eq!("$Forwarded".parse::<Flag>().unwrap().as_str(), "$Forwarded");
        assert_eq!("\\Extension".parse::<Flag>().unwrap().as_str(), "\\Extension");
    }

    #[test]
    fn only_atoms_are_flags() {
        for bad in ["", "\\", "a b", "a\r\n* BYE", "a)", "(a", "a{3}", "é", "a\"", "a\\b", "]", "*", &"x".repeat(256)] {
            assert_eq!(bad.parse::<Flag>(), Err(InvalidFlag), "{bad:?}");
        }
    }

    #[test]
    fn a_set_is_sorted_and_without_repetitions() {
        let (flags, all) = Flags::sift(["\\seen", "b", "A", "a", "\\SEEN", "not one"]);
        assert_eq!(flags.iter().map(Flag::as_str).collect::<Vec<_>>(), ["\\Seen", "A", "b"]);
        assert!(!all && flags.contains("\\sEEn") && !flags.contains("c"));
    }

    proptest! {
        #[test]
        fn a_flag_can_never_break_a_line(text in any::<String>()) {
            if let Ok(flag) = text.parse::<Flag>() {
                prop_assert!(flag.as_str().bytes().all(|b| b.is_ascii_graphic()));
            }
        }
    }
}
