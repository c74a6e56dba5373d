//! The handle of one live session: who it is, what it holds, and what waits to be told to it.

use std::collections::BTreeSet;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures::task::AtomicWaker;
use serde::{Deserialize, Serialize};

use super::access::Grant;
use super::delivery::Delivery;
use super::hub::Wanted;
use super::outbox::{End, Limits, Outbox, Outgoing, Pushed, Resync, ResyncReason, Standing, SubscribeFailure};
use super::presence::Lease;
use crate::lock::{Mutex, MutexGuard, rank};
use crate::mail::codec::EnvelopeFields;
use crate::mail::ids::SessionId;
use crate::mail::key::Key;
use crate::mail::rights::{Rights, Subject};
use crate::mail::user::UserName;

/// How a client is connected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Transport {
    Websocket,
    Sse,
    Imap,
}

impl Transport {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Websocket => "websocket",
            Self::Sse => "sse",
            Self::Imap => "imap",
        }
    }
}

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One subscription of a session, from the wish on.
#[derive(Debug)]
pub(super) struct Held {
    pub key: Key,
    /// Taken once the rights allow it.
    pub lease: Option<Lease>,
    /// What is known of the rights; `None` for what is the user's own.
    pub grant: Option<Arc<Grant>>,
    /// Milliseconds since 1970, UTC; 0 until it is settled.
    pub since: u64,
    /// Of this holding alone: the key may be given up and taken again.
    pub serial: u64,
    /// What the client asked for last.
    pub asked: Option<Wanted>,
    /// What is wanted because an account subscription covers the mailbox.
    pub covered: Option<Wanted>,
    /// Came to be shared while its account's subscription stood: told as soon as it is registered, and again once that has
    /// settled.
    pub early: bool,
    /// An account's: the mailboxes that are shared with the user are covered too.
    pub shared: bool,
    /// The rights that the client was told of.
    pub rights: Rights,
    /// They are lost, and nobody has said why: nothing is told, and that is not told yet either.
    pub lost: bool,
    /// Tags of those who wait for it to settle.
    pub waiting: Vec<u32>,
    /// A task sees to it that it stands.
    pub busy: bool,
    /// Whether it was in the hub from the start, and hears of its registration.
    pub watched: bool,
    /// Its mailbox is called otherwise now, which is not told yet.
    pub moving: Option<Box<Moving>>,
}

/// A mailbox has another name, and whether the client may know it is being asked: nothing of it is told meanwhile.
#[derive(Debug)]
pub(super) struct Moving {
    /// What the client knows it by.
    pub from: Key,
    /// What it will be told.
    pub news: Arc<Delivery>,
}

impl Held {
    /// Whether it is in the hub.
    pub fn is_active(&self) -> bool {
        self.stands() && self.moving.is_none()
    }

    /// Whether the client was told that it stands, and not that it has ended.
    pub fn stands(&self) -> bool {
        self.since != 0
    }

    /// What the client knows it by. No two of a session have one name, and no two that are active one key.
    pub fn name(&self) -> &Key {
        self.moving.as_ref().map_or(&self.key, |moving| &moving.from)
    }

    /// Both wishes together.
    pub fn wanted(&self) -> Wanted {
        match (self.asked, self.covered) {
            (Some(asked), Some(covered)) => asked.or(covered),
            (Some(wanted), None) | (None, Some(wanted)) => wanted,
            (None, None) => Wanted::EVERYTHING,
        }
    }
}

/// A live session. Its task waits on it; the hub and administrators push into it, and never wait.
pub struct SessionHandle {
    pub id: SessionId,
    /// Changes with a new token, and where the user is called otherwise.
    subject: Mutex<Subject>,
    pub transport: Transport,
    pub peer: SocketAddr,
    /// Milliseconds since 1970, UTC.
    pub connected_at: u64,
    limits: Limits,
    outbox: Mutex<Outbox>,
    waker: AtomicWaker,
    /// `None` once the session has ended.
    held: Mutex<Option<Vec<Held>>, { rank::SUBSCRIPTIONS }>,
}

impl fmt::Debug for SessionHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SessionHandle").field("id", &self.id).finish_non_exhaustive()
    }
}

