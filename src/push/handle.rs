//! The handle of one live session: who it is, and what waits to be told to it.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures::task::AtomicWaker;
use serde::{Deserialize, Serialize};

use super::delivery::Delivery;
use super::outbox::{End, Limits, Outbox, Outgoing, PushOutcome, RegistrationStatus, Resync, ResyncReason, SubscribeFailure};
use crate::lock::Mutex;
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

/// Who a live session is, and its outbox. The session's task waits on it; the hub and
/// administrators push into it, and never wait.
pub struct SessionHandle {
    pub id: SessionId,
    /// Changes with a new token, and where the user is renamed.
    subject: Mutex<Subject>,
    pub transport: Transport,
    pub peer: SocketAddr,
    /// Milliseconds since 1970, UTC.
    pub connected_at: u64,
    limits: Limits,
    outbox: Mutex<Outbox>,
    waker: AtomicWaker,
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
        })
    }

    pub fn subject(&self) -> Subject {
        self.subject.lock().clone()
    }

    pub fn user(&self) -> UserName {
        self.subject.lock().user.clone()
    }

    pub(super) fn set_subject(&self, subject: Subject) {
        *self.subject.lock() = subject;
    }

    fn push<T>(&self, push: impl FnOnce(&mut Outbox) -> T) -> T {
        let result = push(&mut self.outbox.lock());
        self.waker.wake();
        result
    }

    pub fn push_event(&self, delivery: &Arc<Delivery>, fields: EnvelopeFields) -> PushOutcome {
        self.push(|outbox| outbox.push_event(delivery, fields, self.limits))
    }

    pub fn push_resync(&self, scope: Resync, reason: ResyncReason) {
        self.push(|outbox| outbox.push_resync(scope, reason));
    }

    pub(super) fn push_revoked(&self, key: Key) {
        self.push(|outbox| outbox.push_revoked(key));
    }

    pub(super) fn push_moved(&self, from: Key, to: Option<Key>) {
        self.push(|outbox| outbox.push_moved(from, to));
    }

    pub(super) fn push_ask_rights(&self, key: Key) {
        self.push(|outbox| outbox.push_ask_rights(key));
    }

    pub(super) fn push_settled(&self, tag: u32, key: Key, outcome: Result<Rights, SubscribeFailure>) {
        self.push(|outbox| outbox.push_settled(tag, key, outcome));
    }

    pub(super) fn push_registration(&self, key: Key, status: RegistrationStatus) {
        self.push(|outbox| outbox.push_registration(key, status));
    }

    /// Tells whether the node can promise to hear of changes now.
    pub fn push_health(&self, healthy: bool) {
        self.push(|outbox| outbox.push_health(healthy));
    }

    /// Asks the session to end.
    pub fn end(&self, end: End) {
        self.push(|outbox| outbox.push_end(end));
    }

    /// Everything that waits, once something does. For the session's own task alone.
    pub fn poll_take(&self, context: &mut Context<'_>) -> Poll<std::collections::VecDeque<Outgoing>> {
        self.waker.register(context.waker());
        let mut outbox = self.outbox.lock();
        if outbox.is_empty() { Poll::Pending } else { Poll::Ready(outbox.take()) }
    }
}
