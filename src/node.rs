//! A running node: the only file that names concrete adapters, and that starts, drains and stops
//! them.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::{AbortOnDropHandle, TaskTracker};
use tracing::{info, warn};

use crate::cluster::acls::Acls;
use crate::cluster::queue::gc;
use crate::cluster::queue::kafka::KafkaQueues;
use crate::cluster::queue::{QueueError, QueueHealth, QueueName, QueueState, QueueSystem};
use crate::cluster::registry::broadcast::BroadcastRegistry;
use crate::cluster::registry::zookeeper::ZookeeperRegistry;
use crate::cluster::registry::{Directory, NodeRecord, Place, QueueId, QueueNames, Registrar};
use crate::config::{ProxyUrl, QueueKind, RegistryKind, RightsKind, Settings, Topology};
use crate::edge::auth::{Authenticator, user_names};
use crate::edge::followers::{self, Followers};
use crate::edge::gateway::Gateway;
use crate::edge::http::router;
use crate::edge::imap;
use crate::edge::imap::rights::ImapRights;
use crate::edge::imap::upstream::Upstreams;
use crate::edge::tickets::Tickets;
use crate::http::client;
use crate::http::server::{Bounds, serve};
use crate::lock::Mutex;
use crate::mail::ids::NodeId;
use crate::mail::key::Key;
use crate::push::access::registry::RegistryRights;
use crate::push::access::source::RightsSource;
use crate::push::access::{self, Access, Via};
use crate::push::clock::unix_ms;
use crate::push::consumer::NodeConsumer;
use crate::push::hub::Hub;
use crate::push::metrics::Metrics;
use crate::push::outbox::{End, Resync, ResyncReason};
use crate::push::presence::{Break, Presence};
use crate::push::publisher::{Everyone, Options, Publisher};
use crate::push::sessions::Sessions;
use crate::push::subscriptions::{Parts, Subscriptions};
use crate::push::written::WriteThrough;
use crate::tasks;
use crate::wire::ws::push::ToldLimits;
use crate::wire::ws::session::Rules;

/// How often the queue is asked how it is.
const HEALTH_INTERVAL: Duration = Duration::from_secs(2);
/// Between attempts to make and open the queue at the start.
const START_RETRY: Duration = Duration::from_secs(2);
/// Between batches of `resync`s.
const TICK: Duration = Duration::from_millis(5);
/// How long a drain waits for clients, and then for the registry and the queue, once it is told to
/// hurry.
const HURRIED: Duration = Duration::from_millis(500);
/// How long a client may take over its half of the closing handshake.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// The cluster's parts, as this process reaches them.
#[derive(Clone)]
pub struct Cluster {
    pub registrar: Arc<dyn Registrar>,
    pub directory: Arc<dyn Directory>,
    pub queues: Arc<dyn QueueSystem>,
    /// The ACLs that the registry keeps, where it can.
    pub acls: Option<Arc<dyn Acls>>,
    /// Who knows the rights, in place of what the settings name.
    pub rights: Option<Arc<dyn RightsSource>>,
    pub names: QueueNames,
}

impl Cluster {
    /// The registry and the queue that the settings name. Does not wait for either to be reachable.
    pub async fn connect(settings: &Settings) -> Result<Self> {
        let names = QueueNames::of(&settings.queue.prefix);
        let queues: Arc<dyn QueueSystem> = match settings.queue.kind {
            QueueKind::Kafka => KafkaQueues::new(&settings.queue).context("the queue's settings")?,
            QueueKind::Local => anyhow::bail!("queue.kind = \"local\" works within one process only: use mailpush dev"),
        };
        let mut acls: Option<Arc<dyn Acls>> = None;
        let (registrar, directory): (Arc<dyn Registrar>, Arc<dyn Directory>) = match settings.registry.kind {
            RegistryKind::Zookeeper => {
                let registry = ZookeeperRegistry::connect(&settings.registry, names.clone()).await;
                let registry = registry.context("the registry's settings")?;
                acls = Some(registry.clone());
                (registry.clone(), registry)
            }
            RegistryKind::Broadcast => {
                let registry = BroadcastRegistry::new(&names);
                (registry.clone(), registry)
            }
            RegistryKind::Local => anyhow::bail!("registry.kind = \"local\" works within one process only: use mailpush dev"),
        };
        Ok(Self { registrar, directory, queues, acls, rights: None, names })
    }

