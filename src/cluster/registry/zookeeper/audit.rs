//! When which registration is looked at: all of them once a round, spread over it, so that many cost no more at once than few.
//!
//! Nobody but this node deletes its registrations, unless an administrator does, or a server was restored from an old
//! snapshot. No watch is kept for that on each znode; the round bounds how long it stays unnoticed.

use std::time::{Duration, Instant};

use super::batch::BATCH;
use crate::mail::key::Key;

/// The rounds of one session slot: pure planning.
pub struct Audit {
    round: Duration,
    waiting: Vec<Key>,
    due: Instant,
    pause: Duration,
}

impl Audit {
    /// The first round begins one after `now`, for everything has just been registered.
    pub fn new(round: Duration, now: Instant) -> Self {
        Self { round, waiting: Vec::new(), due: now + round, pause: round }
    }

    /// When the next keys are due.
    pub fn due(&self) -> Instant {
        self.due
    }

    /// The keys that are due now, at most [`BATCH`]. `standing` is asked for all there are where a round begins.
    pub fn take(&mut self, now: Instant, standing: impl FnOnce() -> Vec<Key>) -> Vec<Key> {
        if now < self.due {
            return Vec::new();
        }
        if self.waiting.is_empty() {
            self.waiting = standing();
            let batches = self.waiting.len().div_ceil(BATCH).max(1);
            self.pause = self.round / u32::try_from(batches).unwrap_or(u32::MAX);
        }
        self.due = now + self.pause;
        self.waiting.split_off(self.waiting.len().saturating_sub(BATCH))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mail::user::UserName;

    fn keys(count: usize) -> Vec<Key> {
        (0..count).map(|n| Key::Account(UserName::new(format!("user{n}")).unwrap())).collect()
    }

    #[test]
    fn a_round_looks_at_each_key_once_and_lasts_as_long_as_it_should() {
        for count in [0, 1, 100, 101, 950] {
            let (round, start) = (Duration::from_secs(20), Instant::now());
            let mut audit = Audit::new(round, start);
            assert!(audit.take(start, || panic!("too early")).is_empty());
            let mut seen = Vec::new();
            while audit.due() < start + round * 2 - Duration::from_millis(1) {
                let now = audit.due();
                let some = audit.take(now, || keys(count));
                assert!(some.len() <= BATCH);
                seen.extend(some);
            }
            seen.sort();
            let mut all = keys(count);
            all.sort();
            assert_eq!(seen, all, "{count}");
        }
    }
}
