use proptest::prelude::*;

use super::*;

/// What is the same however the stream is split: each line, literal or long line as one, with where
/// commands begin and end.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Whole {
    bytes: Vec<u8>,
    kind: Kind,
    first: bool,
    last: bool,
}

fn frame<'i>(framer: &mut Framer, chunks: impl IntoIterator<Item = &'i [u8]>) -> (Vec<Whole>, Option<FramingError>) {
    let mut wholes: Vec<Whole> = Vec::new();
    for mut chunk in chunks {
        loop {
            match framer.next(&mut chunk) {
                Ok(Some(piece)) => {
                    assert!(!piece.bytes.is_empty());
                    match wholes.last_mut() {
                        // Parts that go on.
                        Some(whole)
                            if whole.kind == piece.kind
                                && !matches!(piece.kind, Kind::Line { .. })
                                && !whole.last
                                && !piece.first
                                && (piece.kind == Kind::Literal || !whole.bytes.ends_with(b"\n")) =>
                        {
                            whole.bytes.extend_from_slice(piece.bytes);
                            whole.last = piece.last;
                        }
                        _ => wholes.push(Whole {
                            bytes: piece.bytes.to_vec(),
                            kind: piece.kind,
                            first: piece.first,
                            last: piece.last,
                        }),
                    }
                }
                Ok(None) => break,
                Err(error) => return (wholes, Some(error)),
            }
        }
        assert!(chunk.is_empty());
    }
    (wholes, None)
}

/// The pieces as text: `|` where a command starts, `.` where it ends; literals in `<…>`, parts in
/// `(…)`.
fn picture(limits: Limits, stream: &[u8]) -> String {
    let (wholes, error) = frame(&mut Framer::new(limits), [stream]);
    let mut picture = String::new();
    for whole in wholes {
        let text = String::from_utf8_lossy(&whole.bytes).replace("\r\n", "~").replace('\n', "!");
        picture += if whole.first { "|" } else { "" };
        picture += &match whole.kind {
            Kind::Line { .. } => text,
            Kind::Literal => format!("<{text}>"),
            Kind::Part => format!("({text})"),
        };
        picture += if whole.last { "." } else { "" };
    }
    error.map_or(picture.clone(), |error| format!("{picture} {error}"))
}

fn client() -> Limits {
    Limits::client(64, 1000)
}

#[test]
fn a_clients_stream_is_cut() {
    for (stream, expected) in [
        ("a NOOP\r\nb NOOP\r\n", "|a NOOP~.|b NOOP~."),
        ("a NOOP\nb NO", "|a NOOP!."),
        ("\r\n\n", "|~.|!."),
        ("a LOGIN {5}\r\nalice {2}\r\npw\r\nb NOOP\r\n", "|a LOGIN {5}~<alice> {2}~<pw>~.|b NOOP~."),
        ("a APPEND x {12+}\r\na {9}\r\nb\r\n\r\n\r\nb NOOP\r\n", "|a APPEND x {12+}~<a {9}~b~~>~.|b NOOP~."),
        ("a LOGIN {0}\r\n {0+}\r\n\r\nb NOOP\r\n", "|a LOGIN {0}~ {0+}~~.|b NOOP~."),
        ("a APPEND x ~{3}\n\0\0\0\r\n", "|a APPEND x ~{3}!<\0\0\0>~."),
        // Not at the end, not closed, not a number, not outside quotes.
        ("a X {5} \r\nb {5}x\r\nc {}\r\nd 5}\r\ne {-1}\r\nf {5", "|a X {5} ~.|b {5}x~.|c {}~.|d 5}~.|e {-1}~."),
        ("a LOGIN \"{5}\r\nb NOOP\r\n", "|a LOGIN \"{5}~.|b NOOP~."),
        (
            "a LOGIN \"{5}\"\r\nb LOGIN \"\\\" {5}\r\nc \"\\\\\" {1}\r\nx\r\n",
            "|a LOGIN \"{5}\"~.|b LOGIN \"\\\" {5}~.|c \"\\\\\" {1}~<x>~.",
        ),
        ("a X {1000}\r\n", "|a X {1000}~"),
        ("a X {1001}\r\n", " literal of 1001 bytes too long (limit 1000 bytes)"),
        ("a X {99999999999999999999}\r\n", " literal too long"),
        // A CR alone ends nothing.
        ("a\rb\r\r\n", "|a\rb\r~."),
    ] {
        assert_eq!(picture(client(), stream.as_bytes()), expected, "{stream:?}");
    }
}

