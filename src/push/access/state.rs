//! What is known of one subject's rights on one mailbox: a pure machine. It takes no lock and reads
//! no clock.
//!
//! ```text
//!   Unknown ──────────── answer: rights ───────────▶ Known          (no answer: it serves until it is too old)
//!      ▲ │ ◀──────────── doubt · too old ───────────── │ ▲
//!      │ │                                             │ │
//!      │ └─ answer: depends on groups ─▶ Undecidable ◀─┘ │ answer: rights
//!      └────── doubt · no answer ─────────── │  └────────┘
//! ```
//!
//! A doubt makes answers to older questions worth nothing.
//!
//! Beside it stands who is being asked ([`Asking`]), and how the last change came to be known
//! ([`Cause`]).

use tokio::time::{Duration, Instant};

use super::source::NoAnswer;
use crate::mail::rights::Rights;

/// What is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Knowledge {
    /// Nothing: nobody has answered yet, or what was known may be wrong by now. Nothing is told to
    /// the subject.
    Unknown,
    /// `asked_at`: when the question began whose answer this is.
    Known { rights: Rights, asked_at: Instant },
    /// The source has said that it cannot know: the answer depends on groups, and nobody has said
    /// which ones the user is in.
    Undecidable { asked_at: Instant },
}

/// Who can be asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Asker {
    /// A source that serves the whole node, asked by a task.
    Source,
    /// One IMAP session alone, on its user's own connection.
    Session,
}

/// What is being asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Asking {
    Nobody,
    /// A task asks the source, or the session knows that it is to ask.
    UnderWay,
    /// The session has been told to ask, and has not taken that out of its outbox: what it reports
    /// now may be older than the doubt.
    SessionUnaware,
}

/// How a change of rights came to be known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::push) enum Cause {
    /// An `AclChange` said so, or the session that asks for itself; or it was so from the start.
    Announced,
    /// An answer showed it, and nobody has announced it.
    Found,
}

/// A question that is under way.
#[derive(Debug, Clone, Copy)]
pub(super) struct Question {
    asked_at: Instant,
    doubts: u64,
}

/// What an answer changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Effect {
    /// Nothing.
    Same,
    /// The rights are others, or known, or not to be known: whoever holds the grant looks at it.
    Changed,
    /// It may be older than a doubt, and says nothing: ask again.
    Stale,
    /// The source did not answer: ask again after a pause. It has failed this often in a row.
    Failed(u32),
}

/// How old what is known is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Age {
    Fresh,
    /// It is to be asked for again; when the question began that brought what is known.
    Due(Instant),
    /// It was known, and nobody has confirmed it for too long: it is not known any more.
    Expired,
    Unknown,
}

/// The last question that the source did not answer.
#[derive(Debug)]
struct Failure {
    asked_at: Instant,
    reason: String,
    in_a_row: u32,
}

/// The machine.
#[derive(Debug)]
pub(super) struct State {
    knowledge: Knowledge,
    asker: Asker,
    asking: Asking,
    /// How what is known, or will be known next, came to be known. Until the holders have looked at
    /// it.
    cause: Cause,
    /// Counts doubts: an answer counts only if there was none since its question began.
    doubts: u64,
    failure: Option<Failure>,
}

impl State {
    pub(super) fn new(asker: Asker) -> Self {
        let (knowledge, asking, cause) = (Knowledge::Unknown, Asking::Nobody, Cause::Announced);
        Self { knowledge, asker, asking, cause, doubts: 0, failure: None }
    }

    pub(super) fn knowledge(&self) -> Knowledge {
        self.knowledge
    }

    /// The rights, if they are known.
    pub(super) fn rights(&self) -> Option<Rights> {
        match self.knowledge {
            Knowledge::Known { rights, .. } => Some(rights),
            Knowledge::Unknown | Knowledge::Undecidable { .. } => None,
        }
    }

    /// What is known may not be so any more. Whether the caller is to begin to ask: a session is to
    /// ask again whatever it may be asking now.
    pub(super) fn doubt(&mut self, cause: Cause) -> bool {
        self.knowledge = Knowledge::Unknown;
        self.doubts += 1;
        self.note(cause);
        match self.asker {
            Asker::Source => std::mem::replace(&mut self.asking, Asking::UnderWay) == Asking::Nobody,
            Asker::Session => {
                self.asking = Asking::SessionUnaware;
                true
            }
        }
    }

    /// An `AclChange` takes the right to read from the subject, whom one session alone can ask
    /// about: that is all there is to know, and what the session reports before it is asked anew is
    /// not believed.
    pub(super) fn lose(&mut self, now: Instant) {
        self.doubt(Cause::Announced);
        self.failure = None;
        self.knowledge = Knowledge::Known { rights: Rights::NONE, asked_at: now };
    }

