//! The locks of this crate: they know in which order they may be taken.
//!
//! A thread that holds a lock may take only locks of a *higher* [`rank`]. In debug builds, and so
//! in every test, taking one out of order panics and names both, before it can become a deadlock
//! that one run in a million shows. In release builds a lock is as large and as fast as the
//! standard library's.
//!
//! A thread that panics while it holds a lock does not poison it: what our locks guard is whole
//! after each statement, and a node serves everybody else on. Clippy (`disallowed-types`) keeps the
//! standard library's locks out of the crate. For a lock that is held across an `.await` there is
//! `tokio::sync::Mutex`.

use std::fmt;
use std::ops::{Deref, DerefMut};
#[expect(clippy::disallowed_types, reason = "the one place that wraps them")]
use std::sync::{Mutex as StdMutex, RwLock as StdRwLock};
use std::sync::{MutexGuard as StdMutexGuard, PoisonError, RwLockReadGuard, RwLockWriteGuard};

use self::order::Mark;

/// Who may be taken while who is held: from the outermost to the innermost.
pub mod rank {
    /// `push::sessions`: the table of live sessions.
    pub const SESSIONS: u8 = 10;
    /// `push::session`: what one session is subscribed to.
    pub const SUBSCRIPTIONS: u8 = 20;
    /// `push::hub`: one of its shards.
    pub const HUB: u8 = 30;
    /// `push::presence`: the keys that this node has registered.
    pub const PRESENCE: u8 = 40;
    /// `cluster::registry::zookeeper`: the ZooKeeper sessions of one ensemble.
    pub const ZOOKEEPER_SESSIONS: u8 = 50;
    /// `cluster::registry::local`: the ACLs.
    pub const LOCAL_ACLS: u8 = 60;
    /// `cluster::queue::local`: the table of queues.
    pub const LOCAL_QUEUES: u8 = 70;
    /// `cluster::queue::kafka`: which producer is in use.
    pub const KAFKA_PRODUCER: u8 = 80;
    /// `agent::pipeline`: the table of lanes.
    pub const LANES: u8 = 90;
    /// `agent::spool`: the right to write the checkpoint.
    pub const CHECKPOINT: u8 = 100;
    /// Every other lock: while it is held, none is taken.
    pub const LEAF: u8 = u8::MAX;
}

/// A mutual exclusion; a leaf unless `RANK` says otherwise.
#[derive(Default)]
#[expect(clippy::disallowed_types, reason = "the one place that wraps it")]
pub struct Mutex<T, const RANK: u8 = { rank::LEAF }>(StdMutex<T>);

/// Gives the lock back when dropped. Not to be held across an `.await`.
#[must_use = "the lock is given back at once"]
pub struct MutexGuard<'a, T> {
    guard: StdMutexGuard<'a, T>,
    _mark: Mark,
}

impl<T> Mutex<T> {
    pub const fn new(value: T) -> Self {
        Self::ranked(value)
    }
}

impl<T, const RANK: u8> Mutex<T, RANK> {
    /// A lock of the rank that its type says.
    #[expect(clippy::disallowed_types, reason = "the one place that wraps it")]
    pub const fn ranked(value: T) -> Self {
        Self(StdMutex::new(value))
    }

    /// Waits for the lock.
    pub fn lock(&self) -> MutexGuard<'_, T> {
        // Before the wait: out of order it may last for ever.
        let mark = Mark::set::<T>(RANK, std::ptr::from_ref(self).addr());
        MutexGuard { guard: self.0.lock().unwrap_or_else(PoisonError::into_inner), _mark: mark }
    }
}

impl<T> Deref for MutexGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.guard
    }
}

impl<T> DerefMut for MutexGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.guard
    }
}

impl<T, const RANK: u8> fmt::Debug for Mutex<T, RANK> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mutex").finish_non_exhaustive()
    }
}

