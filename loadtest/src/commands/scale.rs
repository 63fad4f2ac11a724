//! What a deployment costs as it grows.

use std::process::ExitCode;

use anyhow::Result;

use super::{stopped, write};
use crate::INTERRUPTED;
use crate::cli::ScaleArgs;
use crate::scale::{self, Scale, ScaleConfig};

pub(super) async fn scale_command(args: ScaleArgs) -> Result<ExitCode> {
    let ScaleArgs { nodes, hosts, shards, rooms, rate, rounds, duration, json, svg } = args;
    let config = ScaleConfig { nodes, hosts, shards, rooms, rate, rounds, duration };
    let stop = stopped()?;
    // What is under way is dropped then, and its processes are killed with it.
    let scale = tokio::select! {
        scale = Scale::measure(&config) => scale?,
        () = stop => {
            eprintln!("interrupted: no figures");
            return Ok(ExitCode::from(INTERRUPTED));
        }
    };
    println!("{scale}");
    if let Some(path) = &json {
        write(path, serde_json::to_string_pretty(&scale)? + "\n")?;
    }
    if let Some(path) = &svg {
        write(path, scale::draw(&scale))?;
    }
    Ok(ExitCode::SUCCESS)
}
