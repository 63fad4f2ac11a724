//! The only place that reads clocks.
//!
//! Every stamp is nanoseconds of `CLOCK_MONOTONIC`, which all processes of a host share. The kernel stamps what a socket
//! receives by the wall clock, so a stamp is converted by the offset of the two clocks. Linux slews both alike: the offset is
//! constant until somebody steps the wall clock. Each *bracket* (monotonic, wall, monotonic) confines it to an interval.
//! [`Offset`] keeps the intersection of all brackets. A bracket outside of it proves a step. A bracket is read after each
//! socket read, so a step is known before a stamp from after the step is used.

use std::sync::Arc;
use std::time::Duration;

use nix::time::{ClockId, clock_gettime};
use parking_lot::Mutex;

use crate::limits::STAMP_AGE_MAX;

/// From the sender's `send` to the kernel's stamp, in nanoseconds: the path through loopback or the driver.
pub(crate) const KERNEL_PATH_NS: u64 = 2_000;
/// Reading cuts both clocks to whole nanoseconds. This is the most that it may add to either end of a bracket.
const ROUNDING_NS: i128 = 2;
/// The brackets that are read to tell the epoch.
const EPOCH_BRACKETS: usize = 4;
/// The brackets that are read at the start.
const FIRST_BRACKETS: usize = 32;

/// Now, in nanoseconds of `CLOCK_MONOTONIC`: since boot, and comparable between all processes of this host's time namespace.
#[must_use]
pub fn monotonic_ns() -> u64 {
    u64::try_from(read(ClockId::CLOCK_MONOTONIC)).unwrap_or(0)
}

/// Now, in whole seconds since 1970: for wall times that others have set, such as a token's end. It orders nothing.
#[must_use]
pub fn unix_s() -> u64 {
    u64::try_from(read(ClockId::CLOCK_REALTIME) / 1_000_000_000).unwrap_or(0)
}

/// Now, in whole milliseconds since 1970: what a worker says of its wall clock when it claims a shard. It orders nothing.
#[must_use]
pub fn unix_ms() -> u64 {
    u64::try_from(read(ClockId::CLOCK_REALTIME) / 1_000_000).unwrap_or(0)
}

/// The wall clock (since 1970) less the monotonic clock, in nanoseconds: known to within microseconds. Rooms tell their time by it; it
/// orders nothing.
#[must_use]
pub(crate) fn epoch_ns() -> u64 {
    let mut offset = Offset::of(Bracket::take());
    for _ in 1..EPOCH_BRACKETS {
        offset.observe(Bracket::take());
    }
    u64::try_from(offset.low + (offset.high - offset.low) / 2).unwrap_or(0)
}

/// The same in microseconds: what a process says of its clocks with each beat. It orders nothing.
#[must_use]
pub fn epoch_us() -> u64 {
    epoch_ns() / 1_000
}

fn read(id: ClockId) -> i128 {
    // Neither clock can fail on a system that has it, and both are required by POSIX.
    clock_gettime(id).map_or(0, |t| i128::from(t.tv_sec()) * 1_000_000_000 + i128::from(t.tv_nsec()))
}

/// The name of this host's monotonic clock. Processes with equal names have comparable stamps. On Linux it is the boot id, the time
/// namespace, and what that adds to the clock if it does; elsewhere a name that no other process has.
#[must_use]
pub fn timeline_name() -> String {
    timeline_name_of("self")
}

/// The same of another process on this machine, by its id as a directory of `/proc`.
#[must_use]
pub fn timeline_name_of(process: &str) -> String {
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok();
    // Kernels without time namespaces lack this link. They have one clock per boot.
    let link = |name: &str| std::fs::read_link(format!("/proc/{process}/ns/{name}")).ok();
    let namespace = link("time");
    // They are those of the children's namespace, which usually is this process's own.
    let offsets = if namespace == link("time_for_children") {
        std::fs::read_to_string(format!("/proc/{process}/timens_offsets")).ok()
    } else {
        None
    };
    name_timeline(boot.as_deref(), namespace.as_deref().and_then(|p| p.to_str()), offsets.as_deref().unwrap_or_default())
}

/// The number of a namespace may be used again, so what it adds to the clock is part of the name.
fn name_timeline(boot: Option<&str>, namespace: Option<&str>, offsets: &str) -> String {
    let offset = offsets.lines().find_map(|line| {
        let mut words = line.split_ascii_whitespace();
        (words.next()? == "monotonic").then_some((words.next()?.parse::<i64>().ok()?, words.next()?.parse::<u32>().ok()?))
    });
    let offset = offset.filter(|offset| *offset != (0, 0)).map(|(s, ns)| format!("{s:+}.{ns:09}")).unwrap_or_default();
    let is_name = |boot: &&str| (1..=64).contains(&boot.len()) && boot.bytes().all(|b| b.is_ascii_graphic() && b != b'|');
    match boot.map(str::trim).filter(is_name) {
        Some(boot) => format!("{boot}/{}{offset}", namespace.unwrap_or("time:[]")),
        None => format!("process/{:032x}", rand::random::<u128>()),
    }
}

