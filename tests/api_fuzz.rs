//! A running node, held against `openapi/openapi.yaml` by schemathesis: requests made up from the document, right and wrong ones.

mod support;

use std::path::Path;
use std::time::Duration;

use tokio::process::Command;

use support::dev::DevCluster;

/// It takes ten seconds; a first run may have to wait for pip.
const DEADLINE: Duration = Duration::from_secs(300);

#[tokio::test]
async fn every_answer_to_a_made_up_request_is_as_documented() {
    let cluster = DevCluster::start(2).await;
    let mut command = Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/schemathesis"));
    command.arg(cluster.http(0)).env("MAILPUSH_TOKEN", cluster.admin_token()).kill_on_drop(true);
    let output = tokio::time::timeout(DEADLINE, command.output()).await;
    let output = output.unwrap_or_else(|_| panic!("it did not end within {DEADLINE:?}")).expect("run scripts/schemathesis");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    assert!(said.contains("generated") && said.contains("passed"), "nothing was tested: {said}");
    assert!(!cluster.log().contains("panicked"), "a handler panicked");
}
