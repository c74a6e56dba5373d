//! Presence: the registry holds exactly the keys that somebody on this node watches.
//!
//! Reference-counted with linger (I-3): the first lease of a key registers it, and only a while
//! after the last is dropped it is unregistered, for reconnects are common. A key is *settled* once
//! its registration has been acknowledged and the settle window has passed: from then on every
//! publisher finds it (I-4, I-5).

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::time::Instant;
use tracing::{debug, info, warn};

use super::handle::SessionHandle;
use super::outbox::{RegistrationStatus, ResyncReason};
use crate::cluster::registry::{Discontinuity, Registrar, RegistryError};
use crate::lock::{Mutex, rank};
use crate::mail::key::Key;
use crate::tasks::vital;

/// After this long a failed registration is tried again.
const RETRY: Duration = Duration::from_secs(1);

/// A break in continuity, to be told to the sessions of these keys (I-6).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Break {
    pub keys: Vec<Key>,
    pub reason: ResyncReason,
}

/// The keys that this node has registered, and who holds them.
pub struct Presence {
    registrar: Arc<dyn Registrar>,
    settle: Duration,
    linger: Duration,
    /// A registration that is not acknowledged for so long counts as unavailable; it is waited for
    /// all the same.
    acknowledge_timeout: Duration,
    state: Mutex<State, { rank::PRESENCE }>,
    /// Wakes the sweeper when a key begins to linger.
    lingering: Notify,
    breaks: mpsc::UnboundedSender<Break>,
}

#[derive(Default)]
struct State {
    keys: HashMap<Key, Entry>,
    /// Keys without holders, by the time when they are unregistered.
    lingering: VecDeque<(Instant, Key, u64)>,
    /// Counts releases and breaks, to tell what began before one from what began after it.
    generation: u64,
}

struct Entry {
    holders: usize,
    /// The release after which it lingers.
    released: u64,
    /// `None` once settled.
    waiters: Option<Vec<oneshot::Sender<()>>>,
    /// The break, or the registration, after which it has to settle: a settle window that began
    /// before does not count.
    epoch: u64,
    /// `None` until the registry has answered, or has not for too long.
    status: Option<RegistrationStatus>,
    /// Sessions that are told of its status.
    listeners: Vec<Weak<SessionHandle>>,
}

impl Entry {
    /// Tells the listeners, under the state's lock, so that they hear of changes in their order.
    fn set_status(&mut self, key: &Key, status: RegistrationStatus) {
        if self.status.replace(status) == Some(status) {
            return;
        }
        self.listeners.retain(|listener| {
            listener.upgrade().is_some_and(|session| {
                session.push_registration(key.clone(), status);
                true
            })
        });
    }
}

/// One holder's share of a key. Dropping it gives the share back.
#[derive(Debug)]
pub struct Lease {
    key: Key,
    presence: Weak<Presence>,
}

impl std::fmt::Debug for Presence {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Presence").finish_non_exhaustive()
    }
}

#[cfg(test)]
impl Lease {
    /// A lease of no presence: dropping it does nothing.
    pub(super) fn of_nobody(key: Key) -> Self {
        Self { key, presence: Weak::new() }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if let Some(presence) = self.presence.upgrade() {
            presence.release(&self.key);
        }
    }
}

impl Presence {
    /// Starts its tasks, which end when the last `Arc` is dropped. `breaks` hears of every break in
    /// continuity.
    pub fn start(
        registrar: Arc<dyn Registrar>,
        settle: Duration,
        linger: Duration,
        acknowledge_timeout: Duration,
    ) -> (Arc<Self>, mpsc::UnboundedReceiver<Break>) {
        let (breaks, receiver) = mpsc::unbounded_channel();
        let discontinuities = registrar.discontinuities();
        let presence = Arc::new(Self {
            registrar,
            settle,
            linger,
            acknowledge_timeout,
            state: Mutex::default(),
            lingering: Notify::new(),
            breaks,
        });
        tokio::spawn(vital("lingering keys", sweep(Arc::downgrade(&presence))));
        tokio::spawn(vital("breaks of the registry", follow_registry(Arc::downgrade(&presence), discontinuities)));
        (presence, receiver)
    }

