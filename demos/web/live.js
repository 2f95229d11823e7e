// The "Live" page: pictures of the webcam go to the server one at a time, and come back with masks. While one is
// under way, the camera goes on and nothing is kept: frames are dropped, never queued.
const root = element.querySelector('.up-live');
root.innerHTML = `
  <div class="up-tool-row">
    <button type="button" data-start>Start webcam</button><button type="button" data-stop disabled>Stop</button>
    <output></output>
  </div>
  <div class="up-picture" tabindex="0" role="application" aria-label="Live picture. Click an object to follow it.">
    <img alt="Live picture with masks" hidden draggable="false">
    <div class="up-empty"><p>Start the webcam${root.dataset.sources ? ', or give an address below' : ''}; then click an
      object in the picture. Pictures are followed in memory and not kept.</p></div>
  </div>
  <p class="up-error" role="alert" hidden></p>`;
const at = (selector) => root.querySelector(selector);
const image = at('img'), empty = at('.up-empty'), output = at('output'), error = at('.up-error');
const video = document.createElement('video'), canvas = document.createElement('canvas');
Object.assign(video, { muted: true, playsInline: true });
let stream = null, running = '', times = [], number = -1;
const given = () => props.value || {};
const show = (text) => { error.textContent = text || ''; error.hidden = !text; };

function appear(blob) {
  if (!running) return;
  const before = image.src;
  image.src = URL.createObjectURL(blob);
  if (before.startsWith('blob:')) URL.revokeObjectURL(before);
  image.hidden = false;
  empty.hidden = true;
  times = [...times.slice(-9), performance.now()];
  const rate = times.length > 1 ? 1000 * (times.length - 1) / (times[times.length - 1] - times[0]) : 0;
  output.textContent = `${rate.toFixed(1)} pictures per second`;
}

async function answer(response) {
  if (response.status === 200) appear(await response.blob());
  else if (response.status !== 204) {
    show((await response.json().catch(() => ({}))).error || 'The server refused the picture.');
    stop();
  }
  return response;
}

async function send() {
  while (running === 'camera' && element.isConnected) {
    const scale = Math.min(1, 640 / Math.max(video.videoWidth, video.videoHeight));
    canvas.width = Math.round(video.videoWidth * scale);
    canvas.height = Math.round(video.videoHeight * scale);
    canvas.getContext('2d').drawImage(video, 0, 0, canvas.width, canvas.height);
    const body = await new Promise((done) => canvas.toBlob(done, 'image/jpeg', 0.85));
    if (running !== 'camera') return;
    try {
      await answer(await fetch(`${given().base}/frame`, { method: 'POST', body }));
    } catch { show('The connection to the server broke off.'); stop(); }
    await new Promise((done) => setTimeout(done, 15));
  }
}

async function receive() {
  while (running === 'source' && element.isConnected) {
    try {
      const response = await answer(await fetch(`${given().base}/newest.jpg?after=${number}`));
      number = Number(response.headers.get('x-frame') || number);
    } catch { show('The connection to the server broke off.'); stop(); }
    await new Promise((done) => setTimeout(done, 15));
  }
}

function stop() {
  running = '';
  if (stream) stream.getTracks().forEach((track) => track.stop());
  stream = null;
  at('[data-start]').disabled = false;
  at('[data-stop]').disabled = true;
}

at('[data-start]').addEventListener('click', async () => {
  show('');
  if (!navigator.mediaDevices) { show('The browser gives a camera to https and localhost pages only.'); return; }
  try {
    stream = await navigator.mediaDevices.getUserMedia({ video: { width: 640, height: 480 } });
  } catch { show('The browser has no camera for this page: allow it, or connect one.'); return; }
  video.srcObject = stream;
  await video.play();
  at('[data-start]').disabled = true;
  at('[data-stop]').disabled = false;
  trigger('started', {});
});
function clear() {
  stop();
  image.hidden = true;
  empty.hidden = false;
  output.textContent = '';
}
at('[data-stop]').addEventListener('click', () => { clear(); trigger('stopped', {}); });
image.addEventListener('click', (event) => {
  const box = image.getBoundingClientRect();
  trigger('point', { x: (event.clientX - box.left) / box.width * image.naturalWidth,
    y: (event.clientY - box.top) / box.height * image.naturalHeight });
});

function refresh() {
  const value = given();
  show(value.error);
  if (value.running === running) return;
  if (value.running === 'camera' && stream) { running = 'camera'; times = []; send(); }
  else if (value.running === 'source') {
    stop();
    Object.assign(at('[data-stop]'), { disabled: false });
    running = 'source';
    [times, number] = [[], -1];
    receive();
  } else if (!value.running) clear();
}
watch('value', refresh);
refresh();
