//! Capability lists, rewritten wherever they appear (RFC 9051 6.1.1).
