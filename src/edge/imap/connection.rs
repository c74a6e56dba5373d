//! One IMAP connection's task: it reads and writes for the session, and does what the session's
//! actions say.
//!
//! Idle, it keeps no buffer: bytes are read into one that all connections of a thread share, and
//! what is written frees its memory. While much waits for one side the other is not read, so
//! neither can make the node hold more than its bounds.

mod outgoing;
mod promise;

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use futures::future::BoxFuture;
use tokio::io::AsyncWrite;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Sleep;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::WaitForCancellationFutureOwned;
use tracing::{debug, info};

use self::promise::Promise;
use super::Door;
use super::announce::Announcements;
use super::arrival::{Arrival, Permits};
use super::pipe::{BUFFER_LIMIT, Progress, poll_read};
use super::stream::{Stream, accept_tls};
use super::upstream::Connected;
use crate::config::AclChangesBy;
use crate::edge::gateway::Gateway;
use crate::mail::ids::SessionId;
use crate::mail::key::Key;
use crate::mail::rights::Subject;
use crate::mail::user::UserName;
use crate::push::metrics::Metrics;
use crate::push::outbox::End;
use crate::push::session::{LiveSession, Transport};
use crate::wire::imap::session::{Action, Input, Session, Setting};

/// How many bytes may wait for a client, in bytes, before its commands are not read any more: it
/// sends commands and does not read the answers.
const CLIENT_BACKLOG: usize = 4 * BUFFER_LIMIT;
/// How long a session may take to write its goodbye.
const GOODBYE_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a server may be silent over the commands of a client that has shut its side.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(300);
/// How long the client's side of the close is waited for.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

enum Client {
    Open(Stream),
    /// TLS is beginning; nothing is read as IMAP.
    Handshaking(BoxFuture<'static, io::Result<Stream>>),
    Gone,
}

enum Upstream {
    Open(Stream),
    Opening(BoxFuture<'static, Option<Connected>>),
    None,
}

/// An action that takes time; those behind it wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Underway {
    Nothing,
    StartTls,
    CloseUpstream,
}

/// The end of a connection: what waits for the client is written, then our side is shut, then what
/// the client still sends is read and dropped.
struct Ending {
    deadline: Instant,
    shut: bool,
}

pub struct Connection {
    door: Arc<Door>,
    peer: SocketAddr,
    seed: u64,
    session: Session,
    client: Client,
    upstream: Upstream,
    to_client: Progress,
    to_upstream: Progress,
    underway: Underway,
    handle: Option<Arc<LiveSession>>,
    announcements: Announcements,
    /// Until the cluster has been told of an ACL change of the client's, nothing is written to it.
    promise: Option<Promise>,
    /// When the oldest event among those that wait to be written came out of the queue.
    oldest: Option<Instant>,
    /// The client has shut its side, but may still read. When it did, or when the server last said
    /// something since.
    half_closed: Option<Instant>,
    /// The session is saying goodbye: when the connection is closed at the latest.
    goodbye_deadline: Option<Instant>,
    ending: Option<Ending>,
    parked: bool,
    reason: &'static str,
    over: bool,
    unauthenticated: Option<OwnedSemaphorePermit>,
    /// Resolves when the node drains. Set until the user is known: a drain tells the sessions in
    /// the table, and this one is not in it before that.
    drained: Option<Pin<Box<WaitForCancellationFutureOwned>>>,
    _permits: Permits,
}

impl Connection {
    pub fn new(arrival: Arrival) -> Box<Self> {
        let Arrival { door, client, tls, stream, upstream: (upstream, greeting), permits, unauthenticated } = arrival;
        let seed = uuid::Uuid::new_v4().as_u64_pair().0;
        let setting =
            Setting { tls, starttls: !tls && door.tls.is_some(), plaintext_auth: door.takes_plain_passwords(client.ip()), seed };
        let now = Instant::now();
        let mut session = Session::new(door.rules.clone(), setting, now);
        session.handle(now, Input::Health(*door.healthy.borrow()));
        session.handle(now, Input::Upstream(&greeting));
        let metrics = &door.gateway.metrics;
        metrics.imap_connections.inc();
        metrics.imap_unauthenticated.inc();
        Box::new(Self {
            peer: client,
            seed,
            session,
            client: Client::Open(stream),
            upstream: Upstream::Open(upstream),
            to_client: Progress::default(),
            to_upstream: Progress::default(),
            underway: Underway::Nothing,
            handle: None,
            announcements: Announcements::default(),
            promise: None,
            oldest: None,
            half_closed: None,
            goodbye_deadline: None,
            ending: None,
            parked: false,
            reason: "lost",
            over: false,
            unauthenticated,
            drained: Some(Box::pin(door.gateway.draining.clone().cancelled_owned())),
            _permits: permits,
            door,
        })
    }

