//! The client for webmail pages (`static/mailpush.js`), tested by Node with its own scripted servers (`tests/js`).

use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::process::Command;

/// They take seconds; a first run may have to wait for npm.
const DEADLINE: Duration = Duration::from_secs(300);

/// Named one by one: what Node makes of a folder depends on its version.
fn tests() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/js");
    let entries = folder.read_dir().expect("the folder of the tests");
    let paths = entries.map(|entry| entry.expect("an entry").path());
    paths.filter(|path| path.to_string_lossy().ends_with(".test.mjs")).collect()
}

#[tokio::test]
async fn the_client_for_webmail_pages() {
    let tests = tests();
    assert!(tests.len() >= 5, "{tests:?}");
    let mut command = Command::new("node");
    command.arg("--test").args(tests).kill_on_drop(true);
    let output = match tokio::time::timeout(DEADLINE, command.output()).await {
        Ok(Ok(output)) => output,
        Ok(Err(error)) => panic!("node, version 18 or later, is needed (Debian: apt-get install nodejs): {error}"),
        Err(_) => panic!("the tests did not end within {DEADLINE:?}"),
    };
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    assert!(said.contains("pass") && said.contains("fail 0"), "{said}");
}