/// Many readers or one writer; a leaf unless `RANK` says otherwise. A thread that reads must not
/// read it once more: a writer that waits in between would stop both.
#[derive(Default)]
#[expect(clippy::disallowed_types, reason = "the one place that wraps it")]
pub struct RwLock<T, const RANK: u8 = { rank::LEAF }>(StdRwLock<T>);

/// Gives the lock back when dropped. Not to be held across an `.await`.
#[must_use = "the lock is given back at once"]
pub struct ReadGuard<'a, T> {
    guard: RwLockReadGuard<'a, T>,
    _mark: Mark,
}

/// Gives the lock back when dropped. Not to be held across an `.await`.
#[must_use = "the lock is given back at once"]
pub struct WriteGuard<'a, T> {
    guard: RwLockWriteGuard<'a, T>,
    _mark: Mark,
}

impl<T> RwLock<T> {
    pub const fn new(value: T) -> Self {
        Self::ranked(value)
    }
}

impl<T, const RANK: u8> RwLock<T, RANK> {
    /// A lock of the rank that its type says.
    #[expect(clippy::disallowed_types, reason = "the one place that wraps it")]
    pub const fn ranked(value: T) -> Self {
        Self(StdRwLock::new(value))
    }

    /// Waits until nobody writes.
    pub fn read(&self) -> ReadGuard<'_, T> {
        self.read_marked(Mark::set::<T>(RANK, std::ptr::from_ref(self).addr()))
    }

    /// As [`Self::read`], for several locks of one rank that are held together: each must lie
    /// behind the one before it in memory, as the items of a slice do, so that all threads take
    /// them in one order.
    pub fn read_in_order(&self) -> ReadGuard<'_, T> {
        self.read_marked(Mark::set_in_order::<T>(RANK, std::ptr::from_ref(self).addr()))
    }

    fn read_marked(&self, mark: Mark) -> ReadGuard<'_, T> {
        ReadGuard { guard: self.0.read().unwrap_or_else(PoisonError::into_inner), _mark: mark }
    }

    /// Waits until nobody reads or writes.
    pub fn write(&self) -> WriteGuard<'_, T> {
        let mark = Mark::set::<T>(RANK, std::ptr::from_ref(self).addr());
        WriteGuard { guard: self.0.write().unwrap_or_else(PoisonError::into_inner), _mark: mark }
    }
}

impl<T> Deref for ReadGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.guard
    }
}

impl<T> Deref for WriteGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.guard
    }
}

impl<T> DerefMut for WriteGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.guard
    }
}

impl<T, const RANK: u8> fmt::Debug for RwLock<T, RANK> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RwLock").finish_non_exhaustive()
    }
}

/// Release builds do not check.
#[cfg(not(debug_assertions))]
mod order {
    pub(super) struct Mark;

    impl Mark {
        #[inline(always)]
        pub(super) fn set<T>(_rank: u8, _address: usize) -> Self {
            Self
        }

        #[inline(always)]
        pub(super) fn set_in_order<T>(_rank: u8, _address: usize) -> Self {
            Self
        }
    }
}

#[cfg(debug_assertions)]
mod order {
    use std::any::type_name;
    use std::cell::RefCell;

    struct Held {
        rank: u8,
        address: usize,
        guards: &'static str,
    }

    thread_local! {
        /// The locks that this thread holds.
        static HELD: RefCell<Vec<Held>> = const { RefCell::new(Vec::new()) };
    }

    /// That this thread holds a lock; taken back when dropped.
    pub(super) struct Mark {
        address: usize,
    }

    impl Mark {
        pub(super) fn set<T>(rank: u8, address: usize) -> Self {
            Self::set_after::<T>(rank, address, |held| held.rank < rank)
        }

        pub(super) fn set_in_order<T>(rank: u8, address: usize) -> Self {
            Self::set_after::<T>(rank, address, |held| (held.rank, held.address) < (rank, address))
        }

