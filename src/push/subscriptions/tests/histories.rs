//! Rights that come and go while messages arrive: many histories, the same every time.

use super::chance::Random;
use super::play::*;

/// What histories are worth: one in which nobody hears anything shows nothing.
#[derive(Debug, Default)]
struct Counts {
    told: usize,
    revoked: usize,
    /// Messages that arrived while there was a subscription, and were not told.
    withheld: usize,
}

/// Messages with rising numbers arrive all the time; the right is given and taken, now and then
/// with a question on its way.
async fn history(seed: u64, counts: &mut Counts) {
    let play = Play::new().await;
    let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    play.script.pauses.lock().extend((0..200).map(|_| random.below(30)));
    let mut allowed = random.below(2) == 0;
    play.script.set(TEAM, "bob", if allowed { "lr" } else { "" });
    // For each message, whether it may be told, and whether there is a subscription.
    let mut may: Vec<bool> = Vec::new();
    let mut stands: Vec<bool> = Vec::new();
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
                stands.push(!play.session.subscriptions().is_empty());
                // Where it would be told.
                play.session.push_registration(mailbox(TEAM), RegistrationStatus::Settled);
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
    let places = told.iter().enumerate().filter(|(_, word)| *word == "Settled").map(|(at, _)| at);
    for (uid, place) in (1..).zip(places) {
        let is_told = told.contains(&format!("message {uid}"));
        let is_missed = may[uid - 1] && stands[uid - 1] && !is_told;
        counts.withheld += usize::from(stands[uid - 1] && !is_told);
        let makes_good = |word: &String| ["resync", "revoked", "settled", "NotFound"].iter().any(|one| word.starts_with(one));
        assert!(
            !is_missed || told[place..].iter().any(makes_good),
            "seed {seed}: {uid} was withheld, and nothing was said of it: {told:?}"
        );
    }
    counts.told += told.iter().filter(|word| word.starts_with("message")).count();
    counts.revoked += told.iter().filter(|word| word.starts_with("revoked")).count();
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
    let mut counts = Counts::default();
    for seed in 1..=1_000 {
        history(seed, &mut counts).await;
    }
    println!("{counts:?}");
    assert!(counts.told > 1_500 && counts.revoked > 300 && counts.withheld > 1_000, "{counts:?}");
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
        play.script.pauses.lock().extend((0..100).map(|_| random.below(20)));
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
