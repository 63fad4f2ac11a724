//! Programs in files: the texts that are kept, and what each pattern's rooms are decided by.

use std::time::Duration;

use bytes::Bytes;
use lasthit::internals::limits::PROGRAMS_KEPT_MAX;
use lasthit::internals::wire::push::{self, Push};
use lasthit::journal::redis::catalog_key;
use lasthit::journal::{Journal, ProgramJournal as _, ProgramPush, PushAnswer, Pushed, PushedBy};
use lasthit::types::{Incarnation, ProgramId, ShardId};

use crate::fixture::{self, SHARD, TestGateway, message, room, subscribed};

fn of(pattern: &str, (name, version): (&str, u32), text: &str, by: PushedBy) -> ProgramPush {
    ProgramPush { pattern: pattern.to_owned(), name: name.to_owned(), version, text: Bytes::from(text.to_owned()), by }
}

async fn push(journal: &impl Journal, push: &ProgramPush) -> PushAnswer {
    journal.push_program(push).await.expect("pushed")
}

#[track_caller]
fn decides(answer: PushAnswer) -> Pushed {
    let PushAnswer::Decides(pushed) = answer else { panic!("{answer:?}") };
    pushed
}

#[track_caller]
fn stays(answer: PushAnswer) -> Pushed {
    let PushAnswer::Stays(pushed) = answer else { panic!("{answer:?}") };
    pushed
}

async fn text(journal: &impl Journal, text: &str) -> Option<Bytes> {
    journal.program(ProgramId::of(text.as_bytes())).await.expect("read")
}

pub(crate) async fn a_start_decides_if_nothing_does_or_its_version_is_higher(journal: &impl Journal) {
    assert_eq!(journal.pushed_programs().await.expect("read"), []);
    let start = |version, text: &str| of("*", ("pit", version), text, PushedBy::Start);
    let first = decides(push(journal, &start(3, "three")).await);
    assert_eq!((first.pattern.as_str(), first.name.as_str(), first.version), ("*", "pit", 3));
    assert!(first.program == ProgramId::of(b"three") && first.push > 0, "{first:?}");
    // Whoever starts with the same does nothing.
    assert_eq!(decides(push(journal, &start(3, "three")).await), first);
    for (version, other) in [(3, "three, otherwise"), (2, "two")] {
        assert_eq!(stays(push(journal, &start(version, other)).await), first, "{other}");
        // Its text is kept all the same.
        assert_eq!(text(journal, other).await.as_deref(), Some(other.as_bytes()));
    }
    assert_eq!(stays(push(journal, &of("*", ("other", 9), "nine", PushedBy::Start)).await), first);
    let higher = decides(push(journal, &start(4, "four")).await);
    assert!(higher.push > first.push && higher.version == 4, "{higher:?}");
    let beside = decides(push(journal, &of("pit-*", ("pit", 1), "one", PushedBy::Start)).await);
    assert!(beside.push > higher.push, "numbers are of the deployment: {beside:?}");
    assert_eq!(journal.pushed_programs().await.expect("read"), [higher, beside]);
}

pub(crate) async fn a_push_by_hand_replaces_what_is_there_unless_its_version_is_lower(journal: &impl Journal) {
    let hand = |name, version, text: &str| of("*", (name, version), text, PushedBy::Hand);
    assert_eq!(push(journal, &hand("pit", 1, "one")).await, PushAnswer::Unknown);
    assert_eq!(text(journal, "one").await, None, "nothing is kept of it");
    let first = decides(push(journal, &of("*", ("pit", 2), "two", PushedBy::Start)).await);
    assert_eq!(decides(push(journal, &hand("pit", 2, "two")).await), first, "it decides already");
    let same = decides(push(journal, &hand("pit", 2, "two, otherwise")).await);
    assert!(same.push > first.push && same.version == 2, "{same:?}");
    let back = decides(push(journal, &hand("pit", 2, "two")).await);
    assert!(back.push > same.push && back.program == first.program, "{back:?}");
    for (name, version, refused) in [("pit", 1, "one"), ("pot", 3, "three")] {
        assert_eq!(stays(push(journal, &hand(name, version, refused)).await), back);
        assert_eq!(text(journal, refused).await.as_deref(), Some(refused.as_bytes()));
    }
    let again = decides(push(journal, &of("*", ("pit", 2), "two", PushedBy::HandAgain)).await);
    assert!(again.push > back.push && again.program == back.program, "{again:?}");
    assert_eq!(journal.pushed_programs().await.expect("read"), [again]);
    assert_eq!(push(journal, &of("?", ("pit", 2), "two", PushedBy::HandAgain)).await, PushAnswer::Unknown);
}

