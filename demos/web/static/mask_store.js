// The masks of a session in the browser: run-lengths by frame, fetched in chunks, and the bitmaps of the frames around
// the shown one, which a worker makes.
import { luminance } from './dom.js';

const CHUNK = 60;
const MAX_BITMAP_BYTES = 160 * 2 ** 20;
const LOOKAHEAD = 14;

export class MaskStore {
  /** `fetchMasks(first, last)` returns `{ frame: { id: counts } }`; `onReady(frame)` follows every change. */
  constructor(workerUrl, fetchMasks, onReady) {
    this.fetchMasks = fetchMasks;
    this.onReady = onReady;
    this.colors = new Map();
    this.frames = new Map(); // frame -> { id: counts }
    this.layers = new Map(); // frame -> { counts, layers, bytes }, oldest use first
    this.waiting = new Map(); // number of a message -> { frame, key }
    this.bytes = 0;
    this.number = 0;
    this.chunks = new Set();
    this.generation = 0;
    this.worker = new Worker(workerUrl, { type: 'module' });
    this.worker.addEventListener('message', ({ data }) => this.receive(data));
  }

  /** Begin with another video or image. */
  reset({ width, height, numFrames, scale }) {
    Object.assign(this, { width, height, numFrames, scale });
    this.invalidate();
    for (const frame of [...this.layers.keys()]) this.drop(frame);
  }

  /** Forget all masks; they are fetched again as they are needed. Bitmaps stay until others replace them. */
  invalidate() {
    this.generation += 1;
    this.frames.clear();
    this.chunks.clear();
    this.waiting.clear();
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
    for (const masks of this.frames.values()) delete masks[id];
    this.onReady(null);
  }

  masksAt(frame) {
    return this.frames.get(frame) || {};
  }

  /** Return the bitmaps of a frame, or null while they are made. A frame without masks has an empty list. */
  layersAt(frame) {
    this.loadAround(frame);
    const masks = this.frames.get(frame);
    if (!masks) return this.chunks.has(Math.floor(frame / CHUNK)) ? null : [];
    const key = keyOf(masks);
    if (!key) return [];
    const known = this.layers.get(frame);
    if (known && known.key === key) {
      this.layers.delete(frame);
      this.layers.set(frame, known);
      return known.layers;
    }
    this.request(frame, masks, key);
    return null;
  }

  /** Return the last bitmaps of a frame although a newer mask is on its way. */
  previousLayersAt(frame) {
    return this.layers.get(frame)?.layers || null;
  }

  /** Make the bitmaps of the next frames. */
  prepare(frame) {
    const last = Math.min(this.numFrames - 1, frame + LOOKAHEAD);
    for (let next = frame + 1; next <= last; next += 1) {
      const masks = this.frames.get(next), key = masks && keyOf(masks);
      if (key && this.layers.get(next)?.key !== key) this.request(next, masks, key);
    }
    this.loadAround(last);
  }

  request(frame, masks, key) {
    for (const item of this.waiting.values()) if (item.frame === frame && item.key === key) return;
    const number = (this.number += 1);
    const objects = Object.entries(masks).map(([id, counts]) => {
      const color = this.colors.get(Number(id)) || '#56b4e9';
      return { id: Number(id), counts, color: parts(color), casing: luminance(color) > 0.18 ? [20, 20, 20] : [255, 255, 255] };
    });
    this.waiting.set(number, { frame, key });
    this.worker.postMessage({ number, width: this.width, height: this.height, scale: this.scale, objects });
  }

  receive({ number, layers }) {
    const item = this.waiting.get(number);
    this.waiting.delete(number);
    const bytes = layers.reduce((sum, layer) => sum + 8 * layer.width * layer.height, 0);
    const isOutdated = !item || keyOf(this.frames.get(item.frame) || {}) !== item.key;
    if (isOutdated) {
      for (const layer of layers) close(layer);
      return;
    }
    this.drop(item.frame);
    this.layers.set(item.frame, { key: item.key, layers, bytes });
    this.bytes += bytes;
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
    for (const layer of known.layers) close(layer);
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

function keyOf(masks) {
  return Object.entries(masks).map(([id, counts]) => `${id}:${counts}`).join(' ');
}

function close(layer) {
  layer.area.close();
  layer.line.close();
}

function parts(color) {
  return [1, 3, 5].map((at) => parseInt(color.slice(at, at + 2), 16));
}
