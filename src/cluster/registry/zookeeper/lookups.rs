//! What stands behind a link: lookups in batches, and watches that keep the answers true.
//!
//! One task owns the connection, the watches and all writing to [`Answers`]. With the connection everything
//! that was learned through it goes, and a new session starts from nothing: it holds no ephemerals that could
//! be missed, watches would be told of changes late, and the library (0.11.2) repeats itself when it sets many
//! watches again, beyond what servers accept.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::future::{AbortHandle, Abortable, Aborted, BoxFuture};
use futures::stream::FuturesUnordered;
use futures::{FutureExt, StreamExt};
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio::time::sleep;
use zookeeper_client::{Client, Error, MultiReadResult, OneshotWatcher, SessionState};

use super::batch::{BATCH, IN_FLIGHT};
use super::cache::{Answers, Doorkeeper};
use super::errors::registry_error;
use super::health::{Backoff, Trouble};
use super::link::{Ask, Found, Settings};
use super::nodes;
use super::tree;
use crate::cluster::queue::QueueName;
use crate::cluster::registry::{NodeRecord, RegistryError, RegistryHealth};
use crate::mail::key::Key;

/// Batches of lookups under way.
const BATCHES: usize = 4;

/// At most one warning about unreadable names a minute.
const WARN_AGAIN: Duration = Duration::from_secs(60);

/// Node lists are read again this long after a change: changes come in swarms.
const NODES_SETTLE: Duration = Duration::from_millis(20);
const NODES_RETRY: Duration = Duration::from_secs(1);

/// The task of a [`super::link::Link`].
pub struct Lookups {
    name: String,
    settings: Settings,
    answers: Arc<Answers>,
    asks: mpsc::Receiver<Ask>,
    renew: Arc<Notify>,
    ready: watch::Sender<bool>,
    doorkeeper: Doorkeeper,
    nobody: Arc<[QueueName]>,
    warned: Option<Instant>,
    /// Why ZooKeeper cannot be reached, said once.
    trouble: Trouble,
    /// Why lookups are not answered, said once; and why the nodes cannot be listed.
    denied: Trouble,
    nodes_trouble: Trouble,
}

type Batch = Vec<(Vec<Key>, oneshot::Sender<Found>)>;

enum Done {
    Batch { begun: Instant, lookups: Batch, result: Result<Vec<MultiReadResult>, Error> },
    Sync { begun: Instant, result: Result<(), Error>, reply: Option<oneshot::Sender<Result<(), RegistryError>>> },
    Armed { key: Key, result: Result<(Vec<String>, OneshotWatcher), Error> },
    Nodes(Result<(Vec<NodeRecord>, OneshotWatcher), Error>),
    NodesChanged,
}

type Watching = Abortable<BoxFuture<'static, Key>>;

/// What one connection carries.
struct Connection {
    client: Client,
    work: FuturesUnordered<BoxFuture<'static, Done>>,
    watches: FuturesUnordered<Watching>,
    batches: usize,
    arming: HashSet<Key>,
    renewing: bool,
}

impl Lookups {
    pub fn new(
        settings: Settings,
        answers: Arc<Answers>,
        asks: mpsc::Receiver<Ask>,
        renew: Arc<Notify>,
        ready: watch::Sender<bool>,
    ) -> Self {
        let name = format!("{} lookups", settings.access.hosts());
        let doorkeeper = Doorkeeper::new(settings.capacity.clamp(1_000, 100_000));
        Self {
            name,
            settings,
            answers,
            asks,
            renew,
            ready,
            doorkeeper,
            nobody: Arc::new([]),
            warned: None,
            trouble: Trouble::default(),
            denied: Trouble::default(),
            nodes_trouble: Trouble::default(),
        }
    }

