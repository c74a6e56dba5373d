//! Shared mailboxes in a cluster whose registry keeps the ACLs: who hears what, wherever they are connected.

use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::{Value, json};

use crate::support::cluster::{Own, TestCluster, message, uid};
use crate::support::sharing::{is_shared, is_shared_in_stream, subscribe};
use crate::support::sse::SseClient;
use crate::support::ws::WsClient;

const ALICE: &str = "alice@example.org";
const BOB: &str = "bob@example.org";
const CAROL: &str = "carol@example.org";
const DAVE: &str = "dave@example.org";
const EVE: &str = "eve@example.org";
const TOM: &str = "tom@example.org";
const TEAM: &str = "#private:alice@example.org:Team";
/// Where the owner changes things, and where events come from: nobody listens there.
const ORIGIN: usize = 2;

fn inbox(user: &str) -> String {
    format!("#private:{user}:INBOX")
}

fn key(mailbox: &str) -> Value {
    json!({ "mailbox": mailbox })
}

/// What a stranger is told.
fn is_denied(reply: &Value) -> bool {
    reply["error"]["code"] == 404
}

/// The next message; her own changes of the ACL an owner hears of too.
async fn next_message(client: &mut WsClient) -> u64 {
    loop {
        let event = client.event().await;
        if event["event"]["type"] == "MessageNew" {
            return uid(&event);
        }
    }
}

async fn says(cluster: &TestCluster, mailbox: &str, number: u32) {
    cluster.publish(ORIGIN, message(mailbox, number)).await;
}

#[tokio::test]
async fn who_may_hears_at_every_node_and_nobody_else() {
    let cluster = TestCluster::start_sharing(Own::Nothing, &[]).await;
    let entries = json!({
        BOB: "lrs", "group:staff": "lr", "-group:temps": "r", EVE: "lr", "-eve@example.org": "lr",
    });
    cluster.share(ORIGIN, TEAM, entries.clone()).await;
    assert_eq!(cluster.kept(0, TEAM).await, entries);

    let mut alice = cluster.client(1, ALICE).await;
    assert_eq!(subscribe(&mut alice, key(TEAM)).await, "lrswipkxtea", "the owner");
    let mut bob = cluster.client(0, BOB).await;
    assert_eq!(subscribe(&mut bob, key(TEAM)).await, "lrs", "a user");
    let carol = cluster.token_in(CAROL, &["staff"]);
    let (mut carol, subscribed) = cluster.stream(1, &carol, &[("mailbox", TEAM)]).await;
    assert_eq!((&subscribed["key"], &subscribed["rights"]), (&key(TEAM), &json!("lr")), "a member of a group");
    let mut tom = cluster.member(1, TOM, &["staff", "temps"]).await;
    assert_eq!(subscribe(&mut tom, key(TEAM)).await, "l", "another group takes from what a group gives");
    subscribe(&mut tom, key(&inbox(TOM))).await;
    let mut eve = cluster.member(0, EVE, &["staff"]).await;
    assert!(is_denied(&eve.command("subscribe", key(TEAM)).await), "a negative right takes what any other entry gives");
    subscribe(&mut eve, key(&inbox(EVE))).await;
    let mut dave = cluster.client(0, DAVE).await;
    assert!(is_denied(&dave.command("subscribe", key(TEAM)).await));
    let stranger = SseClient::ask(&cluster.stream_url(1, &[("mailbox", TEAM)]), Some(&cluster.token(DAVE, &["push"]))).await;
    assert_eq!(stranger.status(), 404);

    cluster.grant(ORIGIN, TEAM, "anyone", "lr").await;
    assert_eq!(subscribe(&mut dave, key(TEAM)).await, "lr", "anyone");
    assert!(is_denied(&eve.command("subscribe", key(TEAM)).await), "but not her");
    cluster.becomes_registered(TEAM, &["n1", "n2"]).await;

    let told = cluster.publish(ORIGIN, message(TEAM, 7)).await;
    let mut queues = [cluster.queue(0), cluster.queue(1)];
    queues.sort();
    assert_eq!(told["queues"], json!(queues), "nobody watches at the node where it happens");
    for client in [&mut alice, &mut bob, &mut dave] {
        assert_eq!(next_message(client).await, 7);
    }
    assert_eq!(uid(&carol.pushed("event").await), 7);
    for (client, user) in [(&mut tom, TOM), (&mut eve, EVE)] {
        says(&cluster, &inbox(user), 8).await;
        assert_eq!(uid(&client.event().await), 8, "{user} was not told of the one before");
    }
    // Each once: what comes next is next.
    says(&cluster, TEAM, 9).await;
    for client in [&mut alice, &mut bob, &mut dave] {
        assert_eq!(uid(&client.event().await), 9);
    }
    assert_eq!(uid(&carol.pushed("event").await), 9);
    for (client, user) in [(&mut tom, TOM), (&mut eve, EVE)] {
        says(&cluster, &inbox(user), 10).await;
        client.hears(10).await;
        for withheld in [7, 9] {
            client.never_heard(withheld);
        }
    }
}

