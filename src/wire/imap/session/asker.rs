//! What the gateway itself asks the server, and what the answers say.
//!
//! Questions are only asked while no command of the client is relayed, so every response is an
//! answer to one of them or news of the mailbox. An [`Asker`] sends questions, takes the server's
//! responses in one by one, and says of each what whoever asked has to do ([`Outcome`]). Once all
//! questions are answered it gives the [`Answers`].

use std::borrow::Cow;
use std::collections::VecDeque;

use roaring::RoaringBitmap;

use super::common::Common;
use super::facts::Facts;
use super::question::Question;
use crate::mail::flags::Flags;
use crate::mail::path::MailboxPath;
use crate::mail::rights::Rights;
use crate::mail::uid::{ModSeq, Uid, UidValidity};
use crate::wire::imap::capability::Offers;
use crate::wire::imap::framing::Piece;
use crate::wire::imap::namespace::Namespaces;
use crate::wire::imap::numbers::{Listing, Numbers};
use crate::wire::imap::response::{Code, Esearch, Response, Status, Untagged, is_temporary};
use crate::wire::imap::write;

/// Flags that come with the answers are kept up to so many bytes: those of a million messages, say.
pub(super) const NEWS_LIMIT: usize = 64 * 1024 * 1024;
/// An answer may be so long: a list of all UIDs of a very large mailbox without ESEARCH.
const ANSWER_LIMIT: usize = 64 * 1024 * 1024;
const TOO_LONG: &str = "[UNAVAILABLE] The mail server's answer is too long";
pub(super) const TOO_MUCH: &str = "[UNAVAILABLE] The mail server has too much to say";
/// No mailbox has more messages: `1:4294967295` is short to say, and would be long to tell a
/// client.
const MESSAGES: u64 = 10_000_000;

/// Questions on their way, and what has been learned.
#[derive(Debug)]
pub(super) struct Asker {
    /// Those whose tagged response has not come, each with the number in its tag.
    pending: VecDeque<(u32, Question)>,
    rights: RightsQuestion,
    /// The server's numbers are not the client's: flags are kept, to be told in the client's
    /// numbers.
    keeps_flags: bool,
    /// A response that comes in pieces, as far as it has come.
    partial: Vec<u8>,
    /// MODSEQ of the message whose flags come in another response.
    lone_modseq: Option<(Uid, ModSeq)>,
    answers: Answers,
}

/// Whether MYRIGHTS is asked for, which comes last: some servers answer it before what was asked
/// before (Dovecot).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum RightsQuestion {
    No,
    /// Once all else is answered.
    Later,
    Asked,
    /// It was answered under the very name that was asked about.
    Named,
}

/// What the server has answered.
#[derive(Debug)]
pub(super) struct Answers {
    /// What the server's sequence numbers mean, followed as it speaks; unknown after a new SELECT
    /// until it is asked.
    pub numbers: Numbers,
    /// How far it has told the UIDs.
    pub listing: Listing,
    /// The mailbox was selected anew: the server takes what it shows then for told, flags and all.
    pub selected_anew: bool,
    pub flags: Vec<(Uid, Flags, Option<ModSeq>)>,
    pub recent: Option<u32>,
    pub uidnext: u32,
    pub uidvalidity: Option<UidValidity>,
    /// Up to which modification sequence the server says that it has told everything on this
    /// connection.
    pub highestmodseq: Option<ModSeq>,
    /// The first question that was refused, and whether it may be answered later (RFC 5530).
    pub refused: Option<(Question, bool)>,
    /// What was said of the user's rights, where they were asked for.
    pub rights: Option<RightsReport>,
}

/// The user's rights on a mailbox, as the server was asked for them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct RightsReport {
    pub mailbox: MailboxPath,
    pub answer: RightsAnswer,
    /// They came into doubt after they had been asked for: the answer does not settle that.
    pub is_outdated: bool,
}

/// What the server says of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RightsAnswer {
    Rights(Rights),
    /// NO: for this user there is no such mailbox.
    Denied,
    /// It may say so later.
    NotNow,
}

