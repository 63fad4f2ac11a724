//! The door: one thread that accepts connections and passes each to the ready gateway with the fewest sessions. No byte of a player
//! goes through the supervisor.
//!
//! Where no gateway can take one more, nothing is accepted, and the kernel's queue holds what comes (rule U5).

use std::collections::HashMap;
use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::net::{IpAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use quanta::Instant;
use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};

use super::plan::step::ChildId;
use super::policy::addresses::Addresses;
use super::policy::choose::{Candidate, choose};
use super::policy::names::Slot;
use super::policy::pace::Pace;
use super::state;
use crate::child::channel::{Load, ToChild, encode};
use crate::gateway::front::network;
use crate::limits::{ACCEPT_RETRY_INTERVAL, PASSED_MAX};
use crate::runtime::start_thread;

/// A gateway behind the door.
#[derive(Debug)]
struct Gate {
    child: ChildId,
    slot: Slot,
    channel: OwnedFd,
    /// Connections that were passed to it.
    passed: u64,
    /// Whose those are that are not gone, by their numbers.
    held: HashMap<u64, IpAddr>,
    /// The last that it said.
    load: Load,
    actions_per_s: f64,
    /// It takes nothing until it has said something.
    is_full: bool,
    /// It may be chosen. One that leaves, or is silent, may not; what it has still counts.
    is_open: bool,
}

impl Gate {
    fn candidate(&self) -> Candidate {
        let sessions = self.passed.saturating_sub(self.load.gone);
        let on_their_way = self.passed.saturating_sub(self.load.taken);
        let free = |most: u64, held: u64| if self.is_full || !self.is_open { 0 } else { most.saturating_sub(held) };
        Candidate {
            slot: self.slot.clone(),
            sessions,
            actions_per_s: self.actions_per_s,
            free_sessions: free(self.load.sessions_max, sessions),
            free_handshakes: free(PASSED_MAX as u64, self.load.handshakes + on_their_way),
        }
    }
}

#[derive(Debug, Default)]
struct State {
    gates: Vec<Gate>,
    /// What each address has behind this door.
    addresses: Addresses,
    stopped: bool,
    /// How often the thread was asked whether it is there, and which of these it has answered last.
    asked: u64,
    answered: u64,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
    /// Wakes the thread while it waits for connections.
    wake: OwnedFd,
    began: Instant,
}

/// The door. It closes when this is dropped.
#[derive(Debug)]
pub(super) struct Door {
    shared: Arc<Shared>,
    /// It returns what it holds.
    thread: Option<JoinHandle<Held>>,
}

/// What a door's thread holds: the listener, and a connection that nobody could take yet.
type Held = (TcpListener, Option<TcpStream>);

impl Drop for Door {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Door {
    /// Opens it: connections are accepted as soon as there is a gateway for them.
    pub(super) fn open(listener: TcpListener) -> io::Result<Self> {
        Self::resume(listener, None, Vec::new())
    }

    /// Opens it with what another image's door held, and knew of these gateways.
    pub(super) fn resume(
        listener: TcpListener,
        waits: Option<TcpStream>,
        gates: Vec<(state::Gate, OwnedFd)>,
    ) -> io::Result<Self> {
        let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        let gates = gates.into_iter().map(|(gate, channel)| {
            let state::Gate { child, slot, passed, held, load, actions_per_s, is_full } = gate;
            // Whether it is open is said at the first step.
            Gate { child, slot, channel, passed, held: held.into_iter().collect(), load, actions_per_s, is_full, is_open: false }
        });
        let mut state = State { gates: gates.collect(), ..State::default() };
        let State { gates, addresses, .. } = &mut state;
        for address in gates.iter().flat_map(|gate| gate.held.values()) {
            addresses.keep(*address);
        }
        let shared = Arc::new(Shared { state: Mutex::new(state), changed: Condvar::new(), wake, began: Instant::now() });
        let working = shared.clone();
        let thread = start_thread("door", move || working.work(listener, waits))?;
        Ok(Self { shared, thread: Some(thread) })
    }

    fn stop(&self) {
        self.shared.state.lock().stopped = true;
        self.shared.changed.notify_all();
        let _ = rustix::io::write(&self.shared.wake, &1_u64.to_ne_bytes());
    }