#[tokio::test]
async fn a_lost_right_takes_effect_everywhere_and_a_new_one_does_too() {
    let cluster = TestCluster::start_sharing(Own::Nothing, &[]).await;
    cluster.share(ORIGIN, TEAM, json!({ BOB: "lr", "group:staff": "lr" })).await;
    let mut bob = cluster.client(0, BOB).await;
    subscribe(&mut bob, key(TEAM)).await;
    subscribe(&mut bob, key(&inbox(BOB))).await;
    let carol = cluster.token_in(CAROL, &["staff"]);
    let (mut carol, _) = cluster.stream(1, &carol, &[("mailbox", TEAM), ("mailbox", &inbox(CAROL))]).await;
    let mut tom = cluster.member(1, TOM, &["staff", "temps"]).await;
    subscribe(&mut tom, key(TEAM)).await;
    says(&cluster, TEAM, 1).await;
    assert_eq!((uid(&bob.event().await), uid(&tom.event().await), uid(&carol.pushed("event").await)), (1, 1, 1));

    // From the answer on, not a word more.
    cluster.deny(ORIGIN, TEAM, BOB).await;
    says(&cluster, TEAM, 2).await;
    assert_eq!(bob.next_push("revoked").await, json!({ "key": key(TEAM) }), "before anything that was behind it in the queue");
    says(&cluster, &inbox(BOB), 3).await;
    assert_eq!(uid(&bob.event().await), 3, "the socket goes on with his own");
    assert_eq!(cluster.held_by(BOB).await, [key(&inbox(BOB))]);
    assert!(is_denied(&bob.command("subscribe", key(TEAM)).await));
    assert_eq!((uid(&carol.pushed("event").await), uid(&tom.event().await)), (2, 2), "the others go on");

    cluster.grant(ORIGIN, TEAM, BOB, "lr").await;
    assert_eq!(subscribe(&mut bob, key(TEAM)).await, "lr");
    says(&cluster, TEAM, 4).await;
    assert_eq!((uid(&bob.event().await), uid(&tom.event().await), uid(&carol.pushed("event").await)), (4, 4, 4));

    // A negative right of a group: nobody can look up who is in it.
    cluster.grant(ORIGIN, TEAM, "-group:temps", "r").await;
    says(&cluster, TEAM, 5).await;
    assert_eq!(tom.next_push("revoked").await, json!({ "key": key(TEAM) }));
    assert_eq!((uid(&bob.event().await), uid(&carol.pushed("event").await)), (5, 5));

    // As a mail store tells of it.
    let change = |identifier: &str, rights: &str| json!({ "type": "AclChange", "mailbox": TEAM, "identifier": identifier, "rights": rights });
    cluster.publish(ORIGIN, change(BOB, "")).await;
    says(&cluster, TEAM, 6).await;
    assert_eq!(bob.next_push("revoked").await, json!({ "key": key(TEAM) }));
    let left = json!({ "group:staff": "lr", "-group:temps": "r" });
    for node in 0..3 {
        assert_eq!(cluster.kept(node, TEAM).await, left, "written through");
    }
    cluster.publish(ORIGIN, change("group:staff", "-r")).await;
    // He may know of the mailbox still, but he was told of its messages before.
    assert_eq!(uid(&carol.pushed("event").await), 6);
    assert_eq!(carol.next_pushed("revoked").await, json!({ "key": key(TEAM) }));
    assert_eq!(cluster.kept(0, TEAM).await, json!({ "group:staff": "l", "-group:temps": "r" }));
    says(&cluster, TEAM, 7).await;
    for (client, user, withheld) in [(&mut tom, TOM, &[5, 6, 7][..]), (&mut bob, BOB, &[2, 6, 7])] {
        subscribe(client, key(&inbox(user))).await;
        says(&cluster, &inbox(user), 8).await;
        assert_eq!(uid(&client.event().await), 8, "{user}");
        withheld.iter().for_each(|number| client.never_heard(*number));
    }
    says(&cluster, &inbox(CAROL), 8).await;
    carol.hears(8).await;
    carol.never_heard(7);
    cluster.becomes_registered(TEAM, &[]).await;
}

