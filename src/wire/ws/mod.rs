//! The `mailpush.v1` WebSocket protocol (RFC 6455 below, JSON text frames above).

pub mod close;
pub mod codec;
pub mod command;
pub mod push;
pub mod session;

/// The sub-protocol's name, for `Sec-WebSocket-Protocol`.
/// What the names of all versions of our sub-protocol begin with.
pub const SUBPROTOCOL_FAMILY: &str = "mailpush.v";

pub const SUBPROTOCOL: &str = "mailpush.v1";
