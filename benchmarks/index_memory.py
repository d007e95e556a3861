"""How much memory indexing pictures into a folder takes above what the process has before it starts.

Drawn pictures (seeded) come one by one from a generator, so that nothing but the retriever can hold them. What is
counted is the resident memory of the process, at its highest and at the end; the limit makes the exit status.
"""

import resource
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import torch
from large_gallery import Pictures
from measuring import parser, positive, show

from transformers_cbvila import CBViLARetriever

LOOKED_AT = 64  # how many pictures go by from one look to the next


def resident() -> int:
    """Bytes of the process that are in memory now; where only the most ever is known, these."""
    status = Path("/proc/self/status")
    if not status.is_file():
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024
    line = next(line for line in status.read_text().splitlines() if line.startswith("VmRSS"))
    return int(line.split()[1]) * 1024


class Watch:
    """Pictures one by one, and the most memory that was seen while they went by."""

    def __init__(self, pictures: Pictures):
        self.pictures, self.peak = pictures, 0

    def __iter__(self) -> Iterator:
        for number in range(len(self.pictures)):
            if number % LOOKED_AT == 0:
                self.peak = max(self.peak, resident())
            yield self.pictures[number]


def main() -> int:
    arguments = parser(__doc__, "python benchmarks/index_memory.py --images 20000 --limit 150")
    arguments.add_argument("--images", type=positive, default=20_000, metavar="M", help="default 20,000")
    arguments.add_argument("--limit", type=positive, default=150, metavar="MB", help="default 150")
    options = arguments.parse_args()
    torch.set_num_threads(options.threads)
    retriever = CBViLARetriever.from_pretrained("cbvila-tiny")
    folder = Path(tempfile.mkdtemp())
    try:
        start = resident()
        watch = Watch(Pictures(options.images))
        retriever.index(iter(watch), folder=folder / "gallery", progress=False)
        end = resident()
        found = retriever.search(text="a red circle", top_k=3)
        stored = sum(file.stat().st_size for file in (folder / "gallery").iterdir())
    finally:
        shutil.rmtree(folder)
    peak = max(watch.peak, end) - start
    print(f"{options.images:,} pictures indexed into a folder, {options.threads} thread(s)")
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
