//! Messages of whose flags something was heard without its place in the order of changes, or out of
//! it.
//!
//! Two states of one message are in order if both have a modification sequence (RFC 7162 3.1). A
//! server answers a session that has not enabled CONDSTORE without one, some origins publish
//! without one, and events overtake each other on their way. What came last is then not known to be
//! the newest: it is asked for, or compared later.

use roaring::RoaringBitmap;

use crate::mail::uid::Uid;

/// A set that has grown larger becomes a range: asking about too many messages is a cost, not a
/// fault.
const MAX_SINGLE: u64 = 1024;

/// Most views have nothing of it.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Disorder {
    /// The server has answered without a modification sequence: any event about the message may be
    /// older.
    pub ask: UidSet,
    /// An event without a modification sequence was told, or anything without one left untold: with
    /// an event about the message, the order is a guess.
    pub undated: UidSet,
    /// The flags told last are a guess.
    pub guessed: RoaringBitmap,
    /// An older event came behind a newer one. It was not told; all the same the flags are worth a
    /// comparison.
    pub overtaken: RoaringBitmap,
}

impl Disorder {
    /// The server has answered: no guess is left.
    pub fn compared(&mut self, uid: Uid) {
        self.undated.remove(uid);
        self.guessed.remove(uid.get());
        self.overtaken.remove(uid.get());
    }

    /// The messages are gone.
    pub fn forget(&mut self, gone: &RoaringBitmap) {
        self.ask.single -= gone;
        self.undated.single -= gone;
        self.guessed -= gone;
        self.overtaken -= gone;
    }

    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// UIDs in bounded memory: it may hold more than were put in, never fewer.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct UidSet {
    /// All UIDs below it are held.
    below: u32,
    single: RoaringBitmap,
}

impl UidSet {
    pub fn contains(&self, uid: Uid) -> bool {
        uid.get() < self.below || self.single.contains(uid.get())
    }

    pub fn insert(&mut self, uid: Uid) {
        if uid.get() >= self.below && self.single.insert(uid.get()) && self.single.len() > MAX_SINGLE {
            // The lower half: new messages are the ones that change most.
            let middle = self.single.select((MAX_SINGLE / 2) as u32).unwrap_or_default();
            self.below = middle;
            self.single.remove_range(..middle);
        }
    }

    /// What is held as part of the range stays.
    pub fn remove(&mut self, uid: Uid) {
        self.single.remove(uid.get());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_large_set_becomes_a_range_and_holds_all_that_was_put_in() {
        let uid = |number| Uid::new(number).unwrap();
        let mut set = UidSet::default();
        (1..=5000).for_each(|number| set.insert(uid(2 * number)));
        assert!(set.single.len() <= MAX_SINGLE && set.below < 10_000);
        assert!((1..=5000).all(|number| set.contains(uid(2 * number))));
        assert!(set.contains(uid(3)) && !set.contains(uid(9_999)) && !set.contains(uid(10_001)));
        set.remove(uid(10_000));
        assert!(!set.contains(uid(10_000)));
    }
}
