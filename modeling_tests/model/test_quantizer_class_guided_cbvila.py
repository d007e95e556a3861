"""Class-guided quantization: hand-computed values, quotas, restarts within a class, and use without classes."""

import copy

import pytest
import torch
from tiny import PATCHES, build, pretraining_model, tiny_config, tiny_pairs
from tiny_quantizers import fitted_model, initialize, latents_of, tiny_quantizer, visual_tokens
from two_processes import run_in_two

from transformers_cbvila.data.masking import generator_for
from transformers_cbvila.model.configuration_cbvila import CBViLAConfig
from transformers_cbvila.model.modeling_cbvila_masked_image_modeling import CBViLAForMaskedImageModeling
from transformers_cbvila.model.modeling_cbvila_pretraining import CBViLAForPreTraining
from transformers_cbvila.model.quantizer_class_guided_cbvila import CBViLAClassGuidedQuantizer, class_quotas
from transformers_cbvila.model.quantizer_output_cbvila import CBViLAQuantizerHints

K = 16
OPTIONS = {"type": "class_guided", "size": K, "dim": 8}
LITERAL = {**OPTIONS, "dim": None, "norm": "none"}  # latents are the tokens
CORNERS = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
TOKENS = torch.tensor([[[0.9, 0.2], [0.1, 0.6], [0.6, 0.9]]], dtype=torch.float64)


def hints(*classes):
    return CBViLAQuantizerHints(torch.tensor(classes))


def some_classes(batch=4, number=3, seed=0, least=0):
    return torch.randint(least, number, (batch, PATCHES), generator=generator_for(seed, 7))


def plane(labels=(0, 0, 1, 1), codes=CORNERS, **options):
    """Four codes in a plane, in fp64."""
    options = {"size": len(codes), "dim": None, "norm": "none", "decay": 0.5, **options}
    cls = CBViLAClassGuidedQuantizer
    quantizer = cls(cls.options_class.build({"type": "class_guided", **options}, "quantizer_config"), 2).double()
    quantizer.table.set_codes(codes)
    quantizer.code_labels.copy_(torch.tensor(labels))
    return quantizer.train()


def apart(points, others):
    """Distances (n, m) without the rounding of a matrix product."""
    return torch.cdist(points, others, compute_mode="donot_use_mm_for_euclid_dist")


# Assignment


@pytest.mark.parametrize(
    ("classes", "penalty", "expected", "agreement"),
    [
        ((0, 0, -1), 0.0, [1, 2, 3], 1.0),
        ((0, 0, -1), 0.3, [1, 0, 3], 0.5),
        ((0, 0, -1), 1.0, [1, 0, 3], 0.5),
        ((0, 0, -1), "hard", [1, 0, 3], 0.5),
        ((1, 0, -1), 0.0, [1, 2, 3], 1.0),
        ((1, 0, -1), 0.3, [1, 0, 3], 0.5),
        ((1, 0, -1), 1.0, [3, 0, 3], 0.0),
        ((1, 0, -1), "hard", [3, 0, 3], 0.0),
    ],
)
def test_class_guided_assignment_by_hand(classes, penalty, expected, agreement):
    quantizer = plane(**({"hard": True} if penalty == "hard" else {"penalty": penalty}))
    output = quantizer(TOKENS, hints=hints(classes))
    assert output.indices.tolist() == [expected] and output.metrics["label_agreement"] == agreement
    assert quantizer.lookup(TOKENS, hints(classes)).tolist() == [expected]
    assert quantizer.eval()(TOKENS, hints=hints(classes)).indices.tolist() == [expected]
    assert torch.equal(output.quantized, CORNERS[output.indices].double())


def test_class_guided_without_classes_takes_the_nearest_code():
    quantizer = plane(hard=True)
    for given in (None, CBViLAQuantizerHints(), hints((-1, -1, -1)), hints((7, 8, 9))):
        assert quantizer(TOKENS, hints=given).indices.tolist() == [[1, 2, 3]], "unknown, or of a class without codes"


def test_class_guided_penalizes_codes_of_no_class():
    assert plane(labels=(0, -1, -1, -1), penalty=0.9).lookup(TOKENS, hints((0, 0, 0))).tolist() == [[0, 0, 3]]
    assert plane(labels=(0, -1, -1, -1), hard=True).lookup(TOKENS, hints((0, 0, 0))).tolist() == [[0, 0, 0]]


