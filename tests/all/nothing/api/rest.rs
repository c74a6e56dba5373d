//! Real answers of every operation, success and each error, held against openapi.yaml.

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::time::Duration;

use futures::future::join_all;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use super::documents::{Place, Which, operation, operations};
use crate::support::dev::{DevCluster, SECRET, claims, sign};
use crate::support::wait::eventually;
use crate::support::ws::WsClient;

pub const ALICE: &str = "alice@example.org";
pub const INBOX: &str = "#private:alice@example.org:INBOX";
pub const ACL: &str = "/v1/mailboxes/{path}/acl";
/// What no operation gets as far as to look for.
const NOTHINGS_ACL: &str = "/v1/mailboxes/nothing/acl";

/// Two nodes that accept tokens of the tests.
pub async fn cluster(settings: &[&str]) -> DevCluster {
    let secret = format!("auth.secret={SECRET}");
    DevCluster::start_with(2, &[&[secret.as_str()], settings].concat()).await
}

/// What was met: operation and status.
#[derive(Default)]
pub struct Met(Mutex<BTreeSet<(String, u16)>>);

/// One request, built up; its answer is held against the document.
pub struct Ask<'a> {
    met: &'a Met,
    method: &'static str,
    /// As in the document.
    path: &'static str,
    request: reqwest::RequestBuilder,
}

impl Met {
    /// `tail` is what follows the document's path, or the whole path and more where it has variables.
    pub fn ask<'a>(&'a self, base: &str, method: &'static str, path: &'static str, tail: &str) -> Ask<'a> {
        let url = if path.contains('{') { format!("{base}{tail}") } else { format!("{base}{path}{tail}") };
        let method_name = Method::from_bytes(method.as_bytes()).expect("a method");
        Ask { met: self, method, path, request: reqwest::Client::new().request(method_name, url) }
    }

    /// The statuses that were met.
    pub fn statuses(&self) -> BTreeSet<u16> {
        self.0.lock().expect("nobody panics with it").iter().map(|(_, status)| *status).collect()
    }

    fn note(&self, method: &str, path: &str, status: u16) {
        self.0.lock().expect("nobody panics with it").insert((format!("{method} {path}"), status));
    }
}

impl Ask<'_> {
    pub fn token(mut self, token: &str) -> Self {
        self.request = self.request.bearer_auth(token);
        self
    }

    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.request = self.request.header(name, value);
        self
    }

    pub fn body(mut self, kind: &str, body: impl Into<reqwest::Body>) -> Self {
        self.request = self.request.header("content-type", kind).body(body);
        self
    }

    /// The headers of an opening handshake, but for the version.
    fn upgrade(self) -> Self {
        let ask = self.header("connection", "upgrade").header("upgrade", "websocket");
        ask.header("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==")
    }

    /// Sends it, and holds the answer against the document; returns its JSON, or its text.
    pub async fn answers(self, status: u16) -> Value {
        let (met, method, path) = (self.met, self.method, self.path);
        let response = self.request.send().await.expect("an answer");
        let found = response.status().as_u16();
        let what = format!("{method} {path} -> {found}");
        assert_eq!(response.headers()["x-content-type-options"], "nosniff", "{what}");
        let documented = documented(method, path, found).unwrap_or_else(|| panic!("{what} is not documented"));
        check_headers(&what, &documented, response.headers());
        let answer = check_content(&what, &documented, response).await;
        assert_eq!(found, status, "{what}: {answer}");
        met.note(method, path, found);
        answer
    }
}

/// The place of a response in the document.
fn documented(method: &str, path: &str, status: u16) -> Option<Place> {
    let name = status.to_string();
    let everywhere = Place::root(Which::Openapi).member("x-everywhere");
    let own = operations().contains(&(method.to_owned(), path.to_owned())).then(|| operation(method, path).member("responses"));
    own.and_then(|responses| responses.at(&name)).or_else(|| everywhere.at(&name))
}

