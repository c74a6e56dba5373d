//! The doors: HTTP, WebSocket, SSE. Thin loops around the pure protocols of `wire` and the moving
//! parts of `push`.

pub mod auth;
pub mod followers;
pub mod gateway;
pub mod http;
pub mod imap;
pub mod sse;
pub mod tickets;
pub mod websocket;
