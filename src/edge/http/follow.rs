//! `GET /v1/subscriptions/stream`: every subscription that comes or goes, cluster-wide, as
//! Server-Sent Events.
//!
//! A listing's `stream` cursor joins it to this without a gap. Each node tells its own changes by
//! number; this follows every node, those that join later too, and says so when it has lost sight
//! of one.

use std::collections::{HashMap, HashSet};
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures::StreamExt;
use serde::Deserialize;
use serde_json::json;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::task::AbortOnDropHandle;

use super::caller::Caller;
use super::peers::{Peer, in_words, others};
use super::problem::Problem;
use super::query::Query;
use super::sessions::Filter;
use super::subscriptions::StreamCursor;
use crate::edge::auth::{Identity, Scopes};
use crate::edge::followers::{Followers, Following, TooManyFollowers};
use crate::edge::gateway::Gateway;
use crate::lock::Mutex;
use crate::mail::ids::NodeId;
use crate::push::clock::unix_ms;
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

/// `GET /v1/local/subscriptions/stream?since=CURSOR`: this node's changes. The whole cursor comes,
/// for a node that asks by URL need not know whom it asks.
pub async fn stream_local(State(gateway): State<Arc<Gateway>>, caller: Caller, query: Query) -> Result<Response, Problem> {
    let filter = Filter::read(&gateway, &caller, &query)?;
    let since = cursor(&query)?.0.remove(gateway.node());
    let following = begin(&gateway.local_followers, &caller)?;
    let (sink, source) = mpsc::channel(PENDING);
    let task = tokio::spawn(async move { follow_own(&gateway, &filter, since, &sink).await });
    Ok(respond(source, (AbortOnDropHandle::new(task), following), &caller.identity))
}

/// `GET /v1/subscriptions/stream?since=CURSOR`: the cluster's changes.
pub async fn stream(State(gateway): State<Arc<Gateway>>, caller: Caller, query: Query) -> Result<Response, Problem> {
    let filter = Filter::read(&gateway, &caller, &query)?;
    let cursor = cursor(&query)?;
    let following = begin(&gateway.followers, &caller)?;
    let (sink, source) = mpsc::channel(PENDING);
    let task = tokio::spawn(follow_all(gateway, caller.token, filter, cursor, sink));
    Ok(respond(source, (AbortOnDropHandle::new(task), following), &caller.identity))
}

fn cursor(query: &Query) -> Result<StreamCursor, Problem> {
    let bad = || Problem::bad_request("since: not a cursor of ours");
    query.once("since")?.map_or(Ok(StreamCursor::default()), |text| StreamCursor::parse(text).ok_or_else(bad))
}

fn begin(followers: &Followers, caller: &Caller) -> Result<Following, Problem> {
    let own = (!caller.may(Scopes::SUBSCRIPTIONS_READ)).then(|| caller.identity.user.clone());
    followers.begin(own).map_err(|error| match error {
        TooManyFollowers::OfUser => Problem::too_many(error.to_string()),
        TooManyFollowers::OfNode => Problem::unavailable(error.to_string()),
    })
}

