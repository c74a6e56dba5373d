//! Client and server made level: lag, loss, and what cannot be told.

use super::*;

#[test]
fn a_server_that_lags_is_waited_for() {
    let mut play = Play::new(rules()).logged_in().selected().idling();
    play.event(appended(&[6]), Some((4, 7)));
    play.hears("* 4 EXISTS\r\n");
    play.client("DONE\r\n");
    play.asks("mailpush4 NOOP\r\nmailpush5 UID SEARCH RETURN (ALL) ALL\r\n");
    play.server("mailpush4 OK\r\n* ESEARCH (TAG \"mailpush5\") UID ALL 1,3,5\r\nmailpush5 OK\r\n");
    play.hears("");
    play.passes(Duration::from_millis(40));
    play.asks("mailpush6 NOOP\r\nmailpush7 SELECT Team\r\nmailpush8 UID SEARCH RETURN (ALL) ALL\r\n");
    play.server("mailpush6 OK\r\n* 3 EXISTS\r\n* OK [UIDVALIDITY 9]\r\n* OK [UIDNEXT 6]\r\nmailpush7 OK\r\n");
    play.server("* ESEARCH (TAG \"mailpush8\") UID ALL 1,3,5\r\nmailpush8 OK\r\n");
    play.hears("");
    play.passes(Duration::from_millis(80));
    play.asks("mailpush9 NOOP\r\nmailpush10 SELECT Team\r\nmailpush11 UID SEARCH RETURN (ALL) ALL\r\n");
    play.server("* 4 EXISTS\r\nmailpush9 OK\r\n* 4 EXISTS\r\n* OK [UIDVALIDITY 9]\r\n* OK [UIDNEXT 7]\r\nmailpush10 OK\r\n");
    play.server("* ESEARCH (TAG \"mailpush11\") UID ALL 1,3,5:6\r\nmailpush11 OK\r\n");
    play.hears("i OK Idle completed\r\n");
}

#[test]
fn what_the_server_has_expunged_meanwhile_is_told_once_its_uidnext_shows_it() {
    let mut play = Play::new(rules()).logged_in().selected().idling();
    play.event(appended(&[6]), Some((4, 7)));
    play.client("DONE\r\n");
    play.forget();
    play.server("mailpush4 OK\r\n* ESEARCH (TAG \"mailpush5\") UID ALL 1,3,5\r\nmailpush5 OK\r\n");
    play.passes(Duration::from_millis(40));
    play.server("mailpush6 OK\r\n* 3 EXISTS\r\n* OK [UIDNEXT 7]\r\nmailpush7 OK\r\n");
    play.server("* ESEARCH (TAG \"mailpush8\") UID ALL 1,3,5\r\nmailpush8 OK\r\n");
    play.hears("* 4 EXPUNGE\r\ni OK Idle completed\r\n");
}

#[test]
fn a_server_that_does_not_catch_up_ends_the_session_and_never_tells_a_wrong_number() {
    let mut play = Play::new(rules()).logged_in().selected().idling();
    play.event(expunged(&[3]), None);
    play.hears("* 2 EXPUNGE\r\n");
    play.client("DONE\r\n");
    let mut number = 4;
    while !matches!(play.session.phase, Phase::Closed) {
        play.session.out.to_upstream.clear();
        let select = if number == 4 { String::new() } else { format!("* 3 EXISTS\r\nmailpush{} OK\r\n", number + 1) };
        let search = number + if number == 4 { 1 } else { 2 };
        play.server(&format!(
            "mailpush{number} OK\r\n{select}* ESEARCH (TAG \"mailpush{search}\") UID ALL 1,3,5\r\nmailpush{search} OK\r\n"
        ));
        number = search + 1;
        play.passes(Duration::from_secs(2));
    }
    play.hears("* BYE [UNAVAILABLE] The mail server does not catch up: log in again\r\n");
}

