//! Sends to topics: in order per key, bounded, and quick to say that a topic is gone.
//!
//! librdkafka never forgets a topic that it was asked to send to, and asks the brokers about a missing one every
//! second. Nodes come and go, so a producer that has met many missing topics is replaced at a moment when
//! nothing is on its way.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use rdkafka::client::Client;
use rdkafka::config::FromClientConfigAndContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::future_producer::FutureProducerContext;
use rdkafka::producer::{DeliveryFuture, FutureProducer, FutureRecord, Producer as _};
use tokio::sync::Semaphore;

use super::client::{ASK_TIMEOUT, Cluster, Logged, blocking, drop_aside};
use super::consumer::try_reading;
use super::denials::Right;
use super::errors::{Meaning, code_of, is_missing, meaning_of, queue_error, queue_error_of, refused_setting};
use crate::cluster::queue::{Producer, QueueError, QueueHealth, QueueName, QueueState};
use crate::lock::{Mutex, RwLock, rank};

/// Missing topics after which a producer is replaced once it is idle.
const MANY_MISSING: usize = 64;
/// Missing topics after which publishers have to wait until it is idle.
const TOO_MANY_MISSING: usize = 4096;

/// A broken producer is replaced no sooner than this.
const SHORTEST_LIFE: Duration = Duration::from_secs(1);

/// A librdkafka producer, and what makes it due for replacement.
struct Generation {
    producer: FutureProducer<Logged>,
    made: Instant,
    missing: Mutex<HashSet<QueueName>>,
    /// An idempotent producer that lost track of its sequence refuses everything from then on.
    broken: AtomicBool,
}

impl Generation {
    fn new(cluster: &Cluster) -> Result<Arc<Self>, KafkaError> {
        let producer = FutureProducer::from_config_and_context(&cluster.producer_config(), Logged);
        Ok(Arc::new(Self {
            producer: producer?,
            made: Instant::now(),
            missing: Mutex::default(),
            broken: AtomicBool::new(false),
        }))
    }

    fn client(&self) -> &Client<FutureProducerContext<Logged>> {
        self.producer.client()
    }

    /// What an error of a send means; remembers what it says of this producer.
    fn judge(&self, queue: &QueueName, error: &KafkaError) -> QueueError {
        let fatal = self.client().fatal_error().map(|(code, _)| code);
        if fatal.is_some() || code_of(error) == Some(RDKafkaErrorCode::Fatal) {
            self.broken.store(true, Ordering::Relaxed);
        }
        if is_missing(error) {
            self.missing.lock().insert(queue.clone());
        }
        // What has broken the producer says more than that it is broken.
        match fatal.filter(|code| meaning_of(*code) == Meaning::Denied) {
            Some(code) => queue_error_of(queue, code),
            None => queue_error(queue, error),
        }
    }
}

/// Sends to any queue of the cluster.
pub(super) struct KafkaProducer {
    cluster: Arc<Cluster>,
    /// Read to enqueue, written to replace: a replacement never overtakes a send.
    current: RwLock<Arc<Generation>, { rank::KAFKA_PRODUCER }>,
    room: Semaphore,
    doubts: Mutex<HashMap<QueueName, Arc<Doubt>>>,
}

/// Whether a queue that librdkafka thinks is missing is there: when that was last asked, and the answer.
type Doubt = tokio::sync::Mutex<Option<(Instant, bool)>>;

/// A place in the line of those who want to send to a doubtful queue.
struct Place<'a> {
    producer: &'a KafkaProducer,
    queue: &'a QueueName,
    doubt: Arc<Doubt>,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut doubts = self.producer.doubts.lock();
        // The map's own and this one: nobody is left in the line.
        if Arc::strong_count(&self.doubt) <= 2 {
            doubts.remove(self.queue);
        }
    }
}

impl KafkaProducer {
    pub(super) fn new(cluster: Arc<Cluster>) -> Result<Self, QueueError> {
        let current = RwLock::ranked(Generation::new(&cluster).map_err(|error| refused_setting(&error))?);
        let room = Semaphore::new(cluster.settings.max_in_flight.clamp(1, Semaphore::MAX_PERMITS));
        Ok(Self { cluster, current, room, doubts: Mutex::default() })
    }

