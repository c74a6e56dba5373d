//! Reads one partition, from a numeric offset on.
//!
//! librdkafka waits out the brokers' outages by itself and goes on where it was. Where it cannot (the offset is
//! gone, the topic is gone or is another one), its client is thrown away, a new one is opened at the best
//! offset there is, and a [`Delivery::Gap`] says so.

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use rdkafka::config::{FromClientConfigAndContext, RDKafkaLogLevel};
use rdkafka::consumer::{BaseConsumer, Consumer as _, StreamConsumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Message};
use rdkafka::{Offset, TopicPartitionList};
use tokio::task::JoinHandle;

use super::client::{ASK_TIMEOUT, Cluster, Logged, Watched, blocking, drop_aside};
use super::denials::Right;
use super::errors::{code_of, is_missing, queue_error};
use crate::cluster::queue::{Consumer, Delivery, QueueError, QueueName, Record};

/// Where reading begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Start {
    /// After the newest record.
    End,
    /// At the oldest record that is left: for a topic of which nothing has been read.
    Beginning,
    /// At this offset, or at the nearest one that exists.
    Near(u64),
}

impl Start {
    /// The offset to begin at, where the log holds `low..high`.
    fn within(self, low: u64, high: u64) -> u64 {
        match self {
            Self::End => high,
            Self::Beginning => low,
            Self::Near(offset) => offset.clamp(low, high.max(low)),
        }
    }
}

/// Why a reader cannot go on, and where the next one begins.
#[derive(Debug)]
struct Broken {
    reason: String,
    resume: Start,
}

/// Reads a queue, and keeps at it.
pub(super) struct KafkaConsumer {
    cluster: Arc<Cluster>,
    queue: QueueName,
    state: State,
}

enum State {
    Reading(Reader),
    /// A task of its own, so that whoever gives up waiting for the next delivery does not undo it.
    Reopening {
        task: JoinHandle<Reader>,
        broken: Broken,
    },
}

impl KafkaConsumer {
    pub(super) async fn open(cluster: Arc<Cluster>, queue: &QueueName, start: Start) -> Result<Self, QueueError> {
        let reader = Reader::open(&cluster, queue, start).await?;
        Ok(Self { cluster, queue: queue.clone(), state: State::Reading(reader) })
    }

    /// Opens a new reader in the place of a broken one, however long that takes.
    fn reopen(&mut self, broken: Broken) {
        let (cluster, queue, start) = (Arc::clone(&self.cluster), self.queue.clone(), broken.resume);
        let task = tokio::spawn(async move {
            let mut pause = Duration::from_millis(100);
            loop {
                let opened = match Reader::open(&cluster, &queue, start).await {
                    Err(QueueError::NoSuchQueue(_)) => cluster.ensure(&queue).await.map(|()| None),
                    opened => opened.map(Some),
                };
                match opened {
                    Ok(Some(reader)) => return reader,
                    Ok(None) => continue,
                    Err(error) => tracing::warn!(%queue, "cannot read on, trying again: {error}"),
                }
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(Duration::from_secs(5));
            }
        });
        self.state = State::Reopening { task, broken };
    }
}

#[async_trait]
impl Consumer for KafkaConsumer {
    async fn next(&mut self) -> Delivery {
        loop {
            match &mut self.state {
                State::Reading(reader) => match reader.next().await {
                    Ok(delivery) => return delivery,
                    Err(broken) => {
                        tracing::warn!(queue = %self.queue, "continuity is broken: {}", broken.reason);
                        self.reopen(broken);
                    }
                },
                State::Reopening { task, broken } => match task.await {
                    Ok(reader) => {
                        let reason = std::mem::take(&mut broken.reason);
                        self.state = State::Reading(reader);
                        return Delivery::Gap { reason };
                    }
                    // The runtime is going away, and this task with it.
                    Err(error) if error.is_cancelled() => std::future::pending().await,
                    Err(error) => {
                        let broken = Broken { reason: error.to_string(), resume: broken.resume };
                        self.reopen(broken);
                    }
                },
            }
        }
    }
}

