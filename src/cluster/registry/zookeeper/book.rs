//! What should stand in ZooKeeper, what does, and so what is to be done next: pure planning.
//!
//! Upholds: one registration per key; on one key at most one operation is under way, and what was asked last
//! is what stands in the end; no slot (ZooKeeper session) holds more than the budget (I-14).

use std::collections::{HashMap, VecDeque};

use crate::mail::key::Key;

/// What a registration's znode is known to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Have {
    Absent,
    Present,
    /// An operation was sent and its answer lost.
    Unknown,
}

/// What to do to a key's znode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Op {
    Create,
    Delete,
}

/// What came of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    Present,
    Absent,
    /// Perhaps done, perhaps not: it is done again.
    Unknown,
    /// Not done and not allowed. It is tried again (rights can be mended), but who waits is told.
    Denied(String),
}

/// What a look at a registration that should stand has found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found {
    Standing,
    /// Somebody else has deleted it.
    Missing,
    /// The question was not answered.
    Unknown,
}

/// What follows from an outcome.
#[derive(Debug)]
pub struct Settled<W> {
    pub waiters: Vec<W>,
    /// Whether the key's continuity had been broken and it stands again.
    pub restored: bool,
}

#[derive(Debug)]
struct Entry<W> {
    slot: usize,
    cost: usize,
    want: bool,
    have: Have,
    under_way: bool,
    queued: bool,
    /// It stood, and then its session ended or fell silent for too long, or somebody deleted it.
    broken: bool,
    /// The last attempt to make or delete it was denied. It is not tried again before [`Book::retry_denied`].
    denied: bool,
    waiters: Vec<W>,
}

impl<W> Entry<W> {
    fn next(&self) -> Option<Op> {
        match (self.want, self.have) {
            _ if self.under_way => None,
            (true, Have::Absent | Have::Unknown) => Some(Op::Create),
            (false, Have::Present | Have::Unknown) => Some(Op::Delete),
            (true, Have::Present) | (false, Have::Absent) => None,
        }
    }
}

#[derive(Debug)]
struct Slot {
    queue: VecDeque<Key>,
    used: usize,
    broken: usize,
    denied: usize,
    /// Somebody waits for a new proof that what stands still stands.
    unconfirmed: bool,
}

/// The registrations of one ensemble. `W` is whoever waits for an acknowledgement.
#[derive(Debug)]
pub struct Book<W> {
    budget: usize,
    entries: HashMap<Key, Entry<W>>,
    slots: Vec<Slot>,
}

impl<W> Book<W> {
    pub fn new(budget: usize) -> Self {
        Self { budget, entries: HashMap::new(), slots: Vec::new() }
    }

    pub fn add_slot(&mut self) -> usize {
        self.slots.push(Slot { queue: VecDeque::new(), used: 0, broken: 0, denied: 0, unconfirmed: false });
        self.slots.len() - 1
    }

    /// The slot that `key` is in, or that has room for it; `None`: add one. The first with room is taken, so
    /// that later ones empty out over time.
    pub fn place(&self, key: &Key, cost: usize) -> Option<usize> {
        match self.entries.get(key) {
            Some(entry) => Some(entry.slot),
            // A single registration is always smaller than a budget; should one not be, an empty slot takes it.
            None => self.slots.iter().position(|slot| slot.used == 0 || slot.used + cost <= self.budget),
        }
    }

    /// Where `key` is, if it is anywhere.
    pub fn slot_of(&self, key: &Key) -> Option<usize> {
        self.entries.get(key).map(|entry| entry.slot)
    }

    /// Wants `key`, in `slot` (see [`Book::place`]). Gives the waiter back where the registration stands
    /// already; `proven` says whether the slot's registrations surely stand.
    pub fn register(&mut self, key: Key, slot: usize, cost: usize, proven: bool, waiter: W) -> Option<W> {
        let entry = self.entries.entry(key.clone()).or_insert_with(|| {
            self.slots[slot].used += cost;
            Entry {
                slot,
                cost,
                want: true,
                have: Have::Absent,
                under_way: false,
                queued: false,
                broken: false,
                denied: false,
                waiters: Vec::new(),
            }
        });
        entry.want = true;
        let slot = entry.slot;
        let stands = entry.have == Have::Present && !entry.under_way;
        if stands && proven {
            return Some(waiter);
        }
        entry.waiters.push(waiter);
        self.slots[slot].unconfirmed |= stands;
        self.enqueue(&key);
        None
    }

