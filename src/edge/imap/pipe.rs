//! Bytes into and out of a stream, without a buffer of their own while nothing moves.

use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::stream::Stream;

/// The most that one read takes, in bytes.
const READ_BYTES: usize = 64 * 1024;
/// How many bytes may wait for one side before the other side is not read any more.
pub const BUFFER_LIMIT: usize = 64 * 1024;

thread_local! {
    static SCRATCH: RefCell<Box<[u8]>> = RefCell::new(vec![0; READ_BYTES].into_boxed_slice());
}

/// How much of a buffer is written, and since when it makes no progress.
#[derive(Debug, Default)]
pub struct Progress {
    pub written: usize,
    pub stalled_since: Option<Instant>,
    /// Encrypted bytes may wait in the stream itself.
    unflushed: bool,
}

impl Progress {
    /// Writes as much as the stream takes, and flushes behind the last byte. `Ready` if something
    /// was written.
    pub fn poll_write(&mut self, cx: &mut Context<'_>, stream: &mut Stream, buffer: &mut Vec<u8>) -> Poll<io::Result<usize>> {
        if !buffer.is_empty() {
            self.stalled_since.get_or_insert_with(Instant::now);
            let written = ready!(Pin::new(&mut *stream).poll_write(cx, &buffer[self.written..]))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.unflushed = true;
            self.written += written;
            self.stalled_since = Some(Instant::now());
            if self.written == buffer.len() {
                buffer.clear();
                (self.written, self.stalled_since) = (0, None);
            } else if self.written >= BUFFER_LIMIT {
                buffer.drain(..self.written);
                self.written = 0;
            }
            return Poll::Ready(Ok(written));
        }
        if self.unflushed {
            ready!(Pin::new(stream).poll_flush(cx))?;
            self.unflushed = false;
        }
        Poll::Pending
    }

    /// Whether everything is written.
    pub fn is_idle(&self, buffer: &[u8]) -> bool {
        buffer.is_empty() && !self.unflushed
    }
}

/// Reads once, into the thread's own buffer: an idle connection keeps none. `Ok(0)` at the end of
/// what is sent.
pub fn poll_read(cx: &mut Context<'_>, stream: &mut Stream, take: impl FnOnce(&[u8])) -> Poll<io::Result<usize>> {
    SCRATCH.with_borrow_mut(|scratch| {
        let mut buffer = ReadBuf::new(scratch);
        match ready!(Pin::new(stream).poll_read(cx, &mut buffer)) {
            // TLS that ends without a close_notify, as many clients end it. Nobody gains anything
            // by cutting a connection off so: a command that is not complete is not executed.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Poll::Ready(Ok(0)),
            read => read?,
        }
        let read = buffer.filled();
        if !read.is_empty() {
            take(read);
        }
        Poll::Ready(Ok(read.len()))
    })
}
