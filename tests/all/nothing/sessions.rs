//! The life of a WebSocket session: who gets in, what it may do, and how it ends.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::dev::{DevCluster, claims, sign, sign_with, unix_seconds};
use crate::support::raw_ws::{FIN, PING, PONG, RawClient, Said, TEXT, frame, text};
use crate::support::sse::SseClient;
use crate::support::ws::WsClient;

const INBOX: &str = "#private:alice@example.org:INBOX";

/// What a refused command was refused with.
fn error(reply: &Value) -> (u64, &str) {
    let code = reply["error"]["code"].as_u64().unwrap_or_else(|| panic!("no error: {reply}"));
    (code, reply["error"]["name"].as_str().expect("a name"))
}

#[tokio::test]
async fn before_connect_there_is_nothing() {
    let cluster = DevCluster::start(1).await;
    let mut client = WsClient::open(&cluster.ws(0)).await;
    for (command, body) in [("subscribe", json!({ "mailbox": INBOX })), ("unsubscribe", json!({ "mailbox": INBOX }))] {
        assert_eq!(error(&client.command(command, body).await), (401, "not_connected"));
    }
    let reply = client.command("refresh", json!({ "token": cluster.token(0) })).await;
    assert_eq!(error(&reply), (401, "not_connected"), "refresh is no connect");
    cluster.sessions(0).await;
    cluster.publish(0, json!({ "type": "MailboxChange", "mailbox": INBOX })).await;
    client.expect_quiet().await;

    let reply = client.command("connect", json!({ "token": cluster.token(0) })).await;
    assert_eq!(reply["connect"]["user"], "alice@example.org", "{reply}");
    let again = client.command("connect", json!({ "token": cluster.token(0) })).await;
    assert_eq!(error(&again), (409, "already_connected"));
    cluster.sessions(1).await;
}

#[tokio::test]
async fn who_does_not_connect_in_time_is_sent_away() {
    let cluster = DevCluster::start_with(1, &["sessions.connect_deadline_ms=300"]).await;
    let mut silent = WsClient::open(&cluster.ws(0)).await;
    let told = silent.goodbye().await;
    assert_eq!((&told["code"], &told["reconnect"]), (&json!(4400), &json!(true)));
}

