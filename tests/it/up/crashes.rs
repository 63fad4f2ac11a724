//! Processes that are killed, hang, or fail at their start; and a supervisor that stands still, or is killed itself.

use std::time::Duration;

use serde_json::json;

use super::player::Player;
use super::{Home, Up, kill, runs, shown};
use crate::support::{end_by_signal, get, now, redis, until};

/// The shortest that may be given.
const HANG: [&str; 2] = ["--hang-timeout", "2s"];
const HANG_TIMEOUT: Duration = Duration::from_secs(2);

/// On both gateways there is one of them.
async fn two_players(up: &Up) -> [Player; 2] {
    [Player::join(up.address, "claim-1", "ann").await, Player::join(up.address, "claim-1", "bob").await]
}

async fn play(players: &mut [Player; 2], times: usize) {
    for _ in 0..times {
        for player in players.iter_mut() {
            player.play().await;
        }
    }
}

#[tokio::test]
async fn a_killed_process_is_started_again_and_no_action_is_lost() {
    let redis = redis(&[]);
    let up = Up::on(&redis, &[]);
    let mut players = two_players(&up).await;
    play(&mut players, 5).await;
    for name in ["gateway-1", "worker-1", "worker-2", "gateway-2"] {
        let pid = up.pid(name);
        kill(pid);
        play(&mut players, 5).await;
        let row = up.replaced(name, pid);
        assert_eq!((row.crashes(), row.last_end(), row.generation()), (1, "was ended by signal 9", 1), "{row:?}");
        up.process.line_with(&format!("{name} was ended by signal 9: it is started again in 100 ms"));
    }
    play(&mut players, 5).await;
    for player in &players {
        player.is_content();
        assert!(player.returns > 0, "each was on a gateway that was killed");
    }
    assert_eq!(up.all_ready(4).iter().map(super::Row::crashes).sum::<u64>(), 4);
}

#[tokio::test]
async fn a_process_that_hangs_is_killed_and_replaced() {
    let redis = redis(&[]);
    let up = Up::on(&redis, &HANG);
    let mut players = two_players(&up).await;
    play(&mut players, 5).await;
    let stopped = ["worker-1", "gateway-1"].map(|name| (name, up.pid(name)));
    for (_, pid) in stopped {
        end_by_signal(pid, "STOP");
    }
    play(&mut players, 5).await;
    for (name, pid) in stopped {
        let row = up.replaced(name, pid);
        assert_eq!((row.crashes(), row.last_end()), (1, "said nothing for 2 s, and was killed"), "{row:?}");
        assert!(!runs(pid));
    }
    play(&mut players, 5).await;
    players.iter().for_each(Player::is_content);
    assert_eq!((up.row("worker-2").crashes(), up.row("gateway-2").crashes()), (0, 0));
}

/// One of two gateways stands still for long: whoever comes meanwhile gets to the other one at once.
#[tokio::test]
async fn connections_pass_by_a_gateway_that_hangs() {
    let redis = redis(&[]);
    let up = Up::on(&redis, &["--hang-timeout", "60s"]);
    let pid = up.pid("gateway-1");
    end_by_signal(pid, "STOP");
    up.process.line_with("gateway-1 has said nothing for 2 s: others get its connections");
    let mut players = Vec::new();
    for n in 0..20 {
        let mut player = up.ticket("claim-1", &format!("p{n}")).join().await;
        assert_eq!(player.ask("claim", "1", &format!("hat {n}"), json!(null)).await["outcome"], "granted");
        players.push(player);
    }
    let sessions = || (up.row("gateway-1").sessions(), up.row("gateway-2").sessions());
    until("all are told of", || (sessions() == (0, 20)).then_some(()));
    end_by_signal(pid, "CONT");
    up.process.line_with("gateway-1 says something again: it gets connections");
    players.push(up.ticket("claim-1", "late").join().await);
    until("the one with the fewest has it", || (up.row("gateway-1").sessions() == 1).then_some(()));
    assert_eq!(up.all_ready(4).iter().map(super::Row::crashes).sum::<u64>(), 0);
}

