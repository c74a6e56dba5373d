//! Running nodes, held against `openapi/openapi.yaml` by schemathesis: requests made up from the document, right and wrong ones.

use std::path::Path;
use std::time::Duration;

use tokio::process::Command;
use tokio::sync::Mutex;

use crate::support::acls::AclNode;
use crate::support::dev::DevCluster;

/// They take seconds; a first run may have to wait for pip.
const DEADLINE: Duration = Duration::from_secs(300);

/// One at a time: the first to come has it brought by pip.
static SCHEMATHESIS: Mutex<()> = Mutex::const_new(());

/// Runs it against a node with an administrator's token; all must be as documented.
async fn run(url: String, token: String, options: &[&str]) {
    let _alone = SCHEMATHESIS.lock().await;
    let mut command = Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/schemathesis"));
    command.arg(url).args(options).env("MAILPUSH_TOKEN", token).kill_on_drop(true);
    let output = tokio::time::timeout(DEADLINE, command.output()).await;
    let output = output.unwrap_or_else(|_| panic!("it did not end within {DEADLINE:?}")).expect("run scripts/schemathesis");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    assert!(said.contains("generated") && said.contains("passed"), "nothing was tested: {said}");
}

#[tokio::test]
async fn every_answer_to_a_made_up_request_is_as_documented() {
    let cluster = DevCluster::start(2).await;
    run(cluster.http(0), cluster.admin_token(), &[]).await;
    assert!(!cluster.log().contains("panicked"), "a handler panicked");
}

/// In `mailpush dev` the mail store has the rights; here the registry.
#[tokio::test]
async fn every_answer_about_acls_is_as_documented_where_the_registry_keeps_them() {
    let mut node = AclNode::start(|_| ()).await;
    let operations = ["getAcl", "setAcl", "deleteAcl"];
    let options: Vec<&str> = operations.iter().flat_map(|operation| ["--include-operation-id", operation]).collect();
    run(node.http(), node.token("acl:read acl:write"), &options).await;
    // Some of them were right, and changed something.
    node.next_told().await;
}
