//! Mailbox names on the wire, and the paths they stand for (RFC 2342, RFC 9051 5.1).
