//! The table of transitions, a test a row.

use super::*;

/// Where a row begins or ends: what is known, and what is being asked.
type Place = (What, Asking);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum What {
    Unknown,
    Known(Rights),
    Undecidable,
}

use Asking::{Nobody, SessionUnaware, UnderWay};
use Effect::{Changed, Failed, Same, Stale};
use On::{Answer, Aware, Doubt, GiveUp, Later, Lose, OldAnswer, Report, Want};
use What::{Known, Undecidable, Unknown};

const READ: Rights = Rights::READ;
const LOOKUP: Rights = Rights::LOOKUP;
const NONE: Rights = Rights::NONE;

fn away() -> NoAnswer {
    NoAnswer::Failed("away".to_owned())
}

/// What happens, and what it says.
enum On {
    Doubt(bool),
    Lose,
    Want(bool),
    Aware,
    Answer(Result<Rights, NoAnswer>, Effect),
    /// To a question from before a doubt.
    OldAnswer(Result<Rights, NoAnswer>, Effect),
    Report(Rights, Effect),
    GiveUp,
    /// So many seconds after the last question: asked for again after 60, forgotten after 300.
    Later(u64, Age),
}

fn place(state: &State) -> Place {
    let what = match state.knowledge() {
        Knowledge::Unknown => Unknown,
        Knowledge::Known { rights, .. } => Known(rights),
        Knowledge::Undecidable { .. } => Undecidable,
    };
    (what, state.asking)
}

fn row(asker: Asker, from: Place, on: On, to: Place) {
    let now = Instant::now();
    let mut state = State::new(asker);
    let knowledge = match from.0 {
        Unknown => Knowledge::Unknown,
        Known(rights) => Knowledge::Known { rights, asked_at: now },
        Undecidable => Knowledge::Undecidable { asked_at: now },
    };
    (state.knowledge, state.asking) = (knowledge, from.1);
    match on {
        Doubt(begin) => assert_eq!(state.doubt(Cause::Found), begin),
        Lose => state.lose(now),
        Want(begin) => assert_eq!(state.want(), begin),
        Aware => state.session_is_aware(),
        Answer(answer, says) => assert_eq!(state.answer(state.question(now), answer), says),
        OldAnswer(answer, says) => {
            let question = state.question(now);
            state.doubts += 1;
            assert_eq!(state.answer(question, answer), says);
        }
        Report(rights, says) => assert_eq!(state.report(now, rights), says),
        GiveUp => state.give_up(),
        Later(seconds, says) => {
            let [then, recheck, longest] = [seconds, 60, 300].map(Duration::from_secs);
            let says = if let Age::Due(_) = says { Age::Due(now) } else { says };
            assert_eq!(state.age(now + then, recheck, longest), says);
        }
    }
    assert_eq!(place(&state), to);
}

macro_rules! rows {
    ($($name:ident: $asker:ident, $from:expr, $on:expr => $to:expr;)*) => {
        $(#[test]
        fn $name() {
            row(Asker::$asker, $from, $on, $to);
        })*
    };
}

