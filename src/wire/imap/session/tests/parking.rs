//! Parking: no upstream connection while the client idles, and taking one up again.

use super::*;
use crate::wire::imap::credentials::Credentials;

fn parked() -> Play {
    let master = Reentry::MasterUser(Credentials::new("gw", "gwpw"));
    let mut play = Play::new(Rules { park_after: Some(Duration::from_secs(30)), reentry: master, ..rules() });
    play = play.logged_in();
    play.client("e ENABLE CONDSTORE\r\n");
    play.server("* ENABLED CONDSTORE\r\ne OK\r\n");
    play.forget();
    play = play.selected().idling();
    play.passes(Duration::from_secs(30));
    play.asks("mailpush4 NOOP\r\nmailpush5 UID SEARCH RETURN (ALL) ALL\r\n");
    play.server("mailpush4 OK\r\n* ESEARCH (TAG \"mailpush5\") UID ALL 1,3,5\r\nmailpush5 OK\r\n");
    play.passes(Duration::from_secs(1));
    play.asks("mailpush6 LOGOUT\r\n");
    play.does(&[Action::CloseUpstream]);
    play
}

#[test]
fn events_reach_a_parked_client() {
    let mut play = parked();
    play.event(appended(&[6]), Some((4, 7)));
    play.hears("* 4 EXISTS\r\n");
    play.event(expunged(&[3]), Some((3, 7)));
    play.hears("* 2 EXPUNGE\r\n");
    play.does(&[]);
}

#[test]
fn done_takes_the_connection_up_again_with_the_clients_own_state() {
    let mut play = parked();
    play.event(appended(&[6]), Some((4, 7)));
    play.hears("* 4 EXISTS\r\n");
    play.client("DONE\r\nc NOOP\r\n");
    play.does(&[Action::OpenUpstream { urgent: true }]);
    play.asks("");
    play.server("* OK [CAPABILITY IMAP4rev1] Ready\r\n");
    // base64 of alice NUL gw NUL gwpw
    play.asks("mailpush7 AUTHENTICATE PLAIN YWxpY2UAZ3cAZ3dwdw==\r\n");
    play.server("mailpush7 OK [CAPABILITY IMAP4rev1] In\r\n");
    play.asks("mailpush8 ENABLE CONDSTORE\r\nmailpush9 SELECT Team (CONDSTORE)\r\nmailpush10 UID SEARCH RETURN (ALL) ALL\r\n");
    play.server("* ENABLED CONDSTORE\r\nmailpush8 OK\r\n");
    play.server(SELECTED);
    play.server("mailpush9 OK\r\n* ESEARCH (TAG \"mailpush10\") UID ALL 1,3,6\r\nmailpush10 OK\r\n");
    play.hears("* 3 EXPUNGE\r\n* 0 RECENT\r\ni OK Idle completed\r\n");
    play.asks("c NOOP\r\n");
}

#[test]
fn after_a_loss_all_flags_are_read_again() {
    let mut play = parked();
    play.session.handle(play.now, Input::Resync);
    play.does(&[Action::OpenUpstream { urgent: false }]);
    play.server("* OK Ready\r\n");
    play.server("mailpush7 OK In\r\n");
    play.forget();
    play.server("mailpush8 OK\r\n");
    play.server(SELECTED);
    play.server("mailpush9 OK\r\n* ESEARCH (TAG \"mailpush10\") UID ALL 1,3,5\r\nmailpush10 OK\r\n");
    play.server("* 1 FETCH (UID 1 FLAGS (\\Seen) MODSEQ (5))\r\nmailpush11 OK\r\n");
    play.hears("* 1 FETCH (FLAGS (\\Seen) MODSEQ (5))\r\n* 0 RECENT\r\n");
}

#[test]
fn a_server_that_is_down_is_tried_again_and_a_waiting_client_not_for_ever() {
    let mut play = parked();
    play.client("DONE\r\n");
    play.does(&[Action::OpenUpstream { urgent: true }]);
    let mut attempts = 1;
    while !matches!(play.session.phase, Phase::Closed) {
        if play.is_asking() {
            play.session.handle(play.now, Input::UpstreamFailed);
        }
        play.passes(Duration::from_secs(2));
        attempts +=
            std::iter::from_fn(|| play.session.poll_action()).filter(|a| matches!(a, Action::OpenUpstream { .. })).count();
    }
    assert!(attempts > 5, "{attempts}");
    play.hears("* BYE [UNAVAILABLE] The mail server does not catch up: log in again\r\n");
}

