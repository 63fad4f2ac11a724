//! Commands that measure a supervisor.

use std::process::ExitCode;

use anyhow::Result;

use super::{stop_flag, stopped, tell, write};
use crate::INTERRUPTED;
use crate::auto::{AutoConfig, Followed};
use crate::cli::{AutoArgs, DoorArgs, EvenArgs};
use crate::door::{DoorConfig, Doors};
use crate::even::{self, Even, EvenConfig};

pub(super) async fn even_command(args: EvenArgs) -> Result<ExitCode> {
    let EvenArgs { spawn, sessions, rate, kill, peer, json, svg } = args;
    let config = EvenConfig { spawn, sessions, rate, kill, cluster: peer.is_some() };
    let Some(even) = Even::measure(&config, &stop_flag()?).await? else { return Ok(no_figures()) };
    if let Some(path) = &svg {
        write(path, even::draw(&even))?;
    }
    tell(&even, None, json.as_deref())
}

pub(super) async fn door_command(args: DoorArgs) -> Result<ExitCode> {
    let DoorArgs { spawn, samples, ramp, duration, tasks, json } = args;
    let config = DoorConfig { spawn, samples, ramp, duration, tasks };
    let Some(doors) = Doors::measure(&config, &*stop_flag()?).await? else { return Ok(no_figures()) };
    tell(&doors, None, json.as_deref())
}

pub(super) async fn auto_command(args: AutoArgs) -> Result<ExitCode> {
    let AutoArgs { spawn, steps, sessions, rooms, json } = args;
    let config = AutoConfig { spawn, steps, sessions, rooms };
    let Some(followed) = Followed::measure(&config, stopped()?).await? else { return Ok(no_figures()) };
    tell(&followed, followed.failure(), json.as_deref())
}

fn no_figures() -> ExitCode {
    eprintln!("interrupted: no figures");
    ExitCode::from(INTERRUPTED)
}
