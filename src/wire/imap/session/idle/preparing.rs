//! The way to the view: what must be known is asked, the mailbox is registered, then its UIDs are
//! read (I-4).

use roaring::RoaringBitmap;

use super::context::{Backlog, Cx, Next, Watch};
use super::follower::{Doubt, FlagDebts, Follower, Hindrance, Link, Why};
use super::level;
use super::rights::Permission;
use super::state::{Preparation, State};
use crate::mail::event::{Change, Event};
use crate::mail::path::MailboxPath;
use crate::mail::view::View;
use crate::wire::imap::numbers::{Listing, Numbers};
use crate::wire::imap::session::asker::Answers;
use crate::wire::imap::session::input::Registration;
use crate::wire::imap::session::output::Action;
use crate::wire::imap::session::question::Question;
use crate::wire::imap::session::timers::Timer;

/// A mailbox in which something appears all the time is asked for its UIDs at most so often before
/// IDLE is left to the server.
const SNAPSHOTS: u8 = 10;

impl State {
    /// Looks at what must be known to serve the client, and asks for the next thing that is not.
    pub fn prepare(&mut self, cx: &mut Cx<'_>) -> Next {
        if cx.client.is_leaving() {
            return Next::Finish;
        }
        cx.common.timers.stop(Timer::Poll);
        cx.common.timers.stop(Timer::Resume);
        let is_due = cx.watch.as_mut().is_some_and(|watch| std::mem::take(&mut watch.rights_due));
        if let Some(mailbox) = cx.asks_rights_on().filter(|_| is_due) {
            let asker = cx.ask(Numbers::default(), []);
            let asker = asker.with_rights(cx.common, &mut cx.out.to_upstream, Some(mailbox));
            *self = Self::Preparing(Preparation::Rights, asker);
            return Next::Stay;
        }
        if cx.is_servers_business() {
            return Next::HandOver;
        }
        let facts = &mut cx.common.facts;
        let question = match (facts.offers_are_known, &facts.namespaces) {
            (false, _) => {
                // Asked once, whatever comes of it.
                facts.offers_are_known = true;
                Some((Preparation::Offers, Question::Capability))
            }
            (true, None) if facts.offers.namespace => Some((Preparation::Names, Question::Namespace)),
            (true, None) => Some((Preparation::Names, Question::Delimiter)),
            (true, Some(_)) => None,
        };
        if let Some((preparation, question)) = question {
            *self = Self::Preparing(preparation, cx.ask(Numbers::default(), [question]));
            return Next::Stay;
        }
        // Known only now: what the server offers, and which mailbox it is.
        let Some(path) = cx.common.path().filter(|_| !cx.has_no_rights_to_ask()) else { return Next::HandOver };
        self.register(cx, path);
        Next::Stay
    }

    fn register(&mut self, cx: &mut Cx<'_>, path: MailboxPath) {
        if let Some(Registration::Registered | Registration::Settled) = cx.registration() {
            return self.ask_snapshot(cx, Backlog::default(), 0);
        }
        cx.common.timers.set(Timer::Registration, cx.now + cx.common.rules.register_timeout);
        *self = Self::Registering(Backlog::default());
        if cx.watch.is_none() {
            let (registration, was_settled, is_renamed, rights_due) = (None, false, false, false);
            *cx.watch = Some(Watch { path: path.clone(), registration, was_settled, is_renamed, rights_due });
            cx.out.act(Action::Watch(path));
        }
    }

    pub(super) fn ask_snapshot(&mut self, cx: &mut Cx<'_>, backlog: Backlog, before: u8) {
        cx.common.timers.stop(Timer::Registration);
        let numbers = Numbers::counted(cx.common.facts.selected.as_ref().and_then(|selected| selected.count));
        let rights = cx.asks_rights_on();
        let first = (before == 0).then_some(Question::Noop);
        let asker = cx.ask(numbers, first.into_iter().chain([Question::Uids]));
        let asker = asker.with_rights(cx.common, &mut cx.out.to_upstream, rights);
        *self = Self::Snapshot { asker, backlog, before };
    }

    pub(super) fn take_snapshot(&mut self, cx: &mut Cx<'_>, answers: &Answers, mut backlog: Backlog, before: u8) -> Next {
        if cx.client.is_leaving() {
            // Nothing was told but what the server said itself.
            return Next::Finish;
        }
        let permission = cx.judge_rights(answers.rights.as_ref(), Some(&backlog));
        if let Permission::Over(next) = permission {
            return next;
        }
        if cx.is_servers_business() {
            return Next::HandOver;
        }
        let uids = match (answers.numbers.whole(), answers.listing) {
            (Some(uids), Listing::Told | Listing::Moved) => uids.clone(),
            // The mailbox changed while the UIDs were listed.
            (_, Listing::Moved | Listing::Torn) if before < SNAPSHOTS => {
                self.ask_snapshot(cx, backlog, before + 1);
                return Next::Stay;
            }
            _ => {
                cx.common.facts.leave_to_server(cx.now);
                return Next::HandOver;
            }
        };
        cx.common.facts.pause = None;
        let (Some(selected), Some(watch)) = (&cx.common.facts.selected, cx.watch.as_mut()) else { return Next::HandOver };
        let uidnext = uids.max().map_or(1, |max| max.saturating_add(1)).max(selected.uidnext);
        let keywords = selected.keywords.clone();
        let (validity, modseq, features) = (selected.uidvalidity, selected.highestmodseq, cx.common.facts.features);
        watch.was_settled |= watch.registration == Some(Registration::Settled);
        let is_doubted = backlog.again || !watch.was_settled;
        // Which is newer, these or the snapshot, the server alone knows.
        let ask = level::flag_uids(backlog.events());
        backlog.drop_flags();
        // What was heard of before must be in the snapshot, or be gone, unless the server lags.
        backlog.again |= backlog.events().iter().any(|event| is_ahead(event, &uids));
        let mut follower = Box::new(Follower {
            view: View::new(uids.clone(), uidnext, validity, modseq, keywords, features),
            server_uidnext: uidnext,
            highestmodseq: None,
            link: Link::Held(Numbers::of(uids)),
            backlog,
            flags: FlagDebts { ask, all: watch.is_renamed, ..FlagDebts::default() },
            doubt: if is_doubted { Doubt::Open } else { Doubt::Until(cx.now + cx.common.rules.catch_up) },
            untold: Vec::new(),
            trouble: None,
        });
        cx.common.timers.set_or_stop(Timer::Park, level::park_due(cx));
        cx.tell_idling();
        let next = follower.take_backlog(cx);
        if permission == Permission::Unknown && next == Next::Stay && !follower.link.is_asking() {
            follower.retry(cx, Why::Refresh, Hindrance::Other);
        }
        *self = Self::Following(follower);
        next
    }
}

/// Whether the event tells of a message that is not among these.
fn is_ahead(event: &Event, uids: &RoaringBitmap) -> bool {
    match &event.change {
        Change::MessageNew { messages } | Change::MessageAppend { messages } => {
            messages.iter().any(|message| !uids.contains(message.uid.get()))
        }
        _ => false,
    }
}
