//! The ACLs of shared mailboxes, where the cluster keeps them itself.

use async_trait::async_trait;
use tokio::sync::mpsc;

use super::registry::RegistryError;
use crate::mail::path::MailboxPath;
use crate::mail::rights::{Acl, AclEdit, Identifier};
use crate::mail::user::UserName;

/// What may be other than a reader last saw.
#[derive(Debug, Clone, PartialEq, Eq)]
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
/// hears of a later change as [`AclNews`], soon, unless the answer was forgotten by then, which is told as
/// [`AclNews::Everything`] or as the change itself.
#[async_trait]
pub trait Acls: Send + Sync {
    async fn get(&self, mailbox: &MailboxPath) -> Result<Acl, RegistryError>;

    /// Applies all of these at once, and returns what the ACL was and is now. Doing it twice is doing it once.
    async fn edit(&self, mailbox: &MailboxPath, edits: &[AclEdit]) -> Result<(Acl, Acl), RegistryError>;

    /// Puts this ACL in the place of whatever there was, and returns that.
    async fn replace(&self, mailbox: &MailboxPath, acl: &Acl) -> Result<Acl, RegistryError>;

    /// `from`, and every mailbox below it, are called otherwise now (see [`MailboxPath::renamed`]); doing it again does
    /// nothing. What the new name had before is overwritten.
    async fn rename(&self, from: &MailboxPath, to: &MailboxPath) -> Result<(), RegistryError>;

    /// The user is called otherwise now: as the owner of mailboxes, and as an identifier in the ACLs of others.
    async fn rename_user(&self, from: &UserName, to: &UserName) -> Result<(), RegistryError>;

    /// The mailboxes whose ACL names one of these, with a sign or without; sorted, each once.
    async fn shared_with(&self, identifiers: &[Identifier]) -> Result<Vec<MailboxPath>, RegistryError>;

    /// The news from now on. Each caller has a channel of its own, which ends with the registry.
    fn news(&self) -> mpsc::UnboundedReceiver<AclNews>;
}