    /// No longer wants `key`. Who still waited for it is given back.
    pub fn unregister(&mut self, key: &Key) -> Vec<W> {
        let Some(entry) = self.entries.get_mut(key) else { return Vec::new() };
        entry.want = false;
        self.slots[entry.slot].broken -= usize::from(std::mem::take(&mut entry.broken));
        let waiters = std::mem::take(&mut entry.waiters);
        self.enqueue(key);
        self.forget_if_gone(key);
        waiters
    }

    /// No longer wants anything in `slot`.
    pub fn unregister_all(&mut self, slot: usize) -> Vec<W> {
        self.keys_of(slot, |_| true).iter().flat_map(|key| self.unregister(key)).collect()
    }

    /// Up to `limit` operations on different keys, oldest first; each is under way until [`Book::handle_done`].
    pub fn take(&mut self, slot: usize, limit: usize) -> Vec<(Key, Op)> {
        let mut taken = Vec::new();
        while taken.len() < limit {
            let Some(key) = self.slots[slot].queue.pop_front() else { break };
            let Some(entry) = self.entries.get_mut(&key) else { continue };
            entry.queued = false;
            if let Some(op) = entry.next() {
                entry.under_way = true;
                taken.push((key, op));
            }
        }
        taken
    }

    /// How many operations may be waiting in `slot` (some may have become needless).
    pub fn waiting(&self, slot: usize) -> usize {
        self.slots[slot].queue.len()
    }

    pub fn handle_done(&mut self, key: &Key, outcome: &Outcome) -> Settled<W> {
        let mut settled = Settled { waiters: Vec::new(), restored: false };
        let Some(entry) = self.entries.get_mut(key) else { return settled };
        entry.under_way = false;
        entry.have = match outcome {
            Outcome::Present => Have::Present,
            Outcome::Absent => Have::Absent,
            Outcome::Unknown | Outcome::Denied(_) => Have::Unknown,
        };
        let denied = matches!(outcome, Outcome::Denied(_));
        let was_denied = std::mem::replace(&mut entry.denied, denied);
        self.slots[entry.slot].denied += usize::from(denied);
        self.slots[entry.slot].denied -= usize::from(was_denied);
        let stands = entry.want && entry.have == Have::Present;
        if stands || denied {
            settled.waiters = std::mem::take(&mut entry.waiters);
        }
        if stands {
            settled.restored = std::mem::take(&mut entry.broken);
            self.slots[entry.slot].broken -= usize::from(settled.restored);
        }
        self.enqueue(key);
        self.forget_if_gone(key);
        settled
    }

    /// What stands in `slot`, as far as is known here.
    pub fn standing(&self, slot: usize) -> Vec<Key> {
        self.keys_of(slot, |entry| entry.want && entry.have == Have::Present)
    }

    /// Those of `keys` that still stand, as far as is known here, to be looked at. Each is under way until
    /// [`Book::handle_found`].
    pub fn take_standing(&mut self, mut keys: Vec<Key>) -> Vec<Key> {
        keys.retain(|key| {
            let standing = |entry: &&mut Entry<W>| entry.want && entry.have == Have::Present && !entry.under_way;
            self.entries.get_mut(key).filter(standing).map(|entry| entry.under_way = true).is_some()
        });
        keys
    }

    /// Takes in what a look at `key` has found; `proven` says whether the slot's session is surely alive.
    pub fn handle_found(&mut self, key: &Key, found: Found, proven: bool) -> Settled<W> {
        let mut settled = Settled { waiters: Vec::new(), restored: false };
        let Some(entry) = self.entries.get_mut(key) else { return settled };
        entry.under_way = false;
        let slot = &mut self.slots[entry.slot];
        match found {
            _ if !entry.want => {}
            Found::Standing if proven => {
                settled.waiters = std::mem::take(&mut entry.waiters);
                settled.restored = std::mem::take(&mut entry.broken);
                slot.broken -= usize::from(settled.restored);
            }
            Found::Standing | Found::Unknown => slot.unconfirmed |= entry.broken || !entry.waiters.is_empty(),
            Found::Missing => slot.broken += usize::from(!std::mem::replace(&mut entry.broken, true)),
        }
        if found == Found::Missing {
            entry.have = Have::Absent;
        }
        self.enqueue(key);
        self.forget_if_gone(key);
        settled
    }

