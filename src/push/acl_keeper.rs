//! Changing the ACLs that the registry keeps: written first, then told to the cluster.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::publisher::{PublishError, Publisher};
use crate::cluster::acls::Acls;
use crate::cluster::registry::RegistryError;
use crate::mail::event::{Change, Event};
use crate::mail::path::MailboxPath;
use crate::mail::rights::{Acl, AclEdit, Entry, Identifier, Rights};
use crate::push::clock::new_event_id;

/// Changes ACLs in somebody's name. Cheap to make.
pub struct AclKeeper {
    pub acls: Arc<dyn Acls>,
    pub publisher: Arc<Publisher>,
    /// Where the events say that the change happened.
    pub origin: String,
    /// Who changes them.
    pub actor: String,
    /// Milliseconds since 1970, UTC.
    pub clock: fn() -> u64,
}

/// The entries that have changed, each with the rights that it has now.
pub type Changes = Vec<(Entry, Rights)>;

/// Why an ACL is not changed, or not every node was told. Try the same again: it is written once,
/// and told again.
#[derive(Debug, Clone, thiserror::Error)]
pub enum KeepError {
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// The ACL is changed, and some nodes may go by the old one until their next recheck.
    #[error("the ACL is changed, but not every node could be told: {0}")]
    NotTold(PublishError),
}

impl AclKeeper {
    /// Puts this ACL in the place of whatever there was.
    pub async fn replace(&self, mailbox: &MailboxPath, acl: &Acl) -> Result<Changes, KeepError> {
        let before = self.acls.replace(mailbox, acl).await?;
        self.tell(mailbox, &before, acl).await
    }

    /// Changes one entry.
    pub async fn edit(&self, mailbox: &MailboxPath, edit: AclEdit) -> Result<Changes, KeepError> {
        let (before, after) = self.acls.edit(mailbox, &[edit]).await?;
        self.tell(mailbox, &before, &after).await
    }

    /// One event for each entry that changed. If none did, this may be the second attempt of
    /// somebody whose first was written and not told: then one event about everybody lets the nodes
    /// look at whatever they know of this mailbox.
    async fn tell(&self, mailbox: &MailboxPath, before: &Acl, after: &Acl) -> Result<Changes, KeepError> {
        let changed = differences(before, after);
        let everybody = Entry { identifier: Identifier::Anyone, negative: false };
        let again = changed.is_empty().then(|| (everybody.clone(), after.get(&everybody)));
        let told = changed.iter().cloned().chain(again);
        let events: Vec<Event> = told.map(|(entry, rights)| self.event(mailbox, &entry, rights)).collect();
        let results = self.publisher.publish_written(&events).await;
        match results.into_iter().find_map(Result::err) {
            Some(error) => Err(KeepError::NotTold(error)),
            None => Ok(changed),
        }
    }

    fn event(&self, mailbox: &MailboxPath, entry: &Entry, rights: Rights) -> Event {
        Event {
            id: new_event_id(),
            at: (self.clock)(),
            origin: self.origin.clone(),
            actor: Some(self.actor.clone()),
            actor_session: None,
            mailbox: mailbox.clone(),
            mailbox_id: None,
            uidvalidity: None,
            status: None,
            change: Change::AclChange { identifier: entry.to_string(), rights: rights.to_string() },
        }
    }
}

fn differences(before: &Acl, after: &Acl) -> Changes {
    let named: BTreeSet<&Entry> = before.iter().chain(after.iter()).map(|(entry, _)| entry).collect();
    let changed = named.into_iter().filter(|entry| before.get(entry) != after.get(entry));
    changed.map(|entry| (entry.clone(), after.get(entry))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_changed_is_told_with_what_it_is_now() {
        let acl = |text: &str| serde_json::from_str::<Acl>(text).unwrap();
        let before = acl(r#"{"bob":"lrs","eve":"l","-group:temps":"r","anyone":"l"}"#);
        let after = acl(r#"{"bob":"lr","-group:temps":"r","anyone":"l","-bob":"s"}"#);
        let shown = |changed: Changes| -> Vec<(String, String)> {
            changed.into_iter().map(|(entry, rights)| (entry.to_string(), rights.to_string())).collect()
        };
        let told = [("bob", "lr"), ("-bob", "s"), ("eve", "")].map(|(entry, rights)| (entry.to_owned(), rights.to_owned()));
        assert_eq!(shown(differences(&before, &after)), told);
        assert_eq!(differences(&after, &after), []);
        assert_eq!(shown(differences(&after, &Acl::default())).len(), 4);
    }
}
