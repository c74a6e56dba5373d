//! When rights are asked for again, and of whom.

use super::play::*;

fn all_questions(play: &Play) -> u64 {
    play.script.questions.load(Ordering::Relaxed)
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_answered_takes_nobodys_turn() {
    let often = |options| Options { recheck: Duration::from_secs(1), rechecks_per_second: 10, ..options };
    let play = Play::with(often).await;
    let access = &play.subscriptions.access;
    let stuck: Vec<_> = (0..200)
        .map(|number| {
            let path: MailboxPath = format!("#private:alice:{number}").parse().unwrap();
            play.script.broken.lock().push(path.to_string());
            access.hold(&Subject::alone(user("bob")), &path).unwrap()
        })
        .collect();
    stuck.iter().for_each(|grant| access.ask_if_unknown(grant));
    play.script.set(TEAM, "bob", "lr");
    play.subscribe(mailbox(TEAM));
    pass(5_000).await;
    assert_eq!(play.heard(), ["settled lr"]);
    // Nobody tells of it.
    play.script.set(TEAM, "bob", "");
    pass(5_000).await;
    assert_eq!(play.heard(), ["revoked Team"]);
}

#[tokio::test(start_paused = true)]
async fn where_the_source_knows_its_own_groups_a_group_may_be_anybody() {
    let play = Play::new().await;
    play.script.set(TEAM, "bob", "lr");
    play.subscribe(mailbox(TEAM));
    pass(300).await;
    assert_eq!(play.heard(), ["settled lr"]);
    play.script.set(TEAM, "bob", "");
    play.comes(TEAM, acl("group:staff", ""));
    play.comes(TEAM, message(1));
    pass(1).await;
    assert_eq!(play.heard(), ["revoked Team"]);
}

#[tokio::test(start_paused = true)]
async fn where_groups_are_those_of_the_token_others_concern_nobody() {
    let play = Play::new().await;
    play.script.knows_groups.store(true, Ordering::Relaxed);
    play.script.set(TEAM, "bob", "lr");
    play.subscribe(mailbox(TEAM));
    pass(300).await;
    let asked = all_questions(&play);
    play.comes(TEAM, acl("group:staff", ""));
    play.comes(TEAM, message(1));
    pass(1).await;
    assert_eq!(play.heard(), ["settled lr", "message 1"]);
    assert_eq!(all_questions(&play), asked);
}

#[tokio::test(start_paused = true)]
async fn what_a_session_learns_at_first_may_be_from_memory() {
    let play = Play::with(|options| Options { via: Via::Session, ..options }).await;
    let idling = session(&play.subscriptions, 2, Transport::Imap, Subject::alone(user("bob")));
    play.subscriptions.watch(&idling, &mailbox(TEAM));
    pass(10).await;
    assert_eq!(heard(&idling), ["ask Team", "Registered"]);
    let answer = |rights| {
        play.subscriptions.asks_rights(&idling, &mailbox(TEAM));
        play.subscriptions.report_rights(&idling, &mailbox(TEAM), Some(rights));
    };
    answer(Rights::READ);
    pass(500).await;
    assert_eq!(heard(&idling), ["Settled"]);
    for pause in [600, 5_000, 30_000] {
        pass(pause).await;
        assert_eq!(heard(&idling), ["ask Team"]);
        answer(Rights::READ);
    }
}

#[tokio::test(start_paused = true)]
async fn an_answer_on_its_way_does_not_give_back_what_is_lost() {
    let play = Play::with(|options| Options { via: Via::Session, ..options }).await;
    let idling = session(&play.subscriptions, 2, Transport::Imap, Subject::alone(user("bob")));
    play.subscriptions.watch(&idling, &mailbox(TEAM));
    play.subscriptions.asks_rights(&idling, &mailbox(TEAM));
    play.comes(TEAM, acl("bob", ""));
    // From the server's memory, and asked before.
    play.subscriptions.report_rights(&idling, &mailbox(TEAM), Some(Rights::READ));
    play.comes(TEAM, message(1));
    pass(1).await;
    assert!(heard(&idling).ends_with(&["revoked Team".to_owned()]));
}
