//! `mailpush dev`: a whole cluster in one process with nothing installed.
//!
//! The registry and the queue are the in-process ones, everything else is what production runs:
//! each node has its own port, hub, consumer and queue, and an event that enters at one node
//! reaches a client of another through the queue alone (I-7). One mail store, in memory, is behind
//! all of them; what changes in it goes the same way.

pub mod imap;
pub mod rights;
pub mod server;
mod shared;
pub mod store;

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use data_encoding::BASE64URL_NOPAD;
use futures::future::{join_all, select_all};
use serde::Serialize;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use tracing::warn;
use uuid::Uuid;

use crate::cluster::queue::local::LocalQueues;
use crate::cluster::registry::QueueNames;
use crate::cluster::registry::local::LocalRegistry;
use crate::config::{AclChangesBy, ImapTls, QueueKind, RegistryKind, Secret, Settings};
use crate::edge::auth::Scopes;
use crate::edge::auth::token::{TokenRequest, issue};
use crate::mail::Event;
use crate::node::{Cluster, Node};
use crate::push::clock::unix_ms;
use crate::push::publisher::Publisher;
use crate::tasks::vital;
use store::{Store, StoreOptions};

/// Who is there; everybody's password is their name.
pub const USERS: [&str; 3] = ["alice", "bob", "carol"];
pub const DOMAIN: &str = "example.org";
/// Records that a queue keeps.
const RECORDS: usize = 100_000;
/// Long enough for a day's work.
const TOKEN_TTL: Duration = Duration::from_secs(24 * 3600);

/// Events of the store that wait for the publisher.
const EVENTS: usize = 1_000;
/// Events that are published together.
const BATCH: usize = 100;
/// Between attempts to publish what could not be published.
const RETRY: Duration = Duration::from_millis(100);

/// A cluster in this process.
pub struct Dev {
    nodes: Vec<Node>,
    /// Held: it ends when it is dropped.
    _store: Store,
    _publishing: AbortOnDropHandle<()>,
    description: Description,
}

/// Where `mailpush dev` listens.
#[derive(Debug, Clone, Copy, Default)]
pub struct Ports {
    /// The first node's HTTP port, the others follow; 0 picks free ones.
    pub http: u16,
    /// The first node's IMAP port, the others follow; 0 picks free ones.
    pub imap: u16,
}

/// What a script needs to know: `mailpush dev --json` prints it as one line.
#[derive(Debug, Clone, Serialize)]
pub struct Description {
    pub nodes: Vec<DevNode>,
    /// The mail store itself, as the nodes reach it: IMAP without TLS.
    pub store_imap: String,
    pub users: Vec<DevUser>,
    pub admin_token: String,
}

#[derive(Debug, Clone, Serialize)]
pub struct DevNode {
    pub id: String,
    pub http: String,
    pub ws: String,
    pub imap: Option<String>,
}

#[derive(Debug, Clone, Serialize)]
pub struct DevUser {
    pub user: String,
    pub password: String,
    pub token: String,
}

