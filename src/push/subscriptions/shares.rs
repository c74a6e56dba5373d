//! Account subscriptions that cover the mailboxes shared with their user, and are kept so.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use futures::future::BoxFuture;
use futures::stream::{self, StreamExt};
use tracing::warn;

use super::standing::stand;
use super::{Subscriptions, of_serial};
use crate::mail::key::Key;
use crate::mail::path::MailboxPath;
use crate::mail::rights::Identifier;
use crate::push::hub::Wanted;
use crate::push::outbox::{Resync, ResyncReason, SubscribeFailure};
use crate::push::session::{Held, SessionHandle};

/// Mailboxes of one subscription that are seen to at once.
const AT_ONCE: usize = 32;

/// Before what could not be asked is asked again; doubled each time.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// Before those are looked at again of which it could not be said whether they may be covered.
const SOON: Duration = Duration::from_secs(5);

/// One session that is kept covering.
pub(super) struct Covering {
    session: Weak<SessionHandle>,
    /// Whether somebody is at it, and whether it is to be done again then.
    state: AtomicU8,
}

const IDLE: u8 = 0;
const BUSY: u8 = 1;
const AGAIN: u8 = 2;
/// To be done once the account's subscription stands.
const PUT_OFF: u8 = 3;

impl Subscriptions {
    /// Covers what is shared now, if the account subscription of that serial number asks for it.
    pub(super) fn cover<'a>(
        self: &'a Arc<Self>,
        session: &'a Arc<SessionHandle>,
        serial: u64,
    ) -> BoxFuture<'a, Result<(), SubscribeFailure>> {
        // Boxed: what it covers stands by the same way.
        Box::pin(self.cover_now(session, serial))
    }

    async fn cover_now(self: &Arc<Self>, session: &Arc<SessionHandle>, serial: u64) -> Result<(), SubscribeFailure> {
        if of_serial(&mut session.held(), serial).is_none_or(|(held, at)| !held[at].shared) {
            return Ok(());
        }
        // First: what changes meanwhile is looked at once more.
        self.note_covering(session);
        let begun = self.take_in_all(session, serial).await?;
        if !self.see_to_all(session, begun, |_| ()).await {
            // It stands without them; they come with a word of their own.
            self.cover_again_for(session);
        }
        Ok(())
    }

    fn note_covering(&self, session: &Arc<SessionHandle>) {
        let mut covering = self.covering();
        if !covering.iter().any(|known| std::ptr::eq(known.session.as_ptr(), Arc::as_ptr(session))) {
            covering.push(Arc::new(Covering { session: Arc::downgrade(session), state: AtomicU8::new(IDLE) }));
        }
    }

    /// Takes in every mailbox that is shared and not covered yet; they are to be seen to. `account`: the subscription that
    /// wants it.
    async fn take_in_all(&self, session: &Arc<SessionHandle>, account: u64) -> Result<Vec<(Key, u64)>, SubscribeFailure> {
        let shared = self.access.shared_with(&session.subject()).await;
        let shared = shared.map_err(|_| SubscribeFailure::RightsUnknown { kept: false })?;
        if shared.len() > self.access.options.shared_mailboxes {
            return Err(SubscribeFailure::TooManyShared);
        }
        let mut guard = session.held();
        // Given up, or not wanted any more, while it was listed.
        let wanted = of_serial(&mut guard, account).and_then(|(held, at)| held[at].shared.then(|| held[at].wanted()));
        let (Some(wanted), Some(held)) = (wanted, guard.as_mut()) else { return Err(SubscribeFailure::Withdrawn) };
        // Of what was shared all along the reply to the subscription tells.
        let early = held.iter().any(|holding| holding.serial == account && holding.is_active());
        Ok(shared.into_iter().filter_map(|path| self.take_in(session, held, path, wanted, early)).collect())
    }

    /// Sees to those that were taken in; returns whether it could be said of all whether they may be covered. `told`: what to
    /// do with each that is covered from now on.
    async fn see_to_all(
        self: &Arc<Self>,
        session: &Arc<SessionHandle>,
        begun: Vec<(Key, u64)>,
        told: impl Fn(Key) + Send + Sync,
    ) -> bool {
        let seen = stream::iter(begun).map(|(key, serial)| async move { (key, stand(self, session, serial).await) });
        let mut seen = seen.buffer_unordered(AT_ONCE);
        let mut complete = true;
        while let Some((key, outcome)) = seen.next().await {
            match outcome {
                Ok(()) => told(key),
                // Not to be read after all.
                Err(SubscribeFailure::NotFound | SubscribeFailure::Withdrawn) => {}
                Err(_) => complete = false,
            }
        }
        complete
    }

    /// The serial number of a mailbox that is to be seen to now.
    fn take_in(
        &self,
        session: &Arc<SessionHandle>,
        held: &mut Vec<Held>,
        path: MailboxPath,
        wanted: Wanted,
        early: bool,
    ) -> Option<(Key, u64)> {
        let key = Key::Mailbox(path);
        if let Some(holding) = held.iter_mut().find(|holding| holding.key == key) {
            let changed = holding.covered.replace(wanted) != Some(wanted);
            if changed && holding.is_active() {
                self.hub.subscribe(&holding.key, session, holding.wanted(), holding.grant.as_ref(), || ());
            }
            return None;
        }
        let mut holding = self.holding(session, key.clone());
        (holding.covered, holding.busy, holding.early) = (Some(wanted), true, early);
        let serial = holding.serial;
        held.push(holding);
        Some((key, serial))
    }

    /// The account subscription does not cover anything any more.
    pub(super) fn uncover(&self, session: &Arc<SessionHandle>, held: &mut Vec<Held>) {
        self.stop_covering(session);
        let mut at = 0;
        while at < held.len() {
            let holding = &mut held[at];
            match (holding.covered.take().is_some(), holding.asked.is_some()) {
                (true, false) => {
                    let gone = held.swap_remove(at);
                    self.withdraw(session, gone);
                    continue;
                }
                (true, true) if holding.is_active() => {
                    self.hub.subscribe(&holding.key, session, holding.wanted(), holding.grant.as_ref(), || ());
                }
                _ => {}
            }
            at += 1;
        }
    }

    pub(super) fn stop_covering(&self, session: &Arc<SessionHandle>) {
        self.covering().retain(|covering| {
            covering.session.strong_count() > 0 && !std::ptr::eq(covering.session.as_ptr(), Arc::as_ptr(session))
        });
    }

    /// What is shared with this identifier may be something else now; `None`: with anybody.
    pub(super) fn cover_again(self: &Arc<Self>, identifier: Option<&Identifier>) {
        let all: Vec<Arc<Covering>> = self.covering().clone();
        for covering in all {
            let Some(session) = covering.session.upgrade() else { continue };
            if identifier.is_none_or(|identifier| session.subject().is(identifier, false)) {
                self.begin_again(covering);
            }
        }
    }

    pub(super) fn cover_again_for(self: &Arc<Self>, session: &Arc<SessionHandle>) {
        let of = |covering: &&Arc<Covering>| std::ptr::eq(covering.session.as_ptr(), Arc::as_ptr(session));
        let covering = self.covering().iter().find(of).cloned();
        if let Some(covering) = covering {
            self.begin_again(covering);
        }
    }

    /// The account's subscription stands: what came meanwhile is seen to.
    pub(super) fn cover_what_came(self: &Arc<Self>, session: &Arc<SessionHandle>) {
        let of = |covering: &&Arc<Covering>| std::ptr::eq(covering.session.as_ptr(), Arc::as_ptr(session));
        let covering = self.covering().iter().find(of).cloned();
        if let Some(covering) = covering.filter(|covering| covering.state.load(Ordering::Acquire) == PUT_OFF) {
            self.begin_again(covering);
        }
    }

    fn begin_again(self: &Arc<Self>, covering: Arc<Covering>) {
        if matches!(covering.state.swap(AGAIN, Ordering::AcqRel), IDLE | PUT_OFF) {
            tokio::spawn(keep(self.clone(), covering));
        }
    }
}

