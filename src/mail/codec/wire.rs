//! The one shape of an event outside this process, for MessagePack and JSON alike.

use std::borrow::Cow;

use super::{DecodeError, excerpt};
use crate::mail::event::{Change, Envelope, Event, EventType, FlagChange, NewMessage, Quota, SCHEMA_VERSION, Status};
use crate::mail::flags::Flags;
use crate::mail::ids::EventId;
use crate::mail::path::MailboxPath;
use crate::mail::uid::{ModSeq, Uid, UidValidity};
use crate::mail::user::UserName;
use serde::ser::SerializeSeq;
use serde::{Deserialize, Serialize, Serializer};

/// Which parts of a message's envelope a reader gets.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct EnvelopeFields {
    pub from: bool,
    pub subject: bool,
    pub message_id: bool,
}

impl EnvelopeFields {
    pub const NONE: Self = Self { from: false, subject: false, message_id: false };
    pub const ALL: Self = Self { from: true, subject: true, message_id: true };
    /// How many different values there are.
    pub const COUNT: usize = 8;

    /// A number below [`Self::COUNT`].
    pub fn index(self) -> usize {
        usize::from(self.from) | usize::from(self.subject) << 1 | usize::from(self.message_id) << 2
    }

    /// What either of the two gets.
    pub fn or(self, other: Self) -> Self {
        Self {
            from: self.from || other.from,
            subject: self.subject || other.subject,
            message_id: self.message_id || other.message_id,
        }
    }

    fn any(self) -> bool {
        self != Self::NONE
    }
}

/// An event as it is written: borrows from the model, serialises no allocation.
#[derive(Serialize)]
pub(super) struct Outgoing<'a> {
    v: u16,
    #[serde(rename = "type")]
    event_type: &'static str,
    id: EventId,
    at: u64,
    origin: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    actor: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    actor_session: Option<&'a str>,
    mailbox: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    mailbox_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    uidvalidity: Option<UidValidity>,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<Status>,
    #[serde(skip_serializing_if = "Option::is_none")]
    messages: Option<OutgoingMessages<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    uids: Option<&'a [Uid]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    modseq: Option<ModSeq>,
    #[serde(skip_serializing_if = "Option::is_none")]
    to: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    identifier: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rights: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    used: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    limit: Option<u64>,
}

enum OutgoingMessages<'a> {
    New(&'a [NewMessage], EnvelopeFields),
    Flags(&'a [FlagChange]),
}

#[derive(Serialize)]
struct OutgoingMessage<'a> {
    uid: Uid,
    #[serde(skip_serializing_if = "Option::is_none")]
    changed: Option<&'a Flags>,
    #[serde(skip_serializing_if = "Option::is_none")]
    flags: Option<&'a Flags>,
    #[serde(skip_serializing_if = "Option::is_none")]
    size: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    internaldate: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    modseq: Option<ModSeq>,
    #[serde(skip_serializing_if = "Option::is_none")]
    envelope: Option<OutgoingEnvelope<'a>>,
}

#[derive(Serialize)]
struct OutgoingEnvelope<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    from: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    subject: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    message_id: Option<&'a str>,
}

impl Serialize for OutgoingMessages<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match *self {
            Self::New(messages, fields) => {
                let mut seq = serializer.serialize_seq(Some(messages.len()))?;
                for m in messages {
                    let envelope = m.envelope.as_ref().filter(|_| fields.any()).map(|e| OutgoingEnvelope {
                        from: e.from.as_deref().filter(|_| fields.from),
                        subject: e.subject.as_deref().filter(|_| fields.subject),
                        message_id: e.message_id.as_deref().filter(|_| fields.message_id),
                    });
                    seq.serialize_element(&OutgoingMessage {
                        uid: m.uid,
                        changed: None,
                        flags: m.flags.as_ref(),
                        size: m.size,
                        internaldate: m.internaldate,
                        modseq: m.modseq,
                        envelope,
                    })?;
                }
                seq.end()
            }
            Self::Flags(messages) => {
                let mut seq = serializer.serialize_seq(Some(messages.len()))?;
                for m in messages {
                    seq.serialize_element(&OutgoingMessage {
                        uid: m.uid,
                        changed: Some(&m.changed),
                        flags: m.flags.as_ref(),
                        size: None,
                        internaldate: None,
                        modseq: m.modseq,
                        envelope: None,
                    })?;
                }
                seq.end()
            }
        }
    }
}

