//! What gateways rely on: registration, appends, bells, pushes.

use lasthit::internals::clock::epoch_us;
use lasthit::internals::limits::{FLUSH_EVENTS_MAX, POKE_IDLE, ROOMS_PER_SHARD_MAX};
use lasthit::internals::wire::push::{self, Push};
use lasthit::journal::{
    Appended, Bell, Committed, GatewayRecord, Homing, Journal, JournalError, Lease, Leased, Part, ProcessRecord, Registered,
    RoomCommit, Seen, Witness, enter,
};
use lasthit::types::{HostId, Incarnation, Moment, RoomId, ShardId, StreamId};

use crate::fixture::{
    HOME, SHARD, TestGateway, at, bytes, claim, commit, entry, head, last, load, message, part, read, room, room_of, subscribed,
};

pub(crate) async fn timelines_are_numbered_by_name(journal: &impl Journal) {
    let first = journal.timeline("boot-1").await.expect("timeline");
    let second = journal.timeline("boot-2").await.expect("timeline");
    assert!(0 < first && first < second);
    assert_eq!(journal.timeline("boot-1").await.expect("timeline"), first);
    assert!(journal.timeline("last").await.expect("timeline") > second, "no name is special");
    journal.ping().await.expect("ping");
}

/// A host without an address can have no second one beside it; one of an earlier version can have none at all.
pub(crate) async fn who_enters_looks_who_is_there(journal: &impl Journal) {
    let me = Incarnation::random();
    let enters = async |part, url| enter(journal, me, part, url, epoch_us).await;
    let refused = async |part, url, words: &[&str]| {
        let error = enters(part, url).await.expect_err("refused").to_string();
        assert!(words.iter().all(|word| error.contains(word)) && !error.contains('\n'), "{error}");
    };
    let record = enters(Part::Gateway, None).await.expect("alone");
    assert!(
        record.incarnation == me.process() && record.host == *journal.host() && record.ready && record.cores > 0,
        "{record:?}"
    );
    assert!(record.offset_us > 1_600_000_000_000_000 && record.url.is_empty(), "{record:?}");
    assert!(journal.beat(&record, 0).await.expect("beats").processes.is_empty(), "it has not beaten yet");

    let there = HostId::new("there").expect("a name");
    let process = |n: u128, part| ProcessRecord { ready: true, ..ProcessRecord::new(Incarnation(n << 64), there.clone(), part) };
    let gateway = ProcessRecord { url: "wss://there.example".to_owned(), ..process(1, Part::Gateway) };
    journal.beat(&gateway, 60_000).await.expect("beat");
    enters(Part::Gateway, None).await.expect("a host without a worker is nobody's home");
    journal.beat(&process(2, Part::Worker), 60_000).await.expect("beat");
    refused(Part::Gateway, None, &["another host (there, wss://there.example)", "--advertise URL"]).await;
    assert_eq!(enters(Part::Gateway, Some("ws://here:1")).await.expect("reachable").url, "ws://here:1");
    enters(Part::Worker, None).await.expect("a worker needs no address");
    journal.beat(&process(2, Part::Worker), 0).await.expect("gone");
    enters(Part::Gateway, None).await.expect("alone again");

    let other = journal.timeline("earlier").await.expect("timeline");
    journal.live_timelines(other, 60_000).await.expect("it lives");
    refused(Part::Worker, None, &["earlier version", "another host"]).await;
    journal.live_timelines(other, 0).await.expect("gone");
    enters(Part::Worker, None).await.expect("gone");
}

pub(crate) async fn registering_is_idempotent(journal: &impl Journal) {
    let mut gateway = TestGateway::register(journal).await;
    gateway.append(journal, at(5), vec![]).await;
    let server = gateway.server;
    let record = GatewayRecord { incarnation: gateway.incarnation, number: 1, watermark: at(5), fenced: false, server };
    let seen = Seen { server, flush: 1, commit: 0, home: HOME };
    let rooms = [room(0)];
    for _ in 0..2 {
        let answer =
            journal.register(SHARD, gateway.incarnation, seen, &rooms).await.expect("register").here().expect("its home");
        let heads = vec![head(room(0), 0, 0, Moment::default())];
        assert_eq!(answer, Registered { server, record: record.clone(), rooms: heads, renewed: 0, commit: 0, home: HOME });
    }
}

