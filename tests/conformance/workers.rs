//! What workers rely on: leases, fences, deaths, heartbeats, surveys.

use std::collections::BTreeSet;
use std::time::Duration;

use lasthit::internals::clock::unix_ms;
use lasthit::journal::{
    Beats, Bell, Committed, GatewayRecord, Homing, Journal, JournalError, Lease, Leased, Part, ProcessRecord, RoomCommit,
    RoomsPlace, Seen, Survey, Witness, WorkerRecord,
};
use lasthit::types::{HostId, Incarnation, Moment, ShardId, StreamId};

use crate::fixture::{
    HOME, SHARD, SHARDS, TestGateway, at, bytes, claim, commit, entry, head, last, load, message, part, read, room, room_of,
    subscribed,
};

async fn owner(journal: &impl Journal) -> Option<Lease> {
    let owners = journal.owners().await.expect("owners");
    assert_eq!(owners.len(), usize::from(SHARDS));
    owners[usize::from(SHARD.0)].lease
}

pub(crate) async fn a_shard_changes_hands_only_from_the_owner_that_was_seen(journal: &impl Journal) {
    let [a, b] = [Incarnation::random(), Incarnation::random()];
    assert_eq!(owner(journal).await, None);
    let server = journal.survey(SHARD, false).await.expect("survey").server;
    let imagined = Lease { epoch: 0, owner: b, server, home: HOME };
    assert_eq!(journal.claim(SHARD, Some(imagined), a, unix_ms(), &Homing::default()).await.expect("claim"), Leased::Lost);
    let first = Lease { epoch: 2, owner: a, server, home: HOME };
    assert_eq!(journal.claim(SHARD, None, a, unix_ms(), &Homing::default()).await.expect("claim"), Leased::Done(first));
    assert_eq!(owner(journal).await, Some(first));
    assert_eq!(
        journal.claim(SHARD, Some(Lease { owner: b, ..first }), b, unix_ms(), &Homing::default()).await.expect("claim"),
        Leased::Lost
    );
    assert_eq!(journal.claim(SHARD, None, b, unix_ms(), &Homing::default()).await.expect("claim"), Leased::Lost);
    let second = Lease { epoch: 3, owner: b, server, home: HOME };
    assert_eq!(journal.claim(SHARD, Some(first), b, unix_ms(), &Homing::default()).await.expect("claim"), Leased::Done(second));
    assert_eq!(journal.claim(SHARD, Some(first), a, unix_ms(), &Homing::default()).await.expect("claim"), Leased::Lost);

    journal.release(SHARD, first).await.expect("a release of another lease changes nothing");
    assert_eq!(owner(journal).await, Some(second));
    journal.release(SHARD, second).await.expect("release");
    assert_eq!(owner(journal).await, None);
    assert_eq!(journal.claim(SHARD, Some(second), a, unix_ms(), &Homing::default()).await.expect("claim"), Leased::Lost);
    assert_eq!(
        journal.claim(SHARD, None, a, unix_ms(), &Homing::default()).await.expect("claim"),
        Leased::Done(Lease { epoch: 4, owner: a, server, home: HOME })
    );
    assert_eq!(journal.owners().await.expect("owners").iter().filter(|owner| owner.lease.is_some()).count(), 1);
}

pub(crate) async fn of_racing_claims_one_wins(journal: &impl Journal) {
    for _ in 0..20 {
        let from = owner(journal).await;
        let stays = Homing::default();
        let claims = (0..16).map(|_| journal.claim(SHARD, from, Incarnation::random(), unix_ms(), &stays));
        let answers = futures_util::future::join_all(claims).await;
        let won: Vec<_> =
            answers.into_iter().filter_map(|a| if let Ok(Leased::Done(lease)) = a { Some(lease) } else { None }).collect();
        assert_eq!(won.len(), 1);
        assert_eq!(owner(journal).await, Some(won[0]));
        assert_eq!(won[0].epoch, from.map_or(2, |lease| lease.epoch + 1));
    }
}

