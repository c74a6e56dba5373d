//! Events as bytes: MessagePack for queues, JSON for people and browsers.
//!
//! Both are one model (`wire`), a map with named keys, so that either side may be of an older
//! version (I-1). MessagePack also comes in the dialect of the first James implementation
//! (`james`).

mod james;
mod json;
mod msgpack;
mod wire;

pub use json::{JsonEvent, from_json, to_json};
pub use msgpack::{from_msgpack, split_msgpack, to_msgpack};
pub use wire::{Defaults, EnvelopeFields};

/// Why bytes are not an event. Never quotes what the bytes hold beyond the name of a field or type.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// Not MessagePack or JSON, truncated, nested too deep, or of the wrong shape.
    #[error("not an event: {0}")]
    Malformed(String),
    /// A later version's type: to be counted and skipped, not an error of the sender.
    #[error("unknown type of event {0:?}")]
    UnknownType(String),
    /// Well-formed, and a field's value makes no sense.
    #[error("field {field:?}: {reason}")]
    Field { field: &'static str, reason: String },
}

impl DecodeError {
    fn field(field: &'static str, reason: impl ToString) -> Self {
        Self::Field { field, reason: reason.to_string() }
    }

    fn missing(field: &'static str) -> Self {
        Self::field(field, "is required for this type of event")
    }

    /// Serde's own words can quote the input at any length; they end in logs and answers.
    fn malformed(error: impl ToString) -> Self {
        let mut text: String = error.to_string().chars().map(|c| if c.is_control() { ' ' } else { c }).take(200).collect();
        if text.is_empty() {
            text.push_str("unreadable");
        }
        Self::Malformed(text)
    }
}

/// At most this much of a foreign text is repeated in an error.
fn excerpt(text: &str) -> String {
    text.chars().take(40).collect()
}

#[cfg(test)]
pub(crate) mod tests;
