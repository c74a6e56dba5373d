//! One subject's rights on one mailbox, shared by all sessions of the subject on this node.
//!
//! The [`State`] decides; a word beside it mirrors the rights, so that the hub reads them at every
//! delivery without a lock. Into the same word the hub notes what it withholds while they are not
//! known.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Weak};

use tokio::sync::Notify;
use tokio::task::AbortHandle;
use tokio::time::{Duration, Instant};

use super::source::NoAnswer;
use super::state::{Age, Asker, Cause, Effect, Knowledge, Question, State};
use crate::lock::Mutex;
use crate::mail::event::EventType;
use crate::mail::key::Key;
use crate::mail::path::MailboxPath;
use crate::mail::rights::{Rights, Subject};
use crate::push::handle::SessionHandle;
use crate::push::once::Once;

/// In the word: the rights are known, and stand in the low bits.
const KNOWN: u32 = 1 << 31;
/// In the word: something was withheld that takes these rights.
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
    /// Messages are for those who may look the mailbox up and read it, the mailbox as a whole for
    /// those who may look it up, who may do what for those who may change it (RFC 4314 4).
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

/// The rights of one subject on one mailbox that is not theirs.
pub struct Grant {
    pub subject: Subject,
    /// A mailbox's, not the subject's own.
    key: Key,
    /// The IMAP session that alone can ask, on its user's own connection. `None`: a source can be
    /// asked.
    session: Option<Weak<SessionHandle>>,
    state: Mutex<State>,
    /// [`State::rights`], and what was withheld.
    word: AtomicU32,
    answered: Notify,
    /// A notice to look at this grant is in the queue.
    pub(in crate::push) notice: Once,
    /// A second look is scheduled, at a loss that nobody has announced yet.
    pub(in crate::push) second_look: Once,
    /// The task that has the session ask again later.
    later: Mutex<Option<AbortHandle>>,
}

impl Grant {
    pub(super) fn new(subject: Subject, mailbox: MailboxPath, session: Option<Weak<SessionHandle>>) -> Self {
        let asker = if session.is_some() { Asker::Session } else { Asker::Source };
        Self {
            subject,
            key: Key::Mailbox(mailbox),
            session,
            state: Mutex::new(State::new(asker)),
            word: AtomicU32::new(0),
            answered: Notify::new(),
            notice: Once::default(),
            second_look: Once::default(),
            later: Mutex::default(),
        }
    }

    pub fn key(&self) -> &Key {
        &self.key
    }

    /// The session that alone can ask.
    pub(in crate::push) fn session(&self) -> Option<&Weak<SessionHandle>> {
        self.session.as_ref()
    }

    /// The rights, if they are known.
    pub fn rights(&self) -> Option<Rights> {
        let word = self.word.load(Ordering::Acquire);
        (word & KNOWN != 0).then(|| Rights::from_bits(word))
    }

    /// Whether the subject may be told now. Where that is not known it may not, and will hear that
    /// something is missing once it is.
    pub fn allows(&self, need: Need) -> bool {
        let Need::Rights(needed) = need else { return false };
        let mark = WITHHELD.iter().find(|(_, rights)| *rights == needed).map_or(0, |(mark, _)| *mark);
        let mut word = self.word.load(Ordering::Acquire);
        while word & KNOWN == 0 {
            match self.word.compare_exchange_weak(word, word | mark, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => return false,
                Err(other) => word = other,
            }
        }
        Rights::from_bits(word).contains(needed)
    }

    /// Whether something was withheld that these rights allow; forgets all that was.
    pub(in crate::push) fn take_withheld(&self, rights: Rights) -> bool {
        let word = self.word.fetch_and(!ANY_WITHHELD, Ordering::AcqRel);
        WITHHELD.iter().any(|(mark, needed)| word & mark != 0 && rights.contains(*needed))
    }

    /// Whether its subject may have missed something: the grant that comes in its place has to make
    /// that good.
    pub(in crate::push) fn may_have_withheld(&self) -> bool {
        let word = self.word.load(Ordering::Acquire);
        word & KNOWN == 0 || word & ANY_WITHHELD != 0
    }

