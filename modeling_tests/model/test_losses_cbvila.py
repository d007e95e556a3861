import math

import pytest
import torch
from tiny import CODES, VOCABULARY, tiny_config, tiny_pairs
from torch import nn

from transformers_cbvila.model.losses_cbvila import (
    answer_loss,
    classification_loss,
    codebook_loss,
    commitment_loss,
    itc_loss,
    masked_mean,
    patchify,
    pixel_loss,
    unpatchify,
)
from transformers_cbvila.model.modeling_cbvila_pretraining import CBViLAForPreTraining

PREDICTIONS = torch.tensor([[[1.0, 2.0, 3.0], [0.0, 0.0, 0.0]]])  # (1, 2, 3)
TARGETS = torch.tensor([[[1.0, 0.0, 0.0], [3.0, 0.0, 0.0]]])  # squared errors 0 4 9 | 9 0 0


def test_pixel_loss_by_hand():
    assert pixel_loss(PREDICTIONS, TARGETS).item() == pytest.approx(22 / 6)
    assert pixel_loss(PREDICTIONS, TARGETS, torch.tensor([[True, False]])).item() == pytest.approx(13 / 3)
    assert pixel_loss(PREDICTIONS, TARGETS, torch.tensor([[False, True]])).item() == pytest.approx(9 / 3)


def test_normalised_pixel_loss_by_hand():
    """The second patch, 3 0 0, has mean 1 and unbiased variance 3: 2/√3 and twice -1/√3, whose squares sum to 2."""
    mask = torch.tensor([[False, True]])
    assert pixel_loss(PREDICTIONS, TARGETS, mask, normalize=True).item() == pytest.approx(2 / 3, abs=1e-5)


def test_vector_quantisation_losses_by_hand():
    latents = torch.tensor([[1.0, 2.0, 3.0], [0.0, 0.0, 0.0]], requires_grad=True)
    codes = torch.tensor([[1.0, 0.0, 0.0], [3.0, 0.0, 0.0]], requires_grad=True)
    for loss, moved, kept in ((codebook_loss, codes, latents), (commitment_loss, latents, codes)):
        value = loss(latents, codes)
        assert value.item() == pytest.approx(22 / 6)
        (gradient,) = torch.autograd.grad(value, moved, retain_graph=True)
        torch.testing.assert_close(gradient, (moved - kept) * 2 / 6)
        assert torch.autograd.grad(value, kept, allow_unused=True) == (None,)


def test_classification_loss_by_hand():
    logits = torch.tensor([[0.0, math.log(2), 0.0], [0.0, 0.0, math.log(6)]])  # shares 1/4 1/2 1/4 | 1/8 1/8 3/4
    assert classification_loss(logits, torch.tensor([1, 0])).item() == pytest.approx((math.log(2) + math.log(8)) / 2)
    assert classification_loss(logits, torch.tensor([1, -100])).item() == pytest.approx(math.log(2))


def test_itc_loss_by_hand():
    logits = torch.tensor([[math.log(3), 0.0], [0.0, 0.0]])  # rows and columns: 3/4 and 1/2 on the diagonal
    expected = (math.log(4 / 3) + math.log(2)) / 2
    assert itc_loss(logits, torch.eye(2, dtype=torch.bool)).item() == pytest.approx(expected)


def test_itc_leaves_known_matches_out_of_the_sum():
    logits = torch.tensor([[0.0, 5.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 0.0]])
    matches = torch.eye(3, dtype=torch.bool)
    matches[0, 1] = True
    without = torch.tensor([[0.0, -1e9, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 0.0]])
    torch.testing.assert_close(itc_loss(logits, matches), itc_loss(without, torch.eye(3, dtype=torch.bool)))


@pytest.mark.parametrize("batch", [1, 2, 8])
def test_itc_of_identical_embeddings_is_log_of_the_batch(batch):
    assert itc_loss(torch.full((batch, batch), 3.0), torch.eye(batch, dtype=torch.bool)).item() == pytest.approx(
        math.log(batch), abs=1e-6
    )


def test_losses_are_zero_at_the_target():
    x = torch.randn(2, 5, 3)
    assert pixel_loss(x, x) == 0 and codebook_loss(x, x) == 0 and commitment_loss(x, x) == 0
    certain = torch.eye(4) * 1e4
    assert classification_loss(certain, torch.arange(4)) == 0
    assert itc_loss(certain, torch.eye(4, dtype=torch.bool)) == 0
    assert answer_loss(certain.unsqueeze(0), torch.arange(4).unsqueeze(0)) == 0


def test_masked_pixel_loss_is_the_loss_of_the_masked_patches():
    predictions, targets = torch.randn(2, 3, 6, 5)
    mask = torch.tensor([[True, False, True, False, False, False]]).repeat(3, 1)
    expected = pixel_loss(predictions[:, [0, 2]], targets[:, [0, 2]])
    torch.testing.assert_close(pixel_loss(predictions, targets, mask), expected)


