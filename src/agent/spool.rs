//! The spool: events on disk that are not published yet, in order, bounded.
//!
//! A folder of segments, each named after the number of its first record, and a checkpoint: the number of the first
//! record that is not done. Records are appended without waiting for the disk (the kernel has them, so the death of
//! this process loses none), read in order, and done in any order; a segment whose records are all done is removed.
//! After a crash what was done since the last checkpoint comes again.

use std::collections::{BTreeMap, VecDeque};
use std::fs::{self, File, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::sync::Notify;
use tracing::{error, warn};

use super::record::{self, Found, HEADER};
use crate::lock::{Mutex, MutexGuard, rank};

/// Segments that a full spool has, about: so much of it may be done and not yet free.
const SEGMENTS: u64 = 16;
/// The largest segment begun.
const SEGMENT_BYTES: u64 = 8 * 1024 * 1024;
const SUFFIX: &str = "events";

/// Why records are not taken in.
#[derive(Debug, thiserror::Error)]
pub enum SpoolError {
    #[error("the spool is full: {0} bytes wait to be published")]
    Full(u64),
    #[error("the spool cannot be written: {0}")]
    Disk(#[from] io::Error),
}

/// Why a spool cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("another agent uses the spool {0}")]
    InUse(PathBuf),
    #[error("the spool {0} cannot be opened: {1}")]
    Disk(PathBuf, io::Error),
}

/// What waits in the spool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backlog {
    /// Records that are not done.
    pub records: u64,
    /// Bytes on disk.
    pub bytes: u64,
}

/// Where a reader is. One reader reads a spool.
#[derive(Debug, Default)]
pub struct Cursor {
    next: u64,
    segment: u64,
    offset: u64,
}

/// The folder of unpublished events, and where in it the next one is read and written.
pub struct Spool {
    folder: PathBuf,
    limit: u64,
    segment_bytes: u64,
    state: Mutex<State>,
    /// One at a time, so that a later checkpoint is not overwritten by an earlier one.
    checkpointing: Mutex<(), { rank::CHECKPOINT }>,
    appended: Notify,
    emptied: Notify,
    /// Held for its lock.
    _lock: File,
}

struct State {
    /// Oldest first; the last one is written to.
    segments: VecDeque<Segment>,
    /// The number of the next record.
    next: u64,
    /// The first record that is not done.
    head: u64,
    /// Done behind the head: first number → the one after the last.
    done: BTreeMap<u64, u64>,
    saved: u64,
    bytes: u64,
    /// Written since the last sync.
    unsynced: bool,
}

struct Segment {
    first: u64,
    /// Records in it.
    count: u64,
    /// Bytes of them; what stands behind is not ours.
    bytes: u64,
    file: Arc<File>,
}

impl Segment {
    fn end(&self) -> u64 {
        self.first + self.count
    }
}

impl Spool {
    /// Opens the folder, made if it is not there, for this process alone. Blocks.
    pub fn open(folder: &Path, limit: u64) -> Result<Self, OpenError> {
        let bad = |error| OpenError::Disk(folder.to_owned(), error);
        fs::DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(bad)?;
        let lock = File::options().create(true).truncate(false).write(true).mode(0o600).open(folder.join("lock")).map_err(bad)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(OpenError::InUse(folder.to_owned())),
            Err(TryLockError::Error(error)) => return Err(bad(error)),
        }
        let state = recover(folder).map_err(bad)?;
        Ok(Self {
            folder: folder.to_owned(),
            limit,
            segment_bytes: (limit / SEGMENTS).clamp(1, SEGMENT_BYTES),
            state: Mutex::new(state),
            checkpointing: Mutex::default(),
            appended: Notify::new(),
            emptied: Notify::new(),
            _lock: lock,
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }

    /// Takes records in, all or none. Once it returns, they outlive this process. Blocks for a write to the page cache.
    pub fn append<'a>(&self, payloads: impl IntoIterator<Item = &'a [u8]>) -> Result<(), SpoolError> {
        let mut buffer = Vec::new();
        let mut count = 0;
        for payload in payloads {
            record::write(payload, &mut buffer);
            count += 1;
        }
        let mut state = self.state();
        if state.bytes + buffer.len() as u64 > self.limit {
            return Err(SpoolError::Full(state.bytes));
        }
        let fits = |segment: &Segment| segment.bytes < self.segment_bytes && segment.end() == state.next;
        if !state.segments.back().is_some_and(fits) {
            let first = state.next;
            let path = self.folder.join(file_name(first));
            let file = File::options().create(true).truncate(true).read(true).write(true).mode(0o600).open(path)?;
            state.segments.push_back(Segment { first, count: 0, bytes: 0, file: Arc::new(file) });
        }
        let Some(segment) = state.segments.back_mut() else { return Ok(()) };
        if let Err(error) = segment.file.write_all_at(&buffer, segment.bytes) {
            // What was written of it lies behind the segment's end; the next record overwrites it.
            let _ = segment.file.set_len(segment.bytes);
            return Err(error.into());
        }
        segment.count += count;
        segment.bytes += buffer.len() as u64;
        state.next += count;
        state.bytes += buffer.len() as u64;
        state.unsynced = true;
        drop(state);
        self.appended.notify_one();
        Ok(())
    }

