// The frame editor of the page "Ask about a video": tools, frame, slider. `props.value` is the server's state of the
// session (`editor` in views.py); the user's actions are sent as the events point, box, mask and undo.
const root = element.querySelector('.up-editor');
root.innerHTML = `
  <div class="up-editor-content" hidden>
    <div class="up-tools">
      <div class="up-tool-row" role="radiogroup" aria-label="Tool">
        <button type="button" role="radio" data-tool="point" title="Click what belongs to the object">Point</button>
        <button type="button" role="radio" data-tool="negative" title="Click what does not belong to the object">Exclude</button>
        <button type="button" role="radio" data-tool="box" title="Drag a box, or click two corners">Box</button>
        <button type="button" role="radio" data-tool="brush" title="Draw over the object">Brush</button>
      </div>
      <div class="up-tool-row" role="radiogroup" aria-label="Object" data-chips></div>
      <div class="up-tool-row">
        <button type="button" data-undo title="Undo the last prompt">Undo</button>
        <button type="button" data-use-mask hidden>Use drawn mask</button>
        <button type="button" data-clear-mask hidden>Clear</button>
      </div>
    </div>
    <p class="up-hint" data-hint></p>
    <div class="up-frame" tabindex="0" role="application" data-frame aria-describedby="up-keys"
      aria-label="Frame of the video. Arrow keys change the frame.">
      <img alt="" draggable="false"><canvas></canvas>
    </div>
    <p class="up-error" role="alert" data-prompt-error hidden></p>
    <div class="up-frame-slider" data-frames>
      <button type="button" data-play aria-label="Play or pause">▶</button>
      <input type="range" min="0" value="0" step="1" aria-label="Frame">
      <output></output>
    </div>
    <p class="up-fine" id="up-keys">Keys: ← → change the frame; Shift with arrow keys moves a crosshair, Enter clicks there;
      Ctrl+Z undoes.</p>
  </div>`;
const find = (selector) => root.querySelector(selector);
const frameElement = find('[data-frame]'), image = frameElement.querySelector('img');
const canvas = frameElement.querySelector('canvas'), slider = find('input[type=range]'), counter = find('output');
const brushLayer = document.createElement('canvas');
const state = { tool: 'point', object: 0, frame: 0, corner: null, hover: null, crosshair: null, timer: 0, media: 0,
  hasBrushMask: false, isBrushing: false, wanted: '', isLoading: false };
const value = () => props.value || {};
const media = () => value().media;

const show = (node, text) => { node.textContent = text || ''; node.hidden = !text; };
const hints = {
  point: 'Click the object in the frame.', negative: 'Click what does not belong to the object.',
  box: 'Drag a box around the object, or click two corners.',
  brush: 'Draw over the object, then choose “Use drawn mask”.' };

function colorOf(id) {
  const known = (value().objects || []).find((item) => item.id === id);
  return known ? known.color : '#56b4e9';
}

function refreshTools() {
  root.querySelectorAll('[data-tool]').forEach((button) => {
    button.setAttribute('aria-checked', String(button.dataset.tool === state.tool));
    button.tabIndex = button.dataset.tool === state.tool ? 0 : -1;
  });
  const chips = find('[data-chips]');
  chips.replaceChildren(...[...(value().objects || []), { id: 0 }].map((item) => {
    const button = document.createElement('button');
    button.type = 'button';
    button.setAttribute('role', 'radio');
    button.setAttribute('aria-checked', String(item.id === state.object));
    button.dataset.object = item.id;
    button.textContent = item.id ? `[${item.id}]${item.name ? ' ' + item.name : ''}` : '+ New object';
    if (item.id) button.style.setProperty('--up-object', item.color);
    return button;
  }));
  const target = state.object ? ` It is added to [${state.object}]; choose “+ New object” for another object.` : '';
  find('[data-hint]').textContent = hints[state.tool] + target;
  find('[data-use-mask]').hidden = find('[data-clear-mask]').hidden = state.tool !== 'brush' || !state.hasBrushMask;
  frameElement.dataset.tool = state.tool;
}

