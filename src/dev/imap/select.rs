//! SELECT and EXAMINE, with CONDSTORE's and QRESYNC's parameters (RFC 7162), and how a mailbox is
//! let go.

use imap_codec::imap_types::command::SelectParameter;
use imap_codec::imap_types::mailbox::Mailbox;
use imap_codec::imap_types::sequence::{SeqOrUid, Sequence, SequenceSet};

use super::grammar::set;
use super::mailboxes::name_of;
use super::session::{Answer, Context, Session};
use super::view::{Selected, write_flags_of};
use crate::mail::{Uid, UserName};

/// The ranges of a set, each ascending; `*` is `last`, and with an empty mailbox it is nothing (RFC
/// 9051: `seq-number`).
pub(super) fn ranges(set: &SequenceSet, last: Option<u32>) -> Vec<(u32, u32)> {
    let number = |bound: SeqOrUid| match bound {
        SeqOrUid::Value(number) => Some(number.get()),
        SeqOrUid::Asterisk => last,
    };
    let both = |(a, b): (u32, u32)| (a.min(b), a.max(b));
    let ranges = set.0.as_ref().iter().filter_map(|sequence| match *sequence {
        Sequence::Single(one) => number(one).map(|one| (one, one)),
        Sequence::Range(a, b) => number(a).zip(number(b)).map(both),
    });
    ranges.collect()
}

pub(super) fn is_in(ranges: &[(u32, u32)], number: u32) -> bool {
    ranges.iter().any(|(first, last)| (*first..=*last).contains(&number))
}

impl Session {
    pub(super) fn select(
        &mut self,
        context: &mut Context<'_>,
        user: &UserName,
        mailbox: &Mailbox<'_>,
        parameters: Vec<SelectParameter>,
        examine: bool,
    ) -> Answer {
        if !parameters.is_empty() && !self.has_condstore() {
            return Answer::bad("There are no such parameters here");
        }
        let resync = parameters.iter().find_map(|parameter| match parameter {
            SelectParameter::QResync { uid_validity, mod_sequence_value, known_uids, .. } => {
                Some((uid_validity.get(), mod_sequence_value.get(), known_uids.clone()))
            }
            SelectParameter::CondStore => None,
        });
        if resync.is_some() && !self.enabled.qresync {
            return Answer::bad("QRESYNC is not enabled");
        }
        if self.selected.take().is_some() {
            // RFC 7162 3.2.11: what comes now is about another mailbox.
            self.line("* OK [CLOSED] The mailbox before is closed");
        }
        let id = match context.model.find(user, &name_of(mailbox), "r") {
            Ok(id) => id,
            Err(refusal) => return refusal.into(),
        };
        self.enabled.condstore |= !parameters.is_empty();
        let Some(basis) = context.model.mailbox(id).map(|mailbox| self.basis_of(context, mailbox)) else {
            return Answer::no("There is no such mailbox");
        };
        let Some(mailbox) = context.model.mailbox_mut(id) else { return Answer::no("There is no such mailbox") };
        let rights = mailbox.rights(user);
        // Without any right to change something, what is selected is read-only (RFC 4314 5.2).
        let read_only = examine || !"swite".chars().any(|right| rights.has(right));
        let selected = Selected::new(mailbox, basis, read_only);
        selected.write_flags(&mut self.to_client, rights);
        let recent = selected.count_recent();
        let first_unseen = selected.told.iter().position(|told| !told.message.flags.contains("\\Seen"));
        let mut lines = format!("* {} EXISTS\r\n* {recent} RECENT\r\n", selected.told.len());
        if let Some(first) = first_unseen {
            lines += &format!("* OK [UNSEEN {}] The first unseen message\r\n", first + 1);
        }
        lines += &format!("* OK [UIDVALIDITY {}] UIDs are valid\r\n", mailbox.uidvalidity.get());
        lines += &format!("* OK [UIDNEXT {}] The next UID\r\n", selected.basis.uidnext);
        if self.has_condstore() {
            lines += &format!("* OK [HIGHESTMODSEQ {}] The highest\r\n", selected.basis.highest);
        }
        self.to_client.extend_from_slice(lines.as_bytes());
        if let Some((_, modseq, known)) = resync.filter(|(uidvalidity, ..)| *uidvalidity == mailbox.uidvalidity.get()) {
            let gone = vanished(&selected, mailbox.gone_since(modseq), known.as_ref());
            if !gone.is_empty() {
                self.to_client.extend_from_slice(format!("* VANISHED (EARLIER) {gone}\r\n").as_bytes());
            }
            let known = known.map(|known| ranges(&known, None));
            for (at, told) in selected.told.iter().enumerate() {
                let is_known = known.as_ref().is_none_or(|known| is_in(known, told.message.uid.get()));
                if told.message.modseq > modseq && is_known {
                    write_flags_of(&mut self.to_client, at, told, self.enabled, true);
                }
            }
        }
        self.selected = Some(selected);
        Answer::ok("Selected").code(if read_only { "READ-ONLY" } else { "READ-WRITE" })
    }
}

/// The UIDs, out of `known` or of all, that are gone since.
pub(super) fn vanished(selected: &Selected, gone_since: impl Fn(Uid) -> bool, known: Option<&SequenceSet>) -> String {
    let known = known.map_or(vec![(1, u32::MAX)], |known| ranges(known, Some(u32::MAX)));
    let gone = |number: &u32| {
        Uid::new(*number).is_some_and(|uid| is_in(&known, *number) && selected.basis.get(uid).is_none() && gone_since(uid))
    };
    set((1..selected.basis.uidnext).filter(gone))
}
