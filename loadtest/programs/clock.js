// A room with one timer, for `loadtest rules`: `every` milliseconds again and again, or once `after` so many.

export default {
  name: "clock",
  version: 1,
  on: {
    set(ctx, { every, after }) {
      ctx.to("sender");
      ctx.timer("tick", every === undefined ? { after } : { every });
    },
    stop(ctx) {
      ctx.to("sender");
      ctx.cancel("tick");
    },
  },
  timers: { tick: () => {} },
};

export const tests = {
  "a timer repeats until it is stopped": [
    { who: "ann", op: "set", args: { every: 100 }, expect: { outcome: "granted" } },
    { after: 250, fires: ["tick", "tick"] },
    { who: "ann", op: "set", args: { after: 40 } },
    { after: 250, fires: ["tick"] },
    { who: "ann", op: "set", args: { every: 100 } },
    { who: "ann", op: "stop", expect: { outcome: "granted" } },
    { after: 250, fires: [] },
  ],
};
