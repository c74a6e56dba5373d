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
    let play = Play::new().await;
    *play.script.away.lock() = true;
    play.subscriptions.subscribe(&play.session, 1, Key::Account(user("bob")), Wish { shared: true, ..ALL });
    pass(300).await;
    assert_eq!(play.heard(), ["RightsUnknown { kept: false }"]);
    assert!(play.session.book().unwrap().iter().next().is_none());
}

#[tokio::test(start_paused = true)]
async fn who_gives_an_account_up_while_its_shares_are_listed_covers_nothing() {
    let play = Play::new().await;
    play.script.set(TEAM, "bob", "lr");
    play.script.pauses.lock().push(300);
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
    play.script.broken.lock().push("#private:alice:Plans".to_owned());
    play.subscriptions.subscribe(&play.session, 1, Key::Account(user("bob")), Wish { shared: true, ..ALL });
    pass(1_000).await;
    play.comes(TEAM, message(1));
    assert_eq!(play.heard(), ["settled lrswipkxtea", "message 1"]);
    play.script.broken.lock().clear();
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

fn cover(play: &Play) {
    play.subscriptions.subscribe(&play.session, 1, Key::Account(user("bob")), Wish { shared: true, ..ALL });
}

/// Anybody may name anybody in the ACLs of their own mailboxes.
#[tokio::test(start_paused = true)]
async fn nobody_can_end_anothers_subscription_by_naming_them_a_thousand_times() {
    let play = Play::with(|options| Options { shared_mailboxes: 3, ..options }).await;
    play.script.set(TEAM, "bob", "lr");
    for number in 0..20 {
        // Before alice's, by name.
        play.script.set(&format!("#private:abe:{number:02}"), "bob", "l");
    }
    cover(&play);
    pass(1_000).await;
    play.comes(TEAM, message(1));
    let mut told = play.heard();
    told.sort();
    assert_eq!(told, ["message 1", "resync account bob too_many_shared", "settled lrswipkxtea"]);
    let questions = play.script.questions.load(Ordering::Relaxed);
    assert!(questions <= 7, "{questions}: no more than two for each that may be covered, and one when it had settled");
    // What stands takes in a new share all the same.
    play.script.set("#private:carol:Plans", "bob", "lr");
    play.comes("#private:carol:Plans", acl("bob", "lr"));
    pass(1_000).await;
    assert_eq!(play.heard(), ["resync Plans account bob too_many_shared"]);
    play.comes("#private:carol:Plans", message(2));
    assert_eq!(play.heard(), ["message 2"]);
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_read_does_not_count() {
    let play = Play::with(|options| Options { shared_mailboxes: 2, ..options }).await;
    for (name, rights) in [("A", "l"), ("B", "l"), ("C", "lr"), ("D", "lr")] {
        play.script.set(&format!("#private:alice:{name}"), "bob", rights);
    }
    cover(&play);
    pass(1_000).await;
    play.comes("#private:alice:C", message(1));
    play.comes("#private:alice:D", message(2));
    assert_eq!(play.heard(), ["settled lrswipkxtea", "message 1", "message 2"]);
}

#[tokio::test(start_paused = true)]
async fn that_not_everything_is_covered_is_told_as_long_as_it_is_so() {
    let play = Play::with(|options| Options { shared_mailboxes: 2, ..options }).await;
    for name in ["A", "B", "C"] {
        play.script.set(&format!("#private:alice:{name}"), "bob", "lr");
    }
    cover(&play);
    pass(1_000).await;
    for name in ["A", "B", "C"] {
        play.comes(&format!("#private:alice:{name}"), message(1));
    }
    assert_eq!(play.heard(), ["settled lrswipkxtea", "message 1", "message 1", "resync account bob too_many_shared"]);
    for _ in 0..2 {
        pass(62_000).await;
        assert_eq!(play.heard(), ["resync account bob too_many_shared"]);
    }
    play.script.set("#private:alice:A", "bob", "");
    play.comes("#private:alice:A", acl("bob", ""));
    pass(62_000).await;
    assert_eq!(play.heard(), ["revoked A", "resync C shared"], "there is room for it now");
    pass(130_000).await;
    play.comes("#private:alice:C", message(2));
    assert_eq!(play.heard(), ["message 2"]);
}

#[tokio::test(start_paused = true)]
async fn asking_for_somebody_elses_account_leaves_ones_own_as_it_is() {
    let play = Play::new().await;
    play.script.set(TEAM, "bob", "lr");
    cover(&play);
    pass(1_000).await;
    play.subscriptions.subscribe(&play.session, 2, Key::Account(user("alice")), Wish { shared: true, ..ALL });
    pass(1_000).await;
    play.comes(TEAM, message(1));
    play.script.set("#private:alice:Plans", "bob", "lr");
    play.comes("#private:alice:Plans", acl("bob", "lr"));
    pass(1_000).await;
    assert_eq!(play.heard(), ["settled lrswipkxtea", "NotFound", "message 1", "resync Plans shared"]);
}
