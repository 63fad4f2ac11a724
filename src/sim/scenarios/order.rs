//! Membership, deaths, bounds and reboots: one interleaving each.

use super::*;
use crate::limits::Bounds;
use crate::types::VerdictKind;

impl Stage {
    fn lease(&self) -> crate::journal::Lease {
        self.store.owners(0)[0].lease.expect("an owner")
    }

    /// Fences a gateway, and tells the worker.
    pub(super) fn fence(&mut self, gateway: Incarnation) {
        let lease = self.lease();
        let answer = self.store.fence(SHARD, lease, gateway).expect("a shard");
        self.worker.apply(Input::Fenced { shard: SHARD, lease, answer }, self.now);
        self.collect();
    }

    /// Writes the deaths that the worker wants; their bells are the caller's.
    fn write_deaths(&mut self) -> Vec<Option<Bell>> {
        let mut deaths = std::mem::take(&mut self.deaths);
        deaths.extend(self.take(|command| matches!(command, WorkerCommand::Death { .. })));
        deaths
            .iter()
            .map(|death| {
                let WorkerCommand::Death { shard, lease, gateway, entry, .. } = death else { unreachable!("only deaths") };
                let (answer, bell) = self.store.death(*shard, *lease, *gateway, entry, self.now / MS).expect("it is fenced");
                self.worker.apply(Input::DeathWritten(SHARD, answer), self.now);
                bell
            })
            .collect()
    }

    fn die(&mut self, gateway: Incarnation) {
        self.fence(gateway);
        for bell in self.write_deaths() {
            self.bell(bell);
        }
    }

    /// Another worker takes the shard over, with nothing but what the journal has.
    pub(super) fn take_over(&mut self, name: u128, limits: WorkerLimits) {
        let from = self.store.owners(0)[0].lease;
        self.wanted.clear();
        self.worker = WorkerCore::new(Incarnation(name), 1, limits);
        let homing = Homing::moves_from(self.store.owners(0)[0].home.clone());
        let lease = self.store.claim(SHARD, from, Incarnation(name), (0, 0), &homing).expect("a shard");
        self.worker.apply(Input::Claimed(SHARD, Some(lease)), self.now);
        self.collect();
        self.subscribe();
        self.take(|command| matches!(command, WorkerCommand::Survey { .. }));
        self.survey();
        self.settle();
    }

    fn verdict(&self, id: &str) -> &Verdict {
        self.committed.iter().find(|v| v.id.as_deref() == Some(id)).expect("a verdict")
    }

    fn closes(&self, gateway: u128) -> usize {
        let of = |v: &&Verdict| v.kind == VerdictKind::Close && v.stamp.incarnation == Incarnation(gateway);
        self.committed.iter().filter(of).count()
    }
}

fn bounded(bounds: Bounds) -> WorkerLimits {
    WorkerLimits { bounds, ..limits() }
}

/// Rule R7: the snapshot lies behind the death, and what another gateway stamped before it is read after a takeover.
#[test]
fn a_takeover_knows_what_a_dead_gateway_may_have_taken_along() {
    let limits = bounded(Bounds { snapshot_events: 1, ..Bounds::default() });
    let (mut stage, a, mut b) = two_inside_on(Stage::with(limits.clone()));
    b.act(1, "b", 1_040 * MS);
    stage.now = 1_100 * MS;
    stage.die(a.core.incarnation());
    stage.settle();
    assert_eq!(
        stage.store.load(&room(), Place::default(), PageSize::default()).entries,
        [],
        "the snapshot lies behind the death"
    );
    stage.take_over(101, limits);
    let bell = b.flush(&mut stage.store, 1_110 * MS, false);
    stage.bell(bell);
    stage.settle();
    assert!(stage.verdict("b").flags.has(Flags::UNPROVEN), "{:?}", stage.verdict("b"));
}

