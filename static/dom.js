// Elements, made in one way only: whatever an event says becomes text, never HTML.

const SVG = "http://www.w3.org/2000/svg";

export const $ = (id) => document.getElementById(id);

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === undefined || value === null || value === false) continue;
    if (typeof value === "function") element.addEventListener(name, value);
    else element.setAttribute(name, value === true ? "" : value);
  }
  // A text is appended as a text node.
  element.append(...children.filter((child) => child !== undefined && child !== null && child !== false));
  return element;
}

/** `h("li", { class: "row", click: act }, "text", element)` */
export function h(name, attributes = {}, ...children) {
  return fill(document.createElement(name), attributes, children);
}

export function svg(name, attributes = {}, ...children) {
  return fill(document.createElementNS(SVG, name), attributes, children);
}

/** Sets a text only if it is another one: a live region says it again otherwise. */
export function say(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/** For `datetime`; an event may claim a time that no calendar has. */
export function iso(ms) {
  const date = new Date(ms);
  return Number.isNaN(date.getTime()) ? undefined : date.toISOString();
}

/** Made once: to make one takes a hundred times as long as to use it. */
const FULL = new Intl.DateTimeFormat([], { dateStyle: "medium", timeStyle: "medium" });
const [MINUTES, SECONDS] = [undefined, "2-digit"].map((second) => {
  const clock = { hour: "2-digit", minute: "2-digit", second };
  const formats = [clock, { day: "numeric", month: "short", ...clock }, { day: "numeric", month: "short", year: "numeric", ...clock }];
  return formats.map((options) => new Intl.DateTimeFormat([], options));
});

function write(format, date) {
  return Number.isNaN(date.getTime()) ? "–" : format.format(date);
}

/** A time of today as such, any other with its day, and its year if that is another. */
export function when(ms, seconds = false) {
  const [date, now] = [new Date(ms), new Date()];
  const [clock, day, year] = seconds ? SECONDS : MINUTES;
  if (date.toDateString() === now.toDateString()) return write(clock, date);
  return write(date.getFullYear() === now.getFullYear() ? day : year, date);
}

/** A point in time: short to read, and in full for whoever points at it. */
export function moment(ms, seconds) {
  return h("time", { datetime: iso(ms), title: write(FULL, new Date(ms)) }, when(ms, seconds));
}

export function ago(ms) {
  const seconds = Math.max(0, Math.round((Date.now() - ms) / 1_000));
  if (seconds < 90) return `${seconds} s`;
  if (seconds < 5_400) return `${Math.round(seconds / 60)} min`;
  return seconds < 129_600 ? `${Math.round(seconds / 3_600)} h` : `${Math.round(seconds / 86_400)} days`;
}

/** Digits in groups, as the reader's language has them. */
export function number(value) {
  return value.toLocaleString();
}

export function plural(count, one, many = `${one}s`) {
  return `${number(count)} ${count === 1 ? one : many}`;
}

/** Sets an attribute, or takes it away, only if it is another one. */
export function set(element, name, value) {
  if (value === undefined || value === null || value === false) element.removeAttribute(name);
  else if (element.getAttribute(name) !== String(value)) element.setAttribute(name, value);
}

/** Makes these the children, and moves only what is elsewhere: nothing flickers. */
export function lay(parent, elements) {
  const wanted = new Set(elements);
  for (const child of [...parent.children]) if (!wanted.has(child)) child.remove();
  elements.forEach((element, at) => parent.children[at] !== element && parent.insertBefore(element, parent.children[at] ?? null));
}

/**
 * The children of an element, by key. What is on the screen stays there and is only told anew what
 * it shows: a button that is replaced between press and release gets no click, and a selection or a
 * screen reader's place is lost with its element.
 */
export class Kept {
  #parent;
  #make;
  #held = new Map();

  /**
   * `make(key, state)` gives an `element`, and `show(state)` that brings it to what it should show.
   */
  constructor(parent, make) {
    this.#parent = parent;
    this.#make = make;
  }

  /** `items` are pairs of a key and a state. */
  show(items) {
    const before = this.#held;
    this.#held = new Map(items.map(([key, state]) => [key, before.get(key) ?? this.#make(key, state)]));
    for (const [key, state] of items) this.#held.get(key).show(state);
    lay(this.#parent, [...this.#held.values()].map(({ element }) => element));
  }
}
