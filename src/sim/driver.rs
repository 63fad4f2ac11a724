//! What a worker's core is given, and what is done for it.

use super::journal::{Answer, Call};
use super::rules::book;
use super::world::{Happening, Listening, MS, Pid, World};
use crate::journal::{AheadName, AheadPart};
use crate::types::{Incarnation, ProgramId, ShardId};
use crate::worker::core::Core as WorkerCore;
use crate::worker::job::Loading;
use crate::worker::step::{Command as WorkerCommand, Input};

impl World {
    /// Gives a worker's core an input, then does what follows from it.
    pub(super) fn feed_worker(&mut self, index: usize, input: Input) {
        let now = self.local(index);
        let Some(core) = &mut self.workers[index].core else { return };
        core.apply(input, now);
        loop {
            let Some(core) = &mut self.workers[index].core else { return };
            let mut quick = Vec::new();
            for command in core.take_commands() {
                match command {
                    WorkerCommand::Run(job) if job.is_quick() => quick.push(job),
                    command => self.perform_for_worker(index, command),
                }
            }
            if quick.is_empty() {
                break;
            }
            let Some(core) = &mut self.workers[index].core else { return };
            quick.into_iter().for_each(|job| core.apply(Input::Done(job.run()), now));
        }
        if self.workers[index].core.as_ref().is_some_and(WorkerCore::is_stopped) {
            self.trace(|| format!("worker {index} has stopped"));
            self.end_worker(index);
            return;
        }
        let due_ns = self.workers[index].core.as_ref().and_then(WorkerCore::next_due_ns);
        if due_ns != self.workers[index].due_ns {
            self.workers[index].due_ns = due_ns;
            let (pid, late_ns) = (self.worker_pid(index), self.below(MS));
            if let Some(due_ns) = due_ns {
                self.after(self.until(index, due_ns) + late_ns, Some(pid), Happening::Due(due_ns));
            }
        }
    }

    /// A worker wakes up because of a timer, unless it wants to wake up at another moment by now.
    pub(super) fn due(&mut self, pid: Pid, due_ns: u64) {
        if self.workers[pid.index].due_ns == Some(due_ns) {
            self.workers[pid.index].due_ns = None;
            self.feed_worker(pid.index, Input::Due);
        }
    }

    /// A program was pushed, or pushed again later: the news came late.
    pub(super) fn hear_of_push(&mut self, index: usize, push: u64) {
        if self.workers[index].core.is_some() && self.workers[index].known < push {
            self.workers[index].known = push;
            self.feed_worker(index, Input::Rules(book(push)));
        }
    }

    pub(super) fn fetched(&mut self, index: usize, shard: ShardId, program: ProgramId, loading: Box<Loading>) {
        self.workers[index].editions.read(program);
        self.feed_worker(index, Input::Fetched(shard, loading));
        self.ledger.count("programs read for recorded rooms");
    }

    fn perform_for_worker(&mut self, index: usize, command: WorkerCommand) {
        let pid = self.worker_pid(index);
        let worker = self.workers[index].incarnation;
        match command {
            WorkerCommand::Heartbeat(owned) => self.call(pid, Call::Heartbeat(worker, owned)),
            WorkerCommand::ReadOwners => self.call(pid, Call::Owners),
            WorkerCommand::Claim { shard, from, homing } => self.call(pid, Call::Claim { shard, from, worker, homing }),
            WorkerCommand::Name { shard, lease, to } => self.call(pid, Call::Name { shard, lease, to }),
            WorkerCommand::Tell(process, push) => {
                if self.cut_off_for(pid) == 0 {
                    self.publish(process, &push);
                }
            }
            WorkerCommand::Release { shard, lease, tell } => {
                self.call(pid, Call::Release { shard, lease });
                for other in tell {
                    if let Some(index) = self.workers.iter().position(|w| w.incarnation == other && w.core.is_some()) {
                        let (to, delay) = (self.worker_pid(index), self.delay());
                        if self.cut_off_for(to) == 0 && self.cut_off_for(pid) == 0 {
                            self.after(delay, Some(to), Happening::ShardIsFree);
                        }
                    }
                }
            }
            WorkerCommand::Follow(shard) => self.listen(pid, Listening::Bells(shard)),
            WorkerCommand::Unfollow(shard) => {
                self.bells.remove(&(index, shard));
            }
            WorkerCommand::Survey { shard, rooms } => self.call(pid, Call::Survey { shard, rooms }),
            WorkerCommand::Rooms { shard, place, count } => self.call(pid, Call::Rooms { shard, place, count }),
            WorkerCommand::Load { shard, room, token, place } => self.call(pid, Call::Load { shard, room, token, place }),
            WorkerCommand::WriteAhead { shard, lease, room, part } => {
                self.call(pid, Call::WriteAhead { shard, lease, room, part })
            }
            WorkerCommand::Fetch { shard, program, loading } => {
                let delay = self.delay();
                self.after(delay, Some(pid), Happening::Fetched(shard, program, loading));
            }
            WorkerCommand::Read { shard, room, token, after } => self.call(pid, Call::Read { shard, room, token, after }),
            WorkerCommand::Run(job) => {
                let delay = self.delay();
                self.after(delay, Some(pid), Happening::Job(job));
            }
            WorkerCommand::Commit(commit) => self.call(pid, Call::Commit(commit)),
            WorkerCommand::Publish { shard, gateway, push, .. } => self.call(pid, Call::Publish(shard, gateway, push)),
            WorkerCommand::Look(who) => {
                // Files of another host are not seen.
                let here = self.place_of(pid);
                let gone: Vec<Incarnation> = who.into_iter().filter(|who| self.free_locks.get(who) == Some(&here)).collect();
                if gone.is_empty() {
                    let now = self.local(index);
                    self.workers[index].core.iter_mut().for_each(|core| core.apply(Input::Gone(Vec::new()), now));
                    return;
                }
                self.ledger.count("deaths that a free lock showed");
                let delay = self.delay();
                self.after(delay, Some(pid), Happening::Gone(gone));
            }
            WorkerCommand::Fence { shard, lease, gateway } => self.call(pid, Call::Fence { shard, lease, gateway }),
            WorkerCommand::Forget { shard, lease, gateways } => self.call(pid, Call::Forget { shard, lease, gateways }),
            WorkerCommand::Death { shard, lease, token, gateway, entry } => {
                self.call(pid, Call::Death { shard, lease, token, gateway, entry });
            }
            WorkerCommand::Attempt { shard, lease, room, token, name } => {
                self.call(pid, Call::Attempt { shard, lease, room, token, name });
            }
            WorkerCommand::EndRoom { shard, lease, room, token, seq } => {
                self.call(pid, Call::EndRoom { shard, lease, room, token, seq })
            }
            WorkerCommand::Testify { shard, witness } => self.call(pid, Call::Testify { shard, witness }),
            WorkerCommand::CountVerdicts(_) | WorkerCommand::RolledBack(_) => {}
            WorkerCommand::Warn(text) => {
                self.trace(|| format!("worker {index}: {text}"));
                assert!(!text.contains("replay differs"), "replay: {text}");
                assert!(!text.contains("cannot be continued") || text.contains("damaged in the journal"), "replay: {text}");
            }
        }
    }

