//! Mailboxes and users that are renamed, or are gone: their subscriptions go with them, or end.
//!
//! A subscription follows at once. Where the new name is not its user's own, nothing of it is told,
//! neither old name nor new, until it is known whether the user may look the new one up
//! (`State::Moving`); further renames are followed meanwhile, and the client hears of one, from the
//! name that it knows. Nothing is missed on the way: it is told to resync once the registration
//! under the new name has settled, for publishers may not have found it before.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::Instant;

use super::review::RENAME_WAIT;
use super::service::Subscriptions;
use crate::mail::event::{Change, Event};
use crate::mail::key::Key;
use crate::mail::path::MailboxPath;
use crate::mail::rights::Rights;
use crate::mail::user::UserName;
use crate::push::access::{Grant, Need};
use crate::push::delivery::Delivery;
use crate::push::hub::changes_owner;
use crate::push::outbox::{Resync, ResyncReason, SubscribeFailure};
use crate::push::session::{LiveSession, Transport};
use crate::push::subscription::{Book, Interest, Subscription};

/// The pause before a source that did not answer is asked again, and before a name is looked at
/// again that another subscription has still; doubled each time.
const FIRST_PAUSE: Duration = Duration::from_millis(20);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// What becomes of one mailbox.
struct Move {
    to: MailboxPath,
    /// As it is told to its own watchers.
    news: Arc<Delivery>,
    /// Who has told it to those who own both names.
    teller: Teller,
}

/// Who tells a client of a rename.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Teller {
    /// The hub has delivered it, as an event of this mailbox.
    Hub,
    /// Nobody yet: the rename was a parent's or a user's, or it was not known whether the client
    /// may know it.
    Nobody,
}

/// What is to be done about a subscription whose new name is not told yet.
enum Next {
    /// Nothing.
    Over,
    Ask(Arc<Grant>),
    Wait(Instant),
}

impl Subscriptions {
    /// A mailbox, and everything below it, is renamed.
    pub(super) fn renamed(self: &Arc<Self>, delivery: &Arc<Delivery>, to: &MailboxPath) {
        let from = &delivery.event.mailbox;
        // Whoever subscribes to the new name subscribes to another mailbox now.
        self.access.doubt_mailbox(to);
        self.resync_where_names_are_not_told(delivery, to);
        if self.moving.load(Ordering::Acquire) > 0 && !changes_owner(&delivery.event) {
            self.end_what_clashes(from, to);
        }
        self.move_all(delivery, |path| path.renamed(from, to));
    }

    /// A user is renamed, and with them every mailbox of theirs.
    pub(super) fn renamed_account(self: &Arc<Self>, delivery: &Arc<Delivery>, to: &UserName) {
        let Some(from) = delivery.event.mailbox.owner_name().filter(|from| from != to) else { return };
        let renamed = self.sessions.rename_user(&from, to);
        self.move_all(delivery, |path| {
            let is_theirs = path.is_owned_by(&from);
            is_theirs.then(|| MailboxPath::new(path.namespace(), to.as_str(), path.name()).ok()).flatten()
        });
        let (old, new) = (Key::Account(from), Key::Account(to.clone()));
        for session in self.sessions_under(&old) {
            let Some(mut book) = session.book() else { continue };
            let is_its = |subscription: &Subscription| subscription.key == old && subscription.is_in_hub();
            let Some(mut subscription) = book.remove_where(is_its) else { continue };
            self.hub.unsubscribe(&old, session.handle());
            subscription.key = new.clone();
            session.push_moved(old.clone(), Some(new.clone()));
            self.settle_in(&session, &mut book, subscription, &old, Vec::new());
        }
        for session in &renamed {
            self.renew_grants(session);
            let Some(book) = session.book() else { continue };
            for grant in book.iter().filter_map(|subscription| subscription.grant.as_ref()) {
                // A loss that a first answer shows is not announced: it may be half of another
                // rename.
                grant.presume_reading();
            }
        }
    }

