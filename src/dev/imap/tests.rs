//! Transcripts, and a client that believes only what it is told.

use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::session::{Session, Traits};
use crate::dev::store::mailbox::{Content, Stamp};
use crate::dev::store::messages::Arrival;
use crate::dev::store::model::{Limits, Model};
use crate::dev::store::names::Style;
use crate::mail::rights::Rights;
use crate::mail::{Flags, Uid, UserName};
use crate::wire::imap::credentials::Credentials;

const UNIX_MS: u64 = 1_700_000_000_000;
const MAIL: &str = "Date: Tue, 14 Nov 2023 22:13:20 +0000\r\nFrom: Bob <bob@example.org>\r\nTo: alice@example.org\r\n\
                    Subject: Lunch\r\nMessage-ID: <1@example.org>\r\n\r\nAt noon?\r\n";

fn user(name: &str) -> UserName {
    UserName::new(format!("{name}@example.org")).unwrap()
}

fn model() -> Model {
    let users = ["alice", "bob"].map(user).to_vec();
    let mut model = Model::new(users, Style::default(), Limits::default(), "here".to_owned(), 100);
    model.insert(&user("alice"), "Team").unwrap();
    model.grant(&user("alice"), "Team", &user("bob"), Rights::parse("lrs").unwrap());
    model
}

/// One connection, and the clock.
struct Client {
    session: Session,
    now: Instant,
}

impl Client {
    fn new(id: u64) -> Self {
        let traits = Traits { master: Credentials::new("gateway", "secret"), esearch: true, idle: true, condstore: true };
        let now = Instant::now();
        let mut client = Self { session: Session::new(id, traits, now), now };
        assert!(client.take().starts_with("* OK [CAPABILITY IMAP4rev1 "));
        client
    }

    fn logged_in(model: &mut Model, id: u64, name: &str) -> Self {
        let mut client = Self::new(id);
        assert!(client.say(model, &format!("a LOGIN {name} {name}")).contains("a OK [CAPABILITY "));
        client
    }

    fn take(&mut self) -> String {
        String::from_utf8(std::mem::take(&mut self.session.to_client)).unwrap()
    }

    fn say(&mut self, model: &mut Model, line: &str) -> String {
        self.session.handle_client(model, self.now, UNIX_MS, format!("{line}\r\n").as_bytes());
        self.take()
    }

    /// What comes by itself after so long.
    fn wait(&mut self, model: &mut Model, so_long: Duration) -> String {
        self.now += so_long;
        self.session.handle_time(model, self.now, UNIX_MS);
        self.take()
    }

    #[track_caller]
    fn expect(&mut self, model: &mut Model, line: &str, answer: &[&str]) {
        assert_eq!(self.say(model, line).lines().collect::<Vec<_>>(), answer, "after {line}");
    }

    fn append(&mut self, model: &mut Model, mailbox: &str) -> String {
        self.say(model, &format!("a APPEND {mailbox} {{{}+}}\r\n{MAIL}", MAIL.len()))
    }
}

#[test]
fn logins() {
    let mut model = model();
    let mut client = Client::new(1);
    assert!(client.say(&mut model, "a SELECT INBOX").starts_with("a BAD"));
    assert!(client.say(&mut model, "b LOGIN alice bob").starts_with("b NO [AUTHENTICATIONFAILED]"));
    assert_eq!(client.say(&mut model, "c AUTHENTICATE PLAIN"), "+ \r\n");
    assert!(client.say(&mut model, "*").starts_with("c BAD"));
    assert_eq!(client.say(&mut model, "d AUTHENTICATE PLAIN"), "+ \r\n");
    let plain = |text: &str| data_encoding::BASE64.encode(text.as_bytes());
    assert!(client.say(&mut model, &plain("\0bob@example.org\0bob")).starts_with("d OK [CAPABILITY "));
    assert!(client.say(&mut model, "e LOGIN alice alice").starts_with("e BAD"));
    // A master user is nobody without an authorization identity, and nobody else is a master.
    for (response, good) in [
        ("alice\0gateway\0secret", true),
        ("\0gateway\0secret", false),
        ("alice\0gateway\0guess", false),
        ("alice\0bob\0bob", false),
        ("alice\0alice\0alice", true),
    ] {
        let mut client = Client::new(2);
        let answer = client.say(&mut model, &format!("a AUTHENTICATE PLAIN {}", plain(response)));
        assert_eq!(answer.starts_with("a OK"), good, "{response:?}: {answer}");
    }
    let mut client = Client::new(3);
    assert_eq!(client.say(&mut model, "a LOGIN {5}"), "+ Go on\r\n");
    assert!(client.say(&mut model, "alice alice").starts_with("a OK"));
    assert!(client.say(&mut model, "b LOGOUT").ends_with("b OK Logged out\r\n") && client.session.is_closed());
}

