/**
 * Tests of lasthit.js.
 *
 *     node clients/js/test.mjs                              the client against a scripted server
 *     node clients/js/test.mjs --url ws://127.0.0.1:7777    and against a running gateway
 *     node clients/js/test.mjs --spawn "COMMAND"            and against a gateway that is started by COMMAND,
 *          --url ws://127.0.0.1:7777 [--durable]            killed (SIGKILL) in the middle, and started again;
 *                                                           --durable: what was decided before is still there then
 *
 *     node clients/js/test.mjs --url ws://127.0.0.1:7777 --travel 2    and while the gateways behind that address leave
 *                                                           one after the other, until every player has moved twice
 *
 * Where Node has no WebSocket of its own (before 22) it starts itself again with the flag that brings it.
 */

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { connect, LasthitError } from './lasthit.js';
import { homes } from './homes.test.mjs';
import { moves } from './moves.test.mjs';
import { scripted, Scripted, sleep, until } from './scripted.mjs';

const arguments_ = process.argv.slice(2);
const option = (name) => {
  const at = arguments_.indexOf(`--${name}`);
  return at < 0 ? undefined : arguments_[at + 1];
};

const tests = {
  async 'the address says room, player and what was seen'() {
    const { room, socket } = await scripted({ token: () => 'a b', role: 'server', since: { era: 2, seq: 7 } });
    const { url, protocols } = await socket(1);
    assert.equal(url.pathname, '/v1/room/pit');
    assert.deepEqual(Object.fromEntries(url.searchParams), { player: 'ann', role: 'server', token: 'a b', since: '2.7' });
    assert.deepEqual(protocols, ['lasthit.v1.json']);
    room.close();
  },

  async 'an action resolves with its own verdict'() {
    const { room, socket } = await scripted();
    const one = await socket(1);
    const early = room.act('hit', { contest: 'baron', args: { damage: 3 } });
    assert.equal(one.sent.length, 0, 'nothing is sent before the welcome');
    one.welcome({ seq: 4 });
    const [{ id, ...rest }] = one.sent;
    assert.deepEqual(rest, { op: 'hit', contest: 'baron', args: { damage: 3 } });
    one.verdict(5, { id, player: 'bob' });
    one.verdict(6, { id, player: 'ann', outcome: 'denied', reason: 'late' });
    assert.equal((await early).seq, 6);
    assert.deepEqual(room.seen, [5, 6]);
    const other = room.act('hit', { as: 'cid' });
    one.verdict(7, { id: one.sent[1].id, player: 'cid' });
    assert.equal((await other).seq, 7);
    room.close();
  },

  async 'ranges count, repeats do not, and a gap reconnects with since'() {
    const { room, socket } = await scripted();
    const one = await socket(1);
    one.welcome({ era: 3, seq: 4 });
    one.verdict(9, { from: 5 });
    one.verdict(9);
    one.verdict(8, { from: 6 });
    assert.deepEqual([room.seen, room.since], [[9], { era: 3, seq: 9 }]);
    one.verdict(12, { from: 11 });
    assert.deepEqual(room.seen, [9]);
    const two = await socket(2);
    assert.ok(one.over);
    assert.equal(two.url.searchParams.get('since'), '3.9');
    two.welcome({ era: 3, seq: 9, resumed: true });
    one.verdict(10);
    two.verdict(12, { from: 10 });
    assert.deepEqual(room.seen, [9, 12]);
    room.close();
  },

  async 'unanswered actions are sent again under the same id'() {
    const { room, socket } = await scripted();
    const one = await socket(1);
    one.welcome();
    const acts = [room.act('a'), room.act('b')];
    one.verdict(1, { id: one.sent[0].id, player: 'ann' });
    one.end(1006);
    const two = await socket(2);
    two.welcome({ seq: 1, resumed: true });
    assert.deepEqual(two.sent, [one.sent[1]]);
    two.verdict(2, { id: two.sent[0].id, player: 'ann', session: 's-1', repeat_of: 1 });
    assert.equal((await acts[1]).repeat_of, 1);
    room.close();
  },

  async 'gone is told before the welcome, and so is a since that lies ahead'() {
    const { room, socket } = await scripted();
    const told = [];
    room.on('gone', (welcome) => told.push(['gone', welcome.state]));
    room.on('welcome', (welcome) => told.push(['welcome', welcome.seq]));
    (await socket(1)).welcome({ seq: 4 });
    Scripted.opened[0].end(1001);
    (await socket(2)).welcome({ era: 2, seq: 1, gone: true, state: 'new' });
    Scripted.opened[1].end(4400);
    const three = await socket(3);
    assert.equal(three.url.searchParams.get('since'), null);
    three.welcome({ era: 2, seq: 0, state: 'newer' });
    assert.deepEqual(told, [['welcome', 4], ['gone', 'new'], ['welcome', 1], ['gone', 'newer'], ['welcome', 0]]);
    room.close();
  },

  async 'a passing refusal is tried again, another is final'() {
    const { room, socket } = await scripted();
    const refused = [];
    room.on('refused', (error) => refused.push(error.code));
    const one = await socket(1);
    one.welcome();
    const busy = room.act('a', { id: 'a1' });
    one.say({ t: 'error', code: 'busy', id: 'a1', message: 'the room is busy' });
    await until('a second attempt', () => one.sent.length === 2);
    assert.deepEqual(one.sent[0], one.sent[1]);
    one.verdict(1, { id: 'a1', player: 'ann' });
    await busy;
    const bad = room.act('b', { id: 'b1' });
    one.say({ t: 'error', code: 'bad_action', id: 'b1', message: 'no' });
    await assert.rejects(bad, (error) => error instanceof LasthitError && error.code === 'bad_action' && error.id === 'b1');
    assert.deepEqual(refused, ['bad_action']);
    room.close();
  },

  async 'what is never answered reconnects and ends'() {
    const { room } = await scripted({ answerMs: 5 });
    const servant = setInterval(() => {
      const last = Scripted.opened.at(-1);
      if (!last.greeted) last.welcome({ resumed: Scripted.opened.length > 1 });
      last.greeted = true;
    }, 1);
    await assert.rejects(room.act('a'), { code: 'unanswered' });
    clearInterval(servant);
    assert.ok(Scripted.opened.length >= 8, `${Scripted.opened.length} connections`);
    room.close();
  },

  async 'bounds and ends'() {
    const { room, socket } = await scripted();
    const all = Array.from({ length: 256 }, () => room.act('a').catch((error) => error.code));
    await assert.rejects(room.act('a'), { code: 'too_many' });
    (await socket(1)).say('no json');
    await socket(2);
    room.close();
    assert.deepEqual(new Set(await Promise.all(all)), new Set(['closed']));
    await assert.rejects(room.act('a'), { code: 'closed' });
    await sleep(30);
    assert.equal(Scripted.opened.length, 2, 'a closed room stays closed');

    const other = await scripted({ token: 'old' });
    (await other.socket(1)).end(4401);
    assert.equal(other.room.status, 'closed');
    const third = await scripted({ attempts: 2 });
    for (const n of [1, 2, 3]) (await third.socket(n)).end(1006);
    assert.equal(third.room.status, 'closed');
  },

  ...moves,
  ...homes,
};

