//! Histories that are no longer kept, and gateways that are no longer known: one interleaving each.

use super::*;
use crate::wire::client::close;

/// Everything but the last two snapshots' history goes at once.
fn short() -> WorkerLimits {
    let bounds = Bounds { snapshot_events: 1, snapshot_events_max: 1, ..Bounds::default() };
    WorkerLimits { bounds, retention_ms: 0, ..limits() }
}

/// Rule C5: a gateway misses pushes for longer than verdicts are kept. Its sessions are told to go on with `since`, instead of being
/// shown a range that hides what they should have seen; and what is decided without its knowledge is not unresolved for ever.
#[test]
fn a_gap_that_is_no_longer_kept_closes_sessions_and_is_over() {
    let mut stage = Stage::with(short());
    let mut a = gateway(&mut stage.store, 1);
    a.core = a.core.bounded(Bounds { unresolved_per_room_max: 4, ..Bounds::default() });
    stage.begin(&mut a);
    stage.push(&mut a);
    assert_eq!(a.welcomes(1), 1);
    for (id, at) in [("x", 1_030), ("y", 1_040), ("z", 1_050), ("w", 1_060)] {
        a.act(1, id, at * MS);
        let bell = a.flush(&mut stage.store, (at + 1) * MS, false);
        stage.bell(bell);
        stage.settle();
    }
    stage.pushed.clear();
    let page = stage.store.verdicts(&room(), 1, 1);
    assert!(verdicts::decode(&page.batches[0]).expect("a batch").verdicts[0].seq > 2, "something is trimmed");
    a.check_heads(&mut stage.store);
    a.read(&stage.store);
    let is_closed = |(s, d): &(u64, Delivery)| *s == 1 && matches!(d, Delivery::Close { code: close::SLOW, .. });
    assert!(a.seqs(1).is_empty() && a.told.iter().any(is_closed), "{:?}", a.told);
    a.core.close(1, Arrival::at(1_070 * MS, 0));
    let again = a.join("ann", Some(Since { era: page.era, seq: 1 }), 1_071 * MS);
    let bell = a.flush(&mut stage.store, 1_072 * MS, false);
    stage.bell(bell);
    stage.settle();
    stage.push(&mut a);
    a.read(&stage.store);
    let gone = |(s, d): &(u64, Delivery)| *s == again && matches!(d, Delivery::Welcome(welcome) if welcome.gone);
    assert!(a.told.iter().any(gone), "{:?}", a.told);
    a.act(again, "v", 1_080 * MS);
}
