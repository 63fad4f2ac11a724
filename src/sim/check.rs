//! What must hold of every history. Each checker has its name in its message.

use std::collections::{BTreeMap, BTreeSet};

use super::client::Told;
use super::journal::SEED;
use super::ledger::RoomLog;
use super::rules::{self, Race};
use super::timers;
use super::world::World;
use crate::engine::RULES_FAILED;
use crate::limits::RECENT_IDS_PER_PLAYER_MAX;
use crate::types::{
    Audience, Entry, Flags, Incarnation, Moment, Outcome, Role, RoomId, ShardId, Stamp, StreamId, Verdict, VerdictKind,
};
use crate::wire::entry;

/// All of them.
pub(super) fn everything(world: &World) {
    for ((of, era), log) in &world.ledger.rooms {
        let room = format!("room {of}.{era}");
        let events = events(log);
        order(&room, log);
        numbers(&room, log);
        true_order(&room, log, &events);
        once(&room, log, &events);
        one_winner(&room, log, &events);
        changes(world, &room, log);
        replay(&room, of, log);
        timers::record(world, (of, *era), log);
    }
    arrivals(world);
    unproven(world);
    content(world);
    liveness(world);
    world.check_homes();
    switch(world);
}

fn entries(log: &RoomLog) -> impl Iterator<Item = (StreamId, Entry)> + '_ {
    log.entries.iter().map(|(at, bytes)| (*at, entry::decode(bytes).expect("an entry")))
}

/// Order: verdicts follow the stamps. An Open may lie below what was released before it was read (rule R3), and what a
/// worker writes for a dead gateway is stamped where that gateway stopped.
fn order(room: &str, log: &RoomLog) {
    let deaths: BTreeSet<(Incarnation, u64)> = entries(log)
        .filter(|(_, e)| e.death)
        .flat_map(|(_, e)| e.events.into_iter().map(move |v| (e.incarnation, v.ordinal)))
        .collect();
    let mut last: Option<&Verdict> = None;
    for verdict in &log.verdicts {
        if matches!(verdict.kind, VerdictKind::Open | VerdictKind::Rules)
            || deaths.contains(&(verdict.stamp.incarnation, verdict.stamp.ordinal))
        {
            continue;
        }
        if let Some(last) = last {
            assert!(
                last.stamp < verdict.stamp,
                "order: {room}: seq {} at {:?} comes before seq {} at {:?}",
                last.seq,
                last.stamp,
                verdict.seq,
                verdict.stamp
            );
        }
        last = Some(verdict);
    }
}

/// Order: the homes of a room's verdicts follow one another as their numbers do (rule H4). A change of program has none.
fn numbers(room: &str, log: &RoomLog) {
    let mut last = 0;
    for verdict in log.verdicts.iter().filter(|v| v.kind != VerdictKind::Rules) {
        let number = verdict.stamp.moment.timeline;
        assert!(last <= number, "homes: {room}: seq {} of {number} comes after one of {last}", verdict.seq);
        last = number;
    }
}

/// Order: of two rivals that nothing is flagged of, the one that really arrived first wins.
fn true_order(room: &str, log: &RoomLog, events: &Named) {
    let flagged = |v: &Verdict| v.flags.has(Flags::CLAMPED) || v.flags.has(Flags::UNPROVEN);
    let winners: BTreeMap<(&str, u64), &Verdict> = winners(log, events).filter(|(_, v)| !flagged(v)).collect();
    for verdict in log.verdicts.iter().filter(|v| v.outcome == Outcome::Denied("late".to_owned()) && !flagged(v)) {
        let contest = verdict.contest.as_deref().expect("late for a contest");
        if let Some(winner) = winners.get(&(contest, verdict.round)) {
            assert!(
                winner.stamp.moment <= verdict.stamp.moment,
                "order: {room}: {contest} went to seq {} although seq {} arrived first",
                winner.seq,
                verdict.seq
            );
            let comparable = winner.stamp.moment.timeline == verdict.stamp.moment.timeline;
            assert_eq!(
                verdict.behind_ns,
                comparable.then(|| verdict.stamp.moment.since(winner.stamp.moment)),
                "order: {room}: the margin of seq {}",
                verdict.seq
            );
        }
    }
}

fn winners<'a>(log: &'a RoomLog, events: &'a Named) -> impl Iterator<Item = ((&'a str, u64), &'a Verdict)> {
    use crate::types::EventKind;
    // A granted `next` names the contest as well: it begins the round that it names.
    let hits = move |v: &Verdict| match events.get(&(v.stamp.incarnation, v.stamp.ordinal)) {
        Some((_, EventKind::Data(bytes))) => crate::wire::action::decode(bytes).is_ok_and(|action| action.op == "hit"),
        _ => false,
    };
    let granted = log.verdicts.iter().filter(move |v| v.outcome == Outcome::Granted && hits(v));
    granted.filter_map(|v| v.contest.as_deref().map(|contest| ((contest, v.round), v)))
}

