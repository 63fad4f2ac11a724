use std::time::Duration;

use redis::Value;

use super::breakdown::{Breakdown, Typical};
use super::choice::{Vary, median};
use super::counts::Counts;
use super::watch::{ScriptKind, Scripts, Seen, SystemCalls, Times, call, perf_count};
use crate::compare::commands::Watched;
use crate::spawn::Cost;

/// What a process shows when each of the named times was recorded so often.
fn shown(times: &[(&str, f64, u64)]) -> String {
    let each = times.iter().map(|(name, mean_us, count)| {
        let sum = mean_us * *count as f64 / 1e6;
        format!(
            "{name}_bucket{{le=\"0.01\"}} {count}\n{name}_bucket{{le=\"+Inf\"}} {count}\n{name}_sum {sum}\n{name}_count {count}\n"
        )
    });
    each.collect()
}

fn gateway(count: u64) -> String {
    shown(&[
        ("lasthit_stamp_age_seconds", 10.0, count),
        ("lasthit_settle_seconds", 60.0, count),
        ("lasthit_append_seconds", 80.0, count),
        ("lasthit_verdict_seconds", 300.0, count),
        ("lasthit_written_seconds", 320.0, count),
    ]) + &format!("lasthit_events_total{{kind=\"data\"}} {count}\nlasthit_flushes_total {}\n", count / 4)
}

fn worker(count: u64) -> String {
    shown(&[
        ("lasthit_read_seconds", 150.0, count),
        ("lasthit_hold_seconds", 20.0, count),
        ("lasthit_resolve_seconds", 8.0, count),
        ("lasthit_commit_wait_seconds", 2.0, count),
    ]) + &format!("lasthit_commits_total {}\nlasthit_pushes_total {}\n", count / 8, count / 2)
}

fn seen(texts: &[String]) -> Seen {
    let mut seen = Seen::default();
    for text in texts {
        seen.add(text).expect("metrics");
    }
    seen
}

const SERVICE: Typical = Typical { mean_us: 400.0, median_us: 9000.0 };

#[test]
fn stages_follow_each_other_and_add_up() {
    // What was recorded before counts for nothing: its times are others.
    let before = seen(&[shown(&[("lasthit_read_seconds", 9000.0, 50)])]);
    let mut all = seen(&[gateway(30), gateway(50), worker(80)]);
    all.add(&shown(&[("lasthit_read_seconds", 9000.0, 50)])).expect("metrics");
    let scripts = Scripts { append: Times(vec![(30, 1)]), commit: Times(vec![(20, 1), (50, 2)]) };
    let breakdown = Breakdown::of(&all.since(&before), &scripts, SERVICE).expect("stages");
    let stages: Vec<(&str, f64)> = breakdown.stages.iter().map(|stage| (stage.name, stage.time.mean_us.round())).collect();
    let expected = [
        ("socket", 10.0),
        ("settle", 50.0),
        ("append", 30.0),
        ("journal", 60.0),
        ("resequence", 20.0),
        ("resolve", 8.0),
        ("gather", 2.0),
        ("commit", 40.0),
        ("push", 80.0),
        ("deliver", 20.0),
        ("elsewhere", 80.0),
    ];
    assert_eq!(stages, expected);
    for (of, whole) in
        [(|time: Typical| time.mean_us, 400.0), (|time: Typical| time.median_us, 9000.0)] as [(fn(Typical) -> f64, f64); 2]
    {
        let sum: f64 = breakdown.stages.iter().map(|stage| of(stage.time)).sum();
        assert!((sum - whole).abs() < 1e-6, "{sum}");
    }
    assert_eq!((breakdown.stages[0].p99_us, breakdown.stages[1].p99_us), (Some(9900.0), None));
}

#[test]
fn a_stage_without_a_metric_is_an_error() {
    let scripts = Scripts { append: Times(vec![(30, 1)]), commit: Times(vec![(30, 1)]) };
    let error = Breakdown::of(&seen(&[gateway(4)]), &scripts, SERVICE).expect_err("no worker").to_string();
    assert!(error.contains("lasthit_read_seconds"), "{error}");
}