def test_class_guided_ties_go_to_the_first_code():
    halfway = torch.tensor([[[0.5, 0.5]]], dtype=torch.float64)
    assert plane().lookup(halfway, hints((1,))).tolist() == [[2]] and plane().lookup(halfway).tolist() == [[0]]


def test_class_guided_rejects_classes_of_another_shape():
    with pytest.raises(ValueError, match=r"token_classes has shape \(1, 2\); expected \(1, 3\)"):
        plane()(TOKENS, hints=hints((0, 1)))


@pytest.mark.parametrize("batches", [1, 40])
def test_class_guided_looks_up_many_tokens_as_one_by_one(batches):
    quantizer = tiny_quantizer(OPTIONS)
    quantizer.code_labels.copy_(torch.arange(K) % 3)
    tokens, classes = visual_tokens(batches * 8), some_classes(batches * 8, 4, least=-1)
    latents = quantizer.encode(tokens)
    distances = torch.cdist(latents.double(), quantizer.table.codes.double().unsqueeze(0)).square()
    other = (quantizer.code_labels != classes.unsqueeze(-1)) & ((classes >= 0) & (classes < 3)).unsqueeze(-1)
    expected = (distances + other).argmin(-1)
    assert (quantizer.lookup(latents, CBViLAQuantizerHints(classes)) == expected).float().mean() > 0.999


# Quotas and k-means


@pytest.mark.parametrize(
    ("frequencies", "size", "least", "expected"),
    [
        ((900, 90, 10), 16, 2, [9, 4, 3]),
        ((900, 90, 10), 3, 2, [1, 1, 1]),
        ((4, 4), 5, 0, [3, 2]),
        ((9, 5, 4), 2, 1, [1, 1, 0]),
        ((7,), 5, 1, [5]),
    ],
)
def test_class_quotas_by_hand(frequencies, size, least, expected):
    assert class_quotas(torch.tensor(frequencies), size, least).tolist() == expected


def test_class_guided_fit_is_class_by_class():
    quantizer = tiny_quantizer({**LITERAL, "size": 12, "least_codes": 2})
    latents, classes = latents_of(quantizer, visual_tokens(16, seed=9)), some_classes(16, 3).flatten()
    classes[:40] = -1
    quantizer.fit(latents, generator_for(1), 0.5, CBViLAQuantizerHints(classes))
    frequencies = torch.bincount(classes[40:])
    labels, quotas = quantizer.code_labels, class_quotas(frequencies, 12, 2)
    assert labels.tolist() == [0] * quotas[0] + [1] * quotas[1] + [2] * quotas[2]
    for label in range(3):
        own = latents[classes == label]
        nearest = torch.cdist(own, quantizer.table.codes[labels == label]).argmin(-1)
        for place, code in enumerate(quantizer.table.codes[labels == label]):
            assert (code - own[nearest == place].mean(0)).norm() < 1.5, "about the centre of latents of its class"
        counted = quantizer.table.ema_counts[labels == label].sum()
        assert counted == frequencies[label] / 2, "latents of this class only, times the scale"
    assert quantizer.is_fitted and quantizer.label_agreement is None


def test_class_guided_fit_fills_up_rare_classes():
    quantizer = tiny_quantizer({**LITERAL, "size": 8, "least_codes": 4})
    latents, classes = latents_of(quantizer, visual_tokens(4, seed=9)), torch.zeros(4 * PATCHES, dtype=torch.long)
    classes[0], classes[1] = 1, -1  # one latent of the rare class, one of none, and four codes
    quantizer.fit(latents, generator_for(1), 1.0, CBViLAQuantizerHints(classes))
    rare = quantizer.table.codes[quantizer.code_labels == 1]
    assert len(rare) == 4 and len(rare.unique(dim=0)) == 4
    distances = torch.cdist(rare, latents[:2])
    assert distances.amin(1).max() < 0.3, "itself, the latent of no class, and copies"
    assert (distances.amin(0) < 1e-4).all()


def test_class_guided_fitted_without_classes_is_nearest(caplog):
    nearest = tiny_quantizer({"type": "nearest", "size": K, "dim": 8})
    guided = tiny_quantizer(OPTIONS)
    assert "fitted without classes of tokens" in caplog.text
    assert guided.code_labels.tolist() == [-1] * K
    guided.table.load_state_dict(nearest.table.state_dict())
    for step in range(3):
        tokens, classes = visual_tokens(seed=step), CBViLAQuantizerHints(some_classes(seed=step))
        outputs = nearest(tokens), guided(tokens, hints=classes)
        for name in ("quantized", "detached", "indices", "counts"):
            assert torch.equal(outputs[0][name], outputs[1][name]), name
        assert torch.equal(outputs[0].terms["commitment"], outputs[1].terms["commitment"])
        nearest.after_step()
        guided.after_step()
        assert torch.equal(nearest.table.codes, guided.table.codes)