    /// Runs until the registry is gone.
    pub async fn run(mut self) {
        let gone = self.settings.gone.clone();
        let mut backoff = Backoff::new();
        loop {
            let client = tokio::select! {
                client = self.connect(&mut backoff) => client,
                () = gone.cancelled() => break,
            };
            let begun = Instant::now();
            (self.trouble, self.denied, self.nodes_trouble) = Default::default();
            self.report();
            let reason = tokio::select! {
                reason = self.serve(client) => reason,
                () = gone.cancelled() => break,
            };
            self.answers.clear();
            backoff.handle_end(begun.elapsed());
            tracing::warn!(link = self.name, reason, "lost the connection to ZooKeeper");
            self.settings.board.set(&self.name, Some(RegistryHealth::Disconnected { reason }));
        }
        self.answers.clear();
        self.settings.board.set(&self.name, None);
    }

    /// A new session, however long it takes; meanwhile nothing is known to those who ask.
    async fn connect(&mut self, backoff: &mut Backoff) -> Client {
        let access = self.settings.access.clone();
        loop {
            if let Some(pause) = backoff.pause() {
                self.meanwhile(sleep(pause)).await;
            }
            let error = match self.meanwhile(access.connect()).await {
                Ok(client) => return client,
                Err(error) => error,
            };
            backoff.handle_failure();
            let reason = error.to_string();
            if self.trouble.is_news(&reason) {
                tracing::warn!(link = self.name, reason, "ZooKeeper cannot be reached, or does not let us in: trying on");
            }
            self.settings.board.set(&self.name, Some(RegistryHealth::Disconnected { reason }));
            self.ready.send_replace(true);
        }
    }

    /// Runs `future`, without a connection. During the very first attempt who asks waits for it.
    async fn meanwhile<T>(&mut self, future: impl Future<Output = T>) -> T {
        tokio::pin!(future);
        let refuses = *self.ready.borrow();
        loop {
            tokio::select! {
                done = &mut future => return done,
                Some(ask) = self.asks.recv(), if refuses => refuse(ask),
            }
        }
    }

    /// Serves one connection until it is lost, and says why it is.
    async fn serve(&mut self, client: Client) -> String {
        let mut states = client.state_watcher();
        // What has happened since it connected, the watcher takes as known.
        if client.state() != SessionState::SyncConnected {
            return format!("the connection to ZooKeeper is {}", client.state());
        }
        let mut connection = Connection {
            client,
            work: FuturesUnordered::new(),
            watches: FuturesUnordered::new(),
            batches: 0,
            arming: HashSet::new(),
            renewing: false,
        };
        match self.settings.nodes {
            Some(_) => self.list_nodes(&connection),
            None => drop(self.ready.send_replace(true)),
        }
        let mut next = None;
        loop {
            while connection.batches < BATCHES {
                let lookups = self.gather(&mut next, &mut connection);
                if lookups.is_empty() {
                    break;
                }
                connection.batches += 1;
                connection.work.push(Box::pin(look_up(connection.client.clone(), lookups)));
            }
            tokio::select! {
                Some(done) = connection.work.next() => self.handle(done, &mut connection),
                Some(fired) = connection.watches.next() => self.handle_watch(fired),
                Some(ask) = self.asks.recv(), if next.is_none() && connection.batches < BATCHES => next = Some(ask),
                () = self.renew.notified(), if !connection.renewing => {
                    connection.renewing = true;
                    connection.sync(None);
                }
                state = states.changed() => if state != SessionState::SyncConnected {
                    return format!("the connection to ZooKeeper is {state}");
                },
            }
        }
    }

    /// The lookups that wait, up to a batch; one that does not fit any more stays in `next`.
    fn gather(&mut self, next: &mut Option<Ask>, connection: &mut Connection) -> Batch {
        let (mut lookups, mut count) = (Batch::new(), 0);
        while let Some(ask) = next.take().or_else(|| self.asks.try_recv().ok()) {
            match ask {
                Ask::Lookup { keys, reply } if count > 0 && count + keys.len() > BATCH => {
                    *next = Some(Ask::Lookup { keys, reply });
                    break;
                }
                // Who asked has given up.
                Ask::Lookup { reply, .. } if reply.is_closed() => {}
                Ask::Lookup { keys, reply } => {
                    count += keys.len();
                    lookups.push((keys, reply));
                }
                Ask::Probe { reply } => connection.sync(Some(reply)),
            }
        }
        lookups
    }

