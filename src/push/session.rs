//! A live session: its handle, and what it is subscribed to. The only file that locks the
//! subscriptions of a session.

use std::collections::BTreeSet;
use std::fmt;
use std::net::SocketAddr;
use std::ops::Deref;
use std::sync::Arc;

pub use super::handle::{SessionHandle, Transport};
use super::outbox::{Limits, Resync, ResyncReason};
use super::subscription::{Book, Interest, Subscription};
use crate::lock::{Mutex, MutexGuard, rank};
use crate::mail::ids::SessionId;
use crate::mail::key::Key;
use crate::mail::rights::{Rights, Subject};

/// A live session. Its doors own it; the hub and the registry know its [`SessionHandle`] alone.
pub struct LiveSession {
    handle: Arc<SessionHandle>,
    book: Mutex<Book, { rank::SUBSCRIPTIONS }>,
}

impl Deref for LiveSession {
    type Target = SessionHandle;

    fn deref(&self) -> &SessionHandle {
        &self.handle
    }
}

impl fmt::Debug for LiveSession {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.handle.fmt(f)
    }
}

impl LiveSession {
    pub fn new(
        id: SessionId,
        subject: Subject,
        transport: Transport,
        peer: SocketAddr,
        connected_at: u64,
        limits: Limits,
    ) -> Arc<Self> {
        let handle = SessionHandle::new(id, subject, transport, peer, connected_at, limits);
        Arc::new(Self { handle, book: Mutex::ranked(Book::default()) })
    }

    pub(super) fn handle(&self) -> &Arc<SessionHandle> {
        &self.handle
    }

    /// Its subscriptions, locked; `None` once it has ended: an ended session takes nothing more.
    pub(super) fn book(&self) -> Option<MutexGuard<'_, Book>> {
        let book = self.book.lock();
        book.is_open().then_some(book)
    }

    /// Ends it, and takes out what it was subscribed to.
    pub(super) fn close_book(&self) -> Vec<Subscription> {
        self.book.lock().close()
    }

    /// The subscriptions that stand, by the names that the client knows, each with the time since
    /// when (ms since 1970).
    pub fn subscriptions(&self) -> Vec<(Key, u64)> {
        self.book().map(|book| book.established()).unwrap_or_default()
    }

    /// Whether the session may tell of the messages of the mailbox that it watches; `None`: that is
    /// not known now, or it watches none. Where the session itself asks, it may as long as it is
    /// not known that it may not.
    pub fn reads_watched(&self) -> Option<bool> {
        let book = self.book()?;
        let watched = book.iter().find(|subscription| subscription.interest == Interest::Watched)?;
        let Some(grant) = &watched.grant else { return Some(true) };
        let reads = grant.rights().map(|rights| rights.contains(Rights::READ));
        reads.or_else(|| grant.session().map(|_| true))
    }

    /// A message of a watched key was not told, for the rights are not known: a `resync` is due
    /// once they are.
    pub fn note_withheld(&self, key: &Key) {
        if let Some(grant) = self.book().and_then(|book| book.grant(key)) {
            grant.note_withheld();
        }
    }

    /// A `resync` of one key, if the session is told of it still: not behind the word that this has
    /// ended.
    pub fn push_resync_of(&self, key: &Key, reason: ResyncReason) {
        let Some(book) = self.book() else { return };
        if book.iter().any(|subscription| subscription.is_in_hub() && subscription.key == *key) {
            self.push_resync(Resync::Keys(BTreeSet::from([key.clone()])), reason);
        }
    }
}
