//! The ACLs of one ensemble: read, planned anew and written, again until nobody came between.

use std::collections::HashSet;
use std::time::Duration;

use futures::future::{join_all, try_join_all};
use tokio::sync::Mutex;
use tokio::time::{sleep, timeout};
use zookeeper_client::{Client, CreateMode, Error, MultiWriteError};

use super::super::errors::registry_error;
use super::super::health::jittered;
use super::super::tree;
use super::link::Link;
use super::plan::{self, Op, Stored};
use super::{record, shares};
use crate::cluster::acls::check_size;
use crate::cluster::registry::RegistryError;
use crate::mail::key::stable_hash;
use crate::mail::path::MailboxPath;
use crate::mail::rights::{Acl, Identifier};

/// How often a change is tried while others come between.
const ATTEMPTS: u32 = 20;
/// Before the second attempt; before later ones so many times more.
const PAUSE: Duration = Duration::from_millis(2);
/// Mailboxes whose changes wait for each other within this process, where they would only come between.
const LANES: usize = 64;
/// Requests that are sent at once.
const TOGETHER: usize = 200;

pub struct Ensemble {
    link: Link,
    patience: Duration,
    lanes: Vec<Mutex<()>>,
}

impl Ensemble {
    /// `patience`: how long one call may take.
    pub fn new(link: Link, patience: Duration) -> Self {
        Self { link, patience, lanes: (0..LANES).map(|_| Mutex::default()).collect() }
    }

    pub async fn get(&self, mailbox: &MailboxPath) -> Result<Acl, RegistryError> {
        self.patiently(self.link.get(mailbox.clone())).await
    }

    /// The mailboxes here that are shared with an identifier, which is watched.
    pub async fn shares(&self, identifier: &Identifier) -> Result<Vec<MailboxPath>, RegistryError> {
        self.patiently(self.link.shares(identifier.clone())).await
    }

    /// The same, without a watch.
    pub async fn named(&self, identifier: &Identifier) -> Result<Vec<MailboxPath>, RegistryError> {
        self.patiently(async {
            let client = self.link.client().await?;
            shares::list(&client, identifier).await.map_err(|error| registry_error(&error))
        })
        .await
    }

    /// The mailboxes whose ACLs have their home here, and some of others.
    pub async fn list_home(&self, home: u64) -> Result<Vec<MailboxPath>, RegistryError> {
        self.patiently(async {
            let client = self.link.client().await?;
            shares::list_home(&client, home).await.map_err(|error| registry_error(&error))
        })
        .await
    }

    /// Makes the ACL of `mailbox` what `edit` makes of it; what it was, and is.
    pub async fn edit(
        &self,
        mailbox: &MailboxPath,
        edit: impl Fn(&Acl) -> Acl + Send + Sync,
    ) -> Result<(Acl, Acl), RegistryError> {
        let none = Acl::default();
        self.change(mailbox, |stored| Ok(edit(stored.map_or(Ok(&none), Stored::readable)?))).await
    }

    /// Makes the ACL of `mailbox` this one, over whatever was there; what it was.
    pub async fn replace(&self, mailbox: &MailboxPath, acl: &Acl) -> Result<Acl, RegistryError> {
        self.change(mailbox, |_| Ok(acl.clone())).await.map(|(was, _)| was)
    }

    async fn change(
        &self,
        mailbox: &MailboxPath,
        change: impl Fn(Option<&Stored>) -> Result<Acl, RegistryError> + Send + Sync,
    ) -> Result<(Acl, Acl), RegistryError> {
        let lane = usize::try_from(stable_hash(b'#', mailbox.as_str()) % LANES as u64).unwrap_or_default();
        // Outside the time limit, for each holder has one.
        let _turn = self.lanes[lane].lock().await;
        self.transact(&[mailbox], |stored| {
            let stored = stored[0].as_ref();
            let was = stored.map(|stored| stored.acl.clone()).unwrap_or_default();
            let now = change(stored)?;
            if now != was {
                check_size(mailbox, &now)?;
            }
            Ok((plan::write(mailbox, stored, &now)?, (was, now)))
        })
        .await
    }

    /// Moves an ACL within this ensemble, over whatever was there.
    pub async fn relocate(&self, from: &MailboxPath, to: &MailboxPath) -> Result<(), RegistryError> {
        self.transact(&[from, to], |stored| match stored {
            [Some(moved), overwritten] => Ok((plan::relocate((from, moved), (to, overwritten.as_ref()))?, ())),
            _ => Ok((Vec::new(), ())),
        })
        .await
    }

    /// The ACL with its version, where there is one.
    pub async fn load(&self, mailbox: &MailboxPath) -> Result<Option<Stored>, RegistryError> {
        self.transact(&[mailbox], |stored| Ok((Vec::new(), stored[0].clone()))).await
    }

    /// Removes an ACL that still is as it was read; whether it was.
    pub async fn remove(&self, mailbox: &MailboxPath, read: &Stored) -> Result<bool, RegistryError> {
        self.transact(&[mailbox], |stored| match &stored[0] {
            Some(stored) if stored == read => Ok((plan::write(mailbox, Some(stored), &Acl::default())?, true)),
            Some(_) => Ok((Vec::new(), false)),
            None => Ok((Vec::new(), true)),
        })
        .await
    }

