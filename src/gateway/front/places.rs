//! Bounds how much of a gateway one address or one player may use.
//!
//! Loopback addresses are exempt: they belong to a proxy in front of many clients, or to a program on this host, which could do
//! worse. Only the first 64 bits of an IPv6 address count, because its owner chooses the rest.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::{IpAddr, Ipv6Addr};
use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};
use parking_lot::Mutex;
use tokio::sync::OwnedSemaphorePermit;

use super::settings::Settings;
use crate::limits::{RESUMED_SESSIONS_FACTOR, SENT_ON_PER_S};
use crate::types::{PlayerId, Role};

/// The rates that are kept before those of idle addresses are dropped.
const RATES_KEPT: usize = 1024;

/// Who connects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Peer {
    pub(crate) ip: IpAddr,
    /// Where several gateways are behind one door.
    pub(crate) everywhere: Option<Everywhere>,
}

/// What an address has at all gateways behind a door, when it connects to one of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Everywhere {
    /// Its connections that were passed on before and are not gone: sessions, and what may become one.
    pub(crate) held: u64,
    /// Connections that it has opened in this second before.
    pub(crate) recent: u64,
}

impl From<IpAddr> for Peer {
    fn from(ip: IpAddr) -> Self {
        Self { ip, everywhere: None }
    }
}

/// How many places each key holds. A key without places is not in the map.
#[derive(Debug)]
struct Counts<K: Eq + Hash>(Mutex<HashMap<K, usize>>);

impl<K: Eq + Hash + Clone> Counts<K> {
    fn new() -> Arc<Self> {
        Arc::new(Self(Mutex::new(HashMap::new())))
    }

    /// Takes one more place, unless the key holds `most` already.
    fn take(self: &Arc<Self>, key: &K, most: usize) -> Option<Held<K>> {
        let mut counts = self.0.lock();
        let count = counts.get(key).copied().unwrap_or(0);
        if count >= most {
            return None;
        }
        counts.insert(key.clone(), count + 1);
        Some(Held { counts: self.clone(), key: key.clone() })
    }
}

/// One place of a key. Dropping it returns it.
#[derive(Debug)]
struct Held<K: Eq + Hash> {
    counts: Arc<Counts<K>>,
    key: K,
}

impl<K: Eq + Hash> Drop for Held<K> {
    fn drop(&mut self) {
        let mut counts = self.counts.0.lock();
        if let Some(count) = counts.get_mut(&self.key) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.key);
            }
        }
    }
}

/// The place of a handshake.
#[derive(Debug)]
pub(super) struct Knock {
    _address: Option<Held<IpAddr>>,
}

/// The places of a session.
#[derive(Debug)]
pub(super) struct Place {
    _gateway: OwnedSemaphorePermit,
    _address: Option<Held<IpAddr>>,
    _player: Option<Held<PlayerId>>,
}

/// All places of a gateway.
pub(super) struct Places {
    sessions: Arc<Counts<IpAddr>>,
    handshakes: Arc<Counts<IpAddr>>,
    players: Arc<Counts<PlayerId>>,
    rate: DefaultKeyedRateLimiter<IpAddr>,
    /// How often an address is told that a room is elsewhere. It is one that connects.
    sent_on: DefaultKeyedRateLimiter<IpAddr>,
    /// How many rates may be kept before idle ones are dropped.
    rates_max: AtomicUsize,
}

impl Places {
    pub(super) fn new(settings: &Settings) -> Self {
        let rate = NonZeroU32::new(settings.connections_per_second).unwrap_or(NonZeroU32::MIN);
        let (sessions, handshakes, players) = (Counts::new(), Counts::new(), Counts::new());
        let (rate, rates_max) = (RateLimiter::keyed(Quota::per_second(rate)), AtomicUsize::new(RATES_KEPT));
        let sent_on = RateLimiter::keyed(Quota::per_second(NonZeroU32::new(SENT_ON_PER_S).unwrap_or(NonZeroU32::MIN)));
        Self { sessions, handshakes, players, rate, sent_on, rates_max }
    }

