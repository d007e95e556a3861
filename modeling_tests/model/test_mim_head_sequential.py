"""MIM's sequential head: a distribution over whole patches, which independent books cannot learn, and no leaks."""

import itertools
import math

import pytest
import torch
import torch.nn.functional as F
from tiny import PATCH, PATCHES, build, pretraining_model, tiny_config, tiny_images, tiny_processor

from transformers_cbvila.model.decoding_steps_cbvila import sample_codes
from transformers_cbvila.model.losses_cbvila import books_loss, likeliest_codes
from transformers_cbvila.model.mim_head_sequential_cbvila import CBViLASequentialMIMHead
from transformers_cbvila.model.modeling_cbvila_masked_image_modeling import CBViLAForMaskedImageModeling
from transformers_cbvila.model.modeling_cbvila_queries import EncodedImage
from transformers_cbvila.training.codebook.mim_heads import reset_heads

SIZES, WIDTH = (3, 2, 4), 6
RESIDUAL = {"quantizer_config": {"type": "residual", "depth": 2, "size": 8}}
SEQUENTIAL = RESIDUAL | {"objectives": {"mim": {"head": "sequential"}}}


def head(seed=0):
    torch.manual_seed(seed)
    return CBViLASequentialMIMHead(WIDTH, SIZES)


def given(indices):
    return lambda logits, book: indices[..., book]


def log_probabilities(logits, indices, sizes=SIZES):
    parts = zip(logits.split(list(sizes), dim=-1), indices.unbind(-1), strict=True)
    return sum(part.log_softmax(-1).gather(-1, codes.unsqueeze(-1)).squeeze(-1) for part, codes in parts)


def test_the_probabilities_of_all_patches_sum_to_one():
    patches = torch.tensor(list(itertools.product(*map(range, SIZES))))
    states = torch.randn(WIDTH).expand(len(patches), -1)
    chosen, logits = head()(states, given(patches))
    assert torch.equal(chosen, patches)
    assert log_probabilities(logits, patches).exp().sum().item() == pytest.approx(1, abs=1e-6)


def test_a_book_sees_the_books_before_and_no_others():
    layer, states = head(), torch.randn(1, WIDTH)
    rows = torch.tensor([[0, 0, 0], [0, 0, 3], [0, 1, 0], [2, 0, 0]])
    first, second, third = layer(states.expand(4, -1), given(rows))[1].split(list(SIZES), dim=-1)
    torch.testing.assert_close(first, first[:1].expand_as(first))
    torch.testing.assert_close(second[:3], second[:1].expand(3, -1))
    assert not torch.allclose(second[3], second[0])
    torch.testing.assert_close(third[0], third[1])
    assert not torch.allclose(third[2], third[0]) and not torch.allclose(third[3], third[0])


def test_samples_have_the_probabilities_of_the_head():
    layer, count = head(), 40_000
    generator = torch.Generator().manual_seed(0)
    states = torch.randn(1, 1, WIDTH).expand(1, count, -1)
    with torch.no_grad():
        found, logits = layer(states, lambda scores, book: sample_codes(scores, generator=generator))
        patches = torch.tensor(list(itertools.product(*map(range, SIZES))))
        expected = log_probabilities(layer(states[0, : len(patches)], given(patches))[1], patches).exp()
    assert logits.shape == (1, count, sum(SIZES))
    counts = (found[0].unsqueeze(1) == patches).all(-1).float().mean(0)
    torch.testing.assert_close(counts, expected, atol=0.01, rtol=0)


