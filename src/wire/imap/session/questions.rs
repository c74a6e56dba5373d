//! What the gateway itself asks the server while the client idles, and what the answers say.
//!
//! Questions are only asked while no command of the client is relayed, so every response is an answer to one of them or
//! news of the mailbox.

use std::collections::VecDeque;
use std::io::Write;
use std::time::Instant;

use roaring::RoaringBitmap;

use super::facts::{self, Login};
use super::idle::Why;
use super::rights::Told;
use super::{Reentry, Session};
use crate::mail::flags::Flags;
use crate::mail::path::MailboxPath;
use crate::mail::rights::Rights;
use crate::mail::uid::{ModSeq, Uid, UidValidity};
use crate::mail::view::{KeywordList, KeywordNews, Tell};
use crate::wire::imap::capability::Offers;
use crate::wire::imap::credentials::Credentials;
use crate::wire::imap::framing::Piece;
use crate::wire::imap::namespace::Namespaces;
use crate::wire::imap::numbers::{Listing, Numbers};
use crate::wire::imap::response::{self, Code, Esearch, Response, Status, Untagged};
use crate::wire::imap::{set, write};

/// News that come with the answers are kept up to so many bytes: flags of a million messages, say.
const NEWS_LIMIT: usize = 64 * 1024 * 1024;
/// A list of UIDs to ask for is written out up to this length.
const LONGEST_SET: usize = 4096;
/// An answer may be so long: a list of all UIDs of a very large mailbox without ESEARCH.
const ANSWER_LIMIT: usize = 64 * 1024 * 1024;
/// No mailbox has more messages: `1:4294967295` is short to say, and would be long to tell a client.
const MESSAGES: u64 = 10_000_000;

/// One thing to ask.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Question {
    /// The greeting of a new connection; nothing is sent.
    Greeting,
    Login,
    Enable,
    Capability,
    Namespace,
    /// Where there is no NAMESPACE: the hierarchy delimiter.
    Delimiter,
    /// Lets the server tell what is new.
    Noop,
    /// SELECT or EXAMINE again: a fresh view, with UIDNEXT. Expunges nothing.
    Select,
    /// All UIDs.
    Uids,
    Flags(RoaringBitmap),
    /// The flags of all messages, or of those changed since.
    AllFlags(Option<ModSeq>),
    /// What the user may do with the selected mailbox.
    MyRights,
    Idle,
}

/// What becomes of news that come with the answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum News {
    /// The client's numbers mean what the server's mean: passed on as it is.
    Mirrored,
    /// The difference is reckoned and told by the gateway.
    Swallowed,
}

/// Questions on their way, and what has been learned.
#[derive(Debug)]
pub(super) struct Questions {
    waiting: VecDeque<(u32, Question)>,
    pub news: News,
    /// The mailbox is selected anew: the server takes what it shows then for told, flags and all.
    pub fresh: bool,
    /// When the server counts as gone.
    pub due: Instant,
    /// What the server's sequence numbers mean, kept true as it speaks; unknown after a new SELECT until it is asked.
    pub numbers: Numbers,
    /// How far it has told the UIDs.
    pub listing: Listing,
    pub flags: Vec<(Uid, Flags, Option<ModSeq>)>,
    /// MODSEQ of the message whose flags come in another response.
    lone_modseq: Option<(Uid, ModSeq)>,
    /// Mirrored lines that wait until the client has been told that it idles.
    pub lines: Vec<u8>,
    pub recent: Option<u32>,
    pub uidnext: u32,
    pub uidvalidity: Option<UidValidity>,
    /// Up to which modification sequence the server says that it has told everything on this connection.
    pub highestmodseq: Option<ModSeq>,
    pub refused: Option<(Question, bool)>,
    /// The mailbox whose rights are asked for, and what was said of them.
    pub rights: Option<(MailboxPath, Option<Told>)>,
    rights_asked: bool,
    /// They were told under the very name that was asked about.
    rights_are_of_it: bool,
}

