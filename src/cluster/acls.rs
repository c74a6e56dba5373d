//! The ACLs of shared mailboxes, where the cluster keeps them itself.

use async_trait::async_trait;
use tokio::sync::mpsc;

use super::registry::RegistryError;
use crate::mail::path::MailboxPath;
use crate::mail::rights::{Acl, AclEdit, Entry, Identifier, Rights};
use crate::mail::user::UserName;

pub(in crate::cluster) mod news;

/// The most entries that an ACL may have: who needs more makes a group.
pub const MAX_ENTRIES: usize = 1_000;
/// The most bytes that an ACL may be long, as text.
pub const MAX_BYTES: usize = 64 * 1024;

/// What may be other than a reader last saw.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum AclNews {
    /// The ACL of this mailbox, which somebody read here.
    Changed(MailboxPath),
    /// Which mailboxes this identifier is named in, which somebody asked for here.
    Shares(Identifier),
    /// Anything: for a while nobody could tell. Told once asking works again.
    Everything,
}

/// ACLs by mailbox. A mailbox without one is its owner's alone. Guarantees: what [`Acls::get`] and [`Acls::shared_with`]
/// answer is not older than the question; edits of one mailbox are applied one after the other; whoever was answered
/// hears of the next change as [`AclNews`], soon, unless the answer was forgotten by then: the longest unused of very many
/// are, so who goes by an answer for long asks again now and then.
///
/// News is told once for each time of asking: who hears it and still wants to know asks again. It may overtake the answer
/// that it makes old, so an answer counts only if no news of it came since the question.
///
/// A question takes at most the registry's lookup timeout, and so does the change of one mailbox once it is its turn; a
/// rename changes one mailbox after the other. Errors: [`RegistryError::Unreachable`], when it is not known whether a change
/// was made, and trying again is safe; [`RegistryError::Refused`] for an ACL that cannot be read, or that would be larger
/// than [`MAX_ENTRIES`] and [`MAX_BYTES`] allow.
#[async_trait]
pub trait Acls: Send + Sync {
    /// What cannot be read is an error, and never an empty ACL.
    async fn get(&self, mailbox: &MailboxPath) -> Result<Acl, RegistryError>;

    /// Applies all of these at once, and returns what the ACL was and is now. Doing it twice is doing it once.
    async fn edit(&self, mailbox: &MailboxPath, edits: &[AclEdit]) -> Result<(Acl, Acl), RegistryError>;

    /// Puts this ACL in the place of whatever there was, and returns that; what could not be read is returned as empty.
    async fn replace(&self, mailbox: &MailboxPath, acl: &Acl) -> Result<Acl, RegistryError>;

    /// `from`, and every mailbox below it, are called otherwise now (see [`MailboxPath::renamed`]); doing it again does
    /// nothing. Where an old name has an ACL, what the new one had is overwritten; where it has none, nothing happens. Each
    /// mailbox moves at once, but not all of them together. A mailbox cannot move below itself, which is refused.
    async fn rename(&self, from: &MailboxPath, to: &MailboxPath) -> Result<(), RegistryError>;

    /// The user is called otherwise now: as the owner of mailboxes, and as an identifier in the ACLs of others, where an
    /// entry that the new name had with the same sign is overwritten. Doing it again does nothing.
    async fn rename_user(&self, from: &UserName, to: &UserName) -> Result<(), RegistryError>;

    /// The mailboxes whose ACL names one of these, with a sign or without; sorted, each once.
    async fn shared_with(&self, identifiers: &[Identifier]) -> Result<Vec<MailboxPath>, RegistryError>;

    /// The news from now on. Each caller has a channel of its own, which ends with the registry.
    fn news(&self) -> mpsc::UnboundedReceiver<AclNews>;
}

/// Whether an ACL is small enough to be kept.
pub(in crate::cluster) fn check_size(mailbox: &MailboxPath, acl: &Acl) -> Result<(), RegistryError> {
    let bytes: usize = acl.iter().map(|(entry, rights)| entry.to_string().len() + rights.to_string().len() + 6).sum();
    if acl.len() > MAX_ENTRIES || bytes > MAX_BYTES {
        return Err(RegistryError::Refused(format!(
            "the ACL of {mailbox} would be too large: at most {MAX_ENTRIES} entries and {MAX_BYTES} bytes; a group can take the \
             place of many users"
        )));
    }
    Ok(())
}

/// The ACL with all of these applied.
pub(in crate::cluster) fn edited(acl: &Acl, edits: &[AclEdit]) -> Acl {
    let mut acl = acl.clone();
    for edit in edits {
        acl.edit(edit);
    }
    acl
}

