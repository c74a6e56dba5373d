//! IDLE by the gateway: registered, snapshot, then events; keep-alive, autologout, handing over.

use super::*;

#[test]
fn the_client_idles_once_the_registration_stands_and_the_snapshot_is_read() {
    let mut play = Play::new(rules()).logged_in().selected();
    play.client("i IDLE\r\n");
    play.asks("mailpush1 NAMESPACE\r\n");
    play.server(NAMESPACE);
    play.server("mailpush1 OK\r\n");
    play.does(&[Action::Watch(TEAM.parse().unwrap())]);
    play.hears("");
    play.asks("");
    // What comes before the snapshot waits, and is in it already.
    play.event(appended(&[6]), None);
    play.stands(Registration::Registered);
    play.asks("mailpush2 NOOP\r\nmailpush3 UID SEARCH RETURN (ALL) ALL\r\n");
    play.server("* 4 EXISTS\r\n* 1 RECENT\r\nmailpush2 OK\r\n");
    play.hears("");
    play.server("* ESEARCH (TAG \"mailpush3\") UID ALL 1,3,5:6\r\nmailpush3 OK\r\n");
    play.hears("+ idling\r\n* 4 EXISTS\r\n* 1 RECENT\r\n");
    // Settled: looked at once more (I-5).
    play.stands(Registration::Settled);
    play.asks("mailpush4 NOOP\r\nmailpush5 UID SEARCH RETURN (ALL) ALL\r\n");
    play.server("* 5 EXISTS\r\nmailpush4 OK\r\n* ESEARCH (TAG \"mailpush5\") UID ALL 1,3,5:7\r\nmailpush5 OK\r\n");
    play.hears("* 5 EXISTS\r\n");
    play.event(appended(&[7]), None);
    play.hears("");
}

#[test]
fn events_are_told_in_the_numbers_that_the_client_knows() {
    let mut play = Play::new(rules()).logged_in().selected().idling();
    play.event(appended(&[6, 7]), Some((5, 8)));
    play.hears("* 5 EXISTS\r\n");
    play.event(expunged(&[1, 5]), Some((3, 8)));
    play.hears("* 3 EXPUNGE\r\n* 1 EXPUNGE\r\n");
    play.event(flagged(3, &["\\Seen"], true, None), None);
    play.hears("* 1 FETCH (FLAGS (\\Seen))\r\n");
    play.event(flagged(3, &["\\Seen", "$Work"], true, None), None);
    play.hears(
        "* FLAGS ($Work \\Answered \\Deleted \\Draft \\Flagged \\Seen)\r\n\
         * OK [PERMANENTFLAGS ($Work \\Answered \\Deleted \\Draft \\Flagged \\Seen \\*)] Flags permitted.\r\n\
         * 1 FETCH (FLAGS ($Work \\Seen))\r\n",
    );
    play.asks("");
}

#[test]
fn flags_that_are_not_known_whole_are_asked_for() {
    let mut play = Play::new(rules()).logged_in().selected().idling();
    play.event(flagged(5, &["\\Seen"], false, None), None);
    play.hears("");
    play.asks("mailpush4 NOOP\r\nmailpush5 UID SEARCH RETURN (ALL) ALL\r\nmailpush6 UID FETCH 5 (FLAGS)\r\n");
    play.server("* 3 FETCH (FLAGS (\\Seen \\Flagged))\r\nmailpush4 OK\r\n");
    play.server("* ESEARCH (TAG \"mailpush5\") UID ALL 1,3,5\r\nmailpush5 OK\r\n");
    play.server("* 3 FETCH (UID 5 FLAGS (\\Seen \\Flagged))\r\nmailpush6 OK\r\n");
    play.hears("* 3 FETCH (FLAGS (\\Flagged \\Seen))\r\n");
}

