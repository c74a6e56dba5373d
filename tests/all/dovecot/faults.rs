//! Clients that idle before a real Dovecot while something fails: a gateway, Dovecot, Kafka, ZooKeeper, the agent.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::support::cluster::{Own, PATIENCE, SECOND};
use crate::support::imap::ImapClient;
use crate::support::lab::{Lab, PARKING};
use crate::support::wait::eventually;
use crate::support::watcher::{Enabled, Watcher, truth};

fn mail(subject: &str) -> String {
    format!("From: Joe <joe@example.org>\r\nSubject: {subject}\r\nMessage-ID: <{subject}@example.org>\r\n\r\nhi\r\n")
}

/// Alice, idling in her INBOX at a gateway.
async fn alice(lab: &Lab, gateway: usize) -> Watcher {
    let mut watcher = Watcher::open(lab.client(gateway, "alice").await, "INBOX", Enabled::Nothing, "SELECT").await;
    watcher.idle().await;
    watcher
}

/// A message is delivered, each of them hears of it in IDLE, and what they FETCH afterwards is right; they idle again.
async fn all_are_told(lab: &Lab, watchers: &mut [&mut Watcher], subject: &str) {
    lab.dovecot.deliver("alice", &mail(subject)).await;
    let truth = truth(&lab.dovecot, "alice", "INBOX").await;
    for watcher in watchers {
        watcher.hears(&truth).await;
        watcher.done(&truth).await;
        watcher.idle().await;
    }
}

/// Waits until the watchers are told of what only events can tell them: a flag that Dovecot knows nothing of.
async fn all_hear_events(lab: &Lab, gateway: usize, watchers: &mut [&mut Watcher]) {
    let real = truth(&lab.dovecot, "alice", "INBOX").await;
    let first = real[0].clone();
    let mut told = real;
    told[0].flags = Some(["\\Draft".to_owned()].into());
    let message = json!({ "uid": first.uid, "changed": ["\\Draft"], "flags": ["\\Draft"] });
    let event = json!({ "type": "FlagsSet", "mailbox": "#private:alice:INBOX", "messages": [message] });
    for watcher in watchers {
        eventually("events are told", PATIENCE, async || {
            // Published anew each time: before they listen again nobody is told.
            lab.cluster.try_publish(gateway, &event).await.ok()?;
            tokio::time::timeout(SECOND / 2, watcher.hears(&told)).await.ok()
        })
        .await;
    }
}

/// Waits until a gateway knows that something is amiss.
async fn becomes_unhealthy(lab: &Lab, gateway: usize) {
    lab.cluster.becomes_unready(gateway).await;
}

#[tokio::test]
async fn a_gateway_is_killed() {
    let mut lab = Lab::start(&[&[], &[]]).await;
    let mut watcher = alice(&lab, 1).await;
    all_are_told(&lab, &mut [&mut watcher], "before").await;
    lab.cluster.kill(1);
    while watcher.client.line().await.is_some() {}
    lab.dovecot.deliver("alice", &mail("while nobody idles")).await;

    let mut watcher = alice(&lab, 0).await;
    let mut second = alice(&lab, 0).await;
    for number in 0..5 {
        all_are_told(&lab, &mut [&mut watcher, &mut second], &format!("after-{number}")).await;
    }
    lab.cluster.launch(1, &[]).await;
    let mut third = alice(&lab, 1).await;
    all_are_told(&lab, &mut [&mut watcher, &mut second, &mut third], "again").await;
}

#[tokio::test]
async fn dovecot_is_restarted() {
    let late = ["imap.park=master-user", "imap.park_after_ms=600000"];
    let short = ["imap.park=master-user", "imap.park_after_ms=200", "imap.catch_up_ms=2000"];
    let mut lab = Lab::start(&[&[], &late, &PARKING, &short]).await;
    lab.dovecot.deliver("alice", &mail("first")).await;
    let mut never = alice(&lab, 0).await;
    let mut live = alice(&lab, 1).await;
    let mut parked = alice(&lab, 2).await;
    let mut impatient = alice(&lab, 3).await;
    lab.cluster.becomes_ready(0).await;
    lab.becomes_parked(2, 1).await;
    lab.becomes_parked(3, 1).await;
    assert_eq!(lab.upstream_connections(1), 1);

    lab.dovecot.stop().await;
    assert!(never.is_dismissed().await.starts_with("* BYE [UNAVAILABLE]"), "its connection cannot be taken up again");
    impatient.client.send(b"DONE\r\n").await;
    let asked = Instant::now();
    assert!(impatient.is_dismissed().await.starts_with("* BYE [UNAVAILABLE]"));
    assert!((SECOND..10 * SECOND).contains(&asked.elapsed()), "it was waited for, but not for ever: {:?}", asked.elapsed());

    lab.dovecot.launch().await;
    for number in 0..3 {
        all_are_told(&lab, &mut [&mut live, &mut parked], &format!("after-{number}")).await;
    }
    let mut again = alice(&lab, 0).await;
    all_are_told(&lab, &mut [&mut again, &mut live, &mut parked], "again").await;
    lab.becomes_parked(2, 1).await;

    // Killed, and back before DONE has waited for too long.
    lab.dovecot.kill();
    parked.client.send(b"DONE\r\nnext NOOP\r\n").await;
    lab.dovecot.launch().await;
    assert!(parked.client.expect("next OK").await.ends_with("completed (0.001 + 0.000 secs)."), "{}", parked.story());
}

