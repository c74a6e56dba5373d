//! Tokens that the keys at hand do not verify: since when each is presented, and who may have the
//! key set fetched for them. Pure: the time comes in.
//!
//! What a token says of its age (`iat`) is worth nothing while its signature is not verified. So
//! its age is counted from when it was first presented here.

use std::collections::{HashMap, VecDeque};
use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use sha2::{Digest, Sha256};
use tokio::time::Instant;

/// Tokens remembered at once. One that is forgotten counts as new: it is told to come back once
/// more.
const TOKENS: usize = 10_000;

/// Addresses remembered at once.
const ADDRESSES: usize = 4_096;

/// Fetches that one address can cause in a row, and how long it takes until it may cause one more.
const IN_A_ROW: u32 = 5;
const ONE_MORE_AFTER: Duration = Duration::from_secs(60);

/// When tokens were first presented, and what each address has asked for.
#[derive(Default)]
pub(super) struct Presented {
    first: HashMap<[u8; 32], Instant>,
    /// The tokens in the order in which they came: the oldest is forgotten first.
    order: VecDeque<[u8; 32]>,
    /// When each address will have back all that it has used up.
    full_again: HashMap<IpAddr, Instant>,
}

impl Presented {
    /// When this token was first presented: now, if it is not remembered.
    pub fn first_at(&mut self, token: &str, now: Instant) -> Instant {
        let digest: [u8; 32] = Sha256::digest(token).into();
        if let Some(first) = self.first.get(&digest) {
            return *first;
        }
        if self.order.len() == TOKENS
            && let Some(oldest) = self.order.pop_front()
        {
            self.first.remove(&oldest);
        }
        self.order.push_back(digest);
        self.first.insert(digest, now);
        now
    }

    /// Whether this address may cause one more fetch now. If so, it counts as caused.
    pub fn may_ask(&mut self, from: IpAddr, now: Instant) -> bool {
        let net = net_of(from);
        if !self.full_again.contains_key(&net) && self.full_again.len() >= ADDRESSES {
            self.full_again.retain(|_, full| *full > now);
            if let Some(other) = self.full_again.keys().next().copied().filter(|_| self.full_again.len() >= ADDRESSES) {
                self.full_again.remove(&other);
            }
        }
        let full = self.full_again.get(&net).copied().unwrap_or(now).max(now) + ONE_MORE_AFTER;
        let may = full <= now + ONE_MORE_AFTER * IN_A_ROW;
        if may {
            self.full_again.insert(net, full);
        }
        may
    }
}

/// What counts as one address: of IPv6 the net, for whoever has one address there has all of it.
fn net_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() & !u128::from(u64::MAX)).into(),
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_as_old_as_its_first_presentation() {
        let (mut presented, begin) = (Presented::default(), Instant::now());
        let later = begin + Duration::from_secs(5);
        assert_eq!(presented.first_at("a", begin), begin);
        assert_eq!((presented.first_at("a", later), presented.first_at("b", later)), (begin, later));
        for number in 0..TOKENS {
            presented.first_at(&number.to_string(), later);
        }
        assert_eq!((presented.first.len(), presented.order.len()), (TOKENS, TOKENS));
        assert_eq!(presented.first_at("a", later), later, "the oldest is forgotten, and is new again");
    }

    #[test]
    fn an_address_can_cause_few_fetches_and_none_for_the_others() {
        let (mut presented, begin) = (Presented::default(), Instant::now());
        let [one, mapped, other] = ["192.0.2.1", "::ffff:192.0.2.1", "192.0.2.2"].map(|text| text.parse().unwrap());
        for _ in 0..IN_A_ROW {
            assert!(presented.may_ask(one, begin));
        }
        assert!(!presented.may_ask(one, begin) && !presented.may_ask(mapped, begin));
        assert!(presented.may_ask(other, begin), "the others are not touched");
        assert!(!presented.may_ask(one, begin + ONE_MORE_AFTER - Duration::from_secs(1)));
        assert!(presented.may_ask(one, begin + ONE_MORE_AFTER));
        assert!(!presented.may_ask(one, begin + ONE_MORE_AFTER), "one more, and no more than that");
        let [first, second, elsewhere] = ["2001:db8::1", "2001:db8::2", "2001:db8:0:1::1"].map(|text| text.parse().unwrap());
        for _ in 0..IN_A_ROW {
            assert!(presented.may_ask(first, begin));
        }
        assert!(!presented.may_ask(second, begin) && presented.may_ask(elsewhere, begin), "IPv6 counts by nets");
    }

    #[test]
    fn many_addresses_are_not_all_remembered() {
        let (mut presented, begin) = (Presented::default(), Instant::now());
        for number in 0..2 * ADDRESSES as u32 {
            assert!(presented.may_ask(std::net::Ipv4Addr::from_bits(number).into(), begin));
        }
        assert_eq!(presented.full_again.len(), ADDRESSES);
    }
}
