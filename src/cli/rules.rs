//! The command line of `lasthit rules`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

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
}

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
  lasthit serve --rules flag.js      then open http://127.0.0.1:7777/";

impl From<Tool> for Work {
    fn from(tool: Tool) -> Self {
        let (task, json) = match tool {
            Tool::New { name, json } => (Task::New(name), json),
            Tool::Check(ProgramArgs { file, json }) => (Task::Check(file), json),
            Tool::Test(ProgramArgs { file, json }) => (Task::Test(file), json),
            Tool::Bench(ProgramArgs { file, json }) => (Task::Bench(file), json),
        };
        Self { task, json }
    }
}
