//! The commands that the proxy must understand.
