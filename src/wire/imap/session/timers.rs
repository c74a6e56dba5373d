//! What time does to an idling client: keep-alive, autologout, looking again, asking again, parking.

use std::time::{Duration, Instant};

use super::Session;
use super::idle::{Idle, Purpose, Retry, Stage, Why};
use super::questions::{News, Question};
use crate::wire::imap::numbers::Numbers;

impl Idle {
    /// When there is something to do.
    pub fn due(&self, session: &Session) -> Option<Instant> {
        let quiet = session.questions.is_none();
        [
            Some(self.keepalive_due),
            Some(self.autologout_due),
            Some(self.audit_due).filter(|_| quiet || matches!(self.stage, Stage::Upstream { .. })),
            self.register_due,
            self.check_due.filter(|_| quiet),
            self.park_due.filter(|_| quiet),
            self.poll_due.filter(|_| quiet),
            self.come_back_due.filter(|_| quiet || matches!(self.stage, Stage::Upstream { .. })),
            self.retry.and_then(|retry| retry.due),
            self.ending.map(|ending| ending.since + session.rules.catch_up),
        ]
        .into_iter()
        .flatten()
        .min()
    }
}

impl Session {
    /// A span that differs a little from session to session, so that they do not all wake at once.
    pub(super) fn jittered(&self, span: Duration) -> Duration {
        let mut seed = self.setting.seed ^ u64::from(self.serial).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        seed ^= seed >> 29;
        seed = seed.wrapping_mul(0xBF58_476D_1CE4_E5B9);
        seed ^= seed >> 32;
        // Between 0.85 and 1.0 of it.
        span.mul_f64(1.0 - 0.15 * (seed % 1024) as f64 / 1024.0)
    }

    pub(super) fn idle_timeout(&mut self, now: Instant) {
        let keepalive = self.jittered(self.rules.keepalive);
        let Some(idle) = &mut self.idle else { return };
        let past = |due: Option<Instant>| due.is_some_and(|due| due <= now);
        if idle.autologout_due <= now {
            return self.bye("Autologout: idle for too long", "autologout");
        }
        if past(idle.ending.map(|ending| ending.since + self.rules.catch_up)) {
            return self.bye("[UNAVAILABLE] The mail server does not catch up: log in again", "upstream_lags");
        }
        if idle.keepalive_due <= now {
            idle.keepalive_due = now + keepalive;
            if idle.told {
                self.to_client.extend_from_slice(b"* OK Still here\r\n");
            }
        }
        if past(idle.register_due) {
            idle.register_due = None;
            if idle.stage == Stage::Registering {
                return self.hand_over(now);
            }
        }
        if let Some(Retry { why, due: due @ Some(_), .. }) = &mut idle.retry
            && past(*due)
        {
            *due = None;
            let why = *why;
            return self.level(now, why);
        }
        if self.questions.is_none() || matches!(idle.stage, Stage::Upstream { .. }) {
            self.quiet_timeout(now);
        }
    }

    /// What is due only while nothing is asked.
    fn quiet_timeout(&mut self, now: Instant) {
        let audit_due = now + self.jittered(self.rules.audit);
        let checks_rights = self.checks_rights();
        let Some(idle) = &mut self.idle else { return };
        let past = |due: Option<Instant>| due.is_some_and(|due| due <= now);
        if past(idle.check_due) {
            idle.check_due = None;
            if let Some(view) = &idle.view {
                idle.ask |= view.unanswered() | view.flags_to_compare();
                if view.is_doubtful() || !idle.ask.is_empty() {
                    self.level(now, Why::Refresh);
                }
            }
        } else if idle.audit_due <= now {
            idle.audit_due = audit_due;
            match idle.stage {
                Stage::Idling if idle.view.is_some() && (self.connected || checks_rights) => self.level(now, Why::Refresh),
                // Nothing is selected, but the connection must not log out.
                Stage::Idling if self.connected => {
                    self.ask_for(now, Purpose::Poll, News::Mirrored, Numbers::default(), [Question::Noop]);
                }
                Stage::Upstream { running: true, leaving: false } | Stage::Polling if checks_rights => {
                    self.ask_rights_of_the_servers(now);
                }
                Stage::Upstream { running: true, leaving: false } => self.leave_upstream(now),
                _ => {}
            }
        } else if past(idle.come_back_due) {
            self.come_back_after_pause(now);
        } else if past(idle.poll_due) {
            self.poll(now);
        } else if past(idle.park_due) {
            self.park(now);
        }
    }
}
