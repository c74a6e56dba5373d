//! The client for webmail pages (`static/mailpush.js`), tested by Node: with its own scripted servers (`tests/js`), and against a
//! node of ours.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::json;
use tokio::process::Command;

use crate::support::dev::{DevCluster, SECRET};
use crate::support::node::all_passed;

/// They take seconds; a first run may have to wait for npm.
const DEADLINE: Duration = Duration::from_secs(300);

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/js")
}

/// Runs Node to its end, which must be a good one; gives what it has said.
async fn run(command: &mut Command) -> String {
    let output = match tokio::time::timeout(DEADLINE, command.kill_on_drop(true).output()).await {
        Ok(Ok(output)) => output,
        Ok(Err(error)) => panic!("node, version 18 or later, is needed (Debian: apt-get install nodejs): {error}"),
        Err(_) => panic!("it did not end within {DEADLINE:?}"),
    };
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    said
}

#[tokio::test]
async fn the_client_for_webmail_pages() {
    // Named one by one: what Node makes of a folder depends on its version.
    let entries = folder().read_dir().expect("the folder of the tests");
    let paths = entries.map(|entry| entry.expect("an entry").path());
    let tests: Vec<_> = paths.filter(|path| path.to_string_lossy().ends_with(".test.mjs")).collect();
    assert!(tests.len() >= 6, "{tests:?}");
    let said = run(Command::new("node").arg("--test").args(tests)).await;
    all_passed(&said);
}

#[tokio::test]
async fn the_client_and_a_node_understand_each_other() {
    let settings = ["sessions.heartbeat_ms=500", "sessions.pong_timeout_ms=400", "sessions.expiring_notice_ms=3000"];
    let cluster = DevCluster::with_secret(&settings).await;
    let node = json!({
        "url": cluster.http(0),
        "imap": cluster.imap(0),
        "admin": cluster.admin_token(),
        "alice": cluster.token(0),
        "bob": cluster.token(1),
        "secret": SECRET,
        "pid": cluster.pid(),
    });
    run(Command::new("node").arg(folder().join("live.mjs")).env("NODE", node.to_string())).await;
}
