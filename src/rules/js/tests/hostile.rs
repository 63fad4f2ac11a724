//! Programs that take too much, or reach for what is not there.

use quanta::Instant;

use super::*;

/// The body of a handler, and what its failure says. Each ends at once, or after its budget.
const HOSTILE: &[(&str, &str)] = &[
    ("for (;;) {}", "budget_ms: it takes more than 50 ms"),
    ("for (;;) try { for (;;) {} } catch {} finally { continue }", "budget_ms"),
    ("(function f() { f() })()", "stack_kib: it takes more than 256 KiB"),
    ("const f = (x) => [x].map(f); f(1)", "stack_kib"),
    ("'x'.replace(/x/, function f(x) { return x.replace(/x/, f) })", "stack_kib"),
    ("const a = []; for (;;) a.push(new Uint8Array(1e6))", "memory_mib: it takes more than 32 MiB"),
    ("let s = 'x'; for (;;) s += s + 'y' + s; ", "string too long"),
    ("return new Uint8Array(2 ** 30)", "memory_mib|invalid"),
    ("return new Array(2 ** 30).fill(7)", "RangeError: fill: an array"),
    ("return new Array(1e9).join()", "RangeError: join: an array of more than 10000000 elements"),
    ("return String(new Array(1e9))", "RangeError: join: an array"),
    ("return [].includes.call({ length: 2 ** 50 }, 1)", "budget_ms"),
    ("const a = []; a.length = 4e9; a.sort()", "RangeError: sort: an array"),
    ("return JSON.stringify(new Array(1e9))", "memory_mib"),
    ("return [].shift.call({ length: 9e15 })", "budget_ms"),
    ("return [].fill.call(new Proxy([], { get: (t, k) => (k === 'length' ? 9e15 : 1) }))", "budget_ms|memory_mib"),
    (
        "let n = 0; return [].indexOf.call({ get length() { return n++ ? 1e9 : 1 } }, 5) + [].indexOf.call({ length: 1e9 }, 5)",
        "budget_ms",
    ),
    ("return JSON.stringify({}, new Array(4294967295))", "RangeError: stringify: an array"),
    ("return [new Array(4294967295)].flat()", "budget_ms"),
    ("return [1].flatMap(() => new Array(4294967295))", "budget_ms"),
    ("return [].keys.call({ length: 9e15 }).drop(9e15).next()", "RangeError: drop: "),
    ("return Math.max(...[].concat({ length: 9e15, [Symbol.isConcatSpreadable]: true }))", "RangeError: concat: "),
    ("return [].concat(new Array(9e6))", "budget_ms"),
    ("const a = new Array(9e6); for (;;) a.includes(1)", "budget_ms"),
    ("const p = new Proxy([], { get: (t, k) => (k === 'length' ? 9e15 : t[k]) }); p.forEach(() => 1)", "budget_ms"),
    ("return new Array(9e6).join()", "budget_ms|memory_mib|too large"),
    ("return 'x'.repeat(2 ** 29)", "memory_mib|invalid"),
    ("return /^(a+)+$/.test('a'.repeat(40) + 'b')", "budget_ms"),
    ("return /(x+x+)+y/.exec('x'.repeat(200))", "budget_ms"),
    ("return String(2n ** 10_000_000n)", "BigInt|memory_mib|budget_ms"),
    ("let x = 2n; for (;;) x = x * x", "BigInt|memory_mib|budget_ms"),
    ("return JSON.stringify(Array.from({ length: 1e7 }, () => ({})))", "memory_mib|budget_ms"),
    ("const m = new Map(); for (let i = 0; ; i++) m.set(i, i)", "memory_mib|budget_ms"),
    ("return new Proxy({}, { ownKeys() { for (;;) {} } })", "budget_ms"),
    ("return { get x() { for (;;) {} } }", "budget_ms"),
    ("throw { toString() { for (;;) {} } }", "cannot be shown|budget_ms"),
    ("const e = new Error(); Object.defineProperty(e, 'stack', { get() { for (;;) {} } }); throw e", "Error|budget_ms"),
    ("let n = 0; const g = (async function* () { for (;;) n++ })(); g.next(); return n", "budget_ms"),
    ("let n = 0; try { for (;;) n++ } finally { return n }", "budget_ms"),
    ("(async () => { await 1 })(); throw new Error('ordinary')", "a promise was begun"),
    ("return new Array(4294967295)", "too large"),
    ("ctx.state.n = new Array(4294967295)", "state.n: too large"),
    ("return new Proxy([1], { get: (t, key) => key === 'length' ? 'boo' : t[key] })", "instance of Array|too large"),
    ("const o = {}; for (let i = 0; i < 5000; i++) o['k' + i] = undefined; return Array(20000).fill(o)", "values and keys"),
    ("const e = new Error('x'); e.stack = 'a\\n'.repeat(1e6); throw e", "Error: x"),
    ("throw ['on.ok', 'budget_ms: fake', { lineNumber: 7 }]", "threw"),
    ("throw []", "threw"),
    ("let x = 'a'; try { for (;;) x = [x, x.toString()] } catch { } for (;;) {}", "budget_ms|memory_mib|stack_kib"),
];

