//! Queues in process: what `dev` and most tests use. Exact and ordered, with the semantics of the real one:
//! offsets, a retention, gaps for whoever falls behind it, topics that can be removed under a reader.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::Notify;

use super::{Consumer, Delivery, NodeQueue, Producer, QueueError, QueueHealth, QueueName, QueueState, QueueSystem, Record};
use crate::lock::{Mutex, rank};

/// Queues that all nodes of one process share.
pub struct LocalQueues {
    logs: Arc<Logs>,
}

/// All there is, shared by the producers and consumers.
struct Logs {
    retention: Duration,
    max_records: usize,
    by_queue: Mutex<BTreeMap<QueueName, Arc<Log>>, { rank::LOCAL_QUEUES }>,
}

/// One queue's records.
struct Log {
    inner: Mutex<Records>,
    /// Wakes the readers: something was written, or the queue was removed.
    changed: Notify,
}

struct Records {
    /// The offset of the first record that is kept.
    first: u64,
    kept: VecDeque<Record>,
    made_at: u64,
    removed: bool,
}

impl Records {
    /// The offset of the next record to be written.
    fn end(&self) -> u64 {
        self.first + self.kept.len() as u64
    }

    fn drop_first(&mut self) {
        self.kept.pop_front();
        self.first += 1;
    }

    /// `oldest` in milliseconds since 1970.
    fn drop_older_than(&mut self, oldest: u64) {
        while self.kept.front().is_some_and(|record| record.queued_at < oldest) {
            self.drop_first();
        }
    }
}

impl LocalQueues {
    /// A queue keeps a record for `retention`, and at most `max_records` of them (at least one).
    pub fn new(retention: Duration, max_records: usize) -> Arc<Self> {
        let logs = Logs { retention, max_records: max_records.max(1), by_queue: Mutex::default() };
        Arc::new(Self { logs: Arc::new(logs) })
    }
}

impl Logs {
    fn get(&self, queue: &QueueName) -> Result<Arc<Log>, QueueError> {
        self.by_queue.lock().get(queue).cloned().ok_or_else(|| QueueError::NoSuchQueue(queue.clone()))
    }

    fn ensure(&self, queue: &QueueName) -> Arc<Log> {
        let made = || {
            let inner = Records { first: 0, kept: VecDeque::new(), made_at: now(), removed: false };
            Arc::new(Log { inner: Mutex::new(inner), changed: Notify::new() })
        };
        Arc::clone(self.by_queue.lock().entry(queue.clone()).or_insert_with(made))
    }

    fn append(&self, queue: &QueueName, payload: Bytes) -> Result<(), QueueError> {
        let log = self.get(queue)?;
        {
            let mut records = log.inner.lock();
            if records.removed {
                return Err(QueueError::NoSuchQueue(queue.clone()));
            }
            let record = Record { offset: records.end(), queued_at: now(), payload };
            records.drop_older_than(record.queued_at.saturating_sub(self.retention.as_millis() as u64));
            records.kept.push_back(record);
            if records.kept.len() > self.max_records {
                records.drop_first();
            }
        }
        log.changed.notify_waiters();
        Ok(())
    }
}

struct LocalProducer {
    logs: Arc<Logs>,
}

#[async_trait]
impl Producer for LocalProducer {
    async fn send(&self, queue: &QueueName, _key: &str, payload: Bytes) -> Result<(), QueueError> {
        self.logs.append(queue, payload)
    }

    async fn flush(&self) {}
}

struct LocalConsumer {
    logs: Arc<Logs>,
    queue: QueueName,
    log: Arc<Log>,
    /// The offset that is due.
    due: u64,
}

impl LocalConsumer {
    /// The next delivery, where there is one.
    fn take(&mut self) -> Option<Delivery> {
        let log = Arc::clone(&self.log);
        let records = log.inner.lock();
        if records.removed {
            drop(records);
            self.log = self.logs.ensure(&self.queue);
            self.due = 0;
            return Some(Delivery::Gap { reason: "the queue was removed and made anew".to_owned() });
        }
        if self.due < records.first {
            let reason = format!("the records from {} to {} are gone", self.due, records.first - 1);
            self.due = records.first;
            return Some(Delivery::Gap { reason });
        }
        let record = records.kept.get((self.due - records.first) as usize)?.clone();
        self.due += 1;
        Some(Delivery::Record(record))
    }
}

