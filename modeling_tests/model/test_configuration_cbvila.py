import json

import pytest
import torch
from tiny import pretraining_model, tiny_config, tiny_images

from transformers_cbvila.model.configuration_cbvila import (
    PRESETS,
    CBViLAConfig,
    CBViLAFusionConfig,
    CBViLATextConfig,
    CBViLAVisionConfig,
)
from transformers_cbvila.model.modeling_cbvila import CBViLAModel
from transformers_cbvila.model.modeling_cbvila_pretraining import CBViLAForPreTraining
from transformers_cbvila.model.modeling_cbvila_text import CBViLATextModel
from transformers_cbvila.model.modeling_cbvila_vision import CBViLAVisionModel


def round_trip(config, folder):
    config.save_pretrained(folder)
    return CBViLAConfig.from_pretrained(folder)


def test_defaults_are_the_papers_sizes():
    config = CBViLAConfig()
    vision, text, fusion = config.vision_config, config.text_config, config.multimodal_config
    assert (vision.image_size, vision.patch_size, vision.num_patches) == (256, 16, 256)
    assert (vision.hidden_size, vision.num_hidden_layers, vision.num_attention_heads) == (768, 12, 12)
    assert (text.hidden_size, text.num_hidden_layers, text.vocab_size) == (768, 6, 30522)
    assert (fusion.hidden_size, fusion.num_hidden_layers, fusion.encoder_hidden_size) == (768, 6, 768)
    assert config.codebook_size == 3000


def test_defaults_are_the_recommended_preset():
    config = CBViLAConfig()
    assert config.to_dict() == CBViLAConfig.from_preset("recommended").to_dict()
    assert (config.codebook_dim, config.codebook_norm, config.codebook_update) == (32, "l2", "ema")
    assert config.quantizer_gradient == "straight_through"
    assert config.itc_weight == 1 and not config.mim_grad_to_vit and config.pixel_on == "all"
    assert config.pixel_weight == 3 and config.commitment_weight == 1 and not config.norm_pix_loss


@pytest.mark.parametrize("preset", PRESETS)
def test_what_no_preset_changes(preset):
    config = CBViLAConfig.from_preset(preset)
    assert (config.mim_mask_stage, config.fusion_visual_pos, config.fusion_visual_cls) == (
        "post",
        "learned",
        "learned",
    )
    assert (config.itm_kv, config.mim_cls_bag_weight, config.objectives["mim"].head) == ("continuous", 0, "linear")
    assert (config.pixel_likelihood, config.pixel_reduction, config.pixel_sigma) == ("gaussian", "mean", None)
    assert config.pixel_grad_to_vit and not config.norm_pix_loss and config.codebook_size == 3000
    assert config.negative_source == "similarity"


def test_paper_preset_is_the_literal_reading():
    config = CBViLAConfig.from_preset("paper")
    assert (config.codebook_dim, config.codebook_norm, config.codebook_update) == (768, "none", "loss")
    assert config.quantizer_gradient == "gumbel"
    assert config.loss_weights() == {
        "pixel": 1, "codebook": 1, "commitment": 0.25, "mim": 1, "itm": 1, "mlm": 1, "itc": 0, "mim_cls_bag": 0
    }  # fmt: skip
    assert config.mim_grad_to_vit and config.pixel_on == "both" and not config.has_contrastive_head


def test_arguments_take_precedence_over_a_preset():
    config = CBViLAConfig.from_preset("paper", commitment_weight=0.5)
    assert config.commitment_weight == 0.5 and config.preset == "paper"


def test_unknown_preset():
    with pytest.raises(ValueError, match="'literal'.*paper, recommended"):
        CBViLAConfig.from_preset("literal")


@pytest.mark.parametrize("preset", PRESETS)
def test_round_trip(preset, tmp_path):
    config = tiny_config(preset, mim_head="tied", norm_pix_loss=True)
    assert round_trip(config, tmp_path).to_dict() == config.to_dict()


