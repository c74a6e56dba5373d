//! When what is shared is listed again for those who cover it.
//!
//! What concerns one user is looked at at once. What concerns everybody, a group, or nobody in particular is looked at for
//! one session after the other, no faster than `access.rechecks_per_second`: with the mail server as the source each listing
//! is a login. Every session has its turn once in `access.recheck_ms` anyhow, spread over that time.

use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::sync::mpsc::UnboundedReceiver;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use super::shares::{Listing, QUESTIONS_AT_ONCE, SOON, take_up};
use super::{Subscriptions, WeakSubscriptions};
use crate::mail::rights::Identifier;
use crate::push::outbox::SubscribeFailure;
use crate::push::session::SessionHandle;

/// Before what could not be listed is listed again; doubled each time.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// Listings of one session whose questions are under way at once: a mailbox that cannot be asked for does not keep a new share
/// waiting.
const AT_ONCE: usize = 4;
/// How often sessions are looked for whose turn it is, at least.
const TICK: Duration = Duration::from_secs(1);
/// Those whose turn comes within this time of quiet do not wait for it.
const SLACK: Duration = Duration::from_millis(100);

/// One session that is kept covering.
pub(super) struct Covering {
    session: Weak<SessionHandle>,
    /// Whether somebody is at it, and whether it is to be done again then.
    state: AtomicU8,
    /// Waits for its turn.
    is_in_line: AtomicBool,
    /// Will be done again in a while, for what could not be asked for.
    is_put_off: AtomicBool,
    /// Not everything that is shared is covered, and that is still to be told.
    pub is_exceeded: AtomicBool,
    /// Turns to ask for rights.
    pub questions: Semaphore,
    places: Arc<Semaphore>,
}

const IDLE: u8 = 0;
const BUSY: u8 = 1;
const AGAIN: u8 = 2;
/// To be done once the account's subscription stands.
const PUT_OFF: u8 = 3;

impl Covering {
    fn is_of(&self, session: &SessionHandle) -> bool {
        std::ptr::eq(self.session.as_ptr(), session)
    }

    /// Waits until few others list for this session; `None`: never.
    pub async fn place(&self) -> Option<OwnedSemaphorePermit> {
        self.places.clone().acquire_owned().await.ok()
    }
}

impl Subscriptions {
    pub(super) fn note_covering(&self, session: &Arc<SessionHandle>) -> Arc<Covering> {
        let mut all = self.covering();
        if let Some(known) = all.iter().find(|known| known.is_of(session)) {
            return known.clone();
        }
        let covering = Arc::new(Covering {
            session: Arc::downgrade(session),
            state: AtomicU8::new(IDLE),
            is_in_line: AtomicBool::default(),
            is_put_off: AtomicBool::default(),
            is_exceeded: AtomicBool::default(),
            questions: Semaphore::new(QUESTIONS_AT_ONCE),
            places: Arc::new(Semaphore::new(AT_ONCE)),
        });
        all.push(covering.clone());
        covering
    }

    pub(super) fn stop_covering(&self, session: &Arc<SessionHandle>) {
        self.covering().retain(|covering| covering.session.strong_count() > 0 && !covering.is_of(session));
    }

    pub(super) fn covering_of(&self, session: &SessionHandle) -> Option<Arc<Covering>> {
        self.covering().iter().find(|covering| covering.is_of(session)).cloned()
    }

    /// What is shared with this identifier may be something else now; `None`: with anybody.
    pub(super) fn cover_again(self: &Arc<Self>, identifier: Option<&Identifier>) {
        let is_one_user = matches!(identifier, Some(Identifier::User(_)));
        let all: Vec<Arc<Covering>> = self.covering().clone();
        for covering in all {
            let Some(session) = covering.session.upgrade() else { continue };
            if !identifier.is_none_or(|identifier| session.subject().is(identifier, false)) {
                continue;
            }
            if is_one_user {
                self.begin_again(covering);
            } else {
                self.stand_in_line(covering);
            }
        }
    }

