//! `mailpush check`: is the configuration good, and is what it names there?
//!
//! One line each: `ok`, `FAIL` with its cause, or `WARN` for what works but is seldom meant. Only
//! `FAIL` makes the command fail. What libraries log is left out unless `-v` asks for it: the
//! causes are in the lines.

use std::fmt::Write;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use futures::future::{BoxFuture, FutureExt, join_all};

use super::{CliError, Global, print};
use crate::agent;
use crate::cluster::queue::QueueSystem;
use crate::cluster::queue::kafka::KafkaQueues;
use crate::cluster::registry::zookeeper::ZookeeperRegistry;
use crate::cluster::registry::{Directory, QueueNames, RegistryError};
use crate::config::{
    AuthSettings, DEFAULT_TOML, Ensemble, HostPort, ImapSettings, ProxyHeader, Purpose, RegistryKind, Settings, UpstreamSettings,
    join,
};
use crate::edge::auth::{Authenticator, user_names};
use crate::edge::imap::server_tls;
use crate::edge::imap::upstream::Upstreams;

mod limits;
mod reach;
mod zookeeper;

use reach::{plain, reach, reach_all};

/// How long one dependency may take to answer.
const PATIENCE: Duration = Duration::from_secs(15);

/// How long the registry may take to let us in.
const REGISTRY_PATIENCE: Duration = Duration::from_secs(8);

/// The flags of `mailpush check`.
#[derive(Args)]
pub struct CheckArgs {
    /// Print every setting, explained, at its default; then exit
    #[arg(long)]
    print_default: bool,
    /// Only check the settings themselves: open no file and no connection
    #[arg(long)]
    offline: bool,
    /// As `mailpush agent` on a mail server, not as a gateway
    #[arg(long)]
    agent: bool,
    /// With --agent: compare agent.dovecot with the namespaces that the mail server tells this user
    /// of; needs a master user
    #[arg(long, value_name = "NAME", requires = "agent")]
    user: Option<String>,
}

/// One look at something that mailpush needs. Says what it found, or what is wrong and what to do.
pub struct Probe {
    name: String,
    outcome: BoxFuture<'static, Outcome>,
}

/// What was found, or what is wrong.
type Outcome = Result<Finding, String>;

/// Something that works.
pub struct Finding {
    text: String,
    /// What is wrong with it all the same, each a line.
    warnings: Vec<String>,
}

impl From<String> for Finding {
    fn from(text: String) -> Self {
        Self { text, warnings: Vec::new() }
    }
}

impl Probe {
    /// A probe that starts when it is run.
    pub fn new<F: Into<Finding>>(
        name: impl Into<String>,
        outcome: impl Future<Output = Result<F, String>> + Send + 'static,
    ) -> Self {
        Self { name: name.into(), outcome: outcome.map(|outcome| outcome.map(Into::into)).boxed() }
    }

    /// `Err` also where it takes too long.
    async fn run(self) -> (String, Outcome) {
        let outcome = tokio::time::timeout(PATIENCE, self.outcome).await;
        (self.name, outcome.unwrap_or_else(|_| Err(format!("no answer within {} seconds", PATIENCE.as_secs()))))
    }
}

/// What a gateway with these settings needs, each as a probe that has not started yet; they run
/// side by side.
pub fn probe_dependencies(settings: &Settings) -> Vec<Probe> {
    let mut probes = vec![keys(settings.auth.clone()), listen(settings), registry(settings.clone()), queue(settings.clone())];
    if settings.imap.is_on() {
        probes.extend(imap(&settings.imap));
    }
    probes
}

