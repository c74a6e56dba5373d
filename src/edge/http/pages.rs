//! The web page and the API's documents, embedded in the binary.

use std::sync::Arc;

use axum::Router;
use axum::http::{HeaderName, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;

use crate::edge::gateway::Gateway;

/// Nothing from elsewhere, nothing inline: what an event says can never become script.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// The page needs none of what a browser may grant.
const PERMISSIONS: &str = "camera=(), display-capture=(), geolocation=(), microphone=(), payment=(), usb=()";

const HTML: &str = "text/html; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";
const STYLE: &str = "text/css; charset=utf-8";
const YAML: &str = "application/yaml; charset=utf-8";

/// For other sites' pages too, as far as CORS lets them; whatever else is here is for this page
/// alone.
const FOR_ALL: &[&str] = &["/mailpush.js", "/mailpush.d.ts", "/openapi.yaml", "/asyncapi.yaml"];

/// Path, content type, content.
const FILES: &[(&str, &str, &str)] = &[
    ("/", HTML, include_str!("../../../static/index.html")),
    ("/page.css", STYLE, include_str!("../../../static/page.css")),
    ("/favicon.svg", "image/svg+xml", include_str!("../../../static/favicon.svg")),
    ("/theme.js", SCRIPT, include_str!("../../../static/theme.js")),
    ("/page.js", SCRIPT, include_str!("../../../static/page.js")),
    ("/inbox.js", SCRIPT, include_str!("../../../static/inbox.js")),
    ("/mailboxes.js", SCRIPT, include_str!("../../../static/mailboxes.js")),
    ("/cluster.js", SCRIPT, include_str!("../../../static/cluster.js")),
    ("/subscriptions.js", SCRIPT, include_str!("../../../static/subscriptions.js")),
    ("/listing.js", SCRIPT, include_str!("../../../static/listing.js")),
    ("/dialog.js", SCRIPT, include_str!("../../../static/dialog.js")),
    ("/flow.js", SCRIPT, include_str!("../../../static/flow.js")),
    ("/publish.js", SCRIPT, include_str!("../../../static/publish.js")),
    ("/chart.js", SCRIPT, include_str!("../../../static/chart.js")),
    ("/metrics.js", SCRIPT, include_str!("../../../static/metrics.js")),
    ("/dom.js", SCRIPT, include_str!("../../../static/dom.js")),
    ("/mailpush.js", SCRIPT, include_str!("../../../static/mailpush.js")),
    // No type is registered for TypeScript, and `.ts` means video elsewhere.
    ("/mailpush.d.ts", "text/plain; charset=utf-8", include_str!("../../../static/mailpush.d.ts")),
    ("/reference", HTML, include_str!("../../../static/reference.html")),
    ("/reference.css", STYLE, include_str!("../../../static/reference.css")),
    ("/openapi.yaml", YAML, include_str!("../../../openapi/openapi.yaml")),
    ("/asyncapi.yaml", YAML, include_str!("../../../openapi/asyncapi.yaml")),
];

/// The paths of the files.
pub fn paths() -> impl Iterator<Item = &'static str> {
    FILES.iter().map(|(path, _, _)| *path)
}

pub fn routes() -> Router<Arc<Gateway>> {
    FILES.iter().fold(Router::new(), |router, (path, kind, content)| {
        router.route(path, get(move || async move { serve(path, kind, content) }))
    })
}

fn serve(path: &str, kind: &'static str, content: &'static str) -> Response {
    let readers = if FOR_ALL.contains(&path) { "cross-origin" } else { "same-origin" };
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static(kind)),
        (header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY)),
        (header::REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
        (HeaderName::from_static("permissions-policy"), HeaderValue::from_static(PERMISSIONS)),
        // No window that another site opened or has open can reach into the page.
        (HeaderName::from_static("cross-origin-opener-policy"), HeaderValue::from_static("same-origin")),
        (HeaderName::from_static("cross-origin-resource-policy"), HeaderValue::from_static(readers)),
    ];
    (headers, content).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_from_elsewhere_and_nothing_inline() {
        for (path, kind, content) in FILES {
            let response = serve(path, kind, content);
            let header = |name: &str| response.headers()[name].to_str().expect("a text").to_owned();
            let policy = header("content-security-policy");
            let rules: Vec<&str> = policy.split("; ").collect();
            for rule in [
                "default-src 'none'",
                "script-src 'self'",
                "style-src 'self'",
                "img-src 'self'",
                "connect-src 'self'",
                "base-uri 'none'",
                "form-action 'none'",
                "frame-ancestors 'none'",
            ] {
                assert!(rules.contains(&rule), "{path}: {rule} is missing in {policy}");
            }
            assert!(!policy.contains("unsafe") && !policy.contains('*'), "{path}: {policy}");
            assert_eq!(header("referrer-policy"), "no-referrer", "{path}");
            assert_eq!(header("cross-origin-opener-policy"), "same-origin", "{path}");
            let readers = if path.contains("mailpush.") || path.ends_with(".yaml") { "cross-origin" } else { "same-origin" };
            assert_eq!(header("cross-origin-resource-policy"), readers, "{path}");
            assert!(header("permissions-policy").split(", ").all(|feature| feature.ends_with("=()")), "{path}");
        }
    }

    /// What a page or a module loads is served, and comes from here.
    #[test]
    fn the_page_is_whole() {
        for (path, _, content) in
            FILES.iter().filter(|(path, kind, _)| *kind == HTML || (*kind == SCRIPT && *path != "/mailpush.js"))
        {
            let quoted = content.split('"').skip(1).step_by(2);
            for file in quoted.filter(|text| text.ends_with(".js") || text.ends_with(".css") || text.ends_with(".svg")) {
                let asked = file.strip_prefix('.').unwrap_or(file);
                assert!(paths().any(|known| known == asked), "{path} asks for {file}");
            }
        }
    }

    /// Events become text: there is no way in the scripts to make HTML, or code, of one.
    #[test]
    fn no_script_makes_html_of_a_text() {
        for (path, _, content) in FILES.iter().filter(|(_, kind, _)| *kind == SCRIPT) {
            for way in
                ["innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "DOMParser", "eval(", "new Function", "srcdoc"]
            {
                assert!(!content.contains(way), "{path} has {way}");
            }
        }
    }
}
