//! The mailboxes of `mailpush dev`, in memory: no socket and no task, and the time comes in as an
//! argument.

pub mod basis;
pub mod mailbox;
pub mod messages;
pub mod model;
pub mod names;

pub use super::server::{Store, StoreOptions};
pub use model::{Faults, Limits};
pub use names::Style;
