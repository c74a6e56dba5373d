use imap_codec::CommandCodec;
use imap_codec::decode::Decoder;
use imap_codec::imap_types::command::CommandBody;
use proptest::prelude::*;

use super::*;

fn command(text: &str) -> Result<Command<'_>, &'static str> {
    parse(text.as_bytes()).map(|(_, command)| command).map_err(|bad| bad.words)
}

fn login(user: &str, password: &str) -> Command<'static> {
    Command::Login(Login { user: user.into(), password: Zeroizing::new(password.into()) })
}

fn select(mailbox: &str, condstore: bool, qresync: bool) -> Command<'static> {
    Command::Select(Select { mailbox: mailbox.into(), read_only: false, condstore, qresync })
}

fn authenticate(mechanism: &str, initial: Option<&str>) -> Command<'static> {
    let initial = initial.map(|text| Zeroizing::new(text.into()));
    Command::Authenticate(Authenticate { mechanism: mechanism.into(), initial })
}

#[test]
fn heads() {
    for (line, tag, name, uid) in [
        ("a001 NOOP\r\n", "a001", Name::Noop, false),
        ("a001 noop\n", "a001", Name::Noop, false),
        ("1 uid fetch 1:* FLAGS\r\n", "1", Name::Fetch, true),
        (". IDLE\r\n", ".", Name::Idle, false),
        ("A] XFOO {5}\r\n", "A]", Name::Other, false),
        ("a LOGOUT \r\n", "a", Name::Logout, false),
        ("a UID STORE 1 +FLAGS (\\Seen)\r\n", "a", Name::Store, true),
        ("a UID XFOO\r\n", "a", Name::Other, true),
        // Some clients put two spaces.
        ("a  SELECT x\r\n", "a", Name::Select, false),
        ("a UNAUTHENTICATE\r\n", "a", Name::Unauthenticate, false),
        ("a UIDX\r\n", "a", Name::Other, false),
    ] {
        assert_eq!(Head::parse(line.as_bytes()), Ok(Head { tag: tag.as_bytes(), name, uid }), "{line}");
    }
    for (name, expected) in NAMES {
        let line = format!("a {}\r\n", name.to_lowercase());
        assert_eq!(Head::parse(line.as_bytes()).unwrap().name, *expected);
    }
}

#[test]
fn what_is_no_command_says_what_is_wrong() {
    for (line, answer) in [
        ("\r\n", "* BAD Invalid tag\r\n"),
        ("+ NOOP\r\n", "* BAD Invalid tag\r\n"),
        ("a+ NOOP\r\n", "* BAD Invalid tag\r\n"),
        ("* NOOP\r\n", "* BAD Invalid tag\r\n"),
        ("a(b NOOP\r\n", "* BAD Invalid tag\r\n"),
        (" NOOP\r\n", "* BAD Invalid tag\r\n"),
        ("\u{e9} NOOP\r\n", "* BAD Invalid tag\r\n"),
        ("a\r\n", "a BAD Missing command name\r\n"),
        ("a \r\n", "a BAD Missing command name\r\n"),
        ("a \"NOOP\"\r\n", "a BAD Missing command name\r\n"),
        ("a NOOP\0\r\n", "a BAD Invalid command name\r\n"),
        ("a UID\r\n", "a BAD Missing command name after UID\r\n"),
        ("a LOGIN x\r\n", "a BAD LOGIN takes a user name and a password\r\n"),
    ] {
        assert_eq!(parse(line.as_bytes()).unwrap_err().answer(), answer.as_bytes(), "{line:?}");
    }
}

