//! Which mailbox a name on the wire means (RFC 2342, RFC 9051 6.3.10): the one place where IMAP
//! names become [`MailboxPath`]s.
//!
//! - The server's hierarchy delimiter becomes `/`. A `/` that is no delimiter there takes the
//!   delimiter's place: the two change places ([`hierarchy`]), so that names stay apart and the way
//!   back is the same.
//! - The personal namespace's prefix (`INBOX.`, or none) falls away. Should there be several, the
//!   first one's does; names in the others keep theirs.
//! - `prefix owner delimiter name` in a namespace of other users is the owner's own mailbox;
//!   `prefix owner` is the owner's INBOX. Where the delimiter is `.`, an owner's `.` is written
//!   `^`, as Cyrus does.
//! - In the shared namespace the prefix falls away if it is the only one.

use std::borrow::Cow;

use super::name;
use super::scan::Scan;
use crate::mail::path::{MailboxPath, PRIVATE};
use crate::mail::user::{UserName, UserNames};

/// The namespace of mailboxes that are nobody's.
pub const SHARED: &str = "#shared";

/// The namespaces that a server told of (RFC 9051 7.3.4).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Namespaces {
    pub personal: Vec<Namespace>,
    pub other_users: Vec<Namespace>,
    pub shared: Vec<Namespace>,
}

/// One of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Namespace {
    /// As it is on the wire, with the delimiter at its end.
    pub prefix: Vec<u8>,
    /// `None`: names have no hierarchy.
    pub delimiter: Option<u8>,
}

/// Whose namespace a name is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Class {
    Personal,
    OtherUsers,
    Shared,
}

impl Namespaces {
    /// Those of a server that cannot be asked: all is personal. The delimiter is that of `LIST ""
    /// ""`.
    pub fn personal_only(delimiter: Option<u8>) -> Self {
        Self { personal: vec![Namespace { prefix: Vec::new(), delimiter }], ..Self::default() }
    }

    /// Takes in a further response to the same question: a server may answer in parts, or say a
    /// part again.
    pub fn unite(&mut self, more: Self) {
        let add = |known: &mut Vec<Namespace>, more: Vec<Namespace>| {
            for space in more {
                if !known.contains(&space) {
                    known.push(space);
                }
            }
        };
        add(&mut self.personal, more.personal);
        add(&mut self.other_users, more.other_users);
        add(&mut self.shared, more.shared);
    }

    /// Reads the three parts of a NAMESPACE response.
    pub(super) fn scan(scan: &mut Scan<'_>) -> Option<Self> {
        let personal = class(scan)?;
        scan.spaces();
        let other_users = class(scan)?;
        scan.spaces();
        let shared = class(scan)?;
        Some(Self { personal, other_users, shared })
    }

    /// The mailbox that `user` means by `name`, which is without quotes; `utf8`: once UTF8=ACCEPT
    /// or IMAP4rev2 is enabled. `None`: it lies in no namespace, is no mailbox's name, or cannot be
    /// told apart from another.
    pub fn path(&self, name: &[u8], utf8: bool, user: &UserName, names: &UserNames) -> Option<MailboxPath> {
        if name.eq_ignore_ascii_case(b"INBOX") {
            return MailboxPath::private(user, "INBOX").ok();
        }
        let (class, at) = self.find(name)?;
        let spaces = self.class(class);
        let space = &spaces[at];
        let below = name::decode(&name[space.prefix.len()..], utf8)?;
        let whole = || name::decode(name, utf8);
        match class {
            Class::Personal if at == 0 => own(&hierarchy(&below, space.delimiter), !space.prefix.is_empty(), user),
            Class::Personal => own(&hierarchy(&whole()?, space.delimiter), false, user),
            Class::OtherUsers => {
                let (owner, below) = match space.delimiter.and_then(|delimiter| below.split_once(char::from(delimiter))) {
                    Some((owner, below)) => (owner, Some(below)),
                    None => (below.as_ref(), None),
                };
                let owner = if space.delimiter == Some(b'.') { owner.replace('^', ".") } else { owner.to_owned() };
                let owner = names.normalise(&owner).ok()?;
                match below {
                    Some(below) => own(&hierarchy(below, space.delimiter), false, &owner),
                    None => MailboxPath::private(&owner, "INBOX").ok(),
                }
            }
            Class::Shared if spaces.len() == 1 => MailboxPath::new(SHARED, "", &hierarchy(&below, space.delimiter)).ok(),
            Class::Shared if below.is_empty() => None,
            Class::Shared => MailboxPath::new(SHARED, "", &hierarchy(&whole()?, space.delimiter)).ok(),
        }
    }

    /// What `user` calls the mailbox: a name that [`Self::path`] takes back to it. `None`: it has
    /// none.
    pub fn imap_name(&self, path: &MailboxPath, utf8: bool, user: &UserName, names: &UserNames) -> Option<Vec<u8>> {
        let known = |name: &Vec<u8>| self.path(name, utf8, user, names).as_ref() == Some(path);
        let below = |space: &Namespace| {
            let text = hierarchy(path.name(), space.delimiter);
            [space.prefix.as_slice(), &name::encode(&text, utf8)].concat()
        };
        let whole = |space: &Namespace| name::encode(&hierarchy(path.name(), space.delimiter), utf8).into_owned();
        let inbox = path.name() == "INBOX";
        match (path.namespace(), path.owner()) {
            (PRIVATE, owner) if owner == user.as_str() => {
                if inbox {
                    return Some(b"INBOX".to_vec());
                }
                let (first, others) = self.personal.split_first()?;
                // A name in another of the personal namespaces holds that one's prefix.
                others.iter().map(whole).chain([below(first)]).find(known)
            }
            (PRIVATE, owner) => self.other_users.iter().map(|space| other(space, owner, path.name(), utf8)).find(known),
            (SHARED, "") => match self.shared.as_slice() {
                [only] => Some(below(only)).filter(known),
                several => several.iter().map(whole).find(known),
            },
            _ => None,
        }
    }

