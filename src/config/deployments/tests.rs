use super::*;
use crate::config::{ConfigError, Flags};

const TWO: &str = "redis = 'redis://h'\nlease_ms = 3000\n\
                   [deployments.eu]\nprefix = 'eu'\n[deployments.us]\nprefix = 'us'\nlisten = '127.0.0.1:7780'\nlease_ms = 2000\n";

fn load(flags: &[(&str, &str)], env: &[(&str, &str)], file: &str) -> Result<Config, Vec<String>> {
    let flags = flags.iter().fold(Flags::default(), |all, (key, value)| all.with(key, value));
    let env = |name: &str| env.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned());
    let from = Sources::with_text(flags, &env, Some(("FILE".to_owned(), file.to_owned())));
    Config::load_from(ProcessRole::Up, from).map_err(|ConfigError { mistakes }| mistakes)
}

fn names(config: &Config) -> Vec<&str> {
    config.up.deployments.iter().map(|(name, _)| name.as_str()).collect()
}

#[test]
fn each_has_its_own_settings_over_those_at_the_top() {
    let config = load(&[], &[], TWO).expect("fits");
    assert_eq!(names(&config), ["eu", "us"]);
    let of = |config: &Config, at: usize| {
        let deployed = &config.up.deployments[at].1;
        (deployed.prefix.clone(), deployed.listen.port(), deployed.lease.as_millis())
    };
    assert_eq!((of(&config, 0), of(&config, 1)), (("eu".into(), 7777, 3000), ("us".into(), 7780, 2000)));
    // The environment over the file, flags over both: for each of them.
    let config = load(&[("lease_ms", "5000")], &[("LASTHIT_SHARDS", "4"), ("LASTHIT_LEASE_MS", "4000")], TWO).expect("fits");
    let all = config.up.deployments.iter().map(|(_, config)| (config.shards, config.lease.as_millis()));
    assert_eq!(all.collect::<Vec<_>>(), [(4, 5000), (4, 5000)]);
    // Without any there is one, which has no name.
    let config = load(&[("redis", "redis://h")], &[], "lease_ms = 3000").expect("fits");
    assert_eq!((names(&config), config.up.deployments[0].1.lease.as_millis()), (vec![""], 3000));
}

#[test]
fn rooms_and_rules_take_the_place_of_those_above_them() {
    let of = |file: &str| {
        let config = load(&[], &[], &format!("redis = 'redis://h'\n{file}")).expect("fits");
        config.up.deployments.into_iter().map(|(_, config)| config.rooms[0].pattern.clone()).collect::<Vec<_>>()
    };
    let above = "[[rooms]]\npattern = 'a'\nrules = 'claim'\n";
    let own = "[deployments.eu]\nprefix = 'eu'\n[[deployments.eu.rooms]]\npattern = 'b'\nrules = 'claim'\n";
    let other = "[deployments.us]\nprefix = 'us'\nlisten = '127.0.0.1:0'\n";
    assert_eq!(of(&[above, own, other].concat()), ["b", "a"]);
    let folder = tempfile::tempdir().expect("folder");
    let path = folder.path().join("all.js");
    std::fs::write(&path, "export default { name: 'r', version: 1 }").expect("written");
    let by_file = format!("{other}rules = '{}'\n", path.display());
    assert_eq!(of(&[above, own, &by_file].concat()), ["b", "*"]);
    assert_eq!(of(&[&format!("rules = '{}'\n", path.display()), own, other].concat()), ["b", "*"]);
}

#[test]
fn what_two_may_not_share_is_told_with_where_it_is_set() {
    let two = |eu: &str, us: &str| format!("redis = 'redis://h'\n[deployments.eu]\n{eu}\n[deployments.us]\n{us}\n");
    let (listen, prefix) = ("listen = '127.0.0.1:0'", "prefix = 'us'");
    let same_keys = "\"eu\" and \"us\" have the same redis (redis://h) and prefix (\"lasthit\"): \
                     give each a prefix of its own, or a redis";
    let same_listen = "\"eu\" and \"us\" listen on 127.0.0.1:7777: give each a listen of its own";
    for (flags, file, expected) in [
        (&[][..], two("", listen), format!("FILE, deployments.us.redis: {same_keys}").replace("deployments.us.redis", "redis")),
        (&[], two("", prefix), format!("FILE, deployments.us: {same_listen}")),
        (&[], two("", &format!("{prefix}\nlisten = '0.0.0.0:7777'\nallow_keyless = true")), "FILE, deployments.us.listen: \"eu\" and \"us\" listen on 0.0.0.0:7777".into()),
        (
            &[("prefix", "p")],
            two("prefix = 'eu'", &format!("{prefix}\n{listen}")),
            "--prefix: \"eu\" and \"us\" have the same redis (redis://h) and prefix (\"p\"): give each a prefix of its own, or a redis in the file, and leave --prefix out".into(),
        ),
        (
            &[("listen", "127.0.0.1:7777")],
            two("", &format!("{prefix}\n{listen}")),
            format!("--listen: {same_listen} in the file, and leave --listen out"),
        ),
        (
            &[("redis", "redis://h")],
            two("redis = 'redis://a'", &format!("redis = 'redis://b'\n{listen}")),
            format!("--redis: {same_keys} in the file, and leave --redis out"),
        ),
        (
            &[],
            two("redis = 'redis://u:hush@H:6379/0?x=1'", listen),
            "FILE, redis: \"eu\" and \"us\" have the same redis (redis://***@H:6379/0?***)".into(),
        ),
    ] {
        let mistakes = load(flags, &[], &file).expect_err("a mistake");
        assert!(mistakes.len() == 1 && mistakes[0].starts_with(&expected), "{mistakes:#?}\ninstead of\n{expected}");
    }
    // Nobody listens where there are no gateways, and a port of 0 is another one each time.
    load(&[], &[], &two("gateways = 0", prefix)).expect("fits");
    load(&[("listen", "127.0.0.1:0")], &[], &two("", prefix)).expect("fits");
    load(&[], &[], &two("redis = 'redis://h/1'", listen)).expect("another database");
}

