//! The process and its surroundings: a log that cannot be written, few open files, signals, a proxy in the environment.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::os::fd::AsRawFd;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use crate::support::process::{die_with_parent, signal};
use crate::support::wait::eventually;
use crate::support::ws::WsClient;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

const INBOX: &str = "#private:alice@example.org:INBOX";
const PATIENCE: Duration = Duration::from_secs(60);

/// `mailpush dev` on ports of its own, started by a shell that first does what `before` says.
fn dev(before: &str, args: &[&str]) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", &format!("{before} exec \"$0\" \"$@\""), env!("CARGO_BIN_EXE_mailpush")]);
    command.args(["dev", "--json", "--port", "0", "--imap-port", "0"]).args(args);
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("MAILPUSH_")) {
        command.env_remove(name);
    }
    die_with_parent(&mut command);
    command.stdin(Stdio::null()).stdout(Stdio::piped());
    command
}

/// A running cluster; killed when dropped.
struct Running {
    process: Child,
    description: Value,
}

impl Running {
    fn start(mut command: Command) -> Self {
        let mut process = command.spawn().expect("start mailpush");
        let mut line = String::new();
        BufReader::new(process.stdout.take().expect("its output")).read_line(&mut line).expect("a line");
        let description = serde_json::from_str(&line).unwrap_or_else(|_| panic!("no description: {:?}", process.wait()));
        Self { process, description }
    }

    fn text(&self, pointer: &str) -> &str {
        self.description.pointer(pointer).and_then(Value::as_str).expect("a text")
    }

    async fn connect(&self) -> WsClient {
        let mut client = WsClient::connect(self.text("/nodes/0/ws"), self.text("/users/0/token")).await;
        client.subscribe(INBOX).await;
        client
    }

    async fn get(&self, path: &str) -> (u16, String) {
        let client = reqwest::Client::builder().no_proxy().timeout(PATIENCE).build().expect("a client");
        let request = client.get(format!("{}{path}", self.text("/nodes/0/http"))).bearer_auth(self.text("/admin_token"));
        let answer = request.send().await.expect("an answer");
        (answer.status().as_u16(), answer.text().await.expect("a text"))
    }

    fn signal(&self, number: i32) {
        signal(self.process.id(), number);
    }