/// What a response means to whoever asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    /// Nothing that concerns the caller.
    Nothing,
    /// News of the mailbox, or of the session.
    News,
    /// The server has begun to idle.
    Idles,
    /// All questions are answered.
    Done,
    /// The server says more than any mailbox has to say: why the session ends.
    TooMuch(&'static str),
}

impl Asker {
    /// Sends questions, all at once. `numbers`: what the server's numbers mean, as far as that is
    /// known.
    pub fn start(
        common: &mut Common,
        out: &mut Vec<u8>,
        numbers: Numbers,
        questions: impl IntoIterator<Item = Question>,
    ) -> Box<Self> {
        let mut asker = Self {
            pending: VecDeque::new(),
            rights: RightsQuestion::No,
            keeps_flags: false,
            partial: Vec::new(),
            lone_modseq: None,
            answers: Answers {
                numbers,
                listing: Listing::Missing,
                selected_anew: false,
                flags: Vec::new(),
                recent: None,
                uidnext: 0,
                uidvalidity: None,
                highestmodseq: None,
                refused: None,
                rights: None,
            },
        };
        for question in questions {
            asker.answers.selected_anew |= question == Question::Select;
            let serial = if question == Question::Greeting { common.serial } else { common.next_serial() };
            question.write(out, serial, common);
            asker.pending.push_back((serial, question));
        }
        Box::new(asker)
    }

    /// Keeps the flags that the server tells: its numbers are not the client's.
    pub fn keeping_flags(mut self: Box<Self>) -> Box<Self> {
        self.keeps_flags = true;
        self
    }

    /// Asks for the user's rights on this mailbox too, after everything else; `None`: does not.
    pub fn with_rights(mut self: Box<Self>, common: &mut Common, out: &mut Vec<u8>, of: Option<MailboxPath>) -> Box<Self> {
        if let Some(mailbox) = of {
            self.answers.rights = Some(RightsReport { mailbox, answer: RightsAnswer::NotNow, is_outdated: false });
            self.rights = RightsQuestion::Later;
            self.is_answered(common, out);
        }
        self
    }

    /// Whether no answer is still to come. Asks for rights once all else is answered.
    fn is_answered(&mut self, common: &mut Common, out: &mut Vec<u8>) -> bool {
        if self.pending.is_empty() && self.rights == RightsQuestion::Later {
            self.rights = RightsQuestion::Asked;
            let serial = common.next_serial();
            Question::MyRights.write(out, serial, common);
            self.pending.push_back((serial, Question::MyRights));
        }
        self.pending.is_empty()
    }

    /// The rights have come into doubt. Whether the question for them, still to come, settles that.
    pub fn doubt_rights(&mut self) -> bool {
        if self.rights == RightsQuestion::Later {
            return true;
        }
        if let Some(rights) = &mut self.answers.rights {
            rights.is_outdated = true;
        }
        false
    }

    /// Whether SELECT is among the questions.
    pub fn selects_anew(&self) -> bool {
        self.answers.selected_anew
    }

    /// The answers so far: all, or all that will come.
    pub fn finish(self) -> Answers {
        self.answers
    }

