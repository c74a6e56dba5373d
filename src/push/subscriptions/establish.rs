//! The way of one subscription to where every change is told.

use std::collections::BTreeSet;
use std::sync::Arc;

use tokio::sync::Semaphore;
use tokio::time::Instant;

use super::service::Subscriptions;
use crate::mail::key::Key;
use crate::mail::rights::{Rights, Subject};
use crate::push::access::Grant;
use crate::push::outbox::{Resync, ResyncReason, SubscribeFailure};
use crate::push::session::LiveSession;
use crate::push::subscription::{Begin, Book, Renewal, Request, State, Subscription};

/// Sees to it that a subscription stands, or that who waits for it hears why it does not.
pub(super) async fn see_to(this: Arc<Subscriptions>, session: Arc<LiveSession>, id: u64) {
    let _ = establish(&this, &session, id, Instant::now(), None).await;
}

/// As [`see_to`], and tells how it went. `Withdrawn` where it was given up meanwhile. `asked_at`:
/// an answer to a question for the rights that began then is good enough; `turns`: a question waits
/// for one of these.
pub(super) async fn establish(
    this: &Arc<Subscriptions>,
    session: &Arc<LiveSession>,
    id: u64,
    asked_at: Instant,
    turns: Option<&Semaphore>,
) -> Result<(), SubscribeFailure> {
    let deadline = Instant::now() + this.timeout;
    let attempt = Attempt { this, session, id, asked_at, deadline, turns };
    loop {
        let (outcome, grant) = match tokio::time::timeout_at(deadline, attempt.ready()).await {
            Ok((outcome, grant)) => (outcome, grant),
            Err(_) => (Err(SubscribeFailure::Unavailable { kept: false }), None),
        };
        // Given up, or ended, meanwhile: that has been answered.
        let Some(mut book) = session.book() else { return Err(SubscribeFailure::Withdrawn) };
        let Some(subscription) = book.get(id) else { return Err(SubscribeFailure::Withdrawn) };
        match verdict(session, subscription, outcome, grant.as_ref()) {
            None => continue,
            Some(Ok(rights)) => {
                let is_of_shared = subscription.interest.is_of_shared();
                this.establish(session, subscription, rights, Renewal::Over);
                drop(book);
                if is_of_shared {
                    this.cover_what_came(session);
                    this.tell_too_many(session);
                }
                return Ok(());
            }
            Some(Err(failure)) => return Err(give_up(this, session, &mut book, id, failure)),
        }
    }
}

/// Whether the subscription may stand, now that an attempt has had this outcome; `None`: something
/// changed meanwhile, and it is tried again. `asked`: the grant that the attempt went by.
fn verdict(
    session: &LiveSession,
    subscription: &Subscription,
    outcome: Result<(), SubscribeFailure>,
    asked: Option<&Arc<Grant>>,
) -> Option<Result<Rights, SubscribeFailure>> {
    let is_same = match (&subscription.grant, asked) {
        (Some(own), Some(asked)) => Arc::ptr_eq(own, asked),
        (None, None) => true,
        // It may have become the user's own, or another's.
        _ => outcome.is_err(),
    };
    let needs = subscription.interest.needs();
    match (outcome, &subscription.grant) {
        _ if !is_same => None,
        (Ok(()), None) if subscription.key.is_owned_by(&session.user()) => Some(Ok(Rights::ALL)),
        (Ok(()), None) => Some(Err(SubscribeFailure::NotFound)),
        // `None`: doubted again since it was asked.
        (Ok(()), Some(grant)) => {
            let rights = grant.rights()?;
            Some(rights.contains(needs).then_some(rights).ok_or(SubscribeFailure::NotFound))
        }
        // Given while the denial was on its way: whoever saw to that found this subscription, and
        // left it to this task.
        (Err(SubscribeFailure::NotFound), Some(grant)) if grant.rights().is_none_or(|rights| rights.contains(needs)) => None,
        (Err(failure), _) => Some(Err(failure)),
    }
}

impl Subscriptions {
    /// Whether `subject` may subscribe to `key`, before a session is opened for it.
    pub async fn allows(self: &Arc<Self>, subject: &Subject, key: &Key) -> Result<(), SubscribeFailure> {
        let asked_at = Instant::now();
        let grant = match key {
            key if key.is_owned_by(&subject.user) => return Ok(()),
            Key::Mailbox(path) => self.access.hold(subject, path),
            Key::Account(_) => None,
        };
        let answer = match &grant {
            Some(grant) => tokio::time::timeout(self.timeout, self.access.ask(grant, asked_at)).await.ok().and_then(Result::ok),
            None => Some(Rights::NONE),
        };
        match answer {
            None => Err(SubscribeFailure::RightsUnknown { kept: false }),
            Some(rights) if rights.contains(Rights::LOOKUP) => Ok(()),
            Some(_) => {
                tokio::time::sleep_until(asked_at + self.access.options.denial).await;
                Err(SubscribeFailure::NotFound)
            }
        }
    }

