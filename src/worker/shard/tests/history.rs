//! How much of a room's history is kept while its owners change.

use super::*;
use crate::journal::memory::Store;
use crate::journal::{Flush, Homing, PageSize, Seen};

/// An owner for one flush, at `now_ms`: it claims the shard, resolves the flush, and releases the shard.
fn own(store: &mut Store, turn: u64, room: &RoomId, now_ms: u64, retention_ms: u64) {
    let owner = Incarnation(100 + u128::from(turn));
    let Ok(Leased::Done(lease)) = store.claim(SHARD, None, owner, (0, 0), &Homing::default()) else {
        panic!("the shard is free")
    };
    let mut limits = WorkerLimits { retention_ms, commits_may_be_lost: false, ..limits() };
    limits.bounds.snapshot_events = 1;
    let mut core = Core::new(owner, 1, limits);
    core.apply(Input::Claimed(SHARD, Some(Leased::Done(lease))), 1);

    let kind = match turn {
        1 => EventKind::Open { player: PlayerId::new("ann").expect("name"), role: Role::Player },
        _ => EventKind::Data(Bytes::new()),
    };
    let event = Event { session: 1, ordinal: turn, arrival: Arrival::at(turn, 0), kind };
    let entry = Entry { incarnation: A, timeline: 1, death: false, events: vec![event] };
    let moment = |ns| if ns == 0 { Moment::default() } else { Moment { timeline: 1, ns } };
    let entries = vec![FlushEntry { room: room.clone(), top: moment(turn), bytes: entry::encode(&entry) }];
    let (previous, watermark, server) = (moment(turn - 1), moment(turn), store.server());
    let flush = Flush { shard: SHARD, server, incarnation: A, number: turn, previous, watermark, entries };
    assert!(store.append(&flush, crate::types::Seed(1), now_ms).expect("append").1.is_some());

    core.apply(Input::Subscribed(SHARD), 1);
    loop {
        let commands = perform(&mut core);
        if commands.is_empty() {
            break;
        }
        for command in commands {
            match command {
                Command::Survey { rooms, .. } => {
                    core.apply(Input::Surveyed(SHARD, store.survey(SHARD, rooms).expect("survey")), 1)
                }
                Command::Testify { witness, .. } => {
                    core.apply(Input::Testified(SHARD, store.testify(SHARD, witness).expect("testify")), 1)
                }
                Command::Load { room, token, place, .. } => {
                    core.apply(
                        Input::Stored {
                            shard: SHARD,
                            room: room.clone(),
                            token,
                            place,
                            page: store.load(&room, place, PageSize::default()),
                        },
                        1,
                    );
                }
                Command::Commit(commit) => {
                    let answer = store.commit(&commit).expect("commit").0;
                    assert_eq!(answer, Committed::Done);
                    core.apply(Input::Committed { shard: SHARD, lease, number: commit.number, answer }, 1);
                }
                _ => {}
            }
        }
    }
    store.release(SHARD, lease).expect("release");
}

#[test]
fn history_is_trimmed_though_no_owner_lasts_as_long_as_the_retention() {
    let (mut store, room) = (Store::at_home(1), RoomId::new("pit").expect("name"));
    store.register(SHARD, A, Seen::default(), &[]).expect("register");
    let mut kept = Vec::new();
    for turn in 1..=30 {
        own(&mut store, turn, &room, turn * 300, 1_000);
        let stored = store.load(&room, Place::default(), PageSize::default()).head;
        assert_eq!(stored.seq, turn);
        assert!(stored.trims.len() <= crate::limits::TRIM_POINTS_MAX);
        kept.push((store.read(&room, StreamId::default()).len(), store.verdicts(&room, 0, usize::MAX).batches.len()));
    }
    // What came in within a second, and what the places behind which may be trimmed are apart.
    assert!(kept[10..].iter().all(|(entries, verdicts)| (4..=6).contains(entries) && (3..=6).contains(verdicts)), "{kept:?}");
}

/// What stops a shard when its owner has died grows with the count of its rooms.
#[test]
fn a_shard_of_many_rooms_says_how_many_shards_it_would_take() {
    use crate::limits::ROOMS_PER_SHARD_WARNED;
    let mut core = worker();
    core.apply(Input::Surveyed(SHARD, Survey::default()), 1);
    core.take_commands();
    let head =
        |n: usize| RoomHead { room: RoomId::new(&format!("room-{n}")).expect("name"), era: 1, seq: 0, top: Moment::default() };
    let mut rooms = (0..2 * ROOMS_PER_SHARD_WARNED + 1).map(head);
    let mut warned = Vec::new();
    for (now, count) in [(2, ROOMS_PER_SHARD_WARNED), (3, 1), (4, ROOMS_PER_SHARD_WARNED - 1), (5, 1)] {
        core.apply(Input::Rooms(SHARD, RoomsPage { rooms: rooms.by_ref().take(count).collect(), ..RoomsPage::default() }), now);
        while core.shard_mut(SHARD).adopt.front().is_some() {
            core.apply(Input::Tick, now);
        }
        let warning = |command| if let Command::Warn(text) = command { Some(text) } else { None };
        warned.push(core.take_commands().into_iter().filter_map(warning).collect::<Vec<_>>());
    }
    assert_eq!((warned[0].len(), warned[1].len(), warned[2].len(), warned[3].len()), (0, 1, 0, 1), "{warned:?}");
    assert!(warned[1][0].contains("2 times as many shards") && warned[3][0].contains("4 times as many shards"), "{warned:?}");
    assert_eq!(core.fullest_shard(), 2 * ROOMS_PER_SHARD_WARNED + 1);
}
