//! `POST /v1/events`: takes in events from an origin and publishes them.

use std::sync::Arc;

use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use axum::extract::rejection::BytesRejection;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde_json::value::RawValue;

use super::Caller;
use super::problem::Problem;
use crate::cluster::queue::QueueName;
use crate::edge::auth::Scopes;
use crate::edge::gateway::{Gateway, unix_ms};
use crate::mail::codec::{DecodeError, Defaults, from_json, from_msgpack, split_msgpack};
use crate::mail::event::{Change, Event};
use crate::mail::ids::EventId;
use crate::mail::user::UserNames;

/// Events in one request, at most: they are published side by side.
const BATCH: usize = 1_000;

/// What became of one event.
#[derive(Debug, Serialize)]
struct Outcome {
    /// The event's id: publish it again under the same one, and it is told once.
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<EventId>,
    /// The queues that took it; empty if nobody wants it.
    queues: Vec<QueueName>,
    /// Whether it went to every known node, for the registry could not be trusted.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    everyone: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    /// Whether the same event may succeed later.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    temporary: bool,
}

/// The status tells the worst: 200 all published, 422 some are no events, 503 some should be sent again; the results
/// tell each event's own fate.
pub async fn publish(
    State(gateway): State<Arc<Gateway>>,
    caller: Caller,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Problem> {
    caller.must(Scopes::EVENTS_PUBLISH, "events:publish")?;
    let body = body.map_err(|rejection| Problem::new(rejection.status(), rejection.body_text()))?;
    let content_type = headers.get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or_default();
    let format = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    let parsed = match format.as_str() {
        "application/msgpack" | "application/vnd.msgpack" | "application/x-msgpack" => read_msgpack(&gateway, &body),
        "application/json" => read_json(&gateway, &body),
        "application/x-ndjson" => Ok(read_ndjson(&gateway, &body)),
        _ => {
            let detail = "send events as application/json, application/x-ndjson or application/msgpack";
            return Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, detail));
        }
    }?;
    if parsed.len() > BATCH {
        return Err(Problem::new(StatusCode::PAYLOAD_TOO_LARGE, format!("at most {BATCH} events in one request")));
    }
    if parsed.is_empty() {
        return Err(Problem::bad_request("there is no event in the body"));
    }
    let events: Vec<Event> = parsed.iter().filter_map(|event| event.as_ref().ok().cloned()).collect();
    let mut published = gateway.publisher.publish_batch(&events).await.into_iter();
    let outcomes: Vec<Outcome> = parsed
        .into_iter()
        .map(|event| match event {
            Err(error) => {
                Outcome { id: None, queues: Vec::new(), everyone: false, error: Some(error.to_string()), temporary: false }
            }
            Ok(event) => match published.next() {
                Some(Ok(done)) => {
                    Outcome { id: Some(event.id), queues: done.queues, everyone: done.everyone, error: None, temporary: false }
                }
                Some(Err(error)) => Outcome {
                    id: Some(event.id),
                    queues: Vec::new(),
                    everyone: false,
                    temporary: error.is_transient(),
                    error: Some(error.to_string()),
                },
                None => Outcome { id: Some(event.id), queues: Vec::new(), everyone: false, error: None, temporary: true },
            },
        })
        .collect();
    let results = serde_json::to_value(&outcomes).unwrap_or_default();
    if outcomes.iter().any(|o| o.temporary) {
        return Err(
            Problem::unavailable("not every event was published: send them again, with the ids given here").with_results(results)
        );
    }
    if outcomes.iter().any(|o| o.error.is_some()) {
        let detail = "not every entry could be published: see the results";
        return Err(Problem::new(StatusCode::UNPROCESSABLE_ENTITY, detail).with_results(results));
    }
    Ok(Json(serde_json::json!({ "results": results })).into_response())
}

type Parsed = Vec<Result<Event, DecodeError>>;

/// Reads one event and brings its owners to the normal form.
fn read_one(gateway: &Gateway, read: impl FnOnce(Defaults<'_>) -> Result<Event, DecodeError>) -> Result<Event, DecodeError> {
    let origin = &gateway.settings.node.origin;
    let event = read(Defaults { id: EventId::now(), at: unix_ms(), origin })?;
    normalise(event, &gateway.names)
}

/// The event with every owner in the normal form.
pub fn normalise(mut event: Event, names: &UserNames) -> Result<Event, DecodeError> {
    let bad = |error: crate::mail::path::InvalidPath| DecodeError::Field { field: "mailbox", reason: error.to_string() };
    event.mailbox = event.mailbox.normalised(names).map_err(bad)?;
    if let Change::MailboxRename { to } = &mut event.change {
        *to = to.normalised(names).map_err(bad)?;
    }
    Ok(event)
}

fn read_msgpack(gateway: &Gateway, body: &[u8]) -> Result<Parsed, Problem> {
    let events = split_msgpack(body).map_err(|error| Problem::bad_request(error.to_string()))?;
    Ok(events.into_iter().map(|event| read_one(gateway, |d| from_msgpack(event, Some(d)))).collect())
}

fn read_json(gateway: &Gateway, body: &[u8]) -> Result<Parsed, Problem> {
    let one = |text: &[u8]| read_one(gateway, |d| from_json(text, Some(d)));
    let events: serde_json::Result<Vec<&RawValue>> = match body.trim_ascii_start().first() {
        Some(b'[') => serde_json::from_slice(body),
        _ => serde_json::from_slice(body).map(|event| vec![event]),
    };
    let events = events
        .map_err(|error| Problem::bad_request(format!("not valid JSON at line {} column {}", error.line(), error.column())))?;
    Ok(events.into_iter().map(|event| one(event.get().as_bytes())).collect())
}

fn read_ndjson(gateway: &Gateway, body: &[u8]) -> Parsed {
    let lines = body.split(|b| *b == b'\n').map(<[u8]>::trim_ascii).filter(|line| !line.is_empty());
    lines.map(|line| read_one(gateway, |d| from_json(line, Some(d)))).collect()
}
