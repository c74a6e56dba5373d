//! Rights on another's mailbox, asked for on the user's own connection.

use super::*;
use crate::mail::path::PRIVATE;
use crate::mail::rights::Rights;

const BOBS: &str = "#private:bob@example.org:Team";
const GONE: &str = "* BYE You may not read this mailbox any more\r\n";

fn asking() -> Rules {
    Rules { asks_rights: vec![PRIVATE], ..rules() }
}

fn bobs() -> MailboxPath {
    BOBS.parse().unwrap()
}

fn told(letters: &str) -> Action {
    Action::Rights { mailbox: bobs(), rights: Some(Rights::parse(letters).unwrap()) }
}

fn unknown() -> Action {
    Action::Rights { mailbox: bobs(), rights: None }
}

fn revoked() -> [Action; 2] {
    [Action::Unwatch(bobs()), Action::Close { reason: "revoked" }]
}

/// Logged in, and bob's mailbox is selected.
fn selected(rules: Rules, acl: bool) -> Play {
    let mut play = Play::new(rules).logged_in();
    play.session.common.facts.offers.acl = acl;
    play.client("b SELECT shared/bob/Team\r\n");
    play.server(SELECTED);
    play.server("b OK [READ-WRITE] Done\r\n");
    play.forget();
    play
}

/// The client has asked for IDLE, and the snapshot is being asked for: with `mailpush2` to
/// `mailpush4`.
fn preparing(rules: Rules) -> Play {
    let mut play = selected(rules, true);
    play.client("i IDLE\r\n");
    play.server(&format!("{NAMESPACE}mailpush1 OK\r\n"));
    play.does(&[Action::Watch(bobs())]);
    play.forget();
    play.session.handle(play.now, Input::Registration { mailbox: &bobs(), registration: Registration::Settled });
    play.asks("mailpush2 NOOP\r\nmailpush3 UID SEARCH RETURN (ALL) ALL\r\n");
    play
}

/// What the server answers to NOOP, SEARCH and MYRIGHTS, the first with this number; `rights` is
/// MYRIGHTS's answer.
fn answers(play: &mut Play, first: u32, uids: &str, rights: &str) {
    let [search, mine] = [first + 1, first + 2];
    play.session.out.to_upstream.clear();
    play.server(&format!("mailpush{first} OK\r\n* ESEARCH (TAG \"mailpush{search}\") UID ALL {uids}\r\nmailpush{search} OK\r\n"));
    play.asks(&format!("mailpush{mine} MYRIGHTS shared/bob/Team\r\n"));
    play.server(&rights.replace("TAG", &format!("mailpush{mine}")));
}

const READ: &str = "* MYRIGHTS shared/bob/Team lrs\r\nTAG OK\r\n";

fn idling(rules: Rules) -> Play {
    let mut play = preparing(rules);
    answers(&mut play, 2, "1,3,5", READ);
    play.hears("+ idling\r\n");
    play.does(&[told("lrs")]);
    play.now += Duration::from_secs(11);
    play
}

fn event(play: &mut Play, change: Change) {
    let event = Event { id: EventId::now(), mailbox: bobs(), uidvalidity: UidValidity::new(9), change, ..sample() };
    play.session.handle(play.now, Input::Event(&event));
}

#[test]
fn they_are_asked_for_with_the_snapshot_and_at_every_look() {
    let mut play = idling(asking());
    event(&mut play, appended(&[6]));
    play.hears("* 4 EXISTS\r\n");
    play.client("DONE\r\n");
    play.asks("mailpush5 NOOP\r\nmailpush6 UID SEARCH RETURN (ALL) ALL\r\n");
    play.server("* 4 EXISTS\r\n");
    answers(&mut play, 5, "1,3,5:6", READ);
    play.hears("i OK Idle completed\r\n");
    play.does(&[told("lrs"), Action::Unwatch(bobs())]);
}