pub(crate) async fn a_lost_lease_writes_nothing(journal: &impl Journal) {
    let mut gateway = TestGateway::register(journal).await;
    let id = gateway.write(journal, room(0), "a").await;
    let old = claim(journal).await;
    let kept = commit(old, 1, vec![part(room(0), 1, 0, 0, id)]);
    assert_eq!(journal.commit(&kept).await.expect("commit"), Committed::Done);
    let new = claim(journal).await;
    let before = journal.survey(SHARD, true).await.expect("survey");

    // The same epoch in other hands is another lease, as after a restored backup.
    for lost in [old, Lease { owner: old.owner, ..new }, Lease { epoch: old.epoch, ..new }] {
        let refused = journal.commit(&commit(lost, 2, vec![part(room(0), 1, 0, 1, id)])).await;
        assert_eq!(refused.expect("commit"), Committed::Fenced);
        assert_eq!(journal.fence(SHARD, lost, gateway.incarnation).await.expect("fence"), Leased::Lost);
        let death = journal.death(SHARD, lost, gateway.incarnation, &entry(room(0), at(2), "d")).await;
        assert_eq!(death.expect("death"), Leased::Lost);
        assert_eq!(journal.end_room(SHARD, lost, &room(0), 0).await.expect("end"), Leased::Lost);
    }
    assert_eq!(journal.survey(SHARD, true).await.expect("survey"), before);
    journal.release(SHARD, new).await.expect("release");
    assert_eq!(journal.fence(SHARD, new, gateway.incarnation).await.expect("fence"), Leased::Lost, "nobody's shard");
}

pub(crate) async fn a_fence_is_for_ever(journal: &impl Journal) {
    let mut gateway = TestGateway::register(journal).await;
    gateway.append(journal, at(7), vec![]).await;
    let lease = claim(journal).await;
    let (incarnation, server) = (gateway.incarnation, gateway.server);
    let record = GatewayRecord { incarnation, number: 1, watermark: at(7), fenced: true, server };
    for _ in 0..2 {
        assert_eq!(journal.fence(SHARD, lease, incarnation).await.expect("fence"), Leased::Done(record.clone()));
        let again = journal.register(SHARD, incarnation, Seen::default(), &[]).await;
        assert_eq!(again.expect("register").here().expect("its home").record, record);
    }
    let unknown = Incarnation::random();
    let fenced = GatewayRecord { incarnation: unknown, number: 0, watermark: Moment::default(), fenced: true, server };
    assert_eq!(journal.fence(SHARD, lease, unknown).await.expect("fence"), Leased::Done(fenced.clone()));
    assert_eq!(
        journal.register(SHARD, unknown, Seen::default(), &[]).await.expect("register").here().expect("its home").record,
        fenced
    );
}

pub(crate) async fn a_death_needs_the_lease_and_a_fence(journal: &impl Journal) {
    let mut gateway = TestGateway::register(journal).await;
    let id = gateway.write(journal, room(0), "a").await;
    let lease = claim(journal).await;
    let incarnation = gateway.incarnation;
    let last_word = entry(room(0), at(2), "death");
    let alive = journal.death(SHARD, lease, incarnation, &last_word).await;
    assert!(matches!(&alive, Err(JournalError::Refused(why)) if why.contains("not fenced")), "{alive:?}");
    journal.fence(SHARD, lease, incarnation).await.expect("fence");
    let nowhere = journal.death(SHARD, lease, incarnation, &entry(room(1), at(2), "death")).await;
    assert_eq!(nowhere.expect("a room that has ended needs no death"), Leased::Done(()));
    assert!(read(journal, &room(1), StreamId::default()).await.expect("read").is_empty());
    journal.commit(&commit(lease, 1, vec![part(room(0), 1, 0, 1, id)])).await.expect("commit");
    let before = journal.survey(SHARD, true).await.expect("survey");
    assert_eq!((before.append, before.active), (1, vec![]));

    let mut bells = journal.bells(&[SHARD]).await.expect("bells");
    subscribed(&mut bells).await;
    assert_eq!(journal.death(SHARD, lease, incarnation, &last_word).await.expect("death"), Leased::Done(()));
    let entries = vec![(room(0), last(journal, &room(0)).await, bytes("death"))];
    let bell = Bell { shard: SHARD, append: 2, incarnation, number: 0, watermark: at(1), entries, poked: vec![] };
    assert_eq!(message(&mut bells).await, bell);
    let after = journal.survey(SHARD, true).await.expect("survey");
    assert_eq!((after.append, after.active), (2, vec![room(0)]));
    assert_eq!(after.rooms, [head(room(0), 1, 1, at(2))]);
    assert_eq!((after.gateways[0].number, after.gateways[0].watermark), (1, at(1)), "a death is no flush");
}

