//! The hub: from a key to the sessions on this node that want its events.
//!
//! Sharded by key; a delivery takes read locks only and never waits for a client.

use std::collections::hash_map::{Entry, HashMap, RandomState};
use std::hash::BuildHasher;
use std::sync::Arc;

use super::access::{Grant, Need};
use super::delivery::Delivery;
use super::handle::{SessionHandle, Transport};
use super::outbox::PushOutcome;
use crate::lock::{RwLock, rank};
use crate::mail::codec::EnvelopeFields;
use crate::mail::event::{Change, Event, EventType, EventTypes};
use crate::mail::key::Key;

const SHARDS: usize = 64;

/// What a subscription asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Filter {
    pub types: EventTypes,
    pub fields: EnvelopeFields,
}

impl Filter {
    pub const EVERYTHING: Self = Self { types: EventTypes::ALL, fields: EnvelopeFields::NONE };

    /// What either wants.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        Self { types: self.types.or(other.types), fields: self.fields.or(other.fields) }
    }
}

struct Subscriber {
    session: Arc<SessionHandle>,
    filter: Filter,
    /// `None` for what is the user's own.
    grant: Option<Arc<Grant>>,
}

impl Subscriber {
    /// Whether it hears of an event under `key`. A `MailboxChange` may stand for an event that was
    /// too large for a queue, so it passes every filter of types.
    fn hears(&self, key: &Key, event: &Event, event_type: EventType) -> bool {
        // An event that moves or ends the subscription itself is not filtered.
        let is_its_own = match key {
            Key::Mailbox(_) => matches!(event_type, EventType::MailboxRename | EventType::MailboxDelete),
            Key::Account(_) => event_type == EventType::AccountRename,
        };
        if !self.filter.types.contains(event_type) && event_type != EventType::MailboxChange && !is_its_own {
            return false;
        }
        let is_imap = self.session.transport == Transport::Imap;
        // A rename names two mailboxes: where one of them is not the user's own,
        // `subscriptions::moves` decides what is told.
        let Some(grant) = &self.grant else { return is_imap || !changes_owner(event) };
        let is_elsewhere = || matches!(key, Key::Mailbox(path) if *path != event.mailbox);
        match event_type {
            // An IMAP session has the mailbox selected: it may know that the mailbox is renamed or
            // deleted before its rights are known, for it tells its client no names.
            _ if is_imap => is_its_own && !is_elsewhere() || grant.allows(Need::of(event_type)),
            // `subscriptions::moves` tells these, as far as the rights allow it.
            EventType::MailboxRename | EventType::MailboxDelete => false,
            _ => !is_elsewhere() && grant.allows(Need::of(event_type)),
        }
    }
}

/// Whether it is a rename by which the mailbox becomes another user's.
pub(super) fn changes_owner(event: &Event) -> bool {
    matches!(&event.change, Change::MailboxRename { to } if to.owner() != event.mailbox.owner())
}

type Shard = HashMap<Key, Vec<Subscriber>>;

/// Sessions by key.
pub struct Hub {
    shards: Vec<RwLock<Shard, { rank::HUB }>>,
    hasher: RandomState,
}

/// What became of a delivery.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Fanout {
    pub queued: usize,
    /// Sessions whose outbox overflowed now.
    pub collapsed: usize,
    /// Sessions that will be told to resync anyway.
    pub absorbed: usize,
}

impl Fanout {
    fn count(&mut self, pushed: PushOutcome) {
        match pushed {
            PushOutcome::Queued => self.queued += 1,
            PushOutcome::Collapsed => self.collapsed += 1,
            PushOutcome::Absorbed => self.absorbed += 1,
        }
    }
}

impl Default for Hub {
    fn default() -> Self {
        Self { shards: (0..SHARDS).map(|_| RwLock::default()).collect(), hasher: RandomState::new() }
    }
}

impl Hub {
    fn index(&self, key: &Key) -> usize {
        self.hasher.hash_one(key) as usize % SHARDS
    }

