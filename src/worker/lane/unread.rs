//! What came by bell while something before it was still to be read.

use bytes::Bytes;

use crate::limits::{LANE_BUFFER_BYTES_MAX, LANE_BUFFER_ENTRIES_MAX};
use crate::types::StreamId;

/// Bounded: what is dropped is in the journal.
#[derive(Debug, Default)]
pub(super) struct Unread {
    entries: Vec<(StreamId, Bytes)>,
    bytes: usize,
    /// The read that is under way does not reach far enough: it was asked for before the last survey, or entries were
    /// dropped here. Another one follows it, up to the tail that counts (rule R2).
    stale: bool,
}

impl Unread {
    /// Keeps an entry. All that came before is dropped when it does not fit.
    pub(super) fn keep(&mut self, at: StreamId, bytes: &Bytes) {
        let fits = self.entries.len() < LANE_BUFFER_ENTRIES_MAX && self.bytes + bytes.len() <= LANE_BUFFER_BYTES_MAX;
        if !fits {
            *self = Self { stale: true, ..Self::default() };
        }
        self.bytes += bytes.len();
        self.entries.push((at, bytes.clone()));
    }

    /// A survey found more.
    pub(super) fn outdate(&mut self) {
        self.stale = true;
    }

    /// Whether anything came.
    pub(super) fn came(&self) -> bool {
        self.stale || !self.entries.is_empty()
    }

    /// The read reached far enough, and these come behind it; or what waits for another read.
    pub(super) fn caught_up(self) -> Result<Vec<(StreamId, Bytes)>, Self> {
        if self.stale { Err(self.for_a_new_read()) } else { Ok(self.entries) }
    }

    /// The same for a read that is yet to be asked for.
    pub(super) fn for_a_new_read(self) -> Self {
        Self { stale: false, ..self }
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }
}
