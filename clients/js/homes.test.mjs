/** Tests of lasthit.js where rooms are at home on several hosts. Routes come from servers on ports of their own. Run by test.mjs. */

import assert from 'node:assert/strict';
import { createServer } from 'node:http';
import { scripted, Scripted, sleep, until } from './scripted.mjs';

/** A gateway's route. `answer` says what it knows: a home, or an HTTP status. It may be changed. */
async function gateway(answer) {
  const asked = [];
  const server = createServer((request, response) => {
    asked.push(request.url);
    const { answer } = told;
    if (answer === 'silent') return;
    response.writeHead(typeof answer === 'number' ? answer : 200, { 'content-type': 'application/json' });
    response.end(JSON.stringify({ room: 'pit', ...(typeof answer === 'number' ? { url: 'ws://refused:1', home: 1 } : answer) }));
  });
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address();
  const close = () => {
    server.closeAllConnections();
    return new Promise((resolve) => server.close(resolve));
  };
  const told = { answer, asked, host: `127.0.0.1:${port}`, url: `ws://127.0.0.1:${port}`, close };
  return told;
}

/** So long that nothing but going on at once passes in time. */
const NEVER = { delayMs: 600_000, delayMaxMs: 600_000 };
const resumed = (home, seq = 4) => ({ seq, resumed: true, home });
const hosts = () => Scripted.opened.map(({ url }) => url.host);

