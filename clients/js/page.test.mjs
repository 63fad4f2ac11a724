/**
 * The arena, played in headless Chromium by two tabs.
 *
 *     node clients/js/page.test.mjs --url http://127.0.0.1:7777 [--screenshot DIR] [--chromium PATH]
 *     node clients/js/page.test.mjs --url http://127.0.0.1:7777 --reload "lasthit reload"
 *
 * With `--reload`, one tab plays on while this command replaces the gateways behind it.
 *
 * Exit code 77 when there is no Chromium.
 */

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

const arguments_ = process.argv.slice(2);
const option = (name, otherwise) => {
  const at = arguments_.indexOf(`--${name}`);
  return at < 0 ? otherwise : arguments_[at + 1];
};
const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
/** Nothing of the browser's own goes out: what is tested is the page. */
const FLAGS = ['--headless', '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking',
  '--disable-component-update', '--disable-sync', '--remote-debugging-port=0'];
const SKIPPED = 77;

/** Starts Chromium; null when there is none. */
async function browser(profile) {
  const process_ = spawn(option('chromium', 'chromium'), [...FLAGS, `--user-data-dir=${profile}`, 'about:blank'], {
    stdio: ['ignore', 'ignore', 'pipe'],
  });
  let said = '';
  const address = await new Promise((resolve, reject) => {
    process_.on('error', () => resolve(null));
    process_.on('exit', (code) => reject(new Error(`chromium ended with ${code}: ${said.slice(-400)}`)));
    process_.stderr.on('data', (data) => {
      said += data;
      const found = said.match(/ws:\/\/\S+/);
      if (found) resolve(found[0]);
    });
  });
  return address && { process_, host: new URL(address).host };
}

/** One tab, driven over the DevTools protocol. */
class Tab {
  static async open(host, url, width, height, first = '') {
    const target = await (await fetch(`http://${host}/json/new?about:blank`, { method: 'PUT' })).json();
    const tab = new Tab();
    tab.faults = [];
    tab.waiting = new Map();
    tab.socket = new WebSocket(target.webSocketDebuggerUrl);
    await new Promise((resolve) => (tab.socket.onopen = resolve));
    tab.socket.onmessage = ({ data }) => tab.heard(JSON.parse(data));
    for (const domain of ['Runtime', 'Log', 'Page']) await tab.call(`${domain}.enable`);
    await tab.call('Emulation.setDeviceMetricsOverride', { width, height, deviceScaleFactor: 1, mobile: width < 600 });
    await tab.call('Page.addScriptToEvaluateOnNewDocument', { source: first });
    await tab.call('Page.navigate', { url });
    await tab.until(`${url} is loaded`, `location.href !== 'about:blank' && document.readyState === 'complete'`);
    return tab;
  }

  heard(message) {
    if (message.id) {
      this.waiting.get(message.id)?.(message);
      this.waiting.delete(message.id);
    } else if (message.method === 'Runtime.exceptionThrown') {
      this.faults.push(message.params.exceptionDetails.exception?.description ?? message.params.exceptionDetails.text);
    } else if (message.method === 'Log.entryAdded' && message.params.entry.level === 'error') {
      this.faults.push(`${message.params.entry.text} ${message.params.entry.url ?? ''}`);
    }
  }

  async call(method, params = {}) {
    const id = (this.count = (this.count ?? 0) + 1);
    const answer = await new Promise((resolve) => {
      this.waiting.set(id, resolve);
      this.socket.send(JSON.stringify({ id, method, params }));
    });
    if (answer.error) throw new Error(`${method}: ${answer.error.message}`);
    return answer.result;
  }

  async evaluate(expression) {
    const { result, exceptionDetails } = await this.call('Runtime.evaluate', { expression, returnByValue: true, awaitPromise: true });
    assert.equal(exceptionDetails, undefined, `${expression}: ${exceptionDetails?.exception?.description}`);
    return result.value;
  }

  text(id) {
    return this.evaluate(`document.getElementById('${id}').textContent`);
  }

  /** Presses a key as a player would: once the hit before has cooled down. */
  async press(key) {
    const kind = { 1: 'strike', 2: 'heavy', 3: 'smite' }[key];
    if (kind) await this.until(`${kind} is ready`, `!document.querySelector('[data-hit="${kind}"]').matches('.cooling, :disabled')`);
    return this.evaluate(`dispatchEvent(new KeyboardEvent('keydown', { key: '${key}' })), 0`);
  }

  async until(what, expression) {
    const end = Date.now() + 15_000;
    while (!(await this.evaluate(expression))) {
      if (Date.now() > end) assert.fail(`not within 15 s: ${what}; faults: ${this.faults.join('; ') || 'none'}`);
      await sleep(20);
    }
  }

  async picture(name) {
    const directory = option('screenshot');
    if (!directory) return;
    const { data } = await this.call('Page.captureScreenshot');
    writeFileSync(join(directory, name), Buffer.from(data, 'base64'));
  }
}

const SLAIN = `!document.getElementById('verdict').hidden`;
const POINTS = `document.getElementById('points').textContent`;

