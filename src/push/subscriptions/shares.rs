//! Account subscriptions that cover the mailboxes shared with their user.
//!
//! What may be shared is listed ([`super::listings`] says when). Whoever may write an ACL can put anybody's name into it, so
//! being listed means little: the rights on each are asked for, and those that may be read are covered, up to a limit. What is
//! beyond it is never a reason to refuse the account, and never left out silently: the client is told at each listing.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures::future::BoxFuture;
use futures::stream::{self, StreamExt};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;
use tracing::warn;

use super::listings::{self, Covering};
use super::standing::stand;
use super::{Subscriptions, of_serial};
use crate::mail::key::Key;
use crate::mail::path::MailboxPath;
use crate::mail::rights::Rights;
use crate::push::access::Grant;
use crate::push::access::source::NoAnswer;
use crate::push::hub::Wanted;
use crate::push::outbox::{Resync, ResyncReason, SubscribeFailure};
use crate::push::session::{Held, SessionHandle};

/// Questions for the rights on what is shared with one session that are on their way at once.
pub(super) const QUESTIONS_AT_ONCE: usize = 32;
/// One listing asks for so many mailboxes, for each that may be covered: others' ACLs may name many that cannot be read.
const QUESTIONS: usize = 2;
/// Before those are looked at again of which it could not be said whether they may be covered.
pub(super) const SOON: Duration = Duration::from_secs(5);
/// The reply to an account's subscription waits so long, at most, for what is shared: a registration that hangs is one share's
/// trouble.
const PATIENCE: Duration = Duration::from_secs(5);
/// At most one line about users who have more shares than are covered in this time.
const WARN_AGAIN: Duration = Duration::from_secs(60);

impl Subscriptions {
    /// Covers what is shared now, if the account subscription of that serial number asks for it. Returns once that stands, or
    /// has taken so long that it comes with a word of its own; in time for a reply at `deadline`.
    pub(super) fn cover<'a>(
        self: &'a Arc<Self>,
        session: &'a Arc<SessionHandle>,
        serial: u64,
        deadline: Instant,
    ) -> BoxFuture<'a, Result<(), SubscribeFailure>> {
        // Boxed: what it covers stands by the same way.
        Box::pin(self.cover_now(session, serial, deadline))
    }

    async fn cover_now(
        self: &Arc<Self>,
        session: &Arc<SessionHandle>,
        serial: u64,
        deadline: Instant,
    ) -> Result<(), SubscribeFailure> {
        if of_serial(&mut session.held(), serial).is_none_or(|(held, at)| !held[at].shared) {
            return Ok(());
        }
        // First: what changes meanwhile is looked at once more.
        let covering = self.note_covering(session);
        let Some(place) = covering.place().await else { return Err(SubscribeFailure::Withdrawn) };
        let listed = self.list(session, serial).await?;
        let patience = PATIENCE.min(deadline.saturating_duration_since(Instant::now()) / 2);
        let reply = Reply::default();
        // A task of its own, whatever becomes of this one: who asks for one of them by itself waits for it.
        let taking_up = tokio::spawn(take_up(Listing::new(self, &covering, session, serial, &reply.0), listed, place));
        let _ = tokio::time::timeout(patience, taking_up).await;
        Ok(())
    }

    /// What is shared and not held yet; what is held is covered from now on. `account`: the subscription that wants it.
    pub(super) async fn list(&self, session: &Arc<SessionHandle>, account: u64) -> Result<Vec<MailboxPath>, SubscribeFailure> {
        let shared = self.access.shared_with(&session.subject()).await;
        let shared = shared.map_err(|_| SubscribeFailure::RightsUnknown { kept: false })?;
        let mut guard = session.held();
        // Given up, or not wanted any more, while it was listed.
        let Some((held, at)) = of_serial(&mut guard, account).filter(|(held, at)| held[*at].shared) else {
            return Err(SubscribeFailure::Withdrawn);
        };
        let wanted = held[at].wanted();
        let mut is_held = vec![false; shared.len()];
        for holding in held {
            let Key::Mailbox(path) = &holding.key else { continue };
            let Ok(at) = shared.binary_search(path) else { continue };
            is_held[at] = true;
            self.cover_held(session, holding, wanted);
        }
        Ok(shared.into_iter().zip(is_held).filter_map(|(path, is_held)| (!is_held).then_some(path)).collect())
    }

    fn cover_held(&self, session: &Arc<SessionHandle>, holding: &mut Held, wanted: Wanted) {
        let changed = holding.covered.replace(wanted) != Some(wanted);
        if changed && holding.is_active() {
            self.hub.subscribe(&holding.key, session, holding.wanted(), holding.grant.as_ref(), || ());
        }
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

    /// Tells that not everything is covered, if so, once the account's subscription stands.
    pub(super) fn tell_too_many(&self, session: &Arc<SessionHandle>) {
        let Some(covering) = self.covering_of(session) else { return };
        let account = session.held().iter().flatten().find(|h| h.shared && h.is_active()).map(|h| h.key.clone());
        if let Some(account) = account
            && covering.is_exceeded.swap(false, Ordering::AcqRel)
        {
            session.push_resync(Resync::Keys(BTreeSet::from([account])), ResyncReason::TooManyShared);
        }
    }

    fn warn_of_too_many(&self, session: &SessionHandle) {
        let mut warned = self.warned.lock();
        if warned.is_none_or(|at| at.elapsed() >= WARN_AGAIN) {
            *warned = Some(Instant::now());
            warn!(session = %session.id, "more is shared with a user than access.shared_mailboxes covers: the client is told");
        }
    }
}

