"""LG-VQ: hand-computed values, gradient routing, and where its text features come from."""

import copy
import math

import pytest
import torch
import torch.nn.functional as F
from gradient_groups import GROUPS
from tiny import PATCHES, VOCABULARY, build, pretraining_model, tiny_config, tiny_pairs
from transformers import BertConfig, BertModel, set_seed
from two_processes import run_in_two

from transformers_cbvila.data.masking import generator_for
from transformers_cbvila.model.configuration_cbvila import CBViLAConfig
from transformers_cbvila.model.modeling_cbvila_masked_image_modeling import CBViLAForMaskedImageModeling
from transformers_cbvila.model.modeling_cbvila_pretraining import CBViLAForPreTraining
from transformers_cbvila.model.momentum_cbvila import MomentumTargets, MomentumTexts
from transformers_cbvila.model.objective_lgvq_cbvila import (
    TextFeatures,
    best_patches,
    masked_text_loss,
    relation_loss,
    semantic_loss,
)

TERMS = ("lgvq_semantic", "lgvq_masked_text", "lgvq_relation")
OWN = {f"lgvq {part}": (f"objectives.lgvq.{part}.",) for part in ("transformer", "decoder", "relation")}


def lgvq_model(options=None, **fields):
    objectives = {"lgvq": options or {}, **fields.pop("objectives", {})}
    return pretraining_model(objectives=objectives, **fields).train()


def lgvq_batch(batch=4, seed=0, **options):
    pairs = tiny_pairs(batch, seed=seed, **options)
    return pairs | {"masked_words": pairs["mlm_labels"] != -100}


def alone(model, *terms, batch=None, **inputs):
    """The output with only these terms on, its gradients in the model."""
    model.zero_grad()
    weights = dict.fromkeys(model.config.loss_weights(), 0.0) | dict.fromkeys(terms, 1.0)
    output = model(**(batch or lgvq_batch()), **inputs, loss_weights=weights)
    if output.loss is not None:
        output.loss.backward()
    return output


def near(value):
    return pytest.approx(value, abs=1e-6)


def doubles(*values):
    return torch.tensor(values, dtype=torch.float64)


# Values by hand


@pytest.mark.parametrize(("temperature", "expected"), [(1.0, 0.598139), (0.07, 0.055844)])
def test_semantic_loss_by_hand(temperature, expected):
    loss = semantic_loss(torch.eye(2).double(), doubles([4, 3], [3, 4]), temperature=temperature)
    assert loss.item() == near(expected)


def test_semantic_loss_at_temperature_1_has_a_small_range():
    images = torch.eye(2).double()
    assert semantic_loss(images, doubles([1, 1], [1, 1])).item() == near(math.log(2))
    assert semantic_loss(images, doubles([1, -1], [-1, 1])).item() > 0.126928
    assert semantic_loss(doubles([1, 0], [-1, 0]), doubles([1, 0], [-1, 0])).item() == near(0.126928)


def test_semantic_loss_of_one_pair_is_0():
    assert semantic_loss(doubles([1, 2]), doubles([3, 1])).item() == near(0)


def test_semantic_loss_compares_with_captions_of_all_processes():
    images, texts = torch.randn(2, 4, 3, generator=generator_for(0)).double()
    both = [semantic_loss(images[rows], texts, rows.start) for rows in (slice(0, 2), slice(2, 4))]
    torch.testing.assert_close(torch.stack(both).mean(), semantic_loss(images, texts))


def test_masked_text_loss_by_hand():
    logits, labels = doubles([2, 0, 0, 0], [0, 1, 0, 0]), torch.tensor([0, 2])
    found = [masked_text_loss(logits[i : i + 1], labels[i : i + 1], 0.1).item() for i in range(2)]
    assert found == [near(0.490753), near(1.718668)]
    assert masked_text_loss(logits, labels, 0.1).item() == near(1.104711)
    assert masked_text_loss(logits, labels).item() == near(1.042211)


