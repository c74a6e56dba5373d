//! Rights as a mail server tells them to the gateway: the dev store and a real Dovecot, asked by way of the master user.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::future::join_all;
use mailpush::config::{AccessSettings, ImapSettings, Millis, Secret};
use mailpush::dev::store::{Faults, Store, StoreOptions, Style};
use mailpush::edge::imap::rights::ImapRights;
use mailpush::edge::imap::upstream::Upstreams;
use mailpush::mail::MailboxPath;
use mailpush::mail::UserName;
use mailpush::mail::rights::Subject;
use mailpush::mail::user::UserNames;
use mailpush::push::access::source::{NoAnswer, RightsSource};
use mailpush::push::metrics::Metrics;

use crate::support::dovecot::{MASTER, Options, TestDovecot};
use crate::support::imap::ImapClient;

/// A source of rights before the server at this address.
fn source(address: SocketAddr, (user, password): (&str, &str), domain: Option<&str>, timeout: Duration) -> ImapRights {
    let mut imap = ImapSettings::default();
    imap.upstream.addresses = vec![address.into()];
    imap.master.user = user.to_owned();
    imap.master.password = Secret::new(password);
    let access = AccessSettings { timeout_ms: Millis(timeout.as_millis() as u64), ..AccessSettings::default() };
    let names = UserNames { lowercase: true, default_domain: domain.map(str::to_owned) };
    let metrics = Arc::new(Metrics::default());
    let upstreams = Arc::new(Upstreams::new(&imap.upstream, metrics.clone()).expect("the servers"));
    ImapRights::new(&imap, &access, names, upstreams, metrics).expect("there is a master user")
}

fn subject(user: &str) -> Subject {
    Subject::alone(UserName::new(user).expect("a user"))
}

async fn rights(source: &ImapRights, user: &str, mailbox: &str) -> Result<String, NoAnswer> {
    let answer = source.rights(&subject(user), &mailbox.parse().expect("a path")).await;
    answer.map(|rights| rights.to_string())
}

async fn shared(source: &ImapRights, user: &str) -> Result<Vec<String>, NoAnswer> {
    let answer = source.shared_with(&subject(user)).await;
    answer.map(|paths| paths.iter().map(MailboxPath::to_string).collect())
}

/// The dev store, asked on behalf of users of `example`: a domain without the delimiter, which names may have in it.
async fn store(style: Style, timeout: Duration) -> (Store, ImapRights) {
    let options = StoreOptions { style, domain: "example".to_owned(), ..StoreOptions::default() };
    let store = Store::start(options).await.expect("the store");
    let master = (store.master().user.as_str(), store.master().password.as_str());
    let source = source(store.address(), master, Some("example"), timeout);
    (store, source)
}

async fn alice(store: &Store) -> ImapClient {
    ImapClient::login(store.address().port(), "alice", "alice").await
}

const LONG: Duration = Duration::from_secs(10);

#[tokio::test]
async fn the_owner_shares_and_takes_back_and_every_answer_is_of_now() {
    for style in [Style::default(), Style { delimiter: '.' }] {
        let (store, source) = store(style, LONG).await;
        let mut alice = alice(&store).await;
        let delimiter = style.delimiter;
        let (bob, carol) = ("bob@example", "carol@example");
        // "Übersicht" below "R&D", in modified UTF-7.
        let name = format!("R&-D{delimiter}&ANw-bersicht");
        alice.ok(&format!("CREATE \"{name}\"")).await;
        let mailbox = "#private:alice@example:R&D/Übersicht";
        let hidden = ["#private:alice@example:Nowhere", "#private:nobody@example:Team", "#shared::Team", mailbox];
        for unseen in hidden {
            assert_eq!(rights(&source, bob, unseen).await.as_deref(), Ok(""), "{unseen}: no right and no mailbox are the same");
        }
        for (change, told) in
            [("SETACL \"NAME\" bob lrsw", "lrsw"), ("SETACL \"NAME\" bob -w", "lrs"), ("DELETEACL \"NAME\" bob", "")]
        {
            alice.ok(&change.replace("NAME", &name)).await;
            assert_eq!(rights(&source, bob, mailbox).await.as_deref(), Ok(told), "{change}");
            assert_eq!(rights(&source, carol, mailbox).await.as_deref(), Ok(""), "{change}");
        }
        assert_eq!(rights(&source, "alice@example", mailbox).await.as_deref(), Ok("lrswipkxtea"));
        let team = "#private:alice@example:Team";
        assert_eq!(shared(&source, bob).await.expect("a list"), [team]);
        alice.ok(&format!("SETACL \"{name}\" bob lr")).await;
        assert_eq!(shared(&source, bob).await.expect("a list"), [mailbox, team]);
        assert_eq!(shared(&source, carol).await.expect("a list"), [""; 0]);
    }
}

