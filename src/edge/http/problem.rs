//! A door's own problems: those with a stable word for programs.

use std::time::Duration;

use axum::http::StatusCode;

use crate::edge::auth::AuthError;
use crate::http::problem::NO_TOKEN;
pub use crate::http::problem::Problem;

/// This cluster keeps no ACL of this mailbox.
const ACL_ELSEWHERE: &str = "acl_elsewhere";

/// The user has as many sessions on this node as one user may have.
const TOO_MANY_SESSIONS: &str = "too_many_sessions";
/// The ticket is not good, or not any more.
const TICKET: &str = "ticket_invalid";

/// All stable words that a problem of this door can have, each once.
#[allow(dead_code, reason = "for tests")]
pub fn codes() -> impl Iterator<Item = &'static str> {
    [NO_TOKEN, TICKET, TOO_MANY_SESSIONS, ACL_ELSEWHERE].into_iter().chain(AuthError::ALL.iter().map(AuthError::name))
}

impl Problem {
    pub fn token(error: &AuthError) -> Self {
        // Where no key could be had yet the fault is ours: a client told 401 would throw a good
        // token away.
        let status = if error.is_transient() { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::UNAUTHORIZED };
        Self::new(status, error.to_string()).with_code(error.name())
    }

    /// A ticket that is unknown, used or too old. `EventSource` comes back with the one that it
    /// had, and then for no more.
    pub fn ticket() -> Self {
        let detail = "the ticket is unknown, used, or older than a minute: get another from POST /v1/tickets; an EventSource \
                      whose connection was lost must be made anew with it";
        Self::new(StatusCode::UNAUTHORIZED, detail).with_code(TICKET)
    }

    /// The user has too many sessions; `after` is when some of them may be gone.
    pub fn too_many_sessions(detail: impl Into<String>, after: Duration) -> Self {
        Self::too_many(detail).with_code(TOO_MANY_SESSIONS).with_retry_after(after)
    }

    /// Rights on the mailbox come from elsewhere.
    pub fn acl_elsewhere(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::CONFLICT, detail).with_code(ACL_ELSEWHERE)
    }
}

#[cfg(test)]
mod tests {
    use axum::http::header;
    use axum::response::IntoResponse;

    use super::*;

    #[test]
    fn a_token_is_refused_by_whose_fault_it_is() {
        let status = |error| Problem::token(&error).into_response().status();
        assert_eq!(status(AuthError::Expired), StatusCode::UNAUTHORIZED);
        let response = Problem::token(&AuthError::KeysUnavailable).into_response();
        assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(response.headers()[header::RETRY_AFTER], "2");
        let response = Problem::too_many_sessions("too many", Duration::from_millis(33_001)).into_response();
        assert_eq!(response.headers()[header::RETRY_AFTER], "34", "not before that");
    }
}