    /// Closes it, and returns what the next image needs to open it. Connections wait in the kernel meanwhile.
    ///
    /// # Errors
    /// When its thread has panicked.
    pub(super) fn close(mut self) -> io::Result<(Held, Vec<state::Gate>)> {
        self.stop();
        let held = self.thread.take().and_then(|thread| thread.join().ok());
        let held = held.ok_or_else(|| io::Error::other("the door's thread has ended"))?;
        Ok((held, self.gates()))
    }

    /// What it knows of gateways.
    pub(super) fn gates(&self) -> Vec<state::Gate> {
        let state = self.shared.state.lock();
        let gates = state.gates.iter().map(|gate| state::Gate {
            child: gate.child,
            slot: gate.slot.clone(),
            passed: gate.passed,
            held: gate.held.iter().map(|(number, address)| (*number, *address)).collect(),
            load: gate.load,
            actions_per_s: gate.actions_per_s,
            is_full: gate.is_full,
        });
        gates.collect()
    }

    /// The gateways that may be chosen, and the channels of the new ones among them.
    pub(super) fn set(&self, gateways: &[(Slot, ChildId)], channel: impl Fn(ChildId) -> Option<OwnedFd>) {
        let mut state = self.shared.state.lock();
        for gate in &mut state.gates {
            gate.is_open = gateways.iter().any(|(_, child)| *child == gate.child);
        }
        for (slot, child) in gateways {
            if state.gates.iter().any(|gate| gate.child == *child) {
                continue;
            }
            let Some(channel) = channel(*child) else { continue };
            let (slot, child) = (slot.clone(), *child);
            // Until it has said how much it takes, it takes nothing.
            let (load, is_full, is_open) = (Load::default(), true, true);
            let held = HashMap::new();
            state.gates.push(Gate { child, slot, channel, passed: 0, held, load, actions_per_s: 0.0, is_full, is_open });
        }
        drop(state);
        self.shared.changed.notify_all();
    }

    /// A gateway's process has ended, and all of its connections with it.
    pub(super) fn ended(&self, child: ChildId) {
        let mut state = self.shared.state.lock();
        let state = &mut *state;
        if let Some(index) = state.gates.iter().position(|gate| gate.child == child) {
            let gate = state.gates.swap_remove(index);
            gate.held.into_values().for_each(|address| state.addresses.give(address));
        }
    }

    /// Connections of a gateway have ended. What nobody knows, or has ended before, changes nothing.
    pub(super) fn gone(&self, child: ChildId, numbers: &[u64]) {
        let mut state = self.shared.state.lock();
        let state = &mut *state;
        let Some(gate) = state.gates.iter_mut().find(|gate| gate.child == child) else { return };
        for address in numbers.iter().filter_map(|number| gate.held.remove(number)) {
            state.addresses.give(address);
        }
    }

    /// A gateway has said what it has to do.
    pub(super) fn heard(&self, child: ChildId, load: Load, actions_per_s: f64) {
        let mut state = self.shared.state.lock();
        if let Some(gate) = state.gates.iter_mut().find(|gate| gate.child == child) {
            (gate.load, gate.actions_per_s, gate.is_full) = (load, actions_per_s, false);
        }
        drop(state);
        self.shared.changed.notify_all();
    }

    /// Asks the thread whether it is there. Says whether it has answered since the last time.
    pub(super) fn answers(&self) -> bool {
        let mut state = self.shared.state.lock();
        let answered = state.answered == state.asked;
        state.asked += 1;
        drop(state);
        self.shared.changed.notify_all();
        let _ = rustix::io::write(&self.shared.wake, &1_u64.to_ne_bytes());
        answered
    }

    /// Connections that were passed to a gateway and are not gone. None: it is not behind the door.
    pub(super) fn sessions(&self, child: ChildId) -> Option<u64> {
        let state = self.shared.state.lock();
        state.gates.iter().find(|gate| gate.child == child).map(|gate| gate.candidate().sessions)
    }
}

impl Shared {
    /// Until the door closes.
    fn work(&self, listener: TcpListener, mut waits: Option<TcpStream>) -> Held {
        let mut pace = Pace::default();
        while self.wait_for_credit() {
            let pause = pace.wait(self.began.elapsed());
            if !pause.is_zero() {
                self.rest(pause);
            } else if waits.is_none() {
                waits = match accept(&listener, self.wake.as_fd(), &mut pace) {
                    Ok(accepted) => accepted,
                    Err(error) => {
                        tracing::warn!(%error, "cannot accept a connection: raise the limit of open files");
                        std::thread::sleep(ACCEPT_RETRY_INTERVAL);
                        None
                    }
                };
            } else if waits.as_ref().is_some_and(|connection| self.pass(connection)) {
                waits = None;
                pace.let_in(self.began.elapsed());
            }
        }
        (listener, waits)
    }

