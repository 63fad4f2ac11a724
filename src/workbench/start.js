// NAME: rules for lasthit, in one file. docs/rules.md says what each part can do; lasthit.d.ts has its types.
//
//   lasthit rules test NAME.js        plays the tests at the end
//   lasthit serve --rules NAME.js     decides all rooms by it
//
// | op     | who | contest          | what it does                                              |
// |--------|-----|------------------|-----------------------------------------------------------|
// | `take` | all | the thing's name | The first has it. Ten seconds later, it is to be had again |

/** How long a thing stays away, in milliseconds. */
const AWAY_MS = 10_000;

/** @type {import("./lasthit").Program<{ takers: { [thing: string]: string }, taken: number }>} */
const program = {
  name: "NAME",
  // Raise it with each change of what is decided, or of the state.
  version: 1,

  // The state of a new room. Only what is in ctx.state is kept from event to event.
  state: () => ({ takers: {}, taken: 0 }),

  // A session has joined. It gets what this returns as the `state` of its welcome.
  onOpen(ctx) {
    return { takers: ctx.state.takers };
  },

  // A handler for each action. What it returns is the verdict's body, which everybody in the room gets.
  on: {
    take(ctx) {
      const thing = ctx.contest;
      // Only the sender gets this verdict, and the action has no effect.
      if (thing === null) return ctx.deny("no_contest");
      if (Object.hasOwn(ctx.state.takers, thing)) {
        // Beaten: the verdict says by how many nanoseconds.
        ctx.late();
        return { by: ctx.state.takers[thing] };
      }
      ctx.win();
      ctx.state.takers[thing] = ctx.player;
      ctx.state.taken += 1;
      // What follows the colon tells timers of one handler apart.
      ctx.timer(`back:${thing}`, { after: AWAY_MS, data: thing });
      return { by: ctx.player };
    },
  },

  // A handler for each kind of timer.
  timers: {
    back(ctx, { data: thing }) {
      delete ctx.state.takers[thing];
      // The next one to take it wins, too: that is another round.
      ctx.nextRound(thing);
      return { back: thing };
    },
  },
};

export default program;

/** @type {import("./lasthit").Tests} */
export const tests = {
  "the first has it, and it is back after ten seconds": [
    { who: "ann", op: "take", contest: "cup", expect: { outcome: "granted", body: { by: "ann" } } },
    { who: "bob", op: "take", contest: "cup", expect: { outcome: "denied", reason: "late", body: { by: "ann" } } },
    { after: 9_000, fires: [] },
    { after: 1_000, who: "bob", op: "take", contest: "cup", fires: ["back:cup"], expect: { outcome: "granted", round: 2 } },
  ],
  "a thing has a name": [{ who: "ann", op: "take", expect: { outcome: "denied", reason: "no_contest", to: "sender" } }],
};
