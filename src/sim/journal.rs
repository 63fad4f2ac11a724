//! The journal between the processes: requests travel, execute at one moment, and their answers travel back; or not.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;

use super::timers;
use super::world::{Channel, Happening, Kind, Listening, MS, Pid, World};
use crate::gateway::step::ReadId;
use crate::journal::{
    AheadPart, Appended, Beats, Bell, Commit, Committed, Flush, FlushEntry, GatewayRecord, Homed, Homing, JournalError, Lease,
    Leased, PageSize, Place, Registered, RoomCommit, RoomHead, RoomsPage, RoomsPlace, Seen, ShardHome, ShardOwner, StoredPage,
    Successor, Survey, VerdictPage, Witness, WorkerRecord,
};
use crate::limits::HEADS_INTERVAL;
use crate::types::{HostId, Incarnation, RoomId, Seed, ShardId, StreamId};
use crate::wire::verdicts;
use crate::worker::step::{Failure, Input, Scope};

/// What every room's seed is made of, beside its name.
pub(super) const SEED: Seed = Seed(0x5eed);

/// How long a worker's heartbeat is good for.
pub(super) const LEASE_MS: u64 = 80;

pub(super) enum Call {
    Register { shard: ShardId, gateway: Incarnation, seen: Seen, rooms: Vec<RoomId> },
    Leave(ShardId, Incarnation),
    Append { flush: Arc<Flush>, sent: Cell<u32> },
    Verdicts { room: RoomId, after: u64, entries_max: usize, read: ReadId },
    Heads(ShardId, Vec<RoomId>),
    Home(ShardId),
    Beat { good_for_ms: u64 },
    Heartbeat(Incarnation, Vec<ShardId>),
    Owners,
    Claim { shard: ShardId, from: Option<Lease>, worker: Incarnation, homing: Homing },
    Name { shard: ShardId, lease: Lease, to: Option<Successor> },
    Release { shard: ShardId, lease: Lease },
    Survey { shard: ShardId, rooms: bool },
    Rooms { shard: ShardId, place: RoomsPlace, count: usize },
    Load { shard: ShardId, room: RoomId, token: u64, place: Place },
    Read { shard: ShardId, room: RoomId, token: u64, after: StreamId },
    WriteAhead { shard: ShardId, lease: Lease, room: RoomId, part: AheadPart },
    Commit(Arc<Commit>),
    Publish(ShardId, Incarnation, Bytes),
    Testify { shard: ShardId, witness: Witness },
    Fence { shard: ShardId, lease: Lease, gateway: Incarnation },
    Death { shard: ShardId, lease: Lease, token: u64, gateway: Incarnation, entry: FlushEntry },
    EndRoom { shard: ShardId, lease: Lease, room: RoomId, token: u64, seq: u64 },
    Forget { shard: ShardId, lease: Lease, gateways: Vec<Incarnation> },
    Attempt { shard: ShardId, lease: Lease, room: RoomId, token: u64, name: u64 },
}

pub(super) enum Answer {
    Registered(Homed<Registered>),
    Appended(Appended),
    Page(VerdictPage),
    Heads(Incarnation, Vec<RoomHead>),
    Home(ShardHome),
    Beats(Beats),
    Alive(Vec<WorkerRecord>, Beats),
    Owners(Vec<ShardOwner>),
    Claimed(Leased<Lease>),
    Named(Leased<()>),
    Survey(Survey),
    Rooms(RoomsPage),
    Stored(StoredPage),
    WrittenAhead(Leased<()>),
    Committed(Committed),
    Testified(u64),
    Fenced(Leased<GatewayRecord>),
    Death(Leased<()>),
    RoomEnded(Leased<bool>),
    Forgotten(Leased<()>),
    Published(u64),
    Attempted(Leased<u32>),
    /// Only this room's keys are not what was written there.
    Damaged(RoomId, String),
    Nothing,
}

impl Call {
    /// The one room that it is about.
    fn room(&self) -> Option<&RoomId> {
        match self {
            Self::Verdicts { room, .. } | Self::Load { room, .. } | Self::Read { room, .. } => Some(room),
            Self::Attempt { room, .. } | Self::EndRoom { room, .. } | Self::WriteAhead { room, .. } => Some(room),
            Self::Death { entry, .. } => Some(&entry.room),
            _ => None,
        }
    }
}

impl World {
    pub(super) fn call(&mut self, by: Pid, call: Call) {
        self.send(by, Rc::new(call));
    }

