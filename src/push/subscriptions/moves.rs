//! Mailboxes and users that are called otherwise now, or are gone: their subscriptions go with them, or end.
//!
//! Nothing is missed on the way: a session is registered under the new name before it lets the old one go, and told to
//! resync once that registration has settled, for publishers may not have found it before.

use std::collections::BTreeSet;
use std::sync::Arc;

use tokio::time::Instant;

use super::Subscriptions;
use crate::mail::event::{Change, Event};
use crate::mail::key::Key;
use crate::mail::path::MailboxPath;
use crate::mail::rights::Rights;
use crate::mail::user::UserName;
use crate::push::access::{Grant, Need};
use crate::push::delivery::Delivery;
use crate::push::outbox::{Resync, ResyncReason, SubscribeFailure};
use crate::push::session::SessionHandle;

/// What becomes of one mailbox: both names, and the news as it is told to its own watchers.
struct Move {
    from: Key,
    to: MailboxPath,
    news: Arc<Delivery>,
    /// It was delivered as an event of this mailbox already.
    is_told: bool,
}

impl Subscriptions {
    /// A mailbox, and everything below it, is called otherwise now.
    pub(super) fn renamed(self: &Arc<Self>, delivery: &Arc<Delivery>, to: &MailboxPath) {
        let from = &delivery.event.mailbox;
        self.move_all(delivery, |path| path.renamed(from, to));
    }

    /// A user, and every mailbox of theirs, is called otherwise now.
    pub(super) fn renamed_account(self: &Arc<Self>, delivery: &Arc<Delivery>, to: &UserName) {
        let Some(from) = delivery.event.mailbox.owner_name().filter(|from| from != to) else { return };
        let renamed = self.sessions.rename_user(&from, to);
        self.move_all(delivery, |path| {
            let is_theirs = path.is_owned_by(&from);
            is_theirs.then(|| MailboxPath::new(path.namespace(), to.as_str(), path.name()).ok()).flatten()
        });
        let (old, new) = (Key::Account(from), Key::Account(to.clone()));
        for session in self.hub.sessions(&old) {
            self.move_session(&session, &old, new.clone(), None);
        }
        for session in &renamed {
            self.regroup(session);
        }
    }

    /// The mailbox is gone, and its subscriptions with it. An IMAP session ends by itself.
    pub(super) fn deleted(self: &Arc<Self>, delivery: &Arc<Delivery>) {
        let mailbox = &delivery.event.mailbox;
        let key = Key::Mailbox(mailbox.clone());
        for session in self.hub.sessions(&key) {
            let mut guard = session.held();
            let Some(held) = guard.as_mut() else { continue };
            let Some(at) = held.iter().position(|holding| holding.key == key) else { continue };
            if held[at].watched {
                // It has the mailbox selected: that it is gone it may know before its rights are known.
                if grant_withholds(held[at].grant.as_ref()) {
                    session.push_event(delivery, Default::default());
                }
                continue;
            }
            let need = Need::Rights(Rights::LOOKUP);
            if held[at].grant.as_ref().is_some_and(|grant| !grant.allows(need)) {
                // That it is gone was not told.
                self.revoke(&session, held, at);
                continue;
            }
            let gone = held.swap_remove(at);
            for tag in &gone.waiting {
                session.push_settled(*tag, key.clone(), Err(SubscribeFailure::NotFound));
            }
            self.withdraw(&session, gone);
            session.push_moved(key.clone(), None);
        }
        // Whoever is about to subscribe asks again: a mailbox made anew under this name is another one.
        self.access.doubt_all(mailbox);
    }

    fn move_all(self: &Arc<Self>, delivery: &Arc<Delivery>, new_name: impl Fn(&MailboxPath) -> Option<MailboxPath>) {
        let is_moved = |key: &Key| matches!(key, Key::Mailbox(path) if new_name(path).is_some_and(|new| new != *path));
        for session in self.sessions.all() {
            self.turn_back(&session, &is_moved);
        }
        // Those above first: what is told of a mailbox comes before what is told of those below it.
        let mut keys = self.hub.keys_where(is_moved);
        keys.sort_unstable();
        for from in keys {
            let Key::Mailbox(path) = &from else { continue };
            let Some(to) = new_name(path) else { continue };
            let is_told = *path == delivery.event.mailbox && matches!(delivery.event.change, Change::MailboxRename { .. });
            let news = if is_told { delivery.clone() } else { Arc::new(derived(delivery, path, &to)) };
            self.access.doubt_all(path);
            let news = Arc::new(Move { from: from.clone(), to, news, is_told });
            for session in self.hub.sessions(&from) {
                self.move_on(session, news.clone());
            }
        }
    }

    /// Subscriptions under a name that is no more, and which do not stand yet, are to be tried again.
    fn turn_back(&self, session: &Arc<SessionHandle>, is_moved: &impl Fn(&Key) -> bool) {
        let mut guard = session.held();
        let Some(held) = guard.as_mut() else { return };
        while let Some(at) = held.iter().position(|holding| !holding.is_active() && is_moved(&holding.key)) {
            let gone = held.swap_remove(at);
            for tag in gone.waiting {
                session.push_settled(tag, gone.key.clone(), Err(SubscribeFailure::Unavailable { kept: false }));
            }
        }
    }

