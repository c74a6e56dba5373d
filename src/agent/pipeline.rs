//! From the spool to the cluster: events of one mailbox in their order, different mailboxes side by side.
//!
//! Each mailbox with events under way has a lane, a task of its own, so that one that waits for its flags or for its
//! queue holds up no other. What is read ahead of the spool's head is bounded by bytes.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{error, info, warn};

use super::complete::{FlagSource, complete};
use super::metrics::AgentMetrics;
use super::spool::{Cursor, Spool};
use crate::lock::{Mutex, rank};
use crate::mail::codec::from_msgpack;
use crate::mail::event::{Change, Event};
use crate::mail::path::MailboxPath;
use crate::push::publisher::{PublishError, Publisher};
use crate::tasks::vital;

/// Events under way, at most, in bytes of the spool.
const UNDER_WAY: usize = 16 * 1024 * 1024;
/// What an event costs beside its own bytes.
const OVERHEAD: usize = 4096;
/// Read from the spool at once, in bytes.
const READ: usize = 256 * 1024;
/// Events of one mailbox completed and published together.
const BATCH: usize = 64;
/// Between attempts to publish: the first pause, and the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// Why an event is not published.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{reason}")]
pub struct Refusal {
    pub reason: String,
    /// Whether the same event may succeed later.
    pub transient: bool,
}

impl From<PublishError> for Refusal {
    fn from(error: PublishError) -> Self {
        Self { transient: error.is_transient(), reason: error.to_string() }
    }
}

/// Where events go.
#[async_trait]
pub trait Sink: Send + Sync {
    /// One result an event; sends begin in the events' order.
    async fn publish(&self, events: &[Event]) -> Vec<Result<(), Refusal>>;
}

#[async_trait]
impl Sink for Publisher {
    async fn publish(&self, events: &[Event]) -> Vec<Result<(), Refusal>> {
        let results = self.publish_batch(events).await;
        results.into_iter().map(|result| result.map(drop).map_err(Refusal::from)).collect()
    }
}

/// What a [`Pipeline`] works with.
pub struct Parts {
    pub spool: Arc<Spool>,
    pub sink: Arc<dyn Sink>,
    /// None: flags stay as they came.
    pub flags: Option<Arc<dyn FlagSource>>,
    pub metrics: Arc<AgentMetrics>,
}

/// Publishes what the spool holds, with a lane for each mailbox. It ends as soon as its token is
/// cancelled.
pub struct Pipeline {
    parts: Parts,
    lanes: Mutex<HashMap<MailboxPath, Arc<Lane>>, { rank::LANES }>,
    budget: Arc<Semaphore>,
    tasks: TaskTracker,
    stop: CancellationToken,
    /// The last refusal, until something is published again.
    trouble: Mutex<Option<String>>,
}

#[derive(Default)]
struct Lane {
    waiting: Mutex<VecDeque<Waiting>>,
}

struct Waiting {
    number: u64,
    event: Event,
    /// Its part of the budget.
    _permit: OwnedSemaphorePermit,
}

impl Pipeline {
    pub fn start(parts: Parts, stop: CancellationToken) -> Arc<Self> {
        let pipeline = Arc::new(Self {
            parts,
            lanes: Mutex::default(),
            budget: Arc::new(Semaphore::new(UNDER_WAY)),
            tasks: TaskTracker::new(),
            stop,
            trouble: Mutex::default(),
        });
        let reader = pipeline.clone();
        pipeline.tasks.spawn(vital("spool reader", async move {
            let stop = reader.stop.clone();
            let _ = stop.run_until_cancelled(reader.read()).await;
        }));
        pipeline
    }

    /// Why events are not published at the moment, if they are not.
    pub fn trouble(&self) -> Option<String> {
        self.trouble.lock().clone()
    }

    /// Waits until everything has ended, after the token was cancelled.
    pub async fn ended(&self) {
        self.tasks.close();
        self.tasks.wait().await;
    }

