//! What tests of shared mailboxes ask of a cluster whose registry keeps the ACLs.

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::Method;
use serde_json::{Value, json};

use super::cluster::{Own, PATIENCE, TestCluster};
use super::sse::SseClient;
use super::wait::eventually;
use super::ws::WsClient;

impl TestCluster {
    /// Three nodes whose registry keeps the ACLs.
    pub async fn start_sharing(own: Own, settings: &[&str]) -> Self {
        Self::start_owning(own, 3, &[&["access.source=registry"], settings].concat()).await
    }

    /// A token of a user who is in these groups.
    pub fn token_in(&self, user: &str, groups: &[&str]) -> String {
        let mut arguments = vec!["token", "issue", "--user", user];
        for group in groups {
            arguments.extend(["--group", group]);
        }
        let output = self.run(&arguments);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("a token").trim().to_owned()
    }

    /// A token of an owner who may say who shares.
    pub fn owner_token(&self, owner: &str) -> String {
        self.token(owner, &["push", "acl:read", "acl:write"])
    }

    /// A client of a node, connected as a user who is in these groups.
    pub async fn member(&self, node: usize, user: &str, groups: &[&str]) -> WsClient {
        WsClient::connect(&self.ws(node), &self.token_in(user, groups)).await
    }

    /// A stream of a node about what these parameters name, and what its first event says. It is subscribed to all of them.
    pub async fn stream(&self, node: usize, token: &str, parameters: &[(&str, &str)]) -> (SseClient, Value) {
        let keys = parameters.iter().filter(|(name, _)| matches!(*name, "mailbox" | "account")).count();
        let stream = SseClient::open(&self.stream_url(node, parameters), Some(token), keys).await;
        let subscribed = stream.transcript[0].data["subscribe"].clone();
        (stream, subscribed)
    }

    pub fn stream_url(&self, node: usize, parameters: &[(&str, &str)]) -> String {
        let query: String = form_urlencoded::Serializer::new(String::new()).extend_pairs(parameters).finish();
        format!("{}/v1/stream?{query}", self.http(node))
    }

    /// One request about a mailbox's ACL; its status and body.
    pub async fn acl(&self, node: usize, token: &str, method: Method, target: (&str, &str), body: &Value) -> (u16, Value) {
        let (mailbox, identifier) = target;
        let mailbox = utf8_percent_encode(mailbox, NON_ALPHANUMERIC);
        let request = reqwest::Client::new().request(method, format!("{}/v1/mailboxes/{mailbox}/acl", self.http(node)));
        let identifier = Some(("identifier", identifier)).filter(|(_, identifier)| !identifier.is_empty());
        let response = request.bearer_auth(token).query(&identifier.as_slice()).json(body).send().await.expect("an answer");
        (response.status().as_u16(), response.json().await.unwrap_or_default())
    }

    /// Says at a node who shares a mailbox, as its owner; again while the node says that it cannot now.
    pub async fn share(&self, node: usize, mailbox: &str, acl: Value) {
        self.change_acl(node, Method::PUT, (mailbox, ""), json!({ "acl": acl })).await;
    }

    /// Gives an identifier these rights and no others.
    pub async fn grant(&self, node: usize, mailbox: &str, identifier: &str, rights: &str) {
        self.change_acl(node, Method::PUT, (mailbox, identifier), json!({ "rights": rights })).await;
    }

    /// Takes an identifier out of the ACL.
    pub async fn deny(&self, node: usize, mailbox: &str, identifier: &str) {
        self.change_acl(node, Method::DELETE, (mailbox, identifier), Value::Null).await;
    }

    async fn change_acl(&self, node: usize, method: Method, target: (&str, &str), body: Value) {
        let owner = target.0.split(':').nth(1).expect("an owner");
        let token = self.owner_token(owner);
        eventually("the ACL is changed", PATIENCE, async || {
            let (status, answer) = self.acl(node, &token, method.clone(), target, &body).await;
            assert!(status == 200 || status == 503, "{answer}");
            (status == 200).then_some(())
        })
        .await;
    }

    /// The ACL of a mailbox, as a node tells it.
    pub async fn kept(&self, node: usize, mailbox: &str) -> Value {
        let token = self.token("admin@example.org", &["acl:read"]);
        let (status, answer) = self.acl(node, &token, Method::GET, (mailbox, ""), &Value::Null).await;
        assert_eq!(status, 200, "{answer}");
        answer["acl"].clone()
    }

    /// The keys that somebody's sessions hold anywhere, as an administrator is told.
    pub async fn held_by(&self, user: &str) -> Vec<Value> {
        let (status, page) = self.get(0, &format!("/v1/subscriptions?limit=1000&user={user}"), &self.admin_token()).await;
        assert_eq!((status, &page["partial"]), (200, &json!([])), "{page}");
        let mut keys: Vec<Value> =
            page["subscriptions"].as_array().expect("a list").iter().map(|record| record["key"].clone()).collect();
        keys.sort_by_key(Value::to_string);
        keys
    }
}

/// Subscribes, and tells the rights that the reply names.
pub async fn subscribe(client: &mut WsClient, what: Value) -> String {
    let reply = client.command("subscribe", what).await;
    reply["subscribe"]["rights"].as_str().unwrap_or_else(|| panic!("{reply}")).to_owned()
}

/// The keys of the next `resync` with this reason; what comes before it is dropped.
pub async fn resync(client: &mut WsClient, reason: &str) -> Value {
    loop {
        let told = client.push("resync").await;
        if told["reason"] == reason {
            return told["keys"].clone();
        }
    }
}

/// Waits for the word that a mailbox is shared now. It may be said twice: at once, and when nothing can be missed.
pub async fn is_shared(client: &mut WsClient, mailbox: &str) {
    while !names(&resync(client, "shared").await, mailbox) {}
}

/// As [`is_shared`], on a stream.
pub async fn is_shared_in_stream(stream: &mut SseClient, mailbox: &str) {
    while !names(&streamed_resync(stream, "shared").await, mailbox) {}
}

/// One word may be about several.
fn names(keys: &Value, mailbox: &str) -> bool {
    keys.as_array().is_some_and(|keys| keys.contains(&json!({ "mailbox": mailbox })))
}

/// As [`resync`], on a stream.
pub async fn streamed_resync(stream: &mut SseClient, reason: &str) -> Value {
    loop {
        let told = stream.pushed("resync").await;
        if told["reason"] == reason {
            return told["keys"].clone();
        }
    }
}
