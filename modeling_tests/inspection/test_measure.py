"""Metrics of `cbvila inspect` on made-up models and data."""

import numpy as np
import pandas as pd
import pytest
import torch
from tiny import CODES, PATCHES, pretraining_model, tiny_config, tiny_processor, tiny_rows

from transformers_cbvila.inspection import measure
from transformers_cbvila.inspection.measure import inspect_pretraining
from transformers_cbvila.inspection.visual_words import collect_visual_words
from transformers_cbvila.retrieval.measure import measure_retrieval

QUIET = {"progress": False}


def test_inspect_pretraining_returns_counts_and_intervals():
    figures = inspect_pretraining(pretraining_model(), tiny_processor(), tiny_rows(8), rerank_k=3, **QUIET)
    assert figures["codebook_window_tokens"] == 8 * PATCHES
    assert figures["ln_perplexity"] == pytest.approx(np.log(figures["codebook_perplexity"]))
    assert 1 / CODES <= figures["codebook_usage"] <= 1
    recalls = [name for name in figures if name.endswith(("_r1", "_r5", "_r10", "_reranked", "_combined"))]
    assert len(recalls) == 18
    for name in recalls:
        assert 0 <= figures[f"{name}_low"] <= figures[name] <= figures[f"{name}_high"] <= 1


def test_inspect_pretraining_measures_losses_and_restores_the_mode():
    model, processor, rows = pretraining_model(dropout=0.1).train(), tiny_processor(), tiny_rows(8)
    state = torch.get_rng_state()
    plain = inspect_pretraining(model, processor, rows, batch_size=4, rerank_k=0, **QUIET)
    figures = inspect_pretraining(model, processor, rows, batch_size=4, rerank_k=0, losses=True, **QUIET)
    assert model.training and torch.equal(torch.get_rng_state(), state)
    terms = {name: value for name, value in figures.items() if name.startswith("loss_")}
    assert {name for name in figures if name not in plain} == {"loss", *terms}
    assert terms.keys() == {f"loss_{name}" for name in ("itm", "itc", "mlm", "mim", "pixel", "commitment")}
    weights = model.config.loss_weights()
    assert figures["loss"] == pytest.approx(
        sum(weights[name.removeprefix("loss_")] * value for name, value in terms.items()), rel=1e-5
    )
    assert {name: figures[name] for name in plain} == pytest.approx(plain, rel=1e-5, abs=1e-5)
    assert terms["loss_mim"] == pytest.approx(figures["mim"], rel=1e-5)
    assert figures["mim_advantage"] == pytest.approx(figures["mim_shuffled_caption"] - figures["mim"], abs=1e-5)


def test_inspect_pretraining_without_a_codebook():
    model = pretraining_model(mim_weight=0.0, pixel_weight=0.0, commitment_weight=0.0, codebook_weight=0.0)
    figures = inspect_pretraining(model, tiny_processor(), tiny_rows(4), rerank_k=0, losses=True, **QUIET)
    assert not model.cbvila.has_quantizer and not [name for name in figures if "codebook" in name or "mim" in name]
    assert figures["loss_itm"] > 0 and "text_retrieval_r1" in figures


def test_inspect_pretraining_of_codes_with_classes():
    config = tiny_config()
    config.quantizer_config = {"type": "class_guided", "size": 16, "dim": 8}
    model = pretraining_model(config)
    figures = inspect_pretraining(model, tiny_processor(), tiny_rows(4), rerank_k=0, **QUIET)
    assert "codebook_label_agreement" not in figures
    model.cbvila.quantizer.label_counts.copy_(torch.tensor([3.0, 4.0]))
    figures = inspect_pretraining(model, tiny_processor(), tiny_rows(4), rerank_k=0, **QUIET)
    assert figures["codebook_label_agreement"] == 0.75


def test_inspect_pretraining_names_a_row_without_caption():
    rows = tiny_rows(4)
    rows[2] = {**rows[2], "captions": []}
    with pytest.raises(ValueError, match="Row 2: it has no caption.*skip_bad_rows"):
        inspect_pretraining(pretraining_model(), tiny_processor(), rows, **QUIET)


