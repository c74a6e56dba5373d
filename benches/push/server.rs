//! The measured server: a process of its own, watched through `/proc`.

use std::fs;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use mailpush::config::{AuthSettings, Secret};
use mailpush::edge::auth::Scopes;
use mailpush::edge::auth::token::{TokenRequest, issue};
use mailpush::push::clock::unix_ms;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, BufReader};

use super::support::fixtures::free_port;
use super::support::process::die_with_parent;
use super::support::wait::eventually;

const SECRET: &str = "a secret for benches that is long enough";

/// The program that is measured.
pub fn binary() -> String {
    std::env::var("BENCH_BINARY").unwrap_or_else(|_| env!("CARGO_BIN_EXE_mailpush").to_owned())
}

/// Memory of a process, in KiB.
#[derive(Debug, Clone, Copy)]
pub struct Memory {
    pub resident: f64,
    /// What is shared with other processes counted by its share.
    pub proportional: f64,
}

/// Killed when dropped.
pub struct Server {
    process: Child,
    /// `host:port`.
    pub address: String,
    client: reqwest::Client,
    admin: String,
}

impl Server {
    /// `mailpush dev` with one node.
    pub async fn dev(settings: &[&str]) -> Self {
        let mut command = Self::command(settings);
        command.args(["dev", "--json", "--port", "0", "--imap-port", "0"]).stdout(Stdio::piped());
        let mut process = command.spawn().expect("start mailpush dev");
        let stdout = tokio::process::ChildStdout::from_std(process.stdout.take().expect("its output")).expect("read it");
        let line = BufReader::new(stdout).lines().next_line().await.expect("a line").expect("a description");
        let description: Value = serde_json::from_str(&line).expect("a description in JSON");
        let url = description["nodes"][0]["http"].as_str().expect("the node's URL");
        let address = url.trim_start_matches("http://").to_owned();
        Self::new(process, address)
    }

    /// `mailpush serve` with a real registry and queue.
    pub async fn serve(zookeeper: &str, kafka: &str) -> Self {
        Self::serve_with(zookeeper, kafka, &[]).await
    }

    /// The same with more settings.
    pub async fn serve_with(zookeeper: &str, kafka: &str, settings: &[&str]) -> Self {
        let address = format!("127.0.0.1:{}", free_port());
        let own = [
            &*format!("http.listen={address}"),
            &format!("registry.ensembles=[\"{zookeeper}\"]"),
            &format!("queue.brokers=[\"{kafka}\"]"),
        ];
        let mut command = Self::command(&[&own, settings].concat());
        let process = command.arg("serve").stdout(Stdio::null()).spawn().expect("start mailpush serve");
        let server = Self::new(process, address);
        let url = format!("http://{}/readyz", server.address);
        eventually("the node is ready", Duration::from_secs(60), || async {
            server.client.get(&url).send().await.ok().filter(|answer| answer.status().is_success()).map(drop)
        })
        .await;
        server
    }

    fn command(settings: &[&str]) -> Command {
        let mut command = Command::new(binary());
        for setting in settings.iter().chain(&[&*format!("auth.secret={SECRET}"), "log.filter=warn"]) {
            command.args(["--set", setting]);
        }
        die_with_parent(&mut command);
        command.stdin(Stdio::null());
        command
    }

    fn new(process: Child, address: String) -> Self {
        let admin = token("admin@example.org", Scopes::PUSH.with(Scopes::EVENTS_PUBLISH));
        Self { process, address, client: reqwest::Client::new(), admin }
    }

    /// Publishes a JSON event, or an array of them.
    pub async fn publish(&self, body: String) {
        let request = self.client.post(format!("http://{}/v1/events", self.address)).bearer_auth(&self.admin);
        let answer = request.header("content-type", "application/json").body(body).send().await.expect("publish");
        assert!(answer.status().is_success(), "{}: {}", answer.status(), answer.text().await.unwrap_or_default());
    }

    /// The resident set, in KiB.
    pub fn resident(&self) -> f64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.process.id())).expect("the server lives");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("its memory");
        line.trim().trim_end_matches(" kB").parse().expect("a number")
    }

    /// What the process takes.
    pub fn memory(&self) -> Memory {
        let rollup = fs::read_to_string(format!("/proc/{}/smaps_rollup", self.process.id())).expect("the server lives");
        let of = |key: &str| {
            let line = rollup.lines().find_map(|line| line.strip_prefix(key)).expect("its memory");
            line.trim().trim_end_matches(" kB").parse().expect("a number")
        };
        Memory { resident: of("Rss:"), proportional: of("Pss:") }
    }

    /// The value of a metric without labels.
    pub async fn metric(&self, name: &str) -> usize {
        let answer = self.client.get(format!("http://{}/metrics", self.address)).send().await.expect("the metrics");
        let text = answer.text().await.expect("the metrics");
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')).expect("the metric");
        line.parse().expect("a number")
    }

    /// CPU time so far, user's and system's, in seconds.
    pub fn cpu(&self) -> f64 {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.process.id())).expect("the server lives");
        // The name, in parentheses, may hold spaces.
        let fields: Vec<&str> = stat.rsplit_once(')').expect("a name").1.split_whitespace().collect();
        let ticks: f64 = fields[11].parse::<f64>().expect("utime") + fields[12].parse::<f64>().expect("stime");
        // SAFETY: no memory is involved.
        ticks / unsafe { libc::sysconf(libc::_SC_CLK_TCK) } as f64
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A token that the servers here accept for a day.
pub fn token(user: &str, scopes: Scopes) -> String {
    let settings = AuthSettings { secret: Secret::new(SECRET), ..AuthSettings::default() };
    let ttl = Duration::from_secs(24 * 3600);
    let request = TokenRequest { user: user.to_owned(), groups: Vec::new(), scopes, ttl, key_id: None };
    issue(&settings, &request, unix_ms()).expect("a token")
}
