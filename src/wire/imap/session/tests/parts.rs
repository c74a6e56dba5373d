//! What a server says in parts, or more than once (RFC 9051 7): the parts are one answer.

use super::*;
use crate::mail::path::PRIVATE;
use crate::mail::rights::Rights;

/// The client asks for IDLE and the snapshot is being asked for, with `mailpush2` and `mailpush3`.
fn preparing(esearch: bool) -> Play {
    let mut play = Play::new(rules()).logged_in();
    play.session.common.facts.offers.esearch = esearch;
    play = play.selected();
    play.client("i IDLE\r\n");
    play.server(&format!("{NAMESPACE}mailpush1 OK\r\n"));
    play.forget();
    play.stands(Registration::Settled);
    play
}

#[test]
fn uids_in_several_lines_are_one_list() {
    let lists = [
        (false, "* SEARCH 1\r\n* SEARCH 3 5\r\n"),
        (false, "* SEARCH 5\r\n* SEARCH\r\n* SEARCH 1 3\r\n"),
        (true, "* ESEARCH (TAG \"mailpush3\") UID ALL 1\r\n* ESEARCH (TAG \"mailpush3\") UID ALL 3,5\r\n"),
        // Of somebody else's search, and of numbers.
        (true, "* ESEARCH (TAG \"x\") UID ALL 7\r\n* ESEARCH (TAG \"mailpush3\") UID ALL 1,3,5\r\n* ESEARCH ALL 1:2\r\n"),
    ];
    for (esearch, list) in lists {
        let mut play = preparing(esearch);
        play.server(&format!("mailpush2 OK\r\n{list}mailpush3 OK\r\n"));
        play.hears("+ idling\r\n");
        play.forget();
        play.event(expunged(&[3]), None);
        play.hears("* 2 EXPUNGE\r\n");
        play.event(expunged(&[5]), None);
        play.hears("* 2 EXPUNGE\r\n");
    }
}

#[test]
fn a_list_that_does_not_fit_the_count_is_not_believed() {
    for (esearch, list) in [(false, "* SEARCH 1 3\r\n"), (false, "* SEARCH 1 3 5 7\r\n"), (true, "")] {
        let mut play = preparing(esearch);
        play.forget();
        play.server(&format!("mailpush2 OK\r\n{list}mailpush3 OK\r\n"));
        play.hears("");
        play.asks("mailpush4 IDLE\r\n");
        play.server("+ idling\r\n* 1 EXPUNGE\r\n");
        play.hears("+ idling\r\n* 1 EXPUNGE\r\n");
    }
}

#[test]
fn the_count_is_followed_wherever_the_server_tells_of_it() {
    for (before, uids) in [
        ("* 4 EXISTS\r\n", "1,3,5:6"),
        ("* 1 EXPUNGE\r\n", "3,5"),
        ("* vanished 1,3\r\n", "5"),
        ("* 5 EXISTS\r\n* 5 EXPUNGE\r\n* 1 EXPUNGE\r\n* 9 FETCH (FLAGS ())\r\n", "3,5,6"),
    ] {
        // Before IDLE, and while it is prepared.
        for early in [true, false] {
            let mut play = Play::new(rules()).logged_in().selected();
            if early {
                play.client("n NOOP\r\n");
                play.server(&format!("{before}n OK\r\n"));
                play.forget();
            }
            play.client("i IDLE\r\n");
            play.server(&format!("{NAMESPACE}mailpush1 OK\r\n"));
            play.stands(Registration::Settled);
            let before = if early { "" } else { before };
            play.server(&format!("{before}mailpush2 OK\r\n* ESEARCH (TAG \"mailpush3\") UID ALL {uids}\r\nmailpush3 OK\r\n"));
            play.hears(&format!("+ idling\r\n{before}"));
        }
    }
}

#[test]
fn a_list_that_is_cut_by_a_change_is_asked_for_again() {
    let mut play = preparing(false);
    play.forget();
    play.server("mailpush2 OK\r\n* SEARCH 1\r\n* 1 EXPUNGE\r\n* SEARCH 3 5\r\nmailpush3 OK\r\n");
    play.hears("");
    play.asks("mailpush4 UID SEARCH ALL\r\n");
    play.server("* SEARCH 3\r\n* SEARCH 5\r\nmailpush4 OK\r\n");
    play.hears("+ idling\r\n* 1 EXPUNGE\r\n");
    // At DONE too, with a pause.
    play.client("DONE\r\n");
    play.server("mailpush5 OK\r\n* SEARCH 3\r\n* 1 EXPUNGE\r\n* SEARCH 5\r\nmailpush6 OK\r\n");
    play.hears("");
    play.forget();
    play.passes(Duration::from_millis(40));
    play.asks("mailpush7 NOOP\r\nmailpush8 UID SEARCH ALL\r\n");
    play.server("mailpush7 OK\r\n* SEARCH 5\r\nmailpush8 OK\r\n");
    play.hears("* 1 EXPUNGE\r\ni OK Idle completed\r\n");
}

