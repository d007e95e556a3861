import pytest
import torch
from tiny import PATCHES, build, pretraining_model, tiny_config, tiny_pairs
from torch import nn

from transformers_cbvila.model import pair_similarity_cbvila
from transformers_cbvila.model.configuration_cbvila import CBViLAConfig
from transformers_cbvila.model.modeling_cbvila_image_text_retrieval import CBViLAForImageTextRetrieval
from transformers_cbvila.model.modeling_cbvila_masked_image_modeling import CBViLAForMaskedImageModeling
from transformers_cbvila.model.modeling_cbvila_pretraining import CBViLAForPreTraining
from transformers_cbvila.model.objectives_cbvila import OBJECTIVES
from transformers_cbvila.model.quantizers_cbvila import QUANTIZERS

OFF = {"weight": 0.0}
OF_IMAGES = ("pixel", "codebook", "commitment", "mim", "mim_cls_bag")


def without_gradient(model, batch):
    model.train()
    model(**batch).loss.backward()
    return [name for name, parameter in model.named_parameters() if parameter.grad is None]


def texts_and_images(batch):
    return {name: batch[name] for name in ("pixel_values", "input_ids", "attention_mask")}


# Nothing is built that no weight reaches


def test_objectives_without_images_have_no_quantizer():
    model = pretraining_model(objectives=dict.fromkeys(OF_IMAGES, OFF))
    built = ("quantizer", "visual_queries", "text_key_projection", "patch_mask_token", "pixel", "mim")
    assert not [name for name, _ in model.named_parameters() if any(part in name for part in built)]
    assert not [name for name in model.state_dict() if "quantizer" in name]
    assert list(model.objectives) == ["mlm", "itm", "itc"]
    output = model(**tiny_pairs())
    assert list(output.losses) == ["mlm", "itm", "itc"] and output.codebook_indices is None
    assert without_gradient(model, tiny_pairs()) == []
    model.after_step()  # there is nothing to move


@pytest.mark.parametrize(
    "objectives",
    [
        {},
        {"mlm": OFF, "itm": OFF},
        {"itc": OFF},
        {"mim": OFF},
        {"pixel": OFF, "codebook": OFF, "commitment": OFF, "mim": {"weight": 1.0, "grad_to_vit": True}},
        {"mim_cls_bag": {"weight": 1.0}, "mim": {"mask_stage": "pre", "grad_to_vit": True}},
        {"pixel": {"on": "both"}, "mim": {"head": "tied"}},
    ],
    ids=str,
)
def test_objectives_give_every_parameter_a_gradient(objectives):
    # the paper's codes learn by loss, and the others not at all by gradients
    assert without_gradient(pretraining_model(objectives=objectives), tiny_pairs()) == []


def test_masked_image_modeling_needs_image_objectives():
    with pytest.raises(ValueError, match="no quantizer"):
        CBViLAForMaskedImageModeling(tiny_config(objectives=dict.fromkeys(OF_IMAGES, OFF)))


def test_masked_image_modeling_without_pixel_has_no_reconstruction():
    model = build(CBViLAForMaskedImageModeling, objectives={"pixel": OFF})
    batch = tiny_pairs()
    output = model(batch["pixel_values"], batch["bool_masked_pos"], batch["input_ids"], batch["attention_mask"])
    assert "pixel" not in output.losses and output.reconstruction is None and output.logits.shape[1] == PATCHES
    with pytest.raises(ValueError, match="without the objective 'pixel'"):
        model.reconstruct(batch["pixel_values"])


def test_mim_targets_without_quantizer_are_rejected():
    model = pretraining_model(objectives=dict.fromkeys(OF_IMAGES, OFF))
    with pytest.raises(ValueError, match="no quantizer"):
        model(**tiny_pairs(), mim_targets=torch.zeros(4, PATCHES, dtype=torch.long))


def test_loss_weights_of_missing_objectives_are_rejected():
    model = pretraining_model(objectives={"mim": OFF})
    with pytest.raises(ValueError, match="asks for mim, but this model was built without"):
        model(**tiny_pairs(), loss_weights={"mim": 1.0})


# The heads are sets of the same objectives


@pytest.mark.parametrize(("source", "hardness"), [("similarity", 1.0), ("uniform", 0.0)])
@pytest.mark.parametrize("head", [CBViLAForPreTraining, CBViLAForImageTextRetrieval])
def test_negative_hardness_of_itm_objective_is_used(head, source, hardness, monkeypatch):
    asked = []
    choose = pair_similarity_cbvila.choose_negatives

    def watched(logits, matches, how_hard, *args, **kwargs):
        asked.append(how_hard)
        return choose(logits, matches, how_hard, *args, **kwargs)

    monkeypatch.setattr(pair_similarity_cbvila, "choose_negatives", watched)
    model = build(head, objectives={"itm": {"negative_source": source}}).train()
    batch = texts_and_images(tiny_pairs())
    extra = {} if head is CBViLAForPreTraining else {"return_loss": True}
    model(**batch, **extra)
    model(**batch, **extra, negative_hardness=0.25)
    model.eval()(**batch, **extra)
    assert asked == [hardness, 0.25, None]


