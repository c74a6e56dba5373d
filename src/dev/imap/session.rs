//! One connection's state, and which command goes where.

use std::borrow::Cow;
use std::time::{Duration, Instant};

use data_encoding::BASE64;
use imap_codec::CommandCodec;
use imap_codec::decode::Decoder;
use imap_codec::imap_types::auth::AuthMechanism;
use imap_codec::imap_types::command::{Command, CommandBody};
use imap_codec::imap_types::extensions::enable::CapabilityEnable;
use zeroize::Zeroizing;

use super::framing::{CommandReader, Input};
use super::grammar::Reader;
use super::view::{Extensions, Selected};
use crate::dev::store::mailbox::Stamp;
use crate::dev::store::model::{Model, Refusal};
use crate::mail::UserName;
use crate::mail::rights::Rights;
use crate::wire::imap::credentials::Credentials;

/// Silence after which a client is logged out (RFC 9051 5.4: not less than 30 minutes).
const AUTOLOGOUT: Duration = Duration::from_secs(31 * 60);
/// Silence before a login.
const LOGIN_DEADLINE: Duration = Duration::from_secs(60);
/// What may wait to be written before no more commands are taken.
const MAX_UNWRITTEN: usize = 256 * 1024;

/// What a server is like; the same for all its connections.
#[derive(Debug, Clone)]
pub struct Traits {
    /// Who may be anybody, by SASL PLAIN's authorization identity.
    pub master: Credentials,
    pub esearch: bool,
    pub idle: bool,
    /// CONDSTORE, and with it QRESYNC.
    pub condstore: bool,
}

/// What a command comes to.
#[derive(Debug)]
pub struct Answer {
    kind: &'static str,
    code: Option<String>,
    words: Cow<'static, str>,
}

impl Answer {
    pub fn ok(words: &'static str) -> Self {
        Self { kind: "OK", code: None, words: words.into() }
    }

    pub fn no(words: &'static str) -> Self {
        Self { kind: "NO", code: None, words: words.into() }
    }

    pub fn bad(words: &'static str) -> Self {
        Self { kind: "BAD", code: None, words: words.into() }
    }

    pub fn code(self, code: impl Into<String>) -> Self {
        Self { code: Some(code.into()), ..self }
    }
}

impl From<Refusal> for Answer {
    fn from(refusal: Refusal) -> Self {
        let (code, words) = refusal.told();
        Self::no(words).code(code)
    }
}

/// What the next line is.
#[derive(Debug)]
enum Phase {
    Command,
    /// A response to AUTHENTICATE's empty challenge.
    Sasl {
        tag: String,
    },
    Idle {
        tag: String,
    },
    Closed,
}

/// One client's connection to the store, sans-IO.
#[derive(Debug)]
pub struct Session {
    /// The caller writes and empties it.
    pub to_client: Vec<u8>,
    id: u64,
    pub(super) traits: Traits,
    framer: CommandReader,
    phase: Phase,
    heard: Instant,
    pub(super) user: Option<UserName>,
    pub(super) enabled: Extensions,
    pub(super) selected: Option<Selected>,
}

/// The time, and all there is.
pub(super) struct Context<'a> {
    pub model: &'a mut Model,
    pub stamp: Stamp,
}

impl Session {
    /// `id` is above 0 and of this connection only.
    pub fn new(id: u64, traits: Traits, now: Instant) -> Self {
        let mut session = Self {
            to_client: Vec::new(),
            id,
            traits,
            framer: CommandReader::default(),
            phase: Phase::Command,
            heard: now,
            user: None,
            enabled: Extensions::default(),
            selected: None,
        };
        let greeting = format!("* OK [CAPABILITY {}] mailpush dev store ready\r\n", session.capabilities());
        session.to_client.extend_from_slice(greeting.as_bytes());
        session
    }

    pub fn is_closed(&self) -> bool {
        matches!(self.phase, Phase::Closed)
    }

