//! `/v1/mailboxes/{path}/acl`, held against openapi.yaml, and what is told of a change.

use mailpush::cluster::registry::RegistryError;
use mailpush::config::RightsKind;
use serde_json::{Value, json};

use super::rest::{ACL, Ask, Met, cluster};
use crate::support::acls::AclNode;

const TEAM: &str = "#private:alice@example.org:Team";
/// In another spelling.
const TEAM_ACL: &str = "/v1/mailboxes/%23private:Alice:Team/acl";

fn ask<'a>(met: &'a Met, node: &AclNode, method: &'static str, query: &str) -> Ask<'a> {
    met.ask(&node.http(), method, ACL, &format!("{TEAM_ACL}{query}")).token(&node.token("acl:read acl:write"))
}

fn changed(changed: Value) -> Value {
    json!({ "mailbox": TEAM, "changed": changed })
}

/// Each answer that is documented of these operations.
pub async fn every_answer(met: &Met) {
    tokio::join!(kept(met), failing(met), elsewhere(met));
}

async fn kept(met: &Met) {
    let node = AclNode::start(|settings| settings.http.body_limit_bytes = 4096).await;
    let get = || async { ask(met, &node, "GET", "").answers(200).await["acl"].take() };
    let put = |query: &str, body: Value| ask(met, &node, "PUT", query).body("application/json", body.to_string());
    assert_eq!(get().await, json!({}), "nobody knows whether there is such a mailbox");
    let whole = json!({ "acl": { "Bob": "srl", "$Staff": "rl", "-group:temps": "r", "anyone": "" } });
    let told = json!({ "bob@example.org": "lrs", "group:Staff": "lr", "-group:temps": "r" });
    assert_eq!(put("", whole).answers(200).await, changed(told.clone()));
    assert_eq!(get().await, told);
    assert_eq!(
        put("?identifier=bob", json!({ "rights": "+te" })).answers(200).await["changed"],
        json!({ "bob@example.org": "lrste" })
    );
    assert_eq!(
        put("?identifier=bob", json!({ "rights": "-s" })).answers(200).await["changed"],
        json!({ "bob@example.org": "lrte" })
    );
    assert_eq!(
        put("?identifier=bob", json!({ "rights": "lr" })).answers(200).await["changed"],
        json!({ "bob@example.org": "lr" })
    );
    assert_eq!(put("?identifier=-$temps", json!({ "rights": "" })).answers(200).await["changed"], json!({ "-group:temps": "" }));
    assert_eq!(
        put("?identifier=-user:anyone", json!({ "rights": "w" })).answers(200).await["changed"],
        json!({ "-anyone@example.org": "w" })
    );
    let delete = ask(met, &node, "DELETE", "?identifier=Bob").answers(200).await;
    assert_eq!(delete["changed"], json!({ "bob@example.org": "" }));
    let all = json!({ "group:Staff": "", "-anyone@example.org": "" });
    assert_eq!(ask(met, &node, "DELETE", "").answers(200).await, changed(all));
    assert_eq!((get().await, ask(met, &node, "DELETE", "").answers(200).await), (json!({}), changed(json!({}))));

    for (query, body, why) in [
        ("", json!({ "acl": { "bob": "lrq" } }), "'q' is not a right"),
        ("", json!({ "acl": { "bob": "+lr" } }), "'+' is not a right"),
        ("", json!({ "acl": { "a:b": "lr" } }), "a user's name, group:NAME"),
        ("", json!({ "acl": { "Anyone": "lr" } }), "user:NAME"),
        ("", json!({ "acl": { "bob": "l", "BOB@example.org": "r" } }), "\"bob@example.org\" is there twice"),
        ("", json!({ "acl": { "$staff": "l", "group:staff": "r" } }), "\"group:staff\" is there twice"),
        ("", json!({ "acl": [] }), "send the whole ACL"),
        ("", json!({ "rights": "lr" }), "send the whole ACL"),
        ("", json!({ "acl": {}, "rights": "lr" }), "send the whole ACL"),
        ("?identifier=bob", json!({ "acl": {} }), "send the rights"),
        ("?identifier=bob", json!({ "rights": "L" }), "rights: 'L' is not a right"),
        ("?identifier=--bob", json!({ "rights": "l" }), "identifier: "),
        ("?identifier=", json!({ "rights": "l" }), "identifier: "),
        ("?identifier=group:", json!({ "rights": "l" }), "identifier: a group's name"),
    ] {
        let detail = put(query, body.clone()).answers(400).await["detail"].take();
        assert!(detail.as_str().expect("words").contains(why), "{query} {body}: {detail}");
    }
    let twice = r#"{"acl":{"bob":"l","bob":"r"}}"#;
    ask(met, &node, "PUT", "").body("application/json", twice).answers(400).await;
    ask(met, &node, "PUT", "").answers(400).await;
    ask(met, &node, "DELETE", "?identifier=Owner").answers(400).await;
    ask(met, &node, "PUT", "").body("application/json", "x".repeat(5000)).answers(413).await;
    assert_eq!(get().await, json!({}), "what is refused changes nothing");
    for bad in ["nothing", "%23private", "%23private:a%00:x", "%FF", "%23private:alice:"] {
        for method in ["GET", "PUT", "DELETE"] {
            let ask = met.ask(&node.http(), method, ACL, &format!("/v1/mailboxes/{bad}/acl"));
            ask.token(&node.token("acl:read acl:write")).body("application/json", r#"{"acl":{}}"#).answers(400).await;
        }
    }
    let below = met.ask(&node.http(), "GET", ACL, "/v1/mailboxes/%23shared::Team%2FOld%3F/acl").token(&node.token("acl:read"));
    assert_eq!(below.answers(200).await["mailbox"], "#shared::Team/Old?");
}

async fn failing(met: &Met) {
    let node = AclNode::start(|_| ()).await;
    let everything = || async {
        let put = |query: &str, body: &str| ask(met, &node, "PUT", query).body("application/json", body.to_owned());
        [
            ask(met, &node, "GET", ""),
            put("", r#"{"acl":{"bob":"lr"}}"#),
            put("?identifier=bob", r#"{"rights":"+s"}"#),
            ask(met, &node, "DELETE", ""),
            ask(met, &node, "DELETE", "?identifier=bob"),
        ]
    };
    for (failure, status) in [
        (RegistryError::Unreachable("no connection".to_owned()), 503),
        (RegistryError::Refused("no rights".to_owned()), 502),
        (RegistryError::Closed, 503),
    ] {
        *node.acls.failure.lock().expect("nobody panics with it") = Some(failure);
        for ask in everything().await {
            let answer = ask.answers(status).await;
            assert!(answer["detail"].as_str().expect("words").starts_with("the registry "), "{answer}");
        }
    }
}

async fn elsewhere(met: &Met) {
    let dev = cluster(&[]).await;
    let node = AclNode::start(|settings| {
        settings.access.source = RightsKind::Registry;
        settings.access.by_namespace = ["#private=owners", "#mail = imap"].map(|entry| entry.parse().expect("a source")).into();
    })
    .await;
    let without = AclNode::start_with(false, |_| ()).await;
    let token = node.token("acl:read acl:write");
    for (base, path, status, why) in [
        (dev.http(0), "%23private:alice:Team", 409, "of #private are the mail server's: change them there"),
        (without.http(), "%23private:alice:Team", 409, "this cluster keeps no ACLs"),
        (node.http(), "%23private:alice:Team", 409, "of #private are their owners' alone"),
        (node.http(), "%23mail:alice:Team", 409, "the mail server's"),
        (node.http(), "%23shared::Team", 200, ""),
    ] {
        for method in ["GET", "PUT", "DELETE"] {
            let ask = met.ask(&base, method, ACL, &format!("/v1/mailboxes/{path}/acl")).token(&token);
            let answer = ask.body("application/json", r#"{"acl":{}}"#).answers(status).await;
            if status == 409 {
                assert_eq!(answer["code"], "acl_elsewhere");
                assert!(answer["detail"].as_str().expect("words").contains(why), "{answer}");
            }
        }
    }
}

#[tokio::test]
async fn every_changed_entry_is_told() {
    let met = Met::default();
    let mut node = AclNode::start(|_| ()).await;
    let put = |node: &AclNode, query: &str, body: &str| ask(&met, node, "PUT", query).body("application/json", body.to_owned());
    put(&node, "", r#"{"acl":{"bob":"lr","group:staff":"lr","-eve":"r"}}"#).answers(200).await;
    put(&node, "", r#"{"acl":{"bob":"lrs","group:staff":"lr"}}"#).answers(200).await;
    put(&node, "?identifier=anyone", r#"{"rights":"+l"}"#).answers(200).await;
    ask(&met, &node, "DELETE", "?identifier=bob").answers(200).await;
    let (bob, eve) = ("bob@example.org", "-eve@example.org");
    for (entry, rights) in [(bob, "lr"), (eve, "r"), ("group:staff", "lr"), (bob, "lrs"), (eve, ""), ("anyone", "l"), (bob, "")] {
        assert_eq!(node.next_told().await, (entry.to_owned(), rights.to_owned()));
    }
}

#[tokio::test]
async fn what_could_not_be_told_is_told_by_the_second_attempt() {
    let met = Met::default();
    let mut node = AclNode::start(|_| ()).await;
    let delete = |node: &AclNode| ask(&met, node, "DELETE", "");
    ask(&met, &node, "PUT", "").body("application/json", r#"{"acl":{"bob":"lr","anyone":"l"}}"#).answers(200).await;
    assert_eq!(node.next_told().await.0, "anyone");
    assert_eq!(node.next_told().await.0, "bob@example.org");
    node.break_publishing().await;
    let answer = delete(&node).answers(503).await;
    let detail = answer["detail"].as_str().expect("words");
    assert!(detail.starts_with("the ACL is changed, but not every node could be told") && detail.ends_with("again"), "{detail}");
    assert_eq!(ask(&met, &node, "GET", "").answers(200).await["acl"], json!({}));
    node.mend_publishing().await;
    assert_eq!(delete(&node).answers(200).await["changed"], json!({}));
    assert_eq!(node.next_told().await, ("anyone".to_owned(), String::new()), "about everybody, for nobody knows who it was");
}

#[tokio::test]
async fn without_its_scope_every_path_is_refused_alike() {
    let node = AclNode::start(|settings| settings.access.by_namespace = vec!["#mail=owners".parse().expect("a source")]).await;
    let client = reqwest::Client::new();
    let seed = client.put(format!("{}{TEAM_ACL}", node.http())).bearer_auth(node.token("acl:write"));
    assert_eq!(seed.body(r#"{"acl":{"bob":"lr"}}"#).send().await.expect("an answer").status(), 200);
    for (method, scopes, lacks) in [
        (reqwest::Method::GET, "push subscriptions:read sessions:write events:publish acl:write", "acl:read"),
        (reqwest::Method::PUT, "push subscriptions:read sessions:write events:publish acl:read", "acl:write"),
        (reqwest::Method::DELETE, "push subscriptions:read sessions:write events:publish acl:read", "acl:write"),
    ] {
        let mut answers = Vec::new();
        for path in ["%23private:alice:Team", "%23private:alice:Nothing", "%23mail:alice:Team", "nonsense", "%FF"] {
            let url = format!("{}/v1/mailboxes/{path}/acl", node.http());
            let request = client.request(method.clone(), url).bearer_auth(node.token(scopes)).body(r#"{"acl":{}}"#);
            let response = request.send().await.expect("an answer");
            assert_eq!(response.status(), 403, "{method} {path}");
            answers.push(response.text().await.expect("a body"));
        }
        assert!(answers[0].contains(&format!("the token lacks the scope {lacks}")), "{}", answers[0]);
        assert!(answers.iter().all(|answer| *answer == answers[0]), "{method}: {answers:?}");
    }
}
