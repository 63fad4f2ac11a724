//! Which fault happens when: a pure function of the seed.
//!
//! The first pass has every kind once, in a random order, and fits even into a short run. Later passes choose kinds by their
//! weight, kills most often. A target is never in two faults at a time.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};

use super::layout::{Layout, On};

/// What a fault happens to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Target {
    /// A worker, by its number.
    Worker(usize),
    /// A gateway, by its number.
    Gateway(usize),
    /// The Redis, or the way to it.
    Redis,
    /// The supervisor, or what it looks after.
    Supervisor,
    /// One of the hosts, or the way to it.
    Host,
}

/// Faults, by kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, clap::ValueEnum)]
pub(crate) enum Kind {
    /// Kill a worker, start a new one a little later
    WorkerKill,
    /// Kill a gateway, start a new one a little later
    GatewayKill,
    /// Kill Redis, start it again on its files; only where that loses nothing
    RedisKill,
    /// Kill Redis, promote its replica; the old primary comes back as a replica
    RedisFailover,
    /// Stop a worker gracefully (SIGTERM), then start a new one
    WorkerStop,
    /// Stop a gateway gracefully (SIGTERM), then start a new one
    GatewayStop,
    /// Shut Redis down gracefully, start it again on its files
    RedisRestart,
    /// Promote the replica while the primary lives; the old primary becomes a replica after a while
    RedisDemote,
    /// Add a replica that stays
    ReplicaAttach,
    /// Remove that replica; without replicas, Redis drops its replication backlog a little later
    ReplicaDetach,
    /// Pause a worker (SIGSTOP) for less than its lease
    WorkerPauseShort,
    /// Pause a worker for longer than its lease: others take its shards over
    WorkerPauseLong,
    /// Pause a gateway for less than the gateway timeout
    GatewayPauseShort,
    /// Pause a gateway for longer than the gateway timeout: it is fenced
    GatewayPauseLong,
    /// Pause Redis for less than the response timeout
    RedisPauseShort,
    /// Pause Redis for longer than the response timeout
    RedisPauseLong,
    /// Close all connections to Redis except subscriptions (CLIENT KILL)
    ClientKill,
    /// Close all subscriptions (CLIENT KILL)
    SubscriberKill,
    /// Make Redis answer nobody for a while (CLIENT PAUSE)
    ClientPause,
    /// Make Redis forget its scripts (SCRIPT FLUSH)
    ScriptFlush,
    /// Cut a process's connections to Redis
    Cut,
    /// Drop everything on a process's connections to Redis, for longer than the response timeout
    Swallow,
    /// A process's lock file is removed: its death shows in time-outs alone.
    LockRemoved,
    /// The directory of all lock files is removed.
    RuntimeDirGone,
    /// Replace everything under the supervisor (`lasthit reload`)
    Reload,
    /// Put another program in the place of the supervisor's, then reload
    Exec,
    /// One gateway and one worker more under the supervisor, and back again
    Scale,
    /// Replace one gateway and one worker of the supervisor (`lasthit recycle`)
    Recycle,
    /// Pause a gateway of the supervisor (SIGSTOP) until it is replaced
    GatewayHang,
    /// Pause a worker of the supervisor until it is replaced
    WorkerHang,
    /// Kill the supervisor itself, start a new one a little later
    SupervisorKill,
    /// Pause the supervisor itself for some seconds
    SupervisorPause,
    /// Kill a primary; it comes back when its replica was elected
    NodeKill,
    /// Pause a primary, for less or for more than it takes to elect its replica
    NodePause,
    /// Swap a primary and its replica in order (CLUSTER FAILOVER, SENTINEL FAILOVER)
    NodeFailover,
    /// Cut a primary off from the other nodes and its replica, but not from clients
    Minority,
    /// Move a shard's slot to another node, key by key
    SlotMove,
    /// Move it at once (CLUSTER MIGRATESLOTS); needs --valkey
    SlotMoveAtomic,
    /// Move it to another node and back again
    SlotThereAndBack,
    /// Kill everything on a host; it boots again later, with another clock; needs --hosts
    HostKill,
    /// Pause everything on a host (SIGSTOP), for less or for more than it takes to move its rooms; needs --hosts
    HostPause,
    /// Cut a host off from Redis, or from the players; needs --hosts
    HostCut,
    /// Move the rooms of a host to the others (`lasthit drain`), and let it have some again later; needs --hosts
    HostDrain,
}

