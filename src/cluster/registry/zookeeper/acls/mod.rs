//! ACLs in ZooKeeper.
//!
//! Each shared mailbox has a znode with its ACL (`record`), in its owner's ensemble and bucket, and for each identifier in
//! it a share, so that nobody searches; `plan` says what a transaction writes so that the two never disagree. An `ensemble`
//! reads, plans and writes; its `link` answers questions and watches the answers; `shares` lists mailboxes.
//!
//! An ACL and its shares lie in one ensemble, so a change is one transaction there; a rename to an owner whose ensemble is
//! another is written there first and then removed here, and is completed when it is tried again.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::future::try_join_all;
use futures::{StreamExt, TryStreamExt, stream};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use self::ensemble::Ensemble;
use self::link::Link;
use super::access::Access;
use super::health::HealthBoard;
use super::{ZookeeperRegistry, jump, tree};
use crate::cluster::acls::news::{Listeners, WATCHED};
use crate::cluster::acls::{AclNews, Acls, edited, moves, with_owner_renamed, with_user_renamed};
use crate::cluster::registry::RegistryError;
use crate::mail::path::MailboxPath;
use crate::mail::rights::{Acl, AclEdit, Identifier};
use crate::mail::user::UserName;

mod ensemble;
mod link;
mod plan;
mod record;
mod shares;

/// How often a move between ensembles is tried while others change the ACL.
const ATTEMPTS: usize = 5;
/// ACLs that are changed at once when a user is renamed.
const RENAMED: usize = 16;

/// The ACLs of a [`ZookeeperRegistry`].
pub struct ZookeeperAcls {
    ensembles: Vec<Ensemble>,
    listeners: Arc<Listeners>,
}

impl ZookeeperAcls {
    /// Connects to nothing yet: that begins when somebody asks.
    pub fn new(accesses: &[Arc<Access>], board: &Arc<HealthBoard>, patience: Duration, gone: &CancellationToken) -> Self {
        let listeners = Arc::new(Listeners::new());
        let ensembles = accesses.iter().map(|access| {
            let link = Link::new(link::Settings {
                access: access.clone(),
                board: board.clone(),
                listeners: listeners.clone(),
                capacity: WATCHED,
                gone: gone.clone(),
            });
            Ensemble::new(link, patience)
        });
        Self { ensembles: ensembles.collect(), listeners }
    }

    /// Ends the news.
    pub fn close(&self) {
        self.listeners.close();
    }

    fn home(&self, home: u64) -> &Ensemble {
        let number = u32::try_from(self.ensembles.len()).map_or(0, |count| jump::jump(home, count));
        &self.ensembles[number as usize]
    }

    fn ensemble(&self, mailbox: &MailboxPath) -> &Ensemble {
        self.home(tree::acl_home(mailbox))
    }

    /// Moves each ACL. One that cannot be moved does not keep the others from it.
    async fn relocate_all(&self, moves: Vec<(MailboxPath, MailboxPath)>) -> Result<(), RegistryError> {
        let mut result = Ok(());
        for (from, to) in moves {
            result = result.and(refusals(self.relocate(&from, &to).await)?);
        }
        result
    }

    async fn relocate(&self, from: &MailboxPath, to: &MailboxPath) -> Result<(), RegistryError> {
        let (source, target) = (self.ensemble(from), self.ensemble(to));
        if std::ptr::eq(source, target) {
            return source.relocate(from, to).await;
        }
        for _ in 0..ATTEMPTS {
            let Some(moved) = source.load(from).await? else { return Ok(()) };
            target.replace(to, moved.readable()?).await?;
            if source.remove(from, &moved).await? {
                return Ok(());
            }
        }
        Err(RegistryError::Unreachable("others keep changing the same ACL".to_owned()))
    }
}

/// One ACL's outcome, beside which the others go on: what is refused for good is told at the end, anything else at once.
fn refusals(outcome: Result<(), RegistryError>) -> Result<Result<(), RegistryError>, RegistryError> {
    match outcome {
        Err(refused @ RegistryError::Refused(_)) => Ok(Err(refused)),
        other => other.map(Ok),
    }
}

