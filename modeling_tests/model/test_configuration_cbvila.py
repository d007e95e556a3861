import json

import pytest
import torch
from huggingface_hub.errors import StrictDataclassFieldValidationError
from tiny import pretraining_model, quantizer_of_config, tiny_config, tiny_images

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
from transformers_cbvila.model.nested_options_cbvila import FLAT_NAMES


def round_trip(config, folder):
    config.save_pretrained(folder)
    return CBViLAConfig.from_pretrained(folder)


def test_config_defaults_are_the_paper_sizes():
    config = CBViLAConfig()
    vision, text, fusion = config.vision_config, config.text_config, config.multimodal_config
    assert (vision.image_size, vision.patch_size, vision.num_patches) == (256, 16, 256)
    assert (vision.hidden_size, vision.num_hidden_layers, vision.num_attention_heads) == (768, 12, 12)
    assert (text.hidden_size, text.num_hidden_layers, text.vocab_size) == (768, 6, 30522)
    assert (fusion.hidden_size, fusion.num_hidden_layers, fusion.encoder_hidden_size) == (768, 6, 768)
    assert config.quantizer_config.size == 3000


def test_config_defaults_are_the_recommended_preset():
    config = CBViLAConfig()
    quantizer, objectives = config.quantizer_config, config.objectives
    assert config.to_dict() == CBViLAConfig.from_preset("recommended").to_dict()
    assert (quantizer.dim, quantizer.norm, quantizer.update) == (32, "l2", "ema")
    assert (quantizer.type, quantizer.gradient) == ("nearest", "straight_through")
    assert objectives["itc"].weight == 1 and not objectives["mim"].grad_to_vit and objectives["pixel"].on == "all"
    assert objectives["pixel"].weight == 3 and objectives["commitment"].weight == 1
    assert not objectives["pixel"].normalize


@pytest.mark.parametrize("preset", PRESETS)
def test_from_preset_keeps_common_options(preset):
    config = CBViLAConfig.from_preset(preset)
    mim, pixel, itm = (config.objectives[name] for name in ("mim", "pixel", "itm"))
    assert (mim.mask_stage, config.fusion_visual_pos, config.fusion_visual_cls) == ("post", "learned", "learned")
    assert (config.itm_kv, config.mim_cls_bag_weight, mim.head) == ("continuous", 0, "linear")
    assert (pixel.likelihood, pixel.reduction, pixel.sigma) == ("gaussian", "mean", None)
    assert pixel.grad_to_vit and not pixel.normalize and config.quantizer_config.size == 3000
    assert itm.negative_source == "similarity"


def test_from_preset_paper_options():
    config = CBViLAConfig.from_preset("paper")
    quantizer, objectives = config.quantizer_config, config.objectives
    # without a width of its own, codes have that of the image encoder
    assert (quantizer.dim, quantizer.norm, quantizer.update) == (None, "none", "loss")
    with torch.device("meta"):
        assert quantizer_of_config(config).table.codes.shape == (3000, 768)
    assert quantizer.gradient == "gumbel"
    assert config.loss_weights() == {
        "pixel": 1, "codebook": 1, "commitment": 0.25, "mim": 1, "itm": 1, "mlm": 1, "itc": 0
    }  # fmt: skip
    assert config.active_objectives() == ["mlm", "itm", "pixel", "codebook", "commitment", "mim"]
    assert objectives["mim"].grad_to_vit and objectives["pixel"].on == "both" and not config.has_contrastive_head


def test_from_preset_arguments_win():
    for fields in ({"objectives": {"commitment": {"weight": 0.5}}}, {"commitment_weight": 0.5}):
        config = CBViLAConfig.from_preset("paper", **fields)
        assert config.objectives["commitment"].weight == 0.5 and config.preset == "paper"
        assert config.objectives["mim"].grad_to_vit, "what else the preset says"


def test_from_preset_rejects_unknown_names():
    with pytest.raises(ValueError, match="'literal'.*recommended, paper"):
        CBViLAConfig.from_preset("literal")


@pytest.mark.parametrize("preset", PRESETS)
def test_config_round_trip(preset, tmp_path):
    config = tiny_config(preset, objectives={"mim": {"head": "tied"}, "pixel": {"normalize": True}})
    assert round_trip(config, tmp_path).to_dict() == config.to_dict()


