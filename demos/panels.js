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
// The server does not know by which name it was reached.
function refresh() {
  const link = element.querySelector('.up-link input');
  if (link) link.value = new URL(link.getAttribute('value'), location.href).href;
}
element.addEventListener('focusin', (event) => { if (event.target.matches('.up-link input')) event.target.select(); });
watch('value', refresh);
refresh();
