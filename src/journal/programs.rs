//! The programs in files that the deployment's rooms are or were decided by: their texts, by name, and what each pattern has now.

use async_trait::async_trait;
use bytes::Bytes;

use super::{CommonJournal, JournalError};
use crate::types::{ProgramId, RoomId, ShardId};
use crate::wire::push::{self, Push};

/// What the rooms of a pattern are decided by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pushed {
    /// Which rooms, as the configuration says.
    pub pattern: String,
    /// Names the text.
    pub program: ProgramId,
    /// The number of the push: it rises over the whole deployment, and across a loss of the last ones.
    pub push: u64,
    /// What the program calls itself.
    pub name: String,
    /// Its version.
    pub version: u32,
    /// When it was pushed, in milliseconds since 1970 by the journal's clock.
    pub at_ms: u64,
}

/// A program that is to decide the rooms of a pattern.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProgramPush {
    /// Which rooms.
    pub pattern: String,
    /// What the program calls itself.
    pub name: String,
    /// Its version.
    pub version: u32,
    /// The program.
    pub text: Bytes,
    /// Who pushes it.
    pub by: PushedBy,
}

impl ProgramPush {
    /// What the workers are told when something has changed.
    pub(super) fn told() -> Bytes {
        push::encode(&Push::Programs)
    }
}

/// Who pushes a program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PushedBy {
    /// A worker that starts with the file: the program decides if there is none yet, or if its version is higher.
    Start,
    /// Somebody who wants it to decide, unless its version is lower.
    Hand,
    /// The same. If the program decides already, rooms that refused it try again.
    HandAgain,
}

/// The answer to a push.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PushAnswer {
    /// It decides, now or before.
    Decides(Pushed),
    /// Another one stays: this one has another name, or its version is lower, or for [`PushedBy::Start`] not higher.
    Stays(Pushed),
    /// As many programs are kept as may be.
    Full,
    /// No worker has started with a program for this pattern: there is nothing to replace.
    Unknown,
}

/// What is done with programs in files. Each method is one atomic step.
#[async_trait]
pub trait ProgramJournal: CommonJournal {
    /// Keeps a program, and makes it what its pattern's rooms are decided by. The text is kept also if another one stays; a damaged one
    /// of the same name is replaced. All workers are told ([`Push::Programs`]) if something changed.
    /// Idempotent, but for [`PushedBy::HandAgain`].
    ///
    /// # Errors
    /// When the outcome is unknown: send it again.
    async fn push_program(&self, push: &ProgramPush) -> Result<PushAnswer, JournalError>;

    /// What each pattern's rooms are decided by, by pattern. A damaged record counts as none.
    ///
    /// # Errors
    /// When the journal does not work.
    async fn pushed_programs(&self) -> Result<Vec<Pushed>, JournalError>;

    /// The text of a program; None if it is not kept, or damaged.
    ///
    /// # Errors
    /// When the journal does not work.
    async fn program(&self, program: ProgramId) -> Result<Option<Bytes>, JournalError>;

    /// The names of all programs that are kept, and the bytes of each.
    ///
    /// # Errors
    /// When the journal does not work.
    async fn kept_programs(&self) -> Result<Vec<(ProgramId, usize)>, JournalError>;

    /// The rooms of a shard that are stored: their records may name programs.
    ///
    /// # Errors
    /// When the journal does not work.
    async fn stored_rooms(&self, shard: ShardId) -> Result<Vec<RoomId>, JournalError>;

    /// Deletes a program, unless a pattern has it. Returns whether it is gone.
    ///
    /// # Errors
    /// When the outcome is unknown: send it again.
    async fn drop_program(&self, program: ProgramId) -> Result<bool, JournalError>;
}
