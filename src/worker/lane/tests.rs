use super::*;
use crate::journal::{AheadName, StoredRoom};
use crate::limits::Bounds;
use crate::limits::TRIM_POINTS_MAX;
use crate::rules::Claim;
use crate::rules::Crew;
use crate::types::{Audience, RoomId, ShardId};
use crate::worker::restore::restore_room;
use crate::worker::shard::tests::limits;

impl Lane {
    pub(in crate::worker) fn room(&self) -> Option<&Room> {
        if let State::Live { turn, .. } = &self.state { turn.room() } else { None }
    }

    pub(in crate::worker) fn position(&self) -> StreamId {
        self.position
    }

    pub(in crate::worker) fn is_reading(&self) -> bool {
        matches!(self.state, State::Live { reading: Some(_), .. })
    }

    /// How many entries wait for a read.
    pub(in crate::worker) fn unread_count(&self) -> usize {
        match &self.state {
            State::Loading { unread, .. }
            | State::Restoring { unread }
            | State::Live { reading: Some(unread), .. }
            | State::Ending { unread, .. } => unread.len(),
            _ => 0,
        }
    }
}

const NEVER: fn(Incarnation) -> Moment = |_| Moment::default();

fn at(ms: u64) -> StreamId {
    StreamId { ms, seq: 0 }
}

/// A live lane of an empty room.
fn live() -> Lane {
    let mut lane = Lane::loading(1, Crew::default());
    let stored = StoredRoom { era: 1, ..StoredRoom::default() };
    assert!(matches!(lane.page(Default::default(), stored.clone().into()), Paged::All(_)));
    let loaded = restore_room(
        &"pit".parse().expect("name"),
        stored,
        (Box::new(Claim::new(Audience::Room)), 0),
        &|_| Err(String::new()),
        |_| {},
    )
    .expect("a room");
    assert!(matches!(lane.restored(loaded, (HostClock::default(), 1), NEVER), Restored::Live(None)));
    lane
}

#[test]
fn a_room_does_not_end_while_its_snapshot_is_written() {
    let mut lane = live();
    let name = AheadName { lane: 1, seq: 1 };
    let part = lane.snapshots.begin_ahead(name, (1, at(1)), bytes::Bytes::from_static(b"state"), &Bounds::default());
    assert_eq!(lane.end(1, 0), None);
    assert_eq!((lane.written_ahead(&part), lane.snapshots.take_ahead().is_some()), (None, true));
    assert_eq!(lane.end(1, 0), Some(0));
}

#[test]
fn a_commit_of_an_earlier_lane_clears_nothing() {
    let mut lane = live();
    lane.committing = true;
    lane.poisoned.insert(Stamp { moment: Moment::default(), incarnation: Incarnation(1), ordinal: 1 }, String::new());
    let first_s = lane.quarantine(0, || 2);
    lane.committed();
    assert_eq!((lane.poisoned.len(), lane.quarantine(0, || 3)), (1, 2 * first_s));
}

/// A transition changes nothing in a state that it does not start from.
#[test]
fn a_transition_from_another_state_changes_nothing() {
    let of = |token| LaneId { shard: ShardId(0), epoch: 1, room: RoomId::new("pit").expect("name"), token };
    let states: [fn() -> Lane; 5] = [
        || Lane::loading(1, Crew::default()),
        || Lane::without_rules(1),
        live,
        || {
            let mut lane = live();
            lane.end(1, 0).expect("deserted");
            lane
        },
        || {
            let mut lane = live();
            lane.state = State::Failed;
            lane
        },
    ];
    let stamp = Stamp { moment: Moment::default(), incarnation: Incarnation(1), ordinal: 1 };
    for make in states {
        let mut lane = make();
        let before = format!("{lane:?}");
        assert!(!lane.enqueue(HostClock::default(), NEVER), "nothing is held");
        assert!(lane.start(false, of(1), false, &limits(), (HostClock::default(), 0), NEVER).is_none());
        assert!(lane.start(true, of(1), false, &limits(), (HostClock::default(), 0), NEVER).is_none());
        assert_eq!(lane.attempt(false), None);
        assert!(!lane.overrun() && !lane.panicked(stamp, String::new()));
        assert!(lane.is_quarantined() || !lane.wake(u64::MAX - 1, || 2));
        if !matches!(lane.state, State::Ending { .. }) {
            assert_eq!(lane.stay(1, NEVER), None);
            assert!(!lane.begin_again(|| 2));
        }
        if !lane.is_failed() {
            assert!(!lane.reload_failed(|| 2));
        }
        assert_eq!(format!("{lane:?}"), before);
    }
}