@pytest.mark.parametrize(
    "loss",
    [
        lambda x: masked_mean(x, torch.zeros_like(x, dtype=torch.bool)),
        lambda x: pixel_loss(x.view(1, 2, 3), torch.ones(1, 2, 3), torch.zeros(1, 2, dtype=torch.bool)),
        lambda x: classification_loss(x, torch.full((2,), -100)),
        lambda x: classification_loss(x[:0], torch.zeros(0, dtype=torch.long)),
        lambda x: itc_loss(x[:1, :1], torch.ones(1, 1, dtype=torch.bool)),
        lambda x: itc_loss(x[:, :2], torch.ones(2, 2, dtype=torch.bool)),
        lambda x: answer_loss(x.view(1, 2, 3), torch.full((1, 2), -100)),
        lambda x: answer_loss(x.view(1, 2, 3), torch.zeros(1, 2, dtype=torch.long), torch.zeros(1)),
    ],
)
def test_nothing_to_score_is_zero_with_a_zero_gradient(loss):
    x = torch.randn(2, 3, requires_grad=True)
    value = loss(x)
    assert value.item() == 0
    value.backward()
    assert torch.equal(x.grad, torch.zeros_like(x))


@pytest.mark.parametrize("given, computed", [(torch.float64, torch.float64), (torch.bfloat16, torch.float32)])
def test_losses_are_computed_in_at_least_fp32(given, computed):
    x, y = torch.randn(2, 2, 3, 3).to(given)
    labels, matches = torch.tensor([0, 1, 2]), torch.eye(3, dtype=torch.bool)
    values = [pixel_loss(x, y), classification_loss(x[0], labels), itc_loss(x[0], matches)]
    values.append(answer_loss(x, labels.expand(2, 3), torch.ones(2, dtype=torch.float32)))
    assert {value.dtype for value in values} == {computed}


def test_answer_loss_is_the_slow_loops():
    logits, weights = torch.randn(3, 4, 7), torch.tensor([0.5, 2.0, 1.0])
    labels = torch.tensor([[1, 2, 3, 6], [5, 6, -100, -100], [0, 1, 6, -100]])
    answers = []
    for row, answer in zip(logits, labels.tolist(), strict=True):
        terms = [-row[t].log_softmax(-1)[token] for t, token in enumerate(answer) if token != -100]
        answers.append(sum(terms))
    torch.testing.assert_close(answer_loss(logits, labels), sum(answers) / 3)
    expected = sum(w * a for w, a in zip(weights, answers, strict=True)) / weights.sum()
    torch.testing.assert_close(answer_loss(logits, labels, weights), expected)


# Patches


def test_patchify_lays_patches_out_row_by_row_with_channels_last():
    images, patch = torch.arange(2 * 3 * 4 * 6.0).view(2, 3, 4, 6), 2
    patches = patchify(images, patch)
    assert patches.shape == (2, 6, 12)
    for b in range(2):
        for row in range(2):
            for column in range(3):
                for y in range(patch):
                    for x in range(patch):
                        for c in range(3):
                            value = images[b, c, row * patch + y, column * patch + x]
                            assert patches[b, row * 3 + column, (y * patch + x) * 3 + c] == value


@pytest.mark.parametrize("height, width", [(8, 8), (4, 12)])
def test_unpatchify_is_the_inverse(height, width):
    images = torch.randn(2, 3, height, width)
    assert torch.equal(unpatchify(patchify(images, 4), 4, height, width), images)


def test_patches_come_in_the_order_of_the_patch_embedding():
    """Patch n of the pixel target must be where the n-th visual token looks."""
    convolution = nn.Conv2d(3, 5, kernel_size=4, stride=4, bias=False)
    images = torch.randn(2, 3, 8, 12)
    tokens = convolution(images).flatten(2).transpose(1, 2)
    weights = convolution.weight.permute(2, 3, 1, 0).reshape(-1, 5)
    torch.testing.assert_close(patchify(images, 4) @ weights, tokens, atol=1e-5, rtol=1e-5)


# What an untrained model scores


@pytest.fixture(scope="module")
def untrained():
    """A fresh model with the ordinary initial weights, and the narrow logits these give."""
    torch.manual_seed(0)
    model = CBViLAForPreTraining(tiny_config()).eval()
    with torch.no_grad():
        return model(**tiny_pairs(batch=8))


@pytest.mark.parametrize("term, classes", [("mim", CODES), ("mlm", VOCABULARY), ("itm", 2)])
def test_untrained_classifiers_know_nothing(untrained, term, classes):
    variance = untrained[f"{term}_logits"].var()
    assert untrained.losses[term].item() == pytest.approx(math.log(classes) + variance.item() / 2, abs=0.1)


def test_untrained_contrast_is_no_better_than_guessing(untrained):
    variance = (untrained.image_embeds @ untrained.text_embeds.T / 0.07).var()
    assert untrained.losses.itc.item() == pytest.approx(math.log(8) + variance.item() / 2, abs=0.2)


def test_commitment_of_unit_vectors_is_at_most_four_over_the_width(untrained):
    assert 0 < untrained.losses.commitment <= 4 / 8