#[test]
fn another_session_s_changes() {
    let mut model = model();
    let mut phone = Client::logged_in(&mut model, 1, "alice");
    let mut desk = Client::logged_in(&mut model, 2, "alice");
    for uid in 1..=3 {
        assert_eq!(desk.append(&mut model, "INBOX"), format!("a OK [APPENDUID 100 {uid}] Appended\r\n"));
    }
    let selected = phone.say(&mut model, "b SELECT INBOX");
    assert!(selected.contains("* 3 EXISTS\r\n* 3 RECENT\r\n* OK [UNSEEN 1]") && selected.contains("[UIDNEXT 4]"), "{selected}");
    assert!(desk.say(&mut model, "b SELECT INBOX").contains("* 3 EXISTS\r\n* 0 RECENT\r\n"));
    phone.expect(&mut model, "c IDLE", &["+ idling"]);
    desk.say(&mut model, "c STORE 2 +FLAGS (\\Deleted $Work)");
    let new_keyword = "* FLAGS (\\Answered \\Flagged \\Deleted \\Seen \\Draft $Work)\r\n* OK [PERMANENTFLAGS (\\Answered \\Flagged \
                       \\Deleted \\Seen \\Draft $Work \\*)] These can be changed\r\n* 2 FETCH (FLAGS ($Work \\Deleted \\Recent))\r\n";
    assert_eq!(phone.wait(&mut model, Duration::ZERO), new_keyword);
    desk.say(&mut model, "d EXPUNGE");
    desk.append(&mut model, "INBOX");
    desk.say(&mut model, "e STORE 3 FLAGS.SILENT (\\Seen)");
    // Told together: old numbers first.
    let told = "* 2 EXPUNGE\r\n* 3 EXISTS\r\n* 2 RECENT\r\n";
    assert_eq!(phone.wait(&mut model, Duration::ZERO), told);
    phone.expect(&mut model, "done", &["c OK IDLE is over"]);
    // By number, nothing may shift.
    desk.say(&mut model, "f STORE 1 +FLAGS.SILENT (\\Deleted)");
    desk.say(&mut model, "g EXPUNGE");
    phone.expect(&mut model, "d FETCH 1:2 (UID)", &["* 1 FETCH (UID 1)", "* 2 FETCH (UID 3)", "d OK Fetched"]);
    phone.expect(
        &mut model,
        "e UID FETCH 3 (FLAGS)",
        &["* 2 FETCH (UID 3 FLAGS (\\Recent))", "* 1 EXPUNGE", "* 1 RECENT", "e OK Fetched"],
    );
    phone.expect(&mut model, "f IDLE", &["+ idling"]);
    phone.expect(&mut model, "g NOOP", &["f BAD Expected DONE"]);
}

#[test]
fn condstore_and_qresync() {
    let mut model = model();
    let mut desk = Client::logged_in(&mut model, 1, "alice");
    (0..4).for_each(|_| drop(desk.append(&mut model, "INBOX")));
    desk.expect(&mut model, "b ENABLE QRESYNC X-WHATEVER", &["* ENABLED QRESYNC", "b OK Enabled"]);
    assert!(desk.say(&mut model, "c SELECT INBOX").contains("[HIGHESTMODSEQ 5]"));
    desk.expect(&mut model, "d STORE 1 +FLAGS.SILENT \\Seen", &["* 1 FETCH (UID 1 MODSEQ (6))", "d OK Stored"]);
    let refused = ["e OK [MODIFIED 1] Some have changed since"];
    let stored = [&["* 2 FETCH (UID 2 FLAGS (\\Deleted \\Recent) MODSEQ (7))"][..], &refused].concat();
    desk.expect(&mut model, "e STORE 1:2 (UNCHANGEDSINCE 5) +FLAGS (\\Deleted)", &stored);
    desk.expect(&mut model, "f EXPUNGE", &["* VANISHED 2", "* 3 RECENT", "f OK [HIGHESTMODSEQ 8] Expunged"]);
    let changed = ["* VANISHED (EARLIER) 2", "* 1 FETCH (UID 1 FLAGS (\\Seen \\Recent) MODSEQ (6))", "g OK Fetched"];
    desk.expect(&mut model, "g UID FETCH 1:* (FLAGS) (CHANGEDSINCE 5 VANISHED)", &changed);
    desk.expect(&mut model, "h SEARCH MODSEQ 6", &["* SEARCH 1 (MODSEQ 6)", "h OK Searched"]);
    let esearch = ["* ESEARCH (TAG \"i\") UID MIN 1 ALL 1,3:4 COUNT 3", "i OK Searched"];
    desk.expect(&mut model, "i UID SEARCH RETURN (ALL COUNT MIN) 1:*", &esearch);
    desk.expect(&mut model, "j SEARCH RETURN () DELETED", &["* ESEARCH (TAG \"j\")", "j OK Searched"]);

    let mut phone = Client::logged_in(&mut model, 2, "alice");
    assert!(phone.say(&mut model, "a SELECT INBOX (QRESYNC (100 5))").starts_with("a BAD"));
    phone.say(&mut model, "a ENABLE QRESYNC");
    let answer = phone.say(&mut model, "b SELECT INBOX (QRESYNC (100 5 1:3))");
    let (_, resynced) = answer.split_once("The highest\r\n").unwrap();
    assert_eq!(
        resynced,
        "* VANISHED (EARLIER) 2\r\n* 1 FETCH (UID 1 FLAGS (\\Seen) MODSEQ (6))\r\nb OK [READ-WRITE] Selected\r\n"
    );
    let answer = phone.say(&mut model, "c SELECT INBOX (QRESYNC (99 5))");
    assert!(answer.starts_with("* OK [CLOSED]") && !answer.contains("VANISHED"), "{answer}");
}

