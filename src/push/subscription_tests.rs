//! The table of a subscription's states, and of who wants what.

use std::time::Instant;

use super::*;
use crate::mail::codec::EnvelopeFields;
use crate::mail::event::{EventType, EventTypes};

fn key(name: &str) -> Key {
    Key::Mailbox(format!("#private:alice:{name}").parse().unwrap())
}

fn filter(types: &[EventType]) -> Filter {
    Filter { types: types.iter().copied().collect(), fields: EnvelopeFields::NONE }
}

const ALL: Filter = Filter { types: EventTypes::ALL, fields: EnvelopeFields::NONE };

fn with(id: u64, name: &str, state: State) -> Subscription {
    Subscription { key: key(name), id, interest: Interest::Client(ALL), grant: None, state }
}

fn requested(tags: &[u32]) -> State {
    State::Requested(Request { tags: tags.to_vec(), begin: Begin::Settled })
}

fn settling(name: &str, tags: &[u32]) -> State {
    State::Settling(Request { tags: tags.to_vec(), begin: Begin::Settled }, Lease::of_nobody(key(name)))
}

fn standing(name: &str, renewal: Option<&[u32]>) -> State {
    let (lease, rights, loss) = (Lease::of_nobody(key(name)), Rights::READ, Loss::No);
    State::Standing(Standing { lease, since: 7, rights, loss, renewal: renewal.map(<[u32]>::to_vec) })
}

fn news(from: &str) -> Arc<Delivery> {
    let mut event = crate::mail::codec::tests::sample();
    event.mailbox = format!("#private:alice:{from}").parse().unwrap();
    Arc::new(Delivery::new(event, &"q@1".parse().unwrap(), 1, Instant::now()))
}

/// The state, whether it is in the hub, busy, known to the client, and by which name.
fn look(subscription: &Subscription) -> (&'static str, bool, bool, Option<u64>, Key) {
    let state = match &subscription.state {
        State::Requested(_) => "requested",
        State::Settling(..) => "settling",
        State::Standing(_) => "standing",
        State::Moving(_) => "moving",
    };
    let name = subscription.name().clone();
    (state, subscription.is_in_hub(), subscription.is_busy(), subscription.since(), name)
}

#[test]
fn what_each_state_says() {
    let said = |state| look(&with(1, "a", state));
    assert_eq!(said(requested(&[])), ("requested", false, true, None, key("a")));
    assert_eq!(said(settling("a", &[])), ("settling", false, true, None, key("a")));
    assert_eq!(said(standing("a", None)), ("standing", true, false, Some(7), key("a")));
    assert_eq!(said(standing("a", Some(&[]))), ("standing", true, true, Some(7), key("a")));
}

#[test]
fn settling_stands_and_answers_all_who_wait() {
    let mut subscription = with(1, "a", settling("a", &[1]));
    subscription.wait(2);
    assert_eq!(subscription.stand(9, Rights::LOOKUP, Renewal::Over), [1, 2]);
    assert_eq!(look(&subscription), ("standing", true, false, Some(9), key("a")));
    assert_eq!(subscription.standing().unwrap().rights, Rights::LOOKUP);
}

#[test]
fn standing_stands_on_with_other_rights_since_the_same_time() {
    let mut subscription = with(1, "a", standing("a", Some(&[3])));
    assert_eq!(subscription.stand(9, Rights::LOOKUP, Renewal::GoesOn), [3]);
    assert_eq!(look(&subscription), ("standing", true, true, Some(7), key("a")));
    assert_eq!(subscription.stand(9, Rights::READ, Renewal::Over), [0; 0]);
    assert_eq!(look(&subscription), ("standing", true, false, Some(7), key("a")));
}

#[test]
fn a_request_without_a_registration_does_not_stand() {
    let mut subscription = with(1, "a", requested(&[]));
    subscription.stand(9, Rights::READ, Renewal::Over);
    assert_eq!(look(&subscription), ("requested", false, true, None, key("a")));
}

#[test]
fn a_renewal_begins_with_whoever_waits_and_ends_with_its_task() {
    let mut subscription = with(1, "a", standing("a", None));
    subscription.set_busy();
    subscription.wait(4);
    assert!(subscription.is_busy());
    assert_eq!(subscription.end_task(), [4]);
    assert!(!subscription.is_busy());
}

#[test]
fn a_rename_is_told_from_the_name_that_the_client_knows() {
    let mut subscription = with(1, "a", standing("a", Some(&[5])));
    subscription.move_to(key("b"), 2, None, |known_as| {
        assert_eq!(*known_as, key("a"));
        news("a")
    });
    assert_eq!((look(&subscription), subscription.id), (("moving", false, true, Some(7), key("a")), 2));
    subscription.wait(6);
    subscription.move_to(key("c"), 3, None, |known_as| {
        assert_eq!(*known_as, key("a"), "of b it has not heard");
        news("a")
    });
    assert_eq!((subscription.key.clone(), subscription.id), (key("c"), 3));
    let (from, _, tags) = subscription.arrive().unwrap();
    assert_eq!((from, tags), (key("a"), vec![5, 6]));
    assert_eq!(look(&subscription), ("standing", true, false, Some(7), key("c")));
    assert!(subscription.arrive().is_none(), "it has arrived");
}

