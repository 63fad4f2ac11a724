use proptest::prelude::*;

use super::*;

const LEASE_NS: u64 = 1_000_000_000;
const REHOME_NS: u64 = 2 * LEASE_NS;
/// How long a home is waited for that does not beat any more: its last beat was good for a lease.
const PATIENCE_NS: u64 = REHOME_NS - LEASE_NS;
const STEP_NS: u64 = LEASE_NS / 2;

fn host(i: usize) -> HostId {
    HostId::new(&format!("host-{i}")).expect("name")
}

fn process(i: usize, part: Part, cores: u32) -> ProcessRecord {
    let url = format!("wss://{i}.example");
    ProcessRecord { ready: true, cores, url, ..ProcessRecord::new(Incarnation(1), host(i), part) }
}

fn processes(hosts: &[u32]) -> Vec<ProcessRecord> {
    let both = |(i, cores): (usize, &u32)| [process(i, Part::Gateway, *cores), process(i, Part::Worker, *cores)];
    hosts.iter().enumerate().flat_map(both).collect()
}

fn worker(of: usize, number: usize) -> Incarnation {
    Incarnation((of * 10 + number + 1) as u128)
}

fn row(shard: u16, home: Option<usize>) -> ShardRow {
    let home_of = home.map(|i| (5, host(i)));
    ShardRow { shard: ShardId(shard), home: home_of, next: None, owner: home.map(|i| worker(i, 0)), busy: 0 }
}

/// Hosts with so many cores, and the homes of their shards.
fn table(me: usize, hosts: &[u32], homes: &[Option<usize>]) -> Table {
    let shards = homes.iter().enumerate().map(|(i, home)| row(u16::try_from(i).expect("few"), *home)).collect();
    Table {
        me: host(me),
        worker: worker(me, 0),
        lease_ns: LEASE_NS,
        rehome_after_ns: REHOME_NS,
        processes: processes(hosts),
        drained: BTreeSet::new(),
        shards,
    }
}

/// Plans for so long, at every step, and gives the last plan.
fn plan_for(memory: &mut Memory, table: &Table, ns: u64) -> Plan {
    let start_ns = memory.answered_ns.unwrap_or(7 * LEASE_NS);
    let mut plan = memory.plan(start_ns, table);
    for step in 1..=ns / STEP_NS {
        plan = memory.plan(start_ns + step * STEP_NS, table);
    }
    plan
}

fn shards(numbers: &[u16]) -> BTreeSet<ShardId> {
    numbers.iter().copied().map(ShardId).collect()
}

/// A deployment whose workers follow their plans in turns.
struct World {
    now_ns: u64,
    hosts: Vec<Living>,
    drained: BTreeSet<HostId>,
    rows: Vec<ShardRow>,
    /// When the name of a shard's successor runs out.
    until_ns: BTreeMap<ShardId, u64>,
    /// Each change of a home: when, which shard, and whether it was handed over.
    moves: Vec<(u64, ShardId, bool)>,
}

struct Living {
    beats: bool,
    cores: u32,
    workers: Vec<Memory>,
}

impl World {
    fn new(cores: &[u32], workers: usize, homes: &[Option<usize>]) -> Self {
        let living =
            |cores: &u32| Living { beats: true, cores: *cores, workers: (0..workers).map(|_| Memory::default()).collect() };
        Self {
            now_ns: 7 * LEASE_NS,
            hosts: cores.iter().map(living).collect(),
            drained: BTreeSet::new(),
            rows: table(0, cores, homes).shards,
            until_ns: BTreeMap::new(),
            moves: Vec::new(),
        }
    }

    fn beats(&self, name: &HostId) -> bool {
        self.hosts.iter().enumerate().any(|(i, one)| one.beats && host(i) == *name)
    }

    fn table(&self, of: usize, number: usize) -> Table {
        let cores: Vec<u32> = self.hosts.iter().map(|host| host.cores).collect();
        let mut table = table(of, &cores, &[]);
        table.processes.retain(|process| self.beats(&process.host));
        (table.worker, table.drained) = (worker(of, number), self.drained.clone());
        table.shards = self.rows.clone();
        for row in &mut table.shards {
            row.next = row.next.take().filter(|_| self.until_ns.get(&row.shard).is_some_and(|until| *until > self.now_ns));
            row.owner =
                row.owner.filter(|owner| self.hosts.iter().enumerate().any(|(i, one)| one.beats && owner.0 / 10 == i as u128));
        }
        table
    }

