//! Tasks that a process cannot do without.
//!
//! A panic ends the task that it happens in, and nothing else. Where everything else depends on
//! that task, the process would live on half alive: with its port closed, or with keys that are
//! never fetched again. Such a task is wrapped in [`vital`]: its panic is a failure of the process,
//! which drains and ends, so that its supervisor starts it anew. A task of one connection, one
//! session or one request is not wrapped: its panic ends that one.

use std::sync::LazyLock;

use tokio_util::sync::CancellationToken;
use tracing::error;

/// Of the process, not of a node: what has panicked cannot be put right by anybody in it.
static FAILED: LazyLock<CancellationToken> = LazyLock::new(CancellationToken::new);

/// The same task; should it panic, the process has failed.
pub async fn vital<T>(name: &'static str, task: impl Future<Output = T>) -> T {
    let _watch = Watch(name);
    task.await
}

/// Returns once a vital task has panicked.
pub async fn failed() {
    FAILED.cancelled().await;
}

struct Watch(&'static str);

impl Drop for Watch {
    fn drop(&mut self) {
        if std::thread::panicking() {
            error!(task = self.0, "a task that the process cannot do without has panicked");
            FAILED.cancel();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_a_panic_is_a_failure() {
        assert_eq!(vital("one that ends", async { 7 }).await, 7);
        let aborted = tokio::spawn(vital("one that is aborted", std::future::pending::<()>()));
        aborted.abort();
        assert!(aborted.await.unwrap_err().is_cancelled());
        assert!(!FAILED.is_cancelled());
        let panicking = async {
            tokio::task::yield_now().await;
            panic!("a test wants this")
        };
        assert!(tokio::spawn(vital::<()>("one that panics", panicking)).await.unwrap_err().is_panic());
        failed().await;
    }
}