    /// A publisher of this process.
    pub fn publisher(&self, settings: &Settings, metrics: Arc<Metrics>) -> Result<Publisher> {
        let firehose = settings.queue.firehose.as_ref().map(QueueName::firehose);
        let everyone = match settings.queue.topology {
            Topology::PerNode => Everyone::Topics(self.names.node_prefix()),
            Topology::Sharded => Everyone::Queues(self.names.shards(settings.queue.shards)),
            Topology::Broadcast => Everyone::Queues(vec![self.names.shared()]),
        };
        let (max_event_bytes, max_in_flight) = (settings.queue.max_event_bytes, settings.queue.max_in_flight);
        let acls = self.acls.as_ref().map(|acls| {
            let is_registry = |kind: RightsKind| kind.resolved(settings) == RightsKind::Registry;
            let access = &settings.access;
            let namespaces = access.by_namespace.iter().map(|entry| (entry.namespace.clone(), is_registry(entry.source)));
            (acls.clone(), is_registry(access.source), namespaces.collect::<HashMap<_, _>>())
        });
        let acls = acls.filter(|(_, others, by_namespace)| *others || by_namespace.values().any(|kept| *kept));
        let acls = acls.map(|(acls, others, by_namespace)| WriteThrough::new(acls, others, by_namespace));
        let options = Options { firehose, max_event_bytes, max_in_flight, everyone, acls };
        Ok(Publisher::new(self.directory.clone(), self.queues.clone(), metrics, options))
    }
}

/// Where a node's IMAP door is bound; neither where it has none.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ImapAddresses {
    /// Clients begin in the clear.
    pub plain: Option<SocketAddr>,
    /// Clients begin with TLS.
    pub tls: Option<SocketAddr>,
}

/// A node that runs until it is drained.
pub struct Node {
    gateway: Arc<Gateway>,
    cluster: Cluster,
    address: SocketAddr,
    imap: ImapAddresses,
    server: AbortOnDropHandle<()>,
    stop: CancellationToken,
    /// Aborted with the node.
    background: Vec<AbortOnDropHandle<()>>,
    /// Cancelled should one of them end by itself.
    failed: CancellationToken,
}

