//! Where the parts of a program are in its text: for errors, and to find what was written twice, of which the interpreter tells
//! nothing.

use std::collections::BTreeMap;

/// A key of an object in the text.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Key {
    name: String,
    /// Its byte in the text.
    at: usize,
    /// Where the braces of its object begin.
    object: usize,
    /// The key whose value the object is.
    parent: Option<String>,
    is_accessor: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Name,
    Text,
    Mark(u8),
    Other,
}

#[derive(Debug, Clone, Copy)]
struct Token<'a> {
    kind: Kind,
    text: &'a str,
    at: usize,
}

/// Names after which a slash begins a regular expression.
const BEFORE_REGEXP: [&str; 13] =
    ["return", "typeof", "case", "in", "of", "delete", "void", "throw", "new", "do", "else", "yield", "await"];

/// The line and the column of a byte, both from 1.
pub(super) fn place(source: &str, at: usize) -> (u32, u32) {
    let before = &source.as_bytes()[..at.min(source.len())];
    let line = before.iter().filter(|b| **b == b'\n').count() + 1;
    let column =
        String::from_utf8_lossy(&before[before.iter().rposition(|b| *b == b'\n').map_or(0, |at| at + 1)..]).chars().count() + 1;
    (u32::try_from(line).unwrap_or(u32::MAX), u32::try_from(column).unwrap_or(u32::MAX))
}

/// Where `export default` is, or the start.
pub(super) fn default_export(source: &str) -> usize {
    let tokens = tokens(source);
    tokens.windows(2).find(|pair| pair[0].text == "export" && pair[1].text == "default").map_or(0, |pair| pair[0].at)
}

/// Where `tests` is that is exported, or the scenario of this name in it.
pub(super) fn tests(source: &str, scenario: Option<&str>) -> Option<usize> {
    let tokens = tokens(source);
    let exported = tokens.windows(3).position(|three| three[0].text == "export" && three[2].text == "tests")? + 2;
    let Some(scenario) = scenario else { return Some(tokens[exported].at) };
    let object = tokens[exported..].iter().find(|token| token.kind == Kind::Mark(b'{'))?.at;
    keys(&tokens).iter().find(|key| key.object == object && key.name == scenario).map(|key| key.at)
}

/// Where a step of this scenario is, counted from 1. None if it is not written there as an element of an array.
pub(super) fn step(source: &str, scenario: &str, number: usize) -> Option<usize> {
    let (tokens, key) = (tokens(source), tests(source, Some(scenario))?);
    let array = tokens.iter().position(|token| token.at == key)? + 2;
    if tokens.get(array)?.kind != Kind::Mark(b'[') {
        return None;
    }
    let (mut steps, mut depth, mut begins) = (Vec::new(), 0, false);
    for (i, token) in tokens.iter().enumerate().skip(array) {
        if matches!(token.kind, Kind::Mark(b'}' | b')' | b']')) {
            depth -= 1;
            if depth == 0 {
                // What follows may make another array of it.
                let is_all = matches!(tokens.get(i + 1)?.kind, Kind::Mark(b',' | b'}'));
                return steps.get(number.checked_sub(1)?).copied().filter(|_| is_all);
            }
        }
        if begins {
            // Nobody can tell how many steps `...more` are.
            if token.kind == Kind::Mark(b'.') {
                return None;
            }
            steps.push(token.at);
        }
        depth += u32::from(matches!(token.kind, Kind::Mark(b'{' | b'(' | b'[')));
        begins = depth == 1 && matches!(token.kind, Kind::Mark(b'[' | b','));
    }
    None
}

/// Where the first import is.
pub(super) fn import(source: &str) -> Option<usize> {
    let from = |token: &&Token<'_>| token.kind == Kind::Name && matches!(token.text, "import" | "from");
    tokens(source).iter().find(from).map(|token| token.at)
}

