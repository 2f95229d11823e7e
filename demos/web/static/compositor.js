// Draws one frame with its objects: effects on objects and background, colors and outlines.

const BLUR_STEPS = [16, 4]; // a picture reduced by these factors and enlarged again is blurred
const BLOCKS = 48; // blocks of a pixelated picture along its longer side
const AREA_OPACITY = 0.45;
const DARKENED = 0.25;

export const OBJECT_EFFECTS = {
  color: 'Color', outline: 'Outline', keep: 'Original', blur: 'Blurred', pixelate: 'Pixelated', hide: 'Hidden',
};
export const BACKGROUND_EFFECTS = {
  keep: 'Original', darken: 'Spotlight', blur: 'Blurred', pixelate: 'Pixelated', greyscale: 'Greyscale', transparent: 'Cut out',
};

export class Compositor {
  constructor(canvas) {
    this.canvas = canvas;
    this.context = canvas.getContext('2d');
    this.spare = [0, 1, 2, 3].map(() => document.createElement('canvas'));
    this.background = 'keep';
    this.objects = {}; // id -> key of OBJECT_EFFECTS; color where missing
  }

  resize(width, height) {
    Object.assign(this.canvas, { width, height });
  }

  effectOf(id) {
    return this.objects[id] || 'color';
  }

  /** Draw a picture (video or image) with the bitmaps of its objects, in order of their ids. */
  draw(picture, layers) {
    const { context, canvas } = this;
    const drawn = [...layers].sort((a, b) => b.id - a.id); // lower ids over higher ones
    this.drawBackground(picture);
    const kept = drawn.filter((layer) => this.effectOf(layer.id) !== 'hide');
    if (this.background !== 'keep' && kept.length) this.drawInside(kept, (target) => target.drawImage(picture, 0, 0, canvas.width, canvas.height));
    for (const effect of ['blur', 'pixelate']) {
      const some = drawn.filter((layer) => this.effectOf(layer.id) === effect);
      if (some.length) this.drawInside(some, (target) => this.drawEffect(target, picture, effect));
    }
    for (const layer of drawn) {
      const effect = this.effectOf(layer.id);
      if (effect === 'color') {
        context.globalAlpha = AREA_OPACITY;
        context.drawImage(layer.area, layer.x, layer.y);
        context.globalAlpha = 1;
      }
      if (effect === 'color' || effect === 'outline') context.drawImage(layer.line, layer.x, layer.y);
    }
  }

  drawBackground(picture) {
    const { context, canvas } = this;
    if (this.background === 'transparent') context.clearRect(0, 0, canvas.width, canvas.height);
    else this.drawEffect(context, picture, this.background);
  }

  drawEffect(target, picture, effect) {
    const { width, height } = this.canvas;
    if (effect === 'blur') {
      let source = picture;
      BLUR_STEPS.forEach((step, index) => {
        source = this.copy(index, source, width / step, height / step);
      });
      target.drawImage(source, 0, 0, width, height);
    } else if (effect === 'pixelate') {
      const step = Math.max(width, height) / BLOCKS;
      const small = this.copy(2, picture, width / step, height / step);
      target.imageSmoothingEnabled = false;
      target.drawImage(small, 0, 0, width, height);
      target.imageSmoothingEnabled = true;
    } else {
      if (effect === 'greyscale') target.filter = 'grayscale(1)';
      target.drawImage(picture, 0, 0, width, height);
      target.filter = 'none';
      if (effect === 'darken') {
        target.fillStyle = `rgba(0, 0, 0, ${1 - DARKENED})`;
        target.fillRect(0, 0, width, height);
      }
    }
  }

  /** Draw with `drawer`, but only inside the masks. */
  drawInside(layers, drawer) {
    const scratch = this.spare[3], { width, height } = this.canvas;
    Object.assign(scratch, { width, height }); // also clears it
    const target = scratch.getContext('2d');
    for (const layer of layers) target.drawImage(layer.area, layer.x, layer.y);
    target.globalCompositeOperation = 'source-in';
    drawer(target);
    this.context.drawImage(scratch, 0, 0);
  }

  copy(index, source, width, height) {
    const small = this.spare[index];
    Object.assign(small, { width: Math.max(1, Math.round(width)), height: Math.max(1, Math.round(height)) });
    small.getContext('2d').drawImage(source, 0, 0, small.width, small.height);
    return small;
  }
}
