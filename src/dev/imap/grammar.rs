//! Reading what imap-codec's grammar lacks: ACL's commands (RFC 4314), extended LIST (RFC 5258) and
//! ESEARCH (RFC 4731); and writing strings, sets and dates.
//!
//! Responses are written by hand: literals come straight from the store's bytes.

use std::borrow::Cow;
use std::fmt::Write as _;

use jiff::Timestamp;
use jiff::tz::TimeZone;

use crate::mail::Uid;
use crate::wire::imap::name::{decode_utf7, encode_utf7};

/// Reads a command from left to right. Every method gives `None` and leaves off where the grammar
/// is broken.
#[derive(Debug, Clone, Copy)]
pub struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub fn new(rest: &'a [u8]) -> Self {
        Self { rest }
    }

    pub fn rest(self) -> &'a [u8] {
        self.rest
    }

    /// Takes this text, in any case, if it is next.
    pub fn take(&mut self, text: &str) -> bool {
        let next = self.rest.get(..text.len()).is_some_and(|next| next.eq_ignore_ascii_case(text.as_bytes()));
        if next {
            self.rest = &self.rest[text.len()..];
        }
        next
    }

    pub fn space(&mut self) -> Option<()> {
        self.take(" ").then_some(())
    }

    /// The command ends here.
    pub fn end(self) -> Option<()> {
        (self.rest == b"\r\n").then_some(())
    }

    /// Everything up to a blank, a parenthesis or the end of the line.
    pub fn atom(&mut self) -> Option<&'a str> {
        let end = self.rest.iter().position(|b| b" ()\r\n\"{".contains(b)).unwrap_or(self.rest.len());
        let (atom, rest) = self.rest.split_at(end);
        self.rest = rest;
        std::str::from_utf8(atom).ok().filter(|atom| !atom.is_empty())
    }

    /// An atom, a quoted string or a literal.
    pub fn astring(&mut self) -> Option<Vec<u8>> {
        if self.take("\"") {
            let mut text = Vec::new();
            loop {
                let (first, rest) = self.rest.split_first()?;
                self.rest = rest;
                match first {
                    b'"' => return Some(text),
                    b'\\' => {
                        let (escaped, rest) = self.rest.split_first()?;
                        self.rest = rest;
                        text.push(*escaped);
                    }
                    b'\r' | b'\n' => return None,
                    plain => text.push(*plain),
                }
            }
        }
        if self.take("{") {
            let end = memchr::memchr(b'\n', self.rest)?;
            let (announced, rest) = self.rest.split_at(end + 1);
            let digits = std::str::from_utf8(announced).ok()?.trim_end_matches(['\r', '\n', '}', '+']);
            let (literal, rest) = rest.split_at_checked(digits.parse().ok()?)?;
            self.rest = rest;
            return Some(literal.to_vec());
        }
        self.atom().map(|atom| atom.as_bytes().to_vec())
    }

    /// A mailbox's name or a pattern, without its modified UTF-7.
    pub fn name(&mut self) -> Option<String> {
        decode_utf7(&self.astring()?).map(Cow::into_owned)
    }

    /// `(atom atom …)`; an atom may have a list of its own, which is skipped and given as text.
    pub fn options(&mut self) -> Option<Vec<(&'a str, &'a str)>> {
        self.take("(").then_some(())?;
        let mut options = Vec::new();
        while !self.take(")") {
            if !options.is_empty() {
                self.space()?;
            }
            let option = self.atom()?;
            let mut inner = "";
            if self.rest.starts_with(b" (") {
                let end = memchr::memchr(b')', self.rest)?;
                inner = std::str::from_utf8(&self.rest[2..end]).ok()?;
                self.rest = &self.rest[end + 1..];
            }
            options.push((option, inner));
        }
        Some(options)
    }
}