pub(crate) async fn heartbeats_run_out(journal: &impl Journal) {
    let [long, short] = [Incarnation(1 << 100), Incarnation(2 << 100)];
    let record = |incarnation, shards: &[u16]| WorkerRecord { incarnation, shards: shards.iter().map(|s| ShardId(*s)).collect() };
    let alive = journal.heartbeat(long, &[], 60_000).await.expect("heartbeat");
    assert_eq!(alive, [record(long, &[])]);
    let alive = journal.heartbeat(short, &[ShardId(3), ShardId(0)], 150).await.expect("heartbeat");
    assert_eq!(alive, [record(long, &[]), record(short, &[3, 0])]);
    tokio::time::sleep(Duration::from_millis(200)).await;
    let alive = journal.heartbeat(long, &[ShardId(1)], 60_000).await.expect("heartbeat");
    assert_eq!(alive, [record(long, &[1])]);
    // Taken back, and told to the others only.
    assert_eq!(journal.heartbeat(long, &[ShardId(1)], 0).await.expect("heartbeat"), []);
    assert_eq!(journal.heartbeat(short, &[], 60_000).await.expect("heartbeat"), [record(short, &[])]);
}

pub(crate) async fn processes_say_who_they_are(journal: &impl Journal) {
    let [here, there] = ["here", "there"].map(|name| HostId::new(name).expect("a name"));
    let gateway = ProcessRecord {
        ready: true,
        cores: 4,
        host_id: 5,
        offset_us: 6,
        lacks: [ShardId(1), ShardId(3)].into(),
        url: "wss://here.example".to_owned(),
        ..ProcessRecord::new(Incarnation(1 << 100), here.clone(), Part::Gateway)
    };
    let worker = ProcessRecord::new(Incarnation(2 << 100), there.clone(), Part::Worker);
    let said = |processes: &[&ProcessRecord], drained: &[&HostId]| Beats {
        processes: processes.iter().map(|process| (*process).clone()).collect(),
        drained: drained.iter().map(|host| (*host).clone()).collect(),
        damaged: Vec::new(),
    };
    assert_eq!(journal.beat(&gateway, 60_000).await.expect("beat"), said(&[&gateway], &[]));
    assert_eq!(journal.beat(&worker, 60_000).await.expect("beat"), said(&[&gateway, &worker], &[]));
    let changed = ProcessRecord { ready: false, lacks: BTreeSet::new(), ..gateway };
    assert_eq!(journal.beat(&changed, 150).await.expect("beat"), said(&[&changed, &worker], &[]));
    for _ in 0..2 {
        journal.drain(&there, true).await.expect("drained");
    }
    journal.drain(&here, true).await.expect("drained");
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(journal.beat(&worker, 60_000).await.expect("beat"), said(&[&worker], &[&here, &there]), "it has run out");
    for _ in 0..2 {
        journal.drain(&there, false).await.expect("undrained");
    }
    assert_eq!(journal.beat(&worker, 0).await.expect("withdrawn"), said(&[], &[&here]));
}

pub(crate) async fn what_workers_say_of_their_rooms_is_known_while_it_holds(journal: &impl Journal) {
    let [one, two] = [Incarnation(1 << 100), Incarnation(2 << 100)];
    let patterns = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<String>>();
    let known = async || lasthit::journal::known_rooms(journal).await.expect("known");
    assert_eq!(known().await, None, "nobody lives");
    journal.heartbeat(one, &[], 60_000).await.expect("heartbeat");
    assert_eq!(known().await, None, "it has not said");
    journal.announce_patterns(one, &patterns(&["quiz-*", "a?"]), 60_000).await.expect("said");
    assert_eq!(journal.announced_patterns().await.expect("patterns"), [(one, patterns(&["quiz-*", "a?"]))]);
    assert_eq!(known().await, Some(patterns(&["quiz-*", "a?"])));
    journal.heartbeat(two, &[], 60_000).await.expect("heartbeat");
    assert_eq!(known().await, None, "one has not said: a version that does not, or one that is about to");
    journal.announce_patterns(two, &[], 150).await.expect("said");
    assert_eq!(known().await, Some(patterns(&["quiz-*", "a?"])), "it has rules for none");
    journal.announce_patterns(two, &patterns(&["*"]), 60_000).await.expect("said");
    assert_eq!(known().await, Some(patterns(&["quiz-*", "a?", "*"])));
    journal.heartbeat(two, &[], 0).await.expect("heartbeat");
    journal.announce_patterns(two, &[], 0).await.expect("taken back");
    assert_eq!(known().await, Some(patterns(&["quiz-*", "a?"])));
}