/// Whether the reply to an account's subscription has been given, or will not be.
#[derive(Default)]
struct Reply(Arc<AtomicBool>);

impl Drop for Reply {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

/// What was listed, on its way to being covered.
pub(super) struct Listing {
    this: Arc<Subscriptions>,
    covering: Arc<Covering>,
    session: Arc<SessionHandle>,
    account: u64,
    /// No reply will tell of what is covered from now on.
    is_replied: Arc<AtomicBool>,
}

impl Listing {
    pub fn new(
        this: &Arc<Subscriptions>,
        covering: &Arc<Covering>,
        session: &Arc<SessionHandle>,
        account: u64,
        is_replied: &Arc<AtomicBool>,
    ) -> Arc<Self> {
        let (this, covering, session) = (this.clone(), covering.clone(), session.clone());
        Arc::new(Self { this, covering, session, account, is_replied: is_replied.clone() })
    }

    async fn ask(&self, path: MailboxPath) -> Asked {
        let _turn = self.covering.questions.acquire().await;
        let begun = Instant::now();
        let grant = self.this.access.hold(&self.session.subject(), &path);
        let rights = match &grant {
            Some(grant) => self.this.access.ask(grant, begun).await,
            None => Ok(Rights::NONE),
        };
        Asked { path, begun, rights, _grant: grant }
    }

    /// Takes in a mailbox that may be read.
    fn take_in(&self, path: &MailboxPath) -> Taken {
        let key = Key::Mailbox(path.clone());
        let mut guard = self.session.held();
        let Some((held, at)) = of_serial(&mut guard, self.account).filter(|(held, at)| held[*at].shared) else {
            return Taken::NotWanted;
        };
        // Of what was shared all along the reply to the subscription tells.
        let (wanted, early) = (held[at].wanted(), held[at].is_active());
        let mut covered = 0;
        for holding in held.iter_mut() {
            if holding.key == key {
                self.this.cover_held(&self.session, holding, wanted);
                return Taken::Already;
            }
            if *holding.name() == key {
                // The client knows another mailbox by this name still: once it has heard what became of that, this is done again.
                return Taken::Already;
            }
            covered += usize::from(holding.covered.is_some());
        }
        if covered >= self.this.access.options.shared_mailboxes {
            return Taken::Full;
        }
        let mut holding = self.this.holding(&self.session, key.clone());
        (holding.covered, holding.busy, holding.early) = (Some(wanted), true, early);
        let serial = holding.serial;
        held.push(holding);
        Taken::In(key, serial)
    }

    /// Whether it could be said if it may be covered. `begun`: when the question for its rights did.
    async fn stand(self: Arc<Self>, key: Key, serial: u64, begun: Instant) -> bool {
        match stand(&self.this, &self.session, serial, begun, Some(&self.covering.questions)).await {
            Ok(()) => {
                if self.is_replied.load(Ordering::Acquire) {
                    self.tell(key);
                }
                true
            }
            // Not to be read after all.
            Err(SubscribeFailure::NotFound | SubscribeFailure::Withdrawn) => true,
            // Told of early, it is held from now on, so that no listing takes it in again.
            Err(SubscribeFailure::Unavailable { kept: true } | SubscribeFailure::RightsUnknown { kept: true }) => {
                tokio::spawn(self.settle_late(key, serial));
                true
            }
            Err(_) => false,
        }
    }