/// What a gateway was told is stored, and is not: it may not go on, and who was told of its verdicts is in another era.
pub(crate) async fn a_gateway_that_has_seen_more_than_is_stored_begins_new_eras(journal: &impl Journal) {
    let mut gateway = TestGateway::register(journal).await;
    let id = gateway.write(journal, room(0), "a").await;
    gateway.write(journal, room(1), "b").await;
    let lease = claim(journal).await;
    journal.commit(&commit(lease, 1, vec![part(room(0), 1, 0, 3, id)])).await.expect("commit");
    let era = async |n| journal.heads(SHARD, &[room(n)]).await.expect("heads").1[0].era;

    // Of a flush that is not there nothing was delivered: only its gateway is void.
    let seen = Seen { server: gateway.server, flush: 3, commit: 1, home: HOME };
    let answer = journal.register(SHARD, gateway.incarnation, seen, &[]).await.expect("register").here().expect("its home");
    assert!(answer.record.fenced && answer.record.number == 2, "{answer:?}");
    assert_eq!((answer.renewed, answer.commit, era(0).await), (0, 1, 1));

    // Its commit 1 is another one: when this server met the shard there was none.
    let (other, server) = (Incarnation::random(), Incarnation::random());
    let seen = Seen { server, flush: 0, commit: 1, home: HOME };
    let answer = journal.register(SHARD, other, seen, &[room(1), room(0)]).await.expect("register").here().expect("its home");
    assert!(!answer.record.fenced, "{answer:?}");
    assert_eq!((answer.renewed, answer.commit), (2, 2), "both rooms; it counts as a commit");
    let eras: Vec<u64> = answer.rooms.iter().map(|head| head.era).collect();
    assert!(eras.iter().all(|era| *era > 2) && eras[0] != eras[1], "{eras:?}");
    assert_eq!(answer.rooms[1].seq, 3, "with what it has");
    assert_eq!((era(1).await, era(0).await), (eras[0], eras[1]));
    let loaded = load(journal, &room(0)).await.expect("load");
    assert_eq!((loaded.era, loaded.seq, loaded.entries.len()), (eras[1], 3, 1));

    // Once: whoever comes later finds it done. The commit of before is nobody's duplicate.
    let unknown = Incarnation::random();
    let answer = journal
        .register(SHARD, unknown, Seen { server, flush: 5, commit: 9, home: HOME }, &[])
        .await
        .expect("register")
        .here()
        .expect("its home");
    assert!(answer.record.fenced, "all its flushes are gone: {answer:?}");
    assert_eq!(answer.renewed, 0);
    assert_eq!(journal.testify(SHARD, Witness::NONE).await.expect("testify"), 0);
    assert_eq!((era(1).await, era(0).await), (eras[0], eras[1]));
    let again = commit(lease, 2, vec![part(room(0), eras[1], 3, 4, id)]);
    assert_eq!(journal.commit(&again).await.expect("commit"), Committed::Fenced);
    let next = commit(lease, 3, vec![part(room(0), eras[1], 3, 4, id)]);
    assert_eq!(journal.commit(&next).await.expect("commit"), Committed::Done);
}

/// Where gateways came first, a new deployment's first owner knows nothing, either. No operator is to be alarmed by that.
pub(crate) async fn no_room_counts_as_renewed_before_the_first_commit(journal: &impl Journal) {
    for (shard, testifies) in [(SHARD, true), (ShardId(1), false)] {
        let room = room_of(shard, 0);
        let mut gateway = TestGateway::register_in(journal, shard).await;
        gateway.append(journal, at(1), vec![entry(room.clone(), at(1), "a")]).await;
        let era = async || journal.heads(shard, std::slice::from_ref(&room)).await.expect("heads").1[0].era;
        let before = era().await;
        let renewed = if testifies {
            journal.testify(shard, Witness::NONE).await.expect("testify")
        } else {
            let seen = Seen { server: Incarnation::random(), flush: 1, commit: 1, home: HOME };
            journal.register(shard, gateway.incarnation, seen, &[]).await.expect("register").here().expect("its home").renewed
        };
        assert_eq!(renewed, 0);
        assert!(era().await > before, "its rooms have a new era");
    }
}

