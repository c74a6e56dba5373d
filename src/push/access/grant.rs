//! What is known of one subject's rights on one mailbox: read at every delivery, without a lock.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Weak};

use tokio::sync::Notify;
use tokio::task::AbortHandle;
use tokio::time::Instant;

use super::source::NoAnswer;
use crate::lock::{Mutex, MutexGuard};
use crate::mail::event::EventType;
use crate::mail::key::Key;
use crate::mail::path::MailboxPath;
use crate::mail::rights::{Rights, Subject};
use crate::push::session::SessionHandle;

/// The rights are known; the others of [`Grant::state`] are theirs.
const KNOWN: u32 = 1 << 31;
/// Something was not told because the rights were not known: which rights it takes.
const WITHHELD: [(u32, Rights); 3] =
    [(1 << 28, Rights::LOOKUP), (1 << 29, Rights::READ), (1 << 30, Rights::LOOKUP.with(Rights::ADMINISTER))];
const ANY_WITHHELD: u32 = 0b111 << 28;

/// Who may hear of a type of event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    Rights(Rights),
    /// The owner alone.
    Owner,
}

impl Need {
    /// Messages are for those who may look the mailbox up and read it, the mailbox as a whole for those who may look it up,
    /// who may do what for those who may change it (RFC 4314 4).
    pub fn of(event_type: EventType) -> Self {
        match event_type {
            EventType::MessageNew
            | EventType::MessageAppend
            | EventType::MessageExpunge
            | EventType::FlagsSet
            | EventType::FlagsClear
            | EventType::MailboxChange => Self::Rights(Rights::READ),
            EventType::MailboxRename | EventType::MailboxDelete | EventType::MailboxCreate => Self::Rights(Rights::LOOKUP),
            EventType::AclChange => Self::Rights(Rights::LOOKUP.with(Rights::ADMINISTER)),
            EventType::MailboxSubscribe
            | EventType::MailboxUnSubscribe
            | EventType::AccountRename
            | EventType::QuotaChange
            | EventType::QuotaExceed
            | EventType::QuotaWithin => Self::Owner,
        }
    }
}

/// See the module's words. Shared by all sessions of the subject on this node.
pub struct Grant {
    pub subject: Subject,
    /// A mailbox's, not the subject's own.
    key: Key,
    /// Who alone can ask: an IMAP session, on its own connection.
    asker: Option<Weak<SessionHandle>>,
    state: AtomicU32,
    inner: Mutex<Inner>,
    answered: Notify,
}

#[derive(Debug, Default)]
struct Inner {
    /// Grows whenever what is known may not be so any more.
    doubts: u64,
    /// Somebody asks.
    asking: bool,
    /// The session that is to ask does not know it yet.
    unheard: bool,
    /// When the question that gave what is known began.
    confirmed: Option<Instant>,
    /// When the last question that was not answered began, and why.
    failed: Option<(Instant, NoAnswer)>,
    failures: u32,
    /// What is known next was told of, and was not only found to be so.
    announced: bool,
    /// Asks again what may have been answered from memory.
    later: Option<AbortHandle>,
    /// A loss that nobody has told of is going to be looked at.
    review_is_due: bool,
    /// Its holders are to look at it, and have not begun to.
    noticed: bool,
}

/// A question on its way.
#[derive(Debug, Clone, Copy)]
pub(super) struct Question {
    began: Instant,
    doubts: u64,
}

/// What an answer means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Answered {
    /// Nothing that its holders would notice.
    Same,
    /// Its holders are to be looked after.
    Changed,
    /// It may be older than a doubt: to be asked again.
    Stale,
    /// To be asked again after a pause; so often it has failed in a row.
    Failed(u32),
}

impl Grant {
    pub(super) fn new(subject: Subject, mailbox: MailboxPath, asker: Option<Weak<SessionHandle>>) -> Self {
        Self {
            subject,
            key: Key::Mailbox(mailbox),
            asker,
            state: AtomicU32::new(0),
            // Nobody is told later of what was so from the start.
            inner: Mutex::new(Inner { announced: true, ..Inner::default() }),
            answered: Notify::new(),
        }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock()
    }