/// Rule R7: the batch ends between two events of the stretch, everybody has passed it, and the snapshot is taken there.
#[test]
fn what_is_still_held_keeps_its_stretch() {
    let limits = bounded(Bounds { snapshot_events: 1, resolve_events_max: 1, ..Bounds::default() });
    let (mut stage, a, mut b) = two_inside_on(Stage::with(limits.clone()));
    stage.now = 1_100 * MS;
    stage.die(a.core.incarnation());
    stage.settle();
    b.act(1, "x", 1_040 * MS);
    b.act(1, "y", 1_041 * MS);
    let bell = b.flush(&mut stage.store, 1_110 * MS, false);
    stage.bell(bell);
    // The first is resolved, and committed with a snapshot.
    stage.turn();
    stage.turn();
    assert_eq!(stage.ids(), ["x"]);
    stage.take_over(101, limits);
    assert_eq!(stage.ids(), ["x", "y"]);
    assert!(stage.verdict("y").flags.has(Flags::UNPROVEN), "{:?}", stage.verdict("y"));
}

/// Rule R6, rule R3: a death of several sessions is larger than a batch, and a takeover follows the snapshot of that batch.
#[test]
fn a_death_is_resolved_whole() {
    let limits = bounded(Bounds { snapshot_events: 1, resolve_events_max: 1, ..Bounds::default() });
    let (mut stage, mut a, mut b) = two_inside_on(Stage::with(limits.clone()));
    a.join("eve", None, 1_022 * MS);
    let bell = a.flush(&mut stage.store, 1_023 * MS, false);
    stage.bell(bell);
    stage.pass(&mut b, 1_030 * MS);
    stage.now = 1_100 * MS;
    stage.die(Incarnation(1));
    stage.turn();
    stage.turn();
    stage.take_over(101, limits);
    assert_eq!(stage.closes(1), 2, "{:?}", stage.committed);
    b.act(1, "b", 1_110 * MS);
    let bell = b.flush(&mut stage.store, 1_111 * MS, false);
    stage.bell(bell);
    stage.settle();
    assert_eq!(stage.ids(), ["b"], "nobody waits for the dead");
}

/// Rule R6: an Open of the dead gateway lies in the room, unread, when its death is written: another death follows.
#[test]
fn a_death_that_came_too_early_is_written_again() {
    let (mut stage, mut a, mut b) = two_inside();
    a.join("eve", None, 1_030 * MS);
    let last = a.flush(&mut stage.store, 1_031 * MS, false);
    stage.fence(Incarnation(1));
    let early = stage.write_deaths();
    assert_eq!(early.len(), 1);
    stage.bell(last);
    for bell in early {
        stage.bell(bell);
    }
    let again = stage.write_deaths();
    assert_eq!(again.len(), 1, "once, and for both sessions");
    for bell in again {
        stage.bell(bell);
    }
    stage.settle();
    stage.pass(&mut b, 1_050 * MS);
    assert_eq!(stage.closes(1), 2, "{:?}", stage.committed);
}

/// Rule W4: more bells ring during a survey than are kept, and none after it.
#[test]
fn bells_that_were_not_kept_are_looked_up() {
    let (mut stage, mut a, mut b) = two_inside_on(Stage::with(bounded(Bounds { shard_bells_max: 1, ..Bounds::default() })));
    stage.subscribe();
    let early = stage.store.survey(SHARD, false).expect("a shard");
    a.act(1, "a", 1_030 * MS);
    let first = a.flush(&mut stage.store, 1_050 * MS, false);
    stage.bell(first);
    b.act(1, "b", 1_040 * MS);
    let second = b.flush(&mut stage.store, 1_050 * MS, false);
    stage.bell(second);
    stage.take(|command| matches!(command, WorkerCommand::Survey { .. }));
    stage.worker.apply(Input::Surveyed(SHARD, early), stage.now);
    stage.collect();
    assert_eq!(stage.take(|command| matches!(command, WorkerCommand::Survey { .. })).len(), 1, "it is surveyed again");
    stage.survey();
    stage.settle();
    assert_eq!(stage.ids(), ["a", "b"]);
}