    /// Takes a share in a key, and registers it if nobody else has one.
    pub fn acquire(self: &Arc<Self>, key: &Key) -> Lease {
        let mut state = self.state.lock();
        match state.keys.get_mut(key) {
            Some(entry) => entry.holders += 1,
            None => {
                state.generation += 1;
                let epoch = state.generation;
                let (waiters, listeners) = (Some(Vec::new()), Vec::new());
                state.keys.insert(key.clone(), Entry { holders: 1, released: 0, waiters, epoch, status: None, listeners });
                tokio::spawn(register(Arc::downgrade(self), key.clone(), begin(self.registrar.clone(), key.clone())));
            }
        }
        Lease { key: key.clone(), presence: Arc::downgrade(self) }
    }

    /// `None` if the key is settled, else what resolves once it is.
    pub fn settling(&self, lease: &Lease) -> Option<oneshot::Receiver<()>> {
        let mut state = self.state.lock();
        let waiters = state.keys.get_mut(&lease.key)?.waiters.as_mut()?;
        let (sender, receiver) = oneshot::channel();
        waiters.retain(|waiter| !waiter.is_closed());
        waiters.push(sender);
        Some(receiver)
    }

    /// Tells the session the status of the key's registration, as soon as it is known, and of each
    /// change.
    pub(super) fn listen(&self, lease: &Lease, session: &Arc<SessionHandle>) {
        let mut state = self.state.lock();
        let Some(entry) = state.keys.get_mut(&lease.key) else { return };
        entry.listeners.push(Arc::downgrade(session));
        if let Some(status) = entry.status {
            session.push_registration(lease.key.clone(), status);
        }
    }

    pub(super) fn unlisten(&self, lease: &Lease, session: &Arc<SessionHandle>) {
        let mut state = self.state.lock();
        let Some(entry) = state.keys.get_mut(&lease.key) else { return };
        entry.listeners.retain(|listener| !std::ptr::eq(listener.as_ptr(), Arc::as_ptr(session)));
        if entry.listeners.is_empty() {
            entry.listeners = Vec::new();
        }
    }

    /// Keys registered or being registered.
    pub fn len(&self) -> usize {
        self.state.lock().keys.len()
    }