def test_saved_file_says_which_choices_were_made(tmp_path):
    CBViLAConfig(codebook_size=7).save_pretrained(tmp_path)
    saved = json.loads((tmp_path / "config.json").read_text())
    assert (saved["preset"], saved["codebook_size"], saved["codebook_update"]) == ("recommended", 7, "ema")


def test_fusion_follows_text_and_vision():
    config = CBViLAConfig(
        vision_config={"hidden_size": 64, "num_attention_heads": 4},
        text_config={"hidden_size": 48, "num_attention_heads": 6, "hidden_act": "relu", "hidden_dropout_prob": 0.3},
        multimodal_config={"intermediate_size": 96},
    )
    fusion = config.multimodal_config
    assert (fusion.hidden_size, fusion.encoder_hidden_size, fusion.num_attention_heads) == (48, 64, 6)
    assert (fusion.hidden_act, fusion.hidden_dropout_prob, fusion.intermediate_size) == ("relu", 0.3, 96)


def test_round_trip_keeps_what_fusion_does_not_take_from_text(tmp_path):
    """Also where fusion has the default of its class: what is left out of the file would follow the text encoder."""
    config = tiny_config(text={"hidden_dropout_prob": 0.0}, fusion={"hidden_dropout_prob": 0.1, "hidden_act": "gelu"})
    assert round_trip(config, tmp_path).multimodal_config.hidden_dropout_prob == 0.1


def test_sub_configurations_may_be_objects():
    config = CBViLAConfig(
        vision_config=CBViLAVisionConfig(hidden_size=24),
        text_config=CBViLATextConfig(hidden_size=12),
        multimodal_config=CBViLAFusionConfig(hidden_size=12, encoder_hidden_size=24),
    )
    assert config.vision_config.hidden_size == 24 and config.multimodal_config.encoder_hidden_size == 24


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"codebook_norm": "l1"}, "codebook_norm='l1'.*'l2', 'none'"),
        ({"codebook_update": "sgd"}, "codebook_update='sgd'.*'loss', 'ema'"),
        ({"quantizer_gradient": "st"}, "quantizer_gradient='st'.*'straight_through'"),
        ({"mim_head": "mlp"}, "mim_head='mlp'"),
        ({"pixel_on": "none"}, "pixel_on='none'"),
        ({"negative_source": "queue"}, "negative_source='queue'"),
        ({"mim_mask_stage": "before"}, "mim_mask_stage='before'.*'post', 'pre'"),
        ({"fusion_visual_pos": "fixed"}, "fusion_visual_pos='fixed'"),
        ({"fusion_visual_cls": "mean"}, "fusion_visual_cls='mean'.*'vit'"),
        ({"itm_kv": "words"}, "itm_kv='words'.*'quantized'"),
        ({"pixel_likelihood": "l1"}, "pixel_likelihood='l1'.*'laplace'"),
        ({"pixel_reduction": "sum"}, "pixel_reduction='sum'.*'sum_patch'"),
        ({"pixel_sigma": 0}, "pixel_sigma=0"),
        ({"mim_cls_bag_weight": -1}, "mim_cls_bag_weight=-1"),
        ({"mim_cls_bag_weight": 1, "fusion_visual_cls": "none"}, "mim_cls_bag_weight=1.*fusion_visual_cls='none'"),
        ({"itm_kv": "both", "pixel_grad_to_vit": False}, "itm_kv='both'.*pixel_grad_to_vit=False"),
        ({"codebook_size": 1}, "codebook_size=1"),
        ({"codebook_dim": 0}, "codebook_dim=0"),
        ({"codebook_decay": 1.0}, r"codebook_decay=1\.0"),
        ({"gumbel_temperature": 0}, "gumbel_temperature=0"),
        ({"projection_dim": 0}, "projection_dim=0"),
        ({"itm_weight": -1}, r"itm_weight=-1"),
        ({"text_config": {"hidden_size": 100}}, "text_config.*100.*12"),
        ({"vision_config": {"hidden_size": 768, "num_attention_heads": 7}}, "vision_config.*768.*7"),
        ({"vision_config": {"image_size": 250}}, "250.*16.*240"),
        ({"vision_config": {"patch_size": 0}}, "patch_size=0"),
        ({"multimodal_config": {"hidden_size": 384}}, "384.*768"),
        ({"multimodal_config": {"encoder_hidden_size": 384}}, "384.*768"),
    ],
)
def test_bad_values_are_value_errors_that_name_the_value(fields, message):
    with pytest.raises(ValueError, match=message):
        CBViLAConfig(**fields)


