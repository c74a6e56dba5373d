//! What the view returns: the responses to send to the client, and what else is to be done.

use roaring::RoaringBitmap;

use crate::mail::flags::{Flag, Flags};
use crate::mail::path::MailboxPath;
use crate::mail::uid::{ModSeq, Uid};

/// One untagged response. All of them are sent, in the order given, before anything else that has
/// sequence numbers.
#[derive(Debug, Clone, PartialEq)]
pub enum Tell {
    /// `* FLAGS (…)` (RFC 9051 7.3.5): the whole list, with what is new.
    Flags(Flags),
    /// `* OK [PERMANENTFLAGS (…)]` (RFC 9051 7.1).
    PermanentFlags(PermanentFlags),
    /// `* seq FETCH (FLAGS …)` (RFC 9051 7.5.2). `UID` belongs into it where
    /// [`Features::fetch_has_uid`] says so.
    Fetch { seq: u32, uid: Uid, flags: Flags, modseq: Option<ModSeq> },
    /// `* seq EXPUNGE` (RFC 9051 7.5.1): numbers above it shrink by one at once.
    Expunge(u32),
    /// `* VANISHED uids` (RFC 7162 3.2.10.2), instead of EXPUNGE once QRESYNC is enabled.
    Vanished(RoaringBitmap),
    /// `* n EXISTS` (RFC 9051 7.4.1), never less than what the client holds.
    Exists(u32),
}

/// The flags that the client can change for good (RFC 9051 7.1, PERMANENTFLAGS).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PermanentFlags {
    pub flags: Flags,
    /// `\*`: new keywords can be created.
    pub any: bool,
}

/// The lists of flags that the client was given when it selected the mailbox.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Keywords {
    /// The FLAGS response's.
    pub flags: Flags,
    /// `None`: the server sent no PERMANENTFLAGS, so none is ever told.
    pub permanent: Option<PermanentFlags>,
}

/// A list that the server has told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeywordList {
    /// FLAGS (RFC 9051 7.3.5).
    Flags(Flags),
    /// PERMANENTFLAGS (RFC 9051 7.1).
    Permanent(PermanentFlags),
}

/// What the client must be told of a list of the server's.
#[derive(Debug, Clone, PartialEq)]
pub enum KeywordNews {
    /// Nothing: the client knows all of it.
    Nothing,
    /// The server's own line, as it is.
    ServerLine,
    /// The server's list together with the keywords that the client has seen already.
    List(Tell),
}

impl Keywords {
    pub(super) fn knows(&self, flag: &Flag) -> bool {
        flag.as_str() == RECENT || self.flags.contains(flag.as_str())
    }

    /// Adds the flags that the list lacks; returns what the client must be told before it sees
    /// them.
    pub(super) fn learn(&mut self, flags: &Flags) -> Vec<Tell> {
        let unknown: Flags = flags.iter().filter(|flag| !self.knows(flag)).cloned().collect();
        self.flags = self.flags.iter().chain(unknown.iter()).cloned().collect();
        let mut tell = vec![Tell::Flags(self.flags.clone())];
        // Where the client may not create keywords, another's new one is not its to change.
        if let Some(permanent) = self.permanent.as_mut().filter(|permanent| permanent.any) {
            permanent.flags = permanent.flags.iter().chain(unknown.iter()).cloned().collect();
            tell.push(Tell::PermanentFlags(permanent.clone()));
        }
        tell
    }
}

/// Belongs to one session of one server (RFC 3501 2.3.2), is in no list, and IMAP4rev2 has none.
pub(super) const RECENT: &str = "\\Recent";

/// What the client has enabled (RFC 5161), by whatever command.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Features {
    /// RFC 7162 3.1: FETCH has MODSEQ.
    pub condstore: bool,
    /// RFC 7162 3.2: VANISHED instead of EXPUNGE; implies the former.
    pub qresync: bool,
    /// RFC 9051: no `\Recent`.
    pub rev2: bool,
}

impl Features {
    /// Whether every FETCH must have a modification sequence.
    pub fn fetch_has_modseq(self) -> bool {
        self.condstore || self.qresync
    }

    /// Whether a FETCH that nobody asked for must have the UID (RFC 7162 3.2.4, RFC 9051 7.5.2).
    pub fn fetch_has_uid(self) -> bool {
        self.qresync || self.rev2
    }
}

/// What an event means for the client and for the session.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Applied {
    /// To send to the client.
    pub tell: Vec<Tell>,
    /// The messages whose flags only the server knows: ask it, and pass its answer to
    /// [`super::View::tell_flags`].
    pub ask: RoaringBitmap,
    pub then: Then,
}

/// What the session must do besides sending the responses.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Then {
    #[default]
    Nothing,
    /// Something seems to be missing, perhaps only for the moment: after a short hold, if
    /// [`super::View::is_doubtful`] still, reconcile.
    Check,
    /// The difference from upstream must be found out now.
    Reconcile(Why),
    /// The mailbox is not what the client selected any more: `* BYE`.
    Over(End),
    /// It goes on under this path.
    Renamed(MailboxPath),
}

/// Why a reconciliation is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Why {
    /// The event had no details.
    NoDetail,
    /// More is in doubt than is worth remembering.
    TooMuchInDoubt,
    /// INBOX was renamed: its messages have moved away, and it stays (RFC 9051 6.3.6).
    Emptied,
}

/// Why a view is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum End {
    Deleted,
    UidValidityChanged,
}

/// The difference from the server's list, as far as IMAP can express it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Reconciled {
    pub tell: Vec<Tell>,
    /// Messages that the client was told of and that the server does not show yet.
    pub ahead: RoaringBitmap,
    /// Messages that the server shows and that the client cannot be told of: it was told that they
    /// are expunged, or their numbers lie in the middle.
    pub late: RoaringBitmap,
}

impl Reconciled {
    /// Whether the client's numbers mean the same messages as upstream's (I-11).
    pub fn is_level(&self) -> bool {
        self.ahead.is_empty() && self.late.is_empty()
    }
}