    fn current(&self) -> Arc<Generation> {
        Arc::clone(&self.current.read())
    }

    /// Hands the message to librdkafka, at once; from here on its place in the order is fixed.
    fn enqueue(&self, queue: &QueueName, key: &str, payload: &[u8]) -> Result<Enqueued, (QueueError, bool)> {
        let generation = self.current.read();
        let Ok(partition) = i32::try_from(queue.partition_number()) else {
            return Err((QueueError::NoSuchQueue(queue.clone()), false));
        };
        let record = FutureRecord::to(queue.topic_name()).key(key).payload(payload);
        let record = if queue.is_by_key() { record } else { record.partition(partition) };
        match generation.producer.send_result(record) {
            Ok(delivery) => Ok(Enqueued { generation: Arc::clone(&generation), delivery }),
            Err((error, _)) => Err((generation.judge(queue, &error), is_missing(&error))),
        }
    }

    /// The line of a queue that is in doubt; none where nobody doubts it.
    fn line<'a>(&'a self, queue: &'a QueueName) -> Option<Place<'a>> {
        let doubt = Arc::clone(self.doubts.lock().get(queue)?);
        Some(Place { producer: self, queue, doubt })
    }

    fn doubt<'a>(&'a self, queue: &'a QueueName) -> Place<'a> {
        let doubt = Arc::clone(self.doubts.lock().entry(queue.clone()).or_default());
        Place { producer: self, queue, doubt }
    }

    /// Enqueues where librdkafka may hold an old belief that the topic is missing: asks the cluster first.
    ///
    /// Without it, events that are sent in the first second after a node's topic was made again would be lost.
    /// All who send to the queue meanwhile stand in line, so that the order is kept.
    async fn enqueue_in_line(&self, place: Place<'_>, key: &str, payload: &[u8]) -> Result<Enqueued, QueueError> {
        let called = Instant::now();
        let mut answer = place.doubt.lock().await;
        match self.enqueue(place.queue, key, payload) {
            Err((_, true)) => {}
            Err((error, false)) => return Err(error),
            Ok(enqueued) => return Ok(enqueued),
        }
        let exists = match *answer {
            // Somebody asked after this send was called: no need to ask again.
            Some((asked, exists)) if asked >= called => exists,
            _ => {
                let asked = Instant::now();
                let exists = self.exists(place.queue).await?;
                *answer = Some((asked, exists));
                exists
            }
        };
        if !exists {
            return Err(QueueError::NoSuchQueue(place.queue.clone()));
        }
        // The answer has told librdkafka, too.
        self.enqueue(place.queue, key, payload).map_err(|(error, missing)| match missing {
            true => QueueError::Unreachable(format!("{} is only just being made", place.queue)),
            false => error,
        })
    }

    async fn exists(&self, queue: &QueueName) -> Result<bool, QueueError> {
        let (generation, queue) = (self.current(), queue.clone());
        blocking(move || {
            let metadata = generation.client().fetch_metadata(Some(queue.topic_name()), ASK_TIMEOUT);
            let metadata = metadata.map_err(|error| queue_error(&queue, &error))?;
            let wanted = i64::from(queue.partition_number());
            Ok(metadata.topics().iter().any(|topic| {
                topic.name() == queue.topic_name() && topic.partitions().iter().any(|p| i64::from(p.id()) == wanted)
            }))
        })
        .await
    }

    /// Replaces a producer that is broken, or that has met many missing topics and is idle.
    fn renew(&self, queue: &QueueName) -> Result<(), QueueError> {
        let generation = self.current();
        let missing = generation.missing.lock().len();
        if missing < MANY_MISSING && !generation.broken.load(Ordering::Relaxed) {
            return Ok(());
        }
        let mut current = self.current.write();
        if !Arc::ptr_eq(&current, &generation) {
            return Ok(());
        }
        if generation.broken.load(Ordering::Relaxed) && generation.made.elapsed() < SHORTEST_LIFE {
            // What breaks each producer at once, as a right that is missing, would make a client for each send.
            return Err(match generation.client().fatal_error() {
                Some((code, _)) => queue_error_of(queue, code),
                None => QueueError::Unreachable("the producer is being replaced".to_owned()),
            });
        }
        if generation.broken.load(Ordering::Relaxed) || generation.producer.in_flight_count() == 0 {
            tracing::debug!(missing, "a new Kafka producer takes over");
            let new = Generation::new(&self.cluster).map_err(|error| queue_error(queue, &error))?;
            drop_aside((std::mem::replace(&mut *current, new), generation));
            return Ok(());
        }
        if missing < TOO_MANY_MISSING { Ok(()) } else { Err(QueueError::Full) }
    }

