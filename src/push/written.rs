//! Writing through: what an event says of ACLs and names stands in the registry's ACLs before anybody hears of it, so that
//! whoever asks because of the event is answered by it.

use std::collections::HashMap;
use std::sync::Arc;

use crate::cluster::acls::Acls;
use crate::cluster::registry::RegistryError;
use crate::mail::event::{Change, Event};
use crate::mail::path::MailboxPath;
use crate::mail::rights::{Acl, AclEdit, InvalidIdentifier, InvalidRights};

/// The ACLs that the registry keeps, and the namespaces that it keeps them for.
#[derive(Clone)]
pub struct WriteThrough {
    pub acls: Arc<dyn Acls>,
    /// Whether it keeps those of a namespace that is not named.
    pub others: bool,
    pub by_namespace: HashMap<String, bool>,
}

impl WriteThrough {
    /// Whether the ACL of this mailbox is kept here, and not by a mail server.
    pub fn keeps(&self, mailbox: &MailboxPath) -> bool {
        self.by_namespace.get(mailbox.namespace()).copied().unwrap_or(self.others)
    }

    /// Writes what the event says; most say nothing. Doing it again does nothing.
    pub async fn write(&self, event: &Event) -> Result<(), RegistryError> {
        let mailbox = &event.mailbox;
        match &event.change {
            Change::AclChange { identifier, rights } if self.keeps(mailbox) => {
                let entry = identifier.parse().map_err(|error: InvalidIdentifier| RegistryError::Refused(error.to_string()))?;
                let change = rights.parse().map_err(|error: InvalidRights| RegistryError::Refused(error.to_string()))?;
                self.acls.edit(mailbox, &[AclEdit { entry, change }]).await.map(drop)
            }
            Change::MailboxRename { to } if self.keeps(mailbox) && mailbox.name() != "INBOX" => {
                self.acls.rename(mailbox, to).await
            }
            // A mailbox that is made anew under this name is another one.
            Change::MailboxDelete if self.keeps(mailbox) => self.acls.replace(mailbox, &Acl::default()).await.map(drop),
            Change::AccountRename { to } => match mailbox.owner_name() {
                Some(from) => self.acls.rename_user(&from, to).await,
                None => Ok(()),
            },
            _ => Ok(()),
        }
    }
}
