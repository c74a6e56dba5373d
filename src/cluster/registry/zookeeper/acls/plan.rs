//! What is to be written so that an ACL is another: the ACL itself and, in the same transaction, the shares that follow
//! from it, so that the two never disagree.

use std::collections::BTreeSet;

use super::super::tree;
use super::record;
use crate::cluster::registry::RegistryError;
use crate::mail::path::MailboxPath;
use crate::mail::rights::{Acl, Identifier};

/// What a server takes in one request without further settings is just below 1 MiB.
const MAX_REQUEST: usize = 1_000_000;
/// What an operation adds to a request beside its path and data: lengths, version, flags, who may change it.
const OP_COST: usize = 64;

/// One operation of a transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Op {
    Create { path: String, data: Vec<u8> },
    Set { path: String, data: Vec<u8>, version: i32 },
    Delete { path: String, version: Option<i32> },
}

impl Op {
    pub fn path(&self) -> &str {
        match self {
            Self::Create { path, .. } | Self::Set { path, .. } | Self::Delete { path, .. } => path,
        }
    }

    /// Whether it creates what it is about, or deletes it.
    pub fn creates(&self) -> bool {
        matches!(self, Self::Create { .. })
    }

    /// Whether it is about a share: those follow from the ACLs.
    pub fn is_share(&self) -> bool {
        self.path().starts_with(tree::SHARES)
    }

    fn cost(&self, chroot: &str) -> usize {
        let data = match self {
            Self::Create { data, .. } | Self::Set { data, .. } => data.len(),
            Self::Delete { .. } => 0,
        };
        OP_COST + chroot.len() + self.path().len() + data
    }
}

/// An ACL as it was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// Empty where it cannot be read.
    pub acl: Acl,
    pub version: i32,
    /// Why it cannot be read.
    pub fault: Option<String>,
}

impl Stored {
    /// The ACL, where it can be read: what is made of it must not begin with nothing.
    pub fn readable(&self) -> Result<&Acl, RegistryError> {
        self.fault.as_ref().map_or(Ok(&self.acl), |fault| Err(RegistryError::Refused(fault.clone())))
    }
}

/// Makes the ACL of `mailbox` this one, if it still is as it was read. The ACL comes first: where its operation succeeds and
/// another fails, the shares were not what they ought to be.
pub fn write(mailbox: &MailboxPath, was: Option<&Stored>, now: &Acl) -> Result<Vec<Op>, RegistryError> {
    let path = tree::acl(mailbox);
    let first = match (was, now.is_empty()) {
        (None, true) => return Ok(Vec::new()),
        (None, false) => Op::Create { path, data: record::write(mailbox, now)? },
        (Some(was), true) => Op::Delete { path, version: Some(was.version) },
        (Some(was), false) if was.acl == *now => return Ok(Vec::new()),
        (Some(was), false) => Op::Set { path, data: record::write(mailbox, now)?, version: was.version },
    };
    let (before, after) = (was.map(|was| identifiers(&was.acl)).unwrap_or_default(), identifiers(now));
    let gone = before.difference(&after).map(|name| Op::Delete { path: tree::share(name, mailbox), version: None });
    let new =
        after.difference(&before).map(|name| Op::Create { path: tree::share(name, mailbox), data: tree::share_data(mailbox) });
    Ok(std::iter::once(first).chain(gone).chain(new).collect())
}

/// Makes the ACL of `from` that of `to`.
pub fn relocate(
    (from, moved): (&MailboxPath, &Stored),
    (to, overwritten): (&MailboxPath, Option<&Stored>),
) -> Result<Vec<Op>, RegistryError> {
    let acl = moved.readable()?;
    let mut ops = write(from, Some(moved), &Acl::default())?;
    ops.extend(write(to, overwritten, acl)?);
    // The ACLs before their shares, see `write`.
    ops.sort_by_key(Op::is_share);
    Ok(ops)
}

fn identifiers(acl: &Acl) -> BTreeSet<&Identifier> {
    acl.iter().map(|(entry, _)| &entry.identifier).collect()
}

/// Refuses a transaction that servers would not take: they would close the connection instead of answering.
pub fn check_cost(ops: &[Op], chroot: &str) -> Result<(), RegistryError> {
    match ops.iter().map(|op| op.cost(chroot)).sum::<usize>() {
        0..=MAX_REQUEST => Ok(()),
        cost => Err(RegistryError::Refused(format!("too large a change of an ACL at once: {cost} bytes for ZooKeeper"))),
    }
}

/// A znode that others are created below.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Parent {
    pub path: String,
    /// Whether it goes by itself once nothing is left in it.
    pub passing: bool,
}