    /// A message may have been withheld.
    pub(in crate::push) fn note_withheld(&self) {
        self.word.fetch_or(WITHHELD[1].0, Ordering::AcqRel);
    }

    /// Changes the state, and mirrors it.
    fn change<T>(&self, act: impl FnOnce(&mut State) -> T) -> T {
        let mut state = self.state.lock();
        let result = act(&mut state);
        // Under the lock, so that the mirror does not fall behind.
        self.mirror(&state);
        result
    }

    /// The word as it was before.
    fn mirror(&self, state: &State) -> u32 {
        let bits = state.rights().map_or(0, |rights| KNOWN | rights.bits());
        let before = self.word.fetch_update(Ordering::AcqRel, Ordering::Acquire, |word| Some(word & ANY_WITHHELD | bits));
        // The closure always gives a word.
        let (Ok(before) | Err(before)) = before;
        before
    }

    /// What is known may not be so any more: from now on nothing is told. Whether the caller is to
    /// begin to ask.
    pub(super) fn doubt(&self, cause: Cause) -> bool {
        self.change(|state| state.doubt(cause))
    }

    /// See [`State::lose`].
    pub(super) fn lose(&self) {
        self.change(|state| state.lose(Instant::now()));
        self.answered.notify_waiters();
    }

    /// Whether the caller is to begin to ask.
    pub(super) fn want(&self) -> bool {
        self.change(State::want)
    }

    pub(super) fn question(&self) -> Question {
        self.state.lock().question(Instant::now())
    }

    /// Takes in what the source answers.
    pub(super) fn answer(&self, question: Question, answer: Result<Rights, NoAnswer>) -> Effect {
        self.take_in(|state| state.answer(question, answer))
    }

    /// Takes in what the session reports of its user's rights.
    pub(super) fn report(&self, rights: Rights) -> Effect {
        self.take_in(|state| state.report(Instant::now(), rights))
    }

    fn take_in(&self, act: impl FnOnce(&mut State) -> Effect) -> Effect {
        let answered = {
            let mut state = self.state.lock();
            let answered = act(&mut state);
            let has_withheld = self.mirror(&state) & ANY_WITHHELD != 0;
            // What was withheld is made good.
            if answered == Effect::Same && has_withheld { Effect::Changed } else { answered }
        };
        self.answered.notify_waiters();
        answered
    }

    /// The session knows that it is to ask.
    pub(in crate::push) fn session_is_aware(&self) {
        self.change(State::session_is_aware);
    }

    /// Asking has ended without an answer.
    pub(super) fn give_up(&self) {
        self.change(State::give_up);
        self.answered.notify_waiters();
    }

    pub(super) fn is_asking(&self) -> bool {
        self.state.lock().is_asking()
    }

    pub(super) fn age(&self, now: Instant, recheck: Duration, longest: Duration) -> Age {
        self.change(|state| state.age(now, recheck, longest))
    }

    /// The source has said that it cannot know.
    pub(in crate::push) fn is_undecidable(&self) -> bool {
        matches!(self.state.lock().knowledge(), Knowledge::Undecidable { .. })
    }

    /// See [`State::presume_reading`].
    pub(in crate::push) fn presume_reading(&self) {
        self.change(State::presume_reading);
    }

    /// See [`State::take_cause`].
    pub(in crate::push) fn take_cause(&self) -> Option<(Rights, Cause)> {
        self.change(State::take_cause)
    }

    /// In place of the task before, which is ended.
    pub(super) fn ask_again_by(&self, task: AbortHandle) {
        let before = self.later.lock().replace(task);
        if let Some(before) = before {
            before.abort();
        }
    }

