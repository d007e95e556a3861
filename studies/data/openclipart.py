"""Builds the pack `openclipart` from Debian's package `openclipart-png`: clip art with captions.

Pictures are cropped to what is visible and put on white, 128 x 128 pixels. Which pictures there are, their split, and
their captions and keywords are in `openclipart.tsv` beside this script. They were made from the metadata in
`openclipart-svg` of the same version: the title, a short description where it adds words, and up to five keywords, or
the file's name where a whole collection shares one title; without pictures whose metadata name another licence, that
have no usable title, or that repeat a picture or a caption.

Licence: the Open Clip Art Library's pictures and their metadata are dedicated to the public domain (Creative Commons
Public Domain Dedication, as the package's copyright file says).

The download needs `apt-get`, of Debian 12 or another release with the same version of the package. Two of the pictures
are so large that this takes 6 GB of memory.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from datasets import Features, Image, List, Value

from studies.data.drawings import allowed_pixels, encode, on_white, read_png, shrink
from studies.data.pack import options, write_pack
from studies.data.packages import debian_package, files_in, obtain

PACKAGE = debian_package(
    "openclipart-png", "1:0.18+dfsg-19", "f07f1545a2970c2cf3fa339bc2405da1a95cf2b1827bfa05bf73eb1c20291c02"
)
FOLDER = "usr/share/openclipart/png"
SELECTION = Path(__file__).with_suffix(".tsv")
SIZE = 128
MARGIN = 4
MAX_PIXELS = 700_000_000  # the largest has 623 million, more than Pillow reads from unknown files
FEATURES = Features(
    {
        "image": Image(),
        "caption": Value("string"),
        "keywords": List(Value("string")),
        "category": Value("string"),
        "source_path": Value("string"),
    }
)
README = """---
pretty_name: openclipart
language: en
configs:
- config_name: default
  data_files:
  - split: train
    path: train.parquet
  - split: test
    path: test.parquet
---

# openclipart

Clip art with captions made from its own metadata: {train} pictures in `train`, {test} in `test`, {size} x {size} RGB,
cropped to what is visible, on white with a margin of {margin} pixels; JPEG (quality 90) or PNG, whichever is smaller.
`caption` is the title with a short description and keywords where they add words, `keywords` are cleaned and may be
empty, `category` is the folder and `source_path` the file in the package. About a third are computer icons.

Pictures and metadata: Open Clip Art Library, from Debian's `openclipart-png` 0.18+dfsg-19, dedicated to the public
domain (Creative Commons Public Domain Dedication).

Built by `python -m studies.data.openclipart` of transformers-cbvila.
"""


def main(args: Sequence[str] | None = None) -> int:
    """Runs the command line."""
    chosen = options("python -m studies.data.openclipart", __doc__, args)
    selection = read_selection(SELECTION)
    wanted = {row["source_path"] for rows in selection.values() for row in rows}
    images = read_images(obtain(PACKAGE, chosen.packages), wanted)
    splits = {
        split: [{**row, "image": images[row["source_path"]]} for row in rows] for split, rows in selection.items()
    }
    counts = {split: len(rows) for split, rows in splits.items()}
    write_pack(chosen.output_dir, splits, FEATURES, README.format(size=SIZE, margin=MARGIN, **counts))
    return 0


def read_selection(table: Path) -> dict[str, list[dict[str, Any]]]:
    """Returns the rows of each split, without images."""
    splits: dict[str, list[dict[str, Any]]] = {}
    for line in table.read_text(encoding="utf-8").splitlines()[1:]:
        split, path, caption, keywords = line.split("\t")
        row = {
            "caption": caption,
            "keywords": keywords.split(", ") if keywords else [],
            "category": path.rpartition("/")[0],
            "source_path": path,
        }
        splits.setdefault(split, []).append(row)
    return splits


def read_images(archive: Path, wanted: set[str]) -> Mapping[str, Mapping[str, Any]]:
    """Returns the images with these paths in the package.

    Raises:
        ValueError: One is missing.
    """
    images = {path: small_image(path, content) for path, content in files_in(archive, FOLDER) if path in wanted}
    missing = sorted(wanted - images.keys())
    if missing:
        raise ValueError(
            f"{archive} lacks {len(missing)} of {len(wanted)} pictures of {SELECTION}, first {missing[0]}"
        )
    return images


def small_image(path: str, content: bytes) -> dict[str, Any]:
    """Returns a package's picture as a pack holds it, with its name."""
    with allowed_pixels(MAX_PIXELS):
        picture = read_png(content)
        picture = picture.crop(picture.getchannel("A").getbbox())
    square = on_white(shrink(picture, SIZE - 2 * MARGIN), SIZE)
    files = {".jpg": encode(square, "JPEG", quality=90), ".png": encode(square, "PNG")}
    suffix = min(files, key=lambda suffix: len(files[suffix]))
    return {"bytes": files[suffix], "path": path.removesuffix(".png").replace("/", "__") + suffix}


if __name__ == "__main__":
    raise SystemExit(main())