    /// The mailbox is gone, and its subscriptions with it. An IMAP session ends by itself.
    pub(super) fn deleted(self: &Arc<Self>, delivery: &Arc<Delivery>) {
        let mailbox = &delivery.event.mailbox;
        let key = Key::Mailbox(mailbox.clone());
        // Those that are moving first: one that arrives meanwhile is in the hub then, and found
        // there.
        self.each_with_moves(|session, book| {
            let is_its = |subscription: &&Subscription| subscription.key == key && subscription.is_moving();
            let ids: Vec<u64> = book.iter().filter(is_its).map(|subscription| subscription.id).collect();
            for id in ids {
                self.revoke(session, book, id);
            }
        });
        for session in self.sessions_under(&key) {
            self.delete_one(&session, delivery, &key);
        }
        // Whoever is about to subscribe asks again: a mailbox made anew under this name is another
        // one.
        self.access.doubt_mailbox(mailbox);
    }

    fn delete_one(&self, session: &LiveSession, delivery: &Arc<Delivery>, key: &Key) {
        let Some(mut book) = session.book() else { return };
        let Some(subscription) = book.in_hub(key).filter(|found| found.interest != Interest::Watched) else { return };
        let id = subscription.id;
        match &subscription.grant {
            // The hub has told it.
            None => {}
            Some(grant) if grant.allows(Need::Rights(Rights::LOOKUP)) => {
                session.push_event(delivery, Default::default());
            }
            Some(_) => return self.revoke(session, &mut book, id),
        }
        if let Some(gone) = book.remove(id) {
            self.refuse(session, gone, SubscribeFailure::NotFound);
            session.push_moved(key.clone(), None);
        }
    }

    /// Tells those to whom the rename itself is not told that something has changed: it names a
    /// mailbox that may be none of their business. And those who watch an INBOX: its messages have
    /// moved, and it stays (RFC 9051 6.3.6).
    fn resync_where_names_are_not_told(&self, delivery: &Arc<Delivery>, to: &MailboxPath) {
        let from = &delivery.event.mailbox;
        let is_given_away = changes_owner(&delivery.event);
        let accounts = [from, to].into_iter().filter(|_| is_given_away).filter_map(|path| path.owner_name().map(Key::Account));
        let inbox = (from.name() == "INBOX").then(|| from.clone());
        for key in inbox.into_iter().chain([to.clone()]).map(Key::Mailbox).chain(accounts) {
            for session in self.sessions_under(&key) {
                let Some(mut book) = session.book() else { continue };
                let Some(subscription) = book.in_hub(&key) else { continue };
                let is_concerned = match &subscription.grant {
                    None => is_given_away,
                    Some(grant) => grant.allows(Need::Rights(Rights::READ)),
                };
                if is_concerned && session.transport != Transport::Imap {
                    session.push_resync(Resync::Keys(BTreeSet::from([key.clone()])), ResyncReason::Renamed);
                }
            }
        }
    }

    /// A client that hears of a rename calls the mailbox that it knows by the old name by the new
    /// one from then on. Where it knows a third mailbox by one of these two names, for it has not
    /// been told yet that this one is renamed too, it would mix them up: both subscriptions end,
    /// and it has to begin anew.
    fn end_what_clashes(&self, from: &MailboxPath, to: &MailboxPath) {
        let (old, new) = (Key::Mailbox(from.clone()), Key::Mailbox(to.clone()));
        self.each_with_moves(|session, book| {
            let hears = |known: &Subscription| {
                let watches = known.key == old || matches!(&known.key, Key::Account(user) if from.is_owned_by(user));
                watches && known.is_in_hub() && known.grant.is_none()
            };
            let has_a_name = |known: &Subscription| [&old, &new].contains(&known.name());
            let clashes = |known: &Subscription| known.is_moving() && has_a_name(known);
            if !from.is_owned_by(&session.user()) || !book.iter().any(hears) || !book.iter().any(clashes) {
                return;
            }
            for gone in book.extract(|known| has_a_name(known)) {
                self.refuse(session, gone, SubscribeFailure::Withdrawn);
            }
            session.push_revoked(new.clone());
        });
    }

