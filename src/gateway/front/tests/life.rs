use super::*;
use crate::gateway::hub::Delivery;
use crate::types::Flags;

#[tokio::test]
async fn a_session_opens_acts_and_says_goodbye() {
    let gateway = gateway(|_| {});
    let mut ann = gateway.join("ann").await;
    ann.act("1").await;
    ann.act("2").await;
    ann.ws.close(None).await.unwrap();
    while ann.ws.next().await.is_some() {}
    assert_eq!(gateway.life("ann").await, ["open", "act 1", "act 2", "end 1005", "close"]);
    assert_eq!(gateway.drains.undrained(), 0);
}

#[tokio::test]
async fn the_goodbyes_code_is_the_ends_code() {
    use tokio_tungstenite::tungstenite::protocol::CloseFrame;
    let gateway = gateway(|_| {});
    let mut ann = gateway.join("ann").await;
    ann.ws.close(Some(CloseFrame { code: 1000.into(), reason: "".into() })).await.unwrap();
    assert_eq!(ann.close_code().await.0, 1000, "it is answered");
    assert_eq!(gateway.life("ann").await, ["open", "end 1000", "close"]);
}

#[tokio::test]
async fn a_connection_that_is_lost_ends_with_1006() {
    let gateway = gateway(|_| {});
    let mut bystander = gateway.join("bystander").await;
    drop(gateway.join("ended").await);
    assert_eq!(gateway.life("ended").await, ["open", "end 1006", "close"]);

    let mut reset = gateway.raw_session("reset", "lasthit.v1.json").await;
    // A socket that is closed with unread bytes in it (the welcome) resets its connection.
    tokio::time::sleep(Duration::from_millis(20)).await;
    reset.write_all(&frame(0x81, br#"{"op":"hit","id":"last-words"}"#)).await.unwrap();
    drop(reset);
    assert_eq!(gateway.life("reset").await, ["open", "act last-words", "end 1006", "close"]);
    bystander.is_undisturbed(&gateway).await;
}

#[tokio::test]
async fn what_is_sent_along_with_the_upgrade_is_not_lost() {
    let gateway = gateway(|_| {});
    let mut tcp = gateway.tcp().await;
    let mut bytes = upgrade("/v1/room/pit?player=ann", "lasthit.v1.json").into_bytes();
    bytes.extend(frame(0x81, br#"{"op":"hit","id":"early"}"#));
    bytes.extend(frame(0x88, b"\x03\xe8"));
    tcp.write_all(&bytes).await.unwrap();
    assert_eq!(gateway.life("ann").await, ["open", "act early", "end 1000", "close"]);
}

#[tokio::test]
async fn actions_bear_the_arrival_of_their_own_message() {
    let gateway = gateway(|_| {});
    let mut ann = gateway.join("ann").await;
    // Kernel stamps begin some 20 ms after the first socket asks for them.
    tokio::time::sleep(Duration::from_millis(50)).await;
    let mut sent = Vec::new();
    for id in ["1", "2", "3"] {
        sent.push(crate::clock::monotonic_ns());
        ann.act(id).await;
        // The gateway shares this thread: it reads while this sleeps.
        tokio::time::sleep(Duration::from_millis(3)).await;
    }
    let arrivals: Vec<_> = gateway
        .calls("ann")
        .into_iter()
        .filter_map(|call| match call {
            Call::Act(_, _, arrival) => Some(arrival),
            _ => None,
        })
        .collect();
    assert_eq!(arrivals.len(), 3);
    for (arrival, sent) in arrivals.iter().zip(sent) {
        assert!(arrival.ns >= sent && arrival.ns < sent + 3_000_000, "{arrival:?} was sent at {sent}");
        assert_eq!(arrival.flags.has(Flags::READ_TIME), cfg!(not(target_os = "linux")));
    }
}

#[tokio::test]
async fn the_hub_closes_a_session_and_what_it_delivered_before_comes_first() {
    let gateway = gateway(|_| {});
    let mut ann = gateway.join("ann").await;
    let id = gateway.session("ann");
    let refusal = crate::wire::client::Refusal {
        code: crate::wire::client::ErrorCode::Busy,
        id: Some("1".to_owned()),
        message: "the room is busy".to_owned(),
    };
    assert!(gateway.hub.deliver(id, Delivery::Refused(refusal)));
    assert!(gateway.hub.deliver(id, Delivery::Close { code: 4503, reason: "r".repeat(300) }));
    assert_eq!(ann.json().await["id"], "1");
    assert_eq!(ann.close_code().await, (4503, "r".repeat(123)));
    assert_eq!(gateway.life("ann").await, ["open", "end 4503", "close"]);
}

#[tokio::test]
async fn a_room_that_cannot_be_joined_is_refused_and_one_that_does_not_answer_too() {
    let gateway = gateway(|s| s.welcome_timeout = Duration::from_millis(40));
    let mut refused = gateway.connect("/v1/room/closed?player=ann", "lasthit.v1.json").await;
    assert_eq!(refused.json().await["code"], "busy");
    assert_eq!(refused.close_code().await.0, 1013);
    assert_eq!(gateway.hub.calls(), [], "who never joined does not leave");
    let mut waiting = gateway.connect("/v1/room/unresolved?player=bob", "lasthit.v1.json").await;
    assert_eq!(waiting.close_code().await, (1013, "try_again".to_owned()));
    assert_eq!(gateway.life("bob").await, ["open", "end 1013", "close"]);
}

#[tokio::test]
async fn draining_takes_in_what_was_sent_and_closes_everyone_as_going_away() {
    let gateway = gateway(|_| {});
    let (mut ann, mut bob) = (gateway.join("ann").await, gateway.join("bob").await);
    for id in ["1", "2", "3"] {
        ann.act(id).await;
    }
    // Nothing was read yet: the gateway shares this thread.
    gateway.stop.cancel();
    gateway.leaving.cancel();
    assert_eq!(ann.close_code().await, (1001, "going_away".to_owned()));
    assert_eq!(bob.close_code().await, (1001, "going_away".to_owned()));
    assert_eq!(gateway.life("ann").await, ["open", "act 1", "act 2", "act 3", "end 1001", "close"]);
    drop((ann, bob));
    timeout(PATIENCE, gateway.serving).await.expect("the last connection ended").unwrap();
    assert!(TcpStream::connect(gateway.address).await.is_err());
}

#[test]
fn a_session_whose_task_is_dropped_is_closed_all_the_same() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (gateway, ann) = runtime.block_on(async {
        let gateway = gateway(|_| {});
        let ann = gateway.join("ann").await;
        (gateway, ann)
    });
    drop(runtime);
    assert!(matches!(gateway.hub.calls()[..], [Call::Open(..), Call::Close(_)]), "{:?}", gateway.hub.calls());
    drop(ann);
}

#[tokio::test]
async fn a_sessions_task_is_small() {
    let listener = listen("127.0.0.1:0".parse().unwrap()).unwrap();
    let _client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let front = Arc::new(Front::new(
        Hub::default(),
        Gatekeeper::new(None, Vec::new(), false),
        |_| None,
        Clock::new(),
        Drains::default(),
        Settings::default(),
        CancellationToken::new(),
    ));
    let permit = Arc::new(tokio::sync::Semaphore::new(1)).acquire_owned().await.unwrap();
    let task = front.connection(listener.accept().await.unwrap().0, permit);
    let bytes = size_of_val(&task);
    println!("a session's task: {bytes} bytes");
    assert!(bytes < 2048, "{bytes}");
}
