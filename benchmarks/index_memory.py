"""Measures how much the resident memory grows while images are indexed into a folder.

Generated images (seeded) come one by one from a generator, so that only the retriever can keep them in memory. The
exit status is 1 if the peak is above the limit.
"""

import resource
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import torch
from large_gallery import GeneratedImages
from measuring import parser, positive, show
from PIL import Image

from transformers_cbvila import CBViLARetriever

INTERVAL = 64  # images from one measurement to the next


def resident() -> int:
    """Returns the resident memory of the process in bytes; the peak on systems that report only that."""
    status = Path("/proc/self/status")
    if not status.is_file():
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024
    line = next(line for line in status.read_text().splitlines() if line.startswith("VmRSS"))
    return int(line.split()[1]) * 1024


class MemoryWatch:
    """Yields images one by one, and records the peak memory meanwhile.

    Args:
        images: The images.
    """

    def __init__(self, images: GeneratedImages) -> None:
        self.images, self.peak = images, 0

    def __iter__(self) -> Iterator[Image.Image]:
        for number in range(len(self.images)):
            if number % INTERVAL == 0:
                self.peak = max(self.peak, resident())
            yield self.images[number]


def main() -> int:
    """Measures and prints the memory; returns 1 if it is above the limit."""
    arguments = parser(__doc__, "python benchmarks/index_memory.py --images 20000 --limit 150")
    arguments.add_argument("--images", type=positive, default=20_000, metavar="M", help="default 20,000")
    arguments.add_argument("--limit", type=positive, default=150, metavar="MB", help="default 150")
    options = arguments.parse_args()
    torch.set_num_threads(options.threads)
    retriever = CBViLARetriever.from_pretrained("cbvila-tiny")
    folder = Path(tempfile.mkdtemp())
    try:
        start = resident()
        watch = MemoryWatch(GeneratedImages(options.images))
        retriever.index(iter(watch), folder=folder / "gallery", progress=False)
        end = resident()
        found = retriever.search(text="a red circle", top_k=3)
        stored = sum(file.stat().st_size for file in (folder / "gallery").iterdir())
    finally:
        shutil.rmtree(folder)
    peak = max(watch.peak, end) - start
    print(f"{options.images:,} images indexed into a folder, {options.threads} thread(s)")
    show(
        {
            "written": f"{stored / 1e6:,.0f} MB",
            "resident at the start": f"{start / 1e6:,.0f} MB",
            "above it, at most": f"{peak / 1e6:,.0f} MB, limit {options.limit} MB",
            "above it, at the end": f"{(end - start) / 1e6:,.0f} MB",
            "found": f"{found.indices.tolist()}",
        }
    )
    return int(peak > options.limit * 1e6)


if __name__ == "__main__":
    sys.exit(main())
