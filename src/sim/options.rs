//! What a seed plays: how large its world is, what goes wrong in it, and which bounds it has.

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::faults::Fault;
use super::world::MS;
use crate::limits::Bounds;

/// What a seed plays.
#[derive(Debug, Clone)]
pub(super) struct Options {
    pub(super) rooms: usize,
    pub(super) gateways: usize,
    pub(super) workers: usize,
    pub(super) clients: usize,
    /// How long faults and players go on.
    pub(super) active_ns: u64,
    /// Faults that may happen, and how long it is from one to the next.
    pub(super) faults: Vec<Fault>,
    pub(super) fault_interval_ns: u64,
    /// Steps of the journal in a thousand whose answer, or whose request, is lost.
    pub(super) lost_per_mille: u32,
    /// Sweeps in a thousand that miss what one session has sent.
    pub(super) late_per_mille: u32,
    /// Killed processes in a thousand that leave a free lock behind.
    pub(super) locks_per_mille: u32,
    pub(super) room_linger_ns: u64,
    pub(super) retention_ms: u64,
    pub(super) bounds: Bounds,
    /// The second client repeats, leaves and comes back all the time.
    pub(super) rude: bool,
    /// Nothing takes long on its way.
    pub(super) prompt: bool,
    /// How long it is, at most, until the journal's server starts again; 0 for never.
    pub(super) restart_interval_ns: u64,
    pub(super) trace: bool,
}

impl Options {
    /// Every seed has its own size and its own mixture of faults.
    pub(super) fn of_seed(seed: u64) -> Self {
        let mut rng = StdRng::seed_from_u64(seed ^ 0x0075_7470);
        let faults = Fault::USUAL.into_iter().filter(|_| rng.random_bool(0.6)).collect();
        let usual = Self {
            rooms: rng.random_range(1..=3),
            gateways: rng.random_range(1..=3),
            workers: rng.random_range(1..=3),
            clients: rng.random_range(3..=7),
            active_ns: rng.random_range(500..=1_200) * MS,
            faults,
            fault_interval_ns: rng.random_range(20..=150) * MS,
            lost_per_mille: if rng.random_bool(0.5) { rng.random_range(1..=60) } else { 0 },
            late_per_mille: if rng.random_bool(0.5) { rng.random_range(1..=100) } else { 0 },
            room_linger_ns: if rng.random_bool(0.5) { 30 * MS } else { 60_000 * MS },
            retention_ms: 3_600_000,
            bounds: Self::bounds(&mut rng, seed),
            rude: false,
            prompt: false,
            locks_per_mille: [0, 500, 1_000][(seed % 3) as usize],
            // Not drawn, so that a seed without restarts is the history that it was before there were any.
            restart_interval_ns: if seed % 4 == 2 { 400 * MS } else { 0 },
            trace: false,
        };
        if seed % 8 < 4 { usual } else { usual.widened(seed) }
    }

    /// Half of the seeds have, beside what the others have, some of what takes a deployment days or thousands of players.
    fn widened(mut self, seed: u64) -> Self {
        let mut rng = StdRng::seed_from_u64(seed ^ 0x7769_6465);
        if rng.random_bool(0.5) {
            self.faults.push(Fault::ChangeServer);
        }
        if rng.random_bool(0.5) {
            self.faults.push(Fault::StepClock);
        }
        if rng.random_bool(0.5) {
            self.faults.push(Fault::PushProgram);
        }
        if rng.random_bool(0.3) {
            self.faults.push(Fault::Reboot);
        }
        if rng.random_bool(0.5) {
            // Gateways that look dead, are forgotten, and wake up after that.
            self.bounds.forget_ns = rng.random_range(1..=80) * MS;
            self.faults.push(Fault::PauseGatewayLong);
        }
        if rng.random_bool(0.5) {
            self.rooms += 1;
            self.faults.push(Fault::SpoilRoom);
        }
        if rng.random_bool(0.25) {
            // So many that each of them does little.
            self.clients = rng.random_range(100..=300);
            self.active_ns /= 4;
            self.bounds.unresolved_per_room_max *= self.clients;
            self.bounds.unresolved_max *= self.clients;
            // A turn for each delivery would take a crowd too long.
            self.bounds.catch_up_turn_max *= self.clients;
        }
        if rng.random_bool(0.25) {
            self.bounds.backlog_bytes_max = 4 * rng.random_range(500..=2_000);
            self.bounds.room_reserve_bytes = 600;
        }
        if rng.random_bool(0.25) {
            // Enough for everybody, once those that left are gone.
            self.bounds.sessions_max = self.clients;
        }
        if rng.random_bool(0.5) {
            self.retention_ms = rng.random_range(1..=150);
            self.bounds.snapshot_events = rng.random_range(1..=10);
        }
        self.rude = rng.random_bool(0.5);
        self.bounds.check_interval_ns = rng.random_range(5..=50) * MS;
        self
    }

    /// No gateway fails, and nothing comes between it and the journal; workers pause, and the journal does.
    pub(super) fn of_living_gateways(seed: u64) -> Self {
        let faults = vec![Fault::PauseWorker, Fault::PauseJournal, Fault::KillWorker, Fault::StopWorker, Fault::BreakBells];
        Self { faults, lost_per_mille: 0, late_per_mille: 0, prompt: true, restart_interval_ns: 0, ..Self::of_seed(seed) }
    }

    /// Small ones in half of the seeds (rule W6), and snapshots all the time in another half.
    fn bounds(rng: &mut StdRng, seed: u64) -> Bounds {
        let mut bounds = Bounds::default();
        if rng.random_bool(0.5) {
            bounds.waiting_actions_max = rng.random_range(1..=3);
            bounds.unresolved_per_room_max = rng.random_range(1..=4);
            bounds.unresolved_max = 4 * rng.random_range(2..=8);
            bounds.room_reserve_events = 1;
            bounds.flush_events_max = rng.random_range(1..=3);
            bounds.flush_bytes_max = 3 * rng.random_range(100..=400);
            bounds.resolve_events_max = rng.random_range(1..=3);
            bounds.commit_verdicts_max = rng.random_range(1..=3);
            bounds.commit_bytes_max = rng.random_range(100..=1_000);
            bounds.shard_bells_max = rng.random_range(1..=4);
            // Not drawn, so that a seed stays the history that it was as far as it can.
            bounds.outbox_messages_max = 2 * bounds.resolve_events_max;
            bounds.catch_up_messages_max = bounds.resolve_events_max;
            bounds.catch_up_turn_max = bounds.commit_verdicts_max;
            bounds.catch_up_pages_max = bounds.resolve_events_max;
        }
        if rng.random_bool(0.5) {
            bounds.snapshot_events = rng.random_range(1..=40);
        }
        // Rooms of many pages, whose snapshots are written ahead; no draw of the seed's.
        if seed % 3 == 1 {
            bounds.snapshot_part_bytes = 40 + seed as usize % 200;
            bounds.page_bytes = 60 + seed as usize % 500;
            bounds.page_entries_max = 1 + seed as usize % 5;
            bounds.commit_bytes_max = 300;
        }
        bounds
    }
}