    /// One worker's heartbeat, and what it does then. Checks that nobody takes a shard from a home that serves it.
    fn turn(&mut self, of: usize, number: usize) {
        if !self.hosts[of].beats {
            return;
        }
        let (me, worker, table) = (host(of), worker(of, number), self.table(of, number));
        let plan = self.hosts[of].workers[number].plan(self.now_ns, &table);
        for (told, row) in table.shards.iter().zip(&mut self.rows) {
            if plan.claim.contains(&row.shard) {
                let handed = told.next.as_ref() == Some(&me) && told.owner.is_none();
                let serves = told.host().is_some_and(|home| table.processes.iter().any(|process| process.host == *home));
                assert!(!serves || handed, "{} was taken from a home that serves it", row.shard);
                row.home = Some((told.number().unwrap_or(4) + 1, me.clone()));
                (row.owner, row.next) = (Some(worker), None);
                self.moves.push((self.now_ns, row.shard, handed));
            } else if told.host() == Some(&me) && told.owner.is_none() && told.next.is_none() {
                // What is at home here finds an owner among this host's workers.
                (row.owner, row.next) = (Some(worker), None);
            } else if told.owner == Some(worker) {
                match &plan.name {
                    Some((shard, to)) if *shard == row.shard => {
                        if told.next.as_ref() == Some(to) {
                            row.owner = None;
                        }
                        row.next = Some(to.clone());
                        self.until_ns.insert(row.shard, self.now_ns + LEASE_NS);
                    }
                    _ => row.next = None,
                }
            }
        }
    }

    /// Every worker has a turn, in an order that begins anywhere.
    fn step(&mut self, first: usize) {
        let turns: Vec<(usize, usize)> =
            self.hosts.iter().enumerate().flat_map(|(i, host)| (0..host.workers.len()).map(move |number| (i, number))).collect();
        for i in 0..turns.len() {
            let (of, number) = turns[(i + first) % turns.len()];
            self.turn(of, number);
        }
        self.now_ns += STEP_NS;
    }

    fn has(&self, i: usize) -> usize {
        self.rows.iter().filter(|row| row.host() == Some(&host(i))).count()
    }

    /// The shortest time between a move of a shard and its being handed over.
    fn shortest_rest(&self) -> u64 {
        let mut last: BTreeMap<ShardId, u64> = BTreeMap::new();
        let rest = |(at_ns, shard, handed): &(u64, ShardId, bool)| {
            let last_ns = last.insert(*shard, *at_ns).filter(|_| *handed)?;
            Some(at_ns - last_ns)
        };
        self.moves.iter().filter_map(rest).min().unwrap_or(u64::MAX)
    }

    /// Whether no worker plans anything any more.
    fn rests(&mut self) -> bool {
        let beating: Vec<usize> = (0..self.hosts.len()).filter(|i| self.hosts[*i].beats).collect();
        beating.into_iter().all(|of| {
            let table = self.table(of, 0);
            let plan = self.hosts[of].workers[0].plan(self.now_ns, &table);
            plan.claim.is_empty() && plan.name.is_none()
        })
    }
}

/// What each host should have, counted in another way.
fn expected(cores: &[u32], shards: usize, takes: &[bool]) -> Vec<usize> {
    let taking = |i: &usize| takes[*i];
    let all: usize = (0..cores.len()).filter(taking).map(|i| cores[i] as usize).sum();
    let mut expected: Vec<usize> =
        (0..cores.len()).map(|i| if takes[i] { shards * cores[i] as usize / all } else { 0 }).collect();
    let rest = shards - expected.iter().sum::<usize>();
    (0..cores.len()).filter(taking).take(rest).for_each(|i| expected[i] += 1);
    expected
}

/// A host: its cores, whether it beats, whether it is drained.
fn any_host() -> impl Strategy<Value = (u32, bool, bool)> {
    (1u32..9, prop::bool::weighted(0.7), prop::bool::weighted(0.2))
}

type Index = prop::sample::Index;

/// A shard: its home (index 5 and up: none), whether it has an owner, whom that one has named.
fn any_shard() -> impl Strategy<Value = (usize, bool, Option<Index>)> {
    (0usize..7, any::<bool>(), prop::option::weighted(0.1, any::<Index>()))
}

