//! One IMAP session between a client and its server, sans-IO.
//!
//! Outside IDLE it relays bytes and notes what it must know; while the client idles it speaks for
//! the server. The shell around it (`edge/imap`) hands in what happens ([`Input`]) and the time,
//! writes what is due to each side ([`Output`]), and does what the [`Action`]s say, in their order.
//!
//! What the client's next bytes are is a `Phase`. An IDLE command has a state of its own
//! (`idle::State`); its methods take a thing that happened, and say what follows from it
//! (`idle::Next`), which is done here and nowhere else.

mod acl;
mod asker;
mod commands;
mod common;
mod facts;
mod idle;
mod input;
mod output;
mod phase;
mod prelude;
mod question;
mod relay;
mod rules;
mod timers;

use std::sync::Arc;
use std::time::Instant;

use self::commands::Relay;
use self::common::Common;
use self::idle::{ClientSide, Cx, Idle, Next, State};
use self::phase::Phase;
use self::timers::Timer;
use super::framing::{Framer, Limits, Piece};
use crate::mail::user::UserName;

pub use self::input::{Input, Reading, Registration};
pub use self::output::{Action, Output};
pub use self::rules::{Reentry, Rules, Setting};

/// Client bytes that are held back while something must come first; beyond it the client waits in
/// its socket.
const HELD_LIMIT: usize = 64 * 1024;
/// The longest server line that is looked at while relaying; longer ones pass unread.
const SERVER_LINE: usize = 64 * 1024;

/// One client's session, from the server's greeting to the end.
#[derive(Debug)]
pub struct Session {
    /// What waits for the shell.
    pub out: Output,
    common: Common,
    phase: Phase,
    relay: Relay,
    client: Framer,
    upstream: Framer,
    /// The client's bytes that wait their turn.
    held: Vec<u8>,
}

fn client_framer(rules: &Rules) -> Framer {
    Framer::new(Limits::client(rules.line_limit, u64::MAX))
}

fn upstream_framer() -> Framer {
    Framer::new(Limits::server(SERVER_LINE))
}

impl Session {
    /// A session whose upstream connection stands; the greeting has not been read yet.
    pub fn new(rules: Arc<Rules>, setting: Setting, now: Instant) -> Self {
        let mut common = Common::new(rules, setting, now);
        common.timers.set(Timer::Login, now + common.rules.login_deadline);
        Self {
            out: Output::default(),
            client: client_framer(&common.rules),
            upstream: upstream_framer(),
            common,
            phase: Phase::Commands,
            relay: Relay::default(),
            held: Vec::new(),
        }
    }

    /// What is to be done next.
    pub fn poll_action(&mut self) -> Option<Action> {
        self.out.actions.pop_front()
    }