impl Node {
    /// Binds the listener, opens the node's queue, makes the node known, and serves. Probes are
    /// answered from the start; sessions are taken in once the queue is being read (I-4).
    pub async fn start(mut settings: Arc<Settings>, cluster: Cluster) -> Result<Self> {
        if settings.node.origin.is_empty() {
            Arc::make_mut(&mut settings).node.origin = host_name();
        }
        let id = settings.node.id.clone().unwrap_or_else(NodeId::random);
        let place = match settings.queue.topology {
            Topology::PerNode => Place::Own,
            Topology::Sharded => {
                let key = Key::Account(crate::mail::UserName::new(id.as_str())?);
                Place::Shard((key.stable_hash() % u64::from(settings.queue.shards.max(1))) as u32)
            }
            Topology::Broadcast => Place::Shared,
        };
        let queue_id = QueueId { node: id.clone(), place };
        let queue = cluster.names.queue(&queue_id);
        let auth = Authenticator::new(&settings.auth).await.context("the keys that tokens are checked with")?;
        let listener = TcpListener::bind(settings.http.listen);
        let listener = listener.await.with_context(|| format!("cannot listen on {} (http.listen)", settings.http.listen))?;
        let address = listener.local_addr()?;
        let url = settings.http.advertise.as_ref().map_or_else(|| format!("http://{address}"), |url| url.as_str().to_owned());
        let record = NodeRecord {
            id: id.clone(),
            queue_id,
            queue: queue.clone(),
            url,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            started_at: unix_ms(),
        };
        let metrics = Arc::new(Metrics::default());
        let (linger, patience) = (settings.registry.linger_ms.duration(), settings.imap.register_timeout_ms.duration());
        let (presence, breaks) = Presence::start(cluster.registrar.clone(), settle(&settings), linger, patience);
        let (queue_health, queue_health_seen) = watch::channel(QueueHealth::default());
        let gateway = build(&settings, &cluster, record.clone(), auth, metrics, presence, queue_health_seen)?;

        let listening = imap::open(&gateway).await?;
        let imap = listening.as_ref().map(|door| ImapAddresses { plain: door.plain, tls: door.tls }).unwrap_or_default();
        let stop = CancellationToken::new();
        let bounds = Bounds {
            connections: settings.http.max_connections,
            header_timeout: settings.http.header_timeout_ms.duration(),
            write_timeout: settings.sessions.slow_client_timeout_ms.duration(),
        };
        let failed = CancellationToken::new();
        let server = spawn(&failed, serve(listener, router(gateway.clone()), bounds, stop.clone()));
        let mut background = Vec::new();
        let door = listening.as_ref().map(|listening| listening.door.clone());
        background.extend(listening.map(|listening| spawn(&failed, listening.serve())));
        info!(node = %id, url = %record.url, %queue, "node is starting");

        let position = Arc::new(AtomicU64::new(0));
        let (gaps, gaps_seen) = mpsc::unbounded_channel();
        let consumer = NodeConsumer {
            queue: queue.clone(),
            subscriptions: gateway.subscriptions.clone(),
            metrics: gateway.metrics.clone(),
            position: position.clone(),
            gaps,
            clock: unix_ms,
        };
        let opened = open_queue(&*cluster.queues, &queue).await?;
        if let Some(firehose) = settings.queue.firehose.as_ref().map(QueueName::firehose) {
            let made = patiently(&firehose, async || cluster.queues.ensure(&firehose).await).await;
            made.with_context(|| format!("cannot make {firehose} (queue.firehose)"))?;
        }
        background.push(spawn(&failed, consumer.run(opened)));
        background.push(spawn(&failed, watch_queue(cluster.queues.clone(), queue, position, queue_health)));
        background.push(spawn(&failed, tell_breaks(gateway.clone(), breaks)));
        background.push(spawn(&failed, tell_gaps(gateway.clone(), gaps_seen)));
        cluster.registrar.announce(record.clone()).await.context("cannot make the node known in the registry")?;
        background.push(spawn(&failed, watch_members(gateway.clone())));
        if settings.queue.topology == Topology::PerNode && settings.registry.kind == RegistryKind::Zookeeper {
            background.push(spawn(&failed, collect_garbage(settings.clone(), cluster.clone(), id.clone())));
        }
        gateway.started.store(true, Ordering::Release);
        if let Some(door) = door {
            background.push(spawn(&failed, door.watch_health()));
        }
        info!(node = %id, url = %record.url, "node is ready");
        Ok(Self { gateway, cluster, address, imap, server, stop, background, failed })
    }

    /// The node's id.
    pub fn id(&self) -> &NodeId {
        self.gateway.node()
    }

    /// Returns if the node, or something in the process that it needs, has failed: it would be of
    /// no use to its clients any more, and should be started anew.
    pub async fn failed(&self) {
        tokio::select! {
            () = self.failed.cancelled() => {}
            () = tasks::failed() => {}
        }
    }

    /// Where its HTTP door is bound.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where its IMAP door is bound.
    pub fn imap(&self) -> ImapAddresses {
        self.imap
    }

    /// What its doors share.
    pub fn gateway(&self) -> &Arc<Gateway> {
        &self.gateway
    }

    /// Refuses new sessions, says goodbye to those there are at the configured rate, unregisters,
    /// flushes and stops; all within the deadline. Once `hurry` is cancelled all that are left are
    /// told goodbye at once, and nothing is waited for longer than half a second.
    pub async fn drain(mut self, hurry: CancellationToken) {
        let settings = &self.gateway.settings.node;
        let deadline = settings.drain_deadline_ms.duration();
        // In this order: a session that is not in the table yet sees the drain when it gets there.
        self.gateway.draining.cancel();
        let sessions = self.gateway.sessions.all();
        info!(sessions = sessions.len(), ?deadline, "node drains");
        let began = tokio::time::Instant::now();
        // The goodbyes take six tenths of the deadline at most; what is left is for the closing
        // handshakes and the registry.
        let fastest = sessions.len() as f64 / (deadline.as_secs_f64() * 0.6).max(0.001);
        let pause = Duration::from_secs_f64(1.0 / fastest.max(f64::from(settings.drain_rate.max(1))));
        for (number, session) in sessions.into_iter().enumerate() {
            // Each is told its own time to stay away, so that they do not come to one other node at
            // once.
            session.end(End::Draining { reconnect_after: Duration::from_millis(number as u64 * 7_919 % 1_000) });
            tokio::select! {
                () = tokio::time::sleep_until(began + pause * (number as u32 + 1)) => {}
                () = hurry.cancelled() => {}
            }
        }
        let late = async |part: f64| {
            tokio::select! {
                () = tokio::time::sleep_until(began + deadline.mul_f64(part)) => {}
                () = async {
                    hurry.cancelled().await;
                    tokio::time::sleep(HURRIED).await;
                } => {}
            }
        };
        self.gateway.tasks.close();
        tokio::select! {
            () = self.gateway.tasks.wait() => {}
            () = late(0.8) => warn!(left = self.gateway.tasks.len(), "some clients did not answer the goodbye in time"),
        }
        let rest = async {
            self.cluster.registrar.close().await;
            self.gateway.publisher.flush().await;
            self.stop.cancel();
            let _ = (&mut self.server).await;
        };
        tokio::select! {
            () = rest => {}
            () = late(1.0) => warn!("the registry or the queue did not let go in time"),
        }
        drop(self.background);
        info!(took = ?began.elapsed(), "node has stopped");
    }
}