#[test]
fn whatever_takes_too_much_is_stopped_and_the_room_goes_on() {
    for (body, expected) in HOSTILE {
        let mut rules = rules(&format!(
            "export default {{ name: 't', version: 1, state: () => ({{ n: 1 }}), on: {{ go(ctx, args) {{ ctx.state.n = 2; {body} }}, next: (ctx) => ctx.state.n }} }}"
        ));
        let began = Instant::now();
        let decision = act(&mut rules, "go", None, &json!(null));
        let took = began.elapsed();
        assert!(matches!(decision.ruling, Ruling::Failed(_)), "{body}: {took:?}");
        println!("{took:>10.2?}  {body}: {}", error_of(&decision));
        assert!(expected.split('|').any(|part| error_of(&decision).contains(part)), "{body}: {}", error_of(&decision));
        assert_eq!(referee::body(&act(&mut rules, "next", None, &json!(null))), 1, "{body}");
    }
}

/// What one room's events leave behind in a context is not charged to another's.
#[test]
fn a_room_pays_for_its_own_memory_only() {
    let mut rules = rules(
        "let kept = []; export default { name: 't', version: 1, on: {
           fill() { const bytes = new Uint8Array(23e6); const other = {}; return 1 },
           cycle() { const a = [new Uint8Array(1e6)]; a.push(a); return 1 },
           keep() { kept.push(new Uint8Array(9e6)); return 1 } } }",
    );
    for (op, times) in [("fill", 4), ("cycle", 80), ("keep", 8)] {
        for at in 0..times {
            let decision = act(&mut rules, op, None, &json!(null));
            assert_eq!(decision.ruling, Ruling::Granted, "{op} {at}: {decision:?}");
        }
    }
}

#[test]
fn a_state_may_have_many_keys() {
    // As much time as looking up each key by comparing it with all others would not do in.
    let text = "export default { name: 't', version: 1, on: {
           fill(ctx) { for (let i = 0; i < 30000; i++) ctx.state['k' + i] = 1 },
           count(ctx) { delete ctx.state.k7; return Object.keys(ctx.state).length } } }";
    let mut rules = JsRules::new(program_with(text, Budget { time_ms: 5_000, ..Budget::default() }), Checking::Off);
    assert_eq!(act(&mut rules, "fill", None, &json!(null)).ruling, Ruling::Granted);
    let decision = act(&mut rules, "count", None, &json!(null));
    assert_eq!((&decision.ruling, referee::body(&decision)), (&Ruling::Granted, json!(29_999)));
}

