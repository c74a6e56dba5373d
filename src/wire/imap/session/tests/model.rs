//! A client, a server with any history, and everything between them that can go another way: they
//! agree.
//!
//! The client believes what it is told and nothing else. Each message has a keyword of its own, so
//! whoever tells flags under a wrong number is found out at once. A failed run prints its
//! transcript with `MODEL_TRANSCRIPT=1`; with `MODEL_CASES` there are as many cases as wanted.

mod chance;
mod client;
mod server;
mod steps;
mod store;
mod world;

use std::collections::BTreeMap;

use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use std::cell::RefCell;

use self::steps::{Profile, Step, Weather, profile, steps};
use self::world::{CATCH_UP, World};

/// What became of a run.
#[derive(Debug, PartialEq, Eq)]
enum Outcome {
    /// The client was there to the end.
    Whole,
    /// The session was ended before: why.
    Over(&'static str),
}

impl Outcome {
    fn reason(&self) -> &'static str {
        match self {
            Self::Whole => "whole",
            Self::Over(reason) => reason,
        }
    }
}

fn run(profile: &Profile, steps: &[Step]) -> Outcome {
    let mut world = World::new(profile);
    for step in steps {
        world.note(step);
        world.step(step);
        if let Some(reason) = world.ended {
            return Outcome::Over(reason);
        }
    }
    world.note(&"calm");
    world.calm_down();
    if let Some(reason) = world.ended {
        return Outcome::Over(reason);
    }
    assert!(world.client.only_idles(), "the client idles at last: {:?}", world.client.sent);
    world.assert_agreement();
    world.look_and_leave();
    match world.client.over {
        Some(_) => Outcome::Over(world.ended.unwrap_or_default()),
        None => Outcome::Whole,
    }
}

/// The same cases in every normal run, so that it says something of the code and nothing of chance;
/// others each time when a number is asked for.
fn runner(number: u32) -> TestRunner {
    let config = |cases| Config { cases, failure_persistence: None, max_shrink_iters: 20_000, ..Config::default() };
    match std::env::var("MODEL_CASES").ok().and_then(|text| text.parse().ok()) {
        Some(cases) => TestRunner::new(config(cases)),
        None => TestRunner::new_with_rng(config(number), TestRng::deterministic_rng(RngAlgorithm::ChaCha)),
    }
}

/// Runs many histories; `may_end` says which ones the gateway may end, and for what reason.
fn check(weather: Weather, number: u32, may_end: impl Fn(&Profile, &'static str) -> bool) {
    let ends = RefCell::new(BTreeMap::<&'static str, u32>::new());
    let result = runner(number).run(&(profile(weather), steps(weather)), |(profile, steps)| {
        let outcome = run(&profile, &steps);
        if let Outcome::Over(reason) = outcome {
            assert!(profile.asks && reason == "revoked" || may_end(&profile, reason), "ended: {reason}");
        }
        *ends.borrow_mut().entry(outcome.reason()).or_default() += 1;
        Ok(())
    });
    if let Err(fault) = result {
        panic!("{fault}");
    }
    let ends = ends.into_inner();
    eprintln!("{weather:?}: {ends:?}");
    let whole = ends.get(Outcome::Whole.reason()).copied().unwrap_or_default();
    assert!(whole * 10 >= ends.values().sum::<u32>() * 8, "most sessions live: {ends:?}");
}

#[test]
fn with_a_server_that_keeps_up_nothing_ever_ends_a_session() {
    check(Weather::Fair, 256, |_, _| false);
}

#[test]
fn a_connection_that_breaks_costs_at_most_the_session() {
    check(Weather::Breaks, 192, |_, reason| matches!(reason, "upstream_closed" | "upstream_lags"));
}

#[test]
fn a_server_that_lags_for_too_long_costs_at_most_the_session() {
    check(Weather::Lags, 192, |profile, reason| profile.lag > CATCH_UP && matches!(reason, "upstream_lags" | "cannot_be_told"));
}
