//! Making the client and the server level (I-11): the same messages under the same numbers on both
//! sides.
//!
//! The server is asked what it holds, and the difference from what the client was told is told now.
//! A server may lag behind the events that it caused elsewhere: then it is asked again, with a
//! fresh SELECT that shows its UIDNEXT, for a bounded time. What cannot be told at all (a message
//! below others that the client knows) ends the session: never a wrong number.

use std::time::{Duration, Instant};

use super::context::{Cx, Next};
use super::follower::{CHECK_HOLD, Doubt, Follower, Hindrance, Link, Trouble, Why};
use super::rights::Permission;
use crate::mail::uid::Uid;
use crate::wire::imap::numbers::{Listing, Numbers};
use crate::wire::imap::session::asker::Answers;
use crate::wire::imap::session::output::Action;
use crate::wire::imap::session::question::Question;
use crate::wire::imap::session::timers::Timer;
use crate::wire::imap::write;

/// The first pause before a server is asked again; doubled each time.
pub(super) const FIRST_PAUSE: Duration = Duration::from_millis(40);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// Pauses while nothing but a late notification depends on it.
const PATIENT_PAUSE: Duration = Duration::from_secs(15);
/// How often a server is asked again for flags that it does not know of yet.
const UNANSWERED: u8 = 8;

impl Follower {
    /// Begins to make both sides level; where that is under way, once more after it.
    pub fn level(&mut self, cx: &mut Cx<'_>, why: Why) {
        match &mut self.link {
            Link::Held(_) | Link::Parked => {}
            Link::Opening(before @ (Why::Refresh | Why::Handover), _) if why == Why::Done => {
                // The client waits now, so the connection is not paced any more. The questions are
                // the same.
                *before = why;
                cx.out.act(Action::OpenUpstream { urgent: true });
                return;
            }
            _ => {
                self.backlog.again = true;
                return;
            }
        }
        self.backlog.again = false;
        cx.common.timers.stop(Timer::Retry);
        match std::mem::replace(&mut self.link, Link::Parked) {
            Link::Held(numbers) => self.ask_state(cx, why, numbers),
            _ => self.reopen(cx, why),
        }
    }

    /// Asks what the server holds, over a connection that stands.
    fn ask_state(&mut self, cx: &mut Cx<'_>, why: Why, numbers: Numbers) {
        // Some servers end a connection on which a mailbox is selected that has another name now
        // (Dovecot).
        let is_renamed = cx.watch.as_ref().is_some_and(|watch| watch.is_renamed);
        let hindrance = self.trouble.as_ref().map(|trouble| trouble.hindrance);
        // A new SELECT would lose what is kept for `$` (RFC 5182): then the server's NOOP must do.
        let is_wanted = matches!(hindrance, Some(Hindrance::Lags | Hindrance::UnfitList)) && !cx.common.facts.saved_result;
        let selects = is_renamed || is_wanted || hindrance == Some(Hindrance::NotSelected);
        let first = (!is_renamed).then_some(Question::Noop).into_iter().chain(selects.then_some(Question::Select));
        let questions: Vec<_> = first.chain(self.state_questions(cx, selects)).collect();
        self.ask(cx, why, numbers, questions);
    }

    /// Asks these, and for rights where they are to be asked for.
    pub(super) fn ask(&mut self, cx: &mut Cx<'_>, why: Why, numbers: Numbers, questions: Vec<Question>) {
        let rights = cx.asks_rights_on();
        let asker = cx.ask(numbers, questions).keeping_flags();
        let asker = asker.with_rights(cx.common, &mut cx.out.to_upstream, rights);
        self.link = Link::Levelling(why, asker);
    }

    /// What to ask about the selected mailbox, besides letting the server catch up. `anew`: it is
    /// selected anew, so that the server itself tells no change of flags that was before.
    pub(super) fn state_questions(&mut self, cx: &Cx<'_>, anew: bool) -> Vec<Question> {
        let mut questions = vec![Question::Uids];
        self.flags.ask |= self.view.flags_to_compare();
        if anew {
            self.flags.ask |= &self.flags.asked;
        }
        let is_doubted = match self.doubt {
            Doubt::None => false,
            Doubt::Until(until) => cx.now < until,
            Doubt::Open => true,
        };
        if self.flags.all || (anew && is_doubted) {
            let facts = &cx.common.facts;
            let since = facts.selected.as_ref().and_then(|selected| selected.highestmodseq);
            questions.push(Question::AllFlags(since.filter(|_| facts.features.condstore)));
        } else if !self.flags.ask.is_empty() {
            questions.push(Question::Flags(self.flags.ask.clone()));
        }
        questions
    }

