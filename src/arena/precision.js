/** Times with as many digits as the clock vouches for, and no more. */

/** The finest place that may be printed: the power of ten at or above the uncertainty, in nanoseconds. */
export function step(uncertaintyNs) {
  return 10 ** Math.max(2, Math.ceil(Math.log10(Math.max(1, uncertaintyNs))));
}

/**
 * A span such as `8,310 µs`, rounded to what its uncertainty allows; `< 10 µs` when it is less than one such place.
 * @param {number} ns @param {number} uncertaintyNs
 */
export function span(ns, uncertaintyNs) {
  const place = step(uncertaintyNs);
  if (ns < place) return `< ${plain(place, place)}`;
  return plain(Math.round(ns / place) * place, place);
}

/** A rounded number of nanoseconds in microseconds, or in seconds from one on. */
export function plain(ns, placeNs) {
  const [unit, name] = Math.abs(ns) >= 1e9 ? [1e9, 's'] : [1e3, 'µs'];
  const digits = Math.min(6, Math.max(0, Math.round(Math.log10(unit / placeNs))));
  return `${(ns / unit).toLocaleString('en', { minimumFractionDigits: digits, maximumFractionDigits: digits })} ${name}`;
}

/** The uncertainty itself, rounded up: `± 2 µs`. */
export function uncertainty(ns) {
  return ns < 1000 ? `± ${Math.max(0.1, Math.ceil(ns / 100) / 10)} µs` : `± ${Math.ceil(ns / 1000).toLocaleString('en')} µs`;
}
