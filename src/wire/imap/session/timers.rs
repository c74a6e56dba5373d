//! The session's one table of timers: what each is for, and when it is due.

use std::time::{Duration, Instant};

/// What can become due, in the order in which it is handled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Timer {
    /// The client must have logged in.
    Login,
    /// The server must have answered what it was asked.
    Answer,
    /// A client that idles without a word is logged out.
    Autologout,
    /// The client has ended IDLE and cannot be answered: the server does not catch up.
    Leave,
    /// `* OK Still here`.
    KeepAlive,
    /// The registration is not waited for any longer.
    Registration,
    /// The server is asked again.
    Retry,
    /// A count that disagreed is looked at again.
    Check,
    /// The audit: the server is asked although no event and no doubt asks for it.
    Audit,
    /// A server that did not answer as it must is asked again, and does not idle itself any longer.
    Resume,
    /// A server that does not idle is asked what is new.
    Poll,
    /// The upstream connection is let go.
    Park,
}

impl Timer {
    const ALL: [Self; 12] = [
        Self::Login,
        Self::Answer,
        Self::Autologout,
        Self::Leave,
        Self::KeepAlive,
        Self::Registration,
        Self::Retry,
        Self::Check,
        Self::Audit,
        Self::Resume,
        Self::Poll,
        Self::Park,
    ];

    /// Whether it waits until nothing is asked of the server.
    pub fn waits_for_answers(self) -> bool {
        matches!(self, Self::Check | Self::Audit | Self::Resume | Self::Poll | Self::Park)
    }
}

/// A deadline for each timer that is set.
#[derive(Debug)]
pub(super) struct Timers {
    /// Deadlines count from here: half as large as instants, in every idle session.
    epoch: Instant,
    /// In nanoseconds; [`UNSET`] where none is set.
    due: [u64; Timer::ALL.len()],
}

const UNSET: u64 = u64::MAX;

impl Timers {
    pub fn new(now: Instant) -> Self {
        Self { epoch: now, due: [UNSET; Timer::ALL.len()] }
    }

    pub fn set(&mut self, timer: Timer, due: Instant) {
        let since = due.saturating_duration_since(self.epoch).as_nanos();
        self.due[timer as usize] = u64::try_from(since).unwrap_or(UNSET - 1);
    }

    /// Sets it, unless it is due before that.
    pub fn set_at_latest(&mut self, timer: Timer, due: Instant) {
        let before = self.due[timer as usize];
        self.set(timer, due);
        self.due[timer as usize] = self.due[timer as usize].min(before);
    }

    /// Sets it, or stops it.
    pub fn set_or_stop(&mut self, timer: Timer, due: Option<Instant>) {
        match due {
            Some(due) => self.set(timer, due),
            None => self.stop(timer),
        }
    }

    pub fn stop(&mut self, timer: Timer) {
        self.due[timer as usize] = UNSET;
    }

    /// Stops all.
    pub fn clear(&mut self) {
        self.due = [UNSET; Timer::ALL.len()];
    }

    pub fn is_set(&self, timer: Timer) -> bool {
        self.due[timer as usize] != UNSET
    }

    /// When the first of those that `may` be due is.
    pub fn next(&self, may: impl Fn(Timer) -> bool) -> Option<Instant> {
        let due = Timer::ALL.into_iter().filter(|timer| may(*timer)).map(|timer| self.due[timer as usize]).min()?;
        (due != UNSET).then(|| self.epoch + Duration::from_nanos(due))
    }

    /// Takes the first of those that `may` be due, and are.
    pub fn expire(&mut self, now: Instant, may: impl Fn(Timer) -> bool) -> Option<Timer> {
        let now = u64::try_from(now.saturating_duration_since(self.epoch).as_nanos()).unwrap_or(UNSET - 1);
        let expired = Timer::ALL.into_iter().find(|timer| may(*timer) && self.due[*timer as usize] <= now)?;
        self.stop(expired);
        Some(expired)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_that_may_be_due_is_taken_once() {
        assert!(Timer::ALL.iter().enumerate().all(|(at, timer)| *timer as usize == at));
        let now = Instant::now();
        let seconds = |n| now + Duration::from_secs(n);
        let mut timers = Timers::new(now);
        assert_eq!((timers.next(|_| true), timers.expire(seconds(9), |_| true)), (None, None));
        timers.set(Timer::Park, seconds(1));
        timers.set(Timer::Check, seconds(2));
        timers.set(Timer::Leave, seconds(3));
        assert_eq!(timers.next(|_| true), Some(seconds(1)));
        assert_eq!(timers.next(|timer| !timer.waits_for_answers()), Some(seconds(3)));
        assert_eq!(timers.expire(now, |_| true), None);
        assert_eq!(timers.expire(seconds(3), |timer| timer != Timer::Leave), Some(Timer::Check));
        assert_eq!(timers.expire(seconds(3), |_| true), Some(Timer::Leave));
        timers.stop(Timer::Park);
        for (at_latest, due) in [(5, 5), (7, 5), (4, 4)] {
            timers.set_at_latest(Timer::Park, seconds(at_latest));
            assert_eq!(timers.next(|_| true), Some(seconds(due)));
        }
        timers.set_or_stop(Timer::Park, None);
        assert!(!timers.is_set(Timer::Park));
        assert_eq!(timers.expire(seconds(9), |_| true), None);
        // Longer than a session lives.
        timers.set(Timer::Poll, now + Duration::from_secs(1 << 40));
        assert!(timers.is_set(Timer::Poll) && timers.next(|_| true) > Some(seconds(1 << 32)));
    }
}