    /// Sends a request; its answer, or the request itself, may be lost, and it may execute after its sender gave up.
    pub(super) fn send(&mut self, by: Pid, call: Rc<Call>) {
        if let Call::Append { sent, .. } = &*call {
            sent.set(sent.get() + 1);
        }
        let (delay, connection, host) = (self.delay(), self.connection, self.host(by.index).name);
        if self.chance(self.options.lost_per_mille) {
            let executes = self.below(3) > 0;
            let patience = 3 * MS + self.below(20 * MS);
            self.after(patience, Some(by), Happening::Unanswered(call.clone()));
            if executes {
                let late = self.below(30 * MS);
                self.after(late, None, Happening::Execute { host, by, call, connection, answered: false });
            }
            self.ledger.count("answers lost");
            return;
        }
        self.after(delay, None, Happening::Execute { host, by, call, connection, answered: true });
    }

    pub(super) fn execute(&mut self, host: u32, by: Pid, call: &Rc<Call>, connection: u64, answered: bool) {
        if self.journal_away_until > self.now {
            // It stands still; what was sent waits there, and comes in any order.
            let at = self.journal_away_until + self.below(MS);
            self.at(at, None, Happening::Execute { host, by, call: call.clone(), connection, answered });
            return;
        }
        if self.cut_off_for(by) > 0 {
            if answered {
                let patience = 3 * MS + self.below(20 * MS);
                self.after(patience, Some(by), Happening::Unanswered(call.clone()));
            }
            return;
        }
        if connection != self.connection {
            // It broke with the server that it led to.
            if answered {
                let delay = self.delay();
                self.after(delay, Some(by), Happening::Unanswered(call.clone()));
            }
            return;
        }
        self.store.by(&HostId::new(&format!("boot-{host}")).expect("a name"));
        let answer = self.damage(call).map_or_else(|| self.step(host, by, call), Ok);
        if !answered {
            return;
        }
        let delay = self.delay();
        match answer {
            Ok(answer) => self.after(delay, Some(by), Happening::Answered { call: call.clone(), answer }),
            Err(error) => {
                self.trace(|| format!("journal: {error}"));
                self.ledger.count("refused by the journal");
                self.after(5 * MS, Some(by), Happening::Unanswered(call.clone()));
            }
        }
    }

    /// What a step answers because rooms are spoiled, as Redis does where a key has another type; None when it goes on.
    fn damage(&mut self, call: &Call) -> Option<Answer> {
        if self.spoiled.is_empty() {
            return None;
        }
        if let Some(room) = call.room().filter(|room| self.spoiled.contains(*room)) {
            self.ledger.count("steps on spoiled rooms");
            return Some(Answer::Damaged(room.clone(), JournalError::Damaged(format!("room {room}")).to_string()));
        }
        // What would be written first shows whether it is written at all.
        match call {
            Call::Append { flush, .. } => {
                let bad = |entry: &FlushEntry| self.spoiled.contains(&entry.room).then(|| entry.room.clone());
                let bad: Vec<RoomId> = flush.entries.iter().filter_map(bad).collect();
                let new = !bad.is_empty()
                    && self.store.clone().append(flush, Seed(1), self.now / MS).is_ok_and(|(_, bell)| bell.is_some());
                new.then(|| Answer::Appended(Appended::Refused(bad)))
            }
            Call::Commit(commit) => {
                let bad = |part: &RoomCommit| self.spoiled.contains(&part.room).then(|| part.room.clone());
                let bad: Vec<RoomId> = commit.rooms.iter().filter_map(bad).collect();
                let before = self.store.survey(commit.shard, false).expect("a shard").commit;
                let good = |answer: &Committed| *answer != Committed::Fenced && commit.number > before;
                let new = !bad.is_empty() && self.store.clone().commit(commit).is_ok_and(|(answer, _)| good(&answer));
                new.then(|| Answer::Committed(Committed::Refused(bad)))
            }
            _ => None,
        }
    }