pub(crate) async fn a_worker_that_has_seen_more_than_is_stored_begins_new_eras(journal: &impl Journal) {
    let mut gateway = TestGateway::register(journal).await;
    let id = gateway.write(journal, room(0), "a").await;
    let lease = claim(journal).await;
    journal.commit(&commit(lease, 1, vec![part(room(0), 1, 0, 1, id)])).await.expect("commit");
    let doubt = async || journal.survey(SHARD, false).await.expect("survey").doubt;
    assert_eq!(doubt().await, Some(0), "nobody has said that the shard is new");

    let testify = async |witness| journal.testify(SHARD, witness).await.expect("testify");
    let witness = Witness { server: Incarnation::random(), epoch: Some(0), confirmed: 0, sent: 0 };
    for silent in [
        Witness { server: lease.server, ..Witness::NONE },
        Witness { epoch: Some(1), ..witness },
        Witness { epoch: None, ..witness },
        Witness { sent: 1, ..witness },
    ] {
        assert_eq!((testify(silent).await, doubt().await), (0, Some(0)), "{silent:?}");
    }
    assert_eq!((testify(witness).await, doubt().await), (0, None));
    assert_eq!(testify(Witness { confirmed: 1, ..witness }).await, 1, "the commit 1 that is there is a later one");
    assert_eq!(testify(Witness::NONE).await, 0, "once");
    let era = journal.heads(SHARD, &[room(0)]).await.expect("heads").1[0].era;
    assert!(era > 1);
    // A room that begins later has an era of its own.
    gateway.write(journal, room(1), "b").await;
    assert!(journal.heads(SHARD, &[room(1)]).await.expect("heads").1[0].era > era);
}

/// A step that is bound to another server than the one that would do it does nothing.
pub(crate) async fn steps_are_bound_to_their_server(journal: &impl Journal) {
    let mut gateway = TestGateway::register(journal).await;
    let id = gateway.write(journal, room(0), "a").await;
    let lease = claim(journal).await;
    assert_eq!(lease.server, gateway.server);
    let before = journal.survey(SHARD, true).await.expect("survey");
    let elsewhere = Lease { server: Incarnation::random(), ..lease };
    let mut flush = gateway.flush(at(9), vec![]);
    flush.server = elsewhere.server;
    assert_eq!(journal.append(&flush).await.expect("append"), Appended::Moved);
    let refused = journal.commit(&commit(elsewhere, 1, vec![part(room(0), 1, 0, 1, id)])).await;
    assert_eq!(refused.expect("commit"), Committed::Fenced);
    assert_eq!(journal.fence(SHARD, elsewhere, gateway.incarnation).await.expect("fence"), Leased::Lost);
    let death = journal.death(SHARD, elsewhere, gateway.incarnation, &entry(room(0), at(2), "d")).await;
    assert_eq!(death.expect("death"), Leased::Lost);
    assert_eq!(journal.end_room(SHARD, elsewhere, &room(0), 0).await.expect("end"), Leased::Lost);
    assert_eq!(
        journal
            .claim(SHARD, Some(elsewhere), Incarnation::random(), lasthit::internals::clock::unix_ms(), &Homing::default())
            .await
            .expect("claim"),
        Leased::Lost
    );
    journal.release(SHARD, elsewhere).await.expect("release");
    assert_eq!(journal.owners().await.expect("owners")[usize::from(SHARD.0)].lease, Some(lease));
    assert_eq!(journal.survey(SHARD, true).await.expect("survey"), before);
}

pub(crate) async fn a_flush_is_stored_once_and_in_sequence(journal: &impl Journal) {
    let mut gateway = TestGateway::register(journal).await;
    let first = gateway.flush(at(10), vec![entry(room(0), at(9), "a"), entry(room(1), at(10), "b")]);
    let heads = gateway.append(journal, first.watermark, first.entries.clone()).await;
    assert_eq!(heads, [head(room(0), 1, 0, at(9)), head(room(1), 2, 0, at(10))]);
    let heads = gateway.append(journal, at(20), vec![entry(room(0), at(20), "c")]).await;
    assert_eq!(heads, [head(room(0), 1, 0, at(20))]);

    // A repeat, even of an older flush, is answered with the heads of now, and writes nothing.
    let again = journal.append(&first).await.expect("append");
    assert_eq!(again, Appended::Stored(vec![head(room(0), 1, 0, at(20)), head(room(1), 2, 0, at(10))]));
    let survey = journal.survey(SHARD, false).await.expect("survey");
    assert_eq!((survey.append, survey.gateways[0].number, survey.gateways[0].watermark), (2, 2, at(20)));
    let stored: Vec<_> = read(journal, &room(0), StreamId::default()).await.expect("read").into_iter().map(|(_, b)| b).collect();
    assert_eq!(stored, [bytes("a"), bytes("c")]);
}

