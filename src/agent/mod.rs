pub mod complete;
pub mod dovecot;
pub mod http;
pub mod imap;
pub mod metrics;
pub mod naming;
pub mod pipeline;
pub mod pool;
mod record;
pub mod spool;
pub mod tls;

use std::io;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::net::{TcpListener, UnixListener};
use tokio_util::sync::CancellationToken;
use tokio_util::task::{AbortOnDropHandle, TaskTracker};
use tracing::{info, warn};

use crate::config::{AgentSettings, FileMode, Settings, SpoolSync};
use crate::http::server::{Bounds, serve};
use crate::mail::user::UserNames;
use crate::push::metrics::Metrics;
use crate::tasks::{self, vital};
use crate::wire::imap::credentials::Credentials;
use complete::FlagSource;
use metrics::AgentMetrics;
use naming::Naming;
use pipeline::{Parts, Pipeline, Sink};
use pool::{Pool, Target};
use spool::Spool;
use tls::Tls;

/// How often what is done is written down.
const CHECKPOINT: Duration = Duration::from_millis(100);
/// For each write of an answer.
const WRITE_TIMEOUT: Duration = Duration::from_secs(5);

/// An agent that runs until it is drained.
pub struct Agent {
    spool: Arc<Spool>,
    pipeline: Arc<Pipeline>,
    /// Stops the intake.
    closing: CancellationToken,
    /// Stops the pipeline; cancelled by itself if a part of it fails.
    stop: CancellationToken,
    servers: TaskTracker,
    socket: Option<PathBuf>,
    deadline: Duration,
    /// Aborted with the agent.
    _background: Vec<AbortOnDropHandle<()>>,
}

/// What an agent publishes with, and for whom.
pub struct Publishing {
    pub sink: Arc<dyn Sink>,
    /// The sink's.
    pub metrics: Arc<Metrics>,
    pub names: UserNames,
    /// The origin of events that name none.
    pub origin: String,
}

impl Agent {
    /// Opens the spool, binds the listeners, and begins to publish what was left over.
    pub async fn start(settings: &Settings, publishing: Publishing) -> Result<Self> {
        let agent = &settings.agent;
        let (folder, limit) = (agent.spool_dir.clone(), agent.spool_bytes);
        let spool = tokio::task::spawn_blocking(move || Spool::open(&folder, limit)).await.context("the spool")?;
        let spool = Arc::new(spool.context("agent.spool_dir")?);
        let left = spool.backlog();
        let metrics = Arc::new(AgentMetrics::default());
        let naming = naming(settings, publishing.names);
        let pool = target(settings, naming.clone())?.map(|target| Arc::new(Pool::new(target)));
        let (closing, stop) = (CancellationToken::new(), CancellationToken::new());
        let flags = pool.clone().map(|pool| pool as Arc<dyn FlagSource>);
        let parts = Parts { spool: spool.clone(), sink: publishing.sink, flags, metrics: metrics.clone() };
        let tcp = TcpListener::bind(agent.listen).await;
        let tcp = tcp.with_context(|| format!("cannot listen on {} (agent.listen)", agent.listen))?;
        let unix = agent.socket.as_deref().map(|path| listen(path, agent.socket_mode)).transpose()?;
        let address = tcp.local_addr()?;
        let pipeline = Pipeline::start(parts, stop.clone());
        let router = http::router(Arc::new(http::Intake {
            spool: spool.clone(),
            pipeline: pipeline.clone(),
            naming,
            origin: publishing.origin,
            metrics,
            published: publishing.metrics,
            body_limit: agent.body_limit_bytes,
            token: (!agent.token.is_empty()).then(|| http::digest(agent.token.expose())),
        }));
        let bounds = Bounds {
            connections: agent.max_connections,
            header_timeout: agent.header_timeout_ms.duration(),
            write_timeout: WRITE_TIMEOUT,
        };
        let servers = TaskTracker::new();
        servers.spawn(vital("agent intake", serve(tcp, router.clone(), bounds, closing.clone())));
        if let Some(unix) = unix {
            servers.spawn(vital("agent socket", serve(unix, router, bounds, closing.clone())));
        }
        servers.close();
        let mut background = vec![tokio::spawn(vital("spool", keep(spool.clone(), agent.clone())))];
        background.extend(pool.map(|pool| tokio::spawn(vital("IMAP connections", sweep(pool)))));
        info!(%address, waiting = left.records, "the agent takes events in");
        Ok(Self {
            spool,
            pipeline,
            closing,
            stop,
            servers,
            socket: agent.socket.clone(),
            deadline: agent.drain_deadline_ms.duration(),
            _background: background.into_iter().map(AbortOnDropHandle::new).collect(),
        })
    }

