//! Asking the other nodes: all of them, side by side, with a deadline; who does not answer is
//! named.

use std::sync::Arc;

use futures::{StreamExt, stream};
use reqwest::{Method, StatusCode};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::caller::Caller;
use crate::config::BaseUrl;
use crate::edge::gateway::Gateway;
use crate::mail::ids::NodeId;

/// Nodes asked at the same time.
const AT_ONCE: usize = 64;

/// A node that did not answer: it is named in the reply, never silently left out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Silent {
    pub node: String,
    pub reason: String,
}

/// Something that a node says of itself.
pub trait FromNode: DeserializeOwned {
    fn node(&self) -> &NodeId;
}

/// What the other nodes said.
pub struct Answers<T> {
    pub answers: Vec<T>,
    pub partial: Vec<Silent>,
}

/// Another node, as far as it is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// Unknown where there is no registry: a listed URL does not tell it.
    pub id: Option<NodeId>,
    pub url: String,
}

impl Peer {
    /// What it is called in answers: its id, or its URL.
    pub fn name(&self) -> String {
        self.id.as_ref().map_or_else(|| self.url.clone(), NodeId::to_string)
    }
}

/// Why a node gave no answer of use.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AskError {
    #[error("it answered {0}")]
    Status(StatusCode),
    /// In plain words.
    #[error("{0}")]
    Unreachable(String),
}

/// The other nodes: the registry's, and those that the settings list.
pub fn others(gateway: &Gateway) -> Vec<Peer> {
    let nodes = gateway.directory.nodes().borrow().clone();
    let registered = nodes.iter().filter(|record| record.id != *gateway.node());
    let registered = registered.map(|record| Peer { id: Some(record.id.clone()), url: record.url.clone() });
    let own = gateway.record.url.as_str().trim_end_matches('/');
    let listed = gateway.settings.registry.peers.iter().map(BaseUrl::as_str).filter(|url| *url != own);
    registered.chain(listed.map(|url| Peer { id: None, url: url.to_owned() })).collect()
}

/// Where a node may be found: where its registration says; without one, it may be any that the
/// settings list.
fn resolve(gateway: &Gateway, node: &NodeId) -> Vec<Peer> {
    let mut others = others(gateway);
    if let Some(registered) = others.iter().find(|peer| peer.id.as_ref() == Some(node)) {
        return vec![registered.clone()];
    }
    others.retain(|peer| peer.id.is_none());
    others
}

/// Asks one node by its id. `no` is the status that says "not here": `Ok(None)` means that whoever
/// may be the node said so, an error that one of them could not be asked and the answer is not
/// known.
pub async fn ask_node<T: DeserializeOwned>(
    gateway: &Gateway,
    node: &NodeId,
    (method, path): (Method, &str),
    token: Option<&str>,
    no: StatusCode,
) -> Result<Option<T>, Silent> {
    let questions = resolve(gateway, node).into_iter().map(|peer| {
        let method = method.clone();
        async move { (peer.name(), ask::<T>(gateway, &peer.url, method, path, token).await) }
    });
    let mut replies = stream::iter(questions).buffer_unordered(AT_ONCE);
    let mut silent = None;
    while let Some((node, reply)) = replies.next().await {
        match reply {
            Ok(answer) => return Ok(Some(answer)),
            Err(AskError::Status(status)) if status == no => {}
            Err(error) => silent = Some(Silent { node, reason: error.to_string() }),
        }
    }
    silent.map_or(Ok(None), Err)
}

/// Sends `method path` to every other node, on the caller's behalf.
pub async fn ask_all<T: FromNode>(gateway: &Arc<Gateway>, method: Method, path: &str, caller: &Caller) -> Answers<T> {
    let questions = others(gateway).into_iter().map(|peer| {
        let method = method.clone();
        async move {
            let answer = ask::<T>(gateway, &peer.url, method, path, Some(&caller.token)).await;
            (peer.name(), answer)
        }
    });
    let mut all = Answers { answers: Vec::new(), partial: Vec::new() };
    let mut replies = stream::iter(questions).buffer_unordered(AT_ONCE);
    while let Some((node, reply)) = replies.next().await {
        match reply {
            // A listed URL may be another name of this very node.
            Ok(answer) if *answer.node() == *gateway.node() => {}
            Ok(answer) => all.answers.push(answer),
            Err(error) => all.partial.push(Silent { node, reason: error.to_string() }),
        }
    }
    all.answers.sort_by(|a, b| a.node().cmp(b.node()));
    // Nor need two listed URLs be two nodes.
    all.answers.dedup_by(|a, b| a.node() == b.node());
    all.partial.sort_by(|a, b| a.node.cmp(&b.node));
    all
}

/// Asks the node at `url`.
async fn ask<T: DeserializeOwned>(
    gateway: &Gateway,
    url: &str,
    method: Method,
    path: &str,
    token: Option<&str>,
) -> Result<T, AskError> {
    let url = format!("{}{path}", url.trim_end_matches('/'));
    let mut request = gateway.client.request(method, url).timeout(gateway.settings.http.peer_timeout_ms.duration());
    if let Some(token) = token {
        request = request.bearer_auth(token);
    }
    let unreachable = |error: reqwest::Error| AskError::Unreachable(in_words(&error));
    let response = request.send().await.map_err(unreachable)?;
    if !response.status().is_success() {
        return Err(AskError::Status(response.status()));
    }
    response.json().await.map_err(unreachable)
}

/// Without the URL, which reqwest would quote.
pub fn in_words(error: &reqwest::Error) -> String {
    let words = if error.is_timeout() {
        "it did not answer in time"
    } else if error.is_connect() {
        "it cannot be reached"
    } else if error.is_decode() {
        "its answer makes no sense here"
    } else {
        "the connection broke"
    };
    words.to_owned()
}
