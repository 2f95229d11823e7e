// The page "Live": one frame of the webcam at a time is sent to the server and returned with masks. Frames that the
// camera delivers during a request are dropped.
const root = element.querySelector('.up-live');
root.innerHTML = `
  <div class="up-tool-row">
    <button type="button" data-start>Start webcam</button><button type="button" data-stop disabled>Stop</button>
    <output></output>
  </div>
  <div class="up-frame" tabindex="0" role="application" aria-label="Live video. Click an object to track it.">
    <img alt="Live video with masks" hidden draggable="false">
    <div class="up-empty"><p>Start the webcam, then click an object in the video. Frames are processed in memory and not stored.</p></div>
  </div>
  <p class="up-error" role="alert" hidden></p>`;
const find = (selector) => root.querySelector(selector);
const image = find('img'), empty = find('.up-empty'), output = find('output'), error = find('.up-error');
const video = document.createElement('video'), canvas = document.createElement('canvas');
Object.assign(video, { muted: true, playsInline: true });
let stream = null, mode = '', times = [], number = -1;
const value = () => props.value || {};
const show = (text) => { error.textContent = text || ''; error.hidden = !text; };

function showFrame(blob) {
  if (!mode) return;
  const previous = image.src;
  image.src = URL.createObjectURL(blob);
  if (previous.startsWith('blob:')) URL.revokeObjectURL(previous);
  image.hidden = false;
  empty.hidden = true;
  times = [...times.slice(-9), performance.now()];
  const rate = times.length > 1 ? 1000 * (times.length - 1) / (times[times.length - 1] - times[0]) : 0;
  output.textContent = `${rate.toFixed(1)} frames per second`;
}

async function handle(response) {
  if (response.status === 200) showFrame(await response.blob());
  else if (response.status !== 204) {
    show((await response.json().catch(() => ({}))).error || 'The server refused the frame.');
    stop();
  }
  return response;
}

async function send() {
  while (mode === 'camera' && element.isConnected) {
    const scale = Math.min(1, 640 / Math.max(video.videoWidth, video.videoHeight));
    canvas.width = Math.round(video.videoWidth * scale);
    canvas.height = Math.round(video.videoHeight * scale);
    canvas.getContext('2d').drawImage(video, 0, 0, canvas.width, canvas.height);
    const body = await new Promise((done) => canvas.toBlob(done, 'image/jpeg', 0.85));
    if (mode !== 'camera') return;
    try {
      await handle(await fetch(`${value().base}/frame`, { method: 'POST', body }));
    } catch { show('The connection to the server was lost.'); stop(); }
    await new Promise((done) => setTimeout(done, 15));
  }
}

async function receive() {
  while (mode === 'source' && element.isConnected) {
    try {
      const response = await handle(await fetch(`${value().base}/newest.jpg?after=${number}`));
      number = Number(response.headers.get('x-frame') || number);
    } catch { show('The connection to the server was lost.'); stop(); }
    await new Promise((done) => setTimeout(done, 15));
  }
}

function stop() {
  mode = '';
  if (stream) stream.getTracks().forEach((track) => track.stop());
  stream = null;
  find('[data-start]').disabled = false;
  find('[data-stop]').disabled = true;
}

find('[data-start]').addEventListener('click', async () => {
  show('');
  if (!navigator.mediaDevices) { show('Browsers allow cameras on https and localhost pages only.'); return; }
  try {
    stream = await navigator.mediaDevices.getUserMedia({ video: { width: 640, height: 480 } });
  } catch { show('No camera is available: connect one and allow this page to use it.'); return; }
  video.srcObject = stream;
  await video.play();
  find('[data-start]').disabled = true;
  find('[data-stop]').disabled = false;
  trigger('started', {});
});
function clear() {
  stop();
  image.hidden = true;
  empty.hidden = false;
  output.textContent = '';
}
find('[data-stop]').addEventListener('click', () => { clear(); trigger('stopped', {}); });
image.addEventListener('click', (event) => {
  const box = image.getBoundingClientRect();
  trigger('point', { x: (event.clientX - box.left) / box.width * image.naturalWidth,
    y: (event.clientY - box.top) / box.height * image.naturalHeight });
});

function refresh() {
  const current = value();
  show(current.error);
  if (current.mode === mode) return;
  if (current.mode === 'camera' && stream) { mode = 'camera'; times = []; send(); }
  else if (current.mode === 'source') {
    stop();
    find('[data-stop]').disabled = false;
    mode = 'source';
    [times, number] = [[], -1];
    receive();
  } else if (!current.mode) clear();
}
watch('value', refresh);
refresh();
