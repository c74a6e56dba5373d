use roaring::RoaringBitmap;

use super::*;
use crate::mail::event::{FlagChange, NewMessage, Quota};
use crate::mail::flags::{Flag, Flags};
use crate::mail::ids::EventId;

const PLAIN: Features = Features { condstore: false, qresync: false, rev2: false };
const CONDSTORE: Features = Features { condstore: true, ..PLAIN };
const QRESYNC: Features = Features { condstore: true, qresync: true, rev2: false };

fn uid(number: u32) -> Uid {
    Uid::new(number).unwrap()
}

fn uids(numbers: impl IntoIterator<Item = u32>) -> Vec<Uid> {
    numbers.into_iter().map(uid).collect()
}

fn set(numbers: impl IntoIterator<Item = u32>) -> RoaringBitmap {
    numbers.into_iter().collect()
}

fn flags(names: &str) -> Flags {
    let (flags, all) = Flags::sift(names.split_whitespace());
    assert!(all, "{names}");
    flags
}

fn keywords() -> Keywords {
    let known = flags("\\Answered \\Deleted \\Flagged \\Seen $Forwarded");
    Keywords { flags: known.clone(), permanent: Some(PermanentFlags { flags: known, any: true }) }
}

/// Messages 1 to 10, next UID 11, UIDVALIDITY 7, HIGHESTMODSEQ 100.
fn view(features: Features) -> View {
    View::new(set(1..=10), 11, UidValidity::new(7), Some(ModSeq(100)), keywords(), features)
}

fn event(change: Change) -> Event {
    Event { id: EventId::now(), uidvalidity: UidValidity::new(7), status: None, change, ..crate::mail::codec::tests::sample() }
}

fn append(numbers: impl IntoIterator<Item = u32>) -> Event {
    event(Change::MessageAppend { messages: uids(numbers).into_iter().map(NewMessage::new).collect() })
}

fn expunge(numbers: impl IntoIterator<Item = u32>) -> Event {
    event(Change::MessageExpunge { uids: uids(numbers), modseq: None })
}

/// The complete set of one message.
fn flagged(number: u32, names: &str, modseq: Option<u64>) -> Event {
    let flags = flags(names);
    let change = FlagChange { uid: uid(number), changed: flags.clone(), flags: Some(flags), modseq: modseq.map(ModSeq) };
    event(Change::FlagsSet { messages: vec![change] })
}

fn with_status(event: Event, messages: u32, uidnext: u32) -> Event {
    let status = Status { messages: Some(messages), uidnext: Some(uidnext), ..Status::default() };
    Event { status: Some(status), ..event }
}

/// One line a tell, as a wire would have it.
fn lines(tell: &[Tell]) -> Vec<String> {
    let names = |flags: &Flags| flags.iter().map(Flag::as_str).collect::<Vec<_>>().join(" ");
    let line = |tell: &Tell| match tell {
        Tell::Flags(flags) => format!("FLAGS ({})", names(flags)),
        Tell::PermanentFlags(PermanentFlags { flags, any }) => {
            format!("PERMANENTFLAGS ({}{})", names(flags), if *any { " \\*" } else { "" })
        }
        Tell::Fetch { seq, uid, flags, modseq } => {
            let modseq = modseq.map(|modseq| format!(" MODSEQ {}", modseq.0)).unwrap_or_default();
            format!("{seq} FETCH UID {uid} ({}){modseq}", names(flags))
        }
        Tell::Expunge(seq) => format!("{seq} EXPUNGE"),
        Tell::Vanished(set) => format!("VANISHED {:?}", set.iter().collect::<Vec<_>>()),
        Tell::Exists(count) => format!("{count} EXISTS"),
    };
    tell.iter().map(line).collect()
}

/// Applies an event that must come to tells and nothing else.
fn tells(view: &mut View, event: &Event) -> Vec<String> {
    let applied = view.apply(event, true);
    assert_eq!((applied.ask, applied.then), (RoaringBitmap::new(), Then::Nothing), "{event:?}");
    lines(&applied.tell)
}

#[test]
fn numbers_are_ranks() {
    let view = View::new(set([3, 5, 9, 70_000]), 70_001, None, None, Keywords::default(), PLAIN);
    assert_eq!((view.len(), view.is_empty(), view.uidnext()), (4, false, 70_001));
    assert_eq!((view.seq(uid(9)), view.seq(uid(4)), view.uid(4)), (Some(3), None, Some(uid(70_000))));
    assert_eq!((view.uid(0), view.uid(5)), (None, None));
    assert!(view.contains(uid(5)) && !view.is_doubtful());
}

#[test]
fn the_next_uid_is_above_all_that_are_held() {
    let view = View::new(set([3, 5]), 1, None, None, Keywords::default(), PLAIN);
    assert_eq!(view.uidnext(), 6);
}

// New messages.

