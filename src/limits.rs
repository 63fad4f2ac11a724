//! Every bound of the system, with its unit last in its name. Relations between them are asserted at compile time.

use std::time::Duration;

mod child;
mod cluster;
mod connections;
mod homes;
mod moves;
mod outside;
mod programs;
mod sentinel;
mod supervisor;
mod timers;
pub(crate) use child::*;
pub(crate) use cluster::*;
pub use connections::*;
pub(crate) use homes::*;
pub(crate) use moves::*;
pub use outside::*;
pub use programs::*;
pub(crate) use sentinel::*;
pub(crate) use supervisor::*;
pub(crate) use timers::*;

/// Bytes of a room or player name.
pub(crate) const NAME_BYTES_MAX: usize = 64;
/// Bytes of an action's op, id or contest.
pub(crate) const FIELD_BYTES_MAX: usize = 64;
/// Bytes of a client's message (and of a WebSocket frame).
pub const MESSAGE_BYTES_MAX: usize = 4096;
/// Most frames of one client message.
pub(crate) const FRAGMENTS_PER_MESSAGE_MAX: u32 = 64;
/// Nesting of a client's arguments.
pub(crate) const ARGS_DEPTH_MAX: usize = 16;
/// Bytes of a reason inside an event or a verdict.
pub(crate) const REASON_BYTES_MAX: usize = 200;
/// Bytes of a verdict's body, encoded.
pub(crate) const BODY_BYTES_MAX: usize = 16 * 1024;
/// Ids per player that are remembered in a room, so that a repeat acts once.
pub const RECENT_IDS_PER_PLAYER_MAX: usize = 1024;
/// Ids per room that are remembered. Each player counts as [`RECENT_PLAYER_IDS`] more ids: there is space for all ids of 500
/// players, or 100 ids each of 4,900.
pub(crate) const RECENT_IDS_PER_ROOM_MAX: usize = 512 * 1024;
/// Ids whose space a player takes beside its own ids, for its name.
pub(crate) const RECENT_PLAYER_IDS: usize = 6;
/// Sessions per room over all gateways; beyond this nobody may join.
pub(crate) const ROOM_SESSIONS_MAX: usize = 16 * 1024;
/// Contests per room whose round is remembered. Beyond this, a room forgets those that were closed longest ago, then those that
/// were won longest ago. It never forgets a contest that the rules hold, if they hold no more than this.
pub const CONTESTS_PER_ROOM_MAX: usize = 100_000;
/// Bytes of the largest snapshot of a built-in room: with the most of everything, and the longest names. With names of 20 bytes
/// and a thousand holders it is less than 14 MiB. A session, mark or stretch takes at most 64 bytes and its names; an
/// id 16; a player's ids 16 and the name; a contest 80 and the name; a key that is held 8, its name and its holder's.
pub(crate) const SNAPSHOT_BYTES_MAX: usize = (ROOM_SESSIONS_MAX + MARKS_PER_ROOM_MAX + UNPROVEN_PER_ROOM_MAX)
    * (64 + NAME_BYTES_MAX)
    + RECENT_IDS_PER_ROOM_MAX * 16
    + CONTESTS_PER_ROOM_MAX * (80 + FIELD_BYTES_MAX)
    + CLAIMS_PER_ROOM_MAX * (8 + FIELD_BYTES_MAX + NAME_BYTES_MAX)
    + TIMERS_PER_ROOM_MAX * (64 + FIELD_BYTES_MAX + TIMER_DATA_BYTES_MAX + CRON_BYTES_MAX);
/// Gateways per room whose last stamp is remembered.
pub(crate) const MARKS_PER_ROOM_MAX: usize = 256;
/// Dead gateways per room whose unproven stretch is stored separately; beyond this the oldest stretches are merged.
pub(crate) const UNPROVEN_PER_ROOM_MAX: usize = 16;
/// Targets of a `last_hit` room at a time, slain ones included: the state for a new session must fit into a body.
pub const TARGETS_PER_ROOM_MAX: usize = 64;
/// Target names over the life of a `last_hit` room: a target that returns continues with its next round.
pub(crate) const TARGET_NAMES_PER_ROOM_MAX: usize = 1024;
/// Points of a `last_hit` target; JavaScript's numbers hold it exactly.
pub(crate) const TARGET_HP_MAX: u64 = 1_000_000_000_000;
/// Points that one hit takes.
pub(crate) const HIT_DAMAGE_MAX: u64 = 1_000_000_000;
/// Keys of a `claim` room that are held at one time.
pub(crate) const CLAIMS_PER_ROOM_MAX: usize = CONTESTS_PER_ROOM_MAX;
/// Held keys in the state that a new session of a `claim` room gets.
pub(crate) const CLAIMS_LISTED_MAX: usize = 100;

