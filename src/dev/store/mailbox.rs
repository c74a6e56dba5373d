//! One mailbox: its messages, its numbers, and a log of what happened to it.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use crate::mail::event::{FlagChange, Status};
use crate::mail::rights::{Acl, Rights, Subject};
use crate::mail::{Flags, MailboxPath, ModSeq, Uid, UidValidity, UserName};

/// Expunged messages and changes that are remembered.
const REMEMBERED: usize = 10_000;

/// What never changes of a message.
#[derive(Debug, PartialEq, Eq)]
pub struct Content {
    pub raw: Vec<u8>,
    /// In milliseconds since 1970, UTC; whole seconds.
    pub internaldate: u64,
}

/// A message in a mailbox. Cheap enough to clone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    pub uid: Uid,
    pub flags: Flags,
    pub modseq: u64,
    pub content: Arc<Content>,
}

/// Who changes something, and when.
#[derive(Debug, Clone, Copy)]
pub struct Stamp {
    pub now: Instant,
    /// In milliseconds since 1970, UTC.
    pub unix_ms: u64,
    /// The session; 0 is none, such as a delivery.
    pub session: u64,
}

/// A change as the log holds it, with what it takes to undo it.
#[derive(Debug, Clone)]
pub enum LogEntry {
    Added(Message),
    Flags { before: Message, after: Message },
    Expunged(Message),
}

#[derive(Debug, Clone)]
pub struct Entry {
    pub at: Instant,
    pub session: u64,
    /// HIGHESTMODSEQ before the change and after it.
    pub highest: (u64, u64),
    pub what: LogEntry,
}

/// A mailbox as it truly is.
#[derive(Debug)]
pub struct Mailbox {
    pub id: u64,
    pub owner: UserName,
    /// Hierarchy separator `/`.
    pub name: String,
    pub uidvalidity: UidValidity,
    pub uidnext: u32,
    /// In UID order.
    pub messages: Vec<Message>,
    /// HIGHESTMODSEQ; never 0 (RFC 7162 3.1.2.1).
    pub highest: u64,
    /// UIDs from here on no session has claimed as recent yet.
    pub recent_from: u32,
    /// What others than the owner may do.
    pub acl: Acl,
    /// Its special use (RFC 6154).
    pub special: Option<&'static str>,
    /// Every keyword that a message has or had.
    pub keywords: Flags,
    /// The first of the log's entries has this number.
    pub log_base: u64,
    pub log: VecDeque<Entry>,
    /// UID and modseq of each, oldest first.
    gone: VecDeque<(Uid, u64)>,
    /// Of expunges up to here not all are remembered.
    gone_floor: u64,
}

impl Mailbox {
    pub fn new(id: u64, owner: UserName, name: String, uidvalidity: UidValidity) -> Self {
        Self {
            id,
            owner,
            name,
            uidvalidity,
            uidnext: 1,
            messages: Vec::new(),
            highest: 1,
            recent_from: 1,
            acl: Acl::default(),
            special: None,
            keywords: Flags::default(),
            log_base: 0,
            log: VecDeque::new(),
            gone: VecDeque::new(),
            gone_floor: 0,
        }
    }

    pub fn rights(&self, user: &UserName) -> Rights {
        if *user == self.owner { Rights::ALL } else { self.acl.leaves(&Subject::alone(user.clone())) }
    }

    /// What the rest of the cluster calls it; whatever is a name here is one in a path too.
    pub fn path(&self) -> Option<MailboxPath> {
        MailboxPath::private(&self.owner, &self.name).ok()
    }

    pub fn get(&self, uid: Uid) -> Option<&Message> {
        find(&self.messages, uid)
    }

    /// RFC 9051 6.3.11's numbers, now.
    pub fn status(&self) -> Status {
        Status {
            messages: Some(self.messages.len() as u32),
            uidnext: Some(self.uidnext),
            unseen: Some(self.messages.iter().filter(|message| !message.flags.contains("\\Seen")).count() as u32),
            highestmodseq: Some(ModSeq(self.highest)),
        }
    }

