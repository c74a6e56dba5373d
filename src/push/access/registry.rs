//! Rights by the ACLs that the registry keeps.

use std::sync::Arc;

use async_trait::async_trait;
use tokio::sync::mpsc;

use super::source::{NoAnswer, RightsSource};
use crate::cluster::acls::{AclNews, Acls};
use crate::mail::path::MailboxPath;
use crate::mail::rights::{Identifier, Rights, Subject};

/// See the module's words. A mailbox without an ACL is its owner's alone, and so is one that does not exist.
pub struct RegistryRights {
    acls: Arc<dyn Acls>,
}

impl RegistryRights {
    pub fn new(acls: Arc<dyn Acls>) -> Self {
        Self { acls }
    }
}

#[async_trait]
impl RightsSource for RegistryRights {
    async fn rights(&self, subject: &Subject, mailbox: &MailboxPath) -> Result<Rights, NoAnswer> {
        let acl = self.acls.get(mailbox).await.map_err(|error| NoAnswer(error.to_string()))?;
        Ok(acl.effective(mailbox, subject))
    }

    async fn shared_with(&self, subject: &Subject) -> Result<Vec<MailboxPath>, NoAnswer> {
        let identifiers: Vec<Identifier> = subject.identifiers().collect();
        self.acls.shared_with(&identifiers).await.map_err(|error| NoAnswer(error.to_string()))
    }

    fn news(&self) -> mpsc::UnboundedReceiver<AclNews> {
        self.acls.news()
    }
}
