//! Whether somebody may subscribe, asked before there is a session: what a stream's answer, and its
//! time, give away (I-9).

use tokio::time::Instant;

use super::play::*;

/// The answer, and the milliseconds that it took.
async fn asked(play: &Play, key: Key) -> (Result<(), SubscribeFailure>, u128) {
    let begun = Instant::now();
    let answer = play.subscriptions.allows(&Subject::alone(user("bob")), &key).await;
    (answer, begun.elapsed().as_millis())
}

#[tokio::test(start_paused = true)]
async fn what_is_hidden_and_what_is_not_there_are_denied_after_the_same_time() {
    let play = Play::new().await;
    play.script.set(TEAM, "carol", "lr");
    for (pause, key) in [
        (0, mailbox(TEAM)),
        (90, mailbox(TEAM)),
        (240, mailbox("#private:alice:None")),
        (20, mailbox("#private:nobody:INBOX")),
        (0, Key::Account(user("alice"))),
        (0, Key::Account(user("nobody"))),
    ] {
        play.script.pauses.lock().push(pause);
        let denied = asked(&play, key.clone()).await;
        assert_eq!(denied, (Err(SubscribeFailure::NotFound), DENIAL.as_millis()), "{key} by a source that takes {pause} ms");
        play.script.pauses.lock().clear();
    }
    assert_eq!(play.subscriptions.presence.len(), 0, "nothing was registered for it");
}

#[tokio::test(start_paused = true)]
async fn who_may_is_answered_as_soon_as_the_source_has_answered() {
    let play = Play::new().await;
    play.script.set(TEAM, "bob", "l");
    play.script.pauses.lock().push(30);
    assert_eq!(asked(&play, mailbox(TEAM)).await, (Ok(()), 30));
    for own in [mailbox("#private:bob:Any"), Key::Account(user("bob"))] {
        assert_eq!(asked(&play, own).await, (Ok(()), 0), "what is the user's own needs no question");
    }
}

#[tokio::test(start_paused = true)]
async fn a_source_that_cannot_say_is_no_denial() {
    let play = Play::new().await;
    *play.script.away.lock() = true;
    let (answer, _) = asked(&play, mailbox(TEAM)).await;
    assert_eq!(answer, Err(SubscribeFailure::RightsUnknown { kept: false }));
    *play.script.away.lock() = false;
    play.script.set(TEAM, "bob", "lr");
    assert_eq!(asked(&play, mailbox(TEAM)).await.0, Ok(()), "and is asked again");
}

/// Rights are taken while the source is being asked: its answer is from before.
#[tokio::test(start_paused = true)]
async fn an_answer_older_than_the_change_does_not_let_anybody_in() {
    let play = Play::new().await;
    play.script.set(TEAM, "bob", "lr");
    play.script.pauses.lock().push(50);
    let (answer, ()) = tokio::join!(asked(&play, mailbox(TEAM)), async {
        pass(20).await;
        play.script.set(TEAM, "bob", "");
        play.comes(TEAM, acl("bob", ""));
    });
    assert_eq!(answer, (Err(SubscribeFailure::NotFound), DENIAL.as_millis()));
}