    /// When [`Self::handle_time`] is due.
    pub fn poll_timeout(&self, model: &Model) -> Option<Instant> {
        let patience = if self.user.is_some() { AUTOLOGOUT } else { LOGIN_DEADLINE };
        let idle = matches!(self.phase, Phase::Idle { .. });
        let due = self
            .selected
            .as_ref()
            .filter(|_| idle)
            .and_then(|selected| selected.basis.next_due(model.mailbox(selected.mailbox)?, model.faults.lag));
        let logout = self.heard + patience;
        (!self.is_closed()).then(|| due.map_or(logout, |due| due.min(logout)))
    }

    /// Whether more of the client's bytes can be taken in.
    pub fn wants_client(&self) -> bool {
        self.to_client.len() < MAX_UNWRITTEN && self.framer.has_room()
    }

    pub fn handle_client(&mut self, model: &mut Model, now: Instant, unix_ms: u64, bytes: &[u8]) {
        self.heard = now;
        self.framer.push(bytes);
        self.handle_backlog(model, now, unix_ms);
    }

    /// Goes on with what came in earlier, once what was to be written is written.
    pub fn handle_backlog(&mut self, model: &mut Model, now: Instant, unix_ms: u64) {
        let stamp = Stamp { now, unix_ms, session: self.id };
        while self.to_client.len() < MAX_UNWRITTEN && !self.is_closed() {
            let Some(framed) = self.framer.next(model.limits.message_bytes) else { return };
            match framed {
                Input::Continue => self.line("+ Go on"),
                Input::Hopeless => self.bye("Too long a line"),
                Input::TooLarge(command) => {
                    let tag = tag_of(&command).unwrap_or("*").to_owned();
                    self.finish(&tag, Answer::no("The literal is too large").code("TOOBIG"));
                }
                Input::Whole(line) => {
                    let line = Zeroizing::new(line);
                    self.handle_line(&mut Context { model, stamp }, &line);
                }
            }
        }
    }

    /// Something changed in the store, or [`Self::poll_timeout`] is over.
    pub fn handle_time(&mut self, model: &mut Model, now: Instant, unix_ms: u64) {
        let patience = if self.user.is_some() { AUTOLOGOUT } else { LOGIN_DEADLINE };
        if now >= self.heard + patience {
            return self.bye("Autologout");
        }
        if matches!(self.phase, Phase::Idle { .. }) {
            let stamp = Stamp { now, unix_ms, session: self.id };
            self.tell_news(&mut Context { model, stamp }, true);
        }
    }

    fn handle_line(&mut self, context: &mut Context<'_>, line: &[u8]) {
        match std::mem::replace(&mut self.phase, Phase::Command) {
            Phase::Command => self.handle_command(context, line),
            Phase::Idle { tag } => {
                let done = line.eq_ignore_ascii_case(b"DONE\r\n");
                self.tell_news(context, true);
                self.finish(&tag, if done { Answer::ok("IDLE is over") } else { Answer::bad("Expected DONE") });
            }
            Phase::Sasl { tag } => {
                let answer = match line.trim_ascii_end() {
                    b"*" => Answer::bad("Authentication is cancelled"),
                    response => self.plain(context, BASE64.decode(response).ok()),
                };
                self.finish(&tag, answer);
            }
            Phase::Closed => self.phase = Phase::Closed,
        }
    }

