//! What a mail server says to the agent: checked, spooled, answered. Nothing here waits for the cluster.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::Serialize;
use sha2::{Digest, Sha256};
use tower_http::catch_panic::CatchPanicLayer;
use tracing::warn;

use super::dovecot::{Stamp, translate};
use super::metrics::AgentMetrics;
use super::naming::Naming;
use super::pipeline::Pipeline;
use super::spool::{Spool, SpoolError};
use crate::http::bearer;
use crate::http::events::EventReader;
use crate::http::problem::Problem;
use crate::http::server::Peer;
use crate::mail::codec::to_msgpack;
use crate::mail::event::Event;
use crate::mail::ids::EventId;
use crate::push::clock::unix_ms;
use crate::push::metrics::Metrics;

/// How long a request may take: its body, and the write into the spool of a slow disk.
const PATIENCE: Duration = Duration::from_secs(10);

/// What the routes share.
pub struct Intake {
    pub spool: Arc<Spool>,
    pub pipeline: Arc<Pipeline>,
    pub naming: Naming,
    /// The origin of events that name none.
    pub origin: String,
    pub metrics: Arc<AgentMetrics>,
    /// The publisher's.
    pub published: Arc<Metrics>,
    pub body_limit: usize,
    /// The digest of the token that requests over TCP must carry.
    pub token: Option<[u8; 32]>,
}

/// The digest of a token: tokens are compared by it, so that the time taken tells nothing of them.
pub fn digest(token: &str) -> [u8; 32] {
    Sha256::digest(token).into()
}

/// Every route of an agent.
pub fn router(intake: Arc<Intake>) -> Router {
    let guarded = Router::new()
        .route("/v1/ingest/dovecot", post(dovecot))
        .route("/v1/events", post(events))
        .layer(middleware::from_fn_with_state(intake.clone(), authorise));
    Router::new()
        .route("/livez", get(live))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
        .merge(guarded)
        .fallback(|| async { Problem::not_found("there is nothing at this path") })
        .method_not_allowed_fallback(|| async {
            Problem::new(StatusCode::METHOD_NOT_ALLOWED, "this path does not take this method")
        })
        .layer(DefaultBodyLimit::max(intake.body_limit))
        .layer(middleware::from_fn(bound))
        .layer(CatchPanicLayer::custom(|_: Box<dyn std::any::Any + Send>| {
            Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "the agent failed at this request; its log says more").into_response()
        }))
        .with_state(intake)
}

async fn bound(request: Request, next: Next) -> Response {
    let answered = tokio::time::timeout(PATIENCE, next.run(request)).await;
    answered.unwrap_or_else(|_| Problem::unavailable("the request took too long").into_response())
}

/// Whoever may write to the Unix socket needs no token.
async fn authorise(State(intake): State<Arc<Intake>>, request: Request, next: Next) -> Result<Response, Problem> {
    if let (Some(expected), Some(_)) = (intake.token, request.extensions().get::<Peer>()) {
        let token = bearer(request.headers())?.ok_or_else(Problem::no_token)?;
        if digest(token) != expected {
            AgentMetrics::count(&intake.metrics.refused, "reason", "token", 1);
            return Err(Problem::new(StatusCode::UNAUTHORIZED, "this is not the agent's token").with_code("invalid_token"));
        }
    }
    Ok(next.run(request).await)
}

/// `POST /v1/ingest/dovecot`: a transaction of Dovecot's, as our script tells it.
async fn dovecot(State(intake): State<Arc<Intake>>, body: Result<Bytes, BytesRejection>) -> Result<Response, Problem> {
    let body = whole(&intake, body)?;
    let stamp = Stamp { at: unix_ms(), origin: &intake.origin };
    let events = translate(&body, &intake.naming, stamp).map_err(|error| {
        AgentMetrics::count(&intake.metrics.refused, "reason", "malformed", 1);
        warn!(%error, "a document of Dovecot's script cannot be read");
        Problem::bad_request(error.to_string())
    })?;
    let ids: Vec<EventId> = events.iter().map(|event| event.id).collect();
    intake.spool("dovecot", events).await?;
    Ok((StatusCode::ACCEPTED, Json(serde_json::json!({ "events": ids }))).into_response())
}

