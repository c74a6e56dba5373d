//! A server with any history, events that go any way, and a client that believes what it is told:
//! they agree.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use roaring::RoaringBitmap;

use super::*;
use crate::mail::event::{FlagChange, NewMessage};
use crate::mail::flags::{Flag, Flags};
use crate::mail::ids::EventId;

/// The messages in the snapshot.
const FIRST: u32 = 6;
const SNAPSHOT: u64 = 100;

#[derive(Debug, Clone)]
enum Op {
    /// So many at once, after so many UIDs that are never seen.
    Append { count: u32, skipped: u32 },
    /// By their places, as far as there are so many.
    Expunge(Vec<usize>),
    Flag {
        place: usize,
        complete: bool,
        /// The event has a modification sequence.
        dated: bool,
    },
}

/// How an event reaches the node.
#[derive(Debug, Clone)]
struct Fate {
    copies: usize,
    /// How many others may overtake each copy.
    delays: [usize; 2],
    has_status: bool,
}

#[derive(Debug, Clone)]
enum Step {
    Event(usize),
    /// Upstream is read; it knows all operations before this share of those that happened, or some
    /// more.
    Reconcile {
        lag: usize,
    },
    /// Upstream says all flags, as they are after all operations of which something was heard.
    Answer,
}

/// The mailbox after some operations; a message's flags are told by the operation that changed them
/// last.
#[derive(Debug, Clone, Default)]
struct Server {
    messages: BTreeMap<u32, u64>,
    uidnext: u32,
    modseq: u64,
}

impl Server {
    fn uids(&self) -> RoaringBitmap {
        self.messages.keys().copied().collect()
    }

    /// All flags that changed since the snapshot; with modification sequences where the client has
    /// asked for them.
    fn changed_flags(&self, features: Features) -> Vec<(Uid, Flags, Option<ModSeq>)> {
        let changed = self.messages.iter().filter(|(_, modseq)| **modseq > SNAPSHOT);
        let modseq = |modseq: u64| Some(ModSeq(modseq)).filter(|_| features.fetch_has_modseq());
        changed.map(|(number, version_of)| (uid(*number), version(*version_of), modseq(*version_of))).collect()
    }
}

struct History {
    events: Vec<Event>,
    /// The first is the snapshot; then one after each operation.
    states: Vec<Server>,
}

fn history(ops: &[Op], fates: &[Fate]) -> History {
    let mut server = Server { messages: (1..=FIRST).map(|uid| (uid, SNAPSHOT)).collect(), uidnext: FIRST + 1, modseq: SNAPSHOT };
    let mut history = History { events: Vec::new(), states: vec![server.clone()] };
    for (op, fate) in ops.iter().zip(fates.iter().cycle()) {
        server.modseq += 1;
        let places: Vec<u32> = server.messages.keys().copied().collect();
        let place = |place: &usize| (!places.is_empty()).then(|| places[place % places.len()]);
        let change = match op {
            Op::Append { count, skipped } => {
                let first = server.uidnext + skipped;
                server.uidnext = first + count;
                server.messages.extend((first..server.uidnext).map(|uid| (uid, server.modseq)));
                Change::MessageNew { messages: (first..server.uidnext).map(|number| NewMessage::new(uid(number))).collect() }
            }
            Op::Expunge(chosen) => {
                let mut gone: Vec<u32> = chosen.iter().filter_map(place).collect();
                gone.sort_unstable();
                gone.dedup();
                server.messages.retain(|uid, _| !gone.contains(uid));
                Change::MessageExpunge { uids: gone.into_iter().map(uid).collect(), modseq: None }
            }
            Op::Flag { place: chosen, complete, dated } => {
                let messages = place(chosen).map(|number| {
                    server.messages.insert(number, server.modseq);
                    let flags = version(server.modseq);
                    let modseq = dated.then_some(ModSeq(server.modseq));
                    FlagChange { uid: uid(number), changed: flags.clone(), flags: complete.then_some(flags), modseq }
                });
                Change::FlagsSet { messages: messages.into_iter().collect() }
            }
        };
        let status = Status {
            messages: Some(u32::try_from(server.messages.len()).unwrap()),
            uidnext: Some(server.uidnext),
            highestmodseq: Some(ModSeq(server.modseq)),
            unseen: None,
        };
        let id = EventId(uuid::Uuid::from_u128(u128::from(server.modseq)));
        let status = fate.has_status.then_some(status);
        history.events.push(Event { id, uidvalidity: None, status, change, ..crate::mail::codec::tests::sample() });
        history.states.push(server.clone());
    }
    history
}

