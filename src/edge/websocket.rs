//! The WebSocket door: the handshake (RFC 6455 4.2), then one task per session.
//!
//! A session's task owns nothing but its socket, its protocol state and its place in the outbox. Frames are shared
//! between sessions and written with `writev`; there is no write buffer to grow. Reading stops while the client does
//! not read, so neither side can make the other hold more than its bounds.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use axum::extract::{Extension, Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Version, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use data_encoding::BASE64;
use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Sleep;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_util::sync::WaitForCancellationFutureOwned;

use super::auth::{AuthError, Identity, Scopes};
use super::gateway::{Gateway, Peer, may, now, unix_ms};
use super::http::problem::Problem;
use super::http::server::ConnectionPermit;
use super::http::{bearer, query, redeem};
use crate::mail::ids::SessionId;
use crate::mail::key::Key;
use crate::push::hub::Wanted;
use crate::push::metrics::Metrics;
use crate::push::outbox::{End, Outgoing, Resync};
use crate::push::session::{SessionHandle, Transport};
use crate::wire::ws::SUBPROTOCOL;
use crate::wire::ws::close::{CloseReason, Goodbye};
use crate::wire::ws::codec::{Codec, Input};
use crate::wire::ws::command::{CommandError, Resume, Subscribe};
use crate::wire::ws::push::{self, Resumed};
use crate::wire::ws::session::{Action, Session, Verified};

/// Frames waiting for the socket before reading stops.
const PENDING_FRAMES: usize = 64;
/// Slices in one `writev`.
const SLICES: usize = 32;
/// How long hyper may take to hand the socket over.
const UPGRADE_TIMEOUT: Duration = Duration::from_secs(10);
/// What a refused subscription should wait before it is tried again.
const RETRY_AFTER_MS: u64 = 2_000;

/// `GET /v1/ws`.
pub async fn open(
    State(gateway): State<Arc<Gateway>>,
    Extension(Peer(peer)): Extension<Peer>,
    Extension(permit): Extension<ConnectionPermit>,
    mut request: Request,
) -> Result<Response, Problem> {
    let headers = request.headers();
    let accept = check_handshake(&request)?;
    check_origin(&gateway, headers)?;
    let protocol = negotiate(headers)?;
    if let Some(refusal) = gateway.refusal() {
        return Err(Problem::unavailable(refusal));
    }
    let identity = match bearer(headers)? {
        Some(token) => Some(gateway.verify(token).await.map_err(|error| Problem::token(&error))?),
        None => match query(&request).into_iter().find(|(name, _)| name == "ticket") {
            Some((_, ticket)) => Some(redeem(&gateway, &ticket).await?),
            None => None,
        },
    };
    if let Some(identity) = &identity
        && !may(identity, Scopes::PUSH)
    {
        return Err(Problem::forbidden("the token lacks the scope push"));
    }
    let unauthenticated = match identity {
        Some(_) => None,
        None => Some(
            gateway
                .unauthenticated
                .clone()
                .try_acquire_owned()
                .map_err(|_| Problem::unavailable("too many sockets are waiting to be authenticated"))?,
        ),
    };

    let upgrade = hyper::upgrade::on(&mut request);
    let door = Door { gateway: gateway.clone(), peer, identity, _permit: permit, unauthenticated };
    gateway.tasks.spawn(door.serve(upgrade));

    let mut response = StatusCode::SWITCHING_PROTOCOLS.into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    let accept = HeaderValue::from_str(&accept).map_err(|_| Problem::bad_request("Sec-WebSocket-Key is not valid"))?;
    headers.insert(header::SEC_WEBSOCKET_ACCEPT, accept);
    if protocol {
        headers.insert(header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(SUBPROTOCOL));
    }
    Ok(response)
}