    /// How many operations in `slot` are denied.
    pub fn denied(&self, slot: usize) -> usize {
        self.slots[slot].denied
    }

    /// Tries once more what was denied in `slot`.
    pub fn retry_denied(&mut self, slot: usize) {
        for key in self.keys_of(slot, |entry| entry.denied) {
            self.allow(&key);
            self.enqueue(&key);
        }
    }

    fn allow(&mut self, key: &Key) {
        if let Some(entry) = self.entries.get_mut(key) {
            self.slots[entry.slot].denied -= usize::from(std::mem::take(&mut entry.denied));
        }
    }

    /// The slot's session is gone and everything in it with it: all that is wanted is to be created again.
    pub fn handle_session_end(&mut self, slot: usize) {
        for key in self.keys_of(slot, |_| true) {
            let Some(entry) = self.entries.get_mut(&key) else { continue };
            entry.under_way = false;
            self.slots[slot].denied -= usize::from(std::mem::take(&mut entry.denied));
            let stood = std::mem::replace(&mut entry.have, Have::Absent) == Have::Present;
            if entry.want && stood && !entry.broken {
                entry.broken = true;
                self.slots[slot].broken += 1;
            }
            self.enqueue(&key);
            self.forget_if_gone(&key);
        }
    }

    /// The slot has been silent for too long: what stood is as good as gone. All such keys.
    pub fn handle_lost(&mut self, slot: usize) -> Vec<Key> {
        for entry in self.entries.values_mut().filter(|entry| entry.slot == slot) {
            if entry.want && entry.have == Have::Present && !entry.broken {
                entry.broken = true;
                self.slots[slot].broken += 1;
            }
        }
        self.slots[slot].unconfirmed |= self.slots[slot].broken > 0;
        self.keys_of(slot, |entry| entry.broken)
    }

    /// The slot's session is alive after all: what stood, stands. Who waited for that, and the keys that had
    /// been told lost.
    pub fn handle_proof(&mut self, slot: usize) -> (Vec<W>, Vec<Key>) {
        let (mut waiters, mut restored) = (Vec::new(), Vec::new());
        if !std::mem::take(&mut self.slots[slot].unconfirmed) {
            return (waiters, restored);
        }
        for (key, entry) in self.entries.iter_mut().filter(|(_, entry)| entry.slot == slot) {
            if entry.want && entry.have == Have::Present && !entry.under_way {
                waiters.append(&mut entry.waiters);
                if std::mem::take(&mut entry.broken) {
                    restored.push(key.clone());
                }
            }
        }
        self.slots[slot].broken -= restored.len();
        (waiters, restored)
    }

    /// The keys of `slot` that stood once and do not surely stand now.
    pub fn broken_keys(&self, slot: usize) -> Vec<Key> {
        self.keys_of(slot, |entry| entry.broken)
    }

    /// How many they are.
    pub fn broken(&self, slot: usize) -> usize {
        self.slots[slot].broken
    }

    /// Whether `slot` holds nothing, nor is anything to be done there.
    pub fn is_empty(&self, slot: usize) -> bool {
        self.slots[slot].used == 0
    }

    /// Everybody who waits in `slot`: for when it will do no more.
    pub fn take_waiters(&mut self, slot: usize) -> Vec<W> {
        let entries = self.entries.values_mut().filter(|entry| entry.slot == slot);
        entries.flat_map(|entry| std::mem::take(&mut entry.waiters)).collect()
    }

    fn keys_of(&self, slot: usize, which: impl Fn(&Entry<W>) -> bool) -> Vec<Key> {
        let entries = self.entries.iter().filter(|(_, entry)| entry.slot == slot && which(entry));
        entries.map(|(key, _)| key.clone()).collect()
    }

    fn enqueue(&mut self, key: &Key) {
        let Some(entry) = self.entries.get_mut(key) else { return };
        if entry.next().is_some() && !entry.queued && !entry.denied {
            entry.queued = true;
            self.slots[entry.slot].queue.push_back(key.clone());
        }
    }