/// Rule W4: a successor hears no bell of a room whose event is held: the shard's `active` set names it.
#[test]
fn a_successor_reads_the_rooms_that_nobody_rings_for() {
    let (mut stage, mut a, mut b) = two_inside();
    b.act(1, "b", 1_040 * MS);
    let bell = b.flush(&mut stage.store, 1_050 * MS, false);
    stage.bell(bell);
    stage.settle();
    assert_eq!(stage.ids(), [""; 0], "a has not passed it");
    stage.take_over(101, limits());
    stage.pass(&mut a, 1_060 * MS);
    assert_eq!(stage.ids(), ["b"]);
}

/// Rule W6: an event that is larger than a flush leaves in one of its own.
#[test]
fn an_event_of_any_size_leaves() {
    let mut stage = Stage::new();
    let a = gateway(&mut stage.store, 1);
    let bounds = Bounds { flush_bytes_max: 1, ..Bounds::default() };
    let mut a = ScriptedGateway { core: a.core.bounded(bounds), ..a };
    a.join("ann", None, 1_010 * MS);
    a.join("bob", None, 1_011 * MS);
    assert_eq!(a.flush(&mut stage.store, 1_020 * MS, false).expect("a bell").entries.len(), 1);
    assert_eq!(a.flush(&mut stage.store, 1_020 * MS, false).expect("a bell").entries.len(), 1);
}

/// Rule W6: a session that leaves before its Open is acknowledged, when everything else of the room is over here, does not count
/// as unresolved for ever.
#[test]
fn a_session_that_left_early_is_not_counted_for_ever() {
    let mut stage = Stage::new();
    stage.subscribe();
    stage.take(|command| matches!(command, WorkerCommand::Survey { .. }));
    stage.survey();
    let a = gateway(&mut stage.store, 1);
    let bounds = Bounds { unresolved_max: 2, ..Bounds::default() };
    let mut a = ScriptedGateway { core: a.core.bounded(bounds), ..a };
    let ann = a.join("ann", None, 1_010 * MS);
    let bell = a.flush(&mut stage.store, 1_011 * MS, false);
    stage.bell(bell);
    stage.settle();
    stage.push(&mut a);
    // The next Open is resolved and pushed before its append is answered; both sessions have left by then.
    let eve = a.join("eve", None, 1_020 * MS);
    a.core.close(ann, Arrival::at(1_021 * MS, 0));
    a.core.settled(1_022 * MS);
    a.collect();
    let flush = a.flush.take().expect("an Open and a Close");
    a.core.end(eve, 1000, Arrival::at(1_023 * MS, 0));
    a.core.close(eve, Arrival::at(1_023 * MS, 0));
    let (answer, bell) = stage.store.append(&flush, crate::types::Seed(1), 1_022).expect("a flush");
    stage.bell(bell);
    stage.settle();
    stage.push(&mut a);
    a.appended(flush, answer, false, 1_030 * MS);
    a.collect();
    let bell = a.flush(&mut stage.store, 1_040 * MS, false);
    stage.bell(bell);
    stage.settle();
    stage.push(&mut a);
    let cid = a.join("cid", None, 1_050 * MS);
    let bell = a.flush(&mut stage.store, 1_051 * MS, false);
    stage.bell(bell);
    stage.settle();
    stage.push(&mut a);
    a.act(cid, "c", 1_060 * MS);
}