/// The accept key for a valid opening handshake.
fn check_handshake(request: &Request) -> Result<String, Problem> {
    let headers = request.headers();
    // The router hands on HEAD with GET.
    if request.method() != Method::GET {
        return Err(Problem::new(StatusCode::METHOD_NOT_ALLOWED, "a WebSocket is opened with GET"));
    }
    if request.version() < Version::HTTP_11 {
        return Err(Problem::upgrade_required("a WebSocket is opened with HTTP/1.1"));
    }
    let has = |name, token: &str| {
        let values = headers.get_all(name).iter().filter_map(|v| v.to_str().ok());
        values.flat_map(|v| v.split(',')).any(|v| v.trim().eq_ignore_ascii_case(token))
    };
    if !has(header::CONNECTION, "upgrade") || !has(header::UPGRADE, "websocket") {
        return Err(Problem::upgrade_required("this is a WebSocket: send Connection: Upgrade and Upgrade: websocket"));
    }
    if only(headers, header::SEC_WEBSOCKET_VERSION) != Some(b"13") {
        return Err(Problem::upgrade_required("Sec-WebSocket-Version must be 13"));
    }
    let key = only(headers, header::SEC_WEBSOCKET_KEY).unwrap_or_default();
    match BASE64.decode(key) {
        Ok(nonce) if nonce.len() == 16 => Ok(derive_accept_key(key)),
        _ => Err(Problem::bad_request("Sec-WebSocket-Key must be 16 bytes in base64")),
    }
}

/// The value of a header that must not come twice (RFC 6455 11.3).
fn only(headers: &HeaderMap, name: HeaderName) -> Option<&[u8]> {
    let mut values = headers.get_all(name).iter();
    values.next().filter(|_| values.next().is_none()).map(HeaderValue::as_bytes)
}

/// Pages may open a socket only from a listed origin, or from the node's own page; programs send no origin.
fn check_origin(gateway: &Gateway, headers: &HeaderMap) -> Result<(), Problem> {
    let Some(origin) = headers.get(header::ORIGIN) else { return Ok(()) };
    let allowed = origin.to_str().is_ok_and(|origin| {
        origin == gateway.record.url.as_str() || gateway.settings.http.allowed_origins.iter().any(|allowed| allowed == origin)
    });
    allowed.then_some(()).ok_or_else(|| Problem::forbidden("pages of this origin may not connect (http.allowed_origins)"))
}

/// Whether to name our sub-protocol; an error if the client speaks only others.
fn negotiate(headers: &HeaderMap) -> Result<bool, Problem> {
    let offered: Vec<&str> = headers
        .get_all(header::SEC_WEBSOCKET_PROTOCOL)
        .iter()
        .filter_map(|v| v.to_str().ok())
        .flat_map(|v| v.split(',').map(str::trim))
        .collect();
    match (offered.is_empty(), offered.contains(&SUBPROTOCOL)) {
        (true, _) => Ok(false),
        (false, true) => Ok(true),
        (false, false) => Err(Problem::bad_request(format!("this server speaks the sub-protocol {SUBPROTOCOL}"))),
    }
}

/// A socket before it is one.
struct Door {
    gateway: Arc<Gateway>,
    peer: SocketAddr,
    identity: Option<Identity>,
    _permit: ConnectionPermit,
    unauthenticated: Option<OwnedSemaphorePermit>,
}

