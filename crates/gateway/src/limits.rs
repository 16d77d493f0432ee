//! How many connections there may be, in total and from one address.

use std::{collections::HashMap, net::IpAddr, sync::Arc};

use parking_lot::Mutex;

use ottla_config::ConnectionLimits;

/// Counts open connections.
#[derive(Debug, Default)]
pub(crate) struct ConnectionCounts {
    open: Mutex<Open>,
}

#[derive(Debug, Default)]
struct Open {
    total: usize,
    by_address: HashMap<IpAddr, usize>,
}

/// A place among the open connections, given back when dropped.
#[derive(Debug)]
pub(crate) struct ConnectionPlace {
    counts: Arc<ConnectionCounts>,
    address: IpAddr,
}

impl ConnectionCounts {
    /// Takes a place, or nothing where a limit is reached.
    pub(crate) fn enter(
        self: &Arc<Self>,
        address: IpAddr,
        limits: &ConnectionLimits,
    ) -> Option<ConnectionPlace> {
        // An IPv4 client of a dual-stack listener is counted under its IPv4 address.
        let address = address.to_canonical();
        let of_address = limits
            .max_connections_per_ip_overrides
            .get(&address)
            .copied();
        let of_address = of_address.unwrap_or(limits.max_connections_per_ip);
        let mut open = self.open.lock();
        let here = open.by_address.get(&address).copied().unwrap_or(0);
        if open.total >= limits.max_connections || here >= of_address {
            return None;
        }
        open.total += 1;
        open.by_address.insert(address, here + 1);
        Some(ConnectionPlace {
            counts: Arc::clone(self),
            address,
        })
    }
}

impl Drop for ConnectionPlace {
    fn drop(&mut self) {
        let mut open = self.counts.open.lock();
        open.total = open.total.saturating_sub(1);
        if let Some(here) = open.by_address.get_mut(&self.address) {
            *here = here.saturating_sub(1);
            if *here == 0 {
                open.by_address.remove(&self.address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn places_are_limited_in_total_and_by_address_and_come_back() {
        let (one, two): (IpAddr, IpAddr) =
            ("10.0.0.1".parse().unwrap(), "10.0.0.2".parse().unwrap());
        let limits = ConnectionLimits {
            max_connections: 3,
            max_connections_per_ip: 2,
            max_connections_per_ip_overrides: BTreeMap::from([(two, 1)]),
        };
        let counts = Arc::new(ConnectionCounts::default());
        let first = counts.enter(one, &limits).unwrap();
        let mapped = "::ffff:10.0.0.1".parse().unwrap();
        let _second = counts.enter(mapped, &limits).unwrap();
        assert!(counts.enter(one, &limits).is_none(), "limit of the address");
        let _other = counts.enter(two, &limits).unwrap();
        assert!(
            counts.enter("10.0.0.3".parse().unwrap(), &limits).is_none(),
            "limit of all"
        );
        drop(first);
        assert!(
            counts.enter(two, &limits).is_none(),
            "limit of the overridden address"
        );
        assert!(counts.enter(one, &limits).is_some());
    }
}
