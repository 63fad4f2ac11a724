// Last hit, with a respawn: who takes a target's last points wins it, and ten seconds later it is there again.
//
//   lasthit serve --rules examples/rules/arena.js      then open http://127.0.0.1:7777/ in two tabs
//
// | op        | who    | contest           | args               |
// |-----------|--------|-------------------|--------------------|
// | `spawn`   | server | the target's name | `hp`, `respawn_ms` |
// | `despawn` | server | the target        |                    |
// | `hit`     | all    | the target        | `damage`           |

const TARGETS_MAX = 64;
const NAME_MAX = 48;
const HP_MAX = 1e12;
const DAMAGE_MAX = 1e9;
const RESPAWN_MS = 10_000;

/** A whole number from `least` to `most`. */
const whole = (value, least, most) => Number.isInteger(value) && value >= least && value <= most;

/** What everybody sees of a target. */
const report = (name, { hp, max_hp, round }) => ({ target: name, hp, max_hp, round });

export default {
  name: "arena",
  version: 1,

  // A new room's. Only what is in ctx.state is kept from event to event.
  state: () => ({ targets: {} }),

  // What a session gets when it joins.
  onOpen(ctx) {
    const targets = {};
    for (const [name, { hp, max_hp, round, winner }] of Object.entries(ctx.state.targets)) {
      if (max_hp > 0) targets[name] = { hp, max_hp, round, winner };
    }
    return { targets };
  },

  on: {
    spawn(ctx, args) {
      if (ctx.role !== "server") return ctx.deny("server_only");
      const name = ctx.contest;
      if (name === null || name.length > NAME_MAX) return ctx.deny("no_contest");
      if (!whole(args?.hp, 1, HP_MAX)) return ctx.deny("bad_hp");
      const respawn_ms = args.respawn_ms ?? RESPAWN_MS;
      if (!whole(respawn_ms, 100, 86_400_000)) return ctx.deny("bad_respawn");
      const { targets } = ctx.state;
      const before = Object.hasOwn(targets, name) ? targets[name] : undefined;
      if (before?.hp > 0) return ctx.deny("already_spawned");
      if (!before && Object.keys(targets).length >= TARGETS_MAX) return ctx.deny("too_many_targets");
      ctx.cancel(`respawn:${name}`);
      if (before) ctx.nextRound();
      const round = (before?.round ?? 0) + 1;
      targets[name] = { hp: args.hp, max_hp: args.hp, respawn_ms, round };
      return report(name, targets[name]);
    },

    despawn(ctx) {
      if (ctx.role !== "server") return ctx.deny("server_only");
      const { targets } = ctx.state;
      const name = ctx.contest;
      if (name === null || !Object.hasOwn(targets, name) || targets[name].max_hp === 0) return ctx.deny("unknown_target");
      ctx.cancel(`respawn:${name}`);
      const gone = report(name, targets[name]);
      // Its round stays: no round has a second winner.
      targets[name] = { hp: 0, max_hp: 0, round: gone.round };
      return gone;
    },

    hit(ctx, args) {
      const name = ctx.contest;
      if (name === null) return ctx.deny("no_contest");
      const damage = args?.damage;
      if (!whole(damage, 1, DAMAGE_MAX)) return ctx.deny("bad_args");
      const { targets } = ctx.state;
      if (!Object.hasOwn(targets, name) || targets[name].max_hp === 0) return ctx.deny("unknown_target");
      const target = targets[name];
      if (target.hp === 0) {
        ctx.late();
        return { ...report(name, target), damage };
      }
      const overkill = damage - target.hp;
      target.hp = Math.max(0, target.hp - damage);
      if (target.hp > 0) return { ...report(name, target), damage };
      ctx.win();
      target.winner = ctx.player;
      ctx.timer(`respawn:${name}`, { after: target.respawn_ms, data: name });
      return { ...report(name, target), damage, overkill };
    },
  },

  timers: {
    // The timer respawn:baron comes here, too: what follows the colon only tells timers apart.
    respawn(ctx, { data: name }) {
      const target = ctx.state.targets[name];
      ctx.nextRound(name);
      target.hp = target.max_hp;
      target.round += 1;
      delete target.winner;
      return report(name, target);
    },
  },
};

// lasthit rules test examples/rules/arena.js
export const tests = {
  "the last points win, who comes later is told, and the target is back": [
    { who: "keeper", role: "server", op: "spawn", contest: "baron", args: { hp: 500 }, expect: { outcome: "granted", round: 1 } },
    { who: "ann", op: "hit", contest: "baron", args: { damage: 300 }, expect: { body: { target: "baron", hp: 200, max_hp: 500, round: 1, damage: 300 } } },
    { who: "bob", op: "hit", contest: "baron", args: { damage: 300 }, expect: { outcome: "granted", body: { target: "baron", hp: 0, max_hp: 500, round: 1, damage: 300, overkill: 100 } } },
    { who: "ann", op: "hit", contest: "baron", args: { damage: 1 }, expect: { outcome: "denied", reason: "late" } },
    { after: 9_000, fires: [] },
    { after: 1_000, fires: [{ timer: "respawn:baron", round: 2, body: { target: "baron", hp: 500, max_hp: 500, round: 2 } }] },
    { who: "ann", op: "hit", contest: "baron", args: { damage: 500 }, expect: { outcome: "granted", round: 2 } },
  ],
  "a target that the server sets again does not come back a second time": [
    { who: "keeper", role: "server", op: "spawn", contest: "baron", args: { hp: 1, respawn_ms: 1_000 } },
    { who: "ann", op: "hit", contest: "baron", args: { damage: 1 } },
    { who: "keeper", op: "spawn", contest: "baron", args: { hp: 5 }, expect: { outcome: "granted", round: 2 } },
    { after: 5_000, fires: [] },
    { who: "keeper", op: "despawn", contest: "baron" },
    { who: "ann", op: "hit", contest: "baron", args: { damage: 1 }, expect: { reason: "unknown_target" } },
  ],
  "what does not fit is denied, to its sender alone": [
    { who: "ann", op: "spawn", contest: "baron", args: { hp: 5 }, expect: { reason: "server_only", to: "sender" } },
    { who: "keeper", role: "server", op: "spawn", contest: "baron", args: { hp: 0 }, expect: { reason: "bad_hp" } },
    { who: "keeper", op: "spawn", contest: "baron", args: { hp: 5, respawn_ms: 1 }, expect: { reason: "bad_respawn" } },
    { who: "ann", op: "hit", args: { damage: 1 }, expect: { reason: "no_contest" } },
    { who: "ann", op: "hit", contest: "baron", args: { damage: 0 }, expect: { reason: "bad_args" } },
    { who: "ann", op: "hit", contest: "__proto__", args: { damage: 1 }, expect: { reason: "unknown_target" } },
    { who: "ann", op: "fly", expect: { reason: "unknown_op" } },
  ],
};
