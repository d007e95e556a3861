"""The benchmarks run, say how they are used, and compute what they print."""

import sys

import peers
import pretraining_step
import pytest
import quantizer
import torch
from measuring import Spread, count_flops
from pretraining_step import TrainingStep, figures, model_config, random_batch
from tiny import pretraining_model, tiny_pairs
from transformers import FlavaConfig

CPU = torch.device("cpu")


def run(module, monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", [module.__name__ + ".py", *arguments])
    module.main()


@pytest.mark.parametrize("module", [pretraining_step, quantizer, peers])
def test_help_ends_with_an_example(module, monkeypatch, capsys):
    with pytest.raises(SystemExit):
        run(module, monkeypatch, "--help")
    assert f"python benchmarks/{module.__name__}.py" in capsys.readouterr().out.splitlines()[-1]


def test_the_step_is_measured(monkeypatch, capsys):
    run(pretraining_step, monkeypatch, "--size", "tiny", "--batch_size", "2", "--rounds", "1", "--product", "32")
    printed = capsys.readouterr().out
    for line in ("batch 2, 64 px", "pairs per CPU-second", "GMAC per pair", "share of it", "GFLOP-eq", "peak memory"):
        assert line in printed


def test_the_quantizer_is_measured(monkeypatch, capsys):
    monkeypatch.setattr(quantizer, "CODES", 32)
    run(quantizer, monkeypatch, "--rounds", "1")
    assert "ours / product and argmin" in capsys.readouterr().out


def test_figures_by_hand():
    times = {name: Spread([value]) for name, value in {"forward": 2.0, "backward": 3.0, "optimiser": 1.0}.items()}
    derived = figures(200 * 10**9, 4, Spread([80e9]), times)
    assert derived == pytest.approx(
        {"step": 6.0, "pairs_per_second": 4 / 6, "share": 200 / 5 / 80, "gflop_equivalents": 480}
    )


def test_sizes():
    config, batch, tokens = model_config("base", "paper")
    assert (config.preset, config.vision_config.hidden_size, batch, tokens) == ("paper", 768, 2, 30)
    config, batch, tokens = model_config("tiny", "recommended")
    assert (config.vision_config.hidden_size, config.text_config.vocab_size, batch, tokens) == (128, 2000, 64, 24)


def test_a_batch_has_all_objectives_on():
    config, _, _ = model_config("tiny", "recommended")
    batch = random_batch(config, 3, 9, CPU)
    assert (batch["mlm_labels"] != -100).any(-1).all()
    assert (batch["bool_masked_pos"].sum(-1) == 48).all()  # 75 % of 64
    again = random_batch(config, 3, 9, CPU)
    assert all(torch.equal(batch[name], again[name]) for name in batch)


def test_a_step_trains_and_leaves_no_gradient():
    model = pretraining_model().train()
    before, codes = model.itm_head.weight.clone(), model.cbvila.codebook.codes.clone()
    step = TrainingStep(model, tiny_pairs(), torch.float32)
    flops = step.flops()
    assert torch.equal(model.itm_head.weight, before)  # counting does not train
    times = step()
    assert set(times) == {"forward", "backward", "optimiser", "wall"} and min(times.values()) >= 0
    assert not torch.equal(model.itm_head.weight, before)
    assert not torch.equal(model.cbvila.codebook.codes, codes)
    assert all(parameter.grad is None for parameter in model.parameters())
    forward = count_flops(lambda: step.loss(model))
    assert 2.5 * forward < flops < 3.1 * forward  # two products back for each one there, but for the first layers


def test_flava_trains_on_our_batch():
    small = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    words = {"num_groups": 4, "hidden_size": 8, "vocab_size": 12}
    model = peers.flava_model(
        32,
        image_config={**small, "patch_size": 8, "vocab_size": 12},
        text_config={**small, "vocab_size": 60},
        multimodal_config=small,
        image_codebook_config=words,
        hidden_size=16,
        projection_dim=8,
    )
    assert isinstance(model.config, FlavaConfig) and model.config.image_config.image_size == 32
    output = model(**peers.flava_batch(tiny_pairs(), 8))
    losses = output.loss_info
    for name in ("mmm_image", "mmm_text", "itm", "global_contrastive"):
        assert torch.isfinite(losses[name])
    output.loss.backward()