async function play(host) {
  const room = `page-${Date.now().toString(36)}`;
  const address = (player) => `${option('url')}/?room=${room}&player=${player}&hp=3000`;
  const ann = await Tab.open(host, address('ann'), 1280, 800);
  await ann.until('ann is in, and the target was placed', `${POINTS} === '3,000 / 3,000'`);
  const bob = await Tab.open(host, address('bob'), 420, 800);
  await bob.until('bob finds the target there', `${POINTS} === '3,000 / 3,000'`);

  await ann.press('1');
  await bob.until('bob sees the hit of ann', `${POINTS} === '2,850 / 3,000'`);
  await bob.press('2');
  await ann.until('ann sees the hit of bob', `${POINTS} === '2,400 / 3,000'`);
  assert.match(await ann.text('board'), /ann.*150|bob.*450/s);
  await ann.picture('arena-fight.png');
  await ann.press('3');
  await bob.until('one more smite takes it', `${POINTS} === '1,200 / 3,000'`);

  // bob takes the rest, ann comes too late.
  await bob.press('3');
  await ann.until('ann sees the target fall', SLAIN);
  await ann.press('1');
  for (const tab of [ann, bob]) {
    await tab.until('who was late', `document.getElementById('losers').childElementCount === 1`);
    assert.equal(await tab.text('winner'), 'bob');
    assert.match(await tab.text('losers'), /^ann (< |\+)[\d,.]+ (µs|s)/);
    assert.match(await tab.evaluate(`document.querySelector('#timeline svg').getAttribute('aria-label')`), /^bob took the last hit of round 1\. ann .+ later/);
    assert.ok(await tab.evaluate(`document.querySelectorAll('#timeline .late').length >= 1`));
    assert.ok(await tab.evaluate('document.documentElement.scrollWidth <= innerWidth'), 'nothing sticks out');
  }
  assert.match(await bob.text('kicker'), /^You got the last hit/);
  await sleep(800);
  await ann.picture('arena-slain.png');
  await bob.picture('arena-slain-narrow.png');

  await ann.press('r');
  for (const tab of [ann, bob]) {
    await tab.until('the next round', `${POINTS} === '3,000 / 3,000' && !${SLAIN}`);
    assert.equal(await tab.text('round'), 'round 2');
    assert.deepEqual(tab.faults, []);
  }
}

/** Writes down what the page does with its connections, and each hit that it sends. */
const WATCHED = `
  globalThis.watch = { sockets: [], hits: new Map(), statuses: [] };
  globalThis.WebSocket = class extends WebSocket {
    constructor(url, protocols) {
      super(url, protocols);
      const { searchParams } = new URL(url);
      this.seen = { player: searchParams.get('player'), since: searchParams.get('since') };
      watch.sockets.push(this.seen);
      this.addEventListener('message', ({ data }) => {
        const { t } = JSON.parse(data);
        if (t === 'welcome') this.seen.welcomed = performance.now();
        if (t === 'move') this.seen.asked = true;
      });
      this.addEventListener('close', ({ code }) => { this.seen.ended = code; });
    }
    send(text) {
      const { op, id, args } = JSON.parse(text);
      if (op === 'hit') watch.hits.set(this.seen.player + ' ' + id, args.damage);
      super.send(text);
    }
    close(code) {
      if (this.seen.ended === undefined) this.seen.left ??= performance.now();
      super.close(code);
    }
  };`;

/** One tab plays with its rivals while everything behind it is replaced. */
async function playOn(host, command) {
  const tab = await Tab.open(host, `${option('url')}/?room=page-${Date.now().toString(36)}&player=ann&hp=9000000`, 1280, 800, WATCHED);
  await tab.until('the target was placed', `${POINTS} === '9,000,000 / 9,000,000'`);
  await tab.evaluate(`new MutationObserver(() => watch.statuses.push(document.getElementById('status').textContent.trim()))
    .observe(document.getElementById('status'), { childList: true, characterData: true, subtree: true }), 0`);
  await tab.evaluate(`document.getElementById('rival').click(), document.getElementById('rival').click(), 0`);
  await tab.evaluate(`globalThis.playing = setInterval(() => dispatchEvent(new KeyboardEvent('keydown', { key: '1' })), 20), 0`);
  await tab.until('three play', `new Set([...watch.hits.keys()].map((hit) => hit.split(' ')[0])).size === 3`);
  const before = await tab.evaluate('watch.hits.size');
  const reload = spawn(command, { shell: true, stdio: ['ignore', 'ignore', 'inherit'] });
  assert.equal(await new Promise((resolve) => reload.once('exit', resolve)), 0, command);
  await tab.until('they play on', `watch.hits.size > ${before + 5}`);
  await tab.evaluate('clearInterval(playing), 0');
  const sockets = (await tab.evaluate('watch.sockets')).filter(({ player }) => player !== 'keeper');
  const players = new Set(sockets.map(({ player }) => player));
  assert.equal(players.size, 3);
  for (const player of players) {
    const own = sockets.filter((socket) => socket.player === player);
    assert.ok(own.length > 1 && own.at(-1).left === undefined, `${player} has moved: ${JSON.stringify(own)}`);
    for (const [n, socket] of own.slice(0, -1).entries()) {
      assert.ok(socket.asked && own[n + 1].since, 'it was asked, and goes on where it was');
      assert.ok(socket.left >= own[n + 1].welcomed, `${player} leaves when the next one is welcomed: ${JSON.stringify(own)}`);
    }
  }
  // In one look at the page: what was sent, each hit once, and what the room says.
  await tab.until('each hit has counted once', `(() => {
    const sum = [...watch.hits.values()].reduce((all, damage) => all + damage, 0);
    return ${POINTS} === (9000000 - sum).toLocaleString('en') + ' / 9,000,000';
  })()`);
  assert.deepEqual([tab.faults, await tab.evaluate('watch.statuses')], [[], []], 'the page shows no trouble');
}

