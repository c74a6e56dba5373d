//! Making the client and the server level (I-11): the same messages under the same numbers on both sides.
//!
//! The server is asked what it holds, and the difference from what the client was told is told now. A server may lag behind
//! the events that it caused elsewhere: then it is asked again, with a fresh SELECT that shows its UIDNEXT, for a bounded
//! time. What cannot be told at all (a message below others that the client knows) ends the session: never a wrong number.

use std::time::{Duration, Instant};

use super::idle::{CHECK_HOLD, Hindrance, Idle, Purpose, Retry, Stage, Why};
use super::questions::{News, Question, Questions};
use super::rights::Heeded;
use super::{Action, Session, Standing};
use crate::mail::uid::Uid;
use crate::wire::imap::numbers::{Listing, Numbers};
use crate::wire::imap::write;

/// The first pause before a lagging server is asked again; doubled each time.
const FIRST_PAUSE: Duration = Duration::from_millis(40);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// How often a server is asked again for flags that it does not know of yet.
const UNANSWERED: u8 = 8;
/// Pauses while nothing but a late notification depends on it.
const PATIENT_PAUSE: Duration = Duration::from_secs(15);

impl Session {
    /// Begins to make both sides level; does nothing where that is under way.
    pub(super) fn level(&mut self, now: Instant, why: Why) {
        let Some(idle) = &mut self.idle else { return };
        match idle.purpose {
            None => {}
            Some(Purpose::Greeting(Why::Refresh | Why::Handover)) if why == Why::Done => {
                // The client waits now: those who do not can let it pass. What is asked is the same.
                idle.purpose = Some(Purpose::Greeting(why));
                self.actions.push_back(Action::OpenUpstream { urgent: true });
                return;
            }
            Some(_) => {
                idle.again = true;
                return;
            }
        }
        if idle.view.is_none() {
            return;
        }
        idle.again = false;
        let lags = idle.retry.as_mut().is_some_and(|retry| {
            retry.due = None;
            retry.hindrance.wants_select()
        });
        if !self.connected {
            return self.reopen(now, why);
        }
        // Some end a connection that asks of a mailbox under a name that it has no more.
        let renamed = self.idle.as_ref().is_some_and(|idle| idle.renamed);
        let mut questions: Vec<Question> = if renamed { Vec::new() } else { vec![Question::Noop] };
        // A new SELECT would lose what is kept for `$` (RFC 5182): then the server's NOOP must do.
        let anew = renamed || lags && !self.facts.saved_result;
        if anew {
            questions.push(Question::Select);
        }
        questions.extend(self.state_questions(now, anew));
        let numbers = self.idle.as_mut().map(|idle| std::mem::take(&mut idle.numbers)).unwrap_or_default();
        self.ask_for(now, Purpose::Level(why), News::Swallowed, numbers, questions);
    }

    /// What to ask about the selected mailbox, besides letting the server catch up. `fresh`: it is selected anew, so that the
    /// server itself tells no change of flags that was before.
    fn state_questions(&mut self, now: Instant, fresh: bool) -> Vec<Question> {
        let mut questions = vec![Question::Uids];
        let Some(idle) = &mut self.idle else { return questions };
        if let Some(view) = &idle.view {
            idle.ask |= view.flags_to_compare();
        }
        if fresh {
            idle.ask |= &idle.asked;
        }
        if idle.flags_lost || (fresh && idle.doubts(now)) {
            let condstore = self.facts.features.condstore;
            let since = self.facts.selected.as_ref().and_then(|selected| selected.highestmodseq).filter(|_| condstore);
            questions.push(Question::AllFlags(since));
        } else if !idle.ask.is_empty() {
            questions.push(Question::Flags(idle.ask.clone()));
        }
        if self.checks_rights() {
            questions.push(Question::MyRights);
        }
        questions
    }

