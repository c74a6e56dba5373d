//! Clients that idle at one gateway while others change the mailbox elsewhere, before a real Dovecot: what they are told,
//! and that the numbers they then use mean what Dovecot means by them.

use data_encoding::BASE64;
use futures::future::join_all;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::cluster::PATIENCE;
use crate::support::dovecot::{TestDovecot, password};
use crate::support::imap::ImapClient;
use crate::support::lab::Lab;
use crate::support::wait::eventually;
use crate::support::watcher::{Enabled, Message, Watcher, truth};

/// Shows what all processes said where a test fails.
struct Witness(&'static Lab);

impl Drop for Witness {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.print_logs();
        }
    }
}

fn mail(subject: &str) -> String {
    format!("From: Joe <joe@example.org>\r\nSubject: {subject}\r\nMessage-ID: <{subject}@example.org>\r\n\r\nhi\r\n")
}

/// A session that sees what alice shares.
async fn shared_with(client: &mut ImapClient, mailbox: &str) {
    // Dovecot reads rights again after a second.
    eventually("the mailbox is shared", PATIENCE, async || {
        client.command(&format!("STATUS {mailbox} (MESSAGES)")).await.last()?.contains(" OK ").then_some(())
    })
    .await;
}

/// Owners and sharees with everything they can enable, all in one mailbox of alice's, idling at one gateway; alice herself
/// at another one.
struct Crowd {
    lab: &'static Lab,
    gateway: usize,
    parked: bool,
    mailbox: String,
    alice: ImapClient,
    watchers: Vec<Watcher>,
}

impl Crowd {
    /// `name` and `name-other` are alice's: five messages and two. She has `name` selected, at the first gateway.
    async fn gather(lab: &'static Lab, gateway: usize, parked: bool, name: &str) -> Self {
        let mut alice = lab.client(0, "alice").await;
        for (mailbox, count) in [(name.to_owned(), 5), (format!("{name}-other"), 2)] {
            alice.ok(&format!("CREATE {mailbox}")).await;
            for number in 1..=count {
                alice.append(&mailbox, "", &mail(&format!("{mailbox}-{number}"))).await;
            }
        }
        alice.ok(&format!("SETACL {name} bob lrs")).await;
        alice.ok(&format!("SELECT {name}")).await;
        let theirs = format!("shared/alice/{name}");
        shared_with(&mut lab.client(0, "bob").await, &theirs).await;
        let (own, theirs) = (("alice", name), ("bob", theirs.as_str()));
        use Enabled::{Condstore, Nothing, Qresync};
        let kinds = [
            (own, Nothing, "SELECT"),
            (own, Condstore, "SELECT"),
            (own, Qresync, "SELECT"),
            (own, Nothing, "EXAMINE"),
            (theirs, Nothing, "SELECT"),
            (theirs, Condstore, "SELECT"),
            (theirs, Qresync, "SELECT"),
            (theirs, Qresync, "EXAMINE"),
        ];
        let watchers = kinds.map(|((user, mailbox), enabled, command)| async move {
            Watcher::open(lab.client(gateway, user).await, mailbox, enabled, command).await
        });
        Self { lab, gateway, parked, mailbox: name.to_owned(), alice, watchers: join_all(watchers).await }
    }

    async fn idle(&mut self) {
        join_all(self.watchers.iter_mut().map(Watcher::idle)).await;
        if self.parked {
            self.lab.becomes_parked(self.gateway, self.watchers.len() as u64).await;
        }
    }

    async fn truth(&self) -> Vec<Message> {
        truth(&self.lab.dovecot, "alice", &self.mailbox).await
    }

    /// All idle; then `change` happens; then all are told, and told this (kinds of responses in their order), and their
    /// numbers are right.
    async fn told(&mut self, told: &[&str], change: impl AsyncFnOnce(&mut ImapClient, &TestDovecot)) {
        self.idle().await;
        change(&mut self.alice, &self.lab.dovecot).await;
        self.finish(told).await;
    }