/// Where a part of a program is, such as `on.hit`.
pub(super) fn part(source: &str, path: &str) -> Option<usize> {
    let keys = keys(&tokens(source));
    let program = program(&keys)?;
    let (parent, name) = path.split_once('.').map_or((None, path), |(parent, name)| (Some(parent), name));
    let mut fitting = keys.iter().filter(|key| key.name == name);
    let found = match parent {
        None => fitting.find(|key| key.object == program),
        Some(parent) => fitting.find(|key| key.parent.as_deref() == Some(parent)),
    };
    found.or_else(|| keys.iter().find(|key| key.object == program && Some(key.name.as_str()) == parent)).map(|key| key.at)
}

/// The first part that is written twice: its name, and where it is again.
pub(super) fn twice(source: &str) -> Option<(String, usize)> {
    let keys = keys(&tokens(source));
    let program = program(&keys)?;
    let mut seen: BTreeMap<(usize, &str), usize> = BTreeMap::new();
    for key in keys.iter().filter(|key| !key.is_accessor) {
        let is_part = key.object == program || matches!(key.parent.as_deref(), Some("on" | "timers"));
        if is_part && seen.insert((key.object, &key.name), key.at).is_some() {
            return Some((key.name.clone(), key.at));
        }
    }
    None
}

/// The object that looks most like a program.
fn program(keys: &[Key]) -> Option<usize> {
    let mut parts: BTreeMap<usize, usize> = BTreeMap::new();
    for key in keys {
        let counts = matches!(
            key.name.as_str(),
            "name" | "version" | "state" | "on" | "timers" | "migrate" | "onOpen" | "onData" | "onEnd" | "onError" | "onClose"
        );
        *parts.entry(key.object).or_default() += usize::from(counts);
    }
    parts.into_iter().max_by_key(|(object, parts)| (*parts, std::cmp::Reverse(*object))).map(|(object, _)| object)
}