def test_config_file_holds_preset_and_options(tmp_path):
    CBViLAConfig(quantizer_config={"size": 7}).save_pretrained(tmp_path)
    saved = json.loads((tmp_path / "config.json").read_text())
    quantizer = saved["quantizer_config"]
    assert (saved["preset"], quantizer["size"], quantizer["update"]) == ("recommended", 7, "ema")
    assert quantizer["type"] == "nearest" and saved["objectives"]["pixel"]["weight"] == 3


def test_multimodal_config_follows_text_and_vision():
    config = CBViLAConfig(
        vision_config={"hidden_size": 64, "num_attention_heads": 4},
        text_config={"hidden_size": 48, "num_attention_heads": 6, "hidden_act": "relu", "hidden_dropout_prob": 0.3},
        multimodal_config={"intermediate_size": 96},
    )
    fusion = config.multimodal_config
    assert (fusion.hidden_size, fusion.encoder_hidden_size, fusion.num_attention_heads) == (48, 64, 6)
    assert (fusion.hidden_act, fusion.hidden_dropout_prob, fusion.intermediate_size) == ("relu", 0.3, 96)


def test_config_round_trip_keeps_multimodal_options(tmp_path):
    """Also where fusion has the default of its class: what is left out of the file would follow the text encoder."""
    config = tiny_config(text={"hidden_dropout_prob": 0.0}, fusion={"hidden_dropout_prob": 0.1, "hidden_act": "gelu"})
    assert round_trip(config, tmp_path).multimodal_config.hidden_dropout_prob == 0.1


def test_config_takes_sub_configuration_objects():
    config = CBViLAConfig(
        vision_config=CBViLAVisionConfig(hidden_size=24),
        text_config=CBViLATextConfig(hidden_size=12),
        multimodal_config=CBViLAFusionConfig(hidden_size=12, encoder_hidden_size=24),
    )
    assert config.vision_config.hidden_size == 24 and config.multimodal_config.encoder_hidden_size == 24


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"quantizer_config": {"norm": "l1"}}, "quantizer_config: norm='l1'.*'l2', 'none'"),
        ({"quantizer_config": {"update": "sgd"}}, "quantizer_config: update='sgd'.*'ema', 'loss'"),
        ({"quantizer_config": {"gradient": "st"}}, "quantizer_config: gradient='st'.*'straight_through'"),
        ({"quantizer_config": {"type": "farthest"}}, "quantizer_config: type='farthest'.*'nearest'"),
        ({"quantizer_config": {"sizes": 9}}, "quantizer_config has no option 'sizes'; did you mean 'size'"),
        ({"quantizer_config": 3}, "quantizer_config is 3; expected a dictionary of options"),
        ({"objectives": {"mim": {"head": "mlp"}}}, r"objectives\['mim'\]: head='mlp'"),
        ({"objectives": {"mip": {}}}, "objectives: the name='mip' is not one of 'mlm', 'itm'"),
        (
            {"objectives": {"mim": {"heads": "tied"}}},
            r"objectives\['mim'\] has no option 'heads'; did you mean 'head'",
        ),
        ({"objectives": {"mim": 0.5}}, r"objectives\['mim'\] is 0.5; expected a dictionary"),
        ({"objectives": {"pixel": {"on": "none"}}}, r"objectives\['pixel'\]: on='none'"),
        ({"objectives": {"itm": {"negative_source": "queue"}}}, r"objectives\['itm'\]: negative_source='queue'"),
        ({"objectives": {"mim": {"mask_stage": "before"}}}, r"\['mim'\]: mask_stage='before'.*'post', 'pre'"),
        ({"fusion_visual_pos": "fixed"}, "fusion_visual_pos='fixed'"),
        ({"fusion_visual_cls": "mean"}, "fusion_visual_cls='mean'.*'vit'"),
        ({"itm_kv": "words"}, "itm_kv='words'.*'quantized'"),
        ({"objectives": {"pixel": {"likelihood": "l1"}}}, r"\['pixel'\]: likelihood='l1'.*'laplace'"),
        ({"objectives": {"pixel": {"reduction": "sum"}}}, r"\['pixel'\]: reduction='sum'.*'sum_patch'"),
        ({"objectives": {"pixel": {"sigma": 0}}}, r"\['pixel'\]: sigma=0"),
        ({"objectives": {"mim_cls_bag": {"weight": -1}}}, r"\['mim_cls_bag'\]: weight=-1"),
        (
            {"objectives": {"mim_cls_bag": {"weight": 1}}, "fusion_visual_cls": "none"},
            r"objectives\['mim_cls_bag'\].*weight=1.*fusion_visual_cls='none'",
        ),
        (
            {"itm_kv": "both", "objectives": {"pixel": {"grad_to_vit": False}}},
            "itm_kv='both'.*grad_to_vit=False of the pixel objective",
        ),
        ({"quantizer_config": {"size": 1}}, "quantizer_config: size=1"),
        ({"quantizer_config": {"dim": 0}}, "quantizer_config: dim=0"),
        ({"quantizer_config": {"decay": 1.0}}, r"quantizer_config: decay=1\.0"),
        ({"quantizer_config": {"temperature": 0}}, "quantizer_config: temperature=0"),
        ({"projection_dim": 0}, "projection_dim=0"),
        ({"objectives": {"itm": {"weight": -1}}}, r"objectives\['itm'\]: weight=-1"),
        ({"text_config": {"hidden_size": 100}}, "text_config.*100.*12"),
        ({"vision_config": {"hidden_size": 768, "num_attention_heads": 7}}, "vision_config.*768.*7"),
        ({"vision_config": {"image_size": 250}}, "250.*16.*240"),
        ({"vision_config": {"patch_size": 0}}, "patch_size=0"),
        ({"multimodal_config": {"hidden_size": 384}}, "384.*768"),
        ({"multimodal_config": {"encoder_hidden_size": 384}}, "384.*768"),
    ],
)
def test_config_rejects_bad_values(fields, message):
    with pytest.raises(ValueError, match=message):
        CBViLAConfig(**fields)


