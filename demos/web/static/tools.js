// The picture of the player with the tools on it: clicks, boxes, brush, labels and the keyboard.
import { iconButton, make, makeSvg } from './dom.js';
import { HoverPreview } from './hover_preview.js';
import { boxShapes, crosshairShapes, Labels, markShapes } from './marks.js';

const TOOLS = [
  ['point', 'Click', 'Click what belongs to the object (Shift: what does not)'],
  ['negative', 'Not this', 'Click what does not belong to the object'],
  ['box', 'Box', 'Drag a box around the object, or click two corners'],
  ['brush', 'Brush', 'Draw the object; with Shift, erase'],
];
const FAR_PIXELS = 8, CROSSHAIR_STEPS = 40;

export class Tools {
  constructor(session, player) {
    this.session = session;
    this.player = player;
    this.tool = 'point';
    this.brushSize = 26; // pixels of the screen
    this.corner = this.hover = this.crosshair = null;
    this.isBrushing = false;
    this.strokes = document.createElement('canvas');
    this.marks = makeSvg('svg', { class: 'up-marks', preserveAspectRatio: 'none', 'aria-hidden': 'true' });
    this.labels = new Labels(session, player);
    this.preview = new HoverPreview(session, player);
    this.strokes.className = 'up-strokes';
    this.picture = make('div', {
      class: 'up-picture', tabindex: '0', role: 'application', 'aria-describedby': 'up-keys',
      onkeydown: (event) => this.onKey(event),
    }, player.canvas, this.preview.canvas, this.strokes, this.marks, this.labels.element);
    player.canvas.setAttribute('aria-hidden', 'true');
    this.buttons = TOOLS.map(([name, text, title]) => iconButton(name, title, {
      role: 'radio', 'data-tool': name, 'aria-label': text, onclick: () => this.choose(name), onkeydown: (event) => this.onRadioKey(event, name),
    }, { text }));
    this.size = make('input', {
      type: 'range', min: '6', max: '90', value: String(this.brushSize), 'aria-label': 'Size of the brush', class: 'up-brush-size',
      oninput: (event) => { this.brushSize = Number(event.target.value); },
    });
    this.undoButton = iconButton('undo', 'Undo (Ctrl+Z)', { onclick: () => session.change('undo') });
    this.redoButton = iconButton('redo', 'Redo (Ctrl+Shift+Z)', { onclick: () => session.change('redo') });
    this.bar = make('div', { class: 'up-tools', role: 'radiogroup', 'aria-label': 'Tool' }, ...this.buttons);
    this.history = make('div', { class: 'up-tools' }, this.size, this.undoButton, this.redoButton);
    this.listen();
    this.choose('point');
  }

  listen() {
    const target = this.marks;
    target.addEventListener('pointerdown', (event) => this.onDown(event));
    target.addEventListener('pointermove', (event) => this.onMove(event));
    target.addEventListener('pointerup', (event) => this.onUp(event));
    target.addEventListener('pointercancel', () => this.cancelDrag());
    target.addEventListener('pointerleave', () => this.preview.clear());
    this.player.addEventListener('frame', () => this.refresh());
    this.session.addEventListener('change', () => this.refresh());
    new ResizeObserver(() => this.refresh()).observe(this.picture);
  }

  open(info) {
    this.marks.setAttribute('viewBox', `0 0 ${info.width} ${info.height}`);
    Object.assign(this.strokes, { width: info.width, height: info.height });
    this.picture.style.setProperty('--up-ratio', String(info.width / info.height));
    const keys = info.is_image ? '' : ' Arrow keys change the frame, Space plays.';
    this.picture.setAttribute('aria-label', `${info.is_image ? 'Image' : 'Video'} with objects.${keys}`);
    this.cancelDrag();
    this.crosshair = null;
  }

  choose(tool) {
    this.tool = tool;
    this.preview.clear();
    this.cancelDrag();
    for (const button of this.buttons) {
      const isChosen = button.dataset.tool === tool;
      button.setAttribute('aria-checked', String(isChosen));
      button.tabIndex = isChosen ? 0 : -1;
    }
    this.size.hidden = tool !== 'brush';
    this.picture.dataset.tool = tool;
  }

