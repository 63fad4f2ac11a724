use std::collections::BTreeMap;
use std::io::Write as _;

use super::*;
use crate::rules::Keep;
use crate::types::{Audience, RoomId};

/// Loads with flags and environment given as `key=value`, and a file's text.
fn load(role: ProcessRole, flags: &[(&str, &str)], env: &[(&str, &str)], file: &str) -> Result<Config, Vec<String>> {
    let env: BTreeMap<String, String> = env.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    let mut all = Flags::default();
    for (key, value) in flags {
        all = all.with(key, value);
    }
    let mut toml = tempfile::NamedTempFile::new().expect("file");
    toml.write_all(file.as_bytes()).expect("written");
    if !file.is_empty() {
        all = all.with("config", toml.path().to_str().expect("path"));
    }
    let path = format!("{}, ", toml.path().display());
    Config::load(role, all, &|name| env.get(name).cloned())
        .map_err(|e| e.mistakes.iter().map(|m| m.replace(&path, "FILE, ")).collect())
}

fn mistake(role: ProcessRole, flags: &[(&str, &str)], env: &[(&str, &str)], file: &str) -> String {
    let mistakes = load(role, flags, env, file).expect_err("a mistake");
    assert_eq!(mistakes.len(), 1, "{mistakes:#?}");
    assert!(!mistakes[0].contains('\n'), "one line: {}", mistakes[0]);
    mistakes[0].clone()
}

const REDIS: (&str, &str) = ("redis", "redis://127.0.0.1:1");
const KEY: &str = "0123456789abcdef0123456789abcdef";

#[test]
fn nothing_set_gives_the_defaults() {
    let config = load(ProcessRole::Serve, &[], &[], "").expect("defaults");
    assert_eq!(config.listen.to_string(), "127.0.0.1:7777");
    assert_eq!(config.admin.map(|a| a.to_string()).as_deref(), Some("127.0.0.1:7778"));
    assert_eq!((config.shards, config.lease, config.retention), (8, Duration::from_secs(1), Duration::from_secs(600)));
    let worker = load(ProcessRole::Worker, &[REDIS], &[], "").expect("defaults");
    assert_eq!(worker.admin, None, "several workers start side by side");
}

#[test]
fn flags_win_over_environment_over_file() {
    let file = "shards = 3\nlease_ms = 3000\nretention = '3m'\nallowed_origins = ['https://a', 'https://b:1']";
    let env = [("LASTHIT_SHARDS", "4"), ("LASTHIT_LEASE_MS", "4000")];
    let config = load(ProcessRole::Serve, &[("shards", "5")], &env, file).expect("fits");
    assert_eq!((config.shards, config.lease, config.retention), (5, Duration::from_secs(4), Duration::from_secs(180)));
    assert_eq!(config.allowed_origins.iter().map(Origin::as_str).collect::<Vec<_>>(), ["https://a", "https://b:1"]);
}

#[test]
fn all_mistakes_are_reported_at_once_each_with_place_value_and_fix() {
    let file = "shards = 0\nretension = '5m'\n[[rooms]]\npattern = 'a b'\nrules = 'chess'\naudience = 'all'\nhat = 1";
    let env = [("LASTHIT_LEASE_MS", "soon"), ("LASTHIT_RETENTION", "10")];
    let mistakes = load(ProcessRole::Gateway, &[("listen", "here"), ("log", "a=b=c")], &env, file).expect_err("mistakes");
    let expected = [
        "is not a setting: use one of redis, prefix,",
        "FILE, shards: \"0\" does not fit: use a whole number from 1 to 1024",
        "--listen: \"here\" is not an address: use IP:PORT",
        "LASTHIT_LEASE_MS: \"soon\" does not fit: use a whole number from 800 to 60000",
        "LASTHIT_RETENTION: \"10\" is not a duration: use a whole number and a unit",
        "--log: \"a=b=c\" is not a log filter",
        "FILE, rooms number 1: \"hat\" is not a setting",
        "FILE, rooms number 1: pattern \"a b\" matches no room",
        "FILE, rooms number 1: audience \"all\" is not known: use room or sender",
        "FILE, rooms number 1: rules \"chess\" are not known: use last_hit, claim, or a file",
        "redis is missing: give gateway --redis redis://",
    ];
    assert_eq!(mistakes.len(), expected.len(), "{mistakes:#?}");
    for (mistake, expected) in mistakes.iter().zip(expected) {
        assert!(mistake.contains(expected) && !mistake.contains('\n'), "{mistake:?} should hold {expected:?}");
    }
}