#[test]
fn new_messages_are_told_once_for_all() {
    assert_eq!(tells(&mut view(PLAIN), &append(11..=13)), ["13 EXISTS"]);
}

#[test]
fn what_is_held_or_was_expunged_is_no_news() {
    let mut view = view(PLAIN);
    tells(&mut view, &expunge([4]));
    for number in [4, 7] {
        assert_eq!(tells(&mut view, &append([number])), [""; 0], "UID {number}");
    }
    assert_eq!(tells(&mut view, &append([7, 11])), ["10 EXISTS"]);
    assert_eq!(tells(&mut view, &append([7, 11])), [""; 0]);
}

#[test]
fn a_message_above_a_hole_is_told_and_the_hole_is_doubted() {
    let mut view = view(PLAIN);
    let applied = view.apply(&append([12]), true);
    assert_eq!((lines(&applied.tell), applied.then), (vec!["11 EXISTS".to_owned()], Then::Check));
    assert!(view.is_doubtful());
    // The other origin's event was only late: one more, and which is which the client cannot know
    // yet.
    assert_eq!(tells(&mut view, &append([11])), ["12 EXISTS"]);
    assert_eq!((view.uid(11), view.uid(12), view.is_doubtful()), (Some(uid(11)), Some(uid(12)), false));
}

#[test]
fn a_hole_that_the_count_proves_is_not_doubted_but_may_still_be_filled() {
    let mut view = view(PLAIN);
    assert_eq!(tells(&mut view, &with_status(append([12]), 11, 13)), ["11 EXISTS"]);
    assert!(!view.is_doubtful());
    // The count had fitted by chance: 11 came, 3 went, and both events are late.
    let applied = view.apply(&with_status(expunge([3]), 10, 12), true);
    assert_eq!((lines(&applied.tell), applied.then), (vec!["3 EXPUNGE".to_owned()], Then::Check));
    assert_eq!(tells(&mut view, &with_status(append([11]), 11, 12)), ["11 EXISTS"]);
}

#[test]
fn nothing_but_the_count_is_told_above_a_hole() {
    let mut view = view(PLAIN);
    view.apply(&append([12]), true);
    assert_eq!(view.apply(&flagged(12, "\\Seen", None), true).tell, []);
    assert_eq!(view.tell_flags(&[(uid(12), flags("\\Seen"), None)]), []);
    view.apply(&append([11]), true);
    assert_eq!(tells(&mut view, &flagged(12, "\\Seen", None)), ["12 FETCH UID 12 (\\Seen)"]);
}

#[test]
fn the_highest_uid_of_all_is_a_message_like_others() {
    let mut view = View::new(set([1]), u32::MAX, None, None, keywords(), PLAIN);
    let applied = view.apply(&append([u32::MAX]), true);
    assert_eq!(lines(&applied.tell), ["2 EXISTS"]);
    assert_eq!(tells(&mut view, &flagged(u32::MAX, "\\Seen", None)), [format!("2 FETCH UID {} (\\Seen)", u32::MAX)]);
    assert_eq!(tells(&mut view, &expunge([u32::MAX])), ["2 EXPUNGE"]);
    assert_eq!(tells(&mut view, &append([u32::MAX])), [""; 0]);
}

// Expunged messages.

#[test]
fn expunged_messages_go_highest_first() {
    let mut view = view(PLAIN);
    assert_eq!(tells(&mut view, &expunge([2, 3, 9])), ["9 EXPUNGE", "3 EXPUNGE", "2 EXPUNGE"]);
    assert_eq!((view.len(), view.uid(2)), (7, Some(uid(4))));
    assert_eq!(tells(&mut view, &expunge([2, 3, 9])), [""; 0]);
}

#[test]
fn with_qresync_they_vanish() {
    let mut view = view(QRESYNC);
    assert_eq!(tells(&mut view, &expunge([9, 2, 3])), ["VANISHED [2, 3, 9]"]);
    assert_eq!(tells(&mut view, &expunge([2, 9])), [""; 0]);
}

#[test]
fn an_expunge_that_overtook_the_arrival_makes_it_no_news() {
    let mut view = view(PLAIN);
    assert_eq!(tells(&mut view, &expunge([11])), [""; 0]);
    assert_eq!(tells(&mut view, &append([11])), [""; 0]);
    assert_eq!(tells(&mut view, &append([12])), ["11 EXISTS"]);
}

#[test]
fn a_message_above_a_hole_that_is_gone_does_not_come_back() {
    let mut view = view(PLAIN);
    view.apply(&append([13]), true);
    assert_eq!(lines(&view.apply(&expunge([13]), true).tell), ["11 EXPUNGE"]);
    assert_eq!(view.apply(&append([13]), true).tell, []);
    assert_eq!(lines(&view.apply(&append([11, 12]), true).tell), ["12 EXISTS"]);
    assert!(!view.is_doubtful());
}

