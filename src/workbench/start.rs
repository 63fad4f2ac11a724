//! `lasthit rules new`: a start that runs, and the types beside it.

use std::io::Write as _;
use std::path::Path;

use serde_json::json;

use crate::types::check_program_name;

/// The start; `NAME` stands for its name.
const START: &str = include_str!("start.js");
/// The types.
pub(super) const TYPES: &str = include_str!("lasthit.d.ts");
const TYPES_FILE: &str = "lasthit.d.ts";

/// Writes both files into a folder. The types may be there already, as they are written here.
pub(super) fn write(name: &str, folder: &Path, json: bool) -> Result<String, String> {
    let name = name.strip_suffix(".js").unwrap_or(name);
    check_program_name(name).map_err(|e| e.to_string())?;
    if name.starts_with(['.', '-']) {
        return Err(format!("program name {name:?} is not allowed: begin with a letter or a digit"));
    }
    let file = format!("{name}.js");
    let (program, types) = (folder.join(&file), folder.join(TYPES_FILE));
    if program.exists() {
        return Err(format!("{file} is there already: take another name, or remove it"));
    }
    let has_types = match std::fs::read(&types) {
        Ok(found) if found == TYPES.as_bytes() => true,
        Ok(_) => return Err(format!("{TYPES_FILE} is there already, and another one: remove it, it is written anew")),
        Err(_) => false,
    };
    create(&program, &START.replace("NAME", name))?;
    if !has_types {
        create(&types, TYPES)?;
    }
    if json {
        return Ok(json!({"program": file, "types": TYPES_FILE}).to_string());
    }
    Ok(format!("{file} and {TYPES_FILE} are written. Next:\n  lasthit rules test {file}\n  lasthit serve --rules {file}"))
}

fn create(path: &Path, text: &str) -> Result<(), String> {
    let file = std::fs::OpenOptions::new().write(true).create_new(true).open(path);
    file.and_then(|mut file| file.write_all(text.as_bytes())).map_err(|e| format!("{} cannot be written: {e}", path.display()))
}
