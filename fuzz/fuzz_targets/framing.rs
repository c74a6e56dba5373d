//! Any split of a stream is framed the same, nothing is lost or added, and no more than a line is held.
//!
//! The first byte says whose stream it is, the second how it is split.

#![no_main]

use libfuzzer_sys::fuzz_target;
use mailpush_fuzz::wire::imap::framing::{Framer, FramingError, Kind, Limits};

const LINE: usize = 40;

/// Each byte with what it is a part of; a border is where a command or response begins or ends.
#[derive(Debug, Default, PartialEq)]
struct Framed {
    bytes: Vec<u8>,
    kinds: Vec<u8>,
    borders: Vec<(usize, bool, bool)>,
    error: Option<FramingError>,
}

fn frame<'i>(limits: Limits, chunks: impl Iterator<Item = &'i [u8]>) -> Framed {
    let mut framer = Framer::new(limits);
    let mut framed = Framed::default();
    for mut chunk in chunks {
        loop {
            let before = framed.bytes.len();
            match framer.next(&mut chunk) {
                Ok(Some(piece)) => {
                    assert!(!piece.bytes.is_empty());
                    let kind = match piece.kind {
                        Kind::Line { literal } => {
                            assert!(piece.bytes.ends_with(b"\n") && piece.bytes.len() <= LINE);
                            assert_eq!(piece.last, literal.is_none());
                            b'l'
                        }
                        Kind::Part => b'p',
                        Kind::Literal => b'L',
                    };
                    framed.bytes.extend_from_slice(piece.bytes);
                    framed.kinds.resize(framed.bytes.len(), kind);
                    if piece.first {
                        framed.borders.push((before, true, false));
                    }
                    if piece.last {
                        framed.borders.push((framed.bytes.len(), false, true));
                        assert!(framer.is_between());
                    }
                }
                Ok(None) => break,
                Err(error) => {
                    framed.error = Some(error);
                    return framed;
                }
            }
        }
        assert!(chunk.is_empty());
    }
    framed
}

fuzz_target!(|data: &[u8]| {
    let [side, size, stream @ ..] = data else { return };
    let limits = if side & 1 == 0 { Limits::client(LINE, 100) } else { Limits::server(LINE) };
    let whole = frame(limits, std::iter::once(stream));
    let split = frame(limits, stream.chunks(usize::from(*size).max(1)));
    // A long line's first part is cut where the input is; its bytes and borders are the same but for what is still held.
    let common = whole.bytes.len().min(split.bytes.len());
    assert_eq!(whole.bytes[..common], split.bytes[..common]);
    assert_eq!(whole.kinds[..common], split.kinds[..common]);
    assert_eq!((&whole.borders, whole.error), (&split.borders, split.error));
    assert_eq!(whole.bytes.len(), split.bytes.len());
    assert!(stream.starts_with(&whole.bytes));
    // No error ever comes of what a server says.
    assert!(side & 1 == 0 || whole.error.is_none());
});