    fn shard(&self, key: &Key) -> &RwLock<Shard, { rank::HUB }> {
        &self.shards[self.index(key)]
    }

    /// Adds a session under a key, or changes what it wants there. `announce` runs before any event
    /// of the key can reach the session.
    pub fn subscribe(
        &self,
        key: &Key,
        session: &Arc<SessionHandle>,
        filter: Filter,
        grant: Option<&Arc<Grant>>,
        announce: impl FnOnce(),
    ) {
        let mut shard = self.shard(key).write();
        let subscribers = shard.entry(key.clone()).or_default();
        announce();
        match subscribers.iter_mut().find(|s| Arc::ptr_eq(&s.session, session)) {
            Some(subscriber) => (subscriber.filter, subscriber.grant) = (filter, grant.cloned()),
            None => subscribers.push(Subscriber { session: session.clone(), filter, grant: grant.cloned() }),
        }
    }

    pub fn unsubscribe(&self, key: &Key, session: &Arc<SessionHandle>) {
        let mut shard = self.shard(key).write();
        if let Entry::Occupied(mut entry) = shard.entry(key.clone()) {
            let subscribers = entry.get_mut();
            if let Some(at) = subscribers.iter().position(|s| Arc::ptr_eq(&s.session, session)) {
                subscribers.swap_remove(at);
            }
            if subscribers.is_empty() {
                entry.remove();
            } else if subscribers.len() * 4 < subscribers.capacity() {
                subscribers.shrink_to(subscribers.len() * 2);
            }
        }
    }

    /// Hands an event to every session that wants it, to each once, however many of its
    /// subscriptions match.
    pub fn deliver(&self, delivery: &Arc<Delivery>) -> Fanout {
        let mut fanout = Fanout::default();
        let event_type = delivery.event.event_type();
        let mut keys = delivery.event.keys();
        if event_type.is_account_only() {
            keys.retain(|key| matches!(key, Key::Account(_)));
        }
        keys.retain(|key| self.shard(key).read().contains_key(key));
        if let [key] = &keys[..] {
            // The common case: one key is watched, so no session can be met twice.
            let shard = self.shard(key).read();
            for s in shard.get(key).into_iter().flatten().filter(|s| s.hears(key, &delivery.event, event_type)) {
                fanout.count(s.session.push_event(delivery, s.filter.fields));
            }
            return fanout;
        }
        // All shards at once, in one order: an event that is allowed here is in the outbox before
        // anybody can take the session out of a shard, and whoever takes a right away does that
        // before telling the client.
        let mut indices: Vec<usize> = keys.iter().map(|key| self.index(key)).collect();
        indices.sort_unstable();
        indices.dedup();
        let shards: Vec<_> = indices.iter().map(|at| self.shards[*at].read_in_order()).collect();
        let mut once: HashMap<*const SessionHandle, (&Arc<SessionHandle>, EnvelopeFields)> = HashMap::new();
        for key in &keys {
            let Ok(at) = indices.binary_search(&self.index(key)) else { continue };
            for s in shards[at].get(key).into_iter().flatten().filter(|s| s.hears(key, &delivery.event, event_type)) {
                let (_, fields) = once.entry(Arc::as_ptr(&s.session)).or_insert((&s.session, EnvelopeFields::NONE));
                *fields = fields.or(s.filter.fields);
            }
        }
        for (session, fields) in once.into_values() {
            fanout.count(session.push_event(delivery, fields));
        }
        fanout
    }

    /// The sessions under a key.
    pub fn sessions(&self, key: &Key) -> Vec<Arc<SessionHandle>> {
        let shard = self.shard(key).read();
        shard.get(key).into_iter().flatten().map(|s| s.session.clone()).collect()
    }

    /// The sessions that hear of a mailbox by this grant.
    pub fn sessions_by(&self, grant: &Arc<Grant>) -> Vec<Arc<SessionHandle>> {
        let shard = self.shard(grant.key()).read();
        let by = |s: &&Subscriber| s.grant.as_ref().is_some_and(|held| Arc::ptr_eq(held, grant));
        shard.get(grant.key()).into_iter().flatten().filter(by).map(|s| s.session.clone()).collect()
    }

