//! What waits to be told to one session: bounded, and on overflow collapsed into a `resync` per
//! mailbox.
//!
//! A slow reader costs its own node this much and no more, and never slows another session: pushing
//! never waits. Renames and deletions are never dropped: a client that misses one asks for a name
//! that is no more, and no `resync` could tell it so. They are rare; a session for which too many
//! of them wait is ended.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use super::delivery::Delivery;
use crate::mail::codec::EnvelopeFields;
use crate::mail::event::{Change, Event};
use crate::mail::key::Key;
use crate::mail::path::MailboxPath;
use crate::mail::rights::Rights;

/// More mailboxes than this in one `resync` become "everything".
const RESYNC_KEYS: usize = 64;

/// So many renames and deletions may wait at least: the rename of a parent is one for each mailbox
/// below it.
const NAMES: Limits = Limits { events: 2_048, bytes: 1 << 20 };

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
    /// What has become of the registration of a watched key.
    Registration {
        key: Key,
        status: RegistrationStatus,
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
    /// Only the session itself can ask what rights its user has on this mailbox now; the answer
    /// goes to [`super::subscriptions::Subscriptions::report_rights`].
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
    /// The registration is gone, and the registry cannot be asked: events may go astray from now
    /// on.
    RegistryLost,
    /// The registration stands again, and every publisher finds it.
    RegistryRestored,
    /// Something was withheld while the rights were not known, or the user may see more now.
    Rights,
    /// The mailbox is shared with the user now.
    Shared,
    /// More is shared with the user than their account's subscription covers.
    TooManyShared,
    /// The mailbox has this name now.
    Renamed,
}

impl ResyncReason {
    #[allow(dead_code, reason = "for tests")]
    pub const ALL: &[Self] = &[
        Self::Overflow,
        Self::QueueGap,
        Self::RegistryLost,
        Self::RegistryRestored,
        Self::Rights,
        Self::Shared,
        Self::TooManyShared,
        Self::Renamed,
    ];

    /// As clients and metrics are told.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Overflow => "overflow",
            Self::QueueGap => "queue_gap",
            Self::RegistryLost => "registry_lost",
            Self::RegistryRestored => "registry_restored",
            Self::Rights => "rights",
            Self::Shared => "shared",
            Self::TooManyShared => "too_many_shared",
            Self::Renamed => "renamed",
        }
    }
}

/// What has become of the registration of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RegistrationStatus {
    /// Acknowledged: what is published from now on comes, but for publishers whose lookups are
    /// stale (I-5).
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
}

/// Why the node ends a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    Draining {
        reconnect_after: Duration,
    },
    /// An administrator or the user asked for it.
    Ended,
    /// Too many renames and deletions wait, and none can be left out.
    TooSlow,
}

#[derive(Debug, Default)]
pub struct Outbox {
    queue: VecDeque<Outgoing>,
    /// Of the events that may be dropped.
    weight: Weight,
    /// Of renames and deletions, which are never dropped.
    names: Weight,
    /// Mailboxes whose events are dropped because a `resync` for them is waiting already.
    resync: Option<(Resync, ResyncReason)>,
    /// The latest value counts.
    health: Option<bool>,
    end: Option<End>,
    /// Too many renames waited: the session is about to end, and nothing waits any more.
    given_up: bool,
}

/// How many events wait, and how large they are.
#[derive(Debug, Clone, Copy, Default)]
struct Weight {
    events: usize,
    bytes: usize,
}

impl Weight {
    /// Whether there is room for one more.
    fn takes(&mut self, size: usize, limits: Limits) -> bool {
        let fits = self.events < limits.events && self.bytes + size <= limits.bytes;
        if fits {
            (self.events, self.bytes) = (self.events + 1, self.bytes + size);
        }
        fits
    }
}

/// What became of a push.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PushOutcome {
    Queued,
    /// The outbox was full: what waited, and this, became a `resync`.
    Collapsed,
    /// A `resync` that covers it is waiting.
    Absorbed,
}

