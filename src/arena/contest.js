/** What the page knows of one target: a plain state machine over verdicts, without a document. */

/** Marks that are kept of one round. */
const MARKS_MAX = 240;

/**
 * @typedef {{ player: string, at: bigint, uncertainty: number, kind: 'hit' | 'win' | 'late', damage: number,
 *   behind: number | null, photo: boolean, clamped: boolean, unproven: boolean, readTime: boolean }} Mark
 * @typedef {{ round: number, marks: Mark[], winner: Mark | null, losers: Mark[] }} Round
 */

export class Contest {
  /** @param {string} target */
  constructor(target) {
    this.target = target;
    /** @type {Map<string, { damage: number, wins: number, sessions: Set<string> }>} */
    this.players = new Map();
    this.reset(undefined);
  }

  /** Starts from what `welcome` said. */
  reset(state) {
    const known = state?.targets?.[this.target];
    this.present = known !== undefined;
    this.hp = known?.hp ?? 0;
    this.max = known?.max_hp ?? 0;
    this.slayer = known?.winner ?? null;
    this.round = emptyRound(known?.round ?? 0);
    /** @type {Round | null} the last one that was won while this page looked on */
    this.decided = null;
    for (const player of this.players.values()) player.sessions.clear();
  }

  player(name) {
    let player = this.players.get(name);
    if (!player) this.players.set(name, (player = { damage: 0, wins: 0, sessions: new Set() }));
    return player;
  }

  /**
   * Applies a verdict; tells what happened, if it matters to this target.
   * @returns {null | { what: 'join' | 'leave' | 'spawn' | 'despawn' | 'hit' | 'win' | 'late' | 'again', mark?: Mark }}
   */
  apply(v) {
    if (v.event === 'open' && v.player) {
      this.player(v.player).sessions.add(v.session);
      return { what: 'join' };
    }
    if (v.event === 'close' && v.player) {
      this.player(v.player).sessions.delete(v.session);
      return { what: 'leave' };
    }
    if ((v.event !== 'data' && v.event !== 'timer') || v.contest !== this.target || !v.body || v.repeat_of !== undefined) return null;
    if (v.body.damage === undefined) return v.outcome === 'granted' ? this.#placed(v) : null;
    const late = v.outcome === 'denied' && v.reason === 'late';
    if (v.outcome !== 'granted' && !late) return null;
    const mark = markOf(v, late ? 'late' : v.body.hp === 0 ? 'win' : 'hit');
    this.player(mark.player).sessions.add(v.session);
    if (late) return this.#late(v, mark);
    if (v.round !== this.round.round) this.round = emptyRound(v.round);
    this.round.marks.push(mark);
    if (this.round.marks.length > MARKS_MAX) this.round.marks.shift();
    this.present = true;
    this.hp = v.body.hp;
    this.max = v.body.max_hp;
    const player = this.player(mark.player);
    player.damage += mark.damage;
    if (mark.kind === 'win') {
      player.wins += 1;
      this.slayer = mark.player;
      this.round.winner = mark;
      this.decided = this.round;
    }
    return { what: mark.kind, mark };
  }

  #late(v, mark) {
    const round = this.decided?.round === v.round ? this.decided : null;
    if (round && round.marks.length < MARKS_MAX) round.marks.push(mark);
    const counted = mark.player === this.slayer || round?.losers.some((loser) => loser.player === mark.player);
    if (round && !counted) round.losers.push(mark);
    // Whoever hits a fallen target once more has lost no second time.
    return counted ? { what: 'again', mark } : { what: 'late', mark };
  }

  /** A spawn or a despawn: the verdict does not repeat the op, but only what is not alive can be spawned. */
  #placed(v) {
    if (this.present && (this.hp > 0 || v.round === this.round.round)) {
      this.present = false;
      this.hp = 0;
      return { what: 'despawn' };
    }
    this.present = true;
    this.hp = v.body.hp;
    this.max = v.body.max_hp;
    this.slayer = null;
    this.round = emptyRound(v.round);
    return { what: 'spawn' };
  }
}

/** @returns {Round} */
function emptyRound(round) {
  return { round, marks: [], winner: null, losers: [] };
}

/** @returns {Mark} */
function markOf(v, kind) {
  return {
    player: v.player,
    at: BigInt(v.arrival_ns),
    uncertainty: Number(v.uncertainty_ns),
    kind,
    damage: v.body.damage,
    behind: v.behind_ns === undefined ? null : Number(v.behind_ns),
    photo: v.photo_finish === true,
    clamped: v.clamped === true,
    unproven: v.unproven === true,
    readTime: v.read_time === true,
  };
}