#[test]
fn flags_are_asked_for_with_their_modseq_where_the_client_is_owed_it() {
    let mut play = Play::new(rules()).logged_in();
    play.client("e ENABLE CONDSTORE\r\n");
    play.server("* ENABLED CONDSTORE\r\ne OK\r\n");
    play.forget();
    let mut play = play.selected().idling();
    play.event(flagged(5, &["\\Seen"], false, None), None);
    play.asks("mailpush4 NOOP\r\nmailpush5 UID SEARCH RETURN (ALL) ALL\r\nmailpush6 UID FETCH 5 (FLAGS MODSEQ)\r\n");
    play.server("mailpush4 OK\r\n* ESEARCH (TAG \"mailpush5\") UID ALL 1,3,5\r\nmailpush5 OK\r\n");
    play.server("* 3 FETCH (UID 5 MODSEQ (12) FLAGS (\\Seen))\r\nmailpush6 OK\r\n");
    play.hears("* 3 FETCH (FLAGS (\\Seen) MODSEQ (12))\r\n");
}

#[test]
fn done_is_answered_once_both_sides_mean_the_same() {
    let mut play = Play::new(rules()).logged_in().selected().idling();
    play.event(appended(&[6]), Some((4, 7)));
    play.hears("* 4 EXISTS\r\n");
    play.client("DONE\r\nc FETCH 3 FLAGS\r\n");
    play.hears("");
    play.asks("mailpush4 NOOP\r\nmailpush5 UID SEARCH RETURN (ALL) ALL\r\n");
    // The server tells what the client knows, and more.
    play.server("* 1 EXPUNGE\r\n* 3 EXISTS\r\n* 1 RECENT\r\nmailpush4 OK\r\n");
    play.server("* ESEARCH (TAG \"mailpush5\") UID ALL 3,5:6\r\nmailpush5 OK\r\n");
    play.hears("* 1 EXPUNGE\r\n* 1 RECENT\r\ni OK Idle completed\r\n");
    play.asks("c FETCH 3 FLAGS\r\n");
    play.does(&[Action::Unwatch(TEAM.parse().unwrap())]);
    play.server("* 3 FETCH (FLAGS ())\r\nc OK\r\n");
    play.hears("* 3 FETCH (FLAGS ())\r\nc OK\r\n");
}

#[test]
fn done_with_the_next_idle_behind_it_needs_no_server() {
    let mut play = Play::new(rules()).logged_in().selected().idling();
    play.client("done\r\nj idle\r\n");
    play.hears("i OK Idle completed\r\n+ idling\r\n");
    play.asks("");
    play.event(appended(&[6]), Some((4, 7)));
    play.hears("* 4 EXISTS\r\n");
    play.client("DONE\r\n");
    play.asks("mailpush4 NOOP\r\nmailpush5 UID SEARCH RETURN (ALL) ALL\r\n");
}

#[test]
fn idle_and_done_in_one_packet() {
    let mut play = Play::new(rules()).logged_in().selected();
    play.client("i IDLE\r\nDONE\r\nc NOOP\r\n");
    play.server(&format!("{NAMESPACE}mailpush1 OK\r\n"));
    play.stands(Registration::Settled);
    play.session.out.to_upstream.clear();
    play.server("mailpush2 OK\r\n* ESEARCH (TAG \"mailpush3\") UID ALL 1,3,5\r\nmailpush3 OK\r\n");
    play.hears("+ idling\r\n");
    play.server("mailpush4 OK\r\n* ESEARCH (TAG \"mailpush5\") UID ALL 1,3,5\r\nmailpush5 OK\r\n");
    play.hears("i OK Idle completed\r\n");
    play.asks("mailpush4 NOOP\r\nmailpush5 UID SEARCH RETURN (ALL) ALL\r\nc NOOP\r\n");
}

#[test]
fn what_is_not_done_ends_idle_and_goes_nowhere() {
    let mut play = Play::new(rules()).logged_in().selected().idling();
    play.client("x LOGOUT\r\n");
    play.asks("mailpush4 NOOP\r\nmailpush5 UID SEARCH RETURN (ALL) ALL\r\n");
    play.server("mailpush4 OK\r\n* ESEARCH (TAG \"mailpush5\") UID ALL 1,3,5\r\nmailpush5 OK\r\n");
    play.hears("i BAD Expected DONE\r\n");
    play.asks("");
}

#[test]
fn with_nothing_selected_idle_is_valid_and_silent() {
    let mut play = Play::new(rules()).logged_in();
    play.client("i IDLE\r\n");
    play.hears("+ idling\r\n");
    play.client("DONE\r\n");
    play.hears("i OK Idle completed\r\n");
    play.asks("");
    play.does(&[]);
}

