//! How many connections one address may have.

use crate::lock::Mutex;
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

/// What counts as one address: of IPv6 a /64, for that is what one customer has at least (RFC
/// 6177).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Site {
    V4(u32),
    V6(u64),
}

impl Site {
    fn of(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(address) => Self::V4(address.to_bits()),
            IpAddr::V6(address) => Self::V6((address.to_bits() >> 64) as u64),
        }
    }
}

/// Connections by address.
#[derive(Debug)]
pub struct PerAddress {
    limit: usize,
    counts: Mutex<HashMap<Site, usize>>,
}

/// Held as long as a connection lives.
#[derive(Debug)]
pub struct AddressPermit {
    site: Site,
    limits: Arc<PerAddress>,
}

impl PerAddress {
    pub fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self { limit, counts: Mutex::default() })
    }

    /// `None` where this address has as many as it may.
    pub fn enter(self: &Arc<Self>, address: IpAddr) -> Option<AddressPermit> {
        let site = Site::of(address);
        let mut counts = self.counts.lock();
        let count = counts.entry(site).or_default();
        if *count >= self.limit {
            return None;
        }
        *count += 1;
        Some(AddressPermit { site, limits: self.clone() })
    }
}

impl Drop for AddressPermit {
    fn drop(&mut self) {
        let mut counts = self.limits.counts.lock();
        if let Some(count) = counts.get_mut(&self.site) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.site);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_so_many_and_a_v6_net_counts_as_one() {
        let limits = PerAddress::new(2);
        let enter = |address: &str| limits.enter(address.parse().unwrap());
        let (one, _two) = (enter("192.0.2.1"), enter("::ffff:192.0.2.1"));
        assert!(one.is_some() && enter("192.0.2.1").is_none(), "a mapped address is the same address");
        assert!(enter("192.0.2.2").is_some());
        drop(one);
        assert!(enter("192.0.2.1").is_some(), "one has gone");

        let (_three, _four) = (enter("2001:db8:0:1::1"), enter("2001:db8:0:1::2"));
        assert!(enter("2001:db8:0:1:ffff::").is_none());
        assert!(enter("2001:db8:0:2::1").is_some());
        drop((_two, _three, _four));
        assert!(limits.counts.lock().is_empty(), "nothing is left of those who are gone");
    }
}