    async fn finish(&mut self, told: &[&str]) {
        let truth = self.truth().await;
        let all = self.watchers.iter_mut().map(async |watcher| {
            watcher.hears(&truth).await;
            let heard = watcher.done(&truth).await;
            // Which of them can be set is told anew only where that has changed, which it has not for who may not set any.
            let heard = heard.iter().filter(|kind| *kind != "PERMANENTFLAGS");
            let heard: Vec<&str> = heard.map(|kind| if kind == "VANISHED" { "EXPUNGE" } else { kind }).collect();
            assert_eq!(heard, told, "{}\n{}", watcher.name, watcher.story());
        });
        join_all(all).await;
    }
}

/// Everything that can happen to a mailbox, one after the other.
async fn every_change(gateway: usize, parked: bool, name: &str) {
    let lab = Lab::shared();
    let _witness = Witness(lab);
    let mut crowd = Crowd::gather(lab, gateway, parked, name).await;
    let other = format!("{name}-other");

    crowd.told(&["EXISTS"], async |_, dovecot| dovecot.deliver(&format!("alice+{name}"), &mail("delivered")).await).await;
    crowd.told(&["EXISTS"], async |alice, _| drop(alice.append(name, "\\Seen", &mail("appended")).await)).await;
    crowd.told(&["FETCH"], async |alice, _| drop(alice.ok("STORE 2 +FLAGS (\\Flagged)").await)).await;
    crowd.told(&["FLAGS", "FETCH"], async |alice, _| drop(alice.ok("STORE 3 +FLAGS ($New)").await)).await;
    crowd.told(&["FETCH"], async |alice, _| drop(alice.ok("UID STORE 2 -FLAGS.SILENT (\\Flagged)").await)).await;
    let doveadm_flags = ["flags", "add", "-u", "alice", "\\Answered", "mailbox", name, "uid", "1"];
    crowd.told(&["FETCH"], async |_, dovecot| dovecot.doveadm(&doveadm_flags)).await;

    crowd.told(&["FETCH"], async |alice, _| drop(alice.ok("STORE 4 +FLAGS (\\Deleted)").await)).await;
    crowd.told(&["EXPUNGE"], async |alice, _| drop(alice.ok("EXPUNGE").await)).await;
    let deleted = async |alice: &mut ImapClient, _: &TestDovecot| drop(alice.ok("UID STORE 1,3,6 +FLAGS (\\Deleted)").await);
    crowd.told(&["FETCH", "FETCH", "FETCH"], deleted).await;
    crowd.idle().await;
    crowd.alice.ok("UID EXPUNGE 1,3").await;
    let truth = crowd.truth().await;
    for watcher in &mut crowd.watchers {
        watcher.hears(&truth).await;
        let heard = watcher.done(&truth).await;
        let expected: &[&str] = if watcher.name.contains("Qresync") { &["VANISHED"] } else { &["EXPUNGE", "EXPUNGE"] };
        assert_eq!(heard, expected, "{}\n{}", watcher.name, watcher.story());
    }

    crowd.told(&["EXISTS"], async |alice, _| drop(alice.ok(&format!("COPY 1 {name}")).await)).await;
    crowd.told(&["EXPUNGE"], async |alice, _| drop(alice.ok(&format!("UID MOVE 2 {other}")).await)).await;
    let mut second = lab.client(0, "alice").await;
    second.ok(&format!("SELECT {other}")).await;
    crowd.told(&["EXISTS"], async |_, _| drop(second.ok(&format!("MOVE 1 {name}")).await)).await;
    second.ok("CLOSE").await;

    let mut bob = lab.client(0, "bob").await;
    bob.ok(&format!("SELECT shared/alice/{name}")).await;
    crowd.told(&["FETCH"], async |_, _| drop(bob.ok("STORE 1 +FLAGS (\\Seen)").await)).await;

    // The sessions go on under the new name; flags may be told once more.
    let renamed = format!("{name}-renamed");
    crowd.idle().await;
    crowd.alice.ok("UNSELECT").await;
    crowd.alice.ok(&format!("RENAME {name} {renamed}")).await;
    crowd.mailbox = renamed.clone();
    crowd.alice.ok(&format!("SELECT {renamed}")).await;
    crowd.alice.ok("STORE 3 +FLAGS (\\Draft)").await;
    crowd.alice.append(&renamed, "", &mail("under the new name")).await;
    let truth = crowd.truth().await;
    for watcher in &mut crowd.watchers {
        watcher.hears(&truth).await;
        let heard = watcher.done(&truth).await;
        let others = heard.iter().filter(|kind| *kind != "FETCH" && *kind != "PERMANENTFLAGS");
        assert_eq!(others.collect::<Vec<_>>(), ["EXISTS"], "{}\n{}", watcher.name, watcher.story());
    }
    crowd.told(&["EXISTS"], async |alice, _| drop(alice.append(&renamed, "", &mail("again")).await)).await;

    crowd.idle().await;
    crowd.alice.ok("UNSELECT").await;
    crowd.alice.ok(&format!("DELETE {renamed}")).await;
    for watcher in &mut crowd.watchers {
        let farewell = watcher.is_dismissed().await;
        assert_eq!(farewell, "* BYE The mailbox has been deleted", "{}\n{}", watcher.name, watcher.story());
    }
}

