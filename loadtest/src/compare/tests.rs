//! What is told of a comparison.

use super::*;

fn comparison(rounds: &[&[(&str, f64)]]) -> Comparison {
    let figures = |pairs: &&[(&str, f64)]| pairs.iter().map(|(name, value)| ((*name).to_owned(), *value)).collect();
    Comparison {
        rounds: rounds.iter().map(figures).collect(),
        notes: vec!["without groupmq, which is not in x: its rows are absent".to_owned()],
        load_average: [0.5, 2.25],
        cores: 2,
    }
}

const ROUND: &[(&str, f64)] = &[
    ("echo.p50_us", 60.0),
    ("echo.p99_us", 200.0),
    ("echo.verdicts_per_s", 120_000.0),
    ("floor.p50_us", 90.0),
    ("two_gateways.p50_us", 600.0),
    ("two_gateways.p99_us", 1_900.0),
    ("two_gateways.verdicts_per_s", 54_321.0),
    ("peer_4.p50_us", 2_600.0),
    ("peer_4.p99_us", 27_000.0),
    ("peer_4.verdicts_per_s", 5_432.1),
    ("session_kib", 9.9),
];

#[test]
fn the_table_says_what_is_reached_and_what_is_absent() {
    let table = comparison(&[ROUND]).to_string();
    let line = |what: &str| {
        let line = table.lines().find(|line| line.starts_with(what)).unwrap_or_else(|| panic!("no {what} in\n{table}"));
        line.strip_prefix(what).expect("prefix").split_whitespace().collect::<Vec<_>>().join(" ")
    };
    assert_eq!(line("lasthit on Redis, two gateways"), "54,321 600 µs 1.9 ms");
    assert_eq!(line("usual stack, concurrency 4"), "5,432 2.6 ms 27 ms");
    assert_eq!(
        line("verdicts/s with a p99 under 50 ms, compared with the usual stack's best"),
        "10x 12x 20x MISSES what is required"
    );
    assert_eq!(line("p99 at 1,000/s, compared with the usual stack's best"), "1/14.2 1/10.0 1/30.0 reaches what is required");
    assert_eq!(line("the same, compared with a bare echo"), "1/2.2 1/2.5 1/1.7 reaches what is required");
    assert_eq!(line("resident memory per idle session, at 5,000"), "9.90 KiB 16 KiB 8.00 KiB reaches what is required");
    assert_eq!(line("without sockets, p99 at 1,000/s, compared with groupmq's"), "- 1/2.0 1/5.0");
    assert!(!table.contains("concurrency 16") && table.contains("without groupmq, which is not in x"), "{table}");
    assert!(table.ends_with("One round; load average 0.5 before, 2.2 after"), "{table}");
}

#[test]
fn the_json_has_ratios_by_name_and_all_that_they_come_from() {
    let json = comparison(&[ROUND, &[("session_kib", 11.9)]]).json().expect("json");
    let json: serde_json::Value = serde_json::from_str(&json).expect("json");
    assert_eq!(json["ratios"]["session_kib"], 10.9);
    assert_eq!(json["ratios"]["throughput_vs_echo"], 54_321.0 / 120_000.0);
    assert_eq!(json["ratios"].get("queue_throughput_vs_groupmq"), None);
    assert_eq!(json["raw"]["reached"]["session_kib"], "required");
    assert_eq!(json["raw"]["rounds"][1], json!({"session_kib": 11.9}));
    assert_eq!(json["raw"]["medians"]["echo.p50_us"], 60.0);
}

#[test]
fn the_picture_shows_what_was_measured() {
    let svg = draw(&comparison(&[ROUND]));
    assert!(svg.starts_with("<svg") && svg.ends_with("</svg>\n"));
    for shown in ["54,321  (10.0x)", "600 µs · 1.9 ms", "Redis floor", "usual stack", "100 ms"] {
        assert!(svg.contains(shown), "{shown} is not in\n{svg}");
    }
    for absent in ["groupmq", "without sockets", "NaN", "inf"] {
        assert!(!svg.contains(absent), "{absent} is in\n{svg}");
    }
    assert!(draw(&comparison(&[])).ends_with("</svg>\n"));
}