    fn forget_if_gone(&mut self, key: &Key) {
        let gone = |entry: &Entry<W>| !entry.want && entry.have == Have::Absent && !entry.under_way;
        if self.entries.get(key).is_some_and(gone)
            && let Some(entry) = self.entries.remove(key)
        {
            self.slots[entry.slot].used -= entry.cost;
            self.slots[entry.slot].denied -= usize::from(entry.denied);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;
    use crate::mail::user::UserName;

    const COST: usize = 10;

    fn key(n: usize) -> Key {
        Key::Account(UserName::new(format!("user{n}")).unwrap())
    }

    fn book() -> Book<u32> {
        let mut book = Book::new(1_000);
        book.add_slot();
        book
    }

    fn register(book: &mut Book<u32>, n: usize, waiter: u32) -> Option<u32> {
        let slot = book.place(&key(n), COST).unwrap_or_else(|| book.add_slot());
        book.register(key(n), slot, COST, true, waiter)
    }

    #[test]
    fn a_registration_is_acknowledged_once_it_stands() {
        let mut book = book();
        assert_eq!(register(&mut book, 1, 7), None);
        assert_eq!(register(&mut book, 1, 8), None);
        assert_eq!(book.take(0, 100), [(key(1), Op::Create)]);
        assert_eq!(book.take(0, 100), [], "one operation on one key at a time");
        assert_eq!(book.handle_done(&key(1), &Outcome::Present).waiters, [7, 8]);
        assert_eq!(register(&mut book, 1, 9), Some(9));
    }

    #[test]
    fn what_cancels_itself_out_is_not_sent() {
        let mut book = book();
        register(&mut book, 1, 7);
        assert_eq!(book.unregister(&key(1)), [7]);
        assert_eq!(book.take(0, 100), []);
        assert!(book.is_empty(0));
    }

    #[test]
    fn what_was_asked_last_stands() {
        let mut book = book();
        register(&mut book, 1, 1);
        book.take(0, 100);
        book.unregister(&key(1));
        register(&mut book, 1, 2);
        book.unregister(&key(1));
        assert_eq!(book.handle_done(&key(1), &Outcome::Present).waiters, [] as [u32; 0]);
        assert_eq!(book.take(0, 100), [(key(1), Op::Delete)]);
        register(&mut book, 1, 3);
        assert_eq!(book.handle_done(&key(1), &Outcome::Absent).waiters, [] as [u32; 0]);
        assert_eq!(book.take(0, 100), [(key(1), Op::Create)]);
        assert_eq!(book.handle_done(&key(1), &Outcome::Present).waiters, [3]);
    }

    #[test]
    fn an_unknown_outcome_is_tried_again() {
        let mut book = book();
        register(&mut book, 1, 1);
        book.take(0, 100);
        book.handle_done(&key(1), &Outcome::Unknown);
        assert_eq!(book.take(0, 100), [(key(1), Op::Create)]);
        book.unregister(&key(1));
        book.handle_done(&key(1), &Outcome::Unknown);
        assert_eq!(book.take(0, 100), [(key(1), Op::Delete)], "it may have been created");
    }

    #[test]
    fn after_a_session_everything_that_stood_is_restored() {
        let mut book = book();
        for n in 0..3 {
            register(&mut book, n, 0);
        }
        for (key, _) in book.take(0, 2) {
            book.handle_done(&key, &Outcome::Present);
        }
        book.handle_session_end(0);
        assert_eq!(book.broken(0), 2);
        let again = book.take(0, 100);
        assert_eq!(again.len(), 3);
        let restored = again.iter().filter(|(key, _)| book.handle_done(key, &Outcome::Present).restored).count();
        assert_eq!((restored, book.broken(0)), (2, 0), "the third had never been acknowledged");
    }

    #[test]
    fn a_silence_that_ends_well_restores_without_an_operation() {
        let mut book = book();
        register(&mut book, 1, 0);
        book.take(0, 100);
        book.handle_done(&key(1), &Outcome::Present);
        assert_eq!(book.handle_lost(0), [key(1)]);
        assert_eq!(book.register(key(1), 0, COST, false, 5), None, "nobody knows whether it stands");
        assert_eq!(book.take(0, 100), []);
        assert_eq!(book.handle_proof(0), (vec![5], vec![key(1)]));
        assert_eq!(book.handle_proof(0), (vec![], vec![]));
    }

    /// One registration that stands, and is looked at.
    fn looked_at(book: &mut Book<u32>) {
        register(book, 1, 0);
        book.take(0, 100);
        book.handle_done(&key(1), &Outcome::Present);
        assert_eq!(book.standing(0), [key(1)]);
        assert_eq!(book.take_standing(vec![key(1), key(2)]), [key(1)]);
        assert_eq!(book.take_standing(vec![key(1)]), [], "one look at a time");
    }

    #[test]
    fn what_somebody_deleted_is_made_again_and_told_restored() {
        let mut book = book();
        looked_at(&mut book);
        assert_eq!(register(&mut book, 1, 7), None, "whoever comes meanwhile waits for what is found");
        let settled = book.handle_found(&key(1), Found::Missing, true);
        assert_eq!((settled.waiters, settled.restored, book.broken(0)), (vec![], false, 1));
        assert_eq!(book.broken_keys(0), [key(1)]);
        assert_eq!(book.take(0, 100), [(key(1), Op::Create)]);
        let settled = book.handle_done(&key(1), &Outcome::Present);
        assert_eq!((settled.waiters, settled.restored, book.broken(0)), (vec![7], true, 0));
    }

    #[test]
    fn a_look_that_finds_everything_in_order_changes_nothing() {
        let mut book = book();
        looked_at(&mut book);
        register(&mut book, 1, 7);
        assert_eq!(book.handle_found(&key(1), Found::Standing, true).waiters, [7]);
        assert_eq!((book.broken(0), book.take(0, 100)), (0, vec![]));
        book.take_standing(vec![key(1)]);
        register(&mut book, 1, 8);
        assert_eq!(book.handle_found(&key(1), Found::Unknown, true).waiters, [] as [u32; 0]);
        assert_eq!(book.handle_proof(0), (vec![8], vec![]), "the next proof will do");
    }

    #[test]
    fn what_is_let_go_while_it_is_looked_at_goes() {
        for (found, operations) in [
            (Found::Missing, vec![]),
            (Found::Standing, vec![(key(1), Op::Delete)]),
            (Found::Unknown, vec![(key(1), Op::Delete)]),
        ] {
            let mut book = book();
            looked_at(&mut book);
            book.unregister(&key(1));
            book.handle_found(&key(1), found, true);
            assert_eq!((book.take(0, 100), book.broken(0)), (operations, 0), "{found:?}");
            assert_eq!(book.is_empty(0), found == Found::Missing);
        }
    }

    #[test]
    fn what_is_denied_is_told_and_waits_to_be_tried_again_beside_the_rest() {
        let mut book = book();
        register(&mut book, 1, 7);
        register(&mut book, 2, 8);
        book.take(0, 100);
        assert_eq!(book.handle_done(&key(1), &Outcome::Denied("no".to_owned())).waiters, [7]);
        assert_eq!(book.handle_done(&key(2), &Outcome::Present).waiters, [8]);
        assert_eq!((book.denied(0), book.take(0, 100)), (1, vec![]));
        assert_eq!(register(&mut book, 1, 9), None);
        assert_eq!(book.take(0, 100), [], "however often it is asked for");
        book.retry_denied(0);
        assert_eq!(book.take(0, 100), [(key(1), Op::Create)]);
        assert_eq!(book.handle_done(&key(1), &Outcome::Present).waiters, [9]);
        assert_eq!(book.denied(0), 0);
    }

    #[test]
    fn the_budget_spreads_keys_over_slots() {
        let mut book = Book::new(4 * COST);
        for n in 0..10 {
            register(&mut book, n, 0);
        }
        assert_eq!(book.slots.len(), 3);
        let held: Vec<usize> = (0..3).map(|slot| book.take(slot, 100).len()).collect();
        assert_eq!(held, [4, 4, 2]);
        for n in 0..4 {
            book.handle_done(&key(n), &Outcome::Present);
            book.unregister(&key(n));
        }
        assert_eq!(book.place(&key(99), COST), Some(2), "a key's room is free only once it is gone");
        for (key, _) in book.take(0, 100) {
            book.handle_done(&key, &Outcome::Absent);
        }
        assert_eq!(book.place(&key(99), COST), Some(0));
    }

    #[derive(Debug, Clone)]
    enum Step {
        Register(usize),
        Unregister(usize),
        Take(usize),
        Done(bool),
        /// The server does not allow it.
        Denied,
        RetryDenied,
        /// Somebody else deletes it.
        Deleted(usize),
        /// Everything is looked at; whether the answers come.
        Look(bool),
        SessionEnd,
        Lost,
        Proof,
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            4 => (0usize..8).prop_map(Step::Register),
            4 => (0usize..8).prop_map(Step::Unregister),
            3 => (1usize..4).prop_map(Step::Take),
            4 => any::<bool>().prop_map(Step::Done),
            1 => Just(Step::Denied),
            1 => Just(Step::RetryDenied),
            2 => (0usize..8).prop_map(Step::Deleted),
            1 => any::<bool>().prop_map(Step::Look),
            1 => Just(Step::SessionEnd),
            1 => Just(Step::Lost),
            1 => Just(Step::Proof),
        ];
        proptest::collection::vec(step, 0..120)
    }

    proptest! {
        /// Whatever happens in whatever order: in the end ZooKeeper holds exactly what was asked for last, and
        /// nobody is told that a registration stands when it does not.
        #[test]
        fn in_the_end_exactly_what_was_asked_stands(steps in steps()) {
            let mut book = book();
            let (mut wanted, mut server) = (HashSet::new(), HashSet::new());
            let mut under_way: VecDeque<(Key, Op)> = VecDeque::new();
            let mut deleted = HashSet::new();
            for step in steps {
                match step {
                    Step::Register(n) => {
                        wanted.insert(key(n));
                        let stands = register(&mut book, n, 0).is_some();
                        prop_assert!(!stands || server.contains(&key(n)) || deleted.contains(&key(n)));
                    }
                    Step::Unregister(n) => {
                        wanted.remove(&key(n));
                        book.unregister(&key(n));
                    }
                    Step::Take(limit) => under_way.extend(book.take(0, limit)),
                    Step::Done(answered) => finish(&mut book, &mut server, &mut under_way, answered),
                    Step::Denied => {
                        if let Some((key, _)) = under_way.pop_front() {
                            book.handle_done(&key, &Outcome::Denied("no".to_owned()));
                        }
                    }
                    Step::RetryDenied => book.retry_denied(0),
                    Step::Deleted(n) => {
                        if server.remove(&key(n)) {
                            deleted.insert(key(n));
                        }
                    }
                    Step::Look(answered) => look(&mut book, &server, answered),
                    Step::SessionEnd => {
                        server.clear();
                        under_way.clear();
                        book.handle_session_end(0);
                    }
                    Step::Lost => drop(book.handle_lost(0)),
                    Step::Proof => drop(book.handle_proof(0)),
                }
                prop_assert_eq!(book.broken(0), book.broken_keys(0).len());
                prop_assert_eq!(book.denied(0), book.keys_of(0, |entry| entry.denied).len());
            }
            book.retry_denied(0);
            // What was already on its way is done first: nothing can be looked at meanwhile.
            while !under_way.is_empty() {
                finish(&mut book, &mut server, &mut under_way, true);
            }
            look(&mut book, &server, true);
            while book.waiting(0) > 0 || !under_way.is_empty() {
                under_way.extend(book.take(0, 3));
                finish(&mut book, &mut server, &mut under_way, true);
            }
            prop_assert_eq!(book.slots[0].used, wanted.len() * COST);
            prop_assert_eq!(server, wanted);
        }
    }

    fn look(book: &mut Book<u32>, server: &HashSet<Key>, answered: bool) {
        let standing = book.standing(0);
        for key in book.take_standing(standing) {
            let found = if server.contains(&key) { Found::Standing } else { Found::Missing };
            book.handle_found(&key, if answered { found } else { Found::Unknown }, true);
        }
    }

    fn finish(book: &mut Book<u32>, server: &mut HashSet<Key>, under_way: &mut VecDeque<(Key, Op)>, answered: bool) {
        let Some((key, op)) = under_way.pop_front() else { return };
        let outcome = match op {
            Op::Create => {
                server.insert(key.clone());
                Outcome::Present
            }
            Op::Delete => {
                server.remove(&key);
                Outcome::Absent
            }
        };
        book.handle_done(&key, if answered { &outcome } else { &Outcome::Unknown });
    }
}
