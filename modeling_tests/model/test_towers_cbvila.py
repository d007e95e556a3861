"""An encoder's class loads it from the checkpoint of any head, and rejects checkpoints without it."""

import pytest
import torch
from bundled_models import COMPLETE
from safetensors.torch import save_file
from tiny import build
from tiny_heads import HEADS
from transformers import AutoConfig, AutoModel

from transformers_cbvila import (
    CBViLAForPreTraining,
    CBViLAForVisualReasoning,
    CBViLAFusionModel,
    CBViLAModel,
    CBViLATextModel,
    CBViLAVisionModel,
    bundled_checkpoint,
)

TOWERS = {"vision_model": CBViLAVisionModel, "text_model": CBViLATextModel, "fusion_model": CBViLAFusionModel}


def assert_same_weights(tower, part):
    """`part`'s weights are all in `tower` (a fusion encoder of two images has twins besides)."""
    own, expected = tower.state_dict(), part.state_dict()
    assert own.keys() <= expected.keys() and len(own) > 10
    for name, value in own.items():
        torch.testing.assert_close(value, expected[name], msg=lambda m, n=name: f"{n}: {m}")


@pytest.mark.parametrize("head", HEADS)
def test_tower_loads_from_every_head(head, logged, tmp_path):
    whole = build(head)
    whole.save_pretrained(tmp_path)
    base = getattr(whole, "cbvila", whole)
    for name, tower in TOWERS.items():
        loaded, info = tower.from_pretrained(tmp_path, output_loading_info=True)
        assert not info["missing_keys"] and not info["unexpected_keys"]
        assert_same_weights(loaded, getattr(base, name))
    assert not logged()


@pytest.mark.parametrize("name", COMPLETE)
def test_tower_loads_from_bundled_checkpoints(name, logged):
    folder = bundled_checkpoint(name)
    whole = CBViLAForPreTraining.from_pretrained(folder).cbvila
    config = AutoConfig.from_pretrained(folder)
    logged.clear()
    for part, tower in TOWERS.items():
        own_config = getattr(config, TOWERS[part].config_class.base_config_key)
        loaded = AutoModel.from_pretrained(folder, config=own_config)
        assert type(loaded) is tower
        assert_same_weights(loaded, getattr(whole, part))
    assert not logged()


def test_tower_loads_from_twin_fusion(logged, tmp_path):
    whole = build(CBViLAForVisualReasoning, reasoning_fusion="twin")
    whole.save_pretrained(tmp_path)
    loaded = CBViLAFusionModel.from_pretrained(tmp_path)
    assert_same_weights(loaded, whole.cbvila.fusion_model)
    assert not logged()


@pytest.mark.parametrize("name", TOWERS)
def test_tower_is_saved_with_its_own_names(name, tmp_path):
    build(CBViLAModel).save_pretrained(tmp_path / "whole")
    tower = TOWERS[name].from_pretrained(tmp_path / "whole")
    tower.save_pretrained(tmp_path / "tower")
    again, info = TOWERS[name].from_pretrained(tmp_path / "tower", output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"]
    assert_same_weights(again, tower)


@pytest.mark.parametrize("name", TOWERS)
def test_head_rejects_a_tower_checkpoint(name, logged, tmp_path):
    build(CBViLAModel).save_pretrained(tmp_path / "whole")
    tower = TOWERS[name].from_pretrained(tmp_path / "whole")
    tower.save_pretrained(tmp_path / "tower")
    for head in (CBViLAModel, CBViLAForPreTraining):
        with pytest.raises(ValueError, match="Load the class that config.json names under architectures"):
            head.from_pretrained(tmp_path / "tower")
    assert "MISSING" not in logged.text


@pytest.mark.parametrize("head", [*TOWERS.values(), *HEADS])
def test_from_pretrained_rejects_checkpoints_of_other_models(head, logged, tmp_path):
    whole = build(CBViLAModel).config
    part = {tower: getattr(whole, tower.config_class.base_config_key) for tower in TOWERS.values()}
    part.get(head, whole).save_pretrained(tmp_path)
    save_file({"encoder.layer.0.weight": torch.ones(3, 3)}, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match=f"'encoder.layer.0.weight' …\\) belongs to a {head.__name__}"):
        head.from_pretrained(tmp_path)
    assert "MISSING" not in logged.text
    _, info = head.from_pretrained(
        tmp_path, output_loading_info=True
    )  # whoever asks is told, and told by transformers
    assert len(info["missing_keys"]) > 10


@pytest.mark.parametrize("saved", TOWERS)
@pytest.mark.parametrize("asked", TOWERS)
def test_tower_rejects_a_checkpoint_of_another_tower(saved, asked, tmp_path):
    getattr(build(CBViLAModel), saved).save_pretrained(tmp_path)
    if saved == asked:
        TOWERS[asked].from_pretrained(tmp_path)
        return
    with pytest.raises(ValueError, match=f"of a 'cbvila_{saved}'; a {TOWERS[asked].config_class.__name__} is that"):
        TOWERS[asked].from_pretrained(tmp_path)