/// This machine's name, for events whose origin did not give its own.
pub fn host_name() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    if name.trim().is_empty() { "unknown".to_owned() } else { name.trim().to_owned() }
}

/// What a new registration must wait before every publisher sees it: nothing where there is no
/// staleness.
fn settle(settings: &Settings) -> Duration {
    match settings.registry.kind {
        RegistryKind::Zookeeper => settings.registry.settle_ms.duration(),
        RegistryKind::Local | RegistryKind::Broadcast => Duration::ZERO,
    }
}

fn build(
    settings: &Arc<Settings>,
    cluster: &Cluster,
    record: NodeRecord,
    auth: Arc<Authenticator>,
    metrics: Arc<Metrics>,
    presence: Arc<Presence>,
    queue_health: watch::Receiver<QueueHealth>,
) -> Result<Arc<Gateway>> {
    let names = user_names(&settings.auth);
    let hub = Arc::new(Hub::default());
    let limits = &settings.sessions;
    let sessions = Arc::new(Sessions::new(
        limits.sessions_per_user,
        settings.imap.connections_per_user,
        record.started_at.saturating_mul(1_000),
    ));
    let upstreams = OnceLock::new();
    if !settings.imap.upstream.addresses.is_empty() {
        let servers = Upstreams::new(&settings.imap.upstream, metrics.clone()).context("imap.upstream")?;
        upstreams.get_or_init(|| Arc::new(servers));
    }
    let (access, notices) = Access::start(access_options(settings, cluster, upstreams.get(), &metrics), metrics.clone());
    let subscriptions = Subscriptions::start(Parts {
        hub: hub.clone(),
        presence: presence.clone(),
        sessions: sessions.clone(),
        access,
        notices,
        metrics: metrics.clone(),
        timeout: limits.subscribe_timeout_ms.duration(),
        clock: unix_ms,
    });
    let rules = Rules {
        node: record.id.clone(),
        names: names.clone(),
        limits: ToldLimits {
            frame_bytes: limits.frame_limit_bytes,
            subscriptions: limits.subscriptions_per_session,
            commands_per_second: limits.commands_per_second,
        },
        connect_deadline: limits.connect_deadline_ms.duration(),
        subscribe_timeout: limits.subscribe_timeout_ms.duration(),
        heartbeat: limits.heartbeat_ms.duration(),
        pong_timeout: limits.pong_timeout_ms.duration(),
        expiring_notice: limits.expiring_notice_ms.duration(),
        close_timeout: CLOSE_TIMEOUT,
    };
    let publisher = Arc::new(cluster.publisher(settings, metrics.clone())?);
    Ok(Arc::new(Gateway {
        names,
        record,
        auth,
        hub,
        presence,
        sessions,
        subscriptions,
        publisher,
        directory: cluster.directory.clone(),
        acls: cluster.acls.clone(),
        registry_health: cluster.registrar.health(),
        queue_health,
        metrics,
        tickets: Tickets::default(),
        followers: Followers::new(followers::CLUSTER),
        local_followers: Followers::new(followers::LOCAL),
        rules: Arc::new(rules),
        unauthenticated: Arc::new(Semaphore::new(limits.unauthenticated_sockets.min(Semaphore::MAX_PERMITS))),
        started: AtomicBool::new(false),
        draining: CancellationToken::new(),
        tasks: TaskTracker::new(),
        client: client::builder(settings.http.peer_proxy.as_ref().map_or("", ProxyUrl::as_str))?.build()?,
        departed: Mutex::default(),
        upstreams,
        settings: settings.clone(),
    }))
}

