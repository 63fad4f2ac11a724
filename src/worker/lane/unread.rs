//! Entries that came by bell before the lane has read what comes before them.

use bytes::Bytes;

use crate::limits::{LANE_BUFFER_BYTES_MAX, LANE_BUFFER_ENTRIES_MAX};
use crate::types::StreamId;

/// The entries of bells, in order. The buffer is bounded; what it drops is read from the journal.
#[derive(Debug, Default)]
pub(super) struct Unread {
    entries: Vec<(StreamId, Bytes)>,
    bytes: usize,
    /// The read in flight may miss entries: it was sent before the last survey, or the buffer dropped some. Another read must
    /// follow it (rule R2).
    stale: bool,
}

impl Unread {
    /// Keeps an entry. If it does not fit, all entries before it are dropped.
    pub(super) fn keep(&mut self, at: StreamId, bytes: &Bytes) {
        let fits = self.entries.len() < LANE_BUFFER_ENTRIES_MAX && self.bytes + bytes.len() <= LANE_BUFFER_BYTES_MAX;
        if !fits {
            *self = Self { stale: true, ..Self::default() };
        }
        self.bytes += bytes.len();
        self.entries.push((at, bytes.clone()));
    }

    /// A survey found more than the read in flight may have.
    pub(super) fn outdate(&mut self) {
        self.stale = true;
    }

    /// Whether a bell rang, or a survey found more.
    pub(super) fn came(&self) -> bool {
        self.stale || !self.entries.is_empty()
    }

    /// The read is done: returns the entries that follow it, or itself if another read is needed.
    pub(super) fn caught_up(self) -> Result<Vec<(StreamId, Bytes)>, Self> {
        if self.stale { Err(self.for_a_new_read()) } else { Ok(self.entries) }
    }

    /// The same entries, before a read that is sent from now on.
    pub(super) fn for_a_new_read(self) -> Self {
        Self { stale: false, ..self }
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }
}