#[test]
fn costs_are_for_each_event() {
    let mut seen = seen(&[gateway(80), worker(80)]);
    let cost = Cost { cpu: Duration::from_millis(4), slept: 160, preempted: 8, reads_and_writes: 0 };
    seen.costs.insert("gateway".to_owned(), cost);
    seen.calls.insert("evalsha".to_owned(), 20);
    seen.calls.insert("hset".to_owned(), 60);
    seen.redis_bytes = [800, 1600];
    let calls = SystemCalls { by_kind: [("gateway".to_owned(), 30)].into(), events: 10, how: "hand" };
    let counts = Counts::of(&seen, &calls, &Watched::default()).expect("counts");
    let gateway = &counts.kinds["gateway"];
    assert_eq!((gateway.cpu_us, gateway.system_calls, gateway.sleeps, gateway.preemptions), (50.0, 3.0, 2.0, 0.1));
    assert_eq!((counts.events_per_flush, counts.events_per_commit, counts.events_per_push), (4.0, 8.0, 2.0));
    assert_eq!((counts.redis_bytes_in, counts.redis_bytes_out), (10.0, 20.0));
    // Nothing was watched: all counts as sent.
    assert_eq!((counts.commands_sent, counts.commands_in_scripts), (1.0, 0.0));
}

#[test]
fn perf_and_redis_are_understood() {
    assert_eq!(perf_count("# started\n549660,,raw_syscalls:sys_enter,100,100.00,,\n"), Some(549_660));
    assert_eq!(perf_count("<not counted>,,raw_syscalls:sys_enter,0,100.00,,\n"), None);
    let text = |text: &str| Value::BulkString(text.as_bytes().to_vec());
    let entry = |words: &[&str]| {
        let command = Value::Array(words.iter().map(|word| text(word)).collect());
        Value::Array(vec![Value::Int(7), Value::Int(1_700_000_000), Value::Int(42), command, text("path:0"), text("")])
    };
    let tag = "lasthit:{s1}:";
    let script = |count: &str, keys: &[&str]| {
        let keys: Vec<String> = keys.iter().map(|key| format!("{tag}{key}")).collect();
        let words: Vec<&str> = ["EVALSHA", "ab", count].into_iter().chain(keys.iter().map(String::as_str)).collect();
        call(&entry(&words))
    };
    let append = ["shard", "gateways", "active", "rooms", "room:a", "state:a", "room:b", "state:b"];
    assert_eq!(script("4", &append[..4]), None, "a watermark");
    assert_eq!(script("6", &append[..6]), Some((42, ScriptKind::Append, 1)));
    assert_eq!(script("80", &append), Some((42, ScriptKind::Append, 38)), "the list is cut");
    let commit = ["shard", "active", "out:a", "state:a", "out:b", "state:b"];
    assert_eq!(script("2", &commit[..2]), None, "a claim");
    assert_eq!(script("4", &commit[..4]), Some((42, ScriptKind::Commit, 1)));
    assert_eq!(script("6", &commit), Some((42, ScriptKind::Commit, 2)));
    let earlier = ["shard", "active", "room:a", "out:a", "state:a", "snapshot:a", "room:b", "out:b", "state:b", "snapshot:b"];
    assert_eq!(script("10", &earlier), Some((42, ScriptKind::Commit, 2)));
    assert_eq!(script("8", &["shard", "active", "rooms", "room:a", "out:a", "state:a"]), None, "an end");
    assert_eq!(script("5", &["shard", "gateways", "active", "room:a", "state:a"]), None, "a death");
    assert_eq!(call(&entry(&["PING"])), None);
    let keys = append.map(|key| format!("{tag}{key}"));
    let Value::Array(mut parts) = entry(&["EVALSHA", "ab", "6", &keys[0], &keys[1], &keys[2], &keys[3], &keys[4], &keys[5]])
    else {
        panic!("an array")
    };
    let Value::Array(words) = &mut parts[3] else { panic!("an array") };
    words.push(Value::BulkString(vec![0xff, 0xc0]));
    assert_eq!(call(&Value::Array(parts)), Some((42, ScriptKind::Append, 1)));
    let times = Times(vec![(90, 1), (10, 3)]);
    assert_eq!((times.mean_us(), times.quantile_us(0.5), times.quantile_us(0.99)), (Some(30.0), 10.0, 90.0));
    assert_eq!(Times::default().mean_us(), None);
}

#[test]
fn choices_are_parsed() {
    for good in ["shards=1,8", "redis=unix,tcp", "binary=/a/b,/c"] {
        good.parse::<Vary>().expect(good);
    }
    for bad in ["shards", "shards=1", "=1,2", "shards=1,,2", "redis=unix,udp"] {
        let error = bad.parse::<Vary>().expect_err(bad);
        assert!(
            error.contains("vary")
                && error.contains(bad.split('=').next_back().and_then(|v| v.split(',').next_back()).expect("a value")),
            "{error}"
        );
    }
    assert_eq!((median(vec![3.0, 1.0, 2.0]), median(vec![4.0, 1.0, 2.0, 3.0]), median(vec![])), (2.0, 2.0, 0.0));
}
