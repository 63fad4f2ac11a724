//! The settings of the roles, as flags: texts, which the configuration checks.

use clap::Args;
use serde::Serialize;

#[derive(Debug, Args, Serialize)]
pub(super) struct UpArgs {
    /// Gateways: a number, auto (by the number of cores), or auto:MIN..MAX (by load) [default: auto]
    #[arg(long, value_name = "COUNT")]
    pub(super) gateways: Option<String>,
    /// Workers: the same [default: auto]
    #[arg(long, value_name = "COUNT")]
    pub(super) workers: Option<String>,
    /// Program that runs as each worker instead of this one, with its arguments behind it: "./my-worker --fast" [default: this one]
    #[arg(long, value_name = "COMMAND")]
    pub(super) worker_command: Option<String>,
    /// Socket for commands [default: supervisor.sock in --runtime-dir]
    #[arg(long, value_name = "PATH")]
    pub(super) control: Option<String>,
    /// Where the managed redis keeps its data [default: /var/lib/lasthit of root, else ~/.local/state/lasthit]
    #[arg(long, value_name = "DIR")]
    pub(super) data: Option<String>,
    /// Time that a process may take until it is ready [default: 15s]
    #[arg(long, value_name = "TIME")]
    pub(super) ready_timeout: Option<String>,
    /// Time that a process may take to end [default: 15s]
    #[arg(long, value_name = "TIME")]
    pub(super) stop_timeout: Option<String>,
    /// Time that a process may say nothing before it is killed [default: 10s]
    #[arg(long, value_name = "TIME")]
    pub(super) hang_timeout: Option<String>,
    /// Time over which a gateway that leaves moves its sessions [default: 5s]
    #[arg(long, value_name = "TIME")]
    pub(super) drain_window: Option<String>,
    /// Replace a process when it has had so many actions or events, less up to a tenth of that [default: never]
    #[arg(long, value_name = "N")]
    pub(super) recycle_events: Option<String>,
    /// Replace a process when it is so old, less up to a tenth of that [default: never]
    #[arg(long, value_name = "TIME")]
    pub(super) recycle_age: Option<String>,
    /// Replace a process when it uses so much memory (512MiB), less up to a tenth of that [default: never]
    #[arg(long, value_name = "SIZE")]
    pub(super) recycle_memory: Option<String>,
    /// Move sessions when gateways are uneven: on or off [default: on]
    #[arg(long, value_name = "ON")]
    pub(super) even: Option<String>,
}

#[derive(Debug, Args, Serialize)]
pub(super) struct RedisArgs {
    /// redis://, rediss:// or unix:// URL, or redis+sentinel://HOST:PORT,HOST:PORT/NAME (rediss+sentinel:// with TLS) for the primary
    /// that Sentinel calls NAME, or redis+cluster://HOST:PORT,HOST:PORT (rediss+cluster://) for a cluster, by some of its nodes. If it has a password, use LASTHIT_REDIS: process lists show flags. `lasthit up` runs one
    /// of its own unless a URL is given (managed)
    #[arg(long, value_name = "URL")]
    pub(super) redis: Option<String>,
    /// Prefix of all keys in Redis [default: lasthit]
    #[arg(long, value_name = "TEXT")]
    pub(super) prefix: Option<String>,
    /// Number of shards: groups of rooms that workers share. Fixed for a deployment [default: 8]
    #[arg(long, value_name = "N")]
    pub(super) shards: Option<String>,
}

