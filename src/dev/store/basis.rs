//! A mailbox as one session may see it: the truth, or the truth of a while ago when the store lags.
//!
//! A session's own changes are seen at once, and so is whatever came before a message it added
//! itself: messages appear in the order of their UIDs.

use std::time::{Duration, Instant};

use super::mailbox::{Entry, LogEntry, Mailbox, Message};
use crate::mail::Uid;

/// A mailbox's messages as one session may see them.
#[derive(Debug, Clone)]
pub struct Basis {
    /// In UID order.
    pub messages: Vec<Message>,
    pub uidnext: u32,
    /// Every change up to this modseq is in it.
    pub highest: u64,
    /// The log's entries before this one are in it.
    cursor: u64,
}

impl Basis {
    /// The mailbox as it is.
    pub fn current(mailbox: &Mailbox) -> Self {
        let cursor = mailbox.log_base + mailbox.log.len() as u64;
        Self { messages: mailbox.messages.clone(), uidnext: mailbox.uidnext, highest: mailbox.highest, cursor }
    }

    /// The mailbox as it was so long ago, but for what the session did since.
    pub fn before(mailbox: &Mailbox, now: Instant, lag: Duration, session: u64) -> Self {
        let mut basis = Self::current(mailbox);
        for entry in mailbox.log.iter().rev() {
            if is_due(entry, now, lag) || entry.session == session {
                break;
            }
            basis.undo(entry);
        }
        basis
    }

    pub fn get(&self, uid: Uid) -> Option<&Message> {
        super::mailbox::find(&self.messages, uid)
    }

    /// Takes in what may be seen by now. Says whether anything changed.
    pub fn catch_up(&mut self, mailbox: &Mailbox, now: Instant, lag: Duration, session: u64) -> bool {
        let Some(from) = self.cursor.checked_sub(mailbox.log_base) else {
            // More has happened than is remembered.
            *self = Self::current(mailbox);
            return true;
        };
        let from = usize::try_from(from).unwrap_or(usize::MAX).min(mailbox.log.len());
        let entries = mailbox.log.range(from..);
        let due = entries.clone().position(|entry| !is_due(entry, now, lag)).unwrap_or(entries.len());
        let own = |entry: &Entry| entry.session == session && matches!(entry.what, LogEntry::Added(_));
        let forced = entries.clone().rposition(own).map_or(0, |at| at + 1).max(due);
        let mut changed = false;
        for (at, entry) in entries.enumerate() {
            if at < forced {
                self.cursor += 1;
                self.highest = entry.highest.1;
            } else if entry.session != session {
                continue;
            }
            changed |= self.apply(&entry.what);
        }
        changed
    }

    /// When something that happened already may be seen.
    pub fn next_due(&self, mailbox: &Mailbox, lag: Duration) -> Option<Instant> {
        let from = usize::try_from(self.cursor.checked_sub(mailbox.log_base)?).ok()?;
        mailbox.log.get(from).map(|entry| entry.at + lag)
    }

    fn apply(&mut self, what: &LogEntry) -> bool {
        match what {
            LogEntry::Added(message) => {
                let Err(at) = self.position(message.uid) else { return false };
                self.messages.insert(at, message.clone());
                self.uidnext = self.uidnext.max(message.uid.get().saturating_add(1));
            }
            LogEntry::Flags { after, .. } => {
                let Ok(at) = self.position(after.uid) else { return false };
                if self.messages[at].modseq >= after.modseq {
                    return false;
                }
                self.messages[at] = after.clone();
            }
            LogEntry::Expunged(message) => {
                let Ok(at) = self.position(message.uid) else { return false };
                self.messages.remove(at);
            }
        }
        true
    }

    fn undo(&mut self, entry: &Entry) {
        self.cursor -= 1;
        self.highest = entry.highest.0;
        match &entry.what {
            LogEntry::Added(message) => {
                self.messages.retain(|held| held.uid != message.uid);
                self.uidnext = message.uid.get();
            }
            LogEntry::Flags { before, .. } => {
                if let Ok(at) = self.position(before.uid) {
                    self.messages[at] = before.clone();
                }
            }
            LogEntry::Expunged(message) => {
                if let Err(at) = self.position(message.uid) {
                    self.messages.insert(at, message.clone());
                }
            }
        }
    }

    fn position(&self, uid: Uid) -> Result<usize, usize> {
        self.messages.binary_search_by_key(&uid, |message| message.uid)
    }
}

fn is_due(entry: &Entry, now: Instant, lag: Duration) -> bool {
    lag.is_zero() || entry.at + lag <= now
}
