//! Durations as people write them.

use std::time::Duration;

use jiff::{Span, SpanRelativeTo};

/// Reads `90s`, `1h30m`, `7d` (a day is 24 hours) or ISO 8601 (`PT1H`). Positive only.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let hint = || format!("{text:?} is not a duration: write 90s, 15m, 1h30m or 7d");
    let span: Span = text.parse().map_err(|_| hint())?;
    let duration = span.to_duration(SpanRelativeTo::days_are_24_hours()).map_err(|_| hint())?;
    Duration::try_from(duration).ok().filter(|duration| !duration.is_zero()).ok_or_else(hint)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn people_write_durations_in_many_ways() {
        let seconds = |text| parse_duration(text).map(|duration| duration.as_secs());
        for (text, expected) in [("90s", 90), ("15m", 900), ("1h30m", 5400), ("7d", 604_800), ("1 hour", 3600), ("PT1H", 3600)] {
            assert_eq!(seconds(text), Ok(expected), "{text}");
        }
        for bad in ["", "1", "0s", "-1h", "1h ago", "1 month", "soon"] {
            assert!(seconds(bad).is_err(), "{bad}");
        }
    }
}