    #[allow(dead_code, reason = "it goes with `len`")]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn release(&self, key: &Key) {
        let mut state = self.state.lock();
        state.generation += 1;
        let generation = state.generation;
        let Some(entry) = state.keys.get_mut(key) else { return };
        entry.holders -= 1;
        if entry.holders == 0 {
            entry.released = generation;
            state.lingering.push_back((Instant::now() + self.linger, key.clone(), generation));
            self.lingering.notify_one();
        }
    }

    /// Unregisters the keys that have lingered long enough; returns when the next one is due.
    fn let_go(&self, now: Instant) -> Option<Instant> {
        let mut state = self.state.lock();
        while let Some((due, ..)) = state.lingering.front() {
            if *due > now {
                return Some(*due);
            }
            let Some((_, key, generation)) = state.lingering.pop_front() else { break };
            if state.keys.get(&key).is_some_and(|entry| entry.holders == 0 && entry.released == generation) {
                state.keys.remove(&key);
                // Under the lock, so that a registration that follows comes second.
                self.registrar.unregister(key);
            }
        }
        None
    }

    fn settled(&self, key: &Key, epoch: u64) {
        let mut state = self.state.lock();
        let Some(entry) = state.keys.get_mut(key).filter(|entry| entry.epoch == epoch) else { return };
        entry.set_status(key, RegistrationStatus::Settled);
        for waiter in entry.waiters.take().into_iter().flatten() {
            // A waiter that has given up is no fault.
            let _ = waiter.send(());
        }
    }

    /// These keys are not settled any more; returns those that are registered here, with their new
    /// epochs.
    fn unsettle(&self, keys: &[Key], status: RegistrationStatus) -> Vec<(Key, u64)> {
        let mut state = self.state.lock();
        let mut unsettled = Vec::new();
        state.generation += 1;
        let epoch = state.generation;
        for key in keys {
            if let Some(entry) = state.keys.get_mut(key) {
                entry.epoch = epoch;
                entry.waiters.get_or_insert_default();
                entry.set_status(key, status);
                unsettled.push((key.clone(), epoch));
            }
        }
        unsettled
    }

    /// The keys that are settled. The others are told of when they are.
    fn all_settled(&self) -> Vec<Key> {
        let state = self.state.lock();
        state.keys.iter().filter(|(_, entry)| entry.waiters.is_none()).map(|(key, _)| key.clone()).collect()
    }

    /// The registry has acknowledged: the epoch of the key, if somebody holds it or it lingers.
    fn acknowledged(&self, key: &Key) -> Option<u64> {
        let mut state = self.state.lock();
        let entry = state.keys.get_mut(key)?;
        // It may have been restored and have settled meanwhile.
        if entry.status != Some(RegistrationStatus::Settled) {
            entry.set_status(key, RegistrationStatus::Registered);
        }
        Some(entry.epoch)
    }

    /// The registry has not acknowledged so far.
    fn unavailable(&self, key: &Key) {
        let mut state = self.state.lock();
        if let Some(entry) = state.keys.get_mut(key).filter(|entry| entry.status.is_none()) {
            entry.set_status(key, RegistrationStatus::Unavailable);
        }
    }
}

type RegisterCall = BoxFuture<'static, Result<(), RegistryError>>;

/// Makes the call, which takes effect at once; the future that is returned only waits. Under the
/// lock, so that calls on one key take effect in their order.
fn begin(registrar: Arc<dyn Registrar>, key: Key) -> RegisterCall {
    let mut call = async move { registrar.register(key).await }.boxed();
    match call.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(outcome) => std::future::ready(outcome).boxed(),
        Poll::Pending => call,
    }
}

/// Sees a registration through: waits until it is acknowledged, then for the settle window, and
/// marks the key settled.
async fn register(presence: Weak<Presence>, key: Key, mut registering: RegisterCall) {
    let Some(acknowledge_timeout) = presence.upgrade().map(|presence| presence.acknowledge_timeout) else { return };
    while let Err(error) = wait_for_acknowledgement(&presence, &key, &mut registering, acknowledge_timeout).await {
        // The registry says why, once for all of them.
        debug!(%key, %error, "a registration failed and will be tried again");
        if let Some(presence) = presence.upgrade() {
            presence.unavailable(&key);
        }
        tokio::time::sleep(RETRY).await;
        let Some(presence) = presence.upgrade() else { return };
        let state = presence.state.lock();
        if !state.keys.contains_key(&key) {
            return;
        }
        registering = begin(presence.registrar.clone(), key.clone());
    }
    // Breaks before the acknowledgement do not matter any more; one from now on does.
    let Some((epoch, settle)) = presence.upgrade().and_then(|p| Some((p.acknowledged(&key)?, p.settle))) else { return };
    if !settle.is_zero() {
        tokio::time::sleep(settle).await;
    }
    if let Some(presence) = presence.upgrade() {
        presence.settled(&key, epoch);
    }
}

/// Waits for the registry; says that the key is unavailable where that takes long.
async fn wait_for_acknowledgement(
    presence: &Weak<Presence>,
    key: &Key,
    registering: &mut RegisterCall,
    acknowledge_timeout: Duration,
) -> Result<(), RegistryError> {
    if let Ok(outcome) = tokio::time::timeout(acknowledge_timeout, registering.as_mut()).await {
        return outcome;
    }
    if let Some(presence) = presence.upgrade() {
        presence.unavailable(key);
    }
    registering.await
}