fn check_headers(what: &str, documented: &Place, headers: &reqwest::header::HeaderMap) {
    let Some(place) = documented.at("headers") else { return };
    for name in place.names() {
        let header = place.member(name);
        let Some(value) = headers.get(name).map(|value| value.to_str().expect("a text")) else {
            let required = header.at("required").is_some_and(|required| *required.value() == true);
            assert!(!required, "{what} lacks the header {name}");
            continue;
        };
        // A header is text; where the document says number, it is one in digits.
        let schema = header.member("schema");
        let is_number = schema.at("type").is_some_and(|kind| *kind.value() == "integer");
        let value = if is_number { value.parse::<u64>().expect("a number").into() } else { Value::from(value) };
        schema.expect(&value);
    }
}

async fn check_content(what: &str, documented: &Place, response: reqwest::Response) -> Value {
    let status = response.status();
    let kind = response.headers().get("content-type").map(|kind| kind.to_str().expect("a text").to_owned());
    let Some(content) = documented.at("content") else {
        assert_eq!(kind, None, "{what}: content that is not documented");
        return Value::Null;
    };
    let kind = kind.unwrap_or_else(|| panic!("{what} has no content type"));
    let essence = kind.split(';').next().unwrap_or_default();
    let media = content.at(essence).unwrap_or_else(|| panic!("{what}: {kind} is not documented"));
    if essence == "text/event-stream" {
        // It has no end; what is in it is held against asyncapi.yaml.
        return Value::Null;
    }
    let text = response.text().await.expect("UTF-8");
    let body = match essence {
        json if json.ends_with("json") => serde_json::from_str(&text).expect("JSON"),
        "application/yaml" => serde_yaml_ng::from_str(&text).expect("YAML"),
        _ => Value::from(text),
    };
    media.member("schema").expect(&body);
    if status.is_client_error() || (status.is_server_error() && essence.contains("problem")) {
        assert_eq!(essence, "application/problem+json", "{what}");
        assert_eq!(body["status"], status.as_u16(), "{what}");
        assert_eq!(body["title"], status.canonical_reason().expect("a known status"), "{what}");
    }
    body
}

fn admin() -> String {
    let mut claims = claims(600.0);
    claims["sub"] = json!("admin@example.org");
    claims["scope"] = json!("push subscriptions:read sessions:write events:publish acl:read acl:write");
    sign(&claims)
}

/// Alice's, with nothing but these scopes.
fn alice(scopes: &str) -> String {
    let mut claims = claims(600.0);
    claims["scope"] = json!(scopes);
    sign(&claims)
}

/// Every operation with a token; each path with its variables filled in.
fn with_token() -> Vec<(&'static str, &'static str, &'static str)> {
    vec![
        ("GET", "/v1/ws", ""),
        ("GET", "/v1/stream", "?account=alice@example.org"),
        ("POST", "/v1/stream", "?account=alice@example.org"),
        ("POST", "/v1/tickets", ""),
        ("POST", "/v1/events", ""),
        ("GET", "/v1/subscriptions", ""),
        ("GET", "/v1/subscriptions/stream", ""),
        ("GET", "/v1/sessions", ""),
        ("DELETE", "/v1/sessions/{id}", "/v1/sessions/dev-1.0000000000000000"),
        ("DELETE", "/v1/users/{user}/sessions", "/v1/users/nobody/sessions"),
        ("GET", ACL, NOTHINGS_ACL),
        ("PUT", ACL, NOTHINGS_ACL),
        ("DELETE", ACL, NOTHINGS_ACL),
        ("GET", "/v1/nodes", ""),
        ("GET", "/v1/local/subscriptions", ""),
        ("GET", "/v1/local/subscriptions/stream", ""),
        ("GET", "/v1/local/sessions", ""),
        ("DELETE", "/v1/local/sessions/{id}", "/v1/local/sessions/dev-1.0000000000000000"),
        ("DELETE", "/v1/local/users/{user}/sessions", "/v1/local/users/nobody/sessions"),
        ("GET", "/v1/local/node", ""),
    ]
}

