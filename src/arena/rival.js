/** A rival that plays from this tab, over a session of its own: enough to have a race alone. */

import { connect } from './lasthit.js';

const NAMES = ['nova', 'rook', 'ember'];
/** Below this many points a rival tries for the last hit. */
const TEMPTING = 1_600;

/** @param {{ roomName: string, token?: string, target: string, number: number }} options */
export function startRival({ roomName, token, target, number }) {
  const name = `${NAMES[number - 1]}-${Math.floor(Math.random() * 900 + 100)}`;
  const room = connect(roomName, name, { token });
  let points = 0;
  let timer;
  const hit = (damage) => room.status === 'open' && room.act('hit', { contest: target, args: { damage } }).catch(() => {});
  const plan = () => {
    clearTimeout(timer);
    if (points <= 0) return;
    const close = points <= TEMPTING;
    timer = setTimeout(() => {
      hit(close ? 1_200 : 150);
      plan();
    }, close ? 60 + Math.random() * 240 : 350 + Math.random() * 650);
  };
  const see = (left) => {
    const turn = points <= 0 || (left <= TEMPTING && points > TEMPTING);
    points = left;
    // A rival that was about to hit does so although the target fell meanwhile: that is what makes a race.
    if (turn && left > 0) plan();
  };
  room.on('welcome', (welcome) => !welcome.resumed && see(welcome.state?.targets?.[target]?.hp ?? 0));
  room.on('verdict', (verdict) => {
    if (verdict.contest !== target || verdict.outcome !== 'granted' || !verdict.body) return;
    see(verdict.body.hp);
    if (points === 0 && verdict.player === name) clearTimeout(timer);
  });
  return room;
}
