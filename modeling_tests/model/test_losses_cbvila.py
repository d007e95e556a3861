import math

import pytest
import torch
from tiny import tiny_config, tiny_pairs
from torch import nn

from transformers_cbvila.model.losses_cbvila import (
    answer_loss,
    bag_loss,
    candidate_ranking_loss,
    classification_loss,
    codebook_loss,
    commitment_loss,
    itc_loss,
    masked_mean,
    matching_scores,
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


def test_pixel_loss_normalize_by_hand():
    """The second patch, 3 0 0, has mean 1 and unbiased variance 3: 2/√3 and twice -1/√3, whose squares sum to 2."""
    mask = torch.tensor([[False, True]])
    assert pixel_loss(PREDICTIONS, TARGETS, mask, normalize=True).item() == pytest.approx(2 / 3, abs=1e-5)


def test_pixel_loss_likelihoods_by_hand():
    """Absolute errors 0 2 3 | 3 0 0; a Gaussian of scale 2 divides squares by 8, a Laplacian the rest by 2."""
    laplace, summed = {"likelihood": "laplace"}, {"reduction": "sum_patch"}
    assert pixel_loss(PREDICTIONS, TARGETS, **laplace).item() == pytest.approx(8 / 6)
    assert pixel_loss(PREDICTIONS, TARGETS, **summed).item() == pytest.approx((13 + 9) / 2)
    assert pixel_loss(PREDICTIONS, TARGETS, **laplace, **summed).item() == pytest.approx((5 + 3) / 2)
    assert pixel_loss(PREDICTIONS, TARGETS, sigma=2).item() == pytest.approx(22 / 6 / 8)
    assert pixel_loss(PREDICTIONS, TARGETS, sigma=2, **laplace).item() == pytest.approx(8 / 6 / 2)
    masked = pixel_loss(PREDICTIONS, TARGETS, torch.tensor([[True, False]]), sigma=1, **summed)
    assert masked.item() == pytest.approx(13 / 2), "the negative log-likelihood of a patch, up to its constant"


@pytest.mark.parametrize("likelihood", ["gaussian", "laplace"])
def test_pixel_loss_sum_patch_is_negative_log_likelihood(likelihood):
    predictions, targets = torch.randn(2, 2, 4, 6, dtype=torch.float64)
    sigma, normal = 0.7, likelihood == "gaussian"
    family = torch.distributions.Normal if normal else torch.distributions.Laplace
    slow = -family(predictions, sigma).log_prob(targets).sum(-1).mean()
    constant = 6 * math.log(sigma * (math.sqrt(2 * math.pi) if normal else 2))
    fast = pixel_loss(predictions, targets, likelihood=likelihood, reduction="sum_patch", sigma=sigma)
    torch.testing.assert_close(fast + constant, slow)


def test_codebook_and_commitment_loss_by_hand():
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


def test_itc_loss_ignores_known_matches():
    logits = torch.tensor([[0.0, 5.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 0.0]])
    matches = torch.eye(3, dtype=torch.bool)
    matches[0, 1] = True
    without = torch.tensor([[0.0, -1e9, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 0.0]])
    torch.testing.assert_close(itc_loss(logits, matches), itc_loss(without, torch.eye(3, dtype=torch.bool)))


@pytest.mark.parametrize("batch", [1, 2, 8])
def test_itc_loss_of_identical_embeddings_is_log_of_the_batch(batch):
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


def test_pixel_loss_with_mask_is_that_of_masked_patches():
    predictions, targets = torch.randn(2, 3, 6, 5)
    mask = torch.tensor([[True, False, True, False, False, False]]).repeat(3, 1)
    expected = pixel_loss(predictions[:, [0, 2]], targets[:, [0, 2]])
    torch.testing.assert_close(pixel_loss(predictions, targets, mask), expected)


@pytest.mark.parametrize(
    "loss",
    [
        lambda x: masked_mean(x, torch.zeros_like(x, dtype=torch.bool)),
        lambda x: pixel_loss(x.view(1, 2, 3), torch.ones(1, 2, 3), torch.zeros(1, 2, dtype=torch.bool)),
        lambda x: bag_loss(x, torch.zeros(2, 4, dtype=torch.long), torch.zeros(2, 4, dtype=torch.bool)),
        lambda x: classification_loss(x, torch.full((2,), -100)),
        lambda x: classification_loss(x[:0], torch.zeros(0, dtype=torch.long)),
        lambda x: itc_loss(x[:1, :1], torch.ones(1, 1, dtype=torch.bool)),
        lambda x: itc_loss(x[:, :2], torch.ones(2, 2, dtype=torch.bool)),
        lambda x: answer_loss(x.view(1, 2, 3), torch.full((1, 2), -100)),
        lambda x: answer_loss(x.view(1, 2, 3), torch.zeros(1, 2, dtype=torch.long), torch.zeros(1)),
    ],
)
def test_losses_of_nothing_are_zero_with_zero_gradient(loss):
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


def test_answer_loss_equals_slow_loop():
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


def test_patchify_is_row_by_row_with_channels_last():
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
def test_unpatchify_inverts_patchify(height, width):
    images = torch.randn(2, 3, height, width)
    assert torch.equal(unpatchify(patchify(images, 4), 4, height, width), images)


def test_patchify_order_equals_patch_embedding():
    """Patch n of the pixel target must be where the n-th visual token looks."""
    convolution = nn.Conv2d(3, 5, kernel_size=4, stride=4, bias=False)
    images = torch.randn(2, 3, 8, 12)
    tokens = convolution(images).flatten(2).transpose(1, 2)
    weights = convolution.weight.permute(2, 3, 1, 0).reshape(-1, 5)
    torch.testing.assert_close(patchify(images, 4) @ weights, tokens, atol=1e-5, rtol=1e-5)


# What an untrained model scores, and the floors beside it

WIDTH_OF_CODES = 32
LARGE = {
    "codebook_size": 3000,
    "text": {"vocab_size": 30522},
    "mim_cls_bag_weight": 1.0,
    "codebook_dim": WIDTH_OF_CODES,
}


@pytest.fixture(scope="module", params=["recommended", "paper", "recommended, tied"])
def untrained(request):
    """A fresh model with the ordinary initial weights, and as many codes and tokens as the paper's has."""
    preset, _, tied = request.param.partition(", ")
    torch.manual_seed(0)
    model = CBViLAForPreTraining(tiny_config(preset, **LARGE, mim_head=tied or "linear")).eval()
    with torch.no_grad():
        batch = tiny_pairs(batch=16)
        return model.config, batch, model(**batch)


@pytest.mark.parametrize("term, classes", [("mim", 3000), ("mlm", 30522), ("itm", 2)])
def test_untrained_classification_losses_are_log_of_the_classes(untrained, term, classes):
    """Their loss is ln K + σ²/2, with σ the standard deviation of the logits over the classes."""
    _, _, output = untrained
    variance = output[f"{term}_logits"].var(-1).mean().item()
    assert output.losses[term].item() == pytest.approx(math.log(classes) + variance / 2, abs=0.1)


def test_untrained_mim_cls_bag_loss_is_log_of_the_codes(untrained):
    assert untrained[2].losses["mim_cls_bag"].item() == pytest.approx(math.log(3000), abs=0.1)


def test_untrained_itm_loss_is_log_2():
    """Whoever answers "one of three" whatever the pair scores 0.6365."""
    labels = torch.tensor([1, 0, 0])
    prior = torch.tensor([[math.log(2), 0.0]]).expand(3, 2)
    assert classification_loss(prior, labels).item() == pytest.approx(0.6365, abs=1e-4)
    assert classification_loss(torch.zeros(3, 2), labels).item() == pytest.approx(math.log(2))


def test_untrained_pixel_loss_is_the_energy_of_targets_and_outputs(untrained):
    _, batch, output = untrained
    expected = batch["pixel_values"].square().mean() + output.pixel_predictions.square().mean()
    # a mask, where there is one, leaves three quarters of the patches
    assert output.losses["pixel"].item() == pytest.approx(expected.item(), abs=0.1)


def test_pixel_loss_baselines():
    """Who predicts the mean scores the variance; of patches normalised with the unbiased variance, (P - 1) / P."""
    targets = 3 + 2 * torch.randn(8, 16, 192, dtype=torch.float64)
    mean = pixel_loss(targets.mean().expand_as(targets), targets)
    torch.testing.assert_close(mean, targets.var(correction=0))
    normalised = pixel_loss(torch.zeros_like(targets), targets, normalize=True)
    assert normalised.item() == pytest.approx(191 / 192, abs=1e-5)


def test_untrained_itc_loss_is_log_of_the_batch(untrained):
    config, _, output = untrained
    if config.itc_weight == 0:
        assert "itc" not in output.losses
        return
    variance = (output.image_embeds @ output.text_embeds.T / 0.07).var()
    assert output.losses["itc"].item() == pytest.approx(math.log(16) + variance.item() / 2, abs=0.2)


def test_commitment_loss_of_unit_vectors_is_at_most_4_over_width(untrained):
    config, _, output = untrained
    assert output.losses["commitment"] > 0
    if config.codebook_norm == "l2":
        assert output.losses["commitment"] <= 4 / WIDTH_OF_CODES


def test_matching_scores_order_like_probabilities():
    logits = torch.tensor([[0.0, 1.0], [2.0, 2.5], [-3.0, 0.5]])
    scores = matching_scores(logits)
    assert scores.tolist() == [1.0, 0.5, 3.5]
    assert scores.argsort().tolist() == logits.softmax(-1)[:, 1].argsort().tolist() == [1, 0, 2]
    assert logits[:, 1].argsort().tolist() != scores.argsort().tolist()
    assert matching_scores(logits.bfloat16()).dtype == torch.float32


def test_candidate_ranking_loss_by_hand():
    """Two pairs with two negatives each; the second pair has one negative image and no negative text."""
    scores = torch.tensor([1.0, 2.0, 0.0, 1.0, 1.0, 7.0, 2.0, 7.0, 0.0, 7.0], dtype=torch.float64, requires_grad=True)
    labels = torch.tensor([1, 1, 0, 0, 0, -100, 0, -100, 0, -100])
    loss, counted = candidate_ranking_loss(scores, labels, 2)
    first = math.log(1 + math.exp(-1) + 1)  # -log softmax of 1 among 1, 0, 1
    second = math.log(1 + math.exp(-1))  # of 2 among 2, 1
    third = math.log(1 + math.exp(1) + math.exp(-1))  # of 1 among 1, 2, 0
    assert loss.item() == pytest.approx((first + second + third) / 3, abs=1e-12)
    assert counted.tolist() == [[True, True], [True, False]]
    (gradient,) = torch.autograd.grad(loss, scores)
    assert (gradient[labels < 0] == 0).all() and gradient.sum().item() == pytest.approx(0, abs=1e-12)


def test_candidate_ranking_loss_of_equal_scores_is_log_of_the_candidates():
    labels = torch.tensor([1] * 3 + [0] * 24)
    assert candidate_ranking_loss(torch.zeros(27), labels, 3)[0].item() == pytest.approx(math.log(5))


def test_candidate_ranking_loss_with_one_negative_is_that_of_the_difference():
    scores, labels = torch.randn(12), torch.tensor([1] * 4 + [0] * 8)
    differences = torch.cat([scores[:4] - scores[4:8], scores[:4] - scores[8:]])
    expected = torch.nn.functional.softplus(-differences).mean()
    torch.testing.assert_close(candidate_ranking_loss(scores, labels, 4)[0], expected)


def test_candidate_ranking_loss_without_negatives_is_0():
    loss, counted = candidate_ranking_loss(torch.randn(6), torch.full((6,), -100), 2)
    assert loss.item() == 0 and not counted.any()