def test_class_guided_fits_codes_that_learn_by_loss():
    quantizer = tiny_quantizer({**OPTIONS, "update": "loss"})
    latents = latents_of(quantizer, visual_tokens(8, seed=9))
    quantizer.fit(latents, generator_for(1), 1.0, CBViLAQuantizerHints(some_classes(8).flatten()))
    assert set(quantizer.code_labels.tolist()) == {0, 1, 2} and not quantizer.can_restart
    output = quantizer(visual_tokens(), hints=CBViLAQuantizerHints(some_classes()))
    assert {"codebook", "commitment"} == set(output.terms)


# Moving averages and restarts


def test_class_guided_averages_follow_the_guided_assignment():
    quantizer = plane()
    quantizer(TOKENS, hints=hints((0, 0, -1)))  # codes 1, 0, 3, where nearest codes are 1, 2, 3
    quantizer.after_step()
    counts = torch.tensor([1.0, 1.0, 0.5, 1.0], dtype=torch.float64)
    torch.testing.assert_close(quantizer.table.ema_counts, counts)
    expected = torch.stack([TOKENS[0, 1] / 2, (CORNERS[1] + TOKENS[0, 0]) / 2, CORNERS[2], (1 + TOKENS[0, 2]) / 2])
    torch.testing.assert_close(quantizer.table.codes, expected)


def test_class_guided_restarts_within_a_class():
    quantizer = tiny_quantizer(LITERAL)
    quantizer.code_labels.copy_(torch.tensor([0] * 6 + [1] * 6 + [2] * 3 + [-1]))
    tokens, classes = visual_tokens(), some_classes(number=2)
    quantizer(tokens, hints=CBViLAQuantizerHints(classes))
    quantizer.after_step()
    before = quantizer.table.codes.clone()
    moved = quantizer.restart(1e9, 1.0, generator_for(0))
    assert moved == 13 and torch.equal(quantizer.table.codes[12:15], before[12:15]), "no latent is of class 2"
    for label in (0, 1):
        own = tokens[classes == label]
        distances = apart(quantizer.table.codes[quantizer.code_labels == label], own)
        assert (distances.amin(1) < 1e-5).all() and len(distances.argmin(1).unique()) == 6, "different ones"
    assert apart(quantizer.table.codes[15:], tokens.flatten(0, 1)).min() < 1e-5


def test_class_guided_restarts_anywhere_without_classes():
    quantizer = tiny_quantizer(LITERAL)
    quantizer.code_labels.zero_()
    quantizer(visual_tokens())
    quantizer.after_step()
    assert quantizer.restart(1e9, 1.0, generator_for(0)) == K


def shared_step(rank, parts):
    """A step and a restart; ranks hold tokens of different numbers and classes."""
    quantizer = tiny_quantizer(LITERAL)
    tokens, classes = visual_tokens(8, seed=9), some_classes(8)
    quantizer.fit(latents_of(quantizer, tokens), generator_for(1), 1.0, CBViLAQuantizerHints(classes.flatten()))
    tokens, classes = visual_tokens(4, seed=2), some_classes(4, seed=2)
    classes[:1], classes[1:] = 0, classes[1:].clamp_min(1)  # class 0 is on the first process alone
    quantizer(tokens[parts[rank]], hints=CBViLAQuantizerHints(classes[parts[rank]]))
    quantizer.after_step()
    fitted = copy.deepcopy(quantizer.state_dict())
    moved = quantizer.restart(1e9, 1.0, generator_for(3))
    return fitted, {"codes": quantizer.table.codes, "moved": moved, "tokens": tokens, "classes": classes}


def test_class_guided_on_two_processes_equals_one(tmp_path):
    (first, moved), (second, others) = run_in_two(shared_step, tmp_path, [slice(0, 1), slice(1, 4)])
    expected, whole = shared_step(0, [slice(0, 4)])
    for name, value in expected.items():
        torch.testing.assert_close(first[name], value, rtol=1e-5, atol=1e-5, msg=name)
        assert torch.equal(first[name], second[name]), name
    assert torch.equal(moved["codes"], others["codes"]) and moved["moved"] == others["moved"] == K
    torch.testing.assert_close(moved["codes"], whole["codes"], rtol=1e-5, atol=1e-5)
    for label in range(3):
        own = whole["tokens"][whole["classes"] == label]
        assert (apart(moved["codes"][expected["code_labels"] == label], own).amin(1) < 1e-5).all()


