//! The connection to one ensemble's ACLs: answers questions, and watches what it has answered.
//!
//! One task owns the connection and the watches. Questions wait for it in a channel and are asked in batches, each behind
//! one `sync`. With the connection the watches go, and a new session starts from nothing, as `lookups` does: so then
//! anything may have changed. It is opened when somebody first asks.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use futures::future::{AbortHandle, Abortable, Aborted, BoxFuture, join_all};
use futures::stream::FuturesUnordered;
use futures::{FutureExt, StreamExt};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use zookeeper_client::{Client, Error, EventType, OneshotWatcher, SessionState};

use super::super::access::Access;
use super::super::errors::registry_error;
use super::super::health::{Backoff, HealthBoard, Trouble};
use super::super::tree;
use super::{record, shares};
use crate::cluster::acls::AclNews;
use crate::cluster::acls::news::{Listeners, Watched};
use crate::cluster::registry::{RegistryError, RegistryHealth};
use crate::mail::path::MailboxPath;
use crate::mail::rights::{Acl, Identifier};
use crate::tasks::vital;

/// Questions that wait to be asked; beyond it, who asks waits.
const WAITING: usize = 4_096;
/// Questions that are asked together.
const BATCH: usize = 50;
/// Batches under way.
const BATCHES: usize = 4;

type Reply<T> = oneshot::Sender<Result<T, RegistryError>>;

enum Ask {
    Acl { mailbox: MailboxPath, replies: Vec<Reply<Acl>> },
    Shares { identifier: Identifier, reply: Reply<Vec<MailboxPath>> },
}

/// What a link is made with.
pub struct Settings {
    pub access: Arc<Access>,
    pub board: Arc<HealthBoard>,
    pub listeners: Arc<Listeners>,
    /// Answers that are watched, at most.
    pub capacity: usize,
    pub gone: CancellationToken,
}

/// The handle.
pub struct Link {
    settings: Arc<Settings>,
    running: OnceLock<Running>,
}

struct Running {
    asks: mpsc::Sender<Ask>,
    /// Or why there is none.
    client: watch::Receiver<Result<Client, RegistryError>>,
}

impl Link {
    pub fn new(settings: Settings) -> Self {
        Self { settings: Arc::new(settings), running: OnceLock::new() }
    }

    pub fn access(&self) -> &Access {
        &self.settings.access
    }

    /// Returns once the registry is closed or has been dropped.
    pub async fn gone(&self) {
        self.settings.gone.cancelled().await;
    }

    fn running(&self) -> &Running {
        self.running.get_or_init(|| {
            let (asks, asked) = mpsc::channel(WAITING);
            let connecting = RegistryError::Unreachable("connecting to ZooKeeper".to_owned());
            let (state, client) = watch::channel(Err(connecting));
            tokio::spawn(vital("ACLs", Task::new(self.settings.clone(), asked, state).run()));
            Running { asks, client }
        })
    }

    /// The session, once there is one.
    pub async fn client(&self) -> Result<Client, RegistryError> {
        let mut state = self.running().client.clone();
        state.wait_for(Result::is_ok).await.map_err(|_| RegistryError::Closed)?.clone()
    }

    /// Why who waits has waited in vain.
    pub fn reason(&self) -> RegistryError {
        let state = self.running().client.borrow();
        state.as_ref().err().cloned().unwrap_or_else(|| RegistryError::Unreachable("ZooKeeper does not answer".to_owned()))
    }

    pub async fn get(&self, mailbox: MailboxPath) -> Result<Acl, RegistryError> {
        self.ask(|reply| Ask::Acl { mailbox, replies: vec![reply] }).await
    }

    pub async fn shares(&self, identifier: Identifier) -> Result<Vec<MailboxPath>, RegistryError> {
        self.ask(|reply| Ask::Shares { identifier, reply }).await
    }

    async fn ask<T>(&self, ask: impl FnOnce(Reply<T>) -> Ask) -> Result<T, RegistryError> {
        let (reply, answer) = oneshot::channel();
        self.running().asks.send(ask(reply)).await.map_err(|_| RegistryError::Closed)?;
        answer.await.unwrap_or_else(|_| Err(RegistryError::Unreachable("the connection to ZooKeeper was lost".to_owned())))
    }
}

/// An answer, who waits for it, and what watches it.
enum Answer {
    Acl { mailbox: MailboxPath, replies: Vec<Reply<Acl>>, result: Result<Acl, RegistryError>, watcher: Option<OneshotWatcher> },
    Shares { identifier: Identifier, reply: Reply<Vec<MailboxPath>>, result: Result<(Vec<MailboxPath>, OneshotWatcher), Error> },
}