@pytest.mark.parametrize(("weight", "left_out"), [("mim_weight", "mim"), ("pixel_weight", "pixel")])
def test_inspect_pretraining_omits_untrained_objectives(weight, left_out):
    everything = inspect_pretraining(pretraining_model(), tiny_processor(), tiny_rows(4), rerank_k=0, **QUIET)
    figures = inspect_pretraining(
        pretraining_model(**{weight: 0.0}), tiny_processor(), tiny_rows(4), rerank_k=0, **QUIET
    )
    expected = {name for name in everything if name != left_out and not name.startswith(f"{left_out}_")}
    assert set(figures) == expected < set(everything)


def test_retrieval_figures_without_contrastive_head():
    rows, processor = tiny_rows(4), tiny_processor()
    same = pretraining_model(itc_weight=0.0, same_width=True)
    assert "text_retrieval_r1_reranked" in measure_retrieval(same, processor, rows, **QUIET)
    with pytest.warns(UserWarning, match="ITC.*32 and 24 differ"):
        figures = inspect_pretraining(pretraining_model(itc_weight=0.0), processor, rows, **QUIET)
    assert "mim" in figures and not [name for name in figures if "retrieval" in name]


def spied(monkeypatch):
    """What the inspections collect, in the order in which they start."""
    collected = []
    found = measure._Sums
    monkeypatch.setattr(measure, "_Sums", lambda codes: collected.append(found(codes)) or collected[-1])
    return collected


def test_inspect_pretraining_batches_equal_one_batch():
    model, processor, rows = pretraining_model(), tiny_processor(), tiny_rows(11)
    figures = inspect_pretraining(model, processor, rows, batch_size=4, rerank_k=0, **QUIET)
    pixels = processor(images=[row["image"] for row in rows], return_tensors="pt")["pixel_values"]
    words = model.cbvila(pixels).codebook_indices
    counts = torch.bincount(words.flatten(), minlength=CODES).double()
    assert figures["codebook_top_share"] == pytest.approx(float(counts.max() / counts.sum()))
    places = torch.nn.functional.one_hot(words, CODES).float().mean(0)
    assert figures["mim_accuracy_position_floor"] == pytest.approx(float(places.amax(-1).mean()))
    channels = pixels.double().transpose(0, 1).flatten(1)
    assert figures["pixel_floor"] == pytest.approx(float(channels.var(dim=1, correction=0).mean()))


def test_inspect_pretraining_memory_does_not_grow_with_images(monkeypatch):
    collected = spied(monkeypatch)
    for rows in (4, 16):
        inspect_pretraining(pretraining_model(), tiny_processor(), tiny_rows(rows), batch_size=4, rerank_k=0, **QUIET)
    few, many = collected
    assert few.code_counts.shape == many.code_counts.shape and few.pixel_sums.shape == many.pixel_sums.shape
    per_image = [sum(part.numel() for parts in found.per_image.values() for part in parts) for found in collected]
    assert per_image == [5 * 4, 5 * 16]  # numbers, not pixels: bootstrap intervals are made of them
    assert not [part for parts in many.per_image.values() for part in parts if part.untyped_storage().nbytes() > 64]


def test_inspect_pretraining_reads_rows_by_position():
    rows = tiny_rows(6)
    backwards = pd.Series(rows, index=range(6)[::-1])
    model, processor = pretraining_model(), tiny_processor()
    expected = inspect_pretraining(model, processor, rows, rerank_k=0, **QUIET)
    assert inspect_pretraining(model, processor, backwards, rerank_k=0, **QUIET) == expected
    assert inspect_pretraining(model, processor, iter(rows), rerank_k=0, **QUIET) == expected
    words = collect_visual_words(model, processor, rows, progress=False).indices
    np.testing.assert_array_equal(collect_visual_words(model, processor, backwards, progress=False).indices, words)
    for call in (inspect_pretraining, measure_retrieval, collect_visual_words):
        with pytest.raises(ValueError, match="rows is a table"):
            call(model, processor, pd.DataFrame(rows), progress=False)
