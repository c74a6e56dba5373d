//! The WebSocket door: one task per session, once the handshake (`handshake`) is over.
//!
//! A session's task owns nothing but its socket, its protocol state and its place in the outbox.
//! Frames are shared between sessions and written with `writev`; there is no write buffer to grow.
//! Reading stops while the client does not read, so neither side can make the other hold more than
//! its bounds.

mod entry;
mod handshake;

pub use handshake::open;

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::Bytes;
use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Sleep;
use tokio_util::sync::WaitForCancellationFutureOwned;

use self::entry::{Resuming, Verifying, verified};
use super::auth::Identity;
use super::gateway::{Gateway, now};
use crate::http::server::ConnectionPermit;
use crate::mail::ids::SessionId;
use crate::mail::key::Key;
use crate::mail::rights::Rights;
use crate::push::hub::Filter;
use crate::push::metrics::Metrics;
use crate::push::outbox::{End, Outgoing, Resync, SubscribeFailure};
use crate::push::session::LiveSession;
use crate::push::subscriptions::Wish;
use crate::wire::ws::close::{CloseReason, Goodbye};
use crate::wire::ws::codec::{Codec, Input};
use crate::wire::ws::command::{CommandError, Subscribe};
use crate::wire::ws::push::{self, Resumed};
use crate::wire::ws::session::{Action, Session};

/// Frames waiting for the socket before reading stops.
const PENDING_FRAMES: usize = 64;
/// Slices in one `writev`.
const SLICES: usize = 32;
/// How long hyper may take to hand the socket over.
const UPGRADE_TIMEOUT: Duration = Duration::from_secs(10);
/// What a refused subscription should wait before it is tried again.
const RETRY_AFTER_MS: u64 = 2_000;

/// A connection between its handshake and its first frame.
struct Door {
    gateway: Arc<Gateway>,
    peer: SocketAddr,
    identity: Option<Identity>,
    entry: Entry,
    _permit: ConnectionPermit,
    unauthenticated: Option<OwnedSemaphorePermit>,
}

/// What the handshake has decided of a socket.
enum Entry {
    Open,
    /// It is opened for its client to be told why it is closed.
    Refused(CloseReason),
}

impl Door {
    async fn serve(self, upgrade: OnUpgrade) {
        let Ok(Ok(upgraded)) = tokio::time::timeout(UPGRADE_TIMEOUT, upgrade).await else { return };
        let Ok(parts) = upgraded.downcast::<TokioIo<crate::http::write_timeout::WriteTimeout>>() else { return };
        Connection::new(self, parts.io.into_inner().into_inner(), parts.read_buf).run().await;
    }
}

/// One session: its socket and its state.
struct Connection {
    gateway: Arc<Gateway>,
    peer: SocketAddr,
    io: TcpStream,
    codec: Codec,
    session: Session,
    id: SessionId,
    handle: Option<Arc<LiveSession>>,
    resuming: Option<Box<Resuming>>,
    verifying: VecDeque<Verifying>,
    /// Input that waits: while a `connect` is being handled, nothing behind it is.
    steps: VecDeque<Step>,
    limiter: DefaultDirectRateLimiter,
    pending: VecDeque<Bytes>,
    /// Bytes of the first pending frame that are written already.
    written: usize,
    /// When the oldest event among the pending frames was consumed.
    oldest: Option<Instant>,
    /// When the socket last took something, while something is pending.
    stalled_since: Option<Instant>,
    unauthenticated: Option<OwnedSemaphorePermit>,
    /// Resolves when the node drains. Set until the user is known: a drain tells the sessions in
    /// the table, and this one is not in it before that.
    drained: Option<Pin<Box<WaitForCancellationFutureOwned>>>,
    ending: Option<Ending>,
    reason: &'static str,
    over: bool,
    _permit: ConnectionPermit,
}

/// The last part of a connection: what is pending is written, then the sending side is shut, then
/// what still comes is thrown away until the client closes too. To drop the socket while unread
/// bytes wait in it would reset the connection, and the client could lose the close frame (RFC 6455
/// 7.1.1).
struct Ending {
    deadline: Instant,
    shut: bool,
}