impl<'a> Outgoing<'a> {
    pub(super) fn new(event: &'a Event, fields: EnvelopeFields) -> Self {
        let mut wire = Self {
            v: SCHEMA_VERSION,
            event_type: event.event_type().as_str(),
            id: event.id,
            at: event.at,
            origin: &event.origin,
            actor: event.actor.as_deref(),
            actor_session: event.actor_session.as_deref(),
            mailbox: event.mailbox.as_str(),
            mailbox_id: event.mailbox_id.as_deref(),
            uidvalidity: event.uidvalidity,
            status: event.status,
            messages: None,
            uids: None,
            modseq: None,
            to: None,
            identifier: None,
            rights: None,
            used: None,
            limit: None,
        };
        match &event.change {
            Change::MessageNew { messages } | Change::MessageAppend { messages } => {
                wire.messages = Some(OutgoingMessages::New(messages, fields));
            }
            Change::FlagsSet { messages } | Change::FlagsClear { messages } => {
                wire.messages = Some(OutgoingMessages::Flags(messages));
            }
            Change::MessageExpunge { uids, modseq } => {
                wire.uids = Some(uids);
                wire.modseq = *modseq;
            }
            Change::MailboxRename { to } => wire.to = Some(to.as_str()),
            Change::AccountRename { to } => wire.to = Some(to.as_str()),
            Change::AclChange { identifier, rights } => {
                wire.identifier = Some(identifier);
                wire.rights = Some(rights);
            }
            Change::QuotaChange(quota) | Change::QuotaExceed(quota) | Change::QuotaWithin(quota) => {
                wire.used = Some(quota.used);
                wire.limit = quota.limit;
            }
            Change::MailboxDelete
            | Change::MailboxCreate
            | Change::MailboxSubscribe
            | Change::MailboxUnSubscribe
            | Change::MailboxChange => {}
        }
        wire
    }
}

/// An event as it is read: every field that any type has, unknown ones ignored.
#[derive(Deserialize)]
pub(super) struct Incoming<'a> {
    #[serde(rename = "type", borrow)]
    event_type: Cow<'a, str>,
    #[serde(default)]
    id: Option<EventId>,
    #[serde(default)]
    at: Option<u64>,
    #[serde(default, borrow)]
    origin: Option<Cow<'a, str>>,
    #[serde(default)]
    actor: Option<String>,
    #[serde(default)]
    actor_session: Option<String>,
    #[serde(borrow)]
    mailbox: Cow<'a, str>,
    #[serde(default)]
    mailbox_id: Option<String>,
    #[serde(default)]
    uidvalidity: Option<u32>,
    #[serde(default)]
    status: Option<Status>,
    #[serde(default, borrow)]
    messages: Option<Vec<IncomingMessage<'a>>>,
    #[serde(default)]
    uids: Option<Vec<u32>>,
    #[serde(default)]
    modseq: Option<ModSeq>,
    #[serde(default, borrow)]
    to: Option<Cow<'a, str>>,
    #[serde(default)]
    identifier: Option<String>,
    #[serde(default)]
    rights: Option<String>,
    #[serde(default)]
    used: Option<u64>,
    #[serde(default)]
    limit: Option<u64>,
}

#[derive(Deserialize)]
struct IncomingMessage<'a> {
    uid: u32,
    #[serde(default, borrow)]
    changed: Option<Vec<Cow<'a, str>>>,
    #[serde(default, borrow)]
    flags: Option<Vec<Cow<'a, str>>>,
    #[serde(default)]
    size: Option<u64>,
    #[serde(default)]
    internaldate: Option<u64>,
    #[serde(default)]
    modseq: Option<ModSeq>,
    #[serde(default)]
    envelope: Option<Envelope>,
}

/// What an origin may leave out of an event that it hands to a publisher.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Defaults<'a> {
    pub id: EventId,
    pub at: u64,
    pub origin: &'a str,
}

