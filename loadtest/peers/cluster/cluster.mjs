// How a Node cluster spreads connections over its processes: WebSockets that are opened and held, nothing else. No packages.
// PORT: where it listens. STATS_PORT: where it says how many sessions each process has, as JSON. WORKERS: how many processes.
// ACCEPT: `shared` lets all processes accept from one socket (SCHED_NONE); otherwise the primary passes connections on in turn (SCHED_RR).
import cluster from 'node:cluster';
import { createHash } from 'node:crypto';
import { createServer } from 'node:http';

const GUID = '258EAFA5-E914-47DA-95CA-C5AB0DC85B11';

if (cluster.isPrimary) {
  cluster.schedulingPolicy = process.env.ACCEPT === 'shared' ? cluster.SCHED_NONE : cluster.SCHED_RR;
  const places = [];
  const start = place => {
    const worker = cluster.fork();
    Object.assign(place, { pid: worker.process.pid, cpu: 0, sessions: 0, phase: 'starting' });
    worker.on('message', sessions => { place.sessions = sessions; });
    worker.once('listening', () => {
      place.phase = 'ready';
      if (places.every(other => other.phase === 'ready')) console.log('ready');
    });
    worker.once('exit', () => start(place));
  };
  for (let n = 1; n <= Number(process.env.WORKERS); n++) places.push({ name: `gateway-${n}` });
  places.forEach(start);
  createServer((_, response) => response.end(JSON.stringify(places))).listen(Number(process.env.STATS_PORT), '127.0.0.1');
} else {
  let sessions = 0;
  const tell = change => { sessions += change; process.send(sessions); };
  const server = createServer();
  server.on('upgrade', (request, socket) => {
    const accept = createHash('sha1').update(request.headers['sec-websocket-key'] + GUID).digest('base64');
    socket.write('HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n'
      + `Sec-WebSocket-Accept: ${accept}\r\n\r\n`);
    tell(1);
    // Whatever a client says here is its goodbye.
    socket.on('data', () => socket.end());
    socket.on('error', () => socket.destroy());
    socket.on('close', () => tell(-1));
  });
  server.listen({ port: Number(process.env.PORT), host: '127.0.0.1', backlog: 4096 });
}
