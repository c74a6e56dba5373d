//! Mailboxes and users that are called otherwise now, or are gone: their subscriptions go with them, or end.
//!
//! A holding follows at once. Where the new name is not its user's own, nothing of it is told, neither old name nor new, until
//! it is known whether the user may look the new one up ([`Moving`]); further renames are followed meanwhile, and the client
//! hears of one, from the name that it knows. Nothing is missed on the way: it is told to resync once the registration under the
//! new name has settled, for publishers may not have found it before.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::Instant;

use super::review::UNTOLD;
use super::{Subscriptions, of_serial};
use crate::mail::event::{Change, Event};
use crate::mail::key::Key;
use crate::mail::path::MailboxPath;
use crate::mail::rights::Rights;
use crate::mail::user::UserName;
use crate::push::access::{Grant, Need};
use crate::push::delivery::Delivery;
use crate::push::hub::changes_owner;
use crate::push::outbox::{Resync, ResyncReason, SubscribeFailure};
use crate::push::session::{Held, Moving, SessionHandle, Transport};

/// Before what could not be said, and a name that another holding has still, are looked at again; doubled each time.
const FIRST_PAUSE: Duration = Duration::from_millis(20);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// What becomes of one mailbox.
struct Move {
    to: MailboxPath,
    /// As it is told to its own watchers.
    news: Arc<Delivery>,
    /// The hub has delivered it as an event of this mailbox to those who own both names.
    is_told: bool,
}

/// What is to be done about a holding whose new name is not told yet.
enum Next {
    /// Nothing.
    Over,
    Ask(Arc<Grant>),
    Wait(Instant),
}