#[async_trait]
impl Consumer for LocalConsumer {
    async fn next(&mut self) -> Delivery {
        loop {
            let log = Arc::clone(&self.log);
            let changed = log.changed.notified();
            tokio::pin!(changed);
            // Listens before it looks, so that no change falls between the two.
            changed.as_mut().enable();
            if let Some(delivery) = self.take() {
                return delivery;
            }
            changed.await;
        }
    }
}

#[async_trait]
impl QueueSystem for LocalQueues {
    fn producer(&self) -> Arc<dyn Producer> {
        Arc::new(LocalProducer { logs: Arc::clone(&self.logs) })
    }

    async fn ensure(&self, queue: &QueueName) -> Result<(), QueueError> {
        self.logs.ensure(queue);
        Ok(())
    }

    async fn open(&self, queue: &QueueName) -> Result<Box<dyn Consumer>, QueueError> {
        let log = self.logs.get(queue)?;
        let due = log.inner.lock().end();
        Ok(Box::new(LocalConsumer { logs: Arc::clone(&self.logs), queue: queue.clone(), log, due }))
    }

    async fn list(&self, topic_prefix: &str) -> Result<Vec<NodeQueue>, QueueError> {
        let logs = self.logs.by_queue.lock();
        let own = logs.iter().filter(|(queue, _)| !queue.is_partition() && queue.topic_name().starts_with(topic_prefix));
        let listed = own.map(|(queue, log)| {
            let records = log.inner.lock();
            let last_used = records.kept.back().map_or(records.made_at, |newest| newest.queued_at);
            NodeQueue { queue: queue.clone(), last_used: Some(last_used) }
        });
        Ok(listed.collect())
    }

    async fn names(&self, topic_prefix: &str) -> Result<Vec<QueueName>, QueueError> {
        Ok(self.list(topic_prefix).await?.into_iter().map(|listed| listed.queue).collect())
    }

    async fn remove(&self, queue: &QueueName) -> Result<(), QueueError> {
        if queue.is_partition() {
            return Err(QueueError::Refused(format!("{queue} is a part of a topic that other nodes use")));
        }
        let removed = self.logs.by_queue.lock().remove(queue);
        if let Some(log) = removed {
            log.inner.lock().removed = true;
            log.changed.notify_waiters();
        }
        Ok(())
    }

    async fn health(&self, queue: &QueueName, position: Option<u64>) -> QueueHealth {
        match self.logs.get(queue) {
            Ok(log) => {
                let end = log.inner.lock().end();
                QueueHealth { state: QueueState::Good, lag: position.map(|next| end.saturating_sub(next)) }
            }
            Err(error) => QueueHealth { state: QueueState::Missing { reason: error.to_string() }, lag: None },
        }
    }
}