# How far indices without classes agree


def test_label_agreement_is_measured_and_saved(tmp_path):
    model = fitted_model(OPTIONS).train()
    quantizer = model.cbvila.quantizer
    quantizer.code_labels.copy_(torch.arange(K) % 3)
    assert quantizer.label_agreement is None and quantizer.saved_metrics() == {}
    batch = tiny_pairs() | {"token_classes": some_classes()}
    output = model(**batch)
    share = output.codebook_statistics["label_agreement"].item()
    with torch.no_grad():
        plain = model.eval()(**tiny_pairs()).codebook_indices
    assert share == pytest.approx((plain == output.codebook_indices).float().mean().item()) and 0 < share < 1
    model.after_step()
    assert quantizer.label_agreement == pytest.approx(share)
    model.save_pretrained(tmp_path)
    loaded = CBViLAForPreTraining.from_pretrained(tmp_path).cbvila.quantizer
    assert loaded.label_agreement == loaded.saved_metrics()["label_agreement"] == pytest.approx(share)
    assert torch.equal(loaded.code_labels, quantizer.code_labels)


def test_label_agreement_ignores_skipped_steps_and_unknown_classes():
    quantizer = plane()
    quantizer(TOKENS, hints=hints((0, 0, -1)))
    quantizer.after_skipped_step()
    quantizer.after_step()
    assert quantizer.label_agreement is None
    assert quantizer(TOKENS, hints=hints((-1, -1, -1))).metrics["label_agreement"] == 1
    quantizer.after_step()
    assert quantizer.label_agreement is None
    assert "label_agreement" not in quantizer(TOKENS).metrics


def test_label_agreement_below_its_limit_is_an_alarm():
    quantizer = plane()
    assert quantizer.metric_alarm({"label_agreement": 0.95}) is None and quantizer.metric_alarm({}) is None
    assert "only 42.0% of the tokens" in quantizer.metric_alarm({"label_agreement": 0.42})


# In models


def test_class_guided_pretraining_uses_classes():
    model = fitted_model(OPTIONS, objectives={"mim": {"mask_stage": "pre", "grad_to_vit": True}}).train()
    model.cbvila.quantizer.code_labels.copy_(torch.arange(K) % 3)
    batch, classes = tiny_pairs(), some_classes()
    guided = model(**batch, token_classes=classes)
    latents = model.cbvila.quantizer.encode(model.cbvila.vision_model(batch["pixel_values"]).last_hidden_state[:, 1:])
    assert torch.equal(guided.codebook_indices, model.cbvila.quantizer.lookup(latents, CBViLAQuantizerHints(classes)))
    labels = model.cbvila.quantizer.code_labels[guided.codebook_indices]
    plain = model.cbvila.quantizer.code_labels[model(**batch).codebook_indices]
    assert (labels == classes).float().mean() > (plain == classes).float().mean()
    guided.loss.backward()
    assert [name for name, p in model.named_parameters() if p.grad is None] == []


def test_class_guided_masked_image_modeling():
    config = tiny_config()
    config.quantizer_config = OPTIONS
    model, batch = build(CBViLAForMaskedImageModeling, config), tiny_pairs()
    inputs = {name: batch[name] for name in ("pixel_values", "bool_masked_pos", "input_ids", "attention_mask")}
    initialize(model.cbvila.quantizer)
    model.cbvila.quantizer.code_labels.copy_(torch.arange(K) % 3)
    plain, guided = model(**inputs), model(**inputs, token_classes=some_classes())
    assert not torch.equal(plain.codebook_indices, guided.codebook_indices)
    assert torch.equal(model(**inputs).codebook_indices, plain.codebook_indices)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"penalty": -1.0}, "penalty=-1.0 must be at least 0"),
        ({"size": 1}, "size=1 must be at least 2"),
        ({"least_codes": -1}, "least_codes=-1 must be at least 0"),
        ({"hard": "yes"}, "hard='yes' is not of type bool"),
    ],
)
def test_class_guided_rejects_impossible_options(fields, message):
    with pytest.raises(ValueError, match=message):
        CBViLAConfig(quantizer_config={"type": "class_guided", **fields})


def test_other_quantizers_reject_classes():
    with pytest.raises(ValueError, match="'nearest' does not use token_classes"):
        pretraining_model()(**tiny_pairs(), token_classes=some_classes())
