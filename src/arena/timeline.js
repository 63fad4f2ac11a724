/** The picture of a decided round: who arrived when, on a microsecond axis whose zero is the last hit. */

import { plain, span, step } from './precision.js';

const LANES_MAX = 6;
const LANE = 30;
const TOP = 22;
const SVG = 'http://www.w3.org/2000/svg';

/**
 * @param {HTMLElement} place
 * @param {import('./contest.js').Round} round
 * @param {(player: string) => string} colour
 */
export function draw(place, round, colour) {
  const { winner } = round;
  const width = Math.max(280, place.clientWidth);
  const narrow = width < 560;
  const left = narrow ? 74 : 120;
  const right = width - (narrow ? 14 : 92);
  const offset = (mark) => Number(mark.at - winner.at);

  // The window shows every first late hit, and of the hits before the last one what lies in a like span.
  const lates = round.losers.map(offset);
  const befores = round.marks.filter((mark) => mark.kind === 'hit').map((mark) => -offset(mark));
  const floor = winner.uncertainty * 4;
  const after = Math.max(floor, ...lates) * 1.06;
  const before = lates.length ? Math.max(floor, after * 0.45) : Math.max(floor, ...befores.slice(-5)) * 1.05;
  const ahead = lates.length ? after : before * 0.12;
  const x = (ns) => left + ((ns + before) / (before + ahead)) * (right - left);
  const visible = round.marks.filter((mark) => offset(mark) >= -before && offset(mark) <= ahead);
  const hidden = round.marks.filter((mark) => offset(mark) < -before).length;

  const names = [winner.player, ...round.losers.map((mark) => mark.player), ...visible.map((mark) => mark.player)];
  const lanes = [...new Set(names)].slice(0, LANES_MAX);
  const bottom = TOP + lanes.length * LANE;
  const svg = element('svg', { viewBox: `0 0 ${width} ${bottom + 34}`, height: bottom + 34, role: 'img', 'aria-label': describe(round) });
  const add = (name, attributes, text) => svg.appendChild(element(name, attributes, text));

  for (const tick of ticks(-before, ahead, winner.uncertainty, narrow ? 4 : 9)) {
    add('line', { class: 'grid', x1: x(tick), x2: x(tick), y1: TOP - 8, y2: bottom });
    const label = tick === 0 ? '0' : `${tick > 0 ? '+' : '−'}${plain(Math.abs(tick), step(winner.uncertainty))}`;
    add('text', { class: 'tick', x: x(tick), y: bottom + 16, 'text-anchor': 'middle' }, label);
  }
  // Arrivals nearer than both uncertainties together cannot be told apart.
  const band = Math.max(winner.uncertainty * 2, ...round.losers.filter((m) => m.photo).map((m) => m.uncertainty + winner.uncertainty));
  const bandFrom = x(Math.max(-band, -before));
  add('rect', { class: 'band', x: bandFrom, width: Math.max(2, x(Math.min(band, ahead)) - bandFrom), y: TOP - 8, height: bottom - TOP + 8 });
  add('line', { class: 'zero', x1: x(0), x2: x(0), y1: TOP - 8, y2: bottom });
  add('text', { x: x(0), y: TOP - 13, 'text-anchor': 'middle' }, 'last hit');

  lanes.forEach((player, index) => {
    const y = TOP + index * LANE + LANE / 2;
    add('line', { class: 'lane', x1: left, x2: right, y1: y, y2: y });
    add('rect', { x: 0, y: y - 5, width: 10, height: 10, rx: 3, fill: colour(player) });
    add('text', { class: 'who', x: 17, y: y + 4.5 }, shorten(player, narrow ? 7 : 13));
    const mine = visible.filter((mark) => mark.player === player);
    for (const mark of mine) {
      // The true arrival lies at most the uncertainty before the stamp.
      const reach = x(offset(mark)) - x(offset(mark) - mark.uncertainty);
      if (reach > 1.5) add('line', { class: 'reach', x1: Math.max(left, x(offset(mark)) - reach), x2: x(offset(mark)), y1: y, y2: y });
      shape(add, mark, x(offset(mark)), y);
    }
    const first = mine.find((mark) => mark.kind !== 'hit');
    if (first) label(add, first, winner, x(offset(first)), y, right + (narrow ? 10 : 86));
  });
  if (hidden > 0 && !narrow) add('text', { x: left, y: bottom + 31 }, `${hidden} earlier ${hidden === 1 ? 'hit lies' : 'hits lie'} further left`);
  add('text', { x: right, y: bottom + 31, 'text-anchor': 'end' }, `arrival at the machine, ${narrow ? '' : 'after the last hit, '}microseconds`);
  place.replaceChildren(svg);
}

function shape(add, mark, x, y) {
  const title = `${mark.player}: ${mark.kind === 'late' ? 'too late' : mark.kind === 'win' ? 'last hit' : 'hit'}${mark.clamped ? ', clamped' : ''}`;
  const flagged = mark.clamped ? ' clamped' : '';
  const node = mark.kind === 'win'
    ? add('path', { class: `win${flagged}`, d: `M${x} ${y - 9}l9 9-9 9-9-9z` })
    : add('circle', { class: mark.kind + flagged, cx: x, cy: y, r: mark.kind === 'late' ? 6 : 4.5 });
  node.appendChild(element('title', {}, title));
}

function label(add, mark, winner, x, y, edge) {
  const won = mark.kind === 'win';
  const text = won ? 'first' : margin(mark, winner, '+');
  const needs = text.length * 7.4 + 16;
  const turned = x + needs > edge;
  add('text', { class: won ? 'by win' : 'by', x: turned ? x - 14 : x + 14, y: y + 4.5, 'text-anchor': turned ? 'end' : 'start' }, text);
}

/** By how much a contender lost, with the digits that both stamps vouch for. */
export function margin(mark, winner, sign = '') {
  const unsure = mark.uncertainty + (winner?.uncertainty ?? mark.uncertainty);
  if (mark.behind === null) return 'too late';
  const text = span(mark.behind, unsure);
  return text.startsWith('<') ? text : sign + text;
}

function describe(round) {
  const losers = round.losers.map((mark) => `${mark.player} ${margin(mark, round.winner)} later${mark.photo ? ' (photo finish)' : ''}`);
  return `${round.winner.player} took the last hit of round ${round.round}. ${losers.join(', ') || 'Nobody else tried'}.`;
}

/** Round places on the axis, never nearer to each other than the clock can tell. */
function ticks(from, to, uncertaintyNs, count) {
  const raw = (to - from) / count;
  const power = 10 ** Math.floor(Math.log10(raw));
  const pace = Math.max(step(uncertaintyNs), [1, 2, 5, 10].map((n) => n * power).find((n) => n >= raw));
  const places = [];
  for (let at = Math.ceil(from / pace) * pace; at <= to; at += pace) places.push(at === 0 ? 0 : at);
  return places;
}

function shorten(text, length) {
  return text.length > length ? `${text.slice(0, length - 1)}…` : text;
}

function element(name, attributes, text) {
  const node = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  if (text !== undefined) node.textContent = text;
  return node;
}
