//! `GET /v1/subscriptions/stream`: every subscription that comes or goes, cluster-wide, as Server-Sent Events.
//!
//! A listing's `stream` cursor joins it to this without a gap. Each node tells its own changes by number; this follows
//! every node, those that join later too, and says so when it has lost sight of one.

use std::collections::HashSet;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures::StreamExt;
use serde_json::json;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::task::AbortOnDropHandle;

use super::peers::{in_words, others};
use super::problem::Problem;
use super::sessions::Filter;
use super::subscriptions::StreamCursor;
use super::{Caller, Query};
use crate::edge::auth::Identity;
use crate::edge::gateway::{Gateway, unix_ms};
use crate::push::sessions::SubscriptionChange;
use crate::wire::sse;

/// Lines waiting for a slow follower; then its nodes wait too, and in the end it is told of a gap.
const PENDING: usize = 1_024;
const HEARTBEAT: Duration = Duration::from_secs(25);
/// Between attempts to follow a node that does not answer.
const RETRY: Duration = Duration::from_secs(2);
/// The longest line of another node that is taken in.
const LINE: usize = 128 * 1024;

type Sink = mpsc::Sender<Bytes>;

/// `GET /v1/local/subscriptions/stream?since=N`: this node's changes.
pub async fn stream_local(State(gateway): State<Arc<Gateway>>, caller: Caller, query: Query) -> Result<Response, Problem> {
    let filter = Filter::read(&gateway, &caller, &query)?;
    let since = query.parsed("since", "a number")?;
    let (sink, source) = mpsc::channel(PENDING);
    let task = tokio::spawn(async move { follow_own(&gateway, &filter, since, &sink).await });
    Ok(respond(source, AbortOnDropHandle::new(task), &caller.identity))
}

/// `GET /v1/subscriptions/stream?since=CURSOR`: the cluster's changes.
pub async fn stream(State(gateway): State<Arc<Gateway>>, caller: Caller, query: Query) -> Result<Response, Problem> {
    let filter = Filter::read(&gateway, &caller, &query)?;
    let cursor = query
        .get("since")
        .map(|text| StreamCursor::parse(text).ok_or_else(|| Problem::bad_request("since: not a cursor of ours")));
    let cursor = cursor.transpose()?.unwrap_or_default();
    let (sink, source) = mpsc::channel(PENDING);
    let task = tokio::spawn(follow_all(gateway, caller.token, filter, cursor, sink));
    Ok(respond(source, AbortOnDropHandle::new(task), &caller.identity))
}

fn respond(source: mpsc::Receiver<Bytes>, task: AbortOnDropHandle<()>, identity: &Identity) -> Response {
    // As every session, a stream lasts no longer than its token.
    let left = Duration::from_millis(identity.expires_at.saturating_sub(unix_ms()).min(1 << 40));
    // The task ends with the response's body.
    let lines = ReceiverStream::new(source).map(move |line| {
        let _ = &task;
        Ok::<_, Infallible>(line)
    });
    let mut response = Body::from_stream(lines.take_until(tokio::time::sleep(left))).into_response();
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    // nginx would hold changes back otherwise.
    response.headers_mut().insert("x-accel-buffering", HeaderValue::from_static("no"));
    response
}

fn line(name: &str, data: &serde_json::Value) -> Bytes {
    sse::event(name, None, data.to_string().as_bytes())
}

/// Tells this node's changes until the follower is gone or the node drains.
async fn follow_own(gateway: &Gateway, filter: &Filter, since: Option<u64>, sink: &Sink) {
    let mut watch = gateway.sessions.watch();
    let mut seq = since.unwrap_or_else(|| gateway.sessions.seq());
    let cursor = json!({ "node": gateway.node(), "seq": seq });
    if sink.send(line("snapshot", &cursor)).await.is_err() {
        return;
    }
    loop {
        watch.mark_unchanged();
        match gateway.sessions.changes_since(seq) {
            None => {
                // Forgotten, or of an earlier life of this node: only a new listing helps.
                seq = gateway.sessions.seq();
                let reset = json!({ "node": gateway.node(), "seq": seq });
                if sink.send(line("reset", &reset)).await.is_err() {
                    return;
                }
            }
            Some(changes) => {
                for change in changes {
                    seq = change.seq;
                    let s = &change.subscription;
                    if !filter.passes(&s.user, &s.node, s.transport) {
                        continue;
                    }
                    let name = if change.active { "subscribed" } else { "unsubscribed" };
                    let data = serde_json::to_value(&change).unwrap_or_default();
                    if sink.send(line(name, &data)).await.is_err() {
                        return;
                    }
                }
            }
        }
        if gateway.is_draining() {
            return;
        }
        tokio::select! {
            () = sink.closed() => return,
            () = gateway.draining.cancelled() => {}
            changed = watch.changed() => if changed.is_err() { return },
            () = tokio::time::sleep(HEARTBEAT) => if sink.send(sse::heartbeat()).await.is_err() { return },
        }
    }
}

