//! When what is shared is listed again for those who cover it.
//!
//! A change that concerns one user is followed at once. One that concerns everybody, a group, or
//! nobody in particular is followed for one session after the other, no faster than
//! `access.rechecks_per_second`: with the mail server as the source each listing is a login. Every
//! session has its turn once in `access.recheck_ms` anyhow, spread over that time.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use tokio::sync::mpsc::UnboundedReceiver;
use tokio::time::Instant;

use super::coverage::Coverage;
use super::service::{Subscriptions, WeakSubscriptions};
use super::shares::{Listing, take_up};
use crate::mail::rights::Identifier;
use crate::push::outbox::SubscribeFailure;
use crate::push::session::LiveSession;

/// The pause before a listing that failed is tried again; doubled each time.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// How often sessions are looked for whose turn it is, at least.
const TICK: Duration = Duration::from_secs(1);
/// After quiet, sessions may have their turn by this much earlier than their rate says.
const SLACK: Duration = Duration::from_millis(100);

impl Subscriptions {
    /// Other mailboxes may be shared with this identifier now; `None`: with anybody.
    pub(super) fn cover_again(self: &Arc<Self>, identifier: Option<&Identifier>) {
        let is_one_user = matches!(identifier, Some(Identifier::User(_)));
        let all: Vec<Arc<Coverage>> = self.covering().clone();
        for covering in all {
            let Some(session) = covering.session.upgrade() else { continue };
            if !identifier.is_none_or(|identifier| session.subject().is(identifier, false)) {
                continue;
            }
            if is_one_user {
                self.list_now(covering);
            } else {
                self.stand_in_line(covering);
            }
        }
    }

    pub(super) fn cover_again_for(self: &Arc<Self>, session: &LiveSession) {
        if let Some(covering) = self.covering_of(session) {
            self.list_now(covering);
        }
    }

    /// The account's subscription stands: what came to be shared meanwhile is listed.
    pub(super) fn cover_what_came(self: &Arc<Self>, session: &LiveSession) {
        if let Some(covering) = self.covering_of(session).filter(|known| known.awaits_account()) {
            self.list_now(covering);
        }
    }

    fn list_now(self: &Arc<Self>, covering: Arc<Coverage>) {
        if covering.want() {
            tokio::spawn(list_until_current(self.clone(), covering));
        }
    }

    /// To be listed when its turn comes; it is in the line once, however often it is wanted before
    /// that.
    pub(super) fn stand_in_line(&self, covering: Arc<Coverage>) {
        if covering.in_line.schedule() {
            // The other end is there for as long as this is.
            let _ = self.line.send(covering);
        }
    }
}

/// Lists for those in the line, one after the other, until the subscriptions are dropped.
pub(super) async fn pace(subscriptions: WeakSubscriptions, mut line: UnboundedReceiver<Arc<Coverage>>) {
    let mut turn = Instant::now();
    while let Some(covering) = line.recv().await {
        if covering.session.strong_count() == 0 {
            continue;
        }
        let Some(rate) = subscriptions.upgrade().map(|this| this.access.options.rechecks_per_second) else { return };
        let now = Instant::now();
        turn = (turn + Duration::from_secs(1) / rate.max(1)).max(now.checked_sub(SLACK).unwrap_or(now));
        tokio::time::sleep_until(turn).await;
        let Some(this) = subscriptions.upgrade() else { return };
        covering.in_line.begin();
        this.list_now(covering);
    }
}

/// Lets every session have its turn once in `access.recheck_ms`, for changes that nobody tells of.
pub(super) async fn recheck(subscriptions: WeakSubscriptions) {
    let Some(recheck) = subscriptions.upgrade().map(|this| this.access.options.recheck) else { return };
    let tick = TICK.min(recheck / 4).max(Duration::from_millis(5));
    // How many sessions' turn it is, with the fraction of the next one.
    let mut due = 0.0;
    loop {
        tokio::time::sleep(tick).await;
        let Some(this) = subscriptions.upgrade() else { return };
        let mut all = this.covering();
        due = (due + all.len() as f64 * tick.as_secs_f64() / recheck.as_secs_f64()).min(all.len() as f64);
        let first = due as usize;
        due -= first as f64;
        let turns = all[..first].to_vec();
        all.rotate_left(first);
        drop(all);
        turns.into_iter().for_each(|covering| this.stand_in_line(covering));
    }
}

/// Lists, and covers what has come, until there is nothing new.
async fn list_until_current(this: Arc<Subscriptions>, covering: Arc<Coverage>) {
    let mut pause = FIRST_PAUSE;
    loop {
        let Some(place) = covering.place().await else { return };
        covering.begin();
        let Some(session) = covering.session.upgrade() else { return };
        match account(&covering, &session) {
            Account::Stands(id) => match this.list(&session, id).await {
                // Beside it: what comes next is not kept waiting until these have settled.
                Ok(listed) => {
                    let listing = Listing::new(&this, &covering, &session, id, &Arc::new(AtomicBool::new(true)));
                    tokio::spawn(take_up(listing, listed, place));
                }
                Err(SubscribeFailure::Withdrawn) => {}
                Err(_) => {
                    drop((session, place));
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(this.access.options.recheck.max(FIRST_PAUSE));
                    continue;
                }
            },
            Account::Comes => return,
            Account::Not => {}
        }
        if covering.finish() {
            return;
        }
    }
}

/// The account's subscription of a session.
enum Account {
    /// This one.
    Stands(u64),
    /// It is on its way, and whoever brings it to stand lists again.
    Comes,
    /// There is none, or there is more to list once it stands.
    Not,
}

fn account(covering: &Coverage, session: &LiveSession) -> Account {
    let Some(book) = session.book() else { return Account::Not };
    let Some(account) = book.iter().find(|subscription| subscription.interest.is_of_shared()) else { return Account::Not };
    if account.is_in_hub() {
        return Account::Stands(account.id);
    }
    // While the book is locked: whoever makes it stand looks at this afterwards.
    if covering.await_account() { Account::Comes } else { Account::Not }
}