type Named = BTreeMap<(Incarnation, u64), (Stamp, crate::types::EventKind)>;

/// The events of a room by their names. What is not above its gateway's last ordinal does not count (rule R3).
fn events(log: &RoomLog) -> Named {
    let (mut named, mut last) = (Named::new(), BTreeMap::new());
    for (_, entry) in entries(log) {
        let known = last.get(&entry.incarnation).copied().unwrap_or(0);
        if entry.death && entry.events.iter().any(|event| event.ordinal <= known) {
            continue;
        }
        for event in &entry.events {
            let last = last.entry(entry.incarnation).or_insert(0);
            if event.ordinal > *last {
                *last = event.ordinal;
                named.insert((entry.incarnation, event.ordinal), (entry.stamp(event), event.kind.clone()));
            }
        }
    }
    named
}

/// Once: no event has two verdicts, no verdict is of nothing, and an id acts once.
fn once(room: &str, log: &RoomLog, events: &Named) {
    let (mut seen, mut acted) = (BTreeSet::new(), BTreeMap::new());
    for verdict in &log.verdicts {
        if verdict.kind == VerdictKind::Rules {
            continue;
        }
        let name = (verdict.stamp.incarnation, verdict.stamp.ordinal);
        assert!(seen.insert(name), "once: {room}: the event {:?} has two verdicts, one is seq {}", verdict.stamp, verdict.seq);
        if verdict.kind == VerdictKind::Timer {
            continue;
        }
        let stamp = events.get(&name).map(|(stamp, _)| *stamp);
        assert_eq!(stamp, Some(verdict.stamp), "once: {room}: seq {} decides what was not appended", verdict.seq);
        let (Some(player), Some(id)) = (&verdict.player, &verdict.id) else { continue };
        match verdict.outcome {
            Outcome::Repeat { of } => {
                assert_eq!(acted.get(&(player, id)), Some(&of), "once: {room}: seq {} repeats {of}", verdict.seq);
            }
            // Whether it acted before is no longer known, and so it does not act.
            Outcome::Void(ref why) if why == "forgotten" => {}
            _ => {
                let first = acted.insert((player, id), verdict.seq);
                assert_eq!(first, None, "once: {room}: {player} {id} acts again at seq {}", verdict.seq);
            }
        }
    }
}

/// One winner per contest and round.
fn one_winner(room: &str, log: &RoomLog, events: &Named) {
    let mut seen = BTreeMap::new();
    for (round, verdict) in winners(log, events) {
        if let Some(first) = seen.insert(round, verdict.seq) {
            panic!("one winner: {room}: {round:?} is won by seq {first} and by seq {}", verdict.seq);
        }
    }
    // Whoever was away while its player used more ids than a room remembers cannot be told from who acts twice.
    let used = |v: &Verdict| {
        log.verdicts.iter().take_while(|u| u.seq < v.seq).filter(|u| u.player == v.player && u.id.is_some()).count()
    };
    let is_forgotten = |v: &Verdict, reason: &str| reason == "forgotten" && used(v) > RECENT_IDS_PER_PLAYER_MAX;
    let void = log
        .verdicts
        .iter()
        .find(|v| matches!(&v.outcome, Outcome::Void(reason) if reason != RULES_FAILED && !is_forgotten(v, reason)));
    assert_eq!(void, None, "once: {room}: a void verdict");
}

/// A room's program changes only by a verdict, to a later push each time; what is refused is not tried again.
fn changes(world: &World, room: &str, log: &RoomLog) {
    let mut last = 0;
    for verdict in &log.verdicts {
        let Some(change) = &verdict.change else { continue };
        assert!(
            last < change.push && change.push <= world.pushed,
            "changes: {room}: push {} comes after push {last}",
            change.push
        );
        last = change.push;
        let refused = matches!(verdict.outcome, Outcome::Void(_));
        assert_eq!(refused, Race::is_refused(change.push), "changes: {room}: push {last}: {:?}", verdict.outcome);
    }
}

