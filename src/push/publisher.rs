//! The publisher: looks a mailbox up, encodes once, and sends to the queues that want it and to no
//! other.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::future::join_all;
use tokio::sync::Semaphore;
use tracing::{debug, warn};

use super::metrics::Metrics;
use super::written::WriteThrough;
use crate::cluster::queue::{Producer, QueueError, QueueName, QueueSystem};
use crate::cluster::registry::{Directory, Interest, RegistryError};
use crate::mail::codec::to_msgpack;
use crate::mail::event::{Change, Event};
use crate::mail::key::Key;

/// Publishes events. Cheap to share; the library's way in for a mail store of one's own.
///
/// **Commit the change to your store before you publish it**: whoever subscribes after the lookup
/// reads its state from the store, so nothing is missed (I-4, I-5).
pub struct Publisher {
    directory: Arc<dyn Directory>,
    queues: Arc<dyn QueueSystem>,
    producer: Arc<dyn Producer>,
    metrics: Arc<Metrics>,
    options: Options,
    /// One permit per event being published.
    permits: Semaphore,
    /// The last list of all nodes' topics. Whoever needs it while it is being made waits for that
    /// one.
    listed: tokio::sync::Mutex<Option<(Instant, Vec<QueueName>)>>,
}

/// How a publisher behaves.
pub struct Options {
    /// Also write every event here, once, keyed by mailbox.
    pub firehose: Option<QueueName>,
    /// An event that is larger when encoded is sent as a `MailboxChange`: without detail, but sent.
    pub max_event_bytes: usize,
    /// Events being published at once.
    pub max_in_flight: usize,
    /// Who is told while the registry cannot be trusted.
    pub everyone: Everyone,
    /// The ACLs that follow what is published.
    pub acls: Option<WriteThrough>,
}

/// Every node's queue, as far as it can be known without a registry.
#[derive(Debug, Clone)]
pub enum Everyone {
    /// The topics that begin so, as the queue system lists them.
    Topics(String),
    /// These: nodes share them.
    Queues(Vec<QueueName>),
}

/// How long a list of all nodes' topics is good for, while the registry is away: less than a node
/// takes from its start to its first settled subscription.
const LIST_AGE: Duration = Duration::from_millis(250);
/// Events looked up together.
const LOOKUPS: usize = 500;
/// Sends under way at once for one batch.
const SENDS: usize = 1_000;
/// How long listing them may take.
const LIST_TIMEOUT: Duration = Duration::from_secs(5);

/// Where an event went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Destinations {
    /// The queues that took it; none if nobody wants it.
    pub queues: Vec<QueueName>,
    /// Whether it went to every known node, for the registry could not be trusted.
    pub everyone: bool,
}

/// Where an event is to go.
#[derive(Debug)]
struct Route {
    queues: Vec<QueueName>,
    everyone: bool,
    /// Why there may be nodes that are not among them.
    perhaps_not_all: Option<String>,
}

/// Why an event is not published, or not everywhere: publish the same event again, with the same
/// id. What arrives twice is told once (I-8).
#[derive(Debug, Clone, thiserror::Error)]
pub enum PublishError {
    #[error("too many events are being published at once, come back later")]
    Full,
    /// No registry, and no node's queue is known: nobody can be told.
    #[error("neither the registry nor the queues can be reached: {0}")]
    NobodyKnown(String),
    /// Nobody was told yet.
    #[error("the registry's ACLs could not be changed: {0}")]
    Acls(RegistryError),
    #[error("the event did not reach every queue that wants it: {error}")]
    Queue { error: QueueError, taken: Vec<QueueName> },
    /// Sent to the nodes that are known, and there may be more.
    #[error("the registry cannot be trusted and the queues cannot be listed: some nodes may not have been told: {0}")]
    PerhapsNotAll(String),
}

/// The changes of a batch that could not be written to the registry's ACLs.
#[derive(Default)]
struct FailedWrites<'a> {
    /// Why.
    away: Option<RegistryError>,
    changes: Vec<&'a Event>,
}

/// Whether an event is about a mailbox that `change` is about.
fn follows(event: &Event, change: &Event) -> bool {
    let (mailbox, changed) = (&event.mailbox, &change.mailbox);
    match &change.change {
        Change::MailboxRename { to } => mailbox.renamed(changed, to).is_some() || mailbox.renamed(to, changed).is_some(),
        Change::AccountRename { to } => mailbox.owner() == changed.owner() || mailbox.is_owned_by(to),
        _ => mailbox == changed,
    }
}

