//! What a program can do, and what it cannot.

mod hostile;
mod keys;
mod loading;

use serde_json::json;

use super::super::referee;
use super::state::shown as shown_state;
use super::*;
use crate::rules::{Act, Facts, Inside, Ruling, When};
use crate::types::{Audience, Incarnation, PlayerId, Role, RoomTime, SessionId};

/// 2026-11-20 12:00 UTC and a bit.
const NOW: RoomTime = RoomTime(1_795_176_000_123_456_789);

fn program(text: &str) -> Arc<Program> {
    program_with(text, Budget::default())
}

fn program_with(text: &str, budget: Budget) -> Arc<Program> {
    Program::load("test.js", text.as_bytes(), budget).unwrap_or_else(|e| panic!("{e}"))
}

/// Rules with one action, `go`, whose handler has this body.
fn go(body: &str) -> JsRules {
    rules(&format!("export default {{ name: 't', version: 1, on: {{ go(ctx, args) {{ {body} }} }} }}"))
}

fn rules(text: &str) -> JsRules {
    JsRules::new(program(text), Checking::Off)
}

fn facts(seq: u64) -> Facts {
    Facts::new(NOW, seq, 7)
}

fn happen(rules: &mut JsRules, what: What<'_>) -> Decision {
    let session = SessionId { gateway: Incarnation(1 << 100), number: 3 };
    let player = PlayerId::new("ann").expect("name");
    rules.resolve(&Happening { session, player: &player, role: Role::Player, what, facts: facts(1), inside: Inside(&|_| 2) })
}

fn act(rules: &mut JsRules, op: &str, contest: Option<&str>, args: &serde_json::Value) -> Decision {
    let bytes = rmp_serde::to_vec_named(args).expect("memory");
    happen(rules, What::Data(Act::new(op, contest, &bytes)))
}

/// Lets `go` happen.
fn once(body: &str, args: &serde_json::Value) -> Decision {
    act(&mut go(body), "go", Some("pit"), args)
}

fn error_of(decision: &Decision) -> &str {
    let Ruling::Failed(failure) = &decision.ruling else { panic!("{decision:?}") };
    &failure.error
}

fn state(rules: &JsRules) -> String {
    shown_state(&rules.snapshot())
}

#[test]
fn a_handler_sees_the_event_and_its_arguments() {
    let body = "return [ctx.player, ctx.role, ctx.session, ctx.sessions, ctx.contest, ctx.now, args]";
    let decision = once(body, &json!({"damage": 3, "text": "ä", "big": 1e15, "deep": [1.5, null, true, {"": -7}]}));
    let expected = json!(["ann", "player", "00000010-3", 2, "pit", 1_795_176_000_123.456_8,
        {"damage": 3, "text": "ä", "big": 1_000_000_000_000_000_u64, "deep": [1.5, null, true, {"": -7}]}]);
    assert_eq!(referee::body(&decision), expected);
    assert_eq!((decision.ruling, decision.contest.as_deref()), (Ruling::Granted, Some("pit")));
}

#[test]
fn every_socket_event_has_its_handler() {
    let text = "export default { name: 't', version: 1,
        onOpen: (ctx) => 'open', onData: (ctx, args, op) => [op, args], onEnd: (ctx, e) => e.code,
        onError: (ctx, e) => e.reason, onClose: () => 'close', on: { go: () => 'go' } }";
    let mut rules = rules(text);
    for (what, expected) in [
        (What::Open, json!("open")),
        (What::Data(Act::new("other", None, &[0x91, 1])), json!(["other", [1]])),
        (What::Data(Act::new("go", None, &[0xc0])), json!("go")),
        (What::End { code: 1000 }, json!(1000)),
        (What::Error { reason: "reset" }, json!("reset")),
        (What::Close, json!("close")),
    ] {
        assert_eq!(referee::body(&happen(&mut rules, what)), expected);
    }
    let mut none = self::rules("export default { name: 't', version: 1 }");
    assert_eq!(happen(&mut none, What::Open), Decision::granted());
    let unknown = Decision::denied("unknown_op").to(Audience::Session);
    assert_eq!(act(&mut none, "toString", None, &json!(null)), unknown);
    assert_eq!(act(&mut none, "toString", Some("pit"), &json!(null)), unknown.about("pit"));
}