fn any_world() -> impl Strategy<Value = World> {
    let hosts = prop::collection::vec(any_host(), 1..5);
    (hosts, 1usize..3, prop::collection::vec(any_shard(), 1..14)).prop_map(|(hosts, workers, shards)| {
        let cores: Vec<u32> = hosts.iter().map(|(cores, ..)| *cores).collect();
        let homes: Vec<Option<usize>> = shards.iter().map(|(home, ..)| (*home < 5).then_some(home % cores.len())).collect();
        let mut world = World::new(&cores, workers, &homes);
        for (i, (_, beats, drained)) in hosts.iter().enumerate() {
            world.hosts[i].beats = *beats;
            if *drained {
                world.drained.insert(host(i));
            }
        }
        for (row, (_, owned, next)) in world.rows.iter_mut().zip(&shards) {
            row.owner = row.owner.filter(|_| *owned);
            row.next = next.map(|next| host(next.index(cores.len())));
            world.until_ns.insert(row.shard, world.now_ns + 2 * LEASE_NS);
        }
        world
    })
}

impl std::fmt::Debug for World {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let hosts: Vec<_> = self.hosts.iter().map(|host| (host.beats, host.cores, host.workers.len())).collect();
        write!(f, "hosts {hosts:?}, drained {:?}, {:#?}", self.drained, self.rows)
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    /// From any state, with all workers turning in any order, every shard ends on a host that may have it, and every host with its
    /// share; then nothing is planned any more. A drained host has none. Without an eligible host nothing moves. No shard that
    /// has a home moves twice within the time that balance waits.
    #[test]
    fn everything_ends_where_it_should(mut world in any_world(), firsts in prop::collection::vec(0usize..8, 16)) {
        let before = world.rows.clone();
        let takes: Vec<bool> = (0..world.hosts.len()).map(|i| world.hosts[i].beats && !world.drained.contains(&host(i))).collect();
        for first in firsts.iter().cycle().take(320) {
            world.step(*first);
        }
        if takes.iter().any(|takes| *takes) {
            let cores: Vec<u32> = world.hosts.iter().map(|host| host.cores).collect();
            let has: Vec<usize> = (0..cores.len()).map(|i| world.has(i)).collect();
            prop_assert_eq!(has, expected(&cores, before.len(), &takes));
        } else {
            let homes = |rows: &[ShardRow]| rows.iter().map(|row| row.home.clone()).collect::<Vec<_>>();
            for (was, is) in homes(&before).into_iter().zip(homes(&world.rows)) {
                prop_assert!(was.is_none() || was == is, "{was:?} moved to {is:?} without an eligible host");
            }
        }
        prop_assert!(world.rests());
        let rested_ns = world.shortest_rest();
        prop_assert!(rested_ns >= ns(BALANCE_AFTER), "a shard moved twice in {} ms", rested_ns / 1_000_000);
    }

    /// While hosts come and go, no shard is handed over soon after it has moved.
    #[test]
    fn no_shard_is_handed_on_soon(changes in prop::collection::vec((0usize..4, 1usize..90), 1..24), cores in prop::collection::vec(1u32..5, 4)) {
        let mut world = World::new(&cores, 1, &[Some(0); 14]);
        for (i, steps) in changes {
            world.hosts[i].beats ^= true;
            (0..steps).for_each(|first| world.step(first));
        }
        let rested_ns = world.shortest_rest();
        prop_assert!(rested_ns >= ns(BALANCE_AFTER), "a shard was handed on after {} ms", rested_ns / 1_000_000);
    }

    /// A host that is away for less than the time that a home is waited for moves nothing, however often; nor does one that comes and
    /// goes before balance has waited.
    #[test]
    fn a_host_that_flaps_moves_nothing(has_shards in any::<bool>(), flaps in prop::collection::vec((1usize..3, 1usize..40), 1..16)) {
        let homes: Vec<Option<usize>> = (0..12).map(|i| Some(if has_shards { i % 3 } else { i % 2 })).collect();
        let mut world = World::new(&[2, 2, 2], 2, &homes);
        for (away, there) in flaps {
            world.hosts[2].beats = false;
            (0..away).for_each(|first| world.step(first));
            world.hosts[2].beats = true;
            (0..there).for_each(|first| world.step(first));
        }
        prop_assert_eq!(&world.moves, &[]);
    }

