//! A process of its own for a test that measures the process it runs in: its memory, its panics.

use std::process::Stdio;

use tokio::process::Command;

/// Set in such a process.
const MARK: &str = "TEST_RUNS_ALONE";

/// Whether this process runs this test and no other. If not, the test is run in one that does, and must pass there; then there
/// is nothing left to do here. `module` is the caller's `module_path!()`.
pub async fn alone(module: &str, test: &str) -> bool {
    if std::env::var_os(MARK).is_some() {
        return true;
    }
    let (_, module) = module.split_once("::").expect("a module within the program");
    let mut again = Command::new(std::env::current_exe().expect("where this program is"));
    again.args(["--exact", &format!("{module}::{test}"), "--test-threads=1", "--nocapture"]).env(MARK, "1");
    let output = again.stdin(Stdio::null()).kill_on_drop(true).output().await.expect("run this program again");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    assert!(said.contains("1 passed"), "there is no {module}::{test}: {said}");
    false
}
