//! The command line of `lasthit failed`.

use clap::{ArgGroup, Args, Subcommand};

use super::RedisArgs;
use crate::failed::{Id, Looking, Task};

#[derive(Debug, Subcommand)]
pub(super) enum Tool {
    /// Lists them, newest first: of each room pattern as many as its keep_failed says
    #[command(after_help = LIST)]
    List {
        /// Only those of this pattern, as in [[rooms]]
        #[arg(long, value_name = "PATTERN")]
        pattern: Option<String>,
        /// Only those of this room
        #[arg(long, value_name = "NAME")]
        room: Option<String>,
        #[command(flatten)]
        common: Common,
    },
    /// Shows all of one, with its action and stack
    #[command(after_help = SHOW)]
    Show {
        /// What list calls it (ROOM/ERA/SEQ), or a room
        #[arg(value_name = "ID")]
        id: String,
        /// After a room: the number of the void verdict
        #[arg(value_name = "SEQ")]
        seq: Option<u64>,
        #[command(flatten)]
        common: Common,
    },
    /// Drops some of them
    #[command(after_help = DROP, group = ArgGroup::new("what").required(true).args(["ids", "pattern", "all"]))]
    Drop {
        /// What list calls them
        #[arg(value_name = "ID", conflicts_with_all = ["pattern", "all"])]
        ids: Vec<String>,
        /// Those of this pattern
        #[arg(long, value_name = "PATTERN", conflicts_with = "all")]
        pattern: Option<String>,
        /// All of them
        #[arg(long)]
        all: bool,
        #[command(flatten)]
        common: Common,
    },
}

#[derive(Debug, Args)]
pub(super) struct Common {
    #[command(flatten)]
    pub(super) redis: RedisArgs,
    /// Print JSON instead of text
    #[arg(long)]
    json: bool,
}

pub(super) const EXAMPLES: &str = "\
An event on which rules fail has a void verdict, and nothing else of it happens. It is kept apart with the error, also when its room
has ended. What failed under `lasthit serve` is in that process only: see its log.

Examples:
  lasthit failed list --redis redis://127.0.0.1:6379
  lasthit failed show pit-3/1/42 --redis redis://127.0.0.1:6379
  lasthit failed drop --all --redis redis://127.0.0.1:6379";

const LIST: &str = "\
Exit codes: 0 if all could be read, 1 if some are damaged.

Examples:
  lasthit failed list --redis redis://127.0.0.1:6379
  lasthit failed list --redis redis://127.0.0.1:6379 --pattern 'arena-*' --json";

const SHOW: &str = "\
Examples:
  lasthit failed show pit-3/1/42 --redis redis://127.0.0.1:6379
  lasthit failed show pit-3 42 --redis redis://127.0.0.1:6379 --json";

const DROP: &str = "\
Examples:
  lasthit failed drop pit-3/1/42 pit-3/1/43 --redis redis://127.0.0.1:6379
  lasthit failed drop --pattern 'arena-*' --redis redis://127.0.0.1:6379
  lasthit failed drop --all --redis redis://127.0.0.1:6379";

impl Tool {
    /// What to do, and where.
    pub(super) fn read(self) -> Result<(Looking, Common), (String, Common)> {
        let (task, common) = match self {
            Self::List { pattern, room, common } => {
                let room = room.map(|room| room.parse()).transpose().map_err(|e| format!("--room: {e}"));
                (room.map(|room| Task::List { pattern, room }), common)
            }
            Self::Show { id, seq: None, common } => (id.parse().map(Task::Show), common),
            Self::Show { id, seq: Some(seq), common } => {
                let room = id.parse().map_err(|e| format!("room {id:?}: {e}"));
                (room.map(|room| Task::Show(Id { room, era: None, seq })), common)
            }
            Self::Drop { pattern: Some(pattern), common, .. } => (Ok(Task::DropAll(Some(pattern))), common),
            Self::Drop { all: true, common, .. } => (Ok(Task::DropAll(None)), common),
            Self::Drop { ids, common, .. } => {
                let ids: Result<Vec<Id>, String> = ids.iter().map(|id| id.parse()).collect();
                (ids.map(Task::Drop), common)
            }
        };
        match task {
            Ok(task) => Ok((Looking { task, json: common.json }, common)),
            Err(mistake) => Err((mistake, common)),
        }
    }
}