#[test]
fn what_a_handler_says_becomes_the_decision() {
    let ask = |body: &str| once(body, &json!(null));
    assert_eq!(ask("ctx.win()"), Decision::won("pit"));
    assert_eq!(ask("ctx.win('a'); ctx.nextRound('a')"), Decision::won("a").next_round());
    assert_eq!(ask("ctx.late(); return 1").body(&1), Decision::late("pit").body(&1));
    assert_eq!(ask("ctx.deny('no')"), Decision::denied("no").about("pit").to(Audience::Session));
    assert_eq!(ask("ctx.deny('no'); ctx.to('room')"), Decision::denied("no").about("pit"));
    assert_eq!(ask("ctx.to('server')"), Decision::granted().about("pit").to(Audience::Server));
    let bob = PlayerId::new("bob").expect("name");
    assert_eq!(ask("ctx.to(['bob'])"), Decision::granted().about("pit").to(Audience::Players([bob].into())));
    for (body, error) in [
        ("ctx.win('a'); ctx.nextRound('b')", "one contest"),
        ("ctx.win(); ctx.deny('x')", "decided before"),
        ("ctx.deny()", "short reason"),
        ("ctx.to('all')", "\"all\" is not known"),
        ("ctx.to(['no name'])", "player name"),
        ("ctx.to(['x'.repeat(65)])", "a name of more than 64 characters"),
        ("ctx.to('x'.repeat(1e7))", "a name of more than 64 characters"),
        ("ctx.to(Array(257).fill('bob'))", "audience_too_large: 257 players, at most 256"),
        ("ctx.to(new Array(4294967295))", "audience_too_large"),
        ("ctx.to(Object.defineProperty([1], 'every', { value: () => true }))", "an array of players"),
        ("ctx.to(new Proxy([], { get: (t, k) => k === 'length' ? NaN : 'bob' }))", "audience_too_large"),
        ("ctx.player = 'bob'", "no setter"),
    ] {
        assert!(error_of(&ask(body)).contains(error), "{body}: {}", error_of(&ask(body)));
    }
}

#[test]
fn a_state_lives_from_event_to_event() {
    let mut rules = rules(
        "export default { name: 't', version: 1, state: () => ({ b: [1], a: { n: 1 }, deep: { x: { y: 2 } } }), on: {
            count(ctx) { ctx.state.a.n += 1; return ctx.state.a.n },
            add(ctx, args) { ctx.state[args.key] = args.value },
            remove(ctx, args) { delete ctx.state[args.key]; return Object.keys(ctx.state) },
            whole(ctx) { return ctx.state },
            replace(ctx, args) { ctx.state = args; return ctx.state },
            none(ctx) { ctx.state.b.push(2); ctx.state.b.pop() },
            has(ctx, args) { return ['a' in ctx.state, 'zz' in ctx.state, ctx.state.zz === undefined] },
        } }",
    );
    let initial = r#"{b: [1], a: {"n": 1}, deep: {"x": {"y": 2}}}"#;
    assert_eq!(state(&rules), initial);
    let mut ask = |op: &str, args: serde_json::Value| act(&mut rules, op, None, &args);
    assert_eq!(referee::body(&ask("count", json!(null))), 2);
    assert_eq!(referee::body(&ask("count", json!(null))), 3);
    ask("none", json!(null));
    ask("add", json!({"key": "new", "value": "v"}));
    assert_eq!(referee::body(&ask("has", json!(null))), json!([true, false, true]));
    let whole = json!({"b": [1], "a": {"n": 3}, "deep": {"x": {"y": 2}}, "new": "v"});
    assert_eq!(referee::body(&ask("whole", json!(null))), whole);
    assert_eq!(referee::body(&ask("remove", json!({"key": "a"}))), json!(["b", "deep", "new"]));
    assert_eq!(referee::body(&ask("replace", json!({"only": 1}))), json!({"only": 1}));
    ask("add", json!({"key": "__proto__", "value": {"x": 1}}));
    ask("add", json!({"key": "toString", "value": 5}));
    assert_eq!(referee::body(&ask("whole", json!(null))), json!({"only": 1, "__proto__": {"x": 1}, "toString": 5}));
    rules.undo();
    assert_eq!(state(&rules), r#"{only: 1, __proto__: {"x": 1}, toString: 5}"#, "the last event changed nothing");
}

