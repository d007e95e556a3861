// Marks patches: by clicks, by keys, and by drawing over them with a pointer.
const patch = (event) => document.elementFromPoint(event.clientX, event.clientY)?.closest('.mark');
const mark = (button, on) => button.setAttribute('aria-pressed', on);
let drawing = null;
element.addEventListener('pointerdown', (event) => {
  const button = event.target.closest('.mark');
  if (!button) return;
  event.preventDefault();
  button.focus();
  drawing = button.getAttribute('aria-pressed') !== 'true';
  mark(button, drawing);
});
element.addEventListener('pointermove', (event) => {
  const button = drawing === null ? null : patch(event);
  if (button && element.contains(button)) mark(button, drawing);
});
window.addEventListener('pointerup', () => { drawing = null; });
element.addEventListener('keydown', (event) => {
  const button = event.target.closest('.mark');
  if (!button || (event.key !== ' ' && event.key !== 'Enter')) return;
  event.preventDefault();
  mark(button, button.getAttribute('aria-pressed') !== 'true');
});
