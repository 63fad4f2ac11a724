//! The channel between a supervisor and a child: a Unix seqpacket pair, which is the child's stdin. A message is JSON; a descriptor
//! may be beside it.

use std::io::{self, IoSlice, IoSliceMut};
use std::marker::PhantomData;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio_seqpacket::UnixSeqpacket;
use tokio_seqpacket::ancillary::{AncillaryMessageWriter, OwnedAncillaryMessage};

use super::settings::Settings;
use crate::limits::CHANNEL_MESSAGE_BYTES_MAX;

/// The version of the messages. A child of another one is refused.
pub(crate) const VERSION: u32 = 1;

/// Room for the descriptors beside a message, and for what else the kernel may put there.
const BESIDE_BYTES: usize = 64;

/// What a supervisor says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "t", rename_all = "snake_case")]
pub(crate) enum ToChild {
    /// The first message. Beside it is a file with the [`Settings`].
    Start {
        /// [`VERSION`].
        v: u32,
        /// `gateway-1`.
        name: String,
    },
    /// A player's connection is beside it.
    Connection {
        /// Of this child, counted from 0.
        number: u64,
        /// Connections of its address that were passed to any gateway before, and are not gone.
        held: u64,
        /// Connections that its address has opened in this second before.
        recent: u64,
    },
    /// Offers `move` to so many quiet sessions.
    Offer { sessions: usize },
    /// Moves all sessions away within the time, or hands the shards over, then ends.
    Leave { window_ms: u64 },
    /// Asks for the metrics.
    Metrics { number: u64 },
}

/// What a child says.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "t", rename_all = "snake_case")]
pub(crate) enum ToSupervisor {
    /// It can do its work.
    Ready {
        /// [`VERSION`].
        v: u32,
    },
    /// What it has to do. It is said at least every [`crate::limits::CHILD_BEAT`]: it also means that the child is there.
    Load(Load),
    /// Connections that have ended, by their numbers: at most [`crate::limits::GONE_PER_MESSAGE_MAX`]. It is said before the [`Load`] that
    /// counts them.
    Gone { numbers: Vec<u64> },
    /// Beside it is a file with the metrics, as Prometheus reads them.
    Metrics { number: u64 },
}

/// What a child has to do.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Load {
    /// Sessions that are open.
    pub(crate) sessions: u64,
    /// Connections that were passed to it and that it has taken, since its start.
    pub(crate) taken: u64,
    /// Of them, those that have ended.
    pub(crate) gone: u64,
    /// Of the others, those that are no sessions yet.
    pub(crate) handshakes: u64,
    /// The most sessions.
    pub(crate) sessions_max: u64,
    /// Actions that came in, or events that were resolved, since its start.
    pub(crate) events: u64,
}

/// One end: it says `S` and hears `H`.
#[derive(Debug)]
pub(crate) struct Channel<S, H> {
    socket: UnixSeqpacket,
    words: PhantomData<fn(S) -> H>,
}

/// The supervisor's end.
pub(crate) type Upper = Channel<ToChild, ToSupervisor>;
/// The child's end.
pub(crate) type Lower = Channel<ToSupervisor, ToChild>;

impl Upper {
    /// A new channel, and the descriptor that becomes the child's stdin.
    pub(crate) fn pair() -> io::Result<(Self, OwnedFd)> {
        let (near, far) = UnixSeqpacket::pair()?;
        Ok((Self { socket: near, words: PhantomData }, far.into()))
    }
}

impl<S: Serialize, H: DeserializeOwned> Channel<S, H> {
    /// An end whose descriptor was handed over.
    pub(crate) fn of(descriptor: OwnedFd) -> io::Result<Self> {
        rustix::io::ioctl_fionbio(&descriptor, true)?;
        Ok(Self { socket: UnixSeqpacket::try_from(descriptor)?, words: PhantomData })
    }

    /// Says something, with a descriptor beside it.
    ///
    /// # Errors
    /// When the other end is gone, or the message is larger than [`CHANNEL_MESSAGE_BYTES_MAX`].
    pub(crate) async fn say(&self, message: &S, beside: Option<BorrowedFd<'_>>) -> io::Result<()> {
        let bytes = encode(message)?;
        let mut space = [0; BESIDE_BYTES];
        let mut writer = AncillaryMessageWriter::new(&mut space);
        if let Some(descriptor) = beside {
            writer.add_fds([descriptor]).map_err(|_| io::Error::other("no room for a descriptor"))?;
        }
        self.socket.send_vectored_with_ancillary(&[IoSlice::new(&bytes)], &mut writer).await.map(drop)
    }

