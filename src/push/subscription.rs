//! One subscription of a session, from the request until it ends.
//!
//! ```text
//!  subscribe                 rights allow it              settled                     the mailbox is renamed
//! ───────────▶ Requested ───────────────────▶ Settling ───────────▶ Standing ◀──────────────────────────────▶ Moving
//!                  │                              │                    │          the client is told so          │
//!                  └─ denied, no answer ──────────┴────────────────────┴─ unsubscribe, revoked, deleted ─────────┘
//!                                                                      ▼
//!                                                                    (gone)
//! ```
//!
//! Rights that are in doubt are the grant's business while they are; what is left of it here is
//! [`Loss`]. A resumed subscription would begin as `Settling`, with where it reads from; an account
//! that NOTIFY watches is one more [`Interest`].

use std::sync::Arc;

use tokio::sync::oneshot;

use super::access::Grant;
use super::delivery::Delivery;
use super::hub::Filter;
use super::presence::{Lease, Presence};
use crate::mail::key::Key;
use crate::mail::rights::Rights;

/// One subscription of a session.
#[derive(Debug)]
pub(super) struct Subscription {
    /// What it is of now.
    pub key: Key,
    /// Tells it from others of the session, earlier ones of the same key too. It changes where the
    /// task that sees to the subscription is to find it no more.
    pub id: u64,
    pub interest: Interest,
    /// What is known of the rights; `None` for what is the user's own.
    pub grant: Option<Arc<Grant>>,
    pub state: State,
}

/// Who wants to hear of a key, and of what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Interest {
    /// An IMAP session has the mailbox selected, and wants everything.
    Watched,
    /// The client has asked for it.
    Client(Filter),
    /// The client has asked for its own account, and for the mailboxes that are shared with the
    /// user.
    AccountAndShared(Filter),
    /// An account's subscription covers the mailbox, which is shared with the user.
    Covered(Filter),
    /// Both.
    ClientAndCovered { client: Filter, covered: Filter },
}

/// Where a subscription is on its way. A task sees to each but a standing one without a renewal.
#[derive(Debug)]
pub(super) enum State {
    /// The rights are being asked for.
    Requested(Request),
    /// The key is registered, and not every publisher finds it yet.
    Settling(Request, Lease),
    /// It is in the hub, and the client knows that it stands.
    Standing(Standing),
    /// Its mailbox has another name, and whether the client may know that name is being asked.
    /// Nothing is told meanwhile.
    Moving(Box<Moving>),
}

/// What the task that sees to a request has to answer.
#[derive(Debug, Default)]
pub(super) struct Request {
    /// The client's commands.
    pub tags: Vec<u32>,
    pub begin: Begin,
}

/// From when on the client hears of the key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Begin {
    #[default]
    Settled,
    /// From the registration on, for the mailbox came to be shared while the account's subscription
    /// stood; once it has settled, the client is told to read it again.
    Registered,
}

#[derive(Debug)]
pub(super) struct Standing {
    pub lease: Lease,
    /// Milliseconds since 1970, UTC.
    pub since: u64,
    /// The rights that the client was told of.
    pub rights: Rights,
    pub loss: Loss,
    /// A task looks at it once more, and answers these tags. `None`: nothing is under way.
    pub renewal: Option<Vec<u32>>,
}

/// Whether the rights are lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Loss {
    No,
    /// They are, and nobody has announced it. The client is told of nothing, and not of the loss
    /// either.
    Unannounced,
}

#[derive(Debug)]
pub(super) struct Moving {
    /// The key by which the client knows it.
    pub from: Key,
    /// The rename, as the client will be told.
    pub news: Arc<Delivery>,
    /// Of the key that it had last while it stood.
    pub lease: Lease,
    /// Milliseconds since 1970, UTC.
    pub since: u64,
    pub rights: Rights,
    /// The client's commands that wait.
    pub tags: Vec<u32>,
}

impl Interest {
    pub fn filter(self) -> Filter {
        match self {
            Self::Watched => Filter::EVERYTHING,
            Self::Client(filter) | Self::AccountAndShared(filter) | Self::Covered(filter) => filter,
            Self::ClientAndCovered { client, covered } => client.or(covered),
        }
    }