    fn handle(&mut self, done: Done, connection: &mut Connection) {
        match done {
            Done::Batch { begun, lookups, result } => {
                connection.batches -= 1;
                match result {
                    Ok(results) => {
                        self.renew(begun, connection);
                        self.answer(lookups, results, connection);
                    }
                    // Who asked falls back when the reply is dropped.
                    Err(error) => tracing::debug!(link = self.name, %error, "a batch of lookups has failed"),
                }
            }
            Done::Sync { begun, result, reply } => {
                if result.is_ok() {
                    self.renew(begun, connection);
                }
                match reply {
                    Some(reply) => drop(reply.send(result.map_err(|error| registry_error(&error)))),
                    None => connection.renewing = false,
                }
            }
            Done::Armed { key, result } => {
                connection.arming.remove(&key);
                if let Ok((children, watcher)) = result {
                    let queues = self.queues(&children);
                    let fired = {
                        let key = key.clone();
                        async move {
                            watcher.changed().await;
                            key
                        }
                    };
                    let (handle, registration) = AbortHandle::new_pair();
                    let mut watching: Watching = Abortable::new(fired.boxed(), registration);
                    // It may have fired before a sync that has renewed the lease already.
                    if (&mut watching).now_or_never().is_none() {
                        connection.watches.push(watching);
                        self.answers.insert(key, queues, handle);
                    }
                }
            }
            Done::Nodes(Ok((records, watcher))) => {
                if let Some(nodes) = &self.settings.nodes {
                    nodes.set(records);
                }
                if self.nodes_trouble.end() {
                    tracing::info!(link = self.name, "the nodes can be listed again");
                    self.report();
                }
                self.ready.send_replace(true);
                connection.work.push(Box::pin(async move {
                    watcher.changed().await;
                    sleep(NODES_SETTLE).await;
                    Done::NodesChanged
                }));
            }
            Done::Nodes(Err(error)) => {
                if self.nodes_trouble.is_news(&error.to_string()) {
                    tracing::warn!(link = self.name, %error, "the nodes cannot be listed: trying on");
                    self.report();
                }
                self.ready.send_replace(true);
                connection.work.push(Box::pin(sleep(NODES_RETRY).map(|()| Done::NodesChanged)));
            }
            Done::NodesChanged => self.list_nodes(connection),
        }
    }

    /// A `sync` begun at `begun` has come back: everything that was told before it is heard first.
    fn renew(&mut self, begun: Instant, connection: &mut Connection) {
        while let Some(Some(fired)) = connection.watches.next().now_or_never() {
            self.handle_watch(fired);
        }
        self.answers.renew(begun);
    }

    fn handle_watch(&mut self, fired: Result<Key, Aborted>) {
        if let Ok(key) = fired {
            self.answers.remove(&key);
        }
    }

    fn answer(&mut self, lookups: Batch, results: Vec<MultiReadResult>, connection: &mut Connection) {
        let denial = results.iter().find_map(|result| match result {
            MultiReadResult::Error { err: Error::NoNode } => None,
            MultiReadResult::Error { err } => Some(err.to_string()),
            _ => None,
        });
        match denial {
            Some(reason) if self.denied.is_news(&reason) => {
                tracing::warn!(link = self.name, reason, "ZooKeeper does not answer lookups: events go to every node");
                self.report();
            }
            None if self.denied.end() => {
                tracing::info!(link = self.name, "ZooKeeper answers lookups again");
                self.report();
            }
            _ => {}
        }
        let mut results = results.into_iter();
        for (keys, reply) in lookups {
            let mut found = Found::with_capacity(keys.len());
            // The keys first: were there fewer results than keys, the rest would be unknown.
            for key in keys {
                let queues = match results.next() {
                    Some(MultiReadResult::Children { children }) => Some(self.queues(&children)),
                    Some(MultiReadResult::Error { err: Error::NoNode }) => Some(self.nobody.clone()),
                    _ => None,
                };
                if let Some(queues) = &queues {
                    self.arm_if_known(key, queues.is_empty(), connection);
                }
                found.push(queues);
            }
            let _ = reply.send(found);
        }
    }

