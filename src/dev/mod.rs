//! `mailpush dev`: a whole cluster in one process with nothing installed.
//!
//! The registry and the queue are the in-process ones, everything else is what production runs: each node has its
//! own port, hub, consumer and queue, and an event that enters at one node reaches a client of another through the
//! queue alone (I-7).

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use data_encoding::BASE64URL_NOPAD;
use serde::Serialize;
use uuid::Uuid;

use crate::cluster::queue::local::LocalQueues;
use crate::cluster::registry::QueueNames;
use crate::cluster::registry::local::LocalRegistry;
use crate::config::{QueueKind, RegistryKind, Secret, Settings};
use crate::edge::auth::Scopes;
use crate::edge::auth::token::{TokenRequest, issue};
use crate::node::{Cluster, Node};
use crate::push::clock::unix_ms;

/// Who is there; everybody's password is their name.
pub const USERS: [&str; 3] = ["alice", "bob", "carol"];
const DOMAIN: &str = "example.org";
/// Records that a queue keeps.
const RECORDS: usize = 100_000;
/// Long enough for a day's work.
const TOKEN_TTL: Duration = Duration::from_secs(24 * 3600);

/// A cluster in this process.
pub struct Dev {
    nodes: Vec<Node>,
    description: Description,
}

/// What a script needs to know: `mailpush dev --json` prints it as one line.
#[derive(Debug, Clone, Serialize)]
pub struct Description {
    pub nodes: Vec<DevNode>,
    pub users: Vec<DevUser>,
    pub admin_token: String,
}

#[derive(Debug, Clone, Serialize)]
pub struct DevNode {
    pub id: String,
    pub http: String,
    pub ws: String,
    /// `null`: no mail store is behind it yet.
    pub imap: Option<String>,
}

#[derive(Debug, Clone, Serialize)]
pub struct DevUser {
    pub user: String,
    pub password: String,
    pub token: String,
}

impl Dev {
    /// Starts `nodes` nodes on the ports from `port` on; 0 picks free ones. `settings` are the operator's own, with
    /// what dev needs laid over them.
    pub async fn start(mut settings: Settings, nodes: usize, port: u16) -> Result<Self> {
        settings.registry.kind = RegistryKind::Local;
        settings.queue.kind = QueueKind::Local;
        if settings.auth == Default::default() {
            // A secret of its own for each run: its tokens are good for nothing else.
            let random = [Uuid::new_v4().into_bytes(), Uuid::new_v4().into_bytes()].concat();
            settings.auth.secret = Secret::new(BASE64URL_NOPAD.encode(&random));
            settings.auth.default_domain = DOMAIN.to_owned();
        }
        let names = QueueNames::new(&settings.queue.prefix).context("queue.prefix")?;
        let registry = LocalRegistry::new(names.clone());
        let queues = LocalQueues::new(settings.queue.retention_ms.duration(), RECORDS);
        let mut started = Vec::with_capacity(nodes);
        for number in 0..nodes {
            let mut settings = settings.clone();
            settings.node.id = format!("dev-{}", number + 1);
            let port = if port == 0 { 0 } else { port.checked_add(number as u16).context("--port is too high")? };
            settings.http.listen = SocketAddr::new(settings.http.listen.ip(), port);
            if port != 0 {
                // The page under the name that people type.
                settings.http.allowed_origins.push(format!("http://localhost:{port}"));
            }
            let local = registry.node();
            let cluster = Cluster { registrar: local.clone(), directory: local, queues: queues.clone(), names: names.clone() };
            started.push(Node::start(Arc::new(settings), cluster).await?);
        }
        let description = describe(&settings, &started)?;
        Ok(Self { nodes: started, description })
    }

    pub fn description(&self) -> &Description {
        &self.description
    }

    /// Drains all nodes.
    pub async fn stop(self) {
        futures::future::join_all(self.nodes.into_iter().map(Node::drain)).await;
    }
}

fn describe(settings: &Settings, nodes: &[Node]) -> Result<Description> {
    let token = |user: &str, scopes| {
        let request = TokenRequest { user: user.to_owned(), groups: Vec::new(), scopes, ttl: TOKEN_TTL, key_id: None };
        issue(&settings.auth, &request, unix_ms()).context("cannot make a token")
    };
    let users = USERS.iter().map(|name| {
        let user = format!("{name}@{DOMAIN}");
        Ok(DevUser { token: token(&user, Scopes::PUSH)?, password: (*name).to_owned(), user })
    });
    let nodes = nodes.iter().map(|node| DevNode {
        id: node.id().to_string(),
        http: format!("http://{}", node.address()),
        ws: format!("ws://{}/v1/ws", node.address()),
        imap: None,
    });
    let all = [Scopes::PUSH, Scopes::SUBSCRIPTIONS_READ, Scopes::SESSIONS_WRITE, Scopes::EVENTS_PUBLISH];
    Ok(Description {
        nodes: nodes.collect(),
        users: users.collect::<Result<_>>()?,
        admin_token: token(&format!("admin@{DOMAIN}"), all.into_iter().collect())?,
    })
}
