use super::*;

/// What a reader was told: None that it hears.
type Told = Arc<parking_lot::Mutex<Vec<Option<Bytes>>>>;

fn reader(channels: &mut Channels, names: &[&str]) -> (u64, Told, Vec<Wait>) {
    let told = Told::default();
    let hear = || -> Hear {
        let told = told.clone();
        Arc::new(move |message| told.lock().push(message))
    };
    let (id, waits) = channels.enter(hear(), names.iter().map(|name| ((*name).to_owned(), hear())));
    (id, told, waits)
}

fn here() -> At {
    At::default()
}

fn connect(channels: &mut Channels) -> u64 {
    channels.connect(&here(), "echo".to_owned())
}

fn calls(channels: &mut Channels) -> bool {
    channels.call(&here(), 2).is_some()
}

fn push(kind: PushKind, name: &str, with: Value) -> PushInfo {
    PushInfo { kind, data: vec![Value::BulkString(name.into()), with] }
}

fn subscribe(channels: &mut Channels, name: &str) {
    let now = channels.connections[&here()].number;
    assert_eq!(channels.came(&here(), now, push(PushKind::SSubscribe, name, Value::Int(1))), Then::Nothing);
}

fn say(channels: &mut Channels, name: &str, message: &str) {
    let now = channels.connections[&here()].number;
    assert_eq!(channels.came(&here(), now, push(PushKind::SMessage, name, Value::BulkString(message.into()))), Then::Nothing);
}

fn taken(told: &Told) -> Vec<Option<Bytes>> {
    std::mem::take(&mut told.lock())
}

fn heard(message: &'static str) -> Option<Bytes> {
    Some(Bytes::from_static(message.as_bytes()))
}

fn is_over(wait: &mut Wait) -> bool {
    matches!(wait.try_recv(), Ok(Ok(())))
}

fn needed(name: &str) -> (bool, String) {
    (true, name.to_owned())
}

#[test]
fn a_reader_hears_its_channels_in_the_order_in_which_they_come() {
    let mut channels = Channels::new(|_| At::default());
    let (_, told, mut waits) = reader(&mut channels, &["a", "b"]);
    connect(&mut channels);
    assert_eq!(channels.todo(&here()), ["a", "b", "echo"].map(needed));
    subscribe(&mut channels, "a");
    assert!(is_over(&mut waits[0]) && !is_over(&mut waits[1]));
    subscribe(&mut channels, "b");
    assert!(is_over(&mut waits[1]));
    say(&mut channels, "b", "1");
    say(&mut channels, "a", "2");
    say(&mut channels, "nobody's", "3");
    assert_eq!(taken(&told), [None, heard("1"), heard("2")]);
    // Who comes later waits for nothing, and is told nothing of before.
    let (_, late, waits) = reader(&mut channels, &["a"]);
    assert!(waits.is_empty() && channels.todo(&here()).is_empty());
    say(&mut channels, "a", "4");
    assert_eq!((taken(&told), taken(&late)), (vec![heard("4")], vec![None, heard("4")]));
}

#[test]
fn a_new_connection_is_told_once_when_all_channels_are_there() {
    let mut channels = Channels::new(|_| At::default());
    let (_, told, _waits) = reader(&mut channels, &["a", "b"]);
    let first = connect(&mut channels);
    subscribe(&mut channels, "a");
    // It broke before it began: what comes then is the beginning.
    connect(&mut channels);
    for name in ["a", "b"] {
        subscribe(&mut channels, name);
    }
    assert_eq!(taken(&told), [None]);
    connect(&mut channels);
    assert_eq!(channels.todo(&here()), ["a", "b", "echo"].map(needed));
    subscribe(&mut channels, "b");
    assert_eq!(taken(&told), []);
    assert_eq!(channels.came(&here(), first, push(PushKind::SSubscribe, "a", Value::Int(2))), Then::Nothing);
    assert_eq!(taken(&told), [], "what an earlier connection says is of no use");
    subscribe(&mut channels, "a");
    assert_eq!(taken(&told), [None]);
    subscribe(&mut channels, "a");
    assert_eq!(taken(&told), [], "a repeat says nothing");
}