/// Rule S1: the host was started anew. Its clock begins at 0 on a higher timeline; the room goes on, above its old stamps.
#[test]
fn a_room_outlives_a_reboot() {
    let (mut stage, _a, mut b) = two_inside();
    b.act(1, "b", 1_040 * MS);
    let bell = b.flush(&mut stage.store, 1_050 * MS, false);
    stage.bell(bell);
    stage.settle();
    stage.now = 5 * MS;
    stage.store.by(&HostId::new("booted").expect("a name"));
    stage.take_over(101, limits());
    let mut c = gateway(&mut stage.store, 3);
    c.join("cid", None, 6 * MS);
    let bell = c.flush(&mut stage.store, 7 * MS, false);
    stage.bell(bell);
    c.act(1, "c", 8 * MS);
    let bell = c.flush(&mut stage.store, 9 * MS, false);
    stage.bell(bell);
    stage.settle();
    assert_eq!(
        stage.ids(),
        [""; 0],
        "the deaths of the earlier boot's gateways, which the claim has fenced, are not written yet"
    );
    stage.now = 10 * MS;
    for bell in stage.write_deaths() {
        stage.bell(bell);
    }
    stage.settle();
    assert_eq!(stage.ids(), ["b", "c"]);
    assert!(stage.verdict("b").flags.has(Flags::UNPROVEN), "{:?}", stage.verdict("b"));
    assert_eq!(stage.verdict("c").flags.0 & (Flags::CLAMPED.0 | Flags::UNPROVEN.0), 0, "{:?}", stage.verdict("c"));
}

/// Rule S4: what comes in under a published watermark is moved above it, flagged, and keeps the order of its raw stamps.
#[test]
fn clamped_events_keep_the_order_of_their_raw_stamps() {
    let (mut stage, mut a, mut b) = two_inside();
    a.join("eve", None, 1_022 * MS);
    let bell = a.flush(&mut stage.store, 1_023 * MS, false);
    stage.bell(bell);
    stage.pass(&mut a, 1_050 * MS);
    a.act(1, "second", 1_045 * MS);
    a.act(2, "first", 1_040 * MS);
    let bell = a.flush(&mut stage.store, 1_060 * MS, false);
    stage.bell(bell);
    stage.pass(&mut b, 1_070 * MS);
    assert_eq!(stage.ids(), ["first", "second"]);
    for (id, raw_ns) in [("first", 1_040 * MS), ("second", 1_045 * MS)] {
        let verdict = stage.verdict(id);
        assert!(verdict.flags.has(Flags::CLAMPED) && verdict.stamp.moment.ns > 1_050 * MS, "{verdict:?}");
        assert_eq!(verdict.raw_ns, Some(raw_ns));
    }
}

/// Rule W3: the journal misses a flush that this gateway holds for stored: what it had promised is void, it gives up.
#[test]
fn a_gap_ends_an_incarnation() {
    let (mut stage, mut a, _b) = two_inside();
    a.act(1, "a", 1_030 * MS);
    a.core.settled(1_031 * MS);
    a.collect();
    let flush = a.flush.take().expect("an action");
    let mut restored = Store::at_home(1);
    restored.register(SHARD, Incarnation(1), Seen::default(), &[]).expect("a shard");
    let (answer, _) = restored.append(&flush, crate::types::Seed(1), 1_031).expect("a flush");
    assert!(matches!(answer, Appended::Gap { number: 0, .. }), "{answer:?}");
    a.appended(flush, answer, false, 1_032 * MS);
    a.collect();
    assert!(a.told.iter().any(|(s, d)| *s == 1 && matches!(d, Delivery::Close { .. })), "its session is closed");
    assert!(stage.take(|command| matches!(command, WorkerCommand::Commit(_))).is_empty());
}

/// Rule R4: what a gateway was asked is lost, and it has nothing to say by itself: it is asked again.
#[test]
fn a_lost_question_is_asked_again() {
    let (mut stage, mut a, mut b) = two_inside();
    b.act(1, "b", 1_040 * MS);
    let bell = b.flush(&mut stage.store, 1_050 * MS, false);
    stage.bell(bell);
    stage.settle();
    stage.now += limits().probe_interval_ns;
    stage.worker.apply(Input::Tick, stage.now);
    stage.collect();
    for action in stage.take(|command| matches!(command, WorkerCommand::Publish { .. })) {
        let WorkerCommand::Publish { gateway, push, .. } = action else { unreachable!("only pushes") };
        assert_eq!(gateway, a.core.incarnation());
        a.core.apply(GatewayInput::Push(push::decode(&push).expect("a push")));
    }
    let bell = a.flush(&mut stage.store, 1_060 * MS, false);
    stage.bell(bell);
    stage.settle();
    assert_eq!(stage.ids(), ["b"]);
}