    fn move_on(self: &Arc<Self>, session: Arc<SessionHandle>, news: Arc<Move>) {
        let fields = Default::default();
        let Some((watched, grant)) =
            session.held().iter().flatten().find(|h| h.key == news.from).map(|h| (h.watched, h.grant.clone()))
        else {
            return;
        };
        let is_owner = grant.is_none();
        match grant {
            // An IMAP session moves itself; what it tells its client names no mailbox.
            _ if watched => {
                if !news.is_told || grant_withholds(grant.as_ref()) {
                    session.push_event(&news.news, fields);
                }
            }
            None if news.to.is_owned_by(&session.user()) => {
                if !news.is_told {
                    session.push_event(&news.news, fields);
                }
                self.move_session(&session, &news.from, Key::Mailbox(news.to.clone()), None);
            }
            // The new name is told to those only who may look it up; so it is where the mailbox leaves its owner.
            _ => drop(tokio::spawn(self.clone().move_sharee(session, news, is_owner))),
        }
    }

    /// `was_owner`: the hub has told it of its own mailbox's new name.
    async fn move_sharee(self: Arc<Self>, session: Arc<SessionHandle>, news: Arc<Move>, was_owner: bool) {
        loop {
            let subject = session.subject();
            let own = news.to.is_owned_by(&subject.user);
            let grant = if own { None } else { self.access.hold(&subject, &news.to) };
            let rights = match &grant {
                None if own => Rights::ALL,
                None => Rights::NONE,
                Some(grant) => {
                    let asked = tokio::time::timeout(self.timeout, self.access.ask(grant, Instant::now())).await;
                    asked.ok().and_then(Result::ok).unwrap_or(Rights::NONE)
                }
            };
            if session.subject() != subject {
                // Somebody else now, as far as rights go.
                continue;
            }
            if !session.held().iter().flatten().any(|holding| holding.key == news.from) {
                // Given up meanwhile.
                return;
            }
            if rights.contains(Rights::LOOKUP) {
                let is_held = session.held().iter().flatten().any(|holding| holding.key == news.from);
                if !is_held {
                    // Given up meanwhile, it is nothing to them.
                    return;
                }
                if !(was_owner && news.is_told) {
                    session.push_event(&news.news, Default::default());
                }
                self.move_session(&session, &news.from, Key::Mailbox(news.to.clone()), grant);
                if session.subject() != subject {
                    self.regroup(&session);
                }
                return;
            }
            let mut guard = session.held();
            let Some(held) = guard.as_mut() else { return };
            if let Some(at) = held.iter().position(|holding| holding.key == news.from) {
                self.revoke(&session, held, at);
            }
            return;
        }
    }

    /// Registers under the new key, then lets the old one go.
    fn move_session(self: &Arc<Self>, session: &Arc<SessionHandle>, from: &Key, to: Key, grant: Option<Arc<Grant>>) {
        let mut guard = session.held();
        let Some(held) = guard.as_mut() else { return };
        let Some(at) = held.iter().position(|holding| holding.key == *from) else { return };
        let exists = held.iter().any(|holding| holding.key == to);
        let mut holding = held.swap_remove(at);
        let since = holding.since;
        if exists || !holding.is_active() {
            for tag in std::mem::take(&mut holding.waiting) {
                session.push_settled(tag, from.clone(), Err(SubscribeFailure::Withdrawn));
            }
            self.withdraw(session, holding);
            session.push_moved(from.clone(), exists.then_some(to));
            return;
        }
        let lease = self.presence.acquire(&to);
        let settling = self.presence.settling(&lease);
        let left = holding.lease.replace(lease);
        (holding.key, holding.lost) = (to.clone(), false);
        // Of what has left its owner the owner may read less.
        holding.rights = grant.as_ref().map_or(Rights::ALL, |grant| grant.rights().unwrap_or(holding.rights));
        let is_others = grant.is_some() || holding.grant.is_some();
        holding.grant = grant;
        self.hub.subscribe(&to, session, holding.wanted(), holding.grant.as_ref(), || ());
        self.hub.unsubscribe(from, session);
        self.look_again(&holding, holding.rights);
        if let (Some(lease), Some(grant)) = (&holding.lease, &holding.grant) {
            self.confirm_once_settled(lease, grant);
        }
        held.push(holding);
        session.push_moved(from.clone(), Some(to.clone()));
        self.sessions.note(false, session.subscription_record(from.clone(), since));
        self.sessions.note(true, session.subscription_record(to.clone(), since));
        drop(left);
        if settling.is_none() && is_others {
            // It took a moment to ask whether this may be told.
            session.push_resync(Resync::Keys(BTreeSet::from([to])), ResyncReason::Renamed);
        } else if let Some(settled) = settling {
            let session = Arc::downgrade(session);
            tokio::spawn(async move {
                // Should the registry not acknowledge, the break in continuity will be told when it does.
                let _ = settled.await;
                if let Some(session) = session.upgrade() {
                    session.push_resync(Resync::Keys(BTreeSet::from([to])), ResyncReason::Renamed);
                }
            });
        }
    }
}

/// Whether the hub did not tell a watcher of others' mail.
fn grant_withholds(grant: Option<&Arc<Grant>>) -> bool {
    grant.is_some_and(|grant| grant.rights().is_none_or(|rights| !rights.contains(Rights::LOOKUP)))
}

/// The news of a parent's, or a user's, new name, for one mailbox.
fn derived(delivery: &Delivery, from: &MailboxPath, to: &MailboxPath) -> Delivery {
    let event = Event {
        // Clients drop an id that they have seen.
        id: delivery.event.id.derived(from.as_str()),
        mailbox: from.clone(),
        mailbox_id: None,
        uidvalidity: None,
        status: None,
        change: Change::MailboxRename { to: to.clone() },
        ..delivery.event.clone()
    };
    Delivery::derived(event, delivery)
}
