//! The difference between what the client was told and what upstream holds.

use roaring::RoaringBitmap;

use super::View;
use super::tell::{Reconciled, Tell};
use crate::mail::flags::Flags;
use crate::mail::uid::{ModSeq, Uid};

impl View {
    /// Tells the difference from what upstream holds now, in an order that clients know, and makes the view equal to it.
    ///
    /// `truth` is all of upstream's UIDs, at one moment; `truth_uidnext` its next UID at that moment: with one that is too
    /// low, what upstream expunged last looks as if upstream lagged behind. `flags` are complete sets of messages whose
    /// flags may have changed.
    ///
    /// What cannot be told is in the answer: messages that upstream has not seen yet, and messages that it should
    /// not, or not yet, show. Either can pass by itself, when upstream catches up; asked again then, it is level.
    pub fn reconcile(&mut self, truth: &RoaringBitmap, truth_uidnext: u32, flags: &[(Uid, Flags, Option<ModSeq>)]) -> Reconciled {
        let uidnext = truth_uidnext.max(truth.max().map_or(1, |last| last.saturating_add(1)));
        // Old numbers are good for what lies below the holes; above them only the new ones are.
        let (before, after): (Vec<_>, Vec<_>) = flags.iter().cloned().partition(|(uid, ..)| self.is_final(*uid));
        let mut tell = self.tell_flags(&before);

        let mut missing = self.uids.set() - truth;
        let ahead: RoaringBitmap = missing.range(uidnext..).collect();
        missing -= &ahead;
        tell.append(&mut self.vanish(missing));

        let mut late = truth - self.uids.set();
        late.remove(0);
        let mut new: RoaringBitmap = late.range(self.floor..).collect();
        new -= &self.gone;
        late -= &new;
        let is_grown = !new.is_empty();
        self.uids.insert_all(&new);
        // Upstream's list is all there is below its next UID.
        self.raise_floor(uidnext);
        self.status = None;
        if is_grown {
            tell.push(Tell::Exists(self.len()));
        }
        tell.append(&mut self.tell_flags(&after));
        Reconciled { tell, ahead, late }
    }
}
