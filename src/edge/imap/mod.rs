//! The IMAP door: listeners, upstream connections, and the thin loop around [`crate::wire::imap::session`].
