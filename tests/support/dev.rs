//! A `mailpush dev` process: a whole cluster without ZooKeeper and Kafka, for tests of the doors.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::io::AsyncBufReadExt;

use super::process::{die_with_parent, signal};
use super::wait::eventually;

/// What tokens of the clusters of [`DevCluster::with_secret`] are signed with.
pub const SECRET: &str = "a secret of more than thirty-two bytes, for tests";

/// Killed when dropped.
pub struct DevCluster {
    process: Child,
    description: Value,
    /// What it has written to standard error.
    log: Arc<Mutex<String>>,
}

impl DevCluster {
    pub async fn start(nodes: usize) -> Self {
        Self::start_with(nodes, &[]).await
    }

    /// One node that accepts tokens signed with [`SECRET`], logs all it can, and has these settings.
    pub async fn with_secret(settings: &[&str]) -> Self {
        let secret = format!("auth.secret={SECRET}");
        Self::start_with(1, &[&[&secret, "log.filter=trace"], settings].concat()).await
    }

    /// With settings, such as `sessions.heartbeat_ms=200`.
    pub async fn start_with(nodes: usize, settings: &[&str]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_mailpush"));
        command.args(["dev", "--json", "--port", "0", "--imap-port", "0", "--nodes", &nodes.to_string()]);
        for setting in settings {
            command.args(["--set", setting]);
        }
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("MAILPUSH_")) {
            command.env_remove(name);
        }
        die_with_parent(&mut command);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut process = command.spawn().expect("start mailpush dev");
        let log = Arc::new(Mutex::new(String::new()));
        let stderr = BufReader::new(process.stderr.take().expect("its standard error"));
        let written = log.clone();
        std::thread::spawn(move || {
            for line in stderr.lines().map_while(Result::ok) {
                let mut log = written.lock().expect("nobody panics with the log");
                log.push_str(&line);
                log.push('\n');
            }
        });
        let stdout = process.stdout.take().expect("its standard output");
        let stdout = tokio::process::ChildStdout::from_std(stdout).expect("read its standard output");
        let line = tokio::io::BufReader::new(stdout).lines().next_line().await.expect("read a line");
        let line = line.unwrap_or_else(|| panic!("no line of JSON: {}", log.lock().expect("the log")));
        Self { process, description: serde_json::from_str(&line).expect("a description in JSON"), log }
    }

    pub fn http(&self, node: usize) -> String {
        self.text(&format!("/nodes/{node}/http"))
    }

    pub fn ws(&self, node: usize) -> String {
        self.text(&format!("/nodes/{node}/ws"))
    }

    /// Where a node's IMAP door is.
    pub fn imap(&self, node: usize) -> String {
        self.text(&format!("/nodes/{node}/imap"))
    }

    /// Where the mail store itself is.
    pub fn store_imap(&self) -> String {
        self.text("/store_imap")
    }

    /// The token of alice (0), bob (1) or carol (2).
    pub fn token(&self, user: usize) -> String {
        self.text(&format!("/users/{user}/token"))
    }

    pub fn admin_token(&self) -> String {
        self.text("/admin_token")
    }

    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    /// What it has logged so far.
    pub fn log(&self) -> String {
        self.log.lock().expect("the log").clone()
    }

    /// Neither its own secrets nor these are in the log.
    pub fn assert_silent_about(&self, secrets: &[&str]) {
        let log = self.log();
        let own = [SECRET.to_owned(), self.admin_token(), self.token(0), self.token(1), self.token(2)];
        for secret in own.iter().map(String::as_str).chain(secrets.iter().copied()) {
            // Of a token, the part that makes it one.
            let telling = secret.rsplit('.').next().unwrap_or(secret);
            let line = log.lines().find(|line| line.contains(telling));
            assert_eq!(line, None, "a secret is in the log");
        }
    }

    /// Publishes an event, or a batch, at a node; all of it must be accepted.
    pub async fn publish(&self, node: usize, events: Value) {
        let client = reqwest::Client::new();
        let request = client.post(format!("{}/v1/events", self.http(node))).bearer_auth(self.admin_token());
        let answer = request.json(&events).send().await.expect("an answer");
        let status = answer.status();
        assert!(status.is_success(), "{status}: {}", answer.text().await.unwrap_or_default());
    }

    /// What a GET of the administrator's answers.
    pub async fn get(&self, path: &str) -> Value {
        let request = reqwest::Client::new().get(format!("{}{path}", self.http(0))).bearer_auth(self.admin_token());
        request.send().await.expect("an answer").json().await.expect("JSON")
    }

    /// Waits until the cluster has this many sessions.
    pub async fn sessions(&self, count: usize) -> Vec<Value> {
        let counted = || async {
            let answer = self.get("/v1/sessions?limit=1000").await;
            let sessions = answer["sessions"].as_array().cloned().unwrap_or_default();
            (sessions.len() == count).then_some(sessions)
        };
        eventually(&format!("{count} sessions"), Duration::from_secs(10), counted).await
    }

    /// The memory that the process holds now.
    pub fn resident_bytes(&self) -> usize {
        let statm = std::fs::read_to_string(format!("/proc/{}/statm", self.pid())).expect("the process's memory");
        let pages: usize = statm.split(' ').nth(1).and_then(|pages| pages.parse().ok()).expect("a number of pages");
        pages * 4096
    }

    /// Sends SIGTERM and goes on.
    pub fn terminate(&self) {
        signal(self.pid(), libc::SIGTERM);
    }

    /// Waits for the process's own end.
    pub async fn ended(&mut self, deadline: Duration) -> ExitStatus {
        let end = Instant::now() + deadline;
        loop {
            if let Some(status) = self.process.try_wait().expect("ask for its status") {
                return status;
            }
            assert!(Instant::now() < end, "still running after {deadline:?}: {}", self.log());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    fn text(&self, pointer: &str) -> String {
        self.description.pointer(pointer).and_then(Value::as_str).expect("a text in the description").to_owned()
    }
}

impl Drop for DevCluster {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        if std::thread::panicking() {
            let log = self.log();
            let tail = log.lines().rev().take(40).collect::<Vec<_>>();
            eprintln!("the cluster's last words:\n{}", tail.into_iter().rev().collect::<Vec<_>>().join("\n"));
        }
    }
}

/// Seconds since 1970, as tokens count them.
pub fn unix_seconds() -> f64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("a clock after 1970").as_secs_f64()
}

/// Alice's claims, good for `ttl` seconds.
pub fn claims(ttl: f64) -> Value {
    json!({ "sub": "alice@example.org", "aud": "mailpush", "exp": unix_seconds() + ttl, "scope": "push" })
}

/// A token of the clusters of [`DevCluster::with_secret`], with any claims.
pub fn sign(claims: &Value) -> String {
    sign_with(claims, SECRET)
}

/// A token signed with any secret.
pub fn sign_with(claims: &Value, secret: &str) -> String {
    let key = jsonwebtoken::EncodingKey::from_secret(secret.as_bytes());
    jsonwebtoken::encode(&jsonwebtoken::Header::default(), claims, &key).expect("a token")
}