#[tokio::test]
async fn a_token_that_is_no_good_ends_the_session_with_its_reason() {
    let cluster = DevCluster::with_secret(&["auth.issuer=https://idp.example.org"]).await;
    let with = |change: Value| {
        let mut claims = claims(600.0);
        claims["iss"] = json!("https://idp.example.org");
        for (name, value) in change.as_object().expect("claims") {
            claims[name] = value.clone();
        }
        claims.as_object_mut().expect("claims").retain(|_, value| !value.is_null());
        claims
    };
    let good = sign(&with(json!({})));
    let unsigned = data_encoding::BASE64URL_NOPAD.encode(br#"{"alg":"none","typ":"JWT"}"#);
    let payload = good.split('.').nth(1).expect("a payload");
    let tampered =
        good.replace(payload, &data_encoding::BASE64URL_NOPAD.encode(with(json!({"sub": "bob"})).to_string().as_bytes()));
    let cases = [
        (4401, "token_expired", sign(&with(json!({ "exp": unix_seconds() - 60.0 })))),
        (4401, "token_not_yet_valid", sign(&with(json!({ "nbf": unix_seconds() + 60.0 })))),
        (4500, "token_wrong_audience", sign(&with(json!({ "aud": "another service" })))),
        (4500, "token_claim_missing", sign(&with(json!({ "aud": null })))),
        (4500, "token_wrong_issuer", sign(&with(json!({ "iss": "https://evil.example" })))),
        (4500, "token_claim_missing", sign(&with(json!({ "exp": null })))),
        (4500, "token_claim_invalid", sign(&with(json!({ "exp": "tomorrow" })))),
        (4500, "token_claim_missing", sign(&with(json!({ "sub": null })))),
        (4500, "token_claim_invalid", sign(&with(json!({ "sub": "a\nb" })))),
        (4500, "token_algorithm_not_allowed", format!("{unsigned}.{payload}.")),
        (4500, "token_bad_signature", sign_with(&with(json!({})), "another secret of more than thirty-two bytes")),
        (4500, "token_bad_signature", tampered),
        (4500, "token_malformed", "nonsense".to_owned()),
        (4500, "token_malformed", String::new()),
        (4500, "token_too_long", format!("{good}{}", "A".repeat(9_000))),
        (4503, "forbidden", sign(&with(json!({ "scope": null })))),
        (4503, "forbidden", sign(&with(json!({ "scope": "events:publish pushing" })))),
    ];
    let mut tokens = Vec::new();
    for (code, name, token) in cases {
        println!("{name}");
        let mut client = WsClient::open(&cluster.ws(0)).await;
        let reply = client.command("connect", json!({ "token": token })).await;
        assert_eq!(error(&reply).1, name, "{reply}");
        assert!(!reply.to_string().contains(&token) || token.is_empty(), "an error quotes no token: {reply}");
        let told = client.goodbye().await;
        assert_eq!((&told["code"], &told["reconnect"]), (&json!(code), &json!(code < 4500)), "{name}");
        tokens.push(token);
    }
    cluster.sessions(0).await;
    WsClient::connect(&cluster.ws(0), &good).await;
    tokens.push(good);
    let long = tokens.iter().map(String::as_str).filter(|token| token.len() > 20 && !token.ends_with('.'));
    cluster.assert_silent_about(&long.collect::<Vec<_>>());
}

#[tokio::test]
async fn a_session_ends_with_its_token_unless_it_is_refreshed() {
    let cluster = DevCluster::with_secret(&[]).await;
    let token = sign(&claims(1.2));
    let mut lets_it_expire = WsClient::connect(&cluster.ws(0), &token).await;
    let mut refreshes = WsClient::connect(&cluster.ws(0), &token).await;
    for client in [&mut lets_it_expire, &mut refreshes] {
        let told = client.push("expiring").await;
        assert!(told["in_ms"].as_u64().is_some_and(|ms| ms <= 1_200), "{told}");
    }
    let mut another = claims(600.0);
    another["sub"] = json!("bob@example.org");
    let reply = refreshes.command("refresh", json!({ "token": sign(&another) })).await;
    assert_eq!(error(&reply), (403, "forbidden"), "another user's token");
    let mut scopeless = claims(600.0);
    scopeless["scope"] = json!("");
    let reply = refreshes.command("refresh", json!({ "token": sign(&scopeless) })).await;
    assert_eq!(error(&reply), (403, "forbidden"), "a token without push");
    let reply = refreshes.command("refresh", json!({ "token": "nonsense" })).await;
    assert_eq!(error(&reply), (401, "token_malformed"), "and the old token's time runs on");
    let reply = refreshes.command("refresh", json!({ "token": sign(&claims(600.0)) })).await;
    assert!(reply["refresh"]["token_expires_at"].as_f64().is_some_and(|ms| ms > (unix_seconds() + 500.0) * 1000.0), "{reply}");

    let told = lets_it_expire.goodbye().await;
    assert_eq!((&told["code"], &told["reconnect"]), (&json!(4401), &json!(true)));
    refreshes.subscribe(INBOX).await;
    cluster.assert_silent_about(&[&token, &sign(&another)]);
}

#[tokio::test]
async fn no_flood_of_frames_keeps_a_session_beyond_its_token() {
    let cluster = DevCluster::with_secret(&["log.filter=info"]).await;
    let bearer = format!("Authorization: Bearer {}\r\n", sign(&claims(1.2)));
    let mut client = RawClient::open_with(&cluster.http(0), &bearer).await;
    cluster.sessions(1).await;
    let flood: Vec<u8> = std::iter::repeat_n(frame(FIN | PONG, b""), 100_000).flatten().collect();
    let ended = async { while client.try_send(&flood).await.is_ok() {} };
    tokio::time::timeout(Duration::from_secs(10), ended).await.expect("the server ends it");
    cluster.sessions(0).await;
}

#[tokio::test]
async fn who_does_not_answer_a_heartbeat_is_given_up() {
    let cluster = DevCluster::start_with(1, &["sessions.heartbeat_ms=500", "sessions.pong_timeout_ms=450"]).await;
    let bearer = format!("Authorization: Bearer {}\r\n", cluster.token(0));
    let mut silent = RawClient::open_with(&cluster.http(0), &bearer).await;
    let heartbeat = |first, payload: &[u8]| Said::Frame { first, payload: payload.to_vec() };
    assert_eq!(silent.said().await, heartbeat(FIN | TEXT, b"{}"));
    assert_eq!(silent.said().await, heartbeat(FIN | PING, b""));
    assert_eq!(silent.expect_goodbye(4407).await["reconnect"], true);

    let answers = [text("{}"), frame(FIN | PONG, b""), frame(FIN | PING, b"x"), text(r#"{"id":1,"ping":{}}"#), text("nonsense")];
    let alive = answers.map(async |answer| {
        let mut client = RawClient::open_with(&cluster.http(0), &bearer).await;
        let mut heartbeats = 0;
        // Three of them take longer than one may go unanswered.
        while heartbeats < 3 {
            match client.said().await {
                Said::Frame { first, payload } if first == FIN | TEXT && payload == b"{}" => {
                    heartbeats += 1;
                    client.send(&answer).await;
                }
                Said::Frame { first, payload } => {
                    let payload = String::from_utf8_lossy(&payload);
                    assert!(first != FIN | TEXT || !payload.contains("disconnect"), "{payload}");
                }
                end => panic!("{end:?} although it answered"),
            }
        }
    });
    futures::future::join_all(alive).await;
}

#[tokio::test]
async fn subscriptions_come_and_go() {
    let cluster = DevCluster::start(1).await;
    let change = json!({ "type": "MailboxChange", "mailbox": INBOX });
    let mut witness = WsClient::connect(&cluster.ws(0), &cluster.token(0)).await;
    witness.subscribe(INBOX).await;
    let mut client = WsClient::connect(&cluster.ws(0), &cluster.token(0)).await;
    client.subscribe(INBOX).await;
    client.subscribe(INBOX).await;
    let inbox = client.command("subscribe", json!({ "mailbox": "#private:Alice@Example.ORG:inbox" })).await;
    assert_eq!(inbox["subscribe"]["key"]["mailbox"], INBOX, "the normal form is told");

    cluster.publish(0, change.clone()).await;
    assert_eq!(witness.event().await["event"]["mailbox"], INBOX);
    client.event().await;
    client.expect_quiet().await;

    let reply = client.command("unsubscribe", json!({ "mailbox": INBOX })).await;
    assert_eq!(reply["unsubscribe"]["key"]["mailbox"], INBOX, "subscribed three times, gone at once");
    assert_eq!(error(&client.command("unsubscribe", json!({ "mailbox": INBOX })).await), (404, "not_subscribed"));
    cluster.publish(0, change.clone()).await;
    witness.event().await;
    client.expect_quiet().await;

    client.subscribe(INBOX).await;
    cluster.publish(0, change).await;
    client.event().await;
}

#[tokio::test]
async fn an_account_is_all_of_its_mailboxes_and_nobody_elses() {
    let cluster = DevCluster::start(1).await;
    let mut alice = WsClient::connect(&cluster.ws(0), &cluster.token(0)).await;
    let reply = alice.command("subscribe", json!({ "account": "ALICE@example.org" })).await;
    assert_eq!(reply["subscribe"]["key"]["account"], "alice@example.org", "{reply}");
    alice.subscribe(INBOX).await;
    assert_eq!(error(&alice.command("subscribe", json!({ "account": "bob@example.org" })).await), (404, "not_found"));
    assert_eq!(error(&alice.command("subscribe", json!({ "account": "nobody@example.org" })).await), (404, "not_found"));

    let of_alice = |name: &str| format!("#private:alice@example.org:{name}");
    cluster
        .publish(
            0,
            json!([
                { "type": "MailboxChange", "mailbox": "#private:bob@example.org:INBOX" },
                { "type": "MailboxChange", "mailbox": INBOX },
                { "type": "MailboxCreate", "mailbox": of_alice("New") },
                { "type": "QuotaExceed", "mailbox": INBOX, "used": 11, "limit": 10 },
                { "type": "MailboxRename", "mailbox": of_alice("New"), "to": of_alice("Old") },
            ]),
        )
        .await;
    for expected in ["MailboxChange", "MailboxCreate", "QuotaExceed", "MailboxRename"] {
        assert_eq!(alice.event().await["event"]["type"], expected, "each once, in order");
    }
    alice.expect_quiet().await;
}

#[tokio::test]
async fn limits_are_told_as_such() {
    let settings = ["sessions.subscriptions_per_session=2", "sessions.sessions_per_user=2"];
    let cluster = DevCluster::start_with(1, &settings).await;
    let mailbox = |n: usize| json!({ "mailbox": format!("#private:alice@example.org:{n}") });
    let mut first = WsClient::connect(&cluster.ws(0), &cluster.token(0)).await;
    first.command("subscribe", mailbox(1)).await;
    first.command("subscribe", mailbox(2)).await;
    assert_eq!(error(&first.command("subscribe", mailbox(3)).await), (429, "limit_reached"));
    assert!(first.command("subscribe", mailbox(2)).await["subscribe"].is_object(), "one that it has is none more");
    first.command("unsubscribe", mailbox(1)).await;
    assert!(first.command("subscribe", mailbox(3)).await["subscribe"].is_object());

    let mut second = WsClient::open(&cluster.ws(0)).await;
    let resume = json!({ "token": cluster.token(0), "resume": { "subscriptions": [mailbox(1), mailbox(2), mailbox(3)] } });
    assert_eq!(error(&second.command("connect", resume).await), (429, "limit_reached"), "and it may connect with less");
    assert!(second.command("connect", json!({ "token": cluster.token(0) })).await["connect"].is_object());

    let mut third = WsClient::open(&cluster.ws(0)).await;
    let reply = third.command("connect", json!({ "token": cluster.token(0) })).await;
    assert_eq!(error(&reply), (429, "too_many_sessions"));
    // By then a client that is gone has missed its heartbeat, which is after 25 s, and the 8 s that its answer may take.
    let later = json!(33_000);
    assert_eq!((&reply["error"]["temporary"], &reply["error"]["retry_after_ms"]), (&json!(true), &later));
    let told = third.goodbye().await;
    assert_eq!((&told["code"], &told["reconnect"], &told["reconnect_after_ms"]), (&json!(4414), &json!(true), &later));
    let bearer = format!("Authorization: Bearer {}\r\n", cluster.token(0));
    RawClient::open_with(&cluster.http(0), &bearer).await.expect_goodbye(4414).await;
    let url = format!("{}/v1/stream?account=alice@example.org", cluster.http(0));
    let refused = SseClient::ask(&url, Some(&cluster.token(0))).await;
    assert_eq!((refused.status().as_u16(), &refused.headers()["retry-after"]), (429, &"33".parse().unwrap()), "a stream too");
    WsClient::connect(&cluster.ws(0), &cluster.token(1)).await;
}

#[tokio::test]
async fn clients_that_are_gone_make_room_although_something_is_told_to_them_all_the_time() {
    let settings =
        ["sessions.sessions_per_user=2", "sessions.heartbeat_ms=600", "sessions.pong_timeout_ms=500", "log.filter=info"];
    let cluster = DevCluster::start_with(1, &settings).await;
    let bearer = format!("Authorization: Bearer {}\r\n", cluster.token(0));
    let subscribe = text(&json!({ "id": 1, "subscribe": { "mailbox": INBOX } }).to_string());
    let mut ghosts = Vec::new();
    for _ in 0..2 {
        let mut ghost = RawClient::open_with(&cluster.http(0), &bearer).await;
        ghost.send(&subscribe).await;
        assert!(ghost.json().await["subscribe"].is_object());
        ghosts.push(ghost);
    }
    let told_all_the_time = async {
        let mut tick = tokio::time::interval(Duration::from_millis(100));
        loop {
            tick.tick().await;
            cluster.publish(0, json!({ "type": "MailboxChange", "mailbox": INBOX })).await;
        }
    };
    let comes_back = async {
        let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
        loop {
            let mut client = WsClient::open(&cluster.ws(0)).await;
            let reply = client.command("connect", json!({ "token": cluster.token(0) })).await;
            if reply["connect"].is_object() {
                return;
            }
            assert_eq!(error(&reply), (429, "too_many_sessions"));
            let after = client.goodbye().await["reconnect_after_ms"].as_u64().expect("when to come back");
            assert!(tokio::time::Instant::now() < deadline, "there is no room for those who came");
            tokio::time::sleep(Duration::from_millis(after)).await;
        }
    };
    tokio::select! {
        () = comes_back => {}
        () = told_all_the_time => {}
    }
}

#[tokio::test]
async fn sockets_without_a_token_are_limited() {
    let cluster = DevCluster::start_with(1, &["sessions.unauthenticated_sockets=2"]).await;
    let mut waiting = [RawClient::open(&cluster.http(0)).await, RawClient::open(&cluster.http(0)).await];
    let mut refused = RawClient::dial(&cluster.http(0)).await;
    refused.send(crate::support::raw_ws::handshake("")).await;
    let answer = refused.answer().await;
    assert_eq!((answer.status, answer.header("retry-after")), (503, Some("2")));
    answer.problem();
    let connect = json!({ "id": 1, "connect": { "token": cluster.token(1) } });
    waiting[0].send(text(&connect.to_string())).await;
    assert!(waiting[0].json().await["connect"].is_object());
    RawClient::open(&cluster.http(0)).await;
}

#[tokio::test]
async fn too_many_commands_end_the_session() {
    let cluster = DevCluster::start_with(1, &["sessions.commands_per_second=1", "sessions.command_burst=5"]).await;
    let mut client = WsClient::connect(&cluster.ws(0), &cluster.token(0)).await;
    for id in 0..6 {
        client.send(&json!({ "id": id, "ping": {} }).to_string()).await;
    }
    for id in 0..4 {
        assert_eq!(client.next().await, Some(json!({ "id": id, "ping": {} })), "the burst, with the connect, is 5");
    }
    let told = client.goodbye().await;
    assert_eq!((&told["code"], &told["reconnect"]), (&json!(4429), &json!(true)));
}

#[tokio::test]
async fn what_is_no_command_is_an_error_and_the_session_goes_on() {
    let cluster = DevCluster::with_secret(&[]).await;
    let token = sign(&claims(600.0));
    let mut client = WsClient::connect(&cluster.ws(0), &token).await;
    let nested = |open: &str, close: &str, depth| format!("{}1{}", open.repeat(depth), close.repeat(depth));
    let cases = [
        ("bad_request", Value::Null, "".to_owned()),
        ("bad_request", Value::Null, "nonsense".to_owned()),
        ("bad_request", Value::Null, "\u{0}".to_owned()),
        ("bad_request", Value::Null, "{}{}".to_owned()),
        ("bad_request", Value::Null, r#"[{"id":1,"ping":{}}]"#.to_owned()),
        ("bad_request", Value::Null, "null".to_owned()),
        ("bad_request", Value::Null, r#""text""#.to_owned()),
        ("bad_request", Value::Null, r#"{"ping":{}}"#.to_owned()),
        ("bad_request", Value::Null, r#"{"id":4294967296,"ping":{}}"#.to_owned()),
        ("bad_request", Value::Null, r#"{"id":1e400,"ping":{}}"#.to_owned()),
        ("bad_request", Value::Null, format!(r#"{{"id":{},"ping":{{}}}}"#, "9".repeat(5_000))),
        ("bad_request", Value::Null, r#"{"id":-1,"ping":{}}"#.to_owned()),
        ("bad_request", Value::Null, r#"{"id":1.5,"ping":{}}"#.to_owned()),
        ("bad_request", Value::Null, r#"{"id":"1","ping":{}}"#.to_owned()),
        ("bad_request", Value::Null, r#"{"id":1,"subscribe":{"mailbox":"\ud800"}}"#.to_owned()),
        ("bad_request", Value::Null, nested("[", "]", 7_000)),
        ("bad_request", Value::Null, format!(r#"{{"id":1,"ping":{}}}"#, nested("[", "]", 7_000))),
        ("bad_request", Value::Null, format!(r#"{{"id":1,"ping":{}}}"#, nested(r#"{"a":"#, "}", 2_500))),
        ("bad_request", Value::Null, "[".repeat(10_000)),
        ("unknown_command", json!(1), r#"{"id":1,"dance":{}}"#.to_owned()),
        ("unknown_command", json!(1), r#"{"id":1}"#.to_owned()),
        ("unknown_command", json!(1), format!(r#"{{"id":1,"ping":{{}},"refresh":{{"token":"{token}"}}}}"#)),
        ("bad_request", json!(1), format!(r#"{{"id":1,"refresh":"{token}"}}"#)),
        ("bad_request", json!(1), format!(r#"{{"id":1,"refresh":{{"token":["{token}"]}}}}"#)),
        ("bad_request", json!(1), r#"{"id":1,"subscribe":{}}"#.to_owned()),
        ("bad_request", json!(1), r#"{"id":1,"subscribe":null}"#.to_owned()),
        ("bad_request", json!(1), r#"{"id":1,"subscribe":{"mailbox":"INBOX"}}"#.to_owned()),
        ("bad_request", json!(1), r##"{"id":1,"subscribe":{"mailbox":"#private::"}}"##.to_owned()),
        ("bad_request", json!(1), format!(r#"{{"id":1,"subscribe":{{"mailbox":"{INBOX}","account":"alice"}}}}"#)),
        ("bad_request", json!(1), format!(r#"{{"id":1,"subscribe":{{"mailbox":"{INBOX}","types":["Dance"]}}}}"#)),
        ("bad_request", json!(1), format!(r#"{{"id":1,"subscribe":{{"mailbox":"{INBOX}","fields":["body"]}}}}"#)),
        ("bad_request", json!(1), format!(r#"{{"id":1,"unsubscribe":{{"mailbox":["{INBOX}"]}}}}"#)),
    ];
    for (name, id, frame) in cases {
        println!("{}", frame.get(..100).unwrap_or(&frame));
        client.send(&frame).await;
        let reply = client.next().await.expect("an error, not the end");
        assert_eq!(error(&reply), (400, name), "{reply}");
        assert_eq!(reply["id"], id, "{reply}");
        assert!(!reply.to_string().contains(&token), "an error quotes no token");
    }
    client.subscribe(INBOX).await;
    cluster.publish(0, json!({ "type": "MailboxChange", "mailbox": INBOX })).await;
    client.event().await;
    cluster.assert_silent_about(&[&token]);
}

#[tokio::test]
async fn a_returning_client_has_its_subscriptions_in_one_round_trip() {
    let cluster = DevCluster::start(2).await;
    let mut client = WsClient::open(&cluster.ws(1)).await;
    let subscriptions = json!([
        { "mailbox": INBOX, "types": ["MessageNew"], "fields": ["subject"] },
        { "mailbox": INBOX },
        { "account": "alice@example.org", "types": ["QuotaExceed"] },
        { "mailbox": "#private:bob@example.org:INBOX" },
    ]);
    let resume = json!({ "pos": "mailpush.node.dev-1@7", "subscriptions": subscriptions });
    let reply = client.command("connect", json!({ "token": cluster.token(0), "resume": resume })).await;
    let mut resumed = reply["connect"]["resumed"].as_array().expect("what became of them").clone();
    resumed.sort_by_key(|entry| entry["key"].to_string());
    let told: Vec<_> = resumed.iter().map(|r| (r["key"].to_string(), &r["recovered"], r["rights"].as_str())).collect();
    assert_eq!(told.len(), 3, "each key once: {reply}");
    assert_eq!(told[0], (json!({ "account": "alice@example.org" }).to_string(), &json!(false), Some("lrswipkxtea")));
    assert_eq!(told[1], (json!({ "mailbox": INBOX }).to_string(), &json!(false), Some("lrswipkxtea")));
    assert_eq!((told[2].1, told[2].2), (&json!(false), None));
    assert_eq!(error(&resumed[2]), (404, "not_found"));

    let message = json!({ "uid": 1, "envelope": { "subject": "Lunch?", "from": "bob@example.org" } });
    cluster.publish(0, json!({ "type": "MessageNew", "mailbox": INBOX, "messages": [message] })).await;
    let event = client.event().await;
    assert_eq!(event["event"]["messages"][0]["envelope"], json!({ "subject": "Lunch?" }));
    let reply = client.command("unsubscribe", json!({ "account": "alice@example.org" })).await;
    assert!(reply["unsubscribe"].is_object(), "it is the session's own: {reply}");
}

#[tokio::test]
async fn an_administrator_ends_a_session() {
    let cluster = DevCluster::start(2).await;
    let mut client = WsClient::connect(&cluster.ws(1), &cluster.token(0)).await;
    let id = cluster.sessions(1).await[0]["id"].as_str().expect("an id").to_owned();
    let delete = async |token: String| {
        let request = reqwest::Client::new().delete(format!("{}/v1/sessions/{id}", cluster.http(0)));
        request.bearer_auth(token).send().await.expect("an answer").status().as_u16()
    };
    assert_eq!(delete(cluster.token(1)).await, 404, "bob cannot tell alice's session from none");
    assert!((200..300).contains(&delete(cluster.admin_token()).await), "at another node than the session's");
    let told = client.goodbye().await;
    assert_eq!((&told["code"], &told["reconnect"]), (&json!(4505), &json!(false)));
    cluster.sessions(0).await;
    assert_eq!(delete(cluster.admin_token()).await, 404);
}

#[tokio::test]
async fn a_node_that_goes_down_says_goodbye_to_everybody_and_exits_with_0() {
    let mut cluster = DevCluster::start(1).await;
    let mut clients = Vec::new();
    for (user, name) in ["alice", "bob", "carol"].into_iter().enumerate() {
        let mut client = WsClient::connect(&cluster.ws(0), &cluster.token(user)).await;
        client.command("subscribe", json!({ "account": format!("{name}@example.org") })).await;
        clients.push(client);
    }
    let mut stranger = RawClient::open(&cluster.http(0)).await;
    let mut rude = RawClient::open(&cluster.http(0)).await;
    let url = format!("{}/v1/stream?mailbox={}", cluster.http(0), INBOX.replace('#', "%23"));
    let mut stream = SseClient::open(&url, Some(&cluster.token(0)), 1).await;
    let follower = SseClient::ask(&format!("{}/v1/subscriptions/stream", cluster.http(0)), Some(&cluster.admin_token())).await;
    assert_eq!(follower.status(), 200);
    let mut idle = RawClient::dial(&cluster.http(0)).await;

    cluster.terminate();
    let check = |told: &Value| {
        assert_eq!((&told["code"], &told["reconnect"]), (&json!(4412), &json!(true)), "{told}");
        assert!(told["reconnect_after_ms"].is_u64(), "{told}");
    };
    // It never answers the goodbye, so the node stays for two seconds more.
    check(&rude.json().await["disconnect"]);
    let refused = SseClient::ask(&url, Some(&cluster.token(0))).await;
    assert_eq!(refused.status(), 503, "nobody is taken in any more");
    assert_eq!(SseClient::ask(&format!("{}/readyz", cluster.http(0)), None).await.status(), 503);
    assert_eq!(SseClient::ask(&format!("{}/livez", cluster.http(0)), None).await.status(), 200);
    for client in &mut clients {
        check(&client.goodbye().await);
    }
    check(&stranger.expect_goodbye(4412).await);
    let last = stream.next().await.expect("a goodbye on the stream");
    assert_eq!(last.name, "disconnect");
    check(&last.data["disconnect"]);
    assert_eq!(stream.next().await, None);
    assert_eq!(cluster.ended(Duration::from_secs(10)).await.code(), Some(0));
    assert_eq!(idle.said().await, Said::End);
}