/// Sessions per gateway unless configured otherwise.
pub(crate) const SESSIONS_MAX: usize = 20_000;
/// Sessions that one address may have unless configured otherwise. A school, or a carrier's network, may share one address.
pub(crate) const SESSIONS_PER_ADDRESS: usize = 1_000;
/// Connections that one address may open in a second, and at once, unless configured otherwise.
pub(crate) const CONNECTIONS_PER_SECOND: u32 = 200;
/// Requests that one address may have unfinished.
pub(crate) const HANDSHAKES_PER_ADDRESS: usize = 128;
/// Sessions that one player may have on a gateway unless configured otherwise.
pub(crate) const SESSIONS_PER_PLAYER: usize = 32;
/// Fewest sessions per player that may be configured: a player that changes its connection has two for a while.
pub(crate) const SESSIONS_PER_PLAYER_MIN: usize = 2;
/// Connections over their address' bounds that get an answer at the same time; further ones are closed without one.
pub(crate) const TURNED_AWAY_MAX: usize = 64;
/// Connections whose HTTP exchange is under way; further ones wait in the kernel.
pub(crate) const HANDSHAKES_MAX: usize = 1024;
/// Bytes of an HTTP request's head.
pub(crate) const HEAD_BYTES_MAX: usize = 16 * 1024;
/// Bytes that a session's socket reads at once.
pub(crate) const SESSION_READ_BYTES: usize = 2 * 1024;
/// Bytes of frames that a session gathers before it writes.
pub(crate) const SESSION_WRITE_BYTES: usize = 16 * 1024;
/// Bytes that a session may hold unwritten: the largest `welcome` must fit.
pub(crate) const SESSION_WRITE_BYTES_MAX: usize = 1024 * 1024;
/// Deliveries that a session hands to its socket before it looks at what it received.
pub(crate) const DELIVERIES_PER_TURN_MAX: usize = 64;
/// Bytes that are still read from a closed session, so that a reset does not overtake its close frame.
pub(crate) const LINGER_BYTES_MAX: usize = 256 * 1024;
/// Connections that the kernel holds until the gateway accepts them.
pub(crate) const ACCEPT_BACKLOG: u32 = 1024;
/// Sessions per room and gateway.
pub const SESSIONS_PER_ROOM_MAX: usize = 2_000;
/// Messages queued to one session; beyond this the session reads on from the journal, at its own pace.
pub(crate) const OUTBOX_MESSAGES_MAX: usize = 4096;
/// Messages queued to one session that reads from the journal.
pub(crate) const CATCH_UP_MESSAGES_MAX: usize = 512;
/// Deliveries of one turn to all sessions that read from the journal. A turn every 2 ms makes some 500,000 a second, so that
/// they catch up with the rooms of a busy gateway.
pub(crate) const CATCH_UP_TURN_MAX: usize = 1024;
/// How long a turn may take, because everybody else at the gateway waits. After one that took longer the next ones are smaller.
pub(crate) const CATCH_UP_WAIT_MAX: Duration = Duration::from_micros(500);
/// Pause between such turns, in which the gateway serves everybody else.
pub(crate) const CATCH_UP_REST: Duration = Duration::from_millis(1);
/// Pages of verdict streams that a gateway reads or holds for such sessions.
pub(crate) const CATCH_UP_PAGES_MAX: usize = 8;
/// Rooms whose gaps a gateway reads at one time.
pub(crate) const GAP_READS_MAX: usize = 8;
/// Repeated actions whose first verdicts a gateway reads at one time.
pub(crate) const FIRST_READS_MAX: usize = 8;
/// First verdicts of repeated actions that a gateway remembers.
pub(crate) const FIRSTS_MAX: usize = 1024;
/// A session's actions that wait for its Open to be acknowledged.
pub const WAITING_ACTIONS_MAX: usize = 64;
/// A gateway's own unresolved events in one room; beyond this Data is refused as `busy`.
pub const UNRESOLVED_PER_ROOM_MAX: usize = 8192;
/// A gateway's own unresolved events over all rooms, beside each room's reserve.
pub(crate) const UNRESOLVED_MAX: usize = 100_000;
/// One room may take one part in so many of the free space that all rooms share, so that later rooms find some.
pub(crate) const ROOM_PART_OF_FREE: usize = 4;
/// Unresolved events that a room may always have, whatever the other rooms use.
pub(crate) const ROOM_RESERVE_EVENTS: usize = 16;
/// Bytes of events that may always wait for the journal in a room, whatever the other rooms use.
pub(crate) const ROOM_RESERVE_BYTES: usize = 16 * 1024;
/// Bytes of events that a gateway keeps until the journal has them, beside each room's reserve; beyond this Data is refused as
/// `busy`.
pub(crate) const BACKLOG_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Bytes that an event counts in [`BACKLOG_BYTES_MAX`] beside its action: its place in the queue, its stamp, the names of its
/// room and player.
pub(crate) const BACKLOG_EVENT_BYTES: usize = 256;
/// Events in one flush of one shard.
pub const FLUSH_EVENTS_MAX: usize = 1024;
/// Bytes of the entries in one flush of one shard, and of the bell that carries them; counted as [`BACKLOG_BYTES_MAX`] is.
pub(crate) const FLUSH_BYTES_MAX: usize = 512 * 1024;
/// Verdicts that one read of a room's verdict stream fetches, in journal entries.
pub(crate) const READ_ENTRIES_MAX: usize = 512;
/// The same for a gateway, which must serve others in between.
pub(crate) const CATCH_UP_ENTRIES_MAX: usize = 64;
/// Players that one verdict may name as its audience.
pub(crate) const AUDIENCE_PLAYERS_MAX: usize = 256;
/// Events that a lane resolves before it hands its results over.
pub(crate) const RESOLVE_EVENTS_MAX: usize = 512;
/// Entries of one room that a worker keeps while it reads the room; beyond this it drops them and reads them from the journal.
pub(crate) const LANE_BUFFER_ENTRIES_MAX: usize = 1024;
/// Bytes of these entries.
pub(crate) const LANE_BUFFER_BYTES_MAX: usize = 1024 * 1024;
/// Bells that wait while a shard is surveyed; beyond this the shard is surveyed again.
pub(crate) const SHARD_BELLS_MAX: usize = 16 * 1024;
/// Rooms that one step of a survey reads, about: some 3 ms of the journal's time.
pub(crate) const SURVEY_ROOMS: usize = 500;
/// Rooms of a shard; new ones beyond it are refused. When an owner dies, the next one's claim counts a death in each active room, which
/// takes the journal some 10 us a room, all in one step.
pub const ROOMS_PER_SHARD_MAX: usize = 64_000;
/// Rooms of a shard beyond which its worker warns: some 80 ms of such a step.
pub(crate) const ROOMS_PER_SHARD_WARNED: usize = 8_000;
/// Verdicts in one commit.
pub(crate) const COMMIT_VERDICTS_MAX: usize = 4096;
/// Bytes of verdicts, snapshots and pushes in one commit after which no other room is added, and bytes of one room's verdicts and
/// pushes in it. The rest goes with the next commit. One verdict always fits, and so does a gateway's whole death.
pub(crate) const COMMIT_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Gateways in a room that an append asks for their watermarks; the worker asks further ones.
pub(crate) const ROOM_POKES_MAX: usize = 5;
/// Events after which a small room's snapshot is due.
pub(crate) const SNAPSHOT_EVENTS: u64 = 256;
/// Places per room behind which its history may be trimmed once it is old enough. The distance between two of them is this part
/// of the retention.
pub(crate) const TRIM_POINTS_MAX: usize = 16;
/// Events after which the snapshot of any room is due: at most so many are resolved again when the room is taken over, after a
/// snapshot of at most `SNAPSHOT_BYTES_MAX`.
pub const SNAPSHOT_EVENTS_MAX: u64 = 65_536;
/// Bytes of the largest snapshot that goes with its commit. A larger one is written ahead, in parts of this size.
pub const SNAPSHOT_PART_BYTES: usize = 256 * 1024;
/// Bytes of a room's last snapshot above which the next one is not taken in the worker's loop, where other rooms wait.
pub(crate) const SNAPSHOT_QUICK_BYTES_MAX: u64 = 64 * 1024;
/// Bytes of a room after which a reading step ends. It may exceed this by one entry, batch or part.
pub const PAGE_BYTES: usize = 1024 * 1024;
/// Entries, batches and parts of a room that one step reads.
pub(crate) const PAGE_ENTRIES_MAX: usize = 512;
/// Pages that a worker reads at once.
pub(crate) const PAGES_MAX: usize = 8;
/// Rooms that a worker restores at the same time, beside those that it resolves. Large rooms have as many permits of their own,
/// so that small ones do not wait for them.
pub(crate) const LOADS_MAX: usize = 4;
/// Attempts at an event that ends its worker or hangs its rules, unless configured otherwise; after them the event is void.
pub const RULES_ATTEMPTS: u32 = 3;
/// The most attempts that may be configured.
pub(crate) const RULES_ATTEMPTS_MAX: u32 = 10;
/// Threads of one worker that rules may keep for good; at so many the worker hands its shards over and ends.
pub(crate) const STUCK_JOBS_MAX: usize = 64;
/// Bytes of the room patterns that a worker announces. A worker with more announces that it has rules for all rooms.
pub(crate) const PATTERNS_BYTES_MAX: usize = 64 * 1024;
/// Shards of a deployment unless configured otherwise.
pub const SHARDS_DEFAULT: u16 = 8;
/// Most shards of a deployment.
pub(crate) const SHARDS_MAX: u16 = 1024;