#[test]
fn rights() {
    let mut model = model();
    let mut alice = Client::logged_in(&mut model, 1, "alice");
    let mut bob = Client::logged_in(&mut model, 2, "bob");
    let team = "shared/alice@example.org/Team";
    alice.append(&mut model, "Team");
    bob.expect(&mut model, &format!("a MYRIGHTS {team}"), &[&format!("* MYRIGHTS \"{team}\" lrs"), "a OK Done"]);
    assert!(
        bob.say(&mut model, "b LIST \"\" *").contains("* LIST (\\HasNoChildren) \"/\" \"shared/alice@example.org/Team\"\r\n")
    );
    assert!(bob.say(&mut model, "c LIST \"\" %").contains("* LIST (\\Noselect \\HasChildren) \"/\" \"shared\"\r\n"));
    let selected = bob.say(&mut model, &format!("d SELECT {team}"));
    assert!(selected.contains("[PERMANENTFLAGS (\\Seen)]") && selected.contains("d OK [READ-WRITE]"), "{selected}");
    assert!(bob.say(&mut model, "e STORE 1 +FLAGS (\\Flagged)").starts_with("e NO [NOPERM]"));
    bob.expect(&mut model, "f STORE 1 +FLAGS (\\Flagged \\Seen)", &["* 1 FETCH (FLAGS (\\Seen \\Recent))", "f OK Stored"]);
    assert!(bob.say(&mut model, "g EXPUNGE").starts_with("g NO [NOPERM]"));
    assert!(bob.append(&mut model, team).starts_with("a NO [NOPERM]"));
    assert!(bob.say(&mut model, &format!("h GETACL {team}")).starts_with("h NO [NOPERM]"));
    // What may not be known of looks like what is not there (I-9).
    bob.say(&mut model, "h UNSELECT");
    let absent = bob.say(&mut model, "i SELECT shared/alice@example.org/Drafts");
    assert_eq!(absent, bob.say(&mut model, "i SELECT shared/alice@example.org/Nothing"));
    assert!(absent.contains("i NO [NONEXISTENT]"));
    bob.say(&mut model, &format!("j SELECT {team}"));
    bob.expect(&mut model, "k IDLE", &["+ idling"]);
    alice.expect(&mut model, "l SETACL Team bob -r", &["l OK Done"]);
    assert!(bob.wait(&mut model, Duration::ZERO).starts_with("* BYE ") && bob.session.is_closed());
    let acl = ["* ACL \"Team\" \"alice@example.org\" lrswipkxtea \"bob@example.org\" ls", "m OK Done"];
    alice.expect(&mut model, "m GETACL Team", &acl);
    alice.expect(&mut model, "n DELETEACL Team bob", &["n OK Done"]);
    let rights = model.outbox.iter().filter_map(|event| match &event.change {
        crate::mail::Change::AclChange { identifier, rights } => Some((identifier.as_str(), rights.as_str())),
        _ => None,
    });
    assert_eq!(rights.collect::<Vec<_>>(), [("bob@example.org", "ls"), ("bob@example.org", "")]);
}

