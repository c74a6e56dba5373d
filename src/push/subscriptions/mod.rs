//! Subscribing: allowed, registered and settled first, then in the hub, then told (I-4, I-5, I-10).
//!
//! `service` holds what all of it needs; `requests` takes what clients ask for; `establish` brings
//! a subscription to where every change is told; `review` does what follows when rights change;
//! `moves` follows mailboxes and users that are renamed, or deleted; `shares` keeps an account
//! subscription covering what is shared with its user, and `listings` says when it looks again.
//! What a subscription is, and the states it goes through, stands in `push/subscription.rs`.

mod coverage;
mod establish;
mod listings;
mod moves;
mod requests;
mod review;
mod service;
mod shares;

use std::sync::Arc;

use tokio::sync::mpsc;

pub use self::requests::Wish;
pub use self::service::{Parts, Subscriptions};
use super::delivery::Delivery;
use crate::mail::event::Change;
use crate::tasks::vital;

impl Subscriptions {
    /// Starts what looks after rights; it ends when the last `Arc` is dropped.
    pub fn start(parts: Parts) -> Arc<Self> {
        let (line, waiting) = mpsc::unbounded_channel();
        let (subscriptions, notices) = Self::new(parts, line);
        tokio::spawn(vital("changes of rights", review::handle_notices(Arc::downgrade(&subscriptions), notices)));
        tokio::spawn(vital("listings", listings::pace(Arc::downgrade(&subscriptions), waiting)));
        tokio::spawn(vital("listings again", listings::recheck(Arc::downgrade(&subscriptions))));
        subscriptions
    }

    /// What an event changes in the books of this node, once it has been delivered. In the order of
    /// the queue: what follows in it is delivered by what stands then.
    pub fn apply(self: &Arc<Self>, delivery: &Arc<Delivery>) {
        let event = &delivery.event;
        match &event.change {
            Change::AclChange { identifier, rights } => self.access.acl_changed(&event.mailbox, identifier, rights),
            Change::MailboxRename { to } => self.renamed(delivery, to),
            Change::AccountRename { to } => self.renamed_account(delivery, to),
            Change::MailboxDelete => self.deleted(delivery),
            // Another mailbox of the name, perhaps.
            Change::MailboxCreate => self.access.doubt_mailbox(&event.mailbox),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests;