impl Kind {
    /// Every kind that a run on these servers has, with a supervisor or without.
    pub(crate) fn all(on: impl Into<On>, supervised: bool) -> Vec<Self> {
        use clap::ValueEnum;
        let on = on.into();
        let has = |kind: &Self| on.lacks(*kind).is_none() && (supervised || !kind.needs_supervisor());
        Self::value_variants().iter().copied().filter(has).collect()
    }

    /// Whether it happens to one of several nodes.
    pub(crate) fn is_of_nodes(self) -> bool {
        matches!(self, Self::NodeKill | Self::NodePause | Self::NodeFailover | Self::Minority) || self.moves_slots()
    }

    /// Whether it happens to slots of a cluster.
    pub(crate) fn moves_slots(self) -> bool {
        matches!(self, Self::SlotMove | Self::SlotMoveAtomic | Self::SlotThereAndBack)
    }

    /// Whether it happens to a host.
    pub(crate) fn is_of_hosts(self) -> bool {
        matches!(self, Self::HostKill | Self::HostPause | Self::HostCut | Self::HostDrain)
    }

    /// Whether it happens to a worker or a gateway that the run started by itself, or to its lock file.
    pub(crate) fn needs_process(self) -> bool {
        self.befalls(Target::Worker(0)) || self.befalls(Target::Gateway(0)) || self == Self::RuntimeDirGone
    }

    /// Whether a replica may take over that had not got everything that was acknowledged.
    pub(crate) fn may_take_back(self, layout: Layout) -> bool {
        match self {
            Self::NodeKill | Self::NodePause | Self::Minority => true,
            // A cluster's replica waits until it has everything. Sentinels do not let it.
            Self::NodeFailover => layout == Layout::Sentinel,
            _ => false,
        }
    }

    /// Whether it happens to a server that all are led to by proxies.
    pub(crate) fn needs_single(self) -> bool {
        matches!(
            self,
            Self::RedisKill
                | Self::RedisFailover
                | Self::RedisRestart
                | Self::RedisDemote
                | Self::ReplicaAttach
                | Self::ReplicaDetach
                | Self::RedisPauseShort
                | Self::RedisPauseLong
                | Self::Cut
                | Self::Swallow
        )
    }

    /// Whether it happens to a supervisor only.
    pub(crate) fn needs_supervisor(self) -> bool {
        matches!(
            self,
            Self::Reload
                | Self::Exec
                | Self::Scale
                | Self::Recycle
                | Self::GatewayHang
                | Self::WorkerHang
                | Self::SupervisorKill
                | Self::SupervisorPause
        )
    }

    /// Whether a process is killed.
    pub(crate) fn is_kill(self) -> bool {
        matches!(self, Self::WorkerKill | Self::GatewayKill | Self::RedisKill | Self::RedisFailover | Self::SupervisorKill)
            || matches!(self, Self::NodeKill | Self::HostKill)
    }

    /// As in the report and on the command line.
    pub(crate) fn name(self) -> String {
        use clap::ValueEnum;
        self.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
    }

    /// Whether it can happen to this.
    fn befalls(self, target: Target) -> bool {
        match self {
            Self::WorkerKill | Self::WorkerStop | Self::WorkerPauseShort | Self::WorkerPauseLong => {
                matches!(target, Target::Worker(_))
            }
            Self::GatewayKill | Self::GatewayStop | Self::GatewayPauseShort | Self::GatewayPauseLong => {
                matches!(target, Target::Gateway(_))
            }
            Self::Cut | Self::Swallow => !matches!(target, Target::Redis | Target::Host),
            Self::LockRemoved => matches!(target, Target::Worker(_) | Target::Gateway(_)),
            _ if self.needs_supervisor() => target == Target::Supervisor,
            _ if self.is_of_hosts() => target == Target::Host,
            _ => target == Target::Redis,
        }
    }

