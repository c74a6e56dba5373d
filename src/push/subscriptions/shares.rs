//! Account subscriptions that cover the mailboxes shared with their user.
//!
//! The mailboxes that may be shared are listed ([`super::listings`] says when). Whoever may write
//! an ACL can put anybody's name into it, so being listed means little: the rights on each mailbox
//! are asked for, and those that the user may read are covered, up to a limit. More than that is
//! never a reason to refuse the account, and never left out silently: the client is told at each
//! listing.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures::future::BoxFuture;
use futures::stream::{self, StreamExt};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;
use tracing::warn;

use super::coverage::{Coverage, QUESTIONS_AT_ONCE};
use super::establish::establish;
use super::service::{Subscriptions, WeakSubscriptions};
use crate::mail::key::Key;
use crate::mail::path::MailboxPath;
use crate::mail::rights::Rights;
use crate::push::access::Grant;
use crate::push::access::source::NoAnswer;
use crate::push::hub::Filter;
use crate::push::outbox::{Resync, ResyncReason, SubscribeFailure};
use crate::push::session::LiveSession;
use crate::push::subscription::{Begin, Book, Interest, Subscription};

/// One listing asks for so many mailboxes, for each that may be covered: others' ACLs may name many
/// that cannot be read.
const QUESTIONS: usize = 2;
/// Before mailboxes are looked at again of which it could not be said whether they may be covered.
const RETRY_PAUSE: Duration = Duration::from_secs(5);
/// The reply to an account's subscription waits so long, at most, for what is shared: a
/// registration that hangs is one share's trouble.
const REPLY_WAIT: Duration = Duration::from_secs(5);
/// At most one line about users who have more shares than are covered in this time.
const WARN_INTERVAL: Duration = Duration::from_secs(60);

impl Subscriptions {
    /// Covers what is shared now, if the account subscription of that id asks for it. Returns once
    /// those subscriptions stand, or have taken so long that the client is told of each by itself;
    /// in time for a reply at `deadline`.
    pub(super) fn cover<'a>(
        self: &'a Arc<Self>,
        session: &'a Arc<LiveSession>,
        id: u64,
        deadline: Instant,
    ) -> BoxFuture<'a, Result<(), SubscribeFailure>> {
        // Boxed: what it covers is established by the same function.
        Box::pin(self.cover_now(session, id, deadline))
    }

    async fn cover_now(self: &Arc<Self>, session: &Arc<LiveSession>, id: u64, deadline: Instant) -> Result<(), SubscribeFailure> {
        if session.book().is_none_or(|mut book| wants_shared(&mut book, id).is_none()) {
            return Ok(());
        }
        // First: what changes meanwhile is looked at once more.
        let covering = self.note_covering(session);
        let Some(place) = covering.place().await else { return Err(SubscribeFailure::Withdrawn) };
        let listed = self.list(session, id).await?;
        let wait = REPLY_WAIT.min(deadline.saturating_duration_since(Instant::now()) / 2);
        let reply = Reply::default();
        // A task of its own, which goes on if this one ends: a client that asks for one of these
        // mailboxes by itself waits for it.
        let taking_up = tokio::spawn(take_up(Listing::new(self, &covering, session, id, &reply.0), listed, place));
        let _ = tokio::time::timeout(wait, taking_up).await;
        Ok(())
    }

    /// What is shared and not subscribed to yet; what is, is covered from now on. `account`: the
    /// subscription that wants it.
    pub(super) async fn list(&self, session: &Arc<LiveSession>, account: u64) -> Result<Vec<MailboxPath>, SubscribeFailure> {
        let shared = self.access.shared_with(&session.subject()).await;
        let shared = shared.map_err(|_| SubscribeFailure::RightsUnknown { kept: false })?;
        // Given up, or not wanted any more, while it was listed.
        let Some(mut book) = session.book() else { return Err(SubscribeFailure::Withdrawn) };
        let Some(filter) = wants_shared(&mut book, account) else { return Err(SubscribeFailure::Withdrawn) };
        let mut is_known = vec![false; shared.len()];
        for subscription in book.iter_mut() {
            let Key::Mailbox(path) = &subscription.key else { continue };
            let Ok(at) = shared.binary_search(path) else { continue };
            is_known[at] = true;
            self.cover_known(session, subscription, filter);
        }
        Ok(shared.into_iter().zip(is_known).filter_map(|(path, is_known)| (!is_known).then_some(path)).collect())
    }

    fn cover_known(&self, session: &LiveSession, subscription: &mut Subscription, filter: Filter) {
        if subscription.interest.cover(filter) {
            self.update_hub(session, subscription);
        }
    }

    /// The account subscription does not cover anything any more.
    pub(super) fn uncover(&self, session: &LiveSession, book: &mut Book) {
        self.stop_covering(session);
        let gone = book.extract(|subscription| match subscription.interest.without_cover() {
            None => true,
            Some(left) => {
                if std::mem::replace(&mut subscription.interest, left) != left {
                    self.update_hub(session, subscription);
                }
                false
            }
        });
        for gone in &gone {
            self.withdraw(session, gone);
        }
    }

    fn note_covering(&self, session: &Arc<LiveSession>) -> Arc<Coverage> {
        let mut all = self.covering();
        if let Some(known) = all.iter().find(|known| known.is_of(session)) {
            return known.clone();
        }
        let covering = Coverage::new(session);
        all.push(covering.clone());
        covering
    }

    pub(super) fn stop_covering(&self, session: &LiveSession) {
        self.covering().retain(|covering| covering.session.strong_count() > 0 && !covering.is_of(session));
    }

    pub(super) fn covering_of(&self, session: &LiveSession) -> Option<Arc<Coverage>> {
        self.covering().iter().find(|covering| covering.is_of(session)).cloned()
    }

    /// Tells that not everything is covered, if so, once the account's subscription stands.
    pub(super) fn tell_too_many(&self, session: &Arc<LiveSession>) {
        let Some(covering) = self.covering_of(session) else { return };
        let is_account = |known: &&Subscription| known.interest.is_of_shared() && known.is_in_hub();
        let account = session.book().and_then(|book| book.iter().find(is_account).map(|account| account.key.clone()));
        if let Some(account) = account
            && covering.is_exceeded.swap(false, Ordering::AcqRel)
        {
            session.push_resync(Resync::Keys(BTreeSet::from([account])), ResyncReason::TooManyShared);
        }
    }

    fn warn_of_too_many(&self, session: &LiveSession) {
        let mut warned_at = self.warned_at.lock();
        if warned_at.is_none_or(|at| at.elapsed() >= WARN_INTERVAL) {
            *warned_at = Some(Instant::now());
            warn!(session = %session.id, "more is shared with a user than access.shared_mailboxes covers: the client is told");
        }
    }
}

