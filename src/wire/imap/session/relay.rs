//! Relaying: bytes pass as they come, and what must be known is noted; a few commands the gateway
//! answers itself.

use std::time::Instant;

use zeroize::Zeroizing;

use super::commands::{AclCommand, GATHER_LIMIT, LiteralAnswer, Meaning, PartialCommand, RelayedCommand, answer, is_bare_idle};
use super::facts::{self, Login, Selected};
use super::idle::ClientSide;
use super::output::Action;
use super::phase::Phase;
use super::rules::Reentry;
use super::timers::Timer;
use super::{Session, client_framer};
use crate::wire::imap::capability::{self, Edit};
use crate::wire::imap::command::{self, Command, Head, Name};
use crate::wire::imap::credentials::Credentials;
use crate::wire::imap::effects::Effects;
use crate::wire::imap::framing::{Kind, Piece};
use crate::wire::imap::response::{self, Code, Response, Status, Untagged};
use crate::wire::imap::sasl::Exchange;
use crate::wire::imap::write;

impl Session {
    /// Reads what can be read now; what is left of `input` waits.
    pub(super) fn read_client(&mut self, now: Instant, input: &mut &[u8]) {
        let mut framer = std::mem::replace(&mut self.client, client_framer(&self.common.rules));
        while !input.is_empty() && self.is_listening() {
            if matches!(self.phase, Phase::SaslLine { .. } | Phase::Idle(_)) {
                framer.expect_plain();
            }
            let piece = match framer.next(input) {
                Ok(Some(piece)) => piece,
                Ok(None) => break,
                Err(error) => {
                    self.close(format!("* BYE {error}\r\n").as_bytes(), "bad_input");
                    break;
                }
            };
            let refused = match self.phase {
                Phase::SaslLine { .. } => self.read_sasl_line(&piece),
                Phase::Idle(_) => self.read_idle_line(now, &piece, input),
                Phase::Refused { .. } => self.refuse_rest(&piece),
                _ => self.read_command(now, &piece, input),
            };
            if refused == LiteralAnswer::Refuse {
                framer.refuse_literal();
            }
        }
        // TLS begins with a new framer.
        if !matches!(self.phase, Phase::Tls) {
            self.client = framer;
        }
    }

    fn is_listening(&self) -> bool {
        match &self.phase {
            Phase::Commands | Phase::SaslLine { .. } | Phase::Refused { .. } => true,
            Phase::Idle(idle) => matches!(idle.client, ClientSide::Idling),
            Phase::Login { .. } | Phase::Admission | Phase::Tls | Phase::Barrier { .. } | Phase::Closed => false,
        }
    }

    fn read_command(&mut self, now: Instant, piece: &Piece<'_>, input: &mut &[u8]) -> LiteralAnswer {
        if !piece.first {
            return if self.common.facts.authenticated { self.relay_rest(piece) } else { self.gather_rest(piece) };
        }
        let head = match Head::parse(piece.bytes) {
            Ok(head) => head,
            Err(bad) if !self.common.facts.authenticated => return self.refuse(piece, bad.answer()),
            // What is no command is the server's to refuse, as it would without us.
            Err(_) => {
                self.out.to_upstream.extend_from_slice(piece.bytes);
                return LiteralAnswer::Accept;
            }
        };
        match head.name {
            Name::Idle if self.common.facts.authenticated && !is_bare_idle(&head, piece.bytes) => {
                self.refuse(piece, answer(head.tag, "BAD IDLE takes no arguments"))
            }
            Name::StartTls if !piece.last => self.refuse(piece, answer(head.tag, "BAD STARTTLS takes no arguments")),
            Name::Login | Name::Authenticate if self.common.facts.authenticated => {
                self.refuse(piece, answer(head.tag, "BAD You are logged in already"))
            }
            Name::Idle if self.common.facts.authenticated => {
                self.phase = Phase::Barrier { tag: head.tag.into() };
                self.pass_barrier(now);
                LiteralAnswer::Accept
            }
            Name::StartTls => self.start_tls(head.tag, input),
            Name::Compress => self.refuse(piece, answer(head.tag, "NO [CANNOT] Compression is not possible here")),
            // The user of a connection stays who it is.
            Name::Unauthenticate => self.refuse(piece, answer(head.tag, "NO [CANNOT] Log out instead")),
            Name::Login | Name::Authenticate if self.login_disabled() => {
                let words = "NO [PRIVACYREQUIRED] Not without TLS: use STARTTLS or the TLS port";
                self.refuse(piece, answer(head.tag, words))
            }
            _ if !self.common.facts.authenticated => self.gather_first(piece),
            _ => {
                if matches!(head.name, Name::SetAcl | Name::DeleteAcl) {
                    self.ask_names_first(now);
                }
                self.relay_first(head, piece)
            }
        }
    }

