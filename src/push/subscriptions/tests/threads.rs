//! Rights that are taken while other threads deliver, subscribe and drain, in real time: what must
//! not be told never is, however the threads meet.

use std::sync::atomic::{AtomicBool, AtomicU32};

use super::play::*;

const ROUNDS: u32 = 1_000;
/// So many messages of a round may have arrived when the right is taken, or the mailbox subscribed
/// to again.
const BEFORE: u32 = 32;
/// So many arrive afterwards.
const BEHIND: u32 = 8;
/// So many arrive in any case: fewer than an outbox holds.
const MOST: u32 = 400;
const WAIT: Duration = Duration::from_secs(30);

/// What the session's own task takes out, in order.
struct Drain(UnboundedReceiver<String>);

impl Drain {
    fn of(session: Arc<LiveSession>) -> Self {
        let (words, taken) = unbounded_channel();
        tokio::spawn(async move {
            loop {
                let outgoing = std::future::poll_fn(|context| session.poll_take(context)).await;
                for word in outgoing.iter().map(word) {
                    if words.send(word).is_err() {
                        return;
                    }
                }
            }
        });
        Self(taken)
    }

    async fn next(&mut self) -> String {
        let next = tokio::time::timeout(WAIT, self.0.recv()).await;
        next.expect("a word in time").expect("an open channel")
    }
}

/// Messages that arrive on a thread of their own, until the right was taken and for a little while.
#[derive(Default)]
struct Arrivals {
    /// The UID of the last one whose delivery has begun.
    begun: AtomicU32,
    taken: AtomicBool,
}

impl Arrivals {
    fn begun(&self) -> u32 {
        self.begun.load(Ordering::SeqCst)
    }

    fn arrive(&self, play: &Play) {
        let mut left = MOST;
        while left > 0 {
            let uid = self.begun.fetch_add(1, Ordering::SeqCst) + 1;
            play.comes(TEAM, message(uid));
            left = (left - 1).min(if self.taken.load(Ordering::SeqCst) { BEHIND } else { MOST });
        }
    }
}

fn spin_until(is: impl Fn() -> bool) {
    while !is() {
        std::thread::yield_now();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn nothing_is_told_behind_a_lost_right_however_threads_meet() {
    let play = Play::with(|options| Options { denial: Duration::from_millis(1), ..options }).await;
    let play = Arc::new(play);
    // The owner hears of her account and of the mailbox: an event of two keys goes another way
    // through the hub.
    let owner = session(&play.subscriptions, 2, Transport::Websocket, Subject::alone(user("alice")));
    let mut owners = Drain::of(owner.clone());
    for (tag, key) in [(1, Key::Account(user("alice"))), (2, mailbox(TEAM))] {
        play.subscriptions.subscribe(&owner, tag, key, ALL);
        assert!(owners.next().await.starts_with("settled"));
    }
    tokio::spawn(async move { while owners.0.recv().await.is_some() {} });
    let mut drain = Drain::of(play.session.clone());
    play.subscribe(Key::Account(user("bob")));
    assert!(drain.next().await.starts_with("settled"));

    let news = play.script.news.lock().clone().unwrap();
    let arrivals = Arc::new(Arrivals::default());
    let (mut told, mut withheld, mut revoked, mut amid) = (0, 0, 0, 0);
    for round in 0..ROUNDS {
        play.script.set(TEAM, "bob", "lr");
        play.comes(TEAM, acl("bob", "lr"));
        play.subscribe(mailbox(TEAM));
        assert!(drain.next().await.starts_with("settled"), "round {round}");

        arrivals.taken.store(false, Ordering::SeqCst);
        let first = arrivals.begun();
        let arriving = {
            let (play, arrivals) = (play.clone(), arrivals.clone());
            tokio::task::spawn_blocking(move || arrivals.arrive(&play))
        };
        let subscribing = {
            let (play, arrivals) = (play.clone(), arrivals.clone());
            let when = first + round * 7 % BEFORE;
            tokio::task::spawn_blocking(move || {
                spin_until(|| arrivals.begun() >= when || arrivals.taken.load(Ordering::SeqCst));
                play.subscribe(mailbox(TEAM));
            })
        };
        let taking = {
            let (play, arrivals, news) = (play.clone(), arrivals.clone(), news.clone());
            let when = first + round * 11 % BEFORE;
            tokio::task::spawn_blocking(move || {
                spin_until(|| arrivals.begun() >= when);
                play.script.set(TEAM, "bob", "");
                // The source may tell of it before the event, behind it, or not at all.
                let changed = || drop(news.send(AclNews::Changed(TEAM.parse().unwrap())));
                if round % 3 == 1 {
                    changed();
                }
                play.comes(TEAM, acl("bob", ""));
                let after = arrivals.begun();
                arrivals.taken.store(true, Ordering::SeqCst);
                if round % 3 == 2 {
                    changed();
                }
                after
            })
        };
        arriving.await.unwrap();
        subscribing.await.unwrap();
        let gone_after = taking.await.unwrap();
        let last = arrivals.begun();
        amid += u32::from(gone_after > first && gone_after < last);

        // The second subscription has its outcome, and nothing is left of the first one.
        let (mut outcomes, mut hears) = (0, true);
        while outcomes == 0 || hears {
            let word = drain.next().await;
            match word.split(' ').collect::<Vec<_>>()[..] {
                ["settled", _] => (outcomes, hears) = (outcomes + 1, true),
                ["NotFound"] => (outcomes, hears) = (outcomes + 1, false),
                ["revoked", "Team"] => (revoked, hears) = (revoked + 1, false),
                ["message", uid] => {
                    let uid: u32 = uid.parse().unwrap();
                    assert!(hears, "round {round}: {uid} was told after the right was said to be gone");
                    assert!(uid <= gone_after, "round {round}: {uid} was told, and its delivery began after the loss was heeded");
                    told += 1;
                }
                ["resync", "Team", "rights"] => assert!(hears, "round {round}"),
                _ => panic!("round {round}: {word}"),
            }
        }
        withheld += last - gone_after;
        // Whatever is still on its way shows before this.
        play.session.push_registration(mailbox("#private:bob:Fence"), RegistrationStatus::Settled);
        loop {
            match drain.next().await.as_str() {
                "Settled" => break,
                // The second subscription was answered first.
                "revoked Team" => revoked += 1,
                word => panic!("round {round}: {word}, behind the end of the subscription"),
            }
        }
    }
    println!("{told} told, {withheld} withheld, {revoked} revoked, {amid} of {ROUNDS} rights taken while messages arrived");
    assert!(told >= ROUNDS && withheld >= ROUNDS && revoked >= ROUNDS / 4 && amid >= ROUNDS / 2);
}