    fn tell(&self, key: Key) {
        self.session.push_resync_of(&key, ResyncReason::Shared);
    }

    /// Until it has settled, publishers may not find it: that it has is told, whenever it does.
    async fn settle_late(self: Arc<Self>, key: Key, serial: u64) {
        loop {
            tokio::time::sleep(SOON).await;
            {
                let mut guard = self.session.held();
                let Some((held, at)) = of_serial(&mut guard, serial) else { return };
                if std::mem::replace(&mut held[at].busy, true) {
                    // The client has asked for it by itself. Should that fail, it is tried here again.
                    continue;
                }
            }
            match stand(&self.this, &self.session, serial, Instant::now(), Some(&self.covering.questions)).await {
                Err(SubscribeFailure::Unavailable { kept: true } | SubscribeFailure::RightsUnknown { kept: true }) => {}
                Ok(()) => return self.tell(key),
                Err(_) => return,
            }
        }
    }
}

/// The rights on a mailbox that was listed.
struct Asked {
    path: MailboxPath,
    /// When the question began.
    begun: Instant,
    rights: Result<Rights, NoAnswer>,
    /// What is known stays known until it is taken in.
    _grant: Option<Arc<Grant>>,
}

/// What became of a mailbox that was listed.
enum Taken {
    /// To be seen to, by its serial number.
    In(Key, u64),
    /// It is held meanwhile.
    Already,
    /// No more are covered.
    Full,
    /// The account's subscription is gone, or wants nothing of others.
    NotWanted,
}

/// Covers what may be read; returns once all of that stands, or cannot. `place` is given back as soon as all is asked.
pub(super) async fn take_up(listing: Arc<Listing>, listed: Vec<MailboxPath>, place: OwnedSemaphorePermit) {
    let most = listing.this.access.options.shared_mailboxes.saturating_mul(QUESTIONS);
    let mut is_exceeded = listed.len() > most;
    let mut is_complete = true;
    // Tasks of their own, so that none keeps another waiting, and each comes to an end.
    let mut standing = Vec::new();
    let asked = in_turn(listed).into_iter().take(most).map(|path| listing.ask(path));
    let mut asked = stream::iter(asked).buffer_unordered(QUESTIONS_AT_ONCE);
    while let Some(asked) = asked.next().await {
        match &asked.rights {
            Ok(rights) if rights.contains(Rights::READ) => match listing.take_in(&asked.path) {
                Taken::In(key, serial) => standing.push(tokio::spawn(listing.clone().stand(key, serial, asked.begun))),
                Taken::Already => {}
                Taken::Full => {
                    is_exceeded = true;
                    break;
                }
                Taken::NotWanted => return,
            },
            Ok(_) => {}
            Err(_) => is_complete = false,
        }
    }
    drop((asked, place));
    listing.covering.is_exceeded.store(is_exceeded, Ordering::Release);
    if is_exceeded {
        listing.this.warn_of_too_many(&listing.session);
        listing.this.tell_too_many(&listing.session);
    }
    for stood in standing {
        is_complete &= stood.await.unwrap_or(false);
    }
    if !is_complete {
        tokio::spawn(listings::again_soon(Arc::downgrade(&listing.this), listing.covering.clone()));
    }
}

/// One mailbox of each owner after the other, so that nobody's many keep out another's few. The paths are sorted.
fn in_turn(paths: Vec<MailboxPath>) -> Vec<MailboxPath> {
    let mut turns: Vec<(usize, MailboxPath)> = Vec::with_capacity(paths.len());
    for path in paths {
        let turn = match turns.last() {
            Some((turn, last)) if (last.namespace(), last.owner()) == (path.namespace(), path.owner()) => turn + 1,
            _ => 0,
        };
        turns.push((turn, path));
    }
    // Stable, so that each owner's keep their order.
    turns.sort_by_key(|(turn, _)| *turn);
    turns.into_iter().map(|(_, path)| path).collect()
}