    async fn ended(&mut self) -> ExitStatus {
        eventually("the process ends", PATIENCE, async || self.process.try_wait().expect("its status")).await
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// What standard error is, and what must live as long as the process.
fn standard_errors() -> Vec<(&'static str, Stdio, Option<std::io::PipeReader>)> {
    let (reader, dead) = std::io::pipe().expect("a pipe");
    drop(reader);
    let (unread, full) = std::io::pipe().expect("a pipe");
    // SAFETY: no memory is involved. It holds as little as a pipe can, so that a few lines fill it.
    assert!(unsafe { libc::fcntl(full.as_raw_fd(), libc::F_SETPIPE_SZ, 4096) } >= 0);
    vec![
        ("a pipe whose reader has died", dead.into(), None),
        ("a full disk", File::options().write(true).open("/dev/full").expect("/dev/full").into(), None),
        ("a pipe that nobody reads", full.into(), Some(unread)),
    ]
}

#[tokio::test]
async fn a_log_that_cannot_be_written_costs_log_lines_and_nothing_else() {
    for args in [&[][..], &["-vv"]] {
        for (what, stderr, _kept) in standard_errors() {
            let mut command = dev("", args);
            command.stderr(stderr);
            let mut running = Running::start(command);
            let mut client = running.connect().await;
            // At the level of everything this is more than a pipe holds.
            for _ in 0..60 {
                assert_eq!(running.get("/v1/sessions").await.0, 200, "{what}");
            }
            client.expect_quiet().await;
            running.signal(libc::SIGTERM);
            assert_eq!(client.goodbye().await["code"], 4412, "{what}");
            assert!(running.ended().await.success(), "{what}");
        }
    }
    let mut running = Running::start(dev("exec 2>&-;", &["-vv"]));
    assert_eq!(running.get("/livez").await.0, 200);
    running.signal(libc::SIGTERM);
    assert!(running.ended().await.success(), "closed");
}

#[tokio::test]
async fn a_bound_without_end_is_a_bound() {
    let most = usize::MAX;
    let settings = ["http.max_connections", "imap.max_connections", "imap.unauthenticated_connections"];
    let settings: Vec<String> = settings.iter().map(|name| format!("{name}={most}")).collect();
    let args: Vec<&str> = settings.iter().flat_map(|setting| ["--set", setting.as_str()]).collect();
    let unauthenticated = format!("sessions.unauthenticated_sockets={most}");
    let mut command = dev("", &[&args[..], &["--set", &unauthenticated]].concat());
    command.stderr(Stdio::null());
    let running = Running::start(command);
    assert_eq!(running.get("/livez").await.0, 200);
    running.connect().await;
}

/// Lines of a log, as they are written.
fn lines_of(process: &mut Child) -> std::sync::Arc<std::sync::Mutex<Vec<String>>> {
    let lines = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    let (written, stderr) = (lines.clone(), BufReader::new(process.stderr.take().expect("its log")));
    std::thread::spawn(move || {
        for line in stderr.lines().map_while(Result::ok) {
            written.lock().expect("the log").push(line);
        }
    });
    lines
}

#[tokio::test]
async fn signals_that_mean_nothing_change_nothing() {
    let mut command = dev("", &[]);
    command.stderr(Stdio::piped());
    let mut running = Running::start(command);
    let log = lines_of(&mut running.process);
    let mut client = running.connect().await;
    for (number, name) in [(libc::SIGHUP, "SIGHUP"), (libc::SIGUSR1, "SIGUSR1"), (libc::SIGUSR2, "SIGUSR2")] {
        running.signal(number);
        let told = async || log.lock().expect("the log").iter().any(|line| line.contains(name)).then_some(());
        eventually(name, PATIENCE, told).await;
        client.expect_quiet().await;
    }
    running.signal(libc::SIGTERM);
    assert_eq!(client.goodbye().await["code"], 4412);
    assert!(running.ended().await.success());
}

#[tokio::test]
async fn a_second_signal_hastens_the_drain() {
    for second in [libc::SIGTERM, libc::SIGINT] {
        // At one a second, the last of them would wait for half a minute.
        let mut command = dev("", &["--set", "node.drain_rate=1", "--set", "node.drain_deadline_ms=60000"]);
        command.stderr(Stdio::null());
        let mut running = Running::start(command);
        let mut clients = Vec::new();
        for _ in 0..30 {
            clients.push(running.connect().await);
        }
        let begun = Instant::now();
        running.signal(libc::SIGTERM);
        eventually("the drain begins", PATIENCE, async || (running.get("/readyz").await.0 == 503).then_some(())).await;
        running.signal(second);
        for client in &mut clients {
            assert_eq!(client.goodbye().await["code"], 4412);
        }
        assert!(running.ended().await.success());
        assert!(begun.elapsed() < Duration::from_secs(15), "{:?}", begun.elapsed());
    }
}

/// The limits of a process: soft and hard.
fn open_files(running: &Running) -> (String, String) {
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", running.process.id())).expect("its limits");
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files")).expect("the limit").to_owned();
    let mut words = line.split_whitespace().map(str::to_owned);
    (words.next().expect("soft"), words.next().expect("hard"))
}

#[tokio::test]
async fn the_soft_limit_of_open_files_is_raised() {
    let mut command = dev("ulimit -Sn 200;", &[]);
    command.stderr(Stdio::null());
    let (soft, hard) = open_files(&Running::start(command));
    assert_eq!(soft, hard);
    assert_ne!(soft, "200");
}

#[tokio::test]
async fn a_node_without_open_files_answers_probes_and_says_goodbye() {
    let mut command = dev("ulimit -n 256;", &["--set", "http.header_timeout_ms=60000"]);
    command.stderr(Stdio::piped());
    let mut running = Running::start(command);
    let log = lines_of(&mut running.process);
    let mut client = running.connect().await;
    // More than it can have, by both doors; each needs a second one to the mail server at one of them.
    let mut others = Vec::new();
    let http = running.text("/nodes/0/http").trim_start_matches("http://").to_owned();
    let imap = running.text("/nodes/0/imap").to_owned();
    for number in 0..600 {
        let door = if number % 2 == 0 { &http } else { &imap };
        others.push(TcpStream::connect(door).await.expect("a connection"));
    }
    for _ in 0..5 {
        let begun = Instant::now();
        let (status, body) = running.get("/livez").await;
        assert_eq!((status, body.as_str()), (200, r#"{"status":"ok"}"#));
        assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
        assert_eq!(running.get("/metrics").await.0, 200);
        client.expect_quiet().await;
    }
    // Connections that were turned away have left a few files free: those are taken first.
    let refused = async || {
        others.push(TcpStream::connect(&http).await.expect("a connection"));
        (running.get("/v1/sessions").await.0 == 503).then_some(())
    };
    eventually("others are told that there is no room", PATIENCE, refused).await;
    let lines = log.lock().expect("the log").clone();
    assert!(lines.iter().any(|line| line.contains("no open files left")), "{lines:#?}");
    assert!(lines.len() < 40, "{} lines: {lines:#?}", lines.len());
    running.signal(libc::SIGTERM);
    assert_eq!(client.goodbye().await["code"], 4412);
    assert!(running.ended().await.success());
    drop(others);
}

/// A proxy that hears of whatever comes to it, and answers nothing.
async fn proxy() -> (String, tokio::sync::mpsc::UnboundedReceiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("its address"));
    let (heard, hears) = tokio::sync::mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut request = vec![0; 1024];
            let length = stream.read(&mut request).await.unwrap_or(0);
            let _ = heard.send(String::from_utf8_lossy(&request[..length]).into_owned());
            let _ = stream.write_all(b"HTTP/1.1 502 Bad Gateway\r\ncontent-length: 0\r\n\r\n").await;
        }
    });
    (url, hears)
}

