//! How many files a process may have open, and which of them are kept for when they run out.
//!
//! Every client's socket is an open file, and so is every connection to Kafka, ZooKeeper, a mail
//! server or another node. Clients are turned away while there are a few left: probes are still
//! answered then, sessions that are there go on, and goodbyes are said.

use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::sync::atomic::{AtomicU64, Ordering};

use rlimit::Resource;

/// The soft limit; 0 while it has not been asked for.
static LIMIT: AtomicU64 = AtomicU64::new(0);

/// Raises the soft limit to the hard one, which is as far as a process may go by itself; returns
/// it.
///
/// # Errors
/// The system refuses.
pub fn raise_limit() -> io::Result<u64> {
    let (soft, hard) = Resource::NOFILE.get()?;
    if soft < hard {
        Resource::NOFILE.set(hard, hard)?;
    }
    LIMIT.store(hard, Ordering::Relaxed);
    Ok(hard)
}

/// How many files the process may have open.
pub fn limit() -> u64 {
    match LIMIT.load(Ordering::Relaxed) {
        0 => {
            let limit = Resource::NOFILE.get().map_or(u64::MAX, |(soft, _)| soft);
            LIMIT.store(limit, Ordering::Relaxed);
            limit
        }
        limit => limit,
    }
}

/// How many of them no new client gets.
pub fn reserve() -> u64 {
    reserve_of(limit())
}

/// The same of a limit.
pub fn reserve_of(limit: u64) -> u64 {
    (limit / 8).clamp(16, 256)
}

/// Whether a socket that has just been opened is one of those that no new client gets. The system
/// always gives out the lowest number that is free (POSIX.1-2017 2.14), so its number says how many
/// are open, whatever they are.
pub fn is_scarce(socket: &impl AsFd) -> bool {
    let number = u64::try_from(socket.as_fd().as_raw_fd()).unwrap_or(0);
    number >= limit().saturating_sub(reserve())
}

/// Whether an error is that no more files can be opened, by this process or by this machine.
pub fn is_exhausted(error: &io::Error) -> bool {
    // EMFILE and ENFILE have these numbers on every system that we run on.
    matches!(error.raw_os_error(), Some(23 | 24))
}
