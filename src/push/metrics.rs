//! Counters, gauges and histograms, in Prometheus's words. Labels come from our own tables, never
//! from mail.

use std::sync::atomic::AtomicU64;

use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};

type Labels = Vec<(&'static str, &'static str)>;

/// A process's metrics; one a node.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    /// Events taken in for publishing, by outcome.
    pub published: Family<Labels, Counter>,
    /// Sends to queues, by outcome.
    pub sends: Family<Labels, Counter>,
    /// Lookups by how they were answered.
    pub lookups: Family<Labels, Counter>,
    /// Records consumed, by what became of them.
    pub consumed: Family<Labels, Counter>,
    /// Deliveries to sessions, by what became of them.
    pub deliveries: Family<Labels, Counter>,
    /// Breaks in continuity told to clients, by reason.
    pub resyncs: Family<Labels, Counter>,
    /// What was known of rights and became too old to be trusted.
    pub rights_expired: Counter,
    /// Subscriptions ended because the right was lost, by transport.
    pub revoked: Family<Labels, Counter>,
    /// Sessions opened, by transport.
    pub opened: Family<Labels, Counter>,
    /// Sessions closed, by reason.
    pub closed: Family<Labels, Counter>,
    /// Tokens refused, by reason.
    pub tokens_refused: Family<Labels, Counter>,
    /// Questions for rights, by source and outcome.
    pub rights_questions: Family<Labels, Counter>,
    /// Seconds until they were answered, or given up, by source.
    pub rights_latency: Family<Labels, Histogram>,
    pub http_requests: Family<Labels, Counter>,
    /// IMAP connections turned away, by reason.
    pub imap_refused: Family<Labels, Counter>,
    /// Connections to mail servers, by outcome.
    pub imap_upstream: Family<Labels, Counter>,
    /// Changes of ACLs that clients made through the door, by whether the cluster could be told.
    pub imap_acl_changes: Family<Labels, Counter>,
    pub imap_connections: Gauge,
    pub imap_unauthenticated: Gauge,
    /// IMAP connections whose mail server's side is let go.
    pub imap_parked: Gauge,
    /// Seconds from one stage of an event's life to the next.
    pub stages: Family<Labels, Histogram>,
    /// The stage that every delivery to every session ends with: looked up once, not each time.
    consumed_to_written: Histogram,
    pub sessions: Gauge,
    pub keys: Gauge,
    pub registrations: Gauge,
    pub unauthenticated: Gauge,
    pub lag: Gauge,
    pub registry_connected: Gauge,
    pub queue_reachable: Gauge,
    pub bytes_written: Counter<u64, AtomicU64>,
}

