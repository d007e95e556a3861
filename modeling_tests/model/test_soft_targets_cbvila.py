"""Soft targets of the contrastive loss: hand values, limits, gradients, and the model with them."""

import math

import pytest
import torch
import torch.nn.functional as F
from tiny import build, pretraining_model, tiny_pairs

from transformers_cbvila.model.configuration_cbvila import CBViLAConfig
from transformers_cbvila.model.losses_cbvila import itc_loss, soft_cross_entropy
from transformers_cbvila.model.modeling_cbvila_image_text_retrieval import CBViLAForImageTextRetrieval
from transformers_cbvila.model.momentum_cbvila import MomentumPairs, MomentumTargets, momentum_itc_loss
from transformers_cbvila.model.soft_targets_cbvila import blog_targets, soft_targets

TEXTS = [[1.0, 0.0], [0.6, 0.8]]
IMAGES = [[0.8, 0.6], [0.0, 1.0]]


def double(rows):
    return torch.tensor(rows, dtype=torch.float64)


def soft_loss(images, texts, temperature, target_temperature):
    logits = images @ texts.T / temperature
    targets = soft_targets((images, texts), (images, texts), target_temperature)
    return (soft_cross_entropy(logits, targets) + soft_cross_entropy(logits.T, targets)) / 2


def blog_loss(images, texts, temperature):
    logits = images @ texts.T / temperature
    of_images, of_texts = blog_targets((images, texts), temperature)
    return (soft_cross_entropy(logits, of_images) + soft_cross_entropy(logits.T, of_texts)) / 2


@pytest.mark.parametrize("target_temperature, expected", [(1.0, 0.781737), (0.1, 0.536408), (0.001, 0.524897)])
def test_soft_targets_hand_values(target_temperature, expected):
    assert soft_loss(double(IMAGES), double(TEXTS), 0.5, target_temperature).item() == pytest.approx(
        expected, abs=1e-6
    )


def test_soft_targets_of_two_pairs():
    both = double(IMAGES), double(TEXTS)
    targets = soft_targets(both, both, 0.1)
    assert targets[0, 0].item() == pytest.approx(0.982014, abs=1e-6)
    torch.testing.assert_close(targets, targets.T)


def test_soft_targets_become_one_hot():
    images, texts = double(IMAGES), double(TEXTS)
    one_hot = itc_loss(images @ texts.T / 0.5, torch.eye(2, dtype=torch.bool))
    torch.testing.assert_close(soft_loss(images, texts, 0.5, 1e-3), one_hot)


def test_soft_targets_are_shared_by_equal_pairs():
    same = double([[1, 0], [1, 0], [0, 1]])
    targets = soft_targets((same, same), (same, same), 0.1)
    assert targets[0].tolist() == pytest.approx([0.499989, 0.499989, 0.000023], abs=1e-6)
    assert soft_loss(same, same, 0.5, 0.1).item() == pytest.approx(0.585688, abs=1e-6)


def test_soft_targets_of_one_pair_are_certain():
    one = double([[0.6, 0.8]])
    assert soft_targets((one, one), (one, one), 0.1).tolist() == [[1.0]] and soft_loss(one, one, 0.5, 0.1).item() == 0


def test_soft_targets_equal_a_slow_loop():
    generator = torch.Generator().manual_seed(0)
    images, texts = F.normalize(torch.randn(2, 5, 4, generator=generator, dtype=torch.float64), dim=-1)
    found = soft_targets((images[1:3], texts[1:3]), (images, texts), 0.2)
    for row in range(2):
        own = 1 + row
        alike = [math.exp(float(images[own] @ images[n] + texts[own] @ texts[n]) / 2 / 0.2) for n in range(5)]
        assert found[row].tolist() == pytest.approx([value / sum(alike) for value in alike])


@pytest.mark.parametrize(
    "temperature, row, expected", [(1.0, [0.598688, 0.401312], 0.702142), (0.07, [0.507000, 0.493000], 3.445007)]
)
def test_blog_hand_values(temperature, row, expected):
    _, of_texts = blog_targets((double(IMAGES), double(TEXTS)), temperature)
    assert of_texts.tolist() == [pytest.approx(row, abs=1e-6), pytest.approx(row[::-1], abs=1e-6)]
    assert blog_loss(double(IMAGES), double(TEXTS), temperature).item() == pytest.approx(expected, abs=1e-6)


def test_blog_targets_tell_nothing_at_the_usual_temperature():
    """The flaw: embeddings of unit length and a temperature that multiplies."""
    both = double(IMAGES), double(TEXTS)
    as_in_the_blog = soft_targets(both, both, 1 / 0.07)
    assert as_in_the_blog[0].tolist() == pytest.approx([0.507, 0.493], abs=1e-6)
    uniform = torch.full((2, 2), 0.5, dtype=torch.float64)
    logits = both[0] @ both[1].T / 0.07
    assert blog_loss(*both, 0.07).item() == pytest.approx(soft_cross_entropy(logits, uniform).item(), rel=0.02)


def test_blog_targets_of_images_do_not_sum_to_one():
    texts = F.normalize(double([[1, 0], [1, 1], [1, 2]]), dim=-1)
    images = F.normalize(double([[2, 1], [0, 1], [1, 1]]), dim=-1)
    sums = soft_targets((images, texts), (images, texts), 1.0).sum(0)
    assert sums.tolist() == pytest.approx([0.966425, 1.000254, 1.033320], abs=1e-6)
    assert blog_loss(images, texts, 1.0).item() == pytest.approx(1.107992, abs=1e-6)