def test_bad_types_are_refused():
    with pytest.raises(Exception, match="codebook_size"):
        CBViLAConfig(codebook_size="many")


def test_models_load_although_transformers_reads_multimodal_config_itself(tmp_path):
    model = pretraining_model()
    model.save_pretrained(tmp_path)
    loaded = CBViLAForPreTraining.from_pretrained(tmp_path)
    assert loaded.config.multimodal_config.hidden_size == 24
    assert isinstance(loaded.config.multimodal_config, CBViLAFusionConfig)


def test_models_can_be_made_on_the_meta_device():
    with torch.device("meta"):
        model = CBViLAModel(tiny_config())
    assert {parameter.device.type for parameter in model.parameters()} == {"meta"}
    assert model(tiny_images().to("meta")).image_embeds.shape == (4, 16)


# Values that change after a configuration was made

OVERRIDES = [
    ({"codebook_update": "emma"}, "codebook_update='emma' is not one of"),
    ({"pixel_likelihood": "laplac"}, "pixel_likelihood='laplac'"),
    ({"mim_weight": -3}, "mim_weight=-3.0 is negative"),
    ({"codebook_decay": 1.0}, "codebook_decay=1.0"),
    ({"reasoning_fusion": "twin", "num_images": 3}, "reasoning_fusion='twin'"),
    ({"text_config": {"num_attention_heads": 5}}, "text_config: hidden_size 24 is not a multiple"),
    ({"text_config": {"hidden_dropout_prob": -1}}, "text_config: hidden_dropout_prob=-1"),
    ({"vision_config": {"image_size": 33}}, "image_size 33 is not a multiple of patch_size 8"),
    ({"vision_config": {"num_hidden_layers": -1}}, "vision_config: num_hidden_layers=-1"),
]
# transformers takes from_pretrained's multimodal_config for a choice of kernels, and refuses ours.
FUSION = ({"multimodal_config": {"hidden_size": 32}}, "must equal text_config.hidden_size")


@pytest.mark.parametrize("fields, message", OVERRIDES)
def test_overrides_are_checked_as_the_constructors_values_are(fields, message, tmp_path):
    CBViLAModel(tiny_config()).save_pretrained(tmp_path)
    for model_class in (CBViLAForPreTraining, CBViLAModel):
        with pytest.raises(ValueError, match=message):
            model_class.from_pretrained(tmp_path, **fields)


@pytest.mark.parametrize("fields, message", [*OVERRIDES, FUSION])
def test_changed_values_are_checked_when_a_model_is_made(fields, message):
    config = tiny_config()
    for name, value in fields.items():
        parts = value.items() if isinstance(value, dict) else [(name, value)]
        for field, changed in parts:
            setattr(getattr(config, name) if isinstance(value, dict) else config, field, changed)
    with pytest.raises(ValueError, match=message):
        CBViLAForPreTraining(config)


@pytest.mark.parametrize("model_class, part", [(CBViLAVisionModel, "vision_config"), (CBViLATextModel, "text_config")])
def test_towers_check_theirs(model_class, part):
    config = getattr(tiny_config(), part)
    config.attention_probs_dropout_prob = 1.5
    with pytest.raises(ValueError, match=f"{part}: attention_probs_dropout_prob=1.5"):
        model_class(config)


