//! Whom an entry of an ACL is about (RFC 4314 2).

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::mail::user::{InvalidUser, UserName, UserNames};

/// Whom an entry of an ACL is about. Written as a user's name, `group:staff`, `anyone`,
/// `authenticated` or `owner`.
///
/// RFC 4314 2 reserves `anyone` and whatever begins with `-`, and every name that can log in for
/// its user. Where a user is called like one of those (`anyone`, `Owner`, `-temps`, `$cash`), the
/// user is written `user:anyone`: a user's name holds no `:`, so nothing is written like anything
/// else, and nobody gets everybody's rights by choosing a name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Identifier {
    /// Everybody, also who has not logged in.
    Anyone,
    /// Everybody who has logged in.
    Authenticated,
    /// Whoever owns the mailbox. The owner has all rights anyhow.
    Owner,
    User(UserName),
    Group(Arc<str>),
}

/// What begins a group's name.
const GROUP: &str = "group:";
/// What may begin a user's name, and does where the name alone would be read otherwise.
const USER: &str = "user:";
/// Names that stand for more than a user of that name. `anybody` is `anyone` as James writes it.
const WORDS: [&str; 4] = ["anyone", "anybody", "authenticated", "owner"];

/// Why a text is no identifier.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidIdentifier {
    #[error("an identifier is a user's name, group:NAME, anyone, authenticated or owner: {0}")]
    User(#[from] InvalidUser),
    #[error("a group's name is 1 to 320 bytes long, without control characters and without white space around it")]
    Group,
    #[error(
        "anyone, authenticated and owner are written in small letters; a user's name that begins with '-' or '!', or is one of \
         these words, is written user:NAME"
    )]
    Reserved,
}

/// What an identifier's text says.
enum Said<'a> {
    Whole(Identifier),
    /// A user's name, which is not looked at yet.
    User(&'a str),
}

impl Identifier {
    /// Reads what a server, a client or an origin wrote, and brings a user's name to its normal
    /// form. Besides the forms of this type, those of mail servers are understood: `$staff` for a
    /// group (Dovecot, Cyrus, James), `anybody` and `$$owner` (James). Dovecot's `!staff`, which
    /// puts a group's rights in the place of a user's, means nothing that an [`super::Acl`] could
    /// hold, and is refused. White space around a name is not cut off: such a name is refused.
    pub fn read(text: &str, names: &UserNames) -> Result<Self, InvalidIdentifier> {
        Ok(match Self::understand(text)? {
            Said::Whole(Self::Group(name)) if name.trim() != &*name => return Err(InvalidIdentifier::Group),
            Said::Whole(identifier) => identifier,
            Said::User(name) => Self::User(names.normalise(name)?),
        })
    }

    fn understand(text: &str) -> Result<Said<'_>, InvalidIdentifier> {
        Ok(Said::Whole(match text {
            "anyone" | "anybody" | "$$anyone" | "$$anybody" => Self::Anyone,
            "authenticated" | "$$authenticated" => Self::Authenticated,
            "owner" | "$$owner" => Self::Owner,
            text => match (text.strip_prefix(USER), text.strip_prefix(GROUP).or_else(|| text.strip_prefix('$'))) {
                (Some(name), _) => return Ok(Said::User(name)),
                (None, Some(group)) if group.is_empty() || group.len() > 320 || group.chars().any(char::is_control) => {
                    return Err(InvalidIdentifier::Group);
                }
                (None, Some(group)) => Self::Group(group.into()),
                (None, None) if is_reserved(text) => return Err(InvalidIdentifier::Reserved),
                (None, None) => return Ok(Said::User(text)),
            },
        }))
    }
}

/// Whether a user's name, written alone, would be read as something else, or not at all.
fn is_reserved(name: &str) -> bool {
    // What reads it may trim it first.
    let name = name.trim();
    name.starts_with(['-', '$', '!']) || WORDS.iter().any(|word| name.eq_ignore_ascii_case(word))
}

impl FromStr for Identifier {
    type Err = InvalidIdentifier;

    /// Reads a text whose user name is in its normal form already.
    fn from_str(text: &str) -> Result<Self, InvalidIdentifier> {
        Ok(match Self::understand(text)? {
            Said::Whole(identifier) => identifier,
            Said::User(name) => Self::User(UserName::new(name)?),
        })
    }
}

impl TryFrom<String> for Identifier {
    type Error = InvalidIdentifier;

    fn try_from(text: String) -> Result<Self, InvalidIdentifier> {
        text.parse()
    }
}

impl From<Identifier> for String {
    fn from(identifier: Identifier) -> Self {
        identifier.to_string()
    }
}

impl fmt::Display for Identifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Anyone => f.write_str("anyone"),
            Self::Authenticated => f.write_str("authenticated"),
            Self::Owner => f.write_str("owner"),
            Self::User(user) if is_reserved(user.as_str()) => write!(f, "{USER}{user}"),
            Self::User(user) => write!(f, "{user}"),
            Self::Group(group) => write!(f, "{GROUP}{group}"),
        }
    }
}

/// Who asks for rights: a user who has logged in, and the groups that the user is in, if those are
/// known. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Subject {
    pub user: UserName,
    /// Sorted, each once; without `group:`. `None`: they are not known.
    groups: Option<Arc<[Arc<str>]>>,
}

impl Subject {
    pub fn new<G: AsRef<str>>(user: UserName, groups: impl IntoIterator<Item = G>) -> Self {
        let mut groups: Vec<Arc<str>> = groups.into_iter().map(|group| group.as_ref().into()).collect();
        groups.sort_unstable();
        groups.dedup();
        Self { user, groups: Some(groups.into()) }
    }

    /// A user in no groups.
    pub fn alone(user: UserName) -> Self {
        Self { user, groups: Some(Arc::default()) }
    }

    /// A user who may be in any groups: nobody has said.
    pub fn of_unknown_groups(user: UserName) -> Self {
        Self { user, groups: None }
    }

    /// The same, under another name.
    pub fn renamed(&self, to: UserName) -> Self {
        Self { user: to, groups: self.groups.clone() }
    }

    /// None where they are not known.
    pub fn groups(&self) -> &[Arc<str>] {
        self.groups.as_deref().unwrap_or_default()
    }

    /// Whether an entry for `identifier` is about this user, or may be where the user's groups are
    /// not known. `owner`: the mailbox is the user's own.
    pub fn is(&self, identifier: &Identifier, owner: bool) -> bool {
        match identifier {
            Identifier::Anyone | Identifier::Authenticated => true,
            Identifier::Owner => owner,
            Identifier::User(user) => *user == self.user,
            Identifier::Group(group) => self.groups.as_deref().is_none_or(|groups| groups.binary_search(group).is_ok()),
        }
    }

    /// Every identifier that is known to be about this user, but for `owner`.
    pub fn identifiers(&self) -> impl Iterator<Item = Identifier> {
        let groups = self.groups().iter().cloned().map(Identifier::Group);
        [Identifier::Anyone, Identifier::Authenticated, Identifier::User(self.user.clone())].into_iter().chain(groups)
    }

    /// Whether an entry for `identifier` is about this user for certain.
    pub(super) fn certainly_is(&self, identifier: &Identifier) -> bool {
        self.is(identifier, false) && (self.groups.is_some() || !matches!(identifier, Identifier::Group(_)))
    }
}
