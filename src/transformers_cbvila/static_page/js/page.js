// The page: what a visitor presses, and what is shown.

import { start, whileLoading } from './jobs.js';
import { veiled } from './pictures.js';

const SHOWN = 12; // pictures of a search
const CHOICE_TEMPERATURE = 4.5; // as generate_images has it
const UNKNOWN = ' The model knows none of these words.';

const byId = (id) => document.getElementById(id);
const megabytes = (bytes) => (bytes / 1e6).toFixed(1);

whileLoading((loaded, total) => {
  byId('loading').hidden = false;
  byId('loading-bar').max = total;
  byId('loading-bar').value = loaded;
  byId('loading-size').textContent = `${megabytes(loaded)} of ${megabytes(total)} MB`;
}, () => { byId('loading').hidden = true; });

setUp('search', (text) => {
  start('search', { text, shown: SHOWN }, (message) => {
    if (message.error) return say('search', message.error, true);
    byId('search-found').replaceChildren(...message.found.map(hit));
    return say('search', summary(message, text));
  });
});

if (byId('draw-form')) {
  setUp('draw', (caption) => {
    const value = (id) => Number(byId(id).value);
    const options = { steps: value('draw-steps'), seed: value('draw-seed'), guidance: value('draw-guidance') };
    const asked = { caption, options: { ...options, temperature: 1, choiceTemperature: CHOICE_TEMPERATURE } };
    start('draw', asked, (message) => {
      if (message.error) return say('draw', message.error, true);
      if (message.done) return say('draw', `“${caption}” is drawn.${message.isUnknown ? UNKNOWN : ''}`);
      return showStep(message, caption);
    });
  });
  byId('draw-steps').addEventListener('input', sayNumbers);
  byId('draw-guidance').addEventListener('input', sayNumbers);
  sayNumbers();
}

byId('search-examples')?.querySelector('button').click(); // a first result, before anything is written

// A form with examples: `run` is called with the text that is asked for.
function setUp(name, run) {
  const field = byId(`${name}-text`);
  const ask = () => {
    const text = field.value.trim();
    if (!text) return say(name, 'Write something first, or press an example.', true);
    say(name, name === 'draw' ? 'Drawing …' : 'Searching …');
    return run(text);
  };
  byId(`${name}-form`).addEventListener('submit', (event) => {
    event.preventDefault();
    ask();
  });
  byId(`${name}-examples`)?.addEventListener('click', ({ target }) => {
    if (target.tagName !== 'BUTTON') return;
    field.value = target.textContent;
    ask();
  });
}

function say(name, text, isProblem = false) {
  byId(`${name}-said`).textContent = text;
  byId(`${name}-said`).classList.toggle('problem', isProblem);
}

function hit({ name, file, score, probability }, place) {
  const picture = element('img', { src: `gallery/${file}`, alt: name, loading: 'lazy' });
  const rank = element('b', { textContent: `${place + 1}. ` });
  const number = probability === null ? score.toFixed(2) : `${Math.round(100 * probability)} %`;
  return element('li', {}, element('figure', {}, picture, element('figcaption', {}, rank, number)));
}

function summary({ found, searched, seconds, isUnknown }, text) {
  const numbers = found[0].probability === null ? 'its score' : 'the probability that it matches';
  const best = `The best ${found.length} of ${searched} pictures for “${text}”, each with ${numbers}.`;
  return `${best} It took ${seconds.toFixed(1)} seconds.${isUnknown ? UNKNOWN : ''}`;
}

function showStep({ step, steps, hidden, levels, width, height }, caption) {
  const settled = `${hidden.filter((each) => !each).length} of ${hidden.length} patches settled`;
  const said = `step ${step} of ${steps}: ${settled}`;
  const pixels = new ImageData(veiled(levels, hidden, { width, height }), width, height);
  const show = (canvas) => {
    canvas.getContext('2d').putImageData(pixels, 0, 0);
    return canvas;
  };
  const choose = (button) => {
    const large = byId('draw-picture');
    Object.assign(large, { width, height, hidden: false });
    large.setAttribute('aria-label', `“${caption}” after ${said}`);
    show(large);
    byId('draw-step').textContent = said;
    const all = byId('draw-film').querySelectorAll('button');
    all.forEach((other) => other.setAttribute('aria-pressed', other === button));
  };
  const small = show(element('canvas', { width, height }));
  const button = element('button', { type: 'button', ariaLabel: `Step ${step}: ${settled}` }, small);
  button.addEventListener('click', () => choose(button));
  if (step === 1) byId('draw-film').replaceChildren();
  byId('draw-film').append(element('li', {}, button));
  choose(button);
}

function sayNumbers() {
  for (const id of ['draw-steps', 'draw-guidance']) byId(`${id}-value`).textContent = byId(id).value;
}

function element(tag, properties, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}
