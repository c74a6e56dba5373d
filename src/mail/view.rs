//! The view: the messages that an idling IMAP client believes the selected mailbox holds.
//!
//! A pure value. Events and the server's answers go in, untagged responses come out. After each of
//! them the client's sequence numbers mean the same messages as the view's.
//!
//! # The floor
//!
//! Events of several origins arrive interleaved, twice, late or not at all, and IMAP cannot insert
//! a message in the middle. So the view has a *floor*: it knows of every UID below the floor
//! whether the message exists, and the sequence numbers up to there are final. A message with a
//! higher UID is announced at once, because `EXISTS` is only a count: the client does not learn
//! which message has which of the new numbers. If another message with a lower UID arrives late,
//! the count grows by one more. Above the floor the view tells nothing that ties a number to a
//! message. A hole is closed by its message, or by the server's list of UIDs.
//!
//! # Order
//!
//! Events overtake each other and the server's answers. The view never takes the last state that
//! arrived for the newest:
//!
//! | what | how the order is found |
//! |---|---|
//! | new, expunged | a UID is used once (RFC 9051 2.3.1.1): what is gone does not come back |
//! | flags | by MODSEQ for each message; without one, by asking or comparing (`order.rs`) |
//! | lists of flags | a keyword that the client has seen stays in the list |
//! | counts | by UIDNEXT and HIGHESTMODSEQ; a wrong doubt costs a question, and changes no number |
//! | the mailbox itself | by UIDVALIDITY, which grows |

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

use self::flags::FlagLog;
pub use self::tell::{Applied, End, Features, KeywordList, KeywordNews, Keywords, PermanentFlags, Reconciled, Tell, Then, Why};
pub use self::uids::Uids;
use super::event::{Change, Event, Status};
use super::flags::Flags;
use super::path::MailboxPath;
use super::uid::{ModSeq, Uid, UidValidity};

/// How many expunged messages above the floor are remembered, so that a late event does not bring
/// them back. With more of them the view asks to be reconciled, which raises the floor.
const MAX_REMEMBERED: u64 = 4096;

/// What an idling IMAP client believes the selected mailbox to hold.
///
/// [`Self::apply`] takes in an event, [`Self::reconcile`] the server's list of UIDs, and
/// [`Self::tell_flags`] flags that the server told. Each returns the untagged responses to send to
/// the client: all of them, in this order. The view then stands for what the client knows after
/// them.
#[derive(Debug, Clone, PartialEq)]
pub struct View {
    /// The messages that the client knows of; their ranks are the sequence numbers.
    uids: Uids,
    /// The lowest UID of which it is unknown whether the message exists.
    floor: u32,
    /// One more than the highest UID heard of.
    next: u32,
    /// UIDs not below the floor whose messages are expunged, announced before or not.
    gone: RoaringBitmap,
    /// The newest state of the mailbox that an event reported. `None`: none was, or the view has
    /// changed since.
    status: Option<Status>,
    uidvalidity: Option<UidValidity>,
    /// The lists of flags as the client was told them.
    keywords: Arc<Keywords>,
    features: Features,
    flags: FlagLog,
}