    pub(super) async fn health(&self, queue: &QueueName, position: Option<u64>) -> QueueHealth {
        let (generation, asked) = (self.current(), queue.clone());
        let answer = blocking(move || {
            let partition = i32::try_from(asked.partition_number()).unwrap_or(i32::MAX);
            let watermarks = generation.client().fetch_watermarks(asked.topic_name(), partition, ASK_TIMEOUT / 2);
            watermarks.map_err(|error| queue_error(&asked, &error))
        });
        let (state, lag) = match answer.await {
            Ok((_, high)) => {
                let high = u64::try_from(high).unwrap_or(0);
                (self.rights(queue).await, position.map(|next| high.saturating_sub(next)))
            }
            Err(QueueError::NoSuchQueue(queue)) => {
                (QueueState::Missing { reason: QueueError::NoSuchQueue(queue).to_string() }, None)
            }
            // Who may not even ask for the queue's end may not read it either.
            Err(QueueError::Denied(reason)) => (QueueState::ReadDenied { reason }, None),
            Err(error) => (QueueState::Unreachable { reason: error.to_string() }, None),
        };
        QueueHealth { state, lag }
    }

    /// What this process may do, of a queue that answers.
    async fn rights(&self, queue: &QueueName) -> QueueState {
        let denials = &self.cluster.denials;
        if denials.of_reading(queue).is_some() {
            // librdkafka does not tell that it reads again until something comes.
            match try_reading(&self.cluster, queue).await {
                Ok(()) => denials.end(Right::Read, queue),
                Err(error) => return QueueState::ReadDenied { reason: error.to_string() },
            }
        }
        match denials.of_writing(Instant::now()) {
            Some(reason) => QueueState::WriteDenied { reason },
            None => QueueState::Good,
        }
    }
}

/// A message on its way.
struct Enqueued {
    generation: Arc<Generation>,
    delivery: DeliveryFuture,
}

impl KafkaProducer {
    async fn try_send(&self, queue: &QueueName, key: &str, payload: Bytes) -> Result<(), QueueError> {
        let _room = self.room.try_acquire().map_err(|_| QueueError::Full)?;
        self.renew(queue)?;
        // No await before the message is enqueued, save for those in line: that is what keeps the order.
        let enqueued = match self.line(queue) {
            Some(place) => self.enqueue_in_line(place, key, &payload).await?,
            None => match self.enqueue(queue, key, &payload) {
                Ok(enqueued) => enqueued,
                Err((_, true)) => self.enqueue_in_line(self.doubt(queue), key, &payload).await?,
                Err((error, false)) => return Err(error),
            },
        };
        match enqueued.delivery.await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err((error, _))) => Err(enqueued.generation.judge(queue, &error)),
            Err(_) => Err(QueueError::Unreachable("the producer was closed".to_owned())),
        }
    }
}

#[async_trait]
impl Producer for KafkaProducer {
    async fn send(&self, queue: &QueueName, key: &str, payload: Bytes) -> Result<(), QueueError> {
        let sent = self.try_send(queue, key, payload).await;
        match &sent {
            Ok(()) => self.cluster.denials.end(Right::Write, queue),
            Err(QueueError::Denied(reason)) => self.cluster.denials.note(Right::Write, queue, reason, Instant::now()),
            Err(_) => {}
        }
        sent
    }

    async fn flush(&self) {
        let (generation, timeout) = (self.current(), self.cluster.settings.send_timeout_ms.duration());
        let flushed = blocking(move || {
            let flushed = generation.producer.flush(timeout);
            flushed.map_err(|error| QueueError::Unreachable(error.to_string()))
        });
        if let Err(error) = flushed.await {
            tracing::warn!("not everything could be sent to Kafka: {error}");
        }
    }
}
