//! The view: the messages that an IMAP client believes the selected mailbox holds.
//!
//! A pure value. Events and upstream's answers go in; untagged responses come out, such that the client's numbers mean
//! the same messages as the view's after each of them.
//!
//! # The floor
//!
//! Events of several origins interleave, come twice, late, or not at all, and IMAP cannot insert a message in the middle.
//! So the view has a *floor*: of every UID below it the fate is known, and numbers up to it are final. A message that
//! comes above a hole is announced at once, for `EXISTS` is but a count: which message has which of the new numbers, a client
//! that idles cannot know. Should the hole's message come late, it is one more. Nothing that ties a
//! number to a message is said above the floor; only upstream's list of UIDs closes a hole for good.

mod flags;
mod marks;
mod order;
mod reconcile;
mod tell;
mod uids;

#[cfg(test)]
mod tests;
#[cfg(test)]
mod tests_model;

use std::sync::Arc;

use roaring::RoaringBitmap;

use self::flags::Told;
pub use self::tell::{Applied, End, Features, KeywordList, Keywords, Merged, PermanentFlags, Reconciled, Tell, Then, Why};
pub use self::uids::Uids;
use super::event::{Change, Event, Status};
use super::flags::Flags;
use super::path::MailboxPath;
use super::uid::{ModSeq, Uid, UidValidity};

/// Above the floor so many expunged messages are remembered, so that a late event does not bring them back; a hole that
/// has stood for so long is worth a look at upstream.
const MAX_REMEMBERED: u64 = 4096;

/// See the module's words.
#[derive(Debug, Clone, PartialEq)]
pub struct View {
    uids: Uids,
    /// The lowest UID whose fate is unknown.
    floor: u32,
    /// One more than the highest UID heard of.
    next: u32,
    /// UIDs not below the floor that are gone, or were never held and are.
    gone: RoaringBitmap,
    /// The newest state of the mailbox that an event reported, as far as the view can be compared with it.
    status: Option<Status>,
    uidvalidity: Option<UidValidity>,
    keywords: Arc<Keywords>,
    features: Features,
    told: Told,
}

impl View {
    /// What the client believes when it begins to idle.
    ///
    /// `uidnext` is the lowest UID that a message could still get; where it is not known, one more than the
    /// highest of `uids`. `highestmodseq` is the last one whose changes the client has been told.
    pub fn new(
        uids: impl Into<Uids>,
        uidnext: u32,
        uidvalidity: Option<UidValidity>,
        highestmodseq: Option<ModSeq>,
        keywords: Keywords,
        features: Features,
    ) -> Self {
        let uids = uids.into();
        let next = uidnext.max(uids.last().map_or(1, after));
        Self {
            uids,
            floor: next,
            next,
            gone: RoaringBitmap::new(),
            status: None,
            uidvalidity,
            keywords: Arc::new(keywords),
            features,
            told: Told::since(highestmodseq),
        }
    }

    /// How many messages the client believes there are.
    pub fn len(&self) -> u32 {
        self.uids.len()
    }

    pub fn is_empty(&self) -> bool {
        self.uids.is_empty()
    }

    pub fn contains(&self, uid: Uid) -> bool {
        self.uids.contains(uid)
    }

    /// A held message's sequence number.
    pub fn seq(&self, uid: Uid) -> Option<u32> {
        self.uids.seq(uid)
    }

    pub fn uid(&self, seq: u32) -> Option<Uid> {
        self.uids.uid(seq)
    }

    /// The UIDs held. A clone costs nothing until either changes.
    pub fn uids(&self) -> &Uids {
        &self.uids
    }

    /// One more than the highest UID heard of.
    pub fn uidnext(&self) -> u32 {
        self.next
    }

    pub fn uidvalidity(&self) -> Option<UidValidity> {
        self.uidvalidity
    }

    pub fn features(&self) -> Features {
        self.features
    }

    pub fn keywords(&self) -> &Keywords {
        &self.keywords
    }

