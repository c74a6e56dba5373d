//! The program as a shell sees it: output, exit codes, pipes.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener};
use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};

use crate::support::acls::AclNode;
use crate::support::dev::DevCluster;

const SECRET: &str = "a secret of more than thirty-two bytes, for tests";

/// `mailpush` with nothing of our own environment's settings.
fn mailpush(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mailpush"));
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("MAILPUSH_")) {
        command.env_remove(name);
    }
    command.args(args).env("NO_COLOR", "1");
    command
}

fn keyed(args: &[&str]) -> Command {
    let mut command = mailpush(args);
    command.env("MAILPUSH_AUTH_SECRET", SECRET);
    command
}

fn run(mut command: Command) -> Output {
    command.stdin(Stdio::null()).output().expect("run mailpush")
}

/// Runs with `input` on standard input.
fn pipe(mut command: Command, input: &str) -> Output {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("run mailpush");
    child.stdin.take().expect("its input").write_all(input.as_bytes()).expect("write its input");
    child.wait_with_output().expect("its output")
}

fn out(output: &Output) -> &str {
    std::str::from_utf8(&output.stdout).expect("UTF-8 output")
}

fn err(output: &Output) -> &str {
    std::str::from_utf8(&output.stderr).expect("UTF-8 errors")
}

fn code(output: &Output) -> i32 {
    output.status.code().unwrap_or_else(|| panic!("killed: {output:?}"))
}

#[test]
fn five_faults_are_five_lines() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("mailpush.toml");
    std::fs::write(&file, "[http]\nlisten = 'here'\n[queue]\nprefx = 'a'\nretention_ms = 5\n").unwrap();
    let mut command = keyed(&["check", "--config", file.to_str().unwrap(), "--set", "node.id=a b"]);
    command.env("MAILPUSH_SESSIONS_HEARTBEAT_MS", "soon");
    let output = run(command);
    assert_eq!(code(&output), 64);
    let told = err(&output);
    assert!(told.starts_with("mailpush: the configuration has 5 faults:\n"), "{told}");
    let lines: Vec<_> = told.lines().filter(|line| line.starts_with("  - ")).collect();
    assert_eq!(lines.len(), 5, "{told}");
    for setting in ["http.listen", "queue.prefx", "queue.retention_ms", "node.id", "sessions.heartbeat_ms"] {
        assert!(lines.iter().any(|line| line.starts_with(&format!("  - {setting} "))), "{setting}\n{told}");
    }
    assert!(told.contains("mailpush.toml, line 5"), "{told}");
    assert_eq!(out(&output), "");
}

#[test]
fn the_printed_defaults_are_a_good_configuration() {
    let printed = run(mailpush(&["check", "--print-default"]));
    assert_eq!(code(&printed), 0);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("mailpush.toml");
    std::fs::write(&file, out(&printed)).unwrap();
    let output = run(keyed(&["check", "--offline", "--config", file.to_str().unwrap()]));
    let expected = "the configuration is good\n\
                    WARN queue.replication is 1. While a broker is away its queues are away too, and a lost disk loses their events. \
                    Set it to 3 in production.\n";
    assert_eq!((code(&output), out(&output)), (0, expected), "{}", err(&output));
    let mut by_variable = keyed(&["check", "--offline"]);
    by_variable.env("MAILPUSH_CONFIG", &file);
    assert_eq!(code(&run(by_variable)), 0);
    assert_eq!(code(&run(keyed(&["check", "--offline", "--config", "/nowhere.toml"]))), 64);
}

#[test]
fn an_agents_configuration_is_checked_as_one() {
    // No key to tokens: it needs none.
    let output = run(mailpush(&["check", "--agent", "--offline"]));
    assert_eq!(code(&output), 0, "{}", err(&output));
    assert_eq!(out(&output), "the configuration is good\naccess.source is registry: it must be the gateways'\n");
    let master = ["--set", "agent.imap.master_user=gw", "--set", "agent.imap.master_password=p"];
    let output = run(mailpush(&[&["check", "--agent", "--offline"], &master[..]].concat()));
    assert!(out(&output).ends_with("access.source is imap: it must be the gateways'\n"), "{}", out(&output));
    assert_eq!(code(&run(mailpush(&["check", "--agent", "--set", "agent.token=short"]))), 64);
    let output = run(mailpush(&["check", "--agent", "--user", "alice"]));
    assert!(code(&output) == 64 && err(&output).contains("agent.imap.master_user"), "{}", err(&output));
}