#[test]
fn everybody_and_negative_entries_in_an_acl() {
    let mut model = model();
    let mut alice = Client::logged_in(&mut model, 1, "alice");
    let mut bob = Client::logged_in(&mut model, 2, "bob");
    let team = "shared/alice@example.org/Team";
    alice.expect(&mut model, "a SETACL Team anyone lri", &["a OK Done"]);
    alice.expect(&mut model, "b SETACL Team -Bob +rs", &["b OK Done"]);
    let acl = "* ACL \"Team\" \"alice@example.org\" lrswipkxtea \"anyone\" lri \"bob@example.org\" lrs \"-bob@example.org\" rs";
    alice.expect(&mut model, "c GETACL Team", &[acl, "c OK Done"]);
    bob.expect(&mut model, &format!("d MYRIGHTS {team}"), &[&format!("* MYRIGHTS \"{team}\" li"), "d OK Done"]);
    assert!(bob.say(&mut model, &format!("e SELECT {team}")).starts_with("e NO [NOPERM]"));
    // RFC 4314 3.2: DELETEACL of the one entry leaves the other alone.
    alice.expect(&mut model, "f DELETEACL Team bob", &["f OK Done"]);
    bob.expect(&mut model, &format!("g MYRIGHTS {team}"), &[&format!("* MYRIGHTS \"{team}\" li"), "g OK Done"]);
    alice.expect(&mut model, "h DELETEACL Team -bob", &["h OK Done"]);
    bob.expect(&mut model, &format!("i MYRIGHTS {team}"), &[&format!("* MYRIGHTS \"{team}\" lri"), "i OK Done"]);
    let granted = "* LISTRIGHTS \"Team\" \"-bob\" \"\" l r s w i p k x t e a";
    alice.expect(&mut model, "j LISTRIGHTS Team -bob", &[granted, "j OK Done"]);
    alice.expect(&mut model, "k LISTRIGHTS Team owner", &["* LISTRIGHTS \"Team\" \"owner\" lrswipkxtea", "k OK Done"]);
    for identifier in ["$staff", "dave", "owner", "-alice"] {
        assert!(alice.say(&mut model, &format!("l SETACL Team {identifier} lr")).starts_with("l NO [CANNOT]"), "{identifier}");
    }
    for rights in ["lrq", "L", "+-r"] {
        assert!(alice.say(&mut model, &format!("m SETACL Team bob {rights}")).starts_with("m BAD"), "{rights}");
    }
    let told = model.outbox.iter().filter_map(|event| match &event.change {
        crate::mail::Change::AclChange { identifier, rights } => Some((identifier.as_str(), rights.as_str())),
        _ => None,
    });
    let bob = "bob@example.org";
    let expected = [("anyone", "lri"), ("-bob@example.org", "rs"), (bob, ""), ("-bob@example.org", "")];
    assert_eq!(told.collect::<Vec<_>>(), expected);
}

#[test]
fn mailboxes_come_and_go() {
    let mut model = model();
    let mut alice = Client::logged_in(&mut model, 1, "alice");
    alice.expect(&mut model, "a CREATE a/b/c", &["a OK Done"]);
    assert!(alice.say(&mut model, "b CREATE inbox").starts_with("b NO [ALREADYEXISTS]"));
    alice.append(&mut model, "a/b");
    alice.expect(&mut model, "c RENAME a/b z", &["c OK Done"]);
    let list =
        ["* LIST (\\HasNoChildren) \"/\" \"a\"", "* LIST (\\HasChildren) \"/\" \"z\"", "* LIST (\\HasNoChildren) \"/\" \"z/c\""];
    let listed = alice.say(&mut model, "d LIST \"\" (a* z*)");
    assert_eq!(listed.lines().take(3).collect::<Vec<_>>(), list);
    let status = ["* STATUS \"z\" (MESSAGES 1 UIDNEXT 2 UNSEEN 1 RECENT 1 HIGHESTMODSEQ 2)", "e OK Done"];
    alice.expect(&mut model, "e STATUS z (MESSAGES UIDNEXT UNSEEN RECENT HIGHESTMODSEQ)", &status);
    alice.expect(&mut model, "f DELETE z", &["f OK Done"]);
    alice.expect(&mut model, "g LIST \"\" z", &["* LIST (\\Noselect \\HasChildren) \"/\" \"z\"", "g OK That is all"]);
    assert!(alice.say(&mut model, "h DELETE INBOX").starts_with("h NO [CANNOT]"));
    alice.append(&mut model, "INBOX");
    alice.expect(&mut model, "i RENAME INBOX Old", &["i OK Done"]);
    alice.expect(&mut model, "j STATUS Old (MESSAGES)", &["* STATUS \"Old\" (MESSAGES 1)", "j OK Done"]);
    alice.expect(&mut model, "k STATUS INBOX (MESSAGES)", &["* STATUS \"INBOX\" (MESSAGES 0)", "k OK Done"]);
    let special = ["* LIST (\\HasNoChildren \\Trash \\Subscribed) \"/\" \"Trash\"", "l OK That is all"];
    alice.expect(&mut model, "l LIST (SPECIAL-USE) \"\" T% RETURN (SUBSCRIBED)", &special);
    alice.expect(&mut model, "m CREATE \"Entw&APw-rfe\"", &["m OK Done"]);
    alice.expect(&mut model, "n SUBSCRIBE \"Entw&APw-rfe\"", &["n OK Done"]);
    alice.expect(&mut model, "o LSUB \"\" E*", &["* LSUB () \"/\" \"Entw&APw-rfe\"", "o OK Done"]);
    alice.expect(&mut model, "p NAMESPACE", &["* NAMESPACE ((\"\" \"/\")) ((\"shared/\" \"/\")) NIL", "p OK Done"]);
    assert!(model.outbox.iter().any(|event| event.mailbox.name() == "Entwürfe"));
}

