//! What a session wants done.

use std::collections::VecDeque;

use crate::mail::path::MailboxPath;
use crate::mail::rights::Rights;

/// What the shell must do, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Write what is due to the client, then begin TLS as a server; then
    /// [`super::Input::Encrypted`].
    StartTls,
    /// The server accepted this user, as the client wrote the name; answer with
    /// [`super::Input::Admission`]. `None`: who it is could not be learned.
    Authenticated { user: Option<String> },
    /// Register this mailbox, and feed its events from now on; then [`super::Input::Registration`].
    Watch(MailboxPath),
    /// Its events are not wanted any more.
    Unwatch(MailboxPath),
    /// Let the upstream connection go, after writing what is due to it.
    CloseUpstream,
    /// Connect upstream again, TLS included (paced, unless it is urgent; a paced attempt under way
    /// becomes urgent); then [`super::Input::Upstream`] with the greeting, or
    /// [`super::Input::UpstreamFailed`].
    OpenUpstream {
        /// The client waits for it: not paced.
        urgent: bool,
    },
    /// Something of the watched mailbox was not told, for it is not known whether the user may read
    /// it.
    Withheld(MailboxPath),
    /// What the user may do with the watched mailbox; `None`: the server did not say.
    Rights { mailbox: MailboxPath, rights: Option<Rights> },
    /// The client has changed an ACL: an `AclChange` is to be published. `rights` is in the form of
    /// SETACL's argument.
    AclChanged { mailbox: MailboxPath, identifier: String, rights: String },
    /// It has changed an ACL, and which one, or how, is not known.
    AclNotUnderstood,
    /// Write what is due to the client and close.
    Close { reason: &'static str },
}

/// The bytes and actions that wait for the shell. It takes bytes away as it writes them.
#[derive(Debug, Default)]
pub struct Output {
    /// What is due to the client.
    pub to_client: Vec<u8>,
    /// What is due to the server.
    pub to_upstream: Vec<u8>,
    pub(super) actions: VecDeque<Action>,
}

impl Output {
    pub(super) fn act(&mut self, action: Action) {
        self.actions.push_back(action);
    }

    pub(super) fn say(&mut self, bytes: &[u8]) {
        self.to_client.extend_from_slice(bytes);
    }
}