#[test]
fn commands() {
    let authenticate_words = "AUTHENTICATE takes a mechanism and base64";
    for (text, expected) in [
        ("a LOGIN SMITH SESAME\r\n", Ok(login("SMITH", "SESAME"))),
        ("a login \"a \\\"b\\\\\" \"\"\r\n", Ok(login("a \"b\\", ""))),
        ("a LOGIN {11}\r\nFRED FOOBAR {7}\r\nfat man\r\n", Ok(login("FRED FOOBAR", "fat man"))),
        ("a LOGIN {2+}\r\n\r\n {0+}\r\n\r\n", Ok(login("\r\n", ""))),
        ("a LOGIN m\u{fc}ller \"p\u{e4}ss\" \r\n", Ok(login("m\u{fc}ller", "p\u{e4}ss"))),
        // No atoms, but servers take them (Dovecot).
        ("a LOGIN ed p%d\r\n", Ok(login("ed", "p%d"))),
        ("a LOGIN OFFICE\\ed *p]\\%*\r\n", Ok(login("OFFICE\\ed", "*p]\\%*"))),
        ("a LOGIN x p\"q\r\n", Err("LOGIN takes a user name and a password")),
        ("a LOGIN x p{q\r\n", Err("LOGIN takes a user name and a password")),
        ("a LOGIN x y z\r\n", Err("LOGIN takes a user name and a password")),
        ("a LOGIN x \"y\r\n", Err("LOGIN takes a user name and a password")),
        ("a LOGIN x {3+}\r\ny\0z\r\n", Err("LOGIN takes a user name and a password")),
        ("a LOGIN x(y z\r\n", Err("LOGIN takes a user name and a password")),
        ("a AUTHENTICATE GSSAPI\r\n", Ok(authenticate("GSSAPI", None))),
        ("a authenticate plain dGVzdAB0ZXN0AHRlc3Q=\r\n", Ok(authenticate("PLAIN", Some("test\0test\0test")))),
        ("a AUTHENTICATE EXTERNAL =\r\n", Ok(authenticate("EXTERNAL", Some("")))),
        ("a AUTHENTICATE PLAIN rubbish!\r\n", Err(authenticate_words)),
        ("a AUTHENTICATE\r\n", Err(authenticate_words)),
        ("a SELECT INBOX\r\n", Ok(select("INBOX", false, false))),
        ("a SELECT \"a b\" (CONDSTORE)\r\n", Ok(select("a b", true, false))),
        ("a SELECT {5}\r\na\"b c (condstore X-NEW (a b))\r\n", Ok(select("a\"b c", true, false))),
        ("a SELECT INBOX (QRESYNC (67890007 20050715194045000 41,43:211,214:541))\r\n", Ok(select("INBOX", false, true))),
        (
            "a SELECT INBOX (QRESYNC (67890007 90060115194045000 41:211,214:541 (1,3 41,43)))\r\n",
            Ok(select("INBOX", false, true)),
        ),
        ("a SELECT &AOk-]\r\n", Ok(select("&AOk-]", false, false))),
        ("a SELECT a*\r\n", Err("SELECT takes a mailbox name")),
        ("a SELECT\r\n", Err("SELECT takes a mailbox name")),
        (
            "a EXAMINE blurdybloop\r\n",
            Ok(Command::Select(Select { mailbox: b"blurdybloop".to_vec(), read_only: true, condstore: false, qresync: false })),
        ),
        // RFC 5161 3.1.
        ("t1 ENABLE CONDSTORE X-GOOD-IDEA\r\n", Ok(Command::Enable(vec![b"CONDSTORE", b"X-GOOD-IDEA"]))),
        ("t1 ENABLE UTF8=ACCEPT \r\n", Ok(Command::Enable(vec![b"UTF8=ACCEPT"]))),
        ("t1 ENABLE\r\n", Err("ENABLE takes the names of capabilities")),
        // RFC 4314 3.1.
        (
            "A035 SETACL INBOX/Drafts John lrQswicda\r\n",
            Ok(Command::SetAcl {
                mailbox: b"INBOX/Drafts".to_vec(),
                identifier: b"John".to_vec(),
                rights: b"lrQswicda".to_vec(),
            }),
        ),
        (
            "a SETACL {4+}\r\nTeam \"bob\" \"+l\"\r\n",
            Ok(Command::SetAcl { mailbox: b"Team".to_vec(), identifier: b"bob".to_vec(), rights: b"+l".to_vec() }),
        ),
        ("B001 DELETEACL INBOX Fred\r\n", Ok(Command::DeleteAcl { mailbox: b"INBOX".to_vec(), identifier: b"Fred".to_vec() })),
        ("B001 DELETEACL INBOX\r\n", Err("DELETEACL takes a mailbox name and an identifier")),
        // RFC 5465 3.
        (
            "a notify set status (selected MessageNew (uid body.peek[header.fields (from to subject)]) all)\r\n",
            Ok(Command::Notify { none: false }),
        ),
        ("a NOTIFY none\r\n", Ok(Command::Notify { none: true })),
        ("a NOTIFY\r\n", Err("NOTIFY takes SET or NONE")),
        // RFC 2971 3.1.
        ("a023 ID (\"name\" \"sodr\" \"version\" \"19.34\" \"vendor\" NIL)\r\n", Ok(Command::Id)),
        ("a ID nil\r\n", Ok(Command::Id)),
        ("a ID x\r\n", Err("ID takes NIL or a list of strings")),
        ("a UID LOGIN x y\r\n", Ok(Command::Other)),
        ("a FETCH 1 (BODY[])\r\n", Ok(Command::Other)),
    ] {
        assert_eq!(command(text), expected, "{text:?}");
    }
}

