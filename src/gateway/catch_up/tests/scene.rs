//! A gateway whose sessions catch up, and the room that they read.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use bytes::Bytes;

use crate::gateway::core::Core;
use crate::gateway::step::{Command, Delivery, Joining, ReadId};
use crate::journal::{Appended, GatewayRecord, Homed, Registered, RoomHead, VerdictPage};
use crate::limits::{OUTBOX_MESSAGES_MAX, PAGE_BYTES};
use crate::types::{
    Arrival, Flags, Incarnation, Moment, Outcome, PlayerId, RoomId, ShardId, Since, Stamp, Verdict, VerdictBatch, VerdictKind,
};
use crate::wire::push::{Push, RoomPush};
use crate::wire::verdicts;

pub(super) const ME: Incarnation = Incarnation(7);
pub(super) const SOMEBODY: Incarnation = Incarnation(8);

/// A gateway, one room as the journal has it, and the outboxes of its sessions.
pub(super) struct Scene {
    pub(super) core: Core,
    pub(super) room: RoomId,
    pub(super) batches: Vec<(u64, Bytes)>,
    pub(super) seq: u64,
    pub(super) era: u64,
    pub(super) outboxes: BTreeMap<u64, VecDeque<Delivery>>,
    pub(super) asked: BTreeMap<u64, usize>,
    /// Deliveries that each session took out.
    pub(super) taken: BTreeMap<u64, u64>,
    /// The last `seq` that each session was sent, without a gap.
    pub(super) told: BTreeMap<u64, u64>,
    /// The `repeat_of` of each answer to a repeat.
    pub(super) repeats: Vec<u64>,
    pub(super) closed: Vec<(u64, u16)>,
    pub(super) reads: VecDeque<(u64, usize, ReadId)>,
    pub(super) read_count: usize,
    pub(super) rests: bool,
    pub(super) sent_since_rest: usize,
    /// How long others wait during a turn.
    pub(super) waited: Duration,
    pub(super) now: u64,
}

impl Scene {
    pub(super) fn new() -> Self {
        Self {
            core: Core::new(ME, 1, "test", 0),
            room: RoomId::new("pit").expect("a name"),
            batches: Vec::new(),
            seq: 0,
            era: 1,
            outboxes: BTreeMap::new(),
            asked: BTreeMap::new(),
            taken: BTreeMap::new(),
            told: BTreeMap::new(),
            repeats: Vec::new(),
            closed: Vec::new(),
            reads: VecDeque::new(),
            read_count: 0,
            rests: false,
            sent_since_rest: 0,
            waited: Duration::ZERO,
            now: 1_000,
        }
    }

    pub(super) fn verdict(&mut self, kind: VerdictKind, by: Incarnation, session: u64, outcome: Outcome) -> Verdict {
        self.seq += 1;
        Verdict {
            session,
            player: Some(PlayerId::new("ann").expect("a name")),
            id: Some(format!("n{}", self.seq)),
            outcome,
            flags: Flags(0),
            ..Verdict::granted(
                self.seq,
                Stamp { moment: Moment { timeline: 1, ns: self.seq }, incarnation: by, ordinal: self.seq },
                kind,
            )
        }
    }

    /// Stores a commit, and pushes it if `pushed`.
    pub(super) fn commit(&mut self, verdicts: Vec<Verdict>, pushed: bool) {
        let (from, to) = (verdicts[0].seq - 1, self.seq);
        let batch = VerdictBatch { era: self.era, epoch: None, decided: None, verdicts };
        self.batches.push((to, verdicts::encode(&batch)));
        if pushed {
            let rooms = vec![RoomPush { room: self.room.clone(), from, to, batch }];
            self.core.pushed(Push::Verdicts { shard: ShardId(0), server: Incarnation::NONE, commit: to, rooms });
        }
        self.perform();
    }

    pub(super) fn others_act(&mut self, count: usize, pushed: bool) {
        let verdicts = (0..count).map(|_| self.verdict(VerdictKind::Data, SOMEBODY, 1, Outcome::Granted)).collect();
        self.commit(verdicts, pushed);
    }

    pub(super) fn join(&mut self, since: Option<u64>) -> u64 {
        let number = self.knock(since);
        self.open(number, Outcome::Granted, None);
        number
    }

    /// A session joins. Its Open is in the journal, and not resolved.
    pub(super) fn knock(&mut self, since: Option<u64>) -> u64 {
        self.now += 10;
        let since = since.map(|seq| Since { era: self.era, seq });
        let joining = Joining { since, ..Joining::new(self.room.clone(), PlayerId::new("ann").expect("a name")) };
        let number = self.core.open(joining, Arrival::at(self.now, 0)).expect("a session").number;
        self.perform();
        self.now += 10;
        self.core.settled(self.now);
        self.perform();
        number
    }

    pub(super) fn open(&mut self, number: u64, outcome: Outcome, body: Option<Bytes>) {
        let open = Verdict { body, ..self.verdict(VerdictKind::Open, ME, number, outcome) };
        self.commit(vec![open], true);
    }

