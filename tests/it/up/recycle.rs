//! Processes that have done enough.

use std::collections::BTreeSet;

use super::player::Player;
use super::{Row, Up};
use crate::support::{PATIENCE, now, redis};

/// Gateways by what comes in, workers by what they decide: one at a time, and nobody loses an action.
#[tokio::test]
async fn processes_are_replaced_after_so_many_events_one_at_a_time() {
    let redis = redis(&[]);
    let up = Up::on(&redis, &["--recycle-events", "100", "--drain-window", "200ms"]);
    let first = up.children();
    // Rooms enough for both workers, and players enough for both gateways.
    let mut players = Vec::new();
    for n in 0..8 {
        players.push(Player::join(up.address, &format!("claim-{n}"), &format!("p{n}")).await);
    }
    let (began, mut busy) = (now(), BTreeSet::new());
    loop {
        for _ in 0..5 {
            for player in &mut players {
                player.play().await;
            }
        }
        let rows = up.ps();
        busy.extend(rows.iter().filter(|row| row.actions_per_s() > 0.0).map(|row| row.name().to_owned()));
        let names: BTreeSet<&str> = rows.iter().map(Row::name).collect();
        assert_eq!(names.len(), 4, "{rows:?}");
        assert!(rows.len() <= 5, "one at a time: {rows:?}");
        if rows.iter().filter_map(Row::pid).all(|pid| !first.contains(&pid)) {
            break;
        }
        assert!(began.elapsed() < PATIENCE, "{rows:?}");
    }
    assert_eq!(busy.iter().map(String::as_str).collect::<Vec<_>>(), ["gateway-1", "gateway-2", "worker-1", "worker-2"]);
    for name in busy {
        up.process.line_with(&format!("{name} is replaced: it has had "));
    }
    players.iter().for_each(Player::is_content);
    assert_eq!(up.ps().iter().map(Row::crashes).sum::<u64>(), 0);
}
