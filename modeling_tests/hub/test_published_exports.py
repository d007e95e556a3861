"""What lies in the folder `onnx` of a checkpoint is published with it, and its card shows the figures."""

import json

import pytest
from publishable import save_checkpoint

from transformers_cbvila import CBViLAForPreTraining
from transformers_cbvila.hub.cards import render_card
from transformers_cbvila.hub.checking import find_checkpoint
from transformers_cbvila.hub.facts import collect_facts
from transformers_cbvila.hub.staging import stage
from transformers_cbvila.hub.uploading import upload

PARITY = {
    "data": "scenes",
    "split": "test",
    "rows": 1000,
    "bytes": {"onnx": 8_000_000, "int8": 2_400_000},
    "milliseconds_per_row": {"torch": 9.06, "onnx": 4.04, "int8": 3.0},
    "largest_difference": {"onnx": {"matching.itm_logits": 2e-6}, "int8": {"a": 0.1, "b": 0.25}},
    "identical_codes": {"onnx": 1.0, "int8": 0.9875},
    "recall": {
        form: {
            "text_retrieval_r1": recall,
            "text_retrieval_r10": recall + 0.25,
            "image_retrieval_r1": recall / 2,
            "image_retrieval_r10": recall / 2 + 0.25,
        }
        for form, recall in (("torch", 0.5), ("onnx", 0.5), ("int8", 0.48))
    },
}
TABLE = """\
|  | torch | ONNX | ONNX, int8 |
| --- | --- | --- | --- |
| graphs, MB | – | 8.0 | 2.4 |
| ms for each row | 9.1 | 4.0 | 3.0 |
| largest difference of an output | – | 2.0e-06 | 2.5e-01 |
| visual words as in torch | – | 100.00 % | 98.75 % |
| image → text R@1 | 50.00 % | 50.00 % | 48.00 % |
| image → text R@10 | 75.00 % | 75.00 % | 73.00 % |
| text → image R@1 | 25.00 % | 25.00 % | 24.00 % |
| text → image R@10 | 50.00 % | 50.00 % | 49.00 % |
"""


@pytest.fixture
def exported(tmp_path):
    folder = save_checkpoint(CBViLAForPreTraining, tmp_path / "model")
    (folder / "onnx").mkdir()
    graphs = {"matching": {"file": "matching.onnx", "int8_file": "matching_int8.onnx"}}
    (folder / "onnx" / "export.json").write_text(json.dumps({"graphs": graphs}))
    for name in ("matching.onnx", "matching.onnx.data", "matching_int8.onnx", "tokenizer.json", "secret.txt"):
        (folder / "onnx" / name).write_bytes(b"x" * 9)
    return folder


def card_of(folder, facts):
    checkpoint = find_checkpoint(folder)
    return render_card(checkpoint, "org/name", collect_facts(checkpoint, facts))


def test_card_shows_the_parity_of_an_export(exported, facts):
    (exported / "onnx" / "parity.json").write_text(json.dumps(PARITY))
    card = card_of(exported, facts)
    _, _, section = card.partition("\n\n## ONNX graphs\n\n")
    assert section.startswith("The folder `onnx` has") and "Measured on 1,000 rows of scenes, test, on one" in section
    assert f"\n\n{TABLE}\n## What it cannot do" in section


def test_card_says_that_an_export_was_not_measured(exported, facts):
    assert "was not measured.\n\n## What it cannot do" in card_of(exported, facts)
    (exported / "onnx" / "export.json").unlink()
    assert "ONNX" not in card_of(exported, facts)


def test_export_is_published_with_its_model(exported, tmp_path, hub, api):
    target = tmp_path / "staged"
    target.mkdir()
    stage(find_checkpoint(exported), "---\nlicense: mit\n---\n", target)
    names = {path.name for path in (target / "onnx").iterdir()}
    assert names == {"export.json", "matching.onnx", "matching.onnx.data", "matching_int8.onnx", "tokenizer.json"}
    upload(api, target, "org/x")
    files = hub.repositories["org/x"].files
    assert {f"onnx/{name}" for name in names} <= set(files) and files["onnx/matching.onnx"] == b"x" * 9
