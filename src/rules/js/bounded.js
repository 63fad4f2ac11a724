// Runs first in each context: makes what the interpreter does by itself, without a look at the time or the stack, bounded.
(function () {
  "use strict";
  const global = globalThis;
  const { defineProperty, getPrototypeOf } = Object;
  const { apply } = Reflect;
  const { isArray } = Array;
  // More do not fit into the memory of a program, unless they are holes.
  const ELEMENTS_MAX = 10_000_000;
  const put = (object, key, value) => defineProperty(object, key, { value, writable: true, enumerable: false, configurable: true });

  // A loop of the interpreter over holes cannot be stopped: it is not begun if it is long, and else costs as much as a short loop
  // here, which can. What is no array, or a proxy of one, can tell any length: its elements are asked for by functions, which can.
  const pay = (name, length) => {
    if (length > ELEMENTS_MAX) throw new RangeError(`${name}: an array of more than ${ELEMENTS_MAX} elements: use a smaller one`);
    for (let left = length; left > 1000; left -= 1000);
  };
  const RealProxy = Proxy;
  const { revocable } = RealProxy;
  const proxies = new WeakSet();
  const noted = (made, target) => {
    if (isArray(target)) proxies.add(made);
    return made;
  };
  const NotedProxy = function Proxy(target, handler) {
    if (new.target === undefined) throw new TypeError("Proxy: write new Proxy");
    return noted(new RealProxy(target, handler), target);
  };
  defineProperty(NotedProxy, "prototype", { value: undefined, writable: false });
  put(NotedProxy, "revocable", (target, handler) => {
    const made = revocable(target, handler);
    noted(made.proxy, target);
    return made;
  });
  put(global, "Proxy", NotedProxy);
  const asking = {
    get: (t, key) => t[key],
    has: (t, key) => key in t,
    set: (t, key, value) => Reflect.set(t, key, value),
    deleteProperty: (t, key) => Reflect.deleteProperty(t, key),
  };
  const arrays = Array.prototype;
  const within = (prototype, names) => {
    for (const name of names) {
      const method = prototype[name];
      const bounded = {
        [name]() {
          if (isArray(this) && !proxies.has(this)) {
            pay(name, this.length);
            return apply(method, this, arguments);
          }
          if (this === undefined || this === null) throw new TypeError(`${name}: no array`);
          const asked = new RealProxy(Object(this), asking);
          const result = apply(method, asked, arguments);
          return result === asked ? this : result;
        },
      }[name];
      defineProperty(bounded, "length", { value: method.length });
      put(prototype, name, bounded);
    }
  };
  within(arrays, [
    "copyWithin", "every", "fill", "filter", "find", "findIndex", "findLast", "findLastIndex", "forEach", "includes", "indexOf", "join",
    "lastIndexOf", "map", "reduce", "reduceRight", "reverse", "shift", "slice", "some", "sort", "splice",
    "toLocaleString", "toReversed", "toSorted", "toSpliced", "unshift", "with",
  ]);
  const append = (into, from, depth) => {
    const { length } = from;
    for (let at = 0; at < length; at++) {
      if (!(at in from)) continue;
      const value = from[at];
      if (depth > 0 && isArray(value)) append(into, value, depth - 1);
      else into[into.length] = value;
    }
    return into;
  };
  const { map } = arrays;
  const joining = {
    concat(...parts) {
      const into = [];
      const add = (part) => {
        const spreads = typeof part === "object" && part !== null ? part[Symbol.isConcatSpreadable] ?? isArray(part) : false;
        if (!spreads) {
          into[into.length] = part;
          return;
        }
        const start = into.length;
        const { length } = part;
        if (length > ELEMENTS_MAX) pay("concat", length);
        for (let at = 0; at < length; at++) if (at in part) into[start + at] = part[at];
        into.length = start + length;
      };
      add(this);
      for (let at = 0; at < parts.length; at++) add(parts[at]);
      return into;
    },
    flat(depth) { return append([], this, depth === undefined ? 1 : Number(depth)); },
    flatMap(action, self) { return append([], apply(map, this, [action, self]), 1); },
  };
  for (const name of ["concat", "flat", "flatMap"]) {
    defineProperty(joining[name], "length", { value: arrays[name].length });
    put(arrays, name, joining[name]);
  }
  const iterators = Iterator.prototype;
  const { drop } = iterators;
  put(iterators, "drop", {
    drop(count) {
      const dropped = Number(count);
      pay("drop", dropped);
      return apply(drop, this, [dropped]);
    },
  }.drop);
  delete iterators.includes;
  delete Math.sumPrecise;
  const { stringify } = JSON;
  put(JSON, "stringify", {
    stringify(value, replacer, space) {
      if (isArray(replacer)) pay("stringify", replacer.length);
      return stringify(value, replacer, space);
    },
  }.stringify);

  // The interpreter steps from one of its own iterators to the next without a look at the stack: a call looks.
  for (const helper of [[].values().map((x) => x), Iterator.from({ next() {} })]) {
    const prototype = getPrototypeOf(helper);
    for (const name of ["next", "return"]) {
      const method = prototype[name];
      put(prototype, name, { [name]() { return apply(method, this, arguments); } }[name]);
    }
  }
})();
