//! Subscribing: registered and settled first, then in the hub, then told (I-4, I-5).

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::access::Access;
use super::hub::{Hub, Wanted};
use super::outbox::SubscribeFailure;
use super::presence::Presence;
use super::session::{Held, SessionHandle};
use super::sessions::Sessions;
use crate::mail::codec::EnvelopeFields;
use crate::mail::event::EventTypes;
use crate::mail::key::Key;
use crate::mail::rights::Rights;

/// What subscribing needs; one a node.
pub struct Subscriptions {
    pub hub: Arc<Hub>,
    pub presence: Arc<Presence>,
    pub sessions: Arc<Sessions>,
    pub access: Arc<dyn Access>,
    /// How long a registration may take before the client is told to try again.
    pub timeout: Duration,
    /// Milliseconds since 1970, UTC.
    pub clock: fn() -> u64,
    /// Tells one holding of a key from a later one of the same session.
    pub serial: AtomicU64,
}

/// What a watching session hears.
const EVERYTHING: Wanted = Wanted { types: EventTypes::ALL, fields: EnvelopeFields::NONE };

/// No such mailbox, or not for this user: the same answer (I-9).
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("there is no such mailbox, or you may not see it")]
pub struct NotFound;

impl Subscriptions {
    /// Begins a subscription; its outcome comes out of the session's outbox with `tag`, whatever it is. Subscribing
    /// again changes what is wanted, and has an outcome of its own.
    pub fn subscribe(self: &Arc<Self>, session: &Arc<SessionHandle>, tag: u32, key: Key, wanted: Wanted) -> Result<(), NotFound> {
        let Some(rights) = self.access.rights(&session.user, &key) else {
            // A right that is gone takes the subscription with it.
            self.unsubscribe(session, &key);
            return Err(NotFound);
        };
        let mut guard = session.held();
        // An ended session takes nothing more.
        let Some(held) = guard.as_mut() else { return Ok(()) };
        let at = held.iter().position(|h| *h.key() == key).unwrap_or_else(|| {
            let serial = self.serial.fetch_add(1, Ordering::Relaxed);
            let lease = self.presence.acquire(&key);
            held.push(Held { lease, since: 0, serial, wanted, rights, waiting: Vec::new(), watched: false });
            held.len() - 1
        });
        let holding = &mut held[at];
        (holding.wanted, holding.rights) = (wanted, rights);
        holding.waiting.push(tag);
        match self.presence.settling(&holding.lease) {
            None => self.activate(session, holding),
            // Somebody waits for this holding already, and speaks for all that wait.
            Some(_) if holding.waiting.len() > 1 => {}
            Some(settled) => {
                let (this, session, serial) = (self.clone(), session.clone(), holding.serial);
                tokio::spawn(async move {
                    let settled = tokio::time::timeout(this.timeout, settled).await;
                    let mut guard = session.held();
                    // Unsubscribed, or ended, while it settled: that has been answered.
                    let Some(held) = guard.as_mut() else { return };
                    let Some(at) = held.iter().position(|h| h.serial == serial) else { return };
                    match settled {
                        Ok(Ok(())) => this.activate(&session, &mut held[at]),
                        Ok(Err(_)) | Err(_) => give_up(&session, held, at),
                    }
                });
            }
        }
        Ok(())
    }

    /// Watches a key: its events wait in the outbox from now on, before its registration is acknowledged (I-4), and how
    /// that stands is told whenever it changes. For sessions that tell by themselves what they have seen already. Asks
    /// nobody for rights.
    pub fn watch(&self, session: &Arc<SessionHandle>, key: &Key) {
        let mut guard = session.held();
        // An ended session takes nothing more.
        let Some(held) = guard.as_mut() else { return };
        if held.iter().any(|holding| holding.key() == key) {
            return;
        }
        let serial = self.serial.fetch_add(1, Ordering::Relaxed);
        let lease = self.presence.acquire(key);
        self.hub.subscribe(key, session, EVERYTHING, || ());
        self.presence.listen(&lease, session);
        let since = (self.clock)().max(1);
        // A mailbox at a time: an IMAP session has one selected.
        held.reserve_exact(1);
        held.push(Held { lease, since, serial, wanted: EVERYTHING, rights: "", waiting: Vec::new(), watched: true });
        self.sessions.note(true, session.subscription_record(key.clone(), since));
    }