impl Dev {
    /// Starts the mail store and `nodes` nodes. `settings` are the operator's own, with what dev
    /// needs laid over them.
    pub async fn start(mut settings: Settings, nodes: usize, ports: Ports) -> Result<Self> {
        settings.registry.kind = RegistryKind::Local;
        settings.queue.kind = QueueKind::Local;
        if settings.auth == Default::default() {
            // A secret of its own for each run: its tokens are good for nothing else.
            let random = [Uuid::new_v4().into_bytes(), Uuid::new_v4().into_bytes()].concat();
            settings.auth.secret = Secret::new(BASE64URL_NOPAD.encode(&random));
            settings.auth.default_domain = DOMAIN.to_owned();
        }
        let (events, published) = mpsc::channel(EVENTS);
        let store = Store::start(StoreOptions { events: Some(events), ..StoreOptions::default() }).await?;
        let names = QueueNames::of(&settings.queue.prefix);
        let registry = LocalRegistry::new(names.clone());
        let queues = LocalQueues::new(settings.queue.retention_ms.duration(), RECORDS);
        let mut started = Vec::with_capacity(nodes);
        for number in 0..nodes {
            let mut settings = settings.clone();
            settings.node.id = Some(format!("dev-{}", number + 1).parse()?);
            let port = nth(ports.http, number).context("--port is too high")?;
            let imap_port = nth(ports.imap, number).context("--imap-port is too high")?;
            settings.imap.listen = Some(SocketAddr::new(Ipv4Addr::LOCALHOST.into(), imap_port));
            settings.imap.upstream.addresses = vec![store.address().into()];
            settings.imap.listen_tls = None;
            settings.imap.upstream.tls = ImapTls::None;
            // The store tells of every change itself.
            settings.imap.acl_changes_by = AclChangesBy::Origin;
            settings.imap.master.user = store.master().user.clone();
            settings.imap.master.password = Secret::new(store.master().password.as_str());
            settings.http.listen = SocketAddr::new(settings.http.listen.ip(), port);
            if port != 0 {
                // The page under the name that people type.
                settings.http.allowed_origins.push(format!("http://localhost:{port}").parse()?);
            }
            let local = registry.node();
            let cluster = Cluster {
                registrar: local.clone(),
                directory: local,
                queues: queues.clone(),
                acls: Some(registry.acls()),
                rights: Some(Arc::new(store.rights())),
                names: names.clone(),
            };
            started.push(Node::start(Arc::new(settings), cluster).await?);
        }
        let description = describe(&settings, &started, &store)?;
        // One publisher, as one mail server has: its clients hear only what came out of the queue
        // (I-7).
        let publisher = started.first().context("a cluster has a node")?.gateway().publisher.clone();
        let publishing = AbortOnDropHandle::new(tokio::spawn(vital("dev publisher", publish(publisher, published))));
        Ok(Self { nodes: started, _store: store, _publishing: publishing, description })
    }

    pub fn description(&self) -> &Description {
        &self.description
    }

    /// Returns if a node, or what all of them share, has failed.
    pub async fn failed(&self) {
        select_all(self.nodes.iter().map(|node| Box::pin(node.failed()))).await;
    }

    /// Drains all nodes; sooner once `hurry` is cancelled.
    pub async fn stop(self, hurry: CancellationToken) {
        join_all(self.nodes.into_iter().map(|node| node.drain(hurry.clone()))).await;
    }
}

/// The port of the node of that number, if the first has `first`.
fn nth(first: u16, number: usize) -> Option<u16> {
    if first == 0 { Some(0) } else { first.checked_add(u16::try_from(number).ok()?) }
}

/// Publishes the store's events in their order. What cannot be published is tried again: the store
/// has no other way to tell of it.
async fn publish(publisher: Arc<Publisher>, mut events: mpsc::Receiver<Event>) {
    let mut batch = Vec::new();
    while events.recv_many(&mut batch, BATCH).await > 0 {
        while !batch.is_empty() {
            let results = publisher.publish_batch(&batch).await;
            let mut results = results.into_iter();
            batch.retain(|event| match results.next() {
                Some(Err(error)) if error.is_transient() => true,
                Some(Err(error)) => {
                    warn!(%error, event = %event.id, "an event of the mail store is lost");
                    false
                }
                _ => false,
            });
            if !batch.is_empty() {
                tokio::time::sleep(RETRY).await;
            }
        }
    }
}

fn describe(settings: &Settings, nodes: &[Node], store: &Store) -> Result<Description> {
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
        imap: node.imap().plain.map(|address| address.to_string()),
    });
    let scopes = Scopes::ALL.names().filter_map(|name| name.parse::<Scopes>().ok());
    Ok(Description {
        nodes: nodes.collect(),
        store_imap: store.address().to_string(),
        users: users.collect::<Result<_>>()?,
        admin_token: token(&format!("admin@{DOMAIN}"), scopes.collect())?,
    })
}