    /// Every session that has a subscription whose new name is not told yet.
    fn each_with_moves(&self, act: impl Fn(&Arc<LiveSession>, &mut Book)) {
        if self.moving.load(Ordering::Acquire) == 0 {
            return;
        }
        for session in self.sessions.all() {
            if let Some(mut book) = session.book().filter(|book| book.iter().any(Subscription::is_moving)) {
                act(&session, &mut book);
            }
        }
    }

    fn move_all(self: &Arc<Self>, delivery: &Arc<Delivery>, new_name: impl Fn(&MailboxPath) -> Option<MailboxPath>) {
        let is_renamed = |key: &Key| matches!(key, Key::Mailbox(path) if new_name(path).is_some_and(|new| new != *path));
        for session in self.sessions.all() {
            self.turn_back(&session, &is_renamed);
        }
        let of = |path: &MailboxPath| new_name(path).map(|to| Move::new(delivery, path, to));
        // Those that are moving first: what is moved below is moving then, and has this name
        // already.
        self.each_with_moves(|session, book| {
            let moves = |known: &&Subscription| known.is_moving() && is_renamed(&known.key);
            let ids: Vec<u64> = book.iter().filter(moves).map(|known| known.id).collect();
            for id in ids {
                let Some(Key::Mailbox(path)) = book.get(id).map(|known| &known.key) else { continue };
                if let Some(news) = of(path) {
                    self.access.doubt_mailbox(&news.to);
                    self.move_on(session, book, id, &news);
                }
            }
        });
        // One that has arrived meanwhile is in the hub by now. Parents first: the client hears of a
        // mailbox before those below it.
        let mut keys = self.hub.keys_where(is_renamed);
        keys.sort_unstable();
        for key in keys {
            let Key::Mailbox(path) = &key else { continue };
            let Some(news) = of(path) else { continue };
            self.access.doubt_mailbox(path);
            self.access.doubt_mailbox(&news.to);
            for session in self.sessions_under(&key) {
                let Some(mut book) = session.book() else { continue };
                let Some(found) = book.in_hub(&key) else { continue };
                let id = found.id;
                if found.interest != Interest::Watched {
                    self.move_on(&session, &mut book, id, &news);
                } else if news.teller == Teller::Nobody {
                    // An IMAP session moves itself; what it tells its client names no mailbox.
                    session.push_event(&news.news, Default::default());
                }
            }
        }
    }

    /// Subscriptions under a name that is no more, and which do not stand yet, are to be tried
    /// again.
    fn turn_back(&self, session: &LiveSession, is_renamed: &impl Fn(&Key) -> bool) {
        let Some(mut book) = session.book() else { return };
        for gone in book.extract(|known| known.since().is_none() && is_renamed(&known.key)) {
            self.refuse(session, gone, SubscribeFailure::Unavailable { kept: false });
        }
    }

    /// The subscription is of the new name from here on. Its client is told at once where that is
    /// the user's own, else as soon as it is known that it may be.
    fn move_on(self: &Arc<Self>, session: &Arc<LiveSession>, book: &mut Book, id: u64, news: &Move) {
        let subject = session.subject();
        let own = news.to.is_owned_by(&subject.user);
        let grant = if own { None } else { self.access.hold(&subject, &news.to) };
        let new_id = self.next_id();
        let Some(subscription) = book.get(id) else { return };
        if subscription.is_in_hub() {
            self.hub.unsubscribe(&subscription.key, session.handle());
        }
        let teller = match own && subscription.grant.is_none() && !subscription.is_moving() {
            true => news.teller,
            false => Teller::Nobody,
        };
        // Whoever saw to it under the old name does not find it any more.
        subscription.move_to(Key::Mailbox(news.to.clone()), new_id, grant, |known_as| news.as_known(known_as));
        if own && !is_blocked(book, new_id) {
            return self.arrive(session, book, new_id, teller);
        }
        self.moving.fetch_add(1, Ordering::AcqRel);
        tokio::spawn(self.clone().tell_once_known(session.clone(), new_id, Instant::now()));
    }

