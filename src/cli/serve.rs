//! `mailpush serve`: a gateway node.

use std::sync::Arc;

use super::signals::Signals;
use super::{CliError, Global};
use crate::config::Purpose;
use crate::node::{Cluster, Node};

/// Runs until SIGTERM or SIGINT, then drains.
pub async fn run(global: &Global) -> Result<(), CliError> {
    let mut signals = Signals::listen()?;
    let settings = Arc::new(global.start(Purpose::Serve)?);
    super::raise_open_files();
    let cluster = Cluster::connect(&settings).await?;
    let node = tokio::select! {
        node = Node::start(settings, cluster) => node?,
        // Still waiting for a dependency: there is nothing to drain.
        () = signals.stop() => return Ok(()),
    };
    let outcome = tokio::select! {
        () = signals.stop() => Ok(()),
        () = node.failed() => Err(anyhow::anyhow!("a part of the node has failed, its log says which").into()),
    };
    signals.drain(|hurry| node.drain(hurry)).await;
    outcome
}
