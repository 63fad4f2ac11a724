//! The checker: compares every player's record with the journal's. Pure: it never asks the system under test.
//!
//! * `lost`: an action that was sent and never answered, or that is in a room's stream and has no verdict;
//! * `doubled`: an id that was acted on twice, or an event with two verdicts. A room remembers the last 1,024 ids of a player:
//!   after more of them, an id that is sent again without `seen` is a new one;
//! * `changed`: a player saw a verdict that is another in the journal, or not there, or was told that the room is behind it;
//! * `two_winners`: a round of a contest that two claims won, in the journal or in what players saw;
//! * `inversions`: actions decided in another order than that of their stamps, unless they are flagged `unproven`;
//! * `gaps`: a number that the journal or a player skipped, or a range that hid what the player should have seen;
//! * `replay`: verdicts that differ when the room is resolved again;
//! * `timers_lost`, `timers_doubled`, `timers_early`, `timers_out_of_order`: timers that never fired, fired without being set, before they
//!   were due, or in another place than their moment gives them among the actions;
//! * `rolled_back`: a player was told that its room begins a new era. It is a fault at the levels at which Redis
//!   loses nothing. At the level `redis` it may happen when a worker and a gateway died together with Redis;
//! * `taken_back`: verdicts that a player saw and that the room's next life does not have. They are counted in rooms of which Redis may have
//!   lost what was acknowledged, because a replica of their node was elected that had not got it; in all others they are `changed`;
//! * `fires`: timers that fired; `unproven`, `clamped`: verdicts with that flag. They are counted, and are no fault.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use lasthit::internals::limits::RECENT_IDS_PER_PLAYER_MAX;
use lasthit::types::{Audience, Flags, Outcome, Stamp, Verdict};
use serde::Serialize;
use timers::Wrong;

use super::game::Game;
use super::record::{Record, RoomRecord, Seen, Told, digest_of, is_data};

/// Faults that are told one by one.
const TOLD_MAX: usize = 20;

/// The findings. All except the last five must be 0.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Faults {
    pub(crate) lost: u64,
    pub(crate) doubled: u64,
    pub(crate) changed: u64,
    pub(crate) two_winners: u64,
    pub(crate) inversions: u64,
    pub(crate) gaps: u64,
    pub(crate) replay: u64,
    pub(crate) timers_lost: u64,
    pub(crate) timers_doubled: u64,
    pub(crate) timers_early: u64,
    pub(crate) timers_out_of_order: u64,
    pub(crate) rolled_back: u64,
    pub(crate) taken_back: u64,
    pub(crate) fires: u64,
    pub(crate) unproven: u64,
    pub(crate) clamped: u64,
}

impl Faults {
    /// What counts as a failure, by name.
    pub(crate) fn failures(&self) -> [(&'static str, u64); 11] {
        [
            ("lost", self.lost),
            ("doubled", self.doubled),
            ("changed", self.changed),
            ("two winners", self.two_winners),
            ("inversions", self.inversions),
            ("gaps", self.gaps),
            ("replay", self.replay),
            ("timers lost", self.timers_lost),
            ("timers doubled", self.timers_doubled),
            ("timers early", self.timers_early),
            ("timers out of order", self.timers_out_of_order),
        ]
    }
}

/// The findings, and the first of them in words.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Findings {
    pub(crate) faults: Faults,
    pub(crate) told: Vec<String>,
    /// When the first player was told of a room's new era, by the index of the room and the era.
    pub(crate) renewed: BTreeMap<(usize, u64), Duration>,
}

/// Judges a run of this game, in which Redis may have lost what it had acknowledged of the rooms of these indexes, but of no other.
pub(crate) fn judge(records: &[Record], rooms: &[RoomRecord], game: &Game, may_lose: &BTreeSet<usize>) -> Findings {
    let mut judge = Judge { findings: Findings::default(), game, may_lose };
    let indexes: Vec<Index<'_>> = rooms.iter().map(|room| judge.room(room)).collect();
    for record in records {
        judge.answers(record, &rooms[record.room].name);
        judge.told(record, &indexes[record.room]);
    }
    judge.findings
}

/// A room's verdicts by their number.
struct Index<'a> {
    room: &'a RoomRecord,
    by_seq: HashMap<u64, &'a Verdict>,
}

struct Judge<'g> {
    findings: Findings,
    game: &'g Game,
    may_lose: &'g BTreeSet<usize>,
}

/// The era in which a player was at last.
fn last_era(told: &[Told]) -> Option<u64> {
    told.iter().rev().find_map(|told| match told {
        Told::Welcome { era, .. } => Some(*era),
        Told::Verdict(_) | Told::Ahead => None,
    })
}

/// Whether a player saw what the journal has.
fn is_same(seen: &Seen, kept: &Verdict, index: &Index<'_>) -> bool {
    let repeated = || {
        matches!(kept.outcome, Outcome::Repeat { of } if of == seen.repeat_of)
            && index.by_seq.get(&seen.repeat_of).is_some_and(|first| digest_of(first) == seen.digest)
    };
    digest_of(kept) == seen.digest || repeated()
}

