"""Fixtures of more than one folder."""

import json

import pytest
from PIL import Image


@pytest.fixture
def picture_folder(tmp_path):
    """An image folder as people have it: pictures and a metadata.jsonl with a column of captions."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    colours = ["red", "green", "blue", "black", "white", "yellow", "gray", "brown"]
    lines = []
    for colour in colours:
        Image.new("RGB", (20, 20), colour).save(folder / f"{colour}.png")
        lines.append(json.dumps({"file_name": f"{colour}.png", "text": f"a {colour} square"}))
    (folder / "metadata.jsonl").write_text("\n".join(lines))
    return str(folder)