    /// The rights without which it is refused: a mailbox that is only covered is covered to be
    /// read.
    pub fn needs(self) -> Rights {
        match self {
            Self::Covered(_) | Self::Watched => Rights::READ,
            Self::Client(_) | Self::AccountAndShared(_) | Self::ClientAndCovered { .. } => Rights::LOOKUP,
        }
    }

    /// What the client has asked for.
    pub fn client(self) -> Option<Filter> {
        match self {
            Self::Client(client) | Self::AccountAndShared(client) | Self::ClientAndCovered { client, .. } => Some(client),
            Self::Covered(_) | Self::Watched => None,
        }
    }

    /// What an account's subscription wants of it.
    pub fn covered(self) -> Option<Filter> {
        match self {
            Self::Covered(covered) | Self::ClientAndCovered { covered, .. } => Some(covered),
            Self::Client(_) | Self::AccountAndShared(_) | Self::Watched => None,
        }
    }

    /// The client asks for it, or for something else of it.
    pub fn ask(&mut self, interest: Self) {
        *self = match (interest.client(), self.covered()) {
            (Some(client), Some(covered)) => Self::ClientAndCovered { client, covered },
            _ => interest,
        };
    }

    /// An account's subscription covers it. Whether that is new.
    pub fn cover(&mut self, covered: Filter) -> bool {
        let is_new = self.covered() != Some(covered);
        *self = match self.client() {
            Some(client) => Self::ClientAndCovered { client, covered },
            None => Self::Covered(covered),
        };
        is_new
    }

    /// The client wants it no more. What is left: an account's subscription may cover it.
    pub fn without_client(self) -> Option<Self> {
        self.covered().map(Self::Covered)
    }

    /// No account's subscription covers it any more. What is left.
    pub fn without_cover(self) -> Option<Self> {
        match self {
            Self::ClientAndCovered { client, .. } => Some(Self::Client(client)),
            Self::Covered(_) => None,
            other => Some(other),
        }
    }

    /// An account's subscription covers what is shared no more. Whether it did.
    pub fn stop_sharing(&mut self) -> bool {
        let Self::AccountAndShared(filter) = *self else { return false };
        *self = Self::Client(filter);
        true
    }

    pub fn is_of_shared(self) -> bool {
        matches!(self, Self::AccountAndShared(_))
    }

    /// What either wants.
    fn or(self, other: Self) -> Self {
        let either = |a: Option<Filter>, b: Option<Filter>| match (a, b) {
            (Some(a), Some(b)) => Some(a.or(b)),
            (one, None) | (None, one) => one,
        };
        match (either(self.client(), other.client()), either(self.covered(), other.covered())) {
            (Some(client), Some(covered)) => Self::ClientAndCovered { client, covered },
            (Some(client), None) if self.is_of_shared() || other.is_of_shared() => Self::AccountAndShared(client),
            (Some(client), None) => Self::Client(client),
            (None, Some(covered)) => Self::Covered(covered),
            (None, None) => Self::Watched,
        }
    }
}

impl Subscription {
    /// Whether every change is told, as far as the rights allow it.
    pub fn is_in_hub(&self) -> bool {
        matches!(self.state, State::Standing(_))
    }

    pub fn is_moving(&self) -> bool {
        matches!(self.state, State::Moving(_))
    }

    /// Since when the client knows that it stands; milliseconds since 1970, UTC.
    pub fn since(&self) -> Option<u64> {
        match &self.state {
            State::Requested(_) | State::Settling(..) => None,
            State::Standing(standing) => Some(standing.since),
            State::Moving(moving) => Some(moving.since),
        }
    }

    /// What the client knows it by. No two of a session have one name, and no two that stand one
    /// key.
    pub fn name(&self) -> &Key {
        match &self.state {
            State::Moving(moving) => &moving.from,
            State::Requested(_) | State::Settling(..) | State::Standing(_) => &self.key,
        }
    }

    pub fn lease(&self) -> Option<&Lease> {
        match &self.state {
            State::Requested(_) => None,
            State::Settling(_, lease) => Some(lease),
            State::Standing(standing) => Some(&standing.lease),
            State::Moving(moving) => Some(&moving.lease),
        }
    }