/// Time in which the supervisor does not run is no time in which its children are silent.
#[tokio::test]
async fn a_supervisor_that_stood_still_kills_nobody() {
    let redis = redis(&[]);
    let up = Up::on(&redis, &HANG);
    let mut players = two_players(&up).await;
    let before = up.ps();
    up.process.signal("STOP");
    let began = now();
    // That it stands for longer than anybody may be silent is what this is about.
    while began.elapsed() < HANG_TIMEOUT * 5 / 2 {
        play(&mut players, 1).await;
    }
    up.process.signal("CONT");
    let last = before.iter().map(super::Row::age_s).fold(0.0, f64::max) + HANG_TIMEOUT.as_secs_f64() + 1.0;
    let after = until("it has looked at them for longer than they may be silent", || {
        let rows = up.ps();
        rows.iter().all(|row| row.age_s() > last).then_some(rows)
    });
    for (before, after) in before.iter().zip(&after) {
        assert_eq!((before.pid(), after.crashes(), after.phase()), (after.pid(), 0, "ready"), "{after:?}");
    }
    play(&mut players, 5).await;
    for player in &players {
        player.is_content();
        assert_eq!(player.returns, 0, "sessions are with the gateways, not with the supervisor");
    }
    // Whoever comes now is let in.
    Player::join(up.address, "claim-1", "cid").await.play().await;
}

/// What only a person can mend is not tried again and again, and does not keep the others from their work.
#[tokio::test]
async fn a_process_that_cannot_start_is_failed_until_it_is_started_again() {
    let redis = redis(&[]);
    let home = Home::new();
    let path =
        home.write("rules.js", "export default { name: 'r', version: 1, state: () => ({}), on: { take() { return {}; } } };\n");
    let up = Up::of(home, &redis, &["--admin", "127.0.0.1:0", "--rules", &path]);
    let admin = up.process.address_in("health and metrics on http://");
    up.all_ready(4);
    let away = shown(&up.home.file("away.js"));
    std::fs::rename(&path, &away).expect("moved");
    kill(up.pid("worker-1"));
    let failed = until("worker-1 is failed", || Some(up.row("worker-1")).filter(|row| row.phase() == "failed"));
    assert_eq!(
        (failed.pid(), failed.crashes(), failed.last_end()),
        (None, 2, "ended with code 2 before it was ready"),
        "{failed:?}"
    );
    up.process.line_with("it is not started again by itself (lasthit start worker-1)");
    // It says itself what is wrong.
    assert!(up.process.line_with("worker-1   | lasthit: ").contains("rules.js"));
    let table = up.ask(&["ps"]).done();
    assert!(
        table.iter().any(|line| line.starts_with("worker-1   failed ") && line.ends_with("code 2 before it was ready")),
        "{table:?}"
    );
    // Another worker goes on, so players are served.
    assert_eq!(get(admin, "/readyz"), (200, "ready\n".to_owned()));
    // The others are as before.
    let rows = up.ps();
    assert!(
        rows.iter().filter(|row| row.name() != "worker-1").all(|row| row.phase() == "ready" && row.crashes() == 0),
        "{rows:?}"
    );
    up.ticket("arena", "ann").join().await.leave(1000).await;

    let line = up.ask(&["start", "worker-1"]).refused(1);
    assert_eq!(line, "worker-1 ended with code 2 before it was ready: it is not started again by itself");
    std::fs::rename(&away, &path).expect("moved");
    assert_eq!(up.ask(&["start", "worker-1"]).done(), ["worker-1 is ready"]);
    assert_eq!(get(admin, "/readyz").0, 200);
}

/// Its children end by themselves, and the next one takes over at once: its port, its control socket and its players.
#[tokio::test]
async fn after_a_killed_supervisor_the_next_one_goes_on() {
    let redis = redis(&[]);
    let mut up = Up::on(&redis, &[]);
    let mut players = two_players(&up).await;
    play(&mut players, 5).await;
    let mut children = up.children();
    assert_eq!(children.len(), 4);
    let mut dan = up.ticket("claim-1", "dan").join().await;
    up.process.kill();
    assert_eq!(dan.close_code().await.0, 1001);
    assert!(up.home.control().exists(), "nobody was there to take it away");
    let (address, url) = (up.address.to_string(), redis.url());
    let args = ["--redis", &url, "--listen", &address, "--gateways", "1", "--workers", "1", "--admin", "none"];
    let process = up.home.start(&args, &[]);
    assert_eq!(process.address_in("open http://"), up.address);
    up.process = process;
    play(&mut players, 5).await;
    up.all_ready(2);
    until("those of the killed one end", || {
        children.retain(|pid| runs(*pid));
        children.is_empty().then_some(())
    });
    play(&mut players, 1).await;
    players.iter().for_each(Player::is_content);
    let mut cid = up.ticket("claim-1", "cid").join().await;
    assert_eq!(cid.ask("claim", "1", "hat", json!(null)).await["outcome"], "granted");
}
