//! What a supervisor hands to the image that takes its place: its state as a text, and descriptors by their names, in a seqpacket pair
//! that becomes the new image's stdin. Nothing of it is in an argument or in the environment, and no descriptor is open in a child.

use std::collections::BTreeMap;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, SocketFlags, SocketType, recvmsg, sendmsg, socketpair,
};
use serde::{Deserialize, Serialize};

use crate::child::channel::{bytes_of, encode, file_of};
use crate::limits::{CHANNEL_MESSAGE_BYTES_MAX, PARKED_BYTES_MAX, PARKED_PER_MESSAGE};
use crate::runtime::execute;

/// Room for the descriptors beside one message.
const BESIDE_BYTES: usize = rustix::cmsg_space!(ScmRights(PARKED_PER_MESSAGE + 1));

/// What is handed over. It holds secrets: it is shown nowhere.
pub(crate) struct Parked {
    /// See [`super::state::State`].
    pub(super) state: String,
    pub(super) descriptors: Descriptors,
    /// The name of the descriptor of the next image's program. It is known to this one alone.
    pub(super) image: String,
    /// Why this image got it back instead of another one.
    pub(super) failed: Option<String>,
}

/// Descriptors by their names.
#[derive(Debug, Default)]
pub(super) struct Descriptors(BTreeMap<String, OwnedFd>);

impl Descriptors {
    /// Adds one. A name is used once.
    pub(super) fn put(&mut self, name: impl Into<String>, descriptor: impl Into<OwnedFd>) {
        self.0.insert(name.into(), descriptor.into());
    }

    /// Takes one out, if it is there.
    pub(super) fn take(&mut self, name: &str) -> Option<OwnedFd> {
        self.0.remove(name)
    }

    /// The same.
    ///
    /// # Errors
    /// When it is not there.
    pub(super) fn need(&mut self, name: &str) -> io::Result<OwnedFd> {
        self.take(name).ok_or_else(|| io::Error::other(format!("{name} was not handed over")))
    }

    /// One of them, which stays.
    pub(super) fn get(&self, name: &str) -> Option<BorrowedFd<'_>> {
        self.0.get(name).map(AsFd::as_fd)
    }
}

/// One message. Beside the first one is the state, too, as the last descriptor.
#[derive(Debug, Serialize, Deserialize)]
struct Message {
    /// Of the descriptors beside it, in their order.
    names: Vec<String>,
    /// Whether another one follows.
    more: bool,
}