#[test]
fn a_state_can_be_replaced_and_inherited_from() {
    let expected = |body: &str, after: &str, answer: serde_json::Value| {
        let mut rules = rules(&format!(
            "export default {{ name: 't', version: 1, state: () => ({{ n: 1, m: 2 }}), on: {{ go(ctx) {{ {body} }} }} }}"
        ));
        let decision = act(&mut rules, "go", None, &json!(null));
        assert_eq!((referee::body(&decision), state(&rules)), (answer, after.to_owned()), "{body}");
    };
    expected("const c = Object.create(ctx.state); c.n = 55; return [c.n, ctx.state.n]", "{n: 1, m: 2}", json!([55, 1]));
    expected("const c = Object.create(ctx.state); c.toString = 5; return [c.toString, c.m]", "{n: 1, m: 2}", json!([5, 2]));
    expected("Reflect.set(ctx.state, 'n', 9, {}); return 1", "{n: 1, m: 2}", json!(1));
    expected("Reflect.set(ctx.state, 'n', 9); return 1", "{n: 9, m: 2}", json!(1));
    expected("const p = new Proxy(ctx.state, {}); p.n = 9; return p.n", "{n: 9, m: 2}", json!(9));
    expected(
        "const old = ctx.state; ctx.state = { x: 1 }; ctx.state = old; ctx.state.n = 3; return old.n",
        "{n: 3, m: 2}",
        json!(3),
    );
    expected(
        "const old = ctx.state; ctx.state = { x: 1 }; ctx.state.y = old.m; return ctx.state",
        "{x: 1, y: 2}",
        json!({"x": 1, "y": 2}),
    );
    expected("ctx.state = { x: 1 }; ctx.state = { z: 1 }; return Object.keys(ctx.state)", "{z: 1}", json!(["z"]));
    expected("ctx.state = { ...ctx.state, n: 4 }; return 1", "{n: 4, m: 2}", json!(1));
}

#[test]
fn an_event_can_be_taken_back() {
    let mut rules = rules(
        "export default { name: 't', version: 1, state: () => ({ a: 1, list: [1, 2, 3], z: 9 }), on: {
        go(ctx, args) { Object.assign(ctx.state, args) } } }",
    );
    for args in [json!({"a": 2}), json!({"list": []}), json!({"z": "longer"}), json!({"new": 1}), json!({"a": 1})] {
        let before = rules.snapshot();
        act(&mut rules, "go", None, &args);
        rules.undo();
        assert_eq!(rules.snapshot(), before, "{args}");
        act(&mut rules, "go", None, &args);
    }
    assert_eq!(state(&rules), r#"{a: 1, list: [], z: "longer", new: 1}"#);
}

#[test]
fn what_is_no_plain_data_is_told_with_its_path() {
    for (value, error) in [
        ("new Map()", "state.players.ann: an instance of Map: use a plain object"),
        ("new Set()", "state.players.ann: an instance of Set: use an array"),
        ("new Date()", "state.players.ann: an instance of Date: use its getTime()"),
        ("new Uint8Array(3)", "state.players.ann: an instance of Uint8Array: use an array"),
        ("() => 1", "state.players.ann: a function"),
        ("Symbol('x')", "state.players.ann: a symbol"),
        ("1n", "state.players.ann: a BigInt"),
        ("NaN", "state.players.ann: NaN"),
        ("[1, undefined]", "state.players.ann[1]: undefined: use null"),
        ("{ 'a b': [{}, { x: Infinity }] }", "state.players.ann[\"a b\"][1].x: Infinity"),
        ("new (class Foo {})()", "state.players.ann: an instance of Foo"),
        ("'\\ud800'", "state.players.ann: text with half of a surrogate pair"),
        ("{ [Symbol('x')]: 1 }", "state.players.ann: a key that is a symbol"),
        ("{ '\\ud800': 1 }", "state.players.ann: text with half of a surrogate pair"),
        ("(async () => 1)()", "state.players.ann: a promise"),
        ("'x'.repeat(2 ** 21)", "state.players.ann: too large: more than 1048576 bytes"),
        ("(() => { let a = {}; for (let i = 0; i < 100; i++) a = { a }; return a })()", "nested more than 64 levels"),
    ] {
        let mut rules = rules(&format!(
            "export default {{ name: 't', version: 1, state: () => ({{ players: {{}} }}), on: {{ go(ctx) {{ ctx.state.players.ann = {value} }} }} }}"
        ));
        let decision = act(&mut rules, "go", None, &json!(null));
        assert!(error_of(&decision).contains(error), "{value}: {}", error_of(&decision));
        assert_eq!(state(&rules), "{players: {}}", "{value}");
    }
    let cycle = once("ctx.state.a = {}; ctx.state.a.b = [ctx.state.a]", &json!(null));
    assert!(error_of(&cycle).contains("a cycle: it contains itself"), "{}", error_of(&cycle));
    let body = once("return { x: () => 1 }", &json!(null));
    assert!(error_of(&body).contains("the returned value.x: a function"), "{}", error_of(&body));
    assert!(error_of(&once("ctx.state[Symbol('x')] = 5", &json!(null))).contains("state: a key that is a symbol"));
    for value in ["5", "null", "undefined", "[1]", "() => 1"] {
        let decision = once(&format!("ctx.state = {value}; ctx.state.n = 7"), &json!(null));
        assert!(error_of(&decision).contains("ctx.state: no object: the state is a plain object"), "{value}: {decision:?}");
    }
    assert_eq!(referee::body(&once("return { a: undefined, b: -0 }", &json!(null))), json!({"b": -0.0}));
}