    pub async fn run(mut self: Box<Self>) {
        let mut timer = pin!(tokio::time::sleep(Duration::ZERO));
        loop {
            self.act();
            if self.over {
                return;
            }
            // The timer is moved only when it must fire earlier; one that fires early is set anew.
            let due = tokio::time::Instant::from(self.next_timeout());
            if timer.is_elapsed() || due < timer.deadline() {
                timer.as_mut().reset(due);
            }
            std::future::poll_fn(|cx| self.poll_progress(cx, timer.as_mut())).await;
        }
    }

    fn act(&mut self) {
        while self.underway == Underway::Nothing && self.ending.is_none() {
            let Some(action) = self.session.poll_action() else { break };
            match action {
                Action::StartTls => self.underway = Underway::StartTls,
                Action::Authenticated { user } => self.authenticated(user),
                Action::Watch(path) => self.with_handle(|gateway, handle| {
                    gateway.subscriptions.watch(handle, &Key::Mailbox(path));
                }),
                Action::Unwatch(path) => self.with_handle(|gateway, handle| {
                    gateway.subscriptions.unsubscribe(handle, &Key::Mailbox(path));
                }),
                Action::Withheld(mailbox) => self.with_handle(|_, handle| handle.note_withheld(&Key::Mailbox(mailbox))),
                Action::Rights { mailbox, rights } => self.with_handle(|gateway, handle| {
                    gateway.subscriptions.report_rights(handle, &Key::Mailbox(mailbox), rights);
                }),
                Action::AclChanged { mailbox, identifier, rights } => {
                    let tells = self.door.gateway.settings.imap.acl_changes_by == AclChangesBy::Gateway;
                    if let Some(handle) = self.handle.as_ref().filter(|_| tells) {
                        let told = self.announcements.acl_changed(&self.door, handle.user(), mailbox, identifier, rights);
                        self.promise = told.map(Promise::new).or(self.promise.take());
                    }
                }
                Action::AclNotUnderstood => {
                    Announcements::not_understood(&self.door.gateway, self.handle.as_ref().map(|handle| handle.user()));
                }
                Action::CloseUpstream => self.underway = Underway::CloseUpstream,
                Action::OpenUpstream { urgent } => self.open_upstream(urgent),
                Action::Close { reason } => self.end(reason),
            }
        }
        // A session that has no server and waits for nothing will never say anything again.
        let stuck = matches!(self.upstream, Upstream::None) && self.session.poll_timeout().is_none();
        if stuck && self.underway == Underway::Nothing && self.ending.is_none() {
            self.end("upstream_closed");
        }
    }

    fn with_handle(&self, act: impl FnOnce(&Gateway, &Arc<LiveSession>)) {
        if let Some(handle) = &self.handle {
            act(&self.door.gateway, handle);
        }
    }

    fn authenticated(&mut self, user: Option<String>) {
        self.unauthenticated = None;
        self.door.gateway.metrics.imap_unauthenticated.dec();
        let verdict = self.admit(user);
        let now = Instant::now();
        self.session.handle(now, Input::Admission(verdict));
        // After the session was added to the table: a change in between is not missed.
        self.session.handle(now, Input::Health(*self.door.healthy.borrow()));
    }

    fn admit(&mut self, user: Option<String>) -> Result<Option<UserName>, String> {
        let gateway = &self.door.gateway;
        let refuse = |reason, words: &str| {
            Metrics::count(&gateway.metrics.imap_refused, "reason", reason);
            Err(words.to_owned())
        };
        // Whoever it is, the mail server has let them in: relayed, and their IDLE is the server's
        // own.
        let Some(user) = user.and_then(|user| gateway.names.normalise(&user).ok()) else { return Ok(None) };
        let id = SessionId::random(gateway.node().clone());
        match gateway.open_session(id, Subject::of_unknown_groups(user.clone()), Transport::Imap, self.peer) {
            Ok(handle) => {
                debug!(session = %handle.id, %user, peer = %self.peer, "an IMAP session begins");
                if gateway.is_draining() {
                    // The drain may have told all sessions before this one was added.
                    handle.end(End::Draining { reconnect_after: Duration::ZERO });
                }
                self.drained = None;
                self.handle = Some(handle);
                Ok(Some(user))
            }
            Err(_) => refuse("user", "[UNAVAILABLE] Too many connections of this user, try again later"),
        }
    }

