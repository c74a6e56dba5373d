//! A session slot: one ZooKeeper session at a time, and the registrations that live in it.
//!
//! The slot's task is the only one that acts on its part of the [`Book`]. Requests run as futures that are
//! kept until they are answered, never dropped while their session lives.

use std::sync::{Arc, OnceLock};

use crate::lock::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio::time::{Interval, MissedTickBehavior, interval, sleep, timeout};
use tokio_util::sync::CancellationToken;
use zookeeper_client::{Client, Error, SessionState};

use super::access::Access;
use super::announce::{Announcement, announce, look};
use super::audit::Audit;
use super::batch::{BATCH, Session};
use super::book::{Book, Found, Outcome};
use super::errors::registry_error;
use super::health::{Backoff, HealthBoard, Trouble, jittered};
use super::standing::Standing;
use super::tree;
use crate::cluster::registry::{Discontinuity, RegistryError, RegistryHealth};
use crate::mail::key::Key;

/// Who waits for a registration.
pub type Waiter = oneshot::Sender<Result<(), RegistryError>>;

/// How long operations gather before they are sent.
const GATHER: Duration = Duration::from_millis(3);

/// Batches under way.
const BATCHES: usize = 4;

/// After an answer that was lost: not at once again.
const PAUSE: Duration = Duration::from_millis(100);
/// How often what was denied is tried again.
const RETRY_DENIED: Duration = Duration::from_secs(2);

/// How many restored keys are told together.
const TOLD_TOGETHER: usize = 2_000;

/// How long a close may take to delete what the session holds, and then to end the session.
const CLOSE_DELETES: Duration = Duration::from_secs(5);
const CLOSE_SESSION: Duration = Duration::from_secs(2);

/// What a slot shares with its registrar.
pub struct Shared {
    pub access: Arc<Access>,
    pub book: Mutex<Book<Waiter>>,
    pub board: Arc<HealthBoard>,
    /// The name of this node's znodes, once it has been announced: before that nothing is registered.
    pub child: Arc<OnceLock<String>>,
    pub discontinuities: mpsc::UnboundedSender<Discontinuity>,
    /// How long a round of looking at all registrations takes.
    pub audit: Duration,
    pub closing: CancellationToken,
    /// The registry has been dropped: everything ends at once.
    pub gone: CancellationToken,
}

impl Shared {
    pub fn book(&self) -> MutexGuard<'_, Book<Waiter>> {
        self.book.lock()
    }
}

pub struct Slot {
    shared: Arc<Shared>,
    number: usize,
    name: String,
    /// Told when the book has something new for this slot.
    wake: Arc<Notify>,
    /// Whether its registrations surely stand: read by the registrar.
    proven: watch::Sender<bool>,
    standing: Standing,
    announcement: Announcement,
    restored: Vec<Key>,
    not_before: Option<Instant>,
    /// Why ZooKeeper cannot be reached, said once.
    trouble: Trouble,
}

enum Done {
    Batch { sent: Instant, outcomes: Vec<(Key, Outcome)> },
    Beat { sent: Instant, result: Result<(), Error> },
    Announced(Result<(), RegistryError>),
    Look { sent: Instant, found: Vec<(Key, Found)> },
    NodeLook(Found),
}

type UnderWay = FuturesUnordered<BoxFuture<'static, Done>>;

impl Slot {
    pub fn new(
        shared: Arc<Shared>,
        number: usize,
        wake: Arc<Notify>,
        proven: watch::Sender<bool>,
        announcement: Announcement,
    ) -> Self {
        let name = format!("{} slot {number}", shared.access.hosts());
        let standing = Standing::new(shared.access.timeout());
        let (restored, not_before, trouble) = (Vec::new(), None, Trouble::default());
        Self { shared, number, name, wake, proven, standing, announcement, restored, not_before, trouble }
    }

    /// Runs until the registrar closes or is gone.
    pub async fn run(mut self) {
        let mut backoff = Backoff::new();
        while let Some((client, begun)) = self.connect(&mut backoff).await {
            if self.serve(client, begun).await {
                break;
            }
            backoff.handle_end(begun.elapsed());
        }
        self.proven.send_replace(false);
        for waiter in self.shared.book().take_waiters(self.number) {
            let _ = waiter.send(Err(RegistryError::Closed));
        }
        self.announcement.fail(RegistryError::Closed);
        self.shared.board.set(&self.name, None);
    }

