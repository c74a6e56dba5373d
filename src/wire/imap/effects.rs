//! What a relayed command does to the session besides being answered: the proxy must not park a
//! session that holds state which it cannot bring back, and must speak as the client now expects.

use super::command::{Head, Name};
use super::scan::Scan;

/// Read from a command's line segments as they go by, its literals left out. A command has these
/// effects only if the server accepts it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Effects {
    /// The result is saved as `$` (RFC 5182): SEARCH RETURN (SAVE).
    pub saves_result: bool,
    /// A search is kept up to date (RFC 5267): SEARCH RETURN (UPDATE), or its end is asked for,
    /// CANCELUPDATE.
    pub context: bool,
    /// CONDSTORE is enabled by it (RFC 7162 3.1): from now on each FETCH response with flags holds
    /// MODSEQ.
    pub condstore: bool,
    name: Name,
    /// How many arguments of a search key, or others, are still to be stepped over; they may be
    /// literals.
    skip: u8,
}

/// Search keys that take arguments, which must not be taken for keys (RFC 9051 6.4.4, RFC 5032, RFC
/// 8474, RFC 8514).
const SEARCH_KEYS: &[(&str, u8)] = &[
    ("BCC", 1),
    ("BEFORE", 1),
    ("BODY", 1),
    ("CC", 1),
    ("CHARSET", 1),
    ("EMAILID", 1),
    ("FROM", 1),
    ("HEADER", 2),
    ("KEYWORD", 1),
    ("LARGER", 1),
    ("OLDER", 1),
    ("ON", 1),
    ("SAVEDBEFORE", 1),
    ("SAVEDON", 1),
    ("SAVEDSINCE", 1),
    ("SENTBEFORE", 1),
    ("SENTON", 1),
    ("SENTSINCE", 1),
    ("SINCE", 1),
    ("SMALLER", 1),
    ("SUBJECT", 1),
    ("TEXT", 1),
    ("THREADID", 1),
    ("TO", 1),
    ("UID", 1),
    ("UNKEYWORD", 1),
    ("YOUNGER", 1),
];

impl Effects {
    /// Of a command that has none.
    pub const NONE: Self = Self { saves_result: false, context: false, condstore: false, name: Name::Other, skip: 0 };

    /// Of a command whose first line segment this is.
    pub fn of(head: &Head<'_>, segment: &[u8]) -> Self {
        let name = head.name;
        let mut effects = Self { saves_result: false, context: name == Name::CancelUpdate, condstore: false, name, skip: 0 };
        let mut scan = Scan::new(segment);
        // Tag and name, and UID before it.
        for _ in 0..2 + u8::from(head.uid) {
            scan.word();
            scan.spaces();
        }
        if matches!(name, Name::Search | Name::Sort | Name::Thread | Name::Esearch) && scan.eat_word("RETURN") {
            scan.spaces();
            let options = if scan.eat(b'(') { scan.take_until(b')').unwrap_or_default() } else { b"" };
            for option in options.split(|b| *b == b' ') {
                effects.saves_result |= option.eq_ignore_ascii_case(b"SAVE");
                effects.context |= option.eq_ignore_ascii_case(b"UPDATE");
            }
        }
        effects.skip = u8::from(matches!(name, Name::Status | Name::Select | Name::Examine));
        effects.words(scan);
        effects
    }

    /// Of its next line segment, after a literal.
    pub fn more(&mut self, segment: &[u8]) {
        self.words(Scan::new(segment));
    }

    fn words(&mut self, mut scan: Scan<'_>) {
        loop {
            scan.take_while(|b| b" ()<>]".contains(&b));
            match scan.peek() {
                None | Some(b'\r' | b'\n' | b'{') => break,
                Some(b'~') if scan.rest().starts_with(b"~{") => break,
                Some(b'"') => match scan.quoted() {
                    Some(_) => self.skip = self.skip.saturating_sub(1),
                    None => return,
                },
                // Names of header fields are no items.
                Some(b'[') => {
                    if scan.take_until(b']').is_none() {
                        return;
                    }
                }
                Some(_) => match scan.take_while(|b| !b" ()<>[]\r\n\"".contains(&b)) {
                    b"" => return,
                    word => self.word(word),
                },
            }
        }
        if scan.peek() == Some(b'{') || scan.peek() == Some(b'~') {
            self.skip = self.skip.saturating_sub(1);
        }
    }

    fn word(&mut self, word: &[u8]) {
        if self.skip > 0 {
            self.skip -= 1;
            return;
        }
        let is = |name: &str| word.eq_ignore_ascii_case(name.as_bytes());
        self.condstore |= match self.name {
            Name::Fetch => is("MODSEQ") || is("CHANGEDSINCE"),
            Name::Store => is("UNCHANGEDSINCE"),
            Name::Status | Name::List | Name::Notify => is("HIGHESTMODSEQ"),
            Name::Select | Name::Examine => is("CONDSTORE") || is("QRESYNC"),
            Name::Enable => is("CONDSTORE") || is("QRESYNC"),
            Name::Search | Name::Sort | Name::Thread | Name::Esearch => {
                self.skip = SEARCH_KEYS.iter().find(|(key, _)| is(key)).map_or(0, |(_, arguments)| *arguments);
                is("MODSEQ")
            }
            _ => false,
        };
    }
}

#[cfg(test)]
#[path = "effects_tests.rs"]
mod tests;
