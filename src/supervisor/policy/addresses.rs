//! How many connections each address has over all gateways behind a door.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Duration;

use crate::limits::ADDRESSES_SWEPT_AT;

/// The time over which connections are counted as often.
const SECOND: Duration = Duration::from_secs(1);

/// Addresses that have connections, or had some in this second.
#[derive(Debug)]
pub(crate) struct Addresses {
    of: HashMap<IpAddr, Address>,
    /// How many may be known before those that have none are forgotten.
    swept_at: usize,
}

#[derive(Debug, Default)]
struct Address {
    /// Connections that were passed on and are not gone.
    held: u64,
    /// When its second began, and how many it has opened since.
    since: Duration,
    recent: u64,
}

impl Default for Addresses {
    fn default() -> Self {
        Self { of: HashMap::new(), swept_at: ADDRESSES_SWEPT_AT }
    }
}

impl Addresses {
    /// How many connections an address holds, and how many it has opened in this second. `now` is the time of a monotonic clock, here
    /// and below.
    pub(crate) fn look(&self, address: IpAddr, now: Duration) -> (u64, u64) {
        let Some(address) = self.of.get(&address) else { return (0, 0) };
        (address.held, if address.is_over(now) { 0 } else { address.recent })
    }

    /// A connection is passed on.
    pub(crate) fn take(&mut self, address: IpAddr, now: Duration) {
        if self.of.len() >= self.swept_at {
            self.of.retain(|_, address| address.held > 0 || !address.is_over(now));
            self.swept_at = (self.of.len() * 2).max(ADDRESSES_SWEPT_AT);
        }
        let address = self.of.entry(address).or_default();
        address.held += 1;
        if address.is_over(now) {
            (address.since, address.recent) = (now, 0);
        }
        address.recent += 1;
    }

    /// A connection that was passed on before is still there.
    pub(crate) fn keep(&mut self, address: IpAddr) {
        self.of.entry(address).or_default().held += 1;
    }

    /// It is gone.
    pub(crate) fn give(&mut self, address: IpAddr) {
        if let Some(address) = self.of.get_mut(&address) {
            address.held = address.held.saturating_sub(1);
        }
    }
}

impl Address {
    /// Whether its second is over.
    fn is_over(&self, now: Duration) -> bool {
        now.saturating_sub(self.since) >= SECOND
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn ip(n: u8) -> IpAddr {
        IpAddr::from([192, 0, 2, n])
    }

    #[test]
    fn what_an_address_holds_and_how_often_it_comes() {
        let (mut addresses, ms) = (Addresses::default(), Duration::from_millis);
        for n in 0..3 {
            assert_eq!(addresses.look(ip(1), ms(5_000)), (n, n));
            addresses.take(ip(1), ms(5_000));
        }
        assert_eq!(addresses.look(ip(2), ms(5_000)), (0, 0), "another address has its own");
        addresses.give(ip(1));
        assert_eq!(addresses.look(ip(1), ms(5_999)), (2, 3));
        assert_eq!(addresses.look(ip(1), ms(6_000)), (2, 0), "another second");
        addresses.take(ip(1), ms(6_000));
        assert_eq!(addresses.look(ip(1), ms(6_999)), (3, 1));
        addresses.give(ip(7));
        assert_eq!(addresses.look(ip(7), ms(6_000)), (0, 0), "one that was never there");
        addresses.keep(ip(7));
        assert_eq!(addresses.look(ip(7), ms(0)), (1, 0), "it does not come anew");
    }

    /// What is known of addresses that have gone is bounded.
    #[test]
    fn addresses_that_have_gone_are_forgotten() {
        let mut addresses = Addresses::default();
        addresses.take(ip(1), Duration::ZERO);
        for n in 0..4 * u32::try_from(ADDRESSES_SWEPT_AT).expect("small") {
            let address = IpAddr::from((0x0a00_0000 + n).to_be_bytes());
            addresses.take(address, Duration::from_millis(u64::from(n) * 2));
            addresses.give(address);
        }
        assert!(addresses.of.len() <= 2 * ADDRESSES_SWEPT_AT, "{}", addresses.of.len());
        assert_eq!(addresses.look(ip(1), Duration::ZERO).0, 1, "one that is there is not");
    }

    proptest! {
        /// Whatever comes and goes: an address holds what was passed on and is not gone.
        #[test]
        fn nothing_is_counted_that_is_gone(steps in proptest::collection::vec((0..4_u8, any::<bool>(), 0..3_000_u64), 0..200)) {
            let (mut addresses, mut held, mut now) = (Addresses::default(), [0_u64; 4], Duration::ZERO);
            for (n, comes, ms) in steps {
                now += Duration::from_millis(ms);
                let there = &mut held[usize::from(n)];
                if comes {
                    addresses.take(ip(n), now);
                    *there += 1;
                } else if *there > 0 {
                    addresses.give(ip(n));
                    *there -= 1;
                }
                prop_assert_eq!(addresses.look(ip(n), now).0, *there);
            }
        }
    }
}