#[test]
fn what_is_remembered_above_a_hole_is_bounded() {
    let mut view = view(PLAIN);
    let applied = view.apply(&expunge((0..=4096).map(|number| 20 + 2 * number)), true);
    assert_eq!(applied, Applied { then: Then::Reconcile(Why::TooMuchInDoubt), ..Applied::default() });
    assert!(view.reconcile(&set(1..=10), 20_000, &[]).is_level());
    assert_eq!(tells(&mut view, &expunge([20])), [""; 0]);
}

// Flags.

#[test]
fn a_complete_set_is_told() {
    let mut view = view(PLAIN);
    tells(&mut view, &expunge([1]));
    assert_eq!(tells(&mut view, &flagged(5, "\\Seen", None)), ["4 FETCH UID 5 (\\Seen)"]);
    assert_eq!(tells(&mut view, &flagged(1, "\\Seen", None)), [""; 0]);
}

#[test]
fn an_incomplete_set_is_asked_for() {
    let mut view = view(PLAIN);
    let change = |number| FlagChange { uid: uid(number), changed: flags("\\Seen"), flags: None, modseq: None };
    let applied = view.apply(&event(Change::FlagsClear { messages: vec![change(3), change(99), change(4)] }), true);
    assert_eq!((applied.tell, applied.ask), (vec![], set([3, 4])));
    let told = view.tell_flags(&[(uid(3), flags(""), None), (uid(98), flags("\\Seen"), None), (uid(4), flags("\\Seen"), None)]);
    assert_eq!(lines(&told), ["3 FETCH UID 3 ()", "4 FETCH UID 4 (\\Seen)"]);
}

#[test]
fn one_users_flags_are_not_anothers() {
    let applied = view(PLAIN).apply(&flagged(5, "\\Seen", Some(101)), false);
    assert_eq!(applied, Applied { ask: set([5]), ..Applied::default() });
}

#[test]
fn with_condstore_a_change_without_modseq_is_asked_for() {
    for features in [CONDSTORE, QRESYNC] {
        let mut view = view(features);
        assert_eq!(view.apply(&flagged(5, "\\Seen", None), true), Applied { ask: set([5]), ..Applied::default() });
        assert_eq!(tells(&mut view, &flagged(5, "\\Seen", Some(101))), ["5 FETCH UID 5 (\\Seen) MODSEQ 101"]);
    }
}

#[test]
fn without_condstore_no_modseq_is_told() {
    assert_eq!(tells(&mut view(PLAIN), &flagged(5, "\\Seen", Some(101))), ["5 FETCH UID 5 (\\Seen)"]);
}

#[test]
fn what_the_snapshot_has_is_no_news() {
    let mut view = view(CONDSTORE);
    assert_eq!(tells(&mut view, &flagged(5, "\\Seen", Some(100))), [""; 0]);
    assert_eq!(view.apply(&flagged(5, "\\Seen", Some(100)), false), Applied::default());
}

#[test]
fn old_flags_are_never_told_after_newer_ones() {
    let mut view = view(CONDSTORE);
    assert_eq!(tells(&mut view, &flagged(5, "\\Seen", Some(102))), ["5 FETCH UID 5 (\\Seen) MODSEQ 102"]);
    assert_eq!(tells(&mut view, &flagged(5, "\\Seen", Some(102))), [""; 0]);
    assert_eq!(tells(&mut view, &flagged(5, "\\Flagged", Some(101))), [""; 0]);
    assert_eq!(view.tell_flags(&[(uid(5), flags("\\Flagged"), Some(ModSeq(101)))]), []);
    // Another message of the same transaction.
    assert_eq!(tells(&mut view, &flagged(6, "\\Seen", Some(102))), ["6 FETCH UID 6 (\\Seen) MODSEQ 102"]);
    // Late, but news of this message.
    assert_eq!(tells(&mut view, &flagged(7, "\\Seen", Some(101))), ["7 FETCH UID 7 (\\Seen) MODSEQ 101"]);
}

#[test]
fn what_is_no_longer_remembered_exactly_is_asked_for() {
    let mut view = view(CONDSTORE);
    for modseq in 101..=140 {
        tells(&mut view, &flagged(if modseq == 101 { 5 } else { 6 + modseq as u32 % 2 }, "\\Seen", Some(modseq)));
    }
    // Two messages changed in turns: 5 has a group of its own still.
    assert_eq!(tells(&mut view, &flagged(5, "\\Seen", Some(101))), [""; 0]);
    let mut view = View::new(set(1..=50), 51, None, None, keywords(), CONDSTORE);
    for number in 1..=50 {
        tells(&mut view, &flagged(number, "\\Seen", Some(100 + u64::from(number))));
    }
    assert_eq!(view.apply(&flagged(5, "\\Seen", Some(104)), true), Applied { ask: set([5]), ..Applied::default() });
    assert_eq!(tells(&mut view, &flagged(5, "", Some(151))), ["5 FETCH UID 5 () MODSEQ 151"]);
    assert!(view.unanswered().is_empty());
}