#[tokio::test]
async fn every_answer_is_as_documented() {
    let met = Met::default();
    tokio::join!(healthy(&met), cramped(&met), split(&met), without_keys(&met), super::acl::every_answer(&met));
    drained(&met).await;
    let responses = |(method, path): &(String, String)| {
        let statuses = operation(method, path).member("responses").names();
        let what = format!("{method} {path}");
        statuses.into_iter().map(move |status| (what.clone(), status.parse::<u16>().expect("a status"))).collect::<Vec<_>>()
    };
    let mut unmet: BTreeSet<_> = operations().iter().flat_map(responses).collect();
    unmet.retain(|response| !met.0.lock().expect("nobody panics with it").contains(response));
    assert_eq!(unmet, BTreeSet::new(), "documented, and never met");
}

/// Two nodes that lack nothing.
async fn healthy(met: &Met) {
    let cluster = cluster(&[]).await;
    let (here, there) = (cluster.http(0), cluster.http(1));
    anywhere(met, &here).await;
    pages(met, &here).await;
    tokens(met, &here).await;
    tickets(met, &here, &there).await;
    publishing(met, &here).await;
    listings(met, &cluster).await;
    ending(met, &cluster).await;
}

async fn anywhere(met: &Met, base: &str) {
    for (method, path) in mailpush::edge::http::routes() {
        let filled = path.replace("{id}", "x").replace("{user}", "x").replace("{number}", "x").replace("{path}", "x");
        let ask = Ask { request: reqwest::Client::new().patch(format!("{base}{filled}")), ..met.ask(base, "PATCH", path, "") };
        ask.answers(405).await;
        let allowed = reqwest::Client::new().patch(format!("{base}{filled}")).send().await.expect("an answer");
        let allowed = allowed.headers()["allow"].to_str().expect("a text").to_owned();
        assert!(allowed.split(',').any(|allowed| allowed == method), "{path} takes {allowed}, not {method}");
    }
    met.ask(base, "GET", "/nothing", "").answers(404).await;
    for path in ["/livez", "/readyz", "/metrics"] {
        met.ask(base, "GET", path, "").answers(200).await;
    }
}

/// Nothing from elsewhere and nothing inline, on every page.
async fn pages(met: &Met, base: &str) {
    let files = mailpush::edge::http::routes()
        .map(|(_, path)| path)
        .filter(|path| matches!(*path, "/" | "/reference") || path.contains('.'));
    for path in files {
        met.ask(base, "GET", path, "").answers(200).await;
        let response = reqwest::get(format!("{base}{path}")).await.expect("a page");
        let policy = response.headers()["content-security-policy"].to_str().expect("a text").to_owned();
        assert!(policy.starts_with("default-src 'none'; script-src 'self'; style-src 'self'"), "{path}: {policy}");
        assert!(!policy.contains("unsafe") && policy.contains("frame-ancestors 'none'"), "{path}: {policy}");
    }
    let page = concat!(include_str!("../../../../static/index.html"), include_str!("../../../../static/reference.html"));
    for tag in page.split('<').skip(1) {
        let tag = tag.split('>').next().unwrap_or_default();
        assert!(!tag.starts_with("style") && !tag.contains("style="), "a style within the page: <{tag}>");
        assert!(!tag.starts_with("script") || tag.contains(" src=\"/"), "a script within the page: <{tag}>");
        let handler = tag.split_ascii_whitespace().any(|word| word.starts_with("on") && word.contains('='));
        assert!(!handler && !tag.contains("javascript:"), "a script within the page: <{tag}>");
    }
}

