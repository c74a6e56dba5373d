//! Work that is scheduled once, however often it is asked for before it begins.

use std::sync::atomic::{AtomicBool, Ordering};

/// Whether the work is scheduled.
#[derive(Debug, Default)]
pub(super) struct Once(AtomicBool);

impl Once {
    /// Whether the caller is to schedule it, for nobody has.
    pub(super) fn schedule(&self) -> bool {
        !self.0.swap(true, Ordering::AcqRel)
    }

    /// It begins: whoever asks for it from now on schedules it anew.
    pub(super) fn begin(&self) {
        self.0.store(false, Ordering::Release);
    }
}
