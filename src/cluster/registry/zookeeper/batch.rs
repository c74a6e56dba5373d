//! A batch of creations and deletions, carried out: the fast way first, one by one where that fails.

use std::sync::{Arc, OnceLock};
use std::time::Instant;

use futures::future::join_all;
use tokio::sync::{Mutex, Semaphore};
use zookeeper_client::{Client, CreateMode, CreateOptions, Error, MultiReadResult, MultiWriteError};

use super::access::Access;
use super::book::{Found, Op, Outcome};
use super::errors::registry_error;
use super::tree;
use crate::cluster::registry::RegistryError;
use crate::mail::key::{Key, ZnodeName};

/// Operations in one transaction: larger ones are slower (measured).
pub const BATCH: usize = 100;

/// Requests of one session under way, at most: the library itself has no limit.
pub const IN_FLIGHT: usize = 256;

/// Up to here a batch is sent as single requests, in one round trip; above, a question and a transaction.
const FEW: usize = 4;

/// A container may vanish between its creation and its child's (containers do when they are empty), again and again.
const RACES: usize = 5;

/// What a batch needs to know of its session.
pub struct Session {
    pub client: Client,
    pub permits: Semaphore,
    access: Arc<Access>,
    /// When the upper levels were last made again.
    tree_made: Mutex<Option<Instant>>,
    container: CreateOptions<'static>,
    ephemeral: CreateOptions<'static>,
    /// The name of this node's znode under each key.
    child: Arc<OnceLock<String>>,
}

impl Session {
    pub fn new(client: Client, access: Arc<Access>, child: Arc<OnceLock<String>>) -> Self {
        let (container, ephemeral) = (access.options(CreateMode::Container), access.options(CreateMode::Ephemeral));
        let tree_made = Mutex::const_new(None);
        Self { client, permits: Semaphore::new(IN_FLIGHT), access, tree_made, container, ephemeral, child }
    }

    /// Carries `ops` out, on different keys and at most [`BATCH`] of them, and tells what came of each.
    pub async fn apply(&self, ops: Vec<(Key, Op)>) -> Vec<(Key, Outcome)> {
        let (create, delete): (Vec<_>, Vec<_>) = ops.into_iter().partition(|(_, op)| *op == Op::Create);
        let keys = |ops: Vec<(Key, Op)>| ops.into_iter().map(|(key, _)| key).collect();
        let (mut done, deleted) = futures::join!(self.create(keys(create)), self.delete(keys(delete)));
        done.extend(deleted);
        done
    }

    async fn create(&self, keys: Vec<Key>) -> Vec<(Key, Outcome)> {
        if keys.len() <= FEW {
            return self.create_singly(keys).await;
        }
        // Long keys are written into their containers: a hundred of them would make too large a transaction.
        let is_long = |key: &Key| matches!(key.znode_name(), ZnodeName::Digest(_));
        let (mut single, keys): (Vec<_>, Vec<_>) = keys.into_iter().partition(is_long);
        let containers: Vec<String> = keys.iter().map(tree::container).collect();
        let mut reader = self.client.new_multi_reader();
        if let Err(error) = containers.iter().try_for_each(|path| reader.add_get_children(path)) {
            return told(keys, &error);
        }
        let found = match self.permitted(1, async { reader.commit().await }).await {
            Ok(found) => found,
            Err(error) => {
                let mut done = told(keys, &error);
                done.extend(told(single, &error));
                return done;
            }
        };
        let mut writer = self.client.new_multi_writer();
        let mut together = Vec::new();
        for ((key, container), found) in keys.into_iter().zip(&containers).zip(found) {
            let mut add = || {
                if matches!(found, MultiReadResult::Error { err: Error::NoNode }) {
                    writer.add_create(container, &[], &self.container)?;
                }
                writer.add_create(&self.child_of(container), &[], &self.ephemeral)
            };
            match &found {
                // Left over, or ours with its answer lost: needs a closer look.
                MultiReadResult::Children { children } if children.iter().any(|child| child == self.child()) => single.push(key),
                _ => match add() {
                    Ok(()) => together.push(key),
                    Err(_) => single.push(key),
                },
            }
        }
        let mut done = match self.permitted(1, async { writer.commit().await }).await {
            Ok(_) => together.into_iter().map(|key| (key, Outcome::Present)).collect(),
            // Nothing was applied: one of them is special (a container came or went meanwhile).
            Err(MultiWriteError::OperationFailed { .. }) => self.create_singly(together).await,
            Err(MultiWriteError::RequestFailed { source }) => told(together, &source),
        };
        done.extend(self.create_singly(single).await);
        done
    }

    async fn create_singly(&self, keys: Vec<Key>) -> Vec<(Key, Outcome)> {
        join_all(keys.into_iter().map(async |key| {
            let outcome = self.create_one(&key).await.unwrap_or_else(|error| outcome_of(&error));
            (key, outcome)
        }))
        .await
    }

    async fn create_one(&self, key: &Key) -> Result<Outcome, Error> {
        let (container, data) = (tree::container(key), tree::container_data(key));
        let child = self.child_of(&container);
        for _ in 0..RACES {
            // Both are sent before either is answered, in this order.
            let both = async {
                let parent = self.client.create(&container, &data, &self.container);
                let child = self.client.create(&child, &[], &self.ephemeral);
                futures::join!(parent, child)
            };
            match self.permitted(2, both).await {
                (_, Ok(_)) => return Ok(Outcome::Present),
                (_, Err(Error::NodeExists)) => {
                    if self.take_over(&child).await? {
                        return Ok(Outcome::Present);
                    }
                }
                // Its bucket is gone, or everything is.
                (Err(Error::NoNode), Err(Error::NoNode)) => self.make_tree().await?,
                // The parent's answer says why there is none, where it is not the race.
                (Err(error), Err(Error::NoNode)) if error != Error::NodeExists => return Err(error),
                (_, Err(Error::NoNode)) => {}
                (_, Err(error)) => return Err(error),
            }
        }
        Ok(Outcome::Unknown)
    }