def test_config_rejects_bad_types():
    with pytest.raises(ValueError, match="quantizer_config: size='many' is not of type int"):
        CBViLAConfig(quantizer_config={"size": "many"})
    with pytest.raises(Exception, match="projection_dim"):
        CBViLAConfig(projection_dim="many")


def test_from_pretrained_reads_version_0_1_fusion_config(tmp_path):
    model = pretraining_model()
    model.save_pretrained(tmp_path)
    written = json.loads((tmp_path / "config.json").read_text())
    written["fusion_config"] = written.pop("multimodal_config")
    (tmp_path / "config.json").write_text(json.dumps(written))
    loaded = CBViLAForPreTraining.from_pretrained(tmp_path)
    assert loaded.config.multimodal_config.hidden_size == 24
    assert isinstance(loaded.config.multimodal_config, CBViLAFusionConfig)


def test_model_can_be_made_on_the_meta_device():
    with torch.device("meta"):
        model = CBViLAModel(tiny_config())
    assert {parameter.device.type for parameter in model.parameters()} == {"meta"}
    assert model(tiny_images().to("meta")).image_embeds.shape == (4, 16)


# Values that change after a configuration was made

OVERRIDES = [
    ({"quantizer_config": {"decay": 1.0}}, "quantizer_config: decay=1.0"),
    ({"objectives": {"mim": {"weight": -3}}}, r"objectives\['mim'\]: weight=-3"),
    ({"codebook_decay": 1.0}, "quantizer_config: decay=1.0"),  # names of version 0.1
    ({"mim_weight": -3}, r"objectives\['mim'\]: weight=-3"),
    ({"reasoning_fusion": "twin", "num_images": 3}, "reasoning_fusion='twin'"),
    ({"text_config": {"num_attention_heads": 5}}, "text_config: hidden_size 24 is not a multiple"),
    ({"text_config": {"hidden_dropout_prob": -1}}, "text_config: hidden_dropout_prob=-1"),
    ({"vision_config": {"image_size": 33}}, "image_size 33 is not a multiple of patch_size 8"),
    ({"vision_config": {"num_hidden_layers": -1}}, "vision_config: num_hidden_layers=-1"),
    ({"multimodal_config": {"hidden_size": 32}}, "must equal text_config.hidden_size"),
]


@pytest.mark.parametrize("fields, message", OVERRIDES)
def test_from_pretrained_checks_overrides(fields, message, tmp_path):
    CBViLAModel(tiny_config()).save_pretrained(tmp_path)
    for model_class in (CBViLAForPreTraining, CBViLAModel):
        with pytest.raises(ValueError, match=message):
            model_class.from_pretrained(tmp_path, **fields)


def change(options, changes):
    """Sets attributes, or what is in them."""
    for name, value in changes.items():
        if isinstance(value, dict):
            change(options[name] if isinstance(options, dict) else getattr(options, name), value)
        else:
            setattr(options, name, value)


