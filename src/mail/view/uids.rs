//! A set of UIDs whose ranks are message sequence numbers.

use std::sync::Arc;

use roaring::RoaringBitmap;

use crate::mail::uid::Uid;

/// After so many changes the set is packed again: single removals leave it in more pieces than it
/// needs, and each piece costs time and memory.
const CHANGES_UNTIL_PACKED: u32 = 1024;

/// A set of UIDs; a clone shares its memory until one of them changes.
///
/// The lowest UID has the message sequence number 1 (RFC 9051 2.3.1.2).
#[derive(Debug, Clone, Default)]
pub struct Uids {
    set: Arc<RoaringBitmap>,
    /// How many there are in each block of 65,536 UIDs that has some, ascending; the set itself
    /// would have to count them.
    blocks: Arc<Vec<(u16, u32)>>,
    len: u32,
    changes: u32,
}

impl Uids {
    /// Zero is no UID, and is left out.
    pub fn new(mut set: RoaringBitmap) -> Self {
        set.remove(0);
        set.optimize();
        // A clone allocates no more than it needs; what grew step by step has room to spare.
        let set = set.clone();
        let mut uids = Self { blocks: Arc::default(), len: 0, set: Arc::new(set), changes: 0 };
        uids.count();
        uids
    }

    pub fn len(&self) -> u32 {
        self.len
    }

    #[allow(dead_code, reason = "it goes with `len`")]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub fn contains(&self, uid: Uid) -> bool {
        self.set.contains(uid.get())
    }

    pub fn set(&self) -> &RoaringBitmap {
        &self.set
    }

    /// The highest one.
    pub fn last(&self) -> Option<Uid> {
        self.set.max().and_then(Uid::new)
    }

    /// The message sequence number of a UID that is held.
    pub fn seq(&self, uid: Uid) -> Option<u32> {
        self.contains(uid).then(|| self.rank(uid.get()))
    }

    /// The UID of a message sequence number.
    #[cfg(test)]
    pub fn uid(&self, seq: u32) -> Option<Uid> {
        self.set.select(seq.checked_sub(1)?).and_then(Uid::new)
    }

    /// The message sequence numbers of all of `subset`, ascending; what is not held has none.
    pub fn seqs(&self, subset: &RoaringBitmap) -> Vec<u32> {
        // A rank walks over a block, up to a few thousand steps: from a few hundred on, one walk
        // over all is cheaper.
        if subset.len() < 1 + u64::from(self.len) / 1024 {
            return subset.iter().filter_map(Uid::new).filter_map(|uid| self.seq(uid)).collect();
        }
        let mut seqs = Vec::with_capacity(usize::try_from(subset.len()).unwrap_or_default());
        let (mut wanted, mut held, mut below) = (subset.iter().peekable(), self.set.iter(), 0);
        while let Some(run) = held.next_range() {
            while wanted.next_if(|uid| uid < run.start()).is_some() {}
            while let Some(uid) = wanted.next_if(|uid| uid <= run.end()) {
                seqs.push(below + (uid - run.start()) + 1);
            }
            if wanted.peek().is_none() {
                break;
            }
            below += run.end() - run.start() + 1;
        }
        seqs
    }

    /// Whether it was not held yet.
    pub fn insert(&mut self, uid: Uid) -> bool {
        let is_new = !self.contains(uid);
        if is_new {
            Arc::make_mut(&mut self.set).insert(uid.get());
            let blocks = Arc::make_mut(&mut self.blocks);
            match blocks.binary_search_by_key(&block(uid.get()), |(block, _)| *block) {
                Ok(at) => blocks[at].1 += 1,
                Err(at) => blocks.insert(at, (block(uid.get()), 1)),
            }
            self.len += 1;
            self.changed(1);
        }
        is_new
    }

    /// Takes all of `gone` out.
    pub fn remove_all(&mut self, gone: &RoaringBitmap) {
        if self.set.is_disjoint(gone) {
            return;
        }
        let before = self.len;
        if gone.len() < 64 {
            gone.iter().for_each(|uid| self.remove(uid));
        } else {
            *Arc::make_mut(&mut self.set) -= gone;
            self.count();
        }
        self.changed(before - self.len);
    }

    /// Puts all of `more` in.
    pub fn insert_all(&mut self, more: &RoaringBitmap) {
        if more.is_empty() {
            return;
        }
        let before = self.len;
        let set = Arc::make_mut(&mut self.set);
        *set |= more;
        set.remove(0);
        self.count();
        self.changed(self.len - before);
    }

    /// Takes the message with this sequence number out, as `* n EXPUNGE` says (RFC 9051 7.5.1).
    #[cfg(test)]
    pub fn remove_seq(&mut self, seq: u32) -> Option<Uid> {
        let uid = self.uid(seq)?;
        self.remove(uid.get());
        self.changed(1);
        Some(uid)
    }

    fn remove(&mut self, uid: u32) {
        if Arc::make_mut(&mut self.set).remove(uid) {
            let blocks = Arc::make_mut(&mut self.blocks);
            // One that has become empty may stay.
            if let Ok(at) = blocks.binary_search_by_key(&block(uid), |(block, _)| *block) {
                blocks[at].1 -= 1;
            }
            self.len -= 1;
        }
    }

    fn rank(&self, uid: u32) -> u32 {
        let below = self.blocks.iter().take_while(|(number, _)| *number < block(uid));
        let within = self.set.range_cardinality(u32::from(block(uid)) << 16..=uid);
        below.map(|(_, count)| count).sum::<u32>() + u32::try_from(within).unwrap_or_default()
    }

    fn count(&mut self) {
        let mut blocks = Vec::new();
        let mut rest = self.set.iter();
        while let Some(first) = rest.next() {
            let start = u32::from(block(first)) << 16;
            let count = self.set.range_cardinality(start..=start | 0xffff);
            blocks.push((block(first), u32::try_from(count).unwrap_or_default()));
            match (start | 0xffff).checked_add(1) {
                Some(next) => rest.advance_to(next),
                None => break,
            }
        }
        self.len = blocks.iter().map(|(_, count)| count).sum();
        self.blocks = Arc::new(blocks);
    }

    fn changed(&mut self, by: u32) {
        self.changes = self.changes.saturating_add(by);
        if self.changes >= CHANGES_UNTIL_PACKED {
            self.changes = 0;
            Arc::make_mut(&mut self.set).optimize();
        }
    }
}

/// Two sets are equal if they hold the same UIDs, however they came about.
impl PartialEq for Uids {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.set, &other.set) || self.set == other.set
    }
}

impl Eq for Uids {}

impl From<RoaringBitmap> for Uids {
    fn from(set: RoaringBitmap) -> Self {
        Self::new(set)
    }
}

fn block(uid: u32) -> u16 {
    (uid >> 16) as u16
}
