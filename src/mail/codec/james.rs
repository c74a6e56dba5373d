//! The MessagePack events of Apache James's first distributed mailbox events (2015 to 2018).
//!
//! A map with named keys: `type` (an ordinal), `mailbox`, `session`, `uids` (numbers in 2015,
//! strings since 2016), `metaData` (a map from UID to message), `updatedFlags`, and `from` after a
//! rename, where `mailbox` is the mailbox under its new name. Class `EventDataTransferObject` of
//! James's `mailbox/store`.

use std::collections::BTreeMap;

use jiff::civil;
use jiff::tz::TimeZone;
use serde::{Deserialize, Deserializer, de};
use sha2::{Digest, Sha256};

use super::DecodeError;
use crate::mail::event::{Change, Event, FlagChange, NewMessage};
use crate::mail::flags::{Flag, Flags};
use crate::mail::ids::EventId;
use crate::mail::path::MailboxPath;
use crate::mail::uid::{ModSeq, Uid, UidValidity};

#[derive(Deserialize)]
pub(super) struct Incoming {
    #[serde(rename = "type")]
    ordinal: u8,
    mailbox: Mailbox,
    #[serde(default)]
    session: Option<Session>,
    #[serde(default)]
    uids: Option<Vec<LooseUid>>,
    #[serde(default, rename = "metaData")]
    meta_data: Option<BTreeMap<LooseUid, MetaData>>,
    #[serde(default, rename = "updatedFlags")]
    updated_flags: Option<Vec<UpdatedFlags>>,
    #[serde(default)]
    from: Option<Path>,
}

#[derive(Deserialize)]
struct Mailbox {
    #[serde(default, rename = "serializedMailboxId")]
    id: Option<String>,
    #[serde(flatten)]
    path: Path,
    #[serde(default, rename = "uidValidity")]
    uid_validity: Option<u64>,
}

#[derive(Deserialize)]
struct Path {
    namespace: String,
    #[serde(default)]
    user: Option<String>,
    name: String,
}

#[derive(Deserialize)]
struct Session {
    #[serde(default, rename = "sessionId")]
    id: Option<i64>,
    #[serde(default)]
    username: Option<String>,
    #[serde(default)]
    separator: Option<String>,
}

#[derive(Deserialize)]
struct MetaData {
    #[serde(default)]
    modseq: Option<u64>,
    #[serde(default)]
    flags: Option<JamesFlags>,
    #[serde(default)]
    size: Option<u64>,
    #[serde(default)]
    date: Option<String>,
}

#[derive(Deserialize)]
struct UpdatedFlags {
    uid: LooseUid,
    #[serde(default)]
    modseq: Option<u64>,
    #[serde(rename = "oldFlags")]
    old: JamesFlags,
    #[serde(rename = "newFlags")]
    new: JamesFlags,
}

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "camelCase")]
struct JamesFlags {
    answered: bool,
    flagged: bool,
    recent: bool,
    deleted: bool,
    draft: bool,
    seen: bool,
    user_flags: Vec<String>,
}

/// A UID as a number or as a string.
#[derive(PartialEq, Eq, PartialOrd, Ord, Clone, Copy)]
struct LooseUid(u64);

