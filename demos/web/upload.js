// Uploads a file that is chosen or dropped; the event `uploaded` is sent when the server has received it.
const root = element.querySelector('.up-upload');
root.innerHTML = `
  <label class="up-drop">
    <input type="file" accept="video/*,image/*" aria-label="Upload a video or an image">
    <span><b>Drop a video or an image here</b>, or choose a file. <small></small></span>
  </label>
  <p class="up-error" role="alert" hidden></p>
  <p class="up-status" role="status" hidden></p>`;
const file = root.querySelector('input'), drop = root.querySelector('.up-drop');
const error = root.querySelector('.up-error'), status = root.querySelector('.up-status');
const value = () => props.value || {};
const show = (node, text) => { node.textContent = text || ''; node.hidden = !text; };

function refresh() {
  root.querySelector('small').textContent = value().limits || '';
  drop.classList.toggle('up-drop-compact', Boolean(value().has_media));
  show(error, value().error);
  show(status, '');
}

function errorMessage(request) {
  try {
    return JSON.parse(request.responseText).error;
  } catch {
    return `The server refused the upload (${request.status}).`;
  }
}

function send(chosen) {
  const { base, max_bytes: maxBytes } = value();
  show(error, '');
  if (!chosen || !base) return;
  if (chosen.size > maxBytes) {
    const megabytes = (bytes) => `${Number((bytes / 1048576).toFixed(2))} MB`;
    show(error, `This file has ${megabytes(chosen.size)}; the maximum is ${megabytes(maxBytes)}.`);
    return;
  }
  const request = new XMLHttpRequest();
  request.open('POST', `${base}/upload?name=${encodeURIComponent(chosen.name)}`);
  request.upload.onprogress = (event) => show(status, `Uploading: ${Math.round(100 * event.loaded / event.total)} %`);
  request.onload = () => {
    if (request.status === 200) { show(status, 'Reading the file…'); trigger('uploaded', {}); }
    else { show(status, ''); show(error, errorMessage(request)); }
  };
  request.onerror = () => { show(status, ''); show(error, 'The upload was interrupted: try again.'); };
  request.send(chosen);
}

file.addEventListener('change', () => { send(file.files[0]); file.value = ''; });
for (const name of ['dragenter', 'dragover']) {
  drop.addEventListener(name, (event) => { event.preventDefault(); drop.classList.add('up-drop-active'); });
}
for (const name of ['dragleave', 'drop']) drop.addEventListener(name, () => drop.classList.remove('up-drop-active'));
drop.addEventListener('drop', (event) => { event.preventDefault(); send(event.dataTransfer.files[0]); });
watch('value', refresh);
refresh();
