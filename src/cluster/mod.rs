//! What nodes share: the [`registry`] (who wants which mailbox), the [`queue`] (how they are told) and, where no mail
//! server keeps them, the [`acls`] (who may be told).
//!
//! Each is a trait with a stated guarantee, a real implementation and one in process. Nothing here knows of
//! events, sessions or clients: keys go in, queues come out, and payloads are bytes.

pub mod acls;
pub mod queue;
pub mod registry;
