//! One session whose account subscription is kept covering what is shared with its user.

use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Weak};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::lock::Mutex;
use crate::push::once::Once;
use crate::push::session::LiveSession;

/// Questions for the rights on what is shared with one session that are on their way at once.
pub(super) const QUESTIONS_AT_ONCE: usize = 32;
/// Listings of one session whose questions are under way at once: a mailbox that cannot be asked
/// for does not keep a new share waiting.
const LISTINGS_AT_ONCE: usize = 4;

/// One session that is kept covering.
pub(super) struct Coverage {
    pub session: Weak<LiveSession>,
    task: Mutex<Task>,
    /// It stands in the line of those whose turn to be listed comes.
    pub in_line: Once,
    /// It will stand in the line in a while, for a mailbox that could not be asked for.
    pub retry: Once,
    /// Not everything that is shared is covered, and that is still to be told.
    pub is_exceeded: AtomicBool,
    /// Turns to ask for rights.
    pub questions: Semaphore,
    places: Arc<Semaphore>,
}

/// What the task that lists for the session does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Task {
    /// There is none.
    Idle,
    Listing,
    /// It lists, and is to list again after that.
    ListAgain,
    /// There is none. It is to list once the account's subscription stands.
    AwaitsAccount,
}

impl Coverage {
    pub fn new(session: &Arc<LiveSession>) -> Arc<Self> {
        Arc::new(Self {
            session: Arc::downgrade(session),
            task: Mutex::new(Task::Idle),
            in_line: Once::default(),
            retry: Once::default(),
            is_exceeded: AtomicBool::default(),
            questions: Semaphore::new(QUESTIONS_AT_ONCE),
            places: Arc::new(Semaphore::new(LISTINGS_AT_ONCE)),
        })
    }

    pub fn is_of(&self, session: &LiveSession) -> bool {
        std::ptr::eq(self.session.as_ptr(), session)
    }

    /// Waits until few others list for this session; `None`: never.
    pub async fn place(&self) -> Option<OwnedSemaphorePermit> {
        self.places.clone().acquire_owned().await.ok()
    }

    /// It is to be listed. Whether the caller is to start the task.
    pub fn want(&self) -> bool {
        let before = std::mem::replace(&mut *self.task.lock(), Task::ListAgain);
        matches!(before, Task::Idle | Task::AwaitsAccount)
    }

    pub fn awaits_account(&self) -> bool {
        *self.task.lock() == Task::AwaitsAccount
    }

    /// The task begins to list: what is wanted from now on is listed after that.
    pub fn begin(&self) {
        *self.task.lock() = Task::Listing;
    }

    /// Whether the task may end: nobody has wanted more since it began.
    pub fn finish(&self) -> bool {
        self.leave_for(Task::Idle)
    }

    /// The same, until the account's subscription stands.
    pub fn await_account(&self) -> bool {
        self.leave_for(Task::AwaitsAccount)
    }

    fn leave_for(&self, next: Task) -> bool {
        let mut task = self.task.lock();
        let may_end = *task == Task::Listing;
        if may_end {
            *task = next;
        }
        may_end
    }
}