rows! {
    wanted_and_unknown: Source, (Unknown, Nobody), Want(true) => (Unknown, UnderWay);
    wanted_again: Source, (Unknown, UnderWay), Want(false) => (Unknown, UnderWay);
    wanted_anew: Source, (Known(READ), Nobody), Want(true) => (Known(READ), UnderWay);
    wanted_though_undecidable: Source, (Undecidable, Nobody), Want(true) => (Undecidable, UnderWay);
    wanted_of_a_session: Session, (Unknown, Nobody), Want(true) => (Unknown, SessionUnaware);
    the_session_is_aware: Session, (Unknown, SessionUnaware), Aware => (Unknown, UnderWay);
    the_session_was_not_asked: Session, (Known(READ), Nobody), Aware => (Known(READ), Nobody);

    answered: Source, (Unknown, UnderWay), Answer(Ok(READ), Changed) => (Known(READ), Nobody);
    answered_the_same: Source, (Known(READ), UnderWay), Answer(Ok(READ), Same) => (Known(READ), Nobody);
    answered_otherwise: Source, (Known(READ), UnderWay), Answer(Ok(LOOKUP), Changed) => (Known(LOOKUP), Nobody);
    decided_after_all: Source, (Undecidable, UnderWay), Answer(Ok(NONE), Changed) => (Known(NONE), Nobody);
    not_to_be_decided: Source, (Unknown, UnderWay), Answer(Err(NoAnswer::Undecidable), Changed) => (Undecidable, Nobody);
    no_longer_to_be_decided: Source, (Known(READ), UnderWay), Answer(Err(NoAnswer::Undecidable), Changed) => (Undecidable, Nobody);
    no_answer: Source, (Unknown, UnderWay), Answer(Err(away()), Failed(1)) => (Unknown, UnderWay);
    no_answer_while_known: Source, (Known(READ), UnderWay), Answer(Err(away()), Failed(1)) => (Known(READ), Nobody);
    no_answer_while_undecidable: Source, (Undecidable, UnderWay), Answer(Err(away()), Failed(1)) => (Unknown, UnderWay);
    an_old_answer: Source, (Unknown, UnderWay), OldAnswer(Ok(READ), Stale) => (Unknown, UnderWay);
    an_old_refusal: Source, (Unknown, UnderWay), OldAnswer(Err(NoAnswer::Undecidable), Stale) => (Unknown, UnderWay);
    given_up: Source, (Unknown, UnderWay), GiveUp => (Unknown, Nobody);

    doubted: Source, (Known(READ), Nobody), Doubt(true) => (Unknown, UnderWay);
    doubted_while_asked: Source, (Known(READ), UnderWay), Doubt(false) => (Unknown, UnderWay);
    doubted_before_anything_was_known: Source, (Unknown, UnderWay), Doubt(false) => (Unknown, UnderWay);
    doubted_where_undecidable: Source, (Undecidable, Nobody), Doubt(true) => (Unknown, UnderWay);
    doubted_of_a_session: Session, (Known(READ), Nobody), Doubt(true) => (Unknown, SessionUnaware);
    doubted_while_the_session_asks: Session, (Unknown, UnderWay), Doubt(true) => (Unknown, SessionUnaware);

    reported: Session, (Unknown, UnderWay), Report(READ, Changed) => (Known(READ), Nobody);
    reported_unasked: Session, (Known(READ), Nobody), Report(NONE, Changed) => (Known(NONE), Nobody);
    reported_the_same: Session, (Known(READ), UnderWay), Report(READ, Same) => (Known(READ), Nobody);
    reported_too_early: Session, (Unknown, SessionUnaware), Report(READ, Stale) => (Unknown, SessionUnaware);
    lost_by_an_acl_change: Session, (Known(READ), Nobody), Lose => (Known(NONE), SessionUnaware);
    lost_while_the_session_asks: Session, (Unknown, UnderWay), Lose => (Known(NONE), SessionUnaware);
    a_loss_is_not_undone_by_an_old_report: Session, (Known(NONE), SessionUnaware), Report(READ, Stale) => (Known(NONE), SessionUnaware);

    young: Source, (Known(READ), Nobody), Later(59, Age::Fresh) => (Known(READ), Nobody);
    to_be_confirmed: Source, (Known(READ), Nobody), Later(60, Age::Due(Instant::now())) => (Known(READ), Nobody);
    too_old: Source, (Known(READ), UnderWay), Later(300, Age::Expired) => (Unknown, UnderWay);
    undecidable_for_a_while: Source, (Undecidable, Nobody), Later(59, Age::Fresh) => (Undecidable, Nobody);
    undecidable_and_to_be_asked_again: Source, (Undecidable, Nobody), Later(400, Age::Due(Instant::now())) => (Undecidable, Nobody);
    nothing_known_has_no_age: Source, (Unknown, UnderWay), Later(400, Age::Unknown) => (Unknown, UnderWay);
}

#[test]
fn failures_are_counted_until_there_is_an_answer() {
    let (mut state, now) = (State::new(Asker::Source), Instant::now());
    for times in 1..4 {
        assert_eq!(state.answer(state.question(now), Err(away())), Failed(times));
    }
    state.answer(state.question(now), Ok(READ));
    assert_eq!(state.answer(state.question(now), Err(away())), Failed(1));
}

#[test]
fn what_was_announced_belongs_to_what_is_known_next() {
    let (mut state, now) = (State::new(Asker::Source), Instant::now());
    state.answer(state.question(now), Ok(READ));
    assert_eq!(state.take_cause(), Some((READ, Cause::Announced)), "what was so from the start needs no announcement");
    state.doubt(Cause::Announced);
    state.doubt(Cause::Found);
    assert_eq!(state.take_cause(), None, "whoever looks now leaves it to whoever looks then");
    state.answer(state.question(now), Ok(NONE));
    assert_eq!(state.take_cause(), Some((NONE, Cause::Announced)));
    assert_eq!(state.take_cause(), Some((NONE, Cause::Found)));
}

#[test]
fn a_first_answer_that_denies_reading_is_found_where_reading_was_presumed() {
    let (mut state, now) = (State::new(Asker::Source), Instant::now());
    state.presume_reading();
    state.answer(state.question(now), Ok(NONE));
    assert_eq!(state.take_cause(), Some((NONE, Cause::Found)));
    let mut state = State::new(Asker::Source);
    state.doubt(Cause::Announced);
    state.presume_reading();
    state.answer(state.question(now), Ok(NONE));
    assert_eq!(state.take_cause(), Some((NONE, Cause::Announced)), "it was announced before");
}

#[test]
fn an_outcome_is_as_old_as_its_question() {
    let (mut state, now) = (State::new(Asker::Source), Instant::now());
    let later = now + Duration::from_secs(1);
    assert_eq!(state.outcome(now), None);
    state.answer(state.question(now), Ok(READ));
    assert_eq!((state.outcome(now), state.outcome(later)), (Some(Ok(READ)), None));
    state.answer(state.question(later), Err(away()));
    assert_eq!((state.outcome(now), state.outcome(later)), (Some(Ok(READ)), Some(Err(away()))));
    state.answer(state.question(later), Err(NoAnswer::Undecidable));
    assert_eq!(state.outcome(later), Some(Err(NoAnswer::Undecidable)));
    state.doubt(Cause::Found);
    assert_eq!(state.outcome(now), None);
}
