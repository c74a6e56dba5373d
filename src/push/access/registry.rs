//! Rights by the ACLs that the registry keeps.

use std::sync::Arc;
use std::time::Instant;

use async_trait::async_trait;
use tokio::sync::mpsc;

use super::source::{NoAnswer, RightsSource};
use crate::cluster::acls::{AclNews, Acls};
use crate::mail::path::MailboxPath;
use crate::mail::rights::{Identifier, Rights, Subject};
use crate::push::metrics::Metrics;

/// Rights by the ACLs that the registry keeps. A mailbox without an ACL is its owner's alone, and
/// so is one that does not exist.
pub struct RegistryRights {
    acls: Arc<dyn Acls>,
    metrics: Arc<Metrics>,
}

impl RegistryRights {
    pub fn new(acls: Arc<dyn Acls>, metrics: Arc<Metrics>) -> Self {
        Self { acls, metrics }
    }
}

#[async_trait]
impl RightsSource for RegistryRights {
    async fn rights(&self, subject: &Subject, mailbox: &MailboxPath) -> Result<Rights, NoAnswer> {
        let began = Instant::now();
        let rights = match self.acls.get(mailbox).await {
            Ok(acl) if acl.decides(mailbox, subject) => Ok(acl.effective(mailbox, subject)),
            Ok(_) => Err(NoAnswer::Undecidable),
            Err(error) => Err(NoAnswer::Failed(error.to_string())),
        };
        let outcome = match &rights {
            Ok(rights) if rights.is_empty() => "none",
            Ok(_) => "some",
            Err(NoAnswer::Undecidable) => "undecidable",
            Err(NoAnswer::Failed(_)) => "no_answer",
        };
        self.metrics.rights_asked("registry", outcome, began.elapsed().as_secs_f64());
        rights
    }

    async fn shared_with(&self, subject: &Subject) -> Result<Vec<MailboxPath>, NoAnswer> {
        let identifiers: Vec<Identifier> = subject.identifiers().collect();
        self.acls.shared_with(&identifiers).await.map_err(|error| NoAnswer::Failed(error.to_string()))
    }

    fn goes_by_groups(&self) -> bool {
        true
    }

    fn news(&self) -> mpsc::UnboundedReceiver<AclNews> {
        self.acls.news()
    }
}
