//! Waiting for a condition, with a deadline: never a fixed sleep.

use std::time::{Duration, Instant};

/// Asks again and again until there is an answer; panics with `what` after the deadline.
pub async fn eventually<T>(what: &str, deadline: Duration, mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    let end = Instant::now() + deadline;
    loop {
        if let Some(answer) = ask().await {
            return answer;
        }
        assert!(Instant::now() < end, "did not happen within {deadline:?}: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
