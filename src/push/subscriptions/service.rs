//! What all of subscribing shares: the parts of the node that it uses, and the steps that several
//! of its files take.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::Instant;

use super::coverage::Coverage;
use crate::lock::{Mutex, MutexGuard};
use crate::mail::key::Key;
use crate::mail::rights::Rights;
use crate::push::access::{Access, Grant, Notice};
use crate::push::handle::SessionHandle;
use crate::push::hub::Hub;
use crate::push::metrics::Metrics;
use crate::push::outbox::SubscribeFailure;
use crate::push::presence::{Lease, Presence};
use crate::push::session::LiveSession;
use crate::push::sessions::Sessions;
use crate::push::subscription::{Begin, Book, Interest, Renewal, Request, State, Subscription};

/// What subscribing needs; one a node.
pub struct Subscriptions {
    pub hub: Arc<Hub>,
    pub presence: Arc<Presence>,
    pub sessions: Arc<Sessions>,
    pub access: Arc<Access>,
    pub metrics: Arc<Metrics>,
    /// How long a subscription may take before the client is told to try again.
    pub(super) timeout: Duration,
    /// Milliseconds since 1970, UTC.
    clock: fn() -> u64,
    /// The id of the next subscription.
    next_id: AtomicU64,
    /// Sessions whose account subscription covers what is shared with them.
    covering: Mutex<Vec<Arc<Coverage>>>,
    /// Those of them whose turn to look again comes.
    pub(super) line: mpsc::UnboundedSender<Arc<Coverage>>,
    /// When it was last logged that not everything is covered.
    pub(super) warned_at: Mutex<Option<Instant>>,
    /// Subscriptions that are [`State::Moving`]; no fewer than there are.
    pub(super) moving: AtomicUsize,
}

/// What subscriptions are made of.
pub struct Parts {
    pub hub: Arc<Hub>,
    pub presence: Arc<Presence>,
    pub sessions: Arc<Sessions>,
    pub access: Arc<Access>,
    pub notices: mpsc::UnboundedReceiver<Notice>,
    pub metrics: Arc<Metrics>,
    /// How long a subscription may take before the client is told to try again.
    pub timeout: Duration,
    /// Milliseconds since 1970, UTC.
    pub clock: fn() -> u64,
}

pub(super) type WeakSubscriptions = Weak<Subscriptions>;

impl Subscriptions {
    /// `line`: those whose turn to be listed again comes. Returns the notices, which are to be
    /// handled.
    pub(super) fn new(parts: Parts, line: mpsc::UnboundedSender<Arc<Coverage>>) -> (Arc<Self>, mpsc::UnboundedReceiver<Notice>) {
        let subscriptions = Self {
            hub: parts.hub,
            presence: parts.presence,
            sessions: parts.sessions,
            access: parts.access,
            metrics: parts.metrics,
            timeout: parts.timeout,
            clock: parts.clock,
            next_id: AtomicU64::default(),
            covering: Mutex::default(),
            line,
            warned_at: Mutex::default(),
            moving: AtomicUsize::default(),
        };
        (Arc::new(subscriptions), parts.notices)
    }