#[tokio::test]
async fn an_account_covers_what_is_shared_as_it_comes_and_goes() {
    let cluster = TestCluster::start_sharing(Own::Nothing, &[]).await;
    const PLANS: &str = "#private:alice@example.org:Plans";
    const NEWS: &str = "#shared:dave@example.org:News";
    cluster.share(ORIGIN, TEAM, json!({ BOB: "lr", CAROL: "l" })).await;
    cluster.share(ORIGIN, PLANS, json!({ "group:staff": "lr" })).await;
    let staff = [cluster.token_in(BOB, &["staff"]), cluster.token_in(CAROL, &["staff"])];
    let mut bob = WsClient::connect(&cluster.ws(0), &staff[0]).await;
    assert_eq!(subscribe(&mut bob, json!({ "account": BOB, "shared": true })).await, "lrswipkxtea");
    let parameters = [("account", CAROL), ("shared", "true")];
    let (mut carol, subscribed) = cluster.stream(1, &staff[1], &parameters).await;
    assert_eq!(subscribed["key"], json!({ "account": CAROL }));

    says(&cluster, TEAM, 1).await;
    assert_eq!(uid(&bob.event().await), 1, "shared with him");
    says(&cluster, PLANS, 2).await;
    assert_eq!((uid(&bob.event().await), uid(&carol.pushed("event").await)), (2, 2), "with a group");
    says(&cluster, &inbox(CAROL), 3).await;
    says(&cluster, &inbox(BOB), 3).await;
    assert_eq!((uid(&bob.event().await), uid(&carol.pushed("event").await)), (3, 3), "one's own");

    // New ones: told that it is there, then of what happens in it.
    cluster.share(ORIGIN, NEWS, json!({ "group:staff": "lr" })).await;
    is_shared(&mut bob, NEWS).await;
    is_shared_in_stream(&mut carol, NEWS).await;
    cluster.grant(ORIGIN, TEAM, CAROL, "lr").await;
    // To know of it was not enough.
    is_shared_in_stream(&mut carol, TEAM).await;
    for (mailbox, number) in [(NEWS, 4), (TEAM, 5)] {
        says(&cluster, mailbox, number).await;
        assert_eq!((uid(&bob.event().await), uid(&carol.pushed("event").await)), (number.into(), number.into()));
    }

    cluster.deny(ORIGIN, PLANS, "group:staff").await;
    assert_eq!(bob.push("revoked").await, json!({ "key": key(PLANS) }));
    assert_eq!(carol.pushed("revoked").await, json!({ "key": key(PLANS) }));
    says(&cluster, PLANS, 6).await;
    cluster.grant(ORIGIN, TEAM, BOB, "l").await;
    assert_eq!(bob.push("revoked").await, json!({ "key": key(TEAM) }));
    says(&cluster, TEAM, 7).await;
    says(&cluster, NEWS, 8).await;
    assert_eq!(uid(&bob.event().await), 8, "the account goes on");
    assert_eq!((uid(&carol.pushed("event").await), uid(&carol.pushed("event").await)), (7, 8));
    // Whatever else came before `revoked`, these did not.
    [6, 7].into_iter().for_each(|withheld| bob.never_heard(withheld));
    [1, 6].into_iter().for_each(|withheld| carol.never_heard(withheld));

    // And again.
    cluster.grant(ORIGIN, PLANS, BOB, "lr").await;
    is_shared(&mut bob, PLANS).await;
    says(&cluster, PLANS, 9).await;
    assert_eq!(uid(&bob.event().await), 9);
    bob.command("unsubscribe", json!({ "account": BOB })).await;
    assert_eq!(cluster.held_by(BOB).await, [] as [Value; 0], "with the account goes what it covers");
}