    fn login_disabled(&self) -> bool {
        !self.common.setting.tls && !self.common.setting.plaintext_auth
    }

    /// Answers a command that is not relayed. What belongs to it and comes anyway (RFC 7888) is
    /// swallowed first.
    pub(super) fn refuse(&mut self, piece: &Piece<'_>, answer: Vec<u8>) -> LiteralAnswer {
        let awaited = matches!(&piece.kind, Kind::Line { literal: Some(literal) } if literal.sync);
        if piece.last || awaited {
            self.out.say(&answer);
        } else {
            self.phase = Phase::Refused { answer };
        }
        // The client waits for a go-ahead that it will not get.
        if awaited { LiteralAnswer::Refuse } else { LiteralAnswer::Accept }
    }

    fn refuse_rest(&mut self, piece: &Piece<'_>) -> LiteralAnswer {
        if piece.last
            && let Phase::Refused { answer } = std::mem::replace(&mut self.phase, Phase::Commands)
        {
            self.out.say(&answer);
        }
        LiteralAnswer::Accept
    }

    fn start_tls(&mut self, tag: &[u8], input: &mut &[u8]) -> LiteralAnswer {
        if self.common.setting.tls {
            self.out.say(&answer(tag, "BAD TLS is in use already"));
        } else if !self.common.setting.starttls {
            self.out.say(&answer(tag, "NO [CANNOT] STARTTLS is not possible here"));
        } else if self.common.facts.authenticated || !self.relay.due.is_empty() {
            self.out.say(&answer(tag, "BAD STARTTLS comes first, and alone"));
        } else {
            self.out.say(&answer(tag, "OK Begin TLS"));
            // Whatever follows in plain text is nobody's command (I-13).
            *input = &[];
            self.held = Vec::new();
            self.phase = Phase::Tls;
            self.out.act(Action::StartTls);
        }
        LiteralAnswer::Accept
    }

    pub(super) fn relay_first(&mut self, head: Head<'_>, piece: &Piece<'_>) -> LiteralAnswer {
        let meaning = match head.name {
            Name::Login | Name::Authenticate => Meaning::Login,
            Name::Select | Name::Examine => Meaning::Select(Box::default()),
            Name::Close | Name::Unselect => Meaning::Unselect,
            Name::Notify => Meaning::Notify,
            Name::Rename => Meaning::Rename,
            Name::Namespace => Meaning::Namespace,
            Name::SetAcl | Name::DeleteAcl => Meaning::Acl(None),
            _ => Meaning::Nothing,
        };
        let is_understood = matches!(meaning, Meaning::Login | Meaning::Select(_) | Meaning::Notify | Meaning::Acl(_));
        self.relay.due.push_back(RelayedCommand { tag: head.tag.into(), meaning, effects: Effects::of(&head, piece.bytes) });
        self.out.to_upstream.extend_from_slice(piece.bytes);
        if !piece.last {
            let bytes = is_understood.then(|| Zeroizing::new(piece.bytes.to_vec()));
            self.relay.command = Some(Box::new(PartialCommand { bytes, stops: Vec::new() }));
        } else if is_understood {
            self.understand(piece.bytes);
        }
        LiteralAnswer::Accept
    }

    fn relay_rest(&mut self, piece: &Piece<'_>) -> LiteralAnswer {
        self.out.to_upstream.extend_from_slice(piece.bytes);
        let Some(command) = &mut self.relay.command else { return LiteralAnswer::Accept };
        if let (Kind::Line { .. }, Some(relayed)) = (piece.kind, self.relay.due.back_mut()) {
            relayed.effects.more(piece.bytes);
        }
        match &mut command.bytes {
            Some(bytes) if bytes.len() + piece.bytes.len() <= GATHER_LIMIT => bytes.extend_from_slice(piece.bytes),
            bytes => *bytes = None,
        }
        if piece.last
            && let Some(PartialCommand { bytes: Some(bytes), .. }) = self.relay.command.take().map(|command| *command)
        {
            self.understand(&bytes);
        }
        LiteralAnswer::Accept
    }

