//! SETACL and DELETEACL seen to succeed.

use super::*;

fn changed(mailbox: &str, identifier: &str, rights: &str) -> Action {
    Action::AclChanged { mailbox: mailbox.parse().unwrap(), identifier: identifier.into(), rights: rights.into() }
}

/// Logged in, with the names known already.
fn named() -> Play {
    let mut play = Play::new(rules()).logged_in();
    play.client("n NAMESPACE\r\n");
    play.asks("n NAMESPACE\r\n");
    play.server(&format!("{NAMESPACE}n OK Done\r\n"));
    play.hears(&format!("{NAMESPACE}n OK Done\r\n"));
    play
}

#[test]
fn what_a_mailbox_name_means_is_asked_in_front_of_the_first_change() {
    let mut play = Play::new(rules()).logged_in();
    play.client("a SETACL Team bob lrs\r\n");
    play.asks("mailpush1 NAMESPACE\r\na SETACL Team bob lrs\r\n");
    // While the client waits for its answer, anything may be told, and is.
    play.server(&format!("* 1 EXPUNGE\r\n{NAMESPACE}mailpush1 OK Done\r\n"));
    play.hears("* 1 EXPUNGE\r\n");
    play.does(&[]);
    play.server("a OK Setacl complete\r\n");
    play.hears("a OK Setacl complete\r\n");
    play.does(&[changed(TEAM, "bob@example.org", "lrs")]);
    // Known from now on, to IDLE as well.
    play.client("b DELETEACL Team bob\r\n");
    play.asks("b DELETEACL Team bob\r\n");
    play.server("b OK\r\n");
    play.does(&[changed(TEAM, "bob@example.org", "")]);
}

#[test]
fn several_at_once_keep_their_order() {
    let mut play = Play::new(rules()).logged_in();
    play.client("a SETACL Team bob lr\r\nb SETACL Team -bob r\r\nc NAMESPACE\r\nd DELETEACL Team anyone\r\n");
    play.asks(
        "mailpush1 NAMESPACE\r\na SETACL Team bob lr\r\nb SETACL Team -bob r\r\nc NAMESPACE\r\nd DELETEACL Team anyone\r\n",
    );
    play.server(&format!("{NAMESPACE}mailpush1 OK\r\na OK\r\nb NO [NOPERM] No\r\n{NAMESPACE}c OK\r\nd OK\r\n"));
    // One answer to the client's own question.
    play.hears(&format!("a OK\r\nb NO [NOPERM] No\r\n{NAMESPACE}c OK\r\nd OK\r\n"));
    play.does(&[changed(TEAM, "bob@example.org", "lr"), changed(TEAM, "anyone", "")]);
}

#[test]
fn an_answer_that_comes_before_the_names_waits_for_them() {
    let mut play = Play::new(rules()).logged_in();
    play.client("a SETACL Team bob lr\r\n");
    play.server("a OK\r\n");
    play.hears("a OK\r\n");
    play.does(&[]);
    play.server(&format!("{NAMESPACE}mailpush1 OK\r\n"));
    play.hears("");
    play.does(&[changed(TEAM, "bob@example.org", "lr")]);
    // Where the names do not come, that is told too.
    let mut play = Play::new(rules()).logged_in();
    play.client("a SETACL Team bob lr\r\n");
    play.server("a OK\r\nmailpush1 NO Not now\r\n");
    play.does(&[Action::AclNotUnderstood]);
    let mut play = Play::new(rules()).logged_in();
    play.client("a SETACL Team bob lr\r\n");
    play.server("a OK\r\n");
    play.session.handle(play.now, Input::UpstreamClosed);
    play.does(&[Action::AclNotUnderstood, Action::Close { reason: "upstream_closed" }]);
}

#[test]
fn every_spelling_of_the_arguments_is_understood() {
    for (command, identifier, rights) in [
        ("SETACL Team Bob lrs", "bob@example.org", "lrs"),
        ("setacl \"Team\" \"bob\" \"srl\"", "bob@example.org", "lrs"),
        ("SETACL {4+}\r\nTeam {3+}\r\nbob {2+}\r\nlr", "bob@example.org", "lr"),
        ("SETACL shared/alice/Team bob@other.org +w", "bob@other.org", "+w"),
        ("SETACL shared/ALICE@example.org/Team -bob -ts", "-bob@example.org", "-st"),
        ("SETACL Team $staff cd", "group:staff", "kxte"),
        ("SETACL Team bob lrtd", "bob@example.org", "lrxte"),
        ("SETACL Team -group:staff lr", "-group:staff", "lr"),
        // A right that only the server knows.
        ("SETACL Team anyone +nl", "anyone", "+l"),
        ("SETACL Team authenticated \"\"", "authenticated", ""),
        ("DELETEACL Team owner", "owner", ""),
        ("deleteacl \"Team\" {7+}\r\n-anyone", "-anyone", ""),
    ] {
        let mut play = named();
        play.client(&format!("a {command}\r\n"));
        play.asks(&format!("a {command}\r\n"));
        play.server("a OK Done\r\n");
        play.does(&[changed(TEAM, identifier, rights)]);
    }
}

#[test]
fn a_mailbox_has_one_path_whoever_names_it() {
    for (name, utf8, path) in [
        ("inbox", false, "#private:alice@example.org:INBOX"),
        ("shared/bob/InBox", false, "#private:bob@example.org:INBOX"),
        ("Entw&APw-rfe", false, "#private:alice@example.org:Entw\u{fc}rfe"),
        ("\"shared/bob/Entw\u{fc}rfe\"", true, "#private:bob@example.org:Entw\u{fc}rfe"),
    ] {
        let mut play = named();
        if utf8 {
            play.client("e ENABLE UTF8=ACCEPT\r\n");
            play.server("* ENABLED UTF8=ACCEPT\r\ne OK\r\n");
        }
        play.client(&format!("a SETACL {name} bob lr\r\n"));
        play.server("a OK\r\n");
        play.does(&[changed(path, "bob@example.org", "lr")]);
    }
}

