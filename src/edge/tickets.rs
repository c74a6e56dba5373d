//! Tickets: for clients that can send neither a header nor a first frame (`EventSource`).
//!
//! Single-use and short-lived, for a URL ends in logs. The node that gave a ticket out redeems it; its name is in
//! the ticket, so that any node behind a load balancer knows whom to ask.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use data_encoding::BASE64URL_NOPAD;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::auth::Identity;
use crate::mail::ids::NodeId;

/// How long a ticket can be redeemed.
pub const LIFETIME: Duration = Duration::from_secs(60);

/// Tickets outstanding at once, at most: 10,000 page loads a minute are beyond one node.
const OUTSTANDING: usize = 10_000;

/// Given-out tickets of one node.
#[derive(Debug, Default)]
pub struct Tickets {
    outstanding: Mutex<HashMap<String, (Instant, Identity)>>,
}

/// Too many tickets are waiting to be redeemed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("too many tickets are outstanding, come back in a minute")]
pub struct TooManyTickets;

/// A ticket, read.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Ticket {
    pub node: NodeId,
    pub number: String,
}

impl Ticket {
    /// `NODE.NUMBER`; `None` for anything else.
    pub fn parse(text: &str) -> Option<Self> {
        let (node, number) = text.split_once('.')?;
        Some(Self { node: node.parse().ok()?, number: number.to_owned() })
    }
}

impl Tickets {
    /// Gives one out for an identity.
    pub fn issue(&self, node: &NodeId, identity: Identity, now: Instant) -> Result<String, TooManyTickets> {
        let mut outstanding = self.outstanding.lock().unwrap_or_else(PoisonError::into_inner);
        if outstanding.len() >= OUTSTANDING {
            outstanding.retain(|_, (until, _)| *until > now);
            if outstanding.len() >= OUTSTANDING {
                return Err(TooManyTickets);
            }
        }
        let random = [Uuid::new_v4().into_bytes(), Uuid::new_v4().into_bytes()].concat();
        let number = BASE64URL_NOPAD.encode(&random);
        let ticket = format!("{node}.{number}");
        outstanding.insert(number, (now + LIFETIME, identity));
        Ok(ticket)
    }

    /// Takes one in; it works once.
    pub fn redeem(&self, number: &str, now: Instant) -> Option<Identity> {
        let mut outstanding = self.outstanding.lock().unwrap_or_else(PoisonError::into_inner);
        outstanding.remove(number).filter(|(until, _)| *until > now).map(|(_, identity)| identity)
    }
}
