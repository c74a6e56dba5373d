//! Accounts that cover what is shared with their user.

use super::play::*;

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
async fn a_right_that_is_given_while_it_is_denied_counts() {
    let play = Play::new().await;
    play.script.set(TEAM, "bob", "l");
    play.subscriptions.subscribe(&play.session, 1, Key::Account(user("bob")), Wish { shared: true, ..ALL });
    pass(50).await;
    play.script.set(TEAM, "bob", "lr");
    play.comes(TEAM, acl("bob", "lr"));
    pass(1_000).await;
    play.heard();
    play.comes(TEAM, message(1));
    assert_eq!(play.heard(), ["message 1"]);
}