    pub(super) fn perform(&mut self) {
        while self.core.has_commands() {
            for command in self.core.take_commands() {
                self.obey(command);
            }
        }
    }

    pub(super) fn obey(&mut self, command: Command) {
        match command {
            Command::Register { shard, .. } => {
                let record = GatewayRecord {
                    incarnation: ME,
                    number: 0,
                    watermark: Moment::default(),
                    fenced: false,
                    server: Incarnation::NONE,
                };
                let registered =
                    Registered { server: Incarnation::NONE, record, rooms: Vec::new(), renewed: 0, commit: 0, home: 1 };
                self.core.registered(shard, ME, &Homed::Here(registered));
            }
            Command::Append { flush, .. } => {
                let (room, seq) = (self.room.clone(), self.seq);
                let heads = vec![RoomHead { room, era: self.era, seq, top: Moment::default() }];
                self.core.appended(&flush, &Appended::Stored(heads), false, self.now);
            }
            Command::Read { after, entries_max, read, .. } => {
                self.read_count += 1;
                self.reads.push_back((after, entries_max, read));
            }
            Command::AskOutbox { session, level } => {
                self.asked.insert(session, level);
                self.answer_outbox(session);
            }
            Command::Rest => self.rests = true,
            Command::Deliver(session, delivery) => {
                self.sent_since_rest += 1;
                let outbox = self.outboxes.entry(session).or_default();
                outbox.push_back(delivery);
                assert!(outbox.len() <= OUTBOX_MESSAGES_MAX + 2, "{} deliveries in an outbox", outbox.len());
            }
            _ => {}
        }
    }

    pub(super) fn answer_outbox(&mut self, session: u64) {
        let queued = self.outboxes.get(&session).map_or(0, VecDeque::len);
        if self.asked.get(&session).is_some_and(|level| queued <= *level) {
            self.asked.remove(&session);
            self.core.outbox_drained(session, self.taken.get(&session).copied().unwrap_or(0));
            self.perform();
        }
    }

    /// The client reads at most `most` deliveries. Each verdict must continue the count.
    pub(super) fn take(&mut self, session: u64, most: usize) {
        for _ in 0..most {
            let Some(delivery) = self.outboxes.get_mut(&session).and_then(VecDeque::pop_front) else { break };
            *self.taken.entry(session).or_default() += 1;
            match delivery {
                Delivery::Welcome(welcome) => drop(self.told.insert(session, welcome.seq)),
                Delivery::Verdict { from, frames } => {
                    let (told, seq) = (self.told.get_mut(&session).expect("welcomed"), frames.verdict().seq);
                    assert_eq!(from.unwrap_or(seq), *told + 1, "session {session}");
                    *told = seq;
                    let frame = String::from_utf8_lossy(&frames.encode(crate::wire::client::Encoding::Json, None)).into_owned();
                    self.repeats.extend(frame.split("\"repeat_of\":").nth(1).and_then(|rest| {
                        rest.split(|c: char| !c.is_ascii_digit()).next().and_then(|number| number.parse::<u64>().ok())
                    }));
                }
                Delivery::Close { code, .. } => self.closed.push((session, code)),
                Delivery::Refused(_) | Delivery::Move { .. } => {}
            }
            self.answer_outbox(session);
        }
    }

    /// The journal answers one read. Returns false when there is none.
    pub(super) fn answer(&mut self) -> bool {
        let Some((after, entries_max, read)) = self.reads.pop_front() else { return false };
        let mut bytes = 0;
        let first = self.batches.partition_point(|(to, _)| *to <= after);
        let fits = |batch: &Bytes| {
            let before = bytes;
            bytes += batch.len();
            before < PAGE_BYTES
        };
        let batches = self.batches[first..].iter().map(|(_, batch)| batch.clone()).take(entries_max).take_while(fits);
        let page =
            VerdictPage { server: Incarnation::NONE, commit: self.seq, era: self.era, seq: self.seq, batches: batches.collect() };
        self.core.page(&read, &page);
        self.perform();
        true
    }

    pub(super) fn rest(&mut self) {
        self.sent_since_rest = 0;
        if std::mem::take(&mut self.rests) {
            self.core.rested(self.waited);
            self.perform();
        }
    }

    /// Everything goes on until nothing more comes. Each session takes `at_a_time` deliveries at a time.
    pub(super) fn settle(&mut self, at_a_time: usize) {
        loop {
            let before: u64 = self.told.values().sum();
            self.rest();
            let answered = self.answer();
            for session in self.outboxes.keys().copied().collect::<Vec<_>>() {
                self.take(session, at_a_time);
            }
            let idle = self.outboxes.values().all(VecDeque::is_empty) && !self.rests && self.reads.is_empty();
            if idle && !answered && before == self.told.values().sum::<u64>() {
                return;
            }
        }
    }
}
