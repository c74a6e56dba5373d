//! Dovecot's changes, as our Lua script posts them, made into events. Pure.
//!
//! One document is one transaction of Dovecot's; out of it comes one event for each mailbox and type, in UID order.
//! Names are the acting user's (`shared/alice/Team`); [`Naming`] knows whose mailbox each is.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::naming::{Naming, Prefixes};
use crate::mail::event::{Change, Envelope, Event, FlagChange, NewMessage, Status};
use crate::mail::flags::{Flag, Flags};
use crate::mail::path::MailboxPath;
use crate::mail::uid::{ModSeq, Uid, UidValidity};
use crate::push::clock::new_event_id;

/// The longest subject, sender or message id that is passed on, in characters: the envelope is a summary.
const LONGEST_TEXT: usize = 512;

/// What every event of a document gets.
#[derive(Debug, Clone, Copy)]
pub struct Stamp<'a> {
    /// Milliseconds since 1970, UTC.
    pub at: u64,
    pub origin: &'a str,
}

/// Why a document is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TranslateError {
    #[error("not a document of the script: {0}")]
    Malformed(String),
    /// A name or a number that cannot be.
    #[error("events[{index}]: {reason}")]
    Event { index: usize, reason: String },
    #[error("user: {0}")]
    User(String),
    #[error("namespaces: {0}")]
    Namespaces(String),
}

#[derive(Deserialize)]
struct Document {
    user: String,
    /// Whether the transaction was committed.
    #[serde(default = "yes")]
    success: bool,
    events: Vec<Item>,
    /// This user's, where they are others than the agent's settings say.
    #[serde(default)]
    namespaces: Option<Prefixes>,
    /// Of the mailbox of the first event; a text is why it could not be had.
    #[serde(default)]
    status: Option<Told>,
}

