//! What is refused when a program is loaded, and where the error says that it is.

use super::*;
use crate::rules::{Claim, Crew, FileRules, RulesBook};

fn error(text: &str) -> String {
    Program::load("baron.js", text.as_bytes(), Budget::default()).expect_err(text).to_string()
}

#[test]
fn a_program_tells_what_it_has() {
    let program = program(
        "export default { name: 'baron', version: 3, state: () => ({ a: 1 }), onOpen() {}, on: { hit() {}, spawn() {} }, timers: { back() {} }, migrate: (s) => s }",
    );
    assert_eq!((program.name(), program.version()), ("baron", 3));
    assert_eq!(
        (program.ops(), program.timers(), program.events()),
        (&["hit".to_owned(), "spawn".to_owned()][..], &["back".to_owned()][..], &["onOpen"][..])
    );
    assert!(program.migrates());
    let hash = ring::digest::digest(&ring::digest::SHA256, program.text().as_bytes());
    assert_eq!(program.id().0.to_be_bytes(), hash.as_ref()[..16]);
}

#[test]
fn what_is_no_program_is_told_with_its_place() {
    let cases = [
        ("export default {\n  name: 'x',\n  version: 1,,\n}", "baron.js:3:14: SyntaxError: "),
        ("let a = 1", "baron.js:1:1: the default export is no plain object"),
        ("\n\nexport default 5", "baron.js:3:1: the default export is no plain object"),
        ("export default { version: 1 }", "baron.js:1:1: name is missing: write name: \"baron\""),
        (
            "export default {\n name: 'a b', version: 1 }",
            "baron.js:2:2: program name \"a b\" is not allowed: use 1 to 64 characters",
        ),
        ("export default {\n name: 'a',\n version: 0 }", "baron.js:3:2: version is no whole number from 1 on"),
        ("export default {\n name: 'a', version: 1,\n onopen() {} }", "baron.js:3:2: onopen is no part of a program: use name,"),
        ("export default { name: 'a', version: 1,\n  tests: {} }", "baron.js:2:3: tests stand beside the default export"),
        ("export default { name: 'a', version: 1,\n  on: {\n    hit: 5 } }", "baron.js:3:5: on.hit is no function"),
        (
            "class On { hit() {} }\nexport default { name: 'a', version: 1,\n  on: new On() }",
            "baron.js:3:3: on is no plain object",
        ),
        ("export default { name: 'a', version: 1,\n  on: new Map() }", "baron.js:2:3: on is no plain object"),
        ("class P { name = 'a'; version = 1 }\nexport default new P()", "baron.js:2:1: the default export is no"),
        (
            "export default { name: 'a', version: 1,\n  timers: {\n   t: class {} } }",
            "baron.js:3:4: timers.t is a class: use a plain",
        ),
        (
            "export default { name: 'a', version: 1,\n  timers: {\n   async back() {} } }",
            "baron.js:3:10: timers.back is async: a handler decides at once",
        ),
        ("export default { name: 'a', version: 1,\n  onData: function* () {} }", "baron.js:2:3: onData is a generator"),
        (
            "export default { name: 'a', version: 1,\n  on: {\n    hit() { return ')}' },\n    spawn() {}, 'hit': () => 2 } }",
            "baron.js:4:17: hit is there twice",
        ),
        ("export default { name: 'a', version: 1,\n  onOpen() {},\n  onOpen() {} }", "baron.js:3:3: onOpen is there twice"),
        (
            "// one\nimport x from 'y'\nexport default {}",
            "baron.js:2:1: a program is one file and imports nothing: npx esbuild baron.js --bundle --format=esm",
        ),
        (
            "export default { name: 'a', version: 1,\n state: () => ({ m: new Map() }) }",
            "baron.js:2:2: TypeError: state.m: an instance of Map",
        ),
        ("export default { name: 'a', version: 1,\n state() { return 5 } }", "baron.js:2:2: TypeError: state: no object"),
        ("const now = Date.now();\nexport default {}", "there is no time while a program is loaded"),
        ("const r =\n  Math.random();\nexport default {}", "baron.js:2:"),
        ("await 1;\nexport default {}", "a promise was begun"),
        ("for (;;) {}", "budget_ms: it takes more than 50 ms"),
        ("throw new Error('x')", "baron.js:1:"),
        ("export default {\0}", "baron.js:1:17: a zero byte"),
    ];
    for (text, expected) in cases {
        let error = error(text);
        assert!(error.contains(expected) && !error.contains('\n'), "{text}\n{error}\n{expected}");
    }
    assert!(
        Program::load("baron.js", b"\n ab\xff", Budget::default())
            .expect_err("bytes")
            .to_string()
            .starts_with("baron.js:2:4: a byte that is not UTF-8")
    );
    let typescript = Program::load("rules/baron.ts", b"", Budget::default()).expect_err("ts").to_string();
    assert_eq!(
        typescript,
        "baron.ts:1:1: TypeScript is bundled to JavaScript first: npx esbuild baron.ts --bundle --format=esm --outfile=baron.bundled.js, and use that file"
    );
    let python = Program::load("rules/baron.py", b"import x", Budget::default()).expect_err("py").to_string();
    assert!(
        python.starts_with("baron.py:1:1: a file of rules is JavaScript; a program in another language is a process"),
        "{python}"
    );
    let large = vec![b' '; 1024 * 1024 + 1];
    assert!(Program::load("l.js", &large, Budget::default()).expect_err("large").to_string().contains("at most 1048576"));
}

