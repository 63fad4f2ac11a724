use super::*;
use crate::chaos::layout::{Layout, Nodes};
use crate::chaos::{Durability, Kind};
use crate::during::Deed;

fn parse(line: &str) -> Result<RunArgs, String> {
    let cli = Cli::try_parse_from(line.split_whitespace()).map_err(|e| e.to_string())?;
    match cli.command {
        Command::Run(args) => Ok(args),
        other => Err(format!("{other:?}")),
    }
}

#[test]
fn a_whole_line() {
    let args = parse("loadtest run --url ws://a:1,ws://b:2/ --sessions 5 --rooms 2 --rate 9 --duration 500ms").expect("args");
    assert_eq!(args.target.url, ["ws://a:1", "ws://b:2"]);
    assert_eq!((args.sessions, args.rooms, args.rate, args.duration), (5, 2, 9, Some(Duration::from_millis(500))));
    assert_eq!(args.dialect, Dialect::Lasthit);
    assert!(parse("loadtest run --spawn gateways=2,workers=1").is_ok());
}

#[test]
fn what_is_done_during_a_run_is_a_list() {
    let line = "loadtest run --spawn up:gateways=2,workers=2 --connects 200 --late-after 2s --during reload,exec,scale,crash,supervisor-stop";
    let args = parse(line).expect("args");
    assert_eq!((args.connects, args.late_after), (Some(200), Duration::from_secs(2)));
    let deeds = [Deed::Reload, Deed::Exec, Deed::Scale, Deed::Crash, Deed::SupervisorStop];
    assert_eq!(args.during, deeds);
    let load = args.load(vec!["ws://a".into()]);
    assert!(load.extra >= Duration::from_secs(5 * 120) && load.connects == 200, "{load:?}");
    let plain = parse("loadtest run --url ws://a").expect("args").load(vec!["ws://a".into()]);
    assert_eq!((plain.extra, plain.connects, plain.late_after), (Duration::ZERO, 0, Duration::from_secs(1)));
}

#[test]
fn a_fair_line() {
    let line = "loadtest fair --url ws://a:1,ws://b:2 --gaps-us 0,20 --trials 5 --background 0 --burst 3 --same --seed 7";
    let cli = Cli::try_parse_from(line.split_whitespace()).expect("args");
    let Command::Fair(args) = cli.command else { panic!("{cli:?}") };
    assert_eq!((args.gaps_us, args.trials, args.background, args.burst), (vec![0, 20], 5, 0, 3));
    assert!(args.peer.is_none() && args.same && args.seed == Some(7) && args.dialect == Dialect::Lasthit && args.url.len() == 2);
    assert!(Cli::try_parse_from("loadtest fair --url ws://a --spawn serve".split_whitespace()).is_err());
    for (line, peer) in [("--peer --seed 7", Some(None)), ("--peer here --seed 7", Some(Some(PathBuf::from("here"))))] {
        let cli = Cli::try_parse_from(format!("loadtest fair {line}").split_whitespace()).expect("args");
        let Command::Fair(args) = cli.command else { panic!("{cli:?}") };
        assert_eq!((args.peer, args.seed), (peer, Some(7)), "{line}");
    }
}

#[test]
fn a_curve_line() {
    let cli = Cli::try_parse_from("loadtest curve".split_whitespace()).expect("args");
    let Command::Curve(args) = cli.command else { panic!("{cli:?}") };
    assert_eq!(args.guards_us, [0, 5, 10, 20, 50, 100, 200]);
    assert!(args.time < Duration::from_secs(300), "it is bounded by less than five minutes");
    let cli = Cli::try_parse_from("loadtest curve --guards-us 3,7 --trials 5 --time 30s --seed 1".split_whitespace());
    let Command::Curve(args) = cli.expect("args").command else { panic!("another command") };
    assert_eq!((args.guards_us, args.trials, args.time, args.seed), (vec![3, 7], 5, Duration::from_secs(30), Some(1)));
    for bad in ["--guards-us x", "--guards-us -1", "--trials many", "--time 5"] {
        assert!(Cli::try_parse_from(format!("loadtest curve {bad}").split_whitespace()).is_err(), "{bad}");
    }
}