#[test]
fn an_answer_from_before_the_change_tells_nothing() {
    let mut view = view(CONDSTORE);
    let change = FlagChange { uid: uid(5), changed: flags("\\Seen"), flags: None, modseq: Some(ModSeq(102)) };
    let asked = view.apply(&event(Change::FlagsSet { messages: vec![change] }), true).ask;
    assert_eq!((&asked, view.unanswered()), (&set([5]), asked.clone()));
    assert_eq!(view.tell_flags(&[(uid(5), flags(""), Some(ModSeq(90)))]), []);
    assert_eq!(view.unanswered(), asked);
    assert_eq!(lines(&view.tell_flags(&[(uid(5), flags("\\Seen"), Some(ModSeq(102)))])), ["5 FETCH UID 5 (\\Seen) MODSEQ 102"]);
    assert!(view.unanswered().is_empty());
}

#[test]
fn a_question_about_a_message_that_is_gone_is_dropped() {
    let mut view = view(PLAIN);
    let change = FlagChange { uid: uid(5), changed: flags("\\Seen"), flags: None, modseq: None };
    view.apply(&event(Change::FlagsSet { messages: vec![change] }), true);
    tells(&mut view, &expunge([5]));
    assert!(view.unanswered().is_empty());
}

#[test]
fn without_modseqs_an_event_that_comes_again_is_recognised() {
    let mut view = view(PLAIN);
    let (first, second) = (flagged(5, "\\Seen", None), flagged(5, "\\Flagged", None));
    assert_eq!(tells(&mut view, &first), ["5 FETCH UID 5 (\\Seen)"]);
    assert_eq!(tells(&mut view, &second), ["5 FETCH UID 5 (\\Flagged)"]);
    assert_eq!(tells(&mut view, &first), [""; 0]);
}

// Out of order.

const ALL: [Features; 3] = [PLAIN, CONDSTORE, QRESYNC];

/// What the server says of one message's flags: a modification sequence only where the client may
/// hear of one.
fn answer(view: &mut View, number: u32, names: &str, modseq: u64) -> Vec<String> {
    let modseq = Some(ModSeq(modseq)).filter(|_| view.features().fetch_has_modseq());
    lines(&view.tell_flags(&[(uid(number), flags(names), modseq)]))
}

#[test]
fn older_flags_are_not_told_because_newer_ones_came_while_the_number_was_not_final() {
    for features in ALL {
        // 12 exists above a hole, or has not been announced at all.
        for early in [vec![append([12])], vec![]] {
            let mut view = view(features);
            early.iter().for_each(|event| drop(view.apply(event, true)));
            assert_eq!(view.apply(&flagged(12, "\\Seen \\Flagged", Some(105)), true).tell, []);
            view.apply(&append([11, 12]), true);
            assert_eq!(tells(&mut view, &flagged(12, "\\Seen", Some(104))), [""; 0], "{features:?}");
            assert_eq!(tells(&mut view, &flagged(12, "\\Seen \\Flagged", Some(105))), [""; 0]);
            let told = tells(&mut view, &flagged(12, "", Some(106)));
            assert!(told[0].starts_with("12 FETCH UID 12 ()"), "{told:?}");
        }
    }
}

#[test]
fn what_is_not_whole_counts_too_while_the_number_is_not_final() {
    for features in ALL {
        let mut view = view(features);
        view.apply(&append([12]), true);
        let change = FlagChange { uid: uid(12), changed: flags("\\Flagged"), flags: None, modseq: Some(ModSeq(105)) };
        assert!(view.apply(&event(Change::FlagsSet { messages: vec![change] }), true).ask.is_empty());
        view.apply(&append([11]), true);
        assert_eq!(tells(&mut view, &flagged(12, "\\Seen", Some(104))), [""; 0]);
    }
}

#[test]
fn without_a_modseq_what_comes_behind_what_was_left_untold_is_a_guess() {
    for modseq in [None, Some(104)] {
        let mut view = view(PLAIN);
        view.apply(&append([12]), true);
        view.apply(&flagged(12, "\\Seen \\Flagged", None), true);
        view.apply(&append([11]), true);
        assert_eq!(tells(&mut view, &flagged(12, "\\Seen", modseq)), ["12 FETCH UID 12 (\\Seen)"]);
        assert_eq!((view.flags_to_compare(), view.guesses_flags()), (set([12]), true));
        assert_eq!(answer(&mut view, 12, "\\Seen \\Flagged", 105), ["12 FETCH UID 12 (\\Flagged \\Seen)"]);
        assert!(view.flags_to_compare().is_empty());
    }
}

