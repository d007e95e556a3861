"""Records of figures name the split that was read: none of a file, whose rows go by any name."""

import json

import pytest
from tiny import tiny_processor, tiny_rows
from tiny_quantizers import fitted_model

from transformers_cbvila.cli import main


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    fitted_model({"type": "nearest", "size": 16, "dim": 8}).save_pretrained(folder)
    tiny_processor().save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """A CSV file of pictures with captions."""
    folder, lines = tmp_path_factory.mktemp("data"), ["image,caption"]
    for number, row in enumerate(tiny_rows(4)):
        row["image"].save(folder / f"{number}.png")
        lines.append(f"{number}.png,{row['captions'][0]}")
    (folder / "pairs.csv").write_text("\n".join(lines))
    return str(folder / "pairs.csv")


@pytest.mark.parametrize(
    ("command", "given", "recorded"),
    [
        ("inspect", [], "all"),
        ("inspect", ["--split", "test[:3]"], "all[:3]"),
        ("tokenize", [], "all"),
        ("resize-codebook", [], "all"),
    ],
)
def test_record_of_a_file_names_no_split(command, given, recorded, model, table, tmp_path):
    out = tmp_path / "out"
    arguments, record = {
        "inspect": ([model, "--data", table, "--rerank_k", "0", "--output", f"{out}.json"], tmp_path / "out.json"),
        "tokenize": ([table, "--model", model, "--output_dir", str(out)], out / "tokens.json"),
        "resize-codebook": (
            [model, "--codes", "8", "--data", table, "--output_dir", str(out)],
            out / "resized.json",
        ),
    }[command]
    assert main([command, *arguments, *given]) == 0
    assert json.loads(record.read_text())["split"] == recorded
