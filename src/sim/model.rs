//! A model of watermark, membership and fencing, checked exhaustively within its bounds: two gateways, one room, a handful of
//! events, a death, a handover. It calls the functions that ship ([`Store`] and [`Resequencer`]); its state is what happened,
//! and every property looks at what follows from that.

use bytes::Bytes;
use stateright::{Checker, Model, Property};

use crate::engine::{Held, Resequencer};
use crate::journal::memory::Store;
use crate::journal::{Appended, Flush, FlushEntry, Homing, Lease, Leased, Seen};
use crate::types::{Arrival, Entry, Event, EventKind, Flags, Incarnation, Moment, PlayerId, Role, RoomId, ShardId, StreamId};
use crate::wire::entry;

const SHARD: ShardId = ShardId(0);
/// Every step of the model is this long.
const STEP_NS: u64 = 10;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Step {
    /// Something arrives at a gateway: its Open, which is appended at once, then Data.
    Arrive(usize),
    /// The gateway appends everything that has arrived, and promises up to now.
    Flush(usize),
    /// The worker hears the next bell.
    Hear,
    /// The worker fences a gateway that it waits for, and writes its death.
    Fence(usize),
    WriteDeath(usize),
    /// Another worker takes over: it surveys, and reads the room to its tail.
    TakeOver,
}

/// What may be, and how much of it.
#[derive(Clone)]
struct Sequencer {
    /// Events per gateway at most, its Open included.
    events: u64,
    steps: usize,
    /// Fence and takeover; without them every gateway lives.
    deaths: bool,
}

#[derive(Default, Clone)]
struct ModelGateway {
    pending: Vec<Event>,
    opened: bool,
    floor_ns: u64,
    ordinal: u64,
    flushes: u64,
    watermark: Moment,
    fenced: bool,
}

/// Everything that follows from a history.
struct World {
    now_ns: u64,
    store: Store,
    lease: Lease,
    gateways: [ModelGateway; 2],
    bells: Vec<crate::journal::Bell>,
    heard: usize,
    hold: Resequencer,
    marks: Vec<(Incarnation, u64, Moment)>,
    watermarks: [Moment; 2],
    fenced: [bool; 2],
    position: StreamId,
    released: Vec<Held>,
    /// The first thing that was wrong.
    wrong: Option<&'static str>,
}

fn incarnation(gateway: usize) -> Incarnation {
    Incarnation(gateway as u128 + 1)
}

fn room() -> RoomId {
    RoomId::new("pit").expect("a name")
}

impl World {
    fn new() -> Self {
        let mut store = Store::at_home(1);
        let Ok(Leased::Done(lease)) = store.claim(SHARD, None, Incarnation(100), (0, 0), &Homing::default()) else {
            unreachable!("nobody else")
        };
        for gateway in 0..2 {
            store.register(SHARD, incarnation(gateway), Seen::default(), &[]).expect("a shard");
        }
        Self {
            now_ns: STEP_NS,
            store,
            lease,
            gateways: [ModelGateway::default(), ModelGateway::default()],
            bells: Vec::new(),
            heard: 0,
            hold: Resequencer::default(),
            marks: Vec::new(),
            watermarks: [Moment::default(); 2],
            fenced: [false; 2],
            position: StreamId::default(),
            released: Vec::new(),
            wrong: None,
        }
    }

    fn of(steps: &[Step]) -> Self {
        let mut world = Self::new();
        steps.iter().for_each(|step| world.step(*step));
        world
    }

    fn moment(ns: u64) -> Moment {
        Moment { timeline: 1, ns }
    }

