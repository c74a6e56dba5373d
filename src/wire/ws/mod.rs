//! The `mailpush.v1` WebSocket protocol (RFC 6455 below, JSON text frames above).

pub mod close;
pub mod codec;
pub mod command;
pub mod push;
pub mod session;

/// The sub-protocol's name, for `Sec-WebSocket-Protocol`.
pub const SUBPROTOCOL: &str = "mailpush.v1";
