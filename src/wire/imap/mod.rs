//! IMAP (RFC 3501, RFC 9051) as a proxy needs it: framing, the commands and responses it must
//! understand, and the session.

pub mod acl;
pub mod capability;
pub mod command;
pub mod credentials;
pub mod effects;
pub mod framing;
pub mod name;
pub mod namespace;
pub mod numbers;
pub mod response;
pub mod sasl;
mod scan;
pub mod session;
pub mod set;
pub mod write;