/// Who knows the rights on the mailboxes of others.
fn access_options(
    settings: &Settings,
    cluster: &Cluster,
    upstreams: Option<&Arc<Upstreams>>,
    metrics: &Arc<Metrics>,
) -> access::Options {
    let registry = cluster.acls.as_ref().map(|acls| RegistryRights::new(acls.clone(), metrics.clone()));
    let registry = registry.map_or(Via::Nobody, |source| Via::Source(Arc::new(source)));
    let master = upstreams.and_then(|servers| {
        let (imap, names) = (&settings.imap, user_names(&settings.auth));
        ImapRights::new(imap, &settings.access, names, servers.clone(), metrics.clone())
    });
    let imap = master.map_or(Via::Session, |source| Via::Source(Arc::new(source)));
    let via = |kind: RightsKind| match (&cluster.rights, kind.resolved(settings)) {
        (_, RightsKind::Owners | RightsKind::Auto) => Via::Nobody,
        (Some(rights), _) => Via::Source(rights.clone()),
        (None, RightsKind::Registry) => registry.clone(),
        (None, RightsKind::Imap) => imap.clone(),
    };
    let access = &settings.access;
    let namespaces = access.by_namespace.iter().map(|entry| (entry.namespace.clone(), via(entry.source)));
    access::Options {
        via: via(access.source),
        by_namespace: namespaces.collect(),
        timeout: access.timeout_ms.duration(),
        recheck: access.recheck_ms.duration(),
        max_age: access.max_age_ms.duration(),
        rechecks_per_second: access.rechecks_per_second,
        denial: access.denial_ms.duration(),
        shared_mailboxes: access.shared_mailboxes,
    }
}

/// Starts what a node cannot do without: should it end or panic, the node has failed.
fn spawn(failed: &CancellationToken, task: impl Future<Output = ()> + Send + 'static) -> AbortOnDropHandle<()> {
    let guard = failed.clone().drop_guard();
    AbortOnDropHandle::new(tokio::spawn(async move {
        let _guard = guard;
        task.await;
    }))
}

/// Makes and opens the node's queue; waits while it cannot be reached, or is not allowed.
async fn open_queue(queues: &dyn QueueSystem, queue: &QueueName) -> Result<Box<dyn crate::cluster::queue::Consumer>> {
    patiently(queue, async || {
        queues.ensure(queue).await?;
        queues.open(queue).await
    })
    .await
    .with_context(|| format!("cannot open queue {queue}"))
}

/// Tries until it works, or never will. Says why it waits once for each reason.
async fn patiently<T>(queue: &QueueName, attempt: impl AsyncFn() -> Result<T, QueueError>) -> Result<T, QueueError> {
    let mut said = String::new();
    loop {
        match attempt().await {
            Err(error @ (QueueError::Refused(_) | QueueError::TooLarge(_))) => return Err(error),
            Err(error) => {
                let reason = error.to_string();
                if reason != said {
                    warn!(%queue, reason, "waiting for the queue");
                    said = reason;
                }
            }
            Ok(done) => return Ok(done),
        }
        tokio::time::sleep(START_RETRY).await;
    }
}

async fn watch_queue(
    queues: Arc<dyn QueueSystem>,
    queue: QueueName,
    position: Arc<AtomicU64>,
    health: watch::Sender<QueueHealth>,
) {
    loop {
        let position = Some(position.load(Ordering::Relaxed)).filter(|position| *position > 0);
        let seen = queues.health(&queue, position).await;
        let was = health.borrow().state.clone();
        match (&was, &seen.state) {
            (was, QueueState::Good) if !was.is_good() => info!(%queue, "the queue is reachable"),
            // Denials have a line of their own where they are met.
            (was, QueueState::Unreachable { reason }) if was.is_good() => {
                warn!(%queue, reason, "the queue cannot be reached: delivery goes on where it stopped");
            }
            _ => {}
        }
        health.send_replace(seen);
        tokio::time::sleep(HEALTH_INTERVAL).await;
    }
}