export const homes = {
  async 'of several addresses the first that knows is asked where the room is at home'() {
    const [gone, unknowing, one] = [await gateway(), await gateway(503), await gateway({ url: 'ws://home:1', home: 5 })];
    await gone.close();
    const { room, socket } = await scripted({ ...NEVER, url: [gone.url, unknowing.url, one.url], since: { era: 1, seq: 4 } });
    const first = await socket(1);
    assert.deepEqual([first.url.host, first.url.pathname, first.url.searchParams.get('since')], ['home:1', '/v1/room/pit', '1.4']);
    assert.deepEqual([unknowing.asked, one.asked], [['/v1/route/pit'], ['/v1/route/pit']]);
    room._options.delayMs = 1;
    first.end(1006);
    assert.equal((await socket(2)).url.host, 'home:1');
    assert.deepEqual([unknowing.asked.length, one.asked.length], [1, 2], 'who knew is asked first');
    room.close();
    await Promise.all([unknowing.close(), one.close()]);
  },

  async 'where nobody knows, the next address is connected to, and then the one after it'() {
    const [one, two] = [await gateway(404), await gateway('silent')];
    const { room, socket } = await scripted({ url: [one.url, two.url], homeMs: 20 });
    (await socket(1)).end(1006);
    (await socket(2)).end(1006);
    await socket(3);
    assert.deepEqual(hosts(), [one.host, two.host, one.host]);
    room.close();
    await Promise.all([one.close(), two.close()]);
  },

  async 'one address is not asked'() {
    const one = await gateway({ url: 'ws://home:1', home: 5 });
    const { room, socket } = await scripted({ url: one.url, homeMs: 20 });
    (await socket(1)).welcome({ seq: 4, home: 5 });
    Scripted.opened[0].end(1006);
    const two = await socket(2);
    await sleep(40);
    assert.ok(!two.over, 'nor has it less time for a welcome');
    two.welcome(resumed(5));
    assert.deepEqual([hosts(), one.asked], [[one.host, one.host], []]);
    room.close();
    await one.close();
  },

  async 'a session that is sent elsewhere goes there at once, and comes back there'() {
    const { room, socket } = await scripted({ ...NEVER });
    (await socket(1)).welcome({ seq: 4, home: 5 });
    const act = room.act('a', { id: 'a1' });
    Scripted.opened[0].end(4421, 'ws://b:2#6');
    const two = await socket(2);
    assert.equal(two.url.href, 'ws://b:2/v1/room/pit?player=ann&since=1.4');
    two.welcome(resumed(6));
    assert.deepEqual(two.sent, [{ op: 'a', id: 'a1' }]);
    two.verdict(5, { id: 'a1', player: 'ann' });
    await act;
    room._options.delayMs = 1;
    two.end(1006);
    const three = await socket(3);
    assert.deepEqual([three.url.host, three.url.searchParams.get('since')], ['b:2', '1.5']);
    three.welcome(resumed(6, 5));
    room.close();
  },

  async 'a circle is followed four times, and then it pauses'() {
    const { room, socket } = await scripted({ ...NEVER });
    const waits = [];
    room.on('status', (status, { code }) => status === 'waiting' && waits.push(code));
    for (let n = 1; n <= 5; n += 1) {
      assert.deepEqual(waits, []);
      (await socket(n)).end(4421, n % 2 ? 'ws://b:2#6' : 'ws://test:1#6');
    }
    assert.deepEqual([hosts(), waits], [['test:1', 'b:2', 'test:1', 'b:2', 'test:1'], [4421]]);
    await sleep(20);
    assert.equal(Scripted.opened.length, 5, 'it pauses');
    room.close();
    // After the pause it begins anew, at its own address.
    const again = await scripted();
    for (let n = 1; n <= 11; n += 1) (await again.socket(n)).end(4421, 'ws://b:2');
    assert.deepEqual(hosts().map((host) => host === 'test:1'), [1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1].map(Boolean));
    again.room.close();
  },

  async 'sessions that are welcomed and sent on soon are a circle, too'() {
    const { room, socket } = await scripted({ ...NEVER });
    for (let n = 1; n <= 5; n += 1) {
      (await socket(n)).welcome(n === 1 ? { seq: 4, home: 5 } : resumed(5));
      Scripted.opened[n - 1].end(4421, `ws://b${n}:2`);
    }
    assert.equal(room.status, 'waiting');
    room.close();
  },

  async 'an answer that is older than what is known is not followed'() {
    const one = await gateway({ url: 'ws://a:1', home: 5 });
    const two = await gateway({ url: 'ws://b:1', home: 7 });
    const { room, socket } = await scripted({ url: [two.url, one.url] });
    (await socket(1)).welcome({ seq: 4, home: 7 });
    Scripted.opened[0].end(1006);
    (await socket(2)).end(1006);
    // The second address answers from a cache.
    two.answer = { url: 'ws://b:1', home: 6 };
    const three = await socket(3);
    assert.deepEqual([three.url.host, one.asked.length], [two.host, 1], 'the address itself, which is told of no cache');
    three.end(4421, 'ws://a:1#5');
    two.answer = { url: 'ws://c:1', home: 8 };
    assert.equal((await socket(4)).url.host, 'c:1');
    Scripted.opened[3].end(4421, 'ws://d:1#9');
    assert.equal((await socket(5)).url.host, 'd:1');
    room.close();
    await Promise.all([one.close(), two.close()]);
  },

  async 'what was known is forgotten when all answers are older: the room was rolled back'() {
    const { room, socket } = await scripted();
    (await socket(1)).welcome({ seq: 4, home: 9 });
    for (let n = 1; n <= 5; n += 1) (await socket(n)).end(4421, 'ws://b:1#6');
    assert.equal((await socket(6)).url.host, 'b:1');
    assert.deepEqual(hosts().slice(0, 5), Array(5).fill('test:1'));
    room.close();
    // A welcome is no old answer.
    const again = await scripted({ ...NEVER });
    (await again.socket(1)).welcome({ seq: 4, home: 9 });
    Scripted.opened[0].end(4421, 'ws://b:1#10');
    (await again.socket(2)).welcome(resumed(6));
    Scripted.opened[1].end(4421, 'ws://c:1#7');
    assert.equal((await again.socket(3)).url.host, 'c:1');
    again.room.close();
  },

  async 'a home that gives no welcome in time is looked for anew'() {
    const one = await gateway({ url: 'ws://dead:1', home: 5 });
    const { room, socket } = await scripted({ url: [one.url, 'ws://127.0.0.1:1'], homeMs: 50 });
    const dead = await socket(1);
    assert.equal(dead.url.host, 'dead:1');
    one.answer = { url: 'ws://alive:1', home: 6 };
    const two = await socket(2);
    assert.ok(dead.over);
    assert.equal(two.url.host, 'alive:1');
    two.welcome({ seq: 4, home: 6 });
    await sleep(70);
    assert.equal(room.status, 'open', 'it was welcomed in time');
    assert.equal(one.asked.length, 2);
    room.close();
    await one.close();
  },

  async 'a reason that is no address, or a bad one, is a failed connection'() {
    const { room, socket } = await scripted({ attempts: 5 });
    const ended = [];
    room.on('status', (status) => status === 'closed' && ended.push(status));
    const reasons = ['', 'http://b:1#6', 'go away', undefined];
    for (const [n, reason] of reasons.entries()) (await socket(n + 1)).end(4421, reason);
    (await socket(5)).end(4421, 'ws://[#6');
    await until('the next attempt', () => Scripted.opened.length === 5 && room.status === 'waiting');
    assert.deepEqual(hosts(), Array(5).fill('test:1'));
    (await socket(6)).end(1006);
    assert.deepEqual(ended, ['closed'], 'each counts as an attempt');
  },

  async 'a room that is closed while it asks opens no connection'() {
    const one = await gateway('silent');
    Scripted.opened = [];
    const { connect } = await import('./lasthit.js');
    const room = connect('pit', 'ann', { url: [one.url, one.url], WebSocket: Scripted, homeMs: 30 });
    await until('the question', () => one.asked.length === 1);
    room.close();
    await sleep(60);
    assert.deepEqual([Scripted.opened, one.asked.length], [[], 1]);
    await one.close();
  },

  async 'a move to a host that is no home is sent on, and the home is remembered'() {
    const { room, socket } = await scripted({ ...NEVER });
    const one = await socket(1);
    one.welcome({ seq: 4, home: 5 });
    one.say({ t: 'move', within_ms: 5_000, url: 'ws://b:2' });
    const two = await socket(2);
    assert.equal(two.url.host, 'b:2');
    two.end(4421, 'ws://c:3#6');
    const three = await socket(3);
    assert.equal(three.url.host, 'c:3');
    three.welcome(resumed(6));
    assert.ok(one.over);
    // The next move says right away where the home is going to be.
    three.say({ t: 'move', within_ms: 5_000, url: 'ws://d:4' });
    const four = await socket(4);
    four.welcome(resumed(7));
    room._options.delayMs = 1;
    four.end(1006);
    assert.equal((await socket(5)).url.host, 'd:4');
    room.close();
  },

  async 'an old connection that is sent elsewhere during its move leaves its place to the next'() {
    const { room, socket } = await scripted({ ...NEVER });
    const one = await socket(1);
    one.welcome({ seq: 4, home: 5 });
    one.say({ t: 'move', within_ms: 5_000, url: 'ws://b:2' });
    const two = await socket(2);
    one.end(4421, 'ws://b:2#6');
    two.welcome(resumed(6));
    assert.deepEqual([room.status, hosts()], ['open', ['test:1', 'b:2']]);
    room.close();
  },
};
