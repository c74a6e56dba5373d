//! Queues as Kafka topics: each node reads a topic of its own, a partition of a shared one, or the topic of all.
//!
//! - `client` — how every librdkafka client of ours is set up, and what it logs;
//! - `errors` — what each error means: away, forbidden for now, or wrong for ever;
//! - `denials` — what the cluster forbids us now, for readiness and the log;
//! - `producer` — sends in order, says quickly when a topic is gone, and forgets the topics of dead nodes;
//! - `consumer` — reads from a numeric offset on, and says where continuity ends (I-6);
//! - `admin` — makes, lists, removes and asks topics.
//!
//! librdkafka's calls that wait run on blocking threads; nothing here blocks a task.

use std::sync::Arc;

use async_trait::async_trait;

use super::{Consumer, NodeQueue, Producer, QueueError, QueueHealth, QueueName, QueueSystem};
use crate::config::QueueSettings;

mod admin;
mod client;
mod consumer;
mod denials;
mod errors;
mod producer;

use client::Cluster;
use consumer::{KafkaConsumer, Start};
use producer::KafkaProducer;

/// A Kafka cluster as a queue system. One producer is shared by all who ask for one.
pub struct KafkaQueues {
    cluster: Arc<Cluster>,
    producer: Arc<KafkaProducer>,
}

impl KafkaQueues {
    /// Checks the settings, without waiting for the cluster: that may be away and come later.
    ///
    /// [`QueueError::Refused`] names the setting that librdkafka does not take, and never its value.
    pub fn new(settings: &QueueSettings) -> Result<Arc<Self>, QueueError> {
        let cluster = Arc::new(Cluster::new(settings)?);
        let producer = Arc::new(KafkaProducer::new(Arc::clone(&cluster))?);
        Ok(Arc::new(Self { cluster, producer }))
    }
}

#[async_trait]
impl QueueSystem for KafkaQueues {
    fn producer(&self) -> Arc<dyn Producer> {
        Arc::clone(&self.producer) as Arc<dyn Producer>
    }

    async fn ensure(&self, queue: &QueueName) -> Result<(), QueueError> {
        self.cluster.ensure(queue).await
    }

    async fn open(&self, queue: &QueueName) -> Result<Box<dyn Consumer>, QueueError> {
        Ok(Box::new(KafkaConsumer::open(Arc::clone(&self.cluster), queue, Start::End).await?))
    }

    async fn list(&self, topic_prefix: &str) -> Result<Vec<NodeQueue>, QueueError> {
        self.cluster.list(topic_prefix).await
    }

    async fn names(&self, topic_prefix: &str) -> Result<Vec<QueueName>, QueueError> {
        self.cluster.names(topic_prefix).await
    }

    async fn remove(&self, queue: &QueueName) -> Result<(), QueueError> {
        self.cluster.remove(queue).await
    }

    async fn health(&self, queue: &QueueName, position: Option<u64>) -> QueueHealth {
        self.producer.health(queue, position).await
    }
}