    /// Somebody wants to know. Whether the caller is to begin to ask.
    pub(super) fn want(&mut self) -> bool {
        let is_nobody = self.asking == Asking::Nobody;
        if is_nobody {
            self.asking = match self.asker {
                Asker::Source => Asking::UnderWay,
                Asker::Session => Asking::SessionUnaware,
            };
        }
        is_nobody
    }

    /// The session has taken out that it is to ask: what it reports from now on counts.
    pub(super) fn session_is_aware(&mut self) {
        if self.asking == Asking::SessionUnaware {
            self.asking = Asking::UnderWay;
        }
    }

    pub(super) fn question(&self, now: Instant) -> Question {
        Question { asked_at: now, doubts: self.doubts }
    }

    /// Takes in what the source answers.
    pub(super) fn answer(&mut self, question: Question, answer: Result<Rights, NoAnswer>) -> Effect {
        if self.doubts != question.doubts {
            self.asking = Asking::UnderWay;
            return Effect::Stale;
        }
        let asked_at = question.asked_at;
        match answer {
            Ok(rights) => {
                let before = self.rights();
                (self.knowledge, self.failure, self.asking) = (Knowledge::Known { rights, asked_at }, None, Asking::Nobody);
                if before == Some(rights) { Effect::Same } else { Effect::Changed }
            }
            // Nobody asks again by itself: whoever holds the grant does without.
            Err(NoAnswer::Undecidable) => {
                (self.knowledge, self.failure, self.asking) = (Knowledge::Undecidable { asked_at }, None, Asking::Nobody);
                Effect::Changed
            }
            Err(NoAnswer::Failed(reason)) => {
                let in_a_row = self.failure.as_ref().map_or(0, |failure| failure.in_a_row) + 1;
                self.failure = Some(Failure { asked_at, reason, in_a_row });
                match self.knowledge {
                    // It serves until it is too old.
                    Knowledge::Known { .. } => self.asking = Asking::Nobody,
                    Knowledge::Unknown | Knowledge::Undecidable { .. } => {
                        (self.knowledge, self.asking) = (Knowledge::Unknown, Asking::UnderWay);
                    }
                }
                Effect::Failed(in_a_row)
            }
        }
    }

    /// Takes in what the session reports of its user's rights, asked or not.
    pub(super) fn report(&mut self, now: Instant, rights: Rights) -> Effect {
        if self.asking == Asking::SessionUnaware {
            return Effect::Stale;
        }
        self.note(Cause::Announced);
        self.answer(self.question(now), Ok(rights))
    }

    /// Asking has ended without an answer.
    pub(super) fn give_up(&mut self) {
        self.asking = Asking::Nobody;
    }

    pub(super) fn is_asking(&self) -> bool {
        self.asking != Asking::Nobody
    }

    /// How old what is known is at `now`; what is older than `longest` is forgotten.
    pub(super) fn age(&mut self, now: Instant, recheck: Duration, longest: Duration) -> Age {
        let age = |asked_at| now.saturating_duration_since(asked_at);
        match self.knowledge {
            Knowledge::Unknown => Age::Unknown,
            Knowledge::Known { asked_at, .. } if age(asked_at) >= longest => {
                self.knowledge = Knowledge::Unknown;
                Age::Expired
            }
            Knowledge::Known { asked_at, .. } | Knowledge::Undecidable { asked_at } if age(asked_at) >= recheck => {
                Age::Due(asked_at)
            }
            Knowledge::Known { .. } | Knowledge::Undecidable { .. } => Age::Fresh,
        }
    }

    /// By all that is known the subject can read: should the first answer deny it, that is a loss
    /// which nobody has announced.
    pub(super) fn presume_reading(&mut self) {
        if self.doubts == 0 && self.knowledge == Knowledge::Unknown {
            self.cause = Cause::Found;
        }
    }

    /// The rights, and how they came to be known; asked again it says `Found`. `None` while they
    /// are not known: what was announced belongs to what will be known then.
    pub(super) fn take_cause(&mut self) -> Option<(Rights, Cause)> {
        let rights = self.rights()?;
        Some((rights, std::mem::replace(&mut self.cause, Cause::Found)))
    }

    /// What a question that began at `since` or later brought; `None` while there is none.
    pub(super) fn outcome(&self, since: Instant) -> Option<Result<Rights, NoAnswer>> {
        match self.knowledge {
            Knowledge::Known { rights, asked_at } if asked_at >= since => Some(Ok(rights)),
            Knowledge::Undecidable { asked_at } if asked_at >= since => Some(Err(NoAnswer::Undecidable)),
            _ => {
                let failure = self.failure.as_ref().filter(|failure| failure.asked_at >= since)?;
                Some(Err(NoAnswer::Failed(failure.reason.clone())))
            }
        }
    }

    /// Where something was announced, finding it too makes it no less so.
    fn note(&mut self, cause: Cause) {
        if cause == Cause::Announced {
            self.cause = Cause::Announced;
        }
    }
}

#[cfg(test)]
#[path = "state_tests.rs"]
mod tests;