/// Follows every node, and those that join.
async fn follow_all(gateway: Arc<Gateway>, token: String, filter: Filter, mut cursor: StreamCursor, sink: Sink) {
    let own_since = cursor.0.remove(gateway.node());
    let query = filter.to_query().finish();
    let mut followed: HashSet<String> = HashSet::new();
    let mut followers = tokio::task::JoinSet::new();
    let mut nodes = gateway.directory.nodes();
    {
        let (gateway, sink) = (gateway.clone(), sink.clone());
        followers.spawn(async move {
            follow_own(&gateway, &filter, own_since, &sink).await;
            None
        });
    }
    loop {
        nodes.mark_unchanged();
        for (name, url) in others(&gateway) {
            if followed.insert(name.clone()) {
                let since = cursor.0.iter().find(|(node, _)| node.as_str() == name).map(|(_, seq)| *seq);
                let follower = Follower {
                    gateway: gateway.clone(),
                    token: token.clone(),
                    name,
                    url,
                    query: query.clone(),
                    sink: sink.clone(),
                };
                followers.spawn(follower.run(since));
            }
        }
        tokio::select! {
            () = sink.closed() => return,
            ended = followers.join_next() => match ended {
                Some(Ok(Some(name))) => drop(followed.remove(&name)),
                // Our own node drains: the stream ends, and its reader goes to another.
                _ => return,
            },
            changed = nodes.changed() => if changed.is_err() { return },
        }
    }
}

/// Follows one other node for as long as it is known.
struct Follower {
    gateway: Arc<Gateway>,
    token: String,
    name: String,
    url: String,
    query: String,
    sink: Sink,
}

impl Follower {
    /// Returns the node's name once it is gone.
    async fn run(self, mut since: Option<u64>) -> Option<String> {
        let mut told = false;
        loop {
            let reason = self.follow(&mut since, &mut told).await;
            if !others(&self.gateway).iter().any(|(name, _)| *name == self.name) {
                let _ = self.sink.send(line("gone", &json!({ "node": self.name }))).await;
                return Some(self.name);
            }
            if !told {
                told = true;
                let _ = self.sink.send(line("partial", &json!({ "node": self.name, "reason": reason }))).await;
            }
            tokio::time::sleep(RETRY).await;
        }
    }

    /// Passes a node's lines on until the connection ends; returns why it did.
    async fn follow(&self, since: &mut Option<u64>, told: &mut bool) -> String {
        let from = since.map(|seq| format!("&since={seq}")).unwrap_or_default();
        let url = format!("{}/v1/local/subscriptions/stream?{}{from}", self.url.trim_end_matches('/'), self.query);
        let request = self.gateway.client.get(url).bearer_auth(&self.token).send();
        let response = match tokio::time::timeout(self.gateway.settings.http.peer_timeout_ms.duration(), request).await {
            Ok(Ok(response)) if response.status().is_success() => response,
            Ok(Ok(response)) => return format!("it answered {}", response.status()),
            Ok(Err(error)) => return in_words(&error),
            Err(_) => return "it did not answer in time".to_owned(),
        };
        let mut body = response.bytes_stream();
        let mut buffer = Vec::new();
        loop {
            // Twice the heartbeat without a byte: the node or the way to it is dead.
            match tokio::time::timeout(HEARTBEAT * 2, body.next()).await {
                Ok(Some(Ok(bytes))) => buffer.extend_from_slice(&bytes),
                Ok(Some(Err(error))) => return in_words(&error),
                Ok(None) => return "it ended the stream".to_owned(),
                Err(_) => return "it has fallen silent".to_owned(),
            }
            *told = false;
            while let Some(end) = buffer.windows(2).position(|two| two == b"\n\n") {
                let event: Vec<u8> = buffer.drain(..end + 2).collect();
                if let Some(seq) = seq_of(&event) {
                    *since = Some(seq);
                }
                if event != b":\n\n"[..] && self.sink.send(event.into()).await.is_err() {
                    return "nobody listens".to_owned();
                }
            }
            if buffer.len() > LINE {
                return "its answer makes no sense here".to_owned();
            }
        }
    }
}

/// The number of the change that an event tells of, so that a broken connection is taken up behind it.
fn seq_of(event: &[u8]) -> Option<u64> {
    let data = std::str::from_utf8(event).ok()?.lines().find_map(|line| line.strip_prefix("data: "))?;
    match serde_json::from_str::<SubscriptionChange>(data) {
        Ok(change) => Some(change.seq),
        Err(_) => serde_json::from_str::<serde_json::Value>(data).ok()?.get("seq")?.as_u64(),
    }
}