#[test]
fn ones_own_mailboxes_and_other_namespaces_are_not_asked_about() {
    Play::new(asking()).logged_in().selected().idling();
    let mut play = selected(Rules { asks_rights: vec!["#shared"], ..rules() }, false);
    play.client("i IDLE\r\n");
    play.server(&format!("{NAMESPACE}mailpush1 OK\r\n"));
    play.forget();
    play.session.handle(play.now, Input::Registration { mailbox: &bobs(), registration: Registration::Settled });
    play.asks("mailpush2 NOOP\r\nmailpush3 UID SEARCH RETURN (ALL) ALL\r\n");
}

#[test]
fn rights_that_are_lost_end_the_session_and_nothing_is_told_before() {
    for rights in [
        "* MYRIGHTS shared/bob/Team l\r\nTAG OK\r\n",
        "* MYRIGHTS shared/bob/Team rs\r\nTAG OK\r\n",
        "* MYRIGHTS shared/bob/Team \"\"\r\nTAG OK\r\n",
        "TAG NO [NONEXISTENT] No such mailbox\r\n",
        "TAG NO [NOPERM] Permission denied\r\n",
        "TAG NO No\r\n",
    ] {
        let mut play = idling(asking());
        play.session.handle(play.now, Input::RightsCheck(&bobs()));
        play.forget();
        // A new message, a new keyword, a flag.
        play.server("* 4 EXISTS\r\n* FLAGS (\\Seen $Secret)\r\n* 1 FETCH (FLAGS ($Secret))\r\n");
        answers(&mut play, 5, "1,3,5:6", rights);
        play.hears(GONE);
        let left =
            Rights::parse(rights.split("Team ").nth(1).map_or("", |text| text.split("\r\n").next().unwrap().trim_matches('"')));
        let mut expected = vec![Action::Rights { mailbox: bobs(), rights: left.ok() }];
        expected.extend(revoked());
        play.does(&expected);
    }
}

#[test]
fn rights_that_are_gone_before_the_client_idles_end_the_session() {
    let mut play = preparing(asking());
    answers(&mut play, 2, "1,3,5", "TAG NO [NONEXISTENT] No\r\n");
    play.hears(GONE);
    let [unwatch, close] = revoked();
    play.does(&[told(""), unwatch, close]);
}

#[test]
fn without_an_answer_nothing_is_told_and_it_is_asked_again() {
    let no_answers = [
        "TAG NO [UNAVAILABLE] Later\r\n",
        "TAG NO [serverbug] Internal error\r\n",
        "TAG OK\r\n",
        // It offers ACL.
        "TAG BAD Unknown command\r\n",
    ];
    for no_answer in no_answers {
        let mut play = idling(asking());
        play.session.handle(play.now, Input::RightsCheck(&bobs()));
        play.forget();
        play.server("* 4 EXISTS\r\n* FLAGS (\\Seen $Work)\r\n* 1 FETCH (FLAGS ($Work))\r\n");
        answers(&mut play, 5, "1,3,5:6", no_answer);
        play.hears("");
        play.does(&[unknown()]);
        play.passes(Duration::from_secs(1));
        play.asks("mailpush8 NOOP\r\nmailpush9 UID SEARCH RETURN (ALL) ALL\r\nmailpush10 UID FETCH 1 (FLAGS)\r\n");
        play.server("mailpush8 OK\r\n* ESEARCH (TAG \"mailpush9\") UID ALL 1,3,5:6\r\nmailpush9 OK\r\n");
        play.server("* 1 FETCH (UID 1 FLAGS ($Work))\r\nmailpush10 OK\r\n");
        play.hears("");
        play.asks("mailpush11 MYRIGHTS shared/bob/Team\r\n");
        play.server("* MYRIGHTS shared/bob/Team lr\r\nmailpush11 OK\r\n");
        play.hears("* FLAGS (\\Seen $Work)\r\n* 1 FETCH (FLAGS ($Work))\r\n* 4 EXISTS\r\n");
        play.does(&[told("lr")]);
    }
}