    /// What the session itself learned of its user's rights on a watched key, after [`super::outbox::Outgoing::AskRights`]
    /// or unasked; `None`: the mail server did not answer.
    pub fn learned(&self, _session: &Arc<SessionHandle>, _key: &Key, _rights: Option<Rights>) {}

    /// Puts a holding into the hub, and answers everybody who waits for it before any event can come.
    fn activate(&self, session: &Arc<SessionHandle>, holding: &mut Held) {
        let first = !holding.is_active();
        if first {
            holding.since = (self.clock)().max(1);
        }
        let (waiting, rights) = (std::mem::take(&mut holding.waiting), holding.rights);
        self.hub.subscribe(holding.key(), session, holding.wanted, || {
            for tag in waiting {
                session.push_settled(tag, holding.key().clone(), Ok(rights));
            }
        });
        if first {
            self.sessions.note(true, session.subscription_record(holding.key().clone(), holding.since));
        }
    }

    pub fn unsubscribe(&self, session: &Arc<SessionHandle>, key: &Key) {
        let mut guard = session.held();
        let Some(held) = guard.as_mut() else { return };
        if let Some(at) = held.iter().position(|h| h.key() == key) {
            let gone = held.swap_remove(at);
            for tag in &gone.waiting {
                session.push_settled(*tag, key.clone(), Err(SubscribeFailure::Withdrawn));
            }
            self.withdraw(session, gone);
        }
    }

    /// The session has ended: everything that it held is let go.
    pub fn end(&self, session: &Arc<SessionHandle>) {
        let held = session.held().take();
        for gone in held.into_iter().flatten() {
            self.withdraw(session, gone);
        }
        self.sessions.remove(session);
    }

    fn withdraw(&self, session: &Arc<SessionHandle>, gone: Held) {
        if gone.watched {
            self.presence.unlisten(&gone.lease, session);
        }
        if gone.is_active() {
            self.hub.unsubscribe(gone.key(), session);
            self.sessions.note(false, session.subscription_record(gone.key().clone(), gone.since));
        }
    }
}