    /// Waits until a part has failed.
    pub async fn failed(&self) {
        tokio::select! {
            () = self.stop.cancelled() => {}
            () = tasks::failed() => {}
        }
    }

    /// Takes nothing more in, publishes what can be published in time, and keeps the rest in the spool; that at once when
    /// `hurry` is cancelled.
    pub async fn drain(self, hurry: CancellationToken) {
        self.closing.cancel();
        let published = async {
            self.servers.wait().await;
            self.spool.emptied().await;
        };
        let published = hurry.run_until_cancelled(tokio::time::timeout(self.deadline, published)).await;
        if !matches!(published, Some(Ok(()))) {
            info!(events = self.spool.backlog().records, "the rest stays in the spool");
        }
        self.stop.cancel();
        self.pipeline.ended().await;
        if let Some(path) = &self.socket {
            let _ = std::fs::remove_file(path);
        }
        let spool = self.spool.clone();
        let written = tokio::task::spawn_blocking(move || spool.checkpoint().and_then(|()| spool.sync())).await;
        if let Ok(Err(error)) = written {
            warn!(%error, "cannot write down what is published: some of it will be published again");
        }
    }
}

/// How Dovecot's names are read, as the settings say.
pub fn naming(settings: &Settings, names: UserNames) -> Naming {
    Naming::of_settings(names, &settings.agent.dovecot)
}

/// The mail server's IMAP, if a master user is configured.
pub fn target(settings: &Settings, naming: Naming) -> Result<Option<Target>> {
    let imap = &settings.agent.imap;
    if imap.master_user.is_empty() {
        return Ok(None);
    }
    let domain = settings.auth.default_domain.to_ascii_lowercase();
    Ok(Some(Target {
        address: imap.address.to_string(),
        tls: Tls::new(imap.tls, imap.ca_file.as_deref(), imap.address.host()).context("agent.imap")?,
        master: Credentials::new(imap.master_user.clone(), imap.master_password.expose()),
        strip_domain: Some(domain).filter(|domain| imap.strip_domain && !domain.is_empty()),
        naming,
        connections: imap.max_connections,
        connections_per_owner: imap.connections_per_owner,
        idle_timeout: imap.idle_timeout_ms.duration(),
        timeout: imap.timeout_ms.duration(),
    }))
}

/// Binds a Unix socket. The spool is ours alone, so a socket that is there already was left over.
fn listen(path: &Path, mode: FileMode) -> Result<UnixListener> {
    let shown = || format!("cannot listen on {} (agent.socket)", path.display());
    match std::fs::symlink_metadata(path) {
        Ok(found) if found.file_type().is_socket() => std::fs::remove_file(path).with_context(shown)?,
        Ok(_) => anyhow::bail!("{}: something else is there", shown()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error).with_context(shown),
    }
    let listener = UnixListener::bind(path).with_context(shown)?;
    let mode = std::fs::Permissions::from_mode(mode.bits());
    std::fs::set_permissions(path, mode).with_context(shown)?;
    Ok(listener)
}

/// Writes down what is done, and forces the spool to the disk where that is asked for.
async fn keep(spool: Arc<Spool>, settings: AgentSettings) {
    let every = match settings.spool_sync {
        SpoolSync::None => CHECKPOINT,
        SpoolSync::Interval => CHECKPOINT.min(settings.spool_sync_interval_ms.duration()),
    };
    let mut synced = tokio::time::Instant::now();
    loop {
        tokio::time::sleep(every).await;
        let due = settings.spool_sync == SpoolSync::Interval && synced.elapsed() >= settings.spool_sync_interval_ms.duration();
        if due {
            synced = tokio::time::Instant::now();
        }
        let spool = spool.clone();
        let kept = tokio::task::spawn_blocking(move || {
            spool.checkpoint()?;
            if due { spool.sync() } else { Ok(()) }
        });
        if let Ok(Err(error)) = kept.await {
            warn!(%error, "the spool cannot be kept");
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    }
}

async fn sweep(pool: Arc<Pool>) {
    loop {
        tokio::time::sleep(pool.idle_timeout() / 2).await;
        pool.sweep();
    }
}