/// Covers what has come, until there is nothing new.
async fn keep(this: Arc<Subscriptions>, covering: Arc<Covering>) {
    let mut pause = FIRST_PAUSE;
    loop {
        covering.state.store(BUSY, Ordering::Release);
        let Some(session) = covering.session.upgrade() else { return };
        let account = session.held().iter().flatten().find(|h| h.shared).map(|h| (h.serial, h.is_active()));
        match account {
            Some((_, false)) if covering.state.compare_exchange(BUSY, PUT_OFF, Ordering::AcqRel, Ordering::Acquire).is_ok() => {
                return;
            }
            Some((serial, true)) => match this.take_in_all(&session, serial).await {
                Ok(begun) if begun.is_empty() => {}
                // Beside it: what comes next is not kept waiting until these have settled.
                Ok(begun) => drop(tokio::spawn(take_up(this.clone(), covering.clone(), session.clone(), begun))),
                Err(SubscribeFailure::TooManyShared) => {
                    warn!(session = %session.id, "too many mailboxes are shared with a user: new ones are not covered");
                }
                Err(SubscribeFailure::Withdrawn) => {}
                Err(_) => {
                    drop(session);
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(this.access.options.recheck.max(FIRST_PAUSE));
                    continue;
                }
            },
            Some(_) | None => {}
        }
        if covering.state.compare_exchange(BUSY, IDLE, Ordering::AcqRel, Ordering::Acquire).is_ok() {
            return;
        }
    }
}

/// Tells of each that is covered from now on.
async fn take_up(this: Arc<Subscriptions>, covering: Arc<Covering>, session: Arc<SessionHandle>, begun: Vec<(Key, u64)>) {
    let tell = |key: Key| session.push_resync(Resync::Keys(BTreeSet::from([key])), ResyncReason::Shared);
    if !this.see_to_all(&session, begun, tell).await {
        drop(session);
        tokio::time::sleep(SOON).await;
        this.begin_again(covering);
    }
}
