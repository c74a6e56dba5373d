//! Filling in what Dovecot's flag events lack: each message's whole set of flags, and its MODSEQ.

use std::collections::{BTreeMap, BTreeSet};

use async_trait::async_trait;
use tracing::debug;

use super::metrics::AgentMetrics;
use crate::mail::event::{Change, Event, FlagChange};
use crate::mail::flags::Flags;
use crate::mail::path::MailboxPath;
use crate::mail::uid::{ModSeq, Uid, UidValidity};

/// What a mail server says of a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Known {
    /// As the mailbox's owner sees them; without `\Recent`.
    pub flags: Flags,
    pub modseq: Option<ModSeq>,
}

/// Whoever knows a message's flags.
#[async_trait]
pub trait FlagSource: Send + Sync {
    /// The messages of a mailbox that are still there, within a bounded time. An error in plain words if the mailbox cannot
    /// be asked, or if its UIDVALIDITY is another.
    async fn flags(
        &self,
        mailbox: &MailboxPath,
        uidvalidity: Option<UidValidity>,
        uids: &BTreeSet<Uid>,
    ) -> Result<BTreeMap<Uid, Known>, String>;
}

/// Completes events, with one question a mailbox. What cannot be had stays out: never guessed.
pub async fn complete(source: &dyn FlagSource, events: &mut [Event], metrics: &AgentMetrics) {
    let mut wanted: BTreeMap<MailboxPath, (Option<UidValidity>, BTreeSet<Uid>)> = BTreeMap::new();
    for event in events.iter() {
        let mut lacking = messages(&event.change).iter().filter(|m| m.flags.is_none()).map(|m| m.uid).peekable();
        if lacking.peek().is_some() {
            let (uidvalidity, uids) = wanted.entry(event.mailbox.clone()).or_default();
            *uidvalidity = event.uidvalidity.or(*uidvalidity);
            uids.extend(lacking);
        }
    }
    for (mailbox, (uidvalidity, uids)) in wanted {
        let known = source.flags(&mailbox, uidvalidity, &uids).await.unwrap_or_else(|reason| {
            debug!(%mailbox, reason, "flags stay incomplete");
            BTreeMap::new()
        });
        AgentMetrics::count(&metrics.completed, "outcome", "complete", known.len());
        AgentMetrics::count(&metrics.completed, "outcome", "incomplete", uids.len().saturating_sub(known.len()));
        // Of an older incarnation of the mailbox nothing is known any more.
        let current = |event: &Event| event.uidvalidity.is_none() || event.uidvalidity == uidvalidity;
        for event in events.iter_mut().filter(|event| event.mailbox == mailbox && current(event)) {
            for message in messages_mut(&mut event.change).iter_mut().filter(|m| m.flags.is_none()) {
                if let Some(known) = known.get(&message.uid) {
                    message.flags = Some(known.flags.clone());
                    message.modseq = known.modseq.or(message.modseq);
                }
            }
        }
    }
}

fn messages(change: &Change) -> &[FlagChange] {
    match change {
        Change::FlagsSet { messages } | Change::FlagsClear { messages } => messages,
        _ => &[],
    }
}

fn messages_mut(change: &mut Change) -> &mut [FlagChange] {
    match change {
        Change::FlagsSet { messages } | Change::FlagsClear { messages } => messages,
        _ => &mut [],
    }
}