#[test]
fn what_is_in_a_message() {
    let mut model = model();
    let mut alice = Client::logged_in(&mut model, 1, "alice");
    let nested = "From: a@x.org\r\nSubject: Inner\r\n\r\nInside\r\n";
    let mixed = format!(
        "From: =?utf-8?Q?J=C3=BCrgen?= <j@x.org>\r\nSubject: =?utf-8?Q?=C3=BC?=\r\nMIME-Version: 1.0\r\n\
         Content-Type: multipart/mixed; boundary=XX\r\n\r\nPreamble\r\n--XX\r\nContent-Type: text/plain; charset=utf-8\r\n\r\n\
         One\r\nTwo\r\n--XX\r\nContent-Type: message/rfc822\r\n\r\n{nested}\r\n--XX--\r\n"
    );
    alice.append(&mut model, "INBOX");
    alice.say(&mut model, &format!("a APPEND INBOX (\\Seen) \"14-Nov-2023 22:13:20 +0100\" {{{}+}}\r\n{mixed}", mixed.len()));
    alice.say(&mut model, "b SELECT INBOX");
    let envelope = "* 1 FETCH (ENVELOPE (\"Tue, 14 Nov 2023 22:13:20 +0000\" \"Lunch\" ((\"Bob\" NIL \"bob\" \"example.org\")) \
                    ((\"Bob\" NIL \"bob\" \"example.org\")) ((\"Bob\" NIL \"bob\" \"example.org\")) ((NIL NIL \"alice\" \"example.org\")) \
                    NIL NIL NIL \"<1@example.org>\"))";
    alice.expect(&mut model, "c FETCH 1 ENVELOPE", &[envelope, "c OK Fetched"]);
    let plain = "* 1 FETCH (BODY (\"text\" \"plain\" (\"charset\" \"us-ascii\") NIL NIL \"7bit\" 10 1))";
    alice.expect(&mut model, "d FETCH 1 BODY", &[plain, "d OK Fetched"]);
    let inner =
        "(NIL \"Inner\" ((NIL NIL \"a\" \"x.org\")) ((NIL NIL \"a\" \"x.org\")) ((NIL NIL \"a\" \"x.org\")) NIL NIL NIL NIL NIL)";
    let parts = format!(
        "* 2 FETCH (BODY ((\"text\" \"plain\" (\"charset\" \"utf-8\") NIL NIL \"7bit\" 8 1)(\"message\" \"rfc822\" NIL NIL NIL \"7bit\" \
         {} {inner} (\"text\" \"plain\" (\"charset\" \"us-ascii\") NIL NIL \"7bit\" 8 1) 4) \"mixed\"))",
        nested.len()
    );
    alice.expect(&mut model, "e FETCH 2 BODY", &[&parts, "e OK Fetched"]);
    let sections = [
        ("BODY.PEEK[1]", "One\r\nTwo"),
        ("BODY.PEEK[1.MIME]", "Content-Type: text/plain; charset=utf-8\r\n\r\n"),
        ("BODY.PEEK[2]", nested),
        ("BODY.PEEK[2.HEADER]", "From: a@x.org\r\nSubject: Inner\r\n\r\n"),
        ("BODY.PEEK[2.TEXT]", "Inside\r\n"),
        ("BODY.PEEK[2.1]", "Inside\r\n"),
        ("BODY.PEEK[2.HEADER.FIELDS (SUBJECT)]", "Subject: Inner\r\n\r\n"),
        ("BODY.PEEK[HEADER.FIELDS.NOT (From Subject Content-Type)]", "MIME-Version: 1.0\r\n\r\n"),
        ("BODY.PEEK[1]<2.3>", "e\r\n"),
        ("BODY.PEEK[]", &mixed),
    ];
    for (item, text) in sections {
        let answer = alice.say(&mut model, &format!("f FETCH 2 {item}"));
        assert!(answer.contains(&format!(" {{{}}}\r\n{text})\r\nf OK", text.len())), "{item}: {answer}");
    }
    assert!(
        alice.say(&mut model, "g FETCH 1 BODY.PEEK[HEADER.FIELDS (To \"Cc\")]").contains("BODY[HEADER.FIELDS (To \"Cc\")] {")
    );
    assert!(alice.say(&mut model, "g FETCH 2 BODY.PEEK[3]").contains("BODY[3] NIL)"));
    assert!(alice.say(&mut model, "h FETCH 2 INTERNALDATE").contains("\"14-Nov-2023 21:13:20 +0000\""));
    let read = alice.say(&mut model, "i FETCH 1 BODY[TEXT]");
    assert_eq!(read, "* 1 FETCH (BODY[TEXT] {10}\r\nAt noon?\r\n FLAGS (\\Seen \\Recent))\r\ni OK Fetched\r\n");
    for (keys, found) in [
        ("SUBJECT lunch", "1"),
        ("FROM \"Jürgen\"", "2"),
        ("BODY inside", "2"),
        ("OR SUBJECT Lunch BODY Two", "1 2"),
        ("NOT SEEN", ""),
        ("SENTON 14-Nov-2023", "1"),
        ("SINCE 14-Nov-2023 UID 2:*", "2"),
        ("LARGER 200 2", "2"),
        ("HEADER Message-ID 1@", "1"),
    ] {
        let line = format!("j SEARCH CHARSET UTF-8 {keys}");
        // 8-bit text comes in literals.
        let line = if keys.contains('ü') { "j SEARCH CHARSET UTF-8 FROM {7+}\r\nJürgen".to_owned() } else { line };
        let answer = alice.say(&mut model, &line);
        let numbers = answer.strip_prefix("* SEARCH").and_then(|rest| rest.split_once("\r\n")).map(|(numbers, _)| numbers.trim());
        assert_eq!(numbers, Some(found), "{keys}: {answer}");
    }
}

