//! The states of an IDLE, and what each makes of what happens.

use crate::mail::event::{Change, Event};
use crate::mail::path::MailboxPath;
use crate::mail::view::is_inbox_emptied;
use crate::wire::imap::framing::Piece;
use crate::wire::imap::numbers::Numbers;
use crate::wire::imap::response::{self, Response};
use crate::wire::imap::session::asker::{Asker, Outcome};
use crate::wire::imap::session::facts::Facts;
use crate::wire::imap::session::input::Registration;
use crate::wire::imap::session::question::Question;
use crate::wire::imap::session::timers::{Timer, Timers};

use super::context::{Backlog, ClientSide, Cx, Next, Watch};
use super::follower::{Follower, Link, Why};
use super::rights::Permission;

/// An IDLE command that is not ended yet.
#[derive(Debug)]
pub(crate) struct Idle {
    pub tag: Box<[u8]>,
    pub client: ClientSide,
    pub watch: Option<Watch>,
    pub state: State,
}

/// Who tells the client of the mailbox, and what is on its way there.
#[derive(Debug)]
pub(crate) enum State {
    /// The server is asked what must be known before the mailbox can be watched.
    Preparing(Preparation, Box<Asker>),
    /// The registration is awaited.
    Registering(Backlog),
    /// The UIDs are asked for, so often before.
    Snapshot { asker: Box<Asker>, backlog: Backlog, before: u8 },
    /// The view speaks for the mailbox.
    Following(Box<Follower>),
    /// Nothing is selected: there is nothing to tell. A server that is asked is kept from logging
    /// out.
    Silent(Option<Box<Asker>>),
    /// The server idles itself.
    ServersIdle(ServersIdle, Box<Asker>),
    /// The server does not idle either, and is asked now and then.
    Polling(Option<Box<Asker>>),
}

/// What is asked before a mailbox can be watched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Preparation {
    Offers,
    Names,
    Rights,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ServersIdle {
    Beginning,
    Running,
    /// DONE is sent.
    Leaving,
}

impl ServersIdle {
    /// Ends the server's own IDLE.
    pub fn leave(&mut self, cx: &mut Cx<'_>) {
        cx.common.timers.set(Timer::Answer, cx.now + cx.common.rules.catch_up);
        *self = Self::Leaving;
        cx.out.to_upstream.extend_from_slice(b"DONE\r\n");
    }
}

impl Idle {
    pub fn new(tag: Box<[u8]>) -> Self {
        Self { tag, client: ClientSide::Waiting(Vec::new()), watch: None, state: State::Silent(None) }
    }

    /// Whether the upstream connection stands, or is being opened.
    pub fn is_connected(&self) -> bool {
        !matches!(&self.state, State::Following(follower) if matches!(follower.link, Link::Parked))
    }
}

impl State {
    /// The client has asked for IDLE.
    pub fn begin(&mut self, cx: &mut Cx<'_>) -> Next {
        let (now, rules) = (cx.now, cx.common.rules.clone());
        let keepalive = now + cx.common.jittered(rules.keepalive);
        cx.common.timers.set(Timer::KeepAlive, keepalive);
        cx.common.timers.set(Timer::Autologout, now + rules.idle_timeout);
        let audit = now + cx.common.jittered(rules.audit);
        cx.common.timers.set(Timer::Audit, audit);
        if cx.common.facts.selected.is_some() {
            return Next::Prepare;
        }
        // IDLE without a mailbox is valid (RFC 2177), and there is nothing to tell.
        cx.tell_idling();
        Next::Stay
    }

    pub fn asker(&mut self) -> Option<&mut Box<Asker>> {
        match self {
            Self::Preparing(_, asker) | Self::Snapshot { asker, .. } | Self::ServersIdle(_, asker) => Some(asker),
            Self::Following(follower) => follower.link.asker(),
            Self::Silent(asker) | Self::Polling(asker) => asker.as_mut(),
            Self::Registering(_) => None,
        }
    }

    pub fn is_asking(&self) -> bool {
        match self {
            Self::Preparing(..) | Self::Snapshot { .. } | Self::ServersIdle(..) => true,
            Self::Following(follower) => follower.link.is_asking(),
            Self::Silent(asker) | Self::Polling(asker) => asker.is_some(),
            Self::Registering(_) => false,
        }
    }

