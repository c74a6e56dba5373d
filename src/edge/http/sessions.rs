//! Sessions: listing them and ending them, cluster-wide.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use reqwest::{Method, StatusCode};
use serde::{Deserialize, Serialize};

use super::caller::{Caller, Segment};
use super::paging::{Wanted, encode};
use super::peers::{FromNode, Silent, ask_all, ask_node};
use super::problem::Problem;
use super::query::Query;
use crate::edge::auth::Scopes;
use crate::edge::gateway::Gateway;
use crate::mail::ids::{NodeId, SessionId};
use crate::mail::user::UserName;
use crate::push::outbox::End;
use crate::push::session::Transport;
use crate::push::sessions::SessionRecord;

/// One node's part of a page.
#[derive(Debug, Serialize, Deserialize)]
pub struct LocalSessions {
    node: NodeId,
    sessions: Vec<SessionRecord>,
    /// Whether this node has more behind these.
    more: bool,
}

impl FromNode for LocalSessions {
    fn node(&self) -> &NodeId {
        &self.node
    }
}

#[derive(Debug, Serialize)]
pub struct SessionList {
    sessions: Vec<SessionRecord>,
    /// For the next page's `after`; `null` on the last.
    next: Option<String>,
    partial: Vec<Silent>,
}

/// How many sessions were ended.
#[derive(Debug, Serialize, Deserialize)]
pub struct LocalEnded {
    node: NodeId,
    ended: usize,
}

impl FromNode for LocalEnded {
    fn node(&self) -> &NodeId {
        &self.node
    }
}

#[derive(Debug, Serialize)]
pub struct Ended {
    ended: usize,
    partial: Vec<Silent>,
}

/// What a listing is narrowed to: where some are named, to any of them. Without
/// `subscriptions:read` callers see their own.
pub(super) struct Filter {
    users: Vec<UserName>,
    nodes: Vec<NodeId>,
    transports: Vec<Transport>,
}

impl Filter {
    pub fn read(gateway: &Gateway, caller: &Caller, query: &Query) -> Result<Self, Problem> {
        let user = |text| gateway.names.normalise(text).map_err(|error| Problem::bad_request(format!("user: {error}")));
        let mut users = query.all("user").map(user).collect::<Result<Vec<_>, _>>()?;
        if !caller.may(Scopes::SUBSCRIPTIONS_READ) {
            let own = caller.identity.user.clone();
            if users.iter().any(|user| *user != own) {
                return Err(Problem::forbidden("without the scope subscriptions:read you see only your own"));
            }
            users = vec![own];
        }
        let node = |text: &str| text.parse().map_err(|_| Problem::bad_request("node: a node id"));
        let transport = |text: &str| {
            let known = [Transport::Websocket, Transport::Sse, Transport::Imap].into_iter().find(|t| t.as_str() == text);
            known.ok_or_else(|| Problem::bad_request("transport: one of websocket, sse, imap"))
        };
        Ok(Self {
            users,
            nodes: query.all("node").map(node).collect::<Result<_, _>>()?,
            transports: query.all("transport").map(transport).collect::<Result<_, _>>()?,
        })
    }

    /// Whether one of this node's sessions passes.
    pub fn passes(&self, user: &UserName, node: &NodeId, transport: Transport) -> bool {
        (self.users.is_empty() || self.users.contains(user))
            && (self.nodes.is_empty() || self.nodes.contains(node))
            && (self.transports.is_empty() || self.transports.contains(&transport))
    }

    /// The same filter as a query for another node.
    pub fn to_query(&self) -> form_urlencoded::Serializer<'static, String> {
        let mut query = form_urlencoded::Serializer::new(String::new());
        query.extend_pairs(self.users.iter().map(|user| ("user", user.as_str())));
        query.extend_pairs(self.nodes.iter().map(|node| ("node", node.as_str())));
        query.extend_pairs(self.transports.iter().map(|transport| ("transport", transport.as_str())));
        query
    }
}

/// This node's part of a page; the cursor is the last session of the page before.
fn local(gateway: &Gateway, filter: &Filter, wanted: &Wanted<SessionId>) -> LocalSessions {
    let after = wanted.after.as_ref();
    let sessions = gateway.sessions.after(after);
    let passing = sessions.iter().filter(|s| Some(&s.id) != after && filter.passes(&s.user(), gateway.node(), s.transport));
    let mut sessions = passing.take(wanted.limit + 1).map(|session| session.record()).collect();
    let more = wanted.cut(&mut sessions);
    LocalSessions { node: gateway.node().clone(), sessions, more }
}

/// `GET /v1/local/sessions`: this node's.
pub async fn list_local(
    State(gateway): State<Arc<Gateway>>,
    caller: Caller,
    query: Query,
) -> Result<Json<LocalSessions>, Problem> {
    let filter = Filter::read(&gateway, &caller, &query)?;
    Ok(Json(local(&gateway, &filter, &Wanted::read(&query)?)))
}