@pytest.mark.parametrize(("vocabulary", "floor"), [(30522, 1.3577), (49408, 1.4058), (4, 0.3488)])
def test_masked_text_loss_has_a_floor(vocabulary, floor):
    target = torch.full((1, vocabulary), 0.1 / vocabulary, dtype=torch.float64)
    target[0, 0] += 0.9
    assert masked_text_loss(target.log(), torch.tensor([0]), 0.1).item() == pytest.approx(floor, abs=5e-5)


def test_relation_loss_by_hand():
    """With the identity in place of the projection."""
    words, patches = doubles([[1, 0], [0.6, 0.8], [9, -9]]), doubles([[2, 1], [0, 1]])
    chosen = best_patches(words, patches)
    assert chosen[0, :2].tolist() == [0, 0]
    assert best_patches(doubles([[0, 1]]), patches).tolist() == [[1]]
    states = doubles([[1, 1], [0, 2]]).gather(1, chosen.unsqueeze(-1).expand(-1, -1, 2))
    mask = torch.tensor([[True, True, False]])
    assert relation_loss(states, words, mask, pairs=9).item() == near(0.32 / 9) == near(0.035556)
    assert relation_loss(states, words, mask).item() == near(0.08)


# Terms in the model


def test_lgvq_terms_equal_their_functions():
    model, batch = lgvq_model(), lgvq_batch()
    output, objective = model(**batch), model.objectives["lgvq"]
    mask = batch["attention_mask"].bool()
    states = model.cbvila.text_model(batch["input_ids"], batch["attention_mask"]).last_hidden_state
    embeddings = model.cbvila.get_input_embeddings().weight
    text = TextFeatures.of(states, mask, embeddings)
    torch.testing.assert_close(text.sentences[1], states[1, : mask[1].sum()].mean(0))
    quantized = model.cbvila.quantizer.indices_to_quantized(output.codebook_indices)
    images, patches = objective.transformer(quantized)
    torch.testing.assert_close(output.losses["lgvq_semantic"], semantic_loss(images, text.sentences))
    masked = batch["masked_words"]
    logits = objective.decoder(text, mask, masked, patches)
    assert logits.shape == (4, VOCABULARY)
    expected = masked_text_loss(logits, batch["input_ids"][masked], 0.1)
    torch.testing.assert_close(output.losses["lgvq_masked_text"], expected)
    words = mask & (batch["input_ids"] >= 5)
    chosen = best_patches(text.tokens, patches).unsqueeze(-1).expand(-1, -1, quantized.shape[-1])
    expected = relation_loss(objective.relation(quantized.gather(1, chosen)), states, words, 49)
    torch.testing.assert_close(output.losses["lgvq_relation"], expected)


def test_lgvq_weights_are_those_of_its_terms():
    model = lgvq_model({"weight": 2.0, "semantic_weight": 0.5})
    assert {name: model.config.loss_weights()[name] for name in TERMS} == {
        "lgvq_semantic": 1.0,
        "lgvq_masked_text": 0.02,
        "lgvq_relation": 0.0002,
    }
    assert {model.config.loss_phases()[name] for name in TERMS} == {"stable"}
    output = model(**lgvq_batch())
    weighted = sum(model.config.loss_weights()[name] * value for name, value in output.losses.items())
    torch.testing.assert_close(output.loss, weighted)


def test_lgvq_predicts_masked_words_from_the_image():
    """Features of a masked word do not matter; those of its neighbours, and the image, do."""
    model, batch = lgvq_model(), lgvq_batch()
    decoder, mask, masked = model.objectives["lgvq"].decoder, batch["attention_mask"].bool(), batch["masked_words"]
    tokens, patches = torch.randn(4, 7, 24), torch.randn(4, PATCHES, 24)
    text = TextFeatures(tokens, tokens.mean(1), torch.randn(VOCABULARY, 24))
    logits = decoder(text, mask, masked, patches)
    hidden = torch.where((masked | ~mask).unsqueeze(-1), torch.randn(4, 7, 24), tokens)
    torch.testing.assert_close(decoder(text._replace(tokens=hidden), mask, masked, patches), logits)
    assert not torch.allclose(decoder(text._replace(tokens=tokens.flip(1)), mask, masked, patches), logits, atol=1e-3)
    assert not torch.allclose(decoder(text, mask, masked, patches.flip(0)), logits, atol=1e-3)


