//! A push of a new version to rooms that are busy, with timers and with actions: how long until all have changed, and whether any answer
//! was another version's than its room's.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::json;
use tokio::process::Command;
use tokio::time::{Instant, sleep, timeout};

use super::bars::{Bar, Row};
use super::programs::{Family, Programs, SPAWN};
use super::rooms::{Rooms, SPREAD, When};
use super::{Pace, SETTLE_TIMEOUT, none_failed};
use crate::compare::{Teller, explain};
use crate::spawn::{Fleet, binary};

/// From one fire of a room to the next.
const BUSY: Duration = Duration::from_millis(250);
/// What the first version calls itself in the program's text, and the second.
const VERSIONS: [&str; 2] = ["const VERSION = 1;", "const VERSION = 2;"];
/// How long the rooms are watched over the push, and again after it.
const WATCH: Duration = Duration::from_secs(2);

/// Starts the rooms with version 1, and pushes version 2.
pub(super) async fn measure(pace: Pace, teller: &mut Teller) -> Result<Row> {
    teller.tell(&format!("a push to {} busy rooms", pace.timer_rooms));
    let files = Programs::write(&[Family::Busy])?;
    let mut fleet = Fleet::start_with(SPAWN, &files.options("1h")).await?;
    let measured = async {
        let rooms = Rooms::join(fleet.urls(), Family::Busy, pace.timer_rooms).await?;
        let row = pushed(&rooms, &fleet, &files).await?;
        none_failed(&fleet).await?;
        rooms.leave().await?;
        anyhow::Ok(row)
    };
    let measured = measured.await;
    explain(&measured, &mut fleet);
    fleet.end().await;
    measured
}

async fn pushed(rooms: &Rooms, fleet: &Fleet, files: &Programs) -> Result<Row> {
    rooms.set(When::Every(BUSY)).await?;
    let all_fire = |fires: u64| {
        ensure!(fires >= rooms.count().into(), "{fires} timers of {} rooms fired", rooms.count());
        Ok(())
    };
    all_fire(rooms.watch(BUSY * 2).await?.fires)?;
    let (lasthit, file) = (binary::lasthit()?, files.rewrite(Family::Busy, VERSIONS)?);
    // The rooms act over a while, and some change in the midst of it.
    let pushing = async {
        sleep(SPREAD / 2).await;
        let start = Instant::now();
        push(&lasthit, &file, &fleet.redis_socket()).await?;
        rooms.until_version(2, start).await
    };
    let (over, (), took) = tokio::try_join!(rooms.watch(WATCH), rooms.set(When::Every(BUSY)), pushing)?;
    let after = rooms.watch(WATCH).await?;
    all_fire(after.fires)?;
    let (wrong, first_wrong) = rooms.wrong();
    let raw = json!({
        "rooms": rooms.count(), "every_ms": BUSY.as_millis(), "actions": rooms.count(), "first_wrong": first_wrong,
        "over": { "fires": over.fires, "missed": over.missed, "late_us": over.late.quantiles() },
        "after": { "fires": after.fires, "missed": after.missed, "late_us": after.late.quantiles() },
    });
    Ok(Bar::PushS.row(&[took.as_secs_f64(), wrong as f64], raw))
}

/// `lasthit rules push`.
async fn push(lasthit: &Path, file: &Path, redis: &Path) -> Result<()> {
    let mut command = Command::new(lasthit);
    command.args(["rules", "push"]).arg(file).args(["--pattern", &Family::Busy.pattern()]);
    command.arg("--redis").arg(format!("unix://{}", redis.display())).kill_on_drop(true);
    let ran =
        timeout(SETTLE_TIMEOUT, command.output()).await.with_context(|| format!("the push took over {SETTLE_TIMEOUT:?}"))?;
    let ran = ran.with_context(|| format!("{} cannot be started", lasthit.display()))?;
    ensure!(ran.status.success(), "the push failed: {}", String::from_utf8_lossy(&ran.stderr).trim());
    Ok(())
}
