//! What Kafka forbids this process: for readiness, and for one line in the log when it begins and one when it ends.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::cluster::queue::QueueName;
use crate::lock::Mutex;

/// For how long a denial of writing is believed after it was last met. Only by writing can it be found out that it has ended,
/// and perhaps nobody writes any more.
const BELIEVED: Duration = Duration::from_secs(60);

/// What may be forbidden.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Right {
    Read,
    Write,
}

/// The denials that were met and have not ended.
#[derive(Default)]
pub(super) struct Denials {
    by_queue: Mutex<HashMap<(Right, QueueName), Denial>>,
    /// Whether there are any: read on each send.
    any: AtomicBool,
}

struct Denial {
    reason: String,
    last: Instant,
}

impl Denials {
    /// The cluster has just denied this right.
    pub(super) fn note(&self, right: Right, queue: &QueueName, reason: &str, now: Instant) {
        self.any.store(true, Ordering::Relaxed);
        let denial = Denial { reason: reason.to_owned(), last: now };
        if self.by_queue.lock().insert((right, queue.clone()), denial).is_some() {
            return;
        }
        match right {
            Right::Write => tracing::warn!(
                %queue, reason,
                "Kafka does not let this process write to a queue: events wait where they came from until it does"
            ),
            Right::Read => tracing::warn!(
                %queue, reason,
                "Kafka does not let this node read its queue: its clients hear nothing until it does"
            ),
        }
    }

    /// The cluster has just granted this right.
    pub(super) fn end(&self, right: Right, queue: &QueueName) {
        if !self.any.load(Ordering::Relaxed) {
            return;
        }
        let ended = {
            let mut by_queue = self.by_queue.lock();
            let ended = by_queue.remove(&(right, queue.clone()));
            self.any.store(!by_queue.is_empty(), Ordering::Relaxed);
            ended
        };
        if ended.is_some() {
            let right = if right == Right::Write { "write to" } else { "read" };
            tracing::info!(%queue, "Kafka lets this process {right} the queue again");
        }
    }

    /// Why the process may not read this queue.
    pub(super) fn of_reading(&self, queue: &QueueName) -> Option<String> {
        let by_queue = self.by_queue.lock();
        by_queue.get(&(Right::Read, queue.clone())).map(|denial| denial.reason.clone())
    }

    /// Why the process may not write to some queue, in words that name the first of them. Forgets what is old.
    pub(super) fn of_writing(&self, now: Instant) -> Option<String> {
        let mut by_queue = self.by_queue.lock();
        by_queue.retain(|(right, _), denial| *right == Right::Read || now.saturating_duration_since(denial.last) < BELIEVED);
        self.any.store(!by_queue.is_empty(), Ordering::Relaxed);
        let denied = by_queue.iter().filter(|((right, _), _)| *right == Right::Write);
        let ((_, queue), denial) = denied.min_by(|(a, _), (b, _)| a.1.cmp(&b.1))?;
        Some(format!("{queue}: {}", denial.reason))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn queue(name: &str) -> QueueName {
        name.parse().unwrap()
    }

    #[test]
    fn a_denial_lasts_until_it_ends_or_nobody_meets_it_any_more() {
        let (denials, start) = (Denials::default(), Instant::now());
        let later = |seconds| start + Duration::from_secs(seconds);
        denials.note(Right::Write, &queue("b"), "no right", start);
        denials.note(Right::Write, &queue("a"), "no right", start);
        assert_eq!(denials.of_writing(start).as_deref(), Some("a: no right"));
        denials.end(Right::Write, &queue("a"));
        denials.note(Right::Write, &queue("b"), "still none", later(30));
        assert_eq!(denials.of_writing(later(89)).as_deref(), Some("b: still none"));
        assert_eq!(denials.of_writing(later(90)), None);
    }

    #[test]
    fn reading_and_writing_are_apart_and_reading_is_believed_until_it_ends() {
        let (denials, start) = (Denials::default(), Instant::now());
        denials.note(Right::Read, &queue("a"), "no right", start);
        assert_eq!(denials.of_writing(start + BELIEVED * 2), None);
        assert_eq!(denials.of_reading(&queue("a")).as_deref(), Some("no right"));
        assert_eq!(denials.of_reading(&queue("b")), None);
        denials.end(Right::Write, &queue("a"));
        assert!(denials.of_reading(&queue("a")).is_some());
        denials.end(Right::Read, &queue("a"));
        assert_eq!(denials.of_reading(&queue("a")), None);
    }
}
