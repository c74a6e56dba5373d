//! What the hub has for the session, handed on in its order; and what it is to know before it hears
//! the server.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use super::Connection;
use crate::mail::key::Key;
use crate::push::metrics::Metrics;
use crate::push::outbox::{End, Outgoing, RegistrationStatus, Resync};
use crate::push::session::LiveSession;
use crate::wire::imap::session::{Input, Reading, Registration, Session};

/// Hands in what the server says; while the client idles, with what is known of its right to hear
/// it.
pub(super) fn hear(session: &mut Session, handle: Option<&Arc<LiveSession>>, bytes: &[u8]) {
    let now = Instant::now();
    if session.is_idling()
        && let Some(handle) = handle
    {
        let reading = match handle.reads_watched() {
            Some(true) => Reading::Allowed,
            Some(false) => Reading::Denied,
            None => Reading::Unknown,
        };
        session.handle(now, Input::Reading(reading));
    }
    session.handle(now, Input::Upstream(bytes));
}

impl Connection {
    pub(super) fn tell(&mut self, outgoing: VecDeque<Outgoing>) {
        let now = Instant::now();
        for outgoing in outgoing {
            match outgoing {
                Outgoing::Event { delivery, .. } => {
                    self.oldest.get_or_insert(delivery.consumed_at);
                    self.session.handle(now, Input::Event(&delivery.event));
                }
                Outgoing::Resync { keys, reason } => {
                    let watched = self.handle.as_ref().is_some_and(|handle| match keys {
                        Resync::All => true,
                        Resync::Keys(keys) => handle.subscriptions().iter().any(|(key, _)| keys.contains(key)),
                    });
                    if watched {
                        Metrics::count(&self.door.gateway.metrics.resyncs, "reason", reason.as_str());
                        self.session.handle(now, Input::Resync);
                    }
                }
                Outgoing::Registration { key: Key::Mailbox(path), status } => {
                    let registration = match status {
                        RegistrationStatus::Registered => Registration::Registered,
                        RegistrationStatus::Settled => Registration::Settled,
                        RegistrationStatus::Unavailable => Registration::Unavailable,
                    };
                    self.session.handle(now, Input::Registration { mailbox: &path, registration });
                }
                Outgoing::Health(healthy) => self.session.handle(now, Input::Health(healthy)),
                Outgoing::Revoked { key: Key::Mailbox(path) } => self.session.handle(now, Input::Revoked(&path)),
                Outgoing::AskRights { key: Key::Mailbox(path) } => {
                    if let Some(handle) = &self.handle {
                        self.door.gateway.subscriptions.asks_rights(handle, &Key::Mailbox(path.clone()));
                    }
                    self.session.handle(now, Input::RightsCheck(&path));
                }
                // An IMAP session watches mailboxes, and asks for no subscriptions.
                Outgoing::Registration { .. } | Outgoing::Settled { .. } | Outgoing::Moved { .. } => {}
                Outgoing::Revoked { .. } | Outgoing::AskRights { .. } => {}
                Outgoing::End(End::Draining { .. }) => {
                    self.say_goodbye("draining", "The server is going down, connect again");
                }
                Outgoing::End(End::TooSlow) => {
                    self.say_goodbye("too_slow", "Too many changes are waiting for you, connect again")
                }
                Outgoing::End(End::Ended) => self.say_goodbye("ended", "The session was ended by an administrator"),
            }
        }
        if self.session.out.to_client.is_empty() {
            // Nothing to say of it.
            self.oldest = None;
        }
    }
}
