//! RFC 6455 at the door, byte by byte: what is no handshake and no frame ends with the code that the RFC gives it, and
//! every connection ends in an orderly way.

use std::time::Duration;

use serde_json::json;

use crate::support::dev::DevCluster;
use crate::support::raw_ws::{
    BINARY, CLOSE, CONTINUATION, FIN, KEY, PING, PONG, RawClient, Said, TEXT, UPGRADE_LINES, close, frame, handshake, header,
    request, text, unmasked,
};

/// Small enough to be reached with few bytes.
const LIMIT: usize = 2048;
const ALIVE: &str = r#"{"id":7,"ping":{}}"#;

async fn cluster() -> DevCluster {
    DevCluster::start_with(1, &[&format!("sessions.frame_limit_bytes={LIMIT}")]).await
}

fn said(first: u8, payload: &[u8]) -> Said {
    Said::Frame { first, payload: payload.to_vec() }
}

/// The session still works.
async fn expect_alive(client: &mut RawClient) {
    client.send(text(ALIVE)).await;
    assert_eq!(client.json().await, json!({ "id": 7, "ping": {} }));
}

/// Each of these, on a connection of its own, is answered with the goodbye of this code.
async fn each_ends_with(code: u16, cases: &[(&str, Vec<u8>)]) {
    let cluster = cluster().await;
    for (what, bytes) in cases {
        println!("{what}");
        let mut client = RawClient::open(&cluster.http(0)).await;
        client.send(bytes).await;
        client.expect_goodbye(code).await;
    }
}

#[tokio::test]
async fn frames_against_the_protocol_end_with_1002() {
    let mut cases = vec![
        ("an unmasked frame", unmasked(FIN | TEXT, ALIVE.as_bytes())),
        ("an unmasked close", unmasked(FIN | CLOSE, &1000u16.to_be_bytes())),
        ("RSV1", frame(FIN | 0x40 | TEXT, b"x")),
        ("RSV2", frame(FIN | 0x20 | TEXT, b"x")),
        ("RSV3 on a ping", frame(FIN | 0x10 | PING, b"x")),
        ("a ping in fragments", frame(PING, b"x")),
        ("a close in fragments", frame(CLOSE, &1000u16.to_be_bytes())),
        ("a ping of 126 bytes", frame(FIN | PING, &[b'x'; 126])),
        ("a close of 126 bytes", close(1000, &[b'x'; 124])),
        ("a continuation of nothing", frame(FIN | CONTINUATION, b"x")),
        ("a continuation of nothing, not the last", frame(CONTINUATION, b"x")),
        ("a new message inside of one", [frame(TEXT, b"x"), frame(FIN | TEXT, b"y")].concat()),
        ("a new message in fragments inside of one", [frame(TEXT, b"x"), frame(TEXT, b"y")].concat()),
        ("a close of one byte", frame(FIN | CLOSE, b"x")),
    ];
    cases.extend((0x3..=0x7).map(|opcode| ("a reserved data frame", frame(FIN | opcode, b"x"))));
    cases.extend((0xb..=0xf).map(|opcode| ("a reserved control frame", frame(FIN | opcode, b"x"))));
    each_ends_with(1002, &cases).await;
}

#[tokio::test]
async fn text_that_is_not_utf_8_ends_with_1007() {
    let cases = [
        ("a byte that is never in UTF-8", frame(FIN | TEXT, b"\xff")),
        ("an overlong slash", frame(FIN | TEXT, b"\xc0\xaf")),
        ("a surrogate", frame(FIN | TEXT, b"\xed\xa0\x80")),
        ("half a character at the end", frame(FIN | TEXT, b"x\xe2\x82")),
        ("a bad character across fragments", [frame(TEXT, b"\xe2\x82"), frame(FIN | CONTINUATION, b"x")].concat()),
        ("half a character in the last fragment", [frame(TEXT, b"x"), frame(FIN | CONTINUATION, b"\xe2")].concat()),
        ("a reason to close that is not UTF-8", close(1000, b"\xff")),
    ];
    each_ends_with(1007, &cases).await;
}

