//! The model client: it believes what the protocol tells it, nothing else, and complains of what it
//! must not be told.

use std::collections::VecDeque;

use super::store::{Marks, body_of};

/// A message, as far as the client knows it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Slot {
    pub uid: Option<u32>,
    pub flags: Option<Marks>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Doing {
    /// LOGIN, ENABLE, LOGOUT.
    Setup,
    Select,
    Idle {
        /// The server has said that it idles.
        told: bool,
        done: bool,
        /// What the client said was not DONE.
        bad: bool,
    },
    /// NOOP and UID commands: EXPUNGE may come.
    Open,
    /// FETCH, STORE and the like: it may not. `certain`: the numbers in it were good when it was
    /// sent.
    Closed {
        certain: bool,
    },
}

#[derive(Debug)]
pub struct Client {
    heard: Vec<u8>,
    pub slots: Vec<Slot>,
    /// Commands that are not answered yet, oldest first.
    pub sent: VecDeque<(String, Doing)>,
    serial: u32,
    keywords: Marks,
    pub condstore: bool,
    pub qresync: bool,
    /// What follows once the server asks for it.
    literal: Option<String>,
    /// What it wants to say now, unasked by the test.
    pub out: String,
    /// How many IDLEs have been ended with another command to come, or none.
    pub levelled: bool,
    pub over: Option<String>,
}

impl Client {
    pub fn new() -> Self {
        Self {
            heard: Vec::new(),
            slots: Vec::new(),
            sent: VecDeque::new(),
            serial: 0,
            keywords: Marks::new(),
            condstore: false,
            qresync: false,
            literal: None,
            out: String::new(),
            levelled: false,
            over: None,
        }
    }

    pub fn send(&mut self, command: &str, doing: Doing) {
        self.serial += 1;
        let tag = format!("c{}", self.serial);
        self.out.push_str(&format!("{tag} {command}\r\n"));
        self.sent.push_back((tag, doing));
    }

    /// APPEND with a literal that is announced, or with one that comes at once (RFC 7888).
    pub fn append(&mut self, name: &str, at_once: bool) {
        let body = body_of(0);
        let plus = if at_once { "+" } else { "" };
        self.send(&format!("APPEND {name} {{{}{plus}}}", body.len()), Doing::Closed { certain: true });
        if at_once {
            self.out.push_str(&format!("{body}\r\n"));
        } else {
            self.literal = Some(format!("{body}\r\n"));
        }
    }

    /// Ends IDLE, by DONE or by what is wrong.
    pub fn done(&mut self, word: &str) {
        if let Some((_, Doing::Idle { done, bad, .. })) = self.sent.back_mut() {
            (*done, *bad) = (true, !word.eq_ignore_ascii_case("DONE"));
            self.out.push_str(&format!("{word}\r\n"));
        }
    }

    /// Whether IDLE has been asked for and not been ended.
    pub fn idles(&self) -> bool {
        matches!(self.sent.back(), Some((_, Doing::Idle { done: false, .. })))
    }

    /// Whether IDLE is all that goes on.
    pub fn only_idles(&self) -> bool {
        self.sent.len() == 1 && matches!(self.sent.back(), Some((_, Doing::Idle { told: true, done: false, .. })))
    }

    /// The server has said goodbye.
    pub fn is_leaving(&self) -> bool {
        self.over.as_ref().is_some_and(|words| words.contains("Logging out"))
    }

    pub fn can_command(&self) -> bool {
        !self.idles() && self.literal.is_none() && self.over.is_none()
    }

    pub fn hear(&mut self, bytes: &[u8]) {
        self.heard.extend_from_slice(bytes);
        while let Some((text, literal)) = self.response() {
            assert!(self.over.is_none() || text.starts_with('c'), "after BYE: {text:?}");
            assert!(!text.contains("mailpush"), "the gateway's own: {text:?}");
            if let Some(rest) = text.strip_prefix("* ") {
                self.untagged(rest, literal.as_deref());
            } else if text.starts_with('+') {
                self.go_on();
            } else {
                self.tagged(&text);
            }
        }
    }

    /// The next whole response: its lines, and the literal in it.
    fn response(&mut self) -> Option<(String, Option<String>)> {
        let end = self.heard.iter().position(|b| *b == b'\n')?;
        let line = String::from_utf8(self.heard[..=end].to_vec()).expect("text");
        let mut text = line.strip_suffix("\r\n").expect("lines end in CRLF").to_owned();
        let size = text.strip_suffix('}').and_then(|text| text.rsplit('{').next()?.parse::<usize>().ok());
        let (mut next, mut literal) = (end + 1, None);
        if let Some(size) = size {
            literal = Some(String::from_utf8(self.heard.get(next..next + size)?.to_vec()).expect("text"));
            next += size;
            let rest = self.heard[next..].iter().position(|b| *b == b'\n')?;
            text.push_str(std::str::from_utf8(&self.heard[next..next + rest]).expect("text").trim_end());
            next += rest + 1;
        }
        self.heard.drain(..next);
        Some((text, literal))
    }

    fn go_on(&mut self) {
        if let Some((_, Doing::Idle { told, .. })) = self.sent.front_mut() {
            assert!(!std::mem::replace(told, true), "IDLE begins twice");
        } else {
            let literal = self.literal.take().unwrap_or_else(|| panic!("a continuation while {:?}", self.sent.front()));
            self.out.push_str(&literal);
        }
    }

