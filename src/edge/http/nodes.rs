//! `GET /v1/nodes`: who runs, how they are, and who has left.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use reqwest::Method;
use serde::{Deserialize, Serialize};

use super::caller::Caller;
use super::health::registry_words;
use super::peers::{FromNode, Silent, ask_all};
use super::problem::Problem;
use crate::cluster::queue::QueueName;
use crate::edge::auth::Scopes;
use crate::edge::gateway::{Departed, Gateway};
use crate::mail::ids::NodeId;

/// What a node says of itself.
#[derive(Debug, Serialize, Deserialize)]
pub struct NodeStatus {
    id: NodeId,
    url: String,
    queue: QueueName,
    version: String,
    /// Milliseconds since 1970, UTC.
    started_at: u64,
    /// `ready`, `degraded` (the registry or the queue is away) or `draining`.
    state: String,
    registry: String,
    queue_reachable: bool,
    /// Records in its queue that it has not consumed yet; `null` where unknown.
    lag: Option<u64>,
    sessions: usize,
    /// Keys with subscribers.
    keys: usize,
    /// Keys registered, lingering ones too.
    registrations: usize,
}

impl FromNode for NodeStatus {
    fn node(&self) -> &NodeId {
        &self.id
    }
}

#[derive(Debug, Serialize)]
pub struct NodeList {
    nodes: Vec<NodeStatus>,
    /// Nodes that have left since this node started, the latest last.
    left: Vec<Departed>,
    partial: Vec<Silent>,
}

fn status(gateway: &Gateway) -> NodeStatus {
    let registry = gateway.registry_health.borrow().clone();
    let queue = gateway.queue_health.borrow().clone();
    let state = match (gateway.is_draining(), registry.is_connected() && queue.state.is_good()) {
        (true, _) => "draining",
        (false, true) => "ready",
        (false, false) => "degraded",
    };
    NodeStatus {
        id: gateway.node().clone(),
        url: gateway.record.url.clone(),
        queue: gateway.record.queue.clone(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        started_at: gateway.record.started_at,
        state: state.to_owned(),
        registry: registry_words(&registry),
        queue_reachable: queue.state.is_good(),
        lag: queue.lag,
        sessions: gateway.sessions.len(),
        keys: gateway.hub.keys(),
        registrations: gateway.presence.len(),
    }
}

/// `GET /v1/local/node`: this one.
pub async fn status_local(State(gateway): State<Arc<Gateway>>, caller: Caller) -> Result<Json<NodeStatus>, Problem> {
    caller.must(Scopes::SUBSCRIPTIONS_READ, "subscriptions:read")?;
    Ok(Json(status(&gateway)))
}

/// `GET /v1/nodes`: all of them.
pub async fn list(State(gateway): State<Arc<Gateway>>, caller: Caller) -> Result<Json<NodeList>, Problem> {
    caller.must(Scopes::SUBSCRIPTIONS_READ, "subscriptions:read")?;
    let others = ask_all::<NodeStatus>(&gateway, Method::GET, "/v1/local/node", &caller).await;
    let mut nodes = others.answers;
    nodes.push(status(&gateway));
    nodes.sort_by(|a, b| a.id.cmp(&b.id));
    Ok(Json(NodeList { nodes, left: gateway.departed(), partial: others.partial }))
}