function draw() {
  const info = media();
  if (!info) return;
  const context = canvas.getContext('2d');
  context.clearRect(0, 0, canvas.width, canvas.height);
  const line = Math.max(2, canvas.width / 300);
  if (state.hasBrushMask || state.isBrushing) { context.globalAlpha = 0.55; context.drawImage(brushLayer, 0, 0); }
  context.globalAlpha = 1;
  if (state.corner && state.hover) {
    context.lineWidth = line; context.strokeStyle = colorOf(state.object);
    context.strokeRect(state.corner.x, state.corner.y, state.hover.x - state.corner.x, state.hover.y - state.corner.y);
  }
  if (state.crosshair) {
    const { x, y } = state.crosshair;
    for (const [style, width] of [['#000', 3 * line], ['#fff', line]]) {
      context.strokeStyle = style; context.lineWidth = width;
      context.beginPath();
      context.moveTo(x - 6 * line, y); context.lineTo(x + 6 * line, y);
      context.moveTo(x, y - 6 * line); context.lineTo(x, y + 6 * line);
      context.stroke();
    }
  }
}

function showFrame() {
  const info = media();
  if (!info) return;
  slider.value = state.frame;
  const seconds = info.fps ? ` · ${(state.frame / info.fps).toFixed(2)} s` : '';
  counter.textContent = `${state.frame} / ${info.num_frames - 1}${seconds}`;
  state.wanted = `${value().base}/frame/${state.frame}.jpg?rev=${value().revision}`;
  fetchFrame();
}

function fetchFrame() {  // one request at a time; afterwards the latest requested frame is fetched
  if (state.isLoading || image.dataset.shown === state.wanted) return;
  const next = new Image(), wanted = state.wanted;
  state.isLoading = true;
  const done = (isShown) => {
    state.isLoading = false;
    image.dataset.shown = wanted;
    if (isShown) { image.src = next.src; image.alt = `Frame ${state.frame}`; }
    if (state.wanted !== wanted) fetchFrame();
  };
  next.onload = () => done(true);
  next.onerror = () => done(false);
  next.src = wanted;
}

function seek(frame) {
  const info = media();
  if (!info) return;
  state.frame = Math.max(0, Math.min(info.num_frames - 1, frame));
  state.corner = state.hover = null;
  clearBrush();
  showFrame();
  draw();
}

function clearBrush() {
  brushLayer.getContext('2d').clearRect(0, 0, brushLayer.width, brushLayer.height);
  state.hasBrushMask = false;
  refreshTools();
}

function refresh() {
  const current = value(), info = current.media;
  find('.up-editor-content').hidden = !info;
  show(find('[data-prompt-error]'), current.error);
  if (!info) return;
  if (state.media !== current.media_id) {
    Object.assign(state, { media: current.media_id, frame: 0, object: 0, corner: null, crosshair: null });
    canvas.width = brushLayer.width = info.width;
    canvas.height = brushLayer.height = info.height;
    frameElement.style.aspectRatio = `${info.width} / ${info.height}`;
    frameElement.style.maxWidth = `calc(60vh * ${info.width / info.height})`;
    clearBrush();
    const url = new URL(location.href);
    url.searchParams.set('session', current.session);
    history.replaceState(null, '', url);
  }
  slider.max = info.num_frames - 1;
  find('[data-frames]').hidden = info.num_frames < 2;
  if (current.selected !== undefined) state.object = current.selected;
  if (!(current.objects || []).some((item) => item.id === state.object)) state.object = 0;
  refreshTools();
  showFrame();
  draw();
}

function framePosition(event) {
  const box = canvas.getBoundingClientRect();
  const clip = (part, size) => Math.max(0, Math.min(size - 1, part * size));
  return { x: clip((event.clientX - box.left) / box.width, canvas.width),
    y: clip((event.clientY - box.top) / box.height, canvas.height) };
}

const common = () => ({ frame: state.frame, object_id: state.object });
function pointAt(position) {
  trigger('point', { ...common(), x: position.x, y: position.y, is_positive: state.tool !== 'negative' });
}
function boxTo(position) {
  const from = state.corner;
  state.corner = state.hover = null;
  draw();
  trigger('box', { ...common(), left: Math.min(from.x, position.x), top: Math.min(from.y, position.y),
    right: Math.max(from.x, position.x), bottom: Math.max(from.y, position.y) });
}
function brush(position) {
  const context = brushLayer.getContext('2d');
  context.fillStyle = context.strokeStyle = colorOf(state.object);
  context.lineWidth = Math.max(6, canvas.width / 24);
  context.lineCap = 'round';
  context.beginPath();
  context.moveTo((state.hover || position).x, (state.hover || position).y);
  context.lineTo(position.x + 0.01, position.y);
  context.stroke();
  state.hover = position;
  state.hasBrushMask = true;
  draw();
}
const isFar = (a, b) => Math.hypot(a.x - b.x, a.y - b.y) > canvas.width / 60;

