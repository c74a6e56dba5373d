//! The model server: one connection of it. Its view of the mailbox moves only where RFC 9051 lets
//! it.

use std::fmt::Write;
use std::rc::Rc;
use std::time::Instant;

use super::chance::Chance;
use super::store::{Mailbox, Marks, Store, body_of};

/// What the server can do.
#[derive(Debug, Clone, Copy)]
pub struct Offers {
    pub esearch: bool,
    pub idle: bool,
    pub namespace: bool,
    pub sasl_ir: bool,
    pub condstore: bool,
    pub acl: bool,
}

impl Offers {
    fn capabilities(self) -> String {
        let mut list = "IMAP4rev1 ENABLE LITERAL+ AUTH=PLAIN".to_owned();
        let more = [
            (self.esearch, " ESEARCH"),
            (self.idle, " IDLE"),
            (self.namespace, " NAMESPACE"),
            (self.sasl_ir, " SASL-IR"),
            (self.condstore, " CONDSTORE QRESYNC"),
            (self.acl, " ACL RIGHTS=texk"),
        ];
        more.iter().filter(|(has, _)| *has).for_each(|(_, word)| list.push_str(word));
        list
    }
}

/// A message as this connection knows it.
#[derive(Debug, Clone)]
pub struct Held {
    pub uid: u32,
    pub flags: Marks,
    pub modseq: u64,
}

/// What is being waited for.
#[derive(Debug)]
enum Awaited {
    Command,
    SaslLine(String),
    Literal { tag: String, size: usize },
    Done(String),
}

#[derive(Debug)]
pub struct Connection {
    offers: Offers,
    input: Vec<u8>,
    /// What is on its way to the gateway.
    pub out: String,
    pub view: Option<Vec<Held>>,
    awaited: Awaited,
    condstore: bool,
    qresync: bool,
    keywords: Marks,
    pub closed: bool,
}

pub fn join(flags: &Marks) -> String {
    flags.iter().map(String::as_str).collect::<Vec<_>>().join(" ")
}

impl Connection {
    pub fn new(offers: Offers) -> Self {
        Self {
            offers,
            input: Vec::new(),
            out: format!("* OK [CAPABILITY {}] Ready\r\n", offers.capabilities()),
            view: None,
            awaited: Awaited::Command,
            condstore: false,
            qresync: false,
            keywords: Marks::new(),
            closed: false,
        }
    }

    pub fn receive(&mut self, bytes: &[u8], store: &mut Store, now: Instant, chance: &mut Chance) {
        self.input.extend_from_slice(bytes);
        while !self.closed {
            if let Awaited::Literal { tag, size } = &self.awaited {
                if self.input.len() < size + 2 {
                    return;
                }
                let (tag, literal) = (tag.clone(), self.input.drain(..size + 2).collect::<Vec<u8>>());
                let bait = body_of(0);
                assert_eq!(String::from_utf8_lossy(&literal), format!("{bait}\r\n"), "a literal is changed on its way");
                self.awaited = Awaited::Command;
                store.change(now, Mailbox::append);
                self.see_own_change(store, now, chance);
                self.say(&tag, "OK Appended");
                continue;
            }
            let Some(end) = self.input.iter().position(|b| *b == b'\n') else { return };
            let line: Vec<u8> = self.input.drain(..=end).collect();
            let line = String::from_utf8(line).expect("commands are text");
            let line = line.strip_suffix("\r\n").expect("lines end in CRLF").to_owned();
            self.read(&line, store, now, chance);
        }
    }

    fn say(&mut self, tag: &str, words: &str) {
        let _ = write!(self.out, "{tag} {words}\r\n");
    }