    /// A client connects.
    /// The error says, in one line, that the address holds all of its places or connects too often.
    pub(super) fn knock(&self, settings: &Settings, peer: Peer) -> Result<Knock, String> {
        let Some(address) = counted(settings, peer.ip) else { return Ok(Knock { _address: None }) };
        if self.rate.len() >= self.rates_max.load(Ordering::Relaxed) {
            self.rate.retain_recent();
            self.sent_on.retain_recent();
            self.rates_max.store((self.rate.len() * 2).max(RATES_KEPT), Ordering::Relaxed);
        }
        let recent = peer.everywhere.map_or(0, |everywhere| everywhere.recent);
        if self.rate.check_key(&address).is_err() || recent >= u64::from(settings.connections_per_second) {
            let rate = settings.connections_per_second;
            return Err(format!("more than {rate} connections a second from {}: connect again later", Shown(address)));
        }
        let most = settings.handshakes_per_address;
        let held = self.handshakes.take(&address, most);
        held.map(|held| Knock { _address: Some(held) }).ok_or_else(|| {
            format!("{} has {most} unfinished requests here: finish them first, or connect again later", Shown(address))
        })
    }

    /// A client is told that its room is elsewhere.
    /// The error says, in one line, that its address does not go there.
    pub(super) fn send_on(&self, settings: &Settings, peer: Peer) -> Result<(), String> {
        let Some(address) = counted(settings, peer.ip) else { return Ok(()) };
        self.sent_on.check_key(&address).map_err(|_| {
            format!(
                "{} asks more than {SENT_ON_PER_S} times a second for rooms that are elsewhere: connect there",
                Shown(address)
            )
        })
    }

    /// A player joins. Server sessions are not counted by player, because one server may be in every room. One that resumes, as
    /// the second session of a move does, may go beyond the bounds, up to [`RESUMED_SESSIONS_FACTOR`] times as many.
    /// The error says, in one line, that the address or the player holds all of its places.
    pub(super) fn enter(
        &self,
        settings: &Settings,
        gateway: OwnedSemaphorePermit,
        peer: Peer,
        player: &PlayerId,
        role: Role,
        resumes: bool,
    ) -> Result<Place, String> {
        let factor = if resumes { RESUMED_SESSIONS_FACTOR } else { 1 };
        let most = settings.sessions_per_player.saturating_mul(factor);
        let of_player = match role {
            Role::Server => None,
            Role::Player => Some(self.players.take(player, most).ok_or_else(|| {
                format!("player {player:?} has {most} sessions on this gateway, the limit: close one, or connect again later")
            })?),
        };
        let most = settings.sessions_per_address.saturating_mul(factor);
        let of_address = match counted(settings, peer.ip) {
            None => None,
            Some(address) => {
                let too_many = || format!("{} has {most} sessions here, the limit: connect again later", Shown(address));
                if peer.everywhere.is_some_and(|everywhere| everywhere.held >= most as u64) {
                    return Err(too_many());
                }
                Some(self.sessions.take(&address, most).ok_or_else(too_many)?)
            }
        };
        Ok(Place { _gateway: gateway, _address: of_address, _player: of_player })
    }
}

/// The part of a peer's address that is counted; None when it is exempt.
fn counted(settings: &Settings, peer: IpAddr) -> Option<IpAddr> {
    let is_exempt = settings.spares_loopback && peer.to_canonical().is_loopback();
    (!is_exempt).then(|| network(peer))
}

/// The part of a peer's address that is counted.
pub(crate) fn network(peer: IpAddr) -> IpAddr {
    match peer.to_canonical() {
        IpAddr::V6(v6) => {
            let [a, b, c, d, ..] = v6.segments();
            Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into()
        }
        v4 @ IpAddr::V4(_) => v4,
    }
}

struct Shown(IpAddr);

impl std::fmt::Display for Shown {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            IpAddr::V4(v4) => write!(f, "address {v4}"),
            IpAddr::V6(v6) => write!(f, "network {v6}/64"),
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::Semaphore;

    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn what_of_an_address_counts() {
        let settings = Settings::default();
        for (peer, counts) in [
            ("192.0.2.7", Some("192.0.2.7")),
            ("::ffff:192.0.2.7", Some("192.0.2.7")),
            ("2001:db8:1:2:3:4:5:6", Some("2001:db8:1:2::")),
            ("127.0.0.1", None),
            ("127.9.9.9", None),
            ("::1", None),
            ("::ffff:127.0.0.1", None),
        ] {
            assert_eq!(counted(&settings, ip(peer)), counts.map(ip), "{peer}");
        }
    }