    fn step(&mut self, step: Step) {
        self.now_ns += STEP_NS;
        match step {
            Step::Arrive(g) => self.arrive(g),
            Step::Flush(g) => self.flush(g),
            Step::Hear => {
                let bell = self.bells[self.heard].clone();
                self.heard += 1;
                let g = (bell.incarnation.0 - 1) as usize;
                self.watermarks[g] = self.watermarks[g].max(bell.watermark);
                for (_, at, bytes) in &bell.entries {
                    self.read(*at, bytes);
                }
            }
            Step::Fence(g) => {
                self.store.fence(SHARD, self.lease, incarnation(g)).expect("a shard");
                self.fenced[g] = true;
            }
            Step::WriteDeath(g) => {
                let now = Self::moment(self.now_ns);
                if let Some(entry) = self.hold.death_entry(incarnation(g), now) {
                    let entry = FlushEntry { room: room(), top: entry.top(), bytes: entry::encode(&entry) };
                    let (_, bell) = self.store.death(SHARD, self.lease, incarnation(g), &entry, 1).expect("it is fenced");
                    self.bells.extend(bell);
                }
            }
            Step::TakeOver => {
                let Ok(Leased::Done(lease)) =
                    self.store.claim(SHARD, Some(self.lease), Incarnation(101), (0, 0), &Homing::default())
                else {
                    unreachable!("the lease is known")
                };
                self.lease = lease;
                let survey = self.store.survey(SHARD, false).expect("a shard");
                for record in survey.gateways {
                    let g = (record.incarnation.0 - 1) as usize;
                    (self.watermarks[g], self.fenced[g]) = (record.watermark, record.fenced);
                }
                // What was released counts as committed; who is inside, as far as it was resolved, comes with it.
                let mut inside = std::collections::BTreeSet::new();
                for held in &self.released {
                    match held.kind {
                        Some(EventKind::Open { .. }) => inside.insert(held.session),
                        Some(EventKind::Close) => inside.remove(&held.session),
                        _ => false,
                    };
                }
                self.hold = Resequencer::resume(inside.into_iter(), self.marks.iter().copied(), &[]);
                self.position = StreamId::default();
                self.heard = self.bells.len();
                for (at, bytes) in self.store.read(&room(), StreamId::default()) {
                    self.read(at, &bytes);
                }
            }
        }
        self.release();
    }

    fn arrive(&mut self, g: usize) {
        let now_ns = self.now_ns;
        let gateway = &mut self.gateways[g];
        gateway.ordinal += 1;
        let open = EventKind::Open { player: PlayerId::new("ann").expect("a name"), role: Role::Player };
        let kind = if gateway.ordinal == 1 { open } else { EventKind::Data(Bytes::new()) };
        let arrival = Arrival::at(now_ns, 0).clamped_to(gateway.floor_ns.max(gateway.watermark.ns + 1));
        gateway.pending.push(Event { session: 1, ordinal: gateway.ordinal, arrival, kind });
        if gateway.ordinal == 1 {
            self.flush(g);
        }
    }

    fn flush(&mut self, g: usize) {
        let gateway = &mut self.gateways[g];
        let events = std::mem::take(&mut gateway.pending);
        let opens = events.first().is_some_and(|e| matches!(e.kind, EventKind::Open { .. }));
        let entry = Entry { incarnation: incarnation(g), timeline: 1, death: false, events };
        let entries = if entry.events.is_empty() {
            Vec::new()
        } else {
            vec![FlushEntry { room: room(), top: entry.top(), bytes: entry::encode(&entry) }]
        };
        let watermark = entry.top().max(Self::moment(self.now_ns));
        let number = gateway.flushes + 1;
        let (server, incarnation) = (self.store.server(), incarnation(g));
        let flush = Flush { shard: SHARD, server, incarnation, number, previous: gateway.watermark, watermark, entries };
        let (answer, bell) = self.store.append(&flush, crate::types::Seed(1), 1).expect("a flush that is right");
        match answer {
            Appended::Stored(heads) => {
                if self.fenced[g] {
                    self.wrong = Some("a fenced gateway has appended");
                }
                (gateway.flushes, gateway.watermark) = (number, watermark);
                gateway.opened |= opens;
                if opens {
                    // Rule S7: above the acknowledgement, and above everything in the room.
                    gateway.floor_ns = (self.now_ns + 1).max(heads[0].top.ns + 1);
                }
                self.bells.extend(bell);
            }
            Appended::Fenced => gateway.fenced = true,
            Appended::Gap { .. } | Appended::Refused(_) | Appended::Full(_) | Appended::Elsewhere(_) | Appended::Moved => {
                self.wrong = Some("a gap in the flushes")
            }
        }
    }

    fn read(&mut self, at: StreamId, bytes: &Bytes) {
        if at <= self.position {
            return;
        }
        self.position = at;
        let entry = entry::decode(bytes).expect("an entry");
        let watermark = self.watermarks[(entry.incarnation.0 - 1) as usize];
        self.hold.read(at, &entry, watermark, 0);
    }

    fn release(&mut self) {
        let watermarks = self.watermarks;
        let released = self.hold.release(usize::MAX, |g| watermarks[(g.0 - 1) as usize]);
        for held in released {
            let ordered = |held: &Held| matches!(held.kind, Some(EventKind::Data(_)));
            let last = self.released.iter().rev().find(|held| ordered(held));
            if ordered(&held) && last.is_some_and(|last| last.stamp > held.stamp) {
                self.wrong = Some("released out of order");
            }
            let name = (held.stamp.incarnation, held.stamp.ordinal);
            if self.released.iter().any(|h| (h.stamp.incarnation, h.stamp.ordinal) == name) {
                self.wrong = Some("released twice");
            }
            self.marks.retain(|(incarnation, ..)| *incarnation != held.stamp.incarnation);
            self.marks.push((held.stamp.incarnation, held.stamp.ordinal, held.stamp.moment));
            self.released.push(held);
        }
    }

