//! Commands on messages that change something: APPEND, STORE, COPY, MOVE, EXPUNGE; and those that
//! let a mailbox go.

use std::sync::Arc;

use imap_codec::imap_types::command::{CommandBody, StoreModifier};
use imap_codec::imap_types::extensions::binary::LiteralOrLiteral8;
use imap_codec::imap_types::flag::{Flag, StoreResponse, StoreType};
use imap_codec::imap_types::sequence::SequenceSet;

use super::grammar::{self, uid_set};
use super::mailboxes::name_of;
use super::select::{is_in, ranges};
use super::session::{Answer, Context, Session};
use super::view::write_flags_of;
use crate::dev::store::mailbox::Content;
use crate::dev::store::messages::{Arrival, FlagsBy, may_set};
use crate::dev::store::model::Refusal;
use crate::mail::{Flags, Uid, UserName};

const NOTHING_SELECTED: &str = "Select a mailbox first";

/// What STORE is to do.
struct StoreCommand {
    uid: bool,
    by: FlagsBy,
    flags: Flags,
    silent: bool,
    unchanged_since: Option<u64>,
}

/// The flags that a client may set; `\Recent` is none (RFC 3501 2.3.2).
fn flags_of(flags: &[Flag<'_>]) -> Flags {
    let texts: Vec<String> = flags.iter().map(ToString::to_string).collect();
    let texts = texts.iter().map(String::as_str).filter(|flag| !flag.eq_ignore_ascii_case("\\Recent"));
    Flags::sift(texts).0
}

impl Session {
    pub(super) fn on_messages(&mut self, context: &mut Context<'_>, user: &UserName, body: CommandBody<'_>) -> Option<Answer> {
        Some(match body {
            CommandBody::Append { mailbox, flags, date, message } => {
                let raw = match &message {
                    LiteralOrLiteral8::Literal(literal) => literal.as_ref().to_vec(),
                    LiteralOrLiteral8::Literal8(_) => return Some(Answer::no("There is no BINARY here").code("UNKNOWN-CTE")),
                };
                let now = context.stamp.unix_ms / 1_000;
                let seconds = date.map_or(now, |date| u64::try_from(date.as_ref().timestamp()).unwrap_or(0));
                let content = Arc::new(Content { raw, internaldate: seconds * 1_000 });
                self.append(context, user, &name_of(&mailbox), &flags_of(&flags), content)
            }
            CommandBody::Check => match self.selected {
                Some(_) => Answer::ok("All is in memory"),
                None => Answer::bad(NOTHING_SELECTED),
            },
            CommandBody::Unselect | CommandBody::Close if self.selected.is_none() => Answer::bad(NOTHING_SELECTED),
            CommandBody::Unselect => {
                self.selected = None;
                Answer::ok("Let go")
            }
            CommandBody::Close => {
                // RFC 3501 6.4.2: no error where nothing may be expunged.
                let _ = self.expunge(context, user, None);
                self.selected = None;
                Answer::ok("Closed")
            }
            CommandBody::Expunge => self.expunge(context, user, None),
            CommandBody::ExpungeUid { sequence_set } => self.expunge(context, user, Some(&sequence_set)),
            CommandBody::Fetch { sequence_set, macro_or_item_names, uid, modifiers } => {
                self.fetch(context, &sequence_set, macro_or_item_names, uid, &modifiers)
            }
            CommandBody::Search { charset, criteria, uid, .. } => self.search(context, charset, criteria, uid, None),
            CommandBody::Store { sequence_set, kind, response, flags, uid, modifiers } => {
                let by = match kind {
                    StoreType::Add => FlagsBy::Add,
                    StoreType::Remove => FlagsBy::Remove,
                    StoreType::Replace => FlagsBy::Replace,
                };
                let silent = response == StoreResponse::Silent;
                let unchanged = modifiers.iter().map(|StoreModifier::UnchangedSince(modseq)| *modseq).next();
                let how = StoreCommand { uid, by, flags: flags_of(&flags), silent, unchanged_since: unchanged };
                self.store(context, user, &sequence_set, &how)
            }
            CommandBody::Copy { sequence_set, mailbox, uid } => {
                self.copy(context, user, &sequence_set, &name_of(&mailbox), uid, false)
            }
            CommandBody::Move { sequence_set, mailbox, uid } => {
                self.copy(context, user, &sequence_set, &name_of(&mailbox), uid, true)
            }
            _ => return None,
        })
    }

    fn append(&mut self, context: &mut Context<'_>, user: &UserName, name: &str, flags: &Flags, content: Arc<Content>) -> Answer {
        let id = match context.model.find(user, name, "i") {
            Ok(id) => id,
            Err(Refusal::Nonexistent) => return Answer::no("There is no such mailbox").code("TRYCREATE"),
            Err(refusal) => return refusal.into(),
        };
        if content.raw.is_empty() {
            return Answer::no("There is no message");
        }
        let Some((rights, uidvalidity)) = context.model.mailbox(id).map(|mailbox| (mailbox.rights(user), mailbox.uidvalidity))
        else {
            return Refusal::Nonexistent.into();
        };
        let may_set = may_set(rights);
        let flags = flags.iter().filter(|flag| may_set(flag.as_str())).cloned().collect();
        match context.model.append(context.stamp, user, id, vec![(flags, content)], Arrival::Appended) {
            Ok(uids) => Answer::ok("Appended").code(format!("APPENDUID {} {}", uidvalidity.get(), uid_set(&uids))),
            Err(refusal) => refusal.into(),
        }
    }

    /// All `\Deleted` messages of the view, or those of them that are in `uids`.
    fn expunge(&mut self, context: &mut Context<'_>, user: &UserName, uids: Option<&SequenceSet>) -> Answer {
        let rights = self.rights(context);
        let Some(selected) = &self.selected else { return Answer::bad(NOTHING_SELECTED) };
        if selected.read_only {
            return Answer::no("The mailbox is read-only");
        }
        if !rights.has('e') {
            return Refusal::NoPerm.into();
        }
        let last = selected.told.last().map(|told| told.message.uid.get());
        let wanted = uids.map(|uids| ranges(uids, last));
        let Some(mailbox) = context.model.mailbox(selected.mailbox) else { return Refusal::Nonexistent.into() };
        let doomed = selected.told.iter().map(|told| told.message.uid).filter(|uid| {
            let named = wanted.as_ref().is_none_or(|wanted| is_in(wanted, uid.get()));
            named && mailbox.get(*uid).is_some_and(|message| message.flags.contains("\\Deleted"))
        });
        let doomed: Vec<Uid> = doomed.collect();
        context.model.expunge(context.stamp, user, selected.mailbox, &doomed);
        let answer = Answer::ok("Expunged");
        self.catch_up(context);
        match &self.selected {
            // RFC 7162 3.2.7: what is told with it is all there is up to here.
            Some(selected) if self.enabled.qresync => answer.code(format!("HIGHESTMODSEQ {}", selected.basis.highest)),
            _ => answer,
        }
    }

    fn store(&mut self, context: &mut Context<'_>, user: &UserName, set: &SequenceSet, how: &StoreCommand) -> Answer {
        let StoreCommand { uid, by, ref flags, silent, unchanged_since } = *how;
        let rights = self.rights(context);
        let Some(selected) = &self.selected else { return Answer::bad(NOTHING_SELECTED) };
        if selected.read_only {
            return Answer::no("The mailbox is read-only");
        }
        if unchanged_since.is_some() && !self.has_condstore() {
            return Answer::bad("There are no modification sequences here");
        }
        if !selected.has_all(set, uid) {
            return Answer::bad("There are not so many messages");
        }
        let may_set = may_set(rights);
        let any =
            flags.iter().any(|flag| may_set(flag.as_str())) || flags.is_empty() && "swt".chars().any(|right| rights.has(right));
        if !any {
            return Refusal::NoPerm.into();
        }
        self.enabled.condstore |= unchanged_since.is_some();
        let mut places = selected.places(set, uid);
        let Some(mailbox) = context.model.mailbox(selected.mailbox) else { return Refusal::Nonexistent.into() };
        let mut modified = Vec::new();
        places.retain(|at| {
            let now = mailbox.get(selected.told[*at].message.uid);
            let since = now.zip(unchanged_since).is_some_and(|(now, since)| now.modseq > since);
            if since {
                modified.push(*at);
            }
            now.is_some() && !since
        });
        let uids: Vec<Uid> = places.iter().map(|at| selected.told[*at].message.uid).collect();
        if let Err(refusal) = context.model.store(context.stamp, user, selected.mailbox, &uids, (by, flags), may_set) {
            return refusal.into();
        }
        self.catch_up(context);
        let enabled = self.enabled;
        let (Some(selected), out) = (&mut self.selected, &mut self.to_client) else { return Answer::bad(NOTHING_SELECTED) };
        if let Some(mailbox) = context.model.mailbox(selected.mailbox) {
            selected.write_new_keywords(out, mailbox, rights);
        }
        for at in places {
            let now = selected.now(&selected.told[at]).clone();
            let expected = {
                let before = &selected.told[at].message.flags;
                let stays = |flag: &str| by == FlagsBy::Add || by == FlagsBy::Remove && !flags.contains(flag);
                let kept = before.iter().filter(|flag| stays(flag.as_str()));
                let new = flags.iter().filter(|_| by != FlagsBy::Remove);
                kept.chain(new).cloned().collect::<Flags>()
            };
            let surprising = now.flags != expected;
            let new_modseq = now.modseq != selected.told[at].message.modseq;
            selected.told[at].message = now;
            // .SILENT: told only of what the client cannot know by itself (RFC 9051 6.4.6), such as
            // a new MODSEQ.
            if !silent || surprising {
                write_flags_of(out, at, &selected.told[at], enabled, uid);
            } else if enabled.condstore && new_modseq {
                let told = &selected.told[at].message;
                let line = format!("* {} FETCH (UID {} MODSEQ ({}))\r\n", at + 1, told.uid, told.modseq);
                out.extend_from_slice(line.as_bytes());
            }
        }
        if modified.is_empty() {
            return Answer::ok("Stored");
        }
        let number = |at: usize| if uid { selected.told[at].message.uid.get() } else { at as u32 + 1 };
        let modified = grammar::set(modified.into_iter().map(number));
        // RFC 7162 3.1.3: not a failure, but for those messages.
        Answer::ok("Some have changed since").code(format!("MODIFIED {modified}"))
    }

    fn copy(
        &mut self,
        context: &mut Context<'_>,
        user: &UserName,
        set: &SequenceSet,
        name: &str,
        uid: bool,
        and_expunge: bool,
    ) -> Answer {
        let rights = self.rights(context);
        let Some(selected) = &self.selected else { return Answer::bad(NOTHING_SELECTED) };
        if !selected.has_all(set, uid) {
            return Answer::bad("There are not so many messages");
        }
        if and_expunge && selected.read_only {
            return Answer::no("The mailbox is read-only");
        }
        if and_expunge && !(rights.has('t') && rights.has('e')) {
            return Refusal::NoPerm.into();
        }
        let to = match context.model.find(user, name, "i") {
            Ok(to) => to,
            Err(Refusal::Nonexistent) => return Answer::no("There is no such mailbox").code("TRYCREATE"),
            Err(refusal) => return refusal.into(),
        };
        let uids: Vec<Uid> = selected.places(set, uid).iter().map(|at| selected.told[*at].message.uid).collect();
        let pairs = match context.model.copy(context.stamp, user, selected.mailbox, &uids, to, and_expunge) {
            Ok(pairs) => pairs,
            Err(refusal) => return refusal.into(),
        };
        let uidvalidity = context.model.mailbox(to).map(|mailbox| mailbox.uidvalidity.get());
        let (Some(uidvalidity), false) = (uidvalidity, pairs.is_empty()) else { return Answer::ok("There was nothing to do") };
        let (from, to): (Vec<Uid>, Vec<Uid>) = pairs.into_iter().unzip();
        let code = format!("COPYUID {uidvalidity} {} {}", uid_set(&from), uid_set(&to));
        if and_expunge {
            // RFC 6851 4.3: before the expunges.
            self.line(&format!("* OK [{code}] Moved"));
            return Answer::ok("Done");
        }
        Answer::ok("Copied").code(code)
    }
}