#[test]
fn copies_and_moves() {
    let mut model = model();
    let mut alice = Client::logged_in(&mut model, 1, "alice");
    (0..3).for_each(|_| drop(alice.append(&mut model, "INBOX")));
    alice.say(&mut model, "b SELECT INBOX");
    let uidvalidity = model.mailbox(model.named(&user("alice"), "Trash").unwrap()).unwrap().uidvalidity.get();
    alice.expect(&mut model, "c COPY 1:2 Trash", &[&format!("c OK [COPYUID {uidvalidity} 1:2 1:2] Copied")]);
    let moved = format!("* OK [COPYUID {uidvalidity} 1,3 3:4] Moved");
    alice.expect(&mut model, "d UID MOVE 1,3 Trash", &[&moved, "* 3 EXPUNGE", "* 1 EXPUNGE", "* 1 RECENT", "d OK Done"]);
    assert!(alice.say(&mut model, "e COPY 1 Nowhere").starts_with("e NO [TRYCREATE]"));
    assert!(alice.say(&mut model, "f COPY 9 Trash").starts_with("f BAD"));
    alice.expect(&mut model, "g UID COPY 9 Trash", &["g OK There was nothing to do"]);
    let types: Vec<&str> = model.outbox.iter().map(|event| event.change.event_type().as_str()).collect();
    assert_eq!(types[3..], ["MessageAppend", "MessageAppend", "MessageExpunge"]);
    let status = model.outbox.back().and_then(|event| event.status).unwrap();
    assert_eq!((status.messages, status.uidnext, status.unseen), (Some(1), Some(4), Some(1)));
}

#[test]
fn a_store_that_lags() {
    let mut model = model();
    let mut phone = Client::logged_in(&mut model, 1, "alice");
    let mut desk = Client::logged_in(&mut model, 2, "alice");
    desk.append(&mut model, "INBOX");
    phone.say(&mut model, "a SELECT INBOX");
    desk.say(&mut model, "a SELECT INBOX");
    model.faults.lag = Duration::from_secs(5);
    phone.now += Duration::from_secs(6);
    desk.now = phone.now;
    phone.say(&mut model, "b NOOP");
    let told = model.outbox.len();
    desk.expect(&mut model, "b STORE 1 FLAGS (\\Seen)", &["* 1 FETCH (FLAGS (\\Seen))", "b OK Stored"]);
    desk.append(&mut model, "INBOX");
    assert_eq!(model.outbox.len(), told + 2);
    phone.expect(&mut model, "c NOOP", &["c OK Nothing done"]);
    phone.expect(&mut model, "d IDLE", &["+ idling"]);
    assert_eq!(phone.session.poll_timeout(&model), Some(phone.now + Duration::from_secs(5)));
    assert_eq!(phone.wait(&mut model, Duration::from_secs(4)), "");
    assert_eq!(phone.wait(&mut model, Duration::from_secs(1)), "* 1 FETCH (FLAGS (\\Seen \\Recent))\r\n* 2 EXISTS\r\n");
    phone.say(&mut model, "DONE");
    // One's own message comes after those before it.
    desk.now = phone.now;
    desk.append(&mut model, "INBOX");
    assert!(phone.append(&mut model, "INBOX").starts_with("* 4 EXISTS\r\n"));
    desk.append(&mut model, "INBOX");
    let mut late = Client::logged_in(&mut model, 3, "alice");
    late.now = phone.now;
    assert!(late.say(&mut model, "a EXAMINE INBOX").contains("* 5 EXISTS"));
    model.faults.lag_at_select = true;
    assert!(late.say(&mut model, "b EXAMINE INBOX").contains("* 2 EXISTS"));
    late.now += Duration::from_secs(5);
    late.expect(&mut model, "c NOOP", &["* 5 EXISTS", "c OK Nothing done"]);
}