/// What the account's subscription of that id wants, if it covers what is shared.
fn wants_shared(book: &mut Book, account: u64) -> Option<Filter> {
    book.get(account).filter(|account| account.interest.is_of_shared()).map(|account| account.interest.filter())
}

/// Becomes true when dropped: the reply to an account's subscription has been given, or will not
/// be.
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
    covering: Arc<Coverage>,
    session: Arc<LiveSession>,
    account: u64,
    /// No reply will tell of what is covered from now on.
    is_replied: Arc<AtomicBool>,
}

impl Listing {
    pub fn new(
        this: &Arc<Subscriptions>,
        covering: &Arc<Coverage>,
        session: &Arc<LiveSession>,
        account: u64,
        is_replied: &Arc<AtomicBool>,
    ) -> Arc<Self> {
        let (this, covering, session) = (this.clone(), covering.clone(), session.clone());
        Arc::new(Self { this, covering, session, account, is_replied: is_replied.clone() })
    }

    async fn ask(&self, path: MailboxPath) -> Answer {
        let _turn = self.covering.questions.acquire().await;
        let asked_at = Instant::now();
        let grant = self.this.access.hold(&self.session.subject(), &path);
        let rights = match &grant {
            Some(grant) => self.this.access.ask(grant, asked_at).await,
            None => Ok(Rights::NONE),
        };
        Answer { path, asked_at, rights, _grant: grant }
    }

    /// Covers a mailbox that may be read.
    fn cover(&self, path: &MailboxPath) -> CoverOutcome {
        let key = Key::Mailbox(path.clone());
        let Some(mut book) = self.session.book() else { return CoverOutcome::NotWanted };
        let Some(filter) = wants_shared(&mut book, self.account) else { return CoverOutcome::NotWanted };
        // Of what was shared all along the reply to the subscription tells.
        let begin = match book.get(self.account) {
            Some(account) if account.is_in_hub() => Begin::Registered,
            _ => Begin::Settled,
        };
        if let Some(known) = book.iter_mut().find(|known| known.key == key) {
            self.this.cover_known(&self.session, known, filter);
            return CoverOutcome::Known;
        }
        if book.named(&key).is_some() {
            // The client knows another mailbox by this name still: once it has heard what became of
            // that, this is done again.
            return CoverOutcome::Known;
        }
        let covered = book.iter().filter(|known| known.interest.covered().is_some()).count();
        if covered >= self.this.access.options.shared_mailboxes {
            return CoverOutcome::Full;
        }
        let subscription = self.this.requested(&self.session, key.clone(), Interest::Covered(filter), begin);
        let id = subscription.id;
        book.add(subscription);
        CoverOutcome::Begun(key, id)
    }