#[tokio::test]
async fn a_character_may_be_split_across_fragments() {
    let cluster = cluster().await;
    let mut client = RawClient::open(&cluster.http(0)).await;
    let whole = r#"{"id":7,"ping":{},"€":"😀"}"#.as_bytes();
    for cut in 1..whole.len() {
        client.send([frame(TEXT, &whole[..cut]), frame(FIN | CONTINUATION, &whole[cut..])].concat()).await;
        assert_eq!(client.json().await["id"], 7, "cut at {cut}");
    }
}

#[tokio::test]
async fn what_is_over_the_limit_ends_with_1009() {
    let half = [b'x'; LIMIT / 2 + 1];
    let cases = [
        ("one frame", frame(FIN | TEXT, &[b'x'; LIMIT + 1])),
        ("the header of one frame", [header(FIN | TEXT, 0x80, 1 << 40), vec![0; 4]].concat()),
        ("the header of the longest frame", [header(FIN | TEXT, 0x80, i64::MAX as u64), vec![0; 4]].concat()),
        ("a message of two fragments", [frame(TEXT, &half), frame(FIN | CONTINUATION, &half)].concat()),
        ("a message that never ends", [frame(TEXT, &half), frame(CONTINUATION, &half)].concat()),
        ("much more behind it", [frame(FIN | TEXT, &[b'x'; LIMIT + 1]), vec![b'y'; 100_000]].concat()),
    ];
    each_ends_with(1009, &cases).await;

    let cluster = cluster().await;
    let mut client = RawClient::open(&cluster.http(0)).await;
    let longest = format!("{ALIVE}{}", " ".repeat(LIMIT - ALIVE.len()));
    client.send(text(&longest)).await;
    assert_eq!(client.json().await["id"], 7, "the limit itself is within it");
}

#[tokio::test]
async fn binary_frames_end_with_1003() {
    let fragments = [frame(BINARY, b"x"), frame(FIN | CONTINUATION, b"y")].concat();
    let cases = [
        ("one frame", frame(FIN | BINARY, ALIVE.as_bytes())),
        ("an empty one", frame(FIN | BINARY, b"")),
        ("fragments", fragments),
    ];
    each_ends_with(1003, &cases).await;
}

#[tokio::test]
async fn pings_are_answered_and_pongs_are_taken() {
    let cluster = cluster().await;
    let mut client = RawClient::open(&cluster.http(0)).await;
    for payload in [&b""[..], b"hello", &[0xff; 125]] {
        client.send(frame(FIN | PING, payload)).await;
        assert_eq!(client.said().await, said(FIN | PONG, payload));
    }
    client.send(frame(FIN | PONG, b"nobody asked")).await;
    expect_alive(&mut client).await;

    let (head, tail) = ALIVE.split_at(5);
    client.send([frame(TEXT, head.as_bytes()), frame(FIN | PING, b"between"), frame(CONTINUATION, b"")].concat()).await;
    assert_eq!(client.said().await, said(FIN | PONG, b"between"));
    client.send(frame(FIN | CONTINUATION, tail.as_bytes())).await;
    assert_eq!(client.json().await["id"], 7, "the ping between its fragments did not hurt the message");
}

#[tokio::test]
async fn a_close_is_answered_in_kind_and_the_server_hangs_up() {
    let cluster = cluster().await;
    for code in [1000, 1001, 1003, 1007, 1011, 3000, 3999, 4000, 4999] {
        let mut client = RawClient::open(&cluster.http(0)).await;
        client.send(close(code, "auf Wiedersehen, ü".as_bytes())).await;
        client.expect_close(code).await;
    }
    for code in [0, 1, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535] {
        println!("{code} is for nobody to send");
        let mut client = RawClient::open(&cluster.http(0)).await;
        client.send(close(code, b"")).await;
        client.expect_close(1002).await;
    }
    let mut client = RawClient::open(&cluster.http(0)).await;
    client.send(frame(FIN | CLOSE, b"")).await;
    assert_eq!(client.said().await, said(FIN | CLOSE, b""), "no code, no code back");
    assert_eq!(client.said().await, Said::End);
}