    /// The keys for which `is` holds.
    pub fn keys_where(&self, is: impl Fn(&Key) -> bool) -> Vec<Key> {
        let mut found = Vec::new();
        for shard in &self.shards {
            let shard = shard.read();
            found.extend(shard.keys().filter(|key| is(key)).cloned());
        }
        found
    }

    /// How many keys have subscribers.
    pub fn keys(&self) -> usize {
        self.shards.iter().map(|shard| shard.read().len()).sum()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::task::{Context, Poll, Waker};
    use std::time::Instant;

    use proptest::prelude::*;

    use super::*;
    use crate::mail::ids::SessionId;
    use crate::mail::rights::Subject;
    use crate::mail::user::UserName;
    use crate::push::outbox::{Limits, Outgoing};

    fn session(number: u64) -> Arc<SessionHandle> {
        let id = SessionId::new("n".parse().unwrap(), number);
        let limits = Limits { events: 1000, bytes: 1 << 20 };
        let peer = ([127, 0, 0, 1], 1).into();
        SessionHandle::new(id, Subject::alone(UserName::new("bob").unwrap()), Transport::Websocket, peer, 0, limits)
    }

    fn taken(session: &SessionHandle) -> Vec<(String, EnvelopeFields)> {
        let Poll::Ready(outgoing) = session.poll_take(&mut Context::from_waker(Waker::noop())) else { return Vec::new() };
        let pos = |o| match o {
            Outgoing::Event { delivery, fields } => (delivery.pos.clone(), fields),
            other => panic!("{other:?}"),
        };
        outgoing.into_iter().map(pos).collect()
    }

    fn delivery(mailbox: usize, change: Change, offset: u64) -> Arc<Delivery> {
        let mut event = crate::mail::codec::tests::sample();
        event.mailbox = format!("#private:bob:{mailbox}").parse().unwrap();
        event.change = change;
        Arc::new(Delivery::new(event, &format!("q@{offset}").parse().unwrap(), 1, Instant::now()))
    }

    /// Keys 0 to 2 are mailboxes, 3 is their owner's account.
    fn key(number: usize) -> Key {
        match number {
            3 => Key::Account(UserName::new("bob").unwrap()),
            n => Key::Mailbox(format!("#private:bob:{n}").parse().unwrap()),
        }
    }

    const ALL: Filter = Filter { types: EventTypes::ALL, fields: EnvelopeFields::NONE };

    #[test]
    fn a_session_hears_an_event_once_with_all_fields_it_asked_for() {
        let (hub, session) = (Hub::default(), session(1));
        let fields = EnvelopeFields { subject: true, ..EnvelopeFields::NONE };
        hub.subscribe(&key(0), &session, Filter { fields, ..ALL }, None, || ());
        hub.subscribe(&key(3), &session, ALL, None, || ());
        assert_eq!(hub.deliver(&delivery(0, Change::MailboxChange, 7)).queued, 1);
        assert_eq!(taken(&session), [("q@7".to_owned(), fields)]);
    }

    #[test]
    fn only_accounts_hear_of_created_mailboxes() {
        let hub = Hub::default();
        let (mailbox, account) = (session(1), session(2));
        hub.subscribe(&key(0), &mailbox, ALL, None, || ());
        hub.subscribe(&key(3), &account, ALL, None, || ());
        hub.deliver(&delivery(0, Change::MailboxCreate, 1));
        assert_eq!((taken(&mailbox).len(), taken(&account).len()), (0, 1));
    }

    /// The owner watches the account, so each event has two keys in the hub.
    #[test]
    fn nothing_comes_behind_the_word_that_a_right_is_gone() {
        let hub = Hub::default();
        let (sharee, owner) = (session(1), session(2));
        hub.subscribe(&key(3), &owner, ALL, None, || ());
        let is_over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !is_over.load(Ordering::Relaxed) {
                    hub.deliver(&delivery(0, Change::MailboxChange, 1));
                    taken(&owner);
                }
            });
            for _ in 0..20_000 {
                hub.subscribe(&key(0), &sharee, ALL, None, || ());
                hub.unsubscribe(&key(0), &sharee);
                sharee.push_revoked(key(0));
                let Poll::Ready(waiting) = sharee.poll_take(&mut Context::from_waker(Waker::noop())) else { panic!() };
                assert!(matches!(waiting.back(), Some(Outgoing::Revoked { .. })), "{waiting:?}");
            }
            is_over.store(true, Ordering::Relaxed);
        });
        assert!(taken(&sharee).is_empty());
    }

    #[test]
    fn types_are_filtered() {
        let (hub, session) = (Hub::default(), session(1));
        let types = [EventType::MailboxDelete].into_iter().collect();
        hub.subscribe(&key(0), &session, Filter { types, ..ALL }, None, || ());
        let uids = Change::MessageExpunge { uids: Vec::new(), modseq: None };
        assert_eq!(hub.deliver(&delivery(0, uids, 1)), Fanout::default());
        assert_eq!(hub.deliver(&delivery(0, Change::MailboxDelete, 2)).queued, 1);
        assert_eq!(hub.deliver(&delivery(0, Change::MailboxChange, 3)).queued, 1, "it may stand for anything");
    }

    #[derive(Debug, Clone)]
    enum Step {
        Subscribe(usize, usize),
        Unsubscribe(usize, usize),
        Deliver(usize),
        Rename(usize, usize),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            (0..4usize, 0..4usize).prop_map(|(s, k)| Step::Subscribe(s, k)),
            (0..4usize, 0..4usize).prop_map(|(s, k)| Step::Unsubscribe(s, k)),
            (0..3usize).prop_map(Step::Deliver),
            (0..3usize, 0..3usize).prop_map(|(a, b)| Step::Rename(a, b)),
        ]
    }

    proptest! {
        /// The model is a set of pairs.
        #[test]
        fn the_hub_does_what_a_naive_one_does(steps in proptest::collection::vec(step(), 0..60)) {
            let hub = Hub::default();
            let sessions: Vec<_> = (0..4).map(session).collect();
            let mut model: BTreeMap<(usize, usize), ()> = BTreeMap::new();
            let mut expected = vec![Vec::new(); 4];
            for (offset, step) in steps.into_iter().enumerate() {
                let mut told = |keys: &[usize], model: &BTreeMap<(usize, usize), ()>| {
                    for (s, heard) in expected.iter_mut().enumerate() {
                        if keys.iter().any(|k| model.contains_key(&(s, *k))) {
                            heard.push(format!("q@{offset}"));
                        }
                    }
                };
                match step {
                    Step::Subscribe(s, k) => {
                        hub.subscribe(&key(k), &sessions[s], ALL, None, || ());
                        model.insert((s, k), ());
                    }
                    Step::Unsubscribe(s, k) => {
                        hub.unsubscribe(&key(k), &sessions[s]);
                        model.remove(&(s, k));
                    }
                    Step::Deliver(k) => {
                        hub.deliver(&delivery(k, Change::MailboxChange, offset as u64));
                        told(&[k, 3], &model);
                    }
                    Step::Rename(from, to) => {
                        let Key::Mailbox(path) = key(to) else { continue };
                        hub.deliver(&delivery(from, Change::MailboxRename { to: path }, offset as u64));
                        told(&[from, to, 3], &model);
                    }
                }
            }
            let heard: Vec<Vec<String>> = sessions.iter().map(|s| taken(s).into_iter().map(|(pos, _)| pos).collect()).collect();
            prop_assert_eq!(heard, expected);
            let keys: std::collections::BTreeSet<usize> = model.keys().map(|(_, k)| *k).collect();
            prop_assert_eq!(hub.keys(), keys.len(), "nothing is left of keys without subscribers");
        }
    }
}
