//! The checks of what nodes share (registry, queue) and of sessions.

use super::checker::Checker;
use super::{QueueKind, QueueSettings, RegistryKind, RegistrySettings, Settings, Topology};

pub(super) fn sessions(checker: &mut Checker<'_>, settings: &Settings) {
    let s = &settings.sessions;
    let least_one = [
        ("connect_deadline_ms", s.connect_deadline_ms.0),
        ("heartbeat_ms", s.heartbeat_ms.0),
        ("pong_timeout_ms", s.pong_timeout_ms.0),
        ("subscriptions_per_session", s.subscriptions_per_session as u64),
        ("sessions_per_user", s.sessions_per_user as u64),
        ("unauthenticated_sockets", s.unauthenticated_sockets as u64),
        ("commands_per_second", s.commands_per_second.into()),
        ("command_burst", s.command_burst.into()),
        ("outbox_events", s.outbox_events as u64),
        ("slow_client_timeout_ms", s.slow_client_timeout_ms.0),
        ("subscribe_timeout_ms", s.subscribe_timeout_ms.0),
    ];
    for (name, value) in least_one {
        checker.at_least(&format!("sessions.{name}"), value, 1);
    }
    checker.at_least("sessions.frame_limit_bytes", s.frame_limit_bytes as u64, 1024);
    checker.at_least("sessions.outbox_bytes", s.outbox_bytes as u64, 1024);
    checker.require(
        &["sessions.pong_timeout_ms", "sessions.heartbeat_ms"],
        s.pong_timeout_ms < s.heartbeat_ms || s.heartbeat_ms.0 == 0,
        format!("is {}, not less than sessions.heartbeat_ms", s.pong_timeout_ms.0),
        "A pong must be due before the next heartbeat: lower it or raise sessions.heartbeat_ms.",
    );
    // A subscription is answered only once its registration has settled (I-5).
    checker.require(
        &["sessions.subscribe_timeout_ms", "registry.settle_ms"],
        s.subscribe_timeout_ms > settings.registry.settle_ms,
        format!("is {}, not more than registry.settle_ms", s.subscribe_timeout_ms.0),
        "No subscription could succeed: raise it above the time a registration needs to settle.",
    );
}

/// Registry, queue, and how they fit together.
pub(super) fn cluster(checker: &mut Checker<'_>, settings: &Settings) {
    let (registry, queue) = (&settings.registry, &settings.queue);
    let hint = "Use zookeeper or broadcast; `mailpush dev` brings its own local registry.";
    checker.require(&["registry.kind"], registry.kind != RegistryKind::Local, "is local, which holds one process only", hint);
    let hint = "Use kafka; `mailpush dev` brings its own local queue.";
    checker.require(&["queue.kind"], queue.kind != QueueKind::Local, "is local, which holds one process only", hint);
    checker.require(
        &["queue.topology", "registry.kind"],
        registry.kind != RegistryKind::Broadcast || queue.topology == Topology::Broadcast,
        "is not broadcast although registry.kind is",
        "Without ZooKeeper all nodes share one queue: set queue.topology to broadcast.",
    );
    if registry.kind == RegistryKind::Zookeeper {
        zookeeper(checker, registry);
    }
    self::registry(checker, registry);
    if queue.kind == QueueKind::Kafka {
        kafka(checker, queue);
    }
    checker.require(
        &["queue.gc_grace_ms", "registry.session_timeout_ms"],
        queue.gc_grace_ms >= registry.session_timeout_ms,
        format!("is {}, less than registry.session_timeout_ms", queue.gc_grace_ms.0),
        "A node that only lost its ZooKeeper session would lose its queue: raise it.",
    );
}

fn registry(checker: &mut Checker<'_>, registry: &RegistrySettings) {
    checker.at_least("registry.lookup_timeout_ms", registry.lookup_timeout_ms.0, 1);
    checker.at_least("registry.cache_entries", registry.cache_entries as u64, 1);
    checker.require(
        &["registry.peers", "registry.kind"],
        registry.peers.is_empty() || registry.kind == RegistryKind::Broadcast,
        "is set although registry.kind is not broadcast",
        "Remove it: with ZooKeeper nodes find each other.",
    );
}