#[tokio::test]
async fn a_server_that_hangs_or_lets_nobody_in_gives_no_answer() {
    let (store, source) = store(Style::default(), Duration::from_millis(300)).await;
    let (bob, team) = ("bob@example", "#private:alice@example:Team");
    assert_eq!(rights(&source, bob, team).await.as_deref(), Ok("lrs"));
    for faults in [Faults { hold: true, ..Faults::default() }, Faults { refuse_logins: true, ..Faults::default() }] {
        store.set_faults(faults);
        let began = Instant::now();
        assert!(rights(&source, bob, team).await.is_err(), "{faults:?}");
        assert!(shared(&source, bob).await.is_err(), "{faults:?}");
        assert!(began.elapsed() < LONG, "{faults:?}: {:?}", began.elapsed());
    }
    store.set_faults(Faults::default());
    let again = crate::support::wait::eventually("it answers again", LONG, async || rights(&source, bob, team).await.ok()).await;
    assert_eq!(again, "lrs");
}

#[tokio::test]
async fn many_questions_at_once_are_all_answered() {
    let (_store, source) = store(Style::default(), LONG).await;
    let asked = (0..300).map(async |number| {
        let user = ["bob@example", "carol@example"][number % 2];
        rights(&source, user, ["#private:alice@example:Team", "#private:alice@example:Other"][number / 2 % 2]).await
    });
    for (number, answer) in join_all(asked).await.into_iter().enumerate() {
        assert_eq!(answer.as_deref(), Ok(if number % 4 == 0 { "lrs" } else { "" }), "{number}");
    }
}

/// A Dovecot that keeps rights in memory for as long as it does by default, with these further settings of plugins.
async fn dovecot(more: &str) -> (TestDovecot, SocketAddr) {
    let extra = format!("plugin {{\n acl = vfile\n{more}\n}}\n");
    let dovecot = TestDovecot::start(Options { agent: "http://127.0.0.1:9".to_owned(), extra }).await;
    let address = SocketAddr::from(([127, 0, 0, 1], dovecot.imap_port));
    (dovecot, address)
}

#[tokio::test]
async fn dovecot_tells_of_a_change_at_the_very_next_question() {
    let (dovecot, address) = dovecot("").await;
    let source = source(address, MASTER, None, LONG);
    let mut alice = dovecot.client("alice").await;
    let team = "#private:alice:Team/Entwürfe";
    alice.ok("CREATE Team/Entw&APw-rfe").await;
    assert_eq!(rights(&source, "bob", team).await.as_deref(), Ok(""));
    alice.ok("SETACL Team/Entw&APw-rfe bob l").await;
    let mut standing = dovecot.client("bob").await;
    let asked = "MYRIGHTS shared/alice/Team/Entw&APw-rfe";
    let told = standing.ok(asked).await;
    standing.ok("LIST \"\" shared/*").await;
    alice.ok("SETACL Team/Entw&APw-rfe bob lr").await;
    assert_eq!(rights(&source, "bob", team).await.as_deref(), Ok("lr"));
    assert_eq!(standing.ok(asked).await[0], told[0], "a connection that stands answers from its memory");
    for round in 0..3 {
        alice.ok("SETACL Team/Entw&APw-rfe bob lr").await;
        assert_eq!(rights(&source, "bob", team).await.as_deref(), Ok("lr"), "round {round}");
        assert_eq!(shared(&source, "bob").await.expect("a list"), [team], "round {round}");
        alice.ok("DELETEACL Team/Entw&APw-rfe bob").await;
        assert_eq!(rights(&source, "bob", team).await.as_deref(), Ok(""), "round {round}");
        assert_eq!(shared(&source, "bob").await.expect("a list"), [""; 0], "round {round}");
    }
    alice.ok("SETACL INBOX bob lrs").await;
    assert_eq!(rights(&source, "bob", "#private:alice:INBOX").await.as_deref(), Ok("lrs"));
    for hidden in ["#private:alice:Nowhere", "#private:carol:INBOX", "#private:carol:Team", "#private:nobody:Team"] {
        assert_eq!(rights(&source, "bob", hidden).await.as_deref(), Ok(""), "{hidden}");
    }
    assert_eq!(rights(&source, "nobody", team).await.as_deref(), Ok(""), "somebody without an account");
}

#[tokio::test]
async fn dovecot_with_another_master_password_takes_no_right_away() {
    let (dovecot, address) = dovecot("").await;
    let mut alice = dovecot.client("alice").await;
    alice.ok("CREATE Team").await;
    alice.ok("SETACL Team bob lr").await;
    let good = source(address, MASTER, None, LONG);
    assert_eq!(rights(&good, "bob", "#private:alice:Team").await.as_deref(), Ok("lr"));
    let bad = source(address, (MASTER.0, "wrong"), None, LONG);
    let error = rights(&bad, "bob", "#private:alice:Team").await.expect_err("nobody is let in");
    assert!(error.to_string().contains("imap.master") || error.to_string().contains("in time"), "{error}");
    assert!(!error.to_string().contains("wrong"), "{error}");
}

#[tokio::test]
async fn dovecot_that_goes_by_the_master_users_rights_takes_no_right_away() {
    let (_dovecot, address) = dovecot("acl_user = gw").await;
    let source = source(address, MASTER, None, LONG);
    for user in ["bob", "carol"] {
        let error = rights(&source, user, "#private:alice:Team").await.expect_err("these are not the user's");
        assert!(error.to_string().contains("acl_user"), "{error}");
    }
}