@pytest.mark.parametrize("fields, message", OVERRIDES)
def test_model_checks_changed_config_values(fields, message):
    config = tiny_config()
    change(config, fields)
    with pytest.raises(ValueError, match=message):
        CBViLAForPreTraining(config)


CHOICES = [
    ({"quantizer_config": {"update": "emma"}}, "update='emma' is not one of", "'update' expected one of"),
    ({"objectives": {"pixel": {"likelihood": "laplac"}}}, "likelihood='laplac'", "'likelihood' expected one of"),
    ({"codebook_update": "emma"}, "update='emma' is not one of", "'update' expected one of"),
    ({"pixel_likelihood": "laplac"}, "likelihood='laplac'", "'likelihood' expected one of"),
]


@pytest.mark.parametrize("fields, message, at_once", CHOICES)
def test_config_choices_are_checked_everywhere(fields, message, at_once, tmp_path):
    CBViLAModel(tiny_config()).save_pretrained(tmp_path)
    for model_class in (CBViLAForPreTraining, CBViLAModel):
        with pytest.raises(ValueError, match=message):
            model_class.from_pretrained(tmp_path, **fields)
    with pytest.raises(StrictDataclassFieldValidationError, match=at_once):
        change(tiny_config(), fields)


@pytest.mark.parametrize("model_class, part", [(CBViLAVisionModel, "vision_config"), (CBViLATextModel, "text_config")])
def test_tower_models_check_their_config(model_class, part):
    config = getattr(tiny_config(), part)
    config.attention_probs_dropout_prob = 1.5
    with pytest.raises(ValueError, match=f"{part}: attention_probs_dropout_prob=1.5"):
        model_class(config)


@pytest.mark.parametrize(
    "fields, message",
    [
        ({"codebok_update": "ema"}, "there is no option 'codebok_update'; did you mean 'codebook_update'?"),
        ({"quantizer_confg": {}}, "there is no option 'quantizer_confg'; did you mean 'quantizer_config'?"),
        ({"quantizer_config": {"updat": "ema"}}, "quantizer_config has no option 'updat'; did you mean 'update'?"),
        ({"objectives": {"mim": {"wait": 1}}}, r"objectives\['mim'\] has no option 'wait'"),
        ({"text_config": {"hiden_size": 24}}, "text_config: there is no option 'hiden_size'"),
        ({"vision_config": {"image_sizes": 24}}, "vision_config: there is no option 'image_sizes'"),
    ],
)
def test_config_rejects_misspelt_names(fields, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        CBViLAConfig(**fields)
    CBViLAModel(tiny_config()).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=message):
        CBViLAModel.from_pretrained(tmp_path, **fields)


def test_config_keeps_unknown_names_of_files(tmp_path):
    CBViLAModel(tiny_config()).save_pretrained(tmp_path)
    with pytest.raises(TypeError, match="something_else"):
        CBViLAModel.from_pretrained(tmp_path, something_else=1)
    written = json.loads((tmp_path / "config.json").read_text())
    written |= {"codebook_sizes": [1, 2], "text_config": {**written["text_config"], "hidden_sizes": [1]}}
    (tmp_path / "config.json").write_text(json.dumps(written))
    assert CBViLAModel.from_pretrained(tmp_path).config.codebook_sizes == [1, 2]  # of a later version, say


@pytest.mark.parametrize("part", ["vision_config", "text_config", "multimodal_config"])
@pytest.mark.parametrize("value", [3, "x", [1]])
def test_config_rejects_parts_that_are_no_configuration(part, value, tmp_path):
    CBViLAForPreTraining(tiny_config()).save_pretrained(tmp_path)
    for make in (CBViLAConfig, lambda **fields: CBViLAForPreTraining.from_pretrained(tmp_path, **fields)):
        with pytest.raises(ValueError, match=f"{part} is .* expected a CBViLA.*Config or a dictionary of its fields"):
            make(**{part: value})


@pytest.mark.parametrize(
    "fields, message",
    [
        (lambda value: {"objectives": {"itc": {"weight": value}}}, r"objectives\['itc'\]: weight="),
        (lambda value: {"objectives": {"mim": {"weight": value}}}, r"objectives\['mim'\]: weight="),
        (lambda value: {"quantizer_config": {"temperature": value}}, "quantizer_config: temperature="),
        (lambda value: {"objectives": {"pixel": {"sigma": value}}}, r"objectives\['pixel'\]: sigma="),
        (lambda value: {"mim_weight": value}, r"objectives\['mim'\]: weight="),
    ],
)
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_config_rejects_numbers_that_are_not_finite(fields, message, value):
    with pytest.raises(ValueError, match=f"{message}{value} "):
        CBViLAConfig(**fields(value))


