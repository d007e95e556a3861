"""Consistency of codes between two views: values by hand, gradient routing, several processes."""

import math

import pytest
import torch
from gradient_groups import GROUPS
from tiny import PATCHES, build, pretraining_model, tiny_config, tiny_pairs
from tiny_quantizers import latents_of, visual_tokens
from two_processes import run_in_two

from transformers_cbvila.data.masking import generator_for
from transformers_cbvila.model.configuration_cbvila import CBViLAConfig
from transformers_cbvila.model.modeling_cbvila_masked_image_modeling import CBViLAForMaskedImageModeling
from transformers_cbvila.model.modeling_cbvila_pretraining import CBViLAForPreTraining
from transformers_cbvila.model.objective_sgc_consistency_cbvila import class_divergences, code_probabilities
from transformers_cbvila.model.quantizer_output_cbvila import CBViLAQuantizerHints

TERM = "sgc_consistency"


def consistency_model(options=None, **quantizer):
    config = tiny_config()
    config.quantizer_config = {"type": "class_guided", "size": 16, "dim": 8, **quantizer}
    config.objectives = {**config.objectives, TERM: {"temperature": 0.5, **(options or {})}}
    model = pretraining_model(config)
    quantizer = model.cbvila.quantizer
    classes = CBViLAQuantizerHints(torch.arange(8 * PATCHES) % 3)
    quantizer.fit(latents_of(quantizer, visual_tokens(8, seed=9)), generator_for(1), 1.0, classes)
    return model.train()


def two_views(batch=4):
    pairs, generator = tiny_pairs(batch), generator_for(5)
    noise = torch.randn(pairs["pixel_values"].shape, generator=generator)
    classes = torch.randint(-1, 3, (2, batch, PATCHES), generator=generator)
    return pairs | {
        "token_classes": classes[0],
        "other_pixel_values": pairs["pixel_values"] + 0.3 * noise,
        "other_token_classes": classes[1],
    }


def alone(model, batch=None):
    model.zero_grad()
    weights = dict.fromkeys(model.config.loss_weights(), 0.0) | {TERM: 1.0}
    output = model(**(batch or two_views()), loss_weights=weights)
    if output.loss is not None:
        output.loss.backward()
    return output


def test_code_probabilities_by_hand():
    """Squared distances 1 and 4: probabilities 1 / (1 + e^-3) at temperature 1."""
    found = code_probabilities(torch.tensor([[[1.0, 0.0]]]), torch.tensor([[0.0, 0.0], [3.0, 0.0]]), 1.0)
    assert found[0, 0].tolist() == pytest.approx([1 / (1 + math.exp(-3)), 1 / (1 + math.exp(3))])


def test_class_divergences_by_hand():
    """Image 0: class 0 is in both views, 1 in the first and 2 in the second one only. Image 1: nothing is known."""
    p, q, r = (torch.tensor(row, dtype=torch.float64) for row in ([0.5, 0.5], [0.9, 0.1], [0.3, 0.7]))
    first, second = torch.stack([torch.stack([p, q, r])] * 2), torch.stack([torch.stack([q, q, p])] * 2)
    classes = torch.tensor([[0, 0, 1], [-1, -1, -1]]), torch.tensor([[0, 2, -1], [-1, -1, -1]])
    divergences, counted = class_divergences((first, second), classes)
    mean = torch.tensor([0.7, 0.3], dtype=torch.float64)
    expected = ((mean * (mean / q).log()).sum() + (q * (q / mean).log()).sum()) / 2
    assert counted.sum() == 1 and divergences[counted].item() == pytest.approx(expected.item(), abs=1e-6)
    assert expected.item() == pytest.approx(0.2 * (math.log(3) - math.log(7 / 9)) / 2, abs=1e-6)


def test_class_divergences_are_per_image():
    rows = torch.eye(3).unsqueeze(1)  # three images with one token each
    classes = torch.zeros(3, 1, dtype=torch.long)
    divergences, counted = class_divergences((rows, rows), (classes, classes))
    assert counted.tolist() == [True] * 3 and divergences.tolist() == [0] * 3


def test_consistency_of_equal_views_is_0():
    batch = two_views()
    batch |= {"other_pixel_values": batch["pixel_values"], "other_token_classes": batch["token_classes"]}
    assert alone(consistency_model(), batch).losses[TERM].item() == pytest.approx(0, abs=1e-6)


