// Pictures of the model as pixels for a canvas.

const VEIL = 160; // grey level over what is not settled yet
const UNSETTLED = 0.65; // how much of the veil is seen

// Normalized pixels (3, H, W) as RGBA, H · W · 4 levels. `images` is the entry `images` of export.json.
export function toRgba(pixels, { height, width, mean, std, rescale_factor }) {
  const area = height * width;
  const levels = new Uint8ClampedArray(4 * area).fill(255);
  for (let channel = 0; channel < 3; channel += 1) {
    for (let i = 0; i < area; i += 1) {
      levels[4 * i + channel] = (pixels[channel * area + i] * std[channel] + mean[channel]) / rescale_factor;
    }
  }
  return levels;
}

// The same with a grey veil over hidden patches.
export function veiled(levels, hidden, { height, width }) {
  const side = Math.sqrt((height * width) / hidden.length); // of a patch
  const columns = width / side;
  return levels.map((level, i) => {
    const pixel = Math.floor(i / 4);
    const row = Math.floor(Math.floor(pixel / width) / side);
    const isVeiled = i % 4 < 3 && hidden[row * columns + Math.floor((pixel % width) / side)];
    return isVeiled ? level * (1 - UNSETTLED) + VEIL * UNSETTLED : level;
  });
}
