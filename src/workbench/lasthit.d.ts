// The types of a program for lasthit: rules in JavaScript. `lasthit rules new` has written this file.
//
// In JavaScript:  /** @type {import("./lasthit").Program} */ const program = { ... }; export default program;
// In TypeScript:  import type { Program } from "./lasthit"; export default { ... } satisfies Program;
//                 and bundle it: npx esbuild baron.ts --bundle --format=esm --outfile=baron.bundled.js

/** Plain data: what a state, a body, arguments and the data of a timer are made of. Numbers are finite. */
export type Data = null | boolean | number | string | Data[] | { [key: string]: Data | undefined };

/** What a handler returns: the body of the verdict, at most 16 KiB as MessagePack. Without one, the verdict has no body. */
export type Body = unknown;

/** What every handler gets. It is valid until the handler returns. */
export interface Common<State = any> {
  /**
   * The room's state: a plain object of plain data, at most 1 MiB. Change it, or assign another one. Nothing else is kept from event
   * to event. If the handler throws, the state is as before.
   */
  state: State;
  /** The room's time: milliseconds since 1970 (UTC), with a fraction. It never goes back. */
  readonly now: number;
  /** A number from 0 up to, and not including, 1. Replay draws the same. `Math.random()` does the same. */
  random(): number;
  /** The event wins the current round of the contest. The verdict is void (`second_winner`) if the round is won already. */
  win(contest?: string): void;
  /** The event is denied as `late`: the verdict says by how much. It is void (`no_winner`) if nobody has won the round. */
  late(contest?: string): void;
  /** The event is denied. `reason` is a short word, 1 to 200 bytes. Only the sender gets the verdict, unless `to` says otherwise. */
  deny(reason: string): void;
  /** A new round of the contest begins with this event. */
  nextRound(contest?: string): void;
  /** Who gets the verdict: everybody (the default), the sender alone, servers alone, or these players (at most 256) and the sender. */
  to(audience: "room" | "sender" | "server" | string[]): void;
  /**
   * Sets the timer of this name (1 to 64 bytes), or sets it anew. A room has at most 256. `timers.NAME` is called when it is due; of
   * a name such as `respawn:baron` that is `timers.respawn`.
   */
  timer(name: string, when: When): void;
  /** Cancels the timer of this name. If there is none, nothing happens. */
  cancel(name: string): void;
}

/** What the handler of an event of a session gets. */
export interface Context<State = any> extends Common<State> {
  /** Who acts. */
  readonly player: string;
  readonly role: "player" | "server";
  /** The name of the session. */
  readonly session: string;
  /** How many sessions the player has inside: that of `onOpen` counts, that of `onClose` too. */
  readonly sessions: number;
  /** What the action contests; `null` if it names nothing, and for whatever is no action. */
  readonly contest: string | null;
}

/** What the handler of a timer gets: nobody acts. */
export interface TimerContext<State = any> extends Common<State> {
  readonly player: null;
  readonly role: null;
  readonly session: null;
  readonly sessions: 0;
  readonly contest: null;
}

/** When a timer is due: 16 ms to 30 days ahead. `data` comes back to the handler: plain data, at most 1 KiB as MessagePack. */
export type When =
  /** Once, so many milliseconds after this event. */
  | { after: number; data?: Data }
  /** Once, at this moment: milliseconds since 1970 in room time, or a Date. */
  | { at: number | Date; data?: Data }
  /** Again and again, each time so many milliseconds after the last. */
  | { every: number; data?: Data }
  /** Five fields (minute, hour, day, month, weekday) or six (second first), at a fixed offset such as "+09:00" [default: UTC]. */
  | { cron: string; offset?: string; data?: Data };

/** A timer that is due. */
export interface Due<D = any> {
  /** What the timer was set with; `null` if with nothing. */
  data: D;
  /** When it was due, in milliseconds since 1970. */
  due: number;
  /** How many nanoseconds later the worker noticed it. */
  late_ns: number;
  /** Of a repeating timer: how many moments were noticed too late to fire. */
  missed: number;
}

/** The default export of a program. */
export interface Program<State = any> {
  /** 1 to 64 characters: A-Z a-z 0-9 . _ - A room is never continued with rules of another name. */
  name: string;
  /** A whole number from 1 on. Raise it with each change of what is decided, or of the state. */
  version: number;
  /** The state of a new room. Without it: an empty object. */
  state?(): State;
  /** A session has joined. It alone gets what this returns, as the `state` of its welcome. */
  onOpen?(ctx: Context<State>): Body;
  /** An action that has no handler in `on`. Without it, such an action is denied as `unknown_op`. */
  onData?(ctx: Context<State>, args: any, op: string): Body;
  /** A session is ending: `code` is the close code of its WebSocket. */
  onEnd?(ctx: Context<State>, end: { code: number }): Body;
  /** A session broke. */
  onError?(ctx: Context<State>, error: { reason: string }): Body;
  /** A session is over. Every session has one, as its last event. */
  onClose?(ctx: Context<State>): Body;
  /** The actions, by their `op`. */
  on?: { [op: string]: (ctx: Context<State>, args: any) => Body };
  /** The timers, by their name up to the first colon. */
  timers?: { [name: string]: (ctx: TimerContext<State>, due: Due) => Body };
  /** The state that this version makes of one of version `from`. */
  migrate?(state: any, from: number): State;
}

/** `export const tests`: scenarios for `lasthit rules test`. Each is played in a room of its own that begins at 2026-01-01 00:00 UTC. */
export interface Tests {
  [scenario: string]: Step[];
}

/** An action, another event of a session, or time that passes. */
export interface Step {
  /** Milliseconds of room time since the step before: 0 to 400 days [default: 1]. Timers that are due on the way fire first. */
  after?: number;
  /** The player. A player who is not inside joins first. */
  who?: string;
  /** Which of the player's sessions: 1, 2, ... [default: 1] */
  session?: number;
  /** The role that the session joins with [default: player]. A step of a session that is inside need not repeat it. */
  role?: "player" | "server";
  /** An action. */
  op?: string;
  contest?: string | null;
  args?: Data;
  /** Whom a server acts for. */
  as?: string;
  /** An event of the session, instead of `op`. */
  event?: "open" | "end" | "error" | "close";
  /** Of an `end` [default: 1000]. */
  code?: number;
  /** Of an `error`. */
  reason?: string;
  /** What the verdict is like. What is not named is not compared. A void verdict fails the test unless it is expected. */
  expect?: Expected;
  /** The timers that fire on the way, in their order, all of them: names, or their verdicts. */
  fires?: (string | ({ timer: string } & Expected))[];
}

/** Fields of a verdict. `body` is compared as a whole. */
export interface Expected {
  outcome?: "granted" | "denied" | "void";
  reason?: string;
  contest?: string;
  round?: number;
  body?: Data;
  to?: "room" | "sender" | "server" | string[];
}
