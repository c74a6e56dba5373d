//! Mail apps that idle on what is shared, before the dev store, where the registry keeps the ACLs.

use std::time::{Duration, Instant};

use mailpush::cluster::acls::Acls;
use mailpush::cluster::registry::RegistryError;
use mailpush::config::{ImapTls, Millis, RightsKind, Settings};
use mailpush::dev::store::{Store, StoreOptions};
use mailpush::mail::MailboxPath;
use mailpush::mail::rights::Acl;
use serde_json::{Value, json};

use crate::support::acls::AclNode;
use crate::support::imap::ImapClient;
use crate::support::wait::eventually;

const TEAM: &str = "shared/alice@example.org/Team";
const PATIENCE: Duration = Duration::from_secs(10);

struct Site {
    store: Store,
    node: AclNode,
}

fn team() -> MailboxPath {
    "#private:alice@example.org:Team".parse().expect("a path")
}

impl Site {
    /// Nobody publishes what happens in the store: what a client hears of it, the store has told.
    async fn new(change: impl FnOnce(&mut Settings)) -> Self {
        let store = Store::start(StoreOptions::default()).await.expect("the store");
        let address = store.address().into();
        let node = AclNode::start(|settings| {
            settings.imap.listen = Some("127.0.0.1:0".parse().expect("an address"));
            settings.imap.upstream.addresses = vec![address];
            settings.imap.upstream.tls = ImapTls::None;
            settings.access.source = RightsKind::Registry;
            change(settings);
        });
        Self { node: node.await, store }
    }

    async fn share(&self, acl: Value) {
        let acl: Acl = serde_json::from_value(acl).expect("an ACL");
        self.node.acls.replace(&team(), &acl).await.expect("written");
    }

    async fn client(&self, user: &str) -> ImapClient {
        let port = self.node.node.imap().plain.expect("a door").port();
        ImapClient::login(port, user, user).await
    }

    /// A message comes to Team, past the gateway.
    async fn delivers(&self) {
        let mut alice = ImapClient::login(self.store.address().port(), "alice", "alice").await;
        alice.append("Team", "", "Subject: news\r\n\r\nHi\r\n").await;
    }

    async fn bob_idles(&self) -> (ImapClient, String) {
        let mut bob = self.client("bob").await;
        bob.ok(&format!("SELECT {TEAM}")).await;
        let idle = bob.begin("IDLE").await;
        bob.expect("+ idling").await;
        (bob, idle)
    }
}

/// Nothing comes for so long.
async fn is_quiet(client: &mut ImapClient, span: Duration) {
    if let Ok(line) = tokio::time::timeout(span, client.line()).await {
        panic!("heard {line:?}");
    }
}

async fn done(mut client: ImapClient, idle: &str) {
    client.send(b"DONE\r\n").await;
    assert!(client.until(idle).await.last().is_some_and(|line| line.contains(" OK ")));
}

#[tokio::test]
async fn where_groups_decide_the_server_idles_itself() {
    let site = Site::new(|_| ()).await;
    for acl in [json!({ "group:staff": "lr" }), json!({ "anyone": "lr", "-group:temps": "lr" })] {
        site.share(acl).await;
        let (mut bob, idle) = site.bob_idles().await;
        site.delivers().await;
        bob.expect("* * EXISTS").await;
        done(bob, &idle).await;
    }
    // For himself he is known to have none.
    site.share(json!({ "bob@example.org": "l", "group:staff": "s" })).await;
    let (mut bob, _) = site.bob_idles().await;
    bob.expect("* BYE You may not read this mailbox any more").await;
}

#[tokio::test]
async fn where_groups_come_to_decide_nothing_is_lost() {
    let site = Site::new(|_| ()).await;
    site.share(json!({ "anyone": "lr" })).await;
    let (mut bob, idle) = site.bob_idles().await;
    let asked = || site.node.node.gateway().sessions.all().iter().any(|session| session.reads_watched() == Some(true));
    eventually("his rights are known", PATIENCE, async || asked().then_some(())).await;
    site.delivers().await;
    is_quiet(&mut bob, Duration::from_millis(300)).await;
    site.share(json!({ "anyone": "lr", "-group:temps": "lr" })).await;
    bob.expect("* * EXISTS").await;
    site.delivers().await;
    bob.expect("* * EXISTS").await;
    done(bob, &idle).await;
}

#[tokio::test]
async fn while_the_source_is_away_for_too_long_a_look_at_the_server_tells_nothing() {
    let site = Site::new(|settings| {
        (settings.access.recheck_ms, settings.access.max_age_ms) = (Millis(100), Millis(300));
        settings.imap.audit_ms = Millis(100);
    })
    .await;
    site.share(json!({ "bob@example.org": "lr" })).await;
    let (mut bob, idle) = site.bob_idles().await;
    site.delivers().await;
    bob.expect("* 1 EXISTS").await;
    bob.expect("* 1 RECENT").await;
    let away = Some(RegistryError::Unreachable("away".to_owned()));
    *site.node.acls.failure.lock().expect("a lock") = away;
    let expired = || site.node.node.gateway().metrics.rights_expired.get() > 0;
    eventually("his rights are not trusted any more", PATIENCE, async || expired().then_some(())).await;
    site.delivers().await;
    is_quiet(&mut bob, Duration::from_secs(1)).await;
    *site.node.acls.failure.lock().expect("a lock") = None;
    bob.expect("* 2 EXISTS").await;
    done(bob, &idle).await;
}

#[tokio::test]
async fn who_has_the_ok_of_a_change_knows_that_it_is_told() {
    let mut site = Site::new(|_| ()).await;
    let mut alice = site.client("alice").await;
    alice.ok("SETACL Team bob lrs").await;
    assert_eq!(site.node.next_told_by("alice@example.org").await, ("bob@example.org".into(), "lrs".into()));
    site.node.break_publishing().await;
    let begun = Instant::now();
    let tag = alice.begin("SETACL Team bob -s").await;
    is_quiet(&mut alice, Duration::from_millis(300)).await;
    site.node.mend_publishing().await;
    alice.until(&tag).await;
    assert!(begun.elapsed() < Duration::from_millis(950), "not only because it waits no longer: {:?}", begun.elapsed());
    assert_eq!(site.node.next_told_by("alice@example.org").await, ("bob@example.org".into(), "-s".into()));
    // It is not waited for for ever.
    site.node.break_publishing().await;
    let begun = Instant::now();
    alice.ok("DELETEACL Team bob").await;
    assert!((900..5_000).contains(&begun.elapsed().as_millis()), "{:?}", begun.elapsed());
    alice.ok("NOOP").await;
    drop(alice);
    site.node.mend_publishing().await;
    assert_eq!(site.node.next_told_by("alice@example.org").await, ("bob@example.org".into(), String::new()));
    let counted = || site.node.node.gateway().metrics.imap_acl_changes.get_or_create(&vec![("outcome", "published")]).get();
    eventually("all are counted", PATIENCE, async || (counted() == 3).then_some(())).await;
}