#[test]
fn literals_that_the_server_asks_for_are_understood() {
    let mut play = named();
    play.client("a SETACL {4}\r\n");
    play.server("+ go on\r\n");
    play.client("Team bob {2}\r\n");
    play.server("+ go on\r\n");
    play.client("lr\r\n");
    play.asks("a SETACL {4}\r\nTeam bob {2}\r\nlr\r\n");
    play.server("a OK\r\n");
    play.hears("+ go on\r\n+ go on\r\na OK\r\n");
    play.does(&[changed(TEAM, "bob@example.org", "lr")]);
    // One that it refuses changes nothing.
    play.client("b SETACL {4000}\r\n");
    play.server("b NO Too long\r\n");
    play.does(&[]);
}

#[test]
fn what_did_not_succeed_is_not_told() {
    let mut play = named();
    play.client("a SETACL Team bob lrs\r\nb SETACL Team bob lrQ\r\nc DELETEACL Team bob\r\nd SETACL Team\r\n");
    play.server(
        "a NO [NOPERM] Permission denied\r\nb BAD Uppercase rights are not allowed\r\nc NO\r\nd BAD Missing arguments\r\n",
    );
    play.does(&[]);
}

#[test]
fn what_succeeded_and_is_not_understood_is_said_to_be_so() {
    let long = "x".repeat(40_000);
    for command in [
        format!("SETACL {{{}+}}\r\n{long} bob lr", long.len()),
        "SETACL shared//Team bob lr".to_owned(),
        "SETACL Team bob lr more".to_owned(),
    ] {
        let mut play = named();
        play.client(&format!("a {command}\r\n"));
        play.server("a OK\r\n");
        play.does(&[Action::AclNotUnderstood]);
    }
}

#[test]
fn what_the_server_has_not_answered_is_counted() {
    let mut play = named();
    play.client("a SETACL Team bob lr\r\nb NOOP\r\nc DELETEACL Team bob\r\nd SETACL Team eve lr\r\n");
    assert_eq!(play.session.unanswered_acl_changes(), 3);
    play.server("a OK\r\nb OK\r\nc NO\r\n");
    assert_eq!(play.session.unanswered_acl_changes(), 1);
    play.session.handle(play.now, Input::UpstreamClosed);
    assert_eq!(play.session.unanswered_acl_changes(), 1);
}

#[test]
fn an_identifier_that_only_the_server_knows_is_told_as_it_is() {
    for identifier in ["!staff", "group:", "\"\""] {
        let mut play = named();
        play.client(&format!("a SETACL Team {identifier} l\r\n"));
        play.server("a OK\r\n");
        let mailbox = "#private:alice@example.org:Team".parse().unwrap();
        let identifier = identifier.trim_matches('"').to_owned();
        play.does(&[Action::AclChanged { mailbox, identifier, rights: "l".to_owned() }]);
    }
}

#[test]
fn without_namespace_the_delimiter_tells() {
    let mut play = Play::new(rules()).logged_in();
    play.session.common.facts.offers.namespace = false;
    play.client("l LIST \"\" \"\"\r\na SETACL Work.Team bob lr\r\n");
    play.asks("l LIST \"\" \"\"\r\nmailpush1 LIST \"\" \"\"\r\na SETACL Work.Team bob lr\r\n");
    let list = "* LIST (\\Noselect) \".\" \"\"\r\n";
    play.server(&format!("{list}l OK\r\n{list}mailpush1 OK\r\na OK\r\n"));
    play.hears(&format!("{list}l OK\r\na OK\r\n"));
    play.does(&[changed("#private:alice@example.org:Work/Team", "bob@example.org", "lr")]);
    // A server that has not said what it offers is asked for both.
    let mut play = Play::new(rules()).logged_in();
    (play.session.common.facts.offers, play.session.common.facts.offers_are_known) = Default::default();
    play.client("a SETACL Work.Team bob lr\r\n");
    play.asks("mailpush1 NAMESPACE\r\nmailpush2 LIST \"\" \"\"\r\na SETACL Work.Team bob lr\r\n");
    play.server(&format!("mailpush1 BAD Unknown command\r\n{list}mailpush2 OK\r\na OK\r\n"));
    play.hears("a OK\r\n");
    play.does(&[changed("#private:alice@example.org:Work/Team", "bob@example.org", "lr")]);
}

#[test]
fn idle_behind_a_change_waits_for_the_gateways_own_question_too() {
    let mut play = Play::new(rules()).logged_in().selected();
    play.client("a SETACL Team bob lr\r\ni IDLE\r\n");
    play.asks("mailpush1 NAMESPACE\r\na SETACL Team bob lr\r\n");
    play.server(&format!("{NAMESPACE}mailpush1 OK\r\na OK\r\n"));
    play.hears("a OK\r\n");
    play.does(&[changed(TEAM, "bob@example.org", "lr"), Action::Watch(TEAM.parse().unwrap())]);
}

#[test]
fn a_clients_tag_is_its_own() {
    let mut play = Play::new(rules()).logged_in();
    play.client("mailpush1 NOOP\r\na SETACL Team bob lr\r\n");
    play.asks("mailpush1 NOOP\r\nmailpush2 NAMESPACE\r\na SETACL Team bob lr\r\n");
    play.server(&format!("mailpush1 OK\r\n{NAMESPACE}mailpush2 OK\r\na OK\r\n"));
    play.hears("mailpush1 OK\r\na OK\r\n");
}
