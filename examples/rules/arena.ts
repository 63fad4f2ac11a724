// The arena of arena.js, in TypeScript: the same rules, with types. A worker takes JavaScript, so it is bundled to one file:
//
//   npx esbuild arena.ts --bundle --format=esm --outfile=arena.bundled.js
//   lasthit serve --rules arena.bundled.js
//
// In a folder that `lasthit rules new` has made, the types are in "./lasthit".

import type { Context, Program, Tests, TimerContext } from "../../src/workbench/lasthit";

interface Target {
  hp: number;
  /** 0 when the target was taken away: then only its round is kept. */
  max_hp: number;
  round: number;
  respawn_ms?: number;
  /** Who took its last points. */
  winner?: string;
}

interface Arena {
  targets: Record<string, Target>;
}

const TARGETS_MAX = 64;
const NAME_MAX = 48;
const HP_MAX = 1e12;
const DAMAGE_MAX = 1e9;
const RESPAWN_MS = 10_000;

/** Whether it is a whole number from `least` to `most`. */
function isWhole(value: unknown, least: number, most: number): value is number {
  return typeof value === "number" && Number.isInteger(value) && value >= least && value <= most;
}

/** A target that is there, or was; `undefined` for a name that no target ever had. */
function known(ctx: Context<Arena> | TimerContext<Arena>, name: string): Target | undefined {
  return Object.hasOwn(ctx.state.targets, name) ? ctx.state.targets[name] : undefined;
}

/** What everybody sees of a target. */
function report(name: string, { hp, max_hp, round }: Target) {
  return { target: name, hp, max_hp, round };
}

export default {
  name: "arena",
  version: 1,

  state: (): Arena => ({ targets: {} }),

  onOpen(ctx) {
    const targets: Record<string, Partial<Target>> = {};
    for (const [name, { hp, max_hp, round, winner }] of Object.entries(ctx.state.targets)) {
      if (max_hp > 0) targets[name] = { hp, max_hp, round, winner };
    }
    return { targets };
  },

  on: {
    spawn(ctx, args?: { hp?: unknown; respawn_ms?: unknown }) {
      if (ctx.role !== "server") return ctx.deny("server_only");
      const name = ctx.contest;
      if (name === null || name.length > NAME_MAX) return ctx.deny("no_contest");
      const hp = args?.hp;
      if (!isWhole(hp, 1, HP_MAX)) return ctx.deny("bad_hp");
      const respawn_ms = args?.respawn_ms ?? RESPAWN_MS;
      if (!isWhole(respawn_ms, 100, 86_400_000)) return ctx.deny("bad_respawn");
      const before = known(ctx, name);
      if (before && before.hp > 0) return ctx.deny("already_spawned");
      if (!before && Object.keys(ctx.state.targets).length >= TARGETS_MAX) return ctx.deny("too_many_targets");
      ctx.cancel(`respawn:${name}`);
      if (before) ctx.nextRound();
      const target: Target = { hp, max_hp: hp, respawn_ms, round: (before?.round ?? 0) + 1 };
      ctx.state.targets[name] = target;
      return report(name, target);
    },

    despawn(ctx) {
      if (ctx.role !== "server") return ctx.deny("server_only");
      const name = ctx.contest;
      const target = name === null ? undefined : known(ctx, name);
      if (name === null || !target || target.max_hp === 0) return ctx.deny("unknown_target");
      ctx.cancel(`respawn:${name}`);
      // Its round stays: no round has a second winner.
      ctx.state.targets[name] = { hp: 0, max_hp: 0, round: target.round };
      return report(name, target);
    },

    hit(ctx, args?: { damage?: unknown }) {
      const name = ctx.contest;
      if (name === null) return ctx.deny("no_contest");
      const damage = args?.damage;
      if (!isWhole(damage, 1, DAMAGE_MAX)) return ctx.deny("bad_args");
      const target = known(ctx, name);
      if (!target || target.max_hp === 0) return ctx.deny("unknown_target");
      if (target.hp === 0) {
        ctx.late();
        return { ...report(name, target), damage };
      }
      const overkill = damage - target.hp;
      target.hp = Math.max(0, target.hp - damage);
      if (target.hp > 0) return { ...report(name, target), damage };
      ctx.win();
      target.winner = ctx.player;
      ctx.timer(`respawn:${name}`, { after: target.respawn_ms ?? RESPAWN_MS, data: name });
      return { ...report(name, target), damage, overkill };
    },
  },

  timers: {
    respawn(ctx, { data: name }) {
      const target = ctx.state.targets[name];
      ctx.nextRound(name);
      target.hp = target.max_hp;
      target.round += 1;
      delete target.winner;
      return report(name, target);
    },
  },
} satisfies Program<Arena>;

// lasthit rules test arena.bundled.js
export const tests: Tests = {
  "the last points win, who comes later is told, and the target is back": [
    { who: "keeper", role: "server", op: "spawn", contest: "baron", args: { hp: 500 }, expect: { outcome: "granted", round: 1 } },
    { who: "ann", op: "hit", contest: "baron", args: { damage: 300 }, expect: { outcome: "granted" } },
    { who: "bob", op: "hit", contest: "baron", args: { damage: 300 }, expect: { body: { target: "baron", hp: 0, max_hp: 500, round: 1, damage: 300, overkill: 100 } } },
    { who: "ann", op: "hit", contest: "baron", args: { damage: 1 }, expect: { outcome: "denied", reason: "late" } },
    { after: 10_000, fires: [{ timer: "respawn:baron", round: 2, body: { target: "baron", hp: 500, max_hp: 500, round: 2 } }] },
    { who: "ann", op: "hit", contest: "baron", args: { damage: 500 }, expect: { outcome: "granted", round: 2 } },
  ],
};
