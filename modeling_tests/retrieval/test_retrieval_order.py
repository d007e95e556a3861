"""Which rerank_k a checkpoint keeps."""

import json
from pathlib import Path

import pytest
from tiny import build, tiny_processor

from transformers_cbvila import CBViLAForImageTextRetrieval, CBViLAForPreTraining, CBViLARetriever, bundled_checkpoint
from transformers_cbvila.retrieval.retrieval_order import better_order, keep_better_order

NAMES = [f"{way}_retrieval_r{depth}" for way in ("text", "image") for depth in (1, 5, 10)]


def figures(plain, reranked, prefix="", **more):
    found = {f"{prefix}{name}": plain for name in NAMES}
    found |= {f"{prefix}{name}_reranked": reranked for name in NAMES}
    for ending, value in more.items():
        found |= {f"{prefix}{name}_{ending}": value for name in NAMES} | {f"{prefix}similarity_weight": 0.25}
    return found


@pytest.mark.parametrize(
    "found, k, chosen",
    [
        (figures(0.3, 0.4), 64, (64, 0.0)),
        (figures(0.4, 0.3), 64, (0, 0.0)),
        (figures(0.3, 0.3), 64, (0, 0.0)),
        (figures(0.3, 0.3, fitted=0.3), 64, (0, 0.0)),
        (figures(0.3, 0.4, fitted=0.4), 64, (64, 0.0)),
        (figures(0.3, 0.2, fitted=0.4), 64, (64, 0.25)),
        ({**figures(0.3, 0.3), "image_retrieval_r1_reranked": 0.4}, 16, (16, 0.0)),
        (figures(0.3, 0.4), 0, None),
        ({name: 0.3 for name in NAMES}, 64, None),
        ({}, 64, None),
    ],
)
def test_better_order_chooses_the_higher_recall(found, k, chosen):
    assert better_order(found, k) == chosen
    assert better_order({f"eval_{name}": value for name, value in found.items()}, k, "eval_") == chosen


@pytest.mark.parametrize("head", [CBViLAForPreTraining, CBViLAForImageTextRetrieval])
def test_keep_better_order_writes_the_order(tmp_path, head):
    build(head).save_pretrained(tmp_path)
    tiny_processor().save_pretrained(tmp_path)
    assert CBViLARetriever.from_pretrained(tmp_path).rerank_k == 0  # not measured
    before = json.loads((tmp_path / "config.json").read_text())
    assert "matching order the best 16" in keep_better_order(tmp_path, figures(0.3, 0.4), 16)
    assert CBViLARetriever.from_pretrained(tmp_path).rerank_k == 16
    assert "similarity alone" in keep_better_order(tmp_path, figures(0.4, 0.3), 16)
    assert CBViLARetriever.from_pretrained(tmp_path).rerank_k == 0
    after = json.loads((tmp_path / "config.json").read_text())
    assert after == {**before, "rerank_k": 0, "similarity_weight": 0.0} and list(after) == sorted(after)
    assert keep_better_order(tmp_path, figures(0.3, 0.4), 0) is None
    said = keep_better_order(tmp_path, figures(0.3, 0.2, fitted=0.5), 16)
    assert "best 16, with similarity at weight 0.25 (rerank_k=16, similarity_weight=0.25 in its" in said
    assert CBViLARetriever.from_pretrained(tmp_path).model.config.similarity_weight == 0.25


def test_keep_better_order_without_write_permission_says_so(tmp_path, monkeypatch):
    build(CBViLAForPreTraining).save_pretrained(tmp_path)

    def refuse(*args):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("transformers_cbvila.output_files.os.replace", refuse)
    said = keep_better_order(tmp_path, figures(0.3, 0.4), 16)
    assert "rerank_k=16, similarity_weight=0, which could not be kept" in said and "Permission denied" in said


def test_keep_better_order_writes_to_model_folders_only(tmp_path):
    for place in (tmp_path, tmp_path / "nowhere", "someone/on-the-hub", bundled_checkpoint("cbvila-tiny")):
        assert keep_better_order(place, figures(0.3, 0.4), 16) is None
    assert not list(tmp_path.iterdir())


def test_bundled_rerank_k_follows_its_measured_metrics():
    folder = bundled_checkpoint("cbvila-tiny")
    measured = json.loads(Path(folder, "inspection.json").read_text(encoding="utf-8"))
    sets = [found for found in measured.values() if f"{NAMES[0]}_reranked" in found]
    assert sets and [better_order(found, 64).rerank_k for found in sets].count(0) > len(sets) / 2
    assert CBViLARetriever.from_pretrained("cbvila-tiny").rerank_k == 0