impl<'de> Deserialize<'de> for LooseUid {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl de::Visitor<'_> for Visitor {
            type Value = LooseUid;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a UID, as a number or a string")
            }

            fn visit_u64<E: de::Error>(self, number: u64) -> Result<LooseUid, E> {
                Ok(LooseUid(number))
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<LooseUid, E> {
                text.parse().map(LooseUid).map_err(|_| E::invalid_value(de::Unexpected::Str(text), &self))
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

impl LooseUid {
    fn uid(self, field: &'static str) -> Result<Uid, DecodeError> {
        let number = u32::try_from(self.0).ok().and_then(Uid::new);
        number.ok_or_else(|| DecodeError::field(field, "a UID is a number from 1 to 4294967295"))
    }
}

impl JamesFlags {
    /// The complete set, `None` where a user flag is no IMAP flag. `\Recent` is left out: it is
    /// never told from an event, for only the mail server knows which session is the first to see a
    /// message.
    fn complete(&self) -> Option<Flags> {
        let system = [
            (self.answered, "\\Answered"),
            (self.deleted, "\\Deleted"),
            (self.draft, "\\Draft"),
            (self.flagged, "\\Flagged"),
            (self.seen, "\\Seen"),
        ];
        let texts = system.iter().filter(|(set, _)| *set).map(|(_, text)| *text);
        let (flags, all) = Flags::sift(texts.chain(self.user_flags.iter().map(String::as_str)));
        all.then_some(flags)
    }

    fn known(&self) -> Flags {
        self.complete().unwrap_or_else(|| self.user_flags.iter().filter_map(|f| f.parse::<Flag>().ok()).collect())
    }
}

impl Path {
    /// James shows names with its own hierarchy separator; ours is `/`, and what was a `/` takes
    /// the other's place.
    fn into_path(self, separator: char) -> Result<MailboxPath, DecodeError> {
        let swap = |c: char| match c {
            c if c == separator => '/',
            '/' => separator,
            c => c,
        };
        let name: String = self.name.chars().map(swap).collect();
        MailboxPath::new(&self.namespace, self.user.as_deref().unwrap_or(""), &name)
            .map_err(|error| DecodeError::field("mailbox", error))
    }
}

impl Incoming {
    pub(super) fn into_event(self, bytes: &[u8]) -> Result<Event, DecodeError> {
        let session = self.session;
        let separator = session.as_ref().and_then(|s| s.separator.as_deref()?.chars().next()).unwrap_or('.');
        let mut mailbox = self.mailbox.path.into_path(separator)?;
        let mut meta_data = self.meta_data.unwrap_or_default();
        let mut at = 0;
        let change = match self.ordinal {
            0 => {
                let mut messages = Vec::new();
                for uid in self.uids.unwrap_or_default() {
                    let mut message = NewMessage::new(uid.uid("uids")?);
                    if let Some(meta) = meta_data.remove(&uid) {
                        message.flags = meta.flags.as_ref().and_then(JamesFlags::complete);
                        message.size = meta.size;
                        message.modseq = meta.modseq.map(ModSeq);
                        message.internaldate = meta.date.as_deref().and_then(utc_millis);
                        at = at.max(message.internaldate.unwrap_or(0));
                    }
                    messages.push(message);
                }
                messages.sort_by_key(|m| m.uid);
                messages.dedup_by_key(|m| m.uid);
                // James told delivery and APPEND apart only later; APPEND promises less.
                Change::MessageAppend { messages }
            }
            1 => {
                let uids = self.uids.unwrap_or_default();
                let mut uids = uids.into_iter().map(|uid| uid.uid("uids")).collect::<Result<Vec<_>, _>>()?;
                uids.sort_unstable();
                uids.dedup();
                Change::MessageExpunge { uids, modseq: None }
            }
            2 => flags_change(self.updated_flags.unwrap_or_default())?,
            3 => {
                let from = self.from.ok_or_else(|| DecodeError::missing("from"))?.into_path(separator)?;
                Change::MailboxRename { to: std::mem::replace(&mut mailbox, from) }
            }
            4 => Change::MailboxCreate,
            5 => Change::MailboxDelete,
            other => return Err(DecodeError::UnknownType(other.to_string())),
        };
        Ok(Event {
            id: id_of(bytes),
            at,
            origin: "james".to_owned(),
            actor: session.as_ref().and_then(|s| s.username.clone()),
            actor_session: session.and_then(|s| s.id).map(|id| id.to_string()),
            mailbox,
            mailbox_id: self.mailbox.id,
            uidvalidity: self.mailbox.uid_validity.and_then(|n| u32::try_from(n).ok()).and_then(UidValidity::new),
            status: None,
            change,
        })
    }
}

/// Old and new sets come complete. A message that gained a flag makes the event a `FlagsSet`; the
/// complete set says the rest.
fn flags_change(updated: Vec<UpdatedFlags>) -> Result<Change, DecodeError> {
    let mut any_set = false;
    let mut messages = Vec::with_capacity(updated.len());
    for update in updated {
        let (old, new) = (update.old.known(), update.new.known());
        let (gained, lost) = (new.minus(&old), old.minus(&new));
        any_set |= !gained.is_empty();
        messages.push(FlagChange {
            uid: update.uid.uid("updatedFlags")?,
            changed: if gained.is_empty() { lost } else { gained },
            flags: update.new.complete(),
            modseq: update.modseq.map(ModSeq),
        });
    }
    messages.sort_by_key(|m| m.uid);
    messages.dedup_by_key(|m| m.uid);
    Ok(if any_set { Change::FlagsSet { messages } } else { Change::FlagsClear { messages } })
}

/// James's dates have no zone; its servers' zone is not known here, so UTC it is: nothing depends
/// on it.
fn utc_millis(text: &str) -> Option<u64> {
    let date = civil::DateTime::strptime("%Y/%m/%d %H:%M:%S", text).ok()?;
    u64::try_from(date.to_zoned(TimeZone::UTC).ok()?.timestamp().as_millisecond()).ok()
}

/// James's events have no id: the same bytes are the same event (I-8).
fn id_of(bytes: &[u8]) -> EventId {
    let digest = Sha256::digest(bytes);
    let mut id = [0; 16];
    id.copy_from_slice(&digest[..16]);
    EventId(uuid::Builder::from_custom_bytes(id).into_uuid())
}
