//! Shared mailboxes while ZooKeeper goes and comes back, and while mailboxes and users are called otherwise.

use serde_json::{Value, json};

use crate::support::cluster::{Own, PATIENCE, TestCluster, message, uid};
use crate::support::sharing::{is_shared, resync, streamed_resync, subscribe};
use crate::support::wait::eventually;
use crate::support::ws::{WsClient, tells_of};

const ALICE: &str = "alice@example.org";
const BOB: &str = "bob@example.org";
const CAROL: &str = "carol@example.org";
const TEAM: &str = "#private:alice@example.org:Team";
const ORIGIN: usize = 2;

fn inbox(user: &str) -> String {
    format!("#private:{user}:INBOX")
}

fn key(mailbox: &str) -> Value {
    json!({ "mailbox": mailbox })
}

/// Publishes until it is accepted, as an origin does: with the same id.
async fn publish_for_sure(cluster: &TestCluster, mut event: Value) {
    event["id"] = json!(uuid::Uuid::now_v7().to_string());
    eventually("the event is published", PATIENCE, async || cluster.try_publish(ORIGIN, &event).await.ok()).await;
}

/// Is told of a message, or to read the mailbox, which holds it: a node that has lost its session may have missed it.
async fn learns_of(client: &mut WsClient, mailbox: &str, number: u32) {
    loop {
        let frame = client.next().await.expect("an open socket");
        let is_resync = frame["resync"]["keys"].as_array().is_some_and(|keys| keys.contains(&key(mailbox)));
        if tells_of(&frame, number) || is_resync {
            return;
        }
    }
}

/// The next event that is no message's.
async fn told(client: &mut WsClient, event_type: &str) -> Value {
    loop {
        let event = client.event().await["event"].clone();
        if event["type"] == event_type {
            return event;
        }
    }
}

#[tokio::test]
async fn rights_outlive_a_restart_of_zookeeper() {
    let mut cluster = TestCluster::start_sharing(Own::Zookeeper, &[]).await;
    cluster.share(ORIGIN, TEAM, json!({ BOB: "lr", "group:staff": "lr" })).await;
    let mut bob = cluster.client(0, BOB).await;
    subscribe(&mut bob, key(TEAM)).await;
    let mut carol = cluster.member(1, CAROL, &["staff"]).await;
    subscribe(&mut carol, json!({ "account": CAROL, "shared": true })).await;

    subscribe(&mut bob, key(&inbox(BOB))).await;

    cluster.own_zookeeper().restart().await;
    for number in 1..=5 {
        publish_for_sure(&cluster, message(TEAM, number)).await;
        learns_of(&mut bob, TEAM, number).await;
        learns_of(&mut carol, TEAM, number).await;
    }
    cluster.own_zookeeper().restart().await;
    cluster.deny(ORIGIN, TEAM, BOB).await;
    publish_for_sure(&cluster, message(TEAM, 6)).await;
    assert_eq!(bob.push("revoked").await, json!({ "key": key(TEAM) }), "in the middle of it");
    learns_of(&mut carol, TEAM, 6).await;
    publish_for_sure(&cluster, message(&inbox(BOB), 60)).await;
    learns_of(&mut bob, &inbox(BOB), 60).await;
    bob.never_heard(6);

    const PLANS: &str = "#private:alice@example.org:Plans";
    cluster.share(ORIGIN, PLANS, json!({ "group:staff": "lr" })).await;
    // What is shared is watched again.
    is_shared(&mut carol, PLANS).await;
    publish_for_sure(&cluster, message(PLANS, 7)).await;
    carol.hears(7).await;
    cluster.becomes_registered(&inbox(BOB), &["n1"]).await;
    publish_for_sure(&cluster, message(&inbox(BOB), 8)).await;
    bob.hears(8).await;
    [6, 7].into_iter().for_each(|withheld| bob.never_heard(withheld));
}