impl Judge<'_> {
    fn found(&mut self, count: impl FnOnce(&mut Faults) -> &mut u64, say: impl FnOnce() -> String) {
        *count(&mut self.findings.faults) += 1;
        if self.findings.told.len() < TOLD_MAX {
            self.findings.told.push(say());
        }
    }

    /// A room by itself.
    fn room<'a>(&mut self, room: &'a RoomRecord) -> Index<'a> {
        self.timers(room);
        let name = &room.name;
        for line in &room.deviations {
            self.found(|f| &mut f.replay, || format!("replay: room {name}: {line}"));
        }
        let mut next = 1;
        for verdict in &room.verdicts {
            if verdict.seq != next {
                self.found(|f| &mut f.gaps, || format!("gap: room {name}: verdict {} follows {}", verdict.seq, next - 1));
            }
            next = verdict.seq + 1;
        }
        if next != room.seq + 1 {
            self.found(|f| &mut f.gaps, || format!("gap: room {name}: the last verdict is {} of {}", next - 1, room.seq));
        }
        let actions = || room.verdicts.iter().filter(|v| is_data(v));
        self.findings.faults.unproven += room.verdicts.iter().filter(|v| v.flags.has(Flags::UNPROVEN)).count() as u64;
        self.findings.faults.clamped += room.verdicts.iter().filter(|v| v.flags.has(Flags::CLAMPED)).count() as u64;

        let mut decided: HashMap<Stamp, u64> = HashMap::new();
        actions().for_each(|verdict| *decided.entry(verdict.stamp).or_default() += 1);
        for stamp in &room.accepted {
            if !decided.contains_key(stamp) {
                self.found(|f| &mut f.lost, || format!("lost: room {name}: {stamp:?} is in the stream and has no verdict"));
            }
        }
        for (stamp, times) in decided.into_iter().filter(|(_, times)| *times > 1) {
            self.found(|f| &mut f.doubled, || format!("doubled: room {name}: {stamp:?} has {times} verdicts"));
        }

        // By player and id: the verdict that decided it, and how many of the player's ids were decided before.
        let mut first: HashMap<(&str, &str), (u64, usize)> = HashMap::new();
        let mut acted: HashMap<&str, usize> = HashMap::new();
        let mut winners: BTreeMap<(&str, u64), u64> = BTreeMap::new();
        let mut before: Option<&Verdict> = None;
        for verdict in actions() {
            let seq = verdict.seq;
            if let (Some(player), Some(id)) = (verdict.player.as_ref().map(|p| p.as_str()), verdict.id.as_deref()) {
                let used = acted.entry(player).or_default();
                let entry = first.entry((player, id)).or_insert((seq, *used));
                let is_repeat = matches!(verdict.outcome, Outcome::Repeat { .. });
                if !is_repeat && *used - entry.1 > RECENT_IDS_PER_PLAYER_MAX {
                    *entry = (seq, *used);
                }
                let known = entry.0;
                *used += usize::from(!is_repeat);
                match verdict.outcome {
                    Outcome::Repeat { of } if of == known && of < seq => {}
                    Outcome::Repeat { of } => self.found(
                        |f| &mut f.changed,
                        || {
                            format!(
                                "changed: room {name}: verdict {seq} repeats {of}, id {id} of {player} was decided as {known}"
                            )
                        },
                    ),
                    _ if known != seq => self.found(
                        |f| &mut f.doubled,
                        || format!("doubled: room {name}: id {id} of {player} was decided as {known} and as {seq}"),
                    ),
                    _ => {}
                }
            }
            if let Some(contest) = self.won(verdict)
                && let Some(other) = winners.insert((contest, verdict.round), seq)
            {
                self.found(
                    |f| &mut f.two_winners,
                    || format!("two winners: room {name}: {contest} round {} by {other} and {seq}", verdict.round),
                );
            }
            if verdict.flags.has(Flags::UNPROVEN) {
                continue;
            }
            match before {
                Some(before) if before.stamp > verdict.stamp => {
                    let (earlier, at, ahead) = (before.seq, verdict.stamp.moment.ns, before.stamp.moment.ns);
                    self.found(
                        |f| &mut f.inversions,
                        || format!("inversion: room {name}: verdict {seq} of {at} ns comes after {earlier} of {ahead} ns"),
                    );
                }
                _ => before = Some(verdict),
            }
        }
        Index { room, by_seq: room.verdicts.iter().map(|v| (v.seq, v)).collect() }
    }

    /// The timers of a room by themselves.
    fn timers(&mut self, room: &RoomRecord) {
        let (fires, wrong) = timers::timers(room, self.game);
        self.findings.faults.fires += fires;
        for wrong in wrong {
            let name = &room.name;
            let (count, why): (fn(&mut Faults) -> &mut u64, String) = match wrong {
                Wrong::Lost(why) => (|f| &mut f.timers_lost, why),
                Wrong::Doubled(why) => (|f| &mut f.timers_doubled, why),
                Wrong::Early(why) => (|f| &mut f.timers_early, why),
                Wrong::OutOfOrder(why) => (|f| &mut f.timers_out_of_order, why),
            };
            self.found(count, || format!("timer: room {name}: {why}"));
        }
    }

    /// The contest that a verdict won.
    fn won<'a>(&self, verdict: &'a Verdict) -> Option<&'a str> {
        verdict.contest.as_deref().filter(|_| self.game.is_win(verdict))
    }

    /// Whether everything that a player sent was answered.
    fn answers(&mut self, record: &Record, room: &str) {
        for acted in record.acted.iter().filter(|acted| acted.answer.is_none()) {
            self.found(
                |f| &mut f.lost,
                || format!("lost: room {room}: {} of {} was sent {} times, no answer", acted.id, record.player, acted.sends),
            );
        }
    }

    /// Whether what a player was told is what the journal has, without holes.
    fn told(&mut self, record: &Record, index: &Index<'_>) {
        let (player, room) = (&record.player, &index.room.name);
        let (mut session, mut last, mut era) = ("", None, 0);
        let last_era = last_era(&record.told).filter(|_| self.may_lose.contains(&record.room));
        // What it sees from here on may be of what an election took away.
        let mut diverged = false;
        for told in &record.told {
            match told {
                Told::Welcome { at, era: now, seq, resumed, session: name } => {
                    let seen = last.unwrap_or(*seq);
                    let renewed = era != 0 && era < *now && *now <= index.room.era && !*resumed;
                    if renewed {
                        self.findings.faults.rolled_back += 1;
                        let first = self.findings.renewed.entry((record.room, *now)).or_insert(*at);
                        *first = (*first).min(*at);
                    }
                    if *now < era || *now > index.room.era || (*resumed && (seen != *seq || *now != era)) {
                        self.found(
                            |f| &mut f.changed,
                            || {
                                let kept = index.room.era;
                                format!(
                                    "changed: room {room}: {player} was at {era}.{seen}, welcomed at {now}.{seq}, era is {kept}"
                                )
                            },
                        );
                    } else if last.is_some() && !*resumed && !renewed {
                        self.found(
                            |f| &mut f.gaps,
                            || format!("gap: room {room}: {player} was at {seen}, but could resume only from {seq}"),
                        );
                    }
                    diverged &= *now == era;
                    (session, last, era) = (name, Some(*seq), *now);
                }
                Told::Ahead => {
                    self.found(
                        |f| &mut f.changed,
                        || format!("changed: room {room}: {player} has seen verdicts that the journal does not have"),
                    );
                    last = None;
                }
                Told::Verdict(seen) => {
                    let before = last.unwrap_or(0);
                    let is_kept = || index.by_seq.get(&seen.seq).is_some_and(|kept| is_same(seen, kept, index));
                    let is_taken = last_era.is_some_and(|last| last > era) && !is_kept();
                    self.findings.faults.taken_back += u64::from(is_taken);
                    diverged |= is_taken;
                    if !diverged {
                        self.saw(player, session, before, seen, index);
                    }
                    last = Some(before.max(seen.seq));
                }
            }
        }
        if era != 0 && era < index.room.era {
            let kept = index.room.era;
            self.found(
                |f| &mut f.changed,
                || format!("changed: room {room}: {player} is still in era {era}, the room is in era {kept}"),
            );
        }
    }

    fn saw(&mut self, player: &str, session: &str, last: u64, seen: &Seen, index: &Index<'_>) {
        let (room, seq) = (&index.room.name, seen.seq);
        if seen.from > seq || seen.from > last + 1 {
            self.found(|f| &mut f.gaps, || format!("gap: room {room}: {player} saw {}..={seq} after {last}", seen.from));
        }
        let Some(kept) = index.by_seq.get(&seq) else {
            self.found(
                |f| &mut f.changed,
                || format!("changed: room {room}: {player} saw {seq}, which the journal does not have"),
            );
            return;
        };
        if !is_same(seen, kept, index) {
            let kept = format!("{kept:?}");
            self.found(
                |f| &mut f.changed,
                || format!("changed: room {room}: {player} saw another verdict {seq} than the journal has: {kept}"),
            );
        }
        let hidden = (seen.from.max(last + 1)..seq).filter_map(|n| index.by_seq.get(&n));
        let hidden: BTreeSet<u64> = hidden
            .filter(|v| match &v.audience {
                Audience::Room => true,
                Audience::Session => v.session_id().to_string() == session,
                Audience::Server => false,
                Audience::Players(players) => players.iter().any(|named| named.as_str() == player),
            })
            .map(|v| v.seq)
            .collect();
        if !hidden.is_empty() {
            self.found(
                |f| &mut f.gaps,
                || format!("gap: room {room}: {player} was not shown {hidden:?} between {last} and {seq}"),
            );
        }
    }
}

#[cfg(test)]
mod tests;
pub(super) mod timers;