#[test]
fn idle_waits_for_the_answers_to_what_came_before_it() {
    let mut play = Play::new(rules()).logged_in().selected();
    play.client("c FETCH 1:3 FLAGS\r\ni IDLE\r\n");
    play.asks("c FETCH 1:3 FLAGS\r\n");
    play.server("* 1 FETCH (FLAGS ())\r\n");
    play.asks("");
    play.server("c OK\r\n");
    play.asks("mailpush1 NAMESPACE\r\n");
}

#[test]
fn still_here_and_in_the_end_autologout() {
    let mut play = Play::new(rules()).logged_in().selected().idling();
    play.passes(Duration::from_secs(120));
    play.hears("* OK Still here\r\n");
    let mut words = String::new();
    while !words.contains("BYE") {
        play.passes(Duration::from_secs(120));
        if !play.session.out.to_upstream.is_empty() {
            let asked = String::from_utf8(std::mem::take(&mut play.session.out.to_upstream)).unwrap();
            let [noop, search] = [0, 1].map(|n| asked.lines().nth(n).unwrap().split(' ').next().unwrap());
            play.server(&format!("{noop} OK\r\n* ESEARCH (TAG \"{search}\") UID ALL 1,3,5\r\n{search} OK\r\n"));
        }
        words.push_str(&String::from_utf8(std::mem::take(&mut play.session.out.to_client)).unwrap());
    }
    assert!(words.ends_with("* BYE Autologout: idle for too long\r\n"), "{words}");
    play.does(&[Action::Unwatch(TEAM.parse().unwrap()), Action::Close { reason: "autologout" }]);
}

#[test]
fn a_mailbox_that_is_deleted_or_made_anew_ends_the_session() {
    let mut play = Play::new(rules()).logged_in().selected().idling();
    play.event(Change::MailboxDelete, None);
    play.hears("* BYE The mailbox has been deleted\r\n");
    play.does(&[Action::Unwatch(TEAM.parse().unwrap()), Action::Close { reason: "mailbox_deleted" }]);
}

#[test]
fn a_renamed_mailbox_is_watched_under_its_new_name() {
    let mut play = Play::new(rules()).logged_in().selected().idling();
    let to = "#private:alice@example.org:Crew";
    play.event(Change::MailboxRename { to: to.parse().unwrap() }, None);
    play.hears("");
    play.does(&[Action::Unwatch(TEAM.parse().unwrap()), Action::Watch(to.parse().unwrap())]);
    play.session.handle(play.now, Input::Registration { mailbox: &to.parse().unwrap(), registration: Registration::Settled });
    // A NOOP in a mailbox without a name would end the connection (Dovecot). What changed until now
    // no event has told.
    play.asks("mailpush4 SELECT Crew\r\nmailpush5 UID SEARCH RETURN (ALL) ALL\r\nmailpush6 UID FETCH 1:* (FLAGS)\r\n");
    play.server("* 4 EXISTS\r\n* OK [UIDVALIDITY 9]\r\n* OK [UIDNEXT 7]\r\nmailpush4 OK\r\n");
    play.server("* ESEARCH (TAG \"mailpush5\") UID ALL 1,3,5:6\r\nmailpush5 OK\r\n");
    play.server("* 2 FETCH (UID 3 FLAGS (\\Seen))\r\nmailpush6 OK\r\n");
    play.hears("* 2 FETCH (FLAGS (\\Seen))\r\n* 4 EXISTS\r\n");
    play.client("DONE\r\n");
    play.asks("mailpush7 NOOP\r\nmailpush8 UID SEARCH RETURN (ALL) ALL\r\n");
}

#[test]
fn vanished_and_modseq_once_qresync_is_enabled() {
    let mut play = Play::new(rules()).logged_in();
    play.client("e ENABLE QRESYNC\r\n");
    play.server("* ENABLED QRESYNC\r\ne OK\r\n");
    play.forget();
    let mut play = play.selected().idling();
    play.event(expunged(&[1, 3]), None);
    play.hears("* VANISHED 1,3\r\n");
    play.event(flagged(5, &["\\Seen"], true, Some(77)), None);
    play.hears("* 1 FETCH (UID 5 FLAGS (\\Seen) MODSEQ (77))\r\n");
    play.event(flagged(5, &[], true, None), None);
    play.asks("mailpush4 NOOP\r\nmailpush5 UID SEARCH RETURN (ALL) ALL\r\nmailpush6 UID FETCH 5 (FLAGS MODSEQ)\r\n");
    play.server("* VANISHED 1,3\r\nmailpush4 OK\r\n* ESEARCH (TAG \"mailpush5\") UID ALL 5\r\nmailpush5 OK\r\n");
    play.server("* 1 FETCH (UID 5 FLAGS () MODSEQ (78))\r\nmailpush6 OK\r\n");
    play.hears("* 1 FETCH (UID 5 FLAGS () MODSEQ (78))\r\n");
}

