// The state of a session in the page, and the actions that change it. Views listen to the event `change`; messages to
// the user are events `message` with `{ text, field }`.
import { MaskStore } from './mask_store.js';
import { ServerError, SessionApi } from './api.js';
import { Presence } from './presence.js';
import { sentence, shorten } from './dom.js';

const CHANGES_PAUSE_MS = 1500;

export class PageSession extends EventTarget {
  constructor(key, workerUrl) {
    super();
    this.key = key;
    this.api = new SessionApi(`session/${key}`);
    this.state = { video: null, objects: [], conversation: [], files: [], limits: {}, models: {} };
    this.revision = 0;
    this.selected = 0; // the object that the next click is added to; 0 for a new one
    this.range = { first: null, last: null };
    this.work = null; // { kind, status, done, total, secondsLeft, question, text }
    this.presence = new Presence();
    this.pendingMarks = [];
    this.masks = new MaskStore(workerUrl, (first, last) => this.fetchMasks(first, last), (frame) => {
      this.dispatchEvent(new CustomEvent('masks', { detail: frame }));
    });
    this.isClosed = false;
  }

  close() {
    this.isClosed = true;
    this.watching?.abort();
    this.masks.close();
  }

  get video() {
    return this.state.video;
  }

  get isBusy() {
    return this.work !== null || this.state.is_busy === true;
  }

  get isReadOnly() {
    return this.state.is_read_only === true;
  }

  object(id) {
    return this.state.objects.find((item) => item.id === id) || null;
  }

  /** The name of an object where the user or a phrase gave one, shortened; else empty. */
  nameOf(id, length = 28) {
    const name = this.object(id)?.name || '';
    return name === `object ${id}` ? '' : shorten(name, length);
  }

  changed() {
    this.dispatchEvent(new Event('change'));
  }

  say(text, { field = 'session', isError = false } = {}) {
    this.dispatchEvent(new CustomEvent('message', { detail: { text: sentence(text), field, isError } }));
  }

  /** Run an action; a refusal becomes a message. Returns whether it succeeded. */
  async attempt(action) {
    try {
      await action();
      return true;
    } catch (error) {
      if (!(error instanceof ServerError)) throw error;
      this.say(error.message, { field: error.field, isError: true });
      return false;
    }
  }

  async open() {
    await this.attempt(async () => this.apply(await this.api.get('state')));
    this.watch();
  }

  /** Replace the whole state; the masks are fetched again unless they are known to be the same. */
  apply(state, { keepsMasks = false } = {}) {
    const isOther = state.video?.id !== this.video?.id;
    this.state = state;
    this.revision = state.revision;
    this.masks.setColors(state.objects);
    this.presence.reset(state.objects, state.video?.num_frames || 1);
    if (!this.object(this.selected)) this.selected = 0;
    if (isOther) {
      Object.assign(this, { selected: 0, range: { first: null, last: null }, pendingMarks: [] });
      this.dispatchEvent(new Event('video'));
    } else if (!keepsMasks) this.masks.invalidate();
    this.changed();
    if (!isOther) this.dispatchEvent(new CustomEvent('masks', { detail: null }));
  }

  /** Apply the answer to a change of one object. */
  applyEdit(edit) {
    const { object_id: id, object } = edit;
    this.revision = Math.max(this.revision, edit.revision);
    Object.assign(this.state, { can_undo: edit.can_undo, can_redo: edit.can_redo });
    const others = this.state.objects.filter((item) => item.id !== id);
    this.state.objects = object ? [...others, object].sort((a, b) => a.id - b.id) : others;
    if (object) {
      this.masks.setColors([object]);
      this.presence.set(object);
    } else this.presence.delete(id);
    if (edit.is_complete || !object) this.masks.remove(id);
    for (const [frame, masks] of Object.entries(edit.masks || {})) this.masks.put(Number(frame), masks);
    if (!this.object(this.selected)) this.selected = 0;
    this.changed();
    this.dispatchEvent(new CustomEvent('masks', { detail: null }));
  }

  async fetchMasks(first, last) {
    const chunk = await this.api.get(`masks?first=${first}&count=${last - first + 1}`);
    const frames = {};
    for (const [frame, masks] of Object.entries(chunk.frames)) {
      frames[frame] = Object.fromEntries(Object.entries(masks).filter(([, counts]) => counts));
    }
    return frames;
  }

  select(id) {
    this.selected = this.object(id) ? id : 0;
    this.changed();
  }

  // --- Prompts. They are sent one after the other, so that each refines the result of the one before. ---

  prompt({ frame, points, box }) {
    const marks = [
      ...(points || []).map(([x, y, label]) => ({ kind: 'point', frame, coords: [x, y], is_positive: label === 1 })),
      ...(box ? [{ kind: 'box', frame, coords: box, is_positive: true }] : []),
    ];
    return this.sendPrompt(frame, marks, (id) => this.api.post('prompts', { object_id: id, frame, points: points || [], ...(box ? { box } : {}) }));
  }

  brush({ frame, png }) {
    return this.sendPrompt(frame, [], (id) => this.api.postBytes(`mask?object_id=${id}&frame=${frame}`, png));
  }

  async sendPrompt(frame, marks, send) {
    this.pendingMarks.push(...marks);
    this.changed();
    const before = this.lastPrompt || Promise.resolve();
    this.lastPrompt = before.then(() => this.attempt(async () => {
      const start = performance.now(), edit = await send(this.selected);
      this.dispatchEvent(new CustomEvent('prompted', { detail: { frame, milliseconds: performance.now() - start } }));
      this.pendingMarks = this.pendingMarks.filter((mark) => !marks.includes(mark));
      this.selected = edit.object_id;
      this.applyEdit(edit);
    }));
    const isDone = await this.lastPrompt;
    if (!isDone) {
      this.pendingMarks = this.pendingMarks.filter((mark) => !marks.includes(mark));
      this.changed();
    }
    return isDone;
  }

