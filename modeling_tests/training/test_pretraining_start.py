"""Pretraining that goes on from a checkpoint with other options of its model."""

import pytest
import torch
import yaml
from tiny import pretraining_model, tiny_processor
from tiny_quantizers import fitted_model

from transformers_cbvila import CBViLAForPreTraining
from transformers_cbvila.cli.recipe_files import recipe_path
from transformers_cbvila.training import pretraining_start
from transformers_cbvila.training.arguments import CBViLATrainingArguments
from transformers_cbvila.training.pretraining_job import PretrainingJob
from transformers_cbvila.training.pretraining_start import starting_model

MLM_ALONE = {name: {"weight": 0.0} for name in ("itc", "itm", "pixel", "mim", "commitment", "codebook")}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoint")
    model = pretraining_model(objectives=MLM_ALONE)
    assert not model.cbvila.has_quantizer
    model.save_pretrained(folder)
    tiny_processor().save_pretrained(folder)
    return folder


def started(checkpoint, tmp_path, **changes):
    job = PretrainingJob(["nothing"], model=str(checkpoint), model_config=changes)
    return starting_model(job, CBViLATrainingArguments(str(tmp_path)), [], None)[0]


def test_a_checkpoint_of_mlm_alone_grows_by_layers_and_objectives(checkpoint, tmp_path):
    old = CBViLAForPreTraining.from_pretrained(checkpoint)
    depth = old.config.vision_config.num_hidden_layers
    model = started(
        checkpoint,
        tmp_path,
        vision_config={"num_hidden_layers": depth + 2, "initializer_range": 0.001},
        objectives={name: {"weight": 1.0} for name in MLM_ALONE},
    )
    assert model.cbvila.has_quantizer and set(model.objectives) > set(old.objectives)
    kept = old.state_dict()
    assert all(torch.equal(model.state_dict()[name], value) for name, value in kept.items())
    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        tokens = [found.cbvila.eval().vision_model(images).last_hidden_state for found in (old, model)]
    torch.testing.assert_close(*tokens, atol=0.01, rtol=0)  # new layers start near the identity


def test_weights_of_another_size_are_refused(checkpoint, tmp_path):
    with pytest.raises(ValueError, match=r"model_config: the weights of .* have other sizes"):
        started(checkpoint, tmp_path, vision_config={"intermediate_size": 48})


@pytest.mark.parametrize(
    ("quantizer", "is_new"),
    [
        ({"size": 16}, True),
        ({"type": "residual", "size": 8, "dim": 6}, True),
        ({"type": "fsq", "levels": [3, 5]}, True),
        ({"decay": 0.5}, False),
        ({"feature_layers": [0]}, False),
    ],
)
def test_a_checkpoint_goes_on_with_another_codebook(quantizer, is_new, tmp_path, capsys):
    old = fitted_model({"type": "nearest", "size": 24, "dim": 8})
    old.save_pretrained(tmp_path)
    tiny_processor().save_pretrained(tmp_path)
    model = started(tmp_path, tmp_path, quantizer_config=quantizer)
    shown = capsys.readouterr()
    assert ("has another codebook" in shown.out + shown.err) is is_new
    before, after = old.state_dict(), model.state_dict()
    of_codes = {name for name in before if name.startswith(("cbvila.quantizer.", "objectives.mim."))}
    assert of_codes and all(torch.equal(after[name], before[name]) for name in before.keys() - of_codes)
    assert all(name in after and torch.equal(after[name], before[name]) for name in of_codes) is not is_new
    assert all(bool(table.initialized) is not is_new for table in model.cbvila.quantizer.tables())
    assert model.cbvila.quantizer.options.type == quantizer.get("type", "nearest")


def test_objectives_whose_weights_depend_on_the_width_of_codes_are_new_with_another(tmp_path):
    old = fitted_model({"type": "nearest", "size": 24, "dim": 8}, objectives={"mim": {"head": "tied"}, "lgvq": {}})
    old.save_pretrained(tmp_path)
    tiny_processor().save_pretrained(tmp_path)
    model = started(tmp_path, tmp_path, quantizer_config={"dim": 6})
    before, after = old.state_dict(), model.state_dict()
    assert before.keys() == after.keys()
    other = {name for name in before if before[name].shape != after[name].shape}
    assert {"objectives.mim.head.dense.weight", "cbvila.quantizer.table.codes"} <= other
    kept = {name for name in before.keys() - other if not name.startswith("cbvila.quantizer.")}
    assert all(torch.equal(after[name], before[name]) for name in kept)


def test_going_on_with_the_same_codebook_draws_no_random_number(tmp_path):
    fitted_model({"type": "nearest", "size": 24, "dim": 8}).save_pretrained(tmp_path)
    tiny_processor().save_pretrained(tmp_path)
    before = torch.get_rng_state()
    started(tmp_path, tmp_path)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(("preset", "is_told"), [("albef", True), ("recommended", False)])
def test_a_preset_that_a_checkpoint_does_not_follow_is_told(preset, is_told, checkpoint, tmp_path, capsys):
    job = PretrainingJob(["nothing"], model=str(checkpoint), preset=preset)
    model, _ = starting_model(job, CBViLATrainingArguments(str(tmp_path)), [], None)
    assert model.config.preset == "recommended"
    shown = capsys.readouterr()
    assert ("the preset albef is for random weights" in shown.out + shown.err) is is_told


@pytest.mark.parametrize("name", ["albef", "codis"])
def test_recipes_on_scenes_differ_from_that_of_cbvila_scenes_in_their_method_alone(name):
    base, other = (
        yaml.safe_load(recipe_path(recipe).read_text()) for recipe in ("pretrain-scenes", f"pretrain-{name}-scenes")
    )
    method = {"preset", "momentum_distill", "queue_size", "codebook_init", "align_steps", "burn_in_steps"}
    method |= {"codebook_refit", "codebook_restart_threshold", "mim_mask_schedule", "text_drop_prob", "model_config"}
    assert {key: base.get(key) for key in base.keys() - method} == {
        key: other.get(key) for key in other.keys() - method
    }
    parts = ("vision_config", "text_config", "multimodal_config", "projection_dim")
    assert all(base["model_config"][part] == other["model_config"][part] for part in parts)


@pytest.mark.parametrize(
    ("model_config", "message"),
    [
        ({"quantizer_config": {"type": "fsq"}}, r"^codebook_restart_threshold=0.3 is for codes .*_threshold 0\.$"),
        ({"quantizer_config": {"type": "nearst"}}, "type='nearst' is not one of"),
        ({"vision_config": {"patch_size": 7, "image_size": 64}}, "patch_size"),
    ],
)
def test_a_model_that_cannot_work_is_refused_before_the_vocabulary_is_trained(model_config, message, tmp_path):
    job = PretrainingJob(["nothing"], model_config=model_config)
    args = CBViLATrainingArguments(str(tmp_path), codebook_restart_threshold=0.3)
    with pytest.raises(ValueError, match=message):
        starting_model(job, args, [pytest.fail], None)


def test_checking_a_model_beforehand_changes_no_weight(tmp_path, monkeypatch):
    job = PretrainingJob(["nothing"], tokenizer="cbvila-tiny", model_config=pretraining_model().config.to_dict())
    job.model_config = {name: job.model_config[name] for name in ("vision_config", "quantizer_config")}
    states = []
    for check in (pretraining_start._check_configuration, lambda *given: None):
        monkeypatch.setattr(pretraining_start, "_check_configuration", check)
        torch.manual_seed(0)
        states.append(starting_model(job, CBViLATrainingArguments(str(tmp_path)), [], None)[0].state_dict())
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())
