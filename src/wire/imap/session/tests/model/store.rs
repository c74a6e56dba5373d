//! The truth: a mailbox and all that it has been.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::time::{Duration, Instant};

pub type Marks = BTreeSet<String>;

/// A keyword that names the message, set when it comes and never cleared: whoever tells its flags
/// says whose they are.
pub fn name_of(uid: u32) -> String {
    format!("$m{uid}")
}

/// The text of a message: what must not be taken for the protocol.
pub fn body_of(uid: u32) -> String {
    format!("* 1 EXPUNGE\r\n* {uid} EXISTS\r\nmailpush9 OK\r\n+ idling\r\nDONE {{3}}\r\n")
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    pub flags: Marks,
    pub modseq: u64,
}

/// The mailbox at one moment.
#[derive(Debug, Clone)]
pub struct Mailbox {
    pub messages: BTreeMap<u32, Message>,
    pub uidnext: u32,
    pub modseq: u64,
    /// All that were ever used.
    pub keywords: Marks,
}

impl Mailbox {
    pub fn append(&mut self) -> u32 {
        let uid = self.uidnext;
        self.uidnext += 1;
        self.modseq += 1;
        self.keywords.insert(name_of(uid));
        self.messages.insert(uid, Message { flags: [name_of(uid)].into(), modseq: self.modseq });
        uid
    }

    pub fn flag(&mut self, uid: u32, flags: &Marks, set: bool) {
        let Some(message) = self.messages.get_mut(&uid) else { return };
        self.modseq += 1;
        message.modseq = self.modseq;
        for flag in flags {
            if set {
                message.flags.insert(flag.clone());
                self.keywords.extend(Some(flag).filter(|flag| flag.starts_with('$')).cloned());
            } else {
                message.flags.remove(flag);
            }
        }
    }
}

/// The mailbox, and when it was what; a server that lags shows an older moment.
#[derive(Debug)]
pub struct Store {
    moments: Vec<(Instant, Rc<Mailbox>)>,
    shown: usize,
    pub lag: Duration,
    /// The user may not read the mailbox any more, and never will again.
    pub denied: bool,
    /// So many questions for rights are not answered.
    pub silent: u8,
}

impl Store {
    /// Holds the odd ones of the UIDs below `uidnext`.
    pub fn new(now: Instant, uidnext: u32) -> Self {
        let mut mailbox = Mailbox { messages: BTreeMap::new(), uidnext: 1, modseq: 1, keywords: Marks::new() };
        while mailbox.uidnext < uidnext {
            let uid = mailbox.append();
            if uid.is_multiple_of(2) {
                mailbox.messages.remove(&uid);
            }
        }
        Self { moments: vec![(now, Rc::new(mailbox))], shown: 0, lag: Duration::ZERO, denied: false, silent: 0 }
    }

    pub fn latest(&self) -> Rc<Mailbox> {
        Rc::clone(&self.moments[self.moments.len() - 1].1)
    }

    pub fn change<T>(&mut self, now: Instant, change: impl FnOnce(&mut Mailbox) -> T) -> T {
        let mut mailbox = (*self.latest()).clone();
        let told = change(&mut mailbox);
        self.moments.push((now, Rc::new(mailbox)));
        told
    }

    /// What the server shows now; never older than what it showed before.
    pub fn shown(&mut self, now: Instant) -> Rc<Mailbox> {
        while self.moments.get(self.shown + 1).is_some_and(|(at, _)| *at + self.lag <= now) {
            self.shown += 1;
        }
        Rc::clone(&self.moments[self.shown].1)
    }

    /// Whoever changes something sees it.
    pub fn catch_up(&mut self) {
        self.shown = self.moments.len() - 1;
    }
}
