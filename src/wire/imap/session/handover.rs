//! Falling back: while registry or queue are not healthy, or where the gateway does not follow, IDLE is the server's own
//! (or, where it has none, it is asked now and then). The client is never worse off than without us.
//!
//! All the while the client's numbers are the server's, and what the server says passes as it is.

use std::time::{Duration, Instant};

use super::Session;
use super::idle::{Purpose, Stage, Why};
use super::questions::{News, Question, Questions};
use crate::wire::imap::numbers::Numbers;

/// Once it has begun, the server's own IDLE has no answer to wait for; it is ended and begun again at each audit.
const UNBOUNDED: Duration = Duration::from_secs(365 * 24 * 3600);

impl Session {
    /// Hands IDLE to the server. The client's numbers must be the server's already.
    pub(super) fn hand_over(&mut self, now: Instant) {
        let poll_due = now + self.rules.poll;
        let audit_due = now + self.jittered(self.rules.audit);
        let Some(idle) = &mut self.idle else { return };
        if idle.ending.is_some() && idle.is_told() {
            return self.finish(now);
        }
        if let (Some(view), Some(selected)) = (idle.view.take(), &mut self.facts.selected) {
            selected.keywords = view.keywords().clone();
            selected.count = idle.numbers.count();
        }
        idle.numbers = Numbers::default();
        // What was told and what was open is history: the server speaks from here on.
        idle.forget();
        // From now on the server tells.
        idle.waiting = Vec::new();
        idle.ask.clear();
        idle.audit_due = audit_due;
        idle.come_back_due = self.facts.pause.map(|pause| pause.until).filter(|until| now < *until);
        if self.facts.offers.idle {
            idle.stage = Stage::Upstream { running: false, leaving: false };
            self.ask(now + self.rules.catch_up, News::Mirrored, Numbers::default(), [Question::Idle]);
            if let Some(idle) = &mut self.idle {
                idle.purpose = Some(Purpose::Idle);
            }
        } else {
            idle.stage = Stage::Polling;
            idle.poll_due = Some(poll_due);
            self.tell_idling();
        }
    }

    /// The server has begun to idle.
    pub(super) fn upstream_idles(&mut self, now: Instant) {
        let Some(idle) = &mut self.idle else { return };
        idle.stage = Stage::Upstream { running: true, leaving: false };
        if let Some(questions) = &mut self.questions {
            idle.before.append(&mut questions.lines);
            questions.due = now + UNBOUNDED;
        }
        self.tell_idling();
        let ending = self.idle.as_ref().is_some_and(|idle| idle.ending.is_some());
        let rights_due = self.idle.as_ref().is_some_and(|idle| idle.rights_due);
        if ending || rights_due || !self.is_servers_business_still(now) {
            self.leave_upstream(now);
        }
        self.resume(now);
    }

    /// Whether there is still a reason for the server's own IDLE.
    fn is_servers_business_still(&self, now: Instant) -> bool {
        let told_path = self.facts.namespaces.as_ref().map(|_| self.facts.path(&self.rules.names));
        let awaited = self.idle.as_ref().is_some_and(|idle| idle.path.is_some() && idle.standing.is_none());
        self.is_servers_business(now) || told_path == Some(None) || awaited
    }

    pub(super) fn leave_upstream(&mut self, now: Instant) {
        let Some(idle) = &mut self.idle else { return };
        if let Some(questions) = &mut self.questions {
            questions.due = now + self.rules.catch_up;
        }
        idle.stage = Stage::Upstream { running: true, leaving: true };
        self.to_upstream.extend_from_slice(b"DONE\r\n");
    }

    /// The server's IDLE is over: as we wished, or by itself.
    pub(super) fn upstream_idled(&mut self, now: Instant, questions: &Questions) {
        let poll_due = now + self.rules.poll;
        let Some(idle) = &mut self.idle else { return };
        if idle.ending.is_some() {
            return self.finish(now);
        }
        let by_itself = !matches!(idle.stage, Stage::Upstream { leaving: true, .. });
        if questions.refused.is_some() || by_itself {
            // It does not want to idle now: asked without pause, it would be asked without end.
            self.facts.pause(now);
            idle.stage = Stage::Polling;
            idle.poll_due = Some(poll_due);
            idle.come_back_due = self.facts.pause.map(|pause| pause.until);
            return self.tell_idling();
        }
        self.prepare(now);
    }

    /// The server did not answer as it must, and is asked again.
    pub(super) fn come_back_after_pause(&mut self, now: Instant) {
        let Some(idle) = &mut self.idle else { return };
        idle.come_back_due = None;
        match (idle.stage, idle.purpose) {
            (Stage::Polling, None) => {
                idle.poll_due = None;
                self.prepare(now);
            }
            _ => self.come_back(now),
        }
    }

    pub(super) fn poll(&mut self, now: Instant) {
        if let Some(idle) = &mut self.idle {
            idle.poll_due = None;
        }
        self.ask_for(now, Purpose::Poll, News::Mirrored, Numbers::default(), [Question::Noop]);
    }

    pub(super) fn polled(&mut self, now: Instant) {
        let poll_due = now + self.rules.poll;
        let Some(idle) = &mut self.idle else { return };
        if idle.ending.is_some() {
            return self.finish(now);
        }
        if idle.stage == Stage::Polling {
            idle.poll_due = Some(poll_due);
            if idle.rights_due {
                self.ask_rights_of_the_servers(now);
            }
        }
    }

    /// Events may be missed from now on: the server takes over, once both sides are level.
    pub(super) fn doubt(&mut self, now: Instant) {
        if let Some(idle) = &mut self.idle {
            idle.in_doubt = true;
        }
        self.level(now, Why::Handover);
    }

    /// The cluster is well again.
    pub(super) fn come_back(&mut self, now: Instant) {
        if self.is_servers_business(now) {
            return;
        }
        match self.idle.as_ref().map(|idle| (idle.stage, idle.purpose)) {
            Some((Stage::Upstream { running: true, leaving: false }, _)) => self.leave_upstream(now),
            Some((Stage::Polling, None)) => {
                if let Some(idle) = &mut self.idle {
                    idle.poll_due = None;
                }
                self.prepare(now);
            }
            _ => {}
        }
    }

    /// Registry or queue have fallen ill, or are well again.
    pub(super) fn idle_health(&mut self, now: Instant) {
        let Some(idle) = &self.idle else { return };
        match (idle.stage, self.healthy) {
            (Stage::Registering, false) => self.hand_over(now),
            (Stage::Idling, false) => self.doubt(now),
            (Stage::Upstream { .. } | Stage::Polling, true) => self.come_back(now),
            _ => {}
        }
        self.resume(now);
    }
}
