//! What an idle WebSocket session costs the server, before and after bursts.

use std::time::Duration;

use mailpush::edge::auth::Scopes;

use super::crowd::{Crowd, Member};
use super::report::{Report, Target};
use super::server::{Server, token};

const SESSIONS: usize = 10_000;
/// Below the default number of sessions of one user.
const WARM_UP: usize = 60;
/// Events to everybody in the burst of shared ones.
const SHARED: u64 = 20;
/// Until memory is looked at: what is to be given back is given back by then.
const REST: Duration = Duration::from_secs(5);
const TARGET: Target = Target::AtMost(6.0);
/// The queue of `dev` is in memory: it must not be measured along.
const RETENTION: &str = "queue.retention_ms=1000";

/// Each of two servers gets its crowd and its burst.
pub async fn run(report: &mut Report, descriptors: usize) {
    let sessions = SESSIONS.min(descriptors.saturating_sub(500));
    println!("memory of {sessions} sessions");
    own_mailboxes(report, sessions).await;
    one_mailbox(report, sessions).await;
}

/// Every session its own user and mailbox; the burst is one large event for each.
async fn own_mailboxes(report: &mut Report, sessions: usize) {
    let server = Server::dev(&[RETENTION]).await;
    let user = |number: usize| format!("user{number:06}@example.org");
    let member = |number| Member { token: token(&user(number), Scopes::PUSH), mailbox: mailbox(&user(number)) };
    let base = warm_up(&server, member(0)).await;
    let crowd = Crowd::connect(&server.address, (0..sessions).map(member).collect()).await;
    let idle = settled(&server, &crowd, base).await;
    let note = format!("{sessions} sessions, each its own user and mailbox; the server alone: {:.1} MiB", base / 1024.0);
    report.add("memory: an idle session", idle, "KiB", TARGET, note);
    for first in (0..sessions).step_by(20) {
        let batch: Vec<String> = (first..sessions.min(first + 20)).map(|number| large(&mailbox(&user(number)))).collect();
        server.publish(format!("[{}]", batch.join(","))).await;
    }
    crowd.wait_for(sessions as u64).await;
    // The records of the burst leave the queue with the next one.
    tokio::time::sleep(Duration::from_millis(1500)).await;
    server.publish(large(&mailbox(&user(0)))).await;
    crowd.wait_for(sessions as u64 + 1).await;
    let after = settled(&server, &crowd, base).await;
    crowd.check(sessions as u64 + 1);
    report.add("memory: after an event of 32 KiB for each", after, "KiB", TARGET, "the same sessions, 5 s later");
}

/// All sessions in one mailbox; the burst is events for all.
async fn one_mailbox(report: &mut Report, sessions: usize) {
    let server = Server::dev(&[RETENTION, "sessions.sessions_per_user=100000"]).await;
    let token = token("alice@example.org", Scopes::PUSH);
    let alice = mailbox("alice@example.org");
    let member = |_| Member { token: token.clone(), mailbox: alice.clone() };
    let base = warm_up(&server, member(0)).await;
    let crowd = Crowd::connect(&server.address, (0..sessions).map(member).collect()).await;
    let idle = settled(&server, &crowd, base).await;
    report.add("memory: an idle session of one user", idle, "KiB", TARGET, format!("{sessions} sessions in one mailbox"));
    for number in 1..=SHARED {
        server.publish(large(&alice)).await;
        crowd.wait_for(number * sessions as u64).await;
    }
    let after = settled(&server, &crowd, base).await;
    crowd.check(SHARED * sessions as u64);
    let note = format!("the same sessions, 5 s after {SHARED} events to all");
    report.add("memory: after 20 events of 32 KiB to all", after, "KiB", TARGET, note);
}

/// Memory in KiB once everything that sessions need but do not own is there.
async fn warm_up(server: &Server, member: Member) -> f64 {
    let members = (0..WARM_UP).map(|_| Member { token: member.token.clone(), mailbox: member.mailbox.clone() });
    let crowd = Crowd::connect(&server.address, members.collect()).await;
    server.publish(large(&member.mailbox)).await;
    crowd.wait_for(crowd.count as u64).await;
    drop(crowd);
    tokio::time::sleep(Duration::from_secs(2)).await;
    server.resident()
}

/// KiB a session, after a rest, with everybody still there.
async fn settled(server: &Server, crowd: &Crowd, base: f64) -> f64 {
    tokio::time::sleep(REST).await;
    assert_eq!(crowd.seen.closed.load(std::sync::atomic::Ordering::Acquire), 0, "all sessions are still there");
    (server.resident() - base) / crowd.count as f64
}

fn mailbox(user: &str) -> String {
    format!("#private:{user}:INBOX")
}

/// A delivery of very many messages at once, about 32 KiB of JSON.
fn large(mailbox: &str) -> String {
    let messages: Vec<String> =
        (1..=800).map(|uid| format!(r#"{{"uid":{},"size":{}}}"#, 1_000_000 + uid, 100_000_000 + uid)).collect();
    format!(r##"{{"type":"MessageNew","mailbox":"{mailbox}","messages":[{}]}}"##, messages.join(","))
}
