// An auction: each lot closes at its moment, however the bids come in. A bid that arrived before the close counts, one that arrived
// after it is late, and is told by how much.
//
//   lasthit serve --rules examples/rules/auction.js
//
// | op     | who    | contest        | args                                         |
// |--------|--------|----------------|----------------------------------------------|
// | `open` | server | the lot's name | `ms`: how long it is open; `from`: least bid |
// | `bid`  | all    | the lot        | `amount`                                     |

const LOTS_MAX = 100;
const NAME_MAX = 48;
const AMOUNT_MAX = 1e12;

const whole = (value, least, most) => Number.isInteger(value) && value >= least && value <= most;

export default {
  name: "auction",
  version: 1,
  state: () => ({ lots: {} }),

  onOpen: (ctx) => ({ now: ctx.now, lots: ctx.state.lots }),

  on: {
    open(ctx, args) {
      if (ctx.role !== "server") return ctx.deny("server_only");
      const lot = ctx.contest;
      if (lot === null || lot.length > NAME_MAX) return ctx.deny("no_contest");
      if (!whole(args?.ms, 100, 7 * 86_400_000)) return ctx.deny("bad_ms");
      const from = args.from ?? 1;
      if (!whole(from, 1, AMOUNT_MAX)) return ctx.deny("bad_from");
      const { lots } = ctx.state;
      if (Object.hasOwn(lots, lot)) return ctx.deny("already_opened");
      if (Object.keys(lots).length >= LOTS_MAX) return ctx.deny("too_many_lots");
      const closes = ctx.now + args.ms;
      lots[lot] = { from, closes, amount: 0, by: null, open: true };
      ctx.timer(`close:${lot}`, { at: closes, data: lot });
      return { lot, ...lots[lot] };
    },

    bid(ctx, args) {
      const { lots } = ctx.state;
      if (ctx.contest === null || !Object.hasOwn(lots, ctx.contest)) return ctx.deny("unknown_lot");
      const lot = lots[ctx.contest];
      if (!lot.open) {
        ctx.late();
        return { lot: ctx.contest, ...lot };
      }
      if (!whole(args?.amount, lot.from, AMOUNT_MAX) || args.amount <= lot.amount) return ctx.deny("too_low");
      lot.amount = args.amount;
      lot.by = ctx.player;
      return { lot: ctx.contest, ...lot };
    },
  },

  timers: {
    close(ctx, { data: name }) {
      const lot = ctx.state.lots[name];
      lot.open = false;
      // The close wins the contest: whoever bids from now on is behind it.
      ctx.win(name);
      return { lot: name, ...lot };
    },
  },
};

// lasthit rules test examples/rules/auction.js
export const tests = {
  "a lot closes at its moment: before it a bid counts, after it is late": [
    { who: "house", role: "server", op: "open", contest: "vase", args: { ms: 1_000, from: 10 }, expect: { outcome: "granted" } },
    { who: "ann", op: "bid", contest: "vase", args: { amount: 5 }, expect: { reason: "too_low", to: "sender" } },
    { who: "ann", op: "bid", contest: "vase", args: { amount: 50 }, expect: { outcome: "granted" } },
    { who: "bob", op: "bid", contest: "vase", args: { amount: 50 }, expect: { reason: "too_low" } },
    { after: 996.98, who: "bob", op: "bid", contest: "vase", args: { amount: 60 }, fires: [], expect: { outcome: "granted" } },
    { after: 0.04, who: "ann", op: "bid", contest: "vase", args: { amount: 70 }, fires: [{ timer: "close:vase", outcome: "granted" }], expect: { reason: "late" } },
  ],
  "an auction closes although nobody is inside": [
    { who: "house", role: "server", op: "open", contest: "vase", args: { ms: 60_000 } },
    { who: "house", event: "close" },
    { after: 60_000, fires: ["close:vase"] },
  ],
  "only the house opens a lot, and each once": [
    { who: "ann", op: "open", contest: "vase", args: { ms: 1_000 }, expect: { reason: "server_only" } },
    { who: "house", role: "server", op: "open", contest: "vase", args: { ms: 99 }, expect: { reason: "bad_ms" } },
    { who: "house", op: "open", contest: "vase", args: { ms: 100 }, expect: { outcome: "granted" } },
    { who: "house", op: "open", contest: "vase", args: { ms: 100 }, expect: { reason: "already_opened" } },
    { who: "ann", op: "bid", contest: "cup", args: { amount: 5 }, expect: { reason: "unknown_lot" } },
  ],
};
