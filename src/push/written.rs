//! Writing through: a change of an ACL or a name is in the registry's ACLs before anybody hears of
//! the event, so that a node which asks for rights because of the event is answered by the new ACL.

use std::collections::HashMap;
use std::sync::Arc;

use tracing::warn;

use super::dedup::Dedup;

use crate::cluster::acls::Acls;
use crate::cluster::registry::RegistryError;
use crate::lock::Mutex;
use crate::mail::event::{Change, Event};
use crate::mail::path::MailboxPath;
use crate::mail::rights::{Acl, AclEdit, InvalidIdentifier, InvalidRights};

/// The ACLs that the registry keeps, and the namespaces that it keeps them for.
pub struct WriteThrough {
    acls: Arc<dyn Acls>,
    /// Whether it keeps those of a namespace that is not in `by_namespace`.
    others: bool,
    by_namespace: HashMap<String, bool>,
    /// Events that have been written: one that is published again, for a queue was away, must not
    /// undo what came after it.
    written: Mutex<Dedup>,
}

/// Written events remembered.
const REMEMBERED: usize = 16_384;

impl WriteThrough {
    /// Whether the ACL of this mailbox is kept here, and not by a mail server.
    pub fn keeps(&self, mailbox: &MailboxPath) -> bool {
        self.by_namespace.get(mailbox.namespace()).copied().unwrap_or(self.others)
    }

    pub fn new(acls: Arc<dyn Acls>, others: bool, by_namespace: HashMap<String, bool>) -> Self {
        Self { acls, others, by_namespace, written: Mutex::new(Dedup::new(REMEMBERED)) }
    }

    /// Writes what the event says; most say nothing. An event is written once.
    pub async fn write(&self, event: &Event) -> Result<(), RegistryError> {
        if !self.says_something(event) || self.written.lock().contains(event.id) {
            return Ok(());
        }
        let written = self.write_now(event).await;
        let written = match (&event.change, written) {
            (Change::AclChange { .. }, written) => written,
            // A rename must be told even if an ACL cannot be read: an ACL that stays under the old
            // name gives nobody a right.
            (_, Err(RegistryError::Refused(reason))) => {
                warn!(event = %event.id, reason, "an ACL did not follow its mailbox");
                Ok(())
            }
            (_, written) => written,
        };
        if written.is_ok() {
            self.written.lock().admit(event.id);
        }
        written
    }

    pub(super) fn says_something(&self, event: &Event) -> bool {
        match &event.change {
            Change::AclChange { .. } | Change::MailboxDelete => self.keeps(&event.mailbox),
            Change::MailboxRename { .. } => self.keeps(&event.mailbox) && event.mailbox.name() != "INBOX",
            Change::AccountRename { .. } => true,
            _ => false,
        }
    }

    async fn write_now(&self, event: &Event) -> Result<(), RegistryError> {
        let mailbox = &event.mailbox;
        match &event.change {
            Change::AclChange { identifier, rights } => {
                let entry = identifier.parse().map_err(|error: InvalidIdentifier| RegistryError::Refused(error.to_string()))?;
                let change = rights.parse().map_err(|error: InvalidRights| RegistryError::Refused(error.to_string()))?;
                self.acls.edit(mailbox, &[AclEdit { entry, change }]).await.map(drop)
            }
            Change::MailboxRename { to } => self.acls.rename(mailbox, to).await,
            // A mailbox that is made anew under this name is another one.
            Change::MailboxDelete => self.acls.replace(mailbox, &Acl::default()).await.map(drop),
            Change::AccountRename { to } => match mailbox.owner_name() {
                Some(from) => self.acls.rename_user(&from, to).await,
                None => Ok(()),
            },
            _ => Ok(()),
        }
    }
}