    fn step(&mut self, host: u32, by: Pid, call: &Call) -> Result<Answer, JournalError> {
        let now_ms = self.now / MS;
        Ok(match call {
            Call::Register { shard, gateway, seen, rooms } => {
                let before = self.store.survey(*shard, true)?.rooms;
                let (answer, bell) = self.store.register(*shard, *gateway, *seen, rooms)?;
                self.trace(|| format!("register {gateway:?} in {shard:?} with {seen:?}: {answer:?}"));
                self.note_eras(*shard, &before, true)?;
                if let Homed::Here(registered) = &answer {
                    self.registered_at_home(*shard, *gateway, registered.home, host);
                }
                self.ring(bell);
                Answer::Registered(answer)
            }
            Call::Leave(shard, gateway) => {
                self.store.leave(*shard, *gateway)?;
                self.ledger.count("registrations taken back");
                Answer::Nothing
            }
            Call::Append { flush, .. } => {
                let (answer, bell) = self.store.append(flush, SEED, now_ms)?;
                self.trace(|| {
                    format!(
                        "append {:?} {} of {:?} up to {} ms: {}",
                        flush.shard,
                        flush.number,
                        flush.incarnation,
                        flush.watermark.ns as f64 / MS as f64,
                        if bell.is_some() { "new" } else { "not new" }
                    )
                });
                if bell.is_some() {
                    self.appended_at_home(flush, host);
                    self.flushed(flush);
                }
                for gateway in bell.iter().flat_map(|bell| &bell.poked) {
                    self.ledger.count("pokes");
                    self.publish(*gateway, &flush.poke());
                }
                self.ring(bell);
                Answer::Appended(answer)
            }
            Call::Verdicts { room, after, entries_max, read } => {
                let page = self.store.verdicts(room, *after, *entries_max);
                self.trace(|| format!("page of {room}.{} after {after}, {} batches, for {read:?}", page.era, page.batches.len()));
                Answer::Page(page)
            }
            Call::Home(shard) => Answer::Home(self.store.home_of(*shard, now_ms)?),
            Call::Heads(shard, rooms) => Answer::Heads(self.store.server(), self.store.heads(*shard, rooms)?),
            Call::Beat { good_for_ms } => Answer::Beats(self.store.beat(&self.record(by, host), *good_for_ms, now_ms)),
            Call::Heartbeat(worker, owned) => {
                let beats = self.store.beat(&self.record(by, host), LEASE_MS, now_ms);
                Answer::Alive(self.store.heartbeat(*worker, owned, LEASE_MS, now_ms), beats)
            }
            Call::Owners => Answer::Owners(self.store.owners(now_ms)),
            Call::Name { shard, lease, to } => {
                let answer = self.store.name(*shard, *lease, to.as_ref(), now_ms + LEASE_MS)?;
                self.trace(|| format!("name of {shard:?}: {to:?}: {answer:?}"));
                if matches!(answer, Leased::Done(())) {
                    self.named(*shard, to.as_ref());
                }
                Answer::Named(answer)
            }
            Call::Claim { shard, from, worker, homing } => {
                let wall_ms = self.host(by.index).wall(self.now) / MS;
                let answer = self.store.claim(*shard, *from, *worker, (wall_ms, now_ms), homing)?;
                self.trace(|| format!("claim of {shard:?} by {worker:?} from {from:?}: {answer:?}"));
                if let Leased::Done(lease) = &answer {
                    self.claimed(*shard, *lease, host);
                    // On another server every lease has ended.
                    let same = self.ledger.claims.insert(*shard, self.store.server()) == Some(self.store.server());
                    if same && from.is_some_and(|lease| lease.owner != *worker) {
                        self.ledger.count("claims from the dead");
                        timers::owner_died(self, *shard, wall_ms);
                    }
                }
                Answer::Claimed(answer)
            }
            Call::Release { shard, lease } => {
                self.store.release(*shard, *lease)?;
                Answer::Nothing
            }
            Call::Survey { shard, rooms } => {
                self.trace(|| format!("survey of {shard:?}"));
                Answer::Survey(self.store.survey_paged(*shard, *rooms, self.options.bounds.survey_rooms)?)
            }
            Call::Rooms { shard, place, count } => {
                let page = self.store.rooms(*shard, place, *count)?;
                self.trace(|| format!("rooms of {shard:?} from {place:?} to {:?}", page.next));
                self.ledger.reached.insert("survey_rooms");
                self.ledger.count("surveys in pages");
                Answer::Rooms(page)
            }
            Call::Load { room, place, .. } => Answer::Stored(self.page(room, *place)),
            Call::Read { room, after, .. } => Answer::Stored(self.page(room, Place::Entries(*after))),
            Call::WriteAhead { shard, lease, room, part } => {
                let answer = self.store.write_ahead(*shard, *lease, room, part)?;
                self.trace(|| format!("write ahead {room}, {:?} part {}: {answer:?}", part.name, part.index));
                self.ledger.reached.insert("snapshot_part_bytes");
                self.ledger.count("parts of snapshots");
                Answer::WrittenAhead(answer)
            }
            Call::Commit(commit) => Answer::Committed(self.commit(commit)?),
            Call::Publish(_, gateway, push) => Answer::Published(self.publish(*gateway, push)),
            Call::Testify { shard, witness } => {
                let before = self.store.survey(*shard, true)?.rooms;
                let answer = self.store.testify(*shard, *witness)?;
                self.trace(|| format!("testify of {shard:?}: {witness:?}: {answer:?}"));
                self.note_eras(*shard, &before, *witness != Witness::NONE)?;
                Answer::Testified(answer)
            }
            Call::Fence { shard, lease, gateway } => {
                let answer = self.store.fence(*shard, *lease, *gateway)?;
                if matches!(answer, Leased::Done(_)) {
                    self.trace(|| format!("fence {gateway:?} in {shard:?}"));
                    self.ledger.count("fences");
                }
                Answer::Fenced(answer)
            }
            Call::Death { shard, lease, gateway, entry, .. } => {
                let (answer, bell) = self.store.death(*shard, *lease, *gateway, entry, now_ms)?;
                self.trace(|| format!("death of {gateway:?} in {}: {answer:?}", entry.room));
                if bell.is_some() {
                    self.death_written(*shard, &entry.room, *gateway);
                }
                self.ring(bell);
                Answer::Death(answer)
            }
            Call::Attempt { shard, lease, room, name, .. } => {
                let answer = self.store.attempt(*shard, *lease, room, *name)?;
                self.trace(|| format!("attempt at the next event of {room}: {answer:?}"));
                self.ledger.count("resolved alone");
                Answer::Attempted(answer)
            }
            Call::Forget { shard, lease, gateways } => {
                let known = self.store.survey(*shard, false)?.gateways;
                let answer = self.store.forget(*shard, *lease, gateways)?;
                self.trace(|| format!("forget {gateways:?} in {shard:?}: {answer:?}"));
                if matches!(answer, Leased::Done(())) {
                    for gateway in known.into_iter().filter(|known| known.fenced && gateways.contains(&known.incarnation)) {
                        self.ledger.reached.insert("forget_ns");
                        self.ledger.reached.insert("check_interval_ns");
                        self.ledger.count("gateways forgotten");
                        let known = self.ledger.forgotten.entry((*shard, gateway.incarnation)).or_default();
                        *known = gateway.watermark.ns.max(*known);
                    }
                }
                Answer::Forgotten(answer)
            }
            Call::EndRoom { shard, lease, room, seq, .. } => {
                let answer = self.store.end_room(*shard, *lease, room, *seq)?;
                self.trace(|| format!("end room {room} at {seq}: {answer:?}"));
                Answer::RoomEnded(answer)
            }
        })
    }