/// Which of `mailboxes` have which name after a rename; see [`Acls::rename`].
pub(in crate::cluster) fn moves(
    mut mailboxes: Vec<MailboxPath>,
    from: &MailboxPath,
    to: &MailboxPath,
) -> Result<Vec<(MailboxPath, MailboxPath)>, RegistryError> {
    if from == to {
        return Ok(Vec::new());
    }
    if to.renamed(from, to).is_some() {
        return Err(RegistryError::Refused(format!("{from} cannot be renamed to {to}, which lies below it")));
    }
    // A parent before its children: where the new name lies above the old one, it makes room for them.
    mailboxes.sort_unstable();
    Ok(mailboxes.into_iter().filter_map(|old| old.renamed(from, to).map(|new| (old, new))).collect())
}

/// What a mailbox is called once its owner `from` is called `to`.
pub(in crate::cluster) fn with_owner_renamed(mailbox: &MailboxPath, from: &UserName, to: &UserName) -> Option<MailboxPath> {
    // What would become too long is as good as gone.
    mailbox.is_owned_by(from).then(|| MailboxPath::new(mailbox.namespace(), to.as_str(), mailbox.name()).ok()).flatten()
}

/// The ACL once the user `from` is called `to`.
pub(in crate::cluster) fn with_user_renamed(acl: &Acl, from: &UserName, to: &UserName) -> Acl {
    let mut acl = acl.clone();
    for negative in [false, true] {
        let entry = |user: &UserName| Entry { identifier: Identifier::User(user.clone()), negative };
        let held = acl.get(&entry(from));
        if !held.is_empty() {
            acl.set(entry(from), Rights::NONE);
            acl.set(entry(to), held);
        }
    }
    acl
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> MailboxPath {
        text.parse().unwrap()
    }

    fn user(name: &str) -> UserName {
        UserName::new(name).unwrap()
    }

    fn acl(entries: &[(&str, &str)]) -> Acl {
        entries.iter().map(|(entry, rights)| (entry.parse().unwrap(), rights.parse().unwrap())).collect()
    }

    #[test]
    fn a_large_acl_is_refused() {
        let of = |count: usize, name: &str| -> Acl {
            (0..count).map(|n| (format!("{name}{n}").parse().unwrap(), Rights::READ)).collect()
        };
        let mailbox = path("#private:bob:Team");
        assert!(check_size(&mailbox, &of(MAX_ENTRIES, "user")).is_ok());
        assert!(matches!(check_size(&mailbox, &of(MAX_ENTRIES + 1, "user")), Err(RegistryError::Refused(_))));
        assert!(matches!(check_size(&mailbox, &of(300, &"x".repeat(300))), Err(RegistryError::Refused(_))));
    }

    #[test]
    fn a_rename_moves_parents_first_and_never_below_itself() {
        let all = || ["#private:bob:A/B/C", "#private:bob:A/B", "#private:bob:AB", "#private:bob:A"].map(path).to_vec();
        let planned = |from: &str, to: &str| {
            let moves = moves(all(), &path(from), &path(to)).unwrap();
            moves.iter().map(|(old, new)| format!("{} {}", old.name(), new.name())).collect::<Vec<_>>()
        };
        assert_eq!(planned("#private:bob:A", "#private:eve:X"), ["A X", "A/B X/B", "A/B/C X/B/C"]);
        assert_eq!(planned("#private:bob:A/B", "#private:bob:A"), ["A/B A", "A/B/C A/C"]);
        assert_eq!(planned("#private:bob:A", "#private:bob:A"), [] as [&str; 0]);
        assert_eq!(planned("#private:bob:INBOX", "#private:bob:Old"), [] as [&str; 0]);
        let below = moves(all(), &path("#private:bob:A"), &path("#private:bob:A/B"));
        assert!(matches!(below, Err(RegistryError::Refused(_))));
    }

    #[test]
    fn a_renamed_user_keeps_its_entries_and_mailboxes() {
        let before = acl(&[("bob", "lr"), ("-bob", "s"), ("robert", "l"), ("-robert", "w"), ("eve", "l")]);
        let after = with_user_renamed(&before, &user("bob"), &user("robert"));
        assert_eq!(after, acl(&[("robert", "lr"), ("-robert", "s"), ("eve", "l")]));
        assert_eq!(with_user_renamed(&after, &user("bob"), &user("robert")), after);
        let owned = |text: &str| with_owner_renamed(&path(text), &user("bob"), &user("robert"));
        assert_eq!(owned("#private:bob:A/B"), Some(path("#private:robert:A/B")));
        assert_eq!(owned("#private:eve:A"), None);
        assert_eq!(owned("#shared::A"), None);
    }
}
