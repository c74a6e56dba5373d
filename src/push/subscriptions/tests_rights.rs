//! Rights and subscriptions together: a scripted source of rights, a registry in process, and a session that listens.

use std::collections::HashMap;
use std::sync::atomic::AtomicU64;
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use async_trait::async_trait;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use super::*;
use crate::cluster::acls::AclNews;
use crate::cluster::registry::local::LocalRegistry;
use crate::cluster::registry::{NodeRecord, Place, QueueId, QueueNames, Registrar};
use crate::mail::event::Event;
use crate::mail::ids::{EventId, NodeId, SessionId};
use crate::mail::path::MailboxPath;
use crate::mail::rights::Subject;
use crate::mail::user::UserName;
use crate::push::access::source::{NoAnswer, RightsSource};
use crate::push::access::{Options, Via};
use crate::push::outbox::{Limits, Outgoing};
use crate::push::session::Transport;

const SETTLE: Duration = Duration::from_millis(200);
const DENIAL: Duration = Duration::from_millis(250);

/// What a source knows, as a test scripts it.
#[derive(Default)]
struct Script {
    /// By mailbox and user.
    rights: Mutex<HashMap<(String, String), Rights>>,
    away: Mutex<bool>,
    /// Mailboxes that it cannot say anything of.
    broken: Mutex<Vec<String>>,
    /// The pauses before the next answers, in milliseconds.
    pauses: Mutex<Vec<u64>>,
    questions: AtomicU64,
    news: Mutex<Option<UnboundedSender<AclNews>>>,
}

impl Script {
    fn set(&self, mailbox: &str, user: &str, rights: &str) {
        let key = (mailbox.to_owned(), user.to_owned());
        self.rights.lock().unwrap().insert(key, rights.parse().unwrap());
    }

    async fn pause(&self) -> Result<(), NoAnswer> {
        let pause = self.pauses.lock().unwrap().pop().unwrap_or(0);
        tokio::time::sleep(Duration::from_millis(pause)).await;
        if *self.away.lock().unwrap() { Err(NoAnswer("away".into())) } else { Ok(()) }
    }
}

#[async_trait]
impl RightsSource for Script {
    async fn rights(&self, subject: &Subject, mailbox: &MailboxPath) -> Result<Rights, NoAnswer> {
        self.questions.fetch_add(1, Ordering::Relaxed);
        let read = || {
            let key = (mailbox.to_string(), subject.user.to_string());
            self.rights.lock().unwrap().get(&key).copied().unwrap_or_default()
        };
        // Read at once and answered late: the answer is as old as an answer may be.
        let rights = read();
        if self.broken.lock().unwrap().contains(&mailbox.to_string()) {
            return Err(NoAnswer("broken".into()));
        }
        self.pause().await.map(|()| rights)
    }

    async fn shared_with(&self, subject: &Subject) -> Result<Vec<MailboxPath>, NoAnswer> {
        self.pause().await?;
        let rights = self.rights.lock().unwrap();
        let theirs = rights.iter().filter(|((_, user), rights)| user == subject.user.as_str() && !rights.is_empty());
        let mut paths: Vec<MailboxPath> = theirs.map(|((mailbox, _), _)| mailbox.parse().unwrap()).collect();
        paths.sort();
        Ok(paths)
    }

    fn news(&self) -> UnboundedReceiver<AclNews> {
        let (sender, receiver) = unbounded_channel();
        *self.news.lock().unwrap() = Some(sender);
        receiver
    }
}

struct Play {
    script: Arc<Script>,
    subscriptions: Arc<Subscriptions>,
    session: Arc<SessionHandle>,
    offset: AtomicU64,
}

const TEAM: &str = "#private:alice:Team";

fn mailbox(path: &str) -> Key {
    Key::Mailbox(path.parse().unwrap())
}

fn user(name: &str) -> UserName {
    UserName::new(name).unwrap()
}

const ALL: Wish = Wish { wanted: Wanted::EVERYTHING, shared: false };

fn message(uid: u32) -> Change {
    Change::MessageNew { messages: vec![crate::mail::event::NewMessage::new(crate::mail::uid::Uid::new(uid).unwrap())] }
}

fn acl(identifier: &str, rights: &str) -> Change {
    Change::AclChange { identifier: identifier.to_owned(), rights: rights.to_owned() }
}

impl Play {
    async fn new() -> Self {
        Self::with(|options| options).await
    }

