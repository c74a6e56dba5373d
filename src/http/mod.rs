//! What every HTTP server of ours has in common: the accept loop, refusals, and reading events; and
//! what every client has.

use axum::http::{HeaderMap, header};

mod checks;
pub mod client;
pub mod events;
pub mod files;
pub mod problem;
pub mod seldom;
pub mod server;
pub mod write_timeout;

use problem::Problem;

/// The token in `Authorization: Bearer`; `None` where there is no such header.
pub fn bearer(headers: &HeaderMap) -> Result<Option<&str>, Problem> {
    let Some(value) = headers.get(header::AUTHORIZATION) else { return Ok(None) };
    let token = value.to_str().ok().and_then(|text| text.split_once(' '));
    match token {
        Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer") => Ok(Some(token.trim())),
        _ => Err(Problem::no_token()),
    }
}
