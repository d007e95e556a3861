"""The preset `albef`: nothing of the codebook is built, everything learns, and ALBEF's weights give ALBEF's values."""

import pytest
import torch
from tiny import pretraining_model, tiny_config, tiny_pairs

from transformers_cbvila.model.configuration_cbvila import CBViLAConfig
from transformers_cbvila.model.modeling_cbvila_pretraining import CBViLAForPreTraining


def test_preset_is_albefs_configuration():
    config = CBViLAConfig.from_preset("albef")
    assert config.loss_weights() == {"itm": 1.0, "mlm": 1.0, "itc": 1.0} | dict.fromkeys(
        ("pixel", "codebook", "commitment", "mim"), 0.0
    )
    assert not config.has_quantizer and config.has_contrastive_head and config.itm_kv == "continuous"
    assert config.projection_dim == 256 and config.logit_scale_init_value == pytest.approx(2.6592)
    sizes = config.vision_config.image_size, config.vision_config.patch_size, config.vision_config.num_hidden_layers
    assert sizes == (256, 16, 12)
    assert (config.text_config.num_hidden_layers, config.multimodal_config.num_hidden_layers) == (6, 6)


@pytest.mark.parametrize("preset", ["albef", "codis"])
def test_preset_without_a_codebook_builds_one_only_for_objectives(preset):
    quantizer = {"type": "fsq", "levels": [5, 5]}
    with pytest.raises(ValueError, match=f"'{preset}' has no codebook.*'levels'.*give objectives"):
        CBViLAConfig.from_preset(preset, quantizer_config=quantizer)
    used = CBViLAConfig.from_preset(preset, quantizer_config=quantizer, objectives={"pixel": {"weight": 3.0}})
    assert used.has_quantizer and used.quantizer_config.type == "fsq"
    unused = {name: {"weight": 0.0} for name in ("pixel", "commitment", "codebook", "mim")}
    other = CBViLAConfig.from_preset("recommended", quantizer_config=quantizer, objectives=unused)
    assert not other.has_quantizer  # who turns them off one by one knows


def test_preset_survives_a_checkpoint(tmp_path):
    model = pretraining_model(preset="albef")
    model.save_pretrained(tmp_path)
    again = CBViLAForPreTraining.from_pretrained(tmp_path)
    assert again.config.preset == "albef" and again.config.loss_weights() == model.config.loss_weights()
    assert again.state_dict().keys() == model.state_dict().keys()


def test_nothing_of_the_codebook_is_built_and_all_weights_learn():
    model = pretraining_model(preset="albef").train()
    names = [name for name, _ in model.named_parameters()]
    parts = ("quantizer", "codebook", "visual_queries", "pixel", "mim", "mask_token")
    assert not [name for name in names if any(part in name for part in parts)]
    output = model(**tiny_pairs())
    assert set(output.losses) == {"itm", "mlm", "itc"}
    output.loss.backward()
    assert not [name for name, p in model.named_parameters() if p.grad is None]


def test_losses_equal_those_of_a_model_with_a_codebook():
    """Of the same weights, the objectives that both have do not see the codebook."""
    whole, batch = pretraining_model(), tiny_pairs()
    bare = CBViLAForPreTraining(tiny_config("albef")).eval()
    loaded = bare.load_state_dict(whole.state_dict(), strict=False)
    assert not loaded.missing_keys
    expected = whole(**batch).losses
    for name, value in bare(**batch).losses.items():
        torch.testing.assert_close(value, expected[name])
