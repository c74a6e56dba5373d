//! What clients say: one JSON object a frame, with an `id` and one command.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::mail::codec::EnvelopeFields;
use crate::mail::event::{EventType, EventTypes};
use crate::mail::key::Key;
use crate::mail::path::MailboxPath;
use crate::mail::user::UserNames;

/// A client's command, checked.
#[derive(Debug, Clone, PartialEq)]
pub enum Command {
    Connect { token: String, resume: Option<Resume> },
    Subscribe(Subscribe),
    Unsubscribe(Key),
    Refresh { token: String },
    Ping,
}

/// What a returning client had.
#[derive(Debug, Clone, PartialEq)]
pub struct Resume {
    /// The last `pos` it saw.
    pub pos: Option<String>,
    pub subscriptions: Vec<Subscribe>,
}

/// A wish to hear of a mailbox or an account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subscribe {
    pub key: Key,
    /// Of an account: the mailboxes that are shared with the user, too.
    pub shared: bool,
    pub types: EventTypes,
    pub fields: EnvelopeFields,
}

/// A frame that was read.
#[derive(Debug, Clone, PartialEq)]
pub enum Frame {
    Command {
        id: u32,
        command: Command,
    },
    /// `{}`: the answer to a heartbeat.
    Heartbeat,
}

/// What a refusal is called, where it is not the token that is wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorName {
    /// The frame is no command, or its parameters make no sense.
    BadRequest,
    UnknownCommand,
    NotConnected,
    /// The token is good and does not allow this.
    Forbidden,
    /// No such mailbox, or one that the user may not look up (I-9).
    NotFound,
    NotSubscribed,
    AlreadyConnected,
    LimitReached,
    /// The user has as many sessions on this node as one user may have.
    TooManySessions,
    /// Not the client's fault.
    Unavailable,
}

impl ErrorName {
    #[allow(dead_code, reason = "for tests")]
    pub const ALL: &[Self] = &[
        Self::BadRequest,
        Self::UnknownCommand,
        Self::NotConnected,
        Self::Forbidden,
        Self::NotFound,
        Self::NotSubscribed,
        Self::AlreadyConnected,
        Self::LimitReached,
        Self::TooManySessions,
        Self::Unavailable,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::BadRequest => "bad_request",
            Self::UnknownCommand => "unknown_command",
            Self::NotConnected => "not_connected",
            Self::Forbidden => "forbidden",
            Self::NotFound => "not_found",
            Self::NotSubscribed => "not_subscribed",
            Self::AlreadyConnected => "already_connected",
            Self::LimitReached => "limit_reached",
            Self::TooManySessions => "too_many_sessions",
            Self::Unavailable => "unavailable",
        }
    }

    /// As a status of HTTP.
    pub fn code(self) -> u16 {
        match self {
            Self::BadRequest | Self::UnknownCommand => 400,
            Self::NotConnected => TOKEN_REFUSED,
            Self::Forbidden => 403,
            Self::NotFound | Self::NotSubscribed => 404,
            Self::AlreadyConnected => 409,
            Self::LimitReached | Self::TooManySessions => 429,
            Self::Unavailable => 503,
        }
    }

    /// Whether the same command may succeed later.
    pub fn is_temporary(self) -> bool {
        matches!(self, Self::TooManySessions | Self::Unavailable)
    }
}

/// The code of whatever is wrong with a token, as a status of HTTP.
pub const TOKEN_REFUSED: u16 = 401;

/// Why a command was refused. One refusal never closes the socket.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CommandError {
    pub code: u16,
    pub name: &'static str,
    pub message: String,
    /// Whether the same command may succeed later.
    pub temporary: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry_after_ms: Option<u64>,
}

/// An error for a frame, with the frame's id where it has one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    pub id: Option<u32>,
    pub error: CommandError,
}

impl CommandError {
    fn new(name: ErrorName, message: impl Into<String>) -> Self {
        let (code, temporary) = (name.code(), name.is_temporary());
        Self { code, name: name.as_str(), message: message.into(), temporary, retry_after_ms: None }
    }

    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::new(ErrorName::BadRequest, message)
    }

    fn unknown_command(message: impl Into<String>) -> Self {
        Self::new(ErrorName::UnknownCommand, message)
    }

    pub fn not_connected() -> Self {
        Self::new(ErrorName::NotConnected, "send connect with a token first")
    }

    pub fn already_connected() -> Self {
        Self::new(ErrorName::AlreadyConnected, "this session is connected already; use refresh for a new token")
    }

    /// The token was refused; `name` is the refusal's stable name.
    pub fn token(name: &'static str, message: impl Into<String>) -> Self {
        Self { code: TOKEN_REFUSED, name, message: message.into(), temporary: false, retry_after_ms: None }
    }

    pub fn forbidden(message: impl Into<String>) -> Self {
        Self::new(ErrorName::Forbidden, message)
    }

    /// The same for a mailbox that does not exist and one that the user may not look up (I-9).
    pub fn not_found() -> Self {
        Self::new(ErrorName::NotFound, "there is no such mailbox, or you may not see it")
    }

    pub fn not_subscribed() -> Self {
        Self::new(ErrorName::NotSubscribed, "this session has no such subscription")
    }

    pub fn limit(message: impl Into<String>) -> Self {
        Self::new(ErrorName::LimitReached, message)
    }

    pub fn too_many_sessions(message: impl Into<String>, retry_after_ms: u64) -> Self {
        Self { retry_after_ms: Some(retry_after_ms), ..Self::new(ErrorName::TooManySessions, message) }
    }

    pub fn unavailable(message: impl Into<String>, retry_after_ms: u64) -> Self {
        Self { retry_after_ms: Some(retry_after_ms), ..Self::new(ErrorName::Unavailable, message) }
    }
}