    /// Whatever one host computes from a table, all compute: each orphan has one taker, and the order of processes says nothing.
    #[test]
    fn equal_tables_give_equal_plans(world in any_world()) {
        let of = |i: usize| {
            let mut table = world.table(i, 0);
            if i % 2 == 1 {
                table.processes.reverse();
            }
            let mut memory = Memory::default();
            (plan_for(&mut memory, &table, STEP_NS), plan_for(&mut memory, &table, PATIENCE_NS))
        };
        let plans: Vec<(Plan, Plan)> = (0..world.hosts.len()).map(of).collect();
        let has_home = |shard: &&ShardId| world.rows[usize::from(shard.0)].home.is_some();
        let mut taken = BTreeSet::new();
        for (at_once, later) in &plans {
            prop_assert_eq!(&later.eligible, &plans[0].1.eligible);
            // What never had a home may be taken by any host by the time that lost homes are taken.
            let first = at_once.claim.iter().filter(|shard| !has_home(shard));
            for shard in first.chain(later.claim.iter().filter(has_home)) {
                prop_assert!(taken.insert(*shard), "{shard} has two takers");
            }
        }
        let is_orphan = |row: &&ShardRow| row.next.is_none() && !row.host().is_some_and(|home| world.beats(home));
        let first = world.table(0, 0);
        let orphans: BTreeSet<ShardId> = first.shards.iter().filter(is_orphan).map(|row| row.shard).collect();
        if !plans[0].1.eligible.is_empty() {
            prop_assert!(orphans.is_subset(&taken), "{orphans:?} need takers, {taken:?} have one");
        }
    }

    /// One host alone never does anything: it drains to nobody, and balances with nobody.
    #[test]
    fn one_host_alone_does_nothing(
        numbers in prop::collection::vec((any::<bool>(), any::<bool>()), 1..8), ready in any::<bool>(), drained in any::<bool>(),
        gateway in any::<bool>(), url in any::<bool>(), steps in 1usize..200,
    ) {
        let mut table = table(0, &[2], &vec![Some(0); numbers.len()]);
        for process in &mut table.processes {
            process.ready = ready || process.part == Part::Worker;
            process.url = if url { process.url.clone() } else { String::new() };
        }
        table.processes.retain(|process| gateway || process.part == Part::Worker);
        table.drained = drained.then(|| host(0)).into_iter().collect();
        for (row, (owned, named)) in table.shards.iter_mut().zip(numbers) {
            (row.owner, row.next) = (row.owner.filter(|_| owned), named.then(|| host(0)));
        }
        let plan = plan_for(&mut Memory::default(), &table, steps as u64 * STEP_NS);
        prop_assert_eq!((plan.claim, plan.name), (BTreeSet::new(), None));
    }
}

#[test]
fn shares_follow_the_cores_and_the_rest_goes_by_name() {
    let hosts = [host(0), host(1), host(2)];
    let of = |count: usize, cores: [u64; 3]| {
        let cores: Vec<(&HostId, u64)> = hosts.iter().zip(cores).collect();
        shares(count, &cores).into_values().collect::<Vec<_>>()
    };
    assert_eq!(of(16, [2, 2, 2]), [6, 5, 5]);
    assert_eq!(of(16, [8, 4, 4]), [8, 4, 4]);
    assert_eq!(of(17, [1, 1, 6]), [3, 2, 12]);
    assert_eq!(of(2, [1, 1, 1]), [1, 1, 0]);
    assert_eq!(shares(4, &[]), BTreeMap::new());
}

/// Many processes are no reason for a share: cores are.
#[test]
fn processes_are_not_counted() {
    let mut table = table(1, &[2, 2], &[None; 4]);
    table.processes.extend((0..6).map(|_| process(0, Part::Worker, 2)));
    assert_eq!(Memory::default().plan(0, &table).claim.len(), 2);
}