/// Bounds of the cores of gateways and workers. The simulation uses smaller ones, so that they are reached.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    /// See [`SESSIONS_MAX`].
    pub(crate) sessions_max: usize,
    /// See [`WAITING_ACTIONS_MAX`].
    pub(crate) waiting_actions_max: usize,
    /// See [`UNRESOLVED_PER_ROOM_MAX`].
    pub(crate) unresolved_per_room_max: usize,
    /// See [`UNRESOLVED_MAX`].
    pub(crate) unresolved_max: usize,
    /// See [`BACKLOG_BYTES_MAX`].
    pub(crate) backlog_bytes_max: usize,
    /// See [`ROOM_RESERVE_EVENTS`].
    pub(crate) room_reserve_events: usize,
    /// See [`ROOM_RESERVE_BYTES`].
    pub(crate) room_reserve_bytes: usize,
    /// See [`FLUSH_EVENTS_MAX`].
    pub(crate) flush_events_max: usize,
    /// See [`FLUSH_BYTES_MAX`].
    pub(crate) flush_bytes_max: usize,
    /// See [`OUTBOX_MESSAGES_MAX`].
    pub(crate) outbox_messages_max: usize,
    /// See [`CATCH_UP_MESSAGES_MAX`].
    pub(crate) catch_up_messages_max: usize,
    /// See [`CATCH_UP_TURN_MAX`].
    pub(crate) catch_up_turn_max: usize,
    /// See [`CATCH_UP_PAGES_MAX`].
    pub(crate) catch_up_pages_max: usize,
    /// See [`RESOLVE_EVENTS_MAX`].
    pub(crate) resolve_events_max: usize,
    /// See [`SHARD_BELLS_MAX`].
    pub(crate) shard_bells_max: usize,
    /// See [`SURVEY_ROOMS`].
    pub(crate) survey_rooms: usize,
    /// See [`CHECKED_SHARDS_MAX`].
    pub(crate) checked_shards_max: usize,
    /// See [`COMMIT_VERDICTS_MAX`].
    pub(crate) commit_verdicts_max: usize,
    /// See [`COMMIT_BYTES_MAX`].
    pub(crate) commit_bytes_max: usize,
    /// See [`SNAPSHOT_EVENTS`].
    pub(crate) snapshot_events: u64,
    /// See [`SNAPSHOT_EVENTS_MAX`].
    pub(crate) snapshot_events_max: u64,
    /// See [`SNAPSHOT_PART_BYTES`].
    pub(crate) snapshot_part_bytes: usize,
    /// See [`PAGE_BYTES`].
    pub(crate) page_bytes: usize,
    /// See [`PAGE_ENTRIES_MAX`].
    pub(crate) page_entries_max: usize,
    /// See [`SHARD_CHECK_INTERVAL`]; in nanoseconds.
    pub(crate) check_interval_ns: u64,
    /// See [`FORGET_AFTER`]; in nanoseconds.
    pub(crate) forget_ns: u64,
    /// See [`MOVE_QUIET`]; in nanoseconds.
    pub(crate) move_quiet_ns: u64,
    /// See [`MOVE_AGAIN`]; in nanoseconds.
    pub(crate) move_again_ns: u64,
    /// See [`MOVE_WITHIN`]; in nanoseconds.
    pub(crate) move_within_ns: u64,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            sessions_max: SESSIONS_MAX,
            waiting_actions_max: WAITING_ACTIONS_MAX,
            unresolved_per_room_max: UNRESOLVED_PER_ROOM_MAX,
            unresolved_max: UNRESOLVED_MAX,
            backlog_bytes_max: BACKLOG_BYTES_MAX,
            room_reserve_events: ROOM_RESERVE_EVENTS,
            room_reserve_bytes: ROOM_RESERVE_BYTES,
            flush_events_max: FLUSH_EVENTS_MAX,
            flush_bytes_max: FLUSH_BYTES_MAX,
            outbox_messages_max: OUTBOX_MESSAGES_MAX,
            catch_up_messages_max: CATCH_UP_MESSAGES_MAX,
            catch_up_turn_max: CATCH_UP_TURN_MAX,
            catch_up_pages_max: CATCH_UP_PAGES_MAX,
            resolve_events_max: RESOLVE_EVENTS_MAX,
            shard_bells_max: SHARD_BELLS_MAX,
            survey_rooms: SURVEY_ROOMS,
            checked_shards_max: CHECKED_SHARDS_MAX,
            commit_verdicts_max: COMMIT_VERDICTS_MAX,
            commit_bytes_max: COMMIT_BYTES_MAX,
            snapshot_events: SNAPSHOT_EVENTS,
            snapshot_events_max: SNAPSHOT_EVENTS_MAX,
            snapshot_part_bytes: SNAPSHOT_PART_BYTES,
            page_bytes: PAGE_BYTES,
            page_entries_max: PAGE_ENTRIES_MAX,
            check_interval_ns: SHARD_CHECK_INTERVAL.as_nanos() as u64,
            forget_ns: FORGET_AFTER.as_nanos() as u64,
            move_quiet_ns: MOVE_QUIET.as_nanos() as u64,
            move_again_ns: MOVE_AGAIN.as_nanos() as u64,
            move_within_ns: MOVE_WITHIN.as_nanos() as u64,
        }
    }
}

