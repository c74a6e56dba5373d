//! The opening handshake (RFC 6455 4.2): who may open a socket, and from where.

use std::sync::Arc;

use axum::extract::{Extension, Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Version, header};
use axum::response::{IntoResponse, Response};
use data_encoding::BASE64;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use super::{Door, Entry};
use crate::edge::auth::Scopes;
use crate::edge::gateway::{Gateway, may};
use crate::edge::http::problem::Problem;
use crate::edge::http::query::Query;
use crate::edge::http::tickets::redeem;
use crate::http::bearer;
use crate::http::server::{ConnectionPermit, Peer};
use crate::wire::ws::close::CloseReason;
use crate::wire::ws::{SUBPROTOCOL, SUBPROTOCOL_FAMILY};

/// `GET /v1/ws`.
pub async fn open(
    State(gateway): State<Arc<Gateway>>,
    Extension(Peer(peer)): Extension<Peer>,
    Extension(permit): Extension<ConnectionPermit>,
    query: Query,
    mut request: Request,
) -> Result<Response, Problem> {
    let headers = request.headers();
    let accept = check_handshake(&request)?;
    check_origin(&gateway, headers)?;
    let negotiated = negotiate(headers)?;
    let protocol = match &negotiated {
        Negotiated::Unnamed => None,
        Negotiated::Ours => Some(HeaderValue::from_static(SUBPROTOCOL)),
        // What came in a header can go out in one.
        Negotiated::OtherVersion(name) => HeaderValue::from_str(name).ok(),
    };
    let entry = if let Negotiated::OtherVersion(_) = negotiated { Entry::Refused(CloseReason::Version) } else { Entry::Open };
    if let Some(refusal) = gateway.refusal() {
        return Err(Problem::unavailable(refusal));
    }
    let identity = match bearer(headers)? {
        Some(token) => Some(gateway.verify(token, peer.ip()).await.map_err(|error| Problem::token(&error))?),
        None => match query.once("ticket")? {
            Some(ticket) => Some(redeem(&gateway, ticket).await?),
            None => None,
        },
    };
    if let Some(identity) = &identity
        && !may(identity, Scopes::PUSH)
    {
        return Err(Problem::forbidden("the token lacks the scope push"));
    }
    let unauthenticated = match identity {
        Some(_) => None,
        None => Some(
            gateway
                .unauthenticated
                .clone()
                .try_acquire_owned()
                .map_err(|_| Problem::unavailable("too many sockets are waiting to be authenticated"))?,
        ),
    };

    let upgrade = hyper::upgrade::on(&mut request);
    let door = Door { gateway: gateway.clone(), peer, identity, entry, _permit: permit, unauthenticated };
    gateway.tasks.spawn(door.serve(upgrade));

    let mut response = StatusCode::SWITCHING_PROTOCOLS.into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    let accept = HeaderValue::from_str(&accept).map_err(|_| Problem::bad_request("Sec-WebSocket-Key is not valid"))?;
    headers.insert(header::SEC_WEBSOCKET_ACCEPT, accept);
    if let Some(protocol) = protocol {
        headers.insert(header::SEC_WEBSOCKET_PROTOCOL, protocol);
    }
    Ok(response)
}

/// The accept key for a valid opening handshake.
fn check_handshake(request: &Request) -> Result<String, Problem> {
    let headers = request.headers();
    if request.version() < Version::HTTP_11 {
        return Err(Problem::upgrade_required("a WebSocket is opened with HTTP/1.1"));
    }
    let has = |name, token: &str| {
        let values = headers.get_all(name).iter().filter_map(|v| v.to_str().ok());
        values.flat_map(|v| v.split(',')).any(|v| v.trim().eq_ignore_ascii_case(token))
    };
    if !has(header::CONNECTION, "upgrade") || !has(header::UPGRADE, "websocket") {
        return Err(Problem::upgrade_required("this is a WebSocket: send Connection: Upgrade and Upgrade: websocket"));
    }
    if only(headers, header::SEC_WEBSOCKET_VERSION) != Some(b"13") {
        return Err(Problem::upgrade_required("Sec-WebSocket-Version must be 13"));
    }
    let key = only(headers, header::SEC_WEBSOCKET_KEY).unwrap_or_default();
    match BASE64.decode(key) {
        Ok(nonce) if nonce.len() == 16 => Ok(derive_accept_key(key)),
        _ => Err(Problem::bad_request("Sec-WebSocket-Key must be 16 bytes in base64")),
    }
}

/// The value of a header that must not come twice (RFC 6455 11.3).
fn only(headers: &HeaderMap, name: HeaderName) -> Option<&[u8]> {
    let mut values = headers.get_all(name).iter();
    values.next().filter(|_| values.next().is_none()).map(HeaderValue::as_bytes)
}

/// Pages may open a socket only from a listed origin, or from the node's own page; programs send no
/// origin.
fn check_origin(gateway: &Gateway, headers: &HeaderMap) -> Result<(), Problem> {
    let Some(origin) = headers.get(header::ORIGIN) else { return Ok(()) };
    let allowed = origin.to_str().is_ok_and(|origin| {
        origin == gateway.record.url.as_str()
            || gateway.settings.http.allowed_origins.iter().any(|allowed| allowed.as_str() == origin)
    });
    allowed.then_some(()).ok_or_else(|| Problem::forbidden("pages of this origin may not connect (http.allowed_origins)"))
}

/// What comes of the sub-protocols that a client offers (RFC 6455 4.2.2).
#[derive(Debug, PartialEq, Eq)]
enum Negotiated<'a> {
    /// None is offered, and none is named in the answer: ours is spoken all the same.
    Unnamed,
    Ours,
    /// Only other versions of ours are offered. Pages cannot see why a handshake is refused, and
    /// would try it again for ever: the first one's name is taken, and the socket is closed with
    /// the reason.
    OtherVersion(&'a str),
}

fn negotiate(headers: &HeaderMap) -> Result<Negotiated<'_>, Problem> {
    let offered: Vec<&str> = headers
        .get_all(header::SEC_WEBSOCKET_PROTOCOL)
        .iter()
        .filter_map(|v| v.to_str().ok())
        .flat_map(|v| v.split(',').map(str::trim))
        .collect();
    if offered.is_empty() {
        return Ok(Negotiated::Unnamed);
    }
    if offered.contains(&SUBPROTOCOL) {
        return Ok(Negotiated::Ours);
    }
    let other = offered.into_iter().find(|name| name.starts_with(SUBPROTOCOL_FAMILY)).map(Negotiated::OtherVersion);
    other.ok_or_else(|| Problem::bad_request(format!("this server speaks the sub-protocol {SUBPROTOCOL}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sub_protocols_are_chosen_by_what_is_offered() {
        let offer =
            |value: &'static str| HeaderMap::from_iter([(header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(value))]);
        assert_eq!(negotiate(&HeaderMap::new()).ok(), Some(Negotiated::Unnamed));
        for (value, expected) in [
            ("mailpush.v1", Some(Negotiated::Ours)),
            ("mailpush.v2, mailpush.v1", Some(Negotiated::Ours)),
            ("chat, mailpush.v3,mailpush.v2", Some(Negotiated::OtherVersion("mailpush.v3"))),
            ("chat", None),
            ("mailpush", None),
        ] {
            assert_eq!(negotiate(&offer(value)).ok(), expected, "{value}");
        }
    }
}
