//! Errors as RFC 9457 problem documents: the one place that turns errors into HTTP answers.

use std::time::Duration;

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde_json::Value;

/// The code of a request that should have had a token.
pub const NO_TOKEN: &str = "no_token";

/// When to come back to what is not possible now, in seconds.
const RETRY_AFTER: u16 = 2;

/// An answer that is no success.
#[derive(Debug, Clone, Serialize)]
pub struct Problem {
    /// `about:blank`: the title says what the status means (RFC 9457 4.2.1).
    #[serde(rename = "type")]
    kind: &'static str,
    title: &'static str,
    status: u16,
    /// What to do about it.
    detail: String,
    /// A stable word for programs, where the status is not enough.
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<&'static str>,
    /// When to come back, in seconds, where the usual time is not right.
    #[serde(skip)]
    retry_after: Option<u16>,
    /// For a batch: what became of each event.
    #[serde(skip_serializing_if = "Option::is_none")]
    results: Option<Value>,
}

impl Problem {
    /// A problem of this status. `detail` says what to do about it.
    pub fn new(status: StatusCode, detail: impl Into<String>) -> Self {
        Self {
            kind: "about:blank",
            title: status.canonical_reason().unwrap_or("Error"),
            status: status.as_u16(),
            detail: detail.into(),
            code: None,
            retry_after: None,
            results: None,
        }
    }

    /// 400.
    pub fn bad_request(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, detail)
    }

    /// 401, where a token is missing.
    pub fn no_token() -> Self {
        Self { code: Some(NO_TOKEN), ..Self::new(StatusCode::UNAUTHORIZED, "send Authorization: Bearer and a token") }
    }

    /// With a stable word for programs.
    pub fn with_code(self, code: &'static str) -> Self {
        Self { code: Some(code), ..self }
    }

    /// 403.
    pub fn forbidden(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, detail)
    }

    /// 404.
    pub fn not_found(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, detail)
    }

    /// 426: this is for a WebSocket.
    pub fn upgrade_required(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::UPGRADE_REQUIRED, detail)
    }

    /// 415.
    pub fn unsupported(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, detail)
    }

    /// 429. The client may come back after `Retry-After`.
    pub fn too_many(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::TOO_MANY_REQUESTS, detail)
    }

    /// Come back in a moment.
    pub fn unavailable(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, detail)
    }

    /// 502: another system gave an answer that is of no use.
    pub fn bad_gateway(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_GATEWAY, detail)
    }

    /// Says when to come back. The header has whole seconds (RFC 9110 10.2.3): a part of one counts
    /// as one.
    pub fn with_retry_after(self, after: Duration) -> Self {
        Self { retry_after: Some(u16::try_from(after.as_millis().div_ceil(1_000)).unwrap_or(u16::MAX)), ..self }
    }

    /// With what became of each event of a batch.
    pub fn with_results(self, results: Value) -> Self {
        Self { results: Some(results), ..self }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let refused = self.code.is_some_and(|code| code != NO_TOKEN);
        let retry_after = HeaderValue::from(self.retry_after.unwrap_or(RETRY_AFTER));
        let mut response = (status, Json(self)).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        match status {
            StatusCode::UNAUTHORIZED => {
                // RFC 6750 3.1: without a token, no error is named.
                let challenge = if refused { "Bearer error=\"invalid_token\"" } else { "Bearer" };
                headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static(challenge));
            }
            StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS => {
                headers.insert(header::RETRY_AFTER, retry_after);
            }
            StatusCode::UPGRADE_REQUIRED => {
                // RFC 9110 7.8: who sends Upgrade names it in Connection too.
                headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
                headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
                headers.insert(header::SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
            }
            _ => {}
        }
        response
    }
}
