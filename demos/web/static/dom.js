// Elements of the page. Text of users and of the model reaches the page through `textContent` and attributes only.

/** Return a new element. `on*` attributes are listeners, `true` and `false` set and omit an attribute. */
export function make(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  return fill(node, attributes, children);
}

/** Return a new SVG element. */
export function makeSvg(tag, attributes = {}, ...children) {
  return fill(document.createElementNS('http://www.w3.org/2000/svg', tag), attributes, children);
}

function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith('on')) node.addEventListener(name.slice(2), value);
    else node.setAttribute(name, value === true ? '' : String(value));
  }
  node.append(...children.filter((child) => child !== null && child !== undefined && child !== false));
  return node;
}

// Drawn for this page, on a grid of 24 by 24.
const ICONS = {
  add: 'M12 5v14M5 12h14',
  box: 'M5 5h14v14H5z',
  brush: 'M5 19c3 1 5-1 5-3l8-9c1-1 0-3-2-2l-8 8c-2 0-3 2-3 6z',
  chat: 'M4 5h16v11H10l-4 4v-4H4z',
  close: 'M6 6l12 12M18 6L6 18',
  download: 'M12 4v11M7 11l5 5 5-5M5 20h14',
  effects: 'M12 4a8 8 0 1 0 0 16zM12 4a8 8 0 0 1 0 16M12 8h5M12 12h7M12 16h5',
  fullscreen: 'M4 9V4h5M15 4h5v5M20 15v5h-5M9 20H4v-5',
  more: 'M6 9l6 6 6-6',
  negative: 'M5 12h14',
  next: 'M8 5l8 7-8 7zM18 5v14',
  pause: 'M8 5v14M16 5v14',
  play: 'M7 4l12 8-12 8z',
  point: 'M12 3v6M12 15v6M3 12h6M15 12h6',
  previous: 'M16 5l-8 7 8 7zM6 5v14',
  redo: 'M19 9H9a4 4 0 0 0 0 8h4M19 9l-4-4M19 9l-4 4',
  remove: 'M5 7h14M9 7V4h6v3M7 7l1 13h8l1-13',
  share: 'M15 5.5a2.5 2.5 0 1 0 5 0 2.5 2.5 0 1 0-5 0M4 12a2.5 2.5 0 1 0 5 0 2.5 2.5 0 1 0-5 0M15 18.5a2.5 2.5 0 1 0 5 0 2.5 2.5 0 1 0-5 0M8.7 10.7l6.6-3.9M8.7 13.3l6.6 3.9',
  sound: 'M4 10v4h3l5 4V6l-5 4zM16 9c2 2 2 4 0 6',
  muted: 'M4 10v4h3l5 4V6l-5 4zM16 9l5 6M21 9l-5 6',
  undo: 'M5 9h10a4 4 0 0 1 0 8h-4M5 9l4-4M5 9l4 4',
};

/** Return an icon; it is hidden from screen readers, since its button has a label. */
export function icon(name) {
  const svg = makeSvg('svg', { viewBox: '0 0 24 24', class: 'up-icon', 'aria-hidden': 'true' });
  svg.append(makeSvg('path', { d: ICONS[name] }));
  return svg;
}

/** Return a button with an icon, and a text that narrow windows omit. */
export function iconButton(name, label, attributes = {}, { text = '' } = {}) {
  const content = text ? [icon(name), make('span', { class: 'up-button-text' }, text)] : [icon(name)];
  return make('button', { type: 'button', title: label, 'aria-label': label, ...attributes }, ...content);
}

/** Return the color of text with the higher contrast on a color `#rrggbb` (WCAG 2.2). */
export function textColorOn(color) {
  return luminance(color) > 0.18 ? '#111111' : '#ffffff';
}

/** Return the relative luminance of a color `#rrggbb` as WCAG 2.2 defines it. */
export function luminance(color) {
  const parts = [1, 3, 5].map((at) => parseInt(color.slice(at, at + 2), 16) / 255);
  const linear = parts.map((part) => (part <= 0.04 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4));
  return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2];
}

/** Return `[id]` on the color of its masks. */
export function chip(id, color, attributes = {}, tag = 'span') {
  const style = `background:${color};color:${textColorOn(color)}`;
  return make(tag, { class: 'up-chip', style, ...attributes }, `[${id}]`);
}

/** Return a text of at most `length` characters. */
export function shorten(text, length = 28) {
  const characters = [...text.trim()];
  return characters.length <= length ? characters.join('') : `${characters.slice(0, length - 1).join('').trimEnd()}…`;
}

/** Return seconds as `m:ss.d`. */
export function clock(seconds) {
  const tenths = Math.round(seconds * 10);
  return `${Math.floor(tenths / 600)}:${String(Math.floor(tenths / 10) % 60).padStart(2, '0')}.${tenths % 10}`;
}

/** Return a first letter in upper case, as messages of the server start in lower case. */
export function sentence(text) {
  return text ? text[0].toUpperCase() + text.slice(1) : '';
}