    /// When [`Input::Timeout`] is due.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.common.timers.next(|timer| self.phase.may_expire(timer))
    }

    /// Whether more bytes of the client can be taken in; else they wait in its socket.
    pub fn wants_client(&self) -> bool {
        self.held.len() < HELD_LIMIT && !matches!(self.phase, Phase::Tls | Phase::Closed)
    }

    /// Whether the client idles, whoever tells it of changes.
    pub fn is_idling(&self) -> bool {
        matches!(self.phase, Phase::Idle(_))
    }

    /// Whether the session has yet to send something to the server for the client: bytes that are
    /// held, or questions around IDLE. Until then the server must not be told that the client sends
    /// nothing more.
    pub fn is_holding(&self) -> bool {
        let waits = match &self.phase {
            Phase::Login { .. } | Phase::Admission | Phase::Barrier { .. } => true,
            Phase::Idle(idle) => !matches!(idle.client, ClientSide::Idling),
            _ => false,
        };
        waits || !self.held.is_empty() || self.relay.prelude.as_ref().is_some_and(|prelude| prelude.has_more())
    }

    /// Whether a command of the client's is not answered yet. IDLE does not count before the client
    /// ends it.
    pub fn owes_answer(&self) -> bool {
        self.is_holding() || !self.relay.due.is_empty()
    }

    /// Takes in what has happened.
    pub fn handle(&mut self, now: Instant, input: Input<'_>) {
        match input {
            _ if matches!(self.phase, Phase::Closed) => return,
            Input::Client(bytes) => return self.take_client(now, bytes),
            Input::Upstream(bytes) => self.hear_upstream(now, bytes),
            Input::UpstreamClosed => self.upstream_closed(now),
            Input::UpstreamFailed => self.idle(now, |state, cx| state.lost(cx)),
            Input::Encrypted => self.encrypted(),
            Input::Admission(verdict) => self.admit(verdict),
            Input::Registration { mailbox, registration } => {
                self.idle(now, |state, cx| state.registered(cx, mailbox, registration));
            }
            Input::Event(event) => self.idle(now, |state, cx| state.event(cx, event)),
            Input::Resync => self.idle(now, |state, cx| {
                state.resync(cx);
                Next::Stay
            }),
            Input::Health(healthy) => {
                if self.common.healthy != healthy {
                    self.common.healthy = healthy;
                    self.idle(now, |state, cx| state.health(cx));
                }
            }
            Input::Reading(reading) => self.common.reading = reading,
            Input::RightsCheck(mailbox) => self.idle(now, |state, cx| state.check_rights(cx, mailbox)),
            Input::Revoked(mailbox) => self.idle(now, |state, cx| state.revoked(cx, mailbox)),
            Input::End { words, reason } => self.bye(words, reason),
            Input::Timeout => self.timeout(now),
        }
        self.read_held(now);
    }

    /// Lets IDLE take something in, and does what follows.
    fn idle(&mut self, now: Instant, act: impl FnOnce(&mut State, &mut Cx<'_>) -> Next) {
        let Phase::Idle(idle) = &mut self.phase else { return };
        let Idle { client, watch, state, .. } = &mut **idle;
        let mut cx = Cx { now, common: &mut self.common, out: &mut self.out, client, watch };
        let mut next = act(state, &mut cx);
        loop {
            next = match next {
                Next::Stay => return,
                Next::Prepare => state.prepare(&mut cx),
                Next::HandOver => state.hand_over(&mut cx),
                Next::Finish => return self.finish_idle(),
                Next::Bye { words, reason } => return self.bye(words, reason),
            }
        }
    }

    /// The client has asked for IDLE, and all that it sent before is answered.
    fn begin_idle(&mut self, now: Instant, tag: Box<[u8]>) {
        self.phase = Phase::Idle(Box::new(Idle::new(tag)));
        self.idle(now, |state, cx| state.begin(cx));
    }

    /// Client and server mean the same by the same numbers: IDLE is over.
    fn finish_idle(&mut self) {
        let Phase::Idle(idle) = std::mem::replace(&mut self.phase, Phase::Commands) else { return };
        let Idle { tag, client, watch, state } = *idle;
        state.settle(&mut self.common.facts);
        self.common.timers.clear();
        let answer = match client {
            ClientSide::Leaving { answer, .. } => answer,
            ClientSide::Waiting(_) | ClientSide::Idling => "OK Idle completed",
        };
        self.out.say(&commands::answer(&tag, answer));
        if let Some(watch) = watch {
            self.out.act(Action::Unwatch(watch.path));
        }
    }

    fn take_client(&mut self, now: Instant, bytes: &[u8]) {
        if !self.held.is_empty() {
            self.held.extend_from_slice(bytes);
            return;
        }
        let mut input = bytes;
        self.read_client(now, &mut input);
        self.held.extend_from_slice(input);
    }

    /// Goes on with what the client sent meanwhile.
    fn read_held(&mut self, now: Instant) {
        if self.held.is_empty() {
            return;
        }
        let held = std::mem::take(&mut self.held);
        let mut input = &held[..];
        self.read_client(now, &mut input);
        // Bytes that arrived meanwhile follow those that are left.
        let rest = input.to_vec();
        self.held.splice(0..0, rest);
    }

    fn hear_upstream(&mut self, now: Instant, bytes: &[u8]) {
        let mut input = bytes;
        let mut framer = std::mem::replace(&mut self.upstream, upstream_framer());
        loop {
            match framer.next(&mut input) {
                Ok(Some(piece)) => self.hear_piece(now, &piece),
                Ok(None) => break,
                Err(_) => {
                    let words = b"* BYE [UNAVAILABLE] The mail server sent what is not IMAP\r\n";
                    self.close(words, "upstream_nonsense");
                    break;
                }
            }
            if !self.phase.is_connected() {
                break;
            }
        }
        self.upstream = if self.phase.is_connected() { framer } else { upstream_framer() };
    }

    fn hear_piece(&mut self, now: Instant, piece: &Piece<'_>) {
        match &self.phase {
            Phase::Idle(idle) if idle.state.is_asking() => self.idle(now, |state, cx| state.hear(cx, piece)),
            Phase::Idle(idle) if matches!(idle.state, State::Following(_)) => {
                self.idle(now, |state, cx| state.hear_unasked(cx, piece));
            }
            Phase::Idle(idle) if idle.client.is_waiting() => {
                let before = self.out.to_client.len();
                self.read_response(now, piece);
                // It comes behind what waits for `+ idling` already.
                if let Phase::Idle(idle) = &mut self.phase
                    && let ClientSide::Waiting(lines) = &mut idle.client
                {
                    lines.extend(self.out.to_client.drain(before..));
                }
            }
            _ => self.read_response(now, piece),
        }
    }

    /// The client's side is encrypted now.
    fn encrypted(&mut self) {
        self.common.setting.tls = true;
        // Whatever was read before is not read as after it (I-13).
        self.client = client_framer(&self.common.rules);
        self.held = Vec::new();
        self.phase = Phase::Commands;
    }

    fn admit(&mut self, verdict: Result<Option<UserName>, String>) {
        match verdict {
            Ok(user) => {
                self.common.facts.user = user;
                if matches!(self.phase, Phase::Admission) {
                    self.phase = Phase::Commands;
                }
            }
            Err(words) => self.bye(&words, "refused"),
        }
    }

    fn timeout(&mut self, now: Instant) {
        let expire = |session: &mut Self| session.common.timers.expire(now, |timer| session.phase.may_expire(timer));
        while let Some(timer) = expire(self) {
            match timer {
                Timer::Login => self.bye("Nobody has logged in for too long", "login_deadline"),
                Timer::Answer => {
                    // A connection that does not answer is treated as a lost one.
                    self.out.act(Action::CloseUpstream);
                    self.upstream_closed(now);
                }
                timer => self.idle(now, |state, cx| state.expired(cx, timer)),
            }
        }
    }

    /// The server closed the connection, or it broke.
    fn upstream_closed(&mut self, now: Instant) {
        let is_whole = self.upstream.is_between();
        self.upstream = upstream_framer();
        match self.phase {
            Phase::Closed => {}
            Phase::Idle(_) => self.idle(now, |state, cx| state.lost(cx)),
            _ if is_whole && !self.relay.said_bye => self.bye("The mail server has closed the connection", "upstream_closed"),
            // In the middle of a response the client could not read a BYE, and the server may have
            // said BYE already.
            _ => self.close(b"", "upstream_closed"),
        }
    }

    fn bye(&mut self, words: &str, reason: &'static str) {
        // In the middle of a relayed response the client could not read a BYE.
        let is_asking = matches!(&self.phase, Phase::Idle(idle) if idle.state.is_asking());
        let line = format!("* BYE {words}\r\n");
        self.close(if is_asking || self.upstream.is_between() { line.as_bytes() } else { b"" }, reason);
    }

    fn close(&mut self, last: &[u8], reason: &'static str) {
        let watch = match std::mem::replace(&mut self.phase, Phase::Closed) {
            Phase::Closed => return,
            Phase::Idle(idle) => idle.watch,
            _ => None,
        };
        self.out.say(last);
        self.common.timers.clear();
        for _ in std::mem::take(&mut self.relay.acl_changes) {
            self.out.act(Action::AclNotUnderstood);
        }
        if let Some(watch) = watch {
            self.out.act(Action::Unwatch(watch.path));
        }
        self.out.act(Action::Close { reason });
    }
}

#[cfg(test)]
mod tests;
