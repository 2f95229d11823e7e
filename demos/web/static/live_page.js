// The page "Live": one frame of the webcam at a time is sent to the server and returned with masks. Frames that the
// camera delivers during a request are left out.
import { ServerError, SessionApi } from './api.js';
import { Conversation } from './conversation.js';
import { chip, iconButton, make, makeSvg, sentence, shorten } from './dom.js';

const TOOLS = [
  ['point', 'Click', 'Click what belongs to the object'],
  ['negative', 'Not this', 'Click what does not belong to the object'],
  ['box', 'Box', 'Drag a box around the object'],
];
const MAX_SIDE = 640, PAUSE_MS = 15, MAX_TURNS = 20, STATE_MS = 1000, FAR_PIXELS = 8;
const NO_CAMERA = 'No camera is available: connect one and allow this page to use it.';
const NOT_SECURE = 'Browsers allow cameras on https and localhost pages only.';

/** What `Conversation` needs to know of a session. */
class LiveConversation extends EventTarget {
  constructor(api) {
    super();
    Object.assign(this, { api, work: null, isReadOnly: false, state: { conversation: [], objects: [] } });
  }

  get isBusy() {
    return this.work !== null;
  }

  object(id) {
    return this.state.objects.find((item) => item.id === id) || null;
  }

  nameOf(id) {
    const name = this.object(id)?.name || '';
    return name === `object ${id}` ? '' : shorten(name);
  }

  async ask(question) {
    this.work = { question, text: '', status: 'Answering…' };
    this.changed();
    let isDone = false;
    try {
      const last = await this.api.stream('ask', { question }, (line) => {
        if (line.state === 'writing') this.work.text = line.text;
        this.changed();
      });
      this.state.conversation = [...this.state.conversation, { question, answer: last.text || this.work.text }].slice(-MAX_TURNS);
      isDone = true;
    } catch (error) {
      if (!(error instanceof ServerError)) throw error;
      const detail = { text: sentence(error.message), field: 'question', isError: true };
      this.dispatchEvent(new CustomEvent('message', { detail }));
    }
    this.work = null;
    this.changed();
    return isDone;
  }

  changed() {
    this.dispatchEvent(new Event('change'));
  }
}

/** Fill an element with the page. `config` comes from `LivePage` in live_page.py. */
export class LivePage {
  constructor(root, config) {
    Object.assign(this, { root, config, tool: 'point', selected: 0, mode: '', times: [], number: -1, stream: null });
    this.api = new SessionApi(`live/${config.session}`);
    this.session = new LiveConversation(this.api);
    this.camera = Object.assign(document.createElement('video'), { muted: true, playsInline: true });
    this.canvas = document.createElement('canvas');
    this.build();
    this.choose('point');
    this.session.addEventListener('change', () => this.refresh());
    this.refresh();
    setInterval(() => this.fetchState(), STATE_MS);
    root.dataset.ready = 'yes';
  }

  build() {
    this.startButton = make('button', { type: 'button', onclick: () => this.start() }, 'Start webcam');
    this.stopButton = make('button', { type: 'button', disabled: true, onclick: () => this.stop() }, 'Stop');
    this.tools = TOOLS.map(([name, text, title]) => iconButton(name, title, { role: 'radio', 'aria-label': text, 'data-tool': name, onclick: () => this.choose(name) }, { text }));
    this.rate = make('output', { class: 'up-rate' });
    this.image = make('img', { alt: 'Live video with masks', draggable: 'false' });
    this.marks = makeSvg('svg', { role: 'application', 'aria-label': 'Live video: click an object to follow it', preserveAspectRatio: 'none' });
    this.picture = make('div', { class: 'up-live-picture', hidden: true }, this.image, this.marks);
    this.empty = make('p', {}, 'Start the webcam, then click an object in the video. Frames are processed in memory and not stored.');
    this.error = make('p', { class: 'up-error', role: 'alert', hidden: true });
    this.objects = make('ul', { class: 'up-live-objects', 'aria-label': 'Objects' });
    this.conversation = new Conversation(this.session, {
      ask: (text) => this.session.ask(text), segment: () => false, jump: (id) => { this.selected = id; this.refresh(); },
    }, { placeholder: 'Ask: what is [1] doing?', canSegment: false, label: 'Question about the live video' });
    this.listen();
    this.root.replaceChildren(
      make('div', { class: 'up-tools' }, this.startButton, this.stopButton,
        make('div', { class: 'up-tools', role: 'radiogroup', 'aria-label': 'Tool' }, ...this.tools), this.rate),
      this.config.has_sources ? this.makeSourceForm() : '',
      make('div', { class: 'up-live-view' }, this.picture, this.empty), this.error, this.objects, this.conversation.element);
  }

