//! The words for programs: names of errors on the WebSocket, codes of problems, reasons of resyncs. The documents, the program
//! and what really comes are held against each other.

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;

use data_encoding::BASE64URL_NOPAD;
use mailpush::cluster::registry::{Discontinuity, RegistryHealth};
use mailpush::config::{Millis, Secret, Settings};
use mailpush::edge::auth::AuthError;
use mailpush::edge::http::problem::codes;
use mailpush::mail::key::Key;
use mailpush::push::outbox::ResyncReason;
use mailpush::wire::ws::command::{ErrorName, TOKEN_REFUSED};
use serde_json::{Value, json};

use super::documents::{Place, Which};
use super::frames::{hold, message};
use super::rest::{ACL, ALICE, INBOX, Met};
use super::streams::SseClient;
use crate::support::acls::AclNode;
use crate::support::dev::{claims, sign, sign_with};
use crate::support::raw_ws::RawClient;
use crate::support::ws::WsClient;

const BOB: &str = "bob@example.org";
const SENT: &str = "#private:alice@example.org:Sent";
const TEAM: &str = "#private:alice@example.org:Team";
const TEAM_ACL: &str = "/v1/mailboxes/%23private:alice:Team/acl";
const ISSUER: &str = "https://issuer.test";

/// The words that a schema allows, each explained.
fn allowed(schema: &Place) -> Vec<&'static str> {
    let word = |row: &Place| {
        assert!(row.member("description").value().as_str().is_some_and(|words| !words.is_empty()), "{row:?}");
        row.member("const").value().as_str().expect("a word")
    };
    schema.member("oneOf").children().iter().map(word).collect()
}

/// A property of a schema of a document.
fn property(which: Which, path: &[&str]) -> Place {
    let schemas = Place::root(which).member("components").member("schemas");
    path.iter().fold(schemas, |place, name| place.member(name))
}

/// The rows of the table of errors: code, name and whether it is temporary.
fn errors() -> Vec<Value> {
    let table = property(Which::Asyncapi, &["Error", "x-errors"]);
    let row = |row: &Place| {
        assert!(row.member("words").value().as_str().is_some_and(|words| !words.is_empty()), "{row:?}");
        assert_eq!(row.names().len(), 4, "{row:?}");
        json!([row.member("code").value(), row.member("name").value(), row.member("temporary").value()])
    };
    table.children().iter().map(row).collect()
}

/// Holds every error in a frame against the table, and returns their names.
pub fn names_of_errors(frame: &Value) -> Vec<String> {
    let resumed = frame["connect"]["resumed"].as_array().into_iter().flatten();
    let found = resumed.map(|one| &one["error"]).chain([&frame["error"]]).filter(|error| error.is_object());
    let name = |error: &Value| {
        let row = json!([error["code"], error["name"], error["temporary"]]);
        assert!(errors().contains(&row), "{error} is not in the table of errors");
        error["name"].as_str().expect("a name").to_owned()
    };
    found.map(name).collect()
}

#[test]
fn the_names_of_errors_are_those_of_the_program() {
    let own = ErrorName::ALL.iter().map(|name| json!([name.code(), name.as_str(), name.is_temporary()]));
    // One that is not the token's fault is told as unavailable.
    let refused = AuthError::ALL.iter().filter(|error| !error.is_transient());
    let tokens = refused.map(|error| json!([TOKEN_REFUSED, error.name(), false]));
    assert_eq!(errors(), own.chain(tokens).collect::<Vec<_>>());
}

#[test]
fn the_reasons_of_resyncs_are_those_of_the_program() {
    let reasons = property(Which::Asyncapi, &["ResyncPush", "properties", "resync", "properties", "reason"]);
    assert_eq!(allowed(&reasons), ResyncReason::ALL.iter().map(|reason| reason.as_str()).collect::<Vec<_>>());
}

#[test]
fn the_codes_of_problems_are_those_of_the_program() {
    let documented = property(Which::Openapi, &["Problem", "properties", "code"]);
    assert_eq!(allowed(&documented), codes().collect::<Vec<_>>());
}