#[test]
fn check_tells_what_is_not_there() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let listen = format!("http.listen={}", taken.local_addr().unwrap());
    let output = run(keyed(&["check", "--set", &listen]));
    assert_eq!(code(&output), 69, "{output:?}");
    assert!(out(&output).contains("FAIL listening on 127.0.0.1:") && out(&output).contains("in use"), "{}", out(&output));
    assert!(out(&output).contains("ok   keys for tokens: 1 usable"), "{}", out(&output));

    let keys = "auth.public_key_file=/nowhere.pem";
    let output = run(mailpush(&["check", "--set", keys, "--set", "http.listen=127.0.0.1:0"]));
    assert_eq!(code(&output), 69);
    assert!(out(&output).contains("FAIL keys for tokens: cannot read /nowhere.pem"), "{}", out(&output));
    assert!(out(&output).contains("ok   listening on 127.0.0.1:0"), "{}", out(&output));
}

/// An address on which nobody listens.
fn closed() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a free port")
}

/// A mail server, as far as `check` asks. `told`: what it says of a PROXY header.
fn mail_server(told: &'static str) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            std::thread::spawn(move || {
                let mut writer = &stream;
                let _ = writer.write_all(b"* OK ready\r\n");
                for line in BufReader::new(&stream).lines().map_while(Result::ok) {
                    let answer = match line.split_once(' ') {
                        Some(("PROXY", _)) => told.to_owned(),
                        Some((tag, _)) => format!("{tag} OK done\r\n"),
                        None => "* BAD what?\r\n".to_owned(),
                    };
                    let _ = writer.write_all(answer.as_bytes());
                }
            });
        }
    });
    address
}

#[test]
fn check_names_causes_and_lets_no_library_speak() {
    let (zookeeper, kafka, keys, mail) = (closed(), closed(), closed(), closed());
    let output = run(mailpush(&[
        "check",
        "--set",
        "http.listen=127.0.0.1:0",
        "--set",
        &format!("registry.ensembles={zookeeper},zk.invalid:2181"),
        "--set",
        &format!("queue.brokers={kafka}"),
        "--set",
        &format!("auth.jwks_url=http://{keys}/"),
        "--set",
        "imap.listen=127.0.0.1:0",
        "--set",
        &format!("imap.upstream.addresses={mail},mx.invalid:143"),
    ]));
    assert_eq!(code(&output), 69, "{output:?}");
    assert_eq!(err(&output), "mailpush: 5 of 7 dependencies failed\n");
    let lines: Vec<_> = out(&output).lines().filter(|line| !line.starts_with("WARN ")).collect();
    // Where there is no name server at all, that is the cause.
    let no_name = |line: &str, before: &str| {
        let cause = line.strip_prefix(before).unwrap_or_else(|| panic!("{line}"));
        assert!(cause == "the name does not resolve" || cause.contains("the name server does not answer"), "{line}");
    };
    assert_eq!(lines[0], "the configuration is good");
    assert_eq!(lines[1], "FAIL keys for tokens: the key set cannot be fetched: error sending request: connection refused");
    assert_eq!(lines[2], "ok   listening on 127.0.0.1:0: possible");
    let ensemble = format!("{zookeeper},zk.invalid:2181");
    no_name(lines[3], &format!("FAIL ZooKeeper at {ensemble}: {zookeeper}: connection refused; zk.invalid:2181: "));
    assert_eq!(lines[4], format!("FAIL Kafka at {kafka}: connection refused"));
    assert_eq!(lines[5], "ok   listening on 127.0.0.1:0: possible");
    assert_eq!(lines[6], format!("FAIL the mail server {mail}: connection refused"));
    no_name(lines[7], "FAIL the mail server mx.invalid:143: ");
    assert_eq!(lines.len(), 8, "{lines:?}");
}

