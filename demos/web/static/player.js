// The player: a <video> or <img> that is drawn on a canvas together with the masks of the very same frame.
//
// The browser decodes, times and sounds the video. `requestVideoFrameCallback` reports each frame that it presents with
// its time, which gives the index of the frame; picture and masks of that index are drawn in one step. A frame whose
// masks are not decoded yet is left out, so that no picture is shown with the masks of another one.
import { Compositor } from './compositor.js';

// Smaller videos are drawn enlarged, so that outlines stay thin and smooth.
const MAX_HELD_MS = 400; // afterwards a frame is shown although its masks are missing
const SMALL_SIDE = 640, ENLARGED_SIDE = 960;

export class Player extends EventTarget {
  /** `store` is a MaskStore. Events: `frame` after each drawing, `state` when playing, sound or source change. */
  constructor(store) {
    super();
    this.store = store;
    this.video = document.createElement('video');
    Object.assign(this.video, { playsInline: true, preload: 'auto', muted: false });
    this.canvas = document.createElement('canvas');
    this.compositor = new Compositor(this.canvas);
    this.image = new Image();
    this.info = null;
    this.frame = 0; // the frame that is drawn
    this.lastDrawn = 0;
    this.numMoves = 0; // how often the user has chosen a frame or begun to play
    this.layers = [];
    this.listen();
  }

  listen() {
    const { video } = this;
    const changed = () => this.dispatchEvent(new Event('state'));
    for (const name of ['play', 'pause', 'ended', 'volumechange', 'loadeddata']) video.addEventListener(name, changed);
    video.addEventListener('seeked', () => this.finishSeek());
    video.addEventListener('loadeddata', () => (this.pictureFrame === null ? this.drawSource() : this.leavePictures()));
    video.addEventListener('error', () => this.usePictures());
    const onFrame = (_, { mediaTime }) => {
      video.requestVideoFrameCallback(onFrame);
      this.present(this.frameAt(mediaTime));
    };
    video.requestVideoFrameCallback(onFrame);
  }

  /** Show another video or image. `addresses` has `video` and `picture(frame)`. */
  open(info, { addresses, seconds }) {
    const longest = Math.max(info.width, info.height);
    this.scale = longest >= SMALL_SIDE ? 1 : Math.min(6, Math.ceil(ENLARGED_SIDE / longest));
    Object.assign(this, { info, addresses, seconds, frame: 0, wanted: null, isSeeking: false, pictureFrame: null });
    this.layers = [];
    this.hasVideo = !info.is_image;
    this.compositor.resize(info.width * this.scale, info.height * this.scale);
    this.store.reset({ width: info.width, height: info.height, numFrames: info.num_frames, scale: this.scale });
    if (this.hasVideo) {
      this.video.src = addresses.video;
      // The server converts it for the browser first; meanwhile there is a picture to click.
      if (!info.is_playable) this.showPicture(0);
    } else {
      this.video.removeAttribute('src');
      this.showPicture(0);
    }
    this.dispatchEvent(new Event('state'));
  }

  close() {
    this.video.pause();
    this.video.removeAttribute('src');
    this.video.load();
    this.info = null;
  }

  get isPlaying() {
    return this.info !== null && !this.video.paused && !this.video.ended;
  }

  get lastFrame() {
    return this.info ? this.info.num_frames - 1 : 0;
  }

  /** Time of a frame in seconds. */
  timeOf(frame) {
    if (this.seconds) return this.seconds[frame] ?? 0;
    return this.info?.fps ? frame / this.info.fps : 0;
  }

  /** Index of the frame that is presented at a time. */
  frameAt(time) {
    const { seconds } = this;
    if (!seconds) return this.clamp(Math.round(time * (this.info?.fps || 1)));
    let low = 0, high = seconds.length - 1;
    while (low < high) {
      const middle = (low + high + 1) >> 1;
      if (seconds[middle] <= time + 1e-3) low = middle;
      else high = middle - 1;
    }
    return low;
  }

  clamp(frame) {
    return Math.max(0, Math.min(this.lastFrame, frame));
  }

  play() {
    if (!this.info || this.info.is_image) return;
    this.numMoves += 1;
    this.pictureFrame = null;
    if (!this.hasVideo) {
      this.playPictures();
      return;
    }
    if (this.frame >= this.lastFrame) this.video.currentTime = 0;
    this.store.prepare(this.frame);
    this.video.play().catch(() => this.dispatchEvent(new Event('state')));
  }

  pause() {
    this.video.pause();
    clearInterval(this.timer);
    this.timer = 0;
  }

  toggle() {
    if (this.isPlaying || this.timer) this.pause();
    else this.play();
  }

  step(frames) {
    this.pause();
    this.seek((this.wanted ?? this.frame) + frames);
  }