#[tokio::test]
async fn every_change_through_another_gateway_is_told() {
    every_change(1, false, "Live").await;
}

#[tokio::test]
async fn every_change_is_told_while_parked_by_a_master_user() {
    every_change(2, true, "Master").await;
}

#[tokio::test]
async fn every_change_is_told_while_parked_with_the_clients_credentials() {
    every_change(3, true, "Own").await;
}

/// All that comes back when these bytes are sent at once and the sending side is shut, as by `nc -N`.
async fn said_to(port: u16, script: &str) -> String {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await.expect("connect");
    stream.write_all(script.as_bytes()).await.expect("send");
    stream.shutdown().await.expect("half a close");
    let mut said = Vec::new();
    let read = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut said)).await.expect("an end in time");
    read.expect("a clean end");
    String::from_utf8_lossy(&said).into_owned()
}

#[tokio::test]
async fn who_sends_all_at_once_and_shuts_its_side_gets_every_answer() {
    let lab = Lab::shared();
    let _witness = Witness(lab);
    let password = password("carol");
    let sasl = BASE64.encode(format!("\0carol\0{password}").as_bytes());
    let logins = [format!("a LOGIN carol {password}\r\n"), format!("a AUTHENTICATE PLAIN\r\n{sasl}\r\n")];
    let rests = ["b SELECT INBOX\r\nc LOGOUT\r\n", "b SELECT INBOX\r\nd IDLE\r\nDONE\r\nc LOGOUT\r\n"];
    for (login, rest) in logins.iter().flat_map(|login| rests.map(|rest| (login, rest))) {
        for port in [lab.dovecot.imap_port, lab.cluster.imap(0), lab.cluster.imap(2)] {
            let said = said_to(port, &format!("{login}{rest}")).await;
            for tag in ["a", "b", "c"] {
                let answer = said.lines().any(|line| line.starts_with(&format!("{tag} OK ")));
                assert!(answer, "no answer to {tag} of {rest:?} at port {port}: {said}");
            }
            assert_eq!(said.contains("\r\nd OK "), rest.contains("IDLE"), "{rest:?} at port {port}: {said}");
        }
    }
}