#[test]
fn a_clients_line_has_a_limit() {
    let fits = format!("a {}\r\n", "x".repeat(60));
    assert_eq!(picture(client(), fits.as_bytes()), format!("|a {}~.", "x".repeat(60)));
    let long = format!("a {}\r\n", "x".repeat(61));
    assert_eq!(picture(client(), long.as_bytes()), " line too long (limit 64 bytes)");
    // It is not waited for.
    let mut framer = Framer::new(client());
    assert!(framer.next(&mut &[b'x'; 65][..]).is_err());
    // Nothing is read after an error, and nothing is held.
    assert!(framer.next(&mut &b"\r\na NOOP\r\n"[..]).is_err());
    assert_eq!(framer.held.capacity(), 0);
}

#[test]
fn a_servers_text_announces_nothing() {
    for (stream, expected) in [
        ("* OK hi {5}\r\n+ {5}\r\na NO no {5}\r\n* bye {1}\r\n", "|* OK hi {5}~.|+ {5}~.|a NO no {5}~.|* bye {1}~."),
        ("* 1 FETCH (BODY[] {5}\r\nOK\r\n) {1}\r\nx)\r\n* OK\r\n", "|* 1 FETCH (BODY[] {5}~<OK~)> {1}~<x>)~.|* OK~."),
        // Only the first segment says what the response is.
        ("* LIST () \"/\" {2}\r\na\n OK {2}\r\n* \r\n", "|* LIST () \"/\" {2}~<a!> OK {2}~<* >~."),
        ("* X {99999999999999999999}\r\n* OKAY {1}\r\nx\r\n", "|* X {99999999999999999999}~.|* OKAY {1}~<x>~."),
        ("* OK\r\n* 1 EXISTS\r\n", "|* OK~.|* 1 EXISTS~."),
    ] {
        assert_eq!(picture(Limits::server(64), stream.as_bytes()), expected, "{stream:?}");
    }
}

#[test]
fn a_servers_long_line_passes_unread() {
    let x = "x".repeat(40);
    for (stream, expected) in [
        (format!("* LIST {x}\r\n* OK\r\n"), format!("|(* LIST {x}~).|* OK~.")),
        (format!("* LIST {x} {{3}}\r\na\r\n\r\n* OK\r\n"), format!("|(* LIST {x} {{3}}~)<a~>~.|* OK~.")),
        (format!("* OK {x} {{3}}\r\n* OK\r\n"), format!("|(* OK {x} {{3}}~).|* OK~.")),
        (format!("a1 OK {x} {{3}}\r\n"), format!("|(a1 OK {x} {{3}}~).")),
        (format!("* X {{1}}\r\ny OK {x} {{2}}\r\nab{x}\r\n"), format!("|* X {{1}}~<y>( OK {x} {{2}}~)<ab>({x}~).")),
    ] {
        assert_eq!(picture(Limits::server(32), stream.as_bytes()), expected, "{stream:?}");
    }
}

#[test]
fn a_line_that_lies_whole_in_the_input_is_borrowed_from_it() {
    let input = b"a NOOP\r\n";
    let mut framer = Framer::new(client());
    let piece = framer.next(&mut &input[..]).unwrap().unwrap();
    assert_eq!(piece.bytes.as_ptr(), input.as_ptr());
    assert_eq!(framer.held.capacity(), 0);
}

#[test]
fn memory_is_given_back() {
    let mut framer = Framer::new(client());
    assert_eq!(framer.next(&mut &b"a NO"[..]), Ok(None));
    assert!(!framer.is_between());
    framer.release();
    assert_eq!(framer.held, b"a NO");
    assert_eq!(framer.next(&mut &b"OP\r\n"[..]).unwrap().unwrap().bytes, b"a NOOP\r\n");
    assert!(framer.is_between());
    framer.release();
    assert_eq!(framer.held.capacity(), 0);
}

