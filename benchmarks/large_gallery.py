"""Measures two-stage retrieval in a large gallery, in both directions: encode, shortlist, match k candidates.

Generated images and texts of 8 to 24 tokens (seeded), the bundled model of hidden size 128. Everything is stored in
the folder, so that the same command resumes an interrupted run; what is printed is of the current run. At the end the
scores of some pairs are compared with those of a separate pass.
"""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from measuring import parser, peak_memory, positive, show
from PIL import Image
from torch.testing import assert_close

from transformers_cbvila import CBViLAForImageTextRetrieval, CBViLAProcessor, bundled_checkpoint
from transformers_cbvila.model.losses_cbvila import matching_scores
from transformers_cbvila.retrieval.encoding import GalleryEncoder
from transformers_cbvila.retrieval.gallery_writing import store_gallery
from transformers_cbvila.retrieval.reranking import TwoStageRetrieval, rerank
from transformers_cbvila.retrieval.shards import read_shards

CHECKED = 64  # pairs
SIDE, CELLS = 64, 4


class GeneratedImages(Sequence[Image.Image]):
    """Images of coloured cells, each generated from its number when it is read.

    Args:
        count: How many.
    """

    def __init__(self, count: int) -> None:
        self.size = count

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, row: Any) -> Any:  # one row: slices are not needed
        cells = np.random.default_rng((0, row)).integers(0, 256, (CELLS, CELLS, 3), dtype=np.uint8)
        return Image.fromarray(cells).resize((SIDE, SIDE), Image.Resampling.NEAREST)


def draw_texts(count: int, words: Sequence[str]) -> list[str]:
    """Returns random texts of 6 to 22 words, which are 8 to 24 tokens."""
    draws = np.random.default_rng(1)
    return [" ".join(draws.choice(words, draws.integers(6, 23))) for _ in range(count)]


def whole_words(processor: CBViLAProcessor) -> list[str]:
    """Returns the words of a vocabulary that are single tokens."""
    return sorted(token for token in processor.tokenizer.get_vocab() if token.isascii() and token.isalpha())


@torch.no_grad()
def check(
    model: CBViLAForImageTextRetrieval,
    processor: CBViLAProcessor,
    images: Sequence[Image.Image],
    texts: Sequence[str],
    found: TwoStageRetrieval,
) -> float:
    """Returns the largest difference between scores and those of the same pairs in a separate pass."""
    draws, (rows, scores, _) = torch.Generator().manual_seed(2), found.images_of_texts
    if len(rows) != len(texts) or len(found.texts_of_images.rows) != len(images):
        raise RuntimeError(
            f"{len(rows):,} of {len(texts):,} texts and {len(found.texts_of_images.rows):,} of {len(images):,} images "
            "were searched."
        )
    ours, own = [], []
    for _ in range(CHECKED):
        text = int(torch.randint(len(rows), (), generator=draws))
        place = int(torch.randint(rows.shape[1], (), generator=draws))
        inputs = processor(images=[images[int(rows[text, place])]], text=[texts[text]], return_tensors="pt")
        ours.append(scores[text, place])
        own.append(matching_scores(model(**inputs).itm_logits)[0])
    assert_close(torch.stack(ours), torch.stack(own), atol=1e-5, rtol=0)
    return float((torch.stack(ours) - torch.stack(own)).abs().max())


def written(folder: Path) -> int:
    """Returns how many rows a folder has."""
    return sum(map(len, read_shards(folder)))


def now() -> np.ndarray:
    """Returns wall and CPU time; on a shared machine only the latter measures the work."""
    return np.array([time.perf_counter(), time.process_time()])


def format_seconds(taken: np.ndarray) -> str:
    """Formats wall and CPU time."""
    return "{:,.1f} s ({:,.1f} CPU-seconds)".format(*taken)


def main() -> None:
    """Measures and prints the results."""
    arguments = parser(__doc__, "python benchmarks/large_gallery.py --images 200 --texts 1000 --output_dir runs/small")
    arguments.add_argument("--images", type=positive, default=5000, metavar="M", help="default 5,000")
    arguments.add_argument("--texts", type=positive, default=25000, metavar="T", help="default 25,000")
    arguments.add_argument("--k", type=positive, default=256, metavar="K", help="candidates per query; default 256")
    arguments.add_argument("--output_dir", type=Path, default=Path("runs/large-gallery"), metavar="FOLDER")
    options = arguments.parse_args()
    torch.set_num_threads(options.threads)
    source = bundled_checkpoint("cbvila-tiny")
    model = CBViLAForImageTextRetrieval.from_pretrained(source).eval()
    processor = CBViLAProcessor.from_pretrained(source)
    images, texts = GeneratedImages(options.images), draw_texts(options.texts, whole_words(processor))
    folders = {name: options.output_dir / name for name in ("images", "texts", "matches")}
    before = {name: written(folder) for name, folder in folders.items()}
    clocks = [now()]
    encoded_images = store_gallery(folders["images"], GalleryEncoder(model, processor, "images"), images)
    clocks.append(now())
    encoded_texts = store_gallery(folders["texts"], GalleryEncoder(model, processor, "texts"), texts)
    clocks.append(now())
    found = rerank(model, encoded_images, encoded_texts, options.k, folder=folders["matches"])
    clocks.append(now())
    taken = [after - start for start, after in zip(clocks, clocks[1:], strict=False)]
    done = {name: written(folder) - before[name] for name, folder in folders.items()}
    print(
        f"{options.images:,} images x {options.texts:,} texts, k = {options.k} both ways, {options.threads} thread(s)"
    )
    show(
        {
            "images encoded": f"{done['images']:,} in {format_seconds(taken[0])}",
            "texts encoded": f"{done['texts']:,} in {format_seconds(taken[1])}",
            "pairs matched": f"{done['matches']:,} in {format_seconds(taken[2])}, both shortlists included",
            "pairs per second": "{:,.0f}, per CPU-second {:,.0f}".format(*(done["matches"] / taken[2])),
            "in all": format_seconds(np.sum(taken, axis=0)),
            "found by a run before": ", ".join(f"{before[name]:,} {name}" for name in before if before[name]) or "no",
            "peak resident": f"{peak_memory(model.device) / 2**30:.2f} GiB",
            f"{CHECKED} pairs on their own": f"differ by {check(model, processor, images, texts, found):.1e} at most",
        }
    )


if __name__ == "__main__":
    main()
