//! `POST /v1/events`: takes in events from an origin and publishes them.

use std::sync::Arc;

use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use axum::extract::rejection::BytesRejection;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use super::caller::Caller;
use super::problem::Problem;
use crate::cluster::queue::QueueName;
use crate::edge::auth::Scopes;
use crate::edge::gateway::Gateway;
use crate::http::events::EventReader;
use crate::mail::event::Event;
use crate::mail::ids::EventId;

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

/// 400 if the body as a whole makes no sense. Else the status tells the worst: 200 all published,
/// 422 some are no events, 503 some should be sent again; the results tell each event's own fate.
pub async fn publish(
    State(gateway): State<Arc<Gateway>>,
    caller: Caller,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Problem> {
    caller.must(Scopes::EVENTS_PUBLISH, "events:publish")?;
    let body = body.map_err(|rejection| Problem::new(rejection.status(), rejection.body_text()))?;
    let parsed = EventReader { names: &gateway.names, origin: &gateway.settings.node.origin }.read(&headers, &body)?;
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