impl Session {
    /// Sends questions, all at once; [`Session::answered`] follows.
    pub(super) fn ask(&mut self, due: Instant, news: News, numbers: Numbers, questions: impl IntoIterator<Item = Question>) {
        let mut waiting = VecDeque::new();
        let (mut fresh, mut rights) = (false, None);
        for question in questions {
            fresh |= question == Question::Select;
            if question == Question::MyRights {
                rights = self.idle.as_ref().and_then(|idle| Some((idle.path.clone()?, None)));
                continue;
            }
            if question != Question::Greeting {
                self.serial = self.serial.wrapping_add(1);
                self.send(self.serial, &question);
            }
            waiting.push_back((self.serial, question));
        }
        self.questions = Some(Box::new(Questions { waiting, fresh, rights, ..Questions::new(due, news, numbers) }));
        self.ask_rights_at_last();
    }

    /// Asks for rights, if that is wished and not done, once all else is answered: some servers answer this before what was
    /// asked before (Dovecot). Whether an answer is to come.
    fn ask_rights_at_last(&mut self) -> bool {
        let Some(questions) = &mut self.questions else { return false };
        if questions.rights.is_none() || questions.rights_asked || !questions.waiting.is_empty() {
            return false;
        }
        questions.rights_asked = true;
        self.serial = self.serial.wrapping_add(1);
        questions.waiting.push_back((self.serial, Question::MyRights));
        self.send(self.serial, &Question::MyRights);
        true
    }

    pub(super) fn send(&mut self, serial: u32, question: &Question) {
        let out = &mut self.to_upstream;
        // RFC 7162 3.1: without asking for it, it may not be told, and then the client could not be told either.
        let flags: &[u8] = if self.facts.features.fetch_has_modseq() { b" (FLAGS MODSEQ)" } else { b" (FLAGS)" };
        let tag = format!("mailpush{serial} ");
        match question {
            Question::Greeting => return,
            _ => out.extend_from_slice(tag.as_bytes()),
        }
        match question {
            Question::Greeting => {}
            Question::Login => return self.send_login(),
            Question::Enable => {
                out.extend_from_slice(b"ENABLE");
                for capability in &self.facts.enabled {
                    out.push(b' ');
                    out.extend_from_slice(capability.as_bytes());
                }
            }
            Question::Capability => out.extend_from_slice(b"CAPABILITY"),
            Question::Namespace => out.extend_from_slice(b"NAMESPACE"),
            Question::Delimiter => out.extend_from_slice(b"LIST \"\" \"\""),
            Question::Noop => out.extend_from_slice(b"NOOP"),
            Question::Select => {
                if let Some(selected) = &self.facts.selected {
                    out.extend_from_slice(if selected.examined { b"EXAMINE " } else { b"SELECT " });
                    // It came over the wire as a string; where that needs a literal, the server refuses this one.
                    let _ = write::astring(out, &selected.name, self.facts.utf8);
                    if self.facts.features.condstore && !self.facts.features.qresync {
                        out.extend_from_slice(b" (CONDSTORE)");
                    }
                }
            }
            // ALL and not a range: `1:*` is an error to some servers where the mailbox is empty.
            Question::Uids if self.facts.offers.esearch => out.extend_from_slice(b"UID SEARCH RETURN (ALL) ALL"),
            Question::Uids => out.extend_from_slice(b"UID SEARCH ALL"),
            Question::Flags(uids) => {
                out.extend_from_slice(b"UID FETCH ");
                let start = out.len();
                set::write(out, uids);
                if out.len() - start > LONGEST_SET {
                    // Servers bound their lines: too many are asked for, and told are those that are held.
                    out.truncate(start);
                    let _ = write!(out, "{}:{}", uids.min().unwrap_or(1), uids.max().unwrap_or(1));
                }
                out.extend_from_slice(flags);
            }
            Question::AllFlags(None) => {
                out.extend_from_slice(b"UID FETCH 1:*");
                out.extend_from_slice(flags);
            }
            Question::AllFlags(Some(since)) => {
                out.extend_from_slice(format!("UID FETCH 1:* (FLAGS) (CHANGEDSINCE {})", since.0).as_bytes());
            }
            Question::MyRights => {
                out.extend_from_slice(b"MYRIGHTS ");
                let name = self.facts.selected.as_ref().map(|selected| selected.name.as_slice()).unwrap_or_default();
                // As with SELECT.
                let _ = write::astring(out, name, self.facts.utf8);
            }
            Question::Idle => out.extend_from_slice(b"IDLE"),
        }
        out.extend_from_slice(b"\r\n");
    }