/// Replay: the streams give the same verdicts again.
fn replay(room: &str, of: &RoomId, log: &RoomLog) {
    let entries: Vec<_> = log.entries.iter().map(|(at, bytes)| (*at, entry::decode(bytes))).collect();
    let mut again = crate::worker::created(of, 1, Some(SEED), (Box::new(Race::of(of, 0)), 0));
    let (count, deviations) = crate::worker::replay(
        &mut again,
        &entries,
        &log.batches,
        crate::worker::Programs::Asked,
        &|program| Ok(rules::open(of, program)),
        |_, _| {},
    )
    .unwrap_or_else(|e| panic!("replay: {room}: {e}"));
    assert_eq!((count, deviations), (log.verdicts.len(), Vec::new()), "replay: {room}");
}

/// Order: what is not flagged bears its true arrival.
fn arrivals(world: &World) {
    for ((room, _), log) in &world.ledger.rooms {
        for verdict in log.verdicts.iter().filter(|v| v.kind == VerdictKind::Data && !v.flags.has(Flags::CLAMPED)) {
            let key = (room.clone(), verdict.player.clone().expect("a player"), verdict.id.clone().expect("an id"));
            let (Moment { timeline, ns }, shard) = (verdict.stamp.moment, ShardId::of(room, world.store.shards()));
            let arrivals = world.ledger.arrivals.get(&key);
            let here = |(host, at): &(u32, u64)| *at == ns && world.homes.was(shard, timeline, *host);
            assert!(
                arrivals.is_some_and(|arrivals| arrivals.iter().any(here)),
                "order: room {room}: seq {} is stamped {:?} and arrived at {arrivals:?}",
                verdict.seq,
                verdict.stamp.moment
            );
        }
    }
}

/// Order: whoever may have been beaten by what a dead gateway took along is flagged (rule R7).
fn unproven(world: &World) {
    let mut store = world.store.clone();
    for ((room, era), log) in &world.ledger.rooms {
        let shard = ShardId::of(room, store.shards());
        let known = store.survey(shard, false).expect("a shard").gateways;
        let forgotten = world.ledger.forgotten.iter().filter(|((of, _), _)| *of == shard).map(|((_, g), ns)| (*g, *ns));
        let mut watermarks: BTreeMap<Incarnation, u64> = BTreeMap::new();
        // One that was forgotten and comes back is known again, without a watermark.
        for (gateway, ns) in forgotten.chain(known.iter().map(|g| (g.incarnation, g.watermark.ns))) {
            let highest = watermarks.entry(gateway).or_default();
            *highest = ns.max(*highest);
        }
        let mut appended: BTreeSet<(Incarnation, u64)> = BTreeSet::new();
        let mut deaths: BTreeMap<Incarnation, u64> = BTreeMap::new();
        let mut opened: BTreeMap<Incarnation, u64> = BTreeMap::new();
        for (_, entry) in entries(log) {
            opened.entry(entry.incarnation).or_insert(entry.events[0].arrival.ns);
            if entry.death {
                deaths.entry(entry.incarnation).or_insert(entry.events[0].arrival.raw_ns.expect("the moment of the death"));
            } else {
                appended.extend(entry.events.iter().map(|e| (entry.incarnation, e.arrival.raw_ns.unwrap_or(e.arrival.ns))));
            }
        }
        for lost in world.ledger.lost.iter().filter(|l| l.room == *room) {
            let Some(death) = deaths.get(&lost.incarnation) else { continue };
            if appended.contains(&(lost.incarnation, lost.arrival_ns)) || lost.arrival_ns < opened[&lost.incarnation] {
                continue;
            }
            // The clock of another home says nothing about what it may have taken along (rule H4).
            let same = log.deaths.get(&lost.incarnation).is_none_or(|number| *number == lost.timeline);
            let ends = if same { *death } else { u64::MAX };
            // What came in under a published watermark would have been moved above it.
            let above = lost.arrival_ns.max(watermarks.get(&lost.incarnation).map_or(0, |w| *w));
            let within = |v: &&Verdict| {
                let Moment { timeline, ns } = v.stamp.moment;
                timeline == lost.timeline && ns > above && ns <= ends
            };
            let decides = |v: &&Verdict| matches!(v.kind, VerdictKind::Data | VerdictKind::Timer);
            for verdict in log.verdicts.iter().filter(decides).filter(within) {
                assert!(
                    verdict.flags.has(Flags::UNPROVEN),
                    "unproven: room {room}.{era}: seq {} at {} is not flagged; {:?} took along what arrived at {}, and died at {death}",
                    verdict.seq,
                    verdict.stamp.moment.ns,
                    lost.incarnation,
                    lost.arrival_ns
                );
            }
        }
    }
}

