//! IMAP as we speak it where we are the client: asking a mail server something, one command at a
//! time.
//!
//! What the gateway asks on a client's own connection is not here: there it shares the connection
//! with the client, and `wire::imap::session` decides.

pub mod client;