    async fn with(change: impl FnOnce(Options) -> Options) -> Self {
        let names = QueueNames::new("t").unwrap();
        let registry = LocalRegistry::new(names.clone()).node();
        let id: NodeId = "n".parse().unwrap();
        let queue_id = QueueId { node: id.clone(), place: Place::Own };
        let queue = names.queue(&queue_id);
        let record = NodeRecord { id: id.clone(), queue_id, queue, url: String::new(), version: String::new(), started_at: 0 };
        registry.announce(record).await.unwrap();
        let (presence, _breaks) = Presence::start(registry.clone(), SETTLE, Duration::from_secs(1), Duration::from_secs(10));
        let script = Arc::new(Script::default());
        let metrics = Arc::new(Metrics::default());
        let options = Options { via: Via::Source(script.clone()), denial: DENIAL, ..Options::owners_only() };
        let (access, notices) = Access::start(change(options), metrics.clone());
        let subscriptions = Subscriptions::start(Parts {
            hub: Arc::default(),
            presence,
            sessions: Arc::new(Sessions::new(10, 10, 0)),
            access,
            notices,
            metrics,
            timeout: Duration::from_secs(30),
            clock: || 5,
        });
        let session = session(&subscriptions, 1, Transport::Websocket, Subject::alone(user("bob")));
        Self { script, subscriptions, session, offset: AtomicU64::default() }
    }

    fn subscribe(&self, key: Key) {
        self.subscriptions.subscribe(&self.session, 1, key, ALL);
    }

    /// What the queue brings: delivered, then heeded, as the consumer does.
    fn comes(&self, mailbox: &str, change: Change) {
        let offset = self.offset.fetch_add(1, Ordering::Relaxed);
        let mut event: Event = crate::mail::codec::tests::sample();
        (event.id, event.mailbox, event.change) = (EventId::now(), mailbox.parse().unwrap(), change);
        let position = format!("q@{offset}").parse().unwrap();
        let delivery = Arc::new(Delivery::new(event, &position, 100, Instant::now()));
        self.subscriptions.hub.deliver(&delivery);
        self.subscriptions.heed(&delivery);
    }

    fn heard(&self) -> Vec<String> {
        heard(&self.session)
    }
}

async fn pass(milliseconds: u64) {
    tokio::time::sleep(Duration::from_millis(milliseconds)).await;
}

fn session(subscriptions: &Subscriptions, number: u64, transport: Transport, subject: Subject) -> Arc<SessionHandle> {
    let id = SessionId::new("n".parse().unwrap(), number);
    let limits = Limits { events: 1_000, bytes: 1 << 20 };
    let session = SessionHandle::new(id, subject, transport, ([127, 0, 0, 1], 1).into(), 0, limits);
    subscriptions.sessions.add(&session).unwrap();
    session
}

/// What a session was told, each in a word or two.
fn heard(session: &SessionHandle) -> Vec<String> {
    let Poll::Ready(outgoing) = session.poll_take(&mut Context::from_waker(Waker::noop())) else { return Vec::new() };
    outgoing.into_iter().map(|outgoing| word(&outgoing)).collect()
}

