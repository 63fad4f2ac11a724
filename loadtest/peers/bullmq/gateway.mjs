// The usual stack's gateway: every socket event becomes a BullMQ job; verdicts come back over Redis pub/sub.
import { Queue } from 'bullmq';
import Redis from 'ioredis';
import { WebSocketServer } from 'ws';
const url = process.env.REDIS_URL ?? 'redis://127.0.0.1:7001';
const port = Number(process.env.PORT ?? 8101);
const id = process.env.GATEWAY_ID ?? 'g1';
const opts = { maxRetriesPerRequest: null };
const sharded = process.env.QUEUE_PER_ROOM === '1';
const conn = new Redis(url, opts);
const queues = new Map();
const queueOf = room => {
  const name = sharded ? `on-${room}` : 'on';
  let q = queues.get(name);
  if (!q) queues.set(name, q = new Queue(name, { connection: conn, defaultJobOptions: { removeOnComplete: { count: 4 }, removeOnFail: { count: 4 } } }));
  return q;
};
const sockets = new Map(); let n = 0;
const sub = new Redis(url, opts);
await sub.subscribe(`out:${id}`);
sub.on('message', (_c, m) => { const { socketId, ...v } = JSON.parse(m); sockets.get(socketId)?.send(JSON.stringify(v)); });
const wss = new WebSocketServer({ port, host: '127.0.0.1' });
wss.on('connection', (ws, req) => {
  const room = new URL(req.url, 'http://x').searchParams.get('room') ?? 'r0';
  const socketId = `${id}:${++n}`; sockets.set(socketId, ws);
  ws.on('message', data => { queueOf(room).add('onData', { gateway: id, room, socketId, at: process.hrtime.bigint().toString(), data: data.toString() }).catch(e => console.error(e.message)); });
  ws.on('close', () => { sockets.delete(socketId); queueOf(room).add('onClose', { gateway: id, room, socketId, data: '' }).catch(() => {}); });
});
wss.on('listening', () => console.log('ready'));