/// `GET /v1/sessions`: the cluster's.
pub async fn list(State(gateway): State<Arc<Gateway>>, caller: Caller, query: Query) -> Result<Json<SessionList>, Problem> {
    let filter = Filter::read(&gateway, &caller, &query)?;
    let wanted = Wanted::read(&query)?;
    let path = {
        let mut query = filter.to_query();
        wanted.append_to(&mut query);
        format!("/v1/local/sessions?{}", query.finish())
    };
    let mut all = ask_all::<LocalSessions>(&gateway, Method::GET, &path, &caller).await;
    all.answers.push(local(&gateway, &filter, &wanted));
    let mut more = all.answers.iter().any(|part| part.more);
    let mut sessions: Vec<SessionRecord> = all.answers.into_iter().flat_map(|part| part.sessions).collect();
    sessions.sort_by(|a, b| a.id.cmp(&b.id));
    more |= wanted.cut(&mut sessions);
    let next = sessions.last().filter(|_| more).map(|last| encode(&last.id));
    Ok(Json(SessionList { sessions, next, partial: all.partial }))
}

fn no_such_session() -> Problem {
    Problem::not_found("there is no such session, or it is not yours")
}

/// Ends one of this node's sessions.
fn end_one(gateway: &Gateway, caller: &Caller, id: &SessionId) -> Result<(), Problem> {
    let session = gateway.sessions.get(id).ok_or_else(no_such_session)?;
    if !caller.may(Scopes::SESSIONS_WRITE) && session.user() != caller.identity.user {
        return Err(no_such_session());
    }
    session.end(End::Ended);
    Ok(())
}

/// `DELETE /v1/local/sessions/{id}`: on this node, and no other is asked.
pub async fn end_here(
    State(gateway): State<Arc<Gateway>>,
    caller: Caller,
    Segment(id): Segment,
) -> Result<Json<LocalEnded>, Problem> {
    let id: SessionId = id.parse().map_err(|_| no_such_session())?;
    end_one(&gateway, &caller, &id)?;
    Ok(Json(LocalEnded { node: gateway.node().clone(), ended: 1 }))
}

/// `DELETE /v1/sessions/{id}`: on whichever node it is.
pub async fn end(State(gateway): State<Arc<Gateway>>, caller: Caller, Segment(id): Segment) -> Result<Json<Ended>, Problem> {
    let id: SessionId = id.parse().map_err(|_| no_such_session())?;
    if id.node() == gateway.node() {
        end_one(&gateway, &caller, &id)?;
    } else {
        let question = (Method::DELETE, &*format!("/v1/local/sessions/{id}"));
        let answer = ask_node::<LocalEnded>(&gateway, id.node(), question, Some(&caller.token), StatusCode::NOT_FOUND).await;
        let silent = |silent: Silent| {
            Problem::bad_gateway(format!("the session is on node {}: asked at {}, {}", id.node(), silent.node, silent.reason))
        };
        answer.map_err(silent)?.ok_or_else(no_such_session)?;
    }
    Ok(Json(Ended { ended: 1, partial: Vec::new() }))
}

fn end_local(gateway: &Gateway, user: &UserName) -> usize {
    let sessions = gateway.sessions.all();
    let theirs = sessions.iter().filter(|session| session.user() == *user);
    theirs.map(|session| session.end(End::Ended)).count()
}

fn whose(gateway: &Gateway, caller: &Caller, user: &str) -> Result<UserName, Problem> {
    let user = gateway.names.normalise(user).map_err(|error| Problem::bad_request(format!("user: {error}")))?;
    if user != caller.identity.user {
        caller.must(Scopes::SESSIONS_WRITE, "sessions:write")?;
    }
    Ok(user)
}

/// `DELETE /v1/local/users/{user}/sessions`: on this node.
pub async fn end_of_user_local(
    State(gateway): State<Arc<Gateway>>,
    caller: Caller,
    Segment(user): Segment,
) -> Result<Json<LocalEnded>, Problem> {
    let user = whose(&gateway, &caller, &user)?;
    Ok(Json(LocalEnded { node: gateway.node().clone(), ended: end_local(&gateway, &user) }))
}

/// `DELETE /v1/users/{user}/sessions`: wherever they are.
pub async fn end_of_user(
    State(gateway): State<Arc<Gateway>>,
    caller: Caller,
    Segment(user): Segment,
) -> Result<Json<Ended>, Problem> {
    let user = whose(&gateway, &caller, &user)?;
    let escaped: String = form_urlencoded::byte_serialize(user.as_str().as_bytes()).collect();
    let path = format!("/v1/local/users/{}/sessions", escaped.replace('+', "%20"));
    let others = ask_all::<LocalEnded>(&gateway, Method::DELETE, &path, &caller).await;
    let ended = end_local(&gateway, &user) + others.answers.iter().map(|answer| answer.ended).sum::<usize>();
    Ok(Json(Ended { ended, partial: others.partial }))
}