    /// What to log in with, and the authorization identity that goes along.
    fn plain(&self) -> Option<(&str, &Credentials)> {
        match (&self.rules.reentry, self.facts.login.as_deref()) {
            (Reentry::MasterUser(master), _) => Some((self.facts.written_user.as_deref()?, master)),
            (Reentry::Credentials, Some(Login::Plain(authzid, credentials))) => Some((authzid, credentials)),
            _ => None,
        }
    }

    fn send_login(&mut self) {
        if let Some((authzid, credentials)) = self.plain() {
            let message = self.facts.offers.sasl_ir.then(|| write::sasl_plain(authzid, credentials));
            self.to_upstream.extend_from_slice(b"AUTHENTICATE PLAIN");
            if let Some(message) = message {
                self.to_upstream.push(b' ');
                self.to_upstream.extend_from_slice(message.as_bytes());
            }
        } else if let Some(Login::Login(credentials)) = self.facts.login.as_deref() {
            self.to_upstream.extend_from_slice(b"LOGIN ");
            // They came as strings that need no literal, or were not kept.
            let _ = write::astring(&mut self.to_upstream, credentials.user.as_bytes(), false);
            self.to_upstream.push(b' ');
            let _ = write::astring(&mut self.to_upstream, credentials.password.as_bytes(), false);
        }
        self.to_upstream.extend_from_slice(b"\r\n");
    }

    /// One piece of what the server says while something of the gateway's own is asked.
    pub(super) fn read_answer(&mut self, now: Instant, piece: &Piece<'_>) {
        if piece.first && piece.last {
            self.answer(now, piece.bytes);
            return;
        }
        if self.response.len() + piece.bytes.len() > ANSWER_LIMIT {
            self.close(b"* BYE [UNAVAILABLE] The mail server's answer is too long\r\n", "upstream_nonsense");
            return;
        }
        self.response.extend_from_slice(piece.bytes);
        if piece.last {
            let whole = std::mem::take(&mut self.response);
            self.answer(now, &whole);
        }
    }

    /// What the server says unasked while the gateway speaks for it: taken as a hint, its numbers kept true.
    pub(super) fn read_unasked(&mut self, now: Instant, piece: &Piece<'_>) {
        let Response::Untagged(untagged) = response::parse(piece.bytes) else { return };
        // The server will not say it again.
        let is_news = piece.first && piece.last && self.tell_keywords(&untagged, piece.bytes);
        let asks_first = self.withholds();
        let Some(idle) = self.idle.as_mut().filter(|_| piece.first) else { return };
        let mut heard = Questions::new(now, News::Swallowed, std::mem::take(&mut idle.numbers));
        let count = heard.numbers.count();
        heard.follow(&untagged);
        // Said again, it is no news: a server that says so at every answer would be asked without end.
        let is_known = matches!(untagged, Untagged::Exists(told) if count == Some(told));
        idle.numbers = std::mem::take(&mut heard.numbers);
        if asks_first {
            // The server has told it, so it is only to be had by asking.
            idle.ask_again(&heard);
            if is_news || !heard.flags.is_empty() {
                return self.level(now, Why::Refresh);
            }
        } else {
            let tell = idle.view.as_mut().map(|view| view.tell_flags(&heard.flags)).unwrap_or_default();
            self.tell(&tell);
        }
        let moves = matches!(untagged, Untagged::Expunge(_) | Untagged::Exists(_) | Untagged::Vanished { earlier: false, .. });
        if moves && !is_known {
            self.level(now, Why::Refresh);
        }
    }

