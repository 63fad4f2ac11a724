/**
 * lasthit client for browsers and Node: one room, one player, verdicts in order without gap or repeat, whatever happens
 * to the connection. Moves to another gateway when the server asks it to, and plays on meanwhile. Goes to the host at which the
 * room is at home, wherever that is. No dependencies. Node 22 and browsers have WebSocket; elsewhere pass one (`{ WebSocket }`, as
 * from the package `ws`).
 *
 *     import { connect } from './lasthit.js';
 *     const room = connect('baron-pit', 'ann', { url: 'ws://127.0.0.1:7777' });
 *     room.on('verdict', (v) => console.log(v.seq, v.player, v.outcome));
 *     const verdict = await room.act('hit', { contest: 'baron', args: { damage: 300 } });
 *
 * The protocol is described in docs/protocol.md.
 */

/**
 * @typedef {object} Welcome
 * @property {'welcome'} t
 * @property {string} session
 * @property {string} player
 * @property {'player' | 'server'} role
 * @property {number} era
 * @property {number} seq
 * @property {boolean} resumed
 * @property {boolean} gone
 * @property {any} [state] what the rules said to the session's joining; absent when resumed
 * @property {{ source: 'kernel' | 'read', uncertainty_ns: string }} clock
 * @property {Record<string, number>} limits
 * @property {number} [home] the number of the room's home, in a deployment over several hosts
 */

/**
 * @typedef {object} Verdict
 * @property {'verdict'} t
 * @property {number} seq
 * @property {number} [from] covers from..seq, of which only seq is for this session
 * @property {'open' | 'data' | 'end' | 'error' | 'close' | 'unreadable' | 'timer' | 'rules'} event
 * @property {string} [session]
 * @property {string} [player]
 * @property {string} [id]
 * @property {string} [contest]
 * @property {number} [round]
 * @property {'granted' | 'denied' | 'void'} outcome
 * @property {string} [reason]
 * @property {string} arrival_ns decimal; BigInt(arrival_ns) is exact
 * @property {string} uncertainty_ns
 * @property {string} [behind_ns]
 * @property {true} [photo_finish]
 * @property {true} [clamped]
 * @property {true} [unproven]
 * @property {true} [read_time] stamped when it was read; `uncertainty_ns` says how much earlier it may have arrived
 * @property {number} [repeat_of]
 * @property {any} [body]
 * @property {string} [timer] of a timer that has fired: its name
 * @property {number} [due_ms] when it was due, in milliseconds since 1970
 * @property {string} [late_ns] how much later the server noticed it
 * @property {number} [missed] how many earlier moments did not fire
 * @property {string} [rules] of an event `rules`: the name of the program, of which another version decides from here on
 * @property {number} [version] that version; if the outcome is void, the one before goes on
 * @property {number} [from_version] the version before
 * @property {string} [program] names the text of the program, if it is a file
 */

/**
 * @typedef {object} Options
 * @property {string | string[]} [url] of the gateway, `ws://` or `wss://`; in a browser by default where the page came from. Of
 *   several, the first that answers is asked where the room is at home
 * @property {'player' | 'server'} [role]
 * @property {string | (() => string | Promise<string>)} [token] a function is asked again at every connection
 * @property {{ era: number, seq: number }} [since] continue from here (as kept from `room.since`)
 * @property {any} [WebSocket] the constructor to use instead of the global one
 * @property {number} [delayMs] first pause before reconnecting, 200 by default; doubles, with jitter
 * @property {number} [delayMaxMs] longest such pause, 5,000 by default
 * @property {number} [answerMs] reconnect when an action is unanswered for so long, 10,000 by default
 * @property {'follow' | 'ignore'} [moves] whether to move when the server asks, `follow` by default; with `ignore` the
 *   connection is closed instead, and opened again at once
 * @property {number} [homeMs] how long a room's home may take to answer before it is looked for anew, 2,000 by default
 * @property {number} [attempts] connections in a row without a welcome before giving up; no limit by default
 */

/** @typedef {'connecting' | 'open' | 'waiting' | 'closed'} Status */

