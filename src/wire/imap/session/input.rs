//! Everything that can happen to a session.

use crate::mail::event::Event;
use crate::mail::path::MailboxPath;
use crate::mail::user::UserName;

/// One thing that happens; [`super::Session::handle`] takes it in, together with the time.
#[derive(Debug)]
pub enum Input<'a> {
    /// The client sent these bytes.
    Client(&'a [u8]),
    /// The mail server sent these bytes.
    Upstream(&'a [u8]),
    /// The mail server closed the connection, or it broke.
    UpstreamClosed,
    /// The connection that [`super::Action::OpenUpstream`] asked for could not be opened.
    UpstreamFailed,
    /// The client's side is encrypted now: the answer to [`super::Action::StartTls`].
    Encrypted,
    /// The answer to [`super::Action::Authenticated`]: the user may be here under this normalised
    /// name (`None`: who it is could not be learned), or may not, and why.
    Admission(Result<Option<UserName>, String>),
    /// How the registration of the watched mailbox stands: after [`super::Action::Watch`], and
    /// whenever it changes.
    Registration { mailbox: &'a MailboxPath, registration: Registration },
    /// An event of the watched mailbox, out of the queue.
    Event(&'a Event),
    /// Continuity is broken: something may have been missed (I-6).
    Resync,
    /// Whether registry and queue are healthy.
    Health(bool),
    /// Whether the user may read the watched mailbox, as the gateway knows. To be said before the
    /// server's words are handed in, for what may be told of them depends on it (I-10).
    Reading(Reading),
    /// The user's rights on this mailbox are to be asked for, and told as
    /// [`super::Action::Rights`].
    RightsCheck(&'a MailboxPath),
    /// The right to hear of this mailbox is gone. A client that does not idle there any more is not
    /// concerned.
    Revoked(&'a MailboxPath),
    /// The session must end, with these words to the client: the node goes down, an administrator
    /// ends it.
    End { words: &'a str, reason: &'static str },
    /// The time of [`super::Session::poll_timeout`] has come.
    Timeout,
}

/// How the registration of the watched mailbox stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Registration {
    /// Acknowledged: what is published from now on comes, but for publishers whose lookups are
    /// stale (I-5).
    Registered,
    /// Every publisher finds it.
    Settled,
    /// It could not be registered, or is lost.
    Unavailable,
}

/// Whether the user may read the watched mailbox, as the gateway knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reading {
    /// So it is, or it is the session's own business to find out.
    Allowed,
    /// The source of rights has not answered.
    Unknown,
    Denied,
}