# Negative captions


def negative_inputs(batch, given=(True, False, True, True), longer=3):
    """Texts of other pairs, padded to another length; rows that are not given have a mask of zeros."""
    ids, mask = batch["input_ids"].roll(1, 0), batch["attention_mask"].roll(1, 0)
    pad = (0, longer)
    rows = torch.tensor(given).unsqueeze(1)
    return {
        "negative_input_ids": nn.functional.pad(ids, pad),
        "negative_attention_mask": nn.functional.pad(mask, pad) * rows,
    }


@pytest.mark.parametrize("head", [CBViLAForPreTraining, CBViLAForImageTextRetrieval])
@pytest.mark.parametrize("ranking_weight", [0.0, 0.5])
def test_negative_captions_are_further_negatives_of_itm(head, ranking_weight):
    model = build(head, objectives={"itm": {"ranking_weight": ranking_weight}})
    batch = texts_and_images(tiny_pairs())
    extra = {} if head is CBViLAForPreTraining else {"return_loss": True}
    count = len(batch["input_ids"])
    given = [row != 1 for row in range(count)]
    with torch.no_grad():
        plain = model(**batch, **extra)
        output = model(**batch, **negative_inputs(batch, given), **extra)
        alone = build_matching(model)(**{**batch, **shifted(batch)}).itm_logits
    assert len(output.itm_logits) == 4 * count
    torch.testing.assert_close(output.itm_logits[: 3 * count], plain.itm_logits)
    torch.testing.assert_close(output.itm_logits[3 * count :][given], alone[given])
    labels = torch.tensor([1] * count + [0] * 3 * count)
    kept = torch.tensor([True] * 3 * count + given)
    expected = nn.functional.cross_entropy(output.itm_logits[kept], labels[kept])
    torch.testing.assert_close(itm_of(output), expected)


def shifted(batch):
    return {name: batch[name].roll(1, 0) for name in ("input_ids", "attention_mask")}


def build_matching(model):
    """The retrieval head with a model's weights, which scores pairs as they are given."""
    matching = build(CBViLAForImageTextRetrieval, model.config).eval()
    weights = model.state_dict()
    matching.load_state_dict({name: weights[name] for name in matching.state_dict()})
    return matching


def itm_of(output):
    return output.itm_loss if "itm_loss" in output else output.losses["itm"]


def test_negative_captions_can_be_left_out():
    model = pretraining_model(tiny_config(objectives={"itm": {"negative_captions": False}}))
    batch = texts_and_images(tiny_pairs())
    count = len(batch["input_ids"])
    torch.testing.assert_close(
        model(**batch, **negative_inputs(batch, [True] * count)).losses["itm"], model(**batch).losses["itm"]
    )


def test_negative_captions_of_other_numbers_are_rejected():
    model, batch = pretraining_model(), texts_and_images(tiny_pairs())
    negatives = negative_inputs(batch, [True] * len(batch["input_ids"]))
    with pytest.raises(ValueError, match=r"2 negative text\(s\) for \d+ pair"):
        model(**batch, **{name: value[:2] for name, value in negatives.items()})
    with pytest.raises(ValueError, match="without negative_input_ids"):
        model(**batch, negative_attention_mask=negatives["negative_attention_mask"])


def test_retrieval_losses_equal_pretraining():
    """The terms of the same weights on the same pairs, without dropout."""
    pretraining = pretraining_model(tiny_config())
    retrieval = build(CBViLAForImageTextRetrieval, tiny_config())
    weights = pretraining.state_dict()
    retrieval.load_state_dict({name: weights[name] for name in retrieval.state_dict()})
    batch = texts_and_images(tiny_pairs())
    expected, found = pretraining(**batch).losses, retrieval(**batch, return_loss=True)
    torch.testing.assert_close(found.itm_loss, expected["itm"])
    torch.testing.assert_close(found.itc_loss, expected["itc"])
    torch.testing.assert_close(found.loss, expected["itm"] + expected["itc"])


def test_masked_image_modeling_losses_equal_pretraining():
    fields = {"objectives": {"mim_cls_bag": {"weight": 1.0}, "pixel": {"on": "both"}}}
    pretraining = pretraining_model(tiny_config(**fields))
    model = build(CBViLAForMaskedImageModeling, tiny_config(**fields))
    weights = pretraining.state_dict()
    model.load_state_dict({name: weights[name] for name in model.state_dict()})
    batch = tiny_pairs()
    expected = pretraining(**batch).losses
    names = ("pixel_values", "bool_masked_pos", "input_ids", "attention_mask")
    found = model(**{name: batch[name] for name in names}).losses
    assert set(found) == {"pixel", "commitment", "mim", "mim_cls_bag"}
    for name, loss in found.items():
        torch.testing.assert_close(loss, expected[name], msg=name)


