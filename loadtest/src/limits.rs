//! Every bound of the load generator, with its unit last in its name.

use std::time::Duration;

/// Sessions of one run: what one machine's ports and file descriptors carry.
pub(crate) const SESSIONS_MAX: u32 = 20_000;
/// Actions a second, over all sessions.
pub(crate) const RATE_MAX: u32 = 10_000_000;
/// Actions of one run: eight bytes are kept of each that was sent.
pub(crate) const ACTIONS_MAX: u64 = 100_000_000;
/// Winners of a run that the audit makes room for before it begins.
pub(crate) const WINNERS_EXPECTED_MAX: u64 = 1_000_000;
/// Claims to one key.
pub(crate) const CONTENDERS_MAX: u32 = 10_000;
/// Bytes of a claim's arguments.
pub(crate) const PAYLOAD_BYTES_MAX: usize = 3_500;
/// Actions of one session that may wait for their answers in a closed loop.
pub(crate) const OUTSTANDING_MAX: u32 = 10_000;
/// Actions of one session that are due and wait until others of it are answered; one beyond that is counted as not sent.
pub(crate) const DUE_ACTIONS_MAX: usize = 1_000_000;
/// Bytes that are read at a time.
pub(crate) const READ_BYTES: usize = 64 * 1024;
/// Bytes of one message of a server's: a welcome says what is held in the room.
pub(crate) const MESSAGE_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Bytes of the answer to a handshake.
pub(crate) const HANDSHAKE_BYTES_MAX: usize = 16 * 1024;
/// Bytes that a session may owe its socket; an action that is due then is counted as not sent.
pub(crate) const WRITE_BYTES_MAX: usize = 4 * 1024 * 1024;
/// How long a session that is late to move pauses before it changes over.
pub(crate) const MOVE_HUSH: Duration = Duration::from_millis(250);
/// Messages of its next connection that a session keeps; one more and it pauses at once.
pub(crate) const MOVE_KEPT_MAX: usize = 100_000;
/// Pause before a session tries its next connection again.
pub(crate) const MOVE_RETRY: Duration = Duration::from_millis(100);
/// How long a session that was closed as moved tries to come back.
pub(crate) const MOVE_PATIENCE: Duration = Duration::from_secs(15);
/// How often in a row a session goes at once where it is sent, and how many answers in a row may be older than what it knows.
pub(crate) const FOLLOW_MAX: u32 = 4;
/// How long a room's home may take to welcome a session that was sent there.
pub(crate) const HOME_TIMEOUT: Duration = Duration::from_secs(2);
/// A session that lasted longer was at home where it was.
pub(crate) const HOME_STEADY: Duration = Duration::from_secs(5);
/// Sessions of a player before the current one whose verdicts may still be under way.
pub(crate) const EARLIER_SESSIONS_MAX: usize = 8;
/// How long sessions that come again may take to catch up.
pub(crate) const REJOIN_TIMEOUT: Duration = Duration::from_secs(120);
/// Sessions that are connecting at a time.
pub(crate) const CONNECTING_MAX: usize = 64;
/// How long one session may take to connect and be welcomed.
pub(crate) const CONNECT_TIMEOUT: Duration = Duration::from_secs(15);
/// Wake-ups of the schedule lie at least this far apart, so that high rates are sent in batches.
pub(crate) const PACE: Duration = Duration::from_micros(50);
/// The same from [`FAST_RATE`] on, where waking up costs the machine more than what is due.
pub(crate) const FAST_PACE: Duration = Duration::from_micros(200);
/// Actions a second over all sessions.
pub(crate) const FAST_RATE: u32 = 20_000;
/// A wait of at least four times this spins for the last part, because waking up takes about as long; shorter ones
/// would leave the system under test without that core.
pub(crate) const SPIN: Duration = Duration::from_micros(100);
/// From the last session's welcome to the first action.
pub(crate) const LEAD: Duration = Duration::from_millis(100);
/// How long a session's closing handshake may take.
pub(crate) const CLOSE_TIMEOUT: Duration = Duration::from_secs(3);
/// The share of a core beyond which the generator's one thread has nothing left.
pub(crate) const CPU_SHARE_MAX: f64 = 0.95;
/// How far the generator may fall behind its schedule before it gives up.
pub(crate) const BEHIND_MAX: Duration = Duration::from_secs(2);
/// Actions that are sent before what came is read, when the generator is behind.
pub(crate) const BATCH_ACTIONS_MAX: u64 = 1024;
/// The longest latency that is told apart from longer ones.
pub(crate) const LATENCY_MAX: Duration = Duration::from_secs(600);
/// How often the progress line is drawn.
pub(crate) const PROGRESS_INTERVAL: Duration = Duration::from_millis(250);
/// How often progress is told where a line cannot be drawn anew.
pub(crate) const PROGRESS_LINE_INTERVAL: Duration = Duration::from_secs(5);
/// The steps of one ramp, the bisection left aside.
pub(crate) const RAMP_STEPS_MAX: usize = 64;
/// How often a step of a ramp that did not hold is tried: once may be the machine's doing.
pub(crate) const RAMP_TRIES: u32 = 2;
/// How close the rates above and below a knee must be, as a share of it.
pub(crate) const RAMP_PRECISION: f64 = 0.05;
/// Gateways or workers that one command starts.
pub(crate) const SPAWN_MAX: u16 = 64;
/// Primaries of a Redis Cluster: fewer elect nobody.
pub(crate) const PRIMARIES_MIN: u16 = 3;
/// See [`PRIMARIES_MIN`].
pub(crate) const PRIMARIES_MAX: u16 = 9;
/// A primary and its replicas.
pub(crate) const COPIES_MAX: u16 = 4;
/// Hosts of one run, each a network namespace and a time namespace.
pub(crate) const HOSTS_MAX: u16 = 4;
/// How long a deployment may take to take a command about a host: a node that is away may be elected first.
pub(crate) const HOST_ASK_TIMEOUT: Duration = Duration::from_secs(60);
/// How soon it is asked again.
pub(crate) const HOST_ASK_PAUSE: Duration = Duration::from_millis(500);
/// How long rooms may take to play on after a fault of a host, before they count as stuck.
pub(crate) const PLAY_ON_TIMEOUT: Duration = Duration::from_secs(30);
/// How much a gateway's connection to Redis may be delayed, in milliseconds: less than what counts as its death.
pub(crate) const DELAY_MS_MAX: u64 = 200;
/// How long a started process may take to be ready.
pub(crate) const READY_TIMEOUT: Duration = Duration::from_secs(20);
/// How often it is asked.
pub(crate) const READY_INTERVAL: Duration = Duration::from_millis(25);
/// How long one such question may take.
pub(crate) const PROBE_TIMEOUT: Duration = Duration::from_secs(1);
/// How long a process may take to end by itself before it is killed: a little more than it gives itself.
pub(crate) const END_TIMEOUT: Duration = Duration::from_secs(12);
/// Lines of a failed process's log that are shown.
pub(crate) const LOG_LINES_MAX: usize = 20;
/// Bytes of a failed process's log that are read for them.
pub(crate) const LOG_BYTES_MAX: u64 = 16 * 1024;
/// Sessions that keep the gateways busy while rivals race.
pub(crate) const BACKGROUND_SESSIONS: u32 = 36;
/// Rooms that they play in.
pub(crate) const BACKGROUND_ROOMS: u32 = 9;
/// How long a race's verdicts may take before there are none.
pub(crate) const VERDICT_TIMEOUT: Duration = Duration::from_secs(3);
/// A gap of at least twice this is slept through but for its last part, so that whoever the first send woke has the core.
pub(crate) const GAP_SPIN: Duration = Duration::from_micros(200);
/// How often a race that was dropped is raced again before the next gap's turn.
pub(crate) const REPEATED_PER_TRIAL_MAX: u32 = 2;
/// Races in a row without a verdict after which there is nothing to measure.
pub(crate) const UNANSWERED_MAX: u32 = 10;
/// How far a gap may be from the wanted one, or half of that if it is more.
pub(crate) const GAP_ERROR_MAX: Duration = Duration::from_micros(20);
/// How long one rival's send may take before it counts as interrupted.
pub(crate) const RIVAL_SEND_MAX: Duration = Duration::from_micros(100);
/// How long a burst's message may take to send: the rival's hit is not made late by it.
pub(crate) const BURST_SEND: Duration = Duration::from_micros(30);
/// Messages behind a rival's hit: each waits for its verdict.
pub(crate) const BURST_MAX: u32 = 60;
/// The longest gap between rivals, in microseconds: it is spun through.
pub(crate) const GAP_US_MAX: u64 = 1_000_000;
/// Different gaps of one run.
pub(crate) const GAPS_MAX: usize = 32;
/// How far the pieces of a split hit may lie apart, in microseconds: it is spun through.
pub(crate) const SPLIT_US_MAX: u64 = 100_000;
/// Different guards of one curve.
pub(crate) const GUARDS_MAX: usize = 16;
/// Gaps between the rivals of a curve, in microseconds: about as long as a sweep, where a promise that came too early shows.
pub(crate) const CURVE_GAPS_US: [u64; 5] = [0, 10, 30, 100, 200];
/// How far the pieces of a curve's split hits lie apart at most, in microseconds.
pub(crate) const CURVE_SPLIT_US: u64 = 300;
/// Messages behind each hit of a curve's bursts.
pub(crate) const CURVE_BURST: u32 = 3;
/// How often a curve goes through its guards, each time in another order: what the machine does meanwhile does not fall on
/// one guard alone.
pub(crate) const CURVE_ROUNDS: u32 = 2;
/// The shortest that a curve may be given.
pub(crate) const CURVE_TIME_MIN: Duration = Duration::from_secs(10);
/// The longest that a curve may be given.
pub(crate) const CURVE_TIME_MAX: Duration = Duration::from_secs(4 * 3600);
/// Races for each gap.
pub(crate) const TRIALS_MAX: u32 = 1_000_000;
/// Lots of an auction that are bid for at their close.
pub(crate) const CLOSE_TRIALS_MAX: u32 = 100_000;
/// How many microseconds before and after its close a lot is bid for at most: the next one closes 10 ms later.
pub(crate) const CLOSE_APART_MAX_US: i64 = 4_000;
/// How often a comparison measures everything, in turns.
pub(crate) const COMPARE_ROUNDS: u32 = 3;
/// How long a comparison may take.
pub(crate) const COMPARE_TIME_MAX: Duration = Duration::from_secs(15 * 60);
/// Sessions of an even spread.
pub(crate) const EVEN_SESSIONS_MAX: i64 = 20_000;
/// Of them, those in one room.
pub(crate) const EVEN_ROOM_SESSIONS: u32 = 20;
/// How often the spread is looked at.
pub(crate) const EVEN_LOOK_INTERVAL: Duration = Duration::from_millis(250);
/// How long all sessions may take to open.
pub(crate) const EVEN_OPEN_TIMEOUT: Duration = Duration::from_secs(60);
/// How long gateways may take to be even again after one was killed.
pub(crate) const EVEN_AGAIN_TIMEOUT: Duration = Duration::from_secs(120);
/// How long a session waits before it tries again.
pub(crate) const EVEN_RETRY: Duration = Duration::from_millis(100);

