//! What an append and a commit cost Redis itself, as the scripts that they are, and otherwise: without the ping before them, as
//! plain commands. On a private Redis (skipped, and said so, where there is none), with a subscriber.
//!
//! Prints, for steps of 1, 16 and 64 rooms, the CPU time of Redis and the round trip: medians of rounds in turns.

use std::time::Duration;

use quanta::Instant;
use redis::{Client, Connection, Pipeline, Script, Value, cmd};
use servers::RedisServer;

const APPEND: &str = include_str!("../src/journal/redis/lua/append.lua");
const COMMIT: &str = include_str!("../src/journal/redis/lua/commit.lua");
const ROOMS: [usize; 3] = [1, 16, 64];
/// How often every variant has its turn.
const ROUNDS: usize = 7;
/// How long a turn takes, by its clock.
const TURN: Duration = Duration::from_millis(60);
const GATEWAY: &str = "00000000000000000000000000000001";
const BELL: &str = "bell";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum How {
    Script,
    BehindPing,
    Transaction,
    Pipeline,
}

const APPENDS: [(How, &str); 4] = [
    (How::BehindPing, "append: script behind a ping, as it is sent"),
    (How::Script, "append: script without the ping"),
    (How::Transaction, "append: the same writes as plain commands in MULTI"),
    (How::Pipeline, "append: the same writes as plain commands, not atomic"),
];
const COMMITS: [(How, &str); 2] =
    [(How::BehindPing, "commit: script behind a ping, as it is sent"), (How::Script, "commit: script without the ping")];

/// A shard with so many rooms, written to in one way.
struct Scene {
    redis: Connection,
    rooms: usize,
    how: How,
    script: Script,
    number: u64,
}

fn moment(number: u64) -> String {
    format!("{number:024}")
}

impl Scene {
    fn new(client: &Client, rooms: usize, how: How, script: &str) -> Self {
        let mut redis = client.get_connection().expect("redis");
        let () = cmd("FLUSHALL").query(&mut redis).expect("empty");
        let () =
            cmd("HSET").arg("gateways").arg(GATEWAY).arg(format!("0|{}|0|ab", moment(0))).query(&mut redis).expect("gateway");
        let () = cmd("HSET").arg("shard").arg(&["epoch", "1", "owner", "w"]).query(&mut redis).expect("lease");
        for room in 0..rooms {
            let state = ["era", "1", "seq", "0", "top", &moment(0), "last", "0-0"];
            let () = cmd("HSET").arg(format!("state{room}")).arg(&state).query(&mut redis).expect("state");
        }
        let _: String = cmd("SCRIPT").arg("LOAD").arg(script).query(&mut redis).expect("loaded");
        Self { redis, rooms, how, script: Script::new(script), number: 0 }
    }

    /// One step, with everything that came of it.
    fn append(&mut self) {
        self.number += 1;
        let (number, watermark) = (self.number, moment(self.number));
        let entry = [0x55_u8; 130];
        let mut pipeline = Pipeline::new();
        if matches!(self.how, How::Transaction | How::Pipeline) {
            if self.how == How::Transaction {
                pipeline.atomic();
            }
            pipeline.cmd("HINCRBY").arg("shard").arg("append").arg(1);
            let mut active = cmd("SADD");
            active.arg("active");
            for room in 0..self.rooms {
                pipeline.cmd("XADD").arg(format!("room{room}")).arg("*").arg("e").arg(&entry[..]);
                pipeline.cmd("HSET").arg(format!("state{room}")).arg("top").arg(&watermark).arg("last").arg("1-0");
                active.arg(format!("name{room}"));
            }
            pipeline.add_command(active);
            pipeline.cmd("HSET").arg("gateways").arg(GATEWAY).arg(format!("{number}|{watermark}|0|ab"));
            pipeline.cmd("PUBLISH").arg(BELL).arg(vec![0x55_u8; self.rooms * 160 + 80]);
        } else {
            let mut call = cmd("EVALSHA");
            call.arg(self.script.get_hash()).arg(4 + 2 * self.rooms).arg(&["shard", "gateways", "active", "rooms"]);
            for room in 0..self.rooms {
                call.arg(format!("room{room}")).arg(format!("state{room}"));
            }
            call.arg(GATEWAY)
                .arg(number)
                .arg(moment(number - 1))
                .arg(&watermark)
                .arg(BELL)
                .arg("push")
                .arg("poke")
                .arg(moment(0));
            for room in 0..self.rooms {
                call.arg(format!("name{room}")).arg(&watermark).arg(&entry[..]);
            }
            self.behind_ping(&mut pipeline, call);
        }
        let answers: Vec<Value> = pipeline.query(&mut self.redis).expect("appended");
        if let Some(Value::Array(answer)) = answers.last() {
            assert_eq!((answer.len(), &answer[0]), (1 + 3 * self.rooms, &Value::Int(0)), "{answers:?}");
        }
    }