impl Drop for KafkaConsumer {
    fn drop(&mut self) {
        if let State::Reopening { task, .. } = &self.state {
            task.abort();
        }
    }
}

/// One librdkafka consumer, assigned.
struct Reader {
    cluster: Arc<Cluster>,
    queue: QueueName,
    /// Always there until the reader is dropped.
    stream: Option<StreamConsumer<Watched>>,
    /// The offset that is due.
    due: u64,
    /// A record that came after missing ones; it follows their gap.
    held: Option<Record>,
    /// When it was last told that the broker does not let us read.
    denial_told: Option<Instant>,
}

/// While the broker does not let us read, that is told as a gap this often: clients must not wait in silence.
const DENIAL_INTERVAL: Duration = Duration::from_secs(60);

impl Reader {
    async fn open(cluster: &Arc<Cluster>, queue: &QueueName, start: Start) -> Result<Self, QueueError> {
        let (cluster, queue) = (Arc::clone(cluster), queue.clone());
        blocking(move || {
            let failed = |error: KafkaError| queue_error(&queue, &error);
            let mut config = cluster.consumer_config();
            let debug = match config.get("debug") {
                Some(operators) => format!("{operators},{}", Watched::DEBUG),
                None => Watched::DEBUG.to_owned(),
            };
            config.set("debug", debug).set_log_level(RDKafkaLogLevel::Debug);
            let stream: StreamConsumer<Watched> =
                StreamConsumer::from_config_and_context(&config, Watched::default()).map_err(failed)?;
            let Ok(partition) = i32::try_from(queue.partition_number()) else {
                return Err(QueueError::NoSuchQueue(queue.clone()));
            };
            // `Offset::End` would be resolved with the first fetch, and what is sent before that would be missed.
            let (low, high) = stream.fetch_watermarks(queue.topic_name(), partition, ASK_TIMEOUT).map_err(failed)?;
            let due = start.within(u64::try_from(low).unwrap_or(0), u64::try_from(high).unwrap_or(0));
            let offset = Offset::Offset(i64::try_from(due).unwrap_or(i64::MAX));
            let mut assignment = TopicPartitionList::new();
            assignment.add_partition_offset(queue.topic_name(), partition, offset).map_err(failed)?;
            stream.assign(&assignment).map_err(failed)?;
            Ok(Self { stream: Some(stream), due, held: None, denial_told: None, cluster, queue })
        })
        .await
    }

    /// Cancel-safe: what has been taken out of librdkafka's queue is given back at once or held.
    async fn next(&mut self) -> Result<Delivery, Broken> {
        if let Some(record) = self.held.take() {
            self.due = record.offset + 1;
            return Ok(Delivery::Record(record));
        }
        let Some(stream) = &self.stream else {
            return Err(Broken { reason: "the reader was closed".to_owned(), resume: Start::Near(self.due) });
        };
        loop {
            let message = tokio::select! {
                biased;
                () = stream.context().made_anew.notified() => {
                    return Err(Broken { reason: "the topic was made anew".to_owned(), resume: Start::Beginning });
                }
                message = stream.recv() => message,
            };
            let record = match message.map(|message| record(&message)) {
                Ok(record) => record,
                Err(error) => match broken(&error, self.due) {
                    Some(broken) => return Err(broken),
                    None if is_denied(&error) => {
                        let now = Instant::now();
                        self.cluster.denials.note(Right::Read, &self.queue, &error.to_string(), now);
                        if self.denial_told.is_some_and(|told| now < told + DENIAL_INTERVAL) {
                            continue;
                        }
                        self.denial_told = Some(now);
                        return Ok(Delivery::Gap { reason: "the broker does not let this node read its queue".to_owned() });
                    }
                    None => continue,
                },
            };
            self.cluster.denials.end(Right::Read, &self.queue);
            if record.offset < self.due {
                let reason = format!("offset {} came after {}", record.offset, self.due);
                return Err(Broken { reason, resume: Start::Beginning });
            }
            if record.offset > self.due {
                let reason = format!("the records from {} to {} are missing", self.due, record.offset - 1);
                self.held = Some(record);
                return Ok(Delivery::Gap { reason });
            }
            self.due += 1;
            return Ok(Delivery::Record(record));
        }
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        drop_aside(self.stream.take());
    }
}

