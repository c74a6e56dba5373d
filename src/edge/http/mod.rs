//! The REST interface: one router, one file per resource.

mod acl;
mod caller;
mod events;
mod follow;
mod health;
mod nodes;
mod pages;
mod paging;
mod peers;
pub mod problem;
pub mod query;
mod sessions;
mod subscriptions;
pub mod tickets;

use std::sync::Arc;
use std::time::Instant;

use axum::Router;
use axum::extract::{DefaultBodyLimit, MatchedPath, Request, State};
use axum::http::{HeaderValue, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodFilter, MethodRouter, on};
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::set_header::SetResponseHeaderLayer;
use tracing::debug;

use super::gateway::Gateway;
use super::{sse, websocket};
use problem::Problem;
use query::{Query, STREAM_PARAMETERS};

/// One method of one path, and who answers it.
struct Route {
    name: &'static str,
    method: MethodFilter,
    path: &'static str,
    handler: Handler,
    /// Whether HEAD is refused, which axum would hand on with GET.
    without_head: bool,
    /// The names of the parameters that its query may have.
    parameters: &'static [&'static str],
}

type Handler = fn(MethodFilter) -> MethodRouter<Arc<Gateway>>;

const fn get(path: &'static str, handler: Handler) -> Route {
    Route { name: "GET", method: MethodFilter::GET, path, handler, without_head: false, parameters: &[] }
}

/// A stream: it is all in its body, and asking for it without would begin and end a session, and
/// use up a ticket.
const fn stream(path: &'static str, handler: Handler) -> Route {
    Route { without_head: true, ..get(path, handler) }
}

const fn post(path: &'static str, handler: Handler) -> Route {
    Route { name: "POST", method: MethodFilter::POST, ..get(path, handler) }
}

const fn put(path: &'static str, handler: Handler) -> Route {
    Route { name: "PUT", method: MethodFilter::PUT, ..get(path, handler) }
}

const fn delete(path: &'static str, handler: Handler) -> Route {
    Route { name: "DELETE", method: MethodFilter::DELETE, ..get(path, handler) }
}

impl Route {
    const fn taking(self, parameters: &'static [&'static str]) -> Self {
        Self { parameters, ..self }
    }
}

const SUBSCRIPTIONS_PARAMETERS: &[&str] = &["user", "node", "transport", "mailbox", "account", "after", "limit"];
const CHANGES_PARAMETERS: &[&str] = &["since", "user", "node", "transport"];
const SESSIONS_PARAMETERS: &[&str] = &["user", "node", "transport", "after", "limit"];

/// What a node answers, beside the files of [`pages`]: the router is built from this table, and the
/// OpenAPI document is held against it.
const ROUTES: &[Route] = &[
    stream("/v1/ws", |m| on(m, websocket::open)).taking(&["ticket"]),
    stream("/v1/stream", |m| on(m, sse::open)).taking(STREAM_PARAMETERS),
    post("/v1/stream", |m| on(m, sse::open_by_form)).taking(STREAM_PARAMETERS),
    post("/v1/tickets", |m| on(m, tickets::issue)),
    post("/v1/events", |m| on(m, events::publish)),
    get("/v1/subscriptions", |m| on(m, subscriptions::list)).taking(SUBSCRIPTIONS_PARAMETERS),
    stream("/v1/subscriptions/stream", |m| on(m, follow::stream)).taking(CHANGES_PARAMETERS),
    get("/v1/sessions", |m| on(m, sessions::list)).taking(SESSIONS_PARAMETERS),
    delete("/v1/sessions/{id}", |m| on(m, sessions::end)),
    delete("/v1/users/{user}/sessions", |m| on(m, sessions::end_of_user)),
    get("/v1/mailboxes/{path}/acl", |m| on(m, acl::get)),
    put("/v1/mailboxes/{path}/acl", |m| on(m, acl::put)).taking(&["identifier"]),
    delete("/v1/mailboxes/{path}/acl", |m| on(m, acl::delete)).taking(&["identifier"]),
    get("/v1/nodes", |m| on(m, nodes::list)),
    get("/v1/local/subscriptions", |m| on(m, subscriptions::list_local)).taking(SUBSCRIPTIONS_PARAMETERS),
    stream("/v1/local/subscriptions/stream", |m| on(m, follow::stream_local)).taking(CHANGES_PARAMETERS),
    get("/v1/local/sessions", |m| on(m, sessions::list_local)).taking(SESSIONS_PARAMETERS),
    delete("/v1/local/sessions/{id}", |m| on(m, sessions::end_here)),
    delete("/v1/local/users/{user}/sessions", |m| on(m, sessions::end_of_user_local)),
    get("/v1/local/node", |m| on(m, nodes::status_local)),
    post("/v1/local/tickets/{number}", |m| on(m, tickets::redeem_local)),
    get("/livez", |m| on(m, health::live)),
    get("/readyz", |m| on(m, health::ready)),
    get("/metrics", |m| on(m, health::metrics)),
];

