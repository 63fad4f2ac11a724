//! A room's state as bytes. A commit carries it when enough events came since the last one.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use super::contests::{Contest, Contests, Winner};
use super::recent::Recent;
use super::resequence::Unproven;
use super::room::{Member, Room};
use super::timers::{Timer, Timers};
use crate::limits::{MARKS_PER_ROOM_MAX, TIMER_AHEAD_MIN, TIMERS_PER_ROOM_MAX};
use crate::rules::{Repeat, Rules};
use crate::types::{Epoch, Incarnation, Moment, ProgramId, Role, RoomTime, SessionId, Stamp};
use crate::wire::DecodeError;
use crate::wire::codec::{Reader, Writer};

mod earlier;

/// Version 5, packed: `5, era, seq, incarnations, sessions, marks, stretches of dead gateways, highest forgotten seq, players' ids,
/// first round, contests, rules' name, rules' version, rules' state, seed, time, last moment, whether a timer fired there, epoch,
/// fires, fires since the last event, timers, further parts`, each list behind its count. Incarnations are named by their index. The
/// further parts are bits that say what follows: the program and the number of its push.
///
/// Versions 3 and 4 are read too. Version 4 ends with the rules' state.
///
/// A player has its name, the highest `seq` of its forgotten ids, and for each id the difference of its `seq` to the one before,
/// and its hash. A contest has its name, its round, the `seq` that changed it, whether it is won, and its winner.
const VERSION: u8 = 5;
/// The oldest packed version that is read.
const VERSION_MIN: u8 = 4;
/// The bit of a further part.
const PROGRAM: u64 = 1;
/// Bytes of an incarnation.
const INCARNATION_BYTES: usize = 16;
/// The fewest bytes that an id takes.
const ID_BYTES_MIN: usize = 9;

/// Why a room cannot be continued from its snapshot.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SnapshotError {
    /// The bytes are not a snapshot of this version.
    #[error(transparent)]
    Decode(#[from] DecodeError),
    /// The room was resolved by other rules.
    #[error(
        "the room was resolved by the rules {found:?}, the configuration says {configured:?}: give the room its rules back, or end it"
    )]
    OtherRules {
        /// The rules that wrote the snapshot.
        found: String,
        /// The rules that should read it.
        configured: String,
    },
    /// The rules cannot read their own state.
    #[error("rules {rules} cannot read their state: {why}")]
    Rules {
        /// The name of the rules.
        rules: String,
        /// Their reason.
        why: String,
    },
}

