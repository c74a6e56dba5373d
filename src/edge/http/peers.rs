//! Asking the other nodes: all of them, side by side, with a deadline; who does not answer is named.

use std::sync::Arc;

use futures::{StreamExt, stream};
use reqwest::Method;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::Caller;
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

/// The other nodes, by name and URL: the registry's, and without one those of the settings, named by their URL.
pub fn others(gateway: &Gateway) -> Vec<(String, String)> {
    let nodes = gateway.directory.nodes().borrow().clone();
    let registered = nodes.iter().filter(|record| record.id != *gateway.node()).map(|r| (r.id.to_string(), r.url.clone()));
    let own = gateway.record.url.as_str().trim_end_matches('/');
    let listed = gateway.settings.registry.peers.iter().map(|url| url.trim_end_matches('/')).filter(|url| *url != own);
    registered.chain(listed.map(|url| (url.to_owned(), url.to_owned()))).collect()
}

/// Sends `method path` to every other node, on the caller's behalf.
pub async fn ask_all<T: FromNode>(gateway: &Arc<Gateway>, method: Method, path: &str, caller: &Caller) -> Answers<T> {
    let questions = others(gateway).into_iter().map(|(node, url)| {
        let method = method.clone();
        async move {
            let answer = ask::<T>(gateway, &url, method, path, Some(&caller.token)).await;
            (node, answer)
        }
    });
    let mut all = Answers { answers: Vec::new(), partial: Vec::new() };
    let mut replies = stream::iter(questions).buffer_unordered(AT_ONCE);
    while let Some((node, reply)) = replies.next().await {
        match reply {
            // A listed URL may be another name of this very node.
            Ok(answer) if *answer.node() == *gateway.node() => {}
            Ok(answer) => all.answers.push(answer),
            Err(reason) => all.partial.push(Silent { node, reason }),
        }
    }
    all.answers.sort_by(|a, b| a.node().cmp(b.node()));
    all.partial.sort_by(|a, b| a.node.cmp(&b.node));
    all
}

/// Asks the node at `url`. The error is in plain words.
pub async fn ask<T: DeserializeOwned>(
    gateway: &Gateway,
    url: &str,
    method: Method,
    path: &str,
    token: Option<&str>,
) -> Result<T, String> {
    let url = format!("{}{path}", url.trim_end_matches('/'));
    let mut request = gateway.client.request(method, url).timeout(gateway.settings.http.peer_timeout_ms.duration());
    if let Some(token) = token {
        request = request.bearer_auth(token);
    }
    let response = request.send().await.map_err(|error| in_words(&error))?;
    let status = response.status();
    if !status.is_success() {
        return Err(format!("it answered {status}"));
    }
    response.json().await.map_err(|error| in_words(&error))
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