/** A match on a real gateway; with a command, the gateway is killed in its middle. */
async function match(url, command, durable) {
  let gateway = command && (await start(command, url));
  const name = `js-test-${Date.now().toString(36)}`;
  const keeper = connect(name, 'keeper', { url, role: 'server', delayMaxMs: 500 });
  const players = ['ann', 'bob'].map((player) => connect(name, player, { url, delayMaxMs: 500 }));
  const rooms = [keeper, ...players];
  const seen = rooms.map((room) => {
    const log = [];
    room.on('verdict', (verdict) => log.push(verdict));
    room.on('gone', () => log.push('gone'));
    return log;
  });
  try {
    await until('three welcomes', () => rooms.every((room) => room.status === 'open'));
    assert.equal((await keeper.act('spawn', { contest: 'baron', args: { hp: 1_000 } })).outcome, 'granted');
    assert.deepEqual((await players[0].act('hit', { contest: 'baron', args: { damage: 400 } })).body.hp, 600);
    const hits = await Promise.all(players.map((room) => room.act('hit', { contest: 'baron', args: { damage: 900 } })));
    assert.deepEqual(hits.map((verdict) => verdict.outcome).sort(), ['denied', 'granted']);
    const late = hits.find((verdict) => verdict.outcome === 'denied');
    assert.equal(late.reason, 'late');
    assert.ok(BigInt(late.behind_ns) >= 0n && late.round === 1);
    const again = await players[0].act('hit', { contest: 'baron', args: { damage: 1 }, id: hits[0].id });
    assert.ok(again.repeat_of === hits[0].seq && again.outcome === hits[0].outcome, 'a repeated id has its first verdict');
    await assert.rejects(players[0].act('x'.repeat(65)), { code: 'bad_action' });
    if (gateway) {
      await stop(gateway, 'SIGKILL');
      const waiting = players.map((room) => room.act('hit', { contest: 'baron', args: { damage: 1 } }));
      await until('everybody noticed', () => rooms.every((room) => room.status !== 'open'));
      gateway = await start(command, url);
      const answers = await Promise.all(waiting);
      assert.deepEqual(answers.map((verdict) => verdict.reason), durable ? ['late', 'late'] : ['unknown_target', 'unknown_target']);
      await until('everybody is back', () => rooms.every((room) => room.status === 'open'));
      assert.equal(seen.some((log) => log.includes('gone')), !durable, 'gone exactly when the room was lost');
    }
    for (const log of seen) contiguous(log);
  } finally {
    for (const room of rooms) room.close();
    if (gateway) await stop(gateway, 'SIGTERM');
  }
}