/// The interpreter looks at the stack when it calls a function: each way from one iterator to the next has to be a call.
#[test]
fn a_chain_of_iterators_does_not_take_the_stack() {
    let steps = [
        "it.map(f)",
        "it.filter(() => true)",
        "it.take(5)",
        "it.drop(0)",
        "it.flatMap((x) => [x])",
        "it.chunks(1)",
        "it.windows(1)",
        "Iterator.from({ __proto__: null, next: it.next.bind(it) })",
        "Iterator.concat(it)",
        "Iterator.concat([], it)",
        "Iterator.zip([it])",
        "(function* () { yield* it })()",
        "(function (it) { return { [Symbol.iterator]: () => it, __proto__: it } })(it).map(f)",
    ];
    let ends = ["it.next()", "it.return()", "[...it]"];
    let budget = Budget { time_ms: 1000, ..Budget::default() };
    for step in steps {
        for end in ends {
            let text = format!(
                "export default {{ name: 't', version: 1, on: {{ go(ctx) {{ const f = (x) => x; let it = [1].values();
                 for (let i = 0; i < 10000; i++) it = {step}; {end}; return 'the end' }} }} }}"
            );
            let run = move || {
                let mut rules = JsRules::new(program_with(&text, budget), Checking::Off);
                let decision = act(&mut rules, "go", None, &json!(null));
                assert!(matches!(decision.ruling, Ruling::Granted | Ruling::Failed(_)), "{decision:?}");
            };
            let thread = std::thread::Builder::new().stack_size(1024 * 1024).spawn(run);
            thread.expect("thread").join().expect("no panic");
        }
    }
    let body = "const it = [3, 1, 2].values().map((x) => x + 1).filter((x) => x > 2).take(5).drop(0).flatMap((x) => [x, x]);
        const from = Iterator.from({ n: 0, next() { return { done: this.n++ > 1, value: this.n } }, return() { return { closed: 1 } } });
        const wrapped = Iterator.from({ next: () => ({ value: 1 }), return: () => ({ closed: 1 }) });
        return [[...it], from.toArray(), wrapped.return(), Iterator.concat([1], [2]).toArray(), it.next().done]";
    let expected = json!([[4, 4, 3, 3], [1, 2], {"closed": 1}, [1, 2], true]);
    assert_eq!(referee::body(&once(body, &json!(null))), expected);
}

/// The methods that are bounded still do what they are for.
#[test]
fn methods_of_arrays_work_on_what_is_like_one() {
    for (expression, expected) in [
        ("(function () { return [].slice.call(arguments, 1) })(1, 2, 3)", json!([2, 3])),
        ("[].map.call('abc', (c) => c + c)", json!(["aa", "bb", "cc"])),
        (
            "(() => { const o = { 0: 3, 1: 1, length: 2 }; return [[].sort.call(o) === o, o] })()",
            json!([true, {"0": 1, "1": 3, "length": 2}]),
        ),
        ("(() => { const o = { 0: 3, 1: 1, length: 2 }; return [[].shift.call(o), o] })()", json!([3, {"0": 1, "length": 1}])),
        (
            "(() => { const a = [3, 1], p = new Proxy(a, {}); p.reverse(); p.splice(1, 1); p.unshift(8); return [a, p.map((x) => x)] })()",
            json!([[8, 1], [8, 1]]),
        ),
        ("Proxy.revocable([1, 2], {}).proxy.join()", json!("1,2")),
        ("[1, [2, [3, [4]]], []].flat()", json!([1, 2, [3, [4]]])),
        ("[1, [2, [3, [4]]]].flat(Infinity)", json!([1, 2, 3, 4])),
        ("[1, 2].flatMap((x, at) => [x, at])", json!([1, 0, 2, 1])),
        ("[1].concat(2, [3, 4], 'x', [[5]], { length: 1 }, null)", json!([1, 2, 3, 4, "x", [5], {"length": 1}, null])),
        ("[].concat({ length: 2, 0: 7, 1: 8, [Symbol.isConcatSpreadable]: true })", json!([7, 8])),
        ("[1, , 3].concat([, 4]).length + [].concat.length + [].flat.length", json!(6)),
        ("[1, 2, 3].values().drop(1).toArray()", json!([2, 3])),
        ("JSON.stringify({ a: 1, b: [2] }, ['b'], 1)", json!("{\n \"b\": [\n  2\n ]\n}")),
    ] {
        assert_eq!(referee::body(&once(&format!("return {expression}"), &json!(null))), expected, "{expression}");
    }
}

#[test]
fn what_is_not_there_names_the_way_out() {
    for (body, way) in [
        ("eval('1')", "write the function into the file"),
        ("(0, globalThis.eval)('1')", "not a function"),
        ("Function('return 1')()", "text cannot become code here"),
        ("new Function('return 1')()", "text cannot become code here"),
        ("(() => {}).constructor('return 1')()", "text cannot become code here"),
        ("(async () => {}).constructor('return 1')()", "text cannot become code here"),
        ("(function* () {}).constructor('return 1')()", "text cannot become code here"),
        ("(async function* () {}).constructor('return 1')()", "text cannot become code here"),
        ("new WeakRef({})", "keep it in ctx.state"),
        ("new FinalizationRegistry(() => 1)", "keep it in ctx.state"),
        ("new SharedArrayBuffer(8)", "ctx.state"),
        ("Atomics.add()", "ctx.state"),
        ("performance.now()", "use ctx.now"),
        ("Promise.resolve(1)", "a handler decides at once"),
        ("setTimeout(() => 1, 5)", "use ctx.timer"),
        ("console.log(1)", "return what you want to see"),
        ("fetch('http://x')", "let a server session ask"),
        ("require('fs')", "let a server session ask"),
        ("(async () => { await 1 })()", "without async, await"),
        ("import('fs')", "without async, await and import()"),
        ("(async () => 1)().constructor.resolve(1)", "not a function"),
        ("new ((async () => 1)().constructor)(() => 1)", "a handler decides at once"),
        ("new DisposableStack()", "not defined"),
        ("new AsyncDisposableStack()", "not defined"),
        ("new SuppressedError()", "not defined"),
        ("return (async () => 1)()", "a promise: a handler answers at once"),
    ] {
        let decision = once(body, &json!(null));
        assert!(matches!(decision.ruling, Ruling::Failed(_)), "{body}");
        assert!(error_of(&decision).contains(way), "{body}: {}", error_of(&decision));
    }
}