    pub(super) fn cover_again_for(self: &Arc<Self>, session: &Arc<SessionHandle>) {
        if let Some(covering) = self.covering_of(session) {
            self.begin_again(covering);
        }
    }

    /// The account's subscription stands: what came meanwhile is seen to.
    pub(super) fn cover_what_came(self: &Arc<Self>, session: &Arc<SessionHandle>) {
        if let Some(covering) = self.covering_of(session).filter(|known| known.state.load(Ordering::Acquire) == PUT_OFF) {
            self.begin_again(covering);
        }
    }

    fn begin_again(self: &Arc<Self>, covering: Arc<Covering>) {
        if matches!(covering.state.swap(AGAIN, Ordering::AcqRel), IDLE | PUT_OFF) {
            tokio::spawn(keep(self.clone(), covering));
        }
    }

    /// To be done when its turn comes; it is in the line once, however often it is wanted before that.
    fn stand_in_line(&self, covering: Arc<Covering>) {
        if !covering.is_in_line.swap(true, Ordering::AcqRel) {
            // The other end is there for as long as this is.
            let _ = self.line.send(covering);
        }
    }
}

/// Lists for those in the line, one after the other, until the subscriptions are dropped.
pub(super) async fn pace(subscriptions: WeakSubscriptions, mut line: UnboundedReceiver<Arc<Covering>>) {
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
        covering.is_in_line.store(false, Ordering::Release);
        this.begin_again(covering);
    }
}

/// Lets every session have its turn once in `access.recheck_ms`, for changes that nobody tells of.
pub(super) async fn recheck(subscriptions: WeakSubscriptions) {
    let Some(recheck) = subscriptions.upgrade().map(|this| this.access.options.recheck) else { return };
    let tick = TICK.min(recheck / 4).max(Duration::from_millis(5));
    // The share of a session that is due.
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

/// Lists again what could not be asked for, in a while and in its turn; once, however many listings met it.
pub(super) async fn again_soon(subscriptions: WeakSubscriptions, covering: Arc<Covering>) {
    if covering.is_put_off.swap(true, Ordering::AcqRel) {
        return;
    }
    tokio::time::sleep(SOON).await;
    // First: what cannot be asked for from now on is put off anew.
    covering.is_put_off.store(false, Ordering::Release);
    if let Some(this) = subscriptions.upgrade() {
        this.stand_in_line(covering);
    }
}

/// Covers what has come, until there is nothing new.
async fn keep(this: Arc<Subscriptions>, covering: Arc<Covering>) {
    let mut pause = FIRST_PAUSE;
    loop {
        let Some(place) = covering.place().await else { return };
        covering.state.store(BUSY, Ordering::Release);
        let Some(session) = covering.session.upgrade() else { return };
        let account = {
            let held = session.held();
            let account = held.iter().flatten().find(|h| h.shared).map(|h| (h.serial, h.is_active()));
            // Under the lock: whoever makes it stand looks at this afterwards.
            if matches!(account, Some((_, false))) && covering.leaves_busy_for(PUT_OFF) {
                return;
            }
            account
        };
        if let Some((serial, true)) = account {
            match this.list(&session, serial).await {
                // Beside it: what comes next is not kept waiting until these have settled.
                Ok(listed) => {
                    let listing = Listing::new(&this, &covering, &session, serial, &Arc::new(AtomicBool::new(true)));
                    tokio::spawn(take_up(listing, listed, place));
                }
                Err(SubscribeFailure::Withdrawn) => {}
                Err(_) => {
                    drop((session, place));
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(this.access.options.recheck.max(FIRST_PAUSE));
                    continue;
                }
            }
        }
        if covering.leaves_busy_for(IDLE) {
            return;
        }
    }
}

impl Covering {
    /// Whether nobody wants it to be done again.
    fn leaves_busy_for(&self, state: u8) -> bool {
        self.state.compare_exchange(BUSY, state, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }
}