def test_it_learns_books_that_depend_on_each_other():
    """Both codes are a fair coin, and equal: ln 2 a patch in all, of which independent books pay twice."""
    torch.manual_seed(0)
    layer = CBViLASequentialMIMHead(WIDTH, (2, 2))
    optimizer = torch.optim.Adam(layer.parameters(), 0.02)
    states = torch.randn(64, WIDTH)
    codes = (torch.arange(64) % 2).unsqueeze(-1).expand(-1, 2)
    states = states[torch.arange(64) // 2]  # each state has both codes once, and tells nothing of them
    for _ in range(200):
        loss = books_loss(layer(states, given(codes))[1], codes, (2, 2))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() == pytest.approx(math.log(2) / 2, abs=0.01)
    found, _ = layer(states, lambda scores, book: sample_codes(scores.unsqueeze(0)).squeeze(0))
    assert torch.equal(found[:, 0], found[:, 1]) and 0 < found[:, 0].float().mean() < 1


def inputs():
    encoded = tiny_processor()(text=["a red circle", "blue"], padding=True, return_tensors="pt")
    return {"input_ids": encoded["input_ids"], "attention_mask": encoded["attention_mask"]}


def test_the_loss_is_that_of_true_codes_before_and_the_logits_are_of_the_likeliest():
    model = build(CBViLAForMaskedImageModeling, tiny_config(**SEQUENTIAL)).eval()
    images, hidden = tiny_images(2), torch.arange(2 * PATCHES).view(2, -1) % 3 == 0
    with torch.no_grad():
        output = model(images, hidden, **inputs())
        vision = model.cbvila.vision_model(images).last_hidden_state
        whole = EncodedImage(vision[:, 0], model.cbvila.quantizer(vision[:, 1:]))
        text = model.cbvila.text_model(**inputs()).last_hidden_state
        fuse = model.fusion_with(images, text, inputs()["attention_mask"])
        states = model.ask_for_codes(fuse, model.encode_visible(images, whole, hidden, None), hidden)[0].states
        likeliest = likeliest_codes(output.logits, model.mim.book_sizes)
        own, of_truth = (
            model.mim.scores(states, whole.quantized.codes, indices)
            for indices in (likeliest, whole.quantized.indices)
        )
    torch.testing.assert_close(own, output.logits)
    expected = books_loss(of_truth[hidden], output.codebook_indices[hidden], model.mim.book_sizes)
    torch.testing.assert_close(output.losses["mim"], expected)
    assert not torch.allclose(of_truth, own)


def test_reconstruction_does_not_look_at_hidden_codes():
    """What is hidden is predicted from own choices: another image there changes nothing (masks before the encoder)."""
    changes = SEQUENTIAL | {"objectives": {"mim": {"head": "sequential", "mask_stage": "pre"}}}
    model = pretraining_model(**changes).eval()
    images = tiny_images(1)
    hidden = torch.zeros(1, PATCHES, dtype=torch.bool)
    hidden[:, 0] = True
    others = images.clone()
    others[..., :PATCH, :PATCH] += 3
    one, two = (model.reconstruct(pixels, bool_masked_pos=hidden).codebook_indices for pixels in (images, others))
    assert torch.equal(one, two)


def test_its_gradient_reaches_every_layer():
    model = pretraining_model(**SEQUENTIAL)
    images, hidden = tiny_images(2), torch.ones(2, PATCHES, dtype=torch.bool)
    weights = dict.fromkeys(model.config.loss_weights(), 0.0) | {"mim": 1.0}
    model(pixel_values=images, bool_masked_pos=hidden, **inputs(), loss_weights=weights).loss.backward()
    assert [name for name, p in model.mim.head.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_new_codes_reset_all_its_layers():
    model = pretraining_model(**SEQUENTIAL)
    before = {name: value.clone() for name, value in model.mim.head.state_dict().items()}
    assert reset_heads(model, seed=0, step=3) == ["mim.head"]
    after = model.mim.head.state_dict()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed >= {name for name in before if name.endswith("weight") and "norm" not in name}
    again = pretraining_model(**SEQUENTIAL)
    reset_heads(again, seed=0, step=3)
    assert all(torch.equal(value, again.mim.head.state_dict()[name]) for name, value in after.items())


def test_it_is_saved_and_loaded(tmp_path):
    model = pretraining_model(**SEQUENTIAL).eval()
    model.save_pretrained(tmp_path)
    loaded = type(model).from_pretrained(tmp_path).eval()
    drawn, again = (
        one.generate_images(**inputs(), generator=torch.Generator().manual_seed(0)).codebook_indices
        for one in (model, loaded)
    )
    assert torch.equal(drawn, again)


def test_one_book_is_refused():
    with pytest.raises(ValueError, match="head='sequential' predicts one book after the other.*'nearest' has one"):
        tiny_config(objectives={"mim": {"head": "sequential"}})


def test_of_one_book_after_the_other_the_first_is_linear():
    layer = head()
    states = torch.randn(5, WIDTH)
    logits = layer(states, lambda scores, book: scores.argmax(-1))[1]
    torch.testing.assert_close(logits[:, :3], F.linear(states, layer.first.weight, layer.first.bias))