    /// What the other end says next. None when it is closed.
    ///
    /// # Errors
    /// One line when the message is none: what was wrong with it.
    pub(crate) async fn hear(&self) -> io::Result<Option<(H, Option<OwnedFd>)>> {
        let (mut bytes, mut space) = (vec![0; CHANNEL_MESSAGE_BYTES_MAX + 1], [0; BESIDE_BYTES]);
        let heard = self.socket.recv_with_ancillary(&mut bytes, &mut space).await;
        let (info, beside) = match heard {
            Ok(heard) => heard,
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return Ok(None),
            Err(error) => return Err(error),
        };
        let descriptors = beside.into_messages().filter_map(|message| match message {
            OwnedAncillaryMessage::FileDescriptors(descriptors) => Some(descriptors),
            _ => None,
        });
        let descriptor = descriptors.flatten().next();
        if info.bytes_read() == 0 {
            return Ok(None);
        }
        Ok(Some((decode(&bytes[..info.bytes_read()], info.truncated())?, descriptor)))
    }
}

/// What a supervisor says first, without a runtime. None when it is gone.
///
/// # Errors
/// When it says nothing within the time, or something that is no message.
pub(crate) fn hear_first(channel: &OwnedFd, within: Duration) -> io::Result<Option<(ToChild, Option<OwnedFd>)>> {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, recvmsg};
    let time = Timespec::try_from(within).map_err(io::Error::other)?;
    let ready = rustix::io::retry_on_intr(|| poll(&mut [PollFd::new(channel, PollFlags::IN)], Some(&time)))?;
    if ready == 0 {
        return Err(io::Error::new(io::ErrorKind::TimedOut, format!("it says nothing for {} s", within.as_secs())));
    }
    let mut bytes = vec![0; CHANNEL_MESSAGE_BYTES_MAX + 1];
    let mut space = [MaybeUninit::uninit(); BESIDE_BYTES];
    let mut beside = RecvAncillaryBuffer::new(&mut space);
    let flags = RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC;
    let heard = rustix::io::retry_on_intr(|| recvmsg(channel, &mut [IoSliceMut::new(&mut bytes)], &mut beside, flags));
    let (len, is_cut) = match heard {
        Ok(heard) => (heard.bytes, heard.flags.contains(ReturnFlags::TRUNC)),
        Err(rustix::io::Errno::CONNRESET) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    if len == 0 {
        return Ok(None);
    }
    let descriptors = beside.drain().filter_map(|message| match message {
        RecvAncillaryMessage::ScmRights(descriptors) => Some(descriptors),
        _ => None,
    });
    let descriptor = descriptors.flatten().next();
    Ok(Some((decode(&bytes[..len], is_cut)?, descriptor)))
}

/// A message of these bytes.
fn decode<H: DeserializeOwned>(bytes: &[u8], is_cut: bool) -> io::Result<H> {
    if is_cut || bytes.len() > CHANNEL_MESSAGE_BYTES_MAX {
        return Err(bad(format!("a message of more than {CHANNEL_MESSAGE_BYTES_MAX} bytes")));
    }
    serde_json::from_slice(bytes).map_err(|error| {
        let shown: String = String::from_utf8_lossy(bytes).chars().take(80).collect();
        bad(format!("{shown:?} is no message: {error}"))
    })
}

impl<S, H> AsFd for Channel<S, H> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl<S, H> From<Channel<S, H>> for OwnedFd {
    fn from(channel: Channel<S, H>) -> Self {
        channel.socket.into()
    }
}

fn bad(why: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}

/// A message's bytes.
pub(crate) fn encode(message: &impl Serialize) -> io::Result<Vec<u8>> {
    let bytes = serde_json::to_vec(message)?;
    if bytes.len() > CHANNEL_MESSAGE_BYTES_MAX {
        return Err(bad(format!("a message of {} bytes, at most {CHANNEL_MESSAGE_BYTES_MAX}", bytes.len())));
    }
    Ok(bytes)
}

/// A file in memory with these bytes: for what is larger than a message, or secret.
pub(crate) fn file_of(name: &str, bytes: &[u8]) -> io::Result<OwnedFd> {
    use rustix::fs::{MemfdFlags, memfd_create};
    use std::io::Write as _;
    let file = memfd_create(name, MemfdFlags::CLOEXEC)?;
    let mut file = std::fs::File::from(file);
    file.write_all(bytes)?;
    Ok(file.into())
}

/// The bytes of such a file, at most `most`.
pub(crate) fn bytes_of(file: OwnedFd, most: usize) -> io::Result<Vec<u8>> {
    use std::os::unix::fs::FileExt as _;
    let file = std::fs::File::from(file);
    let len = usize::try_from(file.metadata()?.len()).unwrap_or(usize::MAX);
    if len > most {
        return Err(bad(format!("a file of {len} bytes, at most {most}")));
    }
    let mut bytes = vec![0; len];
    file.read_exact_at(&mut bytes, 0)?;
    Ok(bytes)
}

