//! The health of the whole: the worst of its parts.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use super::standing::severity;
use crate::cluster::registry::RegistryHealth;
use crate::lock::Mutex;

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
        let mut parts = self.parts.lock();
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

/// Something that goes wrong again and again, and is said once for each reason.
#[derive(Debug, Default)]
pub struct Trouble(Option<String>);

impl Trouble {
    /// Whether this reason has not been said yet.
    pub fn is_news(&mut self, reason: &str) -> bool {
        let is_news = self.0.as_deref() != Some(reason);
        if is_news {
            self.0 = Some(reason.to_owned());
        }
        is_news
    }

    /// It has ended; whether there was any.
    pub fn end(&mut self) -> bool {
        self.0.take().is_some()
    }

    pub fn reason(&self) -> Option<&str> {
        self.0.as_deref()
    }
}

/// Pauses before attempts: none before the first; then growing, and jittered, so that a cluster does not come
/// back as one.
pub struct Backoff {
    failures: u32,
}

impl Backoff {
    const FIRST: Duration = Duration::from_millis(50);
    const LONGEST: Duration = Duration::from_millis(2_000);
    /// A connection that has held for so long was good.
    const GOOD: Duration = Duration::from_secs(10);

    pub fn new() -> Self {
        Self { failures: 0 }
    }

    pub fn handle_failure(&mut self) {
        self.failures = self.failures.saturating_add(1);
    }

    /// A connection has ended after `lived`.
    pub fn handle_end(&mut self, lived: Duration) {
        self.failures = if lived >= Self::GOOD { 1 } else { self.failures.saturating_add(1) };
    }

    /// How long to wait before the next attempt: half to all of 50 ms, doubled with each failure up to 2 s.
    pub fn pause(&self) -> Option<Duration> {
        let doublings = self.failures.checked_sub(1)?.min(10);
        Some(jittered(Self::LONGEST.min(Self::FIRST * (1 << doublings))))
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
        assert_eq!(backoff.pause(), None);
        backoff.handle_end(Duration::from_millis(1));
        let first = backoff.pause().unwrap();
        assert!((25..=50).contains(&first.as_millis()), "{first:?}");
        (0..10).for_each(|_| backoff.handle_failure());
        let later: Vec<u128> = (0..30).map(|_| backoff.pause().unwrap().as_millis()).collect();
        assert!(later.iter().all(|pause| (1_000..=2_000).contains(pause)), "{later:?}");
        assert!(later.iter().any(|pause| *pause != later[0]), "{later:?}");
        backoff.handle_end(Duration::from_secs(60));
        assert!(backoff.pause().unwrap().as_millis() <= 50);
    }
}