    fn open_upstream(&mut self, urgent: bool) {
        match self.upstream {
            Upstream::None => {}
            // An attempt that waits for its turn is given up.
            Upstream::Opening(_) if urgent => {}
            _ => return,
        }
        let (door, peer, seed) = (self.door.clone(), self.peer, self.seed);
        self.upstream = Upstream::Opening(Box::pin(async move {
            if !urgent && !door.pace.wait(seed).await {
                return None;
            }
            let connected = door.upstreams.connect(peer, true).await;
            connected.inspect_err(|error| debug!(%peer, %error, "no connection could be taken up again")).ok()
        }));
    }

    fn set_parked(&mut self, parked: bool) {
        if std::mem::replace(&mut self.parked, parked) != parked {
            let gauge = &self.door.gateway.metrics.imap_parked;
            if parked {
                gauge.inc()
            } else {
                gauge.dec()
            };
        }
    }

    /// Writes what is due, then closes.
    fn end(&mut self, reason: &'static str) {
        if self.ending.is_some() {
            return;
        }
        self.reason = reason;
        self.leave();
        self.upstream = Upstream::None;
        self.underway = Underway::Nothing;
        let timeout = self.write_timeout().min(Duration::from_secs(10));
        self.ending = Some(Ending { deadline: Instant::now() + timeout, shut: false });
        if !matches!(self.client, Client::Open(_)) {
            self.over = true;
        }
    }

    /// Nothing more is pushed to it.
    fn leave(&mut self) {
        self.drained = None;
        if let Some(handle) = self.handle.take() {
            debug!(session = %handle.id, reason = self.reason, "an IMAP session ends");
            self.door.gateway.close_session(&handle, self.reason);
        }
    }

    /// Lets the session say goodbye.
    fn say_goodbye(&mut self, reason: &'static str, words: &str) {
        self.reason = reason;
        self.goodbye_deadline = Some(Instant::now() + GOODBYE_TIMEOUT);
        self.session.handle(Instant::now(), Input::End { words, reason });
    }

    fn write_timeout(&self) -> Duration {
        self.door.gateway.settings.sessions.slow_client_timeout_ms.duration()
    }

    fn next_timeout(&self) -> Instant {
        let promised = self.promise.as_ref().map(Promise::deadline);
        if let Some(ending) = &self.ending {
            return promised.map_or(ending.deadline, |promised| promised.min(ending.deadline));
        }
        let stalls = [&self.to_client, &self.to_upstream].into_iter().filter_map(|side| side.stalled_since);
        let timeout = self.write_timeout();
        let all = stalls.map(|since| since + timeout).chain(self.session.poll_timeout());
        let far = || Instant::now() + Duration::from_secs(3600);
        all.chain(self.half_close_deadline()).chain(self.goodbye_deadline).chain(promised).min().unwrap_or_else(far)
    }

    /// When a client that has shut its side is given up, because the server says nothing.
    fn half_close_deadline(&self) -> Option<Instant> {
        let timeout = if self.session.owes_answer() { ANSWER_TIMEOUT } else { GOODBYE_TIMEOUT };
        self.half_closed.map(|since| since + timeout)
    }

    fn timed_out(&mut self) {
        let now = Instant::now();
        // The wait ends here, so that its deadline does not fire again.
        self.promise.take_if(|promise| now >= promise.deadline());
        if let Some(ending) = &self.ending {
            self.over = now >= ending.deadline;
            return;
        }
        let timeout = self.write_timeout();
        let stalled = |side: &Progress| side.stalled_since.is_some_and(|since| now >= since + timeout);
        if stalled(&self.to_client) {
            info!(peer = %self.peer, "an IMAP client takes nothing any more and is given up");
            (self.reason, self.over) = ("too_slow", true);
        } else if stalled(&self.to_upstream) && self.underway == Underway::CloseUpstream {
            // The session does not need it any more, and it does not take what waits for it.
            self.drop_upstream();
        } else if stalled(&self.to_upstream) {
            self.upstream_closed();
        } else if self.half_close_deadline().is_some_and(|deadline| now >= deadline) {
            self.end("client_closed");
        } else if self.goodbye_deadline.is_some_and(|deadline| now >= deadline) {
            self.end(self.reason);
        } else if self.session.poll_timeout().is_some_and(|due| now >= due) {
            self.session.handle(now, Input::Timeout);
        }
    }

    // Input from the sockets, the hub and the node. `Ready` once something was handled.