pub(crate) async fn workers_are_told_of_a_push_that_changes_something(journal: &impl Journal) {
    let worker = Incarnation(7);
    let mut pushes = journal.pushes(worker).await.expect("pushes");
    subscribed(&mut pushes).await;
    journal.heartbeat(worker, &[], 60_000).await.expect("heartbeat");
    for push in [
        of("a", ("pit", 1), "one", PushedBy::Start),
        // These change nothing.
        of("a", ("pit", 1), "one", PushedBy::Hand),
        of("a", ("pot", 1), "pot", PushedBy::Hand),
        of("b", ("pit", 1), "one", PushedBy::Hand),
        of("a", ("pit", 2), "two", PushedBy::Hand),
    ] {
        journal.push_program(&push).await.expect("pushed");
    }
    for _ in 0..2 {
        assert_eq!(message(&mut pushes).await, push::encode(&Push::Programs));
    }
    let more = tokio::time::timeout(Duration::from_millis(100), pushes.recv()).await;
    assert!(more.is_err(), "told of nothing: {more:?}");
}

pub(crate) async fn what_a_pattern_has_is_not_dropped(journal: &impl Journal) {
    let [one, two] = ["one", "two"].map(|text| ProgramId::of(text.as_bytes()));
    push(journal, &of("a", ("pit", 1), "one", PushedBy::Start)).await;
    push(journal, &of("b", ("pit", 1), "one", PushedBy::Start)).await;
    push(journal, &of("a", ("pit", 2), "two", PushedBy::Hand)).await;
    let mut both = vec![(one, 3), (two, 3)];
    both.sort_unstable();
    assert_eq!(journal.kept_programs().await.expect("read"), both);
    for kept in [one, two] {
        assert!(!journal.drop_program(kept).await.expect("asked"), "a pattern has it");
    }
    push(journal, &of("b", ("pit", 2), "two", PushedBy::Hand)).await;
    for _ in 0..2 {
        assert!(journal.drop_program(one).await.expect("asked"), "it is gone, also the second time");
        assert_eq!((text(journal, "one").await, text(journal, "two").await.is_some()), (None, true));
    }
    assert_eq!(journal.kept_programs().await.expect("read"), [(two, 3)]);
}

pub(crate) async fn one_program_too_many_is_not_kept(journal: &impl Journal) {
    let nth = |n: usize, by| of("*", ("pit", 1), &format!("text {n}"), by);
    push(journal, &nth(0, PushedBy::Start)).await;
    for n in 1..PROGRAMS_KEPT_MAX {
        decides(push(journal, &nth(n, PushedBy::Hand)).await);
    }
    assert_eq!(journal.kept_programs().await.expect("read").len(), PROGRAMS_KEPT_MAX);
    let before = journal.pushed_programs().await.expect("read");
    for by in [PushedBy::Hand, PushedBy::HandAgain] {
        assert_eq!(push(journal, &nth(PROGRAMS_KEPT_MAX, by)).await, PushAnswer::Full);
    }
    // A worker that starts goes on with what decides; where nothing does, it is told.
    assert_eq!(stays(push(journal, &nth(PROGRAMS_KEPT_MAX, PushedBy::Start)).await), before[0]);
    assert_eq!(push(journal, &of("a", ("pit", 1), "another", PushedBy::Start)).await, PushAnswer::Full);
    assert_eq!(journal.pushed_programs().await.expect("read"), before);
    // One that is kept needs no more room.
    decides(push(journal, &nth(1, PushedBy::Hand)).await);
    assert!(journal.drop_program(ProgramId::of(b"text 0")).await.expect("asked"));
    decides(push(journal, &nth(PROGRAMS_KEPT_MAX, PushedBy::Hand)).await);
}

pub(crate) async fn stored_rooms_are_told_by_shard(journal: &impl Journal) {
    assert_eq!(journal.stored_rooms(SHARD).await.expect("read"), []);
    let mut gateway = TestGateway::register(journal).await;
    let mut rooms: Vec<_> = (0..5).map(room).collect();
    for room in &rooms {
        gateway.write(journal, room.clone(), "e").await;
    }
    rooms.sort_unstable();
    assert_eq!(journal.stored_rooms(SHARD).await.expect("read"), rooms);
    assert_eq!(journal.stored_rooms(ShardId(0)).await.expect("read"), [], "of another shard");
}

