"""`cbvila inspect` reports each quantizer, objective and preset of another paper."""

import json

import pytest
from tiny import tiny_processor
from tiny_relatives import RELATIVES, model_of

from transformers_cbvila.cli import main

MEANING = ("code_purity", "code_word_mutual_information", "code_probe_accuracy", "code_retrieval_r1")


@pytest.mark.parametrize("name", RELATIVES)
def test_inspect_reports_a_relative(name, tmp_path):
    model, folder, figures, page = (
        model_of(name),
        tmp_path / "model",
        tmp_path / "figures.json",
        tmp_path / "page.html",
    )
    if name == "class_guided":
        model.cbvila.quantizer.label_counts.fill_(4)
    model.save_pretrained(folder)
    tiny_processor().save_pretrained(folder)
    shown = [] if name == "albef" else ["--page", str(page)]  # which has neither codes nor prototypes
    argv = ["inspect", str(folder), "--data", "scenes[rows=16]", "--rerank_k", "0", "--output", str(figures)]
    assert main([*argv, *shown]) == 0
    found = json.loads(figures.read_text())
    assert "text_retrieval_r1" in found and page.exists() == bool(shown)
    if name in ("albef", "codis"):
        assert not [metric for metric in found if metric.startswith("code")]
    else:
        assert {f"{metric}{end}" for metric in MEANING for end in ("", "_floor", "_low", "_high")} <= set(found)
        assert {"codebook_usage", "codebook_perplexity", "codebook_window_tokens", "bits_per_token"} <= set(found)
        assert {"psnr", "psnr_low", "psnr_high", "ssim", "mim_advantage"} <= set(found)
    assert ("prototype_agreement_floor" in found) == (name == "codis")
    assert ("codebook_label_agreement" in found) == (name == "class_guided")
    assert 3 <= found.get("bits_per_token", 3) <= 4