/// Something that was read.
enum Step {
    Input(Input),
    /// The codec's answer: pongs, the closing handshake.
    Answer(Bytes),
    /// The bytes are no WebSocket frames; nothing behind them is read.
    Fail(CloseReason),
}

/// What woke a session up.
enum Wake {
    Wrote(usize),
    Read(Vec<Input>, Result<(), CloseReason>, Vec<u8>),
    Outgoing(VecDeque<Outgoing>),
    /// Bytes came that are dropped, or our side was shut.
    Nothing,
    Draining,
    Timeout,
    Gone,
}

impl Connection {
    fn new(door: Door, io: TcpStream, read_ahead: Bytes) -> Box<Self> {
        let settings = &door.gateway.settings.sessions;
        let rate = NonZeroU32::new(settings.commands_per_second).unwrap_or(NonZeroU32::MIN);
        let burst = NonZeroU32::new(settings.command_burst).unwrap_or(NonZeroU32::MIN);
        let id = SessionId::random(door.gateway.node().clone());
        let mut connection = Box::new(Self {
            peer: door.peer,
            io,
            codec: Codec::server(settings.frame_limit_bytes),
            session: Session::new(door.gateway.rules.clone(), id.clone(), now()),
            id,
            handle: None,
            resuming: None,
            verifying: VecDeque::new(),
            steps: VecDeque::new(),
            limiter: RateLimiter::direct(Quota::per_second(rate).allow_burst(burst)),
            pending: VecDeque::new(),
            written: 0,
            oldest: None,
            stalled_since: None,
            unauthenticated: door.unauthenticated,
            drained: Some(Box::pin(door.gateway.draining.clone().cancelled_owned())),
            ending: None,
            reason: "lost",
            over: false,
            _permit: door._permit,
            gateway: door.gateway,
        });
        if let Entry::Refused(reason) = door.entry {
            connection.close(reason.into());
        } else if let Some(identity) = door.identity {
            let verified = verified(&identity);
            match connection.admit(&verified) {
                Err((_, goodbye)) => connection.close(goodbye),
                Ok(()) => connection.session.become_connected(now(), verified, Vec::new()),
            }
        }
        if !read_ahead.is_empty() {
            let (mut inputs, mut output) = (Vec::new(), Vec::new());
            let result = connection.codec.feed(&read_ahead, &mut inputs, &mut output);
            connection.received(inputs, result, output);
        }
        connection
    }

    async fn run(mut self: Box<Self>) {
        let mut timer = pin!(tokio::time::sleep_until(self.next_timeout().into()));
        while !self.over {
            if let Some(verifying) = self.verifying.pop_front() {
                self.verify(verifying).await;
                continue;
            }
            if !self.session.is_connecting()
                && let Some(step) = self.next_step()
            {
                self.step(step);
                continue;
            }
            // The timer is moved only when it must fire earlier; one that fires early is set anew.
            let due = tokio::time::Instant::from(self.next_timeout());
            if timer.is_elapsed() || due < timer.deadline() {
                timer.as_mut().reset(due);
            }
            match std::future::poll_fn(|cx| self.poll_wake(cx, timer.as_mut())).await {
                Wake::Wrote(bytes) => self.wrote(bytes),
                Wake::Read(inputs, result, output) => self.received(inputs, result, output),
                Wake::Outgoing(outgoing) => outgoing.into_iter().for_each(|o| self.tell(o)),
                Wake::Nothing => {}
                Wake::Draining => self.close(self.until_later()),
                Wake::Timeout => self.timed_out(),
                Wake::Gone => self.over = true,
            }
        }
        self.leave();
    }

    fn next_timeout(&self) -> Instant {
        if let Some(ending) = &self.ending {
            return ending.deadline;
        }
        let protocol = self.session.poll_timeout();
        let stall = self.stalled_since.map(|since| since + self.gateway.settings.sessions.slow_client_timeout_ms.duration());
        let far = || Instant::now() + Duration::from_secs(3600);
        protocol.into_iter().chain(stall).min().unwrap_or_else(far)
    }

