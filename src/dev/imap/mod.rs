//! An IMAP4rev1 server's protocol, sans-IO: bytes in, bytes out, the model and the time as
//! arguments.
//!
//! imap-codec reads the commands; what its grammar lacks is read in [`grammar`].

pub mod acl;
pub mod change;
pub mod fetch;
pub mod framing;
pub mod grammar;
pub mod login;
pub mod mailboxes;
pub mod search;
pub mod select;
pub mod session;
pub mod structure;
pub mod view;

#[cfg(test)]
mod tests;
