"""Draws the picture of the README: an image, its visual words, a heat map of a word, and the drawing of its caption.

python examples/overview.py --output docs/images/overview.png
"""

import argparse

import matplotlib.pyplot as plt
import numpy as np
import torch

from transformers_cbvila import CBViLAForPreTraining, CBViLAProcessor, bundled_checkpoint, explain, load_pairs
from transformers_cbvila.drawing.from_captions import draw_steps


def main(argv: list[str] | None = None) -> None:
    """Writes the picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="cbvila-scenes", help="name of a bundled checkpoint (default: %(default)s)")
    parser.add_argument("--row", type=int, default=3, help="row of the test scenes (default: %(default)s)")
    parser.add_argument("--word", help="the word of the heat map (default: the last of the caption)")
    parser.add_argument("--seed", type=int, default=0, help="of the drawing (default: %(default)s)")
    parser.add_argument("--output", required=True, metavar="FILE.png")
    options = parser.parse_args(argv)
    folder = bundled_checkpoint(options.model)
    model, processor = CBViLAForPreTraining.from_pretrained(folder).eval(), CBViLAProcessor.from_pretrained(folder)
    row = load_pairs(f"scenes[rows={options.row + 1}]", "test")[options.row]
    image, caption = row["image"], row["captions"][0]
    pixel_values = processor(images=[image], return_tensors="pt").pixel_values
    with torch.no_grad():
        codes = model.tokenize(pixel_values)[0].tolist()
        (painted,) = processor.postprocess(model.detokenize(torch.tensor([codes])))
    explanation = explain(model, processor, image, caption)
    word = options.word or explanation.words[-1]
    (((*states, drawn),),) = draw_steps(
        model, processor, [caption], seed=options.seed, num_steps=8, guidance_scale=2.0, progress=False
    )
    figure, axes = plt.subplots(1, 6, figsize=(12, 2.5), dpi=110)
    titles = (
        "an image",
        "its visual words",
        "painted from them",
        f'where "{word}" looks',
        "drawn from the caption: step 2",
        "step 8",
    )
    pictures = (image, image, painted, explanation.images[0], states[1], drawn)
    for axis, title, picture in zip(axes, titles, pictures, strict=True):
        axis.imshow(picture, alpha=0.35 if title == "its visual words" else 1)
        axis.set_title(title, fontsize=8)
        axis.axis("off")
    _write_codes(axes[1], codes, image.width)
    axes[3].imshow(explanation.map_of(word), cmap="magma", alpha=0.6, extent=(0, image.width, image.height, 0))
    figure.text(0.5, 0.04, f"“{caption}”", ha="center", fontsize=9, style="italic")
    figure.subplots_adjust(0.01, 0.1, 0.99, 0.95, wspace=0.05)
    figure.savefig(options.output)


def _write_codes(axis: plt.Axes, codes: list[int], width: int) -> None:
    """Writes the number of each patch's visual word on the patch."""
    side = int(np.sqrt(len(codes)))
    for number, code in enumerate(codes):
        x, y = number % side, number // side
        axis.text((x + 0.5) * width / side, (y + 0.5) * width / side, str(code), fontsize=5, ha="center", va="center")


if __name__ == "__main__":
    main()
