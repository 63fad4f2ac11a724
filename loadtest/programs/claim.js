// The built-in rules `claim` with audience = "sender", as a program: the first to claim a key has it until it is released.
//
//   lasthit rules test loadtest/programs/claim.js
//
// `loadtest rules` compares the two. Each holder has a key of the state of its own, so that a claim reads and writes only that.

const CLAIMS_MAX = 100_000;
const LISTED_MAX = 100;
const KEY = "claim:";

const toSender = (ctx) => ctx.to("sender");

export default {
  name: "claims",
  version: 1,
  state: () => ({ held: 0 }),

  onOpen(ctx) {
    ctx.to("sender");
    const keys = Object.keys(ctx.state).filter((key) => key.startsWith(KEY)).sort().slice(0, LISTED_MAX);
    return { held: ctx.state.held, claims: Object.fromEntries(keys.map((key) => [key.slice(KEY.length), ctx.state[key]])) };
  },
  onEnd: toSender,
  onError: toSender,
  onClose: toSender,

  on: {
    claim(ctx) {
      if (ctx.contest === null) return ctx.deny("no_contest");
      const key = KEY + ctx.contest;
      const holder = ctx.state[key];
      if (holder === ctx.player) return ctx.deny("already_yours");
      if (holder !== undefined) {
        ctx.late();
        ctx.to("sender");
        return { holder };
      }
      if (ctx.state.held >= CLAIMS_MAX) return ctx.deny("too_many_claims");
      ctx.state[key] = ctx.player;
      ctx.state.held += 1;
      ctx.win();
      ctx.to("sender");
    },

    release(ctx) {
      if (ctx.contest === null) return ctx.deny("no_contest");
      const key = KEY + ctx.contest;
      const holder = ctx.state[key];
      if (holder === undefined) return ctx.deny("not_held");
      if (holder !== ctx.player && ctx.role !== "server") {
        ctx.deny("not_holder");
        return { holder };
      }
      delete ctx.state[key];
      ctx.state.held -= 1;
      ctx.nextRound();
      ctx.to("sender");
      return { holder };
    },
  },
};

export const tests = {
  "the first has it, until it is released": [
    { who: "ann", op: "claim", contest: "seat", expect: { outcome: "granted", round: 1, to: "sender" } },
    { who: "bob", op: "claim", contest: "seat", expect: { reason: "late", body: { holder: "ann" }, to: "sender" } },
    { who: "ann", op: "claim", contest: "seat", expect: { reason: "already_yours" } },
    { who: "bob", op: "release", contest: "seat", expect: { reason: "not_holder", body: { holder: "ann" } } },
    { who: "ann", op: "release", contest: "seat", expect: { outcome: "granted", body: { holder: "ann" } } },
    { who: "bob", op: "release", contest: "seat", expect: { reason: "not_held" } },
    { who: "bob", op: "claim", contest: "seat", expect: { outcome: "granted", round: 2 } },
    { who: "ann", op: "claim", expect: { reason: "no_contest" } },
  ],
};
