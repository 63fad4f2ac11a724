//! Sessions that missed much, read slowly, or repeat themselves: what is read for them, and what they are sent.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use bytes::Bytes;

use super::super::core::Core;
use super::super::step::{Command, Delivery, Joining, ReadId};
use crate::journal::{Appended, GatewayRecord, Registered, RoomHead, VerdictPage};
use crate::limits::{
    CATCH_UP_MESSAGES_MAX, CATCH_UP_PAGES_MAX, CATCH_UP_TURN_MAX, DELIVERIES_PER_TURN_MAX, FIRST_READS_MAX, OUTBOX_MESSAGES_MAX,
    PAGE_BYTES,
};
use crate::types::{
    Arrival, Audience, Flags, Incarnation, Moment, Outcome, PlayerId, RoomId, ShardId, Since, Stamp, Verdict, VerdictBatch,
    VerdictKind,
};
use crate::wire::push::{Push, RoomPush};
use crate::wire::verdicts;

const ME: Incarnation = Incarnation(7);
const SOMEBODY: Incarnation = Incarnation(8);

/// A gateway, one room as the journal has it, and what its sessions have not taken out yet.
struct Scene {
    core: Core,
    room: RoomId,
    batches: Vec<(u64, Bytes)>,
    seq: u64,
    era: u64,
    outboxes: BTreeMap<u64, VecDeque<Delivery>>,
    asked: BTreeMap<u64, usize>,
    /// Deliveries that each session took out.
    taken: BTreeMap<u64, u64>,
    /// How far each session was told, without a gap.
    told: BTreeMap<u64, u64>,
    /// Answers to repeats: what they repeat.
    repeats: Vec<u64>,
    closed: Vec<(u64, u16)>,
    reads: VecDeque<(u64, usize, ReadId)>,
    read_count: usize,
    rests: bool,
    sent_since_rest: usize,
    /// How long others wait for a turn.
    waited: Duration,
    now: u64,
}