    /// Tells readiness how this connection is doing.
    fn report(&self) {
        let trouble = self.denied.reason().or(self.nodes_trouble.reason());
        self.settings.board.set(
            &self.name,
            Some(match trouble {
                None => RegistryHealth::Connected,
                Some(reason) => RegistryHealth::Disconnected { reason: format!("ZooKeeper does not answer questions: {reason}") },
            }),
        );
    }

    /// Watches a key that is asked for repeatedly.
    fn arm_if_known(&mut self, key: Key, absent: bool, connection: &mut Connection) {
        let known = self.doorkeeper.knows(key.stable_hash());
        let room = connection.arming.len() < IN_FLIGHT;
        if known && room && !self.answers.contains(&key) && connection.arming.insert(key.clone()) {
            let client = connection.client.clone();
            connection.work.push(Box::pin(async move {
                let result = arm(&client, &key, absent).await;
                Done::Armed { key, result }
            }));
        }
    }

    fn queues(&mut self, children: &[String]) -> Arc<[QueueName]> {
        if children.is_empty() {
            return self.nobody.clone();
        }
        let (queues, unread) = tree::queues(children, &self.settings.names);
        if unread > 0 && self.warned.is_none_or(|warned| warned.elapsed() >= WARN_AGAIN) {
            self.warned = Some(Instant::now());
            tracing::warn!(link = self.name, unread, "registrations whose names are no queue ids are ignored");
        }
        queues.into()
    }

    fn list_nodes(&self, connection: &Connection) {
        let (client, access) = (connection.client.clone(), self.settings.access.clone());
        connection.work.push(Box::pin(async move {
            let listed = match nodes::list(&client).await {
                Err(Error::NoNode) => match access.prepare(&client).await {
                    Ok(()) => nodes::list(&client).await,
                    Err(error) => Err(error),
                },
                listed => listed,
            };
            Done::Nodes(listed)
        }));
    }
}

impl Connection {
    fn sync(&self, reply: Option<oneshot::Sender<Result<(), RegistryError>>>) {
        let client = self.client.clone();
        self.work.push(Box::pin(async move {
            let begun = Instant::now();
            let result = client.sync("/").await;
            Done::Sync { begun, result, reply }
        }));
    }
}

/// One round trip: the server catches up with its leader, then reads.
async fn look_up(client: Client, lookups: Batch) -> Done {
    let begun = Instant::now();
    let mut reader = client.new_multi_reader();
    let mut keys = lookups.iter().flat_map(|(keys, _)| keys);
    let result = match keys.try_for_each(|key| reader.add_get_children(&tree::container(key))) {
        Ok(()) => {
            // Both are sent before either is answered; one connection's requests are served in order.
            let (sync, read) = (client.sync("/"), reader.commit());
            let (synced, read) = futures::join!(sync, read);
            synced.and(read)
        }
        Err(error) => Err(error),
    };
    Done::Batch { begun, lookups, result }
}

/// Reads a key's children and leaves a watch for the next change.
async fn arm(client: &Client, key: &Key, mut absent: bool) -> Result<(Vec<String>, OneshotWatcher), Error> {
    let path = tree::container(key);
    // It may come and go between the two questions, but not for ever.
    for _ in 0..4 {
        if absent && let (None, watcher) = client.check_and_watch_stat(&path).await? {
            return Ok((Vec::new(), watcher));
        }
        match client.list_and_watch_children(&path).await {
            Err(Error::NoNode) => absent = true,
            listed => return listed,
        }
    }
    Err(Error::NoNode)
}

fn refuse(ask: Ask) {
    match ask {
        // A dropped reply is an answer.
        Ask::Lookup { .. } => {}
        Ask::Probe { reply } => drop(reply.send(Err(RegistryError::Unreachable("not connected to ZooKeeper".to_owned())))),
    }
}