impl Incoming<'_> {
    /// The checked event. `defaults` fill in what only an origin may leave out; an event from a
    /// queue has it all.
    pub(super) fn into_event(self, defaults: Option<Defaults<'_>>) -> Result<Event, DecodeError> {
        let event_type: EventType = self.event_type.parse().map_err(|_| DecodeError::UnknownType(excerpt(&self.event_type)))?;
        let mailbox = path("mailbox", &self.mailbox)?;
        let uidvalidity = self
            .uidvalidity
            .map(|n| UidValidity::new(n).ok_or_else(|| DecodeError::field("uidvalidity", "must not be 0")))
            .transpose()?;
        let new = |messages: Option<Vec<IncomingMessage<'_>>>| in_uid_order(messages, into_new, |m| m.uid);
        let flags = |messages: Option<Vec<IncomingMessage<'_>>>| in_uid_order(messages, into_flag_change, |m| m.uid);
        let quota = || {
            let used = self.used.ok_or_else(|| DecodeError::missing("used"))?;
            Ok::<_, DecodeError>(Quota { used, limit: self.limit })
        };
        let change = match event_type {
            EventType::MessageNew => Change::MessageNew { messages: new(self.messages)? },
            EventType::MessageAppend => Change::MessageAppend { messages: new(self.messages)? },
            EventType::FlagsSet => Change::FlagsSet { messages: flags(self.messages)? },
            EventType::FlagsClear => Change::FlagsClear { messages: flags(self.messages)? },
            EventType::MessageExpunge => {
                let uids = self.uids.ok_or_else(|| DecodeError::missing("uids"))?;
                let mut uids = uids.into_iter().map(|n| uid("uids", n)).collect::<Result<Vec<_>, _>>()?;
                uids.sort_unstable();
                uids.dedup();
                Change::MessageExpunge { uids, modseq: self.modseq }
            }
            EventType::MailboxRename => {
                let to = self.to.ok_or_else(|| DecodeError::missing("to"))?;
                Change::MailboxRename { to: path("to", &to)? }
            }
            EventType::AccountRename => {
                let to = self.to.ok_or_else(|| DecodeError::missing("to"))?;
                Change::AccountRename { to: UserName::new(&to).map_err(|error| DecodeError::field("to", error.to_string()))? }
            }
            EventType::AclChange => Change::AclChange {
                identifier: self.identifier.ok_or_else(|| DecodeError::missing("identifier"))?,
                rights: self.rights.ok_or_else(|| DecodeError::missing("rights"))?,
            },
            EventType::QuotaChange => Change::QuotaChange(quota()?),
            EventType::QuotaExceed => Change::QuotaExceed(quota()?),
            EventType::QuotaWithin => Change::QuotaWithin(quota()?),
            EventType::MailboxDelete => Change::MailboxDelete,
            EventType::MailboxCreate => Change::MailboxCreate,
            EventType::MailboxSubscribe => Change::MailboxSubscribe,
            EventType::MailboxUnSubscribe => Change::MailboxUnSubscribe,
            EventType::MailboxChange => Change::MailboxChange,
        };
        let origin = self.origin.map(Cow::into_owned).or(defaults.map(|d| d.origin.to_owned()));
        Ok(Event {
            id: self.id.or(defaults.map(|d| d.id)).ok_or_else(|| DecodeError::missing("id"))?,
            at: self.at.or(defaults.map(|d| d.at)).ok_or_else(|| DecodeError::missing("at"))?,
            origin: origin.unwrap_or_default(),
            actor: self.actor,
            actor_session: self.actor_session,
            mailbox,
            mailbox_id: self.mailbox_id,
            uidvalidity,
            status: self.status,
            change,
        })
    }
}

fn path(field: &'static str, text: &str) -> Result<MailboxPath, DecodeError> {
    text.parse().map_err(|error| DecodeError::field(field, error))
}

fn uid(field: &'static str, number: u32) -> Result<Uid, DecodeError> {
    Uid::new(number).ok_or_else(|| DecodeError::field(field, "a UID must not be 0"))
}

fn in_uid_order<'a, T>(
    messages: Option<Vec<IncomingMessage<'a>>>,
    convert: impl Fn(IncomingMessage<'a>) -> Result<T, DecodeError>,
    uid: impl Fn(&T) -> Uid,
) -> Result<Vec<T>, DecodeError> {
    let messages = messages.ok_or_else(|| DecodeError::missing("messages"))?;
    let mut converted = messages.into_iter().map(convert).collect::<Result<Vec<_>, _>>()?;
    if !converted.is_sorted_by(|a, b| uid(a) < uid(b)) {
        // Of two entries for one message the later one wins: it was written later.
        converted.reverse();
        converted.sort_by_key(&uid);
        converted.dedup_by_key(|message| uid(message));
    }
    Ok(converted)
}

/// A set with an impossible flag is not known completely: it is left out, and its reader asks
/// upstream.
fn complete(flags: Option<Vec<Cow<'_, str>>>) -> Option<Flags> {
    let texts = flags?;
    let (flags, all) = Flags::sift(texts.iter().map(AsRef::as_ref));
    all.then_some(flags)
}

fn into_new(m: IncomingMessage<'_>) -> Result<NewMessage, DecodeError> {
    Ok(NewMessage {
        uid: uid("messages", m.uid)?,
        flags: complete(m.flags),
        size: m.size,
        internaldate: m.internaldate,
        modseq: m.modseq,
        envelope: m.envelope,
    })
}

fn into_flag_change(m: IncomingMessage<'_>) -> Result<FlagChange, DecodeError> {
    let changed = m.changed.unwrap_or_default();
    let changed = Flags::sift(changed.iter().map(AsRef::as_ref)).0;
    Ok(FlagChange { uid: uid("messages", m.uid)?, changed, flags: complete(m.flags), modseq: m.modseq })
}
