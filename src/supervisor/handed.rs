//! Listening sockets that whoever started this process has opened for it (socket activation).

use std::net::{SocketAddr, TcpListener};

use listenfd::ListenFd;
use rustix::net::sockopt::socket_acceptconn;

use crate::gateway::front::arrival::{listen_for_others, stamp_others};

/// The sockets that nobody has taken yet.
#[derive(Debug, Default)]
pub(super) struct Handed(Vec<(SocketAddr, TcpListener)>);

impl Handed {
    /// Takes them from the environment, which names them no more afterwards: a program that takes this one's place finds none. It
    /// must run before anything else is opened.
    ///
    /// # Errors
    /// One line when one of them is no listening TCP socket.
    pub(super) fn take() -> Result<Self, String> {
        let mut given = ListenFd::from_env();
        let mut all = Vec::new();
        for index in 0..given.len() {
            let wrong = |error: std::io::Error| {
                format!(
                    "socket {} of those that were handed in cannot be used ({error}): hand in listening TCP sockets",
                    index + 1
                )
            };
            let Some(listener) = given.take_tcp_listener(index).map_err(wrong)? else { continue };
            if !socket_acceptconn(&listener).map_err(|error| wrong(error.into()))? {
                return Err(wrong(std::io::Error::other("it does not listen")));
            }
            stamp_others(&listener).map_err(wrong)?;
            all.push((listener.local_addr().map_err(wrong)?, listener));
        }
        Ok(Self(all))
    }

    /// The socket for an address: one that was handed in, or else a new one.
    ///
    /// # Errors
    /// One line when it cannot be listened on.
    pub(super) fn listen(&mut self, address: SocketAddr) -> Result<TcpListener, String> {
        match self.0.iter().position(|(there, _)| *there == address) {
            Some(index) => Ok(self.0.swap_remove(index).1),
            None if self.0.iter().any(|(there, _)| there.port() == address.port()) => Err(self.unwanted(&[address])),
            None => listen_for_others(address).map_err(|error| format!("cannot listen on {address}: {error}")),
        }
    }

    /// Nobody may be left: connections that nobody accepts would wait for ever.
    ///
    /// # Errors
    /// One line with the address of each that was handed in and of each that is listened on.
    pub(super) fn all_taken(&self, wanted: &[SocketAddr]) -> Result<(), String> {
        if self.0.is_empty() { Ok(()) } else { Err(self.unwanted(wanted)) }
    }

    fn unwanted(&self, wanted: &[SocketAddr]) -> String {
        let list = |all: &mut dyn Iterator<Item = SocketAddr>| all.map(|at| at.to_string()).collect::<Vec<_>>().join(" and ");
        let there = list(&mut self.0.iter().map(|(there, _)| *there));
        let wanted = if wanted.is_empty() {
            "nothing is listened on (--gateways 0)".to_owned()
        } else {
            format!("--listen says {}", list(&mut wanted.iter().copied()))
        };
        format!("a socket for {there} was handed in, and {wanted}: give both the same address (ListenStream= in the socket unit)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn handed() -> (Handed, SocketAddr) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("bound");
        let address = listener.local_addr().expect("an address");
        (Handed(vec![(address, listener)]), address)
    }

    #[test]
    fn sockets_go_to_the_listener_of_their_address() {
        let (mut handed, address) = handed();
        let taken = handed.listen(address).expect("it is there");
        assert_eq!(taken.local_addr().expect("an address"), address);
        handed.all_taken(&[address]).expect("none is left");
        // Another port is opened anew.
        let own = handed.listen("127.0.0.1:0".parse().expect("an address")).expect("opened");
        assert_ne!(own.local_addr().expect("an address"), address);
        assert!(handed.listen(address).expect_err("it is in use").contains(&format!("cannot listen on {address}")));
    }

    #[test]
    fn one_that_nobody_wants_is_refused_with_both_addresses() {
        let (mut handed, address) = handed();
        let other: SocketAddr = format!("[::1]:{}", address.port()).parse().expect("an address");
        for line in [handed.listen(other).expect_err("refused"), handed.all_taken(&[other]).expect_err("refused")] {
            assert!(line.contains(&address.to_string()) && line.contains(&other.to_string()) && !line.contains('\n'), "{line}");
        }
        assert!(handed.all_taken(&[]).expect_err("refused").contains("--gateways 0"));
    }
}
