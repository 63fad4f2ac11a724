//! Open, Data, End, Error and Close as they reach the rules, whatever ends the session.

use std::process::Command;
use std::time::Duration;

use lasthit::worker::WorkerOptions;
use serde_json::json;
use servers::RedisServer;
use tokio::io::AsyncWriteExt as _;

use super::support::{GatewayProcess, Process, Session, WitnessWorker, frame, raw_session, redis};

struct Scene {
    gateway: GatewayProcess,
    _worker: WitnessWorker,
    redis: RedisServer,
}

impl Scene {
    fn set() -> Self {
        let redis = redis(&[]);
        let gateway = GatewayProcess::on(&redis, &[]);
        let worker = WitnessWorker::on(&redis, WorkerOptions::default());
        Self { gateway, _worker: worker, redis }
    }

    async fn watcher(&self) -> Session {
        self.gateway.ticket("pit", "watcher").server().join().await
    }
}

#[tokio::test]
async fn however_a_session_ends_close_comes_once_and_last() {
    let scene = Scene::set();
    let mut watcher = scene.watcher().await;

    let mut polite = scene.gateway.ticket("pit", "polite").join().await;
    assert_eq!(polite.welcome["state"]["saw"], "open");
    polite.ask("hit", "1", "baron", json!(null)).await;
    let id = polite.id.clone();
    polite.leave(1000).await;
    assert_eq!(watcher.life(&id).await, ["open", "data hit", "end 1000", "close"]);

    let mut own_code = scene.gateway.ticket("pit", "own-code").join().await;
    let id = own_code.id.clone();
    own_code.act("last-words", "1", "baron", json!(null)).await;
    own_code.leave(4999).await;
    assert_eq!(watcher.life(&id).await, ["open", "data last-words", "end 4999", "close"]);

    let mut no_code = scene.gateway.ticket("pit", "no-code").join().await;
    let id = no_code.id.clone();
    no_code.ws.close(None).await.expect("sent");
    assert_eq!(watcher.life(&id).await, ["open", "end 1005", "close"]);

    let ended = scene.gateway.ticket("pit", "ended").join().await;
    let id = ended.id.clone();
    drop(ended);
    assert_eq!(watcher.life(&id).await, ["open", "end 1006", "close"]);

    let mut reset = scene.gateway.ticket("pit", "reset").join().await;
    let id = reset.id.clone();
    reset.ask("hit", "1", "baron", json!(null)).await;
    reset.ws.get_ref().set_zero_linger().expect("set");
    drop(reset);
    assert_eq!(watcher.life(&id).await, ["open", "data hit", "end 1006", "close"]);

    for (player, bytes, word) in [
        ("protocol", frame(0xc1, b"{}"), "error websocket protocol error"),
        ("oversized", frame(0x81, &[b' '; 5000]), "error space limit exceeded"),
        ("utf8", frame(0x81, b"\xff\xfe"), "error utf-8"),
    ] {
        let mut tcp = raw_session(scene.gateway.address, &format!("/v1/room/pit?player={player}"), "lasthit.v1.json").await;
        let id = watcher.session_of(player).await;
        tcp.write_all(&bytes).await.expect("sent");
        let life = watcher.life(&id).await;
        assert!(life.len() == 3 && life[0] == "open" && life[1].starts_with(word) && life[2] == "close", "{life:?}");
    }

    // Nothing more comes of any of them.
    watcher.ask("hit", "later", "baron", json!(null)).await;
    for open in watcher.seen.iter().filter(|v| v["event"] == "open") {
        let of = watcher.seen.iter().filter(|v| v["session"] == open["session"]);
        let closed = of.filter(|v| v["event"] == "close").count();
        assert_eq!(closed, 1, "{open}");
    }
}

#[test]
#[ignore = "is the child process of the next test"]
fn child_that_joins_and_stays() {
    let address = std::env::var("LASTHIT_TEST_ADDRESS").expect("an address").parse().expect("an address");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let mut session = super::support::Ticket::new(address, "pit", "doomed").join().await;
        session.ask("hit", "1", "baron", json!(null)).await;
        eprintln!("joined");
        tokio::time::sleep(Duration::from_secs(60)).await;
    });
}

#[tokio::test]
async fn a_client_that_is_killed_ends_with_1006() {
    let scene = Scene::set();
    let mut watcher = scene.watcher().await;
    let mut command = Command::new(std::env::current_exe().expect("this test"));
    command.args(["--exact", "events::child_that_joins_and_stays", "--ignored", "--nocapture"]);
    let mut child = Process::of(command.env("LASTHIT_TEST_ADDRESS", scene.gateway.address.to_string()));
    child.line_with("joined");
    let id = watcher.session_of("doomed").await;
    child.kill();
    assert_eq!(watcher.life(&id).await, ["open", "data hit", "end 1006", "close"]);
}

#[tokio::test]
async fn a_gateway_that_goes_ends_its_sessions_with_1001() {
    let mut scene = Scene::set();
    let other = GatewayProcess::on(&scene.redis, &[]);
    let mut watcher = other.ticket("pit", "watcher").server().join().await;
    let mut ann = scene.gateway.ticket("pit", "ann").join().await;
    for n in 0..20 {
        ann.act("hit", &n.to_string(), "baron", json!(null)).await;
    }
    scene.gateway.process.signal("TERM");
    let (code, reason) = ann.close_code().await;
    assert_eq!((code, reason.is_empty()), (1001, false));
    let life = watcher.life(&ann.id).await;
    assert_eq!(
        (life.first().map(String::as_str), &life[life.len() - 2..]),
        (Some("open"), &["end 1001".into(), "close".into()][..])
    );
    assert_eq!(life.len(), 23, "what was sent before is taken in: {life:?}");
    assert_eq!(scene.gateway.process.code(), Some(0));
}

#[tokio::test]
async fn a_gateway_that_is_killed_ends_its_sessions_with_an_error() {
    let scene = Scene::set();
    // Its silence alone tells of its death.
    let killed = GatewayProcess::on(&scene.redis, &["--runtime-dir", "none"]);
    let mut watcher = scene.watcher().await;
    sees_the_end_of(&mut watcher, killed).await;
}

/// Its gateway is killed: the watcher, on another one, sees its session end and plays on.
async fn sees_the_end_of(watcher: &mut Session, mut killed: GatewayProcess) {
    let mut ann = killed.ticket("pit", "ann").join().await;
    ann.ask("hit", "1", "baron", json!(null)).await;
    killed.process.kill();
    // Whether it is alive is only asked when something waits for it.
    watcher.act("hit", "2", "baron", json!(null)).await;
    assert_eq!(watcher.life(&ann.id).await, ["open", "data hit", "error its gateway died", "close"]);
    assert_eq!(watcher.answer("2").await["outcome"], "granted");
}

/// By its lock: it might owe its watermark for a minute.
#[tokio::test]
async fn a_killed_gateway_is_noticed_at_once() {
    let redis = redis(&[]);
    let patient = WorkerOptions { gateway_timeout: Duration::from_secs(60), ..WorkerOptions::default() };
    let _worker = WitnessWorker::on(&redis, patient);
    let (killed, other) = (GatewayProcess::on(&redis, &[]), GatewayProcess::on(&redis, &[]));
    let mut watcher = other.ticket("pit", "watcher").server().join().await;
    sees_the_end_of(&mut watcher, killed).await;
}