    /// A mailbox that has just come to be shared is told of before its registration has settled;
    /// what a publisher that does not find it yet may leave out is made good then.
    fn begin_early(&self, session: &LiveSession, id: u64) {
        let Some(mut book) = session.book() else { return };
        let Some(subscription) = book.get(id) else { return };
        let State::Settling(Request { begin: Begin::Registered, .. }, _) = subscription.state else { return };
        let rights = subscription.grant.as_ref().and_then(|grant| grant.rights());
        let needs = subscription.interest.needs();
        if let Some(rights) = rights.filter(|rights| rights.contains(needs)) {
            self.establish(session, subscription, rights, Renewal::GoesOn);
            let keys = BTreeSet::from([subscription.key.clone()]);
            session.push_resync(Resync::Keys(keys), ResyncReason::Shared);
        }
    }
}

/// One attempt to bring a subscription to where it may stand.
struct Attempt<'a> {
    this: &'a Arc<Subscriptions>,
    session: &'a Arc<LiveSession>,
    id: u64,
    asked_at: Instant,
    deadline: Instant,
    turns: Option<&'a Semaphore>,
}

impl Attempt<'_> {
    /// Reads something of the subscription.
    fn look<T>(&self, look: impl FnOnce(&mut Subscription) -> T) -> Result<T, SubscribeFailure> {
        let mut book = self.session.book().ok_or(SubscribeFailure::Withdrawn)?;
        book.get(self.id).map(look).ok_or(SubscribeFailure::Withdrawn)
    }

    /// Allowed, registered, settled, and allowed still: until it was settled, nobody could be told
    /// of a change. With the grant that it went by.
    async fn ready(&self) -> (Result<(), SubscribeFailure>, Option<Arc<Grant>>) {
        match self.look(|subscription| (subscription.key.clone(), subscription.grant.clone())) {
            Ok((key, grant)) => (self.ready_by(&key, grant.as_ref()).await, grant),
            Err(failure) => (Err(failure), None),
        }
    }

    async fn ready_by(&self, key: &Key, grant: Option<&Arc<Grant>>) -> Result<(), SubscribeFailure> {
        let own = key.is_owned_by(&self.session.user());
        if !own {
            self.allowed(grant, self.asked_at).await?;
        }
        let settling = self.look(|subscription| subscription.register(&self.this.presence))?;
        if let Some(settled) = settling {
            self.this.begin_early(self.session, self.id);
            settled.await.map_err(|_| SubscribeFailure::Unavailable { kept: false })?;
            if !own {
                self.allowed(grant, Instant::now()).await?;
            }
        }
        if matches!(key, Key::Account(_)) {
            self.this.cover(self.session, self.id, self.deadline).await?;
        }
        Ok(())
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
        // Where it was given up meanwhile, that shows next.
        if self.look(|subscription| rights.contains(subscription.interest.needs())).unwrap_or(true) {
            return Ok(());
        }
        tokio::time::sleep_until(self.asked_at + self.this.access.options.denial).await;
        Err(SubscribeFailure::NotFound)
    }
}

/// Answers who waits. A subscription that stood before stands still, unless the right is gone; one
/// that never did is let go.
fn give_up(this: &Subscriptions, session: &LiveSession, book: &mut Book, id: u64, failure: SubscribeFailure) -> SubscribeFailure {
    let Some(subscription) = book.get(id) else { return SubscribeFailure::Withdrawn };
    let stands = subscription.is_in_hub();
    let (name, tags) = (subscription.key.clone(), subscription.end_task());
    let failure = match failure {
        SubscribeFailure::Unavailable { .. } => SubscribeFailure::Unavailable { kept: stands },
        SubscribeFailure::RightsUnknown { .. } => SubscribeFailure::RightsUnknown { kept: stands },
        other => other,
    };
    let is_kept =
        matches!(failure, SubscribeFailure::Unavailable { kept: true } | SubscribeFailure::RightsUnknown { kept: true });
    if !is_kept {
        let is_covered = subscription.interest.covered().is_some();
        if subscription.interest.stop_sharing() {
            this.uncover(session, book);
        }
        if stands && (is_covered || tags.is_empty()) {
            // It was told of before it had settled, and nobody has asked for it who could be
            // answered, or who asked has been answered already.
            this.revoke(session, book, id);
        } else if let Some(gone) = book.remove(id) {
            this.withdraw(session, &gone);
        }
    }
    // Once it is out of the hub: no event of it comes behind the answer.
    for tag in tags {
        session.push_settled(tag, name.clone(), Err(failure));
    }
    failure
}
