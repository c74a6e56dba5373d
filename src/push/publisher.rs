//! The publisher: looks a mailbox up, encodes once, and sends to the queues that want it and to no other.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::future::join_all;
use tokio::sync::Semaphore;
use tracing::{debug, warn};

use super::metrics::Metrics;
use crate::cluster::queue::{Producer, QueueError, QueueName, QueueSystem};
use crate::cluster::registry::{Directory, Interest};
use crate::mail::codec::to_msgpack;
use crate::mail::event::Event;
use crate::mail::key::Key;

/// Publishes events. Cheap to share; the library's way in for a mail store of one's own.
///
/// **Commit the change to your store before you publish it**: whoever subscribes after the lookup reads its state
/// from the store, so nothing is missed (I-4, I-5).
pub struct Publisher {
    directory: Arc<dyn Directory>,
    queues: Arc<dyn QueueSystem>,
    producer: Arc<dyn Producer>,
    metrics: Arc<Metrics>,
    options: Options,
    /// One permit per event being published.
    permits: Semaphore,
    /// The last list of all nodes' topics. Whoever needs it while it is being made waits for that one.
    listed: tokio::sync::Mutex<Option<(Instant, Vec<QueueName>)>>,
}

/// How a publisher behaves.
#[derive(Debug, Clone)]
pub struct Options {
    /// Also write every event here, once, keyed by mailbox.
    pub firehose: Option<QueueName>,
    /// An event that is larger when encoded is sent as a `MailboxChange`: without detail, but sent.
    pub max_event_bytes: usize,
    /// Events being published at once.
    pub max_in_flight: usize,
    /// Who is told while the registry cannot be trusted.
    pub everyone: Everyone,
}

/// Every node's queue, as far as it can be known without a registry.
#[derive(Debug, Clone)]
pub enum Everyone {
    /// The topics that begin so, as the queue system lists them.
    Topics(String),
    /// These: nodes share them.
    Queues(Vec<QueueName>),
}

/// How long a list of all nodes' topics is good for, while the registry is away.
const LIST_AGE: Duration = Duration::from_secs(2);
/// How long listing them may take.
const LIST_TIMEOUT: Duration = Duration::from_secs(5);

/// Where an event went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Published {
    /// The queues that took it; none if nobody wants it.
    pub queues: Vec<QueueName>,
    /// Whether it went to every known node, for the registry could not be trusted.
    pub everyone: bool,
}

/// Why an event is not published, or not everywhere: publish the same event again, with the same id. What arrives
/// twice is told once (I-8).
#[derive(Debug, Clone, thiserror::Error)]
pub enum PublishError {
    #[error("too many events are being published at once, come back later")]
    Full,
    /// No registry, and no node's queue is known: nobody can be told.
    #[error("neither the registry nor the queues can be reached: {0}")]
    NobodyKnown(String),
    #[error("the event did not reach every queue that wants it: {error}")]
    Queue { error: QueueError, taken: Vec<QueueName> },
}

impl PublishError {
    /// Whether trying again may help.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Full | Self::NobodyKnown(_) => true,
            Self::Queue { error, .. } => error.is_transient(),
        }
    }
}

impl Publisher {
    pub fn new(directory: Arc<dyn Directory>, queues: Arc<dyn QueueSystem>, metrics: Arc<Metrics>, options: Options) -> Self {
        let permits = Semaphore::new(options.max_in_flight.max(1));
        Self { producer: queues.producer(), directory, queues, metrics, options, permits, listed: tokio::sync::Mutex::default() }
    }

    /// Publishes one event.
    pub async fn publish(&self, event: &Event) -> Result<Published, PublishError> {
        let mut results = self.publish_batch(std::slice::from_ref(event)).await;
        // One event in, one result out.
        results.pop().unwrap_or(Err(PublishError::Full))
    }

    /// Publishes events in their order, with one lookup for all; one result each.
    pub async fn publish_batch(&self, events: &[Event]) -> Vec<Result<Published, PublishError>> {
        let Ok(_permits) = self.permits.try_acquire_many(u32::try_from(events.len().max(1)).unwrap_or(u32::MAX)) else {
            Metrics::add(&self.metrics.published, "outcome", "full", events.len() as u64);
            return events.iter().map(|_| Err(PublishError::Full)).collect();
        };
        let routes = self.routes(events).await;
        let mut buffer = Vec::with_capacity(512);
        let sends = events.iter().zip(routes).map(|(event, route)| {
            let payload = route.as_ref().ok().filter(|r| !r.queues.is_empty() || self.options.firehose.is_some()).map(|_| {
                to_msgpack(event, &mut buffer);
                if buffer.len() > self.options.max_event_bytes {
                    warn!(bytes = buffer.len(), event = %event.id, "an event is too large for a queue and goes without its detail");
                    to_msgpack(&event.without_detail(), &mut buffer);
                }
                Bytes::copy_from_slice(&buffer)
            });
            self.send(event, route, payload)
        });
        // `join_all` begins them in this order, which is the order that a mailbox's queue keeps.
        let results = join_all(sends.collect::<Vec<_>>()).await;
        for result in &results {
            let outcome = match result {
                Ok(published) if published.everyone => "everyone",
                Ok(published) if published.queues.is_empty() => "nobody",
                Ok(_) => "sent",
                Err(_) => "failed",
            };
            Metrics::count(&self.metrics.published, "outcome", outcome);
        }
        results
    }

