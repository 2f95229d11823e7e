// Marks on the picture: clicks, boxes, the crosshair of the keyboard, and the labels of objects.
import { chip, make, makeSvg } from './dom.js';

const MARK_PIXELS = 8, LABEL_HEIGHT = 22;

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

/** Labels stand above their objects, or below them at the upper edge, so that small objects stay visible. */
export class Labels {
  constructor(session, player) {
    Object.assign(this, { session, player });
    this.element = make('div', { class: 'up-labels', 'aria-hidden': 'true' });
  }

  refresh(unit) {
    const { player, session, element } = this;
    const isLabelled = (layer) => ['color', 'outline'].includes(player.compositor.effectOf(layer.id));
    const layers = player.layers.filter(isLabelled).sort((a, b) => a.id - b.id);
    const scale = player.scale * unit, taken = [];
    const [width, height] = [element.clientWidth, element.clientHeight];
    layers.forEach((layer, index) => {
      const text = session.nameOf(layer.id, 18), labelWidth = 34 + 7 * text.length;
      const middle = (layer.x + layer.width / 2) / scale, top = (layer.y + layer.margin) / scale;
      const bottom = (layer.y + layer.height - layer.margin) / scale;
      const left = Math.max(2, Math.min(width - labelWidth - 2, middle - labelWidth / 2)), right = left + labelWidth;
      const overlaps = (at) => taken.some((item) => Math.abs(item.at - at) < LABEL_HEIGHT && left < item.right && right > item.left);
      let at = top - LABEL_HEIGHT - 3;
      while (at >= 2 && overlaps(at)) at -= LABEL_HEIGHT;
      if (at < 2) {
        at = bottom + 3;
        while (at < height - LABEL_HEIGHT && overlaps(at)) at += LABEL_HEIGHT;
      }
      at = Math.max(2, Math.min(height - LABEL_HEIGHT - 2, at));
      taken.push({ at, left, right });
      this.put(index, layer.id, { text, left, top: at });
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