    async fn tell_once_known(self: Arc<Self>, session: Arc<LiveSession>, id: u64, mut since: Instant) {
        let (mut denied, mut pause) = (None, FIRST_PAUSE);
        loop {
            let next = match session.book() {
                Some(mut book) => self.next(&session, &mut book, id, &mut denied, pause),
                None => Next::Over,
            };
            match next {
                Next::Over => break,
                Next::Ask(grant) => {
                    let asked = tokio::time::timeout(self.timeout, self.access.ask(&grant, since)).await;
                    if !matches!(asked, Ok(Ok(_))) {
                        // A source that does not answer says nothing: it is asked until it does.
                        tokio::time::sleep(pause).await;
                        pause = (pause * 2).min(LONGEST_PAUSE);
                    }
                    since = Instant::now();
                }
                Next::Wait(until) => {
                    tokio::time::sleep_until(until).await;
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
            }
        }
        // A mailbox that could not be covered while this one had its name.
        self.cover_again_for(&session);
        self.moving.fetch_sub(1, Ordering::AcqRel);
    }

    /// `denied`: until when a denial is not told.
    fn next(
        self: &Arc<Self>,
        session: &Arc<LiveSession>,
        book: &mut Book,
        id: u64,
        denied: &mut Option<Instant>,
        pause: Duration,
    ) -> Next {
        let (user, now) = (session.user(), Instant::now());
        // Given up, or moved further, meanwhile.
        let Some(subscription) = book.get(id) else { return Next::Over };
        let own = subscription.key.is_owned_by(&user);
        if own {
            subscription.grant = None;
        }
        let rights = match &subscription.grant {
            None if own => Rights::ALL,
            None => Rights::NONE,
            Some(grant) => match grant.rights() {
                Some(rights) => rights,
                None => return Next::Ask(grant.clone()),
            },
        };
        if !rights.contains(Rights::LOOKUP) {
            // Perhaps the mailbox has a further name already, and the news of it is on its way.
            let until = *denied.get_or_insert(now + RENAME_WAIT);
            if now < until {
                return Next::Wait(until);
            }
            self.revoke(session, book, id);
        } else if !is_blocked(book, id) {
            self.arrive(session, book, id, Teller::Nobody);
        } else if is_in_a_circle(book, id) {
            // No order of telling would be right.
            self.revoke(session, book, id);
        } else {
            return Next::Wait(now + pause);
        }
        Next::Over
    }

    /// The client may know the new name.
    fn arrive(self: &Arc<Self>, session: &Arc<LiveSession>, book: &mut Book, id: u64, teller: Teller) {
        let Some(mut subscription) = book.remove(id) else { return };
        let Some((from, news, tags)) = subscription.arrive() else { return book.add(subscription) };
        // Not where it has its old name again.
        if from != subscription.key {
            if teller == Teller::Nobody {
                session.push_event(&news, Default::default());
            }
            session.push_moved(from.clone(), Some(subscription.key.clone()));
        }
        self.settle_in(session, book, subscription, &from, tags);
    }

    /// Registers a standing subscription under its new key, and lets the old one go. Two that have
    /// one key now are one. `tags` wait for it.
    fn settle_in(
        self: &Arc<Self>,
        session: &Arc<LiveSession>,
        book: &mut Book,
        mut subscription: Subscription,
        from: &Key,
        tags: Vec<u32>,
    ) {
        let key = subscription.key.clone();
        let lease = self.presence.acquire(&key);
        let settling = self.presence.settling(&lease);
        if let Some(grant) = &subscription.grant {
            self.confirm_once_settled(&lease, grant);
        }
        let own = subscription.grant.is_none();
        let Some(standing) = subscription.standing() else { return };
        let left = std::mem::replace(&mut standing.lease, lease);
        if own {
            standing.rights = Rights::ALL;
        }
        let other = book.remove_where(|other| other.key == key && !other.is_moving());
        let stood = other.as_ref().is_some_and(Subscription::is_in_hub);
        let tags = match other {
            Some(other) => subscription.merge(other, tags),
            None => tags,
        };
        let Some((told, since)) = subscription.standing().map(|standing| (standing.rights, standing.since)) else { return };
        let rights = subscription.grant.as_ref().and_then(|grant| grant.rights()).unwrap_or(told);
        self.put_into_hub(session, &subscription, tags, rights);
        // The client was told of the rights under the old name: if they are fewer now, it ends as
        // by any loss.
        self.notice_change(&subscription, told);
        if *from != key {
            self.sessions.note(false, session.subscription_record(from.clone(), since));
            if !stood {
                self.sessions.note(true, session.subscription_record(key.clone(), since));
            }
        }
        book.add(subscription);
        drop(left);
        resync_once_settled(session, key, settling);
    }
}

/// It may have taken a moment to ask for the rights, and an event by the new name may have come out
/// of the queue before the rename: the client reads the mailbox anew, once every publisher finds
/// it.
fn resync_once_settled(session: &Arc<LiveSession>, key: Key, settling: Option<oneshot::Receiver<()>>) {
    let Some(settled) = settling else {
        return session.push_resync(Resync::Keys(BTreeSet::from([key])), ResyncReason::Renamed);
    };
    let session = Arc::downgrade(session);
    tokio::spawn(async move {
        // Should the registry not acknowledge, the break in continuity will be told when it does.
        let _ = settled.await;
        if let Some(session) = session.upgrade() {
            session.push_resync_of(&key, ResyncReason::Renamed);
        }
    });
}

impl Move {
    /// What a rename, which may be a parent's or a user's, means to the mailbox `from`, which is
    /// `to` from now on.
    fn new(delivery: &Arc<Delivery>, from: &MailboxPath, to: MailboxPath) -> Self {
        let is_its = *from == delivery.event.mailbox && matches!(delivery.event.change, Change::MailboxRename { .. });
        let (news, teller) = match is_its {
            true => (delivery.clone(), Teller::Hub),
            false => (Arc::new(derived(delivery, from, &to)), Teller::Nobody),
        };
        Self { to, news, teller }
    }

    /// As it is told to a client who knows the mailbox by this name: of a name between the two it
    /// has not heard, and does not.
    fn as_known(&self, known_as: &Key) -> Arc<Delivery> {
        match known_as {
            Key::Mailbox(from) if *from != self.news.event.mailbox => Arc::new(derived(&self.news, from, &self.to)),
            Key::Mailbox(_) | Key::Account(_) => self.news.clone(),
        }
    }
}

/// Whether the client knows another mailbox by its new name still.
fn is_blocked(book: &Book, id: u64) -> bool {
    blocker(book, id).is_some()
}

fn blocker(book: &Book, id: u64) -> Option<u64> {
    let key = &book.iter().find(|known| known.id == id)?.key;
    let blocks = |other: &&Subscription| other.is_moving() && other.name() == key && other.id != id;
    book.iter().find(blocks).map(|other| other.id)
}

/// Whether each waits for the next, and the last for the first.
fn is_in_a_circle(book: &Book, id: u64) -> bool {
    let next = |id: &u64| blocker(book, *id);
    std::iter::successors(next(&id), next).take(book.iter().len()).any(|other| other == id)
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
