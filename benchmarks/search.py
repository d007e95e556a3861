"""Times a search as people wait for it, and indexing a folder of pictures for the first time, unchanged, and changed.

Generated pictures (seeded), the bundled model. Seconds are those of the clock, in which other processes take part, and
in brackets those of the CPU. The gallery is searched from disk.
"""

import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from large_gallery import GeneratedImages, format_seconds, now
from measuring import parser, positive, show

from transformers_cbvila import CBViLARetriever

TEXT = "a red circle"
ROUNDS = 9
MODES = {
    "by similarity": {},
    "re-ranking 64": {"rerank_k": 64},
    "half of them filtered out": {"filter": lambda row: row["number"] % 2 == 0},
    "near-duplicates folded": {"fold_duplicates": 0.99},
}


def taken_by(task: Callable[[], object]) -> np.ndarray:
    """Returns the wall and the CPU time of a task."""
    start = now()
    task()
    return now() - start


def write_pictures(folder: Path, count: int) -> GeneratedImages:
    """Writes generated pictures as PNG files; returns more of them than it wrote."""
    folder.mkdir()
    images = GeneratedImages(2 * count)
    for number in range(count):
        images[number].save(folder / f"{number:06d}.png")
    return images


def change(folder: Path, images: GeneratedImages) -> int:
    """Replaces one picture in a hundred, and moves as many; returns how many were replaced."""
    files = sorted(folder.glob("*.png"))
    replaced, moved = files[::100], files[1::100]
    for number, file in enumerate(replaced):
        images[len(files) + number].save(file)
    (folder / "moved").mkdir()
    for file in moved:
        file.replace(folder / "moved" / file.name)
    return len(replaced)


def time_search(retriever: CBViLARetriever) -> dict[str, str]:
    """Returns what each kind of search takes, whose rounds alternate."""
    taken: dict[str, list[np.ndarray]] = {name: [] for name in MODES}
    for _ in range(ROUNDS):
        for name, options in MODES.items():
            taken[name].append(taken_by(lambda options=options: retriever.search(text=TEXT, **options)))
    return {f"search {name}": _milliseconds(np.median(values, axis=0)) for name, values in taken.items()}


def _milliseconds(taken: np.ndarray) -> str:
    return "{:,.0f} ms ({:,.0f} CPU-ms)".format(*(1000 * taken))


def time_folder(retriever: CBViLARetriever, root: Path, count: int) -> dict[str, str]:
    """Returns what indexing a folder takes."""
    images, options = write_pictures(root / "pictures", count), {"folder": root / "index", "progress": False}
    first, unchanged = (taken_by(lambda: retriever.index(root / "pictures", **options)) for _ in range(2))
    replaced = change(root / "pictures", images)
    changed = taken_by(lambda: retriever.index(root / "pictures", **options))
    return {
        f"index {count:,} pictures": format_seconds(first),
        "the same, unchanged": format_seconds(unchanged),
        f"{replaced:,} replaced, {replaced:,} moved": format_seconds(changed),
    }


def main() -> None:
    """Measures and prints the results."""
    arguments = parser(__doc__, "python benchmarks/search.py --pictures 100 --gallery 500")
    arguments.add_argument("--pictures", type=positive, default=1000, metavar="N", help="of the folder; default 1,000")
    arguments.add_argument("--gallery", type=positive, default=10_000, metavar="M", help="searched; default 10,000")
    options = arguments.parse_args()
    torch.set_num_threads(options.threads)
    retriever = CBViLARetriever.from_pretrained("cbvila-tiny", device="cpu")
    with tempfile.TemporaryDirectory() as root:
        folder = time_folder(retriever, Path(root), options.pictures)
        metadata = [{"number": number} for number in range(options.gallery)]
        gallery = {"folder": Path(root) / "gallery", "progress": False, "metadata": metadata}
        retriever.index(GeneratedImages(options.gallery), **gallery)
        searched = time_search(retriever)
    print(f"{options.gallery:,} pictures searched, {options.threads} thread(s); medians of {ROUNDS} rounds")
    show(folder | searched)


if __name__ == "__main__":
    main()