/// One reading of both clocks. The wall clock was read between `before_ns` and `after_ns`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Bracket {
    /// Monotonic nanoseconds, read first.
    pub before_ns: u64,
    /// Wall clock nanoseconds since 1970.
    pub wall_ns: i128,
    /// Monotonic nanoseconds, read last.
    pub after_ns: u64,
}

impl Bracket {
    fn take() -> Self {
        let before_ns = monotonic_ns();
        let wall_ns = read(ClockId::CLOCK_REALTIME);
        Self { before_ns, wall_ns, after_ns: monotonic_ns() }
    }
}

/// The known interval, from `low` to `high`, of wall minus monotonic. Pure: brackets in, conversions out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Offset {
    low: i128,
    high: i128,
    steps: u32,
}

impl Offset {
    /// The interval that one bracket gives.
    #[must_use]
    pub(crate) fn of(bracket: Bracket) -> Self {
        Self {
            low: bracket.wall_ns - i128::from(bracket.after_ns) - ROUNDING_NS,
            high: bracket.wall_ns - i128::from(bracket.before_ns) + ROUNDING_NS,
            steps: 0,
        }
    }

    /// Takes a further bracket. It narrows the interval. If they do not intersect, it counts a step and starts anew.
    pub(crate) fn observe(&mut self, bracket: Bracket) {
        let seen = Self::of(bracket);
        if seen.low > self.high || seen.high < self.low {
            *self = Self { steps: self.steps.wrapping_add(1), ..seen };
        } else {
            self.low = self.low.max(seen.low);
            self.high = self.high.min(seen.high);
        }
    }

    /// The width of the interval, in nanoseconds.
    #[must_use]
    pub(crate) fn width_ns(&self) -> u64 {
        u64::try_from(self.high - self.low).unwrap_or(u64::MAX)
    }

    /// Converts a kernel stamp of bytes that were read by `read_ns` to monotonic nanoseconds. None when it is implausible: later
    /// than the read, or more than [`STAMP_AGE_MAX`] before it.
    #[must_use]
    pub(crate) fn convert(&self, wall_ns: i128, read_ns: u64) -> Option<u64> {
        let at = wall_ns - (self.low + (self.high - self.low) / 2);
        let read = i128::from(read_ns);
        let future = at > read + i128::from(self.width_ns());
        let old = at + i128::try_from(STAMP_AGE_MAX.as_nanos()).unwrap_or(i128::MAX) < read;
        // A stamp may exceed the time of its read by the width, which is an error of the offset.
        if future || old { None } else { u64::try_from(at.min(read)).ok() }
    }
}

/// When a read's last byte arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reading {
    /// When the read was done.
    pub read_ns: u64,
    /// The kernel's stamp in monotonic nanoseconds. None when there is none, or when it is implausible.
    pub kernel_ns: Option<u64>,
    /// The uncertainty of a kernel stamp: the offset's width and [`KERNEL_PATH_NS`].
    pub uncertainty_ns: u64,
    /// The steps of the wall clock up to this reading.
    pub steps: u32,
}

/// The process's knowledge of its clocks. Clones share it.
#[derive(Debug, Clone)]
pub struct Clock {
    offset: Arc<Mutex<Offset>>,
    network_ns: u64,
}

impl Default for Clock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock {
    /// Measures the offset.
    #[must_use]
    pub fn new() -> Self {
        let mut offset = Offset::of(Bracket::take());
        for _ in 1..FIRST_BRACKETS {
            offset.observe(Bracket::take());
        }
        Self { offset: Arc::new(Mutex::new(offset)), network_ns: 0 }
    }

    /// Sets `bound`: how long the network card may hold a packet of another host before the kernel stamps it.
    #[must_use]
    pub fn behind_a_card(self, bound: Duration) -> Self {
        Self { network_ns: u64::try_from(bound.as_nanos()).unwrap_or(u64::MAX), ..self }
    }

    /// How long before its stamp a packet of another host may have reached this one, in nanoseconds.
    #[must_use]
    pub fn network_ns(&self) -> u64 {
        self.network_ns
    }

    /// Converts the stamp of bytes that were read just now. The bracket is read after the stamp. So if a step moved the stamp,
    /// this reading counts the step, and the caller does not use the stamp.
    #[must_use]
    pub fn read(&self, kernel_wall_ns: Option<i128>) -> Reading {
        self.learn(Bracket::take(), kernel_wall_ns)
    }

    fn learn(&self, bracket: Bracket, kernel_wall_ns: Option<i128>) -> Reading {
        let mut offset = self.offset.lock();
        offset.observe(bracket);
        let offset = *offset;
        Reading {
            read_ns: bracket.after_ns,
            kernel_ns: kernel_wall_ns.and_then(|wall_ns| offset.convert(wall_ns, bracket.after_ns)),
            uncertainty_ns: offset.width_ns().saturating_add(KERNEL_PATH_NS),
            steps: offset.steps,
        }
    }

    /// Steps of the wall clock seen so far.
    #[must_use]
    pub fn steps(&self) -> u32 {
        self.offset.lock().steps
    }