    fn backlog(&mut self) -> Option<&mut Backlog> {
        match self {
            Self::Registering(backlog) | Self::Snapshot { backlog, .. } => Some(backlog),
            Self::Following(follower) => Some(&mut follower.backlog),
            _ => None,
        }
    }

    /// One piece of what the server says while it is asked something.
    pub fn hear(&mut self, cx: &mut Cx<'_>, piece: &Piece<'_>) -> Next {
        let Some(asker) = self.asker() else { return Next::Stay };
        let raw = match asker.gather(piece) {
            Ok(Some(raw)) => raw,
            Ok(None) => return Next::Stay,
            Err(words) => return Next::nonsense(words),
        };
        let response = response::parse(&raw);
        match (asker.hear(cx.common, &mut cx.out.to_upstream, &response, &raw), &response) {
            (Outcome::News, Response::Untagged(untagged)) => match self {
                Self::Following(follower) => follower.hear_news(cx, untagged, &raw),
                _ => cx.mirror(untagged, &raw),
            },
            (Outcome::Nothing | Outcome::News, _) => Next::Stay,
            (Outcome::TooMuch(words), _) => Next::nonsense(words),
            (Outcome::Idles, _) => self.server_idles(cx),
            (Outcome::Done, _) => {
                cx.common.timers.stop(Timer::Answer);
                self.answered(cx)
            }
        }
    }

    /// One piece of what the server says unasked while the view speaks for the mailbox.
    pub fn hear_unasked(&mut self, cx: &mut Cx<'_>, piece: &Piece<'_>) -> Next {
        let whole = piece.last.then_some(piece.bytes);
        match (self, response::parse(piece.bytes)) {
            (Self::Following(follower), Response::Untagged(untagged)) if piece.first => {
                follower.hear_unasked(cx, &untagged, whole)
            }
            _ => Next::Stay,
        }
    }

    /// All questions are answered.
    fn answered(&mut self, cx: &mut Cx<'_>) -> Next {
        match std::mem::replace(self, Self::Silent(None)) {
            Self::Preparing(Preparation::Offers, _) => Next::Prepare,
            Self::Preparing(Preparation::Names, _) if cx.common.facts.namespaces.is_none() => {
                cx.common.facts.leave_to_server(cx.now);
                Next::HandOver
            }
            Self::Preparing(Preparation::Names, _) => Next::Prepare,
            Self::Preparing(Preparation::Rights, asker) => match cx.judge_rights(asker.finish().rights.as_ref(), None) {
                Permission::Over(next) => next,
                Permission::Granted | Permission::Unknown => Next::Prepare,
            },
            Self::Snapshot { asker, backlog, before } => self.take_snapshot(cx, &asker.finish(), backlog, before),
            Self::Following(mut follower) => {
                let next = match std::mem::replace(&mut follower.link, Link::Parked) {
                    Link::Levelling(why, asker) => follower.levelled(cx, why, asker.finish()),
                    Link::LoggingIn(why, asker) => follower.logged_in(cx, why, &asker.finish()),
                    Link::Opening(why, asker) => {
                        follower.greeted(cx, why, &asker.finish());
                        Next::Stay
                    }
                    Link::Held(_) | Link::Parked => Next::Stay,
                };
                *self = Self::Following(follower);
                next
            }
            Self::ServersIdle(progress, asker) => self.server_idled(cx, progress, &asker.finish()),
            Self::Polling(_) => self.polled(cx),
            Self::Silent(_) if cx.client.is_leaving() => Next::Finish,
            Self::Silent(_) | Self::Registering(_) => Next::Stay,
        }
    }