#[test]
fn a_file_that_is_missing_or_no_toml_says_where() {
    let missing = mistake(ProcessRole::Serve, &[("config", "/nowhere/x.toml")], &[], "");
    assert!(missing.starts_with("--config: \"/nowhere/x.toml\" cannot be read"), "{missing}");
    let broken = mistake(ProcessRole::Serve, &[], &[], "shards = 3\nlisten = =");
    assert!(broken.contains("is not TOML, line 2"), "{broken}");
}

#[test]
fn serve_says_that_memory_survives_nothing() {
    for level in ["disk", "replicated"] {
        let line = mistake(ProcessRole::Serve, &[("durability", level)], &[], "");
        assert!(line.contains("memory, which survives nothing") && line.contains("lasthit worker"), "{line}");
    }
}

#[test]
fn every_setting_refuses_what_it_cannot_be() {
    for (key, bad) in [
        ("prefix", "a{b}"),
        ("shards", "1025"),
        ("admin", "7778"),
        ("allow_keyless", "maybe"),
        ("allow_remote_admin", "maybe"),
        ("allow_host_names", "maybe"),
        ("allowed_origins", "https://a/path"),
        ("allowed_origins", "a.example"),
        ("concurrency", "0"),
        ("gateway_timeout_ms", "10"),
        ("rules_timeout_ms", "1"),
        ("retention", "99999999999999999999d"),
        ("retention", "1ms"),
        ("durability", "ram"),
        ("runtime_dir", ""),
        ("priority", "99"),
        ("room_linger", ""),
        ("sessions_max", "-1"),
        ("sessions_per_address", "0"),
        ("connections_per_second", "0"),
        ("sessions_per_player", "1"),
        ("actions_per_second", "1.5"),
        ("sweep_guard_us", "10001"),
        ("uncertainty_us", "100001"),
        ("worker_command", " "),
        ("recycle_events", "99"),
        ("recycle_age", "59s"),
        ("recycle_memory", "31MiB"),
        ("recycle_memory", "1GB"),
        ("recycle_memory", "99999999999999999999GiB"),
        ("log_format", "xml"),
        ("log", ""),
        ("jwt_key_file", "/nowhere/key"),
    ] {
        let line = mistake(ProcessRole::Serve, &[(key, bad)], &[], "");
        let flag = format!("--{}: {bad:?} ", key.replace('_', "-"));
        assert!(line.starts_with(&flag) && line.contains(": "), "{line}");
    }
}

#[test]
fn the_address_for_players_is_a_host_and_nothing_else() {
    for (good, kept) in [
        ("ws://10.0.0.7:7777", "ws://10.0.0.7:7777"),
        ("wss://eu-1.example.com/", "wss://eu-1.example.com"),
        ("ws://localhost", "ws://localhost"),
        ("ws://[2001:db8::7]:80", "ws://[2001:db8::7]:80"),
    ] {
        assert_eq!(crate::types::advertised(good).as_deref(), Ok(kept));
    }
    let (fits, long) = (format!("wss://{}", "a".repeat(90)), format!("wss://{}/", "a".repeat(91)));
    assert_eq!(crate::types::advertised(&fits), Ok(fits));
    for (bad, why) in [
        ("", "is no address for players: "),
        ("eu-1.example.com", "is no address for players: "),
        ("http://eu-1.example.com", "is no address for players: "),
        ("WSS://eu-1.example.com", "is no address for players: "),
        ("ws://h?player=a", "has something behind its host: "),
        ("ws://h#7", "has something behind its host: "),
        ("ws://h/game", "has a path, "),
        ("ws://h//", "has a path, "),
        ("ws://ann:hush@h", "has a name or a password, "),
        ("ws://", "names no host and port: "),
        ("ws:///", "names no host and port: "),
        ("ws://:80", "names no host and port: "),
        ("ws://h:", "names no host and port: "),
        ("ws://h:0", "names no host and port: "),
        ("ws://h:65536", "names no host and port: "),
        ("ws://h 2", "names no host and port: "),
        ("ws://[::1", "names no host and port: "),
        ("ws://[h]:80", "names no host and port: "),
        ("ws://[::1]80", "names no host and port: "),
        ("ws://h\u{e9}", "names no host and port: "),
        ("ws://0.0.0.0:7777", "stands for all addresses of this host, "),
        ("ws://[::]:7777", "stands for all addresses of this host, "),
        (&long, "has 97 bytes: use an address of at most 96"),
    ] {
        let error = crate::types::advertised(bad).expect_err(bad);
        assert!(error.starts_with(why) && error.contains(": ") && !error.contains('\n'), "{bad}: {error}");
    }
}

