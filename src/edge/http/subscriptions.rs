//! `GET /v1/subscriptions`: the cluster's live subscriptions, in pages.
//!
//! They are ordered by session id, which begins with the node, then by key. A page asks every node
//! for what follows the cursor, merges, and cuts; so a page is complete but for the nodes that it
//! names as silent.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use reqwest::Method;
use serde::{Deserialize, Serialize};

use super::caller::Caller;
use super::paging::{Wanted, decode, encode};
use super::peers::{FromNode, Silent, ask_all};
use super::problem::Problem;
use super::query::Query;
use super::sessions::Filter;
use crate::edge::gateway::Gateway;
use crate::mail::ids::{NodeId, SessionId};
use crate::mail::key::Key;
use crate::push::sessions::SubscriptionRecord;
use crate::wire::ws::command::parse_key;

/// One node's part of a page.
#[derive(Debug, Serialize, Deserialize)]
pub struct LocalPage {
    node: NodeId,
    /// Where the stream goes on.
    seq: u64,
    subscriptions: Vec<SubscriptionRecord>,
    /// Whether this node has more behind these.
    more: bool,
}

impl FromNode for LocalPage {
    fn node(&self) -> &NodeId {
        &self.node
    }
}

#[derive(Debug, Serialize)]
pub struct Page {
    subscriptions: Vec<SubscriptionRecord>,
    /// For the next page's `after`; `null` on the last.
    next: Option<String>,
    /// For the stream's `since`: every change after this listing.
    stream: String,
    /// Nodes that are registered and did not answer.
    partial: Vec<Silent>,
}

/// The last subscription of the page before.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
struct Cursor {
    session: SessionId,
    key: Key,
}

/// Where every node's stream goes on.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct StreamCursor(pub BTreeMap<NodeId, u64>);

impl StreamCursor {
    pub fn parse(text: &str) -> Option<Self> {
        decode(text)
    }

    /// What [`Self::parse`] reads.
    pub fn to_text(&self) -> String {
        encode(self)
    }
}

struct Question {
    filter: Filter,
    /// Where some are named: only subscriptions of one of them.
    keys: Vec<Key>,
    wanted: Wanted<Cursor>,
}

impl Question {
    fn read(gateway: &Gateway, caller: &Caller, query: &Query) -> Result<Self, Problem> {
        let filter = Filter::read(gateway, caller, query)?;
        let mailboxes = query.all("mailbox").map(|text| parse_key(Some(text), None, &gateway.names));
        let accounts = query.all("account").map(|text| parse_key(None, Some(text), &gateway.names));
        if query.all("mailbox").next().is_some() && query.all("account").next().is_some() {
            return Err(Problem::bad_request("name either mailboxes or accounts"));
        }
        let keys = mailboxes.chain(accounts).collect::<Result<_, _>>().map_err(Problem::bad_request)?;
        Ok(Self { filter, keys, wanted: Wanted::read(query)? })
    }

    fn to_query(&self) -> String {
        let mut query = self.filter.to_query();
        query.extend_pairs(self.keys.iter().map(|key| match key {
            Key::Mailbox(path) => ("mailbox", path.as_str()),
            Key::Account(user) => ("account", user.as_str()),
        }));
        self.wanted.append_to(&mut query);
        query.finish()
    }

    /// This node's answer.
    fn answer(&self, gateway: &Gateway) -> LocalPage {
        // Read before the listing: what changes meanwhile is in both, and in neither is nothing.
        let seq = gateway.sessions.seq();
        let mut subscriptions = Vec::new();
        let after = self.wanted.after.as_ref();
        for session in gateway.sessions.after(after.map(|cursor| &cursor.session)) {
            if !self.filter.passes(&session.user(), gateway.node(), session.transport) {
                continue;
            }
            let mut held = session.subscriptions();
            held.sort();
            let follows = |key: &Key| match after {
                Some(cursor) if cursor.session == session.id => *key > cursor.key,
                _ => true,
            };
            let wanted = held.into_iter().filter(|(key, _)| (self.keys.is_empty() || self.keys.contains(key)) && follows(key));
            subscriptions.extend(wanted.map(|(key, since)| session.subscription_record(key, since)));
            if subscriptions.len() > self.wanted.limit {
                break;
            }
        }
        let more = self.wanted.cut(&mut subscriptions);
        LocalPage { node: gateway.node().clone(), seq, subscriptions, more }
    }
}

/// `GET /v1/local/subscriptions`: this node's.
pub async fn list_local(State(gateway): State<Arc<Gateway>>, caller: Caller, query: Query) -> Result<Json<LocalPage>, Problem> {
    Ok(Json(Question::read(&gateway, &caller, &query)?.answer(&gateway)))
}

/// `GET /v1/subscriptions`: the cluster's.
pub async fn list(State(gateway): State<Arc<Gateway>>, caller: Caller, query: Query) -> Result<Json<Page>, Problem> {
    let question = Question::read(&gateway, &caller, &query)?;
    let path = format!("/v1/local/subscriptions?{}", question.to_query());
    let mut all = ask_all::<LocalPage>(&gateway, Method::GET, &path, &caller).await;
    all.answers.push(question.answer(&gateway));
    let stream = StreamCursor(all.answers.iter().map(|page| (page.node.clone(), page.seq)).collect());
    let mut more = all.answers.iter().any(|page| page.more);
    let mut subscriptions: Vec<SubscriptionRecord> = all.answers.into_iter().flat_map(|page| page.subscriptions).collect();
    subscriptions.sort_by(|a, b| (&a.session, &a.key).cmp(&(&b.session, &b.key)));
    more |= question.wanted.cut(&mut subscriptions);
    let last = subscriptions.last().filter(|_| more);
    let next = last.map(|record| encode(&Cursor { session: record.session.clone(), key: record.key.clone() }));
    Ok(Json(Page { subscriptions, next, stream: stream.to_text(), partial: all.partial }))
}
