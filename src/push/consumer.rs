//! The node's consumer: decodes each record once, drops duplicates, hands it to the hub, then
//! applies it to the node's subscriptions.
//!
//! Clients are told only what comes out here, also on the origin's own node (I-7). A bad record is
//! counted, logged at a limited rate, and skipped: it never stops the queue (I-1).

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tracing::warn;

use super::dedup::Dedup;
use super::delivery::Delivery;
use super::metrics::Metrics;
use super::subscriptions::Subscriptions;
use crate::cluster::queue::{self, Consumer, Position, QueueName, Record};
use crate::mail::codec::{DecodeError, from_msgpack};

/// Ids remembered against duplicates: minutes of a busy node's events.
const DEDUP_WINDOW: usize = 65_536;

/// At most one line about bad records in this time.
const LOG_INTERVAL: Duration = Duration::from_secs(5);

/// From a queue to a hub.
pub struct NodeConsumer {
    pub queue: QueueName,
    pub subscriptions: Arc<Subscriptions>,
    pub metrics: Arc<Metrics>,
    /// The next offset to read; 0 while nothing was read.
    pub position: Arc<AtomicU64>,
    /// Hears of gaps in the queue: every session is told (I-6).
    pub gaps: mpsc::UnboundedSender<()>,
    /// Milliseconds since 1970, UTC.
    pub clock: fn() -> u64,
}

impl NodeConsumer {
    /// Runs until it is dropped.
    pub async fn run(self, mut consumer: Box<dyn Consumer>) {
        let mut dedup = Dedup::new(DEDUP_WINDOW);
        let mut bad = BadRecords::default();
        let mut since_yield = 0;
        loop {
            match consumer.next().await {
                queue::Delivery::Record(record) => self.consume(record, &mut dedup, &mut bad),
                queue::Delivery::Gap { reason } => {
                    warn!(queue = %self.queue, %reason, "records of the queue may be lost: every session is told to resync");
                    Metrics::count(&self.metrics.consumed, "outcome", "gap");
                    let _ = self.gaps.send(());
                }
            }
            // A full queue must not keep the sessions from writing.
            since_yield += 1;
            if since_yield >= 64 {
                since_yield = 0;
                tokio::task::yield_now().await;
            }
        }
    }

    fn consume(&self, record: Record, dedup: &mut Dedup, bad: &mut BadRecords) {
        self.position.store(record.offset + 1, Ordering::Relaxed);
        let event = match from_msgpack(&record.payload, None) {
            Ok(event) => event,
            Err(error) => {
                let outcome = if matches!(error, DecodeError::UnknownType(_)) { "unknown_type" } else { "bad" };
                Metrics::count(&self.metrics.consumed, "outcome", outcome);
                bad.note(&self.queue, record.offset, &error);
                return;
            }
        };
        if !dedup.admit(event.id) {
            Metrics::count(&self.metrics.consumed, "outcome", "duplicate");
            return;
        }
        let now = (self.clock)();
        let seconds = |later: u64, earlier: u64| later.saturating_sub(earlier) as f64 / 1000.0;
        if record.queued_at > 0 && event.at > 0 {
            self.metrics.stage("published_to_queued", seconds(record.queued_at, event.at));
            self.metrics.stage("queued_to_consumed", seconds(now, record.queued_at));
        }
        let position = Position { queue: self.queue.clone(), offset: record.offset };
        let delivery = Arc::new(Delivery::new(event, &position, record.payload.len(), Instant::now()));
        let fanout = self.subscriptions.hub.deliver(&delivery);
        self.subscriptions.apply(&delivery);
        let wanted = fanout.queued + fanout.collapsed + fanout.absorbed > 0;
        Metrics::count(&self.metrics.consumed, "outcome", if wanted { "delivered" } else { "unwanted" });
        Metrics::add(&self.metrics.deliveries, "outcome", "queued", fanout.queued as u64);
        Metrics::add(&self.metrics.deliveries, "outcome", "collapsed", fanout.collapsed as u64);
        Metrics::add(&self.metrics.deliveries, "outcome", "absorbed", fanout.absorbed as u64);
    }
}

/// Bad records, told at a limited rate.
#[derive(Default)]
struct BadRecords {
    last: Option<Instant>,
    untold: u64,
}

impl BadRecords {
    fn note(&mut self, queue: &QueueName, offset: u64, error: &DecodeError) {
        if self.last.is_some_and(|last| last.elapsed() < LOG_INTERVAL) {
            self.untold += 1;
            return;
        }
        warn!(%queue, offset, %error, also = self.untold, "skipped a record that is no event");
        self.last = Some(Instant::now());
        self.untold = 0;
    }
}
