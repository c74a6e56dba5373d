//! Reading the events of a request's body, in any of their formats.

use axum::http::{HeaderMap, StatusCode, header};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::problem::Problem;
use crate::mail::codec::{DecodeError, Defaults, from_json, from_msgpack, split_msgpack};
use crate::mail::event::{Change, Event};
use crate::mail::path::InvalidPath;
use crate::mail::rights::{Entry, RightsChange};
use crate::mail::user::{InvalidUser, UserNames};
use crate::push::clock::{new_event_id, unix_ms};

/// Events in one request, at most: they are published side by side.
const BATCH: usize = 1_000;

/// The events of a body, each with its own fate.
pub type Parsed = Vec<Result<Event, DecodeError>>;

/// Reads events as their origins send them, and brings their owners to the normal form.
#[derive(Debug, Clone, Copy)]
pub struct EventReader<'a> {
    pub names: &'a UserNames,
    /// The origin of events that name none.
    pub origin: &'a str,
}

impl EventReader<'_> {
    /// Reads a body by its content type: one event or a batch. An error only if the body as a whole
    /// makes no sense.
    pub fn read(&self, headers: &HeaderMap, body: &[u8]) -> Result<Parsed, Problem> {
        let content_type = headers.get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or_default();
        let format = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        let parsed = match format.as_str() {
            "application/msgpack" | "application/vnd.msgpack" | "application/x-msgpack" => self.msgpack(body),
            "application/json" => self.json(body),
            "application/x-ndjson" => self.ndjson(body),
            _ => {
                let detail = "send events as application/json, application/x-ndjson or application/msgpack";
                return Err(Problem::unsupported(detail));
            }
        }?;
        if parsed.len() > BATCH {
            return Err(Problem::new(StatusCode::PAYLOAD_TOO_LARGE, format!("at most {BATCH} events in one request")));
        }
        if parsed.is_empty() {
            return Err(Problem::bad_request("there is no event in the body"));
        }
        Ok(parsed)
    }

    fn one(&self, read: impl FnOnce(Defaults<'_>) -> Result<Event, DecodeError>) -> Result<Event, DecodeError> {
        let event = read(Defaults { id: new_event_id(), at: unix_ms(), origin: self.origin })?;
        normalise(event, self.names)
    }

    fn msgpack(&self, body: &[u8]) -> Result<Parsed, Problem> {
        let events = split_msgpack(body).map_err(|error| Problem::bad_request(error.to_string()))?;
        Ok(events.into_iter().map(|event| self.one(|d| from_msgpack(event, Some(d)))).collect())
    }

    fn json(&self, body: &[u8]) -> Result<Parsed, Problem> {
        let events: Vec<&RawValue> = match body.trim_ascii_start().first() {
            None => return Ok(Vec::new()),
            Some(b'[') => well_formed(body)?,
            Some(_) => vec![well_formed(body)?],
        };
        Ok(events.into_iter().map(|event| self.one(|d| from_json(event.get().as_bytes(), Some(d)))).collect())
    }

    /// Its lines stand for themselves: as long as one of them is JSON, the others are told their
    /// own fate.
    fn ndjson(&self, body: &[u8]) -> Result<Parsed, Problem> {
        let lines = || body.split(|b| *b == b'\n').map(<[u8]>::trim_ascii).filter(|line| !line.is_empty());
        if !lines().any(|line| well_formed::<&RawValue>(line).is_ok())
            && let Some(first) = lines().next()
        {
            well_formed::<&RawValue>(first)?;
        }
        Ok(lines().map(|line| self.one(|d| from_json(line, Some(d)))).collect())
    }
}

/// The event with every owner in the normal form.
pub fn normalise(mut event: Event, names: &UserNames) -> Result<Event, DecodeError> {
    let bad = |error: InvalidPath| DecodeError::Field { field: "mailbox", reason: error.to_string() };
    event.mailbox = event.mailbox.normalised(names).map_err(bad)?;
    match &mut event.change {
        Change::MailboxRename { to } => *to = to.normalised(names).map_err(bad)?,
        Change::AccountRename { to } => {
            let bad = |error: InvalidUser| DecodeError::Field { field: "to", reason: error.to_string() };
            *to = names.normalise(to.as_str()).map_err(bad)?;
        }
        Change::AclChange { identifier, rights } => {
            // A mail server may know identifiers and rights that are not known here. The change is
            // told as it is: nodes take it to be about anybody.
            if let Ok(entry) = Entry::read(identifier, names) {
                *identifier = entry.to_string();
            }
            if let Ok(change) = rights.parse::<RightsChange>() {
                *rights = change.to_string();
            }
        }
        _ => {}
    }
    Ok(event)
}

/// Well-formed JSON, without reading what is in it.
fn well_formed<'a, T: Deserialize<'a>>(text: &'a [u8]) -> Result<T, Problem> {
    serde_json::from_slice(text)
        .map_err(|error| Problem::bad_request(format!("not valid JSON at line {} column {}", error.line(), error.column())))
}