/// 401 and 403 of everything that wants a token.
async fn tokens(met: &Met, base: &str) {
    let mut expired = claims(-3600.0);
    expired["scope"] = json!("push");
    let expired = sign(&expired);
    for (method, path, tail) in with_token() {
        let ask = || {
            let ask = met.ask(base, method, path, tail);
            if path == "/v1/ws" { ask.upgrade().header("sec-websocket-version", "13") } else { ask }
        };
        let answer = ask().header("authorization", "Basic YWxpY2U6YWxpY2U=").answers(401).await;
        assert_eq!(answer["code"], "no_token");
        assert_eq!(ask().token(&expired).answers(401).await["code"], "token_expired");
    }
    let nothing = alice("openid");
    for (method, path, tail) in [
        ("GET", "/v1/stream", "?account=alice@example.org"),
        ("POST", "/v1/stream", "?account=alice@example.org"),
        ("POST", "/v1/tickets", ""),
        ("POST", "/v1/events", ""),
        ("GET", "/v1/subscriptions", "?user=bob"),
        ("GET", "/v1/subscriptions/stream", "?user=bob"),
        ("GET", "/v1/sessions", "?user=bob"),
        ("DELETE", "/v1/users/{user}/sessions", "/v1/users/bob/sessions"),
        ("GET", ACL, NOTHINGS_ACL),
        ("PUT", ACL, NOTHINGS_ACL),
        ("DELETE", ACL, NOTHINGS_ACL),
        ("GET", "/v1/nodes", ""),
        ("GET", "/v1/local/subscriptions", "?user=bob"),
        ("GET", "/v1/local/subscriptions/stream", "?user=bob"),
        ("GET", "/v1/local/sessions", "?user=bob"),
        ("DELETE", "/v1/local/users/{user}/sessions", "/v1/local/users/bob/sessions"),
        ("GET", "/v1/local/node", ""),
    ] {
        met.ask(base, method, path, tail).token(&nothing).answers(403).await;
    }
    let socket = || met.ask(base, "GET", "/v1/ws", "").upgrade();
    socket().answers(426).await;
    met.ask(base, "GET", "/v1/ws", "").answers(426).await;
    let socket = || socket().header("sec-websocket-version", "13");
    socket().token(&nothing).answers(403).await;
    socket().header("origin", "https://evil.example").answers(403).await;
    socket().header("sec-websocket-protocol", "chat").answers(400).await;
}

async fn tickets(met: &Met, here: &str, there: &str) {
    let issue = || async {
        let answer = met.ask(here, "POST", "/v1/tickets", "").token(&alice("push")).answers(201).await;
        answer["ticket"].as_str().expect("a ticket").to_owned()
    };
    let stream = |ticket: &str| met.ask(there, "GET", "/v1/stream", &format!("?account={ALICE}&ticket={ticket}"));
    let ticket = issue().await;
    stream(&ticket).answers(200).await;
    assert_eq!(stream(&ticket).answers(401).await["code"], "ticket_invalid");
    let ticket = issue().await;
    stream(&format!("{ticket}&types=x")).answers(400).await;
    let form = format!("account={ALICE}&ticket={ticket}");
    let ask = met.ask(there, "POST", "/v1/stream", "").body("application/x-www-form-urlencoded", form);
    // What was refused for another reason has not used it up.
    ask.answers(200).await;
    let ticket = issue().await;
    let number = ticket.split_once('.').expect("a number").1;
    let redeem = |number: &str| met.ask(here, "POST", "/v1/local/tickets/{number}", &format!("/v1/local/tickets/{number}"));
    assert_eq!(redeem(number).answers(200).await["user"], ALICE);
    redeem(number).answers(401).await;
    redeem("%FF").answers(400).await;
    let bobs = || {
        let mut claims = claims(600.0);
        claims["sub"] = json!("bob@example.org");
        sign(&claims)
    };
    for _ in 0..100 {
        met.ask(here, "POST", "/v1/tickets", "").token(&bobs()).answers(201).await;
    }
    met.ask(here, "POST", "/v1/tickets", "").token(&bobs()).answers(429).await;
    issue().await;
}

