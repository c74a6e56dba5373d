//! What all states of IDLE share: the client's side of the command, the mailbox that is watched,
//! and what may follow.

use std::time::Instant;

use crate::mail::event::{Change, Event};
use crate::mail::path::MailboxPath;
use crate::mail::view::is_inbox_emptied;
use crate::wire::imap::numbers::Numbers;
use crate::wire::imap::response::Untagged;
use crate::wire::imap::session::asker::{Asker, NEWS_LIMIT, TOO_MUCH};
use crate::wire::imap::session::common::Common;
use crate::wire::imap::session::facts;
use crate::wire::imap::session::input::{Reading, Registration};
use crate::wire::imap::session::output::{Action, Output};
use crate::wire::imap::session::question::Question;
use crate::wire::imap::session::timers::Timer;

/// Events that wait while the server is asked; more than that, and it is asked again instead.
const WAITING: usize = 256;
/// The reason in words; the same for a mailbox that is gone as for one that may not be read (I-9).
const REVOKED: Next = Next::Bye { words: "You may not read this mailbox any more", reason: "revoked" };
const DELETED: Next = Next::Bye { words: "The mailbox has been deleted", reason: "mailbox_deleted" };

/// What a state works with besides its own fields.
pub(crate) struct Cx<'a> {
    pub now: Instant,
    pub common: &'a mut Common,
    pub out: &'a mut Output,
    pub client: &'a mut ClientSide,
    pub watch: &'a mut Option<Watch>,
}

/// How far the client is with IDLE (RFC 2177).
#[derive(Debug)]
pub(crate) enum ClientSide {
    /// It waits for `+ idling`; these lines are to follow that.
    Waiting(Vec<u8>),
    Idling,
    /// It has ended IDLE, and waits for the tagged response.
    Leaving {
        since: Instant,
        /// The response without its tag.
        answer: &'static str,
    },
}

/// The mailbox whose events are wanted.
#[derive(Debug)]
pub(crate) struct Watch {
    pub path: MailboxPath,
    /// `None`: it is not known yet.
    pub registration: Option<Registration>,
    /// The registration has been settled at some time.
    pub was_settled: bool,
    /// It has a new name: the server must be told so before anything is asked of it.
    pub is_renamed: bool,
    /// The user's rights are to be asked for as soon as the server does not idle itself.
    pub rights_due: bool,
}

/// Events that wait until the server has answered.
#[derive(Debug, Default)]
pub(crate) struct Backlog {
    events: Vec<Event>,
    /// The server is to be asked again at once: its answer may be older than something that
    /// happened meanwhile.
    pub again: bool,
}

/// What follows from something that happened while the client idles.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Next {
    /// Nothing more: the state is as it should be.
    Stay,
    /// Who can serve the client is decided anew. The client's numbers are the server's.
    Prepare,
    /// IDLE is left to the server. The client's numbers are the server's.
    HandOver,
    /// IDLE is over. The client's numbers are the server's.
    Finish,
    /// The session is over.
    Bye { words: &'static str, reason: &'static str },
}

impl Backlog {
    /// Whether there was room for it.
    pub fn push(&mut self, event: &Event) -> bool {
        let has_room = self.events.len() < WAITING;
        if has_room {
            self.events.push(event.clone());
        } else {
            self.again = true;
        }
        has_room
    }

    pub fn take(&mut self) -> Vec<Event> {
        std::mem::take(&mut self.events)
    }

    pub fn events(&self) -> &[Event] {
        &self.events
    }

    /// Those that say something of flags are dropped.
    pub fn drop_flags(&mut self) {
        self.events.retain(|event| event.change.flag_uids().next().is_none());
    }

    /// Whether an event says that the mailbox has another name.
    pub fn moves(&self, mailbox: &MailboxPath) -> bool {
        let moves = |event: &Event| matches!(event.change, Change::MailboxRename { .. }) && !is_inbox_emptied(event);
        self.events.iter().any(|event| event.mailbox == *mailbox && moves(event))
    }

    /// Whether an event says that the mailbox is gone.
    pub fn ends(&self, mailbox: &MailboxPath) -> bool {
        let ends = |event: &Event| matches!(event.change, Change::MailboxDelete);
        self.events.iter().any(|event| event.mailbox == *mailbox && ends(event))
    }
}

impl ClientSide {
    pub fn is_waiting(&self) -> bool {
        matches!(self, Self::Waiting(_))
    }

    pub fn leaving_since(&self) -> Option<Instant> {
        match self {
            Self::Leaving { since, .. } => Some(*since),
            _ => None,
        }
    }

    pub fn is_leaving(&self) -> bool {
        self.leaving_since().is_some()
    }
}

