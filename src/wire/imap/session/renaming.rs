//! The mailbox that the client idles on gets another name, or is gone: the session goes on under that name, or ends.

use super::idle::Idle;
use super::{Action, Session};
use crate::mail::event::{Change, Event};
use crate::mail::path::MailboxPath;
use crate::mail::view::is_inbox_emptied;

impl Idle {
    /// Whether an event that waits says that the mailbox has another name.
    pub fn is_about_to_move(&self) -> bool {
        let moves = |event: &Event| matches!(event.change, Change::MailboxRename { .. }) && !is_inbox_emptied(event);
        self.waiting.iter().any(|event| self.path.as_ref() == Some(&event.mailbox) && moves(event))
    }

    /// Whether an event that waits says that the mailbox is gone.
    pub fn is_about_to_end(&self) -> bool {
        let ends = |event: &Event| matches!(event.change, Change::MailboxDelete);
        self.waiting.iter().any(|event| self.path.as_ref() == Some(&event.mailbox) && ends(event))
    }
}

impl Session {
    pub(super) fn bye_deleted(&mut self) {
        self.bye("The mailbox has been deleted", "mailbox_deleted");
    }

    /// The session goes on under the mailbox's new name.
    pub(super) fn rename(&mut self, path: MailboxPath) {
        let (facts, names) = (&self.facts, &self.rules.names);
        let known = facts.namespaces.as_ref().zip(facts.user.as_ref()).zip(facts.selected.as_ref());
        let name = known.and_then(|((known, user), old)| known.imap_name_like(&old.name, &path, facts.utf8, user, names));
        let (Some(name), Some(selected), Some(idle)) = (name, &mut self.facts.selected, &mut self.idle) else {
            return self.bye("The mailbox has been moved out of your sight", "mailbox_renamed");
        };
        selected.name = name;
        (idle.standing, idle.settled) = (None, false);
        // Until the new name is registered nothing of it comes, and a fresh SELECT tells no changes.
        (idle.renamed, idle.flags_lost) = (true, true);
        if let Some(old) = idle.path.replace(path.clone()) {
            self.actions.push_back(Action::Unwatch(old));
        }
        self.actions.push_back(Action::Watch(path));
    }
}
