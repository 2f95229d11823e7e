// On which frames each object is known and visible: the content of the timelines.
export const UNKNOWN = 0, ABSENT = 1, VISIBLE = 2;

export class Presence {
  constructor() {
    this.frames = new Map(); // id -> Uint8Array by frame
    this.numFrames = 1;
  }

  /** Take over all objects of a state. */
  reset(objects, numFrames) {
    this.numFrames = numFrames;
    this.frames = new Map();
    for (const item of objects) this.set(item);
  }

  /** Take over one object; `known` and `visible` are runs of frames, both ends included. */
  set(item) {
    const frames = new Uint8Array(this.numFrames);
    for (const [first, last] of item.known || []) frames.fill(ABSENT, first, last + 1);
    for (const [first, last] of item.visible || []) frames.fill(VISIBLE, first, last + 1);
    this.frames.set(item.id, frames);
  }

  delete(id) {
    this.frames.delete(id);
  }

  /** Note what is known of a frame now. */
  mark(id, frame, isVisible) {
    if (!this.frames.has(id)) this.frames.set(id, new Uint8Array(this.numFrames));
    this.frames.get(id)[frame] = isVisible ? VISIBLE : ABSENT;
  }

  at(id, frame) {
    return this.frames.get(id)?.[frame] || UNKNOWN;
  }

  /** Runs of frames, as [first, last], on which an object is at least `kind`. */
  runsOf(id, kind = VISIBLE) {
    const frames = this.frames.get(id) || [], runs = [];
    for (let frame = 0; frame < frames.length; frame += 1) {
      if (frames[frame] < kind) continue;
      if (runs.length && runs[runs.length - 1][1] === frame - 1) runs[runs.length - 1][1] = frame;
      else runs.push([frame, frame]);
    }
    return runs;
  }
}