    fn poll_wake(&mut self, cx: &mut Context<'_>, timer: Pin<&mut Sleep>) -> Poll<Wake> {
        // First, so that constant traffic cannot delay a deadline.
        if timer.poll(cx).is_ready() {
            return Poll::Ready(Wake::Timeout);
        }
        if !self.pending.is_empty()
            && let Poll::Ready(result) = self.poll_write(cx)
        {
            return Poll::Ready(result.map_or(Wake::Gone, Wake::Wrote));
        }
        if self.ending.is_some() {
            return self.poll_ending(cx);
        }
        if let Some(drained) = &mut self.drained
            && drained.as_mut().poll(cx).is_ready()
        {
            self.drained = None;
            return Poll::Ready(Wake::Draining);
        }
        if self.pending.len() < PENDING_FRAMES
            && !self.session.is_connecting()
            && let Poll::Ready(wake) = self.poll_read(cx)
        {
            return Poll::Ready(wake);
        }
        // Only when everything is written: the outbox is bounded and merges what waits in it.
        if self.pending.is_empty()
            && let Some(handle) = &self.handle
            && let Poll::Ready(outgoing) = handle.poll_take(cx)
        {
            return Poll::Ready(Wake::Outgoing(outgoing));
        }
        Poll::Pending
    }

