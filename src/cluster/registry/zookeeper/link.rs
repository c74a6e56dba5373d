//! A publisher's connection to one ensemble, as others see it: questions go in, and answers come back or not.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::access::Access;
use super::cache::Answers;
use super::health::HealthBoard;
use super::lookups::Lookups;
use super::nodes::Nodes;
use crate::cluster::queue::QueueName;
use crate::cluster::registry::{QueueNames, RegistryError};
use crate::mail::key::Key;
use crate::tasks::vital;

/// Lookups that wait to be sent; beyond it, who asks waits, and falls back when the time is over.
const WAITING: usize = 4_096;

/// For each key its queues, or `None` where that cannot be known now.
pub type Found = Vec<Option<Arc<[QueueName]>>>;

/// A question, and who waits for its answer. A reply that is dropped is an answer too: it is not known.
pub enum Ask {
    Lookup { keys: Vec<Key>, reply: oneshot::Sender<Found> },
    Probe { reply: oneshot::Sender<Result<(), RegistryError>> },
}

/// The handle.
pub struct Link {
    pub answers: Arc<Answers>,
    asks: mpsc::Sender<Ask>,
    renew: Arc<Notify>,
    ready: watch::Receiver<bool>,
}

/// What a link is made with.
pub struct Settings {
    pub access: Arc<Access>,
    pub names: QueueNames,
    pub board: Arc<HealthBoard>,
    /// In the ensemble that knows the nodes.
    pub nodes: Option<Arc<Nodes>>,
    pub capacity: usize,
    pub settle: Duration,
    pub gone: CancellationToken,
}

impl Link {
    /// Starts the link's task.
    pub fn start(settings: Settings) -> Self {
        let answers = Arc::new(Answers::new(settings.capacity, settings.settle));
        let (asks, asked) = mpsc::channel(WAITING);
        let renew = Arc::new(Notify::new());
        let (is_ready, ready) = watch::channel(false);
        let lookups = Lookups::new(settings, answers.clone(), asked, renew.clone(), is_ready);
        tokio::spawn(vital("lookups", lookups.run()));
        Self { answers, asks, renew, ready }
    }

    /// Returns once the first attempt to connect has succeeded or failed.
    pub async fn tried(&self) {
        // The task sets it or ends.
        let _ = self.ready.clone().wait_for(|ready| *ready).await;
    }

    pub fn cached(&self, key: &Key) -> Option<Arc<[QueueName]>> {
        let (queues, renew) = self.answers.get(key, Instant::now());
        if renew {
            self.renew.notify_one();
        }
        queues
    }

    /// At most [`BATCH`] keys.
    pub async fn lookup(&self, keys: Vec<Key>) -> Option<Found> {
        let (reply, found) = oneshot::channel();
        self.asks.send(Ask::Lookup { keys, reply }).await.ok()?;
        found.await.ok()
    }

    pub async fn probe(&self) -> Result<(), RegistryError> {
        let (reply, answer) = oneshot::channel();
        self.asks.send(Ask::Probe { reply }).await.map_err(|_| RegistryError::Closed)?;
        answer.await.unwrap_or_else(|_| Err(RegistryError::Unreachable("the connection to ZooKeeper was lost".to_owned())))
    }
}

/// Waits for the first attempts of all, but not for long.
pub async fn tried(links: &[Link], patience: Duration) {
    let all = futures::future::join_all(links.iter().map(Link::tried));
    // What is not connected by then goes on trying.
    let _ = timeout(patience, all).await;
}
