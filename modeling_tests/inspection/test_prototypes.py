"""What prototypes gather: hand values, the metrics' floor and limits, and the page."""

import numpy as np
import pytest
import torch
from tiny import pretraining_model, tiny_processor, tiny_rows

from transformers_cbvila.cli import main
from transformers_cbvila.inspection.prototypes import Gathered, gather, prototypes_of
from transformers_cbvila.pages.codebook_page import write_codebook_page
from transformers_cbvila.pages.prototype_section import prototypes_section

CODIS = {"itc": {"weight": 0}, "codis": {"num_codes": 3}}
NO_CODEBOOK = {**CODIS, "pixel": {"weight": 0}, "mim": {"weight": 0}, "commitment": {"weight": 0}}
IMAGES = np.array([[0.9, 0.1, 0.0], [0.8, 0.3, 0.0], [0.1, 0.7, 0.0], [0.6, 0.2, 0.0]])
TEXTS = np.array([[0.5, 0.1, 0.0], [0.1, 0.4, 0.0], [0.0, 0.9, 0.0], [0.7, 0.6, 0.0]])


def test_metrics_by_hand():
    """Images go to 0, 0, 1, 0 and captions to 0, 1, 1, 0: three of four pairs agree, by chance 3/8 + 1/8."""
    metrics = Gathered(IMAGES, TEXTS).metrics()
    assert metrics["prototype_usage"] == pytest.approx(2 / 3)
    assert metrics["prototype_agreement"] == 0.75 and metrics["prototype_agreement_floor"] == pytest.approx(0.5)
    assert metrics["prototype_agreement_low"] <= 0.75 <= metrics["prototype_agreement_high"]
    share = np.array([5, 3]) / 8
    assert metrics["prototype_perplexity"] == pytest.approx(np.exp(-(share * np.log(share)).sum()))


def test_gather_compares_embeddings_with_the_codes():
    model, processor, rows = pretraining_model(objectives=CODIS), tiny_processor(), tiny_rows(5)
    found = gather(model, processor, rows, batch_size=2, progress=False)
    inputs = processor(
        images=[row["image"] for row in rows],
        text=[row["captions"][0] for row in rows],
        return_tensors="pt",
        padding=True,
    )
    with torch.no_grad():
        embeds = model.cbvila(**inputs, return_dict=True).image_embeds
    codes = model.objectives["codis"].codes.detach()
    np.testing.assert_allclose(found.images, embeds @ codes.T, atol=1e-5)
    assert found.texts.shape == (5, 3) and prototypes_of(model) is not None


def test_models_without_prototypes_gather_nothing():
    assert gather(pretraining_model(), tiny_processor(), tiny_rows(2), progress=False) is None


def test_section_shows_most_similar_first_and_escapes_captions():
    seen = []
    gathered = Gathered(IMAGES, TEXTS)
    page = prototypes_section(
        gathered,
        gathered.metrics(),
        lambda row: seen.append(row) or np.zeros((4, 4, 3), np.uint8),
        ["a <b>", "b", "c", "d"],
    )
    assert seen == [0, 1, 3, 2]  # of prototype 0, then of 1; prototype 2 gathers nothing
    assert "a &lt;b&gt;" in page and page.index("<li>d") < page.index("<li>a") < page.index("<li>c")
    assert "75.0" in page and page.count("<img") == 2


def test_page_of_a_model_without_codebook_shows_prototypes_alone(tmp_path):
    model, processor, rows = pretraining_model(objectives=NO_CODEBOOK), tiny_processor(), tiny_rows(4)
    gathered = gather(model, processor, rows, progress=False)
    options = {"gathered": gathered, "progress": False}
    path = write_codebook_page(tmp_path / "page.html", model, processor, rows, gathered.metrics(), **options)
    text = path.read_text(encoding="utf-8")
    assert "What prototypes gather" in text and "What codes stand for" not in text


def test_inspect_measures_prototypes_once(tmp_path, monkeypatch):
    calls, measure = [], Gathered.metrics
    monkeypatch.setattr(Gathered, "metrics", lambda self, *seed: calls.append(seed) or measure(self, *seed))
    pretraining_model(objectives=NO_CODEBOOK).save_pretrained(tmp_path / "model")
    tiny_processor().save_pretrained(tmp_path / "model")
    page = tmp_path / "page.html"
    argv = ["inspect", str(tmp_path / "model"), "--data", "scenes[rows=4]", "--rerank_k", "0", "--page", str(page)]
    assert main(argv) == 0
    assert len(calls) == 1 and "What prototypes gather" in page.read_text(encoding="utf-8")