  makeSourceForm() {
    const address = make('input', { 'aria-label': 'Network address', placeholder: 'rtsp://camera.example/stream' });
    const watch = async (event) => {
      event.preventDefault();
      if (await this.attempt(() => this.api.post('watch', { address: address.value.trim() }))) this.receive();
    };
    return make('form', { onsubmit: watch }, address, make('button', { type: 'submit' }, 'Watch'));
  }

  listen() {
    const position = (event) => {
      const box = this.marks.getBoundingClientRect();
      return { x: ((event.clientX - box.left) / box.width) * this.image.naturalWidth, y: ((event.clientY - box.top) / box.height) * this.image.naturalHeight };
    };
    this.marks.addEventListener('pointerdown', (event) => {
      this.marks.setPointerCapture(event.pointerId);
      this.corner = position(event);
    });
    this.marks.addEventListener('pointermove', (event) => {
      if (this.corner && this.tool === 'box') this.drawBox(boxOf(this.corner, position(event)));
    });
    this.marks.addEventListener('pointerup', (event) => {
      const from = this.corner, to = position(event);
      this.corner = null;
      this.marks.replaceChildren();
      if (!from) return;
      if (this.tool !== 'box') this.prompt({ points: [[to.x, to.y, (this.tool === 'negative') !== event.shiftKey ? 0 : 1]], box: null });
      else if (Math.hypot(from.x - to.x, from.y - to.y) > FAR_PIXELS) this.prompt({ points: [], box: boxOf(from, to) });
    });
  }

  drawBox([left, top, right, bottom]) {
    this.marks.setAttribute('viewBox', `0 0 ${this.image.naturalWidth} ${this.image.naturalHeight}`);
    this.marks.replaceChildren(makeSvg('rect', { x: left, y: top, width: right - left, height: bottom - top, fill: 'none', stroke: '#fff', 'stroke-width': 2 }));
  }

  choose(tool) {
    this.tool = tool;
    for (const button of this.tools) button.setAttribute('aria-checked', String(button.dataset.tool === tool));
  }

  showError(text) {
    this.error.textContent = sentence(text || '');
    this.error.hidden = !text;
  }

  async attempt(action) {
    this.showError('');
    try {
      await action();
      return true;
    } catch (error) {
      if (!(error instanceof ServerError)) throw error;
      this.showError(error.message);
      return false;
    }
  }

  prompt(body) {
    return this.attempt(async () => {
      const { object_id: id } = await this.api.post('prompts', { object_id: this.selected, ...body });
      this.selected = id;
      await this.fetchState();
    });
  }

  change(path, body) {
    return this.attempt(async () => {
      await this.api.post(path, body);
      await this.fetchState();
    });
  }

  async fetchState() {
    if (!this.mode || this.isFetching) return;
    this.isFetching = true;
    try {
      const { objects, error } = await this.api.get('state');
      if (error) this.showError(error);
      this.session.state.objects = objects;
      if (!this.session.object(this.selected)) this.selected = 0;
      this.session.changed();
    } catch (error) {
      if (!(error instanceof ServerError)) throw error;
    }
    this.isFetching = false;
  }

  async start() {
    this.showError('');
    if (!navigator.mediaDevices) {
      this.showError(NOT_SECURE);
      return;
    }
    try {
      this.stream = await navigator.mediaDevices.getUserMedia({ video: { width: 640, height: 480 } });
    } catch {
      this.showError(NO_CAMERA);
      return;
    }
    this.camera.srcObject = this.stream;
    await this.camera.play();
    if (await this.attempt(() => this.api.post('start'))) this.send();
    else this.end();
  }