#[async_trait]
impl Acls for ZookeeperAcls {
    async fn get(&self, mailbox: &MailboxPath) -> Result<Acl, RegistryError> {
        self.ensemble(mailbox).get(mailbox).await
    }

    async fn edit(&self, mailbox: &MailboxPath, edits: &[AclEdit]) -> Result<(Acl, Acl), RegistryError> {
        self.ensemble(mailbox).edit(mailbox, |acl| edited(acl, edits)).await
    }

    async fn replace(&self, mailbox: &MailboxPath, acl: &Acl) -> Result<Acl, RegistryError> {
        self.ensemble(mailbox).replace(mailbox, acl).await
    }

    async fn rename(&self, from: &MailboxPath, to: &MailboxPath) -> Result<(), RegistryError> {
        // Refused, or nothing to do: not worth a question.
        if moves(vec![from.clone()], from, to)?.is_empty() {
            return Ok(());
        }
        let mailboxes = self.ensemble(from).list_home(tree::acl_home(from)).await?;
        self.relocate_all(moves(mailboxes, from, to)?).await
    }

    async fn rename_user(&self, from: &UserName, to: &UserName) -> Result<(), RegistryError> {
        if from == to {
            return Ok(());
        }
        let home = tree::acl_home_of(from);
        let mailboxes = self.home(home).list_home(home).await?;
        let owned = mailboxes.into_iter().filter_map(|old| with_owner_renamed(&old, from, to).map(|new| (old, new)));
        let mut result = refusals(self.relocate_all(owned.collect()).await)?;
        let identifier = Identifier::User(from.clone());
        for ensemble in &self.ensembles {
            let named = ensemble.named(&identifier).await?;
            let renamed = stream::iter(named)
                .map(async |mailbox| refusals(ensemble.edit(&mailbox, |acl| with_user_renamed(acl, from, to)).await.map(drop)))
                .buffer_unordered(RENAMED);
            result = renamed.try_fold(result, async |all, one| Ok(all.and(one))).await?;
        }
        result
    }

    async fn shared_with(&self, identifiers: &[Identifier]) -> Result<Vec<MailboxPath>, RegistryError> {
        let asked = self.ensembles.iter().flat_map(|ensemble| identifiers.iter().map(move |name| ensemble.shares(name)));
        let mut mailboxes: Vec<MailboxPath> = try_join_all(asked).await?.concat();
        mailboxes.sort_unstable();
        mailboxes.dedup();
        Ok(mailboxes)
    }

    fn news(&self) -> mpsc::UnboundedReceiver<AclNews> {
        self.listeners.subscribe()
    }
}

#[async_trait]
impl Acls for ZookeeperRegistry {
    async fn get(&self, mailbox: &MailboxPath) -> Result<Acl, RegistryError> {
        self.acls.get(mailbox).await
    }

    async fn edit(&self, mailbox: &MailboxPath, edits: &[AclEdit]) -> Result<(Acl, Acl), RegistryError> {
        self.acls.edit(mailbox, edits).await
    }

    async fn replace(&self, mailbox: &MailboxPath, acl: &Acl) -> Result<Acl, RegistryError> {
        self.acls.replace(mailbox, acl).await
    }

    async fn rename(&self, from: &MailboxPath, to: &MailboxPath) -> Result<(), RegistryError> {
        self.acls.rename(from, to).await
    }

    async fn rename_user(&self, from: &UserName, to: &UserName) -> Result<(), RegistryError> {
        self.acls.rename_user(from, to).await
    }

    async fn shared_with(&self, identifiers: &[Identifier]) -> Result<Vec<MailboxPath>, RegistryError> {
        self.acls.shared_with(identifiers).await
    }

    fn news(&self) -> mpsc::UnboundedReceiver<AclNews> {
        self.acls.news()
    }
}