pub(crate) async fn a_survey_tells_everything_at_once(journal: &impl Journal) {
    let server = journal.survey(SHARD, true).await.expect("survey").server;
    let empty = Survey {
        server,
        append: 0,
        commit: 0,
        doubt: Some(0),
        gateways: vec![],
        damaged_gateways: vec![],
        active: vec![],
        rooms: vec![],
        damaged_rooms: vec![],
        due: vec![],
        next: None,
    };
    assert_eq!(journal.survey(SHARD, true).await.expect("survey"), empty);
    let mut gateways = [TestGateway::register(journal).await, TestGateway::register(journal).await];
    gateways.sort_by_key(|gateway| gateway.incarnation);
    let id = gateways[0].write(journal, room(0), "a").await;
    gateways[1].write(journal, room(1), "b").await;
    TestGateway::register_in(journal, ShardId(0)).await.write(journal, room_of(ShardId(0), 0), "elsewhere").await;
    let lease = claim(journal).await;
    journal.fence(SHARD, lease, gateways[1].incarnation).await.expect("fence");
    journal.commit(&commit(lease, 1, vec![part(room(0), 1, 0, 1, id)])).await.expect("commit");

    let watermark = at(1);
    let record = |n: usize, fenced| GatewayRecord { incarnation: gateways[n].incarnation, number: 1, watermark, fenced, server };
    let mut rooms = vec![head(room(0), 1, 1, at(1)), head(room(1), 2, 0, at(1))];
    rooms.sort_by(|a, b| a.room.cmp(&b.room));
    let (gateways, active) = (vec![record(0, false), record(1, true)], vec![room(1)]);
    let mut expected = Survey {
        server,
        append: 2,
        commit: 1,
        doubt: Some(0),
        gateways,
        damaged_gateways: vec![],
        active,
        rooms,
        damaged_rooms: vec![],
        due: vec![],
        next: None,
    };
    assert_eq!(journal.survey(SHARD, true).await.expect("survey"), expected);
    expected.rooms.clear();
    assert_eq!(journal.survey(SHARD, false).await.expect("survey"), expected);
}

pub(crate) async fn steps_for_shards_and_rooms_of_others_are_refused(journal: &impl Journal) {
    let nowhere = ShardId(SHARDS);
    let (someone, foreign) = (Incarnation::random(), room_of(ShardId(1), 0));
    let lease = Lease { epoch: 1, owner: someone, server: Incarnation::NONE, home: HOME };
    let errors = [
        journal.register(nowhere, someone, Seen::default(), &[]).await.map(|_| ()),
        journal.register(SHARD, someone, Seen::default(), std::slice::from_ref(&foreign)).await.map(|_| ()),
        journal.testify(nowhere, Witness::NONE).await.map(|_| ()),
        journal.leave(nowhere, someone).await,
        journal.bells(&[SHARD, nowhere]).await.map(|_| ()),
        journal.survey(nowhere, false).await.map(|_| ()),
        journal.claim(nowhere, None, someone, unix_ms(), &Homing::default()).await.map(|_| ()),
        journal.release(nowhere, lease).await,
        journal.fence(nowhere, lease, someone).await.map(|_| ()),
        journal.heads(nowhere, &[]).await.map(|_| ()),
        journal.heads(SHARD, std::slice::from_ref(&foreign)).await.map(|_| ()),
        journal.end_room(SHARD, lease, &foreign, 0).await.map(|_| ()),
        journal.death(SHARD, lease, someone, &entry(foreign.clone(), at(1), "")).await.map(|_| ()),
        journal.commit(&commit(lease, 1, vec![part(foreign, 1, 0, 1, StreamId::default())])).await.map(|_| ()),
    ];
    for (n, error) in errors.into_iter().enumerate() {
        assert!(matches!(error, Err(JournalError::Refused(_))), "{n}: {error:?}");
    }
}

