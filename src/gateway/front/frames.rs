//! Where messages end in a session's bytes. It does no I/O.
//!
//! How exact a message's stamp is depends on whether the message was the last one that was read. The WebSocket library does
//! not say that, so the stream follows the frame headers itself (RFC 6455, section 5.2). It checks nothing: the library
//! refuses malformed frames.

use crate::limits::FRAGMENTS_PER_MESSAGE_MAX;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum At {
    /// Before a frame.
    Start,
    /// Before a header's second byte.
    Length,
    /// Within the extended length.
    Extended { left: u8, length: u64, mask: u8 },
    /// Within mask and payload.
    Body { left: u64 },
}

/// Follows the frames in one session's bytes, wherever reads cut them.
#[derive(Debug)]
pub(super) struct Frames {
    at: At,
    /// Whether the frame that began last ends its message.
    last_of_message: bool,
    control: bool,
    /// The messages that have ended and were not taken yet.
    ended: u32,
    /// The frames of the incomplete message.
    fragments: u32,
}

impl Default for Frames {
    fn default() -> Self {
        Self { at: At::Start, last_of_message: true, control: false, ended: 0, fragments: 0 }
    }
}

impl Frames {
    /// Processes the bytes that follow.
    pub(super) fn follow(&mut self, mut bytes: &[u8]) {
        while let Some((&byte, rest)) = bytes.split_first() {
            self.at = match self.at {
                At::Start => {
                    self.last_of_message = byte & 0x80 != 0;
                    self.control = byte & 0x08 != 0;
                    At::Length
                }
                At::Length => {
                    let mask = if byte & 0x80 != 0 { 4 } else { 0 };
                    match byte & 0x7f {
                        126 => At::Extended { left: 2, length: 0, mask },
                        127 => At::Extended { left: 8, length: 0, mask },
                        short => At::Body { left: u64::from(short + mask) },
                    }
                }
                At::Extended { left, length, mask } => {
                    let length = length << 8 | u64::from(byte);
                    match left {
                        1 => At::Body { left: length.saturating_add(u64::from(mask)) },
                        _ => At::Extended { left: left - 1, length, mask },
                    }
                }
                At::Body { left } => {
                    let step = left.min(bytes.len() as u64);
                    // No longer than the slice, so it fits.
                    bytes = bytes.get(usize::try_from(step).unwrap_or(bytes.len())..).unwrap_or_default();
                    self.at = At::Body { left: left - step };
                    self.finish();
                    continue;
                }
            };
            bytes = rest;
            self.finish();
        }
    }

    fn finish(&mut self) {
        if self.at != (At::Body { left: 0 }) {
            return;
        }
        self.at = At::Start;
        if self.last_of_message {
            self.ended = self.ended.saturating_add(1);
        }
        if !self.control {
            self.fragments = if self.last_of_message { 0 } else { self.fragments.saturating_add(1) };
        }
    }

    /// Takes the next message that ended. Returns true when nothing has followed it so far, not even a part of a message.
    pub(super) fn take_message(&mut self) -> bool {
        self.ended = self.ended.saturating_sub(1);
        self.ended == 0 && self.at == At::Start && self.last_of_message
    }

    /// Whether a message has more frames than an honest client would use. The rate limit counts whole messages, so it would not
    /// stop a sender that never completes one.
    #[must_use]
    pub(super) fn too_fragmented(&self) -> bool {
        self.fragments > FRAGMENTS_PER_MESSAGE_MAX
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn frame(first: u8, masked: bool, wide: bool, payload: usize) -> Vec<u8> {
        let mask_bit = if masked { 0x80 } else { 0 };
        let mut bytes = vec![first];
        match payload {
            // A length may be written longer than it needs to be.
            _ if wide => {
                bytes.push(mask_bit | 127);
                bytes.extend((payload as u64).to_be_bytes());
            }
            0..126 => bytes.push(mask_bit | u8::try_from(payload).unwrap()),
            _ => {
                bytes.push(mask_bit | 126);
                bytes.extend(u16::try_from(payload).unwrap().to_be_bytes());
            }
        }
        bytes.resize(bytes.len() + payload + if masked { 4 } else { 0 }, 0xff);
        bytes
    }

    proptest! {
        #[test]
        fn messages_are_found_however_the_bytes_are_cut(
            frames in prop::collection::vec((any::<bool>(), any::<bool>(), any::<bool>(), 0usize..400), 1..20),
            cuts in prop::collection::vec(1usize..300, 1..60),
            tail in prop::option::of(1usize..6),
        ) {
            let mut bytes = Vec::new();
            for &(fin, masked, wide, payload) in &frames {
                bytes.extend(frame(if fin { 0x81 } else { 0x01 }, masked, wide, payload));
            }
            let partial = frame(0x81, true, false, 200);
            bytes.extend(&partial[..tail.unwrap_or(0)]);
            let mut walk = Frames::default();
            let mut rest = &bytes[..];
            for cut in cuts.iter().cycle() {
                if rest.is_empty() { break; }
                let (now, later) = rest.split_at((*cut).min(rest.len()));
                walk.follow(now);
                rest = later;
            }
            let ends = frames.iter().filter(|f| f.0).count();
            prop_assert_eq!(walk.ended as usize, ends);
            let whole = tail.is_none() && frames.last().is_some_and(|f| f.0);
            for nth in 1..=ends {
                prop_assert_eq!(walk.take_message(), whole && nth == ends);
            }
        }

        #[test]
        fn any_bytes_are_no_panic(bytes: Vec<u8>) {
            let mut walk = Frames::default();
            walk.follow(&bytes);
            walk.take_message();
        }
    }

    #[test]
    fn endless_fragments_are_noticed_and_control_frames_do_not_hide_them() {
        let mut walk = Frames::default();
        for _ in 0..=FRAGMENTS_PER_MESSAGE_MAX {
            assert!(!walk.too_fragmented());
            walk.follow(&frame(0x00, true, false, 0));
            walk.follow(&frame(0x89, true, false, 0));
        }
        assert!(walk.too_fragmented());
    }
}
