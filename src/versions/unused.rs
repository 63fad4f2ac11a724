//! `lasthit rules drop --unused`: a program goes if nothing that is stored names it any more, and nothing that is under way may.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::json;

use super::{line, pretty};
use crate::clock;
use crate::journal::redis::RedisJournal;
use crate::journal::{CommonJournal as _, JournalError, ProgramJournal, Pushed};
use crate::limits::PROGRAM_UNUSED_MIN;
use crate::replay::{ReplayError, named};
use crate::rules::js::{Budget, Program};
use crate::types::{ProgramId, RoomId, ShardId};

/// How often a room is read that its worker changes meanwhile.
const READS: usize = 8;

pub(super) async fn run(journal: &RedisJournal, json: bool) -> Result<String, String> {
    let kept = journal.kept_programs().await.map_err(line)?;
    let pushed = journal.pushed_programs().await.map_err(line)?;
    let now_ms = clock::unix_ms();
    let (mut unused, mut young) = (Vec::new(), Vec::new());
    for (program, _) in kept {
        if pushed.iter().any(|pushed| pushed.program == program) {
            continue;
        }
        let text = journal.program(program).await.map_err(line)?;
        let name = text.and_then(|text| name_of(&text));
        if name.is_some_and(|name| may_be_under_way(&name, &pushed, now_ms)) { young.push(program) } else { unused.push(program) }
    }
    let (mut in_records, mut rooms) = (BTreeSet::new(), 0);
    if !unused.is_empty() {
        for shard in (0..journal.shards()).map(ShardId) {
            for room in journal.stored_rooms(shard).await.map_err(line)? {
                in_records.append(&mut named_by(journal, &room).await?);
                rooms += 1;
            }
        }
    }
    let Sorted { dropped, used, pushed } = drop_all(journal, unused, &in_records).await.map_err(line)?;
    young.extend(pushed);
    Ok(told(&dropped, &used, &young, rooms, json))
}

/// What became of programs that no pattern had at first.
#[derive(Debug, Default, PartialEq, Eq)]
struct Sorted {
    dropped: Vec<ProgramId>,
    /// A record names them.
    used: Vec<ProgramId>,
    /// A pattern has them by now.
    pushed: Vec<ProgramId>,
}

async fn drop_all(
    journal: &dyn ProgramJournal,
    programs: Vec<ProgramId>,
    in_records: &BTreeSet<ProgramId>,
) -> Result<Sorted, JournalError> {
    let mut sorted = Sorted::default();
    for program in programs {
        let place = if in_records.contains(&program) {
            &mut sorted.used
        } else if journal.drop_program(program).await? {
            &mut sorted.dropped
        } else {
            &mut sorted.pushed
        };
        place.push(program);
    }
    Ok(sorted)
}

/// What a program calls itself. None if it is damaged: then it decides nothing.
fn name_of(text: &[u8]) -> Option<String> {
    Program::load("kept.js", text, Budget::most()).ok().map(|program| program.name().to_owned())
}

/// Whether its pattern got another program so lately that rooms may still be changing. When a program was pushed is known of the
/// last push of each pattern only: of each pattern whose program has this name.
fn may_be_under_way(name: &str, pushed: &[Pushed], now_ms: u64) -> bool {
    pushed
        .iter()
        .filter(|pushed| pushed.name == name)
        .any(|pushed| Duration::from_millis(now_ms.saturating_sub(pushed.at_ms)) < PROGRAM_UNUSED_MIN)
}

/// The programs that a room's record names.
async fn named_by(journal: &RedisJournal, room: &RoomId) -> Result<BTreeSet<ProgramId>, String> {
    for _ in 0..READS {
        return match named::named_by(journal, room).await {
            Ok(named) => Ok(named),
            // It has ended meanwhile.
            Err(ReplayError::NoRoom(_)) => Ok(BTreeSet::new()),
            Err(ReplayError::Changed(_) | ReplayError::Overtaken(_)) => continue,
            Err(error) => Err(undone(room, &error)),
        };
    }
    Err(undone(room, &ReplayError::Overtaken(room.clone())))
}

fn undone(room: &RoomId, error: &ReplayError) -> String {
    format!("nothing is dropped, as what room {room} names cannot be read: {error}")
}

fn told(dropped: &[ProgramId], used: &[ProgramId], young: &[ProgramId], rooms: usize, json: bool) -> String {
    let names = |programs: &[ProgramId]| programs.iter().map(ToString::to_string).collect::<Vec<_>>();
    if json {
        return pretty(&json!({
            "dropped": names(dropped), "used_by_rooms": names(used), "superseded_lately": names(young), "rooms": rooms,
        }));
    }
    let mut text: String = names(dropped).iter().map(|name| format!("{name}  dropped\n")).collect();
    text += &names(used).iter().map(|name| format!("{name}  stays: the record of a room names it\n")).collect::<String>();
    let minutes = PROGRAM_UNUSED_MIN.as_secs() / 60;
    let lately = |name: &String| format!("{name}  stays: a program of its name was pushed less than {minutes} minutes ago\n");
    text += &names(young).iter().map(lately).collect::<String>();
    text + &format!("{} program{} dropped", dropped.len(), if dropped.len() == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::memory::MemoryJournal;
    use crate::journal::{ProgramPush, PushedBy};

    /// It was pushed while the records were read. No record names it.
    #[tokio::test]
    async fn a_program_that_a_pattern_has_by_now_stays_as_such() {
        let journal = MemoryJournal::new(1);
        let push = |text: &'static str, pattern: &str| ProgramPush {
            pattern: pattern.to_owned(),
            name: "pit".to_owned(),
            version: 1,
            text: text.as_bytes().into(),
            by: PushedBy::Start,
        };
        let [pushed, named, other] = ["pushed", "named", "other"].map(|text| ProgramId::of(text.as_bytes()));
        journal.push_program(&push("pushed", "pit-*")).await.expect("pushed");
        let sorted = drop_all(&journal, vec![pushed, named, other], &[named].into()).await.expect("sorted");
        assert_eq!(sorted, Sorted { dropped: vec![other], used: vec![named], pushed: vec![pushed] });
        assert!(journal.program(pushed).await.expect("asked").is_some());
    }

    #[test]
    fn a_program_is_known_whatever_budget_it_was_given() {
        let text = "const large = new Uint8Array(100 * 1024 * 1024); export default { name: 'large', version: 1 };";
        assert_eq!(name_of(text.as_bytes()).as_deref(), Some("large"));
        assert_eq!(name_of(b"export default"), None);
    }

    #[test]
    fn a_program_stays_for_an_hour_after_the_last_push_of_its_name() {
        let hour = 3_600_000;
        let pushed = |name: &str, at_ms: u64| Pushed {
            pattern: format!("{name}-{at_ms}"),
            program: ProgramId(at_ms.into()),
            push: at_ms,
            name: name.to_owned(),
            version: 1,
            at_ms,
        };
        let all = [pushed("a", 1_000), pushed("b", hour), pushed("a", 2_000)];
        for (name, now_ms, expected) in
            [("a", hour, true), ("a", hour + 1_999, true), ("a", hour + 2_000, false), ("b", hour + 2_000, true), ("c", 0, false)]
        {
            assert_eq!(may_be_under_way(name, &all, now_ms), expected, "{name} at {now_ms}");
        }
        // By a clock that is behind the journal's.
        assert!(may_be_under_way("b", &all, 0));
    }
}