    pub fn bytes(&self) -> usize {
        self.messages.iter().map(|message| message.content.raw.len()).sum()
    }

    /// Adds messages in one transaction. `None` if the UIDs have run out.
    pub fn append(&mut self, stamp: Stamp, new: Vec<(Flags, Arc<Content>)>) -> Option<Vec<Message>> {
        let modseq = self.highest + 1;
        self.uidnext.checked_add(u32::try_from(new.len()).ok()?)?;
        let mut added = Vec::with_capacity(new.len());
        for (flags, content) in new {
            let message = Message { uid: Uid::new(self.uidnext)?, flags, modseq, content };
            self.uidnext += 1;
            self.note_keywords(&message.flags);
            self.messages.push(message.clone());
            self.note(stamp, modseq, LogEntry::Added(message.clone()));
            added.push(message);
        }
        Some(added)
    }

    /// Changes flags in one transaction; says what changed, without those that stay as they are.
    pub fn set_flags(&mut self, stamp: Stamp, uids: &[Uid], change: impl Fn(&Flags) -> Flags) -> Vec<FlagChange> {
        let modseq = self.highest + 1;
        let mut changes = Vec::new();
        for uid in uids {
            let Ok(at) = self.messages.binary_search_by_key(uid, |message| message.uid) else { continue };
            let before = self.messages[at].clone();
            let flags = change(&before.flags);
            if flags == before.flags {
                continue;
            }
            self.note_keywords(&flags);
            let changed = flags.minus(&before.flags).iter().chain(before.flags.minus(&flags).iter()).cloned().collect();
            changes.push(FlagChange { uid: *uid, changed, flags: Some(flags.clone()), modseq: Some(ModSeq(modseq)) });
            let after = Message { flags, modseq, ..before.clone() };
            self.messages[at] = after.clone();
            self.note(stamp, modseq, LogEntry::Flags { before, after });
        }
        changes
    }

    /// Expunges in one transaction; says which were there.
    pub fn expunge(&mut self, stamp: Stamp, uids: &[Uid]) -> Vec<Uid> {
        let modseq = self.highest + 1;
        let mut expunged = Vec::new();
        for uid in uids {
            let Ok(at) = self.messages.binary_search_by_key(uid, |message| message.uid) else { continue };
            let message = self.messages.remove(at);
            self.note(stamp, modseq, LogEntry::Expunged(message));
            self.gone.push_back((*uid, modseq));
            expunged.push(*uid);
        }
        while self.gone.len() > REMEMBERED {
            if let Some((_, modseq)) = self.gone.pop_front() {
                self.gone_floor = modseq;
            }
        }
        expunged.sort_unstable();
        expunged
    }

    /// When this UID was expunged, as far as it is known: UIDs that may have gone after `modseq`
    /// (RFC 7162 3.2.5: telling of too many is allowed, of too few is not).
    pub fn gone_since(&self, modseq: u64) -> impl Fn(Uid) -> bool {
        let forgotten = modseq < self.gone_floor;
        let since: std::collections::BTreeSet<Uid> =
            self.gone.iter().filter(|(_, at)| *at > modseq).map(|(uid, _)| *uid).collect();
        move |uid| forgotten || since.contains(&uid)
    }

    fn note_keywords(&mut self, flags: &Flags) {
        if flags.iter().any(|flag| !flag.as_str().starts_with('\\') && !self.keywords.contains(flag.as_str())) {
            let all = self.keywords.iter().chain(flags.iter().filter(|flag| !flag.as_str().starts_with('\\')));
            self.keywords = all.cloned().collect();
        }
    }

    fn note(&mut self, stamp: Stamp, modseq: u64, what: LogEntry) {
        let highest = (self.highest, modseq);
        self.highest = modseq;
        self.log.push_back(Entry { at: stamp.now, session: stamp.session, highest, what });
        if self.log.len() > REMEMBERED {
            self.log.pop_front();
            self.log_base += 1;
        }
    }
}

/// Finds a message by its UID.
pub fn find(messages: &[Message], uid: Uid) -> Option<&Message> {
    messages.binary_search_by_key(&uid, |message| message.uid).ok().map(|at| &messages[at])
}