/// The registry took too long. What stood before still stands; what never did is let go.
fn give_up(session: &Arc<SessionHandle>, held: &mut Vec<Held>, at: usize) {
    let kept = held[at].is_active();
    let key = held[at].key().clone();
    for tag in std::mem::take(&mut held[at].waiting) {
        session.push_settled(tag, key.clone(), Err(SubscribeFailure::Unavailable { kept }));
    }
    if !kept {
        held.swap_remove(at);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::task::{Context, Poll, Waker};

    use super::*;
    use crate::cluster::registry::local::{LocalNode, LocalRegistry};
    use crate::cluster::registry::{Discontinuity, NodeRecord, Place, QueueId, QueueNames, Registrar, RegistryHealth};
    use crate::mail::codec::EnvelopeFields;
    use crate::mail::event::{EventType, EventTypes};
    use crate::mail::ids::{NodeId, SessionId};
    use crate::mail::user::UserName;
    use crate::push::access::OwnersOnly;
    use crate::push::outbox::{Limits, Outgoing, Standing};
    use crate::push::session::Transport;

    const SETTLE: Duration = Duration::from_secs(2);
    const PATIENCE: Duration = Duration::from_secs(10);
    const ALL: Wanted = Wanted { types: EventTypes::ALL, fields: EnvelopeFields::NONE };

    struct Play {
        registry: Arc<LocalNode>,
        subscriptions: Arc<Subscriptions>,
        session: Arc<SessionHandle>,
    }

    fn key() -> Key {
        Key::Account(UserName::new("bob").unwrap())
    }

    async fn play() -> Play {
        let names = QueueNames::new("t").unwrap();
        let registry = LocalRegistry::new(names.clone()).node();
        let id: NodeId = "n".parse().unwrap();
        let queue_id = QueueId { node: id.clone(), place: Place::Own };
        let queue = names.queue(&queue_id);
        let record = NodeRecord { id: id.clone(), queue_id, queue, url: String::new(), version: String::new(), started_at: 0 };
        registry.announce(record).await.unwrap();
        let (presence, _breaks) = Presence::start(registry.clone(), SETTLE, Duration::from_secs(1), PATIENCE);
        let subscriptions = Arc::new(Subscriptions {
            hub: Arc::default(),
            presence,
            sessions: Arc::new(Sessions::new(10, 10, 0)),
            access: Arc::new(OwnersOnly),
            timeout: Duration::from_secs(30),
            clock: || 5,
            serial: AtomicU64::default(),
        });
        let limits = Limits { events: 10, bytes: 1000 };
        let session = SessionHandle::new(
            SessionId::new(id, 1),
            UserName::new("bob").unwrap(),
            Transport::Websocket,
            ([127, 0, 0, 1], 1).into(),
            0,
            limits,
        );
        Play { registry, subscriptions, session }
    }

    impl Play {
        fn subscribe(&self, tag: u32, types: EventTypes) {
            self.subscriptions.subscribe(&self.session, tag, key(), Wanted { types, ..ALL }).unwrap();
        }

        /// What was told of a watched key.
        fn standings(&self) -> Vec<Standing> {
            let taken = match self.session.poll_take(&mut Context::from_waker(Waker::noop())) {
                Poll::Ready(taken) => taken,
                Poll::Pending => VecDeque::new(),
            };
            let standing = |outgoing| match outgoing {
                Outgoing::Standing { standing, key: told } => (told == key()).then_some(standing),
                other => panic!("{other:?}"),
            };
            taken.into_iter().filter_map(standing).collect()
        }

        fn answers(&self) -> Vec<(u32, Result<&'static str, SubscribeFailure>)> {
            let taken = match self.session.poll_take(&mut Context::from_waker(Waker::noop())) {
                Poll::Ready(taken) => taken,
                Poll::Pending => VecDeque::new(),
            };
            let answer = |outgoing| match outgoing {
                Outgoing::Settled { tag, outcome, .. } => (tag, outcome.map(|_| "ok")),
                other => panic!("{other:?}"),
            };
            taken.into_iter().map(answer).collect()
        }

        async fn pass(&self, time: Duration) {
            tokio::time::sleep(time + Duration::from_millis(1)).await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn two_wishes_for_one_key_are_both_answered_and_the_later_one_counts() {
        let play = play().await;
        play.subscribe(1, [EventType::MessageNew].into_iter().collect());
        play.subscribe(2, EventTypes::ALL);
        play.pass(SETTLE).await;
        assert_eq!(play.answers(), [(1, Ok("ok")), (2, Ok("ok"))]);
        assert_eq!(play.session.held().as_ref().unwrap()[0].wanted, ALL);
        play.subscribe(3, EventTypes::ALL);
        assert_eq!(play.answers(), [(3, Ok("ok"))], "settled already: at once");
    }

    #[tokio::test(start_paused = true)]
    async fn a_wish_that_was_withdrawn_is_answered_and_does_not_touch_the_next() {
        let play = play().await;
        play.subscribe(1, EventTypes::ALL);
        play.subscriptions.unsubscribe(&play.session, &key());
        play.subscribe(2, EventTypes::ALL);
        assert_eq!(play.answers(), [(1, Err(SubscribeFailure::Withdrawn))]);
        play.pass(SETTLE).await;
        assert_eq!(play.answers(), [(2, Ok("ok"))]);
        assert_eq!(play.session.subscriptions(), [(key(), 5)]);
    }

    #[tokio::test(start_paused = true)]
    async fn an_outage_refuses_what_is_new_and_keeps_what_stood() {
        let play = play().await;
        play.registry.set_health(RegistryHealth::Lost { reason: "test".into() });
        play.subscribe(1, EventTypes::ALL);
        play.pass(Duration::from_secs(20)).await;
        play.subscribe(2, EventTypes::ALL);
        play.pass(Duration::from_secs(11)).await;
        let refused = Err(SubscribeFailure::Unavailable { kept: false });
        assert_eq!(play.answers(), [(1, refused), (2, refused)], "the second is told with the first, and may try again");
        assert!(play.session.held().as_ref().unwrap().is_empty());

        play.registry.set_health(RegistryHealth::Connected);
        play.subscribe(3, EventTypes::ALL);
        play.pass(Duration::from_secs(10)).await;
        assert_eq!(play.answers(), [(3, Ok("ok"))]);
        play.registry.tell(Discontinuity::Lost { keys: vec![key()] });
        play.pass(Duration::ZERO).await;
        play.subscribe(4, EventTypes::ALL);
        play.pass(Duration::from_secs(30)).await;
        assert_eq!(play.answers(), [(4, Err(SubscribeFailure::Unavailable { kept: true }))]);
        assert_eq!(play.session.subscriptions().len(), 1, "what stood still stands");
    }

    #[tokio::test(start_paused = true)]
    async fn a_watched_key_is_in_the_hub_at_once_and_its_standing_is_told() {
        let play = play().await;
        play.subscriptions.watch(&play.session, &key());
        assert_eq!(play.subscriptions.hub.sessions(&key()).len(), 1, "before anything is acknowledged");
        play.pass(Duration::ZERO).await;
        assert_eq!(play.standings(), [Standing::Registered]);
        play.pass(SETTLE).await;
        assert_eq!(play.standings(), [Standing::Settled]);
        play.registry.tell(Discontinuity::Lost { keys: vec![key()] });
        play.registry.tell(Discontinuity::Lost { keys: vec![key()] });
        play.pass(Duration::ZERO).await;
        assert_eq!(play.standings(), [Standing::Unavailable], "told once, however often the registry says so");
        play.registry.tell(Discontinuity::Restored { keys: vec![key()] });
        play.pass(SETTLE).await;
        assert_eq!(play.standings(), [Standing::Registered, Standing::Settled]);

        play.subscriptions.unsubscribe(&play.session, &key());
        play.registry.tell(Discontinuity::Lost { keys: vec![key()] });
        play.pass(Duration::ZERO).await;
        assert_eq!(play.standings(), [], "not watched any more");
        assert_eq!(play.subscriptions.hub.keys(), 0);
        assert!(play.session.subscriptions().is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_settled_already_is_told_so_at_once() {
        let play = play().await;
        let _other = play.subscriptions.presence.acquire(&key());
        play.pass(SETTLE).await;
        play.subscriptions.watch(&play.session, &key());
        play.subscriptions.watch(&play.session, &key());
        assert_eq!(play.standings(), [Standing::Settled]);
        assert_eq!(play.session.subscriptions().len(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_registry_that_does_not_answer_makes_a_watch_unavailable_until_it_does() {
        let play = play().await;
        play.registry.set_health(RegistryHealth::Lost { reason: "test".into() });
        play.subscriptions.watch(&play.session, &key());
        play.pass(PATIENCE / 2).await;
        assert_eq!(play.standings(), [], "it may still come");
        play.pass(PATIENCE).await;
        assert_eq!(play.standings(), [Standing::Unavailable]);
        play.registry.set_health(RegistryHealth::Connected);
        play.pass(Duration::from_secs(2) + SETTLE).await;
        assert_eq!(play.standings(), [Standing::Registered, Standing::Settled], "it was tried on");
    }
}
