use proptest::prelude::*;

use super::super::namespace::Namespace;
use super::*;

fn untagged(line: &str) -> Untagged<'_> {
    match parse(line.as_bytes()) {
        Response::Untagged(untagged) => untagged,
        other => panic!("{line}: {other:?}"),
    }
}

fn set(text: &str) -> RoaringBitmap {
    set::parse(text.as_bytes()).unwrap()
}

fn status(line: &str) -> (Status, Option<Code<'_>>, &str) {
    match parse(line.as_bytes()) {
        Response::Tagged { status, code, text, .. } | Response::Untagged(Untagged::Status { status, code, text }) => {
            (status, code, std::str::from_utf8(text).unwrap())
        }
        other => panic!("{line}: {other:?}"),
    }
}

#[test]
fn continuations_and_tags() {
    for (line, expected) in [
        ("+ idling\r\n", Response::Continuation { text: b"idling" }),
        ("+ \r\n", Response::Continuation { text: b"" }),
        ("+\r\n", Response::Continuation { text: b"" }),
        ("+idling\n", Response::Continuation { text: b"idling" }),
        ("A1 OK done\r\n", Response::Tagged { tag: b"A1", status: Status::Ok, code: None, text: b"done" }),
        ("a.1 no \r\n", Response::Tagged { tag: b"a.1", status: Status::No, code: None, text: b"" }),
        ("a BAD\r\n", Response::Tagged { tag: b"a", status: Status::Bad, code: None, text: b"" }),
        ("a BYE x\r\n", Response::Other),
        ("a FETCH\r\n", Response::Other),
        ("a\r\n", Response::Other),
        ("\r\n", Response::Other),
        ("*\r\n", Response::Other),
        ("", Response::Other),
        ("* \r\n", Response::Untagged(Untagged::Other)),
    ] {
        assert_eq!(parse(line.as_bytes()), expected, "{line:?}");
    }
}

#[test]
fn codes() {
    use Status::*;
    for (line, expected) in [
        // RFC 9051 7.1, RFC 7162 3.1.2.
        ("* OK IMAP4rev2 server ready\r\n", (Ok, None, "IMAP4rev2 server ready")),
        ("* OK [ALERT] System shutdown\r\n", (Ok, Some(Code::Other(b"ALERT")), "System shutdown")),
        ("* BYE Autologout; idle for too long\r\n", (Bye, None, "Autologout; idle for too long")),
        ("* PREAUTH hi\r\n", (PreAuth, None, "hi")),
        ("* bad Empty command line\r\n", (Bad, None, "Empty command line")),
        (
            "* OK [UIDVALIDITY 3857529045] UIDs valid\r\n",
            (Ok, Some(Code::UidValidity(UidValidity::new(3857529045).unwrap())), "UIDs valid"),
        ),
        ("* OK [UIDNEXT 4392] Predicted next UID\r\n", (Ok, Some(Code::UidNext(4392)), "Predicted next UID")),
        ("* OK [HIGHESTMODSEQ 715194045007]\r\n", (Ok, Some(Code::HighestModSeq(ModSeq(715194045007))), "")),
        ("* OK [NOMODSEQ] Sorry\r\n", (Ok, Some(Code::NoModSeq), "Sorry")),
        (
            "* OK [PERMANENTFLAGS (\\Deleted \\Seen \\*)] Limited\r\n",
            (Ok, Some(Code::PermanentFlags(vec![b"\\Deleted", b"\\Seen", b"\\*"])), "Limited"),
        ),
        (
            "* OK [PERMANENTFLAGS ()] No permanent flags permitted\r\n",
            (Ok, Some(Code::PermanentFlags(vec![])), "No permanent flags permitted"),
        ),
        ("* OK [CLOSED] Previous mailbox closed.\r\n", (Ok, Some(Code::Closed), "Previous mailbox closed.")),
        ("A142 OK [READ-WRITE] SELECT completed\r\n", (Ok, Some(Code::ReadWrite), "SELECT completed")),
        ("A932 OK [READ-ONLY] EXAMINE completed\r\n", (Ok, Some(Code::ReadOnly), "EXAMINE completed")),
        ("a OK [read-only]\r\n", (Ok, Some(Code::ReadOnly), "")),
        ("a OK [CAPABILITY IMAP4rev1 IDLE] Logged in\r\n", (Ok, Some(Code::Capability(b"IMAP4rev1 IDLE")), "Logged in")),
        ("* OK [UNSEEN 12] first\r\n", (Ok, Some(Code::Other(b"UNSEEN 12")), "first")),
        (
            "d OK [MODIFIED 7,9] Conditional STORE failed\r\n",
            (Ok, Some(Code::Other(b"MODIFIED 7,9")), "Conditional STORE failed"),
        ),
        // What is not what it should be.
        ("* OK [UIDVALIDITY 0] x\r\n", (Ok, Some(Code::Other(b"UIDVALIDITY 0")), "x")),
        ("* OK [UIDNEXT] x\r\n", (Ok, Some(Code::Other(b"UIDNEXT")), "x")),
        ("* OK [ALERT x\r\n", (Ok, None, "[ALERT x")),
        ("* NO [BADCHARSET (UTF-8 \"x\")] y\r\n", (No, Some(Code::Other(b"BADCHARSET (UTF-8 \"x\")")), "y")),
        ("* OK [CAPABILITY a\"] b\"]\r\n", (Ok, Some(Code::Capability(b"a\"")), "b\"]")),
        ("* OK []\r\n", (Ok, Some(Code::Other(b"")), "")),
        ("* OK hi [CAPABILITY X]\r\n", (Ok, None, "hi [CAPABILITY X]")),
    ] {
        assert_eq!(status(line), expected, "{line}");
    }
}

