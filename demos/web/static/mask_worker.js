// Decodes masks beside the page: run-lengths in, for each object two bitmaps out, `area` (the mask) and `line` (its
// outline). A message is `{ number, width, height, scale, objects: [{ id, counts, color, casing }] }`, colors as
// [red, green, blue]; the answer is `{ number, layers: [{ id, x, y, width, height, area, line }] }` in pixels of the
// canvas, which is `scale` times as large as the frame.
import { decodeRegion } from './run_lengths.js';

self.addEventListener('message', async ({ data }) => {
  const { number, width, height, scale } = data;
  const layers = [];
  for (const item of data.objects) {
    try {
      const region = decodeRegion(item.counts, width, height);
      if (region) layers.push({ id: item.id, ...(await makeLayers(region, item, scale, Math.max(width, height) * scale)) });
    } catch (error) {
      if (!(error instanceof RangeError)) throw error;
    }
  }
  const bitmaps = layers.flatMap((layer) => [layer.area, layer.line]);
  self.postMessage({ number, layers }, bitmaps);
});

async function makeLayers(region, { color, casing }, scale, canvasSize) {
  const stroke = Math.max(1, Math.round(canvasSize / 520)), margin = 2 * stroke;
  const scaled = scale === 1 ? region : enlarge(region, scale);
  const size = { width: scaled.width + 2 * margin, height: scaled.height + 2 * margin };
  const mask = new Uint8Array(size.width * size.height);
  for (let row = 0; row < scaled.height; row += 1) {
    const source = scaled.pixels.subarray(row * scaled.width, (row + 1) * scaled.width);
    mask.set(source, (row + margin) * size.width + margin);
  }
  const outside = mask.map((value) => 1 - value);
  const nearOutside = grow(outside, size, stroke), nearMask = grow(mask, size, stroke);
  const area = new ImageData(size.width, size.height), line = new ImageData(size.width, size.height);
  const areaPixels = new Uint32Array(area.data.buffer), linePixels = new Uint32Array(line.data.buffer);
  const [areaColor, lineColor, casingColor] = [pixel(color), pixel(color), pixel(casing)];
  for (let at = 0; at < mask.length; at += 1) {
    if (mask[at]) {
      areaPixels[at] = areaColor;
      if (nearOutside[at]) linePixels[at] = lineColor;
    } else if (nearMask[at]) linePixels[at] = casingColor;
  }
  return {
    x: scaled.x - margin, y: scaled.y - margin, ...size, margin,
    area: await createImageBitmap(area), line: await createImageBitmap(line),
  };
}

/** Return a color as one number in the byte order of ImageData. */
function pixel([red, green, blue]) {
  return new Uint32Array(new Uint8Array([red, green, blue, 255]).buffer)[0];
}

/** Enlarge a mask with a smooth edge: small videos are drawn on a larger canvas. */
function enlarge(region, scale) {
  const pad = 1, width = region.width + 2 * pad, height = region.height + 2 * pad;
  const image = new ImageData(width, height);
  for (let row = 0; row < region.height; row += 1) {
    for (let column = 0; column < region.width; column += 1) {
      image.data[4 * ((row + pad) * width + column + pad) + 3] = 255 * region.pixels[row * region.width + column];
    }
  }
  const small = new OffscreenCanvas(width, height);
  small.getContext('2d').putImageData(image, 0, 0);
  const large = new OffscreenCanvas(width * scale, height * scale);
  const context = large.getContext('2d', { willReadFrequently: true });
  context.imageSmoothingQuality = 'high';
  context.drawImage(small, 0, 0, large.width, large.height);
  const data = context.getImageData(0, 0, large.width, large.height).data;
  const pixels = new Uint8Array(large.width * large.height);
  for (let at = 0; at < pixels.length; at += 1) pixels[at] = data[4 * at + 3] > 127 ? 1 : 0;
  return { x: (region.x - pad) * scale, y: (region.y - pad) * scale, width: large.width, height: large.height, pixels };
}

/** Return the mask grown by `radius` pixels in both directions. */
function grow(mask, { width, height }, radius) {
  return spread(spread(mask, width, height, 1, width, radius), height, width, width, 1, radius);
}

/** Grow along lines of `length` pixels that are `step` apart; the `count` lines begin `stride` apart. */
function spread(mask, length, count, step, stride, radius) {
  const grown = new Uint8Array(mask.length);
  for (let line = 0; line < count; line += 1) {
    const start = line * stride;
    let last = -Infinity;
    for (let at = 0; at < length + radius; at += 1) {
      if (at < length && mask[start + at * step]) last = at;
      const target = at - radius;
      if (target >= 0 && last >= target - radius) grown[start + target * step] = 1;
    }
  }
  return grown;
}
