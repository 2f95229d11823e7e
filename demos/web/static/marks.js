// Marks on the picture: clicks, boxes, the crosshair of the keyboard, and the labels of objects.
import { chip, make, makeSvg } from './dom.js';

const MARK_PIXELS = 8, LABEL_HEIGHT = 20, LABEL_GAP = 4;

/** Return the shapes of a prompt; `unit` is the number of pixels of the frame for each pixel of the screen. */
export function markShapes(mark, color, { unit, isSelected }) {
  if (mark.kind === 'box') return boxShapes(mark.coords, color, unit);
  if (mark.kind !== 'point') return [];
  const [x, y] = mark.coords, radius = (isSelected ? MARK_PIXELS : 0.75 * MARK_PIXELS) * unit;
  const arm = 0.5 * radius, minus = `M${x - arm} ${y}h${2 * arm}`;
  const sign = mark.is_positive ? `${minus}M${x} ${y - arm}v${2 * arm}` : minus;
  return [
    makeSvg('circle', { cx: x, cy: y, r: radius + 1.5 * unit, fill: '#ffffff' }),
    makeSvg('circle', { cx: x, cy: y, r: radius, fill: mark.is_positive ? '#0b6e3b' : '#b3261e', stroke: color, 'stroke-width': unit }),
    makeSvg('path', { d: sign, stroke: '#ffffff', 'stroke-width': 2 * unit, fill: 'none' }),
  ];
}

/** Return the shapes of a box: a dashed line on a dark one, visible on every background. */
export function boxShapes([left, top, right, bottom], color, unit) {
  const shape = { x: left, y: top, width: right - left, height: bottom - top, fill: 'none' };
  return [
    makeSvg('rect', { ...shape, stroke: '#111111', 'stroke-width': 4 * unit }),
    makeSvg('rect', { ...shape, stroke: color, 'stroke-width': 2 * unit, 'stroke-dasharray': `${6 * unit} ${3 * unit}` }),
  ];
}

/** Return the shapes of the crosshair. */
export function crosshairShapes({ x, y }, unit) {
  const arm = 14 * unit, path = `M${x - arm} ${y}h${2 * arm}M${x} ${y - arm}v${2 * arm}`;
  return [['#111111', 4], ['#ffffff', 1.5]].map(([stroke, width]) => makeSvg('path', { d: path, stroke, 'stroke-width': width * unit }));
}

/** Labels stand beside their objects: above where there is room, and never on a small object if that can be avoided. */
export class Labels {
  constructor(session, player) {
    Object.assign(this, { session, player });
    this.element = make('div', { class: 'up-labels', 'aria-hidden': 'true' });
  }

  refresh(unit) {
    const { player, session, element } = this;
    const isLabelled = (layer) => ['color', 'outline'].includes(player.compositor.effectOf(layer.id));
    const layers = player.layers.filter(isLabelled).sort((a, b) => a.id - b.id);
    const scale = player.scale * unit, screen = { width: element.clientWidth, height: element.clientHeight };
    const boxes = layers.map(({ x, y, width, height, margin }) => ({
      left: (x + margin) / scale, top: (y + margin) / scale, right: (x + width - margin) / scale, bottom: (y + height - margin) / scale,
    }));
    const taken = [];
    layers.forEach((layer, index) => {
      const text = session.nameOf(layer.id, 18), size = { width: 34 + 7 * text.length, height: LABEL_HEIGHT };
      const place = labelPlace(boxes[index], size, { screen, objects: boxes, labels: taken });
      taken.push(place);
      this.put(index, layer.id, { text, left: place.left, top: place.top });
    });
    while (element.childElementCount > layers.length) element.lastChild.remove();
  }

  put(index, id, { text, left, top }) {
    const key = `${id} ${text}`;
    let node = this.element.children[index];
    if (!node) this.element.append(node = make('div', { class: 'up-label' }));
    if (node.dataset.key !== key) {
      node.dataset.key = key;
      node.replaceChildren(chip(id, this.session.object(id)?.color || '#56b4e9'), ...(text ? [make('span', {}, text)] : []));
    }
    node.classList.toggle('up-label-selected', id === this.session.selected);
    node.style.transform = `translate(${left.toFixed(1)}px, ${top.toFixed(1)}px)`;
  }
}

/** Return the best place for a label: what it covers of other labels weighs most, then the part of each object. */
function labelPlace(box, { width, height }, { screen, objects, labels }) {
  const middle = (box.left + box.right - width) / 2, center = (box.top + box.bottom - height) / 2;
  const places = [
    [middle, box.top - height - LABEL_GAP], [middle, box.bottom + LABEL_GAP],
    [box.right + LABEL_GAP, center], [box.left - width - LABEL_GAP, center],
    [box.right + LABEL_GAP, box.top - height - LABEL_GAP], [box.left - width - LABEL_GAP, box.top - height - LABEL_GAP],
    [middle, box.top + LABEL_GAP], [middle, center],
  ];
  let best = null;
  places.forEach(([x, y], order) => {
    const left = Math.max(2, Math.min(screen.width - width - 2, x)), top = Math.max(2, Math.min(screen.height - height - 2, y));
    const place = { left, top, right: left + width, bottom: top + height };
    const moved = Math.hypot(left - x, top - y) / height;
    const covered = objects.reduce((sum, object) => sum + overlap(place, object) / areaOf(object), 0);
    place.cost = 0.06 * order + moved + 6 * covered + labels.reduce((sum, label) => sum + 12 * overlap(place, label) / areaOf(label), 0);
    if (!best || place.cost < best.cost) best = place;
  });
  return best;
}

function areaOf({ left, top, right, bottom }) {
  return Math.max(1, (right - left) * (bottom - top));
}

function overlap(a, b) {
  const width = Math.min(a.right, b.right) - Math.max(a.left, b.left), height = Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top);
  return width > 0 && height > 0 ? width * height : 0;
}
