// The usual stack's worker: resolves claims in the order in which BullMQ hands the jobs over.
import { Worker } from 'bullmq';
import Redis from 'ioredis';
const url = process.env.REDIS_URL ?? 'redis://127.0.0.1:7001';
const opts = { maxRetriesPerRequest: null };
const concurrency = Number(process.env.CONCURRENCY ?? 4);
const rooms = Number(process.env.ROOMS ?? 1);
const pub = new Redis(url, opts), conn = new Redis(url, opts);
const winner = new Map(); // room/contest -> socketId
const handle = async job => {
  const { data } = job;
  if (job.name !== 'onData') return;
  const ev = JSON.parse(data.data), key = `${data.room}/${ev.contest}`;
  if (!winner.has(key)) winner.set(key, data.socketId);
  await pub.publish(`out:${data.gateway}`, JSON.stringify({ socketId: data.socketId, id: ev.id, won: winner.get(key) === data.socketId }));
};
const names = process.env.QUEUE_PER_ROOM === '1' ? Array.from({ length: rooms }, (_, i) => `on-r${i}`) : ['on'];
const workers = names.map(n => new Worker(n, handle, { connection: conn, concurrency, removeOnComplete: { count: 4 }, removeOnFail: { count: 4 } }));
for (const w of workers) w.on('error', e => console.error(e.message));
await Promise.all(workers.map(w => w.waitUntilReady()));
console.log('ready');