    #[test]
    fn places_come_back_and_nothing_is_kept_of_them() {
        let settings = Settings { sessions_per_address: 2, sessions_per_player: 2, ..Settings::default() };
        let (places, gateway) = (Places::new(&settings), Arc::new(Semaphore::new(100)));
        let enter = |peer: &str, player: &str, role, resumes: bool| {
            let permit = gateway.clone().try_acquire_owned().expect("a permit");
            places.enter(&settings, permit, ip(peer).into(), &PlayerId::new(player).expect("name"), role, resumes)
        };
        let mut inside = vec![enter("192.0.2.1", "ann", Role::Player, false).expect("the first")];
        inside.push(enter("127.0.0.1", "ann", Role::Player, false).expect("the second"));
        let refused = enter("192.0.2.2", "ann", Role::Player, false).expect_err("the third of a player");
        assert!(refused.contains("\"ann\"") && refused.contains("2 sessions"), "{refused}");
        inside.push(enter("192.0.2.1", "bob", Role::Player, false).expect("the second of an address"));
        let refused = enter("192.0.2.1", "cid", Role::Player, false).expect_err("the third of an address");
        assert!(refused.contains("192.0.2.1") && refused.contains("2 sessions"), "{refused}");
        // The second session of a move has `since`: the first one is still there.
        inside.push(enter("192.0.2.1", "ann", Role::Player, true).expect("a third that resumes"));
        inside.push(enter("192.0.2.1", "ann", Role::Player, true).expect("a fourth that resumes"));
        let refused = enter("192.0.2.3", "ann", Role::Player, true).expect_err("the fifth of a player");
        assert!(refused.contains("\"ann\"") && refused.contains("4 sessions"), "{refused}");
        let refused = enter("192.0.2.1", "cid", Role::Player, true).expect_err("the fifth of an address");
        assert!(refused.contains("192.0.2.1") && refused.contains("4 sessions"), "{refused}");
        for _ in 0..10 {
            inside.push(enter("127.0.0.1", "ann", Role::Server, false).expect("servers and loopback are not counted"));
        }
        drop(inside);
        assert!(places.players.0.lock().is_empty() && places.sessions.0.lock().is_empty());
        assert_eq!(gateway.available_permits(), 100);
    }

    /// A gateway behind a door counts what its address has at the others.
    #[test]
    fn what_an_address_has_at_other_gateways_counts() {
        let settings = Settings { sessions_per_address: 2, connections_per_second: 3, ..Settings::default() };
        let (places, gateway) = (Places::new(&settings), Arc::new(Semaphore::new(100)));
        let peer = |ip_of: &str, held, recent| Peer { ip: ip(ip_of), everywhere: Some(Everywhere { held, recent }) };
        let enter = |peer, resumes| {
            let permit = gateway.clone().try_acquire_owned().expect("a permit");
            places.enter(&settings, permit, peer, &PlayerId::new("ann").expect("name"), Role::Player, resumes).map(drop)
        };
        assert_eq!(enter(peer("192.0.2.1", 1, 0), false), Ok(()));
        let refused = enter(peer("192.0.2.1", 2, 0), false).expect_err("the third of an address");
        assert!(refused.contains("192.0.2.1") && refused.contains("2 sessions here"), "{refused}");
        assert_eq!(enter(peer("192.0.2.1", 3, 0), true), Ok(()), "the second session of a move");
        let refused = enter(peer("192.0.2.1", 4, 0), true).expect_err("the fifth of an address");
        assert!(refused.contains("4 sessions here"), "{refused}");
        assert_eq!(enter(peer("127.0.0.1", 9, 9), false), Ok(()), "loopback is exempt");
        assert!(places.knock(&settings, peer("192.0.2.1", 0, 2)).is_ok());
        let refused = places.knock(&settings, peer("192.0.2.1", 0, 3)).expect_err("too often");
        assert!(refused.contains("more than 3 connections a second from address 192.0.2.1"), "{refused}");
        assert!(places.knock(&settings, peer("127.0.0.1", 0, 3)).is_ok());
    }

    /// The rate of an address is forgotten once the address has been idle.
    #[test]
    fn addresses_that_rest_are_forgotten() {
        let settings = Settings { connections_per_second: 1_000_000, ..Settings::default() };
        let places = Places::new(&settings);
        for n in 0..4 * u32::try_from(RATES_KEPT).expect("small") {
            places.knock(&settings, IpAddr::V4((0x0a00_0000 + n).into()).into()).expect("within the rate");
        }
        assert!(places.rate.len() <= 2 * RATES_KEPT, "{}", places.rate.len());
        assert!(places.handshakes.0.lock().is_empty());
    }
}
