//! Makes, lists and removes topics.
//!
//! Every operation has a client of its own, for the moment: an admin client that is kept piles up what
//! librdkafka says in its log, for nothing ever reads that queue.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::config::FromClientConfigAndContext;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::message::Message;
use rdkafka::{Offset, TopicPartitionList};

use super::client::{ASK_TIMEOUT, Cluster, Logged, blocking, drop_aside};
use super::errors::{Meaning, code_of, meaning_of, queue_error, queue_error_of};
use crate::cluster::queue::{NodeQueue, QueueError, QueueName};

/// How long a new topic may take until one of its brokers leads it.
const LEADER_TIMEOUT: Duration = Duration::from_secs(15);
/// How long reading the newest record of every node's topic may take.
const READ_TIMEOUT: Duration = Duration::from_secs(15);

/// An admin client, dropped aside.
struct Admin(Option<Arc<AdminClient<Logged>>>);

impl Admin {
    fn new(cluster: &Cluster, queue: &QueueName) -> Result<Self, QueueError> {
        let client = AdminClient::from_config_and_context(&cluster.admin_config(), Logged);
        Ok(Self(Some(Arc::new(client.map_err(|error| queue_error(queue, &error))?))))
    }

    fn client(&self) -> Result<Arc<AdminClient<Logged>>, QueueError> {
        self.0.clone().ok_or_else(|| QueueError::Unreachable("the client was closed".to_owned()))
    }
}

impl Drop for Admin {
    fn drop(&mut self) {
        drop_aside(self.0.take());
    }
}

fn options() -> AdminOptions {
    AdminOptions::new().request_timeout(Some(ASK_TIMEOUT)).operation_timeout(Some(ASK_TIMEOUT))
}