#[test]
fn a_login_that_is_refused_ends_the_session() {
    let mut play = parked();
    play.client("DONE\r\n");
    play.server("* OK Ready\r\nmailpush7 NO [AUTHENTICATIONFAILED] No\r\n");
    play.hears("* BYE The mail server does not let you in any more\r\n");
}

#[test]
fn a_connection_that_breaks_is_as_good_as_parked() {
    let master = Reentry::MasterUser(Credentials::new("gw", "gwpw"));
    let mut play = Play::new(Rules { reentry: master, ..rules() }).logged_in().selected().idling();
    play.server("* BYE Shutting down\r\n");
    play.session.handle(play.now, Input::UpstreamClosed);
    play.hears("");
    play.event(appended(&[6]), Some((4, 7)));
    play.hears("* 4 EXISTS\r\n");
    play.client("DONE\r\n");
    play.does(&[Action::OpenUpstream { urgent: true }]);
}

#[test]
fn a_saved_search_result_is_not_parked() {
    let master = Reentry::MasterUser(Credentials::new("gw", "gwpw"));
    let mut play =
        Play::new(Rules { park_after: Some(Duration::from_secs(30)), reentry: master, ..rules() }).logged_in().selected();
    play.client("s SEARCH RETURN (SAVE) SEEN\r\n");
    play.server("s OK\r\n");
    play.forget();
    let mut play = play.idling();
    play.passes(Duration::from_secs(30));
    play.asks("");
    play.does(&[]);
}

#[test]
fn a_client_that_waits_is_let_pass() {
    let mut play = parked();
    play.session.handle(play.now, Input::Resync);
    play.does(&[Action::OpenUpstream { urgent: false }]);
    play.client("DONE\r\n");
    play.does(&[Action::OpenUpstream { urgent: true }]);
    play.server("* OK Ready\r\n");
    play.server("mailpush7 OK In\r\n");
    play.server("mailpush8 OK\r\n");
    play.server(SELECTED);
    play.server("mailpush9 OK\r\n* ESEARCH (TAG \"mailpush10\") UID ALL 1,3,5\r\nmailpush10 OK\r\n");
    play.server("mailpush11 OK\r\n");
    play.hears("* 0 RECENT\r\ni OK Idle completed\r\n");
}

#[test]
fn a_mailbox_that_is_busy_when_it_is_selected_again_is_asked_for_again() {
    for code in ["INUSE", "UNAVAILABLE", "LIMIT", "SERVERBUG"] {
        let mut play = parked();
        play.client("DONE\r\n");
        play.server("* OK Ready\r\nmailpush7 OK In\r\nmailpush8 OK\r\n");
        play.forget();
        play.server(&format!("mailpush9 NO [{code}] Later\r\nmailpush10 BAD No mailbox selected\r\nmailpush11 BAD\r\n"));
        play.hears("");
        play.does(&[]);
        play.passes(Duration::from_millis(40));
        play.asks("mailpush11 NOOP\r\nmailpush12 SELECT Team (CONDSTORE)\r\nmailpush13 UID SEARCH RETURN (ALL) ALL\r\n");
        play.server("mailpush11 OK\r\n");
        play.server(SELECTED);
        play.server("mailpush12 OK\r\n* ESEARCH (TAG \"mailpush13\") UID ALL 1,3,5\r\nmailpush13 OK\r\n");
        play.hears("* 0 RECENT\r\ni OK Idle completed\r\n");
    }
    // One that is gone ends the session.
    let mut play = parked();
    play.client("DONE\r\n");
    play.server("* OK Ready\r\nmailpush7 OK In\r\nmailpush8 OK\r\nmailpush9 NO [NONEXISTENT] Gone\r\nmailpush10 BAD\r\n");
    play.hears("* BYE The mailbox cannot be selected any more\r\n");
}

#[test]
fn a_login_that_is_busy_is_tried_again() {
    let mut play = parked();
    play.client("DONE\r\n");
    play.does(&[Action::OpenUpstream { urgent: true }]);
    play.server("* OK Ready\r\nmailpush7 NO [INUSE] Later\r\n");
    play.hears("");
    play.does(&[Action::CloseUpstream]);
    play.passes(Duration::from_millis(40));
    play.does(&[Action::OpenUpstream { urgent: true }]);
}
