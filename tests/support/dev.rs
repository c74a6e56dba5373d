//! A `mailpush dev` process: a whole cluster without ZooKeeper and Kafka, for tests of the doors.

use std::process::{Child, Command, Stdio};

use serde_json::Value;
use tokio::io::{AsyncBufReadExt, BufReader};

use super::process::die_with_parent;

/// Killed when dropped.
pub struct DevCluster {
    process: Child,
    description: Value,
}

impl DevCluster {
    pub async fn start(nodes: usize) -> Self {
        Self::start_with(nodes, &[]).await
    }

    /// With settings, such as `sessions.heartbeat_ms=200`.
    pub async fn start_with(nodes: usize, settings: &[&str]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_mailpush"));
        command.args(["dev", "--json", "--port", "0", "--nodes", &nodes.to_string()]);
        for setting in settings {
            command.args(["--set", setting]);
        }
        die_with_parent(&mut command);
        let mut process = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().expect("start mailpush dev");
        let stdout = process.stdout.take().expect("its standard output");
        let stdout = tokio::process::ChildStdout::from_std(stdout).expect("read its standard output");
        let line = BufReader::new(stdout).lines().next_line().await.expect("read a line").expect("one line of JSON");
        Self { process, description: serde_json::from_str(&line).expect("a description in JSON") }
    }

    pub fn http(&self, node: usize) -> String {
        self.text(&format!("/nodes/{node}/http"))
    }

    pub fn ws(&self, node: usize) -> String {
        self.text(&format!("/nodes/{node}/ws"))
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

    fn text(&self, pointer: &str) -> String {
        self.description.pointer(pointer).and_then(Value::as_str).expect("a text in the description").to_owned()
    }
}

impl Drop for DevCluster {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