#[test]
fn what_all_events_share_cannot_be_changed() {
    for body in [
        "Object.prototype.leak = 1",
        "Object.prototype.toString = 1",
        "Array.prototype.push = 1",
        "Math.random = () => 4",
        "Math.leak = 1",
        "globalThis.leak = 1",
        "globalThis.Date = 1",
        "Date.prototype.getTime = 1",
        "Object.getPrototypeOf(function* () {}).leak = 1",
        "Object.getPrototypeOf([][Symbol.iterator]()).next = 1",
        "Object.getPrototypeOf(Int8Array).leak = 1",
        "Error.prepareStackTrace = () => 1",
        "Error.stackTraceLimit = 0",
        "Object.setPrototypeOf(Object.prototype, { leak: 1 })",
        "Object.defineProperty(Array.prototype, 0, { value: 1 })",
        "RegExp.prototype.leak = 1",
        "ctx.leak = 1",
        "Object.getPrototypeOf((async () => {})()).leak = 1",
        "import.meta.leak = 1",
        "ctx.random.leak = 1",
        "ctx.timer.leak = 1",
        "ctx.constructor = 1",
    ] {
        let decision = once(body, &json!(null));
        assert!(matches!(decision.ruling, Ruling::Failed(_)), "{body}");
        assert!(error_of(&decision).contains("TypeError"), "{body}: {}", error_of(&decision));
    }
    // What one may do with objects of one's own still works.
    let body = "class E extends Error { constructor() { super('m'); this.name = 'E' } }
        const o = {}; o.toString = () => 'o'; o.constructor = 1; const e = new E(); const f = { ...o, valueOf: 1 };
        return [String(o), o.constructor, e.name, String(e), f.valueOf, typeof RegExp.lastMatch]";
    assert_eq!(referee::body(&once(body, &json!(null))), json!(["o", 1, "E", "E: m", 1, "undefined"]));
}

#[test]
fn a_state_of_an_earlier_event_is_of_no_use() {
    let mut rules = rules(
        "let old; export default { name: 't', version: 1, state: () => ({ a: { n: 1 } }), on: {
        keep(ctx) { old = ctx.state; old.a }, touch() { return old.a }, use(ctx) { ctx.state.a; return old.a }, write(ctx) { ctx.state.a; old.a = 1 } } }",
    );
    act(&mut rules, "keep", None, &json!(null));
    for op in ["use", "write", "touch"] {
        let decision = act(&mut rules, op, None, &json!(null));
        assert!(error_of(&decision).contains("the state of an earlier event"), "{decision:?}");
    }
}

/// A failure for lack of memory anywhere leaves a process that goes on.
#[test]
fn memory_may_run_out_anywhere() {
    let budget = Budget { memory_mib: 8, ..Budget::default() };
    for step in 1..60 {
        let text = format!(
            "export default {{ name: 't', version: 1, on: {{ go(ctx, args) {{
                const all = []; try {{ for (let i = 0; ; i++) {{ all.push({{ s: 'x'.repeat({step} * 37), m: new Map([[i, [i]]]), r: /a+/.exec('aa') }}); ctx.state[i] = all[i].s }} }}
                catch (e) {{ all.push(e); ctx.state.last = String(e); }} }} }} }}"
        );
        let mut rules = JsRules::new(program_with(&text, budget), Checking::Off);
        let _ = act(&mut rules, "go", None, &json!(null));
        let _ = act(&mut rules, "go", None, &json!(null));
    }
}