    /// Takes in a list of flags that the server told; answers what the client must be told of it.
    ///
    /// A keyword that the client has seen stays in the list: an event can have brought it before the server knew of it.
    /// System flags are the server's alone to list, and what may be changed can become less (RFC 4314 5.1.1).
    pub fn merge_keywords(&mut self, theirs: KeywordList) -> Merged {
        fn merge(theirs: &Flags, known: &Flags) -> Flags {
            let keywords = known.iter().filter(|flag| !flag.as_str().starts_with('\\'));
            theirs.iter().chain(keywords).cloned().collect()
        }
        let known = &*self.keywords;
        let mut merged = known.clone();
        let (is_theirs, tell) = match theirs {
            KeywordList::Flags(theirs) => {
                merged.flags = merge(&theirs, &known.flags);
                (merged.flags == theirs, Tell::Flags(merged.flags.clone()))
            }
            KeywordList::Permanent(theirs) => {
                let before = known.permanent.as_ref().filter(|_| theirs.any);
                let flags = before.map_or_else(|| theirs.flags.clone(), |known| merge(&theirs.flags, &known.flags));
                let permanent = PermanentFlags { flags, any: theirs.any };
                merged.permanent = Some(permanent.clone());
                (permanent == theirs, Tell::PermanentFlags(permanent))
            }
        };
        if merged == *known {
            return Merged::Known;
        }
        self.keywords = Arc::new(merged);
        if is_theirs { Merged::AsTold } else { Merged::With(tell) }
    }

    /// Whether something seems to be missing: the last count disagrees, or there is a hole and no count.
    pub fn is_doubtful(&self) -> bool {
        let is_counted = self.status.is_some_and(|status| status.messages.is_some());
        self.status.is_some_and(|status| self.disagrees(&status)) || (!is_counted && self.floor < self.next)
    }

    /// Takes an event of this mailbox in. Whatever was taken in before changes nothing again.
    ///
    /// `own`: the session's user owns the mailbox. A complete set of flags in an event is the owner's; `\Seen` and its like
    /// can be another for others, so their sessions must ask.
    pub fn apply(&mut self, event: &Event, own: bool) -> Applied {
        if let (Some(ours), Some(theirs)) = (self.uidvalidity, event.uidvalidity) {
            // It grows (RFC 9051 2.3.1.1): a lower one is of a mailbox that is no more.
            match theirs.cmp(&ours) {
                std::cmp::Ordering::Less => return Applied::default(),
                std::cmp::Ordering::Greater => {
                    return Applied { then: Then::Over(End::UidValidityChanged), ..Applied::default() };
                }
                std::cmp::Ordering::Equal => {}
            }
        }
        let (before, was_doubtful) = ((self.len(), self.next), self.is_doubtful());
        let mut applied = Applied::default();
        match &event.change {
            Change::MessageNew { messages } | Change::MessageAppend { messages } => {
                applied.tell = self.append(messages.iter().map(|message| message.uid));
            }
            Change::MessageExpunge { uids, .. } => applied.tell = self.expunge(uids),
            Change::FlagsSet { messages } | Change::FlagsClear { messages } => {
                (applied.tell, applied.ask) = self.change_flags(event.id, messages, own);
            }
            Change::MailboxRename { .. } if is_inbox_emptied(event) => {
                // Counts that come with it may be of the mailbox that holds them now.
                applied.then = Then::Reconcile(Why::Emptied);
                return applied;
            }
            Change::MailboxRename { to } => applied.then = Then::Renamed(to.clone()),
            Change::MailboxDelete => applied.then = Then::Over(End::Deleted),
            Change::MailboxChange => applied.then = Then::Reconcile(Why::NoDetail),
            Change::MailboxCreate
            | Change::MailboxSubscribe
            | Change::MailboxUnSubscribe
            | Change::AccountRename { .. }
            | Change::AclChange { .. }
            | Change::QuotaChange(_)
            | Change::QuotaExceed(_)
            | Change::QuotaWithin(_) => return applied,
        }
        self.compare(event.status, before != (self.len(), self.next), was_doubtful);
        if applied.then == Then::Nothing {
            if self.gone.len() > MAX_REMEMBERED {
                applied.then = Then::Reconcile(Why::TooMuchInDoubt);
            } else if self.is_doubtful() {
                applied.then = Then::Check;
            }
        }
        applied
    }