#[test]
fn a_lost_home_is_waited_for_and_then_taken_by_one_and_later_by_any() {
    let mut table = table(1, &[2, 2, 2], &[Some(0), Some(0), Some(1), Some(2)]);
    table.processes.retain(|process| process.host != host(0));
    let mut memory = Memory::default();
    assert_eq!(plan_for(&mut memory, &table, PATIENCE_NS - STEP_NS).claim, shards(&[]));
    assert_eq!(plan_for(&mut memory, &table, STEP_NS).claim, shards(&[0]));
    assert_eq!(plan_for(&mut memory, &table, LEASE_NS - STEP_NS).claim, shards(&[0]), "the other is for host 2");
    assert_eq!(plan_for(&mut memory, &table, STEP_NS).claim, shards(&[0, 1]), "which does not come");
    // Its gateway alone, or one that is not ready, is no home. A host without a gateway takes nothing.
    table.processes.push(process(0, Part::Gateway, 2));
    assert_eq!(plan_for(&mut memory, &table, STEP_NS).claim, shards(&[0, 1]));
    let worker = process(0, Part::Worker, 2);
    table.processes.push(worker);
    assert_eq!(plan_for(&mut memory, &table, STEP_NS).claim, shards(&[]));
    table.processes.iter_mut().filter(|process| process.host == host(0)).for_each(|process| process.ready = false);
    table.processes.retain(|process| process.host != host(1) || process.part == Part::Worker);
    assert_eq!(plan_for(&mut memory, &table, 10 * LEASE_NS).claim, shards(&[]));
}

/// Time in which the catalog did not answer does not count: all hosts look dead after it.
#[test]
fn time_without_answers_does_not_count() {
    let mut table = table(1, &[2, 2], &[Some(0), Some(1)]);
    let mut memory = Memory::default();
    memory.plan(0, &table);
    table.processes.retain(|process| process.host != host(0));
    assert_eq!(memory.plan(10 * LEASE_NS, &table).claim, shards(&[]));
    assert_eq!(memory.plan(20 * LEASE_NS, &table).claim, shards(&[]));
    assert_eq!(plan_for(&mut memory, &table, PATIENCE_NS - STEP_NS).claim, shards(&[]));
    assert_eq!(plan_for(&mut memory, &table, STEP_NS).claim, shards(&[0]));
}

/// The roles of a host start in any order: the first worker takes what never had a home, before any gateway is ready.
#[test]
fn what_never_had_a_home_waits_for_nobody() {
    let mut table = table(0, &[2, 2], &[None; 4]);
    table.processes.retain(|process| process.part == Part::Worker);
    assert_eq!(Memory::default().plan(0, &table).claim, shards(&[0, 2]));
    table.processes.retain(|process| process.host == host(0));
    assert_eq!(Memory::default().plan(0, &table).claim, shards(&[0, 1, 2, 3]));
}

#[test]
fn a_named_successor_takes_over_when_the_owner_has_let_go_and_nobody_else_does() {
    let mut table = table(1, &[2, 2, 2], &[Some(0)]);
    table.shards[0].next = Some(host(1));
    let mut memory = Memory::default();
    assert_eq!(plan_for(&mut memory, &table, LEASE_NS).claim, shards(&[]));
    table.shards[0].owner = None;
    assert_eq!(plan_for(&mut memory, &table, 0).claim, shards(&[0]));
    table.processes.retain(|process| process.host != host(0));
    table.me = host(2);
    assert_eq!(plan_for(&mut Memory::default(), &table, 10 * LEASE_NS).claim, shards(&[]));
}

#[test]
fn balance_waits_and_moves_the_quietest_shard_one_at_a_time() {
    let mut table = table(0, &[2, 2], &[Some(0), Some(0), Some(0), Some(0), Some(1)]);
    for (row, busy) in table.shards.iter_mut().zip([9, 7, 3, 5, 0]) {
        row.busy = busy;
    }
    let mut memory = Memory::default();
    assert_eq!(plan_for(&mut memory, &table, ns(BALANCE_AFTER) - STEP_NS).name, None, "not yet");
    assert_eq!(plan_for(&mut memory, &table, 2 * STEP_NS).name, Some((ShardId(2), host(1))), "it has 4, the other lacks one");
    assert_eq!(plan_for(&mut memory, &table, LEASE_NS).name, Some((ShardId(2), host(1))), "told until it is there");
    table.shards[2].owner = None;
    assert_eq!(plan_for(&mut memory, &table, LEASE_NS).name, None, "on its way");
    table.shards[2] = ShardRow { home: Some((6, host(1))), owner: Some(worker(1, 0)), ..table.shards[2].clone() };
    assert_eq!(plan_for(&mut memory, &table, 3 * ns(BALANCE_AFTER)).name, None, "balanced");
}