def test_gradient_flows_into_the_targets_of_the_blog_only():
    def gradient(loss):
        images = double(IMAGES).requires_grad_()
        loss(images).backward()
        return images.grad

    texts = double(TEXTS)
    targets = soft_targets((double(IMAGES), texts), (double(IMAGES), texts), 2.0)

    def with_constant_targets(images):
        logits = images @ texts.T / 0.5
        return (soft_cross_entropy(logits, targets) + soft_cross_entropy(logits.T, targets.T)) / 2

    constant = gradient(with_constant_targets)
    torch.testing.assert_close(gradient(lambda images: soft_loss(images, texts, 0.5, 2.0)), constant)
    blog = gradient(lambda images: blog_loss(images, texts, 0.5))  # of the same targets
    assert (blog - constant).abs().max() > 0.01


# Models


@pytest.mark.parametrize("options", [{}, {"target_temperature": 0.5}, {"compat": "blog"}])
def test_model_with_soft_targets_by_hand(options):
    model, batch = pretraining_model(objectives={"itc": {"targets": "soft", **options}}), tiny_pairs()
    output = model(**batch)
    images, texts = output.image_embeds, output.text_embeds
    temperature = 1 / model.cbvila.similarity_scale()
    if options.get("compat"):
        expected = blog_loss(images, texts, temperature)
    else:
        expected = soft_loss(images, texts, temperature, options.get("target_temperature", 0.02))
    torch.testing.assert_close(output.losses["itc"], expected)
    plain = pretraining_model()(**batch)
    changed = {name for name, value in output.losses.items() if not torch.equal(value, plain.losses[name])}
    assert changed == {"itc"}


def test_soft_targets_train_what_one_hot_ones_train():
    batch, trained = tiny_pairs(), []
    for targets in ("one_hot", "soft"):
        model = pretraining_model(objectives={"itc": {"targets": targets}})
        model(**batch).losses["itc"].backward()
        trained.append({name for name, p in model.named_parameters() if p.grad is not None and p.grad.any()})
    assert trained[0] == trained[1] and "cbvila.logit_scale" in trained[0]


def test_retrieval_with_soft_targets():
    model = build(CBViLAForImageTextRetrieval, objectives={"itc": {"targets": "soft"}})
    names = ("pixel_values", "input_ids", "attention_mask")
    batch = {name: value for name, value in tiny_pairs().items() if name in names}
    output = model(**batch, return_loss=True)
    expected = soft_loss(output.image_embeds, output.text_embeds, 1 / model.cbvila.similarity_scale(), 0.02)
    torch.testing.assert_close(output.itc_loss, expected)


def momentum_of(images, texts, alpha=0.0, extra=2):
    generator = torch.Generator().manual_seed(3)
    queue = F.normalize(torch.randn(2, extra, images.shape[1], generator=generator), dim=-1).to(images.dtype)
    count = len(images) + extra
    ids = torch.arange(count), torch.arange(count), torch.empty(count, 0, dtype=torch.long)
    return MomentumTargets(alpha, MomentumPairs(torch.cat([images, queue[0]]), torch.cat([texts, queue[1]]), *ids))


@pytest.mark.parametrize("alpha", [0.0, 0.4])
def test_soft_targets_with_a_queue_are_the_teachers(alpha):
    generator = torch.Generator().manual_seed(1)
    own, teacher = F.normalize(torch.randn(2, 2, 3, 4, generator=generator, dtype=torch.float64), dim=-1)
    momentum = momentum_of(*teacher, alpha)
    keys = momentum.pairs

    def similarity(images, texts):
        return images @ texts.T / 0.5

    targets = soft_targets(tuple(teacher), keys[:2], 0.1)
    per_image, per_text = similarity(own[0], keys.text_embeds), similarity(keys.image_embeds, own[1]).T
    of_images = similarity(teacher[0], keys.text_embeds).softmax(-1)
    of_texts = similarity(keys.image_embeds, teacher[1]).T.softmax(-1)
    expected = sum(
        (1 - alpha) * soft_cross_entropy(rows, targets) + alpha * soft_cross_entropy(rows, taught)
        for rows, taught in ((per_image, of_images), (per_text, of_texts))
    )
    found = momentum_itc_loss(similarity, *own, momentum, target_temperature=0.1)
    torch.testing.assert_close(found, expected / 2)


def test_soft_targets_without_queue_and_of_the_model_itself_are_those_of_the_batch():
    model, batch = pretraining_model(objectives={"itc": {"targets": "soft"}}), tiny_pairs()
    plain = model(**batch)
    momentum = momentum_of(plain.image_embeds.detach(), plain.text_embeds.detach(), extra=0)
    torch.testing.assert_close(model(**batch, momentum=momentum).losses["itc"], plain.losses["itc"])


def test_the_blogs_loss_takes_no_momentum_encoder():
    model, batch = pretraining_model(objectives={"itc": {"targets": "soft", "compat": "blog"}}), tiny_pairs()
    plain = model(**batch)
    with pytest.raises(ValueError, match="train without momentum_distill and queue_size"):
        model(**batch, momentum=momentum_of(plain.image_embeds.detach(), plain.text_embeds.detach()))


@pytest.mark.parametrize(
    "options, said",
    [
        ({"target_temperature": 0.1}, "target_temperature=0.1 is for targets='soft'"),
        ({"compat": "blog"}, "compat='blog' is for targets='soft'"),
        ({"targets": "soft", "target_temperature": 0.0}, "target_temperature=0.0 must be above 0"),
        ({"targets": "soft", "target_temperature": 0.1, "compat": "blog"}, "has no target_temperature of its own"),
        ({"targets": "hard"}, "targets='hard' is not one of 'one_hot', 'soft'"),
    ],
)
def test_impossible_options(options, said):
    with pytest.raises(ValueError, match=said):
        CBViLAConfig(objectives={"itc": options})
