// Shows the visual word of the patch that is pressed, or pointed at, and all patches that have it.
const show = (button) => {
  if (!button) return;
  const code = button.dataset.code;
  for (const other of element.querySelectorAll('.patch')) {
    other.setAttribute('aria-pressed', other === button);
    other.classList.toggle('same', other.dataset.code === code);
  }
  for (const word of element.querySelectorAll('.word')) word.hidden = word.dataset.code !== code;
};
element.addEventListener('click', (event) => show(event.target.closest('.patch')));
element.addEventListener('focusin', (event) => show(event.target.closest('.patch')));
const showFirst = () => {
  const word = element.querySelector('.word:not([hidden])');
  if (word) show(element.querySelector(`.patch[data-code="${word.dataset.code}"]`));
};
watch('value', showFirst);
showFirst();
