//! The registrations of one ensemble, spread over as many session slots as they need (I-14).

use std::sync::Arc;

use crate::lock::{Mutex, MutexGuard, rank};

use tokio::sync::{Notify, oneshot, watch};
use tokio::task::JoinHandle;

use super::announce::Announcement;
use super::slot::{Shared, Slot};
use super::tree;
use crate::cluster::registry::RegistryError;
use crate::mail::key::Key;
use crate::tasks::vital;

/// What one session may hold: Σ(4 + path length) of its ephemerals. ZooKeeper writes as much into one
/// transaction when the session ends, and cannot read back much more than 2 MiB.
pub const SESSION_BUDGET: usize = 512 * 1024;

pub struct EnsembleRegistrar {
    shared: Arc<Shared>,
    slots: Mutex<Vec<Handle>, { rank::ZOOKEEPER_SESSIONS }>,
}

struct Handle {
    wake: Arc<Notify>,
    proven: watch::Receiver<bool>,
    task: Option<JoinHandle<()>>,
}

impl EnsembleRegistrar {
    pub fn new(shared: Arc<Shared>) -> Self {
        Self { shared, slots: Mutex::default() }
    }

    /// Starts the first slot, which also announces the node, unless it has been started.
    pub fn start(&self, announcement: Announcement) {
        let mut slots = self.slots();
        if slots.is_empty() {
            self.add_slot(&mut slots, announcement);
        }
    }

    /// Takes effect in the order of the calls. What is returned resolves once the registration stands.
    pub fn register(&self, key: Key, child: &str) -> oneshot::Receiver<Result<(), RegistryError>> {
        let (waiter, answer) = oneshot::channel();
        let mut slots = self.slots();
        if self.shared.closing.is_cancelled() {
            let _ = waiter.send(Err(RegistryError::Closed));
            return answer;
        }
        let cost = tree::registration_cost(self.shared.access.chroot(), &key, child);
        let placed = self.shared.book().place(&key, cost);
        let slot = placed.unwrap_or_else(|| self.add_slot(&mut slots, Announcement::none()));
        let proven = *slots[slot].proven.borrow();
        let waiter = self.shared.book().register(key, slot, cost, proven, waiter);
        if let Some(waiter) = waiter {
            let _ = waiter.send(Ok(()));
        }
        slots[slot].wake.notify_one();
        answer
    }

    pub fn unregister(&self, key: &Key) {
        let slots = self.slots();
        let (slot, waiters) = {
            let mut book = self.shared.book();
            // A key that is not there has no place of its own, and nothing is to be done.
            (book.slot_of(key), book.unregister(key))
        };
        for waiter in waiters {
            let _ = waiter.send(Err(RegistryError::Unreachable("unregistered before it was acknowledged".to_owned())));
        }
        if let Some(slot) = slot {
            slots[slot].wake.notify_one();
        }
    }

    /// Removes every registration, ends the sessions, and returns once that is done or has taken too long.
    pub async fn close(&self) {
        let tasks: Vec<_> = {
            let mut slots = self.slots();
            // Under the lock: nobody registers with a slot that has seen it.
            self.shared.closing.cancel();
            slots.iter_mut().filter_map(|slot| slot.task.take()).collect()
        };
        for task in tasks {
            if let Err(error) = task.await {
                tracing::error!(%error, "a session slot has failed");
            }
        }
    }

    fn add_slot(&self, slots: &mut Vec<Handle>, announcement: Announcement) -> usize {
        let number = self.shared.book().add_slot();
        let wake = Arc::new(Notify::new());
        let (proven, shown) = watch::channel(false);
        let slot = Slot::new(self.shared.clone(), number, wake.clone(), proven, announcement);
        slots.push(Handle { wake, proven: shown, task: Some(tokio::spawn(vital("registrations", slot.run()))) });
        number
    }

    fn slots(&self) -> MutexGuard<'_, Vec<Handle>> {
        self.slots.lock()
    }
}