/// Age above which a kernel stamp is not believed.
pub(crate) const STAMP_AGE_MAX: Duration = Duration::from_secs(10);
/// How long a client may take over its HTTP request head.
pub(crate) const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a session waits for its Open to be resolved before it is told to try again.
pub(crate) const WELCOME_TIMEOUT: Duration = Duration::from_secs(10);
/// How often an idle session is pinged.
pub(crate) const PING_INTERVAL: Duration = Duration::from_secs(20);
/// How long a session may stay silent, pongs included.
pub(crate) const IDLE_TIMEOUT: Duration = Duration::from_secs(60);
/// How long a session may read nothing of what it is sent before it is closed as slow.
pub(crate) const STALL_TIMEOUT: Duration = Duration::from_secs(10);
/// Pause after the system could not accept a connection, for want of descriptors.
pub(crate) const ACCEPT_RETRY_INTERVAL: Duration = Duration::from_millis(50);
/// How long the closing handshake may take.
pub(crate) const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);
/// How long a process may drain after SIGTERM.
pub const DRAIN_TIMEOUT: Duration = Duration::from_secs(10);
/// First pause before a failed step of the journal is tried again.
pub(crate) const RETRY_MIN: Duration = Duration::from_millis(5);
/// Longest pause before a failed step of the journal is tried again.
pub(crate) const RETRY_MAX: Duration = Duration::from_millis(500);
/// How far a gateway's promise stays behind the start of its sweep: the kernel stamps bytes before it makes them readable. With
/// up to 10 µs some stamps were clamped, from 15 µs on none: `docs/arrival.md` has the curve.
pub const SWEEP_GUARD: Duration = Duration::from_micros(20);
/// Longest guard that may be configured: it delays every event.
pub const SWEEP_GUARD_MAX: Duration = Duration::from_millis(10);
/// How old a stamp may be at its read before the gateway asks the kernel whether a segment overtook an earlier one. A message
/// whose first byte is held back for less keeps the stamp of its end. A gateway that keeps up reads most messages sooner.
pub(crate) const OVERTAKING_MAX: Duration = Duration::from_micros(100);
/// Largest configurable delay of a network card. A large one makes more photo finishes.
pub(crate) const UNCERTAINTY_MAX: Duration = Duration::from_millis(100);
/// How often a lagging gateway is asked again for its watermark.
pub(crate) const PROBE_INTERVAL: Duration = Duration::from_millis(20);
/// How long a gateway may owe a watermark before its host's workers look whether its process is gone.
pub(crate) const LOOK_AFTER: Duration = Duration::from_millis(20);
/// How often a worker looks whether the processes of the others on its host are gone.
pub(crate) const LOOK_INTERVAL: Duration = Duration::from_millis(50);
/// If another gateway's watermark is at most so far behind, an append does not ask it: it appends so often that its next
/// watermark comes by itself.
pub const POKE_IDLE: Duration = Duration::from_micros(500);
/// How long a gateway may owe a watermark before it is fenced.
pub(crate) const GATEWAY_TIMEOUT: Duration = Duration::from_secs(1);
/// Shortest time that a gateway without subscribers may owe a watermark: it may be subscribing again.
pub(crate) const DEAF_TIMEOUT_MIN: Duration = Duration::from_millis(200);
/// How long rules may take over one event.
pub(crate) const RULES_TIMEOUT: Duration = Duration::from_secs(2);
/// Shortest limit of the time for writing or restoring a room's whole state, which may be large.
pub(crate) const STATE_TIMEOUT: Duration = Duration::from_secs(20);
/// How long a worker waits, after the journal's server has changed, for gateways that may have seen a commit of unknown outcome:
/// they must notice the change, connect, and register.
pub(crate) const REJOIN_WINDOW: Duration = Duration::from_secs(3);
/// How long a worker's heartbeat is valid.
pub(crate) const LEASE_TIMEOUT: Duration = Duration::from_secs(1);
/// First pause before a room that cannot be continued is tried again. It doubles with every failure.
pub(crate) const QUARANTINE_MIN: Duration = Duration::from_secs(5);
/// Longest pause before a room that cannot be continued is tried again.
pub(crate) const QUARANTINE_MAX: Duration = Duration::from_secs(300);
/// How far a worker's wall clock may be off the journal server's when it claims a shard.
pub(crate) const WALL_CLOCK_OFF_MAX: Duration = Duration::from_secs(1);
/// Rooms with a timer due in which a claim counts the death of the owner before, the first due ones.
pub(crate) const DUE_DEATHS_MAX: usize = 10_000;
/// How often a worker sends a heartbeat.
pub const HEARTBEAT_INTERVAL: Duration = Duration::from_millis(250);
/// How long a host's heartbeat is valid. Each of its processes sends one every [`HEADS_INTERVAL`].
pub(crate) const HOST_TIMEOUT: Duration = Duration::from_secs(15);
/// How often the owner of a shard checks its rooms and gateways for what no event shows.
pub(crate) const SHARD_CHECK_INTERVAL: Duration = Duration::from_secs(1);
/// How long the record of a fenced gateway is kept when no room knows it any more. By then the gateway has noticed the fence.
pub(crate) const FORGET_AFTER: Duration = Duration::from_secs(120);
/// How often a gateway compares its rooms' heads with the journal's.
pub const HEADS_INTERVAL: Duration = Duration::from_secs(5);
/// How long a room may be empty before it ends.
pub(crate) const ROOM_LINGER: Duration = Duration::from_secs(30);
/// How long resolved events and verdicts are kept for `since` and replay.
pub(crate) const RETENTION: Duration = Duration::from_secs(600);