#[test]
fn before_authentication_no_literal_is_left_to_interpretation() {
    for passes in
        ["a LOGIN {1}\r\nx {1+}\r\ny\r\n", "a ID (\"a\" {1+}\r\nb)\r\n", "a NOOP\r\n", "a XFOO bar\n", "a AUTHENTICATE X\r\n"]
    {
        assert!(parse_unauthenticated(passes.as_bytes()).is_ok(), "{passes:?}");
    }
    for refused in [
        "a XFOO {18+}\r\nb LOGIN alice pw\r\n\r\n",
        "a CAPABILITY {0+}\r\n\r\n",
        "a LOGIN x y {1+}\r\nz\r\n",
        "a LOGIN x( {1+}\r\nz\r\n",
        "a APPEND x {1}\r\nz\r\n",
    ] {
        assert!(parse_unauthenticated(refused.as_bytes()).is_err(), "{refused:?}");
        assert!(parse_unauthenticated(refused.as_bytes()).unwrap_err().answer().starts_with(b"a BAD "));
    }
}

#[test]
fn secrets_are_not_shown() {
    let shown = format!("{:?} {:?}", command("a LOGIN u sesame\r\n"), command("a AUTHENTICATE PLAIN AHUAc2VzYW1l\r\n"));
    assert!(!shown.contains("115") && !shown.contains("sesame"), "{shown}");
    let Ok(Command::Login(login)) = command("a LOGIN u sesame\r\n") else { panic!() };
    assert_eq!(login.credentials(), Some(Credentials::new("u", "sesame")));
}

/// What the strict grammar of imap-codec makes of it, as far as ours distinguishes.
fn strict(text: &[u8]) -> Option<(Vec<u8>, Option<Vec<u8>>)> {
    let (rest, command) = CommandCodec::default().decode(text).ok()?;
    if !rest.is_empty() {
        return None;
    }
    match command.body {
        CommandBody::Login { username, password } => {
            Some((username.as_ref().to_vec(), Some(password.declassify().as_ref().to_vec())))
        }
        CommandBody::Select { mailbox, .. } => match mailbox {
            imap_codec::imap_types::mailbox::Mailbox::Inbox => Some((b"INBOX".to_vec(), None)),
            imap_codec::imap_types::mailbox::Mailbox::Other(other) => Some((other.as_ref().to_vec(), None)),
        },
        _ => None,
    }
}

proptest! {
    /// What a strict parser understands, ours understands the same.
    #[test]
    fn agrees_with_imap_codec(
        verb in "LOGIN|login|SELECT",
        args in prop::collection::vec("[a-z.+&@-]{1,5}|\"[a-z ]{0,4}(\\\\\\\\|\\\\\")?\"|\\{2\\+?\\}\r\n[a-z\"]{2}|[a-z(){]{1,3}", 1..3),
    ) {
        let text = format!("a {verb} {}\r\n", args.join(" "));
        if let Some((first, second)) = strict(text.as_bytes()) {
            match command(&text) {
                Ok(Command::Login(login)) => {
                    prop_assert_eq!(login.user, first);
                    prop_assert_eq!(Some(login.password.to_vec()), second);
                }
                Ok(Command::Select(mut select)) => {
                    if select.mailbox.eq_ignore_ascii_case(b"INBOX") {
                        select.mailbox.make_ascii_uppercase();
                    }
                    prop_assert_eq!(select.mailbox, first);
                }
                other => prop_assert!(false, "{text:?}: {other:?}"),
            }
        }
    }

    #[test]
    fn anything_is_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..60), verb in 0usize..8) {
        let verb = ["LOGIN", "AUTHENTICATE", "SELECT", "ENABLE", "SETACL", "NOTIFY", "ID", "UID"][verb];
        let text = [b"a ", verb.as_bytes(), b" ", &bytes, b"\r\n"].concat();
        if let Err(bad) = parse(&text) {
            let answer = bad.answer();
            prop_assert_eq!(memchr::memchr(b'\n', &answer), Some(answer.len() - 1));
        }
    }
}