    fn page(&mut self, room: &RoomId, place: Place) -> StoredPage {
        let page = self.store.load(room, place, PageSize::of(&self.options.bounds));
        self.trace(|| format!("load {room} from {place:?} to {:?}", page.next));
        if page.next.is_some() {
            let parts = page.snapshot.len() + page.verdicts.len() + page.entries.len();
            let full = parts >= self.options.bounds.page_entries_max;
            self.ledger.reached.insert(if full { "page_entries_max" } else { "page_bytes" });
            self.ledger.count("rooms in pages");
        }
        page
    }

    /// Rooms that went on in another era. `shown`: because somebody has shown that something is missing.
    fn note_eras(&mut self, shard: ShardId, before: &[RoomHead], shown: bool) -> Result<(), JournalError> {
        for (old, new) in before.iter().zip(self.store.survey(shard, true)?.rooms) {
            if old.era != new.era {
                assert!(
                    !shown || self.ledger.losses > 0,
                    "needless era: {} goes on in {} and nothing was lost",
                    old.room,
                    new.era
                );
                self.ledger.renewed(&old.room, old.era, new.era);
            }
        }
        Ok(())
    }

    fn commit(&mut self, commit: &Commit) -> Result<Committed, JournalError> {
        let before = self.store.survey(commit.shard, false)?.commit;
        let (answer, pushes) = self.store.commit(commit)?;
        let pushes = pushes.to_vec();
        if answer == Committed::Done && self.store.survey(commit.shard, false)?.commit > before {
            self.ledger.committed(commit);
            self.resolved(commit);
            for part in &commit.rooms {
                self.note_history(part);
                self.trace(|| format!("commit {} of {}.{}: {} to {}", commit.number, part.room, part.era, part.from, part.to));
            }
        } else if answer != Committed::Done {
            self.trace(|| format!("commit {} of {:?}: {answer:?}", commit.number, commit.lease));
            self.ledger.count("commits fenced or refused");
        }
        for (gateway, push) in &pushes {
            self.publish(*gateway, push);
        }
        Ok(answer)
    }