#[test]
fn mailbox_data() {
    let list = |attributes: &[&'static str], delimiter, name: &'static str| {
        let attributes = attributes.iter().map(|attribute| attribute.as_bytes()).collect();
        Untagged::List(List { attributes, delimiter, name: name.as_bytes().into() })
    };
    for (line, expected) in [
        ("* CAPABILITY IMAP4rev1 IDLE \r\n", Untagged::Capability(b"IMAP4rev1 IDLE ")),
        ("* 23 EXISTS\r\n", Untagged::Exists(23)),
        ("* 0 exists \r\n", Untagged::Exists(0)),
        ("* 5 RECENT\r\n", Untagged::Recent(5)),
        ("* 44 EXPUNGE\r\n", Untagged::Expunge(44)),
        ("* 0 EXPUNGE\r\n", Untagged::Other),
        ("* 4294967296 EXISTS\r\n", Untagged::Other),
        ("* -1 EXISTS\r\n", Untagged::Other),
        ("* 23\r\n", Untagged::Other),
        (
            "* FLAGS (\\Answered \\Flagged $Work NonJunk)\r\n",
            Untagged::Flags(vec![b"\\Answered", b"\\Flagged", b"$Work", b"NonJunk"]),
        ),
        ("* FLAGS ( )\r\n", Untagged::Flags(vec![])),
        // Exchange and others have had stranger ones.
        ("* FLAGS (\\Seen [Gmail]/x a]b \\*)\r\n", Untagged::Flags(vec![b"\\Seen", b"[Gmail]/x", b"a]b", b"\\*"])),
        // RFC 5161 3.2.
        ("* ENABLED X-GOOD-IDEA\r\n", Untagged::Enabled(b"X-GOOD-IDEA")),
        ("* ENABLED\r\n", Untagged::Enabled(b"")),
        // RFC 7162 3.2.10.
        ("* VANISHED (EARLIER) 41,43:116,118\r\n", Untagged::Vanished { earlier: true, uids: set("41,43:116,118") }),
        ("* VANISHED 405,407,410,425\r\n", Untagged::Vanished { earlier: false, uids: set("405,407,410,425") }),
        ("* VANISHED 1:*\r\n", Untagged::Other),
        ("* VANISHED (LATER) 1\r\n", Untagged::Other),
        ("* VANISHED\r\n", Untagged::Other),
        // RFC 9051 7.3.1, and Gmail, Cyrus, Exchange.
        ("* LIST (\\NonExistent) \"/\" ~/Mail/foo\r\n", list(&["\\NonExistent"], Some(b'/'), "~/Mail/foo")),
        (
            "* LIST (\\HasNoChildren \\All) \"/\" \"[Gmail]/All Mail\"\r\n",
            list(&["\\HasNoChildren", "\\All"], Some(b'/'), "[Gmail]/All Mail"),
        ),
        ("* LIST (\\Noselect) \".\" \"\"\r\n", list(&["\\Noselect"], Some(b'.'), "")),
        ("* LIST () NIL INBOX\r\n", list(&[], None, "INBOX")),
        ("* LIST () \"\\\\\" {5}\r\na\\\"b)\r\n", list(&[], Some(b'\\'), "a\\\"b)")),
        ("* LIST () \"/\" Fourth (\"OLDNAME\" (Third))\r\n", list(&[], Some(b'/'), "Fourth")),
        ("* LIST () \"ab\" x\r\n", Untagged::Other),
        ("* STATUS blurdybloop (MESSAGES 231 UIDNEXT 44292)\r\n", Untagged::Other),
        ("* XFOO\r\n", Untagged::Other),
        (
            "* NAMESPACE ((\"INBOX.\" \".\")) NIL NIL\r\n",
            Untagged::Namespace(Namespaces {
                personal: vec![Namespace { prefix: b"INBOX.".to_vec(), delimiter: Some(b'.') }],
                ..Namespaces::default()
            }),
        ),
        ("* NAMESPACE NIL NIL\r\n", Untagged::Other),
    ] {
        assert_eq!(untagged(line), expected, "{line}");
    }
}

#[test]
fn searches() {
    let esearch = |tag: Option<&'static str>, uid, all: Option<&str>| {
        let tag = tag.map(|tag| tag.as_bytes().into());
        Untagged::Esearch(Esearch { tag, uid, all: all.map(set) })
    };
    for (line, expected) in [
        ("* SEARCH 2 3 6\r\n", Untagged::Search(set("2,3,6"))),
        ("* SEARCH\r\n", Untagged::Search(RoaringBitmap::new())),
        ("* SEARCH \r\n", Untagged::Search(RoaringBitmap::new())),
        ("* search 9 2 2 5 \r\n", Untagged::Search(set("2,5,9"))),
        // RFC 7162 3.1.5.
        ("* SEARCH 2 5 6 7 11 12 18 19 20 23 (MODSEQ 917162500)\r\n", Untagged::Search(set("2,5:7,11,12,18:20,23"))),
        ("* SEARCH 2 x\r\n", Untagged::Other),
        ("* SEARCH 0\r\n", Untagged::Other),
        // RFC 4731 3.1, RFC 9051 7.3.4, RFC 7162 3.1.10, Dovecot.
        ("* ESEARCH (TAG \"A282\") MIN 2 COUNT 3\r\n", esearch(Some("A282"), false, None)),
        ("* ESEARCH (TAG \"A283\") ALL 2,10:11\r\n", esearch(Some("A283"), false, Some("2,10:11"))),
        ("* ESEARCH (TAG \"A284\") MIN 4\r\n", esearch(Some("A284"), false, None)),
        ("* ESEARCH (TAG \"A285\") UID MIN 7 MAX 3800\r\n", esearch(Some("A285"), true, None)),
        ("* ESEARCH (TAG \"A4\") UID ALL 1,3,5:7\r\n", esearch(Some("A4"), true, Some("1,3,5:7"))),
        ("* ESEARCH (TAG \"A4\") UID\r\n", esearch(Some("A4"), true, None)),
        ("* ESEARCH (TAG \"a\") ALL 1:3,5 MODSEQ 1236 \r\n", esearch(Some("a"), false, Some("1:3,5"))),
        ("* ESEARCH (TAG \"C01\") UID PARTIAL (1:10 2:3)\r\n", esearch(Some("C01"), true, None)),
        ("* ESEARCH UID COUNT 5\r\n", esearch(None, true, None)),
        ("* ESEARCH\r\n", esearch(None, false, None)),
        // What cannot be read must not look like nothing found.
        ("* ESEARCH (TAG \"A4\") UID ALL 1:*\r\n", Untagged::Other),
        ("* ESEARCH (TAG \"A4\") UID ALL\r\n", Untagged::Other),
        ("* ESEARCH (TAG \"A4\" UID ALL 1\r\n", Untagged::Other),
    ] {
        assert_eq!(untagged(line), expected, "{line}");
    }
}