    pub fn key(&self) -> &Key {
        &self.key
    }

    pub(in crate::push) fn asker(&self) -> Option<&Weak<SessionHandle>> {
        self.asker.as_ref()
    }

    /// The rights, if they are known.
    pub fn rights(&self) -> Option<Rights> {
        let state = self.state.load(Ordering::Acquire);
        (state & KNOWN != 0).then(|| Rights::from_bits(state))
    }

    /// Whether the subject may be told now. Where that is not known it may not, and will hear that something is missing
    /// once it is.
    pub fn allows(&self, need: Need) -> bool {
        let Need::Rights(needed) = need else { return false };
        let mark = WITHHELD.iter().find(|(_, rights)| *rights == needed).map_or(0, |(mark, _)| *mark);
        let mut state = self.state.load(Ordering::Acquire);
        while state & KNOWN == 0 {
            match self.state.compare_exchange_weak(state, state | mark, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => return false,
                Err(other) => state = other,
            }
        }
        Rights::from_bits(state).contains(needed)
    }

    /// Whether something was withheld that these rights allow; forgets all that was.
    pub(in crate::push) fn take_withheld(&self, rights: Rights) -> bool {
        let state = self.state.fetch_and(!ANY_WITHHELD, Ordering::AcqRel);
        WITHHELD.iter().any(|(mark, needed)| state & mark != 0 && rights.contains(*needed))
    }

    /// Whether something may be missing because of it: to be taken over by what comes in its place.
    pub(in crate::push) fn is_owing(&self) -> bool {
        let state = self.state.load(Ordering::Acquire);
        state & KNOWN == 0 || state & ANY_WITHHELD != 0
    }

    /// Something may be missing.
    pub(in crate::push) fn owe(&self) {
        self.state.fetch_or(WITHHELD[1].0, Ordering::AcqRel);
    }

    /// Its holder could read by all that is known: a first answer that denies it is a loss that nobody has told of.
    pub(in crate::push) fn presume_reading(&self) {
        let mut inner = self.inner();
        if inner.doubts == 0 && self.rights().is_none() {
            inner.announced = false;
        }
    }

    /// The rights, and whether it was told of, since this was last asked, that they are others. `None` while they are not
    /// known: a word of a change belongs to what will be known then.
    pub(in crate::push) fn take_announced(&self) -> Option<(Rights, bool)> {
        let mut inner = self.inner();
        let rights = self.rights()?;
        Some((rights, std::mem::take(&mut inner.announced)))
    }

    /// Its holders are to look at it. Whether nobody has told them so yet.
    pub(super) fn notice(&self) -> bool {
        !std::mem::replace(&mut self.inner().noticed, true)
    }

    /// They begin to.
    pub(in crate::push) fn take_noticed(&self) {
        self.inner().noticed = false;
    }

    /// What is known may not be so any more: from now on nothing is told. Whether somebody is to begin to ask.
    pub(super) fn doubt(&self) -> bool {
        self.doubt_it(false)
    }

    /// The same, by a change of these rights that was told of.
    pub(super) fn doubt_announced(&self) -> bool {
        self.doubt_it(true)
    }

    fn doubt_it(&self, announced: bool) -> bool {
        let mut inner = self.inner();
        inner.announced |= announced;
        inner.doubts += 1;
        inner.confirmed = None;
        // What a session has asked already may be answered with what was.
        inner.unheard = self.asker.is_some();
        self.state.fetch_and(ANY_WITHHELD, Ordering::AcqRel);
        !std::mem::replace(&mut inner.asking, true)
    }

    /// To be asked for, although nothing speaks against what is known. Whether somebody is to begin.
    pub(super) fn wish(&self) -> bool {
        !std::mem::replace(&mut self.inner().asking, true)
    }

    pub(super) fn begin(&self) -> Question {
        Question { began: Instant::now(), doubts: self.inner().doubts }
    }

    /// Takes an answer in; asking goes on where the outcome says so, and has ended otherwise.
    pub(super) fn answer(&self, question: Question, answer: Result<Rights, NoAnswer>) -> Answered {
        self.take(question, answer, false)
    }