#[tokio::test]
async fn without_zookeeper_nobody_is_told_what_could_not_be_confirmed() {
    let mut cluster = TestCluster::start_sharing(Own::Zookeeper, &["access.recheck_ms=500", "access.max_age_ms=4000"]).await;
    cluster.share(ORIGIN, TEAM, json!({ BOB: "lr", CAROL: "lr" })).await;
    let mut alice = [cluster.client(0, ALICE).await, cluster.client(1, ALICE).await];
    for alice in &mut alice {
        subscribe(alice, key(TEAM)).await;
    }
    let mut bob = cluster.client(0, BOB).await;
    subscribe(&mut bob, key(TEAM)).await;
    let mut carol = cluster.client(1, CAROL).await;
    subscribe(&mut carol, json!({ "account": CAROL, "shared": true })).await;
    publish_for_sure(&cluster, message(TEAM, 1)).await;
    assert_eq!((uid(&bob.event().await), uid(&carol.event().await)), (1, 1));

    // On a busy machine some may have been too old before.
    const EXPIRED: &str = "mailpush_rights_expired_total";
    let before = [cluster.metric(0, EXPIRED).await, cluster.metric(1, EXPIRED).await];
    cluster.own_zookeeper().kill();
    for node in [0, 1] {
        let grown = async || (cluster.metric(node, EXPIRED).await > before[node]).then_some(());
        eventually("what is known is too old", PATIENCE, grown).await;
    }
    publish_for_sure(&cluster, message(TEAM, 2)).await;
    for alice in &mut alice {
        while uid(&alice.event().await) != 2 {}
    }
    for sharee in [&mut bob, &mut carol] {
        sharee.send(&json!({ "id": 1000, "ping": {} }).to_string()).await;
        let mut pushed = Vec::new();
        loop {
            let frame = sharee.next().await.expect("a frame");
            if frame["id"] == 1000 {
                break;
            }
            pushed.push(frame);
        }
        assert!(pushed.iter().all(|frame| frame["event"].is_null() && frame["revoked"].is_null()), "{pushed:?}");
    }
    let mut late = cluster.client(0, BOB).await;
    let refused = late.command("subscribe", key(TEAM)).await;
    assert_eq!(refused["error"]["temporary"], true, "nobody can say whether he may: {refused}");

    cluster.own_zookeeper().restart().await;
    assert_eq!(resync(&mut bob, "rights").await, json!([key(TEAM)]));
    assert_eq!(resync(&mut carol, "rights").await, json!([key(TEAM)]));
    publish_for_sure(&cluster, message(TEAM, 3)).await;
    assert_eq!((uid(&bob.event().await), uid(&carol.event().await)), (3, 3));
    [&bob, &carol].into_iter().for_each(|sharee| sharee.never_heard(2));
    for alice in &mut alice {
        assert_eq!(uid(&alice.event().await), 3);
    }
}

#[tokio::test]
async fn what_lies_below_a_renamed_mailbox_goes_along() {
    const PARENT: &str = "#private:alice@example.org:Work";
    const CHILD: &str = "#private:alice@example.org:Work/Team";
    const NEW_PARENT: &str = "#private:alice@example.org:Archive/Work";
    const NEW_CHILD: &str = "#private:alice@example.org:Archive/Work/Team";
    let cluster = TestCluster::start_sharing(Own::Nothing, &[]).await;
    let acl = json!({ BOB: "lr", "group:staff": "lr" });
    cluster.share(ORIGIN, CHILD, acl.clone()).await;
    let mut alice = cluster.client(0, ALICE).await;
    subscribe(&mut alice, key(CHILD)).await;
    let mut bob = cluster.client(1, BOB).await;
    subscribe(&mut bob, key(CHILD)).await;
    let carol = cluster.token_in(CAROL, &["staff"]);
    let (mut carol, _) = cluster.stream(0, &carol, &[("mailbox", CHILD)]).await;

    cluster.publish(ORIGIN, json!({ "type": "MailboxRename", "mailbox": PARENT, "to": NEW_PARENT })).await;
    for client in [&mut alice, &mut bob] {
        let renamed = told(client, "MailboxRename").await;
        assert_eq!((&renamed["mailbox"], &renamed["to"]), (&json!(CHILD), &json!(NEW_CHILD)));
        assert_eq!(resync(client, "renamed").await, json!([key(NEW_CHILD)]));
    }
    assert_eq!(carol.pushed("event").await["event"]["to"], NEW_CHILD);
    assert_eq!(streamed_resync(&mut carol, "renamed").await, json!([key(NEW_CHILD)]));
    assert_eq!(cluster.kept(0, NEW_CHILD).await, acl);
    assert_eq!(cluster.kept(0, CHILD).await, json!({}));
    cluster.becomes_registered(NEW_CHILD, &["n1", "n2"]).await;
    cluster.becomes_registered(CHILD, &[]).await;

    cluster.publish(ORIGIN, message(NEW_CHILD, 1)).await;
    assert_eq!((uid(&alice.event().await), uid(&bob.event().await), uid(&carol.pushed("event").await)), (1, 1, 1));
    cluster.deny(ORIGIN, NEW_CHILD, BOB).await;
    assert_eq!(bob.push("revoked").await, json!({ "key": key(NEW_CHILD) }), "rights on the new name count");

    // Gone for good.
    cluster.publish(ORIGIN, json!({ "type": "MailboxDelete", "mailbox": NEW_CHILD })).await;
    told(&mut alice, "MailboxDelete").await;
    for user in [ALICE, BOB, CAROL] {
        eventually("its subscriptions end", PATIENCE, async || cluster.held_by(user).await.is_empty().then_some(())).await;
    }
    assert_eq!(cluster.kept(1, NEW_CHILD).await, json!({}));
    cluster.becomes_registered(NEW_CHILD, &[]).await;
}

