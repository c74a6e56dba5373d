//! What waits to be told to one session: bounded, and on overflow collapsed into a `resync` per mailbox.
//!
//! A slow reader costs its own node this much and no more, and never slows another session: pushing never waits.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use super::delivery::Delivery;
use crate::mail::codec::EnvelopeFields;
use crate::mail::event::Event;
use crate::mail::key::Key;
use crate::mail::rights::Rights;

/// More mailboxes than this in one `resync` become "everything".
const RESYNC_KEYS: usize = 64;

/// Bounds of an outbox.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    pub events: usize,
    pub bytes: usize,
}

/// One thing to tell a session.
#[derive(Debug, Clone)]
pub enum Outgoing {
    Event {
        delivery: Arc<Delivery>,
        fields: EnvelopeFields,
    },
    /// Continuity is broken: the client reads the state of these keys anew.
    Resync {
        keys: Resync,
        reason: ResyncReason,
    },
    /// How the registration of a watched key stands now.
    Standing {
        key: Key,
        standing: Standing,
    },
    /// Whether the node can promise to hear of changes now.
    Health(bool),
    /// The right to hear of this is gone, and with it the subscription: nothing of it follows.
    Revoked {
        key: Key,
    },
    /// A subscription is of another key now, or has ended with its mailbox.
    Moved {
        from: Key,
        to: Option<Key>,
    },
    /// Only the session itself can ask what rights its user has on this mailbox now; the answer goes to
    /// [`super::subscriptions::Subscriptions::learned`].
    AskRights {
        key: Key,
    },
    /// A subscription asked for with this tag stands, or does not.
    Settled {
        tag: u32,
        key: Key,
        outcome: Result<Rights, SubscribeFailure>,
    },
    /// The session is to end; always the last.
    End(End),
}

/// What a `resync` covers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Resync {
    Keys(BTreeSet<Key>),
    /// All that the session is subscribed to.
    All,
}

/// Why something may have been missed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ResyncReason {
    /// The session reads too slowly.
    Overflow,
    /// The queue has lost records, or may have.
    QueueGap,
    /// The registration is gone, and the registry cannot be asked: events may go astray from now on.
    RegistryLost,
    /// The registration stands again, and every publisher finds it.
    RegistryRestored,
    /// Something was withheld while nobody could say whether the user may see it, or they may see more now.
    Rights,
    /// The mailbox is shared with the user now.
    Shared,
    /// It has this name now.
    Renamed,
}

impl ResyncReason {
    pub const ALL: &[Self] =
        &[Self::Overflow, Self::QueueGap, Self::RegistryLost, Self::RegistryRestored, Self::Rights, Self::Shared, Self::Renamed];

    /// As clients and metrics are told.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Overflow => "overflow",
            Self::QueueGap => "queue_gap",
            Self::RegistryLost => "registry_lost",
            Self::RegistryRestored => "registry_restored",
            Self::Rights => "rights",
            Self::Shared => "shared",
            Self::Renamed => "renamed",
        }
    }
}

/// How the registration of a watched key stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// Acknowledged: what is published from now on comes, but for publishers whose lookups are stale (I-5).
    Registered,
    /// Every publisher finds it.
    Settled,
    /// Not acknowledged in time, or lost. It may still come.
    Unavailable,
}

/// Why a subscription does not stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SubscribeFailure {
    /// The registry did not acknowledge in time: try again. What stood before may be `kept`.
    Unavailable { kept: bool },
    /// It was given up before it stood.
    Withdrawn,
    /// No such mailbox, or not for this user: the same answer (I-9).
    NotFound,
    /// Nobody could be asked for the rights: try again. What stood before may be `kept`.
    RightsUnknown { kept: bool },
    /// So many mailboxes are shared with the user that one subscription does not cover them.
    TooManyShared,
}

/// Why the node ends a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    Draining {
        reconnect_after: Duration,
    },
    /// An administrator or the user asked for it.
    Ended,
}

#[derive(Debug, Default)]
pub struct Outbox {
    queue: VecDeque<Outgoing>,
    events: usize,
    bytes: usize,
    /// Mailboxes whose events are dropped because a `resync` for them is waiting already.
    resync: Option<(Resync, ResyncReason)>,
    /// The latest news counts.
    health: Option<bool>,
    end: Option<End>,
}

/// What became of a push.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pushed {
    Queued,
    /// The outbox was full: what waited, and this, became a `resync`.
    Collapsed,
    /// A `resync` that covers it is waiting.
    Absorbed,
}

impl Outbox {
    pub fn push_event(&mut self, delivery: &Arc<Delivery>, fields: EnvelopeFields, limits: Limits) -> Pushed {
        if self.is_absorbed(&delivery.event) {
            return Pushed::Absorbed;
        }
        if self.events + 1 > limits.events || self.bytes + delivery.size > limits.bytes {
            self.collapse(delivery);
            return Pushed::Collapsed;
        }
        self.events += 1;
        self.bytes += delivery.size;
        self.queue.push_back(Outgoing::Event { delivery: delivery.clone(), fields });
        Pushed::Queued
    }