  /** Show a frame; while one is sought, the last one that was requested follows. */
  seek(frame) {
    if (!this.info) return;
    this.numMoves += 1;
    const target = this.clamp(Math.round(frame));
    this.pictureFrame = null;
    if (!this.hasVideo) {
      this.showPicture(target);
      return;
    }
    this.wanted = target;
    if (!this.isSeeking) this.seekVideo();
  }

  seekVideo() {
    this.isSeeking = true;
    if (this.video.readyState < 1) {
      this.video.addEventListener('loadedmetadata', () => this.seekVideo(), { once: true });
      return;
    }
    this.sought = this.wanted;
    const start = this.timeOf(this.sought), next = this.timeOf(Math.min(this.sought + 1, this.lastFrame));
    // The middle of the frame, so that rounding cannot select its neighbor.
    this.video.currentTime = start + (next > start ? (next - start) / 2 : 0.002);
  }

  finishSeek() {
    if (!this.isSeeking) {
      if (this.video.paused) this.drawSource();
      return;
    }
    this.isSeeking = false;
    if (this.wanted !== this.sought) {
      this.seekVideo();
      return;
    }
    this.wanted = null;
    this.present(this.sought);
  }

  /** Draw the frame that the video shows now. */
  drawSource() {
    if (this.info && this.hasVideo && this.video.readyState >= 2) this.present(this.frameAt(this.video.currentTime));
  }

  present(frame) {
    if (!this.info || this.pictureFrame !== null || !this.hasVideo) return;
    const picture = currentPicture(this.video), exact = picture ? this.frameAt(picture.timestamp / 1e6) : frame;
    const layers = this.isPlaying ? this.store.layersInPlayback(exact) : this.store.layersAt(exact);
    if (layers || !this.isPlaying || performance.now() - this.lastDrawn > MAX_HELD_MS) {
      this.drawn = picture || this.video;
      this.compose(exact, layers || this.store.previousLayersAt(exact) || []);
      this.drawn = this.video;
    }
    picture?.close();
  }

  /** Show a frame as a picture of the server; during the work of the model this is quicker than a search in the video. */
  async showPicture(frame) {
    if (!this.info || this.isFetching) {
      this.nextPicture = frame;
      return;
    }
    this.isFetching = true;
    this.pictureFrame = frame;
    const picture = new Image(), { info } = this;
    picture.src = this.addresses.picture(frame);
    const isLoaded = await picture.decode().then(() => true, () => false);
    this.isFetching = false;
    const next = this.nextPicture;
    this.nextPicture = undefined;
    if (isLoaded && info === this.info && this.pictureFrame === frame) {
      this.image = picture;
      this.drawn = picture;
      this.compose(frame, this.store.layersAt(frame) || this.store.previousLayersAt(frame) || []);
    }
    if (next !== undefined && this.pictureFrame !== null) await this.showPicture(next);
  }

  /** Return from pictures to the video, at the shown frame. */
  leavePictures() {
    if (this.pictureFrame === null || !this.hasVideo) return;
    this.seek(this.frame);
  }

  /** The browser cannot decode this video: every frame is a picture of the server, without sound. */
  usePictures() {
    if (!this.info || !this.hasVideo || !this.video.getAttribute('src')) return;
    this.hasVideo = false;
    this.isSeeking = false;
    this.showPicture(this.frame);
    this.dispatchEvent(new Event('state'));
  }

  playPictures() {
    const start = performance.now(), from = this.frame >= this.lastFrame ? 0 : this.frame, offset = this.timeOf(from);
    this.timer = setInterval(() => {
      const frame = this.frameAt(offset + (performance.now() - start) / 1000);
      this.showPicture(frame);
      if (frame >= this.lastFrame) this.pause();
    }, 1000 / (this.info.fps || 10));
    this.dispatchEvent(new Event('state'));
  }

  /** Draw again, after masks or effects have changed. */
  redraw(frame = null) {
    if (!this.info || !this.drawn || (frame !== null && frame !== this.frame) || this.isPlaying) return;
    if (this.isSeeking) return; // the picture of the video is about to change
    const layers = this.store.layersAt(this.frame);
    this.compose(this.frame, layers || this.store.previousLayersAt(this.frame) || []);
  }

  compose(frame, layers) {
    this.frame = frame;
    this.layers = layers;
    this.lastDrawn = performance.now();
    this.compositor.draw(this.drawn, layers);
    this.dispatchEvent(new Event('frame'));
  }
}

/** Return the frame that a video shows, with its time; null where the browser has no VideoFrame (pages without https). */
function currentPicture(video) {
  if (!globalThis.VideoFrame) return null;
  try {
    return new VideoFrame(video);
  } catch (error) {
    if (error.name === 'InvalidStateError' || error.name === 'SecurityError') return null;
    throw error;
  }
}
