//! Mailboxes and users that are called otherwise, or are gone.

use super::play::*;

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
        pass(5_000).await;
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
        let news = play.script.news.lock();
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

    // Without a rename it is told after a while; and not at all where the right comes back, save
    // what was missed.
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
async fn a_mailbox_that_leaves_its_owner_is_asked_for() {
    let play = Play::new().await;
    let mut told = Vec::new();
    for (to, rights) in [("#shared::Team", ""), ("#shared::News", "lr")] {
        let own = to.replace("#shared::", "#private:bob:");
        play.subscribe(mailbox(&own));
        pass(300).await;
        told.extend(play.heard());
        play.script.set(to, "bob", rights);
        play.comes(&own, Change::MailboxRename { to: to.parse().unwrap() });
        assert_eq!(play.heard(), [""; 0], "not even a name");
        pass(5_000).await;
        told.extend(play.heard());
        play.comes(to, message(1));
        told.extend(play.heard());
    }
    play.script.set("#shared::News", "bob", "");
    play.comes("#shared::News", acl("bob", ""));
    pass(1).await;
    play.comes("#shared::News", message(2));
    told.extend(play.heard());
    let expected = [
        "settled lrswipkxtea",
        "revoked Team",
        "settled lrswipkxtea",
        "rename News News",
        "moved News News",
        "resync News renamed",
        "message 1",
        "revoked News",
    ];
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
    let filter = Filter { types: [crate::mail::EventType::MessageNew].into_iter().collect(), ..Filter::EVERYTHING };
    for key in ["#private:bob:A", "#private:bob:B"] {
        play.subscriptions.subscribe(&play.session, 1, mailbox(key), Wish { filter, shared: false });
    }
    pass(300).await;
    play.heard();
    play.comes("#private:bob:A", Change::MailboxRename { to: "#private:bob:X".parse().unwrap() });
    play.comes("#private:bob:B", Change::MailboxDelete);
    assert_eq!(play.heard(), ["rename A X", "moved A X", "MailboxDelete", "moved B "]);
}

/// It begins to idle while the mailbox is being renamed, or deleted: the mail server knows already,
/// and the queue brings it.
#[tokio::test(start_paused = true)]
async fn who_begins_to_idle_meanwhile_hears_what_became_of_the_mailbox() {
    for change in [Change::MailboxRename { to: "#private:alice:Public".parse().unwrap() }, Change::MailboxDelete] {
        let play = Play::new().await;
        let idling = session(&play.subscriptions, 2, Transport::Imap, Subject::alone(user("bob")));
        play.subscriptions.watch(&idling, &mailbox(TEAM));
        pass(1_000).await;
        assert_eq!(heard(&idling), ["Registered", "Settled"], "what it may not read it could read when it was selected");
        play.comes(TEAM, message(1));
        play.comes(TEAM, change.clone());
        let told = heard(&idling);
        let expected = if change == Change::MailboxDelete { "MailboxDelete" } else { "rename Team Public" };
        assert_eq!(told, [expected], "and no message");
        pass(5_000).await;
        assert_eq!(heard(&idling), ["revoked Team"], "had it not ended, or moved, by itself");
    }
}

/// The same, while nobody has said yet what it may.
#[tokio::test(start_paused = true)]
async fn a_deleted_mailbox_is_told_to_who_idles_there_before_its_rights_are_known() {
    let play = Play::new().await;
    let idling = session(&play.subscriptions, 2, Transport::Imap, Subject::alone(user("bob")));
    *play.script.away.lock() = true;
    play.subscriptions.watch(&idling, &mailbox(TEAM));
    pass(1_000).await;
    heard(&idling);
    play.comes(TEAM, Change::MailboxDelete);
    assert_eq!(heard(&idling), ["MailboxDelete"]);
}
