//! What can be done with messages. Who may do it is asked by the caller, but for copies.

use std::sync::Arc;

use mail_parser::MessageParser;

use super::mailbox::{Content, Message, Stamp};
use super::model::{Model, Refusal};
use crate::mail::event::{Envelope, NewMessage};
use crate::mail::rights::Rights;
use crate::mail::{Change, Flags, ModSeq, Uid, UserName};

/// How STORE changes flags.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FlagsBy {
    Add,
    Remove,
    Replace,
}

/// Whether a message was delivered, or put there by a client (RFC 5423 4.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arrival {
    Delivered,
    Appended,
}

impl Model {
    /// Adds messages in one transaction.
    pub fn append(
        &mut self,
        stamp: Stamp,
        user: &UserName,
        id: u64,
        new: Vec<(Flags, Arc<Content>)>,
        arrival: Arrival,
    ) -> Result<Vec<Uid>, Refusal> {
        let mailbox = self.mailbox(id).ok_or(Refusal::Nonexistent)?;
        let bytes: usize = new.iter().map(|(_, content)| content.raw.len()).sum();
        if new.iter().any(|(_, content)| content.raw.len() > self.limits.message_bytes) {
            return Err(Refusal::Limit("The message is too large"));
        }
        if mailbox.messages.len() + new.len() > self.limits.messages {
            return Err(Refusal::Limit("Too many messages in the mailbox"));
        }
        if self.bytes + bytes > self.limits.total_bytes {
            return Err(Refusal::OverQuota);
        }
        let all: Flags = new.iter().flat_map(|(flags, _)| flags.iter().cloned()).collect();
        self.may_hold(mailbox, &all)?;
        let mailbox = self.mailbox_mut(id).ok_or(Refusal::Nonexistent)?;
        let added = mailbox.append(stamp, new).ok_or(Refusal::Limit("UIDs have run out"))?;
        self.bytes += bytes;
        let uids = added.iter().map(|message| message.uid).collect();
        if !added.is_empty() {
            let messages = added.iter().map(announced).collect();
            let change = match arrival {
                Arrival::Delivered => Change::MessageNew { messages },
                Arrival::Appended => Change::MessageAppend { messages },
            };
            self.tell(stamp, user, id, change);
        }
        Ok(uids)
    }

    /// Changes flags of those messages that are still there. `mask`: the flags that the user may
    /// change; what of a replacement is not in it stays as it is (RFC 4314 4).
    pub fn store(
        &mut self,
        stamp: Stamp,
        user: &UserName,
        id: u64,
        uids: &[Uid],
        (by, flags): (FlagsBy, &Flags),
        mask: impl Fn(&str) -> bool,
    ) -> Result<(), Refusal> {
        if by != FlagsBy::Remove {
            self.may_hold(self.mailbox(id).ok_or(Refusal::Nonexistent)?, flags)?;
        }
        let mailbox = self.mailbox_mut(id).ok_or(Refusal::Nonexistent)?;
        let mut changes = mailbox.set_flags(stamp, uids, |before| {
            let stays = |flag: &str| !mask(flag) || by == FlagsBy::Add || by == FlagsBy::Remove && !flags.contains(flag);
            let kept = before.iter().filter(|flag| stays(flag.as_str()));
            let new = flags.iter().filter(|flag| by != FlagsBy::Remove && mask(flag.as_str()));
            kept.chain(new).cloned().collect()
        });
        // What is set and what is cleared are two types of event (RFC 5423 4.2); both carry the
        // complete sets, so a message that both happened to is told of once.
        let set = |change: &crate::mail::event::FlagChange| {
            change.flags.as_ref().is_some_and(|flags| change.changed.iter().any(|flag| flags.contains(flag.as_str())))
        };
        let cleared = changes.extract_if(.., |change| !set(change)).collect::<Vec<_>>();
        for change in &mut changes {
            let now = change.flags.clone().unwrap_or_default();
            change.changed = change.changed.iter().filter(|flag| now.contains(flag.as_str())).cloned().collect();
        }
        if !changes.is_empty() {
            self.tell(stamp, user, id, Change::FlagsSet { messages: changes });
        }
        if !cleared.is_empty() {
            self.tell(stamp, user, id, Change::FlagsClear { messages: cleared });
        }
        Ok(())
    }

    /// Expunges those that are still there.
    pub fn expunge(&mut self, stamp: Stamp, user: &UserName, id: u64, uids: &[Uid]) -> Vec<Uid> {
        let Some(mailbox) = self.mailbox_mut(id) else { return Vec::new() };
        let before = mailbox.bytes();
        let gone = mailbox.expunge(stamp, uids);
        let (after, modseq) = (mailbox.bytes(), ModSeq(mailbox.highest));
        self.bytes -= before - after;
        if !gone.is_empty() {
            self.tell(stamp, user, id, Change::MessageExpunge { uids: gone.clone(), modseq: Some(modseq) });
        }
        gone
    }

    /// Copies those that are still there, in one transaction, or moves them; says which became
    /// which.
    pub fn copy(
        &mut self,
        stamp: Stamp,
        user: &UserName,
        from: u64,
        uids: &[Uid],
        to: u64,
        and_expunge: bool,
    ) -> Result<Vec<(Uid, Uid)>, Refusal> {
        let source = self.mailbox(from).ok_or(Refusal::Nonexistent)?;
        let rights = self.mailbox(to).ok_or(Refusal::Nonexistent)?.rights(user);
        let may_set = may_set(rights);
        let held: Vec<&Message> = uids.iter().filter_map(|uid| source.get(*uid)).collect();
        let from_uids: Vec<Uid> = held.iter().map(|message| message.uid).collect();
        let copies = held.iter().map(|message| {
            let flags = message.flags.iter().filter(|flag| may_set(flag.as_str())).cloned().collect();
            (flags, message.content.clone())
        });
        let copies = copies.collect();
        let to_uids = self.append(stamp, user, to, copies, Arrival::Appended)?;
        if and_expunge {
            self.expunge(stamp, user, from, &from_uids);
        }
        Ok(from_uids.into_iter().zip(to_uids).collect())
    }
}

/// Which flags these rights allow to change (RFC 4314 4).
pub fn may_set(rights: Rights) -> impl Fn(&str) -> bool {
    move |flag| {
        rights.has(match flag {
            "\\Seen" => 's',
            "\\Deleted" => 't',
            _ => 'w',
        })
    }
}

fn announced(message: &Message) -> NewMessage {
    let raw = &message.content.raw;
    NewMessage {
        uid: message.uid,
        flags: Some(message.flags.clone()),
        size: Some(raw.len() as u64),
        internaldate: Some(message.content.internaldate),
        modseq: Some(ModSeq(message.modseq)),
        envelope: MessageParser::new().with_minimal_headers().parse_headers(raw).map(|parsed| Envelope {
            from: parsed.from().and_then(|from| from.first()).and_then(|from| from.address()).map(str::to_owned),
            subject: parsed.subject().map(str::to_owned),
            message_id: parsed.message_id().map(|id| format!("<{id}>")),
        }),
    }
}