    /// What a question that began at `since` or later brings. `begin` is called whenever nobody
    /// asks.
    pub(super) async fn wait(self: &Arc<Self>, since: Instant, begin: impl Fn()) -> Result<Rights, NoAnswer> {
        loop {
            let answered = self.answered.notified();
            tokio::pin!(answered);
            answered.as_mut().enable();
            let outcome = self.state.lock().outcome(since);
            if let Some(outcome) = outcome {
                return outcome;
            }
            if self.want() {
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
        assert!(grant.want() && !grant.want(), "one asks");
        assert_eq!(grant.answer(grant.question(), Ok(Rights::READ)), Effect::Changed);
        assert!(grant.allows(READ) && !grant.allows(Need::Owner));
        assert!(grant.take_withheld(Rights::READ) && !grant.take_withheld(Rights::READ));
        assert_eq!(grant.answer(grant.question(), Ok(Rights::READ)), Effect::Same);
        assert!(!grant.is_asking());
    }

    #[test]
    fn who_may_only_look_up_does_not_learn_that_a_message_was_withheld() {
        let grant = grant();
        assert!(!grant.allows(READ) && grant.may_have_withheld());
        grant.answer(grant.question(), Ok(Rights::LOOKUP));
        assert!(!grant.take_withheld(Rights::LOOKUP) && !grant.may_have_withheld());
    }

    #[test]
    fn what_was_withheld_is_made_good_though_the_rights_are_the_same() {
        let grant = grant();
        grant.answer(grant.question(), Ok(Rights::READ));
        grant.note_withheld();
        assert_eq!(grant.answer(grant.question(), Ok(Rights::READ)), Effect::Changed);
    }

    #[test]
    fn an_answer_older_than_a_doubt_says_nothing() {
        let grant = grant();
        let question = grant.question();
        assert!(grant.doubt(Cause::Found));
        assert_eq!(grant.answer(question, Ok(Rights::ALL)), Effect::Stale);
        assert!(!grant.allows(READ) && grant.is_asking());
        assert_eq!(grant.answer(grant.question(), Ok(Rights::NONE)), Effect::Changed);
        assert_eq!(grant.rights(), Some(Rights::NONE));
    }

    #[test]
    fn what_cannot_be_decided_is_not_asked_again_by_itself() {
        let grant = grant();
        grant.answer(grant.question(), Ok(Rights::READ));
        assert!(grant.doubt(Cause::Found));
        assert_eq!(grant.answer(grant.question(), Err(NoAnswer::Undecidable)), Effect::Changed);
        assert!(grant.is_undecidable() && !grant.is_asking() && !grant.allows(READ) && grant.may_have_withheld());
        grant.answer(grant.question(), Ok(Rights::READ));
        assert!(!grant.is_undecidable() && grant.allows(READ));
        // Nor does what was known serve any longer.
        grant.answer(grant.question(), Err(NoAnswer::Undecidable));
        assert_eq!(grant.rights(), None);
    }

    #[test]
    fn an_announced_change_belongs_to_what_is_known_after_it() {
        let grant = grant();
        grant.answer(grant.question(), Ok(Rights::READ));
        assert_eq!(grant.take_cause(), Some((Rights::READ, Cause::Announced)), "what was so from the start");
        grant.doubt(Cause::Announced);
        assert_eq!(grant.take_cause(), None, "whoever looks now leaves it to whoever looks then");
        grant.answer(grant.question(), Ok(Rights::NONE));
        assert_eq!(grant.take_cause(), Some((Rights::NONE, Cause::Announced)));
        assert_eq!(grant.take_cause(), Some((Rights::NONE, Cause::Found)));
    }

    #[test]
    fn what_is_known_serves_while_the_source_is_away_and_no_longer_than_it_may() {
        let grant = grant();
        grant.answer(grant.question(), Ok(Rights::READ));
        let away = || Err(NoAnswer::Failed("away".into()));
        assert_eq!(grant.answer(grant.question(), away()), Effect::Failed(1));
        assert!(grant.allows(READ) && !grant.is_asking());
        let longest = Duration::from_secs(1);
        assert_eq!(grant.age(Instant::now() + longest, longest, longest), Age::Expired);
        assert!(!grant.allows(READ));
        assert_eq!(grant.answer(grant.question(), away()), Effect::Failed(2));
        assert!(grant.is_asking(), "until it answers");
    }
}