#[test]
fn what_the_server_says_of_a_message_whose_number_is_not_final_is_remembered() {
    for features in ALL {
        let mut view = view(features);
        view.apply(&append([12]), true);
        assert_eq!(answer(&mut view, 12, "\\Seen \\Flagged", 105), [""; 0]);
        view.apply(&append([11]), true);
        let told = tells(&mut view, &flagged(12, "\\Seen", Some(104)));
        if features == PLAIN {
            assert_eq!((told.len(), view.flags_to_compare()), (1, set([12])));
        } else {
            assert_eq!(told, [""; 0], "{features:?}");
        }
    }
}

#[test]
fn a_plain_session_that_was_answered_asks_again() {
    let mut view = view(PLAIN);
    assert_eq!(answer(&mut view, 5, "\\Seen \\Flagged", 105), ["5 FETCH UID 5 (\\Flagged \\Seen)"]);
    // Older or newer: the answer does not say.
    let applied = view.apply(&flagged(5, "\\Seen", Some(104)), true);
    assert_eq!((applied, view.unanswered()), (Applied { ask: set([5]), ..Applied::default() }, set([5])));
    assert_eq!(answer(&mut view, 5, "\\Seen \\Flagged", 105), ["5 FETCH UID 5 (\\Flagged \\Seen)"]);
    assert!(view.unanswered().is_empty());
    // Of other messages it knows.
    assert_eq!(tells(&mut view, &flagged(6, "\\Seen", Some(104))), ["6 FETCH UID 6 (\\Seen)"]);
    tells(&mut view, &expunge([5]));
    assert_eq!(view.disorder(), None, "what is gone is forgotten");
}

#[test]
fn with_condstore_an_answer_has_its_place_in_the_order() {
    for features in [CONDSTORE, QRESYNC] {
        let mut view = view(features);
        answer(&mut view, 5, "\\Seen", 105);
        assert_eq!(tells(&mut view, &flagged(5, "", Some(104))), [""; 0]);
        assert_eq!(tells(&mut view, &flagged(5, "", Some(106))), ["5 FETCH UID 5 () MODSEQ 106"]);
    }
}

#[test]
fn where_something_came_out_of_order_flags_are_compared() {
    // Two without a modification sequence; one without, before or behind one that has it.
    for (first, second) in [(None, None), (Some(105), None), (None, Some(105))] {
        let mut view = view(PLAIN);
        tells(&mut view, &flagged(5, "\\Seen \\Flagged", first));
        assert!(view.flags_to_compare().is_empty() && !view.guesses_flags());
        assert_eq!(tells(&mut view, &flagged(5, "\\Seen", second)), ["5 FETCH UID 5 (\\Seen)"]);
        assert_eq!((view.flags_to_compare(), view.guesses_flags()), (set([5]), true), "{first:?} {second:?}");
        answer(&mut view, 5, "\\Seen \\Flagged", 105);
        assert_eq!((view.flags_to_compare(), view.guesses_flags()), (set([]), false));
    }
    for features in ALL {
        let mut view = view(features);
        tells(&mut view, &flagged(5, "\\Seen", Some(105)));
        tells(&mut view, &flagged(5, "\\Seen", Some(105)));
        assert!(view.flags_to_compare().is_empty(), "the same again is in order");
        tells(&mut view, &flagged(5, "", Some(104)));
        assert_eq!((view.flags_to_compare(), view.guesses_flags()), (set([5]), false));
        answer(&mut view, 5, "\\Seen", 105);
        assert!(view.flags_to_compare().is_empty());
    }
}

#[test]
fn a_whole_set_does_not_settle_what_is_owed_from_a_change_that_may_be_newer() {
    for features in [CONDSTORE, QRESYNC] {
        let mut view = view(features);
        view.apply(&flagged(5, "\\Seen \\Flagged", None), true);
        tells(&mut view, &flagged(5, "\\Seen", Some(104)));
        assert_eq!(view.unanswered(), set([5]));
        answer(&mut view, 5, "\\Seen \\Flagged", 105);
        assert!(view.unanswered().is_empty());
    }
}

#[test]
fn what_was_told_just_after_the_snapshot_can_be_doubted() {
    let mut view = view(CONDSTORE);
    tells(&mut view, &flagged(5, "\\Seen", Some(105)));
    view.doubt_flags([uid(5), uid(99)]);
    assert_eq!(view.flags_to_compare(), set([5]));
}

#[test]
fn a_list_of_flags_from_before_a_keyword_was_made_does_not_take_it_away() {
    let mut view = view(PLAIN);
    tells(&mut view, &flagged(5, "$Work", None));
    let old = "\\Answered \\Deleted \\Flagged \\Seen $Forwarded";
    let permanent = |names, any| KeywordList::Permanent(PermanentFlags { flags: flags(names), any });
    assert_eq!(view.merge_keywords(KeywordList::Flags(flags(old))), KeywordNews::Nothing);
    assert_eq!(view.merge_keywords(permanent(old, true)), KeywordNews::Nothing);
    // With something that is new as well.
    let merged = view.merge_keywords(KeywordList::Flags(flags("\\Seen $New")));
    assert_eq!(merged, KeywordNews::List(Tell::Flags(flags("\\Seen $Forwarded $New $Work"))));
    assert_eq!(view.merge_keywords(permanent("\\Seen", false)), KeywordNews::ServerLine, "rights can be lost");
    assert_eq!(tells(&mut view, &flagged(6, "$work", None)), ["6 FETCH UID 6 ($work)"]);
}