#[tokio::test]
async fn idle_with_nothing_selected_and_idle_right_behind_done() {
    let lab = Lab::shared();
    let _witness = Witness(lab);
    let mut client = lab.client(1, "carol").await;
    let tag = client.begin("IDLE").await;
    client.expect("+").await;
    lab.dovecot.deliver("carol", &mail("unseen")).await;
    assert_eq!(client.line().await.as_deref(), Some("* OK Still here"), "nothing else");
    client.send(b"DONE\r\n").await;
    assert_eq!(client.until(&tag).await, [format!("{tag} OK Idle completed")]);

    let mut watcher = Watcher::open(client, "INBOX", Enabled::Nothing, "SELECT").await;
    watcher.idle().await;
    for round in 0..3 {
        watcher.renew().await;
        lab.dovecot.deliver("carol", &mail(&format!("round-{round}"))).await;
        let truth = truth(&lab.dovecot, "carol", "INBOX").await;
        watcher.hears(&truth).await;
    }
    watcher.renew().await;
    let truth = truth(&lab.dovecot, "carol", "INBOX").await;
    assert_eq!(watcher.done(&truth).await, ["EXISTS", "EXISTS", "EXISTS"]);
}

#[tokio::test]
async fn what_happens_just_as_idle_begins_is_told() {
    let lab = Lab::shared();
    let _witness = Witness(lab);
    let mut alice = lab.client(0, "alice").await;
    for round in 0..50 {
        // Once where nobody has listened before, once where the registration is still there.
        let mailbox = format!("Race-{round}");
        alice.ok(&format!("CREATE {mailbox}")).await;
        let mut watcher = Watcher::open(lab.client(1, "alice").await, &mailbox, Enabled::Nothing, "SELECT").await;
        for count in 1..=2 {
            let text = mail(&format!("race-{round}-{count}"));
            let append = async {
                // From well before to well after IDLE's first steps.
                for _ in 0..round * 4 {
                    tokio::task::yield_now().await;
                }
                alice.append(&mailbox, "", &text).await
            };
            tokio::join!(watcher.idle(), append);
            let truth = truth(&lab.dovecot, "alice", &mailbox).await;
            assert_eq!(truth.len(), count);
            watcher.hears(&truth).await;
            assert_eq!(watcher.done(&truth).await, ["EXISTS"], "{}", watcher.story());
        }
    }
}

/// Numbers that look random and are the same each time.
struct Dice(u64);

impl Dice {
    /// Below `sides`.
    fn roll(&mut self, sides: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % sides
    }

    fn uids(&mut self, mailbox: &[u32]) -> String {
        let count = 1 + self.roll(3);
        (0..count).map(|_| mailbox[self.roll(mailbox.len())].to_string()).collect::<Vec<_>>().join(",")
    }
}

/// One change to a mailbox that alice has selected.
async fn change(dice: &mut Dice, alice: &mut ImapClient, bob: &mut ImapClient, lab: &Lab, name: &str, step: usize) {
    // Dovecot tells its script nothing of a STORE that changes nothing in the storing session's own view, so it must be new.
    alice.ok("NOOP").await;
    bob.ok("NOOP").await;
    let there = truth(&lab.dovecot, "alice", name).await;
    let there: Vec<u32> = there.iter().filter_map(|message| message.uid).collect();
    let text = mail(&format!("{name}-step-{step}"));
    let flags = ["\\Seen", "\\Flagged $One", "$Two", "\\Answered $Three", ""][dice.roll(5)];
    let lines = match dice.roll(if there.len() < 3 { 3 } else { 9 }) {
        0 => return lab.dovecot.deliver(&format!("alice+{name}"), &text).await,
        1 | 2 => alice.append(name, flags, &text).await,
        3 => alice.ok(&format!("UID STORE {} +FLAGS ({flags} $Step{})", dice.uids(&there), step / 40)).await,
        4 => alice.ok(&format!("UID STORE {} FLAGS ({flags})", dice.uids(&there))).await,
        5 => bob.ok(&format!("UID STORE {} {}FLAGS (\\Seen)", dice.uids(&there), ["+", "-"][dice.roll(2)])).await,
        6 => alice.ok(&format!("UID COPY {} {name}", dice.uids(&there))).await,
        7 => alice.ok(&format!("UID MOVE {} {name}-other", dice.uids(&there))).await,
        _ => {
            let uids = dice.uids(&there);
            alice.ok(&format!("UID STORE {uids} +FLAGS.SILENT (\\Deleted)")).await;
            alice.ok(&format!("UID EXPUNGE {uids}")).await
        }
    };
    assert!(lines.last().is_some_and(|last| last.contains(" OK ")));
}

