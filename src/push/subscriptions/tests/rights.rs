//! Who may hear, and who may not any more.

use super::play::*;

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
        play.script.pauses.lock().push(pause);
        play.subscribe(key);
        pass(DENIAL.as_millis() as u64 - 1).await;
        assert_eq!(play.heard(), [""; 0]);
        pass(2).await;
        assert_eq!(play.heard(), ["NotFound"]);
        play.script.pauses.lock().clear();
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
    *play.script.away.lock() = true;
    play.comes(TEAM, message(1));
    pass(3_000).await;
    play.comes(TEAM, message(2));
    assert_eq!(play.heard(), ["settled lr", "message 1", "message 2"], "what was known serves for a while");
    pass(3_000).await;
    play.comes(TEAM, message(3));
    play.subscribe(mailbox("#private:alice:Other"));
    pass(20_000).await;
    assert_eq!(play.heard(), ["RightsUnknown { kept: false }"]);
    *play.script.away.lock() = false;
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
    let news = play.script.news.lock().clone().unwrap();
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
async fn an_imap_session_tells_what_it_may_and_is_told_what_it_did_not() {
    let play = Play::new().await;
    let [own, idling] =
        [2, 3].map(|number| session(&play.subscriptions, number, Transport::Imap, Subject::of_unknown_groups(user("bob"))));
    assert_eq!(own.reads_watched(), None, "it watches nothing");
    play.subscriptions.watch(&own, &mailbox("#private:bob:INBOX"));
    assert_eq!(own.reads_watched(), Some(true));
    play.script.set(TEAM, "bob", "lrs");
    play.subscriptions.watch(&idling, &mailbox(TEAM));
    assert_eq!(idling.reads_watched(), None);
    pass(300).await;
    assert_eq!(idling.reads_watched(), Some(true));
    play.script.pauses.lock().push(50);
    play.comes(TEAM, acl("anyone", "l"));
    assert_eq!(idling.reads_watched(), None);
    idling.note_withheld(&mailbox(TEAM));
    pass(100).await;
    assert_eq!(heard(&idling), ["Registered", "Settled", "resync Team rights"]);
    play.script.set(TEAM, "bob", "l");
    play.comes(TEAM, acl("bob", "l"));
    pass(1).await;
    assert_eq!((idling.reads_watched(), heard(&idling)), (None, vec!["revoked Team".to_owned()]));
}

#[tokio::test(start_paused = true)]
async fn what_nobody_can_decide_is_left_to_the_mail_server() {
    let play = Play::new().await;
    let idling = session(&play.subscriptions, 2, Transport::Imap, Subject::of_unknown_groups(user("bob")));
    play.script.set(TEAM, "bob", "lrs");
    play.subscriptions.watch(&idling, &mailbox(TEAM));
    pass(300).await;
    *play.script.undecided.lock() = true;
    play.comes(TEAM, acl("anyone", "l"));
    play.comes(TEAM, message(1));
    pass(10).await;
    assert_eq!(heard(&idling), ["Registered", "Settled", "Unavailable"]);
    assert!(idling.subscriptions().is_empty() && play.subscriptions.hub.sessions(&mailbox(TEAM)).is_empty());
    // The next IDLE asks again, and once more.
    play.subscriptions.watch(&idling, &mailbox(TEAM));
    pass(10).await;
    assert_eq!(heard(&idling), ["Settled", "Unavailable"]);
    *play.script.undecided.lock() = false;
    play.subscriptions.watch(&idling, &mailbox(TEAM));
    pass(10).await;
    play.comes(TEAM, message(2));
    assert_eq!(heard(&idling), ["Settled", "message 2"]);
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
    play.subscriptions.report_rights(&idling, &mailbox(TEAM), Some(Rights::ALL));
    assert_eq!(play.subscriptions.access.grants(&TEAM.parse().unwrap())[0].rights(), None);
    play.subscriptions.asks_rights(&idling, &mailbox(TEAM));
    play.subscriptions.report_rights(&idling, &mailbox(TEAM), Some(Rights::READ));
    pass(1).await;
    assert_eq!(heard(&idling), ["resync Team rights"]);
    play.comes(TEAM, message(2));
    assert_eq!(heard(&idling), ["message 2"]);
    play.comes(TEAM, acl("group:staff", "l"));
    assert_eq!(heard(&idling), ["ask Team"], "the mail server alone knows who is in it");
    play.subscriptions.asks_rights(&idling, &mailbox(TEAM));
    play.subscriptions.report_rights(&idling, &mailbox(TEAM), Some(Rights::READ));
    // What is said of this very user needs no question.
    play.comes(TEAM, acl("bob", "l"));
    pass(1).await;
    assert_eq!(heard(&idling), ["revoked Team"]);
    // A WebSocket session cannot ask.
    play.subscribe(mailbox(TEAM));
    pass(300).await;
    assert_eq!(play.heard(), ["NotFound"]);
}

#[tokio::test(start_paused = true)]
async fn what_a_replaced_grant_owes_is_made_good() {
    let play = Play::new().await;
    play.script.set(TEAM, "bob", "lr");
    play.subscribe(mailbox(TEAM));
    pass(300).await;
    play.script.pauses.lock().push(50);
    play.comes(TEAM, acl("anyone", "l"));
    play.comes(TEAM, message(1));
    play.subscriptions.change_subject(&play.session, Subject::new(user("bob"), ["staff"]));
    pass(100).await;
    assert_eq!(play.heard(), ["settled lr", "resync Team rights"]);
}

#[tokio::test(start_paused = true)]
async fn holders_are_told_once_to_look_at_what_they_hold() {
    let options = Options { via: Via::Source(Arc::new(Script::default())), ..Options::owners_only() };
    let (access, mut notices) = Access::start(options, Arc::default());
    let grant = access.hold(&Subject::alone(user("bob")), &TEAM.parse().unwrap()).unwrap();
    (0..3).for_each(|_| access.notice(&grant));
    assert!(notices.try_recv().is_ok() && notices.try_recv().is_err());
    grant.notice.begin();
    access.notice(&grant);
    assert!(notices.try_recv().is_ok(), "what comes later is told later");
}

/// A mailbox may have many sharees, each with a grant.
#[tokio::test(start_paused = true)]
async fn a_review_touches_only_those_who_hold_the_grant() {
    let play = Play::new().await;
    let carol = session(&play.subscriptions, 2, Transport::Websocket, Subject::alone(user("carol")));
    play.script.set(TEAM, "bob", "lr");
    play.script.set(TEAM, "carol", "lr");
    play.subscribe(mailbox(TEAM));
    play.subscriptions.subscribe(&carol, 1, mailbox(TEAM), ALL);
    pass(1_000).await;
    let grants = play.subscriptions.access.grants(&TEAM.parse().unwrap());
    let bobs = grants.into_iter().find(|grant| grant.subject.user == user("bob")).unwrap();
    let busy = carol.book();
    let (done, wait) = std::sync::mpsc::channel();
    let subscriptions = play.subscriptions.clone();
    std::thread::spawn(move || {
        subscriptions.review_now(&bobs);
        done.send(())
    });
    assert!(wait.recv_timeout(Duration::from_secs(10)).is_ok(), "it waits for somebody else's session");
    drop(busy);
}
