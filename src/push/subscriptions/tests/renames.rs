//! Renames that meet others: of the same mailbox, of rights, of other subscriptions.

use super::play::*;

const A: &str = "#private:alice:A";
const B: &str = "#private:alice:B";
const C: &str = "#private:alice:C";

fn rename(to: &str) -> Change {
    Change::MailboxRename { to: to.parse().unwrap() }
}

/// bob hears of alice's A.
async fn play() -> Play {
    let play = Play::new().await;
    play.script.set(A, "bob", "lr");
    play.subscribe(mailbox(A));
    pass(300).await;
    assert_eq!(play.heard(), ["settled lr"]);
    play
}

#[tokio::test(start_paused = true)]
async fn a_right_that_is_lost_with_the_new_name_ends_the_subscription() {
    let play = play().await;
    // Both are written before either event is out of the queue.
    play.script.set(A, "bob", "");
    play.script.set(B, "bob", "l");
    play.comes(A, rename(B));
    pass(10).await;
    play.comes(B, acl("bob", "l"));
    pass(5_000).await;
    assert_eq!(play.heard(), ["rename A B", "moved A B", "revoked B"]);
    assert!(play.session.subscriptions().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_right_that_is_taken_while_it_is_asked_for_ends_the_subscription() {
    let play = play().await;
    play.script.set(B, "bob", "lr");
    play.script.pauses.lock().push(50);
    play.comes(A, rename(B));
    pass(10).await;
    play.script.set(B, "bob", "");
    play.comes(B, acl("bob", ""));
    pass(5_000).await;
    assert_eq!(play.heard(), ["revoked A"], "and nothing of a name that is none of their business");
    assert!(play.session.book().unwrap().iter().next().is_none());
}

#[tokio::test(start_paused = true)]
async fn two_renames_close_together_are_one_to_a_sharee() {
    for pause in [0, 1, 1_500] {
        let play = play().await;
        play.script.set(A, "bob", "");
        play.script.set(C, "bob", "lr");
        play.comes(A, rename(B));
        pass(pause).await;
        play.comes(B, rename(C));
        pass(1_000).await;
        assert_eq!(play.heard(), ["rename A C", "moved A C", "resync C renamed"], "after {pause} ms");
        play.comes(C, message(1));
        assert_eq!(play.heard(), ["message 1"]);
        assert_eq!(play.session.subscriptions(), [(mailbox(C), 5)]);
        pass(5_000).await;
        assert_eq!(play.subscriptions.moving.load(Ordering::Relaxed), 0, "nobody waits for what was between");
    }
}

#[tokio::test(start_paused = true)]
async fn a_mailbox_that_has_its_old_name_again_was_never_away() {
    let play = play().await;
    play.comes(A, rename(B));
    play.comes(B, rename(A));
    pass(1_000).await;
    assert_eq!(play.heard(), ["resync A renamed"]);
    play.comes(A, message(1));
    assert_eq!(play.heard(), ["message 1"]);
}

#[tokio::test(start_paused = true)]
async fn a_source_that_does_not_answer_ends_nothing() {
    let play = play().await;
    play.script.set(B, "bob", "lr");
    *play.script.away.lock() = true;
    play.comes(A, rename(B));
    pass(120_000).await;
    play.comes(B, message(1));
    assert_eq!(play.heard(), [""; 0]);
    assert_eq!(play.session.subscriptions(), [(mailbox(A), 5)], "as far as the client knows");
    *play.script.away.lock() = false;
    pass(10_000).await;
    assert_eq!(play.heard(), ["rename A B", "moved A B", "resync B renamed"]);
}

#[tokio::test(start_paused = true)]
async fn what_a_client_says_by_the_old_name_is_heeded_meanwhile() {
    let play = play().await;
    play.script.set(B, "bob", "lr");
    play.script.pauses.lock().push(50);
    play.comes(A, rename(B));
    play.subscribe(mailbox(A));
    pass(1_000).await;
    assert_eq!(play.heard(), ["rename A B", "moved A B", "settled lr", "resync B renamed"]);
    play.script.set(C, "bob", "lr");
    play.script.pauses.lock().push(50);
    play.comes(B, rename(C));
    play.subscriptions.unsubscribe(&play.session, &mailbox(B));
    pass(5_000).await;
    assert_eq!(play.heard(), [""; 0]);
    assert_eq!((play.subscriptions.hub.keys(), play.subscriptions.moving.load(Ordering::Relaxed)), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_mailbox_that_is_deleted_on_its_way_is_gone() {
    let play = play().await;
    *play.script.away.lock() = true;
    play.comes(A, rename(B));
    play.comes(B, Change::MailboxDelete);
    assert_eq!(play.heard(), ["revoked A"]);
    assert!(play.session.book().unwrap().iter().next().is_none());
}

#[tokio::test(start_paused = true)]
async fn a_name_is_told_once_the_one_before_has_left_it() {
    let play = play().await;
    play.script.set(B, "bob", "lr");
    play.subscribe(mailbox(B));
    pass(300).await;
    play.heard();
    // B makes way for A, and it takes longer to say whether its new name may be told.
    play.script.set(C, "bob", "lr");
    play.script.pauses.lock().extend([0, 0, 500]);
    play.comes(B, rename(C));
    pass(1).await;
    play.comes(A, rename(B));
    pass(5_000).await;
    assert_eq!(play.heard(), ["rename B C", "moved B C", "rename A B", "moved A B", "resync B C renamed"]);
}

#[tokio::test(start_paused = true)]
async fn a_wish_outlives_the_one_it_meets_under_its_new_name() {
    let play = Play::new().await;
    let account = Key::Account(user("bob"));
    play.script.set(B, "bob", "lr");
    play.subscriptions.subscribe(&play.session, 1, account.clone(), Wish { shared: true, ..ALL });
    pass(600).await;
    play.script.set(A, "bob", "lr");
    play.subscribe(mailbox(A));
    pass(300).await;
    play.heard();
    play.comes(A, rename(B));
    pass(300).await;
    let told = play.heard();
    assert_eq!(told[..2], ["rename A B", "moved A B"]);
    play.subscriptions.unsubscribe(&play.session, &account);
    play.comes(B, message(1));
    assert_eq!(play.heard(), ["message 1"], "it was asked for by itself");
    play.subscriptions.unsubscribe(&play.session, &mailbox(B));
    assert_eq!((play.subscriptions.hub.keys(), play.session.subscriptions().len()), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn who_waits_under_the_new_name_is_answered() {
    let play = Play::new().await;
    play.subscribe(mailbox("#private:bob:A"));
    pass(300).await;
    play.subscriptions.subscribe(&play.session, 2, mailbox("#private:bob:B"), ALL);
    play.comes("#private:bob:A", rename("#private:bob:B"));
    pass(1_000).await;
    let told = play.heard();
    assert_eq!(told, ["settled lrswipkxtea", "rename A B", "moved A B", "settled lrswipkxtea", "resync B renamed"]);
    play.comes("#private:bob:B", message(1));
    assert_eq!((play.heard(), play.session.subscriptions().len()), (vec!["message 1".to_owned()], 1));
}

#[tokio::test(start_paused = true)]
async fn whoever_may_read_an_inbox_hears_that_its_messages_have_moved() {
    for (rights, expected) in [("lr", vec!["settled lr", "resync INBOX renamed"]), ("l", vec!["settled l"])] {
        let play = Play::new().await;
        play.script.set("#private:alice:INBOX", "bob", rights);
        play.subscribe(mailbox("#private:alice:INBOX"));
        pass(300).await;
        play.comes("#private:alice:INBOX", rename("#private:alice:Old"));
        pass(5_000).await;
        assert_eq!(play.heard(), expected);
    }
}

#[tokio::test(start_paused = true)]
async fn an_account_does_not_hear_of_a_name_beyond_it() {
    let play = Play::new().await;
    play.subscribe(Key::Account(user("bob")));
    pass(300).await;
    play.heard();
    for (from, to) in [("#private:bob:A", A), (B, "#private:bob:B"), ("#private:bob:C", "#shared::C")] {
        play.comes(from, rename(to));
        assert_eq!(play.heard(), ["resync account bob renamed"]);
    }
    play.comes("#private:bob:A", rename("#private:bob:B"));
    assert_eq!(play.heard(), ["rename A B"]);
}

#[tokio::test(start_paused = true)]
async fn what_came_by_the_new_name_before_the_news_is_made_good() {
    let play = Play::new().await;
    let other = session(&play.subscriptions, 2, Transport::Websocket, Subject::alone(user("bob")));
    play.subscriptions.subscribe(&other, 1, mailbox("#private:bob:B"), ALL);
    play.subscribe(mailbox("#private:bob:A"));
    pass(300).await;
    play.heard();
    play.comes("#private:bob:B", message(1));
    play.comes("#private:bob:A", rename("#private:bob:B"));
    assert_eq!(play.heard(), ["rename A B", "moved A B", "resync B renamed"]);
}

#[tokio::test(start_paused = true)]
async fn nothing_is_told_to_resync_that_has_ended() {
    let play = play().await;
    play.script.set(B, "bob", "lr");
    play.comes(A, rename(B));
    pass(10).await;
    play.script.set(B, "bob", "");
    play.comes(B, acl("bob", ""));
    pass(5_000).await;
    assert_eq!(play.heard(), ["rename A B", "moved A B", "revoked B"]);
}

#[tokio::test(start_paused = true)]
async fn a_sharee_with_a_new_name_follows_a_rename_that_comes_with_it() {
    let play = play().await;
    play.script.set(A, "bob", "");
    play.script.set(B, "rob", "lr");
    play.comes("#private:bob:INBOX", Change::AccountRename { to: user("rob") });
    pass(1_000).await;
    play.comes(A, rename(B));
    pass(1_000).await;
    assert_eq!(play.heard(), ["rename A B", "moved A B", "resync B renamed"]);
}

#[tokio::test(start_paused = true)]
async fn who_follows_a_user_sees_their_subscriptions_go_and_come() {
    let play = Play::new().await;
    let alice = session(&play.subscriptions, 2, Transport::Websocket, Subject::alone(user("alice")));
    play.script.set("#shared::X", "alice", "lr");
    play.script.set("#shared::X", "alicia", "lr");
    for key in ["#private:alice:INBOX", "#shared::X"] {
        play.subscriptions.subscribe(&alice, 1, mailbox(key), ALL);
    }
    pass(300).await;
    play.comes("#private:alice:INBOX", Change::AccountRename { to: user("alicia") });
    pass(300).await;
    let mut rows: std::collections::BTreeMap<UserName, std::collections::BTreeSet<Key>> = Default::default();
    for change in play.subscriptions.sessions.changes_since(0).unwrap() {
        let rows = rows.entry(change.subscription.user).or_default();
        let is_news = if change.active { rows.insert(change.subscription.key) } else { rows.remove(&change.subscription.key) };
        assert!(is_news, "one of them comes once, and goes once");
    }
    assert!(rows[&user("alice")].is_empty());
    assert_eq!(rows[&user("alicia")], [mailbox("#private:alicia:INBOX"), mailbox("#shared::X")].into());
}
