//! What follows for sessions when rights change.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;

use super::{Subscriptions, WeakSubscriptions};
use crate::mail::key::Key;
use crate::mail::rights::{Rights, Subject};
use crate::push::access::{Cause, Grant, Notice};
use crate::push::metrics::Metrics;
use crate::push::outbox::{Resync, ResyncReason, Standing, SubscribeFailure};
use crate::push::session::{Held, SessionHandle};

/// A loss of rights that nobody has told of may be half of a rename: the registry's ACLs go by the new name before the
/// rename comes out of the queue. So long it is waited for, without a word of the mailbox meanwhile.
pub(super) const UNTOLD: Duration = Duration::from_secs(2);

/// Runs until the subscriptions are dropped.
pub(super) async fn heed(subscriptions: WeakSubscriptions, mut notices: mpsc::UnboundedReceiver<Notice>) {
    while let Some(notice) = notices.recv().await {
        let Some(subscriptions) = subscriptions.upgrade() else { return };
        match notice {
            Notice::Grant(grant) => {
                if let Some(grant) = grant.upgrade() {
                    // First: what changes from now on is another notice.
                    grant.notice.begin();
                    subscriptions.review(&grant);
                }
            }
            Notice::Shares(identifier) => subscriptions.cover_again(identifier.as_ref()),
        }
    }
}

/// What a change of rights means to one session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Meaning {
    Nothing,
    /// What it was told of before is not told any more.
    Lost,
    /// What was not told before is told from now on.
    Gained,
}

fn meaning(before: Rights, now: Rights) -> Meaning {
    let lost = !now.contains(Rights::LOOKUP) || before.contains(Rights::READ) && !now.contains(Rights::READ);
    if lost {
        Meaning::Lost
    } else if now.contains(Rights::READ) && !before.contains(Rights::READ) {
        Meaning::Gained
    } else {
        Meaning::Nothing
    }
}

impl Subscriptions {
    /// Tells every session that holds this grant what has become of it, in a while where that is a loss that nobody has told
    /// of. Those whose subscription does not stand yet look for themselves.
    pub(super) fn review(self: &Arc<Self>, grant: &Arc<Grant>) {
        let Some((rights, cause)) = grant.take_cause() else { return self.leave_to_the_server(grant) };
        if self.tell(grant, rights, cause == Cause::Announced) && grant.second_look.schedule() {
            let (this, grant) = (Arc::downgrade(self), Arc::downgrade(grant));
            tokio::spawn(async move {
                tokio::time::sleep(UNTOLD).await;
                if let (Some(this), Some(grant)) = (this.upgrade(), grant.upgrade()) {
                    grant.second_look.begin();
                    this.review_now(&grant);
                }
            });
        }
    }

    /// The same, at once.
    pub(super) fn review_now(&self, grant: &Arc<Grant>) {
        if let Some(rights) = grant.rights() {
            self.tell(grant, rights, true);
        }
    }

    /// Whether something is left to be told later.
    fn tell(&self, grant: &Arc<Grant>, rights: Rights, at_once: bool) -> bool {
        let withheld = grant.take_withheld(rights);
        let mut later = false;
        for session in self.hub.sessions_by(grant) {
            let mut guard = session.held();
            let Some(held) = guard.as_mut() else { continue };
            let is_its = |h: &Held| h.is_active() && h.grant.as_ref().is_some_and(|of| Arc::ptr_eq(of, grant));
            let Some(at) = held.iter().position(is_its) else { continue };
            let meaning = meaning(held[at].rights, rights);
            if meaning == Meaning::Lost && !at_once {
                (held[at].lost, later) = (true, true);
                continue;
            }
            held[at].rights = rights;
            let missed = std::mem::take(&mut held[at].lost) || withheld;
            match meaning {
                Meaning::Lost => self.revoke(&session, held, at),
                Meaning::Nothing if !missed => {}
                Meaning::Nothing | Meaning::Gained => {
                    session.push_resync(Resync::Keys(BTreeSet::from([grant.key().clone()])), ResyncReason::Rights);
                }
            }
        }
        later
    }

    /// Where nobody can say what the user of an IMAP session may do, the mail server goes on by its own IDLE, as where nobody
    /// can be asked. The next IDLE asks again.
    fn leave_to_the_server(&self, grant: &Arc<Grant>) {
        if !grant.is_undecidable() {
            return;
        }
        for session in self.hub.sessions_by(grant) {
            let mut guard = session.held();
            let Some(held) = guard.as_mut() else { continue };
            let is_its = |h: &Held| h.watched && h.grant.as_ref().is_some_and(|of| Arc::ptr_eq(of, grant));
            if let Some(at) = held.iter().position(is_its) {
                let gone = held.swap_remove(at);
                let key = gone.key.clone();
                self.withdraw(&session, gone);
                session.push_standing(key, Standing::Unavailable);
            }
        }
    }

    /// Ends a subscription whose right is lost: from here on nothing of it is told, and that is.
    pub(super) fn revoke(&self, session: &Arc<SessionHandle>, held: &mut Vec<Held>, at: usize) {
        let mut gone = held.swap_remove(at);
        let (key, waiting) = (gone.name().clone(), std::mem::take(&mut gone.waiting));
        self.withdraw(session, gone);
        for tag in waiting {
            session.push_settled(tag, key.clone(), Err(SubscribeFailure::NotFound));
        }
        Metrics::count(&self.metrics.revoked, "transport", session.transport.as_str());
        session.push_revoked(key);
    }

    /// A new token may say other groups: all rights are asked for anew.
    pub fn change_subject(self: &Arc<Self>, session: &Arc<SessionHandle>, subject: Subject) {
        if session.subject() != subject {
            session.set_subject(subject);
            self.regroup(session);
        }
    }

    /// Everything of others is held as whoever the session is now.
    pub(super) fn regroup(self: &Arc<Self>, session: &Arc<SessionHandle>) {
        let subject = session.subject();
        let mut guard = session.held();
        let Some(held) = guard.as_mut() else { return };
        let mut lost = Vec::new();
        for holding in held.iter_mut() {
            let Key::Mailbox(path) = &holding.key else { continue };
            let own = path.is_owned_by(&subject.user);
            if holding.grant.is_none() && (own || holding.watched) {
                // A watcher of what was its own is about to move along.
                continue;
            }
            let grant = match own {
                true => None,
                false if holding.watched => self.access.hold_for_imap(session, path),
                false => self.access.hold(&subject, path),
            };
            if grant.is_none() && !own {
                lost.push(holding.serial);
                continue;
            }
            // The old one is held until the new one is in its place, which makes good what the old one owes.
            let before = std::mem::replace(&mut holding.grant, grant);
            if let (Some(before), Some(now)) = (&before, &holding.grant)
                && before.may_have_withheld()
            {
                now.note_withheld();
            }
            if holding.is_active() {
                self.hub.subscribe(&holding.key, session, holding.wanted(), holding.grant.as_ref(), || ());
            }
        }
        for serial in lost {
            if let Some(at) = held.iter().position(|holding| holding.serial == serial) {
                self.revoke(session, held, at);
            }
        }
        let grants: Vec<Arc<Grant>> = held.iter().filter_map(|h| h.grant.clone()).collect();
        drop(guard);
        for grant in grants {
            match grant.rights() {
                Some(_) => self.review_now(&grant),
                None => self.access.ask_if_unknown(&grant),
            }
        }
        self.cover_again_for(session);
    }
}
