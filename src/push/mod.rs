//! Moving events: from an origin to the queues that want them, and from a node's queue to its
//! sessions.
//!
//! The way out is [`publisher`]; the way in is [`consumer`] → [`dedup`] → [`hub`] → [`session`].
//! Between them stands [`presence`]: the registry holds exactly what the hub's sessions want.
//! Client protocols are not known here: a session gets an `Arc` of a [`delivery::Delivery`], and
//! its own protocol decides what the client sees.

pub mod access;
pub mod acl_keeper;
pub mod clock;
pub mod consumer;
pub mod dedup;
pub mod delivery;
mod handle;
pub mod hub;
pub mod metrics;
mod once;
pub mod outbox;
pub mod presence;
pub mod publisher;
pub mod session;
pub mod sessions;
mod subscription;
pub mod subscriptions;
pub mod written;