    pub fn standing(&mut self) -> Option<&mut Standing> {
        match &mut self.state {
            State::Standing(standing) => Some(standing),
            State::Requested(_) | State::Settling(..) | State::Moving(_) => None,
        }
    }

    /// Whether it is held by this grant.
    pub fn is_by(&self, grant: &Arc<Grant>) -> bool {
        self.grant.as_ref().is_some_and(|own| Arc::ptr_eq(own, grant))
    }

    /// Whether a task sees to it.
    pub fn is_busy(&self) -> bool {
        !matches!(&self.state, State::Standing(Standing { renewal: None, .. }))
    }

    /// A task begins to see to it.
    pub fn set_busy(&mut self) {
        if let State::Standing(standing) = &mut self.state {
            standing.renewal.get_or_insert_default();
        }
    }

    /// A command of the client waits for it.
    pub fn wait(&mut self, tag: u32) {
        match &mut self.state {
            State::Requested(request) | State::Settling(request, _) => request.tags.push(tag),
            State::Standing(standing) => standing.renewal.get_or_insert_default().push(tag),
            State::Moving(moving) => moving.tags.push(tag),
        }
    }

    /// Those who wait for it, to be answered by the caller.
    pub fn take_tags(&mut self) -> Vec<u32> {
        match &mut self.state {
            State::Requested(request) | State::Settling(request, _) => std::mem::take(&mut request.tags),
            State::Standing(standing) => standing.renewal.as_mut().map(std::mem::take).unwrap_or_default(),
            State::Moving(moving) => std::mem::take(&mut moving.tags),
        }
    }

    /// The task that sees to it has ended. Returns those who wait for it, to be answered by the
    /// caller.
    pub fn end_task(&mut self) -> Vec<u32> {
        let tags = self.take_tags();
        if let State::Standing(standing) = &mut self.state {
            standing.renewal = None;
        }
        tags
    }

    /// Registers the key, unless it is. What resolves once the registration has settled; `None`: it
    /// has.
    pub fn register(&mut self, presence: &Arc<Presence>) -> Option<oneshot::Receiver<()>> {
        if let State::Requested(request) = &mut self.state {
            let (request, lease) = (std::mem::take(request), presence.acquire(&self.key));
            self.state = State::Settling(request, lease);
        }
        self.lease().and_then(|lease| presence.settling(lease))
    }

    /// It stands from now on, with these rights. Returns who is to be answered. `renewal`: what the
    /// task that sees to it does next.
    pub fn stand(&mut self, now: u64, rights: Rights, renewal: Renewal) -> Vec<u32> {
        let tags = self.take_tags();
        let renewal = match renewal {
            Renewal::GoesOn => Some(Vec::new()),
            Renewal::Over => None,
        };
        let state = std::mem::replace(&mut self.state, State::Requested(Request::default()));
        self.state = match state {
            State::Settling(_, lease) => State::Standing(Standing { lease, since: now, rights, loss: Loss::No, renewal }),
            State::Standing(standing) => State::Standing(Standing { rights, renewal, ..standing }),
            // Neither has a task that could bring it here.
            other @ (State::Requested(_) | State::Moving(_)) => other,
        };
        tags
    }

    /// Its mailbox has another name. `id` is its new one: whoever saw to it under the old name does
    /// not find it any more.
    pub fn move_to(&mut self, to: Key, id: u64, grant: Option<Arc<Grant>>, news: impl FnOnce(&Key) -> Arc<Delivery>) {
        let from = self.name().clone();
        let news = news(&from);
        let state = std::mem::replace(&mut self.state, State::Requested(Request::default()));
        self.state = match state {
            State::Standing(Standing { lease, since, rights, renewal, .. }) => {
                State::Moving(Box::new(Moving { from, news, lease, since, rights, tags: renewal.unwrap_or_default() }))
            }
            State::Moving(moving) => State::Moving(Box::new(Moving { news, ..*moving })),
            // What does not stand yet is turned back before.
            other @ (State::Requested(_) | State::Settling(..)) => other,
        };
        (self.key, self.id, self.grant) = (to, id, grant);
    }