fn keys(tokens: &[Token<'_>]) -> Vec<Key> {
    let closing = closing(tokens);
    let mut keys = Vec::new();
    // The braces that are open: where they begin, and the key before them.
    let mut open: Vec<(usize, Option<String>)> = Vec::new();
    let mut last_key: Option<(usize, String)> = None;
    let mark = |i: usize| tokens.get(i).map(|token| token.kind);
    for (i, token) in tokens.iter().enumerate() {
        match token.kind {
            Kind::Mark(b'{') => {
                let parent = last_key.take().filter(|(value, _)| *value == i).map(|(_, name)| name);
                open.push((token.at, parent));
            }
            Kind::Mark(b'(' | b'[') => open.push((usize::MAX, None)),
            Kind::Mark(b'}' | b')' | b']') => {
                open.pop();
            }
            _ => {}
        }
        let Some((object, parent)) = open.last().filter(|(object, _)| *object != usize::MAX) else { continue };
        if !matches!(token.kind, Kind::Mark(b'{' | b',')) {
            continue;
        }
        let mut at = i + 1;
        let mut is_accessor = false;
        while let Some(word) = tokens.get(at)
            && (word.text == "*" || matches!(word.text, "async" | "get" | "set"))
            && matches!(mark(at + 1), Some(Kind::Name | Kind::Text | Kind::Mark(b'*')))
        {
            is_accessor |= matches!(word.text, "get" | "set");
            at += 1;
        }
        let Some(name) = tokens.get(at).filter(|token| matches!(token.kind, Kind::Name | Kind::Text)) else { continue };
        let is_key = match mark(at + 1) {
            Some(Kind::Mark(b':')) => true,
            Some(Kind::Mark(b'(')) => closing.get(&(at + 1)).is_some_and(|end| mark(end + 1) == Some(Kind::Mark(b'{'))),
            _ => false,
        };
        if is_key {
            let text = name.text.trim_matches(['"', '\'', '`']).to_owned();
            if mark(at + 1) == Some(Kind::Mark(b':')) {
                last_key = Some((at + 2, text.clone()));
            }
            keys.push(Key { name: text, at: name.at, object: *object, parent: parent.clone(), is_accessor });
        }
    }
    keys
}

/// Where each round bracket ends.
fn closing(tokens: &[Token<'_>]) -> BTreeMap<usize, usize> {
    let (mut open, mut closing) = (Vec::new(), BTreeMap::new());
    for (i, token) in tokens.iter().enumerate() {
        match token.kind {
            Kind::Mark(b'(') => open.push(i),
            Kind::Mark(b')') => {
                if let Some(start) = open.pop() {
                    closing.insert(start, i);
                }
            }
            _ => {}
        }
    }
    closing
}

/// Splits a text that is known to be JavaScript; any other text gives some tokens.
fn tokens(source: &str) -> Vec<Token<'_>> {
    let bytes = source.as_bytes();
    let mut tokens: Vec<Token<'_>> = Vec::new();
    // For each template that is open: how many braces inside it are.
    let mut templates: Vec<usize> = Vec::new();
    let mut at = 0;
    let is_name = |b: u8| b.is_ascii_alphanumeric() || b == b'_' || b == b'$' || b >= 0x80;
    while at < bytes.len() {
        let start = at;
        let kind = match bytes[at] {
            b if b.is_ascii_whitespace() => {
                at += 1;
                continue;
            }
            b'/' if bytes.get(at + 1) == Some(&b'/') => {
                at = end_of(bytes, at, b"\n");
                continue;
            }
            b'/' if bytes.get(at + 1) == Some(&b'*') => {
                at = end_of(bytes, at + 2, b"*/");
                continue;
            }
            b'/' if begins_regexp(tokens.last()) => {
                at = end_of_regexp(bytes, at);
                Kind::Other
            }
            quote @ (b'"' | b'\'') => {
                at = end_of_text(bytes, at + 1, quote);
                Kind::Text
            }
            b'`' => {
                at = end_of_template(bytes, at + 1, &mut templates);
                Kind::Other
            }
            b'}' if templates.last() == Some(&0) => {
                templates.pop();
                at = end_of_template(bytes, at + 1, &mut templates);
                Kind::Other
            }
            b if is_name(b) => {
                at += bytes[at..].iter().take_while(|b| is_name(**b)).count();
                if b.is_ascii_digit() { Kind::Text } else { Kind::Name }
            }
            b => {
                at += 1;
                if let Some(braces) = templates.last_mut() {
                    match b {
                        b'{' => *braces += 1,
                        b'}' => *braces -= 1,
                        _ => {}
                    }
                }
                Kind::Mark(b)
            }
        };
        tokens.push(Token { kind, text: source.get(start..at).unwrap_or_default(), at: start });
    }
    tokens
}

fn begins_regexp(before: Option<&Token<'_>>) -> bool {
    match before {
        None => true,
        Some(Token { kind: Kind::Mark(mark), .. }) => !matches!(mark, b')' | b']'),
        Some(Token { kind: Kind::Name, text, .. }) => BEFORE_REGEXP.contains(text),
        Some(_) => false,
    }
}

fn end_of(bytes: &[u8], from: usize, end: &[u8]) -> usize {
    let found = bytes.get(from..).and_then(|rest| rest.windows(end.len()).position(|window| window == end));
    found.map_or(bytes.len(), |found| from + found + end.len())
}

fn end_of_text(bytes: &[u8], mut at: usize, quote: u8) -> usize {
    while at < bytes.len() && bytes[at] != quote && bytes[at] != b'\n' {
        at += if bytes[at] == b'\\' { 2 } else { 1 };
    }
    (at + 1).min(bytes.len())
}

fn end_of_regexp(bytes: &[u8], mut at: usize) -> usize {
    let mut in_class = false;
    at += 1;
    while at < bytes.len() && bytes[at] != b'\n' && (in_class || bytes[at] != b'/') {
        match bytes[at] {
            b'\\' => at += 1,
            b'[' => in_class = true,
            b']' => in_class = false,
            _ => {}
        }
        at += 1;
    }
    (at + 1).min(bytes.len())
}

/// The end of the template, or of the part before the next expression in it.
fn end_of_template(bytes: &[u8], mut at: usize, templates: &mut Vec<usize>) -> usize {
    while at < bytes.len() {
        match bytes[at] {
            b'`' => return at + 1,
            b'\\' => at += 2,
            b'$' if bytes.get(at + 1) == Some(&b'{') => {
                templates.push(0);
                return at + 2;
            }
            _ => at += 1,
        }
    }
    bytes.len()
}
