//! MessagePack: maps with named keys, forward compatible.

use std::io::Cursor;

use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};

use super::wire::{Defaults, EnvelopeFields, Incoming, Outgoing};
use super::{DecodeError, james};
use crate::mail::event::Event;

/// Deeper nesting than any event has is an attack.
const MAX_DEPTH: usize = 32;

/// Writes an event into `buffer`, which is cleared first: callers keep one and reuse it.
pub fn to_msgpack(event: &Event, buffer: &mut Vec<u8>) {
    buffer.clear();
    let mut serializer = rmp_serde::Serializer::new(&mut *buffer).with_struct_map();
    // Cannot fail: writing to a Vec does not, and every length is known.
    let written = Outgoing::new(event, EnvelopeFields::ALL).serialize(&mut serializer);
    debug_assert!(written.is_ok());
}

/// Reads one event. Understands the first James implementation's dialect too. `defaults` are for
/// origins, which may leave out `id`, `at` and `origin`; an event from a queue has them.
pub fn from_msgpack(bytes: &[u8], defaults: Option<Defaults<'_>>) -> Result<Event, DecodeError> {
    match read::<Incoming<'_>>(bytes) {
        Ok(incoming) => incoming.into_event(defaults),
        // Theirs is a map too, with `type` a number: only what is not ours is read a second time.
        Err(error) => match read::<james::Incoming>(bytes) {
            Ok(incoming) => incoming.into_event(bytes),
            Err(_) => Err(DecodeError::malformed(error)),
        },
    }
}

fn read<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, rmp_serde::decode::Error> {
    let mut deserializer = rmp_serde::Deserializer::from_read_ref(bytes);
    deserializer.set_max_depth(MAX_DEPTH);
    T::deserialize(&mut deserializer)
}

/// Cuts a batch into its events without reading them: one array of maps, or maps one after the
/// other.
pub fn split_msgpack(batch: &[u8]) -> Result<Vec<&[u8]>, DecodeError> {
    let (told, mut rest) = match batch {
        [count @ 0x90..=0x9f, rest @ ..] => (Some(u32::from(count & 0x0f)), rest),
        [0xdc, a, b, rest @ ..] => (Some(u32::from_be_bytes([0, 0, *a, *b])), rest),
        [0xdd, a, b, c, d, rest @ ..] => (Some(u32::from_be_bytes([*a, *b, *c, *d])), rest),
        maps => (None, maps),
    };
    let mut events = Vec::new();
    while !rest.is_empty() {
        let mut deserializer = rmp_serde::Deserializer::new(Cursor::new(rest));
        deserializer.set_max_depth(MAX_DEPTH);
        IgnoredAny::deserialize(&mut deserializer).map_err(DecodeError::malformed)?;
        let (event, following) = rest.split_at(deserializer.position() as usize);
        events.push(event);
        rest = following;
    }
    if told.is_some_and(|told| told as usize != events.len()) {
        return Err(DecodeError::malformed("the array does not hold as many events as it says"));
    }
    Ok(events)
}
