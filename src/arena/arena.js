/** The arena: joins the room of the page's address, shows the fight, sends the hits. */

import { connect } from './lasthit.js';
import { Contest } from './contest.js';
import { startRival } from './rival.js';
import { uncertainty } from './precision.js';
import { draw, margin } from './timeline.js';

const HITS = {
  strike: { damage: 150, cooldown: 220 },
  heavy: { damage: 450, cooldown: 1_100 },
  smite: { damage: 1_200, cooldown: 5_000 },
};
const KEYS = { 1: 'strike', 2: 'heavy', 3: 'smite', ' ': 'strike' };
const PALETTE = ['#a07bff', '#ff8a5c', '#5cb8ff', '#ff6fb5', '#b6e35a', '#ffd166', '#8be0ff', '#e59bff'];
const RIVALS_MAX = 3;
const FEED_MAX = 30;
/** The session that stands in for a game server; not a contender. */
const KEEPER = 'keeper';

const params = new URLSearchParams(location.search);
const target = params.get('target') || 'baron';
const hitPoints = Number(params.get('hp')) || 12_000;
const roomName = params.get('room') || 'baron-pit';
const token = params.get('token') || undefined;
const playerName = params.get('player') || nameIn(token) || ownName();
const $ = (id) => document.getElementById(id);

const contest = new Contest(target);
const rivals = [];
const colours = new Map([[playerName, '#47e0c0']]);
let keeping = false;
let flashTimer;

const mirrored = $('half').cloneNode(true);
mirrored.removeAttribute('id');
mirrored.setAttribute('transform', 'scale(-1 1)');
$('half').after(mirrored);
$('room').textContent = roomName;
$('player').textContent = playerName;
$('target').textContent = target[0].toUpperCase() + target.slice(1);
document.title = `${target} · ${roomName} · lasthit`;

const room = connect(roomName, playerName, { token });
room.on('status', (status, { reason }) => {
  $('status').className = `chip status ${status}`;
  $('status').lastElementChild.textContent = { open: 'live', waiting: 'reconnecting', closed: reason ?? 'closed' }[status] ?? status;
  refresh();
});
room.on('welcome', (welcome) => {
  const unsure = Number(welcome.clock.uncertainty_ns);
  $('clock').hidden = false;
  $('clock').textContent = `${welcome.clock.source === 'kernel' ? 'kernel arrival stamps' : 'stamped when read'} ${uncertainty(unsure)}`;
  if (!welcome.resumed) contest.reset(welcome.state);
  contest.player(playerName).sessions.add(welcome.session);
  if (!contest.present) spawn();
  refresh();
});
room.on('gone', () => note(null, 'missed verdicts are gone: starting from the room as it is'));
room.on('refused', (error) => say(`refused: ${error.message}`));
room.on('verdict', (verdict) => {
  if (verdict.event === 'rules') {
    note(verdict.seq, verdict.outcome === 'granted' ? `new rules: ${verdict.rules} version ${verdict.version}` : `version ${verdict.version} of the rules did not take over the room`);
    return;
  }
  const happened = contest.apply(verdict);
  if (!happened) return;
  const { what, mark } = happened;
  if (verdict.player === KEEPER && what !== 'spawn' && what !== 'despawn') return;
  if (what === 'hit' || what === 'win') struck(mark);
  if (what === 'hit' || what === 'again') return refresh();
  if (what === 'win') won(verdict, mark);
  else if (what === 'late') late(verdict, mark);
  else note(verdict.seq, ...({ join: [bold(verdict.player), ' came in'], leave: [bold(verdict.player), ' left'],
    spawn: [bold($('target').textContent), ` appears, round ${verdict.round}`], despawn: ['The target is gone'] })[what]);
  refresh();
});

function hit(kind) {
  const button = document.querySelector(`[data-hit="${kind}"]`);
  if (button.disabled || button.classList.contains('cooling') || room.status !== 'open' || !contest.present) return;
  const { damage, cooldown } = HITS[kind];
  room.act('hit', { contest: target, args: { damage } }).catch(() => {});
  button.style.setProperty('--cool', `${cooldown}ms`);
  button.classList.add('cooling');
  setTimeout(() => button.classList.remove('cooling'), cooldown);
}