/// Ticks until a silent gateway is fenced, when so many listen to what it is asked; None when that never happens.
fn silence_until_fenced(listeners: Option<u64>) -> Option<u64> {
    let (mut stage, _a, mut b) = two_inside();
    b.act(1, "b", 1_040 * MS);
    let bell = b.flush(&mut stage.store, 1_050 * MS, false);
    stage.bell(bell);
    stage.settle();
    (1..=200).find(|_| {
        stage.now += 5 * MS;
        stage.worker.apply(Input::Tick, stage.now);
        stage.collect();
        let wanted = stage.take(|_| true);
        for action in &wanted {
            if let (WorkerCommand::Publish { shard, gateway, answer: true, .. }, Some(listeners)) = (action, listeners) {
                stage.worker.apply(Input::Published(*shard, *gateway, listeners), stage.now);
            }
        }
        wanted.iter().any(|action| matches!(action, WorkerCommand::Fence { .. }))
    })
}

/// Rule R5: a gateway that nobody listens for is waited for less than a silent one; while the journal does not answer, neither
/// counts as silent.
#[test]
fn silence_counts_while_the_journal_answers() {
    let (silent, gone) = (silence_until_fenced(Some(1)).expect("fenced"), silence_until_fenced(Some(0)).expect("fenced"));
    assert!(gone * 2 < silent, "{gone} ticks for one that is gone, {silent} for one that is silent");
    assert_eq!(silence_until_fenced(None), None);
}

fn snapshot_seq(stage: &Stage) -> u64 {
    stage.store.load(&room(), Place::default(), stage.size).head.snapshot.map_or(0, |(seq, _)| seq)
}

/// Rule C2: a snapshot of many parts. Verdicts go on meanwhile, the one before stays good until the last part is there, and a
/// successor that comes between two parts continues from that.
#[test]
fn a_snapshot_that_is_written_ahead_holds_up_no_verdict() {
    let limits = bounded(Bounds { snapshot_events: 1, snapshot_part_bytes: 16, page_bytes: 20, ..Bounds::default() });
    let mut stage = Stage::with(limits.clone());
    let mut a = gateway(&mut stage.store, 1);
    stage.begin(&mut a);
    assert_eq!(snapshot_seq(&stage), 1, "of the Open");
    let mut parts = Vec::new();
    for (id, at) in [("x", 1_030), ("y", 1_040)] {
        a.act(1, id, at * MS);
        let bell = a.flush(&mut stage.store, (at + 1) * MS, false);
        stage.bell(bell);
        loop {
            parts.extend(stage.take(|command| matches!(command, WorkerCommand::WriteAhead { .. })));
            if stage.wanted.is_empty() {
                break;
            }
            stage.turn();
        }
    }
    assert_eq!(stage.ids(), ["x", "y"], "final without it");
    assert_eq!((parts.len(), snapshot_seq(&stage)), (1, 1), "one part at a time, and one snapshot");

    // The first part is written, and its writer is lost: nobody puts that to use.
    stage.wanted.append(&mut parts);
    stage.turn();
    stage.take(|command| matches!(command, WorkerCommand::WriteAhead { .. }));
    stage.take_over(101, limits);
    assert_eq!((snapshot_seq(&stage), &*stage.complaints), (1, &[][..]), "loaded in pages of 20 bytes");
    a.act(1, "z", 1_050 * MS);
    let bell = a.flush(&mut stage.store, 1_051 * MS, false);
    stage.bell(bell);
    stage.settle();
    assert_eq!((stage.ids().last(), snapshot_seq(&stage)), (Some(&"z"), 4), "its own");
}