impl Subscriptions {
    /// A mailbox, and everything below it, is called otherwise now.
    pub(super) fn renamed(self: &Arc<Self>, delivery: &Arc<Delivery>, to: &MailboxPath) {
        let from = &delivery.event.mailbox;
        // Whoever holds the new name holds another mailbox now.
        self.access.doubt_mailbox(to);
        self.resync_untold(delivery, to);
        if self.moving.load(Ordering::Acquire) > 0 && !changes_owner(&delivery.event) {
            self.end_what_clashes(from, to);
        }
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
            let mut guard = session.held();
            let Some(held) = guard.as_mut() else { continue };
            let Some(at) = held.iter().position(|holding| holding.key == old && holding.is_active()) else { continue };
            let mut holding = held.swap_remove(at);
            self.hub.unsubscribe(&old, &session);
            holding.key = new.clone();
            session.push_moved(old.clone(), Some(new.clone()));
            self.settle_in(&session, held, holding, &old);
        }
        for session in &renamed {
            self.regroup(session);
            for grant in session.held().iter().flatten().filter_map(|holding| holding.grant.as_ref()) {
                // Of a loss that a first answer shows, nobody has told: it may be half of another rename.
                grant.presume_reading();
            }
        }
    }

    /// The mailbox is gone, and its subscriptions with it. An IMAP session ends by itself.
    pub(super) fn deleted(self: &Arc<Self>, delivery: &Arc<Delivery>) {
        let mailbox = &delivery.event.mailbox;
        let key = Key::Mailbox(mailbox.clone());
        // Those on their way first: what arrives meanwhile is in the hub then.
        self.each_moving(|session, held| {
            while let Some(at) = held.iter().position(|holding| holding.key == key && holding.moving.is_some()) {
                self.revoke(session, held, at);
            }
        });
        for session in self.hub.sessions(&key) {
            let mut guard = session.held();
            let Some(held) = guard.as_mut() else { continue };
            let Some(at) = held.iter().position(|holding| holding.key == key && holding.is_active()) else { continue };
            if held[at].watched {
                continue;
            }
            match &held[at].grant {
                // The hub has told it.
                None => {}
                Some(grant) if grant.allows(Need::Rights(Rights::LOOKUP)) => {
                    session.push_event(delivery, Default::default());
                }
                Some(_) => {
                    self.revoke(&session, held, at);
                    continue;
                }
            }
            let mut gone = held.swap_remove(at);
            let waiting = std::mem::take(&mut gone.waiting);
            self.withdraw(&session, gone);
            // Once it is out of the hub: no event of it comes behind the answer.
            for tag in waiting {
                session.push_settled(tag, key.clone(), Err(SubscribeFailure::NotFound));
            }
            session.push_moved(key.clone(), None);
        }
        // Whoever is about to subscribe asks again: a mailbox made anew under this name is another one.
        self.access.doubt_mailbox(mailbox);
    }

    /// What has changed for those to whom the news itself is not told, for it names a mailbox that may be none of their
    /// business; and for who watches an INBOX: its messages have moved, and it stays (RFC 9051 6.3.6).
    fn resync_untold(&self, delivery: &Arc<Delivery>, to: &MailboxPath) {
        let from = &delivery.event.mailbox;
        let is_given_away = changes_owner(&delivery.event);
        let accounts = [from, to].into_iter().filter(|_| is_given_away).filter_map(|path| path.owner_name().map(Key::Account));
        let inbox = (from.name() == "INBOX").then(|| from.clone());
        for key in inbox.into_iter().chain([to.clone()]).map(Key::Mailbox).chain(accounts) {
            for session in self.hub.sessions(&key) {
                let held = session.held();
                let Some(holding) = held.iter().flatten().find(|holding| holding.key == key && holding.is_active()) else {
                    continue;
                };
                let is_concerned = match &holding.grant {
                    None => is_given_away,
                    Some(grant) => grant.allows(Need::Rights(Rights::READ)),
                };
                if is_concerned && session.transport != Transport::Imap {
                    session.push_resync(Resync::Keys(BTreeSet::from([key.clone()])), ResyncReason::Renamed);
                }
            }
        }
    }

    /// A client that hears of both names takes what it knows by the one for what it knows by the other from now on. Where one of
    /// them is the name of a mailbox that is called otherwise by now, and this is not told yet, it would be wrong: it has to
    /// begin anew.
    fn end_what_clashes(&self, from: &MailboxPath, to: &MailboxPath) {
        let (old, new) = (Key::Mailbox(from.clone()), Key::Mailbox(to.clone()));
        self.each_moving(|session, held| {
            let user = session.user();
            let hears = |holding: &Held| {
                let watches = holding.key == old || matches!(&holding.key, Key::Account(user) if from.is_owned_by(user));
                watches && holding.is_active() && holding.grant.is_none()
            };
            let clashes = |holding: &Held| holding.moving.is_some() && [&old, &new].contains(&holding.name());
            if !from.is_owned_by(&user) || !held.iter().any(hears) || !held.iter().any(clashes) {
                return;
            }
            while let Some(at) = held.iter().position(|holding| [&old, &new].contains(&holding.name())) {
                let mut gone = held.swap_remove(at);
                let (waiting, name) = (std::mem::take(&mut gone.waiting), gone.name().clone());
                self.withdraw(session, gone);
                for tag in waiting {
                    session.push_settled(tag, name.clone(), Err(SubscribeFailure::Withdrawn));
                }
            }
            session.push_revoked(new.clone());
        });
    }

    /// Every session that has a holding whose new name is not told yet.
    fn each_moving(&self, act: impl Fn(&Arc<SessionHandle>, &mut Vec<Held>)) {
        if self.moving.load(Ordering::Acquire) == 0 {
            return;
        }
        for session in self.sessions.all() {
            let mut guard = session.held();
            if let Some(held) = guard.as_mut().filter(|held| held.iter().any(|holding| holding.moving.is_some())) {
                act(&session, held);
            }
        }
    }

    fn move_all(self: &Arc<Self>, delivery: &Arc<Delivery>, new_name: impl Fn(&MailboxPath) -> Option<MailboxPath>) {
        let is_moved = |key: &Key| matches!(key, Key::Mailbox(path) if new_name(path).is_some_and(|new| new != *path));
        for session in self.sessions.all() {
            self.turn_back(&session, &is_moved);
        }
        let of = |path: &MailboxPath| {
            let to = new_name(path)?;
            let is_told = *path == delivery.event.mailbox && matches!(delivery.event.change, Change::MailboxRename { .. });
            let news = if is_told { delivery.clone() } else { Arc::new(derived(delivery, path, &to)) };
            Some(Move { to, news, is_told })
        };
        // Those on their way first: what is moved below is on its way then, and has this name already.
        self.each_moving(|session, held| {
            let moves = |holding: &&Held| holding.moving.is_some() && is_moved(&holding.key);
            let serials: Vec<u64> = held.iter().filter(moves).map(|holding| holding.serial).collect();
            for serial in serials {
                let Some(at) = held.iter().position(|holding| holding.serial == serial) else { continue };
                let Key::Mailbox(path) = &held[at].key else { continue };
                if let Some(news) = of(path) {
                    self.access.doubt_mailbox(&news.to);
                    self.move_on(session, held, at, &news);
                }
            }
        });
        // What has arrived meanwhile is in the hub by now. Those above first: what is told of a mailbox comes before what is told of
        // those below it.
        let mut keys = self.hub.keys_where(is_moved);
        keys.sort_unstable();
        for from in keys {
            let Key::Mailbox(path) = &from else { continue };
            let Some(news) = of(path) else { continue };
            self.access.doubt_mailbox(path);
            self.access.doubt_mailbox(&news.to);
            for session in self.hub.sessions(&from) {
                let mut guard = session.held();
                let Some(held) = guard.as_mut() else { continue };
                let Some(at) = held.iter().position(|holding| holding.key == from && holding.is_active()) else { continue };
                if !held[at].watched {
                    self.move_on(&session, held, at, &news);
                } else if !news.is_told {
                    // An IMAP session moves itself; what it tells its client names no mailbox.
                    session.push_event(&news.news, Default::default());
                }
            }
        }
    }

    /// Subscriptions under a name that is no more, and which do not stand yet, are to be tried again.
    fn turn_back(&self, session: &Arc<SessionHandle>, is_moved: &impl Fn(&Key) -> bool) {
        let mut guard = session.held();
        let Some(held) = guard.as_mut() else { return };
        while let Some(at) = held.iter().position(|holding| !holding.stands() && is_moved(&holding.key)) {
            let gone = held.swap_remove(at);
            for tag in gone.waiting {
                session.push_settled(tag, gone.key.clone(), Err(SubscribeFailure::Unavailable { kept: false }));
            }
        }
    }

    /// The holding is of the new name from here on. Its client is told at once where that is the user's own, else as soon as it
    /// is known that it may be.
    fn move_on(self: &Arc<Self>, session: &Arc<SessionHandle>, held: &mut Vec<Held>, at: usize, news: &Move) {
        let subject = session.subject();
        let own = news.to.is_owned_by(&subject.user);
        let holding = &mut held[at];
        if holding.is_active() {
            self.hub.unsubscribe(&holding.key, session);
        }
        let is_told = news.is_told && own && holding.grant.is_none() && holding.moving.is_none();
        let told = match (holding.moving.take(), &news.news.event.mailbox) {
            // Of the name between the two the client has not heard, and does not.
            (Some(moving), between) => match &moving.from {
                Key::Mailbox(from) if from != between => {
                    Moving { news: Arc::new(derived(&news.news, from, &news.to)), from: moving.from }
                }
                _ => Moving { from: moving.from, news: news.news.clone() },
            },
            (None, _) => Moving { from: holding.key.clone(), news: news.news.clone() },
        };
        holding.moving = Some(Box::new(told));
        holding.key = Key::Mailbox(news.to.clone());
        holding.grant = if own { None } else { self.access.hold(&subject, &news.to) };
        // Whoever saw to it under the old name does not find it any more.
        holding.serial = self.serial.fetch_add(1, Ordering::Relaxed);
        (holding.busy, holding.lost) = (true, false);
        let serial = holding.serial;
        if own && !is_blocked(held, at) {
            return self.arrive(session, held, at, is_told);
        }
        self.moving.fetch_add(1, Ordering::AcqRel);
        tokio::spawn(self.clone().tell_once_known(session.clone(), serial, Instant::now()));
    }

    async fn tell_once_known(self: Arc<Self>, session: Arc<SessionHandle>, serial: u64, mut since: Instant) {
        let (mut denied, mut pause) = (None, FIRST_PAUSE);
        loop {
            let next = match of_serial(&mut session.held(), serial) {
                Some((held, at)) => self.next(&session, held, at, &mut denied, pause),
                // Given up, or moved further, meanwhile.
                None => break,
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
        // What could not be covered by a name that it had.
        self.cover_again_for(&session);
        self.moving.fetch_sub(1, Ordering::AcqRel);
    }

    fn next(
        self: &Arc<Self>,
        session: &Arc<SessionHandle>,
        held: &mut Vec<Held>,
        at: usize,
        denied: &mut Option<Instant>,
        pause: Duration,
    ) -> Next {
        let (user, now) = (session.user(), Instant::now());
        let holding = &mut held[at];
        let own = holding.key.is_owned_by(&user);
        if own {
            holding.grant = None;
        }
        let rights = match &holding.grant {
            None if own => Rights::ALL,
            None => Rights::NONE,
            Some(grant) => match grant.rights() {
                Some(rights) => rights,
                None => return Next::Ask(grant.clone()),
            },
        };
        if !rights.contains(Rights::LOOKUP) {
            // Perhaps the mailbox has a further name already, and the news of it is on its way.
            let until = *denied.get_or_insert(now + UNTOLD);
            if now < until {
                return Next::Wait(until);
            }
            self.revoke(session, held, at);
        } else if !is_blocked(held, at) {
            self.arrive(session, held, at, false);
        } else if is_in_a_circle(held, at) {
            // No order of telling would be right.
            self.revoke(session, held, at);
        } else {
            return Next::Wait(now + pause);
        }
        Next::Over
    }

    /// The client may know the new name. `is_told`: it does.
    fn arrive(self: &Arc<Self>, session: &Arc<SessionHandle>, held: &mut Vec<Held>, at: usize, is_told: bool) {
        let mut holding = held.swap_remove(at);
        holding.busy = false;
        let from = match holding.moving.take() {
            // Not where it has its old name again.
            Some(moving) if moving.from != holding.key => {
                if !is_told {
                    session.push_event(&moving.news, Default::default());
                }
                session.push_moved(moving.from.clone(), Some(holding.key.clone()));
                moving.from
            }
            _ => holding.key.clone(),
        };
        self.settle_in(session, held, holding, &from);
    }

    /// Registers a holding under its new key, and lets the old one go. Two that have one key now are one.
    fn settle_in(self: &Arc<Self>, session: &Arc<SessionHandle>, held: &mut Vec<Held>, mut holding: Held, from: &Key) {
        let key = holding.key.clone();
        let lease = self.presence.acquire(&key);
        let settling = self.presence.settling(&lease);
        if let Some(grant) = &holding.grant {
            self.confirm_once_settled(&lease, grant);
        } else {
            holding.rights = Rights::ALL;
        }
        let left = holding.lease.replace(lease);
        let other = held.iter().position(|other| other.key == key && other.moving.is_none()).map(|at| held.swap_remove(at));
        let stood = other.as_ref().is_some_and(Held::stands);
        if let Some(other) = other {
            merge(&mut holding, other);
        }
        let waiting = if holding.busy { Vec::new() } else { std::mem::take(&mut holding.waiting) };
        let rights = holding.grant.as_ref().and_then(|grant| grant.rights()).unwrap_or(holding.rights);
        self.hub.subscribe(&key, session, holding.wanted(), holding.grant.as_ref(), || {
            for tag in waiting {
                session.push_settled(tag, key.clone(), Ok(rights));
            }
        });
        // Told of the rights that it had: what it has lost by its new name ends it as any loss does.
        self.look_again(&holding, holding.rights);
        if *from != key {
            self.sessions.note(false, session.subscription_record(from.clone(), holding.since));
            if !stood {
                self.sessions.note(true, session.subscription_record(key.clone(), holding.since));
            }
        }
        held.push(holding);
        drop(left);
        match settling {
            // It may have taken a moment to ask whether this may be told; and what others published by the new name may have come
            // out of the queue before the news of it.
            None => session.push_resync(Resync::Keys(BTreeSet::from([key])), ResyncReason::Renamed),
            Some(settled) => {
                let session = Arc::downgrade(session);
                tokio::spawn(async move {
                    // Should the registry not acknowledge, the break in continuity will be told when it does.
                    let _ = settled.await;
                    if let Some(session) = session.upgrade() {
                        session.push_resync_of(&key, ResyncReason::Renamed);
                    }
                });
            }
        }
    }
}

/// What either wants, and who waits for either. Who waits for the other is answered by whoever sees to that.
fn merge(holding: &mut Held, other: Held) {
    let either = |a: Option<_>, b: Option<_>| match (a, b) {
        (Some(a), Some(b)) => Some(crate::push::hub::Wanted::or(a, b)),
        (one, None) | (None, one) => one,
    };
    holding.asked = either(holding.asked, other.asked);
    holding.covered = either(holding.covered, other.covered);
    holding.rights = holding.rights.with(other.rights);
    (holding.shared, holding.early, holding.lost) = (holding.shared || other.shared, false, other.lost);
    holding.waiting.extend(other.waiting);
    if other.busy && !holding.waiting.is_empty() {
        (holding.busy, holding.serial) = (true, other.serial);
    }
}

/// Whether the client knows another mailbox by its new name still.
fn is_blocked(held: &[Held], at: usize) -> bool {
    blocker(held, at).is_some()
}

fn blocker(held: &[Held], at: usize) -> Option<usize> {
    held.iter().position(|other| other.moving.is_some() && *other.name() == held[at].key && other.serial != held[at].serial)
}

/// Whether each waits for the next, and the last for the first.
fn is_in_a_circle(held: &[Held], at: usize) -> bool {
    let next = |at: &usize| blocker(held, *at);
    std::iter::successors(next(&at), next).take(held.len()).any(|other| other == at)
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