    /// Makes the upper levels again, which somebody must have deleted. Many find out at once, and one of them does it.
    pub async fn make_tree(&self) -> Result<(), Error> {
        let found = Instant::now();
        let mut made = self.tree_made.lock().await;
        if made.is_some_and(|made| made >= found) {
            return Ok(());
        }
        self.access.prepare(&self.client).await?;
        *made = Some(Instant::now());
        tracing::warn!("somebody has deleted the registry's upper znodes: they were made again");
        Ok(())
    }

    /// Looks whether these registrations stand, at most [`BATCH`] of them, and are this session's.
    pub async fn look(&self, keys: Vec<Key>) -> Vec<(Key, Found)> {
        let mut reader = self.client.new_multi_reader();
        let mut paths = keys.iter().map(|key| self.child_of(&tree::container(key)));
        let read = match paths.try_for_each(|path| reader.add_get_data(&path)) {
            Ok(()) => self.permitted(1, async { reader.commit().await }).await,
            Err(error) => Err(error),
        };
        let results = match read {
            Ok(results) if results.len() == keys.len() => results,
            _ => return keys.into_iter().map(|key| (key, Found::Unknown)).collect(),
        };
        let own = self.client.session_id().0;
        let looks = keys.into_iter().zip(results).map(async |(key, result)| {
            let owner = match result {
                MultiReadResult::Data { stat, .. } => Ok(Some(stat.ephemeral_owner)),
                MultiReadResult::Error { err: Error::NoNode } => Ok(None),
                // It may not be read; whether it exists may be asked by everybody.
                MultiReadResult::Error { err: Error::NoAuth } => {
                    let path = self.child_of(&tree::container(&key));
                    let stat = self.permitted(1, async { self.client.check_stat(&path).await }).await;
                    stat.map(|stat| stat.map(|stat| stat.ephemeral_owner))
                }
                _ => return (key, Found::Unknown),
            };
            let found = match owner {
                Ok(Some(owner)) if owner == own => Found::Standing,
                Ok(_) => Found::Missing,
                Err(_) => Found::Unknown,
            };
            (key, found)
        });
        join_all(looks).await
    }

    /// The znode exists: is it this session's? One of an earlier session of this node is replaced, in one
    /// transaction, for it would vanish when that session expires. `false`: it went meanwhile.
    async fn take_over(&self, child: &str) -> Result<bool, Error> {
        let Some(stat) = self.permitted(1, async { self.client.check_stat(child).await }).await? else { return Ok(false) };
        if stat.ephemeral_owner == self.client.session_id().0 {
            return Ok(true);
        }
        let mut writer = self.client.new_multi_writer();
        writer.add_delete(child, Some(stat.version))?;
        writer.add_create(child, &[], &self.ephemeral)?;
        match self.permitted(1, async { writer.commit().await }).await {
            Ok(_) => Ok(true),
            Err(MultiWriteError::OperationFailed { source: Error::NoNode | Error::NodeExists | Error::BadVersion, .. }) => {
                Ok(false)
            }
            Err(error) => Err(error.into()),
        }
    }

    async fn delete(&self, keys: Vec<Key>) -> Vec<(Key, Outcome)> {
        if keys.len() > FEW {
            let mut writer = self.client.new_multi_writer();
            let added = keys.iter().try_for_each(|key| writer.add_delete(&self.child_of(&tree::container(key)), None));
            let result = match added {
                Ok(()) => self.permitted(1, async { writer.commit().await }).await,
                Err(error) => Err(error.into()),
            };
            match result {
                Ok(_) => return keys.into_iter().map(|key| (key, Outcome::Absent)).collect(),
                Err(MultiWriteError::OperationFailed { .. }) => {}
                Err(MultiWriteError::RequestFailed { source }) => return told(keys, &source),
            }
        }
        join_all(keys.into_iter().map(async |key| {
            let path = self.child_of(&tree::container(&key));
            let outcome = match self.permitted(1, async { self.client.delete(&path, None).await }).await {
                Ok(()) | Err(Error::NoNode) => Outcome::Absent,
                Err(error) => outcome_of(&error),
            };
            (key, outcome)
        }))
        .await
    }

    /// Runs `request` once `count` requests may be sent. The library sends when a method is called, so the call
    /// itself must be within.
    async fn permitted<T>(&self, count: u32, request: impl Future<Output = T>) -> T {
        // The semaphore is never closed; without a permit the request would merely be sent at once.
        let _permit = self.permits.acquire_many(count).await;
        request.await
    }

    fn child_of(&self, container: &str) -> String {
        format!("{container}/{}", self.child())
    }

    fn child(&self) -> &str {
        // Known before anything is registered; without it the empty name would be refused.
        self.child.get().map_or("", String::as_str)
    }
}

fn told(keys: Vec<Key>, error: &Error) -> Vec<(Key, Outcome)> {
    keys.into_iter().map(|key| (key, outcome_of(error))).collect()
}

/// What an error leaves behind.
fn outcome_of(error: &Error) -> Outcome {
    match registry_error(error) {
        RegistryError::Denied(reason) | RegistryError::Refused(reason) => Outcome::Denied(reason),
        // Away, stalled, throttled, expired: perhaps done, perhaps not.
        _ => Outcome::Unknown,
    }
}
