/** What the tests of lasthit.js share: a WebSocket whose other end is the test. */

import assert from 'node:assert/strict';
import { connect } from './lasthit.js';

export const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

/** Waits until something holds, and says what did not. */
export async function until(what, holds, ms = 10_000) {
  const end = Date.now() + ms;
  while (!holds()) {
    if (Date.now() > end) assert.fail(`not within ${ms} ms: ${what}`);
    await sleep(5);
  }
}

/** A WebSocket whose other end is the test. */
export class Scripted {
  static opened = [];
  constructor(url, protocols) {
    this.url = new URL(url);
    this.protocols = protocols;
    this.sent = [];
    Scripted.opened.push(this);
  }
  send(text) {
    assert.ok(!this.over, 'sent on a closed socket');
    this.sent.push(JSON.parse(text));
  }
  close() {
    this.over = true;
  }
  // The server's side.
  say(frame) {
    this.onmessage({ data: typeof frame === 'string' ? frame : JSON.stringify(frame) });
  }
  welcome(fields) {
    this.say({ t: 'welcome', session: `s-${Scripted.opened.length}`, player: 'ann', role: 'player', era: 1, seq: 0, resumed: false,
      gone: false, clock: { source: 'kernel', uncertainty_ns: '1000' }, limits: {}, ...fields });
  }
  verdict(seq, fields) {
    this.say({ t: 'verdict', seq, event: 'data', session: 'x', player: 'bob', outcome: 'granted', arrival_ns: '1', uncertainty_ns: '1', ...fields });
  }
  end(code, reason = '') {
    this.over = true;
    this.onclose({ code, reason });
  }
}

export async function scripted(options = {}) {
  Scripted.opened = [];
  const room = connect('pit', 'ann', { url: 'ws://test:1', WebSocket: Scripted, delayMs: 2, delayMaxMs: 10, ...options });
  room.seen = [];
  room.on('verdict', (verdict) => room.seen.push(verdict.seq));
  await until('a connection', () => Scripted.opened.length === 1);
  return { room, socket: (n) => until(`connection ${n}`, () => Scripted.opened.length >= n).then(() => Scripted.opened[n - 1]) };
}