    pub(super) fn answer_worker(&mut self, index: usize, call: &Call, answer: Answer) {
        let input = match (call, answer) {
            (Call::Heartbeat(..), Answer::Alive(living, beats)) => Input::Alive { living, beats, failure: None },
            (Call::Owners, Answer::Owners(owners)) => Input::Owners(owners),
            (Call::Name { shard, lease, .. }, Answer::Named(answer)) => Input::Named(*shard, *lease, answer),
            (Call::Claim { shard, .. }, Answer::Claimed(answer)) => Input::Claimed(*shard, Some(answer)),
            (Call::Survey { shard, .. }, Answer::Survey(survey)) => Input::Surveyed(*shard, survey),
            (Call::Rooms { shard, .. }, Answer::Rooms(page)) => Input::Rooms(*shard, page),
            (Call::Load { shard, room, token, place }, Answer::Stored(page)) => {
                Input::Stored { shard: *shard, room: room.clone(), token: *token, place: *place, page }
            }
            (Call::Read { shard, room, token, .. }, Answer::Stored(page)) => {
                Input::Read { shard: *shard, room: room.clone(), token: *token, page }
            }
            (Call::WriteAhead { shard, room, part, .. }, Answer::WrittenAhead(answer)) => {
                Input::WrittenAhead { shard: *shard, room: room.clone(), part: part.clone(), answer }
            }
            (Call::Commit(commit), Answer::Committed(answer)) => {
                Input::Committed { shard: commit.shard, lease: commit.lease, number: commit.number, answer }
            }
            (Call::Testify { shard, .. }, Answer::Testified(rooms)) => Input::Testified(*shard, rooms),
            (Call::Fence { shard, lease, .. }, Answer::Fenced(answer)) => Input::Fenced { shard: *shard, lease: *lease, answer },
            (Call::Death { shard, .. }, Answer::Death(answer)) => Input::DeathWritten(*shard, answer),
            (Call::Attempt { shard, room, token, .. }, Answer::Attempted(answer)) => {
                Input::Attempted { shard: *shard, room: room.clone(), token: *token, answer }
            }
            (Call::EndRoom { shard, room, token, .. }, Answer::RoomEnded(answer)) => {
                Input::RoomEnded { shard: *shard, room: room.clone(), token: *token, answer }
            }
            (Call::Publish(shard, gateway, _), Answer::Published(listeners)) => Input::Published(*shard, *gateway, listeners),
            (
                Call::Load { shard, token, .. }
                | Call::Read { shard, token, .. }
                | Call::WriteAhead { shard, part: AheadPart { name: AheadName { lane: token, .. }, .. }, .. }
                | Call::Death { shard, token, .. }
                | Call::Attempt { shard, token, .. }
                | Call::EndRoom { shard, token, .. },
                Answer::Damaged(room, why),
            ) => Input::Damaged { shard: *shard, room, token: *token, why },
            (Call::Forget { shard, lease, gateways }, Answer::Forgotten(answer)) => {
                Input::Forgotten { shard: *shard, lease: *lease, gateways: gateways.clone(), answer }
            }
            (Call::Release { .. }, Answer::Nothing) => return,
            _ => unreachable!("an answer to another question"),
        };
        self.feed_worker(index, input);
    }
}
