//! Sessions that missed much, read slowly, or repeat actions: what is read for them, and what they are sent.

mod scene;

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;

use self::scene::{ME, SOMEBODY, Scene};
use super::super::step::Delivery;
use crate::limits::{
    CATCH_UP_MESSAGES_MAX, CATCH_UP_PAGES_MAX, CATCH_UP_TURN_MAX, DELIVERIES_PER_TURN_MAX, FIRST_READS_MAX, OUTBOX_MESSAGES_MAX,
};
use crate::types::{Arrival, Outcome, Verdict, VerdictKind};

/// A room with this many verdicts from before its first session here, and that session, which is up to date.
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
    assert!(one < 40 && many <= one, "{many} reads for 100 sessions, {one} for one");
}

/// Forty share the pages that any of them has read; ten are too far apart for that. Each has its turn to have one read.
#[test]
fn who_reads_alone_is_not_crowded_out_by_those_who_share() {
    const TURNS: usize = 40;
    let mut scene = Scene::new();
    (0..2_000).for_each(|_| scene.others_act(1, false));
    (scene.core.bounds.catch_up_pages_max, scene.core.bounds.catch_up_messages_max) = (1, 1);
    let alone: BTreeMap<u64, u64> = (0..10).map(|n| 1 + 100 * n).map(|since| (scene.join(Some(since)), since)).collect();
    let together: Vec<u64> = (0..40).map(|n| scene.join(Some(1_001 + 3 * n))).collect();
    let all: Vec<u64> = alone.keys().copied().chain(together).collect();
    for round in 0.. {
        if scene.read_count >= TURNS * all.len() {
            break;
        }
        scene.answer();
        scene.rest();
        all.iter().skip(round % 2).step_by(2).for_each(|session| scene.take(*session, 2));
        let places = scene.core.reads.behind.len();
        assert!(places <= all.len(), "{places} places in line for {} sessions", all.len());
    }
    for (session, since) in alone {
        let told = scene.told.get(&session).map_or(0, |told| told - since);
        assert!(told >= TURNS as u64, "session {session} had {told} verdicts of {} reads", scene.read_count);
    }
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
        // Then others wait for long, and turns shrink to the least.
        scene.waited = if turn < 100 { Duration::ZERO } else { Duration::from_millis(1) };
        scene.rest();
        scene.answer();
        // Each session also gets a welcome before its first verdict.
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
    // The damaged read takes no place from others.
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
