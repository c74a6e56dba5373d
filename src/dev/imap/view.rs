//! What a client has been told of its selected mailbox, and how it is told of changes.

use std::collections::BTreeMap;

use super::grammar::uid_set;
use crate::dev::store::basis::Basis;
use crate::dev::store::mailbox::{Mailbox, Message};
use crate::dev::store::messages::may_set;
use crate::mail::rights::Rights;
use crate::mail::{Flags, Uid};

const SYSTEM: [&str; 5] = ["\\Answered", "\\Flagged", "\\Deleted", "\\Seen", "\\Draft"];

/// A message that the client knows of; its place in the list is its sequence number.
#[derive(Debug, Clone)]
pub struct KnownMessage {
    /// As it was told.
    pub message: Message,
    /// This session is the first to know of it (RFC 3501 2.3.2).
    pub recent: bool,
}

/// What the client asked for by ENABLE and by what implies it.
#[derive(Debug, Clone, Copy, Default)]
pub struct Extensions {
    pub condstore: bool,
    pub qresync: bool,
}

/// A selected mailbox.
#[derive(Debug)]
pub struct Selected {
    pub mailbox: u64,
    pub read_only: bool,
    pub basis: Basis,
    pub told: Vec<KnownMessage>,
    /// What FLAGS listed.
    keywords: Flags,
    recent: usize,
    /// The basis holds what was not told yet.
    pub behind: bool,
}

impl Selected {
    pub fn new(mailbox: &mut Mailbox, basis: Basis, read_only: bool) -> Self {
        let mut selected = Self {
            mailbox: mailbox.id,
            read_only,
            basis,
            told: Vec::new(),
            keywords: mailbox.keywords.clone(),
            recent: 0,
            behind: false,
        };
        selected.take_new(mailbox);
        selected.recent = selected.count_recent();
        selected
    }

    pub fn count_recent(&self) -> usize {
        self.told.iter().filter(|told| told.recent).count()
    }

    /// The message now, or as it was last known where it is gone.
    pub fn now<'a>(&'a self, told: &'a KnownMessage) -> &'a Message {
        self.basis.get(told.message.uid).unwrap_or(&told.message)
    }

    /// The FLAGS response and the PERMANENTFLAGS code.
    pub fn write_flags(&self, out: &mut Vec<u8>, rights: Rights) {
        let keywords: Vec<&str> = self.keywords.iter().map(|flag| flag.as_str()).collect();
        let all: Vec<&str> = SYSTEM.iter().chain(&keywords).copied().collect();
        let may_set = may_set(rights);
        let mut permanent: Vec<&str> = all.iter().copied().filter(|flag| !self.read_only && may_set(flag)).collect();
        if !self.read_only && rights.has('w') {
            permanent.push("\\*");
        }
        let words = if self.read_only { "Read-only" } else { "These can be changed" };
        let text = format!("* FLAGS ({})\r\n* OK [PERMANENTFLAGS ({})] {words}\r\n", all.join(" "), permanent.join(" "));
        out.extend_from_slice(text.as_bytes());
    }

    /// Keywords come before the first FETCH that shows them.
    pub fn write_new_keywords(&mut self, out: &mut Vec<u8>, mailbox: &Mailbox, rights: Rights) {
        if mailbox.keywords != self.keywords {
            self.keywords = mailbox.keywords.clone();
            self.write_flags(out, rights);
        }
    }

    /// Tells what is new, in the order that clients know: FETCH by the old numbers, EXPUNGE from
    /// the last to the first, EXISTS, RECENT. Without `expunge`, what is gone stays until it may be
    /// told (RFC 9051 7.5.1).
    pub fn tell(&mut self, out: &mut Vec<u8>, mailbox: &mut Mailbox, rights: Rights, enabled: Extensions, expunge: bool) {
        if !self.behind {
            return;
        }
        self.write_new_keywords(out, mailbox, rights);
        let now: BTreeMap<Uid, &Message> = self.basis.messages.iter().map(|message| (message.uid, message)).collect();
        for (at, told) in self.told.iter_mut().enumerate() {
            if let Some(message) = now.get(&told.message.uid)
                && message.modseq > told.message.modseq
            {
                told.message = (*message).clone();
                write_flags_of(out, at, told, enabled, false);
            }
        }
        let mut gone = Vec::new();
        if expunge {
            for at in (0..self.told.len()).rev() {
                if !now.contains_key(&self.told[at].message.uid) {
                    gone.push((at, self.told.remove(at).message.uid));
                }
            }
        }
        if enabled.qresync && !gone.is_empty() {
            let uids = uid_set(gone.iter().rev().map(|(_, uid)| uid));
            out.extend_from_slice(format!("* VANISHED {uids}\r\n").as_bytes());
        } else {
            for (at, _) in gone {
                out.extend_from_slice(format!("* {} EXPUNGE\r\n", at + 1).as_bytes());
            }
        }
        if self.take_new(mailbox) {
            out.extend_from_slice(format!("* {} EXISTS\r\n", self.told.len()).as_bytes());
        }
        let recent = self.count_recent();
        if recent != self.recent {
            self.recent = recent;
            out.extend_from_slice(format!("* {recent} RECENT\r\n").as_bytes());
        }
        self.behind = self.told.len() != self.basis.messages.len();
    }

    /// Takes messages beyond the last known one into the view; whether there were any.
    fn take_new(&mut self, mailbox: &mut Mailbox) -> bool {
        let last = self.told.last().map(|told| told.message.uid);
        let from = self.basis.messages.partition_point(|message| Some(message.uid) <= last);
        let recent_from = mailbox.recent_from;
        let new = self.basis.messages[from..]
            .iter()
            .map(|message| KnownMessage { recent: message.uid.get() >= recent_from, message: message.clone() });
        self.told.extend(new);
        if !self.read_only {
            mailbox.recent_from = recent_from.max(self.basis.uidnext);
        }
        from < self.basis.messages.len()
    }
}

/// `* n FETCH (FLAGS (…))`, with UID and MODSEQ where they are due (RFC 7162 3.1, 3.2.4).
pub fn write_flags_of(out: &mut Vec<u8>, at: usize, told: &KnownMessage, enabled: Extensions, uid: bool) {
    let mut text = format!("* {} FETCH (", at + 1);
    if uid || enabled.qresync {
        text += &format!("UID {} ", told.message.uid);
    }
    text += &flags_item(told);
    if enabled.condstore {
        text += &format!(" MODSEQ ({})", told.message.modseq);
    }
    out.extend_from_slice(text.as_bytes());
    out.extend_from_slice(b")\r\n");
}

/// `FLAGS (…)`.
pub fn flags_item(told: &KnownMessage) -> String {
    let mut flags: Vec<&str> = told.message.flags.iter().map(|flag| flag.as_str()).collect();
    if told.recent {
        flags.push("\\Recent");
    }
    format!("FLAGS ({})", flags.join(" "))
}
