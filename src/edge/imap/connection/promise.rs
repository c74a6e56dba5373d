//! Whoever has the OK of a change of an ACL knows that nothing published later is told to those who
//! lost their right by it: what is due to the client waits until every queue that wants the change
//! has taken it.

use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use futures::FutureExt;
use tokio::sync::oneshot;

/// How long the client waits at most: while the queues are away the change goes out later, and the
/// server has made it already.
const PROMISE_TIMEOUT: Duration = Duration::from_secs(1);

/// What was due to the client is held until this is over.
pub(super) struct Promise {
    /// Resolves, or is given up, once there is nothing to wait for.
    told: oneshot::Receiver<()>,
    deadline: Instant,
}

impl Promise {
    pub fn new(told: oneshot::Receiver<()>) -> Self {
        Self { told, deadline: Instant::now() + PROMISE_TIMEOUT }
    }

    pub fn deadline(&self) -> Instant {
        self.deadline
    }

    /// Whether it is kept, or waited for too long. Not to be asked again once it is.
    pub fn is_over(&mut self, cx: &mut Context<'_>) -> bool {
        Instant::now() >= self.deadline || matches!(self.told.poll_unpin(cx), Poll::Ready(_))
    }
}
