//! Tickets: for clients that can send neither a header nor a first frame (`EventSource`).
//!
//! Single-use and short-lived, for a URL ends in logs. The node that gave a ticket out redeems it;
//! its name is in the ticket, so that any node behind a load balancer knows whom to ask.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use data_encoding::BASE64URL_NOPAD;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::auth::Identity;
use crate::lock::Mutex;
use crate::mail::ids::NodeId;
use crate::mail::user::UserName;

/// How long a ticket can be redeemed.
pub const LIFETIME: Duration = Duration::from_secs(60);

/// Tickets outstanding at once, at most: 10,000 page loads a minute are beyond one node.
const OUTSTANDING: usize = 10_000;

/// Of them, those of one user: nobody can use up what is there for all.
const OUTSTANDING_OF_USER: usize = 100;

/// Given-out tickets of one node.
#[derive(Debug, Default)]
pub struct Tickets {
    outstanding: Mutex<Outstanding>,
}

#[derive(Debug, Default)]
struct Outstanding {
    by_number: HashMap<String, (Instant, Identity)>,
    per_user: HashMap<UserName, usize>,
}

/// Too many tickets are waiting to be redeemed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TooManyTickets {
    #[error("too many tickets of this user are outstanding, come back in a minute")]
    OfUser,
    #[error("too many tickets are outstanding, come back in a minute")]
    OfNode,
}

/// A ticket, read.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Ticket {
    pub node: NodeId,
    pub number: String,
}

impl Ticket {
    /// `NODE.NUMBER`; `None` for anything else. The number goes into a path: it holds nothing but
    /// what we give out.
    pub fn parse(text: &str) -> Option<Self> {
        let (node, number) = text.split_once('.')?;
        let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
        if number.is_empty() || !number.bytes().all(plain) {
            return None;
        }
        Some(Self { node: node.parse().ok()?, number: number.to_owned() })
    }
}

impl Outstanding {
    /// What stands in the way of one more for this user.
    fn refusal(&self, user: &UserName) -> Option<TooManyTickets> {
        if self.per_user.get(user).is_some_and(|count| *count >= OUTSTANDING_OF_USER) {
            Some(TooManyTickets::OfUser)
        } else if self.by_number.len() >= OUTSTANDING {
            Some(TooManyTickets::OfNode)
        } else {
            None
        }
    }

    fn forget_expired(&mut self, now: Instant) {
        let expired = self.by_number.extract_if(|_, (until, _)| *until <= now).map(|(_, (_, identity))| identity.user);
        for user in expired {
            forget_one(&mut self.per_user, &user);
        }
    }
}

fn forget_one(per_user: &mut HashMap<UserName, usize>, user: &UserName) {
    if let Some(count) = per_user.get_mut(user) {
        *count -= 1;
        if *count == 0 {
            per_user.remove(user);
        }
    }
}

impl Tickets {
    /// Gives one out for an identity.
    pub fn issue(&self, node: &NodeId, identity: Identity, now: Instant) -> Result<String, TooManyTickets> {
        let mut outstanding = self.outstanding.lock();
        if outstanding.refusal(&identity.user).is_some() {
            outstanding.forget_expired(now);
            if let Some(refusal) = outstanding.refusal(&identity.user) {
                return Err(refusal);
            }
        }
        let random = [Uuid::new_v4().into_bytes(), Uuid::new_v4().into_bytes()].concat();
        let number = BASE64URL_NOPAD.encode(&random);
        let ticket = format!("{node}.{number}");
        *outstanding.per_user.entry(identity.user.clone()).or_default() += 1;
        outstanding.by_number.insert(number, (now + LIFETIME, identity));
        Ok(ticket)
    }

    /// Takes one in; it works once.
    pub fn redeem(&self, number: &str, now: Instant) -> Option<Identity> {
        let mut outstanding = self.outstanding.lock();
        let (until, identity) = outstanding.by_number.remove(number)?;
        forget_one(&mut outstanding.per_user, &identity.user);
        (until > now).then_some(identity)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::edge::auth::Scopes;

    #[test]
    fn a_user_has_a_share_of_the_tickets() {
        let (tickets, node, now) = (Tickets::default(), "n".parse().unwrap(), Instant::now());
        let issue = |user: &str, now| {
            let user = UserName::new(user).unwrap();
            tickets.issue(&node, Identity { user, groups: Vec::new(), scopes: Scopes::PUSH, expires_at: 0 }, now)
        };
        let first = issue("bob", now).unwrap();
        for _ in 1..OUTSTANDING_OF_USER {
            issue("bob", now).unwrap();
        }
        assert_eq!(issue("bob", now), Err(TooManyTickets::OfUser));
        assert!(issue("alice", now).is_ok());
        let number = Ticket::parse(&first).unwrap().number;
        assert!(tickets.redeem(&number, now).is_some() && tickets.redeem(&number, now).is_none());
        assert!(issue("bob", now).is_ok(), "one is redeemed");
        assert_eq!(issue("bob", now), Err(TooManyTickets::OfUser));
        assert!(issue("bob", now + LIFETIME).is_ok(), "all are too old");
        assert_eq!(tickets.outstanding.lock().by_number.len(), 1);
    }
}