impl Cx<'_> {
    /// Asks the server these, all at once. `numbers`: what its numbers mean, as far as that is
    /// known.
    pub fn ask(&mut self, numbers: Numbers, questions: impl IntoIterator<Item = Question>) -> Box<Asker> {
        self.common.timers.set(Timer::Answer, self.now + self.common.rules.catch_up);
        Asker::start(self.common, &mut self.out.to_upstream, numbers, questions)
    }

    /// Tells the client that it idles, unless it has been told.
    pub fn tell_idling(&mut self) {
        if let ClientSide::Waiting(lines) = self.client {
            self.out.say(b"+ idling\r\n");
            self.out.to_client.append(lines);
            *self.client = ClientSide::Idling;
        }
    }

    /// Passes on what the server says: its numbers are the client's.
    pub fn mirror(&mut self, untagged: &Untagged<'_>, raw: &[u8]) -> Next {
        if let Some(selected) = self.common.facts.selected.as_deref_mut() {
            selected.hear(untagged);
        }
        match self.client {
            ClientSide::Waiting(lines) if lines.len() + raw.len() > NEWS_LIMIT => return Next::nonsense(TOO_MUCH),
            ClientSide::Waiting(lines) => lines.extend_from_slice(raw),
            _ => self.out.say(raw),
        }
        Next::Stay
    }

    pub fn path(&self) -> Option<&MailboxPath> {
        self.watch.as_ref().map(|watch| &watch.path)
    }

    pub fn registration(&self) -> Option<Registration> {
        self.watch.as_ref().and_then(|watch| watch.registration)
    }

    /// Whether IDLE is the server's own business for now.
    pub fn is_servers_business(&self) -> bool {
        let facts = &self.common.facts;
        let cannot_follow = facts.foreign || facts.user.is_none() || facts.left_to_server_until(self.now).is_some();
        let is_lost = self.registration() == Some(Registration::Unavailable);
        !self.common.healthy || cannot_follow || is_lost || self.has_no_rights_to_ask()
    }

    /// The watched mailbox, if the user's rights on it must be asked for.
    pub fn asks_rights_on(&self) -> Option<MailboxPath> {
        self.path().filter(|path| self.common.facts.offers.acl && self.common.is_foreign(path)).cloned()
    }

    /// Whether rights should be asked for where the server has none to tell: then who hears what is
    /// the server's business.
    pub fn has_no_rights_to_ask(&self) -> bool {
        let facts = &self.common.facts;
        if !facts.offers_are_known || facts.offers.acl || self.common.rules.asks_rights.is_empty() {
            return false;
        }
        match self.path() {
            Some(path) => self.common.is_foreign(path),
            None => self.common.path().is_some_and(|path| self.common.is_foreign(&path)),
        }
    }

    /// Something is not told: the source of rights is to see that it is told later.
    pub fn withhold(&mut self) {
        if self.common.reading == Reading::Unknown
            && let Some(mailbox) = self.path().cloned()
        {
            self.out.act(Action::Withheld(mailbox));
        }
    }

    /// Whoever waits for the user's rights is told that they are not known.
    pub fn say_that_rights_are_unknown(&mut self) {
        if let Some(mailbox) = self.asks_rights_on() {
            self.out.act(Action::Rights { mailbox, rights: None });
        }
    }

    /// The mailbox has this name now: it is watched under that.
    pub fn rename(&mut self, path: MailboxPath) -> Next {
        let (facts, names) = (&mut self.common.facts, &self.common.rules.names);
        let known = facts.namespaces.as_ref().zip(facts.user.as_ref()).zip(facts.selected.as_ref());
        let name = known.and_then(|((known, user), old)| known.imap_name_like(&old.name, &path, facts.utf8, user, names));
        let (Some(name), Some(selected), Some(watch)) = (name, &mut facts.selected, self.watch.as_mut()) else {
            return Next::Bye { words: "The mailbox has been moved out of your sight", reason: "mailbox_renamed" };
        };
        selected.name = name;
        let new = Watch { path: path.clone(), registration: None, was_settled: false, is_renamed: true, ..*watch };
        let old = std::mem::replace(watch, new);
        self.out.act(Action::Unwatch(old.path));
        self.out.act(Action::Watch(path));
        Next::Stay
    }
}

impl Next {
    pub const fn deleted() -> Self {
        DELETED
    }

    pub const fn uidvalidity() -> Self {
        Self::Bye { words: "The mailbox has been made anew (UIDVALIDITY)", reason: "uidvalidity" }
    }

    pub const fn lost() -> Self {
        Self::Bye { words: "[UNAVAILABLE] The mail server has closed the connection", reason: "upstream_closed" }
    }

    pub const fn revoked() -> Self {
        REVOKED
    }

    pub const fn nonsense(words: &'static str) -> Self {
        Self::Bye { words, reason: "upstream_nonsense" }
    }
}

impl facts::Selected {
    /// Takes in what the server says of the mailbox while the client hears the same.
    fn hear(&mut self, untagged: &Untagged<'_>) {
        self.follow(untagged);
        match untagged {
            Untagged::Flags(list) => self.keywords.flags = facts::flags(list),
            Untagged::Status { code: Some(code), .. } => self.note(code),
            _ => {}
        }
    }
}
