//! The registry in ZooKeeper.
//!
//! A node's side: `registrar` keeps a `book` of what is to stand and spreads it over session `slot`s; `batch`
//! carries operations out; `audit` says when to look whether it all still stands; `standing` says how sure it all is; `announce` keeps the node's own znode.
//! A publisher's side: a `link` to each ensemble does `lookups` in batches and keeps a `cache` of answers true;
//! `nodes` are the running ones. Who may do what: `acls`. All: `tree` is the layout, `access` the way
//! in, `errors` what goes wrong and who mends it, `jump` the choice of ensemble.
//!
//! Upholds I-3 (one znode per key and node), I-6 (loss is told), I-14 (no session holds too much) and the
//! publisher's half of I-5 (no answer is older than `settle`).

use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use async_trait::async_trait;
use futures::future::{join_all, try_join_all};
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::{CancellationToken, DropGuard};
use zookeeper_client::CreateMode;

use self::access::Access;
use self::acls::ZookeeperAcls;
use self::announce::{Announcement, Ask};
use self::batch::BATCH;
use self::book::Book;
use self::health::HealthBoard;
use self::link::Link;
use self::nodes::Nodes;
use self::registrar::{EnsembleRegistrar, SESSION_BUDGET};
use self::slot::Shared;
use super::{Directory, Discontinuity, Interest, NodeRecord, QueueNames, Registrar, RegistryError, RegistryHealth};
use crate::cluster::queue::QueueName;
use crate::config::RegistrySettings;
use crate::lock::Mutex;
use crate::mail::key::Key;

mod access;
mod acls;
mod announce;
mod audit;
mod batch;
mod book;
mod cache;
mod errors;
mod health;
mod jump;
mod link;
mod lookups;
mod nodes;
mod registrar;
mod slot;
mod standing;
mod tree;

/// A node's and a publisher's registry, in one or several ZooKeeper ensembles.
///
/// Publishing and announcing are independent: a process that never announces opens one session per ensemble,
/// for lookups. Dropping it ends all its sessions; [`Registrar::close`] does so in good order.
pub struct ZookeeperRegistry {
    registrars: Vec<EnsembleRegistrar>,
    links: Vec<Link>,
    nodes: Arc<Nodes>,
    acls: ZookeeperAcls,
    board: Arc<HealthBoard>,
    lookup_timeout: Duration,
    /// The name of this node's znodes, once it has been announced.
    child: Arc<OnceLock<String>>,
    asks: mpsc::UnboundedSender<Ask>,
    announcement: Mutex<Option<Announcement>>,
    discontinuities: Mutex<Option<mpsc::UnboundedReceiver<Discontinuity>>>,
    gone: CancellationToken,
    _gone_on_drop: DropGuard,
}

impl ZookeeperRegistry {
    /// Connects in the background and goes on trying; waits for the first attempt, at most for the lookup
    /// timeout. Fails on settings that can never work, not on servers that are away.
    pub async fn connect(settings: &RegistrySettings, names: QueueNames) -> Result<Arc<Self>, RegistryError> {
        Self::connect_with_budget(settings, names, SESSION_BUDGET).await
    }

    /// As [`ZookeeperRegistry::connect`], with another budget of bytes per session (I-14): larger ones need
    /// servers with a larger `jute.maxbuffer`.
    pub async fn connect_with_budget(
        settings: &RegistrySettings,
        names: QueueNames,
        budget: usize,
    ) -> Result<Arc<Self>, RegistryError> {
        if settings.ensembles.is_empty() {
            return Err(RegistryError::Refused("no ensembles are configured".to_owned()));
        }
        let (board, gone) = (HealthBoard::new(), CancellationToken::new());
        let gone_on_drop = gone.clone().drop_guard();
        let (telling, discontinuities) = mpsc::unbounded_channel();
        let (asks, asked) = mpsc::unbounded_channel();
        let nodes = Arc::new(Nodes::new(names.clone()));
        let child = Arc::new(OnceLock::new());
        let lookup_timeout = settings.lookup_timeout_ms.duration();
        let accesses = settings.ensembles.iter().map(|ensemble| Access::new(settings, ensemble).map(Arc::new));
        let accesses = accesses.collect::<Result<Vec<_>, _>>()?;
        let announcement = Announcement::new(asked, accesses[0].options(CreateMode::Ephemeral));
        let registrars = accesses
            .iter()
            .map(|access| {
                EnsembleRegistrar::new(Arc::new(Shared {
                    access: access.clone(),
                    book: Mutex::new(Book::new(budget)),
                    board: board.clone(),
                    child: child.clone(),
                    discontinuities: telling.clone(),
                    audit: settings.audit_ms.duration(),
                    closing: CancellationToken::new(),
                    gone: gone.clone(),
                }))
            })
            .collect();
        let links: Vec<Link> = accesses
            .iter()
            .enumerate()
            .map(|(number, access)| {
                Link::start(link::Settings {
                    access: access.clone(),
                    names: names.clone(),
                    board: board.clone(),
                    nodes: (number == 0).then(|| nodes.clone()),
                    capacity: settings.cache_entries.div_ceil(accesses.len()),
                    settle: settings.settle_ms.duration(),
                    gone: gone.clone(),
                })
            })
            .collect();
        let acls = ZookeeperAcls::new(&accesses, &board, lookup_timeout, &gone);
        link::tried(&links, lookup_timeout).await;
        Ok(Arc::new(Self {
            registrars,
            links,
            nodes,
            acls,
            board,
            lookup_timeout,
            child,
            asks,
            announcement: Mutex::new(Some(announcement)),
            discontinuities: Mutex::new(Some(discontinuities)),
            gone,
            _gone_on_drop: gone_on_drop,
        }))
    }

