//! The upstream connection of an idling client: let go while events are enough, and taken up again
//! when something must be asked, with the client's own state set up anew.

use std::time::Duration;

use super::context::{Cx, Next};
use super::follower::{Doubt, Follower, Hindrance, Link, Why};
use super::level::{FIRST_PAUSE, park_due};
use crate::wire::imap::numbers::Numbers;
use crate::wire::imap::session::asker::Answers;
use crate::wire::imap::session::input::Registration;
use crate::wire::imap::session::output::Action;
use crate::wire::imap::session::question::Question;
use crate::wire::imap::session::timers::Timer;

/// Pacing and connecting are the shell's, and so is giving up on them.
const OPENING: Duration = Duration::from_secs(3600);

impl Follower {
    /// Nothing is open: no question, no doubt, no wish of the client's.
    fn is_at_rest(&self, cx: &Cx<'_>) -> bool {
        let owes = self.trouble.is_some() || !self.flags.ask.is_empty() || self.backlog.again;
        matches!(self.link, Link::Held(_)) && !owes && !cx.client.is_leaving()
    }

    /// Lets the upstream connection go: events are enough while the client idles.
    pub fn park(&mut self, cx: &mut Cx<'_>) {
        let can_reenter = cx.common.can_reenter();
        let is_settled = cx.registration() == Some(Registration::Settled) && cx.common.healthy;
        if !can_reenter || !is_settled || !self.is_at_rest(cx) {
            // It is tried again later, if parking is possible at all.
            let due = park_due(cx).filter(|_| can_reenter);
            return cx.common.timers.set_or_stop(Timer::Park, due);
        }
        let doubted_until = match self.doubt {
            Doubt::None => {
                (self.link, self.highestmodseq) = (Link::Parked, None);
                let serial = cx.common.next_serial();
                cx.out.to_upstream.extend_from_slice(format!("mailpush{serial} LOGOUT\r\n").as_bytes());
                return cx.out.act(Action::CloseUpstream);
            }
            Doubt::Until(until) => until,
            Doubt::Open => cx.now,
        };
        // Nobody tells what the server shows only after it is gone: one last look.
        cx.common.timers.set(Timer::Park, doubted_until.max(cx.now + FIRST_PAUSE));
        if doubted_until <= cx.now {
            self.level(cx, Why::Refresh);
        }
    }

    pub(super) fn reopen(&mut self, cx: &mut Cx<'_>, why: Why) {
        cx.out.act(Action::OpenUpstream { urgent: why == Why::Done });
        let asker = cx.ask(Numbers::default(), [Question::Greeting]);
        cx.common.timers.set(Timer::Answer, cx.now + OPENING);
        self.link = Link::Opening(why, asker.keeping_flags());
    }

    /// The server has greeted.
    pub fn greeted(&mut self, cx: &mut Cx<'_>, why: Why, answers: &Answers) {
        if answers.refused.is_some() {
            return self.drop_link(cx, why);
        }
        let asker = cx.ask(Numbers::default(), [Question::Login]);
        self.link = Link::LoggingIn(why, asker.keeping_flags());
    }

    /// The server has answered the login on the client's behalf.
    pub fn logged_in(&mut self, cx: &mut Cx<'_>, why: Why, answers: &Answers) -> Next {
        match answers.refused {
            Some((_, true)) => self.drop_link(cx, why),
            Some((_, false)) => {
                return Next::Bye { words: "The mail server does not let you in any more", reason: "login_refused" };
            }
            None => {
                let enable = (!cx.common.facts.enabled.is_empty()).then_some(Question::Enable);
                let questions = enable.into_iter().chain([Question::Select]).chain(self.state_questions(cx, true)).collect();
                self.ask(cx, why, Numbers::default(), questions);
                cx.common.timers.set_or_stop(Timer::Park, park_due(cx));
            }
        }
        Next::Stay
    }

    fn drop_link(&mut self, cx: &mut Cx<'_>, why: Why) {
        self.link = Link::Parked;
        cx.common.timers.stop(Timer::Answer);
        cx.out.act(Action::CloseUpstream);
        self.retry(cx, why, Hindrance::Other);
    }

    /// The connection is gone. Events still flow; the server is needed again at DONE, or when
    /// something must be asked.
    pub fn lost(&mut self, cx: &mut Cx<'_>) -> Next {
        cx.common.timers.stop(Timer::Answer);
        self.highestmodseq = None;
        let why = match std::mem::replace(&mut self.link, Link::Parked) {
            Link::Levelling(why, asker) | Link::Opening(why, asker) | Link::LoggingIn(why, asker) => {
                cx.say_that_rights_are_unknown();
                // The server takes the flags that it has told for known.
                self.flags.ask.extend(asker.finish().flags.iter().map(|(uid, ..)| uid.get()));
                Some(why)
            }
            Link::Held(_) | Link::Parked => cx.client.is_leaving().then_some(Why::Done),
        };
        if cx.path().is_some_and(|path| self.backlog.ends(path)) {
            // The server has closed because the mailbox is gone.
            return Next::deleted();
        }
        if !cx.common.can_reenter() {
            return Next::lost();
        }
        if let Some(why) = why {
            self.retry(cx, why, Hindrance::Other);
        }
        Next::Stay
    }
}
