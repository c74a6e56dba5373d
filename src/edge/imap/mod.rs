//! The IMAP door.

pub mod nets;
