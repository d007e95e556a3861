"""Benchmarks: their help, their output, and the numbers they compute."""

import re
import sys
from importlib import import_module
from types import SimpleNamespace

import browser_page
import encoding
import export_sizes
import goodput
import index_memory
import large_gallery
import near_duplicates
import peers
import pointing
import pretraining_step
import pytest
import quantizer
import questions
import rehearsal
import relatives
import reranking
import scenes
import search
import start
import torch
import transport
from measuring import Spread, count_flops
from pretraining_step import TrainingStep, derived_metrics, model_config, random_batch
from tiny import build, pretraining_model, tiny_pairs
from transformers import FlavaConfig

from transformers_cbvila import CBViLAForImageTextRetrieval

CPU = torch.device("cpu")


def run(module, monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", [module.__name__ + ".py", *arguments])
    return module.main()


@pytest.mark.parametrize(
    "module",
    [
        *(pretraining_step, quantizer, peers, reranking, large_gallery, questions, index_memory, start, scenes),
        *(pointing, search, near_duplicates, encoding, goodput, browser_page, relatives, transport, rehearsal),
        export_sizes,
    ],
)
def test_benchmark_help_ends_with_an_example(module, monkeypatch, capsys):
    with pytest.raises(SystemExit):
        run(module, monkeypatch, "--help")
    assert f"python benchmarks/{module.__name__}.py" in capsys.readouterr().out.splitlines()[-1]


@pytest.mark.parametrize("part", rehearsal.PARTS)
def test_rehearsal_runs_commands_that_parse(part, tmp_path, monkeypatch):
    name, *options = rehearsal.command(part, tmp_path / "a folder", 2)
    assert import_module(f"transformers_cbvila.cli.{name}").parse(options)


def test_rehearsal_prints_what_each_part_takes(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(rehearsal.PARTS, "draw", "draw cbvila-scenes 'a red circle' --steps 1 --output {folder}/a.png")
    run(rehearsal, monkeypatch, "--parts", "draw", "--output_dir", str(tmp_path))
    assert re.search(r"draw +\d+ CPU-seconds +\d+ s +\d\.\d GiB", capsys.readouterr().out)
    assert (tmp_path / "a.png").is_file()
    monkeypatch.setitem(rehearsal.PARTS, "draw", "draw no-such-model 'a red circle' --output {folder}/b.png")
    with pytest.raises(SystemExit, match="draw no-such-model .* failed"):
        run(rehearsal, monkeypatch, "--parts", "draw", "--output_dir", str(tmp_path))


def test_pretraining_step_prints_its_rates(monkeypatch, capsys):
    run(pretraining_step, monkeypatch, "--size", "tiny", "--batch_size", "2", "--rounds", "1", "--product", "32")
    printed = capsys.readouterr().out
    for line in (
        "batch 2, 64 px",
        "pairs per CPU-second",
        "GMAC per pair",
        "share of that",
        "GFLOP-eq",
        "peak memory",
    ):
        assert line in printed


def test_relatives_print_what_they_cost(monkeypatch, capsys):
    names = ["class_guided", "sgc_consistency"]
    run(relatives, monkeypatch, "--size", "tiny", "--names", *names, "--rounds", "1")
    printed = capsys.readouterr().out
    assert re.search(r"class_guided, operations +\+0\.0%", printed), "it looks codes up otherwise"
    assert float(re.search(r"sgc_consistency, operations +\+([\d.]+)%", printed)[1]) > 1, "it encodes another view"
    assert len(re.findall(r"CPU time +x \d", printed)) == 2


@pytest.mark.parametrize("name", relatives.RELATIVES)
def test_relatives_are_in_the_model_and_get_their_inputs(name):
    config, _, tokens = model_config("tiny", "recommended")
    relative = relatives.RELATIVES[name]
    model = pretraining_model(relatives.with_relative(config, relative)).train()
    losses = model(**relatives.inputs_of(model, random_batch(config, 2, tokens, CPU))).losses
    assert model.cbvila.quantizer.name == relative.quantizer.get("type", "nearest")
    assert all(any(term.startswith(objective) for term in losses) for objective in relative.objectives)


def test_transport_prints_its_share(monkeypatch, capsys):
    run(transport, monkeypatch, "--size", "tiny", "--codes", "8", "--queue", "16", "--rounds", "1")
    printed = capsys.readouterr().out
    assert "two plans, IPOT, 50 steps" in printed and printed.count("% of the step") == 2


def test_quantizer_prints_its_ratio(monkeypatch, capsys):
    monkeypatch.setattr(quantizer, "CODES", 32)
    run(quantizer, monkeypatch, "--rounds", "1")
    assert "ours / product and argmin" in capsys.readouterr().out


def test_pointing_prints_layers_and_floors(monkeypatch, capsys):
    run(pointing, monkeypatch, "--rows", "4", "--threads", "1")
    printed = capsys.readouterr().out
    assert "words in 4 scenes of test" in printed and "the best map" in printed
    for line in ("Grad-CAM, all layers (default)", "Grad-CAM, layer 0 (as ALBEF)", "rollout to layer 1"):
        assert line in printed


def test_scenes_prints_its_rates(monkeypatch, capsys):
    run(scenes, monkeypatch, "--rows", "4", "--rounds", "1", "--size", "32")
    printed = capsys.readouterr().out
    for line in ("Rows per CPU-second", "reasoning, texts", "as training examples"):
        assert line in printed


def test_start_prints_its_times(monkeypatch, capsys):
    monkeypatch.setattr(start, "COMMANDS", [["--version"]])
    monkeypatch.setattr(start, "APP", {"nothing": "pass"})
    run(start, monkeypatch, "--rounds", "1")
    _, _, imported, loaded, answered, *_, version = capsys.readouterr().out.splitlines()
    assert imported.startswith("import transformers_cbvila") and imported.endswith("CPU-s   torch, transformers")
    assert "model files" in loaded and answered.startswith("its first answer")
    assert version.endswith("CPU-s   nothing heavy")


def test_figures_equal_hand_computed_ones():
    times = {name: Spread([value]) for name, value in {"forward": 2.0, "backward": 3.0, "optimiser": 1.0}.items()}
    derived = derived_metrics(200 * 10**9, 4, Spread([80e9]), times)
    assert derived == pytest.approx(
        {"step": 6.0, "pairs_per_second": 4 / 6, "share": 200 / 5 / 80, "gflop_equivalents": 480}
    )


def test_model_config_has_the_named_size_and_preset():
    config, batch, tokens = model_config("base", "paper")
    assert (config.preset, config.vision_config.hidden_size, batch, tokens) == ("paper", 768, 2, 30)
    config, batch, tokens = model_config("tiny", "recommended")
    assert (config.vision_config.hidden_size, config.text_config.vocab_size, batch, tokens) == (128, 2000, 64, 16)


def test_random_batch_has_targets_for_all_objectives():
    config, _, _ = model_config("tiny", "recommended")
    batch = random_batch(config, 3, 9, CPU)
    assert (batch["mlm_labels"] != -100).any(-1).all()
    assert (batch["bool_masked_pos"].sum(-1) == 12).all()  # 75 % of 16
    again = random_batch(config, 3, 9, CPU)
    assert all(torch.equal(batch[name], again[name]) for name in batch)


def test_training_step_updates_weights_and_clears_gradients():
    model = pretraining_model().train()
    before, codes = model.objectives["itm"].head.weight.clone(), model.cbvila.quantizer.table.codes.clone()
    step = TrainingStep(model, tiny_pairs(), torch.float32)
    flops = step.flops()
    assert torch.equal(model.objectives["itm"].head.weight, before)  # counting does not train
    times = step()
    assert set(times) == {"forward", "backward", "optimiser", "wall"} and min(times.values()) >= 0
    assert not torch.equal(model.objectives["itm"].head.weight, before)
    assert not torch.equal(model.cbvila.quantizer.table.codes, codes)
    assert all(parameter.grad is None for parameter in model.parameters())
    forward = count_flops(lambda: step.loss(model))
    assert 2.5 * forward < flops < 3.1 * forward  # two products back for each one there, but for the first layers


def test_flava_model_trains_on_random_batch():
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


def small_models(monkeypatch):
    monkeypatch.setattr(reranking, "TOKENS", 9)
    monkeypatch.setattr(reranking, "FEWEST_TOKENS", 3)
    monkeypatch.setattr(reranking, "FIRST_WORD", 5)
    ours = build(CBViLAForImageTextRetrieval, same_width=True)
    monkeypatch.setattr(reranking, "our_model", lambda image_size: ours)
    text = {"num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48, "vocab_size": 60}
    theirs = reranking.blip_model
    monkeypatch.setattr(reranking, "blip_model", lambda hidden_size: theirs(hidden_size, **text))
    return ours, reranking.blip_model(32)


def test_reranking_prints_its_ratios(monkeypatch, capsys):
    small_models(monkeypatch)
    run(reranking, monkeypatch, "--rounds", "1", "--candidates", "4", "--image_sizes", "32")
    printed = capsys.readouterr().out
    for line in ("4 candidates of 9 tokens, 32 px", "of 3 to 9 tokens", "ours / pair by pair", "ours / BLIP", "GMAC"):
        assert line in printed


def test_reranking_compare_rejects_wrong_scores(monkeypatch):
    ours, theirs = small_models(monkeypatch)
    monkeypatch.setattr(reranking, "match_pairs", lambda *args, **options: torch.zeros(4))
    with pytest.raises(AssertionError, match="not close"):
        reranking.compare(ours, theirs, torch.full((4,), 9), 1)


def test_reranking_tasks_flops_equal_hand_computed_ones(monkeypatch):
    """Multiply-adds per pair by hand: 2 layers of width 32 and 48, 17 visual tokens, 4 texts of 9 tokens."""
    ours, theirs = small_models(monkeypatch)
    tasks = reranking.tasks(ours, theirs, torch.full((4,), 9))
    wide, tokens, seen = 32 * 32, 9, 17
    mlp, keys, image = 2 * 32 * 48, 2 * tokens * tokens * 32, 2 * tokens * seen * 32
    text_layer = tokens * (4 * wide + mlp) + keys
    layer = text_layer + tokens * 2 * wide + image + 2 * seen * wide
    naive = 2 * text_layer + 2 * layer + 2 * 32
    assert count_flops(tasks[reranking.NAIVE]) == 2 * 4 * naive
    first = tokens * (2 * wide + mlp) + image
    last = 2 * tokens * wide + 4 * wide + mlp + (keys + image) // tokens
    shared = 2 * 2 * seen * wide  # per image
    assert count_flops(tasks[reranking.OURS]) == 2 * (4 * (first + last + 2 * 32) + shared)


def test_reranking_ratios_are_taken_per_round():
    times = {"ours": Spread([1.0, 2.0]), "pair by pair": Spread([3.0, 10.0]), "BLIP": Spread([4.0, 4.0])}
    assert {name: ratio.values for name, ratio in reranking.ratios(times).items()} == {
        "pair by pair": [3.0, 5.0],
        "BLIP": [4.0, 2.0],
    }


def test_large_gallery_resumes_its_folder(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(large_gallery, "CHECKED", 4)
    size = ["--images", "6", "--texts", "9", "--k", "4", "--output_dir", str(tmp_path)]
    run(large_gallery, monkeypatch, *size)
    printed = capsys.readouterr().out
    assert "6 images x 9 texts" in printed and "differ by" in printed and "run before                no\n" in printed
    matches = large_gallery.written(tmp_path / "matches")
    assert 6 * 4 <= matches <= 6 * 4 + 9 * 4
    run(large_gallery, monkeypatch, *size)
    assert f"6 images, 9 texts, {matches} matches" in capsys.readouterr().out


def test_large_gallery_draw_texts_have_8_to_24_tokens():
    texts = large_gallery.draw_texts(400, ["a", "b"])
    lengths = {len(text.split()) + 2 for text in texts}
    assert lengths == set(range(8, 25)) and texts == large_gallery.draw_texts(400, ["a", "b"])


def test_questions_prints_ours_beside_blip(monkeypatch, capsys):
    run(questions, monkeypatch, "--batch_size", "4", "--questions", "2", "--tokens", "2", "--rounds", "1")
    printed = capsys.readouterr().out
    for line in ("4 questions in a batch, 2 about each picture", "ours / BLIP", "% beside the model", "differ by"):
        assert line in printed


def test_questions_gives_both_the_same_sizes():
    config, tokenizer = questions.sized("tiny")
    ours, blip = (make(config, tokenizer).model for make in (questions.our_pipeline, questions.blip_pipeline))
    theirs = (blip.vision_model, blip.text_encoder.encoder, blip.text_decoder.bert.encoder)
    assert [len(blip.vision_model.encoder.layers), *(len(part.layer) for part in theirs[1:])] == [
        len(ours.cbvila.vision_model.layers),
        len(ours.cbvila.text_model.layers) + len(ours.cbvila.fusion_model.layers),
        len(ours.answer_decoder.layers),
    ]
    assert len(tokenizer) == blip.config.text_config.vocab_size == config.text_config.vocab_size


def test_encoding_prints_ours_beside_the_image_encoder(monkeypatch, capsys):
    run(encoding, monkeypatch, "--batch_size", "2", "--rounds", "1")
    printed = capsys.readouterr().out
    for line in ("tiny, 64 px, 2 images", "get_image_features / image encoder alone", "reading and resizing"):
        assert line in printed


def test_goodput_prints_shares(monkeypatch, capsys):
    monkeypatch.setattr(goodput, "SKIPPED", 1)
    monkeypatch.setattr(goodput, "PHASES", {"alignment": True})
    run(goodput, monkeypatch, "--workers", "0", "--steps", "1")
    printed = capsys.readouterr().out
    for line in ("alignment, 1 thread", "0 workers", "% of wall time", "% of CPU time"):
        assert line in printed


def test_goodput_counts_what_is_inside_steps(monkeypatch):
    """Steps of 2 s, and 3 s from the end of one to the begin of the next: 2 / 5 of the time."""
    seconds = iter(range(0, 1000))
    monkeypatch.setattr(goodput, "CLOCKS", {"wall": lambda: next(seconds)})
    times = goodput.StepTimes()
    for step in range(goodput.SKIPPED + 3):
        times.on_step_begin(None, None, None)
        next(seconds)
        times.on_optimizer_step(None, SimpleNamespace(global_step=step), None)
        next(seconds), next(seconds)
    assert times.inside == {"wall": 3 * 2} and times.shares() == {"wall": 40.0}


def test_index_memory_prints_and_checks_its_limit(monkeypatch, capsys):
    assert run(index_memory, monkeypatch, "--images", "70", "--limit", "10000") == 0
    assert "70 images indexed into a folder" in capsys.readouterr().out
    monkeypatch.setattr(index_memory, "resident", iter(range(0, 10**9, 10**8)).__next__)
    assert run(index_memory, monkeypatch, "--images", "3", "--limit", "150") == 1


def test_search_prints_what_people_wait_for(monkeypatch, capsys):
    run(search, monkeypatch, "--pictures", "4", "--gallery", "6")
    printed = capsys.readouterr().out
    assert printed.startswith("6 pictures searched")
    for line in (
        "index 4 pictures",
        "the same, unchanged",
        "1 replaced, 1 moved",
        *map("search {}".format, search.MODES),
    ):
        assert line in printed


def test_near_duplicates_prints_shares_that_fall_with_the_threshold(monkeypatch, capsys):
    run(near_duplicates, monkeypatch, "--rows", "3")
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].split()[-1] == "other" and len(lines) == 2 + len(near_duplicates.THRESHOLDS)
    for shares in zip(*(line.split()[1:] for line in lines[2:]), strict=True):
        assert sorted(map(float, shares), reverse=True) == list(map(float, shares))
