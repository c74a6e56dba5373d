//! Subscribing: allowed, registered and settled first, then in the hub, then told (I-4, I-5, I-10).
//!
//! `standing` brings a subscription to where every change is told; `review` does what follows when rights change;
//! `moves` follows mailboxes and users that are renamed, or deleted; `shares` keeps an account subscription covering what
//! is shared with its user, and `listings` says when it looks again.

mod listings;
mod moves;
mod review;
mod shares;
mod standing;

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::Instant;

use super::access::{Access, Grant, Notice};
use super::delivery::Delivery;
use super::hub::{Hub, Wanted};
use super::metrics::Metrics;
use super::outbox::{Standing, SubscribeFailure};
use super::presence::{Lease, Presence};
use super::session::{Held, SessionHandle};
use super::sessions::Sessions;
use crate::lock::{Mutex, MutexGuard};
use crate::mail::event::Change;
use crate::mail::key::Key;
use crate::mail::rights::Rights;

use self::listings::Covering;

/// What subscribing needs; one a node.
pub struct Subscriptions {
    pub hub: Arc<Hub>,
    pub presence: Arc<Presence>,
    pub sessions: Arc<Sessions>,
    pub access: Arc<Access>,
    pub metrics: Arc<Metrics>,
    /// How long a subscription may take before the client is told to try again.
    timeout: Duration,
    /// Milliseconds since 1970, UTC.
    clock: fn() -> u64,
    /// Tells one holding of a key from a later one of the same session.
    serial: AtomicU64,
    /// Sessions whose account subscription covers what is shared with them.
    covering: Mutex<Vec<Arc<Covering>>>,
    /// Those of them whose turn to look again comes.
    line: mpsc::UnboundedSender<Arc<Covering>>,
    /// When it was last logged that not everything is covered.
    warned: Mutex<Option<Instant>>,
    /// Holdings whose mailbox has a name that is not told yet; no fewer than there are.
    moving: AtomicUsize,
}

/// What subscriptions are made of.
pub struct Parts {
    pub hub: Arc<Hub>,
    pub presence: Arc<Presence>,
    pub sessions: Arc<Sessions>,
    pub access: Arc<Access>,
    pub notices: mpsc::UnboundedReceiver<Notice>,
    pub metrics: Arc<Metrics>,
    pub timeout: Duration,
    pub clock: fn() -> u64,
}

/// A wish to hear of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wish {
    pub wanted: Wanted,
    /// Of the user's own account: the mailboxes that are shared with them, too.
    pub shared: bool,
}

impl Subscriptions {
    /// Starts what looks after rights; it ends when the last `Arc` is dropped.
    pub fn start(parts: Parts) -> Arc<Self> {
        let (line, waiting) = mpsc::unbounded_channel();
        let subscriptions = Arc::new(Self {
            hub: parts.hub,
            presence: parts.presence,
            sessions: parts.sessions,
            access: parts.access,
            metrics: parts.metrics,
            timeout: parts.timeout,
            clock: parts.clock,
            serial: AtomicU64::default(),
            covering: Mutex::default(),
            line,
            warned: Mutex::default(),
            moving: AtomicUsize::default(),
        });
        tokio::spawn(review::heed(Arc::downgrade(&subscriptions), parts.notices));
        tokio::spawn(listings::pace(Arc::downgrade(&subscriptions), waiting));
        tokio::spawn(listings::recheck(Arc::downgrade(&subscriptions)));
        subscriptions
    }

    /// Begins a subscription; its outcome comes out of the session's outbox with `tag`, whatever it is. Subscribing
    /// again changes what is wanted, and has an outcome of its own.
    pub fn subscribe(self: &Arc<Self>, session: &Arc<SessionHandle>, tag: u32, key: Key, wish: Wish) {
        let mut guard = session.held();
        // An ended session takes nothing more.
        let Some(held) = guard.as_mut() else { return };
        // Mailboxes are shared with the user, whose own account alone can cover them.
        let shared = wish.shared && matches!(key, Key::Account(_)) && key.is_owned_by(&session.user());
        if !shared && held.iter_mut().any(|h| h.key == key && std::mem::take(&mut h.shared)) {
            self.uncover(session, held);
        }
        let at = held.iter().position(|h| *h.name() == key).unwrap_or_else(|| {
            held.push(self.holding(session, key));
            held.len() - 1
        });
        let holding = &mut held[at];
        (holding.asked, holding.shared) = (Some(wish.wanted), shared);
        holding.waiting.push(tag);
        if holding.busy {
            // Whoever sees to it speaks for all that wait.
            return;
        }
        let own = holding.grant.is_none() && holding.key.is_owned_by(&session.user());
        if own && !shared {
            let lease = holding.lease.get_or_insert_with(|| self.presence.acquire(&holding.key));
            if self.presence.settling(lease).is_none() {
                return self.activate(session, holding, Rights::ALL);
            }
        }
        holding.busy = true;
        tokio::spawn(standing::see_to(self.clone(), session.clone(), holding.serial));
    }