#[test]
fn what_interrupts_the_imbalance_makes_it_wait_anew() {
    let mut table = table(0, &[2, 2], &[Some(0), Some(0), Some(0), Some(0)]);
    let mut memory = Memory::default();
    plan_for(&mut memory, &table, ns(BALANCE_AFTER) - STEP_NS);
    table.shards[3].home = Some((6, host(1)));
    table.drained.insert(host(1));
    assert_eq!(plan_for(&mut memory, &table, STEP_NS).name, None, "a drain goes first");
    table.drained.clear();
    table.shards[3].home = Some((7, host(0)));
    assert_eq!(plan_for(&mut memory, &table, ns(BALANCE_AFTER) - STEP_NS).name, None);
    assert_eq!(plan_for(&mut memory, &table, 2 * STEP_NS).name, Some((ShardId(0), host(1))));
}

/// The host that has most too many hands over first.
#[test]
fn only_the_highest_host_hands_over() {
    let homes = [0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 2].map(Some);
    for (me, named) in [(0, Some((ShardId(0), host(2)))), (1, None), (2, None)] {
        assert_eq!(plan_for(&mut Memory::default(), &table(me, &[2, 2, 2], &homes), ns(BALANCE_AFTER)).name, named);
    }
}

/// Shards that have just moved are left where they are, even if they are the quietest.
#[test]
fn a_shard_that_has_moved_rests() {
    let mut table = table(0, &[2, 2], &[Some(0), Some(0), Some(0), Some(0)]);
    table.shards[1].busy = 9;
    table.shards[2].busy = 9;
    let mut memory = Memory::default();
    plan_for(&mut memory, &table, ns(BALANCE_AFTER) - STEP_NS);
    table.shards[0].home = Some((6, host(0)));
    table.shards[3].home = Some((6, host(0)));
    assert_eq!(plan_for(&mut memory, &table, STEP_NS).name, Some((ShardId(1), host(1))));
}

#[test]
fn the_owner_of_a_hosts_first_shard_names_for_all_its_workers() {
    let mut table = table(0, &[2, 2], &[Some(0), Some(0), Some(1)]);
    table.drained.insert(host(0));
    table.shards[0].owner = Some(worker(0, 1));
    assert_eq!(Memory::default().plan(0, &table).name, None);
    table.shards[0].owner = None;
    assert_eq!(Memory::default().plan(0, &table).name, Some((ShardId(1), host(1))));
    table.shards[0].next = Some(host(1));
    assert_eq!(Memory::default().plan(0, &table).name, None, "one at a time");
}

/// A successor that dies, or does not take over, ends the move; another is not begun at once.
#[test]
fn a_move_that_fails_ends_and_is_not_tried_at_once() {
    let mut table = table(0, &[2, 2], &[Some(0), Some(1)]);
    table.drained.insert(host(0));
    let named = Some((ShardId(0), host(1)));
    let mut memory = Memory::default();
    assert_eq!(plan_for(&mut memory, &table, ns(REHOME_WITHIN) - STEP_NS).name, named);
    assert_eq!(plan_for(&mut memory, &table, STEP_NS).name, None, "too late");
    assert_eq!(plan_for(&mut memory, &table, ns(BALANCE_AFTER) - STEP_NS).name, None);
    assert_eq!(plan_for(&mut memory, &table, STEP_NS).name, named);
    let gone = std::mem::take(&mut table.processes);
    assert_eq!(plan_for(&mut memory, &table, STEP_NS).name, None, "nobody is there");
    table.processes = gone;
    assert_eq!(plan_for(&mut memory, &table, STEP_NS).name, None);
    // Another worker of this host has claimed it while it was on its way.
    let mut memory = Memory::default();
    assert_eq!(plan_for(&mut memory, &table, 0).name, named);
    table.shards[0].owner = Some(worker(0, 1));
    assert_eq!(plan_for(&mut memory, &table, STEP_NS).name, None);
    table.shards[0].owner = Some(worker(0, 0));
    assert_eq!(plan_for(&mut memory, &table, STEP_NS).name, None, "it pauses");
}