    /// Its weight in a pass.
    fn weight(self) -> usize {
        match self {
            Self::WorkerKill | Self::GatewayKill => 6,
            Self::RedisKill | Self::RedisFailover | Self::SupervisorKill | Self::NodeKill | Self::HostKill => 3,
            _ => 1,
        }
    }

    /// How long the target is unavailable, in milliseconds.
    fn lasts_ms(self) -> std::ops::Range<u64> {
        match self {
            Self::WorkerKill | Self::GatewayKill => 300..1500,
            Self::RedisKill | Self::RedisFailover | Self::RedisRestart | Self::RedisDemote => 100..800,
            Self::WorkerPauseShort | Self::GatewayPauseShort => 100..500,
            Self::WorkerPauseLong | Self::GatewayPauseLong => 1800..3000,
            Self::RedisPauseShort | Self::ClientPause => 100..1000,
            Self::RedisPauseLong | Self::Swallow => 2300..3000,
            Self::WorkerStop | Self::GatewayStop => 50..500,
            // As long as the supervisor takes for it, about: the next fault of its waits for the end of this one.
            Self::Reload | Self::Exec | Self::Scale => 5000..8000,
            Self::Recycle | Self::GatewayHang | Self::WorkerHang => 3000..6000,
            Self::SupervisorKill => 100..1000,
            Self::SupervisorPause => 1000..4000,
            // Somebody is elected after some 3 s.
            Self::NodeKill | Self::Minority => 3500..4500,
            Self::NodePause => 300..4500,
            // As long as it takes, about.
            Self::NodeFailover | Self::SlotMove | Self::SlotMoveAtomic => 500..1000,
            Self::SlotThereAndBack => 100..800,
            // Its rooms are at home elsewhere after some 3 s.
            Self::HostKill | Self::HostDrain => 3000..6000,
            Self::HostPause | Self::HostCut => 500..6000,
            Self::ClientKill
            | Self::SubscriberKill
            | Self::ScriptFlush
            | Self::Cut
            | Self::ReplicaAttach
            | Self::ReplicaDetach
            | Self::LockRemoved
            | Self::RuntimeDirGone => 1..2,
        }
    }
}

/// One fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Fault {
    /// From the start of the run.
    pub(crate) at: Duration,
    /// What is done.
    pub(crate) kind: Kind,
    /// To whom.
    pub(crate) target: Target,
    /// The time until the target continues, or is started again.
    pub(crate) lasts: Duration,
}

/// What a plan is made from.
#[derive(Debug, Clone)]
pub(crate) struct Terms {
    /// Of everything that is drawn.
    pub(crate) seed: u64,
    /// Of the whole run.
    pub(crate) duration: Duration,
    /// Faults in a minute.
    pub(crate) per_minute: u32,
    /// Gateways that there are.
    pub(crate) gateways: usize,
    /// Workers that there are.
    pub(crate) workers: usize,
    /// Whether there is a supervisor, too.
    pub(crate) supervised: bool,
    /// Whether there are hosts.
    pub(crate) hosts: bool,
    /// The kinds to draw from.
    pub(crate) kinds: Vec<Kind>,
}

/// Before the first fault, so that there is something to break.
const LEAD: Duration = Duration::from_millis(1000);
/// How much of a short run its first pass is given; what has to wait for its target comes in the rest.
const FIRST_PASS_SHARE: f64 = 0.8;
/// How long a fault waits if its target is already in one.
const WAIT: Duration = Duration::from_millis(50);
/// Behind a fault its target rests, so that the next one finds it at work.
const REST: Duration = Duration::from_millis(500);
/// The same where somebody is elected: the nodes have to find together again first.
const NODES_REST: Duration = Duration::from_secs(4);
/// The same where a host takes part again.
const HOSTS_REST: Duration = Duration::from_secs(3);

