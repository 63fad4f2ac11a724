//! What is kept of an event that is void because the program that decides its room failed on it.

use bytes::Bytes;

use super::{PlayerId, RoomTime, VerdictKind};
use crate::limits::FAILURE_BYTES_MAX;

/// An event that is void because rules failed on it: they came to no decision, or to one that is none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failed {
    /// The room's era.
    pub era: u64,
    /// The number of its void verdict.
    pub seq: u64,
    /// The room's time at that verdict.
    pub now: RoomTime,
    /// What happened.
    pub kind: VerdictKind,
    /// The timer, if one fired.
    pub timer: Option<String>,
    /// The player who acted; None if a timer fired.
    pub player: Option<PlayerId>,
    /// The action in its canonical form, if there was one.
    pub action: Option<Bytes>,
    /// The name of the rules.
    pub program: String,
    /// Their version.
    pub version: u32,
    /// The verdict's reason.
    pub reason: String,
    /// What went wrong, in one line of at most `FAILURE_BYTES_MAX`.
    pub error: String,
    /// Where, innermost first. Lines as `error`.
    pub stack: Vec<String>,
}

/// Text as one line of at most [`FAILURE_BYTES_MAX`], with a sign where it was cut.
pub(crate) fn failure_line(text: &str) -> String {
    const CUT: char = '…';
    let mut line = String::new();
    for c in text.chars().map(|c| if c.is_control() { ' ' } else { c }) {
        if line.len() + c.len_utf8() > FAILURE_BYTES_MAX - CUT.len_utf8() {
            line.push(CUT);
            break;
        }
        line.push(c);
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_is_told_in_one_bounded_line() {
        assert_eq!(failure_line("a\nb\tc"), "a b c");
        let long = failure_line(&"ä".repeat(FAILURE_BYTES_MAX));
        assert!(long.len() <= FAILURE_BYTES_MAX && long.ends_with('…') && long.len() > FAILURE_BYTES_MAX - 8, "{}", long.len());
    }
}
