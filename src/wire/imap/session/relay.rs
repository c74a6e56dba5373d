//! Relaying: bytes pass as they come, and what must be known is noted; a few commands the gateway answers itself.

use std::time::Instant;

use zeroize::Zeroizing;

use super::acl::AclCommand;
use super::facts::{self, Login, Selected};
use super::questions::Question;
use super::{Action, Hold, Reentry, Session, client_framer};
use crate::wire::imap::capability::{self, Edit};
use crate::wire::imap::command::{self, Command, Head, Name};
use crate::wire::imap::credentials::Credentials;
use crate::wire::imap::effects::Effects;
use crate::wire::imap::framing::{Kind, Piece};
use crate::wire::imap::response::{self, Code, Response, Status, Untagged};
use crate::wire::imap::sasl::Exchange;
use crate::wire::imap::write;

/// Commands that must be understood are gathered up to this size; a longer one passes without being understood.
pub(super) const GATHER_LIMIT: usize = 32 * 1024;

/// A relayed command whose tagged response has not come.
#[derive(Debug)]
pub(super) struct Relayed {
    pub tag: Box<[u8]>,
    pub what: What,
    effects: Effects,
}

impl Relayed {
    /// A question of the gateway's own, between the client's commands.
    pub fn own(tag: Box<[u8]>, question: Question) -> Self {
        Self { tag, what: What::Asked(question), effects: Effects::NONE }
    }
}

/// What a relayed command's success means to the gateway.
#[derive(Debug)]
pub(super) enum What {
    Nothing,
    /// It is the gateway's own: the client does not hear of it.
    Asked(Question),
    /// NAMESPACE of the client's own.
    Namespace,
    /// SETACL or DELETEACL, as far as it is understood.
    Acl(Option<AclCommand>),
    Login,
    Select(Box<Selected>),
    Unselect,
    /// NOTIFY, which the gateway does not follow.
    Notify,
    /// It may have been the selected mailbox.
    Rename,
}

/// Whether the literal that a piece announces is refused, so that the client will not send it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refused {
    Nothing,
    Literal,
}

/// A relayed command that goes on behind a literal.
#[derive(Debug)]
pub(super) struct Gathering {
    /// `None`: it need not be understood, or is too long for that.
    pub bytes: Option<Zeroizing<Vec<u8>>>,
}

