//! Flags: what the client is told, what it knows already, and what the server must be asked.

use std::collections::VecDeque;
use std::sync::Arc;

use roaring::RoaringBitmap;

use super::View;
use super::marks::{Mark, Marks};
use super::order::Disorder;
use super::tell::{RECENT, Tell};
use crate::mail::event::FlagChange;
use crate::mail::flags::Flags;
use crate::mail::ids::EventId;
use crate::mail::uid::{ModSeq, Uid};

/// How many events without modification sequences are recognised when they arrive again. The node
/// drops duplicates before; this is for what slips through.
const REMEMBERED_EVENTS: usize = 16;

/// Which changes of flags the client knows, and which it must still be told.
///
/// A message and its modification sequence determine its flags (RFC 7162 3.1). So a state with the
/// MODSEQ that was told last, or a lower one, is no news, in whatever order it arrives.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct FlagLog {
    /// The client knew all changes up to this MODSEQ when it began to idle.
    snapshot: u64,
    /// The newest MODSEQ of each message since then: told, or left untold because the message's
    /// number was not final. Nothing older may be told.
    newest: Marks,
    /// Changes that are known to have happened, but not how: the server is asked. Its answer has
    /// the change if its MODSEQ is not lower; 0 if the change had none.
    owed: Marks,
    /// The last events whose changes had no modification sequence.
    events: VecDeque<EventId>,
    /// States whose place in the order is unknown, if there are any.
    disorder: Option<Box<Disorder>>,
}

enum News {
    Known,
    /// Something newer was told before.
    Overtaken,
    New,
    /// Perhaps something newer was told.
    Unclear,
}

/// Who says what a message's flags are.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Source {
    Event,
    /// The server, asked or by itself: what it says is not older than what it was asked after.
    Server,
}

impl FlagLog {
    pub(super) fn since(highestmodseq: Option<ModSeq>) -> Self {
        Self { snapshot: highestmodseq.map_or(0, |modseq| modseq.0), ..Self::default() }
    }

    fn is_news(&self, uid: Uid, modseq: ModSeq) -> News {
        if modseq.0 <= self.snapshot {
            return News::Known;
        }
        match self.newest.get(uid) {
            Some(Mark::Is(told)) if modseq.0 < told => News::Overtaken,
            Some(Mark::Is(told)) if modseq.0 == told => News::Known,
            Some(Mark::AtMost(told)) if modseq.0 <= told => News::Unclear,
            _ => News::New,
        }
    }

    fn owe(&mut self, uid: Uid, modseq: Option<ModSeq>) {
        let modseq = modseq.map_or(0, |modseq| modseq.0);
        if self.owed_from(uid).is_none_or(|owed| owed < modseq) {
            self.owed.set(uid, modseq);
        }
    }

    fn owed_from(&self, uid: Uid) -> Option<u64> {
        self.owed.get(uid).map(|(Mark::Is(owed) | Mark::AtMost(owed))| owed)
    }

    /// Notes that the client is being told.
    fn note(&mut self, uid: Uid, modseq: Option<ModSeq>, source: Source) {
        match (self.owed_from(uid), modseq) {
            (Some(_), None) if source == Source::Server => self.owed.remove(uid),
            // What is owed from a change without a modification sequence only the server can
            // settle.
            (Some(0), Some(_)) if source == Source::Event => {}
            (Some(owed), Some(modseq)) if owed <= modseq.0 => self.owed.remove(uid),
            _ => {}
        }
        if source == Source::Server {
            self.note_order(uid, modseq);
        } else {
            self.note_guess(uid, modseq);
        }
        if let Some(modseq) = modseq.filter(|modseq| modseq.0 > self.snapshot) {
            self.newest.set(uid, modseq.0);
        }
    }

    /// From an answer with a modification sequence on, the order of what is told of a message is
    /// known again.
    fn note_order(&mut self, uid: Uid, modseq: Option<ModSeq>) {
        if let Some(disorder) = &mut self.disorder {
            disorder.compared(uid);
            if modseq.is_some() {
                disorder.ask.remove(uid);
            }
            if disorder.is_empty() {
                self.disorder = None;
            }
        }
        if modseq.is_none() {
            self.disorder().ask.insert(uid);
        }
    }