#[test]
fn what_fails_changes_nothing_and_tells_where() {
    let mut rules = rules(
        "export default {\n  name: 't', version: 1, state: () => ({ n: 1 }),\n  on: {\n    go(ctx) {\n      ctx.state.n = 2;\n      helper();\n    },\n  },\n};\nfunction helper() {\n  throw new RangeError('no\\nmore');\n}\n",
    );
    let decision = act(&mut rules, "go", None, &json!(null));
    let Ruling::Failed(failure) = &decision.ruling else { panic!("{decision:?}") };
    assert_eq!(failure.error, "test.js:11:13: RangeError: no more");
    assert_eq!(failure.stack, ["at helper (test.js:11:13)", "at go (test.js:6:7)"]);
    assert_eq!(state(&rules), "{n: 1}");
    assert_eq!(error_of(&once("throw 'text'", &json!(null))), "test.js: threw \"text\": throw an Error, to see where");
}

#[test]
fn random_numbers_are_drawn_from_the_room_and_differ() {
    let draw = || referee::body(&once("return [Math.random(), ctx.random(), Math.random()]", &json!(null)));
    let numbers: Vec<f64> = serde_json::from_value(draw()).expect("numbers");
    assert_eq!(draw(), json!(numbers));
    assert!(numbers.iter().all(|n| (0.0..1.0).contains(n)) && numbers[0] != numbers[1] && numbers[1] != numbers[2]);
}

#[test]
fn dates_know_room_time_and_utc_only() {
    for (expression, expected) in [
        ("Date.now()", json!(1_795_176_000_123_u64)),
        ("new Date().toISOString()", json!("2026-11-20T12:00:00.123Z")),
        ("String(new Date())", json!("Fri, 20 Nov 2026 12:00:00 GMT")),
        ("Date()", json!("Fri, 20 Nov 2026 12:00:00 GMT")),
        ("new Date().getHours()", json!(12)),
        ("new Date().getTimezoneOffset()", json!(0)),
        ("new Date(2026, 0, 1, 5).toISOString()", json!("2026-01-01T05:00:00.000Z")),
        ("new Date('2026-07-01T05:00').toISOString()", json!("2026-07-01T05:00:00.000Z")),
        ("new Date('2026-07-01T05:00+09:00').toISOString()", json!("2026-06-30T20:00:00.000Z")),
        ("Date.parse('Jul 1 2026 05:00')", json!(null)),
        ("Date.parse('Jul 1 2026 05:00 GMT')", json!(1_782_882_000_000_u64)),
        ("Date.parse('+012345-01-01')", json!(327_403_382_400_000_u64)),
        ("Date.parse('12345')", json!(null)),
        ("Date.parse('12345-01')", json!(null)),
        ("Date.parse('202001')", json!(null)),
        ("Date.parse('202001-01-01T05:00')", json!(null)),
        ("Date.parse('1 2026 JanZ')", json!(null)),
        ("Date.parse('1 2026 Jan.UTC')", json!(null)),
        ("Date.parse('Jan 1 2026\\0 GMT')", json!(null)),
        ("Date.parse('Jan 1 2026' + ' '.repeat(200) + 'GMT')", json!(null)),
        ("new Date(new Date(5)).getTime()", json!(5)),
        ("(() => { const d = new Date(0); d.setHours(3); return d.getTime() })()", json!(10_800_000)),
        ("new Date(0).toLocaleString()", json!("Thu, 01 Jan 1970 00:00:00 GMT")),
        ("new Date(0).toTimeString()", json!("00:00:00 GMT")),
        ("(class extends Date {}).name === '' && new (class D extends Date {})(7).getTime()", json!(7)),
        ("new Date() instanceof Date && new Date().constructor === Date", json!(true)),
    ] {
        let decision = once(&format!("const v = {expression}; return Number.isNaN(v) ? null : v"), &json!(null));
        assert_eq!(referee::body(&decision), expected, "{expression}");
    }
}