def test_lgvq_is_absent_in_evaluation():
    assert not set(TERMS) & set(lgvq_model().eval()(**lgvq_batch()).losses)


def test_lgvq_without_masked_words_leaves_their_term_out():
    losses = lgvq_model()(**tiny_pairs()).losses
    assert set(TERMS) & set(losses) == {"lgvq_semantic", "lgvq_relation"}


def test_lgvq_of_captions_without_words_is_0_with_a_gradient():
    model, batch = lgvq_model(), lgvq_batch()
    batch["input_ids"] = torch.tensor([[2, 3]] * 4)
    batch["attention_mask"] = torch.ones(4, 2, dtype=torch.long)
    batch["masked_words"] = torch.zeros(4, 2, dtype=torch.bool)
    batch = {name: value for name, value in batch.items() if name not in ("input_ids_masked", "mlm_labels")}
    output = alone(model, "lgvq_masked_text", "lgvq_relation", batch=batch)
    assert output.losses["lgvq_masked_text"] == 0 and output.losses["lgvq_relation"] == 0
    gradients = [p.grad for name, p in model.named_parameters() if "lgvq.decoder" in name or "lgvq.relation" in name]
    assert all(gradient is not None and not gradient.any() for gradient in gradients)


def test_lgvq_gives_every_parameter_a_gradient():
    model = lgvq_model()
    model(**lgvq_batch()).loss.backward()
    assert [name for name, parameter in model.named_parameters() if parameter.grad is None] == []


@pytest.mark.parametrize("term", ["masked_text", "relation"])
def test_lgvq_builds_no_part_of_a_term_without_weight(term):
    model = lgvq_model({f"{term}_weight": 0.0})
    part = {"masked_text": "decoder", "relation": "relation"}[term]
    assert not [name for name, _ in model.named_parameters() if f"lgvq.{part}" in name]
    assert f"lgvq_{term}" not in model(**lgvq_batch()).losses


def test_lgvq_takes_half_precision():
    model, batch = lgvq_model().bfloat16(), lgvq_batch()
    batch["pixel_values"] = batch["pixel_values"].bfloat16()
    output = model(**batch)
    output.loss.backward()
    assert all(output.losses[name].isfinite() and output.losses[name].dtype == torch.float32 for name in TERMS)


def test_lgvq_under_autocast():
    model, batch = lgvq_model(), lgvq_batch()
    expected = model(**batch).losses
    with torch.autocast("cpu", dtype=torch.bfloat16):
        losses = model(**batch).losses
    for name in TERMS:
        torch.testing.assert_close(losses[name].float(), expected[name], rtol=0.05, atol=0.02)


def test_lgvq_names_the_size_that_it_cannot_take():
    model, batch = lgvq_model(), lgvq_batch(side=48)
    with pytest.raises(ValueError, match="positions for 16 patches, and the images have 36"):
        model(**batch, interpolate_pos_encoding=True)


