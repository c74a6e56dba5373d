//! The mailbox that the client idles on gets another name.

use super::*;

fn path(text: &str) -> MailboxPath {
    text.parse().unwrap()
}

fn news(play: &mut Play, of: &str, change: Change) {
    let event = Event { id: EventId::now(), mailbox: path(of), uidvalidity: UidValidity::new(9), change, ..sample() };
    play.session.handle(play.now, Input::Event(&event));
}

fn renamed(play: &mut Play, from: &str, to: &str) {
    news(play, from, Change::MailboxRename { to: path(to) });
}

const CREW: &str = "#private:alice@example.org:Crew";
const INBOX: &str = "#private:alice@example.org:INBOX";

/// Idles on INBOX.
fn on_inbox() -> Play {
    let mut play = Play::new(rules()).logged_in();
    play.client("b SELECT inbox\r\n");
    play.server(SELECTED);
    play.server("b OK [READ-WRITE] Done\r\n");
    play.forget();
    play.client("i IDLE\r\n");
    play.server(&format!("{NAMESPACE}mailpush1 OK\r\n"));
    play.session.handle(play.now, Input::Registration { mailbox: &path(INBOX), registration: Registration::Settled });
    play.server("mailpush2 OK\r\n* ESEARCH (TAG \"mailpush3\") UID ALL 1,3,5\r\nmailpush3 OK\r\n");
    play.hears("+ idling\r\n");
    play.forget();
    play.now += Duration::from_secs(11);
    play
}

#[test]
fn inbox_stays_and_is_looked_at_anew() {
    let mut play = on_inbox();
    renamed(&mut play, INBOX, "#private:alice@example.org:Old");
    play.does(&[]);
    play.asks("mailpush4 SELECT inbox\r\nmailpush5 UID SEARCH RETURN (ALL) ALL\r\nmailpush6 UID FETCH 1:* (FLAGS)\r\n");
    play.server("* 1 EXISTS\r\n* OK [UIDVALIDITY 9]\r\n* OK [UIDNEXT 7]\r\nmailpush4 OK\r\n");
    play.server("* ESEARCH (TAG \"mailpush5\") UID ALL 6\r\nmailpush5 OK\r\n* 1 FETCH (UID 6 FLAGS ())\r\nmailpush6 OK\r\n");
    play.hears("* 3 EXPUNGE\r\n* 2 EXPUNGE\r\n* 1 EXPUNGE\r\n* 1 EXISTS\r\n");
    // It is watched still.
    news(&mut play, INBOX, appended(&[7]));
    play.hears("* 2 EXISTS\r\n");
}

#[test]
fn an_inbox_made_anew_ends_the_session() {
    let mut play = on_inbox();
    renamed(&mut play, INBOX, "#private:alice@example.org:Old");
    play.server("* 0 EXISTS\r\n* OK [UIDVALIDITY 10]\r\n* OK [UIDNEXT 1]\r\nmailpush4 OK\r\n");
    play.server("* ESEARCH (TAG \"mailpush5\") UID\r\nmailpush5 OK\r\nmailpush6 OK\r\n");
    play.hears("* BYE The mailbox has been made anew (UIDVALIDITY)\r\n");
}

#[test]
fn an_account_with_another_name_takes_its_inbox_along() {
    let mut play = on_inbox();
    let to = "#private:alice.smith@example.org:INBOX";
    renamed(&mut play, INBOX, to);
    play.does(&[Action::Unwatch(path(INBOX)), Action::Watch(path(to))]);
    play.session.handle(play.now, Input::Registration { mailbox: &path(to), registration: Registration::Settled });
    play.asks(
        "mailpush4 SELECT shared/alice.smith@example.org\r\nmailpush5 UID SEARCH RETURN (ALL) ALL\r\n\
         mailpush6 UID FETCH 1:* (FLAGS)\r\n",
    );
    play.server("mailpush4 NO [NONEXISTENT] No such mailbox\r\nmailpush5 BAD\r\nmailpush6 BAD\r\n");
    play.hears("* BYE The mailbox cannot be selected any more\r\n");
}

