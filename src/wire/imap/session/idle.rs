//! IDLE (RFC 2177) by the gateway: the client hears what came out of the queue, in the numbers that
//! it knows.
//!
//! Registered first, then the snapshot is read (I-4), then the client is told that it idles. From
//! then on events drive the [`View`] ([`Follower`]). Wherever it must be certain that the client
//! and the server mean the same messages by the same numbers, the two are made *level*. While the
//! cluster is not healthy the server's own IDLE takes over (`servers.rs`).
//!
//! In every state but [`State::Following`] the client's numbers are the server's, and what the
//! server says passes as it is.

mod context;
mod follower;
mod level;
mod link;
mod preparing;
mod rights;
mod servers;
mod state;

pub(super) use self::context::{ClientSide, Cx, Next};
pub(super) use self::state::{Idle, State};