    fn read(&mut self, line: &str, store: &mut Store, now: Instant, chance: &mut Chance) {
        match std::mem::replace(&mut self.awaited, Awaited::Command) {
            Awaited::SaslLine(tag) => return self.say(&tag, "OK Logged in"),
            Awaited::Done(tag) => {
                assert!(line.eq_ignore_ascii_case("DONE"), "the server idles and is told {line:?}");
                self.sync(&store.shown(now), true, chance);
                return self.say(&tag, "OK Idle completed");
            }
            Awaited::Command | Awaited::Literal { .. } => {}
        }
        let words: Vec<&str> = line.split(' ').collect();
        let [tag, command, rest @ ..] = &words[..] else { panic!("no command: {line:?}") };
        assert!(tag.starts_with("mailpush") || tag.starts_with('c'), "whose command is {line:?}?");
        match (*command, rest) {
            ("LOGIN", _) => {
                let words = format!("OK [CAPABILITY {}] Logged in", self.offers.capabilities());
                self.say(tag, &words);
            }
            ("AUTHENTICATE", ["PLAIN"]) => {
                self.out.push_str("+ \r\n");
                self.awaited = Awaited::SaslLine((*tag).to_owned());
            }
            ("AUTHENTICATE", ["PLAIN", _]) => self.say(tag, "OK Logged in"),
            ("CAPABILITY", []) => {
                let _ = write!(self.out, "* CAPABILITY {}\r\n", self.offers.capabilities());
                self.say(tag, "OK Done");
            }
            ("ENABLE", names) => {
                self.condstore = true;
                self.qresync |= names.contains(&"QRESYNC");
                let _ = write!(self.out, "* ENABLED {}\r\n", names.join(" "));
                self.say(tag, "OK Enabled");
            }
            ("MYRIGHTS", [name]) => {
                // Whatever may be told at any time may be told now.
                if chance.of(4) {
                    self.sync(&store.shown(now), true, chance);
                }
                self.my_rights(tag, name, store);
            }
            ("SETACL", [_, "carol", "lr"]) => self.say(tag, "OK Setacl complete"),
            ("NAMESPACE", []) => {
                if chance.of(2) {
                    self.sync(&store.shown(now), true, chance);
                }
                self.out.push_str("* NAMESPACE ((\"\" \"/\")) ((\"shared/\" \"/\")) NIL\r\n");
                self.say(tag, "OK Done");
            }
            ("LIST", _) => {
                self.out.push_str("* LIST (\\Noselect) \"/\" \"\"\r\n");
                self.say(tag, "OK Done");
            }
            ("SELECT" | "EXAMINE", _) => self.select(tag, rest.contains(&"(CONDSTORE)"), &store.shown(now)),
            ("NOOP", []) => {
                self.sync(&store.shown(now), true, chance);
                self.say(tag, "OK Done");
            }
            ("IDLE", []) => {
                assert!(tag.starts_with("mailpush"), "the client's IDLE has reached the server");
                assert!(self.offers.idle, "the server has no IDLE");
                self.out.push_str("+ idling\r\n");
                self.awaited = Awaited::Done((*tag).to_owned());
            }
            ("LOGOUT", []) => {
                self.out.push_str("* BYE Logging out\r\n");
                self.say(tag, "OK Done");
                self.closed = true;
            }
            ("APPEND", [_, size]) => self.append(tag, size),
            ("UID", ["SEARCH", how @ ..]) => self.search(tag, how, store, now, chance),
            ("UID", ["FETCH", set, items @ ..]) => {
                // A UID command may tell what is gone, before or behind its answer.
                let first = chance.of(2);
                if first {
                    self.sync(&store.shown(now), true, chance);
                }
                self.fetch(set, true, &items.join(" "));
                if !first && chance.of(2) {
                    self.sync(&store.shown(now), true, chance);
                }
                self.say(tag, "OK Done");
            }
            ("FETCH", [set, items @ ..]) => {
                self.sync(&store.shown(now), false, chance);
                let words = if self.fetch(set, false, &items.join(" ")) { "OK Done" } else { "BAD No such message" };
                self.say(tag, words);
            }
            ("STORE", [seq, "+FLAGS", flag]) => self.store(tag, seq, flag, store, now, chance),
            _ => panic!("the model server does not know {line:?}"),
        }
    }

    fn my_rights(&mut self, tag: &str, name: &str, store: &mut Store) {
        assert!(self.offers.acl, "MYRIGHTS is not offered");
        if store.silent > 0 {
            store.silent -= 1;
            return self.say(tag, "NO [UNAVAILABLE] Later");
        }
        if store.denied {
            return self.say(tag, "NO [NONEXISTENT] No such mailbox");
        }
        let _ = write!(self.out, "* MYRIGHTS {name} lrs\r\n");
        self.say(tag, "OK Done");
    }

