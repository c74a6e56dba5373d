//! The pace at which upstream connections are taken up again.

use crate::lock::Mutex;
use std::time::Duration;

use tokio::time::Instant;

/// Whoever would wait for longer than this is told so at once.
const LONGEST_WAIT: Duration = Duration::from_secs(300);
/// Pace that may be saved up while nobody asks.
const SAVED: Duration = Duration::from_millis(100);

/// Hands out moments, evenly spaced: after an outage ten thousand sessions must not log in at once.
/// First come, first served; one that comes alone does not wait.
#[derive(Debug)]
pub struct Pace {
    interval: Duration,
    next: Mutex<Instant>,
}

impl Pace {
    pub fn per_second(rate: u32) -> Self {
        Self { interval: Duration::from_secs(1) / rate.max(1), next: Mutex::new(Instant::now()) }
    }

    /// When the next one may go; `None` where that is too far away.
    fn reserve(&self, now: Instant) -> Option<Instant> {
        let mut next = self.next.lock();
        let moment = (*next).max(now.checked_sub(SAVED).unwrap_or(now));
        if moment > now + LONGEST_WAIT {
            return None;
        }
        *next = moment + self.interval;
        Some(moment)
    }

    /// Waits for the caller's moment; `false` where that is too far away. `seed` spreads those that
    /// share one.
    pub async fn wait(&self, seed: u64) -> bool {
        let now = Instant::now();
        let Some(moment) = self.reserve(now) else { return false };
        if moment > now {
            let jitter = self.interval.mul_f64((seed % 1024) as f64 / 1024.0);
            tokio::time::sleep_until(moment + jitter).await;
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_crowd_is_spread_and_one_alone_does_not_wait() {
        let pace = Pace::per_second(100);
        let began = Instant::now();
        assert!(pace.wait(7).await);
        assert_eq!(began.elapsed(), Duration::ZERO);
        let waits = (0..1_000).map(|seed| {
            let pace = &pace;
            async move {
                assert!(pace.wait(seed).await);
                began.elapsed()
            }
        });
        let mut waits = futures::future::join_all(waits).await;
        waits.sort();
        let within = |limit| waits.iter().filter(|wait| **wait <= limit).count();
        assert!((85..=115).contains(&within(Duration::from_secs(1))), "{}", within(Duration::from_secs(1)));
        assert!((485..=515).contains(&within(Duration::from_secs(5))), "{}", within(Duration::from_secs(5)));
        assert!(waits[999] < Duration::from_secs(11));
        tokio::time::sleep(Duration::from_secs(60)).await;
        let quiet = Instant::now();
        assert!(pace.wait(1).await && quiet.elapsed().is_zero(), "it is over");
    }

    #[tokio::test(start_paused = true)]
    async fn who_would_wait_for_ever_is_told_so() {
        let pace = Pace::per_second(1);
        let now = Instant::now();
        let served = (0..1_000).filter(|_| pace.reserve(now).is_some()).count();
        assert_eq!(served, 301);
    }
}