def test_mim_and_mim_cls_bag_share_a_query(monkeypatch):
    model = pretraining_model(objectives={"mim_cls_bag": {"weight": 1.0}, "pixel": OFF})
    rows = []
    fuse = model.cbvila.fuse_visual_queries

    def watched(tokens, *args, **kwargs):
        rows.append(tokens.shape[0])
        return fuse(tokens, *args, **kwargs)

    monkeypatch.setattr(model.cbvila, "fuse_visual_queries", watched)
    batch = tiny_pairs()
    assert {"mim", "mim_cls_bag"} <= set(model(**batch).losses) and rows == [len(batch["input_ids"])]


# The configuration


def test_objectives_not_named_keep_defaults():
    config = CBViLAConfig(objectives={"mim": {"weight": 0.5}}, quantizer_config={"size": 64})
    assert config.objectives["mim"].weight == 0.5 and config.objectives["pixel"].weight == 3.0
    assert config.quantizer_config.type == "nearest" and config.quantizer_config.dim == 32


def test_objectives_null_removes_an_objective():
    assert CBViLAConfig(objectives={"itm": None}).loss_weights()["itm"] == 0


def test_objectives_flat_and_nested_names_are_equal():
    flat = CBViLAConfig(codebook_size=64, quantizer_gradient="rotation", mim_head="tied", norm_pix_loss=True)
    nested = CBViLAConfig(
        quantizer_config={"size": 64, "gradient": "rotation"},
        objectives={"mim": {"head": "tied"}, "pixel": {"normalize": True}},
    )
    assert flat.to_dict() == nested.to_dict()
    flat.mim_weight = 0.25
    assert flat.objectives["mim"].weight == flat.mim_weight == 0.25


def test_config_file_has_every_option_nested(tmp_path):
    config = CBViLAConfig(objectives={"mim_cls_bag": {"weight": 0.5}})
    config.save_pretrained(tmp_path)
    loaded = CBViLAConfig.from_pretrained(tmp_path)
    assert loaded.to_dict()["objectives"] == config.to_dict()["objectives"]
    defaults = {name for name, cls in OBJECTIVES.items() if cls.is_default}
    assert set(loaded.to_dict()["objectives"]) == defaults | {"mim_cls_bag"}
    assert not {"codebook_size", "mim_weight", "fusion_config"} & set(loaded.to_dict())


@pytest.mark.parametrize("changes", [{"objectives": {"mim": {"weight": 0.0}}}, {"mim_weight": 0.0}])
def test_from_pretrained_merges_given_objectives(changes, tmp_path):
    pretraining_model(objectives={"itc": {"weight": 0.5}}).save_pretrained(tmp_path)
    loaded = CBViLAForPreTraining.from_pretrained(tmp_path, **changes)
    assert loaded.config.loss_weights()["itc"] == 0.5 and "mim" not in loaded.objectives
    assert loaded.config.quantizer_config.size == tiny_config().quantizer_config.size


def test_quantizer_type_change_resets_its_options():
    config = tiny_config(quantizer_config={"type": "nearest", "size": 7, "decay": 0.5})
    assert config.quantizer_config.size != 7  # the flat codebook_size of the tiny configuration is said over it
    other = CBViLAConfig.from_dict(config.to_dict(), quantizer_config={"type": "residual"})
    assert other.quantizer_config.type == "residual" and other.quantizer_config.decay == 0.99


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"quantizer_config": {"type": "nearst"}}, f"type='nearst' is not one of {', '.join(map(repr, QUANTIZERS))}"),
        ({"quantizer_config": {"type": "nearst"}}, r"Did you mean 'nearest'\? A class from outside"),
        ({"objectives": {"codebok": {}}}, r"Did you mean 'codebook'\?"),
        ({"quantizer_config": {"siz": 3}}, "no option 'siz'; did you mean 'size'"),
        ({"quantizer_config": {"update": "sgd"}}, "update='sgd' is not one of 'ema', 'loss'"),
        ({"quantizer_config": {"size": 1}}, "size=1 must be at least 2"),
        ({"quantizer_config": {"size": "many"}}, "size='many' is not of type int"),
        ({"quantizer_config": 3}, "quantizer_config is 3; expected a dictionary"),
        ({"objectives": {"mimm": {}}}, "'mimm' is not one of"),
        ({"objectives": {"mim": 1.0}}, r"objectives\['mim'\] is 1.0; expected a dictionary"),
        ({"objectives": {"mim": {"weight": -1.0}}}, r"objectives\['mim'\]: weight=-1.0 must be at least 0"),
        ({"objectives": {"mim": {"weight": float("nan")}}}, "weight=nan must be at least 0 and finite"),
        ({"objectives": {"pixel": {"on": "some"}}}, "on='some' is not one of 'all', 'masked', 'both'"),
        ({"objectives": ["mim"]}, r"objectives is \['mim'\]; expected a dictionary"),
        ({"codebook_sise": 3}, "did you mean 'codebook_size'"),
    ],
)
def test_objectives_reject_bad_options(fields, message):
    with pytest.raises(ValueError, match=message):
        CBViLAConfig(**fields)


def test_after_step_reaches_objectives():
    calls = []

    class Counting(nn.Module):
        def after_step(self):
            calls.append(torch.is_grad_enabled())

    model = pretraining_model()
    model.objectives["counting"] = Counting()
    model.after_step()
    assert calls == [False]