/** Players act on and on while their gateways leave one after the other, until each has moved often enough. */
async function travel(url, times) {
  const name = `js-moves-${Date.now().toString(36)}`;
  const keeper = connect(name, 'keeper', { url, role: 'server', delayMaxMs: 500 });
  assert.equal((await keeper.act('spawn', { contest: 'baron', args: { hp: 1e9 } })).outcome, 'granted');
  const players = Array.from({ length: 6 }, (_, n) => {
    const moves = n % 2 ? 'ignore' : 'follow';
    const room = connect(name, `p${n}`, { url, moves, delayMaxMs: 500 });
    const player = { room, moves, welcomes: 0, statuses: [], seen: [], answers: [] };
    room.on('welcome', () => { player.welcomes += 1; });
    room.on('status', (status) => player.statuses.push(status));
    room.on('verdict', (verdict) => player.seen.push(verdict));
    room.on('gone', () => assert.fail('nothing is gone'));
    return player;
  });
  const moved = () => players.every(({ welcomes }) => welcomes > times);
  const plays = async ({ room, answers }, pause) => {
    const end = Date.now() + 90_000;
    while (!moved()) {
      assert.ok(Date.now() < end, `after 90 s the players have moved ${players.map(({ welcomes }) => welcomes - 1)} times`);
      // One that all see, and one that only the player is told.
      const acts = ['baron', 'nobody'].map((contest) => room.act('hit', { contest, args: { damage: 1 } }));
      answers.push(...(await Promise.all(acts)));
      await sleep(pause);
    }
  };
  await Promise.all(players.map((player, n) => plays(player, 5 * n)));
  for (const { moves, statuses, seen, answers } of players) {
    const places = answers.map((verdict) => verdict.repeat_of ?? verdict.seq);
    assert.ok(answers.length > 20 && places.every((place, n) => n === 0 || place > places[n - 1]), 'no action overtakes another');
    for (const [n, verdict] of answers.entries()) assert.equal(verdict.reason ?? verdict.outcome, n % 2 ? 'unknown_target' : 'granted');
    for (const [n, { from, seq }] of seen.entries()) {
      if (n > 0) assert.ok(seq > seen[n - 1].seq && (from ?? seq) <= seen[n - 1].seq + 1, `${seen[n - 1].seq}, then ${from}..${seq}`);
    }
    // What an action did, it did once.
    const ids = seen.filter(({ id, repeat_of }) => id && repeat_of === undefined).map(({ id, player }) => `${player} ${id}`);
    assert.equal(new Set(ids).size, ids.length, 'no action is done twice');
    const away = statuses.filter((status) => status !== 'open');
    if (moves === 'follow') assert.deepEqual(away, [], 'never unconnected');
    else assert.ok(away.length >= times, 'it was closed and came back');
  }
  const hits = players.flatMap(({ answers }) => answers).filter(({ outcome }) => outcome === 'granted').length;
  const last = await keeper.act('hit', { contest: 'baron', args: { damage: 1 } });
  assert.equal(1e9 - last.body.hp, hits + 1, 'every hit counts once');
  for (const room of [keeper, ...players.map((player) => player.room)]) room.close();
}

/** Every message begins where the one before ended. */
function contiguous(log) {
  for (const [index, verdict] of log.entries()) {
    const before = log[index - 1];
    if (index > 0 && before !== 'gone' && verdict !== 'gone') assert.equal(verdict.from ?? verdict.seq, before.seq + 1);
  }
}

async function start(command, url) {
  const gateway = spawn(command, { shell: true, detached: true, stdio: ['ignore', 'ignore', 'inherit'] });
  const page = url.replace(/^ws/, 'http');
  for (let attempt = 0; attempt < 200; attempt += 1) {
    assert.equal(gateway.exitCode, null, `the gateway ended with ${gateway.exitCode}`);
    if (await fetch(page).then((answer) => answer.ok, () => false)) return gateway;
    await sleep(50);
  }
  await stop(gateway, 'SIGKILL');
  return assert.fail(`no gateway at ${page}`);
}

/** Ends the gateway and what its shell started, which are one process group. */
async function stop(gateway, signal) {
  if (gateway.exitCode !== null || gateway.signalCode !== null) return;
  const over = new Promise((resolve) => gateway.once('exit', resolve));
  process.kill(-gateway.pid, signal);
  const overdue = setTimeout(() => process.kill(-gateway.pid, 'SIGKILL'), 15_000);
  await over;
  clearTimeout(overdue);
}

async function main() {
  const url = option('url');
  const times = Number(option('travel'));
  if (times) tests[`${times} moves at ${url}`] = () => travel(url, times);
  else if (url) tests[`a match at ${url}`] = () => match(url, option('spawn'), arguments_.includes('--durable'));
  for (const [name, test] of Object.entries(tests)) {
    await test();
    console.log(`ok ${name}`);
  }
  console.log(`${Object.keys(tests).length} tests passed`);
}

if (option('url') && !globalThis.WebSocket && !process.execArgv.includes('--experimental-websocket')) {
  const again = spawn(process.execPath, ['--experimental-websocket', '--no-warnings', fileURLToPath(import.meta.url), ...arguments_], { stdio: 'inherit' });
  again.on('exit', (code) => process.exit(code ?? 1));
} else {
  main().then(() => process.exit(0), (error) => {
    console.error(error);
    process.exit(1);
  });
}
