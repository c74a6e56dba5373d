//! Authentication: verifies tokens, admits sessions, and subscribes returning clients again.

use super::{Connection, RETRY_AFTER_MS};
use crate::edge::auth::{AuthError, Identity, Scopes};
use crate::edge::gateway::{may, now};
use crate::mail::key::Key;
use crate::mail::rights::Subject;
use crate::push::clock::unix_ms;
use crate::push::hub::Filter;
use crate::push::session::Transport;
use crate::push::subscriptions::Wish;
use crate::wire::ws::close::{CloseReason, Goodbye};
use crate::wire::ws::command::{CommandError, Resume, Subscribe};
use crate::wire::ws::push::Resumed;
use crate::wire::ws::session::Verified;

/// A returning client's subscriptions, until all have settled.
pub(super) struct Resuming {
    id: u32,
    verified: Verified,
    pub outstanding: Vec<Key>,
    pub results: Vec<Resumed>,
}

/// A token that waits to be verified, in the order in which they came. Verifying may wait for a key
/// set; only this session waits with it.
pub(super) enum Verifying {
    Connect { id: u32, token: String, resume: Option<Resume> },
    Refresh { id: u32, token: String },
}

impl Connection {
    /// A place in the table of sessions, if there is one left.
    pub(super) fn admit(&mut self, verified: &Verified) -> Result<(), (CommandError, Goodbye)> {
        let opened = self.gateway.open_session(self.id.clone(), verified.subject.clone(), Transport::Websocket, self.peer);
        self.handle = Some(opened.map_err(|error| {
            let after = self.gateway.until_ghosts_are_gone();
            let error = CommandError::too_many_sessions(error.to_string(), after.as_millis() as u64);
            (error, Goodbye { reason: CloseReason::TooManySessions, reconnect_after: Some(after) })
        })?);
        self.unauthenticated = None;
        // Checked after the session was added to the table: a drain that began before is noticed
        // here.
        if self.gateway.is_draining() {
            return Err((CommandError::unavailable("the node is going down", RETRY_AFTER_MS), self.until_later()));
        }
        self.drained = None;
        Ok(())
    }

    pub(super) async fn verify(&mut self, verifying: Verifying) {
        match verifying {
            Verifying::Connect { id, token, resume } => {
                let verdict = self.gateway.verify(&token, self.peer.ip()).await;
                self.authenticate(id, verdict, resume);
            }
            Verifying::Refresh { id, token } => {
                let verdict = match self.gateway.verify(&token, self.peer.ip()).await {
                    Ok(identity) if may(&identity, Scopes::PUSH) => Ok(verified(&identity)),
                    Ok(_) => Err(CommandError::forbidden("the token lacks the scope push")),
                    Err(error) => Err(refused_token(&error)),
                };
                let subject = verdict.as_ref().ok().map(|verified| verified.subject.clone());
                if let Some(handle) = &self.handle {
                    // The user may have been renamed since the last token.
                    self.session.handle_user(handle.user());
                    if let Some(subject) = subject.filter(|subject| subject.user == handle.user()) {
                        self.gateway.subscriptions.change_subject(handle, subject);
                    }
                }
                let actions = self.session.handle_refreshed(now(), id, verdict);
                self.act(actions);
            }
        }
    }

    fn authenticate(&mut self, id: u32, verdict: Result<Identity, AuthError>, resume: Option<Resume>) {
        let verdict = match verdict {
            Ok(identity) if !may(&identity, Scopes::PUSH) => {
                Err((CommandError::forbidden("the token lacks the scope push"), CloseReason::Forbidden.into()))
            }
            Ok(identity) => {
                let verified = verified(&identity);
                self.admit(&verified).map(|()| verified)
            }
            Err(error) => {
                let reason = match error {
                    // The client's clock and ours may differ: another token, or this one later, may
                    // be good.
                    AuthError::Expired | AuthError::NotYetValid => CloseReason::TokenExpired,
                    _ if error.is_transient() => CloseReason::Unavailable,
                    _ => CloseReason::BadToken,
                };
                Err((refused_token(&error), reason.into()))
            }
        };
        match (verdict, resume) {
            (Ok(verified), Some(resume)) => self.resume(id, verified, resume),
            (verdict, _) => {
                let actions = self.session.handle_authenticated(now(), id, verdict, None);
                self.act(actions);
            }
        }
    }

    /// Subscribes a returning client to what it had; the reply to `connect` waits until all of it
    /// has settled. What it missed is not replayed: it reads its state.
    fn resume(&mut self, id: u32, verified: Verified, resume: Resume) {
        let mut resuming = Box::new(Resuming { id, verified, outstanding: Vec::new(), results: Vec::new() });
        let Some(handle) = self.handle.clone() else { return };
        for Subscribe { key, shared, types, fields } in resume.subscriptions {
            if resuming.outstanding.contains(&key) {
                continue;
            }
            let wish = Wish { filter: Filter { types, fields }, shared };
            self.gateway.subscriptions.subscribe(&handle, id, key.clone(), wish);
            resuming.outstanding.push(key);
        }
        self.resuming = Some(resuming);
        self.finish_resume();
    }

    pub(super) fn finish_resume(&mut self) {
        if self.resuming.as_ref().is_some_and(|r| r.outstanding.is_empty())
            && let Some(done) = self.resuming.take()
        {
            let actions = self.session.handle_authenticated(now(), done.id, Ok(done.verified), Some(done.results));
            self.act(actions);
        }
    }
}

fn refused_token(error: &AuthError) -> CommandError {
    if error.is_transient() {
        CommandError::unavailable(error.to_string(), RETRY_AFTER_MS)
    } else {
        CommandError::token(error.name(), error.to_string())
    }
}

pub(super) fn verified(identity: &Identity) -> Verified {
    Verified { subject: Subject::new(identity.user.clone(), &identity.groups), expires_at: identity.expires_at.max(unix_ms()) }
}
