//! The event: one change of one mailbox, in the terms of RFC 5423.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::flags::Flags;
use super::ids::EventId;
use super::key::Key;
use super::path::MailboxPath;
use super::rights::{Entry, Identifier};
use super::uid::{ModSeq, Uid, UidValidity};
use super::user::UserName;

/// The version of the event schema that this code writes; it reads later ones too, for fields are
/// only ever added (I-1).
pub const SCHEMA_VERSION: u16 = 1;

/// One change of one mailbox, with all messages of one transaction.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    pub id: EventId,
    /// When it happened, in milliseconds since 1970, UTC.
    pub at: u64,
    /// The server where it happened.
    pub origin: String,
    /// The user who did it.
    pub actor: Option<String>,
    /// That user's session at the origin; opaque, for some are 64-bit numbers that JavaScript
    /// cannot hold.
    pub actor_session: Option<String>,
    pub mailbox: MailboxPath,
    /// The store's identifier of the mailbox, which survives renames (RFC 8474).
    pub mailbox_id: Option<String>,
    pub uidvalidity: Option<UidValidity>,
    /// The mailbox after the change.
    pub status: Option<Status>,
    pub change: Change,
}

/// The mailbox after the change: a check, not a source (RFC 9051 6.3.11's words).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub messages: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uidnext: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unseen: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub highestmodseq: Option<ModSeq>,
}

/// What happened.
#[derive(Debug, Clone, PartialEq)]
pub enum Change {
    /// Delivery (RFC 5423 4.1).
    MessageNew {
        messages: Vec<NewMessage>,
    },
    /// APPEND or COPY (RFC 5423 4.1).
    MessageAppend {
        messages: Vec<NewMessage>,
    },
    /// Messages are gone (RFC 5423 4.1); in UID order.
    MessageExpunge {
        uids: Vec<Uid>,
        modseq: Option<ModSeq>,
    },
    FlagsSet {
        messages: Vec<FlagChange>,
    },
    FlagsClear {
        messages: Vec<FlagChange>,
    },
    /// The event's mailbox is the old path.
    MailboxRename {
        to: MailboxPath,
    },
    MailboxDelete,
    MailboxCreate,
    MailboxSubscribe,
    MailboxUnSubscribe,
    /// Ours: a user is called otherwise now, and with the user every mailbox. The event's mailbox
    /// is the INBOX under the old name.
    AccountRename {
        to: UserName,
    },
    /// The rights of one identifier changed (RFC 4314). `identifier`: as in an entry of an ACL,
    /// with `-` in front for negative rights. `rights`: what it has now, or with `+` or `-` in
    /// front what was added or taken; as in SETACL (3.1).
    AclChange {
        identifier: String,
        rights: String,
    },
    QuotaChange(Quota),
    QuotaExceed(Quota),
    QuotaWithin(Quota),
    /// Ours: something changed, and no detail is known.
    MailboxChange,
}

/// A message that appeared. Everything but its UID may be unknown to the origin.
#[derive(Debug, Clone, PartialEq)]
pub struct NewMessage {
    pub uid: Uid,
    /// The complete set, or nothing: never guessed.
    pub flags: Option<Flags>,
    /// RFC822.SIZE in bytes.
    pub size: Option<u64>,
    /// INTERNALDATE in milliseconds since 1970, UTC.
    pub internaldate: Option<u64>,
    pub modseq: Option<ModSeq>,
    /// What the sender wrote: pushed only to who asks for it and may read the mailbox.
    pub envelope: Option<Envelope>,
}

impl NewMessage {
    pub fn new(uid: Uid) -> Self {
        Self { uid, flags: None, size: None, internaldate: None, modseq: None, envelope: None }
    }
}

/// A summary of a message's header.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Envelope {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message_id: Option<String>,
}

/// A message whose flags changed.
#[derive(Debug, Clone, PartialEq)]
pub struct FlagChange {
    pub uid: Uid,
    /// The flags that were set or cleared.
    pub changed: Flags,
    /// The complete set afterwards, or nothing: never guessed.
    pub flags: Option<Flags>,
    pub modseq: Option<ModSeq>,
}

/// A quota's state (RFC 9208), in the unit of its resource.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quota {
    pub used: u64,
    pub limit: Option<u64>,
}

macro_rules! event_types {
    ($($name:ident),+ $(,)?) => {
        /// The types of events, by their RFC 5423 names.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum EventType { $($name),+ }

        impl Change {
    /// The messages whose flags it changes.
    pub fn flag_uids(&self) -> impl Iterator<Item = Uid> {
        let messages = match self {
            Self::FlagsSet { messages } | Self::FlagsClear { messages } => messages.as_slice(),
            _ => &[],
        };
        messages.iter().map(|message| message.uid)
    }
}

impl EventType {
            pub const ALL: &[Self] = &[$(Self::$name),+];

            pub fn as_str(self) -> &'static str {
                match self { $(Self::$name => stringify!($name)),+ }
            }
        }

        impl FromStr for EventType {
            type Err = UnknownEventType;

            fn from_str(text: &str) -> Result<Self, UnknownEventType> {
                match text { $(stringify!($name) => Ok(Self::$name),)+ _ => Err(UnknownEventType) }
            }
        }
    };
}

event_types!(
    MessageNew,
    MessageAppend,
    MessageExpunge,
    FlagsSet,
    FlagsClear,
    MailboxRename,
    MailboxDelete,
    MailboxCreate,
    MailboxSubscribe,
    MailboxUnSubscribe,
    AclChange,
    QuotaChange,
    QuotaExceed,
    QuotaWithin,
    MailboxChange,
    AccountRename,
);

/// A type that this version does not know.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a type of event that this version knows")]
pub struct UnknownEventType;

