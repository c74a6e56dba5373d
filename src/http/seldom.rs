//! What would fill a log is said seldom, with how often it was so.

use std::time::{Duration, Instant};

/// Between two lines about the same.
const INTERVAL: Duration = Duration::from_secs(10);

/// Counts what happens, and says when that should be told.
#[derive(Debug, Default)]
pub struct Seldom {
    told: Option<Instant>,
    times: u64,
}

impl Seldom {
    /// It has happened once more. How often since it was last told, if it should be told now.
    pub fn again(&mut self, now: Instant) -> Option<u64> {
        self.times += 1;
        if self.told.is_some_and(|told| now.saturating_duration_since(told) < INTERVAL) {
            return None;
        }
        self.told = Some(now);
        Some(std::mem::take(&mut self.times))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_a_line_every_ten_seconds() {
        let (mut seldom, begin) = (Seldom::default(), Instant::now());
        let times: Vec<u64> = (0..1_000).filter_map(|n| seldom.again(begin + Duration::from_millis(25 * n))).collect();
        assert_eq!(times, [1, 400, 400]);
    }
}