#[test]
fn servers_of_one_ensemble_are_not_taken_for_three_in_silence() {
    let args = ["check", "--offline", "--set", r#"registry.ensembles=["zk-1:2181","zk-2:2181","zk-3:2181"]"#];
    let output = run(keyed(&args));
    assert_eq!((code(&output), err(&output)), (0, ""), "{output:?}");
    let warned =
        out(&output).lines().find(|line| line.starts_with("WARN registry.ensembles names 3 ensembles, each of one server"));
    assert!(warned.is_some_and(|line| line.contains(r#"["zk-1:2181,zk-2:2181,zk-3:2181"]"#)), "{}", out(&output));
    // So do the commands that use them; this one ends at once.
    let output =
        run(keyed(&["gc", "--set", "registry.ensembles=127.0.0.1:1;127.0.0.1:2", "--set", "registry.lookup_timeout_ms=1"]));
    assert_eq!(code(&output), 69, "{output:?}");
    assert!(err(&output).contains("WARN") && err(&output).contains("names 2 ensembles, each of one server"), "{}", err(&output));
}

#[test]
fn too_few_open_files_are_told() {
    let program = env!("CARGO_BIN_EXE_mailpush");
    let refused = format!("registry.ensembles={}", closed());
    let mut command = Command::new("bash");
    command.args(["-c", "ulimit -n 256; exec \"$0\" \"$@\"", program, "check", "--set", "http.max_connections=500"]);
    command.args(["--set", &refused, "--set", &format!("queue.brokers={}", closed())]).env("MAILPUSH_AUTH_SECRET", SECRET);
    let output = run(command);
    let warning = "WARN http.max_connections need 500 open files, and 32 are kept for everything else, but 256 are allowed here";
    assert!(out(&output).contains(warning), "{output:?}");
}

#[test]
fn a_mail_server_that_does_not_expect_a_proxy_header_is_found_out() {
    let check = |told: &'static str, version: &str| {
        let upstream = format!("imap.upstream.addresses={}", mail_server(told));
        let header = format!("imap.upstream.proxy_protocol={version}");
        let mut args = vec!["check", "--set", "imap.listen=127.0.0.1:0", "--set", &upstream, "--set", &header];
        let (registry, queue) = (format!("registry.ensembles={}", closed()), format!("queue.brokers={}", closed()));
        args.extend(["--set", &registry, "--set", &queue]);
        let output = run(keyed(&args));
        out(&output).lines().find(|line| line.contains(" the mail server 127.")).expect("a line").to_owned()
    };
    assert!(check("", "v1").starts_with("ok   the mail server 127.0.0.1:"));
    assert!(check("PROXY BAD Error in IMAP command\r\n", "none").starts_with("ok   the mail server 127.0.0.1:"));
    for (told, version) in [("PROXY BAD Error in IMAP command\r\n", "v1"), ("* BAD Error\r\n", "v1"), ("", "v2")] {
        let line = check(told, version);
        assert!(line.starts_with("FAIL the mail server") && line.contains("does not expect a PROXY header"), "{line}");
    }
}

/// What scripts, files and Kubernetes' secrets leave behind a secret.
#[test]
fn a_line_end_behind_a_secret_or_token_is_no_part_of_it() {
    let mut issue = mailpush(&["token", "issue", "--user", "alice"]);
    issue.env("MAILPUSH_AUTH_SECRET", format!("{SECRET}\n"));
    let issued = run(issue);
    assert_eq!(code(&issued), 0, "{}", err(&issued));
    let checked = pipe(keyed(&["token", "check", "-"]), out(&issued));
    assert_eq!(code(&checked), 0, "{}", out(&checked));
    // A token too: the request can be made at all, and finds nobody.
    let mut nodes = mailpush(&["nodes", "--url", &format!("http://{}", closed())]);
    nodes.env("MAILPUSH_TOKEN", out(&issued));
    let output = run(nodes);
    assert!(code(&output) == 69 && err(&output).contains("no connection"), "{}", err(&output));
}

#[test]
fn an_issued_token_is_accepted() {
    let args = ["token", "issue", "--user", "Alice", "--scope", "push", "--scope", "events:publish", "--group", "staff"];
    let issued = run(keyed(&[&args[..], &["--ttl", "15m"]].concat()));
    assert_eq!(code(&issued), 0, "{}", err(&issued));
    let token = out(&issued);

    let checked = pipe(keyed(&["token", "check", "-", "--json"]), &format!("Bearer {token}"));
    assert_eq!(code(&checked), 0, "{}", err(&checked));
    let report: Value = serde_json::from_str(out(&checked)).unwrap();
    assert_eq!(report["valid"], true);
    assert_eq!(report["identity"]["user"], "alice");
    assert_eq!(report["identity"]["scopes"], "push events:publish");
    assert_eq!(report["identity"]["groups"][0], "staff");
    assert_eq!(report["header"]["alg"], "HS256");
    let claims = &report["claims"];
    assert_eq!(claims["exp"].as_u64().unwrap() - claims["iat"].as_u64().unwrap(), 900);

    let human = run(keyed(&["token", "check", token.trim()]));
    assert!(out(&human).starts_with("valid\nuser     alice\nscopes   push events:publish\n"), "{}", out(&human));
    let mut by_variable = keyed(&["token", "check"]);
    by_variable.env("MAILPUSH_TOKEN", token.trim());
    assert_eq!(code(&run(by_variable)), 0);

    let mut other = mailpush(&["token", "check", "-", "--json"]);
    other.env("MAILPUSH_AUTH_SECRET", "another secret of more than thirty-two bytes");
    let refused = pipe(other, token);
    assert_eq!(code(&refused), 1);
    let report: Value = serde_json::from_str(out(&refused)).unwrap();
    assert_eq!((&report["valid"], &report["error"]), (&false.into(), &"token_bad_signature".into()));
    assert_eq!(report["claims"]["sub"], "alice");
    let nonsense = pipe(keyed(&["token", "check", "-"]), "nonsense");
    assert_eq!(code(&nonsense), 1);
    assert!(out(&nonsense).starts_with("refused: the token is malformed (token_malformed)\n"), "{}", out(&nonsense));
}

#[test]
fn a_token_needs_a_key_and_sense() {
    let output = run(mailpush(&["token", "issue", "--user", "alice"]));
    assert_eq!(code(&output), 64);
    assert!(err(&output).contains("set auth.secret or auth.private_key_file"), "{}", err(&output));
    let issued = run(keyed(&["token", "issue", "--user", "a", "--scope", "acl:read", "--scope", "acl:write"]));
    let checked = pipe(keyed(&["token", "check", "-"]), out(&issued));
    assert!(out(&checked).contains("scopes   acl:read acl:write\n"), "{}", out(&checked));
    for args in [["--ttl", "soon"], ["--ttl", "0s"], ["--scope", "everything"]] {
        assert_eq!(code(&run(keyed(&[&["token", "issue", "--user", "a"][..], &args].concat()))), 64, "{args:?}");
    }
    assert_eq!(code(&run(keyed(&["token", "issue", "--user", "a:b"]))), 64);
}

#[test]
fn usage_errors_are_64_and_help_is_none() {
    for args in [&["--unknown"][..], &["check", "--unknown"], &["unknown"], &[], &["token"], &["check", "--log-format", "xml"]] {
        let output = run(mailpush(args));
        assert_eq!(code(&output), 64, "{args:?}: {output:?}");
        assert!(!err(&output).is_empty() && out(&output).is_empty(), "{args:?}");
    }
    for args in [&["--help"][..], &["--version"], &["token", "issue", "--help"]] {
        assert_eq!(code(&run(mailpush(args))), 0, "{args:?}");
    }
}

#[test]
fn secrets_are_not_told() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("mailpush.toml");
    std::fs::write(&file, "[auth]\nsecret = 'hunter2'\n[registry]\nauth_password = ['hunter2']\n").unwrap();
    let output = run(mailpush(&["check", "-vv", "--config", file.to_str().unwrap()]));
    assert_eq!(code(&output), 64);
    assert!(!err(&output).contains("hunter2") && !out(&output).contains("hunter2"), "{}", err(&output));
}

#[test]
fn a_reader_may_stop_early() {
    let mut child = mailpush(&["check", "--print-default"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!((code(&output), err(&output)), (0, ""));
}

/// `mailpush acl` at a node; the code, and what it prints.
async fn acl(url: &str, token: &str, args: &[&str]) -> (i32, String, String) {
    let mut command = mailpush(&[&["acl"], args].concat());
    command.env("MAILPUSH_URL", url).env("MAILPUSH_TOKEN", token);
    let output = tokio::task::spawn_blocking(move || run(command)).await.expect("its output");
    (code(&output), out(&output).to_owned(), err(&output).to_owned())
}

#[tokio::test]
async fn an_acl_is_seen_and_changed() {
    let node = AclNode::start(|_| ()).await;
    let (url, token) = (node.http(), node.token("acl:read acl:write"));
    let team = "#private:alice:Team/Old & new?";
    let said = async |args: &[&str]| {
        let (code, out, err) = acl(&url, &token, args).await;
        assert_eq!((code, err.as_str()), (0, ""), "{args:?}");
        out.lines().map(|line| line.split_ascii_whitespace().collect::<Vec<_>>().join(" ")).collect::<Vec<_>>()
    };
    assert_eq!(said(&["get", team]).await, ["no entries: nobody but its owner has rights on it"]);
    assert_eq!(said(&["set", team, "bob", "lrs"]).await, ["bob@example.org lrs"]);
    assert_eq!(said(&["set", team, "bob", "-s"]).await, ["bob@example.org lr"]);
    assert_eq!(said(&["set", team, "bob", "+te"]).await, ["bob@example.org lrte"]);
    assert_eq!(said(&["set", team, "-group:temps", "r"]).await, ["-group:temps r"]);
    assert_eq!(said(&["set", team, "-vera", "r"]).await, ["-vera@example.org r"]);
    assert_eq!(said(&["set", team, "bob", "lrte"]).await, ["nothing has changed"]);
    assert_eq!(said(&["get", team]).await, ["-group:temps r", "-vera@example.org r", "bob@example.org lrte"]);
    let json: Value = serde_json::from_str(&said(&["get", "--json", team]).await.concat()).expect("JSON");
    let entries = json!({ "bob@example.org": "lrte", "-vera@example.org": "r", "-group:temps": "r" });
    assert_eq!(json, json!({ "mailbox": "#private:alice@example.org:Team/Old & new?", "acl": entries }));
    assert_eq!(said(&["delete", team, "-vera"]).await, ["-vera@example.org nothing any more"]);
    assert_eq!(said(&["delete", team]).await, ["-group:temps nothing any more", "bob@example.org nothing any more"]);
    assert_eq!(said(&["delete", team]).await, ["nothing has changed"]);
}

#[tokio::test]
async fn an_acl_that_cannot_be_changed_says_why() {
    let node = AclNode::start(|_| ()).await;
    let dev = DevCluster::start(1).await;
    let (url, both, team) = (node.http(), node.token("acl:read acl:write"), "#private:alice:Team");
    for (url, token, args, exit, why) in [
        (url.as_str(), both.as_str(), &["set", team, "bob", "lrq"][..], 1, "'q' is not a right"),
        (&url, &both, &["set", team, "Anyone", "lr"], 1, "user:NAME"),
        (&url, &both, &["get", "Team"], 1, "#namespace:owner:name"),
        (&url, &node.token("acl:read"), &["delete", team], 1, "the token lacks the scope acl:write"),
        (&url, &node.token("acl:write"), &["get", team], 1, "the token lacks the scope acl:read"),
        (&dev.http(0), &dev.admin_token(), &["get", team], 1, "are the mail server's: change them there"),
        ("http://127.0.0.1:9", &both, &["get", team], 69, "cannot be reached"),
        ("", &both, &["get", team], 64, "a node's URL is needed"),
        (&url, "", &["get", team], 64, "a token is needed"),
        (&url, &both, &["set", team, "bob"], 64, "<RIGHTS>"),
    ] {
        let (code, out, err) = acl(url, token, args).await;
        assert_eq!((code, out.as_str()), (exit, ""), "{args:?}: {err}");
        assert!(err.contains(why), "{args:?}: {err}");
    }
    node.break_publishing().await;
    let (code, _, err) = acl(&url, &both, &["set", team, "bob", "lr"]).await;
    assert_eq!(code, 69, "{err}");
    assert!(err.contains("the ACL is changed, but not every node could be told"), "{err}");
}