impl fmt::Display for EventType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Change {
    pub fn event_type(&self) -> EventType {
        match self {
            Self::MessageNew { .. } => EventType::MessageNew,
            Self::MessageAppend { .. } => EventType::MessageAppend,
            Self::MessageExpunge { .. } => EventType::MessageExpunge,
            Self::FlagsSet { .. } => EventType::FlagsSet,
            Self::FlagsClear { .. } => EventType::FlagsClear,
            Self::MailboxRename { .. } => EventType::MailboxRename,
            Self::MailboxDelete => EventType::MailboxDelete,
            Self::MailboxCreate => EventType::MailboxCreate,
            Self::MailboxSubscribe => EventType::MailboxSubscribe,
            Self::MailboxUnSubscribe => EventType::MailboxUnSubscribe,
            Self::AccountRename { .. } => EventType::AccountRename,
            Self::AclChange { .. } => EventType::AclChange,
            Self::QuotaChange(_) => EventType::QuotaChange,
            Self::QuotaExceed(_) => EventType::QuotaExceed,
            Self::QuotaWithin(_) => EventType::QuotaWithin,
            Self::MailboxChange => EventType::MailboxChange,
        }
    }
}

impl EventType {
    /// Whether only an account subscription hears of it: the mailbox itself is not watched yet, or
    /// any more.
    pub fn is_account_only(self) -> bool {
        matches!(self, Self::MailboxCreate | Self::MailboxSubscribe | Self::MailboxUnSubscribe)
    }

    /// A set with this one member, see [`EventTypes`].
    pub fn bit(self) -> u32 {
        1 << self as u32
    }
}

/// A set of event types, in one word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct EventTypes(u32);

impl EventTypes {
    pub const ALL: Self = Self(u32::MAX);

    pub fn contains(self, event_type: EventType) -> bool {
        self.0 & event_type.bit() != 0
    }

    #[must_use]
    pub fn or(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    #[cfg(test)]
    pub fn iter(self) -> impl Iterator<Item = EventType> {
        EventType::ALL.iter().copied().filter(move |t| self.contains(*t))
    }
}

impl FromIterator<EventType> for EventTypes {
    fn from_iter<I: IntoIterator<Item = EventType>>(types: I) -> Self {
        Self(types.into_iter().fold(0, |set, t| set | t.bit()))
    }
}

impl Event {
    pub fn event_type(&self) -> EventType {
        self.change.event_type()
    }

    /// The keys under which somebody may be waiting for this event: the mailbox, its owner's
    /// account, and after a rename the new path with its owner's too. Without repetitions.
    pub fn keys(&self) -> Vec<Key> {
        let mut keys = Vec::with_capacity(4);
        let to = match &self.change {
            Change::MailboxRename { to } => Some(to),
            _ => None,
        };
        if let Change::AccountRename { to } = &self.change {
            // Every mailbox of theirs is concerned, and none by itself.
            return self.mailbox.owner_name().into_iter().chain([to.clone()]).map(Key::Account).collect();
        }
        for path in std::iter::once(&self.mailbox).chain(to) {
            let account = path.owner_name().map(Key::Account);
            for key in std::iter::once(Key::Mailbox(path.clone())).chain(account) {
                if !keys.contains(&key) {
                    keys.push(key);
                }
            }
        }
        keys
    }

    /// The keys whose watchers must hear of it to keep their own books, beside those of
    /// [`Self::keys`]: the account of a user whose rights changed, which may want the mailbox from
    /// now on.
    pub fn routing_keys(&self) -> Vec<Key> {
        let mut keys = self.keys();
        if let Change::AclChange { identifier, .. } = &self.change
            && let Ok(Entry { identifier: Identifier::User(user), .. }) = identifier.parse()
            && !keys.contains(&Key::Account(user.clone()))
        {
            keys.push(Key::Account(user));
        }
        keys
    }

    /// Whether any node may have to keep its books because of it, whatever it watches: nobody can
    /// look up who watches what lies below a mailbox, or who is in a group.
    pub fn concerns_all_nodes(&self) -> bool {
        match &self.change {
            Change::MailboxRename { .. } => self.mailbox.name() != "INBOX",
            Change::AccountRename { .. } => true,
            // What cannot be read may be about anybody.
            Change::AclChange { identifier, .. } => {
                !matches!(identifier.parse(), Ok(Entry { identifier: Identifier::User(_) | Identifier::Owner, .. }))
            }
            _ => false,
        }
    }

    /// The same news without its details: what is sent when the event itself is too large for a
    /// queue.
    pub fn without_detail(&self) -> Self {
        Self { change: Change::MailboxChange, ..self.clone() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_type_has_its_name() {
        for event_type in EventType::ALL {
            assert_eq!(event_type.as_str().parse(), Ok(*event_type));
        }
        assert_eq!("MessageRead".parse::<EventType>(), Err(UnknownEventType));
    }

    #[test]
    fn a_set_of_types() {
        let set: EventTypes = [EventType::MessageNew, EventType::MailboxChange].into_iter().collect();
        assert!(set.contains(EventType::MessageNew) && !set.contains(EventType::FlagsSet));
        assert_eq!(set.iter().count(), 2);
        assert_eq!(EventTypes::ALL.iter().count(), EventType::ALL.len());
    }

    #[test]
    fn a_rename_concerns_both_paths() {
        let mut event = crate::mail::codec::tests::sample();
        let names = |event: &Event| event.keys().iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(names(&event), ["#private:bob@x.org:INBOX", "account bob@x.org"]);
        event.change = Change::MailboxRename { to: "#private:bob@x.org:Old".parse().unwrap() };
        assert_eq!(names(&event), ["#private:bob@x.org:INBOX", "account bob@x.org", "#private:bob@x.org:Old"]);
    }
}