/// `string` of RFC 9051: quoted where it can be.
pub fn string(out: &mut Vec<u8>, text: &[u8]) {
    if text.len() <= 1_000 && text.iter().all(|b| (b' '..=b'~').contains(b)) {
        out.push(b'"');
        for b in text {
            if b"\"\\".contains(b) {
                out.push(b'\\');
            }
            out.push(*b);
        }
        out.push(b'"');
    } else {
        out.extend_from_slice(format!("{{{}}}\r\n", text.len()).as_bytes());
        out.extend_from_slice(text);
    }
}

pub fn nstring(out: &mut Vec<u8>, text: Option<&[u8]>) {
    match text {
        Some(text) => string(out, text),
        None => out.extend_from_slice(b"NIL"),
    }
}

/// A mailbox's name, quoted, in modified UTF-7.
pub fn shown_name(name: &str) -> String {
    let mut quoted = Vec::new();
    // Never a literal, however long: a name is bounded.
    for b in encode_utf7(name).iter() {
        if b"\"\\".contains(b) {
            quoted.push(b'\\');
        }
        quoted.push(*b);
    }
    format!("\"{}\"", String::from_utf8_lossy(&quoted))
}

/// `sequence-set` of ascending numbers.
pub fn set(numbers: impl IntoIterator<Item = u32>) -> String {
    let mut runs: Vec<(u32, u32)> = Vec::new();
    for number in numbers {
        match runs.last_mut() {
            Some((_, last)) if last.checked_add(1) == Some(number) => *last = number,
            _ => runs.push((number, number)),
        }
    }
    let mut text = String::new();
    for (first, last) in runs {
        let comma = if text.is_empty() { "" } else { "," };
        // Writing to a String cannot fail.
        let _ = if first == last { write!(text, "{comma}{first}") } else { write!(text, "{comma}{first}:{last}") };
    }
    text
}

pub fn uid_set<'a>(uids: impl IntoIterator<Item = &'a Uid>) -> String {
    set(uids.into_iter().map(|uid| uid.get()))
}

/// `date-time` of RFC 9051, in UTC.
pub fn date_time(unix_ms: u64) -> String {
    let timestamp = Timestamp::from_second((unix_ms / 1_000) as i64).unwrap_or_default();
    let date = timestamp.to_zoned(TimeZone::UTC);
    date.strftime("\"%d-%b-%Y %H:%M:%S +0000\"").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_are_read_and_written() {
        let mut reader = Reader::new(b"\"a\\\"b\" {3}\r\nx\ry atom (MAX COUNT STATUS (A B))\r\n");
        assert_eq!(reader.astring().unwrap(), b"a\"b");
        reader.space().unwrap();
        assert_eq!(reader.astring().unwrap(), b"x\ry");
        reader.space().unwrap();
        assert_eq!(reader.astring().unwrap(), b"atom");
        reader.space().unwrap();
        assert_eq!(reader.options().unwrap(), [("MAX", ""), ("COUNT", ""), ("STATUS", "A B")]);
        reader.end().unwrap();
        for broken in ["\"a", "{9}\r\nx", "{x}\r\n", "", "(a"] {
            assert!(Reader::new(broken.as_bytes()).astring().is_none(), "{broken}");
        }
        let mut out = Vec::new();
        string(&mut out, b"a\"b\\");
        string(&mut out, "é".as_bytes());
        nstring(&mut out, None);
        assert_eq!(out, "\"a\\\"b\\\\\"{2}\r\néNIL".as_bytes());
    }

    #[test]
    fn sets_and_dates() {
        assert_eq!(set([1, 2, 3, 5, 7, 8]), "1:3,5,7:8");
        assert_eq!(set([]), "");
        assert_eq!(date_time(1_700_000_000_999), "\"14-Nov-2023 22:13:20 +0000\"");
        assert_eq!(shown_name("Entwürfe & \"x\""), "\"Entw&APw-rfe &- \\\"x\\\"\"");
    }
}