async fn sweep(presence: Weak<Presence>) {
    loop {
        let Some(strong) = presence.upgrade() else { return };
        match strong.let_go(Instant::now()) {
            Some(due) => {
                drop(strong);
                tokio::time::sleep_until(due).await;
            }
            // A notification that came meanwhile is kept, so none is missed. The timeout ends the
            // task with its presence.
            None => {
                let _ = tokio::time::timeout(Duration::from_secs(1), strong.lingering.notified()).await;
            }
        }
    }
}

async fn follow_registry(presence: Weak<Presence>, mut discontinuities: mpsc::UnboundedReceiver<Discontinuity>) {
    while let Some(discontinuity) = discontinuities.recv().await {
        let Some(strong) = presence.upgrade() else { return };
        match discontinuity {
            Discontinuity::Lost { keys } => {
                let keys: Vec<Key> =
                    strong.unsettle(&keys, RegistrationStatus::Unavailable).into_iter().map(|(key, _)| key).collect();
                warn!(keys = keys.len(), "registrations are lost while the registry is away: clients read their state anew");
                let _ = strong.breaks.send(Break { keys, reason: ResyncReason::RegistryLost });
            }
            Discontinuity::NodeRestored => {
                let keys = strong.all_settled();
                info!(keys = keys.len(), "this node is known to the others again: clients read their state anew");
                let (settle, weak) = (strong.settle, presence.clone());
                tokio::spawn(async move {
                    // Until every publisher sees the node.
                    tokio::time::sleep(settle).await;
                    if let Some(strong) = weak.upgrade() {
                        let _ = strong.breaks.send(Break { keys, reason: ResyncReason::RegistryRestored });
                    }
                });
            }
            Discontinuity::Restored { keys } => {
                let unsettled = strong.unsettle(&keys, RegistrationStatus::Registered);
                info!(keys = unsettled.len(), "registrations stand again: clients read their state anew once they are settled");
                let (settle, weak) = (strong.settle, presence.clone());
                tokio::spawn(async move {
                    tokio::time::sleep(settle).await;
                    let Some(strong) = weak.upgrade() else { return };
                    for (key, epoch) in &unsettled {
                        strong.settled(key, *epoch);
                    }
                    let keys = unsettled.into_iter().map(|(key, _)| key).collect();
                    let _ = strong.breaks.send(Break { keys, reason: ResyncReason::RegistryRestored });
                });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use async_trait::async_trait;
    use tokio::sync::watch;

    use super::*;
    use crate::cluster::registry::{NodeRecord, RegistryHealth};
    use crate::mail::user::UserName;

    const ACKNOWLEDGE_TIMEOUT: Duration = Duration::from_secs(10);

    /// Records what it is asked; acknowledges at once.
    struct Recorder {
        log: Mutex<Vec<String>>,
        discontinuities: Mutex<Option<mpsc::UnboundedReceiver<Discontinuity>>>,
    }

    #[async_trait]
    impl Registrar for Recorder {
        async fn announce(&self, _: NodeRecord) -> Result<(), RegistryError> {
            Ok(())
        }

        async fn register(&self, key: Key) -> Result<(), RegistryError> {
            self.log.lock().push(format!("+{key}"));
            Ok(())
        }

        fn unregister(&self, key: Key) {
            self.log.lock().push(format!("-{key}"));
        }

        fn discontinuities(&self) -> mpsc::UnboundedReceiver<Discontinuity> {
            self.discontinuities.lock().take().unwrap()
        }

        fn health(&self) -> watch::Receiver<RegistryHealth> {
            watch::channel(RegistryHealth::Connected).1
        }

        async fn close(&self) {}
    }

    struct Play {
        recorder: Arc<Recorder>,
        presence: Arc<Presence>,
        breaks: mpsc::UnboundedReceiver<Break>,
        discontinuity: mpsc::UnboundedSender<Discontinuity>,
    }

    fn play() -> Play {
        let (discontinuity, receiver) = mpsc::unbounded_channel();
        let recorder = Arc::new(Recorder { log: Mutex::default(), discontinuities: Mutex::new(Some(receiver)) });
        let (presence, breaks) =
            Presence::start(recorder.clone(), Duration::from_secs(1), Duration::from_secs(30), ACKNOWLEDGE_TIMEOUT);
        Play { recorder, presence, breaks, discontinuity }
    }

    impl Play {
        fn log(&self) -> Vec<String> {
            self.recorder.log.lock().clone()
        }
    }

    fn bob() -> Key {
        Key::Account(UserName::new("bob").unwrap())
    }

    async fn pass(seconds: u64) {
        // Lets tasks run before and after the clock jumps (the clock is paused).
        tokio::time::sleep(Duration::from_secs(seconds)).await;
        tokio::time::sleep(Duration::from_millis(1)).await;
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_registers_and_the_last_lets_go_after_a_while() {
        let play = play();
        let (one, two) = (play.presence.acquire(&bob()), play.presence.acquire(&bob()));
        pass(2).await;
        assert_eq!(play.log(), ["+account bob"], "two sessions, one registration");
        drop(one);
        pass(60).await;
        drop(two);
        pass(20).await;
        let again = play.presence.acquire(&bob());
        assert!(play.presence.settling(&again).is_none(), "taken up again while it lingered: still settled");
        pass(60).await;
        assert_eq!(play.log(), ["+account bob"]);
        drop(again);
        pass(31).await;
        assert_eq!(play.log(), ["+account bob", "-account bob"]);
        assert!(play.presence.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_key_settles_after_the_acknowledgement() {
        let play = play();
        let lease = play.presence.acquire(&bob());
        let mut settling = play.presence.settling(&lease).unwrap();
        pass(0).await;
        assert!(settling.try_recv().is_err(), "registered, not settled");
        pass(1).await;
        assert_eq!(settling.try_recv(), Ok(()));
    }

    #[tokio::test(start_paused = true)]
    async fn an_earlier_life_of_a_key_does_not_settle_a_later_one() {
        let (_discontinuity, receiver) = mpsc::unbounded_channel();
        let recorder = Arc::new(Recorder { log: Mutex::default(), discontinuities: Mutex::new(Some(receiver)) });
        let (presence, _breaks) =
            Presence::start(recorder, Duration::from_secs(4), Duration::from_millis(1), ACKNOWLEDGE_TIMEOUT);
        drop(presence.acquire(&bob()));
        pass(3).await;
        assert!(presence.is_empty(), "let go before it had settled");
        let lease = presence.acquire(&bob());
        let mut settling = presence.settling(&lease).unwrap();
        pass(2).await;
        assert!(settling.try_recv().is_err(), "the first life's settle window ends here, not this one's");
        pass(2).await;
        assert_eq!(settling.try_recv(), Ok(()));
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_lost_is_told_again_once_it_is_settled() {
        let mut play = play();
        let lease = play.presence.acquire(&bob());
        pass(2).await;
        let stranger = Key::Account(UserName::new("eve").unwrap());
        play.discontinuity.send(Discontinuity::Restored { keys: vec![bob(), stranger] }).unwrap();
        pass(0).await;
        assert!(play.presence.settling(&lease).is_some(), "not settled any more");
        assert!(play.breaks.try_recv().is_err(), "not before it is settled");
        pass(1).await;
        assert_eq!(play.breaks.try_recv().unwrap(), Break { keys: vec![bob()], reason: ResyncReason::RegistryRestored });
        assert!(play.presence.settling(&lease).is_none());
    }
}