pub(crate) async fn a_gap_is_answered_with_what_is_stored(journal: &impl Journal) {
    let mut gateway = TestGateway::register(journal).await;
    gateway.append(journal, at(10), vec![]).await;
    let gap = Appended::Gap { number: 1, watermark: at(10) };
    let mut ahead = gateway.flush(at(20), vec![entry(room(0), at(15), "x")]);
    ahead.number = 3;
    assert_eq!(journal.append(&ahead).await.expect("append"), gap);
    // Right number, wrong predecessor: one nanosecond, which no double tells apart here.
    let mut beside = gateway.flush(at(20), vec![entry(room(0), at(15), "x")]);
    beside.previous = at(11);
    assert_eq!(journal.append(&beside).await.expect("append"), gap);
    assert_eq!(journal.heads(SHARD, &[room(0)]).await.expect("heads").1, [head(room(0), 0, 0, Moment::default())]);
    assert_eq!(journal.survey(SHARD, true).await.expect("survey").append, 1);
}

pub(crate) async fn a_flush_that_contradicts_itself_is_refused(journal: &impl Journal) {
    let mut gateway = TestGateway::register(journal).await;
    gateway.append(journal, at(10), vec![]).await;
    let good = gateway.flush(at(20), vec![entry(room(0), at(15), "x")]);
    let mut bad = vec![good.clone(); 6];
    bad[0].watermark = at(9);
    bad[1].entries[0].top = at(10);
    bad[2].entries[0].top = at(21);
    bad[3].entries.push(entry(room(0), at(16), "twice"));
    bad[4].entries[0].room = room_of(ShardId(1), 0);
    bad[5].number = 0;
    for flush in bad {
        let refused = journal.append(&flush).await;
        assert!(matches!(refused, Err(JournalError::Refused(_))), "{flush:?}: {refused:?}");
    }
    assert_eq!(journal.append(&good).await.expect("append"), Appended::Stored(vec![head(room(0), 1, 0, at(15))]));
}

pub(crate) async fn only_a_registered_gateway_that_is_not_fenced_appends(journal: &impl Journal) {
    let mut gateway = TestGateway::register(journal).await;
    let mut stranger = gateway.flush(at(1), vec![]);
    stranger.incarnation = Incarnation::random();
    assert_eq!(journal.append(&stranger).await.expect("append"), Appended::Fenced);

    let stored = gateway.flush(at(1), vec![]);
    gateway.append(journal, at(1), vec![]).await;
    let lease = claim(journal).await;
    journal.fence(SHARD, lease, gateway.incarnation).await.expect("fence");
    assert_eq!(journal.append(&gateway.flush(at(2), vec![])).await.expect("append"), Appended::Fenced);
    assert_eq!(journal.append(&stored).await.expect("append"), Appended::Fenced, "not even its last one again");
    assert_eq!(journal.survey(SHARD, false).await.expect("survey").append, 1);
    // A fence holds for its shard; another one has its own.
    TestGateway::register_in(journal, ShardId(0)).await.append(journal, at(1), vec![]).await;
}

/// Everything of it is stored, so nobody has to wait for it.
pub(crate) async fn a_gateway_that_left_appends_no_more(journal: &impl Journal) {
    let (mut gone, mut living) = (TestGateway::register(journal).await, TestGateway::register(journal).await);
    gone.write(journal, room(0), "g").await;
    living.write(journal, room(0), "l").await;
    for _ in 0..2 {
        journal.leave(SHARD, gone.incarnation).await.expect("leave");
        journal.leave(SHARD, Incarnation::random()).await.expect("a stranger's");
        let known = journal.survey(SHARD, false).await.expect("survey").gateways;
        let expected = |of: &TestGateway, fenced| GatewayRecord {
            incarnation: of.incarnation,
            number: 1,
            watermark: of.watermark,
            fenced,
            server: of.server,
        };
        let mut all = vec![expected(&gone, true), expected(&living, false)];
        all.sort_by_key(|record| record.incarnation);
        assert_eq!(known, all);
    }
    assert_eq!(journal.append(&gone.flush(at(99), vec![])).await.expect("append"), Appended::Fenced);
    living.write(journal, room(0), "on").await;
    let lease = claim(journal).await;
    assert_eq!(journal.forget(SHARD, lease, &[gone.incarnation]).await.expect("forget"), Leased::Done(()));
    assert_eq!(journal.survey(SHARD, false).await.expect("survey").gateways.len(), 1);
}