#[test]
fn secrets_are_never_shown() {
    for url in [
        "http://u:hush@h",
        "u:hush@h",
        "redis://u:hush",
        "unix:///s?pass=hush x",
        "redis://u:hu@sh@:port",
        "redis+sentinel://u:hush",
        "redis+sentinel://u:hush@h:1",
        "redis+sentinel://h/name?sentinel_password=hu@sh",
        "redis+sentinel://h/name?hush=1",
    ] {
        let line = mistake(ProcessRole::Worker, &[("redis", url)], &[], "");
        assert!(!line.contains("hush") && !line.contains("hu@"), "{line}");
    }
    let config =
        load(ProcessRole::Gateway, &[("redis", "rediss://u:hush@h:1/2")], &[("LASTHIT_JWT_KEY", KEY)], "").expect("fits");
    assert!(!format!("{config:?}").contains("hush") && !format!("{config:?}").contains(KEY));
    assert_eq!(config.redis.as_ref().map(RedisUrl::reveal), Some("rediss://u:hush@h:1/2"));
    assert_eq!(config.redis.map(|u| u.to_string()).as_deref(), Some("rediss://***@h:1/2"));
    for good in ["unix:///run/r.sock", "redis://[::1]:6379", "redis://host", "redis://:pw@host:1/0"] {
        assert!(RedisUrl::new(good).is_ok(), "{good}");
    }
}

#[test]
fn a_url_of_a_cluster_has_nodes_and_nothing_else() {
    for (bad, says) in [
        ("redis+cluster://", "\"redis+cluster://***\" names no node of a cluster: use redis+cluster://"),
        ("redis+cluster://u:hush@", "names no node of a cluster: use redis+cluster://"),
        ("redis+cluster://h,i:x", "has a node that is no HOST or HOST:PORT"),
        ("redis+cluster://h,i/3", "a cluster has no other database than 0"),
        ("rediss+cluster://h?db=3", "a cluster has no other database than 0"),
        ("redis+cluster://h,h:6379", "names the node h:6379 twice"),
    ] {
        let error = mistake(ProcessRole::Worker, &[("redis", bad)], &[], "");
        assert!(error.contains(says) && !error.contains("hush") && !error.contains('\n'), "{error}");
    }
    let url = RedisUrl::new("redis+cluster://u:hush@10.0.0.1:7000,[::1]").expect("fits");
    assert_eq!(url.to_string(), "redis+cluster://***@10.0.0.1:7000,[::1]");
    assert!(!url.is_on_this_host() && !RedisUrl::new("redis+cluster://localhost").expect("fits").is_on_this_host());
}

#[test]
fn a_url_of_sentinel_has_hosts_and_a_name() {
    let set = |url: &str| mistake(ProcessRole::Worker, &[("redis", url)], &[], "");
    for (url, says) in [
        ("redis+sentinel://", "\"redis+sentinel://***\" names no sentinel: use redis+sentinel://"),
        ("redis+sentinel:///main", "names no sentinel: use redis+sentinel://"),
        ("rediss+sentinel://h:26379,i", "\"rediss+sentinel://h:26379,i\" does not say what its sentinels call the primary"),
        ("redis+sentinel://h,i:x/main", "has a sentinel that is no HOST or HOST:PORT"),
        ("redis+sentinel://h,h:26379/main", "names the sentinel h:26379 twice"),
        ("redis+sentinel://h/main/3", "characters than A-Z a-z 0-9 . - _"),
        ("redis+sentinel://h/main?db=x", "has a db that is no number"),
    ] {
        assert!(set(url).contains(says), "{}", set(url));
    }
    let good = "rediss+sentinel://u:hush@s1:26379,[::1]/main?db=2&sentinel_password=hush";
    for config in [
        load(ProcessRole::Worker, &[("redis", good)], &[], ""),
        load(ProcessRole::Worker, &[], &[("LASTHIT_REDIS", good)], ""),
        load(ProcessRole::Worker, &[], &[], &format!("redis = '{good}'")),
    ] {
        let url = config.expect("fits").redis.expect("a url");
        assert_eq!(url.to_string(), "rediss+sentinel://***@s1:26379,[::1]/main?***");
        assert!(!url.is_on_this_host() && !RedisUrl::new("redis+sentinel://localhost/m").expect("fits").is_on_this_host());
        assert_eq!(url.database(), "[::1]:26379,s1:26379/main/2");
    }
}