#[test]
fn a_break_in_continuity_is_made_good_from_the_server() {
    let mut play = Play::new(rules()).logged_in().selected().idling();
    play.session.handle(play.now, Input::Resync);
    play.asks("mailpush4 NOOP\r\nmailpush5 UID SEARCH RETURN (ALL) ALL\r\n");
    // Numbers mean what they meant to the server, whatever the client has been told since.
    play.server("* 2 FETCH (FLAGS (\\Seen))\r\n* 1 EXPUNGE\r\n* 4 EXISTS\r\nmailpush4 OK\r\n");
    play.event(appended(&[8]), None);
    play.hears("");
    play.server("* ESEARCH (TAG \"mailpush5\") UID ALL 3,5:7\r\nmailpush5 OK\r\n");
    play.hears("* 2 FETCH (FLAGS (\\Seen))\r\n* 1 EXPUNGE\r\n* 4 EXISTS\r\n* 5 EXISTS\r\n");
}

#[test]
fn what_appears_while_the_uids_are_told_is_asked_for_again() {
    let mut play = Play::new(rules()).logged_in().selected().idling();
    play.client("DONE\r\n");
    play.forget();
    play.server("mailpush4 OK\r\n* ESEARCH (TAG \"mailpush5\") UID ALL 1,3,5\r\n* 4 EXISTS\r\nmailpush5 OK\r\n");
    play.hears("");
    play.passes(Duration::from_millis(40));
    play.server("mailpush6 OK\r\n* ESEARCH (TAG \"mailpush7\") UID ALL 1,3,5:6\r\nmailpush7 OK\r\n");
    play.hears("* 4 EXISTS\r\ni OK Idle completed\r\n");
}

#[test]
fn a_new_uidvalidity_ends_the_session() {
    let mut play = Play::new(rules()).logged_in().selected().idling();
    play.event(appended(&[6]), None);
    play.client("DONE\r\n");
    play.forget();
    play.server("mailpush4 OK\r\n* ESEARCH (TAG \"mailpush5\") UID\r\nmailpush5 OK\r\n");
    play.passes(Duration::from_millis(40));
    play.session.out.to_client.clear();
    play.server("mailpush6 OK\r\n* 0 EXISTS\r\n* OK [UIDVALIDITY 10]\r\n* OK [UIDNEXT 1]\r\nmailpush7 OK\r\n");
    play.server("* ESEARCH (TAG \"mailpush8\") UID\r\nmailpush8 OK\r\n");
    play.hears("* BYE The mailbox has been made anew (UIDVALIDITY)\r\n");
}

#[test]
fn a_server_without_esearch_lists_its_uids() {
    let mut play = Play::new(rules()).logged_in().selected();
    play.session.common.facts.offers.esearch = false;
    play.client("i IDLE\r\n");
    play.server(&format!("{NAMESPACE}mailpush1 OK\r\n"));
    play.forget();
    play.stands(Registration::Settled);
    play.asks("mailpush2 NOOP\r\nmailpush3 UID SEARCH ALL\r\n");
    play.server("mailpush2 OK\r\n* SEARCH 1 3 5\r\nmailpush3 OK\r\n");
    play.hears("+ idling\r\n");
}

#[test]
fn a_server_that_hangs_or_closes_without_a_way_back_ends_the_session() {
    let mut play = Play::new(rules()).logged_in().selected().idling();
    play.client("DONE\r\n");
    play.forget();
    play.passes(Duration::from_secs(10));
    play.hears("* BYE [UNAVAILABLE] The mail server has closed the connection\r\n");
}