#[tokio::test]
async fn a_user_by_another_name_keeps_mailboxes_and_shares() {
    const OLD: &str = "btellier@bidon.com";
    const NEW: &str = "benoit.tellier@bidon.com";
    const INBOX: &str = "#private:btellier@bidon.com:INBOX";
    const TEAM: &str = "#private:btellier@bidon.com:Team";
    const NEW_INBOX: &str = "#private:benoit.tellier@bidon.com:INBOX";
    const NEW_TEAM: &str = "#private:benoit.tellier@bidon.com:Team";
    const PLANS: &str = "#private:alice@example.org:Plans";
    let cluster = TestCluster::start_sharing(Own::Nothing, &[]).await;
    cluster.share(ORIGIN, TEAM, json!({ BOB: "lr", "-group:temps": "lr" })).await;
    cluster.share(ORIGIN, PLANS, json!({ OLD: "lrs", CAROL: "lr" })).await;
    let mut owner = cluster.client(0, OLD).await;
    subscribe(&mut owner, key(INBOX)).await;
    subscribe(&mut owner, key(PLANS)).await;
    let mut second = cluster.client(1, OLD).await;
    subscribe(&mut second, json!({ "account": OLD, "shared": true })).await;
    let mut bob = cluster.client(1, BOB).await;
    subscribe(&mut bob, key(TEAM)).await;
    let mut carol = cluster.client(0, CAROL).await;
    subscribe(&mut carol, json!({ "account": CAROL, "shared": true })).await;

    cluster.publish(ORIGIN, json!({ "type": "AccountRename", "mailbox": INBOX, "to": NEW })).await;
    let renamed = told(&mut owner, "MailboxRename").await;
    assert_eq!((&renamed["mailbox"], &renamed["to"]), (&json!(INBOX), &json!(NEW_INBOX)));
    assert_eq!(resync(&mut owner, "renamed").await, json!([key(NEW_INBOX)]));
    let renamed = told(&mut bob, "MailboxRename").await;
    assert_eq!((&renamed["mailbox"], &renamed["to"]), (&json!(TEAM), &json!(NEW_TEAM)));
    assert_eq!(resync(&mut bob, "renamed").await, json!([key(NEW_TEAM)]));
    assert_eq!(told(&mut second, "AccountRename").await["to"], NEW);
    assert_eq!(resync(&mut second, "renamed").await, json!([{ "account": NEW }]));

    assert_eq!(cluster.kept(0, NEW_TEAM).await, json!({ BOB: "lr", "-group:temps": "lr" }));
    assert_eq!(cluster.kept(1, TEAM).await, json!({}));
    assert_eq!(cluster.kept(1, PLANS).await, json!({ NEW: "lrs", CAROL: "lr" }));
    let expected = [json!({ "account": NEW }), key(PLANS), key(PLANS), key(NEW_INBOX)];
    eventually("every session is the new name's", PATIENCE, async || (cluster.held_by(NEW).await == expected).then_some(()))
        .await;
    assert_eq!(cluster.held_by(OLD).await, [] as [Value; 0]);
    assert_eq!(cluster.held_by(BOB).await, [key(NEW_TEAM)]);
    cluster.becomes_registered(INBOX, &[]).await;
    cluster.becomes_registered(TEAM, &[]).await;

    cluster.publish(ORIGIN, message(NEW_INBOX, 1)).await;
    assert_eq!((uid(&owner.event().await), uid(&second.event().await)), (1, 1));
    cluster.publish(ORIGIN, message(NEW_TEAM, 2)).await;
    assert_eq!((uid(&bob.event().await), uid(&second.event().await)), (2, 2));
    cluster.publish(ORIGIN, message(PLANS, 3)).await;
    assert_eq!((uid(&owner.event().await), uid(&second.event().await), uid(&carol.event().await)), (3, 3, 3));
    cluster.deny(ORIGIN, PLANS, NEW).await;
    assert_eq!(owner.push("revoked").await, json!({ "key": key(PLANS) }));
    assert_eq!(second.push("revoked").await, json!({ "key": key(PLANS) }));
}