fn issued() -> Value {
    let mut claims = claims(600.0);
    claims["iss"] = json!(ISSUER);
    claims
}

/// A good token of the nodes here, but for this claim; null takes it away.
fn token_with(name: &str, value: Value) -> String {
    let mut claims = issued();
    claims[name] = value;
    claims.as_object_mut().expect("claims").retain(|_, value| !value.is_null());
    sign(&claims)
}

/// A token whose header is this, and whose signature is none.
fn token_headed(header: Value) -> String {
    let part = |text: &str| BASE64URL_NOPAD.encode(text.as_bytes());
    format!("{}.{}.{}", part(&header.to_string()), part(&issued().to_string()), part("x"))
}

/// Tokens that a node with one secret refuses, each for another reason.
fn bad_tokens() -> Vec<(&'static str, String)> {
    vec![
        ("token_too_long", "x".repeat(8 * 1024 + 1)),
        ("token_malformed", "nonsense".to_owned()),
        ("token_header_unsupported", token_headed(json!({ "alg": "HS256", "crit": ["exp"] }))),
        ("token_algorithm_not_allowed", token_headed(json!({ "alg": "none" }))),
        ("token_bad_signature", sign_with(&issued(), "another secret of more than thirty-two bytes")),
        ("token_expired", token_with("exp", json!(1))),
        ("token_not_yet_valid", token_with("nbf", json!(40_000_000_000_u64))),
        ("token_wrong_issuer", token_with("iss", json!("https://another.test"))),
        ("token_wrong_audience", token_with("aud", json!("another"))),
        ("token_claim_missing", token_with("exp", Value::Null)),
        ("token_claim_invalid", token_with("sub", json!(5))),
    ]
}

/// A node with one key, called `ours`.
fn with_key_set(settings: &mut Settings, file: &tempfile::NamedTempFile) {
    let key = json!({ "kty": "OKP", "crv": "Ed25519", "kid": "ours", "x": BASE64URL_NOPAD.encode(&[7; 32]) });
    std::fs::write(file.path(), json!({ "keys": [key] }).to_string()).expect("write the key set");
    settings.auth.secret = Secret::new("");
    settings.auth.jwks_file = Some(file.path().to_owned());
}

/// A node that could not fetch its keys.
fn without_keys(settings: &mut Settings) {
    settings.auth.secret = Secret::new("");
    settings.auth.jwks_url = Some("http://127.0.0.1:9/".parse().expect("a URL"));
}

/// Where key sets are fetched from: answers once, and fails from then on.
async fn failing_issuer() -> String {
    let asked = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let answer = axum::routing::get(move || async move {
        let key = json!({ "kty": "OKP", "crv": "Ed25519", "kid": "ours", "x": BASE64URL_NOPAD.encode(&[7; 32]) });
        match asked.swap(true, Ordering::Relaxed) {
            false => (axum::http::StatusCode::OK, json!({ "keys": [key] }).to_string()),
            true => (axum::http::StatusCode::BAD_GATEWAY, String::new()),
        }
    });
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}/", listener.local_addr().expect("an address"));
    tokio::spawn(async move { axum::serve(listener, axum::Router::new().route("/", answer)).await });
    url
}

/// A node that has keys, and cannot fetch newer ones.
fn with_issuer(settings: &mut Settings, url: &str) {
    settings.auth.secret = Secret::new("");
    settings.auth.jwks_url = Some(url.parse().expect("a URL"));
}

/// A token of the node of [`with_key_set`], if it knew its key.
fn unknown_key() -> String {
    token_headed(json!({ "alg": "EdDSA", "kid": "theirs" }))
}