/** Lets a session with the server role place the target, as a game server would. */
async function spawn() {
  if (keeping || contest.hp > 0) return;
  keeping = true;
  refresh();
  const serving = room.welcome?.role === 'server';
  const keeper = serving ? room : connect(roomName, KEEPER, { token, role: 'server', attempts: 2 });
  try {
    await keeper.act('spawn', { contest: target, args: { hp: hitPoints } });
  } catch (error) {
    say(`only a game server may place the target here (${error.message})`);
    note(null, 'waiting for a game server to place the target');
  }
  if (!serving) keeper.close();
  keeping = false;
  refresh();
}

function won(verdict, mark) {
  note(verdict.seq, bold(mark.player), ' got the last hit').classList.add('win');
  say(`${mark.player} got the last hit`);
}

function late(verdict, mark) {
  const winner = contest.decided?.round === verdict.round ? contest.decided.winner : null;
  const by = document.createElement('span');
  by.className = 'by';
  by.textContent = margin(mark, winner);
  const line = note(verdict.seq, bold(mark.player), mark.photo ? ' lost a photo finish by ' : ' was late by ', by, ...tags({ ...mark, photo: false }));
  line.classList.add('late');
  if (mark.player === playerName) say(`you were late by ${by.textContent}${mark.photo ? ', a photo finish' : ''}`);
}

function tags(mark) {
  const words = [mark.photo && 'photo finish', mark.clamped && 'clamped', mark.unproven && 'unproven', mark.readTime && 'read time'];
  return words.filter(Boolean).map((word) => {
    const tag = document.createElement('span');
    tag.className = `tag ${word.replace(' ', '-')}`;
    tag.textContent = word;
    tag.style.marginLeft = '6px';
    return tag;
  });
}

function struck(mark) {
  const baron = $('baron');
  baron.classList.remove('struck');
  baron.getBoundingClientRect();
  baron.classList.add('struck');
  clearTimeout(flashTimer);
  flashTimer = setTimeout(() => baron.classList.remove('struck'), 230);
  const float = document.createElement('span');
  float.textContent = `−${mark.damage.toLocaleString('en')}`;
  float.style.cssText = `left:${34 + Math.random() * 32}%;top:${24 + Math.random() * 34}%;color:${colour(mark.player)}`;
  const who = document.createElement('small');
  who.textContent = mark.player;
  float.append(who);
  const floats = $('floats');
  floats.append(float);
  if (floats.childElementCount > 12) floats.firstElementChild.remove();
  setTimeout(() => float.remove(), 1_100);
}

function refresh() {
  const alive = contest.present && contest.hp > 0;
  const slain = contest.present && contest.hp === 0;
  const share = contest.max ? contest.hp / contest.max : 0;
  const bar = $('bar');
  bar.style.setProperty('--hp', share);
  bar.style.setProperty('--smite', `${Math.min(1, HITS.smite.damage / (contest.max || 1)) * 100}%`);
  bar.style.setProperty('--tick', `${contest.max ? 100_000 / contest.max : 10}%`);
  bar.ariaValueNow = contest.hp;
  bar.ariaValueMax = contest.max || 1;
  $('points').textContent = contest.present ? `${contest.hp.toLocaleString('en')} / ${contest.max.toLocaleString('en')}` : '–';
  $('round').textContent = contest.present ? `round ${contest.round.round}` : keeping ? 'being placed' : 'not here yet';
  $('smiteline').hidden = !alive;
  $('baron').classList.toggle('slain', slain);
  $('baron').classList.toggle('absent', !contest.present);
  for (const button of document.querySelectorAll('[data-hit]')) button.disabled = room.status !== 'open' || !contest.present;
  result(slain);
  board();
  finish();
}

function result(slain) {
  $('verdict').hidden = !slain;
  if (!slain) return;
  const round = contest.decided?.round === contest.round.round ? contest.decided : null;
  const unsure = round?.losers.some((mark) => mark.photo);
  $('kicker').replaceChildren(contest.slayer === playerName ? 'You got the last hit' : 'Last hit', ...(round ? tags({ ...round.winner, photo: unsure }) : []));
  $('winner').textContent = contest.slayer ?? 'nobody';
  $('losers').replaceChildren(...(round?.losers ?? []).slice(0, 5).map((mark) => {
    const line = document.createElement('li');
    const by = document.createElement('span');
    by.className = 'by';
    by.textContent = margin(mark, round.winner, '+');
    line.append(bold(mark.player), ' ', by, ...tags(mark));
    return line;
  }));
  $('respawn').disabled = keeping || room.status !== 'open';
}