    fn is_absorbed(&self, event: &Event) -> bool {
        match &self.resync {
            None => false,
            Some((Resync::All, _)) => true,
            Some((Resync::Keys(keys), _)) => mailboxes(event).all(|mailbox| keys.contains(&mailbox)),
        }
    }

    fn collapse(&mut self, last: &Arc<Delivery>) {
        let mut keys: BTreeSet<Key> = mailboxes(&last.event).collect();
        self.queue.retain(|outgoing| match outgoing {
            Outgoing::Event { delivery, .. } => {
                keys.extend(mailboxes(&delivery.event));
                false
            }
            _ => true,
        });
        self.events = 0;
        self.bytes = 0;
        self.push_resync(Resync::Keys(keys), ResyncReason::Overflow);
    }

    /// Merges into the `resync` that is waiting, if one is.
    pub fn push_resync(&mut self, scope: Resync, reason: ResyncReason) {
        self.resync = Some(match (self.resync.take(), scope) {
            (None, scope) => (scope.bounded(), reason),
            (Some((Resync::Keys(mut held), first)), Resync::Keys(keys)) => {
                held.extend(keys);
                (Resync::Keys(held).bounded(), first)
            }
            (Some((_, first)), _) => (Resync::All, first),
        });
    }

    pub fn push_settled(&mut self, tag: u32, key: Key, outcome: Result<Rights, SubscribeFailure>) {
        self.queue.push_back(Outgoing::Settled { tag, key, outcome });
    }

    /// Nothing of the key that has not been taken yet is told any more.
    pub fn push_revoked(&mut self, key: Key) {
        let (events, bytes) = (&mut self.events, &mut self.bytes);
        self.queue.retain(|outgoing| match outgoing {
            Outgoing::Event { delivery, .. } if matches!(&key, Key::Mailbox(path) if *path == delivery.event.mailbox) => {
                *events -= 1;
                *bytes -= delivery.size;
                false
            }
            _ => true,
        });
        if let Some((Resync::Keys(keys), _)) = &mut self.resync {
            keys.remove(&key);
        }
        self.resync.take_if(|(scope, _)| matches!(scope, Resync::Keys(keys) if keys.is_empty()));
        self.queue.push_back(Outgoing::Revoked { key });
    }

    pub fn push_moved(&mut self, from: Key, to: Option<Key>) {
        if let (Some((Resync::Keys(keys), _)), Some(to)) = (&mut self.resync, &to)
            && keys.remove(&from)
        {
            keys.insert(to.clone());
        }
        self.queue.push_back(Outgoing::Moved { from, to });
    }

    /// Asked once, however often it is wanted before it is taken.
    pub fn push_ask_rights(&mut self, key: Key) {
        let is_asked = |outgoing: &Outgoing| matches!(outgoing, Outgoing::AskRights { key: asked } if *asked == key);
        if !self.queue.iter().any(is_asked) {
            self.queue.push_back(Outgoing::AskRights { key });
        }
    }

    pub fn push_standing(&mut self, key: Key, standing: Standing) {
        self.queue.push_back(Outgoing::Standing { key, standing });
    }

    pub fn push_health(&mut self, healthy: bool) {
        self.health = Some(healthy);
    }

    /// The first end asked for counts.
    pub fn push_end(&mut self, end: End) {
        self.end.get_or_insert(end);
    }

    pub fn is_empty(&self) -> bool {
        self.queue.is_empty() && self.resync.is_none() && self.health.is_none() && self.end.is_none()
    }

    /// Everything that waits, in the order to tell it; gives the memory back too.
    pub fn take(&mut self) -> VecDeque<Outgoing> {
        let mut taken = std::mem::take(&mut self.queue);
        (self.events, self.bytes) = (0, 0);
        if let Some((keys, reason)) = self.resync.take() {
            // Behind: what a key is called, and that it is subscribed to, comes first.
            taken.push_back(Outgoing::Resync { keys, reason });
        }
        if let Some(healthy) = self.health.take() {
            taken.push_back(Outgoing::Health(healthy));
        }
        if let Some(end) = self.end.take() {
            taken.push_back(Outgoing::End(end));
        }
        taken
    }
}

/// The mailboxes whose state an event changes: a rename's are two.
fn mailboxes(event: &Event) -> impl Iterator<Item = Key> {
    event.keys().into_iter().filter(|key| matches!(key, Key::Mailbox(_)))
}