#[test]
fn fetches() {
    let none = Fetch { seq: 12, uid: None, flags: None, recent: false, modseq: None, other: false };
    let flags = |texts: &[&str]| Some(Flags::sift(texts.iter().copied()).0);
    for (line, expected) in [
        ("* 12 FETCH (FLAGS (\\Seen))\r\n", Fetch { flags: flags(&["\\Seen"]), ..none.clone() }),
        (
            "* 12 FETCH (UID 99 FLAGS (\\Flagged \\Recent $Work))\r\n",
            Fetch { uid: Uid::new(99), flags: flags(&["\\Flagged", "$Work"]), recent: true, ..none.clone() },
        ),
        (
            "* 12 FETCH (MODSEQ (18) FLAGS (\\Seen))\r\n",
            Fetch { flags: flags(&["\\Seen"]), modseq: Some(ModSeq(18)), ..none.clone() },
        ),
        (
            "* 12 fetch (uid 9 modseq (12121231000)) \r\n",
            Fetch { uid: Uid::new(9), modseq: Some(ModSeq(12121231000)), ..none.clone() },
        ),
        ("* 12 FETCH (FLAGS ())\r\n", Fetch { flags: flags(&[]), ..none.clone() }),
        (
            "* 12 FETCH (FLAGS () RFC822.SIZE 44827 UID 5)\r\n",
            Fetch { flags: flags(&[]), uid: Uid::new(5), other: true, ..none.clone() },
        ),
        (
            "* 12 FETCH (BODY[HEADER.FIELDS (DATE \"FROM\")]<0> {3}\r\na)b UID 5)\r\n",
            Fetch { uid: Uid::new(5), other: true, ..none.clone() },
        ),
        (
            "* 12 FETCH (ENVELOPE (\"d\" NIL ((\"a\" NIL \"b\" \"c\")) {1}\r\n) \"\\\"\") UID 5)\r\n",
            Fetch { uid: Uid::new(5), other: true, ..none.clone() },
        ),
        ("* 12 FETCH (BINARY[1] ~{3}\r\n\0)\" UID 5)\r\n", Fetch { uid: Uid::new(5), other: true, ..none.clone() }),
        // The first segment alone.
        (
            "* 12 FETCH (UID 5 FLAGS (\\Seen) BODY[] {310}\r\n",
            Fetch { uid: Uid::new(5), flags: flags(&["\\Seen"]), other: true, ..none.clone() },
        ),
        // A keyword that is no flag is left out.
        ("* 12 FETCH (FLAGS (a[b] \u{e9} \\Seen))\r\n", Fetch { flags: flags(&["\\Seen"]), ..none.clone() }),
        ("* 12 FETCH (UID 0)\r\n", Fetch { other: true, ..none.clone() }),
        ("* 12 FETCH\r\n", Fetch { other: true, ..none }),
    ] {
        assert_eq!(untagged(line), Untagged::Fetch(expected), "{line}");
    }
}

