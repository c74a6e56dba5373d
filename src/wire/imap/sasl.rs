//! Whose credentials went by: the identity learned from a SASL exchange (RFC 4422).
