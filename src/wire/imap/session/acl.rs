//! Changes of ACLs that the client makes itself (RFC 4314 3.1 and 3.2): where the server accepts one, the cluster is told.
//!
//! Which mailbox a name means, NAMESPACE tells. Where that is not known yet it is asked in front of the command: the client
//! waits for an answer by then, so the server may tell what it likes meanwhile (RFC 9051 7.5.1), and knows of nothing more.

use std::time::Instant;

use super::questions::Question;
use super::relay::{Relayed, What};
use super::{Action, Session};
use crate::mail::rights::{Entry, Rights};
use crate::wire::imap::command::Command;
use crate::wire::imap::namespace::Namespaces;
use crate::wire::imap::response::Untagged;

/// Accepted changes that wait for the names; a server answers in order, so more are not to be expected.
const WAITING: usize = 256;

/// SETACL or DELETEACL, in the bytes of its arguments.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct AclCommand {
    mailbox: Vec<u8>,
    identifier: Vec<u8>,
    rights: Vec<u8>,
}

impl AclCommand {
    /// `None`: another command.
    pub fn of(command: Command<'_>) -> Option<Self> {
        match command {
            Command::SetAcl { mailbox, identifier, rights } => Some(Self { mailbox, identifier, rights }),
            // Nothing is what is left.
            Command::DeleteAcl { mailbox, identifier } => Some(Self { mailbox, identifier, rights: Vec::new() }),
            _ => None,
        }
    }
}

impl Session {
    /// Asks what names mean, unless that is known, or on its way.
    pub(super) fn ask_names_first(&mut self, now: Instant) {
        let asked = self.due.iter().any(|relayed| matches!(relayed.what, What::Asked(_)));
        if !self.facts.authenticated || self.facts.namespaces.is_some() || asked || self.facts.is_paused(now) {
            return;
        }
        // Of a server that has not said what it offers, one of the two will be known.
        let (has_namespace, is_known) = (self.facts.offers.namespace, self.facts.offers_are_known);
        if has_namespace || !is_known {
            self.ask_in_passing(Question::Namespace);
        }
        if !has_namespace {
            self.ask_in_passing(Question::Delimiter);
        }
    }

    fn ask_in_passing(&mut self, question: Question) {
        let tag = loop {
            self.serial = self.serial.wrapping_add(1);
            let tag = format!("mailpush{}", self.serial);
            // The client chooses its own.
            if self.due.iter().all(|relayed| *relayed.tag != *tag.as_bytes()) {
                break tag;
            }
        };
        self.send(self.serial, &question);
        self.due.push_back(Relayed::own(tag.into_bytes().into(), question));
    }

    /// Takes in what a relayed response says of names. Whether it answers the gateway's own question, so that the client is
    /// not to hear it.
    pub(super) fn learn_names(&mut self, untagged: &Untagged<'_>) -> bool {
        match untagged {
            Untagged::Namespace(namespaces) if self.facts.authenticated => {
                self.facts.add_namespaces(namespaces);
                // The client may have asked as well: one answer for each.
                let of_namespaces = |what: &What| matches!(what, What::Asked(Question::Namespace) | What::Namespace);
                let first = self.due.iter().find(|relayed| of_namespaces(&relayed.what));
                first.is_some_and(|relayed| matches!(relayed.what, What::Asked(_)))
            }
            Untagged::List(list) if list.name.is_empty() => {
                let ours = matches!(self.due.front(), Some(Relayed { what: What::Asked(Question::Delimiter), .. }));
                if ours && self.facts.namespaces.is_none() {
                    self.facts.namespaces = Some(Box::new(Namespaces::personal_only(list.delimiter)));
                }
                ours
            }
            _ => false,
        }
    }

    /// A question for the names has its answer, whatever it is.
    pub(super) fn names_answered(&mut self, now: Instant) {
        let is_awaited = self.due.iter().any(|relayed| matches!(relayed.what, What::Asked(_)));
        if !is_awaited && self.facts.namespaces.is_none() {
            self.facts.pause(now);
        }
        self.tell_acl_changes();
    }

    /// The server has accepted a change. `None`: it was too long to be read, or the gateway reads it in another way.
    pub(super) fn acl_changed(&mut self, command: Option<AclCommand>) {
        match command {
            Some(command) if self.acl_changes.len() < WAITING => self.acl_changes.push(command),
            _ => self.actions.push_back(Action::AclNotUnderstood),
        }
        self.tell_acl_changes();
    }

    /// Changes that were sent to the server and of which nobody was told whether it accepted them.
    pub fn unanswered_acl_changes(&self) -> usize {
        self.acl_changes.len() + self.due.iter().filter(|relayed| matches!(relayed.what, What::Acl(_))).count()
    }

    /// Hands out the accepted changes once names are known, or will not be.
    pub(super) fn tell_acl_changes(&mut self) {
        let is_awaited = self.due.iter().any(|relayed| matches!(relayed.what, What::Asked(_)));
        if self.facts.namespaces.is_none() && is_awaited {
            return;
        }
        for command in std::mem::take(&mut self.acl_changes) {
            let action = self.understand_acl_change(&command).unwrap_or(Action::AclNotUnderstood);
            self.actions.push_back(action);
        }
    }

    fn understand_acl_change(&self, command: &AclCommand) -> Option<Action> {
        let (user, names) = (self.facts.user.as_ref()?, &self.rules.names);
        let mailbox = self.facts.namespaces.as_ref()?.path(&command.mailbox, self.facts.utf8, user, names)?;
        // What only the server knows (an identifier of its own) is told as it is: it may be about anybody.
        let identifier = String::from_utf8_lossy(&command.identifier);
        let identifier = Entry::read(&identifier, names).map_or_else(|_| identifier.into_owned(), |entry| entry.to_string());
        let text = String::from_utf8_lossy(&command.rights);
        let (sign, letters) = match text.split_at_checked(1) {
            Some((sign @ ("+" | "-"), letters)) => (sign, letters),
            _ => ("", text.as_ref()),
        };
        // A right that the server knows and the cluster does not decides nothing here.
        let rights = format!("{sign}{}", Rights::parse_asked(letters));
        Some(Action::AclChanged { mailbox, identifier, rights })
    }
}
