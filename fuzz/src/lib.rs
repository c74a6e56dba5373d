//! The pure rooms by themselves, from the same files as in the product, so that fuzzing builds without Kafka and TLS.

#[path = "../../src/mail/mod.rs"]
pub mod mail;

#[path = "../../src/wire/imap/mod.rs"]
pub mod imap;

/// Where the files look for each other.
pub mod wire {
    pub use crate::imap;
}
