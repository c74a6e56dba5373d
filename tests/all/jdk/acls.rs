//! ACLs against a real ZooKeeper; and what they promise, against it and in process.

use std::sync::Arc;
use std::time::{Duration, Instant};

use mailpush::cluster::acls::{AclNews, Acls, MAX_ENTRIES};
use mailpush::cluster::registry::local::LocalRegistry;
use mailpush::cluster::registry::zookeeper::ZookeeperRegistry;
use mailpush::cluster::registry::{QueueNames, Registrar, RegistryError};
use mailpush::config::{Millis, RegistrySettings, Secret};
use mailpush::mail::path::MailboxPath;
use mailpush::mail::rights::{Acl, AclEdit, Identifier, Rights};
use mailpush::mail::user::UserName;
use tokio::sync::mpsc;
use tokio::time::timeout;
use zookeeper_client as zk;

use crate::support::wait::eventually;
use crate::support::zookeeper::{Proxy, TestZookeeper};

const PATIENCE: Duration = Duration::from_secs(30);

fn settings(servers: &[&str], chroot: &str) -> RegistrySettings {
    RegistrySettings {
        ensembles: servers.iter().map(|server| server.parse().expect("a server")).collect(),
        chroot: chroot.parse().expect("a chroot"),
        session_timeout_ms: Millis(2_000),
        lookup_timeout_ms: Millis(5_000),
        ..RegistrySettings::default()
    }
}

async fn connect(settings: &RegistrySettings) -> Arc<ZookeeperRegistry> {
    ZookeeperRegistry::connect(settings, QueueNames::new("mp").unwrap()).await.expect("good settings")
}

fn path(text: &str) -> MailboxPath {
    text.parse().unwrap()
}

fn bobs(name: &str) -> MailboxPath {
    MailboxPath::new("#private", "bob@x.org", name).unwrap()
}

fn user(name: &str) -> UserName {
    UserName::new(name).unwrap()
}

fn acl(text: &str) -> Acl {
    serde_json::from_str(text).unwrap()
}

fn edit(entry: &str, change: &str) -> AclEdit {
    AclEdit { entry: entry.parse().unwrap(), change: change.parse().unwrap() }
}

fn names(identifiers: &[&str]) -> Vec<Identifier> {
    identifiers.iter().map(|text| text.parse().unwrap()).collect()
}

async fn shared_with(acls: &dyn Acls, identifiers: &[&str]) -> Vec<String> {
    let shared = acls.shared_with(&names(identifiers)).await.unwrap();
    shared.iter().map(ToString::to_string).collect()
}

async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    timeout(PATIENCE, future).await.unwrap_or_else(|_| panic!("{what}: not within {PATIENCE:?}"))
}

/// Hears all of these, in any order, and nothing else before them.
async fn hears(news: &mut mpsc::UnboundedReceiver<AclNews>, expected: &[AclNews]) {
    let mut left = expected.to_vec();
    while !left.is_empty() {
        let heard = within("news", news.recv()).await.expect("an open channel");
        let at = left.iter().position(|news| *news == heard);
        left.remove(at.unwrap_or_else(|| panic!("{heard:?} is told, and not one of {left:?}")));
    }
}

/// A client of another kind: it sees and changes what is really there.
async fn hand(server: &str, chroot: &str) -> zk::Client {
    let connector = zk::Client::connector().with_session_timeout(Duration::from_secs(60));
    connector.connect(server).await.expect("connect by hand").chroot(chroot.to_owned()).expect("the chroot")
}

/// Every znode below `path` that has no children and is no bucket and no container, without the buckets.
async fn leaves(client: &zk::Client, path: &str, depth: usize) -> Vec<String> {
    let mut paths = vec![(path.to_owned(), String::new())];
    for level in 0..depth {
        let mut deeper = Vec::new();
        for (path, shown) in paths {
            for name in client.list_children(&path).await.unwrap_or_default() {
                let shown = if level == 0 { String::new() } else { format!("{shown}/{name}") };
                deeper.push((format!("{path}/{name}"), shown));
            }
        }
        paths = deeper;
    }
    let mut leaves: Vec<String> = paths.into_iter().map(|(_, shown)| shown).collect();
    leaves.sort();
    leaves
}