fn zookeeper(checker: &mut Checker<'_>, registry: &RegistrySettings) {
    let hint = "Name at least one ensemble, such as [\"zk-1:2181,zk-2:2181,zk-3:2181\"].";
    checker.require(&["registry.ensembles"], !registry.ensembles.is_empty(), "is empty", hint);
    checker.at_least("registry.session_timeout_ms", registry.session_timeout_ms.0, 1_000);
    checker.at_least("registry.settle_ms", registry.settle_ms.0, 50);
    checker.at_least("registry.audit_ms", registry.audit_ms.0, 100);
    checker.at_most("registry.audit_ms", registry.audit_ms.0, 30_000);
    let (user, password) = (!registry.auth_user.is_empty(), !registry.auth_password.is_empty());
    let hint = "Digest authentication needs a user and a password; without it, set neither.";
    checker.together(("registry.auth_user", user), ("registry.auth_password", password), hint);
    let colon = registry.auth_user.contains(':');
    checker.require(&["registry.auth_user"], !colon, "holds ':'", "Choose a user name without it.");
    checker.tls("registry.tls", &registry.tls);
}

fn kafka(checker: &mut Checker<'_>, queue: &QueueSettings) {
    let hint = "Name at least one broker, such as [\"kafka-1:9092\", \"kafka-2:9092\"].";
    checker.require(&["queue.brokers"], !queue.brokers.is_empty(), "is empty", hint);
    checker.at_least("queue.shards", queue.shards.into(), 1);
    checker.at_most("queue.shards", queue.shards.into(), 10_000);
    checker.at_least("queue.replication", queue.replication.into(), 1);
    checker.at_least("queue.retention_ms", queue.retention_ms.0, 60_000);
    checker.at_least("queue.send_timeout_ms", queue.send_timeout_ms.0, 1);
    checker.at_least("queue.max_in_flight", queue.max_in_flight as u64, 1);
    checker.at_least("queue.max_event_bytes", queue.max_event_bytes as u64, 1024);
    checker.at_least("queue.gc_interval_ms", queue.gc_interval_ms.0, 1_000);
    checker.require(
        &["queue.linger_ms", "queue.send_timeout_ms"],
        queue.linger_ms < queue.send_timeout_ms,
        format!("is {}, not less than queue.send_timeout_ms", queue.linger_ms.0),
        "Events would time out while they wait for company: a few milliseconds are enough.",
    );
    firehose(checker, queue);
    sasl(checker, queue);
    checker.tls("queue.tls", &queue.tls);
    for (name, _) in &queue.properties {
        let hint = "It is derived from other settings, or mailpush's guarantees rest on it: remove it.";
        let setting = format!("queue.properties.{name}");
        checker.require(&[&setting], !is_reserved(name), "must not be set here", hint);
    }
}

fn firehose(checker: &mut Checker<'_>, queue: &QueueSettings) {
    let Some(topic) = &queue.firehose else { return };
    let own = topic.as_str().strip_prefix(queue.prefix.as_str()).and_then(|rest| rest.strip_prefix('.'));
    let clash = own.is_some_and(|rest| rest == "all" || rest == "shards" || rest.starts_with("node."));
    checker.require(&["queue.firehose", "queue.prefix"], !clash, "is the name of a queue", "Choose another topic.");
}

fn sasl(checker: &mut Checker<'_>, queue: &QueueSettings) {
    const ALL: [&str; 3] = ["queue.sasl_mechanism", "queue.sasl_user", "queue.sasl_password"];
    let set = [queue.sasl_mechanism.is_some(), !queue.sasl_user.is_empty(), !queue.sasl_password.is_empty()];
    let hint = "SASL needs a mechanism, a user and a password; without it, set none of them.";
    for (name, is_set) in ALL.into_iter().zip(set) {
        let good = is_set || !set.contains(&true);
        checker.require(&[&[name], &ALL[..]].concat(), good, "is missing although other SASL settings are set", hint);
    }
}

/// librdkafka's properties that other settings or the producer's guarantees (in order, at least
/// once) decide.
fn is_reserved(property: &str) -> bool {
    const NAMES: [&str; 14] = [
        "acks",
        "bootstrap.servers",
        "enable.auto.commit",
        "enable.idempotence",
        "group.id",
        "metadata.broker.list",
        "request.required.acks",
        "sasl.mechanism",
        "sasl.mechanisms",
        "sasl.password",
        "sasl.username",
        "security.protocol",
        "topic.request.required.acks",
        "transactional.id",
    ];
    NAMES.contains(&property)
}