#[test]
fn without_an_answer_at_first_the_client_idles_and_it_is_asked_again() {
    let mut play = preparing(asking());
    answers(&mut play, 2, "1,3,5", "TAG NO [UNAVAILABLE] Later\r\n");
    play.hears("+ idling\r\n");
    play.does(&[unknown()]);
    play.passes(Duration::from_secs(1));
    play.asks("mailpush5 NOOP\r\nmailpush6 UID SEARCH RETURN (ALL) ALL\r\n");
    answers(&mut play, 5, "1,3,5", READ);
    play.does(&[told("lrs")]);
}

#[test]
fn what_the_server_says_unasked_waits_for_rights_too() {
    let mut play = idling(asking());
    play.server("* FLAGS (\\Seen $Secret)\r\n");
    play.asks("mailpush5 NOOP\r\nmailpush6 UID SEARCH RETURN (ALL) ALL\r\n");
    answers(&mut play, 5, "1,3,5", READ);
    play.hears("* FLAGS (\\Seen $Secret)\r\n");
    play.server("* 1 FETCH (FLAGS ($Secret))\r\n");
    play.hears("");
    play.asks("mailpush8 NOOP\r\nmailpush9 UID SEARCH RETURN (ALL) ALL\r\nmailpush10 UID FETCH 1 (FLAGS)\r\n");
    play.server("mailpush8 OK\r\n* ESEARCH (TAG \"mailpush9\") UID ALL 1,3,5\r\nmailpush9 OK\r\n");
    play.server("* 1 FETCH (UID 1 FLAGS ($Secret))\r\nmailpush10 OK\r\nmailpush11 NO [NOPERM]\r\n");
    play.hears(GONE);
}

#[test]
fn a_check_that_comes_while_rights_are_being_told_is_made_again() {
    let mut play = idling(asking());
    play.session.handle(play.now, Input::RightsCheck(&bobs()));
    play.forget();
    // They are still to be asked for.
    play.session.handle(play.now, Input::RightsCheck(&bobs()));
    answers(&mut play, 5, "1,3,5", READ);
    play.does(&[told("lrs")]);
    play.asks("");
    play.session.handle(play.now, Input::RightsCheck(&bobs()));
    play.server("mailpush8 OK\r\n* ESEARCH (TAG \"mailpush9\") UID ALL 1,3,5\r\nmailpush9 OK\r\n");
    play.forget();
    // What is asked already does not settle a new doubt.
    play.session.handle(play.now, Input::RightsCheck(&bobs()));
    play.server("* MYRIGHTS shared/bob/Team lr\r\nmailpush10 OK\r\n");
    play.does(&[unknown()]);
    play.asks("mailpush11 NOOP\r\nmailpush12 UID SEARCH RETURN (ALL) ALL\r\n");
    answers(&mut play, 11, "1,3,5", READ);
    play.does(&[told("lrs")]);
    // The same while the snapshot is read.
    let mut play = preparing(asking());
    play.server("mailpush2 OK\r\n* ESEARCH (TAG \"mailpush3\") UID ALL 1,3,5\r\nmailpush3 OK\r\n");
    play.forget();
    play.session.handle(play.now, Input::RightsCheck(&bobs()));
    play.server("* MYRIGHTS shared/bob/Team lr\r\nmailpush4 OK\r\n");
    play.hears("+ idling\r\n");
    play.asks("mailpush5 NOOP\r\nmailpush6 UID SEARCH RETURN (ALL) ALL\r\n");
    // One for another mailbox, or none, is nothing.
    let mut play = idling(asking());
    play.session.handle(play.now, Input::RightsCheck(&TEAM.parse().unwrap()));
    play.asks("");
    let mut play = selected(asking(), true);
    play.session.handle(play.now, Input::RightsCheck(&bobs()));
    play.asks("");
}

#[test]
fn they_are_looked_at_with_the_audit() {
    let mut play = idling(asking());
    loop {
        play.passes(Duration::from_secs(600));
        if !play.session.out.to_upstream.is_empty() {
            break;
        }
    }
    play.asks("mailpush5 NOOP\r\nmailpush6 UID SEARCH RETURN (ALL) ALL\r\n");
}