    /// A whole command that was relayed: what will its success mean? One that cannot be understood
    /// is the server's to refuse.
    pub(super) fn understand(&mut self, bytes: &[u8]) {
        let command = command::parse(bytes).map(|(_, command)| command).ok();
        let keeps = matches!(self.common.rules.reentry, Reentry::Credentials);
        let Some(relayed) = self.relay.due.back_mut() else { return };
        match (command, &mut relayed.meaning) {
            (Some(Command::Login(login)), Meaning::Login) => {
                self.common.facts.written_user = String::from_utf8(login.user.clone()).ok();
                // What needs a literal could not be sent again as easily.
                let plain = |held: &Credentials| {
                    let mut scratch = Zeroizing::new(Vec::new());
                    [held.user.as_bytes(), held.password.as_bytes()]
                        .into_iter()
                        .all(|text| write::astring(&mut scratch, text, false).is_ok())
                };
                let held = login.credentials().filter(|held| keeps && plain(held));
                self.common.facts.login = held.map(|held| Box::new(Login::Login(held)));
                self.phase = Phase::Login { sasl: None };
            }
            (Some(Command::Authenticate(command)), Meaning::Login) => {
                let initial = command.initial.as_ref().map(|initial| initial.as_slice());
                let sasl = Some(Box::new(Exchange::new(&command.mechanism, initial)));
                self.phase = Phase::Login { sasl };
            }
            (_, Meaning::Login) => self.phase = Phase::Login { sasl: None },
            (Some(Command::Select(select)), Meaning::Select(selected)) => {
                (selected.name, selected.examined) = (select.mailbox, select.read_only);
            }
            (Some(Command::Notify { none: true }), meaning) => *meaning = Meaning::Nothing,
            (Some(command), Meaning::Acl(change)) => *change = AclCommand::of(command),
            _ => {}
        }
    }

    fn read_sasl_line(&mut self, piece: &Piece<'_>) -> LiteralAnswer {
        self.out.to_upstream.extend_from_slice(piece.bytes);
        self.phase = match std::mem::replace(&mut self.phase, Phase::Commands) {
            Phase::SaslLine { mut sasl } => {
                sasl.client_line(piece.bytes);
                if piece.last { Phase::Login { sasl: Some(sasl) } } else { Phase::SaslLine { sasl } }
            }
            phase => phase,
        };
        LiteralAnswer::Accept
    }

    /// One piece of what the server says while nothing of the gateway's own is asked.
    pub(super) fn read_response(&mut self, now: Instant, piece: &Piece<'_>) {
        if !(piece.first && piece.last) {
            self.out.say(piece.bytes);
            return;
        }
        match piece.bytes {
            [b'+', ..] if self.send_prelude() => {}
            [b'+', ..] => {
                self.phase = match std::mem::replace(&mut self.phase, Phase::Commands) {
                    Phase::Login { sasl: Some(sasl) } => Phase::SaslLine { sasl },
                    phase => phase,
                };
                self.out.say(piece.bytes);
            }
            // Most of all traffic: `* 12 FETCH`, `* 3 EXISTS`. The numbers mean the same to both
            // sides.
            [b'*', b' ', b'0'..=b'9', ..] => {
                self.follow_count(piece.bytes);
                self.out.say(piece.bytes);
            }
            [b'*', b' ', ..] => self.read_untagged(piece.bytes),
            bytes => self.read_tagged(now, bytes),
        }
    }

    /// Notes how many messages there are: a list of UIDs is held against it.
    fn follow_count(&mut self, line: &[u8]) {
        let word = line[2..].iter().position(|b| *b == b' ').map(|at| &line[3 + at..]);
        // `EXISTS` and `EXPUNGE`, and no FETCH is read for it.
        if word.is_some_and(|word| word.first().is_some_and(|b| b.eq_ignore_ascii_case(&b'E')))
            && let Response::Untagged(untagged) = response::parse(line)
            && let Some(selected) = self.selecting()
        {
            selected.follow(&untagged);
        }
    }

