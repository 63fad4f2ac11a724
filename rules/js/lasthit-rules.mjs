// Rules for lasthit as a process of Node (18 or newer, nothing else needed). A program is the same as inside the worker: one object.
//
//     import { run } from './lasthit-rules.mjs';
//     run({
//       name: 'buzzer', version: 1,
//       state: () => ({ pressed: false }),
//       on: {
//         press(ctx) {
//           if (ctx.state.pressed) return ctx.late('buzzer');
//           ctx.state.pressed = true;
//           ctx.win('buzzer');
//         },
//       },
//     });
//
// `node lasthit-rules.mjs baron.mjs` runs a file whose default export is such an object. (Before Node 22.7 its name must end in .mjs.)
//
// A handler gets `ctx` and the action's arguments; what it returns is the verdict's body. It may change `ctx.state`, which is plain
// data, as JSON has it. It must not look at a clock, at random numbers or at anything else outside of `ctx`: the same events must always
// give the same decisions. If it throws, nothing is changed, and the verdict is void.

import net from 'node:net';
import { pathToFileURL } from 'node:url';

const PROTOCOL = 1;
// An answer that is longer ends early: lasthit asks for the rest again.
const ANSWER_BYTES = 4 << 20;
const FRAME_BYTES = 16 << 20;
const STACK_LINES = 10;
const SOCKET_EVENTS = { open: 'onOpen', close: 'onClose' };

// Plain data as its text. What JSON would leave out or change without a word is an error.
function text(value, path) {
  const check = (value, path) => {
    const type = typeof value;
    if (value === null || type === 'boolean') return;
    if (type === 'string') {
      if (value.isWellFormed?.() === false) throw new TypeError(`${path} has half of a surrogate pair`);
      return;
    }
    if (type === 'number') {
      if (!Number.isFinite(value)) throw new TypeError(`${path} is ${value}: use a finite number`);
      return;
    }
    if (type !== 'object') throw new TypeError(`${path} is no plain data: ${type}`);
    const proto = Object.getPrototypeOf(value);
    if (Array.isArray(value)) {
      for (let i = 0; i < value.length; i++) check(value[i], `${path}[${i}]`);
    } else if (proto === Object.prototype || proto === null) {
      for (const key of Object.keys(value)) if (value[key] !== undefined) check(value[key], `${path}.${key}`);
    } else {
      throw new TypeError(`${path} is no plain data: ${proto.constructor?.name}`);
    }
  };
  check(value, path);
  return JSON.stringify(value);
}

const wellFormed = (line) => line.toWellFormed?.() ?? line;

function* sfc32(a, b, c, d) {
  for (;;) {
    const t = (((a + b) | 0) + d) | 0;
    d = (d + 1) | 0;
    a = b ^ (b >>> 9);
    b = (c + (c << 3)) | 0;
    c = (c << 21) | (c >>> 11);
    c = (c + t) | 0;
    yield t >>> 0;
  }
}

/** What a handler sees of an event, and how it decides. */
class Context {
  #event;
  #said = {};
  #timers = [];
  #draws;

  constructor(event, state) {
    this.#event = event;
    this.state = state;
  }