impl Outbox {
    pub fn push_event(&mut self, delivery: &Arc<Delivery>, fields: EnvelopeFields, limits: Limits) -> PushOutcome {
        if self.given_up {
            return PushOutcome::Absorbed;
        }
        if is_of_names(&delivery.event) {
            let limits = Limits { events: limits.events.max(NAMES.events), bytes: limits.bytes.max(NAMES.bytes) };
            if !self.names.takes(delivery.size, limits) {
                self.give_up();
                return PushOutcome::Collapsed;
            }
            if let Some((Resync::Keys(keys), _)) = &mut self.resync {
                follow(keys, &delivery.event);
            }
            self.forget_empty_resync();
        } else if self.is_absorbed(&delivery.event) {
            return PushOutcome::Absorbed;
        } else if !self.weight.takes(delivery.size, limits) {
            self.collapse(delivery);
            return PushOutcome::Collapsed;
        }
        self.wait(Outgoing::Event { delivery: delivery.clone(), fields });
        PushOutcome::Queued
    }

    fn is_absorbed(&self, event: &Event) -> bool {
        match &self.resync {
            None => false,
            Some((Resync::All, _)) => true,
            Some((Resync::Keys(keys), _)) => mailboxes(event).all(|mailbox| keys.contains(&mailbox)),
        }
    }

    /// Drops events, in favour of a `resync` of their mailboxes by the names that these have after
    /// all renames that wait.
    fn collapse(&mut self, last: &Arc<Delivery>) {
        let mut keys = BTreeSet::new();
        self.queue.retain(|outgoing| match outgoing {
            Outgoing::Event { delivery, .. } if is_of_names(&delivery.event) => {
                follow(&mut keys, &delivery.event);
                true
            }
            Outgoing::Event { delivery, .. } => {
                keys.extend(mailboxes(&delivery.event));
                false
            }
            Outgoing::Moved { from, to } => {
                moved(&mut keys, from, to.as_ref());
                true
            }
            Outgoing::Revoked { key } => {
                keys.remove(key);
                true
            }
            _ => true,
        });
        keys.extend(mailboxes(&last.event));
        self.weight = Weight::default();
        self.push_resync(Resync::Keys(keys), ResyncReason::Overflow);
    }

    fn give_up(&mut self) {
        let end = self.end.or(Some(End::TooSlow));
        *self = Self { end, given_up: true, ..Self::default() };
    }

    fn wait(&mut self, outgoing: Outgoing) {
        if !self.given_up {
            self.queue.push_back(outgoing);
        }
    }

    fn forget_empty_resync(&mut self) {
        self.resync.take_if(|(scope, _)| matches!(scope, Resync::Keys(keys) if keys.is_empty()));
    }

    /// Merges into the `resync` that is waiting, if one is.
    pub fn push_resync(&mut self, scope: Resync, reason: ResyncReason) {
        if self.given_up {
            return;
        }
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
        self.wait(Outgoing::Settled { tag, key, outcome });
    }

    /// No event of the key that still waits is told any more, except its renames.
    pub fn push_revoked(&mut self, key: Key) {
        let weight = &mut self.weight;
        self.queue.retain(|outgoing| match outgoing {
            Outgoing::Event { delivery, .. }
                if !is_of_names(&delivery.event) && matches!(&key, Key::Mailbox(path) if *path == delivery.event.mailbox) =>
            {
                weight.events -= 1;
                weight.bytes -= delivery.size;
                false
            }
            _ => true,
        });
        if let Some((Resync::Keys(keys), _)) = &mut self.resync {
            keys.remove(&key);
        }
        self.forget_empty_resync();
        self.wait(Outgoing::Revoked { key });
    }

    pub fn push_moved(&mut self, from: Key, to: Option<Key>) {
        if let Some((Resync::Keys(keys), _)) = &mut self.resync {
            moved(keys, &from, to.as_ref());
        }
        self.forget_empty_resync();
        self.wait(Outgoing::Moved { from, to });
    }

