//! The server responses that the proxy must understand.