#[derive(Deserialize)]
struct RawConnect {
    token: String,
    #[serde(default)]
    resume: Option<RawResume>,
}

#[derive(Deserialize)]
struct RawResume {
    #[serde(default)]
    pos: Option<String>,
    #[serde(default)]
    subscriptions: Vec<RawSubscribe>,
}

#[derive(Deserialize)]
struct RawSubscribe {
    #[serde(default)]
    mailbox: Option<String>,
    #[serde(default)]
    account: Option<String>,
    #[serde(default)]
    shared: bool,
    #[serde(default)]
    types: Option<Vec<String>>,
    #[serde(default)]
    fields: Option<Vec<String>>,
}

#[derive(Deserialize)]
struct RawRefresh {
    token: String,
}

const COMMANDS: [&str; 5] = ["connect", "subscribe", "unsubscribe", "refresh", "ping"];

/// Reads one text frame. `names` bring the owner in a mailbox path to the normal form.
pub fn parse(text: &str, names: &UserNames) -> Result<Frame, Refusal> {
    let refuse = |id, error| Refusal { id, error };
    let mut object: Map<String, Value> = serde_json::from_str(text)
        .map_err(|error| refuse(None, CommandError::bad_request(format!("a frame is one JSON object: {}", plain(&error)))))?;
    if object.is_empty() {
        return Ok(Frame::Heartbeat);
    }
    let id = object.get("id").and_then(Value::as_u64).and_then(|id| u32::try_from(id).ok());
    let Some(number) = id else {
        let message = "a command has an id, a number from 0 to 4294967295";
        return Err(refuse(None, CommandError::bad_request(message)));
    };
    let mut named = COMMANDS.iter().filter(|name| object.contains_key(**name)).copied();
    let (name, more) = (named.next(), named.next());
    let (Some(name), None) = (name, more) else {
        let message = format!("a command has one of the keys {}", COMMANDS.join(", "));
        return Err(refuse(id, CommandError::unknown_command(message)));
    };
    let body = object.remove(name).unwrap_or_default();
    let command = parse_command(name, body, names).map_err(|error| refuse(id, error))?;
    Ok(Frame::Command { id: number, command })
}

fn parse_command(name: &str, body: Value, names: &UserNames) -> Result<Command, CommandError> {
    Ok(match name {
        "connect" => {
            let raw: RawConnect = read(name, body)?;
            let resume = raw.resume.map(|raw| {
                let subscriptions = raw.subscriptions.into_iter().map(|s| subscribe(s, names)).collect::<Result<_, _>>()?;
                Ok::<_, CommandError>(Resume { pos: raw.pos, subscriptions })
            });
            Command::Connect { token: raw.token, resume: resume.transpose()? }
        }
        "subscribe" => Command::Subscribe(subscribe(read(name, body)?, names)?),
        "unsubscribe" => Command::Unsubscribe(subscribe(read(name, body)?, names)?.key),
        "refresh" => Command::Refresh { token: read::<RawRefresh>(name, body)?.token },
        _ => Command::Ping,
    })
}

fn read<T: for<'de> Deserialize<'de>>(name: &str, body: Value) -> Result<T, CommandError> {
    serde_json::from_value(body).map_err(|error| CommandError::bad_request(format!("{name}: {}", plain(&error))))
}

/// Serde's words without what they quote of the input: that may be a token.
fn plain(error: &serde_json::Error) -> String {
    match error.classify() {
        serde_json::error::Category::Data => {
            let text = error.to_string();
            match text.split_once(" `").map(|(head, rest)| (head, rest.split('`').next().unwrap_or_default())) {
                Some((head, field)) if head.ends_with("field") => format!("{head} {field}"),
                _ => "a value has the wrong type".to_owned(),
            }
        }
        _ => format!("not valid JSON at line {} column {}", error.line(), error.column()),
    }
}

fn subscribe(raw: RawSubscribe, names: &UserNames) -> Result<Subscribe, CommandError> {
    let key = parse_key(raw.mailbox.as_deref(), raw.account.as_deref(), names).map_err(CommandError::bad_request)?;
    let types = parse_types(raw.types.as_deref()).map_err(CommandError::bad_request)?;
    let fields = parse_fields(raw.fields.as_deref().unwrap_or_default()).map_err(CommandError::bad_request)?;
    if raw.shared && matches!(key, Key::Mailbox(_)) {
        return Err(CommandError::bad_request("shared goes with account, not with mailbox"));
    }
    Ok(Subscribe { key, shared: raw.shared, types, fields })
}