/** The other side said goodbye: nothing is tried again. */
const NORMAL = 1000;
const SINCE_AHEAD = 4400;
const TOKEN_EXPIRED = 4401;
/** The room is at home elsewhere: the reason is the URL. */
const ELSEWHERE = 4421;
/** The gateway left, and this session had not moved: another takes it at once. */
const MOVED = 4504;
/** Refusals that a later attempt under the same id may not meet. */
const PASSING = new Set(['busy', 'rate_limited', 'shutting_down']);
/** How long a welcome may take. */
const WELCOME_MS = 15_000;
/** How often in a row it goes at once where it is sent, and how many answers in a row may be older than what it knows. */
const FOLLOW_MAX = 4;
/** A connection that lasted so long was a good one: the next pause is short again. */
const STEADY_MS = 5_000;
/** How long nothing is sent before a move that is late is done all the same. */
const HUSH_MS = 250;
/** Messages of the next session at most that are kept until the change. */
const KEPT_MAX = 1_024;
/** Unanswered actions at most. */
const PENDING_MAX = 256;
/** Times that one action is sent at most. */
const SENDS_MAX = 8;

/** Why an action has no verdict. `code` is the server's error code, or `closed`, `unanswered`, `too_many`. */
export class LasthitError extends Error {
  /** @param {string} code @param {string} message @param {string} [id] */
  constructor(code, message, id) {
    super(message);
    this.name = 'LasthitError';
    this.code = code;
    this.id = id;
  }
}

/**
 * Joins a room. Connects at once and reconnects until it is closed.
 * @param {string} room
 * @param {string | null} player null takes the name that the token says
 * @param {Options} [options]
 * @returns {Room}
 */
export function connect(room, player, options = {}) {
  return new Room(room, player, options);
}

/**
 * Events, by `on(name, handler)`:
 * - `welcome` (Welcome): connected, or moved; when not `resumed`, `state` is where to start from.
 * - `verdict` (Verdict): the next one; each once, in order.
 * - `gone` (Welcome): what was missed is no longer there: start afresh from its `state`. Comes before `welcome`.
 * - `status` (Status, { code, reason, delayMs }): the connection's state.
 * - `refused` (LasthitError): an action was refused for good.
 */
export class Room {
  /** @param {string} room @param {string | null} player @param {Options} options */
  constructor(room, player, options) {
    this.room = room;
    /** @type {string | null} */
    this.player = player;
    /** @type {Status} */
    this.status = 'connecting';
    /** @type {{ era: number, seq: number } | null} what was seen: enough to continue after a restart of the program */
    this.since = options.since ?? null;
    /** @type {Welcome | null} the last one */
    this.welcome = null;
    this._options = options;
    this._WebSocket = options.WebSocket ?? globalThis.WebSocket;
    if (!this._WebSocket) throw new LasthitError('no_websocket', 'no global WebSocket: pass one as options.WebSocket');
    /** @type {Map<string, { action: object, seen?: string, sends: number, on: any, resolve: Function, reject: Function, as?: string, timer: any }>} `on`: the connection that owes the answer */
    this._pending = new Map();
    /** @type {Map<string, Set<Function>>} */
    this._handlers = new Map();
    this._prefix = randomText();
    this._count = 0;
    this._failures = 0;
    this._lost = false;
    this._socket = null;
    this._timer = null;
    const page = globalThis.location;
    /** @type {string[]} what it was given, and which of them is next */
    this._urls = [options.url ?? (page ? `${page.protocol === 'https:' ? 'wss' : 'ws'}://${page.host}` : [])].flat();
    this._at = 0;
    /** @type {string | null} where the room is at home, as far as is known */
    this._home = null;
    /** The highest number of a home that was told: lower ones are old answers. */
    this._number = 0;
    this._older = 0;
    this._follows = 0;
    /** The address of the current connection, and whether it was known as the home. */
    this._base = null;
    this._atHome = false;
    /**
     * The move under way: the next connection, its welcome, and what it said since.
     * @type {{ url?: string, base: string | null, socket: any, openedAt: number, welcome: Welcome | null, kept: any[], failures: number, late: boolean, silent: boolean, timer: any, clock: any } | null}
     */
    this._move = null;
    this._open();
  }

  /**
   * @param {string} name @param {(...args: any[]) => void} handler
   * @returns {() => void} takes the handler off again
   */
  on(name, handler) {
    const handlers = this._handlers.get(name) ?? new Set();
    this._handlers.set(name, handlers.add(handler));
    return () => handlers.delete(handler);
  }

