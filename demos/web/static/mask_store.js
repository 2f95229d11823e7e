// The masks of a session in the browser: run-lengths by frame, fetched in chunks, and the bitmaps of the frames around
// the shown one, which a worker makes.
import { luminance } from './dom.js';

const CHUNK = 60;
const MAX_BITMAP_BYTES = 160 * 2 ** 20;
const LOOKAHEAD = 14, MIN_LOOKAHEAD = 4;
const MAX_LEAD = 8, MAX_IN_WORKER = 3; // so that a slow worker makes the frame that is needed next, and none that is past
const NO_MASKS = {};

export class MaskStore {
  /** `fetchMasks(first, last)` returns `{ frame: { id: counts } }`; `onReady(frame)` follows every change. */
  constructor(workerUrl, fetchMasks, onReady) {
    this.fetchMasks = fetchMasks;
    this.onReady = onReady;
    this.colors = new Map();
    this.frames = new Map(); // frame -> { id: counts }
    this.layers = new Map(); // frame -> { counts, layers, bytes }, oldest use first
    this.queue = new Map(); // frame -> { masks, key }, for the worker
    this.waiting = new Map(); // number of a message in the worker -> { frame, key }
    this.current = 0; // the frame that is shown
    this.lead = 0; // frames by which the worker is late: it leaves them out
    this.bytes = 0;
    this.maxFrameBytes = 0; // of the largest frame so far
    this.keys = new WeakMap(); // masks of a frame -> text that tells them from others
    this.number = 0;
    this.chunks = new Set();
    this.generation = 0;
    this.worker = new Worker(workerUrl, { type: 'module' });
    this.worker.addEventListener('message', ({ data }) => this.receive(data));
  }

  /** Begin with another video or image. */
  reset({ width, height, numFrames, scale }) {
    Object.assign(this, { width, height, numFrames, scale, maxFrameBytes: 0 });
    this.invalidate();
    for (const frame of [...this.layers.keys()]) this.drop(frame);
  }

  /** Forget all masks; they are fetched again as they are needed. Bitmaps stay until others replace them. */
  invalidate() {
    this.generation += 1;
    this.frames.clear();
    this.chunks.clear();
    this.queue.clear();
    for (const [number, item] of this.waiting) if (!item.resolve) this.waiting.delete(number);
  }

  close() {
    this.worker.terminate();
  }

  setColors(objects) {
    for (const item of objects) this.colors.set(item.id, item.color);
  }

  /** Replace the masks of one frame, or of some objects on it. */
  put(frame, masks, { isComplete = false } = {}) {
    const before = isComplete ? {} : this.frames.get(frame) || {};
    const merged = { ...before, ...masks };
    for (const id of Object.keys(merged)) if (!merged[id]) delete merged[id];
    this.frames.set(frame, merged);
    this.onReady(frame);
  }

  /** Remove the masks of one object from all frames. */
  remove(id) {
    for (const [frame, { [id]: removed, ...rest }] of this.frames) if (removed) this.frames.set(frame, rest);
    this.onReady(null);
  }

  masksAt(frame) {
    return this.frames.get(frame) || {};
  }

  /** Return the bitmaps of a frame, or null while they are made. A frame without masks has an empty list. */
  layersAt(frame) {
    this.current = frame;
    this.lead = 0;
    this.loadAround(frame);
    const layers = this.knownLayersAt(frame);
    if (!layers) this.request(frame);
    return layers;
  }

  knownLayersAt(frame) {
    const masks = this.frames.get(frame);
    if (!masks) return this.chunks.has(Math.floor(frame / CHUNK)) ? null : [];
    const key = this.keyOf(masks);
    if (!key) return [];
    const known = this.layers.get(frame);
    if (known?.key !== key) return null;
    this.layers.delete(frame);
    this.layers.set(frame, known);
    return known.layers;
  }

  /** Return the last bitmaps of a frame although a newer mask is on its way. */
  previousLayersAt(frame) {
    return this.layers.get(frame)?.layers || null;
  }

  /** Return the bitmaps of masks that are not part of the session, such as `[{ id, counts, color }]`; close them later. */
  decode(objects) {
    return new Promise((resolve) => this.send(objects, { resolve }));
  }

  keyOf(masks) {
    let key = this.keys.get(masks);
    if (key === undefined) {
      key = Object.entries(masks).map(([id, counts]) => `${id}:${counts}`).join(' ');
      this.keys.set(masks, key);
    }
    return key;
  }

  /** Return the same during playback: a worker that is late makes frames that are not shown yet. */
  layersInPlayback(frame) {
    const layers = this.knownLayersAt(frame);
    this.current = frame;
    this.lead = layers ? Math.max(0, this.lead - 1) : Math.min(MAX_LEAD, this.lead + 2);
    this.prepare(frame);
    return layers;
  }

