//! Extreme numbers in the journal's answers and the workers' pushes do not stop a gateway.

use bytes::Bytes;
use proptest::collection::vec;
use proptest::prelude::*;

use super::super::step::{Command, Joining};
use super::Core;
use crate::journal::{Appended, GatewayRecord, Homed, Registered, RoomHead, VerdictPage};
use crate::types::{
    Arrival, Flags, Incarnation, Moment, Outcome, PlayerId, Role, RoomId, ShardId, Since, Stamp, Verdict, VerdictBatch,
    VerdictKind,
};
use crate::wire::push::{Push, RoomPush};
use crate::wire::verdicts;

const ME: Incarnation = Incarnation(7);

fn edge() -> impl Strategy<Value = u64> {
    prop_oneof![Just(0), Just(1), Just(u64::MAX), Just(u64::MAX - 1), Just(1 << 63), 2..6_u64]
}

fn verdict() -> impl Strategy<Value = Verdict> {
    let outcome = prop_oneof![Just(Outcome::Granted), edge().prop_map(|of| Outcome::Repeat { of })];
    let kind = prop_oneof![Just(VerdictKind::Open), Just(VerdictKind::Data), Just(VerdictKind::Close)];
    (edge(), (edge(), edge()), kind, 0..3_u64, outcome, 6..8_u128, (edge(), proptest::option::of(edge()))).prop_map(
        |(seq, (ns, ordinal), kind, session, outcome, of, (uncertainty_ns, behind_ns))| Verdict {
            session,
            player: Some(PlayerId::new("ann").expect("name")),
            id: Some("1".to_owned()),
            round: ns,
            outcome,
            uncertainty_ns,
            behind_ns,
            flags: Flags(0xff),
            raw_ns: behind_ns,
            ..Verdict::granted(seq, Stamp { moment: Moment { timeline: 1, ns }, incarnation: Incarnation(of), ordinal }, kind)
        },
    )
}

#[derive(Debug, Clone)]
enum Said {
    Push(u64, u64, VerdictBatch),
    Heads(u64, u64, u64),
    Probe(u64),
    Page(u64, u64, Vec<VerdictBatch>),
    Beat,
}

fn said() -> impl Strategy<Value = Said> {
    // What is out of order is not encoded, and no push.
    let batch = || {
        (edge(), vec(verdict(), 0..4)).prop_map(|(era, mut verdicts)| {
            verdicts.sort_by_key(|verdict| verdict.seq);
            verdicts.dedup_by_key(|verdict| verdict.seq);
            VerdictBatch { era, epoch: None, decided: None, verdicts }
        })
    };
    prop_oneof![
        4 => (edge(), edge(), batch()).prop_map(|(from, to, batch)| Said::Push(from, to, batch)),
        1 => (edge(), edge(), edge()).prop_map(|(era, seq, top)| Said::Heads(era, seq, top)),
        1 => edge().prop_map(Said::Probe),
        3 => (edge(), edge(), vec(batch(), 0..3)).prop_map(|(era, seq, batches)| Said::Page(era, seq, batches)),
        1 => Just(Said::Beat),
    ]
}

/// Carries out what the core asks for. Every read is answered with `page`.
fn perform(core: &mut Core, head: (u64, u64, u64), page: &VerdictPage) {
    // Each answer may ask for more. A few rounds reach everything.
    for _ in 0..20 {
        for command in core.take_commands() {
            match command {
                Command::Register { shard, .. } => {
                    let watermark = Moment::default();
                    let record =
                        GatewayRecord { incarnation: ME, number: 0, watermark, fenced: false, server: Incarnation::NONE };
                    let registered =
                        Registered { server: Incarnation::NONE, record, rooms: Vec::new(), renewed: 0, commit: 0, home: 1 };
                    core.registered(shard, ME, &Homed::Here(registered));
                }
                Command::Append { flush, .. } => {
                    let told = |room: &RoomId| RoomHead {
                        room: room.clone(),
                        era: head.0,
                        seq: head.1,
                        top: Moment { timeline: 1, ns: head.2 },
                    };
                    let heads = flush.entries.iter().map(|entry| told(&entry.room)).collect();
                    core.appended(&flush, &Appended::Stored(heads), false, 50);
                }
                Command::Read { read, .. } => core.page(&read, page),
                Command::AskOutbox { session, .. } => core.outbox_drained(session, u64::MAX),
                Command::Rest => core.rested(std::time::Duration::ZERO),
                _ => {}
            }
        }
        if core.wants_settling() {
            core.settled(1_000);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4_000))]

    #[test]
    fn numbers_at_the_edge_stop_no_gateway(
        heard in vec(said(), 1..6),
        since in proptest::option::of((edge(), edge())),
        head in (edge(), edge(), edge()),
    ) {
        let mut core = Core::new(ME, 1, "read", 0);
        let room = RoomId::new("pit").expect("name");
        let mut page = VerdictPage { server: Incarnation::NONE, commit: 0, era: head.0, seq: head.1, batches: Vec::new() };
        for session in 0..2 {
            let since = since.map(|(era, seq)| Since { era, seq }).filter(|_| session == 1);
            let joining = Joining { room: room.clone(), player: PlayerId::new("ann").expect("name"), role: Role::Player, since };
            let _ = core.open(joining, Arrival::at(10 + session, 0));
        }
        core.settled(20);
        perform(&mut core, head, &page);
        for heard in heard {
            match heard {
                Said::Push(from, to, batch) => {
                    core.pushed(Push::Verdicts {
                        shard: ShardId(0),
                        server: Incarnation::NONE,
                        commit: 1,
                        rooms: vec![RoomPush { room: room.clone(), from, to, batch }],
                    });
                }
                Said::Heads(era, seq, ns) => {
                    core.heads(ShardId(0), Incarnation::NONE, &[RoomHead { room: room.clone(), era, seq, top: Moment { timeline: 1, ns } }]);
                }
                Said::Probe(ns) => core.probed(ShardId(0), Moment { timeline: u32::MAX, ns }),
                Said::Page(era, seq, batches) => {
                    page = VerdictPage { server: Incarnation::NONE, commit: 1, era, seq, batches: batches.iter().map(verdicts::encode).collect::<Vec<Bytes>>() };
                }
                Said::Beat => core.check_heads(&[ShardId(0)]),
            }
            perform(&mut core, head, &page);
        }
        core.close(1, Arrival::at(5, 0));
        perform(&mut core, head, &page);
    }
}