#[tokio::test]
async fn a_long_history_is_told_to_clients_of_all_kinds() {
    let lab = Lab::shared();
    let _witness = Witness(lab);
    let name = "History";
    let mut crowd = Crowd::gather(lab, 1, false, name).await;
    let theirs = format!("shared/alice/{name}");
    for (user, mailbox, enabled) in [
        ("alice", name, Enabled::Nothing),
        ("alice", name, Enabled::Qresync),
        ("bob", theirs.as_str(), Enabled::Condstore),
        ("bob", theirs.as_str(), Enabled::Nothing),
    ] {
        let client = lab.client(4, user).await;
        crowd.watchers.push(Watcher::open(client, mailbox, enabled, "SELECT").await);
    }
    let mut bob = lab.client(0, "bob").await;
    bob.ok(&format!("SELECT {theirs}")).await;
    let mut dice = Dice(4);
    join_all(crowd.watchers.iter_mut().map(Watcher::idle)).await;
    let mut step = 0;
    for round in 0..20 {
        let count = 1 + dice.roll(8);
        let changes = async {
            for _ in 0..count {
                change(&mut dice, &mut crowd.alice, &mut bob, lab, name, step).await;
                step += 1;
            }
        };
        // Some listen all the while, some end IDLE and begin it anew, some look in between.
        let listeners = crowd.watchers.iter_mut().enumerate().map(async |(at, watcher)| match (at + round) % 3 {
            0 => {}
            1 => watcher.renew().await,
            _ => watcher.pause().await,
        });
        tokio::join!(changes, join_all(listeners));
        let truth = truth(&lab.dovecot, "alice", name).await;
        let all = crowd.watchers.iter_mut().map(async |watcher| {
            watcher.hears(&truth).await;
            watcher.done(&truth).await;
            watcher.idle().await;
        });
        join_all(all).await;
    }
    assert!(step > 60, "{step}");
}

#[tokio::test]
async fn administrators_see_and_end_sessions() {
    let lab = Lab::shared();
    let _witness = Witness(lab);
    let mut alice = lab.client(0, "alice").await;
    alice.ok("CREATE Watched").await;
    let mut watcher = Watcher::open(lab.client(1, "alice").await, "Watched", Enabled::Nothing, "SELECT").await;
    watcher.idle().await;

    let token = lab.cluster.admin_token();
    let path = "/v1/subscriptions?mailbox=%23private:alice:Watched";
    let subscription = eventually("the subscription is listed", PATIENCE, async || {
        let (status, answer) = lab.cluster.get(0, path, &token).await;
        assert_eq!(status, 200, "{answer}");
        answer["subscriptions"].as_array()?.first().cloned()
    })
    .await;
    assert_eq!((&subscription["user"], &subscription["transport"]), (&json!("alice"), &json!("imap")), "{subscription}");
    let id = subscription["session"].as_str().expect("a session").to_owned();
    let (_, answer) = lab.cluster.get(0, "/v1/sessions?user=alice&transport=imap&limit=1000", &token).await;
    let sessions = answer["sessions"].as_array().expect("sessions");
    let session = sessions.iter().find(|session| session["id"] == *id).expect("the session is listed");
    assert_eq!((&session["node"], &session["subscriptions"]), (&json!(lab.cluster.id(1)), &json!(1)), "{session}");

    let url = format!("{}/v1/sessions/{id}", lab.cluster.http(0));
    let answer = reqwest::Client::new().delete(url).bearer_auth(&token).send().await.expect("an answer");
    assert!(answer.status().is_success(), "{}", answer.status());
    assert_eq!(watcher.is_dismissed().await, "* BYE The session was ended by an administrator");
}
