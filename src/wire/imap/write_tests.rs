use proptest::prelude::*;

use super::super::response::{self, Fetch, Response, Untagged};
use super::super::scan::Scan;
use super::*;

fn written(say: impl FnOnce(&mut Vec<u8>)) -> String {
    let mut out = Vec::new();
    say(&mut out);
    String::from_utf8(out).unwrap()
}

fn flags_of(texts: &[&str]) -> Flags {
    Flags::sift(texts.iter().copied()).0
}

#[test]
fn responses() {
    let seen = flags_of(&["\\Seen", "$Work"]);
    let bare = Changed { seq: 23, uid: None, flags: &seen, recent: false, modseq: None };
    let full = Changed { uid: Uid::new(4827313), recent: true, modseq: Some(ModSeq(65402)), ..bare };
    let none = flags_of(&[]);
    for (text, expected) in [
        (written(|out| exists(out, 23)), "* 23 EXISTS\r\n"),
        (written(|out| recent(out, 5)), "* 5 RECENT\r\n"),
        (written(|out| expunge(out, 44)), "* 44 EXPUNGE\r\n"),
        (written(|out| vanished(out, &[405, 407, 408].into())), "* VANISHED 405,407:408\r\n"),
        (written(|out| vanished(out, &RoaringBitmap::new())), ""),
        (written(|out| fetch(out, &bare)), "* 23 FETCH (FLAGS ($Work \\Seen))\r\n"),
        (written(|out| fetch(out, &full)), "* 23 FETCH (UID 4827313 FLAGS ($Work \\Seen \\Recent) MODSEQ (65402))\r\n"),
        (written(|out| fetch(out, &Changed { flags: &none, ..bare })), "* 23 FETCH (FLAGS ())\r\n"),
        (written(|out| flags(out, &seen)), "* FLAGS ($Work \\Seen)\r\n"),
        (written(|out| permanent_flags(out, &seen, true)), "* OK [PERMANENTFLAGS ($Work \\Seen \\*)] Flags permitted.\r\n"),
        (written(|out| permanent_flags(out, &none, false)), "* OK [PERMANENTFLAGS ()] Flags permitted.\r\n"),
    ] {
        assert_eq!(text, expected);
    }
}

#[test]
fn arguments() {
    for (argument, utf8, expected) in [
        ("INBOX", false, Ok("INBOX")),
        ("", false, Ok("\"\"")),
        ("nil", false, Ok("\"nil\"")),
        ("a b", false, Ok("\"a b\"")),
        ("a\"b\\c", false, Ok("\"a\\\"b\\\\c\"")),
        ("a{5}", false, Ok("\"a{5}\"")),
        ("a*", false, Ok("\"a*\"")),
        ("caf\u{e9}", true, Ok("\"caf\u{e9}\"")),
        ("caf\u{e9}", false, Err(NotOneLine::NeedsLiteral)),
        ("a\r\nb NOOP", true, Err(NotOneLine::NeedsLiteral)),
        ("a\0", true, Err(NotOneLine::Nul)),
    ] {
        let mut out = Vec::new();
        let done = astring(&mut out, argument.as_bytes(), utf8).map(|()| String::from_utf8(out.clone()).unwrap());
        assert_eq!(done, expected.map(str::to_owned), "{argument:?}");
        assert!(done.is_ok() || out.is_empty(), "nothing is left half written");
    }
    let mut out = Vec::new();
    assert_eq!(astring_or_literal(&mut out, b"a\r\nb", false, true), Ok(()));
    assert_eq!(out, b"{4+}\r\na\r\nb");
}

#[test]
fn plain_in_base64() {
    // RFC 4616 4.
    let tim = Credentials::new("tim", "tanstaaftanstaaf");
    assert_eq!(BASE64.decode(sasl_plain("", &tim).as_bytes()).unwrap(), b"\0tim\0tanstaaftanstaaf");
    assert_eq!(BASE64.decode(sasl_plain("Ursel", &tim).as_bytes()).unwrap(), b"Ursel\0tim\0tanstaaftanstaaf");
}

proptest! {
    #[test]
    fn an_argument_is_read_as_it_was_meant(bytes in prop::collection::vec(any::<u8>(), 0..20), utf8: bool, non_sync: bool) {
        let mut out = Vec::new();
        match astring_or_literal(&mut out, &bytes, utf8, non_sync) {
            Ok(()) => {
                let mut scan = Scan::new(&out);
                let read = scan.astring().map(|read| read.into_owned());
                prop_assert_eq!(read, Some(bytes));
                prop_assert!(scan.rest().is_empty());
            }
            Err(error) => prop_assert!(error == NotOneLine::Nul && bytes.contains(&0)),
        }
        let mut line = Vec::new();
        if astring(&mut line, &out, utf8).is_ok() {
            prop_assert!(!line.iter().any(|b| b"\r\n\0".contains(b)));
        }
    }

    #[test]
    fn what_is_said_is_understood(
        seq in 1u32.., uid: u32, texts in prop::collection::vec("\\\\?[a-zA-Z$.0-9]{1,8}", 0..5), recent: bool, modseq in 0u64..1 << 63,
    ) {
        let flags = Flags::sift(texts.iter().map(String::as_str).filter(|text| !text.eq_ignore_ascii_case("\\Recent"))).0;
        let changed = Changed { seq, uid: Uid::new(uid), flags: &flags, recent, modseq: Some(ModSeq(modseq)) };
        let mut out = Vec::new();
        fetch(&mut out, &changed);
        let expected = Fetch {
            seq,
            uid: changed.uid,
            flags: Some(flags.clone()),
            recent,
            modseq: changed.modseq,
            other: false,
        };
        prop_assert_eq!(response::parse(&out), Response::Untagged(Untagged::Fetch(expected)));
    }
}
