// The picture of the "Ask about a video" page: tools, picture, frame slider. `props.value` is what the server knows of
// the session; what the visitor does leaves as events: point, box, mask, undo.
const root = element.querySelector('.up-stage');
root.innerHTML = `
  <div class="up-work" hidden>
    <div class="up-tools">
      <div class="up-tool-row" role="radiogroup" aria-label="Tool">
        <button type="button" role="radio" data-tool="point" title="Click what belongs to the object">Point</button>
        <button type="button" role="radio" data-tool="not" title="Click what does not belong to the object">Not this</button>
        <button type="button" role="radio" data-tool="box" title="Drag a box, or click two corners">Box</button>
        <button type="button" role="radio" data-tool="brush" title="Paint the object">Brush</button>
      </div>
      <div class="up-tool-row" role="radiogroup" aria-label="Object" data-chips></div>
      <div class="up-tool-row">
        <button type="button" data-undo title="Take the last prompt back">Undo</button>
        <button type="button" data-use-mask hidden>Use painted mask</button>
        <button type="button" data-clear-mask hidden>Clear</button>
      </div>
    </div>
    <p class="up-hint" data-hint></p>
    <div class="up-picture" tabindex="0" role="application" data-picture aria-describedby="up-keys"
      aria-label="Frame of the video. Arrow keys change the frame.">
      <img alt="" draggable="false"><canvas></canvas>
    </div>
    <p class="up-error" role="alert" data-prompt-error hidden></p>
    <div class="up-frames" data-frames>
      <button type="button" data-play aria-label="Play or pause">▶</button>
      <input type="range" min="0" value="0" step="1" aria-label="Frame">
      <output></output>
    </div>
    <p class="up-fine" id="up-keys">Keys on the picture: ← → frame; Shift with arrows moves a cross, Enter clicks there;
      Ctrl+Z takes back.</p>
  </div>`;
const at = (selector) => root.querySelector(selector);
const picture = at('[data-picture]'), image = picture.querySelector('img');
const canvas = picture.querySelector('canvas'), slider = at('input[type=range]'), counter = at('output');
const paint = document.createElement('canvas');
const state = { tool: 'point', object: 0, frame: 0, corner: null, hover: null, cross: null, timer: 0, media: 0,
  painted: false, brushing: false, wanted: '', loading: false };
const given = () => props.value || {};
const media = () => given().media;

const show = (node, text) => { node.textContent = text || ''; node.hidden = !text; };
const hints = {
  point: 'Click the object in the picture.', not: 'Click what does not belong to the object.',
  box: 'Drag a box around the object, or click two corners.',
  brush: 'Paint over the object, then choose “Use painted mask”.' };

function colorOf(id) {
  const known = (given().objects || []).find((item) => item.id === id);
  return known ? known.color : (given().next_color || '#56b4e9');
}

function refreshTools() {
  root.querySelectorAll('[data-tool]').forEach((button) => {
    button.setAttribute('aria-checked', String(button.dataset.tool === state.tool));
    button.tabIndex = button.dataset.tool === state.tool ? 0 : -1;
  });
  const chips = at('[data-chips]');
  chips.replaceChildren(...[...(given().objects || []), { id: 0 }].map((item) => {
    const button = document.createElement('button');
    button.type = 'button';
    button.setAttribute('role', 'radio');
    button.setAttribute('aria-checked', String(item.id === state.object));
    button.dataset.object = item.id;
    button.textContent = item.id ? `[${item.id}]${item.name ? ' ' + item.name : ''}` : '+ New object';
    if (item.id) button.style.setProperty('--up-object', item.color);
    return button;
  }));
  const whom = state.object ? ` This goes to [${state.object}]; choose “+ New object” for another one.` : '';
  at('[data-hint]').textContent = hints[state.tool] + whom;
  at('[data-use-mask]').hidden = at('[data-clear-mask]').hidden = state.tool !== 'brush' || !state.painted;
  picture.dataset.tool = state.tool;
}