#[test]
fn keys_come_from_a_file_or_the_environment_and_must_be_long() {
    let mut file = tempfile::NamedTempFile::new().expect("file");
    file.write_all(format!("{KEY}\n").as_bytes()).expect("written");
    let path = file.path().to_str().expect("path");
    let config = load(ProcessRole::Serve, &[("jwt_key_file", path)], &[], "").expect("fits");
    assert_eq!(config.jwt_key.as_ref().map(JwtKey::reveal), Some(KEY.as_bytes()), "without the line end");
    let both = mistake(ProcessRole::Serve, &[("jwt_key_file", path)], &[("LASTHIT_JWT_KEY", KEY)], "");
    assert!(both.contains("both given"), "{both}");
    for short in ["", "short"] {
        let line = mistake(ProcessRole::Serve, &[], &[("LASTHIT_JWT_KEY", short)], "");
        assert!(line.contains(&format!("the key has {} bytes: use 32 to", short.len())), "{line}");
    }
    let inline = load(ProcessRole::Serve, &[], &[], "jwt_key = 'hush'").expect_err("not a setting");
    assert!(inline[0].contains("jwt_key_file") && !inline[0].contains("hush"), "{inline:?}");
}

#[test]
fn beyond_loopback_needs_a_key_or_the_word() {
    let open = ("listen", "0.0.0.0:7777");
    let line = mistake(ProcessRole::Serve, &[open], &[], "");
    assert!(line.contains("0.0.0.0:7777") && line.ends_with("--allow-keyless"), "{line}");
    assert!(load(ProcessRole::Serve, &[open, ("allow_keyless", "true")], &[], "").is_ok());
    assert!(load(ProcessRole::Serve, &[open], &[("LASTHIT_JWT_KEY", KEY)], "").is_ok());
    let short = mistake(ProcessRole::Serve, &[open], &[("LASTHIT_JWT_KEY", "short")], "");
    assert!(short.contains("the key has 5 bytes"), "only the real mistake: {short}");
    let admin = mistake(ProcessRole::Worker, &[REDIS, ("admin", "[::]:7778")], &[], "");
    assert!(admin.contains("no password") && admin.ends_with("--allow-remote-admin"), "{admin}");
    assert!(load(ProcessRole::Worker, &[REDIS, open], &[], "").is_ok(), "workers do not listen");
}

/// Each word opens what it names, and nothing else, from wherever it comes.
#[test]
fn three_words_open_three_things() {
    let (open, admin) = (("listen", "0.0.0.0:7777"), ("admin", "0.0.0.0:7778"));
    let words = ["allow_keyless", "allow_remote_admin", "allow_host_names"];
    for word in words {
        let upper = format!("LASTHIT_{}", word.to_uppercase());
        let line = format!("{word} = true");
        for way in ["flag", "environment", "file"] {
            let flags = if way == "flag" { vec![(word, "true")] } else { Vec::new() };
            let env = if way == "environment" { vec![(upper.as_str(), "true")] } else { Vec::new() };
            let file = if way == "file" { line.as_str() } else { "" };
            let all = [&[open, admin], &flags[..]].concat();
            let mistakes = load(ProcessRole::Serve, &all, &env, file).err().unwrap_or_default();
            let refused = |flag: &str| mistakes.iter().any(|line| line.starts_with(flag));
            assert_eq!(refused("--listen"), word != "allow_keyless", "{word}: {mistakes:?}");
            assert_eq!(refused("--admin"), word != "allow_remote_admin", "{word}: {mistakes:?}");
            let config = load(ProcessRole::Serve, &flags, &env, file).expect("loopback needs no word");
            let set = [config.allow_keyless, config.allow_remote_admin, config.allow_host_names];
            assert_eq!(set, words.map(|other| other == word), "{word}");
        }
    }
}