impl Parked {
    /// All of it in a socket, from which [`Parked::receive`] gets it. It stays here as well.
    ///
    /// # Errors
    /// When the system holds no so many messages or descriptors.
    pub(super) fn send(&self) -> io::Result<OwnedFd> {
        let (near, far) =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK, None)?;
        let state = file_of("state", self.state.as_bytes())?;
        let all: Vec<(&String, &OwnedFd)> = self.descriptors.0.iter().collect();
        // One message at least.
        let parts: Vec<&[(&String, &OwnedFd)]> =
            if all.is_empty() { vec![&[]] } else { all.chunks(PARKED_PER_MESSAGE).collect() };
        for (number, part) in parts.iter().enumerate() {
            let names = part.iter().map(|(name, _)| (*name).clone()).collect();
            let bytes = encode(&Message { names, more: number + 1 < parts.len() })?;
            let state = (number == 0).then_some(state.as_fd());
            let beside: Vec<BorrowedFd<'_>> = part.iter().map(|(_, descriptor)| descriptor.as_fd()).chain(state).collect();
            let mut space = vec![MaybeUninit::uninit(); BESIDE_BYTES];
            let mut ancillary = SendAncillaryBuffer::new(&mut space);
            if !beside.is_empty() && !ancillary.push(SendAncillaryMessage::ScmRights(&beside)) {
                return Err(io::Error::other("no room for the descriptors"));
            }
            // What is not received at once would wait for ever: nobody reads before this image is gone.
            sendmsg(&near, &[IoSlice::new(&bytes)], &mut ancillary, SendFlags::NOSIGNAL | SendFlags::DONTWAIT)?;
        }
        Ok(far)
    }

    /// What [`Parked::send`] has put into a socket.
    ///
    /// # Errors
    /// When it is nothing of that kind, or a part of it is missing.
    pub(super) fn receive(socket: &OwnedFd) -> io::Result<Self> {
        let (mut descriptors, mut state) = (BTreeMap::new(), None);
        loop {
            let mut bytes = vec![0; CHANNEL_MESSAGE_BYTES_MAX];
            let mut space = vec![MaybeUninit::uninit(); BESIDE_BYTES];
            let mut ancillary = RecvAncillaryBuffer::new(&mut space);
            let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
            let received = recvmsg(socket, &mut [IoSliceMut::new(&mut bytes)], &mut ancillary, flags)?;
            if received.flags.intersects(ReturnFlags::CTRUNC | ReturnFlags::TRUNC) {
                return Err(io::Error::other("descriptors were lost: raise the limit of open files"));
            }
            let mut beside = Vec::new();
            for message in ancillary.drain() {
                if let RecvAncillaryMessage::ScmRights(some) = message {
                    beside.extend(some);
                }
            }
            let message: Message = serde_json::from_slice(bytes.get(..received.bytes).unwrap_or_default())?;
            if state.is_none() {
                state = beside.pop();
            }
            if beside.len() != message.names.len() {
                return Err(io::Error::other(format!("{} descriptors for {} names", beside.len(), message.names.len())));
            }
            descriptors.extend(message.names.into_iter().zip(beside));
            if !message.more {
                break;
            }
        }
        let state = state.ok_or_else(|| io::Error::other("there is no state"))?;
        let state =
            String::from_utf8(bytes_of(state, PARKED_BYTES_MAX)?).map_err(|_| io::Error::other("the state is no text"))?;
        Ok(Self { state, descriptors: Descriptors(descriptors), image: String::new(), failed: None })
    }

    /// Executes the next image in this one's place. It returns what it was if that fails, and why.
    pub(crate) fn execute(mut self) -> Self {
        let socket = self.send();
        let binary = self.descriptors.get(&self.image).ok_or_else(|| io::Error::other("its program is not open"));
        let executed = socket.and_then(|socket| execute(binary?, &socket));
        self.failed = executed.err().map(|error| format!("it cannot be executed: {error}"));
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::io::{Read as _, Write as _};

    #[test]
    fn everything_arrives_and_stays_until_it_has() {
        let mut descriptors = Descriptors::default();
        let (mut ends, count) = (Vec::new(), PARKED_PER_MESSAGE * 2 + 3);
        for number in 0..count {
            let (read, write) = io::pipe().expect("a pipe");
            descriptors.put(format!("eu/gateway-{number} stdout"), read);
            ends.push(write);
        }
        let state = "x".repeat(CHANNEL_MESSAGE_BYTES_MAX * 3);
        let parked = Parked { state: state.clone(), descriptors, image: String::new(), failed: None };
        let socket = parked.send().expect("sent");
        let mut there = Parked::receive(&socket).expect("received");
        assert_eq!((there.state, there.descriptors.0.len(), parked.descriptors.0.len()), (state, count, count));
        for (number, mut end) in ends.into_iter().enumerate() {
            end.write_all(&[7]).expect("written");
            let mut read = File::from(there.descriptors.need(&format!("eu/gateway-{number} stdout")).expect("there"));
            let mut byte = [0];
            read.read_exact(&mut byte).expect("it is the other end");
        }
        assert!(there.descriptors.need("door").expect_err("not there").to_string().contains("door was not handed over"));
    }

    #[test]
    fn what_is_no_parked_state_is_refused() {
        let pair = || socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).expect("a pair");
        let (near, far) = pair();
        assert!(Parked::receive(&far).is_err(), "nothing is there");
        for bytes in [&b"garbage"[..], b"{\"names\": [\"door\"], \"more\": false}", b"{\"names\": [], \"more\": false}"] {
            rustix::net::send(&near, bytes, SendFlags::empty()).expect("sent");
            assert!(Parked::receive(&far).is_err(), "{}", String::from_utf8_lossy(bytes));
        }
        drop(near);
        assert!(Parked::receive(&far).is_err(), "it is closed");
    }
}
