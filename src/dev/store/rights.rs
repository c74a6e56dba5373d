//! Rights on a mailbox (RFC 4314).

use std::fmt;

/// In the order in which they are shown: RFC 4314 2.1's standard rights but `p`, which nothing here asks for, and with it.
const ORDER: &[u8] = b"lrswipkxtea";

/// A set of rights.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Rights(u16);

impl Rights {
    pub const NONE: Self = Self(0);
    pub const ALL: Self = Self((1 << ORDER.len()) - 1);

    /// Reads letters; the obsolete `c` and `d` stand for `k` and for `xte` (RFC 4314 2.1.1). `None` for an unknown letter.
    pub fn parse(text: &str) -> Option<Self> {
        text.bytes().try_fold(Self::NONE, |rights, letter| {
            Some(rights.with(match letter {
                b'c' => Self::parse("k")?,
                b'd' => Self::parse("xte")?,
                letter => Self(1 << ORDER.iter().position(|known| *known == letter)?),
            }))
        })
    }

    /// Whether the right of this letter is among them.
    pub fn has(self, letter: u8) -> bool {
        ORDER.iter().position(|known| *known == letter).is_some_and(|bit| self.0 & 1 << bit != 0)
    }

    pub fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    pub fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// Whether the mailbox may be known to exist at all (RFC 4314 6: any of these gives it away anyhow).
    pub fn know(self) -> bool {
        b"lrikxa".iter().any(|letter| self.has(*letter))
    }
}

impl fmt::Display for Rights {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        ORDER.iter().filter(|letter| self.has(**letter)).try_for_each(|letter| write!(f, "{}", *letter as char))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn letters_are_read_and_shown() {
        assert_eq!(Rights::parse("srl").unwrap().to_string(), "lrs");
        assert_eq!(Rights::parse("cd").unwrap().to_string(), "kxte");
        assert_eq!(Rights::parse("lq"), None);
        assert_eq!(Rights::ALL.to_string(), "lrswipkxtea");
        assert!(!Rights::parse("s").unwrap().know() && Rights::parse("lr").unwrap().without(Rights::parse("r").unwrap()).know());
    }
}