    /// The records behind the cursor, with their numbers, about `bytes` of them at most; none at the end. What cannot be
    /// read any more is told, and counts as done. Blocks.
    pub fn read(&self, cursor: &mut Cursor, bytes: usize) -> Vec<(u64, Vec<u8>)> {
        let mut records = Vec::new();
        loop {
            let (file, first, count, end) = {
                let state = self.state();
                cursor.next = cursor.next.max(state.head);
                let Some(segment) = state.segments.iter().find(|segment| segment.end() > cursor.next) else { return records };
                (segment.file.clone(), segment.first, segment.count, segment.bytes)
            };
            if cursor.segment != first || cursor.offset == 0 {
                *cursor = Cursor { next: first.max(cursor.next), segment: first, offset: 0 };
            }
            let skip = if cursor.offset == 0 { cursor.next - first } else { 0 };
            let wanted = (end - cursor.offset).min(bytes as u64) as usize;
            let read = read_records(&file, cursor.offset, wanted, end, skip);
            match read {
                Ok((payloads, offset)) if !payloads.is_empty() => {
                    cursor.offset = offset;
                    for payload in payloads {
                        records.push((cursor.next, payload));
                        cursor.next += 1;
                    }
                    return records;
                }
                failed => {
                    let reason = failed.err().map_or_else(|| "a record is damaged".to_owned(), |error| error.to_string());
                    let lost = first + count - cursor.next;
                    error!(lost, segment = %file_name(first), reason, "events in the spool cannot be read and are lost");
                    self.done_range(cursor.next, first + count);
                    cursor.next = first + count;
                    cursor.offset = 0;
                }
            }
        }
    }

    /// A record is published, or never will be.
    pub fn done(&self, number: u64) {
        self.done_range(number, number + 1);
    }

    fn done_range(&self, first: u64, end: u64) {
        let mut state = self.state();
        state.done.insert(first, end);
        state.advance();
        let empty = state.head == state.next;
        drop(state);
        if empty {
            self.emptied.notify_waiters();
        }
    }

    /// Waits until records have been appended since this last returned.
    pub async fn appended(&self) {
        self.appended.notified().await;
    }

    /// Waits until everything is done.
    pub async fn emptied(&self) {
        loop {
            let emptied = self.emptied.notified();
            if self.backlog().records == 0 {
                return;
            }
            emptied.await;
        }
    }

    pub fn backlog(&self) -> Backlog {
        let state = self.state();
        Backlog { records: state.next - state.head, bytes: state.bytes }
    }

    /// Whether a request of the largest size would be taken in.
    pub fn has_room(&self, bytes: u64) -> bool {
        self.state().bytes + bytes <= self.limit
    }

    /// Writes down what is done, and removes the segments that are. Blocks.
    pub fn checkpoint(&self) -> io::Result<()> {
        let _one = self.checkpointing.lock();
        let (head, saved) = {
            let state = self.state();
            (state.head, state.saved)
        };
        if head == saved {
            return Ok(());
        }
        let scratch = self.folder.join("checkpoint.new");
        let written = fs::write(&scratch, format!("{head}\n")).and_then(|()| fs::rename(scratch, self.folder.join("checkpoint")));
        // On a full disk it cannot be written, and only what is removed here makes room: what is done is not replayed anyway
        // once its segment is gone.
        let mut gone = Vec::new();
        {
            let mut state = self.state();
            if written.is_ok() {
                state.saved = head;
            }
            while let Some(segment) = state.segments.front()
                && segment.end() <= head
            {
                state.bytes -= segment.bytes;
                gone.extend(state.segments.pop_front());
            }
        }
        gone.into_iter().try_for_each(|segment| fs::remove_file(self.folder.join(file_name(segment.first))))?;
        written
    }

