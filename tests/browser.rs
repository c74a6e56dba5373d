//! The web page in real Chromium (`tests/browser`), against clusters of `mailpush dev`.

use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::process::Command;

/// The version that is tested with; npm brings it on first use. It drives Debian's Chromium and brings no browser.
const DRIVER: &str = "playwright-core@1.64.1";
const INSTALL: Duration = Duration::from_secs(180);
/// They take about two minutes; a machine that compiles beside them takes longer.
const DEADLINE: Duration = Duration::from_secs(900);

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Brings the driver, if it is not there yet: kept between runs.
async fn driver() {
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

#[tokio::test]
async fn the_page_in_chromium() {
    let chromium = chromium();
    driver().await;
    let files = ["inbox", "cluster"].map(|name| root().join(format!("tests/browser/{name}.test.mjs")));
    let mut node = Command::new("node");
    // One after the other: each file has its own cluster and its own browser.
    node.args(["--test", "--test-concurrency=1"]).args(files).kill_on_drop(true);
    node.env("MAILPUSH", env!("CARGO_BIN_EXE_mailpush")).env("CHROMIUM", chromium);
    let output = match tokio::time::timeout(DEADLINE, node.output()).await {
        Ok(Ok(output)) => output,
        Ok(Err(error)) => panic!("node, version 20 or later, is needed (Debian: apt-get install nodejs): {error}"),
        Err(_) => panic!("the tests did not end within {DEADLINE:?}"),
    };
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    assert!(said.contains("pass") && said.contains("fail 0"), "{said}");
}