impl PublishError {
    /// Whether trying again may help.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Full | Self::NobodyKnown(_) | Self::PerhapsNotAll(_) => true,
            Self::Queue { error, .. } => error.is_transient(),
            Self::Acls(error) => error.is_transient(),
        }
    }
}

impl Publisher {
    pub fn new(directory: Arc<dyn Directory>, queues: Arc<dyn QueueSystem>, metrics: Arc<Metrics>, options: Options) -> Self {
        let permits = Semaphore::new(options.max_in_flight.clamp(1, Semaphore::MAX_PERMITS));
        Self { producer: queues.producer(), directory, queues, metrics, options, permits, listed: tokio::sync::Mutex::default() }
    }

    /// Publishes one event.
    pub async fn publish(&self, event: &Event) -> Result<Destinations, PublishError> {
        let mut results = self.publish_batch(std::slice::from_ref(event)).await;
        // One event in, one result out.
        results.pop().unwrap_or(Err(PublishError::Full))
    }

    /// Publishes events in their order; one result each.
    pub async fn publish_batch(&self, events: &[Event]) -> Vec<Result<Destinations, PublishError>> {
        self.publish_all(events, true).await
    }

    async fn publish_all(&self, events: &[Event], write: bool) -> Vec<Result<Destinations, PublishError>> {
        let mut results = Vec::with_capacity(events.len());
        let mut unwritten = write.then(FailedWrites::default);
        for some in events.chunks(self.options.max_in_flight.clamp(1, LOOKUPS)) {
            results.extend(self.publish_some(some, unwritten.as_mut()).await);
        }
        for result in &results {
            let outcome = match result {
                Ok(published) if published.everyone => "everyone",
                Ok(published) if published.queues.is_empty() => "nobody",
                Ok(_) => "sent",
                Err(PublishError::Full) => "full",
                Err(_) => "failed",
            };
            Metrics::count(&self.metrics.published, "outcome", outcome);
        }
        results
    }

    /// As [`Self::publish_batch`], for changes of ACLs that are in the registry's ACLs already.
    pub async fn publish_written(&self, events: &[Event]) -> Vec<Result<Destinations, PublishError>> {
        self.publish_all(events, false).await
    }

