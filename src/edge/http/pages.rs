//! The web page and the API's documents, embedded in the binary.

use std::sync::Arc;

use axum::Router;
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;

use crate::edge::gateway::Gateway;

/// Nothing from elsewhere, nothing inline: what an event says can never become script.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; \
base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// Path, content type, content.
const FILES: &[(&str, &str, &str)] = &[
    ("/", "text/html; charset=utf-8", include_str!("../../../static/index.html")),
    ("/page.js", "text/javascript; charset=utf-8", include_str!("../../../static/page.js")),
    ("/mailpush.js", "text/javascript; charset=utf-8", include_str!("../../../static/mailpush.js")),
    // No type is registered for TypeScript, and `.ts` means video elsewhere.
    ("/mailpush.d.ts", "text/plain; charset=utf-8", include_str!("../../../static/mailpush.d.ts")),
    ("/page.css", "text/css; charset=utf-8", include_str!("../../../static/page.css")),
    ("/openapi.yaml", "application/yaml; charset=utf-8", include_str!("../../../openapi/openapi.yaml")),
    ("/asyncapi.yaml", "application/yaml; charset=utf-8", include_str!("../../../openapi/asyncapi.yaml")),
];

/// The paths of the files.
pub fn paths() -> impl Iterator<Item = &'static str> {
    FILES.iter().map(|(path, _, _)| *path)
}

pub fn routes() -> Router<Arc<Gateway>> {
    FILES
        .iter()
        .fold(Router::new(), |router, (path, kind, content)| router.route(path, get(move || async move { serve(kind, content) })))
}

fn serve(kind: &'static str, content: &'static str) -> Response {
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static(kind)),
        (header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY)),
        (header::REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
    ];
    (headers, content).into_response()
}
