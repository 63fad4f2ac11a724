//! One file of JavaScript decides inside the worker, and as a process.

use serde_json::{Value, json};

use super::flag::shown;
use super::{Configured, has, in_project};
use crate::support::{GatewayProcess, redis, until};

/// What a file's handlers see, for timers, too.
const PROBE: &str = "
const seen = (ctx, more) => {
  const { player, role, sessions, contest } = ctx;
  return { player, role, session: typeof ctx.session, sessions, contest, more: more === undefined ? 'none' : Object.keys(more) };
};
export default {
  name: 'probe', version: 1, state: () => ({ n: 0 }),
  onOpen: (ctx, more) => ({ ...seen(ctx, more), n: ctx.state.n }),
  on: {
    set(ctx, args) { ctx.timer(args, { after: 20, data: { n: ++ctx.state.n } }); return seen(ctx, { args }); },
    list(ctx) { ctx.state = [1]; },
  },
  onData: (ctx, args, op) => ({ ...seen(ctx, { args }), op }),
  onClose: seen,
  timers: { tick: seen, 'tock:exact': (ctx, { data }) => data },
};";

async fn play_arena(gateway: &GatewayProcess, room: &str) -> Vec<Value> {
    let mut keeper = gateway.ticket(room, "keeper").server().join().await;
    let mut ann = gateway.ticket(room, "ann").join().await;
    let mut told = vec![ann.welcome["state"].clone()];
    told.push(shown(&keeper.ask("spawn", "1", "baron", json!({"hp": 3, "respawn_ms": 200})).await));
    told.push(shown(&ann.ask("hit", "1", "baron", json!({"damage": 5})).await));
    told.push(shown(&keeper.ask("hit", "2", "baron", json!({"damage": 5})).await));
    told.push(shown(&ann.find(|v| v["event"] == "timer").await));
    told.push(shown(&ann.ask("hit", "2", "baron", json!({"damage": 1})).await));
    told.push(shown(&ann.ask("dance", "3", "baron", json!(null)).await));
    told
}

async fn play_auction(gateway: &GatewayProcess, room: &str) -> Vec<Value> {
    let mut house = gateway.ticket(room, "house").server().join().await;
    let mut ann = gateway.ticket(room, "ann").join().await;
    let mut told = Vec::new();
    told.push(shown(&house.ask("open", "1", "vase", json!({"ms": 200, "from": 10})).await));
    told.push(shown(&ann.ask("bid", "1", "vase", json!({"amount": 5})).await));
    told.push(shown(&ann.ask("bid", "2", "vase", json!({"amount": 50})).await));
    told.push(shown(&house.find(|v| v["event"] == "timer").await));
    told.push(shown(&ann.ask("bid", "3", "vase", json!({"amount": 60})).await));
    // The moment of the close is that of the room.
    told.iter_mut().for_each(|told| drop(told[6].as_object_mut().and_then(|body| body.remove("closes"))));
    told
}

async fn play_probe(gateway: &GatewayProcess, room: &str) -> Vec<Value> {
    let mut ann = gateway.ticket(room, "ann").join().await;
    let mut told = vec![ann.welcome["state"].clone()];
    for (n, timer) in ["tick", "tick:a:b", "tock:exact", "tock:other", "none"].into_iter().enumerate() {
        told.push(shown(&ann.ask("set", &n.to_string(), "c", json!(timer)).await));
        told.push(shown(&ann.find(|v| v["event"] == "timer").await));
    }
    told.push(shown(&ann.ask("other", "o", "c", json!({"a": 1})).await));
    told.push(shown(&ann.ask("list", "l", "c", json!(null)).await));
    let bob = gateway.ticket(room, "bob").join().await;
    told.push(bob.welcome["state"].clone());
    drop(bob);
    told.push(shown(&ann.find(|v| v["event"] == "close").await));
    // She moves: her next session is there before the first one is closed.
    let mut next = gateway.ticket(room, "ann").join().await;
    told.push(next.welcome["state"].clone());
    ann.ws.close(None).await.expect("closed");
    told.push(shown(&next.find(|v| v["event"] == "close").await));
    told.push(shown(&next.ask("other", "p", "c", json!(null)).await));
    told
}

#[tokio::test]
async fn a_file_decides_as_a_process_what_it_decides_inside_the_worker() {
    if !has("node") {
        return;
    }
    let (redis, files) = (redis(&[]), tempfile::tempdir().expect("a directory"));
    let mut rooms = Vec::new();
    for name in ["arena", "auction", "probe"] {
        let text = match name {
            "probe" => PROBE.to_owned(),
            name => std::fs::read_to_string(in_project(&format!("examples/rules/{name}.js"))).expect("a program"),
        };
        let path = files.path().join(format!("{name}.mjs"));
        std::fs::write(&path, text).expect("written");
        let helper = in_project("rules/js/lasthit-rules.mjs");
        rooms.push((format!("{name}-inside"), json!({ "file": path })));
        rooms.push((format!("{name}-process"), json!({ "process": ["node", helper, path] })));
    }
    let rooms: Vec<(&str, Value)> = rooms.iter().map(|(pattern, rules)| (pattern.as_str(), rules.clone())).collect();
    let configured = Configured::new(&rooms);
    let gateway = GatewayProcess::on(&redis, &[]);
    let worker = configured.worker(&redis);
    until("all instances", || (worker.ready().0 == 200).then_some(()));
    let inside = play_arena(&gateway, "arena-inside").await;
    assert_eq!(inside[4][0], "timer");
    assert_eq!(play_arena(&gateway, "arena-process").await, inside);
    assert_eq!(play_auction(&gateway, "auction-process").await, play_auction(&gateway, "auction-inside").await);
    let inside = play_probe(&gateway, "probe-inside").await;
    assert_eq!(inside[2][6]["sessions"], 0, "{inside:?}");
    // The next Open, the first one's Close, and what comes then.
    let [.., open, close, after] = &inside[..] else { panic!("{inside:?}") };
    assert_eq!([&open["sessions"], &close[6]["sessions"], &after[6]["sessions"]], [2, 2, 1], "{inside:?}");
    assert_eq!(play_probe(&gateway, "probe-process").await, inside);
}
