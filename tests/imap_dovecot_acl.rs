//! Shared mailboxes before a real Dovecot. Without a master user each IMAP session asks for its own user's rights; with one, the gateway. Dovecot
//! itself goes on telling an idling client of a mailbox that it may not read any more; through a gateway the client hears
//! `* BYE`, and nothing of what comes after.

mod support;

use std::time::{Duration, Instant};

use serde_json::json;
use support::agent::TestAgent;
use support::cluster::{PATIENCE, SECOND, TestCluster};
use support::dovecot::{MASTER, Options, TestDovecot};
use support::imap::ImapClient;
use support::lab::Lab;
use support::wait::eventually;

/// So long Dovecot answers from memory on a connection that stands (`cache_secs`).
const MEMORY: Duration = Duration::from_secs(30);
const GONE: &str = "* BYE You may not read this mailbox any more";

fn mail(subject: &str) -> String {
    format!("From: Joe <joe@example.org>\r\nSubject: {subject}\r\nMessage-ID: <{subject}@example.org>\r\n\r\nhi\r\n")
}

/// Dovecot, its agent, and a gateway for each list of settings.
async fn site(gateways: &[&[&str]]) -> Lab {
    let agent = TestAgent::new();
    let extra = "plugin {\n  acl_anyone = allow\n}\n".to_owned();
    let dovecot = TestDovecot::start(Options { agent: agent.url(), extra }).await;
    let upstream = format!("imap.upstream.addresses=127.0.0.1:{}", dovecot.imap_port);
    let cluster = TestCluster::start_with(0, &[&upstream, "access.recheck_ms=1000"]).await;
    let mut lab = Lab { cluster, agent, dovecot };
    for settings in gateways {
        lab.cluster.add_node(settings).await;
    }
    for node in 0..gateways.len() {
        lab.cluster.sees_nodes(node, gateways.len()).await;
    }
    lab.launch_agent().await;
    lab
}

/// Alice at the first gateway, with a mailbox of one message that bob may read by `entry`.
async fn alice_shares(lab: &Lab, entry: &str) -> ImapClient {
    let mut alice = lab.client(0, "alice").await;
    alice.ok("CREATE Team").await;
    alice.append("Team", "", &mail("first")).await;
    alice.ok(&format!("SETACL Team {entry} lr")).await;
    alice
}

/// Bob at a gateway, idling on what alice shares; he has heard of a message that came meanwhile.
async fn bob_idles(lab: &Lab, gateway: usize, alice: &mut ImapClient) -> (ImapClient, String) {
    let mut bob = lab.client(gateway, "bob").await;
    eventually("the mailbox is shared", PATIENCE, async || {
        bob.command("STATUS shared/alice/Team (MESSAGES)").await.last()?.contains(" OK ").then_some(())
    })
    .await;
    bob.ok("SELECT shared/alice/Team").await;
    let idle = bob.begin("IDLE").await;
    bob.expect("+ idling").await;
    alice.append("Team", "", &mail("heard")).await;
    bob.expect("* 2 EXISTS").await;
    (bob, idle)
}

/// What bob hears until the connection ends.
async fn last_words(bob: &mut ImapClient) -> Vec<String> {
    let mut lines = Vec::new();
    while let Some(line) = bob.line_within(MEMORY + 10 * SECOND).await {
        lines.push(line);
    }
    lines.retain(|line| line != "* OK Still here");
    lines
}

#[tokio::test]
async fn who_may_not_read_any_more_hears_so_and_nothing_else() {
    let credentials = ["imap.park=credentials", "imap.park_after_ms=200"];
    let lab = site(&[&[], &[], &credentials]).await;
    let mut alice = alice_shares(&lab, "bob").await;
    let (mut bob, _) = bob_idles(&lab, 1, &mut alice).await;
    let (mut parked, _) = {
        let mut other = lab.client(2, "bob").await;
        other.ok("SELECT shared/alice/Team").await;
        let idle = other.begin("IDLE").await;
        other.expect("+ idling").await;
        lab.becomes_parked(2, 1).await;
        (other, idle)
    };

    let begun = Instant::now();
    alice.ok("DELETEACL Team bob").await;
    alice.append("Team", "", &mail("secret")).await;
    assert_eq!(last_words(&mut bob).await, [GONE]);
    assert_eq!(last_words(&mut parked).await, [GONE]);
    eprintln!("both were told after {:?}", begun.elapsed());
    assert!(begun.elapsed() < SECOND, "it passed through a gateway");
    eventually("both changes are counted", PATIENCE, async || {
        let published = "mailpush_imap_acl_changes_total{outcome=\"published\"}";
        (lab.cluster.metric(0, published).await == 2).then_some(())
    })
    .await;

    // Given again, it works again.
    alice.ok("SETACL Team bob lr").await;
    let mut bob = lab.client(1, "bob").await;
    eventually("the mailbox is shared again", PATIENCE, async || {
        bob.command("SELECT shared/alice/Team").await.last()?.contains(" OK ").then_some(())
    })
    .await;
    let idle = bob.begin("IDLE").await;
    bob.expect("+ idling").await;
    alice.append("Team", "", &mail("fourth")).await;
    bob.expect("* 4 EXISTS").await;
    bob.send(b"DONE\r\n").await;
    assert!(bob.until(&idle).await.last().is_some_and(|line| line.contains(" OK ")));
    // Who does not idle is the mail server's business.
    alice.ok("DELETEACL Team bob").await;
    assert!(bob.command("NOOP").await.last().is_some_and(|line| line.contains(" OK ")));
}

