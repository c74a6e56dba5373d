//! `mailpush gc`: removes the topics of nodes that are gone.

use clap::Args;

use super::{CliError, Global, print};
use crate::cluster::queue::gc::{Memory, Rules, collect};
use crate::config::{Purpose, RegistryKind};
use crate::mail::ids::NodeId;
use crate::node::Cluster;

/// The flags of `mailpush gc`.
#[derive(Args)]
pub struct GcArgs {
    /// Say what would be removed, and leave it
    #[arg(long)]
    pub dry_run: bool,
}

/// Removes the topics, or says which it would remove. Nothing is removed while the registry cannot
/// say which nodes live.
pub async fn run(global: &Global, args: GcArgs) -> Result<(), CliError> {
    let settings = global.start(Purpose::Publish)?;
    if settings.registry.kind != RegistryKind::Zookeeper {
        return Err(CliError::Usage("without ZooKeeper nobody can say which nodes live: nothing is removed".to_owned()));
    }
    let cluster = Cluster::connect(&settings).await?;
    let unavailable = |what: &str, error: String| CliError::Unavailable(format!("{what}: {error}; nothing is removed"));
    let nodes = settle_nodes(&cluster).await.map_err(|error| unavailable("the registry cannot be asked", error))?;
    let rules = Rules { grace: settings.queue.gc_grace_ms.duration(), dry_run: args.dry_run };
    let collected = collect(&*cluster.queues, &cluster.names, &nodes, rules, &mut Memory::default()).await;
    let collected = collected.map_err(|error| unavailable("the queues cannot be listed", error.to_string()))?;
    let verb = if args.dry_run { "would remove" } else { "removed" };
    for queue in &collected.removed {
        print(format!("{verb} {queue}\n"))?;
    }
    print(format!("{} {verb}, {} kept, {} nodes live\n", collected.removed.len(), collected.kept, nodes.len()))?;
    match collected.failed.first() {
        None => Ok(()),
        Some((queue, error)) => Err(CliError::Unavailable(format!("cannot remove {queue}: {error}"))),
    }
}

/// The nodes that the registry has, once it has said so.
async fn settle_nodes(cluster: &Cluster) -> Result<Vec<NodeId>, String> {
    cluster.directory.probe().await.map_err(|error| error.to_string())?;
    Ok(cluster.directory.nodes().borrow().iter().map(|node| node.id.clone()).collect())
}