    /// The same, of what whoever holds it has learned by itself: that is a word of it.
    pub(super) fn answer_announced(&self, question: Question, answer: Result<Rights, NoAnswer>) -> Answered {
        self.take(question, answer, true)
    }

    fn take(&self, question: Question, answer: Result<Rights, NoAnswer>, announced: bool) -> Answered {
        let mut inner = self.inner();
        inner.announced |= announced;
        let outcome = match answer {
            _ if inner.doubts != question.doubts => Answered::Stale,
            Ok(rights) => {
                (inner.confirmed, inner.failed, inner.failures) = (Some(question.began), None, 0);
                let before = self.state.fetch_update(Ordering::AcqRel, Ordering::Acquire, |state| {
                    Some(state & ANY_WITHHELD | KNOWN | rights.bits())
                });
                // The closure always gives a state.
                let (Ok(before) | Err(before)) = before;
                if before == (KNOWN | rights.bits()) { Answered::Same } else { Answered::Changed }
            }
            Err(NoAnswer::Undecidable) => {
                // Not to be asked again by itself: those who hold it are to do without.
                inner.failed = Some((question.began, NoAnswer::Undecidable));
                (inner.confirmed, inner.failures) = (None, 0);
                self.state.fetch_and(ANY_WITHHELD, Ordering::AcqRel);
                Answered::Changed
            }
            Err(error) => {
                inner.failed = Some((question.began, error));
                inner.failures += 1;
                Answered::Failed(inner.failures)
            }
        };
        inner.asking = match outcome {
            Answered::Stale => true,
            // What is known serves until it is too old.
            Answered::Failed(_) => self.state.load(Ordering::Acquire) & KNOWN == 0,
            Answered::Same | Answered::Changed => false,
        };
        drop(inner);
        self.answered.notify_waiters();
        outcome
    }

    /// The source has said that it cannot know.
    pub(in crate::push) fn is_undecidable(&self) -> bool {
        matches!(self.inner().failed, Some((_, NoAnswer::Undecidable)))
    }

    /// Asking has come to an end without an answer.
    pub(super) fn stop_asking(&self) {
        self.inner().asking = false;
        self.answered.notify_waiters();
    }

    /// In place of whoever else asks again later.
    pub(super) fn ask_later(&self, task: AbortHandle) {
        if let Some(before) = self.inner().later.replace(task) {
            before.abort();
        }
    }

    /// A loss is to be looked at in a while. Whether nobody is going to yet.
    pub(in crate::push) fn await_review(&self) -> bool {
        !std::mem::replace(&mut self.inner().review_is_due, true)
    }

    pub(in crate::push) fn begin_review(&self) {
        self.inner().review_is_due = false;
    }

    /// The session is to ask; until it knows, what it learns may be older than the doubt.
    pub(in crate::push) fn set_unheard(&self, unheard: bool) {
        self.inner().unheard = unheard;
    }

    pub(in crate::push) fn is_unheard(&self) -> bool {
        self.inner().unheard
    }

    /// Whether somebody goes on asking.
    pub(super) fn is_asking(&self) -> bool {
        self.inner().asking
    }

    /// When the question began that gave what is known.
    pub(super) fn confirmed(&self) -> Option<Instant> {
        self.inner().confirmed
    }

    /// What is known is too old to be trusted. Whether it was known.
    pub(super) fn expire(&self) -> bool {
        let mut inner = self.inner();
        inner.confirmed = None;
        self.state.fetch_and(ANY_WITHHELD, Ordering::AcqRel) & KNOWN != 0
    }

    /// What a question that began at `since` or later brought; `None` while there is none.
    fn outcome(&self, since: Instant) -> Option<Result<Rights, NoAnswer>> {
        let inner = self.inner();
        if inner.confirmed.is_some_and(|began| began >= since) {
            return self.rights().map(Ok);
        }
        inner.failed.as_ref().filter(|(began, _)| *began >= since).map(|(_, error)| Err(error.clone()))
    }

