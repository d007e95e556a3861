// Pictures drawn from captions: visual words are decoded in a few steps, the surest first (MaskGIT, arXiv 2202.04200).

import { random } from './random.js';

const MAX_LENGTH = 30; // tokens of a caption

// Draws a picture, and yields after each step { codes, hidden, pixels }: the visual words so far, which of them are
// not settled yet (1) or are (0), and the picture (3, H, W) that they give, normalized as the model has it.
// `options` are `steps`, `seed`, `guidance` (1 for none), `temperature` of the visual words (0 takes the likeliest),
// and `choiceTemperature` of the choice of those to keep.
export async function* drawn(caption, { graphs, texts }, options) {
  const { steps, guidance, choiceTemperature } = options;
  const [, patches, books = 1] = graphs.description.graphs.drawing.inputs.codebook_indices;
  const { book_sizes: sizes, sequential } = graphs.description.drawing;
  const captioned = await encoded(graphs, texts.encode(caption, MAX_LENGTH));
  const empty = guidance === 1 ? null : await encoded(graphs, texts.empty());
  const next = random(options.seed);
  const counts = hiddenCounts(patches, steps);
  const codes = new Array(patches * books).fill(0);
  let hidden = new Uint8Array(patches).fill(1);
  for (let step = 0; step < steps; step += 1) {
    const sums = new Array(patches).fill(0);
    let logits = null;
    for (let book = 0; book < books; book += 1) {
      if (logits === null || sequential) { // a later book depends on the codes of the books before
        logits = await guided(graphs, captioned, empty, inputsOf(graphs, codes, hidden), guidance);
      }
      const sampled = sampleBook(logits, sizes, book, patches, options.temperature, next);
      sampled.codes.forEach((code, patch) => { if (hidden[patch]) codes[patch * books + book] = code; });
      sampled.scores.forEach((score, patch) => { sums[patch] += score; });
    }
    const noise = choiceTemperature * (1 - (step + 1) / steps);
    const confidence = sums.map((sum) => sum / books + (noise > 0 ? noise * gumbel(next) : 0));
    hidden = leastConfident(confidence, hidden, counts[step]);
    const seen = inputsOf(graphs, codes, new Uint8Array(patches));
    yield { codes: [...codes], hidden, pixels: (await graphs.run('drawing', { ...captioned, ...seen })).pixel_values.data };
  }
}

// How many of `patches` stay hidden after each step, by the cosine schedule; one less than before at least.
export function hiddenCounts(patches, steps) {
  const counts = [];
  for (let step = 1, left = patches; step <= steps; step += 1) {
    // rounded first: the cosine of π/3 is 0.5000000000000001
    const wanted = Math.ceil(Math.round(patches * Math.cos((Math.PI * step) / (2 * steps)) * 1e9) / 1e9);
    left = step < steps ? Math.max(0, Math.min(wanted, left - 1)) : 0;
    counts.push(left);
  }
  return counts;
}

async function encoded(graphs, inputs) {
  const { text_states } = await graphs.run('text_encoder', inputs);
  return { ...inputs, text_states: { type: 'float32', data: text_states.data, dims: text_states.dims } };
}

function inputsOf(graphs, codes, hidden) {
  const dims = [1, ...graphs.description.graphs.drawing.inputs.codebook_indices.slice(1)];
  return {
    codebook_indices: { type: 'int64', data: BigInt64Array.from(codes, BigInt), dims },
    bool_masked_pos: { type: 'bool', data: hidden, dims: [1, hidden.length] },
  };
}

// Logits of all books under the caption, and beyond those under an empty one by the guidance.
async function guided(graphs, captioned, empty, state, guidance) {
  const logits = (await graphs.run('drawing', { ...captioned, ...state })).code_logits.data;
  if (!empty) return logits;
  const without = (await graphs.run('drawing', { ...empty, ...state })).code_logits.data;
  return logits.map((value, i) => without[i] + guidance * (value - without[i]));
}

// Samples the code of a book for every patch; with their log-probabilities at temperature 1.
function sampleBook(logits, sizes, book, patches, temperature, next) {
  const total = (some) => some.reduce((sum, size) => sum + size, 0);
  const width = total(sizes);
  const start = total(sizes.slice(0, book));
  const codes = [];
  const scores = [];
  for (let patch = 0; patch < patches; patch += 1) {
    const part = logits.subarray(patch * width + start, patch * width + start + sizes[book]);
    const code = argmax(temperature > 0 ? part.map((value) => value / temperature + gumbel(next)) : part);
    codes.push(code);
    scores.push(logProbability(part, code));
  }
  return { codes, scores };
}

// Which hidden patches stay hidden: `count` of them, with the lowest confidence.
function leastConfident(confidence, hidden, count) {
  const places = [...hidden.keys()].filter((place) => hidden[place]);
  places.sort((a, b) => confidence[a] - confidence[b]); // stable, as all sorts are today
  const kept = new Uint8Array(hidden.length);
  places.slice(0, count).forEach((place) => { kept[place] = 1; });
  return kept;
}

function argmax(values) {
  return values.reduce((best, value, place) => (value > values[best] ? place : best), 0);
}

function logProbability(logits, code) {
  const most = Math.max(...logits);
  return logits[code] - most - Math.log(logits.reduce((sum, value) => sum + Math.exp(value - most), 0));
}

function gumbel(next) {
  return -Math.log(-Math.log(Math.max(next(), Number.MIN_VALUE)));
}