    /// A session within a prepared tree, and when it was begun; `None` once closing.
    async fn connect(&mut self, backoff: &mut Backoff) -> Option<(Client, Instant)> {
        let shared = self.shared.clone();
        let access = &shared.access;
        loop {
            if let Some(pause) = backoff.pause() {
                self.meanwhile(sleep(pause)).await?;
            }
            let begun = Instant::now();
            let attempt = async {
                let client = access.connect().await?;
                access.prepare(&client).await.map(|()| client)
            };
            // A stall would otherwise hold the attempt for as long as the session lives.
            let attempt = timeout(access.timeout() * 2, attempt);
            let error = match self.meanwhile(attempt).await?.unwrap_or(Err(Error::Timeout)) {
                Ok(client) => {
                    self.trouble.end();
                    return Some((client, begun));
                }
                Err(error) => error,
            };
            let reason = error.to_string();
            if self.trouble.is_news(&reason) {
                tracing::warn!(slot = self.name, reason, "ZooKeeper cannot be reached, or does not let this node in: trying on");
            }
            self.standing.set_reason(reason);
            if let refusal @ RegistryError::Refused(_) = registry_error(&error) {
                for waiter in shared.book().take_waiters(self.number) {
                    let _ = waiter.send(Err(refusal.clone()));
                }
                self.announcement.fail(refusal);
            }
            backoff.handle_failure();
            self.report();
        }
    }

    /// Runs `future`, without a session; `None` once closing.
    async fn meanwhile<T>(&mut self, future: impl Future<Output = T>) -> Option<T> {
        let shared = self.shared.clone();
        let mut tick = ticks(shared.access.timeout());
        tokio::pin!(future);
        loop {
            tokio::select! {
                done = &mut future => return Some(done),
                _ = tick.tick() => self.report(),
                () = self.announcement.asked() => {}
                () = shared.closing.cancelled() => return None,
                () = shared.gone.cancelled() => return None,
            }
        }
    }

