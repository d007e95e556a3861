// Runs the model beside the page, so that the page stays alive: takes { id, task, … } and posts what comes of it.

import { drawn } from './draw.js';
import { fetchedJson } from './files.js';
import { loadGallery } from './gallery.js';
import { toRgba } from './pictures.js';
import { Graphs } from './runtime.js';
import { search } from './search.js';
import { Texts } from './texts.js';

const newest = {}; // id of the newest job of each task
let model = null; // a promise
let gallery = null;
let jobs = Promise.resolve(); // one after another: the runtime computes one at a time

const report = (name, loaded, total) => postMessage({ loading: { name, loaded, total } });

const TASKS = {
  async search({ id, text, shown }) {
    gallery ??= loadGallery(report).catch((error) => { gallery = null; throw error; });
    const parts = { ...(await loaded()), gallery: await gallery };
    const start = performance.now();
    const hits = await search(text, parts, shown);
    const found = hits.map((hit) => ({ ...hit, ...parts.gallery.items[hit.row] }));
    const seconds = (performance.now() - start) / 1000;
    const isUnknown = parts.texts.isUnknown(text);
    postMessage({ id, found, searched: parts.gallery.items.length, seconds, isUnknown });
  },

  async draw({ id, caption, options }) {
    const { graphs, texts } = await loaded();
    const { images } = graphs.description;
    let step = 0;
    for await (const { hidden, pixels } of drawn(caption, { graphs, texts }, options)) {
      step += 1;
      const size = { width: images.width, height: images.height };
      postMessage({ id, step, steps: options.steps, hidden, levels: toRgba(pixels, images), ...size });
      await new Promise((done) => { setTimeout(done); }); // messages come in only now
      if (newest.draw !== id) return;
    }
    postMessage({ id, done: true, isUnknown: texts.isUnknown(caption) });
  },
};

function loaded() {
  model ??= load().catch((error) => { model = null; throw error; });
  return model;
}

async function load() {
  const [description, tokenizer] = await Promise.all(['model/export.json', 'model/tokenizer.json'].map(fetchedJson));
  return { graphs: new Graphs(description, report), texts: new Texts(tokenizer, description.texts) };
}

onmessage = ({ data }) => {
  newest[data.task] = data.id;
  jobs = jobs.then(async () => {
    if (newest[data.task] !== data.id) return; // another one was asked for since
    try {
      await TASKS[data.task](data);
    } catch (error) {
      postMessage({ id: data.id, error: error.message });
    }
  });
};