#[test]
fn a_server_without_acl_serves_the_mailbox_itself() {
    let mut play = selected(asking(), false);
    play.client("i IDLE\r\n");
    play.server(&format!("{NAMESPACE}mailpush1 OK\r\n"));
    play.asks("mailpush1 NAMESPACE\r\nmailpush2 IDLE\r\n");
    play.does(&[]);
    play.server("+ idling\r\n* 4 EXISTS\r\n");
    play.hears("+ idling\r\n* 4 EXISTS\r\n");
    play.client("DONE\r\n");
    play.asks("DONE\r\n");
    play.server("mailpush2 OK\r\n");
    play.hears("i OK Idle completed\r\n");
    // One that offers it and does not understand the question has not answered.
    let mut play = preparing(asking());
    answers(&mut play, 2, "1,3,5", "TAG BAD Unknown command\r\n");
    play.hears("+ idling\r\n");
    play.does(&[unknown()]);
    play.passes(Duration::from_secs(1));
    play.asks("mailpush5 NOOP\r\nmailpush6 UID SEARCH RETURN (ALL) ALL\r\n");
}

#[test]
fn while_the_server_idles_itself_its_idle_is_left_to_ask() {
    let mut play = idling(asking());
    play.session.handle(play.now, Input::Health(false));
    play.forget();
    answers(&mut play, 5, "1,3,5", READ);
    play.asks("mailpush8 IDLE\r\n");
    play.does(&[told("lrs")]);
    // Before it has begun.
    play.session.handle(play.now, Input::RightsCheck(&bobs()));
    play.asks("");
    play.server("+ idling\r\n");
    play.asks("DONE\r\n");
    play.server("* 4 EXISTS\r\nmailpush8 OK\r\n");
    play.asks("mailpush9 MYRIGHTS shared/bob/Team\r\n");
    play.server("* MYRIGHTS shared/bob/Team lr\r\nmailpush9 OK\r\n");
    play.hears("* 4 EXISTS\r\n");
    play.does(&[told("lr")]);
    play.asks("mailpush10 IDLE\r\n");
    play.server("+ idling\r\n");
    // While it runs; and the client leaves meanwhile.
    play.session.handle(play.now, Input::RightsCheck(&bobs()));
    play.asks("DONE\r\n");
    play.server("mailpush10 OK\r\n");
    play.asks("mailpush11 MYRIGHTS shared/bob/Team\r\n");
    play.client("DONE\r\n");
    play.server("* MYRIGHTS shared/bob/Team lr\r\nmailpush11 OK\r\n");
    play.hears("i OK Idle completed\r\n");
    play.asks("");
}

#[test]
fn lost_while_the_server_idles_itself() {
    let mut play = idling(asking());
    play.session.handle(play.now, Input::Health(false));
    answers(&mut play, 5, "1,3,5", READ);
    play.server("+ idling\r\n");
    play.session.handle(play.now, Input::RightsCheck(&bobs()));
    play.server("mailpush8 OK\r\n");
    play.forget();
    play.server("mailpush9 NO [NONEXISTENT]\r\n");
    play.hears(GONE);
    let [unwatch, close] = revoked();
    play.does(&[told(""), unwatch, close]);
}

#[test]
fn a_server_without_idle_is_asked_in_between() {
    let mut play = idling(asking());
    play.session.common.facts.offers.idle = false;
    play.session.handle(play.now, Input::Health(false));
    answers(&mut play, 5, "1,3,5", READ);
    play.forget();
    play.session.handle(play.now, Input::RightsCheck(&bobs()));
    play.asks("mailpush8 MYRIGHTS shared/bob/Team\r\n");
    // And once more, while it is being asked.
    play.session.handle(play.now, Input::RightsCheck(&bobs()));
    play.asks("");
    play.server("* MYRIGHTS shared/bob/Team lr\r\nmailpush8 OK\r\n");
    play.asks("mailpush9 MYRIGHTS shared/bob/Team\r\n");
    play.server("* MYRIGHTS shared/bob/Team lr\r\nmailpush9 OK\r\n");
    play.does(&[unknown(), told("lr")]);
    loop {
        play.passes(Duration::from_secs(15));
        if !play.session.out.to_upstream.is_empty() {
            break;
        }
    }
    play.asks("mailpush10 NOOP\r\n");
    play.session.handle(play.now, Input::RightsCheck(&bobs()));
    play.server("mailpush10 OK\r\n");
    play.asks("mailpush11 MYRIGHTS shared/bob/Team\r\n");
}

