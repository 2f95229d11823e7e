// Lists that are rendered by the server: what is clicked in them leaves as the event `act`, or moves the picture.
element.addEventListener('click', (event) => {
  const button = event.target.closest('button[data-act]');
  if (button) {
    const id = Number(button.closest('[data-id]').dataset.id);
    if (button.dataset.act === 'select') document.dispatchEvent(new CustomEvent('unipixel-select', { detail: id }));
    else trigger('act', { what: button.dataset.act, object_id: id });
    return;
  }
  const line = event.target.closest('.up-line svg');
  if (line) {
    const box = line.getBoundingClientRect(), total = Number(line.closest('[data-frames]').dataset.frames);
    const frame = Math.floor(total * (event.clientX - box.left) / box.width);
    document.dispatchEvent(new CustomEvent('unipixel-seek', { detail: frame }));
  }
});
element.addEventListener('change', (event) => {
  if (!event.target.matches('.up-name')) return;
  trigger('act', { what: 'rename', object_id: Number(event.target.closest('[data-id]').dataset.id), name: event.target.value });
});
async function take(link) {
  const told = element.querySelector('.up-download-told');
  Object.assign(told, { hidden: false, className: 'up-download-told up-status', textContent: 'Preparing the file…' });
  try {
    const response = await fetch(link.getAttribute('href'));
    if (!response.ok) throw new Error((await response.json()).error);
    const named = /filename="([^"]+)"/.exec(response.headers.get('content-disposition') || '');
    const file = document.createElement('a');
    file.href = URL.createObjectURL(await response.blob());
    file.download = named ? named[1] : 'download';
    file.click();
    setTimeout(() => URL.revokeObjectURL(file.href), 10000);
    told.hidden = true;
  } catch (error) {
    Object.assign(told, { className: 'up-download-told up-error', textContent: error.message || 'The download broke off.' });
  }
}
element.addEventListener('click', (event) => {
  const link = event.target.closest('a.up-download');
  if (link) { event.preventDefault(); take(link); }
});
// The server does not know by which name it was reached.
function refresh() {
  const link = element.querySelector('.up-link input');
  if (link) link.value = new URL(link.getAttribute('value'), location.href).href;
}
element.addEventListener('focusin', (event) => { if (event.target.matches('.up-link input')) event.target.select(); });
watch('value', refresh);
refresh();