/// The promise is a second. Where a loss is only found by ZooKeeper's watch, nobody is told of it for two, for it may be half
/// of a rename: that it takes less shows that the event did it.
#[tokio::test]
async fn a_right_that_is_taken_or_given_works_everywhere_within_a_second() {
    const ROUNDS: u32 = 9;
    const UNTOLD: Duration = Duration::from_secs(2);
    let cluster = TestCluster::start_sharing(Own::Nothing, &[]).await;
    cluster.grant(ORIGIN, TEAM, "group:staff", "lr").await;
    let mut bob = cluster.member(0, BOB, &["staff"]).await;
    subscribe(&mut bob, json!({ "account": BOB, "shared": true })).await;
    let carol = cluster.token_in(CAROL, &["staff"]);
    let (mut carol, _) = cluster.stream(1, &carol, &[("account", CAROL), ("shared", "true")]).await;
    let owner = cluster.owner_token(ALICE);
    let change = async |rights: &str| {
        let (status, answer) =
            cluster.acl(ORIGIN, &owner, Method::PUT, (TEAM, "group:staff"), &json!({ "rights": rights })).await;
        assert_eq!(status, 200, "{answer}");
    };

    let (mut taken, mut given) = (Vec::new(), Vec::new());
    for round in 1..=ROUNDS {
        let begun = Instant::now();
        let ((), by_bob, by_carol) = tokio::join!(change(""), async { (bob.push("revoked").await, begun.elapsed()).1 }, async {
            (carol.pushed("revoked").await, begun.elapsed()).1
        });
        taken.push(by_bob.max(by_carol));
        says(&cluster, TEAM, round).await;
        for user in [BOB, CAROL] {
            says(&cluster, &inbox(user), 100 + round).await;
        }
        tokio::join!(bob.hears(100 + round), carol.hears(100 + round));

        let begun = Instant::now();
        let ((), by_bob, by_carol) =
            tokio::join!(change("lr"), async { (is_shared(&mut bob, TEAM).await, begun.elapsed()).1 }, async {
                (is_shared_in_stream(&mut carol, TEAM).await, begun.elapsed()).1
            });
        given.push(by_bob.max(by_carol));
    }
    for withheld in 1..=ROUNDS {
        bob.never_heard(withheld);
        carol.never_heard(withheld);
    }
    for (what, times) in [("taken", &mut taken), ("given", &mut given)] {
        times.sort_unstable();
        eprintln!("a right that is {what} works at both after {times:?}");
        assert!(times[times.len() / 2] < Duration::from_secs(1), "{what}: {times:?}");
    }
    assert!(taken.iter().all(|time| *time < UNTOLD), "{taken:?}");
}

/// How long it took to deny what is hidden, and what is not there.
type Series = [Vec<Duration>; 2];

