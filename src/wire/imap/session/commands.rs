//! The client's commands on their way to the server: what is remembered of them until the server
//! has answered.

use std::collections::VecDeque;

use zeroize::Zeroizing;

use super::facts::Selected;
use super::question::Question;
use crate::wire::imap::command::{Command, Head};
use crate::wire::imap::effects::Effects;

/// What the relay remembers.
#[derive(Debug, Default)]
pub(super) struct Relay {
    /// Commands whose tagged response has not come, in the order in which they were sent.
    pub due: VecDeque<RelayedCommand>,
    /// A command that goes on behind a literal, as far as it has come.
    pub command: Option<Box<PartialCommand>>,
    /// A command before authentication that the server takes part by part.
    pub prelude: Option<Box<Prelude>>,
    /// Changes of ACLs that the server has accepted, and that are not told yet.
    pub acl_changes: Vec<AclCommand>,
    /// The server has said goodbye to the client itself.
    pub said_bye: bool,
}

/// A relayed command whose tagged response has not come.
#[derive(Debug)]
pub(super) struct RelayedCommand {
    pub tag: Box<[u8]>,
    pub meaning: Meaning,
    pub effects: Effects,
}

impl RelayedCommand {
    /// A question of the gateway's own, between the client's commands.
    pub fn own(tag: Box<[u8]>, question: Question) -> Self {
        Self { tag, meaning: Meaning::Own(question), effects: Effects::NONE }
    }
}

/// What a relayed command's success means to the gateway.
#[derive(Debug)]
pub(super) enum Meaning {
    Nothing,
    /// It is the gateway's own: the client does not hear of it.
    Own(Question),
    /// NAMESPACE of the client's own.
    Namespace,
    /// SETACL or DELETEACL, as far as it is understood.
    Acl(Option<AclCommand>),
    Login,
    Select(Box<Selected>),
    Unselect,
    /// NOTIFY, which the gateway does not follow.
    Notify,
    /// It may have been the selected mailbox.
    Rename,
}

/// A command that goes on behind a literal.
#[derive(Debug, Default)]
pub(super) struct PartialCommand {
    /// `None`: it need not be understood, or is too long for that.
    pub bytes: Option<Zeroizing<Vec<u8>>>,
    /// Where it has synchronizing literals: only of a command before authentication.
    pub stops: Vec<usize>,
}

/// A command before authentication that has synchronizing literals: sent part by part, as the
/// server asks for them.
#[derive(Debug)]
pub(super) struct Prelude {
    pub bytes: Zeroizing<Vec<u8>>,
    pub sent: usize,
    /// Where the server is waited for.
    pub stops: Vec<usize>,
}

impl Prelude {
    /// Whether the server has not been sent all of it.
    pub fn has_more(&self) -> bool {
        self.sent < self.bytes.len()
    }
}

/// SETACL or DELETEACL, in the bytes of its arguments.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct AclCommand {
    pub mailbox: Vec<u8>,
    pub identifier: Vec<u8>,
    pub rights: Vec<u8>,
}

impl AclCommand {
    /// `None`: another command.
    pub fn of(command: Command<'_>) -> Option<Self> {
        match command {
            Command::SetAcl { mailbox, identifier, rights } => Some(Self { mailbox, identifier, rights }),
            // Without an entry the identifier has no rights.
            Command::DeleteAcl { mailbox, identifier } => Some(Self { mailbox, identifier, rights: Vec::new() }),
            _ => None,
        }
    }
}

/// Commands that must be understood are gathered up to this size; a longer one passes without being
/// understood.
pub(super) const GATHER_LIMIT: usize = 32 * 1024;

/// Whether the literal that a piece announces is refused, so that the client will not send it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LiteralAnswer {
    Accept,
    Refuse,
}

/// Whether nothing stands behind IDLE (RFC 2177): a literal there would be read as what ends it.
pub(super) fn is_bare_idle(head: &Head<'_>, line: &[u8]) -> bool {
    line.trim_ascii_end().len() == head.tag.len() + b" IDLE".len()
}

pub(super) fn answer(tag: &[u8], words: &str) -> Vec<u8> {
    let mut line = tag.to_vec();
    line.push(b' ');
    line.extend_from_slice(words.as_bytes());
    line.extend_from_slice(b"\r\n");
    line
}