impl Room {
    /// Writes the state. Beyond [`MARKS_PER_ROOM_MAX`], the marks of gateways that left longest ago are dropped: their entries lie
    /// below every cursor.
    #[must_use]
    pub fn snapshot(&self) -> Bytes {
        let mut w = Writer::with_capacity(512);
        let marks = self.kept_marks();
        w.byte(VERSION).varint(self.era).varint(self.seq);
        let incarnations = self.incarnations(&marks);
        w.varint(incarnations.len() as u64);
        for incarnation in &incarnations {
            w.tail(&incarnation.0.to_be_bytes());
        }
        let index = |incarnation: Incarnation| incarnations.binary_search(&incarnation).unwrap_or_default() as u64;
        w.varint(self.sessions.len() as u64);
        for (session, member) in &self.sessions {
            w.varint(index(session.gateway)).varint(session.number).sized(member.player.as_str().as_bytes());
            w.byte(u8::from(member.role == Role::Server));
        }
        w.varint(marks.len() as u64);
        for (incarnation, (ordinal, moment)) in &marks {
            w.varint(index(*incarnation)).varint(*ordinal);
            write_moment(&mut w, *moment);
        }
        w.varint(self.unproven.len() as u64);
        for Unproven { dead, above, until } in &self.unproven {
            w.varint(index(*dead));
            write_moment(&mut w, *above);
            write_moment(&mut w, *until);
        }
        let players = self.recent.players();
        w.varint(self.recent.forgotten()).varint(players.len() as u64);
        for (player, forgotten, ids) in players {
            w.sized(player.as_str().as_bytes()).varint(forgotten).varint(ids.len() as u64);
            let mut before = 0;
            for (seq, id) in ids {
                w.varint(seq.wrapping_sub(before)).tail(&id.to_be_bytes());
                before = seq;
            }
        }
        w.varint(self.contests.first_round()).varint(self.contests.len() as u64);
        for (name, Contest { round, winner, changed }) in self.contests.iter() {
            w.sized(name.as_bytes()).varint(*round).varint(*changed).byte(u8::from(winner.is_some()));
            if let Some(Winner { stamp, uncertainty_ns }) = winner {
                write_moment(&mut w, stamp.moment);
                w.varint(index(stamp.incarnation)).varint(stamp.ordinal).varint(*uncertainty_ns);
            }
        }
        w.sized(self.rules.name().as_bytes()).varint(self.rules.version().into()).sized(&self.rules.snapshot());
        w.tail(&self.seed.to_be_bytes()).varint(self.now.0);
        write_moment(&mut w, self.last);
        w.byte(u8::from(self.last_is_fire));
        match self.epoch {
            None => _ = w.byte(0),
            Some((timeline, Epoch { source_ns, ns })) => _ = w.byte(1).varint(timeline.into()).varint(source_ns).varint(ns),
        }
        w.varint(self.fires).varint(self.alone.into()).varint(self.timers.len() as u64);
        for (name, Timer { due, missed, repeat, data }) in self.timers.iter() {
            w.sized(name.as_bytes()).varint(due.0).varint(*missed).sized(data);
            match repeat {
                Repeat::Never => _ = w.byte(0),
                Repeat::Every(ns) => _ = w.byte(1).varint(*ns),
                Repeat::Cron(expression, offset_s) => {
                    w.byte(2).sized(expression.as_bytes()).tail(&offset_s.to_be_bytes());
                }
            }
        }
        match self.rules.program() {
            ProgramId::NONE => _ = w.varint(0),
            program => _ = w.varint(PROGRAM).tail(&program.0.to_be_bytes()).varint(self.push),
        }
        w.finish()
    }

    /// All incarnations that the snapshot names, in order.
    fn incarnations(&self, marks: &[(Incarnation, (u64, Moment))]) -> Vec<Incarnation> {
        let sessions = self.sessions.keys().map(|session| session.gateway);
        let winners = self.contests.iter().filter_map(|(_, contest)| Some(contest.winner?.stamp.incarnation));
        let all = sessions.chain(winners).chain(marks.iter().map(|(incarnation, _)| *incarnation));
        all.chain(self.unproven.iter().map(|stretch| stretch.dead)).collect::<BTreeSet<_>>().into_iter().collect()
    }

    fn kept_marks(&self) -> Vec<(Incarnation, (u64, Moment))> {
        let mut marks: Vec<_> = self.marks.iter().map(|(incarnation, mark)| (*incarnation, *mark)).collect();
        if marks.len() > MARKS_PER_ROOM_MAX {
            let inside = |incarnation| self.sessions.keys().any(|session| session.gateway == incarnation);
            marks.sort_by_key(|(incarnation, (_, moment))| std::cmp::Reverse((inside(*incarnation), *moment)));
            marks.truncate(MARKS_PER_ROOM_MAX);
            marks.sort_by_key(|(incarnation, _)| *incarnation);
        }
        marks
    }

    /// Reads a snapshot of this version or the one before, into a room with fresh `rules` of the same name.
    ///
    /// # Errors
    /// [`SnapshotError`]: damaged bytes, another version, or other rules.
    pub fn restore(bytes: &[u8], rules: Box<dyn Rules>) -> Result<Self, SnapshotError> {
        Self::restore_by(bytes, rules, |program| Err(format!("it has the program {program}, which is not there")))
    }