impl Cluster {
    /// Makes the topic if it is not there, and waits until a broker leads the partition.
    ///
    /// A topic that is there is left as it is: an operator may have made it, with settings of their own.
    pub(super) async fn ensure(&self, queue: &QueueName) -> Result<(), QueueError> {
        let settings = &self.settings;
        let partitions = match queue.is_partition() {
            true if queue.partition_number() >= settings.shards => {
                return Err(QueueError::Refused(format!("{queue} is beyond the {} shards of the settings", settings.shards)));
            }
            true => i32::try_from(settings.shards).unwrap_or(i32::MAX),
            false => 1,
        };
        let replication = settings.replication.max(1);
        let retention_ms = settings.retention_ms.0.max(1);
        let values = [
            ("cleanup.policy", "delete".to_owned()),
            ("retention.ms", retention_ms.to_string()),
            // Only whole segments are removed: half the retention keeps at most half of it too long.
            ("segment.ms", (retention_ms / 2).max(1_000).to_string()),
            ("segment.bytes", (64 * 1024 * 1024).to_string()),
            ("min.insync.replicas", replication.saturating_sub(1).max(1).to_string()),
            ("max.message.bytes", self.message_limit().max(1_048_588).to_string()),
            // The broker's clock, not the publishers': by it records age and topics are found unused.
            ("message.timestamp.type", "LogAppendTime".to_owned()),
        ];
        let mut topic = NewTopic::new(queue.topic_name(), partitions, TopicReplication::Fixed(i32::from(replication)));
        for (name, value) in &values {
            topic = topic.set(name, value);
        }

        let admin = Admin::new(self, queue)?;
        let made = admin.client()?.create_topics([&topic], &options()).await;
        let made = first_result(queue, made, RDKafkaErrorCode::TopicAlreadyExists);
        let deadline = Instant::now() + if made.is_ok() { LEADER_TIMEOUT } else { Duration::ZERO };
        loop {
            let (client, asked) = (admin.client()?, queue.clone());
            match (blocking(move || leads(&client, &asked)).await, &made) {
                (Ok(true), _) => return Ok(()),
                // Whoever may not make topics finds the one that an operator made, or hears why not.
                (_, Err(error)) if Instant::now() >= deadline => return Err(error.clone()),
                (Err(error), _) if Instant::now() >= deadline || !error.is_transient() => return Err(error),
                (Ok(false), _) if Instant::now() >= deadline => {
                    return Err(QueueError::Unreachable(format!("no broker leads {queue} yet")));
                }
                _ => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
    }

    /// Removes the topic; one that is gone already is fine. A partition of a shared topic is nobody's to remove.
    pub(super) async fn remove(&self, queue: &QueueName) -> Result<(), QueueError> {
        if queue.is_partition() {
            return Err(QueueError::Refused(format!("{queue} is a part of a topic that other nodes use")));
        }
        let admin = Admin::new(self, queue)?;
        let removed = admin.client()?.delete_topics(&[queue.topic_name()], &options()).await;
        first_result(queue, removed, RDKafkaErrorCode::UnknownTopicOrPartition)
    }

    /// The topics that begin with `prefix`, in order: one question to one broker.
    pub(super) async fn names(&self, prefix: &str) -> Result<Vec<QueueName>, QueueError> {
        let (config, prefix) = (self.consumer_config(), prefix.to_owned());
        blocking(move || {
            let names = BaseConsumer::from_config_and_context(&config, Logged);
            names.and_then(|consumer| topic_names(&consumer, &prefix)).map_err(|error| listing_error(&error))
        })
        .await
    }

    /// The topics that begin with `prefix`, in order, each with what Kafka knows of its last use.
    pub(super) async fn list(&self, prefix: &str) -> Result<Vec<NodeQueue>, QueueError> {
        let (config, prefix, retention_ms) = (self.consumer_config(), prefix.to_owned(), self.settings.retention_ms.0);
        blocking(move || {
            let topics = BaseConsumer::from_config_and_context(&config, Logged);
            topics.and_then(|consumer| used_topics(&consumer, &prefix, retention_ms)).map_err(|error| listing_error(&error))
        })
        .await
    }
}

/// The outcome for the one topic that was asked for, where `fine` is as good as done.
fn first_result(
    queue: &QueueName,
    results: KafkaResult<Vec<Result<String, (String, RDKafkaErrorCode)>>>,
    fine: RDKafkaErrorCode,
) -> Result<(), QueueError> {
    match results.map_err(|error| queue_error(queue, &error))?.into_iter().next() {
        Some(Err((_, code))) if code != fine => Err(queue_error_of(queue, code)),
        _ => Ok(()),
    }
}

/// What an error means where no queue was asked for by name: then none can be missing.
fn listing_error(error: &KafkaError) -> QueueError {
    match code_of(error).map(meaning_of) {
        Some(Meaning::Denied) => QueueError::Denied(error.to_string()),
        _ => QueueError::Unreachable(error.to_string()),
    }
}

/// Whether a broker leads the queue's partition, and answers for it; [`QueueError::Refused`] where the topic has too few.
fn leads(client: &AdminClient<Logged>, queue: &QueueName) -> Result<bool, QueueError> {
    let metadata = client.inner().fetch_metadata(Some(queue.topic_name()), ASK_TIMEOUT);
    let metadata = metadata.map_err(|error| queue_error(queue, &error))?;
    let Some(topic) = metadata.topics().iter().find(|topic| topic.name() == queue.topic_name()) else {
        return Ok(false);
    };
    if topic.error().is_some() || topic.partitions().is_empty() {
        return Ok(false);
    }
    let wanted = i64::from(queue.partition_number());
    match topic.partitions().iter().find(|partition| i64::from(partition.id()) == wanted) {
        Some(partition) if partition.leader() >= 0 => {
            // The metadata know the leader a moment before it knows itself.
            let asked = client.inner().fetch_watermarks(queue.topic_name(), partition.id(), ASK_TIMEOUT);
            asked.map(|_| true).map_err(|error| match queue_error(queue, &error) {
                QueueError::NoSuchQueue(_) => QueueError::Unreachable(error.to_string()),
                other => other,
            })
        }
        Some(_) => Ok(false),
        None => Err(QueueError::Refused(format!(
            "topic {} has only {} partitions, and {queue} is not among them",
            queue.topic_name(),
            topic.partitions().len()
        ))),
    }
}

/// Waits for the network.
fn topic_names(consumer: &BaseConsumer<Logged>, prefix: &str) -> KafkaResult<Vec<QueueName>> {
    let metadata = consumer.fetch_metadata(None, ASK_TIMEOUT)?;
    let topics = metadata.topics().iter().filter(|topic| topic.error().is_none()).map(|topic| topic.name());
    let mut queues: Vec<QueueName> =
        topics.filter(|name| name.starts_with(prefix)).filter_map(|name| QueueName::topic(name).ok()).collect();
    queues.sort();
    Ok(queues)
}

/// Waits for the network.
fn used_topics(consumer: &BaseConsumer<Logged>, prefix: &str, retention_ms: u64) -> KafkaResult<Vec<NodeQueue>> {
    let queues = topic_names(consumer, prefix)?;
    if queues.is_empty() {
        return Ok(Vec::new());
    }
    let lows = offsets(consumer, &queues, Offset::Beginning)?;
    let highs = offsets(consumer, &queues, Offset::End)?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64);

    let mut newest = TopicPartitionList::new();
    let mut last_used: HashMap<String, u64> = HashMap::new();
    for queue in &queues {
        let name = queue.topic_name();
        match (lows.get(name), highs.get(name)) {
            (Some(low), Some(high)) if high > low => newest.add_partition_offset(name, 0, Offset::Offset(high - 1))?,
            // It had records, and the last of them has outlived the retention.
            (Some(_), Some(1..)) => {
                last_used.insert(name.to_owned(), now.saturating_sub(retention_ms));
            }
            _ => {}
        }
    }
    let wanted = last_used.len() + newest.count();
    if newest.count() > 0 {
        consumer.assign(&newest)?;
    }
    let deadline = Instant::now() + READ_TIMEOUT;
    while last_used.len() < wanted && Instant::now() < deadline {
        let Some(Ok(message)) = consumer.poll(Duration::from_millis(100)) else { continue };
        if let Some(at) = message.timestamp().to_millis().and_then(|ms| u64::try_from(ms).ok()) {
            last_used.insert(message.topic().to_owned(), at);
        }
    }
    let queue_of = |queue: QueueName| NodeQueue { last_used: last_used.get(queue.topic_name()).copied(), queue };
    Ok(queues.into_iter().map(queue_of).collect())
}

/// The first or the last offset of each topic's only partition, in one question to each broker.
fn offsets(consumer: &BaseConsumer<Logged>, queues: &[QueueName], which: Offset) -> KafkaResult<HashMap<String, i64>> {
    let mut asked = TopicPartitionList::with_capacity(queues.len());
    for queue in queues {
        asked.add_partition_offset(queue.topic_name(), 0, which)?;
    }
    // Asked "for a time", `Beginning` and `End` are what ListOffsets calls earliest and latest.
    let answers = consumer.offsets_for_times(asked, ASK_TIMEOUT)?;
    let known = |(topic, offset): (String, Offset)| match offset {
        Offset::Offset(offset) => Some((topic, offset)),
        _ => None,
    };
    let elements = answers.elements();
    let fine = elements.iter().filter(|element| element.error().is_ok());
    Ok(fine.map(|element| (element.topic().to_owned(), element.offset())).filter_map(known).collect())
}