    pub(super) fn covering(&self) -> MutexGuard<'_, Vec<Arc<Coverage>>> {
        self.covering.lock()
    }

    pub(super) fn next_id(&self) -> u64 {
        self.next_id.fetch_add(1, Ordering::Relaxed)
    }

    /// Milliseconds since 1970, UTC.
    pub(super) fn now(&self) -> u64 {
        (self.clock)()
    }

    /// The session of a handle, unless it has ended.
    pub(super) fn session_of(&self, handle: &SessionHandle) -> Option<Arc<LiveSession>> {
        self.sessions.get(&handle.id)
    }

    /// The live sessions under a key in the hub.
    pub fn sessions_under(&self, key: &Key) -> impl Iterator<Item = Arc<LiveSession>> {
        self.hub.sessions(key).into_iter().filter_map(|handle| self.session_of(&handle))
    }

    /// A subscription that nobody sees to yet.
    pub(super) fn requested(&self, session: &LiveSession, key: Key, interest: Interest, begin: Begin) -> Subscription {
        let subject = session.subject();
        let grant = match &key {
            Key::Mailbox(path) if !path.is_owned_by(&subject.user) => self.access.hold(&subject, path),
            _ => None,
        };
        let state = State::Requested(Request { tags: Vec::new(), begin });
        Subscription { key, id: self.next_id(), interest, grant, state }
    }

    /// Puts a subscription into the hub, and answers everybody who waits for it before any event
    /// can come.
    pub(super) fn establish(&self, session: &LiveSession, subscription: &mut Subscription, rights: Rights, renewal: Renewal) {
        let is_new = !subscription.is_in_hub();
        let tags = subscription.stand(self.now(), rights, renewal);
        self.put_into_hub(session, subscription, tags, rights);
        self.notice_change(subscription, rights);
        if let (true, Some(since)) = (is_new, subscription.since()) {
            self.sessions.note(true, session.subscription_record(subscription.key.clone(), since));
        }
    }

    /// `tags` are answered before any event of the key can come.
    pub(super) fn put_into_hub(&self, session: &LiveSession, subscription: &Subscription, tags: Vec<u32>, rights: Rights) {
        let Subscription { key, interest, grant, .. } = subscription;
        self.hub.subscribe(key, session.handle(), interest.filter(), grant.as_ref(), || {
            for tag in tags {
                session.push_settled(tag, key.clone(), Ok(rights));
            }
        });
    }

    /// The hub goes by the filter that there is now, and by the grant that there is now.
    pub(super) fn update_hub(&self, session: &LiveSession, subscription: &Subscription) {
        if subscription.is_in_hub() {
            self.put_into_hub(session, subscription, Vec::new(), Rights::NONE);
        }
    }

    /// Rights that changed between the look at them and the hub are reviewed: nobody else would.
    pub(super) fn notice_change(&self, subscription: &Subscription, rights: Rights) {
        if let Some(grant) = &subscription.grant
            && grant.rights() != Some(rights)
        {
            self.access.notice(grant);
        }
    }

    /// Asks for the rights once more when the key is settled: until then no change of them could
    /// reach this node.
    pub(super) fn confirm_once_settled(self: &Arc<Self>, lease: &Lease, grant: &Arc<Grant>) {
        if let (Some(settling), None) = (self.presence.settling(lease), grant.session()) {
            let (this, grant) = (Arc::downgrade(self), Arc::downgrade(grant));
            tokio::spawn(async move {
                let _ = settling.await;
                if let (Some(this), Some(grant)) = (this.upgrade(), grant.upgrade()) {
                    let _ = this.access.ask(&grant, Instant::now()).await;
                }
            });
        }
    }

    /// Lets go of a subscription that is not in the session's book any more. Who waits for it is
    /// answered by the caller.
    pub(super) fn withdraw(&self, session: &LiveSession, gone: &Subscription) {
        if let (Interest::Watched, Some(lease)) = (gone.interest, gone.lease()) {
            self.presence.unlisten(lease, session.handle());
        }
        if gone.is_in_hub() {
            self.hub.unsubscribe(&gone.key, session.handle());
        }
        if let Some(since) = gone.since() {
            self.sessions.note(false, session.subscription_record(gone.name().clone(), since));
        }
    }

    /// As [`Self::withdraw`], and tells those who wait for it why it does not stand: once it is out
    /// of the hub, so that no event of it comes behind the answer.
    pub(super) fn refuse(&self, session: &LiveSession, mut gone: Subscription, failure: SubscribeFailure) {
        let (name, tags) = (gone.name().clone(), gone.take_tags());
        self.withdraw(session, &gone);
        for tag in tags {
            session.push_settled(tag, name.clone(), Err(failure));
        }
    }

    /// Ends a subscription whose right is lost: from here on nothing of it is told, and that is.
    pub(super) fn revoke(&self, session: &LiveSession, book: &mut Book, id: u64) {
        let Some(gone) = book.remove(id) else { return };
        let name = gone.name().clone();
        self.refuse(session, gone, SubscribeFailure::NotFound);
        Metrics::count(&self.metrics.revoked, "transport", session.transport.as_str());
        session.push_revoked(name);
    }
}
