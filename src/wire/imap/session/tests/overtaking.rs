//! Events that overtake each other, or the server's own word: the client is not left with old
//! flags.

use super::*;

const BOTH: [&str; 2] = ["\\Seen", "\\Flagged"];

fn plain() -> Play {
    Play::new(rules()).logged_in().selected().idling()
}

fn enabled(what: &str) -> Play {
    let mut play = Play::new(rules()).logged_in();
    play.client(&format!("e ENABLE {what}\r\n"));
    play.server(&format!("* ENABLED {what}\r\ne OK\r\n"));
    play.selected().idling()
}

/// The client ends IDLE, and the server is asked for flags besides numbers; the first question has
/// this number.
#[track_caller]
fn done_compares(play: &mut Play, number: u32, flags: &str) {
    play.client("DONE\r\n");
    let (uids, fetch) = (number + 1, number + 2);
    play.asks(&format!(
        "mailpush{number} NOOP\r\nmailpush{uids} UID SEARCH RETURN (ALL) ALL\r\nmailpush{fetch} UID FETCH {flags}\r\n"
    ));
}

#[test]
fn flags_left_untold_above_a_hole_are_not_undone_by_older_ones() {
    for mut play in [plain(), enabled("CONDSTORE"), enabled("QRESYNC")] {
        play.event(appended(&[7]), None);
        play.event(flagged(7, &BOTH, true, Some(105)), None);
        play.event(appended(&[6]), None);
        play.hears("* 4 EXISTS\r\n* 5 EXISTS\r\n");
        play.event(flagged(7, &["\\Seen"], true, Some(104)), None);
        play.hears("");
    }
}

#[test]
fn a_plain_session_that_was_answered_asks_again_for_a_later_event() {
    let mut play = plain();
    // The server tells it by itself, and with no modification sequence.
    play.server("* 2 FETCH (FLAGS (\\Seen \\Flagged))\r\n");
    play.hears("* 2 FETCH (FLAGS (\\Flagged \\Seen))\r\n");
    play.event(flagged(3, &["\\Seen"], true, Some(104)), None);
    play.hears("");
    play.asks("mailpush4 NOOP\r\nmailpush5 UID SEARCH RETURN (ALL) ALL\r\nmailpush6 UID FETCH 3 (FLAGS)\r\n");
    play.server("mailpush4 OK\r\n* ESEARCH (TAG \"mailpush5\") UID ALL 1,3,5\r\nmailpush5 OK\r\n");
    play.server("* 2 FETCH (UID 3 FLAGS (\\Seen \\Flagged))\r\nmailpush6 OK\r\n");
    play.hears("");
    play.client("DONE\r\n");
    play.asks("mailpush7 NOOP\r\nmailpush8 UID SEARCH RETURN (ALL) ALL\r\n");
}

#[test]
fn what_came_out_of_order_is_compared_before_done_is_answered() {
    for (mut play, items) in
        [(plain(), "(FLAGS)"), (enabled("CONDSTORE"), "(FLAGS MODSEQ)"), (enabled("QRESYNC"), "(FLAGS MODSEQ)")]
    {
        play.event(flagged(3, &BOTH, true, Some(105)), None);
        play.event(flagged(3, &["\\Seen"], true, Some(104)), None);
        play.session.out.to_client.clear();
        done_compares(&mut play, 4, &format!("3 {items}"));
        play.server("mailpush4 OK\r\n* ESEARCH (TAG \"mailpush5\") UID ALL 1,3,5\r\nmailpush5 OK\r\n");
        let modseq = if items.contains("MODSEQ") { " MODSEQ (105)" } else { "" };
        play.server(&format!("* 2 FETCH (UID 3 FLAGS (\\Seen \\Flagged){modseq})\r\nmailpush6 OK\r\n"));
        play.hears("i OK Idle completed\r\n");
    }
}

#[test]
fn where_no_order_is_known_the_server_is_asked_soon_and_before_done() {
    let guess = |mut play: Play| {
        play.event(flagged(3, &BOTH, true, None), None);
        play.event(flagged(3, &["\\Seen"], true, None), None);
        play.hears("* 2 FETCH (FLAGS (\\Flagged \\Seen))\r\n* 2 FETCH (FLAGS (\\Seen))\r\n");
        play.asks("");
        play
    };
    done_compares(&mut guess(plain()), 4, "3 (FLAGS)");
    let mut play = guess(plain());
    play.passes(Duration::from_millis(200));
    play.asks("mailpush4 NOOP\r\nmailpush5 UID SEARCH RETURN (ALL) ALL\r\nmailpush6 UID FETCH 3 (FLAGS)\r\n");
    play.server("mailpush4 OK\r\n* ESEARCH (TAG \"mailpush5\") UID ALL 1,3,5\r\nmailpush5 OK\r\n");
    play.server("* 2 FETCH (UID 3 FLAGS (\\Seen \\Flagged))\r\nmailpush6 OK\r\n");
    play.hears("* 2 FETCH (FLAGS (\\Flagged \\Seen))\r\n");
    // Nor is DONE with the next IDLE behind it answered before.
    let mut play = guess(plain());
    play.client("DONE\r\nj IDLE\r\n");
    play.hears("");
}