    /// One verdict in each room, and the push of all of them.
    fn commit(&mut self) {
        self.number += 1;
        let number = self.number;
        let verdicts = [0x55_u8; 110];
        let mut call = cmd("EVALSHA");
        call.arg(self.script.get_hash()).arg(2 + 2 * self.rooms).arg(&["shard", "active"]);
        for room in 0..self.rooms {
            for key in ["out", "state"] {
                call.arg(format!("{key}{room}"));
            }
        }
        call.arg(1).arg("w").arg(number).arg(self.rooms);
        for room in 0..self.rooms {
            call.arg(format!("name{room}")).arg(1).arg(number - 1).arg(number).arg(format!("{number}-0")).arg(&verdicts[..]);
            call.arg("");
        }
        call.arg(BELL).arg(vec![0x55_u8; self.rooms * 150 + 80]);
        let mut pipeline = Pipeline::new();
        self.behind_ping(&mut pipeline, call);
        let answers: Vec<Value> = pipeline.query(&mut self.redis).expect("committed");
        assert_eq!(answers.last(), Some(&Value::Array(vec![Value::Int(0)])), "{answers:?}");
    }

    fn behind_ping(&self, pipeline: &mut Pipeline, call: redis::Cmd) {
        if self.how != How::Script {
            pipeline.cmd("PING");
        }
        pipeline.add_command(call);
    }

    fn cpu_us(&mut self) -> f64 {
        let info: String = cmd("INFO").arg("cpu").query(&mut self.redis).expect("info");
        let of = |name: &str| info.lines().find_map(|line| line.strip_prefix(name)?.parse::<f64>().ok()).expect("a time");
        (of("used_cpu_user_main_thread:") + of("used_cpu_sys_main_thread:")) * 1e6
    }

    /// CPU time of Redis and round trip of a step, in microseconds.
    fn turn(&mut self, step: fn(&mut Self)) -> (f64, f64) {
        (0..20).for_each(|_| step(self));
        let (cpu_us, began, mut steps) = (self.cpu_us(), Instant::now(), 0);
        while began.elapsed() < TURN {
            step(self);
            steps += 1;
        }
        let took_us = began.elapsed().as_secs_f64() * 1e6;
        ((self.cpu_us() - cpu_us) / f64::from(steps), took_us / f64::from(steps))
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn measure(client: &Client, variants: &[(How, &str)], script: &str, step: fn(&mut Scene)) {
    let mut taken = vec![[const { Vec::new() }; ROOMS.len()]; variants.len()];
    for _ in 0..ROUNDS {
        for (size, rooms) in ROOMS.into_iter().enumerate() {
            for (variant, (how, _)) in variants.iter().enumerate() {
                taken[variant][size].push(Scene::new(client, rooms, *how, script).turn(step));
            }
        }
    }
    for ((_, name), sizes) in variants.iter().zip(taken) {
        print!("{name:<58}");
        for turns in sizes {
            let (cpu, took): (Vec<f64>, Vec<f64>) = turns.into_iter().unzip();
            print!("{:>10.1}{:>10.1}", median(cpu), median(took));
        }
        println!();
    }
}

fn main() {
    let server = match RedisServer::start() {
        Ok(server) => server,
        Err(error) => return println!("skipped: {error}"),
    };
    let client = Client::open(server.url()).expect("client");
    let mut subscriber = client.get_connection().expect("redis");
    // Ends with the server.
    std::thread::spawn(move || {
        let mut messages = subscriber.as_pubsub();
        messages.subscribe(BELL).expect("subscribed");
        while messages.get_message().is_ok() {}
    });
    print!("{:<58}", "µs of Redis' CPU, µs of the round trip");
    ROOMS.iter().for_each(|rooms| print!("{:>20}", format!("{rooms} rooms")));
    println!();
    measure(&client, &APPENDS, APPEND, Scene::append);
    measure(&client, &COMMITS, COMMIT, Scene::commit);
}