/// Rooms that a worker may resolve at once.
pub(crate) const CONCURRENCY_MAX: usize = 1024;
/// Sessions per gateway that may be configured.
pub(crate) const SESSIONS_SETTING_MAX: usize = 200_000;
/// Actions that one session may send in a second unless configured otherwise.
pub(crate) const ACTIONS_PER_SECOND: u32 = 1_000;
/// Connections of one address in a second that may be configured.
pub(crate) const CONNECTIONS_PER_SECOND_MAX: u32 = 1_000_000;
/// Actions per second that may be configured.
pub(crate) const ACTIONS_PER_SECOND_MAX: u32 = 1_000_000;
/// Shortest configurable silence after which a gateway is fenced, in milliseconds.
pub(crate) const GATEWAY_TIMEOUT_MS_MIN: u64 = 250;
/// Longest configurable silence after which a gateway is fenced, in milliseconds.
pub(crate) const GATEWAY_TIMEOUT_MS_MAX: u64 = 60_000;
/// Shortest configurable time that rules may take over one event, in milliseconds.
pub(crate) const RULES_TIMEOUT_MS_MIN: u64 = 100;
/// Longest configurable time that rules may take over one event, in milliseconds.
pub(crate) const RULES_TIMEOUT_MS_MAX: u64 = 600_000;
/// Shortest configurable lease, in milliseconds.
pub(crate) const LEASE_MS_MIN: u64 = 800;
/// Longest configurable lease, in milliseconds.
pub(crate) const LEASE_MS_MAX: u64 = 60_000;
/// Shortest configurable retention.
pub(crate) const RETENTION_MIN: Duration = Duration::from_secs(1);
/// Longest configurable retention.
pub(crate) const RETENTION_MAX: Duration = Duration::from_secs(30 * 86_400);
/// Shortest configurable time that a room may be empty before it ends.
pub(crate) const ROOM_LINGER_MIN: Duration = Duration::from_millis(100);
/// Longest configurable time that a room may be empty before it ends.
pub(crate) const ROOM_LINGER_MAX: Duration = Duration::from_secs(86_400);
/// Bytes of the prefix of all Redis keys.
pub(crate) const PREFIX_BYTES_MAX: usize = 64;
/// Fewest bytes of the key of the players' tokens: as many as its hash has (RFC 7518, section 3.2).
pub(crate) const JWT_KEY_BYTES_MIN: usize = 32;
/// Most bytes of the key of the players' tokens.
pub(crate) const JWT_KEY_BYTES_MAX: usize = 4096;
/// Bytes of a player's token.
pub const TOKEN_BYTES_MAX: usize = 4096;
/// Connections to the admin address at once.
pub(crate) const ADMIN_CONNECTIONS_MAX: usize = 64;
/// Other sources of I/O of a gateway process: listeners, connections of the journal, signals, files.
pub(crate) const OTHER_SOURCES_MAX: usize = 256;
/// How long one connection to the admin address may live.
pub(crate) const ADMIN_CONNECTION_TIMEOUT: Duration = Duration::from_secs(60);
/// How often the samples behind the histograms are folded into their buckets.
pub(crate) const METRICS_UPKEEP_INTERVAL: Duration = Duration::from_secs(1);
/// Bytes of a room's recording that are read into memory.
pub(crate) const RECORDING_BYTES_MAX: usize = 1 << 30;
/// Contenders that a contest's picture shows.
pub(crate) const PICTURE_CONTENDERS_MAX: usize = 40;

