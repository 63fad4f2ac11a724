//! Which programs in files the record of a stored room names.

use std::collections::BTreeSet;

use bytes::Bytes;

use super::{Recording, ReplayError};
use crate::engine;
use crate::journal::{Journal, PageSize};
use crate::types::{ProgramId, RoomId};
use crate::wire::verdicts;

/// The programs that a room's record names: its snapshot and its verdicts. Its entries name none. What is read is held a page at a time,
/// however large the room is.
///
/// # Errors
/// As [`Recording::read`]; when a part of it cannot be read, as that may name any.
pub(crate) async fn named_by(journal: &dyn Journal, room: &RoomId) -> Result<BTreeSet<ProgramId>, ReplayError> {
    named_paged(journal, room, PageSize::default(), || {}).await
}

/// [`named_by`], in pages of this size; `turn` is called before each but the first.
pub(super) async fn named_paged(
    journal: &dyn Journal,
    room: &RoomId,
    size: PageSize,
    mut turn: impl FnMut(),
) -> Result<BTreeSet<ProgramId>, ReplayError> {
    let (head, snapshot) = Recording::read_snapshot(journal, room, size, &mut turn).await?;
    let mut named = BTreeSet::new();
    if let Some(snapshot) = snapshot {
        named.extend(engine::program_of(&snapshot.bytes)?);
    }
    let take = |batches: Vec<Bytes>| {
        named.append(&mut named_in(&batches)?);
        Ok(())
    };
    Recording::read_batches(journal, room, (head.era, size), &mut turn, take).await?;
    Ok(named)
}

/// The programs in files that these batches name.
pub(super) fn named_in(batches: &[Bytes]) -> Result<BTreeSet<ProgramId>, ReplayError> {
    let mut named = BTreeSet::new();
    for batch in batches {
        let batch = verdicts::decode(batch)?;
        let record = batch.decided.as_ref().map(|bytes| engine::Record::read(bytes)).transpose()?;
        named.extend(record.and_then(|record| record.program()));
        named.extend(batch.verdicts.iter().filter_map(|verdict| Some(verdict.change.as_ref()?.program)));
    }
    named.remove(&ProgramId::NONE);
    Ok(named)
}