#[test]
fn limits() {
    let mut model = model();
    model.limits =
        Limits { message_bytes: 300, messages: 2, mailboxes: 6, keywords: 1, total_bytes: 5 * MAIL.len(), ..Limits::default() };
    let mut alice = Client::logged_in(&mut model, 1, "alice");
    assert_eq!(alice.say(&mut model, "a APPEND INBOX {301}"), "a NO [TOOBIG] The literal is too large\r\n");
    assert!(alice.append(&mut model, "INBOX").starts_with("a OK"));
    alice.append(&mut model, "INBOX");
    assert!(alice.append(&mut model, "INBOX").starts_with("a NO [LIMIT]"));
    assert!(alice.say(&mut model, "b CREATE x").starts_with("b OK"));
    assert!(alice.say(&mut model, "b CREATE y").starts_with("b NO [LIMIT]"));
    alice.append(&mut model, "x");
    alice.append(&mut model, "x");
    alice.append(&mut model, "Sent");
    assert!(alice.append(&mut model, "Sent").starts_with("a NO [OVERQUOTA]"));
    alice.say(&mut model, "c SELECT INBOX");
    assert!(alice.say(&mut model, "d STORE 1 +FLAGS (one two)").starts_with("d NO [LIMIT]"));
    alice.say(&mut model, "e STORE 1 FLAGS (\\Deleted)");
    alice.say(&mut model, "f EXPUNGE");
    assert!(alice.append(&mut model, "Sent").starts_with("a OK"));
    for rubbish in
        ["", " ", "x", "x y z", "* NOOP", "a FETCH 1:* (NONSENSE)", "a SEARCH (((((((((((ALL)))))))))))", "a\u{7f} NOOP"]
    {
        assert!(alice.say(&mut model, rubbish).contains(" BAD "), "{rubbish}");
    }
    alice.now += Duration::from_secs(3_600);
    assert_eq!(alice.wait(&mut model, Duration::ZERO), "* BYE Autologout\r\n");
}

/// What a client knows that believes only responses.
#[derive(Default)]
struct ResponseReader {
    /// UID, once known, and flags, by sequence number.
    messages: Vec<(Option<u32>, Option<String>)>,
}

impl ResponseReader {
    fn hear(&mut self, answer: &str, by_number: bool) {
        for line in answer.lines() {
            let words: Vec<&str> = line.splitn(4, ' ').collect();
            match words[..] {
                ["*", count, "EXISTS"] => {
                    let count: usize = count.parse().unwrap();
                    assert!(count >= self.messages.len(), "EXISTS shrinks");
                    self.messages.resize(count, (None, None));
                }
                ["*", number, "EXPUNGE"] => {
                    assert!(!by_number, "EXPUNGE while numbers are in use");
                    self.messages.remove(number.parse::<usize>().unwrap() - 1);
                }
                ["*", number, "FETCH", items] => {
                    let message = &mut self.messages[number.parse::<usize>().unwrap() - 1];
                    let uid = items.split_once("UID ").map(|(_, rest)| rest.split([' ', ')']).next().unwrap().parse().unwrap());
                    assert!(message.0.is_none() || uid.is_none() || message.0 == uid, "another message at {number}");
                    message.0 = message.0.or(uid);
                    if let Some((_, flags)) = items.split_once("FLAGS (") {
                        message.1 = Some(flags.split(')').next().unwrap().replace(" \\Recent", "").replace("\\Recent", ""));
                    }
                }
                _ => assert!(!line.contains(" BAD "), "{line}"),
            }
        }
    }

    fn say(&mut self, client: &mut Client, model: &mut Model, line: &str) {
        let verb = line.split(' ').nth(1).unwrap_or_default();
        let answer = client.say(model, line);
        self.hear(&answer, matches!(verb, "FETCH" | "STORE" | "SEARCH"));
    }
}