pub(crate) async fn a_rooms_top_never_falls(journal: &impl Journal) {
    let mut ahead = TestGateway::register(journal).await;
    let mut behind = TestGateway::register(journal).await;
    ahead.append(journal, at(101), vec![entry(room(0), at(101), "a")]).await;
    let heads = behind.append(journal, at(100), vec![entry(room(0), at(100), "b")]).await;
    assert_eq!(heads, [head(room(0), 1, 0, at(101))]);
    let rooms = [room(1), room(0)];
    let heads = journal.heads(SHARD, &rooms).await.expect("heads").1;
    assert_eq!(heads, [head(room(1), 0, 0, Moment::default()), head(room(0), 1, 0, at(101))]);
    assert_eq!(journal.heads(SHARD, &[]).await.expect("heads").1, []);
}

pub(crate) async fn bells_are_numbered_and_carry_the_flush(journal: &impl Journal) {
    let mut bells = journal.bells(&[SHARD]).await.expect("bells");
    subscribed(&mut bells).await;
    let mut gateway = TestGateway::register(journal).await;
    let first = gateway.flush(at(3), vec![entry(room(0), at(2), "a"), entry(room(1), at(3), "\u{0}b\u{7f}")]);
    gateway.append(journal, at(3), first.entries.clone()).await;
    journal.append(&first).await.expect("a repeat rings no bell");
    gateway.append(journal, at(4), vec![]).await;

    let ids = [last(journal, &room(0)).await, last(journal, &room(1)).await];
    let entries = vec![(room(0), ids[0], bytes("a")), (room(1), ids[1], bytes("\u{0}b\u{7f}"))];
    let (shard, incarnation) = (SHARD, gateway.incarnation);
    assert_eq!(
        message(&mut bells).await,
        Bell { shard, append: 1, incarnation, number: 1, watermark: at(3), entries, poked: vec![] }
    );
    let bare = Bell { shard, append: 2, incarnation, number: 2, watermark: at(4), entries: vec![], poked: vec![] };
    assert_eq!(message(&mut bells).await, bare);
}

pub(crate) async fn an_append_asks_the_idle_gateways_inside(journal: &impl Journal) {
    let busy_ns = u64::try_from(POKE_IDLE.as_nanos()).expect("a short time");
    let [mut asking, mut inside, outside] =
        [TestGateway::register(journal).await, TestGateway::register(journal).await, TestGateway::register(journal).await];
    let lease = claim(journal).await;
    let mut bells = journal.bells(&[SHARD]).await.expect("bells");
    subscribed(&mut bells).await;
    let mut heard = journal.pushes(inside.incarnation).await.expect("pushes");
    subscribed(&mut heard).await;

    asking.append(journal, at(1), vec![entry(room(0), at(1), "nobody is known to be inside")]).await;
    assert_eq!(message(&mut bells).await.poked, []);
    let told = vec![asking.incarnation, inside.incarnation];
    let part = RoomCommit { gateways: Some(told), ..part(room(0), 1, 0, 1, last(journal, &room(0)).await) };
    assert_eq!(journal.commit(&commit(lease, 1, vec![part])).await.expect("commit"), Committed::Done);

    // From the first flush on, whose sender has promised nothing yet; a repeat asks nobody.
    let flush = asking.flush(at(5 * busy_ns), vec![entry(room(0), at(2), "a"), entry(room(1), at(3), "b")]);
    asking.append(journal, flush.watermark, flush.entries.clone()).await;
    journal.append(&flush).await.expect("a repeat");
    let poke = |ns| push::encode(&Push::Probe { shard: SHARD, until: at(ns) });
    assert_eq!(message(&mut heard).await, poke(5 * busy_ns));
    assert_eq!(message(&mut bells).await.poked, [inside.incarnation]);

    // Whoever appended a moment ago does so again by itself; a bare watermark and a room of one's own ask nobody.
    inside.append(journal, at(5 * busy_ns), vec![]).await;
    asking.append(journal, at(6 * busy_ns), vec![entry(room(0), at(6 * busy_ns), "c")]).await;
    asking.append(journal, at(8 * busy_ns), vec![]).await;
    asking.append(journal, at(9 * busy_ns), vec![entry(room(1), at(9 * busy_ns), "d")]).await;
    for _ in 0..4 {
        assert_eq!(message(&mut bells).await.poked, []);
    }
    asking.append(journal, at(10 * busy_ns), vec![entry(room(0), at(10 * busy_ns), "e")]).await;
    assert_eq!(message(&mut heard).await, poke(10 * busy_ns));
    assert_eq!(message(&mut bells).await.poked, [inside.incarnation]);

    // Not the dead, not those who left, never oneself.
    journal.fence(SHARD, lease, inside.incarnation).await.expect("fence");
    asking.append(journal, at(12 * busy_ns), vec![entry(room(0), at(12 * busy_ns), "f")]).await;
    assert_eq!(message(&mut bells).await.poked, []);
    let told = vec![outside.incarnation];
    let part = RoomCommit { gateways: Some(told), ..self::part(room(0), 1, 1, 2, last(journal, &room(0)).await) };
    assert_eq!(journal.commit(&commit(lease, 2, vec![part])).await.expect("commit"), Committed::Done);
    asking.append(journal, at(14 * busy_ns), vec![entry(room(0), at(14 * busy_ns), "g")]).await;
    assert_eq!(message(&mut bells).await.poked, [outside.incarnation]);
}

