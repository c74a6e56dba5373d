//! `mailpush agent` as a process.

use std::fs::{self, File};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;

use super::fixtures::free_port;
use super::process::{die_with_parent, signal};
use super::wait::eventually;

const PATIENCE: Duration = Duration::from_secs(30);

/// One agent, on a free port, with a spool of its own.
pub struct TestAgent {
    folder: TempDir,
    process: Option<Child>,
    port: u16,
}

impl TestAgent {
    /// Reserves its port and its spool; nothing runs yet.
    pub fn new() -> Self {
        Self { folder: TempDir::with_prefix("mailpush-agent-").expect("make a folder"), process: None, port: free_port() }
    }

    /// Where it listens, such as `http://127.0.0.1:8081`.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// A path in its folder.
    pub fn path(&self, name: &str) -> String {
        self.folder.path().join(name).to_str().expect("a plain path").to_owned()
    }

    /// Starts `mailpush agent` and waits until it answers. `command` is the program with a cluster's settings.
    pub async fn launch(&mut self, mut command: Command, settings: &[&str]) {
        let log = File::options().create(true).append(true).open(self.path("log")).expect("the log");
        let own = [format!("agent.listen=127.0.0.1:{}", self.port), format!("agent.spool_dir={}", self.path("spool"))];
        for setting in own.iter().map(String::as_str).chain(settings.iter().copied()) {
            command.args(["--set", setting]);
        }
        die_with_parent(&mut command);
        let process = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn();
        self.process = Some(process.expect("start mailpush agent"));
        eventually("the agent answers", PATIENCE, async || {
            if let Some(status) = self.process.as_mut()?.try_wait().expect("its status") {
                panic!("the agent has ended ({status}):\n{}", self.log());
            }
            reqwest::get(format!("{}/livez", self.url())).await.ok()
        })
        .await;
    }

    /// `/readyz`: status and body.
    pub async fn ready(&self) -> (u16, Value) {
        let answer = reqwest::get(format!("{}/readyz", self.url())).await.expect("an answer");
        (answer.status().as_u16(), answer.json().await.expect("JSON"))
    }

    /// The value of a metric without labels.
    pub async fn metric(&self, name: &str) -> u64 {
        let answer = reqwest::get(format!("{}/metrics", self.url())).await.expect("an answer");
        let text = answer.text().await.expect("text");
        assert!(text.ends_with("# EOF\n") && text.matches("# EOF").count() == 1, "{text}");
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("no metric {name}:\n{text}")).parse().expect("a number")
    }

    /// `kill -9`.
    pub fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            let _ = process.kill();
            let _ = process.wait();
        }
    }

    /// SIGTERM; the exit code once it has ended.
    pub async fn terminate(&mut self) -> Option<i32> {
        let mut process = self.process.take().expect("a running agent");
        signal(process.id(), libc::SIGTERM);
        eventually("the agent stops", PATIENCE, async || process.try_wait().expect("its status")).await.code()
    }

    pub fn log(&self) -> String {
        fs::read_to_string(self.path("log")).unwrap_or_default()
    }
}

impl Drop for TestAgent {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            eprintln!("--- log of the agent ---\n{}", self.log());
        }
    }
}
