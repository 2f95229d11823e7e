// The mask that a click would give, shown under the pointer where the server answers quickly enough.
//
// The server decodes on a frame that it has encoded, so frames are previewed on which something was clicked in this
// page. One request is in flight at a time; nothing is stored, and a preview is no prompt.
import { make } from './dom.js';
import { ServerError } from './api.js';
import { closeLayers } from './mask_store.js';

const MAX_MS = 100, NUM_TIMES = 5, PAUSE_MS = 2000;
const NEW_COLOR = '#ffffff';

export class HoverPreview {
  constructor(session, player) {
    Object.assign(this, { session, player, times: [], encoded: new Set(), wanted: null, isSending: false, pausedUntil: 0, limit: MAX_MS });
    this.canvas = make('canvas', { class: 'up-hover', 'aria-hidden': 'true' });
    session.addEventListener('prompted', ({ detail }) => this.notePrompt(detail));
    session.addEventListener('video', () => this.encoded.clear());
    player.addEventListener('frame', () => { if ((this.wanted?.frame ?? this.shownFrame) !== player.frame) this.clear(); });
  }

  /** Whether the median of the latest round trips, of clicks on an encoded frame and of previews, is short enough. */
  get isQuick() {
    const sorted = [...this.times].sort((a, b) => a - b);
    return !sorted.length || sorted[sorted.length >> 1] <= this.limit;
  }

  notePrompt({ frame, milliseconds }) {
    if (this.encoded.has(frame)) this.noteTime(milliseconds);
    this.encoded.add(frame);
    this.clear();
  }

  noteTime(milliseconds) {
    this.times = [...this.times.slice(1 - NUM_TIMES), milliseconds];
  }

  /** The pointer rests or moves at a position, with which a click would refine the chosen object or begin a new one. */
  move({ x, y }, isNegative) {
    const { session, player } = this, { frame } = player;
    const isIdle = !session.isReadOnly && !session.isBusy && !session.pendingMarks.length && !player.isPlaying;
    if (!isIdle || (isNegative && !session.selected) || !this.encoded.has(frame) || !this.isQuick) {
      this.clear();
      return;
    }
    this.wanted = { object_id: session.selected, frame, point: [x, y, isNegative ? 0 : 1] };
    this.send();
  }

  async send() {
    if (this.isSending || performance.now() < this.pausedUntil) return;
    this.isSending = true;
    while (this.wanted && this.isQuick) {
      const { wanted } = this, start = performance.now();
      let answer = null;
      try {
        answer = await this.session.api.query('preview', wanted);
      } catch (error) {
        if (!(error instanceof ServerError)) throw error;
      }
      const milliseconds = performance.now() - start;
      if (!answer?.is_ready) {
        this.pausedUntil = performance.now() + PAUSE_MS; // the model is in use, or the features were dropped
        this.clear();
        break;
      }
      this.noteTime(milliseconds);
      if (this.wanted && milliseconds <= this.limit) await this.show(wanted, answer.counts);
      if (this.wanted === wanted) this.wanted = null;
    }
    this.isSending = false;
  }

  async show({ object_id: id, frame }, counts) {
    const color = this.session.object(id)?.color || NEW_COLOR;
    const layers = counts ? await this.player.store.decode([{ id, counts, color }]) : [];
    if (this.wanted && frame === this.player.frame) this.draw(layers, frame);
    closeLayers(layers);
  }

  draw(layers, frame) {
    const { canvas } = this, context = canvas.getContext('2d'), { width, height } = this.player.canvas;
    Object.assign(canvas, { width, height }); // also clears it
    for (const { area, line, x, y } of layers) {
      context.globalAlpha = 0.35;
      context.drawImage(area, x, y);
      context.globalAlpha = 0.8;
      context.drawImage(line, x, y);
    }
    this.shownFrame = frame;
    canvas.hidden = !layers.length;
  }

  clear() {
    this.wanted = null;
    this.canvas.hidden = true;
    this.shownFrame = -1;
  }
}
