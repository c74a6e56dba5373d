//! A door's own problems: those with a stable word for programs.

use axum::http::StatusCode;

use crate::edge::auth::AuthError;
use crate::http::problem::NO_TOKEN;
pub use crate::http::problem::Problem;

/// This cluster keeps no ACL of this mailbox.
const ACL_ELSEWHERE: &str = "acl_elsewhere";

/// All stable words that a problem of this door can have, each once.
pub fn codes() -> impl Iterator<Item = &'static str> {
    [NO_TOKEN, ACL_ELSEWHERE].into_iter().chain(AuthError::ALL.iter().map(AuthError::name))
}

impl Problem {
    pub fn token(error: &AuthError) -> Self {
        // Where no key could be had yet the fault is ours: a client told 401 would throw a good token away.
        let status = if error.is_transient() { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::UNAUTHORIZED };
        Self::new(status, error.to_string()).with_code(error.name())
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
        assert!(response.headers().contains_key(header::RETRY_AFTER));
    }
}
