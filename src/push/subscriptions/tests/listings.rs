//! When what is shared is listed again, and what that costs.

use super::play::*;

/// Nothing is listed again for its age.
fn never(options: Options) -> Options {
    Options { recheck: Duration::from_secs(100_000), max_age: Duration::from_secs(200_000), ..options }
}

/// So many sessions of one user, each with what is shared with it.
async fn sessions(play: &Play, of: &str, count: u64) -> Vec<Arc<LiveSession>> {
    let limits = Limits { events: 100, bytes: 1 << 20 };
    let open = |number| {
        let id = SessionId::new("n".parse().unwrap(), 100 + number);
        let subject = Subject::alone(user(of));
        LiveSession::new(id, subject, Transport::Websocket, ([127, 0, 0, 1], 1).into(), 0, limits)
    };
    let sessions: Vec<Arc<LiveSession>> = (0..count).map(open).collect();
    for session in &sessions {
        play.subscriptions.subscribe(session, 1, Key::Account(user(of)), Wish { shared: true, ..ALL });
    }
    pass(2_000).await;
    play.script.listings.lock().clear();
    sessions
}

fn listed(play: &Play, of: &str) -> usize {
    play.script.listings.lock().get(of).copied().unwrap_or_default()
}

#[tokio::test(start_paused = true)]
async fn what_concerns_everybody_is_listed_at_a_rate_and_what_concerns_one_at_once() {
    let play = Play::with(|options| never(Options { rechecks_per_second: 50, ..options })).await;
    let _carols = sessions(&play, "carol", 1).await;
    let _bobs = sessions(&play, "bob", 200).await;
    // However often it is said.
    for _ in 0..3 {
        play.comes(TEAM, acl("anyone", "lr"));
    }
    pass(1_000).await;
    let count = listed(&play, "bob");
    assert!((40..=60).contains(&count), "{count} in a second");
    play.script.listings.lock().remove("carol");
    play.comes(TEAM, acl("carol", "lr"));
    pass(1).await;
    assert_eq!(listed(&play, "carol"), 1);
    pass(4_000).await;
    assert_eq!(listed(&play, "bob"), 200, "each once");
}

#[tokio::test(start_paused = true)]
async fn few_hear_of_a_new_share_within_a_second() {
    let play = Play::with(never).await;
    let bobs = sessions(&play, "bob", 20).await;
    bobs.iter().for_each(|session| drop(heard(session)));
    play.script.set(TEAM, "bob", "lr");
    play.comes(TEAM, acl("group:staff", "lr"));
    play.comes(TEAM, acl("anyone", "lr"));
    pass(500).await;
    assert!(bobs.iter().all(|session| heard(session) == ["resync Team shared"]));
}

#[tokio::test(start_paused = true)]
async fn listings_for_their_age_are_spread_over_the_time() {
    let play = Play::new().await;
    let bobs = sessions(&play, "bob", 60).await;
    for _ in 0..12 {
        pass(10_000).await;
        let count = listed(&play, "bob");
        assert!((8..=12).contains(&count), "{count} in ten seconds");
        play.script.listings.lock().clear();
    }
    for session in &bobs {
        play.subscriptions.end(session);
    }
    pass(120_000).await;
    assert_eq!(listed(&play, "bob"), 0);
}

#[tokio::test(start_paused = true)]
async fn what_can_never_be_asked_for_is_listed_again_and_not_ever_more_often() {
    let play = Play::new().await;
    play.script.set(TEAM, "bob", "lr");
    play.script.broken.lock().push(TEAM.to_owned());
    let _bobs = sessions(&play, "bob", 1).await;
    // For its age once a minute, and for what could not be asked for every five seconds.
    for minute in 0..30 {
        play.script.listings.lock().clear();
        pass(60_000).await;
        let count = listed(&play, "bob");
        assert!((10..=14).contains(&count), "{count} in minute {minute}");
    }
}