/// What an agent with these settings needs. `user`: whose namespaces are looked at.
fn probe_agent(settings: &Settings, user: Option<&str>) -> Result<Vec<Probe>, CliError> {
    let listen = listen_on(settings.agent.listen, "agent.listen");
    let mut probes = vec![listen, registry(settings.clone()), queue(settings.clone())];
    let Some(user) = user else { return Ok(probes) };
    let names = user_names(&settings.auth);
    let user = names.normalise(user).map_err(|error| CliError::Usage(format!("--user: {error}")))?;
    let target = agent::target(settings, agent::naming(settings, names))?;
    let target = target.ok_or_else(|| CliError::Usage("--user needs agent.imap.master_user".to_owned()))?;
    probes.push(Probe::new(format!("namespaces of {user}"), async move { target.check_names(&user).await }));
    Ok(probes)
}

/// The registry answers. Only its own settings matter here: the queue is looked at by itself.
fn registry(settings: Settings) -> Probe {
    if settings.registry.kind != RegistryKind::Zookeeper {
        return Probe::new("registry", async { Ok("none is configured: every node hears everything".to_owned()) });
    }
    Probe::new(format!("ZooKeeper at {}", join(&settings.registry.ensembles, " and ")), async move {
        let mut warnings = Vec::new();
        for ensemble in &settings.registry.ensembles {
            let tried = reach_all(ensemble.servers()).await;
            if let Some(problem) = tried.problem() {
                let only = settings.registry.ensembles.len() == 1;
                return Err(if only { problem } else { format!("{ensemble}: {problem}") });
            }
            warnings.extend(tried.warnings());
        }
        if settings.registry.ensembles.len() > 1 && !settings.registry.tls.enabled {
            let alone = settings.registry.ensembles.iter().filter(|ensemble| ensemble.servers().len() == 1);
            let asked = alone.flat_map(Ensemble::servers).map(zookeeper::belongs_to_others);
            warnings.extend(join_all(asked).await.into_iter().flatten());
        }
        let names = QueueNames::of(&settings.queue.prefix);
        let registry = ZookeeperRegistry::connect(&settings.registry, names).await.map_err(|error| error.to_string())?;
        let began = tokio::time::Instant::now();
        loop {
            match registry.probe().await {
                Ok(()) => {
                    let text = format!("answers, {} nodes live", registry.nodes().borrow().len());
                    return Ok(Finding { text, warnings });
                }
                Err(error) if began.elapsed() > REGISTRY_PATIENCE || is_final(&error) => {
                    return Err(format!("the port answers, but {}", plain(&error.to_string())));
                }
                Err(_) => tokio::time::sleep(Duration::from_millis(200)).await,
            }
        }
    })
}

/// Whether waiting does not help whoever checks.
fn is_final(error: &RegistryError) -> bool {
    matches!(error, RegistryError::Refused(_) | RegistryError::Denied(_))
}

/// The queue system answers and lets us in.
fn queue(settings: Settings) -> Probe {
    Probe::new(format!("Kafka at {}", join(&settings.queue.brokers, ",")), async move {
        let queues = KafkaQueues::new(&settings.queue).map_err(|error| error.to_string())?;
        let names = QueueNames::of(&settings.queue.prefix);
        let tried = reach_all(&settings.queue.brokers).await;
        if let Some(problem) = tried.problem() {
            return Err(problem);
        }
        let found = queues.list(&names.node_prefix()).await;
        let found = found.map_err(|error| format!("the port answers, but {}", plain(&error.to_string())))?;
        Ok(Finding { text: format!("answers, {} queues of nodes", found.len()), warnings: tried.warnings() })
    })
}

/// The keys that tokens are checked with can be had.
fn keys(settings: AuthSettings) -> Probe {
    Probe::new("keys for tokens", async move {
        let keys = Authenticator::new(&settings).await.map_err(|error| plain(&error.to_string()))?.health();
        match keys.last_error {
            Some(error) => Err(plain(&error)),
            None => Ok(format!("{} usable", keys.usable_keys)),
        }
    })
}

