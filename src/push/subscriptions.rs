//! Subscribing: registered and settled first, then in the hub, then told (I-4, I-5).

use std::sync::Arc;
use std::time::Duration;

use super::access::Access;
use super::hub::{Hub, Wanted};
use super::outbox::SubscribeFailure;
use super::presence::Presence;
use super::session::{Held, SessionHandle};
use super::sessions::Sessions;
use crate::mail::key::Key;

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
}

/// No such mailbox, or not for this user: the same answer (I-9).
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("there is no such mailbox, or you may not see it")]
pub struct NotFound;

impl Subscriptions {
    /// Begins a subscription; its outcome comes out of the session's outbox with `tag`. Subscribing again changes what
    /// is wanted.
    pub fn subscribe(self: &Arc<Self>, session: &Arc<SessionHandle>, tag: u32, key: Key, wanted: Wanted) -> Result<(), NotFound> {
        let rights = self.access.rights(&session.user, &key).ok_or(NotFound)?;
        let lease = self.presence.acquire(&key);
        let settling = self.presence.settling(&lease);
        {
            let mut held = session.held();
            // An ended session takes nothing more; the lease is dropped.
            let Some(held) = held.as_mut() else { return Ok(()) };
            if !held.iter().any(|h| *h.key() == key) {
                held.push(Held { lease, since: 0 });
            }
        }
        match settling {
            None => self.activate(session, tag, key, wanted, rights),
            Some(settled) => {
                let (this, session) = (self.clone(), session.clone());
                tokio::spawn(async move {
                    match tokio::time::timeout(this.timeout, settled).await {
                        Ok(Ok(())) => this.activate(&session, tag, key, wanted, rights),
                        Ok(Err(_)) | Err(_) => this.give_up(&session, tag, key),
                    }
                });
            }
        }
        Ok(())
    }

    fn activate(&self, session: &Arc<SessionHandle>, tag: u32, key: Key, wanted: Wanted, rights: &'static str) {
        let mut held = session.held();
        // Unsubscribed, or ended, while it settled: nothing to tell.
        let Some(subscription) = held.iter_mut().flatten().find(|h| *h.key() == key) else { return };
        let since = if subscription.is_active() { None } else { Some((self.clock)().max(1)) };
        if let Some(since) = since {
            subscription.since = since;
        }
        self.hub.subscribe(&key, session, wanted, || session.push_settled(tag, key.clone(), Ok(rights)));
        if let Some(since) = since {
            self.sessions.note(true, session.subscription_record(key, since));
        }
    }

    fn give_up(&self, session: &Arc<SessionHandle>, tag: u32, key: Key) {
        if let Some(held) = session.held().as_mut() {
            held.retain(|h| *h.key() != key || h.is_active());
        }
        session.push_settled(tag, key, Err(SubscribeFailure::Unavailable));
    }

    pub fn unsubscribe(&self, session: &Arc<SessionHandle>, key: &Key) {
        let mut guard = session.held();
        let Some(held) = guard.as_mut() else { return };
        if let Some(at) = held.iter().position(|h| h.key() == key) {
            let gone = held.swap_remove(at);
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
        if gone.is_active() {
            self.hub.unsubscribe(gone.key(), session);
            self.sessions.note(false, session.subscription_record(gone.key().clone(), gone.since));
        }
    }
}
