//! Who sends a REST request, and for what: its token, and the variable part of its path.

use std::net::Ipv4Addr;
use std::sync::Arc;

use axum::extract::{FromRequestParts, Path};
use axum::http::request::Parts;

use super::problem::Problem;
use crate::edge::auth::{Identity, Scopes};
use crate::edge::gateway::{Gateway, may};
use crate::http::bearer;
use crate::http::server::Peer;

/// The caller of a REST request, by token.
pub struct Caller {
    pub identity: Identity,
    /// The token, to be shown to other nodes on the caller's behalf.
    pub token: String,
}

impl Caller {
    pub fn may(&self, scope: Scopes) -> bool {
        may(&self.identity, scope)
    }

    pub fn must(&self, scope: Scopes, name: &str) -> Result<(), Problem> {
        self.may(scope).then_some(()).ok_or_else(|| Problem::forbidden(format!("the token lacks the scope {name}")))
    }
}

impl FromRequestParts<Arc<Gateway>> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, gateway: &Arc<Gateway>) -> Result<Self, Problem> {
        let token = bearer(&parts.headers)?.ok_or_else(Problem::no_token)?.to_owned();
        // Requests of a Unix socket have no address; a node has no such socket.
        let from = parts.extensions.get::<Peer>().map_or(Ipv4Addr::UNSPECIFIED.into(), |Peer(peer)| peer.ip());
        let identity = gateway.verify(&token, from).await.map_err(|error| Problem::token(&error))?;
        Ok(Self { identity, token })
    }
}

/// The one variable segment of a path, decoded. axum's own refusal would be plain text.
pub struct Segment(pub String);

impl<S: Send + Sync> FromRequestParts<S> for Segment {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let path = Path::<String>::from_request_parts(parts, state).await;
        path.map(|Path(segment)| Self(segment)).map_err(|_| Problem::bad_request("the path is not percent-encoded UTF-8"))
    }
}