impl Session {
    /// Reads what can be read now; what is left of `input` waits.
    pub(super) fn read_client(&mut self, now: Instant, input: &mut &[u8]) {
        let mut framer = std::mem::replace(&mut self.client, client_framer(&self.rules));
        while !input.is_empty() && self.is_listening() {
            if matches!(self.hold, Hold::SaslLine | Hold::Idle) {
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
            let refused = match self.hold {
                Hold::SaslLine => self.read_sasl_line(&piece),
                Hold::Idle => self.read_idle_line(now, &piece, input),
                Hold::Refused { .. } => self.refuse_rest(&piece),
                _ => self.read_command(now, &piece, input),
            };
            if refused == Refused::Literal {
                framer.refuse_literal();
            }
        }
        // TLS begins with a new framer.
        if !matches!(self.hold, Hold::Tls) {
            self.client = framer;
        }
    }

    fn is_listening(&self) -> bool {
        match self.hold {
            Hold::No | Hold::SaslLine | Hold::Refused { .. } => true,
            Hold::Idle => self.idle.as_ref().is_some_and(|idle| idle.is_told() && !idle.is_ending()),
            Hold::Login | Hold::Admission | Hold::Tls | Hold::Barrier { .. } | Hold::Closed => false,
        }
    }

    fn read_command(&mut self, now: Instant, piece: &Piece<'_>, input: &mut &[u8]) -> Refused {
        if !piece.first {
            return if self.facts.authenticated { self.relay_rest(piece) } else { self.gather_rest(piece) };
        }
        let head = match Head::parse(piece.bytes) {
            Ok(head) => head,
            Err(bad) if !self.facts.authenticated => return self.refuse(piece, bad.answer()),
            // What is no command is the server's to refuse, as it would without us.
            Err(_) => {
                self.to_upstream.extend_from_slice(piece.bytes);
                return Refused::Nothing;
            }
        };
        match head.name {
            Name::Idle if self.facts.authenticated && !is_bare_idle(&head, piece.bytes) => {
                self.refuse(piece, answer(head.tag, "BAD IDLE takes no arguments"))
            }
            Name::StartTls if !piece.last => self.refuse(piece, answer(head.tag, "BAD STARTTLS takes no arguments")),
            Name::Login | Name::Authenticate if self.facts.authenticated => {
                self.refuse(piece, answer(head.tag, "BAD You are logged in already"))
            }
            Name::Idle if self.facts.authenticated => {
                self.hold = Hold::Barrier { tag: head.tag.into() };
                self.pass_barrier(now);
                Refused::Nothing
            }
            Name::StartTls => self.start_tls(head.tag, input),
            Name::Compress => self.refuse(piece, answer(head.tag, "NO [CANNOT] Compression is not possible here")),
            // The user of a connection stays who it is.
            Name::Unauthenticate => self.refuse(piece, answer(head.tag, "NO [CANNOT] Log out instead")),
            Name::Login | Name::Authenticate if self.login_disabled() => {
                let words = "NO [PRIVACYREQUIRED] Not without TLS: use STARTTLS or the TLS port";
                self.refuse(piece, answer(head.tag, words))
            }
            _ if !self.facts.authenticated => self.gather_first(piece),
            _ => {
                if matches!(head.name, Name::SetAcl | Name::DeleteAcl) {
                    self.ask_names_first(now);
                }
                self.relay_first(head, piece)
            }
        }
    }

    fn login_disabled(&self) -> bool {
        !self.setting.tls && !self.setting.plaintext_auth
    }

    /// Answers a command that is not relayed. What belongs to it and comes anyway (RFC 7888) is swallowed first.
    pub(super) fn refuse(&mut self, piece: &Piece<'_>, answer: Vec<u8>) -> Refused {
        let awaited = matches!(&piece.kind, Kind::Line { literal: Some(literal) } if literal.sync);
        if piece.last || awaited {
            self.to_client.extend_from_slice(&answer);
        } else {
            self.hold = Hold::Refused { answer };
        }
        // The client waits for a go-ahead that it will not get.
        if awaited { Refused::Literal } else { Refused::Nothing }
    }

    fn refuse_rest(&mut self, piece: &Piece<'_>) -> Refused {
        if piece.last
            && let Hold::Refused { answer } = std::mem::replace(&mut self.hold, Hold::No)
        {
            self.to_client.extend_from_slice(&answer);
        }
        Refused::Nothing
    }

    fn start_tls(&mut self, tag: &[u8], input: &mut &[u8]) -> Refused {
        if self.setting.tls {
            self.to_client.extend_from_slice(&answer(tag, "BAD TLS is in use already"));
        } else if !self.setting.starttls {
            self.to_client.extend_from_slice(&answer(tag, "NO [CANNOT] STARTTLS is not possible here"));
        } else if self.facts.authenticated || !self.due.is_empty() {
            self.to_client.extend_from_slice(&answer(tag, "BAD STARTTLS comes first, and alone"));
        } else {
            self.to_client.extend_from_slice(&answer(tag, "OK Begin TLS"));
            // Whatever follows in plain text is nobody's command (I-13).
            *input = &[];
            self.held = Vec::new();
            self.hold = Hold::Tls;
            self.actions.push_back(Action::StartTls);
        }
        Refused::Nothing
    }

    pub(super) fn relay_first(&mut self, head: Head<'_>, piece: &Piece<'_>) -> Refused {
        let what = match head.name {
            Name::Login | Name::Authenticate => What::Login,
            Name::Select | Name::Examine => What::Select(Box::default()),
            Name::Close | Name::Unselect => What::Unselect,
            Name::Notify => What::Notify,
            Name::Rename => What::Rename,
            Name::Namespace => What::Namespace,
            Name::SetAcl | Name::DeleteAcl => What::Acl(None),
            _ => What::Nothing,
        };
        let is_understood = matches!(what, What::Login | What::Select(_) | What::Notify | What::Acl(_));
        self.due.push_back(Relayed { tag: head.tag.into(), what, effects: Effects::of(&head, piece.bytes) });
        self.to_upstream.extend_from_slice(piece.bytes);
        if !piece.last {
            let bytes = is_understood.then(|| Zeroizing::new(piece.bytes.to_vec()));
            self.command = Some(Box::new(Gathering { bytes }));
        } else if is_understood {
            self.understand(piece.bytes);
        }
        Refused::Nothing
    }

    fn relay_rest(&mut self, piece: &Piece<'_>) -> Refused {
        self.to_upstream.extend_from_slice(piece.bytes);
        let Some(command) = &mut self.command else { return Refused::Nothing };
        if let (Kind::Line { .. }, Some(relayed)) = (piece.kind, self.due.back_mut()) {
            relayed.effects.more(piece.bytes);
        }
        match &mut command.bytes {
            Some(bytes) if bytes.len() + piece.bytes.len() <= GATHER_LIMIT => bytes.extend_from_slice(piece.bytes),
            bytes => *bytes = None,
        }
        if piece.last
            && let Some(Gathering { bytes: Some(bytes) }) = self.command.take().map(|command| *command)
        {
            self.understand(&bytes);
        }
        Refused::Nothing
    }

    /// A whole command that was relayed: what will its success mean? One that cannot be understood is the server's to
    /// refuse.
    pub(super) fn understand(&mut self, bytes: &[u8]) {
        let command = command::parse(bytes).map(|(_, command)| command).ok();
        let keeps = matches!(self.rules.reentry, Reentry::Credentials);
        let Some(relayed) = self.due.back_mut() else { return };
        match (command, &mut relayed.what) {
            (Some(Command::Login(login)), What::Login) => {
                self.facts.written_user = String::from_utf8(login.user.clone()).ok();
                // What needs a literal could not be sent again as easily.
                let plain = |held: &Credentials| {
                    let mut scratch = Zeroizing::new(Vec::new());
                    [held.user.as_bytes(), held.password.as_bytes()]
                        .into_iter()
                        .all(|text| write::astring(&mut scratch, text, false).is_ok())
                };
                let held = login.credentials().filter(|held| keeps && plain(held));
                self.facts.login = held.map(|held| Box::new(Login::Login(held)));
                self.hold = Hold::Login;
            }
            (Some(Command::Authenticate(command)), What::Login) => {
                let initial = command.initial.as_ref().map(|initial| initial.as_slice());
                self.sasl = Some(Box::new(Exchange::new(&command.mechanism, initial)));
                self.hold = Hold::Login;
            }
            (_, What::Login) => self.hold = Hold::Login,
            (Some(Command::Select(select)), What::Select(selected)) => {
                (selected.name, selected.examined) = (select.mailbox, select.read_only);
            }
            (Some(Command::Notify { none: true }), what) => *what = What::Nothing,
            (Some(command), What::Acl(change)) => *change = AclCommand::of(command),
            _ => {}
        }
    }

    fn read_sasl_line(&mut self, piece: &Piece<'_>) -> Refused {
        self.to_upstream.extend_from_slice(piece.bytes);
        if let Some(sasl) = &mut self.sasl {
            sasl.client_line(piece.bytes);
        }
        if piece.last {
            self.hold = Hold::Login;
        }
        Refused::Nothing
    }

    /// One piece of what the server says while nothing of the gateway's own is asked.
    pub(super) fn read_response(&mut self, now: Instant, piece: &Piece<'_>) {
        if !(piece.first && piece.last) {
            self.to_client.extend_from_slice(piece.bytes);
            return;
        }
        match piece.bytes {
            [b'+', ..] if self.send_prelude() => {}
            [b'+', ..] => {
                if matches!(self.hold, Hold::Login) && self.sasl.is_some() {
                    self.hold = Hold::SaslLine;
                }
                self.to_client.extend_from_slice(piece.bytes);
            }
            // Most of all traffic: `* 12 FETCH`, `* 3 EXISTS`. The client and the server know the same.
            [b'*', b' ', b'0'..=b'9', ..] => {
                self.follow_count(piece.bytes);
                self.to_client.extend_from_slice(piece.bytes);
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
        match self.due.front_mut() {
            Some(Relayed { what: What::Select(selected), .. }) => Some(&mut **selected),
            _ => self.facts.selected.as_deref_mut(),
        }
    }

    fn read_untagged(&mut self, line: &[u8]) {
        let Response::Untagged(untagged) = response::parse(line) else {
            self.to_client.extend_from_slice(line);
            return;
        };
        if self.learn_names(&untagged) {
            return;
        }
        let selecting = match self.due.front_mut() {
            Some(Relayed { what: What::Select(selected), .. }) => Some(&mut **selected),
            _ => self.facts.selected.as_deref_mut(),
        };
        match &untagged {
            Untagged::Capability(_) | Untagged::Status { code: Some(Code::Capability(_)), .. } => {
                if !self.facts.authenticated && matches!(untagged, Untagged::Status { status: Status::PreAuth, .. }) {
                    self.authenticated(None);
                }
                return self.relay_capabilities(line);
            }
            Untagged::Enabled(list) => self.facts.enable(list),
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
                if *status == Status::PreAuth && !self.facts.authenticated {
                    self.authenticated(None);
                }
                self.said_bye |= *status == Status::Bye;
            }
            _ => {}
        }
        self.to_client.extend_from_slice(line);
    }

    /// Passes a line on with its capability list rewritten.
    fn relay_capabilities(&mut self, line: &[u8]) {
        // What a server says between LOGIN and its answer holds for whoever is in.
        let entering = matches!(self.due.front(), Some(Relayed { what: What::Login, .. }));
        let inside = self.facts.authenticated || entering;
        let edit = Edit {
            starttls: self.setting.starttls && !self.setting.tls && !inside,
            login_disabled: self.login_disabled() && !inside,
        };
        let (rewritten, offers) = capability::rewrite(line, edit);
        // One answer may have several lines, and a server loses nothing once the client is logged in.
        self.facts.offers = match capability::list(&response::parse(line)) {
            Some(list) if inside && self.facts.offers_are_known => self.facts.offers.with(list),
            _ => offers,
        };
        self.facts.offers_are_known = inside;
        self.to_client.extend_from_slice(&rewritten);
    }

    fn read_tagged(&mut self, now: Instant, line: &[u8]) {
        let tag = line.split(|b| *b == b' ').next().unwrap_or_default();
        // Servers answer in order but for what RFC 9051 5.5 lets them reorder.
        let Some(at) = self.due.iter().position(|relayed| *relayed.tag == *tag) else {
            self.to_client.extend_from_slice(line);
            return;
        };
        if matches!(self.due[at].what, What::Asked(_)) {
            self.due.remove(at);
            self.names_answered(now);
            return self.pass_barrier(now);
        }
        self.prelude = None;
        // A literal that it refused will not come.
        if at + 1 == self.due.len() {
            self.client.refuse_literal();
            if self.client.is_between() {
                self.command = None;
            }
        }
        let Some(mut relayed) = self.due.remove(at) else { return };
        let (status, code) = match response::parse(line) {
            Response::Tagged { status, code, .. } => (status, code),
            _ => (Status::Bad, None),
        };
        let ok = status == Status::Ok;
        if let (What::Select(selected), Some(code)) = (&mut relayed.what, &code) {
            selected.note(code);
        }
        // A login's list is that of the authenticated state.
        self.facts.authenticated |= ok && matches!(relayed.what, What::Login);
        match code {
            Some(Code::Capability(_)) => self.relay_capabilities(line),
            _ => self.to_client.extend_from_slice(line),
        }
        self.done_relaying(status, relayed);
        self.pass_barrier(now);
    }

    fn done_relaying(&mut self, status: Status, relayed: Relayed) {
        let ok = status == Status::Ok;
        if ok {
            self.facts.saved_result |= relayed.effects.saves_result;
            self.facts.foreign |= relayed.effects.context;
            self.facts.features.condstore |= relayed.effects.condstore;
        }
        match (relayed.what, ok) {
            (What::Login, true) => {
                if let Some(sasl) = self.sasl.take() {
                    self.facts.written_user = sasl.identity().map(str::to_owned);
                    if matches!(self.rules.reentry, Reentry::Credentials) {
                        self.facts.login = sasl.plain().map(|(authzid, held)| Box::new(Login::Plain(authzid, held)));
                    }
                }
                self.authenticated(self.facts.written_user.clone());
            }
            (What::Login, false) => {
                self.sasl = None;
                (self.facts.written_user, self.facts.login) = (None, None);
                self.facts.offers_are_known = false;
                self.hold = Hold::No;
            }
            (What::Select(selected), true) => {
                self.facts.saved_result = false;
                self.facts.selected = Some(selected);
            }
            // A failed SELECT leaves nothing selected (RFC 9051 6.3.2); one that is no command changes nothing.
            (What::Select(_), false) if status == Status::Bad => {}
            (What::Select(_), false) | (What::Unselect, true) => self.facts.selected = None,
            (What::Notify, true) => self.facts.foreign = true,
            (What::Acl(change), true) => self.acl_changed(change),
            // Under which name it is selected now, only a new SELECT tells.
            (What::Rename, true) => self.facts.selected.iter_mut().for_each(|selected| selected.renamed = true),
            _ => {}
        }
    }

    fn authenticated(&mut self, user: Option<String>) {
        self.facts.authenticated = true;
        self.login_due = None;
        self.hold = Hold::Admission;
        self.actions.push_back(Action::Authenticated { user });
    }

    /// IDLE begins once all commands before it are answered.
    fn pass_barrier(&mut self, now: Instant) {
        if self.due.is_empty()
            && let Hold::Barrier { tag } = &mut self.hold
        {
            let tag = std::mem::take(tag);
            self.hold = Hold::Idle;
            self.begin_idle(now, tag);
        }
    }
}

/// Whether nothing stands behind IDLE (RFC 2177): a literal there would be read as what ends it.
pub(super) fn is_bare_idle(head: &Head<'_>, line: &[u8]) -> bool {
    line.trim_ascii_end().len() == head.tag.len() + b" IDLE".len()
}

pub(super) fn answer(tag: &[u8], words: &str) -> Vec<u8> {
    let mut line = tag.to_vec();
    line.push(b' ');
    line.extend_from_slice(words.as_bytes());
    line.extend_from_slice(b"\r\n");
    line
}