#[test]
fn what_the_server_ends_is_subscribed_again_and_told() {
    let mut channels = Channels::new(|_| At::default());
    let (_, told, _waits) = reader(&mut channels, &["a"]);
    let (_, other, _others_waits) = reader(&mut channels, &["b"]);
    let now = connect(&mut channels);
    for name in ["a", "b"] {
        subscribe(&mut channels, name);
    }
    assert_eq!((taken(&told), taken(&other)), (vec![None], vec![None]));
    channels.todo(&here());
    let ended = || push(PushKind::SUnsubscribe, "a", Value::Int(1));
    assert_eq!(channels.came(&here(), now, ended()), Then::Look);
    assert_eq!(channels.came(&here(), now, ended()), Then::Nothing, "once is enough");
    assert_eq!(channels.todo(&here()), [needed("a")]);
    // The slot is not back yet.
    channels.refused("a", &JournalError::Unreachable("moved".into()));
    assert_eq!(channels.todo(&here()), [needed("a")]);
    assert_eq!(taken(&told), []);
    subscribe(&mut channels, "a");
    assert_eq!((taken(&told), taken(&other)), (vec![None], vec![]));
}

#[test]
fn a_channel_without_readers_is_given_up() {
    let mut channels = Channels::new(|_| At::default());
    let (one, _, _waits) = reader(&mut channels, &["a", "b"]);
    let (two, told, _others_waits) = reader(&mut channels, &["a"]);
    let now = connect(&mut channels);
    channels.todo(&here());
    for name in ["a", "b"] {
        subscribe(&mut channels, name);
    }
    channels.leave(one);
    assert_eq!(channels.todo(&here()), [(false, "b".to_owned())]);
    // Somebody comes back for it before the server has answered.
    let (three, again, _last_waits) = reader(&mut channels, &["b"]);
    assert_eq!(channels.came(&here(), now, push(PushKind::SUnsubscribe, "b", Value::Int(1))), Then::Nothing);
    assert_eq!(channels.todo(&here()), [needed("b")]);
    subscribe(&mut channels, "b");
    assert_eq!((taken(&told), taken(&again)), (vec![None], vec![None]));
    assert!(!channels.nobody_hears(&here()));
    channels.leave(two);
    channels.leave(three);
    assert!(channels.nobody_hears(&here()));
}

#[test]
fn who_hears_a_channel_hears_what_is_put_beside_it() {
    let mut channels = Channels::new(|_| At::default());
    assert!(channels.put_beside("all", "early").is_empty(), "nobody waits for what nobody hears");
    assert!(channels.put_beside("all", "all").is_empty());
    let (id, told, waits) = reader(&mut channels, &["all"]);
    connect(&mut channels);
    assert_eq!((channels.todo(&here()), waits.len()), (["all", "early", "echo"].map(needed).to_vec(), 2));
    for name in ["all", "early"] {
        subscribe(&mut channels, name);
    }
    let mut waits = channels.put_beside("all", "late");
    assert_eq!((channels.todo(&here()), waits.len()), (vec![needed("late")], 1));
    assert!(!is_over(&mut waits[0]));
    subscribe(&mut channels, "late");
    assert!(is_over(&mut waits[0]) && channels.put_beside("all", "late").is_empty());
    for name in ["late", "all", "early"] {
        say(&mut channels, name, "1");
    }
    assert_eq!(taken(&told), [None, heard("1"), heard("1"), heard("1")], "nothing of the later one was missed");
    channels.forget_beside("all");
    assert_eq!(channels.beside.len(), 1, "it is heard");
    channels.leave(id);
    assert!(channels.beside.is_empty());
    channels.put_beside("all", "early");
    channels.forget_beside("all");
    assert!(channels.beside.is_empty());
}

#[test]
fn who_waits_is_told_why_it_waits_for_nothing() {
    let mut channels = Channels::new(|_| At::default());
    let (_, told, mut waits) = reader(&mut channels, &["a", "b"]);
    connect(&mut channels);
    channels.refused("a", &JournalError::Refused("not allowed".into()));
    assert!(matches!(waits[0].try_recv(), Ok(Err(JournalError::Refused(_)))));
    channels.failed(&here(), &JournalError::Unreachable("gone".into()));
    assert!(matches!(waits[1].try_recv(), Ok(Err(JournalError::Unreachable(_)))));
    assert_eq!(taken(&told), [None]);
}