pub(crate) async fn an_owner_that_was_lost_is_counted_where_something_was_unresolved(journal: &impl Journal) {
    let mut gateway = TestGateway::register(journal).await;
    let (busy, done) = (gateway.write(journal, room(0), "a").await, gateway.write(journal, room(1), "b").await);
    let deaths = async |n| load(journal, &room(n)).await.expect("load").deaths;
    let first = claim(journal).await;
    assert_eq!(deaths(0).await, 0, "nobody had it");
    journal.commit(&commit(first, 1, vec![part(room(1), 1 + 1, 0, 1, done)])).await.expect("commit");
    let second = claim(journal).await;
    assert_eq!((deaths(0).await, deaths(1).await), (1, 0), "an owner was lost while room 0 had something unresolved");
    let third = claim(journal).await;
    assert_eq!((deaths(0).await, deaths(1).await), (2, 0));
    assert_eq!(
        journal.claim(SHARD, Some(second), second.owner, unix_ms(), &Homing::default()).await.expect("claim"),
        Leased::Lost
    );
    assert_eq!(deaths(0).await, 2, "a claim that comes too late counts nothing");
    journal.release(SHARD, third).await.expect("release");
    let fourth = claim(journal).await;
    assert_eq!(deaths(0).await, 2, "one that let go is not lost");
    let again = journal.claim(SHARD, Some(fourth), fourth.owner, unix_ms(), &Homing::default()).await.expect("claim");
    let Leased::Done(fourth) = again else { panic!("{again:?}") };
    assert_eq!(deaths(0).await, 2, "one that claims again lives");
    gateway.write(journal, room(0), "c").await;
    journal.commit(&commit(fourth, 2, vec![part(room(0), 1, 0, 1, busy)])).await.expect("commit");
    assert_eq!(deaths(0).await, 0, "a verdict: whoever died, died of something else");
    claim(journal).await;
    assert_eq!(deaths(0).await, 1);
}

/// A commit that says when a room's next timer is due, and nothing else.
fn due(n: usize, era: u64, ms: Option<u64>) -> RoomCommit {
    RoomCommit { due: Some(ms), ..part(room(n), era, 0, 0, StreamId::default()) }
}

pub(crate) async fn rooms_are_told_page_by_page_while_others_come_and_go(journal: &impl Journal) {
    // Redis 8 and Valkey tell of up to 128 at once, however few were asked for.
    const STAY: usize = 80;
    let mut gateway = TestGateway::register(journal).await;
    let lease = claim(journal).await;
    let mut parts = Vec::new();
    for n in 0..2 * STAY {
        let id = gateway.write(journal, room(n), "a").await;
        parts.push(RoomCommit { due: Some(Some(n as u64)), ..part(room(n), 1 + n as u64, 0, 1, id) });
    }
    assert_eq!(journal.commit(&commit(lease, 1, parts)).await.expect("commit"), Committed::Done);

    let (mut due, mut rooms, mut pages) = (BTreeSet::new(), BTreeSet::new(), 0);
    let mut next = Some(RoomsPlace::default());
    while let Some(place) = next {
        let page = journal.rooms(SHARD, &place, 3).await.expect("a page");
        assert_eq!((page.server, page.damaged_rooms.len()), (lease.server, 0));
        due.extend(page.due);
        rooms.extend(page.rooms.into_iter().map(|head| (head.room, head.seq)));
        next = page.next;
        // Meanwhile one ends, and one is new.
        if pages < STAY {
            let ended = journal.end_room(SHARD, lease, &room(STAY + pages), 1).await.expect("ended");
            assert_eq!(ended, Leased::Done(true));
            gateway.write(journal, room(2 * STAY + pages), "b").await;
        }
        pages += 1;
    }
    assert!(pages > 2, "{pages}");
    for n in 0..STAY {
        assert!(due.contains(&(room(n), n as u64)) && rooms.contains(&(room(n), 1)), "{n}");
    }
}