    fn append(&mut self, tag: &str, size: &str) {
        let size = size.trim_matches(['{', '}']);
        if !size.ends_with('+') {
            self.out.push_str("+ go on\r\n");
        }
        let size = size.trim_end_matches('+').parse().expect("a size");
        self.awaited = Awaited::Literal { tag: tag.to_owned(), size };
    }

    fn see_own_change(&mut self, store: &mut Store, now: Instant, chance: &mut Chance) {
        store.catch_up();
        self.sync(&store.shown(now), false, chance);
    }

    fn store(&mut self, tag: &str, seq: &str, flag: &str, store: &mut Store, now: Instant, chance: &mut Chance) {
        let held = self.view.as_ref().and_then(|view| view.get(seq.parse::<usize>().ok()?.checked_sub(1)?));
        let Some(uid) = held.map(|held| held.uid) else { return self.say(tag, "BAD No such message") };
        let flag = flag.trim_matches(['(', ')']).to_owned();
        store.change(now, |mailbox| mailbox.flag(uid, &[flag].into(), true));
        self.see_own_change(store, now, chance);
        self.say(tag, "OK Done");
    }

    fn select(&mut self, tag: &str, condstore: bool, mailbox: &Rc<Mailbox>) {
        self.condstore |= condstore;
        self.tell_keywords(mailbox, true);
        let held = mailbox.messages.iter().map(|(uid, m)| Held { uid: *uid, flags: m.flags.clone(), modseq: m.modseq });
        let view: Vec<Held> = held.collect();
        let (count, uidnext, modseq) = (view.len(), mailbox.uidnext, mailbox.modseq);
        self.view = Some(view);
        let _ = write!(
            self.out,
            "* {count} EXISTS\r\n* 0 RECENT\r\n* OK [UIDVALIDITY 9] UIDs valid\r\n* OK [UIDNEXT {uidnext}] Next\r\n"
        );
        if self.offers.condstore {
            let _ = write!(self.out, "* OK [HIGHESTMODSEQ {modseq}] Highest\r\n");
        }
        self.say(tag, "OK [READ-WRITE] Selected");
    }

    fn tell_keywords(&mut self, mailbox: &Mailbox, anyway: bool) {
        if anyway || self.keywords != mailbox.keywords {
            self.keywords = mailbox.keywords.clone();
            let list = format!("\\Seen \\Flagged \\Deleted {}", join(&self.keywords));
            let _ = write!(self.out, "* FLAGS ({list})\r\n* OK [PERMANENTFLAGS ({list} \\*)] Flags permitted.\r\n");
        }
    }

    fn tell_flags(&mut self, at: usize, uid: bool) {
        let Some(held) = self.view.as_ref().and_then(|view| view.get(at)) else { return };
        let mut items = format!("FLAGS ({})", join(&held.flags));
        if uid || self.qresync {
            items = format!("UID {} {items}", held.uid);
        }
        if self.condstore {
            let _ = write!(items, " MODSEQ ({})", held.modseq);
        }
        let _ = write!(self.out, "* {} FETCH ({items})\r\n", at + 1);
    }

    /// Brings the view up to the mailbox, and says so. Without `expunge`, what is gone stays as it
    /// was.
    pub fn sync(&mut self, mailbox: &Rc<Mailbox>, expunge: bool, chance: &mut Chance) {
        if self.view.is_none() {
            return;
        }
        self.tell_keywords(mailbox, false);
        // Some tell flags in the old numbers, some in the new ones.
        let flags_first = chance.of(2);
        if flags_first {
            self.sync_flags(mailbox);
        }
        if expunge {
            self.sync_gone(mailbox);
        }
        let Some(view) = &mut self.view else { return };
        let last = view.last().map_or(0, |held| held.uid);
        let new = mailbox.messages.range(last + 1..);
        let before = view.len();
        view.extend(new.map(|(uid, m)| Held { uid: *uid, flags: m.flags.clone(), modseq: m.modseq }));
        if view.len() > before {
            let _ = write!(self.out, "* {} EXISTS\r\n* 0 RECENT\r\n", view.len());
        }
        if !flags_first {
            self.sync_flags(mailbox);
        }
    }

    fn sync_flags(&mut self, mailbox: &Mailbox) {
        for at in 0..self.view.as_ref().map_or(0, Vec::len) {
            let Some(held) = self.view.as_mut().and_then(|view| view.get_mut(at)) else { return };
            let Some(message) = mailbox.messages.get(&held.uid).filter(|m| m.modseq != held.modseq) else { continue };
            (held.flags, held.modseq) = (message.flags.clone(), message.modseq);
            self.tell_flags(at, false);
        }
    }