/// The time zone of a process does not change: the test above runs again, in another one.
#[test]
fn dates_are_the_same_in_every_time_zone() {
    let again = std::process::Command::new(std::env::current_exe().expect("path"))
        .args(["--exact", "rules::js::tests::dates_know_room_time_and_utc_only"])
        .env("TZ", "XXX-9:30")
        .output()
        .expect("run");
    let told = String::from_utf8_lossy(&again.stdout).into_owned();
    assert!(again.status.success() && told.contains("1 passed"), "{told}");
}

#[test]
fn timers_are_checked_where_they_are_set() {
    let ask = |body: &str| once(body, &json!(null));
    let after = |ms| Decision::granted().about("pit").timer("t", When::After(std::time::Duration::from_millis(ms)), &());
    assert_eq!(ask("ctx.timer('t', { after: 30_000 })"), after(30_000));
    let cron = When::Cron { expression: "0 20 * * FRI".to_owned(), offset_s: 9 * 3600 };
    let expected = Decision::granted().about("pit").timer("t", cron, &json!({"a": 1})).cancel("u");
    assert_eq!(ask("ctx.timer('t', { cron: '0 20 * * FRI', offset: '+09:00', data: { a: 1 } }); ctx.cancel('u')"), expected);
    let at = When::At(RoomTime(NOW.0 / 1_000_000 * 1_000_000 + 1_000_000_000));
    assert_eq!(ask("ctx.timer('t', { at: new Date(Date.now() + 1000) })"), Decision::granted().about("pit").timer("t", at, &()));
    for (body, error) in [
        ("ctx.timer('t', { after: 0 })", "RangeError: timer_too_soon"),
        ("ctx.timer('t', { after: -1 })", "bad_timer: after: -1 is no number of milliseconds"),
        ("ctx.timer('t', { after: NaN })", "bad_timer: after: NaN"),
        ("ctx.timer('t', { at: 5 })", "timer_too_soon"),
        ("ctx.timer('t', { every: 400 * 86_400_000 })", "timer_too_far"),
        ("ctx.timer('t', { cron: 'every day' })", "bad_timer: cron"),
        ("ctx.timer('t', { cron: '0 20 * * *', offset: 'CET' })", "bad_timer: offset \"CET\""),
        ("ctx.timer('t', { after: 100, data: 'x'.repeat(2000) })", "timer_data_too_large"),
        ("ctx.timer('', { after: 100 })", "bad_timer: a name of 0 bytes"),
        ("ctx.timer('t', { after: 100, evry: 1 })", "evry is not known"),
        ("ctx.timer('t', {})", "say when"),
        ("ctx.timer('t')", "say when"),
        ("for (;;) ctx.timer('t', { after: 100 })", "too_many_timers"),
    ] {
        assert!(error_of(&ask(body)).contains(error), "{body}: {}", error_of(&ask(body)));
    }
}

#[test]
fn a_room_takes_little_beside_its_state() {
    let mut rules = go("for (let n = 0; n < 10; n++) ctx.state['key' + n] ??= 'x'.repeat(90); ctx.state.key3 = args");
    act(&mut rules, "go", None, &json!(null));
    act(&mut rules, "go", None, &json!("y".repeat(90)));
    assert!((1000..1100).contains(&rules.snapshot().len()));
    // The other 100 bytes are what the last event changed.
    assert!(size_of::<JsRules>() + rules.undo.as_ref().map_or(0, Undo::bytes) < 256);
}

#[test]
fn a_timer_reaches_its_handler() {
    let mut rules =
        rules("export default { name: 't', version: 1, timers: { wake(ctx, due) { return [due, ctx.player, ctx.sessions] } } }");
    let due = Due { name: "wake", data: &[0x92, 1, 2], due: NOW, late_ns: 1_500, missed: 2, facts: facts(9) };
    let expected = json!([{"data": [1, 2], "due": 1_795_176_000_123.456_8, "late_ns": 1500, "missed": 2}, null, 0]);
    assert_eq!(referee::body(&rules.fire(&due)), expected);
    assert_eq!(referee::body(&rules.fire(&Due { name: "wake:up", ..due })), expected);
    assert_eq!(rules.fire(&Due { name: "other", ..due }), Decision::denied("unknown_timer"));
}