/// The parents of all that is to be created, each once and after its own parent.
pub fn parents(ops: &[Op]) -> BTreeSet<Parent> {
    let created = ops.iter().filter_map(|op| match op {
        Op::Create { path, .. } => Some(path),
        Op::Set { .. } | Op::Delete { .. } => None,
    });
    // `/acl` and `/shares`, their buckets, and the containers of identifiers.
    created
        .flat_map(|path| path.match_indices('/').skip(1).map(|(end, _)| &path[..end]))
        .map(|path| Parent { passing: path.matches('/').count() > 2, path: path.to_owned() })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::acls::MAX_ENTRIES;
    use crate::mail::rights::Rights;

    fn path(name: &str) -> MailboxPath {
        format!("#private:bob@x.org:{name}").parse().unwrap()
    }

    fn acl(text: &str) -> Acl {
        serde_json::from_str(text).unwrap()
    }

    fn stored(version: i32, acl: Acl) -> Stored {
        Stored { acl, version, fault: None }
    }

    fn shown(ops: &[Op]) -> Vec<String> {
        let show = |op: &Op| match op {
            Op::Create { path, .. } => format!("create {path}"),
            Op::Set { path, version, .. } => format!("set {path} if {version}"),
            Op::Delete { path, version: Some(version) } => format!("delete {path} if {version}"),
            Op::Delete { path, version: None } => format!("delete {path}"),
        };
        ops.iter().map(show).collect()
    }

    #[test]
    fn shares_follow_from_the_acl() {
        let first = acl(r#"{"eve@x.org":"lr","-eve@x.org":"s","anyone":"l"}"#);
        let made = write(&path("A"), None, &first).unwrap();
        assert_eq!(
            shown(&made),
            [
                "create /acl/1b/#private:bob@x.org:A",
                "create /shares/d6/=anyone/#private:bob@x.org:A",
                "create /shares/3b/@eve@x.org/#private:bob@x.org:A",
            ]
        );
        let stored = stored(7, first.clone());
        let second = acl(r#"{"-eve@x.org":"s","group:a/b":"l"}"#);
        assert_eq!(
            shown(&write(&path("A"), Some(&stored), &second).unwrap()),
            [
                "set /acl/1b/#private:bob@x.org:A if 7",
                "delete /shares/d6/=anyone/#private:bob@x.org:A",
                "create /shares/f7/=group:a%2Fb/#private:bob@x.org:A",
            ]
        );
        assert_eq!(
            shown(&write(&path("A"), Some(&stored), &Acl::default()).unwrap()),
            [
                "delete /acl/1b/#private:bob@x.org:A if 7",
                "delete /shares/d6/=anyone/#private:bob@x.org:A",
                "delete /shares/3b/@eve@x.org/#private:bob@x.org:A",
            ]
        );
        assert_eq!(write(&path("A"), Some(&stored), &first).unwrap(), []);
        assert_eq!(write(&path("A"), None, &Acl::default()).unwrap(), []);
    }

    #[test]
    fn a_move_is_one_transaction() {
        let moved = stored(1, acl(r#"{"anyone":"l"}"#));
        let overwritten = stored(2, acl(r#"{"eve@x.org":"l"}"#));
        let ops = relocate((&path("A"), &moved), (&path("B"), Some(&overwritten))).unwrap();
        assert_eq!(
            shown(&ops),
            [
                "delete /acl/1b/#private:bob@x.org:A if 1",
                "set /acl/1b/#private:bob@x.org:B if 2",
                "delete /shares/d6/=anyone/#private:bob@x.org:A",
                "delete /shares/3b/@eve@x.org/#private:bob@x.org:B",
                "create /shares/d6/=anyone/#private:bob@x.org:B",
            ]
        );
        let same = stored(3, moved.acl.clone());
        let ops = relocate((&path("A"), &moved), (&path("B"), Some(&same))).unwrap();
        assert_eq!(ops.len(), 2, "only the old one goes");
    }

    #[test]
    fn what_cannot_be_read_is_overwritten_but_not_moved() {
        let unreadable = Stored { fault: Some("bad".to_owned()), ..stored(4, Acl::default()) };
        let now = acl(r#"{"anyone":"l"}"#);
        assert_eq!(
            shown(&write(&path("A"), Some(&unreadable), &now).unwrap()),
            ["set /acl/1b/#private:bob@x.org:A if 4", "create /shares/d6/=anyone/#private:bob@x.org:A"]
        );
        assert_eq!(
            shown(&write(&path("A"), Some(&unreadable), &Acl::default()).unwrap()),
            ["delete /acl/1b/#private:bob@x.org:A if 4"]
        );
        let moved = stored(1, now);
        assert!(relocate((&path("A"), &unreadable), (&path("B"), Some(&moved))).is_err());
        assert!(relocate((&path("A"), &moved), (&path("B"), Some(&unreadable))).is_ok());
    }

    #[test]
    fn parents_come_before_their_children() {
        let made = write(&path("A"), None, &acl(r#"{"eve@x.org":"lr","anyone":"l"}"#)).unwrap();
        let all: Vec<(String, bool)> = parents(&made).into_iter().map(|parent| (parent.path, parent.passing)).collect();
        let expected = [
            ("/acl", false),
            ("/acl/1b", false),
            ("/shares", false),
            ("/shares/3b", false),
            ("/shares/3b/@eve@x.org", true),
            ("/shares/d6", false),
            ("/shares/d6/=anyone", true),
        ];
        assert_eq!(all, expected.map(|(path, passing)| (path.to_owned(), passing)));
        let stored = stored(0, acl(r#"{"anyone":"l"}"#));
        assert!(parents(&write(&path("A"), Some(&stored), &Acl::default()).unwrap()).is_empty());
    }

    #[test]
    fn the_largest_change_fits_in_a_request() {
        let of = |mark: &str| -> Acl {
            (0..MAX_ENTRIES)
                .map(|n| (format!("{mark}{n}@a.very.long.domain.example.org").parse().unwrap(), Rights::READ))
                .collect()
        };
        let was = stored(0, of("user"));
        let ops = write(&path(&"x".repeat(150)), Some(&was), &of("other")).unwrap();
        assert_eq!(ops.len(), 2 * MAX_ENTRIES + 1);
        assert!(check_cost(&ops, "/mailpush").is_ok());
        assert!(matches!(check_cost(&ops, &"/x".repeat(500)), Err(RegistryError::Refused(_))));
    }
}