#[tokio::test]
async fn what_came_before_a_close_is_answered_and_what_comes_behind_it_is_not() {
    let cluster = cluster().await;
    let mut client = RawClient::open(&cluster.http(0)).await;
    client.send([text(ALIVE), frame(FIN | PING, b"p"), close(1000, b""), text(ALIVE), vec![0xff; 9000]].concat()).await;
    assert_eq!(client.json().await["id"], 7);
    assert_eq!(client.said().await, said(FIN | PONG, b"p"));
    assert_eq!(client.said().await, said(FIN | CLOSE, &1000u16.to_be_bytes()));
    assert_eq!(client.said().await, Said::End, "an orderly end, although there was more to read");
}

#[tokio::test]
async fn a_half_closed_connection_is_over() {
    let cluster = cluster().await;
    let bearer = format!("Authorization: Bearer {}\r\n", cluster.token(0));
    let mut client = RawClient::open_with(&cluster.http(0), &bearer).await;
    cluster.sessions(1).await;
    client.shut().await;
    assert_eq!(client.said().await, Said::End);
    cluster.sessions(0).await;
}

#[tokio::test]
async fn a_client_that_never_answers_a_close_is_left() {
    let cluster = cluster().await;
    let mut client = RawClient::open(&cluster.http(0)).await;
    client.send(frame(FIN | BINARY, b"x")).await;
    assert_eq!(client.json().await["disconnect"]["code"], 1003);
    assert!(matches!(client.said().await, Said::Frame { first, .. } if first == FIN | CLOSE));
    assert_eq!(client.said().await, Said::End, "without our half of the handshake");
}

#[tokio::test]
async fn frames_in_the_handshakes_own_segment_are_read() {
    let cluster = cluster().await;
    let connect = json!({ "id": 1, "connect": { "token": cluster.token(0) } }).to_string();
    let subscribe = json!({ "id": 2, "subscribe": { "account": "alice@example.org" } }).to_string();
    let mut client = RawClient::dial(&cluster.http(0)).await;
    let bytes = [handshake("").into_bytes(), text(&connect), text(&subscribe), text(ALIVE), close(1000, b"")].concat();
    client.send(bytes).await;
    assert_eq!(client.answer().await.status, 101);
    assert_eq!(client.json().await["connect"]["user"], "alice@example.org");
    assert_eq!(client.json().await["id"], 7);
    client.expect_close(1000).await;
}

#[tokio::test]
async fn commands_behind_a_connect_wait_for_it() {
    let cluster = cluster().await;
    let mut client = RawClient::open(&cluster.http(0)).await;
    let connect = json!({ "id": 1, "connect": { "token": cluster.token(0) } }).to_string();
    let subscribe = json!({ "id": 2, "subscribe": { "account": "alice@example.org" } }).to_string();
    client.send([text(&connect), text(&subscribe)].concat()).await;
    assert!(client.json().await["connect"].is_object());
    assert_eq!(client.json().await["subscribe"]["key"]["account"], "alice@example.org");
}

#[tokio::test]
async fn a_handshake_and_frames_byte_by_byte() {
    let cluster = cluster().await;
    let mut client = RawClient::dial(&cluster.http(0)).await;
    for byte in [handshake("").into_bytes(), text(ALIVE), frame(FIN | PING, b"p")].concat() {
        client.send([byte]).await;
    }
    assert_eq!(client.answer().await.status, 101);
    assert_eq!(client.json().await["id"], 7);
    assert_eq!(client.said().await, said(FIN | PONG, b"p"));
    for byte in close(1000, b"") {
        client.send([byte]).await;
    }
    client.expect_close(1000).await;
}