    /// Which ensemble a key belongs to.
    fn ensemble(&self, key: &Key) -> usize {
        match u32::try_from(self.links.len()) {
            Ok(1) | Err(_) => 0,
            Ok(count) => jump::jump(key.stable_hash(), count) as usize,
        }
    }

    fn everyone(&self) -> Interest {
        Interest::Everyone(self.nodes.queues())
    }
}

#[async_trait]
impl Registrar for ZookeeperRegistry {
    async fn announce(&self, node: NodeRecord) -> Result<(), RegistryError> {
        let child = node.queue_id.to_string();
        if self.child.get().is_some_and(|known| *known != child) {
            return Err(RegistryError::Refused(format!("this process is {} already", self.child.get().map_or("", |c| c))));
        }
        let announcement = self.announcement.lock().take();
        if let Some(announcement) = announcement {
            self.registrars[0].start(announcement);
        }
        let (waiter, answer) = oneshot::channel();
        self.asks.send(Ask { record: node, waiter }).map_err(|_| RegistryError::Closed)?;
        answer.await.unwrap_or(Err(RegistryError::Closed))?;
        // Set once, to this: the check above.
        let _ = self.child.set(child);
        Ok(())
    }

    // Written out, so that the call itself takes effect, in order, and not the first poll.
    fn register<'a, 'b>(&'a self, key: Key) -> Pin<Box<dyn Future<Output = Result<(), RegistryError>> + Send + 'b>>
    where
        'a: 'b,
        Self: 'b,
    {
        let answer = self.child.get().map(|child| self.registrars[self.ensemble(&key)].register(key, child));
        Box::pin(async move {
            match answer {
                Some(answer) => answer.await.unwrap_or(Err(RegistryError::Closed)),
                None => Err(RegistryError::Refused("a node registers after it has been announced".to_owned())),
            }
        })
    }

    fn unregister(&self, key: Key) {
        self.registrars[self.ensemble(&key)].unregister(&key);
    }

    fn discontinuities(&self) -> mpsc::UnboundedReceiver<Discontinuity> {
        let taken = self.discontinuities.lock().take();
        // Taken before: a channel that is at its end.
        taken.unwrap_or_else(|| mpsc::unbounded_channel().1)
    }

    fn health(&self) -> watch::Receiver<RegistryHealth> {
        self.board.subscribe()
    }

    async fn close(&self) {
        join_all(self.registrars.iter().map(EnsembleRegistrar::close)).await;
        self.acls.close();
        self.gone.cancel();
    }
}

#[async_trait]
impl Directory for ZookeeperRegistry {
    fn cached(&self, key: &Key) -> Option<Arc<[QueueName]>> {
        self.links[self.ensemble(key)].cached(key)
    }

    async fn lookup(&self, keys: &[Key]) -> Vec<Interest> {
        let mut interests: Vec<Option<Interest>> = Vec::with_capacity(keys.len());
        let mut unknown: Vec<Vec<usize>> = vec![Vec::new(); self.links.len()];
        for (number, key) in keys.iter().enumerate() {
            let ensemble = self.ensemble(key);
            let cached = self.links[ensemble].cached(key);
            if cached.is_none() {
                unknown[ensemble].push(number);
            }
            interests.push(cached.map(Interest::Queues));
        }
        let chunks = unknown.iter().enumerate().flat_map(|(ensemble, numbers)| {
            numbers.chunks(BATCH).map(move |numbers| async move {
                let asked = numbers.iter().map(|&number| keys[number].clone()).collect();
                let found = tokio::time::timeout(self.lookup_timeout, self.links[ensemble].lookup(asked)).await;
                (numbers, found.ok().flatten())
            })
        });
        for (numbers, found) in join_all(chunks).await {
            for (&number, queues) in numbers.iter().zip(found.into_iter().flatten()) {
                interests[number] = queues.map(Interest::Queues);
            }
        }
        interests.into_iter().map(|interest| interest.unwrap_or_else(|| self.everyone())).collect()
    }

    fn nodes(&self) -> watch::Receiver<Arc<[NodeRecord]>> {
        self.nodes.subscribe()
    }

    async fn probe(&self) -> Result<(), RegistryError> {
        let all = try_join_all(self.links.iter().map(Link::probe));
        match tokio::time::timeout(self.lookup_timeout, all).await {
            Ok(answered) => answered.map(drop),
            Err(_) => Err(RegistryError::Unreachable("ZooKeeper does not answer".to_owned())),
        }
    }
}