@pytest.mark.parametrize(
    "fields, message",
    [
        ({"codebok_update": "ema"}, "there is no option 'codebok_update'; did you mean 'codebook_update'?"),
        ({"text_config": {"hiden_size": 24}}, "text_config: there is no option 'hiden_size'"),
        ({"vision_config": {"image_sizes": 24}}, "vision_config: there is no option 'image_sizes'"),
    ],
)
def test_misspelt_names_are_refused(fields, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        CBViLAConfig(**fields)
    CBViLAModel(tiny_config()).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=message):
        CBViLAModel.from_pretrained(tmp_path, **fields)


def test_unknown_names_are_refused_by_models_and_kept_from_files(tmp_path):
    CBViLAModel(tiny_config()).save_pretrained(tmp_path)
    with pytest.raises(TypeError, match="something_else"):
        CBViLAModel.from_pretrained(tmp_path, something_else=1)
    written = json.loads((tmp_path / "config.json").read_text())
    written |= {"codebook_sizes": [1, 2], "text_config": {**written["text_config"], "hidden_sizes": [1]}}
    (tmp_path / "config.json").write_text(json.dumps(written))
    assert CBViLAModel.from_pretrained(tmp_path).config.codebook_sizes == [1, 2]  # of a later version, say


@pytest.mark.parametrize("part", ["vision_config", "text_config", "multimodal_config"])
@pytest.mark.parametrize("value", [3, "x", [1]])
def test_parts_that_are_no_configurations(part, value, tmp_path):
    CBViLAForPreTraining(tiny_config()).save_pretrained(tmp_path)
    for make in (CBViLAConfig, lambda **fields: CBViLAForPreTraining.from_pretrained(tmp_path, **fields)):
        with pytest.raises(ValueError, match=f"{part} is .* expected a CBViLA.*Config or a dictionary of its fields"):
            make(**{part: value})


@pytest.mark.parametrize("name", ["itc_weight", "mim_weight", "gumbel_temperature", "pixel_sigma"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_numbers_are_finite(name, value):
    with pytest.raises(ValueError, match=f"{name}={value} "):
        CBViLAConfig(**{name: value})


@pytest.mark.parametrize("part", ["vision_config", "text_config", "multimodal_config"])
def test_activations_that_there_are_not(part):
    fields = tiny_config().to_dict()
    fields[part]["hidden_act"] = "gelo"
    with pytest.raises(ValueError, match="hidden_act='gelo' is no activation of transformers; did you mean 'gelu'"):
        CBViLAForPreTraining(CBViLAConfig(**fields))


def test_fields_of_the_fusion_encoder_can_be_overridden_as_those_of_others(tmp_path):
    """transformers has an argument of the same name, for something else."""
    CBViLAForPreTraining(tiny_config()).save_pretrained(tmp_path)
    for part in ("vision_config", "text_config", "multimodal_config"):
        for more in ({}, {"mim_weight": 0.5}):
            config = CBViLAForPreTraining.from_pretrained(
                tmp_path, **{part: {"hidden_dropout_prob": 0.25}}, **more
            ).config
            assert getattr(config, part).hidden_dropout_prob == 0.25
            assert getattr(config, part).hidden_size == getattr(tiny_config(), part).hidden_size
            assert config.mim_weight == more.get("mim_weight", tiny_config().mim_weight)
        with pytest.raises(ValueError, match="did you mean 'hidden_dropout_prob'"):
            CBViLAForPreTraining.from_pretrained(tmp_path, **{part: {"hidden_dropout_prop": 0.25}})
        with pytest.raises(ValueError, match="hidden_dropout_prob=5"):
            CBViLAForPreTraining.from_pretrained(tmp_path, **{part: {"hidden_dropout_prob": 5}})
