"""Splits the emoji dataset by artist, so that test emoji are by another artist than the training emoji."""

import os
from pathlib import Path

import datasets

# For each emoji: the image, a caption that names its concept, keywords (`tags`) and the artist.
_COLUMNS = ["image", "caption", "tags", "artist"]


def split_by_artist(dataset: str | Path, train_artists: list[str], test_artist: str, folder: Path) -> Path:
    """Writes a `train` and a `test` split as Parquet, unless they exist.

    Args:
        dataset: Folder of the emoji dataset.
        train_artists: Artists of the training emoji.
        test_artist: Artist of the test emoji.
        folder: Where to write.

    Returns:
        The folder of the splits.

    Raises:
        ValueError: If the dataset does not have an artist.
    """
    target = folder / f"{'-'.join(train_artists)}--{test_artist}"
    if target.is_dir():
        return target
    rows = datasets.concatenate_datasets(
        [split.select_columns(_COLUMNS) for split in datasets.load_dataset(str(dataset)).values()]
    )
    artists = rows["artist"]
    missing = sorted({*train_artists, test_artist} - set(artists))
    if missing:
        raise ValueError(
            f"{dataset} has no pictures by {', '.join(missing)}, but by {', '.join(sorted(set(artists)))}."
        )
    unfinished = target.with_suffix(".part")
    unfinished.mkdir(parents=True, exist_ok=True)
    for split, wanted in (("train", train_artists), ("test", [test_artist])):
        chosen = [row for row, artist in enumerate(artists) if artist in wanted]
        rows.select(chosen).to_parquet(unfinished / f"{split}.parquet")
    os.replace(unfinished, target)
    return target