fn parked() -> Play {
    let rules = Rules { park_after: Some(Duration::from_secs(30)), reentry: Reentry::Credentials, ..asking() };
    let mut play = idling(rules);
    play.passes(Duration::from_secs(30));
    play.forget();
    answers(&mut play, 5, "1,3,5", READ);
    play.passes(Duration::from_secs(1));
    play.asks("mailpush8 LOGOUT\r\n");
    play.does(&[told("lrs"), Action::CloseUpstream]);
    play
}

#[test]
fn a_parked_session_takes_a_connection_up_to_ask() {
    let mut play = parked();
    play.session.handle(play.now, Input::RightsCheck(&bobs()));
    play.does(&[Action::OpenUpstream { urgent: false }]);
    play.server("* OK Ready\r\n");
    play.asks("mailpush9 LOGIN alice apw\r\n");
    play.server("mailpush9 OK In\r\n");
    play.asks("mailpush10 SELECT shared/bob/Team\r\nmailpush11 UID SEARCH RETURN (ALL) ALL\r\n");
    play.server(SELECTED);
    play.server("mailpush10 OK\r\n* ESEARCH (TAG \"mailpush11\") UID ALL 1,3,5\r\nmailpush11 OK\r\n");
    play.asks("mailpush12 MYRIGHTS shared/bob/Team\r\n");
    play.server("* MYRIGHTS shared/bob/Team lr\r\nmailpush12 OK\r\n");
    play.hears("* 0 RECENT\r\n");
    play.does(&[told("lr")]);
}

#[test]
fn a_parked_session_that_may_not_select_any_more_ends() {
    let mut play = parked();
    play.session.handle(play.now, Input::RightsCheck(&bobs()));
    play.forget();
    play.server("* OK Ready\r\nmailpush9 OK In\r\n");
    play.server("mailpush10 NO Mailbox doesn't exist\r\nmailpush11 BAD No mailbox selected\r\nmailpush12 NO [NONEXISTENT]\r\n");
    play.hears(GONE);
    let [unwatch, close] = revoked();
    play.does(&[told(""), unwatch, close]);
}

#[test]
fn a_parked_session_that_cannot_connect_says_that_it_does_not_know() {
    let mut play = parked();
    play.session.handle(play.now, Input::RightsCheck(&bobs()));
    play.does(&[Action::OpenUpstream { urgent: false }]);
    play.session.handle(play.now, Input::UpstreamFailed);
    play.does(&[unknown()]);
    play.passes(Duration::from_secs(1));
    play.does(&[Action::OpenUpstream { urgent: false }]);
}

#[test]
fn the_gateways_own_decision_ends_idle_in_every_stage() {
    // Before the client is told that it idles.
    let mut play = preparing(asking());
    play.session.handle(play.now, Input::Revoked(&bobs()));
    play.hears(GONE);
    play.does(&revoked());
    // While it idles.
    let mut play = idling(asking());
    play.session.handle(play.now, Input::Revoked(&TEAM.parse().unwrap()));
    play.hears("");
    play.session.handle(play.now, Input::Revoked(&bobs()));
    play.hears(GONE);
    play.does(&revoked());
    // While the server idles itself.
    let mut play = idling(asking());
    play.session.handle(play.now, Input::Health(false));
    answers(&mut play, 5, "1,3,5", READ);
    play.server("+ idling\r\n");
    play.forget();
    play.session.handle(play.now, Input::Revoked(&bobs()));
    play.hears(GONE);
    play.does(&revoked());
    // After it has idled.
    let mut play = idling(asking());
    play.client("DONE\r\n");
    answers(&mut play, 5, "1,3,5", READ);
    play.forget();
    play.session.handle(play.now, Input::Revoked(&bobs()));
    play.hears("");
    play.does(&[]);
}