    /// The server has said what it holds.
    pub fn levelled(&mut self, cx: &mut Cx<'_>, why: Why, answers: Answers) -> Next {
        let permission = if cx.may_tell() {
            cx.judge_rights(answers.rights.as_ref(), Some(&self.backlog))
        } else {
            cx.withhold();
            Permission::Unknown
        };
        if !answers.selected_anew {
            self.highestmodseq = answers.highestmodseq.or(self.highestmodseq);
        } else {
            // In a new SELECT it is the mailbox's, whatever the client has been told.
            self.highestmodseq = None;
        }
        match permission {
            Permission::Over(next) => return next,
            Permission::Unknown => return self.keep_unknown(cx, why, answers),
            Permission::Granted => cx.out.to_client.append(&mut self.untold),
        }
        match &answers.refused {
            // The UIDs may be known without NOOP and SEARCH; flags that are not told stay owed.
            None | Some((Question::Noop | Question::Uids | Question::Flags(_) | Question::AllFlags(_), _)) => {}
            Some((Question::Select, false)) => {
                return Next::Bye { words: "The mailbox cannot be selected any more", reason: "mailbox_gone" };
            }
            Some((Question::Select, true)) => {
                let unknown = Answers { numbers: Numbers::default(), ..answers };
                return self.ask_later(cx, why, unknown, Hindrance::NotSelected);
            }
            Some((Question::Enable, _)) => {
                let words = "[UNAVAILABLE] Your session cannot be set up again";
                return Next::Bye { words, reason: "enable_refused" };
            }
            Some(_) => return self.ask_later(cx, why, answers, Hindrance::Other),
        }
        let known = cx.common.facts.selected.as_ref().and_then(|selected| selected.uidvalidity);
        if answers.uidvalidity.is_some_and(|told| known.is_some_and(|known| known != told)) {
            return Next::uidvalidity();
        }
        match answers.numbers.whole() {
            // Numbers that were known, and followed since, serve where the server does not tell
            // UIDs.
            Some(truth) if answers.listing != Listing::Missing || answers.refused.is_some() => {
                let truth = truth.clone();
                self.reconcile(cx, why, truth, answers)
            }
            _ => self.has_no_list(cx, why, answers),
        }
    }

    /// It is not known whether the user may read: nothing is told.
    fn keep_unknown(&mut self, cx: &mut Cx<'_>, why: Why, answers: Answers) -> Next {
        // What an event says of the mailbox itself was allowed when that was delivered.
        let has_news = cx.path().is_some_and(|path| self.backlog.moves(path) || self.backlog.ends(path));
        let next = self.ask_later(cx, why, answers, Hindrance::Other);
        if has_news { self.take_backlog(cx) } else { next }
    }

    /// The answers cannot be used, but the server takes them for told.
    fn ask_later(&mut self, cx: &mut Cx<'_>, why: Why, answers: Answers, hindrance: Hindrance) -> Next {
        self.flags.ask.extend(answers.flags.iter().map(|(uid, ..)| uid.get()));
        self.link = Link::Held(answers.numbers);
        self.retry(cx, why, hindrance);
        Next::Stay
    }

    fn has_no_list(&mut self, cx: &mut Cx<'_>, why: Why, answers: Answers) -> Next {
        let hindrance = match answers.listing {
            Listing::Missing => Hindrance::NoList,
            Listing::Told => Hindrance::UnfitList,
            Listing::Moved | Listing::Torn => Hindrance::Other,
        };
        let since = self.trouble.as_ref().and_then(|trouble| trouble.listless_since);
        if hindrance != Hindrance::Other && since.is_some_and(|since| cx.now >= since + cx.common.rules.catch_up) {
            // A new session is served by the server's own IDLE.
            return Next::nonsense("[UNAVAILABLE] The mail server does not say which messages there are");
        }
        self.ask_later(cx, why, answers, hindrance)
    }

    /// Tells the client how what it knows differs from what the server holds.
    fn reconcile(&mut self, cx: &mut Cx<'_>, why: Why, truth: roaring::RoaringBitmap, answers: Answers) -> Next {
        if let Some(selected) = cx.common.facts.selected.as_mut().filter(|_| answers.uidnext > 0) {
            selected.uidnext = answers.uidnext;
        }
        let beyond = truth.max().map_or(1, |max| max.saturating_add(1));
        // Another server may lag behind the one before: its own word counts.
        let before = if answers.selected_anew { 0 } else { self.server_uidnext };
        self.server_uidnext = before.max(beyond).max(answers.uidnext);
        let reconciled = self.view.reconcile(&truth, self.server_uidnext, &answers.flags);
        self.link = Link::Held(Numbers::of(truth));
        if let Some(watch) = cx.watch {
            watch.is_renamed = false;
        }
        // A server that lags may not know of a change of flags that an event told of: asked again,
        // but not for ever.
        let flags = &mut self.flags;
        flags.unanswered = if self.view.unanswered().is_empty() { 0 } else { flags.unanswered.saturating_add(1) };
        if (1..=UNANSWERED).contains(&flags.unanswered) {
            cx.common.timers.set(Timer::Check, cx.now + CHECK_HOLD * u32::from(flags.unanswered));
        }
        let is_all_told = reconciled.is_level() && answers.refused.is_none() && self.view.unanswered().is_empty();
        self.flags_were_asked(cx, answers.selected_anew);
        self.tell(cx, &reconciled.tell);
        if let Some(recent) = answers.recent.filter(|_| !cx.common.facts.features.rev2) {
            write::recent(&mut cx.out.to_client, recent);
        }
        if is_all_told {
            self.tell_highestmodseq(cx);
        }
        if reconciled.is_level() { self.is_level(cx) } else { self.is_not_level(cx, why, !reconciled.late.is_empty()) }
    }

