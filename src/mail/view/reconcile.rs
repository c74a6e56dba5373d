//! The difference between what the client was told and what upstream holds.

use roaring::RoaringBitmap;

use super::View;
use super::tell::{Reconciled, Tell};
use crate::mail::flags::Flags;
use crate::mail::uid::{ModSeq, Uid};

impl View {
    /// Returns the difference from what the server holds now, in an order that clients know, and
    /// makes the view equal to it.
    ///
    /// `truth` is all of the server's UIDs at one moment, `truth_uidnext` its next UID at that
    /// moment. With a UIDNEXT that is too low, messages that the server expunged last look as if it
    /// lagged behind. `flags` are complete sets of flags that the server told meanwhile.
    ///
    /// The result names what cannot be told: messages that the server does not show yet, and
    /// messages that it should not show any more. A server that lags shows the right ones later:
    /// ask again then.
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