@pytest.mark.parametrize("part", ["vision_config", "text_config", "multimodal_config"])
def test_config_rejects_unknown_hidden_act(part):
    fields = tiny_config().to_dict()
    fields[part]["hidden_act"] = "gelo"
    with pytest.raises(ValueError, match="hidden_act='gelo' is no activation of transformers; did you mean 'gelu'"):
        CBViLAForPreTraining(CBViLAConfig(**fields))


def test_from_pretrained_overrides_multimodal_config_fields(tmp_path):
    """Also by its name of version 0.1, of which transformers has an argument, for something else."""
    CBViLAForPreTraining(tiny_config()).save_pretrained(tmp_path)
    for part in ("vision_config", "text_config", "multimodal_config", "fusion_config"):
        for more in ({}, {"objectives": {"mim": {"weight": 0.5}}}):
            config = CBViLAForPreTraining.from_pretrained(
                tmp_path, **{part: {"hidden_dropout_prob": 0.25}}, **more
            ).config
            name = "multimodal_config" if part == "fusion_config" else part
            assert getattr(config, name).hidden_dropout_prob == 0.25
            assert getattr(config, name).hidden_size == getattr(tiny_config(), name).hidden_size
            assert config.objectives["mim"].weight == (0.5 if more else tiny_config().objectives["mim"].weight)
        with pytest.raises(ValueError, match="did you mean 'hidden_dropout_prob'"):
            CBViLAForPreTraining.from_pretrained(tmp_path, **{part: {"hidden_dropout_prop": 0.25}})
        with pytest.raises(ValueError, match="hidden_dropout_prob=5"):
            CBViLAForPreTraining.from_pretrained(tmp_path, **{part: {"hidden_dropout_prob": 5}})


# Names of version 0.1, which had no nested options


@pytest.mark.parametrize("name", FLAT_NAMES)
def test_flat_names_set_nested_options(name, tmp_path):
    where, objective, option = FLAT_NAMES[name]

    def nested(config):
        found = getattr(config, where)
        return getattr(found if objective is None else found[objective], option)

    given = {"dim": 7, "size": 7, "norm": "none", "update": "loss", "decay": 0.5, "gradient": "rotation"} | {
        "temperature": 0.5, "weight": 0.5, "head": "tied", "grad_to_vit": True, "mask_stage": "pre", "on": "both",
        "likelihood": "laplace", "reduction": "sum_patch", "sigma": 0.5, "normalize": True,
        "negative_source": "uniform",
    }  # fmt: skip
    config = CBViLAConfig(**{name: given[option]})
    assert nested(config) == getattr(config, name) == given[option]
    config = CBViLAConfig()
    before = config.to_dict()
    assert hasattr(config, name) and config.to_dict() == before, "reading changes nothing"
    setattr(config, name, given[option])
    assert nested(config) == getattr(config, name) == given[option]
    CBViLAConfig().save_pretrained(tmp_path)
    assert nested(CBViLAConfig.from_pretrained(tmp_path, **{name: given[option]})) == given[option]


def test_config_keeps_options_that_are_not_overridden(tmp_path):
    config = CBViLAConfig(quantizer_config={"size": 7, "decay": 0.5}, objectives={"mim": {"head": "tied"}})
    config.save_pretrained(tmp_path)
    changes = {"quantizer_config": {"size": 9}, "objectives": {"mim": {"weight": 0.5}}, "itm_weight": 2.0}
    loaded = CBViLAConfig.from_pretrained(tmp_path, **changes)
    assert (loaded.quantizer_config.size, loaded.quantizer_config.decay) == (9, 0.5)
    assert (loaded.objectives["mim"].weight, loaded.objectives["mim"].head) == (0.5, "tied")
    assert loaded.objectives["itm"].weight == 2 and loaded.objectives["mlm"].weight == 1


def test_config_null_removes_an_objective():
    config = CBViLAConfig(objectives={"itc": None, "pixel": None, "mim": None, "codebook": None, "commitment": None})
    assert config.active_objectives() == ["mlm", "itm"]
    assert not config.has_contrastive_head and not config.has_quantizer
    with pytest.raises(ValueError, match="has no quantizer: give one of them a weight"):
        config.require_quantizer()
