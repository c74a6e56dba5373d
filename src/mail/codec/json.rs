//! The JSON mirror of an event: the same keys as MessagePack's.

use serde::{Serialize, Serializer};

use super::DecodeError;
use super::wire::{Defaults, EnvelopeFields, Incoming, Outgoing};
use crate::mail::event::Event;

/// Borrows an event to be serialised as JSON, with as much of the envelopes as the reader asked
/// for.
#[derive(Debug, Clone, Copy)]
pub struct JsonEvent<'a>(pub &'a Event, pub EnvelopeFields);

impl Serialize for JsonEvent<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        Outgoing::new(self.0, self.1).serialize(serializer)
    }
}

/// The whole event as JSON text.
pub fn to_json(event: &Event) -> String {
    // Cannot fail: no map with keys that are not strings, no foreign Serialize.
    serde_json::to_string(&JsonEvent(event, EnvelopeFields::ALL)).unwrap_or_default()
}

/// Reads an event from an origin, which may leave out `id`, `at` and `origin`.
pub fn from_json(text: &[u8], defaults: Option<Defaults<'_>>) -> Result<Event, DecodeError> {
    let incoming: Incoming<'_> = serde_json::from_slice(text).map_err(DecodeError::malformed)?;
    incoming.into_event(defaults)
}
