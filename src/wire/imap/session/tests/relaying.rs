//! What is relayed, what is rewritten, and what is refused.

use super::*;

fn plain(starttls: bool) -> Play {
    let now = Instant::now();
    let setting = Setting { tls: false, starttls, plaintext_auth: false, seed: 0 };
    Play { session: Session::new(Arc::new(rules()), setting, now), now }
}

#[test]
fn capabilities_are_rewritten_wherever_they_appear() {
    let mut play = plain(true);
    play.server("* OK [CAPABILITY IMAP4rev1 SASL-IR AUTH=PLAIN COMPRESS=DEFLATE] Ready\r\n");
    play.hears("* OK [CAPABILITY IMAP4rev1 STARTTLS LOGINDISABLED IDLE] Ready\r\n");
    play.client("a CAPABILITY\r\n");
    play.asks("a CAPABILITY\r\n");
    play.server("* CAPABILITY IMAP4rev1 STARTTLS AUTH=PLAIN\r\na OK Done\r\n");
    play.hears("* CAPABILITY IMAP4rev1 STARTTLS LOGINDISABLED IDLE\r\na OK Done\r\n");
}

#[test]
fn a_list_that_a_login_yields_is_that_of_the_authenticated_state() {
    let mut play = plain(true);
    play.session.common.setting.plaintext_auth = true;
    // Dovecot says it so to clients that have asked before.
    play.client("a LOGIN alice apw\r\n");
    play.server("* CAPABILITY IMAP4rev1 NAMESPACE\r\na NO Not so\r\n");
    play.hears("* CAPABILITY IMAP4rev1 NAMESPACE IDLE\r\na NO Not so\r\n");
    assert!(!play.session.common.facts.offers_are_known, "it did not come to that");
    play.client("b LOGIN alice apw\r\n");
    play.server("* CAPABILITY IMAP4rev1 NAMESPACE\r\nb OK In\r\n");
    play.hears("* CAPABILITY IMAP4rev1 NAMESPACE IDLE\r\nb OK In\r\n");
    assert!(play.session.common.facts.offers_are_known);
}

#[test]
fn passwords_are_not_taken_in_plain_text() {
    let mut play = plain(true);
    play.client("a LOGIN alice {3}\r\n");
    play.hears("a NO [PRIVACYREQUIRED] Not without TLS: use STARTTLS or the TLS port\r\n");
    play.client("b LOGIN alice {3+}\r\napw\r\nc NOOP\r\n");
    play.hears("b NO [PRIVACYREQUIRED] Not without TLS: use STARTTLS or the TLS port\r\n");
    play.asks("c NOOP\r\n");
}

#[test]
fn what_follows_starttls_in_plain_text_is_nobodys() {
    let mut play = plain(true);
    play.client("a STARTTLS\r\nb LOGIN mallory x\r\n");
    play.hears("a OK Begin TLS\r\n");
    play.does(&[Action::StartTls]);
    assert!(!play.session.wants_client());
    play.session.handle(play.now, Input::Encrypted);
    play.client("c LOGIN alice apw\r\n");
    play.asks("c LOGIN alice apw\r\n");
    play.client("");
    play.server("c OK In\r\n");
    play.does(&[Action::Authenticated { user: Some("alice".into()) }]);
}

#[test]
fn commands_behind_a_login_wait_for_it() {
    let mut play = Play::new(rules());
    play.client("a LOGIN {5}\r\n");
    play.client("alice {3}\r\n");
    play.hears("+ Go on\r\n+ Go on\r\n");
    // Only once it is whole.
    play.asks("");
    play.client("apw\r\nb SELECT INBOX\r\n");
    play.asks("a LOGIN {5}\r\n");
    play.server("+ go on\r\n");
    play.asks("alice {3}\r\n");
    play.server("+ go on\r\n");
    play.asks("apw\r\n");
    play.hears("");
    play.server("a OK In\r\n");
    play.does(&[Action::Authenticated { user: Some("alice".into()) }]);
    play.asks("");
    play.session.handle(play.now, Input::Admission(Ok(None)));
    play.asks("b SELECT INBOX\r\n");
}

#[test]
fn a_password_that_is_no_atom_is_the_servers_to_take() {
    let mut play = Play::new(rules());
    play.client("a LOGIN ed p%d\r\n");
    play.hears("");
    play.asks("a LOGIN ed p%d\r\n");
    play.server("a OK In\r\n");
    play.does(&[Action::Authenticated { user: Some("ed".into()) }]);
}

#[test]
fn a_user_who_may_not_be_here_is_told_why() {
    let mut play = Play::new(rules());
    play.client("a LOGIN alice apw\r\n");
    play.server("a OK In\r\n");
    play.forget();
    play.session.handle(play.now, Input::Admission(Err("[LIMIT] Too many connections".into())));
    play.hears("* BYE [LIMIT] Too many connections\r\n");
    play.does(&[Action::Close { reason: "refused" }]);
}