#[tokio::test]
async fn a_slow_handshake_runs_out_of_time() {
    let cluster = DevCluster::start_with(1, &["http.header_timeout_ms=300"]).await;
    let mut silent = RawClient::dial(&cluster.http(0)).await;
    assert_eq!(silent.said().await, Said::End, "not one byte");
    let mut slow = RawClient::dial(&cluster.http(0)).await;
    let bytes = handshake("").into_bytes();
    // A byte whenever the one before did not end it: never a whole head, never silent for long.
    let trickle = async {
        let mut interval = tokio::time::interval(Duration::from_millis(20));
        for byte in &bytes[..bytes.len() - 1] {
            interval.tick().await;
            if slow.try_send([*byte]).await.is_err() {
                return true;
            }
        }
        false
    };
    assert!(trickle.await, "the trickle went on to its end");
}

#[tokio::test]
async fn what_is_no_handshake_is_refused_as_the_rfc_wants() {
    let cluster = cluster().await;
    let key = format!("Sec-WebSocket-Key: {KEY}\r\n");
    let version = "Sec-WebSocket-Version: 13\r\n";
    let get = "GET /v1/ws HTTP/1.1";
    let cases = [
        ("no Upgrade", 426, get, format!("Connection: Upgrade\r\n{key}{version}")),
        ("no Connection", 426, get, format!("Upgrade: websocket\r\n{key}{version}")),
        ("another Upgrade", 426, get, format!("Connection: Upgrade\r\nUpgrade: h2c\r\n{key}{version}")),
        ("a plain GET", 426, get, String::new()),
        ("no version", 426, get, format!("{UPGRADE_LINES}{key}")),
        ("version 8", 426, get, format!("{UPGRADE_LINES}{key}Sec-WebSocket-Version: 8\r\n")),
        ("HTTP/1.0", 426, "GET /v1/ws HTTP/1.0", format!("{UPGRADE_LINES}{key}{version}")),
        ("no key", 400, get, format!("{UPGRADE_LINES}{version}")),
        ("a key that is not base64", 400, get, format!("{UPGRADE_LINES}{version}Sec-WebSocket-Key: !!!\r\n")),
        ("a key of 15 bytes", 400, get, format!("{UPGRADE_LINES}{version}Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAA\r\n")),
        ("two keys", 400, get, format!("{UPGRADE_LINES}{version}{key}{key}")),
        ("two versions", 426, get, format!("{UPGRADE_LINES}{version}{key}Sec-WebSocket-Version: 8\r\n")),
        ("unknown sub-protocols", 400, get, format!("{UPGRADE_LINES}{version}{key}Sec-WebSocket-Protocol: chat, jmap\r\n")),
        ("POST", 405, "POST /v1/ws HTTP/1.1", format!("{UPGRADE_LINES}{version}{key}")),
        ("HEAD", 405, "HEAD /v1/ws HTTP/1.1", format!("{UPGRADE_LINES}{version}{key}")),
    ];
    for (what, status, line, headers) in cases {
        println!("{what}");
        let mut client = RawClient::dial(&cluster.http(0)).await;
        client.send(request(line, &headers)).await;
        if what == "HEAD" {
            assert_eq!(client.answer_to_head().await.status, status);
            continue;
        }
        let answer = client.answer().await;
        assert_eq!(answer.status, status, "{answer:?}");
        answer.problem();
        if status == 426 {
            assert_eq!(answer.header("sec-websocket-version"), Some("13"), "RFC 6455 4.4");
            assert_eq!(answer.header("upgrade"), Some("websocket"));
            let connection = answer.header("connection").unwrap_or_default().to_ascii_lowercase();
            assert!(connection.contains("upgrade"), "RFC 9110 7.8: {answer:?}");
        }
        if status == 405 {
            assert!(answer.header("allow").is_some_and(|allow| allow.contains("GET")), "RFC 9110 15.5.6: {answer:?}");
        }
    }
}

