//! What a publisher knows without asking, and for how long it may believe it.
//!
//! An entry is kept true by a watch: ZooKeeper tells of the change, and the entry goes. But a connection may
//! have stalled without anybody noticing, and then nothing is told. So entries count only under a *lease*: a
//! `sync` that was begun no longer than 0.8 of the settle time ago has come back on the same connection, and
//! so has everything that ZooKeeper had to tell before it.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use futures::future::AbortHandle;
use quick_cache::sync::Cache;

use crate::cluster::queue::QueueName;
use crate::mail::key::Key;

/// An answer, kept as long as its watch stands; dropping it ends the watch.
#[derive(Clone)]
struct Entry {
    queues: Arc<[QueueName]>,
    _watch: Arc<Watch>,
}

struct Watch(AbortHandle);

impl Drop for Watch {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// The answers of one ensemble. Written by its link alone, read by everybody.
pub struct Answers {
    entries: Cache<Key, Entry>,
    lease: Lease,
    renewal_asked: AtomicBool,
}

impl Answers {
    pub fn new(capacity: usize, settle: Duration) -> Self {
        let renewal_asked = AtomicBool::new(false);
        Self { entries: Cache::new(capacity.max(1)), lease: Lease::new(settle), renewal_asked }
    }

    /// The answer, if it is known and believed; and whether the lease is to be renewed, told once.
    pub fn get(&self, key: &Key, now: Instant) -> (Option<Arc<[QueueName]>>, bool) {
        // The lease first: an entry that is read after it is at least as new.
        let (holds, ages) = self.lease.state(now);
        let renew = ages && !self.renewal_asked.swap(true, Ordering::Relaxed);
        (holds.then(|| self.entries.get(key).map(|entry| entry.queues)).flatten(), renew)
    }

    pub fn contains(&self, key: &Key) -> bool {
        self.entries.contains_key(key)
    }

    pub fn insert(&self, key: Key, queues: Arc<[QueueName]>, watch: AbortHandle) {
        self.entries.insert(key, Entry { queues, _watch: Arc::new(Watch(watch)) });
    }

    pub fn remove(&self, key: &Key) {
        self.entries.remove(key);
    }

    /// A `sync` that was begun at `begun` has come back, and all that was told before it has been heard.
    pub fn renew(&self, begun: Instant) {
        self.lease.renew(begun);
        self.renewal_asked.store(false, Ordering::Relaxed);
    }

    /// The connection is gone: nothing is believed any more.
    pub fn clear(&self) {
        self.lease.end();
        self.entries.clear();
        self.renewal_asked.store(false, Ordering::Relaxed);
    }
}

/// Until when cached answers are believed.
struct Lease {
    epoch: Instant,
    settle: Duration,
    /// When the newest `sync` that came back was begun, in nanoseconds after `epoch`; 0: never.
    begun: AtomicU64,
}

impl Lease {
    fn new(settle: Duration) -> Self {
        // A moment in the past, so that no sync begins at 0.
        let now = Instant::now();
        let epoch = now.checked_sub(Duration::from_secs(1)).unwrap_or(now);
        Self { epoch, settle, begun: AtomicU64::new(0) }
    }

    fn since_epoch(&self, moment: Instant) -> u64 {
        u64::try_from(moment.saturating_duration_since(self.epoch).as_nanos()).unwrap_or(u64::MAX)
    }

    /// Whether it holds, and whether it is old enough to be renewed (only while it holds: a lookup renews it too).
    fn state(&self, now: Instant) -> (bool, bool) {
        let begun = self.begun.load(Ordering::Acquire);
        if begun == 0 {
            return (false, false);
        }
        let age = Duration::from_nanos(self.since_epoch(now).saturating_sub(begun));
        let holds = age < self.settle.mul_f32(0.8);
        (holds, holds && age > self.settle.mul_f32(0.4))
    }

    fn renew(&self, begun: Instant) {
        self.begun.fetch_max(self.since_epoch(begun), Ordering::Release);
    }

    fn end(&self) {
        self.begun.store(0, Ordering::Release);
    }
}

/// Lets in who has been here before, so that a burst of keys that are asked for once costs no watches.
/// Remembers between `capacity` and twice as many.
pub struct Doorkeeper {
    capacity: usize,
    recent: HashSet<u64>,
    older: HashSet<u64>,
}

impl Doorkeeper {
    pub fn new(capacity: usize) -> Self {
        Self { capacity: capacity.max(1), recent: HashSet::new(), older: HashSet::new() }
    }

    /// Whether a key with this hash was asked for lately; notes that it is now.
    pub fn knows(&mut self, hash: u64) -> bool {
        let known = self.older.contains(&hash);
        if !self.recent.insert(hash) {
            return true;
        }
        if self.recent.len() >= self.capacity {
            self.older = std::mem::take(&mut self.recent);
        }
        known
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mail::user::UserName;

    const SETTLE: Duration = Duration::from_secs(1);

    fn key() -> Key {
        Key::Account(UserName::new("bob").unwrap())
    }

    #[test]
    fn an_answer_is_believed_under_a_lease_only() {
        let answers = Answers::new(10, SETTLE);
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let (watch, _) = AbortHandle::new_pair();
        answers.insert(key(), Arc::new([]), watch);
        assert_eq!(answers.get(&key(), start), (None, false));
        answers.renew(start);
        let seen: Vec<(bool, bool)> = [0, 399, 401, 402, 799, 801]
            .iter()
            .map(|&ms| {
                let (queues, renew) = answers.get(&key(), at(ms));
                (queues.is_some(), renew)
            })
            .collect();
        let asked_once = [(true, false), (true, false), (true, true), (true, false), (true, false), (false, false)];
        assert_eq!(seen, asked_once);
        answers.renew(at(500));
        answers.renew(at(450));
        assert!(answers.get(&key(), at(1_299)).0.is_some(), "an earlier sync that comes back later changes nothing");
        answers.clear();
        assert_eq!(answers.get(&key(), at(500)), (None, false));
    }

    #[test]
    fn an_entry_that_goes_takes_its_watch_along() {
        let answers = Answers::new(10, SETTLE);
        let (first, _) = AbortHandle::new_pair();
        let (second, _) = AbortHandle::new_pair();
        answers.insert(key(), Arc::new([]), first.clone());
        answers.insert(key(), Arc::new([]), second.clone());
        assert!(first.is_aborted() && !second.is_aborted());
        answers.remove(&key());
        assert!(second.is_aborted());
    }

    #[test]
    fn the_doorkeeper_forgets_what_is_long_ago() {
        let mut doorkeeper = Doorkeeper::new(3);
        assert_eq!([1, 2, 1, 3, 2].map(|hash| doorkeeper.knows(hash)), [false, false, true, false, true]);
        assert_eq!([4, 5, 6, 7, 8].map(|hash| doorkeeper.knows(hash)), [false; 5]);
        assert!(!doorkeeper.knows(1));
        assert!((0..10_000).all(|hash| !doorkeeper.knows(100 + hash)));
        assert!(doorkeeper.recent.len() + doorkeeper.older.len() <= 6);
    }
}
