/** Tests of lasthit.js against a scripted server that asks it to move. Run by test.mjs. */

import assert from 'node:assert/strict';
import { scripted, Scripted, sleep, until } from './scripted.mjs';

/** A room on its first connection, welcomed at seq 4, with a next connection that is not welcomed yet. */
async function moving(within_ms = 5_000, options = {}) {
  const { room, socket } = await scripted(options);
  room.statuses = [];
  room.on('status', (status) => room.statuses.push(status));
  const one = await socket(1);
  one.welcome({ session: 's-1', seq: 4, limits: { room_ids: 9 } });
  one.say({ t: 'move', within_ms });
  return { room, socket, one, two: await socket(2) };
}

const RESUMED = { session: 's-2', seq: 4, resumed: true, limits: { room_ids: 9 } };
const ids = (socket) => socket.sent.map(({ id }) => id);

export const moves = {
  async 'a move plays on with the old connection and changes over when nothing is unanswered'() {
    const { room, one, two } = await moving();
    assert.equal(two.url.searchParams.get('since'), '1.4');
    assert.equal(two.url.host, 'test:1');
    const acts = [room.act('a', { id: 'a1' }), room.act('b', { id: 'b1' })];
    two.welcome(RESUMED);
    acts.push(room.act('c', { id: 'c1' }));
    assert.deepEqual([ids(one), ids(two)], [['a1', 'b1', 'c1'], []]);
    // Seen by all, and told by the next connection first.
    two.verdict(5, { id: 'a1', player: 'ann', session: 's-1' });
    two.verdict(9, { from: 6 });
    assert.deepEqual(room.seen, []);
    one.verdict(5, { id: 'a1', player: 'ann', session: 's-1' });
    one.verdict(6, { id: 'b1', player: 'ann', session: 's-1', outcome: 'denied' });
    assert.ok(!one.over, 'c1 is unanswered');
    one.verdict(7, { id: 'c1', player: 'ann', session: 's-1' });
    assert.ok(one.over, 'nothing is unanswered');
    assert.deepEqual((await Promise.all(acts)).map(({ seq }) => seq), [5, 6, 7]);
    assert.deepEqual([room.seen, room.since], [[5, 6, 7, 9], { era: 1, seq: 9 }]);
    assert.equal(room.welcome.session, 's-2');
    const next = room.act('d', { id: 'd1' });
    assert.deepEqual([ids(one).length, two.sent], [3, [{ op: 'd', id: 'd1' }]]);
    one.verdict(10);
    assert.deepEqual(room.seen, [5, 6, 7, 9], 'the old connection is over');
    two.verdict(10, { id: 'd1', player: 'ann', session: 's-2' });
    assert.equal((await next).seq, 10);
    assert.deepEqual(room.statuses, ['open'], 'never unconnected');
    room.close();
    assert.ok(two.over);
  },

  async 'whoever sends on and on pauses when the time of a move is over, and sends the unanswered again'() {
    const { room, one, two } = await moving(30);
    const acts = ['a1', 'b1', 'c1'].map((id) => room.act('a', { id }));
    two.welcome(RESUMED);
    await sleep(60);
    assert.ok(!one.over, 'the answers may still come');
    acts.push(room.act('d', { id: 'd1' }));
    assert.deepEqual([ids(one), ids(two)], [['a1', 'b1', 'c1'], []]);
    one.verdict(5, { id: 'a1', player: 'ann', session: 's-1' });
    two.verdict(5, { id: 'a1', player: 'ann', session: 's-1' });
    two.verdict(6, { id: 'b1', player: 'ann', session: 's-1' });
    await until('the change', () => one.over, 2_000);
    assert.deepEqual(two.sent, [{ op: 'a', id: 'c1', seen: '1.4' }, { op: 'd', id: 'd1' }], 'b1 was answered in what was kept');
    two.verdict(7, { id: 'c1', player: 'ann', session: 's-1' });
    two.verdict(8, { id: 'd1', player: 'ann', session: 's-2' });
    two.verdict(9, { id: 'c1', player: 'ann', session: 's-2', repeat_of: 7 });
    assert.deepEqual((await Promise.all(acts)).map(({ seq }) => seq), [5, 6, 7, 8]);
    assert.deepEqual(room.seen, [5, 6, 7, 8, 9]);
    room.close();
  },

  async 'who is late changes over within the pause as soon as nothing is unanswered'() {
    const { room, one, two } = await moving(1);
    const act = room.act('a', { id: 'a1' });
    await sleep(20);
    two.welcome(RESUMED);
    const held = room.act('b', { id: 'b1' });
    assert.deepEqual(ids(one), ['a1']);
    one.verdict(5, { id: 'a1', player: 'ann', session: 's-1' });
    assert.ok(one.over);
    assert.deepEqual([(await act).seq, ids(two)], [5, ['b1']]);
    two.verdict(6, { id: 'b1', player: 'ann' });
    await held;
    room.close();
  },

  async 'an action that is refused for now holds up no move, and is sent again after it'() {
    const { room, one, two } = await moving(5_000, { delayMs: 30, delayMaxMs: 30 });
    const act = room.act('a', { id: 'a1' });
    two.welcome(RESUMED);
    one.say({ t: 'error', code: 'busy', id: 'a1', message: 'the room is busy' });
    assert.ok(one.over);
    assert.deepEqual(ids(two), ['a1']);
    two.verdict(5, { id: 'a1', player: 'ann' });
    await act;
    room.close();
  },

  async 'a next connection that does not resume is a fresh start'() {
    const { room, one, two } = await moving();
    const gone = [];
    room.on('gone', ({ state }) => gone.push(state));
    const act = room.act('a', { id: 'a1' });
    two.welcome({ ...RESUMED, era: 2, seq: 1, resumed: false, gone: true, state: 'new' });
    assert.ok(one.over);
    assert.deepEqual([gone, room.since, two.sent], [['new'], { era: 2, seq: 1 }, [{ op: 'a', id: 'a1', seen: '1.4' }]]);
    two.verdict(2, { id: 'a1', player: 'ann' });
    await act;
    room.close();
  },

  async 'a next connection that fails is tried again, until it is too late'() {
    const { room, socket, one, two } = await moving(100);
    two.end(1006);
    const three = await socket(3);
    const act = room.act('a', { id: 'a1' });
    three.welcome({ ...RESUMED, session: 's-3' });
    await sleep(130);
    const held = room.act('b', { id: 'b1' });
    assert.deepEqual(ids(one), ['a1']);
    three.end(1013);
    assert.deepEqual(ids(one), ['a1', 'b1'], 'it stays, and goes on');
    one.verdict(5, { id: 'a1', player: 'ann' });
    one.verdict(6, { id: 'b1', player: 'ann' });
    await Promise.all([act, held]);
    await sleep(30);
    assert.equal(Scripted.opened.length, 3, 'the move is over');
    one.say({ t: 'move', within_ms: 1_000 });
    (await socket(4)).welcome({ ...RESUMED, session: 's-4', seq: 6 });
    assert.equal(room.welcome.session, 's-4');
    room.close();
  },

  async 'an old connection that ends during its move leaves its place to the next'() {
    for (const welcomed of [true, false]) {
      const { room, socket, one, two } = await moving();
      const act = room.act('a', { id: 'a1' });
      if (welcomed) two.welcome(RESUMED);
      one.verdict(6, { from: 5 });
      one.end(4504);
      if (!welcomed) two.welcome(RESUMED);
      two.verdict(5);
      two.verdict(6);
      two.verdict(7);
      assert.deepEqual([room.seen, two.sent], [[6, 7], [{ op: 'a', id: 'a1', seen: '1.4' }]]);
      two.verdict(8, { id: 'a1', player: 'ann', repeat_of: 5 });
      await act;
      assert.equal(room.status, 'open');
      two.end(1006);
      assert.equal((await socket(3)).url.searchParams.get('since'), '1.8');
      room.close();
    }
  },

  async 'a session that is closed as moved reconnects at once'() {
    const { room, socket } = await scripted({ delayMs: 60_000, delayMaxMs: 60_000, moves: 'ignore' });
    const one = await socket(1);
    one.welcome({ seq: 4 });
    one.say({ t: 'move', within_ms: 10 });
    const act = room.act('a', { id: 'a1' });
    await sleep(20);
    assert.equal(Scripted.opened.length, 1, 'the wish is ignored');
    one.end(4504);
    const two = await socket(2);
    assert.equal(two.url.searchParams.get('since'), '1.4');
    two.welcome(RESUMED);
    assert.deepEqual(ids(two), ['a1']);
    two.verdict(5, { id: 'a1', player: 'ann' });
    await act;
    room.close();
  },

  async 'what is kept of the next connection is bounded'() {
    const { room, one, two } = await moving(60_000);
    const act = room.act('a', { id: 'a1' });
    two.welcome(RESUMED);
    for (let seq = 5; seq < 5 + 1_024; seq += 1) two.verdict(seq);
    for (let seq = 5; seq < 5 + 1_000; seq += 1) one.verdict(seq);
    for (let seq = 1_029; seq < 2_028; seq += 1) two.verdict(seq);
    const early = room.act('b', { id: 'b1' });
    assert.deepEqual(ids(one), ['a1', 'b1'], 'what the old connection has said by now is not kept');
    for (let seq = 2_028; seq < 2_031; seq += 1) two.verdict(seq);
    const held = room.act('c', { id: 'c1' });
    assert.deepEqual(ids(one), ['a1', 'b1'], 'too much is kept: it changes over');
    await until('the change', () => one.over, 2_000);
    assert.deepEqual(ids(two), ['a1', 'b1', 'c1']);
    for (const [n, id] of ids(two).entries()) two.verdict(2_031 + n, { id, player: 'ann' });
    await Promise.all([act, early, held]);
    assert.deepEqual(room.seen, Array.from({ length: 2_029 }, (_, n) => n + 5));
    room.close();
  },

  async 'too much is kept during the pause: it changes over at once, and sends the unanswered again'() {
    const { room, one, two } = await moving(1);
    const act = room.act('a', { id: 'a1' });
    two.welcome(RESUMED);
    await sleep(20);
    const held = room.act('b', { id: 'b1' });
    assert.deepEqual(ids(one), ['a1'], 'it pauses');
    for (let seq = 5; seq < 5 + 1_024; seq += 1) two.verdict(seq);
    assert.ok(!one.over, 'as many as are kept');
    two.verdict(5 + 1_024);
    assert.ok(one.over, 'one more, and the pause is over');
    assert.deepEqual(two.sent, [{ op: 'a', id: 'a1', seen: '1.4' }, { op: 'b', id: 'b1' }]);
    assert.deepEqual(room.seen, Array.from({ length: 1_025 }, (_, n) => n + 5), 'nothing of it is missing');
    for (const [n, id] of ['a1', 'b1'].entries()) two.verdict(1_030 + n, { id, player: 'ann' });
    await Promise.all([act, held]);
    room.close();
  },

  async 'a next connection that is welcomed late begins the pause then'() {
    const { room, socket, one, two } = await moving(30, { delayMs: 5, delayMaxMs: 5 });
    const act = room.act('a', { id: 'a1' });
    await sleep(50);
    assert.ok(!one.over && !two.over, 'one that is under way goes on after the time');
    const more = room.act('b', { id: 'b1' });
    assert.deepEqual(ids(one), ['a1', 'b1'], 'and nothing pauses for it yet');
    two.welcome(RESUMED);
    const held = room.act('c', { id: 'c1' });
    assert.deepEqual(ids(one), ['a1', 'b1'], 'now it does');
    one.verdict(5, { id: 'b1', player: 'ann' });
    one.verdict(6, { id: 'a1', player: 'ann' });
    assert.ok(one.over && ids(two).join() === 'c1', 'both are answered');
    two.verdict(7, { id: 'c1', player: 'ann' });
    await Promise.all([act, more, held]);
    assert.equal((await socket(2)), two);
    room.close();
  },

  async 'two moves in a row: what both old connections left unanswered goes to the last, oldest first'() {
    const { room, socket, one, two } = await moving(1);
    const acts = [room.act('a', { id: 'a1' }), room.act('b', { id: 'b1' })];
    two.welcome(RESUMED);
    await until('the first change', () => one.over, 2_000);
    assert.deepEqual(ids(two), ['a1', 'b1']);
    acts.push(room.act('c', { id: 'c1' }));
    two.say({ t: 'move', within_ms: 1 });
    const three = await socket(3);
    assert.equal(three.url.searchParams.get('since'), '1.4');
    three.welcome({ ...RESUMED, session: 's-3' });
    await sleep(20);
    acts.push(room.act('d', { id: 'd1' }));
    // Only the second is answered, and told by both.
    two.verdict(5, { id: 'b1', player: 'ann', session: 's-1' });
    three.verdict(5, { id: 'b1', player: 'ann', session: 's-1' });
    await until('the second change', () => two.over, 2_000);
    assert.deepEqual(three.sent, [{ op: 'a', id: 'a1', seen: '1.4' }, { op: 'c', id: 'c1', seen: '1.4' }, { op: 'd', id: 'd1' }]);
    for (const [n, id] of ['a1', 'c1', 'd1'].entries()) three.verdict(6 + n, { id, player: 'ann', session: 's-3' });
    assert.deepEqual((await Promise.all(acts)).map(({ seq }) => seq), [6, 5, 7, 8]);
    assert.deepEqual([room.seen, room.statuses], [[5, 6, 7, 8], ['open']], 'never unconnected');
    room.close();
  },

  async 'an old connection that ends in the pause leaves its place at once'() {
    const { room, one, two } = await moving(1);
    const act = room.act('a', { id: 'a1' });
    two.welcome(RESUMED);
    await sleep(20);
    const held = room.act('b', { id: 'b1' });
    one.end(4504);
    assert.deepEqual([ids(two), room.statuses], [['a1', 'b1'], ['open']]);
    for (const [n, id] of ['a1', 'b1'].entries()) two.verdict(5 + n, { id, player: 'ann' });
    await Promise.all([act, held]);
    await sleep(300);
    assert.ok(!two.over, 'the pause has ended with it');
    room.close();
  },

  async 'a move during a move waits, and its address is for one connection'() {
    const { room, socket, one, two } = await moving();
    one.say({ t: 'move', within_ms: 5_000, url: 'ws://elsewhere:2' });
    two.welcome(RESUMED);
    assert.ok(one.over);
    assert.equal(Scripted.opened.length, 2);
    const act = room.act('a', { id: 'a1' });
    two.say({ t: 'move', within_ms: 5_000, url: 'ws://elsewhere:2' });
    const three = await socket(3);
    assert.equal(three.url.host, 'elsewhere:2');
    three.welcome({ ...RESUMED, session: 's-3' });
    three.say({ t: 'move', within_ms: 5_000 });
    assert.equal(Scripted.opened.length, 3);
    two.verdict(5, { id: 'a1', player: 'ann' });
    await act;
    const four = await socket(4);
    assert.equal(four.url.host, 'test:1', 'the move that the next connection was asked for');
    three.end(1006);
    four.welcome({ ...RESUMED, session: 's-4', seq: 5 });
    assert.equal(room.welcome.session, 's-4');
    room.close();
    assert.ok(four.over);
  },
};
