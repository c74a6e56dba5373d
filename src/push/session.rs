//! The handle of one live session: who it is, what it holds, and what waits to be told to it.

use std::fmt;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use futures::task::AtomicWaker;
use serde::{Deserialize, Serialize};

use super::delivery::Delivery;
use super::hub::Wanted;
use super::outbox::{End, Limits, Outbox, Outgoing, Pushed, Resync, Standing, SubscribeFailure};
use super::presence::Lease;
use crate::mail::codec::EnvelopeFields;
use crate::mail::ids::SessionId;
use crate::mail::key::Key;
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
    pub lease: Lease,
    /// Milliseconds since 1970, UTC; 0 until it is settled.
    pub since: u64,
    /// Of this holding alone: the key may be given up and taken again.
    pub serial: u64,
    /// What was asked for last.
    pub wanted: Wanted,
    pub rights: &'static str,
    /// Tags of those who wait for it to settle.
    pub waiting: Vec<u32>,
    /// Whether it was in the hub from the start, and hears of its registration.
    pub watched: bool,
}

impl Held {
    pub fn key(&self) -> &Key {
        self.lease.key()
    }

    pub fn is_active(&self) -> bool {
        self.since != 0
    }
}

/// A live session. Its task waits on it; the hub and administrators push into it, and never wait.
pub struct SessionHandle {
    pub id: SessionId,
    pub user: UserName,
    pub transport: Transport,
    pub peer: SocketAddr,
    /// Milliseconds since 1970, UTC.
    pub connected_at: u64,
    limits: Limits,
    outbox: Mutex<Outbox>,
    waker: AtomicWaker,
    /// `None` once the session has ended. Locked before a hub's shard, never after.
    held: Mutex<Option<Vec<Held>>>,
}

impl fmt::Debug for SessionHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SessionHandle").field("id", &self.id).finish_non_exhaustive()
    }
}

/// No code of ours panics while it holds a lock; were it so, the data is still whole.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl SessionHandle {
    pub fn new(
        id: SessionId,
        user: UserName,
        transport: Transport,
        peer: SocketAddr,
        connected_at: u64,
        limits: Limits,
    ) -> Arc<Self> {
        Arc::new(Self {
            id,
            user,
            transport,
            peer,
            connected_at,
            limits,
            outbox: Mutex::default(),
            waker: AtomicWaker::new(),
            held: Mutex::new(Some(Vec::new())),
        })
    }

    pub fn push_event(&self, delivery: &Arc<Delivery>, fields: EnvelopeFields) -> Pushed {
        let pushed = lock(&self.outbox).push_event(delivery, fields, self.limits);
        self.waker.wake();
        pushed
    }

    pub fn push_resync(&self, scope: Resync, reason: &'static str) {
        lock(&self.outbox).push_resync(scope, reason);
        self.waker.wake();
    }

    pub(super) fn push_settled(&self, tag: u32, key: Key, outcome: Result<&'static str, SubscribeFailure>) {
        lock(&self.outbox).push_settled(tag, key, outcome);
        self.waker.wake();
    }

    pub(super) fn push_standing(&self, key: Key, standing: Standing) {
        lock(&self.outbox).push_standing(key, standing);
        self.waker.wake();
    }

    /// Tells whether the node can promise to hear of changes now.
    pub fn push_health(&self, healthy: bool) {
        lock(&self.outbox).push_health(healthy);
        self.waker.wake();
    }

    /// Asks the session to end.
    pub fn end(&self, end: End) {
        lock(&self.outbox).push_end(end);
        self.waker.wake();
    }

    /// Everything that waits, once something does. For the session's own task alone.
    pub fn poll_take(&self, context: &mut Context<'_>) -> Poll<std::collections::VecDeque<Outgoing>> {
        self.waker.register(context.waker());
        let mut outbox = lock(&self.outbox);
        if outbox.is_empty() { Poll::Pending } else { Poll::Ready(outbox.take()) }
    }

    pub(super) fn held(&self) -> MutexGuard<'_, Option<Vec<Held>>> {
        lock(&self.held)
    }

    /// The keys of the subscriptions that stand, each with the time since when (ms since 1970).
    pub fn subscriptions(&self) -> Vec<(Key, u64)> {
        let held = self.held();
        held.iter().flatten().filter(|h| h.is_active()).map(|h| (h.key().clone(), h.since)).collect()
    }
}