async fn publishing(met: &Met, base: &str) {
    let admin = admin();
    let publish = |kind: &str, body: Vec<u8>| met.ask(base, "POST", "/v1/events", "").token(&admin).body(kind, body);
    let event = json!({"type": "MailboxChange", "mailbox": INBOX});
    let text = event.to_string();
    publish("application/json", text.clone().into()).answers(200).await;
    publish("application/json; charset=utf-8", format!("[{text},{text}]").into()).answers(200).await;
    publish("application/x-ndjson", format!("{text}\n\n{text}\n").into()).answers(200).await;
    for kind in ["application/msgpack", "application/vnd.msgpack", "application/x-msgpack"] {
        let packed = rmp_serde::to_vec_named(&event).expect("MessagePack");
        publish(kind, packed).answers(200).await;
    }
    publish("application/json", b"[".to_vec()).answers(400).await;
    publish("application/json", b"[]".to_vec()).answers(400).await;
    publish("application/x-ndjson", b"\n".to_vec()).answers(400).await;
    publish("application/msgpack", vec![0x82]).answers(400).await;
    publish("text/plain", b"hello".to_vec()).answers(415).await;
    met.ask(base, "POST", "/v1/events", "").token(&admin).answers(415).await;
    let many = Value::Array(vec![event.clone(); 1_001]);
    publish("application/json", many.to_string().into()).answers(413).await;
    let answer = publish("application/json", json!([event, {"type": "MailboxTeleport", "mailbox": INBOX}]).to_string().into());
    let answer = answer.answers(422).await;
    assert!(answer["results"][0]["id"].is_string() && answer["results"][1]["error"].is_string(), "{answer}");
    let no_events = ["{}", "5", "\"\\ud800\"", "{\"type\":\"MailboxChange\",\"mailbox\":\"\u{0}\"}"];
    let is_raw = |text: &str| text.contains('\u{0}');
    for text in no_events {
        // A control character within a string is no JSON at all.
        publish("application/json", text.into()).answers(if is_raw(text) { 400 } else { 422 }).await;
    }
    for body in [&b"nonsense"[..], b"{", b"{} {}", b"\xff\xfe"] {
        publish("application/json", body.into()).answers(400).await;
    }
    for kind in ["application/json", "application/x-ndjson", "application/msgpack"] {
        let answer = publish(kind, Vec::new()).answers(400).await;
        assert_eq!(answer["detail"], "there is no event in the body", "{kind}");
    }
    publish("application/x-ndjson", b"{\n{".to_vec()).answers(400).await;
    let answer = publish("application/x-ndjson", format!("{{\n{text}").into()).answers(422).await;
    assert!(answer["results"][0]["error"].is_string() && answer["results"][1]["id"].is_string(), "{answer}");
    publish("application/msgpack", vec![0x05]).answers(422).await;
    // An array of three that holds one, and one that holds two.
    publish("application/msgpack", vec![0x93, 0x80]).answers(400).await;
    publish("application/msgpack", vec![0x91, 0x80, 0x80]).answers(400).await;
}

