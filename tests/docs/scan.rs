//! What a source names. The scan reads tokens, not types: it sees `use` lines and written paths, and no value that comes through
//! another part.

use std::collections::{BTreeMap, BTreeSet};

struct Token<'a> {
    line: usize,
    text: &'a str,
}

/// The tokens of a source: words, `::`, and single signs. Comments, literals and lifetimes are left out.
fn tokens(source: &str) -> Vec<Token<'_>> {
    let (mut found, mut rest, mut line) = (Vec::new(), source, 1);
    while let Some(first) = rest.chars().next() {
        let word = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
        let (length, counts) = if rest.starts_with("//") {
            (rest.find('\n').unwrap_or(rest.len()), false)
        } else if rest.starts_with("/*") {
            (rest.find("*/").map_or(rest.len(), |at| at + 2), false)
        } else if let Some(length) = literal(rest) {
            (length, false)
        } else if word > 0 {
            (word, true)
        } else if rest.starts_with("::") {
            (2, true)
        } else {
            (first.len_utf8(), !first.is_whitespace())
        };
        let (text, behind) = rest.split_at(length);
        if counts {
            found.push(Token { line, text });
        }
        line += text.matches('\n').count();
        rest = behind;
    }
    found
}

/// The length of the string, character or lifetime that a text begins with.
fn literal(text: &str) -> Option<usize> {
    let unprefixed = text.strip_prefix('b').unwrap_or(text);
    let prefix = text.len() - unprefixed.len();
    if let Some(raw) = unprefixed.strip_prefix('r') {
        let hashes = raw.len() - raw.trim_start_matches('#').len();
        if let Some(body) = raw[hashes..].strip_prefix('"') {
            let end = format!("\"{}", "#".repeat(hashes));
            return Some(prefix + hashes + 2 + body.find(&end).map_or(body.len(), |at| at + end.len()));
        }
    }
    let quote = unprefixed.chars().next().filter(|c| matches!(*c, '"' | '\''))?;
    let body = &unprefixed[1..];
    let mut escaped = false;
    let close = body.char_indices().find(|(_, c)| {
        let closes = *c == quote && !escaped;
        escaped = *c == '\\' && !escaped;
        closes
    });
    let close = close.map_or(body.len(), |(at, _)| at);
    let is_lifetime = quote == '\'' && !body.starts_with('\\') && body[..close].chars().count() != 1;
    let length =
        if is_lifetime { body.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(body.len()) } else { close + 1 };
    Some((prefix + 1 + length).min(text.len()))
}