    /// It waits once, however often it is pushed before it is taken.
    pub fn push_ask_rights(&mut self, key: Key) {
        let is_asked = |outgoing: &Outgoing| matches!(outgoing, Outgoing::AskRights { key: asked } if *asked == key);
        if !self.queue.iter().any(is_asked) {
            self.wait(Outgoing::AskRights { key });
        }
    }

    pub fn push_registration(&mut self, key: Key, status: RegistrationStatus) {
        self.wait(Outgoing::Registration { key, status });
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
        (self.weight, self.names) = Default::default();
        if let Some((keys, reason)) = self.resync.take() {
            // Last: the client first hears of the subscription, and of its name.
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

/// The mailboxes whose state an event changes.
fn mailboxes(event: &Event) -> impl Iterator<Item = Key> {
    event.keys().into_iter().filter(|key| matches!(key, Key::Mailbox(_)))
}

/// Whether it is a rename or a deletion.
fn is_of_names(event: &Event) -> bool {
    matches!(event.change, Change::MailboxRename { .. } | Change::MailboxDelete | Change::AccountRename { .. })
}

/// Renames the keys as the event says.
fn follow(keys: &mut BTreeSet<Key>, event: &Event) {
    let mailbox = &event.mailbox;
    match &event.change {
        Change::MailboxDelete => drop(keys.remove(&Key::Mailbox(mailbox.clone()))),
        // Mailboxes below it have an event of their own, for those who may know; INBOX keeps its
        // name.
        Change::MailboxRename { to } if mailbox.renamed(mailbox, to).is_some() => {
            moved(keys, &Key::Mailbox(mailbox.clone()), Some(&Key::Mailbox(to.clone())));
        }
        Change::AccountRename { to } => {
            let name = |key: Key| match &key {
                Key::Mailbox(path) if path.owner() == mailbox.owner() => {
                    MailboxPath::new(path.namespace(), to.as_str(), path.name()).map_or(key, Key::Mailbox)
                }
                Key::Account(user) if user.as_str() == mailbox.owner() => Key::Account(to.clone()),
                _ => key,
            };
            *keys = std::mem::take(keys).into_iter().map(name).collect();
        }
        _ => {}
    }
}

fn moved(keys: &mut BTreeSet<Key>, from: &Key, to: Option<&Key>) {
    if keys.remove(from) {
        keys.extend(to.cloned());
    }
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
            [PushOutcome::Queued, PushOutcome::Queued, PushOutcome::Queued, PushOutcome::Collapsed]
        );
        assert_eq!([push("a"), push("c")], [PushOutcome::Absorbed, PushOutcome::Queued], "other mailboxes go on");
        assert_eq!(show(&mut outbox), ["c", "resync 2 overflow"]);
        assert!(outbox.is_empty());
        assert_eq!(outbox.push_event(&delivery("a"), EnvelopeFields::NONE, LIMITS), PushOutcome::Queued, "drained: as new");
    }

    fn changed(mailbox: &str, change: Change) -> Arc<Delivery> {
        let mut delivery = Arc::into_inner(delivery(mailbox)).unwrap();
        delivery.event.change = change;
        Arc::new(delivery)
    }

    fn rename(mailbox: &str, to: &str) -> Arc<Delivery> {
        changed(mailbox, Change::MailboxRename { to: format!("#private:bob:{to}").parse().unwrap() })
    }

    fn key(mailbox: &str) -> Key {
        Key::Mailbox(format!("#private:bob:{mailbox}").parse().unwrap())
    }

    fn resync(outbox: &mut Outbox) -> Option<Resync> {
        outbox.take().into_iter().find_map(|outgoing| match outgoing {
            Outgoing::Resync { keys, .. } => Some(keys),
            _ => None,
        })
    }

    #[test]
    fn what_a_mailbox_is_called_is_told_however_much_is_dropped() {
        let limits = Limits { events: 1, bytes: 1000 };
        for everything in [false, true] {
            let mut outbox = Outbox::default();
            if everything {
                outbox.push_resync(Resync::All, ResyncReason::QueueGap);
            }
            let mut push = |delivery: &Arc<Delivery>| outbox.push_event(delivery, EnvelopeFields::NONE, limits);
            push(&delivery("a"));
            push(&delivery("a"));
            assert_eq!(push(&rename("a", "b")), PushOutcome::Queued);
            outbox.push_moved(key("a"), Some(key("b")));
            assert_eq!(outbox.push_event(&delivery("b"), EnvelopeFields::NONE, limits), PushOutcome::Absorbed);
            let told = show(&mut outbox);
            assert_eq!(told[0], "a", "the rename: {told:?}");
            assert_eq!(told.last().unwrap(), if everything { "resync all queue_gap" } else { "resync 1 overflow" });
        }
    }

    #[test]
    fn what_is_dropped_is_named_as_it_is_called_in_the_end() {
        let limits = Limits { events: 2, bytes: 1000 };
        let push_all = |last: &str| {
            let mut outbox = Outbox::default();
            for delivery in [delivery("a"), rename("a", "b"), delivery("c"), changed("c", Change::MailboxDelete), delivery(last)]
            {
                outbox.push_event(&delivery, EnvelopeFields::NONE, limits);
            }
            outbox
        };
        assert_eq!(resync(&mut push_all("d")), Some(Resync::Keys(BTreeSet::from([key("b"), key("d")]))));
        let mut outbox = push_all("d");
        outbox.push_event(&rename("d", "e"), EnvelopeFields::NONE, limits);
        assert_eq!(resync(&mut outbox), Some(Resync::Keys(BTreeSet::from([key("b"), key("e")]))));
        assert_eq!(show(&mut push_all("c")), ["a", "c", "resync 2 overflow"], "made anew: {:?}", key("c"));
    }

    #[test]
    fn what_has_ended_is_not_told_to_resync() {
        let mut outbox = Outbox::default();
        outbox.push_event(&delivery("b"), EnvelopeFields::NONE, LIMITS);
        outbox.push_event(&rename("b", "a"), EnvelopeFields::NONE, LIMITS);
        outbox.push_moved(key("b"), Some(key("a")));
        outbox.push_revoked(key("a"));
        for _ in 0..3 {
            outbox.push_event(&delivery("c"), EnvelopeFields::NONE, LIMITS);
        }
        assert_eq!(resync(&mut outbox), Some(Resync::Keys(BTreeSet::from([key("c")]))));
    }

    #[test]
    fn a_session_that_names_alone_fill_is_ended() {
        let mut outbox = Outbox::default();
        for n in 0..3_000 {
            outbox.push_event(&rename(&n.to_string(), "x"), EnvelopeFields::NONE, LIMITS);
            outbox.push_moved(key(&n.to_string()), Some(key("x")));
        }
        outbox.push_resync(Resync::All, ResyncReason::QueueGap);
        assert_eq!(show(&mut outbox), ["End(TooSlow)"]);
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
        assert_eq!(outbox.push_event(&delivery("b"), EnvelopeFields::NONE, LIMITS), PushOutcome::Queued, "there is room again");
        assert_eq!(show(&mut outbox), ["b", r##"Revoked { key: Mailbox("#private:bob:a") }"##, "b"]);
    }

    #[test]
    fn bytes_are_bounded_too() {
        let mut outbox = Outbox::default();
        let limits = Limits { events: 100, bytes: 250 };
        let mut push = || outbox.push_event(&delivery("a"), EnvelopeFields::NONE, limits);
        assert_eq!([push(), push(), push()], [PushOutcome::Queued, PushOutcome::Queued, PushOutcome::Collapsed]);
    }

    #[test]
    fn a_resync_of_very_many_mailboxes_is_of_everything() {
        let mut outbox = Outbox::default();
        for n in 0..200 {
            let key = Key::Mailbox(format!("#private:bob:{n}").parse().unwrap());
            outbox.push_resync(Resync::Keys(BTreeSet::from([key])), ResyncReason::QueueGap);
        }
        assert_eq!(outbox.push_event(&delivery("a"), EnvelopeFields::NONE, LIMITS), PushOutcome::Absorbed);
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