    fn sync_gone(&mut self, mailbox: &Mailbox) {
        let Some(view) = &mut self.view else { return };
        let is_gone = |held: &Held| !mailbox.messages.contains_key(&held.uid);
        let uids: Vec<String> = view.iter().filter(|held| is_gone(held)).map(|held| held.uid.to_string()).collect();
        let seqs: Vec<usize> = view.iter().enumerate().filter(|(_, held)| is_gone(held)).map(|(at, _)| at + 1).collect();
        view.retain(|held| !is_gone(held));
        if self.qresync && !uids.is_empty() {
            let _ = write!(self.out, "* VANISHED {}\r\n", uids.join(","));
        } else {
            seqs.iter().rev().for_each(|seq| {
                let _ = write!(self.out, "* {seq} EXPUNGE\r\n");
            });
        }
    }

    fn search(&mut self, tag: &str, how: &[&str], store: &mut Store, now: Instant, chance: &mut Chance) {
        let first = chance.of(2);
        if first {
            self.sync(&store.shown(now), true, chance);
        }
        let uids: Vec<String> = self.view.iter().flatten().map(|held| held.uid.to_string()).collect();
        let esearch = matches!(how, ["RETURN", "(ALL)", "ALL"]);
        // Some split a long list, and may tell what is gone in between.
        let cut = if chance.of(3) { chance.below(uids.len().max(1)) } else { uids.len() };
        let (one, other) = uids.split_at(cut);
        self.tell_uids(tag, esearch, one);
        if !other.is_empty() {
            if chance.of(8) {
                self.sync(&store.shown(now), true, chance);
            }
            self.tell_uids(tag, esearch, other);
        }
        if !first && chance.of(3) {
            self.sync(&store.shown(now), true, chance);
        }
        self.say(tag, "OK Done");
    }

    fn tell_uids(&mut self, tag: &str, esearch: bool, uids: &[String]) {
        let _ = match esearch {
            true if uids.is_empty() => write!(self.out, "* ESEARCH (TAG \"{tag}\") UID\r\n"),
            true => write!(self.out, "* ESEARCH (TAG \"{tag}\") UID ALL {}\r\n", uids.join(",")),
            false if uids.is_empty() => write!(self.out, "* SEARCH\r\n"),
            false => write!(self.out, "* SEARCH {}\r\n", uids.join(" ")),
        };
    }

    /// Whether all that was asked for is there.
    fn fetch(&mut self, set: &str, uid: bool, items: &str) -> bool {
        let held: Vec<u32> = self.view.iter().flatten().map(|held| held.uid).collect();
        let since = items.split("CHANGEDSINCE ").nth(1).map_or(0, |n| n.trim_matches(')').parse().expect("a modseq"));
        let wants_uid = uid || items.contains("UID");
        let last = held.last().copied().unwrap_or(0).max(1) as usize;
        for range in set.split(',') {
            let (from, to) = range.split_once(':').unwrap_or((range, range));
            let number =
                |text: &str| if text == "*" { if uid { last } else { held.len() } } else { text.parse().expect("a number") };
            let (from, to) = (number(from), number(to));
            if !uid && (from == 0 || to > held.len()) {
                return false;
            }
            for (at, held_uid) in held.iter().enumerate() {
                let number = if uid { *held_uid as usize } else { at + 1 };
                let changed = self.view.as_ref().is_some_and(|view| view[at].modseq > since);
                if number < from || number > to || !changed {
                    continue;
                }
                if items.contains("BODY[]") {
                    let body = body_of(*held_uid);
                    let _ = write!(self.out, "* {} FETCH (UID {held_uid} BODY[] {{{}}}\r\n{body})\r\n", at + 1, body.len());
                } else {
                    self.tell_flags(at, wants_uid);
                }
            }
        }
        true
    }

    pub fn is_idling(&self) -> bool {
        matches!(self.awaited, Awaited::Done(_))
    }

    /// Whether no command is being read or answered.
    pub fn is_between(&self) -> bool {
        self.input.is_empty() && matches!(self.awaited, Awaited::Command)
    }
}