impl SessionHandle {
    pub fn new(
        id: SessionId,
        subject: Subject,
        transport: Transport,
        peer: SocketAddr,
        connected_at: u64,
        limits: Limits,
    ) -> Arc<Self> {
        Arc::new(Self {
            id,
            subject: Mutex::new(subject),
            transport,
            peer,
            connected_at,
            limits,
            outbox: Mutex::default(),
            waker: AtomicWaker::new(),
            held: Mutex::ranked(Some(Vec::new())),
        })
    }

    pub fn push_event(&self, delivery: &Arc<Delivery>, fields: EnvelopeFields) -> Pushed {
        let pushed = self.outbox.lock().push_event(delivery, fields, self.limits);
        self.waker.wake();
        pushed
    }

    pub fn push_resync(&self, scope: Resync, reason: ResyncReason) {
        self.outbox.lock().push_resync(scope, reason);
        self.waker.wake();
    }

    /// A `resync` of one key, if the session is told of it still: not behind the word that this has ended.
    pub fn push_resync_of(&self, key: &Key, reason: ResyncReason) {
        let held = self.held();
        if held.iter().flatten().any(|holding| holding.is_active() && holding.key == *key) {
            self.push_resync(Resync::Keys(BTreeSet::from([key.clone()])), reason);
        }
    }

    /// Who it is.
    pub fn subject(&self) -> Subject {
        self.subject.lock().clone()
    }

    pub fn user(&self) -> UserName {
        self.subject.lock().user.clone()
    }

    pub(super) fn set_subject(&self, subject: Subject) {
        *self.subject.lock() = subject;
    }

    pub(super) fn push_revoked(&self, key: Key) {
        self.outbox.lock().push_revoked(key);
        self.waker.wake();
    }

    pub(super) fn push_moved(&self, from: Key, to: Option<Key>) {
        self.outbox.lock().push_moved(from, to);
        self.waker.wake();
    }

    pub(super) fn push_ask_rights(&self, key: Key) {
        self.outbox.lock().push_ask_rights(key);
        self.waker.wake();
    }

    pub(super) fn push_settled(&self, tag: u32, key: Key, outcome: Result<Rights, SubscribeFailure>) {
        self.outbox.lock().push_settled(tag, key, outcome);
        self.waker.wake();
    }

    pub(super) fn push_standing(&self, key: Key, standing: Standing) {
        self.outbox.lock().push_standing(key, standing);
        self.waker.wake();
    }

    /// Tells whether the node can promise to hear of changes now.
    pub fn push_health(&self, healthy: bool) {
        self.outbox.lock().push_health(healthy);
        self.waker.wake();
    }

    /// Asks the session to end.
    pub fn end(&self, end: End) {
        self.outbox.lock().push_end(end);
        self.waker.wake();
    }

    /// Everything that waits, once something does. For the session's own task alone.
    pub fn poll_take(&self, context: &mut Context<'_>) -> Poll<std::collections::VecDeque<Outgoing>> {
        self.waker.register(context.waker());
        let mut outbox = self.outbox.lock();
        if outbox.is_empty() { Poll::Pending } else { Poll::Ready(outbox.take()) }
    }

    pub(super) fn held(&self) -> MutexGuard<'_, Option<Vec<Held>>> {
        self.held.lock()
    }

    /// Whether the session may tell of the messages of what it watches; `None`: that is not known now, or it does not know yet
    /// that it watches nothing any more. Where the session itself asks, it may as long as it is not known that it may not.
    pub fn reads_watched(&self) -> Option<bool> {
        let held = self.held();
        let watched = held.iter().flatten().find(|held| held.watched)?;
        let Some(grant) = &watched.grant else { return Some(true) };
        let reads = grant.rights().map(|rights| rights.contains(Rights::READ));
        reads.or_else(|| grant.session().map(|_| true))
    }

    /// Something of a watched key was not told, for its rights are not known: a `resync` is due once they are.
    pub fn note_withheld(&self, key: &Key) {
        if let Some(grant) = self.held().iter().flatten().find(|held| held.key == *key).and_then(|held| held.grant.as_ref()) {
            grant.note_withheld();
        }
    }

    /// The keys of the subscriptions that stand, each with the time since when (ms since 1970).
    pub fn subscriptions(&self) -> Vec<(Key, u64)> {
        standing(&self.held())
    }
}

/// What stands of this, by the names that the client knows.
pub(super) fn standing(held: &Option<Vec<Held>>) -> Vec<(Key, u64)> {
    held.iter().flatten().filter(|h| h.stands()).map(|h| (h.name().clone(), h.since)).collect()
}
