//! The way of one subscription to where every change is told.

use std::collections::BTreeSet;
use std::sync::Arc;

use tokio::sync::Semaphore;
use tokio::time::Instant;

use super::{Subscriptions, of_serial};
use crate::mail::key::Key;
use crate::mail::rights::{Rights, Subject};
use crate::push::access::Grant;
use crate::push::outbox::{Resync, ResyncReason, SubscribeFailure};
use crate::push::session::{Held, SessionHandle};

/// Sees to it that a holding stands, or that who waits for it hears why it does not.
pub(super) async fn see_to(this: Arc<Subscriptions>, session: Arc<SessionHandle>, serial: u64) {
    let _ = stand(&this, &session, serial, Instant::now(), None).await;
}

/// As [`see_to`], and tells how it went. `Withdrawn` where it was given up meanwhile. `begun`: an answer to a question for the
/// rights that began then is good enough; `turns`: what is asked waits for one of these.
pub(super) async fn stand(
    this: &Arc<Subscriptions>,
    session: &Arc<SessionHandle>,
    serial: u64,
    begun: Instant,
    turns: Option<&Semaphore>,
) -> Result<(), SubscribeFailure> {
    let deadline = Instant::now() + this.timeout;
    let way = Way { this, session, serial, begun, deadline, turns };
    loop {
        let (outcome, grant) = match tokio::time::timeout_at(deadline, way.ready()).await {
            Ok((outcome, grant)) => (outcome, grant),
            Err(_) => (Err(SubscribeFailure::Unavailable { kept: false }), None),
        };
        let mut guard = session.held();
        // Given up, or ended, meanwhile: that has been answered.
        let Some((held, at)) = of_serial(&mut guard, serial) else { return Err(SubscribeFailure::Withdrawn) };
        let holding = &mut held[at];
        let is_same = match (&holding.grant, &grant) {
            (Some(held), Some(asked)) => Arc::ptr_eq(held, asked),
            (None, None) => true,
            // It may have become the user's own, or another's.
            _ => outcome.is_err(),
        };
        let outcome = match (outcome, &holding.grant) {
            _ if !is_same => continue,
            (Ok(()), None) if holding.key.is_owned_by(&session.user()) => Ok(Rights::ALL),
            (Ok(()), None) => Err(SubscribeFailure::NotFound),
            (Ok(()), Some(grant)) => match grant.rights() {
                // Doubted again since it was asked.
                None => continue,
                Some(rights) => suffices(holding, rights).then_some(rights).ok_or(SubscribeFailure::NotFound),
            },
            // Given while the denial was on its way: whoever saw to that found this holding, and left it to it.
            (Err(SubscribeFailure::NotFound), Some(grant)) if grant.rights().is_none_or(|rights| suffices(holding, rights)) => {
                continue;
            }
            (Err(failure), _) => Err(failure),
        };
        match outcome {
            Ok(rights) => {
                holding.busy = false;
                let shared = holding.shared;
                this.activate(session, holding, rights);
                drop(guard);
                if shared {
                    this.cover_what_came(session);
                    this.tell_too_many(session);
                }
                return Ok(());
            }
            Err(failure) => {
                let failure = give_up(this, session, held, at, failure);
                return Err(failure);
            }
        }
    }
}

impl Subscriptions {
    /// Whether `subject` may subscribe to `key`, before a session is opened for it.
    pub async fn allows(self: &Arc<Self>, subject: &Subject, key: &Key) -> Result<(), SubscribeFailure> {
        let begun = Instant::now();
        let grant = match key {
            key if key.is_owned_by(&subject.user) => return Ok(()),
            Key::Mailbox(path) => self.access.hold(subject, path),
            Key::Account(_) => None,
        };
        let answer = match &grant {
            Some(grant) => tokio::time::timeout(self.timeout, self.access.ask(grant, begun)).await.ok().and_then(Result::ok),
            None => Some(Rights::NONE),
        };
        match answer {
            None => Err(SubscribeFailure::RightsUnknown { kept: false }),
            Some(rights) if rights.contains(Rights::LOOKUP) => Ok(()),
            Some(_) => {
                tokio::time::sleep_until(begun + self.access.options.denial).await;
                Err(SubscribeFailure::NotFound)
            }
        }
    }
}

impl Subscriptions {
    /// What has just come to be shared is told of before its registration has settled; what a publisher that does not find it
    /// yet may miss is made good then.
    fn begin_early(&self, session: &Arc<SessionHandle>, serial: u64) {
        let mut guard = session.held();
        let Some((held, at)) = of_serial(&mut guard, serial) else { return };
        let rights = held[at].grant.as_ref().and_then(|grant| grant.rights());
        if let Some(rights) = rights.filter(|rights| held[at].early && suffices(&held[at], *rights)) {
            self.activate(session, &mut held[at], rights);
            session.push_resync(Resync::Keys(BTreeSet::from([held[at].key.clone()])), ResyncReason::Shared);
        }
    }
}

