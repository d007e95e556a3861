"""Retrieval of an artist's emoji in other styles: smaller, larger, with an edge overlay, in grey.

Example:
  python -m studies.manners --model cbvila-tiny --emoji packs/emoji --artist fluent
"""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from PIL import Image
from transformers import AutoProcessor

from transformers_cbvila import CBViLAForImageTextRetrieval
from transformers_cbvila.bundled import checkpoint_source
from transformers_cbvila.data.distortions import inked
from transformers_cbvila.data.sources import load_pairs
from transformers_cbvila.retrieval.measure import measure_gallery

from .artists import split_by_artist
from .table import markdown

METRICS = tuple(f"{way}_retrieval_r{k}" for way in ("text", "image") for k in (1, 10))


def scaled(image: Image.Image, share: float) -> Image.Image:
    """Returns an image of the same size with its content `share` times as large, centred."""
    width, height = image.size
    drawn = image.resize((round(width * share), round(height * share)), Image.Resampling.BICUBIC)
    view = Image.new("RGB", image.size, image.getpixel((0, 0)))
    view.paste(drawn, ((width - drawn.width) // 2, (height - drawn.height) // 2))
    return view


STYLES: dict[str, Callable[[Image.Image], Image.Image]] = {
    "as it is": lambda image: image,
    "larger, 1.25": lambda image: scaled(image, 1.25),
    "smaller, 0.8": lambda image: scaled(image, 0.8),
    "inked": inked,
    "inked and smaller": lambda image: scaled(inked(image), 0.8),
    "grey": lambda image: image.convert("L").convert("RGB"),
}


def measure(model: Any, processor: Any, rows: Any, style: Callable[[Image.Image], Image.Image]) -> list[float]:
    """Returns METRICS of rows with `image` and `captions` in a style, by similarity, in percent."""
    images = [style(row["image"].convert("RGB")) for row in rows]
    found = measure_gallery(model, processor, images, [row["captions"][:1] for row in rows], None, progress=False)
    return [100 * found[name] for name in METRICS]


def main(argv: list[str] | None = None) -> int:
    """Measures a model on all styles and prints a table."""
    parser = argparse.ArgumentParser(
        prog="python -m studies.manners", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="cbvila-tiny", help="folder or name of a model (default: %(default)s)")
    parser.add_argument("--emoji", required=True, help="folder of the emoji (Parquet, with a column 'artist')")
    parser.add_argument("--artist", default="fluent", help="artist of the emoji to retrieve (default: %(default)s)")
    options = parser.parse_args(argv)
    source = checkpoint_source(options.model)
    model, processor = CBViLAForImageTextRetrieval.from_pretrained(source), AutoProcessor.from_pretrained(source)
    with TemporaryDirectory() as folder:
        rows = load_pairs(str(split_by_artist(options.emoji, [], options.artist, Path(folder))), "test")
        measured = [[name, *measure(model, processor, rows, style)] for name, style in STYLES.items()]
    head = [options.artist, "TR@1 %", "TR@10 %", "IR@1 %", "IR@10 %"]
    print(markdown(head, [[name, *(f"{value:.1f}" for value in values)] for name, *values in measured]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