#[tokio::test]
async fn rights_that_only_dovecot_can_reckon_are_asked_for() {
    let credentials = ["imap.park=credentials", "imap.park_after_ms=200"];
    let lab = site(&[&[], &[], &credentials]).await;
    let mut alice = alice_shares(&lab, "anyone").await;
    let (mut bob, _) = bob_idles(&lab, 1, &mut alice).await;
    let (mut parked, _) = {
        let mut other = lab.client(2, "bob").await;
        other.ok("SELECT shared/alice/Team").await;
        let idle = other.begin("IDLE").await;
        other.expect("+ idling").await;
        lab.becomes_parked(2, 1).await;
        (other, idle)
    };
    alice.ok("SETACL Team carol lr").await;
    // Whether others give bob what anyone has no more, the change does not say.
    let begun = Instant::now();
    alice.ok("DELETEACL Team anyone").await;
    assert_eq!(last_words(&mut parked).await, [GONE]);
    eprintln!("the parked one was told after {:?}", begun.elapsed());
    assert!(begun.elapsed() < SECOND, "its question goes over a new connection");
    // On the connection that stands Dovecot still says yes for a while.
    assert_eq!(last_words(&mut bob).await, [GONE]);
    eprintln!("the other after {:?}", begun.elapsed());
    assert!(begun.elapsed() < MEMORY + 10 * SECOND);
    // Nobody else is concerned.
    let mut carol = lab.client(1, "carol").await;
    eventually("carol may read", PATIENCE, async || {
        carol.command("SELECT shared/alice/Team").await.last()?.contains(" OK ").then_some(())
    })
    .await;
    carol.begin("IDLE").await;
    carol.expect("+ idling").await;
    alice.append("Team", "", &mail("third")).await;
    carol.expect("* 3 EXISTS").await;
}

/// With a master user the gateway asks for itself: bob's page and his mail app, each on another node than the one that alice
/// is on, with every connection to Dovecot let go.
#[tokio::test]
async fn with_a_master_user_every_door_of_every_node_is_told() {
    let (user, password) = (format!("imap.master.user={}", MASTER.0), format!("imap.master.password={}", MASTER.1));
    let master = [user.as_str(), password.as_str(), "imap.park=master-user", "imap.park_after_ms=200"];
    let lab = site(&[&master, &master, &master]).await;
    let mut alice = alice_shares(&lab, "bob").await;
    let (mut bob, _) = bob_idles(&lab, 2, &mut alice).await;
    lab.becomes_parked(2, 1).await;
    let team = "#private:alice:Team";
    let mut page = lab.cluster.client(1, "bob").await;
    let reply = page.command("subscribe", json!({ "mailbox": team })).await;
    assert_eq!(reply["subscribe"]["rights"], "lr");
    let mut account = lab.cluster.client(1, "bob").await;
    let reply = account.command("subscribe", json!({ "account": "bob", "shared": true })).await;
    assert_eq!(reply["subscribe"]["rights"], "lrswipkxtea");
    let mut own = lab.cluster.client(0, "alice").await;
    own.subscribe(team).await;
    alice.append("Team", "", &mail("third")).await;
    for client in [&mut page, &mut account, &mut own] {
        assert_eq!(client.event().await["event"]["messages"][0]["uid"], 3);
    }
    bob.expect("* 3 EXISTS").await;

    let begun = Instant::now();
    alice.ok("DELETEACL Team bob").await;
    for client in [&mut page, &mut account] {
        assert_eq!(client.push("revoked").await["key"]["mailbox"], team);
    }
    assert_eq!(last_words(&mut bob).await, [GONE]);
    eprintln!("all were told after {:?}", begun.elapsed());
    assert!(begun.elapsed() < SECOND, "it passed through a gateway");
    alice.append("Team", "", &mail("secret")).await;
    assert_eq!(own.push("event").await["event"]["type"], "AclChange", "the owner hears of both");
    assert_eq!(own.event().await["event"]["messages"][0]["uid"], 4);
    let denied = page.command("subscribe", json!({ "mailbox": team })).await;
    let absent = page.command("subscribe", json!({ "mailbox": "#private:alice:Nowhere" })).await;
    assert_eq!(denied["error"], absent["error"]);
    assert_eq!(denied["error"]["name"], "not_found");

    // Given again: the account's subscription takes it in by itself.
    let begun = Instant::now();
    alice.ok("SETACL Team bob lr").await;
    let resync = account.push("resync").await;
    eprintln!("and again after {:?}", begun.elapsed());
    assert_eq!((&resync["reason"], &resync["keys"]), (&json!("shared"), &json!([{ "mailbox": team }])));
    // It was told before its registration has settled: until then the agent may not find this node, and what it would have
    // sent is made good by another resync.
    lab.cluster.client(1, "bob").await.subscribe(team).await;
    alice.append("Team", "", &mail("fifth")).await;
    assert_eq!(account.event().await["event"]["messages"][0]["uid"], 5, "and nothing of the one between");
    page.expect_quiet().await;
}

/// Dovecot tells of no change that is not made through a gateway: the right in use is asked for again and again.
#[tokio::test]
async fn what_an_administrator_takes_away_is_found_out() {
    let (user, password) = (format!("imap.master.user={}", MASTER.0), format!("imap.master.password={}", MASTER.1));
    let lab = site(&[&[user.as_str(), password.as_str()]]).await;
    let mut alice = alice_shares(&lab, "bob").await;
    let mut page = lab.cluster.client(0, "bob").await;
    page.subscribe("#private:alice:Team").await;
    alice.append("Team", "", &mail("heard")).await;
    assert_eq!(page.event().await["event"]["messages"][0]["uid"], 2);
    lab.dovecot.doveadm(&["acl", "delete", "-u", "alice", "Team", "user=bob"]);
    assert_eq!(page.push("revoked").await["key"]["mailbox"], "#private:alice:Team");
    alice.append("Team", "", &mail("secret")).await;
    page.expect_quiet().await;
}