/// Ends the wait for a watch.
struct Watch(AbortHandle);

impl Drop for Watch {
    fn drop(&mut self) {
        self.0.abort();
    }
}

type Watches = FuturesUnordered<Abortable<BoxFuture<'static, AclNews>>>;

struct Task {
    name: String,
    settings: Arc<Settings>,
    asks: mpsc::Receiver<Ask>,
    state: watch::Sender<Result<Client, RegistryError>>,
    watched: Watched<Watch>,
    /// Whether something may have changed and nobody could tell.
    in_doubt: bool,
    /// Why ZooKeeper cannot be reached, said once.
    trouble: Trouble,
}

impl Task {
    fn new(settings: Arc<Settings>, asks: mpsc::Receiver<Ask>, state: watch::Sender<Result<Client, RegistryError>>) -> Self {
        let (name, watched) = (format!("{} ACLs", settings.access.hosts()), Watched::new(settings.capacity));
        Self { name, settings, asks, state, watched, in_doubt: false, trouble: Trouble::default() }
    }

    /// Runs until the registry is gone.
    async fn run(mut self) {
        let gone = self.settings.gone.clone();
        let mut backoff = Backoff::new();
        loop {
            let client = tokio::select! {
                client = self.connect(&mut backoff) => client,
                () = gone.cancelled() => break,
            };
            let begun = Instant::now();
            self.settings.board.set(&self.name, Some(RegistryHealth::Connected));
            drop(self.state.send_replace(Ok(client.clone())));
            if std::mem::take(&mut self.in_doubt) {
                self.settings.listeners.tell(&AclNews::Everything);
            }
            let reason = tokio::select! {
                reason = self.serve(client) => reason,
                () = gone.cancelled() => break,
            };
            self.watched.clear();
            backoff.handle_end(begun.elapsed());
            tracing::warn!(link = self.name, reason, "lost the connection to ZooKeeper");
            self.handle_away(RegistryError::Unreachable(reason));
        }
        self.settings.board.set(&self.name, None);
        // The session ends with its last handle.
        drop(self.state.send_replace(Err(RegistryError::Closed)));
    }

    fn handle_away(&mut self, error: RegistryError) {
        self.in_doubt = true;
        self.settings.board.set(&self.name, Some(RegistryHealth::Disconnected { reason: error.to_string() }));
        drop(self.state.send_replace(Err(error)));
    }

    /// A new session, however long it takes. Meanwhile questions wait, as long as those who ask do.
    async fn connect(&mut self, backoff: &mut Backoff) -> Client {
        let access = self.settings.access.clone();
        loop {
            if let Some(pause) = backoff.pause() {
                sleep(pause).await;
            }
            let attempt = async {
                let client = access.connect().await?;
                access.prepare(&client).await.map(|()| client)
            };
            let error = match timeout(access.timeout() * 2, attempt).await.unwrap_or(Err(Error::Timeout)) {
                Ok(client) => {
                    self.trouble.end();
                    return client;
                }
                Err(error) => error,
            };
            backoff.handle_failure();
            if self.trouble.is_news(&error.to_string()) {
                tracing::warn!(link = self.name, %error, "ZooKeeper cannot be reached, or does not let us in: trying on");
            }
            self.handle_away(registry_error(&error));
        }
    }

    /// Serves one connection until it is lost, and says why it is.
    async fn serve(&mut self, client: Client) -> String {
        let mut states = client.state_watcher();
        // What has happened since it connected, the watcher takes as known.
        if client.state() != SessionState::SyncConnected {
            return format!("the connection to ZooKeeper is {}", client.state());
        }
        let mut batches: FuturesUnordered<BoxFuture<'static, Vec<Answer>>> = FuturesUnordered::new();
        let mut watches = Watches::new();
        let mut gathered = Vec::new();
        loop {
            tokio::select! {
                Some(answers) = batches.next() => answers.into_iter().for_each(|answer| self.answer(answer, &watches)),
                Some(fired) = watches.next() => self.handle_watch(fired),
                count = self.asks.recv_many(&mut gathered, BATCH), if batches.len() < BATCHES => {
                    if count == 0 {
                        // The registry has been dropped, and ends this task.
                        std::future::pending::<()>().await;
                    }
                    batches.push(Box::pin(read(client.clone(), merged(std::mem::take(&mut gathered)))));
                }
                state = states.changed() => if state != SessionState::SyncConnected {
                    return format!("the connection to ZooKeeper is {state}");
                },
            }
        }
    }

    fn handle_watch(&mut self, fired: Result<AclNews, Aborted>) {
        if let Ok(news) = fired
            && self.watched.remove(&news)
        {
            self.settings.listeners.tell(&news);
        }
    }