#[test]
fn a_million_numbers_are_read_at_once() {
    let mut line = b"* SEARCH".to_vec();
    for number in 1..=1_000_000u32 {
        line.extend_from_slice(format!(" {}", number * 2).as_bytes());
    }
    line.extend_from_slice(b"\r\n");
    let Response::Untagged(Untagged::Search(found)) = parse(&line) else { panic!() };
    assert_eq!((found.len(), found.max()), (1_000_000, Some(2_000_000)));
}

#[test]
fn which_refusals_may_be_none_another_time() {
    for (line, temporary) in [
        ("a NO [UNAVAILABLE] later\r\n", true),
        ("a NO [inuse] by another\r\n", true),
        ("a NO [LIMIT] too many\r\n", true),
        ("a NO [SERVERBUG] oops\r\n", true),
        ("a NO [CORRUPTION] broken\r\n", true),
        ("a NO [NONEXISTENT] no such mailbox\r\n", false),
        ("a NO [NOPERM] no\r\n", false),
        ("a NO [AUTHENTICATIONFAILED] no\r\n", false),
        ("a NO [EXPIRED] a new password\r\n", false),
        ("a NO [UIDNEXT 5] what\r\n", false),
        ("a NO UNAVAILABLE\r\n", false),
    ] {
        let Response::Tagged { code, .. } = parse(line.as_bytes()) else { panic!("{line}") };
        assert_eq!(is_temporary(code.as_ref()), temporary, "{line}");
    }
}

#[test]
fn nesting_is_no_danger() {
    let deep = format!("* 1 FETCH (BODYSTRUCTURE {}{} UID 5)\r\n", "(".repeat(200_000), ")".repeat(200_000));
    let Untagged::Fetch(fetch) = untagged(&deep) else { panic!() };
    assert_eq!(fetch.uid, Uid::new(5));
}

proptest! {
    #[test]
    fn anything_is_read(start in "(\\* |\\+ |a )?(OK |LIST |1 FETCH |NAMESPACE |ESEARCH |SEARCH |FLAGS |VANISHED |BYE )?", bytes in prop::collection::vec(any::<u8>(), 0..60)) {
        let line = [start.as_bytes(), &bytes, b"\r\n"].concat();
        let _ = parse(&line);
        let text = [start.as_bytes(), &bytes.iter().map(|b| b"()[]{}\"\\ 123:,*~<>ABCUIDFLAGS"[usize::from(b % 28)]).collect::<Vec<u8>>(), b"\r\n"].concat();
        let _ = parse(&text);
    }
}