/// A trim may remove only a part. So the next snapshots name the same position, also those of a later owner.
#[test]
fn what_is_too_old_is_named_by_every_snapshot_until_the_next_place_is_as_old() {
    let mut snapshots = Snapshots::default();
    let trim = |snapshots: &mut Snapshots, seq: u64| snapshots.trim((seq * 10, seq), (at(seq * 10), seq), 1_600, None);
    let place = |seq: u64| (at(seq * 10), seq);
    let places = |seqs: std::ops::RangeInclusive<u64>| Some(seqs.step_by(20).map(place).collect::<Vec<_>>());
    for seq in (20..=160).step_by(20) {
        assert_eq!(trim(&mut snapshots, seq), (None, places(20..=seq)));
    }
    assert_eq!(trim(&mut snapshots, 180), (Some(place(20)), places(20..=180)));
    for _ in 0..2 {
        assert_eq!(trim(&mut snapshots, 181), (Some(place(20)), None), "nothing has changed");
    }
    let mut next = Snapshots::default();
    next.resume_trims(places(20..=180).expect("places"));
    assert_eq!(trim(&mut next, 182), (Some(place(20)), None));
    assert_eq!(trim(&mut next, 200), (Some(place(40)), places(40..=200)));
}

/// By count as by age: never beyond the snapshot, and the next owner goes on with the same places.
#[test]
fn more_verdicts_than_are_kept_are_trimmed_at_a_snapshot() {
    let trim = |snapshots: &mut Snapshots, seq: u64, to: u64| {
        let (last, places) = snapshots.trim((seq * 10, to), (at(seq * 10), seq), u64::MAX, Some(1_600));
        assert!(places.as_ref().is_none_or(|places| places.len() <= TRIM_POINTS_MAX), "{places:?}");
        (last.map(|(_, seq)| seq), places)
    };
    let mut snapshots = Snapshots::default();
    for seq in (200..=1_600).step_by(200) {
        assert_eq!(trim(&mut snapshots, seq, seq).0, None, "no more than are kept");
    }
    // 300 more make the first two places too old: behind 400 lie 1,500.
    let (last, places) = trim(&mut snapshots, 1_900, 1_900);
    assert_eq!(last, Some(400));
    let mut next = Snapshots::default();
    next.resume_trims(places.expect("changed"));
    assert_eq!(trim(&mut next, 1_901, 1_901), (Some(400), None), "the same place again");
    // More than are kept came since the last snapshot: nothing is trimmed beyond that.
    assert_eq!(trim(&mut next, 9_000, 9_000).0, Some(1_900));
    assert_eq!(trim(&mut next, 9_100, 20_000).0, Some(9_000), "a snapshot that was written ahead");
    // Places that are as close as every snapshot are not all kept.
    let mut close = Snapshots::default();
    for seq in (1..=5_000).step_by(3) {
        let (last, _) = trim(&mut close, seq, seq);
        let kept = seq - last.unwrap_or(0);
        assert!(kept <= 1_600 && (last.is_none() || kept >= 1_600 - 2 * 1_600 / TRIM_POINTS_MAX as u64), "{seq}: {last:?}");
    }
}
