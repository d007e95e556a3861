// Search in two stages: found by similarity, ordered anew by matching.

const MAX_LENGTH = 30; // tokens of a text
const BATCH = 16; // pairs that are matched at a time

// The pictures that fit a text best, at most `shown` of them, best first, as { row, score, probability }.
// `probability` is null where the checkpoint has none.
export async function search(text, { graphs, texts, gallery }, shown) {
  const options = graphs.description.retrieval;
  const inputs = texts.encode(text, MAX_LENGTH);
  const encoded = await graphs.run('text_encoder', inputs);
  const cosines = gallery.items.map((_, row) => cosine(encoded.text_embeds.data, gallery, row));
  const candidates = graphs.has('matching') ? options.rerank_k : 0;
  const rows = bestFirst([...cosines.keys()], cosines).slice(0, Math.max(shown, candidates));
  let scores = rows.map((row) => cosines[row]);
  if (candidates) {
    const beside = options.similarity_weight * options.similarity_scale;
    const matched = await matching(rows, { ...inputs, ...encoded }, graphs, gallery);
    scores = rows.map((row, place) => matched[place] + beside * cosines[row]);
  }
  const isCalibrated = options.match_calibration && candidates === options.rerank_k;
  const order = bestFirst([...rows.keys()], scores).slice(0, shown);
  return order.map((place) => ({
    row: rows[place],
    score: scores[place],
    probability: isCalibrated ? probability(scores[place], options.match_calibration) : null,
  }));
}

function cosine(embed, gallery, row) {
  let sum = 0;
  for (let i = 0, start = row * gallery.width; i < gallery.width; i += 1) sum += embed[i] * gallery.embeds[start + i];
  return sum;
}

function bestFirst(places, scores) {
  return places.sort((a, b) => scores[b] - scores[a]); // stable, as all sorts are today
}

// Log-odds of "matches" of a text with pictures.
async function matching(rows, encoded, graphs, gallery) {
  await gallery.states(rows); // all at once
  const found = [];
  for (let start = 0; start < rows.length; start += BATCH) {
    const batch = rows.slice(start, start + BATCH);
    const { itm_logits } = await graphs.run('matching', {
      text_states: repeated(encoded.text_states, 'float32', batch.length),
      attention_mask: repeated(encoded.attention_mask, 'int64', batch.length),
      image_states: joined(await gallery.states(batch), gallery.statesShape),
    });
    batch.forEach((_, place) => found.push(itm_logits.data[2 * place + 1] - itm_logits.data[2 * place]));
  }
  return found;
}

function repeated({ data, dims }, type, times) {
  const all = new data.constructor(times * data.length);
  for (let i = 0; i < times; i += 1) all.set(data, i * data.length);
  return { type, data: all, dims: [times, ...dims.slice(1)] };
}

function joined(states, shape) {
  const size = shape[0] * shape[1];
  const data = new Float32Array(states.length * size);
  states.forEach((each, place) => data.set(each, place * size));
  return { type: 'float32', data, dims: [states.length, ...shape] };
}

function probability(score, [slope, offset]) {
  return 1 / (1 + Math.exp(-(slope * score + offset)));
}