function board() {
  const rows = [...contest.players].filter(([name]) => name !== KEEPER).sort(([, a], [, b]) => b.wins - a.wins || b.damage - a.damage);
  $('board').replaceChildren(...rows.slice(0, 8).map(([name, { damage, wins, sessions }]) => {
    const row = document.createElement('tr');
    if (sessions.size === 0) row.className = 'gone';
    const who = document.createElement('td');
    const dot = document.createElement('i');
    dot.style.background = colour(name);
    const both = document.createElement('span');
    both.append(dot, bold(name));
    who.append(both);
    row.append(who, cell(damage.toLocaleString('en')), cell(String(wins)));
    return row;
  }));
  $('rival').disabled = rivals.length >= RIVALS_MAX || room.status !== 'open';
}

let drawn = '';
function finish(force = false) {
  const round = contest.decided;
  if (!round) {
    if (!$('timeline').firstChild) $('timeline').innerHTML = '<p class="empty">When the target falls, everybody’s arrival is drawn here: who was first, and by how many microseconds.</p>';
    return;
  }
  const key = `${round.round}/${round.marks.length}`;
  if (key === drawn && !force) return;
  drawn = key;
  $('finishof').textContent = `round ${round.round}`;
  draw($('timeline'), round, colour);
}

function note(seq, ...parts) {
  const line = document.createElement('li');
  const number = document.createElement('span');
  number.className = 'seq';
  number.textContent = seq ?? '';
  const what = document.createElement('span');
  what.className = 'what';
  what.append(...parts);
  line.append(number, what);
  $('feed').prepend(line);
  while ($('feed').childElementCount > FEED_MAX) $('feed').lastElementChild.remove();
  return line;
}

function say(text) {
  $('say').textContent = text;
}

function bold(text) {
  const node = document.createElement('b');
  node.textContent = text;
  return node;
}

function cell(text) {
  const node = document.createElement('td');
  node.textContent = text;
  return node;
}

function colour(player) {
  if (!colours.has(player)) colours.set(player, PALETTE[(colours.size - 1) % PALETTE.length]);
  return colours.get(player);
}

/** Whom a token is for; the gateway checks it, this only reads it. */
function nameIn(text) {
  try {
    return JSON.parse(atob(text.split('.')[1].replaceAll('-', '+').replaceAll('_', '/'))).sub;
  } catch {
    return undefined;
  }
}

/** A name of this tab's own, kept over reloads. */
function ownName() {
  const kept = sessionStorage.getItem('lasthit-player');
  if (kept) return kept;
  const pick = (words) => words[Math.floor(Math.random() * words.length)];
  const name = `${pick(['swift', 'quiet', 'bold', 'lucky', 'grim', 'keen'])}-${pick(['fox', 'owl', 'lynx', 'wolf', 'hawk', 'crow'])}-${Math.floor(Math.random() * 90 + 10)}`;
  sessionStorage.setItem('lasthit-player', name);
  return name;
}

for (const button of document.querySelectorAll('[data-hit]')) {
  button.addEventListener('pointerdown', (event) => event.button === 0 && hit(button.dataset.hit));
  button.addEventListener('click', (event) => event.detail === 0 && hit(button.dataset.hit));
}
addEventListener('keydown', (event) => {
  if (event.repeat || event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.key === ' ' && event.target instanceof HTMLButtonElement) return;
  if (KEYS[event.key]) {
    event.preventDefault();
    hit(KEYS[event.key]);
  } else if (event.key === 'r' && !$('verdict').hidden) spawn();
});
$('respawn').addEventListener('click', spawn);
$('rival').addEventListener('click', () => {
  rivals.push(startRival({ roomName, token, target, number: rivals.length + 1 }));
  refresh();
});
$('invite').addEventListener('click', async () => {
  const url = new URL(location.href);
  url.searchParams.set('room', roomName);
  url.searchParams.delete('player');
  url.searchParams.delete('token');
  await navigator.clipboard?.writeText(url.href);
  $('invite').textContent = 'Link copied';
  setTimeout(() => ($('invite').textContent = 'Copy invite link'), 1_500);
});
new ResizeObserver(() => finish(true)).observe($('timeline'));
refresh();