    /// How the registration of the watched mailbox stands.
    pub fn registered(&mut self, cx: &mut Cx<'_>, mailbox: &MailboxPath, registration: Registration) -> Next {
        let Some(watch) = cx.watch.as_mut().filter(|watch| watch.path == *mailbox) else { return Next::Stay };
        watch.registration = Some(registration);
        match (&mut *self, registration) {
            (Self::Registering(backlog), Registration::Registered | Registration::Settled) => {
                let backlog = std::mem::take(backlog);
                self.ask_snapshot(cx, backlog, 0);
            }
            (Self::Registering(_), Registration::Unavailable) => return Next::HandOver,
            (Self::Snapshot { backlog, .. }, Registration::Settled) => (backlog.again, watch.was_settled) = (true, true),
            (Self::Following(follower), registration) => follower.registered(cx, registration),
            (Self::ServersIdle(..) | Self::Polling(_), Registration::Registered | Registration::Settled) => {
                return self.come_back(cx);
            }
            _ => {}
        }
        Next::Stay
    }

    /// An event out of the queue.
    pub fn event(&mut self, cx: &mut Cx<'_>, event: &Event) -> Next {
        let Some(path) = cx.path() else { return Next::Stay };
        let is_ours = *path == event.mailbox;
        match (self, &event.change) {
            (Self::Following(follower), _) if is_ours => follower.event(cx, event),
            (Self::Following(follower), _) => follower.foreign_event(cx, event),
            _ if !is_ours => Next::Stay,
            // Under the old name the registration would be awaited in vain.
            (Self::Registering(_) | Self::ServersIdle(..) | Self::Polling(_), Change::MailboxRename { to })
                if !is_inbox_emptied(event) =>
            {
                cx.rename(to.clone())
            }
            (Self::ServersIdle(..) | Self::Polling(_), Change::MailboxDelete) => Next::deleted(),
            (Self::Registering(backlog) | Self::Snapshot { backlog, .. }, _) => {
                backlog.push(event);
                Next::Stay
            }
            // The server tells what there is to tell.
            _ => Next::Stay,
        }
    }

    /// Continuity is broken: something may have been missed (I-6).
    pub fn resync(&mut self, cx: &mut Cx<'_>) {
        match self {
            Self::Following(follower) => {
                follower.miss();
                follower.level(cx, Why::Refresh);
            }
            Self::Registering(backlog) | Self::Snapshot { backlog, .. } => backlog.again = true,
            _ => {}
        }
    }

    /// Registry or queue have fallen ill, or are well again.
    pub fn health(&mut self, cx: &mut Cx<'_>) -> Next {
        match (&mut *self, cx.common.healthy) {
            (Self::Registering(_), false) => return Next::HandOver,
            (Self::Following(follower), false) => follower.retreat(cx),
            (Self::ServersIdle(..) | Self::Polling(_), true) => return self.come_back(cx),
            _ => {}
        }
        Next::Stay
    }

    /// What rights the user has now is to be found out.
    pub fn check_rights(&mut self, cx: &mut Cx<'_>, mailbox: &MailboxPath) -> Next {
        if cx.asks_rights_on().as_ref() != Some(mailbox) {
            return Next::Stay;
        }
        if self.asker().is_some_and(|asker| asker.doubt_rights()) {
            // The question is still to come.
            return Next::Stay;
        }
        match self {
            // The answer on its way may be from before the doubt.
            Self::Snapshot { backlog, .. } => backlog.again = true,
            Self::Following(follower) => follower.level(cx, Why::Refresh),
            Self::Preparing(..) | Self::ServersIdle(..) | Self::Polling(_) => return self.ask_servers_rights(cx),
            // The rights are asked for with the snapshot.
            Self::Registering(_) | Self::Silent(_) => {}
        }
        Next::Stay
    }

    /// The right to hear of this mailbox is gone, whoever speaks for it.
    pub fn revoked(&mut self, cx: &Cx<'_>, mailbox: &MailboxPath) -> Next {
        if cx.path() != Some(mailbox) {
            return Next::Stay;
        }
        if self.backlog().is_some_and(|backlog| backlog.ends(mailbox)) { Next::deleted() } else { Next::revoked() }
    }

    /// The upstream connection is gone, or could not be opened.
    pub fn lost(&mut self, cx: &mut Cx<'_>) -> Next {
        if let Self::Following(follower) = self {
            return follower.lost(cx);
        }
        // The server has closed because the mailbox is gone.
        let is_deleted = self.backlog().zip(cx.path()).is_some_and(|(backlog, path)| backlog.ends(path));
        if is_deleted { Next::deleted() } else { Next::lost() }
    }