  get player() { return this.#event.player ?? null; }
  get role() { return this.#event.role ?? null; }
  get session() { return this.#event.session ?? null; }
  /** How many sessions the player has inside. */
  get sessions() { return this.#event.sessions ?? 0; }
  get contest() { return this.#event.contest ?? null; }
  /** The room's time: milliseconds since 1970. */
  get now() { return this.#event.now; }

  random() {
    this.#draws ??= sfc32(...this.#event.seed);
    const [high, low] = [this.#draws.next().value, this.#draws.next().value];
    return ((high >>> 5) * 67108864 + (low >>> 6)) / 9007199254740992;
  }

  win(contest) { this.#decide('won', { contest: this.#named('win', contest) }); }
  late(contest) { this.#decide('late', { contest: this.#named('late', contest) }); }
  deny(reason) {
    if (typeof reason !== 'string') throw new TypeError('ctx.deny: give a short reason, as in ctx.deny("too_late")');
    this.#decide('denied', { reason });
  }

  nextRound(contest) {
    this.#about(this.#named('nextRound', contest));
    this.#said.next_round = true;
  }

  to(audience) {
    if (typeof audience !== 'string' && !Array.isArray(audience)) {
      throw new TypeError('ctx.to: give "room", "sender", "server", or an array of players');
    }
    this.#said.to = audience;
  }

  timer(name, when) {
    const kinds = ['after', 'at', 'every', 'cron'].filter((kind) => when?.[kind] !== undefined);
    if (kinds.length !== 1) throw new TypeError('ctx.timer: say when by one of {after: ms}, {at: ms}, {every: ms}, {cron: text}');
    const odd = Object.keys(when).find((key) => !['offset', 'data', kinds[0]].includes(key));
    if (odd !== undefined) throw new TypeError(`ctx.timer: ${odd} is not known: use after, at, every or cron, offset, data`);
    const at = when[kinds[0]] instanceof Date ? when[kinds[0]].getTime() : when[kinds[0]];
    this.#timers.push({ name, [kinds[0]]: at, offset: when.offset, data: when.data ?? null });
  }

  cancel(name) { this.#timers.push({ name, cancel: true }); }

  #named(what, contest = this.contest) {
    if (typeof contest !== 'string') throw new TypeError(`ctx.${what}: name the contest, because the action names none`);
    return contest;
  }

  #about(contest) {
    this.#said.contest ??= contest;
    if (this.#said.contest !== contest) throw new RangeError(`a verdict is about one contest: it was ${this.#said.contest} before`);
  }

  #decide(outcome, { contest, reason }) {
    if (this.#said.outcome) throw new RangeError('this event was decided before: call one of win, late and deny, once');
    if (contest !== undefined) this.#about(contest);
    Object.assign(this.#said, { outcome, reason });
  }

  /** What was decided. */
  static decision(ctx, body) {
    const timers = ctx.#timers.length > 0 ? ctx.#timers : undefined;
    return { outcome: 'granted', contest: ctx.#event.contest, ...ctx.#said, body, timers };
  }
}

const own = (handlers, name) => (handlers && Object.hasOwn(handlers, name) ? handlers[name] : undefined);

function handle(program, ctx, event) {
  switch (event.event) {
    case 'data': {
      const handler = own(program.on, event.op);
      if (handler) return handler(ctx, event.args);
      return program.onData ? program.onData(ctx, event.args, event.op) : ctx.deny('unknown_op');
    }
    case 'timer': {
      const { name, data, due, late_ns, missed } = event;
      // What follows a colon only tells timers of one handler apart.
      const handler = own(program.timers, name) ?? (name.includes(':') ? own(program.timers, name.split(':')[0]) : undefined);
      if (handler) return handler(ctx, { data, due, late_ns, missed });
      // All see it, as they see what timers do.
      ctx.to('room');
      return ctx.deny('unknown_timer');
    }
    case 'end':
      return program.onEnd?.(ctx, { code: event.code });
    case 'error':
      return program.onError?.(ctx, { reason: event.reason });
    default:
      return program[SOCKET_EVENTS[event.event]]?.(ctx);
  }
}

/** The decisions on events, as texts, each with the state after it if that has changed. */
export function resolve(program, state, events) {
  let before = text(state ?? program.state?.() ?? {}, 'state');
  const answer = [];
  let size = 0;
  for (const event of events) {
    // Every event begins with what is stored.
    const ctx = new Context(event, JSON.parse(before));
    let said;
    try {
      const body = handle(program, ctx, event);
      if (typeof body?.then === 'function') throw new TypeError('a handler decides at once: it cannot return a promise');
      said = text(Context.decision(ctx, body), 'the decision');
      const after = text(ctx.state, 'state');
      if (!after.startsWith('{')) throw new TypeError('ctx.state: no object: the state is a plain object, as in ctx.state = {}');
      if (after !== before) said = `${said.slice(0, -1)},"state":${after}}`;
      before = after;
    } catch (error) {
      const stack = `${error?.stack ?? ''}`.split('\n').slice(1, 1 + STACK_LINES).map((line) => line.trim());
      said = JSON.stringify({ outcome: 'failed', error: wellFormed(`${error}`), stack });
    }
    answer.push(said);
    size += said.length;
    if (size > ANSWER_BYTES) break;
  }
  return answer;
}

/** This version's state, made of the one that version `from` left. */
function migrated(program, { id, state, from }) {
  try {
    const made = program.migrate ? program.migrate(state, from) : state;
    return `{"type":"migrated","id":${id},"state":${text(made, 'the state')}}`;
  } catch (error) {
    return JSON.stringify({ type: 'migrated', id, error: wellFormed(`${error}`) });
  }
}

let socket;

function send(message) {
  const body = Buffer.from(message);
  const head = Buffer.alloc(4);
  head.writeUInt32BE(body.length);
  socket.write(head);
  socket.write(body);
}

/** Writes a line into the worker's log, while an event is handled. */
export function log(line) {
  if (socket) send(JSON.stringify({ type: 'log', text: `${line}` }));
}

function take(program, message) {
  if (message.type === 'resolve') {
    const answer = resolve(program, message.state, message.events);
    send(`{"type":"resolved","id":${message.id},"decisions":[${answer.join(',')}]}`);
  } else if (message.type === 'migrate') {
    send(migrated(program, message));
  } else if (message.type === 'ping') {
    send(`{"type":"pong","id":${message.id}}`);
  } else if (message.type === 'refused') {
    console.error(message.error);
    process.exitCode = 1;
  }
}

/** Serves a program until the worker closes its socket. The path of that is in LASTHIT_RULES. */
export function run(program) {
  const path = process.env.LASTHIT_RULES;
  if (!path) {
    console.error('LASTHIT_RULES is not set: let a worker start this program, or give it the socket that one listens on');
    process.exit(1);
  }
  let inbox = Buffer.alloc(0);
  socket = net.connect(path, () => {
    send(JSON.stringify({ type: 'hello', protocol: PROTOCOL, name: program.name, version: program.version }));
  });
  socket.on('data', (piece) => {
    inbox = inbox.length > 0 ? Buffer.concat([inbox, piece]) : piece;
    while (inbox.length >= 4) {
      const length = inbox.readUInt32BE(0);
      if (length > FRAME_BYTES) throw new RangeError(`a frame of ${length} bytes`);
      const end = 4 + length;
      if (inbox.length < end) break;
      const message = JSON.parse(inbox.toString('utf8', 4, end));
      inbox = inbox.subarray(end);
      take(program, message);
    }
  });
  socket.on('error', (error) => {
    console.error(`the worker's socket: ${error.message}`);
    process.exit(1);
  });
  socket.on('close', () => process.exit());
}

if (process.argv[1] && process.argv[2] && import.meta.url === pathToFileURL(process.argv[1]).href) {
  run((await import(pathToFileURL(process.argv[2]))).default);
}