/// The key that a client names: exactly one of mailbox and account, brought to the normal form.
pub fn parse_key(mailbox: Option<&str>, account: Option<&str>, names: &UserNames) -> Result<Key, String> {
    match (mailbox, account) {
        (Some(text), None) => {
            let path = text.parse::<MailboxPath>().and_then(|path| path.normalised(names));
            path.map(Key::Mailbox).map_err(|error| format!("mailbox: {error}"))
        }
        (None, Some(user)) => names.normalise(user).map(Key::Account).map_err(|error| format!("account: {error}")),
        _ => Err("name either a mailbox or an account".to_owned()),
    }
}

/// The types of events asked for; all of them where nothing is said.
pub fn parse_types(types: Option<&[String]>) -> Result<EventTypes, String> {
    let Some(types) = types else { return Ok(EventTypes::ALL) };
    let parse = |text: &String| {
        let known = || EventType::ALL.iter().map(|t| t.as_str()).collect::<Vec<_>>().join(", ");
        text.parse::<EventType>().map_err(|_| format!("types: one of {}", known()))
    };
    types.iter().map(parse).collect()
}

/// The parts of envelopes asked for; none where nothing is said.
pub fn parse_fields(fields: &[String]) -> Result<EnvelopeFields, String> {
    let mut set = EnvelopeFields::NONE;
    for field in fields {
        match field.as_str() {
            "from" => set.from = true,
            "subject" => set.subject = true,
            "message_id" => set.message_id = true,
            _ => return Err("fields: one of from, subject, message_id".to_owned()),
        }
    }
    Ok(set)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(text: &str) -> Result<Frame, Refusal> {
        parse(text, &UserNames::default())
    }

    fn refused(text: &str) -> (Option<u32>, &'static str, String) {
        let refusal = read(text).unwrap_err();
        (refusal.id, refusal.error.name, refusal.error.message)
    }

    #[test]
    fn every_command() {
        let frame = |id, command| Ok(Frame::Command { id, command });
        assert_eq!(read("{}"), Ok(Frame::Heartbeat));
        assert_eq!(read(r#"{"id":1,"ping":{}}"#), frame(1, Command::Ping));
        assert_eq!(read(r#"{"id":2,"refresh":{"token":"t"}}"#), frame(2, Command::Refresh { token: "t".into() }));
        let connect = Command::Connect { token: "t".into(), resume: None };
        assert_eq!(
            read(r#"{"id":3,"connect":{"token":"t","new_in_v2":1},"and":2}"#),
            frame(3, connect),
            "unknown fields are ignored"
        );
        let key = Key::Mailbox("#private:bob:INBOX".parse().unwrap());
        assert_eq!(
            read(r##"{"id":4,"unsubscribe":{"mailbox":"#private:BOB:inbox"}}"##),
            frame(4, Command::Unsubscribe(key.clone()))
        );
        let types = [EventType::MessageNew].into_iter().collect();
        let fields = EnvelopeFields { subject: true, ..EnvelopeFields::NONE };
        let text = r##"{"id":5,"subscribe":{"mailbox":"#private:bob:INBOX","types":["MessageNew"],"fields":["subject"]}}"##;
        assert_eq!(read(text), frame(5, Command::Subscribe(Subscribe { key, shared: false, types, fields })));
    }

    #[test]
    fn bad_frames_say_what_is_wrong_and_never_quote_a_token() {
        assert_eq!(refused("nonsense").0, None);
        assert!(refused("[1]").2.contains("one JSON object"));
        assert!(refused(r#"{"ping":{}}"#).2.contains("has an id"));
        assert!(refused(r#"{"id":-1,"ping":{}}"#).2.contains("has an id"));
        assert_eq!(refused(r#"{"id":7,"dance":{}}"#).1, "unknown_command");
        assert_eq!(refused(r#"{"id":7,"ping":{},"refresh":{"token":"x"}}"#).1, "unknown_command");
        assert_eq!(refused(r#"{"id":7,"connect":{}}"#), (Some(7), "bad_request", "connect: missing field token".into()));
        let text = refused(r#"{"id":7,"connect":"SECRET"}"#).2;
        assert!(!text.contains("SECRET"), "{text}");
        assert!(refused(r#"{"id":7,"subscribe":{"mailbox":"INBOX"}}"#).2.contains("has the form #namespace:owner:name"));
        assert!(refused(r#"{"id":7,"subscribe":{}}"#).2.contains("either a mailbox or an account"));
        assert!(refused(r##"{"id":7,"subscribe":{"account":"bob","types":["x"]}}"##).2.contains("MessageNew"));
        assert!(refused(r##"{"id":7,"subscribe":{"account":"bob","fields":["body"]}}"##).2.contains("subject"));
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in any::<String>()) {
            let _ = read(&text);
        }
    }
}