    /// The mailbox that the server speaks of: between SELECT and its tagged response, the new one.
    fn selecting(&mut self) -> Option<&mut Selected> {
        match self.relay.due.front_mut() {
            Some(RelayedCommand { meaning: Meaning::Select(selected), .. }) => Some(&mut **selected),
            _ => self.common.facts.selected.as_deref_mut(),
        }
    }

    fn read_untagged(&mut self, line: &[u8]) {
        let Response::Untagged(untagged) = response::parse(line) else {
            self.out.say(line);
            return;
        };
        if self.learn_names(&untagged) {
            return;
        }
        let selecting = match self.relay.due.front_mut() {
            Some(RelayedCommand { meaning: Meaning::Select(selected), .. }) => Some(&mut **selected),
            _ => self.common.facts.selected.as_deref_mut(),
        };
        match &untagged {
            Untagged::Capability(_) | Untagged::Status { code: Some(Code::Capability(_)), .. } => {
                if !self.common.facts.authenticated && matches!(untagged, Untagged::Status { status: Status::PreAuth, .. }) {
                    self.authenticated(None);
                }
                return self.relay_capabilities(line);
            }
            Untagged::Enabled(list) => self.common.facts.enable(list),
            Untagged::Vanished { .. } => {
                if let Some(selected) = selecting {
                    selected.follow(&untagged);
                }
            }
            Untagged::Flags(list) => {
                if let Some(selected) = selecting {
                    selected.keywords.flags = facts::flags(list);
                }
            }
            Untagged::Status { status, code, .. } => {
                if let (Some(code), Some(selected)) = (code, selecting) {
                    selected.note(code);
                }
                if *status == Status::PreAuth && !self.common.facts.authenticated {
                    self.authenticated(None);
                }
                self.relay.said_bye |= *status == Status::Bye;
            }
            _ => {}
        }
        self.out.say(line);
    }

    /// Passes a line on with its capability list rewritten.
    fn relay_capabilities(&mut self, line: &[u8]) {
        // What a server says between LOGIN and its answer holds for whoever is in.
        let entering = matches!(self.relay.due.front(), Some(RelayedCommand { meaning: Meaning::Login, .. }));
        let inside = self.common.facts.authenticated || entering;
        let edit = Edit {
            starttls: self.common.setting.starttls && !self.common.setting.tls && !inside,
            login_disabled: self.login_disabled() && !inside,
        };
        let (rewritten, offers) = capability::rewrite(line, edit);
        // One answer may have several lines, and a server loses nothing once the client is logged
        // in.
        self.common.facts.offers = match capability::list(&response::parse(line)) {
            Some(list) if inside && self.common.facts.offers_are_known => self.common.facts.offers.with(list),
            _ => offers,
        };
        self.common.facts.offers_are_known = inside;
        self.out.say(&rewritten);
    }

    fn read_tagged(&mut self, now: Instant, line: &[u8]) {
        let tag = line.split(|b| *b == b' ').next().unwrap_or_default();
        // Servers answer in order but for what RFC 9051 5.5 lets them reorder.
        let Some(at) = self.relay.due.iter().position(|relayed| *relayed.tag == *tag) else {
            self.out.say(line);
            return;
        };
        if matches!(self.relay.due[at].meaning, Meaning::Own(_)) {
            self.relay.due.remove(at);
            self.names_answered(now);
            return self.pass_barrier(now);
        }
        self.relay.prelude = None;
        // A literal that it refused will not come.
        if at + 1 == self.relay.due.len() {
            self.client.refuse_literal();
            if self.client.is_between() {
                self.relay.command = None;
            }
        }
        let Some(mut relayed) = self.relay.due.remove(at) else { return };
        let (status, code) = match response::parse(line) {
            Response::Tagged { status, code, .. } => (status, code),
            _ => (Status::Bad, None),
        };
        let ok = status == Status::Ok;
        if let (Meaning::Select(selected), Some(code)) = (&mut relayed.meaning, &code) {
            selected.note(code);
        }
        // A login's list is that of the authenticated state.
        self.common.facts.authenticated |= ok && matches!(relayed.meaning, Meaning::Login);
        match code {
            Some(Code::Capability(_)) => self.relay_capabilities(line),
            _ => self.out.say(line),
        }
        self.done_relaying(status, relayed);
        self.pass_barrier(now);
    }

