//! What a seed plays: how large its world is, what goes wrong in it, and which bounds it has.

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::faults::Fault;
use super::supervised::Supervised;
use super::world::MS;
use crate::limits::Bounds;

/// Of so many seeds one has a supervisor.
const SUPERVISED: u64 = 15;

/// What a seed plays.
#[derive(Debug, Clone)]
pub(super) struct Options {
    /// Each with its own clocks. A gateway and a worker at least run on each.
    pub(super) hosts: usize,
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
    /// Processes come and go as a supervisor says. It starts all of them.
    pub(super) supervised: Option<Supervised>,
    /// How many times as long players think before they act.
    pub(super) leisure: u64,
    pub(super) trace: bool,
}

impl Options {
    /// Every seed has its own size and its own mixture of faults.
    pub(super) fn of_seed(seed: u64) -> Self {
        let options = Self::unsupervised(seed);
        match seed % SUPERVISED {
            3 => options.supervised(seed),
            // Not drawn, so that the others are the histories that they were.
            _ if seed / 8 % 4 == 1 => options.spread(seed),
            _ => options,
        }
    }

    fn unsupervised(seed: u64) -> Self {
        let mut rng = StdRng::seed_from_u64(seed ^ 0x0075_7470);
        let faults = Fault::USUAL.into_iter().filter(|_| rng.random_bool(0.6)).collect();
        let usual = Self {
            hosts: 1,
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
            supervised: None,
            leisure: 1,
            trace: false,
        };
        if seed % 8 < 4 { usual } else { usual.widened(seed) }
    }

    /// A supervisor starts and replaces everything, and players follow when they are asked to move. Every second such seed is gentle.
    fn supervised(mut self, seed: u64) -> Self {
        let mut rng = StdRng::seed_from_u64(seed ^ 0x7375_7065);
        let gentle = (seed / SUPERVISED).is_multiple_of(2);
        let crashes = seed / SUPERVISED / 2 % 2 == 1;
        let supervised = Supervised::new(&mut |n| rng.random_range(0..n), gentle, crashes);
        let supervised = if self.clients > 14 { supervised.crowded() } else { supervised };
        (self.gateways, self.workers, self.leisure) = (0, 0, 4);
        // A crowd would take long.
        self.clients = self.clients.clamp(rng.random_range(4..=14), 40);
        self.bounds.sessions_max = self.bounds.sessions_max.max(self.clients);
        self.active_ns = rng.random_range(2_500..=4_000) * MS;
        self.fault_interval_ns = rng.random_range(100..=250) * MS;
        self.bounds.move_quiet_ns = rng.random_range(10..=100) * MS;
        self.bounds.move_again_ns = rng.random_range(200..=1_000) * MS;
        self.bounds.move_within_ns = rng.random_range(0..=600) * MS;
        if gentle {
            self.faults = vec![Fault::Ask, Fault::PushProgram];
            if supervised.crashes {
                self.faults.extend([Fault::Ask, Fault::Ask, Fault::KillGateway, Fault::KillWorker, Fault::Hang]);
            }
            (self.lost_per_mille, self.late_per_mille, self.prompt, self.restart_interval_ns) = (0, 0, true, 0);
            self.bounds.sessions_max = Bounds::default().sessions_max;
            self.retention_ms = 3_600_000;
        } else {
            self.faults.extend([Fault::Ask, Fault::Ask, Fault::Ask, Fault::Hang, Fault::KillSupervisor, Fault::PauseSupervisor]);
        }
        self.supervised = Some(supervised);
        self
    }

    /// Processes run on two or three hosts, and hosts fail as a whole.
    fn spread(mut self, seed: u64) -> Self {
        self.hosts = 2 + (seed / 32 % 2) as usize;
        (self.gateways, self.workers) = (self.gateways.max(self.hosts), self.workers.max(self.hosts));
        self.faults.extend(Fault::OF_HOSTS);
        self
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
        Self { faults, lost_per_mille: 0, late_per_mille: 0, prompt: true, restart_interval_ns: 0, ..Self::unsupervised(seed) }
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
        // Surveys of many pages, in another part of the seeds.
        if !seed.is_multiple_of(3) {
            bounds.survey_rooms = 1 + seed as usize % 2;
        }
        bounds
    }
}
