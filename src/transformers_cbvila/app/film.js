// Plays the steps of a drawing once, and shows the step that is pressed.
let timer = null;
const frames = () => [...element.querySelectorAll('.frame')];
const show = (number) => {
  frames().forEach((frame, place) => { frame.hidden = place !== number; });
  element.querySelectorAll('[data-step]').forEach((step, place) => {
    step.setAttribute('aria-pressed', place === number);
  });
};
const play = () => {
  clearInterval(timer);
  const last = frames().length - 1;
  if (last < 0 || window.matchMedia('(prefers-reduced-motion: reduce)').matches) return;
  let number = 0;
  show(number);
  timer = setInterval(() => {
    number += 1;
    show(number);
    if (number >= last) clearInterval(timer);
  }, 320);
};
element.addEventListener('click', (event) => {
  if (event.target.closest('.again')) return play();
  const step = event.target.closest('[data-step]');
  if (!step) return;
  clearInterval(timer);
  show(Number(step.dataset.step));
});
watch('value', play);
play();
