// A panel that a button opens and closes; Escape and a click elsewhere close it.
export function attachMenu(button, panel, { onOpen = () => {} } = {}) {
  button.setAttribute('aria-haspopup', 'dialog');
  button.setAttribute('aria-expanded', 'false');
  const set = (isOpen) => {
    panel.hidden = !isOpen;
    button.setAttribute('aria-expanded', String(isOpen));
    if (isOpen) onOpen();
  };
  const close = () => set(false);
  button.addEventListener('click', () => set(panel.hidden));
  document.addEventListener('pointerdown', (event) => {
    if (!panel.hidden && !panel.contains(event.target) && !button.contains(event.target)) close();
  });
  panel.addEventListener('keydown', (event) => {
    if (event.key !== 'Escape') return;
    close();
    button.focus();
  });
  return close;
}
