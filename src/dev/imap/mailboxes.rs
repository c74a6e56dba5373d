//! Commands on mailboxes as a whole: LIST, STATUS, CREATE and their like.

use std::borrow::Cow;
use std::collections::BTreeMap;

use imap_codec::imap_types::command::CommandBody;
use imap_codec::imap_types::mailbox::{ListMailbox, Mailbox};
use imap_codec::imap_types::status::StatusDataItemName;

use super::grammar::{Reader, shown_name};
use super::session::{Answer, Context, Session};
use crate::dev::store::basis::Basis;
use crate::dev::store::mailbox::Mailbox as Held;
use crate::dev::store::model::Refusal;
use crate::mail::UserName;
use crate::wire::imap::name::decode_utf7;

/// A mailbox's name as the client wrote it, without its modified UTF-7.
pub(super) fn name_of(mailbox: &Mailbox<'_>) -> String {
    match mailbox {
        Mailbox::Inbox => "INBOX".to_owned(),
        // A name that cannot be decoded is nobody's.
        Mailbox::Other(other) => decode_utf7(other.as_ref()).unwrap_or_default().into_owned(),
    }
}

/// What LIST is asked for (RFC 5258, RFC 5819, RFC 6154).
#[derive(Default)]
struct ListCommand {
    subscribed_only: bool,
    special_only: bool,
    subscribed: bool,
    status: Vec<StatusDataItemName>,
    extended: bool,
}

/// One name of LIST.
#[derive(Default)]
struct ListEntry {
    attributes: Vec<&'static str>,
    id: Option<u64>,
}

impl Session {
    pub(super) fn on_mailboxes(&mut self, context: &mut Context<'_>, user: &UserName, body: CommandBody<'_>) -> Option<Answer> {
        let stamp = context.stamp;
        let done = match body {
            CommandBody::Create { mailbox } => context.model.create(stamp, user, &name_of(&mailbox)).map(drop),
            CommandBody::Delete { mailbox } => context.model.delete(stamp, user, &name_of(&mailbox)),
            CommandBody::Rename { from, to } => context.model.rename(stamp, user, &name_of(&from), &name_of(&to)),
            CommandBody::Subscribe { mailbox } => context.model.subscribe(stamp, user, &name_of(&mailbox), true),
            CommandBody::Unsubscribe { mailbox } => context.model.subscribe(stamp, user, &name_of(&mailbox), false),
            CommandBody::Status { mailbox, item_names } => self.status(context, user, &name_of(&mailbox), &item_names),
            CommandBody::Namespace => {
                let style = context.model.style;
                let (prefix, delimiter) = (style.shared_prefix(), style.delimiter);
                self.line(&format!("* NAMESPACE ((\"\" \"{delimiter}\")) ((\"{prefix}\" \"{delimiter}\")) NIL"));
                Ok(())
            }
            CommandBody::Lsub { reference, mailbox_wildcard } => {
                let pattern = match &mailbox_wildcard {
                    ListMailbox::Token(token) => decode_utf7(token.as_ref()).map(Cow::into_owned),
                    ListMailbox::String(text) => decode_utf7(text.as_ref()).map(Cow::into_owned),
                };
                let pattern = format!("{}{}", name_of(&reference), pattern?);
                self.lsub(context, user, &pattern);
                Ok(())
            }
            body => return self.on_messages(context, user, body),
        };
        Some(done.map_or_else(Answer::from, |()| Answer::ok("Done")))
    }