impl Default for Metrics {
    fn default() -> Self {
        // 50 µs to 26 s.
        let histogram: fn() -> Histogram = || Histogram::new(exponential_buckets(0.000_05, 2.0, 20));
        let stages = Family::new_with_constructor(histogram);
        let consumed_to_written = stages.get_or_create_owned(&vec![("stage", "consumed_to_written")]);
        let mut metrics = Self {
            registry: Registry::with_prefix("mailpush"),
            published: Family::default(),
            sends: Family::default(),
            lookups: Family::default(),
            consumed: Family::default(),
            deliveries: Family::default(),
            resyncs: Family::default(),
            rights_expired: Counter::default(),
            revoked: Family::default(),
            opened: Family::default(),
            closed: Family::default(),
            tokens_refused: Family::default(),
            rights_questions: Family::default(),
            rights_latency: Family::new_with_constructor(histogram),
            http_requests: Family::default(),
            imap_refused: Family::default(),
            imap_upstream: Family::default(),
            imap_acl_changes: Family::default(),
            imap_connections: Gauge::default(),
            imap_unauthenticated: Gauge::default(),
            imap_parked: Gauge::default(),
            stages,
            consumed_to_written,
            sessions: Gauge::default(),
            keys: Gauge::default(),
            registrations: Gauge::default(),
            unauthenticated: Gauge::default(),
            lag: Gauge::default(),
            registry_connected: Gauge::default(),
            queue_reachable: Gauge::default(),
            bytes_written: Counter::default(),
        };
        let r = &mut metrics.registry;
        r.register("events_published", "Events taken in for publishing, by outcome", metrics.published.clone());
        r.register("queue_sends", "Sends to queues, by outcome", metrics.sends.clone());
        r.register("lookups", "Registry lookups, by how they were answered", metrics.lookups.clone());
        r.register("records_consumed", "Records consumed from the queue, by what became of them", metrics.consumed.clone());
        r.register("deliveries", "Deliveries to sessions, by what became of them", metrics.deliveries.clone());
        r.register("resyncs", "Breaks in continuity told to sessions, by reason", metrics.resyncs.clone());
        r.register("rights_expired", "Known rights that became too old to be trusted", metrics.rights_expired.clone());
        r.register("revoked", "Subscriptions ended because the right was lost, by transport", metrics.revoked.clone());
        r.register("sessions_opened", "Sessions opened, by transport", metrics.opened.clone());
        r.register("sessions_closed", "Sessions closed, by reason", metrics.closed.clone());
        r.register("tokens_refused", "Tokens refused, by reason", metrics.tokens_refused.clone());
        r.register("rights_questions", "Questions for rights, by source and outcome", metrics.rights_questions.clone());
        let help = "Until a question for rights was answered or given up";
        r.register_with_unit("rights_latency", help, Unit::Seconds, metrics.rights_latency.clone());
        r.register("http_requests", "HTTP requests, by route and status", metrics.http_requests.clone());
        r.register("imap_refused", "IMAP connections turned away, by reason", metrics.imap_refused.clone());
        r.register("imap_upstream_connects", "Connections to mail servers, by outcome", metrics.imap_upstream.clone());
        let help = "ACL changes that IMAP clients made or tried, by whether the cluster was told";
        r.register("imap_acl_changes", help, metrics.imap_acl_changes.clone());
        r.register("imap_connections", "IMAP connections", metrics.imap_connections.clone());
        r.register("imap_unauthenticated", "IMAP connections not logged in yet", metrics.imap_unauthenticated.clone());
        r.register("imap_parked", "IMAP connections that hold no mail server's", metrics.imap_parked.clone());
        let help = "From one stage of an event's life to the next";
        r.register_with_unit("stage_latency", help, Unit::Seconds, metrics.stages.clone());
        r.register("sessions", "Live sessions", metrics.sessions.clone());
        r.register("keys", "Keys with subscribers", metrics.keys.clone());
        r.register("registrations", "Keys registered, lingering ones too", metrics.registrations.clone());
        r.register("unauthenticated_sockets", "Sockets without a verified token yet", metrics.unauthenticated.clone());
        r.register("queue_lag", "Records in the node's queue that are not consumed yet", metrics.lag.clone());
        r.register("registry_connected", "1 while the registry is connected", metrics.registry_connected.clone());
        r.register("queue_reachable", "1 while the queue answers, and may be read and written", metrics.queue_reachable.clone());
        r.register_with_unit("written", "Written to clients", Unit::Bytes, metrics.bytes_written.clone());
        metrics
    }
}

impl Metrics {
    pub fn count(family: &Family<Labels, Counter>, label: &'static str, value: &'static str) {
        Self::add(family, label, value, 1);
    }

    pub fn add(family: &Family<Labels, Counter>, label: &'static str, value: &'static str, by: u64) {
        if by > 0 {
            family.get_or_create(&vec![(label, value)]).inc_by(by);
        }
    }

    /// Counts a question for rights, and observes the seconds that it took.
    pub fn rights_asked(&self, source: &'static str, outcome: &'static str, seconds: f64) {
        self.rights_questions.get_or_create(&vec![("source", source), ("outcome", outcome)]).inc();
        self.rights_latency.get_or_create(&vec![("source", source)]).observe(seconds);
    }

    /// Observes the time, in seconds, that an event took to reach `stage` from the one before.
    pub fn stage(&self, stage: &'static str, seconds: f64) {
        self.stages.get_or_create(&vec![("stage", stage)]).observe(seconds);
    }

    /// Observes the time, in seconds, from an event's consumption until a session's socket took it.
    pub fn written(&self, seconds: f64) {
        self.consumed_to_written.observe(seconds);
    }

    /// OpenMetrics text.
    pub fn render(&self) -> String {
        let mut text = String::new();
        // Cannot fail: writing to a String does not.
        let _ = encode(&mut text, &self.registry);
        text
    }
}