#[test]
fn flags_of_a_message_still_to_come_raise_a_doubt() {
    let mut view = view(PLAIN);
    let applied = view.apply(&flagged(11, "\\Seen", None), true);
    assert_eq!(applied, Applied { then: Then::Check, ..Applied::default() });
    assert_eq!(tells(&mut view, &append([11])), ["11 EXISTS"]);
}

#[test]
fn a_new_keyword_is_listed_before_it_is_used() {
    let mut view = view(PLAIN);
    let known = "$Forwarded $Work \\Answered \\Deleted \\Flagged \\Seen";
    assert_eq!(
        tells(&mut view, &flagged(5, "$Work \\Seen", None)),
        [format!("FLAGS ({known})"), format!("PERMANENTFLAGS ({known} \\*)"), "5 FETCH UID 5 ($Work \\Seen)".to_owned(),]
    );
    assert_eq!(tells(&mut view, &flagged(6, "$work", None)), ["6 FETCH UID 6 ($work)"]);
}

#[test]
fn several_new_keywords_of_one_event_are_listed_once() {
    let change = |number, names| FlagChange { uid: uid(number), changed: flags(names), flags: Some(flags(names)), modseq: None };
    let messages = vec![change(1, "$A"), change(2, "$B")];
    let told = tells(&mut view(PLAIN), &event(Change::FlagsSet { messages }));
    let known = "$A $B $Forwarded \\Answered \\Deleted \\Flagged \\Seen";
    assert_eq!(told[..2], [format!("FLAGS ({known})"), format!("PERMANENTFLAGS ({known} \\*)")]);
    assert_eq!(told[2..], ["1 FETCH UID 1 ($A)", "2 FETCH UID 2 ($B)"]);
}

#[test]
fn permanent_flags_are_told_only_where_they_change() {
    for permanent in [None, Some(PermanentFlags { flags: flags("\\Seen"), any: false })] {
        let keywords = Keywords { flags: flags("\\Seen"), permanent };
        let mut view = View::new(set(1..=3), 4, None, None, keywords, PLAIN);
        assert_eq!(tells(&mut view, &flagged(2, "$Work", None)), ["FLAGS ($Work \\Seen)", "2 FETCH UID 2 ($Work)"]);
    }
}

#[test]
fn recent_is_never_taken_from_an_event() {
    assert_eq!(tells(&mut view(PLAIN), &flagged(5, "\\Recent \\Seen", None)), ["5 FETCH UID 5 (\\Seen)"]);
    let answer = [(uid(5), flags("\\Recent"), None)];
    assert_eq!(lines(&view(PLAIN).tell_flags(&answer)), ["5 FETCH UID 5 (\\Recent)"]);
    let rev2 = Features { rev2: true, ..PLAIN };
    assert_eq!(lines(&view(rev2).tell_flags(&answer)), ["5 FETCH UID 5 ()"]);
}

#[test]
fn what_a_fetch_must_have() {
    assert_eq!([PLAIN, CONDSTORE, QRESYNC].map(Features::fetch_has_modseq), [false, true, true]);
    assert_eq!([PLAIN, CONDSTORE, QRESYNC].map(Features::fetch_has_uid), [false, false, true]);
    assert!(Features { rev2: true, ..PLAIN }.fetch_has_uid());
}

// The mailbox itself.

#[test]
fn another_uidvalidity_ends_the_view() {
    let newer = Event { uidvalidity: UidValidity::new(8), ..append([11]) };
    assert_eq!(view(PLAIN).apply(&newer, true).then, Then::Over(End::UidValidityChanged));
}

#[test]
fn an_event_of_a_mailbox_that_is_no_more_is_stale() {
    for change in [append([11]).change, Change::MailboxDelete, Change::MailboxChange] {
        let older = Event { uidvalidity: UidValidity::new(6), ..event(change) };
        let mut seen = view(PLAIN);
        assert_eq!((seen.apply(&older, true), seen), (Applied::default(), view(PLAIN)));
    }
    let unknown = Event { uidvalidity: None, ..append([11]) };
    assert_eq!(tells(&mut view(PLAIN), &unknown), ["11 EXISTS"]);
}

