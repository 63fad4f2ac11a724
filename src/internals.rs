//! What the program, its tests, benches and load generator use beyond the public API. It changes without notice.

pub use crate::program::main;

pub mod clock {
    pub use crate::clock::{Clock, epoch_us, monotonic_ns, timeline_name, timeline_name_of, unix_ms, unix_s};
}

pub mod config {
    pub use crate::config::{Config, Flags, ProcessRole};
}

pub mod engine {
    pub use crate::engine::{Held, Resequencer, Room};
}

pub mod gateway {
    pub use crate::gateway::front::arrival::{Drains, KERNEL_STAMPS, StampedStream, listen};
    pub use crate::gateway::front::auth::{Asking, Gatekeeper, JwtKey};
}

pub mod limits {
    pub use crate::limits::{
        CONTESTS_PER_ROOM_MAX, DRAIN_TIMEOUT, FLUSH_EVENTS_MAX, HEADS_INTERVAL, HEARTBEAT_INTERVAL, MESSAGE_BYTES_MAX,
        PAGE_BYTES, POKE_IDLE, PROGRAM_BUDGET, PROGRAM_BUDGET_MS_MAX, PROGRAM_BUDGET_MS_MIN, PROGRAM_DEPTH_MAX,
        PROGRAM_EVENTS_BYTES, PROGRAM_EVENTS_MAX, PROGRAM_FRAME_BYTES_MAX, PROGRAM_HELLO_TIMEOUT, PROGRAM_INSTANCES_MAX,
        PROGRAM_LINE_BYTES_MAX, PROGRAM_LINES_PER_SECOND, PROGRAM_STATE_BYTES_MAX, PROGRAMS_KEPT_MAX, RECENT_IDS_PER_PLAYER_MAX,
        ROOMS_PER_SHARD_MAX, RULES_ATTEMPTS, SESSIONS_PER_ROOM_MAX, SHARDS_DEFAULT, SNAPSHOT_EVENTS_MAX, SNAPSHOT_PART_BYTES,
        SUBSCRIPTION_ECHO_INTERVAL, SWEEP_GUARD, SWEEP_GUARD_MAX, TARGETS_PER_ROOM_MAX, TOKEN_BYTES_MAX, UNRESOLVED_PER_ROOM_MAX,
        WAITING_ACTIONS_MAX,
    };
}

pub mod metrics {
    pub use crate::metrics::*;
}

pub mod programs {
    pub use crate::rules::messages::check;
}

pub mod replay {
    pub use crate::replay::{Recording, dump};
}

pub mod roles {
    use crate::config::Config;
    use crate::shutdown::Shutdown;

    /// `lasthit gateway`, in the runtime of the caller.
    ///
    /// # Errors
    /// As the program: in one line.
    pub async fn gateway(config: Config, shutdown: Shutdown) -> Result<(), String> {
        crate::roles::gateway(config, shutdown, None).await.map_err(|error| error.to_string())
    }
}

pub mod runtime {
    pub use crate::runtime::{Priority, gateway, worker};
}

pub mod telemetry {
    pub use crate::telemetry::{LogFormat, init};
}

pub mod wire {
    pub mod action {
        pub use crate::wire::action::{decode, encode};
    }

    pub mod entry {
        pub use crate::wire::entry::{decode, encode};
    }

    pub mod push {
        pub use crate::wire::push::{Push, RoomPush, decode, encode, encode_verdicts};
    }

    pub mod verdicts {
        pub use crate::wire::verdicts::{decode, encode};
    }
}