#[test]
fn names_and_keys_that_do_not_fit_are_told() {
    let with = |file: &str| load(&[("redis", "redis://h")], &[], file).expect_err("mistakes");
    for (file, expected) in [
        ("[deployments]", "FILE, deployments: has no table: write one for each, as [deployments.eu], or leave it out"),
        ("deployments = 3", "FILE, deployments: has no table"),
        ("[deployments]\neu = 3", "FILE, deployments: \"eu\" is not a table: write it as [deployments.eu]"),
        ("[deployments.all]", "FILE, deployments: \"all\" is no name: use 1 to 32 letters, digits, _ and -, and not `all`"),
        ("[deployments.'a/b']", "FILE, deployments: \"a/b\" is no name"),
        (
            "[deployments.eu]\nadmin = 'none'",
            "FILE, deployments.eu: \"admin\" is the same for all: set it at the top of the file",
        ),
        ("[deployments.eu]\nhat = 1", "FILE, deployments.eu: \"hat\" is not a setting: use one of redis, prefix"),
        ("[deployments.eu.deployments.us]", "FILE, deployments.eu: \"deployments\" is the same for all"),
        ("[deployments.eu]\nshards = 0", "FILE, deployments.eu.shards: \"0\" does not fit"),
        ("[deployments.eu]\nlisten = '0.0.0.0:1'", "FILE, deployments.eu.listen: \"0.0.0.0:1\" is reachable from other hosts"),
        (
            "[deployments.eu]\n[[deployments.eu.rooms]]\npattern = 'a b'\nrules = 'claim'",
            "FILE, deployments.eu, rooms number 1: pattern",
        ),
        // Once, though it is read for each.
        (
            "shards = 0\n[deployments.eu]\n[deployments.us]\nprefix = 'us'\nlisten = '127.0.0.1:1'",
            "FILE, shards: \"0\" does not fit",
        ),
    ] {
        let mistakes = with(file);
        assert!(mistakes.len() == 1 && mistakes[0].starts_with(expected), "{file}: {mistakes:#?}");
    }
    let long = with(&format!("[deployments.{}]", "x".repeat(33)));
    assert!(long[0].contains("is no name: use 1 to 32 letters"), "{long:?}");
}

#[test]
fn who_names_no_redis_uses_the_supervisors_own() {
    use crate::journal::redis::Durability;
    let file = "[deployments.eu]\nprefix = 'eu'\nredis = 'managed'\n[deployments.us]\nlisten = '127.0.0.1:1'\nredis = 'redis://h'\n\
                [deployments.as]\nlisten = '127.0.0.1:2'\ndurability = 'redis'\n";
    let config = load(&[], &[], file).expect("fits");
    let of = |name: &str| &config.up.deployments.iter().find(|(other, _)| other == name).expect("there").1;
    assert_eq!(["eu", "us", "as"].map(|name| of(name).redis.is_none()), [true, false, true]);
    assert_eq!(["eu", "us", "as"].map(|name| of(name).durability), [Durability::Disk, Durability::Redis, Durability::Redis]);
    assert_eq!(config.up.managed(), Some(Durability::Disk));
    assert_eq!(load(&[("redis", "redis://h")], &[], "").expect("fits").up.managed(), None);
    let mistakes = load(&[("durability", "replicated")], &[], "").expect_err("a mistake");
    assert!(mistakes[0].starts_with("--durability: \"replicated\" needs replicas, and a managed redis has none"), "{mistakes:?}");
    let mistakes = load(&[("data", "here")], &[], "").expect_err("a mistake");
    assert_eq!(mistakes, ["--data: \"here\" is not a path from the root: use one such as /var/lib/lasthit"]);
    // A process of it is told where that is.
    let child = |role, managed: Option<&str>| {
        let mut from = Sources::with_text(Flags::default(), &|_| None, Some(("FILE".to_owned(), file.to_owned())));
        from.of("eu");
        from.managed = managed.map(str::to_owned);
        Config::load_from(role, from).map_err(|error| error.mistakes)
    };
    let config = child(ProcessRole::Worker, Some("unix:///d/redis.sock")).expect("fits");
    assert_eq!(config.redis.as_ref().map(super::super::RedisUrl::reveal), Some("unix:///d/redis.sock"));
    assert_eq!((config.durability, config.prefix.as_str()), (Durability::Disk, "eu"));
    let mistakes = child(ProcessRole::Worker, None).expect_err("by hand");
    assert_eq!(
        mistakes,
        ["FILE, deployments.eu.redis: \"managed\" is what `lasthit up` runs: give the address of one, as its log says it"]
    );
}

#[test]
fn databases_are_the_same_however_they_are_written() {
    let of = |url: &str| super::super::RedisUrl::new(url).expect(url).database();
    for (a, b) in [
        ("redis://h", "redis://u:p@H:6379/0"),
        ("rediss://h:1/2?x=y", "redis://h:1/2"),
        ("redis://[::1]", "redis://[::1]:6379"),
        ("unix:///s", "unix:///s?db=0&user=a"),
    ] {
        assert_eq!(of(a), of(b));
    }
    assert!(
        of("unix:///s?db=1") != of("unix:///s") && of("redis://h:1") != of("redis://h") && of("redis://h/1") != of("redis://h")
    );
}