    fn handle_command(&mut self, context: &mut Context<'_>, line: &[u8]) {
        let Some(tag) = tag_of(line) else { return self.line("* BAD A command begins with a tag") };
        let mut reader = Reader::new(&line[tag.len() + 1..]);
        let uid = reader.take("UID ");
        let verb = reader.atom().unwrap_or_default().to_ascii_uppercase();
        // FETCH, STORE and SEARCH by number must not shift the numbers (RFC 9051 7.5.1).
        let may_shift = uid || !matches!(verb.as_str(), "FETCH" | "STORE" | "SEARCH");
        if self.is_gone(context) {
            return self.bye("The selected mailbox is gone, or your rights on it are");
        }
        self.catch_up(context);
        let answer = self.own_grammar(context, uid, &verb, reader, tag).or_else(|| {
            let (rest, command) = CommandCodec::default().decode(line).ok()?;
            rest.is_empty().then(|| self.codec_grammar(context, command)).flatten()
        });
        // Waiting for the rest of AUTHENTICATE or IDLE, or closed.
        if !matches!(self.phase, Phase::Command) {
            return;
        }
        self.tell_news(context, may_shift);
        if !self.is_closed() {
            self.finish(tag, answer.unwrap_or_else(|| Answer::bad("This command is not understood")));
        }
    }

    /// Commands that imap-codec cannot read; `None` for all others.
    fn own_grammar(&mut self, context: &mut Context<'_>, uid: bool, verb: &str, reader: Reader<'_>, tag: &str) -> Option<Answer> {
        let mut reader = reader;
        let user = self.user.clone()?;
        match (verb, uid) {
            ("LIST", false) => {
                reader.space()?;
                self.list(context, &user, reader)
            }
            ("MYRIGHTS" | "GETACL" | "SETACL" | "DELETEACL" | "LISTRIGHTS", false) => {
                reader.space()?;
                self.acl(context, &user, verb, reader)
            }
            ("SEARCH", _) if self.traits.esearch && reader.take(" RETURN ") => {
                let returned = reader.options()?.into_iter().map(|(option, _)| option.to_ascii_uppercase()).collect();
                // The rest is what imap-codec knows.
                let plain = [b"x SEARCH".as_slice(), reader.rest()].concat();
                let Ok((b"", command)) = CommandCodec::default().decode(&plain) else { return None };
                let CommandBody::Search { charset, criteria, .. } = command.body else { return None };
                Some(self.search(context, charset, criteria, uid, Some((tag, returned))))
            }
            _ => None,
        }
    }

    fn codec_grammar(&mut self, context: &mut Context<'_>, command: Command<'_>) -> Option<Answer> {
        let tag = command.tag.as_ref();
        Some(match command.body {
            CommandBody::Capability => {
                self.line(&format!("* CAPABILITY {}", self.capabilities()));
                Answer::ok("These are they")
            }
            CommandBody::Noop => Answer::ok("Nothing done"),
            CommandBody::Logout => {
                self.line("* BYE Until next time");
                self.finish(tag, Answer::ok("Logged out"));
                self.phase = Phase::Closed;
                return None;
            }
            CommandBody::Id { .. } => {
                self.line(&format!("* ID (\"name\" \"mailpush dev\" \"version\" \"{}\")", env!("CARGO_PKG_VERSION")));
                Answer::ok("That is who this is")
            }
            CommandBody::Login { .. } | CommandBody::Authenticate { .. } if self.user.is_some() => {
                Answer::bad("You are logged in already")
            }
            CommandBody::Login { username, password } => {
                let user = String::from_utf8_lossy(username.as_ref()).into_owned();
                let password = Zeroizing::new(password.declassify().as_ref().to_vec());
                self.log_in(context, "", &user, &password)
            }
            CommandBody::Authenticate { mechanism: AuthMechanism::Plain, initial_response: Some(response) } => {
                self.plain(context, Some(response.declassify().to_vec()))
            }
            CommandBody::Authenticate { mechanism: AuthMechanism::Plain, initial_response: None } => {
                self.line("+ ");
                self.phase = Phase::Sasl { tag: tag.to_owned() };
                return None;
            }
            CommandBody::Authenticate { .. } => Answer::no("Only PLAIN is known here"),
            body => match self.user.clone() {
                Some(user) => return self.authenticated(context, &user, tag, body),
                None => Answer::bad("Log in first"),
            },
        })
    }