#[test]
fn an_owner_is_spelled_as_the_client_spells_it() {
    let bobs = path("#private:bob@example.org:Team");
    for (name, to, renamed_to) in [
        ("shared/bob/Team", "#private:bob@example.org:New", "shared/bob/New"),
        ("shared/bob/Team", "#private:bob@example.org:INBOX", "shared/bob"),
        ("shared/BOB/Team", "#private:bob@example.org:Old/New", "shared/BOB/Old/New"),
        ("shared/bob@example.org/Team", "#private:bob@example.org:New", "shared/bob@example.org/New"),
        // The owner is called otherwise now.
        ("shared/bob/Team", "#private:robert@example.org:Team", "shared/robert/Team"),
        ("shared/bob@example.org/Team", "#private:robert@example.org:Team", "shared/robert@example.org/Team"),
        ("shared/bob/Team", "#private:robert@other.org:Team", "shared/robert@other.org/Team"),
        ("shared/bob/Team", "#private:alice@example.org:Team", "Team"),
    ] {
        let mut play = Play::new(rules()).logged_in();
        play.client(&format!("b SELECT {name}\r\n"));
        play.server(SELECTED);
        play.server("b OK [READ-WRITE] Done\r\n");
        play.forget();
        play.client("i IDLE\r\n");
        play.server(&format!("{NAMESPACE}mailpush1 OK\r\n"));
        play.session.handle(play.now, Input::Registration { mailbox: &bobs, registration: Registration::Settled });
        play.server("mailpush2 OK\r\n* ESEARCH (TAG \"mailpush3\") UID ALL 1,3,5\r\nmailpush3 OK\r\n");
        play.forget();
        news(&mut play, bobs.to_string().as_str(), Change::MailboxRename { to: path(to) });
        play.does(&[Action::Unwatch(bobs.clone()), Action::Watch(path(to))]);
        play.session.handle(play.now, Input::Registration { mailbox: &path(to), registration: Registration::Settled });
        let asked = String::from_utf8(std::mem::take(&mut play.session.out.to_upstream)).unwrap();
        assert!(asked.starts_with(&format!("mailpush4 SELECT {renamed_to}\r\n")), "{name}: {asked}");
    }
}

#[test]
fn a_mailbox_that_has_no_name_here_any_more_ends_the_session() {
    let mut play = Play::new(rules()).logged_in().selected().idling();
    renamed(&mut play, TEAM, "#shared::Team");
    play.hears("* BYE The mailbox has been moved out of your sight\r\n");
    play.does(&[Action::Unwatch(path(TEAM)), Action::Close { reason: "mailbox_renamed" }]);
}

#[test]
fn the_same_news_once_more_is_only_looked_at() {
    let mut play = Play::new(rules()).logged_in().selected().idling();
    // The parent's event, made one of this mailbox; then the mailbox's own.
    renamed(&mut play, TEAM, CREW);
    play.does(&[Action::Unwatch(path(TEAM)), Action::Watch(path(CREW))]);
    renamed(&mut play, TEAM, CREW);
    play.does(&[]);
    play.asks("mailpush4 SELECT Crew\r\nmailpush5 UID SEARCH RETURN (ALL) ALL\r\nmailpush6 UID FETCH 1:* (FLAGS)\r\n");
    play.server("* 3 EXISTS\r\n* OK [UIDVALIDITY 9]\r\n* OK [UIDNEXT 6]\r\nmailpush4 OK\r\n");
    play.server("* ESEARCH (TAG \"mailpush5\") UID ALL 1,3,5\r\nmailpush5 OK\r\nmailpush6 OK\r\n");
    play.hears("");
    // Another is moved to where this one was, which is nothing to this one.
    renamed(&mut play, "#private:alice@example.org:Other", TEAM);
    news(&mut play, TEAM, appended(&[99]));
    play.hears("");
    play.asks("");
    news(&mut play, CREW, appended(&[6]));
    play.hears("* 4 EXISTS\r\n");
}

#[test]
fn another_that_is_moved_onto_its_name_is_noticed() {
    let mut play = Play::new(rules()).logged_in().selected().idling();
    renamed(&mut play, "#private:alice@example.org:Other", TEAM);
    play.does(&[]);
    play.asks("mailpush4 NOOP\r\nmailpush5 UID SEARCH RETURN (ALL) ALL\r\n");
}

#[test]
fn a_new_name_that_comes_before_the_registration_is_the_one_to_wait_for() {
    let mut play = Play::new(rules()).logged_in().selected();
    play.client("i IDLE\r\n");
    play.server(&format!("{NAMESPACE}mailpush1 OK\r\n"));
    play.forget();
    renamed(&mut play, TEAM, CREW);
    play.does(&[Action::Unwatch(path(TEAM)), Action::Watch(path(CREW))]);
    play.stands(Registration::Settled);
    play.asks("");
    play.session.handle(play.now, Input::Registration { mailbox: &path(CREW), registration: Registration::Settled });
    play.asks("mailpush2 NOOP\r\nmailpush3 UID SEARCH RETURN (ALL) ALL\r\n");
    play.server("mailpush2 OK\r\n* ESEARCH (TAG \"mailpush3\") UID ALL 1,3,5\r\nmailpush3 OK\r\n");
    play.hears("+ idling\r\n");
    play.event(appended(&[6]), None);
    play.hears("");
    news(&mut play, CREW, appended(&[6]));
    play.hears("* 4 EXISTS\r\n");
}

#[test]
fn while_the_server_idles_itself_inbox_is_its_business() {
    let mut play = on_inbox();
    play.session.handle(play.now, Input::Health(false));
    play.server("mailpush4 OK\r\n* ESEARCH (TAG \"mailpush5\") UID ALL 1,3,5\r\nmailpush5 OK\r\n+ idling\r\n");
    play.forget();
    renamed(&mut play, INBOX, "#private:alice@example.org:Old");
    play.does(&[]);
    play.asks("");
}
