//! `mailpush serve`: a gateway node.

use std::sync::Arc;

use anyhow::Context;
use tokio::signal::unix::{SignalKind, signal};
use tracing::info;

use super::{CliError, Global};
use crate::config::Purpose;
use crate::node::{Cluster, Node};

/// Runs until SIGTERM or SIGINT, then drains.
pub async fn run(global: &Global) -> Result<(), CliError> {
    let settings = Arc::new(global.start(Purpose::Serve)?);
    let cluster = Cluster::connect(&settings).await?;
    let node = tokio::select! {
        node = Node::start(settings, cluster) => node?,
        // Still waiting for a dependency: there is nothing to drain.
        told = told_to_stop() => return told,
    };
    let outcome = tokio::select! {
        told = told_to_stop() => told,
        () = node.failed() => Err(anyhow::anyhow!("a part of the node has failed, its log says which").into()),
    };
    node.drain().await;
    outcome
}

/// Waits for SIGTERM or SIGINT.
pub(super) async fn told_to_stop() -> Result<(), CliError> {
    let mut terminate = signal(SignalKind::terminate()).context("cannot listen for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot listen for SIGINT")?;
    tokio::select! {
        _ = terminate.recv() => info!("told to stop (SIGTERM)"),
        _ = interrupt.recv() => info!("told to stop (SIGINT)"),
    }
    Ok(())
}