    /// The server has said what it holds.
    pub(super) fn leveled(&mut self, now: Instant, why: Why, questions: Questions) {
        let heeded = if self.may_tell(now) {
            self.heed_rights(&questions)
        } else {
            self.withhold();
            Heeded::Unknown
        };
        if let Some(idle) = &mut self.idle {
            // In a new SELECT it is the mailbox's, whatever the client has been told.
            let before = idle.highestmodseq.filter(|_| !questions.fresh);
            idle.highestmodseq = questions.highestmodseq.filter(|_| !questions.fresh).or(before);
        }
        // A server that does not tell rights is believed in the end, as a source of the gateway's is.
        let heeded = if heeded == Heeded::Unknown && self.need_not_know(now) { Heeded::Readable } else { heeded };
        let (Some(idle), Some(selected)) = (&mut self.idle, &mut self.facts.selected) else { return };
        match heeded {
            Heeded::Readable => self.to_client.append(&mut idle.untold),
            Heeded::Over => return,
            Heeded::Unknown => {
                idle.ask_again(&questions);
                idle.numbers = questions.numbers;
                // What an event says of the mailbox itself was allowed when that was delivered.
                let has_news = idle.is_about_to_move() || idle.is_about_to_end();
                self.retry(now, why, Hindrance::Other);
                if has_news {
                    self.take_waiting(now);
                }
                return;
            }
        }
        match &questions.refused {
            // What it does not tell of flags stays unknown.
            None | Some((Question::Noop | Question::Flags(_) | Question::AllFlags(_), _)) => {}
            // What its numbers mean may be known without it.
            Some((Question::Uids, _)) => {}
            Some((Question::Select, false)) => return self.bye("The mailbox cannot be selected any more", "mailbox_gone"),
            Some((Question::Enable, _)) => {
                return self.bye("[UNAVAILABLE] Your session cannot be set up again", "enable_refused");
            }
            Some(_) => {
                idle.ask_again(&questions);
                idle.numbers = questions.numbers;
                return self.retry(now, why, Hindrance::Other);
            }
        }
        let Some(view) = &mut idle.view else { return };
        if questions.uidvalidity.is_some_and(|told| selected.uidvalidity.is_some_and(|known| known != told)) {
            return self.bye("The mailbox has been made anew (UIDVALIDITY)", "uidvalidity");
        }
        let listing = questions.listing;
        let truth = match questions.numbers.whole() {
            // Numbers that were known, and followed since, serve where the server does not tell UIDs.
            Some(truth) if listing != Listing::Missing || questions.refused.is_some() => truth.clone(),
            _ => {
                idle.ask_again(&questions);
                idle.numbers = questions.numbers;
                let since = idle.retry.and_then(|retry| retry.listless_since).unwrap_or(now);
                return match listing {
                    Listing::Moved | Listing::Torn => self.retry(now, why, Hindrance::Other),
                    // A new session is served by the server's own IDLE.
                    _ if now >= since + self.rules.catch_up => {
                        self.bye("[UNAVAILABLE] The mail server does not say which messages there are", "upstream_nonsense");
                    }
                    Listing::Missing => self.retry(now, why, Hindrance::NoList { selects: false }),
                    Listing::Told => self.retry(now, why, Hindrance::NoList { selects: true }),
                };
            }
        };
        if questions.uidnext > 0 {
            selected.uidnext = questions.uidnext;
        }
        let beyond = truth.max().map_or(1, |max| max.saturating_add(1));
        // Another server may lag behind the one before: its own word counts.
        let before = if questions.fresh { 0 } else { idle.server_uidnext };
        idle.server_uidnext = before.max(beyond).max(questions.uidnext);
        let reconciled = view.reconcile(&truth, idle.server_uidnext, &questions.flags);
        idle.numbers = Numbers::of(truth);
        idle.renamed = false;
        // A server that lags may not know of a change of flags that an event told of: asked again, but not for ever.
        idle.unanswered = if view.unanswered().is_empty() { 0 } else { idle.unanswered.saturating_add(1) };
        if (1..=UNANSWERED).contains(&idle.unanswered) {
            idle.check_due = Some(now + CHECK_HOLD * u32::from(idle.unanswered));
        }
        let owes_flags = !view.unanswered().is_empty();
        idle.flags_were_asked(questions.fresh, now, self.rules.catch_up);
        let level = reconciled.is_level();
        let is_all_told = level && questions.refused.is_none() && !owes_flags;
        let late = !reconciled.late.is_empty();
        self.tell(&reconciled.tell);
        if let Some(recent) = questions.recent.filter(|_| !self.facts.features.rev2) {
            write::recent(&mut self.to_client, recent);
        }
        if is_all_told {
            self.tell_highestmodseq();
        }
        if level {
            self.is_level(now);
        } else {
            self.is_not_level(now, why, late);
        }
    }

