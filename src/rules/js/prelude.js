// Runs once in each context, after bounded.js and before the program: takes away what is not deterministic, makes the objects that handlers get, and
// freezes what all events share.
(function (native, events, PLAYERS_MAX, NAME_CHARS_MAX) {
  "use strict";
  const global = globalThis;
  const { defineProperty, getOwnPropertyDescriptor, getPrototypeOf, freeze, hasOwn } = Object;
  const { ownKeys } = Reflect;
  const plain = Object.prototype;
  const { isArray } = Array;
  const isDate = (value) => {
    try {
      getTime(value);
      return true;
    } catch {
      return false;
    }
  };
  const getTime = Function.prototype.call.bind(Date.prototype.getTime);
  const put = (object, key, value) => defineProperty(object, key, { value, writable: true, enumerable: false, configurable: true });

  // What an event sees. `live` is false while the program is loaded.
  let live = false;
  let player = null;
  let role = null;
  let contest = null;
  let now = 0;
  // The state of this event, the object behind it, and what a handler has put in its place.
  let proxy = null;
  let target = null;
  let instead = null;
  let whole = false;
  const roles = ["player", "server", null];

  const time = () => {
    if (!live) throw new Error("there is no time while a program is loaded: read it in a handler");
    return Math.floor(now);
  };
  const random = () => {
    if (!live) throw new Error("there are no random numbers while a program is loaded: draw them in a handler");
    return native.random();
  };

  // Dates know room time and UTC only.
  const Real = Date;
  const dates = Real.prototype;
  const { parse, UTC } = Real;
  const toUTCString = Function.prototype.call.bind(dates.toUTCString);
  const read = (text) => {
    if (/^(?:\d{4}|[+-]\d{6})-\d\d-\d\dT\d\d:\d\d(:\d\d([.,]\d+)?)?$/.test(text)) return parse(text + "Z");
    if (/^(?:\d{4}|[+-]\d{6})(-\d\d(-\d\d)?)?$/.test(text)) return parse(text);
    if (/^(?:\d{4}|[+-]\d{6})-\d\d-\d\dT\d\d:\d\d(:\d\d([.,]\d+)?)?(Z|[+-]\d\d:?\d\d)$/.test(text)) return parse(text);
    // What does not end in a time zone would be read in that of the machine. Of long text, the end would not be read.
    return /^[ -~]{0,90}[\d ](GMT|UTC|Z)$/.test(text) ? parse(text) : NaN;
  };
  const RoomDate = {
    Date: function (...parts) {
      if (new.target === undefined) return toUTCString(new Real(time()));
      let at;
      if (parts.length === 0) {
        at = time();
      } else if (parts.length === 1) {
        let [value] = parts;
        if (typeof value === "object" && value !== null) value = isDate(value) ? getTime(value) : `${value}`;
        at = typeof value === "string" ? read(value) : Number(value);
      } else {
        at = UTC(...parts);
      }
      return Reflect.construct(Real, [at], new.target);
    },
  }.Date;
  defineProperty(RoomDate, "prototype", { value: dates, writable: false });
  defineProperty(RoomDate, "length", { value: 7 });
  put(RoomDate, "now", () => time());
  put(RoomDate, "parse", (text) => read(`${text}`));
  put(RoomDate, "UTC", UTC);
  put(dates, "constructor", RoomDate);
  for (const name of Object.getOwnPropertyNames(dates)) {
    if (/^[gs]etUTC/.test(name)) put(dates, name.replace("UTC", ""), dates[name]);
  }
  put(dates, "getTimezoneOffset", function () { return getTime(this) * 0; });
  put(dates, "toString", function () { return toUTCString(this); });
  put(dates, "toLocaleString", function () { return toUTCString(this); });
  for (const name of ["toDateString", "toLocaleDateString"]) {
    put(dates, name, function () { return toUTCString(this).slice(0, 16); });
  }
  for (const name of ["toTimeString", "toLocaleTimeString"]) {
    put(dates, name, function () { return toUTCString(this).slice(17); });
  }
  delete dates.getYear;
  delete dates.setYear;
  put(global, "Date", RoomDate);
  put(Math, "random", random);

  // What would not be the same everywhere, or lets text become code.
  const blocked = function Function() {
    throw new TypeError("Function: text cannot become code here: write the function into the file");
  };
  const functions = [
    Function.prototype,
    getPrototypeOf(function* () {}),
    getPrototypeOf(async function () {}),
    getPrototypeOf(async function* () {}),
  ];
  for (const functions_of of functions) put(functions_of, "constructor", blocked);
  defineProperty(blocked, "prototype", { value: Function.prototype, writable: false });
  put(global, "Function", blocked);
  for (const name of ["eval", "SharedArrayBuffer", "Atomics", "Promise", "queueMicrotask", "WeakRef", "FinalizationRegistry"]) {
    delete global[name];
  }
  // What is disposed of at the end of a block could throw away that the event was stopped.
  for (const name of ["DisposableStack", "AsyncDisposableStack", "SuppressedError"]) delete global[name];
  const promises = getPrototypeOf((async () => {})());
  put(promises, "constructor", function Promise() {
    throw new TypeError("Promise: a handler decides at once");
  });
  delete Error.prepareStackTrace;
  delete Error.stackTraceLimit;
  // A player may be called __proto__.
  delete Object.prototype.__proto__;
  for (const name of ["__defineGetter__", "__defineSetter__", "__lookupGetter__", "__lookupSetter__"]) delete Object.prototype[name];

  // The state of an event: a key is read when it is first touched.
  const stale = (t) => {
    if (t !== target) throw new Error("this is the state of an earlier event: use ctx.state of this one");
  };
  const fetch = (t, key) => {
    const value = native.load(key);
    if (value === undefined) return t[key];
    return (t[key] = value);
  };
  const fetchAll = (t) => {
    stale(t);
    if (whole) return;
    whole = true;
    const added = { __proto__: null };
    const names = ownKeys(t);
    for (const name of names) added[name] = t[name];
    for (const name of names) delete t[name];
    for (const name of native.keys()) {
      t[name] = hasOwn(added, name) ? added[name] : native.load(name);
    }
    for (const name of names) t[name] = added[name];
  };
  const traps = {
    get(t, key) {
      stale(t);
      return whole || typeof key === "symbol" || hasOwn(t, key) ? t[key] : fetch(t, key);
    },
    set(t, key, value, receiver) {
      stale(t);
      // An object that inherits from the state gets a key of its own.
      if (receiver !== proxy) return Reflect.set({}, key, value, receiver);
      if (typeof key === "symbol") throw new TypeError("state: a key that is a symbol: use text");
      if (whole) return Reflect.set(t, key, value);
      t[key] = value;
      return true;
    },
  };
  for (const trap of ["has", "deleteProperty", "ownKeys", "getOwnPropertyDescriptor", "defineProperty", "preventExtensions"]) {
    const act = Reflect[trap];
    traps[trap] = (t, ...rest) => {
      fetchAll(t);
      return act(t, ...rest);
    };
  }
  traps.setPrototypeOf = () => false;

  const inside = (what) => {
    if (!live) throw new Error(`ctx.${what}: no event is under way`);
  };
  const key = (what, name) => {
    inside(what);
    if (name === undefined) name = contest;
    if (typeof name !== "string") throw new TypeError(`ctx.${what}: name the contest, because the action names none`);
    return name;
  };
  const ctx = {
    get state() {
      inside("state");
      if (instead !== null) return instead;
      if (proxy === null) {
        target = {};
        proxy = new Proxy(target, traps);
      }
      return proxy;
    },
    set state(value) {
      inside("state");
      if (value === null || typeof value !== "object" || isArray(value)) {
        throw new TypeError("ctx.state: no object: the state is a plain object, as in ctx.state = {}");
      }
      instead = value === proxy ? null : value;
    },
    get player() { return player; },
    get role() { return role; },
    get session() { return native.session() ?? null; },
    get sessions() { return native.sessions(); },
    get contest() { return contest; },
    get now() { return now; },
    random,
    win(name) { native.rule("win", key("win", name)); },
    late(name) { native.rule("late", key("late", name)); },
    deny(reason) {
      inside("deny");
      if (typeof reason !== "string") throw new TypeError('ctx.deny: give a short reason, as in ctx.deny("too_late")');
      native.rule("deny", reason);
    },
    nextRound(name) { native.rule("nextRound", key("nextRound", name)); },
    to(audience) {
      inside("to");
      const wrong = () => new TypeError('ctx.to: give "room", "sender", "server", or an array of players');
      const checked = (name) => {
        if (typeof name !== "string") throw wrong();
        if (name.length > NAME_CHARS_MAX) throw new RangeError(`ctx.to: a name of more than ${NAME_CHARS_MAX} characters`);
        return name;
      };
      if (typeof audience === "string") return native.to(checked(audience), []);
      if (!isArray(audience)) throw wrong();
      const { length } = audience;
      if (!(length <= PLAYERS_MAX)) throw new RangeError(`audience_too_large: ${length} players, at most ${PLAYERS_MAX}`);
      const players = [];
      for (let at = 0; at < length; at++) players[at] = checked(audience[at]);
      native.to(undefined, players);
    },
    timer(name, when) {
      inside("timer");
      if (typeof name !== "string") throw new TypeError("ctx.timer: the first argument is the timer's name");
      const kinds = when === null || typeof when !== "object" ? [] : ["after", "at", "every", "cron"].filter((kind) => when[kind] !== undefined);
      if (kinds.length !== 1) {
        throw new TypeError("ctx.timer: say when by one of {after: ms}, {at: ms}, {every: ms}, {cron: text}");
      }
      const odd = Object.keys(when).find((name) => !["after", "at", "every", "cron", "offset", "data"].includes(name));
      if (odd !== undefined) throw new TypeError(`ctx.timer: ${odd} is not known: use after, at, every or cron, offset, data`);
      let value = when[kinds[0]];
      if (kinds[0] === "at" && typeof value === "object" && isDate(value)) value = getTime(value);
      if (typeof value !== (kinds[0] === "cron" ? "string" : "number")) {
        throw new TypeError(`ctx.timer: ${kinds[0]} is ${kinds[0] === "cron" ? 'text, as in "0 20 * * FRI"' : "a number of milliseconds"}`);
      }
      if (when.offset !== undefined && (kinds[0] !== "cron" || typeof when.offset !== "string")) {
        throw new TypeError('ctx.timer: offset is for cron, as in {cron: "0 20 * * *", offset: "+09:00"}');
      }
      native.timer([name, kinds[0], String(value), when.offset ?? "+00:00"], when.data === undefined ? null : when.data, plain);
    },
    cancel(name) {
      inside("cancel");
      if (typeof name !== "string") throw new TypeError("ctx.cancel: give the timer's name");
      native.cancel(name);
    },
  };

  const begin = (p, r, c, n) => {
    player = p;
    role = roles[r];
    contest = c;
    now = n;
    target = proxy = instead = null;
    whole = false;
    live = true;
  };
  // 0: not touched; 1: some keys are in the object; 2: all are.
  const run = (handler, p, r, c, n, args, op) => {
    begin(p, r, c, n);
    const body = handler(ctx, args, op);
    if (instead !== null) {
      native.done(body, 2, instead, plain);
    } else {
      native.done(body, whole ? 2 : target === null ? 0 : 1, target, plain);
    }
    live = false;
    target = proxy = instead = null;
  };
  const migrate = (handler, state, from) => {
    live = false;
    native.done(undefined, 2, handler(state, from), plain);
  };

  // What a program is made of. Throws [key, what is wrong, the value, if it is a function].
  const inspect = (program, meta) => {
    freeze(meta);
    const wrong = (key, what, at) => { throw [key, what, at]; };
    const isPlain = (value) => typeof value === "object" && value !== null && [plain, null].includes(getPrototypeOf(value));
    if (!isPlain(program)) wrong("default", "the default export is no plain object: write export default { name, version, state, ... }");
    const known = ["name", "version", "state", ...events, "on", "timers", "migrate"];
    for (const name of Object.keys(program)) {
      if (name === "tests") wrong(name, "tests stand beside the default export: write export const tests = { ... }");
      if (!known.includes(name)) wrong(name, `${name} is no part of a program: use ${known.join(", ")}`);
    }
    const kind = (value) => Object.prototype.toString.call(value);
    const handler = (key, value) => {
      if (typeof value !== "function") wrong(key, `${key} is no function`);
      if (kind(value) === "[object AsyncFunction]" || kind(value) === "[object AsyncGeneratorFunction]") {
        wrong(key, `${key} is async: a handler decides at once: remove async and await`, value);
      }
      if (kind(value) === "[object GeneratorFunction]") wrong(key, `${key} is a generator: use a plain function`, value);
      if (getOwnPropertyDescriptor(value, "prototype")?.writable === false && /^class\b/.test(`${value}`)) {
        wrong(key, `${key} is a class: use a plain function`, value);
      }
      return value;
    };
    const table = (name) => {
      const handlers = program[name];
      if (handlers === undefined) return [];
      if (!isPlain(handlers)) wrong(name, `${name} is no plain object: write ${name}: { name(ctx, args) { ... } }`);
      return Object.keys(handlers).map((key) => [key, handler(`${name}.${key}`, handlers[key])]);
    };
    const { name, version, state } = program;
    if (typeof name !== "string") wrong("name", 'name is missing: write name: "baron"');
    if (!Number.isInteger(version) || version < 1 || version > 0xffffffff) {
      wrong("version", "version is no whole number from 1 on: write version: 1, and raise it with each change");
    }
    if (state !== undefined) handler("state", state);
    const socket = events.map((event) => (program[event] === undefined ? undefined : handler(event, program[event])));
    const on = table("on");
    const timers = table("timers");
    const migrate = program.migrate === undefined ? undefined : handler("migrate", program.migrate);
    return [name, version, state, socket, on, timers, migrate];
  };

  // Frozen, so that no handler changes what the next event finds. Assignments to names that an object inherits still work.
  const lasting = (object) => {
    for (const name of Object.getOwnPropertyNames(object)) {
      const found = getOwnPropertyDescriptor(object, name);
      if (!("value" in found) || !found.configurable) continue;
      defineProperty(object, name, {
        get() { return found.value; },
        set(value) {
          if (this === object) throw new TypeError(`${name} is shared by all events: it cannot be changed`);
          defineProperty(this, name, { value, writable: true, enumerable: true, configurable: true });
        },
        enumerable: false,
        configurable: false,
      });
    }
  };
  const seen = new Set();
  const harden = (value) => {
    if ((typeof value !== "object" && typeof value !== "function") || value === null || seen.has(value)) return;
    seen.add(value);
    for (const name of ownKeys(value)) {
      const found = getOwnPropertyDescriptor(value, name);
      harden(found.value);
      harden(found.get);
      harden(found.set);
    }
    harden(getPrototypeOf(value));
    freeze(value);
  };
  const errors = [Error, TypeError, RangeError, ReferenceError, SyntaxError, EvalError, URIError, AggregateError];
  for (const object of [Object, ...errors]) lasting(object.prototype);
  for (const value of [
    ...functions,
    [][Symbol.iterator](),
    new Map().entries(),
    new Set().values(),
    ""[Symbol.iterator](),
    "".matchAll(/x/g),
    Iterator.from({ next() {} }),
    [].values().map((x) => x),
    (function* () {})(),
    (async function* () {})(),
    (function () { return arguments; })(),
    native,
    ctx,
    promises,
  ]) {
    harden(value);
  }
  for (const name of ownKeys(global)) harden(getOwnPropertyDescriptor(global, name).value);
  for (const name of ownKeys(global)) {
    const { configurable } = getOwnPropertyDescriptor(global, name);
    if (configurable) defineProperty(global, name, { writable: false, configurable: false });
  }
  Object.preventExtensions(global);
  return [run, migrate, inspect];
})