    async fn read(self: Arc<Self>) {
        let mut cursor = Cursor::default();
        loop {
            let spool = self.parts.spool.clone();
            let read = tokio::task::spawn_blocking(move || {
                let records = spool.read(&mut cursor, READ);
                (cursor, records)
            });
            let Ok((moved, records)) = read.await else {
                error!("reading the spool has failed");
                self.stop.cancel();
                return;
            };
            cursor = moved;
            if records.is_empty() {
                self.parts.spool.appended().await;
                continue;
            }
            for (number, payload) in records {
                let cost = (payload.len() + OVERHEAD).min(UNDER_WAY) as u32;
                // Closed never.
                let Ok(permit) = self.budget.clone().acquire_many_owned(cost).await else { return };
                match from_msgpack(&payload, None) {
                    Ok(event) => self.enter(Waiting { number, event, _permit: permit }),
                    Err(error) => {
                        error!(%error, "what is in the spool is no event, and is dropped");
                        self.parts.metrics.dropped.inc();
                        self.parts.spool.done(number);
                    }
                }
            }
        }
    }

    /// Puts an event into its mailbox's lane. Both names of a renamed mailbox are one lane, as long as it stands.
    fn enter(self: &Arc<Self>, waiting: Waiting) {
        let mut lanes = self.lanes.lock();
        let path = waiting.event.mailbox.clone();
        let to = match &waiting.event.change {
            Change::MailboxRename { to } => Some(to.clone()),
            _ => None,
        };
        let lane = match lanes.get(&path) {
            Some(lane) => {
                lane.push(waiting);
                lane.clone()
            }
            None => {
                let lane = Arc::new(Lane::default());
                lane.push(waiting);
                lanes.insert(path, lane.clone());
                let (pipeline, driven) = (self.clone(), lane.clone());
                // A lane that nobody drives would hold its mailbox's events for ever.
                self.tasks.spawn(vital("spool lane", async move {
                    let stop = pipeline.stop.clone();
                    let _ = stop.run_until_cancelled(pipeline.drive(driven)).await;
                }));
                lane
            }
        };
        if let Some(to) = to {
            lanes.entry(to).or_insert(lane);
        }
    }

    /// Publishes what comes into a lane until it is empty.
    async fn drive(self: Arc<Self>, lane: Arc<Lane>) {
        loop {
            let batch: Vec<Waiting> = {
                let mut lanes = self.lanes.lock();
                let mut waiting = lane.waiting.lock();
                if waiting.is_empty() {
                    lanes.retain(|_, other| !Arc::ptr_eq(other, &lane));
                    return;
                }
                let count = waiting.len().min(BATCH);
                waiting.drain(..count).collect()
            };
            self.publish(batch).await;
        }
    }

    async fn publish(&self, batch: Vec<Waiting>) {
        let (numbers, mut events): (Vec<u64>, Vec<Event>) = batch.iter().map(|w| (w.number, w.event.clone())).unzip();
        if let Some(source) = &self.parts.flags {
            complete(&**source, &mut events, &self.parts.metrics).await;
        }
        let mut next = 0;
        let mut pause = FIRST_PAUSE;
        while next < events.len() {
            let results = self.parts.sink.publish(&events[next..]).await;
            let mut refusal = None;
            for result in results {
                match result {
                    Ok(()) => self.note_published(),
                    Err(error) if error.transient => {
                        refusal = Some(error.reason);
                        break;
                    }
                    Err(error) => {
                        let event = &events[next];
                        warn!(event = %event.id, kind = %event.event_type(), reason = error.reason, "an event can never be published, and is dropped");
                        self.parts.metrics.dropped.inc();
                    }
                }
                self.parts.spool.done(numbers[next]);
                next += 1;
                pause = FIRST_PAUSE;
            }
            // Everything from the first failure on goes again: its order matters more than that some may come twice.
            if let Some(reason) = refusal {
                self.parts.metrics.retries.inc();
                self.note_trouble(reason);
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
        }
    }

    fn note_published(&self) {
        if self.trouble.lock().take().is_some() {
            info!("events are being published again");
        }
    }

    fn note_trouble(&self, reason: String) {
        let before = self.trouble.lock().replace(reason.clone());
        if before.is_none() {
            warn!(reason, "events cannot be published for now, and wait in the spool");
        }
    }
}

impl Lane {
    fn push(&self, waiting: Waiting) {
        self.waiting.lock().push_back(waiting);
    }
}

#[cfg(test)]
#[path = "pipeline_tests.rs"]
mod tests;