#[tokio::test]
async fn every_code_of_a_problem_is_met() {
    let file = tempfile::NamedTempFile::new().expect("a file");
    let issuer = failing_issuer().await;
    let (node, rotated, keyless, rotating) = tokio::join!(
        AclNode::start(|settings| ISSUER.clone_into(&mut settings.auth.issuer)),
        AclNode::start(|settings| with_key_set(settings, &file)),
        AclNode::start_with(false, without_keys),
        AclNode::start(|settings| with_issuer(settings, &issuer)),
    );
    let met = Met::default();
    let ask = |node: &AclNode, token: &str| met.ask(&node.http(), "GET", "/v1/sessions", "").token(token);
    let mut codes = Vec::new();
    for (code, token) in bad_tokens() {
        codes.push(ask(&node, &token).answers(401).await["code"].take());
        assert_eq!(codes.last(), Some(&json!(code)));
    }
    let good = sign(&issued());
    codes.push(ask(&rotated, &unknown_key()).answers(401).await["code"].take());
    codes.push(ask(&keyless, &good).answers(503).await["code"].take());
    codes.push(ask(&rotating, &unknown_key()).answers(503).await["code"].take());
    codes.push(met.ask(&node.http(), "GET", "/v1/sessions", "").answers(401).await["code"].take());
    let owners = AclNode::start_with(false, |_| ()).await;
    let ask = met.ask(&owners.http(), "GET", ACL, TEAM_ACL).token(&owners.token("acl:read"));
    codes.push(ask.answers(409).await["code"].take());
    let crowded = AclNode::start(|settings| settings.sessions.sessions_per_user = 1).await;
    let token = sign(&claims(600.0));
    let _inside = WsClient::connect(&crowded.ws(), &token).await;
    let ask = met.ask(&crowded.http(), "GET", "/v1/stream", &format!("?account={ALICE}")).token(&token);
    codes.push(ask.answers(429).await["code"].take());
    let ask = met.ask(&crowded.http(), "GET", "/v1/stream", &format!("?account={ALICE}&ticket=nowhere.x"));
    codes.push(ask.answers(401).await["code"].take());
    let met: BTreeSet<_> = codes.iter().map(|code| code.as_str().expect("a code")).collect();
    let documented = allowed(&property(Which::Openapi, &["Problem", "properties", "code"]));
    assert_eq!(met, documented.into_iter().collect());
}

