//! What the kernel says about a socket: the stamp of a read, the unread bytes, the segments that are held back.

use std::io;
use std::os::fd::{AsFd, AsRawFd};

use nix::sys::socket::MsgFlags;
use tokio::net::TcpStream;

#[cfg(target_os = "linux")]
mod option {

    use nix::{getsockopt_impl, libc, setsockopt_impl, sockopt_impl};

    sockopt_impl!(Unread, SetOnly, libc::IPPROTO_TCP, libc::TCP_INQ, bool);
    sockopt_impl!(Memory, GetOnly, libc::SOL_SOCKET, libc::SO_MEMINFO, [u32; 9]);
    sockopt_impl!(Info, GetOnly, libc::IPPROTO_TCP, libc::TCP_INFO, [u32; super::INFO_WORDS]);

    pub(super) const MEMORY_RECEIVED: usize = libc::SK_MEMINFO_RMEM_ALLOC as usize;
}

/// The words of the kernel's `tcp_info` up to `tcpi_snd_wnd`, included (Linux 5.4).
#[cfg(target_os = "linux")]
const INFO_WORDS: usize = 58;
/// The word `tcpi_rcv_ooopack`.
#[cfg(target_os = "linux")]
const INFO_OVERTAKING: usize = 56;

/// The result of a read.
#[derive(Debug, Clone, Copy)]
pub(super) struct Received {
    pub(super) bytes: usize,
    /// The wall clock when the last byte was received.
    pub(super) stamp: Option<i128>,
    /// The bytes that were left when the read returned, those after an urgent mark included. At the connection's end it is 1.
    /// None if the kernel does not say.
    pub(super) unread: Option<u32>,
}

/// Makes the sockets that `listener` accepts report when bytes came and how many are unread.
#[cfg(target_os = "linux")]
pub(super) fn prepare(listener: &impl AsFd) -> io::Result<()> {
    use nix::sys::socket::{setsockopt, sockopt};

    setsockopt(listener, sockopt::ReceiveTimestampns, &true)?;
    // Linux before 4.18 lacks this option. Its sockets are read until they would block.
    let _ = setsockopt(listener, option::Unread, &true);
    Ok(())
}

/// This system needs no preparation.
#[cfg(not(target_os = "linux"))]
pub(super) fn prepare(_: &impl AsFd) -> io::Result<()> {
    Ok(())
}

/// Reads, with the kernel's stamp.
#[cfg(target_os = "linux")]
pub(super) fn receive(tcp: &TcpStream, space: &mut [u8]) -> io::Result<Received> {
    use nix::libc::{IPPROTO_TCP, TCP_CM_INQ, c_int};
    use nix::sys::socket::{ControlMessageOwned, cmsg_space, recvmsg};
    use nix::sys::time::TimeSpec;

    let mut control = [0u8; const { cmsg_space::<TimeSpec>() + cmsg_space::<c_int>() }];
    let mut slices = [io::IoSliceMut::new(space)];
    let message = recvmsg::<()>(tcp.as_raw_fd(), &mut slices, Some(&mut control), MsgFlags::MSG_DONTWAIT)?;
    let mut received = Received { bytes: message.bytes, stamp: None, unread: None };
    // nix reports truncated control messages as an error. Then nothing is known.
    for one in message.cmsgs().into_iter().flatten() {
        match one {
            ControlMessageOwned::ScmTimestampns(at) => {
                received.stamp = Some(i128::from(at.tv_sec()) * 1_000_000_000 + i128::from(at.tv_nsec()));
            }
            ControlMessageOwned::Unknown(other)
                if (other.cmsg_header.cmsg_level, other.cmsg_header.cmsg_type) == (IPPROTO_TCP, TCP_CM_INQ) =>
            {
                received.unread = other.data_bytes.first_chunk().and_then(|bytes| c_int::from_ne_bytes(*bytes).try_into().ok());
            }
            _ => {}
        }
    }
    Ok(received)
}

/// Reads. This system has no kernel stamps.
#[cfg(not(target_os = "linux"))]
pub(super) fn receive(tcp: &TcpStream, space: &mut [u8]) -> io::Result<Received> {
    let bytes = nix::sys::socket::recv(tcp.as_raw_fd(), space, MsgFlags::MSG_DONTWAIT)?;
    Ok(Received { bytes, stamp: None, unread: None })
}

/// Takes out urgent data. Returns whether there was any, even if it was only announced.
pub(super) fn take_urgent(tcp: &TcpStream) -> bool {
    use nix::errno::Errno;

    let taken = nix::sys::socket::recv(tcp.as_raw_fd(), &mut [0u8; 1], MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_OOB);
    // EAGAIN: the urgent byte was announced and has not come yet.
    matches!(taken, Ok(1..) | Err(Errno::EAGAIN))
}

/// How many segments have overtaken an earlier one on this connection. None if the kernel does not count them.
#[cfg(target_os = "linux")]
pub(super) fn overtaking(tcp: &TcpStream) -> Option<u32> {
    /// Older kernels answer with fewer words, which nix treats as an error.
    static COUNTED: std::sync::LazyLock<bool> = std::sync::LazyLock::new(|| {
        std::fs::read_to_string("/proc/sys/kernel/osrelease").is_ok_and(|release| is_at_least(&release, (5, 4)))
    });
    let info = COUNTED.then(|| nix::sys::socket::getsockopt(tcp, option::Info).ok()).flatten()?;
    Some(info[INFO_OVERTAKING])
}

/// This system does not count them.
#[cfg(not(target_os = "linux"))]
pub(super) fn overtaking(_: &TcpStream) -> Option<u32> {
    None
}

/// Whether the socket holds no received bytes: none to read, and none that wait for an earlier segment.
#[cfg(target_os = "linux")]
pub(super) fn holds_nothing(tcp: &TcpStream) -> bool {
    nix::sys::socket::getsockopt(tcp, option::Memory).is_ok_and(|memory| memory[option::MEMORY_RECEIVED] == 0)
}

/// This system does not say.
#[cfg(not(target_os = "linux"))]
pub(super) fn holds_nothing(_: &TcpStream) -> bool {
    false
}

/// Whether a kernel's release, such as `6.1.0-9-amd64`, is `least` or newer.
#[cfg(target_os = "linux")]
fn is_at_least(release: &str, least: (u32, u32)) -> bool {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|part| part.parse::<u32>().ok());
    let (Some(Some(major)), Some(Some(minor))) = (numbers.next(), numbers.next()) else { return false };
    (major, minor) >= least
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::is_at_least;

    #[test]
    fn releases_are_compared_by_number() {
        for (release, fits) in [
            ("5.4.0-150-generic\n", true),
            ("6.18.44", true),
            ("10.0", true),
            ("5.3.18", false),
            ("4.19.0", false),
            ("", false),
            ("next", false),
            ("5", false),
        ] {
            assert_eq!(is_at_least(release, (5, 4)), fits, "{release:?}");
        }
    }
}