impl Door {
    async fn serve(self, upgrade: OnUpgrade) {
        let Ok(Ok(upgraded)) = tokio::time::timeout(UPGRADE_TIMEOUT, upgrade).await else { return };
        let Ok(parts) = upgraded.downcast::<TokioIo<super::http::patience::Patience>>() else { return };
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
    handle: Option<Arc<SessionHandle>>,
    resuming: Option<Box<Resuming>>,
    verifying: VecDeque<Verifying>,
    /// What was read and not acted upon yet: while a `connect` is worked on, what follows it waits.
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
    /// Tells of a drain as long as this is in no table of sessions that a drain goes through.
    drained: Option<Pin<Box<WaitForCancellationFutureOwned>>>,
    ending: Option<Ending>,
    reason: &'static str,
    over: bool,
    _permit: ConnectionPermit,
}

/// The last part of a connection: what is pending is written, then the sending side is shut, then what still comes is
/// thrown away until the client closes too. To drop the socket while unread bytes wait in it would reset the connection,
/// and the client could lose the close frame (RFC 6455 7.1.1).
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

/// A returning client's subscriptions, until all have settled.
struct Resuming {
    id: u32,
    verified: Verified,
    outstanding: Vec<Key>,
    results: Vec<Resumed>,
}

/// A token to be looked at, in the order in which they came. May wait for a key set, while this session waits and no other.
enum Verifying {
    Connect { id: u32, token: String, resume: Option<Resume> },
    Refresh { id: u32, token: String },
}

/// What woke a session up.
enum Wake {
    Wrote(usize),
    Read(Vec<Input>, Result<(), CloseReason>, Vec<u8>),
    Outgoing(VecDeque<Outgoing>),
    /// Bytes of no interest came, or the socket is shut.
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
        if let Some(identity) = door.identity {
            let verified = verified(&identity);
            match connection.admit(&verified) {
                Err((_, reason)) => connection.close(reason.into()),
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
        if !self.pending.is_empty()
            && let Poll::Ready(result) = self.poll_write(cx)
        {
            return Poll::Ready(result.map_or(Wake::Gone, Wake::Wrote));
        }
        if self.ending.is_some() {
            return match self.poll_ending(cx) {
                Poll::Pending => timer.poll(cx).map(|()| Wake::Timeout),
                ready => ready,
            };
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
        // Only when all is written: what waits in the outbox is bounded, and can still collapse.
        if self.pending.is_empty()
            && let Some(handle) = &self.handle
            && let Poll::Ready(outgoing) = handle.poll_take(cx)
        {
            return Poll::Ready(Wake::Outgoing(outgoing));
        }
        timer.poll(cx).map(|()| Wake::Timeout)
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
        let mut slices = [IoSlice::new(&[]); SLICES];
        let mut count = 0;
        for (frame, slice) in self.pending.iter().zip(&mut slices) {
            let skip = if count == 0 { self.written } else { 0 };
            *slice = IoSlice::new(&frame[skip..]);
            count += 1;
        }
        match ready!(Pin::new(&mut self.io).poll_write_vectored(cx, &slices[..count])) {
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
            // A burst's memory goes back.
            self.pending = VecDeque::new();
            if let Some(consumed) = self.oldest.take() {
                self.gateway.metrics.stage("consumed_to_written", (time.monotonic - consumed).as_secs_f64());
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

    /// Takes in what one read brought. The closing handshake's answer goes before the end that it leads to.
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

    /// The goodbye of a drain to a socket that is in no table of sessions; spread by what is at hand.
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
        // Its half of the closing handshake did not come: it need not be waited for any longer.
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

    /// A place in the table of sessions, if there is one left.
    fn admit(&mut self, verified: &Verified) -> Result<(), (CommandError, CloseReason)> {
        let opened = self.gateway.open_session(self.id.clone(), verified.user.clone(), Transport::Websocket, self.peer);
        self.handle = Some(opened.map_err(|error| (CommandError::limit(error.to_string()), CloseReason::TooManySessions))?);
        self.unauthenticated = None;
        // Asked once this is in the table of sessions: a drain that did not see it there is seen here.
        if self.gateway.is_draining() {
            return Err((CommandError::unavailable("the node is going down", RETRY_AFTER_MS), CloseReason::Draining));
        }
        self.drained = None;
        Ok(())
    }

    async fn verify(&mut self, verifying: Verifying) {
        match verifying {
            Verifying::Connect { id, token, resume } => {
                let verdict = self.gateway.verify(&token).await;
                self.authenticate(id, verdict, resume);
            }
            Verifying::Refresh { id, token } => {
                let verdict = match self.gateway.verify(&token).await {
                    Ok(identity) if may(&identity, Scopes::PUSH) => Ok(verified(&identity)),
                    Ok(_) => Err(CommandError::forbidden("the token lacks the scope push")),
                    Err(error) => Err(refused_token(&error)),
                };
                let actions = self.session.handle_refreshed(now(), id, verdict);
                self.act(actions);
            }
        }
    }

    fn authenticate(&mut self, id: u32, verdict: Result<Identity, AuthError>, resume: Option<Resume>) {
        let verdict = match verdict {
            Ok(identity) if !may(&identity, Scopes::PUSH) => {
                Err((CommandError::forbidden("the token lacks the scope push"), CloseReason::Forbidden))
            }
            Ok(identity) => {
                let verified = verified(&identity);
                self.admit(&verified).map(|()| verified)
            }
            Err(error) => {
                let reason = match error {
                    AuthError::Expired => CloseReason::TokenExpired,
                    _ if error.is_transient() => CloseReason::Unavailable,
                    _ => CloseReason::BadToken,
                };
                Err((refused_token(&error), reason))
            }
        };
        match (verdict, resume) {
            (Ok(verified), Some(resume)) => self.resume(id, verified, resume),
            (verdict, _) => {
                let actions = self.session.handle_authenticated(now(), id, verdict, None);
                self.act(actions);
            }
        }
    }

    /// Subscribes a returning client to what it had; the reply to `connect` waits until all of it has settled. What it
    /// missed is not replayed: it reads its state.
    fn resume(&mut self, id: u32, verified: Verified, resume: Resume) {
        let mut resuming = Box::new(Resuming { id, verified, outstanding: Vec::new(), results: Vec::new() });
        let Some(handle) = self.handle.clone() else { return };
        for Subscribe { key, types, fields } in resume.subscriptions {
            if resuming.outstanding.contains(&key) {
                continue;
            }
            match self.gateway.subscriptions.subscribe(&handle, id, key.clone(), Wanted { types, fields }) {
                Ok(()) => resuming.outstanding.push(key),
                Err(_) => {
                    let error = Some(CommandError::not_found());
                    resuming.results.push(Resumed { key, recovered: false, rights: None, error });
                }
            }
        }
        self.resuming = Some(resuming);
        self.finish_resume();
    }

    fn finish_resume(&mut self) {
        if self.resuming.as_ref().is_some_and(|r| r.outstanding.is_empty())
            && let Some(done) = self.resuming.take()
        {
            let actions = self.session.handle_authenticated(now(), done.id, Ok(done.verified), Some(done.results));
            self.act(actions);
        }
    }

    fn subscribe(&mut self, id: u32, subscribe: Subscribe) {
        let Some(handle) = self.handle.clone() else { return };
        let Subscribe { key, types, fields } = subscribe;
        if self.gateway.subscriptions.subscribe(&handle, id, key.clone(), Wanted { types, fields }).is_err() {
            let actions = self.session.handle_refused(id, &key, CommandError::not_found());
            self.act(actions);
        }
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
                Metrics::count(&self.gateway.metrics.resyncs, "reason", reason);
                let keys: Vec<Key> = match keys {
                    Resync::Keys(keys) => keys.into_iter().collect(),
                    Resync::All => self.handle.iter().flat_map(|h| h.subscriptions()).map(|(key, _)| key).collect(),
                };
                if self.session.is_connected() && !keys.is_empty() {
                    self.send(push::resync(&keys, reason));
                }
            }
            Outgoing::Settled { tag, key, outcome } => self.settled(tag, &key, outcome.ok()),
            Outgoing::End(end) => self.close(goodbye(end)),
        }
    }

    fn settled(&mut self, tag: u32, key: &Key, rights: Option<&'static str>) {
        let unavailable = || CommandError::unavailable("the registry did not answer in time", RETRY_AFTER_MS);
        if let Some(resuming) = &mut self.resuming {
            resuming.outstanding.retain(|waiting| waiting != key);
            let error = rights.is_none().then(unavailable);
            resuming.results.push(Resumed { key: key.clone(), recovered: false, rights, error });
            self.finish_resume();
            return;
        }
        let actions = match rights {
            Some(rights) => self.session.handle_settled(tag, key, rights),
            None => self.session.handle_refused(tag, key, unavailable()),
        };
        self.act(actions);
    }
}

/// How a node's wish to end a session is told.
pub fn goodbye(end: End) -> Goodbye {
    match end {
        End::Draining { reconnect_after } => Goodbye { reason: CloseReason::Draining, reconnect_after: Some(reconnect_after) },
        End::Ended => CloseReason::Ended.into(),
    }
}

fn refused_token(error: &AuthError) -> CommandError {
    if error.is_transient() {
        CommandError::unavailable(error.to_string(), RETRY_AFTER_MS)
    } else {
        CommandError::token(error.name(), error.to_string())
    }
}

fn verified(identity: &Identity) -> Verified {
    Verified { user: identity.user.clone(), expires_at: identity.expires_at.max(unix_ms()) }
}