    /// The client ends IDLE; `answer` is what it will hear.
    pub fn leave(&mut self, cx: &mut Cx<'_>, answer: &'static str) -> Next {
        *cx.client = ClientSide::Leaving { since: cx.now, answer };
        cx.common.timers.set(Timer::Leave, cx.now + cx.common.rules.catch_up);
        match self {
            Self::Following(follower) => follower.level(cx, Why::Done),
            Self::ServersIdle(progress @ ServersIdle::Running, _) => progress.leave(cx),
            // The client's numbers are the server's: an answer at most is awaited.
            _ if self.is_asking() => {}
            _ => return Next::Finish,
        }
        Next::Stay
    }

    /// Whether the client's numbers are good, and nothing is open: the server need not be asked at
    /// DONE.
    pub fn is_known_good(&self, timers: &Timers) -> bool {
        let has_no_doubt = match self {
            Self::Following(follower) => follower.has_no_doubt() && !timers.is_set(Timer::Check),
            Self::Silent(_) => true,
            _ => false,
        };
        has_no_doubt && !self.is_asking()
    }

    /// Whether this timer may be due now.
    pub fn may_expire(&self, timer: Timer) -> bool {
        !timer.waits_for_answers() || !self.is_asking() || matches!(self, Self::ServersIdle(..))
    }

    pub fn expired(&mut self, cx: &mut Cx<'_>, timer: Timer) -> Next {
        match (timer, &mut *self) {
            (Timer::Autologout, _) => return Next::Bye { words: "Autologout: idle for too long", reason: "autologout" },
            (Timer::Leave, _) => {
                let words = "[UNAVAILABLE] The mail server does not catch up: log in again";
                return Next::Bye { words, reason: "upstream_lags" };
            }
            (Timer::KeepAlive, _) => {
                let due = cx.now + cx.common.jittered(cx.common.rules.keepalive);
                cx.common.timers.set(Timer::KeepAlive, due);
                if !cx.client.is_waiting() {
                    cx.out.say(b"* OK Still here\r\n");
                }
            }
            (Timer::Registration, Self::Registering(_)) => return Next::HandOver,
            (Timer::Retry, Self::Following(follower)) => {
                if let Some(why) = follower.trouble.as_ref().map(|trouble| trouble.why) {
                    follower.level(cx, why);
                }
            }
            (Timer::Check, Self::Following(follower)) => follower.check(cx),
            (Timer::Park, Self::Following(follower)) => follower.park(cx),
            (Timer::Audit, _) => return self.audit(cx),
            (Timer::Resume, _) => return self.resume(cx),
            (Timer::Poll, Self::Polling(None)) => *self = Self::Polling(Some(cx.ask(Numbers::default(), [Question::Noop]))),
            _ => {}
        }
        Next::Stay
    }

    /// The audit: the server must not log the client out, and what no event told of must not stay
    /// unnoticed.
    fn audit(&mut self, cx: &mut Cx<'_>) -> Next {
        let due = cx.now + cx.common.jittered(cx.common.rules.audit);
        cx.common.timers.set(Timer::Audit, due);
        let asks_rights = cx.asks_rights_on().is_some();
        match self {
            Self::Following(follower) if asks_rights || !matches!(follower.link, Link::Parked) => {
                follower.level(cx, Why::Refresh);
            }
            Self::Silent(None) => *self = Self::Silent(Some(cx.ask(Numbers::default(), [Question::Noop]))),
            Self::ServersIdle(ServersIdle::Running, _) | Self::Polling(_) if asks_rights => {
                return self.ask_servers_rights(cx);
            }
            Self::ServersIdle(progress @ ServersIdle::Running, _) => progress.leave(cx),
            _ => {}
        }
        Next::Stay
    }

    /// What the session knows of the selected mailbox when the client's commands are relayed again.
    pub fn settle(&self, facts: &mut Facts) {
        if let (Self::Following(follower), Some(selected)) = (self, &mut facts.selected) {
            // What the client has been told of flags it knows from now on.
            selected.keywords = follower.view.keywords().clone();
            selected.count = match &follower.link {
                Link::Held(numbers) => numbers.count(),
                _ => None,
            };
        }
    }
}