    /// What the server has told on this connection the client has heard too, so it may hear up to where that goes (RFC 7162
    /// 3.2.10.2). Behind an event's VANISHED it would hide older changes that are still on their way, for ever.
    fn tell_highestmodseq(&mut self) {
        let (Some(idle), Some(selected)) = (&mut self.idle, &mut self.facts.selected) else { return };
        if let Some(modseq) = idle.highestmodseq.take().filter(|_| self.facts.features.qresync) {
            selected.highestmodseq = Some(modseq);
            write::highestmodseq(&mut self.to_client, modseq);
        }
    }

    fn is_level(&mut self, now: Instant) {
        let Some(idle) = &mut self.idle else { return };
        idle.retry = None;
        if idle.ending.is_some() {
            if idle.flags_lost || !idle.ask.is_empty() {
                return self.level(now, Why::Done);
            }
            // What came meanwhile is the server's to tell from now on.
            return self.finish(now);
        }
        if self.is_servers_business(now) {
            return self.hand_over(now);
        }
        self.take_waiting(now);
    }

    fn is_not_level(&mut self, now: Instant, why: Why, late: bool) {
        let catch_up = self.rules.catch_up;
        let Some(idle) = &mut self.idle else { return };
        let since = idle.retry.map_or(now, |retry| retry.since);
        if late && now >= since + catch_up {
            return self.bye("The mailbox has changed in a way that cannot be told: log in again", "cannot_be_told");
        }
        self.retry(now, why, Hindrance::Lags);
        if self.idle.as_ref().is_some_and(|idle| idle.ending.is_none()) {
            self.take_waiting(now);
        }
    }

    /// Asks again after a pause.
    pub(super) fn retry(&mut self, now: Instant, why: Why, hindrance: Hindrance) {
        let catch_up = self.rules.catch_up;
        let Some(idle) = &mut self.idle else { return };
        let (attempt, since) = idle.retry.map_or((0, now), |retry| (retry.attempt, retry.since));
        let pause = if idle.ending.is_none() && now >= since + catch_up {
            PATIENT_PAUSE
        } else {
            LONGEST_PAUSE.min(FIRST_PAUSE.saturating_mul(1 << attempt.min(10)))
        };
        let why = if idle.ending.is_some() { Why::Done } else { why };
        let due = now + self.jittered(pause);
        if let Some(idle) = &mut self.idle {
            let listless = idle.retry.and_then(|retry| retry.listless_since).unwrap_or(now);
            let listless_since = matches!(hindrance, Hindrance::NoList { .. }).then_some(listless);
            idle.retry = Some(Retry { why, attempt: attempt + 1, since, hindrance, listless_since, due: Some(due) });
        }
    }

    /// Lets the upstream connection go: events are enough while the client idles.
    pub(super) fn park(&mut self, now: Instant) {
        let can_reenter = self.facts.can_reenter(&self.rules);
        let Some(idle) = &mut self.idle else { return };
        let settled = idle.standing == Some(Standing::Settled) && self.healthy;
        if !can_reenter || !settled || !self.connected || !idle.is_at_rest() {
            // Looked at again.
            idle.park_due = self.rules.park_after.filter(|_| can_reenter).map(|after| now + after);
            return;
        }
        if let Some(until) = idle.doubted_until {
            // Nobody tells what the server shows only after it is gone: one last look.
            idle.park_due = Some(until.max(now + FIRST_PAUSE));
            if until <= now {
                self.level(now, Why::Refresh);
            }
            return;
        }
        idle.park_due = None;
        idle.numbers = Numbers::default();
        idle.highestmodseq = None;
        self.serial = self.serial.wrapping_add(1);
        self.to_upstream.extend_from_slice(format!("mailpush{} LOGOUT\r\n", self.serial).as_bytes());
        self.connected = false;
        self.actions.push_back(Action::CloseUpstream);
    }

    fn reopen(&mut self, now: Instant, why: Why) {
        self.connected = true;
        self.actions.push_back(Action::OpenUpstream { urgent: why == Why::Done });
        // Pacing and connecting are the shell's, and so is giving up on them.
        self.ask(now + Duration::from_secs(3600), News::Swallowed, Numbers::default(), [Question::Greeting]);
        if let Some(idle) = &mut self.idle {
            idle.purpose = Some(Purpose::Greeting(why));
        }
    }

    pub(super) fn greeted(&mut self, now: Instant, why: Why, questions: &Questions) {
        if questions.refused.is_some() {
            return self.drop_upstream(now, why);
        }
        self.ask_for(now, Purpose::Login(why), News::Swallowed, Numbers::default(), [Question::Login]);
    }