    /// A holding that nobody has asked for yet.
    fn holding(&self, session: &SessionHandle, key: Key) -> Held {
        let subject = session.subject();
        let grant = match &key {
            Key::Mailbox(path) if !path.is_owned_by(&subject.user) => self.access.hold(&subject, path),
            _ => None,
        };
        Held {
            key,
            lease: None,
            grant,
            since: 0,
            serial: self.serial.fetch_add(1, Ordering::Relaxed),
            asked: None,
            covered: None,
            early: false,
            shared: false,
            rights: Rights::NONE,
            lost: false,
            waiting: Vec::new(),
            busy: false,
            watched: false,
            moving: None,
        }
    }

    /// Watches a key: its events wait in the outbox from now on, before its registration is acknowledged (I-4), and how
    /// that stands is told whenever it changes. For sessions that tell by themselves what they have seen already, and whose
    /// mail server has let them in; that it still would is asked from now on.
    pub fn watch(self: &Arc<Self>, session: &Arc<SessionHandle>, key: &Key) {
        let mut guard = session.held();
        // An ended session takes nothing more.
        let Some(held) = guard.as_mut() else { return };
        if held.iter().any(|holding| holding.key == *key) {
            return;
        }
        let mut holding = self.holding(session, key.clone());
        if let Key::Mailbox(path) = key
            && !path.is_owned_by(&session.user())
        {
            holding.grant = self.access.hold_for_imap(session, path);
            if holding.grant.is_none() {
                // Nobody can be asked: it stays the mail server's business.
                return session.push_standing(key.clone(), Standing::Unavailable);
            }
        }
        let lease = self.presence.acquire(key);
        self.hub.subscribe(key, session, Wanted::EVERYTHING, holding.grant.as_ref(), || ());
        self.presence.listen(&lease, session);
        if let Some(grant) = &holding.grant {
            self.confirm_once_settled(&lease, grant);
        }
        let since = (self.clock)().max(1);
        let grant = holding.grant.clone();
        // A mailbox at a time: an IMAP session has one selected.
        held.reserve_exact(1);
        held.push(Held { lease: Some(lease), since, rights: Rights::READ, watched: true, ..holding });
        self.sessions.note(true, session.subscription_record(key.clone(), since));
        drop(guard);
        if let Some(grant) = grant {
            match grant.rights() {
                // Known from others of the same user, and perhaps lost.
                Some(_) => self.review(&grant),
                None => self.access.ask_if_unknown(&grant),
            }
        }
    }

    /// What the session itself learned of its user's rights on a watched key, after [`super::outbox::Outgoing::AskRights`]
    /// or unasked; `None`: the mail server did not answer.
    pub fn learned(&self, session: &SessionHandle, key: &Key, rights: Option<Rights>) {
        let grant = session.held().iter().flatten().find(|held| held.key == *key).and_then(|held| held.grant.clone());
        let (Some(grant), Some(rights)) = (grant, rights) else { return };
        if grant.session().is_some_and(|asker| std::ptr::eq(asker.as_ptr(), session)) {
            self.access.session_reported(&grant, rights);
        }
    }

    /// The session has heard that it is to ask: what it learns from now on counts.
    pub fn asks(&self, session: &SessionHandle, key: &Key) {
        if let Some(grant) = session.held().iter().flatten().find(|held| held.key == *key).and_then(|held| held.grant.as_ref()) {
            grant.session_is_aware();
        }
    }