#[test]
fn a_sasl_exchange_goes_by_line_by_line() {
    let mut play = Play::new(rules());
    play.client("a AUTHENTICATE PLAIN\r\n");
    play.client("b NOOP\r\n");
    play.asks("a AUTHENTICATE PLAIN\r\n");
    play.server("+ \r\n");
    // Held back until the server asked: it is the response now, whatever it looks like.
    play.asks("b NOOP\r\n");
    play.server("a BAD\r\n");
    play.client("c AUTHENTICATE PLAIN\r\n");
    play.server("+ \r\n");
    play.client("AGFsaWNlAGFwdw==\r\n");
    play.server("c OK In\r\n");
    play.does(&[Action::Authenticated { user: Some("alice".into()) }]);
}

#[test]
fn a_refused_literal_is_not_waited_for() {
    let mut play = Play::new(rules()).logged_in();
    play.client("a APPEND Nowhere {300000}\r\n");
    play.server("a NO [TRYCREATE] No such mailbox\r\n");
    play.client("b NOOP\r\n");
    play.asks("a APPEND Nowhere {300000}\r\nb NOOP\r\n");
}

#[test]
fn literals_pass_whatever_is_in_them() {
    let mut play = Play::new(rules()).logged_in();
    play.client("a APPEND INBOX {22+}\r\nx IDLE\r\n* BYE {9}\r\nabcdef\r\nb NOOP\r\n");
    play.asks("a APPEND INBOX {22+}\r\nx IDLE\r\n* BYE {9}\r\nabcdef\r\nb NOOP\r\n");
    let mail = "* 1 FETCH (BODY[] {28}\r\n* CAPABILITY COMPRESS=DEFLATE UID 7)\r\n";
    play.server(mail);
    play.hears(mail);
}

#[test]
fn compression_is_refused_and_rubbish_is_the_servers_to_refuse() {
    let mut play = Play::new(rules()).logged_in();
    play.client("a COMPRESS DEFLATE\r\n");
    play.hears("a NO [CANNOT] Compression is not possible here\r\n");
    play.client("\x01\x02)(\r\n");
    play.asks("\x01\x02)(\r\n");
}

#[test]
fn a_line_without_end_ends_the_session() {
    let mut play = Play::new(rules());
    play.client(&"x".repeat(9000));
    play.hears("* BYE line too long (limit 8192 bytes)\r\n");
    play.does(&[Action::Close { reason: "bad_input" }]);
}

#[test]
fn nobody_stays_without_logging_in() {
    let mut play = Play::new(rules());
    play.server("* OK Ready\r\n");
    play.forget();
    play.passes(Duration::from_secs(60));
    play.hears("* BYE Nobody has logged in for too long\r\n");
}

#[test]
fn when_the_server_closes_the_client_is_told_unless_it_was_in_the_middle() {
    let mut play = Play::new(rules()).logged_in();
    play.session.handle(play.now, Input::UpstreamClosed);
    play.hears("* BYE The mail server has closed the connection\r\n");
    let mut play = Play::new(rules()).logged_in();
    play.server("* 1 FETCH (BODY[] {100}\r\nabc");
    play.session.handle(play.now, Input::UpstreamClosed);
    play.hears("* 1 FETCH (BODY[] {100}\r\nabc");
    play.does(&[Action::Close { reason: "upstream_closed" }]);
}

#[test]
fn nobody_passes_for_another_by_a_literal_that_the_server_reads_as_a_command() {
    let mut play = Play::new(rules());
    play.client("a XFOO {20+}\r\nc LOGIN alice apw12\r\nd LOGIN bob {3+}\r\nbpw\r\n");
    play.hears("a BAD No literal may stand in this command before authentication\r\n");
    play.asks("d LOGIN bob {3+}\r\nbpw\r\n");
    play.client("\x01 LOGIN\r\n");
    play.server("d NO Wrong\r\n");
    play.hears("d NO Wrong\r\n* BAD Invalid tag\r\n");
    play.client("e LOGIN bob {99999}\r\nf AUTHENTICATE EXTERNAL =\r\n");
    play.hears("e BAD [TOOBIG] Too much before authentication\r\nf NO [CANNOT] This mechanism cannot pass a proxy\r\n");
    play.asks("");
}

#[test]
fn a_goodbye_is_said_once() {
    let mut play = Play::new(rules()).logged_in();
    play.client("z LOGOUT\r\n");
    play.server("* BYE Logging out\r\nz OK Done\r\n");
    play.session.handle(play.now, Input::UpstreamClosed);
    play.hears("* BYE Logging out\r\nz OK Done\r\n");
}

#[test]
fn idle_and_starttls_with_a_literal_are_refused_with_all_that_belongs_to_them() {
    let mut play = Play::new(rules()).logged_in();
    play.client("a STARTTLS {14+}\r\nb SELECT Foo\r\n\r\nc IDLE {3}\r\nd NOOP\r\n");
    play.hears("a BAD STARTTLS takes no arguments\r\nc BAD IDLE takes no arguments\r\n");
    play.asks("d NOOP\r\n");
}

#[test]
fn nobody_logs_in_twice() {
    let mut play = Play::new(rules()).logged_in();
    play.client("a LOGIN bob bpw\r\n");
    play.hears("a BAD You are logged in already\r\n");
    play.server("* PREAUTH Hello again\r\n");
    play.does(&[]);
}
