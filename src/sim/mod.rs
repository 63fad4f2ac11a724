//! A simulated deployment with virtual time: gateways, workers and clients over one memory journal, driven by a seeded
//! scheduler that delays, reorders, repeats, loses, pauses and kills. The step functions are those that ship.
//!
//! Every draw comes from the seed, so that a seed is a whole history. A failure prints it with the command that plays it again.

mod bounds;
mod check;
mod client;
mod driver;
mod faults;
mod follow;
mod hosts;
mod journal;
mod ledger;
mod model;
mod options;
mod process;
mod rules;
mod scenarios;
mod supervised;
mod timers;
mod world;

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};

use options::Options;
use world::World;

/// Seeds of the normal test run.
const SEEDS: u64 = 500;

fn setting(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name}={text} is not a number")))
}

/// Plays one seed to its end and checks it; tells which bounds it has reached, and what has happened in it.
fn play(seed: u64) -> BTreeSet<&'static str> {
    let mut world = World::new(seed, Options::of_seed(seed));
    world.run();
    check::everything(&world);
    let counted = world.ledger.counts.keys().copied();
    world.ledger.reached.into_iter().chain(counted).collect()
}

/// `LASTHIT_SIM_SEED=… cargo test --lib sim::one_seed -- --nocapture` plays one seed and tells what happens.
#[test]
fn one_seed() {
    let seed = setting("LASTHIT_SIM_SEED").unwrap_or(1);
    let mut options = Options::of_seed(seed);
    options.trace = setting("LASTHIT_SIM_SEED").is_some();
    let mut world = World::new(seed, options);
    world.run();
    println!("seed {seed}: {}; {:?}", world.summary(), world.options);
    check::everything(&world);
}

/// `LASTHIT_SIM_SEEDS` plays more of them, `LASTHIT_SIM_FROM` starts elsewhere.
#[test]
fn many_seeds() {
    let (from, count) = (setting("LASTHIT_SIM_FROM").unwrap_or(1), setting("LASTHIT_SIM_SEEDS").unwrap_or(SEEDS));
    let next = AtomicU64::new(from);
    let played: Vec<(Vec<u64>, BTreeSet<&str>)> = std::thread::scope(|scope| {
        let players: Vec<_> = (0..std::thread::available_parallelism().map_or(1, usize::from))
            .map(|_| {
                scope.spawn(|| {
                    let (mut failed, mut reached) = (Vec::new(), BTreeSet::new());
                    loop {
                        let seed = next.fetch_add(1, Ordering::Relaxed);
                        if seed >= from + count || failed.len() >= 8 {
                            return (failed, reached);
                        }
                        match catch_unwind(AssertUnwindSafe(|| play(seed))) {
                            Ok(bounds) => reached.extend(bounds),
                            Err(_) => {
                                eprintln!("LASTHIT_SIM_SEED={seed} cargo test --lib sim::one_seed -- --nocapture");
                                failed.push(seed);
                            }
                        }
                    }
                })
            })
            .collect();
        players.into_iter().map(|player| player.join().expect("a player")).collect()
    });
    let failed: Vec<u64> = played.iter().flat_map(|(failed, _)| failed).copied().collect();
    assert!(failed.is_empty(), "seeds {failed:?} fail");
    if count >= SEEDS {
        bounds::all_reached(&played.into_iter().flat_map(|(_, reached)| reached).collect());
    }
}

/// Rule R5: neither a worker's pauses nor the journal's make a living gateway look dead.
#[test]
fn no_living_gateway_is_fenced() {
    for seed in 1..=100 {
        let mut options = Options::of_living_gateways(seed);
        options.trace = setting("LASTHIT_SIM_SEED") == Some(seed);
        let mut world = World::new(seed, options);
        world.run();
        check::everything(&world);
        assert_eq!(world.ledger.counts.get("fences"), None, "a needless fence: seed {seed}");
    }
}

/// Rooms are read in many pages, and their snapshots written ahead, in every third seed.
#[test]
fn seeds_play_large_rooms() {
    let (mut pages, mut parts) = (0, 0);
    for seed in (1..=60).step_by(3) {
        let mut world = World::new(seed, Options::of_seed(seed));
        world.run();
        check::everything(&world);
        pages += world.ledger.counts.get("rooms in pages").copied().unwrap_or_default();
        parts += world.ledger.counts.get("parts of snapshots").copied().unwrap_or_default();
    }
    assert!(pages > 100 && parts > 100, "{pages} pages, {parts} parts");
}

/// Processes come and go, and players move from one gateway to another, in all the ways that there are.
#[test]
fn seeds_play_moves_and_supervised_restarts() {
    let mut counts = std::collections::BTreeMap::<&str, u64>::new();
    for seed in (3..).step_by(15).take(setting("LASTHIT_SIM_MOVES").unwrap_or(8) as usize) {
        let mut world = World::new(seed, Options::of_seed(seed));
        world.run();
        check::everything(&world);
        for (what, count) in world.ledger.counts {
            *counts.entry(what).or_default() += count;
        }
    }
    for what in
        ["moves", "moves offered to even out", "sessions closed as moved", "gateways that left", "workers that left", "reloads"]
    {
        assert!(counts.get(what).is_some_and(|count| *count > 0), "no {what}: {counts:?}");
    }
}

/// Homes move between hosts whose clocks are apart, because hosts boot, stand still and are cut off.
#[test]
fn seeds_play_homes_that_move() {
    let mut counts = std::collections::BTreeMap::<&str, u64>::new();
    for seed in (8..16).chain(40..48) {
        let mut world = World::new(seed, Options::of_seed(seed));
        world.run();
        check::everything(&world);
        for (what, count) in world.ledger.counts {
            *counts.entry(what).or_default() += count;
        }
    }
    for what in [
        "homes moved",
        "reboots",
        "hosts paused",
        "hosts cut off from the journal",
        "hosts cut off from the players",
        "hosts drained",
        "shards given by hand",
        "successors named",
        "shards that gateways handed over",
        "beats of gateways that are cut off",
        "players sent on",
        "players that forget a home",
    ] {
        assert!(counts.get(what).is_some_and(|count| *count > 0), "no {what}: {counts:?}");
    }
}

/// Two runs of a seed are one history: of one host, and of several.
#[test]
fn a_seed_is_a_whole_history() {
    for seed in [7, 9] {
        let history = || {
            let mut world = World::new(seed, Options::of_seed(seed));
            world.run();
            world.summary()
        };
        assert_eq!(history(), history());
    }
}