    /// Puts a holding into the hub, and answers everybody who waits for it before any event can come.
    fn activate(&self, session: &Arc<SessionHandle>, holding: &mut Held, rights: Rights) {
        let first = !holding.is_active();
        if first {
            holding.since = (self.clock)().max(1);
        }
        holding.rights = rights;
        let waiting = std::mem::take(&mut holding.waiting);
        self.hub.subscribe(&holding.key, session, holding.wanted(), holding.grant.as_ref(), || {
            for tag in waiting {
                session.push_settled(tag, holding.key.clone(), Ok(rights));
            }
        });
        self.look_again(holding, rights);
        if first {
            self.sessions.note(true, session.subscription_record(holding.key.clone(), holding.since));
        }
    }

    /// Rights that changed between the look at them and the hub are reviewed: nobody else would.
    fn look_again(&self, holding: &Held, rights: Rights) {
        if let Some(grant) = &holding.grant
            && grant.rights() != Some(rights)
        {
            self.access.notice(grant);
        }
    }

    /// Asks for the rights once more when the key is settled: until then no change of them could reach this node.
    fn confirm_once_settled(self: &Arc<Self>, lease: &Lease, grant: &Arc<Grant>) {
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

    pub fn unsubscribe(&self, session: &Arc<SessionHandle>, key: &Key) {
        let mut guard = session.held();
        let Some(held) = guard.as_mut() else { return };
        let Some(at) = held.iter().position(|h| h.name() == key) else { return };
        for tag in std::mem::take(&mut held[at].waiting) {
            session.push_settled(tag, key.clone(), Err(SubscribeFailure::Withdrawn));
        }
        if std::mem::take(&mut held[at].shared) {
            self.uncover(session, held);
        }
        let Some(at) = held.iter().position(|h| h.name() == key) else { return };
        let holding = &mut held[at];
        holding.asked = None;
        match holding.covered {
            // An account subscription goes on wanting it.
            Some(_) if holding.is_active() => {
                self.hub.subscribe(key, session, holding.wanted(), holding.grant.as_ref(), || ());
            }
            Some(_) => {}
            None => {
                let gone = held.swap_remove(at);
                self.withdraw(session, gone);
            }
        }
    }

    /// The session has ended: everything that it held is let go.
    pub fn end(&self, session: &Arc<SessionHandle>) {
        let held = session.held().take();
        let covers = held.iter().flatten().any(|holding| holding.shared);
        for gone in held.into_iter().flatten() {
            self.withdraw(session, gone);
        }
        if covers {
            self.stop_covering(session);
        }
        self.sessions.remove(session);
    }

    fn withdraw(&self, session: &Arc<SessionHandle>, gone: Held) {
        if let (true, Some(lease)) = (gone.watched, &gone.lease) {
            self.presence.unlisten(lease, session);
        }
        if gone.is_active() {
            self.hub.unsubscribe(&gone.key, session);
        }
        if gone.stands() {
            self.sessions.note(false, session.subscription_record(gone.name().clone(), gone.since));
        }
    }

    /// What an event changes in the books of this node, once it has been delivered. In the order of the queue: what follows
    /// in it is delivered by what stands then.
    pub fn heed(self: &Arc<Self>, delivery: &Arc<Delivery>) {
        let event = &delivery.event;
        match &event.change {
            Change::AclChange { identifier, rights } => self.access.acl_changed(&event.mailbox, identifier, rights),
            Change::MailboxRename { to } => self.renamed(delivery, to),
            Change::AccountRename { to } => self.renamed_account(delivery, to),
            Change::MailboxDelete => self.deleted(delivery),
            // Another mailbox of the name, perhaps.
            Change::MailboxCreate => self.access.doubt_mailbox(&event.mailbox),
            _ => {}
        }
    }

    fn covering(&self) -> MutexGuard<'_, Vec<Arc<Covering>>> {
        self.covering.lock()
    }
}

/// The holding of that serial number: it may have been given up, and taken again, since.
fn of_serial(held: &mut Option<Vec<Held>>, serial: u64) -> Option<(&mut Vec<Held>, usize)> {
    let held = held.as_mut()?;
    let at = held.iter().position(|h| h.serial == serial)?;
    Some((held, at))
}

type WeakSubscriptions = Weak<Subscriptions>;

#[cfg(test)]
mod tests;