/// Players cannot be sent to a host without a URL: it keeps what it has, and gets no more.
#[test]
fn a_host_without_a_url_gets_nothing_while_another_is_there() {
    let mut table = table(1, &[2, 2], &[Some(0), Some(0), Some(0), Some(0)]);
    table.processes.iter_mut().filter(|process| process.host == host(1)).for_each(|process| process.url.clear());
    let plan = plan_for(&mut Memory::default(), &table, 3 * ns(BALANCE_AFTER));
    assert_eq!(plan, Plan { eligible: [(host(0), "wss://0.example".to_owned())].into(), ..Plan::default() });
    table.processes.retain(|process| process.host == host(1));
    assert_eq!(plan_for(&mut Memory::default(), &table, REHOME_NS).claim.len(), 4, "alone it needs none");
}

/// A node that one host does not reach keeps that host from this node's shards, and from no others.
#[test]
fn who_does_not_reach_a_shards_node_is_no_home_of_it() {
    let mut table = table(1, &[2, 2], &[Some(0), Some(0), Some(1), Some(1)]);
    table.processes.iter_mut().find(|process| process.part == Part::Worker).expect("of host 0").lacks = shards(&[0, 2]);
    let mut memory = Memory::default();
    assert_eq!(plan_for(&mut memory, &table, REHOME_NS).claim, shards(&[0]));
    table.shards[0].home = Some((6, host(1)));
    (table.shards[0].owner, table.shards[3].busy) = (Some(worker(1, 0)), 9);
    assert_eq!(
        plan_for(&mut memory, &table, ns(BALANCE_AFTER) + STEP_NS).name,
        Some((ShardId(3), host(0))),
        "0 and 2 cannot go there"
    );
}

/// A node that nobody reaches is no failure of the homes: nothing moves while it is away, nor to whoever reaches it first when it is back.
#[test]
fn a_node_that_is_away_for_all_moves_nothing() {
    let mut table = table(1, &[2, 2], &[Some(0), Some(1)]);
    let mut memory = Memory::default();
    assert_eq!(plan_for(&mut memory, &table, STEP_NS).claim, shards(&[]));
    table.processes.iter_mut().for_each(|process| process.lacks = shards(&[0]));
    assert_eq!(plan_for(&mut memory, &table, 9 * REHOME_NS).claim, shards(&[]));
    table.processes.iter_mut().filter(|process| process.host == host(1)).for_each(|process| process.lacks.clear());
    assert_eq!(plan_for(&mut memory, &table, PATIENCE_NS - STEP_NS).claim, shards(&[]), "its home may be there in a moment");
    assert_eq!(plan_for(&mut memory, &table, REHOME_NS).claim, shards(&[0]), "it is not");
    // A home that does not beat is gone, whoever reaches the node.
    let mut memory = Memory::default();
    table.processes.retain(|process| process.host == host(1));
    table.processes.iter_mut().for_each(|process| process.lacks = shards(&[0]));
    plan_for(&mut memory, &table, REHOME_NS);
    table.processes.iter_mut().for_each(|process| process.lacks.clear());
    assert_eq!(plan_for(&mut memory, &table, STEP_NS).claim, shards(&[0]), "it has been away all that time");
}

#[test]
fn a_shard_is_moved_where_somebody_asks() {
    let mut table = table(0, &[2, 2, 2, 2], &[Some(0), Some(0), Some(1), Some(2)]);
    table.drained.insert(host(2));
    table.processes.retain(|process| process.host != host(3));
    let mut memory = Memory::default();
    let mut ask = |shard: u16, to: usize| memory.ask(0, &table, ShardId(shard), &host(to)).map_err(|error| error.to_string());
    assert_eq!(ask(2, 0), Err("shard 2 is not owned by this worker: ask its owner".to_owned()));
    assert_eq!(ask(1, 0), Err("shard 1 is at home on host-0 already".to_owned()));
    assert_eq!(ask(1, 2), Err("host-2 is drained: `lasthit undrain host-2` first".to_owned()));
    let error = ask(1, 3).expect_err("gone");
    assert!(error.starts_with("host-3 is not eligible for shard 1: it needs a worker and a ready gateway"), "{error}");
    assert_eq!(ask(1, 1), Ok(()));
    assert_eq!(ask(0, 1), Err("shard 1 is moving to host-1: wait until it is there".to_owned()));
    assert_eq!(memory.plan(1, &table).name, Some((ShardId(1), host(1))));
}