  onRadioKey(event, name) {
    const step = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -1, ArrowDown: 1 }[event.key];
    if (!step) return;
    const names = TOOLS.map(([key]) => key);
    const next = (names.indexOf(name) + step + names.length) % names.length;
    this.choose(names[next]);
    this.buttons[next].focus();
    event.preventDefault();
  }

  // --- Pointer ---

  /** Pixels of the frame for each pixel of the screen. */
  get unit() {
    return (this.player.info?.width || 1) / (this.picture.clientWidth || 1);
  }

  positionOf(event) {
    const box = this.marks.getBoundingClientRect(), { width, height } = this.player.info;
    const clip = (part, size) => Math.max(0, Math.min(size - 1, part * size));
    return { x: clip((event.clientX - box.left) / box.width, width), y: clip((event.clientY - box.top) / box.height, height) };
  }

  get canPrompt() {
    return this.player.info !== null && !this.session.isReadOnly;
  }

  onDown(event) {
    if (event.button || !this.canPrompt) return;
    this.picture.focus({ preventScroll: true });
    this.player.pause();
    this.preview.clear();
    const position = this.positionOf(event);
    this.marks.setPointerCapture(event.pointerId);
    if (this.tool === 'brush') {
      Object.assign(this, { isBrushing: true, isErasing: event.shiftKey, hover: null });
      this.clearStrokes();
      this.stroke(position);
    } else if (this.tool === 'box') {
      this.isSecondCorner = this.corner !== null;
      if (!this.isSecondCorner) this.corner = position;
      this.hover = position;
      this.refresh();
    } else this.pressed = position;
  }

  onMove(event) {
    if (!this.player.info) return;
    const position = this.positionOf(event);
    if (this.isBrushing) this.stroke(position);
    else if (this.corner) {
      this.hover = position;
      this.refresh();
    } else if (event.pointerType !== 'touch' && !event.buttons && this.isPointing) {
      this.preview.move(position, event.shiftKey !== (this.tool === 'negative'));
    }
  }

  get isPointing() {
    return this.tool === 'point' || this.tool === 'negative';
  }

  onUp(event) {
    if (!this.player.info) return;
    const position = this.positionOf(event);
    if (this.isBrushing) {
      this.isBrushing = false;
      this.sendStrokes();
    } else if (this.corner) {
      const isFar = Math.hypot(this.corner.x - position.x, this.corner.y - position.y) > FAR_PIXELS * this.unit;
      if (this.isSecondCorner || isFar) this.sendBox(position);
    } else if (this.pressed) {
      this.pressed = null;
      this.sendPoint(position, event.shiftKey !== (this.tool === 'negative'));
    }
  }

  cancelDrag() {
    Object.assign(this, { corner: null, hover: null, pressed: null, isBrushing: false });
    this.clearStrokes();
    if (this.player.info) this.refresh();
  }

  sendPoint({ x, y }, isNegative) {
    this.session.prompt({ frame: this.player.frame, points: [[x, y, isNegative ? 0 : 1]] });
  }

  sendBox(position) {
    const { corner } = this;
    this.corner = this.hover = null;
    const box = boxBetween(corner, position);
    if (box[2] - box[0] < 1 || box[3] - box[1] < 1) this.refresh();
    else this.session.prompt({ frame: this.player.frame, box });
  }

  stroke(position) {
    const context = this.strokes.getContext('2d'), from = this.hover || position;
    context.strokeStyle = this.isErasing ? '#ffffff' : this.colorOf(this.session.selected);
    Object.assign(context, { lineWidth: this.brushSize * this.unit, lineCap: 'round', lineJoin: 'round' });
    context.beginPath();
    context.moveTo(from.x, from.y);
    context.lineTo(position.x + 0.01, position.y);
    context.stroke();
    this.hover = position;
  }

  /** Send the object's mask on this frame with what was drawn added, or erased. */
  async sendStrokes() {
    const { selected } = this.session, { scale, frame } = this.player, { width, height } = this.strokes;
    const canvas = make('canvas', { width, height }), context = canvas.getContext('2d');
    const layer = this.player.layers.find((item) => item.id === selected);
    if (layer && selected) context.drawImage(layer.area, layer.x / scale, layer.y / scale, layer.width / scale, layer.height / scale);
    if (this.isErasing) context.globalCompositeOperation = 'destination-out';
    context.drawImage(this.strokes, 0, 0);
    const png = await new Promise((resolve) => canvas.toBlob(resolve, 'image/png'));
    await this.session.brush({ frame, png });
    this.clearStrokes();
  }

  clearStrokes() {
    this.strokes.getContext('2d').clearRect(0, 0, this.strokes.width, this.strokes.height);
    this.hover = null;
  }

  // --- Keyboard ---

  onKey(event) {
    const moves = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
    const { player, session } = this, { info } = player;
    if (!info) return;
    const isControl = event.ctrlKey || event.metaKey;
    if (isControl && event.key.toLowerCase() === 'z') session.change(event.shiftKey ? 'redo' : 'undo');
    else if (isControl || event.altKey) return;
    else if (event.shiftKey && moves[event.key]) this.moveCrosshair(moves[event.key], info);
    else if (event.key === 'Enter' && this.crosshair) this.pressCrosshair();
    else if (event.key === 'ArrowLeft' || event.key === 'ArrowRight') player.step(moves[event.key][0]);
    else if (event.key === 'Home') player.seek(0);
    else if (event.key === 'End') player.seek(player.lastFrame);
    else if (event.key === ' ') player.toggle();
    else if (event.key === 'Escape') {
      this.crosshair = null;
      this.cancelDrag();
    } else if (event.key === 'n') session.select(0);
    else if (event.key === 'i') this.markRange('first');
    else if (event.key === 'o') this.markRange('last');
    else return;
    event.preventDefault();
  }

  markRange(end) {
    this.session.range[end] = this.player.frame;
    this.session.changed();
  }

  moveCrosshair([right, down], { width, height }) {
    const step = width / CROSSHAIR_STEPS, from = this.crosshair || { x: width / 2, y: height / 2 };
    this.crosshair = {
      x: Math.max(0, Math.min(width - 1, from.x + step * right)), y: Math.max(0, Math.min(height - 1, from.y + step * down)),
    };
    if (this.corner) this.hover = this.crosshair;
    this.refresh();
  }

  pressCrosshair() {
    if (!this.canPrompt) return;
    if (this.tool !== 'box') this.sendPoint(this.crosshair, this.tool === 'negative');
    else if (this.corner) this.sendBox(this.crosshair);
    else this.corner = this.hover = this.crosshair;
    this.refresh();
  }

  // --- Drawing ---

  colorOf(id) {
    return this.session.object(id)?.color || '#56b4e9';
  }

  refresh() {
    const { session, player } = this;
    this.undoButton.disabled = !session.state.can_undo || session.isReadOnly;
    this.redoButton.disabled = !session.state.can_redo || session.isReadOnly;
    if (!player.info) return;
    const { unit, corner, hover } = this, parts = [];
    for (const item of session.state.objects) {
      const shown = (item.prompts || []).filter((mark) => mark.frame === player.frame);
      const options = { unit, isSelected: item.id === session.selected };
      parts.push(...shown.flatMap((mark) => markShapes(mark, item.color, options)));
    }
    const pending = session.pendingMarks.filter((mark) => mark.frame === player.frame);
    parts.push(...pending.flatMap((mark) => markShapes(mark, '#ffffff', { unit, isSelected: true })));
    if (corner && hover) parts.push(...boxShapes(boxBetween(corner, hover), this.colorOf(session.selected), unit));
    if (this.crosshair) parts.push(...crosshairShapes(this.crosshair, unit));
    this.marks.replaceChildren(...parts);
    this.labels.refresh(unit);
  }
}

/** Return the description of the keys, for screen readers and as a hint. */
export function keysHint(session) {
  const hint = make('p', { class: 'up-keys', id: 'up-keys' });
  session.addEventListener('video', () => {
    if (session.isReadOnly) hint.textContent = session.video?.is_image ? '' : 'Keys on the picture: Space plays, ← → step, Home and End go to the first and last frame.';
    else hint.textContent = session.video?.is_image
      ? 'Keys on the picture: Shift with arrow keys moves a crosshair, Enter clicks there, N begins a new object, Ctrl+Z undoes, Ctrl+Shift+Z redoes.'
      : 'Keys on the picture: Space plays, ← → step, Shift with arrow keys moves a crosshair, Enter clicks there, N begins a new object, '
        + 'I and O mark a range, Ctrl+Z undoes, Ctrl+Shift+Z redoes.';
  });
  return hint;
}

/** Return left, top, right and bottom of the box between two corners. */
function boxBetween(a, b) {
  return [Math.min(a.x, b.x), Math.min(a.y, b.y), Math.max(a.x, b.x), Math.max(a.y, b.y)];
}