/// Contiguity: a `seq` says the same to everybody and for ever, and nothing that a session may see is left out. Rolled back:
/// who was told what the journal has lost is in another era afterwards, and knows it.
fn content(world: &World) {
    for client in &world.clients {
        for (index, told) in client.told.iter().enumerate() {
            let life = (client.room.clone(), told.era);
            let went_on = index < client.void || client.told[index + 1..].iter().any(|later| later.era != told.era);
            let log = world.ledger.rooms.get(&life);
            let empty = RoomLog::default();
            if world.ledger.shortened.contains(&life) {
                let differs = |v: &Verdict| {
                    let stored = usize::try_from(v.seq - 1).ok().and_then(|i| log.unwrap_or(&empty).verdicts.get(i));
                    stored.is_none_or(|stored| !says(log.unwrap_or(&empty), stored, told, v))
                };
                if told.to > log.unwrap_or(&empty).verdicts.len() as u64 || told.verdicts.values().any(differs) {
                    assert!(
                        went_on,
                        "rolled back: {} was told {} to {} of {life:?}, and not that it is void; of {} stored; void {}; it was told {:?}",
                        told.session,
                        told.after,
                        told.to,
                        log.unwrap_or(&empty).verdicts.len(),
                        client.void,
                        client.told.iter().map(|told| (&told.session, told.era, told.after, told.to)).collect::<Vec<_>>()
                    );
                    continue;
                }
            }
            let log = log.unwrap_or_else(|| panic!("contiguity: {} was told of era {}", client.player, told.era));
            for verdict in told.verdicts.values() {
                same(log, verdict, told, &client.room);
                let stored = &log.verdicts[usize::try_from(verdict.seq - 1).expect("small")];
                let foreign = stored.audience == Audience::Session && stored.session_id() != told.session;
                assert!(!foreign || client.role == Role::Server, "private: {} was told {stored:?}", told.session);
            }
            let range = usize::try_from(told.after).expect("small")..usize::try_from(told.to).expect("small");
            for verdict in &log.verdicts[range] {
                let visible = client.role == Role::Server
                    || verdict.audience == Audience::Room
                    || (verdict.audience == Audience::Session && verdict.session_id() == told.session)
                    || matches!(&verdict.audience, Audience::Players(players) if players.contains(&client.player));
                let repeat = matches!(verdict.outcome, Outcome::Repeat { .. }) && verdict.session_id() != told.session;
                assert!(
                    !visible || repeat || told.verdicts.contains_key(&verdict.seq),
                    "contiguity: {:?} in room {}.{} was told {} to {} without seq {}, which it may see: {verdict:?}",
                    told.session,
                    client.room,
                    told.era,
                    told.after,
                    told.to,
                    verdict.seq
                );
            }
        }
    }
}

/// Switch: over all connections of a player who may move, each action is answered once, and none overtakes another (rule X1).
fn switch(world: &World) {
    let of =
        |index: usize, id: &str| id.split_once('-').and_then(|(i, n)| (i.parse() == Ok(index)).then(|| n.parse::<u64>().ok())?);
    for (index, client) in world.clients.iter().enumerate().filter(|_| world.supervisor.is_some()) {
        let answered: BTreeSet<u64> = client.answered.iter().filter_map(|action| of(index, &action.id)).collect();
        assert_eq!(
            (answered.len() as u64, client.answered.len() as u64),
            (client.next, client.next),
            "switch: client {index} has {} actions, answered were {answered:?}",
            client.next
        );
        for ((room, era), log) in world.ledger.rooms.iter().filter(|((room, _), _)| *room == client.room) {
            let mut last = 0;
            for verdict in
                log.verdicts.iter().filter(|v| v.kind == VerdictKind::Data && v.player.as_ref() == Some(&client.player))
            {
                let id = verdict.id.as_deref().unwrap_or_default();
                let Some(number) = of(index, id).filter(|_| !client.late.contains(id)) else { continue };
                if matches!(verdict.outcome, Outcome::Repeat { .. }) {
                    continue;
                }
                assert!(
                    last < number,
                    "switch: room {room}.{era}: action {last} of client {index} overtook {number} at seq {}",
                    verdict.seq
                );
                last = number;
            }
        }
    }
}

/// What a session is to be told of a stored verdict.
fn expected(log: &RoomLog, stored: &Verdict, told: &Told) -> Verdict {
    match stored.outcome {
        Outcome::Repeat { of } if stored.session_id() == told.session => {
            let mut first = log.verdicts[usize::try_from(of - 1).expect("small")].clone();
            (first.seq, first.session, first.stamp.incarnation) = (stored.seq, stored.session, stored.stamp.incarnation);
            first
        }
        // What the rules say to one who joins is in its welcome.
        _ if stored.kind == VerdictKind::Open => Verdict { body: None, ..stored.clone() },
        _ => stored.clone(),
    }
}