/// How long a Node cluster is watched after one of its processes was killed: it promises nothing.
pub(crate) const EVEN_PEER_WATCH: Duration = Duration::from_secs(15);
/// How long is looked on when all sessions are open, and when they are even again.
pub(crate) const EVEN_REST: Duration = Duration::from_secs(1);
/// Sessions that are opened in a second.
pub(crate) const EVEN_RATE_MAX: i64 = 10_000;
/// From when on a connection is late, where nothing else was asked for.
pub(crate) const CONNECT_LATE: Duration = Duration::from_secs(1);
/// How much later than planned one of a hundred connections may begin: beyond that, the generator is what is measured.
pub(crate) const DOOR_BEHIND_MAX: Duration = Duration::from_millis(100);
/// From when the threads that connect are started to the first connection.
pub(crate) const DOOR_LEAD: Duration = Duration::from_millis(100);
/// Between two rates of connections.
pub(crate) const DOOR_REST: Duration = Duration::from_millis(500);
/// Handshakes that are timed on each way.
pub(crate) const DOOR_SAMPLES_MAX: i64 = 100_000;
/// Threads that connect.
pub(crate) const DOOR_TASKS_MAX: i64 = 64;
/// Primaries of a cluster, with their two ports each.
pub(crate) const SCALE_NODES_MAX: i64 = 16;
/// Hosts on this machine.
pub(crate) const SCALE_HOSTS_MAX: i64 = 8;
/// Shards of a deployment.
pub(crate) const SCALE_SHARDS_MAX: i64 = 1_024;
/// Turns of each setting.
pub(crate) const SCALE_ROUNDS_MAX: i64 = 100;
/// Runs of all settings: about an hour at the usual duration.
pub(crate) const SCALE_RUNS_MAX: usize = 300;
/// How often counts that follow a load are looked at.
pub(crate) const AUTO_LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// Seconds between two rows of their table, where nothing changes.
pub(crate) const AUTO_ROW_S: f64 = 10.0;
/// Steps of such a load.
pub(crate) const AUTO_STEPS_MAX: usize = 64;
/// How long a supervisor may take to say what it has.
pub(crate) const ASK_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a supervisor may take to do what it is asked for.
pub(crate) const COMMAND_TIMEOUT: Duration = Duration::from_secs(120);
/// Between two looks at whether a supervisor has done something.
pub(crate) const LOOK_INTERVAL: Duration = Duration::from_millis(100);
/// Further connections a second beside a run.
pub(crate) const CONNECTS_MAX: i64 = 5_000;
/// Of them, those that one thread has open at a time; what is due beyond that waits, and is the later for it.
pub(crate) const CONNECTS_OPEN_MAX: usize = 4_000;
/// Rooms that they are in.
pub(crate) const CONNECT_ROOMS: u64 = 64;
/// How long a phase goes on behind what is done in it, so that its effects are counted with it.
pub(crate) const PHASE_SETTLE: Duration = Duration::from_secs(1);
/// Before each phase, and behind the last: what a run is like outside of phases.
pub(crate) const PHASE_REST: Duration = Duration::from_secs(2);
/// How long one phase may take, all of its commands together.
pub(crate) const PHASE_TIMEOUT: Duration = Duration::from_secs(180);
/// How long there is one process more of a role before it goes again: longer than uneven gateways wait before they even out.
pub(crate) const SCALE_HOLD: Duration = Duration::from_secs(5);
/// How long a supervisor is stopped.
pub(crate) const SUPERVISOR_STOP: Duration = Duration::from_secs(5);
/// How long what was done beside a run may still take when its schedule is over.
pub(crate) const BESIDE_LEAVE: Duration = Duration::from_secs(30);

const _: () = assert!(BESIDE_LEAVE.as_secs() > CONNECT_TIMEOUT.as_secs() + CLOSE_TIMEOUT.as_secs());
const _: () = assert!(PHASE_TIMEOUT.as_secs() > COMMAND_TIMEOUT.as_secs());
const _: () = assert!(END_TIMEOUT.as_secs() > lasthit::internals::limits::DRAIN_TIMEOUT.as_secs());
const _: () = assert!(PAYLOAD_BYTES_MAX + 512 <= lasthit::internals::limits::MESSAGE_BYTES_MAX);
const _: () = assert!(BACKGROUND_SESSIONS.is_multiple_of(BACKGROUND_ROOMS));
const _: () = assert!((BURST_MAX as usize) < lasthit::internals::limits::WAITING_ACTIONS_MAX);
