//! The command line of `lasthit rules`.

use std::path::PathBuf;

use clap::{ArgGroup, Args, Subcommand};

use super::{Parsed, RedisArgs};
use crate::config::{Config, Flags};
use crate::replay::command::Source;
use crate::versions::{self, Managing};
use crate::workbench::{Task, Work};

#[derive(Debug, Subcommand)]
pub(super) enum Tool {
    /// Writes a start into this folder: NAME.js, and lasthit.d.ts with its types. It overwrites nothing
    #[command(after_help = "Examples:\n  lasthit rules new flag")]
    New {
        /// Name of the program: A-Z a-z 0-9 . _ -
        #[arg(value_name = "NAME")]
        name: String,
        /// Print JSON instead of text
        #[arg(long)]
        json: bool,
    },
    /// Loads a program and says what is in it. No handler runs
    #[command(after_help = "Examples:\n  lasthit rules check flag.js\n  lasthit rules check flag.js --json")]
    Check(ProgramArgs),
    /// Plays the scenarios that a program exports as tests. Finds what it keeps outside its state
    #[command(
        after_help = "Exit codes: 0 if all scenarios are as expected, 1 if not, or if the file is no program.\n\nExamples:\n  \
                            lasthit rules test flag.js\n  lasthit rules test flag.js --json"
    )]
    Test(ProgramArgs),
    /// Measures how long a program takes for the events of its scenarios, and how large its state is
    #[command(after_help = "Examples:\n  lasthit rules bench flag.js\n  lasthit rules bench flag.js --json")]
    Bench(ProgramArgs),
    /// Lets a program decide the rooms of a pattern that another version of it decides now
    #[command(after_help = PUSH)]
    Push {
        /// The program: one file of JavaScript
        #[arg(value_name = "FILE")]
        file: PathBuf,
        /// Whose rooms, as in [[rooms]]; "*" for workers with --rules
        #[arg(long, value_name = "PATTERN")]
        pattern: String,
        /// Also if it decides already: rooms that refused it try again
        #[arg(long)]
        again: bool,
        #[command(flatten)]
        common: Common,
    },
    /// Lists which program decides the rooms of each pattern, and which others are kept
    #[command(after_help = LIST)]
    List {
        #[command(flatten)]
        common: Common,
    },
    /// Says what a program would have decided otherwise in a recorded room
    #[command(after_help = TRY)]
    Try {
        /// The program: one file of JavaScript
        #[arg(long, value_name = "FILE")]
        file: PathBuf,
        /// Room to read. A dump holds only one
        #[arg(long, value_name = "NAME")]
        room: Option<String>,
        /// Dump to read instead of Redis
        #[arg(long, value_name = "DUMP")]
        dump: Option<PathBuf>,
        #[command(flatten)]
        common: Common,
    },
    /// Drops kept programs
    #[command(after_help = DROP, group = ArgGroup::new("what").required(true).args(["unused"]))]
    Drop {
        /// Those that no pattern has and no stored room names
        #[arg(long)]
        unused: bool,
        #[command(flatten)]
        common: Common,
    },
}

#[derive(Debug, Args)]
pub(super) struct Common {
    #[command(flatten)]
    redis: RedisArgs,
    /// Print JSON instead of text
    #[arg(long)]
    json: bool,
}

const PUSH: &str = "\
The program has the name of the one before, and its version or a higher one. Each room changes with its next event or timer, by a verdict
of its own; `migrate` takes over its state. A room whose state it does not take over stays with the program before.

Exit codes: 0 if it decides, 1 if it is refused.

Examples:
  lasthit rules push baron.js --pattern '*' --redis redis://127.0.0.1:6379
  lasthit rules push baron.js --pattern 'pit-*' --again --redis redis://127.0.0.1:6379 --json";

const LIST: &str = "\
Examples:
  lasthit rules list --redis redis://127.0.0.1:6379
  lasthit rules list --redis redis://127.0.0.1:6379 --json";

const TRY: &str = "\
The program decides the recorded events in their order, in place of those that did: from the room's beginning if that is kept, otherwise
from the last snapshot, whose state `migrate` takes over. Nothing is changed.

Exit codes: 0 if nothing comes out otherwise, 1 if something does, 2 if the room cannot be decided by it.

Examples:
  lasthit rules try --room pit-7 --file baron.js --redis redis://127.0.0.1:6379
  lasthit rules try --dump pit-7.dump --file baron.js --json";

const DROP: &str = "\
It reads the records of all rooms. A program stays if a pattern has it, if the record of a room names it, or if a program of its name was
pushed within the last hour. When a program was replaced is not kept, so the last push of its name counts. If one room cannot be read,
nothing is dropped.

Examples:
  lasthit rules drop --unused --redis redis://127.0.0.1:6379";

#[derive(Debug, Args)]
pub(super) struct ProgramArgs {
    /// The program: one file of JavaScript
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Print JSON instead of text
    #[arg(long)]
    json: bool,
}

pub(super) const EXAMPLES: &str = "\
Examples:
  lasthit rules new flag             writes flag.js and lasthit.d.ts
  lasthit rules check flag.js
  lasthit rules test flag.js
  lasthit rules bench flag.js
  lasthit serve --rules flag.js      then open http://127.0.0.1:7777/
  lasthit rules try --room pit-7 --file flag.js --redis redis://127.0.0.1:6379
  lasthit rules push flag.js --pattern '*' --redis redis://127.0.0.1:6379";

impl Tool {
    /// What to do, and where.
    pub(super) fn parse(self, env: &dyn Fn(&str) -> Option<String>) -> Parsed {
        let work = |task, json| Parsed::Work(Work { task, json });
        let mut mistakes = Vec::new();
        let (task, common, or) = match self {
            Self::New { name, json } => return work(Task::New(name), json),
            Self::Check(ProgramArgs { file, json }) => return work(Task::Check(file), json),
            Self::Test(ProgramArgs { file, json }) => return work(Task::Test(file), json),
            Self::Bench(ProgramArgs { file, json }) => return work(Task::Bench(file), json),
            Self::Push { file, pattern, again, common } => {
                (Some(versions::Task::Push { file, pattern, again }), common, Some(""))
            }
            Self::List { common } => (Some(versions::Task::List), common, Some("")),
            Self::Drop { common, .. } => (Some(versions::Task::DropUnused), common, Some("")),
            Self::Try { file, room, dump, common } => {
                let or = dump.is_none().then_some(", or --dump with a dump");
                let source = Source::of(room, dump).map_err(|mistake| mistakes.push(mistake)).ok();
                (source.map(|source| versions::Task::Try { file, source }), common, or)
            }
        };
        match (task, Config::load_to_read(Flags::of(&common.redis), env, or)) {
            (Some(task), Ok(config)) => Parsed::Manage(Managing { task, json: common.json }, Box::new(config)),
            (_, loaded) => {
                mistakes.extend(loaded.err().into_iter().flat_map(|e| e.mistakes));
                Parsed::Mistakes(mistakes)
            }
        }
    }
}
