//! What it costs to keep the view of a large mailbox.

use std::hint::black_box;
use std::time::Instant;

use mailpush::mail::codec::from_json;
use mailpush::mail::event::{Change, Event, FlagChange, NewMessage};
use mailpush::mail::flags::Flags;
use mailpush::mail::uid::{ModSeq, Uid};
use mailpush::mail::view::{Features, Keywords, Then, View};
use roaring::RoaringBitmap;

use super::codec::TYPICAL;
use super::report::{Report, Target, quantile};

const LARGE: u32 = 1_000_000;
const EVENTS: u32 = 10_000;
const ROUNDS: usize = 7;
const TARGET: Target = Target::AtMost(5.0);
/// Messages of a mailbox, and how many views of it are kept to see what one takes.
const MEMORY: [(u32, usize); 2] = [(1_000, 20_000), (LARGE, 400)];

/// Memory, while nothing else has been freed that could be used again; then each kind of event in each shape of mailbox, and
/// whole differences.
pub fn run(report: &mut Report) {
    println!("view");
    let mut kept = Vec::new();
    for (count, copies) in MEMORY {
        for (shape, uids) in shapes(count) {
            let cost = memory(&uids, copies, &mut kept);
            let note = format!("{copies} of them, by the process's resident set");
            report.add(format!("view: memory, {count} messages, {shape}"), cost, "KiB", Target::None, note);
        }
    }
    drop(kept);
    for (shape, uids) in shapes(LARGE) {
        let view = view(&uids);
        for (what, events) in kinds(&uids) {
            let cost = apply(&view, &events);
            let note = format!("{EVENTS} events of one message each, all told; median of {ROUNDS}");
            report.add(format!("view: {what}, {LARGE} messages, {shape}"), cost, "µs", TARGET, note);
        }
        reconcile(report, shape, &uids, &view);
    }
}

/// As many messages, with fewer or more of their neighbours gone.
fn shapes(count: u32) -> [(&'static str, RoaringBitmap); 3] {
    // Holes must not come in a rhythm: runs would be all alike.
    let with_holes = |share: u32| {
        let kept = (1..).filter(move |uid: &u32| uid.wrapping_mul(0x9e37_79b1) >> 16 >= 65_536 / 100 * share);
        kept.take(usize::try_from(count).expect("64 bits")).collect()
    };
    [("no holes", (1..=count).collect()), ("2 % holes", with_holes(2)), ("10 % holes", with_holes(10))]
}

fn view(uids: &RoaringBitmap) -> View {
    let (flags, _) = Flags::sift(["\\Answered", "\\Deleted", "\\Draft", "\\Flagged", "\\Seen"]);
    let keywords = Keywords { flags, permanent: None };
    let features = Features { condstore: true, ..Features::default() };
    View::new(uids.clone(), uids.max().unwrap_or_default() + 1, None, Some(ModSeq(1)), keywords, features)
}

fn kinds(uids: &RoaringBitmap) -> Vec<(&'static str, Vec<Event>)> {
    let template = Event { uidvalidity: None, status: None, ..from_json(TYPICAL.as_bytes(), None).expect("the typical event") };
    let event = |change| Event { change, ..template.clone() };
    let next = uids.max().unwrap_or_default() + 1;
    let (seen, _) = Flags::sift(["\\Seen"]);
    // All over the mailbox, in no order.
    let anywhere = |number: u32| {
        let place = (u64::from(number.wrapping_mul(0x9e37_79b1)) * uids.len()) >> 32;
        uids.select(u32::try_from(place).expect("a sequence number")).and_then(Uid::new).expect("a message")
    };
    let append = |number| Change::MessageNew { messages: Uid::new(next + number).map(NewMessage::new).into_iter().collect() };
    let expunge = |number| Change::MessageExpunge { uids: vec![anywhere(number)], modseq: None };
    let flag = |number| {
        let flags = Some(seen.clone());
        let modseq = Some(ModSeq(2 + u64::from(number)));
        Change::FlagsSet { messages: vec![FlagChange { uid: anywhere(number), changed: seen.clone(), flags, modseq }] }
    };
    vec![
        ("a new message", (0..EVENTS).map(append).map(event).collect()),
        ("an expunged message", (0..EVENTS).map(expunge).map(event).collect()),
        ("a changed flag", (0..EVENTS).map(flag).map(event).collect()),
    ]
}

/// Microseconds an event.
fn apply(view: &View, events: &[Event]) -> f64 {
    let mut rounds: Vec<f64> = (0..=ROUNDS)
        .map(|_| {
            let mut view = view.clone();
            let mut told = 0;
            let begun = Instant::now();
            for event in events {
                let applied = black_box(view.apply(black_box(event), true));
                told += usize::from(!applied.tell.is_empty() && applied.then == Then::Nothing);
            }
            let took = begun.elapsed().as_secs_f64();
            assert!(told + 100 > events.len(), "nearly all of them are told: {told}");
            took * 1e6 / f64::from(EVENTS)
        })
        .skip(1)
        .collect();
    quantile(&mut rounds, 0.5)
}

fn reconcile(report: &mut Report, shape: &str, uids: &RoaringBitmap, view: &View) {
    let next = uids.max().unwrap_or_default() + 1;
    let mut changed = uids.clone();
    changed -= (0..100).filter_map(|number| uids.select(number * (LARGE / 100))).collect::<RoaringBitmap>();
    changed.insert_range(next..next + 100);
    for (what, truth, tells) in [("no difference", uids, 0), ("100 gone, 100 new", &changed, 101)] {
        let mut rounds: Vec<f64> = (0..ROUNDS)
            .map(|_| {
                let mut view = view.clone();
                let begun = Instant::now();
                let reconciled = view.reconcile(black_box(truth), next + 100, &[]);
                let took = begun.elapsed().as_secs_f64() * 1e6;
                assert!(reconciled.is_level() && reconciled.tell.len() == tells, "it is the difference");
                took
            })
            .collect();
        let note = format!("median of {ROUNDS}");
        let what = format!("view: reconcile, {what}, {LARGE} messages, {shape}");
        report.add(what, quantile(&mut rounds, 0.5), "µs", Target::None, note);
    }
}

/// KiB a view.
fn memory(uids: &RoaringBitmap, copies: usize, kept: &mut Vec<Vec<View>>) -> f64 {
    let mut views = Vec::with_capacity(copies);
    // What is freed on the way to a view is there to be used again from the second one on.
    views.push(view(uids));
    let before = resident();
    views.extend((1..copies).map(|_| view(uids)));
    let taken = resident() - before;
    assert!(views.iter().all(|view| *view == views[0]), "all are views of the same mailbox");
    kept.push(views);
    taken / (copies - 1) as f64
}

/// This process's resident set, in KiB.
fn resident() -> f64 {
    let rollup = std::fs::read_to_string("/proc/self/smaps_rollup").expect("Linux says what a process takes");
    let line = rollup.lines().find_map(|line| line.strip_prefix("Rss:")).expect("the resident set");
    line.trim_end_matches("kB").trim().parse().expect("a number")
}