  /**
   * Sends an action; resolves with its verdict, granted or not. Sent again under the same id after a reconnection, so
   * that it acts once. Rejects with a {@link LasthitError} when it was refused, or the room was closed before.
   * @param {string} op
   * @param {{ contest?: string, args?: any, as?: string, id?: string }} [action]
   * @returns {Promise<Verdict>}
   */
  act(op, { contest, args, as, id = `${this._prefix}-${++this._count}` } = {}) {
    if (this.status === 'closed') return Promise.reject(new LasthitError('closed', 'the room is closed', id));
    if (this._pending.has(id)) return Promise.reject(new LasthitError('bad_action', `id ${id} is in use`, id));
    if (this._pending.size >= PENDING_MAX) {
      return Promise.reject(new LasthitError('too_many', `${PENDING_MAX} actions are unanswered`, id));
    }
    return new Promise((resolve, reject) => {
      this._pending.set(id, { action: { op, id, contest, as, args }, seen: undefined, sends: 0, on: null, resolve, reject, as, timer: null });
      if (this.status === 'open') this._send(id);
    });
  }

  /** Leaves the room. Unanswered actions are rejected: whether they act is unknown. */
  close() {
    this._end('closed', 'the room was closed');
  }

  async _open() {
    this._setStatus('connecting');
    let token;
    try {
      token = await this._token();
    } catch (error) {
      return this._retry(0, `token: ${error}`);
    }
    if (!this._home && this._urls.length > 1 && this.status !== 'closed') await this._ask();
    if (this.status === 'closed') return;
    this._atHome = this._home !== null;
    this._base = this._home ?? this._urls[this._at];
    try {
      this._socket = this._connect(token, this._base);
    } catch (error) {
      if (!this._atHome) return this._end('bad_url', String(error));
      return this._closed(0, `the room's home has no good address: ${error}`);
    }
    this._openedAt = Date.now();
    this._timer = this._deadline(this._socket, this._atHome ? this._homeMs() : WELCOME_MS);
  }

  _homeMs() {
    return this._options.homeMs ?? 2_000;
  }

  /** Asks one address after the other where the room is at home. If none knows, the next connection may be told. */
  async _ask() {
    for (let n = 0; n < this._urls.length && this.status !== 'closed'; n += 1) {
      const at = (this._at + n) % this._urls.length;
      const answer = await this._route(this._urls[at]);
      if (answer && this._learn(answer)) {
        this._at = at;
        return;
      }
    }
  }

  /** What one address says; null if it does not know, or does not answer. */
  async _route(base) {
    try {
      const url = new URL(`/v1/route/${encodeURIComponent(this.room)}`, base);
      url.protocol = url.protocol === 'wss:' ? 'https:' : 'http:';
      const answer = await fetch(url, { signal: AbortSignal.timeout(this._homeMs()) });
      if (!answer.ok) return null;
      const { url: home, home: number } = await answer.json();
      return asHome(home, number);
    } catch {
      return null;
    }
  }

  /** Takes up where the room is at home, unless a later home is known. @param {{ url: string, number?: number }} home */
  _learn({ url, number }) {
    if (number < this._number) {
      this._older += 1;
      // A room that was rolled back may have a lower one.
      if (this._older >= FOLLOW_MAX) this._number = 0;
      return false;
    }
    this._older = 0;
    [this._home, this._number] = [url, number ?? this._number];
    return true;
  }