/// The IMAP door can be opened, and each mail server behind it greets.
fn imap(settings: &ImapSettings) -> Vec<Probe> {
    let ports = [(settings.listen, "imap.listen"), (settings.listen_tls, "imap.listen_tls")];
    let mut probes: Vec<Probe> =
        ports.into_iter().filter_map(|(address, setting)| address.map(|address| listen_on(address, setting))).collect();
    if let Some(file) = &settings.certificate_file {
        let whole = settings.clone();
        probes.push(Probe::new(format!("the IMAP certificate {}", file.display()), async move {
            server_tls(&whole).map(|_| "usable, with its key".to_owned()).map_err(|error| error.to_string())
        }));
    }
    for address in &settings.upstream.addresses {
        let (address, upstream) = (address.clone(), settings.upstream.clone());
        probes.push(Probe::new(format!("the mail server {address}"), mail_server(address, upstream)));
    }
    probes
}

/// One mail server greets.
async fn mail_server(address: HostPort, mut settings: UpstreamSettings) -> Result<String, String> {
    reach(&address).await?;
    let header = settings.proxy_protocol;
    settings.addresses = vec![address.clone()];
    let upstreams = Upstreams::new(&settings, Arc::default()).map_err(|error| plain(&error.to_string()))?;
    upstreams.probe().await.map(|()| "greets".to_owned()).map_err(|error| {
        let error = plain(&error.to_string());
        let problem = error.rsplit_once(&format!("{address} ")).map_or(error.as_str(), |(_, problem)| problem);
        match header {
            ProxyHeader::None => format!("{problem}. If it expects a PROXY header, set imap.upstream.proxy_protocol"),
            ProxyHeader::V1 | ProxyHeader::V2 => problem.to_owned(),
        }
    })
}

/// The address to listen on is this machine's, free, and allowed.
fn listen(settings: &Settings) -> Probe {
    listen_on(settings.http.listen, "http.listen")
}

fn listen_on(address: SocketAddr, setting: &'static str) -> Probe {
    Probe::new(format!("listening on {address}"), async move {
        match tokio::net::TcpListener::bind(address).await {
            Ok(_) => Ok("possible".to_owned()),
            Err(error) => Err(match error.kind() {
                ErrorKind::AddrInUse => format!("the port is in use: stop what listens there, or change {setting}"),
                ErrorKind::AddrNotAvailable => format!("no such address on this machine: change {setting}"),
                ErrorKind::PermissionDenied => "not allowed: ports below 1024 need a privilege".to_owned(),
                _ => error.to_string(),
            }),
        }
    })
}

pub(super) async fn run(global: &Global, args: CheckArgs) -> Result<(), CliError> {
    if args.print_default {
        return print(DEFAULT_TOML);
    }
    let purpose = if args.agent { Purpose::Agent } else { Purpose::Serve };
    let settings = match global.verbose {
        0 => global.load(purpose)?,
        _ => global.start(purpose)?,
    };
    let mut report = "the configuration is good\n".to_owned();
    // Writing to a String does not fail.
    for warning in settings.warnings(purpose) {
        let _ = writeln!(report, "WARN {warning}");
    }
    if args.agent {
        let source = settings.access.source.resolved_for_agent(&settings).name();
        let _ = writeln!(report, "access.source is {source}: it must be the gateways'");
    }
    if args.offline {
        return print(report);
    }
    if let Some(problem) = limits::open_files(&settings, purpose) {
        let _ = writeln!(report, "WARN {problem}");
    }
    let probes = match args.agent {
        true => probe_agent(&settings, args.user.as_deref())?,
        false => probe_dependencies(&settings),
    };
    let outcomes = join_all(probes.into_iter().map(Probe::run)).await;
    let mut failed = 0;
    for (name, outcome) in &outcomes {
        match outcome {
            Ok(found) => {
                let _ = writeln!(report, "ok   {name}: {}", found.text);
                for warning in &found.warnings {
                    let _ = writeln!(report, "WARN {name}: {warning}");
                }
            }
            Err(problem) => {
                failed += 1;
                let _ = writeln!(report, "FAIL {name}: {problem}");
            }
        }
    }
    print(report)?;
    match failed {
        0 => Ok(()),
        _ => Err(CliError::Unavailable(format!("{failed} of {} dependencies failed", outcomes.len()))),
    }
}
