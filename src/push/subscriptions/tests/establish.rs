use std::collections::VecDeque;
use std::task::{Context, Poll, Waker};

use super::play::{
    Access, Arc, Duration, Filter, Key, LiveSession, Metrics, Parts, Presence, Sessions, SubscribeFailure, Subscriptions,
    Transport, Wish,
};
use crate::cluster::registry::local::{LocalNode, LocalRegistry};
use crate::cluster::registry::{Discontinuity, NodeRecord, Place, QueueId, QueueNames, Registrar, RegistryHealth};
use crate::mail::codec::EnvelopeFields;
use crate::mail::event::{EventType, EventTypes};
use crate::mail::ids::{NodeId, SessionId};
use crate::mail::rights::Subject;
use crate::mail::user::UserName;
use crate::push::access::Options;
use crate::push::outbox::{Limits, Outgoing, RegistrationStatus};

const SETTLE: Duration = Duration::from_secs(2);
const ACKNOWLEDGE_TIMEOUT: Duration = Duration::from_secs(10);
const ALL: Filter = Filter { types: EventTypes::ALL, fields: EnvelopeFields::NONE };

struct Play {
    registry: Arc<LocalNode>,
    subscriptions: Arc<Subscriptions>,
    session: Arc<LiveSession>,
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
    let (presence, _breaks) = Presence::start(registry.clone(), SETTLE, Duration::from_secs(1), ACKNOWLEDGE_TIMEOUT);
    let metrics = Arc::new(Metrics::default());
    let (access, notices) = Access::start(Options::owners_only(), metrics.clone());
    let subscriptions = Subscriptions::start(Parts {
        hub: Arc::default(),
        presence,
        sessions: Arc::new(Sessions::new(10, 10, 0)),
        access,
        notices,
        metrics,
        timeout: Duration::from_secs(30),
        clock: || 5,
    });
    let limits = Limits { events: 10, bytes: 1000 };
    let session = LiveSession::new(
        SessionId::new(id, 1),
        Subject::alone(UserName::new("bob").unwrap()),
        Transport::Websocket,
        ([127, 0, 0, 1], 1).into(),
        0,
        limits,
    );
    Play { registry, subscriptions, session }
}

impl Play {
    fn subscribe(&self, tag: u32, types: EventTypes) {
        self.subscriptions.subscribe(&self.session, tag, key(), Wish { filter: Filter { types, ..ALL }, shared: false });
    }

    /// What was told of a watched key.
    fn statuses(&self) -> Vec<RegistrationStatus> {
        let taken = match self.session.poll_take(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(taken) => taken,
            Poll::Pending => VecDeque::new(),
        };
        let status = |outgoing| match outgoing {
            Outgoing::Registration { status, key: told } => (told == key()).then_some(status),
            other => panic!("{other:?}"),
        };
        taken.into_iter().filter_map(status).collect()
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
    assert_eq!(play.session.book().unwrap().iter().next().unwrap().interest.filter(), ALL);
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
    assert!(play.session.book().unwrap().iter().next().is_none());

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
async fn a_watched_key_is_in_the_hub_at_once_and_its_registration_is_told() {
    let play = play().await;
    play.subscriptions.watch(&play.session, &key());
    assert_eq!(play.subscriptions.hub.sessions(&key()).len(), 1, "before anything is acknowledged");
    play.pass(Duration::ZERO).await;
    assert_eq!(play.statuses(), [RegistrationStatus::Registered]);
    play.pass(SETTLE).await;
    assert_eq!(play.statuses(), [RegistrationStatus::Settled]);
    play.registry.tell(Discontinuity::Lost { keys: vec![key()] });
    play.registry.tell(Discontinuity::Lost { keys: vec![key()] });
    play.pass(Duration::ZERO).await;
    assert_eq!(play.statuses(), [RegistrationStatus::Unavailable], "told once, however often the registry says so");
    play.registry.tell(Discontinuity::Restored { keys: vec![key()] });
    play.pass(SETTLE).await;
    assert_eq!(play.statuses(), [RegistrationStatus::Registered, RegistrationStatus::Settled]);

    play.subscriptions.unsubscribe(&play.session, &key());
    play.registry.tell(Discontinuity::Lost { keys: vec![key()] });
    play.pass(Duration::ZERO).await;
    assert_eq!(play.statuses(), [], "not watched any more");
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
    assert_eq!(play.statuses(), [RegistrationStatus::Settled]);
    assert_eq!(play.session.subscriptions().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_registry_that_does_not_answer_makes_a_watch_unavailable_until_it_does() {
    let play = play().await;
    play.registry.set_health(RegistryHealth::Lost { reason: "test".into() });
    play.subscriptions.watch(&play.session, &key());
    play.pass(ACKNOWLEDGE_TIMEOUT / 2).await;
    assert_eq!(play.statuses(), [], "it may still come");
    play.pass(ACKNOWLEDGE_TIMEOUT).await;
    assert_eq!(play.statuses(), [RegistrationStatus::Unavailable]);
    play.registry.set_health(RegistryHealth::Connected);
    play.pass(Duration::from_secs(2) + SETTLE).await;
    assert_eq!(play.statuses(), [RegistrationStatus::Registered, RegistrationStatus::Settled], "it was tried on");
}
