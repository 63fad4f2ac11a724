// The rival that needs no queue: all players of a room are connected to this process, which decides in memory, in the order
// in which it reads. Protocol: /?room=NAME, {"id", "contest"} in, {"id", "won"} out. PORT: where it listens.
import { WebSocketServer } from 'ws';
const rooms = new Map(); // room -> contest -> the socket that has it
const wss = new WebSocketServer({ port: Number(process.env.PORT), host: '127.0.0.1' });
wss.on('connection', (ws, req) => {
  const name = new URL(req.url, 'http://x').searchParams.get('room') ?? 'r0';
  let room = rooms.get(name);
  if (!room) rooms.set(name, room = { players: 0, winners: new Map() });
  room.players++;
  ws.on('message', data => {
    const { id, contest } = JSON.parse(data);
    if (!room.winners.has(contest)) room.winners.set(contest, ws);
    ws.send(JSON.stringify({ id, won: room.winners.get(contest) === ws }));
  });
  ws.on('close', () => { if (--room.players === 0) rooms.delete(name); });
  ws.on('error', () => ws.terminate());
});
wss.on('listening', () => console.log('ready'));