/// What every implementation promises, in an empty tree. `b` is another client of the same.
async fn keeps_the_contract(a: Arc<dyn Acls>, b: Arc<dyn Acls>) {
    reads_what_was_written(&*a, &*b).await;
    loses_no_edit(&a, &b).await;
    renames_mailboxes(&*a, &*b).await;
    renames_users(&*a, &*b).await;
    tells_news(&*a, &*b).await;
    refuses_the_too_large(&*a).await;
}

async fn reads_what_was_written(a: &dyn Acls, b: &dyn Acls) {
    let team = bobs("Team");
    assert_eq!(a.get(&team).await.unwrap(), Acl::default());
    let edits = [edit("eve@x.org", "lrs"), edit("group:staff", "lr"), edit("-group:temps", "r"), edit("anyone", "l")];
    let now = acl(r#"{"eve@x.org":"lrs","group:staff":"lr","-group:temps":"r","anyone":"l"}"#);
    for was in [Acl::default(), now.clone()] {
        assert_eq!(a.edit(&team, &edits).await.unwrap(), (was, now.clone()), "twice is once");
    }
    assert_eq!(b.get(&team).await.unwrap(), now, "at once, for everybody");
    assert_eq!(b.replace(&path("#shared::News"), &acl(r#"{"authenticated":"lr","owner":"a"}"#)).await.unwrap(), Acl::default());
    for (identifiers, mailboxes) in [
        (&["eve@x.org"][..], &["#private:bob@x.org:Team"][..]),
        (&["group:temps"], &["#private:bob@x.org:Team"]),
        (&["anyone", "authenticated", "eve@x.org", "group:staff"], &["#private:bob@x.org:Team", "#shared::News"]),
        (&["group:other", "bob@x.org"], &[]),
        (&[], &[]),
    ] {
        assert_eq!(shared_with(a, identifiers).await, mailboxes, "{identifiers:?}");
    }
    let (was, now) = b.edit(&team, &[edit("eve@x.org", "-rs"), edit("eve@x.org", "+t"), edit("anyone", "")]).await.unwrap();
    assert_eq!(was.len(), 4);
    assert_eq!(now, acl(r#"{"eve@x.org":"lt","group:staff":"lr","-group:temps":"r"}"#));
    assert_eq!(a.get(&team).await.unwrap(), now);
    assert_eq!(shared_with(a, &["anyone"]).await, [] as [&str; 0]);
    assert_eq!(a.replace(&team, &Acl::default()).await.unwrap(), now);
    assert_eq!(a.replace(&path("#shared::News"), &Acl::default()).await.unwrap().len(), 2);
    assert!(b.get(&team).await.unwrap().is_empty());
    assert_eq!(shared_with(b, &["eve@x.org", "group:staff", "group:temps", "authenticated", "owner"]).await, [] as [&str; 0]);
}

/// Two clients, and within each several callers at once.
async fn loses_no_edit(a: &Arc<dyn Acls>, b: &Arc<dyn Acls>) {
    let (team, count) = (bobs("Busy"), 40);
    let edits = (0..count).map(|n| {
        let (acls, team) = (if n % 2 == 0 { a.clone() } else { b.clone() }, team.clone());
        tokio::spawn(async move { acls.edit(&team, &[edit(&format!("user{n}"), "l"), edit("all", "+l")]).await.map(drop) })
    });
    for done in futures::future::join_all(edits).await {
        done.unwrap().unwrap();
    }
    let now = a.get(&team).await.unwrap();
    assert_eq!(now.len(), count + 1);
    for n in 0..count {
        assert_eq!(shared_with(&**b, &[&format!("user{n}")]).await, ["#private:bob@x.org:Busy"]);
    }
    assert_eq!(b.replace(&team, &Acl::default()).await.unwrap(), now);
}

async fn renames_mailboxes(a: &dyn Acls, b: &dyn Acls) {
    let (eve, temps) = (acl(r#"{"eve@x.org":"lr"}"#), acl(r#"{"-group:temps":"r"}"#));
    for (name, acl) in [("Work/A", &eve), ("Work/A/B", &temps), ("Workshop", &eve), ("INBOX", &eve), ("INBOX/In", &eve)] {
        a.replace(&bobs(name), acl).await.unwrap();
    }
    a.replace(&bobs("Play/A"), &acl(r#"{"dave@x.org":"l"}"#)).await.unwrap();
    // Work has no ACL of its own, and what Play/A had is overwritten.
    for _ in 0..2 {
        a.rename(&bobs("Work"), &bobs("Play")).await.unwrap();
        assert_eq!(b.get(&bobs("Play/A")).await.unwrap(), eve);
        assert_eq!(b.get(&bobs("Play/A/B")).await.unwrap(), temps);
        assert!(b.get(&bobs("Work/A")).await.unwrap().is_empty());
    }
    a.rename(&bobs("INBOX"), &bobs("Old")).await.unwrap();
    assert_eq!(b.get(&bobs("INBOX")).await.unwrap(), eve);
    let mine = |names: &[&str]| names.iter().map(|name| bobs(name).to_string()).collect::<Vec<_>>();
    assert_eq!(shared_with(b, &["eve@x.org"]).await, mine(&["INBOX", "INBOX/In", "Play/A", "Workshop"]));
    assert_eq!(shared_with(b, &["group:temps"]).await, mine(&["Play/A/B"]));
    assert_eq!(shared_with(b, &["dave@x.org"]).await, [] as [&str; 0]);
    assert!(matches!(a.rename(&bobs("Play"), &bobs("Play/Below")).await, Err(RegistryError::Refused(_))));

    // Between namespaces and owners, with and without one.
    let (shared, others) = (path("#shared::Team/Play"), path("#private:carol@x.org:Play"));
    a.rename(&bobs("Play"), &shared).await.unwrap();
    b.rename(&path("#shared::Team"), &path("#shared::Group")).await.unwrap();
    assert_eq!(shared_with(a, &["group:temps"]).await, ["#shared::Group/Play/A/B"]);
    b.rename(&path("#shared::Group/Play"), &others).await.unwrap();
    assert_eq!(a.get(&path("#private:carol@x.org:Play/A")).await.unwrap(), eve);
    assert_eq!(shared_with(a, &["group:temps"]).await, ["#private:carol@x.org:Play/A/B"]);
    for mailbox in a.shared_with(&names(&["eve@x.org", "group:temps"])).await.unwrap() {
        a.replace(&mailbox, &Acl::default()).await.unwrap();
    }
    assert_eq!(shared_with(b, &["eve@x.org", "group:temps"]).await, [] as [&str; 0]);
}

async fn renames_users(a: &dyn Acls, b: &dyn Acls) {
    let team = path("#private:alice@x.org:Team");
    a.replace(&bobs("A/B"), &acl(r#"{"eve@x.org":"lr"}"#)).await.unwrap();
    a.replace(&team, &acl(r#"{"bob@x.org":"lr","-bob@x.org":"r","rob@x.org":"lrs","eve@x.org":"l"}"#)).await.unwrap();
    for _ in 0..2 {
        a.rename_user(&user("bob@x.org"), &user("rob@x.org")).await.unwrap();
        assert!(b.get(&bobs("A/B")).await.unwrap().is_empty());
        assert_eq!(b.get(&path("#private:rob@x.org:A/B")).await.unwrap(), acl(r#"{"eve@x.org":"lr"}"#));
        let renamed = acl(r#"{"rob@x.org":"lr","-rob@x.org":"r","eve@x.org":"l"}"#);
        assert_eq!(b.get(&team).await.unwrap(), renamed);
    }
    assert_eq!(shared_with(b, &["eve@x.org"]).await, ["#private:alice@x.org:Team", "#private:rob@x.org:A/B"]);
    assert_eq!(shared_with(b, &["rob@x.org"]).await, ["#private:alice@x.org:Team"]);
    assert_eq!(shared_with(b, &["bob@x.org"]).await, [] as [&str; 0]);
    a.replace(&team, &Acl::default()).await.unwrap();
    a.replace(&path("#private:rob@x.org:A/B"), &Acl::default()).await.unwrap();
}

async fn tells_news(a: &dyn Acls, b: &dyn Acls) {
    let (mut news, mut again) = (a.news(), a.news());
    let (changed, shares) = (AclNews::Changed(bobs("Told")), AclNews::Shares("eve@x.org".parse().unwrap()));
    // Absent, then there, then changed, then gone.
    for now in [r#"{"eve@x.org":"lr"}"#, r#"{"eve@x.org":"l"}"#, "{}"] {
        let was = a.get(&bobs("Told")).await.unwrap();
        shared_with(a, &["eve@x.org"]).await;
        shared_with(a, &["eve@x.org"]).await;
        b.replace(&bobs("Told"), &acl(now)).await.unwrap();
        let expected = if was.len() == acl(now).len() { vec![changed.clone()] } else { vec![changed.clone(), shares.clone()] };
        hears(&mut news, &expected).await;
        hears(&mut again, &expected).await;
    }
    // What nobody asked for is not told, and neither is the same twice.
    b.replace(&bobs("Told"), &acl(r#"{"eve@x.org":"l"}"#)).await.unwrap();
    a.get(&bobs("Marker")).await.unwrap();
    b.replace(&bobs("Marker"), &acl(r#"{"eve@x.org":"l"}"#)).await.unwrap();
    let mut heard = Vec::new();
    while heard.last() != Some(&AclNews::Changed(bobs("Marker"))) {
        heard.push(within("news", news.recv()).await.unwrap());
    }
    assert!(!heard.contains(&changed), "{heard:?}");
    for name in ["Told", "Marker"] {
        b.replace(&bobs(name), &Acl::default()).await.unwrap();
    }
}

async fn refuses_the_too_large(a: &dyn Acls) {
    let of = |count: usize, mark: &str| -> Acl {
        (0..count).map(|n| (format!("{mark}{n}@example.org").parse().unwrap(), Rights::READ)).collect()
    };
    let mailbox = bobs("Large");
    assert!(matches!(a.replace(&mailbox, &of(MAX_ENTRIES + 1, "user")).await, Err(RegistryError::Refused(_))));
    a.replace(&mailbox, &of(MAX_ENTRIES, "user")).await.unwrap();
    assert!(matches!(a.edit(&mailbox, &[edit("one.more", "l")]).await, Err(RegistryError::Refused(_))));
    assert_eq!(a.replace(&mailbox, &of(MAX_ENTRIES, "other")).await.unwrap(), of(MAX_ENTRIES, "user"));
    assert_eq!(shared_with(a, &["other999@example.org"]).await, ["#private:bob@x.org:Large"]);
    assert_eq!(shared_with(a, &["user999@example.org"]).await, [] as [&str; 0]);
    a.replace(&mailbox, &Acl::default()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn in_process_the_contract_holds() {
    let registry = LocalRegistry::new(QueueNames::new("mp").unwrap());
    keeps_the_contract(registry.acls(), registry.acls()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn in_zookeeper_the_contract_holds() {
    let server = TestZookeeper::shared().await.address();
    let settings = settings(&[&server], "/contract");
    keeps_the_contract(connect(&settings).await, connect(&settings).await).await;
    let hand = hand(&server, "/contract").await;
    assert_eq!(leaves(&hand, "/acl", 2).await, [] as [&str; 0], "who shares nothing any more leaves nothing");
    assert_eq!(leaves(&hand, "/shares", 3).await, [] as [&str; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn in_several_ensembles_the_contract_holds() {
    // Two chroots of one server would be one ensemble: these are two.
    let (first, second) = (TestZookeeper::start().await, TestZookeeper::shared().await);
    let settings = settings(&[&first.address(), &second.address()], "/ensembles");
    let acls = connect(&settings).await;
    keeps_the_contract(acls.clone(), connect(&settings).await).await;
    for n in 0..20 {
        acls.replace(&path(&format!("#private:user{n}:A")), &acl(r#"{"eve@x.org":"l"}"#)).await.unwrap();
    }
    let mut counts = Vec::new();
    for server in [&first.address(), &second.address()] {
        counts.push(leaves(&hand(server, "/ensembles").await, "/acl", 2).await.len());
    }
    assert_eq!(counts.iter().sum::<usize>(), 20);
    assert!(counts.iter().all(|count| *count > 0), "{counts:?}");
    assert_eq!(shared_with(&*acls, &["eve@x.org"]).await.len(), 20);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_tree_is_as_it_is_written_down() {
    let server = TestZookeeper::shared().await.address();
    let acls = connect(&settings(&[&server], "/tree")).await;
    let hand = hand(&server, "/tree").await;
    assert!(hand.check_stat("/acl").await.unwrap().is_none(), "who does not touch ACLs does not pay");
    acls.replace(&bobs("A/B"), &acl(r#"{"eve@x.org":"lr","-eve@x.org":"s","anyone":"l"}"#)).await.unwrap();
    let mailbox = "#private:bob@x.org:A%2FB";
    assert_eq!(leaves(&hand, "/acl", 2).await, [format!("/{mailbox}")]);
    assert_eq!(leaves(&hand, "/shares", 3).await, [format!("/=anyone/{mailbox}"), format!("/@eve@x.org/{mailbox}")]);
    let bucket = hand.list_children("/acl").await.unwrap().remove(0);
    let (data, stat) = hand.get_data(&format!("/acl/{bucket}/{mailbox}")).await.unwrap();
    assert_eq!(String::from_utf8_lossy(&data), r#"{"v":1,"acl":{"anyone":"l","eve@x.org":"lr","-eve@x.org":"s"}}"#);
    assert_eq!(stat.ephemeral_owner, 0, "it outlives every session");
    acls.close().await;
    assert!(matches!(acls.get(&bobs("A/B")).await, Err(RegistryError::Closed)));
    assert!(within("the end", acls.news().recv()).await.is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_over_long_name_is_told_from_others() {
    let server = TestZookeeper::shared().await.address();
    let acls = connect(&settings(&[&server], "/long")).await;
    let (long, other) = (bobs(&format!("Work/{}", "x".repeat(1_000))), bobs(&"y".repeat(10_000)));
    let crowd = format!("group:{}", "é".repeat(160));
    let mut lists = acl(r#"{"eve@x.org":"lr"}"#);
    lists.edit(&edit(&crowd, "l"));
    for mailbox in [&long, &other] {
        acls.replace(mailbox, &lists).await.unwrap();
        assert_eq!(acls.get(mailbox).await.unwrap(), lists);
    }
    for name in ["eve@x.org", &crowd] {
        assert_eq!(shared_with(&*acls, &[name]).await, [long.to_string(), other.to_string()]);
    }
    acls.rename(&bobs("Work"), &bobs("Play")).await.unwrap();
    let renamed = bobs(&format!("Play/{}", "x".repeat(1_000)));
    assert_eq!(acls.get(&renamed).await.unwrap(), lists);
    assert!(acls.get(&long).await.unwrap().is_empty());
    acls.rename_user(&user("bob@x.org"), &user("rob@x.org")).await.unwrap();
    let owned = |mailbox: &MailboxPath| mailbox.to_string().replace("bob@", "rob@");
    assert_eq!(shared_with(&*acls, &[&crowd]).await, [owned(&renamed), owned(&other)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_read_is_an_error_until_it_is_replaced() {
    let server = TestZookeeper::shared().await.address();
    let acls = connect(&settings(&[&server], "/unreadable")).await;
    let hand = hand(&server, "/unreadable").await;
    let mut news = acls.news();
    let good = acl(r#"{"eve@x.org":"lr"}"#);
    for name in ["Work/A", "Work/B"] {
        acls.replace(&bobs(name), &good).await.unwrap();
    }
    let bucket = hand.list_children("/acl").await.unwrap().remove(0);
    let znode = format!("/acl/{bucket}/#private:bob@x.org:Work%2FA");
    assert_eq!(acls.get(&bobs("Work/A")).await.unwrap(), good);
    for bad in [&b"{}"[..], br#"{"v":9,"acl":{}}"#, br#"{"v":1,"acl":{"eve@x.org":"?"}}"#] {
        hand.set_data(&znode, bad, None).await.unwrap();
        hears(&mut news, &[AclNews::Changed(bobs("Work/A"))]).await;
        let refused =
            |result: Result<(), RegistryError>| matches!(result, Err(RegistryError::Refused(why)) if why.contains("Work/A"));
        assert!(refused(acls.get(&bobs("Work/A")).await.map(drop)));
        assert!(refused(acls.edit(&bobs("Work/A"), &[edit("eve@x.org", "+s")]).await.map(drop)));
    }
    // It does not keep its neighbours from moving.
    assert!(matches!(acls.rename(&bobs("Work"), &bobs("Play")).await, Err(RegistryError::Refused(_))));
    assert_eq!(acls.get(&bobs("Play/B")).await.unwrap(), good);
    assert_eq!(hand.get_data(&znode).await.unwrap().0, br#"{"v":1,"acl":{"eve@x.org":"?"}}"#);
    assert!(acls.get(&bobs("Work/A")).await.is_err());
    hand.set_data(&znode, br#"{"v":1,"acl":{"eve@x.org":"lr"},"later":1}"#, None).await.unwrap();
    hears(&mut news, &[AclNews::Changed(bobs("Work/A"))]).await;
    acls.rename(&bobs("Work"), &bobs("Play")).await.unwrap();
    assert_eq!(acls.get(&bobs("Play/A")).await.unwrap(), good);

    // Its share stands already, and would stop who does not look.
    hand.set_data(&znode.replace("Work", "Play"), b"?", None).await.unwrap();
    let crowd: Acl = (0..30)
        .map(|n| (format!("user{n}").parse().unwrap(), Rights::READ))
        .chain(good.iter().map(|(entry, rights)| (entry.clone(), rights)))
        .collect();
    assert!(acls.replace(&bobs("Play/A"), &crowd).await.unwrap().is_empty());
    hand.set_data(&znode.replace("Work", "Play"), b"?", None).await.unwrap();
    assert!(acls.replace(&bobs("Play/A"), &crowd).await.unwrap().is_empty());
    assert_eq!(acls.get(&bobs("Play/A")).await.unwrap(), crowd);
    acls.replace(&bobs("Play/A"), &Acl::default()).await.unwrap();
    assert_eq!(shared_with(&*acls, &["user7"]).await, [] as [&str; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_is_renamed_past_what_cannot_be_read() {
    let server = TestZookeeper::shared().await.address();
    let acls = connect(&settings(&[&server], "/past")).await;
    let hand = hand(&server, "/past").await;
    let carols: MailboxPath = "#private:carol@x.org:C".parse().unwrap();
    let all = [bobs("A"), bobs("B"), bobs("D"), carols.clone()];
    for mailbox in &all {
        acls.replace(mailbox, &acl(r#"{"eve@x.org":"lr"}"#)).await.unwrap();
    }
    for bucket in hand.list_children("/acl").await.unwrap() {
        let znode = format!("/acl/{bucket}/#private:bob@x.org:B");
        if hand.check_stat(&znode).await.unwrap().is_some() {
            hand.set_data(&znode, b"?", None).await.unwrap();
        }
    }
    // As one who is named in it.
    let renamed = acls.rename_user(&user("eve@x.org"), &user("eva@x.org")).await;
    assert!(matches!(renamed, Err(RegistryError::Refused(_))), "{renamed:?}");
    for mailbox in [bobs("A"), bobs("D"), carols.clone()] {
        assert_eq!(acls.get(&mailbox).await.unwrap(), acl(r#"{"eva@x.org":"lr"}"#), "{mailbox}");
    }
    // As its owner, who is named elsewhere.
    acls.replace(&carols, &acl(r#"{"bob@x.org":"lr"}"#)).await.unwrap();
    let renamed = acls.rename_user(&user("bob@x.org"), &user("rob@x.org")).await;
    assert!(matches!(renamed, Err(RegistryError::Refused(_))), "{renamed:?}");
    let moved = |name: &str| format!("#private:rob@x.org:{name}").parse::<MailboxPath>().unwrap();
    for mailbox in [moved("A"), moved("D")] {
        assert_eq!(acls.get(&mailbox).await.unwrap(), acl(r#"{"eva@x.org":"lr"}"#), "{mailbox}");
    }
    assert_eq!(acls.get(&carols).await.unwrap(), acl(r#"{"rob@x.org":"lr"}"#));
}

#[tokio::test(flavor = "multi_thread")]
async fn shares_that_a_hand_has_touched_stop_nobody() {
    let server = TestZookeeper::shared().await.address();
    let acls = connect(&settings(&[&server], "/touched")).await;
    let hand = hand(&server, "/touched").await;
    acls.replace(&bobs("A"), &acl(r#"{"eve@x.org":"l","dave@x.org":"l"}"#)).await.unwrap();
    for bucket in hand.list_children("/shares").await.unwrap() {
        let container = format!("/shares/{bucket}/@eve@x.org");
        if hand.check_stat(&container).await.unwrap().is_some() {
            hand.delete(&format!("{container}/#private:bob@x.org:A"), None).await.unwrap();
            let free = zk::CreateMode::Persistent.with_acls(zk::Acls::anyone_all());
            hand.create(&format!("{container}/#private:bob@x.org:B"), &[], &free).await.unwrap();
        }
    }
    acls.replace(&bobs("B"), &acl(r#"{"eve@x.org":"l"}"#)).await.unwrap();
    acls.replace(&bobs("A"), &Acl::default()).await.unwrap();
    assert_eq!(shared_with(&*acls, &["eve@x.org", "dave@x.org"]).await, ["#private:bob@x.org:B"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_of_zookeeper_is_told_and_lived_through() {
    let mut server = TestZookeeper::start().await;
    let settings = RegistrySettings { lookup_timeout_ms: Millis(1_000), ..settings(&[&server.address()], "/restart") };
    let acls = connect(&settings).await;
    let mut news = acls.news();
    let team = acl(r#"{"eve@x.org":"lr"}"#);
    acls.replace(&bobs("Team"), &team).await.unwrap();
    assert_eq!(acls.get(&bobs("Team")).await.unwrap(), team);
    assert!(news.try_recv().is_err());

    server.kill();
    let asked = Instant::now();
    assert!(matches!(acls.get(&bobs("Team")).await, Err(RegistryError::Unreachable(_))));
    assert!(matches!(acls.edit(&bobs("Team"), &[edit("eve@x.org", "")]).await, Err(RegistryError::Unreachable(_))));
    assert!(asked.elapsed() < Duration::from_secs(5), "{:?}", asked.elapsed());
    // A process that starts meanwhile has missed nothing, but was refused.
    let late = connect(&settings).await;
    let mut told_late = late.news();
    assert!(matches!(late.shared_with(&names(&["eve@x.org"])).await, Err(RegistryError::Unreachable(_))));

    server.restart().await;
    hears(&mut news, &[AclNews::Everything]).await;
    hears(&mut told_late, &[AclNews::Everything]).await;
    assert_eq!(acls.get(&bobs("Team")).await.unwrap(), team);
    assert_eq!(shared_with(&*late, &["eve@x.org"]).await, ["#private:bob@x.org:Team"]);
    late.edit(&bobs("Team"), &[edit("eve@x.org", "l")]).await.unwrap();
    hears(&mut news, &[AclNews::Changed(bobs("Team"))]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_during_a_silence_is_told_after_it() {
    let server = TestZookeeper::shared().await.address();
    let proxy = Proxy::to(&server).await;
    let slow = RegistrySettings { lookup_timeout_ms: Millis(500), ..settings(&[&proxy.address()], "/stalled") };
    let (acls, other) = (connect(&slow).await, connect(&settings(&[&server], "/stalled")).await);
    let mut news = acls.news();
    assert!(acls.get(&bobs("Team")).await.unwrap().is_empty());
    proxy.stall();
    other.replace(&bobs("Team"), &acl(r#"{"eve@x.org":"l"}"#)).await.unwrap();
    assert!(matches!(acls.get(&bobs("Team")).await, Err(RegistryError::Unreachable(_))));
    within("noticed", acls.health().wait_for(|health| !health.is_connected())).await.unwrap();
    proxy.pass();
    // By its watch where the session has lived on, else as anything.
    let heard = within("news", news.recv()).await.unwrap();
    assert!([AclNews::Everything, AclNews::Changed(bobs("Team"))].contains(&heard), "{heard:?}");
    eventually("it is read again", PATIENCE, async || acls.get(&bobs("Team")).await.ok().filter(|acl| !acl.is_empty())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_registrys_user_may_look() {
    let server = TestZookeeper::shared().await.address();
    let own = RegistrySettings {
        auth_user: "mailpush".to_owned(),
        auth_password: Secret::new("secret"),
        ..settings(&[&server], "/owned")
    };
    let acls = connect(&own).await;
    acls.replace(&bobs("Team"), &acl(r#"{"eve@x.org":"l"}"#)).await.unwrap();
    let hand = hand(&server, "/owned").await;
    for top in ["/acl", "/shares"] {
        assert_eq!(hand.list_children(top).await, Err(zk::Error::NoAuth));
    }
    let stranger = connect(&RegistrySettings { lookup_timeout_ms: Millis(1_000), ..settings(&[&server], "/owned") }).await;
    assert!(matches!(stranger.get(&bobs("Team")).await, Err(RegistryError::Denied(_))));
    assert!(matches!(stranger.replace(&bobs("Team"), &Acl::default()).await, Err(RegistryError::Denied(_))));
}