/// Sources of I/O that a gateway with so many sessions may have at once. One poll of its driver must take them all in (rule S5),
/// and its limit of open files must allow them.
#[must_use]
pub(crate) const fn sources_max(sessions_max: usize) -> usize {
    sessions_max + HANDSHAKES_MAX + TURNED_AWAY_MAX + ADMIN_CONNECTIONS_MAX + OTHER_SOURCES_MAX
}

const _: () = assert!(AUDIENCE_PLAYERS_MAX * (NAME_BYTES_MAX + 2) <= 2 * BODY_BYTES_MAX);
const _: () = assert!(SWEEP_GUARD.as_nanos() < OVERTAKING_MAX.as_nanos() && OVERTAKING_MAX.as_nanos() < STAMP_AGE_MAX.as_nanos());
const _: () = assert!(PROBE_INTERVAL.as_millis() * 10 < GATEWAY_TIMEOUT_MS_MIN as u128);
const _: () = assert!(RESUBSCRIBE_DELAY_MAX.as_millis() * 2 <= DEAF_TIMEOUT_MIN.as_millis());
const _: () = assert!(DEAF_TIMEOUT_MIN.as_millis() < GATEWAY_TIMEOUT_MS_MIN as u128);
const _: () = assert!(HEARTBEAT_INTERVAL.as_millis() * 3 < LEASE_MS_MIN as u128);
const _: () = assert!(PROBE_INTERVAL.as_millis() * 5 <= RULES_TIMEOUT_MS_MIN as u128);
const _: () = assert!(STATE_TIMEOUT.as_millis() >= RULES_TIMEOUT.as_millis() * 5);
const _: () = assert!(STUCK_JOBS_MAX > RULES_ATTEMPTS_MAX as usize);
const _: () = assert!(SESSIONS_MAX <= SESSIONS_SETTING_MAX);
const _: () = assert!(HANDSHAKES_PER_ADDRESS * 4 <= HANDSHAKES_MAX && SESSIONS_PER_ADDRESS * 4 <= SESSIONS_MAX);
const _: () = assert!(SESSIONS_PER_PLAYER_MIN <= SESSIONS_PER_PLAYER);
const _: () = assert!(HEARTBEAT_INTERVAL.as_millis() * 3 < LEASE_TIMEOUT.as_millis());
const _: () = assert!(PROBE_INTERVAL.as_millis() * 10 < GATEWAY_TIMEOUT.as_millis());
const _: () = assert!(HEADS_INTERVAL.as_secs() * 2 < HOST_TIMEOUT.as_secs());
const _: () = assert!(REDIS_RESPONSE_TIMEOUT.as_millis() + RETRY_MAX.as_millis() < REJOIN_WINDOW.as_millis());
const _: () = assert!((RECENT_IDS_PER_PLAYER_MAX + RECENT_PLAYER_IDS) * 500 <= RECENT_IDS_PER_ROOM_MAX);
const _: () = assert!(SESSIONS_PER_ROOM_MAX <= ROOM_SESSIONS_MAX);
const _: () = assert!(SNAPSHOT_BYTES_MAX <= 40 << 20);
const _: () = assert!(FIELD_BYTES_MAX * 4 < MESSAGE_BYTES_MAX);
const _: () = assert!(FLUSH_EVENTS_MAX <= UNRESOLVED_PER_ROOM_MAX && UNRESOLVED_PER_ROOM_MAX <= UNRESOLVED_MAX);
// If there is only one room, it gets one part in (divisor + 1), which must fill a flush.
const _: () = assert!(FLUSH_BYTES_MAX + FLUSH_EVENTS_MAX * BACKLOG_EVENT_BYTES < BACKLOG_BYTES_MAX / (ROOM_PART_OF_FREE + 1));
const _: () = assert!(NAME_BYTES_MAX * 2 + 128 <= BACKLOG_EVENT_BYTES);
const _: () = assert!(BACKLOG_EVENT_BYTES + MESSAGE_BYTES_MAX < FLUSH_BYTES_MAX);
const _: () = assert!(ROOM_RESERVE_BYTES > BACKLOG_EVENT_BYTES + MESSAGE_BYTES_MAX);
const _: () = assert!(ROOM_RESERVE_EVENTS <= UNRESOLVED_PER_ROOM_MAX);
const _: () = assert!(RESOLVE_EVENTS_MAX <= COMMIT_VERDICTS_MAX);
const _: () = assert!(LANE_BUFFER_BYTES_MAX >= FLUSH_BYTES_MAX);
const _: () = assert!(QUARANTINE_MIN.as_secs() < QUARANTINE_MAX.as_secs());
/// By default Redis disconnects a subscriber that is so far behind for a minute, in all that its process hears. One push must be far
/// below.
const REDIS_PUBSUB_BYTES: usize = 8 * 1024 * 1024;
const _: () = assert!(COMMIT_BYTES_MAX * 2 <= REDIS_PUBSUB_BYTES);
const _: () = assert!(MARKS_PER_ROOM_MAX * (BODY_BYTES_MAX + 1024) <= COMMIT_BYTES_MAX + 1024 * 1024);
const _: () = assert!(SNAPSHOT_EVENTS <= SNAPSHOT_EVENTS_MAX && SNAPSHOT_PART_BYTES <= PAGE_BYTES);
const _: () = assert!(SNAPSHOT_QUICK_BYTES_MAX as usize <= SNAPSHOT_PART_BYTES && SNAPSHOT_BYTES_MAX < RECORDING_BYTES_MAX);
// A session asks for more when its outbox is half empty: one room's push must fit into the rest.
const _: () = assert!(RESOLVE_EVENTS_MAX < OUTBOX_MESSAGES_MAX / 2);
const _: () = assert!(CATCH_UP_MESSAGES_MAX < OUTBOX_MESSAGES_MAX / 2 && DELIVERIES_PER_TURN_MAX <= CATCH_UP_TURN_MAX);
const _: () = assert!(FIRSTS_MAX >= RECENT_IDS_PER_PLAYER_MAX);
const _: () = assert!(SESSION_WRITE_BYTES + BODY_BYTES_MAX * 8 < SESSION_WRITE_BYTES_MAX);
const _: () = assert!(PING_INTERVAL.as_secs() * 2 < IDLE_TIMEOUT.as_secs());
const _: () = assert!(TARGETS_PER_ROOM_MAX * (FIELD_BYTES_MAX + NAME_BYTES_MAX + 64) <= BODY_BYTES_MAX);
const _: () = assert!(TARGETS_PER_ROOM_MAX <= TARGET_NAMES_PER_ROOM_MAX && TARGET_NAMES_PER_ROOM_MAX <= CONTESTS_PER_ROOM_MAX);
const _: () = assert!(CLAIMS_PER_ROOM_MAX <= CONTESTS_PER_ROOM_MAX);
const _: () = assert!(CLAIMS_LISTED_MAX * (FIELD_BYTES_MAX + NAME_BYTES_MAX + 8) <= BODY_BYTES_MAX);
const _: () = assert!(REPLICAS_TIMEOUT.as_millis() < REDIS_RESPONSE_TIMEOUT.as_millis());
const _: () = assert!(RESUBSCRIBE_DELAY_MIN.as_millis() < RESUBSCRIBE_DELAY_MAX.as_millis());
// A connection opens up to three files while a write waits.
const _: () = assert!(3 * (REPLICATED_CONNECTIONS + 1) + 64 < OTHER_SOURCES_MAX);
const _: () = assert!(SESSIONS_MAX <= SESSIONS_SETTING_MAX);
