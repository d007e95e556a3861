// The pictures to search in: what they are called, their embeddings, and the states that texts attend to.

import { fetched, fetchedJson } from './files.js';

export async function loadGallery(report) {
  const { items, states_shape } = await fetchedJson('gallery/gallery.json');
  const embeds = new Float32Array(await fetched('gallery/embeds.bin', report));
  return new Gallery(items, embeds, states_shape, report);
}

class Gallery {
  constructor(items, embeds, statesShape, report) {
    this.items = items;
    this.embeds = embeds; // those of all pictures, one after another
    this.width = embeds.length / items.length;
    this.statesShape = statesShape;
    this.report = report;
    this.known = new Map(); // states by picture: promises
  }

  // The states of pictures, each loaded when it is first asked for: those of a large gallery are many megabytes.
  states(rows) {
    return Promise.all(rows.map((row) => this.statesOf(row)));
  }

  statesOf(row) {
    if (!this.known.has(row)) {
      const states = fetched(`gallery/states/${row}.bin`, this.report).then((bytes) => new Float32Array(bytes));
      states.catch(() => this.known.delete(row)); // may be tried again
      this.known.set(row, states);
    }
    return this.known.get(row);
  }
}