    fn done_relaying(&mut self, status: Status, relayed: RelayedCommand) {
        let ok = status == Status::Ok;
        if ok {
            self.common.facts.saved_result |= relayed.effects.saves_result;
            self.common.facts.foreign |= relayed.effects.context;
            self.common.facts.features.condstore |= relayed.effects.condstore;
        }
        match (relayed.meaning, ok) {
            (Meaning::Login, true) => {
                if let Phase::Login { sasl: Some(sasl) } | Phase::SaslLine { sasl } =
                    std::mem::replace(&mut self.phase, Phase::Commands)
                {
                    self.common.facts.written_user = sasl.identity().map(str::to_owned);
                    if matches!(self.common.rules.reentry, Reentry::Credentials) {
                        self.common.facts.login = sasl.plain().map(|(authzid, held)| Box::new(Login::Plain(authzid, held)));
                    }
                }
                self.authenticated(self.common.facts.written_user.clone());
            }
            (Meaning::Login, false) => {
                (self.common.facts.written_user, self.common.facts.login) = (None, None);
                self.common.facts.offers_are_known = false;
                self.phase = Phase::Commands;
            }
            (Meaning::Select(selected), true) => {
                self.common.facts.saved_result = false;
                self.common.facts.selected = Some(selected);
            }
            // A failed SELECT leaves nothing selected (RFC 9051 6.3.2); one that is no command
            // changes nothing.
            (Meaning::Select(_), false) if status == Status::Bad => {}
            (Meaning::Select(_), false) | (Meaning::Unselect, true) => self.common.facts.selected = None,
            (Meaning::Notify, true) => self.common.facts.foreign = true,
            (Meaning::Acl(change), true) => self.acl_changed(change),
            // Under which name it is selected now, only a new SELECT tells.
            (Meaning::Rename, true) => self.common.facts.selected.iter_mut().for_each(|selected| selected.renamed = true),
            _ => {}
        }
    }

    fn authenticated(&mut self, user: Option<String>) {
        self.common.facts.authenticated = true;
        self.common.timers.stop(Timer::Login);
        self.phase = Phase::Admission;
        self.out.act(Action::Authenticated { user });
    }

    /// IDLE begins once all commands before it are answered.
    fn pass_barrier(&mut self, now: Instant) {
        if self.relay.due.is_empty()
            && let Phase::Barrier { tag } = &mut self.phase
        {
            let tag = std::mem::take(tag);
            self.begin_idle(now, tag);
        }
    }

    /// A line while the client idles: DONE, or what should not be.
    fn read_idle_line(&mut self, now: Instant, piece: &Piece<'_>, input: &mut &[u8]) -> LiteralAnswer {
        // As a plain line it is whole: no literal is announced.
        let done = piece.bytes.trim_ascii_end().eq_ignore_ascii_case(b"DONE");
        if !(done && self.renew_idle(now, input)) {
            let answer = if done { "OK Idle completed" } else { "BAD Expected DONE" };
            self.idle(now, |state, cx| state.leave(cx, answer));
        }
        LiteralAnswer::Accept
    }

    /// DONE with the next IDLE right behind it, and nothing open: the server need not hear of it.
    fn renew_idle(&mut self, now: Instant, input: &mut &[u8]) -> bool {
        let Phase::Idle(idle) = &mut self.phase else { return false };
        let is_known_good = idle.state.is_known_good(&self.common.timers);
        let Some(end) = input.windows(2).position(|two| two == b"\r\n") else { return false };
        let (line, rest) = input.split_at(end + 2);
        let tag = match Head::parse(line) {
            Ok(head @ Head { name: Name::Idle, .. }) if is_known_good && is_bare_idle(&head, line) => head.tag,
            _ => return false,
        };
        self.out.say(&answer(&idle.tag, "OK Idle completed"));
        self.out.say(b"+ idling\r\n");
        idle.tag = tag.into();
        self.common.timers.set(Timer::Autologout, now + self.common.rules.idle_timeout);
        *input = rest;
        true
    }
}