#[test]
fn roles_and_redis_must_fit() {
    assert!(
        mistake(ProcessRole::Serve, &[], &[], "redis = 'redis://h'").starts_with("FILE, redis: serve keeps its rooms in memory")
    );
    assert!(mistake(ProcessRole::Worker, &[], &[], "").starts_with("redis is missing: give worker"));
    assert!(mistake(ProcessRole::Serve, &[("admin", "127.0.0.1:7777")], &[], "").contains("another port"));
}

#[test]
fn rooms_choose_their_rules() {
    let names = |config: &Config, room: &str| {
        config.rules_book().rules_for(&RoomId::new(room).expect("name")).map(|rules| rules.name().to_owned())
    };
    let config = Config::defaults(ProcessRole::Serve);
    assert_eq!(names(&config, "load-1").as_deref(), Some("claim"));
    assert_eq!(names(&config, "claim-1").as_deref(), Some("claim"));
    assert_eq!(names(&config, "baron").as_deref(), Some("last_hit"));
    assert_eq!(config.rooms[0].rules, rooms::RulesChoice::Claim { audience: Audience::Session });

    let file =
        "[[rooms]]\npattern = 'quiz-?'\nrules = 'claim'\naudience = 'sender'\n[[rooms]]\npattern = 'b*'\nrules = 'last_hit'";
    let config = load(ProcessRole::Serve, &[], &[], file).expect("fits");
    assert_eq!(names(&config, "quiz-1").as_deref(), Some("claim"));
    assert_eq!(names(&config, "baron").as_deref(), Some("last_hit"));
    assert_eq!(names(&config, "other").as_deref(), None);

    let unreached = "[[rooms]]\npattern = '*'\nrules = 'claim'\n[[rooms]]\npattern = 'b'\nrules = 'last_hit'";
    assert!(mistake(ProcessRole::Serve, &[], &[], unreached).contains("never reached after \"*\""));
    let audience = "[[rooms]]\npattern = '*'\nrules = 'last_hit'\naudience = 'room'";
    assert!(mistake(ProcessRole::Serve, &[], &[], audience).contains("for rules = \"claim\" only"));
    assert!(mistake(ProcessRole::Serve, &[], &[], "rooms = 3").contains("write each as [[rooms]]"));
}

#[test]
fn a_pattern_says_how_much_it_keeps_and_how_often_it_tries() {
    let rooms = "[[rooms]]\npattern = 'a*'\nrules = 'claim'\nkeep_done = 5000\nkeep_failed = 0\n[[rooms]]\npattern = 'b*'\n\
                 rules = { process = ['true'], attempts = 10 }";
    let book = load(ProcessRole::Serve, &[], &[], rooms).expect("good").rules_book();
    let keep = |room: &str| book.keep_of(&RoomId::new(room).expect("name"));
    assert_eq!(keep("a"), Keep { attempts: 3, done: Some(5_000), failed: 0 });
    assert_eq!(keep("b"), Keep { attempts: 10, done: None, failed: 1_000 });
    for (setting, expected) in [
        ("keep_done = 999\nrules = 'claim'", "keep_done 999 is not allowed: use a number from 1000 to 1000000000"),
        ("keep_failed = 10001\nrules = 'claim'", "keep_failed 10001 is not allowed: use a number from 0 to 10000"),
        ("keep_failed = 'all'\nrules = 'claim'", "keep_failed \"all\" is not allowed: use a number from 0 to 10000"),
        ("rules = { process = ['true'], attempts = 0 }", "rules: attempts 0 is not allowed: use a number from 1 to 10"),
        ("rules = { process = ['true'], attempts = 11 }", "rules: attempts 11 is not allowed: use a number from 1 to 10"),
    ] {
        let line = mistake(ProcessRole::Serve, &[], &[], &format!("[[rooms]]\npattern = '*'\n{setting}"));
        assert!(line.ends_with(expected), "{line}");
    }
}