    /// One lookup for all of these, then their sends.
    async fn publish_some<'a>(
        &self,
        events: &'a [Event],
        unwritten: Option<&mut FailedWrites<'a>>,
    ) -> Vec<Result<Destinations, PublishError>> {
        let count = u32::try_from(events.len()).unwrap_or(u32::MAX);
        let Ok(_permits) = self.permits.try_acquire_many(count) else {
            return events.iter().map(|_| Err(PublishError::Full)).collect();
        };
        let unwritten = match unwritten {
            Some(unwritten) => self.write(events, unwritten).await,
            None => HashMap::new(),
        };
        let mut routes = self.routes(events).await;
        for (at, error) in unwritten {
            routes[at] = Err(error);
        }
        let mut buffer = Vec::with_capacity(512);
        let mut results = Vec::with_capacity(events.len());
        let mut under_way = Vec::new();
        let mut sends = 0;
        for (event, route) in events.iter().zip(routes) {
            let targets = route.as_ref().map_or(0, |route| route.queues.len()) + usize::from(self.options.firehose.is_some());
            if sends + targets > SENDS && !under_way.is_empty() {
                // A large batch to every node must not fill the producer by itself.
                results.extend(join_all(std::mem::take(&mut under_way)).await);
                sends = 0;
            }
            sends += targets;
            let payload = (route.is_ok() && targets > 0).then(|| {
                to_msgpack(event, &mut buffer);
                if buffer.len() > self.options.max_event_bytes {
                    warn!(bytes = buffer.len(), event = %event.id, "an event is too large for a queue and goes without its detail");
                    to_msgpack(&event.without_detail(), &mut buffer);
                }
                Bytes::copy_from_slice(&buffer)
            });
            under_way.push(self.send(event, route, payload));
        }
        // `join_all` begins them in this order, which is the order that a mailbox's queue keeps.
        results.extend(join_all(under_way).await);
        results
    }

    /// Brings the registry's ACLs to where the events say that they are; which events failed at
    /// that, by their place.
    async fn write<'a>(&self, events: &'a [Event], unwritten: &mut FailedWrites<'a>) -> HashMap<usize, PublishError> {
        let mut failed = HashMap::new();
        let Some(acls) = &self.options.acls else { return failed };
        for (at, event) in events.iter().enumerate() {
            let written = match &unwritten.away {
                // After one time-out nothing else is tried. An event behind a change that could not
                // be written waits with it, for it would be told by rights that are no more; other
                // mailboxes are not kept waiting.
                Some(error) if acls.says_something(event) || unwritten.changes.iter().any(|change| follows(event, change)) => {
                    Err(error.clone())
                }
                Some(_) => Ok(()),
                None => acls.write(event).await,
            };
            if let Err(error) = written {
                if error.is_transient() {
                    unwritten.away = Some(error.clone());
                    unwritten.changes.push(event);
                }
                failed.insert(at, PublishError::Acls(error));
            }
        }
        failed
    }

    /// Which queues want each event.
    async fn routes(&self, events: &[Event]) -> Vec<Result<Route, PublishError>> {
        let keys: Vec<Vec<Key>> = events.iter().map(Event::routing_keys).collect();
        let mut answers: HashMap<&Key, Interest> = HashMap::new();
        let mut unknown = Vec::new();
        for key in keys.iter().flatten() {
            if answers.contains_key(key) {
                continue;
            }
            match self.directory.cached(key) {
                Some(queues) => drop(answers.insert(key, Interest::Queues(queues))),
                None if unknown.contains(key) => {}
                None => unknown.push(key.clone()),
            }
        }
        Metrics::add(&self.metrics.lookups, "answer", "cache", answers.len() as u64);
        if !unknown.is_empty() {
            let fresh = self.directory.lookup(&unknown).await;
            let distrusted = fresh.iter().filter(|interest| matches!(interest, Interest::Everyone(_))).count();
            Metrics::add(&self.metrics.lookups, "answer", "registry", (fresh.len() - distrusted) as u64);
            Metrics::add(&self.metrics.lookups, "answer", "everyone", distrusted as u64);
            answers.extend(unknown.iter().zip(fresh));
        }
        let for_all = events.iter().any(Event::concerns_all_nodes);
        let nodes_unknown = for_all && !self.knows_all_nodes().await;
        // Asked for at most once a batch, and only where the registry fails.
        let everyone = match nodes_unknown || answers.values().any(|interest| matches!(interest, Interest::Everyone(_))) {
            true => Some(self.everyone().await),
            false => None,
        };
        let all_nodes = || match &self.options.everyone {
            Everyone::Queues(queues) => queues.clone(),
            Everyone::Topics(_) => self.directory.nodes().borrow().iter().map(|node| node.queue.clone()).collect(),
        };
        let route = |(event, keys): (&Event, &Vec<Key>)| {
            let mut route = Route { queues: Vec::new(), everyone: false, perhaps_not_all: None };
            for key in keys {
                match answers.get(key) {
                    Some(Interest::Queues(wanted)) => route.queues.extend(wanted.iter().cloned()),
                    Some(Interest::Everyone(known)) => {
                        route.queues.extend(known.iter().cloned());
                        route.everyone = true;
                    }
                    // A directory promises one answer a key.
                    None => route.perhaps_not_all = Some("the registry left a question open".to_owned()),
                }
            }
            if event.concerns_all_nodes() {
                route.queues.extend(all_nodes());
                route.everyone |= nodes_unknown;
            }
            match everyone.as_ref().filter(|_| route.everyone) {
                None => {}
                Some(Ok(all)) => route.queues.extend(all.iter().cloned()),
                Some(Err(reason)) if route.queues.is_empty() => return Err(PublishError::NobodyKnown(reason.clone())),
                Some(Err(reason)) => route.perhaps_not_all = Some(reason.clone()),
            }
            route.queues.sort_unstable();
            route.queues.dedup();
            Ok(route)
        };
        events.iter().zip(&keys).map(route).collect()
    }

    /// Whether the list of nodes is the registry's own, as of now; where queues are shared it is
    /// not needed.
    async fn knows_all_nodes(&self) -> bool {
        match self.options.everyone {
            Everyone::Queues(_) => true,
            Everyone::Topics(_) => self.directory.probe().await.is_ok() && !self.directory.nodes().borrow().is_empty(),
        }
    }

    /// The queues of all nodes as the queue system knows them: the last resort while the registry
    /// is away, for a publisher that has just started knows no node, and one that has run for long
    /// may not know the newest.
    async fn everyone(&self) -> Result<Vec<QueueName>, String> {
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
        let asked = Instant::now();
        let queues = match tokio::time::timeout(LIST_TIMEOUT, self.queues.names(prefix)).await {
            Ok(Ok(queues)) => queues,
            Ok(Err(error)) => return Err(error.to_string()),
            Err(_) => return Err("listing the queues took too long".to_owned()),
        };
        *listed = Some((asked, queues.clone()));
        Ok(queues)
    }

    async fn send(
        &self,
        event: &Event,
        route: Result<Route, PublishError>,
        payload: Option<Bytes>,
    ) -> Result<Destinations, PublishError> {
        let route = route?;
        let Some(payload) = payload else { return Ok(Destinations { queues: Vec::new(), everyone: route.everyone }) };
        let firehose = self.options.firehose.as_ref();
        let targets = route.queues.iter().chain(firehose);
        let sent = join_all(targets.clone().map(|queue| self.send_to(queue, event, payload.clone()))).await;
        let mut failure: Option<QueueError> = None;
        let mut taken = Vec::new();
        for (queue, result) in targets.zip(sent) {
            let error = match result {
                Ok(()) => {
                    Metrics::count(&self.metrics.sends, "outcome", "sent");
                    if Some(queue) != firehose {
                        taken.push(queue.clone());
                    }
                    continue;
                }
                // Nobody reads it: its node is gone, and its clients with it.
                Err(QueueError::NoSuchQueue(_)) if Some(queue) != firehose && !self.is_live(queue) => {
                    Metrics::count(&self.metrics.sends, "outcome", "no_such_queue");
                    debug!(%queue, "a queue is gone with its node");
                    continue;
                }
                // Its node lives: the queue is only just being made, or made anew.
                Err(QueueError::NoSuchQueue(queue)) => QueueError::Unreachable(format!("{queue} is not there yet")),
                Err(error) => error,
            };
            Metrics::count(&self.metrics.sends, "outcome", "failed");
            // A failure that may pass is what the origin must hear of.
            if failure.as_ref().is_none_or(|first| !first.is_transient()) {
                failure = Some(error);
            }
        }
        match (failure, route.perhaps_not_all) {
            (Some(error), _) => Err(PublishError::Queue { error, taken }),
            (None, Some(reason)) => Err(PublishError::PerhapsNotAll(reason)),
            (None, None) => Ok(Destinations { queues: taken, everyone: route.everyone }),
        }
    }

    /// Sends to one queue. Where it does not take the event, it may take the news that there was one.
    async fn send_to(&self, queue: &QueueName, event: &Event, payload: Bytes) -> Result<(), QueueError> {
        let (key, length) = (event.mailbox.as_str(), payload.len());
        let error = match self.producer.send(queue, key, payload).await {
            Err(error @ (QueueError::TooLarge(_) | QueueError::Refused(_))) => error,
            sent => return sent,
        };
        let mut small = Vec::new();
        to_msgpack(&event.without_detail(), &mut small);
        let sent = if small.len() < length {
            warn!(%queue, event = %event.id, %error, "a queue does not take an event, which goes without its detail");
            self.producer.send(queue, key, small.into()).await
        } else {
            Err(error)
        };
        match sent {
            // Every event fits, unless an operator has set a limit that none does.
            Err(QueueError::TooLarge(reason)) => Err(QueueError::Denied(reason)),
            sent => sent,
        }
    }

    /// Whether a node that is known to run reads this queue.
    fn is_live(&self, queue: &QueueName) -> bool {
        self.directory.nodes().borrow().iter().any(|node| node.queue == *queue)
    }

    /// Waits until everything accepted has left.
    pub async fn flush(&self) {
        self.producer.flush().await;
    }
}

#[cfg(test)]
#[path = "publisher_tests.rs"]
mod tests;