#[derive(Debug, Clone)]
enum Step {
    Append(usize),
    Deliver,
    Store { who: usize, number: usize, flags: &'static str, silent: bool },
    Expunge(usize),
    Move { who: usize, number: usize },
    Fetch(usize),
    Noop(usize),
    Idle(usize),
    Lag(u64),
    Pass(u64),
}

fn step() -> impl Strategy<Value = Step> {
    let who = 0..2usize;
    let flags =
        prop_oneof![Just("+FLAGS (\\Deleted)"), Just("+FLAGS (\\Seen $A)"), Just("-FLAGS (\\Seen)"), Just("FLAGS (\\Flagged)")];
    prop_oneof![
        3 => who.clone().prop_map(Step::Append),
        1 => Just(Step::Deliver),
        4 => (who.clone(), 1..8usize, flags, any::<bool>())
            .prop_map(|(who, number, flags, silent)| Step::Store { who, number, flags, silent }),
        2 => who.clone().prop_map(Step::Expunge),
        1 => (who.clone(), 1..8usize).prop_map(|(who, number)| Step::Move { who, number }),
        2 => who.clone().prop_map(Step::Fetch),
        1 => who.clone().prop_map(Step::Noop),
        1 => who.prop_map(Step::Idle),
        1 => (0..3u64).prop_map(Step::Lag),
        2 => (0..3u64).prop_map(Step::Pass),
    ]
}

proptest! {
    #[test]
    fn whoever_believes_the_store_is_right(steps in proptest::collection::vec(step(), 1..60)) {
        let mut model = model();
        let mut clients = [Client::logged_in(&mut model, 1, "alice"), Client::logged_in(&mut model, 2, "alice")];
        let inbox = model.named(&user("alice"), "INBOX").unwrap();
        clients[1].now = clients[0].now;
        let mut believers = [ResponseReader::default(), ResponseReader::default()];
        for (client, believer) in clients.iter_mut().zip(&mut believers) {
            believer.say(client, &mut model, "s SELECT INBOX");
        }
        for step in steps {
            let line = match step {
                Step::Append(who) => Some((who, format!("a APPEND INBOX {{{}+}}\r\n{MAIL}", MAIL.len()))),
                Step::Deliver => {
                    let stamp = Stamp { now: clients[0].now, unix_ms: UNIX_MS, session: 0 };
                    let content = Content { raw: MAIL.as_bytes().to_vec(), internaldate: UNIX_MS };
                    let new = vec![(Flags::default(), content.into())];
                    model.append(stamp, &user("alice"), inbox, new, Arrival::Delivered).unwrap();
                    None
                }
                Step::Store { who, number, flags, silent } if number <= believers[who].messages.len() => {
                    let flags = if silent { flags.replace("FLAGS", "FLAGS.SILENT") } else { flags.to_owned() };
                    Some((who, format!("a STORE {number} {flags}")))
                }
                Step::Move { who, number } if number <= believers[who].messages.len() => Some((who, format!("a MOVE {number} Trash"))),
                Step::Store { .. } | Step::Move { .. } => None,
                Step::Expunge(who) => Some((who, "a EXPUNGE".to_owned())),
                Step::Fetch(who) if !believers[who].messages.is_empty() => Some((who, "a FETCH 1:* (UID FLAGS)".to_owned())),
                Step::Fetch(_) => None,
                Step::Noop(who) => Some((who, "a NOOP".to_owned())),
                Step::Idle(who) => {
                    believers[who].say(&mut clients[who], &mut model, "a IDLE");
                    Some((who, "DONE".to_owned()))
                }
                Step::Lag(seconds) => {
                    model.faults.lag = Duration::from_secs(seconds);
                    None
                }
                Step::Pass(seconds) => {
                    clients.iter_mut().for_each(|client| client.now += Duration::from_secs(seconds));
                    None
                }
            };
            if let Some((who, line)) = line {
                believers[who].say(&mut clients[who], &mut model, &line);
            }
        }
        for (client, believer) in clients.iter_mut().zip(&mut believers) {
            client.now += Duration::from_secs(10);
            believer.say(client, &mut model, "z NOOP");
            let truth: Vec<(Uid, String)> = model.mailbox(inbox).unwrap().messages.iter()
                .map(|m| (m.uid, m.flags.iter().map(|flag| flag.as_str()).collect::<Vec<_>>().join(" "))).collect();
            prop_assert_eq!(believer.messages.len(), truth.len());
            let known: Vec<(Option<u32>, Option<String>)> = believer.messages.clone();
            believer.say(client, &mut model, "z UID FETCH 1:* (FLAGS)");
            for (((uid, flags), before), (real, real_flags)) in believer.messages.iter().zip(known).zip(&truth) {
                prop_assert_eq!(*uid, Some(real.get()));
                prop_assert_eq!(flags.as_deref(), Some(real_flags.as_str()));
                // What was known before was right; a STORE's .SILENT leaves its arithmetic to the
                // client.
                if let Some(uid) = before.0 {
                    prop_assert_eq!(uid, real.get());
                }
            }
            prop_assert_eq!(client.session.is_closed(), false);
        }
    }
}
