/**
 * lasthit client for browsers and Node: one room, one player, verdicts in order without gap or repeat, whatever happens
 * to the connection. No dependencies. Node 22 and browsers have WebSocket; elsewhere pass one (`{ WebSocket }`, as from
 * the package `ws`).
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
 * @property {string} [url] of the gateway, `ws://` or `wss://`; in a browser by default where the page came from
 * @property {'player' | 'server'} [role]
 * @property {string | (() => string | Promise<string>)} [token] a function is asked again at every connection
 * @property {{ era: number, seq: number }} [since] continue from here (as kept from `room.since`)
 * @property {any} [WebSocket] the constructor to use instead of the global one
 * @property {number} [delayMs] first pause before reconnecting, 200 by default; doubles, with jitter
 * @property {number} [delayMaxMs] longest such pause, 5,000 by default
 * @property {number} [answerMs] reconnect when an action is unanswered for so long, 10,000 by default
 * @property {number} [attempts] connections in a row without a welcome before giving up; no limit by default
 */

/** @typedef {'connecting' | 'open' | 'waiting' | 'closed'} Status */

/** The other side said goodbye: nothing is tried again. */
const NORMAL = 1000;
const SINCE_AHEAD = 4400;
const TOKEN_EXPIRED = 4401;
/** Refusals that a later attempt under the same id may not meet. */
const PASSING = new Set(['busy', 'rate_limited', 'shutting_down']);
/** How long a welcome may take. */
const WELCOME_MS = 15_000;
/** A connection that lasted so long was a good one: the next pause is short again. */
const STEADY_MS = 5_000;
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
 * - `welcome` (Welcome): connected; when not `resumed`, `state` is where to start from.
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
    /** @type {Map<string, { action: object, seen?: string, sends: number, resolve: Function, reject: Function, as?: string, timer: any }>} */
    this._pending = new Map();
    /** @type {Map<string, Set<Function>>} */
    this._handlers = new Map();
    this._prefix = randomText();
    this._count = 0;
    this._failures = 0;
    this._lost = false;
    this._socket = null;
    this._timer = null;
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
      this._pending.set(id, { action: { op, id, contest, as, args }, seen: undefined, sends: 0, resolve, reject, as, timer: null });
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
      token = typeof this._options.token === 'function' ? await this._options.token() : this._options.token;
    } catch (error) {
      return this._retry(0, `token: ${error}`);
    }
    if (this.status === 'closed') return;
    let socket;
    try {
      socket = new this._WebSocket(this._url(token), ['lasthit.v1.json']);
    } catch (error) {
      return this._end('bad_url', String(error));
    }
    this._socket = socket;
    this._openedAt = Date.now();
    this._timer = setTimeout(() => this._drop(0, 'no welcome in time'), WELCOME_MS);
    socket.onmessage = (message) => {
      if (socket === this._socket) this._receive(message.data);
    };
    socket.onerror = () => {};
    socket.onclose = (event) => {
      if (socket === this._socket) this._closed(event.code, event.reason);
    };
  }

  _url(token) {
    const page = globalThis.location;
    const base = this._options.url ?? (page && `${page.protocol === 'https:' ? 'wss' : 'ws'}://${page.host}`);
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
    if (frame.t === 'welcome') this._welcomed(frame);
    else if (frame.t === 'verdict') this._decided(frame);
    else if (frame.t === 'error') this._refused(frame);
  }

  /** @param {Welcome} welcome */
  _welcomed(welcome) {
    clearTimeout(this._timer);
    const lost = this._lost || (this.since !== null && !welcome.resumed);
    this._lost = false;
    this.welcome = welcome;
    this.player = welcome.player;
    this.since = { era: welcome.era, seq: welcome.seq };
    this._setStatus('open');
    if (lost) this._emit('gone', welcome);
    this._emit('welcome', welcome);
    for (const id of [...this._pending.keys()]) this._send(id);
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
    }
  }

  _refused({ code, id, message }) {
    const pending = id === undefined ? undefined : this._pending.get(id);
    // The close that follows decides: a new token, and the action is sent again, or the end.
    if (code === 'expired') return;
    if (pending && PASSING.has(code) && pending.sends < SENDS_MAX) {
      clearTimeout(pending.timer);
      pending.timer = setTimeout(() => this._send(id), this._pause(pending.sends));
      return;
    }
    const error = new LasthitError(code, message, id);
    this._emit('refused', error);
    if (pending) this._settle(id)?.reject(error);
  }

  _send(id) {
    const pending = this._pending.get(id);
    if (!pending || this.status !== 'open') return;
    clearTimeout(pending.timer);
    if (pending.sends >= SENDS_MAX) {
      return this._settle(id)?.reject(new LasthitError('unanswered', `no answer after ${SENDS_MAX} attempts`, id));
    }
    pending.sends += 1;
    pending.timer = setTimeout(() => this._drop(0, `action ${id} is unanswered`), this._options.answerMs ?? 10_000);
    // A gateway that knows `seen` says so: others refuse what they do not know.
    const again = pending.sends > 1 && this.welcome?.limits?.room_ids !== undefined;
    pending.seen ??= `${this.since?.era}.${this.since?.seq}`;
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
    try {
      socket?.close(1000);
    } catch {
      // It was closed before.
    }
    this._closed(code, reason);
  }

  _closed(code, reason) {
    clearTimeout(this._timer);
    for (const pending of this._pending.values()) clearTimeout(pending.timer);
    const welcomed = this.status === 'open';
    this._failures = welcomed && Date.now() - this._openedAt > STEADY_MS ? 0 : this._failures + 1;
    if (this.status === 'closed') return;
    if (code === NORMAL) return this._end('closed', `the server closed the session: ${reason || code}`, code);
    if (code === SINCE_AHEAD) {
      // The room has less than was seen here: nothing to continue from.
      this.since = null;
      this._lost = true;
    }
    if (code === TOKEN_EXPIRED && typeof this._options.token !== 'function') return this._end('expired', 'the token has expired', code);
    this._retry(code, reason);
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
    try {
      socket?.close(1000);
    } catch {
      // It never opened.
    }
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

function randomText() {
  const bytes = globalThis.crypto.getRandomValues(new Uint8Array(8));
  return Array.from(bytes, (byte) => (byte % 36).toString(36)).join('');
}