    /// An event's flags are told: if there was another event, and one of them has no modification
    /// sequence, that they are the newer ones is a guess.
    fn note_guess(&mut self, uid: Uid, modseq: Option<ModSeq>) {
        let was_undated = self.disorder.as_ref().is_some_and(|disorder| disorder.undated.contains(uid));
        if was_undated || (modseq.is_none() && self.newest.get(uid).is_some()) {
            self.disorder().guessed.insert(uid.get());
        }
        if modseq.is_none() {
            self.disorder().undated.insert(uid);
        }
    }

    /// Something was heard of a message whose number is not final, and was not told: nothing older
    /// may be told later, and what may be older only as a guess.
    fn leave_untold(&mut self, uid: Uid, modseq: Option<ModSeq>) {
        match modseq {
            Some(modseq) => {
                let known = self.newest.get(uid).map_or(self.snapshot, |(Mark::Is(known) | Mark::AtMost(known))| known);
                if modseq.0 > known {
                    self.newest.set(uid, modseq.0);
                }
            }
            None => self.disorder().undated.insert(uid),
        }
    }

    /// Whether an event may be older than what the server has said of the message.
    fn must_ask_about(&self, uid: Uid) -> bool {
        self.disorder.as_ref().is_some_and(|disorder| disorder.ask.contains(uid))
    }

    fn disorder(&mut self) -> &mut Disorder {
        self.disorder.get_or_insert_default()
    }

    /// The messages are gone.
    pub(super) fn forget(&mut self, gone: &RoaringBitmap) {
        if gone.is_empty() {
            return;
        }
        self.newest.forget(gone);
        self.owed.forget(gone);
        if let Some(disorder) = &mut self.disorder {
            disorder.forget(gone);
            if disorder.is_empty() {
                self.disorder = None;
            }
        }
    }

    /// Notes an event without modification sequences; whether it was noted before.
    fn note_event(&mut self, id: EventId) -> bool {
        let known = self.events.contains(&id);
        if !known {
            if self.events.len() == REMEMBERED_EVENTS {
                self.events.pop_front();
            }
            self.events.push_back(id);
        }
        known
    }
}

impl View {
    /// What an event says of flags: the tells, and the messages that must be asked for.
    ///
    /// Of a message above the floor nothing is told: it was announced a moment ago, and who
    /// announces has it fetched, flags and all. But it is remembered, so that nothing older is told
    /// once the floor has risen.
    pub(super) fn change_flags(&mut self, id: EventId, messages: &[FlagChange], own: bool) -> (Vec<Tell>, RoaringBitmap) {
        let mut ask = RoaringBitmap::new();
        let mut whole = Vec::new();
        let mut is_again = None;
        for message in messages {
            let uid = message.uid;
            // Of another's private flags this user's modification sequence may know nothing.
            let modseq = message.modseq.filter(|_| own);
            if !self.contains(uid) || !self.is_final(uid) {
                if self.may_come(uid) {
                    // It exists, and perhaps its arrival is still to come.
                    self.heard_of(uid);
                    self.flags.leave_untold(uid, modseq);
                }
                continue;
            }
            let news = match message.modseq {
                Some(modseq) => self.flags.is_news(uid, modseq),
                None => News::New,
            };
            let must_ask = !own || (modseq.is_none() && self.features.fetch_has_modseq()) || self.flags.must_ask_about(uid);
            match (news, &message.flags) {
                (News::Known, _) => {}
                (News::Overtaken, _) => drop(self.flags.disorder().overtaken.insert(uid.get())),
                (News::New, Some(flags)) if !must_ask => {
                    let is_known = modseq.is_none() && *is_again.get_or_insert_with(|| self.flags.note_event(id));
                    if !is_known {
                        whole.push((uid, without_recent(flags), modseq));
                    }
                }
                _ => {
                    self.flags.owe(uid, modseq);
                    ask.insert(uid.get());
                }
            }
        }
        (self.fetches(whole.into_iter(), Source::Event), ask)
    }