    /// What the server has told on this connection the client has heard too, so it may hear up to
    /// where that goes (RFC 7162 3.2.10.2). Behind an event's VANISHED it would hide older changes
    /// that are still on their way, for ever.
    fn tell_highestmodseq(&mut self, cx: &mut Cx<'_>) {
        let Some(modseq) = self.highestmodseq.take().filter(|_| cx.common.facts.features.qresync) else { return };
        if let Some(selected) = &mut cx.common.facts.selected {
            selected.highestmodseq = Some(modseq);
            write::highestmodseq(&mut cx.out.to_client, modseq);
        }
    }

    fn is_level(&mut self, cx: &mut Cx<'_>) -> Next {
        self.trouble = None;
        cx.common.timers.stop(Timer::Retry);
        if cx.client.is_leaving() {
            if !self.flags.all && self.flags.ask.is_empty() {
                // Events that came meanwhile are dropped: the server tells the client from now on.
                return Next::Finish;
            }
            self.level(cx, Why::Done);
            return Next::Stay;
        }
        if cx.is_servers_business() { Next::HandOver } else { self.take_backlog(cx) }
    }

    fn is_not_level(&mut self, cx: &mut Cx<'_>, why: Why, late: bool) -> Next {
        let since = self.trouble.as_ref().map_or(cx.now, |trouble| trouble.since);
        if late && cx.now >= since + cx.common.rules.catch_up {
            let words = "The mailbox has changed in a way that cannot be told: log in again";
            return Next::Bye { words, reason: "cannot_be_told" };
        }
        self.retry(cx, why, Hindrance::Lags);
        if cx.client.is_leaving() { Next::Stay } else { self.take_backlog(cx) }
    }

    /// Asks again after a pause, which grows.
    pub(super) fn retry(&mut self, cx: &mut Cx<'_>, why: Why, hindrance: Hindrance) {
        let (now, is_leaving) = (cx.now, cx.client.is_leaving());
        let before = self.trouble.take();
        let (attempts, since) = before.as_ref().map_or((0, now), |trouble| (trouble.attempts, trouble.since));
        let pause = if !is_leaving && now >= since + cx.common.rules.catch_up {
            PATIENT_PAUSE
        } else {
            LONGEST_PAUSE.min(FIRST_PAUSE.saturating_mul(1 << attempts.min(10)))
        };
        let why = if is_leaving { Why::Done } else { why };
        let is_listless = matches!(hindrance, Hindrance::NoList | Hindrance::UnfitList);
        let listless_since = is_listless.then(|| before.and_then(|trouble| trouble.listless_since).unwrap_or(now));
        self.trouble = Some(Box::new(Trouble { why, attempts: attempts + 1, since, hindrance, listless_since }));
        cx.common.timers.set(Timer::Retry, now + cx.common.jittered(pause));
    }

    /// The server has told the flags that it was asked for.
    fn flags_were_asked(&mut self, cx: &Cx<'_>, anew: bool) {
        self.flags.asked |= std::mem::take(&mut self.flags.ask);
        // What was lost meanwhile may have been before that.
        self.flags.all &= self.backlog.again;
        let is_settled = cx.watch.as_ref().is_some_and(|watch| watch.was_settled);
        self.doubt = match self.doubt {
            Doubt::Open if self.backlog.again || !is_settled => Doubt::Open,
            Doubt::Open => Doubt::Until(cx.now + cx.common.rules.catch_up),
            Doubt::Until(until) if until <= cx.now => Doubt::None,
            doubt => doubt,
        };
        if anew {
            // These changes may be in the new view already, where the server does not tell them.
            self.flags.ask = flag_uids(self.backlog.events());
        }
    }
}

/// The messages whose flags these events change.
pub(super) fn flag_uids(events: &[crate::mail::event::Event]) -> roaring::RoaringBitmap {
    events.iter().flat_map(|event| event.change.flag_uids()).map(Uid::get).collect()
}

/// When a connection that nothing is open on may be let go.
pub(super) fn park_due(cx: &Cx<'_>) -> Option<Instant> {
    cx.common.rules.park_after.map(|after| cx.now + after)
}