#[test]
fn while_the_cluster_is_ill_the_server_idles_itself() {
    let mut play = Play::new(rules()).logged_in().selected().idling();
    play.session.handle(play.now, Input::Health(false));
    play.asks("mailpush4 NOOP\r\nmailpush5 UID SEARCH RETURN (ALL) ALL\r\n");
    play.server("* 4 EXISTS\r\nmailpush4 OK\r\n* ESEARCH (TAG \"mailpush5\") UID ALL 1,3,5:6\r\nmailpush5 OK\r\n");
    play.hears("* 4 EXISTS\r\n");
    play.asks("mailpush6 IDLE\r\n");
    play.server("+ idling\r\n* 5 EXISTS\r\n");
    play.hears("* 5 EXISTS\r\n");
    // The server's word, not the queue's.
    play.event(appended(&[7]), None);
    play.hears("");
    play.session.handle(play.now, Input::Health(true));
    play.asks("DONE\r\n");
    play.server("* 1 EXPUNGE\r\nmailpush6 OK\r\n");
    play.hears("* 1 EXPUNGE\r\n");
    play.asks("mailpush7 NOOP\r\nmailpush8 UID SEARCH RETURN (ALL) ALL\r\n");
    play.server("mailpush7 OK\r\n* ESEARCH (TAG \"mailpush8\") UID ALL 3,5:7\r\nmailpush8 OK\r\n");
    play.event(appended(&[8]), None);
    play.hears("* 5 EXISTS\r\n");
}

#[test]
fn a_registration_that_takes_too_long_leaves_idle_to_the_server_until_it_stands() {
    let mut play = Play::new(rules()).logged_in().selected();
    play.client("i IDLE\r\n");
    play.server(&format!("{NAMESPACE}mailpush1 OK\r\n"));
    play.forget();
    play.passes(Duration::from_secs(1));
    play.asks("mailpush2 IDLE\r\n");
    play.server("+ idling\r\n");
    play.hears("+ idling\r\n");
    play.stands(Registration::Registered);
    play.asks("DONE\r\n");
    play.server("mailpush2 OK\r\n");
    play.asks("mailpush3 NOOP\r\nmailpush4 UID SEARCH RETURN (ALL) ALL\r\n");
    play.client("DONE\r\n");
    play.server("* 4 EXISTS\r\nmailpush3 OK\r\n* ESEARCH (TAG \"mailpush4\") UID ALL 1,3,5:6\r\nmailpush4 OK\r\n");
    play.hears("* 4 EXISTS\r\ni OK Idle completed\r\n");
}

#[test]
fn a_server_without_idle_is_asked_now_and_then() {
    let mut play = Play::new(rules()).logged_in().selected();
    play.session.common.facts.offers.idle = false;
    play.session.handle(play.now, Input::Health(false));
    play.client("i IDLE\r\n");
    play.hears("+ idling\r\n");
    play.passes(Duration::from_secs(15));
    play.asks("mailpush1 NOOP\r\n");
    play.server("* 4 EXISTS\r\nmailpush1 OK\r\n");
    play.hears("* 4 EXISTS\r\n");
    play.client("DONE\r\n");
    play.hears("i OK Idle completed\r\n");
}

#[test]
fn notify_is_the_servers_and_so_is_idle_from_then_on() {
    let mut play = Play::new(rules()).logged_in().selected();
    play.client("n NOTIFY SET (personal (MessageNew MessageExpunge))\r\n");
    play.server("n OK\r\n");
    play.forget();
    play.client("i IDLE\r\n");
    play.asks("mailpush1 IDLE\r\n");
    play.server("+ idling\r\n* STATUS Other (MESSAGES 1)\r\n");
    play.hears("+ idling\r\n* STATUS Other (MESSAGES 1)\r\n");
    play.client("DONE\r\n");
    play.asks("DONE\r\n");
    play.server("mailpush1 OK\r\n");
    play.hears("i OK Idle completed\r\n");
}