    /// [`Room::restore`], where `open` gives the rules if another text decides than that of the configured `rules`.
    pub(crate) fn restore_by(
        bytes: &[u8],
        mut rules: Box<dyn Rules>,
        open: impl FnOnce(ProgramId) -> Result<Box<dyn Rules>, String>,
    ) -> Result<Self, SnapshotError> {
        let Read { era, seq, sessions, marks, unproven, recent, contests, rules: (found, version, state), time } = read(bytes)?;
        let configured = rules.name().to_owned();
        if let Some(process) = rules.as_process() {
            // What the program is called is known when it is asked.
            process.take_up(&found, version, state).map_err(|why| SnapshotError::Rules { rules: found, why })?;
        } else {
            if found != configured {
                return Err(SnapshotError::OtherRules { found, configured });
            }
            if time.program != ProgramId::NONE && rules.program() == ProgramId::NONE {
                let why = "a program in a file wrote it: give the room rules = { file } again, or end it".to_owned();
                return Err(SnapshotError::Rules { rules: configured, why });
            }
            if time.program != ProgramId::NONE && time.program != rules.program() {
                rules = open(time.program).map_err(|why| SnapshotError::Rules { rules: found, why })?;
            }
            rules.restore(version, state).map_err(|why| SnapshotError::Rules { rules: configured, why })?;
        }
        let Time { seed, now, last, last_is_fire, epoch, fires, alone, timers, program: _, push } = time;
        let (failures, decided) = (Vec::new(), Vec::new());
        Ok(Self {
            era,
            seq,
            sessions,
            marks,
            unproven,
            recent,
            contests,
            seed,
            epoch,
            now,
            last,
            last_is_fire,
            timers,
            fires,
            alone,
            rules,
            failing: None,
            push,
            follows: false,
            migrated: false,
            failures,
            decided,
        })
    }
}

/// The program in a file that decides the room of a snapshot; None if other rules do.
///
/// # Errors
/// [`SnapshotError::Decode`]: which one it is cannot be known.
pub(crate) fn program_of(bytes: &[u8]) -> Result<Option<ProgramId>, SnapshotError> {
    let program = read(bytes)?.time.program;
    Ok((program != ProgramId::NONE).then_some(program))
}

/// The values of a snapshot; of the rules their name, version and state.
#[derive(Default)]
struct Read<'a> {
    era: u64,
    seq: u64,
    sessions: BTreeMap<SessionId, Member>,
    marks: BTreeMap<Incarnation, (u64, Moment)>,
    unproven: Vec<Unproven>,
    recent: Recent,
    contests: Contests,
    rules: (String, u32, &'a [u8]),
    time: Time,
}

/// What versions before 5 did not have.
#[derive(Default)]
struct Time {
    seed: u128,
    now: RoomTime,
    last: Moment,
    last_is_fire: bool,
    epoch: Option<(u32, Epoch)>,
    fires: u64,
    alone: u32,
    timers: Timers,
    program: ProgramId,
    push: u64,
}

impl Time {
    fn read(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let mut time = Self {
            seed: r.identity()?.0,
            now: RoomTime(r.varint()?),
            last: read_moment(r)?,
            last_is_fire: r.byte()? == 1,
            ..Self::default()
        };
        if r.byte()? == 1 {
            time.epoch = Some((r.narrow()?, Epoch { source_ns: r.varint()?, ns: r.varint()? }));
        }
        (time.fires, time.alone) = (r.varint()?, r.narrow()?);
        let timers = r.count(4)?;
        if timers > TIMERS_PER_ROOM_MAX {
            return Err(r.damaged(format!("{timers} timers")));
        }
        for _ in 0..timers {
            let (name, due, missed) = (r.sized_text()?, RoomTime(r.varint()?), r.varint()?);
            let data = Bytes::copy_from_slice(r.sized()?);
            let repeat = match r.byte()? {
                0 => Repeat::Never,
                1 => match r.varint()? {
                    ns if u128::from(ns) >= TIMER_AHEAD_MIN.as_nanos() => Repeat::Every(ns),
                    ns => return Err(r.damaged(format!("a timer that repeats every {ns} ns"))),
                },
                2 => Repeat::Cron(r.sized_text()?.to_owned(), i32::from_be_bytes(r.chunk()?)),
                other => return Err(r.damaged(format!("a timer of kind {other}"))),
            };
            time.timers.put(name, Timer { due, missed, repeat, data });
        }
        match r.varint()? {
            0 => Ok(time),
            PROGRAM => {
                (time.program, time.push) = (ProgramId(r.identity()?.0), r.varint()?);
                Ok(time)
            }
            parts => Err(r.damaged(format!("unknown parts {parts}"))),
        }
    }
}