#[tokio::test]
async fn kafka_is_lost_and_the_agent_is_killed_meanwhile() {
    let mut lab = Lab::start_owning(Own::Kafka, &[&[], &[], &PARKING]).await;
    lab.dovecot.deliver("alice", &mail("first")).await;
    let mut live = alice(&lab, 1).await;
    let mut parked = alice(&lab, 2).await;
    lab.becomes_parked(2, 1).await;
    // Somebody who keeps wanting events: they are told of everything in the end.
    let mut web = lab.cluster.client(0, "alice").await;
    web.command("subscribe", json!({ "account": "alice" })).await;

    lab.cluster.own_kafka().kill();
    for gateway in [1, 2] {
        becomes_unhealthy(&lab, gateway).await;
    }
    all_are_told(&lab, &mut [&mut live, &mut parked], "without Kafka").await;
    let mut begun = alice(&lab, 1).await;
    all_are_told(&lab, &mut [&mut live, &mut parked, &mut begun], "still without").await;
    lab.agent.kill();
    lab.launch_agent().await;
    assert!(lab.agent.metric("mailpush_agent_spool_events").await >= 2, "what happened waits on the disk");
    all_are_told(&lab, &mut [&mut live, &mut parked, &mut begun], "and without").await;

    lab.cluster.own_kafka().restart();
    for gateway in [1, 2] {
        lab.cluster.becomes_ready(gateway).await;
    }
    eventually("the spool is empty", PATIENCE, async || {
        (lab.agent.metric("mailpush_agent_spool_events").await == 0).then_some(())
    })
    .await;
    all_are_told(&lab, &mut [&mut live, &mut parked, &mut begun], "with Kafka").await;
    for uid in 2..=5 {
        let event = web.event().await["event"].clone();
        assert_eq!((&event["type"], &event["messages"][0]["uid"]), (&json!("MessageNew"), &json!(uid)), "{event}");
    }
    all_hear_events(&lab, 1, &mut [&mut live, &mut parked, &mut begun]).await;
    lab.becomes_parked(2, 1).await;
}

#[tokio::test]
async fn zookeeper_is_lost() {
    let mut lab = Lab::start_owning(Own::Zookeeper, &[&[], &[], &PARKING]).await;
    lab.dovecot.deliver("alice", &mail("first")).await;
    let mut live = alice(&lab, 1).await;
    let mut parked = alice(&lab, 2).await;
    lab.becomes_parked(2, 1).await;

    lab.cluster.own_zookeeper().kill();
    for gateway in [1, 2] {
        becomes_unhealthy(&lab, gateway).await;
    }
    all_are_told(&lab, &mut [&mut live, &mut parked], "without ZooKeeper").await;
    let mut begun = alice(&lab, 2).await;
    all_are_told(&lab, &mut [&mut live, &mut parked, &mut begun], "still without").await;

    lab.cluster.own_zookeeper().restart().await;
    for gateway in [1, 2] {
        lab.cluster.becomes_ready(gateway).await;
    }
    all_are_told(&lab, &mut [&mut live, &mut parked, &mut begun], "with ZooKeeper").await;
    all_hear_events(&lab, 1, &mut [&mut live, &mut parked, &mut begun]).await;
    lab.becomes_parked(2, 2).await;
}

#[tokio::test]
async fn the_agent_is_away() {
    let mut lab = Lab::start(&[&[], &["imap.audit_ms=1000"]]).await;
    lab.dovecot.deliver("alice", &mail("first")).await;
    let mut watcher = alice(&lab, 1).await;
    all_are_told(&lab, &mut [&mut watcher], "with the agent").await;
    lab.agent.kill();
    // Nobody publishes it; asked now and then, Dovecot tells of it itself.
    all_are_told(&lab, &mut [&mut watcher], "without the agent").await;
    lab.launch_agent().await;
    let mut quick = alice(&lab, 0).await;
    all_are_told(&lab, &mut [&mut quick, &mut watcher], "with the agent again").await;
}

/// The same changes again, at once and many, while Dovecot is asked: nothing is told twice, and nothing is lost.
#[tokio::test]
async fn a_crowd_of_changes_while_done_and_idle_alternate() {
    let lab = Lab::start(&[&[], &["imap.park=master-user", "imap.park_after_ms=50"]]).await;
    lab.dovecot.deliver("alice", &mail("first")).await;
    let mut watcher = alice(&lab, 1).await;
    let mut writer: ImapClient = lab.client(0, "alice").await;
    writer.ok("SELECT INBOX").await;
    for round in 0..20 {
        let changes = async {
            writer.append("INBOX", "", &mail(&format!("a-{round}"))).await;
            writer.ok("STORE * +FLAGS (\\Flagged)").await;
            writer.append("INBOX", "\\Deleted", &mail(&format!("b-{round}"))).await;
            writer.append("INBOX", "", &mail(&format!("c-{round}"))).await;
            writer.ok("EXPUNGE").await;
        };
        let renewals = async {
            for _ in 0..2 {
                watcher.renew().await;
                watcher.pause().await;
            }
        };
        tokio::join!(changes, renewals);
        let truth = truth(&lab.dovecot, "alice", "INBOX").await;
        assert_eq!(truth.len(), 3 + round * 2);
        tokio::time::timeout(Duration::from_secs(30), watcher.hears(&truth)).await.expect("told in time");
        watcher.done(&truth).await;
        watcher.idle().await;
    }
}
