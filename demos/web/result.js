// The result: the latest frame with masks while the model works, afterwards the video with masks.
const root = element.querySelector('.up-result');
let shown = '', isLoading = false, request = null;
function showFrame(value) {
  let image = root.querySelector('img');
  if (!image) {
    root.innerHTML = '<img alt="Latest frame with masks"><progress max="1" value="0"></progress><p class="up-fine"></p>';
    image = root.querySelector('img');
  }
  const bar = root.querySelector('progress');
  bar.hidden = value.kind !== 'working';
  bar.max = value.total || 1;
  bar.value = value.done || 0;
  root.querySelector('p').textContent = value.status || '';
  const wanted = `${value.base}/frame/${value.frame}.jpg?masks=only&rev=${value.revision}`;
  if (isLoading || wanted === shown) return;
  const next = new Image();
  isLoading = true;
  next.onload = next.onerror = () => { isLoading = false; };
  next.addEventListener('load', () => { image.src = next.src; shown = wanted; root.dataset.frames = Number(root.dataset.frames || 0) + 1; });
  next.src = wanted;
}
async function showVideo(value) {
  const wanted = `${value.base}/result.mp4?rev=${value.revision}`;
  if (wanted === shown) return;
  shown = wanted;
  if (request) request.abort();
  request = new AbortController();
  try {
    const response = await fetch(wanted, { signal: request.signal });
    if (!response.ok) return;
    const video = document.createElement('video');
    Object.assign(video, { controls: true, muted: true, loop: true, autoplay: true, playsInline: true,
      src: URL.createObjectURL(await response.blob()) });
    video.style.aspectRatio = value.shape;
    video.setAttribute('aria-label', 'Video with masks');
    const previous = root.querySelector('video');
    if (previous) URL.revokeObjectURL(previous.src);
    root.replaceChildren(video);
  } catch (error) { if (error.name !== 'AbortError') throw error; }
}

function refresh() {
  const value = props.value || {};
  if (value.kind === 'working' || value.kind === 'image') showFrame(value);
  else if (value.kind === 'video') showVideo(value);
  else {
    shown = '';
    root.innerHTML = '<div class="up-empty"><p>The video with masks appears here while objects are tracked.</p></div>';
  }
}
watch('value', refresh);
refresh();