    /// `LIST [(selection)] reference pattern(s) [RETURN (options)]`; `None` if that is broken.
    pub(super) fn list(&mut self, context: &mut Context<'_>, user: &UserName, reader: Reader<'_>) -> Option<Answer> {
        let mut reader = reader;
        let mut asked = ListCommand::default();
        if let Some(selection) = { reader }.options() {
            reader.options()?;
            reader.space()?;
            asked.extended = true;
            for (option, _) in selection {
                match option.to_ascii_uppercase().as_str() {
                    "SUBSCRIBED" => asked.subscribed_only = true,
                    "SPECIAL-USE" => asked.special_only = true,
                    // There are no mailboxes elsewhere.
                    "REMOTE" => {}
                    _ => return Some(Answer::bad("This selection option is not known")),
                }
            }
        }
        let reference = reader.name()?;
        reader.space()?;
        let mut patterns = Vec::new();
        if reader.take("(") {
            asked.extended = true;
            while !reader.take(")") {
                if !patterns.is_empty() {
                    reader.space()?;
                }
                patterns.push(reader.name()?);
            }
        } else {
            patterns.push(reader.name()?);
        }
        if reader.take(" RETURN ") {
            asked.extended = true;
            for (option, inner) in reader.options()? {
                match option.to_ascii_uppercase().as_str() {
                    "SUBSCRIBED" => asked.subscribed = true,
                    // Always told.
                    "CHILDREN" | "SPECIAL-USE" => {}
                    "STATUS" => asked.status = inner.split(' ').map(status_item).collect::<Option<_>>()?,
                    _ => return Some(Answer::bad("This return option is not known")),
                }
            }
        }
        reader.end()?;
        let delimiter = context.model.style.delimiter;
        if !asked.extended && patterns.iter().all(String::is_empty) {
            self.line(&format!("* LIST (\\Noselect) \"{delimiter}\" \"\""));
            return Some(Answer::ok("That is the delimiter"));
        }
        let patterns: Vec<String> = patterns.iter().map(|pattern| format!("{reference}{pattern}")).collect();
        for (name, listed) in self.matching(context, user, &patterns, &asked) {
            self.line(&format!("* LIST ({}) \"{delimiter}\" {}", listed.attributes.join(" "), shown_name(&name)));
            if let (Some(id), false) = (listed.id, asked.status.is_empty())
                && let Some(mailbox) = context.model.mailbox(id).filter(|mailbox| mailbox.rights(user).has('r'))
            {
                let items = self.status_items(context, mailbox, &asked.status);
                self.line(&format!("* STATUS {} ({items})", shown_name(&name)));
            }
        }
        Some(Answer::ok("That is all"))
    }

    fn matching(
        &self,
        context: &Context<'_>,
        user: &UserName,
        patterns: &[String],
        asked: &ListCommand,
    ) -> BTreeMap<String, ListEntry> {
        let model = &*context.model;
        let style = model.style;
        let all = model.listed(user);
        let subscriptions = model.subscriptions(user);
        let covered = |name: &str| patterns.iter().any(|pattern| style.covers(pattern, name));
        let mut found: BTreeMap<String, ListEntry> = BTreeMap::new();
        for (name, mailbox) in &all {
            let is_subscribed = subscriptions.contains(name);
            if asked.subscribed_only && !is_subscribed || asked.special_only && mailbox.special.is_none() {
                continue;
            }
            if covered(name) {
                let below = format!("{name}{}", style.delimiter);
                let has_children = all.iter().any(|(other, _)| other.starts_with(&below));
                let mut attributes = vec![if has_children { "\\HasChildren" } else { "\\HasNoChildren" }];
                // Somebody else's Trash is not one's own.
                attributes.extend(mailbox.special.filter(|_| mailbox.owner == *user));
                if is_subscribed && (asked.subscribed || asked.subscribed_only) {
                    attributes.push("\\Subscribed");
                }
                found.insert(name.clone(), ListEntry { attributes, id: Some(mailbox.id) });
            } else if asked.subscribed_only {
                continue;
            }
            // Names that exist only because something is below them.
            for (end, _) in name.match_indices(style.delimiter).filter(|_| !asked.subscribed_only && !asked.special_only) {
                let above = &name[..end];
                // The owner's name may hold the delimiter, and is one level.
                let in_owner = name.strip_prefix(&style.shared_prefix()).is_some() && mailbox.owner != *user && {
                    let owner_end = style.shared_prefix().len() + mailbox.owner.as_str().len();
                    (style.shared_prefix().len()..owner_end).contains(&end)
                };
                if !in_owner && covered(above) && !all.iter().any(|(other, _)| other == above) {
                    let attributes = vec!["\\Noselect", "\\HasChildren"];
                    found.entry(above.to_owned()).or_insert(ListEntry { attributes, id: None });
                }
            }
        }
        if asked.subscribed_only {
            for name in subscriptions.into_iter().filter(|name| covered(name)) {
                let attributes = vec!["\\NonExistent", "\\Subscribed"];
                found.entry(name).or_insert(ListEntry { attributes, id: None });
            }
        }
        found
    }