#[test]
fn what_an_event_tells_just_after_the_snapshot_is_compared_with_what_was_known_before_it() {
    let mut play = plain();
    play.now -= Duration::from_secs(11);
    play.event(flagged(3, &["\\Seen"], true, Some(104)), None);
    play.hears("* 2 FETCH (FLAGS (\\Seen))\r\n");
    let mut other = plain();
    other.now -= Duration::from_secs(11);
    other.event(flagged(3, &["\\Seen"], true, Some(104)), None);
    done_compares(&mut other, 4, "3 (FLAGS)");
    play.passes(Duration::from_secs(10));
    play.asks("mailpush4 NOOP\r\nmailpush5 UID SEARCH RETURN (ALL) ALL\r\nmailpush6 UID FETCH 3 (FLAGS)\r\n");
}

#[test]
fn a_keyword_stays_listed_though_the_server_does_not_know_it_yet() {
    let mut play = plain();
    play.event(flagged(3, &["$Work"], true, Some(104)), None);
    play.session.out.to_client.clear();
    play.server("* FLAGS (\\Answered \\Flagged \\Deleted \\Seen \\Draft)\r\n");
    play.server("* OK [PERMANENTFLAGS (\\Answered \\Flagged \\Deleted \\Seen \\Draft \\*)] Flags permitted.\r\n");
    play.hears("");
    play.server("* FLAGS (\\Seen $New)\r\n");
    play.hears("* FLAGS ($New $Work \\Seen)\r\n");
}

#[test]
fn highestmodseq_comes_behind_vanished_once_the_session_is_level() {
    let mut play = enabled("QRESYNC");
    play.event(expunged(&[3]), None);
    // An older change may be on its way still.
    play.hears("* VANISHED 3\r\n");
    play.client("DONE\r\n");
    play.session.out.to_upstream.clear();
    play.server("* VANISHED 3\r\n* 1 FETCH (UID 1 FLAGS (\\Seen) MODSEQ (106))\r\n* OK [HIGHESTMODSEQ 107] Highest\r\n");
    play.server("mailpush4 OK\r\n* ESEARCH (TAG \"mailpush5\") UID ALL 1,5\r\nmailpush5 OK\r\n");
    play.hears("* 1 FETCH (UID 1 FLAGS (\\Seen) MODSEQ (106))\r\n* OK [HIGHESTMODSEQ 107] Highest\r\ni OK Idle completed\r\n");
}

#[test]
fn highestmodseq_waits_until_the_session_is_level() {
    let mut play = enabled("QRESYNC");
    play.event(appended(&[6]), Some((4, 7)));
    play.event(expunged(&[3]), None);
    play.hears("* 4 EXISTS\r\n* VANISHED 3\r\n");
    play.session.handle(play.now, Input::Resync);
    play.session.out.to_upstream.clear();
    // It lags: 6 is still to come.
    play.server("* VANISHED 3\r\n* OK [HIGHESTMODSEQ 107] Highest\r\nmailpush4 OK\r\n");
    play.server("* ESEARCH (TAG \"mailpush5\") UID ALL 1,5\r\nmailpush5 OK\r\n");
    play.hears("");
    // Without QRESYNC there is no VANISHED, and nothing to say behind it.
    let mut play = plain();
    play.event(expunged(&[3]), None);
    play.client("DONE\r\n");
    play.server("* 2 EXPUNGE\r\n* OK [HIGHESTMODSEQ 107] Highest\r\nmailpush4 OK\r\n");
    play.server("* ESEARCH (TAG \"mailpush5\") UID ALL 1,5\r\nmailpush5 OK\r\n");
    play.hears("* 2 EXPUNGE\r\ni OK Idle completed\r\n");
}

#[test]
fn the_highestmodseq_of_a_new_select_is_not_the_clients() {
    let mut play = enabled("QRESYNC");
    play.event(appended(&[6]), Some((4, 7)));
    play.client("DONE\r\n");
    play.server("mailpush4 OK\r\n* ESEARCH (TAG \"mailpush5\") UID ALL 1,3,5\r\nmailpush5 OK\r\n");
    play.passes(Duration::from_millis(40));
    play.session.out.to_client.clear();
    play.server("mailpush6 OK\r\n* 4 EXISTS\r\n* OK [UIDNEXT 7] Next\r\n* OK [HIGHESTMODSEQ 120] Highest\r\nmailpush7 OK\r\n");
    play.server("* ESEARCH (TAG \"mailpush8\") UID ALL 1,3,5:6\r\nmailpush8 OK\r\n");
    play.hears("i OK Idle completed\r\n");
}