/// The order in which the events come out of the queue.
fn delivery(events: usize, fates: &[Fate]) -> Vec<usize> {
    let copies = (0..events)
        .zip(fates.iter().cycle())
        .flat_map(|(number, fate)| fate.delays.iter().take(fate.copies).map(move |delay| (number + delay, number)));
    let mut order: Vec<_> = copies.collect();
    order.sort_by_key(|(when, _)| *when);
    order.into_iter().map(|(_, number)| number).collect()
}

fn uid(number: u32) -> Uid {
    Uid::new(number).unwrap()
}

/// Flags that say when they were set.
fn version(modseq: u64) -> Flags {
    [format!("k{modseq}").parse().unwrap()].into_iter().collect()
}

/// A client that idles. It knows which message has a number only where it was told.
#[derive(Debug, Default)]
struct Client {
    messages: Vec<Option<u32>>,
    flags: BTreeMap<u32, u64>,
    keywords: Vec<String>,
    /// Messages whose flags may go back for the moment: nobody can tell which of two states is
    /// older.
    guessed: BTreeSet<u32>,
}

impl Client {
    fn new() -> Self {
        Self { messages: (1..=FIRST).map(Some).collect(), ..Self::default() }
    }

    fn hear(&mut self, tell: &Tell) {
        match tell {
            Tell::Exists(count) => {
                let count = usize::try_from(*count).unwrap();
                assert!(count > self.messages.len(), "EXISTS {count} with {} messages", self.messages.len());
                self.messages.resize(count, None);
            }
            Tell::Expunge(seq) => {
                let at = usize::try_from(*seq).unwrap() - 1;
                assert!(at < self.messages.len(), "EXPUNGE {seq} with {} messages", self.messages.len());
                self.messages.remove(at);
            }
            Tell::Vanished(gone) => {
                for number in gone {
                    // An unknown one lies between its known neighbours.
                    let known = self.messages.iter().position(|held| *held == Some(number));
                    let above =
                        self.messages.iter().rposition(|held| held.is_some_and(|held| held < number)).map_or(0, |at| at + 1);
                    let at = known.unwrap_or(above);
                    assert!(
                        self.messages.get(at).is_some_and(|held| held.is_none_or(|held| held == number)),
                        "VANISHED {number}"
                    );
                    self.messages.remove(at);
                }
            }
            Tell::Fetch { seq, uid, flags, .. } => {
                let held = self.messages.get_mut(usize::try_from(*seq).unwrap() - 1).expect("a number that exists");
                assert_eq!(*held.get_or_insert(uid.get()), uid.get(), "FETCH {seq} is another message");
                let flag = flags.iter().next().map(Flag::as_str).unwrap();
                assert!(self.keywords.iter().any(|known| known == flag), "{flag} was not listed");
                let version = flag[1..].parse().unwrap();
                let before = self.flags.insert(uid.get(), version).unwrap_or_default();
                assert!(
                    before <= version || self.guessed.contains(&uid.get()),
                    "flags of {uid} went back from {before} to {version}"
                );
            }
            Tell::Flags(flags) => self.keywords = flags.iter().map(ToString::to_string).collect(),
            Tell::PermanentFlags(_) => {}
        }
    }

    fn agrees(&self, view: &View) {
        assert_eq!(self.messages.len(), usize::try_from(view.len()).unwrap());
        for (held, seq) in self.messages.iter().zip(1..) {
            if let Some(number) = held {
                assert_eq!(view.uid(seq), Some(uid(*number)), "number {seq}");
                assert_eq!(view.seq(uid(*number)), Some(seq));
            }
        }
    }
}

struct Case {
    history: History,
    view: View,
    client: Client,
}