  /** Make the bitmaps of the next frames: so many that none is dropped before it is shown. */
  prepare(frame) {
    const room = this.maxFrameBytes ? Math.floor((0.8 * MAX_BITMAP_BYTES) / this.maxFrameBytes) : LOOKAHEAD;
    const last = Math.min(this.numFrames - 1, frame + Math.max(MIN_LOOKAHEAD, Math.min(LOOKAHEAD, room)));
    for (const earlier of this.queue.keys()) if (earlier < frame + this.lead) this.queue.delete(earlier);
    for (let next = frame + 1 + this.lead; next <= last; next += 1) if (!this.knownLayersAt(next)) this.request(next);
    this.loadAround(frame);
    this.loadAround(last);
  }

  request(frame) {
    const masks = this.frames.get(frame);
    if (!masks) return; // requested again when they have arrived
    const key = this.keyOf(masks);
    for (const item of this.waiting.values()) if (item.frame === frame && item.key === key) return;
    this.queue.set(frame, { masks, key });
    this.sendNext();
  }

  /** Give the worker the frames that follow the shown one first. */
  sendNext() {
    const distance = (frame) => (frame >= this.current + this.lead ? frame : this.numFrames + this.current - frame);
    while (this.queue.size && this.waiting.size < MAX_IN_WORKER) {
      const frame = [...this.queue.keys()].reduce((best, each) => (distance(each) < distance(best) ? each : best));
      const { masks, key } = this.queue.get(frame);
      this.queue.delete(frame);
      const colorOf = (id) => this.colors.get(Number(id)) || '#56b4e9';
      this.send(Object.entries(masks).map(([id, counts]) => ({ id: Number(id), counts, color: colorOf(id) })), { frame, key });
    }
  }

  send(objects, item) {
    const number = (this.number += 1), { width, height, scale } = this;
    const colored = objects.map(({ color, ...rest }) => ({
      ...rest, color: parts(color), casing: luminance(color) > 0.18 ? [20, 20, 20] : [255, 255, 255],
    }));
    this.waiting.set(number, item);
    this.worker.postMessage({ number, width, height, scale, objects: colored });
  }

  receive({ number, layers }) {
    const item = this.waiting.get(number);
    this.waiting.delete(number);
    this.sendNext();
    if (item?.resolve) {
      item.resolve(layers);
      return;
    }
    const bytes = layers.reduce((sum, layer) => sum + 8 * layer.width * layer.height, 0);
    const isOutdated = !item || this.keyOf(this.frames.get(item.frame) || NO_MASKS) !== item.key;
    if (isOutdated) {
      closeLayers(layers);
      return;
    }
    this.drop(item.frame);
    this.layers.set(item.frame, { key: item.key, layers, bytes });
    this.bytes += bytes;
    this.maxFrameBytes = Math.max(this.maxFrameBytes, bytes);
    for (const frame of [...this.layers.keys()]) {
      if (this.bytes <= MAX_BITMAP_BYTES || frame === item.frame) break;
      this.drop(frame);
    }
    this.onReady(item.frame);
  }

  drop(frame) {
    const known = this.layers.get(frame);
    if (!known) return;
    this.layers.delete(frame);
    this.bytes -= known.bytes;
    closeLayers(known.layers);
  }

  loadAround(frame) {
    const chunk = Math.floor(frame / CHUNK);
    for (const wanted of [chunk, chunk + 1]) if (wanted * CHUNK < this.numFrames) this.loadChunk(wanted);
  }

  async loadChunk(chunk) {
    if (this.chunks.has(chunk)) return;
    this.chunks.add(chunk);
    const generation = this.generation, first = chunk * CHUNK;
    const last = Math.min(this.numFrames, first + CHUNK) - 1;
    let frames = null;
    try {
      frames = await this.fetchMasks(first, last);
    } catch {
      if (generation === this.generation) setTimeout(() => this.chunks.delete(chunk), 2000);
      return;
    }
    if (generation !== this.generation) return;
    for (let frame = first; frame <= last; frame += 1) {
      // What arrived with an answer meanwhile is newer.
      if (!this.frames.has(frame)) this.frames.set(frame, frames[frame] || {});
    }
    this.onReady(null);
  }
}

/** Free the bitmaps of layers. */
export function closeLayers(layers) {
  for (const layer of layers) {
    layer.area.close();
    layer.line.close();
  }
}

function parts(color) {
  return [1, 3, 5].map((at) => parseInt(color.slice(at, at + 2), 16));
}