    /// Waits for [`Self::outcome`]. `begin` is called whenever nobody asks.
    pub(super) async fn wait(self: &Arc<Self>, since: Instant, begin: impl Fn()) -> Result<Rights, NoAnswer> {
        loop {
            let answered = self.answered.notified();
            tokio::pin!(answered);
            answered.as_mut().enable();
            if let Some(outcome) = self.outcome(since) {
                return outcome;
            }
            if self.wish() {
                begin();
            }
            answered.await;
        }
    }
}

impl std::fmt::Debug for Grant {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Grant").field("key", &self.key).field("rights", &self.rights()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mail::user::UserName;

    fn grant() -> Grant {
        Grant::new(Subject::alone(UserName::new("bob").unwrap()), "#private:alice:Team".parse().unwrap(), None)
    }

    const READ: Need = Need::Rights(Rights::READ);

    #[test]
    fn what_is_not_known_is_withheld_and_remembered() {
        let grant = grant();
        assert!(!grant.allows(READ));
        assert!(grant.wish() && !grant.wish(), "one asks");
        assert_eq!(grant.answer(grant.begin(), Ok(Rights::READ)), Answered::Changed);
        assert!(grant.allows(READ) && !grant.allows(Need::Owner));
        assert!(grant.take_withheld(Rights::READ) && !grant.take_withheld(Rights::READ));
        assert_eq!(grant.answer(grant.begin(), Ok(Rights::READ)), Answered::Same);
        assert!(!grant.is_asking());
    }

    #[test]
    fn who_may_only_look_up_does_not_learn_that_a_message_was_withheld() {
        let grant = grant();
        assert!(!grant.allows(READ) && grant.is_owing());
        grant.answer(grant.begin(), Ok(Rights::LOOKUP));
        assert!(!grant.take_withheld(Rights::LOOKUP) && !grant.is_owing());
    }

    #[test]
    fn an_answer_older_than_a_doubt_says_nothing() {
        let grant = grant();
        let question = grant.begin();
        assert!(grant.doubt());
        assert_eq!(grant.answer(question, Ok(Rights::ALL)), Answered::Stale);
        assert!(!grant.allows(READ) && grant.is_asking());
        assert_eq!(grant.answer(grant.begin(), Ok(Rights::NONE)), Answered::Changed);
        assert_eq!(grant.rights(), Some(Rights::NONE));
    }

    #[test]
    fn what_cannot_be_decided_is_not_asked_again_by_itself() {
        let grant = grant();
        grant.answer(grant.begin(), Ok(Rights::READ));
        assert!(grant.doubt());
        assert_eq!(grant.answer(grant.begin(), Err(NoAnswer::Undecidable)), Answered::Changed);
        assert!(grant.is_undecidable() && !grant.is_asking() && !grant.allows(READ) && grant.is_owing());
        grant.answer(grant.begin(), Ok(Rights::READ));
        assert!(!grant.is_undecidable() && grant.allows(READ));
        // Nor does what was known serve any longer.
        grant.answer(grant.begin(), Err(NoAnswer::Undecidable));
        assert_eq!(grant.rights(), None);
    }

    #[test]
    fn a_word_of_a_change_belongs_to_what_is_known_after_it() {
        let grant = grant();
        grant.answer(grant.begin(), Ok(Rights::READ));
        assert_eq!(grant.take_announced(), Some((Rights::READ, true)), "nobody is told later of what was so from the start");
        grant.doubt_announced();
        assert_eq!(grant.take_announced(), None, "whoever looks now leaves it for whoever looks then");
        grant.answer(grant.begin(), Ok(Rights::NONE));
        assert_eq!(grant.take_announced(), Some((Rights::NONE, true)));
        assert_eq!(grant.take_announced(), Some((Rights::NONE, false)));
    }

    #[test]
    fn what_is_known_serves_while_the_source_is_away_and_no_longer_than_it_may() {
        let grant = grant();
        grant.answer(grant.begin(), Ok(Rights::READ));
        let away = || Err(NoAnswer::Failed("away".into()));
        assert_eq!(grant.answer(grant.begin(), away()), Answered::Failed(1));
        assert!(grant.allows(READ) && !grant.is_asking());
        assert!(grant.expire() && !grant.allows(READ));
        assert_eq!(grant.answer(grant.begin(), away()), Answered::Failed(2));
        assert!(grant.is_asking(), "until it answers");
    }
}
