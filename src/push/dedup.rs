//! A bounded window of recent event ids: at least once becomes applied once (I-8).

use std::collections::{HashSet, VecDeque};

use crate::mail::ids::EventId;

/// Remembers the last so many ids.
#[derive(Debug)]
pub struct Dedup {
    seen: HashSet<EventId>,
    order: VecDeque<EventId>,
    capacity: usize,
}

impl Dedup {
    pub fn new(capacity: usize) -> Self {
        Self { seen: HashSet::new(), order: VecDeque::new(), capacity: capacity.max(1) }
    }

    /// Whether the id is in the window.
    pub fn contains(&self, id: EventId) -> bool {
        self.seen.contains(&id)
    }

    /// Whether the id is new to the window; it is in it from now on.
    pub fn admit(&mut self, id: EventId) -> bool {
        if !self.seen.insert(id) {
            return false;
        }
        if self.order.len() == self.capacity
            && let Some(oldest) = self.order.pop_front()
        {
            self.seen.remove(&oldest);
        }
        self.order.push_back(id);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;

    #[test]
    fn a_duplicate_is_seen_within_the_window() {
        let mut dedup = Dedup::new(2);
        let id = |n| EventId(Uuid::from_u128(n));
        assert!(dedup.admit(id(1)) && dedup.admit(id(2)));
        assert!(!dedup.admit(id(1)) && !dedup.admit(id(2)));
        assert!(dedup.admit(id(3)), "pushes 1 out");
        assert!(dedup.admit(id(1)) && !dedup.admit(id(3)));
        assert_eq!((dedup.seen.len(), dedup.order.len()), (2, 2));
    }
}
