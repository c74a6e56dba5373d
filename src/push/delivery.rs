//! An event on its way to sessions: decoded once, rendered once per form, shared by all.

use std::sync::OnceLock;
use std::time::Instant;

use bytes::Bytes;

use crate::cluster::queue::Position;
use crate::mail::codec::EnvelopeFields;
use crate::mail::event::Event;

/// An event with its place in the queue.
#[derive(Debug)]
pub struct Delivery {
    pub event: Event,
    /// `queue@offset`, as clients send it back.
    pub pos: String,
    pub consumed_at: Instant,
    /// The size of the encoded event: what it weighs in an outbox.
    pub size: usize,
    rendered: [OnceLock<Bytes>; EnvelopeFields::COUNT],
}

impl Delivery {
    pub fn new(event: Event, position: &Position, size: usize, consumed_at: Instant) -> Self {
        Self { event, pos: position.to_string(), consumed_at, size, rendered: Default::default() }
    }

    /// What follows from another delivery, in its place of the queue.
    pub fn derived(event: Event, from: &Self) -> Self {
        Self { event, pos: from.pos.clone(), consumed_at: from.consumed_at, size: from.size, rendered: Default::default() }
    }

    /// The event in the one JSON form that all sessions with these fields share; `render` runs
    /// once.
    pub fn rendered(&self, fields: EnvelopeFields, render: impl FnOnce(&Self) -> Bytes) -> &Bytes {
        self.rendered[fields.index()].get_or_init(|| render(self))
    }
}
