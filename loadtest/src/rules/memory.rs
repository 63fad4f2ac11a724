//! The memory that a worker takes for a room.

use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::json;

use super::bars::{Bar, Row};
use super::programs::{Family, Programs, SPAWN};
use super::{Pace, none_failed, until_in_memory};
use crate::compare::generator::Target;
use crate::compare::{Teller, explain};
use crate::spawn::Fleet;

/// So many times fewer rooms come before those that are counted: with them the worker takes what it takes in any case.
const FEWER: u32 = 10;
/// Actions of each room.
const ACTIONS_EACH: u32 = 2;

/// A JavaScript room of 1 KiB beyond a built-in one, each in a worker of its own.
pub(super) async fn measure(pace: Pace, teller: &mut Teller) -> Result<Row> {
    let mut kib = [0.0; 2];
    for (family, kib) in [Family::BuiltIn, Family::Kilobyte].into_iter().zip(&mut kib) {
        teller.tell(&format!("memory of {} rooms, {}", pace.memory_rooms, family.name()));
        let files = Programs::write(&[family])?;
        let mut fleet = Fleet::start_with(SPAWN, &files.options("1h")).await?;
        let measured = room_kib(&fleet, family, pace).await.with_context(|| family.name());
        explain(&measured, &mut fleet);
        fleet.end().await;
        *kib = measured?;
    }
    let [built_in, program] = kib;
    let raw = json!({ "built_in_kib": built_in, "program_kib": program, "rooms": pace.memory_rooms });
    Ok(Bar::RoomKib.row(&[program - built_in], raw))
}

/// What the worker grows by for each room.
async fn room_kib(fleet: &Fleet, family: Family, pace: Pace) -> Result<f64> {
    let few = pace.memory_rooms / FEWER;
    fill(fleet, family, few, pace).await?;
    until_in_memory(fleet, few).await?;
    let before = fleet.resident_kib("worker")?;
    fill(fleet, family, pace.memory_rooms, pace).await?;
    until_in_memory(fleet, few + pace.memory_rooms).await?;
    none_failed(fleet).await?;
    let grown = fleet.resident_kib("worker")?.saturating_sub(before);
    Ok(grown as f64 / f64::from(pace.memory_rooms))
}

/// Further rooms, which stay when their sessions have left.
async fn fill(fleet: &Fleet, family: Family, rooms: u32, pace: Pace) -> Result<()> {
    let target = Target { family: family.tag(), ..Target::lasthit(fleet.urls()) };
    let rate = (rooms * ACTIONS_EACH).div_ceil(pace.fill_s);
    target.in_rooms((rooms, 1), rate, Duration::from_secs(u64::from(pace.fill_s))).await.map(drop)
}
