// OpenMetrics text, and what can be told from two readings of it. No screen and no clock.

/**
 * Samples by name: `{ labels, value }`. Only what this page draws: plain label values, no
 * exemplars.
 */
export function parse(text) {
  const samples = new Map();
  for (const line of text.split("\n")) {
    const [, name, labels = "", value] = /^([a-zA-Z_:][\w:]*)(?:\{(.*)\})? (\S+)/.exec(line) ?? [];
    if (name === undefined) continue;
    const pairs = [...labels.matchAll(/([a-zA-Z_]\w*)="((?:[^"\\]|\\.)*)"/g)].map(([, key, text]) => [key, text]);
    if (!samples.has(name)) samples.set(name, []);
    samples.get(name).push({ labels: Object.fromEntries(pairs), value: Number(value.replace("+Inf", "Infinity")) });
  }
  return samples;
}

/** The sum over all labels, or over those that `where` has. */
export function total(samples, name, where = {}) {
  const fits = ({ labels }) => Object.entries(where).every(([key, value]) => labels[key] === value);
  return (samples.get(name) ?? []).filter(fits).reduce((sum, { value }) => sum + value, 0);
}

/** How much a counter grew; one that began anew, for the node did, has grown from nothing. */
export function growth(before, after) {
  return after >= before ? after - before : after;
}

/** A histogram's buckets for one label: `[upper bound, count up to it]`, in order. */
export function buckets(samples, name, where) {
  const fits = ({ labels }) => Object.entries(where).every(([key, value]) => labels[key] === value);
  const list = (samples.get(`${name}_bucket`) ?? []).filter(fits);
  return list.map(({ labels, value }) => [Number(labels.le.replace("+Inf", "Infinity")), value]).sort((a, b) => a[0] - b[0]);
}

/**
 * What came into each bucket since; all of it if there is nothing before, or the node began anew.
 */
export function since(before, after) {
  const restarted = before.length !== after.length || after.some(([, count], at) => count < before[at][1]);
  return restarted ? after : after.map(([bound, count], at) => [bound, count - before[at][1]]);
}

/**
 * The value below which a share of the observations is: between the bounds of its bucket as if they
 * were spread evenly.
 */
export function quantile(list, share) {
  const count = list.at(-1)?.[1] ?? 0;
  if (count === 0) return undefined;
  const rank = share * count;
  const at = list.findIndex(([, upTo]) => upTo >= rank);
  const [bound, upTo] = list[at];
  const [low, before] = at > 0 ? list[at - 1] : [0, 0];
  return bound === Infinity ? low : low + ((bound - low) * (rank - before)) / Math.max(1, upTo - before);
}

/** Two digits are enough for the eye. */
function short(value) {
  return String(value < 10 ? Number(value.toPrecision(2)) : Math.round(value));
}

export function seconds(value) {
  if (value === undefined) return "–";
  if (value < 0.001) return `${Math.round(value * 1e6)} µs`;
  return value < 1 ? `${short(value * 1e3)} ms` : `${short(value)} s`;
}
