//! IMAP (RFC 3501, RFC 9051) as a proxy needs it: framing, the commands and responses it must understand, and the session.

pub mod capability;
pub mod command;
pub mod credentials;
pub mod framing;
pub mod name;
pub mod response;
pub mod sasl;
pub mod session;