    async fn patiently<T>(&self, call: impl Future<Output = Result<T, RegistryError>>) -> Result<T, RegistryError> {
        tokio::select! {
            biased;
            () = self.link.gone() => Err(RegistryError::Closed),
            result = timeout(self.patience, call) => result.unwrap_or_else(|_| Err(self.link.reason())),
        }
    }

    /// Reads these, carries out what is planned from it, and returns what belongs to it.
    async fn transact<T>(
        &self,
        mailboxes: &[&MailboxPath],
        plan: impl Fn(&[Option<Stored>]) -> Result<(Vec<Op>, T), RegistryError> + Send + Sync,
    ) -> Result<T, RegistryError> {
        self.patiently(async {
            let client = self.link.client().await?;
            let mut amiss = HashSet::new();
            for attempt in 0..ATTEMPTS {
                if attempt > 0 {
                    sleep(jittered(PAUSE * attempt)).await;
                }
                let stored = read(&client, mailboxes).await?;
                let (ops, outcome) = plan(&stored)?;
                if self.commit(&client, ops, &mut amiss).await? {
                    return Ok(outcome);
                }
            }
            Err(RegistryError::Unreachable("others keep changing the same ACL".to_owned()))
        })
        .await
    }

    /// Carries a transaction out. `false`: it is to be planned anew. `amiss`: shares that are already as they are to be,
    /// which somebody else's hand must have made so.
    async fn commit(&self, client: &Client, mut ops: Vec<Op>, amiss: &mut HashSet<String>) -> Result<bool, RegistryError> {
        ops.retain(|op| !amiss.contains(op.path()));
        if ops.is_empty() {
            return Ok(true);
        }
        plan::check_cost(&ops, self.link.access().chroot())?;
        let persistent = self.link.access().options(CreateMode::Persistent);
        let mut writer = client.new_multi_writer();
        let added = ops.iter().try_for_each(|op| match op {
            Op::Create { path, data } => writer.add_create(path, data, &persistent),
            Op::Set { path, data, version } => writer.add_set_data(path, data, Some(*version)),
            Op::Delete { path, version } => writer.add_delete(path, *version),
        });
        added.map_err(|error| registry_error(&error))?;
        let (index, error) = match writer.commit().await {
            Ok(_) => return Ok(true),
            Err(MultiWriteError::RequestFailed { source }) => return Err(registry_error(&source)),
            Err(MultiWriteError::OperationFailed { index, source }) => (index, source),
        };
        match (ops.get(index), error) {
            (Some(Op::Create { .. }), Error::NoNode) => {
                self.make_parents(client, &ops).await?;
                Ok(false)
            }
            (Some(op), Error::NoNode | Error::NodeExists) if op.is_share() => {
                tracing::warn!(share = op.path(), "a share does not agree with its ACL");
                amiss.extend(find_amiss(client, &ops).await?);
                Ok(false)
            }
            (_, Error::NoNode | Error::NodeExists | Error::BadVersion) => {
                amiss.clear();
                Ok(false)
            }
            (_, error) => Err(registry_error(&error)),
        }
    }

    async fn make_parents(&self, client: &Client, ops: &[Op]) -> Result<(), RegistryError> {
        let access = self.link.access();
        let (lasting, passing) = (access.options(CreateMode::Persistent), access.options(CreateMode::Container));
        let parents: Vec<plan::Parent> = plan::parents(ops).into_iter().collect();
        for parents in parents.chunks(TOGETHER) {
            // All are sent before any is answered, and are made in this order.
            let made = join_all(
                parents.iter().map(|parent| client.create(&parent.path, &[], if parent.passing { &passing } else { &lasting })),
            );
            for made in made.await {
                match made {
                    // Without its own parent: that one's answer says why, or else it has just gone.
                    Ok(_) | Err(Error::NodeExists | Error::NoNode) => {}
                    Err(error) => return Err(registry_error(&error)),
                }
            }
        }
        Ok(())
    }
}

/// The shares that already are as they are to be.
async fn find_amiss(client: &Client, ops: &[Op]) -> Result<Vec<String>, RegistryError> {
    let shares: Vec<&Op> = ops.iter().filter(|op| op.is_share()).collect();
    let mut amiss = Vec::new();
    for shares in shares.chunks(TOGETHER) {
        let found = join_all(shares.iter().map(|op| client.check_stat(op.path()))).await;
        for (op, found) in shares.iter().zip(found) {
            let exists = found.map_err(|error| registry_error(&error))?.is_some();
            if exists == op.creates() {
                amiss.push(op.path().to_owned());
            }
        }
    }
    Ok(amiss)
}

/// The ACLs as they are now, with their versions.
async fn read(client: &Client, mailboxes: &[&MailboxPath]) -> Result<Vec<Option<Stored>>, RegistryError> {
    // All are sent before any is answered, in this order.
    let sync = client.sync("/");
    let data = mailboxes.iter().map(|mailbox| {
        let data = client.get_data(&tree::acl(mailbox));
        async move {
            match data.await {
                Ok((data, stat)) => Ok(Some(match record::read(mailbox, &data) {
                    Ok(acl) => Stored { acl, version: stat.version, fault: None },
                    Err(fault) => Stored { acl: Acl::default(), version: stat.version, fault: Some(fault) },
                })),
                Err(Error::NoNode) => Ok(None),
                Err(error) => Err(registry_error(&error)),
            }
        }
    });
    let (synced, stored) = futures::join!(sync, try_join_all(data));
    synced.map_err(|error| registry_error(&error))?;
    stored
}
