//! Mistakes of a step that need no look at the journal's state. Both journals refuse them with the same words.

use std::collections::HashSet;

use super::{Commit, Flush, FlushEntry, JournalError};
use crate::types::{RoomId, ShardId};

fn refused(why: String) -> JournalError {
    JournalError::Refused(why)
}

/// Checks that the shard exists in this deployment.
pub(super) fn shard(shard: ShardId, shards: u16) -> Result<(), JournalError> {
    if shard.0 < shards {
        return Ok(());
    }
    Err(refused(format!("shard {shard} does not exist: this deployment has shards 0 to {}", shards - 1)))
}

/// Checks that the room belongs to the shard.
pub(super) fn room(room: &RoomId, of: ShardId, shards: u16) -> Result<(), JournalError> {
    let right = ShardId::of(room, shards);
    if right == of {
        return Ok(());
    }
    Err(refused(format!("room {room} belongs to shard {right}, not to shard {of}: send it there")))
}

fn rooms<'a>(rooms: impl ExactSizeIterator<Item = &'a RoomId>, of: ShardId, shards: u16) -> Result<(), JournalError> {
    shard(of, shards)?;
    let mut seen = HashSet::with_capacity(if rooms.len() > 1 { rooms.len() } else { 0 });
    let single = rooms.len() == 1;
    for id in rooms {
        room(id, of, shards)?;
        if !single && !seen.insert(id) {
            return Err(refused(format!("room {id} comes twice in one step: put its parts together")));
        }
    }
    Ok(())
}

/// Checks that a flush holds what lies in (previous, watermark], and each of its shard's rooms at most once.
pub(super) fn flush(flush: &Flush, shards: u16) -> Result<(), JournalError> {
    if flush.number == 0 {
        return Err(refused("flush number 0: the first flush is 1".into()));
    }
    if flush.watermark < flush.previous {
        return Err(refused(format!("flush watermark {} is below the one before, {}", flush.watermark, flush.previous)));
    }
    if flush.number > 1 && flush.previous.timeline != flush.watermark.timeline {
        return Err(refused(format!(
            "flush watermark {} is of another home than the one before, {}: register anew",
            flush.watermark, flush.previous
        )));
    }
    rooms(flush.entries.iter().map(|e| &e.room), flush.shard, shards)?;
    if let Some(FlushEntry { room, top, .. }) = flush.entries.iter().find(|e| e.top.timeline != flush.watermark.timeline) {
        return Err(refused(format!(
            "room {room} has an event at {top}, of another home than its flush's watermark {}",
            flush.watermark
        )));
    }
    let outside = |e: &&FlushEntry| e.top <= flush.previous || e.top > flush.watermark;
    match flush.entries.iter().find(outside) {
        None => Ok(()),
        Some(FlushEntry { room, top, .. }) => Err(refused(format!(
            "room {room} has an event at {top}, outside of its flush's span from {} (not included) to {}",
            flush.previous, flush.watermark
        ))),
    }
}

/// Checks that a commit's rooms belong to its shard, each at most once, and that exactly those with verdicts raise their `seq`.
pub(super) fn commit(commit: &Commit, shards: u16) -> Result<(), JournalError> {
    if commit.number == 0 {
        return Err(refused("commit number 0: the first commit is 1".into()));
    }
    rooms(commit.rooms.iter().map(|r| &r.room), commit.shard, shards)?;
    let odd = |r: &&super::RoomCommit| r.to < r.from || (r.to == r.from) != r.verdicts.is_empty();
    match commit.rooms.iter().find(odd) {
        None => Ok(()),
        Some(r) => Err(refused(format!(
            "commit of room {} from seq {} to {} with {} bytes of verdicts does not fit together",
            r.room,
            r.from,
            r.to,
            r.verdicts.len()
        ))),
    }
}

/// The error for the death of a gateway that is not fenced.
pub(super) fn not_fenced(gateway: crate::types::Incarnation, of: ShardId) -> JournalError {
    refused(format!("gateway {gateway} is not fenced in shard {of}: fence it before its death is written"))
}