impl Scene {
    fn new() -> Self {
        Self {
            core: Core::new(ME, 1, 1, "test", 0),
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

    fn verdict(&mut self, kind: VerdictKind, by: Incarnation, session: u64, outcome: Outcome) -> Verdict {
        self.seq += 1;
        Verdict {
            seq: self.seq,
            stamp: Stamp { moment: Moment { timeline: 1, ns: self.seq }, incarnation: by, ordinal: self.seq },
            kind,
            session,
            player: Some(PlayerId::new("ann").expect("a name")),
            id: Some(format!("n{}", self.seq)),
            contest: None,
            round: 0,
            outcome,
            uncertainty_ns: 0,
            behind_ns: None,
            flags: Flags(0),
            raw_ns: None,
            audience: Audience::Room,
            body: None,
        }
    }

    /// Stores a commit; whether it is pushed as well.
    fn commit(&mut self, verdicts: Vec<Verdict>, pushed: bool) {
        let (from, to) = (verdicts[0].seq - 1, self.seq);
        let batch = VerdictBatch { era: self.era, verdicts };
        self.batches.push((to, verdicts::encode(&batch)));
        if pushed {
            let rooms = vec![RoomPush { room: self.room.clone(), from, to, batch }];
            self.core.pushed(Push::Verdicts { shard: ShardId(0), server: Incarnation::NONE, commit: to, rooms });
        }
        self.perform();
    }

    fn others_act(&mut self, count: usize, pushed: bool) {
        let verdicts = (0..count).map(|_| self.verdict(VerdictKind::Data, SOMEBODY, 1, Outcome::Granted)).collect();
        self.commit(verdicts, pushed);
    }

    fn join(&mut self, since: Option<u64>) -> u64 {
        let number = self.knock(since);
        self.open(number, Outcome::Granted, None);
        number
    }

    /// Its Open is in the journal, and not resolved.
    fn knock(&mut self, since: Option<u64>) -> u64 {
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

    fn open(&mut self, number: u64, outcome: Outcome, body: Option<Bytes>) {
        let open = Verdict { body, ..self.verdict(VerdictKind::Open, ME, number, outcome) };
        self.commit(vec![open], true);
    }

    fn perform(&mut self) {
        while self.core.has_commands() {
            for command in self.core.take_commands() {
                self.obey(command);
            }
        }
    }

    fn obey(&mut self, command: Command) {
        match command {
            Command::Register { shard, .. } => {
                let record = GatewayRecord {
                    incarnation: ME,
                    number: 0,
                    watermark: Moment::default(),
                    fenced: false,
                    server: Incarnation::NONE,
                };
                let registered = Registered { server: Incarnation::NONE, record, rooms: Vec::new(), renewed: 0, commit: 0 };
                self.core.registered(shard, &registered);
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

    fn answer_outbox(&mut self, session: u64) {
        let queued = self.outboxes.get(&session).map_or(0, VecDeque::len);
        if self.asked.get(&session).is_some_and(|level| queued <= *level) {
            self.asked.remove(&session);
            self.core.outbox_drained(session, self.taken.get(&session).copied().unwrap_or(0));
            self.perform();
        }
    }

    /// The client reads: each verdict continues the count.
    fn take(&mut self, session: u64, most: usize) {
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
                Delivery::Refused(_) => {}
            }
            self.answer_outbox(session);
        }
    }

    /// The journal answers one read; false when there is none.
    fn answer(&mut self) -> bool {
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

    fn rest(&mut self) {
        self.sent_since_rest = 0;
        if std::mem::take(&mut self.rests) {
            self.core.rested(self.waited);
            self.perform();
        }
    }

    /// Everything goes on until nothing more comes; each session takes so much at a time.
    fn settle(&mut self, at_a_time: usize) {
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

/// A room with so many verdicts that nobody here was told of, and a session of its that is up to date.
fn with_a_past(verdicts: usize) -> (Scene, u64) {
    let mut scene = Scene::new();
    for _ in 0..verdicts.div_ceil(50) {
        scene.others_act(50, false);
    }
    let first = scene.join(None);
    scene.settle(100);
    (scene, first)
}

#[test]
fn who_missed_more_than_an_outbox_holds_is_told_all_of_it_as_it_reads() {
    let (mut scene, _) = with_a_past(5 * OUTBOX_MESSAGES_MAX);
    let late = scene.join(Some(1));
    for turn in 0..100_000 {
        scene.rest();
        scene.answer();
        scene.take(late, 20);
        if turn % 8 == 0 {
            scene.others_act(20, true);
        }
        let waiting = scene.outboxes[&late].len();
        assert!(waiting <= CATCH_UP_MESSAGES_MAX + 2, "{waiting} deliveries wait");
        if scene.told.get(&late).is_some_and(|told| *told > 6 * OUTBOX_MESSAGES_MAX as u64) {
            break;
        }
    }
    scene.settle(50);
    assert_eq!((scene.told[&late], &scene.closed[..]), (scene.seq, &[][..]));
}

#[test]
fn a_full_outbox_sends_nobody_away() {
    let (mut scene, slow) = with_a_past(50);
    let fast = scene.join(None);
    for _ in 0..3 * OUTBOX_MESSAGES_MAX / 50 {
        scene.others_act(50, true);
        scene.take(fast, 1_000);
        scene.rest();
        scene.answer();
    }
    assert_eq!((scene.told[&fast], scene.read_count), (scene.seq, 0), "who reads is not read for");
    scene.settle(100);
    assert_eq!((scene.told[&slow], &scene.closed[..]), (scene.seq, &[][..]));
}

#[test]
fn a_gap_in_a_busy_room_sends_nobody_away() {
    let (mut scene, one) = with_a_past(50);
    let other = scene.join(None);
    for _ in 0..2 * OUTBOX_MESSAGES_MAX / 50 {
        scene.others_act(50, false);
    }
    scene.others_act(50, true);
    while scene.answer() {}
    scene.settle(100);
    assert_eq!((scene.told[&one], scene.told[&other], &scene.closed[..]), (scene.seq, scene.seq, &[][..]));
}

#[test]
fn sessions_at_one_place_share_what_is_read() {
    let missed = 10_000;
    let count = |sessions: usize| {
        let (mut scene, _) = with_a_past(missed);
        for _ in 0..sessions {
            scene.join(Some(1));
        }
        scene.settle(64);
        assert!(scene.told.values().all(|told| *told == scene.seq) && scene.closed.is_empty());
        scene.read_count
    };
    let (one, many) = (count(1), count(100));
    assert!(many < 4 * one, "{many} reads for 100 sessions, {one} for one");
}

#[test]
fn what_is_under_way_is_bounded_and_nothing_is_read_for_who_is_gone() {
    let (mut scene, _) = with_a_past(20_000);
    let sessions: Vec<u64> = (0..100).map(|n| scene.join(Some(1 + 190 * n))).collect();
    assert!(scene.reads.len() <= CATCH_UP_PAGES_MAX, "{} reads under way", scene.reads.len());
    for session in sessions {
        scene.core.close(session, Arrival::at(scene.now, 0));
        scene.outboxes.remove(&session);
    }
    scene.perform();
    let before = scene.read_count;
    scene.settle(100);
    assert_eq!(scene.read_count, before);
}

#[test]
fn a_turn_is_bounded_however_many_wait() {
    let (mut scene, _) = with_a_past(2_000);
    for _ in 0..200 {
        scene.join(Some(1));
    }
    for session in scene.outboxes.keys().copied().collect::<Vec<_>>() {
        scene.take(session, 1_000);
    }
    let mut longest = 0;
    for turn in 0..500 {
        // Others begin to wait for long: turns shrink to the least.
        scene.waited = if turn < 100 { Duration::ZERO } else { Duration::from_millis(1) };
        scene.rest();
        scene.answer();
        // A welcome comes with the first of a session's verdicts.
        let most = if turn < 110 { CATCH_UP_TURN_MAX } else { DELIVERIES_PER_TURN_MAX };
        assert!(scene.sent_since_rest <= 2 * most, "{} deliveries in turn {turn}", scene.sent_since_rest);
        longest = longest.max(scene.sent_since_rest);
        for session in scene.outboxes.keys().copied().collect::<Vec<_>>() {
            scene.take(session, 1_000);
        }
    }
    assert!(longest > CATCH_UP_TURN_MAX / 2, "{longest}: turns grow while nobody waits");
}

#[test]
fn a_storm_of_repeats_reads_each_first_verdict_once() {
    let (mut scene, ann) = with_a_past(2_000);
    let repeats: Vec<u64> = (0..3_000_u64).map(|n| 1 + n % 10 * 150).collect();
    for some in repeats.chunks(100) {
        let verdicts = some.iter().map(|of| scene.verdict(VerdictKind::Data, ME, ann, Outcome::Repeat { of: *of })).collect();
        scene.commit(verdicts, true);
        assert!(scene.reads.iter().filter(|read| read.1 == 1).count() <= FIRST_READS_MAX);
        scene.settle(200);
    }
    assert_eq!((&scene.repeats, scene.told[&ann]), (&repeats, scene.seq));
    assert!(scene.read_count <= 10 + 10, "{} reads for 3,000 repeats of 10 actions", scene.read_count);
}

#[test]
fn repeats_of_old_actions_are_one_read_of_one_batch_each() {
    let (mut scene, ann) = with_a_past(50_000);
    let repeats: Vec<u64> = (0..900_u64).map(|n| 1 + n * 50).collect();
    let verdicts = repeats.iter().map(|of| scene.verdict(VerdictKind::Data, ME, ann, Outcome::Repeat { of: *of })).collect();
    scene.commit(verdicts, true);
    let mut pages = 0;
    while let Some((_, entries_max, _)) = scene.reads.front() {
        pages += usize::from(*entries_max > 1);
        scene.answer();
        scene.take(ann, 1_000);
        scene.rest();
    }
    assert_eq!((&scene.repeats, scene.read_count - pages), (&repeats, repeats.len()));
    assert!(pages <= 2, "{pages} pages for one push");
}

#[test]
fn a_damaged_page_is_the_trouble_of_who_reads_it() {
    let (mut scene, first) = with_a_past(500);
    let late = scene.join(Some(1));
    let (_, _, read) = scene.reads.pop_front().expect("a read");
    scene.core.unreadable(&read, "damaged".to_owned());
    scene.perform();
    scene.others_act(5, true);
    scene.settle(100);
    assert_eq!(
        (scene.told[&first], scene.closed.iter().map(|(session, _)| *session).collect::<Vec<_>>()),
        (scene.seq, vec![late])
    );
    // It takes no place from others.
    let again = scene.join(Some(1));
    scene.settle(100);
    assert_eq!(scene.told[&again], scene.seq);
}

#[test]
fn who_waits_for_a_page_gets_its_place_when_a_first_verdict_gives_it_up() {
    let (mut scene, ann) = with_a_past(50);
    scene.core.bounds.catch_up_pages_max = 1;
    while scene.outboxes[&ann].len() < OUTBOX_MESSAGES_MAX {
        scene.others_act(64, true);
    }
    let repeat = scene.verdict(VerdictKind::Data, ME, ann, Outcome::Repeat { of: 1 });
    scene.commit(vec![repeat], true);
    scene.take(ann, 2 * OUTBOX_MESSAGES_MAX);
    while scene.reads.front().is_none_or(|(_, entries_max, _)| *entries_max > 1) {
        scene.answer();
        scene.take(ann, OUTBOX_MESSAGES_MAX);
        scene.rest();
    }
    let late = scene.join(Some(1));
    assert_eq!(scene.reads.len(), 1, "the only page is held until the first verdict is read");
    scene.settle(100);
    assert_eq!((scene.told.get(&ann), scene.told.get(&late)), (Some(&scene.seq), Some(&scene.seq)));
}

#[test]
fn a_first_verdict_that_is_remembered_holds_no_batch() {
    let (mut scene, ann) = with_a_past(50);
    let body = Some(Bytes::from_static(&[0xc0]));
    let first = Verdict { body, ..scene.verdict(VerdictKind::Data, SOMEBODY, 1, Outcome::Granted) };
    let of = first.seq;
    scene.commit(vec![first], true);
    let repeat = scene.verdict(VerdictKind::Data, ME, ann, Outcome::Repeat { of });
    scene.commit(vec![repeat], true);
    scene.settle(100);
    assert_eq!((&scene.repeats[..], scene.told[&ann]), (&[of][..], scene.seq));
    assert!(scene.batches.iter().all(|(_, batch)| batch.is_unique()));
}

#[test]
fn what_a_session_found_when_it_joined_is_not_kept_behind_its_welcome() {
    for since in [None, Some(1)] {
        let (mut scene, _) = with_a_past(50);
        let state = Bytes::from(vec![0xc0; 100]);
        let ann = scene.knock(since);
        scene.open(ann, Outcome::Granted, Some(state.clone()));
        scene.settle(100);
        assert_eq!(scene.told[&ann], scene.seq);
        assert!(state.is_unique(), "since {since:?}");
    }
}

#[test]
fn a_gap_that_was_asked_for_in_an_earlier_era_leaves_nothing_out_of_the_next() {
    let (mut scene, _) = with_a_past(50);
    scene.others_act(5, false);
    scene.others_act(5, true);
    let (after, bob) = (scene.reads[0].0, scene.knock(None));
    (scene.era, scene.seq) = (2, 0);
    scene.batches.clear();
    scene.open(bob, Outcome::Granted, None);
    while scene.seq < 2 * after {
        scene.others_act(5, false);
    }
    assert!(scene.answer());
    scene.others_act(5, true);
    while scene.answer() {}
    let sent = scene.outboxes[&bob].iter().filter_map(Delivery::verdict).map(|verdict| verdict.seq);
    assert_eq!(sent.collect::<Vec<_>>(), (2..=scene.seq).collect::<Vec<_>>());
}

#[test]
fn rules_may_deny_by_the_name_that_the_rooms_bound_has() {
    for (outcome, closed) in [(Outcome::Denied as fn(_) -> _, false), (Outcome::Void, true)] {
        let (mut scene, _) = with_a_past(50);
        let ann = scene.knock(None);
        scene.open(ann, outcome("room_full".to_owned()), None);
        scene.settle(100);
        assert_eq!((scene.told.contains_key(&ann), scene.closed.is_empty()), (!closed, !closed));
    }
}