    /// As [`Self::imap_name`], with the owner spelled as in `like`, which `user` calls another
    /// mailbox by: with or without the domain, say, for the server may know one spelling only.
    pub fn imap_name_like(
        &self,
        like: &[u8],
        path: &MailboxPath,
        utf8: bool,
        user: &UserName,
        names: &UserNames,
    ) -> Option<Vec<u8>> {
        let spelled = || {
            let (Class::OtherUsers, at) = self.find(like)? else { return None };
            let space = &self.other_users[at];
            let below = name::decode(&like[space.prefix.len()..], utf8)?;
            let owner = below.split(|c| space.delimiter.is_some_and(|delimiter| c == char::from(delimiter))).next()?;
            let owner = if space.delimiter == Some(b'.') { owner.replace('^', ".") } else { owner.to_owned() };
            // The owner may be another one by now.
            let bare = names.without_domain(path.owner()).filter(|_| !owner.contains('@'));
            let spellings = [Some(owner.as_str()), bare].into_iter().flatten();
            let known = |name: &Vec<u8>| self.path(name, utf8, user, names).as_ref() == Some(path);
            spellings.map(|owner| other(space, owner, path.name(), utf8)).find(known)
        };
        let own = path.is_owned_by(user);
        spelled().filter(|_| !own).or_else(|| self.imap_name(path, utf8, user, names))
    }

    fn class(&self, class: Class) -> &[Namespace] {
        match class {
            Class::Personal => &self.personal,
            Class::OtherUsers => &self.other_users,
            Class::Shared => &self.shared,
        }
    }

    /// The namespace with the longest prefix that the name has, something being left of it.
    fn find(&self, name: &[u8]) -> Option<(Class, usize)> {
        let classes = [Class::OtherUsers, Class::Shared, Class::Personal];
        let all = classes.into_iter().flat_map(|class| self.class(class).iter().enumerate().map(move |(at, s)| (class, at, s)));
        all.filter(|(_, _, space)| name.len() > space.prefix.len() && has_prefix(name, &space.prefix))
            .max_by_key(|(_, _, space)| space.prefix.len())
            .map(|(class, at, _)| (class, at))
    }
}

/// INBOX is INBOX in any case, in a prefix too.
fn has_prefix(name: &[u8], prefix: &[u8]) -> bool {
    let inbox = match prefix.split_at_checked(5) {
        Some((inbox, after)) if inbox.eq_ignore_ascii_case(b"INBOX") && !after.first().is_some_and(u8::is_ascii_alphanumeric) => {
            5
        }
        _ => 0,
    };
    name.len() >= prefix.len()
        && name[..inbox].eq_ignore_ascii_case(&prefix[..inbox])
        && name[inbox..].starts_with(&prefix[inbox..])
}

/// A mailbox in a personal namespace, its name below the prefix.
fn own(text: &str, prefixed: bool, owner: &UserName) -> Option<MailboxPath> {
    let (first, rest) = text.split_at(text.find('/').unwrap_or(text.len()));
    if !first.eq_ignore_ascii_case("INBOX") {
        return MailboxPath::private(owner, text).ok();
    }
    if prefixed && rest.is_empty() {
        // `INBOX.INBOX` is not INBOX, and a path cannot say so.
        return None;
    }
    let first = if prefixed { first } else { "INBOX" };
    MailboxPath::private(owner, &[first, rest].concat()).ok()
}

/// What a mailbox of another user is called.
fn other(space: &Namespace, owner: &str, text: &str, utf8: bool) -> Vec<u8> {
    let owner = if space.delimiter == Some(b'.') { owner.replace('.', "^") } else { owner.to_owned() };
    let mut name = [space.prefix.as_slice(), &name::encode(&owner, utf8)].concat();
    if let (false, Some(delimiter)) = (text == "INBOX", space.delimiter) {
        name.push(delimiter);
        name.extend_from_slice(&name::encode(&hierarchy(text, space.delimiter), utf8));
    }
    name
}

/// The text with the delimiter and `/` in each other's place; the way there is the way back.
pub fn hierarchy(text: &str, delimiter: Option<u8>) -> Cow<'_, str> {
    let Some(delimiter) = delimiter.map(char::from).filter(|delimiter| *delimiter != '/') else {
        return Cow::Borrowed(text);
    };
    if !text.contains(['/', delimiter]) {
        return Cow::Borrowed(text);
    }
    let swap = |c| {
        if c == delimiter {
            '/'
        } else if c == '/' {
            delimiter
        } else {
            c
        }
    };
    Cow::Owned(text.chars().map(swap).collect())
}

fn class(scan: &mut Scan<'_>) -> Option<Vec<Namespace>> {
    if scan.eat_word("NIL") {
        return Some(Vec::new());
    }
    scan.list(namespace)
}

/// `("#mh/" "/" "X-PARAM" ("FLAG1" "FLAG2"))`.
fn namespace(scan: &mut Scan<'_>) -> Option<Namespace> {
    if !scan.eat(b'(') {
        return None;
    }
    let prefix = scan.string()?.into_owned();
    scan.spaces();
    let delimiter = scan.delimiter()?;
    // Extensions.
    loop {
        scan.spaces();
        if scan.eat(b')') {
            return Some(Namespace { prefix, delimiter });
        }
        scan.skip_value()?;
    }
}

#[cfg(test)]
#[path = "namespace_tests.rs"]
mod tests;