fn yes() -> bool {
    true
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Told {
    Status(Numbers),
    Fault(serde::de::IgnoredAny),
}

#[derive(Deserialize)]
struct Numbers {
    messages: Option<u32>,
    uidnext: Option<u32>,
    unseen: Option<u32>,
    highestmodseq: Option<u64>,
    uidvalidity: Option<u32>,
}

/// One of the script's events; the fields of all types.
#[derive(Deserialize)]
struct Item {
    name: String,
    mailbox: String,
    #[serde(default)]
    mailbox_old: Option<String>,
    #[serde(default)]
    uid: Option<u32>,
    /// Instead of `uid`, where several messages have all else in common.
    #[serde(default)]
    uids: Vec<u32>,
    #[serde(default)]
    uid_validity: Option<u32>,
    #[serde(default)]
    flags: Option<Vec<String>>,
    #[serde(default)]
    keywords: Option<Vec<String>>,
    #[serde(default)]
    from_address: Option<String>,
    #[serde(default)]
    from_display_name: Option<String>,
    #[serde(default)]
    subject: Option<String>,
    #[serde(default)]
    message_id: Option<String>,
    /// INTERNALDATE in seconds since 1970, where the script knows it.
    #[serde(default)]
    internaldate: Option<u64>,
    #[serde(default)]
    size: Option<u64>,
}

/// What one transaction did to one mailbox, by type.
#[derive(Default)]
struct Changes {
    uidvalidity: Option<UidValidity>,
    /// The mailbox itself, in the order told.
    mailbox: Vec<Change>,
    new: BTreeMap<Uid, NewMessage>,
    appended: BTreeMap<Uid, NewMessage>,
    set: BTreeMap<Uid, Flags>,
    cleared: BTreeMap<Uid, Flags>,
    expunged: Vec<Uid>,
}

/// The events of a document, in the order in which a client should hear of them. Ids are fresh ones.
pub fn translate(json: &[u8], naming: &Naming, stamp: Stamp<'_>) -> Result<Vec<Event>, TranslateError> {
    let document: Document = serde_json::from_slice(json).map_err(|error| malformed(&error))?;
    let user = naming.names.normalise(&document.user).map_err(|error| TranslateError::User(error.to_string()))?;
    if !document.success {
        return Ok(Vec::new());
    }
    let own = document.namespaces.map(|prefixes| Naming::new(naming.names.clone(), &prefixes)).transpose();
    let own = own.map_err(TranslateError::Namespaces)?;
    let naming = own.as_ref().unwrap_or(naming);
    // Few mailboxes: mostly one.
    let mut mailboxes: Vec<(MailboxPath, Changes)> = Vec::new();
    for (index, item) in document.events.into_iter().enumerate() {
        let fault = |reason: String| TranslateError::Event { index, reason };
        let path = naming.path(&user, &item.mailbox).map_err(fault)?;
        // Our event stands under the old path.
        let (path, to) = match &item.mailbox_old {
            Some(old) => (naming.path(&user, old).map_err(fault)?, Some(path)),
            None => (path, None),
        };
        let place = match mailboxes.iter().position(|(known, _)| *known == path) {
            Some(place) => place,
            None => {
                mailboxes.push((path, Changes::default()));
                mailboxes.len() - 1
            }
        };
        if let (Some(to), true) = (&to, mailboxes[place].0.name() == "INBOX") {
            // Its messages move and it stays, empty (RFC 9051 6.3.6): nobody who watches it is to follow them.
            mailboxes[place].1.mailbox.push(Change::MailboxChange);
            let created = Changes { mailbox: vec![Change::MailboxCreate], ..Changes::default() };
            mailboxes.push((to.clone(), created));
            continue;
        }
        mailboxes[place].1.take(item, to).map_err(fault)?;
    }
    let told = match document.status {
        Some(Told::Status(numbers)) => Some(numbers),
        Some(Told::Fault(_)) | None => None,
    };
    let mut events = Vec::new();
    for (index, (path, changes)) in mailboxes.into_iter().enumerate() {
        let first = events.len();
        // The status is the first mailbox's.
        let told = told.as_ref().filter(|_| index == 0);
        let uidvalidity = changes.uidvalidity.or_else(|| UidValidity::new(told?.uidvalidity?));
        for change in changes.into_changes() {
            events.push(Event {
                id: new_event_id(),
                at: stamp.at,
                origin: stamp.origin.to_owned(),
                actor: Some(user.as_str().to_owned()),
                actor_session: None,
                mailbox: path.clone(),
                mailbox_id: None,
                uidvalidity,
                status: None,
                change,
            });
        }
        // It is the state after the whole transaction, so it goes with what is told last.
        if let Some(last) = events[first..].last_mut() {
            last.status = told.map(|told| Status {
                messages: told.messages,
                uidnext: told.uidnext,
                unseen: told.unseen,
                highestmodseq: told.highestmodseq.map(ModSeq),
            });
        }
    }
    Ok(events)
}

/// serde's words may quote the document, where mail is.
fn malformed(error: &serde_json::Error) -> TranslateError {
    let kind = match error.classify() {
        serde_json::error::Category::Data => "a field is missing or of the wrong type",
        serde_json::error::Category::Eof => "it ends too early",
        serde_json::error::Category::Io | serde_json::error::Category::Syntax => "not valid JSON",
    };
    TranslateError::Malformed(format!("{kind}, at line {} column {}", error.line(), error.column()))
}

impl Changes {
    fn take(&mut self, item: Item, to: Option<MailboxPath>) -> Result<(), String> {
        self.uidvalidity = item.uid_validity.and_then(UidValidity::new).or(self.uidvalidity);
        let uids: Vec<Uid> = item.uids.iter().copied().chain(item.uid).filter_map(Uid::new).collect();
        let about_messages = item.name.starts_with("Message") || item.name.starts_with("Flags");
        if about_messages && uids.is_empty() {
            return Err(format!("{} names no message", excerpt(&item.name)));
        }
        match item.name.as_str() {
            "MessageNew" => self.new.extend(uids.iter().map(|uid| (*uid, item.message(*uid)))),
            "MessageAppend" => self.appended.extend(uids.iter().map(|uid| (*uid, item.message(*uid)))),
            "MessageExpunge" => self.expunged.extend(uids),
            "FlagsSet" => merge(&mut self.set, &uids, &item.changed()),
            "FlagsClear" => merge(&mut self.cleared, &uids, &item.changed()),
            // A FlagsSet of \Seen or \Deleted comes beside them.
            "MessageRead" | "MessageTrash" => {}
            "MailboxCreate" => self.mailbox.push(Change::MailboxCreate),
            "MailboxDelete" => self.mailbox.push(Change::MailboxDelete),
            "MailboxSubscribe" => self.mailbox.push(Change::MailboxSubscribe),
            "MailboxUnsubscribe" => self.mailbox.push(Change::MailboxUnSubscribe),
            "MailboxRename" => {
                let to = to.ok_or("MailboxRename without mailbox_old")?;
                self.mailbox.push(Change::MailboxRename { to });
            }
            unknown => return Err(format!("{:?} is no event of the script", excerpt(unknown))),
        }
        Ok(())
    }

    /// Dovecot tells of both set and cleared flags, whatever there was of either. What was neither set nor cleared still
    /// changed somehow: it goes as set, with no flag, for its reader to look.
    fn into_changes(mut self) -> Vec<Change> {
        if self.mailbox.contains(&Change::MailboxDelete) {
            // Its messages are gone with it.
            return self.mailbox;
        }
        let untold = |uid: &Uid, set: &BTreeMap<Uid, Flags>| set.get(uid).is_none_or(Flags::is_empty);
        let (set, cleared) = (std::mem::take(&mut self.set), std::mem::take(&mut self.cleared));
        let change =
            |(uid, changed): (&Uid, &Flags)| FlagChange { uid: *uid, changed: changed.clone(), flags: None, modseq: None };
        let clears: Vec<FlagChange> = cleared.iter().filter(|(_, flags)| !flags.is_empty()).map(change).collect();
        let mut sets: Vec<FlagChange> = set
            .iter()
            .filter(|(uid, flags)| !flags.is_empty() || untold(uid, &cleared))
            .map(change)
            .chain(cleared.iter().filter(|(uid, flags)| flags.is_empty() && !set.contains_key(uid)).map(change))
            .collect();
        sets.sort_by_key(|change| change.uid);
        self.expunged.sort_unstable();
        self.expunged.dedup();
        let mut changes = self.mailbox;
        let filled = [
            (!self.new.is_empty()).then(|| Change::MessageNew { messages: self.new.into_values().collect() }),
            (!self.appended.is_empty()).then(|| Change::MessageAppend { messages: self.appended.into_values().collect() }),
            (!clears.is_empty()).then_some(Change::FlagsClear { messages: clears }),
            (!sets.is_empty()).then_some(Change::FlagsSet { messages: sets }),
            (!self.expunged.is_empty()).then_some(Change::MessageExpunge { uids: self.expunged, modseq: None }),
        ];
        changes.extend(filled.into_iter().flatten());
        changes
    }
}

fn merge(into: &mut BTreeMap<Uid, Flags>, uids: &[Uid], changed: &Flags) {
    for uid in uids {
        let held = into.entry(*uid).or_default();
        *held = held.iter().chain(changed.iter()).cloned().collect();
    }
}

impl Item {
    /// The flags named, `\Recent` left out: it belongs to one session (RFC 9051 2.3.2 has dropped it). And whether all of
    /// them were flags (I-2).
    fn sifted(&self) -> (Flags, bool) {
        let texts = self.flags.iter().chain(&self.keywords).flatten().map(String::as_str);
        let (flags, all) = Flags::sift(texts);
        (without_recent(&flags), all)
    }

    fn changed(&self) -> Flags {
        self.sifted().0
    }

    /// A new message's list is its whole set.
    fn message(&self, uid: Uid) -> NewMessage {
        let (flags, all) = self.sifted();
        let known = all && self.flags.is_some() && self.keywords.is_some();
        let envelope = Envelope { from: self.from(), subject: text(&self.subject), message_id: text(&self.message_id) };
        NewMessage {
            uid,
            flags: known.then_some(flags),
            size: self.size,
            internaldate: self.internaldate.and_then(|seconds| seconds.checked_mul(1000)),
            modseq: None,
            envelope: (envelope != Envelope::default()).then_some(envelope),
        }
    }

    /// As RFC 5322 3.4 writes it. Quoted, so that a name that looks like an address stays a name.
    fn from(&self) -> Option<String> {
        let address = text(&self.from_address)?;
        Some(match text(&self.from_display_name) {
            Some(name) => format!("\"{}\" <{address}>", name.replace('\\', "\\\\").replace('"', "\\\"")),
            None => address,
        })
    }
}

/// A set without `\Recent`.
pub(super) fn without_recent(flags: &Flags) -> Flags {
    flags.iter().filter(|flag: &&Flag| flag.as_str() != "\\Recent").cloned().collect()
}

/// A text from a mail's header: bounded, on one line.
fn text(text: &Option<String>) -> Option<String> {
    let plain = |c: char| if c.is_control() { ' ' } else { c };
    text.as_ref().map(|text| text.chars().map(plain).take(LONGEST_TEXT).collect()).filter(|text: &String| !text.is_empty())
}

fn excerpt(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(40).collect()
}

#[cfg(test)]
#[path = "dovecot_tests.rs"]
mod tests;
