//! What follows for sessions when rights change.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;

use super::service::{Subscriptions, WeakSubscriptions};
use crate::mail::key::Key;
use crate::mail::path::MailboxPath;
use crate::mail::rights::{Rights, Subject};
use crate::push::access::{Cause, Grant, Notice};
use crate::push::outbox::{RegistrationStatus, Resync, ResyncReason};
use crate::push::session::LiveSession;
use crate::push::subscription::{Interest, Loss, Subscription};

/// A loss of rights that nobody has announced may be half of a rename: the registry's ACLs go by
/// the new name before the rename comes out of the queue. So long it is waited for, and nothing of
/// the mailbox is told meanwhile.
pub(super) const RENAME_WAIT: Duration = Duration::from_secs(2);

/// Runs until the subscriptions are dropped.
pub(super) async fn handle_notices(subscriptions: WeakSubscriptions, mut notices: mpsc::UnboundedReceiver<Notice>) {
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

/// What is left to do after a review.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Left {
    Nothing,
    /// A loss that nobody has announced is to be looked at once more.
    SecondLook,
}

impl Subscriptions {
    /// Tells every session that holds this grant what has become of it, in a while where that is a
    /// loss that nobody has announced. Those whose subscription does not stand yet look for
    /// themselves.
    pub(super) fn review(self: &Arc<Self>, grant: &Arc<Grant>) {
        let Some((rights, cause)) = grant.take_cause() else { return self.leave_to_the_server(grant) };
        if self.tell(grant, rights, cause) == Left::SecondLook && grant.second_look.schedule() {
            let (this, grant) = (Arc::downgrade(self), Arc::downgrade(grant));
            tokio::spawn(async move {
                tokio::time::sleep(RENAME_WAIT).await;
                if let (Some(this), Some(grant)) = (this.upgrade(), grant.upgrade()) {
                    grant.second_look.begin();
                    this.review_now(&grant);
                }
            });
        }
    }

    /// The same, as if whatever has changed had been announced.
    pub(super) fn review_now(&self, grant: &Arc<Grant>) {
        if let Some(rights) = grant.rights() {
            self.tell(grant, rights, Cause::Announced);
        }
    }

    fn tell(&self, grant: &Arc<Grant>, rights: Rights, cause: Cause) -> Left {
        let withheld = grant.take_withheld(rights);
        let mut left = Left::Nothing;
        for session in self.sessions_by(grant) {
            let Some(mut book) = session.book() else { continue };
            let Some(subscription) = book.iter_mut().find(|subscription| subscription.is_by(grant)) else { continue };
            let id = subscription.id;
            let Some(standing) = subscription.standing() else { continue };
            let meaning = meaning(standing.rights, rights);
            if meaning == Meaning::Lost && cause == Cause::Found {
                (standing.loss, left) = (Loss::Unannounced, Left::SecondLook);
                continue;
            }
            standing.rights = rights;
            let is_missing = std::mem::replace(&mut standing.loss, Loss::No) == Loss::Unannounced || withheld;
            match meaning {
                Meaning::Lost => self.revoke(&session, &mut book, id),
                Meaning::Nothing if !is_missing => {}
                Meaning::Nothing | Meaning::Gained => {
                    session.push_resync(Resync::Keys(BTreeSet::from([grant.key().clone()])), ResyncReason::Rights);
                }
            }
        }
        left
    }

    /// The live sessions that hear of a mailbox by this grant.
    fn sessions_by(&self, grant: &Arc<Grant>) -> impl Iterator<Item = Arc<LiveSession>> {
        self.hub.sessions_by(grant).into_iter().filter_map(|handle| self.session_of(&handle))
    }

    /// Where nobody can say what the user of an IMAP session may do, the mail server goes on by its
    /// own IDLE, as where nobody can be asked. The next IDLE asks again.
    fn leave_to_the_server(&self, grant: &Arc<Grant>) {
        if !grant.is_undecidable() {
            return;
        }
        for session in self.sessions_by(grant) {
            let Some(mut book) = session.book() else { continue };
            let is_its = |subscription: &Subscription| subscription.interest == Interest::Watched && subscription.is_by(grant);
            if let Some(gone) = book.remove_where(is_its) {
                self.withdraw(&session, &gone);
                session.push_registration(gone.key, RegistrationStatus::Unavailable);
            }
        }
    }

    /// A new token may say other groups: all rights are asked for anew.
    pub fn change_subject(self: &Arc<Self>, session: &Arc<LiveSession>, subject: Subject) {
        if session.subject() != subject {
            session.set_subject(subject);
            self.renew_grants(session);
        }
    }

    /// Every mailbox of others is subscribed to as whoever the session is now.
    pub(super) fn renew_grants(self: &Arc<Self>, session: &Arc<LiveSession>) {
        let subject = session.subject();
        let Some(mut book) = session.book() else { return };
        let mut lost = Vec::new();
        for subscription in book.iter_mut() {
            let Key::Mailbox(path) = &subscription.key else { continue };
            let own = path.is_owned_by(&subject.user);
            if subscription.grant.is_none() && (own || subscription.interest == Interest::Watched) {
                // A watcher of what was its own is about to move along.
                continue;
            }
            let grant = if own { None } else { self.new_grant(session, &subject, path, subscription.interest) };
            if grant.is_none() && !own {
                lost.push(subscription.id);
                continue;
            }
            // The old one is held until the new one is in its place, which makes good what the old
            // one withheld.
            let before = std::mem::replace(&mut subscription.grant, grant);
            if let (Some(before), Some(now)) = (&before, &subscription.grant)
                && before.may_have_withheld()
            {
                now.note_withheld();
            }
            self.update_hub(session, subscription);
        }
        for id in lost {
            self.revoke(session, &mut book, id);
        }
        let grants: Vec<Arc<Grant>> = book.iter().filter_map(|subscription| subscription.grant.clone()).collect();
        drop(book);
        for grant in grants {
            match grant.rights() {
                Some(_) => self.review_now(&grant),
                None => self.access.ask_if_unknown(&grant),
            }
        }
        self.cover_again_for(session);
    }

    fn new_grant(&self, session: &LiveSession, subject: &Subject, path: &MailboxPath, interest: Interest) -> Option<Arc<Grant>> {
        match interest {
            Interest::Watched => self.access.hold_for_imap(session.handle(), path),
            _ => self.access.hold(subject, path),
        }
    }
}
