//! What the agent counts, beside what its publisher does.

use std::sync::atomic::AtomicU64;

use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};

type Labels = Vec<(&'static str, &'static str)>;
type Number = Gauge<i64, std::sync::atomic::AtomicI64>;

/// The agent's metrics; one an agent.
#[derive(Debug, Default)]
pub struct AgentMetrics {
    /// Events taken in, by where they came in.
    pub received: Family<Labels, Counter>,
    /// Requests that were refused, by reason.
    pub refused: Family<Labels, Counter>,
    /// Events that no more attempt could publish, and that were dropped.
    pub dropped: Counter<u64, AtomicU64>,
    /// Attempts to publish that have to be made again.
    pub retries: Counter<u64, AtomicU64>,
    /// Messages whose flags were to be completed, by what became of it.
    pub completed: Family<Labels, Counter>,
    spool_events: Number,
    spool_bytes: Number,
}

impl AgentMetrics {
    pub fn count(family: &Family<Labels, Counter>, label: &'static str, value: &'static str, by: usize) {
        if by > 0 {
            family.get_or_create(&vec![(label, value)]).inc_by(by as u64);
        }
    }

    /// OpenMetrics text, behind that of the publisher.
    pub fn render(&self, publisher: &str, backlog: super::spool::Backlog) -> String {
        self.spool_events.set(backlog.records.try_into().unwrap_or(i64::MAX));
        self.spool_bytes.set(backlog.bytes.try_into().unwrap_or(i64::MAX));
        let mut registry = Registry::with_prefix("mailpush_agent");
        registry.register("events_received", "Events taken in, by way", self.received.clone());
        registry.register("requests_refused", "Requests refused, by reason", self.refused.clone());
        registry.register("events_dropped", "Events that could never be published", self.dropped.clone());
        registry.register("publish_retries", "Attempts to publish that are made again", self.retries.clone());
        registry.register("messages_completed", "Messages that lacked flags, by outcome", self.completed.clone());
        registry.register("spool_events", "Events that are not published yet", self.spool_events.clone());
        registry.register_with_unit("spool", "Taken up by the spool", Unit::Bytes, self.spool_bytes.clone());
        let mut text = publisher.strip_suffix("# EOF\n").unwrap_or(publisher).to_owned();
        // Cannot fail: writing to a String does not.
        let _ = encode(&mut text, &registry);
        text
    }
}