/// The settings in the file beside [`ToChild::Start`].
pub(crate) fn settings_of(file: OwnedFd) -> io::Result<Settings> {
    let bytes = bytes_of(file, crate::limits::CHANNEL_SETTINGS_BYTES_MAX)?;
    serde_json::from_slice(&bytes).map_err(|error| bad(format!("the settings cannot be read: {error}")))
}

/// The descriptor behind stdin, if it is a seqpacket socket. Nothing stays in its place.
pub(crate) fn taken_stdin() -> io::Result<Option<OwnedFd>> {
    use rustix::net::{SocketType, sockopt::socket_type};
    use rustix::stdio;
    let stdin = stdio::stdin();
    if !socket_type(stdin).is_ok_and(|kind| kind == SocketType::SEQPACKET) {
        return Ok(None);
    }
    let channel = rustix::io::fcntl_dupfd_cloexec(stdin, 3)?;
    let nothing = std::fs::File::open("/dev/null")?;
    stdio::dup2_stdin(&nothing)?;
    Ok(Some(channel))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_message_and_a_descriptor_arrive_and_the_end_is_told() {
        let (upper, far) = Upper::pair().expect("a pair");
        let lower = Lower::of(far).expect("the other end");
        let file = file_of("test", b"settings").expect("a file");
        let start = ToChild::Start { v: VERSION, name: "gateway-1".to_owned() };
        upper.say(&start, Some(file.as_fd())).await.expect("said");
        upper.say(&ToChild::Leave { window_ms: 5_000 }, None).await.expect("said");
        let (heard, beside) = lower.hear().await.expect("heard").expect("there");
        assert_eq!(heard, start);
        assert_eq!(bytes_of(beside.expect("a descriptor"), 8).expect("its bytes"), b"settings");
        let (heard, beside) = lower.hear().await.expect("heard").expect("there");
        assert!(heard == ToChild::Leave { window_ms: 5_000 } && beside.is_none());
        lower.say(&ToSupervisor::Load(Load { sessions: 7, ..Load::default() }), None).await.expect("said");
        let heard = upper.hear().await.expect("heard").expect("there").0;
        assert_eq!(heard, ToSupervisor::Load(Load { sessions: 7, ..Load::default() }));
        drop(upper);
        assert!(lower.hear().await.expect("the end").is_none());
    }

    #[test]
    fn what_is_said_first_is_heard_without_a_runtime() {
        let second = Duration::from_secs(1);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let _inside = runtime.enter();
        let (upper, far) = Upper::pair().expect("a pair");
        let silence = hear_first(&far, Duration::from_millis(1)).expect_err("nothing was said").to_string();
        assert!(silence.contains("it says nothing"), "{silence}");
        let file = file_of("test", b"settings").expect("a file");
        let start = ToChild::Start { v: VERSION, name: "worker-1".to_owned() };
        runtime.block_on(upper.say(&start, Some(file.as_fd()))).expect("said");
        let (heard, beside) = hear_first(&far, second).expect("heard").expect("there");
        assert!(heard == start && bytes_of(beside.expect("a descriptor"), 8).expect("its bytes") == b"settings");
        rustix::io::write(&upper, b"garbage").expect("sent");
        assert!(hear_first(&far, second).expect_err("garbage").to_string().contains("is no message"));
        drop(upper);
        assert!(hear_first(&far, second).expect("the end").is_none());
    }

    #[tokio::test]
    async fn what_is_no_message_is_told_in_one_line() {
        let (upper, far) = Upper::pair().expect("a pair");
        let other = UnixSeqpacket::try_from(far).expect("the other end");
        let large = vec![b' '; CHANNEL_MESSAGE_BYTES_MAX + 1];
        for (bytes, expected) in [
            (&b"garbage"[..], "is no message"),
            (b"{\"t\": \"fly\"}", "unknown variant `fly`"),
            (b"\xff\n\xff", "is no message"),
            (&large, "more than 16384 bytes"),
        ] {
            other.send(bytes).await.expect("sent");
            let error = upper.hear().await.expect_err("refused").to_string();
            assert!(error.contains(expected) && !error.contains('\n'), "{error}");
        }
        other.send(br#"{"t": "ready", "v": 1, "more": 2}"#).await.expect("sent");
        assert_eq!(upper.hear().await.expect("heard").expect("there").0, ToSupervisor::Ready { v: 1 });
        assert!(bytes_of(file_of("test", b"12345").expect("a file"), 4).is_err());
    }
}