    /// Whether what a dead gateway took along may have beaten something that is not flagged (rule R7).
    fn hides_what_was_lost(&self) -> bool {
        let died = |g: usize| self.fenced[g] && self.hold.sessions_of(incarnation(g)).next().is_none();
        (0..2).filter(|g| died(*g) && self.gateways[*g].opened).any(|g| {
            let watermark = self.gateways[g].watermark;
            self.gateways[g].pending.iter().any(|lost| {
                let lost = Self::moment(lost.arrival.ns).max(watermark);
                let until = self.death_of(g);
                let beaten =
                    |h: &&Held| h.stamp.incarnation != incarnation(g) && h.stamp.moment > lost && h.stamp.moment <= until;
                let data = |h: &&Held| matches!(h.kind, Some(EventKind::Data(_)));
                self.released.iter().filter(data).filter(beaten).any(|h| !h.arrival.flags.has(Flags::UNPROVEN))
            })
        })
    }

    fn death_of(&self, g: usize) -> Moment {
        let entries = self.store.read(&room(), StreamId::default());
        let mut death = entries.iter().map(|(_, bytes)| entry::decode(bytes).expect("an entry"));
        let death = death.rfind(|e| e.death && e.incarnation == incarnation(g));
        death.and_then(|e| e.events[0].arrival.raw_ns).map_or(Moment::default(), Self::moment)
    }
}

impl Model for Sequencer {
    type State = Vec<Step>;
    type Action = Step;

    fn init_states(&self) -> Vec<Self::State> {
        vec![Vec::new()]
    }

    fn actions(&self, state: &Self::State, actions: &mut Vec<Step>) {
        if state.len() >= self.steps {
            return;
        }
        let world = World::of(state);
        for g in 0..2 {
            let gateway = &world.gateways[g];
            let may_arrive = gateway.ordinal == 0 || gateway.opened;
            if may_arrive && gateway.ordinal < self.events && !gateway.fenced {
                actions.push(Step::Arrive(g));
            }
            let news = !gateway.pending.is_empty()
                || world.hold.waits_for(None, |w| world.watermarks[(w.0 - 1) as usize]).iter().any(|(w, _)| *w == incarnation(g))
                // Asked with the other's append, whether or not anything waits.
                || gateway.opened && world.gateways[1 - g].watermark > gateway.watermark;
            if news && !gateway.fenced {
                actions.push(Step::Flush(g));
            }
            if self.deaths && g == 0 && gateway.opened && !world.fenced[g] {
                actions.push(Step::Fence(g));
            }
            if world.fenced[g]
                && world.hold.sessions_of(incarnation(g)).next().is_some()
                && state.last() != Some(&Step::WriteDeath(g))
            {
                actions.push(Step::WriteDeath(g));
            }
        }
        if world.heard < world.bells.len() {
            actions.push(Step::Hear);
        }
        if self.deaths && !state.contains(&Step::TakeOver) {
            actions.push(Step::TakeOver);
        }
    }

    fn next_state(&self, state: &Self::State, step: Step) -> Option<Self::State> {
        let mut next = state.clone();
        next.push(step);
        Some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("in order, once, and nothing of a fenced gateway", |_, state: &Vec<Step>| {
                World::of(state).wrong.is_none()
            }),
            Property::always("what may have been beaten says so", |_, state: &Vec<Step>| !World::of(state).hides_what_was_lost()),
            Property::sometimes("it gets that far", |model: &Self, state: &Vec<Step>| {
                let world = World::of(state);
                let data = |g: usize| world.released.iter().any(|h| h.stamp.incarnation == incarnation(g) && h.stamp.ordinal > 1);
                let unproven = || world.released.iter().any(|h| h.arrival.flags.has(Flags::UNPROVEN));
                if model.deaths { state.contains(&Step::TakeOver) && unproven() } else { data(0) && data(1) }
            }),
        ]
    }
}

fn check(model: Sequencer) {
    let checker = model.checker().threads(2).spawn_bfs().join();
    println!("{} states", checker.unique_state_count());
    checker.assert_properties();
}

#[test]
fn two_gateways_in_every_interleaving() {
    check(Sequencer { events: 3, steps: 10, deaths: false });
}

#[test]
fn a_death_and_a_handover_in_every_interleaving() {
    check(Sequencer { events: 2, steps: 9, deaths: true });
}
