//! `mailpush agent`: the origin's side, on a mail server.

use std::sync::Arc;

use tracing::info;

use super::signals::Signals;
use super::{CliError, Global};
use crate::agent::{Agent, Publishing};
use crate::config::Purpose;
use crate::edge::auth::user_names;
use crate::node::{Cluster, host_name};
use crate::push::metrics::Metrics;

/// Runs until SIGTERM or SIGINT; what is not published then stays in the spool.
pub async fn run(global: &Global) -> Result<(), CliError> {
    let mut signals = Signals::listen()?;
    let mut settings = global.start(Purpose::Agent)?;
    super::raise_open_files();
    settings.access.source = settings.access.source.resolved_for_agent(&settings);
    // A wrong one either holds events back while ZooKeeper is away, or leaves ACLs there as they
    // were.
    info!(source = settings.access.source.name(), "the gateways' access.source is taken to be this");
    let cluster = Cluster::connect(&settings).await?;
    let metrics = Arc::new(Metrics::default());
    let publisher = Arc::new(cluster.publisher(&settings, metrics.clone())?);
    let origin = Some(settings.node.origin.clone()).filter(|origin| !origin.is_empty()).unwrap_or_else(host_name);
    let publishing = Publishing { sink: publisher, metrics, names: user_names(&settings.auth), origin };
    let agent = Agent::start(&settings, publishing).await?;
    let outcome = tokio::select! {
        () = signals.stop() => Ok(()),
        () = agent.failed() => Err(anyhow::anyhow!("a part of the agent has failed, its log says which").into()),
    };
    signals.drain(|hurry| agent.drain(hurry)).await;
    outcome
}