/// Tells the sessions of broken keys to resync, spread over time: they all read their state from
/// one mail store. What breaks again while it waits to be told waits once.
async fn tell_breaks(gateway: Arc<Gateway>, mut breaks: mpsc::UnboundedReceiver<Break>) {
    let mut pending: BTreeMap<Key, ResyncReason> = BTreeMap::new();
    while let Some(first) = breaks.recv().await {
        let mut per_tick = 1;
        let mut take_in = |broken: Break, pending: &mut BTreeMap<Key, ResyncReason>| {
            // While it lasts publishers tell every node; what was missed on the way is asked for
            // once it is over.
            if broken.reason == ResyncReason::RegistryRestored {
                gateway.subscriptions.access.doubt_keys(&broken.keys);
            }
            pending.extend(broken.keys.into_iter().map(|key| (key, broken.reason)));
            per_tick = per_tick.max(per_tick_of(&gateway, pending.len()));
            per_tick
        };
        let mut pace = take_in(first, &mut pending);
        while !pending.is_empty() {
            while let Ok(more) = breaks.try_recv() {
                pace = take_in(more, &mut pending);
            }
            for _ in 0..pace {
                let Some((key, reason)) = pending.pop_first() else { break };
                for session in gateway.subscriptions.sessions_under(&key) {
                    session.push_resync_of(&key, reason);
                }
            }
            tokio::time::sleep(TICK).await;
        }
    }
}

/// Tells every session to resync, spread over time. A further gap while that goes on is told to all
/// again.
async fn tell_gaps(gateway: Arc<Gateway>, mut gaps: mpsc::UnboundedReceiver<()>) {
    while gaps.recv().await.is_some() {
        while gaps.try_recv().is_ok() {}
        // Changes of rights may be among what is lost.
        gateway.subscriptions.access.doubt_everything();
        let sessions = gateway.sessions.all();
        for some in sessions.chunks(per_tick_of(&gateway, sessions.len())) {
            for session in some {
                session.push_resync(Resync::All, ResyncReason::QueueGap);
            }
            tokio::time::sleep(TICK).await;
        }
    }
}

/// How many to tell in each [`TICK`], so that so many are told within the configured spread. Few
/// are told sooner.
fn per_tick_of(gateway: &Gateway, count: usize) -> usize {
    let spread = gateway.settings.sessions.resync_spread_ms.duration();
    let ticks = (spread.as_millis() / TICK.as_millis()).max(1) as usize;
    count.div_ceil(ticks).max(1)
}

/// Tells of nodes that come and go, in plain words.
async fn watch_members(gateway: Arc<Gateway>) {
    let mut nodes = gateway.directory.nodes();
    let mut known: Vec<NodeRecord> = Vec::new();
    loop {
        let current = nodes.borrow_and_update().clone();
        for joined in current.iter().filter(|node| node.id != *gateway.node() && !known.iter().any(|k| k.id == node.id)) {
            info!(node = %joined.id, url = %joined.url, queue = %joined.queue, "a node has joined the cluster");
        }
        for left in known.iter().filter(|node| !current.iter().any(|c| c.id == node.id)) {
            info!(node = %left.id, url = %left.url, "a node has left the cluster");
            gateway.note_departure(left.id.clone());
        }
        known = current.to_vec();
        if nodes.changed().await.is_err() {
            return;
        }
    }
}

/// Removes dead nodes' topics on a timer, only while the registry says for certain who lives.
async fn collect_garbage(settings: Arc<Settings>, cluster: Cluster, own: NodeId) {
    let mut memory = gc::Memory::default();
    let interval = settings.queue.gc_interval_ms.duration();
    let rules = gc::Rules { grace: settings.queue.gc_grace_ms.duration(), dry_run: false };
    loop {
        // Nodes start together; they need not look together.
        let jitter = interval.mul_f64(f64::from(unix_ms() as u32 % 1000) / 4000.0);
        tokio::time::sleep(interval + jitter).await;
        if cluster.directory.probe().await.is_err() {
            memory = gc::Memory::default();
            continue;
        }
        let registered: Vec<NodeId> = cluster.directory.nodes().borrow().iter().map(|node| node.id.clone()).collect();
        if !registered.contains(&own) {
            // A list that lacks the node that reads it is not to be trusted.
            memory = gc::Memory::default();
            continue;
        }
        match gc::collect(&*cluster.queues, &cluster.names, &registered, rules, &mut memory).await {
            Ok(collected) => {
                for queue in collected.removed {
                    info!(%queue, "removed the queue of a node that is gone");
                }
                for (queue, error) in collected.failed {
                    warn!(%queue, %error, "cannot remove the queue of a node that is gone");
                }
            }
            Err(error) => warn!(%error, "cannot list the queues of nodes"),
        }
    }
}