#[test]
fn tests_are_plain_data_and_have_their_places() {
    let with = |tests: &str| program(&format!("export default {{ name: 'a', version: 1 }};\n{tests}"));
    assert_eq!(with("").tests(), Ok(None));
    let program = with("export const tests = {\n  one: [{ after: 1.5 }],\n  'the other': [] };");
    let tests = program.tests().expect("plain").expect("there");
    let tests: serde_json::Value = rmp_serde::from_slice(&tests).expect("a value");
    assert_eq!(tests, json!({"one": [{"after": 1.5}], "the other": []}));
    let place = |scenario| program.wrong_test(scenario, None, String::new()).to_string();
    assert_eq!((place(None), place(Some("the other"))), ("test.js:2:14: ".to_owned(), "test.js:4:3: ".to_owned()));
    let odd = with("export const tests = { one: [() => 1] };").tests().expect_err("a function").to_string();
    assert_eq!(odd, "test.js:2:14: TypeError: tests.one[0]: a function: keep data only");
}

/// A step that is not written out has the place of its scenario.
#[test]
fn steps_have_their_places() {
    for (steps, number, column) in [
        ("[{ after: 1 }, { fires: [{}, {}] }, { after: 3 }]", 3, 65),
        ("[{ after: 1 },\n { after: 2 },]", 2, 2),
        ("[{ who: `${[1, 2]}]`, op: '],' }, join('ann', [1]), { after: /[,]/ } ]", 3, 81),
        ("[]", 1, 24),
        ("[{ after: 1 }]", 2, 24),
        ("[{ after: 1 }, { after: 2 }].map((step) => step)", 2, 24),
        ("[...more, { after: 2 }]", 2, 24),
        ("steps", 1, 24),
    ] {
        let text = "const more = [], steps = [], join = () => ({}); export default { name: 'a', version: 1 };";
        let program = program(&format!("{text}\nexport const tests = {{ one: {steps}, two: [{{ after: 1 }}] }};"));
        let line = if steps.contains('\n') { 3 } else { 2 };
        let told = program.wrong_test(Some("one"), Some(number), String::new()).to_string();
        assert_eq!(told, format!("test.js:{line}:{column}: "), "{steps}");
    }
}

/// Whatever looks like a key in the text, but is none.
#[test]
fn nothing_else_is_taken_for_a_part_that_is_there_twice() {
    for text in [
        "const t = `${{ onOpen: 1, x: `}` }.onOpen}`; const u = { onOpen: /[/}]onOpen: {/, 'onOpen ': 2 };\nexport default { name: 'a', version: 1, onOpen(ctx) { hit(1), hit(2); function hit() {} } }",
        "export default { name: 'a', version: 1, on: { get hit() { return () => 1 }, set hit(x) {} } }",
        "const on = { a() { switch (1) { case 1: { a(), a() } } } }; export default { name: 'a', version: 1, on }",
        "class A { hit() {} } class B { hit() {} } const x = 4 / 2 / 1; export default { name: 'a', version: 1, on: { hit() { return { hit: 1 } } } }",
        "export default { name: 'a', version: 1, on: { __proto__: null, class() {}, x: function () {}, y: () => 1 } }",
        "export default { name: 'a', version: 1, on: { hit() { // hit() {}\n /* hit() {} */ return '\"' } } }",
    ] {
        program(text);
    }
}

proptest::proptest! {
    #[test]
    fn any_text_is_scanned(text in "[a-z(){}\\[\\],:;/'\"`$*\\\\ \n.=ä]{0,60}") {
        scan::twice(&text);
        scan::part(&text, "on.a");
        scan::import(&text);
        scan::tests(&text, Some("a"));
        scan::default_export(&text);
    }
}

#[test]
fn programs_in_files_have_permits_of_their_own() {
    let program = program("export default { name: 'baron', version: 1 }");
    let file = FileRules { path: "baron.js".into(), program, checking: Checking::Off };
    let book = RulesBook::new().room("pit*", || Claim::new(Audience::Room)).file("*", file);
    let crew = |room: &str| book.crew_of(&room.parse().expect("a name"));
    assert_eq!([crew("pit1"), crew("arena"), crew("other")], [Crew::Inside, Crew::Files, Crew::Files]);
}