        #[expect(clippy::panic, reason = "a lock out of order is a bug that only a debug build may show")]
        fn set_after<T>(rank: u8, address: usize, is_before: impl Fn(&Held) -> bool) -> Self {
            let wrong = HELD.with_borrow_mut(|held| {
                let wrong = held.iter().find(|held| !is_before(held)).map(|held| (held.rank, held.guards));
                held.push(Held { rank, address, guards: type_name::<T>() });
                wrong
            });
            let mark = Self { address };
            // A second panic would hide the first one.
            if let Some((outer, guards)) = wrong.filter(|_| !std::thread::panicking()) {
                panic!("the lock of {} (rank {rank}) is taken while that of {guards} (rank {outer}) is held", type_name::<T>());
            }
            mark
        }
    }

    impl Drop for Mark {
        fn drop(&mut self) {
            // A thread that ends may have dropped the list already.
            let _ = HELD.try_with(|held| {
                let mut held = held.borrow_mut();
                if let Some(at) = held.iter().rposition(|held| held.address == self.address) {
                    held.remove(at);
                }
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};
    use std::sync::Arc;

    use super::*;

    type Outer = Mutex<u8, { rank::SESSIONS }>;
    type Inner = RwLock<u8, { rank::HUB }>;

    /// What is said of locks that are taken in this order.
    fn complaint(take: impl FnOnce()) -> Option<String> {
        catch_unwind(AssertUnwindSafe(take)).err().map(|panic| *panic.downcast::<String>().unwrap())
    }

    #[test]
    fn locks_are_taken_in_the_order_of_their_ranks() {
        let (outer, inner, leaf, other) = (Outer::default(), Inner::default(), Mutex::new('a'), Mutex::new("b"));
        let in_order = || {
            let _one = outer.lock();
            let _two = inner.write();
            let _three = leaf.lock();
        };
        assert_eq!(complaint(in_order), None);
        assert_eq!(complaint(in_order), None, "all were given back");

        let backwards = || {
            let _two = inner.read();
            let _one = outer.lock();
        };
        let told = complaint(backwards).unwrap();
        assert_eq!(told, "the lock of u8 (rank 10) is taken while that of u8 (rank 30) is held");
        let two_leaves = || {
            let _one = leaf.lock();
            let _two = other.lock();
        };
        assert_eq!(complaint(two_leaves).unwrap(), "the lock of &str (rank 255) is taken while that of char (rank 255) is held");
        let twice = || {
            let _one = outer.lock();
            let _two = outer.lock();
        };
        assert!(complaint(twice).is_some(), "instead of waiting for itself for ever");
        assert_eq!(complaint(in_order), None, "nothing is left of what went wrong");
    }

    #[test]
    fn given_back_in_any_order() {
        let (outer, inner) = (Outer::default(), Inner::default());
        let (one, two) = (outer.lock(), inner.read());
        drop(one);
        assert!(complaint(|| drop(outer.lock())).is_some(), "the inner one is held still");
        drop(two);
        drop(outer.lock());
    }

    #[test]
    fn several_of_one_rank_are_read_in_the_order_of_a_slice() {
        let shards: Vec<Inner> = (0..3).map(|_| Inner::default()).collect();
        let read = |order: &[usize]| complaint(|| drop(order.iter().map(|at| shards[*at].read_in_order()).collect::<Vec<_>>()));
        assert_eq!(read(&[0, 1, 2]), None);
        assert!(read(&[0, 2, 1]).is_some() && read(&[1, 1]).is_some());
    }

    #[test]
    fn a_panic_poisons_nothing() {
        let lock = Arc::new(Mutex::new(1));
        let held = lock.clone();
        let panicked = std::thread::spawn(move || {
            let mut value = held.lock();
            *value = 2;
            panic!("while the lock is held");
        });
        assert!(panicked.join().is_err());
        assert_eq!(*lock.lock(), 2);
    }

    #[test]
    #[expect(clippy::disallowed_types, reason = "the comparison")]
    fn a_rank_takes_no_room() {
        assert_eq!(size_of::<Outer>(), size_of::<StdMutex<u8>>());
        assert_eq!(size_of::<Inner>(), size_of::<StdRwLock<u8>>());
    }
}