    /// The client may know the new name: it stands again. What it was, and who waits for it.
    pub fn arrive(&mut self) -> Option<(Key, Arc<Delivery>, Vec<u32>)> {
        let state = std::mem::replace(&mut self.state, State::Requested(Request::default()));
        match state {
            State::Moving(moving) => {
                let Moving { from, news, lease, since, rights, tags } = *moving;
                self.state = State::Standing(Standing { lease, since, rights, loss: Loss::No, renewal: None });
                Some((from, news, tags))
            }
            other => {
                self.state = other;
                None
            }
        }
    }

    /// Two that have one key now are one: what either wants. `tags` wait for this one. Where a task
    /// sees to the other, it answers all; else they are returned, to be answered now.
    pub fn merge(&mut self, mut other: Self, mut tags: Vec<u32>) -> Vec<u32> {
        self.interest = self.interest.or(other.interest);
        let is_busy = other.is_busy();
        tags.append(&mut other.take_tags());
        if let State::Standing(standing) = &mut self.state {
            if let State::Standing(other) = &other.state {
                standing.rights = standing.rights.with(other.rights);
                standing.loss = other.loss;
            }
            let own = standing.renewal.take();
            let has_own = own.is_some();
            let mut all = own.unwrap_or_default();
            all.append(&mut tags);
            if is_busy && !all.is_empty() {
                self.id = other.id;
                standing.renewal = Some(all);
            } else if has_own {
                standing.renewal = Some(all);
            } else {
                tags = all;
            }
        }
        tags
    }
}

/// What becomes of the task that sees to a subscription once it stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Renewal {
    GoesOn,
    Over,
}

/// The subscriptions of one session.
#[derive(Debug, Default)]
pub(super) struct Book {
    subscriptions: Vec<Subscription>,
    life: Life,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Life {
    #[default]
    Open,
    Ended,
}

impl Book {
    pub fn is_open(&self) -> bool {
        self.life == Life::Open
    }

    /// For ever. What was in it.
    pub fn close(&mut self) -> Vec<Subscription> {
        self.life = Life::Ended;
        std::mem::take(&mut self.subscriptions)
    }

    pub fn iter(&self) -> std::slice::Iter<'_, Subscription> {
        self.subscriptions.iter()
    }

    pub fn iter_mut(&mut self) -> std::slice::IterMut<'_, Subscription> {
        self.subscriptions.iter_mut()
    }

    pub fn add(&mut self, subscription: Subscription) {
        // Most sessions have one or two, and there are many sessions.
        if self.subscriptions.len() < 4 {
            self.subscriptions.reserve_exact(1);
        }
        self.subscriptions.push(subscription);
    }

    pub fn get(&mut self, id: u64) -> Option<&mut Subscription> {
        self.subscriptions.iter_mut().find(|subscription| subscription.id == id)
    }

    pub fn remove(&mut self, id: u64) -> Option<Subscription> {
        self.remove_where(|subscription| subscription.id == id)
    }

    /// The first of which this is true.
    pub fn remove_where(&mut self, is: impl Fn(&Subscription) -> bool) -> Option<Subscription> {
        let at = self.subscriptions.iter().position(is)?;
        Some(self.subscriptions.swap_remove(at))
    }

    /// Takes out all of which this is true.
    pub fn extract(&mut self, is: impl FnMut(&mut Subscription) -> bool) -> Vec<Subscription> {
        self.subscriptions.extract_if(.., is).collect()
    }

    /// The one that the client knows by this name.
    pub fn named(&mut self, name: &Key) -> Option<&mut Subscription> {
        self.subscriptions.iter_mut().find(|subscription| subscription.name() == name)
    }

    /// The one that is in the hub under this key.
    pub fn in_hub(&mut self, key: &Key) -> Option<&mut Subscription> {
        self.subscriptions.iter_mut().find(|subscription| subscription.key == *key && subscription.is_in_hub())
    }

    pub fn grant(&self, key: &Key) -> Option<Arc<Grant>> {
        self.iter().find(|subscription| subscription.key == *key)?.grant.clone()
    }

    /// What stands, by the names that the client knows, each with the time since when (ms since
    /// 1970).
    pub fn established(&self) -> Vec<(Key, u64)> {
        self.iter().filter_map(|subscription| Some((subscription.name().clone(), subscription.since()?))).collect()
    }
}

#[cfg(test)]
#[path = "subscription_tests.rs"]
mod tests;
