//! Flags: what is told, what is known already, and what must be asked.

use std::collections::VecDeque;
use std::sync::Arc;

use roaring::RoaringBitmap;

use super::View;
use super::marks::{Mark, Marks};
use super::tell::{RECENT, Tell};
use crate::mail::event::FlagChange;
use crate::mail::flags::Flags;
use crate::mail::ids::EventId;
use crate::mail::uid::{ModSeq, Uid};

/// So many events without modification sequences are recognised when they come again. The node drops duplicates
/// before; this is for what slips through.
const REMEMBERED_EVENTS: usize = 16;

/// Which changes of flags the client knows, and which it is owed.
///
/// A message and its modification sequence determine its flags (RFC 7162 3.1): what is not above the one told last is no
/// news, in whatever order it comes.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Told {
    /// Changes up to here are in the snapshot.
    snapshot: u64,
    /// What was told since.
    told: Marks,
    /// What was asked for, and from which modification sequence on an answer has the change.
    owed: Marks,
    /// Events whose changes had no modification sequence.
    events: VecDeque<EventId>,
}

enum News {
    Known,
    New,
    /// Perhaps something newer was told.
    Unclear,
}

impl Told {
    pub(super) fn since(highestmodseq: Option<ModSeq>) -> Self {
        Self { snapshot: highestmodseq.map_or(0, |modseq| modseq.0), ..Self::default() }
    }

    fn is_news(&self, uid: Uid, modseq: ModSeq) -> News {
        if modseq.0 <= self.snapshot {
            return News::Known;
        }
        match self.told.get(uid) {
            Some(Mark::Is(told)) if modseq.0 <= told => News::Known,
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

    /// The client is being told.
    fn note(&mut self, uid: Uid, modseq: Option<ModSeq>) {
        if modseq.is_none_or(|modseq| self.owed_from(uid).is_none_or(|owed| owed <= modseq.0)) {
            self.owed.remove(uid);
        }
        if let Some(modseq) = modseq.filter(|modseq| modseq.0 > self.snapshot) {
            self.told.set(uid, modseq.0);
        }
    }

    /// Whether the event was noted before.
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
    /// Of a message above the floor nothing is told: it was announced a moment ago, and who announces has it fetched,
    /// flags and all.
    pub(super) fn change_flags(&mut self, id: EventId, messages: &[FlagChange], own: bool) -> (Vec<Tell>, RoaringBitmap) {
        let mut ask = RoaringBitmap::new();
        let mut whole = Vec::new();
        let mut is_again = None;
        for message in messages {
            let uid = message.uid;
            if !self.contains(uid) {
                if uid.get() >= self.floor && !self.gone.contains(uid.get()) {
                    // It exists, and its arrival is still to come.
                    self.heard_of(uid);
                }
                continue;
            }
            if !self.is_final(uid) {
                continue;
            }
            let news = match message.modseq {
                Some(modseq) => self.told.is_news(uid, modseq),
                None => News::New,
            };
            let must_ask = !own || (message.modseq.is_none() && self.features.fetch_has_modseq());
            match (news, &message.flags) {
                (News::Known, _) => {}
                (News::New, Some(flags)) if !must_ask => {
                    let is_known = message.modseq.is_none() && *is_again.get_or_insert_with(|| self.told.note_event(id));
                    if !is_known {
                        whole.push((uid, without_recent(flags), message.modseq));
                    }
                }
                _ => {
                    // Of another's private flags this user's modification sequence may know nothing.
                    self.told.owe(uid, message.modseq.filter(|_| own));
                    ask.insert(uid.get());
                }
            }
        }
        (self.fetches(whole.into_iter()), ask)
    }

    /// Tells upstream's answers to a question about flags.
    ///
    /// An answer from before the change that was asked for, or from before what an event said meanwhile, tells nothing.
    pub fn tell_flags(&mut self, answers: &[(Uid, Flags, Option<ModSeq>)]) -> Vec<Tell> {
        let known = answers.iter().filter(|(uid, _, modseq)| self.is_current(*uid, *modseq));
        let known: Vec<_> = known.map(|(uid, flags, modseq)| (*uid, self.stripped(flags), *modseq)).collect();
        self.fetches(known.into_iter())
    }

    /// The messages of which it is known that their flags changed, but not yet how: upstream was not asked, or did not know
    /// of the change itself.
    pub fn unanswered(&self) -> RoaringBitmap {
        self.told.owed.uids() & self.uids.set()
    }

    /// Whether upstream's word about a message can be told: its number is final, and the word is not outdated.
    fn is_current(&self, uid: Uid, modseq: Option<ModSeq>) -> bool {
        let is_outdated = modseq.is_some_and(|modseq| {
            let is_older_than_told = matches!(self.told.told.get(uid), Some(Mark::Is(told)) if modseq.0 < told);
            is_older_than_told || self.told.owed_from(uid).is_some_and(|owed| modseq.0 < owed)
        });
        self.is_final(uid) && !is_outdated
    }

    fn stripped(&self, flags: &Flags) -> Flags {
        if self.features.rev2 { without_recent(flags) } else { flags.clone() }
    }

    /// FETCH for those that are held; before them, keywords that the client has not seen.
    fn fetches(&mut self, messages: impl Iterator<Item = (Uid, Flags, Option<ModSeq>)>) -> Vec<Tell> {
        let mut fetches = Vec::new();
        let mut lists = Vec::new();
        let has_modseq = self.features.fetch_has_modseq();
        for (uid, flags, modseq) in messages {
            let Some(seq) = self.uids.seq(uid) else { continue };
            if flags.iter().any(|flag| !self.keywords.knows(flag)) {
                lists = Arc::make_mut(&mut self.keywords).learn(&flags);
            }
            self.told.note(uid, modseq);
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