/** What is printed of a time: never a digit finer than its uncertainty. */
const SPANS = [
  [8_312, 900, '8 µs'], [8_312, 1_200, '< 10 µs'], [18_312, 1_200, '20 µs'], [8_312, 100, '8.3 µs'], [232_774_100, 2_400, '232,770 µs'],
  [304_000, 180_000, '< 1,000 µs'], [1_234_567_890, 2_000, '1.23457 s'], [0, 1, '< 0.1 µs'], [5_000_000_000, 30_000, '5.0000 s'],
];

/** A photo finish and a clamped stamp, which no gateway makes on demand. */
const FLAGGED = `(async () => {
  const { Contest } = await import('/contest.js');
  const { draw, margin } = await import('/timeline.js');
  const contest = new Contest('baron');
  contest.reset(undefined);
  const body = { target: 'baron', max_hp: 9, round: 1, damage: 9, hp: 0 };
  const base = { event: 'data', contest: 'baron', round: 1, uncertainty_ns: '1500' };
  contest.apply({ ...base, outcome: 'granted', player: 'ann', session: 'a', arrival_ns: '9007199254740993000', body });
  const late = { ...base, outcome: 'denied', reason: 'late', body };
  contest.apply({ ...late, player: 'bob', session: 'b', arrival_ns: '9007199254740994300', behind_ns: '1300', photo_finish: true });
  contest.apply({ ...late, player: 'cid', session: 'c', arrival_ns: '9007199254741043000', behind_ns: '50000', clamped: true });
  contest.apply({ ...late, player: 'cid', session: 'c', arrival_ns: '9007199254741053000', behind_ns: '60000' });
  const place = document.createElement('div');
  document.body.append(place);
  draw(place, contest.decided, () => '#fff');
  const count = (query) => place.querySelectorAll(query).length;
  return [contest.decided.losers.map((mark) => margin(mark, contest.decided.winner)), count('.late'), count('.clamped'), count('.win'),
    place.firstChild.getAttribute('aria-label')];
})()`;

async function precision(host) {
  const tab = await Tab.open(host, `${option('url')}/favicon.svg`, 800, 600);
  for (const [ns, unsure, shown] of SPANS) {
    assert.equal(await tab.evaluate(`import('/precision.js').then(({ span }) => span(${ns}, ${unsure}))`), shown, `${ns} ± ${unsure}`);
  }
  const page = await Tab.open(host, `${option('url')}/?room=page-flags-${Date.now().toString(36)}&player=ann`, 800, 600);
  assert.deepEqual(await page.evaluate(FLAGGED), [['< 10 µs', '50 µs'], 2, 1, 2,
    'ann took the last hit of round 1. bob < 10 µs later (photo finish), cid 50 µs later.']);
}

async function main() {
  const profile = mkdtempSync(join(tmpdir(), 'lasthit-page-'));
  const chromium = await browser(profile);
  if (!chromium) {
    rmSync(profile, { recursive: true, force: true });
    console.log('skipped: no chromium');
    return SKIPPED;
  }
  const over = new Promise((resolve) => chromium.process_.once('exit', resolve));
  try {
    if (option('reload')) {
      await playOn(chromium.host, option('reload'));
      console.log('ok a tab plays on through a reload');
      return 0;
    }
    await play(chromium.host);
    console.log('ok two tabs play the arena');
    await precision(chromium.host);
    console.log('ok times are shown as exactly as they are known');
    return 0;
  } finally {
    chromium.process_.removeAllListeners('exit');
    chromium.process_.kill();
    await Promise.race([over, sleep(5_000)]);
    rmSync(profile, { recursive: true, force: true, maxRetries: 10, retryDelay: 200 });
  }
}

if (!option('url')) {
  console.error('--url is missing, as in --url http://127.0.0.1:7777');
  process.exit(2);
} else if (!globalThis.WebSocket) {
  // Node before 22 has its WebSocket behind a flag.
  const again = spawn(process.execPath, ['--experimental-websocket', '--no-warnings', fileURLToPath(import.meta.url), ...arguments_], { stdio: 'inherit' });
  again.on('exit', (code) => process.exit(code ?? 1));
} else {
  main().then((code) => process.exit(code), (error) => {
    console.error(error);
    process.exit(1);
  });
}