impl Case {
    fn new(ops: &[Op], fates: &[Fate], features: Features) -> Self {
        let uids: RoaringBitmap = (1..=FIRST).collect();
        let view = View::new(uids, FIRST + 1, None, Some(ModSeq(SNAPSHOT)), Keywords::default(), features);
        Self { history: history(ops, fates), view, client: Client::new() }
    }

    fn hear(&mut self, tell: &[Tell]) {
        tell.iter().for_each(|tell| self.client.hear(tell));
        self.client.agrees(&self.view);
    }

    fn apply(&mut self, number: usize) {
        if !self.view.features().fetch_has_modseq() {
            let (Change::FlagsSet { messages } | Change::FlagsClear { messages }) = &self.history.events[number].change else {
                return self.take(number);
            };
            let undated = messages.iter().filter(|message| message.modseq.is_none());
            self.client.guessed.extend(undated.map(|message| message.uid.get()));
        }
        self.take(number);
    }

    fn take(&mut self, number: usize) {
        let applied = self.view.apply(&self.history.events[number], true);
        self.hear(&applied.tell);
        assert_eq!(self.view.apply(&self.history.events[number], true).tell, [], "twice the same");
        self.client.agrees(&self.view);
    }

    /// Upstream says all flags as they are after so many operations, and does not lag.
    fn answer(&mut self, after: usize) {
        let flags = self.history.states[after].changed_flags(self.view.features());
        let told = self.view.tell_flags(&flags);
        self.hear(&told);
    }

    /// Upstream is asked for what is owed and what must be compared, and for nothing else.
    fn ask(&mut self) {
        let wanted = self.view.unanswered() | self.view.flags_to_compare();
        let server = &self.history.states[self.history.states.len() - 1];
        let mut answers = server.changed_flags(self.view.features());
        answers.retain(|(uid, ..)| wanted.contains(uid.get()));
        let told = self.view.tell_flags(&answers);
        self.hear(&told);
        assert!(self.view.unanswered().is_empty() && self.view.flags_to_compare().is_empty());
        assert!(!self.view.guesses_flags());
    }

    /// What the client was told of flags is what they are.
    fn assert_flags(&self) {
        for (number, modseq) in &self.history.states[self.history.states.len() - 1].messages {
            // Of a new message it may have been told nothing: it fetches what was announced.
            let told = self.client.flags.get(number).copied().or((*number <= FIRST).then_some(SNAPSHOT));
            assert!(told.is_none_or(|told| told == *modseq), "flags of {number}: {told:?}, and {modseq} is right");
        }
    }

    /// Against the server after so many operations.
    fn reconcile(&mut self, after: usize) -> Reconciled {
        let server = self.history.states[after].clone();
        let flags = server.changed_flags(self.view.features());
        if !self.view.features().fetch_has_modseq() {
            // It may lag.
            self.client.guessed.extend(flags.iter().map(|(uid, ..)| uid.get()));
        }
        let reconciled = self.view.reconcile(&server.uids(), server.uidnext, &flags);
        self.hear(&reconciled.tell);
        let (uids, truth) = (self.view.uids().set(), server.uids());
        assert_eq!(&(&truth - &reconciled.late) | &reconciled.ahead, *uids, "what is not level is said");
        assert_eq!(reconciled.is_level(), *uids == truth);
        if reconciled.is_level() {
            assert!(!self.view.is_doubtful() || self.view.uidnext() > server.uidnext, "all is explained but what is to come");
            assert_eq!(self.view.uids(), &Uids::new(truth));
        }
        reconciled
    }
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let op = prop_oneof![
        4 => (1..4_u32, prop_oneof![3 => Just(0), 1 => 1..3_u32]).prop_map(|(count, skipped)| Op::Append { count, skipped }),
        3 => prop::collection::vec(any::<usize>(), 1..4).prop_map(Op::Expunge),
        5 => (any::<usize>(), prop::bool::weighted(0.7), prop::bool::weighted(0.8))
            .prop_map(|(place, complete, dated)| Op::Flag { place, complete, dated }),
    ];
    prop::collection::vec(op, 1..40)
}

