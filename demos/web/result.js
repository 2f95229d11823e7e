// The masked video: while masks are made, the newest masked frame; after that, the finished video.
const box = element.querySelector('.up-result');
let shown = '', loading = false, asked = null;
function frame(value) {
  let image = box.querySelector('img');
  if (!image) {
    box.innerHTML = '<img alt="Newest masked frame"><progress max="1" value="0"></progress><p class="up-fine"></p>';
    image = box.querySelector('img');
  }
  const bar = box.querySelector('progress');
  bar.hidden = value.kind !== 'working';
  bar.max = value.total || 1;
  bar.value = value.done || 0;
  box.querySelector('p').textContent = value.words || '';
  const wanted = `${value.base}/frame/${value.frame}.jpg?masks=only&rev=${value.revision}`;
  if (loading || wanted === shown) return;
  const next = new Image();
  loading = true;
  next.onload = next.onerror = () => { loading = false; };
  next.addEventListener('load', () => { image.src = next.src; shown = wanted; box.dataset.frames = Number(box.dataset.frames || 0) + 1; });
  next.src = wanted;
}
async function finish(value) {
  const wanted = `${value.base}/result.mp4?rev=${value.revision}`;
  if (wanted === shown) return;
  shown = wanted;
  if (asked) asked.abort();
  asked = new AbortController();
  try {
    const response = await fetch(wanted, { signal: asked.signal });
    if (!response.ok) return;
    const video = document.createElement('video');
    Object.assign(video, { controls: true, muted: true, loop: true, autoplay: true, playsInline: true,
      src: URL.createObjectURL(await response.blob()) });
    video.style.aspectRatio = value.shape;
    video.setAttribute('aria-label', 'Video with masks');
    const before = box.querySelector('video');
    if (before) URL.revokeObjectURL(before.src);
    box.replaceChildren(video);
  } catch (error) { if (error.name !== 'AbortError') throw error; }
}

function refresh() {
  const value = props.value || {};
  if (value.kind === 'working' || value.kind === 'picture') frame(value);
  else if (value.kind === 'video') finish(value);
  else {
    shown = '';
    box.innerHTML = '<div class="up-empty"><p>The video with its masks appears here while the objects are followed.</p></div>';
  }
}
watch('value', refresh);
refresh();