canvas.addEventListener('pointerdown', (event) => {
  if (event.button || !media()) return;
  const position = framePosition(event);
  if (state.tool === 'brush') {
    canvas.setPointerCapture(event.pointerId);
    Object.assign(state, { isBrushing: true, hover: null });
    brush(position);
  } else if (state.tool === 'box' && !state.corner) {
    canvas.setPointerCapture(event.pointerId);
    Object.assign(state, { corner: position, hover: position });
    state.isFirstCorner = true;
  } else if (state.tool === 'box') { state.isFirstCorner = false; }
});
canvas.addEventListener('pointermove', (event) => {
  const position = framePosition(event);
  if (state.isBrushing) brush(position);
  else if (state.corner) { state.hover = position; draw(); }
});
canvas.addEventListener('pointerup', (event) => {
  const position = framePosition(event);
  if (state.isBrushing) { Object.assign(state, { isBrushing: false, hover: null }); refreshTools(); }
  else if (state.corner && (!state.isFirstCorner || isFar(state.corner, position))) boxTo(position);
});
canvas.addEventListener('click', (event) => {
  frameElement.focus({ preventScroll: true });
  if (media() && (state.tool === 'point' || state.tool === 'negative')) pointAt(framePosition(event));
});
frameElement.addEventListener('keydown', (event) => {
  const moves = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
  const info = media();
  if (!info) return;
  if (event.shiftKey && moves[event.key]) {
    const step = info.width / 40, from = state.crosshair || { x: info.width / 2, y: info.height / 2 };
    state.crosshair = { x: Math.max(0, Math.min(info.width - 1, from.x + step * moves[event.key][0])),
      y: Math.max(0, Math.min(info.height - 1, from.y + step * moves[event.key][1])) };
    if (state.corner) state.hover = state.crosshair;
    draw();
  } else if (event.key === 'Enter' && state.crosshair) {
    if (state.tool !== 'box') pointAt(state.crosshair);
    else if (state.corner) boxTo(state.crosshair);
    else { state.corner = state.crosshair; draw(); }
  } else if (event.key === 'ArrowLeft' || event.key === 'ArrowRight') seek(state.frame + moves[event.key][0]);
  else if (event.key === 'Home') seek(0);
  else if (event.key === 'End') seek(info.num_frames - 1);
  else if (event.key === 'z' && (event.ctrlKey || event.metaKey)) trigger('undo', {});
  else if (event.key === 'Escape') { state.corner = state.hover = state.crosshair = null; draw(); }
  else return;
  event.preventDefault();
});
slider.addEventListener('input', () => seek(Number(slider.value)));

find('[data-play]').addEventListener('click', (event) => {
  if (state.timer) { clearInterval(state.timer); state.timer = 0; }
  else {
    const info = media(), stride = Math.max(1, Math.round((info.fps || 10) / 10));
    state.timer = setInterval(() => {
      if (!element.isConnected) clearInterval(state.timer);
      else if (!state.isLoading) seek(state.frame + stride >= info.num_frames ? 0 : state.frame + stride);
    }, 1000 * stride / (info.fps || 10));
  }
  event.currentTarget.textContent = state.timer ? '❚❚' : '▶';
});

function selectTool(tool) {
  state.tool = tool;
  state.corner = state.hover = null;
  if (tool !== 'brush') clearBrush();
  refreshTools();
  draw();
}
root.querySelectorAll('[data-tool]').forEach((button) => {
  button.addEventListener('click', () => selectTool(button.dataset.tool));
  button.addEventListener('keydown', (event) => {
    const all = [...root.querySelectorAll('[data-tool]')], step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (!step) return;
    const next = all[(all.indexOf(button) + step + all.length) % all.length];
    selectTool(next.dataset.tool);
    next.focus();
    event.preventDefault();
  });
});
find('[data-chips]').addEventListener('click', (event) => {
  const button = event.target.closest('[data-object]');
  if (button) { state.object = Number(button.dataset.object); refreshTools(); }
});
find('[data-undo]').addEventListener('click', () => trigger('undo', {}));
find('[data-clear-mask]').addEventListener('click', () => { clearBrush(); draw(); });
find('[data-use-mask]').addEventListener('click', () => {
  const png = brushLayer.toDataURL('image/png');
  clearBrush();
  draw();
  trigger('mask', { ...common(), png });
});

document.addEventListener('unipixel-select', (event) => { state.object = event.detail; refreshTools(); frameElement.focus(); });
document.addEventListener('unipixel-seek', (event) => seek(event.detail));
watch('value', refresh);
refresh();
root.dataset.ready = 'yes';