/// Nobody can tell one from the other by the time (I-9).
fn takes_the_same_time(door: &str, mut times: Series) {
    const DENIAL: Duration = Duration::from_millis(250);
    const ALIKE: Duration = Duration::from_millis(50);
    let medians = times.each_mut().map(|series| {
        assert!(series.iter().all(|time| *time >= DENIAL), "{door}: {series:?}");
        series.sort_unstable();
        series[series.len() / 2]
    });
    eprintln!("{door}: what is hidden is denied after {:?}, what is not there after {:?}", medians[0], medians[1]);
    assert!(medians[0].abs_diff(medians[1]) < ALIKE, "{door}: {times:?}");
}

#[tokio::test]
async fn what_is_hidden_and_what_is_not_there_are_one() {
    const ROUNDS: usize = 16;
    let cluster = TestCluster::start_sharing(Own::Nothing, &[]).await;
    let absent = |number: usize| format!("#private:alice@example.org:Nothing {number}");
    cluster.share(ORIGIN, TEAM, json!({ BOB: "lr" })).await;
    let (mut alice, mut bob) = (cluster.client(0, ALICE).await, cluster.client(1, BOB).await);
    subscribe(&mut alice, key(TEAM)).await;
    subscribe(&mut bob, key(TEAM)).await;
    let mut eve = cluster.client(0, EVE).await;

    let token = cluster.token(EVE, &["push"]);
    let (mut told, mut streamed) = (Series::default(), Series::default());
    let (mut answers, mut problems) = (Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        let asked = [TEAM.to_owned(), absent(round)];
        // By turns the one first and the other.
        for which in if round % 2 == 0 { [0, 1] } else { [1, 0] } {
            let begun = Instant::now();
            let mut reply = eve.command("subscribe", key(&asked[which])).await;
            told[which].push(begun.elapsed());
            reply["id"] = Value::Null;
            answers.push(reply.to_string());
            let url = cluster.stream_url(0, &[("mailbox", &asked[which])]);
            let begun = Instant::now();
            let refused = SseClient::ask(&url, Some(&token)).await;
            streamed[which].push(begun.elapsed());
            problems.push((refused.status().as_u16(), refused.text().await.expect("a problem")));
        }
        assert!(cluster.registered(&asked[1]).await.is_empty(), "nobody learns from ZooKeeper that she asked");
    }
    assert!(answers.iter().all(|answer| *answer == answers[0] && answer.contains("404")), "{answers:?}");
    assert!(!answers[0].contains("Team"), "{}", answers[0]);
    assert!(problems.iter().all(|problem| *problem == problems[0] && problem.0 == 404), "{problems:?}");
    assert!(!problems[0].1.contains("Team"), "{}", problems[0].1);
    takes_the_same_time("WebSocket", told);
    takes_the_same_time("SSE", streamed);
    assert_eq!(cluster.registered(TEAM).await, ["n1", "n2"], "those who may");
    assert_eq!(cluster.held_by(EVE).await, [] as [Value; 0]);

    for mailbox in [TEAM, &absent(0)] {
        let (status, page) = cluster.get(2, "/v1/subscriptions", &token).await;
        assert_eq!((status, &page["subscriptions"]), (200, &json!([])), "{page}");
        let query: String = form_urlencoded::Serializer::new(String::new()).append_pair("mailbox", mailbox).finish();
        let (status, page) = cluster.get(2, &format!("/v1/subscriptions?{query}"), &token).await;
        assert_eq!((status, &page["subscriptions"]), (200, &json!([])), "{page}");
        let (status, _) = cluster.acl(2, &token, Method::GET, (mailbox, ""), &Value::Null).await;
        assert_eq!(status, 403);
    }
    let (_, page) = cluster.get(2, "/v1/subscriptions", &cluster.token(BOB, &["push"])).await;
    let listed: Vec<&Value> = page["subscriptions"].as_array().expect("a list").iter().map(|record| &record["user"]).collect();
    assert_eq!(listed, [BOB], "of what he shares he sees only himself: {page}");
}
