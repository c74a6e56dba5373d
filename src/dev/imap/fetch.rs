//! FETCH and UID FETCH.

use imap_codec::imap_types::command::FetchModifier;
use imap_codec::imap_types::core::AString;
use imap_codec::imap_types::fetch::{MacroOrMessageDataItemNames, MessageDataItemName as Item, Section};
use imap_codec::imap_types::sequence::SequenceSet;
use mail_parser::MessageParser;

use super::grammar::{date_time, string};
use super::select::{is_in, ranges, vanished};
use super::session::{Answer, Context, Session};
use super::structure::{envelope, section, structure};
use super::view::{KnownMessage, Selected, flags_item};
use crate::dev::store::messages::FlagsBy;
use crate::mail::{Flags, Uid};

impl Selected {
    /// The places of the messages that a set names.
    pub(super) fn places(&self, set: &SequenceSet, uid: bool) -> Vec<usize> {
        let last = if uid { self.told.last().map(|told| told.message.uid.get()) } else { Some(self.told.len() as u32) };
        let ranges = ranges(set, last.filter(|last| *last > 0));
        let number = |at: usize, told: &KnownMessage| if uid { told.message.uid.get() } else { at as u32 + 1 };
        self.told.iter().enumerate().filter(|(at, told)| is_in(&ranges, number(*at, told))).map(|(at, _)| at).collect()
    }

    /// Whether a set of sequence numbers names only messages that there are (RFC 9051: else BAD).
    pub(super) fn has_all(&self, set: &SequenceSet, uid: bool) -> bool {
        let count = self.told.len() as u32;
        uid || ranges(set, Some(count)).iter().all(|(first, last)| *first > 0 && *last <= count)
    }
}

impl Session {
    pub(super) fn fetch(
        &mut self,
        context: &mut Context<'_>,
        set: &SequenceSet,
        names: MacroOrMessageDataItemNames<'_>,
        uid: bool,
        modifiers: &[FetchModifier],
    ) -> Answer {
        let mut items = match &names {
            MacroOrMessageDataItemNames::Macro(expanded) => expanded.expand(),
            MacroOrMessageDataItemNames::MessageDataItemNames(items) => items.clone(),
        };
        let since = modifiers.iter().find_map(|modifier| match modifier {
            FetchModifier::ChangedSince(modseq) => Some(modseq.get()),
            FetchModifier::Vanished => None,
        });
        let wants_vanished = modifiers.contains(&FetchModifier::Vanished);
        if wants_vanished && !(self.enabled.qresync && uid && since.is_some()) {
            return Answer::bad("VANISHED needs UID FETCH, CHANGEDSINCE and QRESYNC");
        }
        if (since.is_some() || items.contains(&Item::ModSeq)) && !self.has_condstore() {
            return Answer::bad("There are no modification sequences here");
        }
        if items.iter().any(|item| matches!(item, Item::Binary { .. } | Item::BinarySize { .. })) {
            return Answer::bad("There is no BINARY here");
        }
        let Some(selected) = &self.selected else { return Answer::bad("Select a mailbox first") };
        if !selected.has_all(set, uid) {
            return Answer::bad("There are not so many messages");
        }
        self.enabled.condstore |= since.is_some() || items.contains(&Item::ModSeq);
        let mut places = selected.places(set, uid);
        if let Some(since) = since {
            places.retain(|at| selected.now(&selected.told[*at]).modseq > since);
            items.push(Item::ModSeq);
        }
        if uid || self.enabled.qresync && items.contains(&Item::Flags) {
            items.insert(0, Item::Uid);
        }
        if self.enabled.condstore && items.contains(&Item::Flags) {
            items.push(Item::ModSeq);
        }
        if let (true, Some(since)) = (wants_vanished, since)
            && let Some(mailbox) = context.model.mailbox(selected.mailbox)
        {
            let gone = vanished(selected, mailbox.gone_since(since), Some(set));
            if !gone.is_empty() {
                self.line(&format!("* VANISHED (EARLIER) {gone}"));
            }
        }
        self.see(context, &places, &mut items);
        dedup(&mut items);
        let rights = self.rights(context);
        let (Some(selected), out) = (&mut self.selected, &mut self.to_client) else {
            return Answer::bad("Select a mailbox first");
        };
        if let Some(mailbox) = context.model.mailbox(selected.mailbox) {
            selected.write_new_keywords(out, mailbox, rights);
        }
        for at in places {
            let now = selected.now(&selected.told[at]).clone();
            let told = KnownMessage { message: now, recent: selected.told[at].recent };
            write(out, at, &told, &items);
            if items.contains(&Item::Flags) {
                selected.told[at] = told;
            }
        }
        Answer::ok("Fetched")
    }

    /// Reading a body sets `\Seen`, where that may be done, and tells it.
    fn see(&mut self, context: &mut Context<'_>, places: &[usize], items: &mut Vec<Item<'_>>) {
        let reads = |item: &Item<'_>| matches!(item, Item::BodyExt { peek: false, .. } | Item::Rfc822 | Item::Rfc822Text);
        let (Some(selected), Some(user)) = (&self.selected, &self.user) else { return };
        if selected.read_only || !items.iter().any(reads) || !self.rights(context).has('s') {
            return;
        }
        let unseen =
            places.iter().map(|at| selected.now(&selected.told[*at])).filter(|message| !message.flags.contains("\\Seen"));
        let unseen: Vec<Uid> = unseen.map(|message| message.uid).collect();
        if unseen.is_empty() {
            return;
        }
        let (seen, _) = Flags::sift(["\\Seen"]);
        // That it cannot be kept is no reason not to read.
        let _ = context.model.store(context.stamp, user, selected.mailbox, &unseen, (FlagsBy::Add, &seen), |_| true);
        items.push(Item::Flags);
        if self.enabled.condstore {
            items.push(Item::ModSeq);
        }
        self.catch_up(context);
    }
}