    fn poll_progress(&mut self, cx: &mut Context<'_>, timer: Pin<&mut Sleep>) -> Poll<()> {
        // First, so that constant traffic cannot delay a deadline.
        if timer.poll(cx).is_ready() {
            self.timed_out();
            return Poll::Ready(());
        }
        if self.poll_client_write(cx).is_ready() || self.poll_upstream_write(cx).is_ready() {
            return Poll::Ready(());
        }
        if self.ending.is_some() {
            return self.poll_ending(cx);
        }
        if self.poll_underway(cx).is_ready() || self.poll_opening(cx).is_ready() {
            return Poll::Ready(());
        }
        if let Some(drained) = &mut self.drained
            && drained.as_mut().poll(cx).is_ready()
        {
            self.drained = None;
            self.say_goodbye("draining", "The server is going down, connect again");
            return Poll::Ready(());
        }
        if self.poll_upstream_read(cx).is_ready() || self.poll_client_read(cx).is_ready() {
            return Poll::Ready(());
        }
        // Only when everything is written: the outbox is bounded and merges what waits in it.
        if self.session.out.to_client.is_empty()
            && self.underway == Underway::Nothing
            && let Some(handle) = &self.handle
            && let Poll::Ready(outgoing) = handle.poll_take(cx)
        {
            self.tell(outgoing);
            return Poll::Ready(());
        }
        // The task is about to sleep: the memory of a burst is freed.
        for buffer in [&mut self.session.out.to_client, &mut self.session.out.to_upstream] {
            if buffer.is_empty() && buffer.capacity() > 0 {
                *buffer = Vec::new();
            }
        }
        Poll::Pending
    }

    fn poll_client_write(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if let Some(promise) = &mut self.promise {
            if !promise.is_over(cx) {
                // The client is not to blame that nothing is written.
                self.to_client.stalled_since = None;
                return Poll::Pending;
            }
            self.promise = None;
        }
        let Client::Open(stream) = &mut self.client else { return Poll::Pending };
        let outcome = ready!(self.to_client.poll_write(cx, stream, &mut self.session.out.to_client));
        match outcome {
            Ok(written) => {
                self.door.gateway.metrics.bytes_written.inc_by(written as u64);
                if self.session.out.to_client.is_empty()
                    && let Some(consumed) = self.oldest.take()
                {
                    self.door.gateway.metrics.written(consumed.elapsed().as_secs_f64());
                }
            }
            Err(_) => self.over = true,
        }
        Poll::Ready(())
    }

    fn poll_upstream_write(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Upstream::Open(stream) = &mut self.upstream else { return Poll::Pending };
        if ready!(self.to_upstream.poll_write(cx, stream, &mut self.session.out.to_upstream)).is_err() {
            // What it sent before the connection broke is still read, up to its end.
            self.session.out.to_upstream.clear();
            self.to_upstream = Progress::default();
        }
        Poll::Ready(())
    }

    fn poll_underway(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match self.underway {
            Underway::Nothing => return Poll::Pending,
            Underway::CloseUpstream => {
                let open = matches!(self.upstream, Upstream::Open(_));
                if open && !self.to_upstream.is_idle(&self.session.out.to_upstream) {
                    return Poll::Pending;
                }
                self.drop_upstream();
                self.set_parked(true);
            }
            Underway::StartTls => {
                if let Client::Handshaking(handshaking) = &mut self.client {
                    match ready!(handshaking.as_mut().poll(cx)) {
                        Ok(stream) => {
                            self.client = Client::Open(stream);
                            self.session.handle(Instant::now(), Input::Encrypted);
                        }
                        Err(error) => {
                            debug!(peer = %self.peer, %error, "a TLS handshake failed");
                            (self.client, self.reason, self.over) = (Client::Gone, "tls", true);
                        }
                    }
                } else if self.to_client.is_idle(&self.session.out.to_client) {
                    let client = std::mem::replace(&mut self.client, Client::Gone);
                    let (Client::Open(Stream::Plain(stream)), Some(tls)) = (client, &self.door.tls) else {
                        (self.reason, self.over) = ("tls", true);
                        return Poll::Ready(());
                    };
                    let acceptor = TlsAcceptor::from(tls.config());
                    self.client = Client::Handshaking(Box::pin(accept_tls(acceptor, stream)));
                    return Poll::Ready(());
                } else {
                    return Poll::Pending;
                }
            }
        }
        self.underway = Underway::Nothing;
        Poll::Ready(())
    }

