//! A client of the sub-protocol `mailpush.v1` (openapi/asyncapi.yaml): watches one mailbox over a
//! WebSocket, reads the mailbox anew where it is told to, and comes back where it may.
//!
//! ```sh
//! cargo run -- dev                                     # prints tokens
//! cargo run --example watch -- ws://127.0.0.1:8080/v1/ws TOKEN '#private:alice@example.org:INBOX'
//! ```

use std::time::Duration;

use anyhow::{Context, anyhow};
use futures::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::time::sleep;
use tokio_tungstenite::connect_async;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::{Message, http::HeaderValue};

/// How an attempt ended, and whether another may be made.
enum Ended {
    ComeBackAfter(Duration),
    ForGood(String),
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [url, token, mailbox] = &arguments[..] else { return Err(anyhow!("say URL TOKEN MAILBOX")) };
    let mut pause = Duration::from_millis(500);
    loop {
        match watch(url, token, mailbox).await {
            Ok(Ended::ForGood(reason)) => return Err(anyhow!(reason)),
            Ok(Ended::ComeBackAfter(wanted)) => sleep(wanted).await,
            Err(error) => {
                eprintln!("{error:#}");
                // A real client adds chance to it: all clients of a node come back at once.
                sleep(pause).await;
                pause = (pause * 2).min(Duration::from_secs(30));
            }
        }
    }
}

async fn watch(url: &str, token: &str, mailbox: &str) -> anyhow::Result<Ended> {
    let mut request = url.into_client_request()?;
    request.headers_mut().insert("sec-websocket-protocol", HeaderValue::from_static("mailpush.v1"));
    let (mut socket, _) = connect_async(request).await.context("cannot connect")?;

    // Each command has an id of our choice; its reply repeats it.
    socket.send(command(1, "connect", json!({ "token": token }))).await?;
    socket.send(command(2, "subscribe", json!({ "mailbox": mailbox, "fields": ["from", "subject"] }))).await?;
    let mut reason = "the connection broke".to_owned();
    while let Some(message) = socket.next().await {
        let text = match message? {
            Message::Text(text) => text,
            Message::Close(frame) => {
                // 4000 to 4499: come back. Others: something must change first.
                let code = frame.map_or(1006, |frame| u16::from(frame.code));
                return Ok(match code {
                    1006 | 4000..=4499 => Ended::ComeBackAfter(Duration::from_secs(1)),
                    _ => Ended::ForGood(format!("closed with {code}: {reason}")),
                });
            }
            // The library answers pings.
            _ => continue,
        };
        let Value::Object(frame) = serde_json::from_str(&text)? else { continue };
        for (name, body) in &frame {
            match name.as_str() {
                "connect" => println!("connected as {}", body["user"]),
                // From now on every change is pushed: read the mailbox's state now.
                "subscribe" => println!("watching {mailbox}: read it now"),
                "event" => println!("{}", body["event"]),
                // Something was missed, and it says why.
                "resync" => println!("read it again: {}", body["reason"]),
                "revoked" => return Ok(Ended::ForGood("you may not see this mailbox any more".to_owned())),
                "error" if body["temporary"] == true => return Err(anyhow!("{}", body["message"])),
                "error" => return Ok(Ended::ForGood(body["message"].to_string())),
                "disconnect" => {
                    reason = body["reason"].to_string();
                    if let Some(after) = body["reconnect_after_ms"].as_u64() {
                        return Ok(Ended::ComeBackAfter(Duration::from_millis(after)));
                    }
                }
                // Later versions say more; `{}`, the heartbeat, says nothing.
                _ => {}
            }
        }
    }
    Err(anyhow!(reason))
}

fn command(id: u32, name: &str, body: Value) -> Message {
    Message::text(json!({ "id": id, name: body }).to_string())
}