    /// Watches first, then answers: who has the answer is sure to hear of its change.
    fn answer(&mut self, answer: Answer, watches: &Watches) {
        // Who asked may have given up.
        match answer {
            Answer::Acl { mailbox, replies, result, watcher } => {
                if let Some(watcher) = watcher {
                    self.watch(AclNews::Changed(mailbox), watcher, watches);
                }
                replies.into_iter().for_each(|reply| drop(reply.send(result.clone())));
            }
            Answer::Shares { identifier, reply, result: Ok((mailboxes, watcher)) } => {
                self.watch(AclNews::Shares(identifier), watcher, watches);
                let _ = reply.send(Ok(mailboxes));
            }
            Answer::Shares { reply, result: Err(error), .. } => drop(reply.send(Err(registry_error(&error)))),
        }
    }

    fn watch(&mut self, news: AclNews, watcher: OneshotWatcher, watches: &Watches) {
        let (handle, registration) = AbortHandle::new_pair();
        let fired = {
            let news = news.clone();
            async move {
                // The end of the session is told by its state, once for all.
                if watcher.changed().await.event_type == EventType::Session {
                    std::future::pending::<()>().await;
                }
                news
            }
        };
        watches.push(Abortable::new(fired.boxed(), registration));
        self.watched.insert(news, Watch(handle));
    }
}

/// One question for each ACL: when it changes, all who are named in it are asked about at once.
fn merged(asks: Vec<Ask>) -> Vec<Ask> {
    let mut merged: Vec<Ask> = Vec::with_capacity(asks.len());
    let mut places: HashMap<MailboxPath, usize> = HashMap::new();
    for ask in asks {
        if let Ask::Acl { mailbox, replies } = ask {
            let place = *places.entry(mailbox.clone()).or_insert(merged.len());
            match merged.get_mut(place) {
                Some(Ask::Acl { replies: all, .. }) => all.extend(replies),
                _ => merged.push(Ask::Acl { mailbox, replies }),
            }
        } else {
            merged.push(ask);
        }
    }
    merged
}

/// The server catches up with its leader, then reads.
async fn read(client: Client, asks: Vec<Ask>) -> Vec<Answer> {
    // Sent before any question is; one connection's requests are served in order.
    let sync = client.sync("/");
    let questions = join_all(asks.into_iter().map(|ask| read_one(&client, ask)));
    let (synced, mut answers) = futures::join!(sync, questions);
    if let Err(error) = synced {
        for answer in &mut answers {
            match answer {
                Answer::Acl { result, .. } => *result = Err(registry_error(&error)),
                Answer::Shares { result, .. } => *result = Err(error.clone()),
            }
        }
    }
    answers
}

async fn read_one(client: &Client, ask: Ask) -> Answer {
    match ask {
        Ask::Acl { mailbox, replies } => {
            let path = tree::acl(&mailbox);
            // The watch before the data: it cannot miss what the data does not hold, and it stands where there is none too.
            let (watched, data) = (client.check_and_watch_stat(&path), client.get_data(&path));
            let (watched, data) = futures::join!(watched, data);
            let (result, watcher) = match (watched, data) {
                (Ok((_, watcher)), Ok((data, _))) => {
                    (record::read(&mailbox, &data).map_err(RegistryError::Refused), Some(watcher))
                }
                (Ok((_, watcher)), Err(Error::NoNode)) => (Ok(Acl::default()), Some(watcher)),
                (Err(error), _) | (_, Err(error)) => (Err(registry_error(&error)), None),
            };
            Answer::Acl { mailbox, replies, result, watcher }
        }
        Ask::Shares { identifier, reply } => {
            let result = shares::list_and_watch(client, &identifier).await;
            Answer::Shares { identifier, reply, result }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_acl_that_many_ask_for_is_read_once() {
        let acl = |name: &str| {
            let mailbox = format!("#private:bob:{name}").parse().unwrap();
            Ask::Acl { mailbox, replies: vec![oneshot::channel().0] }
        };
        let shares = || Ask::Shares { identifier: Identifier::Anyone, reply: oneshot::channel().0 };
        let merged = merged(vec![acl("A"), shares(), acl("B"), acl("A"), shares(), acl("A")]);
        let shown: Vec<String> = merged
            .iter()
            .map(|ask| match ask {
                Ask::Acl { mailbox, replies } => format!("{} {}", mailbox.name(), replies.len()),
                Ask::Shares { .. } => "shares".to_owned(),
            })
            .collect();
        assert_eq!(shown, ["A 3", "shares", "B 1", "shares"]);
    }
}
