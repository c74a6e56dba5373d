//! A Dovecot as it is after Courier or Cyrus: all of one's own below `INBOX.`, and mailboxes that are nobody's. What its
//! script calls a mailbox and what a client of a gateway calls it are one key.

use serde_json::{Value, json};

use crate::support::agent::TestAgent;
use crate::support::cluster::TestCluster;
use crate::support::dovecot::{MASTER, Options, TestDovecot};
use crate::support::imap::ImapClient;
use crate::support::lab::{Lab, PARKING};
use crate::support::ws::WsClient;

const NAMESPACES: &str = "
namespace inbox {
  prefix = INBOX.
  separator = .
}
namespace shared {
  prefix = shared.%%u.
  separator = .
}
namespace public {
  type = public
  prefix = Public.
  separator = .
  location = sdbox:%h/../public:INDEXPVT=~/public
  subscriptions = no
  list = yes
}
";
/// The same for the agent.
const SETTINGS: [&str; 4] = [
    "agent.dovecot.personal_prefixes=INBOX.",
    "agent.dovecot.shared_prefix=shared.",
    "agent.dovecot.public_prefixes=Public.",
    "agent.dovecot.separator=.",
];

fn mail(subject: &str) -> String {
    format!("From: Joe <joe@example.org>\r\nSubject: {subject}\r\nMessage-ID: <{subject}@example.org>\r\n\r\nhi\r\n")
}

/// How the agent asks this Dovecot.
fn master(dovecot: &TestDovecot) -> [String; 4] {
    [
        format!("agent.imap.address=127.0.0.1:{}", dovecot.imap_port),
        format!("agent.imap.master_user={}", MASTER.0),
        format!("agent.imap.master_password={}", MASTER.1),
        "agent.imap.timeout_ms=10000".to_owned(),
    ]
}

/// One gateway, which keeps no connection to Dovecot for who idles: they hear by the agent or not at all.
async fn site() -> Lab {
    let agent = TestAgent::new();
    let dovecot = TestDovecot::start(Options { agent: agent.url(), extra: NAMESPACES.to_owned() }).await;
    // Without the acl plugin everybody may.
    dovecot.doveadm(&["-o", "mail_plugins=", "mailbox", "create", "-u", "alice", "Public.News"]);
    let rights = ["authenticated", "lookup", "read", "write", "write-seen", "insert"];
    dovecot.doveadm(&[&["acl", "set", "-u", "alice", "Public.News"], &rights[..]].concat());
    let settings = [
        format!("imap.upstream.addresses=127.0.0.1:{}", dovecot.imap_port),
        format!("imap.master.user={}", MASTER.0),
        format!("imap.master.password={}", MASTER.1),
    ];
    let cluster = TestCluster::start_with(0, &settings.each_ref().map(String::as_str)).await;
    let mut lab = Lab { cluster, agent, dovecot };
    lab.cluster.add_node(&PARKING).await;
    let own = master(&lab.dovecot);
    let own: Vec<&str> = own.iter().map(String::as_str).chain(SETTINGS).collect();
    lab.agent.launch(lab.cluster.command(&["agent"]), &own).await;
    lab
}

async fn idles(lab: &Lab, user: &str, mailbox: &str) -> ImapClient {
    let mut client = lab.client(0, user).await;
    client.ok(&format!("SELECT {mailbox}")).await;
    client.begin("IDLE").await;
    client.expect("+ idling").await;
    client
}

async fn told(client: &mut WsClient, kind: &str) -> Value {
    loop {
        let event = client.event().await["event"].clone();
        if event["type"] == kind {
            return event;
        }
    }
}