    /// Logged in on the client's behalf, or not.
    pub(super) fn entered(&mut self, now: Instant, why: Why, questions: &Questions) {
        match questions.refused {
            Some((_, true)) => return self.drop_upstream(now, why),
            Some((_, false)) => return self.bye("The mail server does not let you in any more", "login_refused"),
            None => {}
        }
        let mut questions = Vec::new();
        if !self.facts.enabled.is_empty() {
            questions.push(Question::Enable);
        }
        questions.push(Question::Select);
        questions.extend(self.state_questions(now, true));
        self.ask_for(now, Purpose::Level(why), News::Swallowed, Numbers::default(), questions);
        let park_due = self.rules.park_after.map(|after| now + after);
        if let Some(idle) = &mut self.idle {
            idle.park_due = park_due;
        }
    }

    fn drop_upstream(&mut self, now: Instant, why: Why) {
        self.connected = false;
        self.actions.push_back(Action::CloseUpstream);
        self.retry(now, why, Hindrance::Other);
    }

    /// It could not be opened again.
    pub fn handle_upstream_failed(&mut self, now: Instant) {
        let asked = self.questions.take();
        self.connected = false;
        if self.idle.is_some() {
            self.idle_lost_upstream(now, asked.as_deref());
        }
    }

    /// The connection is gone while the client idles. Events still flow; the server is needed again at DONE, or when
    /// something must be asked.
    pub(super) fn idle_lost_upstream(&mut self, now: Instant, asked: Option<&Questions>) {
        let can_reenter = self.facts.can_reenter(&self.rules);
        let Some(idle) = &mut self.idle else { return };
        let purpose = idle.purpose.take();
        idle.numbers = Numbers::default();
        idle.highestmodseq = None;
        if matches!(purpose, Some(Purpose::Level(_) | Purpose::Greeting(_) | Purpose::Login(_))) {
            self.rights_are_unknown();
        }
        let Some(idle) = &mut self.idle else { return };
        if let Some(questions) = asked {
            idle.ask_again(questions);
        }
        if idle.is_about_to_end() {
            // Which is why the server has closed.
            return self.bye_deleted();
        }
        if !can_reenter || idle.view.is_none() || idle.stage != Stage::Idling {
            return self.bye("[UNAVAILABLE] The mail server has closed the connection", "upstream_closed");
        }
        let why = match purpose {
            Some(Purpose::Level(why) | Purpose::Greeting(why) | Purpose::Login(why)) => why,
            _ if idle.ending.is_some() => Why::Done,
            _ if asked.is_some() => Why::Refresh,
            _ => return,
        };
        self.retry(now, why, Hindrance::Other);
    }
}

impl Idle {
    /// What was told, and what was to be asked, is of no more use.
    pub fn forget(&mut self) {
        self.told_flags = Vec::new();
        self.waiting = Vec::new();
        self.ask.clear();
        self.asked.clear();
        (self.again, self.flags_lost, self.check_due, self.retry) = (false, false, None, None);
        self.highestmodseq = None;
    }

    /// Whether the server may still be about to show changes that no event has told of.
    fn doubts(&self, now: Instant) -> bool {
        self.in_doubt || self.doubted_until.is_some_and(|until| now < until)
    }

    /// The answer cannot be used, but the server takes it for told.
    pub fn ask_again(&mut self, questions: &Questions) {
        self.ask.extend(questions.flags.iter().map(|(uid, ..)| uid.get()));
    }

    /// The server has told the flags that it was asked for.
    fn flags_were_asked(&mut self, fresh: bool, now: Instant, catch_up: Duration) {
        self.asked |= std::mem::take(&mut self.ask);
        // What was lost meanwhile may have been before that.
        self.flags_lost &= self.again;
        if self.in_doubt {
            self.in_doubt = self.again || !self.settled;
            self.doubted_until = Some(now + catch_up);
        } else if self.doubted_until.is_some_and(|until| until <= now) {
            self.doubted_until = None;
        }
        if fresh {
            // These changes may be in the new view already, where the server does not tell them.
            self.ask = self.waiting.iter().flat_map(|event| event.change.flag_uids()).map(Uid::get).collect();
        }
    }

    /// Nothing is open: no question, no doubt, no wish of the client's.
    fn is_at_rest(&self) -> bool {
        self.stage == Stage::Idling
            && self.view.is_some()
            && self.purpose.is_none()
            && self.ending.is_none()
            && self.retry.is_none()
            && self.ask.is_empty()
            && !self.again
    }
}
