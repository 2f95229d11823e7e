// COCO run-length encodings: column by column, beginning with a run of background.

/** Return the lengths of the runs of a compressed COCO encoding, as pycocotools writes it. */
export function decodeCounts(text) {
  const counts = [];
  let at = 0;
  while (at < text.length) {
    let value = 0, shift = 0, code = 0;
    do {
      code = text.charCodeAt(at++) - 48;
      if (!(code >= 0 && code < 64) || shift > 30) throw new RangeError('the mask is not a run-length encoding');
      value |= (code & 31) << shift;
      shift += 5;
    } while (code & 32);
    if (code & 16 && shift < 32) value |= -1 << shift;
    if (counts.length > 2) value += counts[counts.length - 2];
    counts.push(value);
  }
  return counts;
}

/** Return the mask inside its bounding box: `{ x, y, width, height, pixels }`, row by row; null for an empty mask. */
export function decodeRegion(text, width, height) {
  const counts = decodeCounts(text);
  const box = boundingBox(counts, width, height);
  if (!box) return null;
  const pixels = new Uint8Array(box.width * box.height);
  let position = 0;
  counts.forEach((count, index) => {
    const end = position + count;
    while (index & 1 && position < end) {
      const column = Math.floor(position / height), row = position - column * height;
      const length = Math.min(end - position, height - row);
      let target = (row - box.y) * box.width + column - box.x;
      for (let step = 0; step < length; step += 1, target += box.width) pixels[target] = 1;
      position += length;
    }
    position = end;
  });
  return { ...box, pixels };
}

function boundingBox(counts, width, height) {
  let position = 0, left = width, right = -1, top = height, bottom = -1;
  counts.forEach((count, index) => {
    if (index & 1 && count > 0) {
      const last = position + count - 1;
      const first = Math.floor(position / height), final = Math.floor(last / height);
      left = Math.min(left, first);
      right = Math.max(right, final);
      top = first === final ? Math.min(top, position - first * height) : 0;
      bottom = first === final ? Math.max(bottom, last - final * height) : height - 1;
    }
    position += count;
  });
  if (position > width * height) throw new RangeError('the mask is larger than the frame');
  return right < 0 ? null : { x: left, y: top, width: right - left + 1, height: bottom - top + 1 };
}