fn respond(source: mpsc::Receiver<Bytes>, held: (AbortOnDropHandle<()>, Following), identity: &Identity) -> Response {
    // As every session, a stream lasts no longer than its token.
    let left = Duration::from_millis(identity.expires_at.saturating_sub(unix_ms()).min(1 << 40));
    // The task ends with the response's body, and its room comes free.
    let lines = ReceiverStream::new(source).map(move |line| {
        let _ = &held;
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
    let taken = Taken::new(Mutex::new(HashMap::from([(gateway.node().clone(), String::new())])));
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
        for peer in others(&gateway) {
            if followed.insert(peer.name()) {
                let follower = Follower {
                    gateway: gateway.clone(),
                    token: token.clone(),
                    cursor: cursor.clone(),
                    id: peer.id.clone(),
                    peer,
                    taken: taken.clone(),
                    query: query.clone(),
                    sink: sink.clone(),
                    told: false,
                };
                followers.spawn(follower.run());
            }
        }
        tokio::select! {
            () = sink.closed() => return,
            ended = followers.join_next() => match ended {
                Some(Ok(Some(End::Gone(name)))) => drop(followed.remove(&name)),
                // It stays among the followed: nothing is to be begun for it again.
                Some(Ok(Some(End::Another))) => {}
                // Our own node drains: the stream ends, and its reader goes to another.
                _ => return,
            },
            changed = nodes.changed() => if changed.is_err() { return },
        }
    }
}

/// Which peer's follower has which node, so that a node with two URLs is not told twice.
type Taken = Arc<Mutex<HashMap<NodeId, String>>>;

/// Why a node is followed no longer.
enum End {
    /// The peer of this name has left.
    Gone(String),
    /// Its URL is another name of a node that is followed already.
    Another,
}

/// Why a connection to a node came to its end.
enum Broken {
    Because(String),
    Another,
}

/// Follows one other node for as long as it is known.
struct Follower {
    gateway: Arc<Gateway>,
    token: String,
    /// Where to go on; behind the first line only this node's number is used.
    cursor: StreamCursor,
    peer: Peer,
    /// The node's id, once it is known.
    id: Option<NodeId>,
    taken: Taken,
    query: String,
    sink: Sink,
    /// Whether a `partial` was sent for it.
    told: bool,
}

impl Follower {
    async fn run(mut self) -> Option<End> {
        loop {
            let reason = match self.follow().await {
                Broken::Because(reason) => reason,
                Broken::Another => return Some(End::Another),
            };
            if !others(&self.gateway).contains(&self.peer) {
                let _ = self.sink.send(line("gone", &json!({ "node": self.name() }))).await;
                self.release();
                return Some(End::Gone(self.peer.name()));
            }
            if !self.told {
                self.told = true;
                let _ = self.sink.send(line("partial", &json!({ "node": self.name(), "reason": reason }))).await;
            }
            tokio::time::sleep(RETRY).await;
        }
    }

    /// The part of the cursor that concerns the node, once its id is known: the whole of a large
    /// cluster's would not fit into a URL.
    fn since(&self) -> StreamCursor {
        let Some(id) = &self.id else { return self.cursor.clone() };
        StreamCursor(self.cursor.0.get_key_value(id).map(|(id, seq)| (id.clone(), *seq)).into_iter().collect())
    }

    /// As the stream's reader knows it.
    fn name(&self) -> String {
        self.id.as_ref().map_or_else(|| self.peer.name(), NodeId::to_string)
    }

    /// Claims the node that sent this line; `false` if another follower has it.
    fn take(&mut self, node: NodeId) -> bool {
        let mut taken = self.taken.lock();
        let name = self.peer.name();
        if *taken.entry(node.clone()).or_insert_with(|| name.clone()) != name {
            return false;
        }
        // The node behind a URL may be another after a restart.
        taken.retain(|other, holder| *other == node || *holder != name);
        drop(taken);
        self.id = Some(node);
        true
    }

    fn release(&self) {
        let name = self.peer.name();
        self.taken.lock().retain(|_, holder| *holder != name);
    }

    /// Passes a node's lines on until the connection ends.
    async fn follow(&mut self) -> Broken {
        let because = |reason: &str| Broken::Because(reason.to_owned());
        let url = self.peer.url.trim_end_matches('/');
        let url = format!("{url}/v1/local/subscriptions/stream?{}&since={}", self.query, self.since().to_text());
        let request = self.gateway.client.get(url).bearer_auth(&self.token).send();
        let response = match tokio::time::timeout(self.gateway.settings.http.peer_timeout_ms.duration(), request).await {
            Ok(Ok(response)) if response.status().is_success() => response,
            Ok(Ok(response)) => return Broken::Because(format!("it answered {}", response.status())),
            Ok(Err(error)) => return Broken::Because(in_words(&error)),
            Err(_) => return because("it did not answer in time"),
        };
        let mut body = response.bytes_stream();
        let mut buffer = Vec::new();
        loop {
            // Twice the heartbeat without a byte: the node or the way to it is dead.
            match tokio::time::timeout(HEARTBEAT * 2, body.next()).await {
                Ok(Some(Ok(bytes))) => buffer.extend_from_slice(&bytes),
                Ok(Some(Err(error))) => return Broken::Because(in_words(&error)),
                Ok(None) => return because("it ended the stream"),
                Err(_) => return because("it has fallen silent"),
            }
            self.told = false;
            while let Some(end) = buffer.windows(2).position(|two| two == b"\n\n") {
                let event: Vec<u8> = buffer.drain(..end + 2).collect();
                if let Some(stands) = Stands::read(&event) {
                    if !self.take(stands.node.clone()) {
                        return Broken::Another;
                    }
                    self.cursor.0.insert(stands.node, stands.seq);
                }
                if event != b":\n\n"[..] && self.sink.send(event.into()).await.is_err() {
                    return because("nobody listens");
                }
            }
            if buffer.len() > LINE {
                return because("its answer makes no sense here");
            }
        }
    }
}

/// How far a node's stream has been read: after a broken connection it goes on from there.
#[derive(Deserialize)]
struct Stands {
    node: NodeId,
    seq: u64,
}

impl Stands {
    fn read(event: &[u8]) -> Option<Self> {
        let data = std::str::from_utf8(event).ok()?.lines().find_map(|line| line.strip_prefix("data: "))?;
        match serde_json::from_str::<SubscriptionChange>(data) {
            Ok(change) => Some(Self { node: change.subscription.node, seq: change.seq }),
            Err(_) => serde_json::from_str(data).ok(),
        }
    }
}