fn record(message: &BorrowedMessage<'_>) -> Record {
    Record {
        offset: u64::try_from(message.offset()).unwrap_or(0),
        queued_at: message.timestamp().to_millis().and_then(|ms| u64::try_from(ms).ok()).unwrap_or(0),
        payload: message.payload().map_or_else(Bytes::new, Bytes::copy_from_slice),
    }
}

/// Whether the broker forbids reading: librdkafka tries on, and so it works again once it is allowed.
fn is_denied(error: &KafkaError) -> bool {
    use RDKafkaErrorCode as Code;
    matches!(code_of(error), Some(Code::TopicAuthorizationFailed | Code::ClusterAuthorizationFailed))
}

/// Whether the broker lets us read the queue, found out by reading at its end.
pub(super) async fn try_reading(cluster: &Arc<Cluster>, queue: &QueueName) -> Result<(), QueueError> {
    let (mut config, queue) = (cluster.consumer_config(), queue.clone());
    config.set("enable.partition.eof", "true");
    blocking(move || {
        let failed = |error: KafkaError| queue_error(&queue, &error);
        let consumer = BaseConsumer::from_config_and_context(&config, Logged).map_err(failed)?;
        let partition = i32::try_from(queue.partition_number()).unwrap_or(i32::MAX);
        let mut assignment = TopicPartitionList::new();
        assignment.add_partition_offset(queue.topic_name(), partition, Offset::End).map_err(failed)?;
        consumer.assign(&assignment).map_err(failed)?;
        let deadline = Instant::now() + ASK_TIMEOUT / 2;
        while Instant::now() < deadline {
            match consumer.poll(Duration::from_millis(100)) {
                Some(Ok(_) | Err(KafkaError::PartitionEOF(_))) => return Ok(()),
                Some(Err(error)) if is_denied(&error) => return Err(failed(error)),
                // Anything else librdkafka tries again by itself.
                Some(Err(_)) | None => {}
            }
        }
        Err(QueueError::Unreachable("reading was neither allowed nor forbidden in time".to_owned()))
    })
    .await
}

/// Whether an error ends the reader. Of all others librdkafka takes care itself, and reads on where it was.
fn broken(error: &KafkaError, due: u64) -> Option<Broken> {
    let code = code_of(error);
    if is_missing(error) {
        return Some(Broken { reason: "the topic is gone".to_owned(), resume: Start::Near(due) });
    }
    if code == Some(RDKafkaErrorCode::AutoOffsetReset) {
        return Some(Broken { reason: format!("offset {due} is gone"), resume: Start::Near(due) });
    }
    if matches!(error, KafkaError::MessageConsumptionFatal(_)) {
        return Some(Broken { reason: error.to_string(), resume: Start::Near(due) });
    }
    tracing::debug!(target: "librdkafka", "reading: {error}");
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_start_is_within_what_the_log_holds() {
        assert_eq!(Start::End.within(3, 9), 9);
        assert_eq!(Start::Beginning.within(3, 9), 3);
        for (due, begins_at) in [(0, 3), (3, 3), (7, 7), (9, 9), (100, 9)] {
            assert_eq!(Start::Near(due).within(3, 9), begins_at, "{due}");
        }
        assert_eq!(Start::Near(5).within(0, 0), 0);
    }

    #[test]
    fn only_what_librdkafka_cannot_mend_breaks_a_reader() {
        use RDKafkaErrorCode as Code;
        let breaks = |code| broken(&KafkaError::MessageConsumption(code), 7).is_some();
        for code in [Code::AutoOffsetReset, Code::UnknownTopicOrPartition, Code::UnknownTopic, Code::UnknownPartition] {
            assert!(breaks(code), "{code}");
        }
        for code in [Code::AllBrokersDown, Code::BrokerTransportFailure, Code::GroupAuthorizationFailed] {
            assert!(!breaks(code), "{code}");
        }
    }
}