    /// Serves one session until it ends (`false`) or everything does (`true`).
    async fn serve(&mut self, client: Client, begun: Instant) -> bool {
        let shared = self.shared.clone();
        let session_timeout = client.session_timeout();
        self.standing.handle_session(session_timeout, begun);
        self.announcement.handle_session(client.session_id().0);
        let mut states = client.state_watcher();
        // What has happened since it connected, the watcher takes as known.
        match client.state() {
            SessionState::SyncConnected => {}
            state if state.is_terminated() => {
                self.handle_end(&format!("the ZooKeeper session has ended: {state}"));
                return false;
            }
            state => self.standing.handle_connection(false, format!("the connection to ZooKeeper is {state}")),
        }
        let session = Arc::new(Session::new(client, shared.access.clone(), shared.child.clone()));
        let mut under_way = UnderWay::new();
        let (mut batches, mut beating) = (0, false);
        let mut audit = Audit::new(shared.audit, Instant::now());
        let mut node_audit = interval_of(shared.audit / 4);
        let mut retry = interval_of(RETRY_DENIED);
        let mut beat = interval_of(session_timeout / 5);
        let mut tick = ticks(session_timeout);
        let mut flush_at: Option<Instant> = None;
        let mut close_by: Option<Instant> = None;
        tracing::info!(slot = self.name, session = %session.client.session_id(), "registered with ZooKeeper");
        loop {
            let now = Instant::now();
            if let Some(wish) = self.announcement.next(now) {
                let session = session.clone();
                under_way.push(Box::pin(async move { Done::Announced(announce(&session, wish).await) }));
            }
            let waiting = shared.book().waiting(self.number);
            if waiting > 0 {
                let due = *flush_at.get_or_insert(now + GATHER);
                let held_back = self.not_before.is_some_and(|moment| now < moment);
                if !held_back && batches < BATCHES && (waiting >= BATCH || now >= due) {
                    let ops = shared.book().take(self.number, BATCH);
                    if !ops.is_empty() {
                        batches += 1;
                        let session = session.clone();
                        under_way.push(Box::pin(async move { Done::Batch { sent: now, outcomes: session.apply(ops).await } }));
                    }
                    continue;
                }
            } else {
                flush_at = None;
                if close_by.is_some() && batches == 0 && shared.book().is_empty(self.number) {
                    break;
                }
            }
            // While all batches are under way their ends wake us, not the clock.
            let flush = flush_at.filter(|_| batches < BATCHES).map(|due| due.max(self.not_before.unwrap_or(due)));
            tokio::select! {
                Some(done) = under_way.next() => match done {
                    Done::Batch { sent, outcomes } => {
                        batches -= 1;
                        self.handle_batch(sent, outcomes);
                    }
                    Done::Beat { sent, result } => {
                        beating = false;
                        if result.is_ok() {
                            self.handle_proof(sent);
                        }
                    }
                    Done::Announced(result) => {
                        self.announcement.handle_done(result, Instant::now());
                        self.report();
                    }
                    Done::Look { sent, found } => self.handle_look(sent, found),
                    Done::NodeLook(Found::Missing) if self.announcement.standing().is_some() => self.announcement.handle_missing(),
                    Done::NodeLook(_) => {}
                },
                () = self.wake.notified() => {}
                () = self.announcement.asked() => {}
                () = sleep_until(flush) => {}
                () = sleep_until(Some(audit.due())), if close_by.is_none() => {
                    let sent = Instant::now();
                    let mut book = shared.book();
                    let keys = audit.take(sent, || book.standing(self.number));
                    let keys = book.take_standing(keys);
                    drop(book);
                    if !keys.is_empty() {
                        let session = session.clone();
                        under_way.push(Box::pin(async move { Done::Look { sent, found: session.look(keys).await } }));
                    }
                }
                _ = node_audit.tick() => if let Some(record) = self.announcement.standing() {
                    let session = session.clone();
                    under_way.push(Box::pin(async move { Done::NodeLook(look(&session.client, &record).await) }));
                },
                _ = retry.tick(), if self.standing.is_denied() => shared.book().retry_denied(self.number),
                _ = beat.tick(), if !beating => {
                    beating = true;
                    let session = session.clone();
                    under_way.push(Box::pin(async move {
                        let sent = Instant::now();
                        // A sync goes through the leader, which is who ends sessions: a follower that has
                        // lost its leader would still answer a read.
                        Done::Beat { sent, result: session.client.sync("/").await }
                    }));
                }
                _ = tick.tick() => {
                    self.tell_restored();
                    self.report();
                    if self.standing.is_hopeless(Instant::now()) {
                        self.handle_end("no answer for two session timeouts");
                        return false;
                    }
                    if close_by.is_some_and(|by| Instant::now() >= by) {
                        break;
                    }
                }
                state = states.changed() => match state {
                    SessionState::SyncConnected => {
                        self.standing.handle_connection(true, "");
                        beat.reset_immediately();
                        self.report();
                    }
                    state if state.is_terminated() => {
                        self.handle_end(&format!("the ZooKeeper session has ended: {state}"));
                        return close_by.is_some();
                    }
                    state => {
                        self.standing.handle_connection(false, format!("the connection to ZooKeeper is {state}"));
                        self.report();
                    }
                },
                () = shared.closing.cancelled(), if close_by.is_none() => {
                    close_by = Some(Instant::now() + CLOSE_DELETES);
                    for waiter in shared.book().unregister_all(self.number) {
                        let _ = waiter.send(Err(RegistryError::Closed));
                    }
                    self.announcement.withdraw();
                    self.not_before = None;
                }
                () = shared.gone.cancelled() => return true,
            }
        }
        // The session ends with its last user.
        drop((under_way, session));
        let ended = async { while !states.changed().await.is_terminated() {} };
        if timeout(CLOSE_SESSION, ended).await.is_err() {
            tracing::warn!(slot = self.name, "ZooKeeper has not confirmed the end of the session; it will time out");
        }
        true
    }

    fn handle_batch(&mut self, sent: Instant, outcomes: Vec<(Key, Outcome)>) {
        let mut pause = None;
        let (mut answered, mut denied) = (false, None);
        {
            let mut book = self.shared.book();
            for (key, outcome) in outcomes {
                let result = match &outcome {
                    Outcome::Denied(reason) => {
                        denied = Some(reason.clone());
                        Err(RegistryError::Denied(reason.clone()))
                    }
                    Outcome::Unknown => {
                        pause = Some(PAUSE);
                        Ok(())
                    }
                    Outcome::Present | Outcome::Absent => {
                        answered = true;
                        Ok(())
                    }
                };
                let settled = book.handle_done(&key, &outcome);
                for waiter in settled.waiters {
                    let _ = waiter.send(result.clone());
                }
                if settled.restored {
                    self.restored.push(key);
                }
            }
        }
        self.handle_denial(denied);
        self.not_before = pause.map(|pause| Instant::now() + jittered(pause));
        if answered {
            self.handle_proof(sent);
        } else {
            self.report();
        }
        if self.restored.len() >= TOLD_TOGETHER {
            self.tell_restored();
        }
    }

