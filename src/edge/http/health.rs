//! `/livez`, `/readyz` and `/metrics`: for probes and Prometheus, without a token.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::json;

use crate::cluster::registry::RegistryHealth;
use crate::edge::gateway::Gateway;

/// `GET /livez`: the process runs; restarting it would help nothing that this does not say.
pub async fn live() -> Response {
    Json(json!({ "status": "ok" })).into_response()
}

/// A registry's state in plain words.
pub fn registry_words(health: &RegistryHealth) -> String {
    match health {
        RegistryHealth::Connected => "connected".to_owned(),
        RegistryHealth::Disconnected { reason } => format!("disconnected: {reason}"),
        RegistryHealth::InDoubt { reason } => format!("registrations in doubt: {reason}"),
        RegistryHealth::Lost { reason } => format!("registrations lost: {reason}"),
    }
}

/// `GET /readyz`: whether new clients should come here, and which dependency is in the way.
pub async fn ready(State(gateway): State<Arc<Gateway>>) -> Response {
    let registry = gateway.registry_health.borrow().clone();
    let queue = gateway.queue_health.borrow().clone();
    let keys = gateway.auth.health();
    let has_keys = keys.usable_keys > 0;
    let refusal = gateway.refusal();
    let ok = registry.is_connected() && queue.state.is_good() && has_keys && refusal.is_none();
    let keys_words = match keys.last_error {
        Some(error) => format!("{} usable; the last refresh failed: {error}", keys.usable_keys),
        None => format!("{} usable", keys.usable_keys),
    };
    let mut dependencies = vec![
        json!({ "name": "registry", "ok": registry.is_connected(), "detail": registry_words(&registry) }),
        json!({ "name": "queue", "ok": queue.state.is_good(), "detail": queue.state.to_string() }),
        json!({ "name": "token keys", "ok": has_keys, "detail": keys_words }),
    ];
    // Told, but no reason to send clients elsewhere: the other nodes have the same mail servers.
    dependencies.extend(gateway.upstreams.get().map(|upstreams| {
        let (well, all) = upstreams.well();
        json!({ "name": "mail servers", "ok": well > 0, "detail": format!("{well} of {all} answer") })
    }));
    let body = json!({
        "status": if ok { "ok" } else { "unavailable" },
        "draining": gateway.is_draining(),
        "detail": refusal.unwrap_or("sessions are taken in"),
        "dependencies": dependencies,
    });
    (if ok { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }, Json(body)).into_response()
}

/// Whose numbers these are: behind a load balancer each answer may be another node's.
const NODE: HeaderName = HeaderName::from_static("mailpush-node");

/// `GET /metrics`: OpenMetrics text.
pub async fn metrics(State(gateway): State<Arc<Gateway>>) -> Response {
    let kind = HeaderValue::from_static("application/openmetrics-text; version=1.0.0; charset=utf-8");
    let mut response = ([(header::CONTENT_TYPE, kind)], gateway.render_metrics()).into_response();
    // A node's id is letters, digits, `-` and `_`, so that it always is a header's value too.
    if let Ok(node) = HeaderValue::from_str(gateway.node().as_str()) {
        response.headers_mut().insert(NODE, node);
    }
    response
}