/// What somebody, or a failing disk, has spoiled costs its own program or pattern only, and is healed by the next push.
#[tokio::test]
async fn what_is_damaged_in_redis_is_healed_by_a_push() {
    let (server, journal) = fixture::redis().await;
    for pattern in ["a", "b"] {
        push(&journal, &of(pattern, ("pit", 2), pattern, PushedBy::Start)).await;
    }
    let before = journal.pushed_programs().await.expect("read");
    let field = ProgramId::of(b"a").to_string();
    fixture::tell(&server, &["HSET", &catalog_key("programs"), &field, "spoiled"]);
    assert_eq!((text(&journal, "a").await, text(&journal, "b").await.is_some()), (None, true));
    decides(push(&journal, &of("a", ("pit", 2), "a", PushedBy::Start)).await);
    assert!(text(&journal, "a").await.is_some(), "by a worker that starts");
    fixture::tell(&server, &["HSET", &catalog_key("programs"), &field, "spoiled"]);
    decides(push(&journal, &of("b", ("pit", 2), "b, otherwise", PushedBy::Hand)).await);
    assert_eq!(text(&journal, "a").await, None, "a push of another one heals nothing");
    stays(push(&journal, &of("b", ("pit", 1), "a", PushedBy::Hand)).await);
    assert!(text(&journal, "a").await.is_some(), "also by one that is refused");
    // No program's name: it is no program.
    fixture::tell(&server, &["HSET", &catalog_key("programs"), "spoiled", "spoiled"]);
    assert_eq!(journal.kept_programs().await.expect("read").len(), 3);

    let id = "0123456789abcdef0123456789abcdef";
    let spoiled = [
        "",
        "spoiled",
        "1|2",
        "x|y|z|0|pit",
        "1|00|1|1|pit",
        "1|ID|4294967296|1|pit",
        "1|ID|1|x|pit",
        "-1|ID|1|1|pit",
        "1|ID|1|1|\u{fc}",
    ];
    let large = ["99999999999999999999|ID|1|1|pit", "9007199254740992|ID|1|1|pit", "1|ID|1|99999999999999999999|pit"];
    for spoiled in spoiled.iter().chain(&large).map(|spoiled| spoiled.replace("ID", id)) {
        fixture::tell(&server, &["HSET", &catalog_key("rules"), "a", &spoiled]);
        let others = journal.pushed_programs().await.expect("read");
        let is_read = spoiled.starts_with("9007") || spoiled.ends_with("ü");
        assert!(is_read || others.iter().all(|pushed| pushed.pattern == "b"), "{spoiled:?}: {others:?}");
        let healed = decides(push(&journal, &of("a", ("pit", 1), "a", PushedBy::Start)).await);
        assert!(healed.push > before[0].push && healed.version == 1, "{spoiled:?}: {healed:?}");
        assert_eq!(journal.pushed_programs().await.expect("read").len(), 2, "{spoiled:?}");
    }
}

/// Rooms never go back to a lower number, so none may come twice.
#[tokio::test]
async fn numbers_of_pushes_rise_also_when_the_last_is_gone() {
    let (server, journal) = fixture::redis().await;
    let next = async |n: u32| decides(push(&journal, &of("*", ("pit", 1), &format!("text {n}"), PushedBy::Hand)).await).push;
    let mut last = decides(push(&journal, &of("*", ("pit", 1), "first", PushedBy::Start)).await).push;
    for (n, spoil) in (0..).zip(
        [
            &["HDEL", &catalog_key("rules"), ""][..],
            &["HSET", &catalog_key("rules"), "", "spoiled"][..],
            &["HSET", &catalog_key("rules"), "", "1e300"][..],
        ]
        .repeat(3),
    ) {
        fixture::tell(&server, spoil);
        let number = next(n).await;
        assert!(number > last, "{spoil:?}: {number} after {last}");
        last = number;
    }
    // All is gone, and comes again later.
    tokio::time::sleep(Duration::from_millis(20)).await;
    fixture::tell(&server, &["DEL", &catalog_key("rules")]);
    let anew = decides(push(&journal, &of("*", ("pit", 1), "first", PushedBy::Start)).await).push;
    assert!(anew > last, "{anew} after {last}");
}