fn word(outgoing: &Outgoing) -> String {
    let name = |key: &Key| key.to_string().rsplit(':').next().unwrap_or_default().to_owned();
    match outgoing {
        Outgoing::Event { delivery, .. } => match &delivery.event.change {
            Change::MessageNew { messages } => format!("message {}", messages[0].uid.get()),
            Change::MailboxRename { to } => format!("rename {} {}", delivery.event.mailbox.name(), to.name()),
            other => other.event_type().to_string(),
        },
        Outgoing::Settled { outcome: Ok(rights), .. } => format!("settled {rights}"),
        Outgoing::Settled { outcome: Err(failure), .. } => format!("{failure:?}"),
        Outgoing::Revoked { key } => format!("revoked {}", name(key)),
        Outgoing::Moved { from, to } => format!("moved {} {}", name(from), to.as_ref().map(name).unwrap_or_default()),
        Outgoing::Resync { keys: crate::push::outbox::Resync::Keys(keys), reason } => {
            format!("resync {} {reason}", keys.iter().map(name).collect::<Vec<_>>().join(" "))
        }
        Outgoing::AskRights { key } => format!("ask {}", name(key)),
        Outgoing::Standing { standing, .. } => format!("{standing:?}"),
        other => format!("{other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn who_may_read_hears_messages_and_who_may_look_up_the_mailbox_alone() {
    let play = Play::new().await;
    play.script.set(TEAM, "bob", "lr");
    play.script.set("#private:alice:Plans", "bob", "l");
    play.subscribe(mailbox(TEAM));
    play.subscribe(mailbox("#private:alice:Plans"));
    pass(300).await;
    assert_eq!(play.heard(), ["settled lr", "settled l"]);
    for path in [TEAM, "#private:alice:Plans"] {
        play.comes(path, message(1));
        play.comes(path, acl("carol", "l"));
        play.comes(path, Change::QuotaWithin(crate::mail::event::Quota { used: 1, limit: None }));
    }
    play.comes("#private:alice:Plans", Change::MailboxDelete);
    pass(10).await;
    assert_eq!(play.heard(), ["message 1", "MailboxDelete", "moved Plans "]);
}

#[tokio::test(start_paused = true)]
async fn what_is_not_there_and_what_may_not_be_seen_are_answered_alike_and_at_the_same_time() {
    let play = Play::new().await;
    play.script.set(TEAM, "carol", "lr");
    for (pause, key) in [
        (0, mailbox(TEAM)),
        (90, mailbox("#private:alice:None")),
        (20, mailbox("#private:nobody:INBOX")),
        (0, Key::Account(user("alice"))),
        (0, Key::Account(user("nobody"))),
    ] {
        play.script.pauses.lock().unwrap().push(pause);
        play.subscribe(key);
        pass(DENIAL.as_millis() as u64 - 1).await;
        assert_eq!(play.heard(), [""; 0]);
        pass(2).await;
        assert_eq!(play.heard(), ["NotFound"]);
        play.script.pauses.lock().unwrap().clear();
    }
    assert_eq!(play.subscriptions.presence.len(), 0, "nothing was registered for it");
}

#[tokio::test(start_paused = true)]
async fn a_lost_right_works_on_the_next_event_and_a_regained_one_after_a_resync() {
    let play = Play::new().await;
    play.script.set(TEAM, "bob", "lr");
    play.subscribe(mailbox(TEAM));
    pass(300).await;
    play.comes(TEAM, message(1));
    play.script.set(TEAM, "bob", "");
    play.comes(TEAM, acl("bob", ""));
    play.comes(TEAM, message(2));
    pass(1).await;
    play.comes(TEAM, message(3));
    assert_eq!(play.heard(), ["settled lr", "revoked Team"], "what waited is not told either");
    assert!(play.session.subscriptions().is_empty());

    play.script.set(TEAM, "bob", "lrs");
    play.subscribe(mailbox(TEAM));
    pass(1).await;
    play.comes(TEAM, message(4));
    // Somebody else's rights: nothing is withheld.
    play.comes(TEAM, acl("carol", "lr"));
    play.comes(TEAM, message(5));
    // Everybody's: what comes until the source has answered is made good.
    play.comes(TEAM, acl("anyone", "l"));
    play.comes(TEAM, message(6));
    pass(1).await;
    assert_eq!(play.heard(), ["settled lrs", "message 4", "message 5", "resync Team rights"]);
    play.comes(TEAM, message(7));
    assert_eq!(play.heard(), ["message 7"]);
}

#[tokio::test(start_paused = true)]
async fn from_look_up_to_read_and_back() {
    let play = Play::new().await;
    play.script.set(TEAM, "bob", "l");
    play.subscribe(mailbox(TEAM));
    pass(300).await;
    play.script.set(TEAM, "bob", "lr");
    play.comes(TEAM, acl("bob", "+r"));
    pass(1).await;
    assert_eq!(play.heard(), ["settled l", "resync Team rights"]);
    play.comes(TEAM, message(1));
    assert_eq!(play.heard(), ["message 1"]);
    play.script.set(TEAM, "bob", "l");
    play.comes(TEAM, acl("bob", "-r"));
    pass(1).await;
    assert_eq!(play.heard(), ["revoked Team"], "messages are not told any more, and that must not go unnoticed");
}

#[tokio::test(start_paused = true)]
async fn a_source_that_is_away_closes_and_opens_with_a_resync() {
    let play =
        Play::with(|options| Options { recheck: Duration::from_secs(1), max_age: Duration::from_secs(4), ..options }).await;
    play.script.set(TEAM, "bob", "lr");
    play.subscribe(mailbox(TEAM));
    pass(300).await;
    *play.script.away.lock().unwrap() = true;
    play.comes(TEAM, message(1));
    pass(3_000).await;
    play.comes(TEAM, message(2));
    assert_eq!(play.heard(), ["settled lr", "message 1", "message 2"], "what was known serves for a while");
    pass(3_000).await;
    play.comes(TEAM, message(3));
    play.subscribe(mailbox("#private:alice:Other"));
    pass(20_000).await;
    assert_eq!(play.heard(), ["RightsUnknown { kept: false }"]);
    *play.script.away.lock().unwrap() = false;
    pass(8_000).await;
    assert_eq!(play.heard(), ["resync Team rights"]);
    play.comes(TEAM, message(4));
    assert_eq!(play.heard(), ["message 4"]);
}

#[tokio::test(start_paused = true)]
async fn the_sources_own_news_are_heeded() {
    let play = Play::new().await;
    play.script.set(TEAM, "bob", "lr");
    play.subscribe(mailbox(TEAM));
    pass(300).await;
    play.script.set(TEAM, "bob", "");
    let news = play.script.news.lock().unwrap().clone().unwrap();
    news.send(AclNews::Changed(TEAM.parse().unwrap())).unwrap();
    pass(1).await;
    play.comes(TEAM, message(1));
    assert_eq!(play.heard(), ["settled lr"], "at once");
    pass(2_000).await;
    assert_eq!(play.heard(), ["revoked Team"], "a rename would have come by now");
}

#[tokio::test(start_paused = true)]
async fn without_news_an_age_bounds_what_is_known() {
    let play = Play::new().await;
    play.script.set(TEAM, "bob", "lr");
    play.subscribe(mailbox(TEAM));
    pass(300).await;
    play.script.set(TEAM, "bob", "");
    pass(62_000).await;
    play.comes(TEAM, message(1));
    pass(2_000).await;
    assert_eq!(play.heard(), ["settled lr", "revoked Team"]);
}

#[tokio::test(start_paused = true)]
async fn an_account_covers_what_is_shared_and_is_kept_so() {
    let play = Play::new().await;
    play.script.set(TEAM, "bob", "lr");
    play.script.set("#private:alice:Plans", "bob", "l");
    play.subscriptions.subscribe(&play.session, 1, Key::Account(user("bob")), Wish { shared: true, ..ALL });
    pass(600).await;
    assert_eq!(play.heard(), ["settled lrswipkxtea"]);
    play.comes(TEAM, message(1));
    play.comes("#private:alice:Plans", message(2));
    play.comes("#private:bob:INBOX", message(3));
    assert_eq!(play.heard(), ["message 1", "message 3"]);
    // A new share.
    play.script.set("#private:alice:Plans", "bob", "lr");
    play.comes("#private:alice:Plans", acl("bob", "lr"));
    pass(10).await;
    assert_eq!(play.heard(), ["resync Plans shared"], "at once");
    play.comes("#private:alice:Plans", message(9));
    pass(300).await;
    assert_eq!(play.heard(), ["message 9", "resync Plans shared"], "and when nothing can be missed any more");
    play.comes("#private:alice:Plans", message(4));
    assert_eq!(play.heard(), ["message 4"]);
    // One that is taken away.
    play.script.set(TEAM, "bob", "");
    play.comes(TEAM, acl("bob", ""));
    pass(10).await;
    play.comes(TEAM, message(5));
    assert_eq!(play.heard(), ["revoked Team"]);
    // Asked for by itself as well, it outlives the account's.
    play.subscribe(mailbox("#private:alice:Plans"));
    pass(10).await;
    play.subscriptions.unsubscribe(&play.session, &Key::Account(user("bob")));
    play.comes("#private:alice:Plans", message(6));
    play.subscriptions.unsubscribe(&play.session, &mailbox("#private:alice:Plans"));
    play.comes("#private:alice:Plans", message(7));
    assert_eq!(play.heard(), ["settled lr", "message 6"]);
    assert_eq!((play.subscriptions.hub.keys(), play.subscriptions.covering().len()), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn an_account_subscription_whose_shares_cannot_be_listed_is_refused() {
    let play = Play::with(|options| Options { shared_mailboxes: 1, ..options }).await;
    let subscribe = || play.subscriptions.subscribe(&play.session, 1, Key::Account(user("bob")), Wish { shared: true, ..ALL });
    *play.script.away.lock().unwrap() = true;
    subscribe();
    pass(300).await;
    *play.script.away.lock().unwrap() = false;
    play.script.set(TEAM, "bob", "lr");
    play.script.set("#private:alice:Plans", "bob", "lr");
    subscribe();
    pass(300).await;
    assert_eq!(play.heard(), ["RightsUnknown { kept: false }", "TooManyShared"]);
    assert!(play.session.held().as_ref().unwrap().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_new_token_with_other_groups_is_another_subject() {
    let play = Play::new().await;
    play.script.set(TEAM, "bob", "lr");
    play.subscribe(mailbox(TEAM));
    pass(300).await;
    play.script.set(TEAM, "bob", "");
    play.subscriptions.change_subject(&play.session, Subject::new(user("bob"), ["staff"]));
    play.comes(TEAM, message(1));
    pass(1).await;
    assert_eq!(play.heard(), ["settled lr", "revoked Team"]);
}

#[tokio::test(start_paused = true)]
async fn subscriptions_follow_a_renamed_parent_and_miss_nothing() {
    let play = Play::new().await;
    for key in ["#private:bob:A", "#private:bob:A/B", "#private:bob:AB"] {
        play.subscribe(mailbox(key));
    }
    pass(300).await;
    assert_eq!(play.heard().len(), 3);
    play.comes("#private:bob:A", Change::MailboxRename { to: "#private:bob:X".parse().unwrap() });
    play.comes("#private:bob:X/B", message(1));
    play.comes("#private:bob:A", message(2));
    assert_eq!(play.heard(), ["rename A X", "moved A X", "rename A/B X/B", "moved A/B X/B", "message 1"]);
    pass(250).await;
    assert_eq!(play.heard(), ["resync X X/B renamed"], "publishers find it from now on");
    assert_eq!(play.session.subscriptions().len(), 3);
    pass(1_200).await;
    assert_eq!(play.subscriptions.presence.len(), 3, "the old names are not registered any more");
}

#[tokio::test(start_paused = true)]
async fn inbox_keeps_its_name() {
    let play = Play::new().await;
    play.subscribe(mailbox("#private:bob:INBOX"));
    pass(300).await;
    play.comes("#private:bob:INBOX", Change::MailboxRename { to: "#private:bob:Old".parse().unwrap() });
    play.comes("#private:bob:INBOX", message(1));
    assert_eq!(play.heard(), ["settled lrswipkxtea", "rename INBOX Old", "message 1"]);
}

#[tokio::test(start_paused = true)]
async fn a_sharee_hears_of_a_new_name_only_where_it_may_be_known() {
    let play = Play::new().await;
    let mut told = Vec::new();
    for (name, new) in [("Team", "Public"), ("Plans", "Secret")] {
        play.script.set(&format!("#private:alice:{name}"), "bob", "lr");
        play.subscribe(mailbox(&format!("#private:alice:{name}")));
        pass(300).await;
        if new == "Public" {
            play.script.set("#private:alice:Public", "bob", "lr");
        }
        let to = format!("#private:alice:{new}").parse().unwrap();
        play.comes(&format!("#private:alice:{name}"), Change::MailboxRename { to });
        pass(300).await;
        told.extend(play.heard());
        play.comes(&format!("#private:alice:{new}"), message(1));
        told.extend(play.heard());
    }
    let expected = [
        "settled lr",
        "rename Team Public",
        "moved Team Public",
        "resync Public renamed",
        "message 1",
        "settled lr",
        "revoked Plans",
    ];
    assert_eq!(told, expected);
}

/// The registry's ACL goes by the new name before the rename comes out of the queue.
#[tokio::test(start_paused = true)]
async fn a_sharee_follows_a_rename_although_the_old_name_was_seen_to_be_nobodys_first() {
    let play = Play::new().await;
    let news = |path: &str| {
        let news = play.script.news.lock().unwrap();
        news.as_ref().unwrap().send(AclNews::Changed(path.parse().unwrap())).unwrap();
    };
    play.script.set(TEAM, "bob", "lr");
    play.subscribe(mailbox(TEAM));
    pass(300).await;
    play.script.set("#private:alice:Public", "bob", "lr");
    play.script.set(TEAM, "bob", "");
    news(TEAM);
    pass(1_000).await;
    play.comes(TEAM, message(1));
    assert_eq!(play.heard(), ["settled lr"], "neither the message nor that the right is gone");
    play.comes(TEAM, Change::MailboxRename { to: "#private:alice:Public".parse().unwrap() });
    pass(5_000).await;
    assert_eq!(play.heard(), ["rename Team Public", "moved Team Public", "resync Public renamed"]);

    // Without a rename it is told after a while; and not at all where the right comes back, save what was missed.
    play.script.set("#private:alice:Public", "bob", "");
    news("#private:alice:Public");
    pass(1_000).await;
    play.comes("#private:alice:Public", message(2));
    play.script.set("#private:alice:Public", "bob", "lr");
    news("#private:alice:Public");
    pass(5_000).await;
    assert_eq!(play.heard(), ["resync Public rights"]);
    play.script.set("#private:alice:Public", "bob", "");
    news("#private:alice:Public");
    pass(1).await;
    play.comes("#private:alice:Public", message(3));
    pass(5_000).await;
    assert_eq!(play.heard(), ["revoked Public"]);
}

#[tokio::test(start_paused = true)]
async fn a_user_with_a_new_name_keeps_everything() {
    let play = Play::new().await;
    let alice = session(&play.subscriptions, 2, Transport::Websocket, Subject::alone(user("alice")));
    play.script.set(TEAM, "bob", "lr");
    play.subscribe(mailbox(TEAM));
    play.subscriptions.subscribe(&alice, 1, mailbox("#private:alice:INBOX"), ALL);
    play.subscriptions.subscribe(&alice, 2, Key::Account(user("alice")), ALL);
    pass(300).await;
    assert_eq!((play.heard().len(), heard(&alice).len()), (1, 2));
    play.script.set("#private:alicia:Team", "bob", "lr");
    play.comes("#private:alice:INBOX", Change::AccountRename { to: user("alicia") });
    play.comes("#private:alicia:INBOX", message(1));
    assert_eq!(
        heard(&alice),
        ["AccountRename", "rename INBOX INBOX", "moved INBOX INBOX", "moved account alice account alicia", "message 1"]
    );
    assert_eq!(alice.user(), user("alicia"));
    pass(300).await;
    assert_eq!(play.heard(), ["rename Team Team", "moved Team Team", "resync Team renamed"]);
    assert_eq!(heard(&alice), ["resync INBOX account alicia renamed"]);
    play.comes("#private:alicia:Team", message(2));
    assert_eq!((play.heard(), heard(&alice)), (vec!["message 2".to_owned()], vec!["message 2".to_owned()]));
    assert_eq!(play.subscriptions.sessions.rename_user(&user("alice"), &user("x")).len(), 0);
}

#[tokio::test(start_paused = true)]
async fn an_idling_imap_session_is_told_that_it_may_not_any_more() {
    let play = Play::new().await;
    let idling = session(&play.subscriptions, 2, Transport::Imap, Subject::alone(user("bob")));
    play.script.set(TEAM, "bob", "lrs");
    play.subscriptions.watch(&idling, &mailbox(TEAM));
    pass(300).await;
    play.comes(TEAM, message(1));
    assert_eq!(heard(&idling), ["Registered", "Settled", "message 1"]);
    play.script.set(TEAM, "bob", "l");
    play.comes(TEAM, acl("bob", "l"));
    play.comes(TEAM, message(2));
    pass(1).await;
    assert_eq!(heard(&idling), ["revoked Team"]);
}

#[tokio::test(start_paused = true)]
async fn where_only_the_session_can_ask_it_is_asked() {
    let play = Play::with(|options| Options { via: Via::Session, ..options }).await;
    let idling = session(&play.subscriptions, 2, Transport::Imap, Subject::alone(user("bob")));
    play.subscriptions.watch(&idling, &mailbox(TEAM));
    play.comes(TEAM, message(1));
    pass(1).await;
    assert_eq!(heard(&idling), ["ask Team", "Registered"]);
    // Learned before it knew that it is to ask.
    play.subscriptions.learned(&idling, &mailbox(TEAM), Some(Rights::ALL));
    assert_eq!(play.subscriptions.access.grants(&TEAM.parse().unwrap())[0].rights(), None);
    play.subscriptions.asks(&idling, &mailbox(TEAM));
    play.subscriptions.learned(&idling, &mailbox(TEAM), Some(Rights::READ));
    pass(1).await;
    assert_eq!(heard(&idling), ["resync Team rights"]);
    play.comes(TEAM, message(2));
    assert_eq!(heard(&idling), ["message 2"]);
    play.comes(TEAM, acl("group:staff", "l"));
    play.comes(TEAM, acl("anyone", "l"));
    assert_eq!(heard(&idling), ["ask Team"], "the session knows of no groups, and everybody is concerned by the other");
    play.subscriptions.asks(&idling, &mailbox(TEAM));
    play.subscriptions.learned(&idling, &mailbox(TEAM), Some(Rights::READ));
    // What is said of this very user needs no question.
    play.comes(TEAM, acl("bob", "l"));
    pass(1).await;
    assert_eq!(heard(&idling), ["revoked Team"]);
    // A WebSocket session cannot ask.
    play.subscribe(mailbox(TEAM));
    pass(300).await;
    assert_eq!(play.heard(), ["NotFound"]);
}

/// A small generator of its own: the same histories every time.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }
}

/// Messages with rising numbers arrive all the time; the right is given and taken, now and then with a question on its way.
async fn history(seed: u64) {
    let play = Play::new().await;
    let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    play.script.pauses.lock().unwrap().extend((0..200).map(|_| random.below(30)));
    let mut allowed = random.below(2) == 0;
    play.script.set(TEAM, "bob", if allowed { "lr" } else { "" });
    // For each message, whether it may be told.
    let mut may: Vec<bool> = Vec::new();
    let mut told: Vec<String> = Vec::new();
    for _ in 0..60 {
        match random.below(6) {
            0 => play.subscribe(mailbox(TEAM)),
            1 => {
                allowed = !allowed;
                let rights = if allowed { "lr" } else { "" };
                play.script.set(TEAM, "bob", rights);
                if random.below(3) == 0 {
                    // Written, and not yet out of the queue.
                    pass(random.below(10)).await;
                }
                play.comes(TEAM, acl(if random.below(2) == 0 { "bob" } else { "anyone" }, rights));
            }
            _ => {
                may.push(allowed);
                play.comes(TEAM, message(may.len() as u32));
            }
        }
        if random.below(3) == 0 {
            pass(random.below(60)).await;
        }
        if random.below(4) == 0 {
            told.extend(play.heard());
        }
    }
    pass(1_000).await;
    told.extend(play.heard());
    let mut revoked = true;
    for word in &told {
        match word.split(' ').collect::<Vec<_>>()[..] {
            ["settled", _] => revoked = false,
            ["revoked", _] => revoked = true,
            ["message", uid] => {
                let uid: usize = uid.parse().unwrap();
                assert!(may[uid - 1], "seed {seed}: {uid} was told without a right: {told:?}");
                assert!(!revoked, "seed {seed}: {uid} was told after the right was said to be gone: {told:?}");
            }
            _ => {}
        }
    }
    // Whoever may read in the end and subscribed hears everything from then on.
    play.script.set(TEAM, "bob", "lr");
    play.comes(TEAM, acl("bob", "lr"));
    play.subscribe(mailbox(TEAM));
    pass(1_000).await;
    play.heard();
    play.comes(TEAM, message(1_000));
    assert_eq!(play.heard(), ["message 1000"], "seed {seed}");
}

#[tokio::test(start_paused = true)]
async fn nothing_is_told_after_a_right_is_gone_in_a_thousand_histories() {
    for seed in 1..=1_000 {
        history(seed).await;
    }
}

#[tokio::test(start_paused = true)]
async fn whatever_was_withheld_is_made_good() {
    for seed in 1..=200 {
        let play = Play::new().await;
        let mut random = Random(seed);
        play.script.set(TEAM, "bob", "lr");
        play.subscribe(mailbox(TEAM));
        pass(300).await;
        play.heard();
        play.script.pauses.lock().unwrap().extend((0..100).map(|_| random.below(20)));
        // Rights are said to change all the time, and never do.
        let (mut missing, mut next, mut told) = (0, 1, Vec::new());
        let mut take = |sent: u32| {
            for word in play.heard() {
                match word.split(' ').collect::<Vec<_>>()[..] {
                    ["message", uid] => {
                        let uid = uid.parse::<u32>().unwrap();
                        missing += uid - next;
                        next = uid + 1;
                    }
                    // The client reads its state now.
                    ["resync", ..] => (missing, next) = (0, sent + 1),
                    _ => panic!("seed {seed}: {word}"),
                }
                told.push(word);
            }
            (missing + sent + 1 - next, told.clone())
        };
        for uid in 1..=30 {
            if random.below(3) == 0 {
                play.comes(TEAM, acl("anyone", "l"));
            }
            play.comes(TEAM, message(uid));
            pass(random.below(20)).await;
            take(uid);
        }
        pass(500).await;
        let (missing, told) = take(30);
        assert_eq!(missing, 0, "seed {seed}: withheld without a resync behind it: {told:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_mailbox_that_leaves_its_owner_is_asked_for() {
    let play = Play::new().await;
    for (to, rights) in [("#shared::Team", ""), ("#shared::News", "lr")] {
        let own = to.replace("#shared::", "#private:bob:");
        play.subscribe(mailbox(&own));
        pass(300).await;
        play.script.set(to, "bob", rights);
        play.comes(&own, Change::MailboxRename { to: to.parse().unwrap() });
        pass(300).await;
        play.comes(to, message(1));
    }
    play.script.set("#shared::News", "bob", "");
    play.comes("#shared::News", acl("bob", ""));
    pass(1).await;
    play.comes("#shared::News", message(2));
    let told = play.heard();
    let expected =
        ["settled lrswipkxtea", "revoked Team", "settled lrswipkxtea", "rename News News", "moved News News", "revoked News"];
    assert_eq!(told, expected);
}

#[tokio::test(start_paused = true)]
async fn children_of_a_renamed_mailbox_have_news_of_their_own() {
    let play = Play::new().await;
    play.subscribe(mailbox("#private:bob:A/x"));
    play.subscribe(mailbox("#private:bob:A/y"));
    pass(300).await;
    play.heard();
    play.comes("#private:bob:A", Change::MailboxRename { to: "#private:bob:B".parse().unwrap() });
    let Poll::Ready(outgoing) = play.session.poll_take(&mut Context::from_waker(Waker::noop())) else { panic!("nothing") };
    let id = |outgoing: &Outgoing| match outgoing {
        Outgoing::Event { delivery, .. } => Some(delivery.event.id),
        _ => None,
    };
    let ids: std::collections::HashSet<EventId> = outgoing.iter().filter_map(id).collect();
    assert_eq!(ids.len(), 2, "clients drop what they have seen");
}

#[tokio::test(start_paused = true)]
async fn what_ends_a_subscription_passes_its_filter() {
    let play = Play::new().await;
    let wanted = Wanted { types: [crate::mail::EventType::MessageNew].into_iter().collect(), ..Wanted::EVERYTHING };
    for key in ["#private:bob:A", "#private:bob:B"] {
        play.subscriptions.subscribe(&play.session, 1, mailbox(key), Wish { wanted, shared: false });
    }
    pass(300).await;
    play.heard();
    play.comes("#private:bob:A", Change::MailboxRename { to: "#private:bob:X".parse().unwrap() });
    play.comes("#private:bob:B", Change::MailboxDelete);
    assert_eq!(play.heard(), ["rename A X", "moved A X", "MailboxDelete", "moved B "]);
}

#[tokio::test(start_paused = true)]
async fn who_gives_an_account_up_while_its_shares_are_listed_covers_nothing() {
    let play = Play::new().await;
    play.script.set(TEAM, "bob", "lr");
    play.script.pauses.lock().unwrap().push(300);
    let account = Key::Account(user("bob"));
    play.subscriptions.subscribe(&play.session, 1, account.clone(), Wish { shared: true, ..ALL });
    pass(400).await;
    play.subscriptions.unsubscribe(&play.session, &account);
    pass(2_000).await;
    assert_eq!(play.heard(), ["Withdrawn"]);
    assert_eq!((play.subscriptions.hub.keys(), play.subscriptions.covering().len()), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn one_share_that_cannot_be_asked_for_keeps_nobody_waiting() {
    let play = Play::new().await;
    play.script.set(TEAM, "bob", "lr");
    play.script.set("#private:alice:Plans", "bob", "lr");
    play.script.broken.lock().unwrap().push("#private:alice:Plans".to_owned());
    play.subscriptions.subscribe(&play.session, 1, Key::Account(user("bob")), Wish { shared: true, ..ALL });
    pass(1_000).await;
    play.comes(TEAM, message(1));
    assert_eq!(play.heard(), ["settled lrswipkxtea", "message 1"]);
    play.script.broken.lock().unwrap().clear();
    pass(10_000).await;
    assert_eq!(play.heard(), ["resync Plans shared"]);
}

#[tokio::test(start_paused = true)]
async fn what_a_replaced_grant_owes_is_made_good() {
    let play = Play::new().await;
    play.script.set(TEAM, "bob", "lr");
    play.subscribe(mailbox(TEAM));
    pass(300).await;
    play.script.pauses.lock().unwrap().push(50);
    play.comes(TEAM, acl("anyone", "l"));
    play.comes(TEAM, message(1));
    play.subscriptions.change_subject(&play.session, Subject::new(user("bob"), ["staff"]));
    pass(100).await;
    assert_eq!(play.heard(), ["settled lr", "resync Team rights"]);
}