    /// What the journal still keeps of a room's history, after a commit.
    fn note_history(&mut self, part: &RoomCommit) {
        let kept = self.store.verdicts(&part.room, 0, 1).batches;
        let first = kept.first().map(|batch| verdicts::decode(batch).expect("a stored batch").verdicts[0].seq);
        self.ledger.kept(part, first.map_or(0, |seq| seq - 1), self.options.retention_ms);
    }

    fn ring(&mut self, bell: Option<Bell>) {
        let Some(bell) = bell else { return };
        let (store, shard) = (&mut self.store, bell.shard);
        let eras: Vec<(RoomId, u64)> = bell
            .entries
            .iter()
            .map(|(room, ..)| (room.clone(), store.heads(shard, std::slice::from_ref(room)).expect("a head")[0].era))
            .collect();
        self.ledger.appended(&bell, |room| eras.iter().find(|(r, _)| r == room).map_or(0, |(_, era)| *era));
        let listeners: Vec<(usize, Pid, u64)> = (self.bells.iter())
            .filter(|((_, of), s)| *of == shard && s.connected)
            .map(|((worker, _), s)| (*worker, s.pid, s.generation))
            .collect();
        for (worker, pid, generation) in listeners {
            let happening = Happening::Bell { shard, generation, bell: Some(bell.clone()) };
            self.along(Channel::Bells(worker, shard), Some(pid), happening);
        }
    }

    /// Tells how many listen.
    pub(super) fn publish(&mut self, to: Incarnation, push: &Bytes) -> u64 {
        let to = to.process();
        let Some(s) = self.pushes.get(&to).filter(|s| s.connected) else { return 0 };
        let (pid, generation) = (s.pid, s.generation);
        let push = Some(push.clone());
        self.along(Channel::Pushes(to), Some(pid), Happening::Push { incarnation: to, generation, push });
        1
    }

    /// A subscription is in place (again).
    pub(super) fn connected(&mut self, pid: Pid, what: Listening) {
        if self.cut_off_for(pid) > 0 {
            let later = self.cut_off_for(pid) + self.delay();
            return self.after(later, Some(pid), Happening::Connect(what));
        }
        match what {
            Listening::Bells(shard) => {
                let Some(s) = self.bells.get_mut(&(pid.index, shard)).filter(|s| s.pid == pid && !s.connected) else { return };
                s.connected = true;
                let happening = Happening::Bell { shard, generation: s.generation, bell: None };
                self.along(Channel::Bells(pid.index, shard), Some(pid), happening);
            }
            Listening::Pushes(incarnation) => {
                let Some(s) = self.pushes.get_mut(&incarnation).filter(|s| s.pid == pid && !s.connected) else { return };
                s.connected = true;
                let happening = Happening::Push { incarnation, generation: s.generation, push: None };
                self.along(Channel::Pushes(incarnation), Some(pid), happening);
            }
        }
    }

    pub(super) fn answered(&mut self, pid: Pid, call: &Rc<Call>, answer: Answer) {
        if pid.kind == Kind::Gateway {
            let gateway = &mut self.gateways[pid.index];
            (gateway.trouble, gateway.answered_at) = (false, self.now);
        }
        match pid.kind {
            // Whoever mends it takes longer than an outage.
            Kind::Gateway if matches!(answer, Answer::Damaged(..)) && !matches!(**call, Call::Verdicts { .. }) => {
                self.after(HEADS_INTERVAL.as_nanos() as u64, Some(pid), Happening::Again(call.clone()));
            }
            Kind::Gateway => self.answer_gateway(pid.index, call, answer),
            Kind::Worker => self.answer_worker(pid.index, call, answer),
        }
    }

    /// What the drivers do about an unknown outcome: most steps are done again until they are answered.
    pub(super) fn unanswered(&mut self, pid: Pid, call: &Rc<Call>) {
        if pid.kind == Kind::Gateway {
            self.gateways[pid.index].trouble = true;
        } else {
            let failure = Failure::new("step", Scope::Ping, JournalError::Silent("lost".into()));
            self.feed_worker(pid.index, Input::Failed(failure));
        }
        match &**call {
            Call::Beat { .. } => self.beat_again(pid, true),
            Call::Heads(..) | Call::Heartbeat(..) | Call::Owners | Call::Release { .. } | Call::Publish(..) => {}
            // Asked for again while they are needed.
            Call::Fence { .. } | Call::Forget { .. } | Call::Name { .. } => {}
            Call::Claim { shard, .. } => self.feed_worker(pid.index, Input::Claimed(*shard, None)),
            _ => self.send(pid, call.clone()),
        }
    }
}