#[test]
fn a_chaos_line_and_a_soak_line() {
    let line = "loadtest chaos --duration 20s --seed 7 --durability disk --only worker-kill,cut --faults-per-minute 30";
    let Command::Chaos(args) = Cli::try_parse_from(line.split_whitespace()).expect("args").command else { panic!("{line}") };
    assert_eq!((args.duration, args.seed, args.durability), (Duration::from_secs(20), Some(7), Durability::Disk));
    assert_eq!((args.only, args.faults_per_minute), (vec![Kind::WorkerKill, Kind::Cut], 30));
    for (given, counts) in [("--supervised --seed 7", (2, 2)), ("--supervised gateways=1,workers=3", (1, 3))] {
        let cli = Cli::try_parse_from(format!("loadtest chaos --gateways 0 {given}").split_whitespace()).expect("args");
        let Command::Chaos(args) = cli.command else { panic!("{given}") };
        assert_eq!((args.supervised, args.gateways), (Some(counts), Some(0)));
    }
    let line = "loadtest chaos --cluster 3x2 --hosts 3 --workers 2 --only host-kill,host-pause,host-cut,host-drain";
    let Command::Chaos(args) = Cli::try_parse_from(line.split_whitespace()).expect("args").command else { panic!("{line}") };
    assert_eq!((args.hosts, args.gateways, args.workers), (Some(3), None, Some(2)));
    assert_eq!(args.only, [Kind::HostKill, Kind::HostPause, Kind::HostCut, Kind::HostDrain]);
    let bads = [
        "--only murder",
        "--hosts 5",
        "--durability ram",
        "--faults-per-minute 0",
        "--rooms 0",
        "--gateways 65",
        "--supervised gateways=auto:1..2",
    ];
    for bad in bads {
        let error = Cli::try_parse_from(format!("loadtest chaos {bad}").split_whitespace()).expect_err(bad).to_string();
        assert!(error.contains(bad.split_once(' ').expect("a value").1), "{error}");
    }
    for (given, layout) in [
        ("--cluster 3x2", Layout::Cluster(Nodes { primaries: 3, replicas: 1 })),
        ("--cluster 3x1 --valkey", Layout::Cluster(Nodes { primaries: 3, replicas: 0 })),
        ("--sentinel", Layout::Sentinel),
        ("--rude false", Layout::Single),
    ] {
        let cli = Cli::try_parse_from(format!("loadtest chaos {given}").split_whitespace()).expect("args");
        let Command::Chaos(args) = cli.command else { panic!("{given}") };
        assert_eq!(args.layout(), layout, "{given}");
    }
    for bad in ["chaos --cluster 2x2", "chaos --cluster 3x2 --sentinel", "hosts --cluster 3"] {
        let error = Cli::try_parse_from(format!("loadtest {bad}").split_whitespace()).expect_err(bad).to_string();
        assert!(error.contains("--cluster"), "{error}");
    }
    let cli = Cli::try_parse_from("loadtest soak".split_whitespace()).expect("args");
    let Command::Soak(args) = cli.command else { panic!("another command") };
    assert_eq!((args.rooms, args.duration), (100_000, Duration::from_secs(600)));
}

#[test]
fn lines_about_a_supervisor() {
    let even = "loadtest even --spawn up:gateways=4,workers=1 --sessions 100 --rate 50 --kill --peer cluster --svg f --json g";
    let Command::Even(args) = Cli::try_parse_from(even.split_whitespace()).expect("args").command else { panic!("{even}") };
    assert_eq!((args.sessions, args.rate, args.kill, args.peer.is_some(), args.svg.is_some()), (100, 50, true, true, true));
    let door = "loadtest door --samples 5 --ramp 10..100 --tasks 3 --duration 1s";
    let Command::Door(args) = Cli::try_parse_from(door.split_whitespace()).expect("args").command else { panic!("{door}") };
    assert_eq!(
        (args.samples, args.tasks, args.duration, args.ramp),
        (5, 3, Duration::from_secs(1), "10..100".parse().expect("a ramp"))
    );
    let auto = "loadtest auto --steps 1000:30s,2000:1m --sessions 10 --rooms 2";
    let Command::Auto(args) = Cli::try_parse_from(auto.split_whitespace()).expect("args").command else { panic!("{auto}") };
    assert_eq!((args.steps.len(), args.sessions, args.rooms), (2, 10, 2));
    for bad in [
        "even --peer bus",
        "even --rate 0",
        "even --sessions 20001",
        "door --samples 0",
        "door --tasks 65",
        "auto --steps 1000",
        "door --ramp 9..1",
    ] {
        let error = Cli::try_parse_from(format!("loadtest {bad}").split_whitespace()).expect_err(bad).to_string();
        assert!(error.contains(bad.rsplit(' ').next().expect("a value")), "{error}");
    }
}