#[test]
fn a_program_is_a_file_beside_the_configuration() {
    let folder = tempfile::tempdir().expect("folder");
    let path = |name: &str| folder.path().join(name).to_str().expect("UTF-8").to_owned();
    std::fs::write(path("good.js"), "export default { name: 'good', version: 2 }").expect("written");
    std::fs::write(path("bad.js"), "export default {\n name: 'bad' }").expect("written");
    let read = |rules: &str| {
        std::fs::write(path("lasthit.toml"), format!("[[rooms]]\npattern = '*'\nrules = {rules}")).expect("written");
        Config::load(ProcessRole::Serve, Flags::default().with("config", &path("lasthit.toml")), &|_| None)
    };
    let config = read("{ file = 'good.js', attempts = 2, budget_ms = 7, memory_mib = 16, stack_kib = 128, stack_lines = 3 }")
        .expect("fits");
    let Budget { time_ms, memory_mib, stack_kib, stack_lines } = match &config.rooms[0].rules {
        rooms::RulesChoice::File(program, _) => program.budget(),
        other => panic!("{other:?}"),
    };
    assert_eq!((time_ms, memory_mib, stack_kib, stack_lines), (7, 16, 128, 3));
    let made = config.rules_book().rules_for(&RoomId::new("any").expect("name")).expect("rules");
    assert_eq!((made.name(), made.version(), made.is_program()), ("good", 2, true));
    for (rules, expected) in [
        ("{ file = 'bad.js' }", "file \"bad.js\" is no program: bad.js:1:1: version is no whole number"),
        ("{ file = 'none.js' }", "file \"none.js\" cannot be read"),
        ("{ file = 'good.js', budget_ms = 0 }", "budget_ms 0 is not allowed: use a number from 1 to 1000"),
        ("{ file = 'good.js', stack_kib = 'big' }", "stack_kib \"big\" is not allowed: use a number from 64 to 1024"),
        ("{ file = 'good.js', memory = 5 }", "\"memory\" is not a setting: use file,"),
        ("{}", "rules: [] name no program: give file, process or socket, one of them"),
        ("{ proces = ['python3'] }", "rules: [proces] name no program: give file, process or socket, one of them"),
        ("{ file = '' }", "file has no name"),
        ("{ file = 'good.js' }\naudience = 'room'", "for rules = \"claim\" only"),
    ] {
        let mistakes = read(rules).expect_err(rules).mistakes;
        assert!(mistakes.len() == 1 && mistakes[0].contains(expected) && !mistakes[0].contains('\n'), "{rules}: {mistakes:?}");
    }
    let flag = |name: &str| load(ProcessRole::Serve, &[("rules", &path(name))], &[], "");
    assert_eq!(flag("good.js").expect("fits").rooms[0].pattern, "*");
    let mistakes = flag("bad.js").expect_err("bad");
    assert!(mistakes[0].starts_with("--rules: ") && mistakes[0].contains("is no program: bad.js:1:1"), "{mistakes:?}");
    let both = load(ProcessRole::Serve, &[("rules", &path("good.js"))], &[], "[[rooms]]\npattern = '*'\nrules = 'claim'");
    assert!(both.expect_err("both")[0].contains("keep one of them"));
    // It is where a program finds its worker, and may well be set where a lasthit process is started.
    let env = [("LASTHIT_RULES", "/run/flag.sock")];
    let unset = Config::defaults(ProcessRole::Gateway).rooms;
    for role in [ProcessRole::Gateway, ProcessRole::Worker, ProcessRole::Serve] {
        let redis = [("redis", "redis://127.0.0.1:6379")];
        let flags = if role == ProcessRole::Serve { &[][..] } else { &redis };
        assert_eq!(load(role, flags, &env, "").expect("fits").rooms, unset, "{role:?}");
    }
}

#[test]
fn notices_say_what_is_open() {
    let config = Config::defaults(ProcessRole::Serve);
    let notices = config.notices().join("\n");
    assert!(notices.contains("end with it") && notices.contains("role=server"), "{notices}");
    let watched = "[[rooms]]\npattern = '*'\nrules = { process = ['x'] }";
    let config = load(ProcessRole::Serve, &[("watch", "true")], &[], watched).expect("a configuration");
    assert!(config.notices().join("\n").contains("--watch looks at files in JavaScript only"));
}