    /// Returns after a pause, or when the door closes.
    fn rest(&self, pause: Duration) {
        let mut state = self.state.lock();
        if !state.stopped {
            self.changed.wait_for(&mut state, pause);
        }
    }

    /// Returns once a gateway takes connections; false when the door closes.
    fn wait_for_credit(&self) -> bool {
        let mut state = self.state.lock();
        state.answered = state.asked;
        while !state.stopped && state.gates.iter().all(|gate| gate.candidate().credit() == 0) {
            self.changed.wait(&mut state);
            state.answered = state.asked;
        }
        !state.stopped
    }

    /// Passes a connection. False when the one that was chosen does not take it.
    fn pass(&self, connection: &TcpStream) -> bool {
        // One that has gone away meanwhile has no address any more.
        let (address, now) = (connection.peer_addr().map(|peer| network(peer.ip())).ok(), self.began.elapsed());
        let mut state = self.state.lock();
        let state = &mut *state;
        let candidates: Vec<Candidate> = state.gates.iter().map(Gate::candidate).collect();
        let Some(gate) = choose(&candidates).and_then(|index| state.gates.get_mut(index)) else { return false };
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut beside = SendAncillaryBuffer::new(&mut space);
        let descriptors = [connection.as_fd()];
        beside.push(SendAncillaryMessage::ScmRights(&descriptors));
        let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        let (held, recent) = address.map_or((0, 0), |address| state.addresses.look(address, now));
        // It fits: it holds three numbers.
        let message = encode(&ToChild::Connection { number: gate.passed, held, recent }).unwrap_or_default();
        match sendmsg(&gate.channel, &[IoSlice::new(&message)], &mut beside, flags) {
            Ok(_) => {
                if let Some(address) = address {
                    state.addresses.take(address, now);
                    gate.held.insert(gate.passed, address);
                }
                gate.passed += 1;
                true
            }
            Err(error) => {
                // It is stuck or gone: others take its part until it says something.
                tracing::debug!(%error, process = %gate.slot, "takes no connection");
                gate.is_full = true;
                false
            }
        }
    }
}

/// The next connection. None when there may be one now, the thread was woken for something else, or the connection has gone before it
/// was accepted. The pace hears if none waited.
fn accept(listener: &TcpListener, wake: BorrowedFd<'_>, pace: &mut Pace) -> io::Result<Option<TcpStream>> {
    match listener.accept() {
        Ok((connection, _)) => return Ok(Some(connection)),
        Err(error) => match error.kind() {
            io::ErrorKind::WouldBlock => pace.is_empty(),
            io::ErrorKind::Interrupted | io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset => return Ok(None),
            _ => return Err(error),
        },
    }
    let mut waited = [PollFd::new(listener, PollFlags::IN), PollFd::from_borrowed_fd(wake, PollFlags::IN)];
    match poll(&mut waited, None) {
        Ok(_) | Err(rustix::io::Errno::INTR) => {}
        Err(error) => return Err(error.into()),
    }
    if waited[1].revents().contains(PollFlags::IN) {
        let mut count = [0; 8];
        let _ = rustix::io::read(wake, &mut count);
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;
    use crate::child::channel::{Upper, hear_first};
    use crate::supervisor::policy::names::{Group, Role};

    #[test]
    fn a_thread_that_does_not_answer_is_told_from_one_that_waits() {
        // It has no gateway, and waits for one.
        let door = Door::open(TcpListener::bind("127.0.0.1:0").expect("a port")).expect("a door");
        for _ in 0..3 {
            let answers = |_| {
                std::thread::sleep(Duration::from_millis(1));
                door.answers()
            };
            assert!((0..10_000).any(answers));
        }
        let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).expect("a descriptor");
        let shared = Arc::new(Shared { state: Mutex::default(), changed: Condvar::new(), wake, began: Instant::now() });
        let stuck = Door { shared, thread: None };
        assert!(stuck.answers(), "it was not asked before");
        assert!(!stuck.answers() && !stuck.answers());
    }

    const PATIENCE: Duration = Duration::from_secs(10);

    /// Gateways behind a door: what it says to each arrives at the other end.
    struct Scene {
        door: Door,
        address: SocketAddr,
        gateways: Vec<OwnedFd>,
        connections: Vec<TcpStream>,
    }

    impl Scene {
        fn new(gateways: usize) -> Self {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            let _inside = runtime.enter();
            let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
            listener.set_nonblocking(true).expect("set");
            let address = listener.local_addr().expect("an address");
            let door = Door::open(listener).expect("a door");
            let (near, far): (Vec<OwnedFd>, Vec<OwnedFd>) =
                (0..gateways).map(|_| Upper::pair().expect("a pair")).map(|(near, far)| (near.into(), far)).unzip();
            let scene = Self { door, address, gateways: far, connections: Vec::new() };
            let all: Vec<_> = (1..=gateways).map(|n| (Group::new("", Role::Gateway).slot(n), ChildId(n as u64))).collect();
            scene.door.set(&all, |child| near[child.0 as usize - 1].try_clone().ok());
            for (_, child) in all {
                scene.says(child, 0, 0);
            }
            scene
        }

        /// A gateway says that it has taken connections, and that some of them are gone.
        fn says(&self, child: ChildId, taken: u64, gone: u64) {
            self.door.heard(child, Load { sessions_max: 100, taken, gone, ..Load::default() }, 0.0);
        }

        /// Somebody connects. What the gateway that is expected hears: the connection's number, and what its address has.
        fn connect(&mut self, from: &str, gateway: u64) -> (u64, u64, u64) {
            let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("a socket");
            socket.bind(&SocketAddr::new(from.parse().expect("an address"), 0).into()).expect("bound");
            socket.connect(&self.address.into()).expect("connected");
            self.connections.push(socket.into());
            let heard = hear_first(&self.gateways[gateway as usize - 1], PATIENCE).expect("heard").expect("there");
            let (ToChild::Connection { number, held, recent }, Some(_connection)) = heard else { panic!("{heard:?}") };
            (number, held, recent)
        }
    }

    /// Bounds by address hold over all gateways: each connection says what its address has at all of them.
    #[test]
    fn what_an_address_has_is_counted_over_all_gateways() {
        let mut scene = Scene::new(2);
        assert_eq!(scene.connect("127.0.0.2", 1), (0, 0, 0));
        assert_eq!(scene.connect("127.0.0.2", 2), (0, 1, 1), "at the other gateway");
        assert_eq!(scene.connect("127.0.0.3", 1), (1, 0, 0), "another address has its own");
        assert_eq!(scene.connect("127.0.0.2", 2).1, 2);
        // Two of the three are gone, one of them twice, and one that nobody knows.
        scene.door.gone(ChildId(2), &[0, 0, 9]);
        scene.door.gone(ChildId(1), &[0]);
        scene.says(ChildId(2), 2, 1);
        scene.says(ChildId(1), 2, 1);
        assert_eq!(scene.connect("127.0.0.2", 1).1, 1);
        // With a gateway all goes that it had, whatever it has said of it.
        scene.door.ended(ChildId(2));
        assert_eq!(scene.connect("127.0.0.2", 1).1, 1);
        // What leaves still counts.
        scene.door.set(&[], |_| None);
        assert_eq!(scene.door.sessions(ChildId(1)), Some(3));
        let held = |door: &Door| door.shared.state.lock().addresses.look([127, 0, 0, 2].into(), PATIENCE * 2);
        assert_eq!(held(&scene.door), (2, 0));
        // The next image knows it, too.
        let ((listener, waits), gates) = scene.door.close().expect("closed");
        let channel = || eventfd(0, EventfdFlags::CLOEXEC).expect("a descriptor");
        let gates = gates.into_iter().map(|gate| (gate, channel())).collect();
        let next = Door::resume(listener, waits, gates).expect("a door");
        assert_eq!(held(&next), (2, 0));
        next.gone(ChildId(1), &[2]);
        assert_eq!(held(&next), (1, 0));
    }
}
