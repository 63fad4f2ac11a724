//! A room's state, and the one place where events become verdicts.

use std::collections::{BTreeMap, BTreeSet};

use super::contests::Contests;
use super::decided::Decided;
use super::recent::{self, Memory, Recent};
use super::resequence::{Held, Unproven};
use super::timers::Timers;
use crate::limits::{AUDIENCE_PLAYERS_MAX, BODY_BYTES_MAX, ROOM_SESSIONS_MAX};
use crate::rules::{Act, Decision, Facts, Failure, Happening, Inside, Rules, Ruling, What};
use crate::types::{
    Arrival, Audience, Epoch, EventKind, Failed, Flags, Incarnation, Moment, Outcome, PlayerId, ROOM_FULL, Role, RoomTime,
    SessionId, Stamp, Verdict, VerdictKind,
};
use crate::wire::action;

/// A session inside a room.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// The player's name.
    pub player: PlayerId,
    /// What the session may do.
    pub role: Role,
}

/// What is known of a verdict before its event is resolved.
#[derive(Debug, Clone, Copy)]
pub enum Known<'a> {
    /// The record says that it is void, for this reason.
    Void(&'a str),
    /// The rules failed on the event, and this is what they did.
    Failed(&'a str),
    /// The version before this one has recorded this verdict. Its ids and contests are taken from the record, because that version
    /// remembered others.
    Earlier(&'a Verdict),
    /// A program outside decided this, and is not asked again.
    Decided(&'a Decision),
}

/// Why an event is void on which the rules failed.
pub(crate) const RULES_FAILED: &str = "rules_failed";

impl<'a> Known<'a> {
    /// Why the event is void, if it is known to be.
    pub(super) fn void(self) -> Option<&'a str> {
        match self {
            Self::Void(reason) => Some(reason),
            Self::Failed(_) => Some(RULES_FAILED),
            Self::Earlier(Verdict { outcome: Outcome::Void(reason), .. }) if reason == RULES_FAILED => Some(reason),
            Self::Earlier(_) | Self::Decided(_) => None,
        }
    }
}

/// Why an action is void if it was sent again so late that the room may have forgotten its id.
const FORGOTTEN: &str = "forgotten";

/// Why the version before this one denied an action for a new contest, in a room that had too many of them.
const TOO_MANY_CONTESTS: &str = "too_many_contests";

/// The state that decides a room's verdicts. The same events in the same order give the same verdicts.
pub struct Room {
    pub(super) era: u64,
    pub(super) seq: u64,
    pub(super) sessions: BTreeMap<SessionId, Member>,
    /// The last stamp resolved from each gateway.
    pub(super) marks: BTreeMap<Incarnation, (u64, Moment)>,
    /// The resequencer's, for the snapshot.
    pub(super) unproven: Vec<Unproven>,
    pub(super) recent: Recent,
    pub(super) contests: Contests,
    /// Given when the room was created. Random numbers are drawn from it.
    pub(super) seed: u128,
    /// The timeline that the room counts its time on, and its epoch there.
    pub(super) epoch: Option<(u32, Epoch)>,
    /// The room's time at the last verdict. It never goes back.
    pub(super) now: RoomTime,
    /// The highest stamp that was resolved, or at which a timer fired.
    pub(super) last: Moment,
    /// Whether that was a fire.
    pub(super) last_is_fire: bool,
    pub(super) timers: Timers,
    /// How many timers have fired.
    pub(super) fires: u64,
    /// How many of them since the last event, without those of timers that repeat.
    pub(super) alone: u32,
    pub(super) rules: Box<dyn Rules>,
    /// What the rules did wrong in the event that is being resolved.
    pub(super) failing: Option<Failure>,
    /// What they failed on since the last look, by `seq`.
    pub(super) failures: Vec<Failed>,
    /// The number of the last push of a program that reached the room.
    pub(super) push: u64,
    /// Whether what is resolved is recorded already.
    pub(super) follows: bool,
    /// Whether a program outside has made its state of another version's, which is to be recorded.
    pub(super) migrated: bool,
    /// What a program outside decided since the last look.
    pub(super) decided: Vec<Decided>,
}

impl std::fmt::Debug for Room {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Room")
            .field("era", &self.era)
            .field("seq", &self.seq)
            .field("rules", &self.rules.name())
            .finish_non_exhaustive()
    }
}

impl Room {
    /// An empty room at `seq` 0.
    #[must_use]
    pub fn new(era: u64, rules: Box<dyn Rules>) -> Self {
        Self::with_seed(era, 0, rules)
    }

    /// An empty room at `seq` 0, with the seed that it was created with.
    pub(crate) fn with_seed(era: u64, seed: u128, rules: Box<dyn Rules>) -> Self {
        Self {
            era,
            seq: 0,
            sessions: BTreeMap::new(),
            marks: BTreeMap::new(),
            unproven: Vec::new(),
            recent: Recent::default(),
            contests: Contests::default(),
            seed,
            epoch: None,
            now: RoomTime::UNKNOWN,
            last: Moment::default(),
            last_is_fire: false,
            timers: Timers::default(),
            fires: 0,
            alone: 0,
            rules,
            failing: None,
            push: 0,
            follows: false,
            migrated: false,
            failures: Vec::new(),
            decided: Vec::new(),
        }
    }

    /// The room's era.
    #[must_use]
    pub fn era(&self) -> u64 {
        self.era
    }

    /// Goes on in another era, with the same state.
    pub(crate) fn begin_era(&mut self, era: u64) {
        self.era = era;
    }

    /// The `seq` of the last verdict.
    #[must_use]
    pub fn seq(&self) -> u64 {
        self.seq
    }

    /// Whether its rules decide within microseconds.
    #[must_use]
    pub fn is_quick(&self) -> bool {
        self.rules.is_quick()
    }

    /// The name of its rules.
    pub(crate) fn rules_name(&self) -> &str {
        self.rules.name()
    }

    /// The program's name, if one inside the worker decides.
    pub(crate) fn program_name(&self) -> Option<&str> {
        self.rules.is_program().then(|| self.rules.name())
    }

    /// Bytes of the rules' state.
    pub(crate) fn state_bytes(&self) -> usize {
        self.rules.snapshot().len()
    }

    /// Whether `stamp` won the current round of a contest.
    #[must_use]
    pub(crate) fn is_winner(&self, contest: &str, stamp: Stamp) -> bool {
        self.contests.winner(contest).is_some_and(|winner| winner.stamp == stamp)
    }

    /// The sessions inside.
    pub fn sessions(&self) -> impl Iterator<Item = (SessionId, &Member)> {
        self.sessions.iter().map(|(session, member)| (*session, member))
    }

    /// The ordinal and the moment of the last event resolved from each gateway.
    pub fn marks(&self) -> impl Iterator<Item = (Incarnation, u64, Moment)> + '_ {
        self.marks.iter().map(|(incarnation, (ordinal, moment))| (*incarnation, *ordinal, *moment))
    }

    /// The stretches of dead gateways, as of the snapshot.
    #[must_use]
    pub fn unproven(&self) -> &[Unproven] {
        &self.unproven
    }

    /// Notes the stretches of dead gateways for the next snapshot.
    pub fn note_unproven(&mut self, unproven: &[Unproven]) {
        self.unproven = unproven.to_vec();
    }

    /// Resolves one event. `known` is None for an event that was not resolved before.
    ///
    /// # Panics
    /// When the rules panic. The room is then in no defined state and must be loaded again.
    pub fn resolve(&mut self, held: &Held, known: Option<Known<'_>>) -> Verdict {
        self.seq = self.seq.saturating_add(1);
        self.marks.insert(held.stamp.incarnation, (held.stamp.ordinal, held.stamp.moment));
        if held.stamp.moment >= self.last {
            (self.last, self.last_is_fire) = (held.stamp.moment, false);
        }
        self.now = self.time_at(held.stamp.moment);
        self.alone = 0;
        let mut verdict = self.blank(held);
        let Some(kind) = &held.kind else {
            verdict.outcome = Outcome::Void(held.unreadable.clone().unwrap_or_default());
            return verdict;
        };
        if let EventKind::Open { player, role } = kind {
            // The version before this one had no such bound.
            if self.sessions.len() >= ROOM_SESSIONS_MAX && !matches!(known, Some(Known::Earlier(_))) {
                verdict.player = Some(player.clone());
                (verdict.outcome, verdict.audience) = (Outcome::Void(ROOM_FULL.to_owned()), Audience::Session);
                return verdict;
            }
            self.sessions.insert(held.session, Member { player: player.clone(), role: *role });
        }
        let Some(member) = self.sessions.get(&held.session).cloned() else {
            verdict.outcome = Outcome::Void("no_session".to_owned());
            return verdict;
        };
        verdict.player = Some(member.player.clone());
        if let EventKind::Data(bytes) = kind {
            self.resolve_action(held, bytes, &member, known, &mut verdict);
        } else {
            let what = match kind {
                EventKind::Open { .. } => What::Open,
                EventKind::End { code } => What::End { code: *code },
                EventKind::Error { reason } => What::Error { reason },
                _ => What::Close,
            };
            if let Some(void) = self.void_if_known(known) {
                verdict.outcome = void;
            } else {
                let decision = self.decide(held.session, &member.player, member.role, what, known);
                self.apply(decision, held.stamp, &held.arrival, &mut verdict);
            }
        }
        if matches!(kind, EventKind::Close) {
            self.sessions.remove(&held.session);
        }
        self.keep_failed(&verdict, if let EventKind::Data(action) = kind { Some(action) } else { None }, None);
        verdict
    }

    fn resolve_action(&mut self, held: &Held, bytes: &[u8], member: &Member, known: Option<Known<'_>>, verdict: &mut Verdict) {
        verdict.audience = Audience::Session;
        let action = match action::decode(bytes) {
            Ok(action) => action,
            Err(error) => {
                verdict.outcome = Outcome::Void(format!("unreadable: {error}"));
                return;
            }
        };
        let player = action.player.as_ref().filter(|_| member.role == Role::Server).unwrap_or(&member.player);
        verdict.player = Some(player.clone());
        // A `seq` of another era says nothing about this one's verdicts.
        let seen = action.seen.map(|seen| if seen.era == self.era { seen.seq } else { 0 });
        let mut memory = self.recent.recall(player, recent::hash(&action.id), seen, self.seq);
        if let Some(Known::Earlier(recorded)) = known {
            memory = if let Outcome::Repeat { of } = recorded.outcome { Memory::Repeat(of) } else { Memory::New };
        }
        verdict.id = Some(action.id);
        match memory {
            Memory::New => {}
            Memory::Repeat(of) => {
                verdict.outcome = Outcome::Repeat { of };
                return;
            }
            Memory::Forgotten => {
                verdict.outcome = Outcome::Void(FORGOTTEN.to_owned());
                return;
            }
        }
        if let Some(void) = self.void_if_known(known) {
            verdict.outcome = void;
            return;
        }
        // That version denied it without asking the rules. A denial by the rules has a round, or no contest.
        if let Some(Known::Earlier(Verdict { outcome: Outcome::Denied(reason), contest: Some(contest), round: 0, .. })) = known
            && reason == TOO_MANY_CONTESTS
        {
            verdict.contest = Some(contest.clone());
            verdict.outcome = Outcome::Denied(reason.clone());
            return;
        }
        let act = Act::new(&action.op, action.contest.as_deref(), &action.args);
        let decision = self.decide(held.session, player, member.role, What::Data(act), known);
        self.apply(decision, held.stamp, &held.arrival, verdict);
    }

    /// What a decision may use.
    pub(super) fn facts(&self) -> Facts {
        Facts::new(self.now, self.seq, self.seed)
    }

    fn decide(
        &mut self,
        session: SessionId,
        player: &PlayerId,
        role: Role,
        what: What<'_>,
        known: Option<Known<'_>>,
    ) -> Decision {
        if let Some(Known::Decided(decision)) = known {
            return decision.clone();
        }
        let facts = self.facts();
        let inside = |player: &PlayerId| self.sessions.values().filter(|member| member.player == *player).count();
        self.rules.resolve(&Happening { session, player, role, what, facts, inside: Inside(&inside) })
    }

    /// Makes a verdict of a decision. If the verdict is void, the rules are told.
    pub(super) fn apply(&mut self, decision: Decision, stamp: Stamp, arrival: &Arrival, verdict: &mut Verdict) {
        self.judge(decision, stamp, arrival, verdict);
        if matches!(verdict.outcome, Outcome::Void(_)) {
            self.rules.undo();
        }
    }

    fn judge(&mut self, decision: Decision, stamp: Stamp, arrival: &Arrival, verdict: &mut Verdict) {
        if self.rules.as_process().is_some() {
            self.decided.extend(Decided::of(self.seq, &decision));
        }
        if let Ruling::Failed(failure) = decision.ruling {
            self.failing = Some(*failure);
            verdict.outcome = Outcome::Void(RULES_FAILED.to_owned());
            return;
        }
        if let Some(body) = decision.body.as_ref().filter(|body| body.len() > BODY_BYTES_MAX) {
            verdict.outcome =
                self.broken("body_too_large", format!("the body has {} bytes, at most {BODY_BYTES_MAX}", body.len()));
            return;
        }
        if let Audience::Players(players) = &decision.audience
            && players.len() > AUDIENCE_PLAYERS_MAX
        {
            let error = format!("the verdict is to {} players, at most {AUDIENCE_PLAYERS_MAX}", players.len());
            verdict.outcome = self.broken("audience_too_large", error);
            return;
        }
        let timers = match self.timers.check(decision.timers, self.now) {
            Ok(changes) => changes,
            Err(fault) => {
                verdict.outcome = self.broken(fault.reason(), fault.to_string());
                return;
            }
        };
        verdict.audience = decision.audience;
        verdict.body = decision.body;
        if let Some(contest) = &decision.contest {
            if decision.next_round {
                self.contests.next_round(contest, self.seq);
            }
            verdict.round = self.contests.round(contest);
        }
        let contest = decision.contest.as_deref();
        verdict.outcome = match (decision.ruling, contest) {
            (Ruling::Granted, _) => Outcome::Granted,
            (Ruling::Denied(reason), _) => Outcome::Denied(reason),
            (Ruling::Won, Some(contest)) if self.contests.win(contest, self.seq, stamp, arrival) => Outcome::Granted,
            (Ruling::Won, contest) => {
                let error = format!("the round of {:?} has a winner already", contest.unwrap_or_default());
                self.broken("second_winner", error)
            }
            (Ruling::Late, contest) => match contest.and_then(|c| self.contests.margin(c, stamp, arrival)) {
                Some(margin) => {
                    verdict.behind_ns = margin.behind_ns;
                    verdict.flags = verdict.flags.with(margin.flags);
                    Outcome::Denied("late".to_owned())
                }
                None => {
                    let error = format!("the round of {:?} has no winner to come after", contest.unwrap_or_default());
                    self.broken("no_winner", error)
                }
            },
            (Ruling::Failed(_), _) => Outcome::Void(RULES_FAILED.to_owned()),
        };
        verdict.contest = decision.contest;
        if !matches!(verdict.outcome, Outcome::Void(_)) {
            self.timers.apply(timers);
        }
    }

    fn blank(&self, held: &Held) -> Verdict {
        let kind = match &held.kind {
            None => VerdictKind::Unreadable,
            Some(EventKind::Open { .. }) => VerdictKind::Open,
            Some(EventKind::Data(_)) => VerdictKind::Data,
            Some(EventKind::End { .. }) => VerdictKind::End,
            Some(EventKind::Error { .. }) => VerdictKind::Error,
            Some(EventKind::Close) => VerdictKind::Close,
        };
        Verdict {
            session: held.session.number,
            uncertainty_ns: held.arrival.uncertainty_ns,
            flags: Flags(held.arrival.flags.0),
            raw_ns: held.arrival.raw_ns.filter(|raw_ns| *raw_ns != Moment::END_NS),
            ..Verdict::granted(self.seq, held.stamp, kind)
        }
    }

    /// The gateways with sessions that see every verdict.
    #[must_use]
    pub fn watching(&self) -> BTreeSet<Incarnation> {
        let servers = self.sessions.iter().filter(|(_, member)| member.role == Role::Server);
        servers.map(|(session, _)| session.gateway).collect()
    }
}