/// Whatever a step publishes is read by those whom it is for: a message that cannot be read costs a survey.
pub(crate) async fn every_message_of_a_step_is_read(journal: &impl Journal) {
    let mut bells = journal.bells(&[SHARD]).await.expect("bells");
    subscribed(&mut bells).await;
    let (mut asking, inside) = (TestGateway::register(journal).await, TestGateway::register(journal).await);
    let mut heard = journal.pushes(inside.incarnation).await.expect("pushes");
    subscribed(&mut heard).await;
    let lease = claim(journal).await;

    // An append with and without entries, of which the second asks who is inside; a commit; a probe; a death.
    let id = asking.write(journal, room(0), "a").await;
    let mut first = commit(lease, 1, vec![RoomCommit { gateways: Some(vec![inside.incarnation]), ..part(room(0), 1, 0, 1, id) }]);
    let probe = |ns| Push::Probe { shard: SHARD, until: at(ns) };
    first.pushes = vec![(inside.incarnation, push::encode(&probe(7)))];
    journal.commit(&first).await.expect("commit");
    asking.write(journal, room(0), "b").await;
    asking.append(journal, at(9), vec![]).await;
    journal.publish(Some(SHARD), inside.incarnation, push::encode(&probe(8))).await.expect("publish");
    journal.fence(SHARD, lease, inside.incarnation).await.expect("fence");
    journal.death(SHARD, lease, inside.incarnation, &entry(room(0), at(10), "d")).await.expect("death");

    let ring = async |bells: &mut _, append, incarnation, number, watermark, poked: &[Incarnation]| {
        let bell: Bell = message(bells).await;
        let Bell { entries, .. } = bell.clone();
        assert_eq!(bell, Bell { shard: SHARD, append, incarnation, number, watermark, entries, poked: poked.to_vec() });
    };
    ring(&mut bells, 1, asking.incarnation, 1, at(1), &[]).await;
    ring(&mut bells, 2, asking.incarnation, 2, at(2), &[inside.incarnation]).await;
    ring(&mut bells, 3, asking.incarnation, 3, at(9), &[]).await;
    ring(&mut bells, 4, inside.incarnation, 0, Moment::default(), &[]).await;
    for expected in [probe(7), probe(2), probe(8)] {
        assert_eq!(push::decode(&message(&mut heard).await), Ok(expected));
    }

    // A gateway that an earlier server knew: the bell rings with the count as it stands.
    let known = Incarnation::random();
    let seen = Seen { server: Incarnation::random(), flush: 1, commit: 0, home: HOME };
    journal.register(SHARD, known, seen, &[]).await.expect("register").here().expect("its home");
    ring(&mut bells, 4, known, 0, Moment::default(), &[]).await;
    // The process has another turn since, which has flushed nothing, and was told of a commit.
    let seen = Seen { flush: 0, commit: 1, ..seen };
    journal.register(SHARD, known.turn(1), seen, &[]).await.expect("register").here().expect("its home");
    let again: Bell = message(&mut bells).await;
    assert_eq!((again.incarnation, again.number), (known.turn(1), 0));
}