pub(crate) async fn rooms_with_timers_are_told_by_when_they_are_due(journal: &impl Journal) {
    let mut gateway = TestGateway::register(journal).await;
    let mut ids = Vec::new();
    for n in 0..4 {
        ids.push(gateway.write(journal, room(n), "a").await);
    }
    let told = async || journal.survey(SHARD, true).await.expect("survey").due;
    assert_eq!(told().await, []);
    let lease = claim(journal).await;
    // The largest that a room's time can be, and one that a double has no exact neighbour of.
    let (first, far) = (1_700_000_000_123, u64::MAX / 1_000_000);
    let parts = vec![due(0, 1, Some(far)), due(1, 2, Some(first)), due(2, 3, None), due(3, 4, Some(first + 1))];
    journal.commit(&commit(lease, 1, parts)).await.expect("commit");
    assert_eq!(told().await, [(room(1), first), (room(3), first + 1), (room(0), far)]);
    assert_eq!(journal.survey(SHARD, false).await.expect("survey").due, [], "not asked for");

    // One changes, one is left as it is, one has no timer any more.
    let kept = part(room(1), 2, 0, 1, ids[1]);
    journal.commit(&commit(lease, 2, vec![due(0, 1, Some(5)), kept, due(3, 4, None)])).await.expect("commit");
    assert_eq!(told().await, [(room(0), 5), (room(1), first)]);
    assert_eq!(journal.end_room(SHARD, lease, &room(1), 0).await.expect("end"), Leased::Done(false));
    assert_eq!(told().await.len(), 2);
    assert_eq!(journal.end_room(SHARD, lease, &room(1), 1).await.expect("end"), Leased::Done(true));
    assert_eq!(told().await, [(room(0), 5)]);
    // Equal moments are told by name.
    journal.commit(&commit(lease, 3, vec![due(3, 4, Some(5)), due(2, 3, Some(5))])).await.expect("commit");
    let mut equal = [0, 2, 3].map(|n| (room(n), 5));
    equal.sort();
    assert_eq!(told().await, equal);
    // Of another owner's commit nothing is stored.
    let other = Lease { owner: Incarnation::random(), ..lease };
    let refused = journal.commit(&commit(other, 4, vec![due(0, 1, None)])).await;
    assert_eq!((refused.expect("an answer"), told().await.len()), (Committed::Fenced, 3));
}

pub(crate) async fn an_owner_that_was_lost_is_counted_where_a_timer_was_due(journal: &impl Journal) {
    let mut gateway = TestGateway::register(journal).await;
    let lease = claim(journal).await;
    let (now, mut parts) = (unix_ms(), Vec::new());
    for (n, ms) in [(0, Some(now - 1_000)), (1, Some(now + 600_000)), (2, None)] {
        let id = gateway.write(journal, room(n), "a").await;
        parts.push(RoomCommit { due: Some(ms), ..part(room(n), n as u64 + 1, 0, 1, id) });
    }
    let unresolved = gateway.write(journal, room(3), "a").await;
    parts.push(RoomCommit { due: Some(Some(now - 2_000)), ..part(room(3), 4, 0, 0, StreamId::default()) });
    journal.commit(&commit(lease, 1, parts)).await.expect("commit");
    let deaths = async || {
        let mut all = Vec::new();
        for n in 0..4 {
            all.push(load(journal, &room(n)).await.expect("load").deaths);
        }
        all
    };
    let lost = claim(journal).await;
    assert_eq!(deaths().await, [1, 0, 0, 1], "where something was due, and once where something was unresolved, too");
    journal.release(SHARD, lost).await.expect("release");
    let lease = claim(journal).await;
    assert_eq!(deaths().await, [1, 0, 0, 1], "one that let go is not lost");
    // Its timer fired.
    let fired = RoomCommit { due: Some(None), ..part(room(0), 1, 1, 2, last(journal, &room(0)).await) };
    let resolved = RoomCommit { due: Some(None), ..part(room(3), 4, 0, 1, unresolved) };
    journal.commit(&commit(lease, 2, vec![fired, resolved])).await.expect("commit");
    claim(journal).await;
    assert_eq!(deaths().await, [0, 0, 0, 0]);
}

pub(crate) async fn attempts_are_counted_by_name_until_the_seq_rises(journal: &impl Journal) {
    let mut gateway = TestGateway::register(journal).await;
    let id = gateway.write(journal, room(0), "a").await;
    let lease = claim(journal).await;
    let attempt = async |lease, name| journal.attempt(SHARD, lease, &room(0), name).await.expect("attempt");
    assert_eq!(attempt(lease, 7).await, Leased::Done(1));
    assert_eq!(attempt(lease, 7).await, Leased::Done(1), "the same one, asked again");
    assert_eq!(attempt(lease, 8).await, Leased::Done(2));
    assert_eq!(load(journal, &room(0)).await.expect("load").attempts, 2);
    let next = claim(journal).await;
    assert_eq!(attempt(lease, 9).await, Leased::Lost);
    assert_eq!(attempt(next, 8).await, Leased::Done(3), "another owner's is another");
    assert_eq!(journal.attempt(SHARD, next, &room(5), 1).await.expect("attempt"), Leased::Done(0), "no such room");
    journal.commit(&commit(next, 1, vec![part(room(0), 1, 0, 1, id)])).await.expect("commit");
    assert_eq!(load(journal, &room(0)).await.expect("load").attempts, 0);
    assert_eq!(attempt(next, 8).await, Leased::Done(1), "of the next event");
}