#[tokio::test]
async fn below_a_prefix_and_in_public_the_agent_and_the_gateways_mean_the_same() {
    let lab = site().await;
    let mut alice = lab.dovecot.client("alice").await;
    for mailbox in ["INBOX.Sent", "INBOX.Entw&APw-rfe.Neu"] {
        alice.ok(&format!("CREATE {mailbox}")).await;
    }
    let mut page = lab.cluster.client(0, "alice").await;
    page.subscribe("#private:alice:Sent").await;
    page.subscribe("#private:alice:Entw\u{fc}rfe/Neu").await;
    page.subscribe("#shared::News").await;
    let mut sent = idles(&lab, "alice", "INBOX.Sent").await;
    let mut neu = idles(&lab, "alice", "INBOX.Entw&APw-rfe.Neu").await;
    let mut news = idles(&lab, "carol", "Public.News").await;
    lab.becomes_parked(0, 3).await;

    alice.append("INBOX.Sent", "\\Seen", &mail("sent")).await;
    sent.expect("* 1 EXISTS").await;
    assert_eq!(told(&mut page, "MessageAppend").await["mailbox"], "#private:alice:Sent");
    alice.append("INBOX.Entw&APw-rfe.Neu", "", &mail("draft")).await;
    neu.expect("* 1 EXISTS").await;
    assert_eq!(told(&mut page, "MessageAppend").await["mailbox"], "#private:alice:Entw\u{fc}rfe/Neu");
    let mut bob = lab.dovecot.client("bob").await;
    bob.append("Public.News", "", &mail("news")).await;
    news.expect("* 1 EXISTS").await;
    let event = told(&mut page, "MessageAppend").await;
    assert_eq!((&event["mailbox"], &event["actor"]), (&json!("#shared::News"), &json!("bob")));

    // The agent finds the owner's name for it.
    alice.ok("SELECT INBOX.Sent").await;
    alice.ok("STORE 1 +FLAGS (\\Flagged)").await;
    let event = told(&mut page, "FlagsSet").await;
    assert_eq!(
        (&event["mailbox"], &event["messages"][0]["flags"]),
        (&json!("#private:alice:Sent"), &json!(["\\Flagged", "\\Seen"]))
    );
    sent.expect("* 1 FETCH *\\Flagged*").await;
    // What is nobody's is each user's own business.
    bob.ok("SELECT Public.News").await;
    bob.ok("STORE 1 +FLAGS (\\Flagged)").await;
    let event = told(&mut page, "FlagsSet").await;
    assert_eq!((&event["mailbox"], event["messages"][0].get("flags")), (&json!("#shared::News"), None));
    news.expect("* 1 FETCH *\\Flagged*").await;

    let log = lab.agent.log();
    assert!(!log.contains("not those of agent.dovecot"), "{log}");
}

#[tokio::test]
async fn namespaces_that_are_none_of_dovecots_are_noticed() {
    let mut agent = TestAgent::new();
    let dovecot = TestDovecot::start(Options { agent: agent.url(), extra: NAMESPACES.to_owned() }).await;
    let cluster = TestCluster::start_with(0, &[]).await;
    let own = master(&dovecot);
    let own: Vec<&str> = own.iter().map(String::as_str).collect();
    let check = |more: &[&str]| {
        let settings = own.iter().chain(more).flat_map(|setting| ["--set", setting]);
        let arguments = ["check", "--agent", "--user", "alice", "--set", "agent.listen=127.0.0.1:0"];
        let output = cluster.run(&arguments.into_iter().chain(settings).collect::<Vec<_>>());
        (output.status.code(), String::from_utf8(output.stdout).expect("text"))
    };
    let (code, report) = check(&SETTINGS);
    assert!(code == Some(0) && report.contains("ok   namespaces of alice"), "{report}");
    let (code, report) = check(&[]);
    assert_eq!(code, Some(69), "{report}");
    let right =
        "personal_prefixes = [\"INBOX.\"], shared_prefix = \"shared.\", public_prefixes = [\"Public.\"], separator = \".\"";
    assert!(report.contains("FAIL namespaces of alice") && report.contains(right), "{report}");

    // The agent itself says so once it asks for flags.
    agent.launch(cluster.command(&["agent"]), &own).await;
    let mut alice = dovecot.client("alice").await;
    alice.append("INBOX", "", &mail("first")).await;
    alice.ok("SELECT INBOX").await;
    alice.ok("STORE 1 +FLAGS (\\Flagged)").await;
    crate::support::wait::eventually("the agent warns", crate::support::cluster::PATIENCE, async || {
        agent.log().contains("not those of agent.dovecot").then_some(())
    })
    .await;
    assert_eq!(agent.terminate().await, Some(0));
}