fn fates(copies: std::ops::Range<usize>) -> impl Strategy<Value = Vec<Fate>> {
    let delay = prop_oneof![3 => Just(0), 1 => 1..10_usize];
    let fate = (copies, [delay.clone(), delay], prop::bool::weighted(0.7));
    prop::collection::vec(fate.prop_map(|(copies, delays, has_status)| Fate { copies, delays, has_status }), 40)
}

fn features() -> impl Strategy<Value = Features> {
    prop::sample::select(vec![
        Features::default(),
        Features { condstore: true, ..Features::default() },
        Features { condstore: true, qresync: true, rev2: true },
    ])
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1024, ..ProptestConfig::default() })]

    /// Events may be lost, come twice, late, in any order, and upstream may lag: numbers stay right
    /// all the time. And against an upstream that does not lag the view is level at once.
    #[test]
    fn whatever_happens_the_numbers_agree(
        ops in ops(),
        fates in fates(0..3),
        features in features(),
        looks in prop::collection::vec((0..3_usize, 0..12_usize), 60),
    ) {
        let mut case = Case::new(&ops, &fates, features);
        let mut happened = 0;
        let order = delivery(ops.len(), &fates);
        let steps = order.into_iter().zip(looks.into_iter().cycle()).flat_map(|(number, (look, lag))| {
            let look = [Some(Step::Reconcile { lag }), Some(Step::Answer), None].into_iter().nth(look).flatten();
            std::iter::once(Step::Event(number)).chain(look)
        });
        for step in steps {
            match step {
                Step::Event(number) => {
                    happened = happened.max(number + 1);
                    case.apply(number);
                }
                Step::Answer => case.answer(happened),
                Step::Reconcile { lag } if lag < 6 => {
                    case.reconcile(happened.saturating_sub(lag));
                }
                // Upstream knows what was not heard of yet.
                Step::Reconcile { lag } => {
                    happened = ops.len().min(happened + lag - 6);
                    let reconciled = case.reconcile(happened);
                    prop_assert!(reconciled.is_level(), "{reconciled:?}");
                }
            }
        }
        let reconciled = case.reconcile(ops.len());
        prop_assert!(reconciled.is_level(), "{reconciled:?}");
        case.assert_flags();
        let server = &case.history.states[ops.len()];
        for (number, modseq) in server.messages.iter().filter(|(number, _)| **number <= FIRST) {
            prop_assert_eq!(case.client.flags.get(number).copied().unwrap_or(SNAPSHOT), *modseq, "flags of {}", number);
        }
        prop_assert!(case.view.unanswered().is_empty());
    }

    /// If every event comes, in whatever order, nothing else is needed: messages and flags are the
    /// server's. Events overtake each other, across the floor too, and what upstream says
    /// meanwhile.
    #[test]
    fn when_no_event_is_lost_the_view_ends_right(
        ops in ops(),
        fates in fates(1..3),
        features in features(),
        answers in prop::collection::vec(prop::bool::weighted(0.2), 60),
    ) {
        let mut case = Case::new(&ops, &fates, features);
        let mut happened = 0;
        for (number, answer) in delivery(ops.len(), &fates).into_iter().zip(answers.into_iter().cycle()) {
            happened = happened.max(number + 1);
            case.apply(number);
            if answer {
                case.answer(happened);
            }
        }
        let server = case.history.states[ops.len()].clone();
        prop_assert_eq!(case.view.uids().set(), &server.uids());
        case.ask();
        case.assert_flags();
    }

    /// A lost event shows: after the last event that has a count, a view that is wrong is in doubt.
    #[test]
    fn a_wrong_count_is_noticed(ops in ops(), fates in fates(0..2)) {
        let mut case = Case::new(&ops, &fates, Features::default());
        for (number, _) in fates.iter().take(ops.len() - 1).enumerate().filter(|(_, fate)| fate.copies > 0) {
            case.apply(number);
        }
        let last = ops.len() - 1;
        let server = case.history.states[ops.len()].clone();
        let count = u32::try_from(server.messages.len()).unwrap();
        let status = Status { messages: Some(count), uidnext: Some(server.uidnext), ..Status::default() };
        case.history.events[last].status = Some(status);
        case.apply(last);
        prop_assert_eq!(case.view.is_doubtful(), case.view.len() != count || case.view.uidnext() != server.uidnext);
    }
}