    /// Forces what was appended to the disk. Blocks for as long as that takes, and holds up nobody else.
    pub fn sync(&self) -> io::Result<()> {
        let files: Vec<Arc<File>> = {
            let mut state = self.state();
            if !std::mem::take(&mut state.unsynced) {
                return Ok(());
            }
            // A segment that was begun since the last sync may have followed others: few, and clean ones cost nothing.
            state.segments.iter().rev().take(4).map(|segment| segment.file.clone()).collect()
        };
        files.iter().try_for_each(|file| file.sync_data())?;
        File::open(&self.folder)?.sync_all()
    }
}

impl State {
    fn advance(&mut self) {
        while let Some((first, end)) = self.done.first_key_value().map(|(first, end)| (*first, *end))
            && first <= self.head
        {
            self.done.remove(&first);
            self.head = self.head.max(end);
        }
    }
}

fn file_name(first: u64) -> String {
    format!("{first:020}.{SUFFIX}")
}

/// Whole records from `offset` on, about `wanted` bytes and one record at least, the first `skip` of them left out; and
/// where they end.
fn read_records(file: &File, mut offset: u64, wanted: usize, end: u64, mut skip: u64) -> io::Result<(Vec<Vec<u8>>, u64)> {
    let mut payloads = Vec::new();
    let mut buffer = Vec::new();
    let mut wanted = wanted.max(HEADER);
    while offset < end && payloads.is_empty() {
        buffer.resize(wanted.min((end - offset) as usize), 0);
        file.read_exact_at(&mut buffer, offset)?;
        let mut rest = buffer.as_slice();
        let begin = offset;
        while let Found::Record { payload, size } = record::read(rest) {
            if skip > 0 {
                skip -= 1;
            } else {
                payloads.push(payload.to_vec());
            }
            rest = &rest[size..];
            offset += size as u64;
        }
        if offset == begin {
            if buffer.len() as u64 == end - offset {
                break;
            }
            // A record longer than what was read.
            wanted *= 2;
        }
    }
    Ok((payloads, offset))
}

/// Reads what an earlier process left: counts the records, cuts torn ends, finds the head.
fn recover(folder: &Path) -> io::Result<State> {
    let saved = fs::read_to_string(folder.join("checkpoint")).ok().and_then(|text| text.trim().parse().ok()).unwrap_or(0);
    let mut firsts: Vec<u64> = Vec::new();
    for entry in fs::read_dir(folder)? {
        let name = entry?.file_name();
        let first: Option<u64> = name.to_str().and_then(|name| name.strip_suffix(SUFFIX)?.strip_suffix('.')?.parse().ok());
        firsts.extend(first);
    }
    firsts.sort_unstable();
    let mut state =
        State { segments: VecDeque::new(), next: saved, head: saved, done: BTreeMap::new(), saved, bytes: 0, unsynced: false };
    let mut expected: Option<u64> = None;
    for first in firsts {
        let path = folder.join(file_name(first));
        let file = File::options().read(true).write(true).open(&path)?;
        let (count, bytes) = count_records(&file)?;
        let length = file.metadata()?.len();
        if bytes < length {
            warn!(segment = %file_name(first), bytes = length - bytes, "cut what a crash left half-written off the spool");
            file.set_len(bytes)?;
        }
        // Records whose numbers nobody has any more must not hold up the head.
        if let Some(expected) = expected.filter(|expected| *expected < first) {
            state.done.insert(expected, first);
        }
        expected = Some(first + count);
        if count == 0 || first + count <= saved {
            fs::remove_file(&path)?;
            continue;
        }
        state.bytes += bytes;
        state.next = state.next.max(first + count);
        state.segments.push_back(Segment { first, count, bytes, file: Arc::new(file) });
    }
    if let Some(segment) = state.segments.front() {
        // Where the checkpoint is lost, everything comes again.
        state.head = state.head.max(segment.first);
    }
    state.advance();
    // The checkpoint is ahead of what a power cut left.
    if let Some(last) = state.segments.back().filter(|last| last.end() < state.next) {
        state.done.insert(last.end(), state.next);
        state.advance();
    }
    Ok(state)
}

/// How many whole records a segment begins with, and their bytes.
fn count_records(file: &File) -> io::Result<(u64, u64)> {
    let length = file.metadata()?.len();
    let (mut count, mut offset) = (0, 0);
    loop {
        let (payloads, end) = read_records(file, offset, 1 << 20, length, 0)?;
        if payloads.is_empty() {
            return Ok((count, offset));
        }
        count += payloads.len() as u64;
        offset = end;
    }
}

#[cfg(test)]
#[path = "spool_tests.rs"]
mod tests;