fn same(log: &RoomLog, verdict: &Verdict, told: &Told, room: &RoomId) {
    let stored = &log.verdicts[usize::try_from(verdict.seq - 1).expect("small")];
    assert!(
        says(log, stored, told, verdict),
        "contiguity: room {room}: seq {} says something else to {}: {verdict:?} is stored as {stored:?}",
        verdict.seq,
        told.session
    );
}

/// Whether a session was told what is stored; a repeat stands for itself where the first verdict is no longer kept.
fn says(log: &RoomLog, stored: &Verdict, told: &Told, verdict: &Verdict) -> bool {
    let trimmed = matches!(stored.outcome, Outcome::Repeat { of } if of <= log.trimmed);
    *verdict == expected(log, stored, told) || trimmed && verdict == stored
}

/// Liveness: rooms that are damaged hold up no other.
pub(super) fn beside(world: &World) {
    let whole = |room: &RoomId| !world.spoiled.contains(room);
    let lives = world.ledger.rooms.iter().filter(|(life, _)| !world.ledger.left.contains(life));
    for ((room, era), log) in lives.filter(|((room, _), _)| whole(room)) {
        let resolved: BTreeSet<_> = log.verdicts.iter().map(|v| (v.stamp.incarnation, v.stamp.ordinal)).collect();
        let open = events(log).into_iter().find(|(name, _)| !resolved.contains(name));
        assert!(open.is_none(), "liveness: beside {:?} room {room}.{era}: {open:?} has no verdict", world.spoiled);
    }
    for (index, client) in world.clients.iter().enumerate().filter(|(_, client)| whole(&client.room)) {
        assert!(client.welcomed, "liveness: beside {:?} client {index} has no welcome", world.spoiled);
        assert!(client.open.is_empty(), "liveness: beside {:?} client {index}: {:?}", world.spoiled, client.open.keys());
    }
}

/// Liveness: after the faults everything is resolved and delivered, and whoever lives works.
fn liveness(world: &World) {
    let mut store = world.store.clone();
    for shard in 0..store.shards() {
        let survey = store.survey(ShardId(shard), true).expect("a shard");
        assert_eq!(survey.active, Vec::<RoomId>::new(), "liveness: shard {shard} has rooms that are not resolved");
        for gateway in &world.gateways {
            // A supervisor's are counted elsewhere.
            assert!(gateway.core.is_some() || world.supervisor.is_some(), "liveness: a gateway is not back");
            let Some(core) = &gateway.core else { continue };
            assert_eq!(
                core.session_count(),
                gateway.sessions.len(),
                "liveness: gateway {:?} has other sessions than connections",
                gateway.incarnation
            );
            let turn = core.turn_in(ShardId(shard));
            let fenced = survey.gateways.iter().any(|g| g.incarnation == turn && g.fenced);
            assert!(
                !fenced,
                "liveness: gateway {:?} lives, is fenced in shard {shard} and does not know it",
                gateway.incarnation
            );
        }
    }
    for ((room, era), log) in world.ledger.rooms.iter().filter(|(life, _)| !world.ledger.left.contains(life)) {
        let resolved: BTreeSet<_> = log.verdicts.iter().map(|v| (v.stamp.incarnation, v.stamp.ordinal)).collect();
        let open = events(log).into_iter().find(|(name, _)| !resolved.contains(name));
        assert!(open.is_none(), "liveness: room {room}.{era}: {open:?} has no verdict");
    }
    world.check_supervision();
    for (index, client) in world.clients.iter().enumerate() {
        assert!(client.welcomed, "liveness: client {index} ({}) has no welcome", client.player);
        assert!(client.open.is_empty(), "liveness: client {index}: {:?} have no answer", client.open.keys());
        let told = &client.told[client.conn.and_then(|conn| world.conns[&conn].told).expect("a welcome")];
        let shard = ShardId::of(&client.room, store.shards());
        let head = store.heads(shard, std::slice::from_ref(&client.room)).expect("a head").remove(0);
        assert_eq!(told.era, head.era, "rolled back: client {index} is in an era that is over");
        let log = &world.ledger.rooms[&(client.room.clone(), told.era)];
        let visible = log.verdicts.iter().filter(|v| client.role == Role::Server || v.audience == Audience::Room);
        let last = visible.filter(|v| !matches!(v.outcome, Outcome::Repeat { .. })).map(|v| v.seq).max().unwrap_or(0);
        assert!(told.to >= last, "liveness: client {index} was told up to {}, the room is at {last}", told.to);
    }
}