#[tokio::test]
async fn a_stream_is_not_begun_by_head() {
    let cluster = cluster().await;
    let token = format!("Authorization: Bearer {}\r\n", cluster.token(0));
    let mut client = RawClient::dial(&cluster.http(0)).await;
    for (path, allow) in [
        ("/v1/stream?account=alice@example.org", "GET,POST"),
        ("/v1/subscriptions/stream", "GET"),
        ("/v1/local/subscriptions/stream", "GET"),
        ("/v1/ws", "GET"),
    ] {
        client.send(request(&format!("HEAD {path} HTTP/1.1"), &token)).await;
        let answer = client.answer_to_head().await;
        assert_eq!((answer.status, answer.header("allow")), (405, Some(allow)), "{path}: {answer:?}");
    }
    client.send(request("HEAD /livez HTTP/1.1", "")).await;
    assert_eq!(client.answer_to_head().await.status, 200, "elsewhere it is GET without the body");
}

#[tokio::test]
async fn a_request_names_one_host() {
    let cluster = cluster().await;
    for (what, status, head) in [
        ("one", 200, "GET /livez HTTP/1.1\r\nHost: mail.example.org\r\n\r\n"),
        ("none", 400, "GET /livez HTTP/1.1\r\n\r\n"),
        ("two", 400, "GET /livez HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n"),
        ("no host", 400, "GET /livez HTTP/1.1\r\nHost: a b\r\n\r\n"),
        ("two at nothing", 400, "GET /nothing HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n"),
        ("none before HTTP/1.1", 200, "GET /livez HTTP/1.0\r\n\r\n"),
        ("none for a WebSocket", 400, "GET /v1/ws HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"),
    ] {
        let mut client = RawClient::dial(&cluster.http(0)).await;
        client.send(head).await;
        let answer = client.answer().await;
        assert_eq!(answer.status, status, "{what}: {answer:?}");
        if status == 400 {
            answer.problem();
        }
    }
}

#[tokio::test]
async fn a_head_over_the_limit_is_refused() {
    let cluster = cluster().await;
    let mut client = RawClient::dial(&cluster.http(0)).await;
    client.send(handshake(&format!("X-Padding: {}\r\n", "x".repeat(14_000)))).await;
    assert_eq!(client.answer().await.status, 101, "within it");
    let mut client = RawClient::dial(&cluster.http(0)).await;
    let _ = client.try_send(handshake(&format!("X-Padding: {}\r\n", "x".repeat(40_000)))).await;
    assert_eq!(client.answer().await.status, 431);
}

#[tokio::test]
async fn a_node_without_room_says_so() {
    let cluster = DevCluster::start_with(1, &["http.max_connections=2"]).await;
    let mut inside = [RawClient::open(&cluster.http(0)).await, RawClient::open(&cluster.http(0)).await];
    for _ in 0..20 {
        let mut outside = RawClient::dial(&cluster.http(0)).await;
        let _ = outside.try_send(handshake("")).await;
        let answer = outside.answer().await;
        assert_eq!((answer.status, answer.header("retry-after")), (503, Some("2")));
        answer.problem();
        assert_eq!(outside.said().await, Said::End);
    }
    for client in &mut inside {
        expect_alive(client).await;
    }
}

#[tokio::test]
async fn our_sub_protocol_is_chosen_among_others() {
    let cluster = cluster().await;
    let chosen = async |headers: &str| {
        let mut client = RawClient::dial(&cluster.http(0)).await;
        client.send(handshake(headers)).await;
        let answer = client.answer().await;
        assert_eq!(answer.status, 101, "{answer:?}");
        answer.header("sec-websocket-protocol").map(str::to_owned)
    };
    assert_eq!(chosen("Sec-WebSocket-Protocol: chat, mailpush.v1\r\n").await.as_deref(), Some("mailpush.v1"));
    let two_lines = "Sec-WebSocket-Protocol: chat\r\nSec-WebSocket-Protocol: mailpush.v1\r\n";
    assert_eq!(chosen(two_lines).await.as_deref(), Some("mailpush.v1"));
    assert_eq!(chosen("").await, None, "none asked for, none given");
}

