//! The SSE door: `/v1/stream`, the same pushes as on a WebSocket, one way. Each mailbox and account
//! is answered by itself, by its place in the request; only where none of them can be watched is
//! the request refused.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, VecDeque};
use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::extract::rejection::BytesRejection;
use axum::extract::{Extension, State};
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures::Stream;
use futures::future::join_all;
use tokio::time::Sleep;

use super::auth::Scopes;
use super::gateway::{Gateway, may};
use super::http::problem::Problem;
use super::http::query::{Query, STREAM_PARAMETERS};
use super::http::tickets::redeem;
use super::websocket::{goodbye, refusal};
use crate::http::bearer;
use crate::http::server::Peer;
use crate::mail::ids::SessionId;
use crate::mail::key::Key;
use crate::mail::rights::Subject;
use crate::mail::user::UserNames;
use crate::push::clock::unix_ms;
use crate::push::hub::Filter;
use crate::push::metrics::Metrics;
use crate::push::outbox::{Outgoing, Resync};
use crate::push::session::{LiveSession, Transport};
use crate::push::subscriptions::Wish;
use crate::wire::sse;
use crate::wire::ws::close::{CloseReason, Goodbye};
use crate::wire::ws::codec::frame_payload;
use crate::wire::ws::command::{CommandError, Refusal, parse_fields, parse_key, parse_types};
use crate::wire::ws::push;

/// What `EventSource` waits before it comes back.
const RETRY_MS: u64 = 3_000;
/// How many mailboxes and accounts one request may name, unless a session may watch more. Those that
/// cannot be watched are answered too, and a form is much longer than a URL can be.
const NAMED: usize = 2_000;
/// How a form is sent.
const FORM: &str = "application/x-www-form-urlencoded";

/// `GET /v1/stream?mailbox=…&account=…&types=…&fields=…`.
pub async fn open(
    State(gateway): State<Arc<Gateway>>,
    Extension(Peer(peer)): Extension<Peer>,
    headers: HeaderMap,
    query: Query,
) -> Result<Response, Problem> {
    begin(gateway, peer, &headers, query).await
}