    fn answer(&mut self, now: Instant, raw: &[u8]) {
        let parsed = response::parse(raw);
        let Some(questions) = &mut self.questions else { return };
        match parsed {
            Response::Continuation { .. } => match questions.waiting.front() {
                Some((_, Question::Idle)) => self.upstream_idles(now),
                Some((_, Question::Login)) => self.send_plain_line(),
                _ => {}
            },
            Response::Tagged { tag, status, code, .. } => {
                let ours = questions.waiting.front().is_some_and(|(serial, _)| tag == format!("mailpush{serial}").as_bytes());
                if !ours {
                    return;
                }
                let Some((_, question)) = questions.waiting.pop_front() else { return };
                if question == Question::MyRights {
                    if let Some((_, told)) = &mut questions.rights {
                        *told = Some(Told::at_end(*told, status, code.as_ref()));
                    }
                } else if status != Status::Ok {
                    // RFC 5530: it may be well again later.
                    let passing = matches!(code, Some(Code::Other(code)) if code.eq_ignore_ascii_case(b"UNAVAILABLE"));
                    questions.refused.get_or_insert((question, passing));
                }
                if questions.waiting.is_empty() && !self.ask_rights_at_last() {
                    self.finish_questions(now);
                }
            }
            Response::Untagged(untagged) => self.learn(now, &untagged, raw),
            Response::Other => {}
        }
    }

    fn finish_questions(&mut self, now: Instant) {
        if let Some(questions) = self.questions.take() {
            self.answered(now, *questions);
        }
    }

    /// The go-ahead of AUTHENTICATE where the server takes no initial response.
    fn send_plain_line(&mut self) {
        // A lone star cancels what was not begun by us.
        let message = self.plain().map(|(authzid, credentials)| write::sasl_plain(authzid, credentials));
        self.to_upstream.extend_from_slice(message.as_deref().map_or(b"*", |message| message.as_bytes()));
        self.to_upstream.extend_from_slice(b"\r\n");
    }

    fn learn(&mut self, now: Instant, untagged: &Untagged<'_>, raw: &[u8]) {
        let Some(questions) = &mut self.questions else { return };
        let greeting = matches!(questions.waiting.front(), Some((_, Question::Greeting)));
        match untagged {
            // The connection is about to close; that is when it matters.
            Untagged::Status { status: Status::Bye, .. } => return,
            Untagged::Status { status, .. } if greeting => {
                questions.waiting.pop_front();
                if *status != Status::Ok {
                    questions.refused.get_or_insert((Question::Greeting, true));
                }
                if questions.waiting.is_empty() {
                    self.finish_questions(now);
                }
                return;
            }
            Untagged::Namespace(namespaces) => return self.facts.add_namespaces(namespaces),
            Untagged::List(list) if questions.asks(&Question::Delimiter) => {
                // The name that stands for the root is empty; of a server that names it otherwise the first line counts.
                if list.name.is_empty() || self.facts.namespaces.is_none() {
                    self.facts.namespaces = Some(Box::new(Namespaces::personal_only(list.delimiter)));
                }
                return;
            }
            Untagged::Search(uids) if questions.asks(&Question::Uids) => return self.learn_uids(uids.clone()),
            // Nothing found: no ALL.
            Untagged::Esearch(found) if questions.is_answered_by(found) => {
                return self.learn_uids(found.all.clone().unwrap_or_default());
            }
            // Another's, and no news.
            Untagged::Esearch(_) if questions.asks(&Question::Uids) => return,
            Untagged::Capability(list) => {
                // One answer may have several lines.
                let known = if questions.asks(&Question::Capability) { self.facts.offers } else { Offers::default() };
                self.facts.offers = known.with(list);
                self.facts.offers_are_known = true;
                return;
            }
            Untagged::MyRights(mine) if questions.asks(&Question::MyRights) => {
                let is_of_it = self.facts.selected.as_ref().is_some_and(|selected| is_same_name(&selected.name, &mine.mailbox));
                questions.hear_rights(mine.rights, is_of_it);
                return;
            }
            Untagged::Enabled(_) => return,
            // It cannot be read, and the client has asked for nothing.
            Untagged::Other if questions.asks(&Question::MyRights) && is_my_rights(raw) => return,
            _ => {}
        }
        questions.follow(untagged);
        let heard = questions.lines.len() + questions.flags.len() * size_of::<(Uid, Flags, Option<ModSeq>)>();
        if heard > NEWS_LIMIT {
            return self.close(b"* BYE [UNAVAILABLE] The mail server has too much to say\r\n", "upstream_nonsense");
        }
        match questions.news {
            News::Mirrored => self.mirror(untagged, raw),
            News::Swallowed => self.swallow(untagged, raw),
        }
    }