    fn poll_opening(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Upstream::Opening(opening) = &mut self.upstream else { return Poll::Pending };
        let connected = ready!(opening.as_mut().poll(cx));
        let now = Instant::now();
        match connected {
            Some((stream, greeting)) => {
                self.upstream = Upstream::Open(stream);
                self.set_parked(false);
                self.session.handle(now, Input::Upstream(&greeting));
            }
            None => {
                self.upstream = Upstream::None;
                self.session.handle(now, Input::UpstreamFailed);
            }
        }
        Poll::Ready(())
    }

    fn poll_upstream_read(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let room = self.session.out.to_client.len() - self.to_client.written < BUFFER_LIMIT;
        let Upstream::Open(stream) = &mut self.upstream else { return Poll::Pending };
        // Nothing more is read from a connection that is about to be closed.
        if !room || self.underway != Underway::Nothing {
            return Poll::Pending;
        }
        let (session, handle) = (&mut self.session, self.handle.as_ref());
        let hear = |bytes: &[u8]| outgoing::hear(session, handle, bytes);
        let read = ready!(poll_read(cx, stream, hear));
        if read.is_ok_and(|read| read > 0) {
            if let Some(since) = &mut self.half_closed {
                *since = Instant::now();
            }
        } else {
            self.upstream_closed();
        }
        Poll::Ready(())
    }

    fn drop_upstream(&mut self) {
        self.upstream = Upstream::None;
        self.session.out.to_upstream = Vec::new();
        self.to_upstream = Progress::default();
    }

    fn upstream_closed(&mut self) {
        self.drop_upstream();
        if self.half_closed.is_some() && !self.session.is_holding() {
            // The server has been sent everything, and has nothing more to say.
            self.end("client_closed");
        } else {
            self.session.handle(Instant::now(), Input::UpstreamClosed);
        }
    }

    fn poll_client_read(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let room = self.session.out.to_upstream.len() - self.to_upstream.written < BUFFER_LIMIT
            && self.session.out.to_client.len() - self.to_client.written < CLIENT_BACKLOG;
        if self.half_closed.is_some() {
            return self.poll_half_close(cx);
        }
        let Client::Open(stream) = &mut self.client else { return Poll::Pending };
        if !room || self.underway != Underway::Nothing || !self.session.wants_client() {
            return Poll::Pending;
        }
        let session = &mut self.session;
        match ready!(poll_read(cx, stream, |bytes| session.handle(Instant::now(), Input::Client(bytes)))) {
            // It may still read: what it has asked for is answered.
            Ok(0) => self.half_closed = Some(Instant::now()),
            Ok(_) => {}
            Err(_) => self.over = true,
        }
        Poll::Ready(())
    }

    /// Shuts our side of the server's connection once everything has been sent to it. Earlier, the
    /// server would close before it has read the commands that still wait here.
    fn poll_half_close(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.session.is_holding() {
            return Poll::Pending;
        }
        let Upstream::Open(stream) = &mut self.upstream else {
            self.end("client_closed");
            return Poll::Ready(());
        };
        if self.to_upstream.is_idle(&self.session.out.to_upstream) {
            let _ = Pin::new(stream).poll_shutdown(cx);
        }
        Poll::Pending
    }

    /// Shuts our side once everything is written, and throws away what still comes: to drop the
    /// socket while unread bytes wait in it would reset the connection, and the client could lose
    /// the last line.
    fn poll_ending(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let (Client::Open(stream), Some(ending)) = (&mut self.client, &mut self.ending) else {
            self.over = true;
            return Poll::Ready(());
        };
        if !ending.shut {
            if !self.to_client.is_idle(&self.session.out.to_client) {
                return Poll::Pending;
            }
            let shut = ready!(Pin::new(&mut *stream).poll_shutdown(cx));
            ending.shut = true;
            ending.deadline = Instant::now() + CLOSE_TIMEOUT;
            self.over = shut.is_err() || self.half_closed.is_some();
            return Poll::Ready(());
        }
        let read = ready!(poll_read(cx, stream, |_| ()));
        self.over = !read.is_ok_and(|read| read > 0);
        Poll::Ready(())
    }
}

// Also where the task panics or is cancelled, the session gives up what it holds.
impl Drop for Connection {
    fn drop(&mut self) {
        self.leave();
        self.set_parked(false);
        Announcements::unanswered(&self.door.gateway, self.peer, self.session.unanswered_acl_changes());
        let metrics = &self.door.gateway.metrics;
        metrics.imap_connections.dec();
        if self.unauthenticated.is_some() {
            metrics.imap_unauthenticated.dec();
        }
    }
}