#[derive(Debug, Args, Serialize)]
pub(super) struct GatewayArgs {
    /// Address that players connect to [default: 127.0.0.1:7777]
    #[arg(long, value_name = "IP:PORT")]
    pub(super) listen: Option<String>,
    /// Under which URL players reach this host's gateways (ws:// or wss://): needed where several hosts share a Redis
    #[arg(long, value_name = "URL")]
    pub(super) advertise: Option<String>,
    /// File with the key of the players' tokens (HS256). Or give the key itself in LASTHIT_JWT_KEY
    #[arg(long, value_name = "FILE")]
    pub(super) jwt_key_file: Option<String>,
    /// Origins of web pages that may connect: https://a,https://b or * [default: loopback and the gateway's own page]
    #[arg(long, value_name = "LIST")]
    pub(super) allowed_origins: Option<String>,
    /// Accept players from other hosts without a key: anyone can then act as any player
    #[arg(long)]
    pub(super) allow_keyless: bool,
    /// Without a key, accept the gateway's own page under any host name. Do not use it where an attacker may point a host name
    /// at this machine
    #[arg(long)]
    pub(super) allow_host_names: bool,
    /// Most sessions at a time [default: 20000, or fewer if the limit of open files allows no more]
    #[arg(long, value_name = "N")]
    pub(super) sessions_max: Option<String>,
    /// Most sessions of one address. Loopback is exempt [default: 1000]
    #[arg(long, value_name = "N")]
    pub(super) sessions_per_address: Option<String>,
    /// Most connections that one address may open in a second. Loopback is exempt [default: 200]
    #[arg(long, value_name = "N")]
    pub(super) connections_per_second: Option<String>,
    /// Most sessions of one player, except with the role server [default: 32]
    #[arg(long, value_name = "N")]
    pub(super) sessions_per_player: Option<String>,
    /// Most actions of one session in a second [default: 1000]
    #[arg(long, value_name = "N")]
    pub(super) actions_per_second: Option<String>,
    /// Time that a watermark stays behind the sweep that proves it, see docs/arrival.md [default: 20]
    #[arg(long, value_name = "US")]
    pub(super) sweep_guard_us: Option<String>,
    /// Longest time that the network card may hold a message back before the kernel stamps it, see docs/arrival.md [default: 0]
    #[arg(long, value_name = "US")]
    pub(super) uncertainty_us: Option<String>,
}

#[derive(Debug, Args, Serialize)]
pub(super) struct WorkerArgs {
    /// Rules in JavaScript, for all rooms. For some rooms: [[rooms]] in the file that --config names
    #[arg(long, value_name = "FILE")]
    pub(super) rules: Option<String>,
    /// Read the files of rules again when they change, and check each event by deciding it twice. For development
    #[arg(long)]
    pub(super) watch: bool,
    /// Most rooms that are resolved at the same time [default: the number of cores]
    #[arg(long, value_name = "N")]
    pub(super) concurrency: Option<String>,
    /// Time that a gateway may owe its watermark before the worker fences it [default: 1000]
    #[arg(long, value_name = "MS")]
    pub(super) gateway_timeout_ms: Option<String>,
    /// Time that rules may take for one event before the worker gives up on them [default: 2000]
    #[arg(long, value_name = "MS")]
    pub(super) rules_timeout_ms: Option<String>,
    /// Time after which other workers take over the shards of a silent worker [default: 1000]
    #[arg(long, value_name = "MS")]
    pub(super) lease_ms: Option<String>,
    /// Time that a host may be without a worker or a gateway before another one takes its shards [default: two leases]
    #[arg(long, value_name = "MS")]
    pub(super) rehome_after_ms: Option<String>,
    /// Time that events and verdicts are kept for `since` and replay [default: 10m]
    #[arg(long, value_name = "TIME")]
    pub(super) retention: Option<String>,
    /// Time that a room may be empty before it ends [default: 30s]
    #[arg(long, value_name = "TIME")]
    pub(super) room_linger: Option<String>,
}

#[derive(Debug, Args, Serialize)]
pub(super) struct DurabilityArgs {
    /// What a verdict has survived before anyone sees it: redis, disk or replicated. Not for serve [default: redis, with a managed redis
    /// disk]
    #[arg(long, value_name = "LEVEL")]
    pub(super) durability: Option<String>,
}

#[derive(Debug, Args, Serialize)]
pub(super) struct CommonArgs {
    /// TOML file with settings and rules by room name
    #[arg(long, value_name = "FILE")]
    pub(super) config: Option<String>,
    /// Address that serves health and metrics, or none [default: 127.0.0.1:7778, for a worker none]
    #[arg(long, value_name = "IP:PORT")]
    pub(super) admin: Option<String>,
    /// Accept other hosts on --admin, which has no password
    #[arg(long)]
    pub(super) allow_remote_admin: bool,
    /// Where gateways and workers of one host lock a file each, so that a killed one is noticed at once; none: time-outs alone
    /// [default: $XDG_RUNTIME_DIR/lasthit, else lasthit-UID in the directory for temporary files]
    #[arg(long, value_name = "DIR")]
    pub(super) runtime_dir: Option<String>,
    /// normal, or realtime: before all usual processes of the host, which needs a right [default: normal]
    #[arg(long, value_name = "PRIORITY")]
    pub(super) priority: Option<String>,
    /// Format of the logs on stderr: text or json [default: text]
    #[arg(long, value_name = "FORMAT")]
    pub(super) log_format: Option<String>,
    /// Logs to write: error, warn, info, debug, trace, or target=level,... [default: info]
    #[arg(long, value_name = "FILTER")]
    pub(super) log: Option<String>,
}