    /// The least uncertainty of an arrival, in nanoseconds. `welcome` states it.
    #[must_use]
    pub fn uncertainty_ns(&self) -> u64 {
        self.offset.lock().width_ns().saturating_add(KERNEL_PATH_NS)
    }

    /// Simulates a step of the wall clock by `ns`.
    #[cfg(test)]
    pub(crate) fn pretend_step(&self, ns: i128) {
        let mut offset = self.offset.lock();
        offset.low += ns;
        offset.high += ns;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A bracket of a world in which the wall clock is `offset` ahead.
    fn bracket(offset: i128, start: u64, first: u64, second: u64) -> Bracket {
        Bracket { before_ns: start, wall_ns: i128::from(start + first) + offset, after_ns: start + first + second }
    }

    proptest! {
        #[test]
        fn brackets_confine_the_offset_and_never_claim_a_step(
            offset in -2_000_000_000_000_000_000i128..2_000_000_000_000_000_000,
            reads in prop::collection::vec((0u64..1 << 50, 0u64..5_000_000, 0u64..5_000_000), 1..40),
        ) {
            let brackets: Vec<_> = reads.iter().map(|&(s, a, b)| bracket(offset, s, a, b)).collect();
            let mut known = Offset::of(brackets[0]);
            brackets[1..].iter().for_each(|&b| known.observe(b));
            prop_assert!(known.low <= offset && offset <= known.high);
            prop_assert_eq!(known.steps, 0);
            let tightest = reads.iter().map(|r| r.1 + r.2).min().unwrap_or(0);
            prop_assert!(known.width_ns() <= tightest + 4);
        }

        #[test]
        fn a_step_beyond_the_brackets_is_seen(
            width in 1u64..1_000_000, next in 1u64..1_000_000, by in 1i128..1 << 60, back: bool,
        ) {
            let by = if back { -by } else { by };
            let mut known = Offset::of(bracket(1_000, 50, width / 2, width - width / 2));
            let wide = i128::from(width + next) + 2 * ROUNDING_NS;
            known.observe(bracket(1_000 + by, 2_000_000, next / 2, next - next / 2));
            if by.abs() > wide {
                prop_assert_eq!(known.steps, 1);
            }
            if known.steps == 1 {
                prop_assert!(known.low <= 1_000 + by && 1_000 + by <= known.high);
            }
        }

        #[test]
        fn a_true_stamp_converts_to_within_the_width(
            offset in -1_000_000_000i128..2_000_000_000_000_000_000,
            at in 20_000_000_000u64..1 << 50, age in 0u64..9_000_000_000, first in 0u64..100_000, second in 0u64..100_000,
        ) {
            let known = Offset::of(bracket(offset, at, first, second));
            let ns = known.convert(i128::from(at) + offset, at + age).expect("plausible");
            prop_assert!(ns.abs_diff(at) <= known.width_ns());
            prop_assert!(ns <= at + age);
        }

        #[test]
        fn a_stamp_from_the_future_or_long_ago_is_not_believed(wild: i128, read in 0u64..1 << 60) {
            let known = Offset::of(bracket(0, 1_000, 20, 20));
            if let Some(ns) = known.convert(wild >> 2, read) {
                prop_assert!(ns <= read && u128::from(read - ns) <= STAMP_AGE_MAX.as_nanos() + 44);
            }
        }
    }

    #[test]
    fn the_clocks_of_this_host_agree_with_each_other() {
        let clock = Clock::new();
        let before = monotonic_ns();
        let wall = read(ClockId::CLOCK_REALTIME);
        let reading = clock.read(Some(wall));
        let at = reading.kernel_ns.expect("a wall time of just now is plausible");
        assert!(at + reading.uncertainty_ns >= before && at <= reading.read_ns, "{before} {reading:?}");
    }

    #[test]
    fn a_step_serves_one_reading_at_once_and_is_counted() {
        let clock = Clock::new();
        clock.pretend_step(-3_000_000_000);
        assert_eq!(clock.steps(), 0);
        assert_eq!(clock.read(None).steps, 1);
        assert_eq!(clock.read(None).steps, 1);
    }

    #[test]
    fn timelines_are_named() {
        let usual = "monotonic           0         0\nboottime            5         0\n";
        assert_eq!(name_timeline(Some("ab-cd\n"), Some("time:[4]"), usual), "ab-cd/time:[4]");
        assert_eq!(name_timeline(Some("ab-cd\n"), None, ""), "ab-cd/time:[]");
        assert_ne!(name_timeline(None, None, ""), name_timeline(Some(" "), Some("time:[4]"), ""));
        // Two namespaces that bore the same number, one after the other.
        let name = |seconds: &str, ns: &str| {
            name_timeline(Some("ab"), Some("time:[4]"), &format!("monotonic {seconds} {ns}\nboottime 0 0\n"))
        };
        assert_eq!([name("1000", "0"), name("-3", "500")], ["ab/time:[4]+1000.000000000", "ab/time:[4]-3.000000500"]);
        #[cfg(target_os = "linux")]
        assert_eq!(timeline_name(), timeline_name());
    }
}