  begin(mode) {
    Object.assign(this, { mode, times: [], number: -1 });
    this.startButton.disabled = mode === 'camera';
    this.stopButton.disabled = false;
  }

  async send() {
    this.begin('camera');
    while (this.mode === 'camera' && this.root.isConnected) {
      const { videoWidth: width, videoHeight: height } = this.camera, scale = Math.min(1, MAX_SIDE / Math.max(width, height));
      Object.assign(this.canvas, { width: Math.round(width * scale), height: Math.round(height * scale) });
      this.canvas.getContext('2d').drawImage(this.camera, 0, 0, this.canvas.width, this.canvas.height);
      const body = await new Promise((resolve) => this.canvas.toBlob(resolve, 'image/jpeg', 0.85));
      if (this.mode === 'camera') await this.show('frame', { method: 'POST', body });
      await pause();
    }
  }

  async receive() {
    this.begin('source');
    while (this.mode === 'source' && this.root.isConnected) {
      await this.show(`newest.jpg?after=${this.number}`);
      await pause();
    }
  }

  async show(path, options) {
    try {
      const response = await this.api.request(path, options);
      this.number = Number(response.headers.get('x-frame') || this.number);
      if (response.status === 200 && this.mode) this.showFrame(await response.blob());
    } catch (error) {
      if (!(error instanceof ServerError)) throw error;
      if (!this.mode) return;
      this.end();
      this.showError(error.message);
    }
  }

  showFrame(blob) {
    const previous = this.image.src;
    this.image.onload = () => this.picture.style.setProperty('--up-ratio', String(this.image.naturalWidth / this.image.naturalHeight));
    this.image.src = URL.createObjectURL(blob);
    if (previous.startsWith('blob:')) URL.revokeObjectURL(previous);
    this.picture.hidden = false;
    this.empty.hidden = true;
    this.times = [...this.times.slice(-9), performance.now()];
    const span = this.times[this.times.length - 1] - this.times[0];
    this.rate.textContent = span ? `${((1000 * (this.times.length - 1)) / span).toFixed(1)} frames per second` : '';
  }

  async stop() {
    this.end();
    await this.attempt(() => this.api.post('stop'));
  }

  end() {
    this.mode = '';
    for (const track of this.stream?.getTracks() || []) track.stop();
    this.stream = null;
    this.selected = 0;
    this.startButton.disabled = false;
    this.stopButton.disabled = true;
    this.picture.hidden = true;
    this.empty.hidden = false;
    this.rate.textContent = '';
    this.session.state.objects = [];
    this.session.changed();
  }

  refresh() {
    const { objects } = this.session.state;
    const key = JSON.stringify([objects, this.selected]);
    if (key === this.shownKey || this.objects.contains(document.activeElement) && document.activeElement.tagName === 'INPUT') return;
    this.shownKey = key;
    const rows = objects.map(({ id, name, color }) => make('li', { 'data-id': id },
      chip(id, color, { type: 'button', 'aria-pressed': String(id === this.selected), 'aria-label': `Refine object ${id}`, onclick: () => { this.selected = id; this.refresh(); } }, 'button'),
      make('input', { value: name === `object ${id}` ? '' : name, placeholder: 'Add a name', maxlength: 60, 'aria-label': `Name of object ${id}`, onchange: (event) => this.rename(id, event.target) }),
      iconButton('remove', `Remove object ${id}`, { onclick: () => this.change('forget', { object_id: id }) })));
    const add = make('li', {}, make('button', { type: 'button', 'aria-pressed': String(this.selected === 0), onclick: () => { this.selected = 0; this.refresh(); } }, '+ New object'));
    this.objects.replaceChildren(...rows, ...(objects.length ? [add] : []));
  }

  rename(id, input) {
    input.blur();
    return this.change('rename', { object_id: id, name: input.value });
  }
}

function boxOf(a, b) {
  return [Math.min(a.x, b.x), Math.min(a.y, b.y), Math.max(a.x, b.x), Math.max(a.y, b.y)];
}

function pause() {
  return new Promise((resolve) => setTimeout(resolve, PAUSE_MS));
}
