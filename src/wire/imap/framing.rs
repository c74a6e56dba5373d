//! A byte stream cut into lines and literals, without ever holding a literal.
