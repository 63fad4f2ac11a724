//! Timers in a room that everybody has left.

use std::time::Duration;

use super::*;
use crate::rules::{Decision, Due, Happening, Rules, What, When};
use crate::types::VerdictKind;

/// Ticks for ever, from the first action on.
struct Forever;

impl Rules for Forever {
    fn name(&self) -> &str {
        "forever"
    }

    fn version(&self) -> u32 {
        1
    }

    fn is_quick(&self) -> bool {
        true
    }

    fn resolve(&mut self, event: &Happening<'_>) -> Decision {
        match event.what {
            What::Data(_) => Decision::granted().timer("tick", When::Every(Duration::from_millis(20)), &()),
            _ => Decision::granted(),
        }
    }

    fn fire(&mut self, _timer: &Due<'_>) -> Decision {
        Decision::granted()
    }

    fn snapshot(&self) -> Vec<u8> {
        Vec::new()
    }

    fn restore(&mut self, _version: u32, _bytes: &[u8]) -> Result<(), String> {
        Ok(())
    }
}

/// Rule T6: the room is deserted from the last Close on, however often a timer fires meanwhile.
#[test]
fn a_room_that_ticks_for_ever_ends_when_everybody_has_left() {
    const LINGER_MS: u64 = 150;
    const LEFT_MS: u64 = 1_030;
    let rules = RulesBook::new().room("*", || Forever);
    let bounds = Bounds { check_interval_ns: 5 * MS, ..Bounds::default() };
    let (epoch_ns, room_linger_ns) = (1_000_000_000 * MS, LINGER_MS * MS);
    let mut stage = Stage::with(WorkerLimits { rules, bounds, epoch_ns, room_linger_ns, ..limits() });
    let mut a = gateway(&mut stage.store, 1);
    stage.begin(&mut a);
    a.act(1, "x", 1_020 * MS);
    a.core.end(1, 1000, Arrival::at(LEFT_MS * MS, 0));
    a.core.close(1, Arrival::at(LEFT_MS * MS, 0));
    stage.now = (LEFT_MS + 1) * MS;
    let bell = a.flush(&mut stage.store, stage.now, false);
    stage.bell(bell);
    stage.settle();
    let mut ended = None;
    for ms in LEFT_MS + 2..LEFT_MS + 4 * LINGER_MS {
        stage.now = ms * MS;
        for input in [Input::Due, Input::Tick] {
            stage.worker.apply(input, stage.now);
            stage.collect();
            while !stage.wanted.is_empty() && ended.is_none() {
                ended = stage.wanted.iter().any(|command| matches!(command, WorkerCommand::EndRoom { .. })).then_some(ms);
                stage.turn();
            }
        }
    }
    let fires = stage.committed.iter().filter(|v| v.kind == VerdictKind::Timer).count();
    assert!(fires > 5, "{fires} fires");
    let ended = ended.expect("it ends");
    assert!((LEFT_MS + LINGER_MS..LEFT_MS + LINGER_MS + 10).contains(&ended), "it ends at {ended}");
}