    /// Shuts our side once everything is written, and throws away what still comes.
    fn poll_ending(&mut self, cx: &mut Context<'_>) -> Poll<Wake> {
        if let Some(ending) = &mut self.ending
            && self.pending.is_empty()
            && !ending.shut
        {
            let shut = ready!(Pin::new(&mut self.io).poll_shutdown(cx));
            ending.shut = true;
            return Poll::Ready(shut.map_or(Wake::Gone, |()| Wake::Nothing));
        }
        let mut bytes = [0; 4096];
        let mut buffer = ReadBuf::new(&mut bytes);
        let read = ready!(Pin::new(&mut self.io).poll_read(cx, &mut buffer));
        let gone = read.is_err() || buffer.filled().is_empty();
        Poll::Ready(if gone { Wake::Gone } else { Wake::Nothing })
    }

    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let io = Pin::new(&mut self.io);
        let result = if let (Some(frame), 1) = (self.pending.front(), self.pending.len()) {
            // The common case needs no slices, and `send` takes a shorter way through the kernel
            // than `writev`.
            io.poll_write(cx, &frame[self.written..])
        } else {
            let mut slices = [IoSlice::new(&[]); SLICES];
            let mut count = 0;
            for (frame, slice) in self.pending.iter().zip(&mut slices) {
                let skip = if count == 0 { self.written } else { 0 };
                *slice = IoSlice::new(&frame[skip..]);
                count += 1;
            }
            io.poll_write_vectored(cx, &slices[..count])
        };
        match ready!(result) {
            Ok(0) => Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
            result => Poll::Ready(result),
        }
    }

    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<Wake> {
        // On the stack, and only while polled: an idle session keeps no buffer of ours.
        let mut bytes = [0; 4096];
        let mut buffer = ReadBuf::new(&mut bytes);
        match ready!(Pin::new(&mut self.io).poll_read(cx, &mut buffer)) {
            Ok(()) if buffer.filled().is_empty() => Poll::Ready(Wake::Gone),
            Ok(()) => {
                let (mut inputs, mut output) = (Vec::new(), Vec::new());
                let result = self.codec.feed(buffer.filled(), &mut inputs, &mut output);
                Poll::Ready(Wake::Read(inputs, result, output))
            }
            Err(_) => Poll::Ready(Wake::Gone),
        }
    }

    fn wrote(&mut self, mut bytes: usize) {
        self.gateway.metrics.bytes_written.inc_by(bytes as u64);
        let time = now();
        self.session.handle_sent(time);
        while let Some(frame) = self.pending.front() {
            let left = frame.len() - self.written;
            if bytes < left {
                self.written += bytes;
                break;
            }
            bytes -= left;
            self.written = 0;
            self.pending.pop_front();
        }
        self.stalled_since = (!self.pending.is_empty()).then_some(time.monotonic);
        if self.pending.is_empty() {
            // The memory of a burst is freed.
            self.pending = VecDeque::new();
            if let Some(consumed) = self.oldest.take() {
                self.gateway.metrics.written((time.monotonic - consumed).as_secs_f64());
            }
        }
    }

    fn send(&mut self, frame: Bytes) {
        if frame.is_empty() {
            return;
        }
        self.stalled_since.get_or_insert_with(Instant::now);
        self.pending.push_back(frame);
    }

    /// Takes in what one read brought. The closing handshake's answer goes before the end that it
    /// leads to.
    fn received(&mut self, mut inputs: Vec<Input>, result: Result<(), CloseReason>, output: Vec<u8>) {
        let close = inputs.pop_if(|input| *input == Input::Close);
        self.steps.extend(inputs.into_iter().map(Step::Input));
        self.steps.extend((!output.is_empty()).then(|| Step::Answer(output.into())));
        self.steps.extend(close.map(Step::Input));
        self.steps.extend(result.err().map(Step::Fail));
    }

    fn next_step(&mut self) -> Option<Step> {
        let step = self.steps.pop_front()?;
        if self.steps.is_empty() {
            self.steps = VecDeque::new();
        }
        Some(step)
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Input(Input::Text(_)) if self.limiter.check().is_err() => self.close(CloseReason::RateLimited.into()),
            Step::Input(input) => {
                if input == Input::Close {
                    self.reason = CloseReason::ClientClosed.name();
                }
                let actions = self.session.handle_input(now(), input);
                self.act(actions);
            }
            Step::Answer(frames) => self.send(frames),
            Step::Fail(reason) => {
                self.close(reason.into());
                self.finish();
            }
        }
    }

    /// Both sides have said goodbye, or what the client says can no longer be read.
    fn finish(&mut self) {
        self.steps = VecDeque::new();
        self.leave();
        self.ending = Some(Ending { deadline: Instant::now() + self.gateway.rules.close_timeout, shut: false });
    }

    /// Nothing more is pushed to it; its subscriptions need not wait for the handshake's end.
    fn leave(&mut self) {
        if let Some(handle) = self.handle.take() {
            self.gateway.close_session(&handle, self.reason);
        }
    }

    /// The goodbye of a drain to a connection without a session. The client's port spreads when
    /// they come back.
    fn until_later(&self) -> Goodbye {
        let reconnect_after = Duration::from_millis(u64::from(self.peer.port()) % 1_000);
        Goodbye { reason: CloseReason::Draining, reconnect_after: Some(reconnect_after) }
    }

    fn timed_out(&mut self) {
        let time = now();
        if let Some(ending) = &self.ending {
            self.over = time.monotonic >= ending.deadline;
            return;
        }
        let patience = self.gateway.settings.sessions.slow_client_timeout_ms.duration();
        if self.stalled_since.is_some_and(|since| time.monotonic >= since + patience) {
            self.stalled_since = None;
            self.close(CloseReason::TooSlow.into());
            return;
        }
        let actions = self.session.handle_timeout(time);
        // The client did not finish the closing handshake in time.
        self.over = actions.contains(&Action::End);
        self.act(actions);
    }

    fn close(&mut self, goodbye: Goodbye) {
        let actions = self.session.close(now(), goodbye);
        self.act(actions);
    }

    fn act(&mut self, actions: Vec<Action>) {
        for action in actions {
            match action {
                Action::Send(frame) => self.send(frame),
                Action::Authenticate { id, token, resume } => self.verifying.push_back(Verifying::Connect { id, token, resume }),
                Action::Refresh { id, token } => self.verifying.push_back(Verifying::Refresh { id, token }),
                Action::Subscribe { id, subscribe } => self.subscribe(id, subscribe),
                Action::Unsubscribe(key) => {
                    if let Some(handle) = &self.handle {
                        self.gateway.subscriptions.unsubscribe(handle, &key);
                    }
                }
                Action::Close(goodbye) => {
                    self.reason = goodbye.reason.name();
                    let mut output = Vec::new();
                    self.codec.close(goodbye.reason, &mut output);
                    self.send(output.into());
                    self.leave();
                }
                Action::End => self.finish(),
            }
        }
    }

    fn subscribe(&mut self, id: u32, subscribe: Subscribe) {
        let Some(handle) = self.handle.clone() else { return };
        let Subscribe { key, shared, types, fields } = subscribe;
        let wish = Wish { filter: Filter { types, fields }, shared };
        self.gateway.subscriptions.subscribe(&handle, id, key, wish);
    }

    fn tell(&mut self, outgoing: Outgoing) {
        match outgoing {
            Outgoing::Event { delivery, fields } => {
                if self.session.is_connected() {
                    self.oldest.get_or_insert(delivery.consumed_at);
                    let frame = delivery.rendered(fields, |d| push::event(&d.event, fields, &d.pos)).clone();
                    self.send(frame);
                }
            }
            Outgoing::Resync { keys, reason } => {
                Metrics::count(&self.gateway.metrics.resyncs, "reason", reason.as_str());
                let keys: Vec<Key> = match keys {
                    Resync::Keys(keys) => keys.into_iter().collect(),
                    Resync::All => self.handle.iter().flat_map(|h| h.subscriptions()).map(|(key, _)| key).collect(),
                };
                if self.session.is_connected() && !keys.is_empty() {
                    self.send(push::resync(&keys, reason.as_str()));
                }
            }
            Outgoing::Settled { tag, key, outcome } => self.settled(tag, &key, outcome),
            Outgoing::Revoked { key } if self.resuming.is_some() => self.lost_while_resuming(&key),
            Outgoing::Moved { from, to } if self.resuming.is_some() => {
                self.lost_while_resuming(&from);
                // The client was not told the new name, so the subscription is dropped.
                if let (Some(to), Some(handle)) = (to, &self.handle) {
                    self.gateway.subscriptions.unsubscribe(handle, &to);
                }
            }
            Outgoing::Revoked { key } => {
                let actions = self.session.handle_revoked(&key);
                self.act(actions);
            }
            Outgoing::Moved { from, to } => {
                let actions = self.session.handle_moved(&from, to);
                self.act(actions);
            }
            Outgoing::Registration { .. } | Outgoing::Health(_) | Outgoing::AskRights { .. } => {}
            Outgoing::End(end) => self.close(goodbye(end)),
        }
    }

    /// A returning client has lost a subscription before it was told that it stands.
    fn lost_while_resuming(&mut self, key: &Key) {
        if let Some(result) = self.resuming.iter_mut().flat_map(|r| &mut r.results).find(|result| result.key == *key) {
            (result.rights, result.error) = (None, Some(CommandError::not_found()));
        }
    }

    fn settled(&mut self, tag: u32, key: &Key, outcome: Result<Rights, SubscribeFailure>) {
        let outcome = outcome.map_err(refusal);
        if let Some(resuming) = &mut self.resuming {
            resuming.outstanding.retain(|waiting| waiting != key);
            let (rights, error) = (outcome.as_ref().ok().copied(), outcome.err().map(|(error, _)| error));
            resuming.results.push(Resumed { key: key.clone(), recovered: false, rights, error });
            self.finish_resume();
            return;
        }
        let actions = match outcome {
            Ok(rights) => self.session.handle_settled(tag, key, rights),
            Err((error, kept)) => self.session.handle_refused(tag, key, error, kept),
        };
        self.act(actions);
    }
}

// Also where the task panics or is cancelled, the session gives up what it holds.
impl Drop for Connection {
    fn drop(&mut self) {
        self.leave();
    }
}

/// The error for a refused subscription, and whether the subscription that stood before still does.
pub fn refusal(failure: SubscribeFailure) -> (CommandError, bool) {
    match failure {
        SubscribeFailure::Unavailable { kept } => {
            (CommandError::unavailable("the registry did not answer in time", RETRY_AFTER_MS), kept)
        }
        SubscribeFailure::RightsUnknown { kept } => {
            (CommandError::unavailable("your rights could not be determined in time", RETRY_AFTER_MS), kept)
        }
        SubscribeFailure::Withdrawn => (CommandError::not_subscribed(), false),
        SubscribeFailure::NotFound => (CommandError::not_found(), false),
    }
}

/// The goodbye for a session that the node ends.
pub fn goodbye(end: End) -> Goodbye {
    match end {
        End::Draining { reconnect_after } => Goodbye { reason: CloseReason::Draining, reconnect_after: Some(reconnect_after) },
        End::Ended => CloseReason::Ended.into(),
        End::TooSlow => CloseReason::TooSlow.into(),
    }
}