def test_lgvq_is_left_out_of_masked_image_modeling(tmp_path):
    model = build(CBViLAForMaskedImageModeling, objectives={"lgvq": {}})
    assert "lgvq" not in model.objectives
    lgvq_model().save_pretrained(tmp_path)
    loaded, info = CBViLAForMaskedImageModeling.from_pretrained(tmp_path, output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"] and "lgvq" not in loaded.objectives


def test_lgvq_save_and_load(tmp_path):
    model, batch = lgvq_model({"temperature": 0.5}), lgvq_batch()
    expected = model(**batch)
    model.save_pretrained(tmp_path)
    loaded = CBViLAForPreTraining.from_pretrained(tmp_path).train()
    assert loaded.config.objectives["lgvq"] == model.config.objectives["lgvq"]
    output = loaded(**batch)
    assert all(torch.equal(output.losses[name], expected.losses[name]) for name in TERMS)


# Gradient routing

TO_VIT = {"vit", "in_proj"}
ROUTES = {
    "lgvq_semantic": {"out_proj", "lgvq transformer"},
    "lgvq_masked_text": {"out_proj", "lgvq transformer", "lgvq decoder"},
    "lgvq_relation": {"out_proj", "lgvq relation"},
}
VARIANTS = {
    "recommended": ({}, {}, TO_VIT),
    "not to the image encoder": ({"grad_to_vit": False}, {}, set()),
    "codes by loss": ({}, {"codebook_update": "loss"}, TO_VIT),
}


def reached(model):
    groups = GROUPS | OWN
    largest = {}
    for name, parameter in model.named_parameters():
        group = next(group for group, prefixes in groups.items() if name.startswith(prefixes))
        size = 0.0 if parameter.grad is None else parameter.grad.abs().max().item()
        largest[group] = max(largest.get(group, 0.0), size)
    assert all(size == 0 or size > 1e-7 for size in largest.values())
    return {group for group, size in largest.items() if size > 0}


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("term", ROUTES)
def test_lgvq_gradient_routing(variant, term):
    """Neither codes, nor text encoder, nor fusion encoder."""
    options, fields, to_vit = VARIANTS[variant]
    model = lgvq_model(options, **fields)
    assert list(alone(model, term).losses) == [term]
    assert reached(model) == ROUTES[term] | to_vit


# Text features


def momentum_texts(seed=3):
    return MomentumTexts(
        torch.randn(4, 7, 24, generator=generator_for(seed)), torch.randn(VOCABULARY, 24, generator=generator_for(4))
    )


def test_lgvq_takes_texts_of_a_momentum_encoder():
    model, batch, texts = lgvq_model(), lgvq_batch(), momentum_texts()
    own, found = model(**batch), model(**batch, momentum=MomentumTargets(0.0, texts=texts))
    assert all(not torch.equal(own.losses[name], found.losses[name]) for name in TERMS)
    features = TextFeatures.of(texts.states, batch["attention_mask"].bool(), texts.word_embeddings)
    images, _ = model.objectives["lgvq"].transformer(
        model.cbvila.quantizer.indices_to_quantized(found.codebook_indices)
    )
    torch.testing.assert_close(found.losses["lgvq_semantic"], semantic_loss(images, features.sentences))


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    """The folder of a BERT of another width, with random weights and the vocabulary of tiny models."""
    folder = str(tmp_path_factory.mktemp("encoder"))
    set_seed(0)
    sizes = {"hidden_size": 20, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 40}
    BertModel(BertConfig(vocab_size=VOCABULARY, **sizes)).save_pretrained(folder)
    return folder


def test_lgvq_takes_a_text_encoder(encoder, tmp_path):
    model, batch = lgvq_model({"text_encoder": encoder}), lgvq_batch()
    assert model.config.objectives["lgvq"].text_size == 20
    output = alone(model, *TERMS, batch=batch)
    assert reached(model) == TO_VIT | set.union(*ROUTES.values())
    states = BertModel.from_pretrained(encoder).eval()(batch["input_ids"], batch["attention_mask"]).last_hidden_state
    features = TextFeatures.of(states, batch["attention_mask"].bool(), states)
    images, _ = model.objectives["lgvq"].transformer(
        model.cbvila.quantizer.indices_to_quantized(output.codebook_indices)
    )
    torch.testing.assert_close(output.losses["lgvq_semantic"], semantic_loss(images, features.sentences))
    assert not [name for name in model.state_dict() if "encoder" in name]
    assert model.train() and not model.objectives["lgvq"].encoder._model.training
    assert copy.deepcopy(model).objectives["lgvq"].encoder is model.objectives["lgvq"].encoder
    model.save_pretrained(tmp_path)


def test_lgvq_checkpoint_loads_without_its_text_encoder(encoder, tmp_path):
    model = lgvq_model({"text_encoder": encoder})
    model.config.objectives["lgvq"].text_encoder = "gone"
    model.save_pretrained(tmp_path)
    loaded = CBViLAForPreTraining.from_pretrained(tmp_path)
    assert torch.equal(loaded(**lgvq_batch()).loss, model.eval()(**lgvq_batch()).loss)
    with pytest.raises(ValueError, match=r"text_encoder='gone' cannot be loaded.*leave it out"):
        loaded.train()(**lgvq_batch())


def test_lgvq_rejects_an_encoder_of_another_vocabulary(encoder):
    with pytest.raises(ValueError, match=r"vocabulary of 60 tokens, and the model one of 61.*tokenizer="):
        lgvq_model({"text_encoder": encoder}, text={"vocab_size": 61})


# Options


@pytest.mark.parametrize(
    ("objectives", "message"),
    [
        ({"lgvq": {"temperature": 0.0}}, "temperature=0.0 must be above 0"),
        ({"lgvq": {"semantic_weight": -1.0}}, "semantic_weight=-1.0 must be at least 0"),
        ({"lgvq": {"text_size": 8}}, "text_size=8 is the width of a text_encoder, and none is named"),
        ({"lgvq": {"label_smoothing": 1.0}}, "label_smoothing=1.0 must be at least 0 and below 1"),
        ({"lgvq": {"relation_mean": "some"}}, "relation_mean='some' is not one of 'all', 'words'"),
        ({"lgvq": {"semantic_weight": 0.0, "masked_text_weight": 0.0}}, "relation_weight=0.0001 needs a weight"),
        ({"lgvq": {}, "pixel": {"grad_to_vit": False}}, r"\['lgvq'\]: grad_to_vit=True reads .* is False: set both"),
        ({"lgvq": {"grad_to_vit": False}, "mim": {"grad_to_vit": True}}, "grad_to_vit=False reads .* is True"),
    ],
)
def test_lgvq_rejects_bad_options(objectives, message):
    with pytest.raises(ValueError, match=message):
        CBViLAConfig(objectives=objectives)


def test_lgvq_rejects_masked_words_of_another_shape():
    batch = lgvq_batch() | {"masked_words": torch.zeros(4, 3, dtype=torch.bool)}
    with pytest.raises(ValueError, match=r"masked_words has shape \(4, 3\); expected that of input_ids, \(4, 7\)"):
        lgvq_model()(**batch)


# Several processes


def gradients(rank, rows):
    """Losses and gradients of some rows of a batch; longer captions are on one process only."""
    model, batch = lgvq_model({"weight": 100.0}), lgvq_batch(padding=(0, 2, 3, 3))
    own = {name: value[rows[rank]] for name, value in batch.items()}
    length = int(own["attention_mask"].sum(1).max())
    texts = ("input_ids", "attention_mask", "input_ids_masked", "mlm_labels", "masked_words")
    own |= {name: own[name][:, :length] for name in texts}
    output = alone(model, *TERMS, batch=own)
    return {n: v.detach() for n, v in output.losses.items()}, {
        n: p.grad for n, p in model.named_parameters() if p.grad is not None
    }


def test_lgvq_on_two_processes_equals_one(tmp_path):
    (first, by_first), (second, by_second) = run_in_two(gradients, tmp_path, [slice(0, 2), slice(2, 4)])
    expected, whole = gradients(0, [slice(0, 4)])
    for name, value in expected.items():
        torch.testing.assert_close((first[name] + second[name]) / 2, value, rtol=1e-5, atol=1e-5, msg=name)
    for name, value in whole.items():
        torch.testing.assert_close((by_first[name] + by_second[name]) / 2, value, rtol=1e-5, atol=1e-5, msg=name)
    assert F.cosine_similarity(by_first[name].flatten(), by_second[name].flatten(), dim=0) < 0.9999


def test_tiny_config_has_no_lgvq_by_default():
    assert "lgvq" not in tiny_config().objectives
