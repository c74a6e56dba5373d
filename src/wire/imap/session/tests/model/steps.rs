//! What can happen, and how often.

use std::time::Duration;

use proptest::prelude::*;

use super::super::*;
use super::server::Offers;

/// What the run is like from the beginning.
#[derive(Debug, Clone)]
pub struct Profile {
    pub seed: u64,
    pub offers: Offers,
    pub condstore: bool,
    pub qresync: bool,
    pub examine: bool,
    /// The mailbox is another's.
    pub shared: bool,
    /// The session itself must ask what the user may do with it.
    pub asks: bool,
    pub reentry: bool,
    pub parks: bool,
    pub lag: Duration,
}

#[derive(Debug, Clone)]
pub enum News {
    Append(usize),
    Expunge { at: usize, count: usize },
    Flag { at: usize, flags: u8, set: bool, whole: bool, modseq: bool },
    Vague,
}

/// What becomes of an event.
#[derive(Debug, Clone, Copy)]
pub enum Fate {
    Now,
    Once,
    Twice,
    Lost,
}

#[derive(Debug, Clone, Copy)]
pub enum Words {
    Idle,
    Done,
    Nonsense,
    Noop,
    UidFetch,
    Fetch(usize),
    Body(usize),
    Store(usize),
    Append { at_once: bool },
    Select,
    SetAcl,
}

#[derive(Debug, Clone)]
pub enum Step {
    Change {
        news: News,
        fate: Fate,
        status: bool,
    },
    Deliver(usize),
    Pump {
        pipe: u8,
        bytes: usize,
    },
    Quiet,
    /// Milliseconds, while bytes stay where they are.
    Wait(u64),
    /// Seconds, while bytes move.
    Sleep(u64),
    Health(bool),
    Stand(Registration),
    Resync,
    /// The upstream connection breaks, and so many attempts to get a new one fail.
    Break {
        failures: usize,
    },
    Unasked,
    /// The user's rights are to be found out.
    Check,
    /// So many questions for the user's rights are not answered.
    NoAnswer(u8),
    /// The user may not read any more.
    Deny,
    Say(Words),
}

/// What may go wrong besides the order of things.
#[derive(Debug, Clone, Copy)]
pub enum Weather {
    Fair,
    /// Connections break.
    Breaks,
    /// The server lags behind its events.
    Lags,
}

pub fn profile(weather: Weather) -> impl Strategy<Value = Profile> {
    let acl = prop::bool::weighted(0.8);
    let offers =
        (any::<bool>(), prop::bool::weighted(0.8), prop::bool::weighted(0.8), any::<bool>(), any::<bool>(), acl).prop_map(
            |(esearch, idle, namespace, sasl_ir, condstore, acl)| Offers { esearch, idle, namespace, sasl_ir, condstore, acl },
        );
    let lag = match weather {
        Weather::Lags => prop_oneof![Just(30), Just(700), Just(4_000), Just(14_000)].boxed(),
        _ => Just(0).boxed(),
    };
    let reentry = match weather {
        Weather::Breaks => Just(true).boxed(),
        _ => any::<bool>().boxed(),
    };
    (any::<u64>(), offers, any::<[bool; 6]>(), reentry, lag).prop_map(
        |(seed, offers, [condstore, qresync, examine, shared, parks, asks], reentry, lag)| Profile {
            seed,
            offers,
            condstore,
            qresync: condstore && qresync,
            examine,
            shared: shared && offers.namespace,
            asks: shared && offers.namespace && asks,
            reentry,
            parks,
            lag: Duration::from_millis(lag),
        },
    )
}

fn news() -> impl Strategy<Value = News> {
    prop_oneof![
        4 => (1..4usize).prop_map(News::Append),
        4 => (0..16usize, 1..4usize).prop_map(|(at, count)| News::Expunge { at, count }),
        5 => (0..16usize, 1..16u8, any::<[bool; 3]>())
            .prop_map(|(at, flags, [set, whole, modseq])| News::Flag { at, flags, set, whole, modseq }),
        1 => Just(News::Vague),
    ]
}

fn words() -> impl Strategy<Value = Words> {
    prop_oneof![
        12 => Just(Words::Idle),
        4 => Just(Words::Done),
        1 => Just(Words::Nonsense),
        2 => Just(Words::Noop),
        1 => Just(Words::UidFetch),
        4 => (0..16usize).prop_map(Words::Fetch),
        2 => (0..16usize).prop_map(Words::Body),
        1 => (0..16usize).prop_map(Words::Store),
        1 => any::<bool>().prop_map(|at_once| Words::Append { at_once }),
        1 => Just(Words::Select),
        1 => Just(Words::SetAcl),
    ]
}

fn step(weather: Weather) -> impl Strategy<Value = Step> {
    let breaks = if matches!(weather, Weather::Breaks) { 3 } else { 0 };
    let fate = prop_oneof![4 => Just(Fate::Now), 5 => Just(Fate::Once), 2 => Just(Fate::Twice), 5 => Just(Fate::Lost)];
    let standing = prop_oneof![
        6 => Just(Registration::Registered),
        6 => Just(Registration::Settled),
        1 => Just(Registration::Unavailable),
    ];
    let step = prop_oneof![
        24 => (news(), fate, any::<bool>()).prop_map(|(news, fate, status)| Step::Change { news, fate, status }),
        8 => (0..4usize).prop_map(Step::Deliver),
        12 => (0..3u8, 1..60usize).prop_map(|(pipe, bytes)| Step::Pump { pipe, bytes }),
        12 => Just(Step::Quiet),
        4 => (1..300u64).prop_map(Step::Wait),
        2 => (1..50u64).prop_map(Step::Sleep),
        2 => prop::bool::weighted(0.7).prop_map(Step::Health),
        10 => standing.prop_map(Step::Stand),
        1 => Just(Step::Resync),
        3 => Just(Step::Unasked),
        4 => Just(Step::Check),
        5 => (1..4u8).prop_map(Step::NoAnswer),
        1 => prop::bool::weighted(0.2).prop_map(|denied| if denied { Step::Deny } else { Step::Check }),
        16 => words().prop_map(Step::Say),
    ];
    prop_oneof![100 - breaks => step, breaks => (0..4usize).prop_map(|failures| Step::Break { failures })]
}

pub fn steps(weather: Weather) -> impl Strategy<Value = Vec<Step>> {
    prop::collection::vec(step(weather), 1..70)
}
