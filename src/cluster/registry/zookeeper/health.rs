//! The health of the whole: the worst of its parts.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::watch;

use super::standing::severity;
use crate::cluster::registry::RegistryHealth;

/// What every connection to ZooKeeper reports to.
pub struct HealthBoard {
    parts: Mutex<HashMap<String, RegistryHealth>>,
    worst: watch::Sender<RegistryHealth>,
}

impl HealthBoard {
    pub fn new() -> Arc<Self> {
        let connecting = RegistryHealth::Disconnected { reason: "connecting to ZooKeeper".to_owned() };
        Arc::new(Self { parts: Mutex::default(), worst: watch::Sender::new(connecting) })
    }

    pub fn subscribe(&self) -> watch::Receiver<RegistryHealth> {
        self.worst.subscribe()
    }

    /// `part` is doing so from now on; `None`: it has ended and counts no more.
    pub fn set(&self, part: &str, health: Option<RegistryHealth>) {
        let mut parts = self.parts.lock().unwrap_or_else(PoisonError::into_inner);
        match health {
            Some(health) if parts.get(part) == Some(&health) => return,
            Some(health) => parts.insert(part.to_owned(), health),
            None => parts.remove(part),
        };
        let worst = parts.values().max_by_key(|health| severity(health)).cloned();
        let worst = worst.unwrap_or(RegistryHealth::Disconnected { reason: "the registry is closed".to_owned() });
        self.worst.send_if_modified(|shown| {
            // The reason of a silence counts milliseconds: only a change of level is news.
            let changed = severity(shown) != severity(&worst);
            *shown = worst;
            changed
        });
    }
}

/// Pauses between attempts: growing, and jittered, so that a cluster does not come back as one.
pub struct Backoff {
    attempts: u32,
}

impl Backoff {
    const FIRST: Duration = Duration::from_millis(50);
    const LONGEST: Duration = Duration::from_millis(2_000);

    pub fn new() -> Self {
        Self { attempts: 0 }
    }

    pub fn reset(&mut self) {
        self.attempts = 0;
    }

    /// Half to all of 50 ms, doubled with each attempt up to 2 s.
    pub fn next_pause(&mut self) -> Duration {
        let pause = Self::LONGEST.min(Self::FIRST * (1 << self.attempts.min(10)));
        self.attempts = self.attempts.saturating_add(1);
        jittered(pause)
    }
}

/// Half to all of `pause`.
pub fn jittered(pause: Duration) -> Duration {
    // Every RandomState differs, which is all the randomness that is needed.
    let random = RandomState::new().build_hasher().finish() as u32;
    pause / 2 + pause.mul_f64(f64::from(random) / f64::from(u32::MAX) / 2.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worst_counts() {
        let board = HealthBoard::new();
        let shown = board.subscribe();
        let lost = RegistryHealth::Lost { reason: "expired".to_owned() };
        board.set("slot 0", Some(RegistryHealth::Connected));
        assert!(shown.borrow().is_connected());
        board.set("slot 1", Some(lost.clone()));
        assert_eq!(*shown.borrow(), lost);
        board.set("slot 1", None);
        assert!(shown.borrow().is_connected());
        board.set("slot 0", None);
        assert!(!shown.borrow().is_connected());
    }

    #[test]
    fn pauses_grow_and_differ() {
        let mut backoff = Backoff::new();
        let first = backoff.next_pause();
        assert!((25..=50).contains(&first.as_millis()), "{first:?}");
        let later: Vec<u128> = (0..40).map(|_| backoff.next_pause().as_millis()).skip(10).collect();
        assert!(later.iter().all(|pause| (1_000..=2_000).contains(pause)), "{later:?}");
        assert!(later.iter().any(|pause| *pause != later[0]), "{later:?}");
    }
}