#[tokio::test]
async fn every_name_of_an_error_is_met() {
    let file = tempfile::NamedTempFile::new().expect("a file");
    let settings = |settings: &mut Settings| {
        ISSUER.clone_into(&mut settings.auth.issuer);
        settings.sessions.subscriptions_per_session = 1;
        settings.sessions.sessions_per_user = 1;
    };
    let issuer = failing_issuer().await;
    let (node, rotated, keyless, rotating) = tokio::join!(
        AclNode::start(settings),
        AclNode::start(|settings| with_key_set(settings, &file)),
        AclNode::start_with(false, without_keys),
        AclNode::start(|settings| with_issuer(settings, &issuer)),
    );
    let (good, bobs) = (sign(&issued()), token_with("sub", json!(BOB)));
    let mut client = WsClient::open(&node.ws()).await;
    for (frame, name) in [("nonsense", "bad_request"), (r#"{"id":1,"dance":{}}"#, "unknown_command")] {
        client.send(frame).await;
        assert_eq!(client.push("error").await["name"], name);
    }
    let subscribe = json!({ "mailbox": INBOX });
    for (command, body, name) in [
        ("subscribe", subscribe.clone(), "not_connected"),
        ("connect", json!({ "token": good }), ""),
        ("connect", json!({ "token": good }), "already_connected"),
        ("refresh", json!({ "token": bobs }), "forbidden"),
        ("subscribe", json!({ "mailbox": "#private:bob@example.org:INBOX" }), "not_found"),
        ("unsubscribe", subscribe.clone(), "not_subscribed"),
        ("subscribe", subscribe, ""),
        ("subscribe", json!({ "account": ALICE }), "limit_reached"),
    ] {
        assert_eq!(client.command(command, body).await["error"]["name"].as_str().unwrap_or_default(), name, "{command}");
    }
    for (name, token) in bad_tokens() {
        assert_eq!(client.command("refresh", json!({ "token": token })).await["error"]["name"], name);
    }
    let mut late = WsClient::open(&node.ws()).await;
    assert_eq!(late.command("connect", json!({ "token": good })).await["error"]["name"], "too_many_sessions");
    late.goodbye().await;
    let mut transcript = client.transcript;
    transcript.extend(late.transcript);
    for (node, token, name, code) in [
        (rotated, unknown_key(), "token_key_unknown", 4500),
        (keyless, good, "unavailable", 4413),
        (rotating, unknown_key(), "unavailable", 4413),
    ] {
        let mut client = WsClient::open(&node.ws()).await;
        assert_eq!(client.command("connect", json!({ "token": token })).await["error"]["name"], name);
        let told = client.goodbye().await;
        assert_eq!((&told["code"], &told["reconnect"]), (&json!(code), &json!(code < 4500)));
        transcript.extend(client.transcript);
    }
    let met: BTreeSet<String> = transcript.iter().flat_map(|said| hold(said).1).collect();
    let documented = errors().iter().map(|row| row[1].as_str().expect("a name").to_owned()).collect();
    assert_eq!(met, documented);
}

/// alice's ACL of [`TEAM`] is now this.
async fn share(node: &AclNode, acl: Value) {
    share_at(node, TEAM_ACL, acl).await;
}

async fn share_at(node: &AclNode, path: &str, acl: Value) {
    let request = reqwest::Client::new().put(format!("{}{path}", node.http())).bearer_auth(node.token("acl:write"));
    let answer = request.body(json!({ "acl": acl }).to_string()).send().await.expect("an answer");
    assert_eq!(answer.status(), 200);
}

async fn publish(node: &AclNode, event: Value) {
    let request = reqwest::Client::new().post(format!("{}/v1/events", node.http()));
    let answer = request.bearer_auth(node.token("events:publish")).json(&event).send().await.expect("an answer");
    assert_eq!(answer.status(), 200);
}

#[tokio::test]
async fn every_reason_of_a_resync_is_met() {
    let node = AclNode::start(|settings| {
        settings.sessions.outbox_bytes = 1024;
        settings.sessions.resync_spread_ms = Millis(100);
        settings.registry.settle_ms = Millis(200);
        settings.access.shared_mailboxes = 1;
    })
    .await;
    let token_of = |user: &str| {
        let mut claims = claims(600.0);
        claims["sub"] = json!(user);
        sign(&claims)
    };
    let mut alice = WsClient::connect(&node.ws(), &token_of(ALICE)).await;
    alice.subscribe(INBOX).await;
    alice.subscribe(SENT).await;
    let mut bob = WsClient::connect(&node.ws(), &token_of(BOB)).await;
    let reply = bob.command("subscribe", json!({ "account": BOB, "shared": true })).await;
    assert!(reply["subscribe"].is_object(), "{reply}");

    let inbox: Key = Key::Mailbox(INBOX.parse().expect("a path"));
    node.registrar.tell(Discontinuity::Lost { keys: vec![inbox.clone()] });
    assert_eq!(alice.push("resync").await["reason"], "registry_lost");
    node.registrar.tell(Discontinuity::Restored { keys: vec![inbox] });
    assert_eq!(alice.push("resync").await["reason"], "registry_restored");
    let uids: Vec<u32> = (1..=1_000).collect();
    publish(&node, json!({ "type": "MessageExpunge", "mailbox": INBOX, "uids": uids })).await;
    assert_eq!(alice.push("resync").await["reason"], "overflow");
    publish(&node, json!({ "type": "MailboxRename", "mailbox": SENT, "to": "#private:alice@example.org:Old" })).await;
    assert_eq!(alice.push("resync").await["reason"], "renamed");

    share(&node, json!({ BOB: "lr" })).await;
    assert_eq!(bob.push("resync").await, json!({ "keys": [{ "mailbox": TEAM }], "reason": "shared" }));
    share_at(&node, &TEAM_ACL.replace("Team", "Second"), json!({ BOB: "lr" })).await;
    while bob.push("resync").await != json!({ "keys": [{ "account": BOB }], "reason": "too_many_shared" }) {}
    let mut carol = WsClient::connect(&node.ws(), &token_of("carol@example.org")).await;
    share(&node, json!({ BOB: "lr", "carol@example.org": "l" })).await;
    carol.subscribe(TEAM).await;
    share(&node, json!({ BOB: "lr", "carol@example.org": "lr" })).await;
    assert_eq!(carol.push("resync").await, json!({ "keys": [{ "mailbox": TEAM }], "reason": "rights" }));
    node.break_queue().await;
    assert_eq!(carol.push("resync").await["reason"], "queue_gap");

    let mut met = BTreeSet::new();
    for said in [alice, bob, carol].iter().flat_map(|client| &client.transcript) {
        let (_, _, value) = hold(said);
        met.extend(value["resync"]["reason"].as_str().map(str::to_owned));
    }
    let documented = message("socket", "resync").member("payload").member("properties").member("resync");
    let documented = allowed(&documented.member("properties").member("reason"));
    assert_eq!(met, documented.into_iter().map(str::to_owned).collect());
}

/// A registry that does not answer while a stream opens.
#[tokio::test]
async fn a_stream_tells_what_it_cannot_subscribe_to() {
    let node = AclNode::start(|settings| settings.sessions.subscribe_timeout_ms = Millis(200)).await;
    node.registrar.set_health(RegistryHealth::Lost { reason: "a test wants this".to_owned() });
    let url = format!("{}/v1/stream?account={ALICE}", node.http());
    let mut stream = SseClient::open("stream", url, &sign(&claims(600.0))).await;
    let refused = stream.until("error").await;
    assert_eq!((&refused["id"], &refused["error"]["name"]), (&json!(0), &json!("unavailable")), "{refused}");
}

#[tokio::test]
async fn a_stream_of_changes_tells_that_a_node_has_left() {
    let here = AclNode::start(|settings| settings.node.id = Some("here".parse().expect("an id"))).await;
    let there = here.beside(|settings| settings.node.id = Some("there".parse().expect("an id"))).await;
    let url = format!("{}/v1/subscriptions/stream", here.http());
    let mut stream = SseClient::open("changes", url, &here.token("subscriptions:read")).await;
    let mut nodes = BTreeSet::new();
    while nodes.len() < 2 {
        nodes.insert(stream.until("snapshot").await["node"].to_string());
    }
    there.node.drain(tokio_util::sync::CancellationToken::new()).await;
    assert_eq!(stream.until("gone").await, json!({ "node": "there" }));
}

/// What fails beneath the node, not what a client does, is answered alike by every operation.
#[tokio::test]
async fn what_any_request_can_be_answered_is_met() {
    let met = Met::default();
    let node = AclNode::start(|_| ()).await;
    node.acls.panics.store(true, Ordering::Relaxed);
    let ask = |method, scope| met.ask(&node.http(), method, ACL, TEAM_ACL).token(&node.token(scope));
    let put = ask("PUT", "acl:write").body("application/json", r#"{"acl":{}}"#);
    for ask in [ask("GET", "acl:read"), put, ask("DELETE", "acl:write")] {
        assert_eq!(ask.answers(500).await["detail"], "the node failed at this request; its log says more");
    }
    met.ask(&node.http(), "GET", "/nothing", "").answers(404).await;
    met.ask(&node.http(), "POST", "/livez", "").answers(405).await;
    met.ask(&node.http(), "GET", "/v1/nodes", "?verbose").answers(400).await;
    met.ask(&node.http(), "POST", "/v1/tickets", "").header("content-encoding", "gzip").answers(415).await;

    let small = AclNode::start(|settings| settings.http.max_connections = 1).await;
    let _inside = RawClient::dial(&small.http()).await;
    // It does not wait for a request, of which a client of HTTP would make nothing.
    let full = RawClient::dial(&small.http()).await.answer().await;
    let everywhere = Place::root(Which::Openapi).member("x-everywhere");
    let documented = everywhere.member("503");
    documented.member("content").member("application/problem+json").member("schema").expect(&full.problem());
    assert_eq!((full.status, full.header("retry-after")), (503, Some("2")));

    let mut statuses = met.statuses();
    statuses.insert(full.status);
    assert_eq!(statuses, everywhere.names().iter().map(|status| status.parse().expect("a status")).collect());
}
