//! Where the gateway asks for rights itself: nothing that levelling finds is told before they are
//! known (I-10).

use super::*;

fn withheld() -> Action {
    Action::Withheld(TEAM.parse().unwrap())
}

/// Idles, and `reading` is what the gateway knows.
fn idling(reading: Reading) -> Play {
    let mut play = Play::new(rules()).logged_in().selected().idling();
    play.session.handle(play.now, Input::Reading(reading));
    play
}

/// The server's answers to NOOP and SEARCH, the first with this number.
fn answers(play: &mut Play, first: u32, noop: &str, uids: &str) {
    let search = first + 1;
    play.asks(&format!("mailpush{first} NOOP\r\nmailpush{search} UID SEARCH RETURN (ALL) ALL\r\n"));
    play.server(&format!("{noop}mailpush{first} OK\r\n"));
    play.server(&format!("* ESEARCH (TAG \"mailpush{search}\") UID ALL {uids}\r\nmailpush{search} OK\r\n"));
}

#[test]
fn while_they_are_not_known_a_look_tells_nothing_and_is_repeated() {
    let mut play = idling(Reading::Unknown);
    // Something was lost, a right perhaps.
    play.session.handle(play.now, Input::Resync);
    answers(&mut play, 4, "* 4 EXISTS\r\n* FLAGS (\\Seen $Work)\r\n* 1 FETCH (FLAGS ($Work))\r\n", "1,3,5:6");
    play.hears("");
    play.does(&[withheld()]);
    play.passes(Duration::from_secs(1));
    play.asks("mailpush6 NOOP\r\nmailpush7 UID SEARCH RETURN (ALL) ALL\r\nmailpush8 UID FETCH 1 (FLAGS)\r\n");
    // The source has answered meanwhile.
    play.session.handle(play.now, Input::Reading(Reading::Allowed));
    play.server("mailpush6 OK\r\n* ESEARCH (TAG \"mailpush7\") UID ALL 1,3,5:6\r\nmailpush7 OK\r\n");
    play.server("* 1 FETCH (UID 1 FLAGS ($Work))\r\nmailpush8 OK\r\n");
    play.hears("* FLAGS (\\Seen $Work)\r\n* 1 FETCH (FLAGS ($Work))\r\n* 4 EXISTS\r\n");
    play.does(&[]);
}

#[test]
fn that_the_mailbox_is_gone_is_told_although_they_are_not_known_any_more() {
    let mut play = idling(Reading::Allowed);
    play.session.handle(play.now, Input::Resync);
    play.event(Change::MailboxDelete, None);
    // It is another mailbox's rights that would be asked for from here on.
    play.session.handle(play.now, Input::Reading(Reading::Unknown));
    answers(&mut play, 4, "", "1,3,5");
    play.hears("* BYE The mailbox has been deleted\r\n");
}

#[test]
fn the_audit_tells_nothing_either() {
    let mut play = idling(Reading::Unknown);
    loop {
        play.passes(Duration::from_secs(600));
        if !play.session.out.to_upstream.is_empty() {
            break;
        }
    }
    play.session.out.to_client.clear();
    answers(&mut play, 4, "* 1 EXPUNGE\r\n", "3,5");
    play.hears("");
    play.does(&[withheld()]);
    // Nor does what the server says by itself.
    play.passes(Duration::from_secs(1));
    answers(&mut play, 6, "", "3,5");
    play.server("* FLAGS (\\Seen $Secret)\r\n* 1 FETCH (FLAGS ($Secret))\r\n");
    play.hears("");
}

#[test]
fn what_is_denied_is_not_told_and_its_end_is_somebody_elses_to_tell() {
    let mut play = idling(Reading::Denied);
    play.session.handle(play.now, Input::Resync);
    answers(&mut play, 4, "* 4 EXISTS\r\n", "1,3,5:6");
    play.hears("");
    play.does(&[]);
    play.client("DONE\r\n");
    answers(&mut play, 6, "", "1,3,5:6");
    play.hears("");
    play.session.handle(play.now, Input::Revoked(&TEAM.parse().unwrap()));
    play.hears("* BYE You may not read this mailbox any more\r\n");
}

#[test]
fn at_the_end_of_idle_the_source_is_waited_for_a_moment_and_then_it_is_the_servers_word() {
    let mut play = idling(Reading::Unknown);
    play.client("DONE\r\n");
    let begun = play.now;
    answers(&mut play, 4, "* 4 EXISTS\r\n", "1,3,5:6");
    for number in 3.. {
        play.passes(Duration::from_secs(1));
        play.hears("");
        answers(&mut play, number * 2, "", "1,3,5:6");
        if !play.session.out.to_client.is_empty() {
            break;
        }
    }
    play.hears("* 4 EXISTS\r\ni OK Idle completed\r\n");
    assert!((1..3).contains(&(play.now - begun).as_secs()), "{:?}", play.now - begun);
}

#[test]
fn while_the_cluster_is_ill_the_server_tells_as_without_us() {
    let mut play = idling(Reading::Unknown);
    play.session.handle(play.now, Input::Health(false));
    answers(&mut play, 4, "* 4 EXISTS\r\n", "1,3,5:6");
    play.hears("* 4 EXISTS\r\n");
    play.asks("mailpush6 IDLE\r\n");
    play.server("+ idling\r\n* 5 EXISTS\r\n");
    play.hears("* 5 EXISTS\r\n");
    // Where nobody can say what the user may do, too.
    let mut play = idling(Reading::Unknown);
    play.stands(Registration::Unavailable);
    answers(&mut play, 4, "* 4 EXISTS\r\n", "1,3,5:6");
    play.hears("* 4 EXISTS\r\n");
    play.asks("mailpush6 IDLE\r\n");
}

#[test]
fn an_answer_of_ours_that_cannot_be_read_is_not_the_clients() {
    let mut play = Play::new(Rules { asks_rights: vec![crate::mail::path::PRIVATE], ..rules() }).logged_in();
    play.session.common.facts.offers.acl = true;
    play.client("b SELECT shared/bob/Team\r\n");
    play.server(SELECTED);
    play.server("b OK Done\r\n");
    play.client("i IDLE\r\n");
    play.server(&format!("{NAMESPACE}mailpush1 OK\r\n"));
    let bobs = "#private:bob@example.org:Team".parse().unwrap();
    play.session.handle(play.now, Input::Registration { mailbox: &bobs, registration: Registration::Settled });
    play.server("mailpush2 OK\r\n* ESEARCH (TAG \"mailpush3\") UID ALL 1,3,5\r\nmailpush3 OK\r\n");
    play.forget();
    play.server("* myrights shared/bob/Team lr (nonsense)\r\nmailpush4 OK\r\n");
    play.hears("+ idling\r\n");
    play.does(&[Action::Rights { mailbox: bobs, rights: None }]);
}