/// Whether the rights allow what the holding is for: a mailbox that is only covered is covered to be read.
fn suffices(holding: &Held, rights: Rights) -> bool {
    rights.contains(if holding.asked.is_some() { Rights::LOOKUP } else { Rights::READ })
}

/// One holding on its way.
struct Way<'a> {
    this: &'a Arc<Subscriptions>,
    session: &'a Arc<SessionHandle>,
    serial: u64,
    begun: Instant,
    deadline: Instant,
    turns: Option<&'a Semaphore>,
}

impl Way<'_> {
    /// Allowed, registered, settled, and allowed still: until it was settled, nobody could be told of a change.
    async fn ready(&self) -> (Result<(), SubscribeFailure>, Option<Arc<Grant>>) {
        let Self { this, session, serial, .. } = *self;
        let Some((key, grant, own)) = of_serial(&mut session.held(), serial).map(|(held, at)| {
            let own = held[at].key.is_owned_by(&session.user());
            (held[at].key.clone(), held[at].grant.clone(), own)
        }) else {
            return (Err(SubscribeFailure::Withdrawn), None);
        };
        let outcome = async {
            if !own {
                self.allowed(grant.as_ref(), self.begun).await?;
            }
            let settling = {
                let mut guard = session.held();
                let Some((held, at)) = of_serial(&mut guard, serial) else { return Err(SubscribeFailure::Withdrawn) };
                let lease = held[at].lease.get_or_insert_with(|| this.presence.acquire(&key));
                this.presence.settling(lease)
            };
            if let Some(settled) = settling {
                this.begin_early(session, serial);
                settled.await.map_err(|_| SubscribeFailure::Unavailable { kept: false })?;
                if !own {
                    self.allowed(grant.as_ref(), Instant::now()).await?;
                }
            }
            if matches!(key, Key::Account(_)) {
                this.cover(session, serial, self.deadline).await?;
            }
            Ok(())
        };
        (outcome.await, grant)
    }

    /// Asks for the rights. A denial takes as long as any other, so that it does not say why (I-9).
    async fn allowed(&self, grant: Option<&Arc<Grant>>, since: Instant) -> Result<(), SubscribeFailure> {
        let answer = match grant {
            Some(grant) => {
                let _turn = match self.turns {
                    Some(turns) => turns.acquire().await.ok(),
                    None => None,
                };
                self.this.access.ask(grant, since).await
            }
            None => Ok(Rights::NONE),
        };
        let rights = answer.map_err(|_| SubscribeFailure::RightsUnknown { kept: false })?;
        let is_enough = of_serial(&mut self.session.held(), self.serial).is_none_or(|(held, at)| suffices(&held[at], rights));
        if is_enough {
            return Ok(());
        }
        tokio::time::sleep_until(self.begun + self.this.access.options.denial).await;
        Err(SubscribeFailure::NotFound)
    }
}

/// Answers who waits. What stood before still stands, unless the right is gone; what never did is let go.
fn give_up(
    this: &Subscriptions,
    session: &Arc<SessionHandle>,
    held: &mut Vec<Held>,
    at: usize,
    failure: SubscribeFailure,
) -> SubscribeFailure {
    let holding = &mut held[at];
    holding.busy = false;
    let stands = holding.is_active();
    let failure = match failure {
        SubscribeFailure::Unavailable { .. } => SubscribeFailure::Unavailable { kept: stands },
        SubscribeFailure::RightsUnknown { .. } => SubscribeFailure::RightsUnknown { kept: stands },
        other => other,
    };
    let (waiting, key) = (std::mem::take(&mut holding.waiting), holding.key.clone());
    let kept = matches!(failure, SubscribeFailure::Unavailable { kept: true } | SubscribeFailure::RightsUnknown { kept: true });
    if !kept {
        let (serial, shared) = (holding.serial, std::mem::take(&mut holding.shared));
        if shared {
            this.uncover(session, held);
        }
        match held.iter().position(|h| h.serial == serial) {
            // It was told of before it had settled, and nobody has asked for it who could be answered, or who asked has been
            // answered already.
            Some(at) if stands && (held[at].covered.is_some() || waiting.is_empty()) => this.revoke(session, held, at),
            Some(at) => {
                let gone = held.swap_remove(at);
                this.withdraw(session, gone);
            }
            None => {}
        }
    }
    // Once it is out of the hub: no event of it comes behind the answer.
    for tag in waiting {
        session.push_settled(tag, key.clone(), Err(failure));
    }
    failure
}
