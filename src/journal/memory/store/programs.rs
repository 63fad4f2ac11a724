//! The programs in files.

use std::collections::BTreeMap;

use async_trait::async_trait;
use bytes::Bytes;

use super::super::MemoryJournal;
use super::Store;
use crate::journal::JournalError;
use crate::journal::programs::{ProgramJournal, ProgramPush, PushAnswer, Pushed, PushedBy};
use crate::limits::PROGRAMS_KEPT_MAX;
use crate::types::{Incarnation, ProgramId, RoomId, ShardId};

/// The texts by name, and the record of each pattern.
#[derive(Debug, Clone, Default)]
pub(super) struct Programs {
    texts: BTreeMap<ProgramId, Bytes>,
    patterns: BTreeMap<String, Pushed>,
    last: u64,
}

impl Store {
    /// Keeps and perhaps sets a program. Returns whom to tell, too.
    pub(crate) fn push_program(&mut self, push: &ProgramPush, now_ms: u64) -> (PushAnswer, Vec<Incarnation>) {
        let (program, programs) = (ProgramId::of(&push.text), &mut self.programs);
        let record = programs.patterns.get(&push.pattern);
        if record.is_none() && push.by != PushedBy::Start {
            return (PushAnswer::Unknown, Vec::new());
        }
        if !programs.texts.contains_key(&program) && programs.texts.len() >= PROGRAMS_KEPT_MAX {
            let stays = programs.patterns.get(&push.pattern).filter(|_| push.by == PushedBy::Start);
            return (stays.map_or(PushAnswer::Full, |record| PushAnswer::Stays(record.clone())), Vec::new());
        }
        programs.texts.insert(program, push.text.clone());
        if let Some(record) = record {
            if record.program == program && push.by != PushedBy::HandAgain {
                return (PushAnswer::Decides(record.clone()), Vec::new());
            }
            let same_is_enough = push.by != PushedBy::Start;
            if record.name != push.name || push.version < record.version || push.version == record.version && !same_is_enough {
                return (PushAnswer::Stays(record.clone()), Vec::new());
            }
        }
        programs.last = now_ms.max(programs.last + 1);
        let (pattern, name, version) = (push.pattern.clone(), push.name.clone(), push.version);
        let pushed = Pushed { pattern, program, push: programs.last, name, version, at_ms: now_ms };
        programs.patterns.insert(push.pattern.clone(), pushed.clone());
        (PushAnswer::Decides(pushed), self.workers.keys().copied().collect())
    }

    /// What each pattern's rooms are decided by.
    pub(crate) fn pushed_programs(&self) -> Vec<Pushed> {
        self.programs.patterns.values().cloned().collect()
    }

    /// The rooms of a shard.
    fn stored_rooms(&self, shard: ShardId) -> Vec<RoomId> {
        self.shards.get(usize::from(shard.0)).map(|shard| shard.rooms.keys().cloned().collect()).unwrap_or_default()
    }

    /// The text of a program.
    pub(crate) fn program(&self, program: ProgramId) -> Option<Bytes> {
        self.programs.texts.get(&program).cloned()
    }
}

#[async_trait]
impl ProgramJournal for MemoryJournal {
    async fn push_program(&self, push: &ProgramPush) -> Result<PushAnswer, JournalError> {
        let (now_ms, mut inner) = (self.now_ms(), self.inner.lock());
        let (answer, tell) = inner.store.push_program(push, now_ms);
        let told = ProgramPush::told();
        for worker in tell {
            inner.push(worker, &told);
        }
        Ok(answer)
    }

    async fn pushed_programs(&self) -> Result<Vec<Pushed>, JournalError> {
        Ok(self.inner.lock().store.pushed_programs())
    }

    async fn program(&self, program: ProgramId) -> Result<Option<Bytes>, JournalError> {
        Ok(self.inner.lock().store.program(program))
    }

    async fn kept_programs(&self) -> Result<Vec<(ProgramId, usize)>, JournalError> {
        let inner = self.inner.lock();
        Ok(inner.store.programs.texts.iter().map(|(program, text)| (*program, text.len())).collect())
    }

    async fn stored_rooms(&self, shard: ShardId) -> Result<Vec<RoomId>, JournalError> {
        let inner = self.inner.lock();
        Ok(inner.store.stored_rooms(shard))
    }

    async fn drop_program(&self, program: ProgramId) -> Result<bool, JournalError> {
        let programs = &mut self.inner.lock().store.programs;
        let is_used = programs.patterns.values().any(|record| record.program == program);
        if !is_used {
            programs.texts.remove(&program);
        }
        Ok(!is_used)
    }
}
