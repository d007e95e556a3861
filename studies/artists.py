"""The emoji pack split by artist: who is learned from, and who is new."""

import os
from pathlib import Path

import datasets

# A pack of emoji has an image, a caption that names its concept, keywords (`tags`) and the artist of every picture.
_COLUMNS = ["image", "caption", "tags", "artist"]


def split_by_artist(pack: str | Path, train_artists: list[str], test_artist: str, folder: Path) -> Path:
    """Writes a `train` and a `test` split of the pack as Parquet, unless they are there, and returns their folder.

    Raises:
        ValueError: An artist isn't in the pack.
    """
    target = folder / f"{'-'.join(train_artists)}--{test_artist}"
    if target.is_dir():
        return target
    rows = datasets.concatenate_datasets(
        [split.select_columns(_COLUMNS) for split in datasets.load_dataset(str(pack)).values()]
    )
    artists = rows["artist"]
    missing = sorted({*train_artists, test_artist} - set(artists))
    if missing:
        raise ValueError(f"{pack} has no pictures by {', '.join(missing)}, but by {', '.join(sorted(set(artists)))}.")
    unfinished = target.with_suffix(".part")
    unfinished.mkdir(parents=True, exist_ok=True)
    for split, wanted in (("train", train_artists), ("test", [test_artist])):
        chosen = [row for row, artist in enumerate(artists) if artist in wanted]
        rows.select(chosen).to_parquet(unfinished / f"{split}.parquet")
    os.replace(unfinished, target)  # whole or not at all
    return target