/// A page that is refused at the handshake is not told why, and would come back for ever.
#[tokio::test]
async fn a_client_of_another_version_is_told_so() {
    let cluster = cluster().await;
    let bearer = format!("Authorization: Bearer {}\r\n", cluster.token(0));
    for more in ["", &bearer] {
        let headers = format!("Sec-WebSocket-Protocol: mailpush.v9\r\n{more}");
        let mut client = RawClient::open_with(&cluster.http(0), &headers).await;
        let told = client.json().await;
        assert_eq!((&told["disconnect"]["code"], &told["disconnect"]["reconnect"]), (&json!(4509), &json!(false)), "{told}");
        match client.said().await {
            Said::Frame { payload, .. } => assert_eq!(payload[..2], 4509_u16.to_be_bytes()),
            other => panic!("{other:?} instead of a close frame"),
        }
    }
    cluster.sessions(0).await;
}

#[tokio::test]
async fn an_extension_that_is_offered_is_not_taken() {
    let cluster = cluster().await;
    let mut client = RawClient::dial(&cluster.http(0)).await;
    client.send(handshake("Sec-WebSocket-Extensions: permessage-deflate\r\n")).await;
    let answer = client.answer().await;
    assert_eq!((answer.status, answer.header("sec-websocket-extensions")), (101, None));
    expect_alive(&mut client).await;
}

#[tokio::test]
async fn pages_of_other_origins_are_refused_before_there_is_a_socket() {
    let cluster = DevCluster::start_with(1, &["http.allowed_origins=https://mail.example.org,https://other.example"]).await;
    let own = cluster.http(0);
    let cases = [
        (101, "https://mail.example.org"),
        (101, "https://other.example"),
        (101, own.as_str()),
        (403, "https://evil.example"),
        (403, "https://mail.example.org.evil.example"),
        (403, "https://mail.example.org:8443"),
        (403, "http://mail.example.org"),
        (403, "null"),
        (403, ""),
    ];
    for (status, origin) in cases {
        let mut client = RawClient::dial(&cluster.http(0)).await;
        client.send(handshake(&format!("Origin: {origin}\r\n"))).await;
        let answer = client.answer().await;
        assert_eq!(answer.status, status, "{origin}: {answer:?}");
        if status == 403 {
            answer.problem();
        } else {
            expect_alive(&mut client).await;
        }
    }
}

#[tokio::test]
async fn a_token_or_a_ticket_at_the_handshake_needs_no_connect() {
    let cluster = cluster().await;
    let subscribe = text(&json!({ "id": 2, "subscribe": { "account": "alice@example.org" } }).to_string());
    let bearer = format!("Authorization: Bearer {}\r\n", cluster.token(0));
    let mut client = RawClient::open_with(&cluster.http(0), &bearer).await;
    client.send(&subscribe).await;
    assert_eq!(client.json().await["subscribe"]["rights"], "lrswipkxtea");

    let mut client = RawClient::dial(&cluster.http(0)).await;
    client.send(handshake("Authorization: Bearer nonsense\r\n")).await;
    let answer = client.answer().await;
    assert_eq!((answer.status, answer.problem()["code"].as_str()), (401, Some("token_malformed")));
    assert_eq!(answer.header("www-authenticate"), Some("Bearer error=\"invalid_token\""));

    let mut client = RawClient::dial(&cluster.http(0)).await;
    client.send(request("POST /v1/tickets HTTP/1.1", &format!("{bearer}Content-Length: 0\r\n"))).await;
    let answer = client.answer().await;
    let issued: serde_json::Value = serde_json::from_slice(&answer.body).expect("a ticket in JSON");
    let ticket = issued["ticket"].as_str().expect("a ticket").to_owned();
    for status in [101, 401] {
        let mut client = RawClient::dial(&cluster.http(0)).await;
        client.send(handshake("").replace("/v1/ws", &format!("/v1/ws?ticket={ticket}"))).await;
        assert_eq!(client.answer().await.status, status, "a ticket works once");
        if status == 101 {
            client.send(&subscribe).await;
            assert_eq!(client.json().await["subscribe"]["key"]["account"], "alice@example.org");
        }
    }
    cluster.assert_silent_about(&[&ticket]);
}
