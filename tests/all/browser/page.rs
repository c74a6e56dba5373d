//! The web page in real Chromium (`tests/browser`), against clusters of `mailpush dev`, and of `mailpush serve` where one is to be killed.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use serde_json::json;
use tokio::process::Command;
use tokio::sync::Mutex;

use crate::support::cluster::TestCluster;
use crate::support::fixtures::free_port;
use crate::support::node::all_passed;
use crate::support::process::signal_group;

/// The version that is tested with; npm brings it on first use. It drives Debian's Chromium and brings no browser.
const DRIVER: &str = "playwright-core@1.64.1";
const INSTALL: Duration = Duration::from_secs(180);
/// Each file takes about a minute; a machine that compiles beside them takes longer.
const DEADLINE: Duration = Duration::from_secs(600);

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Brings the driver, if it is not there yet: kept between runs.
async fn driver() {
    static ONE_AT_A_TIME: Mutex<()> = Mutex::const_new(());
    let _alone = ONE_AT_A_TIME.lock().await;
    let folder = root().join("target/browser");
    if folder.join("node_modules/playwright-core/package.json").exists() {
        return;
    }
    std::fs::create_dir_all(&folder).expect("a folder in target");
    let mut npm = Command::new("npm");
    npm.arg("install").arg("--prefix").arg(&folder).args(["--no-save", "--no-audit", "--no-fund", DRIVER]).kill_on_drop(true);
    match tokio::time::timeout(INSTALL, npm.output()).await {
        Ok(Ok(output)) if output.status.success() => {}
        Ok(Ok(output)) => panic!(
            "npm cannot bring {DRIVER}, which these tests drive Chromium with. Without a network, put it into {} by hand:\n{}",
            folder.display(),
            String::from_utf8_lossy(&output.stderr)
        ),
        Ok(Err(error)) => panic!("npm is needed (Debian: apt-get install npm): {error}"),
        Err(_) => panic!("npm did not bring {DRIVER} within {INSTALL:?}"),
    }
}

/// Where Debian's package has it, or wherever `CHROMIUM` says.
fn chromium() -> PathBuf {
    let path = std::env::var_os("CHROMIUM").map_or_else(|| PathBuf::from("/usr/bin/chromium"), PathBuf::from);
    assert!(path.exists(), "Chromium is needed (Debian: apt-get install chromium), or CHROMIUM must say where it is");
    path
}

/// Runs files of tests one after the other: each has its own browser, and needs the machine's processors for itself.
async fn run(files: &[&str], environment: &[(&str, String)]) {
    static ONE_AT_A_TIME: Mutex<()> = Mutex::const_new(());
    let _alone = ONE_AT_A_TIME.lock().await;
    let chromium = chromium();
    driver().await;
    for file in files {
        let mut node = Command::new("node");
        node.arg("--test").arg(root().join(format!("tests/browser/{file}.test.mjs"))).kill_on_drop(true);
        // With all that it has started: a group of its own, which is ended as one.
        node.process_group(0);
        node.stdout(Stdio::piped()).stderr(Stdio::piped());
        node.env("MAILPUSH", env!("CARGO_BIN_EXE_mailpush")).env("CHROMIUM", &chromium).envs(environment.iter().cloned());
        let node = node
            .spawn()
            .unwrap_or_else(|error| panic!("node, version 18 or later, is needed (Debian: apt-get install nodejs): {error}"));
        let group = node.id().expect("a process that nobody has waited for has an id");
        let output = match tokio::time::timeout(DEADLINE, node.wait_with_output()).await {
            Ok(output) => output.expect("what node says can be read"),
            Err(_) => {
                signal_group(group, libc::SIGKILL);
                panic!("the tests of {file} did not end within {DEADLINE:?}");
            }
        };
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
        all_passed(&said);
    }
}

#[tokio::test]
async fn the_page_in_chromium() {
    run(&["inbox", "cluster"], &[]).await;
}

/// The page before a node that is played by a script.
#[tokio::test]
async fn the_page_in_awkward_circumstances() {
    run(&["scripted", "storms"], &[]).await;
}

/// Two `mailpush serve` with ZooKeeper and Kafka, for in `mailpush dev` no single node can be killed.
#[tokio::test]
async fn the_page_whose_node_is_killed() {
    let port = free_port();
    let origin = format!("http.allowed_origins=[\"http://127.0.0.1:{port}\"]");
    let cluster = TestCluster::start_with(2, &[&origin]).await;
    let nodes = [0, 1].map(|node| json!({ "id": cluster.id(node), "http": cluster.http(node), "pid": cluster.pid(node) }));
    let tokens = (cluster.token("alice@example.org", &["push"]), cluster.admin_token());
    let world = json!({ "port": port, "nodes": nodes, "alice": tokens.0, "admin": tokens.1 });
    run(&["killed"], &[("CLUSTER", world.to_string())]).await;
}