def test_consistency_equals_its_functions():
    model, batch = consistency_model(), two_views()
    output, quantizer = alone(model, batch), model.cbvila.quantizer
    latents = [
        quantizer.encode(model.cbvila.vision_model(batch[name]).last_hidden_state[:, 1:])
        for name in ("pixel_values", "other_pixel_values")
    ]
    probabilities = [code_probabilities(values, quantizer.table.codes, 0.5) for values in latents]
    classes = batch["token_classes"], batch["other_token_classes"]
    divergences, counted = class_divergences(probabilities, classes)
    torch.testing.assert_close(output.losses[TERM], divergences[counted].mean())
    assert 0.5 * counted.sum() < sum(len(set(row.tolist()) - {-1}) for row in classes[0])


@pytest.mark.parametrize("grad_to_both", [False, True])
@pytest.mark.parametrize("update", ["ema", "loss"])
def test_consistency_gradient_routing(grad_to_both, update):
    """The image encoder and the projection to latents, and nothing else: neither codes nor texts."""
    model = consistency_model({"grad_to_both": grad_to_both}, update=update)
    alone(model)
    groups = {
        group
        for group, prefixes in GROUPS.items()
        for name, p in model.named_parameters()
        if name.startswith(prefixes) and p.grad is not None and p.grad.abs().max() > 1e-7
    }
    assert groups == {"vit", "in_proj"}


def test_consistency_trains_through_both_views_if_asked():
    gradients = []
    for both in (False, True):
        model, batch = consistency_model({"grad_to_both": both}), two_views()
        batch["other_pixel_values"].requires_grad_()
        alone(model, batch)
        gradients.append(batch["other_pixel_values"].grad)
    assert gradients[0] is None and gradients[1].any()


def test_consistency_counts_only_the_first_view_in_moving_averages():
    model = consistency_model()
    alone(model)
    assert model.cbvila.quantizer.table.pending_counts.sum() == 4 * PATCHES


@pytest.mark.parametrize(
    "left_out", [("other_pixel_values", "other_token_classes"), ("other_token_classes",), ("token_classes",)]
)
def test_consistency_needs_two_views_with_classes(left_out):
    batch = {name: value for name, value in two_views().items() if name not in left_out}
    assert TERM not in alone(consistency_model(), batch).losses


def test_consistency_is_absent_in_evaluation():
    assert TERM not in consistency_model().eval()(**two_views()).losses


def test_consistency_of_no_known_class_is_0():
    batch = two_views()
    batch["token_classes"] = torch.full_like(batch["token_classes"], -1)
    model = consistency_model()
    assert alone(model, batch).losses[TERM] == 0
    assert not any(p.grad.any() for p in model.parameters() if p.grad is not None)


def test_consistency_rejects_classes_without_a_view():
    batch = {name: value for name, value in two_views().items() if name != "other_pixel_values"}
    with pytest.raises(ValueError, match="other_token_classes are given without other_pixel_values"):
        consistency_model()(**batch)


@pytest.mark.parametrize(
    ("objective", "quantizer", "message"),
    [
        ({}, {}, r"\['sgc_consistency'\].*'nearest' takes no classes: choose"),
        ({"temperature": 0.0}, {"type": "class_guided"}, "temperature=0.0 must be above 0"),
    ],
)
def test_consistency_rejects_bad_options(objective, quantizer, message):
    with pytest.raises(ValueError, match=message):
        CBViLAConfig(objectives={TERM: objective}, quantizer_config=quantizer)


def test_consistency_is_left_out_of_masked_image_modeling():
    config = consistency_model().config
    assert TERM not in build(CBViLAForMaskedImageModeling, config).objectives


def test_consistency_save_and_load(tmp_path):
    model = consistency_model()
    model.save_pretrained(tmp_path)
    loaded = CBViLAForPreTraining.from_pretrained(tmp_path).train()
    assert loaded.config.objectives[TERM].temperature == 0.5
    assert torch.equal(alone(loaded).losses[TERM], alone(model).losses[TERM])


def gradients(rank, rows):
    """The loss and gradients of some rows; on one process fewer pairs of image and class are in both views."""
    model, batch = consistency_model(), two_views()
    batch["token_classes"][2:] = batch["token_classes"][2:].clamp_max(0)
    own = {name: value[rows[rank]] for name, value in batch.items()}
    output = alone(model, own)
    return output.losses[TERM].detach(), {n: p.grad for n, p in model.named_parameters() if p.grad is not None}


def test_consistency_on_two_processes_equals_one(tmp_path):
    (first, by_first), (second, by_second) = run_in_two(gradients, tmp_path, [slice(0, 1), slice(1, 4)])
    expected, whole = gradients(0, [slice(0, 4)])
    torch.testing.assert_close((first + second) / 2, expected, rtol=1e-5, atol=1e-5)
    for name, value in whole.items():
        torch.testing.assert_close((by_first[name] + by_second[name]) / 2, value, rtol=1e-5, atol=1e-5, msg=name)