    /// Tells upstream's answers to a question about flags.
    ///
    /// An answer from before the change that was asked for, or from before what an event said
    /// meanwhile, tells nothing.
    pub fn tell_flags(&mut self, answers: &[(Uid, Flags, Option<ModSeq>)]) -> Vec<Tell> {
        let mut current = Vec::new();
        for (uid, flags, modseq) in answers {
            if self.is_outdated(*uid, *modseq) {
                continue;
            }
            if self.contains(*uid) && self.is_final(*uid) {
                current.push((*uid, self.stripped(flags), *modseq));
            } else if self.may_come(*uid) {
                self.flags.leave_untold(*uid, *modseq);
            }
        }
        self.fetches(current.into_iter(), Source::Server)
    }

    /// The messages of which it is known that their flags changed, but not yet how: upstream was
    /// not asked, or did not know of the change itself.
    pub fn unanswered(&self) -> RoaringBitmap {
        self.flags.owed.uids() & self.uids.set()
    }

    /// The messages of whose flags something came out of order: before the client's flags count as
    /// the server's, the server is to be asked for them, and its answer told with
    /// [`Self::tell_flags`].
    pub fn flags_to_compare(&self) -> RoaringBitmap {
        self.flags.disorder.as_ref().map_or_else(RoaringBitmap::new, |disorder| &disorder.guessed | &disorder.overtaken)
    }

    /// Whether the client may have been told old flags last, so that the comparison should not wait
    /// for long.
    pub fn guesses_flags(&self) -> bool {
        self.flags.disorder.as_ref().is_some_and(|disorder| !disorder.guessed.is_empty())
    }

    /// What was just told of these messages' flags may be older than what the client knew before.
    pub fn doubt_flags(&mut self, uids: impl IntoIterator<Item = Uid>) {
        let held: RoaringBitmap = uids.into_iter().filter(|uid| self.contains(*uid)).map(Uid::get).collect();
        if !held.is_empty() {
            self.flags.disorder().guessed |= held;
        }
    }

    #[cfg(test)]
    pub(super) fn disorder(&self) -> Option<&Disorder> {
        self.flags.disorder.as_deref()
    }

    /// Whether a message that is not held, or whose number is not final, may be a held one with a
    /// final number later.
    fn may_come(&self, uid: Uid) -> bool {
        uid.get() >= self.floor && !self.gone.contains(uid.get())
    }

    fn is_outdated(&self, uid: Uid, modseq: Option<ModSeq>) -> bool {
        modseq.is_some_and(|modseq| {
            let is_older_than_told = matches!(self.flags.newest.get(uid), Some(Mark::Is(told)) if modseq.0 < told);
            is_older_than_told || self.flags.owed_from(uid).is_some_and(|owed| modseq.0 < owed)
        })
    }

    fn stripped(&self, flags: &Flags) -> Flags {
        if self.features.rev2 { without_recent(flags) } else { flags.clone() }
    }

    /// FETCH for those that are held; before them, keywords that the client has not seen.
    fn fetches(&mut self, messages: impl Iterator<Item = (Uid, Flags, Option<ModSeq>)>, source: Source) -> Vec<Tell> {
        let mut fetches = Vec::new();
        let mut lists = Vec::new();
        let has_modseq = self.features.fetch_has_modseq();
        for (uid, flags, modseq) in messages {
            let Some(seq) = self.uids.seq(uid) else { continue };
            if flags.iter().any(|flag| !self.keywords.knows(flag)) {
                lists = Arc::make_mut(&mut self.keywords).learn(&flags);
            }
            self.flags.note(uid, modseq, source);
            fetches.push(Tell::Fetch { seq, uid, flags, modseq: modseq.filter(|_| has_modseq) });
        }
        // Of several lists the last has everything.
        lists.append(&mut fetches);
        lists
    }
}

fn without_recent(flags: &Flags) -> Flags {
    flags.iter().filter(|flag| flag.as_str() != RECENT).cloned().collect()
}
