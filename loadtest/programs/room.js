// A room of 1 KiB of state, for `loadtest rules --only room_kib`: ten keys with 100 bytes each.

const text = "x".repeat(60);

export default {
  name: "room",
  version: 1,
  state: () => Object.fromEntries(Array.from({ length: 10 }, (_, n) => ["key" + n, { hp: 1000 + n, max_hp: 100_000, by: "", text }])),
  on: {
    claim(ctx) {
      const { key5 } = ctx.state;
      if (key5.by !== "") return ctx.deny("already_yours");
      key5.by = ctx.player;
      ctx.win();
      ctx.to("sender");
    },
  },
};

export const tests = {
  "a key is taken once": [
    { who: "ann", op: "claim", contest: "c", expect: { outcome: "granted", round: 1 } },
    { who: "ann", op: "claim", contest: "c", expect: { reason: "already_yours" } },
  ],
};
