// Reports the button that was pressed, with its data, as a click.
element.addEventListener('click', (event) => {
  const button = event.target.closest('[data-number], [data-text]');
  if (button) trigger('click', { ...button.dataset });
});