    fn learn_uids(&mut self, uids: RoaringBitmap) {
        if uids.len() > MESSAGES {
            return self.close(b"* BYE [UNAVAILABLE] The mail server's answer is too long\r\n", "upstream_nonsense");
        }
        if let Some(questions) = &mut self.questions {
            questions.listing.add(&mut questions.numbers, uids);
        }
    }

    /// The client knows what the server knows: it hears what the server says.
    fn mirror(&mut self, untagged: &Untagged<'_>, raw: &[u8]) {
        let told = self.idle.as_ref().is_some_and(|idle| idle.is_told());
        if let Some(selected) = self.facts.selected.as_deref_mut() {
            selected.follow(untagged);
            match untagged {
                Untagged::Flags(list) => selected.keywords.flags = facts::flags(list),
                Untagged::Status { code: Some(code), .. } => selected.note(code),
                _ => {}
            }
        }
        match &mut self.questions {
            Some(questions) if !told => questions.lines.extend_from_slice(raw),
            _ => self.to_client.extend_from_slice(raw),
        }
    }

    /// The gateway speaks for the server: what is not numbers is passed on where it is new, at once: whatever becomes of the
    /// question, the server will not say it again.
    fn swallow(&mut self, untagged: &Untagged<'_>, raw: &[u8]) {
        match untagged {
            Untagged::Status { code: Some(Code::Other(code)), .. } if code.eq_ignore_ascii_case(b"ALERT") => {
                self.to_client.extend_from_slice(raw);
            }
            _ => drop(self.tell_keywords(untagged, raw)),
        }
        if let (Untagged::Status { code: Some(code), .. }, Some(questions)) = (untagged, &mut self.questions) {
            questions.note(code);
        }
    }

    /// Takes a list of flags of the server's in and tells the client what is new of it; whether anything was.
    fn tell_keywords(&mut self, untagged: &Untagged<'_>, raw: &[u8]) -> bool {
        let list = match untagged {
            Untagged::Flags(list) => KeywordList::Flags(facts::flags(list)),
            Untagged::Status { code: Some(Code::PermanentFlags(list)), .. } => KeywordList::Permanent(facts::permanent(list)),
            _ => return false,
        };
        let Some(view) = self.idle.as_mut().and_then(|idle| idle.view.as_mut()) else { return false };
        let mut line = Vec::new();
        match view.merge_keywords(list) {
            KeywordNews::Nothing => return false,
            KeywordNews::ServerLine => line.extend_from_slice(raw),
            KeywordNews::List(Tell::Flags(flags)) => write::flags(&mut line, &flags),
            KeywordNews::List(Tell::PermanentFlags(permanent)) => {
                write::permanent_flags(&mut line, &permanent.flags, permanent.any);
            }
            KeywordNews::List(_) => {}
        }
        self.tell_line(&line);
        true
    }
}

fn is_my_rights(line: &[u8]) -> bool {
    line.get(..b"* MYRIGHTS ".len()).is_some_and(|start| start.eq_ignore_ascii_case(b"* MYRIGHTS "))
}