#[test]
fn what_the_server_says_unasked_is_never_passed_on_in_its_own_numbers() {
    let mut play = Play::new(rules()).logged_in().selected().idling();
    play.event(expunged(&[1]), None);
    play.hears("* 1 EXPUNGE\r\n");
    // To the server, UID 3 is number 2 still; to the client, number 1.
    play.server("* 2 FETCH (FLAGS (\\Seen))\r\n");
    play.hears("* 1 FETCH (FLAGS (\\Seen))\r\n");
    play.server("* 3 EXPUNGE\r\n");
    play.hears("");
    play.asks("mailpush4 NOOP\r\nmailpush5 UID SEARCH RETURN (ALL) ALL\r\n");
    play.server("* 1 EXPUNGE\r\nmailpush4 OK\r\n* ESEARCH (TAG \"mailpush5\") UID ALL 3\r\nmailpush5 OK\r\n");
    play.hears("* 2 EXPUNGE\r\n");
}

#[test]
fn what_comes_before_the_go_ahead_keeps_its_order() {
    let mut play = Play::new(rules()).logged_in().selected();
    play.client("i IDLE\r\n");
    play.server(&format!("* 4 EXISTS\r\n{NAMESPACE}mailpush1 OK\r\n"));
    // The registration is awaited, and nothing asked.
    play.server("* 5 EXISTS\r\n");
    play.hears("");
    play.stands(Registration::Settled);
    play.server("mailpush2 OK\r\n* ESEARCH (TAG \"mailpush3\") UID ALL 1,3,5:7\r\nmailpush3 OK\r\n");
    play.hears("+ idling\r\n* 4 EXISTS\r\n* 5 EXISTS\r\n");
}

#[test]
fn done_in_the_same_packet_does_not_wait_for_the_next_poll() {
    let mut play = Play::new(rules()).logged_in().selected();
    play.session.common.facts.offers.idle = false;
    play.client("i IDLE\r\nDONE\r\n");
    play.server(&format!("{NAMESPACE}mailpush1 OK\r\n"));
    // The registration does not come.
    play.passes(Duration::from_secs(1));
    play.hears("+ idling\r\ni OK Idle completed\r\n");
}

#[test]
fn flags_of_an_event_that_may_be_older_than_the_snapshot_are_asked_for() {
    let mut play = Play::new(rules()).logged_in().selected();
    play.client("i IDLE\r\n");
    play.server(&format!("{NAMESPACE}mailpush1 OK\r\n"));
    play.event(flagged(3, &["\\Seen"], true, None), None);
    play.stands(Registration::Settled);
    play.session.out.to_upstream.clear();
    play.server(
        "* 2 FETCH (FLAGS (\\Flagged))\r\nmailpush2 OK\r\n* ESEARCH (TAG \"mailpush3\") UID ALL 1,3,5\r\nmailpush3 OK\r\n",
    );
    play.hears("+ idling\r\n* 2 FETCH (FLAGS (\\Flagged))\r\n");
    play.asks("mailpush4 NOOP\r\nmailpush5 UID SEARCH RETURN (ALL) ALL\r\nmailpush6 UID FETCH 3 (FLAGS)\r\n");
}

#[test]
fn events_from_before_the_servers_own_idle_are_old() {
    let mut play = Play::new(rules()).logged_in().selected();
    play.client("i IDLE\r\n");
    play.server(&format!("{NAMESPACE}mailpush1 OK\r\n"));
    play.event(flagged(3, &["\\Seen"], true, None), None);
    play.passes(Duration::from_secs(1));
    play.server("+ idling\r\n* 2 FETCH (FLAGS (\\Flagged))\r\n");
    play.stands(Registration::Settled);
    play.server("mailpush2 OK\r\nmailpush3 OK\r\n* ESEARCH (TAG \"mailpush4\") UID ALL 1,3,5\r\nmailpush4 OK\r\n");
    play.hears("+ idling\r\n* 2 FETCH (FLAGS (\\Flagged))\r\n");
}

