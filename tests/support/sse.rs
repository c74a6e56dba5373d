//! A Server-Sent Events client that reads lines as WHATWG HTML 9.2.6 says: they end with CR, LF, or both.

use serde_json::Value;

use super::ws::{PATIENCE, tells_of};

/// One event of a stream.
#[derive(Debug, Clone, PartialEq)]
pub struct SseEvent {
    pub name: String,
    pub id: Option<String>,
    pub data: Value,
}

/// An open stream.
pub struct SseClient {
    response: reqwest::Response,
    line: Vec<u8>,
    after_cr: bool,
    lines: std::collections::VecDeque<String>,
    /// The comments met so far.
    pub comments: usize,
    /// Every event received, in order.
    pub transcript: Vec<SseEvent>,
}

impl SseClient {
    /// Asks for a stream; the answer as it is.
    pub async fn ask(url: &str, token: Option<&str>) -> reqwest::Response {
        let request = reqwest::Client::new().get(url);
        let request = token.into_iter().fold(request, |request, token| request.bearer_auth(token));
        request.send().await.expect("an answer")
    }

    /// Reads an answer that is a stream.
    pub fn of(response: reqwest::Response) -> Self {
        Self { response, line: Vec::new(), after_cr: false, lines: Default::default(), comments: 0, transcript: Vec::new() }
    }

    /// Opens a stream, and waits for the `subscribe` of each of its `keys` keys.
    pub async fn open(url: &str, token: Option<&str>, keys: usize) -> Self {
        let response = Self::ask(url, token).await;
        assert_eq!(response.status(), 200, "{}", response.text().await.unwrap_or_default());
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        let mut client = Self::of(response);
        for _ in 0..keys {
            let event = client.next().await.expect("a subscribe event");
            assert_eq!(event.name, "subscribe", "{event:?}");
        }
        client
    }

    /// The next event; `None` at the stream's end.
    pub async fn next(&mut self) -> Option<SseEvent> {
        let (mut name, mut id, mut data) = (String::from("message"), None, String::new());
        loop {
            let line = self.read_line().await?;
            match line.split_once(':').map(|(field, value)| (field, value.strip_prefix(' ').unwrap_or(value))) {
                Some(("", _)) => self.comments += 1,
                Some(("event", value)) => name = value.to_owned(),
                Some(("id", value)) => id = Some(value.to_owned()),
                Some(("data", value)) => data.push_str(value),
                Some(("retry", _)) => {}
                None if line.is_empty() && !data.is_empty() => {
                    let event = SseEvent { name, id, data: serde_json::from_str(&data).expect("data in JSON") };
                    self.transcript.push(event.clone());
                    return Some(event);
                }
                None if line.is_empty() => {}
                other => panic!("an unexpected line in the stream: {other:?}, {line:?}"),
            }
        }
    }

    /// What the next event with this name says; others are dropped.
    pub async fn pushed(&mut self, name: &str) -> Value {
        loop {
            let event = self.next().await.unwrap_or_else(|| panic!("the stream ended instead of {name}"));
            if event.name == name {
                return event.data[name].clone();
            }
        }
    }

    /// The very next event must have this name: nothing at all was told before it.
    pub async fn next_pushed(&mut self, name: &str) -> Value {
        let event = self.next().await.unwrap_or_else(|| panic!("the stream ended instead of {name}"));
        assert_eq!(event.name, name, "{event:?}");
        event.data[name].clone()
    }

    /// Reads on until it is told of the message with this UID.
    pub async fn hears(&mut self, uid: u32) {
        loop {
            let event = self.next().await.unwrap_or_else(|| panic!("the stream ended instead of message {uid}"));
            if tells_of(&event.data, uid) {
                return;
            }
        }
    }

    /// As [`super::ws::WsClient::never_heard`].
    pub fn never_heard(&self, uid: u32) {
        let told = self.transcript.iter().find(|event| tells_of(&event.data, uid));
        assert_eq!(told, None, "message {uid} was told: {:#?}", self.transcript);
    }

    /// Waits until this many comments have come.
    pub async fn heartbeats(&mut self, count: usize) {
        while self.comments < count {
            let line = self.read_line().await.expect("a heartbeat instead of the end");
            self.comments += usize::from(line.starts_with(':'));
        }
    }

    async fn read_line(&mut self) -> Option<String> {
        loop {
            if let Some(line) = self.lines.pop_front() {
                return Some(line);
            }
            let chunk = tokio::time::timeout(PATIENCE, self.response.chunk()).await.expect("a line within the patience");
            for byte in chunk.expect("the stream goes on or ends")? {
                let lf_of_crlf = std::mem::replace(&mut self.after_cr, byte == b'\r') && byte == b'\n';
                match byte {
                    _ if lf_of_crlf => {}
                    b'\r' | b'\n' => {
                        let line = std::mem::take(&mut self.line);
                        self.lines.push_back(String::from_utf8(line).expect("a stream in UTF-8"));
                    }
                    byte => self.line.push(byte),
                }
            }
        }
    }
}
