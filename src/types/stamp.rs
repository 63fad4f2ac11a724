//! When something arrived, and the total order that follows from it.

use std::fmt;
use std::str::FromStr;

use super::Incarnation;

/// A point on a host's monotonic clock: its timeline, and nanoseconds since that host's boot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Moment {
    /// The journal's number for (boot id, time namespace). A later boot has a higher number.
    pub timeline: u32,
    /// Nanoseconds of `CLOCK_MONOTONIC`.
    pub ns: u64,
}

impl Moment {
    /// The end of a timeline, above every stamp. It is no moment: nothing arrives then.
    pub(crate) const END_NS: u64 = u64::MAX;

    /// The moment `ns` nanoseconds later.
    #[must_use]
    pub fn plus(self, ns: u64) -> Self {
        Self { ns: self.ns.saturating_add(ns), ..self }
    }

    /// Nanoseconds from `earlier` to `self`; 0 when it is not later. Both must be of one timeline.
    #[must_use]
    pub fn since(self, earlier: Self) -> u64 {
        debug_assert_eq!(self.timeline, earlier.timeline, "two clocks tell no time between them");
        self.ns.saturating_sub(earlier.ns)
    }
}

/// 24 hexadecimal digits whose text order is the moments' order, so that a script compares them exactly.
impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}{:016x}", self.timeline, self.ns)
    }
}

/// A stored moment that is not 24 hexadecimal digits.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("moment {0:?} is not 24 hexadecimal digits")]
pub struct ParseMomentError(pub String);

impl FromStr for Moment {
    type Err = ParseMomentError;

    fn from_str(text: &str) -> Result<Self, ParseMomentError> {
        let error = || ParseMomentError(text.chars().take(40).collect());
        if text.len() != 24 || !text.is_ascii() {
            return Err(error());
        }
        let timeline = u32::from_str_radix(&text[..8], 16).map_err(|_| error())?;
        let ns = u64::from_str_radix(&text[8..], 16).map_err(|_| error())?;
        Ok(Self { timeline, ns })
    }
}

/// An event's place in the total order of its room. It never changes once the event is in the journal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Stamp {
    /// When it arrived.
    pub moment: Moment,
    /// The gateway that received the event.
    pub incarnation: Incarnation,
    /// The gateway's count of its events, in stamp order.
    pub ordinal: u64,
}

/// How a stamp and its verdict came about, as a set of bits. Unknown bits are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Flags(pub u8);

impl Flags {
    /// Moved up, above a published watermark or the session's floor. The raw stamp is kept.
    pub const CLAMPED: Self = Self(1);
    /// Decided between a dead gateway's last watermark and its death.
    pub const UNPROVEN: Self = Self(2);
    /// Beaten by less than the uncertainty of the two stamps.
    pub const PHOTO_FINISH: Self = Self(4);
    /// Stamped when it was read, because it had no usable kernel stamp.
    pub const READ_TIME: Self = Self(8);

    /// Whether all of `other`'s bits are set.
    #[must_use]
    pub fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Both sets together.
    #[must_use]
    pub fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// When the bytes of an event reached the machine, and how well that is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Arrival {
    /// Nanoseconds on the gateway's timeline.
    pub ns: u64,
    /// The true arrival lies at most this many nanoseconds before `ns`.
    pub uncertainty_ns: u64,
    /// How the stamp came to be.
    pub flags: Flags,
    /// The stamp before it was moved up; None if it was not moved.
    pub raw_ns: Option<u64>,
}

impl Arrival {
    /// An arrival at `ns`, known to within `uncertainty_ns`.
    #[must_use]
    pub fn at(ns: u64, uncertainty_ns: u64) -> Self {
        Self { ns, uncertainty_ns, ..Self::default() }
    }

    /// The order among a gateway's own arrivals: by stamp, then by raw stamp.
    #[must_use]
    pub fn order(&self) -> (u64, u64) {
        (self.ns, self.raw_ns.unwrap_or(self.ns))
    }

    /// The same arrival, moved up to `ns` and flagged, if it lies below (rule S4).
    #[must_use]
    pub fn clamped_to(self, ns: u64) -> Self {
        if self.ns >= ns {
            return self;
        }
        let raw = self.raw_ns.unwrap_or(self.ns);
        Self {
            ns,
            uncertainty_ns: ns.saturating_sub(self.ns).saturating_add(self.uncertainty_ns),
            flags: self.flags.with(Flags::CLAMPED),
            raw_ns: Some(raw),
        }
    }
}

/// Position in a journal stream: milliseconds and count, as Redis numbers them. `0-0` lies before every entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct StreamId {
    /// Milliseconds of the journal's clock.
    pub ms: u64,
    /// Count within the millisecond.
    pub seq: u64,
}

impl StreamId {
    /// The position just before this one, so that reading after it starts here.
    #[must_use]
    pub fn before(self) -> Self {
        match self.seq.checked_sub(1) {
            Some(seq) => Self { seq, ..self },
            None => Self { ms: self.ms.saturating_sub(1), seq: if self.ms == 0 { 0 } else { u64::MAX } },
        }
    }
}

impl fmt::Display for StreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.ms, self.seq)
    }
}

impl FromStr for StreamId {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        text.split_once('-')
            .and_then(|(ms, seq)| Some(Self { ms: ms.parse().ok()?, seq: seq.parse().ok()? }))
            .ok_or_else(|| format!("stream id {text:?} is not of the form 1234-0"))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_moments_text_sorts_like_the_moment(a: (u32, u64), b: (u32, u64)) {
            let a = Moment { timeline: a.0, ns: a.1 };
            let b = Moment { timeline: b.0, ns: b.1 };
            prop_assert_eq!(a.to_string().cmp(&b.to_string()), a.cmp(&b));
            prop_assert_eq!(a.to_string().parse::<Moment>(), Ok(a));
        }

        #[test]
        fn arbitrary_text_is_no_panic(text: String) {
            let _ = text.parse::<Moment>();
            let _ = text.parse::<StreamId>();
        }
    }

    #[test]
    fn clamping_keeps_the_raw_stamp_and_says_how_far_it_moved() {
        let moved = Arrival::at(100, 5).clamped_to(140).clamped_to(150);
        assert_eq!((moved.ns, moved.raw_ns), (150, Some(100)));
        assert!(moved.flags.has(Flags::CLAMPED));
        assert_eq!(moved.uncertainty_ns, 55, "however many steps it took");
        assert_eq!(Arrival::at(100, 5).clamped_to(90), Arrival::at(100, 5));
    }

    #[test]
    fn the_position_before_an_id() {
        assert_eq!(StreamId { ms: 5, seq: 0 }.before(), StreamId { ms: 4, seq: u64::MAX });
        assert_eq!(StreamId { ms: 5, seq: 3 }.before(), StreamId { ms: 5, seq: 2 });
    }
}