    /// Whether it could be said if it may be covered. `asked_at`: when the question for its rights
    /// did.
    async fn establish(self: Arc<Self>, key: Key, id: u64, asked_at: Instant) -> bool {
        match establish(&self.this, &self.session, id, asked_at, Some(&self.covering.questions)).await {
            Ok(()) => {
                if self.is_replied.load(Ordering::Acquire) {
                    self.tell(key);
                }
                true
            }
            // Not to be read after all.
            Err(SubscribeFailure::NotFound | SubscribeFailure::Withdrawn) => true,
            // The client was told of it early, and it stays subscribed, so that no listing covers
            // it again.
            Err(SubscribeFailure::Unavailable { kept: true } | SubscribeFailure::RightsUnknown { kept: true }) => {
                tokio::spawn(self.settle_late(key, id));
                true
            }
            Err(_) => false,
        }
    }

    fn tell(&self, key: Key) {
        self.session.push_resync_of(&key, ResyncReason::Shared);
    }

    /// Until it has settled, publishers may not find it: the client is told once it has.
    async fn settle_late(self: Arc<Self>, key: Key, id: u64) {
        loop {
            tokio::time::sleep(RETRY_PAUSE).await;
            {
                let Some(mut book) = self.session.book() else { return };
                let Some(subscription) = book.get(id) else { return };
                if subscription.is_busy() {
                    // The client has asked for it by itself. Should that fail, it is tried here
                    // again.
                    continue;
                }
                subscription.set_busy();
            }
            match establish(&self.this, &self.session, id, Instant::now(), Some(&self.covering.questions)).await {
                Err(SubscribeFailure::Unavailable { kept: true } | SubscribeFailure::RightsUnknown { kept: true }) => {}
                Ok(()) => return self.tell(key),
                Err(_) => return,
            }
        }
    }
}

/// The rights on a mailbox that was listed.
struct Answer {
    path: MailboxPath,
    /// When the question began.
    asked_at: Instant,
    rights: Result<Rights, NoAnswer>,
    /// Keeps the answer until the mailbox is covered.
    _grant: Option<Arc<Grant>>,
}

/// What became of a mailbox that was listed.
enum CoverOutcome {
    /// A task is to see to it: by its id.
    Begun(Key, u64),
    /// It is subscribed to meanwhile.
    Known,
    /// No more are covered.
    Full,
    /// The account's subscription is gone, or wants nothing of others.
    NotWanted,
}

/// Covers what the user may read; returns once all of those subscriptions stand, or cannot. `place`
/// is given back once all rights have been asked for.
pub(super) async fn take_up(listing: Arc<Listing>, listed: Vec<MailboxPath>, place: OwnedSemaphorePermit) {
    let most = listing.this.access.options.shared_mailboxes.saturating_mul(QUESTIONS);
    let mut is_exceeded = listed.len() > most;
    let mut is_complete = true;
    // A task each, so that none keeps another waiting, and each comes to an end.
    let mut tasks = Vec::new();
    let asked = in_turn(listed).into_iter().take(most).map(|path| listing.ask(path));
    let mut asked = stream::iter(asked).buffer_unordered(QUESTIONS_AT_ONCE);
    while let Some(asked) = asked.next().await {
        match &asked.rights {
            Ok(rights) if rights.contains(Rights::READ) => match listing.cover(&asked.path) {
                CoverOutcome::Begun(key, id) => tasks.push(tokio::spawn(listing.clone().establish(key, id, asked.asked_at))),
                CoverOutcome::Known => {}
                CoverOutcome::Full => {
                    is_exceeded = true;
                    break;
                }
                CoverOutcome::NotWanted => return,
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
    for task in tasks {
        is_complete &= task.await.unwrap_or(false);
    }
    if !is_complete {
        tokio::spawn(list_again(Arc::downgrade(&listing.this), listing.covering.clone()));
    }
}

/// Lists again what could not be asked for, in a while and in its turn; once, however many listings
/// met it.
async fn list_again(subscriptions: WeakSubscriptions, covering: Arc<Coverage>) {
    if !covering.retry.schedule() {
        return;
    }
    tokio::time::sleep(RETRY_PAUSE).await;
    // First: what cannot be asked for from now on is put off anew.
    covering.retry.begin();
    if let Some(this) = subscriptions.upgrade() {
        this.stand_in_line(covering);
    }
}

/// One mailbox of each owner after the other, so that nobody's many keep out another's few. The
/// paths are sorted.
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
