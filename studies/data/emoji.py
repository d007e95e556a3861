"""Builds the pack `emoji` from four npm packages: one concept, several artists.

The split `train` holds Noto, Twemoji and Fluent (flat), the split `test` OpenMoji, all 64 x 64 pixels on white; the
names are CLDR's, as OpenMoji's package lists them. Licences: Noto emoji Apache-2.0; Twemoji graphics (c) Twitter and
other contributors, CC BY 4.0; Fluent emoji (c) Microsoft, MIT; OpenMoji CC BY-SA 4.0; names and keywords Unicode
licence.

Downloads need `npm`, and drawing needs `rsvg-convert` (librsvg).
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from datasets import Features, Image, List, Value

from studies.data.drawings import draw_svg, encode, on_white, read_png, shrink
from studies.data.pack import options, write_pack
from studies.data.packages import files_in, npm_package, obtain

PACKAGES = {
    "noto": npm_package(
        "emoji-datasource-google", "16.0.0", "fb5fd131b362aab7a55542d2a147a79708cce0a8b1c1bbacd470172708b5c438"
    ),
    "twemoji": npm_package(
        "emoji-datasource-twitter", "16.0.0", "f64a530c63bca463bd8317fdc4615ce63a53a0c65018e4ce2d848aaba7a28877"
    ),
    "fluent": npm_package(
        "fluentui-emoji", "1.3.0", "ec892e607e854859b812c7d827801756adc19955b0ef56d4ae8afcddd19492c5"
    ),
    "openmoji": npm_package("openmoji", "17.0.0", "55ee7d13485dec86e9f38c1f3a645a13382d33ff97c0cd845ee824b0aef45e68"),
}
FOLDERS = {
    "noto": "package/img/google/64",
    "twemoji": "package/img/twitter/64",
    "fluent": "package/icons/flat",
    "openmoji": "package/color/svg",
}
SPLITS = {"train": ("noto", "twemoji", "fluent"), "test": ("openmoji",)}
SIZE = 64
DRAWN_SIZE = 128
FEATURES = Features(
    {
        "image": Image(),
        "artist": Value("string"),
        "hexcode": Value("string"),
        "caption": Value("string"),
        "tags": List(Value("string")),
        "group": Value("string"),
        "subgroup": Value("string"),
    }
)
README = """---
pretty_name: emoji
language: en
configs:
- config_name: default
  data_files:
  - split: train
    path: train.parquet
  - split: test
    path: test.parquet
---

# emoji: one concept, several artists

Unicode's emoji without skin tones, {size} x {size} RGB on white. `train`: Noto, Twemoji and Fluent (flat). `test`:
OpenMoji, an artist that training never sees. Rows of one `hexcode` are one concept, and true matches of each other;
`caption` is its CLDR short name, unique to it, and `tags` are CLDR's keywords.

| artist | rows | package | licence of the pictures |
| --- | --- | --- | --- |
| noto | {noto} | npm `emoji-datasource-google` 16.0.0 | Apache-2.0 |
| twemoji | {twemoji} | npm `emoji-datasource-twitter` 16.0.0 | CC BY 4.0, (c) Twitter and other contributors |
| fluent | {fluent} | npm `fluentui-emoji` 1.3.0 | MIT, (c) Microsoft |
| openmoji | {openmoji} | npm `openmoji` 17.0.0 | CC BY-SA 4.0, OpenMoji |

Names and keywords: Unicode licence. Changes: drawn at {size} pixels on white. A model that is published after training
on `train` has to credit Twemoji; OpenMoji's share-alike licence goes with `test`.

Built by `python -m studies.data.emoji` of transformers-cbvila.
"""


def main(args: Sequence[str] | None = None) -> int:
    """Runs the command line."""
    chosen = options("python -m studies.data.emoji", __doc__, args)
    archives = {artist: obtain(package, chosen.packages) for artist, package in PACKAGES.items()}
    concepts = list(read_concepts(archives["openmoji"]))
    rows = {artist: list(rows_of(artist, archive, concepts)) for artist, archive in archives.items()}
    splits = {split: [row for artist in artists for row in rows[artist]] for split, artists in SPLITS.items()}
    counts = {artist: len(found) for artist, found in rows.items()}
    write_pack(chosen.output_dir, splits, FEATURES, README.format(size=SIZE, **counts))
    return 0


def read_concepts(openmoji: Path) -> Iterator[dict[str, Any]]:
    """Yields a row without artist and image for each emoji of Unicode in its neutral skin tone, in Unicode's order."""
    listed = json.loads(dict(files_in(openmoji, "package/data"))["openmoji.json"])
    for emoji in listed:
        if not emoji["skintone"] and not emoji["group"].startswith("extras"):
            yield {
                "hexcode": emoji["hexcode"],
                "caption": emoji["annotation"],
                "tags": [tag.strip() for tag in emoji["tags"].split(",") if tag.strip()],
                "group": emoji["group"],
                "subgroup": emoji["subgroups"],
            }


def rows_of(artist: str, archive: Path, concepts: Sequence[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    """Yields a row for each concept that the artist drew."""
    pictures = {picture_key(artist, name): content for name, content in files_in(archive, FOLDERS[artist])}
    for concept in concepts:
        keys = concept_keys(artist, concept)
        content = next((pictures[key] for key in keys if key in pictures), None)
        if content is not None:
            image = {"bytes": small_picture(artist, content), "path": f"{artist}-{concept['hexcode']}.png"}
            yield {**concept, "artist": artist, "image": image}


def picture_key(artist: str, name: str) -> str:
    """Returns what a picture's file is found by: Fluent's go by name, the others' by code points."""
    stem = Path(name).stem
    return stem if artist == "fluent" else _plain_code(stem)


def concept_keys(artist: str, concept: Mapping[str, Any]) -> Sequence[str]:
    """Returns the keys under which a concept's picture may be, the best first."""
    if artist != "fluent":
        return (_plain_code(concept["hexcode"]),)
    name = re.sub(r"[^a-z0-9]+", "-", concept["caption"].lower().replace("’", "")).strip("-")
    return (name, f"{name}-default")  # -default: where there are pictures of each skin tone


def _plain_code(hexcode: str) -> str:
    """Returns code points without the variation selector, which packages set differently."""
    return "-".join(part for part in hexcode.upper().split("-") if part != "FE0F")


def small_picture(artist: str, content: bytes) -> bytes:
    """Returns a package's picture as a PNG of `SIZE` pixels on white."""
    # Vectors are drawn at twice the size and halved: thin outlines keep more of their shape.
    drawn = artist in ("fluent", "openmoji")
    picture = shrink(draw_svg(content, DRAWN_SIZE), SIZE) if drawn else read_png(content)
    return encode(on_white(picture, SIZE), "PNG")


if __name__ == "__main__":
    raise SystemExit(main())