  /** It is sent elsewhere: whether to go there at once. */
  _sent(reason) {
    this._home = null;
    const [, url, number] = /^([^#]*)#?(\d*)$/.exec(reason ?? '') ?? [];
    const home = asHome(url, number ? Number(number) : undefined);
    if (!home || !this._learn(home)) return false;
    this._follows += 1;
    if (this._follows <= FOLLOW_MAX) return true;
    [this._home, this._follows] = [null, 0];
    return false;
  }

  async _token() {
    return typeof this._options.token === 'function' ? this._options.token() : this._options.token;
  }

  /** Opens a connection, which is the current one or that of a move. */
  _connect(token, base) {
    const socket = new this._WebSocket(this._url(token, base), ['lasthit.v1.json']);
    socket.onmessage = ({ data }) => {
      if (socket === this._socket) this._receive(data);
      else if (socket === this._move?.socket) this._keep(data);
    };
    socket.onerror = () => {};
    socket.onclose = ({ code, reason }) => {
      if (socket === this._socket) this._closed(code, reason);
      else if (socket === this._move?.socket) this._nextFailed(code, reason);
    };
    return socket;
  }

  /** A connection must be welcomed in time. */
  _deadline(socket, ms = WELCOME_MS) {
    return setTimeout(() => {
      if (socket === this._socket) this._drop(0, 'no welcome in time');
      else if (socket === this._move?.socket) this._nextFailed(0);
    }, ms);
  }

  _url(token, base) {
    if (!base) throw new LasthitError('bad_url', 'options.url is missing, as in ws://127.0.0.1:7777');
    const url = new URL(`/v1/room/${encodeURIComponent(this.room)}`, base);
    if (this.player) url.searchParams.set('player', this.player);
    if (this._options.role) url.searchParams.set('role', this._options.role);
    if (token) url.searchParams.set('token', token);
    if (this.since) url.searchParams.set('since', `${this.since.era}.${this.since.seq}`);
    return url.href;
  }

  _receive(data) {
    let frame;
    try {
      frame = JSON.parse(data);
    } catch {
      return this._drop(0, 'a message is not JSON');
    }
    this._heard(frame);
  }

  _heard(frame) {
    if (frame.t === 'welcome') this._welcomed(frame);
    else if (frame.t === 'verdict') this._decided(frame);
    else if (frame.t === 'error') this._refused(frame);
    else if (frame.t === 'move') this._asked(frame);
  }

  /** @param {Welcome} welcome @param {any[]} [kept] what the connection said since, if it was not the current one */
  _welcomed(welcome, kept = []) {
    const socket = this._socket;
    clearTimeout(this._timer);
    const lost = this._lost || (this.since !== null && !welcome.resumed);
    this._lost = false;
    this.welcome = welcome;
    if (typeof welcome.home === 'number') {
      // Whoever lets it in is its home, whatever was said before. One that has a single address has nobody else to ask.
      [this._number, this._older] = [welcome.home, 0];
      this._home = this._urls.length > 1 || this._base !== this._urls[0] ? this._base : null;
    }
    this.player = welcome.player;
    // One that was opened for a move continues where the connection before it stood then: more has been seen since.
    if (!welcome.resumed || !(this.since && this.since.seq > welcome.seq)) this.since = { era: welcome.era, seq: welcome.seq };
    if (this.status !== 'open') this._setStatus('open');
    if (lost) this._emit('gone', welcome);
    this._emit('welcome', welcome);
    for (const frame of kept) {
      if (socket === this._socket) this._heard(frame);
    }
    if (socket === this._socket) this._sendRest();
  }

  /** The server asks this connection to move. It stays the one that counts until {@link _change}. */
  _asked({ within_ms, url }) {
    if (this.status !== 'open' || this._move || this._options.moves === 'ignore') return;
    const clock = setTimeout(() => this._hurry(), Math.max(0, Number(within_ms) || 0));
    this._move = { url, base: null, socket: null, openedAt: 0, welcome: null, kept: [], failures: 0, late: false, silent: false, timer: null, clock };
    this._openNext(this._move);
  }

  async _openNext(move) {
    try {
      const token = await this._token();
      if (this._move !== move) return;
      move.base = move.url ?? this._home ?? this._urls[this._at];
      move.socket = this._connect(token, move.base);
    } catch {
      if (this._move === move) this._stay();
      return;
    }
    move.openedAt = Date.now();
    move.timer = this._deadline(move.socket);
  }

  /** What the next connection says counts from the change on. */
  _keep(data) {
    const move = this._move;
    let frame;
    try {
      frame = JSON.parse(data);
    } catch {
      return this._nextFailed(0);
    }
    if (frame.t === 'welcome') {
      clearTimeout(move.timer);
      move.welcome = frame;
      if (!frame.resumed) return this._change();
      if (move.late) this._hurry();
      return this._changeWhenQuiet();
    }
    if (frame.t === 'verdict' && frame.seq <= this.since.seq) return;
    move.kept.push(frame);
    if (move.kept.length <= KEPT_MAX) return;
    move.kept = move.kept.filter(({ t, seq }) => t !== 'verdict' || seq > this.since.seq);
    if (move.kept.length > KEPT_MAX) {
      // The current connection is far behind: it hardly catches up.
      if (move.silent) this._change();
      else this._hurry();
    }
  }

  /** Changes over if nothing is unanswered on the current connection: then no action overtakes another. */
  _changeWhenQuiet() {
    if (!this._move?.welcome) return;
    for (const { on } of this._pending.values()) if (on === this._socket) return;
    this._change();
  }

  /** The time of the move is over: whoever sends on and on pauses for it. */
  _hurry() {
    const move = this._move;
    move.late = true;
    if (!move.welcome) {
      if (!move.socket) this._stay();
      return;
    }
    if (move.silent) return;
    move.silent = true;
    clearTimeout(move.clock);
    move.clock = setTimeout(() => this._change(), HUSH_MS);
  }

  /** From now on the next connection is the current one. */
  _change() {
    const [move, old] = [this._takeMove(), this._socket];
    clearTimeout(this._timer);
    [this._socket, this._openedAt, this._base, this._atHome] = [move.socket, move.openedAt, move.base, false];
    quit(old);
    this._welcomed(move.welcome, move.kept);
  }

  /** The next connection has ended: another, or none if it is too late for that. */
  _nextFailed(code, reason) {
    const move = this._move;
    const follows = code === ELSEWHERE && this._sent(reason);
    if (code === ELSEWHERE) move.url = undefined;
    if (move.late) return this._stay();
    quit(move.socket);
    clearTimeout(move.timer);
    [move.socket, move.welcome, move.kept] = [null, null, []];
    move.timer = setTimeout(() => this._openNext(move), code === MOVED || follows ? 0 : this._pause(move.failures++));
  }

  /** Leaves the move: the current connection goes on. */
  _stay() {
    quit(this._takeMove()?.socket);
    this._sendRest();
  }

  _takeMove() {
    const move = this._move;
    this._move = null;
    clearTimeout(move?.timer);
    clearTimeout(move?.clock);
    return move;
  }

  /** @param {Verdict} verdict */
  _decided(verdict) {
    const { since } = this;
    if (!since || verdict.seq <= since.seq) return;
    if ((verdict.from ?? verdict.seq) > since.seq + 1) {
      return this._drop(0, `verdicts ${since.seq + 1} to ${(verdict.from ?? verdict.seq) - 1} are missing`);
    }
    this.since = { era: since.era, seq: verdict.seq };
    this._emit('verdict', verdict);
    if (verdict.event !== 'data' || verdict.id === undefined) return;
    const pending = this._pending.get(verdict.id);
    if (pending && (verdict.player === (pending.as ?? this.player) || verdict.session === this.welcome?.session)) {
      this._settle(verdict.id)?.resolve(verdict);
      this._changeWhenQuiet();
    }
  }

  _refused({ code, id, message }) {
    const pending = id === undefined ? undefined : this._pending.get(id);
    // The close that follows decides: a new token, and the action is sent again, or the end.
    if (code === 'expired') return;
    if (pending) pending.on = null;
    if (pending && PASSING.has(code) && pending.sends < SENDS_MAX) {
      clearTimeout(pending.timer);
      pending.timer = setTimeout(() => this._send(id), this._pause(pending.sends));
      return this._changeWhenQuiet();
    }
    const error = new LasthitError(code, message, id);
    this._emit('refused', error);
    if (pending) this._settle(id)?.reject(error);
    this._changeWhenQuiet();
  }

  /** Sends what the current connection was not sent yet. */
  _sendRest() {
    for (const [id, { on }] of [...this._pending]) if (on !== this._socket) this._send(id);
  }

  _send(id) {
    const pending = this._pending.get(id);
    if (!pending || this.status !== 'open' || this._move?.silent) return;
    clearTimeout(pending.timer);
    if (pending.sends >= SENDS_MAX) {
      return this._settle(id)?.reject(new LasthitError('unanswered', `no answer after ${SENDS_MAX} attempts`, id));
    }
    pending.sends += 1;
    pending.timer = setTimeout(() => this._drop(0, `action ${id} is unanswered`), this._options.answerMs ?? 10_000);
    // A gateway that knows `seen` says so: others refuse what they do not know.
    const again = pending.sends > 1 && this.welcome?.limits?.room_ids !== undefined;
    pending.seen ??= `${this.since?.era}.${this.since?.seq}`;
    pending.on = this._socket;
    this._socket.send(JSON.stringify(again ? { ...pending.action, seen: pending.seen } : pending.action));
  }

  /** Takes an action off the list of the unanswered. */
  _settle(id) {
    const pending = this._pending.get(id);
    this._pending.delete(id);
    clearTimeout(pending?.timer);
    return pending;
  }

  /** Gives the connection up and tries another. */
  _drop(code, reason) {
    const socket = this._socket;
    this._socket = null;
    quit(socket);
    this._closed(code, reason);
  }

  _closed(code, reason) {
    clearTimeout(this._timer);
    for (const pending of this._pending.values()) clearTimeout(pending.timer);
    const welcomed = this.status === 'open';
    const steady = welcomed && Date.now() - this._openedAt > STEADY_MS;
    if (steady) this._follows = 0;
    const follows = code === ELSEWHERE && this._sent(reason);
    if (steady) this._failures = 0;
    else if (!follows) this._failures += 1;
    if (this.status === 'closed') return;
    if (!welcomed && !follows) {
      if (!this._atHome) this._at = (this._at + 1) % Math.max(1, this._urls.length);
      this._home = null;
    }
    if (code === NORMAL) return this._end('closed', `the server closed the session: ${reason || code}`, code);
    if (code === SINCE_AHEAD) {
      // The room has less than was seen here: nothing to continue from.
      this.since = null;
      this._lost = true;
    }
    if (code === TOKEN_EXPIRED && typeof this._options.token !== 'function') return this._end('expired', 'the token has expired', code);
    if (this._move?.socket) return this._goOnWithNext();
    this._takeMove();
    // The next gateway waits already.
    if ((code === MOVED && welcomed) || follows) return void this._open();
    this._retry(code, reason);
  }

  /** The connection has ended during its move: the next one takes its place. */
  _goOnWithNext() {
    if (this._move.welcome) return this._change();
    const timer = this._move.timer;
    [this._socket, this._openedAt, this._timer] = [this._move.socket, this._move.openedAt, timer];
    [this._base, this._atHome] = [this._move.base, false];
    this._move.timer = null;
    this._takeMove();
    this._setStatus('connecting');
  }

  _retry(code, reason) {
    if (this._failures > (this._options.attempts ?? Infinity)) return this._end('unreachable', reason || `closed with ${code}`, code);
    const delayMs = this._pause(Math.max(0, this._failures - 1));
    this._setStatus('waiting', { code, reason, delayMs });
    this._timer = setTimeout(() => this._open(), delayMs);
  }

  /** A pause that doubles with every failure, jittered so that a gateway's clients do not all come back at once. */
  _pause(failures) {
    const longest = Math.min(this._options.delayMaxMs ?? 5_000, (this._options.delayMs ?? 200) * 2 ** Math.min(failures, 16));
    return longest * (0.5 + Math.random() / 2);
  }

  _end(code, message, closeCode) {
    if (this.status === 'closed') return;
    clearTimeout(this._timer);
    const socket = this._socket;
    this._socket = null;
    quit(socket);
    quit(this._takeMove()?.socket);
    for (const id of [...this._pending.keys()]) this._settle(id)?.reject(new LasthitError(code, message, id));
    this._setStatus('closed', { code: closeCode, reason: message });
  }

  _setStatus(status, detail = {}) {
    this.status = status;
    this._emit('status', status, detail);
  }

  _emit(name, ...args) {
    for (const handler of this._handlers.get(name) ?? []) {
      try {
        handler(...args);
      } catch (error) {
        // A handler's fault is its own: the room goes on, and the host reports it as uncaught.
        setTimeout(() => { throw error; });
      }
    }
  }
}

/** What was told about a home, if it is one. @returns {{ url: string, number?: number } | null} */
function asHome(url, number) {
  return typeof url === 'string' && /^wss?:\/\//.test(url) ? { url, number: typeof number === 'number' ? number : undefined } : null;
}

function quit(socket) {
  try {
    socket?.close(1000);
  } catch {
    // It never opened, or was closed before.
  }
}

function randomText() {
  const bytes = globalThis.crypto.getRandomValues(new Uint8Array(8));
  return Array.from(bytes, (byte) => (byte % 36).toString(36)).join('');
}