#[test]
fn a_stages_line() {
    let line = "loadtest stages --rates 10,20 --set shards=4 --set retention=1s --vary redis=unix,tcp --rounds 2";
    let Command::Stages(args) = Cli::try_parse_from(line.split_whitespace()).expect("args").command else { panic!("{line}") };
    let settings = [("shards", "4"), ("retention", "1s")].map(|(name, value)| (name.to_owned(), value.to_owned()));
    assert_eq!((args.rates, args.set, args.rounds), (vec![10, 20], settings.to_vec(), 2));
    assert!(args.vary.is_some() && !args.tcp);
    for bad in ["--set shards", "--vary shards=1", "--rounds 2", "--rates many", "--vary a=1,2 --svg f"] {
        assert!(Cli::try_parse_from(format!("loadtest stages {bad}").split_whitespace()).is_err(), "{bad}");
    }
}

#[test]
fn a_scale_line() {
    let line = "loadtest scale --nodes 1,3 --hosts 2 --shards 6 --rooms 7 --rate 80 --rounds 1 --duration 1s --json f --svg g";
    let Command::Scale(args) = Cli::try_parse_from(line.split_whitespace()).expect("args").command else { panic!("{line}") };
    assert_eq!((args.nodes, args.hosts), (vec![1, 3], vec![2]));
    assert_eq!((args.shards, args.rooms, args.rate, args.rounds, args.duration), (6, 7, 80, 1, Duration::from_secs(1)));
    let Command::Scale(args) = Cli::try_parse_from(["loadtest", "scale"]).expect("args").command else { panic!("scale") };
    assert_eq!((args.nodes, args.hosts), (vec![1, 2, 3], vec![1]));
    for bad in [
        "--nodes 0",
        "--nodes 1,17",
        "--hosts 9",
        "--shards 1025",
        "--rooms 0",
        "--rate 0",
        "--rounds 0",
        "--duration 5",
        "--nodes x",
    ] {
        let error = Cli::try_parse_from(format!("loadtest scale {bad}").split_whitespace()).expect_err(bad).to_string();
        assert!(error.contains(bad.rsplit([' ', ',']).next().expect("a value")), "{error}");
    }
}

#[test]
fn a_target_is_one_of_two() {
    assert!(parse("loadtest run").is_err());
    assert!(parse("loadtest run --url ws://a:1 --spawn serve").is_err());
}

#[test]
fn mistakes_name_the_value() {
    for (line, named) in [
        ("--url http://a", "http://a"),
        ("--url wss://a", "wss://a"),
        ("--url ws://a:1/room", "ws://a:1/room"),
        ("--url ws://a --duration 10", "\"10\""),
        ("--url ws://a --duration 9999999999999999999m", "9999999999999999999m"),
        ("--url ws://a --duration 25h", "25h"),
        ("--spawn gateways=0,workers=1", "gateways"),
        ("--spawn redis", "redis"),
        ("--spawn cluster=2,gateways=2", "\"cluster=2\": use 3 to 9 primaries, as in cluster=3"),
        ("--spawn cluster=3,delay=5ms", "leave out cluster or delay"),
        ("--spawn up:gateways=auto:4..1", "gateways=auto:4..1"),
        ("--url ws://a --connects 0", "0 is not in 1..=5000"),
        ("--url ws://a --connects 5001", "5001"),
        ("--url ws://a --during lunch", "lunch"),
        ("--url ws://a --late-after 1s", "--connects"),
        ("--url ws://a --connects 5 --late-after soon", "\"soon\""),
        ("--spawn up:gateways=2 --during reload --closed", "--closed"),
    ] {
        let error = parse(&format!("loadtest run {line}")).expect_err(line);
        assert!(error.contains(named), "{error}");
    }
}