    /// Puts a response together, which may come in pieces. `Ok(None)`: it goes on.
    pub fn gather<'a>(&mut self, piece: &Piece<'a>) -> Result<Option<Cow<'a, [u8]>>, &'static str> {
        if piece.first && piece.last {
            return Ok(Some(Cow::Borrowed(piece.bytes)));
        }
        if self.partial.len() + piece.bytes.len() > ANSWER_LIMIT {
            return Err(TOO_LONG);
        }
        self.partial.extend_from_slice(piece.bytes);
        Ok(piece.last.then(|| Cow::Owned(std::mem::take(&mut self.partial))))
    }

    /// Takes one response in.
    pub fn hear(&mut self, common: &mut Common, out: &mut Vec<u8>, response: &Response<'_>, raw: &[u8]) -> Outcome {
        match response {
            Response::Continuation { .. } => match self.pending.front() {
                Some((_, Question::Idle)) => Outcome::Idles,
                Some((_, Question::Login)) => {
                    // The go-ahead of AUTHENTICATE where the server takes no initial response. A
                    // lone star cancels what was not begun by us.
                    let message = common.plain_login().map(|(authzid, credentials)| write::sasl_plain(authzid, credentials));
                    out.extend_from_slice(message.as_deref().map_or(b"*", |message| message.as_bytes()));
                    out.extend_from_slice(b"\r\n");
                    Outcome::Nothing
                }
                _ => Outcome::Nothing,
            },
            Response::Tagged { tag, status, code, .. } => {
                let is_ours = |(serial, _): &&(u32, Question)| *tag == format!("mailpush{serial}").as_bytes();
                if self.pending.front().filter(is_ours).is_none() {
                    return Outcome::Nothing;
                }
                let Some((_, question)) = self.pending.pop_front() else { return Outcome::Nothing };
                self.end(question, *status, code.as_ref());
                if self.is_answered(common, out) { Outcome::Done } else { Outcome::Nothing }
            }
            Response::Untagged(untagged) => self.hear_untagged(&mut common.facts, untagged, raw),
            Response::Other => Outcome::Nothing,
        }
    }

    /// A question's tagged response.
    fn end(&mut self, question: Question, status: Status, code: Option<&Code<'_>>) {
        if question == Question::MyRights {
            if let Some(rights) = &mut self.answers.rights {
                match status {
                    Status::Ok => {}
                    Status::No if !is_temporary(code) => rights.answer = RightsAnswer::Denied,
                    // It offers ACL, or would not have been asked: BAD is no answer (RFC 4314 3.5).
                    _ => rights.answer = RightsAnswer::NotNow,
                }
            }
        } else if status != Status::Ok {
            self.answers.refused.get_or_insert((question, is_temporary(code)));
        }
    }

    fn hear_untagged(&mut self, facts: &mut Facts, untagged: &Untagged<'_>, raw: &[u8]) -> Outcome {
        match untagged {
            // The connection is about to close; that is when it matters.
            Untagged::Status { status: Status::Bye, .. } => return Outcome::Nothing,
            Untagged::Status { status, .. } if matches!(self.pending.front(), Some((_, Question::Greeting))) => {
                self.pending.pop_front();
                if *status != Status::Ok {
                    self.answers.refused.get_or_insert((Question::Greeting, true));
                }
                return if self.pending.is_empty() { Outcome::Done } else { Outcome::Nothing };
            }
            Untagged::Namespace(namespaces) => facts.add_namespaces(namespaces),
            Untagged::List(list) if self.asks(&Question::Delimiter) => {
                // The name that stands for the root is empty; of a server that names it otherwise
                // the first line counts.
                if list.name.is_empty() || facts.namespaces.is_none() {
                    facts.namespaces = Some(Box::new(Namespaces::personal_only(list.delimiter)));
                }
            }
            Untagged::Search(uids) if self.asks(&Question::Uids) => return self.hear_uids(uids.clone()),
            // A search that finds nothing has no ALL.
            Untagged::Esearch(found) if self.is_answered_by(found) => {
                return self.hear_uids(found.all.clone().unwrap_or_default());
            }
            // It answers another search, and is no news.
            Untagged::Esearch(_) if self.asks(&Question::Uids) => {}
            Untagged::Capability(list) => {
                // One answer may have several lines.
                let known = if self.asks(&Question::Capability) { facts.offers } else { Offers::default() };
                (facts.offers, facts.offers_are_known) = (known.with(list), true);
            }
            Untagged::MyRights(mine) if self.asks(&Question::MyRights) => {
                let is_named = facts.selected.as_ref().is_some_and(|selected| is_same_name(&selected.name, &mine.mailbox));
                self.hear_rights(mine.rights, is_named);
            }
            Untagged::Enabled(_) => {}
            // It cannot be read, and the client has asked for nothing.
            Untagged::Other if self.asks(&Question::MyRights) && is_my_rights(raw) => {}
            _ => return self.follow(untagged),
        }
        Outcome::Nothing
    }

    fn asks(&self, question: &Question) -> bool {
        self.pending.iter().any(|(_, asked)| asked == question)
    }

    /// Whether it is the answer to our own question for UIDs, and not to another's (RFC 4731 3.2,
    /// RFC 5267).
    fn is_answered_by(&self, found: &Esearch<'_>) -> bool {
        let is_ours = |(serial, question): &(u32, Question)| {
            let tag = format!("mailpush{serial}");
            *question == Question::Uids && found.tag.as_deref().is_none_or(|told| told == tag.as_bytes())
        };
        found.uid && self.pending.iter().any(is_ours)
    }

    fn hear_uids(&mut self, uids: RoaringBitmap) -> Outcome {
        if uids.len() > MESSAGES {
            return Outcome::TooMuch(TOO_LONG);
        }
        self.answers.listing.add(&mut self.answers.numbers, uids);
        Outcome::Nothing
    }

    /// A server may say it more than once, and of other mailboxes: the last word of the mailbox
    /// asked about counts. One that spells the name in another way is believed where nothing better
    /// comes.
    fn hear_rights(&mut self, rights: Rights, is_named: bool) {
        if let Some(told) = &mut self.answers.rights
            && (is_named || self.rights != RightsQuestion::Named)
        {
            told.answer = RightsAnswer::Rights(rights);
            if is_named {
                self.rights = RightsQuestion::Named;
            }
        }
    }

    /// News: keeps the meaning of the server's numbers true.
    fn follow(&mut self, untagged: &Untagged<'_>) -> Outcome {
        let answers = &mut self.answers;
        if matches!((untagged, self.pending.front()), (Untagged::Exists(_), Some((_, Question::Select)))) {
            // A fresh view: nothing is known of it but its size.
            answers.numbers.forget();
        }
        if answers.numbers.follow(untagged) {
            answers.listing.moved();
        }
        match untagged {
            Untagged::Recent(count) => answers.recent = Some(*count),
            Untagged::Status { code: Some(Code::UidNext(uidnext)), .. } => answers.uidnext = *uidnext,
            Untagged::Status { code: Some(Code::UidValidity(uidvalidity)), .. } => answers.uidvalidity = Some(*uidvalidity),
            Untagged::Status { code: Some(Code::HighestModSeq(modseq)), .. } => answers.highestmodseq = Some(*modseq),
            Untagged::Fetch(fetch) if self.keeps_flags => {
                if let Some(uid) = fetch.uid.or_else(|| Uid::new(answers.numbers.uid(fetch.seq)?)) {
                    self.hear_flags(uid, fetch.flags.as_ref(), fetch.modseq);
                }
            }
            _ => {}
        }
        let kept = self.answers.flags.len() * size_of::<(Uid, Flags, Option<ModSeq>)>();
        if kept > NEWS_LIMIT { Outcome::TooMuch(TOO_MUCH) } else { Outcome::News }
    }

    /// What is said of one message may come in several responses, one behind the other.
    fn hear_flags(&mut self, uid: Uid, flags: Option<&Flags>, modseq: Option<ModSeq>) {
        let kept = &mut self.answers.flags;
        match (flags, modseq) {
            (Some(flags), None) => {
                let lone = self.lone_modseq.take().filter(|(of, _)| *of == uid).map(|(_, modseq)| modseq);
                kept.push((uid, flags.clone(), lone));
            }
            (Some(flags), modseq) => kept.push((uid, flags.clone(), modseq)),
            (None, Some(modseq)) => match kept.last_mut() {
                Some((of, _, lacking @ None)) if *of == uid => *lacking = Some(modseq),
                _ => self.lone_modseq = Some((uid, modseq)),
            },
            (None, None) => {}
        }
    }
}

/// Whether both mean the same mailbox: INBOX is written in any case (RFC 9051 5.1).
fn is_same_name(one: &[u8], other: &[u8]) -> bool {
    one == other || (one.eq_ignore_ascii_case(b"INBOX") && other.eq_ignore_ascii_case(b"INBOX"))
}

fn is_my_rights(line: &[u8]) -> bool {
    line.get(..b"* MYRIGHTS ".len()).is_some_and(|start| start.eq_ignore_ascii_case(b"* MYRIGHTS "))
}
