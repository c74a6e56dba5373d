//! Where rights come from.

use async_trait::async_trait;
use tokio::sync::mpsc;

use crate::cluster::acls::AclNews;
use crate::mail::path::MailboxPath;
use crate::mail::rights::{Rights, Subject};

/// Why a source does not say what somebody may do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoAnswer {
    /// It could not be asked, or did not answer in time; in plain words, without secrets.
    #[error("{0}")]
    Failed(String),
    /// It depends on groups, and nobody has said which ones the user is in. To ask again would not
    /// help.
    #[error("it depends on the user's groups, which are not known")]
    Undecidable,
}

/// Who knows what users may do with mailboxes that are not their own. Guarantees: an answer is not
/// older than the question, and comes, or fails, within the source's own time limit. It is not
/// asked about a user's own mailboxes.
#[async_trait]
pub trait RightsSource: Send + Sync {
    /// None at all where there is no such mailbox: nobody is to tell the two apart (I-9).
    /// [`NoAnswer::Undecidable`] only of a subject whose groups are not known.
    async fn rights(&self, subject: &Subject, mailbox: &MailboxPath) -> Result<Rights, NoAnswer>;

    /// The mailboxes of others that `subject` may perhaps look up: those that may not fall out when
    /// their rights are asked for. Sorted, each once.
    async fn shared_with(&self, subject: &Subject) -> Result<Vec<MailboxPath>, NoAnswer>;

    /// Whether it goes by the groups that a [`Subject`] names. Else it knows its own, if any, and a
    /// change of any group's rights may be about anybody.
    fn goes_by_groups(&self) -> bool {
        false
    }

    /// What has changed, as far as the source hears of it by itself. Ends at once where it never
    /// does.
    fn news(&self) -> mpsc::UnboundedReceiver<AclNews>;
}