/// Reads a snapshot of any version that is still read.
fn read(bytes: &[u8]) -> Result<Read<'_>, SnapshotError> {
    if bytes.first() == Some(&earlier::FIRST_BYTE) { earlier::read(bytes) } else { packed(bytes) }
}

fn packed(bytes: &[u8]) -> Result<Read<'_>, SnapshotError> {
    let (mut r, version) = Reader::packed_of("snapshot", bytes, VERSION_MIN..=VERSION)?;
    let mut read = Read { era: r.varint()?, seq: r.varint()?, ..Read::default() };
    let mut incarnations = Vec::with_capacity(r.count(INCARNATION_BYTES)?);
    for _ in 0..incarnations.capacity() {
        incarnations.push(r.identity()?);
    }
    for _ in 0..r.count(4)? {
        let session = SessionId { gateway: named(&mut r, &incarnations)?, number: r.varint()? };
        let player = r.sized_player()?;
        read.sessions.insert(session, Member { player, role: if r.byte()? == 1 { Role::Server } else { Role::Player } });
    }
    for _ in 0..r.count(4)? {
        read.marks.insert(named(&mut r, &incarnations)?, (r.varint()?, read_moment(&mut r)?));
    }
    for _ in 0..r.count(5)? {
        let dead = named(&mut r, &incarnations)?;
        read.unproven.push(Unproven { dead, above: read_moment(&mut r)?, until: read_moment(&mut r)? });
    }
    read.recent = ids(&mut r)?;
    read.contests = Contests::from_round(r.varint()?);
    for _ in 0..r.count(4)? {
        let (name, round, changed) = (r.sized_text()?, r.varint()?, r.varint()?);
        let mut winner = None;
        if r.byte()? == 1 {
            let moment = read_moment(&mut r)?;
            let stamp = Stamp { moment, incarnation: named(&mut r, &incarnations)?, ordinal: r.varint()? };
            winner = Some(Winner { stamp, uncertainty_ns: r.varint()? });
        }
        read.contests.put(name, Contest { round, winner, changed });
    }
    read.rules = (r.sized_text()?.to_owned(), r.narrow()?, r.sized()?);
    if version == VERSION {
        read.time = Time::read(&mut r)?;
    } else {
        read.time.last = read.marks.values().map(|(_, moment)| *moment).max().unwrap_or_default();
    }
    r.end()?;
    Ok(read)
}

fn ids(r: &mut Reader<'_>) -> Result<Recent, SnapshotError> {
    let forgotten = r.varint()?;
    let mut players = Vec::with_capacity(r.count(3)?);
    for _ in 0..players.capacity() {
        let (player, pushed_out) = (r.sized_player()?, r.varint()?);
        let (mut ids, mut seq) = (Vec::with_capacity(r.count(ID_BYTES_MIN)?), 0_u64);
        for _ in 0..ids.capacity() {
            seq = seq.wrapping_add(r.varint()?);
            ids.push((seq, r.hash()?));
        }
        players.push((player, pushed_out, ids));
    }
    Ok(Recent::restore(forgotten, players))
}

fn named(r: &mut Reader<'_>, incarnations: &[Incarnation]) -> Result<Incarnation, DecodeError> {
    let index: usize = r.narrow()?;
    incarnations.get(index).copied().ok_or_else(|| r.damaged(format!("incarnation {index} is not listed")))
}

fn write_moment(w: &mut Writer, moment: Moment) {
    w.varint(moment.timeline.into()).varint(moment.ns);
}

fn read_moment(r: &mut Reader<'_>) -> Result<Moment, DecodeError> {
    Ok(Moment { timeline: r.narrow()?, ns: r.varint()? })
}