/// What became of one event of a batch.
#[derive(Serialize)]
struct Outcome {
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<EventId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

/// `POST /v1/events`: events as a gateway takes them; 202 if all are spooled, 422 if some are none.
async fn events(
    State(intake): State<Arc<Intake>>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Problem> {
    let body = whole(&intake, body)?;
    let reader = EventReader { names: &intake.naming.names, origin: &intake.origin };
    let parsed = reader.read(&headers, &body).inspect_err(|_| {
        AgentMetrics::count(&intake.metrics.refused, "reason", "malformed", 1);
    })?;
    let outcomes: Vec<Outcome> = parsed
        .iter()
        .map(|event| match event {
            Ok(event) => Outcome { id: Some(event.id), error: None },
            Err(error) => Outcome { id: None, error: Some(error.to_string()) },
        })
        .collect();
    intake.spool("events", parsed.into_iter().flatten().collect()).await?;
    let results = serde_json::to_value(&outcomes).unwrap_or_default();
    if outcomes.iter().any(|outcome| outcome.error.is_some()) {
        let detail = "not every entry is an event: see the results";
        return Err(Problem::new(StatusCode::UNPROCESSABLE_ENTITY, detail).with_results(results));
    }
    Ok((StatusCode::ACCEPTED, Json(serde_json::json!({ "results": results }))).into_response())
}

fn whole(intake: &Intake, body: Result<Bytes, BytesRejection>) -> Result<Bytes, Problem> {
    body.map_err(|rejection| {
        AgentMetrics::count(&intake.metrics.refused, "reason", "body", 1);
        Problem::new(rejection.status(), rejection.body_text())
    })
}

impl Intake {
    /// Appends events to the spool, all or none.
    async fn spool(&self, way: &'static str, events: Vec<Event>) -> Result<(), Problem> {
        if events.is_empty() {
            return Ok(());
        }
        let count = events.len();
        let spool = self.spool.clone();
        // A disk may stall: that must not hold up the other requests.
        let appended = tokio::task::spawn_blocking(move || {
            let mut payloads = Vec::with_capacity(events.len());
            for event in &events {
                let mut payload = Vec::new();
                to_msgpack(event, &mut payload);
                payloads.push(payload);
            }
            spool.append(payloads.iter().map(Vec::as_slice))
        });
        let reason = match appended.await {
            Ok(Ok(())) => {
                AgentMetrics::count(&self.metrics.received, "way", way, count);
                return Ok(());
            }
            Ok(Err(error)) => {
                let reason = if matches!(error, SpoolError::Full(_)) { "full" } else { "disk" };
                AgentMetrics::count(&self.metrics.refused, "reason", reason, 1);
                warn!(%error, events = count, "events are refused");
                error.to_string()
            }
            Err(_) => "the spool failed".to_owned(),
        };
        Err(Problem::unavailable(reason))
    }
}

/// `GET /livez`: the process runs.
async fn live() -> Response {
    Json(serde_json::json!({ "status": "ok" })).into_response()
}

/// `GET /readyz`: whether events are taken in. Publishing may be in trouble meanwhile: that is what the spool is for.
async fn ready(State(intake): State<Arc<Intake>>) -> Response {
    let backlog = intake.spool.backlog();
    let ok = intake.spool.has_room(intake.body_limit as u64);
    let trouble = intake.pipeline.trouble();
    let body = serde_json::json!({
        "status": if ok { "ok" } else { "unavailable" },
        "detail": if ok { "events are taken in" } else { "the spool is full" },
        "dependencies": [
            { "name": "spool", "ok": ok, "detail": format!("{} events wait, {} bytes", backlog.records, backlog.bytes) },
            { "name": "cluster", "ok": trouble.is_none(), "detail": trouble.unwrap_or_else(|| "no trouble".to_owned()) },
        ],
    });
    (if ok { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }, Json(body)).into_response()
}

/// `GET /metrics`: OpenMetrics text.
async fn metrics(State(intake): State<Arc<Intake>>) -> Response {
    let kind = HeaderValue::from_static("application/openmetrics-text; version=1.0.0; charset=utf-8");
    let text = intake.metrics.render(&intake.published.render(), intake.spool.backlog());
    ([(header::CONTENT_TYPE, kind)], text).into_response()
}
