//! Ports for what is started again on the same one.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::atomic::{AtomicU16, Ordering};

/// Below those that Linux gives to outgoing connections (`ip_local_port_range` begins at 32,768): a connection of anybody could hold one
/// of these just when a process wants to listen there again.
const FIRST: u16 = 12_000;
const COUNT: u16 = 20_000;

/// An address on loopback that nobody listens on, and that this process has not been given before.
///
/// # Errors
/// If none is free.
pub fn free_address() -> io::Result<SocketAddr> {
    static GIVEN: AtomicU16 = AtomicU16::new(0);
    // Processes that ask at the same time begin in different places.
    let begin = std::process::id().wrapping_mul(2_654_435_769) % u32::from(COUNT);
    for _ in 0..COUNT {
        let place = (begin + u32::from(GIVEN.fetch_add(1, Ordering::Relaxed))) % u32::from(COUNT);
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, FIRST + u16::try_from(place).unwrap_or_default()));
        if TcpListener::bind(address).is_ok() {
            return Ok(address);
        }
    }
    Err(io::Error::other(format!("no port of {FIRST} and {COUNT} behind it is free")))
}