#[test]
fn echoes_that_do_not_come_back_are_counted() {
    let mut channels = Channels::new(|_| At::default());
    let _reader = reader(&mut channels, &["a"]);
    connect(&mut channels);
    for _ in 0..9 {
        assert!(calls(&mut channels));
        say(&mut channels, "echo", "");
    }
    assert!(calls(&mut channels) && calls(&mut channels) && !calls(&mut channels));
    connect(&mut channels);
    assert!(calls(&mut channels), "another connection has time of its own");
    // What could not be sent proves nothing.
    for _ in 0..9 {
        channels.not_called(&here());
        assert!(calls(&mut channels));
    }
}

#[test]
fn what_nobody_can_read_is_dropped() {
    let mut channels = Channels::new(|_| At::default());
    let (_, told, _waits) = reader(&mut channels, &["a"]);
    let now = connect(&mut channels);
    subscribe(&mut channels, "a");
    taken(&told);
    let name = || Value::BulkString("a".into());
    for data in [vec![], vec![Value::Nil], vec![name()], vec![name(), Value::Nil], vec![Value::BulkString(vec![0xff]), name()]] {
        assert_eq!(channels.came(&here(), now, PushInfo { kind: PushKind::SMessage, data }), Then::Nothing);
    }
    for kind in [PushKind::Invalidate, PushKind::PMessage, PushKind::Other("pong".into())] {
        assert_eq!(channels.came(&here(), now, push(kind, "a", name())), Then::Nothing);
    }
    assert_eq!(taken(&told), []);
    let over = || PushInfo { kind: PushKind::Disconnection, data: vec![] };
    assert_eq!(channels.came(&here(), now, over()), Then::Over);
    connect(&mut channels);
    assert_eq!(channels.came(&here(), now, over()), Then::Nothing, "that one was over already");
}

/// Two nodes, and a channel that goes from one to the other.
#[test]
fn a_channel_is_heard_where_it_has_gone_to() {
    let (left, right) = (At::from("left"), At::from("right"));
    let moved = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let (places, is) = ([left.clone(), right.clone()], moved.clone());
    let mut channels = Channels::new(move |name| {
        let at_right = name == "r" || (name == "m" && is.load(std::sync::atomic::Ordering::Relaxed));
        places[usize::from(at_right)].clone()
    });
    let (_, told, _waits) = reader(&mut channels, &["l", "m", "r"]);
    let numbers = [&left, &right].map(|at| channels.connect(at, format!("echo of {at}")));
    let said = |channels: &mut Channels, at: usize, kind: PushKind, name: &str, with: &str| {
        let at_node = [&left, &right][at];
        channels.came(at_node, numbers[at], push(kind, name, Value::BulkString(with.into())))
    };
    assert_eq!(channels.heard_at().len(), 2);
    assert_eq!(channels.todo(&left), ["echo of left", "l", "m"].map(needed));
    assert_eq!(channels.todo(&right), ["echo of right", "r"].map(needed));
    for (at, name) in [(0, "l"), (0, "m"), (1, "r")] {
        said(&mut channels, at, PushKind::SSubscribe, name, "");
    }
    assert_eq!(taken(&told), [None]);
    assert_eq!(said(&mut channels, 0, PushKind::SUnsubscribe, "m", ""), Then::Look);
    moved.store(true, std::sync::atomic::Ordering::Relaxed);
    channels.moved();
    assert_eq!(taken(&told), [None], "what else waited for it at the left is there");
    assert_eq!((channels.todo(&left), channels.todo(&right)), (vec![], vec![needed("m")]));
    said(&mut channels, 0, PushKind::SSubscribe, "m", "");
    assert_eq!(taken(&told), [], "there it is no more");
    said(&mut channels, 1, PushKind::SSubscribe, "m", "");
    assert_eq!(taken(&told), [None], "something of it may have been missed on the way");
    said(&mut channels, 1, PushKind::SMessage, "m", "1");
    assert_eq!(taken(&told), [heard("1")]);
    // One node's break is told, whatever the other one does.
    channels.connect(&left, "echo of left".to_owned());
    let again = channels.connect(&right, "echo of right".to_owned());
    for name in ["r", "m"] {
        channels.came(&right, again, push(PushKind::SSubscribe, name, Value::Int(1)));
    }
    assert_eq!(taken(&told), [None]);
    assert_eq!(channels.came(&right, again, push(PushKind::SUnsubscribe, "echo of right", Value::Int(1))), Then::Over);
}