#[test]
fn a_refused_literal_is_not_waited_for() {
    for announcement in ["a SELECT {5}\r\n", "a SELECT {0}\r\n"] {
        let mut framer = Framer::new(client());
        framer.next(&mut announcement.as_bytes()).unwrap().unwrap();
        assert!(!framer.is_between());
        framer.refuse_literal();
        assert!(framer.is_between());
        let next = framer.next(&mut &b"b NOOP\r\n"[..]).unwrap().unwrap();
        assert!(next.first && next.last);
    }
    // Too late, or nothing to refuse.
    for stream in ["a SELECT {5}\r\nab", "a SELECT {5+}\r\n"] {
        let mut framer = Framer::new(client());
        frame(&mut framer, [stream.as_bytes()]);
        framer.refuse_literal();
        assert!(!framer.is_between(), "{stream}");
    }
}

#[test]
fn a_plain_line_announces_nothing() {
    let mut framer = Framer::new(client());
    framer.expect_plain();
    let (wholes, _) = frame(&mut framer, [&b"AGE {5}\r\n"[..], b"a X {5}\r\n"]);
    assert!(wholes[0].first && wholes[0].last && !wholes[1].last);
}

/// Streams with everything that could be taken for something else.
fn stream() -> impl Strategy<Value = Vec<u8>> {
    let fragment = prop_oneof![
        4 => Just("a NOOP\r\n".to_owned()),
        4 => Just("* OK x {3}\r\n".to_owned()),
        2 => Just("+ {1}\r\n".to_owned()),
        3 => (0usize..40).prop_map(|n| format!("* X {{{n}}}\r\n{}\r\n", "{9}\r\n* OK y\r\n a {1+}\r\nzzzzzzzzzzzzzzzzzzzzzzzzz".get(..n).unwrap_or("abcdef"))),
        3 => (0usize..9).prop_map(|n| format!("a APPEND ~{{{n}+}}\r\n")),
        2 => (0usize..80).prop_map(|n| format!("* LIST {} {{7}}\r\n", "y".repeat(n))),
        2 => "[ab{}0-9+~\"\\\\ *\r\n]{0,12}",
        1 => Just("\n".to_owned()),
        1 => Just("b \"{5}\r\n".to_owned()),
    ];
    prop::collection::vec(fragment, 0..12).prop_map(|fragments| fragments.concat().into_bytes())
}

fn split<'a>(stream: &'a [u8], cuts: &[usize]) -> Vec<&'a [u8]> {
    let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut % (stream.len() + 1)).chain([0, stream.len()]).collect();
    cuts.sort_unstable();
    cuts.windows(2).map(|pair| &stream[pair[0]..pair[1]]).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn any_split_is_framed_the_same(stream in stream(), cuts in prop::collection::vec(any::<usize>(), 0..20), of_server: bool) {
        let limits = if of_server { Limits::server(48) } else { Limits::client(48, 100) };
        let whole = frame(&mut Framer::new(limits), [&stream[..]]);
        let split = frame(&mut Framer::new(limits), split(&stream, &cuts));
        prop_assert_eq!(&whole, &split);
        let bytewise = frame(&mut Framer::new(limits), stream.chunks(1));
        prop_assert_eq!(&whole, &bytewise);
        // Nothing is added or lost, but a line whose end has not come.
        let all = whole.0.iter().flat_map(|whole| whole.bytes.clone()).collect::<Vec<u8>>();
        prop_assert!(stream.starts_with(&all));
        if of_server {
            let missing = &stream[all.len()..];
            prop_assert!(missing.len() <= 48 && !missing.contains(&b'\n'));
        }
        // Commands come one after the other.
        let mut inside = false;
        for whole in &whole.0 {
            prop_assert_eq!(whole.first, !inside);
            inside = !whole.last;
        }
    }

    #[test]
    fn no_more_than_a_line_is_held(stream in stream(), size in 1usize..9) {
        let mut framer = Framer::new(Limits::server(48));
        for mut chunk in stream.chunks(size) {
            while framer.next(&mut chunk).unwrap().is_some() {}
            prop_assert!(framer.held.len() <= 48);
        }
    }
}
