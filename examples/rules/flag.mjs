// Capture the flag: who grabs it first has it, until it is dropped or half a minute is over. The same rules as flag.py and flag.pl.
//
//     rules = { process = ["node", "rules/js/lasthit-rules.mjs", "examples/rules/flag.mjs"] }

export default {
  name: 'flag',
  version: 1,
  state: () => ({ holder: null, grabs: 0 }),

  onOpen: (ctx) => ({ holder: ctx.state.holder, grabs: ctx.state.grabs }),

  on: {
    grab(ctx, args) {
      if (ctx.state.holder !== null) return ctx.late('flag');
      ctx.state.holder = ctx.player;
      ctx.state.grabs += 1;
      ctx.win('flag');
      ctx.timer('free', { after: args?.ms ?? 30_000, data: { from: ctx.player } });
      return { grabs: ctx.state.grabs };
    },

    drop(ctx) {
      if (ctx.state.holder !== ctx.player) return ctx.deny('not_yours');
      ctx.state.holder = null;
      ctx.nextRound('flag');
      ctx.cancel('free');
    },

    tell(ctx, { to, text }) {
      ctx.to(to);
      return { text };
    },

    who(ctx) {
      ctx.to('sender');
      return { player: ctx.player, role: ctx.role, sessions: ctx.sessions };
    },

    roll: (ctx) => ({ roll: Math.floor(ctx.random() * 6) + 1 }),

    cheat(ctx) {
      ctx.state.holder = ctx.player;
      throw new Error('nobody cheats here');
    },
  },

  timers: {
    free(ctx, timer) {
      ctx.state.holder = null;
      ctx.nextRound('flag');
      return { free: true, from: timer.data.from };
    },
  },
};