/// Method and path of everything that a node answers.
pub fn routes() -> impl Iterator<Item = (&'static str, &'static str)> {
    ROUTES.iter().map(|route| (route.name, route.path)).chain(pages::paths().map(|path| ("GET", path)))
}

/// The names of the parameters that a method of a path takes in its query.
#[allow(dead_code, reason = "for tests")]
pub fn parameters(method: &str, path: &str) -> &'static [&'static str] {
    ROUTES.iter().find(|route| route.name == method && route.path == path).map_or(&[], |route| route.parameters)
}

/// Every route of a node.
pub fn router(gateway: Arc<Gateway>) -> Router {
    let nosniff = SetResponseHeaderLayer::overriding(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    let no_store = SetResponseHeaderLayer::if_not_present(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    ROUTES
        .iter()
        .fold(Router::new(), |router, route| {
            let methods = (route.handler)(route.method);
            router.route(route.path, if route.without_head { methods.head(refuse_head) } else { methods })
        })
        .merge(pages::routes())
        .fallback(|| async { Problem::not_found("there is nothing at this path") })
        .method_not_allowed_fallback(|| async {
            Problem::new(axum::http::StatusCode::METHOD_NOT_ALLOWED, "this path does not take this method")
        })
        .layer(DefaultBodyLimit::max(gateway.settings.http.body_limit_bytes))
        .layer(middleware::from_fn_with_state(gateway.clone(), observe))
        .layer(CatchPanicLayer::custom(|_: Box<dyn std::any::Any + Send>| {
            let detail = "the node failed at this request; its log says more";
            Problem::new(axum::http::StatusCode::INTERNAL_SERVER_ERROR, detail).into_response()
        }))
        .layer(nosniff)
        .layer(no_store)
        .with_state(gateway)
}

async fn refuse_head(path: MatchedPath) -> Response {
    let methods: Vec<_> = ROUTES.iter().filter(|route| route.path == path.as_str()).map(|route| route.name).collect();
    let (allow, either) = (methods.join(","), methods.join(" or "));
    let detail = format!("there is nothing to tell of this path without opening it: send {either}");
    ([(header::ALLOW, allow)], Problem::new(axum::http::StatusCode::METHOD_NOT_ALLOWED, detail)).into_response()
}

/// Refuses a query with a name that the path does not take. Probes, metrics and pages take
/// anything: what a monitoring system or a page adds to their URLs must not make them fail.
fn check_query(request: &Request) -> Result<(), Problem> {
    let Some(path) = request.extensions().get::<MatchedPath>().map(MatchedPath::as_str) else { return Ok(()) };
    let route = ROUTES.iter().find(|route| route.path == path && route.name == request.method().as_str());
    let Some(route) = route.filter(|_| path.starts_with("/v1/")) else { return Ok(()) };
    Query::parse(request.uri().query().unwrap_or_default().as_bytes()).check(route.parameters)
}

/// Counts requests by route, and ends those that take too long; logs them without their query,
/// where a ticket may be.
async fn observe(State(gateway): State<Arc<Gateway>>, request: Request, next: Next) -> Response {
    let path = request.extensions().get::<MatchedPath>();
    // A label comes from the table, never from the request.
    let route = path.and_then(|path| routes().find(|(_, known)| *known == path.as_str())).map_or("none", |(_, known)| known);
    let method = request.method().clone();
    let began = Instant::now();
    // A stream answers at once and then goes on; this bounds the time to the answer, the request's
    // body included.
    let patience = gateway.settings.http.request_timeout_ms.duration();
    let response = match check_query(&request) {
        Err(problem) => problem.into_response(),
        Ok(()) => match tokio::time::timeout(patience, next.run(request)).await {
            Ok(response) => response,
            Err(_) => Problem::unavailable("the request took too long").into_response(),
        },
    };
    let status = response.status();
    let class = match status.as_u16() {
        100..=199 => "1xx",
        200..=299 => "2xx",
        300..=399 => "3xx",
        400..=499 => "4xx",
        _ => "5xx",
    };
    gateway.metrics.http_requests.get_or_create(&vec![("route", route), ("status", class)]).inc();
    debug!(%method, route, status = status.as_u16(), took = ?began.elapsed(), "request");
    response
}