    fn lsub(&mut self, context: &Context<'_>, user: &UserName, pattern: &str) {
        let style = context.model.style;
        let names = context.model.subscriptions(user);
        let mut lines = BTreeMap::new();
        for name in &names {
            if style.covers(pattern, name) {
                lines.insert(name.clone(), "");
            } else if pattern.ends_with('%') {
                // RFC 3501 6.3.9: what is above a subscribed name, without being subscribed.
                let above =
                    name.match_indices(style.delimiter).map(|(end, _)| &name[..end]).find(|above| style.covers(pattern, above));
                if let Some(above) = above {
                    lines.entry(above.to_owned()).or_insert("\\Noselect");
                }
            }
        }
        for (name, attribute) in lines {
            self.line(&format!("* LSUB ({attribute}) \"{}\" {}", style.delimiter, shown_name(&name)));
        }
    }

    fn status(
        &mut self,
        context: &Context<'_>,
        user: &UserName,
        name: &str,
        items: &[StatusDataItemName],
    ) -> Result<(), Refusal> {
        let id = context.model.find(user, name, "r")?;
        let Some(mailbox) = context.model.mailbox(id) else { return Err(Refusal::Nonexistent) };
        if items.contains(&StatusDataItemName::HighestModSeq) && self.has_condstore() {
            // RFC 7162 3.1: asking for it enables CONDSTORE.
            self.enabled.condstore = true;
        }
        let items = self.status_items(context, mailbox, items);
        self.line(&format!("* STATUS {} ({items})", shown_name(name)));
        Ok(())
    }

    fn status_items(&self, context: &Context<'_>, mailbox: &Held, items: &[StatusDataItemName]) -> String {
        let basis = self.basis_of(context, mailbox);
        let lacks = |flag: &'static str| basis.messages.iter().filter(move |message| !message.flags.contains(flag)).count();
        let bytes = basis.messages.iter().map(|message| message.content.raw.len()).sum::<usize>();
        let recent = basis.messages.iter().filter(|message| message.uid.get() >= mailbox.recent_from).count();
        let text = items.iter().filter_map(|item| {
            Some(match item {
                StatusDataItemName::Messages => format!("MESSAGES {}", basis.messages.len()),
                StatusDataItemName::Recent => format!("RECENT {recent}"),
                StatusDataItemName::UidNext => format!("UIDNEXT {}", basis.uidnext),
                StatusDataItemName::UidValidity => format!("UIDVALIDITY {}", mailbox.uidvalidity.get()),
                StatusDataItemName::Unseen => format!("UNSEEN {}", lacks("\\Seen")),
                StatusDataItemName::Deleted => format!("DELETED {}", basis.messages.len() - lacks("\\Deleted")),
                StatusDataItemName::Size => format!("SIZE {bytes}"),
                StatusDataItemName::HighestModSeq if self.has_condstore() => format!("HIGHESTMODSEQ {}", basis.highest),
                _ => return None,
            })
        });
        text.collect::<Vec<_>>().join(" ")
    }

    /// The mailbox as SELECT and STATUS show it.
    pub(super) fn basis_of(&self, context: &Context<'_>, mailbox: &Held) -> Basis {
        let faults = context.model.faults;
        if faults.lag_at_select {
            Basis::before(mailbox, context.stamp.now, faults.lag, context.stamp.session)
        } else {
            Basis::current(mailbox)
        }
    }
}

fn status_item(name: &str) -> Option<StatusDataItemName> {
    Some(match name.to_ascii_uppercase().as_str() {
        "MESSAGES" => StatusDataItemName::Messages,
        "RECENT" => StatusDataItemName::Recent,
        "UIDNEXT" => StatusDataItemName::UidNext,
        "UIDVALIDITY" => StatusDataItemName::UidValidity,
        "UNSEEN" => StatusDataItemName::Unseen,
        "DELETED" => StatusDataItemName::Deleted,
        "SIZE" => StatusDataItemName::Size,
        "HIGHESTMODSEQ" => StatusDataItemName::HighestModSeq,
        _ => return None,
    })
}
