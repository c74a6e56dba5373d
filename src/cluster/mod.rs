//! What nodes share: the [`registry`] (who wants which mailbox) and the [`queue`] (how they are told).
//!
//! Each is a trait with a stated guarantee, a real implementation and one in process. Nothing here knows of
//! events, sessions or clients: keys go in, queues come out, and payloads are bytes.

pub mod queue;
pub mod registry;
