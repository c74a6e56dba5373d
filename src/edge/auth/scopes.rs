//! What a token allows beyond being its user.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A set of scopes (RFC 6749 3.3).
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Scopes(u8);

const NAMES: [(&str, Scopes); 6] = [
    ("push", Scopes::PUSH),
    ("subscriptions:read", Scopes::SUBSCRIPTIONS_READ),
    ("sessions:write", Scopes::SESSIONS_WRITE),
    ("events:publish", Scopes::EVENTS_PUBLISH),
    ("acl:read", Scopes::ACL_READ),
    ("acl:write", Scopes::ACL_WRITE),
];

/// Why a text is not a scope.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a scope: use push, subscriptions:read, sessions:write, events:publish, acl:read or acl:write")]
pub struct InvalidScope(String);

impl Scopes {
    /// No scope.
    pub const NONE: Self = Self(0);
    /// Every scope, those of later versions too.
    pub const ALL: Self = Self(u8::MAX);
    /// `push`: open sessions and subscribe.
    pub const PUSH: Self = Self(1);
    /// `subscriptions:read`: see the sessions and subscriptions of every user.
    pub const SUBSCRIPTIONS_READ: Self = Self(1 << 1);
    /// `sessions:write`: end the sessions of every user.
    pub const SESSIONS_WRITE: Self = Self(1 << 2);
    /// `events:publish`: publish events, about every mailbox.
    pub const EVENTS_PUBLISH: Self = Self(1 << 3);
    /// `acl:read`: see who has which rights, on every mailbox.
    pub const ACL_READ: Self = Self(1 << 4);
    /// `acl:write`: give and take rights, on every mailbox.
    pub const ACL_WRITE: Self = Self(1 << 5);

    /// Whether all of `other` is in this set.
    pub fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// The scopes of both sets.
    #[must_use]
    pub fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Reads names parted by spaces; unknown ones are ignored, for issuers have scopes for other
    /// services too.
    pub fn from_claim(text: &str) -> Self {
        text.split_ascii_whitespace().filter_map(|name| name.parse().ok()).collect()
    }

    /// The names of the scopes in the set.
    pub fn names(self) -> impl Iterator<Item = &'static str> {
        NAMES.into_iter().filter(move |(_, scope)| self.contains(*scope)).map(|(name, _)| name)
    }
}

impl FromStr for Scopes {
    type Err = InvalidScope;

    /// One scope by its name.
    fn from_str(name: &str) -> Result<Self, InvalidScope> {
        let found = NAMES.into_iter().find(|(known, _)| *known == name);
        found.map(|(_, scope)| scope).ok_or_else(|| InvalidScope(name.to_owned()))
    }
}

impl FromIterator<Scopes> for Scopes {
    fn from_iter<I: IntoIterator<Item = Scopes>>(scopes: I) -> Self {
        scopes.into_iter().fold(Self::NONE, Self::with)
    }
}

impl fmt::Display for Scopes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.names().collect::<Vec<_>>().join(" "))
    }
}

impl fmt::Debug for Scopes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.names()).finish()
    }
}

impl Serialize for Scopes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Scopes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(|text| Self::from_claim(&text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_claim_reads_back_and_unknown_scopes_are_ignored() {
        let scopes = Scopes::from_claim("openid push  events:publish");
        assert_eq!(scopes, Scopes::PUSH.with(Scopes::EVENTS_PUBLISH));
        assert_eq!(scopes.to_string(), "push events:publish");
        assert!(!scopes.contains(Scopes::SESSIONS_WRITE) && scopes.contains(Scopes::NONE));
        assert!("pus".parse::<Scopes>().is_err());
    }
}