#[test]
fn what_happens_to_the_mailbox() {
    let to: MailboxPath = "#private:bob@x.org:Old".parse().unwrap();
    let quota = Quota { used: 1, limit: None };
    let acl = Change::AclChange { identifier: "anyone".to_owned(), rights: String::new() };
    let table = [
        (Change::MailboxDelete, Then::Over(End::Deleted)),
        (Change::MailboxRename { to: to.clone() }, Then::Reconcile(Why::Emptied)),
        (Change::MailboxChange, Then::Reconcile(Why::NoDetail)),
        (Change::MailboxCreate, Then::Nothing),
        (Change::MailboxSubscribe, Then::Nothing),
        (Change::MailboxUnSubscribe, Then::Nothing),
        (acl, Then::Nothing),
        (Change::QuotaChange(quota), Then::Nothing),
        (Change::QuotaExceed(quota), Then::Nothing),
        (Change::QuotaWithin(quota), Then::Nothing),
    ];
    for (change, then) in table {
        assert_eq!(view(PLAIN).apply(&event(change.clone()), true), Applied { then, ..Applied::default() }, "{change:?}");
    }
    // INBOX stays, but for an account with another name; any other mailbox goes.
    let new: MailboxPath = "#private:robert@x.org:INBOX".parse().unwrap();
    for (of, to) in [("#private:bob@x.org:Work", to), ("#private:bob@x.org:INBOX", new)] {
        let moved = Event { mailbox: of.parse().unwrap(), ..event(Change::MailboxRename { to: to.clone() }) };
        assert_eq!(view(PLAIN).apply(&moved, true).then, Then::Renamed(to), "{of}");
    }
}

// The count as a check.

#[test]
fn a_count_that_disagrees_is_looked_at_again() {
    for (messages, uidnext) in [(12, 12), (10, 12), (11, 13)] {
        let mut view = view(PLAIN);
        let applied = view.apply(&with_status(append([11]), messages, uidnext), true);
        assert_eq!((lines(&applied.tell), applied.then), (vec!["11 EXISTS".to_owned()], Then::Check), "{messages} {uidnext}");
        assert!(view.is_doubtful());
    }
}

#[test]
fn a_doubt_passes_when_the_other_event_comes() {
    let mut view = view(PLAIN);
    // Another origin expunged 5 before 11 came, and its event is on its way.
    assert_eq!(view.apply(&with_status(append([11]), 10, 12), true).then, Then::Check);
    assert_eq!(tells(&mut view, &with_status(expunge([5]), 9, 11)), ["5 EXPUNGE"]);
    assert!(!view.is_doubtful());
}

#[test]
fn an_older_count_is_no_evidence() {
    let mut view = view(PLAIN);
    tells(&mut view, &with_status(append([11]), 11, 12));
    // The next UID shows that it was taken before.
    assert_eq!(tells(&mut view, &with_status(flagged(3, "\\Seen", None), 10, 11)), ["3 FETCH UID 3 (\\Seen)"]);
}

#[test]
fn a_modseq_tells_which_count_is_newer() {
    let count = |event: Event, messages, modseq| {
        let status = Status { messages: Some(messages), uidnext: Some(11), highestmodseq: Some(ModSeq(modseq)), unseen: None };
        Event { status: Some(status), ..event }
    };
    let mut view = view(PLAIN);
    tells(&mut view, &count(expunge([5]), 9, 103));
    assert_eq!(tells(&mut view, &count(flagged(3, "\\Seen", None), 10, 102)), ["3 FETCH UID 3 (\\Seen)"]);
    assert!(!view.is_doubtful());
}

#[test]
fn a_count_is_forgotten_once_the_view_moves_on_without_one() {
    let mut view = view(PLAIN);
    tells(&mut view, &with_status(append([11]), 11, 12));
    assert_eq!(tells(&mut view, &append([12])), ["12 EXISTS"]);
    // But a doubt is not: something was missing before, and still is.
    view.apply(&with_status(append([13]), 14, 14), true);
    assert_eq!(view.apply(&append([14, 15]), true).then, Then::Check);
}

#[test]
fn a_next_uid_without_a_count_is_evidence_too() {
    let status = Status { uidnext: Some(13), ..Status::default() };
    let mut view = view(PLAIN);
    assert_eq!(view.apply(&Event { status: Some(status), ..append([11]) }, true).then, Then::Check);
    assert_eq!(tells(&mut view, &append([12])), ["12 EXISTS"]);
}

// Reconciling.

#[test]
fn a_difference_is_told_in_the_order_that_clients_know() {
    let mut view = view(PLAIN);
    let truth = set([1, 2, 4, 5, 6, 7, 8, 10, 12]);
    let changed = [(uid(5), flags("\\Seen"), None), (uid(9), flags("\\Seen"), None), (uid(12), flags("\\Seen"), None)];
    let reconciled = view.reconcile(&truth, 13, &changed);
    assert!(reconciled.is_level());
    let expected =
        ["5 FETCH UID 5 (\\Seen)", "9 FETCH UID 9 (\\Seen)", "9 EXPUNGE", "3 EXPUNGE", "9 EXISTS", "9 FETCH UID 12 (\\Seen)"];
    assert_eq!(lines(&reconciled.tell), expected);
    assert_eq!((view.uids().set(), view.uidnext(), view.is_doubtful()), (&truth, 13, false));
    assert_eq!(view.reconcile(&truth, 13, &[]), Reconciled::default());
}