#[test]
fn a_server_that_does_not_begin_or_end_its_idle_is_not_waited_for_for_ever() {
    let mut play = Play::new(rules()).logged_in().selected();
    play.session.handle(play.now, Input::Health(false));
    play.client("i IDLE\r\n");
    play.asks("mailpush1 IDLE\r\n");
    play.passes(Duration::from_secs(10));
    play.hears("* BYE [UNAVAILABLE] The mail server has closed the connection\r\n");
}

#[test]
fn what_was_told_before_the_server_took_over_is_not_taken_for_told_after_it() {
    let mut play = Play::new(rules()).logged_in().selected().idling();
    play.event(flagged(5, &["\\Seen"], true, None), None);
    play.hears("* 3 FETCH (FLAGS (\\Seen))\r\n");
    play.session.handle(play.now, Input::Health(false));
    play.server("mailpush4 OK\r\n* ESEARCH (TAG \"mailpush5\") UID ALL 1,3,5\r\nmailpush5 OK\r\n");
    play.server("+ idling\r\n* 3 FETCH (FLAGS ())\r\n");
    play.session.handle(play.now, Input::Health(true));
    play.server("mailpush6 OK\r\nmailpush7 OK\r\n* ESEARCH (TAG \"mailpush8\") UID ALL 1,3,5\r\nmailpush8 OK\r\n");
    play.hears("* 3 FETCH (FLAGS ())\r\n");
    play.event(flagged(5, &["\\Seen"], true, None), None);
    play.hears("* 3 FETCH (FLAGS (\\Seen))\r\n");
}

#[test]
fn a_mailbox_that_the_client_itself_may_have_renamed_is_the_servers_business() {
    let mut play = Play::new(rules()).logged_in().selected();
    play.client("r RENAME Team Crew\r\n");
    play.server("r OK\r\n");
    play.forget();
    play.client("i IDLE\r\n");
    play.server(&format!("{NAMESPACE}mailpush1 OK\r\n"));
    play.asks("mailpush1 NAMESPACE\r\nmailpush2 IDLE\r\n");
    play.does(&[]);
}

#[test]
fn a_message_that_only_an_event_from_before_the_snapshot_knows_is_looked_for() {
    let mut play = Play::new(rules()).logged_in().selected();
    play.client("i IDLE\r\n");
    play.server(&format!("{NAMESPACE}mailpush1 OK\r\n"));
    play.event(appended(&[6]), None);
    play.stands(Registration::Settled);
    play.session.out.to_upstream.clear();
    play.server("mailpush2 OK\r\n* ESEARCH (TAG \"mailpush3\") UID ALL 1,3,5\r\nmailpush3 OK\r\n");
    play.hears("+ idling\r\n* 4 EXISTS\r\n");
    play.asks("mailpush4 NOOP\r\nmailpush5 UID SEARCH RETURN (ALL) ALL\r\n");
}

#[test]
fn idle_takes_no_arguments() {
    let mut play = Play::new(rules()).logged_in().selected();
    play.client("a IDLE now\r\nb IDLE {5}\r\nc IDLE {5+}\r\nDONE!\r\nd NOOP\r\n");
    play.hears("a BAD IDLE takes no arguments\r\nb BAD IDLE takes no arguments\r\nc BAD IDLE takes no arguments\r\n");
    play.asks("d NOOP\r\n");
    let mut play = Play::new(rules()).logged_in().selected().idling();
    play.client("DONE\r\nj IDLE now\r\n");
    play.hears("");
    play.server("mailpush4 OK\r\n* ESEARCH (TAG \"mailpush5\") UID ALL 1,3,5\r\nmailpush5 OK\r\n");
    play.hears("i OK Idle completed\r\nj BAD IDLE takes no arguments\r\n");
}

#[test]
fn more_messages_than_any_mailbox_has_are_not_believed() {
    let mut play = Play::new(rules()).logged_in().selected().idling();
    play.client("DONE\r\n");
    play.server("mailpush4 OK\r\n* ESEARCH (TAG \"mailpush5\") UID ALL 1:4294967295\r\nmailpush5 OK\r\n");
    play.hears("* BYE [UNAVAILABLE] The mail server's answer is too long\r\n");
}
