// Panels that the server renders: clicks are sent as the event `act`, or select an object or frame in the editor.
element.addEventListener('click', (event) => {
  const button = event.target.closest('button[data-act]');
  if (button) {
    const id = Number(button.closest('[data-id]').dataset.id);
    if (button.dataset.act === 'select') document.dispatchEvent(new CustomEvent('unipixel-select', { detail: id }));
    else trigger('act', { action: button.dataset.act, object_id: id });
    return;
  }
  const row = event.target.closest('.up-timeline-row svg');
  if (row) {
    const box = row.getBoundingClientRect(), total = Number(row.closest('[data-frames]').dataset.frames);
    const frame = Math.floor(total * (event.clientX - box.left) / box.width);
    document.dispatchEvent(new CustomEvent('unipixel-seek', { detail: frame }));
  }
});
element.addEventListener('change', (event) => {
  if (!event.target.matches('.up-name')) return;
  trigger('act', { action: 'rename', object_id: Number(event.target.closest('[data-id]').dataset.id), name: event.target.value });
});
async function download(link) {
  const status = element.querySelector('.up-download-status');
  Object.assign(status, { hidden: false, className: 'up-download-status up-status', textContent: 'Preparing the file…' });
  try {
    const response = await fetch(link.getAttribute('href'));
    if (!response.ok) throw new Error((await response.json()).error);
    const match = /filename="([^"]+)"/.exec(response.headers.get('content-disposition') || '');
    const file = document.createElement('a');
    file.href = URL.createObjectURL(await response.blob());
    file.download = match ? match[1] : 'download';
    file.click();
    setTimeout(() => URL.revokeObjectURL(file.href), 10000);
    status.hidden = true;
  } catch (error) {
    Object.assign(status, { className: 'up-download-status up-error', textContent: error.message || 'The download was interrupted.' });
  }
}
element.addEventListener('click', (event) => {
  const link = event.target.closest('a.up-download');
  if (link) { event.preventDefault(); download(link); }
});
// The link becomes absolute here, since the server does not know its public address.
function refresh() {
  const link = element.querySelector('.up-link input');
  if (link) link.value = new URL(link.getAttribute('value'), location.href).href;
}
element.addEventListener('focusin', (event) => { if (event.target.matches('.up-link input')) event.target.select(); });
watch('value', refresh);
refresh();