#[test]
fn flags_that_a_new_select_would_hide_are_asked_for() {
    let mut play = Play::new(rules()).logged_in().selected().idling();
    play.event(appended(&[6]), Some((4, 7)));
    play.hears("* 4 EXISTS\r\n");
    play.client("DONE\r\n");
    play.asks("mailpush4 NOOP\r\nmailpush5 UID SEARCH RETURN (ALL) ALL\r\n");
    play.server("mailpush4 OK\r\n* ESEARCH (TAG \"mailpush5\") UID ALL 1,3,5\r\nmailpush5 OK\r\n");
    play.passes(Duration::from_millis(40));
    play.asks("mailpush6 NOOP\r\nmailpush7 SELECT Team\r\nmailpush8 UID SEARCH RETURN (ALL) ALL\r\n");
    // Perhaps in the new view already, as if it had been told.
    play.event(flagged(3, &["\\Seen"], true, None), None);
    play.server("mailpush6 OK\r\n* 4 EXISTS\r\n* OK [UIDNEXT 7]\r\nmailpush7 OK\r\n");
    play.server("* ESEARCH (TAG \"mailpush8\") UID ALL 1,3,5:6\r\nmailpush8 OK\r\n");
    play.hears("");
    play.asks("mailpush9 NOOP\r\nmailpush10 UID SEARCH RETURN (ALL) ALL\r\nmailpush11 UID FETCH 3 (FLAGS)\r\n");
    play.server("mailpush9 OK\r\n* ESEARCH (TAG \"mailpush10\") UID ALL 1,3,5:6\r\nmailpush10 OK\r\n");
    play.server("* 2 FETCH (UID 3 FLAGS (\\Seen))\r\nmailpush11 OK\r\n");
    play.hears("* 2 FETCH (FLAGS (\\Seen))\r\ni OK Idle completed\r\n");
}

#[test]
fn a_server_that_lags_behind_the_snapshot_is_asked_for_all_flags() {
    let mut play = Play::new(rules()).logged_in().selected().idling();
    play.now -= Duration::from_secs(11);
    play.event(appended(&[6]), Some((4, 7)));
    play.hears("* 4 EXISTS\r\n");
    play.client("DONE\r\n");
    play.session.out.to_upstream.clear();
    play.server("mailpush4 OK\r\n* ESEARCH (TAG \"mailpush5\") UID ALL 1,3,5\r\nmailpush5 OK\r\n");
    play.passes(Duration::from_millis(40));
    play.asks(
        "mailpush6 NOOP\r\nmailpush7 SELECT Team\r\nmailpush8 UID SEARCH RETURN (ALL) ALL\r\nmailpush9 UID FETCH 1:* (FLAGS)\r\n",
    );
}

#[test]
fn lists_of_flags_are_never_lost() {
    let mut play = Play::new(rules()).logged_in().selected().idling();
    play.server("* FLAGS (\\Seen $a)\r\n");
    play.hears("* FLAGS (\\Seen $a)\r\n");
    play.client("DONE\r\n");
    play.session.out.to_upstream.clear();
    // With an answer that is not good enough.
    play.server("* FLAGS (\\Seen $a $b)\r\nmailpush4 OK\r\n* ESEARCH (TAG \"mailpush5\") UID ALL 1,3,5\r\n* 4 EXISTS\r\n");
    play.server("mailpush5 OK\r\n");
    play.hears("* FLAGS (\\Seen $a $b)\r\n");
}

#[test]
fn flags_in_an_answer_that_is_of_no_use_are_asked_for_again() {
    let mut play = Play::new(rules()).logged_in().selected().idling();
    play.client("DONE\r\n");
    play.session.out.to_upstream.clear();
    play.server("* 2 FETCH (FLAGS (\\Seen))\r\nmailpush4 OK\r\n");
    play.server("* ESEARCH (TAG \"mailpush5\") UID ALL 1,3,5\r\n* 4 EXISTS\r\nmailpush5 OK\r\n");
    play.hears("");
    play.passes(Duration::from_millis(40));
    play.asks("mailpush6 NOOP\r\nmailpush7 UID SEARCH RETURN (ALL) ALL\r\nmailpush8 UID FETCH 3 (FLAGS)\r\n");
}
