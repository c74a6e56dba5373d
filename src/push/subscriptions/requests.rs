//! What clients ask for, and what IMAP sessions report.

use std::sync::Arc;

use super::establish::see_to;
use super::service::Subscriptions;
use crate::mail::key::Key;
use crate::mail::rights::Rights;
use crate::push::access::Grant;
use crate::push::hub::Filter;
use crate::push::outbox::{RegistrationStatus, SubscribeFailure};
use crate::push::session::LiveSession;
use crate::push::subscription::{Begin, Interest, Loss, Renewal, Standing, State, Subscription};

/// What a client wants to hear of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wish {
    pub filter: Filter,
    /// Of the user's own account: the mailboxes that are shared with them, too.
    pub shared: bool,
}

impl Subscriptions {
    /// Begins a subscription; its outcome comes out of the session's outbox with `tag`, whatever it
    /// is. Subscribing again changes the filter, and has an outcome of its own.
    pub fn subscribe(self: &Arc<Self>, session: &Arc<LiveSession>, tag: u32, key: Key, wish: Wish) {
        let Some(mut book) = session.book() else { return };
        let user = session.user();
        let interest = match &key {
            // Mailboxes are shared with the user, whose own account alone can cover them.
            Key::Account(_) if wish.shared && key.is_owned_by(&user) => Interest::AccountAndShared(wish.filter),
            _ => Interest::Client(wish.filter),
        };
        if !interest.is_of_shared() && book.iter_mut().any(|known| known.key == key && known.interest.stop_sharing()) {
            self.uncover(session, &mut book);
        }
        let (id, is_busy) = match book.named(&key) {
            Some(known) => (known.id, known.is_busy()),
            None => {
                let new = self.requested(session, key, interest, Begin::Settled);
                let id = new.id;
                book.add(new);
                (id, false)
            }
        };
        let Some(subscription) = book.get(id) else { return };
        subscription.interest.ask(interest);
        subscription.wait(tag);
        if is_busy {
            // The task that sees to it answers all who wait.
            return;
        }
        let own = subscription.grant.is_none() && subscription.key.is_owned_by(&user);
        if own && !interest.is_of_shared() && subscription.register(&self.presence).is_none() {
            return self.establish(session, subscription, Rights::ALL, Renewal::Over);
        }
        tokio::spawn(see_to(self.clone(), session.clone(), id));
    }

    /// Watches a key: its events wait in the outbox from now on, before its registration is
    /// acknowledged (I-4), and the status of the registration is told whenever it changes. For
    /// sessions that know by themselves what they have seen already, and whose mail server has let
    /// them in; whether it still would is asked from now on.
    pub fn watch(self: &Arc<Self>, session: &Arc<LiveSession>, key: &Key) {
        let Some(mut book) = session.book() else { return };
        if book.iter().any(|subscription| subscription.key == *key) {
            return;
        }
        let grant = match key {
            Key::Mailbox(path) if !path.is_owned_by(&session.user()) => {
                match self.access.hold_for_imap(session.handle(), path) {
                    Some(grant) => Some(grant),
                    // Nobody can be asked: it stays the mail server's business.
                    None => return session.push_registration(key.clone(), RegistrationStatus::Unavailable),
                }
            }
            Key::Mailbox(_) | Key::Account(_) => None,
        };
        let lease = self.presence.acquire(key);
        self.hub.subscribe(key, session.handle(), Filter::EVERYTHING, grant.as_ref(), || ());
        self.presence.listen(&lease, session.handle());
        if let Some(grant) = &grant {
            self.confirm_once_settled(&lease, grant);
        }
        let since = self.now();
        let standing = Standing { lease, since, rights: Rights::READ, loss: Loss::No, renewal: None };
        book.add(Subscription {
            key: key.clone(),
            id: self.next_id(),
            interest: Interest::Watched,
            grant: grant.clone(),
            state: State::Standing(standing),
        });
        self.sessions.note(true, session.subscription_record(key.clone(), since));
        drop(book);
        if let Some(grant) = grant {
            match grant.rights() {
                // Known from others of the same user, and perhaps lost.
                Some(_) => self.review(&grant),
                None => self.access.ask_if_unknown(&grant),
            }
        }
    }

    /// What the session itself learned of its user's rights on a watched key, after
    /// [`Outgoing::AskRights`] or unasked; `None`: the mail server did not answer.
    ///
    /// [`Outgoing::AskRights`]: crate::push::outbox::Outgoing::AskRights
    pub fn report_rights(&self, session: &LiveSession, key: &Key, rights: Option<Rights>) {
        let (Some(grant), Some(rights)) = (self.grant_asked_by(session, key), rights) else { return };
        self.access.session_reported(&grant, rights);
    }

    /// The session has taken out that it is to ask: what it reports from now on counts.
    pub fn asks_rights(&self, session: &LiveSession, key: &Key) {
        if let Some(grant) = self.grant_asked_by(session, key) {
            grant.session_is_aware();
        }
    }

    /// The grant for which this session alone can ask.
    fn grant_asked_by(&self, session: &LiveSession, key: &Key) -> Option<Arc<Grant>> {
        let grant = session.book()?.grant(key)?;
        let is_its = grant.session().is_some_and(|asker| std::ptr::eq(asker.as_ptr(), Arc::as_ptr(session.handle())));
        is_its.then_some(grant)
    }

    pub fn unsubscribe(&self, session: &LiveSession, key: &Key) {
        let Some(mut book) = session.book() else { return };
        let Some(subscription) = book.named(key) else { return };
        let id = subscription.id;
        for tag in subscription.take_tags() {
            session.push_settled(tag, key.clone(), Err(SubscribeFailure::Withdrawn));
        }
        if subscription.interest.stop_sharing() {
            self.uncover(session, &mut book);
        }
        let Some(subscription) = book.get(id) else { return };
        match subscription.interest.without_client() {
            // An account subscription goes on wanting it.
            Some(interest) => {
                subscription.interest = interest;
                self.update_hub(session, subscription);
            }
            None => {
                if let Some(gone) = book.remove(id) {
                    self.withdraw(session, &gone);
                }
            }
        }
    }

    /// The session has ended: everything that it was subscribed to is let go.
    pub fn end(&self, session: &LiveSession) {
        let all = session.close_book();
        for gone in &all {
            self.withdraw(session, gone);
        }
        if all.iter().any(|gone| gone.interest.is_of_shared()) {
            self.stop_covering(session);
        }
        self.sessions.remove(session);
    }
}
