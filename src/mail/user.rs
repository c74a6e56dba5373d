//! User names, normalised once at the edge.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// The longest user name accepted, in bytes (RFC 5321 4.5.3.1: 64 + `@` + 255).
pub const MAX_USER_BYTES: usize = 320;

/// A user name in its one normal form. Cheap to clone.
///
/// Never empty, at most [`MAX_USER_BYTES`], free of control characters and of `:` (which separates
/// the parts of a mailbox path, and which RFC 7617 keeps out of user names too).
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct UserName(Arc<str>);

/// Why a text is not a user name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidUser {
    #[error("a user name must not be empty")]
    Empty,
    #[error("a user name is at most {MAX_USER_BYTES} bytes long")]
    TooLong,
    #[error("a user name must not hold ':' or control characters")]
    BadCharacter,
    /// Cutting it off could turn one user's name into another's.
    #[error("a user name must not begin or end with white space")]
    OuterSpace,
}

impl UserName {
    /// Takes a text that is in its normal form already (from a peer of the cluster, say).
    pub fn new(text: impl AsRef<str>) -> Result<Self, InvalidUser> {
        let text = text.as_ref();
        Self::validate(text)?;
        Ok(Self(text.into()))
    }

    pub(crate) fn validate(text: &str) -> Result<(), InvalidUser> {
        if text.is_empty() {
            return Err(InvalidUser::Empty);
        }
        if text.len() > MAX_USER_BYTES {
            return Err(InvalidUser::TooLong);
        }
        if text.chars().any(|c| c == ':' || c.is_control()) {
            return Err(InvalidUser::BadCharacter);
        }
        Ok(())
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for UserName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for UserName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl TryFrom<String> for UserName {
    type Error = InvalidUser;

    fn try_from(text: String) -> Result<Self, InvalidUser> {
        Self::new(text)
    }
}

impl From<UserName> for String {
    fn from(user: UserName) -> Self {
        user.0.as_ref().to_owned()
    }
}

/// How user names are brought to their normal form: the same everywhere in a cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UserNames {
    /// Whether the case of ASCII letters is folded. Mail systems differ; most fold. Other letters
    /// stay as they are: by Unicode's rules the Kelvin sign is a small `k`, and `\u{212a}ate` would
    /// become `kate`.
    pub lowercase: bool,
    /// The domain that a bare `alice` belongs to.
    pub default_domain: Option<String>,
}

impl Default for UserNames {
    fn default() -> Self {
        Self { lowercase: true, default_domain: None }
    }
}

impl UserNames {
    /// Brings what a client, a token or an origin wrote to the normal form: ASCII letters in small,
    /// and with the default domain. Nothing is cut off, and no letter becomes another: whoever may
    /// choose a name must not be able to choose one that becomes somebody else's.
    ///
    /// # Errors
    /// What is no [`UserName`], and what begins or ends with white space.
    pub fn normalise(&self, raw: &str) -> Result<UserName, InvalidUser> {
        UserName::validate(raw)?;
        if raw.trim() != raw {
            return Err(InvalidUser::OuterSpace);
        }
        let mut text = raw.to_owned();
        if let (Some(domain), false) = (&self.default_domain, text.contains('@')) {
            text.push('@');
            text.push_str(domain);
        }
        if self.lowercase {
            text.make_ascii_lowercase();
        }
        UserName::new(text)
    }

    /// What is left of a user of the default domain without it.
    pub fn without_domain<'a>(&self, user: &'a str) -> Option<&'a str> {
        let domain = self.default_domain.as_deref()?;
        let (local, at) = user.split_at_checked(user.len().checked_sub(domain.len() + 1)?)?;
        let is_same = at.strip_prefix('@')?.eq_ignore_ascii_case(domain);
        (is_same && !local.is_empty()).then_some(local)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn normal_form_folds_case_and_adds_the_domain() {
        let names = UserNames { lowercase: true, default_domain: Some("Example.org".into()) };
        assert_eq!(names.normalise("Alice").unwrap().as_str(), "alice@example.org");
        assert_eq!(names.normalise("BOB@Other.org").unwrap().as_str(), "bob@other.org");
        let without = |user| names.without_domain(user);
        assert_eq!((without("alice@example.org"), without("a@b@Example.org")), (Some("alice"), Some("a@b")));
        assert_eq!([without("bob@other.org"), without("@example.org"), without("alice"), without("xexample.org")], [None; 4]);
        let exact = UserNames { lowercase: false, default_domain: None };
        assert_eq!(exact.normalise("Alice").unwrap().as_str(), "Alice");
    }

    #[test]
    fn no_name_becomes_another_users() {
        let names = UserNames { lowercase: true, default_domain: Some("example.org".into()) };
        for outer in [" kate", "kate ", "kate\u{a0}", "\u{3000}kate", "kate\u{2028}"] {
            assert_eq!(names.normalise(outer), Err(InvalidUser::OuterSpace), "{outer:?}");
        }
        // All of these become ASCII letters by Unicode's rules, or lose something.
        for (raw, kept) in [
            ("\u{212a}ate", "\u{212a}ate@example.org"),
            ("\u{212b}NA", "\u{212b}na@example.org"),
            ("\u{130}da", "\u{130}da@example.org"),
            ("K\u{c4}TE", "k\u{c4}te@example.org"),
            ("kate@\u{212a}.example", "kate@\u{212a}.example"),
        ] {
            assert_eq!(names.normalise(raw).unwrap().as_str(), kept);
            assert_eq!(names.normalise(kept).unwrap().as_str(), kept, "the normal form stays as it is");
        }
    }

    #[test]
    fn what_is_not_a_user_name_says_why() {
        assert_eq!(UserName::new(""), Err(InvalidUser::Empty));
        assert_eq!(UserName::new("a:b"), Err(InvalidUser::BadCharacter));
        assert_eq!(UserName::new("a\nb"), Err(InvalidUser::BadCharacter));
        assert_eq!(UserName::new("x".repeat(321)), Err(InvalidUser::TooLong));
    }
}