#[test]
fn with_qresync_a_difference_vanishes() {
    let told = view(QRESYNC).reconcile(&set([1, 2]), 11, &[]).tell;
    assert_eq!(lines(&told), ["VANISHED [3, 4, 5, 6, 7, 8, 9, 10]"]);
}

#[test]
fn a_view_can_be_ahead_of_an_upstream_that_lags() {
    let mut view = view(PLAIN);
    tells(&mut view, &append([11]));
    let lagging = view.reconcile(&set(1..=10), 11, &[]);
    assert_eq!(lagging, Reconciled { ahead: set([11]), ..Reconciled::default() });
    assert!(!lagging.is_level() && view.len() == 11);
    assert_eq!(view.reconcile(&set(1..=11), 12, &[]), Reconciled::default());
    // The next UID shows that upstream has seen it come and go.
    assert_eq!(lines(&view.reconcile(&set(1..=10), 12, &[]).tell), ["11 EXPUNGE"]);
}

#[test]
fn a_message_that_upstream_has_not_seen_either_stays_in_doubt() {
    let mut view = view(PLAIN);
    view.apply(&flagged(11, "\\Seen", None), true);
    assert!(view.reconcile(&set(1..=10), 11, &[]).is_level());
    assert!(view.is_doubtful());
    assert!(view.reconcile(&set(1..=10), 12, &[]).is_level());
    assert!(!view.is_doubtful());
}

#[test]
fn what_the_client_was_told_is_gone_cannot_come_back() {
    let mut view = view(PLAIN);
    tells(&mut view, &expunge([4]));
    let lagging = view.reconcile(&set(1..=10), 11, &[]);
    assert_eq!(lagging, Reconciled { late: set([4]), ..Reconciled::default() });
    assert!(!lagging.is_level() && !view.contains(uid(4)));
    let truth = set([1, 2, 3, 5, 6, 7, 8, 9, 10]);
    assert!(view.reconcile(&truth, 11, &[]).is_level());
}

#[test]
fn an_arrival_that_was_overtaken_is_late_until_upstream_has_seen_it_go() {
    let mut view = view(PLAIN);
    tells(&mut view, &expunge([11]));
    assert_eq!(view.reconcile(&set(1..=11), 12, &[]), Reconciled { late: set([11]), ..Reconciled::default() });
    assert!(view.reconcile(&set(1..=10), 12, &[]).is_level());
}

#[test]
fn a_hole_is_filled_from_upstream() {
    let mut view = view(PLAIN);
    view.apply(&append([13]), true);
    let reconciled = view.reconcile(&set((1..=11).chain([13])), 14, &[(uid(13), flags("\\Seen"), None)]);
    assert_eq!(lines(&reconciled.tell), ["12 EXISTS", "12 FETCH UID 13 (\\Seen)"]);
    assert!(reconciled.is_level() && !view.is_doubtful());
    // And 12 will never be.
    assert_eq!(tells(&mut view, &append([12])), [""; 0]);
}

#[test]
fn a_copy_of_the_uids_shares_their_memory_until_they_differ() {
    let mut view = view(PLAIN);
    let mut upstream = view.uids().clone();
    assert!(std::ptr::eq(upstream.set(), view.uids().set()));
    tells(&mut view, &expunge([4]));
    assert_eq!((upstream.len(), view.len()), (10, 9));
    assert_eq!((upstream.remove_seq(4), upstream.remove_seq(11)), (Some(uid(4)), None));
    assert_eq!(&upstream, view.uids());
}

#[test]
fn many_numbers_at_once_are_the_same_as_one_by_one() {
    let held = Uids::new((1..200_000).filter(|number| number % 7 != 0).collect());
    for step in [1, 3, 50, 9_999, 150_000] {
        let asked: RoaringBitmap = (1..210_000).step_by(step).collect();
        let single: Vec<u32> = asked.iter().filter_map(|number| held.seq(uid(number))).collect();
        assert_eq!(held.seqs(&asked), single, "every {step}th");
    }
}

#[test]
fn packing_changes_nothing() {
    let mut held = Uids::new((1..=10_000).collect());
    for number in (1..=10_000).step_by(2) {
        held.remove_all(&set([number]));
    }
    assert_eq!((held.len(), held.seq(uid(10_000)), held.uid(5_000)), (5_000, Some(5_000), Some(uid(10_000))));
    assert_eq!(held, Uids::new((1..=10_000).filter(|number| number % 2 == 0).collect()));
}
