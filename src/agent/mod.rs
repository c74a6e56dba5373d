//! The origin's side: takes a mail server's changes in, completes and spools them, and publishes.
//!
//! ```text
//!  mail server ──▶ http ──▶ spool ──202──▶ mail server        within milliseconds, whatever the cluster does
//!                            │
//!                            ▼
//!                        pipeline ─ complete (imap) ─ publish ──▶ done in the spool
//! ```
//!
//! An event is in the spool from before the mail server is answered until it is published: at least once, with the same
//! id, so that receivers drop what comes twice (I-8). The order of a mailbox is kept.

pub mod dovecot;
mod record;
pub mod spool;
