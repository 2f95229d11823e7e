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
  const area = new ImageData(size.width, size.height), line = new ImageData(size.width, size.height);
  const areaPixels = new Uint32Array(area.data.buffer);
  fillArea(areaPixels, scaled, { width: size.width, margin, color: pixel(color) });
  drawOutline(areaPixels, new Uint32Array(line.data.buffer), { ...size, margin, stroke, inner: pixel(color), outer: pixel(casing) });
  const [areaBitmap, lineBitmap] = await Promise.all([createImageBitmap(area), createImageBitmap(line)]);
  return { x: scaled.x - margin, y: scaled.y - margin, ...size, margin, area: areaBitmap, line: lineBitmap };
}

function fillArea(area, { width: maskWidth, height: maskHeight, pixels }, { width, margin, color }) {
  for (let row = 0, source = 0; row < maskHeight; row += 1) {
    let target = (row + margin) * width + margin;
    for (let column = 0; column < maskWidth; column += 1, source += 1, target += 1) if (pixels[source]) area[target] = color;
  }
}

/** Draw around every pixel on the border of the mask: inside it in one color, outside it in another. */
function drawOutline(area, line, { width, height, margin, stroke, inner, outer }) {
  for (let row = margin; row < height - margin; row += 1) {
    const end = (row + 1) * width - margin;
    for (let at = row * width + margin; at < end; at += 1) {
      if (!area[at] || (area[at - 1] && area[at + 1] && area[at - width] && area[at + width])) continue;
      for (let down = -stroke; down <= stroke; down += 1) {
        const first = at + down * width - stroke, last = first + 2 * stroke;
        const isNear = Math.abs(down) < stroke;
        for (let near = first; near <= last; near += 1) {
          if (!area[near]) line[near] = outer;
          else if (isNear && near !== first && near !== last) line[near] = inner;
        }
      }
    }
  }
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
