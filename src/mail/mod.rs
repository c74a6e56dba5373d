//! The vocabulary of mailpush: mailboxes, users, events and their encodings.
//!
//! Everything here is pure: no clock, no socket, no async, and nothing of the other rooms.

pub mod codec;
pub mod event;
pub mod flags;
pub mod ids;
pub mod key;
pub mod path;
pub mod rights;
pub mod uid;
pub mod user;
pub mod view;

pub use event::{Change, Event, EventType, Status};
pub use flags::{Flag, Flags};
pub use ids::{EventId, NodeId, SessionId};
pub use key::Key;
pub use path::MailboxPath;
pub use rights::Rights;
pub use uid::{ModSeq, Uid, UidValidity};
pub use user::{UserName, UserNames};