/// Every way to name a proxy to the programs of a machine.
fn with_proxy(command: &mut Command, url: &str) {
    for name in ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"] {
        command.env(name, url).env(name.to_lowercase(), url);
    }
    command.env_remove("NO_PROXY").env_remove("no_proxy");
}

/// The exit code of a command of the program's.
fn run(args: &[&str], proxy: &str, environment: &[(&str, &str)]) -> i32 {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mailpush"));
    with_proxy(&mut command, proxy);
    command.args(args).envs(environment.iter().copied()).stdin(Stdio::null());
    command.output().expect("run mailpush").status.code().expect("an exit code")
}

#[tokio::test]
async fn a_proxy_in_the_environment_hears_nothing() {
    let (url, mut hears) = proxy().await;
    let mut command = dev("", &["--nodes", "2"]);
    with_proxy(&mut command, &url);
    command.stderr(Stdio::null());
    let running = Running::start(command);
    for path in ["/v1/sessions", "/v1/subscriptions", "/v1/nodes"] {
        let (status, body) = running.get(path).await;
        let body: Value = serde_json::from_str(&body).expect("JSON");
        assert_eq!((status, &body["partial"]), (200, &json!([])), "{path}");
    }
    let node = running.text("/nodes/0/http").to_owned();
    let (token, proxied) = (running.text("/admin_token").to_owned(), url.clone());
    let codes = tokio::task::spawn_blocking(move || {
        let remote = [("MAILPUSH_URL", node.as_str()), ("MAILPUSH_TOKEN", token.as_str())];
        let by_node = [&["nodes"][..], &["subscriptions"]].map(|args| run(args, &proxied, &remote));
        // Port 9 discards, where anything listens at all.
        let keys = [("MAILPUSH_AUTH_JWKS_URL", "https://127.0.0.1:9/"), ("MAILPUSH_TOKEN", "a.b.c")];
        (by_node, run(&["token", "check"], &proxied, &keys))
    });
    let (by_node, keys) = codes.await.expect("all commands");
    assert_eq!((by_node, keys), ([0; 2], 1));
    assert!(hears.try_recv().is_err(), "nobody asks it");
}

#[tokio::test]
async fn a_proxy_that_a_setting_names_is_asked() {
    let ((peers, mut of_peers), (issuer, mut of_issuer), (flag, mut of_flag)) = (proxy().await, proxy().await, proxy().await);
    let setting = format!("http.peer_proxy={peers}");
    let mut command = dev("", &["--nodes", "2", "--set", &setting]);
    command.stderr(Stdio::null());
    let running = Running::start(command);
    let (_, body) = running.get("/v1/sessions").await;
    assert!(body.contains("it answered 502"), "{body}");
    assert!(of_peers.recv().await.expect("a request").starts_with("GET http://127.0.0.1:"));
    let node = running.text("/nodes/0/http").to_owned();
    let asked = tokio::task::spawn_blocking(move || {
        let remote = [("MAILPUSH_URL", node.as_str()), ("MAILPUSH_TOKEN", "t"), ("MAILPUSH_PROXY", flag.as_str())];
        let keys = [("MAILPUSH_AUTH_JWKS_URL", "https://issuer.example/"), ("MAILPUSH_AUTH_JWKS_PROXY", issuer.as_str())];
        (run(&["nodes"], "", &remote), run(&["token", "check", "a.b.c"], "", &keys))
    });
    assert_eq!(asked.await.expect("both commands").0, 69);
    assert!(of_flag.recv().await.expect("a request").starts_with("GET http://127.0.0.1:"));
    assert!(of_issuer.recv().await.expect("a request").starts_with("CONNECT issuer.example:443 "));
}