#[test]
fn two_of_one_key_are_one() {
    // (the other's state, who waits for this one) → (answered now, answered by the other's task)
    let rows = [
        (standing("a", None), vec![1], (vec![1], None)),
        (standing("a", Some(&[2])), vec![1], (vec![], Some(vec![1, 2]))),
        (settling("a", &[2]), vec![], (vec![], Some(vec![2]))),
        (requested(&[]), vec![1], (vec![], Some(vec![1]))),
        // Nobody waits: its task finds nothing, and ends.
        (requested(&[]), vec![], (vec![], None)),
    ];
    for (other, tags, (now, by_task)) in rows {
        let mut subscription = with(1, "a", standing("a", None));
        let told = format!("{other:?}");
        assert_eq!(subscription.merge(with(2, "a", other), tags), now, "{told}");
        assert_eq!(subscription.id, if by_task.is_some() { 2 } else { 1 }, "{told}");
        assert_eq!(subscription.standing().unwrap().renewal, by_task, "{told}");
    }
}

#[test]
fn a_task_of_its_own_goes_on_after_a_merger() {
    let mut subscription = with(1, "a", standing("a", Some(&[3])));
    assert_eq!(subscription.merge(with(2, "a", standing("a", None)), vec![4]), [0; 0]);
    assert_eq!((subscription.id, subscription.standing().unwrap().renewal.clone()), (1, Some(vec![3, 4])));
}

#[test]
fn who_wants_what() {
    use Interest::{AccountAndShared, Client, ClientAndCovered, Covered, Watched};
    let (new, expunge) = (filter(&[EventType::MessageNew]), filter(&[EventType::MessageExpunge]));
    let both = ClientAndCovered { client: new, covered: expunge };

    let asked = |mut interest: Interest, by| {
        interest.ask(by);
        interest
    };
    assert_eq!(asked(Client(ALL), Client(new)), Client(new), "the last request counts");
    assert_eq!(asked(Covered(expunge), Client(new)), both);
    assert_eq!(asked(Client(ALL), AccountAndShared(new)), AccountAndShared(new));

    let covered = |mut interest: Interest| (interest.cover(expunge), interest);
    assert_eq!(covered(Client(new)), (true, both));
    assert_eq!(covered(both), (false, both));
    assert_eq!(covered(Covered(new)), (true, Covered(expunge)));

    assert_eq!([both, Client(new), Watched].map(Interest::without_client), [Some(Covered(expunge)), None, None]);
    assert_eq!([both, Covered(new)].map(Interest::without_cover), [Some(Client(new)), None]);
    assert_eq!(Watched.without_cover(), Some(Watched));

    let mut account = AccountAndShared(new);
    assert!(account.stop_sharing() && !account.stop_sharing());
    assert_eq!(account, Client(new));

    assert_eq!(Client(new).or(Covered(expunge)), both);
    assert_eq!(AccountAndShared(new).or(Client(new)), AccountAndShared(new));
    assert_eq!(both.filter(), new.or(expunge));
    assert_eq!([Covered(new), both, Client(new)].map(Interest::needs), [Rights::READ, Rights::LOOKUP, Rights::LOOKUP]);
}

/// What a session had before its subscriptions had states: the memory of an idle one must not rise.
#[test]
fn a_subscription_takes_no_more_memory_than_before() {
    #[expect(dead_code, reason = "for its size")]
    struct Before {
        key: Key,
        lease: Option<Lease>,
        grant: Option<Arc<Grant>>,
        since: u64,
        serial: u64,
        asked: Option<Filter>,
        covered: Option<Filter>,
        flags: [bool; 5],
        rights: Rights,
        waiting: Vec<u32>,
        moving: Option<Box<Moving>>,
    }
    println!("{} bytes, {} before", size_of::<Subscription>(), size_of::<Before>());
    assert!(size_of::<Subscription>() <= size_of::<Before>());
    let mut book = Book::default();
    book.add(with(1, "a", standing("a", None)));
    assert_eq!(book.subscriptions.capacity(), 1, "most sessions have one");
}

#[test]
fn a_closed_book_stays_closed() {
    let mut book = Book::default();
    book.add(with(1, "a", standing("a", None)));
    book.add(with(2, "b", requested(&[])));
    assert_eq!(book.established(), [(key("a"), 7)]);
    assert!(book.named(&key("b")).is_some() && book.in_hub(&key("b")).is_none());
    assert_eq!((book.close().len(), book.is_open()), (2, false));
}
