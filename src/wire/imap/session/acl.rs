//! Changes of ACLs that the client makes itself (RFC 4314 3.1 and 3.2): where the server accepts
//! one, the cluster is told.
//!
//! Which mailbox a name means, NAMESPACE tells. Where that is not known yet it is asked in front of
//! the command: the client waits for an answer by then, so the server may tell what it likes
//! meanwhile (RFC 9051 7.5.1), and knows of nothing more.

use std::time::Instant;

use super::Session;
use super::commands::{AclCommand, Meaning, RelayedCommand};
use super::output::Action;
use super::question::Question;
use crate::mail::rights::{Entry, Rights};
use crate::wire::imap::namespace::Namespaces;
use crate::wire::imap::response::Untagged;

/// Accepted changes that wait for the names; a server answers in order, so more are not to be
/// expected.
const WAITING: usize = 256;

impl Session {
    /// Asks what names mean, unless that is known, or on its way.
    pub(super) fn ask_names_first(&mut self, now: Instant) {
        let asked = self.relay.due.iter().any(|relayed| matches!(relayed.meaning, Meaning::Own(_)));
        let facts = &self.common.facts;
        let is_refused = facts.left_to_server_until(now).is_some();
        if !facts.authenticated || facts.namespaces.is_some() || asked || is_refused {
            return;
        }
        // Of a server that has not said what it offers, one of the two will be known.
        let (has_namespace, is_known) = (facts.offers.namespace, facts.offers_are_known);
        if has_namespace || !is_known {
            self.ask_in_passing(Question::Namespace);
        }
        if !has_namespace {
            self.ask_in_passing(Question::Delimiter);
        }
    }

    fn ask_in_passing(&mut self, question: Question) {
        let (serial, tag) = loop {
            let serial = self.common.next_serial();
            let tag = format!("mailpush{serial}");
            // The client chooses its own.
            if self.relay.due.iter().all(|relayed| *relayed.tag != *tag.as_bytes()) {
                break (serial, tag);
            }
        };
        question.write(&mut self.out.to_upstream, serial, &self.common);
        self.relay.due.push_back(RelayedCommand::own(tag.into_bytes().into(), question));
    }

    /// Takes in what a relayed response says of names. Whether it answers the gateway's own
    /// question, so that the client is not to hear it.
    pub(super) fn learn_names(&mut self, untagged: &Untagged<'_>) -> bool {
        match untagged {
            Untagged::Namespace(namespaces) if self.common.facts.authenticated => {
                self.common.facts.add_namespaces(namespaces);
                // The client may have asked as well: one answer for each.
                let of_namespaces = |what: &Meaning| matches!(what, Meaning::Own(Question::Namespace) | Meaning::Namespace);
                let first = self.relay.due.iter().find(|relayed| of_namespaces(&relayed.meaning));
                first.is_some_and(|relayed| matches!(relayed.meaning, Meaning::Own(_)))
            }
            Untagged::List(list) if list.name.is_empty() => {
                let ours =
                    matches!(self.relay.due.front(), Some(RelayedCommand { meaning: Meaning::Own(Question::Delimiter), .. }));
                if ours && self.common.facts.namespaces.is_none() {
                    self.common.facts.namespaces = Some(Box::new(Namespaces::personal_only(list.delimiter)));
                }
                ours
            }
            _ => false,
        }
    }

    /// A question for the names has its answer, whatever it is.
    pub(super) fn names_answered(&mut self, now: Instant) {
        let is_awaited = self.relay.due.iter().any(|relayed| matches!(relayed.meaning, Meaning::Own(_)));
        if !is_awaited && self.common.facts.namespaces.is_none() {
            self.common.facts.leave_to_server(now);
        }
        self.tell_acl_changes();
    }

    /// The server has accepted a change. `None`: it was too long to be read, or the gateway reads
    /// it in another way.
    pub(super) fn acl_changed(&mut self, command: Option<AclCommand>) {
        match command {
            Some(command) if self.relay.acl_changes.len() < WAITING => self.relay.acl_changes.push(command),
            _ => self.out.act(Action::AclNotUnderstood),
        }
        self.tell_acl_changes();
    }

    /// Changes that were sent to the server and of which nobody was told whether it accepted them.
    pub fn unanswered_acl_changes(&self) -> usize {
        self.relay.acl_changes.len() + self.relay.due.iter().filter(|relayed| matches!(relayed.meaning, Meaning::Acl(_))).count()
    }

    /// Hands out the accepted changes once names are known, or will not be.
    pub(super) fn tell_acl_changes(&mut self) {
        let is_awaited = self.relay.due.iter().any(|relayed| matches!(relayed.meaning, Meaning::Own(_)));
        if self.common.facts.namespaces.is_none() && is_awaited {
            return;
        }
        for command in std::mem::take(&mut self.relay.acl_changes) {
            let action = self.understand_acl_change(&command).unwrap_or(Action::AclNotUnderstood);
            self.out.act(action);
        }
    }

    fn understand_acl_change(&self, command: &AclCommand) -> Option<Action> {
        let (user, names) = (self.common.facts.user.as_ref()?, &self.common.rules.names);
        let mailbox = self.common.facts.namespaces.as_ref()?.path(&command.mailbox, self.common.facts.utf8, user, names)?;
        // What only the server knows (an identifier of its own) is told as it is: it may be about
        // anybody.
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