    /// New messages: the count alone, once for all.
    fn append(&mut self, uids: impl Iterator<Item = Uid>) -> Vec<Tell> {
        let held = self.len();
        for uid in uids {
            if uid.get() >= self.floor && !self.gone.contains(uid.get()) {
                self.uids.insert(uid);
                self.heard_of(uid);
            }
        }
        self.raise_floor(self.floor);
        if self.len() > held { vec![Tell::Exists(self.len())] } else { Vec::new() }
    }

    /// Messages that are gone. One that overtook its arrival is remembered, so that the arrival tells nothing.
    fn expunge(&mut self, uids: &[Uid]) -> Vec<Tell> {
        let (mut held, mut early) = (RoaringBitmap::new(), RoaringBitmap::new());
        for uid in uids {
            if self.contains(*uid) {
                held.insert(uid.get());
            } else {
                early.insert(uid.get());
            }
            if uid.get() >= self.floor {
                self.gone.insert(uid.get());
                self.heard_of(*uid);
            }
        }
        self.told.forget(&early);
        let tell = self.vanish(held);
        self.raise_floor(self.floor);
        tell
    }

    /// Takes held messages out: the highest number first, so that each is right when it is told.
    fn vanish(&mut self, held: RoaringBitmap) -> Vec<Tell> {
        if held.is_empty() {
            return Vec::new();
        }
        self.told.forget(&held);
        if self.features.qresync {
            self.uids.remove_all(&held);
            return vec![Tell::Vanished(held)];
        }
        let seqs = self.uids.seqs(&held);
        self.uids.remove_all(&held);
        seqs.into_iter().rev().map(Tell::Expunge).collect()
    }

    fn heard_of(&mut self, uid: Uid) {
        self.next = self.next.max(after(uid));
    }

    /// Of everything below `floor` the fate is known now; and of whatever follows it and is held or gone.
    fn raise_floor(&mut self, floor: u32) {
        self.floor = self.floor.max(floor);
        self.next = self.next.max(self.floor);
        while self.floor < self.next && (self.uids.set().contains(self.floor) || self.gone.contains(self.floor)) {
            self.floor += 1;
        }
        if !self.gone.is_empty() {
            self.gone.remove_range(..self.floor);
        }
    }

    /// Whether a held message's number is final: it lies below every hole.
    fn is_final(&self, uid: Uid) -> bool {
        // The highest UID of all has no successor that the floor could stand on.
        uid.get() <= self.floor
    }

    fn disagrees(&self, status: &Status) -> bool {
        status.messages.is_some_and(|messages| messages != self.len()) || status.uidnext.is_some_and(|next| next > self.next)
    }

    /// Takes a reported state of the mailbox in, if it is not older than what is known. `moved`: the event changed the
    /// view.
    fn compare(&mut self, reported: Option<Status>, moved: bool, was_doubtful: bool) {
        let highest = self.status.and_then(|status| status.highestmodseq);
        // What had been missing came with this event: the state known already included it.
        let explained = moved && was_doubtful && self.status.is_some() && !self.is_doubtful();
        let reported = reported.filter(|status| {
            let older = status.uidnext.is_some_and(|next| next < self.next)
                || highest.zip(status.highestmodseq).is_some_and(|(known, reported)| reported < known);
            (status.messages.is_some() || status.uidnext.is_some()) && !older && !explained
        });
        if reported.is_some() {
            self.status = reported;
        } else if moved && !was_doubtful {
            // What was right before says nothing of now; what was wrong keeps its doubt.
            self.status = None;
        }
    }
}

/// Whether the event is about a user's INBOX that was renamed: its messages have moved, and INBOX stays (RFC 9051 6.3.6).
/// Where the whole account has another name now, INBOX goes with it.
pub fn is_inbox_emptied(event: &Event) -> bool {
    let from = &event.mailbox;
    let stays = |to: &MailboxPath| (to.namespace(), to.owner()) == (from.namespace(), from.owner());
    from.name() == "INBOX" && matches!(&event.change, Change::MailboxRename { to } if stays(to))
}

/// The next higher UID; the highest of all is its own.
fn after(uid: Uid) -> u32 {
    uid.get().saturating_add(1)
}
