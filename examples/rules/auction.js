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