/// Where an item ends that begins at `at`: behind its `;`, or behind the brace that closes its body.
fn behind_item(tokens: &[Token<'_>], at: usize) -> usize {
    let is_use = tokens.get(at).is_some_and(|token| token.text == "use");
    let mut depth = 0;
    for (i, token) in tokens.iter().enumerate().skip(at) {
        match token.text {
            "(" | "[" | "{" => depth += 1,
            ")" | "]" => depth -= 1,
            "}" if depth == 1 && !is_use => return i + 1,
            // The last field of a struct.
            "}" if depth == 0 => return i,
            "}" => depth -= 1,
            ";" if depth == 0 => return i + 1,
            _ => {}
        }
    }
    tokens.len()
}

/// The tokens without the items that only tests have.
fn production(tokens: Vec<Token<'_>>) -> Vec<Token<'_>> {
    const TEST: [&str; 7] = ["#", "[", "cfg", "(", "test", ")", "]"];
    let mut skipped = BTreeSet::new();
    let mut at = 0;
    while at < tokens.len() {
        if !tokens[at..].iter().map(|token| token.text).take(TEST.len()).eq(TEST) {
            at += 1;
            continue;
        }
        let mut item = at + TEST.len();
        // Further attributes of the same item.
        while tokens.get(item).is_some_and(|token| token.text == "#") {
            let close = tokens[item..].iter().position(|token| token.text == "]");
            item += close.map_or(1, |close| close + 1);
        }
        let end = behind_item(&tokens, item);
        skipped.extend(at..end);
        at = end;
    }
    tokens.into_iter().enumerate().filter(|(i, _)| !skipped.contains(i)).map(|(_, token)| token).collect()
}

pub(super) type Path<'a> = (usize, Vec<&'a str>);

fn is_word(text: &str) -> bool {
    text.starts_with(|c: char| c.is_alphabetic() || c == '_')
}

/// Takes a tree of a `use` line apart; tells where it ends. `as` gives a path another name.
fn use_tree<'a>(
    tokens: &[Token<'a>],
    mut at: usize,
    before: &[&'a str],
    found: &mut Vec<Path<'a>>,
    named: &mut BTreeMap<&'a str, Vec<&'a str>>,
) -> usize {
    let mut path = before.to_vec();
    while let Some(token) = tokens.get(at) {
        match token.text {
            "::" => at += 1,
            "{" => {
                at += 1;
                while tokens.get(at).is_some_and(|token| token.text != "}") {
                    at = use_tree(tokens, at, &path, found, named);
                    at += usize::from(tokens.get(at).is_some_and(|token| token.text == ","));
                }
                return at + 1;
            }
            word if is_word(word) || word == "*" => {
                if word != "self" || path.is_empty() {
                    path.push(word);
                }
                at += 1;
                if tokens.get(at).is_some_and(|next| next.text == "::") {
                    continue;
                }
                let mut name = path.last().copied().unwrap_or_default();
                if tokens.get(at).is_some_and(|next| next.text == "as") {
                    name = tokens.get(at + 1).map_or(name, |token| token.text);
                    at += 2;
                }
                named.insert(name, path.clone());
                found.push((token.line, path));
                return at;
            }
            _ => return at + 1,
        }
    }
    at
}

/// Every path that a source names, with its line: each leaf of a `use` line, and what is written out elsewhere, with the names
/// that `use` and `mod` lines gave put back.
fn paths<'a>(tokens: &[Token<'a>]) -> Vec<Path<'a>> {
    let (mut used, mut named, mut written) = (Vec::new(), BTreeMap::new(), Vec::new());
    let mut at = 0;
    while at < tokens.len() {
        let text = |i: usize| tokens.get(i).map_or("", |token: &Token<'a>| token.text);
        let Token { line, text: first } = tokens[at];
        if first == "use" && text(at + 1) != "<" {
            at = use_tree(tokens, at + 1, &[], &mut used, &mut named);
        } else if first == "mod" && is_word(text(at + 1)) {
            named.insert(text(at + 1), vec!["self", text(at + 1)]);
            at += 2;
        } else if is_word(first) {
            let mut path = vec![first];
            at += 1;
            while text(at) == "::" && is_word(text(at + 1)) {
                path.push(text(at + 1));
                at += 2;
            }
            written.push((line, path));
        } else {
            at += 1;
        }
    }
    let own = |(line, path): Path<'a>| match named.get(path[0]) {
        Some(named) if path.len() > 1 && named[0] != path[0] => (line, [&named[..], &path[1..]].concat()),
        _ => (line, path),
    };
    used.into_iter().chain(written).map(own).collect()
}

/// Every path that the production code of a source names, with its line.
pub(super) fn names(source: &str) -> Vec<Path<'_>> {
    paths(&production(tokens(source)))
}

/// A path as it is from the crate's root, `crate` first; another crate's stays as it is.
pub(super) fn absolute<'a>(module: &[&'a str], path: &[&'a str]) -> Vec<&'a str> {
    let mut base = match path[0] {
        "lasthit" if module.is_empty() || module == ["main"] => Vec::new(),
        "self" | "super" => module.to_vec(),
        _ => return path.to_vec(),
    };
    let up = path.iter().take_while(|segment| matches!(**segment, "self" | "super" | "lasthit")).count();
    for _ in path[..up].iter().filter(|segment| **segment == "super") {
        base.pop();
    }
    [&["crate"][..], &base[..], &path[up..]].concat()
}

/// A file below `src` without its ending, and the segments of its module.
pub(super) fn module(file: &str) -> Vec<&str> {
    let mut module: Vec<&str> = file.trim_end_matches(".rs").split('/').collect();
    if matches!(module.last(), Some(&("mod" | "lib"))) {
        module.pop();
    }
    module
}