/// Each item once, as it was asked for first.
fn dedup(items: &mut Vec<Item<'_>>) {
    let mut at = 0;
    while at < items.len() {
        if items[..at].contains(&items[at]) {
            items.remove(at);
        } else {
            at += 1;
        }
    }
}

fn write(out: &mut Vec<u8>, at: usize, told: &KnownMessage, items: &[Item<'_>]) {
    let content = &told.message.content;
    let raw = content.raw.as_slice();
    let plain = |item: &Item<'_>| {
        matches!(item, Item::Uid | Item::Flags | Item::ModSeq | Item::InternalDate | Item::Rfc822Size | Item::Rfc822)
            || matches!(item, Item::BodyExt { section: None, .. })
    };
    let parsed = (!items.iter().all(plain)).then(|| MessageParser::default().parse(raw)).flatten();
    let parsed = parsed.as_ref();
    out.extend_from_slice(format!("* {} FETCH (", at + 1).as_bytes());
    for (number, item) in items.iter().enumerate() {
        if number > 0 {
            out.push(b' ');
        }
        match item {
            Item::Uid => out.extend_from_slice(format!("UID {}", told.message.uid).as_bytes()),
            Item::Flags => out.extend_from_slice(flags_item(told).as_bytes()),
            Item::ModSeq => out.extend_from_slice(format!("MODSEQ ({})", told.message.modseq).as_bytes()),
            Item::InternalDate => out.extend_from_slice(format!("INTERNALDATE {}", date_time(content.internaldate)).as_bytes()),
            Item::Rfc822Size => out.extend_from_slice(format!("RFC822.SIZE {}", raw.len()).as_bytes()),
            Item::Envelope => {
                out.extend_from_slice(b"ENVELOPE ");
                envelope(out, parsed);
            }
            Item::Body => {
                out.extend_from_slice(b"BODY ");
                structure(out, parsed, raw, false);
            }
            Item::BodyStructure => {
                out.extend_from_slice(b"BODYSTRUCTURE ");
                structure(out, parsed, raw, true);
            }
            Item::Rfc822 => literal(out, "RFC822", Some(raw), None),
            Item::Rfc822Header => {
                literal(out, "RFC822.HEADER", section(parsed, raw, Some(&Section::Header(None))).as_deref(), None)
            }
            Item::Rfc822Text => literal(out, "RFC822.TEXT", section(parsed, raw, Some(&Section::Text(None))).as_deref(), None),
            Item::BodyExt { section: wanted, partial, .. } => {
                let name = section_name(wanted.as_ref());
                let partial = partial.map(|(from, length)| (from, length.get()));
                literal(out, &name, section(parsed, raw, wanted.as_ref()).as_deref(), partial);
            }
            // Refused before.
            Item::Binary { .. } | Item::BinarySize { .. } => {}
        }
    }
    out.extend_from_slice(b")\r\n");
}

/// `name<origin> string`.
fn literal(out: &mut Vec<u8>, name: &str, bytes: Option<&[u8]>, partial: Option<(u32, u32)>) {
    out.extend_from_slice(name.as_bytes());
    let mut bytes = bytes;
    if let Some((from, length)) = partial {
        out.extend_from_slice(format!("<{from}>").as_bytes());
        bytes = bytes.map(|bytes| {
            let from = (from as usize).min(bytes.len());
            &bytes[from..from.saturating_add(length as usize).min(bytes.len())]
        });
    }
    out.push(b' ');
    match bytes {
        Some(bytes) if !bytes.is_empty() => {
            out.extend_from_slice(format!("{{{}}}\r\n", bytes.len()).as_bytes());
            out.extend_from_slice(bytes);
        }
        Some(_) => string(out, b""),
        None => out.extend_from_slice(b"NIL"),
    }
}

/// `BODY[…]` as it was asked for.
fn section_name(section: Option<&Section<'_>>) -> String {
    let part = |part: &imap_codec::imap_types::fetch::Part| {
        part.0.as_ref().iter().map(ToString::to_string).collect::<Vec<_>>().join(".")
    };
    let dotted = |of: &Option<imap_codec::imap_types::fetch::Part>, word: &str| {
        of.as_ref().map_or_else(|| word.to_owned(), |of| format!("{}.{word}", part(of)))
    };
    let fields = |names: &[AString<'_>]| {
        let mut out = Vec::new();
        for name in names {
            if !out.is_empty() {
                out.push(b' ');
            }
            // As clients write them: not all of them would know their own question in quotes.
            match name {
                AString::Atom(atom) => out.extend_from_slice(atom.as_ref().as_bytes()),
                AString::String(quoted) => string(&mut out, quoted.as_ref()),
            }
        }
        String::from_utf8_lossy(&out).into_owned()
    };
    let inner = match section {
        None => String::new(),
        Some(Section::Part(of)) => part(of),
        Some(Section::Header(of)) => dotted(of, "HEADER"),
        Some(Section::HeaderFields(of, names)) => format!("{} ({})", dotted(of, "HEADER.FIELDS"), fields(names.as_ref())),
        Some(Section::HeaderFieldsNot(of, names)) => format!("{} ({})", dotted(of, "HEADER.FIELDS.NOT"), fields(names.as_ref())),
        Some(Section::Text(of)) => dotted(of, "TEXT"),
        Some(Section::Mime(of)) => format!("{}.MIME", part(of)),
    };
    format!("BODY[{inner}]")
}
