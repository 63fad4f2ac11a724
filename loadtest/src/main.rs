//! Sends load to lasthit, measures it, and audits every answer.
//!
//! Three modules serve the commands: [`load`] is one measurement, from its plan to its audit; [`speak`] is what the generator and
//! a system under test say to each other; [`draw`] makes pages and pictures of figures. `spawn` starts the processes under test.
//!
//! - `commands` reads what each command is told (`cli`), does it, and says how it was
//! - `run` is [`load::measure`], or with `--ramp` [`load::knee::knee`]; with `--rejoin` it measures twice
//! - `fair`: two rivals, a known time apart; `curve`: the same for several values of `--sweep-guard-us`
//! - `compare`: lasthit and other systems; `part`: the programs that it starts
//! - `stages`: where the time of one event goes, and what it costs
//! - `rules`: what programs and timers cost, against their bars
//! - `during`: what is done to a supervisor while a run goes on; `even`, `door`, `auto`: what else is measured of one, all through
//!   `supervised`
//! - `hosts`: several hosts of different clocks, and rooms that move between them
//! - `scale`: what a deployment costs on more nodes and hosts, and a model of that
//! - `chaos`: everything breaks, by a plan, on one Redis or on many nodes; `soak`: memory stays flat

// The wings.
mod draw;
mod load;
mod speak;

// What they share.
mod environment;
mod histogram;
mod limits;
mod spawn;
mod supervised;

// The commands.
mod auto;
mod chaos;
mod cli;
mod commands;
mod compare;
mod curve;
mod door;
mod during;
mod even;
mod fair;
mod hosts;
mod part;
mod rejoin;
mod rules;
mod scale;
mod soak;
mod stages;

#[cfg(test)]
mod tests;

use std::process::ExitCode;

use clap::Parser;

use load::report::Broken;

/// The audit failed.
const FAILED: u8 = 1;
/// There was no run.
const NO_RUN: u8 = 2;
/// What shells report for a program that Ctrl-C ended.
const INTERRUPTED: u8 = 130;

fn main() -> ExitCode {
    let command = cli::Cli::parse().command;
    // One thread: the generator leaves the other cores to the system under test.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let done = runtime.map_err(anyhow::Error::from).and_then(|runtime| runtime.block_on(commands::run(command)));
    done.unwrap_or_else(|e| {
        eprintln!("error: {e:#}");
        ExitCode::from(if e.is::<Broken>() { FAILED } else { NO_RUN })
    })
}
