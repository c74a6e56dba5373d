//! What a session has learned by watching: who the client is, what it enabled, what it has
//! selected.

use std::time::{Duration, Instant};

use super::rules::{Reentry, Rules};
use crate::mail::flags::Flags;
use crate::mail::path::MailboxPath;
use crate::mail::uid::{ModSeq, UidValidity};
use crate::mail::user::{UserName, UserNames};
use crate::mail::view::{Features, Keywords, PermanentFlags};
use crate::wire::imap::capability::Offers;
use crate::wire::imap::credentials::Credentials;
use crate::wire::imap::namespace::Namespaces;
use crate::wire::imap::numbers::Numbers;
use crate::wire::imap::response::{Code, Untagged, words};

/// How the client logged in, where the gateway could do the same again.
#[derive(Debug, Clone)]
pub(super) enum Login {
    Login(Credentials),
    /// SASL PLAIN, with its authorization identity.
    Plain(String, Credentials),
}

/// What is known of the client, of its server, and of the selected mailbox.
#[derive(Debug, Default)]
pub(super) struct Facts {
    pub authenticated: bool,
    /// What the server offers, as last told.
    pub offers: Offers,
    /// It has told so since the client logged in.
    pub offers_are_known: bool,
    /// The user's name as the client wrote it.
    pub written_user: Option<String>,
    pub user: Option<UserName>,
    /// Kept only where the rules say that it will be used again.
    pub login: Option<Box<Login>>,
    pub namespaces: Option<Box<Namespaces>>,
    /// What the client has enabled, as the server confirmed it: replayed when a connection is taken
    /// up again, and nothing more (RFC 5161: there is no way to disable).
    pub enabled: Vec<Box<str>>,
    pub features: Features,
    pub utf8: bool,
    /// State that this gateway does not follow (NOTIFY, CONTEXT, UIDONLY): IDLE is left to the
    /// server.
    pub foreign: bool,
    /// A search result is kept for `$` (RFC 5182).
    pub saved_result: bool,
    pub selected: Option<Box<Selected>>,
    /// The pause for which IDLE is left to the server.
    pub pause: Option<Box<Pause>>,
}

/// The selected mailbox.
#[derive(Debug, Clone, Default)]
pub(super) struct Selected {
    /// As it is written on the wire, but without quotes.
    pub name: Vec<u8>,
    /// EXAMINE, not SELECT.
    pub examined: bool,
    /// The client has renamed something since: this may be its old name.
    pub renamed: bool,
    pub uidvalidity: Option<UidValidity>,
    /// Of the last SELECT.
    pub uidnext: u32,
    pub highestmodseq: Option<ModSeq>,
    pub keywords: Keywords,
    /// How many messages the server has said that there are: client and server know the same.
    pub count: Option<u32>,
}

impl Selected {
    /// Takes in what an untagged response says of how many messages there are.
    pub fn follow(&mut self, untagged: &Untagged<'_>) {
        let mut numbers = Numbers::counted(self.count);
        numbers.follow(untagged);
        self.count = numbers.count();
    }

    /// Takes in what a status response says of the mailbox.
    pub fn note(&mut self, code: &Code<'_>) {
        match code {
            Code::UidValidity(uidvalidity) => self.uidvalidity = Some(*uidvalidity),
            Code::UidNext(uidnext) => self.uidnext = *uidnext,
            Code::HighestModSeq(modseq) => self.highestmodseq = Some(*modseq),
            Code::PermanentFlags(list) => self.keywords.permanent = Some(permanent(list)),
            _ => {}
        }
    }
}

/// A list of flags as it is on the wire; what is no flag (`\*`) is left out.
pub(super) fn flags(list: &[&[u8]]) -> Flags {
    Flags::sift(list.iter().filter_map(|flag| std::str::from_utf8(flag).ok())).0
}

pub(super) fn permanent(list: &[&[u8]]) -> PermanentFlags {
    PermanentFlags { flags: flags(list), any: list.contains(&b"\\*".as_slice()) }
}

/// A question of the gateway's own was not answered as it must be: IDLE is left to the server for a
/// while.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pause {
    /// So many in a row, this one included.
    number: u32,
    until: Instant,
}

/// The first pause, which doubles, and the longest.
const PAUSES: (Duration, Duration) = (Duration::from_secs(15), Duration::from_secs(3600));

impl Pause {
    fn after(before: Option<&Self>, now: Instant) -> Self {
        // A pause that ended long ago says nothing of the server now.
        let number = before.filter(|before| now < before.until + PAUSES.1).map_or(0, |before| before.number);
        let pause = PAUSES.0.saturating_mul(1 << number.min(16)).min(PAUSES.1);
        Self { number: number + 1, until: now + pause }
    }
}

impl Facts {
    /// Leaves IDLE to the server for a while, each time for longer.
    pub fn leave_to_server(&mut self, now: Instant) {
        self.pause = Some(Box::new(Pause::after(self.pause.as_deref(), now)));
    }

    /// How long IDLE is left to the server; `None`: it is not, or no longer.
    pub fn left_to_server_until(&self, now: Instant) -> Option<Instant> {
        self.pause.as_ref().map(|pause| pause.until).filter(|until| now < *until)
    }

    /// Takes in a NAMESPACE response, which may be a part of what the server has to say.
    pub fn add_namespaces(&mut self, told: &Namespaces) {
        match &mut self.namespaces {
            Some(known) => known.unite(told.clone()),
            None => self.namespaces = Some(Box::new(told.clone())),
        }
    }

    /// The path of the selected mailbox, if it can be told.
    pub fn path(&self, names: &UserNames) -> Option<MailboxPath> {
        let selected = self.selected.as_ref().filter(|selected| !selected.renamed)?;
        self.namespaces.as_ref()?.path(&selected.name, self.utf8, self.user.as_ref()?, names)
    }

    /// Notes what the server says it has enabled (RFC 5161 3.2).
    pub fn enable(&mut self, list: &[u8]) {
        for word in words(list) {
            let word = String::from_utf8_lossy(word).to_ascii_uppercase();
            match word.as_str() {
                "CONDSTORE" => self.features.condstore = true,
                // RFC 7162 3.2.3: enabling QRESYNC enables CONDSTORE.
                "QRESYNC" => (self.features.condstore, self.features.qresync) = (true, true),
                "IMAP4REV2" => (self.features.rev2, self.utf8) = (true, true),
                "UTF8=ACCEPT" => self.utf8 = true,
                "UIDONLY" => self.foreign = true,
                _ => {}
            }
            if !self.enabled.iter().any(|known| **known == *word) {
                self.enabled.push(word.into());
            }
        }
    }

    /// Whether the gateway can log in on the client's behalf, and whether what the client has set
    /// up can be set up again.
    pub fn can_reenter(&self, rules: &Rules) -> bool {
        let admitted = match &rules.reentry {
            Reentry::Never => false,
            Reentry::Credentials => self.login.is_some(),
            Reentry::MasterUser(_) => self.written_user.is_some(),
        };
        admitted && self.selected.as_ref().is_some_and(|selected| !selected.renamed) && !self.foreign && !self.saved_result
    }
}