    /// Which queues want each event.
    async fn routes(&self, events: &[Event]) -> Vec<Result<Published, PublishError>> {
        let keys: Vec<Vec<Key>> = events.iter().map(Event::keys).collect();
        let mut cached = Vec::new();
        let mut unknown = Vec::new();
        for key in keys.iter().flatten() {
            let answer = self.directory.cached(key);
            if answer.is_none() && !unknown.contains(key) {
                unknown.push(key.clone());
            }
            cached.push(answer);
        }
        Metrics::add(&self.metrics.lookups, "answer", "cache", cached.iter().flatten().count() as u64);
        let fresh = if unknown.is_empty() { Vec::new() } else { self.directory.lookup(&unknown).await };
        let distrusted = fresh.iter().filter(|interest| matches!(interest, Interest::Everyone(_))).count();
        Metrics::add(&self.metrics.lookups, "answer", "registry", (fresh.len() - distrusted) as u64);
        Metrics::add(&self.metrics.lookups, "answer", "everyone", distrusted as u64);
        // Asked for at most once a batch, and only where the registry fails.
        let mut everyone: Option<Result<Vec<QueueName>, PublishError>> = None;

        let mut cached = cached.into_iter();
        let mut routes = Vec::with_capacity(events.len());
        for keys in &keys {
            let mut queues: Vec<QueueName> = Vec::new();
            let mut fall_back = false;
            for key in keys {
                let known = cached.next().flatten();
                let answer = known.map(Interest::Queues).or_else(|| {
                    let at = unknown.iter().position(|asked| asked == key)?;
                    fresh.get(at).cloned()
                });
                match answer {
                    Some(Interest::Queues(wanted)) => queues.extend(wanted.iter().cloned()),
                    Some(Interest::Everyone(known)) => {
                        queues.extend(known.iter().cloned());
                        fall_back = true;
                    }
                    None => fall_back = true,
                }
            }
            if fall_back {
                if everyone.is_none() {
                    everyone = Some(self.everyone().await);
                }
                match &everyone {
                    Some(Ok(all)) => queues.extend(all.iter().cloned()),
                    Some(Err(error)) if queues.is_empty() => {
                        routes.push(Err(error.clone()));
                        continue;
                    }
                    _ => {}
                }
            }
            queues.sort_unstable();
            queues.dedup();
            routes.push(Ok(Published { queues, everyone: fall_back }));
        }
        routes
    }

    /// The queues of all nodes as the queue system knows them: the last resort while the registry is away, for a
    /// publisher that has just started knows no node, and one that has run for long may not know the newest.
    async fn everyone(&self) -> Result<Vec<QueueName>, PublishError> {
        let prefix = match &self.options.everyone {
            Everyone::Queues(queues) => return Ok(queues.clone()),
            Everyone::Topics(prefix) => prefix,
        };
        let mut listed = self.listed.lock().await;
        if let Some((at, queues)) = &*listed
            && at.elapsed() < LIST_AGE
        {
            return Ok(queues.clone());
        }
        let queues = match tokio::time::timeout(LIST_TIMEOUT, self.queues.names(prefix)).await {
            Ok(Ok(queues)) => queues,
            Ok(Err(error)) => return Err(PublishError::NobodyKnown(error.to_string())),
            Err(_) => return Err(PublishError::NobodyKnown("listing the queues took too long".to_owned())),
        };
        *listed = Some((Instant::now(), queues.clone()));
        Ok(queues)
    }

    async fn send(
        &self,
        event: &Event,
        route: Result<Published, PublishError>,
        payload: Option<Bytes>,
    ) -> Result<Published, PublishError> {
        let mut published = route?;
        let Some(payload) = payload else { return Ok(published) };
        let key = event.mailbox.as_str();
        let targets: Vec<&QueueName> = published.queues.iter().chain(&self.options.firehose).collect();
        let sent = join_all(targets.iter().map(|queue| self.producer.send(queue, key, payload.clone()))).await;
        let mut failure = None;
        let mut taken = Vec::new();
        for (queue, result) in targets.into_iter().zip(sent) {
            match result {
                Ok(()) => {
                    Metrics::count(&self.metrics.sends, "outcome", "sent");
                    taken.push(queue.clone());
                }
                // The node died, or will make the queue anew and tell its sessions to resync: nobody to tell here.
                Err(QueueError::NoSuchQueue(queue)) => {
                    Metrics::count(&self.metrics.sends, "outcome", "no_such_queue");
                    debug!(%queue, "a node that is registered has no queue any more");
                }
                Err(error) => {
                    Metrics::count(&self.metrics.sends, "outcome", "failed");
                    failure = Some(error);
                }
            }
        }
        if let Some(error) = failure {
            return Err(PublishError::Queue { error, taken });
        }
        published.queues = taken.into_iter().filter(|queue| Some(queue) != self.options.firehose.as_ref()).collect();
        Ok(published)
    }

    /// Waits until everything accepted has left.
    pub async fn flush(&self) {
        self.producer.flush().await;
    }
}