/// `POST /v1/stream`, with the parameters in a form: a URL cannot name a hundred mailboxes.
pub async fn open_by_form(
    State(gateway): State<Arc<Gateway>>,
    Extension(Peer(peer)): Extension<Peer>,
    headers: HeaderMap,
    query: Query,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Problem> {
    let body = body.map_err(|rejection| Problem::new(rejection.status(), rejection.body_text()))?;
    let kind = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    if !body.is_empty() && !kind.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case(FORM) {
        return Err(Problem::unsupported(format!("send the parameters as {FORM}")));
    }
    let form = Query::parse(&body);
    form.check(STREAM_PARAMETERS)?;
    begin(gateway, peer, &headers, query.and(form)).await
}

async fn begin(gateway: Arc<Gateway>, peer: SocketAddr, headers: &HeaderMap, query: Query) -> Result<Response, Problem> {
    // Whatever can be refused before the ticket is redeemed is: a ticket works only once.
    if let Some(refusal) = gateway.refusal() {
        return Err(Problem::unavailable(refusal));
    }
    let token = bearer(headers)?;
    let ticket = query.once("ticket")?;
    if token.is_none() && ticket.is_none() {
        return Err(Problem::no_token());
    }
    let request = read_parameters(&gateway.names, gateway.settings.sessions.subscriptions_per_session, &query);
    let identity = match (token, ticket) {
        (Some(token), _) => gateway.verify(token, peer.ip()).await.map_err(|error| Problem::token(&error))?,
        // With wrong parameters the ticket is not redeemed, and can be used again.
        (None, Some(ticket)) if request.is_ok() => redeem(&gateway, ticket).await?,
        (None, _) => return Err(request.err().unwrap_or_else(Problem::no_token)),
    };
    if !may(&identity, Scopes::PUSH) {
        return Err(Problem::forbidden("the token lacks the scope push"));
    }
    let StreamRequest { mut places, duplicates, wish } = request?;
    let subject = Subject::new(identity.user, &identity.groups);
    // Before the stream begins: where nothing can be watched, a refusal is an answer of its own.
    join_all(places.iter_mut().map(async |(_, place)| {
        if let Ok(key) = place
            && let Err(failure) = gateway.subscriptions.allows(&subject, key).await
        {
            *place = Err(refusal(failure).0);
        }
    }))
    .await;
    if places.iter().all(|(_, place)| place.is_err()) {
        return Err(refuse_all(places));
    }
    let session = gateway
        .open_session(SessionId::random(gateway.node().clone()), subject, Transport::Sse, peer)
        .map_err(|error| Problem::too_many_sessions(error.to_string(), gateway.until_ghosts_are_gone()))?;
    let mut stream = SseSession {
        heartbeat: gateway.settings.sessions.heartbeat_ms.duration(),
        timer: Box::pin(tokio::time::sleep(Duration::ZERO)),
        expires: Instant::now() + Duration::from_millis(identity.expires_at.saturating_sub(unix_ms()).min(1 << 40)),
        notice: None,
        ready: VecDeque::from([sse::retry(RETRY_MS)]),
        outstanding: 0,
        duplicates,
        session,
        gateway: gateway.clone(),
        reason: "lost",
        over: false,
    };
    stream.notice = stream.expires.checked_sub(gateway.settings.sessions.expiring_notice_ms.duration());
    let due = stream.due();
    stream.timer.as_mut().reset(due.into());
    // Checked after the session was added to the table: a drain that began before is noticed here.
    if let Some(refusal) = gateway.refusal() {
        return Err(Problem::unavailable(refusal));
    }
    for (tag, place) in places {
        match place {
            Ok(key) => {
                let wish = Wish { shared: wish.shared && matches!(key, Key::Account(_)), ..wish };
                stream.outstanding += 1;
                gateway.subscriptions.subscribe(&stream.session, tag, key, wish);
            }
            Err(error) => stream.refuse(tag, error),
        }
    }
    let mut response = Body::from_stream(stream).into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    // nginx would hold events back otherwise.
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    Ok(response)
}

/// What a stream is asked for.
struct StreamRequest {
    /// Each mailbox and account, with its place among them in the request; those named again are in
    /// `duplicates`.
    places: Vec<(u32, Result<Key, CommandError>)>,
    /// A place, and another one of the same key.
    duplicates: Vec<(u32, u32)>,
    wish: Wish,
}

/// `limit`: how many mailboxes and accounts a session may watch.
fn read_parameters(names: &UserNames, limit: usize, query: &Query) -> Result<StreamRequest, Problem> {
    let most = limit.max(NAMED);
    if query.iter().filter(|(name, _)| matches!(*name, "mailbox" | "account")).nth(most).is_some() {
        return Err(Problem::bad_request(format!("at most {most} mailboxes and accounts a request")));
    }
    let (mut places, mut duplicates, mut first) = (Vec::new(), Vec::new(), HashMap::new());
    let mut place = 0;
    for (name, value) in query.iter() {
        let key = match name {
            "mailbox" => parse_key(Some(value), None, names),
            "account" => parse_key(None, Some(value), names),
            _ => continue,
        };
        let room = first.len() < limit;
        match key {
            Ok(key) => match first.entry(key) {
                Entry::Occupied(duplicate) => duplicates.push((*duplicate.get(), place)),
                Entry::Vacant(entry) if room => {
                    places.push((place, Ok(entry.key().clone())));
                    entry.insert(place);
                }
                Entry::Vacant(_) => {
                    let message = format!("at most {limit} mailboxes and accounts a stream");
                    places.push((place, Err(CommandError::limit(message))));
                }
            },
            Err(message) => places.push((place, Err(CommandError::bad_request(message)))),
        }
        place += 1;
    }
    if places.is_empty() {
        return Err(Problem::bad_request("name at least one mailbox or account to watch"));
    }
    let shared = query.parsed("shared", "true or false")?.unwrap_or(false);
    if shared && query.all("account").next().is_none() {
        return Err(Problem::bad_request("shared goes with account, not with mailbox"));
    }
    // Both are lists: separated by commas, repeated, or both.
    let list = |name| query.all(name).flat_map(|value| value.split(',')).map(|v| v.trim().to_owned()).collect::<Vec<_>>();
    let types = query.all("types").next().is_some().then(|| list("types"));
    let types = parse_types(types.as_deref()).map_err(Problem::bad_request)?;
    let fields = parse_fields(&list("fields")).map_err(Problem::bad_request)?;
    Ok(StreamRequest { places, duplicates, wish: Wish { filter: Filter { types, fields }, shared } })
}

/// The answer where nothing can be watched: that of the first, or of one that may be watched later.
fn refuse_all(places: Vec<(u32, Result<Key, CommandError>)>) -> Problem {
    let mut errors: Vec<CommandError> = places.into_iter().filter_map(|(_, place)| place.err()).collect();
    let at = errors.iter().position(|error| error.temporary).unwrap_or(0);
    let error = errors.swap_remove(at);
    match error.code {
        400 => Problem::bad_request(error.message),
        404 => Problem::not_found(error.message),
        _ => Problem::unavailable(error.message),
    }
}

/// One stream. Dropping it, as hyper does when the client is gone, ends the session.
struct SseSession {
    gateway: Arc<Gateway>,
    session: Arc<LiveSession>,
    ready: VecDeque<Bytes>,
    heartbeat: Duration,
    timer: Pin<Box<Sleep>>,
    expires: Instant,
    /// When to tell that the token expires soon; until it is told.
    notice: Option<Instant>,
    /// Subscriptions that have no outcome yet.
    outstanding: usize,
    duplicates: Vec<(u32, u32)>,
    reason: &'static str,
    over: bool,
}

impl Drop for SseSession {
    fn drop(&mut self) {
        self.gateway.close_session(&self.session, self.reason);
    }
}

impl SseSession {
    fn due(&self) -> Instant {
        let beat = Instant::now() + self.heartbeat;
        self.expires.min(self.notice.map_or(beat, |notice| notice.min(beat)))
    }

    /// The place of a subscription, and those where the request names the same key again.
    fn places(&self, tag: u32) -> Vec<u32> {
        let duplicates = self.duplicates.iter().filter(|(first, _)| *first == tag).map(|(_, duplicate)| *duplicate);
        std::iter::once(tag).chain(duplicates).collect()
    }

    fn refuse(&mut self, tag: u32, error: CommandError) {
        for place in self.places(tag) {
            self.push("error", None, &push::refused(&Refusal { id: Some(place), error: error.clone() }));
        }
    }

    fn push(&mut self, name: &str, pos: Option<&str>, frame: &Bytes) {
        self.ready.push_back(sse::event(name, pos, &frame_payload(frame)));
    }

    fn end(&mut self, goodbye: Goodbye) {
        self.reason = goodbye.reason.name();
        self.push("disconnect", None, &push::disconnect(goodbye));
        self.over = true;
    }

    fn tell(&mut self, outgoing: Outgoing) {
        match outgoing {
            Outgoing::Event { delivery, fields } => {
                let seconds = delivery.consumed_at.elapsed().as_secs_f64();
                self.gateway.metrics.written(seconds);
                let frame = delivery.rendered(fields, |d| push::event(&d.event, fields, &d.pos)).clone();
                self.push("event", Some(&delivery.pos), &frame);
            }
            Outgoing::Resync { keys, reason } => {
                let keys: Vec<Key> = match keys {
                    Resync::Keys(keys) => keys.into_iter().collect(),
                    Resync::All => self.session.subscriptions().into_iter().map(|(key, _)| key).collect(),
                };
                // Without a subscription, nothing can have been missed.
                if !keys.is_empty() {
                    Metrics::count(&self.gateway.metrics.resyncs, "reason", reason.as_str());
                    self.push("resync", None, &push::resync(&keys, reason.as_str()));
                }
            }
            Outgoing::Settled { tag, key, outcome } => {
                self.outstanding = self.outstanding.saturating_sub(1);
                match outcome {
                    Ok(rights) => {
                        for place in self.places(tag) {
                            self.push("subscribe", None, &push::subscribed(place, &key, rights));
                        }
                    }
                    Err(failure) => {
                        self.refuse(tag, refusal(failure).0);
                        // No subscription stands and none is pending: the client should reconnect.
                        self.over |= self.outstanding == 0 && self.session.subscriptions().is_empty();
                    }
                }
            }
            Outgoing::Revoked { key } => self.push("revoked", None, &push::revoked(&key)),
            Outgoing::Registration { .. } | Outgoing::Health(_) | Outgoing::Moved { .. } | Outgoing::AskRights { .. } => {}
            Outgoing::End(end) => self.end(goodbye(end)),
        }
    }
}

impl Stream for SseSession {
    type Item = Result<Bytes, Infallible>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            if let Some(bytes) = self.ready.pop_front() {
                return Poll::Ready(Some(Ok(bytes)));
            }
            if self.over {
                return Poll::Ready(None);
            }
            self.ready = VecDeque::new();
            // First, so that a busy stream does not outlive its token.
            if Instant::now() >= self.expires {
                self.end(CloseReason::TokenExpired.into());
                continue;
            }
            if self.notice.is_some_and(|notice| Instant::now() >= notice) {
                self.notice = None;
                let left = self.expires.saturating_duration_since(Instant::now());
                self.push("expiring", None, &push::expiring(u64::try_from(left.as_millis()).unwrap_or(u64::MAX)));
                continue;
            }
            if let Poll::Ready(outgoing) = self.session.poll_take(cx) {
                outgoing.into_iter().for_each(|o| self.tell(o));
                continue;
            }
            if self.timer.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            if Instant::now() < self.expires {
                self.ready.push_back(sse::heartbeat());
                let due = self.due();
                self.timer.as_mut().reset(due.into());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each name is answered by itself, whether it is watched or not: a form of a megabyte must not
    /// make a hundred thousand answers.
    #[test]
    fn a_request_names_no_more_than_can_be_answered() {
        let read = |limit, count| {
            let query = Query::parse("account=a&".repeat(count).as_bytes());
            read_parameters(&UserNames::default(), limit, &query).map(|request| request.duplicates.len() + request.places.len())
        };
        assert_eq!(read(128, NAMED).ok(), Some(NAMED));
        assert!(read(128, NAMED + 1).is_err());
        assert_eq!(read(NAMED + 1, NAMED + 1).ok(), Some(NAMED + 1), "what may be watched may be named");
    }
}