#[test]
fn flags_and_their_modseq_may_come_apart() {
    for answer in [
        "* 3 FETCH (UID 5 FLAGS (\\Seen))\r\n* 3 FETCH (UID 5 MODSEQ (12))\r\n",
        "* 3 FETCH (MODSEQ (12))\r\n* 3 FETCH (FLAGS (\\Seen))\r\n",
    ] {
        let mut play = Play::new(rules()).logged_in();
        play.client("e ENABLE CONDSTORE\r\n");
        play.server("* ENABLED CONDSTORE\r\ne OK\r\n");
        play.forget();
        let mut play = play.selected().idling();
        play.event(flagged(5, &["\\Seen"], false, None), None);
        play.forget();
        play.server("mailpush4 OK\r\n* ESEARCH (TAG \"mailpush5\") UID ALL 1,3,5\r\nmailpush5 OK\r\n");
        play.server(&format!("{answer}mailpush6 OK\r\n"));
        play.hears("* 3 FETCH (FLAGS (\\Seen) MODSEQ (12))\r\n");
    }
}

#[test]
fn namespaces_and_capabilities_may_come_in_several_lines() {
    let mut play = Play::new(rules()).logged_in();
    (play.session.common.facts.offers, play.session.common.facts.offers_are_known) = Default::default();
    play.client("b SELECT shared/bob/Team\r\n");
    play.server(SELECTED);
    play.server("b OK\r\n");
    play.forget();
    play.client("i IDLE\r\n");
    play.asks("mailpush1 CAPABILITY\r\n");
    play.server("* CAPABILITY IMAP4rev1 NAMESPACE\r\n* CAPABILITY ESEARCH IDLE\r\nmailpush1 OK\r\n");
    play.asks("mailpush2 NAMESPACE\r\n");
    play.server("* NAMESPACE ((\"\" \"/\")) NIL NIL\r\n* NAMESPACE NIL ((\"shared/\" \"/\")) NIL\r\nmailpush2 OK\r\n");
    let bobs: MailboxPath = "#private:bob@example.org:Team".parse().unwrap();
    play.does(&[Action::Watch(bobs.clone())]);
    play.session.handle(play.now, Input::Registration { mailbox: &bobs, registration: Registration::Settled });
    play.asks("mailpush3 NOOP\r\nmailpush4 UID SEARCH RETURN (ALL) ALL\r\n");
}

#[test]
fn of_several_words_on_rights_the_last_of_the_mailbox_itself_counts() {
    for (told, rights) in [
        ("* MYRIGHTS shared/bob/Team lrs\r\n* MYRIGHTS shared/bob/Team lr\r\n", "lr"),
        ("* MYRIGHTS shared/bob/Team lr\r\n* MYRIGHTS shared/bob/Other lrs\r\n", "lr"),
        ("* MYRIGHTS shared/bob/Other lrs\r\n* MYRIGHTS shared/bob/Team lr\r\n", "lr"),
        // The same in the server's own spelling.
        ("* MYRIGHTS shared/bob@example.org/Team lr\r\n", "lr"),
    ] {
        let mut play = Play::new(Rules { asks_rights: vec![PRIVATE], ..rules() }).logged_in();
        play.session.common.facts.offers.acl = true;
        play.client("b SELECT shared/bob/Team\r\n");
        play.server(SELECTED);
        play.server("b OK\r\n");
        play.client("i IDLE\r\n");
        play.server(&format!("{NAMESPACE}mailpush1 OK\r\n"));
        let bobs: MailboxPath = "#private:bob@example.org:Team".parse().unwrap();
        play.session.handle(play.now, Input::Registration { mailbox: &bobs, registration: Registration::Settled });
        play.server("mailpush2 OK\r\n* ESEARCH (TAG \"mailpush3\") UID ALL 1,3,5\r\nmailpush3 OK\r\n");
        play.forget();
        play.server(&format!("{told}mailpush4 OK\r\n"));
        play.hears("+ idling\r\n");
        play.does(&[Action::Rights { mailbox: bobs, rights: Rights::parse(rights).ok() }]);
    }
}
