//! Client protocols, pure and sans-IO: bytes, commands and events in, bytes and decisions out.
//!
//! No sockets, no tasks, no clock of its own: time comes in as an argument.

pub mod imap;
pub mod sse;
pub mod ws;