pub(crate) async fn every_listener_hears_the_bells_of_its_shards(journal: &impl Journal) {
    let other = ShardId(1);
    let mut both = journal.bells(&[SHARD, other]).await.expect("bells");
    let mut one = journal.bells(&[other]).await.expect("bells");
    subscribed(&mut both).await;
    subscribed(&mut one).await;
    let mut gateways = [TestGateway::register(journal).await, TestGateway::register_in(journal, other).await];
    for round in 1..=50 {
        for gateway in &mut gateways {
            gateway.append(journal, at(round), vec![]).await;
        }
    }
    for round in 1..=50 {
        let heard = [message(&mut both).await, message(&mut both).await];
        assert_eq!(heard.map(|bell| (bell.shard, bell.append)), [(SHARD, round), (other, round)]);
        let bell = message(&mut one).await;
        assert_eq!((bell.shard, bell.append), (other, round));
    }
    drop(one);
    gateways[1].append(journal, at(51), vec![]).await;
    assert_eq!(message(&mut both).await.append, 51);
}

pub(crate) async fn pushes_arrive_in_the_order_of_their_steps(journal: &impl Journal) {
    let nowhere = Incarnation::random();
    let mut gateway = TestGateway::register(journal).await;
    let here = gateway.incarnation;
    for shard in [None, Some(SHARD)] {
        assert_eq!(journal.publish(shard, here, bytes("early")).await.expect("publish"), 0);
    }
    let mut pushes = journal.pushes(here).await.expect("pushes");
    subscribed(&mut pushes).await;
    let lease = claim(journal).await;
    let id = gateway.write(journal, room(0), "a").await;

    let mut first = commit(lease, 1, vec![part(room(0), 1, 0, 1, id)]);
    first.pushes = vec![(here, bytes("1")), (nowhere, bytes("-")), (here, bytes("2"))];
    journal.commit(&first).await.expect("commit");
    journal.commit(&first).await.expect("a repeat pushes nothing, or the same once more");
    let mut refused = commit(lease, 2, vec![part(room(0), 1, 0, 1, id)]);
    refused.pushes = vec![(here, bytes("never"))];
    journal.commit(&refused).await.expect("refused");
    assert_eq!(journal.publish(Some(SHARD), here, bytes("3")).await.expect("publish"), 1);
    assert_eq!(journal.publish(None, here, bytes("4")).await.expect("publish"), 1);
    let mut heard = Vec::new();
    while heard.last() != Some(&bytes("4")) {
        heard.push(message(&mut pushes).await);
    }
    if heard.len() == 6 {
        heard.drain(..2);
    }
    assert_eq!(heard, ["1", "2", "3", "4"].map(bytes));
}

pub(crate) async fn a_large_flush_is_one_step(journal: &impl Journal) {
    let mut bells = journal.bells(&[SHARD]).await.expect("bells");
    subscribed(&mut bells).await;
    let mut gateway = TestGateway::register(journal).await;
    let lease = claim(journal).await;
    let rooms: Vec<_> = (0..FLUSH_EVENTS_MAX).map(|n| format!("r{n}")).collect();
    let rooms = rooms.iter().map(|name| name.parse().expect("name"));
    let rooms: Vec<_> = rooms.filter(|room| ShardId::of(room, journal.shards()) == SHARD).collect();
    let payload = "x".repeat(2000);
    gateway.append(journal, at(1), rooms.iter().map(|room| entry(room.clone(), at(1), &payload)).collect()).await;
    let bell = message(&mut bells).await;
    assert_eq!(bell.entries.len(), rooms.len());
    let parts = bell.entries.iter().zip(1..).map(|((room, id, _), era)| part(room.clone(), era, 0, 1, *id)).collect();
    journal.commit(&commit(lease, 1, parts)).await.expect("commit");
    let survey = journal.survey(SHARD, true).await.expect("survey");
    assert_eq!((survey.active.len(), survey.rooms.len()), (0, rooms.len()));
    assert!(matches!(journal.fence(SHARD, lease, gateway.incarnation).await, Ok(Leased::Done(_))));
}