    fn authenticated(&mut self, context: &mut Context<'_>, user: &UserName, tag: &str, body: CommandBody<'_>) -> Option<Answer> {
        match body {
            CommandBody::Idle if self.traits.idle => {
                self.line("+ idling");
                self.phase = Phase::Idle { tag: tag.to_owned() };
                self.tell_news(context, true);
                None
            }
            CommandBody::Enable { capabilities } => {
                let mut enabled = Vec::new();
                for capability in capabilities {
                    match capability {
                        CapabilityEnable::CondStore if self.traits.condstore => {
                            self.enabled.condstore = true;
                            enabled.push("CONDSTORE");
                        }
                        other if self.traits.condstore && other.to_string().eq_ignore_ascii_case("QRESYNC") => {
                            self.enabled = Extensions { condstore: true, qresync: true };
                            enabled.push("QRESYNC");
                        }
                        _ => {}
                    }
                }
                let enabled: String = enabled.iter().flat_map(|name| [" ", name]).collect();
                self.line(&format!("* ENABLED{enabled}"));
                Some(Answer::ok("Enabled"))
            }
            CommandBody::Select { mailbox, parameters } => Some(self.select(context, user, &mailbox, parameters, false)),
            CommandBody::Examine { mailbox, parameters } => Some(self.select(context, user, &mailbox, parameters, true)),
            body => self.on_mailboxes(context, user, body),
        }
    }

    pub(super) fn has_condstore(&self) -> bool {
        self.traits.condstore
    }

    /// What the user may do in the selected mailbox, now.
    pub(super) fn rights(&self, context: &Context<'_>) -> Rights {
        let mailbox = self.selected.as_ref().and_then(|selected| context.model.mailbox(selected.mailbox));
        mailbox.zip(self.user.as_ref()).map(|(mailbox, user)| mailbox.rights(user)).unwrap_or_default()
    }

    fn is_gone(&self, context: &Context<'_>) -> bool {
        self.selected.is_some() && !self.rights(context).has('r')
    }

    /// Takes in what may be seen by now, without telling it.
    pub(super) fn catch_up(&mut self, context: &Context<'_>) {
        if let Some(selected) = &mut self.selected
            && let Some(mailbox) = context.model.mailbox(selected.mailbox)
        {
            selected.behind |= selected.basis.catch_up(mailbox, context.stamp.now, context.model.faults.lag, self.id);
        }
    }

    /// Tells what is new in the selected mailbox.
    fn tell_news(&mut self, context: &mut Context<'_>, expunge: bool) {
        if self.is_gone(context) {
            return self.bye("The selected mailbox is gone, or your rights on it are");
        }
        self.catch_up(context);
        let rights = self.rights(context);
        if let Some(selected) = &mut self.selected
            && let Some(mailbox) = context.model.mailbox_mut(selected.mailbox)
        {
            selected.tell(&mut self.to_client, mailbox, rights, self.enabled, expunge);
        }
    }

    pub(super) fn line(&mut self, line: &str) {
        self.to_client.extend_from_slice(line.as_bytes());
        self.to_client.extend_from_slice(b"\r\n");
    }

    /// Ends the session.
    pub fn bye(&mut self, words: &str) {
        self.line(&format!("* BYE {words}"));
        self.phase = Phase::Closed;
    }

    fn finish(&mut self, tag: &str, answer: Answer) {
        let code = answer.code.map(|code| format!("[{code}] ")).unwrap_or_default();
        self.line(&format!("{tag} {} {code}{}", answer.kind, answer.words));
    }
}

/// A command's tag: ASTRING-CHARs but `+` (RFC 9051 section 9).
fn tag_of(line: &[u8]) -> Option<&str> {
    let tag = &line[..memchr::memchr(b' ', line)?];
    let good = |b: &u8| b.is_ascii_graphic() && !b"(){%*\"\\+".contains(b);
    (!tag.is_empty() && tag.len() <= 1_000 && tag.iter().all(good)).then(|| std::str::from_utf8(tag).ok()).flatten()
}
