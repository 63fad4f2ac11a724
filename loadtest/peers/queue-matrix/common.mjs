// Shared by the Node harnesses: settings, load shapes and the worker's tally.
import { performance } from 'node:perf_hooks';
const env = process.env;
export const cfg = {
  url: env.REDIS_URL, mode: env.MODE ?? 'throughput', n: Number(env.N ?? 100000), rooms: Number(env.ROOMS ?? 100),
  conc: Number(env.CONC ?? 16), handler: env.HANDLER ?? 'empty', layout: env.LAYOUT ?? 'single',
  bulk: Number(env.BULK ?? 500), rate: Number(env.RATE ?? 1000), stallMs: Number(env.STALL_MS ?? 15000),
};
const BODY = 'x'.repeat(64);
export const now = () => Number(process.hrtime.bigint() / 1000n); // CLOCK_MONOTONIC, microseconds: one clock for all processes
// Rooms in a fixed pseudo-random order (the same in src/part/queue.rs), so that neighbours in the queue are sometimes of one room.
const mix = (i) => { let h = Math.imul(i + 1, 0x9e3779b1); h ^= h >>> 15; h = Math.imul(h, 0x85ebca77); return ((h ^ (h >>> 13)) >>> 0) % cfg.rooms; };
const next = new Map();
export const job = (i) => { const room = mix(i), seq = next.get(room) ?? 0; next.set(room, seq + 1); return { room, seq, t: now(), body: BODY }; };
export const jobs = (from, to) => Array.from({ length: to - from }, (_, k) => job(from + k));

// Open loop: `rate` adds a second, never waiting for the previous add.
export async function openLoop(add) {
  const start = performance.now(); let sent = 0; const pending = [];
  while (sent < cfg.n) {
    const due = Math.min(cfg.n, Math.floor((performance.now() - start) * cfg.rate / 1000));
    while (sent < due) pending.push(add(job(sent++)));
    await new Promise((r) => setTimeout(r, 1));
  }
  await Promise.all(pending);
}

// 0, 1 or 2 ms, each a third of the time.
const pause = () => { const ms = Math.floor(Math.random() * 3); return new Promise((r) => (ms ? setTimeout(r, ms) : setImmediate(r))); };

const seen = new Set(), maxStart = new Map(), maxEnd = new Map(), open = new Map(), lat = [];
let unique = 0, doubled = 0, startInv = 0, endInv = 0, overlap = 0, first = Infinity, last = 0, progress = Date.now();
export async function handle({ room, seq, t }) {
  const at = now(), key = room * 1e7 + seq;
  if (t < first) first = t;
  if (seen.has(key)) doubled++; else { seen.add(key); unique++; lat.push([t, at - t]); }
  if (seq < (maxStart.get(room) ?? -1)) startInv++; else maxStart.set(room, seq);
  const running = open.get(room) ?? 0;
  if (running > 0) overlap++;
  open.set(room, running + 1);
  if (cfg.handler === 'rand') await pause();
  open.set(room, open.get(room) - 1);
  if (seq < (maxEnd.get(room) ?? -1)) endInv++; else maxEnd.set(room, seq);
  last = now(); progress = Date.now();
}
// Prints one JSON line when every job ran (plus a second to catch doubles) or nothing moved for stallMs.
export async function report(name) {
  console.log('READY');
  while (unique === 0) await new Promise((r) => setTimeout(r, 50));
  while (unique < cfg.n && Date.now() - progress < cfg.stallMs) await new Promise((r) => setTimeout(r, 50));
  await new Promise((r) => setTimeout(r, 1000));
  const warm = lat.filter(([t]) => t - first >= 1e6).map((x) => x[1]).sort((a, b) => a - b);
  const q = (p) => (warm.length ? warm[Math.min(warm.length - 1, Math.floor(warm.length * p))] : null);
  console.log(JSON.stringify({ name, mode: cfg.mode, conc: cfg.conc, handler: cfg.handler, n: cfg.n,
    jobs_per_s: Math.round(unique / ((last - first) / 1e6)), start_inv: startInv, end_inv: endInv, overlap, lost: cfg.n - unique, doubled,
    ...(cfg.mode === 'latency' && { p50_us: q(0.5), p99_us: q(0.99), max_us: q(1) }) }));
  process.exit(0);
}