    /// Something was denied just now, or nothing was.
    fn handle_denial(&mut self, denied: Option<String>) {
        match (denied, self.standing.is_denied()) {
            (Some(reason), false) => {
                tracing::warn!(
                    slot = self.name,
                    reason,
                    "ZooKeeper does not let this node register: no new subscription stands until it does"
                );
                self.standing.set_denied(Some(reason));
            }
            (None, true) if self.shared.book().denied(self.number) == 0 => {
                tracing::info!(slot = self.name, "ZooKeeper lets this node register again");
                self.standing.set_denied(None);
            }
            _ => {}
        }
    }

    /// Takes in what an audit has found.
    fn handle_look(&mut self, sent: Instant, found: Vec<(Key, Found)>) {
        let missing = found.iter().filter(|(_, found)| *found == Found::Missing).count();
        let proven = self.standing.is_proven(sent);
        {
            let mut book = self.shared.book();
            for (key, found) in found {
                let settled = book.handle_found(&key, found, proven);
                for waiter in settled.waiters {
                    let _ = waiter.send(Ok(()));
                }
                if settled.restored {
                    self.restored.push(key);
                }
            }
        }
        if missing > 0 {
            let example = self.shared.book().broken_keys(self.number).pop();
            let example = example.map(|key| tree::container(&key)).unwrap_or_default();
            tracing::warn!(
                slot = self.name,
                missing,
                example,
                "registrations were deleted in ZooKeeper by somebody else: they are made again, and their clients read anew"
            );
            self.standing.handle_missing(Instant::now());
        }
        self.report();
    }

    fn handle_proof(&mut self, sent: Instant) {
        self.standing.handle_proof(sent);
        if self.standing.is_proven(Instant::now()) {
            let (waiters, restored) = self.shared.book().handle_proof(self.number);
            for waiter in waiters {
                let _ = waiter.send(Ok(()));
            }
            self.restored.extend(restored);
        }
        self.report();
    }

    /// The session is gone, and with it all that was under way.
    fn handle_end(&mut self, reason: &str) {
        tracing::warn!(slot = self.name, reason, "a ZooKeeper session has ended");
        let held = {
            let mut book = self.shared.book();
            book.handle_session_end(self.number);
            book.broken(self.number) > 0
        };
        self.standing.handle_end(reason, held, Instant::now());
        self.standing.set_denied(None);
        self.not_before = None;
        self.report();
    }

    /// Tells everybody how this slot stands.
    fn report(&mut self) {
        let now = Instant::now();
        let proven = self.standing.is_proven(now);
        if proven && self.shared.book().broken(self.number) == 0 {
            self.tell_restored();
            self.standing.handle_restored();
            // After the keys that are restored themselves: those are not told of it twice.
            if self.announcement.take_restored() {
                self.tell(Discontinuity::NodeRestored);
            }
        }
        if self.standing.poll_lost(now) {
            let mut book = self.shared.book();
            // In a session that lives, what is gone is known; in a silent one anything may be.
            let keys = if proven { book.broken_keys(self.number) } else { book.handle_lost(self.number) };
            drop(book);
            if !keys.is_empty() {
                self.tell(Discontinuity::Lost { keys });
            }
        }
        self.proven.send_if_modified(|shown| std::mem::replace(shown, proven) != proven);
        let health = match (self.standing.health(now), self.announcement.trouble()) {
            (RegistryHealth::Connected, Some(reason)) => {
                RegistryHealth::Disconnected { reason: format!("this node cannot be made known: {reason}") }
            }
            (health, _) => health,
        };
        self.shared.board.set(&self.name, Some(health));
    }

    fn tell_restored(&mut self) {
        if !self.restored.is_empty() {
            let keys = std::mem::take(&mut self.restored);
            self.tell(Discontinuity::Restored { keys });
        }
    }

    fn tell(&self, discontinuity: Discontinuity) {
        // Nobody listens in a process that only publishes.
        let _ = self.shared.discontinuities.send(discontinuity);
    }
}

/// Often enough to notice a silence in time.
fn ticks(session_timeout: Duration) -> Interval {
    interval_of((session_timeout / 20).clamp(Duration::from_millis(20), Duration::from_millis(500)))
}

fn interval_of(period: Duration) -> Interval {
    let mut interval = interval(period.max(Duration::from_millis(1)));
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    interval
}

async fn sleep_until(moment: Option<Instant>) {
    match moment {
        Some(moment) => tokio::time::sleep_until(moment.into()).await,
        None => std::future::pending().await,
    }
}
