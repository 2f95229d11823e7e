// Takes a file by a click or a drop and sends it; the event `uploaded` tells that it arrived.
const root = element.querySelector('.up-upload');
root.innerHTML = `
  <label class="up-drop">
    <input type="file" accept="video/*,image/*" aria-label="Upload a video or a picture">
    <span><b>Drop a video or a picture here</b>, or choose a file. <small></small></span>
  </label>
  <p class="up-error" role="alert" hidden></p>
  <p class="up-status" role="status" hidden></p>`;
const file = root.querySelector('input'), drop = root.querySelector('.up-drop');
const error = root.querySelector('.up-error'), status = root.querySelector('.up-status');
const given = () => props.value || {};
const show = (node, text) => { node.textContent = text || ''; node.hidden = !text; };

function refresh() {
  const value = given();
  root.querySelector('small').textContent = value.limits || '';
  drop.classList.toggle('up-small', Boolean(value.has_media));
  show(error, value.error);
  show(status, value.status);
}

function refused(request) {
  try {
    return JSON.parse(request.responseText).error;
  } catch {
    return `The upload was refused (${request.status}).`;
  }
}

function send(chosen) {
  const value = given();
  show(error, '');
  if (!chosen || !value.base) return;
  if (chosen.size > value.max_bytes) {
    const megabytes = (bytes) => `${Number((bytes / 1048576).toFixed(2))} MB`;
    show(error, `This file has ${megabytes(chosen.size)}; at most ${megabytes(value.max_bytes)} are taken.`);
    return;
  }
  const request = new XMLHttpRequest();
  request.open('POST', `${value.base}/upload?name=${encodeURIComponent(chosen.name)}`);
  request.upload.onprogress = (event) => show(status, `Uploading: ${Math.round(100 * event.loaded / event.total)} %`);
  request.onload = () => {
    if (request.status === 200) { show(status, 'Reading the file…'); trigger('uploaded', {}); }
    else { show(status, ''); show(error, refused(request)); }
  };
  request.onerror = () => { show(status, ''); show(error, 'The upload broke off: try again.'); };
  request.send(chosen);
}

file.addEventListener('change', () => { send(file.files[0]); file.value = ''; });
for (const name of ['dragenter', 'dragover']) {
  drop.addEventListener(name, (event) => { event.preventDefault(); drop.classList.add('up-over'); });
}
for (const name of ['dragleave', 'drop']) drop.addEventListener(name, () => drop.classList.remove('up-over'));
drop.addEventListener('drop', (event) => { event.preventDefault(); send(event.dataTransfer.files[0]); });
watch('value', refresh);
refresh();