  async change(path, body = {}) {
    return this.attempt(async () => {
      const edit = await this.api.post(path, body);
      if (edit.object_id === 0) this.say(path === 'redo' ? 'there is nothing to redo' : 'there is nothing to undo');
      else this.applyEdit(edit);
    });
  }

  // --- Work of the model: followed by lines of progress. ---

  follow(options = {}) {
    const body = { frame: null, direction: 'both', ...this.range, stride: 1, object_ids: null, ...options };
    return this.run('follow', 'track', body);
  }

  ask(question) {
    return this.run('ask', 'ask', { question }, question);
  }

  segment(query) {
    return this.run('segment', 'segment', { query }, query);
  }

  async run(kind, path, body, question = '') {
    if (this.isBusy) {
      this.say('the model is working: wait until it is done, or stop it', { isError: true });
      return false;
    }
    this.say('');
    this.work = { kind, status: 'Starting…', done: 0, total: 0, secondsLeft: null, question, text: '' };
    this.changed();
    const isDone = await this.attempt(async () => {
      const last = await this.api.stream(path, body, (line) => this.progress(line));
      if (last.state === 'cancelled') this.say(stoppedText(kind, last.reason));
    });
    let state = null;
    await this.attempt(async () => { state = await this.api.get('state'); });
    this.work = null;
    // The masks arrived line by line; a refusal or an interruption may have left some out.
    if (state) this.apply(state, { keepsMasks: isDone });
    else this.changed();
    this.dispatchEvent(new CustomEvent('worked', { detail: { kind, isDone } }));
    return isDone;
  }

  progress(line) {
    const { work } = this;
    if (!work) return;
    if (line.state === 'waiting') work.status = `Waiting: number ${line.position} in the queue`;
    else if (line.state === 'working') work.status = work.kind === 'follow' ? 'Following…' : 'Reading the video…';
    else if (line.state === 'writing') Object.assign(work, { text: line.text, status: 'Answering…' });
    else if (line.state === 'masking') {
      Object.assign(work, { done: line.done, total: line.total, secondsLeft: line.seconds_left, status: 'Following…' });
      this.addMasks(line.frame, line.masks || {});
    } else if (line.state === 'exporting') Object.assign(work, { done: line.done, total: line.total });
    this.changed();
  }

  addMasks(frame, masks) {
    for (const [id, counts] of Object.entries(masks)) this.presence.mark(Number(id), frame, Boolean(counts));
    if (Object.keys(masks).some((id) => !this.object(Number(id)))) this.refreshObjects();
    this.masks.put(frame, masks);
    this.dispatchEvent(new CustomEvent('masked', { detail: frame }));
  }

  /** Fetch the objects that an answer has added while their masks are still arriving. */
  async refreshObjects() {
    if (this.isRefreshing) return;
    this.isRefreshing = true;
    await this.attempt(async () => {
      const { objects } = await this.api.get('state');
      this.masks.setColors(objects);
      this.state.objects = objects;
    });
    this.isRefreshing = false;
    this.changed();
  }

  async stop() {
    if (this.work) this.work.status = 'Stopping…';
    this.changed();
    await this.attempt(() => this.api.post('cancel'));
  }

  // --- Video, files, links. ---

  async upload(file, onProgress) {
    await this.api.upload(`upload?name=${encodeURIComponent(file.name)}`, file, onProgress);
    onProgress(null);
    this.apply(await this.api.post('load'));
  }

  async loadExample(number) {
    return this.attempt(async () => this.apply(await this.api.post('example', { number })));
  }

  async export(body, onProgress) {
    const last = await this.api.stream('export', body, onProgress);
    if (last.state === 'cancelled') throw new ServerError(last.reason, { field: 'download' });
    return last.file;
  }

  async delete() {
    return this.attempt(async () => {
      await this.api.post('delete');
      this.close();
      this.dispatchEvent(new Event('deleted'));
    });
  }

  // --- Other tabs of the same session. ---

  /** Ask now and then: a browser opens six connections to one server, and requests that wait would block other tabs. */
  async watch() {
    while (!this.isClosed) {
      if (document.hidden) await new Promise((resolve) => document.addEventListener('visibilitychange', resolve, { once: true }));
      this.watching = new AbortController();
      try {
        const { revision, is_busy: isBusy, is_closed: isClosed } = await this.api.get(`changes?after=${this.revision}&wait=0`, { signal: this.watching.signal });
        if (isClosed) {
          this.say('this session was deleted', { isError: true });
          return;
        }
        // Changes of this page arrive with their own answers.
        if (!this.api.numChanges && !this.work && (revision !== this.revision || isBusy !== this.state.is_busy)) {
          this.apply(await this.api.get('state'));
        }
        await pause(CHANGES_PAUSE_MS);
      } catch (error) {
        if (this.isClosed || error.name === 'AbortError') return;
        if (error.status === 404) {
          this.say(error.message, { isError: true });
          return;
        }
        await pause(2 * CHANGES_PAUSE_MS);
      }
    }
  }
}

function stoppedText(kind, reason) {
  const why = reason === 'cancelled by the user' ? '' : ` (${reason})`;
  return `stopped${why}${kind === 'follow' ? ': the finished frames are kept' : ''}`;
}

function pause(milliseconds) {
  return new Promise((resolve) => setTimeout(resolve, milliseconds));
}
