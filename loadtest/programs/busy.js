// A room that is busy by itself, for `loadtest rules --only push_s`: a timer every so many milliseconds. What it answers says which
// version decided, and which one its state is of. A push raises VERSION.

const VERSION = 1;

const versions = (ctx) => [VERSION, ctx.state.version];

export default {
  name: "busy",
  version: VERSION,
  state: () => ({ version: VERSION }),
  migrate: (state) => ({ ...state, version: VERSION }),
  on: {
    set(ctx, { every }) {
      ctx.to("sender");
      ctx.timer("tick", { every });
      return versions(ctx);
    },
  },
  timers: { tick: versions },
};

export const tests = {
  "all answers name the version": [
    { who: "ann", op: "set", args: { every: 100 }, expect: { outcome: "granted", body: [VERSION, VERSION] } },
    { after: 250, fires: ["tick", "tick"] },
  ],
};