/// Milliseconds since 1970, UTC.
fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn queue(name: &str) -> QueueName {
        name.parse().unwrap()
    }

    async fn send(queues: &Arc<LocalQueues>, to: &str, payload: &str) -> Result<(), QueueError> {
        queues.producer().send(&queue(to), "key", Bytes::copy_from_slice(payload.as_bytes())).await
    }

    async fn hear(consumer: &mut Box<dyn Consumer>) -> String {
        let delivery = tokio::time::timeout(Duration::from_secs(5), consumer.next()).await.expect("a delivery");
        match delivery {
            Delivery::Record(record) => {
                format!("{} {}", record.offset, String::from_utf8_lossy(&record.payload))
            }
            Delivery::Gap { .. } => "gap".to_owned(),
        }
    }

    #[tokio::test]
    async fn what_is_sent_after_opening_is_heard_in_order() {
        let queues = LocalQueues::new(Duration::from_secs(60), 100);
        queues.ensure(&queue("q")).await.unwrap();
        send(&queues, "q", "before").await.unwrap();
        let mut consumer = queues.open(&queue("q")).await.unwrap();
        send(&queues, "q", "one").await.unwrap();
        send(&queues, "q", "two").await.unwrap();
        assert_eq!(queues.health(&queue("q"), Some(1)).await.lag, Some(2));
        assert_eq!(hear(&mut consumer).await, "1 one");
        assert_eq!(hear(&mut consumer).await, "2 two");
    }

    #[tokio::test]
    async fn a_waiting_consumer_is_woken() {
        let queues = LocalQueues::new(Duration::from_secs(60), 100);
        queues.ensure(&queue("q")).await.unwrap();
        let mut consumer = queues.open(&queue("q")).await.unwrap();
        let waiting = tokio::spawn(async move { hear(&mut consumer).await });
        tokio::task::yield_now().await;
        send(&queues, "q", "hello").await.unwrap();
        assert_eq!(waiting.await.unwrap(), "0 hello");
    }

    #[tokio::test]
    async fn who_falls_behind_the_bounded_log_hears_a_gap_and_then_what_is_left() {
        let queues = LocalQueues::new(Duration::from_secs(60), 2);
        queues.ensure(&queue("q")).await.unwrap();
        let mut consumer = queues.open(&queue("q")).await.unwrap();
        for payload in ["a", "b", "c", "d"] {
            send(&queues, "q", payload).await.unwrap();
        }
        assert_eq!(hear(&mut consumer).await, "gap");
        assert_eq!(hear(&mut consumer).await, "2 c");
        assert_eq!(hear(&mut consumer).await, "3 d");
    }

    #[tokio::test]
    async fn records_older_than_the_retention_are_gone() {
        let queues = LocalQueues::new(Duration::from_secs(60), 100);
        queues.ensure(&queue("q")).await.unwrap();
        let mut consumer = queues.open(&queue("q")).await.unwrap();
        send(&queues, "q", "old").await.unwrap();
        queues.logs.get(&queue("q")).unwrap().inner.lock().kept[0].queued_at -= 61_000;
        send(&queues, "q", "new").await.unwrap();
        assert_eq!(hear(&mut consumer).await, "gap");
        assert_eq!(hear(&mut consumer).await, "1 new");
    }

    #[tokio::test]
    async fn a_queue_removed_under_its_reader_is_made_again_with_a_gap() {
        let queues = LocalQueues::new(Duration::from_secs(60), 100);
        queues.ensure(&queue("q")).await.unwrap();
        let mut consumer = queues.open(&queue("q")).await.unwrap();
        queues.remove(&queue("q")).await.unwrap();
        assert!(matches!(send(&queues, "q", "lost").await, Err(QueueError::NoSuchQueue(_))));
        assert_eq!(hear(&mut consumer).await, "gap");
        send(&queues, "q", "again").await.unwrap();
        assert_eq!(hear(&mut consumer).await, "0 again");
    }

    #[tokio::test]
    async fn lists_the_topics_of_nodes_and_keeps_partitions_apart() {
        let queues = LocalQueues::new(Duration::from_secs(60), 100);
        for name in ["mp.node.b", "mp.node.a", "mp.shards/0", "mp.shards/1", "mp.all"] {
            queues.ensure(&queue(name)).await.unwrap();
        }
        let listed = queues.list("mp.node.").await.unwrap();
        let names: Vec<String> = listed.iter().map(|node| node.queue.to_string()).collect();
        assert_eq!(names, ["mp.node.a", "mp.node.b"]);

        let mut second = queues.open(&queue("mp.shards/1")).await.unwrap();
        send(&queues, "mp.shards/0", "first").await.unwrap();
        send(&queues, "mp.shards/1", "second").await.unwrap();
        assert_eq!(hear(&mut second).await, "0 second");
        assert!(matches!(queues.remove(&queue("mp.shards/1")).await, Err(QueueError::Refused(_))));
    }
}