impl Resync {
    fn bounded(self) -> Self {
        match self {
            Self::Keys(keys) if keys.len() > RESYNC_KEYS => Self::All,
            scope => scope,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mail::event::Change;
    use std::time::Instant;

    fn delivery(mailbox: &str) -> Arc<Delivery> {
        let mut event = crate::mail::codec::tests::sample();
        event.mailbox = format!("#private:bob:{mailbox}").parse().unwrap();
        Arc::new(Delivery::new(event, &"q@1".parse().unwrap(), 100, Instant::now()))
    }

    fn show(outbox: &mut Outbox) -> Vec<String> {
        let line = |outgoing| match outgoing {
            Outgoing::Event { delivery, .. } => delivery.event.mailbox.name().to_owned(),
            Outgoing::Resync { keys: Resync::All, reason } => format!("resync all {}", reason.as_str()),
            Outgoing::Resync { keys: Resync::Keys(keys), reason } => format!("resync {} {}", keys.len(), reason.as_str()),
            other => format!("{other:?}"),
        };
        outbox.take().into_iter().map(line).collect()
    }

    const LIMITS: Limits = Limits { events: 3, bytes: 1000 };

    #[test]
    fn a_full_outbox_collapses_per_mailbox() {
        let mut outbox = Outbox::default();
        let mut push = |name| outbox.push_event(&delivery(name), EnvelopeFields::NONE, LIMITS);
        assert_eq!(
            [push("a"), push("b"), push("a"), push("a")],
            [Pushed::Queued, Pushed::Queued, Pushed::Queued, Pushed::Collapsed]
        );
        assert_eq!([push("a"), push("c")], [Pushed::Absorbed, Pushed::Queued], "other mailboxes go on");
        assert_eq!(show(&mut outbox), ["c", "resync 2 overflow"]);
        assert!(outbox.is_empty());
        assert_eq!(outbox.push_event(&delivery("a"), EnvelopeFields::NONE, LIMITS), Pushed::Queued, "drained: as new");
    }

    #[test]
    fn a_dropped_rename_is_a_resync_of_both_names() {
        let mut outbox = Outbox::default();
        let mut rename = Arc::into_inner(delivery("a")).unwrap();
        rename.event.change = Change::MailboxRename { to: "#private:bob:b".parse().unwrap() };
        let rename = Arc::new(rename);
        let limits = Limits { events: 1, bytes: 1000 };
        let mut push = |delivery: &Arc<Delivery>| outbox.push_event(delivery, EnvelopeFields::NONE, limits);
        assert_eq!([push(&delivery("a")), push(&delivery("a"))], [Pushed::Queued, Pushed::Collapsed]);
        assert_eq!([push(&delivery("c")), push(&rename)], [Pushed::Queued, Pushed::Collapsed], "b is not covered yet");
        assert_eq!(show(&mut outbox), ["resync 3 overflow"]);
    }

    #[test]
    fn what_waits_of_a_lost_mailbox_is_not_told() {
        let mut outbox = Outbox::default();
        for name in ["a", "b", "a"] {
            outbox.push_event(&delivery(name), EnvelopeFields::NONE, LIMITS);
        }
        let lost = Key::Mailbox("#private:bob:a".parse().unwrap());
        outbox.push_resync(Resync::Keys(BTreeSet::from([lost.clone()])), ResyncReason::QueueGap);
        outbox.push_revoked(lost);
        assert_eq!(outbox.push_event(&delivery("b"), EnvelopeFields::NONE, LIMITS), Pushed::Queued, "there is room again");
        assert_eq!(show(&mut outbox), ["b", r##"Revoked { key: Mailbox("#private:bob:a") }"##, "b"]);
    }

    #[test]
    fn bytes_are_bounded_too() {
        let mut outbox = Outbox::default();
        let limits = Limits { events: 100, bytes: 250 };
        let mut push = || outbox.push_event(&delivery("a"), EnvelopeFields::NONE, limits);
        assert_eq!([push(), push(), push()], [Pushed::Queued, Pushed::Queued, Pushed::Collapsed]);
    }

    #[test]
    fn a_resync_of_very_many_mailboxes_is_of_everything() {
        let mut outbox = Outbox::default();
        for n in 0..200 {
            let key = Key::Mailbox(format!("#private:bob:{n}").parse().unwrap());
            outbox.push_resync(Resync::Keys(BTreeSet::from([key])), ResyncReason::QueueGap);
        }
        assert_eq!(outbox.push_event(&delivery("a"), EnvelopeFields::NONE, LIMITS), Pushed::Absorbed);
        assert_eq!(show(&mut outbox), ["resync all queue_gap"]);
    }

    #[test]
    fn the_end_comes_last_and_once() {
        let mut outbox = Outbox::default();
        outbox.push_end(End::Ended);
        outbox.push_end(End::Draining { reconnect_after: Duration::ZERO });
        outbox.push_event(&delivery("a"), EnvelopeFields::NONE, LIMITS);
        assert_eq!(show(&mut outbox), ["a", "End(Ended)"]);
    }
}