impl View {
    /// What the client believes when it begins to idle.
    ///
    /// `uidnext` is the lowest UID that a message could still get; where it is not known, one more
    /// than the highest of `uids`. `highestmodseq` is the last one whose changes the client has
    /// been told.
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
            flags: FlagLog::since(highestmodseq),
        }
    }

    /// How many messages the client believes there are.
    pub fn len(&self) -> u32 {
        self.uids.len()
    }

    /// Whether the client believes that there are none.
    #[allow(dead_code, reason = "it goes with `len`")]
    pub fn is_empty(&self) -> bool {
        self.uids.is_empty()
    }

    /// Whether the client was told of this message, by whatever number.
    pub fn contains(&self, uid: Uid) -> bool {
        self.uids.contains(uid)
    }

    /// The sequence number of a message (RFC 9051 2.3.1.2); `None` if it is not held.
    #[cfg(test)]
    pub fn seq(&self, uid: Uid) -> Option<u32> {
        self.uids.seq(uid)
    }

    /// The UID of the message with this sequence number.
    #[cfg(test)]
    pub fn uid(&self, seq: u32) -> Option<Uid> {
        self.uids.uid(seq)
    }

    /// The UIDs held. A clone costs nothing until either changes.
    #[cfg(test)]
    pub fn uids(&self) -> &Uids {
        &self.uids
    }

    /// One more than the highest UID heard of.
    #[cfg(test)]
    pub fn uidnext(&self) -> u32 {
        self.next
    }

    /// The UIDVALIDITY with which the client selected the mailbox.
    #[cfg(test)]
    pub fn uidvalidity(&self) -> Option<UidValidity> {
        self.uidvalidity
    }

    /// What the client has enabled.
    #[cfg(test)]
    pub fn features(&self) -> Features {
        self.features
    }

    /// The lists of flags as the client was told them.
    pub fn keywords(&self) -> &Keywords {
        &self.keywords
    }

    /// Takes in a list of flags that the server told; answers what the client must be told of it.
    ///
    /// A keyword that the client has seen stays in the list: an event can have brought it before
    /// the server knew of it. System flags are the server's alone to list, and what may be changed
    /// can become less (RFC 4314 5.1.1).
    pub fn merge_keywords(&mut self, theirs: KeywordList) -> KeywordNews {
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
            return KeywordNews::Nothing;
        }
        self.keywords = Arc::new(merged);
        if is_theirs { KeywordNews::ServerLine } else { KeywordNews::List(tell) }
    }

    /// Whether an event seems to be missing: the newest reported count disagrees with the view, or
    /// there is a hole and no count that would prove it.
    pub fn is_doubtful(&self) -> bool {
        let is_counted = self.status.is_some_and(|status| status.messages.is_some());
        self.status.is_some_and(|status| self.disagrees(&status)) || (!is_counted && self.floor < self.next)
    }

    /// Takes in an event of this mailbox. The same event a second time changes nothing.
    ///
    /// `own`: the session's user owns the mailbox, and no event was missed. A complete set of flags
    /// in an event is the owner's; other users can have a `\Seen` of their own, so their sessions
    /// ask the server.
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

    /// New messages: one EXISTS for all of them.
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

    /// Expunged messages. One that was not announced yet is remembered, so that a late event does
    /// not announce it.
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
        self.flags.forget(&early);
        let tell = self.vanish(held);
        self.raise_floor(self.floor);
        tell
    }

    /// Removes held messages. EXPUNGE goes from the highest number down, so that none shifts
    /// another.
    fn vanish(&mut self, held: RoaringBitmap) -> Vec<Tell> {
        if held.is_empty() {
            return Vec::new();
        }
        self.flags.forget(&held);
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

    /// Raises the floor to `floor`, and on over what is known to exist or to be expunged.
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

    /// Whether a held message's sequence number is final: there is no hole below it.
    fn is_final(&self, uid: Uid) -> bool {
        // The highest UID of all has no successor that the floor could stand on.
        uid.get() <= self.floor
    }

    fn disagrees(&self, status: &Status) -> bool {
        status.messages.is_some_and(|messages| messages != self.len()) || status.uidnext.is_some_and(|next| next > self.next)
    }

    /// Takes in a reported state of the mailbox unless it is older than what is known. `moved`: the
    /// event changed the view.
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

/// Whether the event is about a user's INBOX that was renamed: its messages have moved, and INBOX
/// stays (RFC 9051 6.3.6). Where the whole account has another name now, INBOX goes with it.
pub fn is_inbox_emptied(event: &Event) -> bool {
    let from = &event.mailbox;
    let stays = |to: &MailboxPath| (to.namespace(), to.owner()) == (from.namespace(), from.owner());
    from.name() == "INBOX" && matches!(&event.change, Change::MailboxRename { to } if stays(to))
}

/// The next higher UID; the highest of all is its own.
fn after(uid: Uid) -> u32 {
    uid.get().saturating_add(1)
}