function draw() {
  const info = media();
  if (!info) return;
  const context = canvas.getContext('2d');
  context.clearRect(0, 0, canvas.width, canvas.height);
  const line = Math.max(2, canvas.width / 300);
  if (state.painted || state.brushing) { context.globalAlpha = 0.55; context.drawImage(paint, 0, 0); }
  context.globalAlpha = 1;
  if (state.corner && state.hover) {
    context.lineWidth = line; context.strokeStyle = colorOf(state.object);
    context.strokeRect(state.corner.x, state.corner.y, state.hover.x - state.corner.x, state.hover.y - state.corner.y);
  }
  if (state.cross) {
    for (const [style, width] of [['#000', 3 * line], ['#fff', line]]) {
      context.strokeStyle = style; context.lineWidth = width;
      context.beginPath();
      context.moveTo(state.cross.x - 6 * line, state.cross.y); context.lineTo(state.cross.x + 6 * line, state.cross.y);
      context.moveTo(state.cross.x, state.cross.y - 6 * line); context.lineTo(state.cross.x, state.cross.y + 6 * line);
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
  state.wanted = `${given().base}/frame/${state.frame}.jpg?rev=${given().revision}`;
  fetchFrame();
}

function fetchFrame() {  // one at a time: while a frame comes, only the newest wish is remembered
  if (state.loading || image.dataset.shown === state.wanted) return;
  const next = new Image(), wanted = state.wanted;
  state.loading = true;
  const done = (isShown) => {
    state.loading = false;
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
  clearPaint();
  showFrame();
  draw();
}

function clearPaint() {
  paint.getContext('2d').clearRect(0, 0, paint.width, paint.height);
  state.painted = false;
  refreshTools();
}

function refresh() {
  const value = given(), info = value.media;
  at('.up-work').hidden = !info;
  show(at('[data-prompt-error]'), value.error);
  if (!info) return;
  if (state.media !== value.media_id) {
    Object.assign(state, { media: value.media_id, frame: 0, object: 0, corner: null, cross: null });
    canvas.width = paint.width = info.width;
    canvas.height = paint.height = info.height;
    picture.style.aspectRatio = `${info.width} / ${info.height}`;
    picture.style.maxWidth = `calc(60vh * ${info.width / info.height})`;
    clearPaint();
    const url = new URL(location.href);
    url.searchParams.set('session', value.session);
    history.replaceState(null, '', url);
  }
  slider.max = info.num_frames - 1;
  at('[data-frames]').hidden = info.num_frames < 2;
  if (value.selected !== undefined) state.object = value.selected;
  if (!(value.objects || []).some((item) => item.id === state.object)) state.object = 0;
  refreshTools();
  showFrame();
  draw();
}

function place(event) {
  const box = canvas.getBoundingClientRect();
  const clip = (part, size) => Math.max(0, Math.min(size - 1, part * size));
  return { x: clip((event.clientX - box.left) / box.width, canvas.width),
    y: clip((event.clientY - box.top) / box.height, canvas.height) };
}

const common = () => ({ frame: state.frame, object_id: state.object });
function pointAt(spot) {
  trigger('point', { ...common(), x: spot.x, y: spot.y, is_positive: state.tool !== 'not' });
}
function boxTo(spot) {
  const from = state.corner;
  state.corner = state.hover = null;
  draw();
  trigger('box', { ...common(), left: Math.min(from.x, spot.x), top: Math.min(from.y, spot.y),
    right: Math.max(from.x, spot.x), bottom: Math.max(from.y, spot.y) });
}
function brush(spot) {
  const context = paint.getContext('2d');
  context.fillStyle = context.strokeStyle = colorOf(state.object);
  context.lineWidth = Math.max(6, canvas.width / 24);
  context.lineCap = 'round';
  context.beginPath();
  context.moveTo((state.hover || spot).x, (state.hover || spot).y);
  context.lineTo(spot.x + 0.01, spot.y);
  context.stroke();
  state.hover = spot;
  state.painted = true;
  draw();
}
const isFar = (a, b) => Math.hypot(a.x - b.x, a.y - b.y) > canvas.width / 60;

canvas.addEventListener('pointerdown', (event) => {
  if (event.button || !media()) return;
  const spot = place(event);
  if (state.tool === 'brush') {
    canvas.setPointerCapture(event.pointerId);
    Object.assign(state, { brushing: true, hover: null });
    brush(spot);
  } else if (state.tool === 'box' && !state.corner) {
    canvas.setPointerCapture(event.pointerId);
    Object.assign(state, { corner: spot, hover: spot });
    state.isFirst = true;
  } else if (state.tool === 'box') { state.isFirst = false; }
});
canvas.addEventListener('pointermove', (event) => {
  const spot = place(event);
  if (state.brushing) brush(spot);
  else if (state.corner) { state.hover = spot; draw(); }
});
canvas.addEventListener('pointerup', (event) => {
  const spot = place(event);
  if (state.brushing) { Object.assign(state, { brushing: false, hover: null }); refreshTools(); }
  else if (state.corner && (!state.isFirst || isFar(state.corner, spot))) boxTo(spot);
});
canvas.addEventListener('click', (event) => {
  picture.focus({ preventScroll: true });
  if (media() && (state.tool === 'point' || state.tool === 'not')) pointAt(place(event));
});
picture.addEventListener('keydown', (event) => {
  const moves = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
  const info = media();
  if (!info) return;
  if (event.shiftKey && moves[event.key]) {
    const step = info.width / 40, from = state.cross || { x: info.width / 2, y: info.height / 2 };
    state.cross = { x: Math.max(0, Math.min(info.width - 1, from.x + step * moves[event.key][0])),
      y: Math.max(0, Math.min(info.height - 1, from.y + step * moves[event.key][1])) };
    if (state.corner) state.hover = state.cross;
    draw();
  } else if (event.key === 'Enter' && state.cross) {
    if (state.tool !== 'box') pointAt(state.cross);
    else if (state.corner) boxTo(state.cross);
    else { state.corner = state.cross; draw(); }
  } else if (event.key === 'ArrowLeft' || event.key === 'ArrowRight') seek(state.frame + moves[event.key][0]);
  else if (event.key === 'Home') seek(0);
  else if (event.key === 'End') seek(info.num_frames - 1);
  else if (event.key === 'z' && (event.ctrlKey || event.metaKey)) trigger('undo', {});
  else if (event.key === 'Escape') { state.corner = state.hover = state.cross = null; draw(); }
  else return;
  event.preventDefault();
});
slider.addEventListener('input', () => seek(Number(slider.value)));

at('[data-play]').addEventListener('click', (event) => {
  if (state.timer) { clearInterval(state.timer); state.timer = 0; }
  else {
    const info = media(), stride = Math.max(1, Math.round((info.fps || 10) / 10));
    state.timer = setInterval(() => {
      if (!element.isConnected) clearInterval(state.timer);
      else if (!state.loading) seek(state.frame + stride >= info.num_frames ? 0 : state.frame + stride);
    }, 1000 * stride / (info.fps || 10));
  }
  event.currentTarget.textContent = state.timer ? '❚❚' : '▶';
});

function pick(tool) {
  state.tool = tool;
  state.corner = state.hover = null;
  if (tool !== 'brush') clearPaint();
  refreshTools();
  draw();
}
root.querySelectorAll('[data-tool]').forEach((button) => {
  button.addEventListener('click', () => pick(button.dataset.tool));
  button.addEventListener('keydown', (event) => {
    const all = [...root.querySelectorAll('[data-tool]')], step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (!step) return;
    const next = all[(all.indexOf(button) + step + all.length) % all.length];
    pick(next.dataset.tool);
    next.focus();
    event.preventDefault();
  });
});
at('[data-chips]').addEventListener('click', (event) => {
  const button = event.target.closest('[data-object]');
  if (button) { state.object = Number(button.dataset.object); refreshTools(); }
});
at('[data-undo]').addEventListener('click', () => trigger('undo', {}));
at('[data-clear-mask]').addEventListener('click', () => { clearPaint(); draw(); });
at('[data-use-mask]').addEventListener('click', () => {
  const png = paint.toDataURL('image/png');
  clearPaint();
  draw();
  trigger('mask', { ...common(), png });
});

document.addEventListener('unipixel-select', (event) => { state.object = event.detail; refreshTools(); picture.focus(); });
document.addEventListener('unipixel-seek', (event) => seek(event.detail));
watch('value', refresh);
refresh();
root.dataset.ready = 'yes';
