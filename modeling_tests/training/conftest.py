"""A checkpoint and data for all tasks."""

import json

import pytest
from tiny import half_image, pretraining_model, tiny_processor

COLOURS = ("red", "green", "blue", "grey")


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory):
    """A folder with a pretraining checkpoint and its processor."""
    folder = tmp_path_factory.mktemp("pretrained")
    pretraining_model().save_pretrained(folder)
    tiny_processor().save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A file with columns for every task."""
    folder = tmp_path_factory.mktemp("data")
    lines = []
    for i, colour in enumerate(COLOURS * 2):
        name = f"{colour}{i % 2}.png"
        half_image(colour, ("top", "left")[i % 2], 20 + i).save(folder / name)
        line = {"image": name, "other": name, "captions": [f"{colour} half", f"a {colour}"], "question": "is it red ?"}
        line |= {"answers": ["yes", "yes", "no"] if colour == "red" else ["no"], "hypothesis": f"it is {colour}"}
        line |= {"label": ("entailment", "neutral")[i % 2], "true": i % 3 == 0, "set": f"s{i % 4}"}
        lines.append(json.dumps(line))
    (folder / "rows.jsonl").write_text("\n".join(lines))
    return str(folder / "rows.jsonl")
