//! A modification sequence for each of some messages, in little memory.

use std::collections::VecDeque;

use roaring::RoaringBitmap;

use crate::mail::uid::Uid;

/// With more groups than that, the oldest are joined: memory is bounded, and their numbers become
/// upper bounds.
const MAX_GROUPS: usize = 32;

/// Messages grouped by modification sequence. One transaction's messages share theirs, so there are
/// few groups.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Marks {
    /// Ascending, none empty.
    groups: VecDeque<(u64, RoaringBitmap)>,
    /// The first group was joined from several: its number is the highest of theirs.
    is_joined: bool,
}

/// A message's modification sequence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mark {
    Is(u64),
    AtMost(u64),
}

impl Marks {
    pub(super) fn get(&self, uid: Uid) -> Option<Mark> {
        let at = self.groups.iter().rposition(|(_, uids)| uids.contains(uid.get()))?;
        let modseq = self.groups.get(at)?.0;
        Some(if at == 0 && self.is_joined { Mark::AtMost(modseq) } else { Mark::Is(modseq) })
    }

    pub(super) fn set(&mut self, uid: Uid, modseq: u64) {
        self.remove(uid);
        match self.groups.binary_search_by_key(&modseq, |(group, _)| *group) {
            Ok(at) => {
                self.groups[at].1.insert(uid.get());
            }
            Err(at) => self.groups.insert(at, (modseq, RoaringBitmap::from_iter([uid.get()]))),
        }
        self.join();
    }

    pub(super) fn remove(&mut self, uid: Uid) {
        if let Some(at) = self.groups.iter().rposition(|(_, uids)| uids.contains(uid.get())) {
            self.groups[at].1.remove(uid.get());
            if self.groups[at].1.is_empty() {
                self.groups.remove(at);
                self.is_joined &= at > 0;
            }
        }
    }

    /// The messages are gone.
    pub(super) fn forget(&mut self, gone: &RoaringBitmap) {
        for at in (0..self.groups.len()).rev() {
            if self.groups[at].1.is_disjoint(gone) {
                continue;
            }
            self.groups[at].1 -= gone;
            if self.groups[at].1.is_empty() {
                self.groups.remove(at);
                self.is_joined &= at > 0;
            }
        }
    }

    /// All messages that have one.
    pub(super) fn uids(&self) -> RoaringBitmap {
        self.groups.iter().fold(RoaringBitmap::new(), |all, (_, uids)| all | uids)
    }

    fn join(&mut self) {
        if self.groups.len() > MAX_GROUPS
            && let Some((_, mut oldest)) = self.groups.pop_front()
            && let Some((_, next)) = self.groups.front_mut()
        {
            // The oldest is the large one, of many before.
            oldest |= &*next;
            *next = oldest;
            self.is_joined = true;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn uid(number: u32) -> Uid {
        Uid::new(number).unwrap()
    }

    #[test]
    fn the_last_one_set_counts() {
        let mut marks = Marks::default();
        marks.set(uid(1), 7);
        marks.set(uid(2), 7);
        marks.set(uid(1), 5);
        assert_eq!((marks.get(uid(1)), marks.get(uid(2)), marks.get(uid(3))), (Some(Mark::Is(5)), Some(Mark::Is(7)), None));
        marks.remove(uid(2));
        assert_eq!((marks.get(uid(2)), marks.uids()), (None, RoaringBitmap::from_iter([1])));
    }

    #[test]
    fn messages_that_are_gone_are_forgotten() {
        let mut marks = Marks::default();
        [(1, 5), (2, 5), (3, 6), (4, 7)].iter().for_each(|(number, modseq)| marks.set(uid(*number), *modseq));
        marks.forget(&RoaringBitmap::from_iter([2, 3, 9]));
        assert_eq!(marks.uids(), RoaringBitmap::from_iter([1, 4]));
        assert_eq!(marks.groups.len(), 2);
    }

    #[test]
    fn many_groups_are_joined_from_the_oldest() {
        let mut marks = Marks::default();
        for number in 1..=34 {
            marks.set(uid(number), 100 + u64::from(number));
        }
        assert_eq!(marks.groups.len(), MAX_GROUPS);
        assert_eq!(marks.get(uid(1)), Some(Mark::AtMost(103)));
        assert_eq!(marks.get(uid(3)), Some(Mark::AtMost(103)));
        assert_eq!(marks.get(uid(4)), Some(Mark::Is(104)));
        (1..=3).for_each(|number| marks.remove(uid(number)));
        assert_eq!(marks.get(uid(4)), Some(Mark::Is(104)), "what is left is exact");
    }
}
