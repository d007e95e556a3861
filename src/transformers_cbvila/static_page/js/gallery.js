// The pictures to search in: what they are called, their embeddings, and the states that texts attend to.

import { fetched, fetchedJson } from './files.js';

export async function loadGallery(report) {
  const { items, states_shape } = await fetchedJson('gallery/gallery.json');
  const embeds = new Float32Array(await fetched('gallery/embeds.bin', report));
  const states = states_shape ? new Float32Array(await fetched('gallery/states.bin', report)) : null;
  return { items, embeds, width: embeds.length / items.length, states, statesShape: states_shape };
}