#[test]
fn with_a_new_name_the_rights_are_asked_for_anew() {
    // One's own becomes another's.
    let mut play = Play::new(asking()).logged_in();
    play.session.common.facts.offers.acl = true;
    let mut play = play.selected().idling();
    play.event(Change::MailboxRename { to: bobs() }, None);
    play.does(&[Action::Unwatch(TEAM.parse().unwrap()), Action::Watch(bobs())]);
    play.session.handle(play.now, Input::Registration { mailbox: &bobs(), registration: Registration::Settled });
    play.asks(
        "mailpush4 SELECT shared/bob@example.org/Team\r\nmailpush5 UID SEARCH RETURN (ALL) ALL\r\n\
         mailpush6 UID FETCH 1:* (FLAGS)\r\n",
    );
    // And another's one's own.
    let mut play = idling(asking());
    event(&mut play, Change::MailboxRename { to: TEAM.parse().unwrap() });
    play.session.handle(play.now, Input::Registration { mailbox: &TEAM.parse().unwrap(), registration: Registration::Settled });
    play.asks("mailpush5 SELECT Team\r\nmailpush6 UID SEARCH RETURN (ALL) ALL\r\nmailpush7 UID FETCH 1:* (FLAGS)\r\n");
}

#[test]
fn a_mailbox_that_is_moved_while_rights_are_asked_for_is_not_taken_for_lost() {
    let mut play = idling(asking());
    play.session.handle(play.now, Input::RightsCheck(&bobs()));
    play.forget();
    let crew: MailboxPath = "#private:bob@example.org:Crew".parse().unwrap();
    event(&mut play, Change::MailboxRename { to: crew.clone() });
    answers(&mut play, 5, "1,3,5", "TAG NO [NONEXISTENT]\r\n");
    play.hears("");
    play.does(&[Action::Unwatch(bobs()), Action::Watch(crew.clone())]);
    play.session.handle(play.now, Input::Registration { mailbox: &crew, registration: Registration::Settled });
    play.asks(
        "mailpush8 SELECT shared/bob/Crew\r\nmailpush9 UID SEARCH RETURN (ALL) ALL\r\n\
         mailpush10 UID FETCH 1:* (FLAGS)\r\n",
    );
}

#[test]
fn a_mailbox_that_is_deleted_while_rights_are_asked_for_is_told_to_be_deleted() {
    const DELETED: &str = "* BYE The mailbox has been deleted\r\n";
    // The server says that there is no such mailbox.
    let mut play = preparing(asking());
    event(&mut play, Change::MailboxDelete);
    answers(&mut play, 2, "1,3,5", "TAG NO [NONEXISTENT] Gone\r\n");
    play.hears(DELETED);
    // It closes.
    let mut play = preparing(asking());
    event(&mut play, Change::MailboxDelete);
    play.session.handle(play.now, Input::UpstreamClosed);
    play.hears(DELETED);
    // The gateway has found out by itself that there is nothing to read.
    let mut play = preparing(asking());
    event(&mut play, Change::MailboxDelete);
    play.session.handle(play.now, Input::Revoked(&bobs()));
    play.hears(DELETED);
}

#[test]
fn a_literal_in_the_answer_is_read() {
    let mut play = idling(asking());
    play.session.handle(play.now, Input::RightsCheck(&bobs()));
    answers(&mut play, 5, "1,3,5", "* MYRIGHTS {15}\r\nshared/bob/Team {2}\r\nlr\r\nTAG OK\r\n");
    play.hears("");
    play.does(&[told("lr")]);
}