    fn tagged(&mut self, text: &str) {
        let (tag, words) = text.split_once(' ').expect("a tagged response");
        let (expected, doing) = self.sent.pop_front().expect("something is asked");
        assert_eq!(tag, expected, "{text}");
        match doing {
            Doing::Idle { told, done, bad } => {
                assert!(told && done, "IDLE ends by itself: {text:?}");
                assert_eq!(words.starts_with("OK"), !bad, "{text:?}");
                self.levelled |= !matches!(self.sent.front(), Some((_, Doing::Idle { .. })));
            }
            Doing::Closed { certain: false } => {}
            _ => assert!(words.starts_with("OK"), "{text:?}"),
        }
    }

    fn untagged(&mut self, text: &str, literal: Option<&str>) {
        let words: Vec<&str> = text.split(' ').collect();
        match words[..] {
            [count, "EXISTS"] => self.exists(count.parse().expect("a count")),
            [seq, "EXPUNGE"] => {
                assert!(!self.qresync, "EXPUNGE where VANISHED is due");
                self.assert_expunge_may_come(text);
                let seq: usize = seq.parse().expect("a number");
                assert!(seq >= 1 && seq <= self.slots.len(), "there is no {seq} of {}", self.slots.len());
                self.slots.remove(seq - 1);
            }
            ["VANISHED", uids] => {
                assert!(self.qresync, "VANISHED where EXPUNGE is due");
                self.assert_expunge_may_come(text);
                uids.split(',').for_each(|range| self.vanished(range));
            }
            [seq, "FETCH", ..] => self.fetched(seq.parse().expect("a number"), text, literal),
            ["FLAGS", ..] => self.keywords = inner(text, "FLAGS (").expect("a list"),
            ["BYE", ..] => self.over = Some(text.to_owned()),
            [_, "RECENT"] | ["OK" | "CAPABILITY" | "ENABLED" | "NAMESPACE" | "LIST" | "SEARCH" | "ESEARCH", ..] => {}
            _ => panic!("what is {text:?}?"),
        }
    }

    /// RFC 9051 7.5.1: not when no command is in progress, nor while FETCH, STORE or SEARCH is
    /// answered.
    fn assert_expunge_may_come(&self, text: &str) {
        let may = matches!(self.sent.front(), Some((_, Doing::Open | Doing::Idle { told: true, .. })));
        assert!(may, "{text:?} while {:?}", self.sent.front());
    }

    fn exists(&mut self, count: usize) {
        if let Some((_, Doing::Select)) = self.sent.front() {
            self.slots = vec![Slot::default(); count];
            return;
        }
        assert!(count >= self.slots.len(), "EXISTS shrinks from {} to {count}", self.slots.len());
        self.slots.resize(count, Slot::default());
    }

    fn vanished(&mut self, range: &str) {
        let (from, to) = range.split_once(':').unwrap_or((range, range));
        for uid in from.parse().expect("a UID")..=to.parse::<u32>().expect("a UID") {
            let known = self.slots.iter().position(|slot| slot.uid == Some(uid));
            // Of those whose UID is not known, one between its neighbours.
            let below = self.slots.iter().rposition(|slot| slot.uid.is_some_and(|known| known < uid)).map_or(0, |at| at + 1);
            let free = self.slots.get(below).is_some_and(|slot| slot.uid.is_none()).then_some(below);
            let at = known.or(free).unwrap_or_else(|| panic!("{uid} vanishes and was never there: {:?}", self.slots));
            self.slots.remove(at);
        }
    }

    fn fetched(&mut self, seq: usize, text: &str, literal: Option<&str>) {
        assert!(seq >= 1 && seq <= self.slots.len(), "{text:?}, and there are {}", self.slots.len());
        let number = |name: &str| Some(text.split(name).nth(1)?.split([' ', ')']).next()?.parse::<u32>().expect("a number"));
        let flags = inner(text, "FLAGS (");
        let mut uid = number("UID ");
        if let Some(flags) = &flags {
            assert_eq!(text.contains("MODSEQ"), self.condstore, "MODSEQ: {text:?}");
            let unknown = flags.iter().find(|flag| flag.starts_with('$') && !self.keywords.contains(*flag));
            assert_eq!(unknown, None, "a keyword that the client was not told of, in {text:?}");
            let named = flags.iter().find_map(|flag| flag.strip_prefix("$m")?.parse::<u32>().ok());
            assert!(named.is_some() && (uid.is_none() || uid == named), "whose flags are {text:?}?");
            uid = named;
        }
        let uid = uid.expect("who it is");
        let below = self.slots[..seq - 1].iter().filter_map(|slot| slot.uid).next_back();
        let above = self.slots[seq..].iter().find_map(|slot| slot.uid);
        assert!(below.is_none_or(|below| below < uid) && above.is_none_or(|above| uid < above), "out of order: {text:?}");
        if let Some(literal) = literal {
            assert_eq!(literal, body_of(uid), "a literal is changed on its way");
        }
        let slot = &mut self.slots[seq - 1];
        assert!(slot.uid.is_none_or(|known| known == uid), "a wrong number: {text:?}, and {seq} is {:?}", slot.uid);
        slot.uid = Some(uid);
        slot.flags = flags.or(slot.flags.take());
    }
}

fn inner(text: &str, before: &str) -> Option<Marks> {
    let (list, _) = text.split_once(before)?.1.split_once(')')?;
    Some(list.split(' ').filter(|flag| !flag.is_empty()).map(str::to_owned).collect())
}