/// The faults of a run, in the order of their time.
pub(crate) fn plan(terms: &Terms) -> Vec<Fault> {
    let mut random = StdRng::seed_from_u64(terms.seed);
    // Each with the time from which it is free.
    let processes = (0..terms.workers).map(Target::Worker).chain((0..terms.gateways).map(Target::Gateway));
    let targets = processes.chain([Target::Redis]).chain(terms.supervised.then_some(Target::Supervisor));
    let targets = targets.chain(terms.hosts.then_some(Target::Host));
    let mut targets: Vec<_> = targets.map(|target| (target, Duration::ZERO)).collect();
    // Those that there is a target for.
    let kinds = terms.kinds.iter().copied().filter(|kind| targets.iter().any(|(target, _)| kind.befalls(*target)));
    let kinds: Vec<Kind> = kinds.collect();
    let (mut deck, mut faults, mut first) = (Vec::new(), Vec::new(), true);
    let usual = Duration::from_secs(60) / terms.per_minute.max(1);
    let room = terms.duration.saturating_sub(LEAD) / u32::try_from(kinds.len() + 1).unwrap_or(u32::MAX);
    let mut interval = usual.min(room.mul_f64(FIRST_PASS_SHARE));
    let mut at = LEAD;
    while at < terms.duration && !kinds.is_empty() {
        if deck.is_empty() {
            let times = |kind: Kind| if first { 1 } else { kind.weight() };
            deck = kinds.iter().flat_map(|kind| std::iter::repeat_n(*kind, times(*kind))).collect();
            deck.shuffle(&mut random);
            if !std::mem::take(&mut first) {
                interval = usual;
            }
        }
        // The next kind whose target is free.
        let mut pick = |targets: &[(Target, Duration)]| {
            let free: Vec<Target> = targets.iter().filter(|(_, until)| *until <= at).map(|(target, _)| *target).collect();
            (!free.is_empty()).then(|| free[random.random_range(0..free.len())])
        };
        let drawn = (0..deck.len()).rev().find_map(|i| {
            let among: Vec<_> = targets.iter().filter(|(target, _)| Kind::befalls(deck[i], *target)).copied().collect();
            pick(&among).map(|target| (i, target))
        });
        let Some((i, target)) = drawn else {
            at += WAIT;
            continue;
        };
        let kind = deck.remove(i);
        let lasts = Duration::from_millis(random.random_range(kind.lasts_ms()));
        let rest = match kind {
            _ if kind.is_of_hosts() => HOSTS_REST,
            _ if kind.is_of_nodes() && !kind.moves_slots() => NODES_REST,
            _ => REST,
        };
        targets.iter_mut().filter(|(other, _)| *other == target).for_each(|(_, until)| *until = at + lasts + rest);
        faults.push(Fault { at, kind, target, lasts });
        at += interval.mul_f64(random.random_range(0.6..1.4));
    }
    faults
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;
    use crate::chaos::Durability;

    const LEVELS: [Durability; 3] = [Durability::Redis, Durability::Disk, Durability::Replicated];

    fn terms(seed: u64, seconds: u64, durability: Durability) -> Terms {
        let kinds = Kind::all(durability, false);
        Terms {
            seed,
            duration: Duration::from_secs(seconds),
            per_minute: 60,
            gateways: 3,
            workers: 3,
            supervised: false,
            hosts: false,
            kinds,
        }
    }

    #[test]
    fn a_seed_is_a_plan() {
        let one = plan(&terms(7, 60, Durability::Disk));
        assert_eq!(one, plan(&terms(7, 60, Durability::Disk)));
        assert_ne!(one, plan(&terms(8, 60, Durability::Disk)));
    }

    #[test]
    fn twenty_seconds_have_every_kind() {
        for seed in 0..200 {
            for durability in LEVELS {
                let kinds: BTreeSet<Kind> = plan(&terms(seed, 20, durability)).iter().map(|fault| fault.kind).collect();
                assert_eq!(kinds.into_iter().collect::<Vec<_>>(), Kind::all(durability, false), "seed {seed}");
            }
        }
    }

    #[test]
    fn five_minutes_over_a_supervisor_have_every_kind() {
        for seed in 0..50 {
            let kinds = Kind::all(Durability::Disk, true);
            let terms = Terms { supervised: true, kinds: kinds.clone(), ..terms(seed, 300, Durability::Disk) };
            let had: BTreeSet<Kind> = plan(&terms).iter().map(|fault| fault.kind).collect();
            assert_eq!(had.into_iter().collect::<Vec<_>>(), kinds, "seed {seed}");
        }
    }

    #[test]
    fn what_has_no_target_does_not_hold_up_the_rest() {
        let all = Kind::all(Durability::Redis, true);
        let only = Terms { gateways: 0, workers: 0, supervised: true, kinds: all, ..terms(1, 300, Durability::Redis) };
        let faults = plan(&only);
        assert!(faults.len() > 60 && faults.iter().all(|f| matches!(f.target, Target::Redis | Target::Supervisor)), "{faults:?}");
        assert!(faults.iter().any(|fault| fault.kind == Kind::SupervisorKill && fault.at > Duration::from_secs(100)));
    }

    #[test]
    fn five_minutes_have_a_hundred_kills_of_every_kind() {
        for seed in 0..50 {
            for durability in LEVELS {
                let faults = plan(&terms(seed, 300, durability));
                let kills = faults.iter().filter(|fault| fault.kind.is_kill()).count();
                assert!(kills >= 100, "seed {seed}: {kills} of {}", faults.len());
                let has = |kind| faults.iter().any(|fault| fault.kind == kind);
                assert_eq!(has(Kind::RedisKill), durability == Durability::Disk);
                assert_eq!(has(Kind::RedisFailover), durability == Durability::Replicated);
            }
        }
    }

    #[test]
    fn a_target_is_in_one_fault_at_a_time() {
        for seed in 0..50 {
            let mut until: BTreeMap<String, Duration> = BTreeMap::new();
            let mut last = Duration::ZERO;
            for fault in plan(&terms(seed, 120, Durability::Disk)) {
                assert!(fault.at >= last && fault.at >= LEAD);
                last = fault.at;
                let until = until.entry(format!("{:?}", fault.target)).or_default();
                assert!(fault.at >= *until, "seed {seed}: {fault:?} begins before {until:?}");
                *until = fault.at + fault.lasts;
            }
        }
    }

    #[test]
    fn two_minutes_on_a_cluster_have_every_kind() {
        let layout = Layout::Cluster("3x2".parse().expect("a size"));
        let on = |valkey, hosts| On { layout, durability: Durability::Redis, valkey, hosts };
        for hosts in [false, true] {
            for seed in 0..50 {
                let kinds = Kind::all(on(true, hosts), false);
                let faults = plan(&Terms { kinds: kinds.clone(), hosts, ..terms(seed, 120, Durability::Redis) });
                let had: BTreeSet<Kind> = faults.iter().map(|fault| fault.kind).collect();
                assert_eq!(had.into_iter().collect::<Vec<_>>(), kinds, "seed {seed}");
            }
        }
        let has = |valkey, hosts, kind| Kind::all(on(valkey, hosts), false).contains(&kind);
        assert!(has(true, false, Kind::SlotMoveAtomic) && !has(false, false, Kind::SlotMoveAtomic));
        assert!(has(false, false, Kind::WorkerKill) && !has(false, false, Kind::HostKill));
        assert!(has(false, true, Kind::HostKill) && !has(false, true, Kind::WorkerKill) && !has(false, true, Kind::LockRemoved));
    }

    #[test]
    fn only_what_is_asked_for_happens() {
        let only = Terms { kinds: vec![Kind::WorkerKill], ..terms(1, 60, Durability::Redis) };
        let faults = plan(&only);
        assert!(faults.len() > 30 && faults.iter().all(|f| f.kind == Kind::WorkerKill), "{faults:?}");
        assert!(plan(&Terms { kinds: Vec::new(), ..only }).is_empty());
    }
}