/// The listings and their filters, with something in them.
async fn listings(met: &Met, cluster: &DevCluster) {
    let mut clients = Vec::new();
    for node in [0, 1] {
        let mut client = WsClient::connect(&cluster.ws(node), &cluster.token(0)).await;
        client.subscribe(INBOX).await;
        client.command("subscribe", json!({ "account": ALICE })).await;
        clients.push(client);
    }
    met.note("GET", "/v1/ws", StatusCode::SWITCHING_PROTOCOLS.as_u16());
    let (base, admin) = (cluster.http(0), admin());
    let mailbox = "%23private:alice@example.org:INBOX";
    let get = |path: &'static str, tail: &str| met.ask(&base, "GET", path, tail).token(&admin);

    let first = get("/v1/subscriptions", &format!("?user={ALICE}&limit=3")).answers(200).await;
    assert_eq!(first["subscriptions"].as_array().map(Vec::len), Some(3), "{first}");
    let next = first["next"].as_str().expect("a next page");
    let last = get("/v1/subscriptions", &format!("?user={ALICE}&limit=3&after={next}")).answers(200).await;
    assert_eq!((last["subscriptions"].as_array().map(Vec::len), &last["next"]), (Some(1), &Value::Null));
    let since = last["stream"].as_str().expect("a cursor");
    get("/v1/subscriptions/stream", &format!("?since={since}")).answers(200).await;
    get("/v1/local/subscriptions/stream", &format!("?since={since}")).answers(200).await;
    let mine =
        met.ask(&base, "GET", "/v1/subscriptions", &format!("?mailbox={mailbox}")).token(&alice("push")).answers(200).await;
    assert_eq!(mine["subscriptions"].as_array().map(Vec::len), Some(2), "{mine}");
    let listed = get("/v1/sessions", "?transport=websocket&node=dev-2").answers(200).await;
    assert_eq!(listed["sessions"][0]["subscriptions"], 2, "{listed}");
    assert_eq!(get("/v1/nodes", "").answers(200).await["nodes"].as_array().map(Vec::len), Some(2));
    for path in ["/v1/local/subscriptions", "/v1/local/sessions", "/v1/local/node"] {
        get(path, "").answers(200).await;
    }
    for path in ["/v1/subscriptions", "/v1/subscriptions/stream", "/v1/sessions"] {
        for tail in ["?user=a:b", "?user=%FF%00", "?node=a.b", "?transport=pigeon"] {
            get(path, tail).answers(400).await;
        }
    }
    let first = get("/v1/sessions", &format!("?user={ALICE}&limit=1")).answers(200).await;
    let next = first["next"].as_str().expect("a next page");
    let last = get("/v1/sessions", &format!("?user={ALICE}&limit=1&after={next}")).answers(200).await;
    assert_eq!((&first["sessions"][0]["node"], &last["sessions"][0]["node"]), (&json!("dev-1"), &json!("dev-2")));
    assert_eq!((last["sessions"].as_array().map(Vec::len), &last["next"]), (Some(1), &Value::Null));
    let of = async |tail: &str| {
        let listed = get("/v1/sessions", tail).answers(200).await;
        let nodes = listed["sessions"].as_array().expect("a list").iter().map(|s| s["node"].as_str().expect("a node").to_owned());
        nodes.collect::<Vec<_>>()
    };
    assert_eq!(of(&format!("?user={ALICE}&node=dev-1&node=dev-2&transport=sse&transport=websocket")).await, ["dev-1", "dev-2"]);
    assert_eq!(of(&format!("?user=nobody&user={ALICE}&node=dev-2")).await, ["dev-2"]);
    let both = get("/v1/subscriptions", &format!("?user={ALICE}&mailbox={mailbox}&mailbox=%23private:bob:INBOX")).answers(200);
    assert_eq!(both.await["subscriptions"].as_array().map(Vec::len), Some(2));
    for tail in ["?limit=1&limit=2", "?after=&after=", "?users=bob", "?type=x"] {
        get("/v1/sessions", tail).answers(400).await;
        get("/v1/subscriptions", tail).answers(400).await;
    }
    for tail in ["?limit=0", "?limit=1001", "?limit=x", "?after=x"] {
        get("/v1/sessions", tail).answers(400).await;
        get("/v1/local/sessions", tail).answers(400).await;
    }
    for tail in ["?limit=0", "?limit=1001", "?limit=x", "?after=x", "?mailbox=INBOX", "?mailbox=%23a:b:c&account=b"] {
        get("/v1/subscriptions", tail).answers(400).await;
        get("/v1/local/subscriptions", tail).answers(400).await;
    }
    get("/v1/subscriptions/stream", "?since=x").answers(400).await;
    get("/v1/local/subscriptions/stream", "?since=12").answers(400).await;
    get("/v1/local/sessions", "?transport=").answers(400).await;

    // Each user has room for so many; those of others are not taken by them.
    for (path, room) in [("/v1/subscriptions/stream", 4), ("/v1/local/subscriptions/stream", 64)] {
        let open = || reqwest::Client::new().get(format!("{base}{path}")).bearer_auth(cluster.token(2)).send();
        let held = join_all((0..room).map(|_| open())).await;
        assert!(held.iter().all(|answer| answer.as_ref().is_ok_and(|answer| answer.status() == 200)), "{held:?}");
        met.ask(&base, "GET", path, "").token(&cluster.token(2)).answers(429).await;
        met.ask(&base, "GET", path, "").token(&cluster.token(0)).answers(200).await;
        drop(held);
        let room_again = || async { (open().await.expect("an answer").status() == 200).then_some(()) };
        eventually("room again", Duration::from_secs(5), room_again).await;
    }

    let stream = |tail: &str| met.ask(&base, "GET", "/v1/stream", tail).token(&cluster.token(0));
    stream(&format!("?mailbox={mailbox}&types=MessageNew,FlagsSet&fields=from")).answers(200).await;
    for tail in ["", "?mailbox=INBOX", "?account=alice&types=x", "?account=alice&fields=body", "?account=%00"] {
        stream(tail).answers(400).await;
    }
    stream("?mailbox=%23private:bob@example.org:INBOX").answers(404).await;
    const FORM: &str = "application/x-www-form-urlencoded";
    let form = |body: &str| {
        let ask = met.ask(&base, "POST", "/v1/stream", "").token(&cluster.token(0));
        ask.body(FORM, body.to_owned())
    };
    form(&format!("mailbox={mailbox}&types=MessageNew&types=FlagsSet&fields=from")).answers(200).await;
    for body in ["", "mailbox=INBOX", "account=alice&types=x", "account=alice&type=MessageNew", "account=alice&shared=1"] {
        form(body).answers(400).await;
    }
    form("mailbox=%23private:bob@example.org:INBOX").answers(404).await;
    let ask = met.ask(&base, "POST", "/v1/stream", "").token(&cluster.token(0));
    ask.body("application/json", r#"{"account":["alice"]}"#).answers(415).await;
}

async fn ending(met: &Met, cluster: &DevCluster) {
    let base = cluster.http(0);
    let mut clients = Vec::new();
    for node in [0, 1, 1, 0] {
        let mut client = WsClient::open(&cluster.ws(node)).await;
        let reply = client.command("connect", json!({ "token": cluster.token(1) })).await;
        let id = reply["connect"]["session"].as_str().expect("a session").to_owned();
        clients.push((id, client));
    }
    let end = |id: &str, token: &str| met.ask(&base, "DELETE", "/v1/sessions/{id}", &format!("/v1/sessions/{id}")).token(token);
    let bob = cluster.token(1);
    for (id, client) in clients.iter_mut().take(2) {
        end(id, &cluster.token(0)).answers(404).await;
        end(id, &bob).answers(200).await;
        assert_eq!(client.push("disconnect").await["code"], 4505);
        eventually("the session is gone", Duration::from_secs(5), || async {
            let sessions = met.ask(&base, "GET", "/v1/sessions", "").token(&bob).answers(200).await;
            (!sessions.to_string().contains(&*id)).then_some(())
        })
        .await;
        end(id, &bob).answers(404).await;
    }
    let here = |id: &str| met.ask(&base, "DELETE", "/v1/local/sessions/{id}", &format!("/v1/local/sessions/{id}")).token(&bob);
    here(&clients[2].0).answers(404).await;
    here("%FF").answers(400).await;
    assert_eq!(here(&clients[3].0).answers(200).await, json!({"node": "dev-1", "ended": 1}));
    assert_eq!(clients[3].1.push("disconnect").await["code"], 4505);
    let mut another = WsClient::connect(&cluster.ws(0), &bob).await;
    end("nonsense", &bob).answers(404).await;
    end("nowhere.0000000000000000", &bob).answers(404).await;
    end("%FF", &bob).answers(400).await;
    let all = |path: &'static str, tail: &str| met.ask(&base, "DELETE", path, tail).token(&bob);
    let answer = all("/v1/local/users/{user}/sessions", "/v1/local/users/BOB%40example.org/sessions").answers(200).await;
    assert_eq!((&answer["node"], &answer["ended"]), (&json!("dev-1"), &json!(1)));
    assert_eq!(another.push("disconnect").await["code"], 4505);
    all("/v1/users/{user}/sessions", "/v1/users/bob@example.org/sessions").answers(200).await;
    assert_eq!(clients[2].1.push("disconnect").await["code"], 4505);
    for bad in ["a%3Ab", "%FF", "%0A"] {
        all("/v1/users/{user}/sessions", &format!("/v1/users/{bad}/sessions")).answers(400).await;
        all("/v1/local/users/{user}/sessions", &format!("/v1/local/users/{bad}/sessions")).answers(400).await;
    }
}

/// A cluster with little room.
async fn cramped(met: &Met) {
    let settings = ["sessions.sessions_per_user=1", "queue.max_in_flight=1", "http.body_limit_bytes=1024"];
    let cluster = cluster(&settings).await;
    let base = cluster.http(0);
    let mut held = WsClient::connect(&cluster.ws(0), &cluster.token(0)).await;
    for method in ["GET", "POST"] {
        let ask = met.ask(&base, method, "/v1/stream", &format!("?account={ALICE}")).token(&cluster.token(0));
        assert_eq!(ask.answers(429).await["code"], "too_many_sessions");
    }
    let ask = met.ask(&base, "POST", "/v1/stream", "").token(&cluster.token(0));
    ask.body("application/x-www-form-urlencoded", "x".repeat(1025)).answers(413).await;
    assert_eq!(held.command("ping", json!({})).await["ping"], json!({}));
    let admin = admin();
    let publish = |body: String| met.ask(&base, "POST", "/v1/events", "").token(&admin).body("application/json", body);
    let event = json!({"type": "MailboxChange", "mailbox": INBOX});
    let answer = publish(json!([event, event]).to_string()).answers(200).await;
    assert_eq!(answer["results"].as_array().map(Vec::len), Some(2), "more than has room at once goes in steps: {answer}");
    publish("x".repeat(1025)).answers(413).await;
}

/// Nodes that cannot reach each other.
async fn split(met: &Met) {
    // Port 9 discards, where anything listens at all.
    let cluster = cluster(&["http.advertise=http://127.0.0.1:9", "http.peer_timeout_ms=1000"]).await;
    let (base, admin) = (cluster.http(0), admin());
    for (method, path, tail) in [
        ("GET", "/v1/subscriptions", ""),
        ("GET", "/v1/sessions", ""),
        ("GET", "/v1/nodes", ""),
        ("DELETE", "/v1/users/{user}/sessions", "/v1/users/alice/sessions"),
    ] {
        let answer = met.ask(&base, method, path, tail).token(&admin).answers(200).await;
        assert_eq!(answer["partial"][0]["node"], "dev-2", "{answer}");
    }
    let tail = "/v1/sessions/dev-2.0000000000000000";
    met.ask(&base, "DELETE", "/v1/sessions/{id}", tail).token(&admin).answers(502).await;
    met.ask(&base, "GET", "/v1/stream", "?account=alice&ticket=dev-2.x").answers(503).await;
    met.ask(&base, "GET", "/v1/stream", "?account=alice&ticket=nowhere.x").answers(401).await;
}

/// A node that could not fetch its keys: no token is good or bad there.
async fn without_keys(met: &Met) {
    use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der};
    let pair = aws_lc_rs::signature::Ed25519KeyPair::generate().expect("a key pair");
    let der: Pkcs8V1Der = pair.as_der().expect("PKCS #8");
    let pem = format!("-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n", data_encoding::BASE64.encode(der.as_ref()));
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), pem).expect("write the key");
    let private = format!("auth.private_key_file={}", file.path().display());
    let cluster = DevCluster::start_with(1, &["auth.jwks_url=http://127.0.0.1:9/", &private]).await;
    let (base, token) = (cluster.http(0), cluster.admin_token());
    let asks = with_token().into_iter().map(|(method, path, tail)| {
        let ask = met.ask(&base, method, path, tail).token(&token);
        let ask = if path == "/v1/ws" { ask.upgrade().header("sec-websocket-version", "13") } else { ask };
        async move { assert_eq!(ask.answers(503).await["code"], "token_keys_unavailable", "{method} {path}") }
    });
    join_all(asks).await;
}

/// A node that goes down, slowly.
async fn drained(met: &Met) {
    let cluster = DevCluster::with_secret(&["node.drain_rate=1"]).await;
    let mut clients = Vec::new();
    for _ in 0..10 {
        clients.push(WsClient::connect(&cluster.ws(0), &cluster.token(0)).await);
    }
    let base = cluster.http(0);
    cluster.terminate();
    eventually("the node drains", Duration::from_secs(5), || async {
        let response = reqwest::get(format!("{base}/readyz")).await.expect("an answer");
        (response.status() == 503).then_some(())
    })
    .await;
    assert_eq!(met.ask(&base, "GET", "/readyz", "").answers(503).await["draining"], true);
    met.ask(&base, "GET", "/livez", "").answers(200).await;
    met.ask(&base, "GET", "/v1/stream", &format!("?account={ALICE}")).token(&cluster.token(0)).answers(503).await;
    met.ask(&base, "GET", "/v1/ws", "").upgrade().header("sec-websocket-version", "13").answers(503).await;
}
