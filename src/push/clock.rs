//! The wall clock, for events' times and ids.

use std::time::{SystemTime, UNIX_EPOCH};

use uuid::Uuid;

use crate::mail::ids::EventId;

/// Milliseconds since 1970, UTC.
pub fn unix_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis() as u64)
}

/// A fresh event id: a UUIDv7 of this moment (RFC 9562 5.7).
pub fn new_event_id() -> EventId {
    EventId(Uuid::now_v7())
}