/// Whether both mean the same mailbox: INBOX is written in any case (RFC 9051 5.1).
fn is_same_name(one: &[u8], other: &[u8]) -> bool {
    one == other || (one.eq_ignore_ascii_case(b"INBOX") && other.eq_ignore_ascii_case(b"INBOX"))
}

impl Questions {
    fn new(due: Instant, news: News, numbers: Numbers) -> Self {
        Self {
            waiting: VecDeque::new(),
            news,
            fresh: false,
            due,
            numbers,
            listing: Listing::Missing,
            flags: Vec::new(),
            lone_modseq: None,
            lines: Vec::new(),
            recent: None,
            uidnext: 0,
            uidvalidity: None,
            highestmodseq: None,
            refused: None,
            rights: None,
            rights_asked: false,
            rights_are_of_it: false,
        }
    }

    /// Whether it is the answer to our own question for UIDs, and not to another's (RFC 4731 3.2, RFC 5267).
    fn is_answered_by(&self, found: &Esearch<'_>) -> bool {
        let is_ours = |(serial, question): &(u32, Question)| {
            let tag = format!("mailpush{serial}");
            *question == Question::Uids && found.tag.as_deref().is_none_or(|told| told == tag.as_bytes())
        };
        found.uid && self.waiting.iter().any(is_ours)
    }

    /// A server may say it more than once, and of other mailboxes: the last word of the mailbox asked about counts. One that
    /// spells the name in another way is believed where nothing better comes.
    fn hear_rights(&mut self, rights: Rights, is_of_it: bool) {
        if let Some((_, told)) = &mut self.rights
            && (is_of_it || !self.rights_are_of_it)
        {
            *told = Some(Told::Rights(rights));
            self.rights_are_of_it |= is_of_it;
        }
    }

    pub fn asks(&self, question: &Question) -> bool {
        self.waiting.iter().any(|(_, asked)| asked == question)
    }

    fn note(&mut self, code: &Code<'_>) {
        match code {
            Code::UidNext(uidnext) => self.uidnext = *uidnext,
            Code::UidValidity(uidvalidity) => self.uidvalidity = Some(*uidvalidity),
            Code::HighestModSeq(modseq) => self.highestmodseq = Some(*modseq),
            _ => {}
        }
    }

    /// Keeps the meaning of the server's numbers true.
    fn follow(&mut self, untagged: &Untagged<'_>) {
        if matches!((untagged, self.waiting.front()), (Untagged::Exists(_), Some((_, Question::Select)))) {
            // A fresh view: nothing is known of it but its size.
            self.numbers.forget();
        }
        if self.numbers.follow(untagged) {
            self.listing.moved();
        }
        match untagged {
            Untagged::Recent(count) => self.recent = Some(*count),
            // What is mirrored the client hears from the server itself.
            Untagged::Fetch(fetch) if self.news == News::Swallowed => {
                if let Some(uid) = fetch.uid.or_else(|| Uid::new(self.numbers.uid(fetch.seq)?)) {
                    self.hear_flags(uid, fetch.flags.as_ref(), fetch.modseq);
                }
            }
            _ => {}
        }
    }

    /// What is said of one message may come in several responses, one behind the other.
    fn hear_flags(&mut self, uid: Uid, flags: Option<&Flags>, modseq: Option<ModSeq>) {
        match (flags, modseq) {
            (Some(flags), None) => {
                let lone = self.lone_modseq.take().filter(|(of, _)| *of == uid).map(|(_, modseq)| modseq);
                self.flags.push((uid, flags.clone(), lone));
            }
            (Some(flags), modseq) => self.flags.push((uid, flags.clone(), modseq)),
            (None, Some(modseq)) => match self.flags.last_mut() {
                Some((of, _, lacking @ None)) if *of == uid => *lacking = Some(modseq),
                _ => self.lone_modseq = Some((uid, modseq)),
            },
            (None, None) => {}
        }
    }
}