#[test]
fn a_snapshot_is_the_state_and_hostile_bytes_are_none() {
    let mut first = go("ctx.state.n = (ctx.state.n ?? 0) + 1; return ctx.state.n");
    act(&mut first, "go", None, &json!(null));
    let bytes = first.snapshot();
    let mut second = JsRules::new(first.program.clone(), Checking::Off);
    second.restore(1, &bytes).expect("a state");
    assert_eq!(referee::body(&act(&mut second, "go", None, &json!(null))), 2);
    assert!(second.restore(2, &bytes).expect_err("version").contains("version 2"));
    for end in 0..bytes.len() {
        let cut = second.restore(1, &bytes[..end]);
        assert!(cut.is_err() || end == 1, "{end}");
    }
    for bad in [
        &b""[..],
        b"\x02",
        b"\x01\0\0\0\x01\0\0\0\x01a\xc1",
        b"\x01\0\0\0\x01\xff\xff\xff\xffa",
        b"\x01\0\0\0\x01\0\0\0\x01\xff\xc0",
    ] {
        assert!(second.restore(1, bad).is_err(), "{bad:?}");
    }
}

proptest::proptest! {
    #[test]
    fn any_change_can_be_taken_back(same: Vec<u8>, before: Vec<u8>, after: Vec<u8>, end in proptest::collection::vec(0..2_u8, 0..600)) {
        let (before, after) = ([&same[..], &before, &end].concat(), [&same[..], &after, &end].concat());
        let undo = Undo::new(&before, &after);
        proptest::prop_assert_eq!(undo.apply(&after), before.clone());
        proptest::prop_assert!(undo.bytes() <= before.len() - same.len());
    }

    #[test]
    fn any_bytes_are_a_state_or_an_error(bytes: Vec<u8>, flip: (usize, u8)) {
        let mut rules = rules("export default { name: 't', version: 1, state: () => ({ a: [1, { b: 'x' }], c: 1.5 }), on: { go: (ctx) => ctx.state } }");
        let _ = rules.restore(1, &bytes);
        let mut state = rules.program.initial.to_vec();
        let at = flip.0 % state.len();
        state[at] ^= flip.1;
        if rules.restore(1, &state).is_ok() {
            let decision = act(&mut rules, "go", None, &json!(null));
            assert!(matches!(decision.ruling, Ruling::Granted), "{decision:?}");
        }
    }
}

#[test]
fn what_a_program_keeps_outside_its_state_is_found() {
    let check = |text: &str, events: usize| {
        let mut rules = JsRules::new(program(text), Checking::EachEvent);
        (0..events).for_each(|_| drop(act(&mut rules, "go", None, &json!(null))));
        rules.take_impure()
    };
    let counter = "let n = 0; export default { name: 't', version: 1, on: { go: () => ++n } }";
    let found = check(counter, 40);
    assert!(found.first().is_some_and(|line| line.contains("body 17") && line.contains("body 1,")), "{found:?}");
    let mut rules = JsRules::new(program(counter), Checking::Anew);
    (0..2).for_each(|_| drop(act(&mut rules, "go", None, &json!(null))));
    let found = rules.take_impure();
    assert!(matches!(&found[..], [line] if line.contains("body 2,") && line.contains("body 1,")), "{found:?}");
    let pure = "const cache = {}; export default { name: 't', version: 1, state: () => ({ n: 0 }), on: {
        go(ctx) { cache.x ??= 5; ctx.state.n += cache.x; ctx.win('a' + ctx.state.n); return [Math.random(), ctx.now] } } }";
    assert_eq!(check(pure, 40), Vec::<String>::new());
}

/// Records name the interpreter that decided: another one that went by this name would be taken for it.
#[test]
fn the_interpreter_is_named_as_it_is_built_in() {
    let lock = include_str!("../../../Cargo.lock");
    let (_, version) = lock.split_once("\nname = \"rquickjs\"\nversion = \"").expect("a package");
    let version: Vec<&str> = version.split('.').take(2).collect();
    assert_eq!(vm::INTERPRETER, format!("rquickjs {}", version.join(".")));
}