pub(crate) async fn a_shard_has_a_place_for_so_many_rooms(journal: &impl Journal) {
    let mut gateway = TestGateway::register(journal).await;
    let lease = claim(journal).await;
    let names = (0..).map(|n| format!("r{n}").parse::<RoomId>().expect("name"));
    let mut rooms = names.filter(|room| ShardId::of(room, journal.shards()) == SHARD);
    let old = rooms.next().expect("endless");
    gateway.append(journal, at(1), vec![entry(old.clone(), at(1), "a")]).await;
    let (mut left, mut ns) = (ROOMS_PER_SHARD_MAX - 2, 1);
    while left > 0 {
        let some = left.min(8_000);
        (left, ns) = (left - some, ns + 1);
        gateway.append(journal, at(ns), rooms.by_ref().take(some).map(|room| entry(room, at(ns), "a")).collect()).await;
    }
    let [newest, first_beyond, second_beyond] = std::array::from_fn(|_| rooms.next().expect("endless"));
    let top = at(ns + 1);
    let of = |rooms: [&RoomId; 4]| gateway.flush(top, rooms.into_iter().map(|room| entry(room.clone(), top, "b")).collect());
    let flush = of([&newest, &first_beyond, &old, &second_beyond]);
    for _ in 0..2 {
        let answer = journal.append(&flush).await.expect("append");
        assert_eq!(answer, Appended::Full(vec![first_beyond.clone(), second_beyond.clone()]), "and nothing is written");
    }
    gateway.append(journal, top, vec![entry(newest.clone(), top, "b"), entry(old, top, "b")]).await;

    // One ends: there is a place again.
    let id = last(journal, &newest).await;
    let era = journal.heads(SHARD, std::slice::from_ref(&newest)).await.expect("heads").1[0].era;
    let ended = commit(lease, 1, vec![part(newest.clone(), era, 0, 1, id)]);
    assert_eq!(journal.commit(&ended).await.expect("commit"), Committed::Done);
    assert_eq!(journal.end_room(SHARD, lease, &newest, 1).await.expect("ended"), Leased::Done(true));
    gateway.append(journal, at(ns + 2), vec![entry(first_beyond, at(ns + 2), "c")]).await;
}

pub(crate) async fn only_fenced_gateways_are_forgotten_and_they_stay_out(journal: &impl Journal) {
    let (mut dead, mut living) = (TestGateway::register(journal).await, TestGateway::register(journal).await);
    dead.write(journal, room(0), "d").await;
    living.write(journal, room(0), "l").await;
    let lease = claim(journal).await;
    assert!(matches!(journal.fence(SHARD, lease, dead.incarnation).await.expect("fence"), Leased::Done(_)));
    let both = [dead.incarnation, living.incarnation];
    let stale = Lease { epoch: lease.epoch + 1, ..lease };
    assert_eq!(journal.forget(SHARD, stale, &both).await.expect("forget"), Leased::Lost);
    assert_eq!(journal.survey(SHARD, false).await.expect("survey").gateways.len(), 2);
    for _ in 0..2 {
        assert_eq!(journal.forget(SHARD, lease, &both).await.expect("forget"), Leased::Done(()));
        let known: Vec<_> = journal.survey(SHARD, false).await.expect("survey").gateways.iter().map(|g| g.incarnation).collect();
        assert_eq!(known, [living.incarnation]);
    }
    let late = dead.flush(at(99), vec![entry(room(0), at(98), "late")]);
    assert_eq!(journal.append(&late).await.expect("append"), Appended::Fenced);
    living.write(journal, room(0), "on").await;
}

/// A gateway is stopped, fenced and forgotten, and wakes up at another server that has everything: nothing that it delivered
/// is missing, so no room begins a new era. It says what it has heard of: a commit that is missing shows all the same.
pub(crate) async fn who_was_forgotten_is_no_sign_of_a_loss(journal: &impl Journal) {
    let mut gone = TestGateway::register(journal).await;
    let id = gone.write(journal, room(0), "g").await;
    let lease = claim(journal).await;
    assert!(matches!(journal.fence(SHARD, lease, gone.incarnation).await.expect("fence"), Leased::Done(_)));
    assert_eq!(journal.forget(SHARD, lease, &[gone.incarnation]).await.expect("forget"), Leased::Done(()));
    journal.commit(&commit(lease, 1, vec![part(room(0), 1, 0, 1, id)])).await.expect("commit");

    let seen = Seen { server: Incarnation::random(), flush: 1, commit: 0, home: HOME };
    let answer = journal.register(SHARD, gone.incarnation, seen, &[room(0)]).await.expect("register").here().expect("its home");
    assert!(answer.record.fenced, "its flushes may be lost: {answer:?}");
    assert_eq!((answer.renewed, answer.rooms[0].era, answer.commit), (0, 1, 1), "no room begins a new era");

    let seen = Seen { commit: 1, ..seen };
    let answer =
        journal.register(SHARD, Incarnation::random(), seen, &[room(0)]).await.expect("register").here().expect("its home");
    assert_eq!((answer.renewed, answer.commit), (1, 2), "its commit 1 is another one");
}
